//! How things are and why: an overview of the scheduler, and for one task what it waits for or where it went. Reads everything and changes
//! nothing; for people, so it may cost O(engines), and O(tasks) where said.

use pointsman_policies::{Scheme, ShadowReport, Time};
use serde_json::{Value, json};

use super::TaskKey;
use super::known::{EngineId, Presence};
use super::machine::TaskScheduler;
use super::state::{Run, State};
use super::submit::read_word;

impl<S: Scheme, P: Clone> TaskScheduler<S, P> {
    /// Tasks in flight on an engine.
    pub fn in_flight_on(&self, uuid: &str) -> usize {
        self.engines.find(uuid).map_or(0, |id| self.engines.get(id).running.len())
    }

    /// Engines with their limits and loads, and counts of tasks, as JSON. O(engines).
    pub fn overview(&self, now: Time) -> Value {
        let (roster, learned) = (self.placement.roster(), self.placement.learned());
        let engine = |ix| {
            let id = self.engines.at(ix);
            let known = self.engines.get(id);
            let age_s = learned.speed_age(ix, now).map(|age| age.as_secs_f64());
            json!({
                "id": roster.number(ix), "uuid": known.uuid, "in_flight": roster.load(ix), "hwm": roster.hwm(ix),
                "state": self.engine_state(id), "speed": learned.speed(ix), "speed_age_s": age_s,
            })
        };
        let mut engines: Vec<_> = roster.live_engines().collect();
        engines.sort_unstable_by_key(|&ix| roster.number(ix));
        let shadow = |report: &ShadowReport| {
            let each = |sum: f64| if report.decisions == 0 { 0.0 } else { sum / report.decisions as f64 };
            json!({
                "scheme": report.name, "decisions": report.decisions, "agreement": each(report.agreed as f64),
                "deferred": report.deferred, "faults": report.faults, "regret_s": each(report.gain_s),
                "cost_ns": each(report.cost_ns as f64),
            })
        };
        json!({
            "paused": self.paused,
            "tasks": {"live": self.tasks.len(), "waiting": self.waiting, "put_off": self.set_aside.len()},
            "classes_known": learned.class_count(),
            "shadows": self.placement.shadow_reports().map(shadow).collect::<Vec<_>>(),
            "scheme_faults": self.placement.faults(),
            "dispatched": self.counters.dispatched,
            "engines": engines.into_iter().map(engine).collect::<Vec<_>>(),
        })
    }

