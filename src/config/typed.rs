//! The configuration as the program uses it: every path absolute, every default filled in.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;

use crate::fingerprint::Known;
use crate::model::{Effect, Host};
use crate::policy::AppId;
use crate::policy::draft::Draft;
use crate::request::PathOptions;

#[derive(Clone, Debug)]
pub struct Configuration {
    /// All files that were read, in order: the main file, then the owners' files.
    pub files: Vec<PathBuf>,
    /// Where owners' files are looked for: a new one there is a change of the configuration.
    pub policy_dir: Option<PathBuf>,
    /// At least 1.
    pub workers: usize,
    pub listeners: Vec<Listener>,
    pub admin: Admin,
    pub limits: Limits,
    pub store: Store,
    pub decision_log: Option<DecisionLog>,
    pub fingerprints: Fingerprints,
    pub assertion: Assertion,
    /// The table of known signatures, the operator's rows included.
    pub known: Arc<Known>,
    pub policy: Draft,
    /// One an app, in the order of `policy.apps`: the index is the `AppId`.
    pub routes: Vec<Route>,
    /// Of all files, in their order. They are checked for form alone; whoever runs them finds out whether the policy meets them.
    pub tests: Vec<PolicyTest>,
}

/// One of `tests:`: what the policy is to decide.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    /// `FILE:LINE:COLUMN`.
    pub at: String,
    /// `tests[3]`, or the test's own name.
    pub name: String,
    pub app: AppId,
    /// Signals and their values, as `explain --set` takes them, in the order of the file.
    pub given: Vec<(String, String)>,
    pub expect: Expect,
}

/// What a test asks for; what is `None` may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    pub effect: Option<Effect>,
    /// The effect were nothing in report mode.
    pub would: Option<Effect>,
    /// The names of all restrictions, in any order.
    pub with: Option<Vec<String>>,
    pub rule: Option<String>,
    pub class: Option<String>,
    pub tier: Option<String>,
    /// Among the reasons.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    /// At least one.
    pub bind: Vec<SocketAddr>,
    pub tls: Option<Tls>,
    /// Every request is answered with a redirect to the same host and path over HTTPS. Never together with `tls`.
    pub redirect_to_https: bool,
    /// Whose connections begin with a PROXY protocol header, and who alone may connect. `None`: off.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// `None`: nobody is believed.
    pub forwarded: Option<Forwarded>,
    /// The proxies that ask whether to carry a request. `None`: the listener carries requests itself.
    pub forward_auth: Option<Vec<IpNet>>,
}

/// Proxies in front that speak for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// At least one.
    pub trusted: Vec<IpNet>,
    /// CAs and CRLs of certificates in `Client-Cert`; the listener's own where it says none. Without a CA the field is not read.
    pub client_ca: Vec<PathBuf>,
    pub client_crl: Vec<PathBuf>,
}

/// Who signs assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The claim `iss`.
    pub issuer: String,
    /// The folder of signing keys.
    pub keys: PathBuf,
    /// How long a key signs.
    pub rotate: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first serves clients without, or with an unknown, SNI.
    pub certificates: Vec<CertificateFiles>,
    /// Empty: client certificates are not asked for.
    pub client_ca: Vec<PathBuf>,
    pub client_crl: Vec<PathBuf>,
    pub ask_certificate: AskCertificate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Hosts (by SNI) whose visitors are not asked for a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskCertificate {
    pub except: Vec<Host>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub bind: SocketAddr,
}

/// `limits:`, each with its documented default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the TLS handshake. 10 s.
    pub handshake: Duration,
    /// From the first byte waited for to the end of a request's head. 10 s.
    pub request_head: Duration,
    /// Bytes of a request's head. 32 KiB.
    pub head_size: usize,
    /// Fields in a request's head. 100.
    pub head_fields: usize,
    /// A connection without a request. 60 s.
    pub idle: Duration,
    /// Concurrent HTTP/2 streams of one connection. 100.
    pub h2_streams: u32,
    /// Connections of all listeners together. 65,536.
    pub connections: usize,
    /// Connections of one peer address. 4,096.
    pub connections_per_peer: usize,
    /// Bytes of a ClientHello. 16 KiB.
    pub client_hello: usize,
    pub proxy_header: usize,
    /// Bytes of a request's body, unless the app's restrictions say less. None by default: unlimited.
    pub body_size: Option<u64>,
    /// Bytes of a request's body that are worth another second's wait. 100.
    pub body_rate: u64,
    /// How long a proxy that is told to stop goes on accepting, while it says that it is not ready. 0.
    pub drain_delay: Duration,
    /// How long a stopping proxy lets running requests finish. 30 s.
    pub drain: Duration,
    /// Idle upstream connections kept for one server and worker. 64.
    pub upstream_idle: usize,
    /// Upstream connections of one server and worker, busy and idle; beyond it a request waits up to the connect timeout. 1,024.
    pub upstream_connections: usize,
    /// Requests of one app and worker that wait for an upstream connection at once. 1,024.
    pub upstream_waiting: usize,
    /// An upstream connection is not reused after this age. 10 min.
    pub upstream_max_age: Duration,
    /// Lines of the decision log that may wait for the disk. 65,536.
    pub log_queue: usize,
    /// Entries of the table that counts requests against `requests:` restrictions. 100,000.
    pub rate_entries: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The SQLite file of `sqlite://PATH`.
    pub path: PathBuf,
    pub lookup_timeout: Duration,
    pub cache: Cache,
    /// `when_down.serve_stale`.
    pub serve_stale: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub entries: u64,
    pub ttl: Duration,
    pub negative_ttl: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionLog {
    pub target: LogTarget,
    /// Bytes after which a file is renamed to `<path>.1` and begun anew.
    pub rotate: u64,
    /// When the log cannot be written, requests are refused with 503 rather than answered unlogged.
    pub required: bool,
}

