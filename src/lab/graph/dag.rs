//! Tasks, how long they take, and which results go where.

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

/// A result that one task makes and another needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The task that makes it.
    pub from: usize,
    /// The task that needs it.
    pub to: usize,
    /// Its size, in bytes.
    pub bytes: f64,
}

/// A graph of tasks without cycles.
#[derive(Clone, Debug, PartialEq)]
pub struct Dag {
    names: Vec<String>,
    work_s: Vec<f64>,
    edges: Vec<Edge>,
    /// Indices of edges into each task, and out of it.
    into: Vec<Vec<usize>>,
    out_of: Vec<Vec<usize>>,
    /// Every task behind those that it needs, and otherwise as given.
    order: Vec<usize>,
}

/// Why there is no graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DagError {
    /// A task that waits for itself in the end.
    #[error("task '{0}' waits for itself, by way of others")]
    Cycle(String),
    /// An edge from or to nowhere.
    #[error("task '{0}' names '{1}', which there is not")]
    Unknown(String, String),
    /// A time that is none.
    #[error("task '{0}' takes {1} s: it must be 0 or more")]
    BadTime(String, f64),
    /// Two tasks of one name.
    #[error("there are two tasks '{0}'")]
    Twice(String),
    /// Not what the format says.
    #[error("{0}")]
    Format(String),
}

impl Dag {
    /// Tasks with names and times in seconds, and edges between them. Several edges between the same two are added up. O(tasks + edges).
    ///
    /// # Errors
    /// If a time is negative, not finite or not a number, an edge leads nowhere, or there is a cycle.
    pub fn new(tasks: Vec<(String, f64)>, edges: impl IntoIterator<Item = Edge>) -> Result<Dag, DagError> {
        let count = tasks.len();
        for (name, work_s) in &tasks {
            if !(work_s.is_finite() && *work_s >= 0.0) {
                return Err(DagError::BadTime(name.clone(), *work_s));
            }
        }
        let mut graph: DiGraph<(), f64> = DiGraph::with_capacity(count, 0);
        (0..count).for_each(|_| {
            graph.add_node(());
        });
        let node = |index: usize| NodeIndex::new(index);
        for edge in edges {
            if edge.from >= count || edge.to >= count {
                let name = tasks.get(edge.to).or(tasks.get(edge.from)).map_or(String::new(), |task| task.0.clone());
                return Err(DagError::Unknown(name, format!("number {}", edge.from.max(edge.to))));
            }
            match graph.find_edge(node(edge.from), node(edge.to)) {
                Some(known) => graph[known] += edge.bytes,
                None => drop(graph.add_edge(node(edge.from), node(edge.to), edge.bytes)),
            }
        }
        toposort(&graph, None).map_err(|cycle| DagError::Cycle(tasks[cycle.node_id().index()].0.clone()))?;
        let edges: Vec<Edge> = graph
            .edge_indices()
            .filter_map(|at| {
                graph.edge_endpoints(at).map(|(from, to)| Edge { from: from.index(), to: to.index(), bytes: graph[at] })
            })
            .collect();
        let (mut into, mut out_of) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        for (at, edge) in edges.iter().enumerate() {
            into[edge.to].push(at);
            out_of[edge.from].push(at);
        }
        let (names, work_s) = tasks.into_iter().unzip();
        let mut dag = Dag { names, work_s, edges, into, out_of, order: Vec::new() };
        dag.order = dag.order_as_given();
        Ok(dag)
    }

    /// The order in which the first of all tasks that lack nothing comes next: that given, as far as it can be kept.
    fn order_as_given(&self) -> Vec<usize> {
        let mut missing: Vec<usize> = self.into.iter().map(Vec::len).collect();
        let first = missing.iter().enumerate().filter(|(_, missing)| **missing == 0).map(|(task, _)| std::cmp::Reverse(task));
        let mut ready: std::collections::BinaryHeap<_> = first.collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(std::cmp::Reverse(task)) = ready.pop() {
            order.push(task);
            for child in self.children(task) {
                missing[child] -= 1;
                if missing[child] == 0 {
                    ready.push(std::cmp::Reverse(child));
                }
            }
        }
        order
    }

    /// How many tasks.
    pub fn len(&self) -> usize {
        self.work_s.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.work_s.is_empty()
    }

    /// A task's name.
    pub fn name(&self, task: usize) -> &str {
        &self.names[task]
    }

    /// How long a task takes on an engine of speed 1, in seconds.
    pub fn work_s(&self, task: usize) -> f64 {
        self.work_s[task]
    }

