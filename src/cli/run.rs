//! `vestibule run`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::failure::Failure;
use crate::site::{self, Program, Running, Serves};

/// Run the proxy
///
/// SIGHUP or a changed file reloads the configuration, all or nothing; SIGUSR1 reopens the decision log; SIGUSR2 starts the program anew, with the
/// sockets of this one, and ends this one when that serves; SIGTERM or SIGINT lets running requests finish and stops, a second one stops at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let program = Program::this()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anybody is told that it runs: a signal that nobody heeds yet ends the process.
    let signals = {
        let _in_runtime = runtime.enter();
        Signals::new()?
    };
    let running = site::start(&args.config)?;
    if !running.warnings().is_empty() {
        tracing::warn!("the configuration has warnings:\n{}", running.warnings());
    }
    announce(&running)?;
    running.ready();
    runtime.block_on(heed(Arc::new(running), signals, &program));
    Ok(())
}

/// One line for each address, then `ready`: for scripts that start the proxy and wait for it.
fn announce(running: &Running) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (listener, addr) in running.listeners() {
        writeln!(out, "listening {listener} {addr}")?;
    }
    writeln!(out, "listening admin {}", running.admin_addr())?;
    writeln!(out, "ready")?;
    out.flush()
}

struct Signals {
    hangup: Signal,
    reopen: Signal,
    upgrade: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// A second signal that somebody meant: `timeout` and some terminals send one signal twice, to the process and to its group.
    async fn again(&mut self) {
        let first = Instant::now();
        loop {
            self.end().await;
            if first.elapsed() >= Self::ECHO {
                return;
            }
        }
    }

    const ECHO: Duration = Duration::from_millis(5);
}

/// Why a running proxy ends.
enum End {
    Told,
    /// Another process serves in this one's place.
    Succeeded {
        by: u32,
        serves: Serves,
    },
}

/// Not in the way of signals: a reload that hangs in a file that does not answer keeps all who come after it waiting.
fn beside<T: Send + 'static>(running: &Arc<Running>, what: impl FnOnce(&Running) -> T + Send + 'static) -> JoinHandle<T> {
    let running = Arc::clone(running);
    tokio::task::spawn_blocking(move || what(&running))
}

async fn heed(running: Arc<Running>, mut signals: Signals, program: &Program) {
    let end = loop {
        tokio::select! {
            _ = signals.hangup.recv() => drop(beside(&running, Running::reload)), // said and counted there
            _ = signals.reopen.recv() => drop(beside(&running, Running::reopen_log)),
            _ = signals.upgrade.recv() => match upgrade(&running, &mut signals, program).await {
                Some(end) => break end,
                None => running.not_succeeded(),
            },
            _ = signals.terminate.recv() => break End::Told,
            _ = signals.interrupt.recv() => break End::Told,
        }
    };
    let axe = running.axe();
    let told = matches!(end, End::Told);
    let mut hurries = false;
    let stopping = match end {
        End::Told => {
            let delay = beside(&running, Running::leave);
            let delayed = async {
                let delay = delay.await.unwrap_or_default();
                if !delay.is_zero() {
                    tracing::info!(?delay, "not ready any more; accepting until balancers have noticed");
                    tokio::time::sleep(delay).await;
                }
            };
            // A second signal within it ends it, and the connections too.
            tokio::select! {
                () = delayed => {}
                () = signals.again() => hurries = true,
            }
            tracing::info!("stopping: running requests may finish");
            beside(&running, Running::stop)
        }
        End::Succeeded { by, serves } => {
            tracing::info!(by, "another process serves; running requests may finish here");
            beside(&running, move |running| running.hand_over(by, &serves))
        }
    };
    drop(running);
    let stopped = async {
        match stopping.await.unwrap_or(0) {
            0 => tracing::info!("stopped"),
            cut => tracing::warn!(cut, "stopped; limits.drain was over, or a second signal came, before all connections had ended"),
        }
    };
    let hurried = async {
        // Whoever stops the service tells all of its processes; one that ends already has nothing more to do at the first word.
        if !told {
            signals.end().await;
        }
        if !hurries {
            signals.again().await;
        }
        tracing::warn!("a second signal: what runs is cut");
        axe.fall();
        // The last lines of the log may wait for a disk that does not answer; nobody waits for that twice.
        tokio::select! {
            () = signals.again() => {}
            () = tokio::time::sleep(LAST_WORDS) => {}
        }
    };
    tokio::select! {
        () = stopped => {}
        () = hurried => {
            tracing::warn!("stopped at once; lines of the decision log may be missing");
            std::process::exit(0);
        }
    }
}

