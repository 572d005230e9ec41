//! The text of a decision log line. `fragment` is the part that all requests with one decision share, rendered once for them all.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use super::visit::{Labels, Open};
use crate::model::{
    Browser, Claims, FactState, FormFactor, Freshness, Ja4, Mode, Opening, Os, Reason, Sight, Standing, Wire, Word, address,
};
use crate::policy::{Decision, Policy, RuleRef, ZoneId};

/// What a line tells of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    pub listener: &'a str,
    pub peer: IpAddr,
    /// Those in front, from the client to us.
    pub via: &'a [IpAddr],
    /// The balancer's name for the connection.
    pub via_id: Option<&'a str>,
    pub zone: Option<ZoneId>,
    pub wire: &'a Wire,
    pub opening: &'a Opening,
    pub claims: &'a Claims,
    pub sight: &'a Sight,
}

/// The shared part of a decided request's line. `refused` is the reason of a restriction that refused it.
pub fn fragment(
    policy: &Policy,
    decision: &Decision,
    standing: &Standing,
    on: &Connection<'_>,
    refused: Option<&str>,
    now: Timestamp,
) -> Vec<u8> {
    let ruled = if decision.mode == Mode::Report { &decision.would } else { &decision.done };
    let mut out = Vec::with_capacity(1024);
    connection(&mut out, on, on.zone.map(|zone| policy.zone_name(zone)));
    text(&mut out, "app", Some(policy.app_name(decision.app)));
    text(&mut out, "effect", Some(decision.done.effect.as_str()));
    text(&mut out, "mode", Some(decision.mode.as_str()));
    text(&mut out, "would", Some(decision.would.effect.as_str()));
    list(&mut out, "restrictions", decision.done.restrictions.iter().map(|id| policy.restriction(id).name.as_str()));
    text(&mut out, "class", Some(policy.class_name(decision.class)));
    text(&mut out, "tier", Some(policy.tier_name(decision.tier)));
    text(&mut out, "rule", (ruled.rule != RuleRef::None).then(|| policy.rule_name(decision.app, ruled.rule)));
    text(&mut out, "owner", Some(&policy.owner(ruled.owner).name));
    let reasons = decision.would.reasons.as_slice().iter().map(|id| Cow::Owned(policy.reason(*id).to_string()));
    list(&mut out, "reasons", refused.map(Cow::Borrowed).into_iter().chain(reasons));
    device(&mut out, standing);
    posture(&mut out, policy, standing, now);
    let draft = policy.draft();
    let ladders = decision.notices.iter().filter_map(|index| draft.ladders.get(usize::from(index)));
    unless_empty(&mut out, "notices", ladders.map(|ladder| ladder.name.as_str()));
    let exceptions = decision.exceptions.as_slice().iter().filter_map(|index| draft.exceptions.get(usize::try_from(*index).ok()?));
    unless_empty(&mut out, "exceptions", exceptions.map(|exception| exception.name.as_str()));
    let _ = write!(out, ",\"as_of\":\"{now:.3}\"");
    unless_empty(&mut out, "headers_read", policy.headers_read().iter());
    text(&mut out, "policy_rev", Some(policy.revision()));
    out
}

