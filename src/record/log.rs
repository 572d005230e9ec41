//! The decision log's writer: a thread of its own behind a bounded queue, so that a slow disk never holds a request.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::out::Out;
use super::shard::{Cell, Family, Writer};
use crate::config::{DecisionLog, LogTarget};

#[derive(Debug, thiserror::Error)]
#[error("decision_log: cannot open {path}: {source}; give a path that this user may write, or free space on its disk")]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// Lines on their way to the disk.
#[derive(Debug)]
pub struct Lines {
    /// Whole lines, each with its newline.
    pub bytes: Vec<u8>,
    pub count: usize,
}

#[derive(Debug)]
enum Job {
    Write(Lines),
    Reopen,
    Stop,
}

/// What the writer has still to do.
///
/// A channel of the standard library wakes its receiver with a lock of its own in hand. On a core that both share the receiver runs at once, into that
/// lock, and has to be woken twice.
#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// The writer waits for the bell.
    asleep: bool,
    /// The writer is gone.
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: nobody will do it.
    fn send(&self, job: Job) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        waiting.jobs.push_back(job);
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            self.bell.notify_one();
        }
        true
    }

    /// Takes no more, and gives back what waits.
    fn close(&self) -> VecDeque<Job> {
        let mut waiting = self.lock();
        waiting.closed = true;
        std::mem::take(&mut waiting.jobs)
    }

    /// The next job; `None` when none came within the patience.
    fn receive(&self, patience: Option<Duration>) -> Option<Job> {
        let mut waiting = self.lock();
        waiting.asleep = waiting.jobs.is_empty();
        let still = |waiting: &mut Waiting| waiting.asleep;
        waiting = match patience {
            Some(patience) => {
                self.bell.wait_timeout_while(waiting, patience, still).map_or_else(|gone| gone.into_inner().0, |(waiting, _)| waiting)
            }
            None => self.bell.wait_while(waiting, still).unwrap_or_else(PoisonError::into_inner),
        };
        waiting.asleep = false;
        waiting.jobs.pop_front()
    }
}

/// The queue's near end, shared by all workers.
#[derive(Clone, Debug)]
pub struct LogQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    waiting: AtomicUsize,
    most: usize,
    failing: AtomicBool,
    /// Lines were dropped for want of room, and half of it is not free again.
    crowded: AtomicBool,
    required: bool,
    /// Buffers that were written, for the workers to fill again: one of this size costs a worker more to get than all the lines in it to copy.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    const SPARE: usize = 4;

    /// Requests that were let in before a required log was full are still to be logged.
    fn room(&self) -> usize {
        if self.required { self.most.saturating_mul(2) } else { self.most }
    }
}

impl LogQueue {
    /// Hands lines to the writer; gives back how many were dropped because the disk is too far behind.
    pub fn push(&self, lines: Lines) -> usize {
        let count = lines.count;
        if self.0.waiting.fetch_add(count, Relaxed) + count > self.0.room() || !self.0.inbox.send(Job::Write(lines)) {
            self.0.waiting.fetch_sub(count, Relaxed);
            self.0.crowded.store(true, Relaxed);
            return count;
        }
        0
    }

    /// So many lines wait no more.
    fn done(&self, count: usize) {
        let left = self.0.waiting.fetch_sub(count, Relaxed).saturating_sub(count);
        if left <= self.0.most / 2 {
            self.0.crowded.store(false, Relaxed);
        }
    }

    /// An empty buffer, with room if there is one that was used before.
    pub fn spare(&self) -> Vec<u8> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        let mut spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < Shared::SPARE && bytes.capacity() <= super::Desk::ROOM {
            bytes.clear();
            spare.push(bytes);
        }
    }

    /// Whether requests must be refused: the log is required, and it cannot be written or its queue is full.
    pub fn refuses(&self) -> bool {
        self.0.required && (self.0.failing.load(Relaxed) || self.0.waiting.load(Relaxed) >= self.0.most)
    }

    /// Whether lines get to the disk: the last write did not fail, and those that wait have room. Lines come many at a time, so some may have been
    /// dropped with room for one left.
    pub fn up(&self) -> bool {
        let waiting = self.0.waiting.load(Relaxed);
        let crowded = waiting > 0 && self.0.crowded.load(Relaxed);
        !self.failing() && !crowded && waiting < self.0.most
    }

    /// Whether the last write failed.
    pub fn failing(&self) -> bool {
        self.0.failing.load(Relaxed)
    }

    /// Closes the file and opens its path anew, for external rotation.
    pub fn reopen(&self) {
        self.0.inbox.send(Job::Reopen);
    }
}

/// The writer's thread. `stop` writes what waits and ends it.
#[derive(Debug)]
pub struct LogWriter {
    queue: LogQueue,
    thread: Option<JoinHandle<()>>,
    /// Closed by the thread's end.
    ended: Receiver<()>,
}

