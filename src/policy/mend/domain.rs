//! What may be changed in a situation, and the situation with some of it changed.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderValue};
use jiff::civil::Weekday;
use jiff::{SignedDuration, Timestamp};

use super::super::condition::{Cond, Leaf, Words, compare_version};
use super::super::draft::{ClaimField, Compare, DeviceField, Version, WireField};
use super::super::evaluate::field_text;
use super::super::facts::age;
use super::super::glob::Pattern;
use super::super::scene::{Record, Scene};
use super::super::tables::{AppTable, Tables};
use super::super::{AppId, Http, Inputs, Policy, ZoneId};
use crate::model::{
    Browser, Claims, Device, DeviceState, Fact, FactState, FormFactor, Host, Ja4, Observation, Opening, Os, Ownership, Set, Sight,
    Standing, Wire, Word,
};

/// What a change sets. Two changes of one signal exclude each other; of two signals neither changes what the other reads, but that a fact
/// observed anew is also the newest observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Fact(u32),
    PostureAge,
    Device(DeviceField),
    OsVersion,
    KnownFor,
    Wire(WireField),
    Claim(ClaimField),
    /// Zone and peer are one: an address is in its zone.
    Net,
    Method,
    Path,
    Host,
    Header(u32),
    Weekday,
    Hour,
}

impl Signal {
    /// That a comparison reads. `None`: class and tier, which are worked out, and the proof of the key, which nobody can change.
    pub const fn of(leaf: &Leaf) -> Option<Self> {
        Some(match leaf {
            Leaf::Class(_) | Leaf::Tier(_) | Leaf::Key(_) => return None,
            Leaf::Device(field, _) => Self::Device(*field),
            Leaf::Fact(fact, _) | Leaf::FactAge(fact, _) => Self::Fact(fact.0),
            Leaf::PostureAge(_) => Self::PostureAge,
            Leaf::KnownFor(_) => Self::KnownFor,
            Leaf::OsVersion(_) => Self::OsVersion,
            Leaf::Wire(test) => Self::Wire(test.field),
            Leaf::Claim(field, _) => Self::Claim(*field),
            Leaf::Peer(_) | Leaf::Zone(_) => Self::Net,
            Leaf::Method(_) => Self::Method,
            Leaf::Path(_) => Self::Path,
            Leaf::Host(_) => Self::Host,
            Leaf::Header(id, _) => Self::Header(id.0),
            Leaf::Weekday(_) => Self::Weekday,
            Leaf::Hour(_) => Self::Hour,
        })
    }

    /// Whether changing this may turn the comparison. Exceptions are for a device or a tag, and lift facts.
    pub fn moves(self, leaf: &Leaf, exceptions: bool) -> bool {
        match (self, leaf) {
            (Self::Fact(_), Leaf::PostureAge(_)) => true,
            (Self::Device(DeviceField::Id | DeviceField::Tags), Leaf::Fact(..) | Leaf::FactAge(..)) => exceptions,
            _ => Self::of(leaf) == Some(self),
        }
    }

    /// Whether it may choose other exceptions.
    pub const fn names_device(self) -> bool {
        matches!(self, Self::Device(DeviceField::Id | DeviceField::Tags))
    }

    /// What a person, or IT for them, can change about this device.
    const fn is_soft(self) -> bool {
        matches!(
            self,
            Self::Fact(_)
                | Self::PostureAge
                | Self::OsVersion
                | Self::Device(DeviceField::State)
                | Self::Wire(WireField::Contradictions | WireField::Drift)
        )
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The fact is ok, observed at this moment; for `posture.age`: something was observed.
    Anew,
    /// `None`: absent, unavailable.
    Text(Option<Box<str>>),
    Tags(Vec<String>),
    Version(Version),
    Age(SignedDuration),
    Truth(bool),
    /// No contradictions.
    Clear,
    Zone(Option<ZoneId>),
    Peer(IpAddr),
    Host(Host),
    Weekday(Weekday),
    Hour(u8),
}

/// A value that a signal could have instead of the one that it has.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub signal: Signal,
    pub value: Value,
    /// The comparison that asks for it.
    pub leaf: &'a Leaf,
}

