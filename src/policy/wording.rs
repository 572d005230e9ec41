//! Comparisons in words, as a person would write them in YAML.

use std::fmt::Display;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::Weekday;

use super::Policy;
use super::condition::{Leaf, Words};
use super::draft::{ClaimField, Compare, DeviceField, KeyProof, Version};
use super::glob::Pattern;
use super::tables::Tables;
use super::wire::WireTest;
use crate::model::FactState;

pub fn signal(leaf: &Leaf, tables: &Tables) -> String {
    let fact = |id: &super::condition::FactId| tables.facts.get(id.0 as usize).map_or("", |name| &**name);
    match leaf {
        Leaf::Class(_) => "class".to_owned(),
        Leaf::Tier(_) => "tier".to_owned(),
        Leaf::Device(field, _) => device_signal(*field),
        Leaf::Key(_) => "device.key".to_owned(),
        Leaf::Fact(id, _) => format!("posture.{}", fact(id)),
        Leaf::FactAge(id, _) => format!("posture.{}.age", fact(id)),
        Leaf::PostureAge(_) => "posture.age".to_owned(),
        Leaf::KnownFor(_) => "device.known_for".to_owned(),
        Leaf::OsVersion(_) => "device.os_version".to_owned(),
        Leaf::Wire(test) => test.field.as_str().to_owned(),
        Leaf::Claim(ClaimField::Os, _) => "claims.os".to_owned(),
        Leaf::Claim(ClaimField::Browser, _) => "claims.browser".to_owned(),
        Leaf::Claim(ClaimField::FormFactor, _) => "claims.form_factor".to_owned(),
        Leaf::Peer(_) => "net.peer".to_owned(),
        Leaf::Zone(_) => "net.zone".to_owned(),
        Leaf::Method(_) => "http.method".to_owned(),
        Leaf::Path(_) => "http.path".to_owned(),
        Leaf::Host(_) => "http.host".to_owned(),
        Leaf::Weekday(_) => "time.weekday".to_owned(),
        Leaf::Hour(_) => "time.hour".to_owned(),
        Leaf::Header(id, _) => format!("http.header.{}", tables.headers.get(id.0 as usize).map_or("", |name| name.as_str())),
    }
}

pub fn device_signal(field: DeviceField) -> String {
    let name = match field {
        DeviceField::Id => "id",
        DeviceField::Name => "name",
        DeviceField::Ownership => "ownership",
        DeviceField::OnNet => "onnet",
        DeviceField::State => "state",
        DeviceField::User => "user",
        DeviceField::Team => "team",
        DeviceField::Os => "os",
        DeviceField::Model => "model",
        DeviceField::Tags => "tags",
    };
    format!("device.{name}")
}

pub const fn key(proof: KeyProof) -> &'static str {
    match proof {
        KeyProof::None => "none",
        KeyProof::Browser => "browser",
        KeyProof::Certificate => "certificate",
    }
}

pub fn wanted(leaf: &Leaf, policy: &Policy) -> String {
    match leaf {
        Leaf::Class(classes) => or(classes.iter().map(|class| policy.class_name(*class))),
        Leaf::Tier(range) => compared(range.written.iter().map(|(compare, tier)| (*compare, policy.tier_name(*tier)))),
        Leaf::Device(_, words) | Leaf::Wire(WireTest { words, .. }) | Leaf::Claim(_, words) | Leaf::Header(_, words) => match words {
            Words::Text(patterns) => globs(patterns),
            Words::Any => "any".to_owned(),
            Words::None => "none".to_owned(),
        },
        Leaf::Key(proofs) => or(proofs.iter().map(|proof| key(*proof))),
        Leaf::Fact(_, states) => or(FactState::ALL.into_iter().filter(|state| states.holds(*state)).map(FactState::as_str)),
        Leaf::FactAge(_, ages) | Leaf::PostureAge(ages) | Leaf::KnownFor(ages) => {
            compared(ages.iter().map(|(compare, age): &(Compare, SignedDuration)| (*compare, duration(age.unsigned_abs()))))
        }
        Leaf::OsVersion(versions) => compared(versions.iter().map(|(compare, version)| (*compare, dotted(version)))),
        Leaf::Peer(ranges) => or(ranges.iter()),
        Leaf::Zone(zones) => or(zones.iter().map(|zone| zone.map_or("none", |zone| policy.zone_name(zone)))),
        Leaf::Method(methods) => or(methods.iter().map(Pattern::as_str)),
        Leaf::Path(patterns) | Leaf::Host(patterns) => globs(patterns),
        Leaf::Weekday(days) => or(days.iter().map(|day| weekday(*day))),
        Leaf::Hour(wanted) => compared(wanted.iter().copied()),
    }
}

/// As `time.weekday` names it.
pub const fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    }
}

/// Each of them with its word, from Monday on.
pub fn weekdays() -> impl Iterator<Item = (&'static str, Weekday)> + Clone {
    Weekday::Monday.cycle_forward().take(7).map(|day| (weekday(day), day))
}

fn or(alternatives: impl Iterator<Item = impl Display>) -> String {
    let words: Vec<String> = alternatives.map(|word| word.to_string()).collect();
    words.join(" or ")
}

fn globs(patterns: &[Pattern]) -> String {
    or(patterns.iter().map(Pattern::as_str))
}

/// `>= 9 < 17`; a single `=` is left out.
fn compared(comparisons: impl Iterator<Item = (Compare, impl Display)>) -> String {
    let words = comparisons.map(|(compare, value)| match compare {
        Compare::Equal => value.to_string(),
        compare => format!("{} {value}", compare.as_str()),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn dotted(version: &Version) -> String {
    version.0.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// In the two greatest units that say something: `3d 4h`, `90s` as `1m 30s`; below a second in milliseconds.
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds == 0 {
        return if length.subsec_millis() == 0 { "0s".to_owned() } else { format!("{}ms", length.subsec_millis()) };
    }
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts.iter().skip(first).take(2).filter(|(count, _)| *count > 0);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_short() {
        for (seconds, words) in [(0, "0s"), (59, "59s"), (90, "1m 30s"), (3600, "1h"), (86_400, "1d"), (97_263, "1d 3h"), (3605, "1h")] {
            assert_eq!(duration(Duration::from_secs(seconds)), words);
        }
        assert_eq!(duration(Duration::from_millis(250)), "250ms");
    }
}
