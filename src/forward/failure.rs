//! Why a request got no answer from its app.

use std::io;
use std::time::Duration;

use crate::model::RestrictionKey;

/// The connection to the app, where there was one, is not used again in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The app's side: no server took a connection within the connect timeout, or all permitted connections are in use. No byte was sent, or
    /// the app said that it did not look at the request. 503.
    #[error("no server of the app could be reached")]
    Unreachable(#[source] io::Error),
    /// The app's side: no response head within the response timeout, or the app stopped reading the request. 504.
    #[error("the app did not answer in time")]
    Timeout,
    /// Nobody's that can be told: gRPC of which neither side said anything for the idle timeout, and either may be the one whose turn it is. 504.
    #[error("neither the client nor the app said anything in time")]
    Silence,
    /// The app's side: it closed before its response head was whole, or answered what is not sound HTTP. 502.
    #[error("the app's answer was not sound")]
    Broken(#[source] Broken),
    /// The app answered, and a restriction keeps its answer back. `upstream`: from taking the order to the response's head. 403.
    #[error("restrict.{} keeps the answer back", key.as_str())]
    Restricted { key: RestrictionKey, upstream: Duration },
    /// The client's side: more body than permitted, by its declared length (then the app was never asked) or by its bytes. 413.
    #[error("the request's body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    /// The client's side: the request's body stood still for the idle timeout. 400.
    #[error("the client stopped sending its request")]
    ClientTimeout,
    /// The client's side: it left, or broke its own framing, before its request was whole. 400, if anybody is there to read it.
    #[error("the client left before its request was whole")]
    ClientGone,
}

#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] ::h2::Error),
    #[error("{0}")]
    Framing(&'static str),
}
