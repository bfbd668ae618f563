//! What a run has taught: how long each class of tasks takes and varies, how large its results are, how fast each engine is.
//! It outlives changes of policy, is bounded in memory, and follows from the outcomes alone.

use std::sync::LazyLock;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::{EngineIx, Needs, TaskView, Time};

/// The most classes that are remembered; beyond it, those not seen for longest go.
const MAX_CLASSES: usize = 65_536;
/// Weight of a new observation once there are enough of them; before, each counts the same.
const NEW_WEIGHT: f64 = 0.1;
/// No engine is taken for more than a hundred times faster or slower than the mean, in logarithms.
const MAX_LOG_SPEED: f64 = 4.6;
/// How far one observation may be from what is known of an engine, in logarithms: a factor of twenty.
const MAX_SURPRISE: f64 = 3.0;
/// Shorter runs are taken for this long: clocks are no finer.
const LEAST_RUN_S: f64 = 1e-6;

/// A mean that follows what it is shown, with its variance: exponentially weighted after the first ten observations
/// (Finch, Incremental calculation of weighted mean and variance, 2009).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The variance around it.
    pub variance: f64,
    /// How many observations there were.
    pub samples: u64,
    /// When the last was made.
    pub updated: Time,
}

impl Estimate {
    /// Takes in an observation.
    pub fn observe(&mut self, now: Time, value: f64) {
        self.samples += 1;
        let weight = (1.0 / self.samples as f64).max(NEW_WEIGHT);
        let difference = value - self.mean;
        let step = weight * difference;
        self.mean += step;
        self.variance = (1.0 - weight) * (self.variance + difference * step);
        self.updated = now;
    }

    /// How long ago it was last shown anything.
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.updated)
    }
}

/// What is known of a class of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Class {
    /// How long a task of it runs on an engine of ordinary speed, in seconds.
    pub run_s: Estimate,
    /// How large its results are, in bytes.
    pub result_bytes: Estimate,
    /// Mean logarithm of the run time on an engine of ordinary speed: what engines are compared by, since unlike the mean it has no bias.
    log_run: Estimate,
}

#[derive(Clone, Copy, Debug, Default)]
struct Engine {
    /// Up to a constant that all engines share, which is taken off as their mean.
    log_speed: f64,
    samples: u64,
    updated: Time,
}

/// Everything learned so far.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    classes: HashMap<u64, Class, FixedState>,
    overall: Class,
    engines: Vec<Engine>,
    /// Sum and number of the logarithms of known speeds: their mean is what is ordinary.
    log_speeds: (f64, u64),
}

impl Learned {
    fn log_speed(&self, engine: EngineIx) -> f64 {
        let ordinary = if self.log_speeds.1 == 0 { 0.0 } else { self.log_speeds.0 / self.log_speeds.1 as f64 };
        let known = self.engines.get(engine.slot()).filter(|row| row.samples > 0);
        known.map_or(0.0, |row| (row.log_speed - ordinary).clamp(-MAX_LOG_SPEED, MAX_LOG_SPEED))
    }

    /// A successful task: its class, the engine it ran on, how long it ran there, and the size of its result. O(1) amortised.
    pub fn observe(&mut self, now: Time, class: u64, engine: EngineIx, run: Duration, result_bytes: u64) {
        let run_s = run.as_secs_f64().max(LEAST_RUN_S);
        if self.engines.len() <= engine.slot() {
            self.engines.resize(engine.slot() + 1, Engine::default());
        }
        let speed = self.speed(engine);
        self.overall.run_s.observe(now, run_s * speed);
        self.overall.result_bytes.observe(now, result_bytes as f64);
        if class == 0 {
            return;
        }
        if self.classes.len() >= MAX_CLASSES && !self.classes.contains_key(&class) {
            self.forget_half();
        }
        let known = self.classes.get(&class).copied().unwrap_or_default();
        // An engine is compared with the others on classes that are known well enough.
        if known.log_run.samples >= 3 {
            let surprise = (known.log_run.mean - run_s.ln() - self.log_speed(engine)).clamp(-MAX_SURPRISE, MAX_SURPRISE);
            let row = &mut self.engines[engine.slot()];
            if row.samples == 0 {
                // It starts as an ordinary one.
                row.log_speed = if self.log_speeds.1 == 0 { 0.0 } else { self.log_speeds.0 / self.log_speeds.1 as f64 };
                self.log_speeds = (self.log_speeds.0 + row.log_speed, self.log_speeds.1 + 1);
            }
            row.samples += 1;
            row.updated = now;
            let step = surprise * (1.0 / (row.samples as f64 + 2.0)).max(NEW_WEIGHT / 2.0);
            row.log_speed += step;
            self.log_speeds.0 += step;
        }
        let log_speed = self.log_speed(engine);
        let known = self.classes.entry(class).or_default();
        known.log_run.observe(now, run_s.ln() + log_speed);
        known.run_s.observe(now, run_s * log_speed.exp());
        known.result_bytes.observe(now, result_bytes as f64);
    }