/// `fingerprints:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// The operator's table of known signatures.
    pub known: Option<PathBuf>,
    /// Compute JA3 as well.
    pub ja3: bool,
    /// The value of `Accept-CH`. `None`: nothing is asked.
    pub accept_ch: Option<HeaderValue>,
    pub memory: Memory,
}

/// What is remembered of devices: `fingerprints.hash`, `.baseline` and `.census`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub hash: Hash,
    pub baseline: Baseline,
    pub census: Census,
}

/// Whose fingerprints the store keeps as keyed hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hash {
    #[default]
    Personal,
    All,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// 7 d.
    pub learn: Duration,
    /// Percent: 10.
    pub fleet_share: usize,
    /// 3.
    pub fleet_devices: usize,
    /// 14 d.
    pub fleet_window: Duration,
    /// 30 d.
    pub clear_after: Duration,
    /// 90 d.
    pub keep: Duration,
    /// Devices: 100,000.
    pub entries: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Groups: 10,000.
    pub entries: usize,
    /// 30 d.
    pub keep: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    StandardOutput,
    File(PathBuf),
}

/// What `forward` needs to know of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub app: Arc<str>,
    pub upstream: Upstream,
    pub path: PathOptions,
    pub fingerprint_headers: FingerprintHeaders,
    /// The app receives `Vestibule-Jwt-Assertion`.
    pub assertion: bool,
    /// The app receives `Client-Cert`.
    pub client_cert: bool,
    /// Trailers of requests pass on.
    pub request_trailers: bool,
    /// What a request may switch to, in lower case: `websocket`.
    pub upgrades: Vec<String>,
}

/// Whose names the headers have that tell an app what its client's connection shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FingerprintHeaders {
    #[default]
    None,
    Vestibule,
    Fingerproxy,
    Huginn,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// At least one.
    pub servers: Vec<Server>,
    pub protocol: Protocol,
    pub tls: UpstreamTls,
    pub proxy_protocol: ProxyProtocol,
    pub host: HostHeader,
    pub balance: Balance,
    /// `None`: no active checks.
    pub health: Option<Health>,
    pub ejection: Ejection,
    /// Zero: a server that comes back takes its whole share at once.
    pub slow_start: Duration,
    /// Names are looked up again after this.
    pub resolve_every: Duration,
    pub timeouts: Timeouts,
}

/// An app's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// As written, for metrics and logs.
    pub url: Arc<str>,
    /// `https://`.
    pub tls: bool,
    pub at: At,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    Tcp {
        /// Name or address (without brackets), resolved when connecting.
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// What an app's servers speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

/// How `https://` servers are verified; always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Empty: the system's.
    pub ca: Vec<PathBuf>,
    /// `None`: the host of each server's URL.
    pub server_name: Option<Host>,
    pub certificate: Option<CertificateFiles>,
}

/// The header that begins a connection to an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    #[default]
    Off,
    V1,
    V2,
}

/// The Host that the app receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    Keep,
    Server,
    Name(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    #[default]
    RoundRobin,
    LeastRequests,
    /// By device, or peer address where there is none.
    Hash,
}

/// Active checks of each server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// A canonical path, with its query.
    pub path: String,
    /// What is asked for where the app receives the client's own Host: the first of the app's hosts that is not a wildcard.
    pub host: Option<String>,
    pub every: Duration,
    pub timeout: Duration,
    /// Codes of a healthy server.
    pub status: Vec<RangeInclusive<u16>>,
    pub rise: u32,
    pub fall: u32,
}

/// What requests show of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// In a row. 0: never.
    pub failures: u32,
    /// The first time; doubled each further time.
    pub time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// 2 s.
    pub connect: Duration,
    /// From the request's last byte (or the app's last byte) to the response head. 30 s.
    pub response: Duration,
    /// A body, either way, that stands still; and how long an unused upstream connection is kept. 60 s.
    pub idle: Duration,
    /// An upgraded connection on which nothing moves. 1 h.
    pub tunnel: Duration,
}
