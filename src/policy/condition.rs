//! Conditions, compiled: names interned, globs cut, ages and versions in the form that they are compared in.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use http::HeaderName;
use ipnet::IpNet;
use jiff::SignedDuration;
use jiff::civil::Weekday;

use super::draft::{ClaimField, Compare, Condition, DeviceField, KeyProof, Test, Version, Want, WireField};
use super::glob::Pattern;
use super::wire::WireTest;
use super::{ClassId, Reads, TierId, ZoneId};
use crate::model::FactState;

#[derive(Clone, Debug)]
pub enum Cond {
    All(Box<[Cond]>),
    Any(Box<[Cond]>),
    Not(Box<Cond>),
    Leaf(Leaf),
}

/// Index into the facts that the policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactId(pub u32);

/// Index into the headers that the policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderId(pub u32);

pub type Ages = Box<[(Compare, SignedDuration)]>;

/// One comparison.
#[derive(Clone, Debug)]
pub enum Leaf {
    Class(Box<[ClassId]>),
    Tier(TierRange),
    Device(DeviceField, Words),
    Key(Box<[KeyProof]>),
    Fact(FactId, FactStates),
    FactAge(FactId, Ages),
    PostureAge(Ages),
    KnownFor(Ages),
    OsVersion(Box<[(Compare, Version)]>),
    Wire(WireTest),
    Claim(ClaimField, Words),
    Peer(Box<[IpNet]>),
    Zone(Box<[Option<ZoneId>]>),
    Method(Box<[Pattern]>),
    Path(Box<[Pattern]>),
    Host(Box<[Pattern]>),
    Header(HeaderId, Words),
    Weekday(Box<[Weekday]>),
    Hour(Box<[(Compare, u8)]>),
}

impl Leaf {
    /// Whether it reads the device record, be it through class or tier.
    pub fn reads_record(&self) -> bool {
        match self {
            Self::Class(_)
            | Self::Tier(_)
            | Self::Device(..)
            | Self::Key(_)
            | Self::Fact(..)
            | Self::FactAge(..)
            | Self::PostureAge(_)
            | Self::KnownFor(_)
            | Self::OsVersion(_) => true,
            Self::Wire(..)
            | Self::Claim(..)
            | Self::Peer(_)
            | Self::Zone(_)
            | Self::Method(_)
            | Self::Path(_)
            | Self::Host(_)
            | Self::Header(..)
            | Self::Weekday(_)
            | Self::Hour(_) => false,
        }
    }
}

/// Tier comparisons that must all hold always come to a range.
#[derive(Clone, Debug)]
pub struct TierRange {
    /// Both included; `least > most` is a comparison that no tier meets.
    pub least: u8,
    pub most: u8,
    pub written: Box<[(Compare, TierId)]>,
}

impl TierRange {
    /// `tiers` is how many there are, at least 1.
    fn new(written: &[(Compare, TierId)], tiers: usize) -> Self {
        let top = u8::try_from(tiers.saturating_sub(1)).unwrap_or(u8::MAX);
        let mut range = Self { least: 0, most: top, written: written.into() };
        for (compare, TierId(tier)) in written {
            match compare {
                Compare::Less => match tier.checked_sub(1) {
                    Some(below) => range.most = range.most.min(below),
                    None => return Self::nothing(written),
                },
                Compare::AtMost => range.most = range.most.min(*tier),
                Compare::Equal => {
                    range.least = range.least.max(*tier);
                    range.most = range.most.min(*tier);
                }
                Compare::AtLeast => range.least = range.least.max(*tier),
                Compare::More => match tier.checked_add(1) {
                    Some(above) => range.least = range.least.max(above),
                    None => return Self::nothing(written),
                },
            }
        }
        range
    }

    fn nothing(written: &[(Compare, TierId)]) -> Self {
        Self { least: 1, most: 0, written: written.into() }
    }

    pub fn holds(&self, tier: TierId) -> bool {
        self.least <= tier.0 && tier.0 <= self.most
    }
}

#[derive(Clone, Copy, Debug)]
pub struct FactStates(u8);

impl FactStates {
    pub fn new(states: &[FactState]) -> Self {
        Self(states.iter().fold(0, |mask, state| mask | Self::bit(*state)))
    }

    const fn bit(state: FactState) -> u8 {
        match state {
            FactState::Ok => 1,
            FactState::Fail => 2,
            FactState::Unknown => 4,
        }
    }

    pub fn holds(self, state: FactState) -> bool {
        self.0 & Self::bit(state) != 0
    }
}

#[derive(Clone, Debug)]
pub enum Words {
    Text(Box<[Pattern]>),
    Any,
    None,
}

impl Words {
    fn new(want: &Want) -> Self {
        match want {
            Want::Text(globs) => Self::Text(globs.iter().map(Pattern::new).collect()),
            Want::Any => Self::Any,
            Want::None => Self::None,
        }
    }

