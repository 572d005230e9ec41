//! Each rule of JA4 is a test, on hellos that no client sends but the rules cover; `tests/fingerprints.rs` has the real ones.

use super::*;

/// A hello as its parts, for tests to bend.
#[derive(Clone)]
struct Draft {
    version: u16,
    ciphers: Vec<u16>,
    /// `None`: the hello ends before the list, as in TLS 1.0.
    extensions: Option<Vec<(u16, Vec<u8>)>>,
}

fn draft() -> Draft {
    Draft { version: 0x0303, ciphers: vec![0x1302, 0x1301], extensions: Some(vec![]) }
}

impl Draft {
    fn with(mut self, kind: u16, data: impl Into<Vec<u8>>) -> Self {
        self.extensions.as_mut().unwrap().push((kind, data.into()));
        self
    }

    fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend([2, 0xaa, 0xbb]);
        body.extend(block(&bytes(&self.ciphers)));
        body.extend([1, 0]);
        if let Some(extensions) = &self.extensions {
            let mut all = Vec::new();
            for (kind, data) in extensions {
                all.extend(kind.to_be_bytes());
                all.extend(block(data));
            }
            body.extend(block(&all));
        }
        let mut message = vec![1, 0];
        message.extend(block(&body));
        message
    }

    fn hello(&self) -> Hello {
        whole(&records(&self.message(), usize::MAX))
    }

    fn raw(&self) -> String {
        self.hello().ja4_r()
    }
}

fn block(inside: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(inside.len()).unwrap().to_be_bytes().to_vec();
    out.extend(inside);
    out
}

fn bytes(codes: &[u16]) -> Vec<u8> {
    codes.iter().flat_map(|code| code.to_be_bytes()).collect()
}

fn algorithms(codes: &[u16]) -> Vec<u8> {
    block(&bytes(codes))
}

fn versions(codes: &[u16]) -> Vec<u8> {
    let mut out = vec![u8::try_from(codes.len() * 2).unwrap()];
    out.extend(bytes(codes));
    out
}

fn alpn(values: &[&[u8]]) -> Vec<u8> {
    let mut list = Vec::new();
    for value in values {
        list.push(u8::try_from(value.len()).unwrap());
        list.extend(*value);
    }
    block(&list)
}

fn sni(name: &[u8]) -> Vec<u8> {
    let mut list = vec![0];
    list.extend(block(name));
    block(&list)
}

/// The message in handshake records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for fragment in message.chunks(size.min(1 << 14)) {
        out.extend([22, 3, 1]);
        out.extend(block(fragment));
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