/// How long the last lines of the decision log may take after a second signal.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Has the program that is at this one's path take its place. `None`: it did not, and all is as before.
async fn upgrade(running: &Arc<Running>, signals: &mut Signals, program: &Program) -> Option<End> {
    tracing::info!("starting the program anew, in this one's place");
    running.succeeding(true);
    let program = program.clone();
    let mut starting = beside(running, move |running| running.succeed(&program));
    let started = tokio::select! {
        started = &mut starting => started.ok()?,
        () = signals.end() => {
            // One that is on its way all the same ends as nobody takes it.
            return Some(End::Told);
        }
    };
    let mut successor = match started {
        Ok(successor) => successor,
        Err(error) => {
            tracing::error!(%error, "the program cannot be started anew; this one goes on");
            return None;
        }
    };
    let by = successor.pid();
    let line = tokio::task::spawn_blocking(successor.line());
    let serves = tokio::select! {
        serves = line => serves.ok().flatten(),
        () = signals.end() => {
            return Some(End::Told);
        }
    };
    match serves {
        Some(serves) => {
            successor.serves();
            Some(End::Succeeded { by, serves })
        }
        None => {
            let error = tokio::task::spawn_blocking(move || successor.gone()).await.ok()?;
            tracing::error!(%error, "the program was not replaced; this one goes on");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};

    use super::*;
    use crate::cli::lab_ca::LabCa;
    use crate::cli::scrape;

    /// An app that answers `ok`, and how many requests it had.
    fn app() -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                    while lines.by_ref().any(|line| line.is_empty()) {
                        counted.fetch_add(1, SeqCst);
                        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                    }
                });
            }
        });
        (address, count)
    }

    fn metric(running: &Running, name: &str) -> f64 {
        let address = running.admin_addr();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let samples = scrape::read(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// It is counted a moment after the connection's end.
    fn panicked(running: &Running, times: f64) {
        let end = Instant::now() + Duration::from_secs(20);
        while metric(running, "vestibule_panics_total") < times {
            assert!(Instant::now() < end, "a fault is counted");
        }
        assert!(metric(running, "vestibule_panics_total") <= times);
    }

    fn request(stream: &mut TcpStream, more: &str) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{more}\r\n").as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        while !bytes.ends_with(b"ok") {
            match stream.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(read) => bytes.extend_from_slice(part.get(..read).unwrap()),
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_configuration_is_taken_while_the_proxy_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let text = "version: 1\nworkers: 1\nlisteners:\n  - {name: plain, bind: ['127.0.0.1:0']}\nadmin: {bind: '127.0.0.1:0'}\n\
             store: {url: 'sqlite://v.db'}\nowners: {it: {contact: it}}\nclasses: [{name: every, when: {}}]\ntiers: [{name: none}]\n\
             apps:\n  - {name: a, owner: it, hosts: [a.example], upstream: {servers: ['http://192.0.2.1:80']}, rules: [{name: all, then: forward}]}\n";
        let file = folder.path().join("v.yaml");
        std::fs::write(&file, text).unwrap();
        let running = site::start(&file).unwrap();
        running.reload().unwrap();
        running.succeeding(true);
        assert!(matches!(running.reload(), Err(site::Error::Leaving)), "the next process has its sockets already");
        running.not_succeeded();
        running.reload().unwrap();
        running.leave();
        assert!(matches!(running.reload(), Err(site::Error::Leaving)));
        running.stop();
        assert!(matches!(running.reload(), Err(site::Error::Leaving)), "no socket is opened that nobody empties");
        assert!(running.listeners().is_empty());
    }

    #[test]
    fn a_fault_of_ours_ends_its_connection_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let ca = LabCa::create(&folder.path().join("certs"), &["a.example".to_owned()], false).unwrap();
        let (app, asked) = app();
        let text = format!(
            "version: 1\nworkers: 1\nlisteners:\n  - {{name: plain, bind: ['127.0.0.1:0']}}\n  - name: edge\n    bind: ['127.0.0.1:0']\n    \
             tls: {{certificates: [{{cert: certs/edge.pem, key: certs/edge.key}}]}}\nadmin: {{bind: '127.0.0.1:0'}}\n\
             store: {{url: 'sqlite://v.db'}}\nowners: {{it: {{contact: it}}}}\nclasses: [{{name: every, when: {{}}}}]\ntiers: [{{name: none}}]\n\
             apps:\n  - {{name: a, owner: it, hosts: [a.example], upstream: {{servers: ['http://{app}']}}, rules: [{{name: all, then: forward}}]}}\n"
        );
        let file = folder.path().join("v.yaml");
        std::fs::write(&file, text).unwrap();
        let running = site::start(&file).unwrap();
        let (plain, edge) = (running.edge_addr("plain").unwrap(), running.edge_addr("edge").unwrap());
        let mut other = TcpStream::connect(plain).unwrap();
        assert!(request(&mut other, "").starts_with("HTTP/1.1 200 "));

        let mut faulty = TcpStream::connect(plain).unwrap();
        assert!(request(&mut faulty, "").starts_with("HTTP/1.1 200 "));
        assert_eq!(request(&mut faulty, "X-Fault: yes\r\n"), "", "it ends without an answer");
        assert_eq!(asked.load(SeqCst), 2, "and nothing of it reaches the app");
        panicked(&running, 1.0);
        assert!(request(&mut other, "").starts_with("HTTP/1.1 200 "), "others on the same worker go on");

        // Over HTTP/2 the connection ends with the stream, and the others on it.
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca.edge_ca()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(edge).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let tls = connector.connect(ServerName::try_from("a.example").unwrap(), socket).await.unwrap();
            let (mut send, connection) = h2::client::handshake(tls).await.unwrap();
            let connection = tokio::spawn(connection);
            let ask = |fault: bool| {
                let request = http::Request::get("https://a.example/");
                if fault { request.header("x-fault", "yes") } else { request }.body(()).unwrap()
            };
            let (answer, _) = send.send_request(ask(false), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
            let (answer, _) = send.send_request(ask(true), true).unwrap();
            answer.await.unwrap_err();
            let ended = tokio::time::timeout(Duration::from_secs(20), connection).await;
            assert!(ended.is_ok(), "the connection ends");
        });
        assert_eq!(asked.load(SeqCst), 4);
        panicked(&running, 2.0);
        assert!(request(&mut other, "").starts_with("HTTP/1.1 200 "));
        drop((other, faulty));
        assert_eq!(running.stop(), 0, "no connection is left behind");
    }
}
