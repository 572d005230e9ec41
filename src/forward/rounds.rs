//! One thread that goes round: it asks servers whether they are well, and looks up where they are.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, watch};

use super::health::{Question, check};
use super::servers::{Named, Place, Servers};
use crate::record::Writer;

/// Dropped without `stop`, its thread ends soon after.
#[derive(Debug)]
pub struct Rounds {
    servers: watch::Sender<Arc<Servers>>,
    thread: JoinHandle<()>,
}

impl Rounds {
    /// `moved` is called when addresses came or went: workers should look at `Servers::moves`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(servers: Arc<Servers>, moved: impl Fn() + Send + 'static) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let (servers, given) = watch::channel(servers);
        let thread = std::thread::Builder::new().name("vestibule-rounds".into()).spawn(move || {
            let mut runtime = runtime;
            match runtime.enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    runtime.block_on(go(given, Rc::new(moved)));
                    // The system's resolver cannot be told to stop, and may take its time.
                    runtime.shutdown_background();
                }
                Err(error) => tracing::error!(%error, "no server can be checked or looked up"),
            }
        })?;
        Ok(Self { servers, thread })
    }

    /// A new configuration: who is no longer in it is left alone from now on.
    pub fn turn_to(&self, servers: Arc<Servers>) {
        self.servers.send_replace(servers);
    }

    pub fn stop(self) {
        drop(self.servers);
        // A thread that panicked has told why.
        let _ = self.thread.join();
    }
}

/// Aborted when dropped.
pub(super) struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn go(mut given: watch::Receiver<Arc<Servers>>, moved: Rc<dyn Fn()>) {
    let (mut look_ups, mut checks) = (Vec::new(), Vec::new());
    let here = Rc::new(Notify::new());
    loop {
        let servers = Arc::clone(&given.borrow_and_update());
        look_ups = looked_up(&servers, look_ups, (&moved, &here));
        checks = checked(&servers, checks);
        drop(servers);
        tokio::select! {
            changed = given.changed() => if changed.is_err() { return },
            () = here.notified() => {}
        }
    }
}

type LookUp = (Arc<Named>, Duration, Task);

fn looked_up(servers: &Servers, mut before: Vec<LookUp>, (moved, here): (&Rc<dyn Fn()>, &Rc<Notify>)) -> Vec<LookUp> {
    let mut next = Vec::new();
    for group in &servers.groups {
        for entry in &group.entries {
            let (named, every) = (&entry.named, group.resolve_every);
            let Some(name) = named.name.clone() else { continue };
            let known = before.iter().position(|(known, same, _)| Arc::ptr_eq(known, named) && *same == every);
            next.push(known.map(|at| before.swap_remove(at)).unwrap_or_else(|| {
                let task = look_up(Arc::clone(named), name, every, (Rc::clone(moved), Rc::clone(here)));
                (Arc::clone(named), every, Task(tokio::task::spawn_local(task)))
            }));
        }
    }
    next
}

/// By the system's own resolver, so that `/etc/hosts` and nsswitch.conf(5) count.
async fn look_up(named: Arc<Named>, (host, port): (String, u16), every: Duration, (moved, here): (Rc<dyn Fn()>, Rc<Notify>)) {
    loop {
        let answer = tokio::net::lookup_host((host.as_str(), port)).await;
        let answer = answer.map(Iterator::collect::<Vec<SocketAddr>>).map_err(|error| error.to_string());
        if named.take(answer) {
            here.notify_one();
            moved();
        }
        tokio::time::sleep(every.mul_f32(0.9 + fastrand::f32() / 5.0)).await;
    }
}

pub(super) type Asking = (Arc<Place>, Question, Task);

pub(super) fn checked(servers: &Servers, mut before: Vec<Asking>) -> Vec<Asking> {
    let mut next = Vec::new();
    for group in &servers.groups {
        let Some(health) = &group.health else { continue };
        for (entry, place) in group.places() {
            let question = Question {
                app: Arc::clone(&group.app),
                url: Arc::clone(&entry.named.url),
                host: entry.check_host.clone(),
                health: health.clone(),
                counts: entry.named.counts.of(Writer::ROUNDS).checks,
                tls: servers.tls(&place.reach),
            };
            let known = before.iter().position(|(known, same, _)| Arc::ptr_eq(known, &place) && same.is(&question));
            next.push(known.map(|at| before.swap_remove(at)).unwrap_or_else(|| {
                let task = Task(tokio::task::spawn_local(check(question.clone(), Arc::clone(&place))));
                (place, question, task)
            }));
        }
    }
    // The last answer may have come when nobody checked any more: with no other to follow, what it said would stay.
    for (place, _, task) in before {
        drop(task);
        if !next.iter().any(|(asked, ..)| Arc::ptr_eq(asked, &place)) {
            place.unchecked();
        }
    }
    next
}
