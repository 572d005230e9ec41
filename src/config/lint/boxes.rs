//! Conditions as unions of boxes: for each signal that a box names the values that it allows.
//!
//! What is said of boxes holds in three-valued logic too. A box is undecided when a signal that it names has no value and no other
//! one it names forbids; a comparison with a signal and its opposite are undecided together.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::domain::{Domain, Span};
use crate::config::signals::{self, SignalKind};
use crate::model::{Browser, DeviceState, FactState, FormFactor, Os, Ownership};
use crate::policy::draft::{App, ClaimField, Compare, Condition, DeviceField, Draft, Glob, HostPattern, KeyProof, Test, Want, WireField};
use crate::policy::{ClassId, TierId};

/// A condition that comes to more boxes is not looked into.
const MOST_BOXES: usize = 64;

/// A signal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    Class,
    Tier,
    Device(DeviceField),
    OsVersion,
    Key,
    KnownFor,
    Fact(Arc<str>),
    FactAge(Arc<str>),
    PostureAge,
    Wire(WireField),
    Claim(ClaimField),
    Peer,
    Zone,
    Method,
    Path,
    Host,
    Header(HeaderName),
    /// Whether there is one.
    HasHeader(HeaderName),
    Weekday,
    Hour,
}

/// What keeps a comparison from being undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    Always,
    /// Wherever a record could be read, or is known not to be there.
    WithRecord,
    No,
}

impl Dim {
    pub fn decided(&self) -> Decided {
        match self {
            Self::Class
            | Self::Tier
            | Self::Wire(_)
            | Self::Claim(_)
            | Self::Peer
            | Self::Zone
            | Self::Method
            | Self::Path
            | Self::Host
            | Self::Weekday
            | Self::Hour => Decided::Always,
            Self::Key | Self::KnownFor | Self::Fact(_) | Self::Device(DeviceField::Id | DeviceField::State | DeviceField::Tags) => {
                Decided::WithRecord
            }
            Self::Device(_) | Self::OsVersion | Self::FactAge(_) | Self::PostureAge | Self::Header(_) | Self::HasHeader(_) => Decided::No,
        }
    }

