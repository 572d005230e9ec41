//! Several servers behind one app: real ones (nginx), killed, stopped and started again under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Config, Curl, DEADLINE, Lab, Origin, Proxy, Reply, eventually, program};

/// nginx that answers everything with its name, and `/well` with 200 as long as it says that it is well. Ended when dropped.
struct Nginx {
    name: String,
    listen: Vec<SocketAddr>,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Nginx {
    fn start(name: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::at(name, vec![address])
    }

    fn at(name: &str, listen: Vec<SocketAddr>) -> Self {
        let mut nginx = Self { name: name.to_owned(), listen, dir: tempfile::tempdir().unwrap(), child: None };
        nginx.says_well(true);
        nginx.run();
        nginx
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn says_well(&self, well: bool) {
        if well {
            std::fs::write(self.path("well"), "well").unwrap();
        } else {
            std::fs::remove_file(self.path("well")).unwrap();
        }
    }

    fn run(&mut self) {
        let dir = self.dir.path().display();
        let listen: String = self.listen.iter().map(|address| format!("listen {address}; ")).collect();
        let name = &self.name;
        let conf = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\nevents {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
             fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
             server {{ {listen} root {dir}; location = /well {{ try_files /well =503; }} location / {{ return 200 {name}; }} }} }}\n"
        );
        std::fs::write(self.path("nginx.conf"), conf).unwrap();
        // What it says before it has read its configuration goes to a place that it may not write to.
        let mut command = program("nginx");
        command.arg("-c").arg(self.path("nginx.conf")).arg("-p").arg(self.dir.path()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        for address in &self.listen {
            eventually("nginx listens", || TcpStream::connect(address).ok());
        }
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        // SAFETY: no memory is involved; the child is ours and not yet waited for.
        #[allow(unsafe_code)]
        let done = unsafe { libc::kill(pid, signal) };
        assert_eq!(done, 0);
    }

    /// SIGTERM: it closes its door, then everything at once, whatever runs. SIGKILL: the kernel closes the door last.
    fn end(&mut self, signal: i32) {
        if self.child.is_some() {
            self.signal(signal);
            self.child.take().unwrap().wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listen[0])
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.end(libc::SIGKILL);
    }
}

/// One app `wiki`, open to everybody.
fn config(servers: &[String], upstream: &str) -> Config {
    let nobody = Origin::answering(Reply::text(""));
    Config::new(&nobody).set("apps", &apps(servers, upstream))
}

fn apps(servers: &[String], upstream: &str) -> String {
    format!(
        "\n  - {{name: wiki, owner: knowledge, hosts: [\"*.corp.example\", wiki.localhost], upstream: {{servers: {servers:?}, {upstream}}}, rules: [{{name: all, then: forward}}]}}"
    )
}

fn urls(servers: &[&Nginx]) -> Vec<String> {
    servers.iter().map(|server| server.url()).collect()
}

/// A client with one kept connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn to(proxy: &Proxy) -> Self {
        Self(BufReader::new(support::tcp(proxy.addr("plain"))))
    }

    /// From another address of this machine.
    fn from(proxy: &Proxy, peer: IpAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(peer, 0).into()).unwrap();
        socket.connect(&proxy.addr("plain").into()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(socket.into()))
    }

    /// Status and body; answers of nginx and the proxy have a length.
    fn ask(&mut self, method: &str) -> (u16, String) {
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        self.0.get_mut().write_all(format!("{method} / HTTP/1.1\r\nHost: wiki.localhost\r\n{length}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {line}")).parse().unwrap();
        let mut length = 0;
        loop {
            let mut field = String::new();
            self.0.read_line(&mut field).unwrap();
            match field.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn get(&mut self) -> (u16, String) {
        self.ask("GET")
    }
}

/// Clients that ask until the work is done. Gives every status with its count, and the work's result.
fn under_load<T>(proxy: &Proxy, methods: &[&'static str], work: impl FnOnce(&AtomicUsize) -> T) -> (BTreeMap<u16, usize>, T) {
    let (done, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = methods
            .iter()
            .map(|method| {
                let (done, answers) = (&done, &answers);
                scope.spawn(move || {
                    let mut client = Client::to(proxy);
                    let mut seen = BTreeMap::new();
                    while !done.load(SeqCst) {
                        *seen.entry(client.ask(method).0).or_insert(0) += 1;
                        answers.fetch_add(1, SeqCst);
                    }
                    seen
                })
            })
            .collect();
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst); // also when the work panics
            }
        }
        let end = End(&done);
        let result = work(&answers);
        drop(end);
        let mut all = BTreeMap::new();
        for (status, count) in clients.into_iter().flat_map(|client| client.join().unwrap()) {
            *all.entry(status).or_insert(0) += count;
        }
        (all, result)
    })
}

