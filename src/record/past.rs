//! A line of the decision log read back: what was decided, and what it was decided from, for another policy to decide anew.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::model::{
    Browser, Claims, Clash, Comparison, Confidence, Contradiction, Device, DeviceState, Effect, Fact, FormFactor, Freshness, Host,
    Identification, Ja4, NoRecord, Observation, Opening, Os, Ownership, Reason, Seen, Set, Sight, Standing, Wire,
};
use crate::policy::{AppId, Given, Http, Inputs, Policy};

/// Borrows from the line unless something in it was escaped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a line says.
#[derive(Debug, Deserialize)]
pub struct Past<'a> {
    #[serde(borrow)]
    pub ts: Text<'a>,
    pub request_id: Text<'a>,
    pub app: Text<'a>,
    pub effect: Text<'a>,
    pub mode: Text<'a>,
    pub would: Text<'a>,
    #[serde(default)]
    pub restrictions: Vec<Text<'a>>,
    pub class: Option<Text<'a>>,
    pub tier: Option<Text<'a>>,
    pub rule: Option<Text<'a>>,
    pub owner: Option<Text<'a>>,
    #[serde(default)]
    pub reasons: Vec<Text<'a>>,
    pub policy_rev: Option<Text<'a>>,
    pub device: Option<Text<'a>>,
    pub host: Option<Text<'a>>,
    pub method: Option<Text<'a>>,
    pub path: Option<Text<'a>>,
    peer: Option<Text<'a>>,
    /// `None`: a line of an older version.
    #[serde(default, deserialize_with = "there")]
    standing: Option<Option<Text<'a>>>,
    #[serde(default)]
    record: Record<'a>,
    #[serde(default)]
    posture: BTreeMap<Text<'a>, PastFact<'a>>,
    as_of: Option<Text<'a>>,
    #[serde(default)]
    headers_read: Vec<Text<'a>>,
    #[serde(default)]
    headers: BTreeMap<Text<'a>, Values<'a>>,
    #[serde(default)]
    wire: Option<PastWire<'a>>,
    #[serde(default)]
    claims: Option<PastClaims<'a>>,
    #[serde(default)]
    contradictions: Vec<PastClash<'a>>,
}

fn there<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[derive(Debug, Default, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    state: Option<Text<'a>>,
    ownership: Option<Text<'a>>,
    name: Option<Text<'a>>,
    user: Option<Text<'a>>,
    team: Option<Text<'a>>,
    os: Option<Text<'a>>,
    os_version: Option<Text<'a>>,
    model: Option<Text<'a>>,
    #[serde(default)]
    tags: Vec<Text<'a>>,
    onnet: Option<bool>,
    created_at: Option<Text<'a>>,
    proof_ends: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct PastFact<'a> {
    #[serde(borrow)]
    state: Text<'a>,
    source: Text<'a>,
    age: f64,
    #[serde(default)]
    observations: Vec<Seconds<'a>>,
}

#[derive(Debug, Deserialize)]
struct Seconds<'a> {
    ok: bool,
    #[serde(borrow)]
    source: Text<'a>,
    age: f64,
    expires_in: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values<'a> {
    #[serde(borrow)]
    One(Text<'a>),
    Several(Vec<Text<'a>>),
}

#[derive(Debug, Default, Deserialize)]
struct PastWire<'a> {
    #[serde(borrow)]
    ja4: Option<Text<'a>>,
    ja4_stable: Option<Text<'a>>,
    syn: Option<Text<'a>>,
    h2: Option<Text<'a>>,
    stack: Option<Vec<Text<'a>>>,
    os: Option<Vec<Text<'a>>>,
    browser: Option<Vec<Text<'a>>>,
    #[serde(default)]
    intercepted: bool,
    #[serde(default)]
    drift: bool,
}

#[derive(Debug, Default, Deserialize)]
struct PastClaims<'a> {
    #[serde(borrow)]
    os: Option<Text<'a>>,
    browser: Option<Text<'a>>,
    form_factor: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct PastClash<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    strong: bool,
    #[serde(default)]
    claimed: Option<Text<'a>>,
    #[serde(default)]
    seen: Option<Text<'a>>,
}

