//! `vestibule fingerprint`: what clients show on the wire, from a capture or at a port.

pub mod capture;
pub mod flows;
pub mod line;
mod listen;
pub mod segment;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use self::capture::{Broken, Capture};
use self::flows::{Client, Flows, Missed};
use self::line::{Line, Seen, Table};
use self::segment::Passed;
use super::failure::Failure;
use crate::config::signatures;
use crate::fingerprint::Known;

/// Print what clients show of themselves on the wire, one JSON line a client
///
/// FILE is a pcap or pcapng as tcpdump, dumpcap and Wireshark write them, whatever the ports. A client is whoever sends a TLS ClientHello, or opens
/// HTTP/2 without TLS; only the first of a connection counts. A file that ends inside a packet has its lines printed, and fails.
///
/// `--listen` takes connections itself, with TLS (by a certificate of its own making: `curl -k`) and without, and answers each request with the
/// client's own line.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub struct Args {
    /// A capture; `-` is standard input: `tcpdump -U -w - | vestibule fingerprint -`
    #[arg(value_name = "FILE", group = "source")]
    file: Option<PathBuf>,
    /// Listen at `ADDR:PORT` instead, until a signal ends it; port 0 is any free one. A client is printed as soon as its hello is read
    #[arg(long, value_name = "ADDR", group = "source")]
    listen: Option<String>,
    /// With `--listen`: print a client at its first request instead, with `h2`, `header_order` and `claims`, or when it leaves without one
    #[arg(long, conflicts_with = "file")]
    wait_request: bool,
    /// Signatures of your own, beside the built-in ones: a file as `fingerprints.known` names it
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let table = Table(table(args.known.as_deref())?);
    match (args.file, args.listen) {
        (_, Some(addr)) => listen::listen(&addr, args.wait_request, table, print),
        (file, None) => from_file(&file.unwrap_or_default(), &table),
    }
}

/// The built-in signatures, and those of the operator's file before them.
fn table(own: Option<&Path>) -> Result<Known, Failure> {
    let rows = match own {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
            signatures::read(path, &bytes).map_err(|report| Failure(report.to_string()))?
        }
        None => Vec::new(),
    };
    Ok(signatures::known(rows))
}

fn print(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

fn from_file(file: &Path, table: &Table) -> Result<(), Failure> {
    let name = file.display().to_string();
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).map_err(|error| Failure(format!("{name}: {error}")))?))
    };
    let (done, over) = read(input, table, print);
    for note in over.notes() {
        let _ = writeln!(io::stderr(), "{name}: {note}");
    }
    match done {
        Ok(()) => Ok(()),
        // Whoever reads the lines has seen enough.
        Err(Stopped::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(stopped) => Err(Failure(format!("{name}: {}", Failure::from(stopped).0))),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("cannot write: {0}")]
    Write(io::Error),
}

/// Reads a capture to its end, or as far as it can be read. What was passed over is told in either case.
pub fn read(input: impl Read, table: &Table, mut print: impl FnMut(&Line) -> io::Result<()>) -> (Result<(), Stopped>, PassedOver) {
    let mut over = PassedOver::default();
    let mut flows = Flows::default();
    let read = (|| {
        let mut capture = Capture::open(input)?;
        while let Some(packet) = capture.packet()? {
            match segment::read(packet.link, packet.bytes) {
                Ok(segment) => {
                    over.cut += u64::from(segment.cut);
                    if let Some(Client { from, to, syn, hello, opening }) = flows.take(&segment) {
                        let addresses = Some((from, to));
                        let seen = Seen { time: packet.time, addresses, syn, hello, opening, headers: None };
                        print(&table.line(&seen)).map_err(Stopped::Write)?;
                    }
                }
                Err(passed) => over.count(passed),
            }
        }
        Ok(())
    })();
    over.missed = flows.missed;
    (read, over)
}

/// What a capture has that is no client's hello and might have been.
#[derive(Debug, Default)]
pub struct PassedOver {
    links: BTreeMap<u16, u64>,
    fragments: u64,
    malformed: u64,
    cut: u64,
    missed: Missed,
}

impl PassedOver {
    fn count(&mut self, passed: Passed) {
        match passed {
            Passed::Link(link) => *self.links.entry(link).or_default() += 1,
            Passed::Fragment => self.fragments += 1,
            Passed::Malformed => self.malformed += 1,
            Passed::Other => {}
        }
    }

    fn notes(&self) -> Vec<String> {
        let Missed { malformed, too_large, sslv2, crowded } = self.missed;
        let links = self.links.iter().map(|(link, count)| (*count, format!("packets of link type {link}, which is not known here")));
        let rest = [
            (self.fragments, "IP fragments, which are not put together"),
            (self.malformed, "packets whose headers are broken or cut"),
            (self.cut, "TCP segments that the capture cut short (its snap length)"),
            (malformed, "ClientHellos that are malformed"),
            (too_large, "ClientHellos over 16 KiB"),
            (sslv2, "ClientHellos of SSL 2, which have no JA4"),
            (crowded, "connections forgotten before their hello was whole, too many at once"),
        ];
        let all = links.chain(rest.map(|(count, what)| (count, what.to_owned())));
        all.filter(|(count, _)| *count > 0).map(|(count, what)| format!("passed over: {count} {what}")).collect()
    }
}
