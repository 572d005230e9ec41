//! Who may say what of the client: identity, addresses, hop-by-hop fields, traces, and ways out of HTTP.

use support::RawTls;

use super::*;

/// All that we say, and nothing else beside what the client may say.
pub const OURS: [&str; 9] = [
    "forwarded",
    "host",
    "traceparent",
    "vestibule-decision",
    "vestibule-device-class",
    "vestibule-tier",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Lines that a client may send, after which an app must still believe what is named as ours.
pub const FORGED: &[&str] = &[
    "Vestibule-Device-Id: forged",
    "VESTIBULE-DEVICE-ID: forged",
    "vestibule_device_id: forged",
    "Vestibule_Device-Id: forged",
    "Vestibule.Device.Id: forged",
    "Vestibule-Device-Class: forged",
    "vestibule_device_class: forged",
    "Vestibule-Tier: forged",
    "Vestibule.Tier: forged",
    "vestibule_tier: forged",
    "Vestibule-Decision: forged",
    "Vestibule-Restrictions: forged",
    "Vestibule_Restrictions: forged",
    "Vestibule-Jwt-Assertion: forged",
    "Vestibule-Anything-New: forged",
    "X-Vestibule-Device-Id: forged",
    "X-Forwarded-For: 192.0.2.99, forged",
    "X_Forwarded_For: forged",
    "X-Forwarded-Host: forged",
    "X-Forwarded-Proto: forged",
    "X-Forwarded-Port: forged",
    "X-Forwarded-Server: forged",
    "X-Forwarded-Uri: /admin/forged",
    "X-Forwarded-Prefix: /admin/forged",
    "X-Forwarded-Ssl: forged",
    "X.Forwarded.User: forged",
    "Forwarded: for=forged",
    "X-Real-IP: forged",
    "x_real_ip: forged",
    "X-Client-IP: forged",
    "X-Cluster-Client-IP: forged",
    "True-Client-IP: forged",
    "CF-Connecting-IP: forged",
    "X-Request-Id: forged",
    "x_request_id: forged",
    "Client-Cert: :forged:",
    "Client-Cert-Chain: :forged:",
    "client_cert: forged",
    "X-Client-Cert: forged",
    "X-SSL-Client-Verify: forged",
    "X-Original-URL: /admin/forged",
    "X_Original_URL: /admin/forged",
    "X-Rewrite-URL: /admin/forged",
    "X-Original-Host: forged",
    "X-Host: forged",
    "X-HTTP-Method-Override: DELETE-forged",
    "X-HTTP-Method: forged",
    "X-Method-Override: forged",
    "Proxy: http://forged",
    "Proxy-Authorization: forged",
    "Proxy-Connection: forged",
    "Keep-Alive: forged",
    "TE: trailers, forged",
    "Trailer: forged",
    "content_length: 5-forged",
    "transfer_encoding: chunked-forged",
    "Expect: forged",
];

#[track_caller]
fn nothing_forged(received: &Received) {
    assert!(!received.text().contains("forged"), "{}", received.text());
    let mut names: Vec<String> = received.header_names().into_iter().filter(|n| !matches!(n.as_str(), "x-request-id" | "accept")).collect();
    names.sort();
    assert_eq!(names, OURS, "{}", received.text());
}

#[test]
fn nobody_but_we_says_who_the_client_is() {
    let world = World::new();
    let mut h2 = world.h2();
    for line in FORGED {
        // An `Expect` that nobody knows may be refused; what matters is what the app sees.
        let answer = world.get("/h1", &format!("{line}\r\n"));
        assert!(matches!(status(&answer), 200 | 417), "{line}: {answer}");
        let (name, value) = line.split_once(": ").unwrap();
        let name = name.to_ascii_lowercase();
        let outcome = h2.ask(&[&h2::get("wiki.localhost", "/h2")[..], &[(&name, value)]].concat());
        // Fields of a connection are an error in HTTP/2 by themselves.
        assert!(outcome.status == 200 || outcome.reset == Some(1), "{line}: {outcome:?}");
    }
    let all: String =
        FORGED.iter().filter(|line| !line.starts_with("Expect")).fold(String::new(), |all, line| all + line + "\r\n" + line + "\r\n");
    assert!(FORGED.len() < 60, "a head may have 100 fields");
    for half in [&all[..all.len() / 2], &all[all.len() / 2..]] {
        let lines: String =
            half.lines().filter(|line| line.ends_with("forged") || line.ends_with("forged:")).map(|line| format!("{line}\r\n")).collect();
        assert_eq!(status(&world.get("/all", &lines)), 200);
    }
    let received = world.received();
    assert!(received.len() > FORGED.len() * 2 - 8, "{}", received.len());
    received.iter().for_each(nothing_forged);
}

#[test]
fn connection_does_not_strip_our_identity_cve_2024_45410() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let config = World::config(&origin).replace("{name: rest, then: forward}", "{name: rest, then: restrict, with: [private]}");
    lab.configure(&config);
    let laptop = lab.device("laptop-7", "ownership=corporate state=approved");
    let proxy = lab.start(&config);
    let world = World { lab, origin, proxy };
    let ours = [
        "vestibule-device-id",
        "vestibule-device-class",
        "vestibule-tier",
        "vestibule-decision",
        "vestibule-restrictions",
        "x-request-id",
        "x-forwarded-for",
        "forwarded",
        "host",
        "traceparent",
    ];
    let mut tls = RawTls::connect(&world.proxy, &world.lab, "wiki.localhost", Some(&laptop));
    for list in [
        ours.join(", "),
        ours.join(",").to_uppercase(),
        format!("close-not, {}", ours.join(" ,\t")),
        format!("keep-alive;{0}, {0}", ours[0]),
    ] {
        let answer = tls.ask(&format!("GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: {list}\r\nVestibule-Tier: forged\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{list}: {answer}");
    }
    let answer = tls.ask(&format!("GET / HTTP/1.1\r\nHost: wiki.localhost\r\nTE: {}\r\nConnection: te\r\n\r\n", ours.join(", ")));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let received = world.received();
    assert_eq!(received.len(), 5);
    for request in received {
        let value = |name: &str| request.header(name).join("|");
        assert_eq!(
            ["vestibule-device-id", "vestibule-device-class", "vestibule-tier", "vestibule-decision", "vestibule-restrictions"].map(value),
            ["laptop-7", "corporate", "known", "restrict", "private"]
        );
        assert_eq!(value("host"), "wiki.localhost");
        assert_eq!(
            (value("x-forwarded-for"), value("forwarded")),
            ("127.0.0.1".into(), "for=127.0.0.1;proto=https;host=wiki.localhost".into())
        );
        assert!(request.header("x-request-id").len() == 1 && request.header("traceparent").len() == 1);
        assert_eq!((value("connection"), value("te")), (String::new(), String::new()));
    }
}

#[test]
fn what_connection_names_ends_here() {
    let world = World::new();
    let lines = "Connection: x-hop, Keep-Alive\r\nConnection: X-Other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-End: 3\r\nKeep-Alive: timeout=5\r\nTE: trailers;q=1, x-te\r\nX-Te: 4\r\n";
    let answer = world.plain(format!("GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n{lines}\r\n").as_bytes());
    assert_eq!(status(&answer), 200);
    let [received] = &world.received()[..] else { panic!("one request") };
    let mut names = received.header_names();
    names.retain(|name| !OURS.contains(&name.as_str()) && name != "x-request-id");
    assert_eq!(names, ["x-end"]);
}

#[test]
fn cookies_and_authorization_of_the_client_arrive_as_they_are() {
    let world = World::new();
    assert_eq!(
        status(&world.get("/", "Cookie: a=b; c=d\r\nAuthorization: Bearer x\r\nAccept-Language: de\r\nX-Twice: 1\r\nX-Twice: 2\r\n")),
        200
    );
    let outcome = world
        .h2()
        .ask(&[&h2::get("wiki.localhost", "/")[..], &[("cookie", "a=b"), ("cookie", "c=d"), ("authorization", "Bearer x")]].concat());
    assert_eq!(outcome.status, 200);
    let received = world.received();
    for request in &received {
        assert_eq!((request.header("cookie"), request.header("authorization")), (vec!["a=b; c=d".into()], vec!["Bearer x".into()]));
    }
    assert_eq!((received.len(), received[0].header("x-twice")), (2, vec!["1".into(), "2".into()]));
}

#[test]
fn traces_go_on_when_sound_and_begin_here_when_not() {
    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let world = World::new();
    assert_eq!(status(&world.get("/sound", &format!("traceparent: {SOUND}\r\ntracestate: a=1,b=2\r\n"))), 200);
    let bad = [
        "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "traceparent: forged",
        "traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        &format!("traceparent: {SOUND}\r\ntraceparent: {SOUND}"),
        &format!("traceparent: {SOUND}-forged"),
        &format!("trace_parent: {SOUND}"),
        "x: y",
    ];
    for line in bad {
        assert_eq!(status(&world.get("/bad", &format!("{line}\r\ntracestate: forged=1\r\n"))), 200);
    }
    let received = world.received();
    assert_eq!((received[0].header("traceparent"), received[0].header("tracestate")), (vec![SOUND.into()], vec!["a=1,b=2".into()]));
    let mut made: Vec<String> = Vec::new();
    for request in &received[1..] {
        let [parent] = &request.header("traceparent")[..] else { panic!("{}", request.text()) };
        let parts: Vec<&str> = parent.split('-').collect();
        let [version, trace, span, flags] = &parts[..] else { panic!("{parent}") };
        assert_eq!((*version, trace.len(), span.len(), *flags), ("00", 32, 16, "00"), "{parent}");
        assert!(parent.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{parent}");
        assert_eq!(request.header("tracestate"), Vec::<String>::new());
        made.push((*trace).to_owned());
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), bad.len(), "each its own");
}

#[test]
fn request_ids_are_ours_and_unique_and_the_clients_is_only_noted() {
    let world = World::new();
    for _ in 0..3 {
        assert_eq!(status(&world.get("/", "X-Request-Id: from-the-client\r\n")), 200);
    }
    let received = world.received();
    let mut ids: Vec<String> = received.iter().flat_map(|r| r.header("x-request-id")).collect();
    let logged = world.lab.decisions(3);
    for (id, line) in ids.iter().zip(&logged) {
        assert_eq!((line["request_id"].as_str(), line["client_request_id"].as_str()), (Some(id.as_str()), Some("from-the-client")));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn no_way_out_of_http_and_nothing_behind_a_refused_upgrade_is_read() {
    let world = World::new();
    let behind = "GET /smuggled HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n";
    for head in [
        "POST /ws HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: wiki.localhost\r\nUpgrade: websocket\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: Upgrade\r\nUpgrade: nothing-known\r\nSec-WebSocket-Version: 777\r\n\r\n",
        "GET /h2c HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "CONNECT wiki.localhost:443 HTTP/1.1\r\nHost: wiki.localhost:443\r\n\r\n",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
        "CONNECT wiki.localhost:80 HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n",
    ] {
        let answer = world.plain(format!("{head}{behind}").as_bytes());
        assert_eq!(status(&answer), 501, "{head}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "what follows may be of another protocol: {answer}");
    }
    // The preface of HTTP/2 without TLS.
    let answer = world.plain(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &h2::frame(h2::SETTINGS, 0, 0, b"")[..]].concat());
    assert!(matches!(status(&answer), 400 | 0), "{answer}");
    let mut h2 = world.h2();
    for fields in [
        vec![(":method", "CONNECT"), (":authority", "wiki.localhost:443")],
        vec![
            (":method", "CONNECT"),
            (":protocol", "connect-udp"),
            (":scheme", "https"),
            (":authority", "wiki.localhost"),
            (":path", "/ws"),
        ],
    ] {
        let stream = h2.open(&fields, false);
        h2.write(&h2::frame(h2::DATA, 0, stream, behind.as_bytes()));
        let outcome = h2.outcome(stream);
        assert!(outcome.status == 501 || outcome.reset == Some(1), "{fields:?}: {outcome:?}");
    }
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn an_offer_of_http2_without_tls_is_passed_over_and_never_reaches_the_app() {
    let world = World::new();
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let answer = world.plain(
        format!(
            "GET /one HTTP/1.1\r\nHost: wiki.localhost\r\n{offer}\r\nGET /admin HTTP/1.1\r\nHost: wiki.localhost\r\n{offer}\r\n\
             GET /two HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    );
    let statuses: Vec<u16> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| status(&answer[at..])).collect();
    assert_eq!(statuses, [200, 403, 200], "no tunnel: each request meets the policy: {answer}");
    assert_eq!(world.lines(), ["GET /one HTTP/1.1", "GET /two HTTP/1.1"]);
    // Nor where no `Connection` names it.
    assert_eq!(status(&world.get("/three", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")), 200);
    for received in world.received() {
        assert_eq!((received.header("upgrade"), received.header("http2-settings")), (vec![], vec![]));
    }
}

#[test]
fn a_body_is_asked_for_only_when_the_policy_lets_it_come() {
    let world = World::new();
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: wiki.localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
    };
    let answer = world.plain(format!("{}hello", head("/open")).as_bytes());
    assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    let answer = world.plain(head("/admin").as_bytes());
    assert_eq!(status(&answer), 403, "refused without asking for the body: {answer}");
    let [received] = &world.received()[..] else { panic!("one request") };
    assert_eq!(
        (received.header("expect"), received.body.as_slice()),
        (vec!["100-continue".to_owned()], &b"hello"[..]),
        "the app is asked as well"
    );
}

/// Fields by which apps and frameworks let a proxy before them say what was asked for, by whom, or what may be skipped.
pub const REWRITES: &[&str] = &[
    "X-Original-URL: /admin",
    "X-Original-URI: /admin",
    "X-Rewrite-URL: /admin",
    "X-Rewrite-Uri: /admin",
    "X-Override-URL: /admin",
    "X-Forwarded-Uri: /admin",
    "X-Forwarded-Path: /admin",
    "X-Forwarded-Prefix: /admin",
    "X-Forwarded-Method: DELETE",
    "X-Forwarded-Scheme: http",
    "X-HTTP-Method: DELETE",
    "X-HTTP-Method-Override: DELETE",
    "X_HTTP_Method_Override: DELETE",
    "X-Method-Override: DELETE",
    "X-HTTP-Host-Override: odd.corp.example",
    "X-HTTP-DestinationURL: http://odd.corp.example/admin",
    "SCRIPT_NAME: /admin",
    "Script-Name: /admin",
    "PATH_INFO: /admin",
    "Path-Info: /admin",
    "X-Script-Name: /admin",
    "X-Invoke-Path: /admin",
    "X-Middleware-Subrequest: middleware:middleware:middleware",
    "X-Accel-Mapping: /=/etc/",
    "X-Accel-Redirect: /admin",
    "X-Sendfile-Type: X-Accel-Redirect",
    "X-Envoy-Original-Path: /admin",
    "Remote-User: root",
    "REMOTE_USER: root",
    "X-Remote-User: root",
    "X-Remote-Group: system:masters",
    "X-WEBAUTH-USER: root",
    "X-Auth-Request-User: root",
    "X-Authenticated-User: root",
    "X-MS-CLIENT-PRINCIPAL-NAME: root",
    "WL-Proxy-Client-IP: 127.0.0.1",
    "X-Forward-For: 127.0.0.1",
    "Ssl-Client-Verify: SUCCESS",
];

/// CVE-2025-29927, CVE-2025-61780 and their kind.
#[test]
fn no_field_makes_the_app_see_another_request_or_another_person() {
    let world = World::new();
    let mut h2 = world.h2();
    for line in REWRITES {
        assert_eq!(status(&world.get("/asked", &format!("{line}\r\n"))), 200, "{line}");
        let (name, value) = line.split_once(": ").unwrap();
        let name = name.to_lowercase();
        assert_eq!(h2.ask(&[&h2::get("wiki.localhost", "/asked")[..], &[(&name, value)]].concat()).status, 200, "{line}");
    }
    let received = world.received();
    assert_eq!(received.len(), REWRITES.len() * 2);
    for request in received {
        assert_eq!(request.line(), "GET /asked HTTP/1.1");
        let mut names = request.header_names();
        names.retain(|name| name != "x-request-id");
        names.sort();
        assert_eq!(names, OURS, "{}", request.text());
    }
}

/// An app that answers TRACE, as Apache does by default, would show our fields to the client.
#[test]
fn no_app_echoes_our_fields_to_the_client() {
    let world = World::with(Origin::start(|received| Reply::text(&received.text())));
    for method in ["TRACE", "TRACK"] {
        let answer = world.plain(format!("{method} / HTTP/1.1\r\nHost: wiki.localhost\r\nMax-Forwards: 3\r\n\r\n").as_bytes());
        assert_eq!(status(&answer), 400, "{answer}");
        let fields = [(":method", method), (":scheme", "https"), (":authority", "wiki.localhost"), (":path", "/")];
        assert_eq!(world.h2().ask(&fields).status, 400);
    }
    assert_eq!(world.lines(), Vec::<String>::new());
}

/// CGI, WSGI and PHP make `HTTP_X_TENANT_ID` of each of these; a rule reads only the first.
#[test]
fn a_second_spelling_of_a_field_that_a_rule_reads_has_no_meaning() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let rules = "{name: other, when: {http.header.x-tenant-id: other}, then: block}\n      - {name: rest, then: forward}";
    let config = World::config(&origin).replace("{name: rest, then: forward}", rules);
    let proxy = lab.start(&config);
    let world = World { lab, origin, proxy };
    for line in ["X_Tenant_Id: other", "x-tenant_id: other", "X.Tenant.Id: other", "X-Tenant-Id: mine\r\nX_Tenant-Id: other"] {
        assert_eq!(status(&world.get("/", &format!("{line}\r\n"))), 400, "{line}");
        let fields: Vec<(String, String)> =
            line.lines().filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.into())).collect();
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(world.h2().ask(&[&h2::get("wiki.localhost", "/")[..], &fields].concat()).status, 400, "{line}");
    }
    assert_eq!(status(&world.get("/", "X-Tenant-Id: other\r\n")), 403);
    assert_eq!(status(&world.get("/", "X-Tenant-Id: mine\r\nX_Tenant: other\r\n")), 200);
    let [received] = &world.received()[..] else { panic!("one request") };
    assert_eq!((received.header("x-tenant-id"), received.header("x_tenant")), (vec!["mine".into()], vec!["other".into()]));
}

/// RFC 9113 section 8.2.3: crumbs are one field to an app, and a crumb is nothing else than a cookie.
#[test]
fn cookie_crumbs_are_one_field_and_hide_nothing() {
    let world = World::new();
    let crumbs = [
        ("cookie", "a=b"),
        ("x-between", "1"),
        ("cookie", ""),
        ("cookie", "c=d; e=f"),
        ("cookie", "vestibule-notice=forged"),
        ("cookie", "g"),
    ];
    assert_eq!(world.h2().ask(&[&h2::get("wiki.localhost", "/h2")[..], &crumbs].concat()).status, 200);
    assert_eq!(status(&world.get("/h1", "Cookie: a=b\r\nCookie: c=d; vestibule-notice=forged\r\nCookie: e=f\r\n")), 200);
    for crumb in ["a=b\r\ncookie: c", "a\nb", "a\0b"] {
        let outcome = world.h2().ask(&[&h2::get("wiki.localhost", "/h2")[..], &[("cookie", "x"), ("cookie", crumb)]].concat());
        assert!(outcome.status == 400 || outcome.reset.is_some() || outcome.goaway.is_some(), "{crumb:?}: {outcome:?}");
    }
    let received = world.received();
    assert_eq!(received.len(), 2);
    for request in received {
        let [cookie] = &request.header("cookie")[..] else { panic!("{}", request.text()) };
        let cookies: Vec<&str> = cookie.split(';').map(str::trim).filter(|cookie| !cookie.is_empty()).collect();
        assert_eq!(cookies[..3], ["a=b", "c=d", "e=f"], "{cookie}");
        assert!(!cookie.contains("forged"), "{cookie}");
    }
}
