//! Decisions that a connection has had before.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::assertion::Signed;
use super::conn::copied;
use crate::forward::Identity;
use crate::model::{Host, RestrictionKey, Sides, Sight, Standing};
use crate::policy::{AppId, Decision, FixId, Reads, ZoneId};
use crate::portal::Told;
use crate::record::Case;

/// A decision with what follows from it for every request that it is used for.
#[derive(Debug)]
pub struct Ruling {
    pub decision: Decision,
    pub standing: Standing,
    pub zone: Option<ZoneId>,
    pub claims: Rc<Sides>,
    pub sight: Rc<Sight>,
    pub identity: Identity,
    pub case: Rc<Case>,
    /// By `RestrictionKey`: made when such a restriction first refuses.
    pub refused: [OnceCell<Rc<Case>>; RestrictionKey::ALL.len()],
    /// What the person is told meanwhile; `None` for nearly all.
    pub told: Option<Told>,
    pub noticed: OnceCell<Rc<Case>>,
    /// What would earn more: looked for when a page is to say it.
    pub mend: OnceCell<Vec<FixId>>,
    /// For apps that ask for one; replaced when its time is over.
    pub assertion: RefCell<Option<Rc<Signed>>>,
    /// Of the decision's restrictions.
    pub permissions_policy: Option<HeaderValue>,
    pub made: Instant,
}

impl Ruling {
    /// The ages of facts in the log are at most this much behind.
    const LONGEST: Duration = Duration::from_secs(5);

    pub fn refused(&self, key: RestrictionKey) -> &OnceCell<Rc<Case>> {
        let [methods, paths, attachments, max_response, max_body, requests] = &self.refused;
        match key {
            RestrictionKey::Methods => methods,
            RestrictionKey::Paths => paths,
            RestrictionKey::Attachments => attachments,
            RestrictionKey::MaxResponse => max_response,
            RestrictionKey::MaxBody => max_body,
            RestrictionKey::Requests => requests,
        }
    }

    fn holds(&self, now: Timestamp, instant: Instant) -> bool {
        self.decision.valid_until.is_none_or(|until| now < until) && instant.saturating_duration_since(self.made) < Self::LONGEST
    }
}

/// What a decision may depend on besides the connection itself. `rules`, `standing`, `claims` and `sight` are serial numbers of the connection's own
/// values, which change whenever those do.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub app: AppId,
    pub rules: u64,
    pub standing: u64,
    pub claims: u64,
    pub sight: u64,
    pub method: &'a Method,
    pub host: &'a Host,
    pub path: &'a str,
    pub headers: &'a HeaderMap,
}

#[derive(Debug)]
struct Entry {
    app: AppId,
    rules: u64,
    standing: u64,
    claims: u64,
    sight: u64,
    method: Option<Method>,
    host: Option<Host>,
    path: Option<Box<str>>,
    headers: Vec<(HeaderName, Vec<HeaderValue>)>,
    ruling: Rc<Ruling>,
}

impl Entry {
    /// Every input is compared as it is, none by a hash: a peer that could make two requests collide would borrow the decision of the other.
    fn answers(&self, question: &Question<'_>) -> bool {
        self.app == question.app
            && self.rules == question.rules
            && self.standing == question.standing
            && self.claims == question.claims
            && self.sight == question.sight
            && self.method.as_ref().is_none_or(|method| method == question.method)
            && self.host.as_ref().is_none_or(|host| host == question.host)
            && self.path.as_deref().is_none_or(|path| path == question.path)
            && self.headers.iter().all(|(name, values)| question.headers.get_all(name).iter().eq(values))
    }
}

/// The last few decisions of one connection.
#[derive(Debug, Default)]
pub struct Memo {
    entries: Vec<Entry>,
    oldest: usize,
}

impl Memo {
    const MOST: usize = 8;

    pub fn find(&self, question: &Question<'_>, now: Timestamp, instant: Instant) -> Option<Rc<Ruling>> {
        let entry = self.entries.iter().find(|entry| entry.answers(question))?;
        entry.ruling.holds(now, instant).then(|| Rc::clone(&entry.ruling))
    }

    /// Keeps a ruling in place of the oldest.
    pub fn keep(&mut self, question: &Question<'_>, reads: &Reads, ruling: Rc<Ruling>) {
        let Question { app, rules, standing, claims, sight, .. } = *question;
        let entry = Entry {
            app,
            rules,
            standing,
            claims,
            sight,
            method: reads.method.then(|| question.method.clone()),
            host: reads.host.then(|| question.host.clone()),
            path: reads.path.then(|| question.path.into()),
            headers: reads.headers.iter().map(|n| (n.clone(), question.headers.get_all(n).iter().map(copied).collect())).collect(),
            ruling,
        };
        if let Some(same) = self.entries.iter_mut().find(|known| known.answers(question)) {
            *same = entry;
        } else if self.entries.len() < Self::MOST {
            self.entries.push(entry);
        } else {
            if let Some(slot) = self.entries.get_mut(self.oldest) {
                *slot = entry;
            }
            self.oldest = (self.oldest + 1) % Self::MOST;
        }
    }
}
