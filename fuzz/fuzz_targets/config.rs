#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use vestibule::config::{self, Report};
use vestibule::policy::Policy;

/// Between the main file and an owner's.
const NEXT: &[u8] = b"\n=== owner.yaml\n";

fuzz_target!(|bytes: &[u8]| {
    let at = bytes.windows(NEXT.len()).position(|window| window == NEXT);
    let (main, owner) = at.map_or((bytes, None), |at| (&bytes[..at], Some(&bytes[at + NEXT.len()..])));
    let mut files = vec![(PathBuf::from("main.yaml"), main.to_vec())];
    files.extend(owner.map(|owner| (PathBuf::from("owner.yaml"), owner.to_vec())));
    match config::parse(&files) {
        Ok(loaded) => {
            in_its_file(&loaded.warnings, &files);
            // What is in effect is a configuration again, and the same.
            let printed = config::effective(&files);
            let documents: Vec<&str> = printed.split("\n---\n").collect();
            assert_eq!(documents.len(), files.len(), "{printed}");
            let again: Vec<_> = files.iter().zip(documents).map(|((path, _), text)| (path.clone(), format!("{text}\n").into_bytes())).collect();
            let again = config::parse(&again).unwrap_or_else(|report| panic!("{report}\n{printed}"));
            assert_eq!(format!("{:?}", again.configuration.policy.apps), format!("{:?}", loaded.configuration.policy.apps), "{printed}");
            drop(Policy::compile(loaded.configuration.policy));
        }
        Err(report) => {
            assert!(report.count(config::Level::Error) > 0);
            in_its_file(&report, &files);
        }
    }
});

/// Every place is one of the file that it names.
fn in_its_file(report: &Report, files: &[(PathBuf, Vec<u8>)]) {
    for item in report.diagnostics() {
        let (file, line, column) = item.position();
        let bytes = files.iter().find(|(path, _)| path == file).map(|(_, bytes)| bytes.len()).expect("a file that was given");
        assert!(line >= 1 && column >= 1 && line <= bytes + 1 && column <= bytes + 1, "{}", item.line());
        assert!(!item.message.ends_with("please report this"), "{}", item.line());
    }
    let _ = report.to_string();
}
