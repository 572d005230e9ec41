use std::sync::Arc;

use http::Request;

use super::block::Block;
use super::page::Kind;
use super::restricted::Restricted;
use super::*;
use crate::model::{Device, DeviceState, FactState, Freshness, NoRecord, Ownership, Reason, StateChange};
use crate::policy::FactView;
use crate::policy::draft::{Fix, Owner};

const ID: &str = "01JD8Z5Q7M3N9";

fn known(state: DeviceState) -> Standing {
    let at = Timestamp::UNIX_EPOCH;
    let device = Device {
        id: "laptop-0042".into(),
        name: Some("Anna’s laptop".into()),
        user: Some("anna".into()),
        team: None,
        tags: Vec::new(),
        ownership: Some(Ownership::Corporate),
        onnet: None,
        state,
        state_changed: StateChange { by: "it".into(), at },
        os: Some("macOS".into()),
        os_version: Some("15.1".into()),
        model: Some("MacBook Air".into()),
        keys: Vec::new(),
        posture: Vec::new(),
        created_at: at,
        updated_at: at,
        seq: 1,
    };
    Standing::Known { device: Arc::new(device), freshness: Freshness::Fresh, proof_ends: 0 }
}

fn owner(contact: &str) -> Owner {
    Owner { name: "finance".into(), contact: contact.into() }
}

fn fixes() -> [Fix; 2] {
    let fix = |fact: &str, text: &str, help: &str| Fix { fact: fact.into(), text: text.into(), help: Some(help.into()) };
    [
        fix("disk_encrypted", "Turn on FileVault or BitLocker", "https://help.corp.example/disk?a=1&b=2"),
        fix("patched", "Install the pending updates & restart", "javascript:alert(1)"),
    ]
}

fn fact(name: &str, state: FactState, hours: u64) -> FactView<'_> {
    FactView { name, state, value: None, source: "mdm", age: Duration::from_secs(hours * 3600) }
}

fn block<'a>(standing: &'a Standing, reasons: &[Reason<'a>]) -> Block<'a> {
    Block { title: "Payroll", reasons: reasons.to_vec(), fixes: Vec::new(), facts: Vec::new(), standing, unavailable: false, poses: false }
}

fn restricted<'a>(methods: &[&'a str], reasons: &[Reason<'a>], fixes: &[&'a Fix]) -> Restricted<'a> {
    Restricted { title: "Team wiki", reasons: reasons.to_vec(), fixes: fixes.to_vec(), methods: methods.to_vec() }
}

enum Decided {
    Warned,
    Blocked,
}

fn later() -> Timestamp {
    "2027-01-15T12:00:00Z".parse().unwrap()
}

/// An app behind a ladder on disk encryption: read-only from 2027, closed from February on, in Berlin.
fn laddered(decided: Decided) -> (Policy, Decision) {
    use crate::model::{Effect, Mode};
    use crate::policy::draft::{self, App, Condition, Draft, HostPattern, Ladder, Restriction, Step, Tier};
    use crate::policy::*;
    let at = |text: &str| text.parse().unwrap();
    let ladder = Ladder {
        name: "ladder.disk_encrypted".into(),
        fact: "disk_encrypted".into(),
        apps: None,
        when: Condition::always(),
        steps: vec![
            (at("2026-11-30T23:00:00Z"), Step::Warn),
            (at("2026-12-31T23:00:00Z"), Step::Restrict),
            (at("2027-02-01T13:30:00Z"), Step::Block),
        ],
        with: vec![RestrictionId(0)],
    };
    let app = App {
        name: "wiki".into(),
        title: "Team wiki".into(),
        owner: OwnerId(0),
        labels: vec![],
        hosts: vec![HostPattern::Exact(crate::request::host("wiki.corp.example").unwrap())],
        path_prefix: "/".into(),
        mode: Mode::Enforce,
        rules: vec![],
    };
    let methods = Some(vec!["GET".to_owned(), "HEAD".to_owned()]);
    let draft = Draft {
        revision: "test".into(),
        time_zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
        owners: vec![owner("wiki-help@corp.example"), draft::Owner { name: "security".into(), contact: "security@corp.example".into() }],
        networks: vec![],
        sources: vec![],
        fixes: fixes().to_vec(),
        classes: vec![],
        tiers: vec![Tier { name: "none".into(), require: Condition::always() }],
        caps: vec![],
        restrictions: vec![Restriction { name: "read-only".into(), methods, ..Restriction::default() }],
        guardrails: vec![],
        ladders: vec![ladder],
        delegations: vec![],
        exceptions: vec![],
        apps: vec![app],
        layers: vec![],
    };
    let policy = Policy::compile(draft);
    let why = policy
        .reasons()
        .find(|(_, reason)| *reason == Reason::Posture("disk_encrypted", FactState::Fail))
        .map_or(ReasonId(0), |(id, _)| id);
    let (effect, rule) = match decided {
        Decided::Warned => (Effect::Forward, RuleRef::None),
        Decided::Blocked => (Effect::Block, RuleRef::Ladder(0)),
    };
    let outcome = Outcome { effect, restrictions: RestrictionSet::EMPTY, rule, owner: OwnerId(1), reasons: ReasonList::new(why) };
    let decision = Decision {
        app: AppId(0),
        class: ClassId::UNCLASSIFIED,
        tier: TierId(0),
        done: outcome,
        would: outcome,
        mode: Mode::Enforce,
        merged: Merged::default(),
        notices: if effect == Effect::Forward { LadderSet::default().with(0) } else { LadderSet::default() },
        exceptions: Default::default(),
        unavailable: false,
        valid_until: None,
    };
    (policy, decision)
}

