//! Sets of a signal's values, as far as they can be compared with certainty: "not provable" is always an allowed answer, a wrong one never.

use ipnet::IpNet;

use crate::policy::draft::{Compare, Glob, Want};

#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// Of few known values, by their numbers.
    Finite(Bits),
    /// Of an ordered value, which may be absent.
    Span(Span),
    /// Of one text.
    Text(Text),
    /// Of an address.
    Nets { any: Option<Vec<IpNet>>, none: Vec<IpNet> },
    /// Of a set of texts: what must be true of it, and what must not.
    Set { holds: Vec<Want>, fails: Vec<Want> },
}

impl Domain {
    pub fn finite(universe: usize, members: impl IntoIterator<Item = usize>) -> Self {
        Self::Finite(Bits::new(universe, members))
    }

    /// Any of these texts or globs.
    pub fn texts(globs: &[Glob]) -> Self {
        Self::Text(Text { all: vec![globs.to_vec()], none: Vec::new() })
    }

    /// Every value, of the same signal.
    pub fn everything(&self) -> Self {
        match self {
            Self::Finite(bits) => Self::finite(bits.universe, 0..bits.universe),
            Self::Span(_) => Self::Span(Span { absent: true, ranges: vec![(Cut::Lowest, Cut::Highest)] }),
            Self::Text(_) => Self::Text(Text::default()),
            Self::Nets { .. } => Self::Nets { any: None, none: Vec::new() },
            Self::Set { .. } => Self::Set { holds: Vec::new(), fails: Vec::new() },
        }
    }

    /// All other values. `None`: it cannot be said in these terms.
    pub fn complement(&self) -> Option<Self> {
        Some(match self {
            Self::Finite(bits) => Self::Finite(bits.complement()),
            Self::Span(span) => Self::Span(span.complement()),
            Self::Text(Text { all, none }) => match (all.as_slice(), none.as_slice()) {
                ([globs], []) => Self::Text(Text { all: Vec::new(), none: globs.clone() }),
                ([], [_, ..]) => Self::Text(Text { all: vec![none.clone()], none: Vec::new() }),
                _ => return None,
            },
            Self::Nets { any, none } => match (any, none.as_slice()) {
                (Some(any), []) => Self::Nets { any: None, none: any.clone() },
                (None, [_, ..]) => Self::Nets { any: Some(none.clone()), none: Vec::new() },
                _ => return None,
            },
            Self::Set { holds, fails } => match (holds.as_slice(), fails.as_slice()) {
                ([want], []) => Self::Set { holds: Vec::new(), fails: vec![want.clone()] },
                ([], [want]) => Self::Set { holds: vec![want.clone()], fails: Vec::new() },
                _ => return None,
            },
        })
    }

    pub fn intersect(&mut self, other: &Self) {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.intersect(b),
            (Self::Span(a), Self::Span(b)) => a.intersect(b),
            (Self::Text(a), Self::Text(b)) => {
                a.all.extend(b.all.iter().cloned());
                a.none.extend(b.none.iter().cloned());
            }
            (Self::Nets { any: a, none: a_none }, Self::Nets { any: b, none: b_none }) => {
                *a = match (a.take(), b) {
                    (Some(a), Some(b)) => Some(common(&a, b)),
                    (a, b) => a.or_else(|| b.clone()),
                };
                a_none.extend(b_none);
            }
            (Self::Set { holds, fails }, Self::Set { holds: more, fails: fewer }) => {
                holds.extend(more.iter().cloned());
                fails.extend(fewer.iter().cloned());
            }
            // Two domains of one signal are of one kind.
            _ => {}
        }
    }

    /// Certainly without a value.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Finite(bits) => bits.is_empty(),
            Self::Span(span) => !span.absent && span.ranges.is_empty(),
            Self::Text(text) => text.is_empty(),
            Self::Nets { any, none } => any.as_ref().is_some_and(|any| any.iter().all(|net| none.iter().any(|other| other.contains(net)))),
            Self::Set { holds, fails } => holds.iter().any(|want| fails.iter().any(|other| implies(want, other))),
        }
    }

    /// Certainly every value of it is one of `other`.
    pub fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.within(b),
            (Self::Span(a), Self::Span(b)) => a.within(b),
            (Self::Text(a), Self::Text(b)) => a.within(b),
            (Self::Nets { any: a, none: a_none }, Self::Nets { any: b, none: b_none }) => {
                let inside = match (a, b) {
                    (_, None) => true,
                    (None, Some(_)) => false,
                    (Some(a), Some(b)) => a.iter().all(|net| b.iter().any(|other| other.contains(net))),
                };
                let apart = |net: &IpNet| {
                    a_none.iter().any(|other| other.contains(net))
                        || a.as_ref().is_some_and(|a| a.iter().all(|mine| !mine.contains(net) && !net.contains(mine)))
                };
                inside && b_none.iter().all(apart)
            }
            (Self::Set { holds: a, fails: a_fails }, Self::Set { holds: b, fails: b_fails }) => {
                b.iter().all(|want| a.iter().any(|mine| implies(mine, want)))
                    && b_fails.iter().all(|want| a_fails.iter().any(|mine| implies(want, mine)))
            }
            _ => false,
        }
    }
}

