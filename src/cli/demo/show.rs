//! The demo's tables, for a terminal of 100 columns.

use std::fmt::Write;
use std::net::SocketAddr;

use super::cast::{APPS, DEVICES, Visit};
use super::home::{Home, program};
use super::ledger::{Entry, Row};

/// Paints effects and headings, or leaves them plain.
#[derive(Clone, Copy)]
pub struct Paint {
    pub colour: bool,
}

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Padded first, so that the columns hold.
    fn effect(self, word: &str, width: usize) -> String {
        let code = match word {
            "forward" => "32",
            "restrict" => "33",
            _ => "31",
        };
        self.wrap(code, &format!("{word:<width$}"))
    }
}

/// Columns two spaces apart, each as wide as its widest cell; numbers stand to the right, effects in their colour.
fn table(paint: Paint, head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let line = |cells: &mut dyn Iterator<Item = (usize, &str)>, painted: bool| {
        let mut text = String::new();
        for (column, cell) in cells {
            let (name, width) = (head.get(column).copied().unwrap_or_default(), width(column));
            text.push_str("  ");
            text.push_str(&match name {
                "decisions" | "visits" => format!("{cell:>width$}"),
                "effect" if painted => paint.effect(cell, width),
                _ => format!("{cell:<width$}"),
            });
        }
        text.trim_end().to_owned()
    };
    let mut text = format!("{}\n", paint.dim(&line(&mut head.iter().copied().enumerate(), false)));
    for row in rows {
        let _ = writeln!(text, "{}", line(&mut row.iter().map(String::as_str).enumerate(), true));
    }
    text
}

/// Devices and apps.
pub fn stage(paint: Paint, edge: SocketAddr) -> String {
    let devices: Vec<_> = DEVICES
        .iter()
        .map(|device| {
            let system = if device.record.is_some() { std::env::consts::OS } else { "unknown" };
            vec![device.id.to_owned(), device.title.to_owned(), device.story.to_owned(), system.to_owned()]
        })
        .collect();
    let apps: Vec<_> = APPS
        .iter()
        .map(|app| {
            let address = format!("https://{}:{}/", app.host(), edge.port());
            vec![app.name.to_owned(), app.title.to_owned(), address, app.owner.to_owned()]
        })
        .collect();
    [
        format!("{}\n", paint.bold("The vestibule demo: a proxy, three apps and four devices, all on this machine")),
        table(paint, &["device", "is", "condition", "runs"], &devices),
        table(paint, &["app", "is", "address", "owner"], &apps),
    ]
    .join("\n")
}

/// A curl command for each visit, and what else to try.
pub fn script(paint: Paint, home: &Home, visits: &[Visit], at: (SocketAddr, SocketAddr)) -> String {
    let (edge, admin) = at;
    let mut text = format!("\n{}\n", paint.bold("Visit. The file after -K names a device's certificate and key, and the CA to trust"));
    for device in &DEVICES {
        let _ = writeln!(text, "\n  {}", paint.dim(&format!("{}: {}", device.title, device.story)));
        for visit in visits.iter().filter(|v| v.device.id == device.id) {
            let data = if visit.method == http::Method::POST { " -d hello" } else { "" };
            let (effect, status, curl) = (paint.effect(visit.effect.as_str(), 8), visit.status, home.curl(device));
            let _ = writeln!(text, "  {effect}  {status}  curl -K {}{data} https://{}:{}/", curl.display(), visit.app.host(), edge.port());
        }
    }
    let (policy, log) = (home.configuration(), home.decision_log());
    let (policy, log) = (policy.display(), log.display());
    let _ = write!(
        text,
        "
{}

  see the block page     open https://wiki.localhost:{}/ in a browser; accept the lab's CA
  read the metrics       curl -s http://{admin}/metrics | grep vestibule_decisions
  read the decisions     tail -f {log}
  change the policy      edit {policy}: it is taken over when saved
  name the store         alias devices='{} devices -c {policy}'
  encrypt Ben's disk     devices set nodisk posture.disk_encrypted=ok source=mdm
  report a phone lost    devices revoke phone --lost

{}
",
        paint.bold("Look, and turn the knobs"),
        edge.port(),
        program(),
        paint.dim("Ctrl-C ends it all."),
    );
    text
}

/// One line for each visit that was made.
pub fn visited(paint: Paint, made: &[(&Visit, Entry)]) -> String {
    let rows: Vec<_> = made
        .iter()
        .map(|(visit, Entry { decision: d, status, .. })| {
            let request = format!("{:<4} {}", visit.method.as_str(), visit.app.name);
            let device = visit.device.id.to_owned();
            vec![device, request, d.class.clone(), d.tier.clone(), d.effect.clone(), d.reason.clone(), status.to_string()]
        })
        .collect();
    let table = table(paint, &["device", "request", "class", "tier", "effect", "reason", "status"], &rows);
    format!("\n{}\n\n{table}", paint.bold("Visits through TLS"))
}

/// The decision metrics beside the visits.
pub fn counted(paint: Paint, admin: SocketAddr, rows: &[Row]) -> String {
    let title = format!("vestibule_decisions_total, scraped from http://{admin}/metrics");
    let rows: Vec<_> = rows
        .iter()
        .map(|Row { decision: d, counted, visited }| {
            let [app, class, tier] = [&d.app, &d.class, &d.tier].map(String::clone);
            vec![app, class, tier, d.effect.clone(), d.reason.clone(), counted.to_string(), visited.to_string()]
        })
        .collect();
    let table = table(paint, &["app", "class", "tier", "effect", "reason", "decisions", "visits"], &rows);
    format!("\n{}\n\n{table}", paint.bold(&title))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::cast;
    use crate::cli::demo::ledger::Decision;

    const PLAIN: Paint = Paint { colour: false };

    #[test]
    fn tables_fit_a_terminal() {
        let at: SocketAddr = "127.0.0.1:65535".parse().unwrap();
        let visits = cast::visits();
        let decision = Decision {
            app: "payroll".into(),
            class: "personal_offnet".into(),
            tier: "trusted".into(),
            effect: "restrict".into(),
            reason: "posture.mdm_compliant.unknown".into(),
        };
        let entry = Entry { request_id: "r".into(), status: 200, decision: decision.clone() };
        let made: Vec<_> = visits.iter().map(|v| (v, entry.clone())).collect();
        let rows = [Row { decision, counted: 15.0, visited: 15 }];
        let text = [stage(PLAIN, at), visited(PLAIN, &made), counted(PLAIN, at, &rows)].concat();
        let widest = text.lines().max_by_key(|line| line.len()).unwrap();
        assert!(widest.len() <= 100, "{}: {widest}", widest.len());
        assert!(text.contains("posture.mdm_compliant.unknown  200\n"), "{text}");
        assert_eq!(text.matches("posture.mdm_compliant.unknown         15      15\n").count(), 1, "{text}");
    }

    #[test]
    fn every_visit_has_its_command() {
        let parent = tempfile::tempdir().unwrap();
        let home = Home::open(Some(&parent.path().join("d"))).unwrap();
        let at: SocketAddr = "127.0.0.1:8443".parse().unwrap();
        let visits = cast::visits();
        let text = script(PLAIN, &home, &visits, (at, at));
        assert_eq!(text.matches("curl -K").count(), visits.len());
        assert!(text.contains("-d hello https://wiki.localhost:8443/"), "{text}");
    }
}
