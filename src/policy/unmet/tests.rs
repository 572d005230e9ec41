use std::time::Duration;

use super::super::draft::{Cap, Compare, Condition, Draft, Guardrail, KeyProof, Rule, Test};
use super::super::testing::*;
use super::super::{ClassId, Policy};
use super::*;
use crate::model::{DeviceState, NoRecord, Ownership};

fn why(policy: &Policy, visit: &Visit) -> Vec<String> {
    reasons(policy, &visit.decide(policy).done)
}

fn why_rules(rules: Vec<Rule>, visit: &Visit) -> Vec<String> {
    why(&Policy::compile(draft(rules)), visit)
}

fn why_guarded(guardrails: Vec<Guardrail>, visit: &Visit) -> Vec<String> {
    why(&Policy::compile(Draft { guardrails, ..draft(vec![forward(always())]) }), visit)
}

/// The rules of config.md's example.
fn example() -> Vec<Rule> {
    vec![
        forward(all(&[class(CORPORATE), tier(Compare::AtLeast, HEALTHY)])),
        restrict(tier(Compare::AtLeast, KNOWN), &[READ_ONLY, PRIVATE]),
        block(always()),
    ]
}

fn failing(facts: &[&str]) -> Visit {
    Visit::of(without(|device| facts.iter().for_each(|fact| set_fact(device, fact, false))))
}

fn phone(state: DeviceState) -> Visit {
    Visit::of(without(|device| {
        (device.ownership, device.onnet, device.state) = (Some(Ownership::Personal), Some(false), state);
        device.posture.clear();
    }))
}

#[test]
fn a_plain_forward_is_rule_matched() {
    assert_eq!(why_rules(example(), &Visit::of(laptop())), ["rule.matched"]);
}

#[test]
fn a_tier_test_expands_into_the_requirements_that_the_tier_lacks() {
    let floor = || vec![guardrail("payroll-floor", tier(Compare::Less, TRUSTED))];
    assert_eq!(why_guarded(floor(), &failing(&["disk_encrypted"])), ["posture.disk_encrypted.fail"]);
    assert_eq!(
        why_guarded(floor(), &failing(&["disk_encrypted", "screen_lock"])),
        ["posture.screen_lock.fail", "posture.disk_encrypted.fail"],
        "lower tiers first, and nothing that is met"
    );
    let unknown = Visit::of(without(|device| drop_fact(device, "mdm_compliant")));
    assert_eq!(why_guarded(floor(), &unknown), ["posture.mdm_compliant.unknown"]);
    let pending = Visit::of(without(|device| device.state = DeviceState::Pending));
    assert_eq!(why_guarded(floor(), &pending), ["device.state.pending"]);
    assert_eq!(why_rules(vec![forward(tier(Compare::AtLeast, TRUSTED))], &failing(&["disk_encrypted"])), ["posture.disk_encrypted.fail"]);
}

#[test]
fn a_guardrail_names_what_made_it_hold() {
    let gone = vec![guardrail("gone", state(&["suspended", "lost", "retired"]))];
    let lost = Visit::of(without(|device| device.state = DeviceState::Lost));
    assert_eq!(why_guarded(gone, &lost), ["device.state.lost"]);
    let off_net = vec![guardrail("off-net", all(&[class(OFFNET), zone(Some(0))]))];
    assert_eq!(why_guarded(off_net, &phone(DeviceState::Approved).in_office()), ["class.personal_offnet", "net.zone"]);
    let either = vec![guardrail("either", any(&[path("/admin/*"), not(is("disk_encrypted", FactState::Ok))]))];
    assert_eq!(why_guarded(either.clone(), &failing(&["disk_encrypted"])), ["posture.disk_encrypted.fail"]);
    assert_eq!(
        why_guarded(either, &failing(&["disk_encrypted"]).to("GET", "/admin/x")),
        ["posture.disk_encrypted.fail", "http.path"],
        "what can be changed comes first"
    );
    assert_eq!(why_guarded(vec![guardrail("closed", always())], &lost), ["rule.matched"]);
}

#[test]
fn an_undecided_comparison_that_made_a_guardrail_hold_is_named() {
    let field = Condition::Test(Test::Device(DeviceField::Team, text(&["guests"])));
    let visit = Visit::of(without(|device| device.team = None));
    assert_eq!(why_guarded(vec![guardrail("guests", field)], &visit), ["device.team"]);
}

#[test]
fn several_guardrails_of_the_deciding_effect_are_all_named_the_deciding_one_first() {
    let guardrails = vec![
        Guardrail { then: Effect::Restrict, ..guardrail("soft", path("/*")) },
        guardrail("first", is("disk_encrypted", FactState::Fail)),
        guardrail("second", is("screen_lock", FactState::Fail)),
    ];
    assert_eq!(
        why_guarded(guardrails, &failing(&["screen_lock", "disk_encrypted"])),
        ["posture.disk_encrypted.fail", "posture.screen_lock.fail"]
    );
}

