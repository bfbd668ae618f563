//! Values that a type allows and sense does not: a period of nothing, an age below 0. They are refused when the configuration is read, with
//! the setting and its range, wherever it came from.

use super::{Config, ConfigError};

impl Config {
    /// Refuses values that nothing could follow.
    ///
    /// # Errors
    /// Names the setting, what it may be, and what it is.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(ConfigError::Value { setting: setting.to_owned(), reason: format!("expected {expected}, not {found}") })
        };
        if self.heartbeat.period_ms == 0 {
            return wrong("heartbeat.period_ms", "1 ms or more between pings (--ping)", &0);
        }
        if self.broadcast.depth > MAX_DEPTH {
            return wrong(
                "broadcast.depth",
                &format!("0 to {MAX_DEPTH}, since the tree has 2 to this power ports"),
                &self.broadcast.depth,
            );
        }
        let within_years = |seconds: f64| (0.0..=1e10).contains(&seconds);
        if !within_years(self.controller.registration_timeout_s) {
            return wrong("controller.registration_timeout_s", "seconds, 0 or more", &self.controller.registration_timeout_s);
        }
        if !(0.0..=1.0).contains(&self.records.memory.cull_fraction) {
            return wrong("records.memory.cull_fraction", "a share from 0 to 1", &self.records.memory.cull_fraction);
        }
        for rule in &self.records.retention {
            if let Some(age_s) = rule.max_age_s.filter(|age_s| !within_years(*age_s)) {
                return wrong("records.retention.max_age_s", "seconds, 0 or more", &age_s);
            }
            if rule.is_empty() {
                return wrong(
                    "records.retention",
                    "max_age_s, max_records or max_bytes in each rule",
                    &"a rule that limits nothing",
                );
            }
        }
        for (setting, limit) in [
            ("scheduler.max_queued_tasks", self.scheduler.max_queued_tasks),
            ("scheduler.max_queued_bytes", self.scheduler.max_queued_bytes),
        ] {
            if limit == 0 {
                return wrong(setting, "1 or more", &0);
            }
        }
        if let Some(id) = self.controller.cluster_id.as_ref().filter(|id| id.contains(['/', '\0'])) {
            return wrong("controller.cluster_id", "a name that can be part of a file's, without /", id);
        }
        Ok(())
    }

    /// The settings that differ, by their names in TOML.
    pub fn differences(&self, other: &Config) -> Vec<String> {
        let mut all = Vec::new();
        let table = |config: &Config| toml::Value::try_from(config).unwrap_or(toml::Value::Boolean(false));
        differing("", Some(&table(self)), Some(&table(other)), &mut all);
        all
    }
}

fn differing(name: &str, one: Option<&toml::Value>, other: Option<&toml::Value>, all: &mut Vec<String>) {
    use toml::Value::Table;
    match (one, other) {
        (Some(Table(one)), Some(Table(other))) => {
            let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let below = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                differing(&below, one.get(key), other.get(key), all);
            }
        }
        _ if one != other => all.push(name.to_owned()),
        _ => {}
    }
}

/// 4096 leaves, each with a port and a socket.
const MAX_DEPTH: u32 = 12;

#[cfg(test)]
mod tests {
    use crate::config::parse_toml;

    #[test]
    fn what_nothing_could_follow_is_refused_with_the_setting_and_its_range() {
        for (text, says) in [
            ("[heartbeat]\nperiod_ms = 0", "heartbeat.period_ms: expected 1 ms or more"),
            (
                "[controller]\nregistration_timeout_s = -1.0",
                "controller.registration_timeout_s: expected seconds, 0 or more, not -1",
            ),
            ("[controller]\nregistration_timeout_s = nan", "controller.registration_timeout_s"),
            ("[controller]\ncluster_id = \"a/b\"", "controller.cluster_id"),
            ("[[records.retention]]\nmax_age_s = -3.0", "records.retention.max_age_s: expected seconds, 0 or more, not -3"),
            ("[[records.retention]]", "a rule that limits nothing"),
            ("[records.memory]\ncull_fraction = 1.5", "records.memory.cull_fraction"),
            ("[broadcast]\ndepth = 30", "broadcast.depth: expected 0 to 12"),
            ("[scheduler]\nmax_queued_tasks = 0", "scheduler.max_queued_tasks: expected 1 or more"),
        ] {
            let error = parse_toml(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(parse_toml("").unwrap().check().is_ok());
    }

    #[test]
    fn settings_that_differ_are_named() {
        let one = parse_toml("[heartbeat]\nperiod_ms = 250\n[controller]\nlocation = \"here\"").unwrap();
        let other = parse_toml("[records]\nstore = \"sqlite\"").unwrap();
        assert_eq!(one.differences(&other), ["controller.location", "heartbeat.period_ms", "records.store"]);
        assert!(one.differences(&one).is_empty());
    }
}
