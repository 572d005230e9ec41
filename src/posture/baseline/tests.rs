//! The rule as tables of days, and what must hold for any history.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

const LIMITS: Limits = Limits {
    learn: Duration::from_secs(7 * 24 * 3600),
    fleet_share: 10,
    fleet_devices: 3,
    fleet_window: Duration::from_secs(14 * 24 * 3600),
    clear_after: Duration::from_secs(30 * 24 * 3600),
    keep: Duration::from_secs(90 * 24 * 3600),
    entries: 10,
};

fn day(n: u32) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + DAY * n
}

const fn stack(tls: u64, h2: Option<u64>, syn: Option<u64>) -> Stack {
    Stack { tls, h2, syn }
}

const BROWSER: Stack = stack(1, Some(1), None);
const CURL: Stack = stack(2, Some(2), None);
const THIEF: Stack = stack(9, Some(9), None);

/// Judges, notes, and says what it was.
fn see(baseline: &mut Baseline, fleet: &Fleet, stack: Stack, at: Timestamp) -> Verdict {
    let verdict = judge(baseline, fleet, stack, at, &LIMITS);
    baseline.note(stack, verdict, at, &LIMITS);
    verdict
}

fn history(steps: &[(u32, Stack)]) -> (Baseline, Vec<Verdict>) {
    let mut baseline = Baseline::begin(day(steps[0].0));
    let verdicts = steps.iter().map(|(at, stack)| see(&mut baseline, &Fleet::default(), *stack, day(*at))).collect();
    (baseline, verdicts)
}

fn last(steps: &[(u32, Stack)]) -> Verdict {
    *history(steps).1.last().unwrap()
}

#[test]
fn what_a_device_speaks_while_it_is_learned_is_its_own() {
    use Verdict::{Drift, Known, Learning};
    let (_, verdicts) = history(&[(0, BROWSER), (6, CURL), (7, BROWSER), (8, CURL), (9, THIEF), (9, BROWSER), (9, THIEF)]);
    assert_eq!(verdicts, [Learning, Learning, Known, Known, Drift, Known, Drift]);
}

#[test]
fn a_layer_that_says_nothing_is_no_drift() {
    let known = stack(1, Some(1), Some(1));
    for (what, other, expected) in [
        ("the same", known, Verdict::Known),
        ("over HTTP/1", stack(1, None, Some(1)), Verdict::Known),
        ("the SYN not seen", stack(1, Some(1), None), Verdict::Known),
        ("another HTTP/2 opening", stack(1, Some(2), Some(1)), Verdict::Drift),
        ("another kernel", stack(1, Some(1), Some(2)), Verdict::Drift),
        ("another TLS stack", stack(2, Some(1), Some(1)), Verdict::Drift),
    ] {
        assert_eq!(last(&[(0, known), (8, other)]), expected, "{what}");
    }
    // What was never seen of a stack can come to be seen, and counts from then on.
    let bare = stack(1, None, None);
    assert_eq!(last(&[(0, bare), (8, stack(1, Some(1), Some(1))), (9, stack(1, Some(1), None))]), Verdict::Known);
    assert_eq!(last(&[(0, bare), (8, stack(1, Some(1), None)), (9, stack(1, Some(2), None))]), Verdict::Drift);
    // HTTP/2 and SYN were seen on connections of their own.
    assert_eq!(last(&[(0, stack(1, Some(1), None)), (1, stack(1, None, Some(1))), (9, known)]), Verdict::Known);
}

#[test]
fn a_drift_settles_only_when_it_is_there_all_the_time() {
    let weekly = |until: u32| [(0, BROWSER)].into_iter().chain((10..=until).step_by(7).map(|at| (at, THIEF))).collect::<Vec<_>>();
    assert_eq!(last(&weekly(38)), Verdict::Drift, "28 days");
    let mut settled = weekly(38);
    settled.push((40, THIEF));
    assert_eq!(last(&settled), Verdict::Settled, "30 days");
    settled.push((41, THIEF));
    assert_eq!(last(&settled), Verdict::Known);
    assert_eq!(last(&[(0, BROWSER), (10, THIEF), (80, THIEF)]), Verdict::Drift, "waiting alone");
    assert_eq!(
        last(&[(0, BROWSER), (10, THIEF), (16, THIEF), (36, THIEF), (42, THIEF), (48, THIEF)]),
        Verdict::Drift,
        "a pause begins anew"
    );
}

#[test]
fn what_is_not_seen_for_long_is_forgotten() {
    assert_eq!(last(&[(0, BROWSER), (1, CURL), (90, CURL), (92, BROWSER)]), Verdict::Drift, "the browser was seen 92 days ago");
    let (mut baseline, _) = history(&[(0, BROWSER), (1, CURL), (90, CURL)]);
    assert!(!baseline.is_over(day(92), &LIMITS));
    assert_eq!(baseline.forget(day(92), &LIMITS), [BROWSER]);
    assert!(baseline.is_over(day(181), &LIMITS), "nothing is left: learned anew");
    assert!(!Baseline::begin(day(181)).is_over(day(181), &LIMITS));
}

/// A fleet of `devices` that speak the browser since long, of which `moved` began to speak another stack on day 100.
fn fleet(devices: usize, moved: usize, at: u32) -> Fleet {
    let mut fleet = Fleet::default();
    for n in 0..devices {
        let mut baseline = Baseline::begin(day(0));
        see(&mut baseline, &Fleet::default(), BROWSER, day(0));
        see(&mut baseline, &Fleet::default(), BROWSER, day(80));
        if n < moved {
            see(&mut baseline, &Fleet::default(), THIEF, day(100));
        } else {
            see(&mut baseline, &Fleet::default(), BROWSER, day(100));
        }
        fleet.count(&baseline, day(at), &LIMITS);
    }
    fleet
}

