//! The signature of a TCP SYN: what its kernel puts there before any program of the client has a say.
//!
//! One line, five parts, no spaces (the notation is ours):
//!
//! ```text
//! 4:64:mss*44:7:mss1460,sok,ts,nop,ws:df
//! | |  |      | |                     quirks, comma separated, or `-`
//! | |  |      | TCP options in wire order
//! | |  |      window scale, or `-` when not offered
//! | |  window: `mss*N` when a multiple of the offered MSS, else the number
//! | initial TTL class: the TTL as it came rounded up to 32, 64, 128 or 255
//! IP version
//! ```
//!
//! Options: `mssN sok ts nop ws eol`, `tfo` (RFC 7413), `mptcp` (RFC 8684), another one as `?` and its number. `eol` ends the list;
//! padding behind it is not looked at. Quirks: `df` (IPv4 don't fragment), `ecn` (RFC 3168: ECE and CWR both set).
//!
//! The order of the options and the TTL class tell families of kernels apart (Windows; Apple; Linux and Android); window and MSS
//! also follow the path, so a rule should match with a glob.

use super::Malformed;
use super::reader::Reader;

/// The signature of a SYN from its IP and TCP headers as `TCP_SAVED_SYN` gives them; bytes after them are ignored. `None` when
/// they are not the headers of a SYN of TCP over IPv4 or IPv6.
pub fn signature(headers: &[u8]) -> Option<Box<str>> {
    let mut headers = Reader::new(headers);
    let network = network(&mut headers).ok()?;
    let transport = transport(&mut headers).ok()?;

    // Room for any ordinary one.
    let mut line = String::with_capacity(80);
    let mut number = itoa::Buffer::new();
    line.push_str(number.format(network.version));
    line.push(':');
    line.push_str(number.format(ttl_class(network.ttl)));
    line.push(':');
    let window = match transport.mss {
        Some(mss) if mss != 0 && transport.window != 0 && transport.window % mss == 0 => {
            line.push_str("mss*");
            transport.window / mss
        }
        _ => transport.window,
    };
    line.push_str(number.format(window));
    line.push(':');
    line.push_str(transport.scale.map_or("-", |scale| number.format(scale)));
    line.push(':');
    line.push_str(if transport.options.is_empty() { "-" } else { &transport.options });
    line.push_str(match (network.dont_fragment, transport.ecn) {
        (true, true) => ":df,ecn",
        (true, false) => ":df",
        (false, true) => ":ecn",
        (false, false) => ":-",
    });
    Some(line.into_boxed_str())
}

struct Network {
    version: u8,
    ttl: u8,
    dont_fragment: bool,
}

const TCP: u8 = 6;

fn network(bytes: &mut Reader<'_>) -> Result<Network, Malformed> {
    let first = bytes.byte("version")?;
    match first >> 4 {
        4 => ipv4(first & 0x0f, bytes),
        6 => ipv6(bytes),
        _ => Err(Malformed("version")),
    }
}

/// RFC 791 section 3.1, after the first byte.
fn ipv4(header_words: u8, bytes: &mut Reader<'_>) -> Result<Network, Malformed> {
    let options = usize::from(header_words).checked_sub(5).ok_or(Malformed("header_length"))? * 4;
    bytes.take(5, "total_length")?;
    let fragment = bytes.u16("fragment_offset")?;
    let ttl = bytes.byte("ttl")?;
    let protocol = bytes.byte("protocol")?;
    bytes.take(10 + options, "addresses")?;
    // A fragment other than the first has no TCP header.
    if protocol != TCP || fragment & 0x1fff != 0 {
        return Err(Malformed("protocol"));
    }
    Ok(Network { version: 4, ttl, dont_fragment: fragment & 0x4000 != 0 })
}

/// RFC 8200 sections 3 and 4, after the first byte. Extension headers are walked.
fn ipv6(bytes: &mut Reader<'_>) -> Result<Network, Malformed> {
    bytes.take(5, "payload_length")?;
    let mut next = bytes.byte("next_header")?;
    let ttl = bytes.byte("hop_limit")?;
    bytes.take(32, "addresses")?;
    loop {
        match next {
            TCP => return Ok(Network { version: 6, ttl, dont_fragment: false }),
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                next = bytes.byte("next_header")?;
                let length = bytes.byte("extension_length")?;
                bytes.take(usize::from(length) * 8 + 6, "extension")?;
            }
            // As over IPv4, the first fragment will do if it has the whole TCP header, and a later one has none.
            44 => {
                next = bytes.byte("next_header")?;
                bytes.byte("reserved")?;
                let offset = bytes.u16("fragment_offset")?;
                bytes.take(4, "identification")?;
                if offset >> 3 != 0 {
                    return Err(Malformed("fragment_offset"));
                }
            }
            _ => return Err(Malformed("next_header")),
        }
    }
}

struct Transport {
    window: u16,
    mss: Option<u16>,
    scale: Option<u8>,
    ecn: bool,
    /// Comma separated.
    options: String,
}

