//! Texts with a unit or a grammar of their own: durations, sizes, rates, networks, versions, comparisons.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::policy::draft::{Compare, Version};

/// What `duration` reads, for the JSON Schema.
pub const DURATION: &str = "^0*[1-9][0-9]{0,8}(ms|s|m|h|d)$";
/// What `size` reads.
pub const SIZE: &str = "^0*[1-9][0-9]{0,8}(KiB|MiB|GiB)?$";
/// What `rate` reads.
pub const RATE: &str = "^0*[1-9][0-9]{0,8}/(s|m|h|d)$";
/// What `bandwidth` reads.
pub const BANDWIDTH: &str = "^0*[1-9][0-9]{0,8}(KiB|MiB|GiB)?/s$";
/// What `is_date` reads: a day, or a moment of RFC 3339.
pub const DATE: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))?$";
/// What `name` reads.
pub const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

/// `750ms`, `30s`, `5m`, `2h`, `15d`; never zero.
pub fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = counted(text)?;
    Some(match unit {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(count.checked_mul(60)?),
        "h" => Duration::from_secs(count.checked_mul(3600)?),
        "d" => Duration::from_secs(count.checked_mul(86_400)?),
        _ => return None,
    })
}

/// Bytes: `512`, `16KiB`, `1MiB`, `1GiB`; never zero.
pub fn size(text: &str) -> Option<u64> {
    let (count, unit) = counted(text)?;
    match unit {
        "" => Some(count),
        "KiB" => count.checked_mul(1 << 10),
        "MiB" => count.checked_mul(1 << 20),
        "GiB" => count.checked_mul(1 << 30),
        _ => None,
    }
}

/// `60/m`: a count and the time it is for.
pub fn rate(text: &str) -> Option<(u32, Duration)> {
    let (count, unit) = counted(text)?;
    let per = match unit {
        "/s" => 1,
        "/m" => 60,
        "/h" => 3600,
        "/d" => 86_400,
        _ => return None,
    };
    Some((u32::try_from(count).ok()?, Duration::from_secs(per)))
}

/// `1MiB/s`: bytes a second.
pub fn bandwidth(text: &str) -> Option<u64> {
    text.strip_suffix("/s").and_then(size)
}

/// Whether the text has the form of a date; whether there is such a day or moment, `date` says.
pub fn is_date(text: &str) -> bool {
    let digits =
        |text: &str, lengths: std::ops::RangeInclusive<usize>| lengths.contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    let parts = |text: &str, sign: char, lengths: &[usize]| {
        let parts: Vec<&str> = text.split(sign).collect();
        parts.len() == lengths.len() && parts.iter().zip(lengths).all(|(part, length)| digits(part, *length..=*length))
    };
    let Some((day, time)) = text.split_once('T') else { return parts(text, '-', &[4, 2, 2]) };
    let Some(clock) = time.strip_suffix('Z').or_else(|| {
        let (clock, zone) = time.rsplit_once(['+', '-'])?;
        parts(zone, ':', &[2, 2]).then_some(clock)
    }) else {
        return false;
    };
    let (clock, fraction) = clock.split_once('.').map_or((clock, "0"), |(clock, fraction)| (clock, fraction));
    parts(day, '-', &[4, 2, 2]) && parts(clock, ':', &[2, 2, 2]) && digits(fraction, 1..=9)
}

/// Which end of a day a date stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DayEnd {
    /// Its first moment.
    First,
    /// The first moment of the next day.
    Next,
}

/// The moment that a date means. `None`: there is no such day or moment.
pub fn date(text: &str, end: DayEnd, zone: &TimeZone) -> Option<Timestamp> {
    if !is_date(text) {
        return None;
    }
    if text.contains('T') {
        return text.parse().ok();
    }
    let day: Date = text.parse().ok()?;
    let day = if end == DayEnd::Next { day.tomorrow().ok()? } else { day };
    day.to_zoned(zone.clone()).ok().map(|first| first.timestamp())
}

/// Decimal digits that are not all zero and at most nine without leading zeros, and what follows them.
fn counted(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    Some((digits.parse().ok()?, unit))
}

/// Names of things that people define: letters, digits, `_`, `.` and `-`, at most 64, first a letter or digit.
pub fn name(text: &str) -> bool {
    let rest = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    text.len() <= 64 && text.bytes().all(rest) && text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
}

/// An address range: CIDR, or one address. The error says how to write it.
pub fn network(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => {
            let address: IpAddr = text.parse().map_err(|_| "expected a network such as `10.0.0.0/8` or `2001:db8::/32`".to_owned())?;
            IpNet::from(address)
        }
    };
    if net.trunc() != net {
        return Err(format!("expected a network without host bits; did you mean `{}`?", net.trunc()));
    }
    if let IpNet::V6(six) = net
        && six.prefix_len() >= 96
        && let Some(four) = six.network().to_ipv4_mapped()
    {
        // Peers are compared in their canonical form, so this range would never match.
        return Err(format!("expected an IPv4 network; did you mean `{four}/{}`?", six.prefix_len() - 96));
    }
    Ok(net)
}

