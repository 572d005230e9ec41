//! One decision's view of its inputs: the record as it counts now, and class and tier, which are settled first.

use std::cell::Cell;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::condition::FactId;
use super::draft::{ClaimField, KeyProof};
use super::exceptions::Relief;
use super::facts::{FactNow, after};
use super::tables::Tables;
use super::truth::Truth;
use super::{AppId, ClassId, ExceptionList, Inputs, TierId};
use crate::model::{Device, FactState, Freshness, NoRecord, Standing};

#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    Known {
        device: &'a Device,
        /// Past `serve_stale`: facts are unknown.
        too_old: bool,
    },
    Absent(NoRecord),
    Unreadable,
}

impl<'a> Record<'a> {
    /// A certificate that ended since it was verified proves nothing any more: a long-lived connection does not outlive it.
    pub fn of(standing: &'a Standing, now: Timestamp) -> Self {
        match standing {
            Standing::NoRecord(why) => Self::Absent(*why),
            Standing::Unreadable => Self::Unreadable,
            Standing::Known { proof_ends, .. } if now.as_second() >= *proof_ends => Self::Absent(NoRecord::ExpiredCertificate),
            Standing::Known { device, freshness, .. } => Self::Known { device, too_old: *freshness == Freshness::TooOld },
        }
    }
}

/// Facts that are worked out once a decision; those beyond are worked out each time.
const KEPT_FACTS: usize = 16;

pub struct Scene<'a> {
    pub tables: &'a Tables,
    pub inputs: &'a Inputs<'a>,
    pub app: AppId,
    pub record: Record<'a>,
    pub relief: Relief,
    pub class: Option<ClassId>,
    /// The tier before caps; of no meaning when the tier is given.
    pub earned: TierId,
    /// After caps. `None` until it is known, as `class` is: comparing with it is then undecided.
    pub tier: Option<TierId>,
    /// The earliest moment at which something that was read changes.
    until: Cell<Option<Timestamp>>,
    facts: [Cell<Option<FactNow>>; KEPT_FACTS],
    exceptions: Cell<ExceptionList>,
    local_time: Cell<Option<DateTime>>,
    reach: Cell<Option<(u8, u8)>>,
}

impl<'a> Scene<'a> {
    /// Settles class, then tier, then caps.
    pub fn new(tables: &'a Tables, app: AppId, inputs: &'a Inputs<'a>) -> Self {
        let record = Record::of(inputs.standing, inputs.now);
        let mut scene = Scene {
            tables,
            inputs,
            app,
            record,
            relief: Relief::default(),
            class: None,
            earned: TierId(0),
            tier: None,
            until: Cell::new(None),
            facts: [const { Cell::new(None) }; KEPT_FACTS],
            exceptions: Cell::new(ExceptionList::default()),
            local_time: Cell::new(None),
            reach: Cell::new(None),
        };
        // An end beyond the year 9999 is none.
        if let (Record::Known { .. }, Standing::Known { proof_ends, .. }) = (record, inputs.standing)
            && let Ok(end) = Timestamp::from_second(*proof_ends)
        {
            scene.note(end);
        }
        if let Record::Known { device, .. } = record {
            scene.relief = scene.relief(device);
        }
        scene.class = Some(inputs.given.class.unwrap_or_else(|| scene.derive_class()));
        scene.earned = scene.derive_tier();
        scene.tier = Some(inputs.given.tier.unwrap_or_else(|| scene.capped(scene.earned)));
        scene
    }

    /// First match among those with a record; undecided counts as false.
    fn derive_class(&self) -> ClassId {
        match self.record {
            Record::Absent(_) => ClassId::BLIND,
            // Only a device with a record has a class, and nobody could look whether this one has: not even a class that reads
            // no field of the record may be had by it.
            Record::Unreadable => ClassId::UNCLASSIFIED,
            Record::Known { .. } => (0..)
                .zip(&self.tables.classes)
                .find(|(_, when)| self.truth(when) == Truth::Yes)
                .map_or(ClassId::UNCLASSIFIED, |(index, _)| ClassId(index)),
        }
    }

