//! Streams that last: long answers and tunnels. What let them in is asked again while they run, and they end when it would not any more.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::memo::Ruling;
use super::{Conn, Core, House};
use crate::forward::{Fate, Say};
use crate::model::Host;
use crate::policy::{Decision, Given, Http, Inputs, Permit, Policy};
use crate::record::Answered;

/// One worker's.
#[derive(Debug, Default)]
pub struct Lasting {
    all: RefCell<Vec<Rc<Stream>>>,
    /// What nobody has been asked about yet is among them.
    news: Cell<bool>,
    last: Cell<Option<Looked>>,
    looking: Cell<bool>,
    leaving: Cell<bool>,
}

/// When, and the serials of what decisions are made of.
#[derive(Clone, Copy, Debug)]
struct Looked {
    at: Instant,
    of: (u64, u64, u64),
}

#[derive(Debug)]
struct Stream {
    /// Gone with the stream.
    fate: Weak<Fate>,
    conn: Rc<Conn>,
    /// Under which it runs.
    ruling: Rc<Ruling>,
    /// The serial of the rules that the ruling was made by.
    rules: u64,
    method: Method,
    /// A tunnel.
    switched: bool,
    host: Host,
    path: PathAndQuery,
    /// Those that rules name.
    headers: HeaderMap,
    /// What it was last decided by, and until when that holds.
    decided: Cell<Option<(Seen, Option<Timestamp>)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    rules: u64,
    standing: u64,
    drift: bool,
}

/// Time passes also for those whose device nobody touches.
const EVERY: Duration = Duration::from_secs(1);

impl Lasting {
    /// `switched`: to another protocol.
    pub(super) fn add(
        &self,
        fate: &Rc<Fate>,
        conn: &Rc<Conn>,
        (ruling, rules): (&Rc<Ruling>, u64),
        (answered, switched): (&Answered, bool),
    ) {
        let Some((method, host, path, headers)) = answered.asked() else { return };
        let stream = Stream {
            fate: Rc::downgrade(fate),
            conn: Rc::clone(conn),
            ruling: Rc::clone(ruling),
            rules,
            method: method.clone(),
            switched,
            host: host.clone(),
            path: path.clone(),
            headers: unnamed(headers),
            decided: Cell::new(None),
        };
        if self.leaving.get() {
            fate.say(Say::Leave);
        }
        self.all.borrow_mut().push(Rc::new(stream));
        self.news.set(true);
    }

    /// Clients should come back to another proxy, or by another listener: those of one, or all, also those to come.
    pub fn leave(&self, listener: Option<&str>) {
        self.leaving.set(self.leaving.get() || listener.is_none());
        let all = self.all.borrow();
        let those = all.iter().filter(|stream| listener.is_none_or(|name| *stream.conn.door.listener == *name));
        those.filter_map(|stream| stream.fate.upgrade()).for_each(|fate| fate.say(Say::Leave));
    }
}

impl Core {
    /// Decides streams anew where something has changed since they were decided: at once for rules and records, within a second for what time alone
    /// changes. To be called now and then.
    pub fn look_after_streams(self: &Rc<Self>) {
        let lasting = &self.lasting;
        if lasting.looking.get() || lasting.all.borrow().is_empty() {
            return;
        }
        let house = self.house();
        let of = (house.rules.serial, house.rules.posture.generation(), house.rules.memory.generation());
        let at = Instant::now();
        let fresh = lasting.last.get().is_some_and(|last| last.of == of && at.saturating_duration_since(last.at) < EVERY);
        if fresh && !lasting.news.get() {
            return;
        }
        lasting.last.set(Some(Looked { at, of }));
        lasting.news.set(false);
        lasting.all.borrow_mut().retain(|stream| stream.fate.strong_count() > 0);
        let all = lasting.all.borrow().clone();
        lasting.looking.set(true);
        let core = Rc::clone(self);
        // A store that is slow to answer keeps only this waiting.
        tokio::task::spawn_local(async move {
            let _looking = Looking(Rc::clone(&core));
            for stream in all {
                stream.decide(&house).await;
            }
        });
    }
}

/// However it ends.
struct Looking(Rc<Core>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.lasting.looking.set(false);
    }
}

impl Stream {
    async fn decide(&self, house: &House) {
        let (began, instant) = (SystemTime::now(), Instant::now());
        let now = timestamp(began);
        let known = self.conn.known(house, began, instant).await;
        let Some(fate) = self.fate.upgrade() else { return };
        if !self.conn.is_still_vouched(house) {
            return fate.say(Say::Cut);
        }
        let rules = &house.rules;
        let Some(app) = rules.policy.app_at(&self.host, self.path.path()) else { return fate.say(Say::Cut) };
        let drift = self.conn.drifts(house, &known, app, (now, instant));
        let seen = Seen { rules: rules.serial, standing: known.serial, drift };
        if self.decided.get().is_some_and(|(last, until)| last == seen && until.is_none_or(|until| now < until)) {
            return;
        }
        let sight = self.conn.sight_now(house, &known, &self.ruling.claims, drift, instant);
        let inputs = Inputs {
            now,
            standing: &known.standing,
            peer: self.conn.peer,
            zone: known.zone,
            wire: &self.conn.wire,
            opening: self.conn.opening(),
            sight: &sight,
            claims: &self.ruling.claims.merged,
            http: Http { method: self.method.as_str(), host: &self.host, path: self.path.path(), headers: &self.headers },
            given: Given::default(),
        };
        let decision = rules.policy.decide(app, &inputs);
        self.decided.set(Some((seen, decision.valid_until)));
        if !self.may_go_on(&decision, &rules.policy, rules.serial == self.rules) {
            tracing::debug!(app = rules.policy.app_name(app), "a stream may no longer run");
            fate.say(Say::Cut);
        }
    }

    /// It keeps to the restrictions that it began under, and cannot take on others.
    fn may_go_on(&self, decision: &Decision, policy: &Policy, same_rules: bool) -> bool {
        let (before, after) = (&self.ruling.decision, decision);
        let restrictions = after.done.restrictions;
        if Permit::of(after).is_none() {
            return false;
        }
        if restrictions.is_empty() {
            return true;
        }
        if same_rules {
            return restrictions.iter().all(|one| before.done.restrictions.iter().any(|other| one == other));
        }
        after.merged == before.merged
            && policy.allows_method(&after.merged, self.method.as_str())
            && (!self.switched || policy.allows_method(&after.merged, "CONNECT"))
            && !policy.path_refused(restrictions, self.path.path())
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or(Timestamp::MAX)
}

/// The headers that the record keeps as JSON: each a text, or a list of texts.
fn unnamed(json: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let named: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).unwrap_or_default();
    for (name, value) in &named {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let texts = match value {
            serde_json::Value::Array(texts) => texts.as_slice(),
            text => std::slice::from_ref(text),
        };
        for value in texts.iter().filter_map(|text| HeaderValue::from_str(text.as_str()?).ok()) {
            headers.append(&name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_recorded() {
        let headers = unnamed(br#"{"x-team":"red","x-many":["a","b"]}"#);
        assert_eq!(headers.get("x-team").unwrap(), "red");
        assert_eq!(headers.get_all("x-many").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(unnamed(b"").is_empty());
    }
}
