//! Static schedules for engines that differ, with transfers between them: HEFT and CPOP (Topcuoglu, Hariri and Wu, IEEE TPDS 2002) and PEFT
//! (Arabnejad and Barbosa, IEEE TPDS 2014), all with insertion into gaps. They know every time beforehand, as nothing that runs does.

use super::Dag;

/// What a graph costs on some engines.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Seconds of each task on each engine.
    pub exec_s: Vec<Vec<f64>>,
    /// Seconds of each edge of the graph between two different engines; nothing on the same.
    pub comm_s: Vec<f64>,
}

impl Costs {
    /// On engines of these speeds with links of so many bytes a second between each two.
    pub fn of_speeds(dag: &Dag, speeds: &[f64], bytes_per_s: f64) -> Costs {
        let exec_s = (0..dag.len()).map(|task| speeds.iter().map(|speed| dag.work_s(task) / speed).collect()).collect();
        Costs { exec_s, comm_s: dag.edges().iter().map(|edge| edge.bytes / bytes_per_s).collect() }
    }

    fn engines(&self) -> usize {
        self.exec_s.first().map_or(0, Vec::len)
    }

    fn mean_s(&self, task: usize) -> f64 {
        self.exec_s[task].iter().sum::<f64>() / self.engines() as f64
    }
}

/// Where and when a task runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Placed {
    /// Its engine.
    pub engine: usize,
    /// When it begins, in seconds.
    pub start_s: f64,
    /// When it ends, in seconds.
    pub end_s: f64,
}

/// A schedule that grows.
struct Schedule<'a> {
    dag: &'a Dag,
    costs: &'a Costs,
    placed: Vec<Option<Placed>>,
    /// Busy stretches of each engine, in order.
    busy: Vec<Vec<(f64, f64)>>,
}

impl<'a> Schedule<'a> {
    fn new(dag: &'a Dag, costs: &'a Costs) -> Self {
        Schedule { dag, costs, placed: vec![None; dag.len()], busy: vec![Vec::new(); costs.engines()] }
    }

    /// The earliest that a task whose inputs are placed can run on an engine, in the first gap that takes it.
    fn earliest(&self, task: usize, engine: usize) -> Placed {
        let arrives = |&at: &usize| {
            let parent = self.placed[self.dag.edges()[at].from].unwrap_or_default();
            parent.end_s + if parent.engine == engine { 0.0 } else { self.costs.comm_s[at] }
        };
        let ready_s = self.dag.input_edges(task).iter().map(arrives).fold(0.0, f64::max);
        let length_s = self.costs.exec_s[task][engine];
        let mut start_s = ready_s;
        for &(from, to) in &self.busy[engine] {
            if start_s + length_s <= from + 1e-9 {
                break;
            }
            start_s = start_s.max(to);
        }
        Placed { engine, start_s, end_s: start_s + length_s }
    }

    fn place(&mut self, task: usize, placed: Placed) {
        let busy = &mut self.busy[placed.engine];
        let at = busy.partition_point(|&(from, _)| from < placed.start_s);
        busy.insert(at, (placed.start_s, placed.end_s));
        self.placed[task] = Some(placed);
    }

    /// Places a task where `cost` of it is least; the first engine among equals.
    fn place_best(&mut self, task: usize, cost: impl Fn(&Placed) -> f64) {
        let all = (0..self.costs.engines()).map(|engine| self.earliest(task, engine));
        if let Some(best) = all.min_by(|a, b| cost(a).total_cmp(&cost(b))) {
            self.place(task, best);
        }
    }

    fn finish(self) -> Vec<Placed> {
        self.placed.into_iter().map(Option::unwrap_or_default).collect()
    }
}

/// The longest way down from the start of each task, times and transfers averaged over engines.
fn upward_ranks(dag: &Dag, costs: &Costs) -> Vec<f64> {
    let mut ranks = vec![0.0; dag.len()];
    for &task in dag.order().iter().rev() {
        let below = dag.output_edges(task).iter().map(|&at| costs.comm_s[at] + ranks[dag.edges()[at].to]).fold(0.0, f64::max);
        ranks[task] = costs.mean_s(task) + below;
    }
    ranks
}

