//! The names of the fields in an HTTP/2 connection's first header block (RFC 7541). Values are walked over and never put together: what
//! is not decoded cannot be kept.

use smallvec::SmallVec;

use super::Malformed;
use super::order::Names;
use super::reader::Reader;

/// What we permit (RFC 9113 section 6.5.2: the default, and the proxy announces no other).
const TABLE_SIZE: usize = 4096;

/// The names in `block`, the whole first block of a connection, in wire order. What [`Names`] does not take is not read.
pub(super) fn names(block: &[u8]) -> Result<Names, Malformed> {
    let mut block = Reader::new(block);
    let mut names = Names::default();
    let mut table = Table { entries: SmallVec::new(), oldest: 0, size: 0, most: TABLE_SIZE };
    while !block.is_empty() && !names.is_full() {
        let first = block.byte("field")?;
        match first {
            0x80.. => {
                table.name(integer(first, 7, &mut block)?, &mut names)?;
            }
            0x40.. => {
                let field = names.len();
                let name = literal_name(integer(first, 6, &mut block)?, &table, &mut block, &mut names)?;
                let size = name + string(&mut block, |_| {})? + 32;
                table.add(Entry { field, name, size });
            }
            0x20.. => {
                // RFC 7541 section 4.2: only before the first field.
                let most = integer(first, 5, &mut block)?;
                if names.len() > 0 || most > TABLE_SIZE {
                    return Err(Malformed("table_size"));
                }
                table.most = most;
            }
            // Never indexed (0001) or not indexed (0000): the same to a reader.
            _ => {
                literal_name(integer(first, 4, &mut block)?, &table, &mut block, &mut names)?;
                string(&mut block, |_| {})?;
            }
        }
    }
    Ok(names)
}

/// The name of a literal field, by its index or spelled out. Gives back its length.
fn literal_name(index: usize, table: &Table, block: &mut Reader<'_>, names: &mut Names) -> Result<usize, Malformed> {
    if index == 0 {
        names.begin();
        return string(block, |byte| names.push(byte));
    }
    table.name(index, names)
}

/// The dynamic table as far as names go.
struct Table {
    /// The newest last.
    entries: SmallVec<[Entry; 32]>,
    /// Of `entries`, the first that has not been evicted.
    oldest: usize,
    size: usize,
    most: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Which field of the block has its name.
    field: usize,
    /// The whole name's length: `Names` keeps the start of a long one.
    name: usize,
    size: usize,
}

impl Table {
    fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.size += entry.size;
        while self.size > self.most
            && let Some(evicted) = self.entries.get(self.oldest)
        {
            self.size -= evicted.size;
            self.oldest += 1;
        }
    }

    /// Adds the name at `index` of both tables to `names`. Gives back its length.
    fn name(&self, index: usize, names: &mut Names) -> Result<usize, Malformed> {
        let at = index.checked_sub(1).ok_or(Malformed("index"))?;
        if let Some(name) = STATIC.get(at) {
            names.begin();
            name.bytes().for_each(|byte| names.push(byte));
            return Ok(name.len());
        }
        // The newest comes first.
        let at = self.entries.len().checked_sub(at - STATIC.len() + 1).filter(|at| *at >= self.oldest);
        let entry = at.and_then(|at| self.entries.get(at)).ok_or(Malformed("index"))?;
        names.repeat(entry.field);
        Ok(entry.name)
    }
}

/// RFC 7541 section 5.1, after its first byte. No number in a head that is read at all needs more than three more bytes.
fn integer(first: u8, prefix: u32, block: &mut Reader<'_>) -> Result<usize, Malformed> {
    let mask = usize::from(u8::MAX) >> (8 - prefix);
    let mut value = usize::from(first) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14] {
        let byte = block.byte("integer")?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("integer"))
}

