//! What holds by date or by leave: the time zone, ladders, what is delegated to owners, exceptions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use super::apps::owned;
use super::condition::{Reader, condition};
use super::names::{Names, Table};
use super::obj::Obj;
use super::report::{Findings, Place};
use super::units::{self, DayEnd};
use super::walk::nearest;
use super::yaml::{Node, Value, short};
use super::{rules, shapes, signals};
use crate::model::Effect;
use crate::policy::draft::{Condition, Delegation, Exception, Ladder, Lifts, Step, Who};
use crate::policy::{AppId, OwnerId, TierId};

/// Broken glass is swept up by then.
const LONGEST_BREAK: Duration = Duration::from_secs(72 * 3600);
/// A decision names ladders by one bit each.
const MOST_LADDERS: usize = 64;
const MOST_EXCEPTIONS: usize = 100_000;

/// The zone of `time_zone`, by the rules that came with this program.
pub fn time_zone(main: Obj<'_>, out: &mut Findings) -> TimeZone {
    let zones = TimeZoneDatabase::bundled();
    let Some(name) = main.text("time_zone") else { return TimeZone::UTC };
    // `Etc/Unknown` is a name for having none.
    match zones.get(name).ok().filter(|_| !name.eq_ignore_ascii_case("Etc/Unknown")) {
        Some(zone) => zone,
        None => {
            let known: Vec<_> = zones.available().collect();
            // `Berlin` for `Europe/Berlin` is the usual slip, which no count of letters finds.
            let city = |zone: &str| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(name));
            let near = known.iter().map(|zone| zone.as_str()).find(|zone| city(zone));
            let near = near.or_else(|| nearest(name, known.iter().map(|zone| zone.as_str())));
            let hint = near.map_or_else(
                || "; expected an IANA name such as `Europe/Berlin` or `UTC`".to_owned(),
                |near| format!("; did you mean `{near}`?"),
            );
            out.error(main.place_of("time_zone"), format!("no time zone named `{}`{hint}", short(name)));
            TimeZone::UTC
        }
    }
}

/// The moment of a key that holds a date. `None`: it is absent, or an error.
fn moment(obj: Obj<'_>, key: &str, end: DayEnd, zone: &TimeZone, out: &mut Findings) -> Option<Timestamp> {
    let node = obj.get(key)?;
    // What has not the form of a date is the walk's error.
    let Some(text) = node.text().filter(|text| units::is_date(text)) else { return out.left_out() };
    let moment = units::date(text, end, zone);
    if moment.is_none() {
        out.error(node.place, format!("found `{}`, expected a day or moment that there is", short(text)));
    }
    moment
}

pub fn ladders(main: Obj<'_>, zone: &TimeZone, names: &Names<'_>, out: &mut Findings) -> Vec<Ladder> {
    let posture = main.object("posture", &shapes::POSTURE);
    let mut ladders = Vec::new();
    for entry in posture.entries("ladder") {
        rules::fact_name(&entry.key, entry.key_place, out);
        names.read_fact(&entry.key, entry.key_place);
        let obj = Obj::new(&entry.value, &shapes::LADDER);
        let steps = steps(obj, zone, out);
        if steps.is_empty() && matches!(entry.value.value, Value::Map(_)) && STEPS.iter().all(|(key, _)| obj.get(key).is_none()) {
            out.error(entry.key_place, "no step: expected at least one of `report`, `warn`, `restrict` and `block`, each with a date");
        }
        let restricts = obj.get("restrict").is_some();
        if restricts && obj.get("with").is_none() {
            out.error(obj.place_of_key("restrict"), "`restrict` needs `with`: the names of restrictions");
        }
        if !restricts && obj.get("with").is_some() {
            out.error(obj.place_of_key("with"), "`with` goes with `restrict` only, and this ladder has no such step");
        }
        ladders.push(Ladder {
            name: format!("ladder.{}", entry.key),
            fact: Arc::from(entry.key.as_str()),
            apps: obj.get("apps").map(|node| rules::select(node, names, out)),
            when: obj.get("when").map_or_else(Condition::always, |node| condition(node, Reader::Rule, names, out)),
            steps,
            with: rules::with(obj, names, out),
        });
    }
    if let Some(entry) = posture.entries("ladder").get(MOST_LADDERS) {
        out.error(entry.key_place, format!("found {} ladders, expected at most {MOST_LADDERS}: one too many", ladders.len()));
    }
    ladders
}

