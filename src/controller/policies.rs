//! The policies of a running controller: what is in force, and the errands by which it is changed. Whatever is asked for is built and checked
//! here first; the scheduler gets it whole, or it was refused and nothing has changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_core::hub::driver::HubInput;
use pointsman_core::net::{Outbox, Tally};
use pointsman_policies::{Axis, NamedSchemes, PolicyError, PolicySpec, Registry};
use pointsman_schedulers::live::{LiveChange, SchedulerOrder, TaskInput};
use pointsman_schedulers::task::PolicyChange;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{Policies, Resolved, fixed};

/// What the program's own tools may ask.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Errand {
    /// What is in force, and how things are.
    Show,
    /// Other policies: any number of them, each on the axis that its name has.
    Set { policies: Vec<PolicySpec> },
    /// Send no more tasks.
    Pause,
    /// Send tasks again.
    Resume,
    /// Send no more tasks to an engine, or again.
    Drain { engine: u64, draining: bool },
    /// Why a task waits, or where it went and why.
    Explain { task: String },
    /// Other shadows.
    Shadow { schemes: Vec<PolicySpec> },
}

/// What is in force, and whether somebody has said how many tasks an engine may have, or only the scheme.
struct InForce {
    policies: Resolved,
    admission_is_default: bool,
}

/// Keeps what is in force and passes on what is to be.
pub(crate) struct PolicyDesk {
    registry: Arc<Registry>,
    in_force: Mutex<InForce>,
    tasks: Outbox<TaskInput>,
    hub: Outbox<HubInput>,
    tally: Tally,
}

