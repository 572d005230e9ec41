//! One request from its head to its last byte: counted once, logged once, whatever happens.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use smallvec::SmallVec;

use super::{Cell, Desk, Timer, line};
use crate::model::{Effect, Host};

/// Unique among all requests of all proxies: 48 bits of time, 80 random ones, in 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// One that is cheap to clone.
    pub fn header(self) -> HeaderValue {
        header(self.0)
    }
}

/// A value that was made for one request. As a slice it would be copied into a place of its own, and its first clone would get another.
pub fn header<const LENGTH: usize>(text: [u8; LENGTH]) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from_owner(text)).unwrap_or(HeaderValue::from_static(""))
}

#[derive(Debug)]
pub(super) struct Ids(RefCell<fastrand::Rng>);

impl Ids {
    pub fn new() -> Self {
        Self(RefCell::new(fastrand::Rng::new()))
    }

    fn next(&self, now: SystemTime) -> RequestId {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut random = self.0.borrow_mut();
        let mut text = [0; 32];
        let (high, low) = text.split_at_mut(16);
        high.copy_from_slice(&hex(millis << 16 | u64::from(random.u16(..))));
        low.copy_from_slice(&hex(random.u64(..)));
        RequestId(text)
    }
}

/// Sixteen lower-case digits. Three times a request, so all at once.
pub fn hex(value: u64) -> [u8; 16] {
    const EACH: u128 = 0x0101_0101_0101_0101_0101_0101_0101_0101;
    // Halves what stands together, until each byte holds one digit's four bits.
    let mut digits = u128::from(value);
    digits = (digits | digits << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
    let letters = (digits + 6 * EACH) >> 4 & EACH;
    (digits + u128::from(b'0') * EACH + u128::from(b'a' - b'9' - 1) * letters).to_be_bytes()
}

/// Why an answer ended before it was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    App,
    Client,
    /// By a restriction, as the next two.
    MaxResponse,
    MaxStream,
    /// Of a tunnel, which has no request's body that could be refused.
    MaxBody,
    /// A tunnel in which nothing moved.
    Tunnel,
    /// The rules or the device's standing changed, and it may no longer run.
    Changed,
    /// A tunnel that did not end while the proxy drained.
    Drain,
}

impl Cut {
    /// Those that are counted: all but the client's.
    pub const COUNTED: [Self; 7] = [Self::App, Self::MaxResponse, Self::MaxStream, Self::MaxBody, Self::Tunnel, Self::Changed, Self::Drain];

    /// The log's `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "upstream.cut",
            Self::Client => "client.cut",
            Self::MaxResponse => "restrict.max_response",
            Self::MaxStream => "restrict.max_stream",
            Self::MaxBody => "restrict.max_body",
            Self::Tunnel => "tunnel.idle",
            Self::Changed => "decision.changed",
            Self::Drain => "drain",
        }
    }
}

/// The label values of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    pub app: &'a str,
    pub class: &'a str,
    pub tier: &'a str,
    pub reason: &'a str,
    pub owner: &'a str,
    pub mode: &'a str,
    /// The effect as decided: in report mode what would have been.
    pub decided: Effect,
    pub done: Effect,
}

impl Labels<'_> {
    /// All of them in one text, to find their counters by.
    fn key(&self, out: &mut String) {
        out.clear();
        let words = [self.app, self.class, self.tier, self.reason, self.owner, self.mode, self.decided.as_str(), self.done.as_str()];
        for word in words {
            out.push_str(word);
            out.push('\0');
        }
    }
}

/// The counters of one set of labels, looked up once by a worker.
#[derive(Debug)]
struct Counters {
    decisions: Cell,
    flips: Option<Cell>,
    bytes_in: Cell,
    bytes_out: Cell,
    request: Timer,
    upstream: Timer,
    app: Box<str>,
    done: Effect,
    statuses: RefCell<Vec<(u16, Cell)>>,
}

impl Counters {
    fn new(desk: &Desk, labels: &Labels<'_>) -> Self {
        let record = &desk.record;
        let writer = desk.writer;
        let Labels { app, class, tier, reason, owner, mode, decided, done } = *labels;
        Self {
            decisions: record.decisions.cell(writer, &[app, decided.as_str(), class, tier, reason, owner, mode]),
            flips: (decided != done).then(|| record.report_flips.cell(writer, &[app, done.as_str(), decided.as_str()])),
            bytes_in: record.bytes.cell(writer, &[app, class, "in"]),
            bytes_out: record.bytes.cell(writer, &[app, class, "out"]),
            request: record.request_duration.timer(writer, &[app, done.as_str()]),
            upstream: record.upstream_duration.timer(writer, &[app]),
            app: app.into(),
            done,
            statuses: RefCell::default(),
        }
    }

