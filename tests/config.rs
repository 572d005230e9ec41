//! The configuration as people write it, from outside: case files, the sample, the schema, the reference, and hostile input.
//!
//! A case in `tests/cases/config/` is an input, a line of dashes, and the diagnostics that it gives, one a line. More files than the main one
//! begin with a line `=== NAME`. `VESTIBULE_BLESS=1 cargo test --test config` rewrites what is generated: read the difference before you commit it.

#[path = "support/cases.rs"]
mod cases;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cases::Case;
use serde_json::Value;
use vestibule::config::{self, Level};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn blessing() -> bool {
    std::env::var_os("VESTIBULE_BLESS").is_some()
}

/// Compares a generated file with what it should be, or writes it.
fn up_to_date(path: &str, text: &str) {
    if blessing() {
        std::fs::write(here(path), text).unwrap();
    }
    let is = std::fs::read_to_string(here(path)).unwrap_or_default();
    assert!(is == text, "{path} is stale: VESTIBULE_BLESS=1 cargo test --test config");
}

#[test]
fn every_case_gives_its_diagnostics() {
    let mut wrong = Vec::new();
    for (path, case) in Case::all() {
        let (report, usable) = case.report();
        assert_eq!(usable, report.count(Level::Error) == 0, "{}", case.name);
        let lines = report.lines();
        if blessing() {
            std::fs::write(&path, format!("{}\n--------\n{lines}", case.input)).unwrap();
        } else if lines != case.expected {
            wrong.push(format!("{}:\nexpected\n{}found\n{lines}", case.name, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_terminal_sees_the_line_with_the_mark() {
    let text = "version: 1\nlisteners: [{name: edge, bindd: ['127.0.0.1:1']}]\n";
    let report = config::parse(&[("v.yaml".into(), text.into())]).unwrap_err();
    let rendered = report.to_string();
    let expected = "\
v.yaml:2:26: error: listeners[0].bindd: unknown key `bindd`; did you mean `bind`?
  |
2 | listeners: [{name: edge, bindd: ['127.0.0.1:1']}]
  |                          ^^^^^
";
    assert!(rendered.contains(expected), "{rendered}");
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    let text = "version: 1\nstore: {url: 'postgres://me:hunter2@db/x'}\napps: [{upstream: {servers: ['http://me:hunter2@a']}}]\n";
    let report = config::parse(&[("v.yaml".into(), text.into())]).unwrap_err();
    assert!(
        report.lines().contains("store.url: expected `sqlite://`") && report.lines().contains("servers[0]: found a URL with a user name")
    );
    let servers = report.diagnostics().iter().filter(|d| ["store.url", "apps[0].upstream.servers[0]"].contains(&d.key.as_str()));
    let alone: Vec<String> = servers.map(|d| d.render()).collect();
    assert_eq!(alone.len(), 2);
    assert!(!alone.concat().contains("hunter2"), "{alone:?}");
}

#[test]
fn the_sample_configuration_is_good() {
    let main = here("config/vestibule.yaml");
    let mut files = vec![(main.clone(), std::fs::read(&main).unwrap())];
    let finance = here("config/policy.d/finance.yaml");
    files.push((finance.clone(), std::fs::read(&finance).unwrap()));
    let loaded = config::parse(&files).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.lines());
    let configuration = loaded.configuration;
    assert_eq!(configuration.routes.len(), 4);
    assert_eq!(configuration.routes.len(), configuration.policy.apps.len());
    assert_eq!(configuration.store.path, here("config/../data/vestibule.db"));
    assert_eq!(configuration.policy.layers.len(), 3);
    assert_eq!(configuration.policy.layers[0].apps.len(), 2, "payroll and invoices");
    assert_eq!(configuration.limits.handshake, Duration::from_secs(10));
    assert_eq!(configuration.limits.body_size, Some(1 << 30));
}

/// What `check --print` prints, cut into the files that it was made from.
fn printed(files: &[(PathBuf, Vec<u8>)]) -> Vec<(PathBuf, Vec<u8>)> {
    let text = config::effective(files);
    let documents: Vec<&str> = text.split("\n---\n").collect();
    assert_eq!(documents.len(), files.len(), "{text}");
    files.iter().zip(documents).map(|((path, _), document)| (path.clone(), format!("{document}\n").into_bytes())).collect()
}

/// All that a configuration is, but for the name of its text and where its tests stand.
fn substance(files: &[(PathBuf, Vec<u8>)]) -> String {
    let shown = || files.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect::<String>();
    let mut configuration = config::parse(files).unwrap_or_else(|report| panic!("{report}\n{}", shown())).configuration;
    configuration.policy.revision.clear();
    configuration.tests.iter_mut().for_each(|test| test.at.clear());
    format!("{configuration:#?}")
}

#[test]
fn the_configuration_in_effect_is_the_same_configuration() {
    let sample = ["config/vestibule.yaml", "config/policy.d/finance.yaml"].map(|path| (here(path), std::fs::read(here(path)).unwrap()));
    let good = Case::all().into_iter().filter(|(_, case)| case.report().1).map(|(_, case)| case.files);
    let mut count = 0;
    for files in good.chain([sample.to_vec()]) {
        let again = printed(&files);
        assert_eq!(substance(&files), substance(&again));
        assert_eq!(config::effective(&again), config::effective(&files), "what is printed is printed the same");
        count += 1;
    }
    assert!(count > 10, "{count}");
    let text = config::effective(&sample);
    for default in [
        "fingerprint_headers: none\n",
        "handshake: \"10s\"\n",
        "      slashes: merge\n",
        "  rotate: \"1GiB\"\n",
        "        connect: \"2s\"\n",
    ] {
        assert!(text.contains(default), "{default}{text}");
    }
}

#[test]
fn the_schema_file_is_up_to_date() {
    up_to_date("config/vestibule.schema.json", &config::schema());
}

#[test]
fn the_reference_is_up_to_date() {
    up_to_date("docs/configuration.md", &config::reference());
}

#[test]
fn schema_and_parser_agree_on_form() {
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    let (mut good, mut bad) = (0, 0);
    for (_, case) in Case::all() {
        for (path, text, wellformed) in case.formed() {
            let options = serde_saphyr::options! { strict_booleans: true };
            let Ok(value) = serde_saphyr::from_str_with_options::<Value>(&text, options) else { continue };
            let accepted = schema_accepts(&schema, &schema, &value);
            assert_eq!(accepted, wellformed, "{} {}: the schema says {accepted}", case.name, path.display());
            if accepted { good += 1 } else { bad += 1 }
        }
    }
    assert!(good > 10 && bad > 5, "{good} good, {bad} bad");
}

/// The keywords of JSON Schema that the schema uses, and no other.
fn schema_accepts(root: &Value, schema: &Value, value: &Value) -> bool {
    let object = schema.as_object().expect("a schema is an object");
    let sub = |schema: &Value, value: &Value| schema_accepts(root, schema, value);
    let matches = |pattern: &str, text: &str| fancy_regex::Regex::new(pattern).unwrap().is_match(text).unwrap();
    object.iter().all(|(keyword, with)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" | "$defs" | "then" | "else" | "patternProperties" => true,
        "if" => sub(if sub(with, value) { &schema["then"] } else { &schema["else"] }, value),
        "$ref" => sub(root.pointer(with.as_str().unwrap().trim_start_matches('#')).expect("a definition"), value),
        "anyOf" => with.as_array().unwrap().iter().any(|schema| sub(schema, value)),
        "enum" => with.as_array().unwrap().contains(value),
        "const" => with == value,
        "type" => with.as_array().map_or(std::slice::from_ref(with), Vec::as_slice).iter().any(|of| match of.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            other => panic!("type {other}"),
        }),
        "pattern" => value.as_str().is_none_or(|text| matches(with.as_str().unwrap(), text)),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= with.as_u64().unwrap()),
        "minimum" => value.as_i64().is_none_or(|number| number >= with.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|number| number <= with.as_i64().unwrap()),
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= with.as_u64().unwrap()),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| sub(with, item))),
        "required" => {
            value.as_object().is_none_or(|map| with.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap())))
        }
        "properties" | "additionalProperties" => value.as_object().is_none_or(|map| {
            let empty = serde_json::Map::new();
            let named = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
            let patterns = schema.get("patternProperties").and_then(Value::as_object).unwrap_or(&empty);
            map.iter().all(|(key, value)| {
                let patterned: Vec<&Value> =
                    patterns.iter().filter(|(pattern, _)| matches(pattern, key)).map(|(_, schema)| schema).collect();
                let known = named.contains_key(key) || !patterned.is_empty();
                known && named.get(key).into_iter().chain(patterned).all(|schema| sub(schema, value))
            })
        }),
        other => panic!("keyword {other}"),
    })
}

