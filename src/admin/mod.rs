//! The admin listener: metrics, health, the census of blind devices and the policy in force, for machines.
//!
//! It asks nobody who they are: it listens on loopback, and whoever may run programs on this machine may read it. A web page in this machine's
//! browser must not, even when its owner points a name of theirs at 127.0.0.1 (DNS rebinding); so a request whose Host is neither `localhost`, nor a
//! loopback address, nor the address that it came in on, is answered 421. No Host of the edge leads here: the edge forwards to apps only.
//! What changes something is a POST, and one that a browser sends for a page from elsewhere is refused.

mod answer;

use std::fs::File;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

pub use answer::router;

/// A head that takes longer is cut.
const HEAD: Duration = Duration::from_secs(5);
/// A whole visit, the reading of the answer included. Longer than Prometheus waits for a scrape by default (10 s).
const VISIT: Duration = Duration::from_secs(30);
/// Bytes of a request's head: a scrape has about 300.
const HEAD_SIZE: usize = 16 * 1024;
/// Visits at once; a further one is closed unread, so that nobody can fill the program's memory from here.
const VISITS: usize = 128;
/// Bytes of a request's body, which nobody reads.
const BODY: usize = 16 * 1024;
/// How long a stopping program lets a scrape finish.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    pub registry: Arc<prometheus::Registry>,
    /// Why the program is not ready, one reason a line, in words for an operator; empty is ready. Called for each request to `/readyz`: it must not
    /// block.
    pub ready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The census of blind devices as JSON. `None`: the store cannot be read.
    pub blind: Arc<dyn Fn() -> Telling + Send + Sync>,
    /// The policy in force as JSON. `None`: the program is stopping. It must not block.
    pub policy: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// The servers of all apps as JSON. `None`: the program is stopping. It must not block.
    pub servers: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// The public keys of assertions, a JSON Web Key Set; `None`: no app wants any. It must not block.
    pub jwks: Arc<dyn Fn() -> Option<Bytes> + Send + Sync>,
    /// Takes the configuration's files anew: what changed, or why they are not taken, as JSON. `None`: the program is stopping.
    pub reload: Arc<dyn Fn() -> Reloading + Send + Sync>,
}

/// A text that takes a moment.
pub type Telling = Pin<Box<dyn Future<Output = Option<String>> + Send>>;
pub type Reloading = Pin<Box<dyn Future<Output = Option<Result<String, String>>> + Send>>;

/// Serves until `shutdown` resolves. One request a connection: scrapes are seconds apart, and a connection that is never idle needs no rules for
/// idling. A client that is slow to ask or to read is cut; none can hold up another.
pub async fn serve(listener: TcpListener, state: State, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut visits = JoinSet::new();
    // With no file descriptor left, health could not answer just when it is asked most; this one is kept back for it.
    let mut spare = File::open("/dev/null").ok();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        while let Some(visited) = visits.try_join_next() {
            if let Err(panic) = visited {
                error!(error = %panic, "admin connection ended by a fault of ours");
            }
        }
        match accepted {
            Ok((stream, peer)) if visits.len() < VISITS => {
                spare = spare.or_else(|| File::open("/dev/null").ok());
                visits.spawn(visit(stream, peer, state.clone()));
            }
            Ok((_, peer)) => warn!(%peer, visits = VISITS, "too many admin connections at once, closed one"),
            Err(error) if is_exhausted(&error) && spare.take().is_some() => {
                debug!(%error, "accepting on the admin listener with the spare descriptor")
            }
            Err(error) => {
                warn!(%error, "cannot accept on the admin listener");
                sleep(Duration::from_millis(100)).await;
                spare = spare.or_else(|| File::open("/dev/null").ok());
            }
        }
    }
    drop(listener);
    let _ = timeout(LAST_WORDS, async { while visits.join_next().await.is_some() {} }).await;
}

