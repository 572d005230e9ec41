//! What people see when a request is refused: one page, and its twins for programs and for gRPC.
//!
//! A refusal is first turned into a `Page`, plain words without any policy table, then written in the form that the client
//! asked for. Texts say what happened, why, what to do next and whom to ask; nothing of the request but its host is repeated.

mod block;
mod form;
mod html;
mod page;
mod plain;
mod problem;
mod words;

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use jiff::Timestamp;

pub use self::form::Form;
use self::page::Page;
use crate::model::{Host, Standing};
use crate::policy::{AppId, Decision, Policy};

/// The app that a refused request was for: its title, owner and contact go on the page.
#[derive(Clone, Copy, Debug)]
pub struct App<'a> {
    pub policy: &'a Policy,
    pub id: AppId,
}

/// Why a request gets no answer of an app's. The app is named wherever it is known, since its owner is whom people ask.
#[derive(Clone, Copy, Debug)]
pub enum Refusal<'a> {
    /// The decision blocks: 403, or 503 with Retry-After when the device's record could not be read.
    Blocked { policy: &'a Policy, decision: &'a Decision, standing: &'a Standing, now: Timestamp, host: &'a Host },
    /// `restrict.methods`: 403 with Allow.
    Method { policy: &'a Policy, decision: &'a Decision },
    /// `restrict.max_body`, in bytes: 413.
    TooLarge { app: App<'a>, limit: u64 },
    /// `restrict.requests`: 429. Retry-After is rounded up to whole seconds, at least one.
    TooMany { app: App<'a>, retry_after: Duration },
    /// 400. `what` is a sentence fit for a person, without any byte of the request.
    Malformed { what: &'static str },
    /// 431.
    HeadTooLarge,
    /// 404: the host and path are no app's.
    NoApp,
    /// 421: the certificate of this connection does not cover the host.
    Misdirected,
    /// 501: upgrades and tunnels are not carried.
    Upgrade { app: Option<App<'a>> },
    /// 503 with Retry-After: no connection to the app.
    UpstreamUnreachable { app: App<'a> },
    /// 504: the app did not answer in time.
    UpstreamTimeout { app: App<'a> },
    /// 502: what the app answered is not HTTP.
    UpstreamBroken { app: App<'a> },
    /// 503 with Retry-After: the decision log is required and cannot be written.
    LogUnavailable { app: Option<App<'a>> },
    /// 500: our own fault.
    Internal { app: Option<App<'a>> },
}

/// The whole answer. `request_id` stands in every form.
pub fn answer(refusal: &Refusal<'_>, request_id: &str, form: Form) -> Response<Bytes> {
    write(&Page::of(refusal), request_id, form)
}

fn write(page: &Page<'_>, request_id: &str, form: Form) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let (status, content_type) = match form {
        Form::Html => (page.kind.status(), "text/html; charset=utf-8"),
        Form::Problem => (page.kind.status(), "application/problem+json"),
        Form::Grpc => (StatusCode::OK, "application/grpc"),
        Form::GrpcWeb => (StatusCode::OK, "application/grpc-web+proto"),
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if let Some(seconds) = page.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allowed) = &page.allowed
        && let Ok(value) = HeaderValue::from_str(&allowed.join(", "))
    {
        headers.insert(ALLOW, value);
    }
    match form {
        Form::Html => *response.body_mut() = html::render(page, request_id).into(),
        Form::Problem => *response.body_mut() = problem::json(page, request_id).into(),
        Form::Grpc | Form::GrpcWeb => problem::grpc(page, request_id, headers),
    }
    response
}

/// An answer about one device at one moment is nobody else's, and nothing on it may load, run or be framed.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (VARY, HeaderValue::from_static("Accept")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(html::CONTENT_SECURITY_POLICY)),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;

    use super::block::Block;
    use super::page::Kind;
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
        Block {
            title: "Payroll",
            reasons: reasons.to_vec(),
            fixes: Vec::new(),
            facts: Vec::new(),
            standing,
            unavailable: false,
            poses: false,
        }
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
        for why in [
            NoRecord::NoProof,
            NoRecord::UnknownCertificate,
            NoRecord::ExpiredCertificate,
            NoRecord::FutureCertificate,
            NoRecord::UntrustedCertificate,
            NoRecord::RevokedCertificate,
            NoRecord::StaleCrl,
        ] {
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
        let reading = plain::method("Team wiki", vec!["GET", "HEAD"], &unencrypted[..1], &[&fixes[0]]);
        see("method_reading", Page { owner: Some(&channel), ..reading });
        see("method_other", Page { owner: Some(&channel), ..plain::method("Team wiki", vec!["GET", "POST"], &[], &[]) });
        let apps = [
            plain::too_large(1 << 20),
            plain::too_many(Duration::from_millis(1200)),
            plain::upstream_unreachable(),
            plain::upstream_timeout(),
            plain::upstream_broken(),
            plain::upgrade(),
            plain::log_unavailable(),
            plain::internal(),
        ];
        for page in apps {
            see(page.kind.name(), Page { app: Some("Team wiki"), owner: Some(&mail), ..page });
        }
        for page in [plain::malformed("the path holds an encoded slash"), plain::head_too_large(), plain::no_app(), plain::misdirected()] {
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
            let order: Vec<_> =
                page.device.iter().flat_map(|card| &card.facts).map(|line| (line.label.as_str(), line.age.is_some())).collect();
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
        assert_eq!(statuses.len(), 15, "{statuses:?}");
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
        for (wait, seconds) in
            [(Duration::ZERO, 1), (Duration::from_millis(1), 1), (Duration::from_millis(1200), 2), (Duration::MAX, u64::MAX)]
        {
            let page = plain::too_many(wait);
            assert_eq!(write(&page, ID, Form::Problem).headers()["retry-after"], seconds.to_string());
        }
    }

    #[test]
    fn methods_are_listed_in_allow() {
        let page = plain::method("Wiki", vec!["GET", "HEAD"], &[Reason::Tier("known")], &[]);
        let response = write(&page, ID, Form::Problem);
        assert_eq!((response.status(), &response.headers()["allow"]), (StatusCode::FORBIDDEN, &HeaderValue::from_static("GET, HEAD")));
        assert_eq!(json(&page)["reasons"], serde_json::json!(["restrict.methods", "tier.known"]));
        let none = write(&plain::method("Wiki", vec![], &[], &[]), ID, Form::Problem);
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
}
