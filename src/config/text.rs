//! Bytes of files: to text, and to the revision that names a policy.

use std::path::PathBuf;

use aws_lc_rs::digest::{Context, SHA256};

use super::report::{Findings, Place};

/// A larger file is no configuration.
pub const LARGEST: u64 = 16 << 20;

/// UTF-8, with or without a byte order mark. Anything else is an error at its place.
pub fn decode(bytes: &[u8], file: usize, out: &mut Findings) -> Option<String> {
    if u64::try_from(bytes.len()).is_ok_and(|len| len > LARGEST) {
        out.syntax(Place::of_file(file), format!("larger than {} MiB; a configuration is not", LARGEST >> 20));
        return None;
    }
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.iter().take(4).any(|byte| *byte == 0);
    if utf16 {
        out.syntax(Place::of_file(file), "not UTF-8: this looks like UTF-16 or UTF-32; save the file as UTF-8");
        return None;
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default()).chars().count() + 1;
            let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            out.syntax(Place { line, column, ..Place::of_file(file) }, format!("not UTF-8: the byte 0x{byte:02x}; save the file as UTF-8"));
            None
        }
    }
}

/// The first 12 hex digits of the SHA-256 over all files in their order: `cat vestibule.yaml policy.d/*.yaml | sha256sum`.
pub fn revision(files: &[(PathBuf, Vec<u8>)]) -> String {
    let mut context = Context::new(&SHA256);
    for (_, bytes) in files {
        context.update(bytes);
    }
    context.finish().as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_what_sha256sum_prints() {
        let files = [("a".into(), b"ab".to_vec()), ("b".into(), b"c".to_vec())];
        assert_eq!(revision(&files), "ba7816bf8f01");
    }

    #[test]
    fn a_byte_that_is_no_utf8_is_named_with_its_place() {
        let mut out = Findings::default();
        assert_eq!(decode("é: 1\nünï: \u{0}".as_bytes(), 0, &mut out).as_deref(), Some("é: 1\nünï: \u{0}"));
        assert_eq!(decode(b"a: 1\n\xc3\xa9: \xff", 0, &mut out), None);
        assert_eq!(decode(b"\xff\xfea\0:\0", 0, &mut out), None);
        assert_eq!(decode(b"\xef\xbb\xbfa: 1", 0, &mut out).as_deref(), Some("a: 1"));
        let lines = out.report(&["f".into()], |_| String::new(), |_| None).lines();
        assert_eq!(
            lines,
            "f:1:1: error: not UTF-8: this looks like UTF-16 or UTF-32; save the file as UTF-8\n\
             f:2:4: error: not UTF-8: the byte 0xff; save the file as UTF-8\n"
        );
    }
}
