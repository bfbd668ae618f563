//! Which completed records are kept and for how long. Rules only ever speak of completed records: what is pending is never dropped by one.

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