/// What is known of the device, and the fields of its record that rules may read; what the record does not state is left out.
fn device(out: &mut Vec<u8>, standing: &Standing) {
    let device = standing.device();
    text(out, "device", device.map(|device| device.id.as_str()));
    let word = match standing {
        Standing::NoRecord(why) => Cow::Owned(Reason::NoRecord(*why).to_string()),
        Standing::Unreadable => Cow::Borrowed("unreadable"),
        Standing::Known { freshness: Freshness::Fresh, .. } => Cow::Borrowed("known"),
        Standing::Known { freshness: Freshness::Stale, .. } => Cow::Borrowed("stale"),
        Standing::Known { freshness: Freshness::TooOld, .. } => Cow::Borrowed("too_old"),
    };
    text(out, "standing", Some(&word));
    let Standing::Known { device, proof_ends, .. } = standing else { return };
    out.extend_from_slice(b",\"record\":{\"state\":");
    string(out, device.state.as_str());
    for (name, value) in [
        ("ownership", device.ownership.map(|ownership| ownership.as_str())),
        ("name", device.name.as_deref()),
        ("user", device.user.as_deref()),
        ("team", device.team.as_deref()),
        ("os", device.os.as_deref()),
        ("os_version", device.os_version.as_deref()),
        ("model", device.model.as_deref()),
    ] {
        if value.is_some() {
            text(out, name, value);
        }
    }
    if !device.tags.is_empty() {
        list(out, "tags", &device.tags);
    }
    if let Some(onnet) = device.onnet {
        flag(out, "onnet", onnet);
    }
    let _ = write!(out, ",\"created_at\":\"{:.3}\",\"proof_ends\":{proof_ends}}}", device.created_at);
}

/// Each fact as it counts, with the observation that makes it so; where that is not all there is to know of it, all observations.
fn posture(out: &mut Vec<u8>, policy: &Policy, standing: &Standing, now: Timestamp) {
    out.extend_from_slice(b",\"posture\":{");
    let device = standing.device();
    for (at, fact) in policy.facts(standing, now).iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        string(out, fact.name);
        out.extend_from_slice(b":{\"state\":");
        string(out, fact.state.as_str());
        text(out, "source", Some(fact.source));
        out.extend_from_slice(b",\"age\":");
        seconds(out, i64::try_from(fact.age.as_millis()).unwrap_or(i64::MAX));
        let observations = device.and_then(|device| device.fact(fact.name)).map(|fact| fact.observations.as_slice()).unwrap_or_default();
        let told = match observations {
            [only] => fact.state != FactState::Unknown && only.expires_at.is_none() && only.observed_at <= now,
            _ => false,
        };
        if !told {
            out.extend_from_slice(b",\"observations\":[");
            for (at, seen) in observations.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b",{\"ok\":" } else { b"{\"ok\":" });
                let _ = write!(out, "{}", seen.ok);
                text(out, "source", Some(&seen.source));
                out.extend_from_slice(b",\"age\":");
                seconds(out, now.as_millisecond() - seen.observed_at.as_millisecond());
                if let Some(ends) = seen.expires_at {
                    out.extend_from_slice(b",\"expires_in\":");
                    seconds(out, ends.as_millisecond() - now.as_millisecond());
                }
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// Milliseconds as seconds, with a fraction where there is one.
fn seconds(out: &mut Vec<u8>, millis: i64) {
    let whole = millis.unsigned_abs() / 1000;
    if millis < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    match millis.unsigned_abs() % 1000 {
        0 => {}
        part => drop(write!(out, ".{part:03}")),
    }
}

/// The same for a request that ended before anything was known of it.
pub(super) fn cut(labels: &Labels<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for name in ["listener", "peer", "zone", "wire", "claims", "confidence"] {
        text(&mut out, name, None);
    }
    out.extend_from_slice(b",\"contradictions\":[]");
    undecided(&mut out, labels, None);
    out
}

/// The same for an answer of our own that no policy decided, on a known connection.
pub fn own(labels: &Labels<'_>, on: &Connection<'_>, zone: Option<&str>, revision: &str) -> Vec<u8> {
    let mut out = Vec::new();
    connection(&mut out, on, zone);
    undecided(&mut out, labels, Some(revision));
    out
}