/// RFC 9293 section 3.1.
fn transport(bytes: &mut Reader<'_>) -> Result<Transport, Malformed> {
    bytes.take(12, "sequence")?;
    let offset = bytes.byte("data_offset")? >> 4;
    let flags = bytes.byte("flags")?;
    let window = bytes.u16("window")?;
    bytes.take(4, "checksum")?;
    let length = usize::from(offset).checked_sub(5).ok_or(Malformed("data_offset"))? * 4;
    let mut options = Reader::new(bytes.take(length, "options")?);

    let [fin, syn, rst, ack] = [0x01, 0x02, 0x04, 0x10].map(|flag| flags & flag != 0);
    if !syn || fin || rst || ack {
        return Err(Malformed("flags"));
    }
    let mut transport = Transport { window, mss: None, scale: None, ecn: flags & 0xc0 == 0xc0, options: String::with_capacity(32) };
    while !options.is_empty() {
        if !transport.option(&mut options)? {
            break;
        }
    }
    Ok(transport)
}

impl Transport {
    /// Reads one option; `false` when it ends the list.
    fn option(&mut self, bytes: &mut Reader<'_>) -> Result<bool, Malformed> {
        let kind = bytes.byte("option")?;
        if !self.options.is_empty() {
            self.options.push(',');
        }
        match kind {
            0 => {
                self.options.push_str("eol");
                return Ok(false);
            }
            1 => {
                self.options.push_str("nop");
                return Ok(true);
            }
            _ => {}
        }
        // The length counts its own byte and the kind's.
        let length = usize::from(bytes.byte("option_length")?).checked_sub(2).ok_or(Malformed("option_length"))?;
        let mut value = Reader::new(bytes.take(length, "option")?);
        match kind {
            2 => {
                let mss = value.u16("mss")?;
                self.mss = Some(mss);
                self.options.push_str("mss");
                self.options.push_str(itoa::Buffer::new().format(mss));
                value.end("mss")?;
            }
            3 => {
                self.scale = Some(value.byte("window_scale")?);
                self.options.push_str("ws");
                value.end("window_scale")?;
            }
            4 => {
                self.options.push_str("sok");
                value.end("sack_permitted")?;
            }
            8 => {
                value.array::<8>("timestamps")?;
                self.options.push_str("ts");
                value.end("timestamps")?;
            }
            30 => self.options.push_str("mptcp"),
            34 => self.options.push_str("tfo"),
            other => {
                self.options.push('?');
                self.options.push_str(itoa::Buffer::new().format(other));
            }
        }
        Ok(true)
    }
}

