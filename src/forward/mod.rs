//! Carries a permitted request to its app and the answer back: upstream pool, balancing, header hygiene, restricted bodies, rates.
//!
//! Everything here belongs to one worker and its single-threaded runtime, but for `Rates` and `Servers`, which are the process's, and `Rounds`, a
//! thread of its own. No locks and no timers on the path of a request that nobody delays.

mod arriving;
mod balance;
mod body;
mod bound;
mod cookies;
mod driven;
mod expect;
mod failure;
mod fate;
mod fingerprints;
mod fitness;
mod frames;
mod health;
mod http2;
mod hygiene;
mod io;
mod order;
mod paced;
mod pool;
mod proxy_header;
mod rates;
mod response;
mod rest;
mod rounds;
mod secure;
mod send;
mod servers;
mod socket;
mod timer;
mod told;
mod trickle;
mod tunnel;
mod upload;
mod upstreams;

#[cfg(test)]
mod tests;

pub use body::{Body, Cut, End, Ended, Turn};
pub use cookies::NOTICE_COOKIES;
pub use failure::{Broken, Failure};
pub use fate::{Fate, Say};
pub use fingerprints::fingerprints;
pub use hygiene::told;
pub use order::{Bounds, Client, Identity, Order};
pub use proxy_header::Ends;
pub use rates::{Lanes, Rates, RetryAfter, Subject};
pub use rest::Rest;
pub use rounds::Rounds;
pub use secure::{Insecure, Secure};
pub use send::{Sent, send};
pub use servers::Servers;
pub use told::measure;
pub use tunnel::Tunnel;
pub use upstreams::Upstreams;
