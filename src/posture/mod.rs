//! The device store, its cache and its feed of changes.

pub mod baseline;
pub mod blind;
mod cache;
pub mod census;
pub mod certificate;
pub mod edit;
mod error;
mod feed;
pub mod import;
pub mod memory;
pub mod record;
mod stats;
pub mod store;
pub mod values;

pub use cache::{Kept, Posture};
pub use error::{Error, Taken};
pub use memory::{Memory, Sighting};
pub use stats::Stats;
