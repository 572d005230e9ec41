//! Whether the program makes progress: the office asks every worker, and what it tells the service manager's watchdog is what they answered. The
//! office asks itself by doing so.

use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Site;
use super::worker::Command;

/// Between two looks, where no watchdog asks for more.
const LOOK: Duration = Duration::from_secs(5);
/// A watchdog is told so many times before it barks.
const OFTEN: u32 = 4;

pub async fn watch(site: &Weak<Site>) {
    let watchdog = sd_notify::watchdog_enabled();
    let look = watchdog.map_or(LOOK, |patience| (patience / OFTEN).clamp(Duration::from_millis(10), LOOK));
    let mut every = tokio::time::interval(look);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked: Vec<Option<oneshot::Receiver<()>>> = Vec::new();
    loop {
        every.tick().await;
        let Some(site) = site.upgrade() else { return };
        asked.resize_with(site.workers.len(), || None);
        let mut stalled = 0;
        for (worker, asked) in site.workers.iter().zip(&mut asked) {
            match asked.as_mut().map(oneshot::Receiver::try_recv) {
                Some(Err(TryRecvError::Empty)) => stalled += 1,
                // It has ended: at the end of a drain, or by a fault.
                Some(Err(TryRecvError::Closed)) if !site.draining.load(Relaxed) => stalled += 1,
                Some(Ok(()) | Err(TryRecvError::Closed)) | None => {
                    let (reply, answer) = oneshot::channel();
                    worker.tell(Command::Ping(reply));
                    *asked = Some(answer);
                }
            }
        }
        let before = site.stalled.swap(stalled, Relaxed);
        match (before, stalled) {
            (0, 1..) => tracing::error!(workers = stalled, "a worker does not answer"),
            (1.., 0) => tracing::warn!("all workers answer again"),
            _ => {}
        }
        if watchdog.is_some() && stalled == 0 {
            site.supervisor.alive();
        }
    }
}
