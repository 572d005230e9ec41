//! The request and the device that an explanation is about, put together from options.

mod moment;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};

use self::moment::Moment;
use super::failure::Failure;
use crate::model::{
    Browser, Claims, Contradiction, Device, DeviceState, Fact, FactState, FormFactor, Freshness, Host, Identification, Ja4, NoRecord,
    Observation, Opening, Os, Ownership, Seen, Set, Sight, Standing, WELL_KNOWN_FACTS, Wire, Word,
};
use crate::policy::draft::{HostPattern, Source};
use crate::policy::{AppId, ClassId, Given, Http, Inputs, Policy, TierId, ZoneId};
use crate::request::{self, PathOptions};

/// Signals with names of their own; `posture.<fact>`, `posture.<fact>.age` and `http.header.<name>` come to them.
const SIGNALS: [&str; 38] = [
    "class",
    "tier",
    "device.id",
    "device.name",
    "device.ownership",
    "device.onnet",
    "device.state",
    "device.user",
    "device.team",
    "device.os",
    "device.os_version",
    "device.model",
    "device.key",
    "device.tags",
    "device.known_for",
    "posture.age",
    "wire.ja4",
    "wire.ja4_stable",
    "wire.h2",
    "wire.syn",
    "wire.stack",
    "wire.os",
    "wire.browser",
    "wire.intercepted",
    "wire.drift",
    "wire.contradictions",
    "claims.os",
    "claims.browser",
    "claims.form_factor",
    "net.peer",
    "net.zone",
    "http.method",
    "http.path",
    "http.host",
    "http.header.x-name",
    "time.now",
    "time.weekday",
    "time.hour",
];

/// What was not seen.
const UNAVAILABLE: &str = "unavailable";

/// An address for documentation (RFC 5737): in nobody's network.
const NOWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Options as they come.
pub struct Situation<'a> {
    policy: &'a Policy,
    now: Timestamp,
    moment: Moment,
    options: PathOptions,
    device: Option<Device>,
    /// Of the device: how long before the moment its record was made.
    known_for: Option<SignedDuration>,
    /// `device.key=none`.
    keyless: bool,
    facts: BTreeMap<String, Stated>,
    posture_age: Option<SignedDuration>,
    given: Given,
    peer: IpAddr,
    zone: Option<Option<ZoneId>>,
    wire: Wire,
    opening: Opening,
    sight: Sight,
    claims: Claims,
    method: String,
    host: Host,
    path: String,
    headers: HeaderMap,
}

#[derive(Default)]
struct Stated {
    state: Option<FactState>,
    age: Option<SignedDuration>,
}

/// What a policy decides about.
pub struct Settled {
    now: Timestamp,
    standing: Standing,
    given: Given,
    peer: IpAddr,
    zone: Option<ZoneId>,
    wire: Wire,
    opening: Opening,
    sight: Sight,
    claims: Claims,
    method: String,
    pub host: Host,
    pub path: String,
    headers: HeaderMap,
}

impl Settled {
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            now: self.now,
            standing: &self.standing,
            peer: self.peer,
            zone: self.zone,
            wire: &self.wire,
            opening: &self.opening,
            sight: &self.sight,
            claims: &self.claims,
            http: Http { method: &self.method, host: &self.host, path: &self.path, headers: &self.headers },
            given: self.given,
        }
    }
}

impl<'a> Situation<'a> {
    /// A GET of the app's first host and path prefix.
    pub fn new(policy: &'a Policy, app: AppId, device: Option<Device>, now: Timestamp) -> Result<Self, Failure> {
        let draft = policy.draft().apps.get(app.index());
        let host = match draft.and_then(|app| app.hosts.first()) {
            Some(HostPattern::Exact(host)) => host.clone(),
            Some(HostPattern::Below(parent)) => request::host(&format!("any.{parent}"))?,
            None => request::host("localhost")?,
        };
        Ok(Self {
            policy,
            now,
            moment: Moment::default(),
            options: PathOptions::STRICT,
            device,
            known_for: None,
            keyless: false,
            facts: BTreeMap::new(),
            posture_age: None,
            given: Given::default(),
            peer: NOWHERE,
            zone: None,
            wire: Wire::default(),
            opening: Opening::default(),
            sight: Sight::default(),
            claims: Claims::default(),
            method: "GET".to_owned(),
            host,
            path: draft.map_or("/", |app| &app.path_prefix).to_owned(),
            headers: HeaderMap::new(),
        })
    }

