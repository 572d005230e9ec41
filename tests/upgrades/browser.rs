//! A browser's WebSocket: over TLS, beside the page that opened it, on the page's own HTTP/2 connection.

use std::sync::mpsc::channel;

use super::support::{chromium, eventually};
use super::*;

const PAGE: &str = "<!doctype html><title>none</title><script>\
     const ws = new WebSocket('wss://' + location.host + '/ws', 'chat');\
     ws.onmessage = m => { document.title = 'heard ' + m.data + ' by ' + ws.protocol; ws.send('done'); };\
     ws.onopen = () => ws.send('hello');\
     </script><img src=/wait>";

/// A short frame of a client, unmasked.
fn message(peer: &mut Peer) -> Vec<u8> {
    let head = peer.take(2);
    let mask = peer.take(4);
    let masked = peer.take(usize::from(head[1] & 0x7f));
    masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

#[test]
fn chromium_talks_to_an_app() {
    let (heard, hears) = channel::<()>();
    let (heard, hears) = (Mutex::new(heard), Mutex::new(hears));
    let app = App::start(move |head, mut peer| {
        let mut head = head.to_owned();
        loop {
            let body = match head.split(' ').nth(1).unwrap_or_default() {
                "/ws" => {
                    peer.write(switched(&head).as_bytes());
                    let said = message(&mut peer);
                    peer.write(&frame(1, &said));
                    assert_eq!(message(&mut peer), b"done");
                    heard.lock().unwrap().send(()).unwrap();
                    while peer.more().is_some() {}
                    return;
                }
                // The page is not loaded before the message has come.
                "/wait" => {
                    hears.lock().unwrap().recv_timeout(DEADLINE).unwrap();
                    ""
                }
                _ => PAGE,
            };
            peer.write(format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
            let Some(next) = peer.head() else { return };
            head = next;
        }
    });
    let world = World::new(app);
    let seen = chromium::open(&world.lab, &format!("https://wiki.localhost:{}/", world.proxy.addr("edge").port()), &[]);
    assert!(seen.dom.contains("<title>heard hello by chat</title>"), "{} {:?}", seen.dom, seen.console);
    let head = world.app.heads().into_iter().find(|head| head.starts_with("GET /ws ")).unwrap();
    assert!(field(&head, "origin")[0].starts_with("https://wiki.localhost:"), "{head}");
    let line = eventually("the WebSocket's line", || world.lab.decisions(1).into_iter().find(|line| line["path"] == "/ws"));
    assert_eq!((line["status"].as_u64(), line["wire"]["h2"].is_string()), (Some(101), true), "{line}");
}
