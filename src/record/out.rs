//! Writing the decision log: whole lines, also when two processes write to one file for a while.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

/// Where the decision log goes.
pub enum Out {
    /// `whole`: in pieces that get to its reader uncut.
    Standard {
        whole: bool,
    },
    File(OutFile),
}

/// Writes of more bytes to a pipe may be mixed with those of another process, the one that takes this one's place for instance (pipe(7)).
const PIECE: usize = 4096;

/// Whole lines, as many in one piece as fit.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let first = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
        let fits = bytes.get(..PIECE.min(bytes.len())).and_then(|most| memchr::memrchr(b'\n', most)).map_or(0, |end| end + 1);
        let (piece, rest) = bytes.split_at_checked(fits.max(first))?;
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

pub struct OutFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    rotate: u64,
    /// The length to rotate at: `rotate`, or more after it could not be done.
    due: u64,
    /// So far it has blocks, or should have.
    reserved: u64,
    patience: Duration,
}

/// Blocks are reserved for so many bytes to come, as many as there are already within these bounds: found for many lines at once, they cost a write a
/// third less.
const AHEAD: RangeInclusive<u64> = 256 << 10..=16 << 20;

/// How long to wait for the lock. Who writes holds it for a moment; but whoever may read the file can hold it as well, and for as long as they like.
const PATIENCE: Duration = Duration::from_millis(200);

/// Locks the file if that can be done within the patience, of which nothing is left when it cannot, and all when it can. What may come of a file that
/// is written to without is an empty line, or one rotation that takes place twice: better than a log that stands still.
fn lock(file: &File, patience: &mut Duration) {
    let began = Instant::now();
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if began.elapsed() >= *patience {
            *patience = Duration::ZERO;
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    *patience = PATIENCE;
}

impl Out {
    pub fn standard() -> Self {
        let out = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let is_file = out.and_then(|out| out.metadata()).is_ok_and(|of| of.is_file());
        Self::Standard { whole: !is_file }
    }

    pub fn open(path: &Path, rotate: u64) -> io::Result<Self> {
        let (file, length) = opened(path)?;
        Ok(Self::File(OutFile { path: path.to_owned(), file: Some(file), length, rotate, due: rotate, reserved: 0, patience: PATIENCE }))
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(out) => out.write(bytes),
            Self::Standard { whole: false } => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Standard { whole: true } => pieces(bytes).try_for_each(|piece| {
                let mut out = io::stdout().lock();
                out.write_all(piece)?;
                out.flush()
            }),
        }
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        match self {
            Self::File(out) => out.open(),
            Self::Standard { .. } => Ok(()),
        }
    }
}

impl OutFile {
    fn open(&mut self) -> io::Result<()> {
        let (opened, at) = opened(&self.path)?;
        self.file = Some(opened);
        self.length = at;
        self.reserved = 0;
        Ok(())
    }

    /// The file keeps its size, and goes no further than it will before it is rotated. Where it cannot be done, the write itself finds what it needs.
    fn reserve(&mut self, bytes: u64) {
        let end = self.length.saturating_add(bytes);
        if let Some(file) = self.file.as_ref().filter(|_| end > self.reserved) {
            let far = end.saturating_add(end.clamp(*AHEAD.start(), *AHEAD.end())).min(self.due).max(end);
            let done = fallocate(file, FallocateFlags::KEEP_SIZE, self.length, far - self.length);
            self.reserved = done.map_or(u64::MAX, |()| far);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length.saturating_add(bytes.len() as u64) > self.due {
            self.rotate();
        }
        if self.file.is_none() {
            self.open()?;
        }
        self.reserve(bytes.len() as u64);
        let Some(open) = &mut self.file else { return Err(io::Error::other("the log is closed")) };
        // Who opens it meanwhile would take what is there of a line for one that was cut.
        lock(open, &mut self.patience);
        if let Err((error, written)) = write_all(open, bytes) {
            // A line cut by a full disk must not run into the next one. Another process may have appended behind it: those lines are not ours to cut.
            if let (Ok(end), Ok(of)) = (open.stream_position(), open.metadata())
                && written > 0
                && of.is_file()
                && of.len() == end
            {
                let _ = open.set_len(end.saturating_sub(written));
            }
            self.file = None;
            return Err(error);
        }
        // Where the file ends by now, with what another process appended. A pipe has no such place, and is never moved away.
        self.length = open.stream_position().unwrap_or(0);
        let _ = open.unlock();
        Ok(())
    }

    fn rotate(&mut self) {
        // While one process takes another's place both write here: only one may move the file away, or the second would put the new, all but
        // empty one in the place of the first. The lock goes with the file.
        if let Some(file) = self.file.take() {
            lock(&file, &mut self.patience);
            let here = |of: std::fs::Metadata| (of.dev(), of.ino());
            let ours = file.metadata().map(here).ok();
            match std::fs::metadata(&self.path).map(here) {
                Ok(there) if Some(there) != ours => {
                    self.due = self.rotate;
                    return;
                }
                Ok(_) | Err(_) => self.rename(),
            }
            return;
        }
        self.rename();
    }

    /// A file that cannot be renamed is written on: too long a log is better than none. It is tried again each time another eighth has come.
    fn rename(&mut self) {
        match std::fs::rename(&self.path, rotated(&self.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if self.due == self.rotate {
                    let to = rotated(&self.path);
                    tracing::warn!(%error, to = %to.display(), "the decision log cannot be rotated; it grows beyond its size until it can");
                }
                self.due = self.length.saturating_add((self.rotate / 8).max(1));
            }
            // Not there: somebody else has moved it away.
            Ok(()) | Err(_) => {
                self.file = None;
                if self.due != self.rotate {
                    tracing::warn!("the decision log can be rotated again");
                }
                self.due = self.rotate;
            }
        }
    }
}

/// How many bytes were written before the error.
fn write_all(file: &mut File, mut bytes: &[u8]) -> Result<(), (io::Error, u64)> {
    let mut written = 0;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
            Ok(count) => {
                written += count as u64;
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Appends, on a fresh line even where a killed process left its last one cut.
fn opened(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok((file, 0));
    }
    // Not in the middle of another process' write.
    lock(&file, &mut PATIENCE.clone());
    let mut length = file.seek(SeekFrom::End(0))?;
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0u8];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    let _ = file.unlock();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_rotated_is_written_on_and_rotated_when_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("log"), dir.path().join("log.1"));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        std::fs::create_dir(&next).unwrap();
        let mut out = Out::open(&path, 10).unwrap();
        for text in ["12345678\n", "a\n", "b\n", "c\n"] {
            out.write(text.as_bytes()).unwrap();
        }
        assert_eq!(read(&path), "12345678\na\nb\nc\n", "no line is lost");
        std::fs::remove_dir(&next).unwrap();
        out.write(b"d\n").unwrap();
        assert_eq!((read(&next), read(&path)), ("12345678\na\nb\nc\n".to_owned(), "d\n".to_owned()));
        // The size is the configured one again.
        out.write(b"1234567\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        out.write(b"e\n").unwrap();
        assert_eq!(read(&path), "e\n", "another program took the file away");
    }

