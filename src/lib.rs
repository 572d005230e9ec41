//! Vestibule: a device-aware access proxy for the network edge.
//!
//! `ARCHITECTURE.md` beside this file is the five-minute tour; `gate::visit` is the life of a request on one screen.

pub mod model;
pub mod request;
pub mod fingerprint;
pub mod identify;
pub mod policy;
pub mod config;
pub mod posture;
pub mod record;
pub mod forward;
pub mod portal;
pub mod gate;
pub mod edge;
pub mod admin;
pub mod site;
pub mod cli;
