//! A new program in the place of the running one: by passed sockets, under load, and told to the service manager.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;

use rustls::pki_types::ServerName;
use support::{Config, Curl, DEADLINE, Lab, Origin, Proxy, RawTls, Reply, Service, eventually, program, raw, tcp, tls_config};
use vestibule::cli::lab_ca::Issued;
use vestibule::cli::scrape;

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const HOST: &str = "wiki.corp.example";
const GET: &str = "GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n";

fn config(origin: &Origin) -> Config {
    Config::new(origin).replace("[wiki.localhost]", "[wiki.corp.example]").set("limits", "{drain: 15s}")
}

fn admin(service: &Service, path: &str) -> (u16, String) {
    let address = service.addr("admin");
    let answer = String::from_utf8(raw(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()));
    let answer = answer.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn metric(service: &Service, name: &str, label: (&str, &str)) -> f64 {
    let samples = scrape::read(&admin(service, "/metrics").1).unwrap();
    samples.iter().filter(|sample| sample.name == name && (label.0.is_empty() || sample.label(label.0) == label.1)).map(|s| s.value).sum()
}

/// The path that the program is started by: a link, as package managers and deployments leave it.
fn link(lab: &Lab) -> std::path::PathBuf {
    let path = lab.path("vestibule");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vestibule"), &path).unwrap();
    path
}

/// Asks on one connection as long as that is kept, anew on each, or on four streams of one; how many were answered, and on how many connections.
struct Client<'a> {
    address: SocketAddr,
    lab: &'a Lab,
    device: &'a Issued,
    done: &'a AtomicBool,
}

impl Client<'_> {
    fn connect(&self) -> RawTls {
        RawTls::with_alpn(self.address, self.lab, (HOST, "http/1.1"), Some(self.device))
    }

    /// A connection that ends without a byte of an answer when it was used before may be one that the server closed while it was idle, and a client
    /// asks again on another (RFC 9112 section 9.3.1); a first request must be answered.
    fn keeping(&self) -> (usize, usize) {
        let (mut asked, mut connections) = (0, 0);
        while !self.done.load(SeqCst) {
            let mut client = self.connect();
            connections += 1;
            let mut used = false;
            while !self.done.load(SeqCst) {
                let sent = client.stream.write_all(GET.as_bytes()).and_then(|()| client.stream.flush());
                let mut got = Vec::new();
                while !got.ends_with(b"hello") {
                    let part = client.read_more();
                    if part.is_empty() {
                        break;
                    }
                    got.extend(part);
                }
                if got.is_empty() && used {
                    break;
                }
                let answer = String::from_utf8_lossy(&got);
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{sent:?}: {answer}");
                (asked, used) = (asked + 1, true);
                if answer.contains("\r\nconnection: close\r\n") {
                    break;
                }
            }
        }
        (asked, connections)
    }

    fn anew(&self) -> (usize, usize) {
        let mut asked = 0;
        while !self.done.load(SeqCst) {
            let answer = self.connect().ask(GET);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            asked += 1;
        }
        (asked, asked)
    }

    fn multiplexing(&self) -> (usize, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(self.lab, &[b"h2"], Some(self.device))));
        runtime.block_on(async {
            let (mut asked, mut connections) = (0, 0);
            while !self.done.load(SeqCst) {
                let socket = soon("it connects", tokio::net::TcpStream::connect(self.address)).await.unwrap();
                let tls = connector.connect(ServerName::try_from(HOST).unwrap(), socket);
                let tls = soon("who is in the queue is served", tls).await.unwrap();
                let (send, connection) = soon("HTTP/2 begins", h2::client::handshake(tls)).await.unwrap();
                let connection = tokio::spawn(connection);
                connections += 1;
                while !self.done.load(SeqCst) {
                    let mut answers = Vec::new();
                    for _ in 0..4 {
                        let request = http::Request::get(format!("https://{HOST}/")).body(()).unwrap();
                        // After the last GOAWAY the library takes no more requests: that is for another connection.
                        let Ok(mut ready) = soon("there is room for a stream", send.clone().ready()).await else { break };
                        let Ok((answer, _)) = ready.send_request(request, true) else { break };
                        answers.push(answer);
                    }
                    if answers.is_empty() {
                        break;
                    }
                    for answer in answers {
                        let answer = match soon("it is answered", answer).await {
                            Ok(answer) => answer,
                            // Beyond the GOAWAY's last stream: it says that the request was not looked at, and is to be asked again on another
                            // connection (RFC 9113 section 6.8). That it was not is seen in the log, which would have a line more. This library
                            // opens streams also after the first GOAWAY.
                            Err(error) if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                                continue;
                            }
                            Err(error) => panic!("what was sent is answered: {error}"),
                        };
                        assert_eq!(answer.status(), 200);
                        let mut body = answer.into_body();
                        while let Some(part) = soon("the answer goes on", body.data()).await {
                            assert_eq!(part.unwrap(), "hello");
                        }
                        asked += 1;
                    }
                }
                drop(send);
                let _ = soon("the connection ends", connection).await;
            }
            (asked, connections)
        })
    }
}

