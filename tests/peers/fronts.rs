//! Behind the programs that people have in front: HAProxy and nginx.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use vestibule::cli::lab_ca::Issued;

use super::support::{Curl, program};
use super::*;

/// One of them, listening. Ended when dropped.
pub struct Front {
    child: Child,
    ports: Vec<u16>,
}

impl Front {
    /// `start` gets free ports, as many as asked for.
    pub fn start(ports: usize, start: impl Fn(&[u16]) -> Command) -> Self {
        // Another program may take a free port before it does.
        (0..5).find_map(|_| Self::try_start(ports, &start)).expect("it starts")
    }

    fn try_start(count: usize, start: impl Fn(&[u16]) -> Command) -> Option<Self> {
        let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|held| held.local_addr().unwrap().port()).collect();
        drop(held);
        let child = start(&ports).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut front = Self { child, ports };
        let listens = eventually("it listens or ends", || {
            if front.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            front.ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()).then_some(true)
        });
        listens.then_some(front)
    }

    /// A client at 127.0.0.3 of the front's n-th port.
    pub fn client(&self, n: usize, lab: &Lab) -> Curl {
        Curl::at(SocketAddr::from(([127, 0, 0, 1], self.ports[n])))
            .arg("--interface")
            .arg("127.0.0.3")
            .arg("--cacert")
            .arg(lab.ca.edge_ca().to_str().unwrap())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The line of a request that was asked for under this path.
pub fn line_of(world: &World, path: &str) -> Value {
    eventually(&format!("the line of {path}"), || world.lab.decisions(1).into_iter().find(|line| line["path"] == path))
}

#[test]
fn behind_haproxy() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let pair = ["edge.pem", "edge.key"].map(|name| std::fs::read_to_string(world.lab.path("certs").join(name)).unwrap());
    world.lab.write("certs/pair.pem", &pair.concat());
    let addr = |listener| world.proxy.addr(listener);
    let dir = world.lab.dir().display();
    let haproxy = Front::start(4, |ports| {
        let [one, two, tls, ended] = ports else { panic!() };
        let config = format!(
            "defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend v1
    bind 127.0.0.1:{one}
    default_backend v1
backend v1
    server vestibule {} send-proxy
frontend v2
    bind 127.0.0.1:{two}
    unique-id-format lb-%ci
    default_backend v2
backend v2
    server vestibule {} send-proxy-v2 proxy-v2-options crc32c,unique-id
frontend tls
    bind 127.0.0.1:{tls}
    default_backend tls
backend tls
    server vestibule {} send-proxy-v2 proxy-v2-options crc32c
frontend ended
    mode http
    bind 127.0.0.1:{ended} ssl crt {dir}/certs/pair.pem ca-file {dir}/certs/device-ca.pem verify optional alpn h2,http/1.1
    option forwardfor
    unique-id-format lb-%ci-%rt
    unique-id-header X-Request-Id
    http-request del-header Forwarded
    http-request del-header Client-Cert-Chain
    http-request set-header X-Forwarded-Proto https
    http-request set-header Client-Cert :%[ssl_c_der,base64]:
    default_backend ended
backend ended
    mode http
    server vestibule {}
",
            addr("passed"),
            addr("passed"),
            addr("passed-tls"),
            addr("plain"),
        );
        let mut command = program("haproxy");
        command.arg("-q").arg("-db").arg("-f").arg(world.lab.write("haproxy.cfg", &config));
        command
    });
    let spoofed = "X-Forwarded-For: 10.1.2.3";
    for (n, path) in (0..).zip(["/v1", "/v2"]) {
        assert_eq!(haproxy.client(n, &world.lab).header(spoofed).get(&format!("http://git.localhost{path}")).status, 200);
        let line = line_of(&world, path);
        assert_eq!((&line["peer"], &line["via"]), (&"127.0.0.3".into(), &serde_json::json!(["127.0.0.1"])));
        assert_eq!(line["via_id"], if n == 1 { Value::from("lb-127.0.0.3") } else { Value::Null });
        assert_eq!(haproxy.client(n, &world.lab).header(spoofed).get("http://wiki.localhost/office").status, 403);
    }
    // TLS goes through to us, hello and certificate included.
    assert_eq!(haproxy.client(2, &world.lab).device(&laptop).get("https://wiki.localhost/tls").status, 200);
    let line = line_of(&world, "/tls");
    assert_eq!((&line["peer"], &line["device"]), (&"127.0.0.3".into(), &"laptop".into()));
    assert!(line["wire"]["ja4"].is_string() && line["wire"]["syn"].is_null());
    // TLS ends at HAProxy, which says in Client-Cert who came.
    let client = || haproxy.client(3, &world.lab).header(spoofed).header("Client-Cert: :YQ==:").header("Forwarded: for=10.1.2.3");
    assert_eq!(client().device(&laptop).get("https://wiki.localhost/ended").status, 200);
    assert_eq!(client().get("https://wiki.localhost/none").status, 403);
    let line = line_of(&world, "/ended");
    assert_eq!((&line["peer"], &line["device"], &line["via"]), (&"127.0.0.3".into(), &"laptop".into(), &serde_json::json!(["127.0.0.1"])));
    assert!(line["client_request_id"].as_str().unwrap().starts_with("lb-127.0.0.3-"), "{line}");
    assert_eq!(line_of(&world, "/none")["device"], Value::Null);
    let received = world.origin.received();
    let ended = received.iter().find(|received| received.line().contains("/ended")).unwrap();
    assert_eq!(ended.header("x-forwarded-for"), ["127.0.0.3, 127.0.0.1"]);
    assert_eq!(ended.header("x-forwarded-proto"), ["https"]);
    assert_eq!(ended.header("x-request-id"), [line["client_request_id"].as_str().unwrap()]);
    assert_eq!(world.proxy.metrics().sum("vestibule_rejected_total", &[("reason", "proxy_header")]), 0.0);
}

