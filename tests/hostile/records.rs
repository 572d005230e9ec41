//! How answers are cut into TLS records. A wrapper on the way that forgets vectored writes costs each answer a second record and a second write.

use super::*;

#[test]
fn head_and_body_of_an_answer_come_in_one_tls_record() {
    let world = World::new("{}");
    let RawTls { mut stream } = world.tls();
    // The first answer may come with a session ticket.
    for nth in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n").unwrap();
        let mut raw = Vec::new();
        let mut text = String::new();
        while !text.contains("good") {
            let mut part = [0; 16 * 1024];
            let n = stream.sock.read(&mut part).unwrap();
            assert!(n > 0, "closed: {text}");
            raw.extend_from_slice(&part[..n]);
            let mut left = &part[..n];
            while !left.is_empty() {
                stream.conn.read_tls(&mut left).unwrap();
                let state = stream.conn.process_new_packets().unwrap();
                let mut plain = vec![0; state.plaintext_bytes_to_read()];
                stream.conn.reader().read_exact(&mut plain).unwrap();
                text += std::str::from_utf8(&plain).unwrap();
            }
        }
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\ngood"), "{text}");
        if nth > 0 {
            assert_eq!(records(&raw), [23], "one record of data");
        }
    }
}

/// The type of each record.
fn records(mut raw: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = raw {
        kinds.push(*kind);
        raw = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    kinds
}