/// A test that fails is to say so, rather than wait.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Clients end when the test does, also when it fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn upgrades_under_load_lose_no_request() {
    const UPGRADES: usize = 5;
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let mut service = Service::start(&lab, &link(&lab), &config, &[], &[]);
    service.hears("READY=1");
    let edge = service.addr("edge");
    let done = AtomicBool::new(false);
    let bursts = AtomicUsize::new(0);
    let mut curled = 0;
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let _ending = Ending(&done);
        let client = || Client { address: edge, lab: &lab, device: &laptop, done: &done };
        let mut clients = vec![];
        for kind in [Client::keeping, Client::keeping, Client::anew, Client::multiplexing, Client::multiplexing] {
            let client = client();
            clients.push(scope.spawn(move || kind(&client)));
        }
        // Real ones: curl with one connection for many requests, over HTTP/1.1 and HTTP/2.
        let curls: Vec<_> = ["--http1.1", "--http2"]
            .into_iter()
            .map(|http| {
                let (lab, laptop, done, bursts) = (&lab, &laptop, &done, &bursts);
                scope.spawn(move || {
                    let mut total = 0;
                    while !done.load(SeqCst) {
                        let output = program("curl")
                            .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", http, "--connect-to"])
                            .arg(format!("::{}:{}", edge.ip(), edge.port()))
                            .arg("--cacert")
                            .arg(lab.ca.edge_ca())
                            .arg("--cert")
                            .arg(&laptop.cert)
                            .arg("--key")
                            .arg(&laptop.key)
                            .args(["--output", "/dev/null", "--write-out", "%{http_code}\n", &format!("https://{HOST}/[1-100]")])
                            .output()
                            .unwrap();
                        let said = String::from_utf8(output.stdout).unwrap();
                        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                        assert_eq!((output.status.code(), said.as_str()), (Some(0), "200\n".repeat(100).as_str()), "{http}: {errors}");
                        total += 100;
                        bursts.fetch_add(1, SeqCst);
                    }
                    total
                })
            })
            .collect();
        for round in 0..UPGRADES {
            // More and fewer workers than sockets.
            lab.configure(&config.clone().set("workers", ["2", "4", "1", "3", "2"][round]));
            service.upgrade();
            let before = bursts.load(SeqCst);
            eventually("load goes on", || (bursts.load(SeqCst) >= before + 2).then_some(()));
        }
        done.store(true, SeqCst);
        curled = curls.into_iter().map(|curl| curl.join().unwrap()).sum();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let asked = counts.iter().map(|(asked, _)| asked).sum::<usize>() + curled;
    println!("{UPGRADES} upgrades, {asked} requests, none lost; requests and connections of each client: {counts:?}, of curl: {curled}");
    for (client, (_, connections)) in counts.iter().enumerate() {
        assert!(*connections > UPGRADES, "client {client} met every process: {connections}");
    }
    let mains = service.mains.clone();
    assert_eq!(mains.len(), UPGRADES + 1);
    for pid in &mains[..UPGRADES] {
        if let Some(status) = service.ended(*pid) {
            assert_eq!(status.code(), Some(0));
        }
    }
    assert!(metric(&service, "vestibule_upgrade_total", ("result", "success")) >= 1.0);
    service.signal(libc::SIGTERM);
    service.hears("STOPPING=1");
    service.ended(mains[UPGRADES]);
    // Five processes wrote it, often two at a time: every line is whole, and every request has its own.
    let log = lab.decisions(asked);
    assert_eq!(log.len(), asked);
}

