//! One client as a line of JSON.

use std::net::SocketAddr;

use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;

use crate::fingerprint::Known;
use crate::fingerprint::hello::Hello;
use crate::identify::{self, Path};
use crate::model::{self, Browser, Claims, Clash, FormFactor, Opening, Os, Set, Wire, Word};

/// What was seen of a client so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub time: Option<Timestamp>,
    /// The client's and the server's.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The SYN's signature.
    pub syn: Option<Box<str>>,
    pub hello: Option<Hello>,
    pub opening: Opening,
    /// Of its first request.
    pub headers: Option<HeaderMap>,
}

/// The names are those of the decision log. `null` is "unavailable": not shown, or not to be seen from here. An empty list is "unknown": shown, and
/// in no row of the table.
#[derive(Debug, Serialize)]
pub struct Line {
    pub time: Option<String>,
    pub src: Option<SocketAddr>,
    pub dst: Option<SocketAddr>,
    pub transport: &'static str,
    pub sni: Option<String>,
    pub ja4: Option<String>,
    pub ja4_r: Option<String>,
    pub ja4_stable: Option<String>,
    pub ja3: Option<Box<str>>,
    pub ja3_r: Option<String>,
    pub h2: Option<Box<str>>,
    pub header_order: Option<Box<str>>,
    pub syn: Option<Box<str>>,
    pub os: Option<Vec<&'static str>>,
    pub stack: Option<Vec<String>>,
    pub browser: Option<Vec<&'static str>>,
    /// Major versions, such as `133+`.
    pub versions: Option<String>,
    pub form: Option<Vec<&'static str>>,
    /// For a hello in no row: the row that is nearest.
    pub nearest: Option<String>,
    /// Only where there was a request.
    pub claims: Option<Claimed>,
    pub confidence: &'static str,
    pub contradictions: Vec<Contradicted>,
}

#[derive(Debug, Serialize)]
pub struct Claimed {
    os: Option<&'static str>,
    os_version: Option<String>,
    browser: Option<&'static str>,
    browser_version: Option<u32>,
    form_factor: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub struct Contradicted {
    kind: &'static str,
    strong: bool,
    claimed: Box<str>,
    seen: Box<str>,
}

/// Known signatures, to call clients by their names.
#[derive(Debug)]
pub struct Table(pub Known);

impl Table {
    pub fn line(&self, seen: &Seen) -> Line {
        let hello = seen.hello.as_ref();
        let wire = Wire {
            ja4: hello.map(Hello::ja4),
            ja4_stable: hello.map(Hello::ja4_stable),
            ja3: hello.map(Hello::ja3),
            traits: hello.map(Hello::traits),
            syn: seen.syn.clone(),
        };
        let told = self.0.identify(&wire, &seen.opening);
        let sides = seen.headers.as_ref().map(identify::sides).unwrap_or_default();
        // Who speaks to a port of the operator's own choice comes straight to it: a SYN is the client's.
        let verdict = identify::compare(&sides, &told, None, Path { syn_direct: true, intercepted: false });
        let program = [&told.tls, &told.h2].iter().any(|layer| !matches!(layer, model::Seen::Unavailable));
        let any = program || !matches!(told.syn, model::Seen::Unavailable);
        Line {
            time: seen.time.map(|time| time.to_string()),
            src: seen.addresses.map(|(src, _)| src),
            dst: seen.addresses.map(|(_, dst)| dst),
            transport: "tcp",
            sni: hello.and_then(Hello::sni).map(ToOwned::to_owned),
            ja4: wire.ja4.map(|ja4| ja4.to_string()),
            ja4_r: hello.map(Hello::ja4_r),
            ja4_stable: wire.ja4_stable.map(|ja4| ja4.to_string()),
            ja3: wire.ja3,
            ja3_r: hello.map(Hello::ja3_r),
            h2: seen.opening.h2.clone(),
            header_order: seen.opening.header_order.clone(),
            syn: wire.syn,
            os: any.then(|| words::<Os>(told.os)),
            stack: program.then(|| told.stacks.iter().map(|stack| stack.to_string()).collect()),
            browser: program.then(|| words::<Browser>(told.browsers)),
            versions: told.versions.map(|span| span.to_string()),
            form: any.then(|| words::<FormFactor>(told.forms)),
            nearest: told.nearest.map(|name| name.to_string()),
            claims: seen.headers.as_ref().map(|_| Claimed::from(sides.merged)),
            confidence: verdict.confidence.as_str(),
            contradictions: verdict
                .clashes
                .into_iter()
                .map(|Clash { kind, claimed, seen }| Contradicted { kind: kind.as_str(), strong: verdict.strong.has(kind), claimed, seen })
                .collect(),
        }
    }
}

fn words<T: Word>(set: Set<T>) -> Vec<&'static str> {
    set.iter().map(T::word).collect()
}

impl From<Claims> for Claimed {
    fn from(claims: Claims) -> Self {
        Self {
            os: claims.os.map(Os::as_str),
            os_version: claims.os_version,
            browser: claims.browser.map(Browser::as_str),
            browser_version: claims.browser_version,
            form_factor: claims.form_factor.map(FormFactor::as_str),
        }
    }
}