    /// As people write it.
    pub fn name(&self) -> String {
        let of = |kind: SignalKind| signals::SIGNALS.iter().find(|signal| signal.kind == kind).map_or("", |signal| signal.name).to_owned();
        match self {
            Self::Class => of(SignalKind::Class),
            Self::Tier => of(SignalKind::Tier),
            Self::Device(DeviceField::OnNet) => of(SignalKind::OnNet),
            Self::Device(DeviceField::Tags) => of(SignalKind::Tags),
            Self::Device(field) => of(SignalKind::Device(*field)),
            Self::OsVersion => of(SignalKind::OsVersion),
            Self::Key => of(SignalKind::KeyProof),
            Self::KnownFor => of(SignalKind::KnownFor),
            Self::Fact(fact) => format!("posture.{fact}"),
            Self::FactAge(fact) => format!("posture.{fact}.age"),
            Self::PostureAge => of(SignalKind::PostureAge),
            Self::Wire(field) => field.as_str().to_owned(),
            Self::Claim(field) => of(SignalKind::Claim(*field)),
            Self::Peer => of(SignalKind::Peer),
            Self::Zone => of(SignalKind::Zone),
            Self::Method => of(SignalKind::Method),
            Self::Path => of(SignalKind::Path),
            Self::Host => of(SignalKind::Host),
            Self::Header(name) | Self::HasHeader(name) => format!("http.header.{name}"),
            Self::Weekday => of(SignalKind::Weekday),
            Self::Hour => of(SignalKind::Hour),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    pub dims: Vec<(Dim, Domain)>,
}

impl Part {
    pub fn domain(&self, dim: &Dim) -> Option<&Domain> {
        self.dims.iter().find(|(name, _)| name == dim).map(|(_, domain)| domain)
    }

    pub fn add(&mut self, dim: &Dim, domain: &Domain) {
        match self.dims.iter_mut().find(|(name, _)| name == dim) {
            Some((_, mine)) => mine.intersect(domain),
            None => self.dims.push((dim.clone(), domain.clone())),
        }
    }

    pub fn add_all(&mut self, other: &Self) {
        other.dims.iter().for_each(|(dim, domain)| self.add(dim, domain));
    }

    /// A signal that certainly has no value which this allows.
    pub fn impossible(&self) -> Option<&Dim> {
        self.dims.iter().find(|(_, domain)| domain.is_empty()).map(|(dim, _)| dim)
    }

    fn with_word(&self, field: DeviceField, none: bool) -> bool {
        let Some(domain) = self.domain(&Dim::Device(field)) else { return false };
        let word = Domain::texts_of(field, &["none"]);
        if none { domain.within(&word) } else { word.complement().is_some_and(|others| domain.within(&others)) }
    }

    /// What a record, or that there is none, says of other signals. Undecided comparisons do not mislead: those with the state and the key are
    /// undecided only where nobody could look, and then so is every other one with the record.
    pub fn mind_the_record(&mut self) {
        let fields = [DeviceField::State, DeviceField::Ownership, DeviceField::OnNet];
        let (none, proofs) = (keys(&[KeyProof::None]), keys(&[KeyProof::Browser, KeyProof::Certificate]));
        let keyed = |with: &Domain| self.domain(&Dim::Key).is_some_and(|domain| domain.within(with));
        let absent = self.with_word(DeviceField::State, true) || keyed(&none);
        let known = fields.iter().any(|field| self.with_word(*field, false)) || keyed(&proofs);
        if absent {
            for field in fields {
                self.add(&Dim::Device(field), &Domain::texts_of(field, &["none"]));
            }
            self.add(&Dim::Key, &none);
            let facts: Vec<Dim> = self.dims.iter().map(|(dim, _)| dim.clone()).filter(|dim| matches!(dim, Dim::Fact(_))).collect();
            for fact in facts {
                self.add(&fact, &states(&[FactState::Unknown]));
            }
        }
        if known {
            self.add(&Dim::Key, &proofs);
            for field in fields {
                let asked = field == DeviceField::State || self.domain(&Dim::Device(field)).is_some();
                if let Some(others) = Domain::texts_of(field, &["none"]).complement().filter(|_| asked) {
                    self.add(&Dim::Device(field), &others);
                }
            }
        }
    }

    /// What is certainly decided of it, so that it holds wherever the whole is not false.
    pub fn sure(&self) -> Self {
        let looked = matches!(self.domain(&Dim::Class), Some(Domain::Finite(classes)) if classes.never_unclassified());
        let sure = |dim: &Dim| match dim.decided() {
            Decided::Always => true,
            Decided::WithRecord => looked,
            Decided::No => false,
        };
        Self { dims: self.dims.iter().filter(|(dim, _)| sure(dim)).cloned().collect() }
    }
}

fn keys(proofs: &[KeyProof]) -> Domain {
    let number = |proof: &KeyProof| match proof {
        KeyProof::None => 0,
        KeyProof::Browser => 1,
        KeyProof::Certificate => 2,
    };
    Domain::finite(3, proofs.iter().map(number))
}

fn states(states: &[FactState]) -> Domain {
    Domain::finite(FactState::ALL.len(), states.iter().filter_map(|state| FactState::ALL.iter().position(|known| known == state)))
}

fn words(universe: &[&str], globs: &[Glob]) -> Domain {
    let matched = |(_, word): &(usize, &&str)| globs.iter().any(|glob| glob.matches(word));
    Domain::finite(universe.len(), universe.iter().enumerate().filter(matched).map(|(at, _)| at))
}

impl Domain {
    fn texts_of(field: DeviceField, texts: &[&str]) -> Self {
        device_words(field, &texts.iter().map(|text| Glob((*text).to_owned())).collect::<Vec<_>>())
    }
}

fn device_words(field: DeviceField, globs: &[Glob]) -> Domain {
    match field {
        DeviceField::Ownership => {
            let all: Vec<&str> = Ownership::ALL.iter().map(|ownership| ownership.as_str()).chain(["none"]).collect();
            words(&all, globs)
        }
        DeviceField::State => {
            let all: Vec<&str> = DeviceState::ALL.iter().map(|state| state.as_str()).chain(["none"]).collect();
            words(&all, globs)
        }
        DeviceField::OnNet => words(&["true", "false", "none"], globs),
        _ => Domain::texts(globs),
    }
}

/// What the policy knows of names, for turning conditions into boxes.
#[derive(Debug)]
pub struct Reading<'a> {
    draft: &'a Draft,
    /// What a device of at least this tier has, by the tier: all requirements up to it, and no cap below it.
    tiers: Vec<Option<Vec<Part>>>,
    classes: Vec<Option<Vec<Part>>>,
}

impl<'a> Reading<'a> {
    pub fn new(draft: &'a Draft) -> Self {
        let mut reading = Self { draft, tiers: Vec::new(), classes: Vec::new() };
        reading.classes = draft.classes.iter().map(|class| reading.parts(&class.when)).collect();
        let mut required = Some(vec![Part::default()]);
        for (at, tier) in draft.tiers.iter().enumerate() {
            let own = reading.parts(&tier.require);
            required = if at == 0 { required } else { required.zip(own).and_then(|(a, b)| product(&a, &b)) };
            let caps = draft.caps.iter().filter(|cap| cap.max_tier.index() < at);
            let uncapped = caps.fold(required.clone(), |parts, cap| {
                // What cannot be said of a cap is left out: then less is known.
                match reading.read(&cap.when, false) {
                    Some(open) => parts.and_then(|parts| product(&parts, &open)),
                    None => parts,
                }
            });
            reading.tiers.push(uncapped.or_else(|| required.clone()));
        }
        reading
    }