    /// Against a value that is there.
    pub fn hold(&self, value: &str) -> bool {
        match self {
            Self::Text(patterns) => patterns.iter().any(|pattern| pattern.matches(value)),
            Self::Any => true,
            Self::None => false,
        }
    }

    /// Against a value that is known not to be there: it compares as `word`, with globs as well (`*` matches it).
    pub fn hold_absent(&self, word: &str) -> bool {
        match self {
            Self::Text(patterns) => patterns.iter().any(|pattern| pattern.matches(word)),
            Self::Any => false,
            Self::None => true,
        }
    }

    /// Against a set: any member may match.
    pub fn hold_set<'a>(&self, mut members: impl Iterator<Item = &'a str>) -> bool {
        match self {
            Self::Text(_) => members.any(|member| self.hold(member)),
            Self::Any => members.next().is_some(),
            Self::None => members.next().is_none(),
        }
    }
}

impl Compare {
    pub fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Less => found.is_lt(),
            Self::AtMost => found.is_le(),
            Self::Equal => found.is_eq(),
            Self::AtLeast => found.is_ge(),
            Self::More => found.is_gt(),
        }
    }
}

/// `None` when `found` is not numbers between dots.
pub fn compare_version(found: &str, wanted: &Version) -> Option<Ordering> {
    let mut result = Ordering::Equal;
    let mut wanted = wanted.0.iter();
    for number in found.split('.') {
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        result = result.then(number.cmp(wanted.next().unwrap_or(&0)));
    }
    Some(wanted.fold(result, |result, number| result.then(0.cmp(number))))
}

/// Where a condition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A class, tier or cap: it may not read the tier.
    Derivation,
    Rule,
}

/// Interns the names that conditions mention.
#[derive(Debug)]
pub struct Compiler {
    pub facts: Interned<Arc<str>>,
    pub headers: Interned<HeaderName>,
    tiers: usize,
}

/// Names in the order in which they were first seen.
#[derive(Debug)]
pub struct Interned<T> {
    pub names: Vec<T>,
    places: HashMap<T, u32, RandomState>,
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn new() -> Self {
        Self { names: Vec::new(), places: HashMap::default() }
    }

    fn place(&mut self, name: &T) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        // Four thousand million names do not fit in memory.
        let place = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.clone());
        self.places.insert(name.clone(), place);
        place
    }
}

impl Compiler {
    pub fn new(tiers: usize) -> Self {
        Self { facts: Interned::new(), headers: Interned::new(), tiers }
    }

    pub fn condition(&mut self, condition: &Condition, place: Place) -> Cond {
        match condition {
            Condition::All(inner) => match inner.as_slice() {
                [only] => self.condition(only, place),
                inner => Cond::All(inner.iter().map(|c| self.condition(c, place)).collect()),
            },
            Condition::Any(inner) => match inner.as_slice() {
                [only] => self.condition(only, place),
                inner => Cond::Any(inner.iter().map(|c| self.condition(c, place)).collect()),
            },
            Condition::Not(inner) => Cond::Not(Box::new(self.condition(inner, place))),
            Condition::Test(test) => Cond::Leaf(self.leaf(test, place)),
        }
    }

    fn leaf(&mut self, test: &Test, place: Place) -> Leaf {
        match test {
            Test::Class(classes) => Leaf::Class(classes.as_slice().into()),
            // `config` refuses a tier that reads tier. Were one to get here, its comparison would hold for no tier rather than recurse.
            Test::Tier(written) if place != Place::Rule => Leaf::Tier(TierRange::nothing(written)),
            Test::Tier(written) => Leaf::Tier(TierRange::new(written, self.tiers)),
            Test::Device(field, want) => Leaf::Device(*field, Words::new(want)),
            Test::Fact(fact, states) => Leaf::Fact(self.fact(fact), FactStates::new(states)),
            Test::FactAge(fact, wanted) => Leaf::FactAge(self.fact(fact), ages(wanted)),
            Test::PostureAge(wanted) => Leaf::PostureAge(ages(wanted)),
            Test::KnownFor(wanted) => Leaf::KnownFor(ages(wanted)),
            Test::OsVersion(wanted) => Leaf::OsVersion(wanted.as_slice().into()),
            Test::KeyProof(proofs) => Leaf::Key(proofs.as_slice().into()),
            Test::Wire(field, want) => Leaf::Wire(WireTest::new(*field, Words::new(want))),
            Test::Claim(field, want) => Leaf::Claim(*field, Words::new(want)),
            Test::Peer(ranges) => Leaf::Peer(ranges.as_slice().into()),
            Test::Zone(zones) => Leaf::Zone(zones.as_slice().into()),
            Test::Method(methods) => Leaf::Method(methods.iter().map(Pattern::new).collect()),
            Test::Path(globs) => Leaf::Path(globs.iter().map(Pattern::new).collect()),
            Test::Host(globs) => Leaf::Host(globs.iter().map(Pattern::new).collect()),
            Test::Header(name, want) => Leaf::Header(self.header(name), Words::new(want)),
            Test::Weekday(days) => Leaf::Weekday(days.as_slice().into()),
            Test::Hour(wanted) => Leaf::Hour(wanted.as_slice().into()),
        }
    }

