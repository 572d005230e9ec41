//! One decision's view of its inputs: the record as it counts now, and class and tier, which are settled first.

use std::cell::Cell;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::condition::FactId;
use super::draft::{ClaimField, KeyProof};
use super::facts::{FactNow, after};
use super::tables::Tables;
use super::truth::Truth;
use super::{ClassId, Inputs, TierId};
use crate::model::{Device, Freshness, NoRecord, Standing};

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
    pub record: Record<'a>,
    pub class: Option<ClassId>,
    /// The tier before caps; of no meaning when the tier is given.
    pub earned: TierId,
    /// After caps. `None` until it is known, as `class` is: comparing with it is then undecided.
    pub tier: Option<TierId>,
    /// The earliest moment at which something that was read changes.
    until: Cell<Option<Timestamp>>,
    facts: [Cell<Option<FactNow>>; KEPT_FACTS],
    reach: Cell<Option<(u8, u8)>>,
}

impl<'a> Scene<'a> {
    /// Settles class, then tier, then caps.
    pub fn new(tables: &'a Tables, inputs: &'a Inputs<'a>) -> Self {
        let record = Record::of(inputs.standing, inputs.now);
        let mut scene = Scene {
            tables,
            inputs,
            record,
            class: None,
            earned: TierId(0),
            tier: None,
            until: Cell::new(None),
            facts: [const { Cell::new(None) }; KEPT_FACTS],
            reach: Cell::new(None),
        };
        // An end beyond the year 9999 is none.
        if let (Record::Known { .. }, Standing::Known { proof_ends, .. }) = (record, inputs.standing)
            && let Ok(end) = Timestamp::from_second(*proof_ends)
        {
            scene.note(end);
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

    /// Of the policy's time zone; whatever reads it changes at the next full hour at the earliest.
    pub fn local_time(&self) -> DateTime {
        let local = self.tables.time_zone.to_datetime(self.inputs.now);
        let past = SignedDuration::new(i64::from(local.minute()) * 60 + i64::from(local.second()), local.subsec_nanosecond());
        self.note(after(self.inputs.now, SignedDuration::from_hours(1) - past));
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

    /// Without a record, or past `serve_stale`, every fact is unknown.
    pub fn fact(&self, id: FactId) -> FactNow {
        let kept = self.facts.get(usize::from(id.0));
        if let Some(fact) = kept.and_then(Cell::get) {
            return fact;
        }
        let fact = match self.record {
            Record::Known { too_old: false, .. } => self.believed(id),
            _ => FactNow::UNKNOWN,
        };
        if let Some(expires) = fact.expires {
            self.note(expires);
        }
        if let Some(kept) = kept {
            kept.set(Some(fact));
        }
        fact
    }

    /// The fact as the record has it, however old the record is.
    pub fn believed(&self, id: FactId) -> FactNow {
        let Record::Known { device, .. } = self.record else { return FactNow::UNKNOWN };
        let fact = self.tables.facts.get(usize::from(id.0)).and_then(|name| device.fact(name));
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
    use super::super::draft::{Cap, Compare, Condition, DeviceField, Draft};
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
        visit.given = Given { class: Some(OFFNET), tier: Some(TierId(KNOWN)) };
        let decision = decided(draft(vec![forward(all(&[class(OFFNET), tier(Compare::Equal, KNOWN)]))]), &visit);
        assert_eq!((decision.class, decision.tier.0, decision.done.effect), (OFFNET, KNOWN, Effect::Forward));
    }
}