    /// `None`: more than can be looked into.
    pub fn parts(&self, when: &Condition) -> Option<Vec<Part>> {
        self.read(when, true)
    }

    fn read(&self, when: &Condition, holds: bool) -> Option<Vec<Part>> {
        match (when, holds) {
            (Condition::Not(inner), _) => self.read(inner, !holds),
            (Condition::All(inner), true) | (Condition::Any(inner), false) => {
                inner.iter().try_fold(vec![Part::default()], |parts, one| product(&parts, &self.read(one, holds)?))
            }
            (Condition::Any(inner), true) | (Condition::All(inner), false) => {
                let mut parts = Vec::new();
                for one in inner {
                    parts.extend(self.read(one, holds)?);
                    if parts.len() > MOST_BOXES {
                        return None;
                    }
                }
                Some(parts)
            }
            (Condition::Test(test), _) => {
                let (dim, domain) = self.test(test)?;
                let domain = if holds { domain } else { domain.complement()? };
                Some(vec![Part { dims: vec![(dim, domain)] }])
            }
        }
    }

    fn test(&self, test: &Test) -> Option<(Dim, Domain)> {
        let set = |want: &Want| match want {
            Want::None => Domain::Set { holds: Vec::new(), fails: vec![Want::Any] },
            want => Domain::Set { holds: vec![want.clone()], fails: Vec::new() },
        };
        let ages = |ages: &[(Compare, Duration)]| {
            let parts = ages.iter().map(|(compare, age)| (*compare, vec![age.as_secs(), u64::from(age.subsec_nanos())]));
            Domain::Span(Span::new(parts))
        };
        Some(match test {
            Test::Class(classes) => {
                let count = self.draft.classes.len();
                (Dim::Class, Domain::finite(count + 2, classes.iter().map(|class| self.class_number(*class))))
            }
            Test::Tier(wanted) => {
                let count = self.draft.tiers.len();
                let holds = |at: &usize| wanted.iter().all(|(compare, tier)| compare.holds(at.cmp(&tier.index())));
                (Dim::Tier, Domain::finite(count, (0..count).filter(holds)))
            }
            Test::Device(DeviceField::Tags, want) => (Dim::Device(DeviceField::Tags), set(want)),
            Test::Device(field, Want::Text(globs)) => (Dim::Device(*field), device_words(*field, globs)),
            Test::Device(..) => return None,
            Test::Fact(fact, wanted) => (Dim::Fact(Arc::clone(fact)), states(wanted)),
            Test::FactAge(fact, wanted) => (Dim::FactAge(Arc::clone(fact)), ages(wanted)),
            Test::PostureAge(wanted) => (Dim::PostureAge, ages(wanted)),
            Test::KnownFor(wanted) => (Dim::KnownFor, ages(wanted)),
            Test::OsVersion(wanted) => {
                (Dim::OsVersion, Domain::Span(Span::new(wanted.iter().map(|(compare, version)| (*compare, version.0.clone())))))
            }
            Test::KeyProof(proofs) => (Dim::Key, keys(proofs)),
            Test::Wire(field, want) => {
                let domain = match (field, want) {
                    (WireField::Stack | WireField::Os | WireField::Browser | WireField::Contradictions, want) => set(want),
                    (WireField::Intercepted | WireField::Drift, Want::Text(globs)) => words(&["true", "false"], globs),
                    (_, Want::Text(globs)) => Domain::texts(globs),
                    _ => return None,
                };
                (Dim::Wire(*field), domain)
            }
            Test::Claim(field, Want::Text(globs)) => {
                let unavailable = std::iter::once("unavailable");
                let all: Vec<&str> = match field {
                    ClaimField::Os => Os::ALL.iter().map(|os| os.as_str()).chain(unavailable).collect(),
                    ClaimField::Browser => Browser::ALL.iter().map(|browser| browser.as_str()).chain(unavailable).collect(),
                    ClaimField::FormFactor => FormFactor::ALL.iter().map(|form| form.as_str()).chain(unavailable).collect(),
                };
                (Dim::Claim(*field), words(&all, globs))
            }
            Test::Claim(..) => return None,
            Test::Peer(nets) => (Dim::Peer, Domain::Nets { any: Some(nets.clone()), none: Vec::new() }),
            Test::Zone(zones) => {
                let count = self.draft.networks.len();
                (Dim::Zone, Domain::finite(count + 1, zones.iter().map(|zone| zone.map_or(count, |zone| zone.index()))))
            }
            Test::Method(globs) => (Dim::Method, Domain::texts(globs)),
            Test::Path(globs) => (Dim::Path, Domain::texts(globs)),
            Test::Host(globs) => (Dim::Host, Domain::texts(globs)),
            Test::Header(name, Want::Text(globs)) => (Dim::Header(name.clone()), Domain::texts(globs)),
            Test::Header(name, want) => (Dim::HasHeader(name.clone()), set(want)),
            Test::Weekday(days) => {
                (Dim::Weekday, Domain::finite(7, days.iter().map(|day| usize::from(day.to_monday_zero_offset().unsigned_abs()))))
            }
            Test::Hour(wanted) => {
                let holds = |hour: &usize| wanted.iter().all(|(compare, than)| compare.holds(hour.cmp(&usize::from(*than))));
                (Dim::Hour, Domain::finite(24, (0..24).filter(holds)))
            }
        })
    }