/// EMFILE or ENFILE: this process, or the machine, has no file descriptor left.
fn is_exhausted(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

async fn visit(stream: TcpStream, peer: SocketAddr, state: State) {
    let Ok(local) = stream.local_addr() else { return };
    let service = TowerToHyperService::new(router(state, local.ip()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_SIZE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(VISIT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "admin connection failed"),
        Err(_) => debug!(%peer, "admin connection took too long"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use prometheus::{IntCounter, Registry};
    use tokio::sync::oneshot;

    use super::*;

    struct Running {
        address: SocketAddr,
        missing: Arc<Mutex<Vec<String>>>,
        reloads: Arc<AtomicUsize>,
        stop: Option<oneshot::Sender<()>>,
        office: Option<std::thread::JoinHandle<()>>,
    }

    /// The admin listener on a thread of its own, as the office runs it.
    fn running() -> Running {
        let registry = Registry::new();
        let visits = IntCounter::new("vestibule_test_total", "A counter.").unwrap();
        registry.register(Box::new(visits.clone())).unwrap();
        visits.inc();
        let missing = Arc::new(Mutex::new(Vec::new()));
        let reloads = Arc::new(AtomicUsize::new(0));
        let (listed, asked) = (Arc::clone(&missing), Arc::clone(&missing));
        // The census cannot be read while anything is missing.
        let told = |missing: &Mutex<Vec<String>>| -> Telling {
            let census = missing.lock().unwrap().is_empty().then(|| "{}\n".to_owned());
            Box::pin(async { census })
        };
        let state = State {
            registry: Arc::new(registry),
            ready: Arc::new(move || listed.lock().unwrap().clone()),
            blind: Arc::new(move || told(&asked)),
            policy: Arc::new(|| Some("{\"revision\":\"a\"}\n".to_owned())),
            servers: Arc::new(|| Some("{\"apps\":[]}\n".to_owned())),
            jwks: {
                let missing = Arc::clone(&missing);
                Arc::new(move || missing.lock().unwrap().is_empty().then(|| Bytes::from_static(b"{\"keys\":[]}")))
            },
            reload: {
                let (missing, reloads) = (Arc::clone(&missing), Arc::clone(&reloads));
                Arc::new(move || {
                    reloads.fetch_add(1, SeqCst);
                    let missing = missing.lock().unwrap().first().cloned();
                    Box::pin(async move {
                        match missing.as_deref() {
                            None => Some(Ok("{\"revision\":\"b\"}\n".to_owned())),
                            Some("stopping") => None,
                            Some(_) => Some(Err("{\"errors\":[]}\n".to_owned())),
                        }
                    })
                })
            },
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let office = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                serve(TcpListener::from_std(listener).unwrap(), state, async { drop(stopped.await) }).await;
            });
        });
        Running { address, missing, reloads, stop: Some(stop), office: Some(office) }
    }

    impl Running {
        fn connect(&self) -> Client {
            let client = Client::connect(self.address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client
        }

        /// Sends `bytes` and reads until the listener closes.
        fn raw(&self, bytes: &str) -> String {
            let mut client = self.connect();
            client.write_all(bytes.as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        }

        fn ask(&self, method: &str, path: &str, host: &str) -> (u16, String) {
            let answer = self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            (answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
        }

        fn get(&self, path: &str) -> (u16, String) {
            self.ask("GET", path, &self.address.to_string())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.stop.take());
            self.office.take().map(std::thread::JoinHandle::join);
        }
    }

    #[test]
    fn metrics_in_the_text_format() {
        let (status, answer) = running().get("/metrics");
        assert_eq!(status, 200);
        assert!(answer.contains("content-type: text/plain; version=0.0.4\r\n"), "{answer}");
        assert!(
            answer.ends_with("# HELP vestibule_test_total A counter.\n# TYPE vestibule_test_total counter\nvestibule_test_total 1\n"),
            "{answer}"
        );
    }

    #[test]
    fn health() {
        let admin = running();
        assert_eq!((admin.get("/livez").0, admin.get("/readyz").0), (200, 200));
        *admin.missing.lock().unwrap() = vec!["draining".into(), "the store cannot be read".into()];
        let (status, answer) = admin.get("/readyz");
        assert_eq!(status, 503);
        assert!(answer.ends_with("\r\n\r\nnot ready:\n- draining\n- the store cannot be read\n"), "{answer}");
        assert_eq!(admin.get("/livez").0, 200, "live while not ready");
    }

    #[test]
    fn the_census_or_that_it_cannot_be_read() {
        let admin = running();
        let (status, answer) = admin.get("/api/v1/devices/blind");
        assert!(status == 200 && answer.contains("content-type: application/json\r\n") && answer.ends_with("\r\n\r\n{}\n"), "{answer}");
        *admin.missing.lock().unwrap() = vec!["the store cannot be read".into()];
        assert_eq!(admin.get("/api/v1/devices/blind").0, 503);
    }

    #[test]
    fn only_reading_and_only_these_paths() {
        let admin = running();
        let (status, answer) = admin.get("/");
        assert_eq!(status, 404);
        assert!(["/metrics", "/livez", "/readyz", "/api/v1/devices/blind"].iter().all(|path| answer.contains(path)), "{answer}");
        for (method, path) in
            [("POST", "/metrics"), ("DELETE", "/livez"), ("OPTIONS", "/"), ("PUT", "/nothing"), ("POST", "/api/v1/policy")]
        {
            let (status, answer) = admin.ask(method, path, "localhost");
            assert!(status == 405 && answer.contains("allow: GET, HEAD\r\n"), "{method} {path}: {answer}");
        }
        let (status, answer) = admin.ask("HEAD", "/livez", "localhost");
        assert!(status == 200 && answer.contains("content-length: 3\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("cache-control: no-store\r\n") && answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
    }

    #[test]
    fn the_policy_is_told_and_taken_anew() {
        let admin = running();
        let (status, answer) = admin.get("/api/v1/policy");
        assert!(
            status == 200 && answer.contains("content-type: application/json\r\n") && answer.ends_with("{\"revision\":\"a\"}\n"),
            "{answer}"
        );
        let (status, answer) = admin.get("/api/v1/servers");
        assert!(status == 200 && answer.contains("content-type: application/json\r\n") && answer.ends_with("{\"apps\":[]}\n"), "{answer}");
        let reload = |admin: &Running| admin.ask("POST", "/api/v1/reload", "localhost");
        let (status, answer) = reload(&admin);
        assert!(status == 200 && answer.ends_with("\r\n\r\n{\"revision\":\"b\"}\n"), "{answer}");
        *admin.missing.lock().unwrap() = vec!["a bad file".into()];
        let (status, answer) = reload(&admin);
        assert!(
            status == 422 && answer.contains("content-type: application/json\r\n") && answer.ends_with("{\"errors\":[]}\n"),
            "{answer}"
        );
        *admin.missing.lock().unwrap() = vec!["stopping".into()];
        assert_eq!(reload(&admin).0, 503);
        assert_eq!(admin.reloads.load(SeqCst), 3);
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let (status, answer) = admin.ask(method, "/api/v1/reload", "localhost");
            assert!(status == 405 && answer.contains("allow: POST\r\n"), "{method}: {answer}");
        }
        assert_eq!(admin.ask("POST", "/api/v1/reload", "evil.example").0, 421);
        assert_eq!(admin.reloads.load(SeqCst), 3);
    }

    #[test]
    fn a_page_from_elsewhere_reloads_nothing() {
        let admin = running();
        let ask = |fields: &str| {
            let answer = admin.raw(&format!("POST /api/v1/reload HTTP/1.1\r\nHost: localhost:9470\r\nContent-Length: 0\r\n{fields}\r\n"));
            answer[9..12].parse::<u16>().unwrap()
        };
        for fields in [
            "Origin: https://evil.example\r\n",
            "Origin: null\r\n",
            "Origin: http://localhost\r\n",
            "Origin: https://localhost:9470\r\n",
            "Origin: http://localhost:9470\r\nOrigin: http://localhost:9470\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
            "Origin: http://localhost:9470\r\nSec-Fetch-Site: cross-site\r\n",
            "Origin: \r\n",
        ] {
            assert_eq!(ask(fields), 403, "{fields}");
        }
        assert_eq!(admin.reloads.load(SeqCst), 0);
        for fields in [
            "",
            "Origin: http://localhost:9470\r\n",
            "Sec-Fetch-Site: none\r\n",
            "Origin: http://LOCALHOST:9470\r\nSec-Fetch-Site: same-origin\r\n",
        ] {
            assert_eq!(ask(fields), 200, "{fields}");
        }
        assert_eq!(admin.reloads.load(SeqCst), 4);
    }

    #[test]
    fn a_body_is_ignored_up_to_a_bound() {
        let admin = running();
        let ask = |length: usize, body: &str| {
            admin.raw(&format!("POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"))
        };
        assert!(ask(7, "{a: [1]").starts_with("HTTP/1.1 200 "));
        let many = "x".repeat(BODY + 1);
        assert!(ask(BODY, &many[1..]).starts_with("HTTP/1.1 200 "));
        assert_eq!(admin.reloads.load(SeqCst), 2);
        assert!(ask(BODY + 1, &many).starts_with("HTTP/1.1 413 "));
        let chunked = format!(
            "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{many}\r\n0\r\n\r\n",
            many.len()
        );
        assert!(admin.raw(&chunked).starts_with("HTTP/1.1 413 "));
        assert_eq!(admin.reloads.load(SeqCst), 2);
    }

    #[test]
    fn dns_rebinding_is_misdirected() {
        let admin = running();
        for host in ["localhost", "LOCALHOST:9470", "127.0.0.1", "127.8.9.1:1", "[::1]", "[::1]:9470", "[::ffff:127.0.0.1]"] {
            assert_eq!(admin.ask("GET", "/metrics", host).0, 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9470", "10.0.0.1", "[2001:db8::1]", "localhost."] {
            assert_eq!(admin.ask("GET", "/metrics", host).0, 421, "{host}");
        }
        for host in ["", "a b", "evil@localhost", "localhost:x:y", "localhost\r\nHost: localhost", "[::1"] {
            assert_eq!(admin.ask("GET", "/livez", host).0, 400, "{host}");
        }
        assert!(admin.raw("GET /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(admin.raw("GET /livez HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "), "a balancer's health check");
        assert!(admin.raw("GET http://evil.example/livez HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 421 "));
        assert!(admin.raw("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_slow_client_is_cut_and_holds_up_nobody() {
        let admin = running();
        let mut slow = admin.connect();
        slow.write_all(b"GET /livez HTTP/1.1\r\nHost: local").unwrap();
        assert_eq!(admin.get("/livez").0, 200);
        let begun = std::time::Instant::now();
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest);
        assert!(begun.elapsed() < HEAD * 3 && !rest.starts_with(b"HTTP/1.1 200"), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let admin = running();
        let mut client = admin.connect();
        let field = format!("x-a: {}\r\n", "a".repeat(1000));
        let _ = client.write_all(format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}", field.repeat(64)).as_bytes());
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(admin.get("/livez").0, 200);
    }

    #[test]
    fn one_client_too_many_is_closed() {
        let admin = running();
        let waiting: Vec<Client> = (0..VISITS).map(|_| admin.connect()).collect();
        let mut answer = Vec::new();
        let _ = admin.connect().read_to_end(&mut answer);
        assert!(answer.is_empty());
        drop(waiting);
    }

    /// In a process of its own, since the limit is the process's.
    #[test]
    fn out_of_descriptors_health_still_answers() {
        let own = std::env::current_exe().unwrap();
        let run = "ulimit -n 64; exec \"$0\" --exact admin::tests::without_descriptors --ignored --test-threads 1";
        let output = std::process::Command::new("sh").args(["-c", run]).arg(own).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    #[ignore = "run by out_of_descriptors_health_still_answers"]
    fn without_descriptors() {
        let admin = running();
        assert_eq!(admin.get("/livez").0, 200);
        let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(4096).collect();
        for _ in 0..3 {
            drop(taken.pop()); // the client's end
            assert_eq!(admin.get("/livez").0, 200);
            taken.extend(File::open("/dev/null"));
        }
    }

    #[test]
    fn it_stops_when_told_though_a_client_waits() {
        let admin = running();
        let mut waiting = admin.connect();
        assert_eq!(admin.get("/livez").0, 200);
        let begun = std::time::Instant::now();
        drop(admin);
        assert!(begun.elapsed() < HEAD, "{:?}", begun.elapsed());
        assert!(matches!(waiting.read(&mut [0]), Ok(0) | Err(_)));
    }
}
