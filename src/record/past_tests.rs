//! Whatever a request was decided from comes back from its line.

use proptest::prelude::*;

use super::past::{Lack, Past};
use super::{Connection, fragment};
use crate::model::{Clash, Freshness, Standing};
use crate::policy::properties::{policies, visits};
use crate::policy::testing::{Visit, at, draft, forward, header, laptop, observed, without};
use crate::policy::{AppId, Decision, Policy};

fn line(policy: &Policy, visit: &Visit, decision: &Decision) -> String {
    let sight = &visit.sight;
    let on = Connection {
        listener: "edge",
        peer: visit.peer,
        via: &[],
        via_id: None,
        zone: visit.zone,
        wire: &visit.wire,
        opening: &visit.opening,
        claims: &visit.claims,
        sight,
    };
    let shared = fragment(policy, decision, &visit.standing, &on, None, visit.now);
    let shared = String::from_utf8(shared).expect("text");
    let mut headers = serde_json::Map::new();
    for name in policy.headers_read() {
        let values: Vec<&str> = visit.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect();
        match values.as_slice() {
            [] => {}
            [one] => drop(headers.insert(name.to_string(), (*one).into())),
            several => drop(headers.insert(name.to_string(), several.into())),
        }
    }
    let headers = serde_json::Value::from(headers);
    format!(
        r#"{{"ts":"{:.3}","request_id":"r1"{shared},"host":"{}","method":"{}","path":"{}","headers":{headers},"status":200}}"#,
        visit.now, visit.host, visit.method, visit.path
    )
}

/// The decision made anew from the line.
fn again(policy: &Policy, line: &str) -> Decision {
    let past = Past::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
    let mut again = past.again().unwrap_or_else(|lack| panic!("{lack:?}: {line}"));
    again.under(policy);
    assert_eq!(past.lacks_header(policy, AppId(0)), None);
    policy.decide(AppId(0), &again.inputs(policy))
}

/// Both sides of each contradiction, without which there is none in the log.
fn told(mut visit: Visit) -> Visit {
    let kinds: Vec<_> = visit.sight.comparison.contradictions.iter().collect();
    visit.sight.comparison.clashes = kinds.iter().map(|kind| Clash { kind: *kind, claimed: "a".into(), seen: "b".into() }).collect();
    visit
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_line_of_a_decision_comes_to_the_same_decision(draft in policies(), visit in visits(), millis in 0..5000i64) {
        let policy = Policy::compile(draft);
        // Ages are seldom whole seconds.
        let visit = Visit { now: visit.now + std::time::Duration::from_millis(millis.unsigned_abs()), ..told(visit) };
        let decision = visit.decide(&policy);
        prop_assert_eq!(again(&policy, &line(&policy, &visit, &decision)), decision);
    }

    /// Also where the policy is another one than that of the time, but for headers that it did not read.
    #[test]
    fn another_policy_decides_the_line_as_it_would_have_the_request(before in policies(), after in policies(), visit in visits()) {
        let (before, after) = (Policy::compile(before), Policy::compile(after));
        let visit = told(visit);
        let line = line(&before, &visit, &visit.decide(&before));
        let past = Past::parse(line.as_bytes()).expect("a line");
        if past.lacks_header(&after, AppId(0)).is_none() {
            prop_assert_eq!(again(&after, &line), visit.decide(&after));
        }
    }

    #[test]
    fn no_text_is_too_hostile(text in "\\PC{0,200}", at in 0..2000usize) {
        let _ = Past::parse(text.as_bytes()).map(|past| past.again().is_ok());
        let policy = Policy::compile(draft(vec![]));
        let visit = Visit::of(laptop());
        let whole = line(&policy, &visit, &visit.decide(&policy));
        let at = whole.floor_char_boundary(at);
        let broken = format!("{}{text}{}", &whole[..at], &whole[at..]);
        let _ = Past::parse(broken.as_bytes()).map(|past| past.again().is_ok());
    }
}

#[test]
fn facts_come_back_with_all_that_was_said_of_them() {
    let mut device = laptop();
    device.posture[0].observations = vec![observed("mdm", false, 0), observed("manual", true, -30_000), observed("rumour", true, 5000)];
    device.posture[1].observations[0].expires_at = Some(at(4000));
    device.posture[2].observations = vec![observed("mdm", true, -90_000)];
    let policy = Policy::compile(draft(vec![]));
    let visit = Visit::of(device.clone());
    let line = line(&policy, &visit, &visit.decide(&policy));
    let back = Past::parse(line.as_bytes()).expect("a line").again().expect("a decided line");
    let Standing::Known { device: back, freshness: Freshness::Fresh, .. } = &back.standing else { panic!("{line}") };
    assert_eq!(back.posture, device.posture);
    assert_eq!((&back.id, &back.team, &back.tags, back.created_at), (&device.id, &device.team, &device.tags, device.created_at));
    // What one observation says is not said twice.
    assert_eq!(line.matches("observations").count(), 3, "{line}");
}

#[test]
fn what_a_line_does_not_say_is_named() {
    let policy = Policy::compile(draft(vec![forward(crate::policy::testing::always())]));
    let visit = Visit::of(without(|device| device.team = None));
    let whole = line(&policy, &visit, &visit.decide(&policy));
    let lack = |line: &str| Past::parse(line.as_bytes()).expect("JSON").again().expect_err("a lack");
    let older = whole.replace("\"standing\":\"known\",", "");
    assert_ne!(older, whole);
    assert_eq!(lack(&older), Lack::Signal("device.*".to_owned()));
    assert_eq!(lack(&whole.replace("\"standing\":\"known\"", "\"standing\":null")), Lack::Undecided);
    assert_eq!(lack(&whole.replace("\"standing\":\"known\"", "\"standing\":\"vague\"")), Lack::Malformed("standing"));
    let asks = Policy::compile(draft(vec![forward(header("x-team", crate::policy::draft::Want::Any))]));
    let past = Past::parse(whole.as_bytes()).expect("a line");
    assert_eq!(past.lacks_header(&asks, AppId(0)).map(|name| name.as_str()), Some("x-team"));
}

/// What is done after the decision stands before its reasons.
#[test]
fn the_deciding_reason_is_that_of_the_decision() {
    let policy = Policy::compile(draft(vec![forward(crate::policy::testing::always())]));
    let visit = Visit::of(laptop());
    let whole = line(&policy, &visit, &visit.decide(&policy));
    for after in ["restrict.methods", "notice.shown"] {
        let told = whole.replace("\"reasons\":[", &format!("\"reasons\":[\"{after}\","));
        assert_eq!(Past::parse(told.as_bytes()).expect("a line").reason(), "rule.matched", "{after}");
    }
}
