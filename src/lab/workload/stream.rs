//! An open stream of independent tasks of one or several kinds.

use std::sync::Arc;

use pointsman_policies::{Hints, Rng};
use rand_distr::{Distribution as _, StandardNormal};

use super::arrivals::{ArrivalKind, Arrivals};
use crate::lab::draw::Dist;
use crate::lab::world::{Job, Source};

/// A kind of task.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// How much of the stream it is, beside the others.
    pub weight: f64,
    /// How long its tasks take on an engine of speed 1, in seconds.
    pub size: Dist,
    /// Which function they call, as policies see it; 0 for unknown.
    pub class: u64,
    /// Who sends them.
    pub client: u32,
    /// What their labels say; a cost only if no estimate says one.
    pub hints: Hints,
    /// The label itself, if there is one.
    pub label: Option<Arc<str>>,
}

impl Kind {
    /// The only kind, of this size.
    pub fn of(size: Dist) -> Kind {
        Kind { weight: 1.0, size, class: 0, client: 0, hints: Hints::default(), label: None }
    }
}

/// What labels say of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Estimate {
    /// Nothing.
    #[default]
    None,
    /// The size.
    Exact,
    /// The size times the exponential of a normal with this standard deviation.
    Noisy(f64),
}

/// Kinds of tasks of which each is drawn by its weight.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    kinds: Vec<Kind>,
    /// Weights added up.
    up_to: Vec<f64>,
}

impl Mix {
    /// # Panics
    /// Without a kind.
    pub(super) fn new(kinds: Vec<Kind>) -> Mix {
        assert!(!kinds.is_empty(), "there must be a kind of tasks");
        let sum = |sum: &mut f64, kind: &Kind| {
            *sum += kind.weight;
            Some(*sum)
        };
        Mix { up_to: kinds.iter().scan(0.0, sum).collect(), kinds }
    }

    /// A kind; nothing is drawn where there is only one.
    pub(super) fn draw(&self, rng: &mut Rng) -> &Kind {
        let at = match self.kinds.len() {
            1 => 0,
            count => {
                let lot = rng.unit() * self.up_to[count - 1];
                self.up_to.partition_point(|&sum| sum <= lot).min(count - 1)
            }
        };
        &self.kinds[at]
    }
}

/// A stream of so many tasks.
#[derive(Debug)]
pub struct Stream {
    arrivals: Arrivals,
    mix: Mix,
    estimate: Estimate,
    sizes: Rng,
    choices: Rng,
    errors: Rng,
    left: u64,
    next_ns: u64,
}

impl Stream {
    /// So many tasks at a mean rate a second. The same seed gives the same tasks.
    ///
    /// # Panics
    /// Without a kind.
    pub fn new(arrivals: ArrivalKind, rate: f64, kinds: Vec<Kind>, estimate: Estimate, tasks: u64, seed: u64) -> Stream {
        let mut arrivals = Arrivals::new(arrivals, rate, Rng::stream(seed, "arrivals"));
        let next_ns = arrivals.next_ns();
        Stream {
            arrivals,
            mix: Mix::new(kinds),
            estimate,
            sizes: Rng::stream(seed, "sizes"),
            choices: Rng::stream(seed, "kinds"),
            errors: Rng::stream(seed, "estimates"),
            left: tasks,
            next_ns,
        }
    }

    /// Mean work of a task of these kinds, in seconds.
    pub fn mean_size_s(kinds: &[Kind]) -> f64 {
        let weight: f64 = kinds.iter().map(|kind| kind.weight).sum();
        kinds.iter().map(|kind| kind.weight * kind.size.mean()).sum::<f64>() / weight
    }
}

/// The label's cost of a task of this size.
pub(super) fn told(estimate: Estimate, size_s: f64, rng: &mut Rng) -> Option<f64> {
    match estimate {
        Estimate::None => None,
        Estimate::Exact => Some(size_s),
        Estimate::Noisy(deviation) => {
            let normal: f64 = StandardNormal.sample(rng.as_rand());
            Some(size_s * (normal * deviation).exp())
        }
    }
}

impl Source for Stream {
    fn next_at(&mut self) -> Option<u64> {
        (self.left > 0).then_some(self.next_ns)
    }

    fn take(&mut self) -> Job {
        let at_ns = self.next_ns;
        self.left = self.left.saturating_sub(1);
        self.next_ns = self.arrivals.next_ns();
        let kind = self.mix.draw(&mut self.choices);
        let size_s = kind.size.draw(&mut self.sizes);
        let mut hints = kind.hints;
        hints.cost_s = told(self.estimate, size_s, &mut self.errors).or(hints.cost_s);
        Job {
            at_ns,
            work_ns: ((size_s * 1e9) as u64).max(1),
            class: kind.class,
            client: kind.client,
            hints,
            label: kind.label.clone(),
            after: smallvec::SmallVec::new(),
            result_bytes: 0,
        }
    }
}
