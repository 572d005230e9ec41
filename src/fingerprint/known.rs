//! The table of known signatures: what a hello, an HTTP/2 opening or a SYN leaves possible. Data is in `known.yaml`, which
//! `config::signatures` reads; here are its rows as types, and the look-up.

mod row;

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use row::Outlines;
pub use row::{Codes, Glob, Row, Shows, SortedCodes, Tls, example};

use crate::model::{Identification, Meaning, Opening, Seen, Set, Span, Traits, Wire, Word};

/// The compiled table. In each layer the first row that matches speaks.
#[derive(Clone, Debug, Default)]
pub struct Known {
    tls: Vec<(Outlines, Tls, Arc<Meaning>)>,
    h2: Vec<(Vec<Glob>, Arc<Meaning>)>,
    syn: Vec<(Vec<Glob>, Arc<Meaning>)>,
}

impl Known {
    /// A row replaces an earlier one of its name, in that one's place. Those of `own` with new names come before all of `builtin`: the operator
    /// knows better.
    pub fn new(builtin: Vec<Row>, own: Vec<Row>) -> Self {
        let mut rows = builtin;
        let mut places: HashMap<Arc<str>, usize> = rows.iter().enumerate().map(|(at, row)| (Arc::clone(&row.meaning.name), at)).collect();
        let mut first: Vec<Row> = Vec::new();
        for row in own {
            match places.get(&row.meaning.name).and_then(|at| rows.get_mut(*at)) {
                Some(place) => *place = row,
                None => first.push(row),
            }
        }
        places.clear();
        first.append(&mut rows);
        let mut known = Self::default();
        for row in first {
            let meaning = Arc::new(row.meaning);
            match row.shows {
                Shows::Tls(tls) => known.tls.push((tls.outlines(), *tls, meaning)),
                Shows::H2(globs) => known.h2.push((globs, meaning)),
                Shows::Syn(globs) => known.syn.push((globs, meaning)),
            }
        }
        known
    }

    /// Every name that `wire.stack` can be, some more than once.
    pub fn stacks(&self) -> impl Iterator<Item = &str> {
        let tls = self.tls.iter().map(|(.., meaning)| meaning);
        let others = self.h2.iter().chain(&self.syn).map(|(_, meaning)| meaning);
        tls.chain(others).flat_map(|meaning| &meaning.stacks).map(|name| &**name)
    }

    /// What the wire alone leaves possible. Once for each connection, and again when its first request has shown the opening.
    pub fn identify(&self, wire: &Wire, opening: &Opening) -> Identification {
        let hello = wire.ja4_stable.as_ref().zip(wire.traits.as_ref());
        let tls = match hello {
            None => Seen::Unavailable,
            Some((ja4, traits)) => {
                let (ja4, marks) = (ja4.as_str(), row::marks_of(traits));
                let found = self.tls.iter().find(|(outlines, row, _)| row::admit(outlines, marks) && row.matches(ja4, traits));
                layer(found.map(|(.., meaning)| meaning))
            }
        };
        let nearest = match (&tls, hello) {
            (Seen::Unknown, Some((_, traits))) => self.nearest(traits),
            _ => None,
        };
        together(tls, by_text(&self.h2, opening.h2.as_deref()), by_text(&self.syn, wire.syn.as_deref()), nearest)
    }

    /// Of the rows with an example the one that shares most with the hello: cipher suites and stable extensions that only one of both
    /// has, as a share of those that any has.
    fn nearest(&self, traits: &Traits) -> Option<Arc<str>> {
        let hello = row::example(traits.ciphers(), traits.extensions());
        let near = self.tls.iter().filter_map(|(_, row, meaning)| Some((row.distance(&hello)?, meaning)));
        near.min_by_key(|(distance, _)| *distance).map(|(_, meaning)| Arc::clone(&meaning.name))
    }
}

fn layer(found: Option<&Arc<Meaning>>) -> Seen {
    found.map_or(Seen::Unknown, |meaning| Seen::Known(Arc::clone(meaning)))
}

fn by_text(rows: &[(Vec<Glob>, Arc<Meaning>)], text: Option<&str>) -> Seen {
    let Some(text) = text else { return Seen::Unavailable };
    layer(rows.iter().find(|(globs, _)| globs.iter().any(|glob| glob.matches(text))).map(|(_, meaning)| meaning))
}

fn together(tls: Seen, h2: Seen, syn: Seen, nearest: Option<Arc<str>>) -> Identification {
    let nothing = Meaning::default();
    let [a, b, c] = [&tls, &h2, &syn].map(|layer| layer.meaning().unwrap_or(&nothing));
    let os = meet(a.os, b.os);
    let with_syn = meet(os, c.os);
    let identification = Identification {
        stacks: stacks(a, b),
        browsers: meet(a.browsers, b.browsers),
        versions: versions(a, b),
        os: if with_syn.is_empty() { os } else { with_syn },
        forms: meet(meet(a.forms, b.forms), c.forms),
        nearest,
        tls: Seen::Unavailable,
        h2: Seen::Unavailable,
        syn: Seen::Unavailable,
    };
    Identification { tls, h2, syn, ..identification }
}

