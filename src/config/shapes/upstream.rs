//! How requests reach apps, and who may speak for clients.

use super::super::shape::Kind::{Count, Duration, Shape as Map, Some, Text, Word};
use super::super::shape::Need::{Absent, Default, Required};
use super::super::shape::Shape;
use super::key;

pub static PROXY_PROTOCOL: Shape = Shape {
    name: "proxy_protocol",
    doc: "The address that the header names is the client's, for rules, limits, log and apps. With `LOCAL`, `UNKNOWN` or `UNSPEC` in it a connection is \
          the balancer's own. The balancer's SYN is not the client's: `wire.syn` is unavailable.",
    keys: &[key(
        "trusted",
        Some(&Text("network")),
        Required,
        "The balancers' addresses. Only these may connect, and each of their connections must begin with the header.",
    )],
};

pub static FORWARDED: Shape = Shape {
    name: "forwarded",
    doc: "A request's client is the right-most address of `X-Forwarded-For` or `Forwarded` that is not trusted itself; compared is who is connected, or \
          whom the PROXY header names. Fields that cannot be understood, hide the address or contradict each other are refused with 400. A trusted \
          proxy must set or remove each of `X-Forwarded-For`, `X-Forwarded-Proto`, `Forwarded`, `X-Request-Id`, `Client-Cert` and \
          `Client-Cert-Chain`: what it passes on is taken for its own word. What the connection shows is the proxy's, but for fingerprints that it sends \
          itself (`X-JA4-Fingerprint` and the like): else `wire` is unavailable.",
    keys: &[
        key("trusted", Some(&Text("network")), Required, "The proxies' addresses; nobody else is believed."),
        key(
            "client_ca",
            Some(&Text("file")),
            Absent("those of the listener's `tls`"),
            "CAs of device certificates that come in `Client-Cert` (RFC 9440). Without any the field is not read.",
        ),
        key("client_crl", Some(&Text("file")), Absent("those of the listener's `tls`"), "Revocation lists of those CAs."),
    ],
};

pub static FORWARD_AUTH: Shape = Shape {
    name: "forward_auth",
    doc: "",
    keys: &[key("trusted", Some(&Text("network")), Required, "The asking proxies' addresses; others are refused.")],
};

pub static ASSERTION: Shape = Shape {
    name: "assertion",
    doc: "",
    keys: &[
        key("issuer", Text("issuer"), Default("vestibule"), "The claim `iss`: an URL or a name by which apps know this proxy."),
        key(
            "keys",
            Text("folder"),
            Default("data/assertion-keys"),
            "The signing keys, PEM files that only the proxy may read; made when an app needs one. Proxies that share it vouch for each other.",
        ),
        key(
            "rotate",
            Duration("1h", "3650d"),
            Default("30d"),
            "A key signs for so long; the next one is published a tenth of that, at least 10 minutes, before it signs.",
        ),
    ],
};

pub static UPSTREAM_TLS: Shape = Shape {
    name: "upstream_tls",
    doc: "For `https://` servers. Their certificate is always verified.",
    keys: &[
        key("ca", Some(&Text("file")), Absent("the system's CAs"), "CAs of the servers' certificates."),
        key("server_name", Text("host"), Absent("the host of the server's URL"), "The name in SNI and in the server's certificate."),
        key("certificate", Map(&super::CERTIFICATE), Absent("none"), "What the proxy presents itself with, where the server asks."),
    ],
};

pub static HEALTH: Shape = Shape {
    name: "health",
    doc: "A server counts as up until its first check, which alone decides. Where all servers of an app are down its requests are answered 503.",
    keys: &[
        key(
            "path",
            Text("path"),
            Required,
            "What is asked with GET, on a connection of its own, with the Host that the app receives or the first of its hosts that is no wildcard.",
        ),
        key("every", Duration("100ms", "1h"), Default("5s"), "From one check to the next, give or take a tenth."),
        key("timeout", Duration("10ms", "5m"), Default("2s"), "A check whose answer's head takes longer has failed."),
        key("status", Text("status codes"), Default("200-399"), "Codes of a healthy server: `200`, `200-399` or `200,204`."),
        key(
            "rise",
            Count { min: 1, max: 100 },
            Default("2"),
            "Successes in a row after which a server that was down takes requests again.",
        ),
        key("fall", Count { min: 1, max: 100 }, Default("3"), "Failures in a row after which a server takes none."),
    ],
};

