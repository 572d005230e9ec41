#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::fingerprint::syn::signature;

fuzz_target!(|bytes: &[u8]| {
    if let Some(line) = signature(bytes) {
        assert!(line.len() < 300 && line.bytes().all(|byte| byte.is_ascii_graphic()), "{line}");
        let longer = [bytes, &[0xff; 8]].concat();
        assert_eq!(signature(&longer), Some(line));
    }
});