#[test]
fn behind_nginx() {
    let world = World::new();
    let dir = world.lab.dir().display();
    let nginx = Front::start(1, |ports| {
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {dir}/nginx-temp;")).join(" ");
        let config = format!(
            "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr; events {{}}
http {{ access_log off; {temp}
    upstream vestibule {{ server {}; keepalive 1; }}
    server {{ listen 127.0.0.1:{}; location / {{
        proxy_pass http://vestibule; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Request-Id $request_id; proxy_set_header Forwarded \"\"; proxy_set_header Client-Cert \"\";
    }} }} }}",
            world.proxy.addr("plain"),
            ports[0],
        );
        let mut command = program("nginx");
        command.arg("-c").arg(world.lab.write("nginx.conf", &config)).stderr(Stdio::null());
        command
    });
    // nginx keeps the client's own fields in front of what it adds.
    for source in ["127.0.0.3", "127.0.0.4", "127.0.0.3"] {
        let client =
            nginx.client(0, &world.lab).arg("--interface").arg(source).header("X-Forwarded-For: 10.1.2.3").header("Forwarded: for=x");
        assert_eq!(client.clone().get(&format!("http://wiki.localhost/office-{source}")).status, 403);
        assert_eq!(client.get(&format!("http://git.localhost/{source}")).status, 200);
        assert_eq!(line_of(&world, &format!("/{source}"))["peer"], source);
    }
    for received in world.origin.received() {
        let source = received.line().split(['/', ' ']).nth(2).unwrap().to_owned();
        assert_eq!(received.header("x-forwarded-for"), [format!("{source}, 127.0.0.1")]);
        assert_eq!(received.header("x-request-id")[0].len(), 32);
    }
}

/// nginx passes connections on, with version 1 of the PROXY protocol: the only one that it can write.
#[test]
fn behind_nginx_that_passes_connections_on() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let dir = world.lab.dir().display();
    let nginx = Front::start(2, |ports| {
        let server =
            |port, listener| format!("server {{ listen 127.0.0.1:{port}; proxy_pass {}; proxy_protocol on; }}", world.proxy.addr(listener));
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr; events {{}}
stream {{ {} {} }}",
            server(ports[0], "passed"),
            server(ports[1], "passed-tls"),
        );
        let mut command = program("nginx");
        command.arg("-c").arg(world.lab.write("nginx.conf", &config)).stderr(Stdio::null());
        command
    });
    passes_connections_on(&world, &nginx, &laptop, [("/plain", None), ("/tls", None)]);
}

/// Two ports of a front that passes on: to a plain listener, and to one with TLS. What the path's connection is called in the log.
pub fn passes_connections_on(world: &World, front: &Front, laptop: &Issued, [plain, tls]: [(&str, Option<&str>); 2]) {
    let spoofed = "X-Forwarded-For: 10.1.2.3";
    assert_eq!(front.client(0, &world.lab).header(spoofed).get(&format!("http://git.localhost{}", plain.0)).status, 200);
    assert_eq!(front.client(0, &world.lab).header(spoofed).get("http://wiki.localhost/office").status, 403);
    assert_eq!(front.client(1, &world.lab).device(laptop).get(&format!("https://wiki.localhost{}", tls.0)).status, 200);
    for (path, id) in [plain, tls] {
        let line = line_of(world, path);
        assert_eq!((&line["peer"], &line["via"]), (&"127.0.0.3".into(), &serde_json::json!(["127.0.0.1"])), "{path}");
        assert_eq!(line["via_id"], id.map_or(Value::Null, Value::from), "{path}");
        assert!(line["wire"]["syn"].is_null(), "that is the front's: {line}");
    }
    // TLS goes through to us, hello and certificate included.
    let line = line_of(world, tls.0);
    assert!(line["device"] == "laptop" && line["wire"]["ja4"].is_string(), "{line}");
    assert_eq!(world.proxy.metrics().sum("vestibule_rejected_total", &[("reason", "proxy_header")]), 0.0);
}