    /// The highest tier whose requirement and all lower ones hold; undecided counts as false. The lowest is the floor, met or not.
    fn derive_tier(&self) -> TierId {
        let met = self.tables.tiers.iter().take_while(|require| self.truth(require) == Truth::Yes).count();
        TierId(u8::try_from(met.saturating_sub(1)).unwrap_or(u8::MAX))
    }

    /// A cap only ever lowers the tier; undecided counts as true.
    fn capped(&self, earned: TierId) -> TierId {
        self.tables.caps.iter().fold(earned, |tier, cap| {
            let lowers = cap.max_tier < tier && self.truth(&cap.when) != Truth::No;
            if lowers { cap.max_tier } else { tier }
        })
    }

    pub fn tier_now(&self) -> TierId {
        self.tier.unwrap_or(TierId(0))
    }

    pub fn class_now(&self) -> ClassId {
        self.class.unwrap_or(ClassId::UNCLASSIFIED)
    }

    /// Those that changed the state of a fact that was read.
    pub fn exceptions(&self) -> ExceptionList {
        self.exceptions.get()
    }

    pub fn valid_until(&self) -> Option<Timestamp> {
        self.until.get()
    }

    /// A moment at which something that was read changes.
    pub fn note(&self, moment: Timestamp) {
        self.until.set(Some(self.until.get().map_or(moment, |earliest| earliest.min(moment))));
    }

    /// The lowest and the highest tier that a device could have here, whatever its record said.
    pub fn reach(&self) -> (u8, u8) {
        if let Some(reach) = self.reach.get() {
            return reach;
        }
        let tier = |met: usize| u8::try_from(met.saturating_sub(1)).unwrap_or(u8::MAX);
        let mut least = tier(self.tables.tiers.iter().take_while(|require| self.span(require).0 == Truth::Yes).count());
        let mut most = tier(self.tables.tiers.iter().take_while(|require| self.span(require).1 == Truth::Yes).count());
        for cap in &self.tables.caps {
            let (surely, perhaps) = self.span(&cap.when);
            if surely != Truth::No {
                most = most.min(cap.max_tier.0);
            }
            if perhaps != Truth::No {
                least = least.min(cap.max_tier.0);
            }
        }
        let reach = (least.min(most), most);
        self.reach.set(Some(reach));
        reach
    }

    /// Of the policy's time zone; whatever reads it changes at the next full hour at the earliest, or where the clocks are changed.
    pub fn local_time(&self) -> DateTime {
        if let Some(local) = self.local_time.get() {
            return local;
        }
        let (zone, now) = (&self.tables.time_zone, self.inputs.now);
        let local = zone.to_datetime(now);
        let past = SignedDuration::new(i64::from(local.minute()) * 60 + i64::from(local.second()), local.subsec_nanosecond());
        let hour = after(now, SignedDuration::from_hours(1) - past);
        self.note(hour);
        // Most zones change their clocks at a full hour, but not all.
        if zone.to_offset(hour) != zone.to_offset(now)
            && let Some(change) = zone.following(now).next()
        {
            self.note(change.timestamp());
        }
        self.local_time.set(Some(local));
        local
    }

    /// `None`: nobody could look.
    pub fn key(&self) -> Option<KeyProof> {
        match self.record {
            Record::Known { .. } => Some(KeyProof::Certificate),
            Record::Absent(_) => Some(KeyProof::None),
            Record::Unreadable => None,
        }
    }

