//! One row of the table: what it asks of a layer, and whether a connection shows that.

use smallvec::SmallVec;

use crate::model::{Meaning, Traits};

/// One signature and what it stands for.
#[derive(Clone, Debug)]
pub struct Row {
    pub shows: Shows,
    pub meaning: Meaning,
}

/// What a connection must show.
#[derive(Clone, Debug)]
pub enum Shows {
    Tls(Box<Tls>),
    /// Any of them.
    H2(Vec<Glob>),
    /// Any of them.
    Syn(Vec<Glob>),
}

/// What a ClientHello must show: all that is not empty.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// `ja4_stable` matches any of them.
    pub ja4: Vec<Glob>,
    pub grease: Option<bool>,
    pub ciphers: Codes,
    pub extensions: Codes,
    pub groups: Codes,
    pub algorithms: Codes,
    /// The ciphers and extensions of a client that this row was made from, sorted; for the nearest row.
    pub example: Option<(SortedCodes, SortedCodes)>,
}

/// What one list of codes must show: all that is not empty.
#[derive(Clone, Debug, Default)]
pub struct Codes {
    pub has: Vec<u16>,
    /// At least one.
    pub any: Vec<u16>,
    pub lacks: Vec<u16>,
    /// The list's first codes, in this order.
    pub begins: Vec<u16>,
    /// Every code of the list is one of these, and they come in this order.
    pub order: Vec<u16>,
    /// Every code of the list is one of these.
    pub only: Vec<u16>,
}

/// What a list of codes must have, and may have, as sets of marks: a look at them turns most rows down before any list is read, and never a row
/// that matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    all: u64,
    /// 0: nothing is asked for.
    any: u64,
    within: u64,
}

/// Of ciphers, extensions, groups and algorithms.
pub(super) type Outlines = [Outline; 4];

/// One of 64 marks for each code, spread so that neighbours differ.
fn marks(codes: &[u16]) -> u64 {
    codes.iter().fold(0, |marks, code| marks | 1 << (u32::from(*code).wrapping_mul(0x9e37_79b1) >> 26))
}

/// The marks of a hello's lists, in the order of [`Outlines`].
pub(super) fn marks_of(traits: &Traits) -> [u64; 4] {
    [traits.ciphers(), traits.extensions(), traits.groups(), traits.algorithms()].map(marks)
}

pub(super) fn admit(outlines: &Outlines, marks: [u64; 4]) -> bool {
    outlines.iter().zip(marks).all(|(outline, marks)| outline.admits(marks))
}

impl Outline {
    const fn admits(&self, marks: u64) -> bool {
        self.all & !marks == 0 && marks & !self.within == 0 && (self.any == 0 || self.any & marks != 0)
    }
}

pub type SortedCodes = SmallVec<[u16; 64]>;

/// Text in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(pub Box<str>);

impl Tls {
    pub(super) fn outlines(&self) -> Outlines {
        [&self.ciphers, &self.extensions, &self.groups, &self.algorithms].map(Codes::outline)
    }

    pub(super) fn matches(&self, ja4: &str, traits: &Traits) -> bool {
        self.grease.is_none_or(|grease| grease == traits.grease)
            && (self.ja4.is_empty() || self.ja4.iter().any(|glob| glob.matches(ja4)))
            && self.ciphers.match_list(traits.ciphers())
            && self.extensions.match_list(traits.extensions())
            && self.groups.match_list(traits.groups())
            && self.algorithms.match_list(traits.algorithms())
    }

    /// In thousandths; `None` without an example.
    pub(super) fn distance(&self, (ciphers, extensions): &(SortedCodes, SortedCodes)) -> Option<usize> {
        let (own_ciphers, own_extensions) = self.example.as_ref()?;
        let (apart, shared) = [(ciphers, own_ciphers), (extensions, own_extensions)].into_iter().fold((0, 0), |(apart, shared), (a, b)| {
            let both = shared_codes(a, b);
            (apart + a.len() + b.len() - 2 * both, shared + both)
        });
        Some(apart * 1000 / (apart + shared).max(1))
    }
}

/// server_name and ALPN depend on the server asked, the others on the connection: see `ja4_stable`.
const NOT_COMPARED: [u16; 7] = [0, 16, 21, 35, 41, 42, 44];

/// The sets that rows are compared by.
pub fn example(ciphers: &[u16], extensions: &[u16]) -> (SortedCodes, SortedCodes) {
    let sorted = |codes: &mut dyn Iterator<Item = u16>| {
        let mut sorted: SortedCodes = codes.collect();
        sorted.sort_unstable();
        sorted.dedup();
        sorted
    };
    let stable = |code: &u16| !NOT_COMPARED.contains(code);
    (sorted(&mut ciphers.iter().copied()), sorted(&mut extensions.iter().copied().filter(stable)))
}

/// How many codes two sorted lists have in common.
fn shared_codes(a: &[u16], b: &[u16]) -> usize {
    let mut b = b.iter().peekable();
    let mut shared = 0;
    for code in a {
        while b.next_if(|other| *other < code).is_some() {}
        shared += usize::from(b.next_if_eq(&code).is_some());
    }
    shared
}

