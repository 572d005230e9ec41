use proptest::prelude::*;

use super::*;
use crate::fingerprint::order::Version;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

fn of_settings(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &of_settings(settings))
}

/// `:method: GET`, `:path: /`, `:scheme: https` by index, then `:authority: a`.
const BLOCK: &[u8] = &[0x82, 0x84, 0x87, 0x41, 0x01, b'a'];

fn get() -> Vec<u8> {
    frame(HEADERS, END_HEADERS | 1, 1, BLOCK)
}

fn opening(frames: &[Vec<u8>]) -> Result<Option<Opened>, Malformed> {
    Arriving::default().read(&[&PREFACE[..], &frames.concat()].concat())
}

#[track_caller]
fn text(frames: &[Vec<u8>]) -> String {
    opening(frames).unwrap().unwrap().opening.into_string()
}

#[test]
fn the_documented_form() {
    let chrome = [settings(&[(1, 65536), (2, 0), (4, 6_291_456), (6, 262_144)]), frame(WINDOW_UPDATE, 0, 0, &15_663_105_u32.to_be_bytes())];
    let block = [0x82, 0x41, 0x01, b'a', 0x87, 0x84];
    let head = frame(HEADERS, END_HEADERS | PRIORITISED | 1, 1, &[&[0x80, 0, 0, 0, 255][..], &block].concat());
    assert_eq!(text(&[chrome.concat(), head]), "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p");
    assert_eq!(text(&[settings(&[]), get()]), "|00|0|m,p,s,a");
}

#[test]
fn settings_are_the_first_in_wire_order_with_those_nobody_knows() {
    let first = settings(&[(4, u32::MAX), (0xfafa, 1), (1, 0), (4, 7), (0, 0)]);
    assert_eq!(text(&[first, settings(&[(2, 2)]), get()]), "4:4294967295;64250:1;1:0;4:7;0:0|00|0|m,p,s,a");
    let ack = frame(SETTINGS, ACK, 0, &[]);
    assert_eq!(text(&[ack, settings(&[(3, 100)]), get()]), "3:100|00|0|m,p,s,a");
    assert_eq!(text(&[get()]), "|00|0|m,p,s,a");
}

#[test]
fn the_window_is_the_first_of_the_connection_itself() {
    let update = |stream, increment: u32| frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    assert_eq!(text(&[settings(&[]), update(3, 5), update(0, 6), update(0, 7), get()]), "|6|0|m,p,s,a");
    assert_eq!(text(&[settings(&[]), update(3, 5), get()]), "|00|0|m,p,s,a");
    assert_eq!(text(&[settings(&[]), update(0, 0x8000_0000 | 9), get()]), "|9|0|m,p,s,a", "the reserved bit says nothing");
    // What comes after the head is no opening.
    assert_eq!(text(&[settings(&[]), get(), update(0, 6)]), "|00|0|m,p,s,a");
}

#[test]
fn priorities_are_told_one_by_one() {
    let priority = |stream, on: u32, weight| frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[weight]].concat());
    let firefox = [settings(&[]), priority(3, 0, 200), priority(5, 0, 100), priority(9, 0x8000_0007, 0), priority(11, 3, 255), get()];
    assert_eq!(text(&firefox), "|00|3:0:0:201,5:0:0:101,9:1:7:1,11:0:3:256|m,p,s,a");
    let after = frame(HEADERS, END_HEADERS | PRIORITISED, 1, &[&[0, 0, 0, 13, 41][..], BLOCK].concat());
    assert_eq!(text(&[settings(&[]), after]), "|00|0|m,p,s,a", "the head's own is not one of them");
}

#[test]
fn a_head_may_be_padded_prioritised_and_continued() {
    let plain = opening(&[settings(&[]), get()]).unwrap().unwrap();
    let padded = [&[3][..], BLOCK, &[0; 3]].concat();
    let both = [&[2, 0, 0, 0, 0, 9][..], BLOCK, &[0; 2]].concat();
    let all = [&[255][..], &[0; 255]].concat();
    for (what, head) in [
        ("padded", vec![frame(HEADERS, END_HEADERS | PADDED, 1, &padded)]),
        ("padded and prioritised", vec![frame(HEADERS, END_HEADERS | PADDED | PRIORITISED, 1, &both)]),
        (
            "continued",
            vec![frame(HEADERS, 1, 1, &BLOCK[..4]), frame(CONTINUATION, 0, 1, &[]), frame(CONTINUATION, END_HEADERS, 1, &BLOCK[4..])],
        ),
        ("padding alone, then continued", vec![frame(HEADERS, PADDED, 1, &all), frame(CONTINUATION, END_HEADERS, 1, BLOCK)]),
    ] {
        let frames = [&[settings(&[])][..], &head].concat();
        assert_eq!(opening(&frames).unwrap().unwrap(), plain, "{what}");
    }
}

#[test]
fn frames_of_other_kinds_say_nothing() {
    let others = [frame(6, 0, 0, &[1; 8]), frame(0x10, 0, 0, b"\0\0\0\x01u=1"), frame(0xaa, 0xff, 7, &[9; 30]), frame(0, 1, 1, b"early")];
    assert_eq!(text(&[settings(&[(1, 1)]), others.concat(), get()]), "1:1|00|0|m,p,s,a");
}

