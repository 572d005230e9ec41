#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::request::{Progress, proxy_header};

const MOST: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[b"PROXY ", bytes, b"\r\n"].concat());
    check(&[b"\r\n\r\n\0\r\nQUIT\n\x21", bytes].concat());
});

fn check(bytes: &[u8]) {
    match proxy_header(bytes, MOST) {
        Ok(Progress::NeedMore) => {
            for length in 0..bytes.len() {
                assert_eq!(proxy_header(&bytes[..length], MOST), Ok(Progress::NeedMore));
            }
        }
        Ok(Progress::Whole(header, length)) => {
            assert!(length <= bytes.len() && length <= MOST);
            assert!(header.client.is_none_or(|client| client.ip() == client.ip().to_canonical()));
            assert_eq!(proxy_header(&bytes[..length - 1], MOST), Ok(Progress::NeedMore));
            assert_eq!(proxy_header(&bytes[..length], MOST), Ok(Progress::Whole(header, length)));
        }
        Err(_) => {}
    }
}