/// A line has the same fields whatever was decided, so that whoever reads the log needs few cases for those that are not there.
fn undecided(out: &mut Vec<u8>, labels: &Labels<'_>, revision: Option<&str>) {
    for (name, value) in [("app", labels.app), ("effect", labels.done.as_str()), ("mode", labels.mode), ("would", labels.decided.as_str())]
    {
        text(out, name, Some(value));
    }
    list(out, "restrictions", [""; 0]);
    for name in ["class", "tier", "rule", "owner"] {
        text(out, name, None);
    }
    list(out, "reasons", [labels.reason]);
    for name in ["device", "standing"] {
        text(out, name, None);
    }
    out.extend_from_slice(b",\"posture\":{},\"as_of\":null");
    text(out, "policy_rev", revision);
}

fn connection(out: &mut Vec<u8>, on: &Connection<'_>, zone: Option<&str>) {
    text(out, "listener", Some(on.listener));
    text(out, "peer", Some(&address(on.peer)));
    unless_empty(out, "via", on.via.iter().map(|ip| address(*ip)));
    if on.via_id.is_some() {
        text(out, "via_id", on.via_id);
    }
    text(out, "zone", zone);
    let wire = [
        ("ja4", on.wire.ja4.as_ref().map(Ja4::as_str)),
        ("ja4_stable", on.wire.ja4_stable.as_ref().map(Ja4::as_str)),
        ("syn", on.wire.syn.as_deref()),
        ("h2", on.opening.h2.as_deref()),
        ("header_order", on.opening.header_order.as_deref()),
    ];
    // Only where it is asked for: its value changes with each connection of a browser, and would look like a fact to whoever reads the log.
    let ja3 = on.wire.ja3.as_deref().map(|ja3| ("ja3", Some(ja3)));
    let wire = wire.into_iter().chain(ja3);
    object(out, "wire", wire);
    out.pop();
    identified(out, on);
    out.push(b'}');
    let claims = [
        ("os", on.claims.os.map(Os::as_str)),
        ("os_version", on.claims.os_version.as_deref()),
        ("browser", on.claims.browser.map(Browser::as_str)),
        ("form_factor", on.claims.form_factor.map(FormFactor::as_str)),
    ];
    object(out, "claims", claims);
    out.pop();
    match on.claims.browser_version {
        Some(version) => number(out, "browser_version", u64::from(version)),
        None => text(out, "browser_version", None),
    }
    out.push(b'}');
    text(out, "confidence", Some(on.sight.comparison.confidence.as_str()));
    out.extend_from_slice(b",\"contradictions\":[");
    for (at, found) in on.sight.comparison.clashes.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",{\"kind\":" } else { b"{\"kind\":" });
        string(out, found.kind.as_str());
        flag(out, "strong", on.sight.comparison.strong.has(found.kind));
        text(out, "claimed", Some(&found.claimed));
        text(out, "seen", Some(&found.seen));
        out.push(b'}');
    }
    out.push(b']');
}

/// What rules read of the wire beyond its bytes, by value: the table that it was looked up in may be another by the time that the log is read. Null is
/// `unavailable`, an empty list `unknown`.
fn identified(out: &mut Vec<u8>, on: &Connection<'_>) {
    let Sight { identification: told, intercepted, drift, .. } = on.sight;
    let program_seen = told.saw_program();
    some(out, "stack", program_seen, told.stacks.iter().map(|stack| &**stack));
    some(out, "browser", program_seen, told.browsers.iter().map(Word::word));
    if let Some(versions) = told.versions {
        text(out, "versions", Some(&versions.to_string()));
    }
    some(out, "os", told.saw_system(), told.os.iter().map(Word::word));
    some(out, "form", told.saw_system(), told.forms.iter().map(Word::word));
    if let Some(nearest) = told.nearest.as_deref() {
        text(out, "nearest", Some(nearest));
    }
    flag(out, "intercepted", *intercepted);
    flag(out, "drift", *drift);
}

fn some<'a>(out: &mut Vec<u8>, name: &str, seen: bool, values: impl Iterator<Item = &'a str>) {
    if seen { list(out, name, values) } else { text(out, name, None) }
}