impl Candidate<'_> {
    pub const fn is_soft(&self) -> bool {
        self.signal.is_soft()
    }
}

/// What glass is broken by asks of the device's state.
static APPROVED: LazyLock<Leaf> = LazyLock::new(|| Leaf::Device(DeviceField::State, Words::Any));

/// More are not looked at: the search says then that it gave up.
pub const MOST: usize = 256;

/// Where a text must not be one of those that a condition names.
const ANOTHER: &str = "another";

/// Every change that is considered, those that a person or IT can make for this device first, each kind in the order of the policy. Of what no
/// condition of the app, no class, tier or cap reads, nothing is here.
///
/// Soft: a posture fact that is not ok becomes ok, and one that is ok and whose age is read is observed anew; `device.state` becomes `approved`;
/// `device.os_version` becomes a version that the policy names and that is higher than the recorded one (where more than that version is
/// asked for, the next smaller one below it); contradictions and drift go away. All but the last two need a record, and facts one that is not too old.
/// `device.state` is here without a condition that reads it where the device would break glass then.
///
/// Hard: for every text that a condition names one value that it matches, for a text also one that no condition names; a path, host or
/// method that leads to the same app; the networks that a condition names, the first that it does not, and none; ages at each threshold and
/// a second to either side; the days that a condition names, Monday, Saturday and Sunday; hours at each threshold and one to either side.
pub fn candidates<'a>(policy: &'a Policy, id: AppId, scene: &Scene<'_>) -> Vec<Candidate<'a>> {
    let tables = policy.tables();
    let Some(app) = tables.apps.get(id.index()) else { return Vec::new() };
    let mut list = List { policy, tables, id, scene, soft: Vec::new(), hard: Vec::new() };
    tables.conditions(app).for_each(|cond| leaves(cond, &mut |leaf| list.leaf(leaf)));
    if matches!(scene.record, Record::Known { device, .. } if scene.glass_awaits(device)) {
        list.leaf(&APPROVED);
    }
    let List { mut soft, hard, .. } = list;
    soft.extend(hard);
    soft
}

impl Tables {
    /// All conditions that a decision about the app may read.
    fn conditions<'a>(&'a self, app: &'a AppTable) -> impl Iterator<Item = &'a Cond> {
        let caps = self.caps.iter().map(|cap| &cap.when);
        let guardrails = app.guardrails.iter().filter_map(|index| self.guardrails.get(*index as usize));
        let layers = app.layers.iter().filter_map(|index| self.layers.get(*index as usize));
        let lines = guardrails.chain(layers).chain(&app.rules).map(|line| &line.when);
        let ladders = self.ladders_of(app).flat_map(|(_, ladder)| [&ladder.lacking, &ladder.when]);
        self.classes.iter().chain(&self.tiers).chain(caps).chain(ladders).chain(lines)
    }
}

fn leaves<'a>(cond: &'a Cond, visit: &mut impl FnMut(&'a Leaf)) {
    match cond {
        Cond::All(inner) | Cond::Any(inner) => inner.iter().for_each(|cond| leaves(cond, visit)),
        Cond::Not(inner) => leaves(inner, visit),
        Cond::Leaf(leaf) => visit(leaf),
    }
}

struct List<'a, 's> {
    policy: &'a Policy,
    tables: &'a Tables,
    id: AppId,
    scene: &'s Scene<'s>,
    soft: Vec<Candidate<'a>>,
    hard: Vec<Candidate<'a>>,
}

