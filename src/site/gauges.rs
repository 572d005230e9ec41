//! Metrics that are read off other parts at each scrape: what is degraded shows here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::{Site, expiry};
use crate::forward;
use crate::gate::Rules;
use crate::policy::draft::Exception;
use crate::record::{Record, names};

impl Site {
    /// Metrics that are read off other parts at each scrape.
    pub fn measure(self: &Arc<Self>) -> Result<(), prometheus::Error> {
        let record = &self.record;
        let one = |value: f64| vec![(Vec::new(), value)];
        record.scraped(&names::BUILD_INFO, || {
            let revision = option_env!("VESTIBULE_REVISION").unwrap_or("unknown");
            vec![(vec![env!("CARGO_PKG_VERSION").to_owned(), revision.to_owned()], 1.0)]
        })?;
        let rules = Arc::clone(&self.rules);
        record.scraped(&names::POLICY_INFO, move || vec![(vec![rules.load().policy.revision().to_owned()], 1.0)])?;
        let (entrances, at) = (Arc::clone(&self.entrances), Arc::clone(&self.rules));
        record.scraped(&names::CERTIFICATE_EXPIRY, move || expiry::series(&entrances.load(), at.load().servers.secure()))?;
        let site = Arc::downgrade(self);
        #[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
        record.scraped(&names::ASSERTION_KEY_DUE, move || {
            let due = site.upgrade().and_then(|site| site.keys.load().as_ref()?.keys.load().due);
            due.map(|due| (Vec::new(), due as f64)).into_iter().collect()
        })?;
        let site = Arc::downgrade(self);
        record.scraped(&names::ASSERTION_KEYS_UP, move || {
            let up = site.upgrade().and_then(|site| Some(site.keys.load().as_ref()?.up()));
            up.map(|up| (Vec::new(), f64::from(u8::from(up)))).into_iter().collect()
        })?;
        let at = Arc::clone(&self.rules);
        forward::measure(record, move || Arc::clone(&at.load().servers))?;
        let at = Arc::clone(&self.rules);
        #[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
        record.scraped(&names::EXCEPTION_EXPIRY, move || {
            let rules = at.load();
            let ends = |exception: &Exception| (vec![exception.name.clone()], exception.until.as_second() as f64);
            rules.policy.draft().exceptions.iter().map(ends).collect()
        })?;
        let site = Arc::downgrade(self);
        #[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
        record.scraped(&names::CONFIG_LAST_GOOD, move || {
            site.upgrade().map_or_else(Vec::new, |site| one(site.last_good.load(Relaxed) as f64))
        })?;
        let one_of = |read: fn(&Site) -> f64| {
            let site = Arc::downgrade(self);
            move || site.upgrade().map_or_else(Vec::new, |site| vec![(Vec::new(), read(&site))])
        };
        record.scraped(&names::CONFIG_TAKEN, one_of(|site| f64::from(u8::from(site.taken.load(Relaxed)))))?;
        record.scraped(&names::DRAINING, one_of(|site| f64::from(u8::from(site.draining.load(Relaxed)))))?;
        record.scraped(&names::STALLED_WORKERS, one_of(|site| f64::from(u32::try_from(site.stalled.load(Relaxed)).unwrap_or(u32::MAX))))?;
        let log = Arc::downgrade(record);
        record.scraped(&names::DECISION_LOG_UP, move || {
            let up = log.upgrade().and_then(|record| Some(record.log()?.up()));
            up.map_or_else(Vec::new, |up| vec![(Vec::new(), f64::from(u8::from(up)))])
        })?;
        measure_posture(record, &self.rules)?;
        measure_memory(record, &self.rules)
    }
}

/// The device store's state, read off the posture in force.
#[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
fn measure_posture(record: &Record, rules: &Arc<ArcSwap<Rules>>) -> Result<(), prometheus::Error> {
    let at = Arc::clone(rules);
    record.scraped(&names::POSTURE_CACHE, move || {
        let rules = at.load();
        let stats = rules.posture.stats();
        let counts = [("hit", &stats.hit), ("miss", &stats.miss), ("stale", &stats.stale), ("negative", &stats.negative)];
        counts.into_iter().map(|(result, count)| (vec![result.to_owned()], count.load(Relaxed) as f64)).collect()
    })?;
    let at = Arc::clone(rules);
    record.scraped(&names::POSTURE_AGE, move || {
        let ages = at.load().posture.stats().ages(Timestamp::now());
        ages.into_iter().map(|(source, age)| (vec![source], age.as_secs_f64())).collect()
    })?;
    let at = Arc::clone(rules);
    record.scraped(&names::STORE_UP, move || vec![(Vec::new(), f64::from(u8::from(at.load().posture.stats().up())))])?;
    let at = Arc::clone(rules);
    record.scraped(&names::STORE_LAG, move || vec![(Vec::new(), at.load().posture.stats().lag().as_secs_f64())])
}

/// What is remembered of devices, read off the memory in force.
#[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
fn measure_memory(record: &Record, rules: &Arc<ArcSwap<Rules>>) -> Result<(), prometheus::Error> {
    let at = Arc::clone(rules);
    record.scraped(&names::DEVICES_SEEN, move || {
        at.load().memory.stats().seen().into_iter().map(|(class, count)| (vec![class.to_string()], count as f64)).collect()
    })?;
    let at = Arc::clone(rules);
    record.scraped(&names::DEVICES_DRIFTING, move || vec![(Vec::new(), at.load().memory.stats().drifting.load(Relaxed) as f64)])?;
    let at = Arc::clone(rules);
    record.scraped(&names::DRIFT, move || {
        let rules = at.load();
        let stats = rules.memory.stats();
        let counts = [("raised", &stats.raised), ("fleet", &stats.fleet), ("settled", &stats.settled)];
        counts.into_iter().map(|(event, count)| (vec![event.to_owned()], count.load(Relaxed) as f64)).collect()
    })?;
    let at = Arc::clone(rules);
    record.scraped(&names::MEMORY_OVERFLOW, move || {
        let rules = at.load();
        let stats = rules.memory.stats();
        let counts = [("baseline", &stats.devices_overflowed), ("census", &stats.groups_overflowed)];
        counts.into_iter().map(|(table, count)| (vec![table.to_owned()], count.load(Relaxed) as f64)).collect()
    })
}
