//! A log replayed against a policy says what the proxy does when the same requests are sent again under that policy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::{Config, Curl, Lab, Origin, Proxy, Reply, eventually};
use vestibule::cli::lab_ca::Issued;

const TIERS: &str = "
  - {name: none}
  - {name: known, require: {device.state: approved}}
  - {name: healthy, require: {posture.os_supported: ok, posture.screen_lock: ok}}";

/// Guardrails, caps, a ladder, an exception, ages, versions, an owner's paths, a header, a network, and an app in report mode.
fn rich(origin: &Origin) -> Config {
    let server = origin.url();
    Config::new(origin)
        .set("networks", r#"{loop: ["127.0.0.0/8"]}"#)
        .set("tiers", TIERS)
        .set(
            "posture",
            r#"{sources: {mdm: {ttl: 24h}, manual: {ttl: 30d}}, ladder: {disk_encrypted: {report: 2020-01-01, restrict: 2020-02-01, with: [private], block: 2999-01-01, when: {class: corporate}}}}"#,
        )
        .set("caps", r#"[{name: stale, when: {posture.screen_lock.age: "> 20h"}, max_tier: known}]"#)
        .set("guardrails", "[{name: gone, when: {device.state: [lost, retired]}, then: block}]")
        .set(
            "exceptions",
            "[{name: spare, tag: spare, check: [disk_encrypted], apps: [wiki], until: 2999-01-01, by: ciso, ticket: SEC-1}]",
        )
        .set(
            "apps",
            &format!(
                r#"
  - name: wiki
    owner: knowledge
    hosts: [wiki.corp.example]
    upstream: {{servers: ["{server}"]}}
    rules:
      - {{name: embargo, when: {{http.header.x-embargo: "yes"}}, then: block}}
      - {{name: admin, when: {{http.path: "/admin/*", not: {{tier: ">= healthy"}}}}, then: block}}
      - {{name: managed, when: {{class: corporate, tier: ">= healthy"}}, then: forward}}
      - {{name: reading, when: {{tier: ">= known"}}, then: restrict, with: [read-only, private]}}
      - {{name: rest, then: block}}
  - name: tried
    owner: security
    mode: report
    hosts: [tried.corp.example]
    upstream: {{servers: ["{server}"]}}
    rules: [{{name: fresh, when: {{class: corporate, posture.screen_lock.age: "< 10h"}}, then: forward}}]"#
            ),
        )
}

/// Devices whose facts are of different ages and sources.
fn devices(lab: &Lab) -> Vec<Option<Issued>> {
    let devices = [
        ("fit", "ownership=corporate state=approved team=ops posture.disk_encrypted=ok"),
        ("plain", "ownership=corporate state=approved team=dev"),
        ("spare", "ownership=corporate state=approved tags=spare"),
        ("byod", "ownership=personal state=approved onnet=true team=ops"),
        ("pending", "ownership=corporate state=pending"),
        ("lost", "ownership=corporate state=lost"),
        ("bare", "state=approved"),
    ];
    let issued: Vec<Option<Issued>> = devices.iter().map(|(name, fields)| Some(lab.device(name, fields))).collect();
    let before = |hours: i64| (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).to_string();
    let row = |id: &str, source: &str, hours: i64, facts: &str| format!("{id},{source},{},{facts}\n", before(hours));
    let rows = [
        row("fit", "mdm", 2, "ok,ok,"),
        row("fit", "manual", 50, "ok,,fail"),
        row("plain", "mdm", 12, "ok,ok,fail"),
        row("spare", "mdm", 2, "ok,ok,fail"),
        row("byod", "manual", 5, "ok,ok,"),
        row("pending", "mdm", 30, "ok,ok,ok"),
        row("lost", "mdm", 1, "ok,ok,ok"),
    ];
    let header = "id,source,observed_at,posture.os_supported,posture.screen_lock,posture.disk_encrypted\n".to_owned();
    lab.write("facts.csv", &(header + &rows.concat()));
    lab.vestibule(&["devices", "-c", "vestibule.yaml", "import", "facts.csv"]).succeeded();
    issued.into_iter().chain([None]).collect()
}

/// Sends every request of the matrix, and gives their lines in its order. `round` makes their names.
fn send(proxy: &Proxy, lab: &Lab, devices: &[Option<Issued>], round: &str) -> Vec<Value> {
    let mut names = Vec::new();
    for (at, device) in devices.iter().enumerate() {
        for (method, url, header) in [
            ("GET", "https://wiki.corp.example/page", "X-Embargo: no"),
            ("POST", "https://wiki.corp.example/page", "X-Other: 1"),
            ("GET", "https://wiki.corp.example/admin/users", "X-Other: 1"),
            ("GET", "https://wiki.corp.example/", "X-Embargo: yes"),
            ("GET", "https://tried.corp.example/", "X-Team: ops"),
        ] {
            let name = format!("{round}-{at}-{}", names.len());
            let curl = Curl::to(proxy, lab).arg("--request").arg(method).header(header).header(&format!("X-Request-Id: {name}"));
            let answer = device.iter().fold(curl, |curl, device| curl.device(device)).get(url);
            assert_eq!(answer.exit, 0, "{}", answer.stderr);
            names.push(name);
        }
    }
    eventually("every request is in the log", || {
        let lines = lab.decisions(1);
        let by_name: BTreeMap<&str, &Value> = lines.iter().filter_map(|line| Some((line["client_request_id"].as_str()?, line))).collect();
        names.iter().map(|name| by_name.get(name.as_str()).map(|line| (*line).clone())).collect()
    })
}

fn replayed(lab: &Lab, config: &str, log: &str) -> Value {
    let run = lab.vestibule(&["replay", "-c", config, "--log", log, "--format", "json"]).succeeded();
    serde_json::from_str(&run.stdout).unwrap()
}

fn strictness(effect: &Value) -> usize {
    ["forward", "restrict", "block"].iter().position(|word| effect == word).unwrap()
}

fn names(line: &Value, field: &str) -> Vec<String> {
    line[field].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// What changed from one line to the other, as `replay` tells it: kind, app, class, before, after, owner, reason.
fn flip(old: &Value, new: &Value) -> Option<Vec<String>> {
    let set = |line: &Value| names(line, "restrictions").into_iter().collect::<BTreeSet<_>>();
    let joined = |line: &Value| set(line).into_iter().collect::<Vec<_>>().join(", ");
    let effect = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let (before, after) = (effect(old, "effect"), effect(new, "effect"));
    let (kind, before, after, stricter) = match strictness(&new["effect"]).cmp(&strictness(&old["effect"])) {
        std::cmp::Ordering::Greater => ("tighter", before, after, new),
        std::cmp::Ordering::Less => ("looser", before, after, old),
        std::cmp::Ordering::Equal if set(old) != set(new) => ("restrictions", joined(old), joined(new), new),
        std::cmp::Ordering::Equal if old["would"] == new["would"] => return None,
        std::cmp::Ordering::Equal => {
            let stricter = if strictness(&new["would"]) > strictness(&old["would"]) { new } else { old };
            ("report", format!("would {}", effect(old, "would")), format!("would {}", effect(new, "would")), stricter)
        }
    };
    let reason = names(stricter, "reasons").into_iter().find(|reason| !reason.starts_with("restrict.")).unwrap();
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or("-").to_owned();
    Some(vec![kind.to_owned(), text(old, "app"), text(old, "class"), before, after, text(stricter, "owner"), reason])
}

/// Of an app in report mode a line has the reasons of what would be done, not of what was.
fn comparable(mut flip: Vec<String>) -> Vec<String> {
    if flip[0] != "report" && flip[1] == "tried" {
        flip[6] = "-".to_owned();
    }
    flip
}

fn counted(flips: impl Iterator<Item = Vec<String>>) -> BTreeMap<Vec<String>, u64> {
    let mut counts = BTreeMap::new();
    flips.for_each(|flip| *counts.entry(comparable(flip)).or_default() += 1);
    counts
}

fn told(replay: &Value) -> BTreeMap<Vec<String>, u64> {
    let fields = ["kind", "app", "class", "before", "after", "owner", "reason"];
    let mut counts = BTreeMap::new();
    for flip in replay["flips"].as_array().unwrap() {
        let group = fields.map(|field| flip[field].as_str().unwrap().to_owned()).to_vec();
        *counts.entry(comparable(group)).or_default() += flip["count"].as_u64().unwrap();
    }
    counts
}

#[test]
fn a_replay_tells_what_sending_the_same_requests_again_shows() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = rich(&origin);
    lab.configure(&config);
    let devices = devices(&lab);
    let proxy = lab.start(&config);
    let first = send(&proxy, &lab, &devices, "a");
    let seen: BTreeSet<&str> = first.iter().map(|line| line["effect"].as_str().unwrap()).collect();
    assert_eq!(seen.len(), 3, "every effect is among them: {seen:?}");
    assert!(first.iter().any(|line| line["exceptions"] == json!(["spare"])), "{first:#?}");
    let log: String = first.iter().map(|line| format!("{line}\n")).collect();
    lab.write("first.jsonl", &log);

    let own = replayed(&lab, "vestibule.yaml", "first.jsonl");
    assert_eq!(told(&own), BTreeMap::new(), "{own:#}");
    assert_eq!((&own["replayed"], &own["same"]), (&json!(first.len()), &json!(first.len())), "{own:#}");

    let mut kinds = BTreeSet::new();
    for (at, changed) in [
        config.clone().replace("mdm: {ttl: 24h}", "mdm: {ttl: 6h}"),
        config
            .clone()
            .replace("{posture.os_supported: ok, posture.screen_lock: ok}", "{posture.os_supported: ok, posture.firewall_on: ok}"),
        config.clone().replace("{tier: \">= known\"}", "{tier: \">= known\", device.team: ops}"),
        config.clone().replace("mode: report", "mode: enforce"),
        config.clone().replace("posture.screen_lock.age: \"< 10h\"", "posture.screen_lock.age: \"< 1h\""),
        config.clone().replace("device.state: [lost, retired]", "device.state: [retired]").replace("with: [private]", "with: [read-only]"),
        config.clone().without("exceptions"),
        config.clone().replace("{tier: \">= known\"}, then: restrict, with: [read-only, private]", "{net.zone: loop}, then: forward"),
    ]
    .into_iter()
    .enumerate()
    {
        lab.write("changed.yaml", &changed.yaml());
        let replay = replayed(&lab, "changed.yaml", "first.jsonl");
        let before = proxy.metrics().sum("vestibule_config_reload_total", &[("result", "success")]);
        lab.configure(&changed);
        proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], before + 1.0);
        let again = send(&proxy, &lab, &devices, &format!("b{at}"));
        let expected = counted(first.iter().zip(&again).filter_map(|(old, new)| flip(old, new)));
        assert_eq!(told(&replay), expected, "change {at}: {replay:#}");
        assert_eq!(replay["replayed"], json!(first.len()));
        assert!(!expected.is_empty(), "change {at} changes nothing");
        kinds.extend(expected.into_keys().map(|flip| flip[0].clone()));
        // Samples are of requests that changed.
        for flip in replay["flips"].as_array().unwrap() {
            let id = flip["request_ids"][0].as_str().unwrap();
            assert!(first.iter().any(|line| line["request_id"] == id && line["app"] == flip["app"]), "{flip}");
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn what_cannot_be_told_is_said() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = rich(&origin);
    lab.configure(&config);
    let devices = devices(&lab);
    let proxy = lab.start(&config);
    let lines = send(&proxy, &lab, &devices, "a");
    let count = |app: &str| json!(lines.iter().filter(|line| line["app"] == app).count());

    // A header that no rule read then.
    let team = r#"{posture.screen_lock.age: "< 10h", http.header.x-team: ops}"#;
    lab.write("header.yaml", &config.clone().replace("{class: corporate, posture.screen_lock.age: \"< 10h\"}", team).yaml());
    let replay = replayed(&lab, "header.yaml", "decisions.jsonl");
    assert_eq!(replay["not_replayed"]["without_signal"], json!({"http.header.x-team": count("tried")}), "{replay:#}");
    assert_eq!(replay["replayed"], count("wiki"));
    let text = lab.vestibule(&["replay", "-c", "header.yaml", "--log", "decisions.jsonl"]).succeeded().stdout;
    assert!(text.contains("8 decisions without http.header.x-team: no rule read it when they were logged"), "{text}");
    assert!(text.contains("Rates are outside of decisions"), "{text}");

    // An app that went, one that came, and requests for none.
    let other = config.clone().replace("hosts: [tried.corp.example]", "hosts: [new.corp.example]");
    let nowhere = Curl::to(&proxy, &lab).get("https://new.corp.example/");
    assert_eq!(nowhere.status, 404);
    eventually("its line", || lab.decisions(1).iter().any(|line| line["status"] == 404).then_some(()));
    lab.write("other.yaml", &other.yaml());
    let replay = replayed(&lab, "other.yaml", "decisions.jsonl");
    assert_eq!(replay["not_replayed"]["app_gone"], json!({"tried": count("tried")}), "{replay:#}");
    assert_eq!((&replay["app_new"], &replay["not_replayed"]["undecided"]), (&json!({"tried": 1}), &json!(1)));

    // Older lines, cut ones and other text, from standard input as well.
    let log = std::fs::read_to_string(lab.path("decisions.jsonl")).unwrap();
    let whole = log.lines().next().unwrap();
    let mut older: Value = serde_json::from_str(whole).unwrap();
    older.as_object_mut().unwrap().remove("standing");
    older.as_object_mut().unwrap().remove("record");
    lab.write("odd.jsonl", &format!("{older}\nnot a line\n{whole}\n\n{}", &whole[..whole.len() / 2]));
    let replay = replayed(&lab, "vestibule.yaml", "odd.jsonl");
    let expected = json!({"undecided": 0, "before_since": 0, "malformed": 2, "without_signal": {"device.*": 1}, "app_gone": {}});
    assert_eq!((&replay["not_replayed"], &replay["lines"], &replay["same"]), (&expected, &json!(4), &json!(1)), "{replay:#}");
    let text = lab.vestibule(&["replay", "-c", "vestibule.yaml", "--log", "odd.jsonl"]).succeeded().stdout;
    assert!(text.contains("2 lines cut or malformed, the first line 2 of log 1: "), "{text}");
    let revision = &lines[0]["policy_rev"].as_str().unwrap();
    assert!(text.contains(&format!("Decided then by policy {revision} (2)")), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");

    // Only what is young enough.
    let args = |since| ["replay", "-c", "vestibule.yaml", "--log", "decisions.jsonl", "--format", "json", "--since", since];
    let young: Value = serde_json::from_str(&lab.vestibule(&args("7d")).succeeded().stdout).unwrap();
    assert_eq!(young["not_replayed"]["before_since"], 0);
    let none: Value = serde_json::from_str(&lab.vestibule(&args("0s")).succeeded().stdout).unwrap();
    assert_eq!((&none["replayed"], &none["not_replayed"]["before_since"]), (&json!(0), &json!(lines.len() + 1)));
    lab.vestibule(&args("soon")).failed_with(&["`soon` is no length of time"]);
    lab.vestibule(&["replay", "-c", "vestibule.yaml", "--log", "none.jsonl"]).failed_with(&["none.jsonl"]);
}
