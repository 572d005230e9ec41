//! What named restrictions come to.

use super::draft::{Draft, Glob, Restriction};
use super::glob::Pattern;
use super::{Merged, MethodSet, RestrictionSet};

/// Restrictions, compiled.
#[derive(Debug)]
pub struct Restrictions {
    /// Each by itself.
    alone: Box<[Merged]>,
    paths: Box<[Paths]>,
    /// Those that look at the path.
    with_paths: RestrictionSet,
    /// The bit of a method in a `MethodSet` is its place here.
    pub methods: Vec<String>,
}

#[derive(Debug)]
struct Paths {
    allowed: Option<Box<[Pattern]>>,
    denied: Box<[Pattern]>,
}

impl Restrictions {
    pub fn new(draft: &Draft) -> Self {
        let methods = methods(draft);
        let patterns = |globs: &Vec<Glob>| globs.iter().map(Pattern::new).collect();
        let paths = draft.restrictions.iter().map(|restriction| Paths {
            allowed: restriction.allowed_paths.as_ref().map(patterns),
            denied: patterns(&restriction.denied_paths),
        });
        let paths: Box<[Paths]> = paths.collect();
        let looks = (0..).zip(&paths).filter(|(_, paths)| paths.allowed.is_some() || !paths.denied.is_empty());
        Self {
            alone: draft.restrictions.iter().map(|restriction| alone(restriction, &methods)).collect(),
            with_paths: looks.fold(RestrictionSet::EMPTY, |set, (index, _)| set.with(super::RestrictionId(index))),
            paths,
            methods,
        }
    }

    pub fn merged(&self, set: RestrictionSet) -> Merged {
        let each = set.iter().filter_map(|id| self.alone.get(id.index()));
        each.fold(Merged::default(), |all, one| tighter(&all, one))
    }

    /// Every list of allowed paths must hold the path, and none of denied ones may.
    pub fn path_refused(&self, set: RestrictionSet, path: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(path));
        let each = RestrictionSet(set.0 & self.with_paths.0).iter().filter_map(|id| self.paths.get(id.index()));
        each.into_iter().any(|paths| paths.allowed.as_ref().is_some_and(|allowed| !any(allowed)) || any(&paths.denied))
    }
}