#[test]
fn a_new_process_that_does_not_come_up_changes_nothing() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let good = config(&origin);
    let path = link(&lab);
    let mut service = Service::start(&lab, &path, &good, &[], &[]);
    service.hears("READY=1");
    let (first, plain) = (service.main(), service.addr("plain"));
    let fails = |service: &mut Service, why: &str| {
        let failures = metric(service, "vestibule_upgrade_total", ("result", "failure"));
        service.signal(libc::SIGUSR2);
        service.hears("RELOADING=1");
        let ready = service.hears("READY=1");
        assert!(ready.contains("the upgrade failed"), "{ready}");
        assert!(service.stderr().contains(why), "{why}: {}", service.stderr());
        assert_eq!(metric(service, "vestibule_upgrade_total", ("result", "failure")), failures + 1.0);
        assert_eq!((service.main(), admin(service, "/readyz").0), (first, 200));
        assert_eq!(Curl::at(plain).get(&format!("http://{HOST}/")).status, 403);
    };
    // What is wrong with the configuration: the reload of the old process refused it as well.
    lab.configure(&good.clone().set("limits", "{drian: 1s}"));
    fails(&mut service, "unknown key `drian`");
    lab.configure(&good);
    // A program that does not run, one that ends, and one that crashes.
    for (what, script, why) in [
        ("none", None, "No such file"),
        ("one that ends", Some("#!/bin/sh\nexit 3\n"), "exit status: 3"),
        ("one that crashes", Some("#!/bin/sh\nkill -SEGV $$\n"), "signal: 11"),
    ] {
        std::fs::remove_file(&path).unwrap_or_else(|_| assert_eq!(what, "one that ends"));
        if let Some(script) = script {
            std::fs::write(&path, script).unwrap();
            std::os::unix::fs::PermissionsExt::set_mode(&mut std::fs::metadata(&path).unwrap().permissions(), 0o755);
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        fails(&mut service, why);
    }
    std::fs::remove_file(&path).unwrap();
    link(&lab);
    service.upgrade();
    assert_eq!(service.ended(first).unwrap().code(), Some(0));
    assert_eq!(Curl::at(plain).get(&format!("http://{HOST}/")).status, 403);
}

#[test]
fn what_runs_finishes_in_the_old_process_while_the_new_one_serves() {
    let (release, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::start(move |received| {
        if received.line().starts_with("GET /slow ") {
            held.lock().unwrap().recv().unwrap();
        }
        Reply::text("hello")
    });
    let lab = Lab::new();
    let config = config(&origin).replace("then: block", "then: forward");
    let mut service = Service::of(&lab, &config);
    let (first, plain) = (service.main(), service.addr("plain"));
    let mut slow = tcp(plain);
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n").unwrap();
    eventually("the app has the request", || (origin.connections() == 1).then_some(()));
    service.upgrade();
    assert!(service.is_running(first));
    // The admin listener is the new one's, at once: nobody is sent to a process that stops.
    for _ in 0..20 {
        assert_eq!(admin(&service, "/readyz").0, 200);
    }
    assert_eq!(metric(&service, "vestibule_draining", ("", "")), 0.0);
    // A reload is the new one's as well, and only the new one says something to the service manager.
    service.heard();
    lab.configure(&config.clone().set("guardrails", "[{name: gone, when: {device.state: lost}, then: block}]"));
    service.hears("RELOADING=1");
    service.hears("READY=1");
    assert!(service.heard().is_empty());
    assert_eq!(Curl::at(plain).get(&format!("http://{HOST}/")).status, 200);
    // And so is the next upgrade, with the first still at work.
    service.upgrade();
    assert!(service.is_running(first));
    // Whoever stops the service tells this one as well, which ends already.
    service.signal_to(first, libc::SIGTERM);
    release.send(()).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n") && answer.ends_with("hello"), "{answer}");
    assert_eq!(service.ended(first).unwrap().code(), Some(0));
}

#[test]
fn sockets_of_the_service_manager_are_served_and_passed_on() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    // systemd binds them before the program starts, and keeps them when it ends.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin_socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    let config = config(&origin)
        .replace("- name: plain\n    bind: [\"127.0.0.1:0\"]", &format!("- name: plain\n    bind: [\"{address}\"]"))
        .set("admin", &format!("{{bind: \"{}\"}}", admin_socket.local_addr().unwrap()))
        .set("workers", "3");
    // Who comes early waits in the queue, and is answered.
    let mut early: Vec<TcpStream> = (0..20).map(|_| tcp(address)).collect();
    early.iter_mut().for_each(|client| client.write_all(GET.as_bytes()).unwrap());
    let sockets = [plain, admin_socket];
    let binary = Path::new(env!("CARGO_BIN_EXE_vestibule"));
    let mut service = Service::start(&lab, binary, &config, &sockets, &[]);
    service.hears("READY=1");
    assert_eq!(service.addr("plain"), address);
    let answered = |client: &mut TcpStream| {
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 403");
    };
    early.iter_mut().for_each(answered);
    assert_eq!(admin(&service, "/readyz").0, 200);
    // The SYN is saved on a socket that somebody else opened.
    let line = &lab.decisions(20)[0];
    assert_eq!(line["listener"], "plain", "{line}");
    let late = tcp(address);
    let syn = eventually("the SYN of a later connection is read", || {
        (&late).write_all(GET.as_bytes()).unwrap();
        lab.decisions(21).iter().find_map(|line| line["wire"]["syn"].as_str().map(str::to_owned))
    });
    assert!(syn.starts_with("4:"), "{syn}");
    service.upgrade();
    assert_eq!(Curl::at(address).get(&format!("http://{HOST}/")).status, 403);
    // The manager's copy is still open: what comes between two processes waits there.
    let last = service.main();
    service.signal(libc::SIGTERM);
    service.ended(last);
    let mut between = tcp(address);
    between.write_all(GET.as_bytes()).unwrap();
    drop(service);
    let mut service = Service::start(&lab, binary, &config, &sockets, &[]);
    service.hears("READY=1");
    answered(&mut between);

    // One that nobody wants is a mistake, not a port that never answers.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let unwanted = other.local_addr().unwrap();
    drop(service);
    let [plain, admin_socket] = sockets;
    let mut service = Service::start(&lab, binary, &config, &[plain, admin_socket, other], &[]);
    let first = service.main();
    assert_eq!(service.ended(first).unwrap().code(), Some(1));
    assert!(service.stderr().contains(&format!("systemd passed a socket for {unwanted}")), "{}", service.stderr());
}

