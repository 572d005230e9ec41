//! Leave to forward a request.

use super::{Decision, Merged};
use crate::model::Effect;

/// Only a decision that does not block yields one, and `forward::send` demands it.
#[derive(Debug)]
pub struct Permit {
    merged: Merged,
}

impl Permit {
    pub fn of(decision: &Decision) -> Option<Self> {
        (decision.done.effect != Effect::Block).then_some(Self { merged: decision.merged })
    }

    pub fn merged(&self) -> &Merged {
        &self.merged
    }
}
