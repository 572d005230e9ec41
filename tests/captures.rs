//! `vestibule fingerprint FILE`: captures of every kind that tcpdump commonly writes, made here byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

#[path = "support/packets.rs"]
#[allow(dead_code, reason = "each test program uses a part of this")]
mod packets;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use packets::{APPLE, LINUX, Order, Packet, System, TIME, WINDOWS, block, client, enhanced, interface, pcap, records, section, simple};
use serde_json::Value;
use vestibule::cli::fingerprint::line::Table;
use vestibule::fingerprint::Known;

/// The ClientHello message of a recorded curl replica of Chrome, without SNI's name changed: about 2 KiB.
struct Hello {
    message: Vec<u8>,
    ja4: String,
}

fn hello(client: &str) -> Hello {
    let recordings = include_str!("fixtures/fingerprints/clients.jsonl");
    let mut rows = recordings.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.find(|row| row["client"] == client).unwrap_or_else(|| panic!("no recording of {client}"));
    let text = row["hello"].as_str().unwrap();
    let message = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    Hello { message, ja4: row["ja4"].as_str().unwrap().to_owned() }
}

fn chrome() -> Hello {
    hello("curl_cffi-0.16.3/chrome146")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const FROM: &str = "192.0.2.1:50000";
const TO: &str = "198.51.100.7:8443";
const FROM6: &str = "[2001:db8::1]:50000";
const TO6: &str = "[2001:db8::2]:443";

struct Ran {
    code: Option<i32>,
    lines: Vec<Value>,
    stderr: String,
}

fn ran(output: Output) -> Ran {
    let stdout = String::from_utf8(output.stdout).unwrap();
    Ran {
        code: output.status.code(),
        lines: stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn of_file(path: &Path) -> Ran {
    ran(Command::new(env!("CARGO_BIN_EXE_vestibule")).arg("fingerprint").arg(path).output().unwrap())
}

fn of(capture: &[u8]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.pcap");
    std::fs::write(&path, capture).unwrap();
    of_file(&path)
}

/// Of a capture that is read to its end and has nothing to complain of.
#[track_caller]
fn lines_of(capture: &[u8]) -> Vec<Value> {
    let ran = of(capture);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    ran.lines
}

fn raw(packets: &[Packet]) -> Vec<u8> {
    pcap(Order::Little, false, 101, &packets.iter().map(Packet::bytes).collect::<Vec<_>>())
}

fn whole(from: &str, to: &str, system: System, stream: &[u8]) -> Vec<Packet> {
    client(addr(from), addr(to), system, 1000, stream, || 1400)
}

const WINDOWS_SYN: &str = "4:128:mss*44:8:mss1460,nop,ws,nop,nop,sok:df";

#[test]
fn a_line_tells_all_that_a_hello_shows() {
    let chrome = chrome();
    let [line] = &lines_of(&raw(&whole(FROM, TO, WINDOWS, &records(&chrome.message, 9999))))[..] else { panic!("not one line") };
    for (key, value) in [
        ("time", "2024-05-06T07:08:10.25Z"),
        ("src", FROM),
        ("dst", TO),
        ("transport", "tcp"),
        ("ja4", &chrome.ja4),
        ("sni", "localhost"),
        ("syn", WINDOWS_SYN),
    ] {
        if key == "time" {
            assert!(line["time"].as_str().unwrap().starts_with("2024-05-06T07:08:1"), "{line}");
        } else {
            assert_eq!(line[key], value, "{key}: {line}");
        }
    }
    assert!(line["ja4_r"].as_str().unwrap().starts_with(&format!("{}_", &chrome.ja4[..10])), "{line}");
    assert_eq!(line["ja4_stable"].as_str().unwrap().len(), 36);
}

#[test]
fn every_field_of_a_line_is_documented() {
    let docs = include_str!("../docs/fingerprints.md");
    let line = lines_of(&raw(&whole(FROM, TO, WINDOWS, &records(&chrome().message, 9999)))).remove(0);
    let missing: Vec<_> = line.as_object().unwrap().keys().filter(|key| !docs.contains(&format!("`{key}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

#[test]
fn every_link_type_and_byte_order() {
    let chrome = chrome();
    let stream = records(&chrome.message, 9999);
    let datagrams = |from, to| whole(from, to, WINDOWS, &stream).iter().map(Packet::bytes).collect::<Vec<_>>();
    let (v4, v6) = (datagrams(FROM, TO), datagrams(FROM6, TO6));
    let mac = [2; 12];
    let kinds: Vec<(&str, u32, Vec<u8>, Vec<u8>)> = vec![
        ("Ethernet", 1, [&mac[..], &[8, 0]].concat(), [&mac[..], &[0x86, 0xdd]].concat()),
        ("VLAN", 1, [&mac[..], &[0x81, 0, 0, 5, 8, 0]].concat(), [&mac[..], &[0x81, 0, 0, 5, 0x86, 0xdd]].concat()),
        (
            "QinQ",
            1,
            [&mac[..], &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5, 8, 0]].concat(),
            [&mac[..], &[0x91, 0, 0, 9, 0x81, 0, 0, 5, 0x86, 0xdd]].concat(),
        ),
        (
            "PPPoE",
            1,
            [&mac[..], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 0, 0, 0x21]].concat(),
            [&mac[..], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 0, 0, 0x57]].concat(),
        ),
        (
            "MPLS",
            1,
            [&mac[..], &[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64]].concat(),
            [&mac[..], &[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64]].concat(),
        ),
        ("Linux cooked", 113, [&[0; 14][..], &[8, 0]].concat(), [&[0; 14][..], &[0x86, 0xdd]].concat()),
        ("Linux cooked 2", 276, [&[8, 0][..], &[0; 18]].concat(), [&[0x86, 0xdd][..], &[0; 18]].concat()),
        ("raw", 101, vec![], vec![]),
        ("raw 12", 12, vec![], vec![]),
        ("raw 14", 14, vec![], vec![]),
        ("IPv4, IPv6", 228, vec![], vec![]),
        ("null", 0, vec![2, 0, 0, 0], vec![30, 0, 0, 0]),
        ("null, big", 0, vec![0, 0, 0, 2], vec![0, 0, 0, 24]),
        ("loop", 108, vec![0, 0, 0, 2], vec![0, 0, 0, 28]),
        ("PPP", 9, vec![0xff, 3, 0, 0x21], vec![0, 0x57]),
    ];
    for (name, link, before_v4, before_v6) in kinds {
        for (order, nanos) in [(Order::Little, false), (Order::Big, false), (Order::Little, true), (Order::Big, true)] {
            let frame = |before: &Vec<u8>, datagram: &Vec<u8>| [&before[..], datagram].concat();
            let frames: Vec<_> = v4.iter().map(|d| frame(&before_v4, d)).chain(v6.iter().map(|d| frame(&before_v6, d))).collect();
            let lines = lines_of(&pcap(order, nanos, link, &frames));
            let seen: Vec<_> = lines.iter().map(|line| (&line["src"], &line["ja4"], &line["syn"])).collect();
            let ja4 = &Value::from(chrome.ja4.as_str());
            let syn6 = "6:128:mss*44:8:mss1460,nop,ws,nop,nop,sok:-";
            assert_eq!(
                seen,
                [(&Value::from(FROM), ja4, &Value::from(WINDOWS_SYN)), (&Value::from(FROM6), ja4, &Value::from(syn6))],
                "{name} {order:?} nanos {nanos}"
            );
            let fraction = if nanos { ".250000001Z" } else { ".25Z" };
            assert!(lines[0]["time"].as_str().unwrap().ends_with(fraction), "{name}: {}", lines[0]);
        }
    }
}

#[test]
fn padding_options_and_extension_headers_are_no_payload() {
    let chrome = chrome();
    let stream = records(&chrome.message, 9999);
    let mut frames = Vec::new();
    for packet in whole(FROM, TO, LINUX, &stream) {
        // A router alert, and a trailer of the link behind the datagram.
        frames.push([&[2; 12][..], &[8, 0], &packet.bytes_with(&[148, 4, 0, 0], &[]), &[0xee; 9]].concat());
    }
    for packet in whole(FROM6, TO6, LINUX, &stream) {
        // Hop-by-hop, then destination options of 16 bytes.
        let extensions = [&[60, 0, 1, 4, 0, 0, 0, 0, 6, 1][..], &[0; 14]].concat();
        frames.push([&[2; 12][..], &[0x86, 0xdd], &packet.bytes_with(&extensions, &[0]), &[0xee; 9]].concat());
    }
    let lines = lines_of(&pcap(Order::Little, false, 1, &frames));
    let seen: Vec<_> = lines.iter().map(|line| (line["ja4"].as_str(), line["syn"].as_str())).collect();
    let ja4 = Some(chrome.ja4.as_str());
    let syns = ["4:64:mss*44:7:mss1460,sok,ts,nop,ws:df", "6:64:mss*44:7:mss1460,sok,ts,nop,ws:-"];
    assert_eq!(seen, [(ja4, Some(syns[0])), (ja4, Some(syns[1]))]);
}

#[test]
fn fragments_are_passed_over_and_counted() {
    let chrome = chrome();
    let mut datagrams: Vec<_> = whole(FROM, TO, LINUX, &records(&chrome.message, 9999)).iter().map(Packet::bytes).collect();
    datagrams[1][6] = 0x20;
    let ran = of(&pcap(Order::Little, false, 101, &datagrams));
    assert_eq!((ran.code, ran.lines.len()), (Some(0), 0));
    assert!(ran.stderr.contains("passed over: 1 IP fragments"), "{}", ran.stderr);
}

#[test]
fn pcapng_with_several_interfaces_sections_and_packet_blocks() {
    let chrome = chrome();
    let stream = records(&chrome.message, 9999);
    for order in [Order::Little, Order::Big] {
        let mut file = section(order);
        file.extend(interface(order, 113, 0, &[]));
        let nanos: &[(u16, &[u8])] = &[(2, b"eth0"), (9, &[9]), (14, &0_u64.to_le_bytes())];
        file.extend(interface(order, 1, 262_144, nanos));
        // A power of two.
        file.extend(interface(order, 101, 0, &[(9, &[0x80 | 10])]));
        // Not known here: names, statistics, something of somebody's.
        file.extend(block(order, 4, &[0; 8]));
        file.extend(block(order, 0x8000_0001, &[9; 37]));
        let connections =
            [("192.0.2.1:1", 0_u32, 1_000_000_u64), ("192.0.2.2:2", 1, 1_000_000_000), ("192.0.2.3:3", 2, 1024), ("192.0.2.4:4", 9, 0)];
        for (from, nth, per_second) in connections {
            for packet in whole(from, TO, WINDOWS, &stream) {
                let time = u64::from(TIME) * per_second + per_second / 4;
                let frame = match nth {
                    0 => [&[0; 14][..], &[8, 0], &packet.bytes()].concat(),
                    1 => [&[2; 12][..], &[8, 0], &packet.bytes()].concat(),
                    _ => packet.bytes(),
                };
                match nth {
                    9 => {
                        // The obsolete packet block, of interface 2.
                        let length = order.u32(u32::try_from(frame.len()).unwrap());
                        let head = [&order.u16(2)[..], &[0, 0], &[0; 8], &length, &length].concat();
                        file.extend(block(order, 2, &[&head[..], &frame].concat()));
                    }
                    _ => file.extend(enhanced(order, nth, time, &frame)),
                }
            }
        }
        // Another section of the other byte order numbers its interfaces anew; its packets are simple ones.
        let other = if order == Order::Little { Order::Big } else { Order::Little };
        file.extend(section(other));
        file.extend(interface(other, 101, 1500, &[]));
        for packet in whole("192.0.2.5:5", TO, WINDOWS, &stream) {
            let bytes = packet.bytes();
            file.extend(simple(other, u32::try_from(bytes.len()).unwrap(), &bytes));
        }
        let lines = lines_of(&file);
        let seen: Vec<_> = lines.iter().map(|line| (line["src"].as_str().unwrap(), line["ja4"].as_str().unwrap())).collect();
        let all = ["192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3", "192.0.2.4:4", "192.0.2.5:5"];
        assert_eq!(seen, all.map(|from| (from, chrome.ja4.as_str())), "{order:?}");
        let times: Vec<_> = lines.iter().map(|line| line["time"].as_str().unwrap_or("none")).collect();
        assert_eq!(times[..3], ["2024-05-06T07:08:09.25Z"; 3], "{order:?}");
        assert_eq!(times[3..], ["1970-01-01T00:00:00Z", "none"], "{order:?}");
    }
}

#[test]
fn a_simple_packet_is_as_long_as_the_snap_length_lets_it_be() {
    let chrome = chrome();
    let order = Order::Little;
    let mut file = [section(order), interface(order, 101, 200, &[])].concat();
    for packet in whole(FROM, TO, WINDOWS, &records(&chrome.message, 9999)) {
        let bytes = packet.bytes();
        file.extend(simple(order, u32::try_from(bytes.len()).unwrap(), &bytes[..bytes.len().min(200)]));
    }
    let ran = of(&file);
    assert_eq!((ran.code, ran.lines.len()), (Some(0), 0), "{}", ran.stderr);
    assert!(ran.stderr.contains("passed over: 2 TCP segments that the capture cut short"), "{}", ran.stderr);
}

/// In any order, twice, overlapping, over the wrap of sequence numbers, with and without the SYN.
#[test]
fn segments_come_as_networks_bring_them() {
    let chrome = chrome();
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let expected = Some(chrome.ja4.as_str());
    for round in 0..60 {
        let isn = if round % 2 == 0 { u32::MAX - random.u32(0..2000) } else { random.u32(..) };
        // A client does not stop after its hello.
        let stream = [records(&chrome.message, random.usize(1..=2000)), vec![23; 900]].concat();
        let longest = random.usize(1..=1400);
        let mut packets = client(addr(FROM), addr(TO), WINDOWS, isn, &stream, || random.usize(1..=longest));
        for _ in 0..random.usize(0..4) {
            // Sent again, cut elsewhere.
            let from = random.usize(0..stream.len());
            let to = (from + random.usize(1..1400)).min(stream.len());
            let sequence = isn.wrapping_add(1).wrapping_add(u32::try_from(from).unwrap());
            packets.push(Packet::new(addr(FROM), addr(TO), sequence).with(&stream[from..to]));
        }
        // A keep-alive is one byte that was there before.
        packets.push(Packet::new(addr(FROM), addr(TO), isn).with(&[0]));
        let with_syn = round % 3 != 0;
        if with_syn {
            random.shuffle(&mut packets[1..]);
        } else {
            packets.remove(0);
            packets.pop();
            random.shuffle(&mut packets);
        }
        let lines = lines_of(&raw(&packets));
        let seen: Vec<_> = lines.iter().map(|line| (line["ja4"].as_str(), line["syn"].as_str())).collect();
        assert_eq!(seen, [(expected, with_syn.then_some(WINDOWS_SYN))], "round {round}");
    }
}

#[test]
fn data_that_comes_with_the_syn_or_before_it() {
    let chrome = chrome();
    let stream = records(&chrome.message, 9999);
    let mut packets = whole(FROM, TO, APPLE, &stream);
    packets[0].payload = stream[..100].to_vec();
    packets.swap(0, 1);
    let lines = lines_of(&raw(&packets));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["ja4"], chrome.ja4);
    assert_eq!(lines[0]["syn"], "4:64:65535:6:mss1460,nop,ws,nop,nop,ts,sok,eol:df");
}

#[test]
fn only_the_first_hello_of_a_connection_counts_and_ports_are_used_again() {
    let (first, second) = (chrome(), hello("curl_cffi-0.16.3/firefox147"));
    // After a HelloRetryRequest a second hello follows, which differs.
    let stream = [records(&first.message, 9999), records(&second.message, 9999)].concat();
    let mut packets = whole(FROM, TO, WINDOWS, &stream);
    // The SYN again, as networks do.
    packets.insert(1, packets[0].clone());
    packets.push(packets[2].clone());
    // The same four numbers, another connection.
    packets.extend(client(addr(FROM), addr(TO), LINUX, 900_000, &records(&second.message, 9999), || 700));
    let lines = lines_of(&raw(&packets));
    let seen: Vec<_> = lines.iter().map(|line| (line["ja4"].as_str().unwrap(), line["syn"].as_str().unwrap())).collect();
    assert_eq!(seen, [(first.ja4.as_str(), WINDOWS_SYN), (second.ja4.as_str(), "4:64:mss*44:7:mss1460,sok,ts,nop,ws:df")]);
}

#[test]
fn the_server_is_no_client_and_the_side_that_says_hello_is() {
    let chrome = chrome();
    let server_hello = records(&[&[2, 0, 0, 60][..], &[7; 60]].concat(), 9999);
    let mut packets = whole(FROM, TO, WINDOWS, &records(&chrome.message, 9999));
    let answer = Packet { flags: packets::SYN | packets::ACK, ..Packet::syn(addr(TO), addr(FROM), 77, LINUX) };
    packets.insert(1, answer);
    packets.insert(2, Packet::new(addr(TO), addr(FROM), 78).with(&server_hello));
    assert_eq!(lines_of(&raw(&packets)).len(), 1);

    // FTP's data connection: the server connects, the client says hello.
    let mut packets = whole(TO, FROM, LINUX, b"");
    packets.push(Packet { flags: packets::SYN | packets::ACK, ..Packet::syn(addr(FROM), addr(TO), 5, WINDOWS) });
    packets.push(Packet::new(addr(FROM), addr(TO), 6).with(&records(&chrome.message, 9999)));
    let lines = lines_of(&raw(&packets));
    assert_eq!((lines[0]["src"].as_str(), &lines[0]["syn"]), (Some(FROM), &Value::Null));
}

#[test]
fn a_hello_behind_something_else() {
    let chrome = chrome();
    let hello = records(&chrome.message, 9999);
    for before in [
        &b"CONNECT wiki.example:443 HTTP/1.1\r\nHost: wiki.example\r\n\r\n"[..],
        b"EHLO me\r\nSTARTTLS\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        &[5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 7, 1, 0xbb],
        &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f],
        &[22, 22, 3, 22, 3, 1],
    ] {
        for size in [1, 7, 5000] {
            let stream = [before, &hello].concat();
            let lines = lines_of(&raw(&client(addr(FROM), addr(TO), LINUX, 1, &stream, || size)));
            assert_eq!(lines.len(), 1, "{:?} by {size}", String::from_utf8_lossy(before));
            assert_eq!(lines[0]["ja4"], chrome.ja4);
        }
    }
    // Not for ever.
    let far = [vec![b'x'; 9000], hello].concat();
    assert_eq!(lines_of(&raw(&whole(FROM, TO, LINUX, &far))).len(), 0);
}

#[test]
fn what_has_no_fingerprint_is_told_apart() {
    let sslv2 = [0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16];
    let broken = records(&[1, 0, 0, 4, 3, 3, 0, 0], 9999);
    let mut large = vec![1, 0, 0x80, 0, 3, 3];
    large.resize(0x8004, 0);
    let server = [22, 3, 3, 0, 4, 14, 0, 0, 0];
    let mut packets = whole("192.0.2.1:1", TO, LINUX, &sslv2);
    packets.extend(whole("192.0.2.2:2", TO, LINUX, &broken));
    packets.extend(whole("192.0.2.3:3", TO, LINUX, &records(&large, 9999)));
    packets.extend(whole("192.0.2.4:4", TO, LINUX, &server));
    packets.extend(whole("192.0.2.5:5", TO, LINUX, b"GET / HTTP/1.1\r\n\r\n"));
    packets.extend(whole("192.0.2.6:6", TO, LINUX, &[23, 3, 3, 0, 1, 9]));
    let ran = of(&raw(&packets));
    assert_eq!((ran.code, ran.lines.len()), (Some(0), 0));
    for note in ["1 ClientHellos of SSL 2", "1 ClientHellos that are malformed", "1 ClientHellos over 16 KiB"] {
        assert!(ran.stderr.contains(note), "{note}: {}", ran.stderr);
    }
    assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
}

#[test]
fn a_file_that_is_cut_has_its_lines_and_fails() {
    let chrome = chrome();
    let mut packets = whole(FROM, TO, WINDOWS, &records(&chrome.message, 9999));
    packets.push(Packet::new(addr(FROM), addr(TO), 9).with(b"and more"));
    let good = raw(&packets);
    let ran = of(&good[..good.len() - 3]);
    assert_eq!((ran.code, ran.lines.len()), (Some(1), 1));
    let at = good.len() - 48;
    assert!(ran.stderr.contains(&format!("c.pcap: byte {at}: the file ends inside a packet: found 45 of 48 bytes")), "{}", ran.stderr);
}

#[test]
fn what_is_no_capture_is_said_with_its_place() {
    let bad_block = [&section(Order::Little)[..], &interface(Order::Little, 101, 0, &[]), &[6, 0, 0, 0, 7, 0, 0, 0]].concat();
    let two_lengths = {
        let mut file = [section(Order::Little), interface(Order::Little, 101, 0, &[])].concat();
        let end = file.len() - 4;
        file[end] += 4;
        file
    };
    let nobodys = [section(Order::Big), enhanced(Order::Big, 0, 0, &[])].concat();
    let mut huge = pcap(Order::Little, false, 1, &[vec![]]);
    huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut version = pcap(Order::Little, false, 1, &[]);
    version[4] = 7;
    for (file, words) in [
        (&b""[..], "not a capture: it begins with nothing: it is empty"),
        (b"\x16\x03", "not a capture: it begins with 16 03"),
        (b"Hello there", "not a capture: it begins with 48 65 6c 6c, expected pcap or pcapng"),
        (&[0x1f, 0x8b, 8, 0], "gunzip it first"),
        (&version, "found pcap version 7, expected 2"),
        (&huge, "byte 24: found a packet of 4294967295 bytes"),
        (&bad_block, "byte 48: found a block of 7 bytes"),
        (&two_lengths, "byte 28: a block says two lengths"),
        (&nobodys, "byte 28: malformed interface id"),
    ] {
        let ran = of(file);
        assert_eq!((ran.code, ran.lines.len()), (Some(1), 0), "{words}");
        assert!(ran.stderr.contains(words) && ran.stderr.contains("c.pcap: "), "{words}: {}", ran.stderr);
    }
    let ran = of_file(Path::new("/nowhere/at/all.pcap"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("/nowhere/at/all.pcap: No such file"), "{}", ran.stderr);
}

#[test]
fn every_prefix_of_a_capture_ends_well() {
    let stream = records(&hello("gnutls-cli/3.7").message, 9999);
    let packets = whole(FROM, TO, LINUX, &stream);
    let table = Table(Known::default());
    let order = Order::Big;
    let mut ng = [section(order), interface(order, 101, 0, &[(9, &[9])])].concat();
    for packet in &packets {
        ng.extend(enhanced(order, 0, 5, &packet.bytes()));
    }
    for whole in [raw(&packets), ng] {
        let mut found = 0;
        for cut in 0..=whole.len() {
            let mut lines = 0;
            let (read, _) = vestibule::cli::fingerprint::read(&whole[..cut], &table, |_| {
                lines += 1;
                Ok(())
            });
            assert!(read.is_ok() || cut < whole.len(), "{cut}");
            assert!(lines == 0 || cut == whole.len(), "{cut}: {lines}");
            found += lines;
        }
        assert_eq!(found, 1);
    }
}

#[test]
fn a_pipe_is_read_as_it_fills() {
    let chrome = chrome();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .args(["fingerprint", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&raw(&whole(FROM, TO, WINDOWS, &records(&chrome.message, 9999)))).unwrap();
    let mut line = String::new();
    // The pipe stays open: the line comes before the end.
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["ja4"], chrome.ja4);
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// Where captures that are not this project's own may lie: `VESTIBULE_SHARED_DATA`, else beside the checkout.
fn of_others() -> PathBuf {
    let data = std::env::var_os("VESTIBULE_SHARED_DATA").map(PathBuf::from);
    data.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).join("fingerprints/ja4-pcaps")
}

/// Past the test harness, which keeps what a passing test prints to itself.
fn say(line: &str) {
    let mut out = std::io::stderr();
    writeln!(out, "{line}").unwrap();
}

/// `expected.tsv` has the JA4 that other programs computed for each stream.
#[test]
fn captures_of_others_are_reproduced() {
    let folder = of_others();
    let Ok(table) = std::fs::read_to_string(folder.join("expected.tsv")) else {
        say(&format!("captures: absent ({}), used 0 streams", folder.display()));
        return;
    };
    let mut expected: BTreeMap<&str, Vec<(String, String, String)>> = BTreeMap::new();
    for row in table.lines().skip(1) {
        let [file, _, transport, port, server_name, ja4] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let of_file = expected.entry(file).or_default();
        if transport == "tcp" {
            of_file.push((port.to_owned(), server_name.to_owned(), ja4.to_owned()));
        }
    }
    let (mut streams, mut syns) = (0, BTreeMap::new());
    for (file, rows) in &mut expected {
        let ran = of_file(&folder.join(file));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{file}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let port = |line: &Value| text(&line["src"]).rsplit(':').next().unwrap().to_owned();
        let mut found: Vec<_> = ran.lines.iter().map(|line| (port(line), text(&line["sni"]), text(&line["ja4"]))).collect();
        // All of them, and none that the table does not have.
        found.sort();
        rows.sort();
        assert_eq!(found, *rows, "{file}");
        streams += rows.len();
        for syn in ran.lines.iter().filter_map(|line| line["syn"].as_str()) {
            *syns.entry(syn.to_owned()).or_insert(0) += 1;
        }
    }
    say(&format!("captures: used {streams} streams of {} files; SYNs {syns:?}", expected.len()));
    assert_eq!(streams, 72);
}