    /// Drops the classes that were seen least recently, half of all: O(1) amortised.
    fn forget_half(&mut self) {
        let mut moments: Vec<Time> = self.classes.values().map(|class| class.run_s.updated).collect();
        let middle = moments.len() / 2;
        let (_, &mut median, _) = moments.select_nth_unstable(middle);
        let mut to_drop = middle;
        self.classes.retain(|_, class| {
            let drop = to_drop > 0 && class.run_s.updated <= median;
            to_drop -= usize::from(drop);
            !drop
        });
    }

    /// An engine's slot is another's now.
    pub(crate) fn forget_engine(&mut self, engine: EngineIx) {
        if let Some(row) = self.engines.get_mut(engine.slot()).filter(|row| row.samples > 0) {
            self.log_speeds = (self.log_speeds.0 - row.log_speed, self.log_speeds.1 - 1);
            *row = Engine::default();
        }
    }

    /// What is known of a class; nothing of class 0.
    pub fn class(&self, class: u64) -> Option<&Class> {
        self.classes.get(&class)
    }

    /// What is known of tasks of any class.
    pub fn overall(&self) -> &Class {
        &self.overall
    }

    /// What a policy with these needs sees of it: all or nothing.
    pub(crate) fn shown(&self, needs: Needs) -> &Learned {
        static NOTHING: LazyLock<Learned> = LazyLock::new(Learned::default);
        if needs.intersects(Needs::ESTIMATE.union(Needs::SPEED)) { self } else { &NOTHING }
    }

    /// How many classes are known.
    pub fn class_count(&self) -> usize {
        self.classes.len()
    }

    /// How fast an engine runs tasks, relative to others: 2 is twice as fast as 1, which is also what is assumed of one unknown.
    pub fn speed(&self, engine: EngineIx) -> f64 {
        match self.log_speed(engine) {
            0.0 => 1.0,
            log_speed => log_speed.exp(),
        }
    }

    /// How long ago an engine's speed was last observed, if it ever was.
    pub fn speed_age(&self, engine: EngineIx, now: Time) -> Option<Duration> {
        self.engines.get(engine.slot()).filter(|row| row.samples > 0).map(|row| now.since(row.updated))
    }

