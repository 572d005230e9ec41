//! What apps are told, read by libraries of theirs.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::certificates::{chained, trusting_the_root};
use super::support::{Curl, Received, venv};
use super::*;

const PACKAGES: [&str; 5] = ["http-sf==1.5.0", "cryptography==50.0.2", "werkzeug==3.1.9", "aiohttp==3.14.5", "opentelemetry-api==1.45.2"];

/// As an app in Python reads the requests: a JSON list of heads in, one of what each says out.
const READER: &str = r#"
import json, sys
import http_sf
from aiohttp.test_utils import make_mocked_request
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

def read(head):
    hops, fields = head["hops"], dict(head["fields"])
    told = {}
    def app(environ, start_response):
        request = Request(environ)
        told.update(client=request.remote_addr, scheme=request.scheme, host=request.host)
        start_response("200 OK", [])
        return []
    environ = EnvironBuilder(headers=head["fields"], environ_base={"REMOTE_ADDR": "203.0.113.1"}).get_environ()
    ProxyFix(app, x_for=hops, x_proto=1, x_host=1)(environ, lambda *a: None)
    told["forwarded"] = [dict(e) for e in make_mocked_request("GET", "/", headers=fields).forwarded]
    span = get_current_span(TraceContextTextMapPropagator().extract(fields)).get_span_context()
    told["trace"] = [span.is_valid, format(span.trace_id, "032x"), format(span.span_id, "016x"), dict(span.trace_state)]
    certificates = []
    if "client-cert" in fields:
        certificates.append(http_sf.parse(fields["client-cert"].encode(), tltype="item")[0])
    if "client-cert-chain" in fields:
        certificates += [item[0] for item in http_sf.parse(fields["client-cert-chain"].encode(), tltype="list")]
    certificates = [x509.load_der_x509_certificate(der) for der in certificates]
    for lower, upper in zip(certificates, certificates[1:]):
        lower.verify_directly_issued_by(upper)
    told["certificates"] = [c.public_bytes(Encoding.DER).hex() for c in certificates]
    return told

print(json.dumps([read(head) for head in json.load(sys.stdin)]))
"#;

fn read(heads: &[(usize, Received)]) -> Vec<Value> {
    let heads: Vec<Value> = heads
        .iter()
        .map(|(hops, received)| {
            let fields: Vec<[String; 2]> = received
                .header_names()
                .into_iter()
                .filter(|name| !name.is_empty())
                .map(|name| [name.clone(), received.header(&name).join(", ")])
                .collect();
            json!({"hops": hops, "fields": fields})
        })
        .collect();
    let mut python =
        Command::new(venv::python(&PACKAGES)).args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(&serde_json::to_vec(&heads).unwrap()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_apps_own_libraries_understand_what_it_is_told() {
    let lab = Lab::new();
    let origin = Origin::answering(Reply::text("ok"));
    let config = World::config(&origin);
    lab.configure(&config);
    let (tablet, chain) = chained(&lab);
    let proxy = lab.start(&trusting_the_root(config));
    let stranger = || Curl::to(&proxy, &lab).arg("--interface").arg("127.0.0.2");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(stranger().device(&tablet).get("https://wiki.localhost/one").status, 200);
    let traced = stranger().header(&format!("traceparent: {parent}")).header("tracestate: a=1,b=2").header("X-Forwarded-For: 6.6.6.6");
    assert_eq!(traced.get("https://git.localhost/two").status, 200);
    let mut front = Peer::from("127.0.0.1", proxy.addr("plain"));
    let fields =
        "X-Forwarded-For: 6.6.6.6, 2001:db8::7, 10.9.1.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: lb-17\r\ntraceparent: junk\r\n";
    assert_eq!(front.status(&asked("git.localhost:8443", fields)), 200);

    let received = origin.wait(3);
    let [one, two, three] = &read(&[(1, received[0].clone()), (1, received[1].clone()), (3, received[2].clone())])[..] else { panic!() };
    assert_eq!((&one["client"], &one["scheme"], &one["host"]), (&"127.0.0.2".into(), &"https".into(), &"wiki.localhost".into()));
    assert_eq!(one["forwarded"], json!([{"for": "127.0.0.2", "proto": "https", "host": "wiki.localhost"}]));
    assert_eq!(one["certificates"], json!([hex(&chain[0]), hex(&chain[1])]), "each is issued by the next");
    assert_eq!(one["trace"][0], true);
    assert_eq!(one["trace"][1], received[0].header("x-request-id")[0], "the trace is named as the request is");

    assert_eq!((&two["client"], &two["certificates"]), (&"127.0.0.2".into(), &json!([])));
    assert_eq!(two["trace"], json!([true, "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", {"a": "1", "b": "2"}]));

    assert_eq!(
        (&three["client"], &three["scheme"], &three["host"]),
        (&"2001:db8::7".into(), &"https".into(), &"git.localhost:8443".into())
    );
    let chain =
        json!([{"for": "[2001:db8::7]", "proto": "https", "host": "git.localhost:8443"}, {"for": "10.9.1.1"}, {"for": "127.0.0.1"}]);
    assert_eq!(three["forwarded"], chain);
    assert_eq!(three["trace"][0], true, "made anew");
}
