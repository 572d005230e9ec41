//! What the wire signals come to.

use smallvec::{SmallVec, smallvec};

use super::Inputs;
use super::condition::Words;
use super::draft::WireField;
use super::scene::{Record, Scene};
use super::truth::Truth;
use crate::model::{Browser, Contradiction, Ja4, Os, Set, Word};

/// The word that unseen wire and claims compare as.
pub const UNSEEN: &str = "unavailable";
/// The word that wire compares as which was seen and is in no table.
pub const UNKNOWN: &str = "unknown";

/// A comparison with a wire signal. Which words of a closed list its texts match is known when the policy is compiled: sets are then compared by their
/// bits.
#[derive(Clone, Debug)]
pub struct WireTest {
    pub field: WireField,
    pub words: Words,
    os: Set<Os>,
    browsers: Set<Browser>,
    kinds: Set<Contradiction>,
    unknown: bool,
    unseen: bool,
}

impl WireTest {
    pub fn new(field: WireField, words: Words) -> Self {
        Self {
            field,
            os: matched(&words),
            browsers: matched(&words),
            kinds: matched(&words),
            unknown: words.hold(UNKNOWN),
            unseen: words.hold(UNSEEN),
            words,
        }
    }
}

fn matched<T: Word>(words: &Words) -> Set<T> {
    T::ALL.iter().copied().filter(|word| words.hold(word.word())).collect()
}

/// The words of a signal.
pub type Found<'a> = SmallVec<[&'a str; 8]>;

impl<'a> Scene<'a> {
    pub fn wire_truth(&self, test: &WireTest) -> Truth {
        let sight = self.inputs.sight;
        let told = &*sight.identification;
        let unsaid = |seen: bool| if seen { test.unknown } else { test.unseen };
        let WireTest { field, words, .. } = test;
        Truth::of(match (field, words) {
            (WireField::Contradictions, Words::Any) => !sight.comparison.strong.is_empty(),
            (WireField::Contradictions, Words::None) => sight.comparison.strong.is_empty(),
            (WireField::Contradictions, _) => !sight.comparison.contradictions.both(test.kinds).is_empty(),
            (_, Words::Any | Words::None) => {
                let nothing = matches!(self.wire(*field).as_slice(), [UNSEEN | UNKNOWN]);
                nothing == matches!(words, Words::None)
            }
            (WireField::Stack, _) if told.stacks.is_empty() => unsaid(told.saw_program()),
            (WireField::Stack, _) => told.stacks.iter().any(|stack| words.hold(stack)),
            (WireField::Os, _) if told.os.is_empty() => unsaid(told.saw_system()),
            (WireField::Os, _) => !told.os.both(test.os).is_empty(),
            (WireField::Browser, _) if told.browsers.is_empty() => unsaid(told.saw_program()),
            (WireField::Browser, _) => !told.browsers.both(test.browsers).is_empty(),
            (field, _) => words.hold(self.wire_text(*field)),
        })
    }

    /// Of a signal that is one text.
    fn wire_text(&self, field: WireField) -> &'a str {
        let Inputs { wire, opening, sight, .. } = *self.inputs;
        let truth = |value: bool| if value { "true" } else { "false" };
        match field {
            WireField::Ja4 => wire.ja4.as_ref().map_or(UNSEEN, Ja4::as_str),
            WireField::Ja4Stable => wire.ja4_stable.as_ref().map_or(UNSEEN, Ja4::as_str),
            WireField::H2 => opening.h2.as_deref().unwrap_or(UNSEEN),
            WireField::Syn => wire.syn.as_deref().unwrap_or(UNSEEN),
            WireField::Intercepted => truth(sight.intercepted),
            WireField::Drift => truth(sight.drift),
            WireField::Stack | WireField::Os | WireField::Browser | WireField::Contradictions => UNSEEN,
        }
    }

    /// The words of a wire signal: one, or those of a set. For people.
    pub fn wire(&self, field: WireField) -> Found<'a> {
        let Inputs { sight, .. } = *self.inputs;
        let told = &*sight.identification;
        // Nothing seen is one thing, something seen that no row of the table knows another.
        let unsaid = |seen: bool| if seen { UNKNOWN } else { UNSEEN };
        match field {
            WireField::Stack if told.stacks.is_empty() => smallvec![unsaid(told.saw_program())],
            WireField::Stack => told.stacks.iter().map(|stack| &**stack).collect(),
            WireField::Os if told.os.is_empty() => smallvec![unsaid(told.saw_system())],
            WireField::Os => words(told.os),
            WireField::Browser if told.browsers.is_empty() => smallvec![unsaid(told.saw_program())],
            WireField::Browser => words(told.browsers),
            WireField::Contradictions => words(sight.comparison.contradictions),
            field => smallvec![self.wire_text(field)],
        }
    }

    /// Whether a comparison with the contradictions could turn, had a record named a system that the wire excludes.
    pub fn a_record_may_contradict(&self, test: &WireTest) -> bool {
        let sight = self.inputs.sight;
        let told = !sight.identification.os.is_empty() && !matches!(self.record, Record::Known { .. });
        told && match test.words {
            Words::Any | Words::None => sight.comparison.strong.is_empty(),
            Words::Text(_) => test.kinds.has(Contradiction::RecordOsVsWire) && self.wire_truth(test) == Truth::No,
        }
    }
}