/// Ranges are nested or apart: what two lists have in common is exact.
fn common(a: &[IpNet], b: &[IpNet]) -> Vec<IpNet> {
    let mut both = Vec::new();
    for one in a {
        for other in b {
            if one.contains(other) {
                both.push(*other);
            } else if other.contains(one) {
                both.push(*one);
            }
        }
    }
    both
}

/// Whether what is true of a set by `a` makes `b` true. `Want::None` does not come here: it is that `Any` fails.
fn implies(a: &Want, b: &Want) -> bool {
    match (a, b) {
        (Want::Text(a), Want::Text(b)) => a.iter().all(|glob| b.iter().any(|other| glob_within(glob, other))),
        (Want::Any, Want::Any) => true,
        _ => false,
    }
}

/// Certainly every text that `a` matches is one that `b` matches.
fn glob_within(a: &Glob, b: &Glob) -> bool {
    if a == b {
        return true;
    }
    if !a.0.contains('*') {
        return b.matches(&a.0);
    }
    // What `a` matches begins and ends with its own first and last piece, which share no characters.
    let Some((head, tail)) = b.0.split_once('*').filter(|(_, tail)| !tail.contains('*')) else { return false };
    let (first, last) = (a.0.split('*').next().unwrap_or_default(), a.0.rsplit('*').next().unwrap_or_default());
    first.starts_with(head) && last.ends_with(tail)
}

/// Certainly no text is one that both match.
fn globs_apart(a: &Glob, b: &Glob) -> bool {
    match (a.0.contains('*'), b.0.contains('*')) {
        (false, _) => !b.matches(&a.0),
        (_, false) => !a.matches(&b.0),
        (true, true) => {
            let head = |glob: &Glob| glob.0.split('*').next().unwrap_or_default().to_owned();
            let tail = |glob: &Glob| glob.0.rsplit('*').next().unwrap_or_default().to_owned();
            let (heads, tails) = ((head(a), head(b)), (tail(a), tail(b)));
            let begins = heads.0.starts_with(&heads.1) || heads.1.starts_with(&heads.0);
            let ends = tails.0.ends_with(&tails.1) || tails.1.ends_with(&tails.0);
            !begins || !ends
        }
    }
}

/// Numbers below `universe`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bits {
    universe: usize,
    words: Vec<u64>,
}

impl Bits {
    pub fn new(universe: usize, members: impl IntoIterator<Item = usize>) -> Self {
        let mut words = vec![0u64; universe.div_ceil(64)];
        for member in members {
            if member < universe
                && let Some(word) = words.get_mut(member / 64)
            {
                *word |= 1 << (member % 64);
            }
        }
        Self { universe, words }
    }

    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.universe).filter(|member| self.words.get(member / 64).is_some_and(|word| word >> (member % 64) & 1 == 1))
    }

    /// Of classes, of which the last is that of devices that nobody could look up.
    pub fn never_unclassified(&self) -> bool {
        !self.members().any(|member| member + 1 == self.universe)
    }

    fn complement(&self) -> Self {
        let mine: std::collections::HashSet<usize> = self.members().collect();
        Self::new(self.universe, (0..self.universe).filter(|member| !mine.contains(member)))
    }

    fn intersect(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    fn within(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(a, b)| a & !b == 0)
    }

    fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