/// Why a line cannot be decided anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// No policy decided it.
    Undecided,
    /// It does not say what this signal was.
    Signal(String),
    /// A field has a value that no version of this program writes.
    Malformed(&'static str),
}

/// All that a decision about a past request may read, but its zone, which is the policy's.
#[derive(Debug)]
pub struct Again {
    pub now: Timestamp,
    pub standing: Standing,
    pub host: Host,
    pub path: String,
    pub method: String,
    pub peer: IpAddr,
    headers: HeaderMap,
    wire: Wire,
    opening: Opening,
    sight: Sight,
    claims: Claims,
}

impl<'a> Past<'a> {
    pub fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    pub fn at(&self) -> Option<Timestamp> {
        moment(&self.ts)
    }

    pub fn done(&self) -> Option<Effect> {
        effect(&self.effect)
    }

    pub fn would(&self) -> Option<Effect> {
        effect(&self.would)
    }

    /// The deciding reason; that a restriction refused the request, or that a notice was shown instead, came after the decision.
    pub fn reason(&self) -> &str {
        let after = |reason: &str| reason.starts_with("restrict.") || reason == "notice.shown";
        self.reasons.iter().find(|reason| !after(reason)).map_or("-", |reason| reason)
    }

    /// What it was decided from.
    pub fn again(&self) -> Result<Again, Lack> {
        let word = match &self.standing {
            None if matches!(&*self.app, "none" | "portal") => return Err(Lack::Undecided),
            None => return Err(Lack::Signal("device.*".to_owned())),
            Some(None) => return Err(Lack::Undecided),
            Some(Some(word)) => word,
        };
        let malformed = Lack::Malformed;
        let now = self.at().ok_or(malformed("ts"))?;
        let as_of = self.as_of.as_deref().and_then(moment).ok_or(malformed("as_of"))?;
        let (Some(host), Some(path), Some(method)) = (&self.host, &self.path, &self.method) else { return Err(malformed("host")) };
        Ok(Again {
            now,
            standing: self.standing_of(word, as_of)?,
            host: Host::canonical(host),
            path: path.to_string(),
            method: method.to_string(),
            peer: self.peer.as_deref().and_then(|peer| peer.parse().ok()).ok_or(malformed("peer"))?,
            headers: self.header_map()?,
            wire: self.wire()?,
            opening: Opening { h2: self.wire.as_ref().and_then(|wire| wire.h2.as_deref()).map(Box::from), header_order: None },
            sight: self.sight()?,
            claims: self.claims()?,
        })
    }

