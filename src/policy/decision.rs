//! What was decided. All of it is `Copy`: a decision costs no allocation.

use std::time::Duration;

use jiff::Timestamp;

use super::{AppId, ClassId, OwnerId, RestrictionId, TierId};
use crate::model::{Effect, Mode};

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleRef {
    /// Index into the policy's guardrails.
    Guardrail(u32),
    /// Index into the app's own rules.
    Rule(u32),
    /// Index into the rules that an owner's file lays over the app.
    Layer(u32),
    /// Index into the policy's ladders.
    Ladder(u16),
    /// Index into the policy's exceptions: glass was broken.
    Exception(u32),
    /// No rule matched.
    None,
}

/// Names of restrictions, one bit each: a policy has at most 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RestrictionSet(pub u64);

impl RestrictionSet {
    pub const EMPTY: Self = Self(0);

    pub fn with(self, id: RestrictionId) -> Self {
        Self(self.0 | 1u64.checked_shl(u32::from(id.0)).unwrap_or(0))
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = RestrictionId> + Clone {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let lowest = u8::try_from(left.trailing_zeros()).ok().filter(|bit| *bit < 64)?;
            left &= left - 1;
            Some(RestrictionId(lowest))
        })
    }
}

/// Ladders, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LadderSet(pub u64);

impl LadderSet {
    pub fn with(self, ladder: u16) -> Self {
        Self(self.0 | 1u64.checked_shl(u32::from(ladder)).unwrap_or(0))
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = u16> + Clone {
        (0..64u16).filter(move |ladder| self.0 >> ladder & 1 == 1)
    }
}

/// The exceptions that a decision used, as indices: at most four, in the order of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExceptionList {
    indices: [u32; Self::MOST],
    len: u8,
}

impl ExceptionList {
    pub const MOST: usize = 4;

    /// Adds one at its place; one that is already there is passed over, and of five the last goes.
    pub fn push(&mut self, index: u32) {
        let listed = self.as_slice();
        let Err(place) = listed.binary_search(&index) else { return };
        let Some(behind) = self.indices.get_mut(place..) else { return };
        if let Some(slot) = behind.last_mut() {
            *slot = index;
            behind.rotate_right(1);
            if usize::from(self.len) < Self::MOST {
                self.len += 1;
            }
        }
    }

    pub fn as_slice(&self) -> &[u32] {
        self.indices.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Method names that a policy mentions, one bit each; the table is the policy's. A method that no restriction names is in no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodSet(pub u64);

/// Index into the policy's table of reasons; `Policy::reason` gives the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonId(pub u16);

/// At most eight reasons, the deciding one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReasonList {
    ids: [ReasonId; Self::MOST],
    len: u8,
}

impl ReasonList {
    pub const MOST: usize = 8;

    pub const fn new(first: ReasonId) -> Self {
        Self { ids: [first; Self::MOST], len: 1 }
    }

    /// Adds a reason; one that is already there, or a ninth, is passed over.
    pub fn push(&mut self, id: ReasonId) {
        let len = usize::from(self.len);
        if self.as_slice().contains(&id) {
            return;
        }
        if let Some(slot) = self.ids.get_mut(len) {
            *slot = id;
            self.len += 1;
        }
    }

    pub fn first(&self) -> ReasonId {
        self.ids[0]
    }

    pub fn as_slice(&self) -> &[ReasonId] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// One effect with who decided it and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub effect: Effect,
    pub restrictions: RestrictionSet,
    pub rule: RuleRef,
    pub owner: OwnerId,
    pub reasons: ReasonList,
}

/// What the restrictions of an outcome come to together: the tighter of each. Rates, bandwidths, paths and `permissions_policy` stay apart
/// (`restrictions` names them): all of them apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Merged {
    /// Only these methods; `None` is any.
    pub methods: Option<MethodSet>,
    pub no_store: bool,
    pub sandbox: bool,
    pub no_attachments: bool,
    /// Bytes.
    pub max_body: Option<u64>,
    /// Bytes.
    pub max_response: Option<u64>,
    pub max_stream: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub app: AppId,
    pub class: ClassId,
    /// After caps.
    pub tier: TierId,
    /// What happens.
    pub done: Outcome,
    /// What would have happened were nothing in report mode. Equal to `done` when `mode` is `Enforce`.
    pub would: Outcome,
    /// `Report` when the app is in report mode, or when a rule or guardrail in report mode would have changed the outcome.
    pub mode: Mode,
    /// Of `done`.
    pub merged: Merged,
    /// Ladders at their step `warn` that hold, where the request is not blocked: the person is told.
    pub notices: LadderSet,
    /// Those without which the decision might have been another.
    pub exceptions: ExceptionList,
    /// `done` blocks for no other reason than that the record could not be read: answered 503, not 403.
    pub unavailable: bool,
    /// The decision may be used again before this moment, never at or after it. `None`: it reads nothing that time changes.
    pub valid_until: Option<Timestamp>,
}