/// A point between values: before or after one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    Lowest,
    /// The numbers compare one by one, and those that are missing are zero: there are no zeros at the end.
    At(Vec<u64>, bool),
    Highest,
}

/// Values between cuts: ascending, apart, none empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// There is no value: without a record there is no age.
    pub absent: bool,
    pub ranges: Vec<(Cut, Cut)>,
}

impl Span {
    /// What meets all comparisons.
    pub fn new(comparisons: impl IntoIterator<Item = (Compare, Vec<u64>)>) -> Self {
        let mut span = Self { absent: false, ranges: vec![(Cut::Lowest, Cut::Highest)] };
        for (compare, mut value) in comparisons {
            while value.last() == Some(&0) {
                value.pop();
            }
            let (before, after) = (Cut::At(value.clone(), false), Cut::At(value, true));
            let range = match compare {
                Compare::Less => (Cut::Lowest, before),
                Compare::AtMost => (Cut::Lowest, after),
                Compare::Equal => (before, after),
                Compare::AtLeast => (before, Cut::Highest),
                Compare::More => (after, Cut::Highest),
            };
            span.intersect(&Self { absent: false, ranges: vec![range] });
        }
        span
    }

    fn complement(&self) -> Self {
        let mut ranges = Vec::new();
        let mut from = Cut::Lowest;
        for (low, high) in &self.ranges {
            if from < *low {
                ranges.push((from, low.clone()));
            }
            from = high.clone();
        }
        if from < Cut::Highest {
            ranges.push((from, Cut::Highest));
        }
        Self { absent: !self.absent, ranges }
    }

    fn intersect(&mut self, other: &Self) {
        let mut ranges = Vec::new();
        for (low, high) in &self.ranges {
            for (other_low, other_high) in &other.ranges {
                let (low, high) = (low.max(other_low), high.min(other_high));
                if low < high {
                    ranges.push((low.clone(), high.clone()));
                }
            }
        }
        self.absent &= other.absent;
        self.ranges = ranges;
    }

    fn within(&self, other: &Self) -> bool {
        let inside = |(low, high): &(Cut, Cut)| other.ranges.iter().any(|(from, to)| from <= low && high <= to);
        (!self.absent || other.absent) && self.ranges.iter().all(inside)
    }
}

/// A text that of each list of `all` matches any, and of `none` none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    all: Vec<Vec<Glob>>,
    none: Vec<Glob>,
}

impl Text {
    /// The texts that it can be, where these are few.
    fn exact(&self) -> Option<Vec<&str>> {
        let list = self.all.iter().find(|globs| globs.iter().all(|glob| !glob.0.contains('*')))?;
        Some(list.iter().map(|glob| glob.0.as_str()).filter(|text| self.holds(text)).collect())
    }

    fn holds(&self, text: &str) -> bool {
        self.all.iter().all(|globs| globs.iter().any(|glob| glob.matches(text))) && !self.none.iter().any(|glob| glob.matches(text))
    }

    /// The alternatives of a list that the others leave possible.
    fn left<'a>(&'a self, globs: &'a [Glob]) -> impl Iterator<Item = &'a Glob> {
        let possible = |glob: &&Glob| {
            !self.none.iter().any(|none| glob_within(glob, none))
                && self.all.iter().all(|other| other.iter().any(|alternative| !globs_apart(glob, alternative)))
        };
        globs.iter().filter(possible)
    }

    fn is_empty(&self) -> bool {
        match self.exact() {
            Some(texts) => texts.is_empty(),
            None => self.all.iter().any(|globs| self.left(globs).next().is_none()),
        }
    }

