//! Every reason that a decision of this policy can have, numbered when it is compiled: naming one costs no allocation.

use std::sync::Arc;

use http::HeaderName;

use super::condition::{FactId, HeaderId, Leaf};
use super::draft::{ClaimField, DeviceField, Draft, Lifts, WireField};
use super::{ClassId, ReasonId, TierId};
use crate::model::{DeviceState, FactState, NoRecord, Reason};

#[derive(Debug, Default)]
pub struct ReasonBook {
    facts: Vec<Arc<str>>,
    /// Configured classes, then `blind` and `unclassified`.
    classes: Vec<String>,
    tiers: Vec<String>,
    caps: Vec<String>,
    /// `http.header.<name>`.
    headers: Vec<String>,
    /// Those that break glass, with their index; last, since there may be many.
    glass: Vec<(u32, String)>,
}

/// Of a fact: ok, fail, unknown, age.
const PER_FACT: usize = 4;

/// Reasons that every policy has, in the order of their numbers.
const FIXED: [Reason<'static>; 51] = [
    Reason::RuleMatched,
    Reason::NoRule,
    Reason::AppReport,
    Reason::StoreUnavailable,
    Reason::PostureAge(None),
    Reason::NoRecord(NoRecord::NoProof),
    Reason::NoRecord(NoRecord::UnknownCertificate),
    Reason::NoRecord(NoRecord::ExpiredCertificate),
    Reason::NoRecord(NoRecord::UntrustedCertificate),
    Reason::NoRecord(NoRecord::RevokedCertificate),
    Reason::NoRecord(NoRecord::StaleCrl),
    Reason::DeviceState(DeviceState::Pending),
    Reason::DeviceState(DeviceState::Approved),
    Reason::DeviceState(DeviceState::Suspended),
    Reason::DeviceState(DeviceState::Lost),
    Reason::DeviceState(DeviceState::Retired),
    Reason::Device("id"),
    Reason::Device("name"),
    Reason::Device("ownership"),
    Reason::Device("onnet"),
    Reason::Device("state"),
    Reason::Device("user"),
    Reason::Device("team"),
    Reason::Device("os"),
    Reason::Device("model"),
    Reason::Device("tags"),
    Reason::Device("os_version"),
    Reason::Device("key"),
    Reason::Device("known_for"),
    Reason::Signal("wire.ja4"),
    Reason::Signal("wire.ja4_stable"),
    Reason::Signal("claims.os"),
    Reason::Signal("claims.browser"),
    Reason::Signal("claims.form_factor"),
    Reason::Signal("net.peer"),
    Reason::Signal("net.zone"),
    Reason::Signal("http.method"),
    Reason::Signal("http.path"),
    Reason::Signal("http.host"),
    Reason::NoRecord(NoRecord::FutureCertificate),
    Reason::Signal("wire.h2"),
    Reason::Signal("wire.syn"),
    Reason::Signal("wire.stack"),
    Reason::Signal("wire.os"),
    Reason::Signal("wire.browser"),
    Reason::Signal("wire.intercepted"),
    Reason::Signal("wire.drift"),
    Reason::Signal("wire.contradictions"),
    Reason::Signal("time.weekday"),
    Reason::Signal("time.hour"),
    Reason::Notice,
];

impl ReasonBook {
    pub const RULE_MATCHED: ReasonId = ReasonId(0);
    pub const NO_RULE: ReasonId = ReasonId(1);
    pub const APP_REPORT: ReasonId = ReasonId(2);
    pub const STORE_UNAVAILABLE: ReasonId = ReasonId(3);
    pub const POSTURE_AGE: ReasonId = ReasonId(4);

    pub fn new(draft: &Draft, facts: &[Arc<str>], headers: &[HeaderName]) -> Self {
        let classes = draft.classes.iter().map(|class| class.name.as_str()).chain(["blind", "unclassified"]);
        let glass = (0..).zip(&draft.exceptions).filter(|(_, exception)| exception.lifts == Lifts::Everything);
        Self {
            facts: facts.to_vec(),
            classes: classes.map(str::to_owned).collect(),
            tiers: draft.tiers.iter().map(|tier| tier.name.clone()).collect(),
            caps: draft.caps.iter().map(|cap| cap.name.clone()).collect(),
            headers: headers.iter().map(|name| format!("http.header.{name}")).collect(),
            glass: glass.map(|(index, exception)| (index, exception.name.clone())).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.glass_from() + self.glass.len()
    }

    /// An id of another policy is no reason here: `rule.none`.
    pub fn reason(&self, ReasonId(id): ReasonId) -> Reason<'_> {
        self.find(usize::from(id)).unwrap_or(Reason::NoRule)
    }

