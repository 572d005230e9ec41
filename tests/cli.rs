//! The commands as people and scripts call them: texts, exit codes, files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Config, Curl, Lab, Origin, Proxy, Reply, Run, program};

const COMMANDS: [&str; 24] = [
    "",
    "run",
    "check",
    "explain",
    "replay",
    "policy",
    "policy history",
    "policy show",
    "devices",
    "devices list",
    "devices show",
    "devices set",
    "devices import",
    "devices revoke",
    "devices baseline",
    "devices blind",
    "certs",
    "certs init",
    "certs issue",
    "certs revoke",
    "demo",
    "fingerprint",
    "schema",
    "help",
];

fn vestibule(dir: &Path, args: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    Run::from(command.args(args).current_dir(dir).env_remove("COLUMNS").output().unwrap())
}

/// The repository's folder.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder, by its path from there.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.insert(name);
        }
    }
    found
}

fn strings(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn every_help_is_readable() {
    for command in COMMANDS.iter().filter(|command| **command != "help") {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = vestibule(here(), &args).succeeded();
        assert_eq!(help.stderr, "", "{command}");
        assert!(help.stdout.contains("Usage: vestibule"), "{command}: {}", help.stdout);
        let lines: Vec<&str> = help.stdout.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            assert!(line.chars().count() <= 100, "{command}: {} columns: {line}", line.chars().count());
            // A command, argument or option that nobody described ends with its name, and none is described below it.
            let names_something = line.starts_with("  ") && (line.trim_start().starts_with(['-', '<', '[']) || line.starts_with("  -"));
            let described_below = lines.get(number + 1).is_some_and(|below| below.starts_with("          "));
            let described = line.trim_start().contains("  ") && !line.ends_with(' ');
            assert!(!names_something || described || described_below, "{command}: no word about{line}");
        }
    }
    // Every command is in the list, and the list has no other.
    let overview = vestibule(here(), &["--help"]).succeeded().stdout;
    let (_, list) = overview.split_once("Commands:\n").unwrap();
    let listed = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let listed: BTreeSet<String> = listed.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    let top = COMMANDS.iter().filter(|command| !command.is_empty() && !command.contains(' '));
    assert_eq!(listed, top.map(ToString::to_string).collect());
    assert!(vestibule(here(), &["--version"]).succeeded().stdout.starts_with("vestibule 0."));
}

#[test]
fn wrong_usage_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        "",
        "frobnicate",
        "run",
        "run -c",
        "run vestibule.yaml",
        "run -c a.yaml -c b.yaml",
        "check",
        "check -c x.yaml --frobnicate",
        "explain -c x.yaml",
        "explain --app wiki",
        "policy",
        "policy history",
        "policy -c x.yaml history --limit 0",
        "policy -c x.yaml history --format csv",
        "policy -c x.yaml show",
        "explain -c x.yaml --app wiki --request 0123",
        "explain -c x.yaml --app wiki --log x.jsonl",
        "replay",
        "replay -c x.yaml",
        "replay --log x.jsonl",
        "replay -c x.yaml --log x.jsonl --format yaml",
        "devices",
        "devices -c x.yaml",
        "devices list",
        "devices -c x.yaml list --format yaml",
        "devices -c x.yaml set laptop",
        "devices -c x.yaml revoke",
        "devices -c x.yaml revoke laptop --lost --retired",
        "devices -c x.yaml --store sqlite://x list",
        "certs",
        "certs issue",
        "certs issue x --days 0",
        "certs issue x --not-after tomorrow",
        "demo --edge-port 70000",
        "demo now",
        "schema config.yaml",
    ] {
        let run = vestibule(dir.path(), &args.split_whitespace().collect::<Vec<_>>());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "`{args}`: {}", run.stderr);
        assert!(run.stderr.contains("--help") || run.stderr.contains("Usage:"), "`{args}`: {}", run.stderr);
    }
    assert_eq!(files(dir.path()), BTreeSet::new());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        "run -c none.yaml",
        "check -c none.yaml",
        "explain -c none.yaml --app wiki",
        "replay -c none.yaml --log none.jsonl",
        "devices -c none.yaml list",
        "devices -c none.yaml set a user=b",
        "devices --store sqlite://none.db list",
        "devices --store sqlite://none.db show a",
        "devices --store sqlite://none.db set a user=b",
        "devices --store sqlite://none.db revoke a",
        "devices --store sqlite://store.db import none.csv",
        "certs issue a --dir none",
        "certs revoke a --dir none",
    ] {
        let run = vestibule(dir.path(), &args.split_whitespace().collect::<Vec<_>>());
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "`{args}`: {}", run.stderr);
        assert!(run.stderr.contains("none") && !run.stderr.contains("panic"), "`{args}`: {}", run.stderr);
    }
    assert_eq!(files(dir.path()), BTreeSet::new(), "a command that fails leaves nothing");
}

