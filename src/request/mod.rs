//! One request, one meaning: the canonical host and path that policy, log and app all see, sound framing, the fields that end here, and what those in
//! front may say of the client, or ask for it. Pure.

mod asked;
mod forwarded;
pub mod framing;
pub mod hop;
mod host;
mod path;
pub mod upgrade;
mod proxy_header;

pub use asked::{Asked, Manner, asked, same_segments};
pub use forwarded::{Spoken, Via, client_cert, client_cert_fields, spoken};
pub use hop::wants_upgrade;
pub use host::{Authority, authority_after, authority_of, host};
pub use path::{EncodedSlash, Parameters, PathOptions, Slashes, path};
pub use proxy_header::{Progress, ProxyHeader, proxy_header};
pub use upgrade::Upgrade;

/// Why a request has no single meaning. Answered 400; the text is fit for a person and never repeats the request's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