    fn find(&self, id: usize) -> Option<Reason<'_>> {
        if let Some(fixed) = FIXED.get(id) {
            return Some(*fixed);
        }
        let mut id = id.checked_sub(FIXED.len())?;
        if let Some(fact) = self.facts.get(id / PER_FACT) {
            return Some(match id % PER_FACT {
                0 => Reason::Posture(fact, FactState::Ok),
                1 => Reason::Posture(fact, FactState::Fail),
                2 => Reason::Posture(fact, FactState::Unknown),
                _ => Reason::PostureAge(Some(fact)),
            });
        }
        id = id.checked_sub(self.facts.len() * PER_FACT)?;
        if let Some(class) = self.classes.get(id) {
            return Some(Reason::Class(class));
        }
        id = id.checked_sub(self.classes.len())?;
        if let Some(tier) = self.tiers.get(id) {
            return Some(Reason::Tier(tier));
        }
        id = id.checked_sub(self.tiers.len())?;
        if let Some(cap) = self.caps.get(id) {
            return Some(Reason::Cap(cap));
        }
        id = id.checked_sub(self.caps.len())?;
        if let Some(name) = self.headers.get(id) {
            return Some(Reason::Signal(name));
        }
        id = id.checked_sub(self.headers.len())?;
        self.glass.get(id).map(|(_, name)| Reason::Exception(name))
    }

    pub fn no_record(&self, why: NoRecord) -> ReasonId {
        ReasonId(match why {
            NoRecord::NoProof => 5,
            NoRecord::UnknownCertificate => 6,
            NoRecord::ExpiredCertificate => 7,
            NoRecord::UntrustedCertificate => 8,
            NoRecord::RevokedCertificate => 9,
            NoRecord::StaleCrl => 10,
            NoRecord::FutureCertificate => 39,
        })
    }

    pub fn device_state(&self, state: DeviceState) -> ReasonId {
        ReasonId(match state {
            DeviceState::Pending => 11,
            DeviceState::Approved => 12,
            DeviceState::Suspended => 13,
            DeviceState::Lost => 14,
            DeviceState::Retired => 15,
        })
    }

    fn device(&self, field: DeviceField) -> ReasonId {
        ReasonId(match field {
            DeviceField::Id => 16,
            DeviceField::Name => 17,
            DeviceField::Ownership => 18,
            DeviceField::OnNet => 19,
            DeviceField::State => 20,
            DeviceField::User => 21,
            DeviceField::Team => 22,
            DeviceField::Os => 23,
            DeviceField::Model => 24,
            DeviceField::Tags => 25,
        })
    }

    pub fn posture(&self, FactId(fact): FactId, state: FactState) -> ReasonId {
        let part = match state {
            FactState::Ok => 0,
            FactState::Fail => 1,
            FactState::Unknown => 2,
        };
        number(FIXED.len() + fact as usize * PER_FACT + part)
    }

    pub fn fact_age(&self, FactId(fact): FactId) -> ReasonId {
        number(FIXED.len() + fact as usize * PER_FACT + 3)
    }

    /// The fact that a reason is about, unless it says that the fact has a state.
    pub fn fact_wanting(&self, ReasonId(id): ReasonId) -> Option<FactId> {
        let id = usize::from(id).checked_sub(FIXED.len())?;
        let wanting = id < self.facts.len() * PER_FACT && id % PER_FACT >= 2;
        wanting.then(|| u32::try_from(id / PER_FACT).ok().map(FactId)).flatten()
    }

    /// `rule.none` for a class of another policy.
    pub fn class(&self, class: ClassId) -> ReasonId {
        let place = match class {
            ClassId::BLIND => self.classes.len().saturating_sub(2),
            ClassId::UNCLASSIFIED => self.classes.len().saturating_sub(1),
            class if class.index() + 2 < self.classes.len() => class.index(),
            _ => return Self::NO_RULE,
        };
        number(self.classes_from() + place)
    }

    /// `rule.none` for a tier of another policy: its number would be another reason's.
    pub fn tier(&self, tier: TierId) -> ReasonId {
        if tier.index() >= self.tiers.len() {
            return Self::NO_RULE;
        }
        number(self.classes_from() + self.classes.len() + tier.index())
    }

    pub fn cap(&self, index: usize) -> ReasonId {
        number(self.classes_from() + self.classes.len() + self.tiers.len() + index)
    }

    fn header(&self, HeaderId(header): HeaderId) -> ReasonId {
        number(self.classes_from() + self.classes.len() + self.tiers.len() + self.caps.len() + header as usize)
    }

    /// Of an exception that breaks glass, by its index.
    pub fn exception(&self, index: u32) -> ReasonId {
        let place = self.glass.binary_search_by_key(&index, |(index, _)| *index);
        place.map_or(Self::NO_RULE, |place| number(self.glass_from() + place))
    }

    fn glass_from(&self) -> usize {
        self.classes_from() + self.classes.len() + self.tiers.len() + self.caps.len() + self.headers.len()
    }

    fn classes_from(&self) -> usize {
        FIXED.len() + self.facts.len() * PER_FACT
    }

    /// The name of what a comparison reads, where the value read does not matter.
    pub fn signal(&self, leaf: &Leaf) -> ReasonId {
        match leaf {
            Leaf::Device(field, _) => self.device(*field),
            Leaf::OsVersion(_) => ReasonId(26),
            Leaf::Key(_) => ReasonId(27),
            Leaf::KnownFor(_) => ReasonId(28),
            Leaf::Wire(test) => ReasonId(match test.field {
                WireField::Ja4 => 29,
                WireField::Ja4Stable => 30,
                WireField::H2 => 40,
                WireField::Syn => 41,
                WireField::Stack => 42,
                WireField::Os => 43,
                WireField::Browser => 44,
                WireField::Intercepted => 45,
                WireField::Drift => 46,
                WireField::Contradictions => 47,
            }),
            Leaf::Claim(ClaimField::Os, _) => ReasonId(31),
            Leaf::Claim(ClaimField::Browser, _) => ReasonId(32),
            Leaf::Claim(ClaimField::FormFactor, _) => ReasonId(33),
            Leaf::Peer(_) => ReasonId(34),
            Leaf::Zone(_) => ReasonId(35),
            Leaf::Method(_) => ReasonId(36),
            Leaf::Path(_) => ReasonId(37),
            Leaf::Host(_) => ReasonId(38),
            Leaf::Header(id, _) => self.header(*id),
            Leaf::Weekday(_) => ReasonId(48),
            Leaf::Hour(_) => ReasonId(49),
            Leaf::FactAge(fact, _) => self.fact_age(*fact),
            Leaf::PostureAge(_) => Self::POSTURE_AGE,
            // These three name their value; `Scene` does so.
            Leaf::Fact(fact, _) => self.posture(*fact, FactState::Unknown),
            Leaf::Class(_) => self.class(ClassId::UNCLASSIFIED),
            Leaf::Tier(_) => self.tier(TierId(0)),
        }
    }
}

