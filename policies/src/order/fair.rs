//! Fair sharing of engine time between clients or tenants, by weights: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996).
//! A task is charged what it is expected to take when it is sent, and the difference to what it took when it has ended.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Order, OrderCx, Rank};
use crate::facts::hash_name;
use crate::index::sortable;
use crate::{Ending, Named, Needs, PolicyError, TaskView, Ticket};

/// What a task is charged while nothing is known of any: corrected when it has ended.
const UNKNOWN_S: f64 = 0.01;
/// The most that one task is charged, so that tags stay numbers that small tasks can add to.
const MOST_S: f64 = 1e6;

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
    /// Parties with tasks waiting, by their tags.
    backlog: BTreeSet<(u64, u64)>,
    /// Virtual time: the least tag of those, as far as it has grown.
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

    /// Changes a party's row, and keeps its place among those with tasks waiting.
    fn change(&mut self, lane: u64, change: impl FnOnce(&mut Lane)) {
        let row = self.lanes.entry(lane).or_default();
        if row.waiting > 0 {
            self.backlog.remove(&(sortable(row.tag), lane));
        }
        change(row);
        if row.waiting > 0 {
            self.backlog.insert((sortable(row.tag), lane));
        }
        if let Some(least) = self.backlog.first().and_then(|(_, lane)| self.lanes.get(lane)) {
            self.now = self.now.max(least.tag);
        }
    }
}

/// What a task was charged and at which weight, in one word.
fn ticket(cost_s: f32, weight: f32) -> Ticket {
    Ticket(u64::from(cost_s.to_bits()) << 32 | u64::from(weight.to_bits()))
}

impl Order for Fair {
    /// Not what a label says it costs: who understates would be served before the others.
    fn needs(&self) -> Needs {
        Needs::CLIENT | Needs::HINTS | Needs::ESTIMATE | Needs::RUN
    }

    fn rank(&mut self, _cx: &OrderCx<'_>, task: &TaskView<'_>) -> Rank {
        let hints = task.hints();
        let lane = match self.by {
            By::Tenant if hints.tenant != 0 => hints.tenant,
            By::Tenant | By::Client => task.client(),
            By::Session => task.session(),
        };
        self.sweep();
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
        let now = self.now;
        self.change(lane, |row| {
            if row.waiting == 0 {
                row.tag = row.tag.max(now); // time in which it wanted nothing is not saved up
            }
            row.waiting += 1;
        });
    }

    fn on_withdraw(&mut self, _cx: &OrderCx<'_>, lane: u64) {
        self.change(lane, |row| row.waiting = row.waiting.saturating_sub(1));
    }

    fn on_dispatch(&mut self, cx: &OrderCx<'_>, lane: u64, task: &TaskView<'_>) -> Ticket {
        let cost_s = cx.learned.expected_s(task).unwrap_or(UNKNOWN_S).min(MOST_S) as f32;
        let weight = self.weight(lane) as f32;
        self.change(lane, |row| {
            row.waiting = row.waiting.saturating_sub(1);
            row.running += 1;
            row.tag += f64::from(cost_s) / f64::from(weight);
        });
        ticket(cost_s, weight)
    }

    fn on_outcome(&mut self, _cx: &OrderCx<'_>, lane: u64, ticket: Ticket, _ending: Ending, run_s: Option<f64>) {
        // By the weight at which it was charged: it may have another by now.
        let (charged, weight) = (f32::from_bits((ticket.0 >> 32) as u32), f32::from_bits(ticket.0 as u32));
        let charged = f64::from(charged);
        let difference = (run_s.unwrap_or(charged).min(MOST_S) - charged) / f64::from(weight);
        if !difference.is_finite() || !self.lanes.contains_key(&lane) {
            return;
        }
        self.change(lane, |row| {
            row.running = row.running.saturating_sub(1);
            row.tag += difference;
        });
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
        if !config.weights.is_empty() && config.by != By::Tenant {
            let reason = "weights are by tenant's name: they mean nothing with by=client or by=session".to_owned();
            return Err(PolicyError::Parameters { name: Self::NAME, reason });
        }
        for (tenant, &weight) in &config.weights {
            crate::registry::in_range(Self::NAME, &format!("weights.{tenant}"), weight, 1e-3..=1e3)?;
        }
        let weights = config.weights.iter().map(|(tenant, &weight)| (hash_name(tenant), weight)).collect();
        Ok(Fair { by: config.by, within: config.within, weights, sweep_at: 64, ..Fair::default() })
    }
}