impl PolicyDesk {
    pub(super) fn new(
        registry: Arc<Registry>,
        policies: Resolved,
        admission_is_default: bool,
        tasks: Outbox<TaskInput>,
        hub: Outbox<HubInput>,
        tally: Tally,
    ) -> Self {
        PolicyDesk { registry, in_force: Mutex::new(InForce { policies, admission_is_default }), tasks, hub, tally }
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is asked under the hub's number; the answer comes from here or from the scheduler.
    pub(super) fn run(&self, number: u64, content: Value) {
        // Held until it has been passed on: what is said to be in force and what is must change in the same order.
        let mut in_force = self.in_force();
        let errand = serde_json::from_value(content).map_err(|error| error.to_string());
        match errand.and_then(|errand| self.order(&mut in_force, errand)) {
            Ok(order) => {
                self.tasks.send_always(TaskInput::Order(number, order));
            }
            Err(reason) => {
                self.hub.send_always(HubInput::Errand(number, Err(reason)));
            }
        }
    }

    fn order(&self, in_force: &mut InForce, errand: Errand) -> Result<SchedulerOrder, String> {
        Ok(match errand {
            Errand::Show => {
                let count = |(part, kind, count)| json!({"part": part, "kind": kind, "count": count});
                let given_up: Vec<Value> = self.tally.counts().into_iter().map(count).collect();
                SchedulerOrder::Show(json!({"policies": in_force.policies, "given_up": given_up}))
            }
            Errand::Set { policies } => self.set(in_force, &policies)?,
            Errand::Pause => SchedulerOrder::Pause(true),
            Errand::Resume => SchedulerOrder::Pause(false),
            Errand::Drain { engine, draining } => SchedulerOrder::Drain { engine, draining },
            Errand::Explain { task } => SchedulerOrder::Explain(task),
            Errand::Shadow { schemes } => {
                SchedulerOrder::Shadow(build_shadows(&self.registry, &schemes).map_err(|error| error.to_string())?)
            }
        })
    }

    /// Policies by name alone: the name has an axis.
    fn set(&self, in_force: &mut InForce, specs: &[PolicySpec]) -> Result<SchedulerOrder, String> {
        let mut wanted: Vec<(Axis, PolicySpec)> = Vec::new();
        for spec in specs {
            let axis = self.registry.resolve(None, spec).map_err(|error| error.to_string())?.axis;
            if let Some((_, other)) = wanted.iter().find(|(taken, _)| *taken == axis) {
                return Err(format!("{other} and {spec} both decide the {}: give one", axis.name()));
            }
            wanted.push((axis, self.registry.resolved(axis, spec).map_err(|error| error.to_string())?));
        }
        if wanted.is_empty() {
            return Err("no policy is named".into());
        }
        // A scheme brings the limit that it is meant to run with, unless somebody has set one.
        let placement = wanted.iter().find(|(axis, _)| *axis == Axis::Placement).map(|(_, spec)| spec.clone());
        let sets_admission = wanted.iter().any(|(axis, _)| *axis == Axis::Admission);
        if let Some(placement) = placement.filter(|_| in_force.admission_is_default && !sets_admission) {
            let hwm = self.registry.find(placement.name()).and_then(|entry| entry.default_hwm).unwrap_or(1);
            wanted.push((Axis::Admission, fixed(hwm)));
        }
        let order = self.change(in_force, wanted)?;
        in_force.admission_is_default &= !sets_admission;
        Ok(order)
    }

    fn change(&self, in_force: &mut InForce, mut wanted: Vec<(Axis, PolicySpec)>) -> Result<SchedulerOrder, String> {
        // What stays as it is on the axis of admission keeps what it has learned.
        wanted.retain(|(axis, spec)| *axis != Axis::Admission || in_force.policies.on(*axis) != spec);
        let built: Result<Vec<LiveChange>, PolicyError> =
            wanted.iter().map(|(axis, spec)| build(&self.registry, *axis, spec)).collect();
        let built = built.map_err(|error| error.to_string())?;
        let was = in_force.policies.clone();
        for (axis, spec) in wanted {
            in_force.policies.set(axis, spec);
        }
        let text = in_force.policies.to_string().into();
        Ok(SchedulerOrder::Policies {
            changes: built,
            text,
            answer: json!({"policies": in_force.policies, "was": was, "doubts": in_force.policies.doubts(&self.registry)}),
        })
    }

    /// Takes over what a configuration says that differs from what is in force. Returns whether anything does.
    ///
    /// # Errors
    /// If it can not be followed; everything stays as it was.
    pub(crate) fn reload(&self, policies: &Policies) -> anyhow::Result<bool> {
        let wanted = policies.resolve(&self.registry)?;
        let mut in_force = self.in_force();
        let differs = |axis: &Axis| in_force.policies.on(*axis) != wanted.on(*axis);
        let differing: Vec<(Axis, PolicySpec)> =
            Axis::ALL.into_iter().filter(differs).map(|axis| (axis, wanted.on(axis).clone())).collect();
        in_force.admission_is_default = policies.admission.is_none();
        if differing.is_empty() {
            return Ok(false);
        }
        let order = self.change(&mut in_force, differing).map_err(anyhow::Error::msg)?;
        self.tasks.send_always(TaskInput::Order(0, order));
        Ok(true)
    }
}

/// Makes a policy that is to take over on its axis.
pub(super) fn build(registry: &Registry, axis: Axis, spec: &PolicySpec) -> Result<LiveChange, PolicyError> {
    Ok(match axis {
        Axis::Placement => PolicyChange::Placement(registry.build(spec)?),
        Axis::Order => PolicyChange::Order(registry.build_order(spec)?),
        Axis::Admission => PolicyChange::Admission(registry.build_admission(spec)?),
        Axis::Rebalance => PolicyChange::Rebalance(registry.build_rebalance(spec)?),
    })
}

/// Makes the schemes that shall decide without acting.
pub(super) fn build_shadows(registry: &Registry, specs: &[PolicySpec]) -> Result<NamedSchemes, PolicyError> {
    specs.iter().map(|spec| Ok((spec.to_string(), registry.build(spec)?))).collect()
}
