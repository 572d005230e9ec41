//! What a condition can read. One table for the parser, the JSON Schema and the reference.

use crate::model::{Browser, Contradiction, FormFactor, Os};
use crate::policy;
use crate::policy::draft::{ClaimField, DeviceField, WireField};

#[derive(Debug)]
pub struct Signal {
    /// With `<fact>` or `<name>` where the rest of the key is free.
    pub name: &'static str,
    pub kind: SignalKind,
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    Class,
    Tier,
    Device(DeviceField),
    OnNet,
    Tags,
    KnownFor,
    OsVersion,
    KeyProof,
    Fact,
    FactAge,
    PostureAge,
    Wire(WireField),
    Claim(ClaimField),
    Peer,
    Zone,
    Method,
    Path,
    Host,
    Header,
    Weekday,
    Hour,
}

const fn signal(name: &'static str, kind: SignalKind, doc: &'static str) -> Signal {
    Signal { name, kind, doc }
}

pub const SIGNALS: &[Signal] = &[
    signal("class", SignalKind::Class, "The device's class: a configured one, `blind` (no record) or `unclassified`. Not in classes."),
    signal("tier", SignalKind::Tier, "The device's tier, compared: `\">= healthy\"`. Not in classes, tiers and caps."),
    signal("device.id", SignalKind::Device(DeviceField::Id), "The record's id."),
    signal("device.name", SignalKind::Device(DeviceField::Name), "What people call the device."),
    signal("device.ownership", SignalKind::Device(DeviceField::Ownership), "`corporate`, `personal`, or `none` without a record."),
    signal("device.onnet", SignalKind::OnNet, "Whether it may be on the corporate network: `true`, `false`, or `none` without a record."),
    signal(
        "device.state",
        SignalKind::Device(DeviceField::State),
        "`pending`, `approved`, `suspended`, `lost`, `retired`, or `none` without a record.",
    ),
    signal("device.user", SignalKind::Device(DeviceField::User), "The person."),
    signal("device.team", SignalKind::Device(DeviceField::Team), "The line of business."),
    signal("device.os", SignalKind::Device(DeviceField::Os), "The recorded operating system."),
    signal("device.os_version", SignalKind::OsVersion, "The recorded version, compared by its dots: `\">= 14.2\"`."),
    signal("device.model", SignalKind::Device(DeviceField::Model), "The recorded model."),
    signal("device.key", SignalKind::KeyProof, "What proved the device: `none`, `browser` or `certificate`."),
    signal("device.tags", SignalKind::Tags, "Labels of the record, a set: any of these texts, `any` or `none`."),
    signal("device.known_for", SignalKind::KnownFor, "Time since the record was made, compared: `\">= 7d\"`."),
    signal("posture.<fact>", SignalKind::Fact, "The state of a posture fact: `ok`, `fail` or `unknown` (missing or expired)."),
    signal("posture.<fact>.age", SignalKind::FactAge, "Time since the observation that gives the fact its state, compared: `\"< 12h\"`."),
    signal("posture.age", SignalKind::PostureAge, "Time since the newest observation of any fact, compared."),
    signal("wire.ja4", SignalKind::Wire(WireField::Ja4), "The JA4 fingerprint of the TLS hello, or `unavailable`."),
    signal(
        "wire.ja4_stable",
        SignalKind::Wire(WireField::Ja4Stable),
        "JA4 without what changes between connections of one client, or `unavailable`.",
    ),
    signal(
        "wire.h2",
        SignalKind::Wire(WireField::H2),
        "The HTTP/2 opening (settings, window update, priorities, order of pseudo-header fields), or `unavailable`.",
    ),
    signal(
        "wire.syn",
        SignalKind::Wire(WireField::Syn),
        "The signature of the connection's SYN, or `unavailable`: behind balancers, under SYN cookies.",
    ),
    signal(
        "wire.stack",
        SignalKind::Wire(WireField::Stack),
        "The program's TLS and HTTP stack by name, a set: `chromium`, `firefox`, `apple`, `openssl`, `go`, ... `unknown` is in no row of the table, \
         `unavailable` was not seen.",
    ),
    signal(
        "wire.os",
        SignalKind::Wire(WireField::Os),
        "The operating systems that the wire does not exclude, a set; `unknown` or `unavailable`.",
    ),
    signal(
        "wire.browser",
        SignalKind::Wire(WireField::Browser),
        "The families of programs that come like this, a set; `unknown` or `unavailable`.",
    ),
    signal(
        "wire.intercepted",
        SignalKind::Wire(WireField::Intercepted),
        "Whether programs of many families come as this one stack: a TLS-inspecting proxy is on the way.",
    ),
    signal("wire.drift", SignalKind::Wire(WireField::Drift), "Whether a proven device speaks as it never did before."),
    signal(
        "wire.contradictions",
        SignalKind::Wire(WireField::Contradictions),
        "Where claims or record contradict the wire, a set: a kind by its name; `any` is at least one strong kind, `none` the opposite. \
         `ua_os_vs_syn` is strong only in a network with `syn: direct`.",
    ),
    signal("claims.os", SignalKind::Claim(ClaimField::Os), "The operating system that the client claims, or `unavailable`."),
    signal("claims.browser", SignalKind::Claim(ClaimField::Browser), "The browser that the client claims, or `unavailable`."),
    signal("claims.form_factor", SignalKind::Claim(ClaimField::FormFactor), "The kind of device that the client claims, or `unavailable`."),
    signal("net.peer", SignalKind::Peer, "The peer's address: networks or addresses."),
    signal("net.zone", SignalKind::Zone, "The named network of the peer, the narrowest that holds it; `none` is in no named network."),
    signal("http.method", SignalKind::Method, "The request's method."),
    signal("http.path", SignalKind::Path, "The canonical path without query: `/admin/*`."),
    signal("http.host", SignalKind::Host, "The canonical host."),
    signal("http.header.<name>", SignalKind::Header, "A request header: text, `any` or `none`. Several values of it are undecided."),
    signal("time.weekday", SignalKind::Weekday, "The day in `time_zone`: `mon`, `tue`, `wed`, `thu`, `fri`, `sat` or `sun`."),
    signal("time.hour", SignalKind::Hour, "The hour in `time_zone`, 0 to 23, compared: `\">= 8 < 18\"` is from 08:00 until before 18:00."),
];

