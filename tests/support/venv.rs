//! Python with packages from PyPI, in a virtual environment that stays for the next run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The interpreter of an environment that has exactly these packages, pinned: `curl_cffi==0.16.3`.
pub fn python(packages: &[&str]) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = packages.join("-").replace("==", "-");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv").join(name);
    let (python, whole) = (folder.join("bin/python"), folder.join("whole"));
    if !whole.exists() {
        let _ = std::fs::remove_dir_all(&folder);
        ran(super::program("python3").args(["-m", "venv"]).arg(&folder));
        ran(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages));
        std::fs::write(whole, "").unwrap();
    }
    python
}

/// A program that a package brings. Leaves the mark that tests/check.sh looks for.
pub fn program(package: &str, name: &str) -> Command {
    let program = python(&[package]).with_file_name(name);
    super::drives(name);
    Command::new(program)
}

fn ran(command: &mut Command) {
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
}
