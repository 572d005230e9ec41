//! What a connection's layers cost in allocations. The time is `cargo bench --bench hello`'s to tell.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world breaks")]

#[path = "support/counting.rs"]
mod counting;

use std::hint::black_box;

use counting::COUNT;
use vestibule::fingerprint::hello::{Progress, read};

const RECORDINGS: &str = include_str!("fixtures/fingerprints/clients.jsonl");

fn allocations<T>(work: impl FnOnce() -> T) -> u64 {
    let before = COUNT.get();
    black_box(work());
    COUNT.get() - before
}

#[test]
fn a_hello_costs_at_most_two_allocations_also_over_several_records() {
    let mut longest = 0;
    for line in RECORDINGS.lines() {
        let recording: serde_json::Value = serde_json::from_str(line).unwrap();
        let hex = recording["hello"].as_str().unwrap().as_bytes();
        let message: Vec<u8> = hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        longest = longest.max(message.len());
        for size in [1 << 14, 512] {
            let mut bytes = Vec::new();
            for fragment in message.chunks(size) {
                bytes.extend([22, 3, 1]);
                bytes.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
                bytes.extend(fragment);
            }
            let count = allocations(|| match read(&bytes) {
                Progress::Hello(hello) => (hello.ja4(), hello.ja4_stable()),
                other => panic!("{other:?}"),
            });
            // The server's name, and the hello where it has to be put together.
            assert!(count <= 2, "{}, records of {size}: {count}", recording["client"]);
        }
    }
    assert!(longest > 2000, "a post-quantum hello is among them");
}