fn words<'a, T: Word>(set: Set<T>) -> Found<'a> {
    set.iter().map(|word| -> &'a str { word.word() }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::draft::{Cap, Condition, Draft, Test, Want};
    use super::super::testing::*;
    use super::super::{Explanation, Policy, TierId};
    use super::*;
    use crate::model::{Clash, Comparison, Effect, Identification, NoRecord, Opening, Seen, Sight, Wire};

    fn wire(field: WireField, words: &[&str]) -> Condition {
        Condition::Test(Test::Wire(field, text(words)))
    }

    fn contradictions(want: Want) -> Condition {
        Condition::Test(Test::Wire(WireField::Contradictions, want))
    }

    fn holds(visit: &Visit, when: Condition) -> bool {
        let decided = visit.decide(&Policy::compile(draft(vec![forward(when.clone())]))).done.effect == Effect::Forward;
        // A comparison of the wire is never undecided.
        let touched = visit.decide(&Policy::compile(draft(vec![block(when), forward(always())]))).done.effect == Effect::Block;
        assert_eq!(decided, touched);
        decided
    }

    fn set<T: Word>(words: &[T]) -> Set<T> {
        words.iter().copied().collect()
    }

    /// curl that says it is Chrome on Windows, over a SYN of Linux.
    fn liar() -> Visit {
        let mut visit = Visit::of(laptop());
        let identification = Identification {
            stacks: ["openssl".into(), "gnutls".into()].into_iter().collect(),
            browsers: set(&[Browser::Curl, Browser::Python]),
            os: set(&[Os::Linux, Os::Android]),
            ..Identification::default()
        };
        visit.wire = Wire { ja4: Ja4::new(*b"t13d1516h2_8daaf6152771_e5627efa2ab1"), syn: Some("4:64".into()), ..Wire::default() };
        visit.opening = Opening { h2: Some("2:0|0|0|m,a,s,p".into()), header_order: None };
        let clash = |kind| Clash { kind, claimed: "chrome 142 on windows".into(), seen: "openssl".into() };
        let (tls, syn) = (Contradiction::UaBrowserVsTls, Contradiction::UaOsVsSyn);
        let comparison = Comparison {
            contradictions: set(&[tls, syn]),
            strong: set(&[tls]),
            confidence: crate::model::Confidence::Contradicted,
            clashes: [clash(tls), clash(syn)].into_iter().collect(),
        };
        visit.sight = Sight { identification: Arc::new(identification), comparison, intercepted: false, drift: true };
        visit
    }

    fn honest() -> Visit {
        let mut visit = liar();
        visit.sight.comparison = Comparison::default();
        visit.sight.drift = false;
        visit
    }

    #[test]
    fn a_text_matches_a_set_when_any_element_does() {
        let visit = liar();
        for (field, yes, no) in [
            (WireField::Stack, "openssl", "chromium"),
            (WireField::Stack, "gnu*", "openss"),
            (WireField::Os, "android", "windows"),
            (WireField::Browser, "python", "chrome"),
            (WireField::H2, "2:0*", "unavailable"),
            (WireField::Syn, "4:64", "unavailable"),
            (WireField::Ja4, "t13d*", "unavailable"),
            (WireField::Intercepted, "false", "true"),
            (WireField::Drift, "true", "false"),
        ] {
            assert!(holds(&visit, wire(field, &[yes])), "{field:?} {yes}");
            assert!(!holds(&visit, wire(field, &[no])), "{field:?} {no}");
            assert!(holds(&visit, wire(field, &[no, yes])), "{field:?}: of several any may match");
            assert!(!holds(&visit, not(wire(field, &[yes]))), "{field:?}");
        }
    }

    #[test]
    fn unseen_is_unavailable_and_what_is_in_no_table_is_unknown() {
        let unseen = Visit::of(laptop());
        let of = |tls, syn| {
            let mut visit = Visit::of(laptop());
            visit.sight.identification = Arc::new(Identification { tls, syn, ..Identification::default() });
            visit
        };
        let unknown = of(Seen::Unknown, Seen::Unknown);
        let syn_alone = of(Seen::Unavailable, Seen::Unknown);
        for field in [WireField::Stack, WireField::Os, WireField::Browser] {
            assert!(holds(&unseen, wire(field, &["unavailable"])) && !holds(&unseen, wire(field, &["unknown"])), "{field:?}");
            assert!(holds(&unknown, wire(field, &["unknown"])) && !holds(&unknown, wire(field, &["unavailable"])), "{field:?}");
            assert_eq!(holds(&syn_alone, wire(field, &["unknown"])), field == WireField::Os, "{field:?}: a SYN tells of the system alone");
        }
        for field in [WireField::Ja4, WireField::Ja4Stable, WireField::H2, WireField::Syn] {
            assert!(holds(&unseen, wire(field, &["unavailable"])), "{field:?}");
        }
        for field in [WireField::Intercepted, WireField::Drift] {
            assert!(holds(&unseen, wire(field, &["false"])) && !holds(&unseen, wire(field, &["unavailable"])), "{field:?}");
        }
        assert!(holds(&unseen, contradictions(Want::None)));
    }

    #[test]
    fn any_counts_strong_contradictions_and_a_name_each() {
        let (liar, mut weak) = (liar(), liar());
        weak.sight.comparison.strong = Set::EMPTY;
        for (want, of_liar, of_weak, of_honest) in [
            (Want::Any, true, false, false),
            (Want::None, false, true, true),
            (text(&["ua_os_vs_syn"]), true, true, false),
            (text(&["ua_browser_vs_h2"]), false, false, false),
            (text(&["ua_browser_vs_h2", "ua_browser_vs_*"]), true, true, false),
        ] {
            let of = |visit: &Visit| holds(visit, contradictions(want.clone()));
            assert_eq!((of(&liar), of(&weak), of(&honest())), (of_liar, of_weak, of_honest), "{want:?}");
        }
    }

    fn capped() -> Policy {
        let caps = vec![Cap { name: "lying-stack".to_owned(), when: contradictions(Want::Any), max_tier: TierId(KNOWN) }];
        Policy::compile(Draft { caps, ..draft(vec![forward(tier(super::super::draft::Compare::AtLeast, HEALTHY))]) })
    }

    #[test]
    fn a_cap_on_contradictions_lowers_the_tier_of_who_lies_and_of_nobody_else() {
        let policy = capped();
        let refused = liar().decide(&policy);
        assert_eq!((refused.tier.0, refused.done.effect), (KNOWN, Effect::Block));
        assert_eq!(reasons(&policy, &refused.done), ["cap.lying-stack"]);
        assert_eq!(honest().decide(&policy).tier.0, TRUSTED);
        assert_eq!(Visit::of(laptop()).decide(&policy).tier.0, TRUSTED, "nothing seen is no lie");
    }

    #[test]
    fn a_rule_that_reads_the_wire_names_its_signal() {
        for (field, word) in [(WireField::Stack, "chromium"), (WireField::Drift, "false"), (WireField::Os, "windows")] {
            let policy = Policy::compile(draft(vec![forward(wire(field, &[word]))]));
            assert_eq!(reasons(&policy, &liar().decide(&policy).done), [field.as_str()]);
        }
        let policy = Policy::compile(draft(vec![forward(contradictions(Want::None))]));
        assert_eq!(reasons(&policy, &liar().decide(&policy).done), ["wire.contradictions"]);
    }

    #[test]
    fn what_a_record_could_add_is_not_held_for_certain_while_nobody_can_read_it() {
        // Nobody with a contradiction may in, and who is not of the company neither: a record could change the one as well as the other.
        let rules = || vec![block(contradictions(Want::Any)), forward(owned("corporate"))];
        let policy = Policy::compile(draft(rules()));
        let unreadable = |visit: Visit| Visit { standing: Visit::unreadable().standing, ..visit };
        assert!(unreadable(honest()).decide(&policy).unavailable, "with a record this could be forwarded");
        assert!(!unreadable(liar()).decide(&policy).unavailable, "no record takes back what was found without one");
        let named = Policy::compile(draft(vec![forward(contradictions(text(&["record_os_vs_wire"])))]));
        assert!(unreadable(honest()).decide(&named).unavailable);
        let nothing_seen = unreadable(Visit::of(laptop()));
        assert!(!nothing_seen.decide(&named).unavailable, "no record contradicts a wire that says nothing");
        let blind = Visit { standing: Visit::blind(NoRecord::NoProof).standing, ..liar() };
        assert_eq!(reasons(&policy, &blind.decide(&policy).done), ["device.unknown", "wire.contradictions"]);
    }

    #[test]
    fn an_explanation_tells_what_was_found() {
        let policy = Policy::compile(draft(vec![forward(all(&[
            contradictions(Want::None),
            wire(WireField::Stack, &["chromium"]),
            wire(WireField::Drift, &["false"]),
        ]))]));
        let visit = liar();
        let inputs = visit.inputs();
        let Explanation { rules, .. } = policy.explain(super::super::AppId(0), &inputs);
        let told = format!("{:?}", rules[0].test);
        for part in [
            r#"signal: "wire.contradictions", found: "ua_browser_vs_tls, ua_os_vs_syn (weak)", wanted: "none""#,
            r#"signal: "wire.stack", found: "openssl, gnutls", wanted: "chromium""#,
            r#"signal: "wire.drift", found: "true", wanted: "false""#,
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
