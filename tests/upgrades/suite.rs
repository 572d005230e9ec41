//! The WebSocket cases of Autobahn, and clients that people use.

use std::process::Command;

use super::support::venv;
use super::*;

/// An echo server of another's, and Autobahn's cases against it: direct, and through the proxy. What comes out must be the same.
const SUITE: &str = r#"
import asyncio, logging, sys
from kosoku import FailureError, run_fuzzingclient
from websockets.asyncio.server import serve
logging.disable(logging.CRITICAL)

async def echo(ws):
    async for message in ws:
        await ws.send(message)

# Sizes and compression, of which there are hundreds of variations, are left to a few: what passes is not looked into.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.2.1", "9.3.1", "9.7.1", "10.*", "12.1.1", "12.2.1", "13.1.1"]

async def verdicts(address, cases):
    try:
        results = await run_fuzzingclient(address, cases, None, concurrency=8)
    except FailureError as failure:
        results = failure.results
    return {one.case_id: (one.behavior.value, one.behavior_close.value) for one in results}

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        print(port, flush=True)
        addresses = [f"127.0.0.1:{port}", sys.stdin.readline().strip()]
        seen = [{}, {}]
        other = CASES
        # Where a server may answer before it fails or fail at once, time decides between two verdicts that both pass. Such cases go on until one
        # verdict was seen both ways.
        for _ in range(8):
            for found, address in zip(seen, addresses):
                for case, verdict in (await verdicts(address, other)).items():
                    found.setdefault(case, set()).add(verdict)
            direct, proxied = seen
            other = [case for case in direct if not direct[case] & proxied.get(case, set())]
            if not other:
                break
        passed = sum(1 for found in direct.values() if all(behavior != "FAILED" for behavior, _ in found))
        print(len(direct), len(proxied), passed, {case: (direct[case], proxied.get(case)) for case in other})

asyncio.run(main())
"#;

#[test]
fn autobahns_verdicts_are_the_same_through_the_proxy() {
    let python = venv::python(&["kosoku==0.1.0", "websockets==16.0"]);
    let mut suite = Command::new(python)
        .args(["-c", SUITE, "0"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(suite.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let app = App { address: format!("127.0.0.1:{}", line.trim()).parse().unwrap(), heads: Arc::default() };
    let world = World::with(app, "", |config| config.replace("[wiki.localhost]", "[127.0.0.1]"));
    writeln!(suite.stdin.take().unwrap(), "{}", world.proxy.addr("plain")).unwrap();
    let mut said = String::new();
    out.read_to_string(&mut said).unwrap();
    assert!(suite.wait().unwrap().success());
    let words: Vec<&str> = said.trim().splitn(4, ' ').collect();
    let [direct, proxied, passed, other] = words[..] else { panic!("{said}") };
    assert!(direct.parse::<usize>().unwrap() > 240 && direct == proxied, "{said}");
    assert!(passed.parse::<usize>().unwrap() > 240, "the server itself is sound: {said}");
    assert_eq!(other, "{}", "verdicts that differ");
    assert_eq!(world.proxy.metrics().sum("vestibule_panics_total", &[]), 0.0);
}
