//! The policies on the four axes as they are configured, and as they are in force: by proper name with every parameter spelt out.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use pointsman_policies::{Axis, PolicySpec, Registry};
use serde::{Deserialize, Serialize};

/// Which policies decide. Each is a name, `name[key=value,...]`, or a table with `name` and parameters; `pointsman schemes` lists them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// Which engine gets a task.
    pub placement: PolicySpec,
    /// Which task goes next.
    pub order: PolicySpec,
    /// How many tasks an engine may have in flight; `fixed` with the scheme's own default, or 1, if not set.
    pub admission: Option<PolicySpec>,
    /// Whether a task is left where it was sent.
    pub rebalance: PolicySpec,
    /// Schemes that decide on the same state without acting, to be compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<PolicySpec>,
    /// Seed of all random choices; a fresh one by default, which is logged.
    pub seed: Option<u64>,
    /// How many decisions are kept with their reasons, for `pointsman explain`; 0 for none.
    pub log_decisions: usize,
    /// File to which each decision is written as a line of JSON, while they are kept.
    pub decision_file: Option<PathBuf>,
}

impl Default for Policies {
    fn default() -> Self {
        Policies {
            placement: PolicySpec::named("leastload"),
            order: PolicySpec::named("fifo"),
            admission: None,
            rebalance: PolicySpec::named("none"),
            shadow: Vec::new(),
            seed: None,
            log_decisions: 0,
            decision_file: None,
        }
    }
}

/// `fixed` with a limit.
pub fn fixed(hwm: u32) -> PolicySpec {
    let parameters = [("hwm".to_owned(), hwm.into())].into_iter().collect();
    PolicySpec::with("fixed", parameters)
}

impl Policies {
    /// Sets the same limit for every engine.
    pub fn set_hwm(&mut self, hwm: u32) {
        self.admission = Some(fixed(hwm));
    }

    /// What the configuration comes to.
    ///
    /// # Errors
    /// If a name is unknown or a parameter is wrong; with the setting.
    pub fn resolve(&self, registry: &Registry) -> anyhow::Result<Resolved> {
        let resolved =
            |axis: Axis, spec: &PolicySpec| registry.resolved(axis, spec).with_context(|| format!("policy.{}", axis.name()));
        let placement = resolved(Axis::Placement, &self.placement)?;
        let default_hwm = registry.resolve(Some(Axis::Placement), &self.placement)?.default_hwm.unwrap_or(1);
        let admission = self.admission.clone().unwrap_or_else(|| fixed(default_hwm));
        for spec in &self.shadow {
            registry.check(Axis::Placement, spec).context("policy.shadow")?;
        }
        Ok(Resolved {
            placement,
            order: resolved(Axis::Order, &self.order)?,
            admission: resolved(Axis::Admission, &admission)?,
            rebalance: resolved(Axis::Rebalance, &self.rebalance)?,
        })
    }
}

/// The policies in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// Which engine gets a task.
    pub placement: PolicySpec,
    /// Which task goes next.
    pub order: PolicySpec,
    /// How many tasks an engine may have in flight.
    pub admission: PolicySpec,
    /// Whether a task is left where it was sent.
    pub rebalance: PolicySpec,
}

impl Resolved {
    /// The policy on an axis.
    pub fn on(&self, axis: Axis) -> &PolicySpec {
        match axis {
            Axis::Placement => &self.placement,
            Axis::Order => &self.order,
            Axis::Admission => &self.admission,
            Axis::Rebalance => &self.rebalance,
        }
    }

    /// How many tasks every engine may have in flight, where the admission policy is a fixed number; 0 for any number.
    pub fn fixed_hwm(&self) -> Option<u64> {
        (self.admission.name() == "fixed").then(|| self.admission.parameters().get("hwm")?.as_u64()).flatten()
    }

    /// Puts another in its place.
    pub fn set(&mut self, axis: Axis, spec: PolicySpec) {
        *match axis {
            Axis::Placement => &mut self.placement,
            Axis::Order => &mut self.order,
            Axis::Admission => &mut self.admission,
            Axis::Rebalance => &mut self.rebalance,
        } = spec;
    }
}

/// All four, in words: what is logged at the start and stands in records.
impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = Axis::ALL.map(|axis| format!("{} {}", axis.name(), self.on(axis)));
        f.write_str(&each.join(", "))
    }
}