fn more_answers(answers: &AtomicUsize, n: usize) {
    let before = answers.load(SeqCst);
    eventually("more answers", || (answers.load(SeqCst) >= before + n).then_some(()));
}

/// `/api/v1/servers`, of the first app.
fn told(proxy: &Proxy) -> Value {
    let (status, body) = proxy.admin_get("/api/v1/servers");
    assert_eq!(status, 200);
    serde_json::from_str::<Value>(&body).unwrap()["apps"][0].clone()
}

/// The first address of the nth server.
fn address(proxy: &Proxy, nth: usize) -> Value {
    told(proxy)["servers"][nth]["addresses"][0].clone()
}

fn state_becomes(proxy: &Proxy, nth: usize, state: &str) -> Value {
    eventually(&format!("server {nth} becomes {state}"), || Some(address(proxy, nth)).filter(|told| told["state"] == state))
}

/// How many of `n` requests of one client each server takes.
fn shares(client: &mut Client, n: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..n {
        let (status, name) = client.get();
        assert_eq!(status, 200, "{name}");
        *shares.entry(name).or_insert(0) += 1;
    }
    shares
}

fn all(names: &[&str], each: usize) -> BTreeMap<String, usize> {
    names.iter().map(|name| ((*name).to_owned(), each)).collect()
}

#[test]
fn a_server_that_ends_loses_no_get_and_takes_its_share_again_when_it_is_back() {
    let mut servers = ["a", "b", "c"].map(Nginx::start);
    let upstream = "health: {path: /well, every: 100ms, rise: 1, fall: 1}, ejection: {time: 100ms}";
    let lab = Lab::new();
    let proxy = lab.start(&config(&urls(&servers.each_ref()), upstream));
    assert_eq!(shares(&mut Client::to(&proxy), 300), all(&["a", "b", "c"], 100));
    let mut ends = |signal| {
        let (statuses, ()) = under_load(&proxy, &["GET"; 3], |answers| {
            for _ in 0..3 {
                // Until all connections have been used: what is on a fresh one is not sent twice.
                more_answers(answers, 2000);
                servers[1].end(signal);
                more_answers(answers, 200);
                state_becomes(&proxy, 1, "down");
                servers[1].run();
                state_becomes(&proxy, 1, "up");
            }
            more_answers(answers, 200);
        });
        statuses
    };
    let statuses = ends(libc::SIGTERM);
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    // It takes connections while it dies: at most one of each client is lost each time.
    let mut statuses = ends(libc::SIGKILL);
    assert!(statuses.remove(&502).unwrap_or(0) <= 9);
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    // All that was ejected meanwhile is back.
    eventually("equal shares", || (shares(&mut Client::to(&proxy), 30) == all(&["a", "b", "c"], 10)).then_some(()));
    let metrics = proxy.metrics();
    let b = servers[1].url();
    let of_b = |name: &str, label: &str, value: &str| metrics.sum(name, &[("app", "wiki"), ("server", &b), (label, value)]);
    assert!(of_b("vestibule_upstream_requests_total", "result", "answered") >= 100.0);
    assert!(of_b("vestibule_upstream_checks_total", "result", "unreachable") >= 3.0);
    assert!(metrics.sum("vestibule_upstream_retries_total", &[("server", &b)]) >= 1.0);
    assert_eq!((of_b("vestibule_upstream_up", "app", "wiki"), metrics.sum("vestibule_upstream_running", &[])), (1.0, 0.0));
}

#[test]
fn without_checks_posts_to_a_dead_server_go_elsewhere_and_it_is_ejected() {
    let mut servers = ["a", "b"].map(Nginx::start);
    let lab = Lab::new();
    let proxy = lab.start(&config(&urls(&servers.each_ref()), "ejection: {failures: 3, time: 300ms}"));
    servers[0].end(libc::SIGKILL);
    // Nothing of them is sent, so that even these are not lost.
    let (statuses, ()) = under_load(&proxy, &["POST"; 4], |answers| {
        eventually("it is ejected", || (address(&proxy, 0)["state"] == "ejected").then_some(()));
        more_answers(answers, 100);
        let dead = servers[0].url();
        assert_eq!(proxy.metrics().sum("vestibule_upstream_up", &[("server", &dead)]), 0.0);
        assert!(proxy.metrics().sum("vestibule_upstream_ejections_total", &[("server", &dead)]) >= 1.0);
        let failures = |result: &str| proxy.metrics().sum("vestibule_upstream_requests_total", &[("server", &dead), ("result", result)]);
        assert!(failures("unreachable") >= 3.0);
        servers[0].run();
        let before = failures("answered");
        eventually("it takes requests again", || (failures("answered") > before).then_some(()));
    });
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
}