#[test]
fn a_notice_says_what_by_when_and_leads_on() {
    let (policy, decision) = laddered(Decided::Warned);
    let standing = known(DeviceState::Approved);
    let host = crate::request::host("wiki.corp.example").unwrap();
    let at = |text: &str| -> Timestamp { text.parse().unwrap() };
    let now = at("2026-12-05T12:00:00Z");
    let told = Told::of(&policy, &decision, &standing, now).unwrap();
    assert_eq!(told.header, "posture.disk_encrypted.unknown; restrict=2027-01-01; block=2027-02-01T14:30:00+01:00");
    assert_eq!(told.mark.len(), MARK);
    assert_eq!(told.mark, Told::of(&policy, &decision, &standing, at("2026-12-20T00:00:00Z")).unwrap().mark);
    let next = Told::of(&policy, &decision, &standing, at("2027-01-02T00:00:00Z")).unwrap();
    assert_ne!(told.mark, next.mark, "a new step is told anew");
    assert_eq!(next.header, "posture.disk_encrypted.unknown; block=2027-02-01T14:30:00+01:00");
    assert!(Told::of(&policy, &laddered(Decided::Blocked).1, &standing, now).is_none());

    let answer =
        notice(&Notice { policy: &policy, decision: &decision, standing: &standing, now, host: &host, action: "/go?a=1&b=\"2" }, ID);
    assert_eq!((answer.status(), &answer.headers()["referrer-policy"]), (StatusCode::OK, &HeaderValue::from_static("same-origin")));
    assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("form-action 'self'"));
    for part in [
        "<form class=\"go\" method=\"post\" action=\"/go?a=1&amp;b=&quot;2\"><button>Go on to Team wiki</button></form>",
        "It is not known whether disk encryption is on",
        "<span>From 1 January 2027 this device can only read Team wiki</span>",
        "<span>From 1 February 2027, 14:30, Team wiki is closed to this device</span>",
        "Turn on FileVault or BitLocker",
        "security@corp.example",
    ] {
        assert!(body(&answer).contains(part), "{part}\n{}", body(&answer));
    }
}

#[test]
fn a_refusal_by_a_ladder_has_its_dates() {
    let (policy, decision) = laddered(Decided::Blocked);
    let standing = known(DeviceState::Approved);
    let host = crate::request::host("wiki.corp.example").unwrap();
    let blocked = Refusal::Blocked { policy: &policy, decision: &decision, standing: &standing, now: later(), host: &host, mend: None };
    let refused = Refusal::Restricted { policy: &policy, decision: &decision, by: By::Path, now: later(), mend: None };
    for refusal in [blocked, refused] {
        let problem = json(&Page::of(&refusal));
        let expected = serde_json::json!([
            {"fact": "disk_encrypted", "step": "restrict", "at": "2027-01-01T00:00:00+01:00"},
            {"fact": "disk_encrypted", "step": "block", "at": "2027-02-01T14:30:00+01:00"},
        ]);
        assert_eq!(problem["deadlines"], expected);
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("Since 1 January 2027 this device can only read Team wiki. From 1 February 2027, 14:30, Team wiki is closed"),
            "{detail}"
        );
    }
    let (policy, mut other) = laddered(Decided::Blocked);
    other.done.rule = crate::policy::RuleRef::Rule(0);
    let refusal = Refusal::Restricted { policy: &policy, decision: &other, by: By::Path, now: later(), mend: None };
    assert_eq!(json(&Page::of(&refusal)).get("deadlines"), None, "a ladder that decided nothing may concern other devices");
}