#[test]
fn a_rule_names_what_the_nearest_better_rule_lacks() {
    // Restricted: the forward rule lacks the class and two facts, and nothing else is better.
    assert_eq!(
        why_rules(example(), &phone(DeviceState::Approved)),
        ["class.personal_offnet", "posture.os_supported.unknown", "posture.screen_lock.unknown"]
    );
    assert_eq!(why_rules(example(), &failing(&["screen_lock"])), ["posture.screen_lock.fail"]);
    // Blocked: approval alone would earn the restricted rule.
    assert_eq!(why_rules(example(), &phone(DeviceState::Pending)), ["device.state.pending"]);
}

#[test]
fn what_the_person_can_change_is_preferred_to_what_is_fewer() {
    let rules = vec![
        forward(zone(Some(0))),
        forward(all(&[is("disk_encrypted", FactState::Ok), is("screen_lock", FactState::Ok)])),
        forward(method(&["PUT"])),
    ];
    let visit = failing(&["disk_encrypted", "screen_lock"]);
    assert_eq!(why_rules(rules, &visit), ["posture.disk_encrypted.fail", "posture.screen_lock.fail"]);
}

#[test]
fn a_better_rule_behind_one_that_matches_is_reached_by_no_longer_matching_it() {
    let rules = vec![block(tier(Compare::Less, HEALTHY)), forward(always())];
    assert_eq!(why_rules(rules, &failing(&["os_supported"])), ["posture.os_supported.fail"]);
    let unreachable = vec![block(always()), forward(is("disk_encrypted", FactState::Ok))];
    assert_eq!(why_rules(unreachable, &failing(&["disk_encrypted"])), ["rule.matched"]);
}

#[test]
fn an_undecided_rule_that_decides_is_explained_by_what_is_undecided() {
    let guests = Condition::Test(Test::Device(DeviceField::Team, text(&["guests"])));
    let visit = Visit::of(without(|device| device.team = None));
    assert_eq!(why_rules(vec![block(guests), forward(always())], &visit), ["device.team"]);
    let twice = Visit::of(laptop()).with_header("x-role", b"a").with_header("x-role", b"b");
    let role = header("x-role", text(&["a"]));
    assert_eq!(why_rules(vec![forward(role)], &twice), ["http.header.x-role"]);
}

#[test]
fn what_nothing_better_could_replace_is_rule_matched_and_what_no_rule_concerns_is_rule_none() {
    let visit = Visit::of(laptop());
    assert_eq!(why_rules(vec![restrict(always(), &[READ_ONLY])], &visit), ["rule.matched"]);
    assert_eq!(why_rules(vec![block(always())], &visit), ["rule.matched"]);
    assert_eq!(why_rules(vec![], &visit), ["rule.none"]);
    assert_eq!(why_rules(vec![block(never())], &visit), ["rule.none"]);
    assert_eq!(why_rules(vec![forward(method(&["GET"]))], &visit.to("POST", "/")), ["http.method"], "something more helpful");
}

#[test]
fn a_layer_names_what_would_keep_it_from_matching() {
    let policy = Policy::compile(Draft {
        layers: vec![
            layer(1, restrict(all(&[is("disk_encrypted", FactState::Ok), path("/x")]), &[SLOW])),
            layer(1, block(is("screen_lock", FactState::Fail))),
        ],
        ..draft(vec![forward(always())])
    });
    assert_eq!(why(&policy, &failing(&["screen_lock"])), ["posture.screen_lock.fail"]);
}

#[test]
fn a_cap_that_holds_the_tier_down_is_named() {
    let stale = Condition::Test(Test::PostureAge(vec![(Compare::More, Duration::from_secs(60))]));
    let caps = vec![Cap { name: "stale".to_owned(), when: stale, max_tier: TierId(KNOWN) }];
    let policy = Policy::compile(Draft { caps, ..draft(example()) });
    assert_eq!(why(&policy, &Visit::of(laptop())), ["cap.stale"]);
    assert_eq!(why(&policy, &failing(&["os_supported"])), ["posture.os_supported.fail", "cap.stale"]);
}

#[test]
fn a_cap_that_leaves_the_tier_that_is_needed_is_not_named() {
    let caps = vec![Cap { name: "roof".to_owned(), when: always(), max_tier: TierId(HEALTHY) }];
    let policy = Policy::compile(Draft { caps, ..draft(example()) });
    assert_eq!(why(&policy, &failing(&["os_supported"])), ["posture.os_supported.fail"]);
}

