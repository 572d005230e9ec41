//! What people see: Chromium, headless, through the proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::fs;

use support::cdp::Browser;
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

/// An app for each restriction at `NAME.localhost`, open to everybody.
fn restricted(origin: &Origin, apps: &[(&str, &str)]) -> Config {
    let server = origin.url();
    let (mut named, mut list) = (String::new(), String::new());
    for (name, yaml) in apps {
        let rule = if yaml.is_empty() { "then: forward".to_owned() } else { format!("then: restrict, with: [{name}]") };
        list += &format!(
            "\n  - {{name: {name}, owner: knowledge, hosts: [{name}.localhost], upstream: {{servers: [\"{server}\"]}}, rules: [{{name: all, {rule}}}]}}"
        );
        if !yaml.is_empty() {
            named += &format!("\n  {name}: {yaml}");
        }
    }
    Config::new(origin).set("restrictions", &named).set("apps", &list)
}

/// A page that hands out files in every way that a page can, and works in others.
fn files() -> Origin {
    const PAGE: &str = "<!doctype html><title>Files</title><p id=p>not run</p><a id=link download href=/file.txt>link</a>
        <a id=sent href=/sent>sent</a><a id=blob>blob</a><form method=post action=/form><input name=a value=b><button id=send>send</button></form>
        <script>document.getElementById('p').textContent = 'the script ran';
        const blob = document.getElementById('blob'); blob.download = 'blob.txt'; blob.href = URL.createObjectURL(new Blob(['made here']));</script>";
    Origin::start(|received| {
        let reply = |headers: &str, body: &str| {
            Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
        };
        match received.line().split(' ').nth(1).unwrap() {
            "/sent" => reply("Content-Type: text/plain\r\nContent-Disposition: attachment; filename=sent.txt\r\n", "sent by the app"),
            "/file.txt" => reply("Content-Type: text/plain\r\n", "a file"),
            "/form" => reply("Content-Type: text/html\r\n", "<title>Done</title><p>the form came"),
            "/untyped" => reply("", "<p>no type at all"),
            _ => reply("Content-Type: text/html\r\n", PAGE),
        }
    })
}

#[test]
fn a_sandboxed_app_works_and_saves_nothing() {
    let origin = files();
    let lab = Lab::for_hosts(&["free.localhost", "boxed.localhost"]);
    let proxy = lab.start(&restricted(&origin, &[("free", ""), ("boxed", "{sandbox: true}")]));
    let mut browser = Browser::start(&lab, (1280, 900));
    for (id, file) in [("link", "file.txt"), ("blob", "blob.txt"), ("sent", "sent.txt")] {
        browser.open(&url(&proxy, "free.localhost", "/"));
        browser.click(&format!("#{id}"));
        let begun = browser.event("Browser.downloadWillBegin", |_| true);
        assert_eq!(begun["suggestedFilename"], file, "this is how a download would have been noticed");
        browser.event("Browser.downloadProgress", |progress| progress["state"] == "completed");
    }
    for id in ["link", "blob", "sent"] {
        browser.open(&url(&proxy, "boxed.localhost", "/"));
        assert!(browser.text().contains("the script ran"));
        browser.click(&format!("#{id}"));
        browser
            .event("Log.entryAdded", |entry| entry["entry"]["text"].as_str().is_some_and(|text| text.contains("Download is disallowed")));
        assert!(!browser.has("Browser.downloadWillBegin"), "{id}");
    }
    browser.open(&url(&proxy, "boxed.localhost", "/"));
    browser.click("#send");
    browser.loaded();
    assert_eq!(browser.text().trim(), "the form came");
    assert!(origin.received().iter().any(|received| received.line().starts_with("POST /form ") && received.body == b"a=b"));
}

#[test]
fn a_download_that_is_kept_back_is_a_page_that_says_so() {
    let origin = files();
    let lab = Lab::for_hosts(&["look.localhost"]);
    let proxy = lab.start(&restricted(&origin, &[("look", "{attachments: block}")]));
    for (name, size) in [("desk", (1280, 900)), ("phone", (390, 844))] {
        let mut browser = Browser::start(&lab, size);
        browser.open(&url(&proxy, "look.localhost", "/"));
        browser.click("#sent");
        browser.loaded();
        let text = browser.text();
        assert!(text.contains("This device may not download files here") && text.contains("restrict.attachments"), "{text}");
        assert!(!browser.has("Browser.downloadWillBegin"));
        assert_eq!(fs::read_dir(browser.downloads()).unwrap().count(), 0);
        fits(&mut browser, &format!("attachment-{name}.png"), size.0);
        // What has no type is shown, not guessed at and not saved.
        browser.open(&url(&proxy, "look.localhost", "/untyped"));
        assert_eq!(browser.text().trim(), "<p>no type at all");
    }
}

