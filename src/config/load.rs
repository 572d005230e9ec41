//! The only place of this room that touches files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::pem::PemFiles;
use super::report::{Place, Report};
use super::serving::{Holds, NamedFile};
use super::text::LARGEST;
use super::typing::Parsed;
use super::{Configuration, Loaded, certificates, signatures};

/// More owners' files than this are no policy.
const MOST_FILES: usize = 10_000;

/// Bytes of all owners' files together.
const LARGEST_OF_ALL: usize = 128 << 20;

/// Reads the configuration at `path` with all that it names.
///
/// # Errors
/// Everything that is wrong, warnings included.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    // Every path of the configuration is absolute, but in messages a file is called what the operator called it.
    let absolute = std::path::absolute(path).map_err(|why| Report::of_file(path, why.to_string()))?;
    let folder = absolute.parent().unwrap_or(&absolute);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let main = read(path, LARGEST).map_err(|why| Report::of_file(path, why))?;
    let mut files = vec![(path.to_owned(), main)];
    let mut wrong: Vec<(Place, String)> = Vec::new();

    // The main file says where the owners' files are. They are read with it anew, so that names are looked up in the whole.
    let mut parsed = Parsed::new(&files, folder, cpus);
    if let Some((policy_dir, place)) = parsed.policy_dir() {
        match owners_files(&policy_dir) {
            Ok(paths) => {
                let mut left = LARGEST_OF_ALL;
                for path in paths {
                    match read(&path, LARGEST) {
                        Ok(bytes) => {
                            left = left.saturating_sub(bytes.len());
                            files.push((path, bytes));
                        }
                        Err(why) => wrong.push((place, format!("{}: {why}", path.display()))),
                    }
                    if left == 0 {
                        wrong.push((place, format!("its files come to more than {} MiB", LARGEST_OF_ALL >> 20)));
                        files.truncate(1);
                        break;
                    }
                }
            }
            Err(why) => wrong.push((place, why)),
        }
        parsed = Parsed::new(&files, folder, cpus);
    }
    let mut held = Vec::new();
    let mut rows = Ok(None);
    for file in std::mem::take(&mut parsed.named) {
        match look(&file) {
            Ok(bytes) if matches!(file.holds, Holds::Known) => rows = signatures::read(&file.path, &bytes).map(Some),
            Ok(bytes) => held.push((file, bytes)),
            Err(why) => wrong.push((file.place, why)),
        }
    }
    if wrong.is_empty() && parsed.findings.errors() == 0 {
        certificates::check(&held, &parsed.hosts, &mut parsed.findings);
    }
    for (place, why) in wrong {
        parsed.findings.error(place, why);
    }
    let policy_dir = parsed.policy_dir().map(|(folder, _)| folder);
    // The table is a file of its own with mistakes of its own: one run shows them as well.
    let (known, of_table) = match rows {
        Ok(None) => (signatures::builtin_alone(), None),
        Ok(Some(rows)) => (Arc::new(signatures::known(rows)), None),
        Err(report) => (signatures::builtin_alone(), Some(report)),
    };
    if of_table.is_none() {
        parsed.look_up_stacks(&known);
    }
    let mut loaded = match (parsed.finish(), of_table) {
        (Ok(loaded), None) => loaded,
        (Ok(Loaded { warnings: report, .. }) | Err(report), Some(of_table)) => return Err(report.and(of_table)),
        (Err(report), None) => return Err(report),
    };
    let configuration = &mut loaded.configuration;
    configuration.known = known;
    configuration.policy_dir = policy_dir.and_then(|folder| std::path::absolute(folder).ok());
    for file in &mut configuration.files {
        *file = std::path::absolute(&file).map_err(|why| Report::of_file(file, why.to_string()))?;
    }
    Ok(loaded)
}

/// What a configuration was loaded from, in its order.
///
/// # Errors
/// A file that cannot be read any more.
pub fn files(configuration: &Configuration) -> Result<Vec<(PathBuf, Vec<u8>)>, Report> {
    let whole = |path: &PathBuf| Ok((path.clone(), read(path, LARGEST).map_err(|why| Report::of_file(path, why))?));
    configuration.files.iter().map(whole).collect()
}

/// A file of certificates, keys or lists that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path}: expected PEM with {expected}, found {found}")]
    Pem { path: PathBuf, expected: &'static str, found: String },
}

impl PemFiles {
    /// These files as well.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn with<'a>(mut self, paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<Self, PemError> {
        for path in paths {
            let bytes = std::fs::read(path).map_err(|source| PemError::Unreadable { path: path.clone(), source })?;
            self.0.insert(path.clone(), bytes);
        }
        Ok(self)
    }
}

/// The files of `policy_dir` by name. Others than `*.yaml` and hidden ones are passed over.
fn owners_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "yaml") && !hidden {
            paths.push(path);
        }
        if paths.len() > MOST_FILES {
            return Err(format!("{}: more than {MOST_FILES} files", folder.display()));
        }
    }
    paths.sort();
    Ok(paths)
}

/// A file's bytes. A file that is too large is not read to its end, nor is a pipe waited on.
fn read(path: &Path, largest: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot read: {error}");
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("cannot read: not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(largest + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > largest) {
        return Err(format!("larger than {} MiB", largest >> 20));
    }
    Ok(bytes)
}

/// The bytes of a file that is there and holds at least one item of its kind. What is in them is checked by whoever uses them.
fn look(file: &NamedFile) -> Result<Vec<u8>, String> {
    let bytes = read(&file.path, LARGEST).map_err(|why| format!("{}: {why}", file.path.display()))?;
    let (found, what) = match file.holds {
        Holds::Certificates | Holds::Presented => (CertificateDer::from_pem_slice(&bytes).is_ok(), "a certificate"),
        Holds::PrivateKey => (PrivateKeyDer::from_pem_slice(&bytes).is_ok(), "a private key"),
        Holds::RevocationList => (CertificateRevocationListDer::from_pem_slice(&bytes).is_ok(), "a revocation list"),
        Holds::Known => return Ok(bytes),
    };
    // Nobody is there to type the password when a proxy starts.
    let sealed = matches!(file.holds, Holds::PrivateKey) && memchr::memmem::find(&bytes, b"ENCRYPTED").is_some();
    match (found, sealed) {
        (true, _) => Ok(bytes),
        (false, true) => Err(format!("{}: the key is behind a password; expected {what} in PEM without one", file.path.display())),
        (false, false) => Err(format!("{}: expected {what} in PEM", file.path.display())),
    }
}
