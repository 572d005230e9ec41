//! The keys that sign assertions: a folder of PEM files, shared by all proxies that vouch for each other.
//!
//! A file's name says when its key begins to sign, `20261122T120000Z.pem`, so that every proxy that looks at the folder comes to the same answer
//! without a word between them: the key that began last signs, all are published, a new one is made ahead of its time, and one that others have long
//! taken over from is deleted. A folder with keys of other names, or one that cannot be written, is somebody else's: nothing is made or deleted there.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::{Assertion, Configuration};
use crate::gate::{ASSERTION_VALID, Keys, NoKey, Notary, Signer};
use crate::record::{Record, Writer};

/// More files than this are no folder of keys.
const MOST: usize = 1000;
/// Bytes of a file: a key has 250.
const LARGEST: u64 = 16 << 10;
/// The first key begins at the last of these moments, and every other at one of them: proxies that make one at the same time make the same one.
const STEP: i64 = 600;
/// How long a key stays published after another took over: until its last assertion is over, and then 10 minutes, and for clocks that disagree 5 more.
const KEPT: i64 = ASSERTION_VALID.as_secs() + 900;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: NoKey },
    #[error("{}: more than {MOST} keys", folder.display())]
    Many { folder: PathBuf },
    #[error("{}: there is no key, and none can be made: {source}", folder.display())]
    Make { folder: PathBuf, source: io::Error },
}

/// The folder and what was found in it.
#[derive(Debug)]
pub struct KeyFolder {
    settings: Assertion,
    pub keys: Arc<ArcSwap<Keys>>,
    seen: Mutex<Seen>,
    /// The last look failed, and it was said.
    troubled: AtomicBool,
}

/// Files by path, with the stamp that they were read under.
type Seen = HashMap<PathBuf, (Stamp, Arc<Signer>)>;
type Stamp = (i64, i64, u64, u64);

/// What a look at the folder did.
#[derive(Debug, Default)]
pub struct Looked {
    pub made: u64,
    pub retired: u64,
    /// A key is due and could not be made, while another signs on.
    pub failed: Option<io::Error>,
}

impl Looked {
    /// By the office or who starts and reloads; all of them write as the office.
    pub fn count(self, record: &Record) {
        for (event, count) in [("made", self.made), ("retired", self.retired), ("failed", u64::from(self.failed.is_some()))] {
            record.assertion_keys.cell(Writer::OFFICE, &[event]).add(count);
        }
    }
}

/// Whether any app wants assertions.
pub fn wanted(configuration: &Configuration) -> bool {
    configuration.routes.iter().any(|route| route.assertion)
}

/// Whether the keys that are there can be used, and where there is none, whether one could be made, by whoever asks. Nothing is made.
///
/// # Errors
/// As `KeyFolder::open`.
pub fn check(settings: &Assertion) -> Result<(), KeysError> {
    let folder = &settings.keys;
    if !read(folder, &Seen::new())?.is_empty() {
        return Ok(());
    }
    could_make(folder).map_err(|source| KeysError::Make { folder: folder.clone(), source })
}

/// Whether the folder may be written, or made in the nearest one above it that is there.
fn could_make(folder: &Path) -> io::Result<()> {
    let there = folder.ancestors().find(|path| fs::symlink_metadata(path).is_ok()).unwrap_or(Path::new("/"));
    let said = |what: &str, error: io::Error| {
        if there == folder { error } else { io::Error::new(error.kind(), format!("{}: {what}{error}", there.display())) }
    };
    if !fs::metadata(there).map_err(|error| said("", error))?.is_dir() {
        return Err(said("", io::ErrorKind::NotADirectory.into()));
    }
    // A file without a name, gone as it is closed: it meets modes, owners and read-only file systems as a key would.
    match OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(there) {
        // The file system has no such files, and does not say more.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => Ok(()),
        opened => opened.map(drop).map_err(|error| said("no folder can be made there: ", error)),
    }
}

/// The folder of keys, read anew; it is the same one while its settings are.
pub fn folder(configuration: &Configuration, before: Option<Arc<KeyFolder>>, record: &Record) -> Result<Option<Arc<KeyFolder>>, KeysError> {
    if !wanted(configuration) {
        return Ok(None);
    }
    let (folder, looked) = match before.filter(|before| before.serves(&configuration.assertion)) {
        Some(before) => {
            let looked = before.look()?;
            (before, looked)
        }
        None => {
            let (folder, looked) = KeyFolder::open(&configuration.assertion)?;
            (Arc::new(folder), looked)
        }
    };
    looked.count(record);
    Ok(Some(folder))
}

