//! Every metric, its labels and its buckets. Label values come from closed enums or from the configuration, never from request text.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Upper bounds in seconds, ascending; `+Inf` is implied.
    Histogram(&'static [f64]),
}

#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
}

const DECISION_SECONDS: &[f64] = &[100e-9, 250e-9, 500e-9, 1e-6, 2.5e-6, 5e-6, 10e-6, 50e-6, 250e-6, 1e-3, 10e-3, 0.1];
const REQUEST_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

macro_rules! metrics {
    ($($ident:ident = $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)+) => {
        $(pub static $ident: Metric = Metric { name: $name, help: $help, kind: $kind, labels: &[$($label),*] };)+

        /// All of them, for the reference and its test.
        pub static ALL: &[&Metric] = &[$(&$ident),+];
    };
}

metrics! {
    REQUESTS = Kind::Counter, "vestibule_requests_total", ["app", "effect", "status"],
        "Answers sent, by the effect that was done and the status; 499 is a client that left first.";
    DECISIONS = Kind::Counter, "vestibule_decisions_total", ["app", "effect", "class", "tier", "reason", "owner", "mode"],
        "Decisions, one per answer; in report mode the effect that would have been.";
    DECISION_DURATION = Kind::Histogram(DECISION_SECONDS), "vestibule_decision_duration_seconds", [],
        "Time to decide one request, memoised or not.";
    REQUEST_DURATION = Kind::Histogram(REQUEST_SECONDS), "vestibule_request_duration_seconds", ["app", "effect"],
        "Time from a request's head to the last byte of its answer.";
    UPSTREAM_DURATION = Kind::Histogram(REQUEST_SECONDS), "vestibule_upstream_duration_seconds", ["app"],
        "Time from sending a request to an app to the head of its response.";
    UPSTREAM_UP = Kind::Gauge, "vestibule_upstream_up", ["app", "server"],
        "1 when an address of this server takes requests and took the last connection, 0 when none does.";
    UPSTREAM_REQUESTS = Kind::Counter, "vestibule_upstream_requests_total", ["app", "server", "result"],
        "What became of requests at each server.";
    UPSTREAM_RUNNING = Kind::Gauge, "vestibule_upstream_running", ["app", "server"],
        "Requests at each server, until the end of their answers.";
    UPSTREAM_RETRIES = Kind::Counter, "vestibule_upstream_retries_total", ["app", "server", "reason"],
        "Requests that went on from this server to another, or were sent to it once more.";
    UPSTREAM_CONNECTIONS = Kind::Gauge, "vestibule_upstream_connections", ["app", "server", "state"],
        "Connections to each server, idle and busy.";
    UPSTREAM_ADDRESSES = Kind::Gauge, "vestibule_upstream_addresses", ["app", "server", "state"],
        "Addresses of each server by whether they take requests: up, ejected or down.";
    UPSTREAM_EJECTIONS = Kind::Counter, "vestibule_upstream_ejections_total", ["app", "server"],
        "How often an address of this server was ejected.";
    UPSTREAM_CHECKS = Kind::Counter, "vestibule_upstream_checks_total", ["app", "server", "result"],
        "Health checks by result.";
    UPSTREAM_LOOK_UPS = Kind::Counter, "vestibule_upstream_look_ups_total", ["app", "server", "result"],
        "Look-ups of servers' names; after a failed one the addresses known before stay in use.";
    UPSTREAM_RESOLVED = Kind::Gauge, "vestibule_upstream_resolved", ["app", "server"],
        "1 when the last look-up of this server's name found addresses, 0 when it did not; none for an address.";
    UPSTREAM_WAITING = Kind::Gauge, "vestibule_upstream_waiting", ["app"],
        "Requests that wait for a connection to any server of the app.";
    UPSTREAM_WAITS = Kind::Counter, "vestibule_upstream_waits_total", ["app", "result"],
        "Requests that found all permitted connections in use, by what became of them.";
    BYTES = Kind::Counter, "vestibule_bytes_total", ["app", "class", "direction"],
        "Body bytes: in from clients, out to clients.";
    STREAMS_CUT = Kind::Counter, "vestibule_streams_cut_total", ["reason"],
        "Answers and tunnels that ended before they were whole, but for those whose client left.";
    CONNECTIONS = Kind::Gauge, "vestibule_connections", ["listener"],
        "Open client connections.";
    ACCEPTING_PAUSED = Kind::Gauge, "vestibule_accepting_paused", ["listener"],
        "Sockets of each listener, one a worker and address, that take no connections for now, for lack of file descriptors or memory.";
    REJECTED = Kind::Counter, "vestibule_rejected_total", ["reason"],
        "Connections ended and bytes that never became a request.";
    TLS_HANDSHAKES = Kind::Counter, "vestibule_tls_handshakes_total", ["result"],
        "TLS handshakes by result.";
    FINGERPRINTS = Kind::Counter, "vestibule_fingerprints_total", ["layer", "result"],
        "Layers looked at, per connection: read, unavailable or malformed.";
    CONTRADICTIONS = Kind::Counter, "vestibule_contradictions_total", ["kind"],
        "Connections on which claims or record contradicted the wire, once for each kind.";
    POSTURE_CACHE = Kind::Counter, "vestibule_posture_cache_total", ["result"],
        "Device look-ups by how the cache answered.";
    POSTURE_AGE = Kind::Gauge, "vestibule_posture_age_seconds", ["source"],
        "Age of the newest observation of each posture source in the store.";
    STORE_UP = Kind::Gauge, "vestibule_store_up", [],
        "1 when the device store answered last, 0 when it did not.";
    STORE_LAG = Kind::Gauge, "vestibule_store_lag_seconds", [],
        "Time since the store's feed of changes was last read to its end.";
    DEVICES_SEEN = Kind::Gauge, "vestibule_devices_seen", ["class"],
        "Devices seen within the census' retention, by class; of the blind an estimate.";
    DEVICES_DRIFTING = Kind::Gauge, "vestibule_devices_drifting", [],
        "Devices with a drift that nobody cleared.";
    DRIFT = Kind::Counter, "vestibule_drift_total", ["event"],
        "Drifts: raised, and ended because the fleet made the same change or because they settled.";
    MEMORY_OVERFLOW = Kind::Counter, "vestibule_memory_overflow_total", ["table"],
        "Sightings of devices that found no room in the baseline, and groups of the census that made room.";
    CONFIG_RELOAD = Kind::Counter, "vestibule_config_reload_total", ["result"],
        "Configuration reloads; a failed one leaves the old configuration in force.";
    CONFIG_LAST_GOOD = Kind::Gauge, "vestibule_config_last_good_timestamp_seconds", [],
        "When the configuration in force was loaded.";
    CONFIG_TAKEN = Kind::Gauge, "vestibule_config_last_reload_successful", [],
        "1 when the configuration in the files was taken when last looked at, 0 when an older one stays in force.";
    CERTIFICATE_EXPIRY = Kind::Gauge, "vestibule_certificate_expiry_timestamp_seconds", ["name"],
        "When each certificate or client CA (notAfter) and CRL (nextUpdate) of the configuration ends.";
    POLICY_INFO = Kind::Gauge, "vestibule_policy_info", ["revision"],
        "1 for the policy revision in force.";
    REPORT_FLIPS = Kind::Counter, "vestibule_report_flips_total", ["app", "from", "to"],
        "Requests whose effect would have changed were nothing in report mode.";
    EXCEPTIONS_USED = Kind::Counter, "vestibule_exceptions_used_total", ["exception"],
        "Answers whose decision an exception had part in.";
    EXCEPTION_EXPIRY = Kind::Gauge, "vestibule_exception_expiry_timestamp_seconds", ["exception"],
        "When each exception of the policy ends.";
    DECISION_LOG = Kind::Counter, "vestibule_decision_log_total", ["result"],
        "Lines of the decision log: written, dropped (queue full) or failed (disk).";
    DECISION_LOG_UP = Kind::Gauge, "vestibule_decision_log_up", [],
        "1 when the decision log was written last, 0 when it could not be; none without a log.";
    DRAINING = Kind::Gauge, "vestibule_draining", [],
        "1 while the proxy stops: it takes nothing new, and what runs may finish.";
    STALLED_WORKERS = Kind::Gauge, "vestibule_stalled_workers", [],
        "Workers that did not answer when they were last asked whether they make progress.";
    UPGRADES = Kind::Counter, "vestibule_upgrade_total", ["result"],
        "Upgrades in place: success in the process that came, failure in the one that had to stay.";
    ASSERTIONS = Kind::Counter, "vestibule_assertions_total", ["result"],
        "Assertions made for apps: signed, or failed and the request refused.";
    ASSERTION_KEYS = Kind::Counter, "vestibule_assertion_keys_total", ["event"],
        "Signing keys: made, retired, and looks at their folder that failed.";
    ASSERTION_KEYS_UP = Kind::Gauge, "vestibule_assertion_keys_up", [],
        "1 when the folder of signing keys was looked after when last looked at, 0 when it could not be; none without keys.";
    ASSERTION_KEY_DUE = Kind::Gauge, "vestibule_assertion_key_due_timestamp_seconds", [],
        "When the next key is to sign assertions.";
    PANICS = Kind::Counter, "vestibule_panics_total", [],
        "Connections ended by a fault of Vestibule's own.";
    BUILD_INFO = Kind::Gauge, "vestibule_build_info", ["version", "revision"],
        "1 for the running build.";
}