/// An empty set excludes nobody.
fn meet<T: Word>(a: Set<T>, b: Set<T>) -> Set<T> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.both(b),
    }
}

fn stacks(a: &Meaning, b: &Meaning) -> SmallVec<[Arc<str>; 2]> {
    match (a.stacks.is_empty(), b.stacks.is_empty()) {
        (true, _) => b.stacks.clone(),
        (_, true) => a.stacks.clone(),
        _ => a.stacks.iter().filter(|name| b.stacks.contains(name)).cloned().collect(),
    }
}

/// Versions of different families cannot be compared. Where the usual program has no version that does both, it is one of those that possibly do
/// (a field trial, a release between two rows); else the range is the hello's, which changes more often.
fn versions(a: &Meaning, b: &Meaning) -> Option<Span> {
    match (a.versions, b.versions) {
        (Some(x), Some(y)) if a.stacks == b.stacks => {
            let possible = || a.possible.zip(b.possible).and_then(|(a, b)| a.both(b));
            Some(x.both(y).or_else(possible).unwrap_or(x))
        }
        (Some(x), _) => Some(x),
        (None, y) if a.stacks.is_empty() || a.stacks == b.stacks => y,
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Browser, Os};

    fn meaning(stack: &str, browsers: &[Browser], os: &[Os], versions: Option<Span>) -> Seen {
        Seen::Known(Arc::new(Meaning {
            name: stack.into(),
            stacks: Some(stack).filter(|stack| !stack.is_empty()).map(Arc::from).into_iter().collect(),
            browsers: browsers.iter().copied().collect(),
            versions,
            os: os.iter().copied().collect(),
            ..Meaning::default()
        }))
    }

    const NOT_SEEN: Seen = Seen::Unavailable;

    #[test]
    fn layers_meet() {
        let span = |from, to| Some(Span { from, to });
        let tls = meaning("chromium", &[Browser::Chrome, Browser::Edge], &[], span(117, Some(132)));
        let h2 = meaning("chromium", &[Browser::Chrome], &[], span(120, None));
        let syn = meaning("", &[], &[Os::Linux, Os::Android], None);
        let found = together(tls, h2, syn, None);
        assert_eq!((found.stack(), found.versions), ("chromium", span(120, Some(132))));
        assert_eq!(found.browsers.iter().collect::<Vec<_>>(), [Browser::Chrome]);
        assert_eq!(found.os.len(), 2);
    }

    #[test]
    fn versions_that_usually_do_not_meet_are_those_that_possibly_do() {
        let span = |from, to| Span { from, to: Some(to) };
        let row = |versions, possible| {
            let stacks = SmallVec::from_iter([Arc::from("apple")]);
            Seen::Known(Arc::new(Meaning { stacks, versions: Some(versions), possible, ..Meaning::default() }))
        };
        let together = |tls, h2| together(row(span(15, 17), tls), row(span(18, 26), h2), NOT_SEEN, None).versions;
        assert_eq!(together(Some(span(14, 18)), Some(span(17, 26))), Some(span(17, 18)));
        assert_eq!(together(Some(span(14, 18)), Some(span(19, 26))), Some(span(15, 17)));
        assert_eq!(together(Some(span(14, 18)), None), Some(span(15, 17)));
    }

    #[test]
    fn no_program_does_both() {
        let found = together(meaning("chromium", &[Browser::Chrome], &[], None), meaning("go", &[Browser::Go], &[], None), NOT_SEEN, None);
        assert_eq!((found.stack(), found.browsers.len()), ("unknown", 0));
    }

    /// A VPN sends its own SYN.
    #[test]
    fn a_syn_that_leaves_no_system_is_passed_over() {
        let apple = || meaning("apple", &[], &[Os::MacOs, Os::Ios], None);
        assert_eq!(together(apple(), NOT_SEEN, meaning("", &[], &[Os::Linux], None), None).os.len(), 2);
        assert_eq!(together(apple(), NOT_SEEN, meaning("", &[], &[Os::MacOs], None), None).os.len(), 1);
    }

    #[test]
    fn a_layer_that_says_nothing_excludes_nothing() {
        let found = together(meaning("go", &[Browser::Go], &[], None), meaning("", &[], &[], None), Seen::Unknown, None);
        assert_eq!((found.stack(), found.browsers.len(), found.os.len()), ("go", 1, 0));
    }
}
