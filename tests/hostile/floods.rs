//! HTTP/2 frames that cost the sender little.

use super::*;

/// Longer than these go on nobody waits, and the proxy should have ended it long before.
pub const FRAMES: usize = 400_000;
/// Frames for one write.
const BATCH: usize = 500;

/// Sends frames until the proxy takes no more; how many it took.
pub fn flood(h2: &mut H2, most: usize, mut frame: impl FnMut(u32) -> Vec<u8>) -> usize {
    let mut sent = 0;
    while sent < most {
        let batch: Vec<u8> = (0..BATCH).flat_map(|i| frame(u32::try_from(sent + i).unwrap())).collect();
        if !h2.write(&batch) {
            break;
        }
        sent += BATCH;
    }
    sent
}

/// The flood ends with its connection, memory stays flat, others are served, and it is counted as a flood.
#[track_caller]
pub fn ended(world: &mut World, attack: impl FnOnce(&mut H2) -> usize) {
    ended_as(world, &["h2_flood"], attack);
}

#[track_caller]
pub fn ended_as(world: &mut World, reasons: &[&str], attack: impl FnOnce(&mut H2) -> usize) {
    let count = |world: &World| {
        let metrics = world.proxy.metrics();
        reasons.iter().map(|reason| metrics.sum("vestibule_rejected_total", &[("reason", reason)])).sum::<f64>()
    };
    let counted = count(world);
    let mut h2 = world.h2();
    let sent = world.flat(|| attack(&mut h2));
    assert!(sent < FRAMES, "the proxy took {sent} frames");
    h2.until_closed();
    eventually(&format!("the flood is counted as {reasons:?}"), || (count(world) > counted).then_some(()));
    world.alive();
}

pub fn stream(nth: u32) -> u32 {
    nth * 2 + 1
}

#[test]
fn rapid_reset_cve_2023_44487() {
    let mut world = World::new("{}");
    let head = h2::block(&h2::get("wiki.localhost", "/hang"));
    ended(&mut world, |h2| {
        flood(h2, FRAMES, |nth| {
            [
                h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream(nth), &head),
                h2::frame(h2::RST_STREAM, 0, stream(nth), &[0, 0, 0, 8]),
            ]
            .concat()
        })
    });
    assert!(world.origin.received().iter().filter(|r| r.line().contains("/hang")).count() < 2000, "the app saw little of it");
}

/// h2 counts the resets of streams that it has not handed over yet. These have been: whoever sees a PING answered knows that what it sent before was read.
#[test]
fn rapid_reset_of_requests_that_run() {
    const AT_ONCE: u32 = 50;
    let mut world = World::new("{}");
    let head = h2::block(&h2::get("wiki.localhost", "/hang"));
    let mut rounds = 0;
    ended(&mut world, |h2| {
        while rounds < 200 {
            let ids = (0..AT_ONCE).map(|nth| stream(rounds * AT_ONCE + nth));
            let open: Vec<u8> = ids.clone().flat_map(|id| h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, id, &head)).collect();
            if !h2.write(&[open, h2::frame(h2::PING, 0, 0, b"all read")].concat()) {
                break;
            }
            loop {
                match h2.read() {
                    Some(frame) if frame.kind == h2::PING => break,
                    Some(_) => {}
                    None => return 0,
                }
            }
            h2.write(&ids.flat_map(|id| h2::frame(h2::RST_STREAM, 0, id, &[0, 0, 0, 8])).collect::<Vec<u8>>());
            rounds += 1;
        }
        if rounds < 200 { 0 } else { FRAMES }
    });
    assert!(rounds > 10, "a few resets are no flood: {rounds} rounds");
}

/// The server is made to reset its own streams, again and again.
#[test]
fn made_you_reset_cve_2025_8671() {
    let mut world = World::new("{}");
    let head = h2::block(&h2::get("wiki.localhost", "/hang"));
    // To h2 an update of nothing is an error of the whole connection.
    ended_as(&mut world, &["malformed"], |h2| {
        flood(h2, FRAMES, |nth| {
            [
                h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream(nth), &head),
                h2::frame(h2::WINDOW_UPDATE, 0, stream(nth), &[0, 0, 0, 0]),
            ]
            .concat()
        })
    });
}

#[test]
fn continuation_flood_cve_2024_27316() {
    let mut world = World::new("{}");
    let head = h2::block(&h2::get("wiki.localhost", "/"));
    for part in [h2::block(&[("x", "y")]), Vec::new()] {
        ended(&mut world, |h2| {
            h2.write(&h2::frame(h2::HEADERS, h2::END_STREAM, 1, &head));
            flood(h2, FRAMES, |_| h2::frame(h2::CONTINUATION, 0, 1, &part))
        });
    }
    assert!(world.origin.received().iter().all(|r| r.line().contains("/good")));
}

#[test]
fn ping_flood_cve_2019_9512() {
    ended(&mut World::new("{}"), |h2| flood(h2, FRAMES, |_| h2::frame(h2::PING, 0, 0, b"12345678")));
}

#[test]
fn settings_flood_cve_2019_9515() {
    ended(&mut World::new("{}"), |h2| flood(h2, FRAMES, |_| h2::frame(h2::SETTINGS, 0, 0, b"")));
}

#[test]
fn empty_data_flood_cve_2019_9518() {
    ended(&mut World::new("{}"), |h2| {
        let stream = h2.open(&h2::post("wiki.localhost", "/"), false);
        flood(h2, FRAMES, |_| h2::frame(h2::DATA, 0, stream, b""))
    });
}

