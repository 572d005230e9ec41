//! Compile rules to tables, decide, explain. Pure: no clock, no I/O, no YAML.

mod condition;
mod decide;
mod decision;
pub mod draft;
mod evaluate;
mod exceptions;
mod explain;
mod facts;
mod glob;
mod grants;
mod hope;
mod hosts;
mod ids;
mod inputs;
mod ladders;
mod mend;
mod permit;
mod reasons;
mod restrictions;
mod scene;
mod table;
mod tables;
mod truth;
mod unmet;
mod wire;
mod wording;
mod zones;

#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
pub(crate) mod testing;

pub use decision::{Decision, ExceptionList, LadderSet, Merged, MethodSet, Outcome, ReasonId, ReasonList, RestrictionSet, RuleRef};
pub use explain::{Excepted, Explanation, Step, Tested, Verdict};
pub use ids::{AppId, ClassId, FixId, OwnerId, RestrictionId, TierId, ZoneId};
pub use inputs::{Given, Http, Inputs};
pub use mend::{Change, Mend, Search};
pub use permit::Permit;
pub use table::{FactView, Policy, Reads};
pub use truth::Truth;
pub use wording::{duration as duration_words, weekdays};
