//! Sets of words: what a layer leaves possible.

use std::fmt;
use std::marker::PhantomData;

/// A closed list of at most 32 words.
pub trait Word: Copy + 'static {
    const ALL: &'static [Self];

    /// One bit of its own.
    fn bit(self) -> u32;
    fn word(self) -> &'static str;
}

/// Some of the words of a list. Empty by default.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Set<T>(u32, PhantomData<T>);

impl<T: Word> Set<T> {
    pub const EMPTY: Self = Self(0, PhantomData);

    /// Every word: nothing is excluded.
    pub fn all() -> Self {
        T::ALL.iter().copied().collect()
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn has(self, word: T) -> bool {
        self.0 & word.bit() != 0
    }

    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0, PhantomData)
    }

    pub const fn either(self, other: Self) -> Self {
        Self(self.0 | other.0, PhantomData)
    }

    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// In the list's order.
    pub fn iter(self) -> impl Iterator<Item = T> {
        T::ALL.iter().copied().filter(move |word| self.has(*word))
    }
}

impl<T: Word> Default for Set<T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<T: Word> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(words: I) -> Self {
        Self(words.into_iter().fold(0, |bits, word| bits | word.bit()), PhantomData)
    }
}

impl<T: Word> fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(T::word)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Browser, Os};

    #[test]
    fn every_word_has_a_bit_of_its_own() {
        assert_eq!(Set::<Os>::all().len(), Os::ALL.len());
        assert_eq!(Set::<Browser>::all().len(), Browser::ALL.len());
    }

    #[test]
    fn sets_meet_and_join() {
        let apple: Set<Os> = [Os::MacOs, Os::Ios].into_iter().collect();
        let phones: Set<Os> = [Os::Android, Os::Ios].into_iter().collect();
        assert_eq!(apple.both(phones).iter().collect::<Vec<_>>(), [Os::Ios]);
        assert_eq!(apple.either(phones).len(), 3);
        assert!(apple.both([Os::Linux].into_iter().collect()).is_empty());
        assert_eq!(Set::<Os>::default(), Set::EMPTY);
    }
}