/// The tighter of each: methods intersect, sizes take the smaller.
fn tighter(a: &Merged, b: &Merged) -> Merged {
    Merged {
        methods: match (a.methods, b.methods) {
            (Some(MethodSet(a)), Some(MethodSet(b))) => Some(MethodSet(a & b)),
            (one, other) => one.or(other),
        },
        no_store: a.no_store || b.no_store,
        sandbox: a.sandbox || b.sandbox,
        no_attachments: a.no_attachments || b.no_attachments,
        max_body: smaller(a.max_body, b.max_body),
        max_response: smaller(a.max_response, b.max_response),
        max_stream: smaller(a.max_stream, b.max_stream),
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// The methods that restrictions name, each once. A policy that names more than 64 loses those beyond: they are in no set, so refused where a
/// restriction names methods at all.
fn methods(draft: &Draft) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    for method in draft.restrictions.iter().filter_map(|restriction| restriction.methods.as_ref()).flatten() {
        if !methods.contains(method) && methods.len() < 64 {
            methods.push(method.clone());
        }
    }
    methods
}

fn alone(restriction: &Restriction, methods: &[String]) -> Merged {
    let bits = |named: &Vec<String>| {
        let bits = (0..64u8).zip(methods).filter(|(_, method)| named.contains(method));
        MethodSet(bits.fold(0, |set, (bit, _)| set | 1u64 << bit))
    };
    Merged {
        methods: restriction.methods.as_ref().map(bits),
        no_store: restriction.no_store,
        sandbox: restriction.sandbox,
        no_attachments: restriction.no_attachments,
        max_body: restriction.max_body,
        max_response: restriction.max_response,
        max_stream: restriction.max_stream,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::draft::Condition;
    use super::super::testing::*;
    use super::super::{Policy, RestrictionId};
    use super::*;
    use crate::model::Effect;

    fn globs(globs: &[&str]) -> Vec<Glob> {
        globs.iter().map(|glob| Glob((*glob).to_owned())).collect()
    }

    fn policy(restrictions: &[(Option<&[&str]>, &[&str])]) -> Policy {
        let each = restrictions.iter().map(|(allowed, denied)| Restriction {
            allowed_paths: allowed.map(globs),
            denied_paths: globs(denied),
            ..Restriction::default()
        });
        Policy::compile(Draft { restrictions: each.collect(), ..draft(vec![]) })
    }

    fn set(ids: &[u8]) -> RestrictionSet {
        ids.iter().fold(RestrictionSet::EMPTY, |set, id| set.with(RestrictionId(*id)))
    }

    #[test]
    fn every_list_of_allowed_paths_must_hold_the_path_and_no_denied_one_may() {
        let policy = policy(&[
            (Some(&["/wiki", "/wiki/*"]), &["/wiki/admin", "/wiki/admin/*"]),
            (Some(&["*.html", "/wiki"]), &[]),
            (None, &["*secret*"]),
            (None, &[]),
            (Some(&[]), &[]),
        ]);
        for (ids, open, refused) in [
            (&[][..], &["/", "/x"][..], &[][..]),
            (&[3], &["/", "/x"], &[]),
            (
                &[0],
                &["/wiki", "/wiki/", "/wiki/a", "/wiki/administration"],
                &["/", "/wikis", "/WIKI", "/wiki/admin", "/wiki/admin/x", "/x/wiki/"],
            ),
            (&[0, 1], &["/wiki", "/wiki/a.html"], &["/wiki/a", "/a.html", "/wiki/admin/a.html"]),
            (&[0, 2, 3], &["/wiki/a"], &["/wiki/secret", "/secret", "/wiki/a/secrets/b"]),
            (&[4], &[], &["/", "", "/wiki"]),
            // Of another policy.
            (&[63], &["/"], &[]),
        ] {
            for path in open {
                assert!(!policy.path_refused(set(ids), path), "{ids:?} should leave {path} open");
            }
            for path in refused {
                assert!(policy.path_refused(set(ids), path), "{ids:?} should refuse {path}");
            }
        }
    }

    const GLOBS: [&str; 8] = ["/", "/a", "/a/*", "/*", "*b", "/*/b*", "*", "/a*b"];

    fn lists() -> impl Strategy<Value = (Option<Vec<&'static str>>, Vec<&'static str>)> {
        (prop::option::of(subsequence(GLOBS.to_vec(), 0..4)), subsequence(GLOBS.to_vec(), 0..3))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn paths_compare_as_http_path_does(lists in prop::collection::vec(lists(), 1..4), paths in prop::collection::vec("(/[ab]{0,2}){1,3}", 4)) {
            let each: Vec<_> = lists.iter().map(|(allowed, denied)| (allowed.as_deref(), denied.as_slice())).collect();
            let policy = policy(&each);
            let any_of = |globs: &[&'static str]| Condition::Any(globs.iter().map(|glob| path(glob)).collect());
            for path in paths {
                let holds = |when: Condition| {
                    let one = Policy::compile(draft(vec![forward(when)]));
                    Visit::of(laptop()).to("GET", &path).decide(&one).done.effect == Effect::Forward
                };
                let open = lists.iter().all(|(allowed, denied)| allowed.as_ref().is_none_or(|globs| holds(any_of(globs))) && !holds(any_of(denied)));
                let all = (0..).take(lists.len()).map(RestrictionId).fold(RestrictionSet::EMPTY, RestrictionSet::with);
                prop_assert_eq!(policy.path_refused(all, &path), !open);
            }
        }

        #[test]
        fn another_restriction_never_opens_a_path(
            lists in prop::collection::vec(lists(), 4), some in 0..16u64, more in 0..16u64, path in select(vec!["/", "/a", "/a/b", "/b", "/ab"]),
        ) {
            let each: Vec<_> = lists.iter().map(|(allowed, denied)| (allowed.as_deref(), denied.as_slice())).collect();
            let policy = policy(&each);
            prop_assert!(policy.path_refused(RestrictionSet(some | more), path) >= policy.path_refused(RestrictionSet(some), path));
        }
    }
}