impl<'a> List<'a, '_> {
    fn add(&mut self, leaf: &'a Leaf, value: Value) {
        let Some(signal) = Signal::of(leaf) else { return };
        let list = if signal.is_soft() { &mut self.soft } else { &mut self.hard };
        // One beyond the limit shows that there are too many.
        if list.len() <= MOST && !list.iter().any(|known| known.signal == signal && known.value == value) {
            list.push(Candidate { signal, value, leaf });
        }
    }

    fn leaf(&mut self, leaf: &'a Leaf) {
        match leaf {
            Leaf::Class(_) | Leaf::Tier(_) | Leaf::Key(_) => {}
            Leaf::Wire(test) => self.wire(leaf, test.field, &test.words),
            Leaf::Claim(field, words) => self.claim(leaf, *field, words),
            Leaf::Zone(zones) => {
                let networks = (0..self.policy.draft().networks.len()).filter_map(|index| u16::try_from(index).ok());
                let other = networks.map(|index| Some(ZoneId(index))).find(|zone| !zones.contains(zone));
                zones.iter().copied().chain([None]).chain(other).for_each(|zone| self.add(leaf, Value::Zone(zone)));
            }
            Leaf::Peer(ranges) => ranges.iter().for_each(|range| self.add(leaf, Value::Peer(range.network()))),
            Leaf::Method(patterns) => self.texts(leaf, patterns, &["GET", "POST"]),
            Leaf::Path(patterns) => self.paths(leaf, patterns),
            Leaf::Host(patterns) => {
                for host in patterns.iter().map(|pattern| Host::canonical(&sample(pattern))) {
                    if self.tables.hosts.app_at(&host, self.scene.inputs.http.path) == Some(self.id) {
                        self.add(leaf, Value::Host(host));
                    }
                }
            }
            Leaf::Header(_, words) => {
                self.words(leaf, words);
                self.add(leaf, Value::Text(None));
            }
            Leaf::Weekday(days) => {
                let other = [Weekday::Monday, Weekday::Saturday, Weekday::Sunday];
                days.iter().chain(&other).for_each(|day| self.add(leaf, Value::Weekday(*day)));
            }
            Leaf::Hour(wanted) => {
                for (_, hour) in wanted {
                    for hour in [Some(*hour), hour.checked_sub(1), hour.checked_add(1)].into_iter().flatten().filter(|hour| *hour < 24) {
                        self.add(leaf, Value::Hour(hour));
                    }
                }
            }
            leaf => self.of_record(leaf),
        }
    }

    fn texts(&mut self, leaf: &'a Leaf, patterns: &[Pattern], more: &[&str]) {
        let samples = patterns.iter().map(sample).filter(|sample| !sample.is_empty());
        for text in samples.chain(more.iter().map(|text| (*text).to_owned())) {
            self.add(leaf, Value::Text(Some(text.into())));
        }
    }

    /// Those that are the same app's.
    fn paths(&mut self, leaf: &'a Leaf, patterns: &[Pattern]) {
        let host = self.scene.inputs.http.host;
        for path in patterns.iter().map(sample).chain(["/".to_owned()]) {
            if path.starts_with('/') && self.tables.hosts.app_at(host, &path).is_none_or(|app| app == self.id) {
                self.add(leaf, Value::Text(Some(path.into())));
            }
        }
    }

    fn words(&mut self, leaf: &'a Leaf, words: &Words) {
        match words {
            Words::Text(patterns) => self.texts(leaf, patterns, &[ANOTHER]),
            Words::Any | Words::None => self.add(leaf, Value::Text(Some(ANOTHER.into()))),
        }
    }

    /// Of a closed list the first word that the comparison wants, and the first that it does not.
    fn of_list<T: Word>(&mut self, leaf: &'a Leaf, words: &Words) {
        for wanted in [true, false] {
            if let Some(word) = T::ALL.iter().find(|word| words.hold(word.word()) == wanted) {
                self.add(leaf, Value::Text(Some(word.word().into())));
            }
        }
    }

    fn wire(&mut self, leaf: &'a Leaf, field: WireField, words: &Words) {
        match field {
            WireField::Contradictions => {
                if !self.scene.inputs.sight.comparison.contradictions.is_empty() {
                    self.add(leaf, Value::Clear);
                }
            }
            WireField::Drift => {
                if self.scene.inputs.sight.drift {
                    self.add(leaf, Value::Truth(false));
                }
            }
            WireField::Intercepted => self.add(leaf, Value::Truth(!self.scene.inputs.sight.intercepted)),
            WireField::Os => self.of_list::<Os>(leaf, words),
            WireField::Browser => self.of_list::<Browser>(leaf, words),
            WireField::Ja4 | WireField::Ja4Stable => {
                if let Words::Text(patterns) = words {
                    for text in patterns.iter().map(sample).filter(|text| ja4(text).is_some()) {
                        self.add(leaf, Value::Text(Some(text.into())));
                    }
                }
                self.add(leaf, Value::Text(None));
            }
            WireField::H2 | WireField::Syn => {
                self.words(leaf, words);
                self.add(leaf, Value::Text(None));
            }
            WireField::Stack => self.words(leaf, words),
        }
    }

    fn claim(&mut self, leaf: &'a Leaf, field: ClaimField, words: &Words) {
        match field {
            ClaimField::Os => self.of_list::<Os>(leaf, words),
            ClaimField::Browser => self.of_list::<Browser>(leaf, words),
            ClaimField::FormFactor => self.of_list::<FormFactor>(leaf, words),
        }
        self.add(leaf, Value::Text(None));
    }

    fn of_record(&mut self, leaf: &'a Leaf) {
        let Record::Known { device, too_old } = self.scene.record else { return };
        match leaf {
            Leaf::Fact(fact, _) if !too_old && self.scene.fact(*fact).state != FactState::Ok => self.add(leaf, Value::Anew),
            Leaf::FactAge(..) | Leaf::PostureAge(_) if !too_old => self.add(leaf, Value::Anew),
            Leaf::Device(DeviceField::State, _) if device.state != DeviceState::Approved => {
                self.add(leaf, Value::Text(Some(DeviceState::Approved.as_str().into())));
            }
            Leaf::OsVersion(wanted) => {
                for (compare, version) in wanted {
                    let mut version = version.clone();
                    if *compare == Compare::More {
                        version.0.push(1);
                    }
                    let higher = device.os_version.as_deref().and_then(|found| compare_version(found, &version));
                    if higher.is_none_or(std::cmp::Ordering::is_lt) {
                        self.add(leaf, Value::Version(version));
                    }
                }
            }
            Leaf::KnownFor(wanted) => {
                let second = SignedDuration::from_secs(1);
                for (_, threshold) in wanted {
                    let around = [Some(*threshold), threshold.checked_sub(second), threshold.checked_add(second)];
                    for length in around.into_iter().flatten().filter(|length| !length.is_negative()) {
                        self.add(leaf, Value::Age(length));
                    }
                }
            }
            Leaf::Device(DeviceField::State, _) => {}
            Leaf::Device(DeviceField::Ownership, _) => {
                for ownership in Ownership::ALL {
                    self.add(leaf, Value::Text(Some(ownership.as_str().into())));
                }
            }
            Leaf::Device(DeviceField::OnNet, _) => [true, false].into_iter().for_each(|onnet| self.add(leaf, Value::Truth(onnet))),
            Leaf::Device(DeviceField::Tags, words) => {
                self.add(leaf, Value::Tags(Vec::new()));
                let more = match words {
                    Words::Text(patterns) => patterns.iter().map(sample).collect(),
                    Words::Any | Words::None => vec![ANOTHER.to_owned()],
                };
                for tag in more {
                    self.add(leaf, Value::Tags(device.tags.iter().cloned().chain([tag]).collect()));
                }
            }
            Leaf::Device(_, words) => self.words(leaf, words),
            _ => {}
        }
    }
}

