//! Results on standard output.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use jiff::Timestamp;

use super::failure::Failure;

pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// Columns as wide as their widest cell; control characters, which a record edited by hand may hold, are written out.
pub fn table(rows: &[Vec<String>]) -> String {
    let shown = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    let clean = |cell: &String| cell.chars().map(shown).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// A reader that has seen enough (`| head`) is no failure.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            table(&[row(["A", "B", "C"]), row(["é", "two", ""]), row(["x\u{1b}[2J", "", "c"])]),
            "A           B    C\né           two\nx\\u{1b}[2J       c\n"
        );
    }

    #[test]
    fn ages_are_said_in_one_unit() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        let said = |seconds: i64| ago(now - Duration::from_secs(seconds.unsigned_abs()), now);
        assert_eq!(
            [0, 59, 60, 3599, 3600, 172_799, 172_800].map(said).join(", "),
            "0 s ago, 59 s ago, 1 min ago, 59 min ago, 1 h ago, 47 h ago, 2 d ago"
        );
        assert_eq!(ago(now + Duration::from_secs(60), now), "0 s ago");
    }
}