/// A policy with more reasons than a `u16` counts names those beyond as `rule.none`.
fn number(id: usize) -> ReasonId {
    ReasonId(u16::try_from(id).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::condition::Words;
    use super::super::draft::Cap;
    use super::super::testing::{always, draft};
    use super::super::wire::WireTest;
    use super::*;

    /// Found by fuzzing, with a policy without tiers.
    #[test]
    fn what_the_policy_does_not_have_is_no_other_reason() {
        let book = ReasonBook::new(&draft(vec![]), &[], &[]);
        assert_eq!((book.tier(TierId(3)).0 + 1, book.tier(TierId(4))), (u16::try_from(book.len()).unwrap(), ReasonBook::NO_RULE));
        assert_eq!((book.class(ClassId(2)) != ReasonBook::NO_RULE, book.class(ClassId(3))), (true, ReasonBook::NO_RULE));
    }

    #[test]
    fn every_number_names_the_reason_that_it_is_given_for() {
        let mut draft = draft(vec![]);
        draft.caps = vec![Cap { name: "stale".to_owned(), when: always(), max_tier: TierId(0) }];
        let facts = [Arc::from("disk_encrypted"), Arc::from("patched")];
        let book = ReasonBook::new(&draft, &facts, &[HeaderName::from_static("x-a"), HeaderName::from_static("x-b")]);
        let says = |id: ReasonId, code: &str| assert_eq!(book.reason(id).to_string(), code);
        for (id, code) in [
            (ReasonBook::RULE_MATCHED, "rule.matched"),
            (ReasonBook::NO_RULE, "rule.none"),
            (ReasonBook::APP_REPORT, "app.report"),
            (ReasonBook::STORE_UNAVAILABLE, "store.unavailable"),
            (book.signal(&Leaf::PostureAge([].into())), "posture.age"),
            (book.no_record(NoRecord::NoProof), "device.unknown"),
            (book.no_record(NoRecord::UnknownCertificate), "certificate.unknown"),
            (book.no_record(NoRecord::ExpiredCertificate), "certificate.expired"),
            (book.no_record(NoRecord::UntrustedCertificate), "certificate.untrusted"),
            (book.no_record(NoRecord::RevokedCertificate), "certificate.revoked"),
            (book.no_record(NoRecord::StaleCrl), "certificate.crl_expired"),
            (book.signal(&Leaf::OsVersion([].into())), "device.os_version"),
            (book.signal(&Leaf::Key([].into())), "device.key"),
            (book.signal(&Leaf::KnownFor([].into())), "device.known_for"),
            (book.signal(&Leaf::Claim(ClaimField::Os, Words::Any)), "claims.os"),
            (book.signal(&Leaf::Claim(ClaimField::Browser, Words::Any)), "claims.browser"),
            (book.signal(&Leaf::Claim(ClaimField::FormFactor, Words::Any)), "claims.form_factor"),
            (book.signal(&Leaf::Peer([].into())), "net.peer"),
            (book.signal(&Leaf::Zone([].into())), "net.zone"),
            (book.signal(&Leaf::Method([].into())), "http.method"),
            (book.signal(&Leaf::Path([].into())), "http.path"),
            (book.signal(&Leaf::Host([].into())), "http.host"),
            (book.signal(&Leaf::Header(HeaderId(1), Words::Any)), "http.header.x-b"),
            (book.posture(FactId(0), FactState::Ok), "posture.disk_encrypted.ok"),
            (book.posture(FactId(1), FactState::Fail), "posture.patched.fail"),
            (book.posture(FactId(1), FactState::Unknown), "posture.patched.unknown"),
            (book.fact_age(FactId(0)), "posture.disk_encrypted.age"),
            (book.class(ClassId(2)), "class.personal_offnet"),
            (book.class(ClassId::BLIND), "class.blind"),
            (book.class(ClassId::UNCLASSIFIED), "class.unclassified"),
            (book.tier(TierId(3)), "tier.trusted"),
            (book.cap(0), "cap.stale"),
        ] {
            says(id, code);
        }
        for field in WireField::ALL {
            says(book.signal(&Leaf::Wire(WireTest::new(field, Words::Any))), field.as_str());
        }
        for state in DeviceState::ALL {
            says(book.device_state(state), &format!("device.state.{}", state.as_str()));
        }
        for field in [
            DeviceField::Id,
            DeviceField::Name,
            DeviceField::Ownership,
            DeviceField::OnNet,
            DeviceField::State,
            DeviceField::User,
            DeviceField::Team,
            DeviceField::Os,
            DeviceField::Model,
            DeviceField::Tags,
        ] {
            let leaf = Leaf::Device(field, Words::Any);
            says(book.signal(&leaf), &super::super::wording::device_signal(field));
        }
    }

    #[test]
    fn every_reason_is_there_once() {
        let facts = [Arc::from("disk_encrypted")];
        let book = ReasonBook::new(&draft(vec![]), &facts, &[HeaderName::from_static("x-a")]);
        let codes: HashSet<String> = (0..book.len()).filter_map(|id| Some(book.find(id)?.to_string())).collect();
        assert_eq!(codes.len(), book.len());
        assert_eq!(book.find(book.len()), None);
        assert_eq!(book.reason(ReasonId(u16::MAX)), Reason::NoRule);
    }

    #[test]
    fn a_fact_is_wanting_when_it_is_unknown_or_too_old() {
        let book = ReasonBook::new(&draft(vec![]), &[Arc::from("a"), Arc::from("b")], &[]);
        assert_eq!(book.fact_wanting(book.posture(FactId(1), FactState::Unknown)), Some(FactId(1)));
        assert_eq!(book.fact_wanting(book.fact_age(FactId(1))), Some(FactId(1)));
        for other in [book.posture(FactId(0), FactState::Ok), book.posture(FactId(0), FactState::Fail), book.class(ClassId(2)), ReasonId(3)]
        {
            assert_eq!(book.fact_wanting(other), None);
        }
    }
}