/// Each byte in a frame of its own, for an app that reads nothing: the window counts bytes, not what it costs to hold them.
#[test]
fn a_body_in_crumbs_costs_no_more_than_its_bytes() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::start(app);
    let lab = Lab::new();
    let second = format!(
        "\n  - name: deaf\n    owner: knowledge\n    hosts: [git.localhost]\n    upstream: {{servers: [\"http://{}\"]}}\n    rules: [{{name: all, then: forward}}]",
        deaf.local_addr().unwrap()
    );
    let with_both = Config::new(&origin).set("apps", &(config(&origin).get("apps") + &second));
    let proxy = lab.start(&with_both);
    let mut world = World { lab, origin, proxy };
    ended(&mut world, |h2| {
        let streams: Vec<u32> = (0..50).map(|_| h2.open(&h2::post("git.localhost", "/"), false)).collect();
        flood(h2, FRAMES, |nth| h2::frame(h2::DATA, 0, streams[nth as usize % 50], b"x"))
    });
}

#[test]
fn floods_of_frames_that_ask_for_nothing() {
    let mut world = World::new("{}");
    ended(&mut world, |h2| flood(h2, FRAMES, |nth| h2::frame(h2::PRIORITY, 0, stream(nth % 1000), &[0, 0, 0, 0, 16])));
    ended(&mut world, |h2| flood(h2, FRAMES, |_| h2::frame(0xbe, 0, 0, b"unknown")));
    // PRIORITY_UPDATE (RFC 9218 section 7.1).
    ended(&mut world, |h2| flood(h2, FRAMES, |nth| h2::frame(0x10, 0, 0, &[&stream(nth).to_be_bytes()[..], b"u=1"].concat())));
    ended(&mut world, |h2| flood(h2, FRAMES, |_| h2::frame(h2::PING, h2::ACK, 0, b"12345678")));
    // To h2 the first that it has not asked for is an error.
    ended_as(&mut world, &["malformed"], |h2| flood(h2, FRAMES, |_| h2::frame(h2::SETTINGS, h2::ACK, 0, b"")));
    ended(&mut world, |h2| {
        let stream = h2.open(&h2::get("wiki.localhost", "/hang"), true);
        flood(h2, FRAMES, |_| h2::frame(h2::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]))
    });
}

#[test]
fn hpack_bomb_cve_2016_6581() {
    let mut world = World::new("{}");
    // One entry of 4,000 bytes in the table, and then one byte for each use of it.
    let mut bomb = h2::block(&h2::get("wiki.localhost", "/"));
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xbe; 12_000]);
    world.flat(|| {
        for _ in 0..20 {
            let mut h2 = world.h2();
            for nth in 0..20 {
                h2.write(&h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream(nth), &bomb));
            }
            let outcome = h2.outcome(1);
            assert!(
                outcome.status == 431 || outcome.goaway.is_some() || outcome.reset.is_some() || outcome == h2::Outcome::default(),
                "{outcome:?}"
            );
        }
    });
    assert!(world.origin.received().iter().all(|r| r.line().contains("/good")));
    world.alive();
}

#[test]
fn a_compressed_head_that_makes_no_sense_ends_its_connection() {
    let mut world = World::new("{}");
    for block in [
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &[0x80],
        &[0xbe],
        &[0x3f, 0xe1, 0xff, 0xff, 0x7f],
        &[0x40, 0x84, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut h2 = world.h2();
        h2.write(&h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, 1, block));
        assert_ne!(h2.until_closed().unwrap_or(1), 0, "{block:?}");
    }
    assert!(world.origin.received().iter().all(|r| r.line().contains("/good")));
    world.rejected("malformed", 5.0);
    world.alive();
}

#[test]
fn frames_against_the_protocol_end_their_connection() {
    let mut world = World::new("{}");
    let head = h2::block(&h2::get("wiki.localhost", "/"));
    for bytes in [
        h2::frame(h2::DATA, 0, 1, b"x"),
        h2::frame(h2::DATA, 0, 0, b"x"),
        h2::frame(h2::HEADERS, h2::END_HEADERS, 2, &head),
        h2::frame(h2::HEADERS, h2::END_HEADERS, 0, &head),
        h2::frame(h2::CONTINUATION, 0, 1, b"x"),
        h2::frame(h2::PING, 0, 0, b"short"),
        h2::frame(h2::SETTINGS, 0, 0, b"odd"),
        h2::frame(h2::SETTINGS, 0, 1, b""),
        h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        h2::frame(h2::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0]),
        h2::frame(h2::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        h2::frame(5, 0, 1, &[0, 0, 0, 2]),
        h2::frame(h2::PING, 0, 0, &vec![0; 1 << 16]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let mut h2 = world.h2();
        h2.write(&bytes);
        assert_ne!(h2.until_closed().unwrap_or(1), 0, "{bytes:?}");
    }
    assert!(world.origin.received().iter().all(|r| r.line().contains("/good")));
    world.rejected("malformed", 14.0);
    world.alive();
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut world = World::new("{h2_streams: 3}");
    let mut h2 = world.h2();
    for _ in 0..3 {
        h2.open(&h2::get("wiki.localhost", "/hang"), true);
    }
    let outcome = h2.get("wiki.localhost", "/fourth");
    assert_eq!(outcome.reset, Some(7), "REFUSED_STREAM: {outcome:?}");
    world.origin.wait(3);
    assert!(world.origin.received().iter().all(|r| r.line().contains("/hang")));
    world.alive();
}