impl LogWriter {
    const LAST_WORDS: Duration = Duration::from_secs(5);

    /// Opens the log and starts its thread. `most` is how many lines may wait for the disk.
    pub fn start(config: &DecisionLog, most: usize, results: &Family) -> Result<Self, LogError> {
        let file = match &config.target {
            LogTarget::StandardOutput => Out::standard(),
            LogTarget::File(path) => Out::open(path, config.rotate).map_err(|source| LogError { path: path.clone(), source })?,
        };
        let shared = Shared {
            inbox: Inbox::default(),
            waiting: AtomicUsize::new(0),
            most,
            failing: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            required: config.required,
            spare: Mutex::default(),
        };
        let queue = LogQueue(Arc::new(shared));
        let written = results.cell(Writer::LOG, &["written"]);
        let failed = results.cell(Writer::LOG, &["failed"]);
        let (ends, ended) = mpsc::channel();
        let desk = Desk { out: file, queue: queue.clone(), written, failed, held: None };
        let thread = std::thread::Builder::new()
            .name("vestibule-log".into())
            .spawn(move || {
                let _ends: Sender<()> = ends;
                desk.work();
            })
            .map_err(|source| LogError { path: PathBuf::from("the writer's thread"), source })?;
        Ok(Self { queue, thread: Some(thread), ended })
    }

    pub fn queue(&self) -> LogQueue {
        self.queue.clone()
    }

