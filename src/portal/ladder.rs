//! What a ladder asks of this device, and by when.

use http::HeaderValue;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::page::Deadline;
use super::words::label;
use crate::model::{FactState, Reason, Standing};
use crate::policy::draft::{Ladder, Step};
use crate::policy::{Decision, Policy, RuleRef};

/// A ladder that holds for a device.
#[derive(Debug)]
pub(super) struct Concern<'a> {
    pub ladder: &'a Ladder,
    pub state: FactState,
    /// Steps whose date has not come.
    to_come: &'a [(Timestamp, Step)],
}

/// What a device's person is told meanwhile, in the forms that a request needs: made once for a decision.
#[derive(Debug)]
pub struct Told {
    /// `Vestibule-Notice`: for each ladder the reason, and the date of each step to come.
    pub header: HeaderValue,
    /// Stands for these ladders at these steps: another when there is something new to tell. `MARK` lower-case hex digits.
    pub mark: String,
}

/// Digits of a mark.
pub const MARK: usize = 16;

impl Told {
    /// `None`: there is nothing to tell, as nearly always.
    pub fn of(policy: &Policy, decision: &Decision, standing: &Standing, now: Timestamp) -> Option<Self> {
        if decision.notices.is_empty() {
            return None;
        }
        let concerns = noticed(policy, decision, standing, now);
        let zone = &policy.draft().time_zone;
        let parts = concerns.iter().map(|concern| {
            let coming = concern.to_come.iter().filter(|(_, step)| enforces(*step));
            coming.fold(concern.reason().to_string(), |text, (at, step)| format!("{text}; {}={}", step.as_str(), date(*at, zone)))
        });
        let header = HeaderValue::try_from(parts.collect::<Vec<_>>().join(", ")).ok()?;
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for Concern { ladder, to_come, .. } in &concerns {
            digest.update(format!("{}\n{}\n{:?}\n", ladder.fact, to_come.len(), ladder.steps).as_bytes());
        }
        let mark = digest.finish().as_ref().iter().take(MARK / 2).map(|byte| format!("{byte:02x}")).collect();
        (!concerns.is_empty()).then_some(Self { header, mark })
    }
}

/// Those that the person is told of and that do nothing yet.
pub(super) fn noticed<'a>(policy: &'a Policy, decision: &Decision, standing: &Standing, now: Timestamp) -> Vec<Concern<'a>> {
    let facts = policy.facts(standing, now);
    let ladders = decision.notices.iter().map(|index| (policy.ladder(index), policy.ladder_steps_to_come(index, now)));
    let state = |ladder: &Ladder| facts.iter().find(|fact| *fact.name == *ladder.fact).map_or(FactState::Unknown, |fact| fact.state);
    ladders.map(|(ladder, to_come)| Concern { ladder, state: state(ladder), to_come }).collect()
}

/// The step in force and those to come, on a refusal: of the ladder that decided it, and of those that the person is told of.
pub(super) fn deadlines<'a>(policy: &'a Policy, decision: &Decision, now: Timestamp) -> Vec<Deadline<'a>> {
    let draft = policy.draft();
    let decided = match decision.done.rule {
        RuleRef::Ladder(index) => Some(index),
        _ => None,
    };
    let indices = decided.into_iter().chain(decision.notices.iter().filter(|index| Some(*index) != decided));
    let ladders: Vec<&Ladder> = indices.map(|index| policy.ladder(index)).collect();
    let several = ladders.len() > 1;
    let title = policy.app_title(decision.app);
    let of = |ladder: &'a Ladder| {
        // What a later step has taken the place of is history.
        let in_force = ladder.steps.iter().rposition(|(at, _)| *at <= now).unwrap_or(0);
        let steps = ladder.steps.iter().skip(in_force).filter(|(_, step)| enforces(*step));
        steps.map(move |(at, step)| Deadline {
            fact: &ladder.fact,
            step: step.as_str(),
            at: at.to_zoned(draft.time_zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            text: sentence(policy, (title, several), ladder, (*at, *step), now),
        })
    };
    ladders.into_iter().flat_map(of).collect()
}

const fn enforces(step: Step) -> bool {
    matches!(step, Step::Restrict | Step::Block)
}

/// What happens, for a person: "From 1 January 2027 this device can only read Team wiki".
fn sentence(policy: &Policy, (title, several): (&str, bool), ladder: &Ladder, (at, step): (Timestamp, Step), now: Timestamp) -> String {
    let when = spoken(at, &policy.draft().time_zone);
    let reads = ladder.with.iter().any(|id| {
        let methods = policy.restriction(*id).methods.as_ref();
        methods.is_some_and(|methods| methods.iter().all(|method| ["GET", "HEAD", "OPTIONS"].contains(&method.as_str())))
    });
    let what = match step {
        Step::Block => format!("{title} is closed to this device"),
        _ if reads => format!("this device can only read {title}"),
        _ => format!("{title} is open to this device in part only"),
    };
    let word = if at > now { "From" } else { "Since" };
    let what = if at > now { what } else { what.replace(" is closed ", " has been closed ").replace(" is open ", " has been open ") };
    if several { format!("{}: {} {when} {what}", label(&ladder.fact), word.to_lowercase()) } else { format!("{word} {when} {what}") }
}

impl Concern<'_> {
    pub(super) fn reason(&self) -> Reason<'_> {
        Reason::Posture(&self.ladder.fact, self.state)
    }
}

fn is_midnight(at: &jiff::Zoned) -> bool {
    at.time() == jiff::civil::Time::midnight()
}

/// `2027-01-01`, or to the second where it is not the start of that day.
fn date(at: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    at.strftime(if is_midnight(&at) { "%Y-%m-%d" } else { "%Y-%m-%dT%H:%M:%S%:z" }).to_string()
}

fn spoken(at: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    at.strftime(if is_midnight(&at) { "%-d %B %Y" } else { "%-d %B %Y, %H:%M," }).to_string()
}
