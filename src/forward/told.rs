//! What operators see of servers: metrics, and `GET /api/v1/servers`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fitness::{Turn, millis};
use super::health::Verdict;
use super::servers::{Entry, Group, Named, Place, Servers, held};
use crate::config::Balance;
use crate::record::names::{self, Metric};
use crate::record::{Cell, Record};

/// Adds the metrics of servers, read off those in force at each scrape: what a reload takes away is gone from the next one.
///
/// # Errors
/// When they were added before.
pub fn measure<F: Fn() -> Arc<Servers> + Clone + Send + Sync + 'static>(record: &Record, servers: F) -> Result<(), prometheus::Error> {
    type Row = Vec<(Option<&'static str>, f64)>;
    let per_server = |metric: &'static Metric, read: fn(&Group, &Named) -> Row| {
        let servers = servers.clone();
        record.scraped(metric, move || {
            let servers = servers();
            // A server that stands twice in an app is one series.
            let mut all: BTreeMap<Vec<String>, f64> = BTreeMap::new();
            for group in &servers.groups {
                for entry in &group.entries {
                    for (label, value) in read(group, &entry.named) {
                        let labels = [Some(&*group.app), Some(&*entry.named.url), label].into_iter().flatten().map(ToOwned::to_owned);
                        *all.entry(labels.collect()).or_default() += value;
                    }
                }
            }
            all.into_iter().collect()
        })
    };
    let per_app = |metric: &'static Metric, read: fn(&Group) -> Row| {
        let servers = servers.clone();
        record.scraped(metric, move || {
            let servers = servers();
            let rows = servers.groups.iter().flat_map(|group| {
                let labels = move |label: Option<&str>| [Some(&*group.app), label].into_iter().flatten().map(ToOwned::to_owned).collect();
                read(group).into_iter().map(move |(label, value)| (labels(label), value))
            });
            rows.collect()
        })
    };
    // What is known of a server is yes or no; of one that is named twice the last word.
    let known = |metric: &'static Metric, read: fn(&Servers) -> BTreeMap<(String, String), bool>| {
        let servers = servers.clone();
        record.scraped(metric, move || {
            let known = read(&servers()).into_iter();
            known.map(|((app, server), is)| (vec![app, server], f64::from(u8::from(is)))).collect()
        })
    };
    known(&names::UPSTREAM_UP, |servers| {
        servers.up().filter_map(|(app, server, up)| Some(((app.to_string(), server.to_string()), up?))).collect()
    })?;
    known(&names::UPSTREAM_RESOLVED, |servers| {
        let all = servers.groups.iter().flat_map(|group| group.entries.iter().map(|entry| (&group.app, &entry.named)));
        all.filter_map(|(app, named)| Some(((app.to_string(), named.url.to_string()), named.looked()?.error.is_none()))).collect()
    })?;
    per_server(&names::UPSTREAM_REQUESTS, |_, named| {
        let of = |result, read: fn(&super::servers::Counts) -> &Cell| (Some(result), float(named.counts.sum(read)));
        vec![
            of("answered", |counts| &counts.answered),
            of("unreachable", |counts| &counts.unreachable),
            of("timeout", |counts| &counts.timeout),
            of("broken", |counts| &counts.broken),
            of("client", |counts| &counts.client),
        ]
    })?;
    per_server(&names::UPSTREAM_RETRIES, |_, named| {
        vec![
            (Some("unsent"), float(named.counts.sum(|counts| &counts.elsewhere))),
            (Some("closed"), float(named.counts.sum(|counts| &counts.again))),
        ]
    })?;
    per_server(&names::UPSTREAM_RUNNING, |_, named| {
        vec![(None, named.places().iter().map(|place| float(place.running.sum(|cell| cell))).sum())]
    })?;
    per_server(&names::UPSTREAM_CONNECTIONS, |_, named| {
        let (idle, busy) = connections(&named.places());
        vec![(Some("idle"), float(idle)), (Some("busy"), float(busy))]
    })?;
    per_server(&names::UPSTREAM_ADDRESSES, |group, named| {
        let places = named.places();
        let count = |states: &[&str]| places.iter().filter(|place| states.contains(&place.state(group).0)).count() as u64;
        vec![
            (Some("up"), float(count(&["up", "unchecked", "slow_start"]))),
            (Some("ejected"), float(count(&["ejected"]))),
            (Some("down"), float(count(&["down"]))),
        ]
    })?;
    per_server(&names::UPSTREAM_EJECTIONS, |_, named| vec![(None, float(named.ejections.load(Relaxed)))])?;
    per_server(&names::UPSTREAM_CHECKS, |group, named| {
        if group.health.is_none() {
            return Vec::new();
        }
        let of = |result, read: fn(&super::servers::CheckCounts) -> &Cell| {
            (Some(result), float(named.counts.sum(|counts| read(&counts.checks))))
        };
        vec![
            of("passed", |checks| &checks.passed),
            of("status", |checks| &checks.status),
            of("timeout", |checks| &checks.timeout),
            of("unreachable", |checks| &checks.unreachable),
            of("broken", |checks| &checks.broken),
            of("not_made", |checks| &checks.not_made),
        ]
    })?;
    per_server(&names::UPSTREAM_LOOK_UPS, |_, named| {
        let (found, failed) = named.look_ups();
        if named.name.is_none() { Vec::new() } else { vec![(Some("found"), float(found)), (Some("failed"), float(failed))] }
    })?;
    per_app(&names::UPSTREAM_WAITING, |group| vec![(None, float(group.waits.sum(|waits| &waits.waiting)))])?;
    per_app(&names::UPSTREAM_WAITS, |group| {
        vec![
            (Some("served"), float(group.waits.sum(|waits| &waits.served))),
            (Some("timeout"), float(group.waits.sum(|waits| &waits.timeout))),
            (Some("full"), float(group.waits.sum(|waits| &waits.full))),
        ]
    })
}

