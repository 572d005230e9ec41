//! A request of the log explained, and the smallest fix as the person and the engineer read it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use serde_json::{Value, json};
use support::{Config, Curl, Lab, Origin, Reply};

/// Forwards what is encrypted and patched and has a firewall, or what is enrolled; reads what is known.
fn config(origin: &Origin) -> Config {
    let server = origin.url();
    let fix = |fact: &str| format!(r#"{fact}: {{text: "Mend {fact}", help: "https://help.corp.example/{fact}"}}"#);
    let fixes: Vec<String> = ["disk_encrypted", "patched", "firewall_on", "mdm_enrolled"].map(fix).to_vec();
    Config::new(origin)
        .set("posture", &format!("{{sources: {{mdm: {{ttl: 24h}}, manual: {{ttl: 30d}}}}, fixes: {{{}}}}}", fixes.join(", ")))
        .set("networks", "{office: [10.0.0.0/8]}")
        .set(
            "apps",
            &format!(
                r#"
  - name: wiki
    owner: knowledge
    hosts: [wiki.corp.example]
    upstream: {{servers: ["{server}"]}}
    rules:
      - {{name: managed, when: {{posture.disk_encrypted: ok, posture.patched: ok, posture.firewall_on: ok}}, then: forward}}
      - {{name: enrolled, when: {{posture.mdm_enrolled: ok, posture.patched: ok}}, then: forward}}
      - {{name: rest, then: block}}
  - name: office
    owner: knowledge
    hosts: [office.corp.example]
    upstream: {{servers: ["{server}"]}}
    rules: [{{name: here, when: {{net.zone: office}}, then: forward}}]"#
            ),
        )
}

#[test]
fn the_smallest_fix_is_on_the_page_and_in_the_explanation_of_its_request() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", "ownership=corporate state=approved posture.disk_encrypted=fail posture.firewall_on=fail");
    let proxy = lab.start(&config);
    let answer = Curl::to(&proxy, &lab).device(&laptop).get("https://wiki.corp.example/page");
    assert_eq!(answer.status, 403);
    let fixes: Vec<Value> = answer.json()["fixes"].as_array().unwrap().iter().map(|fix| fix["text"].clone()).collect();
    assert_eq!(fixes, ["Mend patched", "Mend mdm_enrolled"], "two are fewer than three: {}", answer.body);
    // No check opens what is closed from here: none is told.
    let away = Curl::to(&proxy, &lab).device(&laptop).get("https://office.corp.example/");
    assert_eq!((away.status, &away.json()["fixes"]), (403, &json!([])), "{}", away.body);

    lab.decisions(2);
    let explain = |config: &str, more: &[&str]| {
        let id = answer.header("x-request-id").unwrap();
        lab.vestibule(&[&["explain", "-c", config, "--request", id], more].concat())
    };
    let text = explain("vestibule.yaml", &[]).succeeded().stdout;
    let revision = lab.decisions(1)[0]["policy_rev"].as_str().unwrap().to_owned();
    let then = text.lines().find(|line| line.starts_with("Then")).unwrap();
    assert!(then.starts_with("Then     block, by rest (") && then.ends_with(&format!("), by policy {revision}")), "{then}");
    assert!(then.contains("posture.patched.unknown") && then.contains("posture.mdm_enrolled.unknown"), "{then}");
    assert!(text.contains("Request  GET wiki.corp.example/page\n") && text.contains("Device   laptop\n"), "{text}");
    assert!(text.contains("\nDecision: block, by rule rest\n"), "{text}");
    let fix = "\nSmallest fix, to forward
  posture.patched is unknown, wanted ok: Mend patched (https://help.corp.example/patched)
  posture.mdm_enrolled is unknown, wanted ok: Mend mdm_enrolled (https://help.corp.example/mdm_enrolled)\n";
    assert!(text.contains(fix), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");

    // By another configuration, and as JSON.
    lab.write("next.yaml", &config.clone().replace("posture.mdm_enrolled: ok, posture.patched: ok", "device.ownership: corporate").yaml());
    let text = explain("next.yaml", &[]).succeeded().stdout;
    assert!(text.contains("\nDecision: forward, by rule enrolled\n"), "{text}");
    assert!(text.contains(&format!("by policy {revision}\nNow      by policy ")), "{text}");
    let value: Value = serde_json::from_str(&explain("next.yaml", &["--format", "json"]).succeeded().stdout).unwrap();
    assert_eq!((&value["done"]["effect"], &value["then"]["effect"]), (&json!("forward"), &json!("block")), "{value:#}");
    let facts = value["facts"].as_array().unwrap();
    assert!(facts.iter().any(|fact| fact["name"] == "firewall_on" && fact["state"] == "fail" && fact["source"] == "manual"), "{value:#}");

    // In the log that was rotated away, in one that is named, and in none.
    std::fs::rename(lab.path("decisions.jsonl"), lab.path("decisions.jsonl.1")).unwrap();
    explain("vestibule.yaml", &[]).succeeded();
    std::fs::rename(lab.path("decisions.jsonl.1"), lab.path("kept.jsonl")).unwrap();
    explain("vestibule.yaml", &["--log", "kept.jsonl"]).succeeded();
    explain("vestibule.yaml", &[]).failed_with(&["no request", "decisions.jsonl.1"]);
    lab.vestibule(&["explain", "-c", "vestibule.yaml", "--request", "no \"id\""]).failed_with(&["no request id"]);
}

#[test]
fn what_a_place_or_a_time_would_change_is_told_where_no_check_does() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let hours = config(&origin).replace("net.zone: office", "net.zone: office, time.weekday: [mon, tue], time.hour: '>= 8 < 18'");
    lab.configure(&hours);
    let explained = |sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let args: Vec<&str> = ["explain", "-c", "vestibule.yaml", "--app", "office"].into_iter().chain(sets).collect();
        lab.vestibule(&args).succeeded().stdout
    };
    let sunday = explained(&["time.now=2026-11-22", "net.zone=office"]);
    assert!(sunday.contains("yes        net.zone is office, wanted office"), "{sunday}");
    let fix =
        "\nSmallest fix, to forward\n  nothing on the device alone helps\n  time.weekday is sun, wanted mon\n  time.hour is 0, wanted 8\n";
    assert!(sunday.contains(fix), "{sunday}");
    let monday = explained(&["time.weekday=mon", "time.hour=>= 9 < 12", "net.zone=office"]);
    assert!(monday.contains("\nDecision: forward, by rule here\n") && !monday.contains("Smallest fix"), "{monday}");
}
