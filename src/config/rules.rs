//! Owners, networks, posture, classes, tiers, caps, restrictions, guardrails: what stands in the main file for all apps.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ipnet::IpNet;

use super::condition::{self, Reader, condition};
use super::names::{Names, Table};
use super::obj::Obj;
use super::report::{Findings, Place};
use super::yaml::{Node, Value, short};
use super::{shapes, units};
use crate::model::{Effect, Mode};
use crate::policy::draft::{Cap, Class, Condition, Fix, Glob, Guardrail, Network, Owner, Rate, Restriction, Rule, Source, Tier};
use crate::policy::{AppId, RestrictionId, TierId};

pub fn owners(main: Obj<'_>, out: &mut Findings) -> Vec<Owner> {
    if main.get("owners").is_some_and(|node| matches!(&node.value, Value::Map(entries) if entries.is_empty())) {
        out.error(main.place_of("owners"), "no owner; every app has one");
    }
    let mut owners = Vec::new();
    for entry in main.entries("owners") {
        let obj = Obj::new(&entry.value, &shapes::OWNER);
        let contact = obj.need("contact", out).unwrap_or_default().to_owned();
        owners.push(Owner { name: entry.key.clone(), contact });
    }
    owners
}

pub fn networks(main: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Vec<Network> {
    let mut seen: HashMap<IpNet, Place> = HashMap::new();
    let mut networks = Vec::new();
    for entry in main.entries("networks") {
        if entry.key == "none" {
            out.error(entry.key_place, "`none` is the word for no named network; choose another name");
        }
        let obj = Obj::new(&entry.value, &shapes::NETWORK);
        let listed = matches!(entry.value.value, Value::List(_));
        let mut ranges = Vec::new();
        for node in if listed { entry.value.items() } else { obj.items("ranges") } {
            let Some(text) = node.text() else {
                out.left_out::<()>();
                continue;
            };
            match units::network(text) {
                Ok(net) => {
                    ranges.push(net);
                    match seen.get(&net) {
                        Some(first) => {
                            out.clash(node.place, format!("the range `{net}` stands twice: which name it gives is open"), (*first, "first"))
                        }
                        None => drop(seen.insert(net, node.place)),
                    }
                }
                Err(expected) => out.error(node.place, format!("found `{}`, {expected}", short(text))),
            }
        }
        let syn_is_direct = !listed && obj.text("syn") == Some("direct");
        if syn_is_direct {
            names.networks.has_use(&entry.key);
        }
        networks.push(Network { name: entry.key.clone(), ranges, syn_is_direct });
    }
    networks
}

pub fn sources(main: Obj<'_>) -> Vec<Source> {
    let posture = main.object("posture", &shapes::POSTURE);
    let sources = posture.entries("sources").iter();
    sources.map(|entry| Source { name: entry.key.clone(), ttl: Obj::new(&entry.value, &shapes::SOURCE).duration("ttl") }).collect()
}

pub fn fixes(main: Obj<'_>, out: &mut Findings) -> Vec<Fix> {
    let posture = main.object("posture", &shapes::POSTURE);
    let mut fixes = Vec::new();
    for entry in posture.entries("fixes") {
        let obj = Obj::new(&entry.value, &shapes::FIX);
        fact_name(&entry.key, entry.key_place, out);
        let help = obj.text("help").map(str::to_owned);
        // The link is shown to people: a script in it would run in their browser.
        if let Some(link) = help.as_deref().filter(|link| !["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)))
        {
            out.error(obj.place_of("help"), format!("found `{}`, expected a link: `https://`, `http://` or `mailto:`", short(link)));
        }
        if let Some(text) = obj.need("text", out) {
            fixes.push(Fix { fact: entry.key.clone(), text: text.to_owned(), help });
        }
    }
    fixes
}

/// A key that is the name of a posture fact.
pub fn fact_name(name: &str, place: Place, out: &mut Findings) {
    if !super::signals::fact(name) || name == "age" {
        out.error(place, format!("found `{}`, expected the name of a fact: letters, digits, `_` and `-`, not `age`", short(name)));
    }
}

pub fn classes(main: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for obj in main.objects("classes", &shapes::CLASS) {
        let name = obj.need("name", out).unwrap_or_default().to_owned();
        if matches!(name.as_str(), "blind" | "unclassified") {
            out.error(obj.place_of("name"), format!("`{name}` is a class that is always there; choose another name"));
        }
        let when = required(obj, "when", Reader::Class, names, out);
        classes.push(Class { name, when });
    }
    if !classes.iter().any(|class| is_always(&class.when)) {
        let place = main.get("classes").map_or(main.place, |_| main.place_of_key("classes"));
        out.warn(place, "a device with a record may match no class: it is `unclassified` then");
    }
    classes
}

pub fn tiers(main: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Vec<Tier> {
    let mut tiers = Vec::new();
    for (at, obj) in main.objects("tiers", &shapes::TIER).enumerate() {
        let name = obj.need("name", out).unwrap_or_default().to_owned();
        let require = obj.get("require").map_or_else(Condition::always, |node| condition(node, Reader::Tier, names, out));
        if at == 0 && !is_always(&require) {
            out.error(obj.place_of_key("require"), "the lowest tier is what every device has; it can require nothing");
        }
        if at > 0 && is_always(&require) && !name.is_empty() {
            out.warn(obj.place, format!("the tier `{}` requires nothing beyond the lower ones", short(&name)));
        }
        tiers.push(Tier { name, require });
    }
    tiers
}

pub fn caps(main: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Vec<Cap> {
    let mut table = Table::new("cap");
    let mut caps = Vec::new();
    for obj in main.objects("caps", &shapes::CAP) {
        let name = obj.need("name", out).unwrap_or_default().to_owned();
        table.define(&name, obj.place_of("name"), out);
        let when = required(obj, "when", Reader::Cap, names, out);
        let max = obj.get("max_tier").and_then(|node| names.tiers.find(node, out)).and_then(|at| u8::try_from(at).ok());
        if max.is_some_and(|max| usize::from(max) + 1 == names.tiers.len()) {
            out.warn(obj.place_of("max_tier"), "the highest tier: this cap lowers nothing");
        }
        match max {
            Some(max) => caps.push(Cap { name, when, max_tier: TierId(max) }),
            None => drop(out.left_out::<()>()),
        }
    }
    caps
}

pub fn restrictions(main: Obj<'_>, out: &mut Findings) -> Vec<Restriction> {
    let mut restrictions = Vec::new();
    for entry in main.entries("restrictions") {
        let obj = Obj::new(&entry.value, &shapes::RESTRICTION);
        let methods = obj.get("methods").map(|node| node.items().iter().filter_map(|item| condition::method(item, out)).collect());
        let burst = obj.number("burst").and_then(|burst| u32::try_from(burst).ok());
        let requests = obj.text("requests").and_then(units::rate).map(|(count, per)| rate(count, per, burst));
        if obj.get("burst").is_some() && obj.get("requests").is_none() {
            out.error(obj.place_of_key("burst"), "`burst` without `requests`");
        }
        let (allowed_paths, denied_paths) = paths(obj.object("paths", &shapes::PATHS), out);
        let restriction = Restriction {
            name: entry.key.clone(),
            methods,
            allowed_paths,
            denied_paths,
            no_store: obj.flag("no_store"),
            sandbox: obj.flag("sandbox"),
            permissions_policy: obj.items("permissions_policy").iter().filter_map(|node| feature(node, out)).collect(),
            no_attachments: obj.text("attachments") == Some("block"),
            max_body: obj.size("max_body"),
            max_response: obj.size("max_response"),
            requests,
            bandwidth: obj.text("bandwidth").and_then(units::bandwidth),
            max_stream: obj.get("max_stream").map(|_| obj.duration("max_stream")),
        };
        // A value that was not understood has its own error.
        let idle = |node: &Node| matches!(node.value, Value::Bool(false)) || node.text() == Some("allow");
        if matches!(entry.value.value, Value::Map(_)) && entry.value.entries().iter().all(|entry| idle(&entry.value)) {
            out.error(entry.key_place, format!("`{}` restricts nothing", short(&entry.key)));
        }
        restrictions.push(restriction);
    }
    restrictions
}

fn paths(obj: Obj<'_>, out: &mut Findings) -> (Option<Vec<Glob>>, Vec<Glob>) {
    if obj.present() && obj.get("allow").is_none() && obj.get("deny").is_none() {
        out.error(obj.place, "found neither `allow` nor `deny`, expected at least one of them");
    }
    let mut globs = |key: &str| obj.items(key).iter().filter_map(|node| condition::path(node, out)).collect::<Vec<Glob>>();
    let (allowed, denied) = (globs("allow"), globs("deny"));
    (obj.get("allow").map(|_| allowed), denied)
}

/// A feature of `Permissions-Policy`, as registered: it stands in a header as it is.
fn feature(node: &Node, out: &mut Findings) -> Option<String> {
    // What is blank is the walk's error.
    let Some(text) = node.text().filter(|text| !text.trim().is_empty()) else { return out.left_out() };
    let right = text.len() <= 64 && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if !right || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        out.error(node.place, format!("found {}, expected a feature such as `camera`: lower-case letters, digits and `-`", node.found()));
        return None;
    }
    Some(text.to_owned())
}

fn rate(count: u32, per: Duration, burst: Option<u32>) -> Rate {
    Rate { count, per, burst: burst.unwrap_or(count) }
}

pub fn guardrails(main: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Vec<Guardrail> {
    let mut table = Table::new("guardrail");
    let mut guardrails = Vec::new();
    for obj in main.objects("guardrails", &shapes::GUARDRAIL) {
        let Rule { name, when, then, with, mode } = rule(obj, &mut table, names, out);
        if then == Effect::Forward && obj.get("then").is_some() {
            out.error(obj.place_of("then"), "a guardrail cannot forward: write `restrict` or `block`");
        }
        let apps = obj.get("apps").map(|node| select(node, names, out));
        guardrails.push(Guardrail { name, apps, when, then, with, mode });
    }
    guardrails
}

/// A rule of any kind: name, condition, effect, restrictions, mode.
pub fn rule(obj: Obj<'_>, table: &mut Table, names: &Names<'_>, out: &mut Findings) -> Rule {
    let name = obj.need("name", out).unwrap_or_default().to_owned();
    if obj.get("name").is_some() {
        table.define(&name, obj.place_of("name"), out);
    }
    let when = obj.get("when").map_or_else(Condition::always, |node| condition(node, Reader::Rule, names, out));
    // No effect is the walk's error; were it lost, blocking is the safe reading.
    let then = obj.need("then", out).and_then(effect).unwrap_or(Effect::Block);
    let with = with(obj, names, out);
    match (then, obj.items("with").is_empty(), obj.get("then").is_some()) {
        (Effect::Restrict, true, true) => out.error(obj.place_of("then"), "`restrict` needs `with`: the names of restrictions"),
        (Effect::Forward | Effect::Block, false, true) => {
            out.error(obj.place_of_key("with"), format!("`with` goes with `then: restrict` only, found `then: {}`", then.as_str()));
        }
        _ => {}
    }
    Rule { name, when, then, with, mode: mode(obj) }
}

/// The restrictions that `with` names.
pub fn with(obj: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Vec<RestrictionId> {
    let mut with = Vec::new();
    for node in obj.items("with") {
        if let Some(id) = names.restrictions.find(node, out).and_then(|at| u8::try_from(at).ok()).map(RestrictionId) {
            if with.contains(&id) {
                out.error(node.place, format!("the restriction {} stands twice", node.found()));
            } else {
                with.push(id);
            }
        }
    }
    with
}

pub fn mode(obj: Obj<'_>) -> Mode {
    if obj.text("mode") == Some(Mode::Report.as_str()) { Mode::Report } else { Mode::Enforce }
}

pub fn effect(word: &str) -> Option<Effect> {
    Effect::ALL.into_iter().find(|effect| effect.as_str() == word)
}

fn required(obj: Obj<'_>, key: &str, reader: Reader, names: &Names<'_>, out: &mut Findings) -> Condition {
    match obj.get(key) {
        Some(node) => condition(node, reader, names, out),
        None => {
            out.left_out::<()>();
            Condition::always()
        }
    }
}

/// Whether a condition holds whatever it reads.
pub fn is_always(when: &Condition) -> bool {
    match when {
        Condition::All(parts) => parts.iter().all(is_always),
        Condition::Any(parts) => parts.iter().any(is_always),
        Condition::Not(_) | Condition::Test(_) => false,
    }
}

/// The apps of a selector, in the order of their numbers.
pub fn select(node: &Node, names: &Names<'_>, out: &mut Findings) -> Vec<AppId> {
    let mut apps: Vec<usize> = Vec::new();
    let mut seen = HashSet::new();
    for item in node.items() {
        if let Some(at) = names.apps.find(item, out) {
            if !seen.insert(at) {
                out.warn(item.place, format!("the app {} stands twice", item.found()));
            }
            apps.push(at);
        }
    }
    if let Some(label) = node.entry("label").and_then(|entry| entry.value.text().map(|text| (entry, text))) {
        let (entry, label) = label;
        apps.extend(names.labelled(label));
        if apps.is_empty() {
            out.warn(entry.value.place, format!("no app has the label `{}`", short(label)));
        }
    }
    if let Some(entry) = node.entry("owner")
        && let Some(owner) = names.owners.find(&entry.value, out)
    {
        apps.extend(names.owned_by(owner));
        if apps.is_empty() {
            out.warn(entry.value.place, format!("{} owns no app", entry.value.found()));
        }
    }
    apps.sort_unstable();
    apps.dedup();
    apps.into_iter().filter_map(|at| u32::try_from(at).ok().map(AppId)).collect()
}
