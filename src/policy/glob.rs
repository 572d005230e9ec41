//! Globs, prepared.

use super::draft::Glob;

impl Glob {
    pub fn matches(&self, text: &str) -> bool {
        Pattern::new(self).matches(text)
    }
}

/// A glob cut at its stars. Matching takes time linear in the text for each piece: pieces are found from left to right and never sought again,
/// so no text of a peer's makes it backtrack.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    Exact,
    /// Before the first star, between the stars (none of them empty), after the last.
    Starred {
        head: Box<str>,
        middle: Box<[Box<str>]>,
        tail: Box<str>,
    },
}

impl Pattern {
    pub fn new(glob: &Glob) -> Self {
        let text = glob.0.as_str();
        let shape = match text.split_once('*') {
            None => Shape::Exact,
            Some((head, rest)) => {
                let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
                let middle = middle.split('*').filter(|piece| !piece.is_empty()).map(Box::from).collect();
                Shape::Starred { head: head.into(), middle, tail: tail.into() }
            }
        };
        Self { text: text.into(), shape }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, text: &str) -> bool {
        match &self.shape {
            Shape::Exact => *self.text == *text,
            Shape::Starred { head, middle, tail } => {
                // The head is taken off before the tail is looked for, so that they never share characters: `aba*ba` is not `aba`.
                let Some(mut rest) = text.strip_prefix(&**head).and_then(|rest| rest.strip_suffix(&**tail)) else { return false };
                for piece in middle {
                    let Some((_, after)) = rest.split_once(&**piece) else { return false };
                    rest = after;
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(&Glob(text.to_owned()))
    }

    #[test]
    fn text_compares_by_equality_or_anchored_case_sensitive_glob() {
        for (glob, yes, no) in [
            ("build-*", &["build-", "build-7", "build-a/b"][..], &["build", "xbuild-7", "Build-7"][..]),
            ("/admin/*", &["/admin/", "/admin/a/b"], &["/admin", "/admins/", "/x/admin/"]),
            ("alice", &["alice"], &["alice ", "Alice", ""]),
            ("*", &["", "a", "/a/b"], &[]),
            ("a*b*c", &["abc", "a--b--c", "abbc", "abcbc"], &["ac", "acb", "abcd"]),
            ("aba*ba", &["ababa", "aba-ba"], &["aba"]),
            ("*.example", &["a.example", ".example"], &["example", "a.example.org"]),
            ("a**b", &["ab", "axb"], &["a"]),
        ] {
            for text in yes {
                assert!(pattern(glob).matches(text), "{glob} should match {text:?}");
            }
            for text in no {
                assert!(!pattern(glob).matches(text), "{glob} should not match {text:?}");
            }
        }
    }

    #[test]
    fn many_stars_do_not_make_it_slow() {
        // A backtracking matcher needs longer than the universe for this one.
        let glob = pattern(&"*a".repeat(200));
        assert!(!glob.matches(&format!("{}b", "a".repeat(20_000))));
    }

    /// The definition, by trying every split.
    fn naive(glob: &[char], text: &[char]) -> bool {
        match glob.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|cut| naive(rest, &text[cut..])),
            Some((first, rest)) => text.split_first().is_some_and(|(head, tail)| head == first && naive(rest, tail)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_the_definition(glob in "[ab*/é]{0,7}", text in "[ab/é]{0,9}") {
            let expected = naive(&glob.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(pattern(&glob).matches(&text), expected);
        }
    }
}
