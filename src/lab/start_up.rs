//! How long the start of a run is felt: a queue that begins empty is shorter than it will be, and a mean over too little of what follows is too low. From
//! how long values stay alike (Geyer's initial positive sequence, Statistical Science 1992) comes what the start may weigh. Memory is fixed.

use serde::{Deserialize, Serialize};

/// So many means of stretches are kept; twice as long ones when there are more. A memory that is not much longer than a stretch comes out too
/// long: no shorter than half of one, which is then a small share of the whole.
const MOST: usize = 8192;

/// So many times its memory a series must be long for that to be known.
const KNOWN_FROM: f64 = 50.0;

/// The start of a run beside the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartUp {
    /// For how many tasks values stay alike: the start is a third of what it was after so many.
    pub memory_tasks: f64,
    /// What share of a mean the start may make up, as it was measured: with what was left out as warm-up.
    pub share: f64,
}

/// Values in the order in which they came, as means of equal stretches.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    means: Vec<f64>,
    /// Values in a stretch.
    length: u64,
    sum: f64,
    count: u64,
    total: u64,
}

impl Series {
    pub(super) fn push(&mut self, value: f64) {
        self.length = self.length.max(1);
        self.total += 1;
        self.sum += value;
        self.count += 1;
        if self.count == self.length {
            self.means.push(self.sum / self.length as f64);
            (self.sum, self.count) = (0.0, 0);
        }
        if self.means.len() == MOST {
            self.means = self.means.chunks_exact(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
            self.length *= 2;
        }
    }

    /// What the start weighs in the values here, before which so many were left out. Nothing can be said of very few.
    pub(super) fn start_up(&self, left_out: u64) -> Option<StartUp> {
        let count = self.means.len();
        if count < 20 {
            return None;
        }
        let mean = self.means.iter().sum::<f64>() / count as f64;
        let covariance = |lag: usize| {
            let pairs = self.means.iter().zip(&self.means[lag..]);
            pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / count as f64
        };
        let variance = covariance(0);
        if variance <= 1e-18 * mean * mean {
            return Some(StartUp { memory_tasks: 0.0, share: 0.0 });
        }
        // Sums of two neighbours are positive in theory: where they are no longer, there is only noise.
        let mut both_sides = -1.0;
        for lag in (0..count - 1).step_by(2) {
            let pair = (covariance(lag) + covariance(lag + 1)) / variance;
            if pair <= 0.0 {
                break;
            }
            both_sides += 2.0 * pair;
        }
        // Of what fades exponentially, that sum is twice the time in which it fades.
        let memory_tasks = (both_sides.max(1.0) * self.length as f64 / 2.0).min(self.total as f64);
        // In a series of fewer memories it comes out too short itself (Sokal's rule of thumb), and what a warm-up leaves of the start can not be told.
        let is_known = self.total as f64 > KNOWN_FROM * memory_tasks;
        let left = if is_known { (-(left_out as f64) / memory_tasks).exp() } else { 1.0 };
        Some(StartUp { memory_tasks, share: (memory_tasks * left / self.total as f64).min(1.0) })
    }
}

#[cfg(test)]
mod tests {
    use pointsman_policies::Rng;

    use super::*;

    /// An autoregressive series of this memory.
    fn series(memory: f64, count: usize, seed: u64) -> Series {
        let (mut rng, mut value, keep) = (Rng::new(seed), 0.0, (-1.0 / memory).exp());
        let mut series = Series::default();
        for _ in 0..count {
            value = keep * value + rng.unit() - 0.5;
            series.push(10.0 + value);
        }
        series
    }

    #[test]
    fn memory_is_found_and_the_start_weighs_what_it_leaves() {
        for (memory, count) in [(20.0, 20_000), (100.0, 100_000), (500.0, 500_000)] {
            let found: f64 = (1..=8).map(|seed| series(memory, count, seed).start_up(0).unwrap().memory_tasks).sum::<f64>() / 8.0;
            assert!((0.7..1.4).contains(&(found / memory)), "{found}, not {memory}");
        }
        let shares = [0, 500].map(|left_out| series(100.0, 20_000, 3).start_up(left_out).unwrap().share);
        assert!(shares[0] > 0.002 && shares[1] < shares[0] / 20.0, "{shares:?}");
        let shares = [0, 1500].map(|left_out| series(500.0, 3000, 3).start_up(left_out).unwrap().share);
        assert!(shares[0] > 0.02 && shares[0] == shares[1], "too short to tell: {shares:?}");
        assert!(series(5.0, 100_000, 3).start_up(0).unwrap().share < 0.001);
        assert!(Series::default().start_up(0).is_none());
        let mut equal = Series::default();
        (0..5000).for_each(|_| equal.push(3.0));
        assert_eq!(equal.start_up(0), Some(StartUp { memory_tasks: 0.0, share: 0.0 }));
    }
}
