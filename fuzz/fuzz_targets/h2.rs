#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::fingerprint::h2::{Arriving, Opened};
use vestibule::fingerprint::order::Version;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fuzz_target!(|bytes: &[u8]| {
    // As they come from the network.
    check(bytes);
    // As frames, and as the one header block of a client that sends nothing else.
    check(&[PREFACE, bytes].concat());
    let length = u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
    check(&[PREFACE, &length[1..], &[1, 4, 0, 0, 0, 1], bytes].concat());
});

fn check(bytes: &[u8]) {
    let whole = Arriving::default().read(bytes);
    // The same, however it comes.
    for size in [1, 7, 100] {
        let mut arriving = Arriving::default();
        let cuts = (1..=bytes.len().div_ceil(size)).map(|count| (count * size).min(bytes.len()));
        let first = cuts.map(|have| arriving.read(&bytes[..have])).find(|read| *read != Ok(None));
        assert_eq!(first.unwrap_or(Ok(None)), whole);
    }
    let Ok(Some(Opened { opening, names })) = whole else { return };
    assert!(opening.len() < 3000 && opening.split('|').count() == 4, "{opening}");
    assert!(opening.bytes().all(|byte| byte.is_ascii_graphic()), "{opening}");
    let order = names.order(Version::Http2);
    assert!(order.len() == 18 && order.starts_with("h2"), "{order}");
    assert!(names.order_r().bytes().all(|byte| byte.is_ascii_graphic()));
}