    pub fn fact(&mut self, name: &Arc<str>) -> FactId {
        FactId(self.facts.place(name))
    }

    /// Of a fact that has been mentioned.
    pub fn known_fact(&self, name: &str) -> Option<FactId> {
        self.facts.places.get(name).map(|place| FactId(*place))
    }

    fn header(&mut self, name: &HeaderName) -> HeaderId {
        HeaderId(self.headers.place(name))
    }
}

fn ages(wanted: &[(Compare, Duration)]) -> Ages {
    wanted.iter().map(|(compare, age)| (*compare, signed(*age))).collect()
}

/// Longer than any age where it does not fit.
pub fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// What conditions read of the request.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    reads: Reads,
    headers: Vec<HeaderId>,
}

impl Noted {
    pub fn reads(mut self, headers: &[HeaderName]) -> Reads {
        self.headers.sort_unstable();
        self.headers.dedup();
        self.reads.headers = self.headers.iter().filter_map(|id| headers.get(id.0 as usize).cloned()).collect();
        self.reads
    }
}

impl Cond {
    /// Adds what it reads of the request.
    pub fn note_reads(&self, noted: &mut Noted) {
        let reads = &mut noted.reads;
        match self {
            Self::All(inner) | Self::Any(inner) => inner.iter().for_each(|cond| cond.note_reads(noted)),
            Self::Not(inner) => inner.note_reads(noted),
            Self::Leaf(leaf) => match leaf {
                Leaf::Method(_) => reads.method = true,
                Leaf::Host(_) => reads.host = true,
                Leaf::Path(_) => reads.path = true,
                Leaf::Claim(..) => reads.claims = true,
                Leaf::Wire(test) => {
                    reads.sight |= matches!(test.field, WireField::Intercepted | WireField::Drift | WireField::Contradictions);
                }
                Leaf::Header(id, _) => noted.headers.push(*id),
                Leaf::Class(_)
                | Leaf::Tier(_)
                | Leaf::Device(..)
                | Leaf::Key(_)
                | Leaf::Fact(..)
                | Leaf::FactAge(..)
                | Leaf::PostureAge(_)
                | Leaf::KnownFor(_)
                | Leaf::OsVersion(_)
                | Leaf::Peer(_)
                | Leaf::Zone(_)
                | Leaf::Weekday(_)
                | Leaf::Hour(_) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_dots() {
        for (found, wanted, order) in [
            ("14.2.1", &[14, 2, 1][..], Some(Ordering::Equal)),
            ("14", &[14, 0, 0], Some(Ordering::Equal)),
            ("14.0.0.0", &[14], Some(Ordering::Equal)),
            ("14.10", &[14, 9], Some(Ordering::Greater)),
            ("9", &[10], Some(Ordering::Less)),
            ("10.0.19045", &[10, 0, 22000], Some(Ordering::Less)),
            ("17", &[17, 0, 1], Some(Ordering::Less)),
            ("22.04 LTS", &[22], None),
            ("14.x", &[13], None),
            ("14.", &[13], None),
            ("+14", &[13], None),
            ("", &[0], None),
            ("99999999999999999999", &[1], None),
        ] {
            assert_eq!(compare_version(found, &Version(wanted.to_vec())), order, "{found} against {wanted:?}");
        }
    }

    #[test]
    fn tiers_compare_with_several_that_must_all_hold() {
        let held = |written: &[(Compare, TierId)]| -> Vec<u8> {
            let range = TierRange::new(written, 4);
            (0..4).filter(|tier| range.holds(TierId(*tier))).collect()
        };
        assert_eq!(held(&[]), [0, 1, 2, 3]);
        assert_eq!(held(&[(Compare::AtLeast, TierId(2))]), [2, 3]);
        assert_eq!(held(&[(Compare::More, TierId(2))]), [3]);
        assert_eq!(held(&[(Compare::Less, TierId(2))]), [0, 1]);
        assert_eq!(held(&[(Compare::AtMost, TierId(2))]), [0, 1, 2]);
        assert_eq!(held(&[(Compare::Equal, TierId(2))]), [2]);
        assert_eq!(held(&[(Compare::AtLeast, TierId(1)), (Compare::Less, TierId(3))]), [1, 2]);
        assert!(held(&[(Compare::Less, TierId(0))]).is_empty());
        assert!(held(&[(Compare::More, TierId(3))]).is_empty());
        assert!(held(&[(Compare::More, TierId(u8::MAX))]).is_empty());
        assert!(held(&[(Compare::AtLeast, TierId(3)), (Compare::Less, TierId(2))]).is_empty());
    }
}