    /// What keeps an engine from taking a task, in a word.
    fn engine_state(&self, id: EngineId) -> &'static str {
        let engine = self.engines.get(id);
        match engine.presence {
            Presence::Gone => "gone",
            Presence::Dying(..) => "lost",
            Presence::Up(_) if engine.draining => "draining",
            Presence::Up(_) if engine.unreachable_until.is_some() => "unreachable",
            Presence::Up(ix) if !self.placement.roster().is_open(ix) => "full",
            Presence::Up(_) => "open",
        }
    }

    /// Why a task waits, or where it went and why, as JSON with a sentence for people under `why`. O(tasks that wait) for one that waits.
    pub fn explain(&self, now: Time, id: &str) -> Option<Value> {
        let Some(key) = self.find(id) else {
            let (ok, engine, _) = read_word(self.ledger.get(id))?;
            let place = engine.map(|engine| self.uuid(engine).to_owned());
            let how = if ok { "succeeded" } else { "failed" };
            let why = place
                .as_ref()
                .map_or_else(|| format!("it {how} without having run"), |uuid| format!("it {how} on engine {uuid}"));
            let told = json!({"task": id, "state": "ended", "ok": ok, "engine": place, "why": why});
            return Some(self.with_decision(id, told));
        };
        let task = &self.tasks[key];
        let mut told = match task.state {
            State::Running => {
                let sent =
                    |run: &Run| format!("to engine {} {:.3} s ago", self.uuid(run.engine), now.since(run.since).as_secs_f64());
                let engines: Vec<&str> = task.runs.iter().map(|run| self.uuid(run.engine)).collect();
                let why = format!("it was sent {}", task.runs.iter().map(sent).collect::<Vec<_>>().join(", and again "));
                json!({"state": "running", "engines": engines, "why": why})
            }
            State::Blocked => self.explain_blocked(key),
            State::SetAside => {
                let until = self.set_aside.iter().find(|(other, _)| *other == key).and_then(|(_, until)| *until);
                let wait = until.map_or("until an engine changes".to_owned(), |until| {
                    format!("for {:.3} s at most", until.since(now).as_secs_f64())
                });
                json!({"state": "waiting", "reason": "put off", "why": format!("the scheme has put it off {wait}")})
            }
            State::Ready | State::Parked | State::TurnedAway(_) => self.explain_waiting(key),
        };
        told["task"] = json!(id);
        told["attempt"] = json!(task.attempt);
        told["age_s"] = json!(now.since(task.submitted).as_secs_f64());
        if let Some(deadline) = task.rest.deadline {
            told["times_out_in_s"] = json!(deadline.since(now).as_secs_f64());
        }
        Some(self.with_decision(id, told))
    }

    /// What is told of a task, with the last decision about it, if that is kept.
    fn with_decision(&self, id: &str, mut told: Value) -> Value {
        if let Some(decision) = self.decisions.last_of(id) {
            let why = told["why"].as_str().unwrap_or_default();
            told["why"] = json!(format!("{why}: {}", decision.to_words()));
            told["decision"] = decision.to_json();
        }
        told
    }

    fn explain_blocked(&self, key: TaskKey) -> Value {
        let task = &self.tasks[key];
        let open: Vec<&str> = task.rest.waits_for.iter().filter_map(|other| Some(&*self.tasks.get(*other)?.id)).collect();
        let shown = open.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = if open.len() > 3 { format!(" and {} more", open.len() - 3) } else { String::new() };
        json!({
            "state": "blocked", "reason": "dependency", "dependencies": open,
            "why": format!("it depends on {} that have not ended: {shown}{more}", open.len()),
        })
    }

    fn explain_waiting(&self, key: TaskKey) -> Value {
        let task = &self.tasks[key];
        if self.paused {
            return json!({"state": "waiting", "reason": "paused", "why": "the scheduler is paused"});
        }
        let standing = self.standing(key);
        let ahead = self.tasks.iter().filter(|(other, task)| {
            *other != key
                && task.state.is_waiting_for_engine()
                && task.state == self.tasks[key].state
                && self.standing(*other) < standing
        });
        let (ahead, own) =
            ahead.fold((0_u64, 0_u64), |(all, own), (_, other)| (all + 1, own + u64::from(other.rank.lane == task.rank.lane)));
        let candidates: Vec<EngineId> = match task.state {
            State::Parked => task.allowed(self.soft_follow).into_iter().collect(),
            _ => self.engines.ids().map(EngineId).filter(|&id| self.engines.is_up(id) && !task.excludes(id)).collect(),
        };
        let mut states = std::collections::BTreeMap::<&str, usize>::new();
        for &id in &candidates {
            *states.entry(self.engine_state(id)).or_default() += 1;
        }
        let counted = states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
        let turned_away: Vec<&str> = task.rest.blacklist.iter().map(|&id| self.uuid(id)).collect();
        let (reason, mut why) = match task.state {
            _ if candidates.is_empty() && !turned_away.is_empty() => (
                "blacklist",
                format!("every engine there is has failed or refused it ({}); it waits for another", turned_away.len()),
            ),
            _ if candidates.is_empty() => ("no engine", "there is no engine that it may use".to_owned()),
            State::Parked if task.rest.targets.is_some() => {
                ("targets", format!("it may run only on {} engines: {counted}", candidates.len()))
            }
            State::Parked => ("follow", format!("it must run where the tasks ran that it follows: {counted}")),
            _ => ("hwm", format!("no engine has room for it: {counted}")),
        };
        if ahead > 0 {
            why.push_str(&format!("; {ahead} tasks go before it"));
            if task.rank.lane != 0 {
                why.push_str(&format!(", {own} of them of the same client or tenant: shares are fair"));
            }
        }
        json!({
            "state": "waiting", "reason": if ahead > 0 && task.rank.lane != 0 && own < ahead { "fairness" } else { reason },
            "why": why, "ahead": ahead, "ahead_of_same_party": own, "engines": states, "turned_away_by": turned_away,
        })
    }
}
