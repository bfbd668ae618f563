//! A configuration as a whole: whether it can be followed, and in what it differs from another.

use super::{Config, ConfigError};

impl Config {
    /// Refuses values that nothing could follow; see [`settled`](Self::settled).
    ///
    /// # Errors
    /// Names the setting, what it may be, and what it is.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.settled().map(drop)
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

#[cfg(test)]
mod tests {
    use crate::config::parse_toml;

    #[test]
    fn settings_that_differ_are_named() {
        let one = parse_toml("[heartbeat]\nperiod_ms = 250\n[controller]\nlocation = \"here\"").unwrap();
        let other = parse_toml("[records]\nstore = \"sqlite\"").unwrap();
        assert_eq!(one.differences(&other), ["controller.location", "heartbeat.period_ms", "records.store"]);
        assert!(one.differences(&one).is_empty());
    }
}
