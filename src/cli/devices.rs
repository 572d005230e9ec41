//! `vestibule devices`: the device store, for people and scripts.

mod memory;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;

use super::failure::Failure;
use super::print::{ago, print, print_bytes, table};
use crate::config;
use crate::model::{Device, DeviceState, Observation, Ownership};
use crate::policy::draft::Source;
use crate::posture::Error;
use crate::posture::edit::{Edit, MANUAL, Op, Seen, Voice};
use crate::posture::import::{Format, Import, SIZE_MAX};
use crate::posture::record::{self, Json};
use crate::posture::store::memory::Saying;
use crate::posture::store::{Absent, Access, Filter, Store, Writing, Written};
use crate::posture::values::{self, By, Terms, Wrong};

/// How long a command waits for another process that is writing.
const PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  vestibule devices -c vestibule.yaml list --state approved
  vestibule devices -c vestibule.yaml set laptop-1 --create ownership=corporate state=approved
  vestibule devices -c vestibule.yaml set laptop-1 keys+=cert:laptop-1.pem posture.disk_encrypted=ok
  vestibule devices -c vestibule.yaml import fleet.csv
  vestibule devices -c vestibule.yaml revoke laptop-1 --lost
  vestibule devices -c vestibule.yaml baseline laptop-1 --accept
  vestibule devices -c vestibule.yaml blind --format csv
  vestibule devices --store sqlite://data/vestibule.db list --format csv > backup.csv";

/// Look into and change the device store
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration that names the store and the sources of posture facts
    #[arg(short, long, value_name = "FILE", global = true, conflicts_with = "store")]
    config: Option<PathBuf>,

    /// The store itself, sqlite://PATH; a relative path begins in the current directory. Facts of any source are taken
    #[arg(long, value_name = "URL", global = true)]
    store: Option<String>,

    /// Who makes the change, for the audit trail [default: the user of the operating system]
    #[arg(long, value_name = "NAME", global = true)]
    by: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print devices, sorted by id; with several filters those that match all
    List {
        /// pending, approved, suspended, lost or retired
        #[arg(long, value_parser = state)]
        state: Option<DeviceState>,
        /// corporate or personal
        #[arg(long, value_parser = ownership)]
        ownership: Option<Ownership>,
        /// The person
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The line of business
        #[arg(long, value_name = "NAME")]
        team: Option<String>,
        /// One of the device's tags
        #[arg(long, value_name = "NAME")]
        tag: Option<String>,
        /// The recorded system, such as windows
        #[arg(long, value_name = "NAME")]
        os: Option<String>,
        /// json and csv are what `import` reads
        #[arg(long, value_enum, default_value_t = Shape::Table)]
        format: Shape,
    },

    /// Print one device with its keys, its facts and their ages, and the stacks it speaks
    Show {
        /// The device
        id: String,
        #[arg(long, value_enum, default_value_t = Shape::Table)]
        format: Shape,
    },

    /// Change fields of one device: all of them, or none
    #[command(after_help = SET_HELP)]
    Set {
        /// The device
        id: String,
        /// Such as state=approved, tags+=loan, posture.disk_encrypted=ok; an empty value clears the field
        #[arg(required = true, value_name = "FIELD=VALUE")]
        changes: Vec<String>,
        /// Add the device when the store does not have it; one that gets a key is added without asking
        #[arg(long)]
        create: bool,
    },

    /// Take in a CSV or JSON file: all of it, or nothing. Devices whose id is known are updated, others added
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// `-` is standard input
        file: PathBuf,
        /// [default: by the file's name]
        #[arg(long, value_enum)]
        format: Option<FileFormat>,
    },

    /// Take a device out of use: suspended, unless it is lost or retired
    Revoke {
        /// The device
        id: String,
        /// Lost or stolen
        #[arg(long, conflicts_with = "retired")]
        lost: bool,
        /// Out of service for good
        #[arg(long)]
        retired: bool,
    },

    /// Print the stacks that a device speaks, or every device that drifts; accept or forget them
    Baseline {
        /// [default: every device that drifts]
        id: Option<String>,
        /// Every stack that was seen is the device's own: ends its drift
        #[arg(long, requires = "id", conflicts_with = "forget")]
        accept: bool,
        /// Drop what was learned, and learn anew
        #[arg(long, requires = "id")]
        forget: bool,
        #[arg(long, value_enum, default_value_t = Shape::Table)]
        format: Shape,
    },

    /// Print the devices without a record, grouped by what they show
    Blind {
        #[arg(long, value_enum, default_value_t = Shape::Table)]
        format: Shape,
    },
}