/// One error, at a place, within a second: whatever the bytes.
fn refused(bytes: &[u8]) -> String {
    let start = Instant::now();
    let report = config::parse(&[("f.yaml".into(), bytes.to_vec())]).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    report.lines()
}

#[test]
fn hostile_nesting_is_refused() {
    for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "a: &a [*a]".to_owned()] {
        let lines = refused(text.as_bytes());
        assert!(
            lines.contains("nested deeper than 32 levels") || lines.contains("not readable as YAML") || lines.contains("alias"),
            "{lines}"
        );
    }
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(",")));
    }
    let lines = refused(text.as_bytes());
    assert!(lines.contains("aliases that come to more than") || lines.contains("more than 200000 values"), "{lines}");
}

#[test]
fn a_huge_file_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.yaml");
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let start = Instant::now();
    let report = config::load(&path).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(report.lines().contains("larger than 16 MiB"), "{}", report.lines());
}

#[test]
fn many_mistakes_make_a_bounded_report() {
    let comments = "# c\n".repeat(1_000_000);
    let keys: String = (0..60_000).map(|n| format!("listener{n}: {n}\n")).collect();
    let start = Instant::now();
    let report = config::parse(&[("f.yaml".into(), (comments + &keys).into_bytes())]).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(report.diagnostics().len() <= 500 && report.dropped() > 50_000, "{}", report.dropped());
    let long = format!("{}: 1\n{}: 1\n", "k".repeat(5 << 20), "l".repeat(5 << 20));
    assert!(refused(long.as_bytes()).len() < 10_000);
}