#[test]
fn a_server_that_hangs_costs_as_many_requests_as_eject_it_and_comes_back() {
    let servers = ["a", "b"].map(Nginx::start);
    let lab = Lab::new();
    let upstream = "timeouts: {response: 200ms}, ejection: {failures: 3, time: 3s}";
    let proxy = lab.start(&config(&urls(&servers.each_ref()), upstream));
    let mut client = Client::to(&proxy);
    assert_eq!(shares(&mut client, 10), all(&["a", "b"], 5));
    servers[0].signal(libc::SIGSTOP);
    let mut late = 0;
    while address(&proxy, 0)["state"] != "ejected" {
        let (status, _) = client.get();
        assert!([200, 504].contains(&status));
        late += usize::from(status == 504);
    }
    assert_eq!(late, 3, "as many as `failures`");
    let told = address(&proxy, 0);
    assert!(told["until"].is_string() && told["failures"] == 3, "{told}");
    assert_eq!(shares(&mut client, 20), all(&["b"], 20));
    servers[0].signal(libc::SIGCONT);
    eventually("it takes requests again", || (client.get() == (200, "a".to_owned())).then_some(()));
    assert_eq!(address(&proxy, 0)["failures"], 0);
}

#[test]
fn a_server_that_says_it_is_not_well_gets_nothing_and_where_all_are_down_nobody_is_asked() {
    let servers = ["a", "b"].map(Nginx::start);
    let lab = Lab::new();
    let upstream = "health: {path: /well, every: 100ms, rise: 1, fall: 2}, slow_start: 1s";
    let proxy = lab.start(&config(&urls(&servers.each_ref()), upstream));
    let up = state_becomes(&proxy, 0, "up");
    assert_eq!((&up["check"]["status"], &up["check"]["why"]), (&Value::from(200), &Value::Null));
    servers[0].says_well(false);
    assert_eq!(state_becomes(&proxy, 0, "down")["check"]["why"], "status 503");
    assert_eq!(shares(&mut Client::to(&proxy), 20), all(&["b"], 20));
    servers[1].says_well(false);
    state_becomes(&proxy, 1, "down");
    assert_eq!(Client::to(&proxy).get().0, 503);
    assert_eq!(proxy.metrics().sum("vestibule_upstream_up", &[]), 0.0);
    servers[0].says_well(true);
    state_becomes(&proxy, 0, "slow_start");
    assert_eq!(Client::to(&proxy).get(), (200, "a".to_owned()), "better a server that warms up than none");
    state_becomes(&proxy, 0, "up");
}

#[test]
fn a_check_is_one_get_with_the_apps_host_and_who_fails_the_first_one_is_down() {
    let origin = Origin::start(|received| match received.line().as_str() {
        "GET /healthz?deep=1 HTTP/1.1" => Reply::status("404 Not Found", "", "no"),
        _ => Reply::text("hello"),
    });
    let lab = Lab::new();
    let config = config(&[origin.url()], "health: {path: \"/healthz?deep=1\", every: 100ms, fall: 5}");
    let proxy = lab.start(&config);
    state_becomes(&proxy, 0, "down");
    let check = &origin.received()[0];
    assert_eq!((check.header("host"), check.body.len()), (vec!["wiki.localhost".to_owned()], 0));
    assert!(check.header_names().iter().all(|name| ["host", "user-agent", "accept"].contains(&name.as_str())), "{}", check.text());
    // What is a healthy status is the operator's to say; a reload asks anew.
    lab.configure(&config.clone().replace("fall: 5", "fall: 5, rise: 1, status: \"200,404\""));
    proxy.signal(libc::SIGHUP);
    state_becomes(&proxy, 0, "up");
    // Without checks nobody would take back what the last one said.
    lab.configure(&config);
    proxy.signal(libc::SIGHUP);
    state_becomes(&proxy, 0, "down");
    lab.configure(&config.replace("health: {path: \"/healthz?deep=1\", every: 100ms, fall: 5}", "balance: round_robin"));
    proxy.signal(libc::SIGHUP);
    state_becomes(&proxy, 0, "up");
    let checks = || origin.received().iter().filter(|received| received.line().contains("healthz")).count();
    let (before, until) = (checks(), Instant::now() + Duration::from_millis(500));
    let mut client = Client::to(&proxy);
    while Instant::now() < until {
        assert_eq!(client.get(), (200, "hello".to_owned()));
    }
    assert!(checks() <= before + 1, "one that was under way, and no more");
    assert!(!proxy.metrics().has("vestibule_upstream_checks_total"));
}

