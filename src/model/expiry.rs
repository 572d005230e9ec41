//! When what a file vouches for ends.

use std::path::Path;

/// When what a file holds ends; of several in one file the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The file's name.
    pub name: String,
    pub what: Lasting,
    /// Seconds since the epoch.
    pub ends: i64,
}

impl Expiry {
    pub fn new(path: &Path, what: Lasting, ends: i64) -> Self {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Self { name, what, ends }
    }
}

/// What has an end, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// A listener's.
    Certificate,
    /// Of devices' certificates.
    Authority,
    Crl,
    /// What the proxy presents itself with to an app's servers.
    Presented,
    /// Of the certificates of an app's servers.
    AppAuthority,
}
