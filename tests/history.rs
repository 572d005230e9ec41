//! The policies that were in force: kept by the store, told by `vestibule policy`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use serde_json::Value;
use support::{Config, Lab, Origin, Proxy, Reply, eventually, raw};

const RELOADS: &str = "vestibule_config_reload_total";

fn config(origin: &Origin) -> Config {
    Config::new(origin)
}

fn reload(proxy: &Proxy) -> (u16, Value) {
    let request = format!("POST /api/v1/reload HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", proxy.admin());
    let answer = String::from_utf8(raw(proxy.admin(), request.as_bytes())).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// The history as soon as it has `n` entries, the newest first.
fn history(lab: &Lab, n: usize) -> Vec<Value> {
    eventually(&format!("{n} policies in the history"), || {
        let told = lab.vestibule(&["policy", "--store", "sqlite://vestibule.db", "history", "--format", "json"]).succeeded();
        let list: Vec<Value> = serde_json::from_str(&told.stdout).unwrap();
        (list.len() >= n).then_some(list)
    })
}

#[test]
fn every_way_into_force_is_recorded_with_what_changed() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let first = config(&origin);
    let mut proxy = lab.start(&first);
    let (_, policy) = proxy.admin_get("/api/v1/policy");
    let policy: Value = serde_json::from_str(&policy).unwrap();
    assert_eq!((&policy["apps"], &policy["rules"]), (&Value::from(1), &Value::from(3)));
    let one = history(&lab, 1);
    assert_eq!((one.len(), &one[0]["revision"], &one[0]["how"]), (1, &policy["revision"], &Value::from("start")));
    assert_eq!((&one[0]["changed"], &one[0]["version"]), (&Value::Null, &Value::from(env!("CARGO_PKG_VERSION"))));

    let second = first.clone().replace("then: forward}", "then: block}");
    lab.configure(&second);
    let (status, told) = reload(&proxy);
    assert_eq!(status, 200);
    let changed = Value::from(vec!["apps.wiki.rules.managed.then: forward -> block"]);
    let two = history(&lab, 2);
    assert_eq!((&two[0]["revision"], &two[0]["changed"]), (&told["revision"], &changed));
    // Now and then whoever watches the files is first.
    if two[0]["how"] == "api" {
        assert_eq!((&told["previous"], &told["changed"]), (&policy["revision"], &changed));
    }

    // The same files again are no new policy.
    let (_, told) = reload(&proxy);
    assert_eq!((&told["revision"], &told["changed"]), (&told["previous"], &Value::from(Vec::<Value>::new())));
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(history(&lab, 2).len(), 2);

    // Another start with another policy: what changed while nobody ran is told as well.
    let third = second.set("guardrails", "[{name: gone, when: {device.state: lost}, then: block}]");
    let mut proxy = lab.start(&third);
    let three = history(&lab, 3);
    assert_eq!((&three[0]["how"], &three[0]["changed"]), (&Value::from("start"), &Value::from(vec!["guardrails: added"])));
    let before = proxy.metrics().sum(RELOADS, &[]);
    lab.configure(&third.replace("device.state: lost", "device.state: [lost, retired]"));
    proxy.metric_reaches(RELOADS, &[("result", "success")], before + 1.0);
    let four = history(&lab, 4);
    assert_eq!(
        (&four[0]["how"], &four[0]["changed"]),
        (&Value::from("file"), &Value::from(vec!["guardrails.gone.when.device.state: lost -> [lost, retired]"]))
    );
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.ended().code(), Some(0));

    let table = lab.vestibule(&["policy", "-c", "vestibule.yaml", "history", "--limit", "2"]).succeeded().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("REVISION") && lines[1].contains("file") && lines[2].ends_with("guardrails: added"), "{table}");
}

#[test]
fn how_a_policy_came_into_force_is_told() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin));
    let mut number = 0;
    for (how, take) in [("api", &(|| drop(reload(&proxy))) as &dyn Fn()), ("signal", &|| proxy.signal(libc::SIGHUP)), ("file", &|| {})] {
        // Whoever watches the files may be first; not every time.
        eventually(&format!("a policy by {how}"), || {
            number += 1;
            lab.configure(&config(&origin).set("limits", &format!("{{drain: {number}s}}")));
            take();
            (history(&lab, number + 1)[0]["how"] == how).then_some(())
        });
    }
}

#[test]
fn the_files_of_a_revision_come_back_without_passwords() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    std::fs::create_dir(lab.path("policy.d")).unwrap();
    lab.write("policy.d/knowledge.yaml", "owner: knowledge\nrules: [{name: r, when: {http.path: /x}, then: block}]\n");
    let config = config(&origin).set("policy_dir", "policy.d # was https://me:hunter2@git.example/policy");
    let proxy = lab.start(&config);
    let revision = history(&lab, 1)[0]["revision"].as_str().unwrap().to_owned();
    drop(proxy);
    let show = |revision: &str| lab.vestibule(&["policy", "-c", "vestibule.yaml", "show", revision]);
    let shown = show(&revision).succeeded().stdout;
    let expected = format!(
        "# --- vestibule.yaml, revision {revision}\n{}# --- policy.d/knowledge.yaml, revision {revision}\n{}",
        config.yaml().replace("hunter2", "***"),
        std::fs::read_to_string(lab.path("policy.d/knowledge.yaml")).unwrap()
    );
    assert_eq!(shown, expected);
    assert_eq!(show(&revision[..5]).succeeded().stdout, shown);
    show("zz").failed_with(&["no revision `zz` among the 1", "policy history"]);
    // The store has no password either.
    let bytes = ["vestibule.db", "vestibule.db-wal"].map(|name| std::fs::read(lab.path(name)).unwrap_or_default()).concat();
    assert!(bytes.windows(13).any(|at| at == b"git.example/p") && !bytes.windows(7).any(|at| at == b"hunter2"));
}

#[test]
fn a_store_that_cannot_be_written_holds_up_no_policy() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    let proxy = lab.start(&config);
    history(&lab, 1);
    let holder = rusqlite::Connection::open(lab.path("vestibule.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    lab.configure(&config.replace("then: forward}", "then: block}"));
    let (status, _) = reload(&proxy);
    assert_eq!(status, 200, "the policy is in force at once");
    eventually("the failure is said", || proxy.stderr().contains("cannot be added to the history").then_some(()));
    assert_eq!(proxy.admin_get("/readyz").0, 200);
}