    /// A header that the policy reads for this app and that the policy of the time did not: the line does not have it.
    pub fn lacks_header<'p>(&self, policy: &'p Policy, app: AppId) -> Option<&'p HeaderName> {
        policy.reads(app).headers.iter().find(|name| self.headers_read.iter().all(|read| **read != *name.as_str()))
    }

    fn standing_of(&self, word: &str, as_of: Timestamp) -> Result<Standing, Lack> {
        let freshness = match word {
            "known" => Freshness::Fresh,
            "stale" => Freshness::Stale,
            "too_old" => Freshness::TooOld,
            "unreadable" => return Ok(Standing::Unreadable),
            word => {
                let why = NoRecord::ALL.into_iter().find(|why| Reason::NoRecord(*why).to_string() == word);
                return why.map(Standing::NoRecord).ok_or(Lack::Malformed("standing"));
            }
        };
        let record = &self.record;
        let own = |text: &Option<Text<'_>>| text.as_ref().map(ToString::to_string);
        let state = record.state.as_deref().and_then(DeviceState::parse).ok_or(Lack::Malformed("record.state"))?;
        let created_at = record.created_at.as_deref().and_then(moment).ok_or(Lack::Malformed("record.created_at"))?;
        let ownership = match record.ownership.as_deref() {
            None => None,
            Some(word) => Some(Ownership::parse(word).ok_or(Lack::Malformed("record.ownership"))?),
        };
        let id = self.device.as_deref().ok_or(Lack::Malformed("device"))?;
        let posture: Result<Vec<Fact>, Lack> = self.posture.iter().map(|(name, fact)| fact.read(name, as_of)).collect();
        let device = Device {
            name: own(&record.name),
            user: own(&record.user),
            team: own(&record.team),
            tags: record.tags.iter().map(ToString::to_string).collect(),
            ownership,
            onnet: record.onnet,
            os: own(&record.os),
            os_version: own(&record.os_version),
            model: own(&record.model),
            posture: posture?,
            ..Device::blank(id, state, "", created_at)
        };
        let proof_ends = record.proof_ends.ok_or(Lack::Malformed("record.proof_ends"))?;
        Ok(Standing::Known { device: Arc::new(device), freshness, proof_ends })
    }

    fn header_map(&self) -> Result<HeaderMap, Lack> {
        let mut headers = HeaderMap::new();
        for (name, values) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Lack::Malformed("headers"))?;
            let values = match values {
                Values::One(value) => std::slice::from_ref(value),
                Values::Several(values) => values,
            };
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Lack::Malformed("headers"))?);
            }
        }
        Ok(headers)
    }

    fn wire(&self) -> Result<Wire, Lack> {
        let Some(wire) = &self.wire else { return Ok(Wire::default()) };
        let ja4 = |text: &Option<Text<'_>>| match text.as_deref() {
            None => Ok(None),
            Some(text) => {
                let text = <[u8; 36]>::try_from(text.as_bytes()).ok().and_then(Ja4::new);
                text.map(Some).ok_or(Lack::Malformed("wire.ja4"))
            }
        };
        let syn = wire.syn.as_deref().map(Box::from);
        Ok(Wire { ja4: ja4(&wire.ja4)?, ja4_stable: ja4(&wire.ja4_stable)?, syn, ..Wire::default() })
    }

    fn sight(&self) -> Result<Sight, Lack> {
        let nothing = PastWire::default();
        let wire = self.wire.as_ref().unwrap_or(&nothing);
        let some = |values: &Option<Vec<Text<'a>>>| values.as_ref().map(Vec::as_slice).unwrap_or_default().to_vec();
        let seen = |saw: bool| if saw { Seen::Unknown } else { Seen::Unavailable };
        let identification = Identification {
            stacks: some(&wire.stack).iter().map(|name| Arc::from(&**name)).collect(),
            browsers: words(&some(&wire.browser), Browser::parse, "wire.browser")?.into_iter().collect(),
            os: words(&some(&wire.os), Os::parse, "wire.os")?.into_iter().collect(),
            // Which layer was seen does not matter, but that one was which tells programs, or systems, apart.
            tls: seen(wire.stack.is_some()),
            syn: seen(wire.stack.is_none() && wire.os.is_some()),
            ..Identification::default()
        };
        let mut comparison = Comparison { confidence: Confidence::None, ..Comparison::default() };
        for clash in &self.contradictions {
            let kind = Contradiction::parse(&clash.kind).ok_or(Lack::Malformed("contradictions"))?;
            let one = Set::from_iter([kind]);
            comparison.contradictions = comparison.contradictions.either(one);
            if clash.strong {
                comparison.strong = comparison.strong.either(one);
            }
            let side = |side: &Option<Text<'_>>| side.as_deref().unwrap_or_default().into();
            comparison.clashes.push(Clash { kind, claimed: side(&clash.claimed), seen: side(&clash.seen) });
        }
        Ok(Sight { identification: Arc::new(identification), comparison, intercepted: wire.intercepted, drift: wire.drift })
    }

    fn claims(&self) -> Result<Claims, Lack> {
        let Some(claims) = &self.claims else { return Ok(Claims::default()) };
        Ok(Claims {
            os: word(&claims.os, Os::parse, "claims.os")?,
            browser: word(&claims.browser, Browser::parse, "claims.browser")?,
            form_factor: word(&claims.form_factor, FormFactor::parse, "claims.form_factor")?,
            ..Claims::default()
        })
    }
}

