//! Apps with their routes, and what owners' files add to them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::grants::Granted;
use super::names::{AppName, Names, Table};
use super::obj::Obj;
use super::report::{Findings, Place};
use super::rules::{self, is_always};
use super::serving::{self, Serving};
use super::typed::{FingerprintHeaders, Protocol, Route};
use super::yaml::{Node, short};
use super::{shapes, upstream};
use crate::model::{Effect, Mode};
use crate::policy::draft::{App, HostPattern, Layer, Rule};
use crate::policy::{AppId, OwnerId};
use crate::request::{self, EncodedSlash, Parameters, PathOptions, Slashes};

/// Names that stand for no app, and for our own pages, in metrics and log.
const RESERVED: [&str; 2] = ["none", "portal"];

/// All apps, of the main file and of owners' files, each with its route, and where their hosts stand.
pub fn apps<'a>(names: &Names<'a>, serving: &mut Serving<'a>, out: &mut Findings) -> (Vec<App>, Vec<Route>, Vec<(HostPattern, Place)>) {
    let mut taken = Taken::default();
    let (apps, routes) = names.app_names.iter().map(|named| app(named, names, (&mut taken, serving), out)).unzip();
    (apps, routes, taken.places.into_iter().map(|((host, _), place)| (host, place)).collect())
}

/// Where hosts stand.
#[derive(Default)]
struct Taken {
    places: HashMap<(HostPattern, String), Place>,
    /// The first app of each host, whatever its paths: its owner too.
    first: HashMap<HostPattern, (Place, Option<usize>)>,
}

impl Taken {
    /// With a longer path prefix an owner's file would take paths of another owner's app, or of its own past the main file's rules and without a grant.
    fn take(&mut self, pattern: &HostPattern, path_prefix: &str, (node, owner): (&Node, Option<usize>), out: &mut Findings) {
        let place = node.place;
        let (first, theirs) = *self.first.entry(pattern.clone()).or_insert((place, owner));
        let same_hands = first.file == place.file || first.file != 0 && theirs == owner;
        match self.places.entry((pattern.clone(), path_prefix.to_owned())) {
            Entry::Occupied(other) => out.clash(
                place,
                format!("{} with the path prefix `{}` is an app's already", node.found(), short(path_prefix)),
                (*other.get(), "first"),
            ),
            Entry::Vacant(_) if !same_hands => out.clash(
                place,
                format!("{} is the host of an app outside of this file: an owner's file cannot take paths of it", node.found()),
                (first, "that app"),
            ),
            Entry::Vacant(free) => drop(free.insert(place)),
        }
    }
}

fn app<'a>(named: &AppName<'a>, names: &Names<'a>, (taken, serving): (&mut Taken, &mut Serving<'a>), out: &mut Findings) -> (App, Route) {
    let obj = named.obj;
    let name = obj.need("name", out).unwrap_or_default();
    if RESERVED.contains(&name) {
        out.error(
            obj.place_of("name"),
            format!("`{name}` is a reserved name: it stands for {}", if name == "none" { "no app" } else { "our own pages" }),
        );
    }
    let owner = named.owner.and_then(|at| u16::try_from(at).ok()).or_else(|| out.left_out()).unwrap_or_default();
    let path_prefix = path_prefix(obj, out);
    let mut hosts = Vec::new();
    for node in obj.items("hosts") {
        let Some(pattern) = host_pattern(node, out) else { continue };
        taken.take(&pattern, &path_prefix, (node, named.owner), out);
        hosts.push(pattern);
    }
    let mode = rules::mode(obj);
    let app = App {
        name: name.to_owned(),
        title: obj.text("title").unwrap_or(name).to_owned(),
        owner: OwnerId(owner),
        labels: named.labels.iter().map(|label| (*label).to_owned()).collect(),
        hosts,
        path_prefix,
        mode,
        rules: app_rules(obj, mode, names, out),
    };
    let fingerprint_headers = match obj.text("fingerprint_headers") {
        Some("vestibule") => FingerprintHeaders::Vestibule,
        Some("fingerproxy") => FingerprintHeaders::Fingerproxy,
        Some("huginn") => FingerprintHeaders::Huginn,
        _ => FingerprintHeaders::None,
    };
    let upstream = upstream::upstream(obj, &app.hosts, serving, out);
    if upstream.protocol != Protocol::Http1 && !obj.items("upgrades").is_empty() {
        out.warn(obj.place_of_key("upgrades"), "nothing here is used: only apps with `protocol: http1` can switch protocols");
    }
    let route = Route {
        app: Arc::from(name),
        upstream,
        path: path_options(obj),
        fingerprint_headers,
        assertion: obj.flag("assertion"),
        client_cert: obj.flag("client_cert"),
        request_trailers: obj.text("request_trailers") == Some("pass"),
        upgrades: upgrades(obj, out),
    };
    (app, route)
}

