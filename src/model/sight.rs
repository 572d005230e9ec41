//! What is made of a connection: the wire identified, and claims and record held against it.

use std::sync::Arc;

use super::{Comparison, Identification};

/// What a decision may read of who the program behind a connection is. The default is a connection of which nothing was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    pub identification: Arc<Identification>,
    pub comparison: Comparison,
    /// Programs of many families come as this one stack: something on the way opens their connections for them.
    pub intercepted: bool,
    /// A device that proved itself speaks as it never did before.
    pub drift: bool,
}
