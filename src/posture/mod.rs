//! The device store, its cache and its feed of changes.

mod cache;
pub mod certificate;
pub mod edit;
mod error;
mod feed;
pub mod import;
pub mod record;
mod stats;
pub mod store;
pub mod values;

pub use cache::{Kept, Posture};
pub use error::{Error, Taken};
pub use stats::Stats;