/// Tokens of `Upgrade` (RFC 9110 section 7.8), in lower case.
fn upgrades(obj: Obj<'_>, out: &mut Findings) -> Vec<String> {
    let Some(node) = obj.get("upgrades") else { return vec!["websocket".to_owned()] };
    let mut tokens: Vec<String> = Vec::new();
    for node in node.items() {
        let Some(text) = node.text() else { return out.left_out().unwrap_or_default() };
        let sound = !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&c));
        match text.to_ascii_lowercase() {
            _ if !sound => out.error(node.place, format!("found {}, expected a protocol such as `websocket`", node.found())),
            token if matches!(token.as_str(), "h2c" | "h2" | "http/2" | "http/1.1") || token.starts_with("tls/") => out.error(
                node.place,
                format!("found {}, expected another protocol than HTTP or TLS: requests inside would be seen by no rule", node.found()),
            ),
            token if tokens.contains(&token) => out.warn(node.place, format!("{} stands twice", node.found())),
            token => tokens.push(token),
        }
    }
    tokens
}

fn app_rules(obj: Obj<'_>, mode: Mode, names: &Names<'_>, out: &mut Findings) -> Vec<Rule> {
    let mut table = Table::new("rule");
    let mut rules: Vec<Rule> = Vec::new();
    let mut catches_all = false;
    for rule_obj in obj.objects("rules", &shapes::RULE) {
        let rule = rules::rule(rule_obj, &mut table, names, out);
        catches_all |= is_always(&rule.when) && rule.mode == Mode::Enforce;
        rules.push(rule);
    }
    if !catches_all && mode == Mode::Enforce {
        let place = if obj.get("rules").is_some() { obj.place_of_key("rules") } else { obj.place_of("name") };
        out.warn(place, "no rule without a condition at the end: what matches none is blocked, with no rule to name");
    }
    rules
}

/// Rules of one owner's file, for apps of that owner.
pub fn layers(file: Obj<'_>, granted: &Granted, names: &Names<'_>, out: &mut Findings) -> Vec<Layer> {
    let Some(node) = file.get("owner") else { return Vec::new() };
    let Some(owner) = names.owners.find(node, out) else { return Vec::new() };
    let Ok(owner_id) = u16::try_from(owner).map(OwnerId) else { return Vec::new() };
    let mut table = Table::new("rule");
    let mut layers: Vec<Layer> = Vec::new();
    let mut places = Vec::new();
    for obj in file.objects("rules", &shapes::OWNER_RULE) {
        let rule = rules::rule(obj, &mut table, names, out);
        let apps = match obj.get("apps") {
            Some(selector) => owned(selector, owner, "the file's owner", names, out),
            None => every(owner, names),
        };
        if apps.is_empty() && obj.get("apps").is_none() {
            out.warn(obj.place_of("name"), format!("this rule is for no app: {} owns none", node.found()));
        }
        granted.check(owner_id, &apps, (rule.then, obj.place_of("then")), names, out);
        layers.push(Layer { owner: owner_id, apps, rule });
        places.push(obj.place_of("then"));
    }
    for (at, (layer, place)) in layers.iter().zip(places).enumerate() {
        // One that stands before others takes them what it matches.
        let last = !layers.iter().skip(at + 1).any(|later| later.apps.iter().any(|app| layer.apps.contains(app)));
        if layer.rule.then == Effect::Forward && last && !layer.apps.is_empty() && !granted.any(owner_id, &layer.apps) {
            out.warn(place, format!("opens nothing: `delegate` of the main file grants {} nothing here", node.found()));
        }
    }
    layers
}

