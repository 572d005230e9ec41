//! Bytes to facts: the TLS ClientHello and its JA4, the TCP SYN and its signature; and what a table of known signatures says of them. Pure;
//! nothing here can panic on a peer's bytes.

pub mod hello;
mod ja4;
pub mod known;
mod reader;
pub mod syn;

pub use known::Known;
pub use reader::Malformed;
