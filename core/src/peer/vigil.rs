//! When a controller that has stopped pinging is given up, by ipyparallel's rule: looks at fixed intervals, and so many in a row that
//! saw no ping. Counting looks and not time, an engine that was stopped itself never takes its own absence for its controller's.

use std::time::Duration;

/// How much longer than the pings' period an engine waits between looks, as ipyparallel's engines do.
const SLACK: Duration = Duration::from_millis(500);

/// What an engine has seen of its controller's pings.
#[derive(Debug)]
pub(super) struct Vigil {
    interval: Duration,
    /// 0 for however many.
    max_misses: u32,
    misses: u32,
    pinged: bool,
    look_at: Duration,
}

impl Vigil {
    /// From now on, for a controller that pings once a period.
    pub(super) fn new(now: Duration, period: Duration, max_misses: u32) -> Self {
        let interval = period.saturating_add(SLACK);
        // The first look finds nothing missing, whenever the first ping comes.
        Vigil { interval, max_misses, misses: 0, pinged: true, look_at: now.saturating_add(interval) }
    }

    /// A ping has come.
    pub(super) fn pinged(&mut self) {
        self.pinged = true;
    }

    /// How long until the next look; nothing if there is none.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        (self.max_misses > 0).then(|| self.look_at.saturating_sub(now))
    }

    /// Looks, if it is time to. Whether the controller is given up.
    pub(super) fn look(&mut self, now: Duration) -> bool {
        if self.max_misses == 0 || now < self.look_at {
            return false;
        }
        // However late it is, this is one look.
        self.look_at = now.saturating_add(self.interval);
        self.misses = if std::mem::take(&mut self.pinged) { 0 } else { self.misses + 1 };
        self.misses >= self.max_misses
    }

    /// Looks in a row without a ping, and the time between two.
    pub(super) fn misses(&self) -> (u32, Duration) {
        (self.misses, self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When an engine gives up that looks every `step_ms`, with its last ping at `pinged_ms`.
    fn given_up_ms(period_ms: u64, max_misses: u32, pinged_ms: u64, step_ms: u64) -> Option<u64> {
        let ms = Duration::from_millis;
        let mut vigil = Vigil::new(ms(0), ms(period_ms), max_misses);
        (0..20_000_000 / step_ms).map(|step| step * step_ms).find(|&at| {
            if at == pinged_ms {
                vigil.pinged();
            }
            vigil.look(ms(at))
        })
    }

    /// ipyparallel 9.2: `_hb_monitor` every `hb_period + 500` ms, at most 50 misses in a row; a ping within an interval makes the look at
    /// its end none.
    #[test]
    fn a_controller_is_given_up_when_ipyparallels_engines_give_it_up_and_no_sooner() {
        for (period_ms, max_misses, pinged_ms, expected_ms) in
            [(500, 50, 4_500, 55_000), (3000, 50, 100, 51 * 3500), (200, 50, 0, 51 * 700), (500, 1, 1_500, 3_000)]
        {
            assert_eq!(given_up_ms(period_ms, max_misses, pinged_ms, 100), Some(expected_ms), "{period_ms} {max_misses}");
        }
        assert_eq!(given_up_ms(500, 0, 0, 100), None);
    }

    #[test]
    fn an_engine_that_was_stopped_itself_looks_once_for_all_that_it_slept() {
        let mut vigil = Vigil::new(Duration::ZERO, Duration::from_millis(500), 50);
        assert!(!vigil.look(Duration::from_secs(3600)) && !vigil.look(Duration::from_secs(7200)));
        assert_eq!(vigil.misses().0, 1);
        vigil.pinged();
        assert!(!vigil.look(Duration::from_secs(9000)));
        assert_eq!(vigil.misses().0, 0);
    }
}
