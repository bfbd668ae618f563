//! What a running scheduler can be told: other policies, to pause, to drain an engine; and what it can be asked. Policies come ready made
//! and checked, so that an order either takes effect as a whole or was refused before it got here.

use pointsman_core::hub::driver::HubInput;
use pointsman_policies::{NamedSchemes, Scheme};
use serde_json::{Value, json};

use super::tasks::{Driver, stopwatch};
use crate::task::{Event, PolicyChange};

/// A policy to take over, made by whoever configures.
pub type LiveChange = PolicyChange<Box<dyn Scheme>>;

/// Something to be done, or answered, by a running scheduler.
pub enum SchedulerOrder {
    /// Other policies, all of them before anything else happens; `text` is what is in force then, for the records.
    Policies {
        /// The new ones.
        changes: Vec<LiveChange>,
        /// All four in words.
        text: Box<str>,
        /// What to answer when it has been done.
        answer: Value,
    },
    /// Send nothing more, or go on.
    Pause(bool),
    /// Send nothing more to an engine, or go on.
    Drain {
        /// The engine's number.
        engine: u64,
        /// Whether it drains.
        draining: bool,
    },
    /// Say how things are.
    Show(Value),
    /// Say why a task waits, or where it went and why.
    Explain(String),
    /// Let these decide without acting, instead of those that do.
    Shadow(NamedSchemes),
}

impl std::fmt::Debug for SchedulerOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SchedulerOrder::Policies { text, .. } => text,
            SchedulerOrder::Pause(_) => "pause",
            SchedulerOrder::Drain { .. } => "drain",
            SchedulerOrder::Show(_) => "show",
            SchedulerOrder::Explain(_) => "explain",
            SchedulerOrder::Shadow(_) => "shadow",
        })
    }
}

impl Driver {
    /// Does as it is told and answers whoever asked.
    pub(super) fn follow(&mut self, number: u64, order: SchedulerOrder) {
        let outcome = self.obey(order);
        if number != 0 {
            self.hub.hub().send_always(HubInput::Errand(number, outcome));
        }
    }

    fn obey(&mut self, order: SchedulerOrder) -> Result<Value, String> {
        let now = self.now();
        match order {
            SchedulerOrder::Policies { changes, text, answer } => {
                self.machine.change(now, changes);
                tracing::info!("policies: {text}");
                self.tell_hub(); // what has happened did so under the former ones
                self.hub.hub().send_always(HubInput::Policies(text));
                Ok(answer)
            }
            SchedulerOrder::Pause(paused) => {
                self.machine.set_paused(now, paused);
                tracing::info!("{}", if paused { "paused: no task is sent until told to resume" } else { "resumed" });
                Ok(json!({"paused": paused}))
            }
            SchedulerOrder::Drain { engine, draining } => {
                let uuid = self.machine.engine_by_number(engine).map(str::to_owned).ok_or_else(|| self.no_engine(engine))?;
                self.machine.handle(now, Event::EngineDraining { uuid: &uuid, draining });
                let left = self.machine.in_flight_on(&uuid);
                Ok(json!({"engine": engine, "draining": draining, "in_flight": left}))
            }
            SchedulerOrder::Explain(task) => {
                self.machine.explain(now, &task).ok_or_else(|| {
                    format!(
                        "no task of the id '{task}' has been submitted to the task scheduler (tasks of direct and broadcast views do not go \
                         through it)"
                    )
                })
            }
            SchedulerOrder::Shadow(schemes) => {
                let names: Vec<String> = schemes.iter().map(|(name, _)| name.clone()).collect();
                self.machine.set_shadows(now, schemes, Some(stopwatch));
                Ok(json!({"shadows": names}))
            }
            SchedulerOrder::Show(mut answer) => {
                answer["state"] = self.machine.overview(now);
                Ok(answer)
            }
        }
    }

    /// Says which engines there are instead.
    fn no_engine(&self, number: u64) -> String {
        let overview = self.machine.overview(self.now());
        let all: Vec<String> =
            overview["engines"].as_array().into_iter().flatten().map(|engine| engine["id"].to_string()).collect();
        let more = if all.len() > 20 { ", ..." } else { "" };
        match all.as_slice() {
            [] => format!("there is no engine {number}, and no other"),
            all => format!("there is no engine {number}; there are {}{more}", all[..all.len().min(20)].join(", ")),
        }
    }
}