    fn within(&self, other: &Self) -> bool {
        if let Some(texts) = self.exact() {
            return texts.into_iter().all(|text| other.holds(text));
        }
        let covered = |wanted: &Vec<Glob>| {
            let inside = |glob: &Glob| wanted.iter().any(|wanted| glob_within(glob, wanted));
            wanted.iter().any(|glob| glob.0 == "*") || self.all.iter().any(|globs| self.left(globs).all(inside))
        };
        let apart = |none: &Glob| {
            self.none.iter().any(|mine| glob_within(none, mine))
                || self.all.iter().any(|globs| self.left(globs).all(|glob| globs_apart(glob, none)))
        };
        other.all.iter().all(covered) && other.none.iter().all(apart)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(texts: &[String]) -> Vec<Glob> {
        texts.iter().cloned().map(Glob).collect()
    }

    fn text() -> impl Strategy<Value = Text> {
        let list = || proptest::collection::vec("[ab*]{0,4}", 1..3);
        (proptest::collection::vec(list(), 0..3), proptest::collection::vec("[ab*]{0,4}", 0..3))
            .prop_map(|(all, none)| Text { all: all.iter().map(|list| globs(list)).collect(), none: globs(&none) })
    }

    fn span() -> impl Strategy<Value = Span> {
        let compare =
            prop_oneof![Just(Compare::Less), Just(Compare::AtMost), Just(Compare::Equal), Just(Compare::AtLeast), Just(Compare::More)];
        let part = proptest::collection::vec((compare, proptest::collection::vec(0u64..3, 1..3)), 0..4);
        (part, any::<bool>()).prop_map(|(part, not)| if not { Span::new(part).complement() } else { Span::new(part) })
    }

    fn in_span(span: &Span, value: &[u64]) -> bool {
        let mut value = value.to_vec();
        while value.last() == Some(&0) {
            value.pop();
        }
        let at = Cut::At(value.clone(), false);
        span.ranges.iter().any(|(low, high)| *low <= at && Cut::At(value.clone(), true) <= *high)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_said_of_texts_is_true_of_each(a in text(), b in text(), values in proptest::collection::vec("[ab]{0,6}", 20)) {
            let (within, empty) = (a.within(&b), a.is_empty());
            for value in values {
                prop_assert!(!empty || !a.holds(&value), "{a:?} is not empty: {value}");
                prop_assert!(!within || !a.holds(&value) || b.holds(&value), "{a:?} is not within {b:?}: {value}");
            }
        }

        #[test]
        fn what_is_said_of_spans_is_true_of_each(a in span(), b in span(), value in proptest::collection::vec(0u64..4, 1..4)) {
            if a.within(&b) && in_span(&a, &value) {
                prop_assert!(in_span(&b, &value));
            }
            prop_assert_eq!(in_span(&a.complement(), &value), !in_span(&a, &value));
            let mut both = a.clone();
            both.intersect(&b);
            prop_assert_eq!(in_span(&both, &value), in_span(&a, &value) && in_span(&b, &value));
        }
    }

    #[test]
    fn containment_is_found_where_people_expect_it() {
        let of = |texts: &[&str]| Domain::texts(&texts.iter().map(|text| Glob((*text).to_owned())).collect::<Vec<_>>());
        assert!(of(&["/admin/x"]).within(&of(&["/admin", "/admin/*"])));
        assert!(of(&["/admin/x/*", "/b"]).within(&of(&["/admin/*", "/b"])));
        assert!(!of(&["/admin*"]).within(&of(&["/admin/*"])));
        assert!(of(&["a*"]).within(&of(&["*"])));
        let mut both = of(&["/a/*"]);
        both.intersect(&of(&["/b/*"]));
        assert!(both.is_empty());
        let nets = |texts: &[&str]| Domain::Nets { any: Some(texts.iter().map(|text| text.parse().unwrap()).collect()), none: vec![] };
        assert!(nets(&["10.1.0.0/16"]).within(&nets(&["10.0.0.0/8", "::/0"])));
        assert!(!nets(&["10.0.0.0/8"]).within(&nets(&["10.0.0.0/9", "10.128.0.0/9"])), "true, but not provable here");
        let mut none = nets(&["10.1.0.0/16"]);
        none.intersect(&nets(&["10.0.0.0/8"]).complement().unwrap());
        assert!(none.is_empty());
    }
}
