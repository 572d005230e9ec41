//! Defaults that were loosened, and hosts that hide others.

use std::collections::{HashMap, HashSet};

use super::Whole;
use crate::config::obj::Obj;
use crate::config::report::Findings;
use crate::config::shape::{Key, Kind, Need, Shape};
use crate::config::yaml::short;
use crate::config::{shapes, units};
use crate::policy::draft::HostPattern;
use crate::request::{self, EncodedSlash, Parameters, PathOptions, Slashes};

/// Words in a key's description after which stands what a looser value costs.
const COSTS: [&str; 3] = ["Longer: ", "Larger: ", "More: "];

pub fn loose(whole: Whole<'_>, out: &mut Findings) {
    let store = whole.main.object("store", &shapes::STORE);
    limits(whole.main.object("limits", &shapes::LIMITS), &shapes::LIMITS, out);
    limits(store.object("when_down", &shapes::WHEN_DOWN), &shapes::WHEN_DOWN, out);
    for named in &whole.names.app_names {
        paths(named.obj, out);
    }
    hosts(whole, out);
}

/// Values beyond the default, of keys whose description says what that costs.
fn limits(obj: Obj<'_>, shape: &'static Shape, out: &mut Findings) {
    for key in shape.keys {
        let (Some(node), Need::Default(default)) = (obj.get(key.name), &key.need) else { continue };
        let Some(cost) = COSTS.iter().find_map(|word| key.doc.find(word).and_then(|at| key.doc.get(at..))) else { continue };
        if beyond(obj, key, default) {
            out.warn(node.place, format!("found {}, looser than the default `{default}`. {cost}", node.found()));
        }
    }
}

fn beyond(obj: Obj<'_>, key: &Key, default: &str) -> bool {
    match key.kind {
        Kind::Duration(..) => units::duration(default).is_some_and(|default| obj.duration(key.name) > default),
        Kind::Size(..) => obj.size(key.name) > units::size(default),
        Kind::Count { .. } => obj.number(key.name) > default.parse().ok(),
        _ => false,
    }
}

/// What an app's paths may hold, and a prefix that no path of the app can have.
fn paths(app: Obj<'_>, out: &mut Findings) {
    let path = app.object("path", &shapes::PATH);
    for key in shapes::PATH.keys {
        if let Some(node) = path.get(key.name).filter(|node| node.text() == Some("keep")) {
            let danger = key.doc.split_once("danger ").map_or(key.doc, |(_, danger)| danger);
            out.warn(node.place, format!("found `keep`, looser than the default: danger {danger}"));
        }
    }
    let keeps = |key: &str| path.text(key) == Some("keep");
    let options = PathOptions {
        encoded_slash: if keeps("encoded_slash") { EncodedSlash::Keep } else { EncodedSlash::Reject },
        parameters: if keeps("parameters") { Parameters::Keep } else { Parameters::Reject },
        slashes: if keeps("slashes") { Slashes::Keep } else { Slashes::Merge },
    };
    if let Some((node, prefix)) = app.get("path_prefix").and_then(|node| Some((node, node.text()?)))
        && let Err(why) = request::path(prefix, &options)
    {
        out.warn(node.place, format!("no request is for this app: its `path` refuses every one that begins like this: {why}"));
    }
}

/// A host is settled before its paths: one that has apps for some paths only hides the rest from an app of a broader wildcard.
fn hosts(whole: Whole<'_>, out: &mut Findings) {
    let apps = &whole.policy.apps;
    let rooted: HashSet<&HostPattern> = apps.iter().filter(|app| app.path_prefix == "/").flat_map(|app| &app.hosts).collect();
    let below: HashMap<&str, &str> = apps
        .iter()
        .flat_map(|app| app.hosts.iter().map(move |host| (host, app)))
        .filter_map(|(host, app)| match host {
            HostPattern::Below(parent) => Some((parent.as_str(), app.name.as_str())),
            HostPattern::Exact(_) => None,
        })
        .collect();
    if below.is_empty() {
        return;
    }
    let mut told = HashSet::new();
    for (app, named) in apps.iter().zip(&whole.names.app_names) {
        for (host, node) in app.hosts.iter().zip(named.obj.items("hosts")) {
            let (HostPattern::Exact(name) | HostPattern::Below(name)) = host;
            let mut rest = name.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(other) = below.get(parent).filter(|_| !rooted.contains(host)) {
                    if told.insert(host) {
                        out.warn(
                            node.place,
                            format!(
                                "no app has this host at `/`: paths that no prefix holds are no app's, not even `{}`'s, whose wildcard `*.{}` covers it",
                                short(other),
                                short(parent)
                            ),
                        );
                    }
                    break;
                }
                rest = parent;
            }
        }
    }
}
