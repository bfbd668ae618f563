//! Policies changed while tasks wait and run: the new one is told the present as if it had been there from the start, and nothing is
//! lost, sent twice, or moved from where it is.

use pointsman_policies::{
    Admission, AdmissionCx, Candidates, EngineIx, InFlight, NamedSchemes, Needs, Order, Placement, Rebalance, Request, Scheme,
    ShadowReport, Stopwatch, Ticket, Time,
};

use super::TaskKey;
use super::machine::TaskScheduler;
use super::rank::Inputs;
use super::state::Recall;

/// A policy to take over on its axis.
pub enum PolicyChange<S> {
    /// Which engine takes a task.
    Placement(S),
    /// Which task goes next.
    Order(Box<dyn Order>),
    /// How many tasks an engine may have.
    Admission(Box<dyn Admission>),
    /// Whether a task is left where it was sent.
    Rebalance(Box<dyn Rebalance>),
}

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Lets other policies take over, all of them before anything else happens. Costs what the parts cost.
    pub fn change(&mut self, now: Time, changes: impl IntoIterator<Item = PolicyChange<S>>) {
        for change in changes {
            match change {
                PolicyChange::Placement(scheme) => self.swap_scheme(now, scheme),
                PolicyChange::Order(order) => self.swap_order(now, order),
                PolicyChange::Admission(admission) => self.swap_admission(now, admission),
                PolicyChange::Rebalance(rebalance) => self.swap_rebalance(now, rebalance),
            }
        }
        self.look_at_all();
        self.settle(now);
    }

    /// Puts another scheme in the place of this one. O(engines + tasks in flight), and O(tasks waiting) where the two
    /// treat `follow` differently.
    pub fn set_scheme(&mut self, now: Time, scheme: S) {
        self.change(now, [PolicyChange::Placement(scheme)]);
    }

    fn swap_scheme(&mut self, now: Time, scheme: S) {
        self.with_flights(|placement, running, hand_out| drop(placement.replace(now, scheme, running, hand_out)));
        self.sum_needs();
        self.set_soft_follow(now);
    }

    /// Lets other schemes decide on the same state without acting, from now on; none if the list is empty. O(shadows * (engines + tasks
    /// in flight)).
    pub fn set_shadows(&mut self, now: Time, schemes: NamedSchemes, stopwatch: Option<Stopwatch>) {
        self.with_flights(|placement, running, hand_out| placement.set_shadows(now, schemes, stopwatch, running, hand_out));
        self.sum_needs();
    }

    /// What came of the shadows so far.
    pub fn shadow_reports(&self) -> impl Iterator<Item = &ShadowReport> {
        self.placement.shadow_reports()
    }

    /// Shows the placement everything that is in flight, and keeps the tickets that it hands out.
    fn with_flights<R>(
        &mut self,
        change: impl FnOnce(&mut Placement<S>, &[InFlight<'_>], &mut dyn FnMut(usize, Ticket)) -> R,
    ) -> R {
        let running = self.running_in_order();
        let facts: Vec<_> = running.iter().map(|&(key, _)| self.tasks[key].facts.open()).collect();
        let no_inputs = Inputs::new();
        let mut flights: Vec<InFlight<'_>> = Vec::new();
        for (&(key, engine), facts) in running.iter().zip(&facts) {
            let task = &self.tasks[key];
            let request = Request::new(Candidates::All).attempt(task.attempt).task(task.view(facts, &no_inputs));
            let ticket = task.runs.iter().find(|run| run.ix == engine).map_or(Ticket::default(), |run| run.ticket);
            flights.push(InFlight { engine, ticket, request });
        }
        for ghost in self.ghosts.values().flatten() {
            flights.push(InFlight { engine: ghost.run.ix, ticket: ghost.run.ticket, request: Request::new(Candidates::All) });
        }
        let mut tickets: Vec<Ticket> = flights.iter().map(|flight| flight.ticket).collect();
        let result = change(&mut self.placement, &flights, &mut |index, ticket| tickets[index] = ticket);
        for (&(key, ix), &ticket) in running.iter().zip(&tickets) {
            self.tasks[key].runs.iter_mut().filter(|run| run.ix == ix).for_each(|run| run.ticket = ticket);
        }
        for (ghost, &ticket) in self.ghosts.values_mut().flatten().zip(&tickets[running.len()..]) {
            ghost.run.ticket = ticket;
        }
        result
    }

    /// Puts another order in the place of this one: every waiting task is ranked anew, and those in flight are charged to their lanes.
    /// O(tasks).
    pub fn set_order(&mut self, now: Time, order: Box<dyn Order>) {
        self.change(now, [PolicyChange::Order(order)]);
    }

    fn swap_order(&mut self, now: Time, order: Box<dyn Order>) {
        self.order_needs = order.needs();
        self.order = order;
        self.sum_needs();
        self.waiting = 0;
        self.ready.clear();
        for id in self.engines.ids().map(super::EngineId) {
            self.engines.get_mut(id).parked = None;
        }
        self.set_growth();
        for (key, ix) in self.running_in_order() {
            let rank = self.ask_rank(now, key);
            self.tasks[key].rank = rank;
            self.tell_waiting(now, rank.lane);
            let ticket = self.tell_dispatched(now, key);
            self.tasks[key].runs.iter_mut().filter(|run| run.ix == ix).for_each(|run| run.order_ticket = ticket);
        }
        for ghost in self.ghosts.values_mut().flatten() {
            ghost.is_charged = false;
        }
        for key in self.waiting_in_order() {
            let rank = self.ask_rank(now, key);
            let task = &mut self.tasks[key];
            task.rank = rank;
            task.epoch += 1;
            self.tell_waiting(now, rank.lane);
            self.enter_queues(key);
        }
        let released = std::mem::take(&mut self.turn.released).into_iter().filter(|&(_, key)| self.tasks.contains_key(key));
        self.turn.released = released.map(|(_, key)| (self.standing(key), key)).collect();
    }

    /// Puts another admission policy in the place of this one, and its limits on every engine. What is in flight stays. O(engines).
    pub fn set_admission(&mut self, now: Time, admission: Box<dyn Admission>) {
        self.change(now, [PolicyChange::Admission(admission)]);
    }

    fn swap_admission(&mut self, now: Time, admission: Box<dyn Admission>) {
        self.admission_needs = admission.needs();
        self.admission = admission;
        self.sum_needs();
        let live: Vec<EngineIx> = self.placement.roster().live_engines().collect();
        for ix in live {
            let hwm = self.admission.on_join(&AdmissionCx::new(now, self.placement.roster()), ix);
            if self.placement.set_hwm(now, ix, hwm) {
                self.turn.opened.push(self.engines.at(ix));
            }
        }
    }

    /// Puts another rebalance policy in the place of this one; it is asked about every task in flight. O(tasks in flight).
    pub fn set_rebalance(&mut self, now: Time, rebalance: Box<dyn Rebalance>) {
        self.change(now, [PolicyChange::Rebalance(rebalance)]);
    }

    fn swap_rebalance(&mut self, now: Time, rebalance: Box<dyn Rebalance>) {
        self.rebalance_needs = rebalance.needs();
        self.watches = rebalance.watches();
        self.rebalance = rebalance;
        self.sum_needs();
        self.lookouts.clear();
        for id in self.engines.ids().map(super::EngineId) {
            self.engines.get_mut(id).sent.clear();
        }
        for (key, ix) in self.running_in_order() {
            let Some(at) = self.tasks[key].runs.iter().position(|run| run.ix == ix) else { continue };
            let run = self.tasks[key].runs[at];
            // Also if this one does not watch: what is being taken back has to know what is before it.
            self.note_sent(run.engine, run.dispatch, key);
            // What is being taken back already is seen through.
            let look_at = match run.recall {
                Recall::No => self.ask_lookout(now, key, ix),
                Recall::Asked => None,
                Recall::Until(until) => {
                    self.lookouts.insert((until, key, run.attempt));
                    Some(until)
                }
            };
            self.tasks[key].runs[at].look_at = look_at;
        }
    }

    /// Stops sending tasks, or goes on. What is in flight is answered as ever.
    pub fn set_paused(&mut self, now: Time, paused: bool) {
        self.paused = paused;
        self.look_at_all();
        self.settle(now);
    }

    /// The engine of a number. O(engines).
    pub fn engine_by_number(&self, number: u64) -> Option<&str> {
        let roster = self.placement.roster();
        let ix = roster.live_engines().find(|&ix| roster.number(ix) == number)?;
        Some(self.uuid(self.engines.at(ix)))
    }

    /// How many tasks lack nothing but an engine.
    pub fn waiting_tasks(&self) -> usize {
        self.waiting
    }

    /// Whether it sends nothing at the moment.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Everything that any of the policies looks at: what a driver has to measure.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    fn sum_needs(&mut self) {
        self.needs = self.placement.all_needs() | self.order_needs | self.admission_needs | self.rebalance_needs;
    }

    /// Every open engine may have something to do now. O(engines).
    fn look_at_all(&mut self) {
        let open: Vec<EngineIx> = self.placement.roster().open_engines().collect();
        self.turn.opened.extend(open.into_iter().map(|ix| self.engines.at(ix)));
    }

    /// Tasks in flight with their engines, in the order in which they were sent.
    fn running_in_order(&self) -> Vec<(TaskKey, EngineIx)> {
        let mut running: Vec<(u64, TaskKey, EngineIx)> = Vec::new();
        for (key, task) in &self.tasks {
            running.extend(task.runs.iter().map(|run| (run.dispatch, key, run.ix)));
        }
        running.sort_unstable_by_key(|&(dispatch, ..)| dispatch);
        running.into_iter().map(|(_, key, ix)| (key, ix)).collect()
    }

    /// Tasks that only lack an engine, oldest first.
    fn waiting_in_order(&self) -> Vec<TaskKey> {
        let mut waiting: Vec<(u64, TaskKey)> =
            self.tasks.iter().filter(|(_, task)| task.state.is_waiting_for_engine()).map(|(key, task)| (task.seq, key)).collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether `follow` is a wish or a limit is up to the scheme: where that has changed, tasks that follow others wait elsewhere now.
    fn set_soft_follow(&mut self, now: Time) {
        let soft = self.placement.needs().contains(Needs::SOFT_FOLLOW);
        if soft == self.soft_follow {
            return;
        }
        let following: Vec<TaskKey> =
            self.waiting_in_order().into_iter().filter(|&key| !self.tasks[key].rest.follow.empty).collect();
        for &key in &following {
            self.withdraw(now, key);
        }
        self.soft_follow = soft;
        for key in following {
            self.release_if_met(now, key);
        }
        let all: Vec<TaskKey> = self.tasks.keys().collect();
        for key in all {
            self.end_if_hopeless(now, key);
        }
    }
}
