#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::config::signatures;
use vestibule::fingerprint::Known;
use vestibule::identify::{Path, compare};
use vestibule::model::{Ja4, Opening, Os, Sides, Traits, Wire};

// An operator's table; after a line `---` the lists of a hello, an HTTP/2 opening and a SYN that are looked up in it.
fuzz_target!(|bytes: &[u8]| {
    let (table, client) = split(bytes);
    let Ok(rows) = signatures::read("known.yaml".as_ref(), table) else { return };
    let known = Known::new(Vec::new(), rows);

    let mut lists = client.split(|&byte| byte == b'\n');
    let mut codes = || -> Vec<u16> { lists.next().unwrap_or_default().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect() };
    let [ciphers, extensions, algorithms, groups] = [(); 4].map(|()| codes());
    let mut text = || lists.next().and_then(|line| std::str::from_utf8(line).ok()).map(Box::from);
    let opening = Opening { h2: text(), ..Opening::default() };
    let wire = Wire {
        ja4_stable: Ja4::new(*b"t13d1516h2_8daaf6152771_22db41f7518f"),
        traits: Some(Traits::new([&ciphers, &extensions, &algorithms, &groups], bytes.len() % 2 == 0)),
        syn: text(),
        ..Wire::default()
    };
    let found = known.identify(&wire, &opening);
    let compared = compare(&Sides::default(), &found, Some(Os::Linux), Path::default());
    assert!(compared.strong.both(compared.contradictions) == compared.strong);
    assert_eq!(compared.clashes.len(), compared.contradictions.len());
});

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mark = b"\n---\n";
    match bytes.windows(mark.len()).position(|window| window == mark) {
        Some(at) => (&bytes[..at], &bytes[at + mark.len()..]),
        None => (bytes, &[]),
    }
}