    /// How long a task is expected to run on an engine of ordinary speed, in seconds: what its client says, else what its class took,
    /// else what tasks take on average, each as far as the view shows it. `None` if nothing is known.
    pub fn expected_s(&self, task: &TaskView<'_>) -> Option<f64> {
        if let Some(cost_s) = task.hints().cost_s {
            return Some(cost_s);
        }
        let class = self.class(task.class()).map(|class| class.run_s);
        class.or(Some(self.overall.run_s)).filter(|known| known.samples > 0).map(|known| known.mean.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, TaskFacts};

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn ten_observations_give_their_mean_and_variance_and_more_follow() {
        let mut estimate = Estimate::default();
        for value in 1..=10 {
            estimate.observe(Time::ZERO, f64::from(value));
        }
        assert!((estimate.mean - 5.5).abs() < 1e-12 && (estimate.variance - 8.25).abs() < 1e-12, "{estimate:?}");
        for _ in 0..100 {
            estimate.observe(Time::from_ns(9), 2.0);
        }
        assert!((estimate.mean - 2.0).abs() < 1e-3 && estimate.age(Time::from_ns(10)).as_nanos() == 1);
    }

    #[test]
    fn speeds_and_durations_are_told_apart() {
        let mut learned = Learned::default();
        let mut rng = Rng::new(5);
        let speeds = [1.0, 2.0, 0.5, 1.0];
        for n in 0..8_000_u64 {
            let engine = rng.below(4);
            let class = 1 + rng.below(3) as u64;
            learned.observe(Time::from_ns(n), class, EngineIx::new(engine as u32), seconds(class as f64 / speeds[engine]), 100);
        }
        let speed = |n: u32| learned.speed(EngineIx::new(n));
        assert!(
            (speed(1) / speed(0) - 2.0).abs() < 0.1 && (speed(2) / speed(0) - 0.5).abs() < 0.05,
            "{} {} {}",
            speed(0),
            speed(1),
            speed(2)
        );
        let run = |class: u64| learned.class(class).unwrap().run_s.mean;
        assert!((run(3) / run(1) - 3.0).abs() < 0.3, "{} {}", run(1), run(3));
        assert!((run(2) / speed(1) - 1.0).abs() < 0.1, "what a class takes on an engine: {}", run(2) / speed(1));
        assert_eq!(learned.class(1).unwrap().result_bytes.mean, 100.0);
    }

    #[test]
    fn noise_does_not_carry_them_away() {
        let mut learned = Learned::default();
        let mut rng = Rng::new(9);
        let speeds = [1.0, 1.0, 1.0, 4.0];
        let ordinary = 4.0_f64.powf(0.25);
        let (mut mean, mut ratio) = (0.0, 0.0);
        for n in 0..40_000_u64 {
            let engine = rng.below(4);
            let exponential = -(1.0 - rng.unit()).ln();
            learned.observe(Time::from_ns(n), 1, EngineIx::new(engine as u32), seconds(exponential / speeds[engine]), 0);
            if n >= 20_000 {
                mean += learned.class(1).unwrap().run_s.mean / 20_000.0;
                ratio += (learned.speed(EngineIx::new(3)) / learned.speed(EngineIx::new(0))).ln() / 20_000.0;
            }
        }
        assert!((mean * ordinary - 1.0).abs() < 0.2 || (mean / ordinary - 1.0).abs() < 0.2, "{mean}, ordinary {ordinary}");
        assert!((ratio.exp() / 4.0 - 1.0).abs() < 0.25, "{}", ratio.exp());
        // A clock that says nothing, and an engine that leaves.
        learned.observe(Time::ZERO, 1, EngineIx::new(9), Duration::ZERO, 0);
        assert!(learned.speed(EngineIx::new(9)) < 4.0, "{}", learned.speed(EngineIx::new(9)));
        (0..10).for_each(|slot| learned.forget_engine(EngineIx::new(slot)));
        assert!(learned.log_speeds.1 == 0 && learned.log_speeds.0.abs() < 1e-6);
    }

    #[test]
    fn what_a_client_says_goes_before_what_was_learned() {
        let mut learned = Learned::default();
        let mut facts = TaskFacts { class: 5, ..TaskFacts::default() };
        let all = |facts| learned_view(facts);
        fn learned_view(facts: &TaskFacts) -> TaskView<'_> {
            TaskView::new(facts).shown(Needs::all())
        }
        assert_eq!(learned.expected_s(&all(&facts)), None);
        learned.observe(Time::ZERO, 6, EngineIx::new(0), seconds(4.0), 0);
        assert_eq!(learned.expected_s(&learned_view(&facts)), Some(4.0));
        learned.observe(Time::ZERO, 5, EngineIx::new(0), seconds(2.0), 0);
        assert_eq!(learned.expected_s(&learned_view(&facts)), Some(2.0));
        facts.hints.cost_s = Some(1.5);
        assert_eq!(learned.expected_s(&learned_view(&facts)), Some(1.5));
        assert_eq!(learned.expected_s(&TaskView::new(&facts)), Some(3.0), "undeclared, only the average is seen");
    }

    #[test]
    fn memory_is_bounded_whatever_classes_come() {
        let mut learned = Learned::default();
        for class in 1..=200_000 {
            learned.observe(Time::from_ns(class), class, EngineIx::new(0), seconds(1.0), 0);
            assert!(learned.class_count() <= MAX_CLASSES);
        }
        assert!(learned.class(200_000).is_some() && learned.class(1).is_none());
    }
}
