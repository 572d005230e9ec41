//! What people and programs are told before a ladder refuses anything, and what it says when it does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use serde_json::json;
use support::{Answer, Config, Curl, Lab, Origin, Proxy, Reply, raw};
use vestibule::cli::lab_ca::Issued;

struct World {
    origin: Origin,
    lab: Lab,
    proxy: Proxy,
    laptop: Issued,
}

/// The apps `wiki` and `git` are open to everybody, behind `ladder` on disk encryption, which the laptop fails.
fn world(ladder: &str) -> World {
    let origin = Origin::answering(Reply::text("the app"));
    let lab = Lab::new();
    let server = origin.url();
    let app = |name: &str, prefix: &str| {
        format!(
            "\n  - {{name: {name}, title: Team {name}, owner: knowledge, hosts: [wiki.localhost, wiki.corp.example], path_prefix: {prefix}, path: {{slashes: keep}}, upstream: {{servers: [\"{server}\"]}}, rules: [{{name: all, then: forward}}]}}"
        )
    };
    let posture = format!("{{sources: {{manual: {{ttl: 30d}}}}, ladder: {{disk_encrypted: {ladder}}}}}");
    let config = Config::new(&origin)
        .set("time_zone", "Europe/Berlin")
        .set("apps", &(app("wiki", "/") + &app("git", "/git")))
        .set("posture", &posture);
    lab.configure(&config);
    let laptop = lab.device(
        "laptop",
        "ownership=corporate state=approved posture.disk_encrypted=fail posture.mdm_compliant=ok posture.os_supported=ok posture.screen_lock=ok",
    );
    let proxy = lab.start(&config);
    World { origin, lab, proxy, laptop }
}

const WARNS: &str = "{warn: 2026-01-01, restrict: 2099-01-01, with: [read-only], block: 2099-02-01T12:00:00+01:00}";
const TOLD: &str = "posture.disk_encrypted.fail; restrict=2099-01-01; block=2099-02-01T12:00:00+01:00";

impl World {
    fn curl(&self) -> Curl {
        Curl::to(&self.proxy, &self.lab).device(&self.laptop)
    }

    /// As a browser goes to a page.
    fn navigate(&self) -> Curl {
        self.curl().header("Accept: text/html,*/*;q=0.8").header("Sec-Fetch-Mode: navigate").header("Sec-Fetch-Dest: document")
    }

    fn press(&self, action: &str, site: &str) -> Answer {
        self.curl().header(site).arg("--data-binary").arg("").get(&format!("https://wiki.localhost{action}"))
    }
}

