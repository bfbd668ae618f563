//! List schedules on identical engines: whenever one is free, the ready task that is first in a list begins there (Graham 1966).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::Dag;

/// What makes a task come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Its place in the graph.
    Fifo,
    /// The longest path behind it.
    CriticalPath,
    /// It takes longest.
    Longest,
    /// It takes least.
    Shortest,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 4] = [Rule::Fifo, Rule::CriticalPath, Rule::Longest, Rule::Shortest];

    /// The place of each task in this rule's list: less is sooner; ties by place in the graph.
    pub fn keys(self, dag: &Dag) -> Vec<f64> {
        match self {
            Rule::Fifo => (0..dag.len()).map(|task| task as f64).collect(),
            Rule::CriticalPath => dag.bottom_levels_s().into_iter().map(|level| -level).collect(),
            Rule::Longest => (0..dag.len()).map(|task| -dag.work_s(task)).collect(),
            Rule::Shortest => (0..dag.len()).map(|task| dag.work_s(task)).collect(),
        }
    }
}

/// A number that is one.
#[derive(Clone, Copy, PartialEq)]
struct Finite(f64);

impl Eq for Finite {}

impl PartialOrd for Finite {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Finite {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The makespan in seconds of the list schedule of a rule. O((tasks + edges) log tasks).
pub fn list_schedule(dag: &Dag, engines: usize, rule: Rule) -> f64 {
    list_schedule_by(dag, engines, &rule.keys(dag))
}

/// The same for a list of its own: the task with the least key is first.
pub fn list_schedule_by(dag: &Dag, engines: usize, keys: &[f64]) -> f64 {
    let mut missing: Vec<usize> = (0..dag.len()).map(|task| dag.input_edges(task).len()).collect();
    let entry = |task: usize| Reverse((Finite(keys[task]), task));
    let mut ready: BinaryHeap<_> = (0..dag.len()).filter(|&task| missing[task] == 0).map(entry).collect();
    let mut running: BinaryHeap<Reverse<(Finite, usize)>> = BinaryHeap::new();
    let mut now = 0.0;
    loop {
        while running.len() < engines.max(1)
            && let Some(Reverse((_, task))) = ready.pop()
        {
            running.push(Reverse((Finite(now + dag.work_s(task)), task)));
        }
        let Some(&Reverse((Finite(at), _))) = running.peek() else { return now };
        now = at;
        // All that end at this moment have ended before anything begins.
        while let Some(&Reverse((Finite(end), task))) = running.peek()
            && end <= now
        {
            running.pop();
            for child in dag.children(task) {
                missing[child] -= 1;
                if missing[child] == 0 {
                    ready.push(entry(child));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Edge;
    use super::*;

    /// Graham's anomalies (SIAM J. Appl. Math. 1969): more engines, shorter tasks, fewer edges and another list, each of them worse.
    #[test]
    fn less_work_can_take_longer() {
        let graph = |times: [f64; 9], edges: &[(usize, usize)]| {
            let tasks = times.iter().enumerate().map(|(n, &time)| (format!("T{}", n + 1), time)).collect();
            Dag::new(tasks, edges.iter().map(|&(from, to)| Edge { from: from - 1, to: to - 1, bytes: 0.0 })).unwrap()
        };
        let times = [3.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 9.0];
        let edges = [(1, 9), (4, 5), (4, 6), (4, 7), (4, 8)];
        let dag = graph(times, &edges);
        assert_eq!(list_schedule(&dag, 3, Rule::Fifo), 12.0);
        assert_eq!(list_schedule(&dag, 4, Rule::Fifo), 15.0);
        assert_eq!(list_schedule(&graph(times.map(|time| time - 1.0), &edges), 3, Rule::Fifo), 13.0);
        assert_eq!(list_schedule(&graph(times, &[(1, 9), (4, 7), (4, 8)]), 3, Rule::Fifo), 16.0);
        // T1, T2, T4, T5, T6, T3, T9, T7, T8.
        let places = [0.0, 1.0, 5.0, 2.0, 3.0, 4.0, 7.0, 8.0, 6.0];
        assert_eq!(list_schedule_by(&dag, 3, &places), 14.0);
    }
}