fn flag(out: &mut Vec<u8>, name: &str, value: bool) {
    key(out, name);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn object<'a>(out: &mut Vec<u8>, name: &str, fields: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) {
    key(out, name);
    let start = out.len();
    for (name, value) in fields {
        text(out, name, value);
    }
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

/// Of what most lines have none: each byte of a line is paid for at every request.
fn unless_empty(out: &mut Vec<u8>, name: &str, values: impl Iterator<Item = impl AsRef<str>>) {
    let mut values = values.peekable();
    if values.peek().is_some() {
        list(out, name, values);
    }
}

fn list(out: &mut Vec<u8>, name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) {
    key(out, name);
    out.push(b'[');
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        string(out, value.as_ref());
    }
    out.push(b']');
}

/// `,"name":`
fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn string(out: &mut Vec<u8>, value: &str) {
    // Folded rather than searched: nearly all are plain to their end, and many bytes are then looked at in one step.
    if value.bytes().fold(true, |plain, c| plain & (c >= b' ' && c != b'"' && c != b'\\')) {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        return out.push(b'"');
    }
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, value);
}

pub(super) fn write(out: &mut Vec<u8>, clock: &mut Clock, open: &Open) {
    out.extend_from_slice(b"{\"ts\":\"");
    clock.write(out, open.began);
    out.extend_from_slice(b"\",\"request_id\":\"");
    out.extend_from_slice(open.id.as_str().as_bytes());
    out.push(b'"');
    if let Some(id) = &open.client_request_id {
        text(out, "client_request_id", Some(id));
    }
    if let Some(manner) = open.put_by {
        text(out, "asked", Some(manner));
    }
    out.extend_from_slice(open.fragment());
    text(out, "host", open.host.as_ref().map(|host| host.as_str()));
    text(out, "method", open.method.as_ref().map(|method| method.as_str()));
    text(out, "path", open.path.as_ref().map(|path| path.path()));
    out.extend_from_slice(b",\"headers\":");
    out.extend_from_slice(if open.headers.is_empty() { b"{}" } else { &open.headers });
    number(out, "status", u64::from(open.status));
    if let Some(error) = open.error {
        text(out, "error", Some(error));
    }
    number(out, "decision_ns", u64::try_from(open.decision.as_nanos()).unwrap_or(u64::MAX));
    match open.upstream {
        Some(took) => {
            // Milliseconds with three decimals.
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            number(out, "upstream_ms", micros / 1000);
            thousandths(out, micros % 1000);
        }
        None => out.extend_from_slice(b",\"upstream_ms\":null"),
    }
    number(out, "bytes_in", open.bytes_in);
    number(out, "bytes_out", open.bytes_out);
    out.extend_from_slice(b"}\n");
}

fn text(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    key(out, name);
    match value {
        Some(value) => string(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `.042`. Every line has two: by hand it costs a tenth of what formatting does.
fn thousandths(out: &mut Vec<u8>, value: u64) {
    let digit = |value: u64| u8::try_from(value % 10).map_or(b'0', |digit| b'0' + digit);
    out.extend_from_slice(&[b'.', digit(value / 100), digit(value / 10), digit(value)]);
}

/// Renders RFC 3339 in UTC with milliseconds, the seconds once for all requests that share them.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    fn write(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or_default();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = Timestamp::from_second(second).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.extend_from_slice(self.text.as_bytes());
        thousandths(out, u64::from(since.subsec_millis()));
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_clock_writes_rfc_3339_also_across_a_second() {
        let mut clock = Clock::default();
        let mut out = Vec::new();
        clock.write(&mut out, UNIX_EPOCH + Duration::from_millis(1_700_000_000_007));
        clock.write(&mut out, UNIX_EPOCH + Duration::from_millis(1_700_000_001_999));
        assert_eq!(String::from_utf8(out).unwrap(), "2023-11-14T22:13:20.007Z2023-11-14T22:13:21.999Z");
    }
}
