//! Bytes to facts: the TLS ClientHello and its JA4, the TCP SYN and its signature, how HTTP/2 is opened, the order of a head's fields; and what a
//! table of known signatures says of them. Pure; nothing here can panic on a peer's bytes.

pub mod h2;
pub mod hello;
mod hpack;
mod ja3;
mod ja4;
pub mod known;
pub mod order;
pub(crate) mod reader;
pub mod syn;

pub use known::Known;
pub use reader::Malformed;