    pub fn claim(&self, field: ClaimField) -> Option<&'static str> {
        let claims = self.inputs.claims;
        match field {
            ClaimField::Os => claims.os.map(|os| os.as_str()),
            ClaimField::Browser => claims.browser.map(|browser| browser.as_str()),
            ClaimField::FormFactor => claims.form_factor.map(|form| form.as_str()),
        }
    }

    /// Without a record, or past `serve_stale`, every fact is unknown. One that an exception lifts is ok, and has no age.
    pub fn fact(&self, id: FactId) -> FactNow {
        let kept = self.facts.get(id.0 as usize);
        if let Some(fact) = kept.and_then(Cell::get) {
            return fact;
        }
        let mut fact = match self.record {
            Record::Known { too_old: false, .. } => self.believed(id),
            _ => FactNow::UNKNOWN,
        };
        if let Some(expires) = fact.expires {
            self.note(expires);
        }
        if let Record::Known { device, .. } = self.record
            && self.relief.checks
            && fact.state != FactState::Ok
            && let Some(exception) = self.lifted_by(device, id)
        {
            let mut used = self.exceptions.get();
            used.push(exception);
            self.exceptions.set(used);
            fact = FactNow { state: FactState::Ok, observed_at: None, expires: fact.expires };
        }
        if let Some(kept) = kept {
            kept.set(Some(fact));
        }
        fact
    }

    /// The fact as the record has it, however old the record is.
    pub fn believed(&self, id: FactId) -> FactNow {
        let Record::Known { device, .. } = self.record else { return FactNow::UNKNOWN };
        let fact = self.tables.facts.get(id.0 as usize).and_then(|name| device.fact(name));
        fact.map_or(FactNow::UNKNOWN, |fact| self.tables.sources.fact_now(fact, self.inputs.now))
    }

    pub fn newest_observation(&self) -> Option<Timestamp> {
        match self.record {
            Record::Known { device, too_old: false } => self.tables.sources.newest(device),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{Cap, Compare, Condition, DeviceField, Draft, Test};
    use super::super::testing::*;
    use super::super::{Decision, Given, Policy};
    use super::*;
    use crate::model::Effect;

    fn decided(draft: Draft, visit: &Visit) -> Decision {
        visit.decide(&Policy::compile(draft))
    }

    #[test]
    fn only_a_device_without_a_record_is_of_class_blind() {
        for why in [NoRecord::NoProof, NoRecord::RevokedCertificate, NoRecord::StaleCrl] {
            assert_eq!(decided(draft(vec![]), &Visit::blind(why)).class, ClassId::BLIND);
        }
        let mut open = draft(vec![]);
        open.classes[0].when = always();
        assert_eq!(decided(open.clone(), &Visit::blind(NoRecord::NoProof)).class, ClassId::BLIND, "no class is had without a record");
        assert_eq!(decided(open.clone(), &Visit::unreadable()).class, ClassId::UNCLASSIFIED, "nor by one that nobody could look up");
        assert_eq!(decided(open, &Visit::of(laptop())).class, CORPORATE);
    }

    #[test]
    fn a_record_that_matches_no_class_is_unclassified_and_the_first_match_wins() {
        let personal = |onnet| Visit::of(without(|d| (d.ownership, d.onnet) = (Some(crate::model::Ownership::Personal), onnet)));
        assert_eq!(decided(draft(vec![]), &Visit::of(laptop())).class, CORPORATE);
        assert_eq!(decided(draft(vec![]), &personal(Some(true))).class, ONNET);
        assert_eq!(decided(draft(vec![]), &personal(Some(false))).class, OFFNET);
        assert_eq!(decided(draft(vec![]), &personal(None)).class, OFFNET, "undecided counts as false in classes");
        assert_eq!(decided(draft(vec![]), &Visit::of(without(|d| d.ownership = None))).class, ClassId::UNCLASSIFIED);
    }

    #[test]
    fn each_tier_requires_also_all_that_the_lower_ones_require() {
        let tier = |device: Device| decided(draft(vec![]), &Visit::of(device)).tier.0;
        assert_eq!(tier(laptop()), TRUSTED);
        assert_eq!(tier(without(|d| set_fact(d, "disk_encrypted", false))), HEALTHY);
        assert_eq!(tier(without(|d| set_fact(d, "screen_lock", false))), KNOWN, "trusted needs healthy");
        assert_eq!(tier(without(|d| d.state = crate::model::DeviceState::Pending)), 0);
        assert_eq!(tier(without(|d| drop_fact(d, "screen_lock"))), KNOWN, "unknown is not ok");
        let mut floor = draft(vec![]);
        floor.tiers[0].require = never();
        assert_eq!(decided(floor, &Visit::of(laptop())).tier, TierId(0), "the lowest applies whatever it requires");
    }

    #[test]
    fn undecided_counts_as_false_in_tier_requirements() {
        let mut strict = draft(vec![]);
        strict.tiers[1].require = not(device(DeviceField::Team, &["guests"]));
        assert_eq!(decided(strict.clone(), &Visit::of(laptop())).tier.0, TRUSTED);
        assert_eq!(decided(strict, &Visit::of(without(|d| d.team = None))).tier.0, 0);
    }

    #[test]
    fn a_cap_only_ever_lowers_the_tier_and_undecided_counts_as_true() {
        let capped = |when: Condition, max_tier: u8, device: Device| {
            let caps = vec![Cap { name: "cap".to_owned(), when, max_tier: TierId(max_tier) }];
            decided(Draft { caps, ..draft(vec![]) }, &Visit::of(device)).tier.0
        };
        let guests = device(DeviceField::Team, &["guests"]);
        assert_eq!(capped(always(), KNOWN, laptop()), KNOWN);
        assert_eq!(capped(never(), KNOWN, laptop()), TRUSTED);
        assert_eq!(capped(guests.clone(), KNOWN, laptop()), TRUSTED);
        assert_eq!(capped(guests, KNOWN, without(|d| d.team = None)), KNOWN);
        assert_eq!(capped(always(), TRUSTED, without(|d| d.posture.clear())), KNOWN, "never raised");
    }

    #[test]
    fn a_certificate_that_ended_names_no_device_any_more() {
        let mut visit = Visit::of(laptop());
        if let Standing::Known { proof_ends, .. } = &mut visit.standing {
            *proof_ends = at(7200).as_second();
        }
        let policy = Policy::compile(draft(vec![forward(class(CORPORATE))]));
        let before = visit.decide(&policy);
        assert_eq!((before.class, before.valid_until), (CORPORATE, Some(at(7200))));
        let after = visit.at(7200).decide(&policy);
        assert_eq!((after.class, after.done.effect), (ClassId::BLIND, Effect::Block));
        assert_eq!(reasons(&policy, &after.done), ["certificate.expired"]);
    }

    #[test]
    fn given_values_stand_in_place_of_what_would_be_computed() {
        let mut visit = Visit::of(laptop());
        visit.given = Given { class: Some(OFFNET), tier: Some(TierId(KNOWN)), ..Given::default() };
        let decision = decided(draft(vec![forward(all(&[class(OFFNET), tier(Compare::Equal, KNOWN)]))]), &visit);
        assert_eq!((decision.class, decision.tier.0, decision.done.effect), (OFFNET, KNOWN, Effect::Forward));
    }

    /// Decided for nobody, by a rule that reads the clock alone: whether it matched, and until when that holds.
    fn clock(zone: &str, now: &str, when: Condition) -> (bool, Option<Timestamp>) {
        let mut draft = draft(vec![forward(when)]);
        draft.tiers.truncate(1);
        draft.time_zone = jiff::tz::TimeZone::get(zone).expect("a zone");
        let visit = Visit { now: now.parse().expect("a moment"), ..Visit::blind(NoRecord::NoProof) };
        let decision = decided(draft, &visit);
        (decision.done.effect == Effect::Forward, decision.valid_until)
    }

    fn hour(hour: u8) -> Condition {
        Condition::Test(Test::Hour(vec![(Compare::Equal, hour)]))
    }

    #[test]
    fn the_clock_is_read_in_the_policys_time_zone_and_the_decision_holds_until_the_next_full_hour_there() {
        use jiff::civil::Weekday::{Friday, Saturday, Sunday};
        for (zone, now, day, local, until) in [
            ("UTC", "2026-11-22T08:00:00Z", Sunday, 8, "2026-11-22T09:00:00Z"),
            ("UTC", "2026-11-22T08:59:59.999999999Z", Sunday, 8, "2026-11-22T09:00:00Z"),
            // The clocks go forward from 2 to 3 at 01:00Z, and back from 3 to 2 at 01:00Z.
            ("Europe/Berlin", "2026-03-29T00:30:00Z", Sunday, 1, "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-03-29T01:00:00Z", Sunday, 3, "2026-03-29T02:00:00Z"),
            ("Europe/Berlin", "2026-10-25T00:30:00Z", Sunday, 2, "2026-10-25T01:00:00Z"),
            ("Europe/Berlin", "2026-10-25T01:30:00Z", Sunday, 2, "2026-10-25T02:00:00Z"),
            ("Europe/Berlin", "2026-07-10T22:30:00Z", Saturday, 0, "2026-07-10T23:00:00Z"),
            ("America/New_York", "2026-03-08T06:59:00Z", Sunday, 1, "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z", Sunday, 3, "2026-03-08T08:00:00Z"),
            ("America/New_York", "2026-11-01T05:15:00Z", Sunday, 1, "2026-11-01T06:00:00Z"),
            ("America/New_York", "2026-11-01T06:15:00Z", Sunday, 1, "2026-11-01T07:00:00Z"),
            ("Asia/Kolkata", "2026-11-20T18:29:00Z", Friday, 23, "2026-11-20T18:30:00Z"),
            ("Asia/Kolkata", "2026-11-20T18:30:00Z", Saturday, 0, "2026-11-20T19:30:00Z"),
            // Lord Howe goes forward from 2:00 to 2:30, and back from 2:00 to 1:30.
            ("Australia/Lord_Howe", "2026-10-03T15:20:00Z", Sunday, 1, "2026-10-03T15:30:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T15:40:00Z", Sunday, 2, "2026-10-03T16:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T14:50:00Z", Sunday, 1, "2026-04-04T15:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T15:10:00Z", Sunday, 1, "2026-04-04T15:30:00Z"),
            // Newfoundland once changed its clocks at a minute past midnight, from 0:01 to 1:01.
            ("America/St_Johns", "2010-03-14T03:30:30Z", Sunday, 0, "2010-03-14T03:31:00Z"),
        ] {
            let until = Some(until.parse().expect("a moment"));
            for read in 0..24 {
                assert_eq!(clock(zone, now, hour(read)), (read == local, until), "{now} in {zone}, hour {read}");
            }
            assert_eq!(clock(zone, now, Condition::Test(Test::Weekday(vec![day]))), (true, until), "{now} in {zone}");
            assert!(!clock(zone, now, Condition::Test(Test::Weekday(vec![day.next()]))).0, "{now} in {zone}");
        }
    }

    #[test]
    fn all_comparisons_with_the_hour_must_hold_and_the_clock_is_a_reason_by_its_name() {
        let office = |now: &str| clock("UTC", now, Condition::Test(Test::Hour(vec![(Compare::AtLeast, 8), (Compare::Less, 18)]))).0;
        let open = ["07:59", "08:00", "17:59", "18:00"].map(|time| office(&format!("2026-11-22T{time}:00Z")));
        assert_eq!(open, [false, true, true, false]);
        for (when, reason) in [(hour(25), "time.hour"), (Condition::Test(Test::Weekday(vec![])), "time.weekday")] {
            let policy = Policy::compile(draft(vec![forward(when)]));
            assert_eq!(reasons(&policy, &Visit::of(laptop()).decide(&policy).done), [reason]);
        }
    }
}
