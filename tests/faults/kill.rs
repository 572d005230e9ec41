//! `kill -9` at any moment.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use super::support::{Lab, Origin, Proxy, Reply};
use super::{FIT, config, get};

const ROUNDS: u64 = 50;

/// Each round kills the proxy and a change of a device in mid-work, at another moment.
#[test]
fn fifty_kills_lose_no_acknowledged_change_and_cut_at_most_one_line_each() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    let file = lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        // The next start works, whatever the last left.
        let mut proxy = Proxy::start(lab.dir(), &file);
        let address = proxy.addr("plain");
        let asking = std::thread::spawn(move || {
            let ask = || {
                TcpStream::connect(address).and_then(|mut stream| {
                    stream.write_all(b"GET /kill HTTP/1.1\r\nHost: wiki.corp.example\r\nConnection: close\r\n\r\n")?;
                    stream.read_to_end(&mut Vec::new())
                })
            };
            while ask().is_ok_and(|read| read > 0) {}
        });
        let id = format!("device-{round}");
        let set = |id: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
            command.current_dir(lab.dir()).args(["devices", "-c", "vestibule.yaml", "set", id, "--create", &format!("user=user-{round}")]);
            command
        };
        assert!(set(&id).status().unwrap().success());
        acknowledged.insert(id, format!("user-{round}"));
        let mut killed = set(&format!("victim-{round}")).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(round % 25)); // another moment each time; the test holds at every one
        killed.kill().unwrap();
        if killed.wait().unwrap().success() {
            acknowledged.insert(format!("victim-{round}"), format!("user-{round}"));
        }
        proxy.signal(libc::SIGKILL);
        assert!(!proxy.ended().success());
        asking.join().unwrap();
    }
    let listed = lab.vestibule(&["devices", "-c", "vestibule.yaml", "list", "--format", "json"]).succeeded();
    for (id, user) in &acknowledged {
        assert!(listed.stdout.contains(&format!("\"{id}\"")) && listed.stdout.contains(&format!("\"{user}\"")), "{id} of {user} is lost");
    }
    let text = std::fs::read_to_string(lab.path("decisions.jsonl")).unwrap();
    let broken = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    println!("{ROUNDS} kills: {} changes, {} lines of the log, {broken} of them cut", acknowledged.len(), text.lines().count());
    assert!(broken <= ROUNDS as usize);
    let proxy = Proxy::start(lab.dir(), &file);
    assert_eq!(get(&proxy, &lab, &laptop).status, 200);
}
