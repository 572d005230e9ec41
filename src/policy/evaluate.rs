//! What conditions and comparisons come to.

use jiff::{SignedDuration, Timestamp};

use super::TierId;
use super::condition::{Ages, Cond, Leaf, Words, compare_version};
use super::draft::{DeviceField, WireField};
use super::facts::{after, age};
use super::scene::{Record, Scene};
use super::truth::Truth;
use super::wire::UNSEEN;
use crate::model::Device;

/// The word that `device.*` compares as without a record.
const NO_RECORD: &str = "none";
/// The word that an absent header compares as.
const NO_HEADER: &str = "none";

impl<'a> Scene<'a> {
    pub fn truth(&self, cond: &Cond) -> Truth {
        match cond {
            Cond::All(inner) => {
                let mut all = Truth::Yes;
                for cond in inner {
                    all = all.and(self.truth(cond));
                    if all == Truth::No {
                        break;
                    }
                }
                all
            }
            Cond::Any(inner) => {
                let mut any = Truth::No;
                for cond in inner {
                    any = any.or(self.truth(cond));
                    if any == Truth::Yes {
                        break;
                    }
                }
                any
            }
            Cond::Not(inner) => !self.truth(inner),
            Cond::Leaf(leaf) => self.leaf(leaf),
        }
    }

    /// The least and the greatest truth that `cond` could have whatever the device's record said: what reads no record keeps its truth. Exact for
    /// conditions that name no signal twice, else wider.
    pub fn span(&self, cond: &Cond) -> (Truth, Truth) {
        match cond {
            Cond::All(inner) => {
                let (mut least, mut most) = (Truth::Yes, Truth::Yes);
                for cond in inner {
                    let span = self.span(cond);
                    (least, most) = (least.and(span.0), most.and(span.1));
                    if most == Truth::No {
                        break;
                    }
                }
                (least, most)
            }
            Cond::Any(inner) => {
                let (mut least, mut most) = (Truth::No, Truth::No);
                for cond in inner {
                    let span = self.span(cond);
                    (least, most) = (least.or(span.0), most.or(span.1));
                    if least == Truth::Yes {
                        break;
                    }
                }
                (least, most)
            }
            Cond::Not(inner) => {
                let (least, most) = self.span(inner);
                (!most, !least)
            }
            Cond::Leaf(leaf) => self.span_of_leaf(leaf),
        }
    }

    fn span_of_leaf(&self, leaf: &Leaf) -> (Truth, Truth) {
        let free = match leaf {
            // So is a tier or cap that reads the tier, which `config` refuses: asking what it could be would not end.
            Leaf::Tier(range) if range.least > range.most => return (Truth::No, Truth::No),
            Leaf::Class(_) => self.inputs.given.class.is_none(),
            Leaf::Tier(range) if self.inputs.given.tier.is_none() => {
                let (least, most) = self.reach();
                let met = (least..=most).filter(|tier| range.holds(TierId(*tier))).count();
                met != 0 && met != (least..=most).count()
            }
            Leaf::Tier(_) => false,
            Leaf::Wire(test) if test.field == WireField::Contradictions => self.a_record_may_contradict(test),
            leaf => leaf.reads_record(),
        };
        if free {
            return (Truth::No, Truth::Yes);
        }
        let truth = match leaf {
            Leaf::Tier(range) if self.inputs.given.tier.is_none() => Truth::of(range.holds(TierId(self.reach().0))),
            leaf => self.leaf(leaf),
        };
        (truth, truth)
    }