// One line a paragraph: clap wraps them where the terminal ends.
const SET_HELP: &str = "\
Text: name user team os os_version model. An empty value clears the field.
ownership=corporate or personal; onnet=true or false; state=pending, approved, suspended, lost or retired (a new device is pending).
tags=A,B and keys=KIND:VALUE;KIND:VALUE replace the list, += adds to it, -= takes from it. A KIND is spki_sha256, san, serial or browser; \
cert:FILE.pem stands for the key of that certificate.
posture.FACT=ok or fail states a fact, posture.FACT.value=TEXT its detail. source=NAME (manual), observed_at=TIME (now) and expires_at=TIME \
apply to all facts of the command. posture.FACT= takes back what that source said. \
A TIME is RFC 3339, 2031-01-15T18:00:00Z: past expires_at, or the ttl of its source, a fact is unknown.";

const IMPORT_HELP: &str = "\
CSV: the first line names the columns: id and any of name user team tags ownership onnet state os os_version model keys source observed_at \
expires_at posture.FACT posture.FACT.value. An empty cell leaves its field as it is. tags and keys are parted by `;` \
(spki_sha256:ab12…;serial:X1). source (manual), observed_at (now) and expires_at apply to the row; a device whose facts have several sources \
takes several rows.

JSON: a list of objects, one object, or one object a line, with the same field names. posture is a map of fact to \"ok\", \"fail\" or {state, \
value, source, observed_at, expires_at}; keys is a list of \"KIND:VALUE\" or {kind, value}; null clears a field.