#[test]
fn pseudo_header_fields_are_told_as_they_come() {
    let literal = |name: &str| [&[0, u8::try_from(name.len()).unwrap()][..], name.as_bytes(), &[1, b'x']].concat();
    let with = |names: &[&str]| {
        let block: Vec<u8> = names.iter().flat_map(|name| literal(name)).collect();
        opening(&[settings(&[]), frame(HEADERS, END_HEADERS, 1, &block)]).unwrap().unwrap()
    };
    let opened = with(&[":path", ":method", ":protocol", "accept", ":scheme", "user-agent", "cookie"]);
    assert_eq!(&*opened.opening, "|00|0|p,m,?,s");
    assert_eq!(opened.names.order_r(), "accept,user-agent");
    assert!(opened.names.order(Version::Http2).starts_with("h2l02_"));
    assert_eq!(&*with(&[]).opening, "|00|0|");
    assert_eq!(&*with(&["accept"]).opening, "|00|0|");
}

#[test]
fn what_can_be_repeated_is_capped() {
    let many: Vec<(u16, u32)> = (0..2000).map(|id| (id, 1)).collect();
    let priorities = frame(PRIORITY, 0, 3, &[0; 5]).repeat(200);
    let block = [0x82].repeat(5000);
    let text = text(&[settings(&many), priorities, frame(HEADERS, END_HEADERS, 1, &block)]);
    let parts: Vec<&str> = text.split('|').collect();
    let counts = [parts[0].split(';').count(), parts[2].split(',').count(), parts[3].split(',').count()];
    assert_eq!(counts, [MOST; 3]);
    assert!(text.len() < 3000, "{}", text.len());
}

#[test]
fn what_breaks_the_rules_is_malformed() {
    let begun = settings(&[]);
    for (what, field, frames) in [
        ("half a setting", "settings", vec![frame(SETTINGS, 0, 0, &[0; 8])]),
        ("a window update of 3 bytes", "window_update", vec![begun.clone(), frame(WINDOW_UPDATE, 0, 0, &[0; 3])]),
        ("a window update of 5 bytes", "window_update", vec![begun.clone(), frame(WINDOW_UPDATE, 0, 0, &[0; 5])]),
        ("a priority of 4 bytes", "priority", vec![begun.clone(), frame(PRIORITY, 0, 3, &[0; 4])]),
        ("a priority of 6 bytes", "priority", vec![begun.clone(), frame(PRIORITY, 0, 3, &[0; 6])]),
        ("more padding than there is", "padding", vec![begun.clone(), frame(HEADERS, END_HEADERS | PADDED, 1, &[2, 0])]),
        ("no length of the padding", "padding", vec![begun.clone(), frame(HEADERS, END_HEADERS | PADDED, 1, &[])]),
        ("half a priority", "priority", vec![begun.clone(), frame(HEADERS, END_HEADERS | PRIORITISED, 1, &[0; 4])]),
        ("a continuation of nothing", "continuation", vec![begun.clone(), frame(CONTINUATION, END_HEADERS, 1, BLOCK)]),
        ("something in between", "continuation", vec![frame(HEADERS, 0, 1, BLOCK), frame(6, 0, 0, &[0; 8])]),
        ("another stream's", "continuation", vec![frame(HEADERS, 0, 1, BLOCK), frame(CONTINUATION, END_HEADERS, 3, &[])]),
        ("a block that is none", "index", vec![begun, frame(HEADERS, END_HEADERS, 1, &[0x80])]),
    ] {
        assert_eq!(opening(&frames), Err(Malformed(field)), "{what}");
    }
    for start in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", &[22, 3, 1]] {
        assert_eq!(Arriving::default().read(start), Err(Malformed("preface")));
    }
}

/// With everything in it.
fn rich() -> Vec<u8> {
    let frames = [
        settings(&[(1, 65536), (0xfafa, 1)]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]),
        frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 200]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(HEADERS, PADDED | PRIORITISED | 1, 1, &[&[1, 0x80, 0, 0, 0, 255][..], &BLOCK[..2], &[0]].concat()),
        frame(CONTINUATION, END_HEADERS, 1, &BLOCK[2..]),
    ];
    [&PREFACE[..], &frames.concat()].concat()
}

#[test]
fn every_prefix_waits_for_the_rest_however_it_comes() {
    let bytes = rich();
    let whole = Arriving::default().read(&bytes).unwrap().unwrap();
    assert_eq!(&*whole.opening, "1:65536;64250:1|65536|3:0:0:201|m,p,s,a");
    let mut one_by_one = Arriving::default();
    for end in 0..bytes.len() {
        assert_eq!(Arriving::default().read(&bytes[..end]), Ok(None), "{end}");
        assert_eq!(one_by_one.read(&bytes[..end]), Ok(None), "{end}");
    }
    assert_eq!(one_by_one.read(&bytes).unwrap().unwrap(), whole);
    let longer = [&bytes[..], &get()].concat();
    assert_eq!(Arriving::default().read(&longer).unwrap().unwrap(), whole);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segments_change_nothing(cuts in proptest::collection::vec(1_usize..40, 1..60), change in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = rich();
        let at = change.index(bytes.len());
        bytes[at] = value;
        let whole = Arriving::default().read(&bytes);
        let mut arriving = Arriving::default();
        let mut have = 0;
        let mut last = Ok(None);
        for size in cuts.into_iter().cycle() {
            have = (have + size).min(bytes.len());
            last = arriving.read(&bytes[..have]);
            if have == bytes.len() || last != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(last, whole);
    }
}
