//! `vestibule demo`: the whole main job on this machine, in one process.

mod apps;
mod cast;
mod home;
mod ledger;
mod proxy;
mod records;
mod show;
mod visitor;

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::apps::Apps;
use self::cast::{DEVICES, Visit};
use self::home::{Furnished, Home};
use self::ledger::{Entry, Row};
use self::proxy::Proxy;
use self::show::Paint;
use self::visitor::{Answer, Visitor};
use super::failure::Failure;
use super::scrape;

/// Log and metrics follow an answer by a moment; past this they are held to be wrong.
const SETTLE: Duration = Duration::from_secs(10);

/// Try it all on this machine: apps, CA, devices, policy, proxy
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A new or empty folder that is kept; by default a temporary one that goes when the demo ends
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port of the proxy, on loopback [default: 8443, with --once any free one]
    #[arg(long, value_name = "N")]
    edge_port: Option<u16>,
    /// Port of metrics and health, on loopback [default: 9470, with --once any free one]
    #[arg(long, value_name = "N")]
    admin_port: Option<u16>,
    /// Make the visits, show what came of them, check the metrics, and end
    #[arg(long)]
    once: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let port = |chosen: Option<u16>, usual: u16| chosen.unwrap_or(if args.once { 0 } else { usual });
    let loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let home = Home::open(args.dir.as_deref())?;
    let apps = Apps::start()?;
    let furnished = home.furnish(loopback(port(args.edge_port, 8443)), loopback(port(args.admin_port, 9470)), apps.addresses())?;
    records::import(&home)?;
    // The proxy brings its own threads and runtimes; this one is for the demo's visits and for waiting.
    let proxy = Proxy::start(&home.configuration())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let at = (proxy.edge(), proxy.admin());
        if args.once { once(&home, &furnished, at).await } else { stay(&home, at).await }
    });
    proxy.stop();
    result
}

async fn stay(home: &Home, at: (SocketAddr, SocketAddr)) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let paint = paint();
    print(&[show::stage(paint, at.0), show::script(paint, home, &cast::visits(), at)])?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn once(home: &Home, furnished: &Furnished, at: (SocketAddr, SocketAddr)) -> Result<(), Failure> {
    let (edge, admin) = at;
    let paint = paint();
    print(&[show::stage(paint, edge)])?;
    let visits = cast::visits();
    let answers = make(&visits, furnished, edge).await?;
    let made = look_up(home, &visits, &answers).await?;
    print(&[show::visited(paint, &made)])?;
    let rows = count(admin, &made).await?;
    print(&[show::counted(paint, admin, &rows)])?;

    let wrong = disagreements(&made, &answers, &rows);
    if wrong.is_empty() {
        let devices = DEVICES.len();
        print(&[format!("\n{} visits by {devices} devices, each counted once: log, metrics and answers agree\n", made.len())])
    } else {
        Err(Failure(format!("the demo did not go as it should:\n  {}", wrong.join("\n  "))))
    }
}

async fn make(visits: &[Visit], furnished: &Furnished, edge: SocketAddr) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::with_capacity(visits.len());
    for (device, certificate) in DEVICES.iter().zip(&furnished.certificates) {
        let visitor = Visitor::new(&furnished.edge_ca, certificate.as_ref())?;
        for visit in visits.iter().filter(|visit| visit.device.id == device.id) {
            answers.push(visitor.visit(edge, visit).await?);
        }
    }
    Ok(answers)
}

/// The log entry of each visit. App and refusal both show the request's id to the visitor, and the log has it.
async fn look_up<'v>(home: &Home, visits: &'v [Visit], answers: &[Answer]) -> Result<Vec<(&'v Visit, Entry)>, Failure> {
    let path = home.decision_log();
    let read = async {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let log = ledger::read(&path);
            let of = |answer: &Answer| log.iter().find(|entry| answer.body.contains(&entry.request_id)).cloned();
            if let Some(entries) = answers.iter().map(of).collect::<Option<Vec<_>>>() {
                return visits.iter().zip(entries).collect();
            }
        }
    };
    let missing = |_| Failure(format!("{} does not hold every visit, {} s after the last one", path.display(), SETTLE.as_secs()));
    timeout(SETTLE, read).await.map_err(missing)
}

/// The decision metrics, once they hold as many decisions as there were visits, or after a while whatever they hold.
async fn count(admin: SocketAddr, made: &[(&Visit, Entry)]) -> Result<Vec<Row>, Failure> {
    let entries: Vec<Entry> = made.iter().map(|(_, entry)| entry.clone()).collect();
    let mut rows = Vec::new();
    let scrape = async {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let text = visitor::scrape(admin).await?;
            let samples =
                scrape::read(&text).map_err(|line| Failure(format!("http://{admin}/metrics holds a line that is none: {line}")))?;
            rows = ledger::compare(&samples, &entries);
            if ledger::total(&samples) >= entries.len() as f64 {
                return Ok(());
            }
        }
    };
    match timeout(SETTLE, scrape).await {
        Ok(Err(failure)) => Err(failure),
        Ok(Ok(())) | Err(_) => Ok(rows),
    }
}

fn disagreements(made: &[(&Visit, Entry)], answers: &[Answer], rows: &[Row]) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((visit, entry), answer) in made.iter().zip(answers) {
        let what = format!("{} {} {}", visit.device.id, visit.method, visit.app.name);
        let (effect, decided) = (visit.effect.as_str(), &entry.decision.effect);
        if decided != effect || entry.decision.app != visit.app.name {
            wrong.push(format!("{what}: {effect} was expected, the log says {decided} for {}", entry.decision.app));
        }
        if answer.status != visit.status || entry.status != visit.status {
            wrong.push(format!("{what}: {} was expected, the client got {}, the log says {}", visit.status, answer.status, entry.status));
        }
    }
    for row in rows.iter().filter(|row| !row.agrees()) {
        wrong.push(format!("{:?}: counted {} times, visited {} times", row.decision, row.counted, row.visited));
    }
    wrong
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn paint() -> Paint {
    Paint { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
}

fn print(parts: &[String]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for part in parts {
        out.write_all(part.as_bytes())?;
    }
    out.flush()?;
    Ok(())
}
