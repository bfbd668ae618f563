//! Whole graphs that arrive one after the other: every task of a graph is submitted at once, with what it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_policies::{Hints, Rng};
use smallvec::SmallVec;

use super::arrivals::{ArrivalKind, Arrivals};
use super::stream::{Estimate, told};
use crate::lab::graph::Dag;
use crate::lab::world::{Ended, Job, Source};

/// What became of a graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraphEnd {
    /// Which of the graphs it was.
    pub graph: usize,
    /// When it was submitted, in nanoseconds.
    pub at_ns: u64,
    /// When its last task was answered, in nanoseconds.
    pub ended_ns: u64,
    /// Whether every task succeeded.
    pub ok: bool,
}

struct Open {
    graph: usize,
    at_ns: u64,
    left: usize,
    ok: bool,
}

/// Graphs, in turn.
pub struct Graphs {
    dags: Vec<Arc<Dag>>,
    arrivals: Arrivals,
    estimate: Estimate,
    errors: Rng,
    clients: u32,
    /// Graphs yet to be begun, and how many were.
    left: u64,
    begun: u64,
    at_ns: u64,
    /// Where in the order of the present graph the next task stands, and the number of each of its tasks.
    next: usize,
    numbers: Vec<u64>,
    count: u64,
    open: BTreeMap<u64, Open>,
    done: Vec<GraphEnd>,
}

impl Graphs {
    /// So many graphs, those given in turn, at a mean rate a second, from so many clients in turn.
    ///
    /// # Panics
    /// Without a graph.
    pub fn new(
        dags: Vec<Arc<Dag>>,
        arrivals: ArrivalKind,
        rate: f64,
        clients: u32,
        estimate: Estimate,
        graphs: u64,
        seed: u64,
    ) -> Graphs {
        assert!(!dags.is_empty() && dags.iter().all(|dag| !dag.is_empty()), "graphs need tasks");
        let mut arrivals = Arrivals::new(arrivals, rate, Rng::stream(seed, "arrivals"));
        let at_ns = arrivals.next_ns();
        Graphs {
            dags,
            arrivals,
            estimate,
            errors: Rng::stream(seed, "estimates"),
            clients: clients.max(1),
            left: graphs,
            begun: 0,
            at_ns,
            next: 0,
            numbers: Vec::new(),
            count: 0,
            open: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    /// What became of graphs, in the order in which they ended.
    pub fn ends(&self) -> &[GraphEnd] {
        &self.done
    }
}

impl Source for Graphs {
    fn next_at(&mut self) -> Option<u64> {
        (self.left > 0).then_some(self.at_ns)
    }

    fn take(&mut self) -> Job {
        let graph = (self.begun % self.dags.len() as u64) as usize;
        let dag = self.dags[graph].clone();
        if self.next == 0 {
            self.numbers = vec![0; dag.len()];
            self.open.insert(self.count, Open { graph, at_ns: self.at_ns, left: dag.len(), ok: true });
        }
        let task = dag.order()[self.next];
        self.numbers[task] = self.count;
        self.count += 1;
        let mut hints = Hints::default();
        hints.cost_s = told(self.estimate, dag.work_s(task), &mut self.errors);
        let after: SmallVec<[u64; 2]> = dag.parents(task).map(|parent| self.numbers[parent]).collect();
        // What a result weighs is what its largest reader takes of it.
        let result_bytes = dag.outputs(task).map(|edge| edge.bytes).fold(0.0, f64::max) as u64;
        let job = Job {
            at_ns: self.at_ns,
            work_ns: (dag.work_s(task) * 1e9).round() as u64,
            class: 0,
            client: 1 + (self.begun % u64::from(self.clients)) as u32,
            hints,
            label: None,
            after,
            result_bytes,
        };
        self.next += 1;
        if self.next == dag.len() {
            self.next = 0;
            self.begun += 1;
            self.left -= 1;
            self.at_ns = self.arrivals.next_ns();
        }
        job
    }

    fn ended(&mut self, ended: &Ended) {
        let Some((&first, open)) = self.open.range_mut(..=ended.number).next_back() else { return };
        open.left -= 1;
        open.ok &= ended.ok;
        if open.left == 0 {
            self.done.push(GraphEnd { graph: open.graph, at_ns: open.at_ns, ended_ns: ended.ended_ns, ok: open.ok });
            self.open.remove(&first);
        }
    }
}
