#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::fingerprint::hello::{Arriving, Hello, Progress, read};

fuzz_target!(|bytes: &[u8]| {
    // As they come from the network.
    read(bytes);

    // As one message, which must look the same in one record, in tiny records, and one byte at a time.
    let whole = hello(read(&records(bytes, 1 << 14)));
    for size in [1, 2, 3, 7, 100] {
        let cut = records(bytes, size);
        assert_eq!(hello(read(&cut)), whole);
        let mut arriving = Arriving::default();
        let first = (0..=cut.len()).map(|have| arriving.read(&cut[..have])).find(|progress| !matches!(progress, Progress::NeedMore));
        assert_eq!(first.and_then(hello), whole);
    }
    if let Some(hello) = whole {
        assert_eq!(hello.ja4().as_str().len(), 36);
        assert_eq!(hello.ja4_stable().as_str().len(), 36);
        assert!(hello.ja4_r().starts_with(&hello.ja4().as_str()[..10]));
        assert_eq!(hello.ja3_r().split(',').count(), 5);
        assert_eq!(hello.ja3().len(), 32);
    }
});

fn hello(progress: Progress) -> Option<Hello> {
    match progress {
        Progress::Hello(hello) => Some(hello),
        Progress::NeedMore | Progress::NotTls | Progress::Malformed(_) => None,
    }
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for fragment in message.chunks(size) {
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        out.extend(fragment);
    }
    out
}