A file never brings a suspended, lost or retired device back into use (`set ID state=approved` does), and never replaces a fact by an older \
one of the same source.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    Table,
    Json,
    Csv,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FileFormat {
    Csv,
    Json,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let place = store_of(&args)?;
    let now = values::now();
    let by = args.by.as_deref().map_or_else(os_user, By::new)?;
    match args.command {
        Command::List { state, ownership, user, team, tag, os, format } => {
            let store = place.open(Access::Read)?;
            let devices = store.list(&Filter { state, ownership, user, team, tag, os })?;
            match format {
                Shape::Table => print(&list(&devices, place.sources.as_deref(), now)),
                Shape::Csv => print_bytes(&record::csv(&devices)?),
                Shape::Json => print(&json(&devices)),
            }
        }
        Command::Show { id, format } => {
            let store = place.open(Access::Read)?;
            let Some(device) = store.device(&id)? else { return Err(Error::NoDevice { nearest: store.nearest(&id)?, id }.into()) };
            match format {
                Shape::Table => {
                    let stacks = memory::stacks(store.remembered_of(&id)?.as_ref(), now);
                    print(&format!("{}\n{stacks}", show(&device, place.sources.as_deref(), now)))
                }
                Shape::Csv => print_bytes(&record::csv(std::slice::from_ref(&device))?),
                Shape::Json => print(&memory::shown(Json::of(&device), store.remembered_of(&id)?.as_ref())),
            }
        }
        Command::Set { id, changes, create } => {
            let terms = Terms { now, sources: place.sources.as_deref(), folder: Path::new("") };
            let edit = edit_of(&id, &changes, &terms)?;
            // A key is what makes a device known. Without one a mistyped id would go unnoticed: the device that was meant stays as it is.
            let create = create || edit.keys().next().is_some();
            let absent = if create { Absent::Add } else { Absent::Refuse };
            let mut store = place.open(if create { Access::Create } else { Access::Write })?;
            let written = store.write(&[edit], Writing { by: &by, now, voice: Voice::Person, absent }).map_err(|error| match error {
                Error::NoDevice { .. } => Failure(format!("{error} (a new device is added when it gets a key, or with --create)")),
                Error::Edit { wrong, .. } => (*wrong).into(),
                error => error.into(),
            })?;
            print(&format!("{id}: {}\n", outcome(&written)))
        }
        Command::Import { file, format } => {
            let import = read(&file, format, &place, now)?;
            let mut store = place.open(Access::Create)?;
            print(&imported(&import.write(&mut store, &by, now)?))
        }
        Command::Revoke { id, lost, retired } => {
            let state = match (lost, retired) {
                (true, _) => DeviceState::Lost,
                (_, true) => DeviceState::Retired,
                _ => DeviceState::Suspended,
            };
            let mut store = place.open(Access::Write)?;
            // An id that cannot be one is as unknown as any other.
            let mut edit = Edit::new(&id).map_err(|_| Error::NoDevice { id: id.clone(), nearest: None })?;
            edit.state(state);
            let written = store.write(&[edit], Writing { by: &by, now, voice: Voice::Person, absent: Absent::Refuse })?;
            let already = if written.unchanged > 0 { " already" } else { "" };
            print(&format!("{id}: {}{already}\n", state.as_str()))
        }
        Command::Baseline { id: None, format, .. } => memory::baseline(&place.open(Access::Read)?, None, format, now),
        Command::Baseline { id: Some(id), accept, forget, format } => {
            let saying = match (accept, forget) {
                (true, _) => Some(Saying::Accepted),
                (_, true) => Some(Saying::Forgotten),
                _ => None,
            };
            let mut store = place.open(if saying.is_some() { Access::Write } else { Access::Read })?;
            if store.device(&id)?.is_none() {
                return Err(Error::NoDevice { nearest: store.nearest(&id)?, id }.into());
            }
            match saying {
                Some(what) => memory::say(&mut store, &id, what, &by, now),
                None => memory::baseline(&store, Some(&id), format, now),
            }
        }
        Command::Blind { format } => memory::census(&place.open(Access::Read)?, format, now),
    }
}

/// Where the store is, and whose facts it takes; `None`: anybody's.
struct Place {
    path: PathBuf,
    sources: Option<Vec<Source>>,
}

fn store_of(args: &Args) -> Result<Place, Failure> {
    match (&args.config, &args.store) {
        (Some(file), _) => {
            let configuration = config::load(file)?.configuration;
            Ok(Place { path: configuration.store.path, sources: Some(configuration.policy.sources) })
        }
        (None, Some(url)) => Ok(Place { path: path_of(url)?, sources: None }),
        (None, None) => clap::Error::raw(
            clap::error::ErrorKind::MissingRequiredArgument,
            "which store? Give -c FILE (the store of that configuration) or --store sqlite://PATH\n\nFor more information, try '--help'.\n",
        )
        .exit(),
    }
}

pub(super) fn path_of(url: &str) -> Result<PathBuf, Wrong> {
    match url.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(Wrong::new(
            "--store",
            url,
            "sqlite://PATH, for example sqlite://data/vestibule.db or sqlite:///var/lib/vestibule/devices.db",
        )),
    }
}

impl Place {
    fn open(&self, access: Access) -> Result<Store, Failure> {
        let new = access == Access::Create && !self.path.exists();
        let store = Store::open(&self.path, access, PATIENCE)?;
        if new {
            eprintln!("new device store {}", self.path.display());
        }
        Ok(store)
    }
}

/// The user that runs this command, and who asked for it through sudo.
fn os_user() -> Result<By, Wrong> {
    let uid = std::fs::metadata("/proc/self").map(|meta| meta.uid()).ok();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = uid.and_then(|uid| {
        let uid = uid.to_string();
        users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|line| line.get(2) == Some(&uid.as_str()))
            .and_then(|line| line.first().map(|s| (*s).to_owned()))
    });
    let name = name.or(uid.map(|uid| format!("uid {uid}"))).unwrap_or_else(|| "unknown".to_owned());
    match std::env::var("SUDO_USER") {
        Ok(user) if user != name => By::new(&format!("{name} (sudo by {user})")).or_else(|_| By::new(&name)),
        _ => By::new(&name),
    }
}

