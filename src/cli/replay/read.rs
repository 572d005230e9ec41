//! Logs read in pieces of whole lines, and taken by two threads.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::tally::{Place, Tally};
use crate::cli::failure::Failure;

/// Bytes; no line of ours is as long.
const PIECE: usize = 1 << 20;
const THREADS: usize = 2;

/// Whole lines of one file.
struct Piece {
    first: Place,
    bytes: Vec<u8>,
}

/// What all lines of these files come to. Holds a few pieces at a time, however long the files are.
pub fn logs<'p>(files: &[PathBuf], tally: &(impl Fn() -> Tally<'p> + Sync)) -> Result<Tally<'p>, Failure> {
    let (pieces, inbox) = sync_channel(2 * THREADS);
    let inbox = Mutex::new(inbox);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work(&inbox, tally()))).collect();
        let mut whole = tally();
        let read = read_all(files, &pieces, &mut whole);
        drop(pieces);
        for worker in workers {
            whole.join(worker.join().map_err(|_| Failure("a thread that decides ended before its time".to_owned()))?);
        }
        read.map(|()| whole)
    })
}

fn work<'p>(inbox: &Mutex<Receiver<Piece>>, mut tally: Tally<'p>) -> Tally<'p> {
    loop {
        let piece = match inbox.lock() {
            Ok(inbox) => inbox.recv(),
            Err(_) => return tally,
        };
        let Ok(Piece { first, bytes }) = piece else { return tally };
        let mut place = first;
        for line in bytes.split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                tally.take(line, place);
            }
            place.line += 1;
        }
    }
}

fn read_all(files: &[PathBuf], pieces: &SyncSender<Piece>, tally: &mut Tally<'_>) -> Result<(), Failure> {
    for (file, path) in files.iter().enumerate() {
        let failed = |error: io::Error| Failure(format!("{}: {error}", path.display()));
        let input: Box<dyn Read> =
            if path == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(path).map_err(failed)?) };
        read(input, file, pieces, tally).map_err(failed)?;
    }
    Ok(())
}

fn read(mut input: impl Read, file: usize, pieces: &SyncSender<Piece>, tally: &mut Tally<'_>) -> io::Result<()> {
    let mut place = Place { file, line: 1 };
    let mut rest: Vec<u8> = Vec::new();
    // Within a line that is longer than any of ours.
    let mut beyond = false;
    loop {
        let mut bytes = std::mem::take(&mut rest);
        let had = bytes.len();
        bytes.resize(had + PIECE, 0);
        let got = loop {
            match input.read(bytes.get_mut(had..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        bytes.truncate(had + got);
        let end = if got == 0 { bytes.len() } else { memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1) };
        rest.extend_from_slice(bytes.get(end..).unwrap_or_default());
        bytes.truncate(end);
        if beyond && !bytes.is_empty() {
            // What stands before the first line break is the end of the line that was given up.
            let end = memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |end| end + 1);
            bytes.drain(..end);
            beyond = false;
            place.line += 1;
        }
        let lines = memchr::memchr_iter(b'\n', &bytes).count();
        if !bytes.is_empty() && pieces.send(Piece { first: place, bytes }).is_err() {
            return Ok(());
        }
        place.line += lines;
        if got == 0 {
            return Ok(());
        }
        if rest.len() >= PIECE {
            rest.clear();
            if !beyond {
                tally.unreadable(place, "a line of more than 1 MiB");
            }
            beyond = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            let (now, later) = self.0.split_at(count);
            into[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    #[test]
    fn lines_come_whole_with_their_numbers_and_one_that_never_ends_is_passed_over() {
        let long = "x".repeat(3 * PIECE);
        let text = format!("one\ntwo\n\n{long}\nfive\nsix");
        for step in [1000, 7777, PIECE, usize::MAX] {
            let (send, inbox) = sync_channel(1 << 14);
            let policy = crate::policy::Policy::compile(crate::policy::testing::draft(vec![]));
            let mut tally = Tally::new(&policy, None);
            read(Slow(text.as_bytes(), step), 0, &send, &mut tally).unwrap();
            drop(send);
            let mut lines = Vec::new();
            for piece in inbox {
                for (at, line) in piece.bytes.split(|byte| *byte == b'\n').enumerate() {
                    if !line.is_empty() {
                        lines.push((piece.first.line + at, String::from_utf8(line.to_vec()).unwrap()));
                    }
                }
            }
            let expected = [(1, "one"), (2, "two"), (5, "five"), (6, "six")].map(|(at, line)| (at, line.to_owned()));
            assert_eq!(lines, expected, "{step} bytes at a time");
            assert_eq!(tally.malformed, 1);
            assert_eq!(tally.first_malformed.map(|(place, _)| place.line), Some(4));
        }
    }
}