#[test]
fn check_names_every_mistake_of_every_file() {
    let origin = Origin::answering(Reply::text(""));
    let lab = Lab::new();
    let good = Config::new(&origin).set("policy_dir", "policy.d");
    fs::create_dir(lab.path("policy.d")).unwrap();
    lab.write("policy.d/knowledge.yaml", "owner: knowledge\nrules:\n  - {name: no-admin, when: {http.path: /admin}, then: block}\n");
    lab.configure(&good);
    let before = files(lab.dir());
    let run = lab.vestibule(&["check", "-c", "vestibule.yaml"]).succeeded();
    assert!(run.stdout.contains("vestibule.yaml: ok, ") && run.stdout.contains("1 app, 4 rules, policy revision "), "{}", run.stdout);
    assert_eq!(run.stderr, "");

    lab.write("policy.d/knowledge.yaml", "owner: knowlege\nrules:\n  - {name: no-admin, when: {http.path: /admin}, then: refuse}\n");
    let bad = good
        .replace("key: certs/edge.key", "key: certs/none.key")
        .set("caps", "\n  - {name: odd, when: {posture.age: \"> 1 fortnight\"}, max_tier: knwon}")
        .set("limts", "{}")
        .replace("with: [read-only, private]", "with: [read-onyl]");
    lab.configure(&bad);
    let run = lab.vestibule(&["check", "-c", "vestibule.yaml"]).failed_with(&[
        "unknown key `limts`; did you mean `limits`?",
        "certs/none.key",
        "did you mean `known`?",
        "did you mean `read-only`?",
        "fortnight",
        "policy.d/knowledge.yaml:1:8: error: owner: ",
        "did you mean `knowledge`?",
        "policy.d/knowledge.yaml:3:",
        "vestibule.yaml: not usable, 7 errors",
    ]);
    assert_eq!(run.stdout, "");
    let places = run.stderr.lines().filter(|line| line.contains(": error: "));
    for line in places.clone() {
        let mut parts = line.split(':');
        let (file, row, column) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        assert!(file.ends_with(".yaml") && row.parse::<u32>().is_ok() && column.parse::<u32>().is_ok(), "no place: {line}");
    }
    assert_eq!(places.count(), 7, "{}", run.stderr);
    assert_eq!(files(lab.dir()), before, "check touches nothing");
}