    pub fn leaf(&self, leaf: &Leaf) -> Truth {
        match leaf {
            Leaf::Class(classes) => self.class.map_or(Truth::Undecided, |class| Truth::of(classes.contains(&class))),
            Leaf::Tier(range) => self.tier.map_or(Truth::Undecided, |tier| Truth::of(range.holds(tier))),
            Leaf::Device(field, words) => self.device_field(*field, words),
            Leaf::Key(proofs) => self.key().map_or(Truth::Undecided, |key| Truth::of(proofs.contains(&key))),
            Leaf::Fact(fact, states) => match self.record {
                Record::Unreadable => Truth::Undecided,
                _ => Truth::of(states.holds(self.fact(*fact).state)),
            },
            Leaf::FactAge(fact, wanted) => self.with_age(wanted, |_| self.fact(*fact).observed_at),
            Leaf::PostureAge(wanted) => self.with_age(wanted, |_| self.newest_observation()),
            Leaf::KnownFor(wanted) => self.with_age(wanted, |device| Some(device.created_at)),
            Leaf::OsVersion(wanted) => match self.record {
                Record::Known { device, .. } => device.os_version.as_deref().map_or(Truth::Undecided, |found| {
                    wanted.iter().fold(Truth::Yes, |all, (compare, version)| {
                        all.and(compare_version(found, version).map_or(Truth::Undecided, |order| Truth::of(compare.holds(order))))
                    })
                }),
                Record::Absent(_) => Truth::No,
                Record::Unreadable => Truth::Undecided,
            },
            Leaf::Wire(test) => self.wire_truth(test),
            Leaf::Claim(field, words) => seen(words, self.claim(*field)),
            Leaf::Peer(ranges) => Truth::of(ranges.iter().any(|range| range.contains(&self.inputs.peer))),
            Leaf::Zone(zones) => Truth::of(zones.contains(&self.inputs.zone)),
            Leaf::Method(methods) => Truth::of(methods.iter().any(|method| method.matches(self.inputs.http.method))),
            Leaf::Path(patterns) => Truth::of(patterns.iter().any(|pattern| pattern.matches(self.inputs.http.path))),
            Leaf::Host(patterns) => Truth::of(patterns.iter().any(|pattern| pattern.matches(self.inputs.http.host.as_str()))),
            Leaf::Header(id, words) => {
                let Some(name) = self.tables.headers.get(id.0 as usize) else { return Truth::Undecided };
                let mut values = self.inputs.http.headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    (None, _) => Truth::of(words.hold_absent(NO_HEADER)),
                    (Some(value), None) => value.to_str().map_or(Truth::Undecided, |value| Truth::of(words.hold(value))),
                    (Some(_), Some(_)) => Truth::Undecided,
                }
            }
            Leaf::Weekday(days) => Truth::of(days.contains(&self.inputs.given.weekday.unwrap_or_else(|| self.local_time().weekday()))),
            Leaf::Hour(wanted) => {
                let hour = self.inputs.given.hour.unwrap_or_else(|| self.local_time().hour().unsigned_abs());
                Truth::of(wanted.iter().all(|(compare, than)| compare.holds(hour.cmp(than))))
            }
        }
    }

    fn device_field(&self, field: DeviceField, words: &Words) -> Truth {
        match self.record {
            Record::Absent(_) => Truth::of(words.hold_absent(NO_RECORD)),
            Record::Unreadable => Truth::Undecided,
            Record::Known { device, .. } if field == DeviceField::Tags => Truth::of(words.hold_set(device.tags.iter().map(String::as_str))),
            Record::Known { device, .. } => field_text(device, field).map_or(Truth::Undecided, |found| Truth::of(words.hold(found))),
        }
    }

    /// Without a record an age is decided: no comparison with it holds.
    fn with_age(&self, wanted: &Ages, since: impl FnOnce(&'a Device) -> Option<Timestamp>) -> Truth {
        let device = match self.record {
            Record::Known { device, .. } => device,
            Record::Absent(_) => return Truth::No,
            Record::Unreadable => return Truth::Undecided,
        };
        let Some(since) = since(device) else { return Truth::Undecided };
        let found = age(since, self.inputs.now);
        let mut all = true;
        for (compare, threshold) in wanted {
            all &= compare.holds(found.cmp(threshold));
            // `< 24h` ends at the threshold, `<= 24h` right after it.
            let crossing = after(since, *threshold);
            for moment in [crossing, after(crossing, SignedDuration::from_nanos(1))] {
                if moment > self.inputs.now {
                    self.note(moment);
                }
            }
        }
        Truth::of(all)
    }
}

fn seen(words: &Words, value: Option<&str>) -> Truth {
    Truth::of(value.map_or_else(|| words.hold_absent(UNSEEN), |value| words.hold(value)))
}