#[test]
fn other_encodings_are_named() {
    let utf16: Vec<u8> = "version: 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(refused(&utf16).starts_with("f.yaml:1:1: error: not UTF-8: this looks like UTF-16"));
    assert!(refused(b"version: 1\nowners: \xff").starts_with("f.yaml:2:9: error: not UTF-8: the byte 0xff"));
}

#[test]
fn a_missing_file_is_named() {
    let report = config::load(Path::new("no/such.yaml")).unwrap_err();
    assert!(report.lines().starts_with("no/such.yaml:1:1: error: cannot read: "), "{}", report.lines());
    let folder = tempfile::tempdir().unwrap();
    let report = config::load(folder.path()).unwrap_err();
    assert!(report.lines().contains("not a regular file"), "{}", report.lines());
}

#[test]
fn files_that_it_names_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(path("edge.pem"), certificate.pem()).unwrap();
    std::fs::write(path("edge.key"), key.serialize_pem()).unwrap();
    let main = "\
version: 1
listeners:
  - name: edge
    bind: ['127.0.0.1:0']
    tls:
      certificates:
        - {cert: edge.pem, key: edge.key}
        - {cert: edge.key, key: missing.key}
      client_ca: [edge.pem]
      client_crl: [edge.pem]
store: {url: 'sqlite://data.db'}
owners: {it: {contact: it}}
tiers: [{name: none}]
apps:
  - {name: a, owner: it, hosts: [a.example], upstream: {servers: ['http://127.0.0.1:1']}}