#[test]
fn a_peer_and_a_device_stay_with_their_server_whichever_proxy_they_come_by() {
    let servers = ["a", "b", "c"].map(Nginx::start);
    let urls = urls(&servers.each_ref());
    let turned: Vec<_> = urls.iter().rev().cloned().collect();
    let labs = [Lab::new(), Lab::new()];
    let proxies = [labs[0].start(&config(&urls, "balance: hash")), labs[1].start(&config(&turned, "balance: hash"))];
    let mut names = BTreeSet::new();
    for peer in 2..42 {
        let [one, other] = proxies.each_ref().map(|proxy| {
            let mut client = Client::from(proxy, IpAddr::from([127, 0, 0, peer]));
            let name = client.get().1;
            assert_eq!((0..3).map(|_| client.get().1).collect::<BTreeSet<_>>(), BTreeSet::from([name.clone()]));
            name
        });
        assert_eq!(one, other);
        names.insert(one);
    }
    assert_eq!(names.len(), 3);
    // All devices come from one address.
    let mut names = BTreeSet::new();
    for nth in 0..12 {
        let issued = labs[0].device(&format!("laptop-{nth}"), "ownership=corporate state=approved");
        let ask = || Curl::to(&proxies[0], &labs[0]).device(&issued).get("https://wiki.localhost/").body;
        let name = ask();
        assert_eq!(ask(), name);
        names.insert(name);
    }
    assert!(names.len() > 1, "12 devices at one of three servers: one time in 177,147");
}

#[test]
fn a_reload_that_removes_and_brings_back_a_server_under_load_loses_nothing() {
    let servers = ["a", "b"].map(Nginx::start);
    let (both, one) = (urls(&servers.each_ref()), urls(&[&servers[0]]));
    let upstream = "health: {path: /well, every: 100ms}";
    let lab = Lab::new();
    let (with, without) = (config(&both, upstream), config(&one, upstream));
    let proxy = lab.start(&with);
    let reload = |config: &Config| {
        lab.configure(config);
        assert_eq!(Curl::at(proxy.admin()).post("http://localhost/api/v1/reload", "").status, 200);
    };
    let gone = [("server", both[1].as_str())];
    let (statuses, ()) = under_load(&proxy, &["GET", "POST", "GET", "POST"], |answers| {
        for _ in 0..10 {
            more_answers(answers, 50);
            reload(&without);
            let metrics = proxy.metrics();
            assert!(!metrics.0.iter().any(|sample| sample.name.starts_with("vestibule_upstream") && sample.label("server") == gone[0].1));
            more_answers(answers, 50);
            reload(&with);
            proxy.metric_reaches("vestibule_upstream_requests_total", &[gone[0], ("result", "answered")], 1.0);
        }
    });
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    reload(&without);
    // Without a request that would make workers look: all its connections close by themselves, those of checks included.
    let port = servers[1].listen[0].port();
    eventually("its connections close", || (established(port) == 0).then_some(()));
}

/// Connections on this machine whose other end is this port and that the one who connected still holds open.
fn established(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == "01" && row[2].ends_with(&format!(":{port:04X}"))).count()
}