fn every(owner: usize, names: &Names<'_>) -> Vec<AppId> {
    names.owned_by(owner).iter().filter_map(|at| u32::try_from(*at).ok().map(AppId)).collect()
}

/// Apps that a file or grant names must be its owner's; `whose` is that owner in words. A label selects among them; another owner's apps of that label are not meant.
pub fn owned(selector: &Node, owner: usize, whose: &str, names: &Names<'_>, out: &mut Findings) -> Vec<AppId> {
    let apps = rules::select(selector, names, out);
    let other = |app: &AppId| names.app_names.get(app.index()).is_some_and(|named| named.owner != Some(owner));
    for item in selector.items() {
        let Some(at) = item.text().and_then(|name| names.apps.index(name)) else { continue };
        if let Some(named) = names.app_names.get(at).filter(|named| named.owner.is_some_and(|other| other != owner)) {
            let other = names.owners.name(named.owner.unwrap_or_default());
            out.clash(
                item.place,
                format!("the app {} belongs to `{}`, not to `{}`", item.found(), short(other), short(names.owners.name(owner))),
                (named.owner_place, "its owner"),
            );
        }
    }
    if let Some(entry) = selector.entry("owner")
        && entry.value.text().and_then(|name| names.owners.index(name)).is_some_and(|named| named != owner)
    {
        let place = names.owners.place(owner).unwrap_or(entry.value.place);
        out.clash(entry.value.place, format!("found {}, expected {whose}", entry.value.found()), (place, "defined"));
    }
    if let Some(entry) = selector.entry("label").filter(|_| !apps.is_empty() && apps.iter().all(other)) {
        out.warn(entry.value.place, format!("no app of `{}` has the label {}", short(names.owners.name(owner)), entry.value.found()));
    }
    apps.into_iter().filter(|app| !other(app)).collect()
}

fn host_pattern(node: &Node, out: &mut Findings) -> Option<HostPattern> {
    let Some(text) = node.text() else { return out.left_out() };
    let (below, text) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
    if text.contains('*') {
        out.error(node.place, format!("found {}, expected `*` at the front only: `*.lab.corp.example`", node.found()));
        return None;
    }
    let host = serving::host(node, text, out)?;
    Some(if below { HostPattern::Below(host) } else { HostPattern::Exact(host) })
}

fn path_prefix(obj: Obj<'_>, out: &mut Findings) -> String {
    let text = obj.text("path_prefix").unwrap_or("/");
    let place = obj.place_of("path_prefix");
    if !text.starts_with('/') {
        out.error(place, format!("found `{}`, expected a path that begins with `/`", short(text)));
        return "/".to_owned();
    }
    if text.contains(['?', '#', '*']) {
        out.error(place, format!("found `{}`, expected a plain path: no `*`, query or fragment", short(text)));
        return text.to_owned();
    }
    let whole = if text.len() > 1 { text.trim_end_matches('/') } else { text };
    match request::path(if whole.is_empty() { "/" } else { whole }, &PathOptions::LENIENT) {
        Ok(canonical) if canonical == text => {}
        Ok(canonical) => out.error(
            place,
            format!("found `{}`, expected whole segments in canonical form; did you mean `{}`?", short(text), short(&canonical)),
        ),
        Err(why) => out.error(place, format!("found `{}`, expected a path: {why}", short(text))),
    }
    text.to_owned()
}

fn path_options(obj: Obj<'_>) -> PathOptions {
    let path = obj.object("path", &shapes::PATH);
    let keeps = |key: &str| path.text(key) == Some("keep");
    PathOptions {
        encoded_slash: if keeps("encoded_slash") { EncodedSlash::Keep } else { EncodedSlash::Reject },
        parameters: if keeps("parameters") { Parameters::Keep } else { Parameters::Reject },
        slashes: if keeps("slashes") { Slashes::Keep } else { Slashes::Merge },
    }
}
