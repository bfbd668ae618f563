//! All runs of an experiment: which are needed, in which order they are made, and what is kept of them. What is there already is not made again, and
//! the same experiment gives the same results on one thread or many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use pointsman_policies::Rng;
use rayon::prelude::*;

use super::point::Point;
use super::prepared::{Cost, Prepared};
use super::run::{Outcome, run_point};
use super::store::{Detail, Row, Store};
use crate::lab::measure::METRICS;

/// How runs of an experiment are made.
#[derive(Clone, Copy)]
pub enum How<'h> {
    /// In virtual time, on as many threads as there are.
    Simulated,
    /// By somebody else who takes a point and a seed, one after the other, as they would disturb each other; references, which are no programs that
    /// could run, are left out.
    OneByOne(&'h (dyn Fn(&Point, u64) -> anyhow::Result<Outcome> + Sync)),
}

impl How<'_> {
    fn leaves_out(self, point: &Point) -> bool {
        matches!(self, How::OneByOne(_)) && point.reference().is_some()
    }
}

/// How far an experiment is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Runs that are finished, found ones among them.
    pub finished: u64,
    /// Runs that are known to be needed.
    pub needed: u64,
    /// What the runs made so far came to, and what all that are to be made come to: runs differ by orders of magnitude.
    pub done: Cost,
    /// See [`done`](Self::done).
    pub all: Cost,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Runs that were made.
    pub made: u64,
    /// Runs that were there.
    pub found: u64,
    /// Decisions that policies made in those that were made: tasks sent to engines, each attempt counted.
    pub decisions: u64,
}

/// The seed of a replication: the same for all points, so that they are compared on the same tasks.
fn seed_of(seed: u64, replication: u32) -> u64 {
    Rng::stream(seed, &format!("replication {replication}")).next_u64()
}

/// How many runs are needed, as far as is known, and which of them are not in the store: point and replication.
fn missing(prepared: &Prepared<'_>, store: &Store, how: How<'_>) -> (u64, Vec<(usize, u32)>) {
    let points = prepared.experiment.points();
    let of_point = |at: usize| {
        let needed = if how.leaves_out(&points[at]) { 0 } else { store.needed(prepared.experiment, at) };
        (0..needed).map(move |replication| (at, replication))
    };
    let needed: Vec<(usize, u32)> = (0..points.len()).flat_map(of_point).collect();
    (needed.len() as u64, needed.into_iter().filter(|&(at, replication)| !store.has(at, replication)).collect())
}

fn sum(prepared: &Prepared<'_>, runs: &[(usize, u32)]) -> Cost {
    runs.iter().fold(Cost::default(), |sum, &(at, _)| sum + prepared.cost(at))
}

/// How many runs are to be made, as far as is known before, and what they come to together.
pub fn outstanding(prepared: &Prepared<'_>, store: &Store, how: How<'_>) -> (u64, Cost) {
    let (_, runs) = missing(prepared, store, how);
    (runs.len() as u64, sum(prepared, &runs))
}

/// Runs what is not yet in the store: every point as often as the experiment says, and more often where the precision asked for is not reached. `stop`
/// ends it after the runs under way; what is finished is kept. `progress` hears how far it is.
///
/// # Errors
/// If a run fails, naming its point, or the store can not be written; if it was stopped, with what is kept.
pub fn run_experiment(
    prepared: &Prepared<'_>,
    store: &mut Store,
    how: How<'_>,
    stop: &AtomicBool,
    progress: &(impl Fn(Progress) + Sync),
) -> anyhow::Result<Ran> {
    let experiment = prepared.experiment;
    let (decisions, mut made, mut done) = (AtomicU64::new(0), 0_u64, Cost::default());
    loop {
        let (needed, missing) = missing(prepared, store, how);
        let found = needed.saturating_sub(missing.len() as u64 + made);
        if missing.is_empty() {
            store.finish(experiment)?;
            return Ok(Ran { made, found, decisions: decisions.into_inner() });
        }
        let all = done + sum(prepared, &missing);
        progress(Progress { finished: found + made, needed, done, all });
        let kept = Mutex::new((&mut *store, &mut made, &mut done));
        let run = |&(at, replication): &(usize, u32)| {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let (point, seed) = (&experiment.points()[at], seed_of(experiment.seed, replication));
            let outcome = match how {
                How::OneByOne(run) => run(point, seed),
                How::Simulated => run_point(point, prepared.registry, experiment.folder(), seed),
            };
            let outcome = outcome.with_context(|| format!("point {} ({})", at + 1, experiment.describe(at)))?;
            decisions.fetch_add(outcome.totals.counters.dispatched, Ordering::Relaxed);
            let figures = METRICS.iter().map(|metric| (metric.of)(&outcome.measures)).collect();
            let detail = (replication == 0).then(|| Detail::of(at, point, &outcome));
            // A thread that died has left whole rows.
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.0.keep(Row { point: at, replication, figures }, detail)?;
            *kept.1 += 1;
            *kept.2 = *kept.2 + prepared.cost(at);
            progress(Progress { finished: found + *kept.1, needed, done: *kept.2, all });
            Ok(())
        };
        let outcome = match how {
            How::OneByOne(_) => missing.iter().try_for_each(run),
            How::Simulated => missing.par_iter().try_for_each(run),
        };
        // Who is interrupted takes down what it has started, so that a run under way may end with any error.
        if outcome.is_err() && stop.load(Ordering::Relaxed) {
            bail!(
                "interrupted: {} of {needed} runs are kept in {}, and the same command goes on",
                found + made,
                store.folder().display()
            );
        }
        outcome?;
    }
}
