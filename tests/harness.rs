//! The harness itself: an app that records, and the clients that the other tests use.
#![allow(clippy::unwrap_used, reason = "a test ends where its world breaks")]

mod support;

use support::{Config, Curl, Lab, Origin, Reply, raw};

#[test]
fn the_app_records_the_bytes_it_receives() {
    let origin = Origin::start(|received| Reply::text(&received.line()));
    let answer = Curl::at(origin.address()).http1().header("X-A: 1").header("X-A: 2").get("http://wiki.localhost/a?b");
    assert_eq!((answer.exit, answer.status, answer.version.as_str()), (0, 200, "1.1"), "{}", answer.stderr);
    assert_eq!((answer.body.as_str(), answer.header("content-type")), ("GET /a?b HTTP/1.1", Some("text/plain")));
    let [received] = &origin.wait(1)[..] else { panic!("not one request") };
    assert_eq!((received.header("x-a"), received.header("host")), (vec!["1".into(), "2".into()], vec!["wiki.localhost".into()]));
    assert!(received.header_names().contains(&"x-a".to_owned()));
}

#[test]
fn the_app_keeps_bodies_apart() {
    let origin = Origin::answering(Reply::text("ok"));
    let requests = b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nt: 1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\n\r\n";
    let address = origin.address();
    let client = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, requests).unwrap();
        stream
    });
    let received = origin.wait(3);
    drop(client.join().unwrap());
    assert_eq!(received[0].body, b"3;x\r\nabc\r\n0\r\nt: 1\r\n\r\n");
    assert_eq!((received[1].body.as_slice(), received[2].line().as_str()), (&b"hi"[..], "GET /3 HTTP/1.1"));
    assert_eq!((origin.connections(), received[2].connection), (1, 0));
}

#[test]
fn an_app_may_break_off() {
    let cut = Origin::answering(Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()));
    let answer = Curl::at(cut.address()).get("http://wiki.localhost/");
    assert_eq!((answer.exit, answer.status, answer.body.as_str()), (18, 200, "half"));
    assert!(raw(cut.address(), b"GET / HTTP/1.1\r\n\r\n").ends_with(b"half"));
}

#[test]
fn configurations_are_changed_by_key() {
    let origin = Origin::answering(Reply::text("ok"));
    let config = Config::new(&origin).set("limits", "{idle: 1s}").without("classes").replace("[wiki.localhost]", "[git.localhost]");
    let yaml = config.yaml();
    assert!(
        yaml.starts_with("version: 1\n") && yaml.contains("\nlimits: {idle: 1s}\n") && yaml.contains("hosts: [git.localhost]"),
        "{yaml}"
    );
    assert!(!yaml.contains("classes"), "{yaml}");
}

#[test]
fn commands_say_how_they_ended() {
    let lab = Lab::new();
    lab.vestibule(&["certs", "issue", "laptop"]).succeeded();
    lab.vestibule(&["certs", "issue", "laptop"]).failed_with(&["certs/devices/laptop.pem", "--force"]);
    assert_eq!(lab.vestibule(&["certs", "issue"]).code, Some(2));
}
