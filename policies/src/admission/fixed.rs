//! Limits that stay as they are configured: one for all engines, or one for each by its number.

use std::collections::BTreeMap;

use super::{Admission, AdmissionCx};
use crate::{EngineIx, Named, PolicyError};

/// The admission policy `fixed`.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    hwm: u32,
}

/// Parameters of [`Fixed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedConfig {
    hwm: u32,
}

impl Default for FixedConfig {
    fn default() -> Self {
        FixedConfig { hwm: 1 }
    }
}

impl Fixed {
    /// At most this many on each engine; 0 for no limit.
    pub const fn new(hwm: u32) -> Self {
        Fixed { hwm }
    }
}

impl Admission for Fixed {
    fn on_join(&mut self, _cx: &AdmissionCx<'_>, _engine: EngineIx) -> u32 {
        self.hwm
    }
}

impl Named for Fixed {
    const NAME: &'static str = "fixed";
    const SUMMARY: &'static str = "the same number of tasks in flight on every engine";
    const SOURCE: &'static str = "ipyparallel (hwm)";
    const PARAMETERS: &'static [(&'static str, &'static str)] =
        &[("hwm", "the most tasks in flight on an engine; 0 for no limit")];
    type Config = FixedConfig;
    fn build(config: FixedConfig) -> Result<Self, PolicyError> {
        Ok(Fixed { hwm: config.hwm })
    }
}

/// The admission policy `perengine`.
#[derive(Clone, Debug, Default)]
pub struct PerEngine {
    default: u32,
    hwm: BTreeMap<u64, u32>,
}

/// Parameters of [`PerEngine`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerEngineConfig {
    default: u32,
    hwm: BTreeMap<String, u32>,
}

impl Default for PerEngineConfig {
    fn default() -> Self {
        PerEngineConfig { default: 1, hwm: BTreeMap::new() }
    }
}

impl Admission for PerEngine {
    fn on_join(&mut self, cx: &AdmissionCx<'_>, engine: EngineIx) -> u32 {
        self.hwm.get(&cx.roster.number(engine)).copied().unwrap_or(self.default)
    }
}

impl Named for PerEngine {
    const NAME: &'static str = "perengine";
    const SUMMARY: &'static str = "a number of tasks in flight for each engine by its id, for engines of different sizes";
    const SOURCE: &'static str = "ipyparallel (hwm), for each engine";
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[
        ("default", "the most tasks in flight on an engine that is not named; 0 for no limit"),
        ("hwm", "the most by engine id, such as {\"0\" = 4, \"1\" = 8}"),
    ];
    type Config = PerEngineConfig;
    fn build(config: PerEngineConfig) -> Result<Self, PolicyError> {
        let number = |text: &String| {
            text.parse::<u64>().map_err(|_| PolicyError::Parameters {
                name: Self::NAME,
                reason: format!("hwm: '{text}' is not the number of an engine"),
            })
        };
        let hwm = config.hwm.iter().map(|(engine, &hwm)| Ok((number(engine)?, hwm))).collect::<Result<_, PolicyError>>()?;
        Ok(PerEngine { default: config.default, hwm })
    }
}