    /// After the configured ones: `blind`, `unclassified`.
    fn class_number(&self, class: ClassId) -> usize {
        match class {
            ClassId::BLIND => self.draft.classes.len(),
            ClassId::UNCLASSIFIED => self.draft.classes.len() + 1,
            ClassId(at) => usize::from(at),
        }
    }

    /// What else is true where a condition holds, in the app: its tier's requirements, its class's condition, the app's hosts and paths. In place of
    /// parts that cannot be said so the part itself.
    pub fn expand(&self, parts: &[Part], app: Option<&App>) -> Vec<Part> {
        let mut all = Vec::new();
        for part in parts {
            let mut part = part.clone();
            if let Some(app) = app {
                for (dim, domain) in places(app) {
                    // Only where it is asked: else it is known of every request.
                    if part.domain(&dim).is_some() {
                        part.add(&dim, &domain);
                    }
                }
            }
            let expanded = self.with_tier(&part).and_then(|parts| {
                let expanded: Option<Vec<Vec<Part>>> = parts.iter().map(|part| self.with_class(part)).collect();
                expanded.map(|parts| parts.concat()).filter(|parts| parts.len() <= MOST_BOXES)
            });
            all.extend(expanded.unwrap_or_else(|| vec![part]));
        }
        all.iter_mut().for_each(Part::mind_the_record);
        all
    }