#[test]
fn a_tier_that_nothing_reaches_is_named() {
    let mut draft = draft(vec![forward(always())]);
    draft.tiers[3].require = never();
    draft.guardrails = vec![guardrail("floor", tier(Compare::Less, TRUSTED))];
    assert_eq!(why(&Policy::compile(draft), &Visit::of(laptop())), ["tier.healthy"]);
}

#[test]
fn a_tier_that_is_too_high_or_given_is_named() {
    let rules = || vec![forward(tier(Compare::Less, TRUSTED))];
    assert_eq!(why_rules(rules(), &Visit::of(laptop())), ["tier.trusted"]);
    let mut given = Visit::of(laptop());
    given.given.tier = Some(TierId(KNOWN));
    assert_eq!(why_rules(example(), &given), ["tier.known"]);
}

#[test]
fn ages_versions_and_keys_are_named_by_their_signal() {
    let hour = vec![(Compare::Less, Duration::from_secs(3600))];
    for (test, reason) in [
        (Test::FactAge("disk_encrypted".into(), hour.clone()), "posture.disk_encrypted.age"),
        (Test::PostureAge(hour.clone()), "posture.age"),
        (Test::KnownFor(hour), "device.known_for"),
        (Test::OsVersion(vec![(Compare::AtLeast, super::super::draft::Version(vec![15]))]), "device.os_version"),
        (Test::KeyProof(vec![KeyProof::Browser]), "device.key"),
    ] {
        assert_eq!(why_rules(vec![forward(Condition::Test(test))], &Visit::of(laptop())), [reason]);
    }
}

#[test]
fn the_first_reason_of_a_device_without_a_record_is_why_it_has_none() {
    for (cause, reason) in [
        (NoRecord::NoProof, "device.unknown"),
        (NoRecord::UnknownCertificate, "certificate.unknown"),
        (NoRecord::ExpiredCertificate, "certificate.expired"),
        (NoRecord::FutureCertificate, "certificate.not_yet_valid"),
        (NoRecord::UntrustedCertificate, "certificate.untrusted"),
        (NoRecord::RevokedCertificate, "certificate.revoked"),
        (NoRecord::StaleCrl, "certificate.crl_expired"),
    ] {
        assert_eq!(why_rules(example(), &Visit::blind(cause)), [reason]);
        assert_eq!(why_guarded(vec![guardrail("blind", class(ClassId::BLIND))], &Visit::blind(cause)), [reason]);
    }
    let visit = Visit::blind(NoRecord::NoProof);
    let office = vec![forward(all(&[zone(Some(0)), state(&["approved"])]))];
    assert_eq!(why_rules(office, &visit), ["device.unknown", "net.zone"]);
    // A store that cannot be asked is to blame first where it alone is.
    let both = || vec![forward(all(&[state(&["approved"]), zone(Some(0))]))];
    assert_eq!(why_rules(both(), &Visit::unreadable()), ["net.zone", "store.unavailable"]);
    assert_eq!(why_rules(both(), &Visit::unreadable().in_office()), ["store.unavailable"]);
    // No record would have helped here.
    assert_eq!(why_guarded(vec![guardrail("closed", path("/*"))], &visit), ["http.path"]);
    assert_eq!(why_rules(vec![restrict(always(), &[READ_ONLY])], &visit), ["rule.matched"]);
}

#[test]
fn a_store_that_is_down_ceases_to_be_a_reason_when_the_fact_would_have_expired_anyway() {
    let policy = Policy::compile(draft(vec![forward(is("patched", FactState::Ok))]));
    let mut device = without(|device| device.posture.clear());
    set_fact(&mut device, "patched", true);
    let decision = Visit::too_old(device.clone()).decide(&policy);
    assert_eq!(reasons(&policy, &decision.done), ["posture.patched.unknown", "store.unavailable"]);
    assert_eq!(decision.valid_until, Some(at(24 * 3600)));
    assert_eq!(why(&policy, &Visit::too_old(device).at(24 * 3600)), ["posture.patched.unknown"]);
}

#[test]
fn fixes_follow_the_reasons() {
    let policy =
        Policy::compile(Draft { guardrails: vec![guardrail("floor", tier(Compare::Less, TRUSTED))], ..draft(vec![forward(always())]) });
    let fixes = |visit: &Visit| policy.fixes(&visit.decide(&policy)).iter().map(|fix| fix.text.clone()).collect::<Vec<_>>();
    assert_eq!(fixes(&failing(&["disk_encrypted", "screen_lock"])), ["Turn on FileVault or BitLocker"]);
    let unknown = Visit::of(without(|device| drop_fact(device, "disk_encrypted")));
    assert_eq!(fixes(&unknown), ["Turn on FileVault or BitLocker"]);
    assert!(fixes(&failing(&["screen_lock"])).is_empty());
    assert!(fixes(&Visit::of(laptop())).is_empty());
}