/// The edit that `FIELD=VALUE` texts make; every mistake of them is named.
fn edit_of(id: &str, changes: &[String], terms: &Terms<'_>) -> Result<Edit, Failure> {
    let mut edit = Edit::new(id)?;
    let mut wrongs: Vec<Wrong> = Vec::new();
    let mut facts: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    let mut seen = Seen { source: MANUAL.to_owned(), observed_at: terms.now, expires_at: None };
    let mut sourced = false;
    for change in changes {
        let Some((name, text)) = change.split_once('=') else {
            wrongs.push(Wrong::new("set", change, "FIELD=VALUE"));
            continue;
        };
        let (field, op) = match (name.strip_suffix('+'), name.strip_suffix('-')) {
            (Some(field), _) => (field, Op::Add),
            (_, Some(field)) => (field, Op::Remove),
            _ => (name, Op::Replace),
        };
        let result = match (field, field.strip_prefix("posture.")) {
            (_, Some(_)) | ("source" | "observed_at" | "expires_at", _) if op != Op::Replace => {
                Err(Wrong::new(field, if op == Op::Add { "+=" } else { "-=" }, "`=`; only tags and keys are lists"))
            }
            (_, Some(fact)) => {
                match fact.strip_suffix(".value") {
                    Some(fact) => facts.entry(fact).or_default().1 = Some(text),
                    None => facts.entry(fact).or_default().0 = Some(text),
                }
                Ok(())
            }
            ("source", _) => values::source(field, text, terms).map(|source| (seen.source, sourced) = (source, true)),
            ("observed_at", _) => values::past(field, text, terms.now).map(|at| seen.observed_at = at),
            ("expires_at", _) => values::time(field, text).map(|at| seen.expires_at = Some(at)),
            (field, _) => edit.assign(field, op, text, terms),
        };
        wrongs.extend(result.err());
    }
    if !facts.is_empty() && !sourced {
        wrongs.extend(values::source("source", MANUAL, terms).err());
    }
    if seen.expires_at.is_some_and(|ends| ends <= seen.observed_at) {
        wrongs.push(Wrong::new("expires_at", &seen.expires_at.map(|at| at.to_string()).unwrap_or_default(), "a time after observed_at"));
    }
    for (fact, (state, value)) in facts {
        let result = match state {
            Some(state) => edit.fact(fact, state, value.filter(|value| !value.is_empty()), &seen),
            None => {
                Err(Wrong::new(format!("posture.{fact}.value"), value.unwrap_or_default(), format!("posture.{fact}=ok or fail beside it")))
            }
        };
        wrongs.extend(result.err());
    }
    match wrongs.is_empty() {
        true => Ok(edit),
        false => Err(Failure(wrongs.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))),
    }
}

fn outcome(written: &Written) -> &'static str {
    match written {
        Written { added: 1.., .. } => "added",
        Written { updated: 1.., .. } => "updated",
        _ => "unchanged",
    }
}