pub fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// `17.6.1`: numbers between dots.
pub fn version(text: &str) -> Option<Version> {
    let number = |part: &str| part.bytes().all(|c| c.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    text.split('.').map(number).collect::<Option<Vec<u64>>>().map(Version)
}

/// `>= 9 < 17`: comparisons that must all hold; a value alone means equal. Each is an operator and the text compared with.
pub fn comparisons(text: &str) -> Option<Vec<(Compare, &str)>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (compare, after) = operator(rest);
        let after = after.trim_start();
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '=')).unwrap_or(after.len());
        let (value, tail) = after.split_at_checked(end)?;
        // Two bare values in a row would both have to be equal: a list was meant.
        if value.is_empty() || (compare.is_none() && !found.is_empty()) {
            return None;
        }
        found.push((compare.unwrap_or(Compare::Equal), value));
        rest = tail.trim_start();
        // `9 < 17` is no range: the first value has no operator.
        if compare.is_none() && !rest.is_empty() {
            return None;
        }
    }
    (!found.is_empty()).then_some(found)
}

fn operator(text: &str) -> (Option<Compare>, &str) {
    for (sign, compare) in
        [("<=", Compare::AtMost), (">=", Compare::AtLeast), ("<", Compare::Less), (">", Compare::More), ("=", Compare::Equal)]
    {
        if let Some(rest) = text.strip_prefix(sign) {
            return (Some(compare), rest);
        }
    }
    (None, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_are_never_zero() {
        assert_eq!(duration("750ms"), Some(Duration::from_millis(750)));
        assert_eq!(duration("15d"), Some(Duration::from_secs(1_296_000)));
        for bad in ["", "30", "0s", "-1s", "1.5s", "1 s", "1s ", "1w", "s", "9999999999s", "１s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("16KiB"), Some(16_384));
        assert_eq!(size("512"), Some(512));
        for bad in ["1KB", "0", "0MiB", "1 MiB", "mib", "1.5GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn rates_are_a_count_in_a_time() {
        assert_eq!(rate("60/m"), Some((60, Duration::from_secs(60))));
        for bad in ["60", "/m", "0/s", "60/min", "60 /m"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_network_has_no_host_bits_and_is_not_ipv4_in_disguise() {
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert!(network("10.1.2.3/8").unwrap_err().contains("10.0.0.0/8"));
        assert!(network("::ffff:10.0.0.0/104").unwrap_err().contains("10.0.0.0/8"));
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn comparisons_all_hold() {
        assert_eq!(comparisons(">= 9 < 17"), Some(vec![(Compare::AtLeast, "9"), (Compare::Less, "17")]));
        assert_eq!(comparisons(">=9<17"), comparisons(">= 9 < 17"));
        assert_eq!(comparisons("known"), Some(vec![(Compare::Equal, "known")]));
        for bad in ["", ">", ">= ", "9 10", "9 < 17", "=> 9", ">> 9"] {
            assert_eq!(comparisons(bad), None, "{bad}");
        }
    }

    #[test]
    fn versions_are_numbers_between_dots() {
        assert_eq!(version("17.6.1"), Some(Version(vec![17, 6, 1])));
        for bad in ["", "17.", ".1", "17a", "v1", "+1"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_date_is_a_day_of_its_zone_and_a_moment_is_exact() {
        let zone = |name: &str| jiff::tz::TimeZoneDatabase::bundled().get(name).unwrap();
        let berlin = zone("Europe/Berlin");
        let moment = |text: &str, end| date(text, end, &berlin).map(|at| at.to_string());
        assert_eq!(moment("2026-12-31", DayEnd::First).as_deref(), Some("2026-12-30T23:00:00Z"));
        assert_eq!(moment("2026-12-31", DayEnd::Next).as_deref(), Some("2026-12-31T23:00:00Z"));
        assert_eq!(moment("2026-12-31T18:00:00+02:00", DayEnd::Next).as_deref(), Some("2026-12-31T16:00:00Z"));
        // The day on which clocks go forward has 23 hours, and in Beirut it begins at one.
        assert_eq!(moment("2026-03-29", DayEnd::Next).as_deref(), Some("2026-03-29T22:00:00Z"));
        assert_eq!(date("2022-03-27", DayEnd::First, &zone("Asia/Beirut")).unwrap().to_string(), "2022-03-26T22:00:00Z");
        for bad in
            ["2026-02-30", "2026-13-01", "9999-12-31", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00", "2026-1-1", "tomorrow", "20260101"]
        {
            assert_eq!(date(bad, DayEnd::Next, &berlin), None, "{bad}");
        }
    }

    #[test]
    fn the_patterns_of_the_schema_read_what_the_functions_read() {
        let texts =
            ["1s", "0s", "007m", "1000000000s", "999999999d", "5", "5KiB", "0", "5KB", "5/m", "0/m", "5/w", "a", "-a", "a.b_c-d", ""];
        let dates = [
            "2026-12-31",
            "2026-12-31T18:00:00Z",
            "2026-12-31T18:00:00.5+01:00",
            "2026-12-31T18:00:00.1234567890Z",
            "2026-12-31T18:00:00.Z",
            "2026-12-31T18:00Z",
            "2026-12-31T18:00:00-1:00",
            "2026-12-31t18:00:00z",
            "2026-12-31 18:00:00Z",
            "2026-12",
            "1MiB/s",
            "5/s",
            "5KB/s",
            "0/s",
        ];
        for text in texts.into_iter().chain(dates) {
            let matches = |pattern: &str| fancy_regex::Regex::new(pattern).unwrap().is_match(text).unwrap();
            assert_eq!(duration(text).is_some(), matches(DURATION), "{text}");
            assert_eq!(size(text).is_some(), matches(SIZE), "{text}");
            assert_eq!(rate(text).is_some(), matches(RATE), "{text}");
            assert_eq!(name(text), matches(NAME), "{text}");
            assert_eq!(bandwidth(text).is_some(), matches(BANDWIDTH), "{text}");
            assert_eq!(is_date(text), matches(DATE), "{text}");
        }
    }
}
