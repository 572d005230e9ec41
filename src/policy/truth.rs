//! Kleene's three-valued logic.

/// The truth of a comparison or condition. The order is that of Kleene's strong logic: `and` is the smaller, `or` the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    No,
    /// Nobody can say: a field is missing from a record, a version does not parse, a header has several values.
    Undecided,
    Yes,
}

impl Truth {
    pub const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Undecided => "undecided",
            Self::Yes => "yes",
        }
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Undecided => Self::Undecided,
            Self::Yes => Self::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Truth::{No, Undecided, Yes};

    #[test]
    fn all_any_and_not_follow_kleenes_three_valued_logic() {
        for (a, b, and, or) in [
            (No, No, No, No),
            (No, Undecided, No, Undecided),
            (No, Yes, No, Yes),
            (Undecided, Undecided, Undecided, Undecided),
            (Undecided, Yes, Undecided, Yes),
            (Yes, Yes, Yes, Yes),
        ] {
            assert_eq!((a.and(b), b.and(a)), (and, and), "{a:?} and {b:?}");
            assert_eq!((a.or(b), b.or(a)), (or, or), "{a:?} or {b:?}");
        }
        assert_eq!((!No, !Undecided, !Yes), (Yes, Undecided, No));
    }
}