    pub fn request(&mut self, method: &str, path: Option<&str>, options: Option<PathOptions>) -> Result<(), Failure> {
        self.options = options.unwrap_or(PathOptions::STRICT);
        self.set_method(method)?;
        path.map_or(Ok(()), |path| self.set_path(path))
    }

    fn set_method(&mut self, method: &str) -> Result<(), Failure> {
        http::Method::from_str(method).map_err(|_| Failure(format!("`{method}` is no method")))?;
        self.method = method.to_owned();
        Ok(())
    }

    fn set_path(&mut self, path: &str) -> Result<(), Failure> {
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let canonical = request::path(path, &self.options).map_err(|error| Failure(format!("the path `{path}`: {error}")))?;
        self.path = canonical.into_owned();
        Ok(())
    }

    /// `SIGNAL=VALUE`.
    pub fn set(&mut self, text: &str) -> Result<(), Failure> {
        let Some((signal, value)) = text.split_once('=') else {
            return Err(Failure(format!("`--set {text}`: expected SIGNAL=VALUE, such as `device.state=lost`")));
        };
        self.put(signal, value).map_err(|Failure(error)| Failure(format!("--set {text}: {error}")))
    }

    pub(super) fn put(&mut self, signal: &str, value: &str) -> Result<(), Failure> {
        match signal.split_once('.') {
            None if signal == "class" => self.given.class = Some(self.class(value)?),
            None if signal == "tier" => self.given.tier = Some(self.tier(value)?),
            Some(("device", field)) => return self.put_device(signal, field, value),
            Some(("posture", "age")) => self.posture_age = Some(age(value)?),
            Some(("posture", fact)) => return self.put_fact(signal, fact, value),
            Some(("wire", "h2")) => self.opening.h2 = seen(value),
            Some(("wire", "syn")) => self.wire.syn = seen(value),
            Some(("wire", "stack")) => self.identified(value).stacks = listed(value).map(Arc::from).collect(),
            Some(("wire", "os")) => self.identified(value).os = set(value)?,
            Some(("wire", "browser")) => self.identified(value).browsers = set(value)?,
            Some(("wire", "intercepted")) => self.sight.intercepted = truth(value)?,
            Some(("wire", "drift")) => self.sight.drift = truth(value)?,
            Some(("wire", "contradictions")) if value == "none" => self.sight.comparison.contradictions = Set::EMPTY,
            Some(("wire", "contradictions")) => self.sight.comparison.contradictions = set(value)?,
            Some(("wire", "ja4")) => self.wire.ja4 = ja4(value)?,
            Some(("wire", "ja4_stable")) => self.wire.ja4_stable = ja4(value)?,
            Some(("claims", "os")) => self.claims.os = claim(value, Os::ALL, Os::as_str)?,
            Some(("claims", "browser")) => self.claims.browser = claim(value, Browser::ALL, Browser::as_str)?,
            Some(("claims", "form_factor")) => self.claims.form_factor = claim(value, FormFactor::ALL, FormFactor::as_str)?,
            Some(("net", "peer")) => {
                let peer: IpAddr = value.parse().map_err(|_| Failure(format!("`{value}` is no address")))?;
                self.peer = peer.to_canonical();
            }
            Some(("net", "zone")) => self.zone = Some(self.zone_named(value)?),
            Some(("http", "method")) => return self.set_method(value),
            Some(("http", "path")) => return self.set_path(value),
            Some(("http", "host")) => self.host = request::host(value).map_err(|error| Failure(format!("`{value}`: {error}")))?,
            Some(("http", header)) if header.starts_with("header.") => {
                let name = header.trim_start_matches("header.");
                let name = HeaderName::from_str(name).map_err(|_| Failure(format!("`{name}` is no header's name")))?;
                let value = HeaderValue::from_str(value).map_err(|_| Failure("no header can have that value".to_owned()))?;
                // Given twice, it is sent twice.
                self.headers.append(name, value);
            }
            Some(("time", "now")) => self.moment.set_now(value, &self.policy.draft().time_zone)?,
            Some(("time", "weekday")) => self.moment.set_weekday(value)?,
            Some(("time", "hour")) => self.moment.set_hour(value)?,
            _ => return Err(self.unknown(signal)),
        }
        Ok(())
    }

