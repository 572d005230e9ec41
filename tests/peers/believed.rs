//! X-Forwarded-* and Forwarded: each request is of the client that a listed proxy names, and of nobody else.

use super::support::h2::H2;
use super::*;

fn from(client: &str) -> String {
    get(&format!("X-Forwarded-For: {client}\r\n"))
}

#[test]
fn one_connection_carries_the_requests_of_many() {
    let world = World::new();
    let mut proxy = world.connect("plain");
    for (n, (fields, status, client)) in (1..).zip([
        ("X-Forwarded-For: 10.1.2.3\r\n", 200, "10.1.2.3"),
        ("X-Forwarded-For: 192.0.2.7\r\n", 403, "192.0.2.7"),
        ("X-Forwarded-For: 10.1.2.3\r\n", 200, "10.1.2.3"),
        ("X-Forwarded-For: 10.1.2.3, 192.0.2.7\r\n", 403, "192.0.2.7"),
        ("X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-For: 192.0.2.7\r\n", 403, "192.0.2.7"),
        ("X-Forwarded-For: 192.0.2.7, ::ffff:10.1.2.3\r\n", 200, "10.1.2.3"),
        ("Forwarded: for=10.1.2.3\r\n", 200, "10.1.2.3"),
        ("Forwarded: for=10.1.2.3, for=\"[2001:db8::7]:443\"\r\n", 403, "2001:db8::7"),
        ("X-Forwarded-For: 10.1.2.3\r\nForwarded: for=10.1.2.3;proto=https\r\n", 200, "10.1.2.3"),
        ("X-Real-IP: 10.1.2.3\r\nX_Forwarded_For: 10.1.2.3\r\nTrue-Client-IP: 10.1.2.3\r\n", 403, "127.0.0.1"),
    ]) {
        assert_eq!(proxy.status(&get(fields)), status, "{fields}");
        let line = world.line(n);
        assert_eq!(line["peer"], client, "{fields}");
        let via = if client == "127.0.0.1" { Value::Null } else { serde_json::json!(["127.0.0.1"]) };
        assert_eq!(line["via"], via, "{fields}");
        if !via.is_null() {
            let shows = |name: &str| !line["wire"][name].is_null();
            assert!(!["syn", "ja4", "h2", "header_order"].into_iter().any(shows), "what the connection shows is the proxy's: {line}");
        }
    }
    assert_eq!(world.proxy.metrics().sum("vestibule_rejected_total", &[]), 0.0);
}

#[test]
fn the_streams_of_an_http_2_connection_as_well() {
    let world = World::new();
    let mut proxy = H2::connect(&world.proxy, &world.lab, "wiki.localhost", None);
    let fields = |client: &'static str| {
        let mut fields = super::support::h2::get("wiki.localhost", "/page");
        fields.push(("x-forwarded-for", client));
        fields
    };
    for (client, status) in [("10.1.2.3", 200), ("192.0.2.7", 403), ("10.1.2.3", 200), ("nobody", 400)] {
        let answer = proxy.ask(&fields(client));
        assert_eq!(answer.status, status, "{client}: {answer:?}");
    }
}

#[test]
fn who_hides_or_contradicts_himself_is_refused() {
    let world = World::new();
    for fields in [
        "X-Forwarded-For: unknown\r\n",
        "X-Forwarded-For: 10.1.2.3, nonsense\r\n",
        "Forwarded: for=_hidden\r\n",
        "Forwarded: for=unknown\r\n",
        "Forwarded: proto=https\r\n",
        "Forwarded: for=\"10.1.2.3\r\n",
        "X-Forwarded-For: 10.1.2.3\r\nForwarded: for=10.1.2.4\r\n",
        "X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: gopher\r\n",
        "X-Forwarded-Proto: http, https\r\n",
    ] {
        let answer = world.connect("plain").ask(&get(fields));
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("problem:malformed"), "{fields}: {answer}");
        assert!(answer.contains("orwarded"), "it says what is wrong: {answer}");
    }
    assert!(world.origin.received().is_empty());
}

