//! A request of the decision log, found by its id.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use memchr::memmem;

use crate::cli::failure::Failure;
use crate::config::{Configuration, LogTarget};
use crate::policy::{AppId, Policy};
use crate::record::{Again, Lack, Past};

/// Bytes that are looked at in one piece; no line is as long.
const PIECE: u64 = 4 << 20;

/// The line of a request: the newest log is searched from its end, then the one that was rotated away.
pub fn find(id: &str, log: Option<&Path>, configuration: &Configuration) -> Result<Vec<u8>, Failure> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Failure(format!("`{}` is no request id: it has 32 hex digits, as on the page and in x-request-id", id.escape_debug())));
    }
    let logs = match (log, configuration.decision_log.as_ref().map(|log| &log.target)) {
        (Some(log), _) => vec![log.to_owned()],
        (None, Some(LogTarget::File(path))) => {
            let mut rotated = path.clone().into_os_string();
            rotated.push(".1");
            vec![path.clone(), PathBuf::from(rotated)]
        }
        (None, Some(LogTarget::StandardOutput)) => {
            return Err(Failure("the decision log goes to standard output: say where it was kept with --log FILE".to_owned()));
        }
        (None, None) => return Err(Failure("the configuration has no decision_log: say where one is with --log FILE".to_owned())),
    };
    for path in &logs {
        let failed = |error: std::io::Error| Failure(format!("{}: {error}", path.display()));
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && log.is_none() => {}
            Err(error) => return Err(failed(error)),
            Ok(file) => {
                if let Some(line) = search(file, id).map_err(failed)? {
                    return Ok(line);
                }
            }
        }
    }
    let places = logs.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ");
    Err(Failure(format!("no request {id} in {places}")))
}

fn search(mut file: impl Read + Seek, id: &str) -> std::io::Result<Option<Vec<u8>>> {
    // Quotes in values are escaped, so only the field itself reads like this.
    let needle = format!("\"request_id\":\"{id}\"");
    let finder = memmem::FinderRev::new(needle.as_bytes());
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut bytes = Vec::new();
    let mut tail = 0;
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(start))?;
        bytes.clear();
        // With the beginning of what was looked at before, so that nothing stands on the seam.
        (&mut file).take(end - start + tail).read_to_end(&mut bytes)?;
        if let Some(at) = finder.rfind(&bytes) {
            return line_at(&mut file, start + at as u64).map(Some);
        }
        tail = needle.len() as u64;
        end = start;
    }
    Ok(None)
}

/// The whole line around a place.
fn line_at(file: &mut (impl Read + Seek), at: u64) -> std::io::Result<Vec<u8>> {
    let start = at.saturating_sub(PIECE);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(2 * PIECE).read_to_end(&mut bytes)?;
    let at = usize::try_from(at - start).unwrap_or(usize::MAX).min(bytes.len());
    let (before, after) = bytes.split_at(at);
    let begin = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let end = memchr::memchr(b'\n', after).map_or(bytes.len(), |end| at + end);
    Ok(bytes.get(begin..end).unwrap_or_default().to_vec())
}

/// The app that the request would go to now, and what it was decided from.
pub fn again(past: &Past<'_>, policy: &Policy) -> Result<(AppId, Again), Failure> {
    let mut again = past.again().map_err(|lack| {
        Failure(match lack {
            Lack::Undecided => format!("no policy decided this request: it was answered for {}", past.reason().escape_debug()),
            Lack::Signal(signal) => format!("the line does not say what {signal} was: an older version wrote it"),
            Lack::Malformed(field) => format!("the line is damaged: {field} has a value that it cannot have"),
        })
    })?;
    let Some(app) = policy.app_at(&again.host, &again.path) else {
        let place = format!("{}{}", again.host, again.path);
        return Err(Failure(format!("no app of this configuration has {}; it was for {}", place.escape_debug(), past.app.escape_debug())));
    };
    if let Some(header) = past.lacks_header(policy, app) {
        return Err(Failure(format!("the line does not say what http.header.{header} was: no rule read it when it was written")));
    }
    again.under(policy);
    Ok((app, again))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_line_is_found_wherever_it_stands() {
        let line = |n: usize| format!("{{\"ts\":\"x\",\"request_id\":\"id{n}\",\"path\":\"{}\"}}\n", "p".repeat(997 + n % 7));
        let text: String = (0..9000).map(line).collect();
        assert!(text.len() as u64 > 2 * PIECE);
        let found = |id: &str| search(Cursor::new(text.as_bytes()), id).unwrap().map(|line| String::from_utf8(line).unwrap());
        for n in (0..9000).step_by(97).chain([8999, 4096, 4097]) {
            assert_eq!(found(&format!("id{n}")).as_deref(), Some(line(n).trim_end()), "{n}");
        }
        assert_eq!(found("id9000"), None);
        assert_eq!(found("id"), None);
        assert_eq!(search(Cursor::new(b""), "id1").unwrap(), None);
    }

    #[test]
    fn the_seams_between_pieces_hide_nothing() {
        let piece = usize::try_from(PIECE).unwrap();
        let tail = "\"request_id\":\"abc\"}\n";
        for back in 0..tail.len() + 2 {
            let line = format!("{{{tail}");
            let text = format!("{line}{}", "x".repeat(piece - back));
            assert_eq!(search(Cursor::new(text.as_bytes()), "abc").unwrap().as_deref(), Some(line.trim_end().as_bytes()), "{back}");
        }
    }
}
