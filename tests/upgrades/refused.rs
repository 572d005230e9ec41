//! No tunnel but the one that the policy, the configuration and the app agree to.

use super::*;

const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n";

fn status(answer: &[u8]) -> u16 {
    std::str::from_utf8(answer.get(9..12).unwrap_or_default()).unwrap().parse().unwrap_or(0)
}

#[test]
fn nothing_behind_a_refused_upgrade_reaches_the_app() {
    let world = World::new(App::echo());
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for fields in [
        format!("Connection: Upgrade\r\nUpgrade: spdy/3.1\r\n{key}"),
        format!("Upgrade: websocket\r\n{key}"),
        format!("Connection: close\r\nUpgrade: websocket\r\n{key}"),
        "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: short\r\n".to_owned(),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}{key}"),
        format!("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n{key}"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n{key}"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}Content-Length: 5\r\n"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}Transfer-Encoding: chunked\r\n"),
    ] {
        let mut client = world.plain();
        client.write(format!("GET /ws HTTP/1.1\r\nHost: wiki.localhost\r\n{fields}\r\n{BEHIND}").as_bytes());
        let answer = client.rest();
        assert_eq!(status(&answer), 501, "{fields}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count(), 1, "{fields}");
    }
    for head in [
        "POST /ws HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "GET /ws HTTP/1.0\r\nHost: wiki.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "CONNECT wiki.localhost:443 HTTP/1.1\r\nHost: wiki.localhost:443\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut client = world.plain();
        client.write(format!("{head}{BEHIND}").as_bytes());
        assert_eq!(status(&client.rest()), 501, "{head}");
    }
    assert_eq!(world.app.heads(), Vec::<String>::new());
    assert_eq!(world.lab.decisions(10)[0]["error"], "request.upgrade");
}

#[test]
fn an_app_that_permits_none_is_asked_for_none_and_another_for_what_it_permits() {
    let world = World::with(App::echo(), ", upgrades: []", |config| config);
    let mut client = world.plain();
    client.write(format!("{OPEN}{BEHIND}").as_bytes());
    assert_eq!(status(&client.rest()), 501);
    assert!(world.app.heads().is_empty());

    let app = App::start(|_, mut peer| {
        peer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nspdy");
        while peer.more().is_some() {}
    });
    let world = World::with(app, ", upgrades: [spdy/3.1]", |config| config);
    let mut client = world.plain();
    client.write(OPEN.as_bytes());
    assert_eq!(status(&client.rest()), 501);
    let mut client = world.plain();
    client.write(b"POST /exec HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.take(4), b"spdy");
    assert_eq!(field(&world.app.heads()[0], "upgrade"), ["spdy/3.1"]);
}

#[test]
fn the_policy_decides_before_any_upgrade() {
    let restrictions = "{read: {methods: [GET, HEAD]}, talk: {methods: [GET, CONNECT]}, part: {paths: {allow: [/wiki]}}}";
    for (rule, want, reason) in [
        ("{name: none, then: block}", 403, "rule.wiki.none"),
        ("{name: read, then: restrict, with: [read]}", 403, "restrict.methods"),
        ("{name: part, then: restrict, with: [part]}", 403, "restrict.paths"),
        ("{name: talk, then: restrict, with: [talk]}", 101, ""),
    ] {
        let app = App::echo();
        let lab = Lab::new();
        let proxy = lab.start(&config(&app, "", rule).set("restrictions", restrictions));
        let world = World { app, lab, proxy };
        let mut client = world.plain();
        client.write(format!("{OPEN}{}", if want == 101 { "" } else { BEHIND }).as_bytes());
        if want == 101 {
            assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
            continue;
        }
        let answer = client.rest();
        assert_eq!(status(&answer), want, "{rule}");
        assert!(world.app.heads().is_empty(), "{rule}");
        let line = &world.lab.decisions(1)[0];
        assert!(line["reasons"][0].as_str().unwrap().starts_with(reason.split('.').next().unwrap()), "{line}");
    }
}

/// An app that can be made to say 101 by whoever chooses what it fetches must not open a way to whatever is behind it.
#[test]
fn a_switch_that_is_no_answer_to_ours_is_no_switch() {
    for answer in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, foo\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ] {
        let app = App::start(move |_, mut peer| {
            peer.write(format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\nsecret").as_bytes());
            assert!(peer.rest().is_empty(), "not a byte of the client's");
        });
        let world = World::new(app);
        let mut client = world.plain();
        client.write(format!("{OPEN}{BEHIND}").as_bytes());
        let got = client.rest();
        assert_eq!(status(&got), 502, "{answer}: {}", String::from_utf8_lossy(&got));
        assert!(!String::from_utf8_lossy(&got).contains("secret") && world.app.heads().len() == 1);
        assert_eq!(world.lab.decisions(1)[0]["error"], "upstream.broken");
    }
    // Nobody asked.
    let app =
        App::start(|_, mut peer| peer.write(switched("GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n").as_bytes()));
    let world = World::new(app);
    let mut client = world.plain();
    client.write(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&client.rest()), 502);
}

#[test]
fn any_other_answer_is_an_ordinary_one_and_the_last_of_its_connection() {
    let app = App::start(|_, mut peer| {
        peer.write(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\nolder");
        while peer.more().is_some() {}
    });
    let world = World::new(app);
    let mut client = world.plain();
    client.write(format!("{OPEN}{BEHIND}").as_bytes());
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.ends_with("\r\n\r\nolder"), "{answer}");
    assert_eq!((field(&answer, "sec-websocket-version"), field(&answer, "connection")), (vec!["13".into()], vec!["close".to_owned()]));
    assert_eq!(world.app.heads().len(), 1, "what came behind is of no protocol that was agreed on");
    assert_eq!(world.lab.decisions(1)[0]["status"], 426);
}