fn read(file: &Path, format: Option<FileFormat>, place: &Place, now: Timestamp) -> Result<Import, Failure> {
    let name = file.display();
    let format = match format {
        Some(FileFormat::Csv) => Format::Csv,
        Some(FileFormat::Json) => Format::Json,
        None => Format::of(file).ok_or_else(|| Failure(format!("{name}: what format? Give --format csv or --format json")))?,
    };
    let mut bytes = Vec::new();
    let taken = match file.to_str() {
        Some("-") => std::io::stdin().lock().take(SIZE_MAX + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(file).and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes)),
    };
    taken.map_err(|error| Failure(format!("{name}: {error}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > SIZE_MAX) {
        return Err(Failure(format!("{name}: larger than {} MiB; split the file", SIZE_MAX >> 20)));
    }
    let terms = Terms { now, sources: place.sources.as_deref(), folder: file.parent().unwrap_or(Path::new("")) };
    Ok(Import::read(&name.to_string(), &bytes, format, &terms)?)
}

fn imported(written: &Written) -> String {
    let Written { added, updated, unchanged, older_facts, stay_revoked } = written;
    let mut text = format!("added {added}, updated {updated}, unchanged {unchanged}\n");
    if *older_facts > 0 {
        let (facts, ones) = if *older_facts == 1 { ("fact", "a newer one") } else { ("facts", "newer ones") };
        let _ = writeln!(text, "left out {older_facts} {facts}: the store has {ones} of the same source");
    }
    if !stay_revoked.is_empty() {
        let some: Vec<&str> = stay_revoked.iter().take(10).map(String::as_str).collect();
        let more = if stay_revoked.len() > 10 { format!(" and {} more", stay_revoked.len() - 10) } else { String::new() };
        let _ = writeln!(text, "stay revoked: {}{more} (`devices set ID state=approved` brings one back)", some.join(", "));
    }
    text
}

fn json(devices: &[Device]) -> String {
    let lines: Vec<String> = devices.iter().map(|device| Json::of(device).line()).collect();
    if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
}

fn list(devices: &[Device], sources: Option<&[Source]>, now: Timestamp) -> String {
    let mut rows = vec![["ID", "NAME", "USER", "OWNERSHIP", "STATE", "OS", "POSTURE", "OBSERVED"].map(str::to_owned).to_vec()];
    for device in devices {
        let seen = device.posture.iter().flat_map(|fact| &fact.observations);
        let facts = counts(device, sources, now);
        let os = [&device.os, &device.os_version].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        let cells = [
            Some(device.id.clone()),
            device.name.clone(),
            device.user.clone(),
            device.ownership.map(|o| o.as_str().to_owned()),
            Some(device.state.as_str().to_owned()),
            (!os.is_empty()).then_some(os),
            facts,
            seen.map(|seen| seen.observed_at).max().map(|at| ago(at, now)),
        ];
        rows.push(cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned())).to_vec());
    }
    if devices.is_empty() { "no devices\n".to_owned() } else { table(&rows) }
}

/// How many facts are ok, fail and, all observations of them expired, unknown.
fn counts(device: &Device, sources: Option<&[Source]>, now: Timestamp) -> Option<String> {
    let (mut ok, mut fail, mut unknown) = (0, 0, 0);
    for fact in &device.posture {
        let mut believed = fact.observations.iter().filter(|seen| !expired(seen, sources, now)).map(|seen| seen.ok);
        match believed.next() {
            None => unknown += 1,
            Some(first) if first && believed.all(|seen| seen) => ok += 1,
            Some(_) => fail += 1,
        }
    }
    let more = [(fail, "fail"), (unknown, "unknown")].into_iter().filter(|(count, _)| *count > 0);
    let more: String = more.map(|(count, state)| format!(", {count} {state}")).collect();
    (!device.posture.is_empty()).then(|| format!("{ok} ok{more}"))
}