#[test]
fn what_much_of_the_fleet_changes_to_is_learned() {
    let settled = |fleet: &Fleet, at: u32| {
        let (mut baseline, _) = history(&[(0, BROWSER), (80, BROWSER)]);
        see(&mut baseline, fleet, THIEF, day(at))
    };
    for (devices, moved, expected) in [
        (100, 9, Verdict::Fleet), // itself the tenth
        (100, 8, Verdict::Drift),
        (101, 9, Verdict::Drift), // a tenth, rounded up
        (4, 2, Verdict::Fleet),   // never fewer than three
        (4, 1, Verdict::Drift),
        (0, 0, Verdict::Drift),
    ] {
        assert_eq!(settled(&fleet(devices, moved, 101), 101), expected, "{moved} of {devices}");
    }
    assert_eq!(settled(&fleet(100, 50, 115), 115), Verdict::Drift, "the change was made before the window");

    // One of those that came first is counted already, and is learned with the others.
    let (mut first, verdicts) = history(&[(0, BROWSER), (80, BROWSER), (100, THIEF)]);
    assert_eq!(verdicts[2], Verdict::Drift);
    assert_eq!(judge(&first, &fleet(100, 9, 101), THIEF, day(101), &LIMITS), Verdict::Drift);
    assert_eq!(see(&mut first, &fleet(100, 10, 101), THIEF, day(101)), Verdict::Fleet);
    assert_eq!(see(&mut first, &Fleet::default(), THIEF, day(102)), Verdict::Known);
}

#[test]
fn new_devices_are_no_release() {
    let mut fleet = Fleet::default();
    for _ in 0..50 {
        let (baseline, _) = history(&[(90, THIEF), (98, THIEF)]);
        fleet.count(&baseline, day(100), &LIMITS);
    }
    assert_eq!((fleet.devices, fleet.starts.len()), (50, 0), "they spoke it from their first day");
    let (mut learning, _) = history(&[(99, THIEF)]);
    fleet.count(&learning, day(100), &LIMITS);
    learning.since = day(0);
    fleet.count(&learning, day(200), &LIMITS);
    assert_eq!(fleet.devices, 50, "one is being learned, the other was not seen for long");
}

#[test]
fn a_flood_of_stacks_pushes_out_nothing_that_is_the_devices_own() {
    let mut baseline = Baseline::begin(day(0));
    for n in 0..100 {
        see(&mut baseline, &Fleet::default(), stack(n, None, None), day(0));
    }
    assert_eq!(baseline.stacks.len(), OWN_MAX);
    let (mut baseline, _) = history(&[(0, BROWSER), (1, CURL)]);
    let dropped = (100..1100).filter(|n| {
        let stack = stack(*n, None, None);
        let verdict = judge(&baseline, &Fleet::default(), stack, day(20), &LIMITS);
        assert_eq!(verdict, Verdict::Drift);
        baseline.note(stack, verdict, day(20), &LIMITS).len() == 1
    });
    assert_eq!(dropped.count(), 1000 - DRIFTS_MAX);
    assert_eq!(baseline.stacks.len(), 2 + DRIFTS_MAX);
    assert_eq!(judge(&baseline, &Fleet::default(), CURL, day(21), &LIMITS), Verdict::Known);
}

#[test]
fn a_clock_that_went_back_clears_nothing() {
    let (mut baseline, _) = history(&[(0, BROWSER), (10, THIEF)]);
    assert_eq!(see(&mut baseline, &Fleet::default(), THIEF, day(8)), Verdict::Drift);
    assert_eq!(baseline.last(), Some(day(10)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a device does: nothing drifts while it is learned, nor what it spoke then; and a stack that begins later drifts for as long
    /// as it must have been seen, whatever the pauses.
    #[test]
    fn never_while_learned_never_what_is_known_and_waiting_clears_nothing(
        steps in prop::collection::vec((0u32..12, 1u64..6, prop::option::of(1u64..3)), 1..80),
    ) {
        let mut baseline = Baseline::begin(day(0));
        let (mut at, mut own, mut drifts) = (0, Vec::new(), HashMap::<Stack, Timestamp>::new());
        for (pause, tls, h2) in steps {
            at += pause;
            let (now, seen) = (day(at), stack(tls, h2, None));
            let recent: Vec<Stack> = baseline.stacks.iter().filter(|s| since(s.last, now) <= LIMITS.keep).map(|s| s.stack).collect();
            let verdict = see(&mut baseline, &Fleet::default(), seen, now);
            prop_assert_eq!(verdict == Verdict::Learning, at < 7);
            if at < 7 {
                own.push(seen);
            } else if own.contains(&seen) && recent.contains(&seen) {
                prop_assert_eq!(verdict, Verdict::Known);
            }
            match verdict {
                Verdict::Drift => {
                    own.retain(|known| *known != seen); // forgotten meanwhile
                    drifts.entry(seen).or_insert(now);
                }
                Verdict::Settled => {
                    let began = drifts.remove(&seen).expect("it was a drift before");
                    prop_assert!(since(began, now) >= LIMITS.clear_after);
                    own.push(seen);
                }
                _ => {}
            }
            prop_assert!(baseline.stacks.iter().all(|spoken| spoken.own || drifts.contains_key(&spoken.stack)));
        }
    }
}
