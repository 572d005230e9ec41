//! HTTP/2 requests that cost more to take than to send.

use super::floods::{FRAMES, ended, ended_as, flood, stream};
use super::*;

const WHOLE: u8 = h2::END_HEADERS | h2::END_STREAM;

fn hang() -> Vec<u8> {
    h2::block(&h2::get("wiki.localhost", "/hang"))
}

/// Every way in which a client makes the server reset a stream that it has opened itself.
#[test]
fn made_you_reset_cve_2025_8671_in_every_way() {
    let mut world = World::new("{}");
    let head = hang();
    let largest = 0x7fff_ffff_u32.to_be_bytes();
    let post = h2::block(&[&h2::post("wiki.localhost", "/hang")[..], &[("content-length", "1")]].concat());
    let ways: [&dyn Fn(u32) -> Vec<u8>; 4] = [
        // The window overflows.
        &|id| [h2::frame(h2::HEADERS, WHOLE, id, &head), h2::frame(h2::WINDOW_UPDATE, 0, id, &largest)].concat(),
        // A stream that depends on itself.
        &|id| {
            let own = [&id.to_be_bytes()[..], &[16]].concat();
            [h2::frame(h2::HEADERS, WHOLE, id, &head), h2::frame(h2::PRIORITY, 0, id, &own)].concat()
        },
        // More than Content-Length says.
        &|id| [h2::frame(h2::HEADERS, h2::END_HEADERS, id, &post), h2::frame(h2::DATA, h2::END_STREAM, id, b"two")].concat(),
        // Trailers that do not end the stream.
        &|id| [h2::frame(h2::HEADERS, h2::END_HEADERS, id, &post), h2::frame(h2::HEADERS, h2::END_HEADERS, id, b"")].concat(),
    ];
    for way in ways {
        // As too many resets of ours, or at the first where h2 takes it for an error of the whole connection.
        ended_as(&mut world, &["h2_flood", "malformed"], |h2| flood(h2, FRAMES, |nth| way(stream(nth))));
    }
    assert!(world.origin.received().iter().filter(|r| r.line().contains("/hang")).count() < 4000, "the app saw little of it");
}

/// DATA behind the end of a request is one error of the connection, not one of each stream.
#[test]
fn made_you_reset_by_data_behind_the_end() {
    let head = hang();
    ended_as(&mut World::new("{}"), &["malformed"], |h2| {
        flood(h2, FRAMES, |nth| [h2::frame(h2::HEADERS, WHOLE, stream(nth), &head), h2::frame(h2::DATA, 0, stream(nth), b"x")].concat())
    });
}

#[test]
fn empty_heads_cve_2019_9518() {
    let mut world = World::new("{}");
    ended(&mut world, |h2| flood(h2, FRAMES, |nth| h2::frame(h2::HEADERS, WHOLE, stream(nth), b"")));
    assert!(world.origin.received().iter().all(|r| r.line().contains("/good")));
}

/// Fields without name or value, which a server may forget to count.
#[test]
fn empty_fields_cve_2019_9516() {
    let mut world = World::new("{}");
    let head = |fields: Vec<(&'static str, &'static str)>| h2::block(&[h2::get("wiki.localhost", "/"), fields].concat());
    let nameless = head(vec![("", "")]);
    // One by one, a nameless field is no HPACK that h2 reads on after.
    ended_as(&mut world, &["malformed"], |h2| flood(h2, FRAMES, |nth| h2::frame(h2::HEADERS, WHOLE, stream(nth), &nameless)));
    let valueless = head(vec![("x", ""); 3000]);
    let refused = world.flat(|| {
        (0..50).all(|_| {
            let mut h2 = world.h2();
            h2.write(&h2::frame(h2::HEADERS, WHOLE, 1, &valueless));
            let outcome = h2.outcome(1);
            outcome.status == 431 || outcome.reset.is_some() || outcome.goaway.is_some_and(|code| code != 0)
        })
    });
    assert!(refused, "three thousand fields count, though they are empty");
    assert!(world.origin.received().iter().all(|r| r.line().contains("/good")));
    world.alive();
}

/// Requests beyond the concurrent streams, each of which has to be refused.
#[test]
fn streams_that_are_refused_over_and_over() {
    let mut world = World::new("{}");
    let head = hang();
    ended(&mut world, |h2| flood(h2, FRAMES, |nth| h2::frame(h2::HEADERS, WHOLE, stream(nth), &head)));
    assert!(world.origin.received().iter().filter(|r| r.line().contains("/hang")).count() <= 200, "no more than run at once");
}