/// No wider than the window.
fn fits(browser: &mut Browser, picture: &str, width: u32) {
    browser.picture(picture);
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), width, "{picture}");
}

#[test]
fn features_are_closed_to_pages_whatever_the_app_says() {
    let origin = Origin::answering(Reply::status(
        "200 OK",
        "Permissions-Policy: camera=*, usb=()\r\nPermissions-Policy: geolocation 'self'\r\n",
        "page",
    ));
    let lab = Lab::for_hosts(&["free.localhost", "closed.localhost"]);
    let apps = [("free", ""), ("closed", "{permissions_policy: [camera, geolocation]}")];
    let proxy = lab.start(&restricted(&origin, &apps));
    let mut browser = Browser::start(&lab, (1280, 900));
    let mut allowed = |host: &str| {
        browser.open(&url(&proxy, host, "/"));
        ["camera", "geolocation", "usb", "microphone"]
            .map(|feature| browser.eval(&format!("document.featurePolicy.allowsFeature('{feature}')")) == true)
    };
    assert_eq!(allowed("free.localhost"), [true, true, true, true], "the app's second field is no policy, and so neither is its first");
    assert_eq!(allowed("closed.localhost"), [false, false, false, true]);
    let asked =
        browser.eval("new Promise(done => navigator.geolocation.getCurrentPosition(() => done('found'), error => done(error.message)))");
    assert!(asked.as_str().unwrap().contains("disabled in this document by permissions policy"), "{asked}");
}

#[test]
fn a_notice_is_read_once_and_leads_on() {
    let origin = Origin::start(|received| {
        let page = format!("<!doctype html><title>Wiki</title><p>the app's page for {}</p>", received.line());
        Reply::Bytes(
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: own=1\r\nContent-Length: {}\r\n\r\n{page}", page.len())
                .into_bytes(),
        )
    });
    let lab = Lab::new();
    let config = Config::new(&origin)
        .replace("{name: rest, then: block}", "{name: everybody, then: forward}")
        .set("time_zone", "Europe/Berlin")
        .set("posture", "{sources: {mdm: {ttl: 24h}}, fixes: {disk_encrypted: {text: Turn on FileVault or BitLocker, help: \"https://help.corp.example/disk\"}}, ladder: {disk_encrypted: {warn: 2026-01-01, restrict: 2099-01-01, with: [read-only], block: 2099-02-01}}}");
    let proxy = lab.start(&config);
    for (name, size) in [("desk", (1280, 900)), ("phone", (390, 844))] {
        let mut browser = Browser::start(&lab, size);
        let before = origin.received().len();
        browser.open(&url(&proxy, "wiki.localhost", "/page?a=1&b=%2F"));
        let text = browser.text();
        for words in [
            "Something about this device has to be mended soon",
            "It is not known whether disk encryption is on",
            "From 1 January 2099 this device can only read Team wiki",
            "From 1 February 2099 Team wiki is closed to this device",
            "Turn on FileVault or BitLocker",
            "security@corp.example",
            "notice.shown",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!browser.has("Log.entryAdded"), "nothing that the page's own policy stops");
        fits(&mut browser, &format!("notice-{name}.png"), size.0);
        assert_eq!(origin.received().len(), before, "nothing of it reached the app");
        browser.click("button");
        browser.loaded();
        assert_eq!(browser.text(), "the app's page for GET /page?a=1&b=%2F HTTP/1.1");
        for _ in 0..2 {
            browser.open(&url(&proxy, "wiki.localhost", "/again"));
            assert_eq!(browser.text(), "the app's page for GET /again HTTP/1.1");
        }
        let received = origin.received();
        let again = received.iter().rfind(|received| received.line().starts_with("GET /again ")).unwrap();
        assert_eq!(again.header("cookie"), ["own=1"], "the app's own cookie and no other");
        assert!(!received.iter().any(|received| received.line().contains("well-known")));
        let told = browser.eval("fetch('/data').then(answer => answer.headers.get('vestibule-notice'))");
        assert_eq!(told, "posture.disk_encrypted.unknown; restrict=2099-01-01; block=2099-02-01");
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("vestibule_decisions_total", &[("app", "wiki"), ("reason", "notice.shown")]), 2.0);
}