/// Kernels start at one of these; every router on the way takes one off.
const fn ttl_class(ttl: u8) -> u8 {
    match ttl {
        0..=32 => 32,
        33..=64 => 64,
        65..=128 => 128,
        129..=255 => 255,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(window: u16, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut padded = options.to_vec();
        padded.resize(options.len().next_multiple_of(4), 0);
        let mut out = vec![0xd4, 0x31, 0x01, 0xbb, 1, 2, 3, 4, 0, 0, 0, 0];
        out.push(u8::try_from((20 + padded.len()) / 4).unwrap() << 4);
        out.push(flags);
        out.extend(window.to_be_bytes());
        out.extend([0; 4]);
        out.extend(padded);
        out
    }

    fn ipv4(ttl: u8, segment: &[u8]) -> Vec<u8> {
        let mut out = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        out.extend(segment);
        out
    }

    fn ipv6(extensions: &[u8], segment: &[u8]) -> Vec<u8> {
        let first = if extensions.is_empty() { 6 } else { 0 };
        let mut out = vec![0x60, 0, 0, 0, 0, 0, first, 60];
        out.extend([0x20; 32]);
        out.extend(extensions);
        out.extend(segment);
        out
    }

    const LINUX: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
    const WINDOWS: [u8; 12] = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];
    const APPLE: [u8; 24] = [2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0];
    const SYN: u8 = 0x02;

    #[test]
    fn families_of_kernels_look_different() {
        let of = |ttl, window, options: &[u8]| signature(&ipv4(ttl, &tcp(window, SYN, options)));
        assert_eq!(of(57, 64240, &LINUX).as_deref(), Some("4:64:mss*44:7:mss1460,sok,ts,nop,ws:df"));
        assert_eq!(of(113, 64240, &WINDOWS).as_deref(), Some("4:128:mss*44:8:mss1460,nop,ws,nop,nop,sok:df"));
        assert_eq!(of(64, 65535, &APPLE).as_deref(), Some("4:64:65535:6:mss1460,nop,ws,nop,nop,ts,sok,eol:df"));
    }

    #[test]
    fn ipv6_and_its_extension_headers() {
        let segment = tcp(64800, SYN | 0xc0, &LINUX);
        let plain = signature(&ipv6(&[], &segment));
        assert_eq!(plain.as_deref(), Some("6:64:64800:7:mss1460,sok,ts,nop,ws:ecn"));
        // Hop-by-hop options of 8 bytes, then destination options of 16, then TCP.
        let mut extensions = vec![60, 0, 1, 4, 0, 0, 0, 0, 6, 1];
        extensions.extend([0; 14]);
        assert_eq!(signature(&ipv6(&extensions, &segment)), plain);
        // One that is not known hides the rest.
        extensions[0] = 51;
        assert_eq!(signature(&ipv6(&extensions, &segment)), None);
    }

    #[test]
    fn the_first_fragment_will_do_and_a_later_one_has_no_tcp_header() {
        let segment = tcp(64800, SYN, &LINUX);
        let mut plain = ipv4(64, &segment);
        let whole = signature(&plain).unwrap();
        for (fragment, expected) in [([0x20, 0], Some(whole.replace(":df", ":-"))), ([0x20, 1], None), ([0, 1], None)] {
            plain[6..8].copy_from_slice(&fragment);
            assert_eq!(signature(&plain).as_deref(), expected.as_deref(), "{fragment:?}");
        }
        // Hop-by-hop options of 8 bytes, then a fragment header.
        let fragment = |offset: [u8; 2]| ipv6(&[&[44, 0, 1, 4, 0, 0, 0, 0, 6, 0][..], &offset, &[1, 2, 3, 4]].concat(), &segment);
        let whole = signature(&ipv6(&[], &segment));
        assert!(whole.is_some());
        assert_eq!(signature(&fragment([0, 0])), whole, "alone");
        assert_eq!(signature(&fragment([0, 1])), whole, "the first of several");
        assert_eq!(signature(&fragment([0, 8])), None);
        assert_eq!(signature(&fragment([0, 9])), None);
    }

    #[test]
    fn the_longest_header_has_a_signature() {
        let nops = signature(&ipv4(64, &tcp(1024, SYN, &[1; 40]))).unwrap();
        assert_eq!(nops.matches("nop").count(), 40);
        let unknown = signature(&ipv4(64, &tcp(1024, SYN, &[253, 2].repeat(20)))).unwrap();
        assert_eq!(unknown.matches("?253").count(), 20);
    }

    #[test]
    fn the_class_of_the_ttl_is_where_it_can_have_begun() {
        for (ttl, class) in [(1, 32), (32, 32), (33, 64), (64, 64), (65, 128), (128, 128), (129, 255), (255, 255)] {
            let line = signature(&ipv4(ttl, &tcp(1024, SYN, &[]))).unwrap();
            assert!(line.starts_with(&format!("4:{class}:")), "{ttl}: {line}");
        }
    }

    #[test]
    fn options_that_few_send() {
        let of = |options: &[u8]| signature(&ipv4(64, &tcp(0, SYN, options)));
        assert_eq!(of(&[]).as_deref(), Some("4:64:0:-:-:df"));
        assert_eq!(of(&[34, 2, 30, 4, 0, 0, 253, 4, 1, 1]).as_deref(), Some("4:64:0:-:tfo,mptcp,?253,eol:df"));
        assert_eq!(of(&[2, 4, 0, 0]).as_deref(), Some("4:64:0:-:mss0:df"));
    }

    #[test]
    fn the_ip_header_may_have_options() {
        let mut with_options = ipv4(64, &tcp(1024, SYN, &[]));
        with_options[0] = 0x46;
        with_options.splice(20..20, [148, 4, 0, 0]);
        assert_eq!(signature(&with_options).as_deref(), Some("4:64:1024:-:-:df"));
    }

    #[test]
    fn what_is_not_a_syn_has_no_signature() {
        for flags in [0x00, 0x10, SYN | 0x10, SYN | 0x04, SYN | 0x01] {
            assert_eq!(signature(&ipv4(64, &tcp(1024, flags, &LINUX))), None, "{flags:02x}");
        }
        let good = ipv4(64, &tcp(1024, SYN, &LINUX));
        for (at, value, what) in [
            (0, 0x55, "version"),
            (0, 0x44, "header length"),
            (9, 17, "UDP"),
            (7, 1, "a later fragment"),
            (32, 0x40, "data offset"),
            (32, 0xf0, "data offset past the end"),
            (41, 3, "mss of 3 bytes"),
            (41, 0, "option length 0"),
            (41, 60, "option past the end"),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(signature(&bad), None, "{what}");
        }
        assert!(signature(&good).is_some());
        for (options, what) in [
            (&[2, 6, 5, 0xb4, 0, 0, 0, 0][..], "mss of 6 bytes"),
            (&[3, 4, 7, 0], "window scale of 4 bytes"),
            (&[4, 4, 0, 0], "sack permitted of 4 bytes"),
            (&[8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "timestamps of 12 bytes"),
        ] {
            assert_eq!(signature(&ipv4(64, &tcp(1024, SYN, options))), None, "{what}");
        }
    }

    #[test]
    fn every_prefix_is_refused_and_bytes_behind_are_ignored() {
        for whole in [ipv4(64, &tcp(1024, SYN, &APPLE)), ipv6(&[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0], &tcp(9, SYN, &LINUX))] {
            for cut in 0..whole.len() {
                assert_eq!(signature(&whole[..cut]), None, "{cut}");
            }
            let mut longer = whole.clone();
            longer.extend([0xff; 9]);
            assert!(signature(&whole).is_some());
            assert_eq!(signature(&longer), signature(&whole));
        }
    }
}
