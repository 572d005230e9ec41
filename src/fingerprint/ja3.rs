//! JA3 of a ClientHello: <https://github.com/salesforce/ja3>. For other tools that know it; browsers permute their extensions, so it changes
//! with each of their connections and no rule can use it.

use std::fmt::Write;

use md5::{Digest, Md5};

use super::hello::Hello;

impl Hello {
    /// The text that is hashed: `version,ciphers,extensions,groups,point formats`, decimal, lists joined by `-`, in wire order without GREASE.
    pub fn ja3_r(&self) -> String {
        let mut text = String::with_capacity(256);
        // Writing to memory does not fail.
        let _ = write!(text, "{}", self.legacy_version);
        for codes in [&self.ciphers, &self.extensions, &self.groups] {
            text.push(',');
            push_list(codes.iter().copied(), &mut text);
        }
        text.push(',');
        push_list(self.point_formats.iter().map(|&format| u16::from(format)), &mut text);
        text
    }

    /// The MD5 of it in lower-case hex.
    pub fn ja3(&self) -> Box<str> {
        let digest = Md5::digest(self.ja3_r());
        let digits = digest.iter().flat_map(|&byte| [byte >> 4, byte]).map(super::ja4::hex_digit);
        digits.map(char::from).collect::<String>().into_boxed_str()
    }
}

fn push_list(codes: impl Iterator<Item = u16>, text: &mut String) {
    let mut number = itoa::Buffer::new();
    for (position, code) in codes.enumerate() {
        text.push_str(if position > 0 { "-" } else { "" });
        text.push_str(number.format(code));
    }
}
