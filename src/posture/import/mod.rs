//! Device records from files of other systems. A file is taken whole or not at all, and one run names all its mistakes.

mod csv;
mod json;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use jiff::Timestamp;

use super::edit::{Edit, MANUAL, Seen, Voice};
use super::error::{Error, Taken};
use super::store::{Absent, Store, Writing, Written};
use super::values::{self, By, Terms, Wrong};
use crate::model::KeyKind;

/// Bytes of a file. A fleet of a hundred thousand devices is a fifth of it.
pub const SIZE_MAX: u64 = 256 << 20;
/// Rows or objects of a file.
pub const DEVICES_MAX: usize = 1_000_000;
/// Mistakes that are listed; the rest are counted.
const PROBLEMS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    /// A list of objects, one object, or one object a line.
    Json,
}

/// A file without mistakes of its own.
#[derive(Debug)]
pub struct Import {
    file: String,
    edits: Vec<Edit>,
    /// Where each edit stands.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes; CSV names the field instead.
    pub column: Option<usize>,
}

/// Every mistake of a file, in the order in which they stand there.
#[derive(Debug, thiserror::Error)]
pub struct Report {
    file: String,
    problems: Vec<(Place, String)>,
    more: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    File(#[from] Report),
    #[error(transparent)]
    Store(#[from] Error),
}

impl Format {
    /// By the file's name.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Import {
    /// Reads a file's bytes; `file` is its name in messages.
    pub fn read(file: &str, bytes: &[u8], format: Format, terms: &Terms<'_>) -> Result<Self, Report> {
        let mut reading = Reading { terms, edits: Vec::new(), places: Vec::new(), keys: HashMap::new(), problems: Vec::new(), more: 0 };
        let start = Place { line: 1, column: None };
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            reading.problem(start, "this is UTF-16, expected UTF-8; save the file as UTF-8".to_owned());
        } else {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            match format {
                Format::Csv => csv::read(bytes, &mut reading),
                Format::Json => json::read(bytes, &mut reading),
            }
            if reading.edits.is_empty() && reading.problems.is_empty() {
                reading.problem(start, "the file holds no devices".to_owned());
            }
        }
        let Reading { edits, places, problems, more, .. } = reading;
        match problems.is_empty() {
            true => Ok(Self { file: file.to_owned(), edits, places }),
            false => Err(Report { file: file.to_owned(), problems, more }),
        }
    }

    /// Writes all devices of the file, or none: updates those whose id the store has, adds the others.
    pub fn write(&self, store: &mut Store, by: &By, now: Timestamp) -> Result<Written, ImportError> {
        let how = Writing { by, now, voice: Voice::File, absent: Absent::Add };
        store.write(&self.edits, how).map_err(|error| match error {
            Error::KeysTaken { taken } => {
                let mut problems: Vec<_> = taken.iter().map(|taken| (self.place(taken.edit), already(taken))).collect();
                problems.sort_by_key(|(place, _)| place.line);
                let more = problems.len().saturating_sub(PROBLEMS_MAX);
                problems.truncate(PROBLEMS_MAX);
                ImportError::File(Report { file: self.file.clone(), problems, more })
            }
            Error::Edit { edit, wrong, .. } => {
                ImportError::File(Report { file: self.file.clone(), problems: vec![(self.place(edit), wrong.to_string())], more: 0 })
            }
            other => ImportError::Store(other),
        })
    }

    fn place(&self, edit: usize) -> Place {
        self.places.get(edit).copied().unwrap_or(Place { line: 1, column: None })
    }
}

fn already(taken: &Taken) -> String {
    format!("keys: found `{}`, expected a key of no other device; it belongs to `{}`", taken.key, taken.owner)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        self.column.iter().try_for_each(|column| write!(f, ":{column}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, text) in &self.problems {
            writeln!(f, "{}:{place}: {text}", self.file)?;
        }
        let count = self.problems.len() + self.more;
        match self.more {
            0 => {}
            more => writeln!(f, "… and {more} more")?,
        }
        write!(f, "{count} {}; nothing was imported", if count == 1 { "mistake" } else { "mistakes" })
    }
}

/// A file that is being read.
struct Reading<'a> {
    terms: &'a Terms<'a>,
    edits: Vec<Edit>,
    places: Vec<Place>,
    /// Who in this file has a key.
    keys: HashMap<(KeyKind, String), (String, Place)>,
    problems: Vec<(Place, String)>,
    more: usize,
}