#[test]
fn strangers_are_believed_nothing() {
    let world = World::new();
    let spoofed = "X-Forwarded-For: 10.1.2.3\r\nForwarded: for=10.1.2.3;proto=https;host=evil\r\nX-Forwarded-Proto: https\r\n\
                   X-Forwarded-Host: evil\r\nX-Request-Id: theirs\r\nX-Forwarded-For: junk,,\r\n";
    for (n, listener) in (1..).zip(["plain", "bare", "edge"]) {
        let mut stranger = world.stranger(if listener == "edge" { "redirect" } else { listener });
        if listener == "edge" {
            assert!(stranger.ask(&asked("git.localhost", spoofed)).starts_with("HTTP/1.1 308"), "it came without TLS");
            continue;
        }
        assert_eq!(stranger.status(&get(spoofed)), 403);
        assert_eq!(stranger.status(&asked("git.localhost", spoofed)), 200);
        let received = world.origin.wait(n).pop().unwrap();
        assert_eq!(received.header("x-forwarded-for"), ["127.0.0.2"]);
        assert_eq!(received.header("forwarded"), ["for=127.0.0.2;proto=http;host=git.localhost"]);
        assert_eq!(received.header("x-forwarded-proto"), ["http"]);
        assert_eq!(received.header("x-forwarded-host"), ["git.localhost"]);
        assert_ne!(received.header("x-request-id"), ["theirs"]);
        let line = world.line(2 * n);
        assert_eq!((&line["peer"], &line["client_request_id"]), (&"127.0.0.2".into(), &"theirs".into()));
    }
}

#[test]
fn the_address_that_a_balancers_header_names_is_compared() {
    let world = World::new();
    let ask = |client: &str| {
        let mut peer = world.connect("both");
        peer.send(format!("PROXY TCP4 {client} 10.0.0.1 54321 80\r\n"));
        peer.status(&from("10.1.2.3"))
    };
    assert_eq!(ask("10.9.0.1"), 200, "a proxy behind the balancer");
    let line = world.line(1);
    assert_eq!((&line["peer"], &line["via"]), (&"10.1.2.3".into(), &serde_json::json!(["10.9.0.1", "127.0.0.1"])));
    assert_eq!(world.origin.wait(1)[0].header("x-forwarded-for"), ["10.1.2.3, 10.9.0.1"], "the balancer speaks no HTTP");
    assert_eq!(ask("192.0.2.7"), 403, "a client of the balancer");
    assert_eq!(world.line(2)["peer"], "192.0.2.7");
}

#[test]
fn apps_are_told_the_chain_from_the_client_on() {
    let world = World::new();
    let fields = "X-Forwarded-For: 6.6.6.6, 10.1.2.3, 10.9.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
                  X-Forwarded-Prefix: /evil\r\nX-Request-Id: lb-17:1/2\r\n";
    assert_eq!(world.connect("plain").status(&get(fields)), 200);
    let received = world.origin.wait(1).pop().unwrap();
    assert_eq!(received.header("x-forwarded-for"), ["10.1.2.3, 10.9.1.1, 127.0.0.1"]);
    assert_eq!(received.header("forwarded"), ["for=10.1.2.3;proto=https;host=wiki.localhost, for=10.9.1.1, for=127.0.0.1"]);
    assert_eq!(received.header("x-forwarded-proto"), ["https"]);
    assert_eq!(received.header("x-forwarded-host"), ["wiki.localhost"], "Host alone says which app it is");
    assert_eq!(received.header("x-forwarded-prefix"), [""; 0]);
    assert_eq!(received.header("x-request-id"), ["lb-17:1/2"]);
    let line = world.line(1);
    assert_eq!(line["client_request_id"], "lb-17:1/2");
    assert_ne!(line["request_id"], "lb-17:1/2");
    for (n, id) in (2..).zip(["", "a b", "\"x\"", &"x".repeat(129), "one\r\nX-Request-Id: two"]) {
        assert_eq!(world.connect("plain").status(&get(&format!("X-Forwarded-For: 10.1.2.3\r\nX-Request-Id: {id}\r\n"))), 200);
        let received = world.origin.wait(n).pop().unwrap();
        assert_eq!(received.header("x-request-id"), [world.line(n)["request_id"].as_str().unwrap()], "{id}");
    }
}

