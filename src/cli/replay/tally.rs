//! Lines decided anew and counted.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::model::Effect;
use crate::policy::{AppId, Decision, Policy};
use crate::record::{Lack, Past};

/// Of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: usize,
    pub line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Tighter,
    Looser,
    /// The same effect with other restrictions.
    Restrictions,
    /// What is done is the same; what would be done were nothing in report mode is not.
    Report,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Tighter, Self::Looser, Self::Restrictions, Self::Report];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tighter => "tighter",
            Self::Looser => "looser",
            Self::Restrictions => "restrictions",
            Self::Report => "report",
        }
    }
}

/// What flips have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    pub kind: Kind,
    pub app: String,
    /// As it was.
    pub class: String,
    pub before: String,
    pub after: String,
    /// Of the stricter of the two decisions.
    pub owner: String,
    pub reason: String,
}

#[derive(Clone, Debug, Default)]
pub struct Flips {
    pub count: u64,
    /// The first few, in the order of the files.
    pub samples: Vec<(Place, String)>,
}

impl Flips {
    const SAMPLES: usize = 3;

    fn add(&mut self, count: u64, samples: impl IntoIterator<Item = (Place, String)>) {
        self.count += count;
        self.samples.extend(samples);
        self.samples.sort();
        self.samples.truncate(Self::SAMPLES);
    }
}

/// Groups are made of names of two policies: these are more than any has. Those beyond are counted, but not told apart.
const GROUPS: usize = 10_000;

pub struct Tally<'p> {
    policy: &'p Policy,
    /// As a line begins that is not too old.
    since: Option<String>,
    pub lines: u64,
    pub too_old: u64,
    /// Decided anew.
    pub replayed: u64,
    pub same: u64,
    pub undecided: u64,
    pub malformed: u64,
    pub first_malformed: Option<(Place, String)>,
    /// Lines that do not say what a signal was that this policy reads.
    pub lacks: BTreeMap<String, u64>,
    /// Apps of the log that this configuration has no more.
    pub gone: BTreeMap<String, u64>,
    /// Apps for whose host and path there was none.
    pub new: BTreeMap<String, u64>,
    pub revisions: BTreeMap<String, u64>,
    pub span: Option<(String, String)>,
    pub flips: HashMap<Group, Flips, ahash::RandomState>,
    pub more_groups: u64,
}

impl<'p> Tally<'p> {
    pub fn new(policy: &'p Policy, since: Option<Timestamp>) -> Self {
        Self {
            policy,
            since: since.map(|since| format!("{since:.3}")),
            lines: 0,
            too_old: 0,
            replayed: 0,
            same: 0,
            undecided: 0,
            malformed: 0,
            first_malformed: None,
            lacks: BTreeMap::new(),
            gone: BTreeMap::new(),
            new: BTreeMap::new(),
            revisions: BTreeMap::new(),
            span: None,
            flips: HashMap::default(),
            more_groups: 0,
        }
    }

    pub fn take(&mut self, line: &[u8], place: Place) {
        let past = match Past::parse(line) {
            Ok(past) => past,
            Err(error) => return self.unreadable(place, &error.to_string()),
        };
        self.lines += 1;
        // All times have one width, so that texts sort as times do.
        if self.since.as_deref().is_some_and(|since| &*past.ts < since) {
            self.too_old += 1;
            return;
        }
        self.extend(&past.ts, &past.ts);
        if let Some(revision) = past.policy_rev.as_deref() {
            count(&mut self.revisions, revision, 1);
        }
        self.replay(&past, place);
    }

    fn replay(&mut self, past: &Past<'_>, place: Place) {
        let mut again = match past.again() {
            Ok(again) => again,
            Err(Lack::Undecided) => return self.not_decided(past),
            Err(Lack::Signal(signal)) => return count(&mut self.lacks, &signal, 1),
            Err(Lack::Malformed(field)) => {
                self.lines -= 1;
                return self.unreadable(place, &format!("{field} has a value that it cannot have"));
            }
        };
        let Some(app) = self.policy.app_at(&again.host, &again.path) else { return count(&mut self.gone, &past.app, 1) };
        if let Some(header) = past.lacks_header(self.policy, app) {
            return count(&mut self.lacks, &format!("http.header.{header}"), 1);
        }
        again.under(self.policy);
        let decision = self.policy.decide(app, &again.inputs(self.policy));
        self.compare(past, app, &decision, place);
    }

    /// Nobody looked who asked, so a host and path that have become an app's cannot be decided now.
    fn not_decided(&mut self, past: &Past<'_>) {
        self.undecided += 1;
        if past.reason() == "request.no_app"
            && let Some((host, path)) = past.host.as_deref().zip(past.path.as_deref())
            && let Ok(host) = crate::request::host(host)
            && let Some(app) = self.policy.app_at(&host, path)
        {
            count(&mut self.new, self.policy.app_name(app), 1);
        }
    }