impl KeyFolder {
    /// Reads the keys, and makes the first.
    ///
    /// # Errors
    /// A key that cannot be read, whichever: apps would refuse what it signed. No key, and none can be made.
    pub fn open(settings: &Assertion) -> Result<(Self, Looked), KeysError> {
        let (found, looked, keys) = look(settings, &Seen::new(), now())?;
        let seen = Mutex::new(found.into_iter().map(Found::seen).collect());
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        Ok((Self { settings: settings.clone(), keys, seen, troubled: AtomicBool::new(false) }, looked))
    }

    /// Whether it is the folder of these settings; the issuer is no part of it.
    pub fn serves(&self, settings: &Assertion) -> bool {
        (&self.settings.keys, self.settings.rotate) == (&settings.keys, settings.rotate)
    }

    /// Whether the folder is looked after: the last look could read it, and make what was due.
    pub fn up(&self) -> bool {
        !self.troubled.load(Relaxed)
    }

    pub fn notary(&self, settings: &Assertion) -> Notary {
        Notary { issuer: settings.issuer.as_str().into(), keys: Arc::clone(&self.keys) }
    }

    /// Looks again: takes in what others made, makes what is due, deletes what is over. After an error everything is as before.
    ///
    /// # Errors
    /// As `open`.
    pub fn look(&self) -> Result<Looked, KeysError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (found, looked, keys) = look(&self.settings, &seen, now())?;
        *seen = found.into_iter().map(Found::seen).collect();
        let current = self.keys.load();
        if current.signer.kid() != keys.signer.kid() {
            tracing::info!(kid = keys.signer.kid(), "another key signs assertions");
        }
        if current.signer.kid() != keys.signer.kid() || current.jwks != keys.jwks || current.due != keys.due {
            self.keys.store(Arc::new(keys));
        }
        match &looked.failed {
            Some(error) => drop(self.trouble(error)),
            None => self.troubled.store(false, Relaxed),
        }
        Ok(looked)
    }

    /// Says it once, though every look that follows meets it again.
    pub fn trouble(&self, error: &dyn std::error::Error) -> Looked {
        if !self.troubled.swap(true, Relaxed) {
            tracing::warn!(%error, folder = %self.settings.keys.display(), "the keys for assertions are not looked after; those in force stay");
        }
        Looked { failed: Some(io::Error::other("as said")), ..Looked::default() }
    }
}

/// A key of the folder.
#[derive(Clone, Debug)]
struct Found {
    path: PathBuf,
    stamp: Stamp,
    /// When it begins to sign, in seconds.
    from: i64,
    /// By its name it is one of ours.
    ours: bool,
    signer: Arc<Signer>,
}

impl Found {
    fn seen(self) -> (PathBuf, (Stamp, Arc<Signer>)) {
        (self.path, (self.stamp, self.signer))
    }
}

fn look(settings: &Assertion, seen: &Seen, now: i64) -> Result<(Vec<Found>, Looked, Keys), KeysError> {
    let folder = &settings.keys;
    let mut looked = Looked::default();
    let mut found = read(folder, seen)?;
    let mut ours = found.iter().all(|key| key.ours);
    let rotate = seconds(settings.rotate);
    let due = next(&found, now, rotate).filter(|_| ours);
    if let Some(from) = due {
        match make(folder, from) {
            Ok(made) => {
                looked.made += u64::from(made);
                found = read(folder, seen)?;
            }
            Err(source) if found.is_empty() => return Err(KeysError::Make { folder: folder.clone(), source }),
            // Somebody else looks after them.
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                ours = false;
            }
            Err(error) => looked.failed = Some(error),
        }
    }
    let Some(signs) = signs(&found, now).cloned() else {
        return Err(KeysError::Make { folder: folder.clone(), source: io::Error::other("it was deleted at once") });
    };
    if ours {
        for path in over(&found, signs.from, now) {
            // Of several proxies one is first, and the others find nothing to delete.
            if fs::remove_file(&path).is_ok() {
                looked.retired += 1;
            }
            found.retain(|key| key.path != path);
        }
    }
    let keys = Keys::new(&signs.signer, found.iter().map(|key| &key.signer), ours.then(|| signs.from.saturating_add(rotate)));
    Ok((found, looked, keys))
}

/// The one that began last; where a clock is behind all of them the first.
fn signs(found: &[Found], now: i64) -> Option<&Found> {
    found.iter().rfind(|key| key.from <= now).or_else(|| found.first())
}

