//! The one place that reads clocks.
#![allow(clippy::disallowed_methods, reason = "drivers read the clock so that machines need not")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::date::Date;

/// Monotonic time since its creation, and wall-clock dates.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { origin: Instant::now() }
    }
}

impl Clock {
    /// Time since this clock was made. Never goes back.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The date by the wall clock.
    pub fn date() -> Date {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Date::from_unix_us(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}
