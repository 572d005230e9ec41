#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::fingerprint::order::{Arriving, Version};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[b"GET / HTTP/1.1\r\n", bytes, b"\r\n\r\n"].concat());
});

fn check(bytes: &[u8]) {
    let whole = Arriving::default().read(bytes);
    for size in [1, 7, 100] {
        let mut arriving = Arriving::default();
        let cuts = (1..=bytes.len().div_ceil(size)).map(|count| (count * size).min(bytes.len()));
        let first = cuts.map(|have| arriving.read(&bytes[..have])).find(|read| *read != Ok(None));
        assert_eq!(first.unwrap_or(Ok(None)), whole);
    }
    let Ok(Some(names)) = whole else { return };
    let order = names.order(Version::Http1);
    assert!(order.len() == 18 && order.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{order}");
    assert!(names.order_r().len() < 100 * 65 && names.order_r().bytes().all(|byte| byte.is_ascii_graphic()));
}
