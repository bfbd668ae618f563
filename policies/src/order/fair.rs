//! Fair sharing of engine time between clients or tenants, by weights: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996).
//! A task is charged what it is expected to take when it is sent, and the difference to what it took when it has ended.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Order, OrderCx, Rank};
use crate::facts::hash_name;
use crate::index::sortable;
use crate::{Ending, Named, Needs, PolicyError, TaskView, Ticket};

/// What a task is charged while nothing is known of any: corrected when it has ended.
const UNKNOWN_S: f64 = 0.01;

/// Whose shares are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// The label's tenant, or else the client.
    #[default]
    Tenant,
    /// The client that sent it, whatever its label says.
    Client,
    /// The session.
    Session,
}

/// The order of tasks of one party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Within {
    /// By submission.
    #[default]
    Fifo,
    /// By the label's priority.
    Priority,
}

/// Parameters of [`Fair`].
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FairConfig {
    by: By,
    within: Within,
    weights: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Virtual time at which its next task starts, in seconds of service per unit of weight.
    tag: f64,
    /// The weight its label gave last.
    weight: Option<f64>,
    waiting: u32,
    running: u32,
}

/// The order `fair`.
#[derive(Clone, Debug, Default)]
pub struct Fair {
    by: By,
    within: Within,
    weights: HashMap<u64, f64, FixedState>,
    /// Parties that wait or run, and those that have had more than the virtual time says.
    lanes: HashMap<u64, Lane, FixedState>,
    /// Virtual time: the greatest start tag of a task that was sent.
    now: f64,
    /// The lane that the last outcome has let fall.
    fallen: Option<u64>,
    /// Lanes are swept when there are this many.
    sweep_at: usize,
}

impl Fair {
    fn weight(&self, lane: u64) -> f64 {
        let named = self.weights.get(&lane).copied();
        named.or_else(|| self.lanes.get(&lane)?.weight).unwrap_or(1.0)
    }

    /// Forgets parties that have nothing here and no more than their share: they would start afresh at the same place.
    fn sweep(&mut self) {
        if self.lanes.len() >= self.sweep_at {
            let now = self.now;
            self.lanes.retain(|_, lane| lane.waiting > 0 || lane.running > 0 || lane.tag > now);
            self.sweep_at = 2 * self.lanes.len() + 64;
        }
    }
}

impl Order for Fair {
    fn needs(&self) -> Needs {
        Needs::CLIENT | Needs::HINTS | Needs::COST | Needs::ESTIMATE | Needs::RUN
    }

    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        let hints = task.hints();
        let lane = match self.by {
            By::Tenant if hints.tenant != 0 => hints.tenant,
            By::Tenant | By::Client => task.client(),
            By::Session => task.session(),
        };
        if let Some(weight) = hints.weight {
            self.lanes.entry(lane).or_default().weight = Some(weight);
        }
        let key = match self.within {
            Within::Fifo => 0,
            Within::Priority => sortable(-hints.priority),
        };
        Rank { lane, key }
    }

    fn tag(&self, lane: u64) -> u64 {
        sortable(self.lanes.get(&lane).map_or(self.now, |lane| lane.tag))
    }

    fn on_wait(&mut self, _cx: &OrderCx<'_>, lane: u64) {
        self.sweep();
        let now = self.now;
        let row = self.lanes.entry(lane).or_default();
        if row.waiting == 0 {
            // Time in which it wanted nothing is not saved up.
            row.tag = row.tag.max(now);
        }
        row.waiting += 1;
    }

    fn on_withdraw(&mut self, _cx: &OrderCx<'_>, lane: u64) {
        if let Some(row) = self.lanes.get_mut(&lane) {
            row.waiting = row.waiting.saturating_sub(1);
        }
    }

    fn on_dispatch(&mut self, cx: &OrderCx<'_>, lane: u64, task: &TaskView<'_>) -> Ticket {
        let cost = cx.learned.expected_s(task).unwrap_or(UNKNOWN_S);
        let weight = self.weight(lane);
        let now = self.now;
        let row = self.lanes.entry(lane).or_default();
        row.waiting = row.waiting.saturating_sub(1);
        row.running += 1;
        let start = row.tag;
        row.tag += cost / weight;
        self.now = now.max(start);
        Ticket(cost.to_bits())
    }

    fn on_outcome(&mut self, _cx: &OrderCx<'_>, lane: u64, ticket: Ticket, _ending: Ending, run_s: Option<f64>) {
        let weight = self.weight(lane);
        let Some(row) = self.lanes.get_mut(&lane) else { return };
        row.running = row.running.saturating_sub(1);
        let charged = f64::from_bits(ticket.0);
        let difference = (run_s.unwrap_or(charged) - charged) / weight;
        row.tag += difference;
        self.fallen = (difference < 0.0).then_some(lane);
    }

    fn take_fallen(&mut self) -> Option<u64> {
        self.fallen.take()
    }

    fn lane_count(&self) -> usize {
        self.lanes.len()
    }
}

impl Named for Fair {
    const NAME: &'static str = "fair";
    const SUMMARY: &'static str = "equal shares of engine time for each client or #tenant, or by #weight";
    const SOURCE: &'static str = "Goyal, Vin and Cheng 1996 (SFQ)";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("by", "tenant: the label's #tenant, else the client; client; session"),
        ("within", "order of one party's tasks: fifo or priority"),
        ("weights", "shares by tenant's name, such as {a=2}; 1 for those not named"),
    ];
    type Config = FairConfig;
    fn build(config: FairConfig) -> Result<Self, PolicyError> {
        for (tenant, &weight) in &config.weights {
            crate::registry::in_range(Self::NAME, &format!("weights.{tenant}"), weight, 1e-6..=1e6)?;
        }
        let weights = config.weights.iter().map(|(tenant, &weight)| (hash_name(tenant), weight)).collect();
        Ok(Fair { by: config.by, within: config.within, weights, sweep_at: 64, ..Fair::default() })
    }
}
