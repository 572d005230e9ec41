//! A reader that cannot run past the end. Take or fail; a nested length becomes a nested reader; nothing is copied.

/// Bytes that are not what their format says, with the name of the field that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// The bytes not yet taken. After an error nothing has been taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[byte]: [u8; 1]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, left) = self.left.split_first_chunk().ok_or(Malformed(field))?;
        self.left = left;
        Ok(*taken)
    }

    pub(crate) fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self.left.split_at_checked(count).ok_or(Malformed(field))?;
        self.left = left;
        Ok(taken)
    }

    pub(crate) fn block_u8(&mut self, field: &'static str) -> Result<Self, Malformed> {
        self.block(field, |length| length.byte(field).map(usize::from))
    }

    pub(crate) fn block_u16(&mut self, field: &'static str) -> Result<Self, Malformed> {
        self.block(field, |length| length.u16(field).map(usize::from))
    }

    pub(crate) fn block_u24(&mut self, field: &'static str) -> Result<Self, Malformed> {
        self.block(field, |length| length.array(field).map(u24))
    }

    fn block(&mut self, field: &'static str, length: impl FnOnce(&mut Self) -> Result<usize, Malformed>) -> Result<Self, Malformed> {
        let mut ahead = *self;
        let count = length(&mut ahead)?;
        let block = Self::new(ahead.take(count, field)?);
        *self = ahead;
        Ok(block)
    }

    /// Everything that is left, taken.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// At most `count` bytes, taken.
    pub(crate) fn up_to(&mut self, count: usize) -> &'a [u8] {
        let (taken, left) = self.left.split_at_checked(count).unwrap_or((self.left, &[]));
        self.left = left;
        taken
    }

    pub(crate) const fn len(&self) -> usize {
        self.left.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Leftover bytes are an error.
    pub(crate) const fn end(&self, field: &'static str) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed(field)) }
    }
}

pub(crate) fn u24([high, middle, low]: [u8; 3]) -> usize {
    usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_length_becomes_a_nested_reader() {
        let mut outer = Reader::new(&[0, 3, 1, 2, 3, 9]);
        let mut inner = outer.block_u16("inner").unwrap();
        assert_eq!(inner.byte("a"), Ok(1));
        assert_eq!(inner.u16("b"), Ok(0x0203));
        assert_eq!(inner.end("inner"), Ok(()));
        assert_eq!(outer.end("outer"), Err(Malformed("outer")));
        assert_eq!(outer.rest(), [9]);
        assert_eq!(outer.end("outer"), Ok(()));
    }

    #[test]
    fn a_failed_read_takes_nothing() {
        let mut reader = Reader::new(&[0, 0, 4, 1, 2]);
        assert_eq!(reader.block_u24("block").err(), Some(Malformed("block")));
        assert_eq!(reader.take(6, "six"), Err(Malformed("six")));
        assert_eq!(reader.len(), 5);
        assert_eq!(reader.up_to(9), [0, 0, 4, 1, 2]);
        assert!(reader.is_empty());
    }
}
