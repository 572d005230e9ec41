#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use vestibule::identify::{Path, claims, compare, sides};
use vestibule::model::Identification;

const NAMES: [&str; 5] = ["user-agent", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-ch-ua-platform-version"];

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for (name, line) in NAMES.into_iter().zip(bytes.split(|&byte| byte == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let sides = sides(&headers);
    assert_eq!(sides.merged, claims(&headers));
    // Nothing is known of the wire, so only the two sides can contradict each other.
    let compared = compare(&sides, &Identification::default(), None, Path::default());
    assert!(compared.contradictions.iter().all(|kind| kind.as_str() == "ua_vs_hints"));
});
