//! Fingerprints of real clients: recorded hellos and SYNs of this project.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde::Deserialize;
use vestibule::fingerprint::hello::{Arriving, Hello, Progress, read};
use vestibule::fingerprint::syn;
use vestibule::identify::claims;
use vestibule::model::{Browser, Wire};

const RECORDINGS: &str = include_str!("fixtures/fingerprints/clients.jsonl");

/// A connection of a known client: its ClientHello message, its SYN, its first requests.
#[derive(Deserialize)]
struct Recording {
    client: String,
    hello: String,
    syn: String,
    ja4: String,
    ja4_r: String,
    ja4_stable: String,
    ja3: String,
    h1: Option<Vec<String>>,
    h2: Option<Vec<Frame>>,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(default)]
    headers: Vec<(String, String)>,
}

fn recordings() -> Vec<Recording> {
    RECORDINGS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The message in handshake records, each as long as `size` says.
fn records(message: &[u8], mut size: impl FnMut() -> usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left = message;
    while !left.is_empty() {
        let (fragment, after) = left.split_at(size().min(left.len()).min(1 << 14));
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        out.extend(fragment);
        left = after;
    }
    out
}

#[track_caller]
fn whole(bytes: &[u8]) -> Hello {
    match read(bytes) {
        Progress::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// Bytes as they come from the network, in segments as long as `size` says.
fn arrival(bytes: &[u8], mut size: impl FnMut() -> usize) -> Hello {
    let mut have = 0;
    let mut arriving = Arriving::default();
    loop {
        have = (have + size()).min(bytes.len());
        match arriving.read(&bytes[..have]) {
            Progress::NeedMore if have < bytes.len() => {}
            Progress::Hello(hello) => {
                assert_eq!(have, bytes.len(), "a hello before its last byte");
                return hello;
            }
            other => panic!("after {have} of {} bytes: {other:?}", bytes.len()),
        }
    }
}

#[test]
fn every_recording_is_reproduced() {
    let recordings = recordings();
    for recording in &recordings {
        let hello = whole(&records(&unhex(&recording.hello), || usize::MAX));
        assert_eq!(hello.ja4().as_str(), recording.ja4, "{}", recording.client);
        assert_eq!(hello.ja4_r(), recording.ja4_r, "{}", recording.client);
        let wire = Wire { ja4: Some(hello.ja4()), traits: Some(hello.traits()), ..Wire::default() };
        assert_eq!(wire.ja4_r().unwrap(), recording.ja4_r, "{}", recording.client);
        assert_eq!(hello.ja4_stable().as_str(), recording.ja4_stable, "{}", recording.client);
        assert_eq!(*hello.ja3(), *recording.ja3, "{}", recording.client);
    }
    assert_eq!(recordings.len(), 153);
}

/// The same client gets the same fingerprint however its hello is cut.
#[test]
fn cuts_change_nothing() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    for recording in recordings() {
        let message = unhex(&recording.hello);
        let expected = whole(&records(&message, || usize::MAX));

        let one_record = records(&message, || usize::MAX);
        assert_eq!(arrival(&one_record, || 1), expected, "{}: segments of one byte", recording.client);
        let one_byte_records = records(&message, || 1);
        assert_eq!(whole(&one_byte_records), expected, "{}: records of one byte", recording.client);
        assert_eq!(arrival(&one_byte_records, || 1), expected, "{}: both", recording.client);
        for _ in 0..20 {
            let longest = random.usize(1..=message.len());
            let bytes = records(&message, || random.usize(1..=longest));
            let longest = random.usize(1..=bytes.len());
            assert_eq!(arrival(&bytes, || random.usize(1..=longest)), expected, "{}: random", recording.client);
        }
    }
}

#[test]
fn recorded_syns_are_of_linux() {
    let mut signatures = BTreeMap::new();
    for recording in recordings() {
        let bytes = unhex(&recording.syn);
        let signature = syn::signature(&bytes).unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(syn::signature(&bytes[..cut]), None);
        }
        *signatures.entry(signature).or_insert(0) += 1;
    }
    // All of one machine over loopback.
    assert_eq!(signatures.into_iter().collect::<Vec<_>>(), [("4:64:mss*1:10:mss65495,sok,ts,nop,ws:df".into(), 153)]);
}

#[test]
fn recorded_clients_claim_what_they_are_made_to() {
    let mut told = 0;
    for recording in recordings() {
        let mut headers = HeaderMap::new();
        let h1 =
            recording.h1.iter().flatten().filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let h2 = recording.h2.into_iter().flatten().flat_map(|frame| frame.headers);
        for (name, value) in h1.chain(h2).filter(|(name, _)| !name.starts_with(':')) {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        if !headers.contains_key("user-agent") {
            continue;
        }
        let (kind, version) = recording.client.split_once('/').unwrap();
        let label = if kind.starts_with("curl_cffi") { version } else { kind };
        let expected = [
            ("edge", Browser::Edge),
            ("chromium", Browser::Chromium),
            ("chrome", Browser::Chrome),
            ("safari", Browser::Safari),
            ("firefox", Browser::Firefox),
            ("tor", Browser::Firefox),
            ("python", Browser::Python),
            ("node", Browser::Node),
        ];
        let expected = expected.into_iter().find(|(start, _)| label.starts_with(start)).map(|(_, browser)| browser);
        assert_eq!(claims(&headers).browser, expected, "{}", recording.client);
        assert!(expected.is_some());
        told += 1;
    }
    assert!(told > 120, "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        read(&bytes);
        syn::signature(&bytes);
        // As a message in good records, and as the end of a message that starts well.
        read(&records(&bytes, || 100));
        let mut opening = vec![1, 0, 2, 0, 3, 3];
        opening.extend(&bytes);
        if let Progress::Hello(hello) = read(&records(&opening, || usize::MAX)) {
            fingerprints_are_well_formed(&hello);
        }
    }

    #[test]
    fn mutated_hellos_never_panic(
        row in 0_usize..153,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        size in 1_usize..3000,
    ) {
        let line = RECORDINGS.lines().nth(row).unwrap();
        let recording: Recording = serde_json::from_str(line).unwrap();
        let mut message = unhex(&recording.hello);
        for (at, value) in changes {
            let at = at.index(message.len());
            message[at] = value;
        }
        // Framing mended, so that changes reach the insides.
        let length = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
        message[..4].copy_from_slice(&[1, length[1], length[2], length[3]]);
        if let Progress::Hello(hello) = read(&records(&message, || size)) {
            fingerprints_are_well_formed(&hello);
        }
    }

    #[test]
    fn mutated_syns_never_panic(row in 0_usize..153, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let recording: Recording = serde_json::from_str(RECORDINGS.lines().nth(row).unwrap()).unwrap();
        let mut headers = unhex(&recording.syn);
        for (at, value) in changes {
            let at = at.index(headers.len());
            headers[at] = value;
        }
        if let Some(signature) = syn::signature(&headers) {
            prop_assert!(signature.bytes().all(|b| b.is_ascii_graphic()) && signature.len() < 300, "{signature}");
        }
    }

    #[test]
    fn any_header_is_a_claim_or_nothing(agent in "\\PC{0,200}", brands in "[\"\\\\;=, a-zA-Z0-9v]{0,80}", platform in "\"?[a-zA-Z ]{0,9}\"?") {
        let mut headers = HeaderMap::new();
        for (name, value) in [("user-agent", agent), ("sec-ch-ua", brands), ("sec-ch-ua-platform", platform)] {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        claims(&headers);
    }
}

fn fingerprints_are_well_formed(hello: &Hello) {
    for ja4 in [hello.ja4(), hello.ja4_stable()] {
        let parts: Vec<_> = ja4.as_str().split('_').map(str::len).collect();
        assert_eq!(parts, [10, 12, 12], "{ja4}");
        assert!(ja4.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{ja4}");
    }
    assert!(hello.ja4_r().starts_with(hello.ja4().as_str().split('_').next().unwrap()));
}