    /// What has a value was seen, and so was what is `unknown`.
    fn identified(&mut self, value: &str) -> &mut Identification {
        let told = Arc::make_mut(&mut self.sight.identification);
        if value != UNAVAILABLE {
            told.tls = Seen::Unknown;
        }
        told
    }

    fn unknown(&self, signal: &str) -> Failure {
        let facts = self.facts_known();
        let facts = facts.iter().flat_map(|fact| [format!("posture.{fact}"), format!("posture.{fact}.age")]);
        let names: Vec<String> = SIGNALS.iter().map(|name| (*name).to_owned()).chain(facts).collect();
        Failure(format!("no signal named `{signal}`{}", nearest(signal, names.iter().map(String::as_str))))
    }

    /// Those that the policy reads, those of the device, and the well-known ones.
    fn facts_known(&self) -> Vec<String> {
        let read = self.policy.facts_read().iter().map(|fact| fact.to_string());
        let recorded = self.device.iter().flat_map(|device| device.posture.iter().map(|fact| fact.name.clone()));
        read.chain(recorded).chain(WELL_KNOWN_FACTS.map(str::to_owned)).collect()
    }

    fn class(&self, value: &str) -> Result<ClassId, Failure> {
        let classes = (0..).zip(&self.policy.draft().classes).map(|(index, class)| (class.name.as_str(), ClassId(index)));
        one_of(value, classes.chain([("blind", ClassId::BLIND), ("unclassified", ClassId::UNCLASSIFIED)]))
    }

    fn tier(&self, value: &str) -> Result<TierId, Failure> {
        one_of(value, (0..).zip(&self.policy.draft().tiers).map(|(index, tier)| (tier.name.as_str(), TierId(index))))
    }

    fn zone_named(&self, value: &str) -> Result<Option<ZoneId>, Failure> {
        let networks = (0..).zip(&self.policy.draft().networks).map(|(index, network)| (network.name.as_str(), Some(ZoneId(index))));
        one_of(value, networks.chain([("none", None)]))
    }

    fn put_device(&mut self, signal: &str, field: &str, value: &str) -> Result<(), Failure> {
        if field == "key" {
            self.keyless = one_of(value, [("none", true), ("certificate", false)].into_iter())?;
            if !self.keyless {
                self.record();
            }
            return Ok(());
        }
        if !SIGNALS.contains(&signal) {
            return Err(self.unknown(signal));
        }
        if field == "known_for" {
            self.known_for = Some(age(value)?);
            self.record();
            return Ok(());
        }
        let device = self.record();
        let text = (!value.is_empty()).then(|| value.to_owned());
        match field {
            "id" => device.id = text.ok_or_else(|| Failure("every record has an id".to_owned()))?,
            "name" => device.name = text,
            "user" => device.user = text,
            "team" => device.team = text,
            "os" => device.os = text,
            "os_version" => device.os_version = text,
            "model" => device.model = text,
            "tags" if value == "none" => device.tags.clear(),
            "tags" => device.tags = value.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            "ownership" => {
                device.ownership = optional(value, Ownership::ALL.into_iter().map(|ownership| (ownership.as_str(), ownership)))?;
            }
            "onnet" => device.onnet = optional(value, [("true", true), ("false", false)].into_iter())?,
            "state" => device.state = one_of(value, DeviceState::ALL.into_iter().map(|state| (state.as_str(), state)))?,
            _ => return Err(self.unknown(signal)),
        }
        Ok(())
    }

