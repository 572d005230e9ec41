//! A large configuration from its files to tables: 10,000 apps with 100,000 rules, of which 500 apps stand in the main file and the rest in the files of 95 owners,
//! with rules of their own over their apps. `cargo bench --bench load` prints the time of each step; the whole must stay below 5 s.

use std::fmt::Write;
use std::path::PathBuf;

use divan::Bencher;
use vestibule::config;
use vestibule::policy::Policy;

const OWNERS: usize = 100;
const APPS_EACH: usize = 100;
/// Of an app itself; an owner's file holds as many over all its apps.
const RULES: usize = 9;

fn main() {
    divan::main();
}

fn rules(indent: &str, apps: usize) -> String {
    let mut text = String::new();
    for n in 0..RULES {
        let when = match n % 3 {
            0 => format!("{{tier: '>= known', http.path: ['/area-{n}', '/area-{n}/*']}}"),
            1 => format!("{{class: corporate, http.method: [GET, HEAD], net.zone: office, http.header.x-team: team-{n}}}"),
            _ => format!("{{device.os: macos, device.os_version: '>= {n}', posture.disk_encrypted: ok, device.team: team-{apps}}}"),
        };
        let then = ["forward", "restrict, with: [read-only]", "block"][n / 3];
        let _ = writeln!(text, "{indent}- {{name: rule-{n}, when: {when}, then: {then}}}");
    }
    text
}

fn app(name: &str, owner: &str) -> String {
    format!(
        "  - name: {name}\n{owner}    labels: [label-{}]\n    hosts: [{name}.corp.example]\n    upstream: {{servers: ['http://127.0.0.1:7001']}}\n    rules:\n{}      \
           - {{name: rest, then: block}}\n",
        name.len(),
        rules("      ", name.len())
    )
}

fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let mut main = "\
version: 1
listeners: [{name: edge, bind: ['127.0.0.1:8443']}]
store: {url: 'sqlite://data.db'}
decision_log: {path: '-'}
networks: {office: [10.0.0.0/8]}
posture: {sources: {mdm: {ttl: 24h}}}
classes: [{name: corporate, when: {device.ownership: corporate}}, {name: other, when: {}}]
tiers: [{name: none}, {name: known, require: {device.state: approved}}, {name: healthy, require: {posture.patched: ok}}]
restrictions: {read-only: {methods: [GET, HEAD]}}
guardrails:
  - {name: gone, when: {device.state: [suspended, lost, retired]}, then: block}
  - {name: floor, apps: {label: label-8}, when: {tier: '< healthy'}, then: block}
policy_dir: policy.d
owners:
"
    .to_owned();
    for owner in 0..OWNERS {
        let _ = writeln!(main, "  owner-{owner}: {{contact: owner-{owner}@corp.example}}");
    }
    main.push_str("apps:\n");
    let name = |owner: usize, n: usize| format!("app-{owner}-{n}");
    for owner in 0..OWNERS / 20 {
        (0..APPS_EACH).for_each(|n| main.push_str(&app(&name(owner, n), &format!("    owner: owner-{owner}\n"))));
    }
    let mut files = vec![(PathBuf::from("vestibule.yaml"), main.into_bytes())];
    for owner in OWNERS / 20..OWNERS {
        let apps: String = (0..APPS_EACH).map(|n| app(&name(owner, n), "")).collect();
        let text = format!("owner: owner-{owner}\napps:\n{apps}rules:\n{}", rules("  ", owner));
        files.push((PathBuf::from(format!("policy.d/owner-{owner}.yaml")), text.into_bytes()));
    }
    files
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn from_files_to_tables(bencher: Bencher<'_, '_>) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("policy.d")).expect("a folder");
    for (path, bytes) in files() {
        std::fs::write(folder.path().join(path), bytes).expect("a file");
    }
    let main = folder.path().join("vestibule.yaml");
    bencher.bench_local(|| {
        let loaded = config::load(&main).expect("a good configuration");
        let rules: usize = loaded.configuration.policy.apps.iter().map(|app| app.rules.len()).sum();
        assert_eq!((loaded.configuration.policy.apps.len(), rules), (10_000, 100_000));
        Policy::compile(loaded.configuration.policy)
    });
}

/// Reading, checking and linting alone.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn from_text_to_configuration(bencher: Bencher<'_, '_>) {
    let files = files();
    bencher.bench_local(|| config::parse(&files).expect("a good configuration"));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn from_configuration_to_tables(bencher: Bencher<'_, '_>) {
    let policy = config::parse(&files()).expect("a good configuration").configuration.policy;
    bencher.with_inputs(|| policy.clone()).bench_local_values(Policy::compile);
}