pub static EJECTION: Shape = Shape {
    name: "ejection",
    doc: "What requests themselves show of a server; an app's own 5xx are sound answers. The last server that takes requests always stays.",
    keys: &[
        key(
            "failures",
            Count { min: 0, max: 1000 },
            Default("5"),
            "Requests in a row without a sound answer (no connection, no head in time, not HTTP) after which a server takes none; `0`: never.",
        ),
        key(
            "time",
            Duration("100ms", "1h"),
            Default("10s"),
            "For how long, the first time; then one more failure ejects it for twice as long, up to 5 minutes, until it was back for as long as it was out.",
        ),
    ],
};

pub static UPSTREAM: Shape = Shape {
    name: "upstream",
    doc: "",
    keys: &[
        key("servers", Some(&Text("server URL")), Required, "`http://host:port`, `https://host:port` or `unix:/run/app.sock`."),
        key(
            "host",
            Text("host"),
            Default("keep"),
            "The Host that the app receives: `keep` is the client's, `server` the server's, or a name.",
        ),
        key(
            "protocol",
            Word(&["http1", "h2", "h2c"]),
            Default("http1"),
            "What the servers speak: HTTP/1.1; `h2`, HTTP/2 over TLS; `h2c`, HTTP/2 without, which gRPC apps often do.",
        ),
        key("tls", Map(&UPSTREAM_TLS), Absent("the defaults of its keys"), "How `https://` servers are verified."),
        key(
            "proxy_protocol",
            Word(&["off", "v1", "v2"]),
            Default("off"),
            "Begin each connection with a PROXY protocol header that names the client; then connections are not shared among clients.",
        ),
        key(
            "balance",
            Word(&["round_robin", "least_requests", "hash"]),
            Default("round_robin"),
            "How servers are chosen. `least_requests`: of two at random, the one with fewer running, as each worker counts its own. `hash`: the same for each device, or peer address where there is none; all proxies with the same servers choose alike.",
        ),
        key("health", Map(&HEALTH), Absent("no checks: servers are judged by requests alone"), "Asks each server whether it is well."),
        key("ejection", Map(&EJECTION), Absent("the defaults of its keys"), "Takes failing servers out for a while."),
        key(
            "slow_start",
            Duration("1s", "1h"),
            Absent("it takes its whole share at once"),
            "A server that comes back, by its checks or after an ejection, takes its share of requests little by little, over this time.",
        ),
        key(
            "resolve_every",
            Duration("1s", "24h"),
            Default("30s"),
            "Names of servers are looked up again, by the system's resolver. Each address is balanced and checked as a server of its own; the last answer holds while there is no other.",
        ),
        key("timeouts", Map(&TIMEOUTS), Absent("the defaults of its keys"), "How long the app may take."),
    ],
};

pub static TIMEOUTS: Shape = Shape {
    name: "timeouts",
    doc: "",
    keys: &[
        key("connect", Duration("1ms", "5m"), Default("2s"), "To connect, and to wait for a free connection."),
        key("response", Duration("1ms", "24h"), Default("30s"), "From the request's last byte to the response's head; then 504."),
        key(
            "idle",
            Duration("1ms", "24h"),
            Default("60s"),
            "A body, either way, that stands still; and how long an unused connection is kept.",
        ),
        key("tunnel", Duration("1s", "30d"), Default("1h"), "A WebSocket or other upgraded connection on which nothing moves, either way."),
    ],
};

pub static PATH: Shape = Shape {
    name: "path",
    doc: "The same path means the same to policy and app. Keeping what is rejected by default is for apps that need it, and that read it as the \
          policy does: an app that decodes or strips what the rules did not see can be reached past them.",
    keys: &[
        key(
            "encoded_slash",
            Word(&["reject", "keep"]),
            Default("reject"),
            "`%2F`. `keep`: rules see it encoded; danger if the app decodes it. `%5C` is refused in any case.",
        ),
        key(
            "parameters",
            Word(&["reject", "keep"]),
            Default("reject"),
            "`;jsessionid=...`. `keep`: danger if the app strips parameters before it routes.",
        ),
        key("slashes", Word(&["merge", "keep"]), Default("merge"), "`//`. `keep`: danger if the app merges slashes itself."),
    ],
};
