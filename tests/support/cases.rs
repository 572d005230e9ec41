//! Cases of `tests/cases/config/`.
#![allow(dead_code, reason = "not every test asks all of a case")]

use std::path::{Path, PathBuf};

use vestibule::config::{self, Report, Stage};

pub struct Case {
    pub name: String,
    pub files: Vec<(PathBuf, Vec<u8>)>,
    pub input: String,
    pub expected: String,
}

impl Case {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (input, expected) = text.split_once("\n--------\n").map_or((text.as_str(), ""), |(input, expected)| (input, expected));
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for part in input.split("=== ") {
            if files.is_empty() {
                files.push(("main.yaml".into(), part.as_bytes().to_vec()));
            } else {
                let (name, rest) = part.split_once('\n').unwrap();
                files.push((name.into(), rest.as_bytes().to_vec()));
            }
        }
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            files,
            input: input.to_owned(),
            expected: expected.to_owned(),
        }
    }

    pub fn all() -> Vec<(PathBuf, Self)> {
        let mut paths: Vec<_> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/config"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        assert!(paths.len() > 20, "the cases are gone");
        paths.into_iter().map(|path| (path.clone(), Self::read(&path))).collect()
    }

    /// What the files give: all diagnostics, and whether they are usable.
    pub fn report(&self) -> (Report, bool) {
        match config::parse(&self.files) {
            Ok(loaded) => (loaded.warnings, true),
            Err(report) => (report, false),
        }
    }

    /// The files that are YAML, each with its text and whether its form is right: what a schema can see. A broken main file can be taken for an
    /// owner's, and the other way round: the schema tells them apart by `owner`, and those are left out.
    pub fn formed(&self) -> Vec<(PathBuf, String, bool)> {
        let (report, _) = self.report();
        let mut formed = Vec::new();
        for (path, bytes) in &self.files {
            let mine = || report.diagnostics().iter().filter(|d| d.position().0 == path);
            let of_owner = String::from_utf8_lossy(bytes).lines().any(|line| line.starts_with("owner:"));
            if mine().any(|d| d.stage == Stage::Syntax) || of_owner != (path != Path::new("main.yaml")) {
                continue;
            }
            if let Ok(text) = String::from_utf8(bytes.clone()) {
                formed.push((path.clone(), text, !mine().any(|d| d.stage == Stage::Shape)));
            }
        }
        formed
    }
}