#[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
fn float(count: u64) -> f64 {
    count as f64
}

fn connections(places: &[Arc<Place>]) -> (u64, u64) {
    places.iter().fold((0, 0), |(idle, busy), place| {
        let here = place.pooled.sum(|pooled| &pooled.idle);
        (idle + here, busy + place.pooled.sum(|pooled| &pooled.open).saturating_sub(here))
    })
}

impl Servers {
    /// App, server's URL, and whether any of its addresses is up; `None` before the first connection or check.
    pub fn up(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Option<bool>)> {
        self.groups.iter().flat_map(|group| group.entries.iter().map(|entry| (&group.app, &entry.named.url, group.up(&entry.named))))
    }

    /// All of them, as the admin listener tells it.
    pub fn told(&self) -> Value {
        let apps = self.groups.iter().map(|group| {
            json!({
                "app": &*group.app,
                "balance": match group.balance {
                    Balance::RoundRobin => "round_robin",
                    Balance::LeastRequests => "least_requests",
                    Balance::Hash => "hash",
                },
                "waiting": group.waits.sum(|waits| &waits.waiting),
                "servers": group.entries.iter().map(|entry| group.server_told(entry)).collect::<Vec<_>>(),
            })
        });
        json!({"apps": apps.collect::<Vec<_>>()})
    }
}

impl Group {
    fn up(&self, named: &Named) -> Option<bool> {
        named.places().iter().filter_map(|place| place.up(self)).max()
    }

    fn server_told(&self, entry: &Entry) -> Value {
        let named = &entry.named;
        let mut told = json!({
            "server": &*named.url,
            "up": self.up(named),
            "addresses": named.places().iter().map(|place| self.address_told(place)).collect::<Vec<_>>(),
        });
        if let (Some(looked), Some(fields)) = (named.looked(), told.as_object_mut()) {
            fields.insert("looked_up".to_owned(), json!({"at": looked.at.to_string(), "error": looked.error}));
        }
        told
    }

    fn address_told(&self, place: &Arc<Place>) -> Value {
        let (state, until) = place.state(self);
        let (idle, busy) = connections(std::slice::from_ref(place));
        let mut told = json!({
            "address": place.reach.to_string(),
            "state": state,
            "running": place.running.sum(|cell| cell),
            "connections": {"idle": idle, "busy": busy},
            "failures": place.fitness.failures(),
        });
        let Some(fields) = told.as_object_mut() else { return told };
        if let Some(until) = until {
            fields.insert("until".to_owned(), json!(until.to_string()));
        }
        if let Some(check) = &held(&place.checked).last {
            let took = u64::try_from(check.took.as_millis()).unwrap_or(u64::MAX);
            let (status, why) = match &check.result {
                Ok(status) => (Some(*status), None),
                Err(why) => (None, Some(why.to_string())),
            };
            fields.insert("check".to_owned(), json!({"at": check.at.to_string(), "took_ms": took, "status": status, "why": why}));
        }
        told
    }
}

impl Place {
    /// In one word, and when that ends.
    fn state(&self, group: &Group) -> (&'static str, Option<Timestamp>) {
        let now = millis(Instant::now());
        let at = |then: u64| Timestamp::now().checked_add(Duration::from_millis(then.saturating_sub(now))).ok();
        match self.fitness.turn(|| now, group.slow_start) {
            Turn::Down => ("down", None),
            Turn::Ejected(until) => ("ejected", at(until)),
            Turn::Since(back) => ("slow_start", at(back.saturating_add(group.slow_start))),
            Turn::Whole | Turn::Resting(_) if group.health.is_some() && held(&self.checked).verdict() == Verdict::Unchecked => {
                ("unchecked", None)
            }
            Turn::Whole | Turn::Resting(_) => ("up", None),
        }
    }

    fn up(&self, group: &Group) -> Option<bool> {
        match self.state(group).0 {
            "down" | "ejected" => Some(false),
            _ => self.fitness.took_last(),
        }
    }
}
