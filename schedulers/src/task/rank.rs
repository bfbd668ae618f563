//! Where the order policy meets the queues: what a policy is shown of a task, its rank, and what it is told as tasks wait, are sent and end.

use pointsman_policies::{Input, Needs, OrderCx, Rank, Scheme, TaskFacts, TaskView, Ticket, Time};
use slotmap::SlotMap;
use smallvec::SmallVec;

use super::TaskKey;
use super::machine::TaskScheduler;
use super::queue::{Entry, Standing, standing};
use super::state::{State, Task};

/// Result sizes are remembered as powers of two of this many bytes.
const SIZE_UNIT: u64 = 64;

/// The class of a result's size: 0 for nothing, else one more than the power of two of [`SIZE_UNIT`].
pub(super) fn size_class(bytes: u64) -> u8 {
    (u64::BITS - (bytes / SIZE_UNIT).leading_zeros()).min(31) as u8
}

/// About how many bytes a class stands for.
pub(super) fn class_bytes(class: u8) -> u64 {
    if class == 0 { 0 } else { SIZE_UNIT << (class - 1) }
}

pub(super) type Inputs = SmallVec<[Input; 4]>;

/// Whether an entry of a queue belongs to its task's present stay.
pub(super) fn is_alive<P>(tasks: &SlotMap<TaskKey, Box<Task<P>>>, entry: &Entry) -> bool {
    tasks.get(entry.task).is_some_and(|task| task.epoch == entry.epoch)
}

impl<P> Task<P> {
    /// The task as policies see it; what each is shown is up to its needs.
    pub(super) fn view<'a>(&self, facts: &'a TaskFacts, inputs: &'a [Input]) -> TaskView<'a> {
        TaskView::new(facts)
            .with_inputs(inputs)
            .at(self.submitted, self.ready_since)
            .numbered(self.seq, self.rest.release)
            .in_graph(self.rest.level_s, self.rest.sketch.as_ref().map_or(0.0, |sketch| sketch.count()))
    }

    /// The same without its inputs, showing what these needs name.
    pub(super) fn shown<'a>(&self, facts: &'a TaskFacts, needs: Needs) -> TaskView<'a> {
        self.view(facts, &[]).shown(needs)
    }

    pub(super) fn entry(&self, key: TaskKey) -> Entry {
        Entry { key: self.rank.key, seq: self.seq, task: key, epoch: self.epoch }
    }
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Where the results are that a task depends on, as far as their engines are there; nothing if these needs do not ask.
    pub(super) fn inputs(&self, key: TaskKey, needs: Needs) -> Inputs {
        if !needs.contains(Needs::INPUTS) {
            return Inputs::new();
        }
        let held = |&(id, class)| Some(Input { engine: self.engines.up_ix(id)?, bytes: class_bytes(class) });
        self.tasks[key].rest.inputs.iter().filter_map(held).collect()
    }

    /// Asks the order where a task stands.
    pub(super) fn ask_rank(&mut self, now: Time, key: TaskKey) -> Rank {
        let inputs = self.inputs(key, self.order_needs);
        let task = &self.tasks[key];
        let facts = task.facts.open();
        let view = task.view(&facts, &inputs).shown(self.order_needs);
        self.order.rank(&OrderCx::new(now, self.placement.learned()), &view)
    }

    pub(super) fn standing(&self, key: TaskKey) -> Standing {
        let task = &self.tasks[key];
        standing(self.order.tag(task.rank.lane), task.rank, task.seq)
    }

    /// Tells the order that a task waits.
    pub(super) fn tell_waiting(&mut self, now: Time, lane: u64) {
        self.waiting += 1;
        self.order.on_wait(&OrderCx::new(now, self.placement.learned()), lane);
    }

    /// Tells the order that a task no longer waits and was not sent.
    pub(super) fn tell_withdrawn(&mut self, now: Time, lane: u64) {
        self.waiting -= 1;
        self.order.on_withdraw(&OrderCx::new(now, self.placement.learned()), lane);
    }

    /// Tells the order that a task was sent.
    pub(super) fn tell_dispatched(&mut self, now: Time, key: TaskKey) -> Ticket {
        self.waiting -= 1;
        let task = &self.tasks[key];
        let cx = OrderCx::new(now, self.placement.learned());
        self.order.on_dispatch(&cx, task.rank.lane, &task.shown(&task.facts.open(), self.order_needs))
    }

    /// What a waiting task is ranked by has changed: its entry moves.
    pub(super) fn rank_again(&mut self, now: Time, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        let before = task.rank;
        if !task.state.is_waiting_for_engine() {
            return;
        }
        let rank = self.ask_rank(now, key);
        if rank == before {
            return;
        }
        if rank.lane != before.lane {
            self.tell_withdrawn(now, before.lane);
            self.tell_waiting(now, rank.lane);
        }
        if self.tasks[key].state == State::SetAside {
            self.tasks[key].rank = rank; // it is in no queue
            return;
        }
        self.leave_queues(key);
        self.tasks[key].rank = rank;
        self.enter_queues(key);
    }

    /// Puts a waiting task into the queues that its state names.
    pub(super) fn enter_queues(&mut self, key: TaskKey) {
        let task = &self.tasks[key];
        match task.state {
            State::Ready => {
                let tag = self.order.tag(task.rank.lane);
                self.ready.push(task.rank, tag, task.entry(key));
            }
            State::Parked => {
                for engine in task.allowed(self.soft_follow) {
                    self.park_on(key, engine);
                }
            }
            State::TurnedAway(turn) => {
                self.turned_away.insert(turn, key);
            }
            State::SetAside | State::Blocked | State::Running => {}
        }
    }

    /// Takes a waiting task out of all queues; its entries there are dead from now on.
    pub(super) fn leave_queues(&mut self, key: TaskKey) {
        let task = &mut self.tasks[key];
        task.epoch += 1;
        let (state, lane) = (task.state, task.rank.lane);
        let tasks = &self.tasks;
        let alive = |entry: &Entry| is_alive(tasks, entry);
        match state {
            State::Ready => self.ready.died(lane, alive),
            State::Parked => {
                for engine in tasks[key].allowed(self.soft_follow) {
                    if self.engines.is_up(engine)
                        && let Some(parked) = &mut self.engines.get_mut(engine).parked
                    {
                        parked.died(lane, alive);
                    }
                }
            }
            State::TurnedAway(turn) => {
                self.turned_away.remove(&turn);
            }
            State::SetAside => self.set_aside.retain(|(other, _)| *other != key),
            State::Blocked | State::Running => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_kept_to_within_a_factor_of_two() {
        for bytes in [64, 65, 127, 128, 1000, 1 << 20, (1 << 30) + 7] {
            let kept = class_bytes(size_class(bytes));
            assert!(kept <= bytes && bytes < 2 * kept, "{bytes}: {kept}");
        }
        assert_eq!((class_bytes(size_class(0)), size_class(u64::MAX)), (0, 31));
    }
}
