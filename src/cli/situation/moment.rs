//! `time.now`, `time.weekday` and `time.hour`: the moment that an explanation is about.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit, ZonedRound};

use super::one_of;
use crate::cli::failure::Failure;
use crate::policy::weekdays;

/// What was asked of it.
#[derive(Debug, Default)]
pub struct Moment {
    now: Option<Timestamp>,
    weekdays: Option<Vec<Weekday>>,
    hours: Option<Vec<i8>>,
}

impl Moment {
    /// `2026-11-22T08:00:00Z`, or the start of a day.
    pub fn set_now(&mut self, value: &str, zone: &TimeZone) -> Result<(), Failure> {
        let day = || value.parse::<Date>().ok().filter(|_| value.len() == 10)?.to_zoned(zone.clone()).ok();
        let now = day().map(|day| day.timestamp()).or_else(|| value.parse().ok());
        let wrong = || Failure(format!("`{value}` is no moment, such as 2026-11-22 or 2026-11-22T08:00:00Z"));
        self.now = Some(now.ok_or_else(wrong)?);
        Ok(())
    }

    /// `sat`, or several: `sat,sun`.
    pub fn set_weekday(&mut self, value: &str) -> Result<(), Failure> {
        let days: Result<_, Failure> = value.split(',').map(|day| one_of(day.trim(), weekdays())).collect();
        self.weekdays = Some(days?);
        Ok(())
    }

    /// `9`, `8,9`, `>= 8 < 18`.
    pub fn set_hour(&mut self, value: &str) -> Result<(), Failure> {
        let wrong = || Failure(format!("`{value}` is no hour from 0 to 23, such as 9 or `>= 8 < 18`"));
        let number = |text: &str| text.trim().parse::<i8>().ok().filter(|hour| (0..24).contains(hour)).ok_or_else(wrong);
        let mut hours: Vec<i8> = Vec::new();
        if value.contains(['<', '>', '=']) {
            hours.extend(0..24);
            let mut rest = value.trim();
            while !rest.is_empty() {
                let digits = rest.find(|c: char| c.is_ascii_digit()).ok_or_else(wrong)?;
                let (sign, after) = rest.split_at(digits);
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let (than, after) = after.split_at(end);
                let than = number(than)?;
                let holds: fn(&i8, &i8) -> bool = match sign.trim() {
                    "<" => i8::lt,
                    "<=" => i8::le,
                    "=" | "==" => i8::eq,
                    ">=" => i8::ge,
                    ">" => i8::gt,
                    _ => return Err(wrong()),
                };
                hours.retain(|hour| holds(hour, &than));
                rest = after.trim_start();
            }
        } else {
            for hour in value.split(',') {
                hours.push(number(hour)?);
            }
        }
        if hours.is_empty() {
            return Err(wrong());
        }
        self.hours = Some(hours);
        Ok(())
    }

    /// The first moment from then on that is as asked for: at once, or at the start of an hour.
    pub fn settle(&self, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Failure> {
        let mut at = self.now.unwrap_or(now).to_zoned(zone.clone());
        let fits = |at: &jiff::Zoned| {
            self.weekdays.as_ref().is_none_or(|days| days.contains(&at.weekday()))
                && self.hours.as_ref().is_none_or(|hours| hours.contains(&at.hour()))
        };
        let nowhere = || Failure("no such hour comes within a year".to_owned());
        for _ in 0..366 * 24 {
            if fits(&at) {
                return Ok(at.timestamp());
            }
            // Across a change of the clock as well: an hour of time, then the hour's start on the wall.
            let next = at.checked_add(1.hour()).map_err(|_| nowhere())?;
            at = next.round(ZonedRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Trunc)).map_err(|_| nowhere())?;
        }
        Err(nowhere())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_moment_that_matches_is_found_in_the_time_zone() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        // A Sunday, half past eight in Berlin.
        let now: Timestamp = "2026-11-22T07:30:00Z".parse().unwrap();
        for (now_set, weekday, hour, expected) in [
            (None, None, None, "2026-11-22T07:30:00Z"),
            (None, Some("sun"), None, "2026-11-22T07:30:00Z"),
            (None, Some("mon"), None, "2026-11-22T23:00:00Z"),
            (None, Some("sat,mon"), Some("9"), "2026-11-23T08:00:00Z"),
            (None, None, Some(">= 8 < 18"), "2026-11-22T07:30:00Z"),
            (None, None, Some("<8"), "2026-11-22T23:00:00Z"),
            (None, None, Some("8"), "2026-11-22T07:30:00Z"),
            (None, Some("sat"), Some("> 22"), "2026-11-28T22:00:00Z"),
            (Some("2026-12-24"), None, None, "2026-12-23T23:00:00Z"),
            (Some("2026-12-24T10:00:00+02:00"), None, Some("10"), "2026-12-24T09:00:00Z"),
            // The hour that the clock skips comes the day after.
            (Some("2027-03-28"), None, Some("2"), "2027-03-29T00:00:00Z"),
        ] {
            let mut moment = Moment::default();
            now_set.map_or(Ok(()), |text| moment.set_now(text, &berlin)).unwrap();
            weekday.map_or(Ok(()), |text| moment.set_weekday(text)).unwrap();
            hour.map_or(Ok(()), |text| moment.set_hour(text)).unwrap();
            assert_eq!(moment.settle(now, &berlin).unwrap().to_string(), expected, "{now_set:?} {weekday:?} {hour:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in ["24", "-1", "8,", "> 23", "<>8", ">= x", ">=", "8 9", "< 300"] {
            assert!(Moment::default().set_hour(wrong).is_err(), "{wrong}");
        }
        assert!(Moment::default().set_weekday("monday").is_err());
        for wrong in ["2026-02-30", "yesterday", "2026-11-22T08:00:00", ""] {
            assert!(Moment::default().set_now(wrong, &TimeZone::UTC).is_err(), "{wrong}");
        }
    }
}
