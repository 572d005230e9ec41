//! One request, one meaning: the canonical host and path that policy, log and app all see, sound framing, and the fields that end here. Pure.

pub mod framing;
pub mod hop;
mod host;
mod path;

pub use hop::wants_upgrade;
pub use host::{Authority, authority_of, host};
pub use path::{EncodedSlash, Parameters, PathOptions, Slashes, path};

/// Why a request has no single meaning. Answered 400; the text is fit for a person and never repeats the request's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
