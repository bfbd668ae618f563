//! A whole workflow as a graph: admission before anything is submitted (unknown names, cycles), the order to submit it in, bounds on
//! its makespan, and export to DOT. The scheduler itself never walks a graph: it counts.

use std::fmt::Write as _;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

/// Tasks by name, with an edge from each task to those that wait for it.
#[derive(Clone, Debug, Default)]
pub struct Workflow {
    graph: DiGraph<Box<str>, ()>,
    by_name: HashMap<Box<str>, NodeIndex, FixedState>,
}

/// Why a workflow can not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowError {
    /// Two tasks of one name.
    #[error("two tasks are called '{0}'")]
    Repeated(Box<str>),
    /// An edge to a task that is not there.
    #[error("'{task}' depends on '{missing}', which is not a task of this workflow")]
    Missing {
        /// The task with the dependency.
        task: Box<str>,
        /// The name that nobody has.
        missing: Box<str>,
    },
    /// Tasks that wait for each other.
    #[error("a cycle of dependencies goes through '{0}'")]
    Cycle(Box<str>),
}

impl Workflow {
    /// Builds a workflow of (name, names it depends on).
    ///
    /// # Errors
    /// If a name is repeated or missing, or dependencies form a cycle. O(tasks + edges).
    pub fn new<'a>(tasks: impl IntoIterator<Item = (&'a str, &'a [&'a str])> + Clone) -> Result<Workflow, WorkflowError> {
        let mut workflow = Workflow::default();
        for (name, _) in tasks.clone() {
            let node = workflow.graph.add_node(name.into());
            if workflow.by_name.insert(name.into(), node).is_some() {
                return Err(WorkflowError::Repeated(name.into()));
            }
        }
        for (name, dependencies) in tasks {
            for &dependency in dependencies {
                let Some(&from) = workflow.by_name.get(dependency) else {
                    return Err(WorkflowError::Missing { task: name.into(), missing: dependency.into() });
                };
                workflow.graph.add_edge(from, workflow.by_name[name], ());
            }
        }
        match petgraph::algo::toposort(&workflow.graph, None) {
            Ok(_) => Ok(workflow),
            Err(cycle) => Err(WorkflowError::Cycle(workflow.graph[cycle.node_id()].clone())),
        }
    }

    /// Number of tasks.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there are no tasks.
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

    /// Number of dependencies.
    pub fn edge_count(&self) -> usize {
        self.graph.edge_count()
    }

    fn topological(&self) -> Vec<NodeIndex> {
        // Acyclic since `new`, so the error case can not arise.
        petgraph::algo::toposort(&self.graph, None).unwrap_or_default()
    }

    /// The names in an order in which each comes after what it depends on. O(tasks + edges).
    pub fn submission_order(&self) -> Vec<&str> {
        self.topological().into_iter().map(|node| &*self.graph[node]).collect()
    }

    /// The longest path through the graph when each task takes `cost(name)`: no schedule is shorter. O(tasks + edges).
    pub fn critical_path(&self, cost: impl Fn(&str) -> f64) -> f64 {
        let mut bottom = vec![0.0_f64; self.graph.node_count()];
        for node in self.topological().into_iter().rev() {
            let below = self.graph.neighbors_directed(node, Direction::Outgoing).map(|next| bottom[next.index()]);
            bottom[node.index()] = cost(&self.graph[node]) + below.fold(0.0, f64::max);
        }
        bottom.into_iter().fold(0.0, f64::max)
    }

    /// The larger of the critical path and the work divided among `engines`: a lower bound of every makespan on them.
    pub fn makespan_bound(&self, engines: usize, cost: impl Fn(&str) -> f64) -> f64 {
        let work: f64 = self.graph.node_weights().map(|name| cost(name)).sum();
        self.critical_path(&cost).max(work / engines.max(1) as f64)
    }

    /// The graph in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph workflow {\n");
        for node in self.graph.node_indices() {
            let _ = writeln!(dot, "    {} [label={:?}];", node.index(), &*self.graph[node]);
        }
        for edge in self.graph.edge_indices() {
            if let Some((from, to)) = self.graph.edge_endpoints(edge) {
                let _ = writeln!(dot, "    {} -> {};", from.index(), to.index());
            }
        }
        dot + "}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //    a(1)
    //   /    \
    // b(5)   c(1)
    //   \    /
    //    d(2)
    fn diamond() -> Workflow {
        let tasks: [(&str, &[&str]); 4] = [("d", &["b", "c"]), ("b", &["a"]), ("c", &["a"]), ("a", &[])];
        Workflow::new(tasks).unwrap()
    }

    #[test]
    fn bounds_and_order_follow_the_edges() {
        let costs = |name: &str| match name {
            "b" => 5.0,
            "d" => 2.0,
            _ => 1.0,
        };
        let graph = diamond();
        assert_eq!((graph.len(), graph.edge_count()), (4, 4));
        assert_eq!(graph.critical_path(costs), 8.0);
        assert_eq!(graph.makespan_bound(1, costs), 9.0);
        let order = graph.submission_order();
        assert!(order[0] == "a" && order[3] == "d");
        assert!(graph.to_dot().contains("3 -> 1;"));
    }

    #[test]
    fn what_can_not_run_is_refused_by_name() {
        let cycle: [(&str, &[&str]); 2] = [("a", &["b"]), ("b", &["a"])];
        assert!(matches!(Workflow::new(cycle), Err(WorkflowError::Cycle(_))));
        let own: [(&str, &[&str]); 1] = [("a", &["a"])];
        assert_eq!(Workflow::new(own).unwrap_err(), WorkflowError::Cycle("a".into()));
        let missing: [(&str, &[&str]); 1] = [("a", &["z"])];
        assert!(Workflow::new(missing).unwrap_err().to_string().contains("'z'"));
        let twice: [(&str, &[&str]); 2] = [("a", &[]), ("a", &[])];
        assert_eq!(Workflow::new(twice).unwrap_err(), WorkflowError::Repeated("a".into()));
    }
}