impl PastFact<'_> {
    fn read(&self, name: &str, as_of: Timestamp) -> Result<Fact, Lack> {
        let malformed = || Lack::Malformed("posture");
        let before = |age: f64| length(age).and_then(|age| as_of.checked_sub(age).ok()).ok_or_else(malformed);
        let mut observations = Vec::with_capacity(self.observations.len().max(1));
        for seen in &self.observations {
            let expires_at = match seen.expires_in {
                None => None,
                Some(after) => Some(length(after).and_then(|after| as_of.checked_add(after).ok()).ok_or_else(malformed)?),
            };
            let source = seen.source.to_string();
            observations.push(Observation { ok: seen.ok, value: None, source, observed_at: before(seen.age)?, expires_at });
        }
        if observations.is_empty() && *self.state != *"unknown" {
            let ok = match &*self.state {
                "ok" => true,
                "fail" => false,
                _ => return Err(malformed()),
            };
            let source = self.source.to_string();
            observations.push(Observation { ok, value: None, source, observed_at: before(self.age)?, expires_at: None });
        }
        Ok(Fact { name: name.to_owned(), observations })
    }
}

impl Again {
    pub fn inputs(&self, policy: &Policy) -> Inputs<'_> {
        Inputs {
            now: self.now,
            standing: &self.standing,
            peer: self.peer,
            zone: policy.zone(self.peer),
            wire: &self.wire,
            opening: &self.opening,
            sight: &self.sight,
            claims: &self.claims,
            http: Http { method: &self.method, host: &self.host, path: &self.path, headers: &self.headers },
            given: Given::default(),
        }
    }

    /// A SYN is only as good as the way that it came by, and which ways are direct is the policy's to say.
    pub fn under(&mut self, policy: &Policy) {
        let direct = policy.zone(self.peer).is_some_and(|zone| policy.syn_is_direct(zone));
        let one = Set::from_iter([Contradiction::UaOsVsSyn]);
        let compared = &mut self.sight.comparison;
        if compared.contradictions.has(Contradiction::UaOsVsSyn) {
            let others = compared.strong.iter().filter(|kind| *kind != Contradiction::UaOsVsSyn).collect();
            compared.strong = if direct { one.either(others) } else { others };
        }
    }
}

fn effect(word: &str) -> Option<Effect> {
    Effect::ALL.into_iter().find(|effect| effect.as_str() == word)
}

fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Seconds that were whole milliseconds.
fn length(seconds: f64) -> Option<SignedDuration> {
    let length = SignedDuration::try_from_secs_f64(seconds).ok()?;
    // To the nearest: what cannot be said in binary is a few nanoseconds off.
    let half = SignedDuration::from_micros(if seconds < 0.0 { -500 } else { 500 });
    i64::try_from(length.checked_add(half)?.as_millis()).ok().map(SignedDuration::from_millis)
}

fn word<T>(word: &Option<Text<'_>>, parse: fn(&str) -> Option<T>, name: &'static str) -> Result<Option<T>, Lack> {
    word.as_deref().map(|word| parse(word).ok_or(Lack::Malformed(name))).transpose()
}

fn words<T>(words: &[Text<'_>], parse: fn(&str) -> Option<T>, name: &'static str) -> Result<Vec<T>, Lack> {
    words.iter().map(|word| parse(word).ok_or(Lack::Malformed(name))).collect()
}
