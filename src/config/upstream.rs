//! An app's servers: where they are, what they speak, how they are chosen and judged.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use super::obj::Obj;
use super::report::Findings;
use super::serving::{self, Holds, Serving};
use super::shapes;
use super::typed::{
    At, Balance, CertificateFiles, Ejection, Health, HostHeader, Protocol, ProxyProtocol, Server, Timeouts, Upstream, UpstreamTls,
};
use super::yaml::{Node, short};
use crate::policy::draft::HostPattern;
use crate::request::{self, PathOptions};

pub fn upstream<'a>(app: Obj<'a>, hosts: &[HostPattern], serving: &mut Serving<'a>, out: &mut Findings) -> Upstream {
    let obj = app.object("upstream", &shapes::UPSTREAM);
    let timeouts = obj.object("timeouts", &shapes::TIMEOUTS);
    let ejection = obj.object("ejection", &shapes::EJECTION);
    let mut servers: Vec<Server> = Vec::new();
    let mut seen = HashSet::new();
    for node in obj.items("servers") {
        let Some(server) = server(node, serving.folder, out) else { continue };
        if !seen.insert((server.tls, server.at.clone())) {
            out.warn(node.place, format!("the server {} stands twice", node.found()));
        }
        servers.push(server);
    }
    let upstream = Upstream {
        protocol: match obj.text("protocol") {
            Some("h2") => Protocol::H2,
            Some("h2c") => Protocol::H2c,
            _ => Protocol::Http1,
        },
        tls: tls(obj, &servers, serving, out),
        servers,
        proxy_protocol: match obj.text("proxy_protocol") {
            Some("v1") => ProxyProtocol::V1,
            Some("v2") => ProxyProtocol::V2,
            _ => ProxyProtocol::Off,
        },
        host: host_header(obj, out),
        balance: match obj.text("balance") {
            Some("least_requests") => Balance::LeastRequests,
            Some("hash") => Balance::Hash,
            _ => Balance::RoundRobin,
        },
        health: obj.get("health").map(|node| health(Obj::new(node, &shapes::HEALTH), hosts, out)),
        ejection: Ejection { failures: ejection.count("failures"), time: ejection.duration("time") },
        slow_start: obj.duration("slow_start"),
        resolve_every: obj.duration("resolve_every"),
        timeouts: Timeouts {
            connect: timeouts.duration("connect"),
            response: timeouts.duration("response"),
            idle: timeouts.duration("idle"),
            tunnel: timeouts.duration("tunnel"),
        },
    };
    if upstream.host == HostHeader::Keep && upstream.health.as_ref().is_some_and(|health| health.host.is_none()) && !hosts.is_empty() {
        out.error(
            obj.place_of("health"),
            "the app receives the client's own Host, and all of its hosts are wildcards: a check has none to ask for; say `host`"
                .to_owned(),
        );
    }
    if let Some(plain) = obj.items("servers").iter().zip(&upstream.servers).find(|(_, server)| !server.tls).map(|(node, _)| node)
        && upstream.protocol == Protocol::H2
    {
        out.clash(
            obj.place_of("protocol"),
            "`h2` is HTTP/2 over TLS, and this server is not `https://`; HTTP/2 without TLS is `h2c`",
            (plain.place, "this server"),
        );
    }
    if let Some(secure) = obj.items("servers").iter().zip(&upstream.servers).find(|(_, server)| server.tls).map(|(node, _)| node)
        && upstream.protocol == Protocol::H2c
    {
        out.clash(
            obj.place_of("protocol"),
            "`h2c` is HTTP/2 without TLS, and this server is `https://`; HTTP/2 over TLS is `h2`",
            (secure.place, "this server"),
        );
    }
    upstream
}

fn tls<'a>(obj: Obj<'a>, servers: &[Server], serving: &mut Serving<'a>, out: &mut Findings) -> UpstreamTls {
    if obj.get("tls").is_some() && !servers.is_empty() && !servers.iter().any(|server| server.tls) {
        out.warn(obj.place_of_key("tls"), "no server is `https://`: nothing here is used");
    }
    let obj = obj.object("tls", &shapes::UPSTREAM_TLS);
    let ca = serving.all(obj, "ca", Holds::Certificates, out);
    let certificate = obj.get("certificate").and_then(|node| {
        let pair = Obj::new(node, &shapes::CERTIFICATE);
        let cert = serving.file(pair.get("cert"), Holds::Presented, out);
        let key = serving.file(pair.get("key"), Holds::PrivateKey, out);
        Some(CertificateFiles { cert: cert?, key: key? })
    });
    let server_name = obj.get("server_name").and_then(|node| serving::host(node, node.text()?, out));
    UpstreamTls { ca, server_name, certificate }
}

