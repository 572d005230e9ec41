//! nginx as the app: on Unix sockets, by HTTP/2 with and without TLS, told by PROXY headers whom a connection is for.

use std::net::TcpListener;
use std::process::{Child, Stdio};

use super::support::{Curl, Lab, eventually, program, raw};
use super::{config, get};

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With a TLS server on the port that it gives back.
fn start(lab: &Lab) -> (Nginx, u16) {
    // Another program may take the free port before nginx does.
    (0..5).find_map(|_| try_start(lab)).expect("nginx starts")
}

fn try_start(lab: &Lab) -> Option<(Nginx, u16)> {
    let dir = lab.dir().display();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {dir}/nginx-temp;")).join(" ");
    let told =
        "$server_protocol $http_host $scheme $connection from $proxy_protocol_addr:$proxy_protocol_port to $proxy_protocol_server_port";
    let server = |listen: &str| {
        format!("server {{ listen {listen}; location / {{ return 200 \"{told}\"; }} location /files/ {{ alias {dir}/; }} }}")
    };
    let servers = [
        server(&format!("unix:{dir}/http1.sock")),
        server(&format!("unix:{dir}/http2.sock http2")),
        server(&format!("unix:{dir}/told.sock proxy_protocol")),
        server(&format!("unix:{dir}/told2.sock proxy_protocol http2")),
        server(&format!("127.0.0.1:{port} ssl http2")),
    ]
    .concat();
    for name in ["http1", "http2", "told", "told2"] {
        let _ = std::fs::remove_file(lab.path(&format!("{name}.sock")));
    }
    let config = lab.write(
        "nginx.conf",
        &format!(
            "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log; events {{}}
            http {{ access_log off; {temp} default_type text/plain; ssl_certificate {dir}/certs/edge.pem; ssl_certificate_key {dir}/certs/edge.key; {servers} }}"
        ),
    );
    let child = program("nginx").arg("-c").arg(config).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut nginx = Nginx(child);
    eventually("nginx listens or ends", || {
        let ended = nginx.0.try_wait().unwrap().is_some();
        (ended || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(!ended)
    })
    .then_some((nginx, port))
}

#[test]
fn nginx_on_unix_sockets_by_http2_and_told_of_clients() {
    let lab = Lab::new();
    let (_nginx, port) = start(&lab);
    let page = "0123456789".repeat(100_000);
    lab.write("page.txt", &page);
    let config = config(&[
        ("unix1", "{servers: [\"unix:http1.sock\"]}".to_owned()),
        ("unix2", "{servers: [\"unix:http2.sock\"], protocol: h2c, host: server}".to_owned()),
        ("gone", "{servers: [\"unix:gone.sock\"]}".to_owned()),
        (
            "tls2",
            format!("{{servers: [\"https://127.0.0.1:{port}\"], protocol: h2, host: app.internal, tls: {{ca: [certs/edge-ca.pem]}}}}"),
        ),
        ("first", "{servers: [\"unix:told.sock\"], proxy_protocol: v1}".to_owned()),
        ("second", "{servers: [\"unix:told.sock\"], proxy_protocol: v2}".to_owned()),
        ("second2", "{servers: [\"unix:told2.sock\"], proxy_protocol: v2, protocol: h2c}".to_owned()),
        ("untold", "{servers: [\"unix:told.sock\"]}".to_owned()),
    ]);
    let proxy = lab.start(&config);
    let said = |app: &str| {
        let answer = get(&proxy, app, "/");
        assert_eq!(answer.status, 200, "{app}: {}", proxy.stderr());
        answer.body
    };
    assert!(said("unix1").starts_with("HTTP/1.1 unix1.corp.example http "));
    // nginx tells the authority of HTTP/2 as `$http_host` too.
    assert!(said("unix2").starts_with("HTTP/2.0 localhost http "), "{}", said("unix2"));
    assert!(said("tls2").starts_with("HTTP/2.0 app.internal https "), "{}", said("tls2"));
    assert_eq!(get(&proxy, "gone", "/").status, 503);
    for app in ["unix1", "unix2", "tls2"] {
        assert!(get(&proxy, app, "/files/page.txt").body == page, "{app}");
        let part = Curl::at(proxy.addr("plain")).arg("--range").arg("10-19").get(&format!("http://{app}.corp.example/files/page.txt"));
        assert_eq!((part.status, part.body.as_str(), part.header("content-length")), (206, "0123456789", Some("10")), "{app}");
        let head = Curl::at(proxy.addr("plain")).arg("--head").get(&format!("http://{app}.corp.example/files/page.txt"));
        assert_eq!((head.status, head.header("content-length")), (200, Some("1000000")), "{app}");
    }
    // The same connection to nginx carries them all.
    let connection = |said: &str| said.split(' ').nth(3).unwrap().to_owned();
    for app in ["unix1", "unix2", "tls2"] {
        assert_eq!(connection(&said(app)), connection(&said(app)), "{app}");
    }
    // But for apps that are told whose it is: one for each client's.
    let edge = proxy.addr("plain");
    for app in ["first", "second", "second2"] {
        let request = |close: &str| format!("GET / HTTP/1.1\r\nHost: {app}.corp.example\r\nConnection: {close}\r\n\r\n");
        let of_one = String::from_utf8(raw(edge, [request("keep-alive"), request("close")].concat().as_bytes())).unwrap();
        let told: Vec<&str> =
            of_one.lines().filter(|line| line.contains(" from ")).map(|line| &line[line.find("HTTP/").unwrap()..]).collect();
        let told: Vec<&str> = told.iter().map(|told| told.split("HTTP/1.1 200").next().unwrap()).collect();
        assert_eq!(told.len(), 2, "{of_one}");
        assert_eq!(told[0], told[1], "{app}: one client, one connection");
        assert!(told[0].contains(" from 127.0.0.1:") && told[0].trim().ends_with(&format!(" to {}", edge.port())), "{}", told[0]);
        let other = said(app);
        assert_ne!(connection(told[0]), connection(&other), "{app}: another client, another connection");
        assert_ne!(told[0].split(" from ").nth(1), other.split(" from ").nth(1), "{app}");
    }
    // A server that waits for the header takes nothing else.
    assert_eq!(get(&proxy, "untold", "/").status, 502);
}

#[test]
fn checks_go_the_way_that_requests_go() {
    let lab = Lab::new();
    let (_nginx, port) = start(&lab);
    lab.write("well.txt", "well");
    let tls = "tls: {ca: [certs/edge-ca.pem]}";
    let way = |upstream: &str, path: &str| format!("{{{upstream}, health: {{path: /files/{path}, every: 100ms, fall: 1}}}}");
    let ways = [
        ("unix1", "servers: [\"unix:http1.sock\"]".to_owned()),
        ("unix2", "servers: [\"unix:http2.sock\"], protocol: h2c".to_owned()),
        ("told2", "servers: [\"unix:told2.sock\"], protocol: h2c, proxy_protocol: v2".to_owned()),
        ("tls1", format!("servers: [\"https://127.0.0.1:{port}\"], {tls}")),
        ("tls2", format!("servers: [\"https://127.0.0.1:{port}\"], protocol: h2, {tls}")),
    ];
    let mut apps: Vec<(&str, String)> = ways.iter().map(|(name, upstream)| (*name, way(upstream, "well.txt"))).collect();
    apps.push(("missing", way(&ways[4].1, "missing.txt")));
    // Nobody trusts the issuer; and what listens there speaks HTTP/1.1 alone.
    apps.push(("stranger", way(&format!("servers: [\"https://127.0.0.1:{port}\"], tls: {{ca: [certs/device-ca.pem]}}"), "well.txt")));
    apps.push(("other", way("servers: [\"unix:http1.sock\"], protocol: h2c", "well.txt")));
    let proxy = lab.start(&config(&apps));
    let address = |app: &str| {
        let told: serde_json::Value = serde_json::from_str(&proxy.admin_get("/api/v1/servers").1).unwrap();
        let apps = told["apps"].as_array().unwrap();
        apps.iter().find(|told| told["app"] == app).unwrap()["servers"][0]["addresses"][0].clone()
    };
    for (app, _) in &ways {
        let told = eventually(&format!("{app} is checked"), || Some(address(app)).filter(|told| told["state"] != "unchecked"));
        assert_eq!((&told["state"], &told["check"]["status"]), (&"up".into(), &200.into()), "{app}: {told}");
        // And again, by connections that all end.
        proxy.metric_reaches("vestibule_upstream_checks_total", &[("app", app), ("result", "passed")], 3.0);
        assert_eq!(get(&proxy, app, "/files/well.txt").body, "well", "{app}");
    }
    for (app, why) in [("missing", "status 404"), ("stranger", "certificate"), ("other", "HTTP/2")] {
        let told = eventually(&format!("{app} is down"), || Some(address(app)).filter(|told| told["state"] == "down"));
        assert!(told["check"]["why"].as_str().unwrap().contains(why), "{app}: {told}");
    }
}