#[test]
fn the_published_example() {
    // FoxIO-LLC/ja4, technical_details/JA4.md: Chrome, with GREASE where Chrome puts it, in another order.
    let mut chrome = draft()
        .with(0x3a3a, [])
        .with(0xff01, [0])
        .with(0x0000, sni(b"clientservices.googleapis.com"))
        .with(0x0017, [])
        .with(0x000a, [])
        .with(0x000b, [])
        .with(0x0023, [])
        .with(0x0010, alpn(&[b"h2", b"http/1.1"]))
        .with(0x0005, [])
        .with(0x000d, algorithms(&[0x1a1a, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]))
        .with(0x0012, [])
        .with(0x0033, [])
        .with(0x002d, [])
        .with(0x002b, versions(&[0xaaaa, 0x0304, 0x0303]))
        .with(0x001b, [])
        .with(0x4469, [])
        .with(0xdada, [0])
        .with(0x0015, [0; 9]);
    chrome.ciphers = vec![
        0x8a8a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
    ];
    let hello = chrome.hello();
    assert_eq!(hello.ja4().as_str(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(
        hello.ja4_r(),
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_\
         0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601"
    );
    assert_eq!(hello.sni(), Some("clientservices.googleapis.com"));
}

#[test]
fn grease_is_exactly_sixteen_values() {
    let grease: Vec<u16> = (0..=u16::MAX).filter(|&code| is_grease(code)).collect();
    let rfc8701: Vec<u16> = (0..16u16).map(|nibble| (nibble << 12 | 0x0a00) | (nibble << 4 | 0x0a)).collect();
    assert_eq!(grease, rfc8701);
    assert!(!is_grease(0xefef) && !is_grease(0xeeee) && !is_grease(0x0a1a));
}

#[test]
fn grease_is_stripped_everywhere_and_not_counted() {
    let mut greased = draft()
        .with(0x0a0a, [])
        .with(0xfafa, [1])
        .with(0xefef, [])
        .with(43, versions(&[0xfafa, 0x0303]))
        .with(13, algorithms(&[0xcaca, 0x0804, 0x5a5a, 0xeeee]));
    greased.ciphers = vec![0x2a2a, 0x1301, 0xefef, 0xeaea];
    assert_eq!(greased.raw(), "t12i020300_1301,efef_000d,002b,efef_0804,eeee");
}

#[test]
fn the_version_is_the_highest_supported_one() {
    assert_eq!(draft().with(43, versions(&[0x0302, 0x0304, 0x0303])).raw(), "t13i020100_1301,1302_002b");
    assert_eq!(draft().with(43, versions(&[0x0301, 0xfafa, 0x0302])).raw(), "t11i020100_1301,1302_002b");
    // A draft version is no version that JA4 knows.
    assert_eq!(draft().with(43, versions(&[0x0303, 0x7f1c])).raw(), "t00i020100_1301,1302_002b");
}

#[test]
fn without_supported_versions_the_legacy_version_counts() {
    for (legacy, printed) in
        [(0x0304, "13"), (0x0303, "12"), (0x0302, "11"), (0x0301, "10"), (0x0300, "s3"), (0x0002, "s2"), (0x0305, "00"), (0xfefd, "00")]
    {
        let mut old = draft();
        old.version = legacy;
        assert_eq!(old.raw(), format!("t{printed}i020000_1301,1302_"));
    }
    // Nothing usable inside.
    for inside in [vec![], vec![0], vec![9, 3, 4], versions(&[0x1a1a])] {
        assert_eq!(draft().with(43, inside).raw(), "t12i020100_1301,1302_002b");
    }
}

#[test]
fn the_version_of_the_record_never_counts() {
    let mut bytes = records(&draft().message(), usize::MAX);
    let before = whole(&bytes);
    bytes[2] = 4;
    assert_eq!(whole(&bytes), before);
}

#[test]
fn the_transport_is_not_guessed_from_extension_57() {
    assert!(draft().with(57, [1, 2, 3]).raw().starts_with("t12i0201"));
}

#[test]
fn sni_is_there_when_the_extension_is() {
    let sni_of = |inside: Vec<u8>| {
        let hello = draft().with(0, inside).hello();
        assert!(hello.ja4().as_str().starts_with("t12d0201"), "{hello:?}");
        hello.sni().map(str::to_owned)
    };
    assert_eq!(sni_of(sni(b"wiki.example")), Some("wiki.example".into()));
    assert_eq!(sni_of(sni(b"192.0.2.1")), Some("192.0.2.1".into()));
    assert_eq!(sni_of(vec![]), None);
    assert_eq!(sni_of(vec![0, 9, 1]), None);
    assert_eq!(sni_of(sni(b"")), None);
    assert_eq!(sni_of(sni(b"a b")), None);
    assert_eq!(sni_of(sni(&[0xff, 0xfe])), None);
    assert_eq!(sni_of(sni(&[b'a'; 255])).map(|name| name.len()), Some(255));
    assert_eq!(sni_of(sni(&[b'a'; 256])), None);
    let mut two = sni(b"a");
    two.push(0);
    assert_eq!(sni_of(two), None);
    assert!(draft().raw().starts_with("t12i0200"));
    let twice = draft().with(0, sni(b"first")).with(0, sni(b"second")).hello();
    assert_eq!((twice.sni(), twice.ja4_r().as_str()), (Some("first"), "t12d020200_1301,1302_"));
}

#[test]
fn alpn_prints_the_first_value_only() {
    let printed = |inside: Vec<u8>| draft().with(16, inside).raw().get(8..10).unwrap().to_owned();
    assert_eq!(printed(alpn(&[b"h2", b"http/1.1"])), "h2");
    assert_eq!(printed(alpn(&[b"http/1.1", b"h2"])), "h1");
    assert_eq!(printed(alpn(&[b"h"])), "hh");
    assert_eq!(printed(alpn(&[])), "00");
    assert_eq!(printed(alpn(&[b"", b"h2"])), "00");
    assert_eq!(printed(vec![]), "00");
    assert_eq!(printed(vec![0, 3, 9, b'h']), "00");
    assert_eq!(draft().raw().get(8..10), Some("00"));
    // Not alphanumeric at either end: digits of the whole value's hex.
    assert_eq!(printed(alpn(&[&[0xab]])), "ab");
    assert_eq!(printed(alpn(&[&[0xab, 0xcd]])), "ad");
    assert_eq!(printed(alpn(&[&[0x30, 0xab]])), "3b");
    assert_eq!(printed(alpn(&[&[0x30, 0x31, 0xab, 0xcd]])), "3d");
    assert_eq!(printed(alpn(&[&[0x30, 0xab, 0xcd, 0x31]])), "01");
    assert_eq!(printed(alpn(&[b"-x"])), "28");
    // GREASE ALPN is not skipped.
    assert_eq!(printed(alpn(&[&[0x0a, 0x0a], b"h2"])), "0a");
    // A second extension does not count, even when the first was empty.
    assert_eq!(draft().with(16, alpn(&[])).with(16, alpn(&[b"h2"])).raw(), "t12i020200_1301,1302_");
}

#[test]
fn counts_include_sni_alpn_and_scsv() {
    let mut scsv = draft().with(0, sni(b"a")).with(16, alpn(&[b"h2"])).with(23, []);
    scsv.ciphers = vec![0x00ff, 0x5600, 0x1301];
    assert_eq!(scsv.raw(), "t12d0303h2_00ff,1301,5600_0017");
}

#[test]
fn counts_above_99_print_99_and_all_are_hashed() {
    let many = |count: u16| {
        let mut many = draft();
        many.ciphers = (0..count).collect();
        many.extensions = Some((100..100 + count).map(|kind| (kind, vec![])).collect());
        many.hello()
    };
    let (hundred, more) = (many(99), many(320));
    assert!(hundred.ja4_r().starts_with("t12i999900_") && more.ja4_r().starts_with("t12i999900_"));
    // The 16 GREASE values from 0x0a0a on are far above 320, so nothing was stripped.
    assert_eq!(more.ja4_r().split(',').count(), 2 * 320 - 1);
    let parts = |hello: &Hello| hello.ja4().as_str().split('_').map(str::to_owned).collect::<Vec<_>>();
    assert!(parts(&hundred).iter().skip(1).zip(parts(&more).iter().skip(1)).all(|(a, b)| a != b));
}

#[test]
fn empty_lists_are_twelve_zeros() {
    let mut bare = draft();
    bare.ciphers.clear();
    assert_eq!(bare.hello().ja4().as_str(), "t12i000000_000000000000_000000000000");
    assert_eq!(bare.raw(), "t12i000000__");
    // Only SNI and ALPN: counted, but nothing is left to hash.
    let ja4 = draft().with(0, sni(b"a")).with(16, alpn(&[b"h2"])).hello().ja4();
    assert!(ja4.as_str().starts_with("t12d0202h2_") && ja4.as_str().ends_with("_000000000000"));
    // A hello that ends before its extensions.
    let mut old = draft();
    old.extensions = None;
    assert_eq!(old.hello(), draft().hello());
}

#[test]
fn algorithms_keep_their_order_and_come_from_extension_13_alone() {
    let signed = draft().with(50, algorithms(&[0x0101])).with(34, algorithms(&[0x0202])).with(13, algorithms(&[0x0804, 0x0403, 0x0804]));
    assert_eq!(signed.raw(), "t12i020300_1301,1302_000d,0022,0032_0804,0403,0804");
    // None of them: no underscore.
    for inside in [vec![], vec![0, 0], vec![0, 9, 8, 4]] {
        assert_eq!(draft().with(13, inside).raw(), "t12i020100_1301,1302_000d");
    }
    // An odd byte at the end is no algorithm.
    assert_eq!(draft().with(13, [0, 3, 8, 4, 9]).raw(), "t12i020100_1301,1302_000d_0804");
}

#[test]
fn duplicates_count_as_seen() {
    let mut twice = draft().with(23, []).with(23, []).with(13, algorithms(&[0x0403])).with(13, algorithms(&[0x0403]));
    twice.ciphers = vec![0x1301, 0x1301];
    assert_eq!(twice.raw(), "t12i020400_1301,1301_000d,000d,0017,0017_0403,0403");
}

#[test]
fn stable_leaves_out_what_changes_between_connections() {
    let lasting = draft().with(0, sni(b"a")).with(16, alpn(&[b"h2"])).with(13, algorithms(&[0x0403])).with(43, versions(&[0x0304]));
    let mut passing = lasting.clone();
    for kind in [44, 35, 21, 41, 42, 41] {
        passing = passing.with(kind, [0; 3]);
    }
    assert_eq!(passing.hello().ja4_stable(), lasting.hello().ja4());
    assert_eq!(lasting.hello().ja4_stable(), lasting.hello().ja4());
    for hello in [passing.hello(), lasting.hello()] {
        assert_eq!(hello.ja4s(), (hello.ja4(), hello.ja4_stable()));
    }
    assert!(passing.raw().starts_with("t13d0210h2_"));
    // Only such extensions: twelve zeros.
    assert_eq!(draft().with(21, []).hello().ja4_stable(), draft().hello().ja4());
}

#[test]
fn only_the_first_hello_counts() {
    let first = draft().message();
    let mut bytes = records(&first, usize::MAX);
    bytes.extend(records(&draft().with(44, [1]).message(), usize::MAX));
    bytes.extend(b"whatever comes then");
    assert_eq!(whole(&bytes), draft().hello());
    // Also when both are in one record.
    let mut both = first.clone();
    both.extend(draft().with(44, [1]).message());
    assert_eq!(whole(&records(&both, usize::MAX)), draft().hello());
}

#[test]
fn every_prefix_needs_more_whatever_the_records() {
    let message = draft().with(0, sni(b"wiki.example")).with(13, algorithms(&[0x0403, 0x0804])).with(21, [0; 300]).message();
    let expected = whole(&records(&message, usize::MAX));
    for size in [1, 2, 3, 4, 5, 7, 64, 255, message.len() - 1, message.len()] {
        let bytes = records(&message, size);
        let mut arriving = Arriving::default();
        for cut in 0..bytes.len() {
            assert!(matches!(read(&bytes[..cut]), Progress::NeedMore), "record size {size}, cut {cut}: {:?}", read(&bytes[..cut]));
            assert!(matches!(arriving.read(&bytes[..cut]), Progress::NeedMore), "record size {size}, cut {cut}");
        }
        match arriving.read(&bytes) {
            Progress::Hello(hello) => assert_eq!(hello, expected),
            other => panic!("record size {size}: {other:?}"),
        }
        assert_eq!(whole(&bytes), expected, "record size {size}");
    }
}

/// A message cut short with its own length mended is malformed at every cut, except where the list of extensions may be left out.
#[test]
fn every_prefix_of_the_message_is_malformed() {
    let message = draft().with(0, sni(b"wiki.example")).with(43, versions(&[0x0304])).message();
    let before_extensions = message.len() - 2 - (4 + 17) - (4 + 3);
    for cut in 4..message.len() {
        let mut short = vec![1, 0];
        short.extend(block(&message[4..cut]));
        match read(&records(&short, usize::MAX)) {
            Progress::Malformed(_) => assert_ne!(cut, before_extensions),
            Progress::Hello(hello) => assert_eq!((cut, hello.extensions.len()), (before_extensions, 0)),
            other => panic!("{cut}: {other:?}"),
        }
    }
}

#[test]
fn other_protocols_are_not_tls() {
    let sslv2 = [0x80, 0x2e, 0x01, 0x00, 0x02, 0x00, 0x15, 0x00, 0x00, 0x00, 0x10];
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0",
        b"SSH-2.0-",
        b"PROXY TCP4",
        &sslv2,
        &[0],
        &[21, 3, 1, 0, 2, 1, 0],
        &[23, 3, 3],
        &[22, 2],
        &[22, b'G', b'E'],
    ] {
        assert!(matches!(read(bytes), Progress::NotTls), "{bytes:?}");
        // The first byte that shows it is enough.
        let enough = if bytes[0] == 22 { 2 } else { 1 };
        assert!(matches!(read(&bytes[..enough]), Progress::NotTls));
    }
    assert!(matches!(read(&[]), Progress::NeedMore));
}

#[test]
fn broken_framing_is_named() {
    let named = |bytes: &[u8]| match read(bytes) {
        Progress::Malformed(field) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(&[22, 3, 1, 0, 0]), "record_length");
    assert_eq!(named(&[22, 3, 1, 0x40, 1]), "record_length");
    assert_eq!(named(&[22, 3, 1, 0, 9, 2]), "handshake_type");
    // A record of another kind in the middle of the message.
    let message = draft().message();
    let mut interleaved = records(&message[..9], usize::MAX);
    interleaved.extend([21, 3, 1, 0, 2, 1, 0]);
    interleaved.extend(records(&message[9..], usize::MAX));
    assert_eq!(named(&interleaved), "record_type");
    interleaved.splice(9 + RECORD_HEADER..9 + 2 * RECORD_HEADER + 2, []);
    assert_eq!(whole(&interleaved), draft().hello());
    interleaved[9 + RECORD_HEADER + 1] = 2;
    assert_eq!(named(&interleaved), "record_version");
    // An odd list of ciphers; bytes after the extensions.
    let mut odd = message.clone();
    let ciphers = 4 + 2 + 32 + 3;
    odd[ciphers + 1] += 1;
    odd.insert(ciphers + 2, 0x13);
    odd[3] += 1;
    assert_eq!(named(&records(&odd, usize::MAX)), "cipher_suites");
    let mut trailing = message;
    trailing.push(0);
    trailing[3] += 1;
    assert_eq!(named(&records(&trailing, usize::MAX)), "client_hello");
}

#[test]
fn a_message_that_never_ends_stays_need_more() {
    let mut bytes = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    bytes.resize(60_000, 0);
    assert!(matches!(read(&bytes), Progress::NeedMore));
}

#[test]
fn an_arriving_hello_walks_each_record_once() {
    let message = draft().with(21, [0; 900]).message();
    let bytes = records(&message, 1);
    let mut arriving = Arriving::default();
    for have in 0..bytes.len() {
        arriving.read(&bytes[..have]);
    }
    // Everything but the record that was not whole.
    assert_eq!((arriving.next_record, arriving.have), (bytes.len() - RECORD_HEADER - 1, message.len() - 1));
    assert!(matches!(arriving.read(&bytes), Progress::Hello(_)));
    // Fewer bytes than before are no reason to panic.
    assert!(matches!(arriving.read(&bytes[..9]), Progress::NeedMore));
}

/// Both examples of github.com/salesforce/ja3, README.md.
#[test]
fn ja3_as_published() {
    let mut hello = draft().with(0, sni(b"a")).with(10, algorithms(&[23, 24, 25])).with(11, [1, 0]);
    hello.version = 769;
    hello.ciphers = vec![47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4];
    assert_eq!(hello.hello().ja3_r(), "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0");
    assert_eq!(&*hello.hello().ja3(), "ada70206e40642a3e4461f35503241d5");
    let mut bare = draft();
    (bare.version, bare.extensions) = (769, None);
    bare.ciphers = vec![4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99];
    assert_eq!(bare.hello().ja3_r(), "769,4-5-10-9-100-98-3-6-19-18-99,,,");
    assert_eq!(&*bare.hello().ja3(), "de350869b8c85de67a350c8d186f11e6");
}

#[test]
fn ja3_keeps_wire_order_and_strips_grease() {
    let mut hello = draft()
        .with(0x1a1a, [])
        .with(23, [])
        .with(43, versions(&[0x0304]))
        .with(10, algorithms(&[0x2a2a, 29, 23]))
        .with(11, [3, 0, 1, 2])
        .with(10, algorithms(&[30]));
    hello.ciphers = vec![0x3a3a, 0x1302, 0x1301];
    assert_eq!(hello.hello().ja3_r(), "771,4866-4865,23-43-10-11-10,29-23,0-1-2", "the version is that of the hello itself");
    for inside in [vec![], vec![9], vec![0, 9, 1]] {
        assert_eq!(draft().with(10, inside.clone()).with(11, inside).hello().ja3_r(), "771,4866-4865,10-11,,");
    }
}
