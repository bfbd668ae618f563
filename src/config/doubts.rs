//! Choices of policy that can have no effect, from what policies declare of themselves: what they look at, how much room they need, which
//! hints of labels. A doubt is a sentence for people that ends with what to do; nothing is refused for it.

use pointsman_policies::{Axis, Entry, Needs, PolicySpec, Registry, Room};

use super::{Policies, Resolved};

/// What a policy with its parameters looks at.
fn needs_of(registry: &Registry, axis: Axis, spec: &PolicySpec) -> Needs {
    let needs = match axis {
        Axis::Placement => registry.build(spec).map(|policy| policy.needs()),
        Axis::Order => registry.build_order(spec).map(|policy| policy.needs()),
        Axis::Admission => registry.build_admission(spec).map(|policy| policy.needs()),
        Axis::Rebalance => registry.build_rebalance(spec).map(|policy| policy.needs()),
    };
    needs.unwrap_or_default()
}

/// What tells idle engines of one speed apart for a placement: data that is there, or the same engine for the same work.
const APART: Needs = Needs::SPEED
    .union(Needs::INPUTS)
    .union(Needs::SOFT_FOLLOW)
    .union(Needs::CLASS)
    .union(Needs::CLIENT)
    .union(Needs::HINTS)
    .union(Needs::RUN);

impl Resolved {
    /// What is doubtful about these policies on a live cluster, each with what would mend it. Builds each policy once.
    pub fn doubts(&self, registry: &Registry) -> Vec<String> {
        let mut all = Vec::new();
        let limit = self.fixed_hwm();
        for axis in Axis::ALL {
            let spec = self.on(axis);
            let Some(entry) = registry.find(spec.name()) else { continue };
            let needs = needs_of(registry, axis, spec);
            let name = entry.name;
            // The default needs no defence: nobody has chosen it.
            let is_chosen = name != Policies::default().placement.name();
            if axis == Axis::Placement && limit == Some(1) && is_chosen && entry.room == Room::Any && !needs.intersects(APART) {
                all.push(format!(
                    "placement {name}: with one task per engine at a time (hwm 1) only idle engines are chosen from, and on equal engines \
                     all placements act alike: give --hwm 2 or more, or --admission adaptive"
                ));
            }
            if axis == Axis::Order && limit == Some(0) && name != Policies::default().order.name() {
                all.push(format!(
                    "order {name}: without a limit (hwm 0) each task is sent at once and none waits to be put in order: give --hwm 1 or more"
                ));
            }
            all.extend(room(entry, limit));
            all.extend(facts(entry, axis, needs));
        }
        all
    }
}

/// A limit under which a policy can not do what it is for.
fn room(entry: &Entry, limit: Option<u64>) -> Option<String> {
    let (axis, name) = (entry.axis.name(), entry.name);
    match (entry.room, limit) {
        (Room::Several, Some(1)) => Some(format!(
            "{axis} {name}: with one task per engine at a time (hwm 1) none waits on an engine, so there is nothing for it to do: give --hwm 2 or more"
        )),
        (Room::Limited, Some(0)) => {
            Some(format!("{axis} {name}: without a limit (hwm 0) the first engine gets every task: give --hwm 1 or more"))
        }
        (Room::Unlimited, limit) if limit != Some(0) => Some(format!(
            "{axis} {name}: with a limit ({}) a task goes elsewhere when the engine that it belongs to is full: give --hwm 0",
            limit.map_or("admission".to_owned(), |limit| format!("hwm {limit}"))
        )),
        _ => None,
    }
}

/// Facts that a policy goes by, and that nobody may state.
fn facts(entry: &Entry, axis: Axis, needs: Needs) -> Option<String> {
    let (place, name) = (axis.name(), entry.name);
    let by_size = matches!(axis, Axis::Placement | Axis::Order) && !needs.intersects(Needs::LEVEL | Needs::CLIENT);
    if needs.contains(Needs::SIGNAL) {
        return Some(format!(
            "{place} {name}: it goes by what engines say of their load, and ipyparallel's say nothing: it acts as leastload does"
        ));
    }
    if !entry.labels.is_empty() {
        return Some(format!("{place} {name}: it treats tasks differently by {} in their labels alone", entry.labels.join(", ")));
    }
    if by_size && needs.contains(Needs::COST) && !needs.contains(Needs::ESTIMATE) {
        return Some(format!("{place} {name}: it goes by #cost= in tasks' labels alone, in seconds"));
    }
    if by_size && needs.contains(Needs::COST | Needs::ESTIMATE) {
        return Some(format!(
            "{place} {name}: it goes by #cost= in tasks' labels, in seconds, or else by what the same function took so far"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(placement: &str, order: &str, admission: &str, rebalance: &str) -> String {
        let registry = Registry::builtin();
        let parsed = |text: &str| text.parse::<PolicySpec>().unwrap();
        let policies = Policies {
            placement: parsed(placement),
            order: parsed(order),
            admission: (!admission.is_empty()).then(|| parsed(admission)),
            rebalance: parsed(rebalance),
            ..Policies::default()
        };
        policies.resolve(&registry).unwrap().doubts(&registry).join("\n")
    }

    #[test]
    fn a_choice_that_can_have_no_effect_is_told_and_one_that_can_is_not() {
        for (placement, order, admission, rebalance, says) in [
            ("leastload", "fifo", "", "none", ""),
            ("pure", "fifo", "", "none", ""),
            ("choices", "fifo", "", "none", "placement choices: with one task per engine"),
            ("twobin", "fifo", "fixed[hwm=1]", "none", "placement twobin: with one task per engine"),
            ("choices", "fifo", "fixed[hwm=2]", "none", ""),
            ("choices", "fifo", "adaptive", "none", ""),
            ("sed", "fifo", "", "none", ""),
            ("locality", "fifo", "", "none", ""),
            ("sita", "fifo", "", "none", "placement sita: with a limit (hwm 1)"),
            ("fillfirst", "fifo", "fixed[hwm=0]", "none", "the first engine gets every task"),
            ("fillfirst", "fifo", "fixed[hwm=3]", "none", ""),
            ("leastload", "lifo", "fixed[hwm=0]", "none", "order lifo: without a limit (hwm 0)"),
            ("leastload", "lifo", "", "none", ""),
            ("leastload", "priority", "", "none", "order priority: it treats tasks differently by #prio= "),
            ("leastload", "deadline", "", "none", "by #deadline= in their labels"),
            ("leastload", "shortest", "", "none", "order shortest: it goes by #cost= in tasks' labels, in seconds, or else"),
            ("leastload", "shortest[size=exact]", "", "none", "in tasks' labels alone"),
            ("leastload", "fair", "", "none", ""),
            ("leastload", "criticalpath", "", "none", ""),
            ("leastload", "fifo", "", "hedge", "rebalance hedge: it treats tasks differently by #hedge"),
            ("leastload", "fifo", "", "replace", "rebalance replace: with one task per engine"),
            ("leastload", "fifo", "fixed[hwm=4]", "replace", ""),
            ("lsq", "fifo", "fixed[hwm=2]", "none", "ipyparallel's say nothing"),
        ] {
            let told = doubts(placement, order, admission, rebalance);
            let case = format!("{placement} {order} {admission} {rebalance}: {told}");
            assert!(told.contains(says) && told.is_empty() == says.is_empty(), "{case}");
        }
    }
}