    fn with_tier(&self, part: &Part) -> Option<Vec<Part>> {
        let Some(Domain::Finite(tiers)) = part.domain(&Dim::Tier) else { return Some(vec![part.clone()]) };
        match tiers.members().next().filter(|least| *least > 0) {
            Some(least) => self.tiers.get(least)?.as_ref().and_then(|required| product(std::slice::from_ref(part), required)),
            None => Some(vec![part.clone()]),
        }
    }

    fn with_class(&self, part: &Part) -> Option<Vec<Part>> {
        let Some(Domain::Finite(classes)) = part.domain(&Dim::Class) else { return Some(vec![part.clone()]) };
        let count = self.draft.classes.len();
        let members: Vec<usize> = classes.members().collect();
        // Nothing is known of a device that is unclassified.
        if members.len() > 8 || members.contains(&(count + 1)) {
            return Some(vec![part.clone()]);
        }
        let mut all = Vec::new();
        for class in members {
            let mut one = part.clone();
            one.add(&Dim::Class, &Domain::finite(count + 2, [class]));
            if class == count {
                one.add(&Dim::Key, &keys(&[KeyProof::None]));
                all.push(one);
            } else {
                one.add(&Dim::Key, &keys(&[KeyProof::Certificate, KeyProof::Browser]));
                all.extend(product(&[one], self.classes.get(class)?.as_ref()?)?);
            }
        }
        // A class that no value is left of has no parts: the part stays, impossible as it is.
        Some(if all.is_empty() { vec![part.clone()] } else { all })
    }

    /// What every device of at least the tier has.
    pub fn tier(&self, tier: TierId) -> Option<&[Part]> {
        self.tiers.get(tier.index())?.as_deref()
    }
}

/// The requests that are an app's.
pub fn places(app: &App) -> Vec<(Dim, Domain)> {
    let host = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => Glob(host.as_str().to_owned()),
        HostPattern::Below(host) => Glob(format!("*.{}", host.as_str())),
    };
    let hosts: Vec<Glob> = app.hosts.iter().map(host).collect();
    let mut places = vec![(Dim::Host, Domain::texts(&hosts))];
    if app.path_prefix != "/" && !app.path_prefix.contains('*') {
        places.push((Dim::Path, Domain::texts(&[Glob(app.path_prefix.clone()), Glob(format!("{}/*", app.path_prefix))])));
    }
    places
}

/// Each of the one with each of the other.
fn product(a: &[Part], b: &[Part]) -> Option<Vec<Part>> {
    if a.len() * b.len() > MOST_BOXES {
        return None;
    }
    let mut all = Vec::with_capacity(a.len() * b.len());
    for one in a {
        for other in b {
            let mut both = one.clone();
            both.add_all(other);
            all.push(both);
        }
    }
    Some(all)
}
