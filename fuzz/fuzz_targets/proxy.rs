#![no_main]

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use lab::Proxy;
use libfuzzer_sys::fuzz_target;

/// Answered and then closed by the proxy, unless what came before means otherwise.
const LAST: &[u8] = b"\r\n\r\nGET /last HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n";

static PROXY: LazyLock<Proxy> = LazyLock::new(Proxy::start);

// The bytes of an HTTP/1 connection, through the whole proxy. What the app receives was counted, is what the policy lets through, and has our word on
// who asks; an answer belongs to a request of this connection.
fuzz_target!(|bytes: &[u8]| {
    let answers = ask(&PROXY, bytes);
    PROXY.check(&answers);
});

fn ask(proxy: &Proxy, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy.plain).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let _ = stream.write_all(&[bytes, LAST].concat());
    let mut answers = Vec::new();
    if matches!(stream.read_to_end(&mut answers), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        // It waits for the rest of something.
        let _ = stream.shutdown(Shutdown::Write);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ended = stream.read_to_end(&mut answers);
        assert!(!matches!(ended, Err(error) if error.kind() == ErrorKind::WouldBlock), "neither answered nor closed");
    }
    answers
}