impl Codes {
    fn outline(&self) -> Outline {
        let within = |codes: &[u16]| if codes.is_empty() { u64::MAX } else { marks(codes) };
        Outline { all: marks(&self.has) | marks(&self.begins), any: marks(&self.any), within: within(&self.only) & within(&self.order) }
    }

    fn match_list(&self, list: &[u16]) -> bool {
        // First what a list of something else fails at its first code: most rows are another program's.
        list.starts_with(&self.begins)
            && (self.only.is_empty() || list.iter().all(|code| self.only.contains(code)))
            && (self.order.is_empty() || in_order(list, &self.order))
            && self.has.iter().all(|code| list.contains(code))
            && (self.any.is_empty() || self.any.iter().any(|code| list.contains(code)))
            && !self.lacks.iter().any(|code| list.contains(code))
    }
}

fn in_order(list: &[u16], order: &[u16]) -> bool {
    let mut left = order.iter();
    list.iter().all(|code| left.any(|next| next == code))
}

impl Glob {
    /// At most as many steps as text and pattern have characters, multiplied: a star gives way to the next one and is never tried again.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where to go on when the last star takes one more.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match (pattern.get(p), text.get(t)) {
                (None, None) => return true,
                (Some(b'*'), _) => {
                    star = Some((p + 1, t));
                    p += 1;
                }
                (Some(want), Some(have)) if want == have || *want == b'?' => (p, t) = (p + 1, t + 1),
                _ => match star {
                    Some((after, taken)) if taken < text.len() => {
                        star = Some((after, taken + 1));
                        (p, t) = (after, taken + 1);
                    }
                    _ => return false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("t13?15*_8daa_*", "t13d1516h2_8daa_22db", true),
            ("t13?15*_8daa_*", "t13d1416h2_8daa_22db", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(Glob(glob.into()).matches(text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn lists() {
        let list = [1, 2, 3, 5];
        let codes = |change: fn(&mut Codes)| {
            let mut codes = Codes::default();
            change(&mut codes);
            codes.match_list(&list)
        };
        assert!(codes(|_| {}));
        assert!(codes(|c| c.has = vec![5, 1]) && !codes(|c| c.has = vec![1, 4]));
        assert!(codes(|c| c.any = vec![9, 1]) && !codes(|c| c.any = vec![9, 4]));
        assert!(codes(|c| c.lacks = vec![4]) && !codes(|c| c.lacks = vec![4, 5]));
        assert!(codes(|c| c.begins = vec![1, 2]) && !codes(|c| c.begins = vec![2]));
        assert!(
            codes(|c| c.order = vec![0, 1, 2, 3, 4, 5]) && !codes(|c| c.order = vec![2, 1, 3, 5]) && !codes(|c| c.order = vec![1, 2, 3])
        );
        assert!(codes(|c| c.only = vec![5, 3, 2, 1]) && !codes(|c| c.only = vec![5, 3, 2]));
    }

    proptest! {
        #[test]
        fn an_outline_never_turns_down_what_matches(list in some(), a in some(), b in some(), kind in 0..6_usize) {
            let mut codes = Codes::default();
            let first: Vec<u16> = list.iter().copied().take(a.len() % 4).collect();
            let all = [list.clone(), a.clone()].concat();
            match kind {
                0 => codes.has = first,
                1 => codes.any = b,
                2 => (codes.lacks, codes.only) = (b, all),
                3 => codes.begins = first,
                4 => codes.order = [b, list.clone(), a].concat(),
                _ => (codes.has, codes.only) = (b, a),
            }
            prop_assert!(!codes.match_list(&list) || codes.outline().admits(marks(&list)), "{:?} {:?}", codes, list);
        }
    }

    /// Of few values, so that lists meet.
    fn some() -> impl Strategy<Value = Vec<u16>> {
        proptest::collection::vec(prop_oneof![0..8_u16, 0x1301..0x1306_u16, any::<u16>()], 0..12)
    }

    #[test]
    fn an_outline_turns_down_what_is_another_programs() {
        let only = Codes { only: vec![1, 2, 3], ..Codes::default() };
        assert!(only.outline().admits(marks(&[3, 1])) && !only.outline().admits(marks(&[1, 9])));
        let has = Codes { has: vec![1, 2], any: vec![7, 8], ..Codes::default() };
        assert!(has.outline().admits(marks(&[2, 1, 8])) && !has.outline().admits(marks(&[1, 8])) && !has.outline().admits(marks(&[1, 2])));
    }

    #[test]
    fn a_distance_is_what_only_one_has() {
        let row = Tls { example: Some(example(&[1, 2], &[0, 10, 35])), ..Tls::default() };
        assert_eq!(row.distance(&example(&[2, 1], &[10, 16])), Some(0));
        assert_eq!(row.distance(&example(&[3, 1], &[10])), Some(500));
        assert_eq!(row.distance(&example(&[], &[])), Some(1000));
        assert_eq!(Tls::default().distance(&example(&[], &[])), None);
    }
}
