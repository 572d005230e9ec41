//! What people see: Chromium, headless, through the proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::fs;

use support::chromium::open;
use support::{Config, Curl, Lab, Origin, Proxy, Reply};

const APP_PAGE: &str =
    "<!doctype html><title>Wiki</title><link rel=stylesheet href=/style.css><p id=p>not run</p><script src=/script.js></script>";
const APP_SCRIPT: &str = "document.getElementById('p').textContent = 'the script of the app ran'; console.error('a mark of the app');";

/// Width and height of a PNG, and its size in bytes: a page with text is not a blank one.
fn picture(bytes: &[u8]) -> (u32, u32, usize) {
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20), bytes.len())
}

fn url(proxy: &Proxy, host: &str, path: &str) -> String {
    format!("https://{host}:{}{path}", proxy.addr("edge").port())
}

#[test]
fn the_block_page_in_a_browser() {
    let origin = Origin::answering(Reply::text("never shown"));
    let lab = Lab::new();
    let proxy = lab.start(
        &Config::new(&origin)
            .set("owners", r#"{security: {contact: "security@corp.example"}, knowledge: {contact: "wiki-help@corp.example"}}"#),
    );
    let shot = lab.path("page.png");
    let seen = open(&lab, &url(&proxy, "wiki.localhost", "/"), &[]);

    assert!(seen.console.is_empty(), "an error, or a violation of the page's own policy: {:?}", seen.console);
    for words in [
        "<title>",
        "Team wiki",
        "wiki.localhost",
        "did not show a certificate",
        "Why",
        "What you can do",
        "Who can help",
        "device.unknown",
        "Status 403",
    ] {
        assert!(seen.dom.contains(words), "`{words}` is not on the page: {}", seen.dom);
    }
    assert!(seen.dom.contains(r#"<a href="mailto:wiki-help@corp.example?subject="#), "{}", seen.dom);
    assert!(!seen.dom.to_ascii_lowercase().contains("<script"), "{}", seen.dom);
    assert!(!seen.dom.contains("never shown") && origin.received().is_empty());

    let log = lab.decisions(1);
    let line = log.iter().find(|line| line["path"] == "/").unwrap();
    let id = line["request_id"].as_str().unwrap();
    assert!(seen.dom.contains(&format!("<code class=\"id\">{id}</code>")), "the id on the page is the one in the log: {}", seen.dom);
    assert_eq!((line["status"].as_u64(), line["class"].as_str()), (Some(403), Some("blind")));
    assert_eq!(line["claims"]["browser"], "chromium", "{line}");
    assert!(line["wire"]["ja4"].as_str().is_some_and(|ja4| ja4.starts_with("t13d") && ja4.contains("h2_")), "{line}");

    // On a desk and on a phone, light and dark: drawn, and no wider than the screen.
    for (name, size) in [("desk", (1280, 900)), ("phone", (390, 844))] {
        let window = format!("--window-size={},{}", size.0, size.1);
        let screenshot = format!("--screenshot={}", shot.display());
        let seen = open(&lab, &url(&proxy, "wiki.localhost", &format!("/{name}")), &[&window, &screenshot]);
        assert!(seen.console.is_empty(), "{name}: {:?}", seen.console);
        let (width, height, bytes) = picture(&fs::read(&shot).unwrap());
        assert_eq!(width, size.0, "{name}");
        assert!(height > 500 && bytes > 10_000, "{name}: {width} by {height}, {bytes} bytes: a blank page");
    }
    // A page that is not there, in the same dress.
    let seen = open(&lab, &url(&proxy, "git.localhost", "/"), &[]);
    assert!(seen.dom.contains("Status 404") && seen.console.is_empty(), "{:?} {}", seen.console, seen.dom);
}

#[test]
fn the_page_of_a_device_that_fails_a_check() {
    let app = Origin::answering(Reply::text("never shown"));
    let lab = Lab::new();
    let config = Config::new(&app)
        .replace("tier: \">= healthy\"", "tier: \">= trusted\"")
        .replace("tier: \">= known\"", "tier: \">= trusted\"")
        .replace("when: {class: corporate, ", "when: {")
        .set(
            "posture",
            r#"{sources: {mdm: {ttl: 24h}, manual: {ttl: 30d}}, fixes: {disk_encrypted: {text: "Turn on <FileVault> or BitLocker", help: "https://help.corp.example/disk?a=1&b=2"}}}"#,
        );
    lab.configure(&config);
    let laptop = lab.device(
        "nodisk",
        "name=Ben's_laptop ownership=corporate state=approved os=linux model=ThinkPad posture.os_supported=ok posture.screen_lock=ok \
         posture.mdm_compliant=ok posture.disk_encrypted=fail",
    );
    let proxy = lab.start(&config);
    let answer = Curl::to(&proxy, &lab).device(&laptop).http1().header("Accept: text/html").get("https://wiki.localhost/");
    assert_eq!((answer.exit, answer.status), (0, 403));
    assert!(
        answer.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none';")),
        "{:?}",
        answer.headers
    );

    // Chromium shows a certificate only to a person who picks one, so it gets what curl got: the same bytes under the same headers.
    let headers: String = answer.headers.iter().fold(String::new(), |text, (name, value)| format!("{text}{name}: {value}\r\n"));
    let again = Origin::answering(Reply::Bytes(format!("HTTP/1.1 403 Forbidden\r\n{headers}\r\n{}", answer.body).into_bytes()));
    let seen = open(&lab, &again.url(), &[]);
    assert!(seen.console.is_empty(), "{:?}", seen.console);
    let id = answer.header("x-request-id").unwrap();
    for words in [
        "Disk encryption is off on this device",
        "Turn on &lt;FileVault&gt; or BitLocker",
        r#"href="https://help.corp.example/disk?a=1&amp;b=2""#,
        "Ben's_laptop",
        "#wiki-help",
        "Needs attention",
        id,
    ] {
        assert!(seen.dom.contains(words), "`{words}` is not on the page: {}", seen.dom);
    }
    for section in ["why", "next", "device", "help"] {
        assert!(seen.dom.contains(&format!("<h2 id=\"{section}\">")), "{section}: {}", seen.dom);
    }
    assert!(!seen.dom.to_ascii_lowercase().contains("<script"), "{}", seen.dom);
    assert!(app.received().is_empty());

    // The same page with a style of another's would have been noticed.
    let spoilt = answer.body.replace("<style>", "<style>b{}").into_bytes();
    let headers =
        headers.lines().filter(|line| !line.starts_with("content-length")).fold(String::new(), |text, line| format!("{text}{line}\r\n"));
    let head = format!("HTTP/1.1 403 Forbidden\r\n{headers}content-length: {}\r\n\r\n", spoilt.len());
    let spoilt = Origin::answering(Reply::Bytes([head.into_bytes(), spoilt].concat()));
    let seen = open(&lab, &spoilt.url(), &[]);
    assert!(seen.console.iter().any(|line| line.contains("Content Security Policy")), "{:?}", seen.console);
}

#[test]
fn an_apps_page_works_in_a_browser() {
    let origin = Origin::start(|received| {
        let reply = |kind: &str, body: &str| {
            Reply::Bytes(
                format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nSet-Cookie: seen=1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                    .into_bytes(),
            )
        };
        match received.line().split(' ').nth(1).unwrap() {
            "/" => reply("text/html", APP_PAGE),
            "/script.js" => reply("text/javascript", APP_SCRIPT),
            "/style.css" => reply("text/css", "p { color: green }"),
            _ => Reply::status("404 Not Found", "", ""),
        }
    });
    let lab = Lab::new();
    let proxy = lab.start(&Config::new(&origin).replace("{name: rest, then: block}", "{name: everybody, then: forward}"));
    let seen = open(&lab, &url(&proxy, "wiki.localhost", "/"), &[]);
    assert!(seen.dom.contains("the script of the app ran"), "{:?} {}", seen.console, seen.dom);
    // This is how a script or a violation on the block page would have been noticed.
    assert!(seen.console.iter().any(|line| line.contains("a mark of the app")), "{:?}", seen.console);
    let received = origin.received();
    let script = received.iter().find(|received| received.line().starts_with("GET /script.js ")).unwrap();
    assert_eq!(script.header("cookie"), ["seen=1"]);
    assert_eq!(script.header("vestibule-device-class"), ["blind"]);
    assert!(script.header("user-agent").concat().contains("Chrome/"));
    assert!(script.header("sec-fetch-dest") == ["script"], "what a browser says passes: {}", script.text());
    assert_eq!(received[0].header("vestibule-tier"), ["none"]);
    // One connection carried page, style and script.
    assert_eq!(proxy.metrics().sum("vestibule_requests_total", &[("app", "wiki"), ("effect", "forward"), ("status", "200")]), 3.0);
}
