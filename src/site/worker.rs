//! A worker: one thread, one runtime, its own sockets, pools and counters.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle as JoinTask;

use super::heap;
use crate::edge::{self, Crowd, Edge, Entrance, Entrances, Owner};
use crate::gate::{Core, Rules};
use crate::record::{Desk, Record, Writer};

pub enum Command {
    Listen {
        listener: Arc<str>,
        addr: SocketAddr,
        socket: TcpListener,
    },
    /// Another listener has the address from now on. `gone`: the old one has none any more.
    Give {
        listener: Arc<str>,
        addr: SocketAddr,
        to: Arc<Entrance>,
        gone: bool,
    },
    /// `gone`: the listener as it was, if it has no address any more.
    Close {
        listener: Arc<str>,
        addr: SocketAddr,
        gone: Option<Arc<Entrance>>,
    },
    /// What was true of the servers of apps, or of who is believed, may be so no more.
    Renew,
    /// `kept`: addresses whose sockets another process accepts from as well, and goes on to.
    Drain {
        limit: Duration,
        kept: Vec<SocketAddr>,
        done: std_mpsc::SyncSender<usize>,
    },
    /// Ends a drain now.
    Hurry,
    /// To be answered by a worker that makes progress.
    Ping(oneshot::Sender<()>),
}

/// What a worker is made of.
pub struct Parts {
    pub record: Arc<Record>,
    pub writer: Writer,
    pub rules: Arc<ArcSwap<Rules>>,
    pub entrances: Arc<ArcSwap<Entrances>>,
    pub crowd: Arc<Crowd>,
}

pub struct Worker {
    commands: mpsc::UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub fn start(parts: Parts) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let name = format!("vestibule-{}", parts.writer.0);
        let (started, start) = std_mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            heap::keep();
            // A runtime of this thread's own: without a `LocalSet` between them a task's wake-up costs less.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(()));
            let desk = Desk::new(Arc::clone(&parts.record), parts.writer);
            let drained = runtime.block_on(work(parts, Rc::clone(&desk), inbox));
            // What was cut is dropped here, each request with its line.
            desk.close();
            drop(runtime);
            desk.flush();
            heap::let_go();
            if let Some((cut, done)) = drained {
                let _ = done.send(cut);
            }
        })?;
        start.recv().map_err(io::Error::other)??;
        Ok(Self { commands, thread: Mutex::new(Some(thread)) })
    }

    pub fn tell(&self, command: Command) {
        // A worker that ended takes no commands, and has nothing left to do with them.
        let _ = self.commands.send(command);
    }

    /// Begins to drain; the answer is how many connections had to be cut.
    pub fn drain(&self, limit: Duration, kept: &[SocketAddr]) -> std_mpsc::Receiver<usize> {
        let (done, answer) = std_mpsc::sync_channel(1);
        self.tell(Command::Drain { limit, kept: kept.to_vec(), done });
        answer
    }

    pub fn join(&self) {
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

/// One socket that connections are taken from.
struct Accepting {
    owner: Rc<RefCell<Owner>>,
    addr: SocketAddr,
    close: oneshot::Sender<Option<Arc<Entrance>>>,
    task: JoinTask<()>,
}

impl Accepting {
    fn is(&self, listener: &str, addr: SocketAddr) -> bool {
        *self.owner.borrow().listener == *listener && self.addr == addr
    }

    /// Returns when what waited there is taken and the socket closed.
    async fn close(self, gone: Option<Arc<Entrance>>) {
        let _ = self.close.send(gone);
        let _ = self.task.await;
    }

    /// Whoever waits there is taken by another process.
    async fn leave(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Until it has drained: how many connections had to be cut, and who wants to know.
async fn work(parts: Parts, desk: Rc<Desk>, mut inbox: mpsc::UnboundedReceiver<Command>) -> Option<(usize, std_mpsc::SyncSender<usize>)> {
    let core = Core::new(desk, parts.rules);
    let edge = Edge::new(Rc::clone(&core), parts.entrances, parts.crowd);
    tokio::task::spawn_local(Rc::clone(&edge).watch());
    let mut doors: Vec<Accepting> = Vec::new();
    let mut hurry = false;
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Listen { listener, addr, socket } => match edge::listening(socket) {
                Ok(socket) => {
                    let (close, closing) = oneshot::channel();
                    let owner = Rc::new(RefCell::new(Owner { listener, entrance: None }));
                    let task = tokio::task::spawn_local(Rc::clone(&edge).accept(Rc::clone(&owner), socket, closing));
                    doors.push(Accepting { owner, addr, close, task });
                }
                Err(error) => tracing::error!(%error, listener = &*listener, %addr, "the socket cannot be used"),
            },
            Command::Give { listener, addr, to, gone } => {
                for door in doors.iter().filter(|door| door.is(&listener, addr)) {
                    door.owner.replace(Owner { listener: Arc::clone(&to.door.listener), entrance: Some(Arc::clone(&to)) });
                }
                if gone {
                    edge.dismiss(&listener);
                }
            }
            Command::Close { listener, addr, gone } => {
                for door in doors.extract_if(.., |door| door.is(&listener, addr)) {
                    door.close(gone.clone()).await;
                }
                if gone.is_some() {
                    edge.dismiss(&listener);
                }
            }
            Command::Renew => edge.renew(),
            Command::Drain { limit, kept, done } => {
                for door in doors.drain(..) {
                    match kept.contains(&door.addr) {
                        true => door.leave().await,
                        false => door.close(None).await,
                    }
                }
                let hurried = async {
                    while let Some(command) = inbox.recv().await {
                        match command {
                            Command::Hurry => return,
                            Command::Ping(reply) => drop(reply.send(())),
                            _ => {}
                        }
                    }
                    std::future::pending().await
                };
                let limit = if hurry { Duration::ZERO } else { limit };
                let cut = tokio::select! {
                    cut = edge.drain(limit) => cut,
                    () = hurried => edge.drain(Duration::ZERO).await,
                };
                return Some((cut, done));
            }
            Command::Hurry => hurry = true,
            Command::Ping(reply) => drop(reply.send(())),
        }
    }
    None
}