policy_dir: policy.d
";
    std::fs::write(path("v.yaml"), main).unwrap();
    let report = config::load(&path("v.yaml")).unwrap_err();
    let errors: Vec<String> =
        report.diagnostics().iter().filter(|d| d.level == Level::Error).map(|d| format!("{} {}", d.key, d.message)).collect();
    assert_eq!(errors.len(), 4, "{errors:#?}");
    assert!(
        errors[0].starts_with("listeners[0].tls.certificates[1].cert ") && errors[0].ends_with("edge.key: expected a certificate in PEM")
    );
    assert!(errors[1].starts_with("listeners[0].tls.certificates[1].key ") && errors[1].contains("missing.key: cannot read"));
    assert!(errors[2].starts_with("listeners[0].tls.client_crl[0] ") && errors[2].ends_with("expected a revocation list in PEM"));
    assert!(errors[3].starts_with("policy_dir ") && errors[3].contains("policy.d: "), "{}", errors[3]);

    let good = main.replace("        - {cert: edge.key, key: missing.key}\n", "").replace("      client_crl: [edge.pem]\n", "");
    std::fs::write(path("v.yaml"), &good).unwrap();
    std::fs::create_dir(path("policy.d")).unwrap();
    std::fs::write(path("policy.d/b.yaml"), "owner: it\nrules: [{name: r, then: block}]\n").unwrap();
    std::fs::write(path("policy.d/a.yaml"), "owner: it\nrules: [{name: q, then: block}]\n").unwrap();
    std::fs::write(path("policy.d/README"), "not read").unwrap();
    let loaded = config::load(&path("v.yaml")).unwrap_or_else(|report| panic!("{report}"));
    let configuration = loaded.configuration;
    assert_eq!(configuration.files, [path("v.yaml"), path("policy.d/a.yaml"), path("policy.d/b.yaml")]);
    assert_eq!(configuration.store.path, path("data.db"));
    assert_eq!(configuration.policy.layers.iter().map(|layer| layer.rule.name.as_str()).collect::<Vec<_>>(), ["q", "r"]);
    assert_eq!(configuration.listeners[0].tls.as_ref().unwrap().certificates[0].cert, path("edge.pem"));

    std::fs::write(path("policy.d/b.yaml"), "owner: nobody\n").unwrap();
    let report = config::load(&path("v.yaml")).unwrap_err();
    assert!(report.lines().contains("policy.d/b.yaml:1:8: error: owner: no owner named `nobody`"), "{}", report.lines());
}

#[test]
fn the_revision_changes_with_any_byte_of_any_file() {
    let case = Case::read(&here("tests/cases/config/good-owner-file.yaml"));
    let revision =
        |files: &[(PathBuf, Vec<u8>)]| config::parse(files).unwrap_or_else(|report| panic!("{report}")).configuration.policy.revision;
    let first = revision(&case.files);
    assert!(first.len() == 12 && first.bytes().all(|c| c.is_ascii_hexdigit()), "{first}");
    for at in 0..case.files.len() {
        let mut files = case.files.clone();
        files[at].1.push(b'\n');
        assert_ne!(revision(&files), first);
    }
}

mod random {
    use proptest::prelude::*;

    use super::*;

    fn words() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("version: 1\n"),
            Just("listeners:\n"),
            Just("  - "),
            Just("name: "),
            Just("apps:\n"),
            Just("rules: "),
            Just("["),
            Just("]"),
            Just("{"),
            Just("}"),
            Just("when: "),
            Just("not: "),
            Just("all: "),
            Just("tier: "),
            Just("\">= a\""),
            Just("posture.x: ok"),
            Just(", "),
            Just("\n"),
            Just("&a "),
            Just("*a"),
            Just("store: {url: sqlite://x}\n"),
            Just("then: restrict"),
            Just("with: "),
            Just("- "),
            Just("owner: x\n"),
            Just("1"),
            Just("true"),
            Just("~"),
            Just("hosts: "),
            Just("'*.a'"),
            Just("upstream: {servers: ['http://a:1']}\n"),
            Just("networks: {a: [10.0.0.1/8]}\n"),
            Just("limits: {idle: 5"),
            Just("owners: {"),
        ];
        proptest::collection::vec(word, 0..60).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = config::parse(&[("a".into(), bytes.clone()), ("b".into(), bytes)]);
        }

        #[test]
        fn words_never_panic_and_mistakes_have_places(text in words()) {
            if let Err(report) = config::parse(&[("a".into(), text.clone().into_bytes()), ("b".into(), text.clone().into_bytes())]) {
                prop_assert!(report.count(Level::Error) > 0);
                prop_assert!(!report.lines().contains("please report this"), "{}\n{}", text, report.lines());
                let lines = text.lines().count() + 1;
                for item in report.diagnostics() {
                    let (_, line, column) = item.position();
                    prop_assert!((1..=lines).contains(&line) && column >= 1, "{}", item.line());
                }
                let _ = report.to_string();
            }
        }

        /// One broken place in a good file is never a silent loss: it is an error, or it is still a configuration.
        #[test]
        fn a_good_file_cut_or_changed_is_an_error_or_good(at in 0usize..6000, with in any::<u8>()) {
            let mut bytes = std::fs::read(here("config/vestibule.yaml")).unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            match config::parse(&[("a".into(), bytes)]) {
                Ok(loaded) => prop_assert_eq!(loaded.configuration.routes.len(), 3),
                Err(report) => {
                    prop_assert!(report.count(Level::Error) > 0);
                    prop_assert!(!report.lines().contains("please report this"), "{}", report.lines());
                }
            }
        }
    }
}