/// Milder first.
const STEPS: [(&str, Step); 4] = [("report", Step::Report), ("warn", Step::Warn), ("restrict", Step::Restrict), ("block", Step::Block)];

/// A later step is stricter: dates ascend with the steps.
fn steps(obj: Obj<'_>, zone: &TimeZone, out: &mut Findings) -> Vec<(Timestamp, Step)> {
    let mut steps = Vec::new();
    let mut before: Option<(Timestamp, &str)> = None;
    for (key, step) in STEPS {
        let Some(at) = moment(obj, key, DayEnd::First, zone, out) else { continue };
        if let Some((_, milder)) = before.filter(|(earlier, _)| *earlier >= at) {
            out.clash(
                obj.place_of(key),
                format!("`{key}` comes no later than the milder `{milder}`, expected dates that ascend: report, warn, restrict, block"),
                (obj.place_of(milder), milder),
            );
        }
        before = Some((at, key));
        steps.push((at, step));
    }
    steps
}

/// Grants, and where each stands.
pub fn delegations(main: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Vec<(Delegation, Place)> {
    let mut delegations = Vec::new();
    for obj in main.objects("delegate", &shapes::DELEGATION) {
        let owner = obj.get("owner").and_then(|node| names.owners.find(node, out));
        let min_tier = obj.get("min_tier").and_then(|node| names.tiers.find(node, out)).and_then(|at| u8::try_from(at).ok());
        let apps = match (owner, obj.get("apps")) {
            (Some(owner), Some(selector)) => owned(selector, owner, "the grant's owner", names, out),
            _ => Vec::new(),
        };
        let mut may: Vec<Effect> = Vec::new();
        for node in obj.items("may") {
            match node.text().and_then(rules::effect) {
                Some(effect) if may.contains(&effect) => out.warn(node.place, format!("{} stands twice", node.found())),
                Some(effect) => may.push(effect),
                None => drop(out.left_out::<()>()),
            }
        }
        match (owner.and_then(|at| u16::try_from(at).ok()), min_tier) {
            (Some(owner), Some(tier)) => {
                delegations.push((Delegation { owner: OwnerId(owner), apps, min_tier: TierId(tier), may }, obj.place));
            }
            _ => drop(out.left_out::<()>()),
        }
    }
    delegations
}

/// What an owner may do for each of its apps by any of its grants, and the first grant for it.
#[derive(Debug, Default)]
pub struct Granted(HashMap<(OwnerId, AppId), (Vec<Effect>, Place)>);

impl Granted {
    pub fn new(delegations: &[(Delegation, Place)]) -> Self {
        let mut granted: HashMap<_, (Vec<Effect>, Place)> = HashMap::new();
        for (delegation, place) in delegations {
            for app in &delegation.apps {
                let (may, _) = granted.entry((delegation.owner, *app)).or_insert_with(|| (Vec::new(), *place));
                may.extend(delegation.may.iter().copied().filter(|effect| !may.contains(effect)).collect::<Vec<_>>());
            }
        }
        Self(granted)
    }

    /// Whether the owner was granted anything for one of the apps.
    pub fn any(&self, owner: OwnerId, apps: &[AppId]) -> bool {
        apps.iter().any(|app| self.0.contains_key(&(owner, *app)))
    }

    /// A rule of the owner's file, at `place`, with an effect that no grant of the owner's for one of its apps holds.
    pub fn check(&self, owner: OwnerId, apps: &[AppId], (effect, place): (Effect, Place), names: &Names<'_>, out: &mut Findings) {
        if effect == Effect::Block || self.0.is_empty() {
            return;
        }
        let excess =
            apps.iter().find_map(|app| self.0.get(&(owner, *app)).filter(|(may, _)| !may.contains(&effect)).map(|grant| (app, grant)));
        if let Some((app, (may, grant))) = excess {
            let may: Vec<&str> = may.iter().map(|effect| effect.as_str()).collect();
            out.clash(
                place,
                format!(
                    "`then: {}` for the app `{}` is more than `{}` was granted, which is to {}; to block is always free",
                    effect.as_str(),
                    short(names.apps.name(app.index())),
                    short(names.owners.name(owner.index())),
                    may.join(" and "),
                ),
                (*grant, "the grant"),
            );
        }
    }
}

pub fn exceptions(main: Obj<'_>, zone: &TimeZone, names: &Names<'_>, out: &mut Findings) -> Vec<Exception> {
    let mut table = Table::new("exception");
    let mut exceptions = Vec::new();
    for obj in main.objects("exceptions", &shapes::EXCEPTION) {
        let name = obj.need("name", out).unwrap_or_default().to_owned();
        table.define(&name, obj.place_of("name"), out);
        let apps = obj.get("apps").map(|node| rules::select(node, names, out));
        let from = moment(obj, "from", DayEnd::First, zone, out);
        let until = moment(obj, "until", DayEnd::Next, zone, out);
        let lifts = lifts(obj, names, out);
        if let (Some(from), Some(until)) = (from, until) {
            span(obj, (from, until), &lifts, out);
        }
        let (by, ticket) = (obj.need("by", out), obj.need("ticket", out));
        match (who(obj, out), lifts, until, by.zip(ticket)) {
            (Some(who), Some(lifts), Some(until), Some((by, ticket))) => {
                exceptions.push(Exception { name, who, lifts, apps, from, until, by: by.to_owned(), ticket: ticket.to_owned() });
            }
            _ => drop(out.left_out::<()>()),
        }
    }
    table.limit(MOST_EXCEPTIONS, out);
    exceptions
}

fn who(obj: Obj<'_>, out: &mut Findings) -> Option<Who> {
    let text = |node: &Node, of: fn(String) -> Who| node.text().map(|text| of(text.to_owned()));
    match (obj.get("device"), obj.get("tag")) {
        (Some(device), None) => {
            // No device has such an id, and a condition would read it as a glob.
            if device.text().is_some_and(|id| id.contains('*')) {
                out.error(device.place, format!("found {}, expected the id of one device: for several write `tag`", device.found()));
            }
            text(device, Who::Device)
        }
        (None, Some(tag)) => text(tag, Who::Tag),
        (Some(_), Some(_)) => {
            out.clash(
                obj.place_of_key("tag"),
                "found `device` and `tag`, expected one of them: write two exceptions",
                (obj.place_of_key("device"), "`device`"),
            );
            None
        }
        (None, None) => {
            out.error(obj.place, "found neither `device` nor `tag`, expected one of them: whom the exception is for");
            None
        }
    }
}

fn lifts(obj: Obj<'_>, names: &Names<'_>, out: &mut Findings) -> Option<Lifts> {
    match (obj.get("check"), obj.flag("break_glass")) {
        (Some(_), true) => {
            out.clash(
                obj.place_of_key("break_glass"),
                "found `check` and `break_glass: true`, expected one of them: broken glass asks for no fact",
                (obj.place_of_key("check"), "`check`"),
            );
            None
        }
        (None, false) => {
            out.error(obj.place, "found neither `check` nor `break_glass: true`, expected one of them: what is overlooked");
            None
        }
        (None, true) => {
            if obj.get("from").is_none() {
                out.error(obj.place_of_key("break_glass"), "`break_glass` needs `from`: it ends within 72 hours of it");
            }
            Some(Lifts::Everything)
        }
        (Some(check), false) => {
            let mut facts: Vec<Arc<str>> = Vec::new();
            let mut seen = HashSet::new();
            let nodes = if matches!(check.value, Value::List(_)) { check.items() } else { std::slice::from_ref(check) };
            for node in nodes {
                match node.text() {
                    Some(fact) if !seen.insert(fact) => out.error(node.place, format!("the fact {} stands twice", node.found())),
                    Some(fact) if signals::fact(fact) => {
                        names.lifted.borrow_mut().push((fact.to_owned(), node.place));
                        facts.push(Arc::from(fact));
                    }
                    _ => drop(out.left_out::<()>()),
                }
            }
            Some(Lifts::Checks(facts))
        }
    }
}

fn span(obj: Obj<'_>, (from, until): (Timestamp, Timestamp), lifts: &Option<Lifts>, out: &mut Findings) {
    if from >= until {
        out.clash(obj.place_of("until"), "ends before it begins", (obj.place_of("from"), "`from`"));
    } else if *lifts == Some(Lifts::Everything) && until.duration_since(from) > SignedDuration::try_from(LONGEST_BREAK).unwrap_or_default()
    {
        let hours = until.duration_since(from).as_hours();
        out.clash(
            obj.place_of("until"),
            format!("`break_glass` for {hours} hours, expected at most 72: a date without a time ends with its day"),
            (obj.place_of("from"), "`from`"),
        );
    }
}
