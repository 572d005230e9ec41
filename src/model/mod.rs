//! The words of the product as types. Nothing here reads a clock, a file or a socket.

mod address;
mod claims;
mod device;
mod effect;
mod expiry;
mod host;
mod identification;
pub mod jwks;
mod reason;
mod set;
mod sight;
mod standing;
mod wire;

pub use address::address;
pub use claims::{Browser, Claims, Engine, FormFactor, Os, Side, Sides};
pub use device::{Device, DeviceState, Fact, FactState, Key, KeyKind, Observation, Ownership, StateChange, WELL_KNOWN_FACTS};
pub use effect::{Effect, Mode};
pub use expiry::{Expiry, Lasting};
pub use host::Host;
pub use identification::{Clash, Comparison, Confidence, Contradiction, Identification, Meaning, Seen, Span};
pub use reason::{Reason, RestrictionKey};
pub use set::{Set, Word};
pub use sight::Sight;
pub use standing::{Freshness, NoRecord, Proof, Standing};
pub use wire::{Ja4, Opening, Syn, Traits, Wire};