    fn put_fact(&mut self, signal: &str, fact: &str, value: &str) -> Result<(), Failure> {
        let (fact, of_age) = fact.strip_suffix(".age").map_or((fact, false), |fact| (fact, true));
        if !self.facts_known().iter().any(|known| known == fact) {
            return Err(self.unknown(signal));
        }
        let stated = Stated {
            state: if of_age { None } else { Some(one_of(value, FactState::ALL.into_iter().map(|state| (state.as_str(), state)))?) },
            age: if of_age { Some(age(value)?) } else { None },
        };
        self.record();
        let kept = self.facts.entry(fact.to_owned()).or_default();
        kept.state = stated.state.or(kept.state);
        kept.age = stated.age.or(kept.age);
        Ok(())
    }

    /// The device's record; where none was asked for an approved one that states nothing else.
    fn record(&mut self) -> &mut Device {
        if self.device.is_none() {
            // Until something else is said, it was made at the moment that is explained.
            self.known_for.get_or_insert(SignedDuration::ZERO);
        }
        self.device.get_or_insert_with(|| Device::blank("described by --set", DeviceState::Approved, "", self.now))
    }

    pub fn settle(mut self) -> Result<Settled, Failure> {
        self.now = self.moment.settle(self.now, &self.policy.draft().time_zone)?;
        let blind = self.given.class == Some(ClassId::BLIND);
        let described = !blind && (self.given.tier.is_some() || self.given.class.is_some());
        if described && !self.keyless {
            self.record();
        }
        if self.keyless && (described || self.device.is_some()) {
            return Err(Failure("device.key=none is a device without a record: no device, fact, class or tier goes with it".to_owned()));
        }
        if blind && self.device.is_some() {
            return Err(Failure("class=blind is a device without a record: no device and no fact goes with it".to_owned()));
        }
        if let (Some(device), Some(age)) = (&mut self.device, self.known_for) {
            device.created_at = before(self.now, age);
        }
        self.settle_facts()?;
        let standing = match self.device {
            None => Standing::NoRecord(NoRecord::NoProof),
            Some(device) => Standing::Known { device: Arc::new(device), freshness: Freshness::Fresh, proof_ends: i64::MAX },
        };
        let zone = self.zone.unwrap_or_else(|| self.policy.zone(self.peer));
        let direct = zone.is_some_and(|zone| self.policy.syn_is_direct(zone));
        let compared = &mut self.sight.comparison;
        // A SYN is only as good as the way that it came by.
        compared.strong = compared.contradictions.iter().filter(|kind| *kind != Contradiction::UaOsVsSyn || direct).collect();
        Ok(Settled {
            now: self.now,
            standing,
            given: self.given,
            peer: self.peer,
            zone,
            wire: self.wire,
            opening: self.opening,
            sight: self.sight,
            claims: self.claims,
            method: self.method,
            host: self.host,
            path: self.path,
            headers: self.headers,
        })
    }

