//! Which lines come before one and leave it nothing.

use super::boxes::{Decided, Dim, Part};
use super::domain::Domain;

/// More parts of earlier lines than this are not looked at: an app of very many rules costs time in proportion to their number.
const MOST_PARTS: usize = 128;

/// Lines that are tried whether a cover does without them.
const MOST_TRIED: usize = 16;

/// Earlier lines' parts, each with the line's number.
#[derive(Debug, Default)]
pub struct Earlier<'a>(Vec<(usize, &'a Part)>);

impl<'a> Earlier<'a> {
    pub fn push(&mut self, line: usize, parts: &'a [Part]) {
        let room = MOST_PARTS.saturating_sub(self.0.len());
        self.0.extend(parts.iter().take(room).map(|part| (line, part)));
    }

    /// The lines that together match whatever `parts` match. `known` is true of every request. `None`: not provable.
    pub fn cover(&self, parts: &[Part], known: &[(Dim, Domain)]) -> Option<Vec<usize>> {
        let all = |_| true;
        let mut used = self.cover_by(parts, known, &all)?;
        used.sort_unstable();
        used.dedup();
        // Those that are not needed are not named.
        for line in used.clone().into_iter().rev().take(MOST_TRIED) {
            let fewer: Vec<usize> = used.iter().copied().filter(|other| *other != line).collect();
            if self.cover_by(parts, known, &|line| fewer.contains(&line)).is_some() {
                used = fewer;
            }
        }
        Some(used)
    }

    fn cover_by(&self, parts: &[Part], known: &[(Dim, Domain)], by: &dyn Fn(usize) -> bool) -> Option<Vec<usize>> {
        let mut used = Vec::new();
        for part in parts.iter().filter(|part| part.impossible().is_none()) {
            self.cover_one(part, known, by, &mut used)?;
        }
        Some(used)
    }

    fn cover_one(&self, part: &Part, known: &[(Dim, Domain)], by: &dyn Fn(usize) -> bool, used: &mut Vec<usize>) -> Option<()> {
        let lines = || self.0.iter().filter(|(line, _)| by(*line));
        if let Some((line, _)) = lines().find(|(_, other)| matches!(differs(part, other, known), Differs::Nowhere)) {
            used.push(*line);
            return Some(());
        }
        let mut left = part.clone();
        for (line, other) in lines() {
            match differs(&left, other, known) {
                Differs::Nowhere => {
                    used.push(*line);
                    return Some(());
                }
                // What is left has other values of that one signal, if it is certain that the signal has one.
                Differs::In(dim, domain) if dim.decided() == Decided::Always || part.domain(dim).is_some() => {
                    let of_all = || known.iter().find(|(name, _)| name == dim).map(|(_, domain)| domain.clone());
                    let mine = left.domain(dim).cloned().or_else(of_all).unwrap_or_else(|| domain.everything());
                    let mut both = mine.clone();
                    both.intersect(domain);
                    let Some(rest) = domain.complement().filter(|_| !both.is_empty()) else { continue };
                    if left.domain(dim).is_none() {
                        left.dims.push((dim.clone(), mine));
                    }
                    left.add(dim, &rest);
                    used.push(*line);
                    if left.impossible().is_some() {
                        return Some(());
                    }
                }
                Differs::In(..) | Differs::More => {}
            }
        }
        None
    }
}

enum Differs<'a> {
    Nowhere,
    In(&'a Dim, &'a Domain),
    More,
}

/// In which signal `part` may have a value that `other` does not allow.
fn differs<'a>(part: &Part, other: &'a Part, known: &[(Dim, Domain)]) -> Differs<'a> {
    let mut found = Differs::Nowhere;
    for (dim, domain) in &other.dims {
        let of_all = || known.iter().find(|(name, _)| name == dim).map(|(_, domain)| domain);
        let within = match part.domain(dim).or_else(of_all) {
            Some(mine) => mine.within(domain),
            None => domain.everything().within(domain),
        };
        if !within {
            match found {
                Differs::Nowhere => found = Differs::In(dim, domain),
                _ => return Differs::More,
            }
        }
    }
    found
}