/// A text that the glob matches: what stands between its stars.
fn sample(pattern: &Pattern) -> String {
    pattern.as_str().replace('*', "")
}

fn ja4(text: &str) -> Option<Ja4> {
    <[u8; 36]>::try_from(text.as_bytes()).ok().and_then(Ja4::new)
}

/// A situation with some of it changed: what is not changed is borrowed.
pub struct World<'a> {
    tables: &'a Tables,
    base: Inputs<'a>,
    standing: Option<Standing>,
    sight: Option<Sight>,
    claims: Option<Claims>,
    wire: Option<Wire>,
    opening: Option<Opening>,
    method: Option<Box<str>>,
    path: Option<Box<str>>,
    host: Option<Host>,
    headers: Option<HeaderMap>,
}

impl<'a> World<'a> {
    pub fn new(tables: &'a Tables, base: &Inputs<'a>) -> Self {
        let base = *base;
        Self {
            tables,
            base,
            standing: None,
            sight: None,
            claims: None,
            wire: None,
            opening: None,
            method: None,
            path: None,
            host: None,
            headers: None,
        }
    }

    pub fn inputs(&self) -> Inputs<'_> {
        let http = self.base.http;
        Inputs {
            standing: self.standing.as_ref().unwrap_or(self.base.standing),
            sight: self.sight.as_ref().unwrap_or(self.base.sight),
            claims: self.claims.as_ref().unwrap_or(self.base.claims),
            wire: self.wire.as_ref().unwrap_or(self.base.wire),
            opening: self.opening.as_ref().unwrap_or(self.base.opening),
            http: Http {
                method: self.method.as_deref().unwrap_or(http.method),
                path: self.path.as_deref().unwrap_or(http.path),
                host: self.host.as_ref().unwrap_or(http.host),
                headers: self.headers.as_ref().unwrap_or(http.headers),
            },
            ..self.base
        }
    }

    pub fn change(&mut self, candidate: &Candidate<'_>) {
        let now = self.base.now;
        match (candidate.signal, &candidate.value) {
            (Signal::Fact(fact), Value::Anew) => {
                let name = self.tables.facts.get(fact as usize).map(|name| name.to_string());
                self.observe(name.unwrap_or_default());
            }
            // A fact that no condition can name.
            (Signal::PostureAge, Value::Anew) => self.observe(String::new()),
            (Signal::Device(field), value) => self.edit(|device| set_field(device, field, value)),
            (Signal::OsVersion, Value::Version(version)) => {
                let text = version.0.iter().map(u64::to_string).collect::<Vec<_>>().join(".");
                self.edit(|device| device.os_version = Some(text));
            }
            (Signal::KnownFor, Value::Age(age)) => {
                self.edit(|device| device.created_at = now.checked_sub(*age).unwrap_or(Timestamp::MIN));
            }
            (Signal::Wire(field), value) => self.set_wire(field, value),
            (Signal::Claim(field), Value::Text(word)) => {
                let claims = self.claims.get_or_insert_with(|| self.base.claims.clone());
                match field {
                    ClaimField::Os => claims.os = word.as_deref().and_then(Os::parse),
                    ClaimField::Browser => claims.browser = word.as_deref().and_then(Browser::parse),
                    ClaimField::FormFactor => claims.form_factor = word.as_deref().and_then(FormFactor::parse),
                }
            }
            (Signal::Net, Value::Zone(zone)) => self.base.zone = *zone,
            (Signal::Net, Value::Peer(peer)) => (self.base.peer, self.base.zone) = (*peer, self.tables.zones.zone(*peer)),
            (Signal::Method, Value::Text(Some(method))) => self.method = Some(method.clone()),
            (Signal::Path, Value::Text(Some(path))) => self.path = Some(path.clone()),
            (Signal::Host, Value::Host(host)) => self.host = Some(host.clone()),
            (Signal::Header(id), Value::Text(value)) => {
                let headers = self.headers.get_or_insert_with(|| self.base.http.headers.clone());
                let Some(name) = self.tables.headers.get(id as usize) else { return };
                headers.remove(name);
                if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                    headers.insert(name, value);
                }
            }
            (Signal::Weekday, Value::Weekday(day)) => self.base.given.weekday = Some(*day),
            (Signal::Hour, Value::Hour(hour)) => self.base.given.hour = Some(*hour),
            _ => {}
        }
    }

    /// Ok, at this moment, by the source that is believed longest.
    fn observe(&mut self, name: String) {
        let Some(source) = self.tables.sources.longest() else { return };
        let seen = Observation { ok: true, value: None, source: source.to_owned(), observed_at: self.base.now, expires_at: None };
        self.edit(|device| match device.posture.iter_mut().find(|fact| fact.name == name) {
            Some(fact) => fact.observations = vec![seen],
            None => device.posture.push(Fact { name, observations: vec![seen] }),
        });
    }

    fn edit(&mut self, change: impl FnOnce(&mut Device)) {
        let standing = self.standing.get_or_insert_with(|| self.base.standing.clone());
        if let Standing::Known { device, .. } = standing {
            change(Arc::make_mut(device));
        }
    }

    fn set_wire(&mut self, field: WireField, value: &Value) {
        match (field, value) {
            (WireField::Ja4, Value::Text(text)) => self.wire_mut().ja4 = text.as_deref().and_then(ja4),
            (WireField::Ja4Stable, Value::Text(text)) => self.wire_mut().ja4_stable = text.as_deref().and_then(ja4),
            (WireField::Syn, Value::Text(text)) => self.wire_mut().syn.clone_from(text),
            (WireField::H2, Value::Text(text)) => {
                self.opening.get_or_insert_with(|| self.base.opening.clone()).h2.clone_from(text);
            }
            (field, value) => {
                let sight = self.sight.get_or_insert_with(|| self.base.sight.clone());
                match (field, value) {
                    (WireField::Contradictions, _) => {
                        sight.comparison.contradictions = Set::EMPTY;
                        sight.comparison.strong = Set::EMPTY;
                        sight.comparison.clashes.clear();
                    }
                    (WireField::Drift, Value::Truth(drift)) => sight.drift = *drift,
                    (WireField::Intercepted, Value::Truth(intercepted)) => sight.intercepted = *intercepted,
                    (WireField::Stack, Value::Text(Some(word))) => {
                        Arc::make_mut(&mut sight.identification).stacks = [Arc::from(&**word)].into_iter().collect();
                    }
                    (WireField::Os, Value::Text(Some(word))) => {
                        Arc::make_mut(&mut sight.identification).os = Os::parse(word).into_iter().collect();
                    }
                    (WireField::Browser, Value::Text(Some(word))) => {
                        Arc::make_mut(&mut sight.identification).browsers = Browser::parse(word).into_iter().collect();
                    }
                    _ => {}
                }
            }
        }
    }

    fn wire_mut(&mut self) -> &mut Wire {
        self.wire.get_or_insert_with(|| self.base.wire.clone())
    }
}

