//! Why the device store could not do what was asked.

use std::path::PathBuf;

use super::values::Wrong;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator's: nothing there, and nobody asked to create it.
    #[error("device store {}: there is no such file", path.display())]
    Missing { path: PathBuf },
    #[error("device store {}: this is a directory, expected a SQLite file", path.display())]
    Directory { path: PathBuf },
    #[error("device store {}: cannot be created or opened", path.display())]
    Unopenable { path: PathBuf, source: std::io::Error },
    #[error("device store {}: this is not a SQLite database", path.display())]
    NotSqlite { path: PathBuf },
    #[error("device store {}: this SQLite database is not a device store", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "device store {}: written by a newer vestibule (schema {found}; this one knows {known}); update this program, or restore the copy from before the update",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("device store {}: the file is damaged ({detail}); restore a backup", path.display())]
    Corrupt { path: PathBuf, detail: String },
    #[error("device store {}: the file cannot be written by this user", path.display())]
    ReadOnly { path: PathBuf },
    /// A retry helps.
    #[error("device store {}: another process holds the lock; try again", path.display())]
    Busy { path: PathBuf },
    #[error("device store {}: the disk is full", path.display())]
    Full { path: PathBuf },
    #[error("device store {}: cannot keep a write-ahead log beside the file (network file system?)", path.display())]
    NoWal { path: PathBuf },
    /// Removed or replaced under a running proxy. It is opened anew when a store stands there again.
    #[error("device store {}: the file was removed or replaced", path.display())]
    Replaced { path: PathBuf },
    #[error("device store {}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    /// Somebody edited the database by hand.
    #[error("device store {}: device `{device}`: {wrong}", path.display())]
    Record { path: PathBuf, device: String, wrong: Box<Wrong> },
    #[error("no device `{id}`{}", nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    NoDevice { id: String, nearest: Option<String> },
    /// Nothing was written. One for each key, `edit` is the index of the edit that wanted it.
    #[error("{}", taken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    KeysTaken { taken: Vec<Taken> },
    /// Nothing was written. `edit` is the index of the edit.
    #[error("device `{device}`: {wrong}")]
    Edit { edit: usize, device: String, wrong: Box<Wrong> },
    #[error("the thread that reads the device store cannot be started")]
    Thread { source: std::io::Error },
}

/// A key that was to go to one device and belongs to another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device `{device}`: the key {key} belongs to device `{owner}`; take it from there first")]
pub struct Taken {
    pub edit: usize,
    pub device: String,
    /// `kind:value`.
    pub key: String,
    pub owner: String,
}
