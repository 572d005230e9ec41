//! Posture facts as they count at a moment.

use jiff::{SignedDuration, Timestamp};

use super::draft::Source;
use crate::model::{Device, Fact, FactState, Observation};

/// Whom facts are believed from, and for how long.
#[derive(Debug)]
pub struct Sources(Box<[(Box<str>, SignedDuration)]>);

/// One fact at a moment.
#[derive(Clone, Copy, Debug)]
pub struct FactNow {
    pub state: FactState,
    /// When the observation that gives the state was made; of several the newest. `None`: unknown.
    pub observed_at: Option<Timestamp>,
    /// When the first of the observations that count expires.
    pub expires: Option<Timestamp>,
}

impl FactNow {
    pub const UNKNOWN: Self = Self { state: FactState::Unknown, observed_at: None, expires: None };
}

impl Sources {
    pub fn new(sources: &[Source]) -> Self {
        Self(sources.iter().map(|source| (source.name.as_str().into(), super::condition::signed(source.ttl))).collect())
    }

    /// When an observation ends: the earlier of its own expiry and observed time plus its source's ttl. `None`: its source is not believed.
    fn end(&self, observation: &Observation) -> Option<Timestamp> {
        let (_, ttl) = self.0.iter().find(|(name, _)| **name == *observation.source)?;
        let end = after(observation.observed_at, *ttl);
        Some(observation.expires_at.map_or(end, |own| own.min(end)))
    }

    /// Whether an observation is believed and unexpired.
    pub fn counts(&self, observation: &Observation, now: Timestamp) -> bool {
        self.end(observation).is_some_and(|end| now < end)
    }

    /// Among unexpired observations fail beats ok; none is unknown.
    pub fn fact_now(&self, fact: &Fact, now: Timestamp) -> FactNow {
        let mut result = FactNow::UNKNOWN;
        for observation in &fact.observations {
            let Some(end) = self.end(observation).filter(|end| now < *end) else { continue };
            result.expires = Some(result.expires.map_or(end, |earliest| earliest.min(end)));
            let state = if observation.ok { FactState::Ok } else { FactState::Fail };
            if result.state == state {
                result.observed_at = result.observed_at.max(Some(observation.observed_at));
            } else if result.state != FactState::Fail {
                result.state = state;
                result.observed_at = Some(observation.observed_at);
            }
        }
        result
    }

    /// The source that is believed longest.
    pub fn longest(&self) -> Option<&str> {
        self.0.iter().max_by_key(|(_, ttl)| *ttl).map(|(name, _)| &**name)
    }

    /// When any fact was last observed by a source that is believed, expired or not.
    pub fn newest(&self, device: &Device) -> Option<Timestamp> {
        let observations = device.posture.iter().flat_map(|fact| &fact.observations);
        observations.filter(|observation| self.end(observation).is_some()).map(|observation| observation.observed_at).max()
    }
}

/// Never beyond the end of time.
pub fn after(start: Timestamp, duration: SignedDuration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Never negative: a clock that was set back, or a source whose clock is ahead, makes an age of zero.
pub fn age(since: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(since).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{at, observed};
    use super::*;

    fn sources() -> Sources {
        let source = |name: &str, hours: u64| Source { name: name.to_owned(), ttl: Duration::from_secs(hours * 3600) };
        Sources::new(&[source("mdm", 24), source("manual", 720), source("forever", u64::MAX / 3600)])
    }

    fn fact(observations: Vec<Observation>) -> Fact {
        Fact { name: "disk_encrypted".to_owned(), observations }
    }

    #[test]
    fn a_fact_expires_at_the_earlier_of_its_own_expiry_and_observed_time_plus_the_sources_ttl() {
        let hour = 3600;
        let by_ttl = fact(vec![observed("mdm", true, 0)]);
        let by_own = fact(vec![Observation { expires_at: Some(at(hour)), ..observed("mdm", true, 0) }]);
        let own_is_later = fact(vec![Observation { expires_at: Some(at(99 * hour)), ..observed("mdm", true, 0) }]);
        for (fact, end) in [(by_ttl, 24 * hour), (by_own, hour), (own_is_later, 24 * hour)] {
            let before = sources().fact_now(&fact, at(end - 1));
            assert_eq!((before.state, before.expires), (FactState::Ok, Some(at(end))));
            assert_eq!(sources().fact_now(&fact, at(end)).state, FactState::Unknown, "an expired fact is unknown");
        }
        assert_eq!(sources().fact_now(&fact(vec![observed("forever", true, 0)]), at(1 << 36)).state, FactState::Ok);
    }

    #[test]
    fn among_unexpired_sources_fail_beats_ok() {
        for observations in
            [vec![observed("mdm", true, 10), observed("manual", false, 5)], vec![observed("manual", false, 5), observed("mdm", true, 10)]]
        {
            let now = sources().fact_now(&fact(observations), at(20));
            assert_eq!((now.state, now.observed_at), (FactState::Fail, Some(at(5))));
        }
        // An expired failure no longer beats a fresh ok.
        let healed = fact(vec![observed("mdm", false, 0), observed("manual", true, 5)]);
        assert_eq!(sources().fact_now(&healed, at(25 * 3600)).state, FactState::Ok);
    }

    #[test]
    fn the_age_is_since_the_newest_observation_that_gives_the_state() {
        let both = fact(vec![observed("manual", true, 5), observed("mdm", true, 10), observed("forever", true, 7)]);
        assert_eq!(sources().fact_now(&both, at(20)).observed_at, Some(at(10)));
        assert_eq!(age(at(30), at(20)), SignedDuration::ZERO, "an age is never negative");
    }

    #[test]
    fn a_source_that_is_not_listed_is_never_believed() {
        let rumour = fact(vec![observed("rumour", true, 10), observed("mdm", false, 5)]);
        assert_eq!(sources().fact_now(&rumour, at(20)).state, FactState::Fail);
        assert_eq!(sources().fact_now(&fact(vec![observed("rumour", true, 10)]), at(20)).state, FactState::Unknown);
    }
}
