//! How requests travel to apps: TLS, Unix sockets, HTTP/2, gRPC and PROXY headers, each with a server that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

#[path = "upstreams/grpc.rs"]
mod grpc;
#[path = "upstreams/nginx.rs"]
mod nginx;
#[path = "upstreams/tls.rs"]
mod tls;

use std::fmt::Write;

use support::{Answer, Config, Curl, Origin, Proxy, Reply};

/// One app for each name and `upstream`, at `NAME.corp.example`, open to everybody.
fn config(apps: &[(&str, String)]) -> Config {
    let mut yaml = String::new();
    for (name, upstream) in apps {
        write!(
            yaml,
            "\n  - {{name: {name}, title: App, owner: knowledge, hosts: [{name}.corp.example], upstream: {upstream}, rules: [{{name: all, then: forward}}]}}"
        )
        .unwrap();
    }
    // Nobody asks it.
    let config = Config::new(&Origin::answering(Reply::text(""))).without("classes").without("restrictions").without("posture");
    config.set("workers", "1").set("tiers", "[{name: none}]").set("apps", &yaml)
}

/// Without TLS, on a connection of its own.
fn get(proxy: &Proxy, app: &str, path: &str) -> Answer {
    Curl::at(proxy.addr("plain")).get(&format!("http://{app}.corp.example{path}"))
}

/// The log's lines with all of these words.
fn lines(proxy: &Proxy, words: &[&str]) -> usize {
    proxy.stderr().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}