/// Where the page's button leads.
#[track_caller]
fn action(page: &Answer) -> String {
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")), "{page:?}");
    let (_, rest) = page.body.split_once("method=\"post\" action=\"").unwrap_or_else(|| panic!("no notice: {}", page.body));
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

#[test]
fn people_see_a_page_once_a_day_and_programs_a_header() {
    let world = world(WARNS);
    for version in ["--http1.1", "--http2"] {
        let page = world.navigate().arg(version).get("https://wiki.localhost/a?b=c");
        assert!(page.body.contains("Disk encryption is off on this device") && page.body.contains("From 1 January 2099"), "{}", page.body);
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none';"));
        assert!(world.origin.received().iter().all(|received| !received.line().contains("/a?b=c")));
        let pressed = world.press(&action(&page), "Sec-Fetch-Site: same-origin");
        assert_eq!((pressed.status, pressed.header("location"), pressed.header("cache-control")), (303, Some("/a?b=c"), Some("no-store")));
        let cookie = pressed.header("set-cookie").unwrap();
        assert!(cookie.starts_with("__Host-vestibule-notice="), "{cookie}");
        for part in ["Path=/", "Max-Age=86400", "HttpOnly", "SameSite=Lax", "Secure"] {
            assert!(cookie.split("; ").any(|found| found == part), "{part}: {cookie}");
        }
        let held = format!("Cookie: own=1; {}", cookie.split(';').next().unwrap());
        let after = world.navigate().arg(version).header(&held).get("https://wiki.localhost/after");
        assert_eq!((after.body.as_str(), after.header("vestibule-notice")), ("the app", Some(TOLD)));
        assert_eq!(world.origin.received().last().unwrap().header("cookie"), ["own=1"]);
        // Another app behind the same host has the same to say.
        assert_eq!(world.navigate().header(&held).get("https://wiki.localhost/git/").body, "the app");
    }
    let html = "Accept: text/html";
    let navigates = "Sec-Fetch-Mode: navigate";
    for curl in [
        world.curl(),
        world.curl().header(html),
        world.curl().header(html).header(navigates).header("Sec-Fetch-Dest: iframe"),
        world.curl().header(html).header("Sec-Fetch-Mode: cors"),
        world.curl().header("Accept: application/json").header(navigates),
        world.navigate().arg("--data-binary").arg("x"),
        world.navigate().arg("--request").arg("PUT"),
    ] {
        let answer = curl.get("https://wiki.localhost/x");
        assert_eq!((answer.body.as_str(), answer.header("vestibule-notice")), ("the app", Some(TOLD)), "{answer:?}");
    }
    let log = world.lab.decisions(4);
    let shown = log.iter().find(|line| line["path"] == "/a").unwrap();
    assert_eq!(
        (&shown["reasons"][0], &shown["effect"], &shown["status"], &shown["app"]),
        (&json!("notice.shown"), &json!("forward"), &json!(200), &json!("wiki"))
    );
    let pressed = log.iter().find(|line| line["status"] == 303).unwrap();
    assert_eq!(
        (&pressed["reasons"], &pressed["app"], &pressed["path"]),
        (&json!(["notice.shown"]), &json!("portal"), &json!("/.well-known/vestibule/notice"))
    );
    assert_eq!(world.proxy.metrics().sum("vestibule_decisions_total", &[("app", "wiki"), ("reason", "notice.shown")]), 2.0);
}

/// Browsers send a backslash in a query as it is; and what begins with two slashes, which an app may keep, would lead to another host.
#[test]
fn every_address_that_shows_a_notice_has_a_button_that_goes_on() {
    let world = world(WARNS);
    let long = format!("/a?{}", "x".repeat(5000));
    for (address, to) in [("/a?b=\\c", "/a?b=\\c"), ("/a?//b=?c", "/a?//b=?c"), ("//a/b?c", "/"), ("//git/b?c", "/git"), (&long, "/a")] {
        let page = world.navigate().arg("--path-as-is").get(&format!("https://wiki.localhost{address}"));
        let pressed = world.press(&action(&page), "Sec-Fetch-Site: same-origin");
        assert_eq!((pressed.status, pressed.header("location")), (303, Some(to)), "{address}");
    }
}

#[test]
fn a_new_step_is_told_anew_and_a_device_in_order_is_told_nothing() {
    let world = world(WARNS);
    let cookie = |page: &Answer| {
        let pressed = world.press(&action(page), "Sec-Fetch-Site: same-origin");
        format!("Cookie: {}", pressed.header("set-cookie").unwrap().split(';').next().unwrap())
    };
    let held = cookie(&world.navigate().get("https://wiki.localhost/"));
    assert_eq!(world.navigate().header(&held).get("https://wiki.localhost/").body, "the app");
    let yaml = std::fs::read_to_string(world.lab.path("vestibule.yaml")).unwrap();
    world.lab.write("vestibule.yaml", &yaml.replace("restrict: 2099-01-01", "restrict: 2098-01-01"));
    world.proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
    let sooner = world.navigate().header(&held).get("https://wiki.localhost/");
    assert!(sooner.body.contains("From 1 January 2098"), "{}", sooner.body);
    let both = cookie(&sooner);
    assert_eq!(world.navigate().header(&both).get("https://wiki.localhost/").body, "the app");

    let fit = world.lab.device("fit", "ownership=corporate state=approved posture.disk_encrypted=ok");
    let navigate = Curl::to(&world.proxy, &world.lab).device(&fit).header("Accept: text/html").header("Sec-Fetch-Mode: navigate");
    let answer = navigate.get("https://wiki.localhost/");
    assert_eq!((answer.body.as_str(), answer.header("vestibule-notice")), ("the app", None));
}

#[test]
fn a_button_that_another_site_presses_does_nothing_and_leads_nowhere() {
    let world = world(WARNS);
    let action = action(&world.navigate().get("https://wiki.localhost/"));
    let own = "Sec-Fetch-Site: same-origin";
    for site in [
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: none",
        "Origin: null",
        "Origin: https://evil.example",
        "X-None: 1",
    ] {
        let answer = world.press(&action, site);
        assert_eq!((answer.status, answer.header("set-cookie"), answer.header("location")), (400, None, None), "{site}");
    }
    assert_eq!(world.press(&action, "Origin: https://wiki.localhost").status, 303, "an old browser's");
    let (path, _) = action.split_once("&to=").unwrap();
    for evil in [
        "//evil.example",
        "%2F%2Fevil.example",
        "https:%2F%2Fevil.example",
        "%2F%5Cevil.example",
        "%2F%09%2Fevil.example",
        "%2Fa%0D%0AX: 1",
        "",
    ] {
        let answer = world.press(&format!("{path}&to={}", evil.replace(' ', "%20")), own);
        assert_eq!((answer.status, answer.header("location"), answer.header("set-cookie")), (400, None, None), "{evil}");
    }
    for mark in ["", "x", "0123456789abcdeg", "0123456789abcdef%0D%0A"] {
        assert_eq!(world.press(&format!("/.well-known/vestibule/notice?mark={mark}&to=%2F"), own).status, 400, "{mark}");
    }
    // Ours on every host and in every spelling, and never the app's.
    let before = world.origin.received().len();
    for path in ["", "/", "/x", "/notice", "/../vestibule/y", "/%6Eotice", "//z"] {
        let answer = world.curl().arg("--path-as-is").get(&format!("https://wiki.localhost/.well-known/vestibule{path}"));
        assert_eq!(answer.status, 404, "{path}");
    }
    assert_eq!(world.curl().get("https://wiki.localhost/%2ewell-known/vestibule/x").status, 404);
    assert_eq!(world.origin.received().len(), before);
    assert_eq!(world.curl().get("https://wiki.localhost/.well-known/vestibules").body, "the app");
    assert_eq!(world.curl().get("https://wiki.localhost/.well-known/other").body, "the app");
}

#[test]
fn without_tls_the_cookie_has_another_name() {
    let world = world(WARNS);
    let ask = |head: &str| {
        String::from_utf8(raw(world.proxy.addr("plain"), format!("{head}Host: wiki.localhost\r\nConnection: close\r\n\r\n").as_bytes()))
            .unwrap()
    };
    let page = ask("GET /a HTTP/1.1\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n");
    let (_, rest) = page.split_once("action=\"").unwrap_or_else(|| panic!("{page}"));
    let action = rest.split('"').next().unwrap().replace("&amp;", "&");
    let pressed = ask(&format!("POST {action} HTTP/1.1\r\nOrigin: http://wiki.localhost\r\nContent-Length: 0\r\n"));
    let cookie = pressed.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or_else(|| panic!("{pressed}"));
    assert!(cookie.starts_with("vestibule-notice=") && !cookie.contains("Secure"), "{cookie}");
    let held = cookie.split(';').next().unwrap();
    let after = ask(&format!("GET /a HTTP/1.1\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\nCookie: {held}\r\n"));
    assert!(after.ends_with("the app"), "{after}");
    assert_eq!(world.origin.received().last().unwrap().header("cookie"), [""; 0]);
}

#[test]
fn refusals_of_a_ladder_say_what_happens_when() {
    let world = world("{report: 2024-01-01, restrict: 2025-01-01, with: [read-only], block: 2099-02-01}");
    let dates = json!([
        {"fact": "disk_encrypted", "step": "restrict", "at": "2025-01-01T00:00:00+01:00"},
        {"fact": "disk_encrypted", "step": "block", "at": "2099-02-01T00:00:00+01:00"},
    ]);
    assert_eq!(world.curl().get("https://wiki.localhost/").body, "the app");
    let refused = world.curl().post("https://wiki.localhost/", "x");
    assert_eq!(
        (refused.status, &refused.json()["reasons"], &refused.json()["deadlines"]),
        (403, &json!(["restrict.methods", "posture.disk_encrypted.fail"]), &dates)
    );
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail
            .contains("Since 1 January 2025 this device can only read Team wiki. From 1 February 2099 Team wiki is closed to this device."),
        "{detail}"
    );
    let page = world.curl().header("Accept: text/html").post("https://wiki.localhost/", "x");
    assert!(page.body.contains("<h2 id=\"when\">") && page.body.contains("From 1 February 2099"), "{}", page.body);

    let yaml = std::fs::read_to_string(world.lab.path("vestibule.yaml")).unwrap();
    world.lab.write("vestibule.yaml", &yaml.replace("block: 2099-02-01", "block: 2026-02-01"));
    world.proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
    let blocked = world.curl().get("https://wiki.localhost/");
    assert_eq!((blocked.status, &blocked.json()["reasons"]), (403, &json!(["posture.disk_encrypted.fail"])));
    assert_eq!(
        (&blocked.json()["deadlines"][0]["at"], &blocked.json()["owner"]),
        (&json!("2026-02-01T00:00:00+01:00"), &json!("security"))
    );
    assert!(blocked.json()["detail"].as_str().unwrap().contains("Since 1 February 2026 Team wiki has been closed to this device."));
    assert_eq!(blocked.json()["deadlines"].as_array().unwrap().len(), 1, "that it could be read until then is history");
}
