//! The public keys of assertions, as they are published at the edge and on the admin listener.

/// Where apps find them, on every host.
pub const PATH: &str = "/.well-known/vestibule/jwks.json";

/// RFC 7517 section 8.5.
pub const TYPE: &str = "application/jwk-set+json";

/// A new key is published at least 10 minutes before it signs: twice as long as a copy may be used.
pub const CACHE_CONTROL: &str = "public, max-age=300";