    /// Lines that a blocked disk or reader takes too long to take are lost: it must not keep the program from ending.
    pub fn stop(mut self) {
        self.queue.0.inbox.send(Job::Stop);
        if self.ended.recv_timeout(Self::LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
            let lines = self.queue.0.waiting.load(Relaxed);
            tracing::error!(lines, "the decision log is blocked; its last lines are lost");
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One that nobody stopped ends all the same, with what it has: that of a configuration that was not taken after all, for instance.
impl Drop for LogWriter {
    fn drop(&mut self) {
        self.queue.0.inbox.send(Job::Stop);
    }
}

struct Desk {
    out: Out,
    queue: LogQueue,
    written: Cell,
    failed: Cell,
    /// The newest lines that could not be written. Trying them again finds out when the log can be written, also while a required log lets no
    /// request through.
    held: Option<Lines>,
}

/// Lines that come after it, a panic's for instance, are dropped and counted as that.
impl Drop for Desk {
    fn drop(&mut self) {
        self.queue.0.inbox.close();
    }
}

impl Desk {
    const RETRY: Duration = Duration::from_secs(1);

    fn work(mut self) {
        loop {
            match self.queue.0.inbox.receive(self.held.as_ref().map(|_| Self::RETRY)) {
                Some(Job::Write(lines)) => self.write(lines),
                Some(Job::Reopen) => {
                    if let Err(error) = self.out.reopen() {
                        self.trouble(&error);
                    }
                }
                Some(Job::Stop) => break,
                None => drop(self.retry()),
            }
        }
        // A worker that had not yet heard of the next log may have written to this one.
        for job in self.queue.0.inbox.close() {
            if let Job::Write(lines) = job {
                self.write(lines);
            }
        }
        if !self.retry() {
            self.lose();
        }
    }

    fn write(&mut self, lines: Lines) {
        let count = lines.count;
        if self.retry() {
            self.put(lines);
        } else {
            self.lose();
            self.held = Some(lines);
        }
        self.queue.done(count);
    }

    /// Whether nothing is left that could not be written.
    fn retry(&mut self) -> bool {
        if let Some(lines) = self.held.take() {
            self.put(lines);
        }
        self.held.is_none()
    }

    fn lose(&mut self) {
        if let Some(lines) = self.held.take() {
            self.failed.add(lines.count as u64);
        }
    }

    fn put(&mut self, lines: Lines) {
        match self.out.write(&lines.bytes) {
            Ok(()) => {
                self.written.add(lines.count as u64);
                self.queue.give_back(lines.bytes);
                if self.queue.0.failing.swap(false, Relaxed) {
                    tracing::warn!("the decision log can be written again");
                }
            }
            Err(error) => {
                self.trouble(&error);
                self.held = Some(lines);
            }
        }
    }

    fn trouble(&self, error: &io::Error) {
        if !self.queue.0.failing.swap(true, Relaxed) {
            tracing::warn!(%error, "the decision log cannot be written; lines are lost until it can");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::record::names;

    fn log(path: &Path, rotate: u64, required: bool, most: usize) -> LogWriter {
        let config = DecisionLog { target: LogTarget::File(path.to_owned()), rotate, required };
        LogWriter::start(&config, most, &Family::new(&names::DECISION_LOG).unwrap()).unwrap()
    }

    #[test]
    fn a_few_written_buffers_are_kept_for_more_lines_and_none_that_is_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let writer = log(&path, u64::MAX, false, 1000);
        let queue = writer.queue();
        for room in [100, 200, 300, 400, 500, 600, super::super::Desk::ROOM + 1] {
            let mut bytes = Vec::with_capacity(room);
            bytes.extend_from_slice(b"line\n");
            assert_eq!(queue.push(Lines { bytes, count: 1 }), 0);
        }
        writer.stop();
        let spare: Vec<_> = (0..6).map(|_| queue.spare()).collect();
        assert!(spare.iter().all(Vec::is_empty));
        assert_eq!(spare.iter().map(Vec::capacity).collect::<Vec<_>>(), [400, 300, 200, 100, 0, 0]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line\n".repeat(7));
    }

    fn line(text: &str) -> Lines {
        Lines { bytes: format!("{text}\n").into_bytes(), count: 1 }
    }

    #[test]
    fn a_line_cut_by_a_kill_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/log.jsonl");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(&path, "{\"whole\":1}\n{\"cu").unwrap();
        let writer = log(&path, 1 << 30, false, 10);
        assert_eq!(writer.queue().push(line("{}")), 0);
        writer.stop();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"whole\":1}\n{\"cu\n{}\n");
    }

    #[test]
    fn rotates_before_the_size_is_passed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let writer = log(&path, 10, false, 10);
        for text in ["1234", "5678", "9abc"] {
            writer.queue().push(line(text));
        }
        writer.stop();
        assert_eq!(std::fs::read_to_string(dir.path().join("log.1")).unwrap(), "1234\n5678\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "9abc\n");
    }

    #[test]
    fn a_full_queue_drops_and_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let writer = log(&dir.path().join("log"), 1 << 30, false, 1);
        let two = Lines { bytes: b"a\nb\n".to_vec(), count: 2 };
        assert_eq!(writer.queue().push(two), 2);
        writer.stop();
    }

    #[test]
    fn what_comes_after_the_end_is_dropped_and_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let writer = log(&dir.path().join("log"), 1 << 30, false, 10);
        let queue = writer.queue();
        writer.stop();
        assert_eq!(queue.push(line("late")), 1);
    }

    #[test]
    fn a_required_log_refuses_before_it_drops() {
        let queue = |required| {
            let shared = Shared {
                inbox: Inbox::default(),
                waiting: AtomicUsize::new(0),
                most: 4,
                failing: AtomicBool::new(false),
                crowded: AtomicBool::new(false),
                required,
                spare: Mutex::default(),
            };
            LogQueue(Arc::new(shared))
        };
        let three = || Lines { bytes: b"a\nb\nc\n".to_vec(), count: 3 };
        let required = queue(true);
        assert_eq!((required.push(three()), required.refuses()), (0, false));
        assert_eq!((required.push(three()), required.refuses()), (0, true), "let in before it was full");
        assert_eq!((required.push(three()), required.refuses()), (3, true), "what comes later is bounded");
        let other = queue(false);
        assert_eq!((other.push(three()), other.push(three()), other.refuses()), (0, 3, false));
        assert!(!other.up(), "lines are dropped, though one more would have room");
        other.done(1);
        assert_eq!((other.up(), other.refuses()), (true, false), "half of the room is free again");
    }

    #[test]
    fn one_that_nobody_stops_leaves_no_thread_behind() {
        let dir = tempfile::tempdir().unwrap();
        let writer = log(&dir.path().join("log"), 1 << 30, false, 10);
        let queue = writer.queue();
        drop(writer);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while Arc::strong_count(&queue.0) > 1 {
            assert!(std::time::Instant::now() < end, "its thread is there still");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_full_disk_is_seen_and_recovered_from() {
        let path = Path::new("/dev/full");
        let config = DecisionLog { target: LogTarget::File(path.to_owned()), rotate: 1 << 30, required: true };
        let family = Family::new(&names::DECISION_LOG).unwrap();
        let writer = LogWriter::start(&config, 10, &family).unwrap();
        let queue = writer.queue();
        queue.push(line("x"));
        writer.stop();
        assert!(queue.failing() && queue.refuses());
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let writer = log(&path, 1 << 30, true, 10);
        let queue = writer.queue();
        queue.push(line("lost"));
        queue.push(line("held"));
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !queue.failing() || queue.0.waiting.load(Relaxed) > 0 {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
        std::fs::remove_file(&path).unwrap();
        while queue.failing() {
            assert!(std::time::Instant::now() < end, "nothing but the writer itself looks again");
            std::thread::yield_now();
        }
        writer.stop();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "held\n");
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error_that_names_it() {
        let config = DecisionLog { target: LogTarget::File("/proc/nowhere/log".into()), rotate: 1, required: false };
        let error = LogWriter::start(&config, 1, &Family::new(&names::DECISION_LOG).unwrap()).unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere/log"), "{error}");
    }
}
