//! Which completed records are kept and for how long. Rules only ever speak of completed records: what is pending is never dropped by one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::date::Date;

/// One rule. A record that a rule speaks of is dropped when it exceeds any of the rule's limits; several rules are independent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Speaks only of records that ended so; of all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Time since completion beyond which they are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<f64>,
    /// How many of the newest are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_records: Option<usize>,
    /// How many bytes of the newest are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// With a result.
    Ok,
    /// With an error.
    Error,
    /// Before it ran.
    Aborted,
}

impl Status {
    /// The status that a reply's content names; anything unknown is an error.
    pub fn of(status: Option<&str>) -> Status {
        match status {
            Some("ok") => Status::Ok,
            Some("aborted") => Status::Aborted,
            _ => Status::Error,
        }
    }
}

/// The date by which records age: it never runs ahead of the time that has passed since it was made, so that nothing expires because a
/// clock was set.
#[derive(Clone, Copy, Debug)]
pub struct AgeClock {
    began: Date,
    is_off: bool,
}

impl AgeClock {
    /// How far both clocks may be apart before that is told. Clocks that are kept right by small steps stay within it.
    const TOLERANCE_US: i64 = 60_000_000;

    /// Begins at this date.
    pub fn new(now: Date) -> Self {
        AgeClock { began: now, is_off: false }
    }

    /// The date for ages, of the wall clock's and the time since the beginning; and by how many seconds the wall clock is off, once each time
    /// that it comes to be.
    pub fn read(&mut self, wall: Date, passed: Duration) -> (Date, Option<i64>) {
        let passed_us = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        let steady_us = self.began.as_unix_us().saturating_add(passed_us);
        let off_us = wall.as_unix_us().saturating_sub(steady_us);
        let was_off = std::mem::replace(&mut self.is_off, off_us.saturating_abs() > Self::TOLERANCE_US);
        let step_s = (self.is_off && !was_off).then_some(off_us / 1_000_000);
        // Up to the tolerance it is followed: clocks are slewed, and machines run for years.
        let date = if self.is_off { wall.as_unix_us().min(steady_us) } else { wall.as_unix_us() };
        (Date::from_unix_us(date), step_s)
    }
}

/// A completed record, as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its id.
    pub id: String,
    /// When it completed; nothing if the store holds no readable date, and then it has no age.
    pub completed: Option<Date>,
    /// Bytes of its buffers and values, about.
    pub bytes: u64,
    /// How it ended.
    pub status: Status,
}

impl Retention {
    /// Whether it limits anything.
    pub fn is_empty(&self) -> bool {
        self.max_age_s.is_none() && self.max_records.is_none() && self.max_bytes.is_none()
    }
}

/// The ids that some rule wants dropped, the oldest first. `ended` is newest first. O(records * rules).
pub(super) fn doomed(ended: &[Ended], rules: &[Retention], now: Date, at_most: usize) -> Vec<String> {
    let mut is_doomed = vec![false; ended.len()];
    for rule in rules {
        let (mut count, mut bytes) = (0, 0_u64);
        let of_rule = ended.iter().zip(&mut is_doomed).filter(|(record, _)| rule.status.is_none_or(|s| s == record.status));
        for (record, is_doomed) in of_rule {
            count += 1;
            bytes = bytes.saturating_add(record.bytes);
            let age_us = record.completed.map_or(0, |completed| now.as_unix_us().saturating_sub(completed.as_unix_us()));
            *is_doomed |= rule.max_records.is_some_and(|max| count > max)
                || rule.max_bytes.is_some_and(|max| bytes > max)
                || rule.max_age_s.is_some_and(|max| age_us as f64 > max * 1e6);
        }
    }
    let oldest_first = ended.iter().zip(&is_doomed).rev();
    oldest_first.filter(|(_, doomed)| **doomed).take(at_most).map(|(record, _)| record.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_makes_nothing_older() {
        let at = |s: i64| Date::from_unix_us(1_790_000_000_000_000 + s * 1_000_000);
        let mut clock = AgeClock::new(at(0));
        let mut read = |wall_s: i64, passed_s: u64| {
            let (date, step_s) = clock.read(at(wall_s), Duration::from_secs(passed_s));
            ((date.as_unix_us() - at(0).as_unix_us()) / 1_000_000, step_s)
        };
        assert_eq!(read(10, 10), (10, None));
        assert_eq!(read(75, 20), (75, None), "a small step is followed");
        assert_eq!(read(8_640_000_000, 30), (30, Some(8_639_999_970)), "274 years for some seconds");
        assert_eq!(read(8_640_000_005, 35), (35, None), "told once");
        assert_eq!(read(40, 40), (40, None), "back again");
        assert_eq!(read(-3_600, 50), (-3_600, Some(-3_650)), "what ends by the slower clock must not look older by the other");
        assert_eq!(read(i64::MAX / 2_000_000, 60).0, 60);
    }

    #[test]
    fn each_limit_takes_the_oldest_and_only_those_it_speaks_of() {
        let record =
            |n: i64, status| Ended { id: n.to_string(), completed: Some(Date::from_unix_us(n * 1_000_000)), bytes: 10, status };
        let ended: Vec<Ended> = (0..10).rev().map(|n| record(n, if n % 2 == 0 { Status::Ok } else { Status::Error })).collect();
        let now = Date::from_unix_us(10_000_000);
        let drop = |rules: &[Retention], at_most| doomed(&ended, rules, now, at_most).concat();
        assert_eq!(drop(&[Retention { max_records: Some(7), ..Retention::default() }], 100), "012");
        assert_eq!(drop(&[Retention { max_age_s: Some(6.5), ..Retention::default() }], 100), "0123");
        assert_eq!(drop(&[Retention { max_bytes: Some(79), ..Retention::default() }], 100), "012");
        assert_eq!(drop(&[Retention { max_bytes: Some(0), ..Retention::default() }], 3), "012", "a bounded step");
        let ok_only = Retention { status: Some(Status::Ok), max_records: Some(2), ..Retention::default() };
        let old_errors = Retention { status: Some(Status::Error), max_age_s: Some(8.0), ..Retention::default() };
        assert_eq!(drop(&[ok_only, old_errors], 100), "0124");
        assert_eq!(drop(&[Retention::default()], 100), "");
    }
}
