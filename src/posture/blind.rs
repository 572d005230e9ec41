//! The census of the blind as the command line and the admin listener print it: one text for both.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::census::{Asked, Pending};
use super::store::memory::Counted;
use crate::model::Word;

/// The JSON form, in field order.
#[derive(Serialize)]
struct Report<'a> {
    /// The busiest first.
    groups: Vec<Group<'a>>,
    /// Groups that found no room, counted together.
    other: Option<Seen<'a>>,
    /// All of them by app, the busiest first.
    apps: Vec<Total<'a>>,
}

#[derive(Serialize)]
struct Group<'a> {
    stack: &'a str,
    os: Vec<&'static str>,
    zone: Option<&'a str>,
    ja4: Option<&'a str>,
    #[serde(flatten)]
    seen: Seen<'a>,
}

#[derive(Serialize)]
struct Seen<'a> {
    connections: u64,
    /// An estimate of different addresses.
    peers: u64,
    first_seen: String,
    last_seen: String,
    apps: Vec<App<'a>>,
}

#[derive(Serialize)]
struct App<'a> {
    app: &'a str,
    owner: &'a str,
    connections: u64,
    first_seen: String,
    last_seen: String,
}

#[derive(Serialize)]
struct Total<'a> {
    app: &'a str,
    owner: &'a str,
    groups: u64,
    connections: u64,
}

pub fn json(census: &[Counted]) -> String {
    let groups = census.iter().filter_map(|counted| {
        let group = counted.group.as_ref()?;
        let (zone, ja4) = (group.zone.as_deref(), group.ja4.as_deref());
        Some(Group { stack: &group.stack, os: group.os.iter().map(Word::word).collect(), zone, ja4, seen: Seen::of(&counted.seen) })
    });
    let other = census.iter().find(|counted| counted.group.is_none()).map(|counted| Seen::of(&counted.seen));
    let report = Report { groups: groups.collect(), other, apps: totals(census) };
    // Texts, numbers and lists always have a JSON form.
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    text
}

/// One row for each app of each group, the header first.
pub fn csv(census: &[Counted]) -> Result<Vec<u8>, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "stack",
        "os",
        "zone",
        "ja4",
        "group_connections",
        "group_peers",
        "app",
        "owner",
        "connections",
        "first_seen",
        "last_seen",
    ])?;
    for Counted { group, seen, .. } in census {
        let (stack, os) = group
            .as_ref()
            .map_or(("(other)", String::new()), |group| (&*group.stack, group.os.iter().map(Word::word).collect::<Vec<_>>().join(" ")));
        let text = |of: fn(&super::census::Group) -> Option<&str>| group.as_ref().and_then(of).unwrap_or_default();
        let (zone, ja4) = (text(|group| group.zone.as_deref()), text(|group| group.ja4.as_deref()));
        let (connections, peers) = (seen.connections.to_string(), seen.peers.estimate().to_string());
        for Asked { app, owner, first, last, connections: asked } in &seen.apps {
            let (asked, first, last) = (asked.to_string(), stamp(*first), stamp(*last));
            out.write_record([stack, &os, zone, ja4, &connections, &peers, app, owner, &asked, &first, &last])?;
        }
    }
    out.into_inner().map_err(|e| csv::Error::from(std::io::Error::other(e.to_string())))
}

fn totals(census: &[Counted]) -> Vec<Total<'_>> {
    let mut totals: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for counted in census {
        for asked in &counted.seen.apps {
            let (groups, connections) = totals.entry((&asked.app, &asked.owner)).or_default();
            *groups += u64::from(counted.group.is_some());
            *connections += asked.connections;
        }
    }
    let total = |((app, owner), (groups, connections))| Total { app, owner, groups, connections };
    let mut totals: Vec<_> = totals.into_iter().map(total).collect();
    totals.sort_by_key(|total| std::cmp::Reverse(total.connections));
    totals
}

impl<'a> Seen<'a> {
    fn of(seen: &'a Pending) -> Self {
        let app = |asked: &'a Asked| App {
            app: &asked.app,
            owner: &asked.owner,
            connections: asked.connections,
            first_seen: stamp(asked.first),
            last_seen: stamp(asked.last),
        };
        Self {
            connections: seen.connections,
            peers: seen.peers.estimate(),
            first_seen: stamp(seen.first),
            last_seen: stamp(seen.last),
            apps: seen.apps.iter().map(app).collect(),
        }
    }
}

fn stamp(at: Timestamp) -> String {
    format!("{at:.3}")
}