#[test]
fn identity_is_never_taken_from_a_trusted_proxy() {
    let world = World::new();
    let fields = "X-Forwarded-For: 10.1.2.3\r\nVestibule-Device-Id: boss\r\nvestibule_tier: trusted\r\nVestibule.Device.Class: corporate\r\n\
                  Vestibule-Jwt-Assertion: x\r\nX-JA4-Fingerprint: x\r\nclient_cert: :YQ==:\r\nX-Client-Cert: x\r\n\
                  Connection: close, Vestibule-Tier, X-Forwarded-For, Client-Cert\r\n";
    assert_eq!(world.connect("plain").status(&get(fields)), 200);
    // In trailers as well.
    let chunked = "POST /page HTTP/1.1\r\nHost: wiki.localhost\r\nX-Forwarded-For: 10.1.2.3\r\nTransfer-Encoding: chunked\r\nTrailer: Vestibule-Tier\r\n\r\n\
                   1\r\na\r\n0\r\nVestibule-Tier: trusted\r\nX-Forwarded-For: 6.6.6.6\r\nClient-Cert: :YQ==:\r\n\r\n";
    assert_eq!(world.connect("plain").status(chunked), 200);
    for received in world.origin.wait(2) {
        let text = format!("{}{}", received.text(), String::from_utf8_lossy(&received.body));
        assert_eq!(received.header("x-forwarded-for"), ["10.1.2.3, 127.0.0.1"]);
        assert_eq!(received.header("vestibule-tier"), ["none"]);
        for stray in ["boss", "trusted", "corporate", "assertion", "ja4", "client_cert", "client-cert", "6.6.6.6"] {
            assert!(!text.to_ascii_lowercase().contains(stray), "{stray}: {text}");
        }
    }
}

#[test]
fn fingerprints_are_those_that_the_proxy_took() {
    let world = World::new();
    let (ja4, other) = ("t13d1516h2_8daaf6152771_e5627efa2ab1", "t13d1516h2_8daaf6152771_000000000000");
    let said = |ja4: &str| {
        format!("X-Forwarded-For: 192.0.2.7\r\nX-JA4-Fingerprint: {ja4}\r\nX-HTTP2-Fingerprint: 1:65536|15663105|0|m,a,s,p\r\n")
    };
    let mut proxy = world.connect("plain");
    for (n, (fields, seen)) in (1..).zip([
        (said(ja4), Some(ja4)),
        (said(other), Some(other)),
        (said("short"), None),
        (said(ja4) + "X-TLS-JA4: " + other + "\r\n", None),
        (said(ja4).replace('-', "_"), None),
    ]) {
        assert_eq!(proxy.status(&asked("docs.corp.example", &fields)), 200);
        let line = world.line(n);
        assert_eq!(line["wire"]["ja4"].as_str(), seen, "{fields}");
        assert_eq!(world.origin.wait(n)[n - 1].header("x-tls-ja4").first().map(String::as_str), seen, "{fields}");
    }
    let h2 = |line: &Value| line["wire"]["h2"].as_str().map(str::to_owned);
    let ja3 = |line: &Value| line["wire"]["ja3"].as_str().map(str::to_owned);
    assert_eq!(h2(&world.lab.decisions(5)[0]).as_deref(), Some("1:65536|15663105|0|m,a,s,p"));
    assert_eq!(world.stranger("plain").status(&asked("docs.corp.example", &said(ja4))), 200);
    assert!(world.line(6)["wire"]["ja4"].is_null());
    assert!(world.origin.wait(6)[5].header("x-tls-ja4").is_empty());
    // What is none is passed over, one by one.
    let (md5, largest) = ("0123456789abcdef".repeat(2), format!("{}|0|0|m", "1".repeat(506)));
    for (n, (name, value, is_one)) in (7..).zip([
        ("X-JA3-Fingerprint", md5.clone(), true),
        ("X-JA3-Fingerprint", md5.to_uppercase(), false),
        ("X-JA3-Fingerprint", md5[1..].to_owned(), false),
        ("X-HTTP2-Fingerprint", largest.clone(), true),
        ("X-HTTP2-Fingerprint", format!("1{largest}"), false),
        ("X-HTTP2-Fingerprint", "1:65536|0|m".to_owned(), false),
        ("X-HTTP2-Fingerprint", "1:65536|0|0|m, a".to_owned(), false),
    ]) {
        assert_eq!(proxy.status(&asked("docs.corp.example", &format!("X-Forwarded-For: 192.0.2.7\r\n{name}: {value}\r\n"))), 200);
        let line = world.line(n);
        assert_eq!(ja3(&line).or(h2(&line)), is_one.then_some(value.clone()), "{name}: {value}");
    }
}

