//! A canonical host name.

use std::fmt;
use std::sync::Arc;

/// A host in canonical form: lower case, no trailing dot, no port, IPv6 in brackets. Made by `request::host` only; whoever
/// holds one may compare it byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// For `request::host`, which guarantees the form.
    pub(crate) fn canonical(text: &str) -> Self {
        Self(Arc::from(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