/// Each worker accepts from one of its own: a queue that many share wakes all of them for one connection.
#[test]
fn several_passed_sockets_of_one_address_are_one_listeners_and_each_worker_gets_one() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let listening = |address: SocketAddr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        TcpListener::from(socket)
    };
    let first = listening("127.0.0.1:0".parse().unwrap());
    let address = first.local_addr().unwrap();
    let sockets = [first, listening(address)];
    let config = config(&origin)
        .replace("- name: plain\n    bind: [\"127.0.0.1:0\"]", &format!("- name: plain\n    bind: [\"{address}\"]"))
        .set("workers", "3");
    // Some of them wait at the one and some at the other.
    let mut early: Vec<TcpStream> = (0..40).map(|_| tcp(address)).collect();
    early.iter_mut().for_each(|client| client.write_all(GET.as_bytes()).unwrap());
    let mut service = Service::start(&lab, Path::new(env!("CARGO_BIN_EXE_vestibule")), &config, &sockets, &[]);
    service.hears("READY=1");
    for client in &mut early {
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 403");
    }
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let listens = rows.filter(|row| row[3] == "0A" && row[1].ends_with(&format!(":{:04X}", address.port()))).count();
    assert_eq!(listens, 3);
}

#[test]
fn what_was_passed_to_another_process_is_left_alone() {
    let lab = Lab::new();
    let file = lab.configure(&config(&Origin::answering(Reply::text("hello"))));
    // Neither the program nor who starts it.
    let other = std::os::unix::process::parent_id();
    for (variable, value) in
        [("LISTEN_PID", other.to_string()), ("VESTIBULE_UPGRADE", format!(r#"{{"from":{other},"line":9999,"sockets":[]}}"#))]
    {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vestibule"));
        command.env("LISTEN_FDS", "1").env(variable, value);
        let proxy = Proxy::start_by(command, lab.dir(), &file);
        assert_eq!(proxy.admin_get("/readyz").0, 200, "{variable}");
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    let mut service = Service::of(&lab, &config);
    lab.configure(&config.clone().set("limits", "{drain: 2s}"));
    let reloading = service.hears("RELOADING=1");
    let since: u64 = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap().parse().unwrap();
    assert!(since > 0, "{reloading}");
    let ready = service.hears("READY=1");
    assert!(ready.contains("STATUS=serving policy "), "{ready}");
    lab.configure(&config.clone().set("limits", "{drian: 2s}"));
    service.hears("RELOADING=1");
    let ready = service.hears("READY=1");
    assert!(ready.contains("STATUS=the configuration in the files is not taken"), "{ready}");
    assert_eq!(metric(&service, "vestibule_config_last_reload_successful", ("", "")), 0.0);
    lab.configure(&config);
    service.hears("READY=1");
    assert_eq!(metric(&service, "vestibule_config_last_reload_successful", ("", "")), 1.0);
    let main = service.main();
    service.signal(libc::SIGTERM);
    service.hears("STOPPING=1");
    assert_eq!(service.ended(main).unwrap().code(), Some(0));
    assert!(service.heard().iter().all(|said| !said.contains("WATCHDOG")), "nobody asked for it");
}

/// Stops one thread of a process, as a fault of ours would.
struct Frozen(i32);

impl Frozen {
    fn new(pid: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
        let task = tasks.into_iter().find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name).unwrap();
        let tid: i32 = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        Self::ptrace(libc::PTRACE_SEIZE, tid);
        Self::ptrace(libc::PTRACE_INTERRUPT, tid);
        Self(tid)
    }

    fn ptrace(request: libc::c_uint, tid: i32) {
        // SAFETY: neither request reads or writes memory; the thread is of a process that this test started.
        #[allow(unsafe_code)]
        let done = unsafe { libc::ptrace(request, tid, std::ptr::null_mut::<libc::c_void>(), std::ptr::null_mut::<libc::c_void>()) };
        assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
    }

    fn thaw(self) {
        drop(self);
    }
}

/// A process with a thread that is held could not end.
impl Drop for Frozen {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: the kernel writes one int, which lives here.
        #[allow(unsafe_code)]
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.0);
        Self::ptrace(libc::PTRACE_DETACH, self.0);
    }
}

#[test]
fn the_watchdog_hears_of_progress_and_of_nothing_else() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let binary = Path::new(env!("CARGO_BIN_EXE_vestibule"));
    let mut service = Service::start(&lab, binary, &config(&origin), &[], &[("WATCHDOG_USEC", "200000")]);
    service.hears("READY=1");
    service.hears("WATCHDOG=1");
    // A worker that does not get on: the others and the office do, and that is not enough.
    let worker = Frozen::new(service.main(), "vestibule-1");
    eventually("the office sees it", || (metric(&service, "vestibule_stalled_workers", ("", "")) >= 1.0).then_some(()));
    service.heard();
    std::thread::sleep(std::time::Duration::from_secs(1)); // nothing is to come meanwhile
    assert!(service.heard().is_empty());
    worker.thaw();
    service.hears("WATCHDOG=1");
    assert_eq!(metric(&service, "vestibule_stalled_workers", ("", "")), 0.0);
    // An office that does not: nobody is left to say it.
    let office = Frozen::new(service.main(), "vestibule-offic");
    service.heard();
    std::thread::sleep(std::time::Duration::from_secs(1)); // nothing is to come meanwhile
    assert!(service.heard().is_empty());
    office.thaw();
    service.hears("WATCHDOG=1");
    // The next process says it in this one's place.
    service.upgrade();
    let first = service.mains[0];
    service.ended(first);
    service.heard();
    service.hears("WATCHDOG=1");
}

#[test]
fn a_proxy_that_leaves_is_not_ready_before_it_closes() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let mut service = Service::of(&lab, &config(&origin).set("limits", "{drain_delay: 10m}"));
    let plain = service.addr("plain");
    service.signal(libc::SIGTERM);
    service.hears("STOPPING=1");
    assert_eq!(admin(&service, "/readyz").0, 503);
    assert_eq!(metric(&service, "vestibule_draining", ("", "")), 1.0);
    assert_eq!(Curl::at(plain).get(&format!("http://{HOST}/")).status, 403, "who still comes is served");
    let main = service.main();
    // Somebody who will not wait says so again.
    eventually("it ends", || {
        if service.is_running(main) {
            service.signal(libc::SIGTERM);
        }
        (!service.is_running(main)).then_some(())
    });
    assert_eq!(service.ended(main).unwrap().code(), Some(0));
}