fn health(obj: Obj<'_>, hosts: &[HostPattern], out: &mut Findings) -> Health {
    let path = obj.text("path").unwrap_or("/");
    let plain = path.split('?').next().unwrap_or_default();
    let sound = path.bytes().all(|c| matches!(c, b'!'..=b'~')) && !path.contains('#');
    match request::path(plain, &PathOptions::LENIENT) {
        Ok(_) if sound => {}
        Ok(_) => out.error(obj.place_of("path"), format!("found `{}`, expected a path without spaces or fragment", short(path))),
        Err(why) => out.error(obj.place_of("path"), format!("found `{}`, expected a path such as `/healthz`: {why}", short(path))),
    }
    let status = obj.text("status").and_then(|text| {
        let codes = codes(text);
        // Empty text has been told of already.
        if codes.is_none() && !text.trim().is_empty() {
            out.error(obj.place_of("status"), format!("found `{}`, expected codes such as `200`, `200-399` or `200,204`", short(text)));
        }
        codes
    });
    Health {
        path: path.to_owned(),
        host: hosts.iter().find_map(|host| match host {
            HostPattern::Exact(host) => Some(host.as_str().to_owned()),
            HostPattern::Below(_) => None,
        }),
        every: obj.duration("every"),
        timeout: obj.duration("timeout"),
        status: status.unwrap_or_default(),
        rise: obj.count("rise"),
        fall: obj.count("fall"),
    }
}

/// `200`, `200-399`, `200,204`.
fn codes(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let code = |text: &str| {
        let number: u16 = text.parse().ok().filter(|_| text.len() == 3 && text.bytes().all(|c| c.is_ascii_digit()))?;
        (100..=599).contains(&number).then_some(number)
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (code(first.trim())?, code(last.trim())?);
        (first <= last).then_some(first..=last)
    };
    text.split(',').map(|part| range(part.trim())).collect()
}

fn server(node: &Node, folder: &Path, out: &mut Findings) -> Option<Server> {
    const EXPECTED: &str = "`http://host:port`, `https://host:port` or `unix:/run/app.sock`";
    let Some(text) = node.text() else { return out.left_out() };
    if let Some(path) = text.strip_prefix("unix:") {
        // The kernel's limit, less the zero at the end (unix(7)).
        let path = folder.join(path);
        if path.as_os_str().is_empty() || path.as_os_str().len() > 107 || text.ends_with('/') || text.contains('\0') {
            out.error(
                node.place,
                format!("found {}, expected the path of a socket, at most 107 bytes: `unix:/run/app.sock`", node.found()),
            );
            return None;
        }
        return Some(Server { url: Arc::from(text), tls: false, at: At::Unix(path) });
    }
    if text.contains('@') {
        // It may hold a password.
        out.secret(node.place, "found a URL with a user name, expected `http://host:port`");
        return None;
    }
    let wrong = |out: &mut Findings, why: &str| {
        out.error(node.place, format!("found {}, expected {EXPECTED}{why}", node.found()));
        None
    };
    let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return wrong(out, ""),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return wrong(out, ": no path, the request's own is used");
    }
    let (name, port) = serving::split_port(rest);
    // Digits only: a parser of numbers also takes `+80`.
    let port = match port {
        None if tls => 443,
        None => 80,
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|c| c.is_ascii_digit()) => number,
            _ => return wrong(out, ", the port from 1 to 65535"),
        },
    };
    let host = match request::host(name) {
        Ok(host) => host,
        Err(why) => return wrong(out, &format!(": {why}")),
    };
    let host = host.as_str().trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Server { url: Arc::from(text), tls, at: At::Tcp { host, port } })
}

fn host_header(obj: Obj<'_>, out: &mut Findings) -> HostHeader {
    match obj.text("host") {
        None | Some("keep") => HostHeader::Keep,
        Some("server") => HostHeader::Server,
        Some(name) => {
            // A port is kept as written: it is a part of what the app receives.
            if let Some(node) = obj.get("host")
                && let Err(why) = request::host(name)
            {
                let why = if name.contains("://") { ": no URL".to_owned() } else { format!(": {why}") };
                out.error(node.place, format!("found {}, expected `keep`, `server` or a host{why}", node.found()));
            }
            HostHeader::Name(name.to_owned())
        }
    }
}