    fn status(&self, desk: &Desk, status: u16) -> Cell {
        let mut known = self.statuses.borrow_mut();
        if let Some((_, cell)) = known.iter().find(|(code, _)| *code == status) {
            return cell.clone();
        }
        let mut digits = itoa::Buffer::new();
        let cell = desk.record.requests.cell(desk.writer, &[&self.app, self.done.as_str(), digits.format(status)]);
        known.push((status, cell.clone()));
        cell
    }
}

/// Every set of labels that a worker has counted under: as many as the configurations so far had, whatever peers send.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    known: HashMap<Box<str>, Rc<Counters>, ahash::RandomState>,
    key: String,
}

impl Ledger {
    fn counters(&mut self, desk: &Desk, labels: &Labels<'_>) -> Rc<Counters> {
        labels.key(&mut self.key);
        if let Some(counters) = self.known.get(self.key.as_str()) {
            return Rc::clone(counters);
        }
        let counters = Rc::new(Counters::new(desk, labels));
        self.known.insert(self.key.as_str().into(), Rc::clone(&counters));
        counters
    }
}

/// What all requests with the same decision share: their counters, and their part of the log line.
#[derive(Debug)]
pub struct Case {
    counters: Rc<Counters>,
    exceptions: SmallVec<[Cell; 1]>,
    fragment: Vec<u8>,
}

impl Case {
    pub fn new(desk: &Desk, labels: &Labels<'_>, fragment: Vec<u8>) -> Rc<Self> {
        Self::excepting(desk, labels, fragment, [])
    }

    /// The same, with the names of the exceptions that the decision used.
    pub fn excepting<'a>(desk: &Desk, labels: &Labels<'_>, fragment: Vec<u8>, names: impl IntoIterator<Item = &'a str>) -> Rc<Self> {
        let exceptions = names.into_iter().map(|name| desk.record.exceptions_used.cell(desk.writer, &[name])).collect();
        Rc::new(Self { counters: desk.ledger.borrow_mut().counters(desk, labels), exceptions, fragment })
    }
}

/// The record of one request, open until its answer's last byte.
#[derive(Debug)]
pub struct Visit(Option<Box<Open>>);

#[derive(Debug)]
pub(super) struct Open {
    desk: Rc<Desk>,
    started: Instant,
    pub began: SystemTime,
    pub id: RequestId,
    pub method: Option<Method>,
    pub host: Option<Host>,
    pub path: Option<PathAndQuery>,
    /// JSON of the headers that rules name, or empty.
    pub headers: Vec<u8>,
    pub client_request_id: Option<Box<str>>,
    /// How a proxy asked whether to carry it.
    pub put_by: Option<&'static str>,
    pub case: Option<Rc<Case>>,
    pub status: u16,
    pub error: Option<&'static str>,
    pub decision: Duration,
    /// When it was decided.
    decided: Instant,
    pub upstream: Option<Duration>,
    /// Of the bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Open {
    pub fn fragment(&self) -> &[u8] {
        self.case.as_ref().map(|case| case.fragment.as_slice()).unwrap_or_default()
    }

    fn cut(&mut self, cut: Cut) {
        self.error = self.error.or(Some(cut.as_str()));
        if Cut::COUNTED.contains(&cut) {
            self.desk.record.streams_cut.cell(self.desk.writer, &[cut.as_str()]).add(1);
        }
    }
}

impl Visit {
    /// A client that left before its answer began.
    const LEFT: u16 = 499;

    pub(super) fn open(desk: Rc<Desk>) -> Self {
        let (started, began) = desk.now();
        let id = desk.ids.next(began);
        Self(Some(Box::new(Open {
            desk,
            started,
            began,
            id,
            method: None,
            host: None,
            path: None,
            headers: Vec::new(),
            client_request_id: None,
            put_by: None,
            case: None,
            status: Self::LEFT,
            error: None,
            decision: Duration::ZERO,
            decided: started,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
        })))
    }

    fn edit(&mut self, change: impl FnOnce(&mut Open)) {
        if let Some(open) = &mut self.0 {
            change(open);
        }
    }

    pub fn id(&self) -> RequestId {
        self.0.as_ref().map_or(RequestId([b'0'; 32]), |open| open.id)
    }

    /// When the request's head was complete.
    pub fn began(&self) -> SystemTime {
        self.0.as_ref().map_or(UNIX_EPOCH, |open| open.began)
    }

    /// `began` as policies count time: whole milliseconds, as the log has it.
    pub fn now(&self) -> Timestamp {
        let since = self.began().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or(Timestamp::MAX)
    }