    /// All edges.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Edges into a task.
    pub fn inputs(&self, task: usize) -> impl Iterator<Item = &Edge> {
        self.into[task].iter().map(|&at| &self.edges[at])
    }

    /// Edges out of a task.
    pub fn outputs(&self, task: usize) -> impl Iterator<Item = &Edge> {
        self.out_of[task].iter().map(|&at| &self.edges[at])
    }

    /// Indices of edges into a task.
    pub(super) fn input_edges(&self, task: usize) -> &[usize] {
        &self.into[task]
    }

    /// Indices of edges out of a task.
    pub(super) fn output_edges(&self, task: usize) -> &[usize] {
        &self.out_of[task]
    }

    /// Tasks that a task needs.
    pub fn parents(&self, task: usize) -> impl Iterator<Item = usize> {
        self.inputs(task).map(|edge| edge.from)
    }

    /// Tasks that need a task.
    pub fn children(&self, task: usize) -> impl Iterator<Item = usize> {
        self.outputs(task).map(|edge| edge.to)
    }

    /// The tasks, each behind those that it needs, and otherwise in the order in which they were given.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Work of all tasks, in seconds.
    pub fn total_s(&self) -> f64 {
        self.work_s.iter().sum()
    }

    /// For each task the longest path from its start to the end of the graph, in seconds, its own time included (bottom level). O(tasks + edges).
    pub fn bottom_levels_s(&self) -> Vec<f64> {
        let mut levels = vec![0.0; self.len()];
        for &task in self.order.iter().rev() {
            let below = self.children(task).map(|child| levels[child]).fold(0.0, f64::max);
            levels[task] = self.work_s[task] + below;
        }
        levels
    }

    /// The longest path, in seconds.
    pub fn critical_path_s(&self) -> f64 {
        self.bottom_levels_s().into_iter().fold(0.0, f64::max)
    }

    /// No schedule on these speeds is shorter, in seconds: neither than the longest path on the fastest engine, nor than all work on all of
    /// them.
    pub fn lower_bound_s(&self, speeds: &[f64]) -> f64 {
        let fastest = speeds.iter().copied().fold(0.0, f64::max);
        (self.critical_path_s() / fastest).max(self.total_s() / speeds.iter().sum::<f64>())
    }

    /// The number of tasks on the longest path, and the most tasks of one distance from the start.
    pub fn depth_and_width(&self) -> (usize, usize) {
        let mut depths = vec![0_usize; self.len()];
        for &task in &self.order {
            depths[task] = self.parents(task).map(|parent| depths[parent] + 1).max().unwrap_or(0);
        }
        let mut counts = vec![0; depths.iter().max().map_or(0, |most| most + 1)];
        depths.iter().for_each(|&depth| counts[depth] += 1);
        (counts.len(), counts.into_iter().max().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: usize, to: usize) -> Edge {
        Edge { from, to, bytes: 1.0 }
    }

    fn tasks(times: &[f64]) -> Vec<(String, f64)> {
        times.iter().enumerate().map(|(n, &time)| (format!("t{n}"), time)).collect()
    }

    #[test]
    fn a_graph_knows_its_paths() {
        let dag = Dag::new(tasks(&[1.0, 2.0, 3.0, 4.0]), [edge(2, 0), edge(0, 1), edge(2, 1), edge(2, 1)]).unwrap();
        assert_eq!(dag.order(), [2, 0, 1, 3]);
        assert_eq!(dag.bottom_levels_s(), [3.0, 2.0, 6.0, 4.0]);
        assert_eq!((dag.critical_path_s(), dag.lower_bound_s(&[1.0]), dag.lower_bound_s(&[2.0, 2.0])), (6.0, 10.0, 3.0));
        assert_eq!(dag.depth_and_width(), (3, 2));
        assert_eq!(dag.inputs(1).map(|edge| edge.bytes).sum::<f64>(), 3.0);
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        assert!(Dag::new(tasks(&[1.0, 1.0]), [edge(0, 1), edge(1, 0)]).unwrap_err().to_string().contains("waits for itself"));
        assert!(matches!(Dag::new(tasks(&[f64::NAN]), []), Err(DagError::BadTime(..))));
        assert!(matches!(Dag::new(tasks(&[-1.0]), []), Err(DagError::BadTime(..))));
        assert!(matches!(Dag::new(tasks(&[1.0]), [edge(0, 7)]), Err(DagError::Unknown(..))));
    }
}