/// The signal that a condition's key names, with the free part of the key.
pub fn find(key: &str) -> Option<(&'static Signal, &str)> {
    let named = |name: &str| SIGNALS.iter().find(|signal| signal.name == name);
    if let Some(signal) = named(key) {
        return Some((signal, ""));
    }
    if let Some(name) = key.strip_prefix("http.header.") {
        return header(name).then(|| named("http.header.<name>")).flatten().map(|signal| (signal, name));
    }
    let rest = key.strip_prefix("posture.")?;
    let (name, of) = rest.strip_suffix(".age").map_or(("posture.<fact>", rest), |of| ("posture.<fact>.age", of));
    (fact(of) && of != "age").then(|| named(name)).flatten().map(|signal| (signal, of))
}

/// The moment of a situation: no signal that a condition reads.
pub const NOW: &str = "time.now";

/// What `fact` reads.
pub const FACT: &str = "[A-Za-z0-9_-]{1,64}";
/// What `header` reads.
pub const HEADER: &str = "[A-Za-z0-9_-]{1,64}";

/// A fact's name: no dots, which part the names of signals.
pub fn fact(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
}

fn header(text: &str) -> bool {
    fact(text)
}

/// The words that a signal's value can be, where they are few and known. A text outside them never matches.
pub fn words(kind: SignalKind) -> Vec<&'static str> {
    match kind {
        SignalKind::Device(DeviceField::Ownership) => crate::model::Ownership::ALL.iter().map(|o| o.as_str()).chain(["none"]).collect(),
        SignalKind::Device(DeviceField::State) => crate::model::DeviceState::ALL.iter().map(|s| s.as_str()).chain(["none"]).collect(),
        SignalKind::Wire(WireField::Intercepted | WireField::Drift) => vec!["true", "false"],
        SignalKind::Wire(WireField::Contradictions) => Contradiction::ALL.iter().map(|c| c.as_str()).chain(["any", "none"]).collect(),
        SignalKind::Wire(WireField::Os) => Os::ALL.iter().map(|o| o.as_str()).chain(["unknown", "unavailable"]).collect(),
        SignalKind::Wire(WireField::Browser) => Browser::ALL.iter().map(|b| b.as_str()).chain(["unknown", "unavailable"]).collect(),
        SignalKind::Claim(ClaimField::Os) => Os::ALL.iter().map(|o| o.as_str()).chain(["unavailable"]).collect(),
        SignalKind::Claim(ClaimField::Browser) => {
            Browser::ALL.iter().filter(|b| b.is_claimed()).map(|b| b.as_str()).chain(["unavailable"]).collect()
        }
        SignalKind::Claim(ClaimField::FormFactor) => FormFactor::ALL.iter().map(|f| f.as_str()).chain(["unavailable"]).collect(),
        SignalKind::Fact => crate::model::FactState::ALL.iter().map(|s| s.as_str()).collect(),
        SignalKind::Weekday => policy::weekdays().map(|(word, _)| word).collect(),
        SignalKind::KeyProof => vec!["none", "browser", "certificate"],
        _ => Vec::new(),
    }
}