/// When the next key is to begin, once it is time to make it. A key that begins later than any that a proxy would make is a clock's mistake, and no
/// reason to go on without a next one.
fn next(found: &[Found], now: i64, rotate: i64) -> Option<i64> {
    let ahead = (rotate / 10).max(STEP);
    // Nobody looks just when it is time.
    let early = ahead + 60;
    let Some(newest) = found.iter().map(|key| key.from).filter(|from| *from <= now.saturating_add(rotate)).max() else {
        return Some(now.div_euclid(STEP).saturating_mul(STEP));
    };
    let due = newest.saturating_add(rotate);
    // One that is late is published as long before it signs as any other.
    let soonest = now.saturating_add(ahead + STEP - 1).div_euclid(STEP).saturating_mul(STEP);
    (now >= due.saturating_sub(early)).then(|| if due >= now.saturating_add(ahead) { due } else { soonest.max(due) })
}

/// Keys that another took over from so long ago that nothing that they signed is valid.
fn over(found: &[Found], signs: i64, now: i64) -> Vec<PathBuf> {
    let successor = |from: i64| found.iter().map(|key| key.from).find(|next| *next > from && *next <= signs);
    let is_over = |key: &&Found| successor(key.from).is_some_and(|next| now >= next.saturating_add(KEPT));
    found.iter().filter(is_over).map(|key| key.path.clone()).collect()
}

/// All keys of the folder, by when they begin. A folder that is not there has none.
fn read(folder: &Path, seen: &Seen) -> Result<Vec<Found>, KeysError> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |source| KeysError::File { path, source }
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(of(folder)(error)),
    };
    let mut found: Vec<Found> = Vec::new();
    for entry in entries {
        let path = entry.map_err(of(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(stem) = name.strip_suffix(".pem").filter(|stem| !stem.starts_with('.')) else { continue };
        if found.len() == MOST {
            return Err(KeysError::Many { folder: folder.to_owned() });
        }
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if is_gone(&error, &path) => continue,
            Err(error) => return Err(of(&path)(error)),
        };
        let stamp = (metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino());
        let from = began(stem);
        let signer = match seen.get(&path) {
            Some((known, signer)) if *known == stamp => Arc::clone(signer),
            _ => {
                if metadata.permissions().mode() & 0o077 != 0 {
                    tracing::warn!(file = %path.display(), "others than the proxy may read this key");
                }
                let pem = match contents(&path, metadata.is_file()) {
                    Ok(pem) => pem,
                    Err(error) if is_gone(&error, &path) => continue,
                    Err(error) => return Err(of(&path)(error)),
                };
                Arc::new(Signer::from_pem(&pem).map_err(|source| KeysError::Key { path: path.clone(), source })?)
            }
        };
        found.push(Found { from: from.unwrap_or(metadata.mtime()), ours: from.is_some(), path, stamp, signer });
    }
    found.sort_by(|a, b| (a.from, &a.path).cmp(&(b.from, &b.path)));
    // Two files with one key are one key.
    let mut kids: Vec<String> = Vec::new();
    found.retain(|key| {
        !kids.iter().any(|kid| kid == key.signer.kid()) && {
            kids.push(key.signer.kid().to_owned());
            true
        }
    });
    Ok(found)
}

/// Another proxy deleted it just now; a link that leads nowhere is still there.
fn is_gone(error: &io::Error, path: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err()
}

fn contents(path: &Path, is_file: bool) -> io::Result<Vec<u8>> {
    if !is_file {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

const NAME: &str = "%Y%m%dT%H%M%SZ";

/// The moment that a name of ours says.
fn began(stem: &str) -> Option<i64> {
    let moment = jiff::civil::DateTime::strptime(NAME, stem).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (moment.strftime(NAME).to_string() == stem).then(|| moment.as_second())
}

/// Makes the key that begins then, whole or not at all; `false`: another proxy was first.
fn make(folder: &Path, from: i64) -> io::Result<bool> {
    let name = Timestamp::from_second(from).map_err(io::Error::other)?.strftime(NAME).to_string();
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?.serialize_pem();
    let draft = folder.join(format!(".{name}-{}-{:016x}", std::process::id(), fastrand::u64(..)));
    let whole = folder.join(format!("{name}.pem"));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        // Unlike a rename it takes nothing's place.
        match fs::hard_link(&draft, &whole) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            linked => linked.map(|()| true),
        }
    })();
    let _ = fs::remove_file(&draft);
    File::open(folder)?.sync_all()?;
    if matches!(written, Ok(true)) {
        tracing::info!(key = %whole.display(), "made a key for assertions");
    }
    written
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