fn own<'a>(page: Page<'a>, owner: &'a Owner, host: &'a str) -> Page<'a> {
    Page { owner: Some(owner), host: Some(host), ..page }
}

/// The page of a corporate laptop whose disk is not encrypted, and one for each other kind.
fn with_samples(see: impl Fn(&str, Page<'_>)) {
    let (mail, channel) = (owner("finance-it@corp.example"), owner("#wiki-help"));
    let fixes = fixes();
    let approved = known(DeviceState::Approved);
    let unencrypted = [
        Reason::Posture("disk_encrypted", FactState::Fail),
        Reason::Posture("patched", FactState::Fail),
        Reason::Posture("usb_locked", FactState::Unknown),
    ];
    let failing = Block {
        fixes: fixes.iter().collect(),
        facts: vec![
            fact("screen_lock", FactState::Ok, 2),
            fact("disk_encrypted", FactState::Fail, 0),
            fact("firewall_on", FactState::Unknown, 960),
            fact("patched", FactState::Fail, 2),
            fact("mdm_compliant", FactState::Ok, 2),
        ],
        ..block(&approved, &unencrypted)
    };
    see("failing", own(failing.page(), &mail, "payroll.corp.example"));
    for why in NoRecord::ALL {
        let standing = Standing::NoRecord(why);
        see(&format!("no_record_{why:?}"), own(block(&standing, &[Reason::NoRecord(why)]).page(), &mail, "payroll.corp.example"));
    }
    for state in DeviceState::ALL {
        let standing = known(state);
        see(
            &format!("state_{}", state.as_str()),
            own(block(&standing, &[Reason::DeviceState(state)]).page(), &channel, "payroll.localhost"),
        );
    }
    let unreadable = Block { unavailable: true, ..block(&Standing::Unreadable, &[Reason::StoreUnavailable]) };
    see("unavailable", own(unreadable.page(), &mail, "payroll.corp.example"));
    let posing = Block { poses: true, ..block(&approved, &[Reason::Cap("lying-stack")]) };
    see("posing", own(posing.page(), &mail, "payroll.corp.example"));
    see("zone", own(block(&approved, &[Reason::Signal("net.zone")]).page(), &channel, "payroll.corp.example"));
    let reading = restricted(&["GET", "HEAD"], &unencrypted[..1], &[&fixes[0]]).page(By::Method);
    see("method_reading", Page { owner: Some(&channel), ..reading });
    see("method_other", Page { owner: Some(&channel), ..restricted(&["GET", "POST"], &[], &[]).page(By::Method) });
    for (name, by) in [
        ("path", By::Path),
        ("attachment", By::Attachment),
        ("large_response", By::LargeResponse { limit: 10 << 20 }),
        ("large_body", By::LargeBody { limit: 1 << 20 }),
        ("rate", By::Rate { retry_after: Duration::from_millis(1200) }),
    ] {
        see(name, Page { owner: Some(&mail), ..restricted(&[], &unencrypted[1..2], &[&fixes[1]]).page(by) });
        see(&format!("{name}_bare"), Page { owner: Some(&mail), ..restricted(&[], &[], &[]).page(by) });
    }
    let (policy, decision) = laddered(Decided::Warned);
    let host = crate::request::host("wiki.corp.example").unwrap();
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let notice =
        Notice { policy: &policy, decision: &decision, standing: &approved, now, host: &host, action: "/.well-known/vestibule/notice?x" };
    see("notice", super::restricted::notice(&notice));
    let (policy, decision) = laddered(Decided::Blocked);
    let refusal = Refusal::Blocked { policy: &policy, decision: &decision, standing: &approved, now: later(), host: &host, mend: None };
    see("ladder_block", Page::of(&refusal));
    let refusal = Refusal::Restricted { policy: &policy, decision: &decision, by: By::Method, now: later(), mend: None };
    see("ladder_method", Page::of(&refusal));
    let apps = [
        plain::too_large(1 << 20),
        plain::upstream_unreachable(),
        plain::upstream_timeout(),
        plain::upstream_broken(),
        plain::upgrade(),
        plain::log_unavailable(),
        plain::assertion_unavailable(),
        plain::unenforceable(),
        plain::internal(),
    ];
    for page in apps {
        see(page.kind.name(), Page { app: Some("Team wiki"), owner: Some(&mail), ..page });
    }
    for page in [
        plain::malformed("the path holds an encoded slash"),
        plain::head_too_large(),
        plain::no_app(),
        plain::misdirected(),
        plain::untrusted(),
    ] {
        see(page.kind.name(), page);
    }
}

fn body(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

fn json(page: &Page<'_>) -> serde_json::Value {
    serde_json::from_slice(write(page, ID, Form::Problem).body()).unwrap()
}

/// `cargo test --lib portal:: -- --ignored` writes every page to target/pages, to look at them in a browser.
#[test]
#[ignore = "writes files, for people who change the page"]
fn write_the_pages() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages");
    std::fs::create_dir_all(&folder).unwrap();
    with_samples(|name, page| std::fs::write(folder.join(format!("{name}.html")), html::render(&page, ID)).unwrap());
}

#[test]
fn every_form_of_every_refusal_carries_the_same_care() {
    with_samples(|name, page| {
        for form in [Form::Html, Form::Problem, Form::Grpc, Form::GrpcWeb] {
            let response = write(&page, ID, form);
            let field = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
            assert_eq!(field("cache-control"), "no-store", "{name}");
            assert_eq!(field("vary"), "Accept", "{name}");
            assert_eq!(field("x-request-id"), ID, "{name}");
            assert_eq!(field("x-content-type-options"), "nosniff", "{name}");
            assert_eq!(field("referrer-policy"), "no-referrer", "{name}");
            assert!(field("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"), "{name}");
            let grpc = matches!(form, Form::Grpc | Form::GrpcWeb);
            assert_eq!(response.status(), if grpc { StatusCode::OK } else { page.kind.status() }, "{name}");
            assert_eq!(response.body().is_empty(), grpc, "{name}");
            assert_eq!(field("grpc-status").is_empty(), !grpc, "{name}");
            assert_eq!(field("retry-after").is_empty(), page.retry_after.is_none(), "{name}");
            assert!(page.kind.status() != StatusCode::SERVICE_UNAVAILABLE || page.retry_after.is_some(), "{name}");
        }
    });
}

#[test]
fn a_page_says_what_why_what_next_and_whom_to_ask() {
    with_samples(|name, page| {
        let text = html::render(&page, ID);
        assert!(text.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{name}");
        assert!(!page.next.is_empty() && !page.lead.is_empty(), "{name}");
        assert!(page.lead.ends_with('.') && page.next.iter().all(|s| s.ends_with('.')) && !page.headline.ends_with('.'), "{name}");
        for part in ["<main>", "<h1>", "What you can do", "Who can help", ID, "name=\"viewport\""] {
            assert!(text.contains(part), "{name}: {part}");
        }
        for never in ["<script", "javascript:", "http-equiv", " src=", "style=\"", "@import", "url("] {
            assert!(!text.contains(never), "{name}: {never}");
        }
        assert!(text.len() < 16 * 1024, "{name}: {}", text.len());
    });
}

#[test]
fn failing_facts() {
    with_samples(|name, page| {
        if name != "failing" {
            return;
        }
        let text = html::render(&page, ID);
        for part in [
            "<h1>This device is not ready for Payroll yet</h1>",
            "some of them need attention",
            "Disk encryption is off on this device",
            "<strong>Turn on FileVault or BitLocker</strong><a href=\"https://help.corp.example/disk?a=1&amp;b=2\"",
            "<strong>Install the pending updates &amp; restart</strong></li>",
            "Anna’s laptop",
            "MacBook Air · macOS 15.1",
            "Payroll · payroll.corp.example",
            "href=\"mailto:finance-it@corp.example?subject=Payroll%20%28request%2001JD8Z5Q7M3N9%29\"",
            "<code>posture.disk_encrypted.fail</code>",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let order: Vec<_> = page.device.iter().flat_map(|card| &card.facts).map(|line| (line.label.as_str(), line.age.is_some())).collect();
        let expected = [
            ("Disk encryption", true),
            ("Security updates", true),
            ("Firewall", true),
            ("Usb locked", false),
            ("Screen lock", true),
            ("Meets the rules of device management", true),
        ];
        assert_eq!(order, expected);
    });
}

#[test]
fn problem_details() {
    with_samples(|name, page| {
        let problem = json(&page);
        assert_eq!(problem["instance"], ID, "{name}");
        assert_eq!(problem["status"], page.kind.status().as_u16(), "{name}");
        assert_eq!(problem["type"], format!("urn:vestibule:problem:{}", page.kind.name()), "{name}");
        if name == "failing" {
            let expected = serde_json::json!({
                "type": "urn:vestibule:problem:blocked",
                "title": "Access refused",
                "status": 403,
                "detail": "This device is not ready for Payroll yet. Payroll opens for devices that pass its checks. On this device, some of them \
                           need attention. Disk encryption is off on this device. Security updates are missing on this device. The result of the check “Usb locked” is not known for this device.",
                "instance": ID,
                "reasons": ["posture.disk_encrypted.fail", "posture.patched.fail", "posture.usb_locked.unknown"],
                "fixes": [
                    {"reason": "posture.disk_encrypted.fail", "text": "Turn on FileVault or BitLocker", "help": "https://help.corp.example/disk?a=1&b=2"},
                    {"reason": "posture.patched.fail", "text": "Install the pending updates & restart", "help": null},
                ],
                "owner": "finance",
                "contact": "finance-it@corp.example",
            });
            assert_eq!(problem, expected);
        }
    });
}

#[test]
fn grpc_statuses() {
    let statuses = std::cell::RefCell::new(std::collections::BTreeMap::new());
    with_samples(|_, page| {
        let response = write(&page, ID, Form::Grpc);
        let headers = response.headers();
        let message = headers["grpc-message"].to_str().unwrap();
        assert!(message.ends_with(&format!("(request {ID})")), "{message}");
        assert_eq!(headers["content-type"], "application/grpc");
        statuses.borrow_mut().insert(page.kind.name(), headers["grpc-status"].to_str().unwrap().to_owned());
    });
    let statuses = statuses.into_inner();
    for (kind, status) in
        [("blocked", "7"), ("method", "7"), ("too_large", "8"), ("too_many", "8"), ("upgrade", "12"), ("unavailable", "14")]
    {
        assert_eq!(statuses[kind], status, "{kind}");
    }
    assert_eq!(statuses.len(), 22, "{statuses:?}");
}

#[test]
fn nothing_breaks_out_of_the_page() {
    let evil = "\"><script>alert('x')</script>&";
    let standing = known(DeviceState::Approved);
    let owner = owner(evil);
    let reasons =
        [Reason::Posture(evil, FactState::Fail), Reason::Cap(evil), Reason::Class(evil), Reason::Tier(evil), Reason::Device(evil)];
    let fixes = [Fix { fact: evil.into(), text: evil.into(), help: Some(format!("https://{evil}")) }];
    let block =
        Block { title: evil, fixes: fixes.iter().collect(), facts: vec![fact(evil, FactState::Ok, 1)], ..block(&standing, &reasons) };
    let page = Page { owner: Some(&owner), host: Some(evil), ..block.page() };
    let text = html::render(&page, evil);
    assert!(!text.contains("<script") && !text.contains("\">alert") && !text.contains("='x'"), "{text}");
    assert_eq!(json(&page)["contact"], evil);
    let message = write(&page, "a\r\nb", Form::Grpc);
    assert!(message.headers()["grpc-message"].to_str().unwrap().contains("a%0D%0Ab"));
    assert!(message.headers().get("x-request-id").is_none(), "not a field value");
}

#[test]
fn contacts_and_help_links() {
    let contact = |contact: &str| {
        let owner = owner(contact);
        html::render(&Page { owner: Some(&owner), ..plain::upgrade() }, ID)
    };
    assert!(contact("#wiki-help").contains("<p class=\"contact\">#wiki-help</p>"));
    assert!(contact("https://chat.corp.example/c/1").contains("<a href=\"https://chat.corp.example/c/1\""));
    for no_address in ["a@b?cc=x@y", "a@b@c", "@b", "a b@c", "javascript:alert(1)", "JAVASCRIPT:x@y", "file:///etc/passwd", "ht"] {
        assert!(!contact(no_address).contains("<a "), "{no_address}");
    }
}

#[test]
fn a_lost_device_is_told_nothing_of_its_owner() {
    for (state, card) in
        [(DeviceState::Lost, false), (DeviceState::Suspended, true), (DeviceState::Retired, true), (DeviceState::Pending, true)]
    {
        let standing = known(state);
        let block = Block { facts: vec![fact("patched", FactState::Ok, 1)], ..block(&standing, &[Reason::DeviceState(state)]) };
        let page = block.page();
        assert_eq!(html::render(&page, ID).contains("Anna"), card, "{state:?}");
        assert_eq!(page.device.is_some_and(|card| !card.facts.is_empty()), state == DeviceState::Pending, "{state:?}");
    }
}

#[test]
fn the_story_fits_the_reasons() {
    let headline = |standing: &Standing, reasons: &[Reason<'_>]| block(standing, reasons).page().headline;
    let (blind, approved) = (Standing::NoRecord(NoRecord::NoProof), known(DeviceState::Approved));
    assert_eq!(headline(&blind, &[Reason::Class("blind")]), "We do not know this device yet");
    assert_eq!(headline(&blind, &[Reason::NoRule]), "We do not know this device yet");
    assert_eq!(headline(&blind, &[Reason::Signal("net.zone"), Reason::Class("blind")]), "Payroll is not open to this device");
    assert_eq!(headline(&approved, &[Reason::Signal("time.hour"), Reason::Class("corporate")]), "Payroll is not open at this time");
    assert_eq!(headline(&approved, &[Reason::Tier("known")]), "Payroll is not open to this device");
    assert_eq!(
        headline(&approved, &[Reason::Posture("patched", FactState::Unknown)]),
        "This device has to be checked before it can open Payroll"
    );
    assert_eq!(headline(&approved, &[Reason::Posture("patched", FactState::Ok)]), "Payroll is not open to this device");
    let suspended = known(DeviceState::Suspended);
    let reasons = [Reason::Posture("patched", FactState::Fail), Reason::DeviceState(DeviceState::Suspended)];
    assert_eq!(headline(&suspended, &reasons), "This device has been suspended");
}

#[test]
fn nothing_is_said_twice() {
    for (standing, reason) in [
        (known(DeviceState::Lost), Reason::DeviceState(DeviceState::Lost)),
        (known(DeviceState::Pending), Reason::DeviceState(DeviceState::Pending)),
        (Standing::NoRecord(NoRecord::ExpiredCertificate), Reason::NoRecord(NoRecord::ExpiredCertificate)),
    ] {
        let page = block(&standing, &[reason]).page();
        assert!(!html::render(&page, ID).contains("id=\"why\""), "{reason}");
        assert_eq!(json(&page)["detail"].as_str().unwrap().matches(&page.headline).count(), 1, "{reason}");
        assert_eq!(json(&page)["reasons"], serde_json::json!([reason.to_string()]));
    }
}

#[test]
fn waits_are_rounded_up() {
    for (wait, seconds) in [(Duration::ZERO, 1), (Duration::from_millis(1), 1), (Duration::from_millis(1200), 2), (Duration::MAX, u64::MAX)]
    {
        let page = super::restricted::too_many(wait);
        assert_eq!(write(&page, ID, Form::Problem).headers()["retry-after"], seconds.to_string());
    }
}

#[test]
fn methods_are_listed_in_allow() {
    let page = restricted(&["GET", "HEAD"], &[Reason::Tier("known")], &[]).page(By::Method);
    let response = write(&page, ID, Form::Problem);
    assert_eq!((response.status(), &response.headers()["allow"]), (StatusCode::FORBIDDEN, &HeaderValue::from_static("GET, HEAD")));
    assert_eq!(json(&page)["reasons"], serde_json::json!(["restrict.methods", "tier.known"]));
    let none = write(&restricted(&[], &[], &[]).page(By::Method), ID, Form::Problem);
    assert_eq!(none.headers()["allow"], "", "RFC 9110 section 10.2.1: no method is allowed");
}

#[test]
fn the_form_follows_the_request() {
    let answered = |name: &str, value: &str| {
        let request = Request::get("/").header(name, value).body(()).unwrap();
        answer(&Refusal::NoApp, ID, Form::wanted(request.headers()))
    };
    let page = answered("accept", "text/html,*/*;q=0.8");
    assert_eq!(
        (page.status(), &page.headers()["content-type"]),
        (StatusCode::NOT_FOUND, &HeaderValue::from_static("text/html; charset=utf-8"))
    );
    assert!(body(&page).contains("There is no app at this address"));
    assert_eq!(answered("accept", "*/*").headers()["content-type"], "application/problem+json");
    let grpc = answered("content-type", "application/grpc+proto");
    assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from_static("12")));
    assert_eq!(Page::of(&Refusal::Malformed { what: "x" }).kind, Kind::Malformed);
}