/// The longest way down to the start of each task.
fn downward_ranks(dag: &Dag, costs: &Costs) -> Vec<f64> {
    let mut ranks = vec![0.0; dag.len()];
    for &task in dag.order() {
        let way = |&at: &usize| {
            let parent = dag.edges()[at].from;
            ranks[parent] + costs.mean_s(parent) + costs.comm_s[at]
        };
        ranks[task] = dag.input_edges(task).iter().map(way).fold(0.0, f64::max);
    }
    ranks
}

/// Gives tasks to `place` so that the one of highest priority among those whose inputs are placed is next; the first in the graph among equals.
fn by_priority(dag: &Dag, priorities: &[f64], mut place: impl FnMut(usize)) {
    let mut missing: Vec<usize> = (0..dag.len()).map(|task| dag.input_edges(task).len()).collect();
    let mut ready: Vec<usize> = (0..dag.len()).filter(|&task| missing[task] == 0).collect();
    while let Some(at) = (0..ready.len()).max_by(|&a, &b| {
        let (a, b) = (ready[a], ready[b]);
        priorities[a].total_cmp(&priorities[b]).then(b.cmp(&a))
    }) {
        let task = ready.swap_remove(at);
        place(task);
        for child in dag.children(task) {
            missing[child] -= 1;
            if missing[child] == 0 {
                ready.push(child);
            }
        }
    }
}

/// Heterogeneous earliest finish time: tasks by upward rank, each where it ends soonest. O(edges * engines + tasks^2).
pub fn heft(dag: &Dag, costs: &Costs) -> Vec<Placed> {
    let mut schedule = Schedule::new(dag, costs);
    by_priority(dag, &upward_ranks(dag, costs), |task| schedule.place_best(task, |placed| placed.end_s));
    schedule.finish()
}

/// Critical path on a processor: the tasks of the longest path go to the one engine that does them soonest, the others as in [`heft`].
pub fn cpop(dag: &Dag, costs: &Costs) -> Vec<Placed> {
    let (up, down) = (upward_ranks(dag, costs), downward_ranks(dag, costs));
    let priorities: Vec<f64> = up.iter().zip(&down).map(|(up, down)| up + down).collect();
    let longest = priorities.iter().copied().fold(0.0, f64::max);
    let is_critical = |task: usize| (priorities[task] - longest).abs() <= 1e-9 * longest.max(1.0);
    let starts = |task: &usize| dag.input_edges(*task).is_empty() && is_critical(*task);
    let mut path = vec![false; dag.len()];
    let mut next = (0..dag.len()).find(starts);
    while let Some(task) = next {
        path[task] = true;
        next = dag.children(task).find(|&child| is_critical(child));
    }
    let on_path = |engine: usize| (0..dag.len()).filter(|&task| path[task]).map(|task| costs.exec_s[task][engine]).sum::<f64>();
    let chosen = (0..costs.engines()).min_by(|&a, &b| on_path(a).total_cmp(&on_path(b))).unwrap_or(0);
    let mut schedule = Schedule::new(dag, costs);
    by_priority(dag, &priorities, |task| {
        if path[task] {
            let placed = schedule.earliest(task, chosen);
            schedule.place(task, placed);
        } else {
            schedule.place_best(task, |placed| placed.end_s);
        }
    });
    schedule.finish()
}

/// Predict earliest finish time: as [`heft`], but an engine is judged by what it leaves to be done behind the task (its optimistic cost table).
pub fn peft(dag: &Dag, costs: &Costs) -> Vec<Placed> {
    let engines = costs.engines();
    let mut table = vec![vec![0.0; engines]; dag.len()];
    for &task in dag.order().iter().rev() {
        for engine in 0..engines {
            let behind = |&at: &usize| {
                let child = dag.edges()[at].to;
                let way = |other: usize| {
                    table[child][other] + costs.exec_s[child][other] + if other == engine { 0.0 } else { costs.comm_s[at] }
                };
                (0..engines).map(way).fold(f64::INFINITY, f64::min)
            };
            table[task][engine] = dag.output_edges(task).iter().map(behind).fold(0.0, f64::max);
        }
    }
    let ranks: Vec<f64> = table.iter().map(|row| row.iter().sum::<f64>() / engines as f64).collect();
    let mut schedule = Schedule::new(dag, costs);
    by_priority(dag, &ranks, |task| schedule.place_best(task, |placed| placed.end_s + table[task][placed.engine]));
    schedule.finish()
}