fn show(device: &Device, sources: Option<&[Source]>, now: Timestamp) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let changed = &device.state_changed;
    let mut rows: Vec<[String; 2]> = [
        ("id", device.id.clone()),
        ("name", text(&device.name)),
        ("user", text(&device.user)),
        ("team", text(&device.team)),
        ("tags", if device.tags.is_empty() { "-".to_owned() } else { device.tags.join(", ") }),
        ("ownership", device.ownership.map_or("-", |o| o.as_str()).to_owned()),
        ("onnet", device.onnet.map_or("-".to_owned(), |onnet| onnet.to_string())),
        ("state", format!("{}, set by {} {}", device.state.as_str(), changed.by, ago(changed.at, now))),
        ("os", [&device.os, &device.os_version].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")),
        ("model", text(&device.model)),
    ]
    .map(|(name, value)| [name.to_owned(), if value.is_empty() { "-".to_owned() } else { value }])
    .to_vec();
    if device.keys.is_empty() {
        rows.push(["keys".to_owned(), "-".to_owned()]);
    }
    for (index, key) in device.keys.iter().enumerate() {
        let name = if index == 0 { "keys" } else { "" };
        rows.push([name.to_owned(), format!("{}:{}, added {}", key.kind.as_str(), key.value, ago(key.added, now))]);
    }
    rows.push(["added".to_owned(), format!("{}, {}", device.created_at, ago(device.created_at, now))]);
    rows.push(["updated".to_owned(), format!("{}, {}, change {}", device.updated_at, ago(device.updated_at, now), device.seq)]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    let mut out = table(&rows);
    if device.posture.is_empty() {
        out.push_str("\nno posture facts\n");
        return out;
    }
    let mut facts = vec![["FACT", "STATE", "SOURCE", "OBSERVED", "VALUE"].map(str::to_owned).to_vec()];
    for fact in &device.posture {
        for seen in &fact.observations {
            let said = if seen.ok { "ok" } else { "fail" };
            let state = if expired(seen, sources, now) { format!("unknown (expired, was {said})") } else { said.to_owned() };
            let value = seen.value.clone().unwrap_or_else(|| "-".to_owned());
            facts.push(vec![fact.name.clone(), state, seen.source.clone(), ago(seen.observed_at, now), value]);
        }
    }
    out.push('\n');
    out + &table(&facts)
}

/// By its own expiry, and by its source's ttl where the configuration is at hand.
fn expired(seen: &Observation, sources: Option<&[Source]>, now: Timestamp) -> bool {
    let ttl = sources.and_then(|sources| sources.iter().find(|source| source.name == seen.source)).map(|source| source.ttl);
    let age = Duration::try_from(now.duration_since(seen.observed_at)).unwrap_or_default();
    seen.expires_at.is_some_and(|ends| ends <= now) || ttl.is_some_and(|ttl| age >= ttl)
}

fn state(word: &str) -> Result<DeviceState, Wrong> {
    values::one_of("state", word, &DeviceState::ALL, DeviceState::as_str)
}

fn ownership(word: &str) -> Result<Ownership, Wrong> {
    values::one_of("ownership", word, &Ownership::ALL, Ownership::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fact;

    #[test]
    fn a_fact_expires_at_the_earlier_of_two_ends() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        let hour = Duration::from_secs(3600);
        let sources = [Source { name: "mdm".to_owned(), ttl: 2 * hour }];
        let seen = |age: u32, ends: Option<Timestamp>| Observation {
            ok: true,
            value: None,
            source: "mdm".to_owned(),
            observed_at: now - hour * age,
            expires_at: ends,
        };
        let ends = |age, at| expired(&seen(age, at), Some(&sources), now);
        assert_eq!(
            [ends(1, None), ends(2, None), ends(1, Some(now)), ends(1, Some(now + hour)), ends(3, Some(now + hour))],
            [false, true, true, false, true]
        );
        assert!(!expired(&seen(3, None), None, now), "without the configuration nobody knows the ttl");

        let mut device = Device::blank("d", DeviceState::Approved, "it", now);
        assert_eq!(counts(&device, Some(&sources), now), None);
        let failing = Observation { ok: false, ..seen(1, None) };
        device.posture =
            [seen(1, None), seen(2, None), failing].map(|seen| Fact { name: "f".to_owned(), observations: vec![seen] }).to_vec();
        assert_eq!(counts(&device, Some(&sources), now).as_deref(), Some("1 ok, 1 fail, 1 unknown"));
        assert_eq!(counts(&device, None, now).as_deref(), Some("2 ok, 1 fail"));
    }

    #[test]
    fn urls_of_stores() {
        assert_eq!(path_of("sqlite://data/x.db").unwrap(), Path::new("data/x.db"));
        assert_eq!(path_of("sqlite:///var/x.db").unwrap(), Path::new("/var/x.db"));
        for bad in ["sqlite://", "data/x.db", "postgres://x", ""] {
            assert!(path_of(bad).is_err(), "{bad}");
        }
    }
}
