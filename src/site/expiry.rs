//! When certificates, client CAs and CRLs end, and who is told in time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;

use super::Site;
use crate::config::Configuration;
use crate::edge::{Entrances, Setup, Vouching};
use crate::forward::Secure;
use crate::model::{Expiry, Lasting};

/// A certificate, a CA or a CRL that has ended or soon will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    what: Lasting,
    name: String,
    pub at: Timestamp,
    pub ended: bool,
}

impl Ending {
    /// `None`: there is time.
    fn of(expiry: &Expiry, now: Timestamp) -> Option<Self> {
        let left = expiry.ends.saturating_sub(now.as_second());
        let at = Timestamp::from_second(expiry.ends).unwrap_or(Timestamp::MAX);
        let early = i64::try_from(early(expiry.what).as_secs()).unwrap_or(i64::MAX);
        (left <= early).then(|| Self { what: expiry.what, name: expiry.name.clone(), at, ended: left <= 0 })
    }
}

/// How long before the end it is told: long enough to mend it by hand, and after those that renew by themselves should have done so.
const fn early(what: Lasting) -> Duration {
    const DAY: u64 = 24 * 3600;
    match what {
        Lasting::Certificate | Lasting::Presented => Duration::from_secs(14 * DAY),
        Lasting::Authority | Lasting::AppAuthority => Duration::from_secs(30 * DAY),
        Lasting::Crl => Duration::from_secs(DAY),
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, at, ended } = self;
        let (what, after) = match what {
            Lasting::Certificate => ("certificate", "browsers refuse it"),
            Lasting::Authority => ("client CA", "devices with its certificates are unknown"),
            Lasting::Crl => ("CRL", "devices of its CA are unknown"),
            Lasting::Presented => ("certificate toward an app", "the app's servers refuse it"),
            Lasting::AppAuthority => ("CA of an app's servers", "the app cannot be reached"),
        };
        let verb = if *ended { "ended" } else { "ends" };
        write!(f, "the {what} `{name}` {verb} {at}; after that {after}")
    }
}

/// Each that has ended or soon will, of a configuration whose files can be used; the first to end first.
pub fn endings(configuration: &Configuration, now: Timestamp) -> Vec<Ending> {
    let setups = configuration.listeners.iter().filter_map(|listener| Setup::load(listener.tls.as_ref()?).ok());
    let vouching = configuration.listeners.iter().filter_map(|listener| Vouching::load(listener.forwarded.as_ref()?).ok());
    let all: Vec<Expiry> = setups.flat_map(|setup| setup.expiries).chain(vouching.flat_map(|vouching| vouching.expiries)).collect();
    let secure = Secure::load(&configuration.routes, &Secure::default()).unwrap_or_default();
    of(all.iter().chain(secure.expiries()), now)
}

fn of<'a>(all: impl Iterator<Item = &'a Expiry>, now: Timestamp) -> Vec<Ending> {
    let mut endings: Vec<Ending> = all.filter_map(|expiry| Ending::of(expiry, now)).collect();
    endings.sort_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
    endings.dedup();
    endings
}

fn known<'a>(entrances: &'a Entrances, secure: &'a Secure) -> impl Iterator<Item = &'a Expiry> {
    let of_listeners = entrances.values().flat_map(|entrance| entrance.tls.iter().flat_map(|tls| &tls.expiries).chain(&entrance.vouching));
    of_listeners.chain(secure.expiries())
}

#[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
pub fn series(entrances: &Entrances, secure: &Secure) -> Vec<(Vec<String>, f64)> {
    let by_name = known(entrances, secure).fold(HashMap::<String, i64>::new(), |mut by_name, Expiry { name, ends, .. }| {
        by_name.entry(name.clone()).and_modify(|known| *known = (*known).min(*ends)).or_insert(*ends);
        by_name
    });
    by_name.into_iter().map(|(name, ends)| (vec![name], ends as f64)).collect()
}

/// Between two looks.
const LOOK: Duration = Duration::from_secs(3600);
/// Looks after which what was said is said again.
const AGAIN: u32 = 24;

/// Warns at the start, when an end comes near or has come, and once a day until it is mended.
pub async fn watch(site: &Weak<Site>) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What was said, and how many looks ago.
    let mut said: BTreeMap<(String, i64, bool), u32> = BTreeMap::new();
    loop {
        every.tick().await;
        let Some(site) = site.upgrade() else { return std::future::pending().await };
        if site.draining.load(Relaxed) {
            continue;
        }
        let mut still = BTreeMap::new();
        for ending in of(known(&site.entrances.load(), site.rules.load().servers.secure()), Timestamp::now()) {
            let key = (ending.name.clone(), ending.at.as_second(), ending.ended);
            let looks = said.get(&key).map_or(0, |looks| (looks + 1) % AGAIN);
            if looks == 0 {
                tracing::warn!("{ending}");
            }
            still.insert(key, looks);
        }
        said = still;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_of_in_its_time() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let day = 24 * 3600;
        let told = |what, left: i64| {
            let expiry = Expiry { name: "edge.pem".to_owned(), what, ends: now.as_second() + left };
            Ending::of(&expiry, now).map(|ending| ending.ended)
        };
        for (what, days) in [(Lasting::Certificate, 14), (Lasting::Authority, 30), (Lasting::Crl, 1)] {
            assert_eq!(told(what, days * day + 1), None);
            assert_eq!(told(what, days * day), Some(false));
            assert_eq!(told(what, 1), Some(false));
            assert_eq!(told(what, 0), Some(true));
            assert_eq!(told(what, -1), Some(true));
        }
        let expiry = Expiry { name: "edge.pem".to_owned(), what: Lasting::Certificate, ends: now.as_second() + day };
        let ending = Ending::of(&expiry, now).unwrap();
        assert_eq!(ending.to_string(), "the certificate `edge.pem` ends 2026-11-23T12:00:00Z; after that browsers refuse it");
    }
}
