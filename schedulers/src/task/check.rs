//! The contracts that can be seen from outside an event, verified by walking everything. For tests and debug builds: O(all).

use pointsman_policies::{Candidates, Scheme};

use super::TaskKey;
use super::known::{EngineId, Presence};
use super::machine::TaskScheduler;
use super::state::State;

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Verifies the contracts between events.
    ///
    /// # Errors
    /// Says which contract is broken, by which task or engine.
    pub fn check(&self) -> Result<(), String> {
        self.placement.check()?;
        self.check_engines()?;
        if self.by_id.len() != self.tasks.len() {
            return Err(format!("{} ids for {} tasks", self.by_id.len(), self.tasks.len()));
        }
        let mut bytes = 0;
        for (key, task) in &self.tasks {
            bytes += task.bytes;
            self.check_task(key).map_err(|reason| format!("task {}: {reason}", task.id))?;
        }
        let waiting = self.tasks.values().filter(|task| task.state.is_waiting_for_engine()).count();
        if waiting != self.waiting {
            return Err(format!("{waiting} tasks lack an engine, {} counted", self.waiting));
        }
        if bytes != self.queued_bytes {
            return Err(format!("{bytes} bytes held, {} counted", self.queued_bytes));
        }
        Ok(())
    }

    fn check_engines(&self) -> Result<(), String> {
        let mut up = 0;
        for id in self.engines.ids().map(EngineId) {
            let engine = self.engines.get(id);
            up += usize::from(self.engines.is_up(id));
            let (Presence::Up(ix) | Presence::Dying(ix, _)) = engine.presence else {
                if !engine.running.is_empty() {
                    return Err(format!("engine {}: gone, with tasks running", engine.uuid));
                }
                continue;
            };
            let ghosts = self.ghosts.values().flatten().filter(|ghost| ghost.run.engine == id).count();
            if ghosts != engine.ghosts as usize {
                return Err(format!("engine {}: {ghosts} ghosts, {} counted", engine.uuid, engine.ghosts));
            }
            if self.roster().load(ix) as usize != engine.running.len() + ghosts {
                return Err(format!("engine {}: load {}, {} running", engine.uuid, self.roster().load(ix), engine.running.len()));
            }
            let runs = |&&key: &&TaskKey| {
                self.tasks[key].state == State::Running && self.tasks[key].runs.iter().any(|run| run.engine == id)
            };
            if engine.running.iter().filter(runs).count() != engine.running.len() {
                return Err(format!("engine {}: holds a task that does not run there", engine.uuid));
            }
            if matches!(engine.presence, Presence::Dying(..)) && self.roster().is_open(ix) {
                return Err(format!("engine {}: lost and open", engine.uuid));
            }
        }
        if up == self.engines.up { Ok(()) } else { Err(format!("{up} engines up, {} counted", self.engines.up)) }
    }

    fn check_task(&self, key: TaskKey) -> Result<(), String> {
        let task = &self.tasks[key];
        if self.find(&task.id) != Some(key) {
            return Err("not found by its id".into());
        }
        if self.ledger.get(&task.id) != 0 {
            return Err("live and recorded as ended".into());
        }
        if task.rest.deadline.is_some_and(|at| !self.deadlines.contains(&(at, key))) {
            return Err("its deadline is not watched".into());
        }
        let waits = task.state != State::Running;
        if waits != task.runs.is_empty() {
            return Err(format!("{} runs, state {:?}", task.runs.len(), task.state));
        }
        if waits && task.rest.timeout.is_some() && task.rest.deadline.is_none() {
            return Err("waits without its deadline".into());
        }
        if waits && task.dependencies_met() == (task.state == State::Blocked) {
            return Err(format!("dependencies met: {}, state {:?}", task.dependencies_met(), task.state));
        }
        if waits
            && task.last_failure.is_none()
            && (task.is_bound(self.soft_follow) || task.rest.after.unreachable())
            && self.is_hopeless(task)
        {
            return Err("waits for what can not happen".into());
        }
        let queued = |mut queue: Box<dyn Iterator<Item = &super::queue::Entry> + '_>| {
            queue.any(|entry| entry.task == key && entry.epoch == task.epoch)
        };
        match task.state {
            State::Ready if !queued(Box::new(self.ready.iter())) => return Err("ready and not queued".into()),
            State::Parked => {
                for engine in task.allowed(self.soft_follow) {
                    if self.engines.is_up(engine)
                        && !queued(Box::new(self.engines.get(engine).parked.iter().flat_map(|parked| parked.iter())))
                    {
                        return Err(format!("not parked on {}", self.engines.get(engine).uuid));
                    }
                }
            }
            State::SetAside if self.set_aside.iter().all(|(other, _)| *other != key) => {
                return Err("put off and forgotten".into());
            }
            State::TurnedAway(turn) if self.turned_away.get(&turn) != Some(&key) => return Err("not in the log".into()),
            _ => {}
        }
        let excused = self.paused || !self.set_aside.is_empty();
        if task.state.is_waiting_for_engine() && !excused && self.could_run(key) {
            return Err(format!("waits although an engine that it may use is open: {:?}", task.state));
        }
        Ok(())
    }

    fn could_run(&self, key: TaskKey) -> bool {
        let task = &self.tasks[key];
        let up = |ids: &[EngineId]| ids.iter().filter_map(|&id| self.engines.up_ix(id)).collect::<Vec<_>>();
        match task.state {
            State::Parked => self.placement.any_open(&Candidates::Only(&up(&task.allowed(self.soft_follow)))),
            _ => self.placement.any_open(&Candidates::Except(&up(&[&task.rest.blacklist[..], &task.rest.haunted[..]].concat()))),
        }
    }
}
