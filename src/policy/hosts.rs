//! Which app a request is for: its cost does not grow with the number of apps.

use std::collections::HashMap;

use ahash::RandomState;

use super::AppId;
use super::draft::{App, HostPattern};
use crate::model::Host;

#[derive(Debug, Default)]
pub struct Hosts {
    exact: HashMap<Box<str>, Prefixes, RandomState>,
    /// Keyed by what follows `*.`.
    below: HashMap<Box<str>, Prefixes, RandomState>,
}

/// The apps of one host by path prefix.
#[derive(Debug, Default)]
struct Prefixes {
    /// The app at `/`.
    root: Option<AppId>,
    /// Without a trailing slash.
    paths: HashMap<Box<str>, AppId, RandomState>,
    /// Segments of the deepest and bytes of the longest key: no more of a request's path is looked at.
    deepest: usize,
    longest: usize,
}

impl Hosts {
    pub fn new(apps: &[App]) -> Self {
        let mut hosts = Self::default();
        for (index, app) in (0..).zip(apps) {
            for pattern in &app.hosts {
                let prefixes = match pattern {
                    HostPattern::Exact(host) => hosts.exact.entry(host.as_str().into()).or_default(),
                    HostPattern::Below(host) => hosts.below.entry(host.as_str().into()).or_default(),
                };
                prefixes.add(&app.path_prefix, AppId(index));
            }
        }
        hosts
    }

    /// The host is settled first (exact, else the longest wildcard), then the longest prefix of its apps; a path that none of them holds
    /// is no app's, even where a wildcard would take it.
    pub fn app_at(&self, host: &Host, path: &str) -> Option<AppId> {
        self.prefixes(host.as_str())?.at(path)
    }

    fn prefixes(&self, host: &str) -> Option<&Prefixes> {
        if let Some(found) = self.exact.get(host) {
            return Some(found);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = self.below.get(parent) {
                return Some(found);
            }
            rest = parent;
        }
        None
    }
}

impl Prefixes {
    /// Of two apps with the same host and prefix (`check` refuses that) the first stays.
    fn add(&mut self, prefix: &str, app: AppId) {
        let key = prefix.trim_end_matches('/');
        if key.is_empty() {
            self.root.get_or_insert(app);
            return;
        }
        self.deepest = self.deepest.max(key.matches('/').count());
        self.longest = self.longest.max(key.len());
        self.paths.entry(key.into()).or_insert(app);
    }

    fn at(&self, path: &str) -> Option<AppId> {
        if self.paths.is_empty() {
            return self.root;
        }
        let end = path.match_indices('/').nth(self.deepest).map_or(path.len(), |(at, _)| at);
        let mut held = path.get(..end)?;
        while !held.is_empty() {
            if held.len() <= self.longest
                && let Some(app) = self.paths.get(held)
            {
                return Some(*app);
            }
            held = held.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        self.root
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{app, host};
    use super::*;

    fn hosts(apps: &[(&str, &str)]) -> Hosts {
        let apps: Vec<App> = apps
            .iter()
            .map(|(pattern, prefix)| {
                let pattern = match pattern.strip_prefix("*.") {
                    Some(parent) => HostPattern::Below(host(parent)),
                    None => HostPattern::Exact(host(pattern)),
                };
                App { hosts: vec![pattern], path_prefix: (*prefix).to_owned(), ..app("x", vec![]) }
            })
            .collect();
        Hosts::new(&apps)
    }

    #[test]
    fn the_exact_host_then_the_longest_wildcard_wins() {
        let table = hosts(&[("*.example", "/"), ("*.lab.example", "/"), ("wiki.lab.example", "/"), ("other.example", "/x")]);
        for (name, app) in [
            ("wiki.lab.example", Some(2)),
            ("git.lab.example", Some(1)),
            ("a.b.lab.example", Some(1)),
            ("lab.example", Some(0)),
            ("example", None),
            ("xlab.example", Some(0)),
            ("other.example", None),
            ("other.org", None),
        ] {
            assert_eq!(table.app_at(&host(name), "/").map(|a| a.0), app, "{name}");
        }
    }

    #[test]
    fn the_longest_path_prefix_wins_by_whole_segments() {
        let table = hosts(&[("h", "/"), ("h", "/wiki"), ("h", "/wiki/admin/"), ("h", "/git")]);
        for (path, app) in [
            ("/", 0),
            ("/wiki", 1),
            ("/wiki/", 1),
            ("/wiki/x/y/z", 1),
            ("/wikis", 0),
            ("/wiki/admin", 2),
            ("/wiki/admin/", 2),
            ("/wiki/admin/a/b/c", 2),
            ("/wiki/administration", 1),
            ("/git/wiki/admin", 3),
            ("*", 0),
            ("//wiki", 0),
        ] {
            assert_eq!(table.app_at(&host("h"), path).map(|a| a.0), Some(app), "{path}");
        }
        assert_eq!(hosts(&[("h", "/wiki")]).app_at(&host("h"), "/wikis"), None);
    }
}