impl Reading<'_> {
    fn problem(&mut self, place: Place, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push((place, text));
        } else {
            self.more += 1;
        }
    }

    /// The value, or its mistake in the report.
    fn noted<T>(&mut self, place: Place, result: Result<T, Wrong>) -> Option<T> {
        result.map_err(|wrong| self.problem(place, wrong.to_string())).ok()
    }

    fn edit(&mut self, place: Place, id: Result<Edit, Wrong>) -> Edit {
        self.noted(place, id).unwrap_or_else(Edit::nameless)
    }

    fn add(&mut self, place: Place, edit: Edit) {
        for (kind, value) in edit.keys().filter(|_| !edit.id().is_empty()) {
            let known = self.keys.entry((kind, value.to_owned())).or_insert_with(|| (edit.id().to_owned(), place));
            if known.0 != edit.id() {
                let other = format!("`{}` on line {}", known.0, known.1.line);
                let text = format!("keys: found `{}:{value}`, expected a key of no other device; it also stands at {other}", kind.as_str());
                // Not `self.problem`: `known` borrows from `self.keys`.
                match self.problems.len() < PROBLEMS_MAX {
                    true => self.problems.push((place, text)),
                    false => self.more += 1,
                }
            }
        }
        self.edits.push(edit);
        self.places.push(place);
    }

    /// Where and when facts were seen, from the three texts of a row; an absent one has its default.
    fn seen(&self, source: Option<&str>, observed_at: Option<&str>, expires_at: Option<&str>) -> Result<Seen, Wrong> {
        let Terms { now, .. } = *self.terms;
        let source = values::source("source", source.unwrap_or(MANUAL), self.terms)?;
        let observed_at = observed_at.map_or(Ok(now), |at| values::past("observed_at", at, now))?;
        let ends = expires_at.map(|at| values::time("expires_at", at)).transpose()?;
        if let (Some(ends), Some(text)) = (ends, expires_at)
            && ends <= observed_at
        {
            return Err(Wrong::new("expires_at", text, "a time after observed_at"));
        }
        Ok(Seen { source, observed_at, expires_at: ends })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Device, DeviceState};
    use crate::policy::draft::Source;
    use crate::posture::record::{self, Json};
    use crate::posture::store::{Access, Filter};

    const SPKI: &str = "abababababababababababababababababababababababababababababababab";

    fn now() -> Timestamp {
        "2026-11-22T08:00:00Z".parse().unwrap()
    }

    fn terms() -> Terms<'static> {
        Terms { now: now(), sources: None, folder: Path::new("") }
    }

    fn store() -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Store::open(&folder.path().join("devices.db"), Access::Create, Duration::from_secs(5)).unwrap(), folder)
    }

    fn take(store: &mut Store, text: &str, format: Format) -> Written {
        let import = Import::read("fleet", text.as_bytes(), format, &terms()).unwrap_or_else(|report| panic!("{report}"));
        import.write(store, &By::new("ada").unwrap(), now()).unwrap()
    }

    fn mistakes(text: &str, format: Format) -> Vec<String> {
        let report = Import::read("fleet", text.as_bytes(), format, &terms()).unwrap_err().to_string();
        let mut lines: Vec<String> = report.lines().map(str::to_owned).collect();
        assert!(lines.pop().unwrap().ends_with("nothing was imported"));
        lines
    }

    fn counts(written: &Written) -> (usize, usize, usize) {
        (written.added, written.updated, written.unchanged)
    }

    fn only(store: &Store) -> Device {
        let mut devices = store.list(&Filter::default()).unwrap();
        assert_eq!(devices.len(), 1);
        devices.pop().unwrap()
    }

    #[test]
    fn csv_with_all_that_spreadsheets_do_to_it() {
        let (mut store, _folder) = store();
        let text = format!(
            "\u{feff}id,name,tags,ownership,onnet,state,keys,source,observed_at,posture.patched,posture.patched.value,seq\r\n\
             laptop-1,\"Ada's, \"\"big\"\" one\",a;b,corporate,true,approved,spki_sha256:{SPKI}; serial:X1 ,mdm,2026-11-22T07:00:00Z,fail,late,9\r\n\
             \r\n,,,,,,,,,,,\r\n"
        );
        assert_eq!(counts(&take(&mut store, &text, Format::Csv)), (1, 0, 0));
        let device = only(&store);
        assert_eq!(
            (device.name.as_deref(), device.tags.len(), device.keys.len(), device.onnet),
            (Some("Ada's, \"big\" one"), 2, 2, Some(true))
        );
        let seen = &device.posture[0].observations[0];
        assert_eq!((seen.ok, seen.value.as_deref(), seen.source.as_str()), (false, Some("late"), "mdm"));
        assert_eq!(counts(&take(&mut store, &text, Format::Csv)), (0, 0, 1), "again");
    }

    #[test]
    fn an_empty_cell_leaves_its_field() {
        let (mut store, _folder) = store();
        take(&mut store, "id,user,team,posture.patched\na,ada,core,ok\n", Format::Csv);
        assert_eq!(counts(&take(&mut store, "id,user,team,posture.patched\na,,edge,\n", Format::Csv)), (0, 1, 0));
        let device = only(&store);
        assert_eq!((device.user.as_deref(), device.team.as_deref(), device.posture.len()), (Some("ada"), Some("edge"), 1));
        assert_eq!((device.posture[0].observations[0].source.as_str(), device.posture[0].observations[0].observed_at), (MANUAL, now()));
    }

    #[test]
    fn every_mistake_of_a_csv_file_in_one_run() {
        let text = "id,nam,ownership,posture.disk_encrypted,keys,observed_at\n\
                    \n\
                    a,x,corprate,yes,serial:1,tomorrow\n\
                    b,\"two\nlines\",personal,ok,serial:1,2030-01-01T00:00:00Z\n\
                    b,x\n\
                    ,x,personl,ok,,\n";
        assert_eq!(
            mistakes(text, Format::Csv),
            [
                "fleet:1: column 2: found `nam`, expected a field of a device record; did you mean `name`?",
                "fleet:3: observed_at: found `tomorrow`, expected a time with its offset, for example 2026-11-22T07:30:00Z",
                "fleet:3: ownership: found `corprate`, expected corporate or personal; did you mean `corporate`?",
                "fleet:4: observed_at: found `2030-01-01T00:00:00Z`, expected a time that is not more than 5 minutes in the future",
                "fleet:4: keys: found `serial:1`, expected a key of no other device; it also stands at `a` on line 3",
                "fleet:6: found 2 cells, expected 6 as in the header line",
                "fleet:7: id: found nothing, expected 1 to 128 letters, digits and . _ : @ / + = -, the first a letter or digit",
                "fleet:7: ownership: found `personl`, expected corporate or personal; did you mean `personal`?",
            ]
        );
    }

    #[test]
    fn files_that_are_no_csv() {
        assert!(mistakes("", Format::Csv)[0].contains("no devices"));
        assert!(mistakes("id,name\n", Format::Csv)[0].contains("no devices"));
        assert!(mistakes("id;name\na;b\n", Format::Csv)[0].contains("separated by commas"));
        assert!(mistakes("name\nx\n", Format::Csv)[0].contains("no column `id`"));
        assert!(mistakes("id,user,user\na,x,y\n", Format::Csv)[0].ends_with("`user` stands twice"));
        assert!(mistakes("id,posture.x.value\na,y\n", Format::Csv)[0].contains("needs a column `posture.x`"));
        assert!(mistakes("id,name\na,\"open\nb,c\n", Format::Csv)[0].starts_with("fleet:2: name: found"));
        let not_text = |bytes: &[u8]| Import::read("fleet", bytes, Format::Csv, &terms()).unwrap_err().to_string();
        assert!(not_text(b"\xff\xfei\0d\0").contains("UTF-16"));
        assert!(not_text(b"id,name\na,M\xfcller\n").contains("fleet:2: column 2: found `M"));
    }

    #[test]
    fn rows_of_one_device_agree() {
        let (mut store, _folder) = store();
        let header = "id,user,source,observed_at,posture.patched,posture.screen_lock\n";
        let two = format!("{header}a,ada,mdm,2026-11-22T07:00:00Z,ok,\na,ada,manual,2026-11-21T07:00:00Z,fail,ok\n");
        assert_eq!(counts(&take(&mut store, &two, Format::Csv)), (1, 0, 0));
        assert_eq!(only(&store).fact("patched").unwrap().observations.len(), 2);
        assert!(
            mistakes(&format!("{header}a,ada,mdm,,ok,\na,bob,edr,,ok,\n"), Format::Csv)[0]
                .contains("already stands on line 2 with other values")
        );
        assert!(
            mistakes(&format!("{header}a,ada,mdm,,ok,\na,ada,mdm,,fail,\n"), Format::Csv)[0].contains("with the same source and times")
        );
    }

    #[test]
    fn what_list_wrote_is_read_back() {
        let (mut one, _folder) = store();
        let text = format!(
            r#"[{{"id": "a", "name": "x,\"y\"", "keys": ["spki_sha256:{SPKI}", {{"kind": "san", "value": "a@b", "added": "2020-01-01T00:00:00Z"}}], "tags": ["x"],
                "state": "approved", "onnet": false,
                "posture": {{"patched": {{"state": "ok", "value": "1", "source": "mdm", "observed_at": "2026-11-22T07:00:00Z", "expires_at": "2026-12-01T00:00:00Z",
                "also": [{{"state": "fail", "source": "edr", "observed_at": "2026-11-20T07:00:00Z"}}]}}, "screen_lock": "fail"}}}},
                {{"id": "b"}}]"#
        );
        assert_eq!(counts(&take(&mut one, &text, Format::Json)), (2, 0, 0));
        let devices = one.list(&Filter::default()).unwrap();
        assert_eq!(devices[0].keys[1].added, "2020-01-01T00:00:00Z".parse().unwrap());
        let csv = String::from_utf8(record::csv(&devices).unwrap()).unwrap();
        let json: Vec<String> = devices.iter().map(|device| Json::of(device).line()).collect();
        let lines = json.join("\n");
        let list = format!("[{}]", json.join(","));
        for (text, format) in [(&csv, Format::Csv), (&lines, Format::Json), (&list, Format::Json)] {
            assert_eq!(counts(&take(&mut one, text, format)), (0, 0, 2), "{text}");
            let (mut other, _folder) = store();
            assert_eq!(counts(&take(&mut other, text, format)), (2, 0, 0));
            let copy = other.device("a").unwrap().unwrap();
            assert_eq!(
                (&copy.posture, &copy.name, &copy.tags, copy.state),
                (&devices[0].posture, &devices[0].name, &devices[0].tags, devices[0].state)
            );
            assert_eq!(copy.keys.len(), 2);
        }
    }

    #[test]
    fn null_clears_a_field() {
        let (mut store, _folder) = store();
        take(&mut store, r#"{"id": "a", "user": "ada", "tags": ["x"], "keys": ["serial:1"], "ownership": "personal"}"#, Format::Json);
        take(&mut store, r#"{"id": "a", "user": null, "tags": null, "keys": [], "ownership": null}"#, Format::Json);
        let device = only(&store);
        assert_eq!((device.user, device.tags.len(), device.keys.len(), device.ownership), (None, 0, 0, None));
    }

    #[test]
    fn every_mistake_of_a_json_file_in_one_run() {
        let text = r#"[{"id":"a", "name": 3},
 {"id":"b","keys":["spki:x"],"osversion":"x","onnet":"true","posture":{"x":{"state":"unknown"},"y":null,"z":{"state":"ok","observed_at":"2030-01-01T00:00:00Z"},"w":{"stat":"ok"}}},
  {"id":3},{"id":"c",
  "id":"d"}]"#;
        assert_eq!(
            mistakes(text, Format::Json),
            [
                "fleet:1:2: name: found the number 3, expected a text",
                "fleet:2:2: keys: found `spki`, expected spki_sha256, san, serial or browser; did you mean `spki_sha256`?",
                "fleet:2:2: found `osversion`, expected a field of a device record; did you mean `os_version`?",
                "fleet:2:2: onnet: found `true`, expected true or false, without quotes",
                "fleet:2:2: posture.x: found `unknown`, expected ok, fail or nothing",
                "fleet:2:2: posture.y: found null, expected ok, fail, or a map with state, source and observed_at",
                "fleet:2:2: posture.z.observed_at: found `2030-01-01T00:00:00Z`, expected a time that is not more than 5 minutes in the future",
                "fleet:2:2: posture.w.stat: found `stat`, expected state, value, source, observed_at, expires_at or also; did you mean `state`?",
                "fleet:3:3: id: found the number 3, expected a text",
                "fleet:4:11: `id` stands twice",
            ]
        );
    }

    #[test]
    fn files_that_are_no_json() {
        assert!(mistakes("", Format::Json)[0].contains("no devices"));
        assert!(mistakes("[]", Format::Json)[0].contains("no devices"));
        assert_eq!(mistakes("[{\"id\":\"a\"}", Format::Json), ["fleet:1:12: expected `,` or `]` after a device"]);
        assert_eq!(mistakes("[{\"id\":\"a\"},", Format::Json), ["fleet:1:13: the list does not end; expected another device"]);
        assert_eq!(mistakes("[{\"id\":\"a\"}] x", Format::Json), ["fleet:1:14: expected nothing after the list"]);
        assert_eq!(mistakes("hello", Format::Json), ["fleet:1:1: found `h`, expected `{`, the beginning of a device"]);
        // One object a line: a broken line does not hide the next one's mistakes.
        let lines = mistakes("{\"id\":\"a\"}\n{\"id\" \"b\"}\n{\"id\":\"c\",\"state\":\"x\"}\n", Format::Json);
        assert_eq!(
            (lines.len(), lines[0].starts_with("fleet:2:7: "), lines[1].starts_with("fleet:3:1: state: ")),
            (2, true, true),
            "{lines:?}"
        );
        assert!(mistakes(&"{\"id\":".repeat(10_000), Format::Json)[0].contains("recursion"));
    }

    #[test]
    fn a_key_of_a_device_in_the_store_is_named_with_its_line() {
        let (mut store, _folder) = store();
        take(&mut store, "id,keys\nold,serial:1\n", Format::Csv);
        let import = Import::read("fleet.csv", b"id,keys\nx,serial:9\nnew,serial:1\n", Format::Csv, &terms()).unwrap();
        let error = import.write(&mut store, &By::new("ada").unwrap(), now()).unwrap_err().to_string();
        let expected =
            "fleet.csv:3: keys: found `serial:1`, expected a key of no other device; it belongs to `old`\n1 mistake; nothing was imported";
        assert_eq!(error, expected);
        assert_eq!(only(&store).id, "old");
    }

    #[test]
    fn sources_that_nobody_lists_are_refused() {
        let sources = [Source { name: "mdm".to_owned(), ttl: Duration::from_secs(1) }];
        let terms = Terms { sources: Some(&sources), ..terms() };
        let read = |text: &str| Import::read("fleet", text.as_bytes(), Format::Csv, &terms).map_err(|report| report.to_string());
        assert!(read("id,source,posture.patched\na,mdm,ok\n").is_ok());
        assert!(read("id,source,posture.patched\na,mdn,ok\n").unwrap_err().contains("fleet:2: source: found `mdn`"));
        assert!(read("id,posture.patched\na,ok\n").unwrap_err().contains("source: found `manual`"), "the default must be listed too");
        assert!(read("id,posture.patched\na,\n").is_ok(), "no facts, no source");
    }

    #[test]
    fn what_a_file_does_not_do_is_counted() {
        let (mut store, _folder) = store();
        take(&mut store, "id,state,source,observed_at,posture.patched\na,lost,mdm,2026-11-22T07:00:00Z,fail\n", Format::Csv);
        let written =
            take(&mut store, "id,state,source,observed_at,posture.patched\na,approved,mdm,2026-11-21T07:00:00Z,ok\n", Format::Csv);
        assert_eq!((counts(&written), written.older_facts, written.stay_revoked), ((0, 0, 1), 1, vec!["a".to_owned()]));
        assert_eq!((only(&store).state, only(&store).posture[0].observations[0].ok), (DeviceState::Lost, false));
    }

    #[test]
    fn many_mistakes_are_counted() {
        let text = format!("id,state\n{}", (0..500).map(|n| format!("d{n},x\n")).collect::<String>());
        let lines = mistakes(&text, Format::Csv);
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (101, "… and 400 more"));
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            for format in [Format::Csv, Format::Json] {
                let _ = Import::read("fleet", &bytes, format, &terms());
            }
        }

        #[test]
        fn nothing_like_a_file_panics(text in r#"(\[?(\{?("(id|keys|posture|tags|state|onnet)":?("a"|\[|\{|null|,)?)*\}?,?\n?)*\]?)|(id,name,keys,posture\.x,observed_at,"?\n?([a-z:;"]*,?\r?\n?)*)"#) {
            for format in [Format::Csv, Format::Json] {
                let _ = Import::read("fleet", text.as_bytes(), format, &terms());
            }
        }
    }
}
