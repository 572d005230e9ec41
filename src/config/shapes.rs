//! Every key of the configuration: its kind, its default, its meaning. The checker, the JSON Schema and the reference read this table.

mod fingerprints;
mod policy;
mod upstream;

pub use self::fingerprints::{BASELINE, CENSUS, FINGERPRINTS, NETWORK};
pub use self::policy::{DELEGATION, EXCEPTION, EXPECTED, GUARDRAIL, LADDER, PATHS, RESTRICTION, TEST};
pub use self::upstream::{ASSERTION, EJECTION, FORWARD_AUTH, FORWARDED, HEALTH, PATH, PROXY_PROTOCOL, TIMEOUTS, UPSTREAM, UPSTREAM_TLS};
use super::shape::Kind::{Apps, Bandwidth, Condition, Count, CountOr, Duration, Flag, List, Map, Name, Size, Some, Text, Word};
use super::shape::Need::{Absent, Default, Required};
use super::shape::{Key, Kind, Need, Shape};

const fn key(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Key {
    Key { name, kind, need, doc }
}

const NAMES: Kind = List(&Name);
const MODE: Kind = Word(&["enforce", "report"]);
const EFFECT: Kind = Word(&["forward", "restrict", "block"]);

pub static ROOT: Shape = Shape {
    name: "configuration",
    doc: "The main file. Relative paths are relative to its folder.",
    keys: &[
        key("version", Count { min: 1, max: 1 }, Required, "The version of this format."),
        key(
            "time_zone",
            Text("time zone"),
            Default("UTC"),
            "The IANA name of the zone in which `time.weekday` and `time.hour` read the clock, and in which dates without a time begin and end: `Europe/Berlin`. `EST` and the like have no summer time: write `America/New_York`.",
        ),
        key("workers", CountOr("auto", 1, 1024), Default("auto"), "Single-threaded workers. `auto`: one per CPU that the process may use."),
        key("listeners", Some(&Kind::Shape(&LISTENER)), Required, "Where clients connect."),
        key(
            "admin",
            Kind::Shape(&ADMIN),
            Absent("the defaults of its keys"),
            "The admin listener: metrics, health, reload, and what is in force (`docs/admin.md`).",
        ),
        key("limits", Kind::Shape(&LIMITS), Absent("the defaults of its keys"), "Limits on what clients and apps can cost."),
        key("store", Kind::Shape(&STORE), Required, "The device store."),
        key("decision_log", Kind::Shape(&DECISION_LOG), Absent("no decision log"), "One JSON line a request."),
        key(
            "owners",
            Map(&Kind::Shape(&OWNER)),
            Required,
            "The teams that answer for apps and rules. Guardrails belong to the owner `security`, if there is one.",
        ),
        key(
            "networks",
            Map(&Kind::Either(&Some(&Text("network")), &NETWORK)),
            Absent("no named networks"),
            "Names for address ranges, read as `net.zone`; the narrowest range that holds the peer gives the name.",
        ),
        key(
            "fingerprints",
            Kind::Shape(&FINGERPRINTS),
            Absent("the defaults of its keys"),
            "What connections show of the programs behind them.",
        ),
        key(
            "posture",
            Kind::Shape(&POSTURE),
            Absent("no sources: every fact is unknown"),
            "Who may state posture facts, and what people are told of them.",
        ),
        key(
            "classes",
            List(&Kind::Shape(&CLASS)),
            Absent("every device with a record is `unclassified`"),
            "Kinds of devices; the first that matches wins. Only a device with a record has one: without, it is `blind`.",
        ),
        key(
            "tiers",
            Some(&Kind::Shape(&TIER)),
            Required,
            "Levels of trust, lowest first; each requires also all that the lower ones require.",
        ),
        key("caps", List(&Kind::Shape(&CAP)), Absent("none"), "Conditions that lower the tier; a cap never raises it."),
        key("restrictions", Map(&Kind::Shape(&RESTRICTION)), Absent("none"), "Named restrictions for `with`; at most 64."),
        key("guardrails", List(&Kind::Shape(&GUARDRAIL)), Absent("none"), "Security's own rules, which no other rule can loosen."),
        key(
            "delegate",
            List(&Kind::Shape(&DELEGATION)),
            Absent("none: an owner's file can only make its apps stricter"),
            "Leave for an owner's file to loosen what the main file says of the owner's apps.",
        ),
        key(
            "exceptions",
            List(&Kind::Shape(&EXCEPTION)),
            Absent("none"),
            "What is overlooked for a while, for one device or tag. Each ends by itself.",
        ),
        key("apps", Some(&Kind::Shape(&APP)), Required, "What stands behind the proxy."),
        key(
            "assertion",
            Kind::Shape(&ASSERTION),
            Absent("the defaults of its keys"),
            "Who signs the JWT that apps with `assertion: true` receive.",
        ),
        key("tests", List(&Kind::Shape(&TEST)), Absent("none"), "What the policy must decide: `vestibule check` tries each."),
        key("policy_dir", Text("folder"), Absent("no owners' files"), "Every `*.yaml` in this folder, by name, is an owner's file."),
    ],
};

pub static LISTENER: Shape = Shape {
    name: "listener",
    doc: "Without `tls` it speaks plain HTTP: for a balancer in front that ends TLS, or to redirect. No device can prove itself there, but by \
          a `Client-Cert` of a trusted proxy (`forwarded`): else all are `blind`.",
    keys: &[
        key("name", Name, Required, "Names the listener in metrics and the decision log."),
        key("bind", Some(&Text("address")), Required, "Addresses with port, `0.0.0.0:8443` or `[::]:8443`."),
        key("tls", Kind::Shape(&TLS), Absent("plain HTTP"), "TLS 1.2 and 1.3."),
        key(
            "redirect_to_https",
            Flag,
            Default("false"),
            "Answer every request with a redirect to the same host and path over HTTPS. Not with `tls`.",
        ),
        key(
            "proxy_protocol",
            Kind::Shape(&PROXY_PROTOCOL),
            Absent("off: a PROXY protocol header is a malformed request"),
            "Balancers that begin each connection with a PROXY protocol header, version 1 or 2.",
        ),
        key(
            "forwarded",
            Kind::Shape(&FORWARDED),
            Absent("nobody is believed: what clients send in these fields is removed"),
            "Proxies in front whose `X-Forwarded-For`, `X-Forwarded-Proto`, `Forwarded`, `X-Request-Id` and `Client-Cert` are believed.",
        ),
        key(
            "forward_auth",
            Kind::Shape(&FORWARD_AUTH),
            Absent("the listener carries requests to apps"),
            "The listener answers proxies that ask whether to carry a request: nginx `auth_request`, Traefik and Caddy forward auth, Envoy ext_authz over HTTP. It carries none itself.",
        ),
    ],
};

pub static TLS: Shape = Shape {
    name: "tls",
    doc: "",
    keys: &[
        key(
            "certificates",
            Some(&Kind::Shape(&CERTIFICATE)),
            Required,
            "Chosen by SNI; clients without, or with an unknown, SNI get the first.",
        ),
        key(
            "client_ca",
            Some(&Text("file")),
            Absent("clients are not asked for a certificate"),
            "CAs of device certificates. A client certificate is optional; a valid one that the store knows names a device.",
        ),
        key(
            "client_crl",
            Some(&Text("file")),
            Absent("no revocation list"),
            "Revocation lists of those CAs. A revoked certificate, or a list past its nextUpdate, makes the device unknown.",
        ),
        key("ask_certificate", Kind::Shape(&ASK_CERTIFICATE), Absent("everywhere"), "Where browsers are prompted for a certificate."),
    ],
};

pub static CERTIFICATE: Shape = Shape {
    name: "certificate",
    doc: "",
    keys: &[
        key("cert", Text("file"), Required, "PEM: the certificate, then its intermediates."),
        key("key", Text("file"), Required, "PEM: the private key. Readable by the proxy only."),
    ],
};

pub static ASK_CERTIFICATE: Shape = Shape {
    name: "ask_certificate",
    doc: "",
    keys: &[key("except", Some(&Text("host")), Required, "Hosts, by SNI, whose visitors are not asked.")],
};

pub static ADMIN: Shape = Shape {
    name: "admin",
    doc: "",
    keys: &[key(
        "bind",
        Text("address"),
        Default("127.0.0.1:9470"),
        "A loopback address: whoever reaches it reads all metrics and the policy, and can have it read anew.",
    )],
};

pub static LIMITS: Shape = Shape {
    name: "limits",
    doc: "The defaults are safe on a hostile network. A limit that is too low turns people away; what a looser one costs stands beside it.",
    keys: &[
        key(
            "handshake",
            Duration("100ms", "5m"),
            Default("10s"),
            "From accept to the end of the TLS handshake. Longer: idle connections hold sockets for longer.",
        ),
        key(
            "request_head",
            Duration("100ms", "5m"),
            Default("10s"),
            "From the first byte waited for to the end of a request's head. Longer: slow heads (Slowloris) hold sockets for longer.",
        ),
        key("head_size", Size("1KiB", "1MiB"), Default("32KiB"), "Bytes of a request's head. Larger: memory, times connections."),
        key("head_fields", Count { min: 10, max: 1000 }, Default("100"), "Fields in a request's head. More: CPU time for each request."),
        key(
            "idle",
            Duration("100ms", "1h"),
            Default("60s"),
            "A connection without a request is closed. Longer: idle connections hold sockets.",
        ),
        key(
            "h2_streams",
            Count { min: 1, max: 10_000 },
            Default("100"),
            "Concurrent HTTP/2 streams of one connection. More: one connection can start that much work at once.",
        ),
        key(
            "connections",
            Count { min: 1, max: 10_000_000 },
            Default("65536"),
            "Connections of all listeners together. More: each needs memory and a file descriptor, and another toward its app.",
        ),
        key(
            "connections_per_peer",
            Count { min: 1, max: 10_000_000 },
            Default("4096"),
            "Connections of one peer address; an office may sit behind one. More: one peer can take all connections.",
        ),
        key(
            "client_hello",
            Size("1KiB", "64KiB"),
            Default("16KiB"),
            "Bytes of a ClientHello. Larger: memory before a client has proved anything.",
        ),
        key(
            "proxy_header",
            Size("256", "64KiB"),
            Default("4KiB"),
            "Bytes of a PROXY protocol header of version 2. Larger: memory for each connection of a balancer that has not said whose it is.",
        ),
        key(
            "body_size",
            Size("1", "512GiB"),
            Absent("unlimited"),
            "Bytes of a request's body, unless a restriction says less. Beyond it: 413.",
        ),
        key(
            "body_rate",
            Bandwidth("1/s", "1GiB/s"),
            Default("100/s"),
            "A request's body may keep the app waiting for `idle` in all, and a second more for each so many bytes that came, until the app answers: 400 beyond it. gRPC is spared. Slower: clients that send a byte at a time (slow POST) hold the app's connections for longer.",
        ),
        key(
            "drain_delay",
            Duration("100ms", "10m"),
            Absent("not at all"),
            "How long a proxy that is told to stop goes on accepting, with `/readyz` failing: until balancers that ask it have noticed.",
        ),
        key("drain", Duration("100ms", "24h"), Default("30s"), "How long a stopping proxy lets running requests finish."),
        key("upstream_idle", Count { min: 0, max: 100_000 }, Default("256"), "Idle upstream connections kept for one server and worker."),
        key(
            "upstream_connections",
            Count { min: 1, max: 100_000 },
            Default("1024"),
            "Upstream connections of one server and worker; beyond it a request goes to another server, and where all are full it waits up to the connect timeout. More: more load at once on an app.",
        ),
        key(
            "upstream_waiting",
            Count { min: 0, max: 1_000_000 },
            Default("1024"),
            "Requests of one app and worker that wait at once for one of those; one more is answered 503. More: memory while an app hangs.",
        ),
        key("upstream_max_age", Duration("100ms", "24h"), Default("10m"), "An older upstream connection is not used again."),
        key(
            "log_queue",
            Count { min: 1, max: 10_000_000 },
            Default("65536"),
            "Lines of the decision log that may wait for the disk. More: memory.",
        ),
        key(
            "rate_entries",
            Count { min: 16, max: 100_000_000 },
            Default("100000"),
            "Entries of the table that counts requests against `requests`. Fewer: a flood of peers makes the proxy forget counts.",
        ),
    ],
};

pub static STORE: Shape = Shape {
    name: "store",
    doc: "",
    keys: &[
        key(
            "url",
            Text("store URL"),
            Required,
            "`sqlite://data/vestibule.db` is a file relative to the configuration's folder, `sqlite:///var/lib/vestibule.db` an absolute one.",
        ),
        key("lookup_timeout", Duration("1ms", "60s"), Default("250ms"), "A look-up that takes longer has failed."),
        key("cache", Kind::Shape(&CACHE), Absent("the defaults of its keys"), "Device records in memory."),
        key("when_down", Kind::Shape(&WHEN_DOWN), Absent("the defaults of its keys"), "What happens while the store cannot be read."),
    ],
};

pub static CACHE: Shape = Shape {
    name: "cache",
    doc: "",
    keys: &[
        key("entries", Count { min: 1, max: 100_000_000 }, Default("200000"), "Records and absences kept."),
        key(
            "ttl",
            Duration("10ms", "24h"),
            Default("60s"),
            "A record is read again after this. A change in the store is seen within a second all the same.",
        ),
        key("negative_ttl", Duration("10ms", "1h"), Default("5s"), "An absent record is looked for again after this."),
    ],
};

pub static WHEN_DOWN: Shape = Shape {
    name: "when_down",
    doc: "",
    keys: &[key(
        "serve_stale",
        Duration("10ms", "30d"),
        Default("15m"),
        "How long cached facts keep their state. Past it facts are unknown; ownership and state keep their last value. Longer: a device that was \
         reported lost in the meantime stays trusted for longer.",
    )],
};

pub static DECISION_LOG: Shape = Shape {
    name: "decision_log",
    doc: "",
    keys: &[
        key("path", Text("file"), Required, "A file, or `-` for standard output."),
        key("rotate", Size("1KiB", "512GiB"), Default("1GiB"), "A file of this size is renamed to `<path>.1` and begun anew."),
        key(
            "required",
            Flag,
            Default("false"),
            "`true`: while the log cannot be written, requests are refused with 503 rather than answered unlogged. `false`: lost lines are counted.",
        ),
    ],
};

pub static OWNER: Shape =
    Shape { name: "owner", doc: "", keys: &[key("contact", Text("text"), Required, "Whom a person can ask: shown on refusals.")] };

pub static POSTURE: Shape = Shape {
    name: "posture",
    doc: "",
    keys: &[
        key(
            "sources",
            Map(&Kind::Shape(&SOURCE)),
            Absent("none: every fact is refused"),
            "Sources of posture facts; facts of others are refused.",
        ),
        key("fixes", Map(&Kind::Shape(&FIX)), Absent("none"), "What a person is told when a fact fails, by the fact's name."),
        key(
            "ladder",
            Map(&Kind::Shape(&LADDER)),
            Absent("none"),
            "Facts that more is asked of from date to date, by the fact's name; at most 64.",
        ),
    ],
};

pub static SOURCE: Shape = Shape {
    name: "source",
    doc: "",
    keys: &[key("ttl", Duration("1s", "3650d"), Required, "How long a fact of this source is believed; then it is unknown.")],
};

pub static FIX: Shape = Shape {
    name: "fix",
    doc: "",
    keys: &[
        key("text", Text("text"), Required, "What to do, in the words of the person who must do it."),
        key("help", Text("link"), Absent("no link"), "A page that explains it: `https://`, `http://` or `mailto:`."),
    ],
};

pub static CLASS: Shape = Shape {
    name: "class",
    doc: "",
    keys: &[
        key("name", Name, Required, "Not `blind` or `unclassified`: those two are always there."),
        key("when", Condition, Required, "Reads neither `class` nor `tier`."),
    ],
};

pub static TIER: Shape = Shape {
    name: "tier",
    doc: "",
    keys: &[
        key("name", Name, Required, "Compared in `tier`."),
        key(
            "require",
            Condition,
            Absent("nothing"),
            "What the tier requires beyond the lower ones; the lowest requires nothing. Does not read `tier`.",
        ),
    ],
};

pub static CAP: Shape = Shape {
    name: "cap",
    doc: "",
    keys: &[
        key("name", Name, Required, "Stands in the reasons as `cap.<name>`."),
        key("when", Condition, Required, "Does not read `tier`. Undecided counts as true."),
        key("max_tier", Name, Required, "The highest tier that a device has while the condition holds."),
    ],
};

/// An app's keys: in the main file it names its owner, in an owner's file it need not.
macro_rules! app_keys {
    ($owner:expr) => {
        &[
            key("name", Name, Required, "In metrics, log and rules. Not `none` or `portal`."),
            key("title", Text("text"), Absent("the name"), "What people call it; shown on pages."),
            $owner,
            key("labels", NAMES, Absent("none"), "Read by selectors: `apps: {label: sensitive}`."),
            key(
                "hosts",
                Some(&Text("host")),
                Required,
                "`wiki.corp.example`, or `*.lab.corp.example` for every name below; the exact, then the longest wins.",
            ),
            key(
                "path_prefix",
                Text("path"),
                Default("/"),
                "Whole segments: `/wiki` holds `/wiki` and `/wiki/x`, not `/wikis`. The longest wins.",
            ),
            key("upstream", Kind::Shape(&UPSTREAM), Required, "The app's servers."),
            key("path", Kind::Shape(&PATH), Absent("the defaults of its keys"), "What the app's paths may hold."),
            key(
                "fingerprint_headers",
                Word(&["none", "vestibule", "fingerproxy", "huginn"]),
                Default("none"),
                "Headers that tell the app what its client's connection shows, by the names of Vestibule, Fingerproxy or Huginn Proxy \
                 (`docs/fingerprints.md` lists them). A client's own are removed in any case. `fingerproxy` has JA3 computed for all connections.",
            ),
            key(
                "assertion",
                Flag,
                Default("false"),
                "`true`: the app receives `Vestibule-Jwt-Assertion`, a signed JWT of who asks and what was decided (`docs/apps.md`).",
            ),
            key(
                "client_cert",
                Flag,
                Default("false"),
                "`true`: the app receives the device's certificate in `Client-Cert` (RFC 9440), where it is valid.",
            ),
            key(
                "request_trailers",
                Word(&["drop", "pass"]),
                Default("drop"),
                "Trailers of requests. `pass`: those that are not ours to set, name no framing and are no identity; danger if the app takes a trailer for a header.",
            ),
            key(
                "upgrades",
                List(&Text("protocol")),
                Absent("`[websocket]`"),
                "Protocols that a request may switch to, `websocket` for instance; an empty list permits none. What flows after the switch is seen by no rule, and ends when the rules or the device change so that it would not be let in any more. Not for apps with `protocol: h2` or `h2c`.",
            ),
            key(
                "mode",
                MODE,
                Default("enforce"),
                "`report`: forwards unless an enforced guardrail objects; decisions are recorded as if enforced.",
            ),
            key(
                "rules",
                List(&Kind::Shape(&RULE)),
                Absent("none: everything is blocked"),
                "First match wins; what matches none is blocked.",
            ),
        ]
    };
}

pub static APP: Shape = Shape {
    name: "app",
    doc: "Two apps may share a host when their path prefixes differ.",
    keys: app_keys!(key("owner", Name, Required, "The team that answers for the app.")),
};

pub static OWNED_APP: Shape = Shape {
    name: "owned_app",
    doc: "An app in an owner's file: as in the main file, with the owner given. It may share a host with apps of this owner's files only: a longer `path_prefix` \
          would take paths from another app and its rules.",
    keys: app_keys!(key("owner", Name, Absent("the file's owner"), "The file's owner; naming another is an error.")),
};

pub static RULE: Shape = Shape {
    name: "rule",
    doc: "",
    keys: &[
        key("name", Name, Required, "Stands in the decision log; unique in the app."),
        key("when", Condition, Absent("always"), "When the rule matches."),
        key("then", EFFECT, Required, "What happens."),
        key("with", NAMES, Absent("none"), "Restrictions; with `then: restrict`, and only then."),
        key("mode", MODE, Default("enforce"), "`report`: recorded as what it would have done, then passed over."),
    ],
};

pub static OWNER_FILE: Shape = Shape {
    name: "owner_file",
    doc: "A file in `policy_dir`: one owner's apps, and its rules for its apps.",
    keys: &[
        key("owner", Name, Required, "An owner of the main file."),
        key("apps", List(&Kind::Shape(&OWNED_APP)), Absent("none"), "Apps of this owner, as in the main file."),
        key(
            "rules",
            List(&Kind::Shape(&OWNER_RULE)),
            Absent("none"),
            "Evaluated beside the apps' own rules; the stricter outcome stands, unless `delegate` of the main file leaves the decision to this file.",
        ),
        key("tests", List(&Kind::Shape(&TEST)), Absent("none"), "What the policy must decide, as in the main file."),
    ],
};

pub static OWNER_RULE: Shape = Shape {
    name: "owner_rule",
    doc: "First match wins among the rules of a file that concern the app; what matches none of them is left to the app's own rules.",
    keys: &[
        key("name", Name, Required, "Stands in the decision log; unique in the file."),
        key("apps", Apps, Absent("every app of this owner"), "Apps of this owner."),
        key("when", Condition, Absent("always"), "When the rule matches."),
        key("then", EFFECT, Required, "What happens."),
        key("with", NAMES, Absent("none"), "Restrictions; with `then: restrict`, and only then."),
        key("mode", MODE, Default("enforce"), "`report`: recorded as what it would have done, then passed over."),
    ],
};

/// In the order of the reference.
pub static ALL: &[&Shape] = &[
    &ROOT,
    &LISTENER,
    &PROXY_PROTOCOL,
    &FORWARDED,
    &FORWARD_AUTH,
    &TLS,
    &CERTIFICATE,
    &ASK_CERTIFICATE,
    &ADMIN,
    &LIMITS,
    &STORE,
    &CACHE,
    &WHEN_DOWN,
    &DECISION_LOG,
    &OWNER,
    &NETWORK,
    &FINGERPRINTS,
    &BASELINE,
    &CENSUS,
    &POSTURE,
    &SOURCE,
    &FIX,
    &LADDER,
    &CLASS,
    &TIER,
    &CAP,
    &RESTRICTION,
    &PATHS,
    &GUARDRAIL,
    &DELEGATION,
    &EXCEPTION,
    &ASSERTION,
    &APP,
    &UPSTREAM,
    &UPSTREAM_TLS,
    &HEALTH,
    &EJECTION,
    &TIMEOUTS,
    &PATH,
    &RULE,
    &TEST,
    &EXPECTED,
    &OWNER_FILE,
    &OWNED_APP,
    &OWNER_RULE,
];