/// RFC 7541 section 5.2. Gives back how many bytes the string has when decoded.
fn string(block: &mut Reader<'_>, mut each: impl FnMut(u8)) -> Result<usize, Malformed> {
    let first = block.byte("string_length")?;
    let length = integer(first, 7, block)?;
    let bytes = block.take(length, "string")?;
    if first & 0x80 != 0 {
        return huffman(bytes, each);
    }
    bytes.iter().for_each(|&byte| each(byte));
    Ok(length)
}

/// RFC 7541 section 5.2 and appendix B: a canonical code, so that the lengths and the order of the symbols say it all. What ends a string
/// before its time (EOS) is not in it.
const CODE: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef"),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9"),
    (30, b"\n\r\x16"),
];

fn huffman(bytes: &[u8], mut each: impl FnMut(u8)) -> Result<usize, Malformed> {
    let mut coming = bytes.iter();
    // The bits not yet decoded, at the top.
    let (mut bits, mut have) = (0_u64, 0_u32);
    let mut count = 0;
    loop {
        while have <= 56
            && let Some(&byte) = coming.next()
        {
            bits |= u64::from(byte) << (56 - have);
            have += 8;
        }
        match symbol(bits) {
            Some((symbol, length)) if length <= have => {
                each(symbol);
                count += 1;
                bits <<= length;
                have -= length;
            }
            // Padding is what is left of the last byte, all ones: the start of EOS.
            _ => {
                let padded = have < 8 && bits.leading_ones() >= have;
                return if padded { Ok(count) } else { Err(Malformed("huffman")) };
            }
        }
    }
}

/// The codes of at most eight bits, by the byte that begins with them: nearly all that clients send. A length of 0: a longer code.
static SHORT: [(u8, u32); 256] = short();

const fn short() -> [(u8, u32); 256] {
    let mut table = [(0, 0); 256];
    let (mut row, mut at) = (0, 0);
    while CODE[row].0 <= 8 {
        let (length, symbols) = CODE[row];
        let mut symbol = 0;
        while symbol < symbols.len() {
            let next = at + (1 << (8 - length));
            while at < next {
                table[at] = (symbols[symbol], length);
                at += 1;
            }
            symbol += 1;
        }
        row += 1;
    }
    table
}

/// The symbol that these bits begin with, and the length of its code.
fn symbol(bits: u64) -> Option<(u8, u32)> {
    let [byte, ..] = bits.to_be_bytes();
    if let Some(&found @ (_, 1..)) = SHORT.get(usize::from(byte)) {
        return Some(found);
    }
    let (mut first, mut before) = (0_u64, 0);
    for (length, symbols) in CODE {
        first <<= length - before;
        before = length;
        let at = (bits >> (64 - length)).checked_sub(first)?;
        if let Some(&symbol) = usize::try_from(at).ok().and_then(|at| symbols.get(at)) {
            return Some((symbol, length));
        }
        first += u64::try_from(symbols.len()).unwrap_or_default();
    }
    None
}

