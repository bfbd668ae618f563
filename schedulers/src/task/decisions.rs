//! The decision log: of each decision which candidates the scheme considered, what it judged them by, what it chose, and what that cost.
//! Off unless asked for; bounded, so that the oldest give way.

use std::collections::VecDeque;

use pointsman_policies::{Stopwatch, Time};
use serde_json::{Value, json};

/// The most candidates noted of one decision.
pub(super) const MAX_CONSIDERED: usize = 32;

/// One decision of the scheme.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Its number, counted from 1.
    pub number: u64,
    /// When it was made.
    pub at: Time,
    /// The task's id.
    pub task: Box<str>,
    /// Which dispatch of the task it was for.
    pub attempt: u32,
    /// How many tasks waited, this one among them.
    pub waiting: usize,
    /// How many engines were open.
    pub open: usize,
    /// To what the task was limited: `any`, `only` some, or all `except` some; and how many those are.
    pub limit: (&'static str, usize),
    /// Candidates that the scheme says it looked at, by the numbers of their engines, and what it judged them by; 32 at most.
    pub considered: Vec<(u64, f64)>,
    /// The engine's number; nothing if the task was put off.
    pub chosen: Option<u64>,
    /// What the decision took, in nanoseconds; 0 without a stopwatch.
    pub cost_ns: u64,
}

impl Decision {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let considered: Vec<Value> = self.considered.iter().map(|&(engine, key)| json!({"engine": engine, "key": key})).collect();
        json!({
            "number": self.number, "at_s": self.at.as_ns() as f64 / 1e9, "task": self.task, "attempt": self.attempt,
            "waiting": self.waiting, "open": self.open, "limit": self.limit.0, "limit_count": self.limit.1,
            "considered": considered, "chosen": self.chosen, "cost_ns": self.cost_ns,
        })
    }

    /// In words.
    pub(super) fn to_words(&self) -> String {
        let looked: Vec<String> = self.considered.iter().map(|(engine, key)| format!("{engine} ({key})")).collect();
        let limit = match self.limit {
            ("any", _) => String::new(),
            (limit, count) => format!(", limited to {limit} {count},"),
        };
        let chosen = self.chosen.map_or("put it off".to_owned(), |engine| format!("chose engine {engine}"));
        format!("of {} open engines{limit} the scheme looked at {} and {chosen}", self.open, looked.join(", "))
    }
}

/// The last decisions.
#[derive(Debug, Default)]
pub(super) struct DecisionLog {
    keep: usize,
    kept: VecDeque<Decision>,
    count: u64,
    pub(super) stopwatch: Option<Stopwatch>,
}

impl DecisionLog {
    pub(super) fn is_on(&self) -> bool {
        self.keep > 0
    }

    pub(super) fn add(&mut self, mut decision: Decision) {
        self.count += 1;
        decision.number = self.count;
        if self.kept.len() == self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back(decision);
    }

    /// The last one for a task. O(kept).
    pub(super) fn last_of(&self, id: &str) -> Option<&Decision> {
        self.kept.iter().rev().find(|decision| &*decision.task == id)
    }

    pub(super) fn set(&mut self, keep: usize, stopwatch: Option<Stopwatch>) {
        (self.keep, self.stopwatch) = (keep, stopwatch);
        while self.kept.len() > keep {
            self.kept.pop_front();
        }
    }

    /// Those made after the one of that number, as far as they are kept.
    pub(super) fn since(&self, number: u64) -> impl Iterator<Item = &Decision> {
        let fresh = (self.count - number.min(self.count)) as usize;
        self.kept.iter().skip(self.kept.len().saturating_sub(fresh))
    }
}