    fn compare(&mut self, past: &Past<'_>, app: AppId, decision: &Decision, place: Place) {
        let (Some(done), Some(would)) = (past.done(), past.would()) else {
            self.lines -= 1;
            return self.unreadable(place, "effect has a value that it cannot have");
        };
        self.replayed += 1;
        let names = || decision.done.restrictions.iter().map(|id| self.policy.restriction(id).name.as_str());
        let others = past.restrictions.len() != names().count() || names().any(|name| past.restrictions.iter().all(|was| **was != *name));
        let kind = match decision.done.effect.cmp(&done) {
            std::cmp::Ordering::Greater => Kind::Tighter,
            std::cmp::Ordering::Less => Kind::Looser,
            std::cmp::Ordering::Equal if others => Kind::Restrictions,
            std::cmp::Ordering::Equal if decision.would.effect != would => Kind::Report,
            std::cmp::Ordering::Equal => {
                self.same += 1;
                return;
            }
        };
        let after_is_stricter = match kind {
            Kind::Report => decision.would.effect > would,
            kind => kind != Kind::Looser,
        };
        let ruled = if kind == Kind::Report { &decision.would } else { &decision.done };
        let (owner, reason) = if after_is_stricter {
            (self.policy.owner(ruled.owner).name.clone(), self.policy.reason(ruled.reasons.first()).to_string())
        } else {
            (past.owner.as_deref().unwrap_or("-").to_owned(), past.reason().to_owned())
        };
        let (before, after) = match kind {
            Kind::Tighter | Kind::Looser => (done.as_str().to_owned(), decision.done.effect.as_str().to_owned()),
            Kind::Report => (format!("would {}", would.as_str()), format!("would {}", decision.would.effect.as_str())),
            Kind::Restrictions => {
                let joined = |names: &mut dyn Iterator<Item = &str>| {
                    let mut names: Vec<&str> = names.collect();
                    names.sort_unstable();
                    if names.is_empty() { Effect::Restrict.as_str().to_owned() } else { names.join(", ") }
                };
                (joined(&mut past.restrictions.iter().map(|name| &**name)), joined(&mut names()))
            }
        };
        let now = self.policy.app_name(app);
        let app = if *past.app == *now { now.to_owned() } else { format!("{} -> {now}", past.app) };
        let class = past.class.as_deref().unwrap_or("-").to_owned();
        let group = Group { kind, app, class, before, after, owner, reason };
        self.flip(group, 1, [(place, past.request_id.to_string())]);
    }

    fn flip(&mut self, group: Group, count: u64, samples: impl IntoIterator<Item = (Place, String)>) {
        if self.flips.len() >= GROUPS && !self.flips.contains_key(&group) {
            self.more_groups += count;
            return;
        }
        self.flips.entry(group).or_default().add(count, samples);
    }

    pub fn unreadable(&mut self, place: Place, why: &str) {
        self.lines += 1;
        self.malformed += 1;
        if self.first_malformed.as_ref().is_none_or(|(first, _)| place < *first) {
            self.first_malformed = Some((place, why.to_owned()));
        }
    }

    fn extend(&mut self, from: &str, to: &str) {
        match &mut self.span {
            None => self.span = Some((from.to_owned(), to.to_owned())),
            Some((first, last)) => {
                if from < first.as_str() {
                    from.clone_into(first);
                }
                if to > last.as_str() {
                    to.clone_into(last);
                }
            }
        }
    }

    /// Adds what another thread counted.
    pub fn join(&mut self, other: Self) {
        self.lines += other.lines;
        self.too_old += other.too_old;
        self.replayed += other.replayed;
        self.same += other.same;
        self.undecided += other.undecided;
        self.malformed += other.malformed;
        self.more_groups += other.more_groups;
        self.first_malformed = match (self.first_malformed.take(), other.first_malformed) {
            (Some(one), Some(two)) => Some(if two.0 < one.0 { two } else { one }),
            (one, two) => one.or(two),
        };
        if let Some((first, last)) = &other.span {
            self.extend(first, last);
        }
        for (into, from) in [
            (&mut self.lacks, other.lacks),
            (&mut self.gone, other.gone),
            (&mut self.new, other.new),
            (&mut self.revisions, other.revisions),
        ] {
            from.iter().for_each(|(name, more)| count(into, name, *more));
        }
        for (group, flips) in other.flips {
            self.flip(group, flips.count, flips.samples);
        }
    }

    /// Requests that would be treated otherwise in this way.
    pub fn of(&self, kind: Kind) -> u64 {
        self.flips.iter().filter(|(group, _)| group.kind == kind).map(|(_, flips)| flips.count).sum()
    }

    /// The most frequent first.
    pub fn groups(&self, kind: Kind) -> Vec<(&Group, &Flips)> {
        let mut groups: Vec<_> = self.flips.iter().filter(|(group, _)| group.kind == kind).collect();
        groups.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(b.0)));
        groups
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str, more: u64) {
    match counts.get_mut(name) {
        Some(known) => *known += more,
        None => drop(counts.insert(name.to_owned(), more)),
    }
}