/// RFC 7541 appendix A.
const STATIC: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hex: &str) -> Result<Vec<String>, Malformed> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| byte.is_ascii_hexdigit()).collect();
        let block: Vec<u8> = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let names = names(&block)?;
        Ok(names.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect())
    }

    #[test]
    fn every_symbol_has_its_code() {
        let (mut code, mut before, mut count) = (0_u64, 5, 0);
        for (length, symbols) in CODE {
            code <<= length - before;
            before = length;
            for &symbol in symbols {
                assert_eq!(super::symbol(code << (64 - length)), Some((symbol, length)));
                assert_eq!(super::symbol(((code + 1) << (64 - length)) - 1), Some((symbol, length)), "whatever follows");
                code += 1;
                count += 1;
            }
        }
        // EOS is the one code that is left.
        assert_eq!((count, code), (256, (1 << 30) - 1));
        assert_eq!(super::symbol(u64::MAX), None);
    }

    /// Appendix C of RFC 7541: C.2.1 to C.2.4, C.3.1 and C.4.1.
    #[test]
    fn the_examples_of_the_rfc() {
        let request = [":method", ":scheme", ":path", ":authority"];
        assert_eq!(of("400a637573746f6d2d6b65790d637573746f6d2d686561646572").unwrap(), ["custom-key"]);
        assert_eq!(of("040c2f73616d706c652f70617468").unwrap(), [":path"]);
        assert_eq!(of("100870617373776f726406736563726574").unwrap(), ["password"]);
        assert_eq!(of("82").unwrap(), [":method"]);
        assert_eq!(of("828684410f7777772e6578616d706c652e636f6d").unwrap(), request);
        assert_eq!(of("828684418cf1e3c2e5f23a6ba0ab90f4ff").unwrap(), request);
    }

    /// C.4.1 to C.4.3 one after another: the third names what the others put into the table.
    #[test]
    fn names_come_out_of_the_table() {
        let all =
            of("828684418cf1e3c2e5f23a6ba0ab90f4ff 828684be5886a8eb10649cbf 828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf").unwrap();
        assert_eq!(all[4..9], [":method", ":scheme", ":path", ":authority", "cache-control"]);
        assert_eq!(all[9..], [":method", ":scheme", ":path", ":authority", "custom-key"]);
    }

    /// C.6.1 to C.6.3, whose table has 256 bytes: with a larger one the third block's indices would name other fields.
    #[test]
    fn what_does_not_fit_is_evicted() {
        let all =
            of("3fe101 488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3 \
             4883640effc1c0bf 88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960\
             d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007")
            .unwrap();
        assert_eq!(all[..4], [":status", "cache-control", "date", "location"]);
        assert_eq!(all[4..8], [":status", "cache-control", "date", "location"]);
        assert_eq!(all[8..], [":status", "cache-control", "date", "location", "content-encoding", "set-cookie"]);
        // Two entries of 42 bytes in a table of 64: only the newer is there.
        let two = "3f21 400361616103616161 400362626203626262";
        assert_eq!(of(&format!("{two} be")).unwrap(), ["aaa", "bbb", "bbb"]);
        assert_eq!(of(&format!("{two} bf")), Err(Malformed("index")));
        // One that is larger than the table empties it.
        assert_eq!(of("3e 400361616103616161 be"), Err(Malformed("index")));
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        for (block, field) in [
            ("80", "index"),
            ("be", "index"),
            ("ffffffffffff", "integer"),
            ("ff80808000", "integer"),
            ("7f", "integer"),
            ("40", "string_length"),
            ("400161", "string_length"),
            ("4005616263", "string"),
            ("0400", ""),
            ("0481ff", "huffman"),
            ("0482ffff", "huffman"),
            // A code and eight bits of padding, and padding that is not ones.
            ("04821fff", "huffman"),
            ("048118", "huffman"),
            ("0484ffffffff", "huffman"),
            ("82 20", "table_size"),
            ("3fe21f", "table_size"),
            ("3fe11f", ""),
        ] {
            let found = of(block).err().map_or("", |Malformed(field)| field);
            assert_eq!(found, field, "{block}");
        }
    }

    #[test]
    fn every_prefix_has_the_fields_that_are_whole_in_it() {
        let whole = [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        for end in 0..whole.len() {
            match end {
                0..4 => assert_eq!(names(&whole[..end]).unwrap().len(), end),
                _ => assert!(names(&whole[..end]).is_err(), "{end}"),
            }
        }
    }

    #[test]
    fn a_field_that_is_repeated_without_end_is_not_read_to_the_end() {
        let long = [&[0x40, 0x7f, 0x81, 0x0f][..], &[b'a'; 2048], &[0], &[0xbe; 10_000], &[0x80]].concat();
        let names = names(&long).unwrap();
        assert!(names.is_full());
        assert!(names.iter().all(|name| name == [b'a'; 64]));
    }
}