/// `None`: the record does not state it. Tags are a set and have no text.
pub fn field_text(device: &Device, field: DeviceField) -> Option<&str> {
    match field {
        DeviceField::Id => Some(&device.id),
        DeviceField::Name => device.name.as_deref(),
        DeviceField::Ownership => device.ownership.map(|ownership| ownership.as_str()),
        DeviceField::OnNet => device.onnet.map(|onnet| if onnet { "true" } else { "false" }),
        DeviceField::State => Some(device.state.as_str()),
        DeviceField::User => device.user.as_deref(),
        DeviceField::Team => device.team.as_deref(),
        DeviceField::Os => device.os.as_deref(),
        DeviceField::Model => device.model.as_deref(),
        DeviceField::Tags => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Policy;
    use super::super::draft::{ClaimField, Compare, Condition, Draft, KeyProof, Test, Version, Want, WireField};
    use super::super::testing::*;
    use super::*;
    use crate::model::{Browser, Effect, FactState, FormFactor, Ja4, NoRecord, Os};

    /// The truth of a condition, seen from outside: an app rule that matches forwards, one that is undecided is as strict as what follows.
    fn truth_in(draft: &Draft, visit: &Visit, when: &Condition) -> Truth {
        let with = |rules| Policy::compile(Draft { apps: vec![app("wiki", rules)], ..draft.clone() });
        let effect = |rules| visit.decide(&with(rules)).done.effect;
        let matched = effect(vec![forward(when.clone()), block(always())]) == Effect::Forward;
        let touched = effect(vec![block(when.clone()), forward(always())]) == Effect::Block;
        match (matched, touched) {
            (true, true) => Truth::Yes,
            (false, true) => Truth::Undecided,
            (false, false) => Truth::No,
            (true, false) => panic!("a rule that matches touches the outcome"),
        }
    }

    fn truth(visit: &Visit, when: Condition) -> Truth {
        truth_in(&draft(vec![]), visit, &when)
    }

    fn test(test: Test) -> Condition {
        Condition::Test(test)
    }

    fn age(compare: Compare, hours: u64) -> Vec<(Compare, Duration)> {
        vec![(compare, Duration::from_secs(hours * 3600))]
    }

    fn versions(wanted: &[(Compare, &[u64])]) -> Condition {
        test(Test::OsVersion(wanted.iter().map(|(compare, version)| (*compare, Version(version.to_vec()))).collect()))
    }

    #[test]
    fn all_entries_of_a_condition_must_hold_and_all_any_and_not_combine() {
        let visit = Visit::of(laptop()).to("GET", "/x");
        let (yes, no) = (method(&["GET"]), method(&["POST"]));
        assert_eq!(truth(&visit, always()), Truth::Yes);
        assert_eq!(truth(&visit, never()), Truth::No);
        assert_eq!(truth(&visit, all(&[yes.clone(), path("/x")])), Truth::Yes);
        assert_eq!(truth(&visit, all(&[yes.clone(), no.clone()])), Truth::No);
        assert_eq!(truth(&visit, any(&[no.clone(), yes.clone()])), Truth::Yes);
        assert_eq!(truth(&visit, not(yes)), Truth::No);
        assert_eq!(truth(&visit, not(any(&[no.clone(), not(no)]))), Truth::No);
    }

    #[test]
    fn a_list_means_any_of() {
        let visit = Visit::of(laptop());
        assert_eq!(truth(&visit, method(&["POST", "GET"])), Truth::Yes);
        assert_eq!(truth(&visit, state(&["lost", "approved"])), Truth::Yes);
        assert_eq!(truth(&visit, state(&["lost", "retired"])), Truth::No);
        let either = Test::Fact("disk_encrypted".into(), vec![FactState::Unknown, FactState::Ok]);
        assert_eq!(truth(&visit, test(either)), Truth::Yes);
    }

    #[test]
    fn a_method_compares_exactly_and_a_path_by_anchored_glob() {
        let visit = Visit::of(laptop()).to("get", "/admin/a/b");
        assert_eq!(truth(&visit, method(&["GET"])), Truth::No);
        assert_eq!(truth(&visit, path("/admin/*")), Truth::Yes);
        assert_eq!(truth(&visit.to("GET", "/admin"), path("/admin/*")), Truth::No);
    }

    #[test]
    fn versions_and_ages_compare_and_several_must_all_hold() {
        let visit = Visit::of(laptop());
        assert_eq!(truth(&visit, versions(&[(Compare::AtLeast, &[14]), (Compare::Less, &[15])])), Truth::Yes);
        assert_eq!(truth(&visit, versions(&[(Compare::AtLeast, &[14]), (Compare::Less, &[14, 2])])), Truth::No);
        for (compare, hours, expected) in [
            (Compare::Less, 1, Truth::No),
            (Compare::AtMost, 1, Truth::Yes),
            (Compare::Equal, 1, Truth::Yes),
            (Compare::AtLeast, 1, Truth::Yes),
            (Compare::More, 1, Truth::No),
            (Compare::Less, 2, Truth::Yes),
        ] {
            assert_eq!(truth(&visit, test(Test::PostureAge(age(compare, hours)))), expected, "1h {compare:?} {hours}h");
            assert_eq!(truth(&visit, test(Test::FactAge("disk_encrypted".into(), age(compare, hours)))), expected);
        }
        assert_eq!(truth(&visit, test(Test::KnownFor(age(Compare::More, 28)))), Truth::Yes);
        assert_eq!(truth(&visit, test(Test::KnownFor(age(Compare::More, 29)))), Truth::No);
    }

    #[test]
    fn on_a_set_any_means_at_least_one_and_none_the_opposite() {
        let tags = |want| test(Test::Device(DeviceField::Tags, want));
        let (tagged, bare) = (Visit::of(laptop()), Visit::of(without(|d| d.tags.clear())));
        assert_eq!((truth(&tagged, tags(Want::Any)), truth(&tagged, tags(Want::None))), (Truth::Yes, Truth::No));
        assert_eq!((truth(&bare, tags(Want::Any)), truth(&bare, tags(Want::None))), (Truth::No, Truth::Yes));
        assert_eq!(truth(&tagged, tags(text(&["x", "pil*"]))), Truth::Yes);
        assert_eq!(truth(&bare, tags(text(&["pilot"]))), Truth::No, "a set is never missing");
    }

    #[test]
    fn a_comparison_is_undecided_when_a_field_is_missing_from_an_existing_record() {
        for (field, visit) in [
            (DeviceField::Ownership, Visit::of(without(|d| d.ownership = None))),
            (DeviceField::OnNet, Visit::of(without(|d| d.onnet = None))),
            (DeviceField::User, Visit::of(without(|d| d.user = None))),
            (DeviceField::Team, Visit::of(without(|d| d.team = None))),
            (DeviceField::Name, Visit::of(without(|d| d.name = None))),
            (DeviceField::Os, Visit::of(without(|d| d.os = None))),
            (DeviceField::Model, Visit::of(without(|d| d.model = None))),
        ] {
            for want in [text(&["*"]), text(&["none"]), Want::Any, Want::None] {
                assert_eq!(truth(&visit, test(Test::Device(field, want.clone()))), Truth::Undecided, "{field:?} {want:?}");
            }
        }
        let unobserved = Visit::of(without(|d| d.posture.clear()));
        assert_eq!(truth(&unobserved, test(Test::FactAge("disk_encrypted".into(), age(Compare::Less, 9)))), Truth::Undecided);
        assert_eq!(truth(&unobserved, test(Test::PostureAge(age(Compare::Less, 9)))), Truth::Undecided);
        assert_eq!(truth(&Visit::of(without(|d| d.os_version = None)), versions(&[(Compare::AtLeast, &[1])])), Truth::Undecided);
        // An expired fact has no age either; the newest observation still has one.
        let expired = Visit::of(laptop()).at(25 * 3600);
        assert_eq!(truth(&expired, test(Test::FactAge("disk_encrypted".into(), age(Compare::More, 1)))), Truth::Undecided);
        assert_eq!(truth(&expired, test(Test::PostureAge(age(Compare::More, 24)))), Truth::Yes);
    }

    #[test]
    fn a_comparison_is_undecided_when_a_version_does_not_parse() {
        let visit = Visit::of(without(|d| d.os_version = Some("14 beta".to_owned())));
        assert_eq!(truth(&visit, versions(&[(Compare::AtLeast, &[14])])), Truth::Undecided);
    }

    #[test]
    fn a_comparison_is_undecided_when_a_header_has_several_values() {
        let visit = Visit::of(laptop());
        let twice = visit.clone().with_header("x-role", b"admin").with_header("x-role", b"admin");
        let opaque = visit.clone().with_header("x-role", b"adm\xffin");
        for want in [text(&["admin"]), text(&["*"]), Want::Any, Want::None] {
            assert_eq!(truth(&twice, header("x-role", want.clone())), Truth::Undecided, "{want:?}");
            assert_eq!(truth(&opaque, header("x-role", want.clone())), Truth::Undecided, "{want:?}");
        }
        let once = visit.clone().with_header("x-role", b"admin");
        assert_eq!(truth(&once, header("x-role", text(&["admin"]))), Truth::Yes);
        assert_eq!(truth(&once, header("x-role", Want::Any)), Truth::Yes);
        assert_eq!(truth(&once, header("x-role", Want::None)), Truth::No);
        assert_eq!(truth(&visit, header("x-role", Want::Any)), Truth::No);
        assert_eq!(truth(&visit, header("x-role", Want::None)), Truth::Yes);
        assert_eq!(truth(&visit, header("x-role", text(&["admin"]))), Truth::No);
        assert_eq!(truth(&visit, header("x-role", text(&["none"]))), Truth::Yes);
    }

    #[test]
    fn a_comparison_is_undecided_when_the_record_cannot_be_read() {
        let visit = Visit::unreadable();
        for condition in [
            state(&["approved"]),
            state(&["none"]),
            test(Test::Device(DeviceField::Tags, Want::None)),
            test(Test::KeyProof(vec![KeyProof::Certificate])),
            is("disk_encrypted", FactState::Unknown),
            test(Test::FactAge("disk_encrypted".into(), age(Compare::Less, 9))),
            test(Test::PostureAge(age(Compare::Less, 9))),
            test(Test::KnownFor(age(Compare::Less, 9))),
            versions(&[(Compare::AtLeast, &[1])]),
        ] {
            assert_eq!(truth(&visit, condition.clone()), Truth::Undecided, "{condition:?}");
        }
        assert_eq!(truth(&visit, method(&["GET"])), Truth::Yes);
    }

    #[test]
    fn without_a_record_device_fields_are_none_which_is_a_decided_value() {
        let visit = Visit::blind(NoRecord::NoProof);
        assert_eq!(truth(&visit, state(&["none"])), Truth::Yes);
        assert_eq!(truth(&visit, state(&["approved"])), Truth::No);
        assert_eq!(truth(&visit, device(DeviceField::User, &["*"])), Truth::Yes, "the absent value compares as the word");
        assert_eq!(truth(&visit, test(Test::Device(DeviceField::Tags, Want::None))), Truth::Yes);
        assert_eq!(truth(&visit, test(Test::Device(DeviceField::Tags, Want::Any))), Truth::No);
        assert_eq!(truth(&visit, test(Test::KeyProof(vec![KeyProof::None]))), Truth::Yes);
        assert_eq!(truth(&visit, is("disk_encrypted", FactState::Unknown)), Truth::Yes);
        for decided in [
            versions(&[(Compare::AtLeast, &[0])]),
            test(Test::KnownFor(age(Compare::AtLeast, 0))),
            test(Test::PostureAge(age(Compare::AtLeast, 0))),
            test(Test::FactAge("disk_encrypted".into(), age(Compare::AtLeast, 0))),
        ] {
            assert_eq!(truth(&visit, decided.clone()), Truth::No, "{decided:?}");
        }
    }

    #[test]
    fn unseen_wire_and_claims_are_unavailable_which_is_a_decided_value() {
        let ja4 = Ja4::new(*b"t13d1516h2_8daaf6152771_e5627efa2ab1").expect("a fingerprint");
        let mut visit = Visit::of(laptop());
        let wire = |words: &[&str]| test(Test::Wire(WireField::Ja4, text(words)));
        let claims = |field, words: &[&str]| test(Test::Claim(field, text(words)));
        assert_eq!(truth(&visit, wire(&["unavailable"])), Truth::Yes);
        assert_eq!(truth(&visit, wire(&["t13d*"])), Truth::No);
        assert_eq!(truth(&visit, claims(ClaimField::Os, &["unavailable"])), Truth::Yes);
        visit.wire.ja4 = Some(ja4);
        visit.claims.os = Some(Os::MacOs);
        visit.claims.browser = Some(Browser::Firefox);
        visit.claims.form_factor = Some(FormFactor::Desktop);
        assert_eq!(truth(&visit, wire(&["t13d*"])), Truth::Yes);
        assert_eq!(truth(&visit, wire(&["unavailable"])), Truth::No);
        assert_eq!(truth(&visit, test(Test::Wire(WireField::Ja4Stable, text(&["unavailable"])))), Truth::Yes);
        assert_eq!(truth(&visit, claims(ClaimField::Os, &["macos"])), Truth::Yes);
        assert_eq!(truth(&visit, claims(ClaimField::Browser, &["firefox"])), Truth::Yes);
        assert_eq!(truth(&visit, claims(ClaimField::FormFactor, &["phone"])), Truth::No);
    }

    #[test]
    fn networks_compare_by_address_and_by_name() {
        let (home, office) = (Visit::of(laptop()), Visit::of(laptop()).in_office());
        let peer = test(Test::Peer(vec!["10.0.0.0/24".parse().expect("a range")]));
        assert_eq!((truth(&home, peer.clone()), truth(&office, peer)), (Truth::No, Truth::Yes));
        assert_eq!((truth(&home, zone(Some(0))), truth(&office, zone(Some(0)))), (Truth::No, Truth::Yes));
        assert_eq!((truth(&home, zone(None)), truth(&office, zone(None))), (Truth::Yes, Truth::No));
    }
}
