//! The lab CA's files: written all or none, keys for their owner only, one writer at a time.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lab_ca::Error;

/// What was issued and what of it was revoked. The revocation list is made from this.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    pub crl_number: u64,
    pub issued: Vec<Issuance>,
}

/// One certificate. Times are RFC 3339, the serial is in hex.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuance {
    pub name: String,
    pub serial: String,
    pub until: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

impl Index {
    pub fn read(path: &Path) -> Result<Self, Error> {
        serde_json::from_str(&read(path)?).map_err(|e| Error::Broken(path.to_owned(), format!("is not an index of certificates: {e}")))
    }

    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|e| Error::Read(path.to_owned(), e))
}

/// A file to be written.
pub struct File {
    path: PathBuf,
    content: String,
    mode: u32,
}

impl File {
    pub fn public(path: PathBuf, content: String) -> Self {
        Self { path, content, mode: 0o644 }
    }

    pub fn secret(path: PathBuf, content: String) -> Self {
        Self { path, content, mode: 0o600 }
    }

    fn beside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.new"))
    }
}

pub fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|e| Error::Write(dir.to_owned(), e))
}

/// Held until dropped; two commands at once must not lose each other's certificates.
pub fn lock(dir: &Path) -> Result<fs::File, Error> {
    let open = || {
        let handle = fs::File::open(dir)?;
        handle.lock()?;
        Ok(handle)
    };
    open().map_err(|e| Error::Read(dir.to_owned(), e))
}

pub fn refuse_existing(paths: impl IntoIterator<Item = PathBuf>, replace: bool) -> Result<(), Error> {
    let there: Vec<PathBuf> = paths.into_iter().filter(|p| p.symlink_metadata().is_ok()).collect();
    if let Some(folder) = there.iter().find(|p| p.is_dir()) {
        return Err(Error::Broken(folder.clone(), "is a folder, and a file belongs there".to_owned()));
    }
    if there.is_empty() || replace { Ok(()) } else { Err(Error::Exists(there)) }
}

/// Writes all files beside their places first and then renames them, so that a full disk or a missing permission changes nothing.
pub fn write_all(files: &[File]) -> Result<(), Error> {
    let result = write_beside(files).and_then(|()| rename_all(files));
    if result.is_err() {
        for file in files {
            let _ = fs::remove_file(file.beside());
        }
    }
    result
}

fn write_beside(files: &[File]) -> Result<(), Error> {
    for file in files {
        let beside = file.beside();
        let write = || -> io::Result<()> {
            if let Err(e) = fs::remove_file(&beside)
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(e);
            }
            let mut handle = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&beside)?;
            handle.write_all(file.content.as_bytes())?;
            handle.sync_all()
        };
        write().map_err(|e| Error::Write(file.path.clone(), e))?;
    }
    Ok(())
}

fn rename_all(files: &[File]) -> Result<(), Error> {
    let mut fresh: Vec<&Path> = Vec::new();
    for file in files {
        let existed = file.path.symlink_metadata().is_ok();
        if let Err(e) = fs::rename(file.beside(), &file.path) {
            for path in fresh {
                let _ = fs::remove_file(path);
            }
            return Err(Error::Write(file.path.clone(), e));
        }
        if !existed {
            fresh.push(&file.path);
        }
    }
    for dir in files.iter().filter_map(|f| f.path.parent()) {
        let _ = fs::File::open(dir).and_then(|d| d.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("b/in-the-way"), "").unwrap();
        let files = [File::public(dir.path().join("a"), "1".into()), File::public(dir.path().join("b"), "2".into())];
        assert!(write_all(&files).is_err());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["b"]);
    }

    #[test]
    fn a_leftover_of_a_crash_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".a.new"), "half").unwrap();
        write_all(&[File::secret(dir.path().join("a"), "whole".into())]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "whole");
    }
}
