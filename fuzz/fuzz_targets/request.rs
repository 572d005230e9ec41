#![no_main]

mod decoded;

use std::net::{Ipv4Addr, Ipv6Addr};

use decoded::decoded;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;
use vestibule::request::framing::Watch;
use vestibule::request::{EncodedSlash, Parameters, PathOptions, Slashes, authority_of, host, path};

const KEEP: PathOptions = PathOptions { encoded_slash: EncodedSlash::Keep, parameters: Parameters::Keep, slashes: Slashes::Keep };

// The first line as a path, the second as a host and as the authority of a target, all of it as the bytes of a connection.
fuzz_target!(|bytes: &[u8]| {
    watched(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    paths(first);
    hosts(second);
    authorities(first, second);
});

fn paths(raw: &str) {
    for options in [PathOptions::STRICT, PathOptions::LENIENT, KEEP] {
        let Ok(canonical) = path(raw, &options) else { continue };
        assert_eq!(path(&canonical, &options).as_deref(), Ok(&*canonical), "the canonical form is its own");
        assert!(canonical.starts_with('/') && canonical.len() <= raw.len() * 3, "{canonical}");
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
        assert!(canonical.bytes().all(allowed), "{canonical}");
        // What an app may do to it, in any order, finds no dot segment.
        let decoded = decoded(canonical.as_bytes());
        dotless(&decoded, &canonical);
        dotless(&cut(canonical.as_bytes()), &canonical);
        dotless(&cut(&decoded), &canonical);
        dotless(&self::decoded(&cut(canonical.as_bytes())), &canonical);
        assert!(!decoded.iter().any(|b| b.is_ascii_control() || *b == b'\\'), "{canonical}");
        if options == PathOptions::STRICT {
            assert!(!canonical.contains([';', '#', '?']) && !canonical.contains("//"), "{canonical}");
            assert_eq!(decoded.iter().filter(|b| **b == b'/').count(), canonical.matches('/').count(), "{canonical}");
            assert_eq!(path(raw, &PathOptions::LENIENT).as_deref(), Ok(&*canonical), "an app is found by what it is asked for");
        }
    }
}

/// Without parameters, as servlets read a path.
fn cut(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').map(|part| part.split(|b| *b == b';').next().unwrap()).collect();
    parts.join(&b'/')
}

fn dotless(path: &[u8], canonical: &str) {
    assert!(path.split(|b| *b == b'/').all(|part| part != b"." && part != b".."), "{canonical}");
}

fn hosts(text: &str) {
    let Ok(canonical) = host(text) else { return };
    let name = canonical.as_str();
    assert_eq!(host(name), Ok(canonical.clone()));
    assert!(!name.is_empty() && name.len() <= 253 && !name.ends_with('.') && !name.bytes().any(|b| b.is_ascii_uppercase()), "{name}");
    if let Some(inner) = name.strip_prefix('[') {
        assert_eq!(inner.strip_suffix(']').unwrap().parse::<Ipv6Addr>().unwrap().to_string(), inner[..inner.len() - 1]);
        return;
    }
    assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{name}");
    assert!(name.split('.').all(|label| (1..=63).contains(&label.len())), "{name}");
    let last = name.rsplit('.').next().unwrap();
    assert!(!last.bytes().all(|b| b.is_ascii_digit()) || name.parse::<Ipv4Addr>().is_ok(), "{name}");
}

fn authorities(target: &str, field: &str) {
    let Ok(uri) = target.parse::<Uri>() else { return };
    let Ok(value) = HeaderValue::from_str(field) else { return };
    let mut headers = HeaderMap::new();
    headers.append(HOST, value.clone());
    let alone = authority_of(&Uri::from_static("/"), &headers).map(|a| (a.host.into_owned(), a.port));
    let both = authority_of(&uri, &headers).map(|a| (a.host.into_owned(), a.port));
    match uri.authority() {
        None => assert_eq!(both, alone),
        // Whatever wins, the other said the same.
        Some(_) if both.is_ok() => assert_eq!(both, alone),
        Some(_) => {}
    }
    headers.append(HOST, value);
    assert!(authority_of(&uri, &headers).is_err(), "two fields are no host");
}

fn watched(bytes: &[u8]) {
    let mut whole = bytes.to_vec();
    let mut watch = Watch::default();
    watch.pass(&mut whole);
    for size in [1, 7] {
        let mut parts = bytes.to_vec();
        let mut again = Watch::default();
        parts.chunks_mut(size).for_each(|part| again.pass(part));
        assert_eq!((&parts, again.is_between()), (&whole, watch.is_between()), "however the bytes come");
    }
    // At most one byte of each connection is spoilt: then nothing more is read.
    let spoilt: Vec<_> = whole.iter().zip(bytes).filter(|(now, before)| now != before).collect();
    assert!(spoilt.len() <= 1 && spoilt.iter().all(|(now, _)| **now == 0));
}