    pub fn started(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |open| open.started)
    }

    pub fn asked(&mut self, method: &Method) {
        self.edit(|open| open.method = Some(method.clone()));
    }

    /// Whom it is for.
    pub fn asked_of(&mut self, host: &Host) {
        self.edit(|open| open.host = Some(host.clone()));
    }

    /// What was asked for, as canonical as it is known.
    pub fn asked_for(&mut self, path: &PathAndQuery) {
        self.edit(|open| open.path = Some(path.clone()));
    }

    pub fn client_request_id(&mut self, id: &str) {
        self.edit(|open| open.client_request_id = Some(id.chars().take(128).collect()));
    }

    /// A proxy asked whether to carry the request, in this manner.
    pub fn put_by(&mut self, manner: &'static str) {
        self.edit(|open| open.put_by = Some(manner));
    }

    /// Headers that rules name, as a JSON object.
    pub fn headers(&mut self, json: Vec<u8>) {
        self.edit(|open| open.headers = json);
    }

    /// The work of deciding began, and was done.
    pub fn decided(&mut self, case: Rc<Case>, began: Instant, done: Instant) {
        self.edit(|open| {
            open.case = Some(case);
            (open.decision, open.decided) = (done.duration_since(began), done);
            open.desk.decision_duration.observe(open.decision);
        });
    }

    /// Of one that was not decided, when it began.
    pub fn decided_at(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |open| open.decided)
    }

    /// The decision stands, but the request was refused for another reason, a restriction's.
    pub fn refused(&mut self, case: Rc<Case>) {
        self.edit(|open| open.case = Some(case));
    }

    /// Its time was over before the app's answer began.
    pub fn late(&mut self) {
        self.edit(|open| open.cut(Cut::MaxStream));
    }

    /// Why the app gave no answer.
    pub fn failed(&mut self, error: &'static str) {
        self.edit(|open| open.error = Some(error));
    }

    pub fn upstream(&mut self, took: Duration) {
        self.edit(|open| {
            if let Some(case) = &open.case {
                case.counters.upstream.observe(took);
            }
            open.upstream = Some(took);
        });
    }

    /// The answer begins. Dropped without `ended` it closes the record all the same.
    pub fn finish(mut self, status: StatusCode) -> Answered {
        self.edit(|open| open.status = status.as_u16());
        Answered(self)
    }

    fn close(&mut self, now: impl FnOnce() -> Instant) {
        let Some(mut open) = self.0.take() else { return };
        if open.status == Self::LEFT && std::thread::panicking() {
            open.status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
            open.error = Some("request.panic");
        }
        let desk = Rc::clone(&open.desk);
        let case = match &open.case {
            Some(case) => Rc::clone(case),
            None => Self::undecided(&desk),
        };
        let counters = &case.counters;
        counters.decisions.add(1);
        if let Some(flips) = &counters.flips {
            flips.add(1);
        }
        counters.status(&desk, open.status).add(1);
        counters.request.observe(now().duration_since(open.started));
        counters.bytes_in.add(open.bytes_in);
        counters.bytes_out.add(open.bytes_out);
        case.exceptions.iter().for_each(|used| used.add(1));
        if desk.logs() {
            open.case = Some(case);
            desk.write(|out, clock| line::write(out, clock, &open));
        }
    }

    /// For a request that ended before anything was decided.
    fn undecided(desk: &Desk) -> Rc<Case> {
        let labels = Labels {
            app: "none",
            class: "none",
            tier: "none",
            reason: "request.cut",
            owner: "none",
            mode: "enforce",
            decided: Effect::Block,
            done: Effect::Block,
        };
        Case::new(desk, &labels, line::cut(&labels))
    }
}

/// The record of a request whose answer has begun.
#[derive(Debug)]
pub struct Answered(Visit);

impl Answered {
    /// With the bytes of both bodies, and why it ended too early if it did.
    pub fn ended(&mut self, (bytes_in, bytes_out): (u64, u64), cut: Option<Cut>, now: Instant) {
        self.0.edit(|open| {
            (open.bytes_in, open.bytes_out) = (bytes_in, bytes_out);
            if let Some(cut) = cut {
                open.cut(cut);
            }
        });
        self.0.close(|| now);
    }

    /// What was asked for, and the headers that rules name as `Visit::headers` got them.
    pub fn asked(&self) -> Option<(&Method, &Host, &PathAndQuery, &[u8])> {
        let open = self.0.0.as_ref()?;
        Some((open.method.as_ref()?, open.host.as_ref()?, open.path.as_ref()?, &open.headers))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.close(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hex_is_what_formatting_gives(value: u64) {
            let formatted = format!("{value:016x}");
            prop_assert_eq!(hex(value).to_vec(), formatted.into_bytes());
        }
    }

    #[test]
    fn every_digit_is_in_every_place() {
        for digit in 0..16u64 {
            for place in 0..16 {
                let value = digit << (4 * place);
                assert_eq!(hex(value).as_slice(), format!("{value:016x}").as_bytes());
            }
        }
    }
}