#[test]
fn names_are_looked_up_again_all_addresses_are_used_and_the_last_answer_holds() {
    support::tun::inside("names_are_looked_up_again_all_addresses_are_used_and_the_last_answer_holds", || {
        let run = |program: &str, args: &[&str]| assert!(support::program(program).args(args).status().unwrap().success());
        run("ip", &["link", "set", "lo", "up"]);
        let lab = Lab::new();
        let hosts = lab.write("hosts", "127.0.0.2 app.test\n");
        // Seen by this test and what it starts alone: the namespace has its own mounts.
        assert!(std::process::Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts").status().unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nginx = Nginx::at("$server_addr", [2, 3].map(|last| SocketAddr::from(([127, 0, 0, last], port))).to_vec());
        let proxy = lab.start(&config(&[format!("http://app.test:{port}")], "resolve_every: 1s"));
        let mut client = Client::to(&proxy);
        assert_eq!(client.get(), (200, "127.0.0.2".to_owned()));
        let addresses = || {
            let all = told(&proxy)["servers"][0]["addresses"].clone();
            all.as_array().unwrap().iter().map(|told| told["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let both = [2, 3].map(|last| format!("127.0.0.{last}:{port}"));
        let become_ = |wanted: &[String]| eventually(&format!("{wanted:?}"), || (addresses() == wanted).then_some(()));
        become_(&both[..1]);
        std::fs::write(&hosts, "127.0.0.3 app.test\n127.0.0.2 app.test\n").unwrap();
        become_(&both);
        assert_eq!(shares(&mut client, 20), all(&["127.0.0.2", "127.0.0.3"], 10));
        let labels = [("server", format!("http://app.test:{port}"))];
        let labels = labels.each_ref().map(|(label, value)| (*label, value.as_str()));
        assert_eq!(proxy.metrics().sum("vestibule_upstream_addresses", &labels), 2.0);
        assert_eq!(proxy.metrics().sum("vestibule_upstream_resolved", &labels), 1.0);

        std::fs::write(&hosts, "127.0.0.3 app.test\n").unwrap();
        become_(&both[1..]);
        assert_eq!(shares(&mut client, 20), all(&["127.0.0.3"], 20));
        std::fs::write(&hosts, "").unwrap();
        proxy.metric_reaches("vestibule_upstream_look_ups_total", &[labels[0], ("result", "failed")], 1.0);
        assert_eq!(
            (proxy.metrics().has("vestibule_upstream_resolved"), proxy.metrics().sum("vestibule_upstream_resolved", &labels)),
            (true, 0.0)
        );
        assert!(told(&proxy)["servers"][0]["looked_up"]["error"].is_string());
        assert_eq!((addresses(), shares(&mut client, 20)), (both[1..].to_vec(), all(&["127.0.0.3"], 20)));
        drop(nginx);
    });
}

#[test]
fn a_request_that_every_server_refuses_is_answered_at_once() {
    let nobody: Vec<String> =
        (0..10).map(|_| format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())).collect();
    let lab = Lab::new();
    let proxy = lab.start(&config(&nobody, "timeouts: {connect: 30s}"));
    let began = Instant::now();
    assert_eq!(Client::to(&proxy).get().0, 503);
    assert!(began.elapsed() < Duration::from_secs(10));
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("vestibule_upstream_requests_total", &[("result", "unreachable")]), 8.0, "each once, and no more than eight");
    assert_eq!(metrics.sum("vestibule_upstream_retries_total", &[("reason", "unsent")]), 7.0);
}

#[test]
fn one_waits_for_a_connection_and_the_next_is_told_at_once() {
    let origin = Origin::start(|_| Reply::Hang(Vec::new()));
    let lab = Lab::new();
    let limits = "{upstream_connections: 1, upstream_waiting: 1}";
    let one = config(&[origin.url()], "timeouts: {connect: 2s}").set("workers", "1").set("limits", limits);
    let proxy = lab.start(&one);
    let ask = || {
        let mut stream = support::tcp(proxy.addr("plain"));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n").unwrap();
        stream
    };
    let _held = ask();
    origin.wait(1);
    let mut waits = ask();
    let metric = |name: &str, labels: &[(&str, &str)]| proxy.metrics().sum(name, labels);
    proxy.metric_reaches("vestibule_upstream_waiting", &[("app", "wiki")], 1.0);
    assert_eq!(Client::to(&proxy).get().0, 503);
    assert_eq!(metric("vestibule_upstream_waits_total", &[("result", "full")]), 1.0);
    assert_eq!(metric("vestibule_upstream_waiting", &[]), 1.0, "the other still waits");
    let mut line = [0; 12];
    waits.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 503");
    assert_eq!(metric("vestibule_upstream_waits_total", &[("result", "timeout")]), 1.0);
    assert_eq!((metric("vestibule_upstream_waiting", &[]), metric("vestibule_upstream_up", &[])), (0.0, 1.0));
    assert_eq!((origin.connections(), metric("vestibule_upstream_running", &[])), (1, 1.0));
}
