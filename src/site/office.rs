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

use tokio::sync::watch;

use super::{How, Site, api, expiry, held, pulse};
use crate::admin;
use crate::posture::{self, Memory};

#[derive(Debug)]
pub struct Office {
    stop: watch::Sender<bool>,
    close: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Office {
    pub fn start(site: &Arc<Site>, socket: TcpListener) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (close, closed) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let site = Arc::downgrade(site);
        let thread = std::thread::Builder::new().name("vestibule-office".into()).spawn(move || {
            runtime.block_on(work(&site, socket, stopped, closed));
        })?;
        Ok(Self { stop, close, thread: Some(thread) })
    }

    /// Closes the admin listener: another process answers there.
    pub fn close(&self) {
        let _ = self.close.send(true);
    }

    pub fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn work(site: &Weak<Site>, socket: TcpListener, mut stopped: watch::Receiver<bool>, mut closed: watch::Receiver<bool>) {
    let Some(there) = site.upgrade() else { return };
    let (ready, asked, told, known, keys) = (site.clone(), site.clone(), site.clone(), site.clone(), site.clone());
    let reloads = site.clone();
    let state = admin::State {
        registry: Arc::new(there.record.registry.clone()),
        ready: Arc::new(move || ready.upgrade().map_or_else(|| vec!["the proxy has stopped".to_owned()], |site| site.not_ready())),
        blind: Arc::new(move || Box::pin(blind(asked.upgrade().map(|site| Arc::clone(&site.rules.load().memory))))),
        policy: Arc::new(move || told.upgrade().map(|site| api::policy(&site))),
        servers: Arc::new(move || known.upgrade().map(|site| api::servers(&site))),
        jwks: Arc::new(move || Some(keys.upgrade()?.keys.load().as_ref()?.keys.load().jwks.clone())),
        reload: Arc::new(move || Box::pin(reload(reloads.upgrade()))),
    };
    drop(there);
    let serving = async {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => admin::serve(socket, state, async { drop(closed.wait_for(|closed| *closed).await) }).await,
            Err(error) => tracing::error!(%error, "the admin listener cannot be used"),
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        () = watch_files(site) => {}
        () = pulse::watch(site) => {}
        () = expiry::watch(site) => {}
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
        // Files and a store can be slow; the admin listener answers meanwhile.
        let looked = tokio::task::spawn_blocking(move || {
            // While it stops there is nothing to reload any more; requests that are still answered are signed by the keys of the day.
            if !site.draining.load(Relaxed) && !site.succeeding.load(Relaxed) && site.changed() {
                let _ = site.reload(How::File); // said and counted there
            }
            look_at_keys(&site);
        });
        let _ = looked.await;
    }
}

/// Looks after the keys of assertions. What cannot be read leaves those in force that were.
fn look_at_keys(site: &Site) {
    let _alone = held(&site.state); // whoever reloads counts as the office too
    if let Some(keys) = site.keys.load_full() {
        keys.look().unwrap_or_else(|error| keys.trouble(&error)).count(&site.record);
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