#[cfg(test)]
mod tests {
    use super::super::Edge;
    use super::*;

    fn example(exec: [[f64; 3]; 10], edges: &[(usize, usize, f64)]) -> (Dag, Costs) {
        let tasks = (1..=10).map(|n| (format!("T{n}"), 1.0)).collect();
        let dag = Dag::new(tasks, edges.iter().map(|&(from, to, bytes)| Edge { from: from - 1, to: to - 1, bytes })).unwrap();
        let comm_s = dag.edges().iter().map(|edge| edge.bytes).collect();
        (dag, Costs { exec_s: exec.iter().map(|row| row.to_vec()).collect(), comm_s })
    }

    fn makespan(schedule: &[Placed]) -> f64 {
        schedule.iter().map(|placed| placed.end_s).fold(0.0, f64::max)
    }

    /// Every task runs once its inputs have arrived, and an engine does one at a time.
    fn check(dag: &Dag, costs: &Costs, schedule: &[Placed]) {
        for (at, edge) in dag.edges().iter().enumerate() {
            let (from, to) = (schedule[edge.from], schedule[edge.to]);
            let arrives = from.end_s + if from.engine == to.engine { 0.0 } else { costs.comm_s[at] };
            assert!(to.start_s >= arrives - 1e-6, "{edge:?}");
        }
        let mut by_engine = schedule.to_vec();
        by_engine.sort_by(|a, b| a.engine.cmp(&b.engine).then(a.start_s.total_cmp(&b.start_s)));
        for pair in by_engine.windows(2) {
            assert!(pair[0].engine != pair[1].engine || pair[0].end_s <= pair[1].start_s + 1e-6);
        }
    }

    #[test]
    fn the_examples_of_the_papers_come_out_as_printed() {
        let (dag, costs) = example(
            [
                [14., 16., 9.],
                [13., 19., 18.],
                [11., 13., 19.],
                [13., 8., 17.],
                [12., 13., 10.],
                [13., 16., 9.],
                [7., 15., 11.],
                [5., 11., 14.],
                [18., 12., 20.],
                [21., 7., 16.],
            ],
            &[
                (1, 2, 18.),
                (1, 3, 12.),
                (1, 4, 9.),
                (1, 5, 11.),
                (1, 6, 14.),
                (2, 8, 19.),
                (2, 9, 16.),
                (3, 7, 23.),
                (4, 8, 27.),
                (4, 9, 23.),
                (5, 9, 13.),
                (6, 8, 15.),
                (7, 10, 17.),
                (8, 10, 11.),
                (9, 10, 13.),
            ],
        );
        assert_eq!((makespan(&heft(&dag, &costs)), makespan(&cpop(&dag, &costs))), (80.0, 86.0));
        check(&dag, &costs, &heft(&dag, &costs));
        check(&dag, &costs, &cpop(&dag, &costs));
        let (dag, costs) = example(
            [
                [22., 21., 36.],
                [22., 18., 18.],
                [32., 27., 43.],
                [7., 10., 4.],
                [29., 27., 35.],
                [26., 17., 24.],
                [14., 25., 30.],
                [29., 23., 36.],
                [15., 21., 8.],
                [13., 16., 33.],
            ],
            &[
                (1, 2, 17.),
                (1, 3, 31.),
                (1, 4, 29.),
                (1, 5, 13.),
                (1, 6, 7.),
                (2, 8, 3.),
                (2, 9, 30.),
                (3, 7, 16.),
                (4, 8, 11.),
                (4, 9, 7.),
                (5, 9, 57.),
                (6, 8, 5.),
                (7, 10, 9.),
                (8, 10, 42.),
                (9, 10, 7.),
            ],
        );
        assert_eq!((makespan(&peft(&dag, &costs)), makespan(&heft(&dag, &costs))), (122.0, 133.0));
        check(&dag, &costs, &peft(&dag, &costs));
    }
}