fn set_field(device: &mut Device, field: DeviceField, value: &Value) {
    let text = match value {
        Value::Text(text) => text.as_deref().map(str::to_owned),
        _ => None,
    };
    match (field, value) {
        (DeviceField::Tags, Value::Tags(tags)) => device.tags.clone_from(tags),
        (DeviceField::OnNet, Value::Truth(onnet)) => device.onnet = Some(*onnet),
        (DeviceField::State, _) => device.state = text.as_deref().and_then(DeviceState::parse).unwrap_or(device.state),
        (DeviceField::Ownership, _) => device.ownership = text.as_deref().and_then(Ownership::parse),
        (DeviceField::Id, _) => device.id = text.unwrap_or_default(),
        (DeviceField::Name, _) => device.name = text,
        (DeviceField::User, _) => device.user = text,
        (DeviceField::Team, _) => device.team = text,
        (DeviceField::Os, _) => device.os = text,
        (DeviceField::Model, _) => device.model = text,
        (DeviceField::Tags | DeviceField::OnNet, _) => {}
    }
}

/// The fact as it is, for people: a fact that is ok also with its age.
pub fn fact_words(scene: &Scene<'_>, fact: u32) -> String {
    let now = scene.fact(super::super::condition::FactId(fact));
    match (now.state, now.observed_at) {
        (FactState::Ok, Some(at)) => {
            let ago = super::super::wording::duration(age(at, scene.inputs.now).unsigned_abs());
            format!("ok, observed {ago} ago")
        }
        (state, _) => state.as_str().to_owned(),
    }
}

/// A text field as it is, for people.
pub fn field_words(device: &Device, field: DeviceField) -> String {
    field_text(device, field).unwrap_or("missing from the record").to_owned()
}