    #[test]
    fn two_processes_rotate_one_file_without_losing_what_the_other_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let (mut one, mut two) = (Out::open(&path, 20).unwrap(), Out::open(&path, 20).unwrap());
        one.write(b"one: 1\n").unwrap();
        two.write(b"two: 1\n").unwrap();
        one.write(b"one: 2\n").unwrap();
        assert_eq!(read(&path), "one: 1\ntwo: 1\none: 2\n");
        // The first to find it full moves it away; the second, whose file that still is, does not move the new one over it.
        one.write(b"one: 3\n").unwrap();
        two.write(b"two: 2, longer than what is left there\n").unwrap();
        assert_eq!(read(&dir.path().join("log.1")), "one: 1\ntwo: 1\none: 2\n");
        assert_eq!(read(&path), "one: 3\ntwo: 2, longer than what is left there\n");
    }

    #[test]
    fn who_holds_the_lock_for_good_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        File::create(&path).unwrap();
        let holder = File::open(&path).unwrap();
        holder.lock().unwrap();
        let patience = |out: &Out| if let Out::File(file) = out { file.patience } else { panic!("a file") };
        let mut out = Out::open(&path, 20).unwrap();
        out.write(b"one\n").unwrap();
        assert_eq!(patience(&out), Duration::ZERO, "it is not waited for again");
        out.write(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        // It holds the old file; the new one is written as ever.
        out.write(b"three, and more of it\n").unwrap();
        assert_eq!(patience(&out), PATIENCE);
        assert_eq!(std::fs::read_to_string(dir.path().join("log.1")).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_line_of_another_process_is_not_cut_with_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut one, mut two) = (Out::open(&path, 1 << 20).unwrap(), Out::open(&path, 1 << 20).unwrap());
        one.write(b"one\n").unwrap();
        two.write(b"two\n").unwrap();
        one.write(b"one again\n").unwrap();
        let Out::File(file) = &one else { panic!("a file") };
        assert_eq!(file.length, 18, "what the other wrote counts");
    }

    #[test]
    fn who_opens_a_file_that_another_process_writes_to_takes_no_line_for_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let lines = format!("{}\n", "x".repeat(699)).repeat(20);
        let mut one = Out::open(&path, u64::MAX).unwrap();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| (0..2000).for_each(|_| one.write(lines.as_bytes()).unwrap()));
            while !writing.is_finished() {
                Out::open(&path, u64::MAX).unwrap();
            }
        });
        let all = std::fs::read_to_string(&path).unwrap();
        assert_eq!(all.lines().filter(|line| line.len() != 699).count(), 0);
        assert_eq!(all.len(), lines.len() * 2000, "not a line more");
    }

    #[test]
    fn blocks_are_there_before_the_lines_and_no_further_than_the_file_will_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let blocks = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let mut out = Out::open(&path, 64 << 10).unwrap();
        out.write(b"one\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n", "what is reserved is not read");
        let able = blocks() >= 64 << 10;
        assert!(blocks() <= 128 << 10);
        drop(out);
        let mut out = Out::open(&path, 16 << 20).unwrap();
        out.write(b"two\n").unwrap();
        assert!(!able || blocks() >= *AHEAD.start(), "where the file system can");
        assert!(blocks() < 2 * AHEAD.start());
        out.write(&vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (3 << 20) + 8);
        assert!(blocks() < 7 << 20, "no more than there is");
    }

    #[test]
    fn pieces_are_whole_lines() {
        let line = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
        let all = [line(1000), line(3096), line(4096), line(9000), line(10), line(10)].concat();
        let lengths: Vec<usize> = pieces(&all).map(<[u8]>::len).collect();
        assert_eq!(lengths, [4096, 4096, 9000, 20]);
        assert_eq!(pieces(b"cut").collect::<Vec<_>>(), [b"cut"]);
        assert_eq!(pieces(b"").count(), 0);
    }
}