#[test]
fn check_looks_into_certificates() {
    let origin = Origin::answering(Reply::text(""));
    let lab = Lab::new();
    lab.configure(&Config::new(&origin));
    let other = vestibule::cli::lab_ca::LabCa::create(&lab.path("other"), &["other.example".to_owned()], false).unwrap();
    drop(other);
    fs::copy(lab.path("other/edge.key"), lab.path("certs/edge.key")).unwrap();
    let run = lab.vestibule(&["check", "-c", "vestibule.yaml"]).failed_with(&[
        ": error: listeners[0].tls.certificates[0].key: ",
        "certs/edge.key: the key is of another certificate; expected the key that ",
        "certs/edge.pem was issued for",
        "not usable, 1 error",
    ]);
    assert!(run.stderr.starts_with("vestibule.yaml:"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

#[test]
fn check_warns_of_hosts_that_no_certificate_covers() {
    let origin = Origin::answering(Reply::text(""));
    let lab = Lab::new();
    let hosts = |hosts: &str| {
        lab.configure(&Config::new(&origin).replace("[wiki.localhost]", hosts));
        lab.vestibule(&["check", "-c", "vestibule.yaml"]).succeeded().stdout
    };
    let covered = hosts("[wiki.localhost, a.corp.example, '*.corp.example', '*.localhost', '127.0.0.1', '[::1]']");
    assert!(!covered.contains("covers"), "{covered}");
    let said = hosts("[wiki.localhost, a.b.corp.example, '*.lab.example']");
    for (at, host) in [(1, "a.b.corp.example"), (2, "*.lab.example")] {
        assert!(said.contains(&format!(": warning: apps[0].hosts[{at}]: no certificate of any listener covers `{host}`")), "{said}");
    }
    assert_eq!(said.matches("covers").count(), 2, "{said}");
}

#[test]
fn check_speaks_json_and_prints_what_is_in_effect() {
    let origin = Origin::answering(Reply::text(""));
    let lab = Lab::new();
    let config = Config::new(&origin);
    lab.configure(&config);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let good = json(&lab.vestibule(&["check", "-c", "vestibule.yaml", "--format", "json"]).succeeded().stdout);
    assert_eq!((&good["usable"], &good["errors"], &good["apps"]), (&true.into(), &0.into(), &1.into()));

    // What is printed is a configuration, and the same when it is printed again.
    let printed = lab.vestibule(&["check", "-c", "vestibule.yaml", "--print"]).succeeded().stdout;
    assert!(printed.contains("time_zone: UTC\n") && printed.contains("handshake: \"10s\"\n"), "{printed}");
    lab.write("again.yaml", &printed);
    let again = lab.vestibule(&["check", "-c", "again.yaml", "--print"]).succeeded().stdout;
    assert_eq!(again.replace("again.yaml", "vestibule.yaml"), printed);

    lab.configure(&config.set("limts", "{}"));
    for args in [&["--format", "json"][..], &["--format", "json", "--strict"]] {
        let run = lab.vestibule(&[&["check", "-c", "vestibule.yaml"], args].concat());
        let bad = json(&run.stdout);
        assert_eq!((run.code, &bad["usable"], &bad["errors"]), (Some(1), &false.into(), &1.into()), "{bad}");
        let error = bad["diagnostics"].as_array().unwrap().iter().find(|found| found["level"] == "error").unwrap();
        assert_eq!((&error["file"], &error["key"]), (&"vestibule.yaml".into(), &"limts".into()));
        assert!(error["line"].as_u64().is_some_and(|line| line > 1) && run.stderr.is_empty(), "{bad}{}", run.stderr);
    }
}

/// Each document is a file again: the policy is the same, tests and grants included.
#[test]
fn check_prints_owners_files_as_documents_of_their_own() {
    let dir = copied_tree();
    vestibule(dir.path(), &["certs", "init"]).succeeded();
    let check = |dir: &Path| vestibule(dir, &["check", "-c", "config/vestibule.yaml", "--print"]).succeeded().stdout;
    let printed = check(dir.path());
    let documents: Vec<&str> = printed.split("---\n").collect();
    let owners = files(&dir.path().join("config/policy.d"));
    assert_eq!(documents.len(), 1 + owners.len());
    for (document, name) in
        documents.iter().zip(std::iter::once("vestibule.yaml".to_owned()).chain(owners.iter().map(|name| format!("policy.d/{name}"))))
    {
        assert!(document.lines().next().is_some_and(|line| line.contains(&name)), "{document}");
        fs::write(dir.path().join("config").join(name), document).unwrap();
    }
    assert_eq!(check(dir.path()), printed);
}

/// A copy of config/ without keys, as somebody has it who starts.
fn copied_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in files(&here().join("config")) {
        let to = dir.path().join("config").join(&name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(here().join("config").join(&name), to).unwrap();
    }
    dir
}

/// The files in `../certs/` that the sample configuration names.
fn named_files() -> BTreeSet<String> {
    let text = fs::read_to_string(here().join("config/vestibule.yaml")).unwrap();
    let names = text.split("../certs/").skip(1).map(|rest| rest.split([',', '}', ']', ' ', '\n']).next().unwrap().to_owned());
    names.collect()
}

#[test]
fn certs_init_makes_what_the_sample_names_and_the_sample_runs() {
    let tree = copied_tree();
    let dir = tree.path();
    vestibule(dir, &["check", "-c", "config/vestibule.yaml"]).failed_with(&["edge.pem", "edge.key", "device-ca.pem", "device-crl.pem"]);

    let said = vestibule(dir, &["certs", "init"]).succeeded().stdout;
    let made = files(&dir.join("certs"));
    assert!(named_files().len() >= 4 && named_files().is_subset(&made), "{:?} of {made:?}", named_files());
    // What else is made is what clients trust and what the CA itself needs.
    let rest: BTreeSet<String> = made.difference(&named_files()).cloned().collect();
    assert_eq!(rest, strings(&["device-ca.key", "device-index.json", "edge-ca.pem"]));
    for file in made.iter().filter(|file| *file != "device-index.json") {
        assert!(said.contains(file.as_str()), "{file} is made, and not a word about it: {said}");
    }
    let checked = vestibule(dir, &["check", "-c", "config/vestibule.yaml"]).succeeded();
    assert!(checked.stdout.contains("config/vestibule.yaml: ok, "), "{}", checked.stdout);

    // A command that is called again changes no byte.
    let content = |dir: &Path| files(dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect::<Vec<_>>();
    let before = content(&dir.join("certs"));
    vestibule(dir, &["certs", "init"]).failed_with(&["certs/edge.pem", "not overwritten", "--force"]);
    assert_eq!(content(&dir.join("certs")), before);

    // The sample itself, but for its ports.
    let sample = fs::read_to_string(dir.join("config/vestibule.yaml")).unwrap();
    let sample =
        sample.replace("0.0.0.0:8443", "127.0.0.1:0").replace("0.0.0.0:8080", "127.0.0.1:0").replace("127.0.0.1:9470", "127.0.0.1:0");
    fs::write(dir.join("config/vestibule.yaml"), sample).unwrap();
    let mut proxy = Proxy::start(dir, Path::new("config/vestibule.yaml"));
    let ca = dir.join("certs/edge-ca.pem");
    let curl = || Curl::at(proxy.addr("edge")).arg("--cacert").arg(ca.to_str().unwrap());
    assert_eq!(curl().get("https://wiki.corp.example/").status, 403);
    assert_eq!(Curl::at(proxy.addr("redirect")).get("http://wiki.corp.example/").status, 308);

    // What `certs issue` prints registers the device.
    let issued = vestibule(dir, &["certs", "issue", "laptop"]).succeeded().stdout;
    let (_, register) = issued.split_once("register it:\n").unwrap();
    let register = register.replace("vestibule devices", &format!("{} devices", env!("CARGO_BIN_EXE_vestibule")));
    let run = Run::from(Command::new("sh").args(["-c", &register]).current_dir(dir).output().unwrap()).succeeded();
    assert_eq!(run.stdout, "laptop: added\n");
    let device = |name: &str| curl().arg("--cert").arg(&path(dir, name, "pem")).arg("--key").arg(&path(dir, name, "key"));
    // The sample's app is not there; but the device is known and may ask for it.
    let answer = support::eventually("the registered device is let through", || {
        let answer = device("laptop").get("https://wiki.corp.example/");
        (answer.status != 403).then_some(answer)
    });
    assert_eq!((answer.status, answer.json()["type"].as_str()), (503, Some("urn:vestibule:problem:upstream_unreachable")));
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.ended().code(), Some(0));
    let left = files(&dir.join("data"));
    assert!(
        left.contains("decisions.jsonl") && left.iter().all(|file| file == "decisions.jsonl" || file.starts_with("vestibule.db")),
        "{left:?}"
    );
}

fn path(dir: &Path, name: &str, kind: &str) -> String {
    dir.join(format!("certs/devices/{name}.{kind}")).display().to_string()
}

#[test]
fn openssl_agrees_with_the_lab_ca() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    vestibule(dir, &["certs", "init"]).succeeded();
    for name in ["laptop", "phone"] {
        vestibule(dir, &["certs", "issue", name, "--days", "7"]).succeeded();
    }
    let openssl = |args: &str| Run::from(program("openssl").args(args.split_whitespace()).current_dir(dir).output().unwrap());
    let edge = "verify -x509_strict -CAfile certs/edge-ca.pem -purpose sslserver";
    openssl(&format!("{edge} -verify_hostname wiki.localhost certs/edge.pem")).succeeded();
    openssl(&format!("{edge} -verify_hostname anything.corp.example certs/edge.pem")).succeeded();
    openssl(&format!("{edge} -verify_ip 127.0.0.1 certs/edge.pem")).succeeded();
    assert_ne!(openssl(&format!("{edge} -verify_hostname elsewhere.example certs/edge.pem")).code, Some(0));

    let device = "verify -x509_strict -CAfile certs/device-ca.pem -CRLfile certs/device-crl.pem -crl_check -purpose sslclient";
    for name in ["laptop", "phone"] {
        openssl(&format!("{device} certs/devices/{name}.pem")).succeeded();
    }
    assert_ne!(
        openssl("verify -CAfile certs/device-ca.pem -purpose sslserver certs/devices/laptop.pem").code,
        Some(0),
        "a device is no server"
    );
    assert_ne!(openssl("verify -CAfile certs/edge-ca.pem certs/devices/laptop.pem").code, Some(0));

    // The printed key is that of the certificate, and the private one belongs to it.
    let again = vestibule(dir, &["certs", "issue", "tablet"]).succeeded().stdout;
    let spki = again.split_once("spki_sha256  ").unwrap().1.lines().next().unwrap();
    let hash = "openssl pkey -pubin -outform DER | openssl dgst -sha256 -r";
    for from in ["openssl x509 -in certs/devices/tablet.pem -pubkey -noout", "openssl pkey -in certs/devices/tablet.key -pubout"] {
        let run = Run::from(Command::new("sh").args(["-c", &format!("{from} | {hash}")]).current_dir(dir).output().unwrap()).succeeded();
        assert_eq!(run.stdout.split(' ').next(), Some(spki), "{from}");
    }

    let said = vestibule(dir, &["certs", "revoke", "phone"]).succeeded().stdout;
    assert!(said.contains("certs/device-crl.pem, number 2, 1 certificate"), "{said}");
    openssl(&format!("{device} certs/devices/laptop.pem")).succeeded();
    let refused = openssl(&format!("{device} certs/devices/phone.pem"));
    assert!(refused.code != Some(0) && refused.stderr.contains("certificate revoked"), "{}", refused.stderr);
    let list = openssl("crl -in certs/device-crl.pem -CAfile certs/device-ca.pem -noout -text").succeeded();
    assert!(list.stderr.contains("verify OK") && list.stdout.contains("Revoked Certificates:"), "{}{}", list.stdout, list.stderr);
    vestibule(dir, &["certs", "revoke", "nobody"]).failed_with(&["`nobody`", "certs"]);
    vestibule(dir, &["certs", "issue", "../edge"]).failed_with(&["`../edge`"]);
    vestibule(dir, &["certs", "issue", "laptop"]).failed_with(&["certs/devices/laptop.pem", "--force"]);
}

#[test]
fn schema_is_the_file_that_editors_read() {
    let text = vestibule(here(), &["schema"]).succeeded().stdout;
    assert!(text == fs::read_to_string(here().join("config/vestibule.schema.json")).unwrap());
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert!(schema["$schema"].as_str().is_some_and(|uri| uri.starts_with("https://json-schema.org/")), "{}", schema["$schema"]);
    // The comments that lead editors to it lead somewhere.
    for file in ["config/vestibule.yaml", "config/policy.d/finance.yaml"] {
        let file = here().join(file);
        let text = fs::read_to_string(&file).unwrap();
        let named: PathBuf = text.lines().next().unwrap().split_once("$schema=").unwrap().1.into();
        assert!(file.parent().unwrap().join(&named).is_file(), "{}: {}", file.display(), named.display());
    }
    // A reader that has seen enough is no failure of ours.
    let command = format!("{} schema | head -c 1", env!("CARGO_BIN_EXE_vestibule"));
    let run = Run::from(Command::new("sh").args(["-c", &command]).output().unwrap());
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("{", ""));
}

#[test]
fn explain_says_what_the_proxy_does() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = Config::new(&origin).set(
        "posture",
        r#"{sources: {mdm: {ttl: 24h}, manual: {ttl: 30d}}, fixes: {screen_lock: {text: "Set a screen lock", help: "https://help.corp.example/lock"}}}"#,
    );
    lab.configure(&config);
    let laptop = lab.device("laptop", "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok");
    let open = lab.device("open", "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=fail");
    let gone = lab.device("gone", "ownership=corporate state=lost posture.os_supported=ok posture.screen_lock=ok");
    let proxy = lab.start(&config);
    let cases = [
        (Some(&laptop), "laptop", "GET", "forward, by rule managed"),
        (Some(&laptop), "laptop", "POST", "forward, by rule managed"),
        (Some(&open), "open", "GET", "restrict with read-only, private, by rule byod-read"),
        (Some(&open), "open", "POST", "restrict with read-only, private, by rule byod-read"),
        (Some(&gone), "gone", "GET", "block, by rule rest"),
        (None, "", "GET", "block, by rule rest"),
    ];
    for (issued, id, method, decision) in cases {
        let mut args = vec!["explain", "-c", "vestibule.yaml", "--app", "wiki", "--method", method, "--path", "/page"];
        if !id.is_empty() {
            args.extend(["--device", id]);
        }
        let said = lab.vestibule(&args).succeeded().stdout;
        assert!(said.contains(&format!("\nDecision: {decision}\n")), "{id} {method}: {said}");
        assert!(said.lines().all(|line| line.chars().count() <= 120), "{said}");
        let refused = "\n  refused  POST is answered 403, restrict.methods; open are GET, HEAD, OPTIONS\n";
        assert_eq!(said.contains(refused), (id, method) == ("open", "POST"), "{said}");

        let curl = Curl::to(&proxy, &lab).arg("--request").arg(method);
        let id_of_answer = match issued {
            Some(issued) => curl.device(issued).get("https://wiki.localhost/page"),
            None => curl.get("https://wiki.localhost/page"),
        };
        assert_eq!(id_of_answer.exit, 0);
    }
    let log = lab.decisions(cases.len());
    for (_, id, method, decision) in cases {
        let device = if id.is_empty() { Value::Null } else { id.into() };
        let line = log.iter().find(|line| line["device"] == device && line["method"] == method).unwrap();
        let effect = line["effect"].as_str().unwrap();
        assert!(decision.starts_with(effect) && decision.ends_with(&format!("by rule {}", line["rule"].as_str().unwrap())), "{line}");
    }
    let fix = lab.vestibule(&["explain", "-c", "vestibule.yaml", "--app", "wiki", "--device", "open"]).succeeded().stdout;
    assert!(
        fix.contains(
            "\nSmallest fix, to forward\n  posture.screen_lock is fail, wanted ok: Set a screen lock (https://help.corp.example/lock)\n"
        ),
        "{fix}"
    );
    let changed =
        lab.vestibule(&["explain", "-c", "vestibule.yaml", "--app", "wiki", "--device", "open", "--set", "posture.screen_lock=ok"]);
    assert!(changed.succeeded().stdout.contains("\nDecision: forward, by rule managed\n"));

    for (args, words) in [
        (&["--app", "wik"][..], &["no app named `wik`", "did you mean `wiki`?"][..]),
        (&["--app", "wiki", "--device", "lapto"], &["lapto"]),
        (&["--app", "wiki", "--set", "posture.screen_lock=maybe"], &["maybe"]),
        (&["--app", "wiki", "--set", "device.sate=lost"], &["device.sate"]),
        (&["--app", "wiki", "--set", "tier"], &["tier"]),
        (&["--app", "wiki", "--path", "nowhere"], &["nowhere"]),
    ] {
        let run = lab.vestibule(&[&["explain", "-c", "vestibule.yaml"], args].concat()).failed_with(words);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn an_import_with_mistakes_names_each_and_takes_nothing() {
    let lab = Lab::new();
    let origin = Origin::answering(Reply::text(""));
    lab.configure(&Config::new(&origin));
    let devices = |args: &[&str]| lab.vestibule(&[&["devices", "-c", "vestibule.yaml"], args].concat());
    lab.write("fleet.csv", "id,user,state,source,posture.patched,keys\na,ada,approved,mdm,ok,serial:1\nb,bob,approved,mdm,fail,serial:2\n");
    let first = devices(&["import", "fleet.csv"]).succeeded();
    assert_eq!(first.stdout, "added 2, updated 0, unchanged 0\n");
    let before = devices(&["list", "--format", "json"]).succeeded().stdout;

    lab.write(
        "bad.csv",
        "id,user,state,source,posture.patched,keys\nc,cleo,approved,mdm,ok,\nd,dan,aproved,mdm,okay,serial:1\ne,eve,,hearsay,ok,sn:5\n",
    );
    let run = devices(&["import", "bad.csv"]).failed_with(&[
        "bad.csv:3: ",
        "bad.csv:4: ",
        "aproved",
        "okay",
        "hearsay",
        "`sn`",
        "nothing was imported",
    ]);
    assert_eq!(run.stdout, "");
    for (name, text, words) in [
        ("columns.csv", "id,usr\nc,x\n", &["columns.csv:1", "usr", "user"][..]),
        ("ragged.csv", "id,user\nc,x\nd\n", &["ragged.csv:3"]),
        ("twice.csv", "id,user,id\nc,x,c\n", &["twice.csv:1", "id"]),
        ("no-id.csv", "user\nada\n", &["no-id.csv:1", "id"]),
        ("empty.csv", "", &["empty.csv"]),
        ("binary.csv", "id,user\nc,\u{fffd}\u{0}\n", &["binary.csv:2"]),
        ("stolen-key.csv", "id,keys\nc,serial:1\n", &["stolen-key.csv:2", "serial:1", "`a`"]),
        ("bad.json", "[{\"id\": \"c\"},\n {\"id\": 5}]", &["bad.json:2", "id"]),
        ("cut.json", "[{\"id\": \"c\"},\n {\"id\": ", &["cut.json:2"]),
        ("unknown.json", "[{\"id\": \"c\",\n \"sate\": \"lost\"}]", &["unknown.json:", "sate", "state"]),
        ("not.json", "id,user\n", &["not.json:1"]),
    ] {
        lab.write(name, text);
        let run = devices(&["import", name]).failed_with(words);
        assert_eq!(run.stdout, "", "{name}");
    }
    assert_eq!(devices(&["list", "--format", "json"]).succeeded().stdout, before);
}
