//! The office: one thread for everything that is not a request: the admin listener, and watching files for changes.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{How, Site, api};
use crate::admin;
use crate::gate::Rules;
use crate::posture::{self, Memory};
use crate::record::{Record, names};

#[derive(Debug)]
pub struct Office {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Office {
    pub fn start(site: &Arc<Site>, socket: TcpListener) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let site = Arc::downgrade(site);
        let thread = std::thread::Builder::new().name("vestibule-office".into()).spawn(move || {
            runtime.block_on(work(&site, socket, stopped));
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    pub fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn work(site: &Weak<Site>, socket: TcpListener, mut stopped: watch::Receiver<bool>) {
    let Some(there) = site.upgrade() else { return };
    let (ready, asked, told, reloads) = (site.clone(), site.clone(), site.clone(), site.clone());
    let state = admin::State {
        registry: Arc::new(there.record.registry.clone()),
        ready: Arc::new(move || ready.upgrade().map_or_else(|| vec!["the proxy has stopped".to_owned()], |site| site.not_ready())),
        blind: Arc::new(move || Box::pin(blind(asked.upgrade().map(|site| Arc::clone(&site.rules.load().memory))))),
        policy: Arc::new(move || told.upgrade().map(|site| api::policy(&site))),
        reload: Arc::new(move || Box::pin(reload(reloads.upgrade()))),
    };
    drop(there);
    let serving = async {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => admin::serve(socket, state, std::future::pending()).await,
            Err(error) => tracing::error!(%error, "the admin listener cannot be used"),
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        () = watch_files(site) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

async fn blind(memory: Option<Arc<Memory>>) -> Option<String> {
    Some(posture::blind::json(&memory?.census().await?))
}

/// `None`: the proxy is stopping.
async fn reload(site: Option<Arc<Site>>) -> Option<Result<String, String>> {
    let site = site.filter(|site| !site.draining.load(Relaxed))?;
    // Files and a store can be slow; the admin listener answers meanwhile.
    tokio::task::spawn_blocking(move || api::reload(&site)).await.ok()
}

/// How often files are looked at. Looking, rather than being told by the kernel, also sees what happens behind symbolic links and on
/// network file systems.
const LOOK: Duration = Duration::from_secs(1);

async fn watch_files(site: &Weak<Site>) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Some(site) = site.upgrade() else { return };
        if site.draining.load(Relaxed) {
            // Nothing to reload any more. Ending here would close the admin listener, which answers until the last request has.
            drop(site);
            return std::future::pending().await;
        }
        // Files and a store can be slow; the admin listener answers meanwhile.
        let looked = tokio::task::spawn_blocking(move || {
            if site.changed() {
                let _ = site.reload(How::File); // said and counted there
            }
        });
        let _ = looked.await;
    }
}

/// What tells one version of a file from another; a folder changes when files come or go. `None`: it is not there.
pub type Stamps = BTreeMap<PathBuf, Option<(i64, i64, u64, u64)>>;

pub fn stamps(files: Vec<PathBuf>) -> Stamps {
    let stamp = |path: PathBuf| {
        let stamp = std::fs::metadata(&path).ok().map(|m| (m.mtime(), m.mtime_nsec(), m.len(), m.ino()));
        (path, stamp)
    };
    files.into_iter().map(stamp).collect()
}

/// The device store's state, read off the posture in force.
#[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
pub fn measure_posture(record: &Record, rules: &Arc<ArcSwap<Rules>>) -> Result<(), prometheus::Error> {
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
pub fn measure_memory(record: &Record, rules: &Arc<ArcSwap<Rules>>) -> Result<(), prometheus::Error> {
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