    fn settle_facts(&mut self) -> Result<(), Failure> {
        let now = self.now;
        let source = self.policy.draft().sources.iter().max_by_key(|source| source.ttl);
        for (name, stated) in &self.facts {
            let Some(device) = &mut self.device else { continue };
            let place = device.posture.iter().position(|fact| fact.name == *name);
            let fact = place.map(|place| device.posture.remove(place));
            let observed_at = before(now, stated.age.or(self.posture_age).unwrap_or_default());
            let observations = match (stated.state, fact) {
                (Some(FactState::Unknown), _) if stated.age.is_some() => {
                    return Err(Failure(format!("posture.{name}: an unknown fact has no age")));
                }
                (Some(FactState::Unknown), _) => continue,
                (Some(state), _) => vec![observation(source, name, state == FactState::Ok, observed_at)?],
                (None, Some(fact)) => {
                    let moved = |seen: Observation| Observation { observed_at, expires_at: None, ..seen };
                    fact.observations.into_iter().map(moved).collect()
                }
                (None, None) => return Err(Failure(format!("posture.{name}.age: the fact needs a state too, posture.{name}=ok or fail"))),
            };
            device.posture.push(Fact { name: name.clone(), observations });
            device.posture.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let Some(age) = self.posture_age else { return Ok(()) };
        let facts = self.device.iter_mut().flat_map(|device| &mut device.posture);
        let others = facts.filter(|fact| self.facts.get(&fact.name).is_none_or(|stated| stated.age.is_none()));
        let mut some = false;
        for observation in others.flat_map(|fact| &mut fact.observations) {
            observation.observed_at = before(now, age);
            some = true;
        }
        if some { Ok(()) } else { Err(Failure("posture.age: no fact was observed; set one, such as posture.patched=ok".to_owned())) }
    }
}

/// The source that is believed longest, so that an age that is set does not expire the fact sooner than it must.
fn observation(source: Option<&Source>, fact: &str, ok: bool, observed_at: Timestamp) -> Result<Observation, Failure> {
    let Some(source) = source else {
        return Err(Failure(format!("posture.{fact}: the configuration lists no source under posture.sources, so no fact is believed")));
    };
    Ok(Observation { ok, value: None, source: source.name.clone(), observed_at, expires_at: None })
}

fn before(now: Timestamp, age: SignedDuration) -> Timestamp {
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}

fn one_of<'a, T>(value: &str, words: impl Iterator<Item = (&'a str, T)>) -> Result<T, Failure> {
    let mut names = Vec::new();
    for (name, meaning) in words {
        if name == value {
            return Ok(meaning);
        }
        names.push(name);
    }
    let hint = nearest(value, names.iter().copied());
    Err(Failure(format!("`{value}` is not one of {}{hint}", names.join(", "))))
}

fn optional<'a, T>(value: &str, words: impl Iterator<Item = (&'a str, T)>) -> Result<Option<T>, Failure> {
    if value.is_empty() { Ok(None) } else { one_of(value, words).map(Some) }
}

fn claim<T: Copy>(value: &str, all: &[T], word: impl Fn(T) -> &'static str) -> Result<Option<T>, Failure> {
    one_of(value, all.iter().map(|claim| (word(*claim), Some(*claim))).chain([("unavailable", None)]))
}

/// A text that has no other form than its own.
fn seen(value: &str) -> Option<Box<str>> {
    (value != UNAVAILABLE).then(|| value.into())
}

/// `openssl,gnutls`; `unknown` and `unavailable` are no members of any set.
fn listed(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !matches!(*word, "" | "unknown" | UNAVAILABLE))
}

fn set<T: Word>(value: &str) -> Result<Set<T>, Failure> {
    listed(value).map(|word| one_of(word, T::ALL.iter().map(|known| (known.word(), *known)))).collect()
}

fn truth(value: &str) -> Result<bool, Failure> {
    one_of(value, [("true", true), ("false", false)].into_iter())
}

fn ja4(value: &str) -> Result<Option<Ja4>, Failure> {
    if value == "unavailable" {
        return Ok(None);
    }
    let text = <[u8; 36]>::try_from(value.as_bytes()).ok().and_then(Ja4::new);
    text.map(Some).ok_or_else(|| Failure("a JA4 fingerprint has 36 characters, such as t13d1516h2_8daaf6152771_e5627efa2ab1".to_owned()))
}

/// `90s`, `15m`, `3h`, `30d`.
pub fn age(value: &str) -> Result<SignedDuration, Failure> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match value.strip_prefix(digits) {
        Some("ms") => Duration::from_millis(1),
        Some("s") => Duration::from_secs(1),
        Some("m") => Duration::from_secs(60),
        Some("h") => Duration::from_secs(3600),
        Some("d") => Duration::from_secs(86_400),
        _ => Duration::ZERO,
    };
    let length = digits.parse().ok().and_then(|count: u32| unit.checked_mul(count)).filter(|_| !unit.is_zero());
    let length = length.and_then(|length| SignedDuration::try_from(length).ok());
    length.ok_or_else(|| Failure(format!("`{value}` is no length of time, such as 90s, 15m, 3h or 30d")))
}

/// `; did you mean ...?`, or nothing where no name is near.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = names.map(|name| (strsim::damerau_levenshtein(word, name), name)).min_by_key(|(distance, _)| *distance);
    match near {
        Some((distance, name)) if distance <= word.len().max(name.len()) / 2 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}
