#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;
use vestibule::request::{PathOptions, asked, path, same_segments};

const NAMES: [&str; 4] = ["x-forwarded-uri", "x-forwarded-host", "x-forwarded-method", "host"];

// The question's target in the first line, then fields, one a line.
fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(Ok(uri)) = lines.next().map(Uri::try_from) else { return };
    let mut headers = HeaderMap::new();
    for (line, name) in lines.zip(NAMES.iter().cycle()).take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let Ok(read) = asked(&Method::GET, &uri, &headers) else { return };
    assert!(read.target.as_str().starts_with('/') && !read.target.as_str().contains('#'));
    assert!(uri.path().starts_with("/.well-known/vestibule/"));
    let raw = read.target.path();
    if let Ok(canonical) = path(raw, &PathOptions::LENIENT)
        && same_segments(raw, &canonical)
    {
        assert_eq!(raw.split('/').count(), canonical.split('/').count());
        assert!(!raw.split('/').any(|segment| matches!(segment, "." | "..")));
    }
});