#[test]
fn https_at_the_proxy_is_https() {
    let world = World::new();
    let mut proxy = world.connect("redirect");
    let said = |proto: &str| asked("git.localhost", &format!("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: {proto}\r\n"));
    assert_eq!(proxy.status(&said("http")), 308);
    assert_eq!(proxy.status(&said("https")), 200);
    assert_eq!(proxy.status(&said("http")), 308);
    assert_eq!(proxy.status(&asked("git.localhost", "")), 308);
    assert_eq!(proxy.status(&asked("git.localhost", "X-Forwarded-Proto: wss\r\n")), 200);
    assert_eq!(world.origin.wait(2)[0].header("x-forwarded-proto"), ["https"]);
}

#[test]
fn rates_count_for_each_client() {
    let world = World::new();
    let mut proxy = world.connect("plain");
    let mut ask = |client: &str| proxy.status(&asked("payroll.localhost", &format!("X-Forwarded-For: {client}\r\n")));
    let statuses = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2", "192.0.2.3"].map(&mut ask);
    assert_eq!(statuses, [200, 200, 429, 429, 200]);
}

#[test]
fn more_clients_than_are_remembered_keep_apart() {
    let world = World::new();
    let mut proxy = world.connect("plain");
    for round in 0..3 {
        for n in 0..40 {
            let (client, status) = if n % 2 == 0 { (format!("10.1.0.{n}"), 200) } else { (format!("192.0.2.{n}"), 403) };
            assert_eq!(proxy.status(&from(&client)), status, "{round}: {client}");
        }
    }
    let lines = world.lab.decisions(120);
    assert!(lines.iter().enumerate().all(|(n, line)| line["peer"].as_str().unwrap().ends_with(&format!(".{}", n % 40))));
}

#[test]
fn a_reload_takes_belief_away_from_connections_that_are_there() {
    let world = World::new();
    let mut proxy = world.connect("plain");
    assert_eq!(proxy.status(&from("10.1.2.3")), 200);
    world.lab.configure(&World::config(&world.origin).replace("[127.0.0.1, 10.9.0.0/16]", "[10.9.0.0/16]"));
    world.proxy.signal(libc::SIGHUP);
    world.proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
    assert_eq!(proxy.status(&from("10.1.2.3")), 403);
    assert_eq!(world.line(2)["peer"], "127.0.0.1");
    assert_eq!(proxy.status(&asked("git.localhost", "X-Forwarded-For: 10.1.2.3\r\nX-Request-Id: theirs\r\n")), 200);
    let received = world.origin.wait(2).pop().unwrap();
    assert_eq!(received.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_ne!(received.header("x-request-id"), ["theirs"]);
}

#[test]
fn a_reload_takes_belief_away_from_answers_that_run() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_vec();
    let (lab, origin) = (Lab::new(), Origin::answering(Reply::Hang([head, b"begun".to_vec()].concat())));
    let config = World::config(&origin);
    let proxy = lab.start(&config);
    let mut front = Peer::from("127.0.0.1", proxy.addr("plain"));
    front.send(from("10.1.2.3"));
    let mut begun = [0; 12];
    front.0.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    // The office may read on; nobody says any more that it is the office.
    lab.configure(&config.replace("[127.0.0.1, 10.9.0.0/16]", "[10.9.0.0/16]"));
    proxy.signal(libc::SIGHUP);
    assert!(front.rest().ends_with(b"begun"), "cut, as far as it came");
    assert_eq!(lab.decisions(1)[0]["peer"], "10.1.2.3");
}

#[test]
fn a_proxy_may_have_more_connections_than_a_client() {
    let world = World::with(|config| config.set("limits", "{connections_per_peer: 2}"));
    let proxies: Vec<Peer> = (0..5)
        .map(|_| {
            let mut proxy = world.connect("plain");
            assert_eq!(proxy.status(&from("10.1.2.3")), 200);
            proxy
        })
        .collect();
    assert_eq!(proxies.len(), 5);
    let mut strangers = [world.stranger("plain"), world.stranger("plain")];
    assert_eq!(strangers.each_mut().map(|peer| peer.status(&get(""))), [403, 403]);
    assert_eq!(world.stranger("plain").rest(), b"");
    world.rejected("connections_per_peer", 1.0);
}