/// Trailers as large as heads: each is counted, and none reaches an app that has not asked for them.
#[test]
fn large_trailers_again_and_again() {
    let mut world = World::new("{}");
    let head = h2::block(&h2::post("wiki.localhost", "/trailed"));
    let large = "y".repeat(8000);
    let trailers = h2::block(&[("x", large.as_str())]);
    world.flat(|| {
        let mut h2 = world.h2();
        for nth in 0..2000 {
            let id = stream(nth);
            h2.write(&[h2::frame(h2::HEADERS, h2::END_HEADERS, id, &head), h2::frame(h2::HEADERS, WHOLE, id, &trailers)].concat());
            assert_eq!(h2.outcome(id).status, 200);
        }
    });
    assert!(world.origin.received().iter().all(|received| !received.text().contains("yyyy")));
    // One that is too large ends no better than a head that is.
    let mut h2 = world.h2();
    h2.write(&h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head));
    let part = "y".repeat(16_000);
    h2.write(&h2::frame(h2::HEADERS, h2::END_STREAM, 1, &h2::block(&[("x", part.as_str())])));
    for _ in 0..20 {
        h2.write(&h2::frame(h2::CONTINUATION, 0, 1, &h2::block(&[("x", part.as_str())])));
    }
    assert_ne!(h2.until_closed().unwrap_or(1), 0);
    world.rejected("h2_flood", 1.0);
    world.alive();
}

/// A client that asks for as large a table as there can be, and for answers that fill it.
#[test]
fn a_huge_table_for_the_heads_of_answers() {
    let mut world = World::new("{}");
    world.flat(|| {
        let mut h2 = H2::with_settings(&world.proxy, &world.lab, ("wiki.localhost", None), &[(1, u32::MAX)]);
        for _ in 0..5000 {
            let id = h2.open(&h2::get("wiki.localhost", "/unique"), true);
            // What the heads say is in the table by now: only where they end counts.
            loop {
                let frame = h2.read().expect("the proxy goes on");
                if frame.stream == id && frame.flags & h2::END_STREAM != 0 {
                    break;
                }
            }
        }
    });
    world.alive();
}

/// Answers that nobody reads pile up no further than the limit for each stream, and then the client is cut.
#[test]
fn answers_that_nobody_reads_cve_2019_9517() {
    let mut world = World::new("{idle: 2s}");
    world.flat(|| {
        let largest = 0x7fff_ffff - 65_535_u32;
        let mut h2 = H2::with_settings(&world.proxy, &world.lab, ("wiki.localhost", None), &[(1, 0), (4, 0x7fff_ffff)]);
        h2.write(&h2::frame(h2::WINDOW_UPDATE, 0, 0, &largest.to_be_bytes()));
        for _ in 0..20 {
            h2.open(&h2::get("wiki.localhost", "/large"), true);
        }
        world.rejected("slow_read", 1.0);
    });
    eventually("no connection is left", || (world.proxy.metrics().sum("vestibule_connections", &[]) == 0.0).then_some(()));
    world.alive();
}

/// An answer taken byte by byte: each update has us send a frame of its own.
#[test]
fn an_answer_in_bytes_cve_2019_9511() {
    let mut world = World::new("{}");
    ended(&mut world, |h2| {
        h2.write(&h2::settings(&[(4, 0)]));
        let id = h2.open(&h2::get("wiki.localhost", "/large"), true);
        flood(h2, FRAMES, |_| h2::frame(h2::WINDOW_UPDATE, 0, id, &[0, 0, 0, 1]))
    });
}

/// Bodies begun and thrown away: what was buffered of them goes with them.
#[test]
fn uploads_that_are_reset() {
    let mut world = World::new("{}");
    let head = h2::block(&h2::post("wiki.localhost", "/"));
    let part = vec![b'x'; 16_000];
    ended(&mut world, |h2| {
        flood(h2, 20_000, |nth| {
            let id = stream(nth);
            [
                h2::frame(h2::HEADERS, h2::END_HEADERS, id, &head),
                h2::frame(h2::DATA, 0, id, &part),
                h2::frame(h2::RST_STREAM, 0, id, &[0, 0, 0, 8]),
            ]
            .concat()
        })
    });
}

#[test]
fn a_bomb_of_settings_that_move_every_window() {
    let mut world = World::new("{}");
    ended(&mut world, |h2| {
        for _ in 0..50 {
            h2.open(&h2::get("wiki.localhost", "/hang"), true);
        }
        flood(h2, FRAMES, |nth| h2::settings(&[(4, nth % 2 * 1000)]))
    });
}
