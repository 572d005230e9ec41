//! Bytes to facts: the TLS ClientHello and its JA4, the TCP SYN and its signature. Pure; nothing here can panic on a peer's bytes.

pub mod hello;
mod ja4;
mod reader;
pub mod syn;

pub use reader::Malformed;
