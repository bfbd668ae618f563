//! The TOML file: `deny_unknown_fields` everywhere, and for a name that nobody has, the one that was probably meant.

use std::path::Path;

use super::{Config, ConfigError};

/// Reads a TOML file over what is configured already: what it does not name stays.
///
/// # Errors
/// If it can not be read or is not a configuration; with the line, and the nearest name for an unknown one.
pub fn read_toml_over(base: &Config, path: &Path) -> Result<Config, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    parse_toml(&text).map_err(failed)?; // alone first, so that errors have their line
    let mut whole = toml::Table::try_from(base).map_err(|error| failed(error.to_string()))?;
    overlay(&mut whole, text.parse().map_err(|error: toml::de::Error| failed(error.to_string()))?);
    whole.try_into().map_err(|error: toml::de::Error| failed(error.to_string()))
}

/// The settings whose parameters belong to their name.
const POLICIES: [&str; 4] = ["placement", "order", "admission", "rebalance"];

/// Tables are merged; a policy is replaced whole.
fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) if !POLICIES.contains(&key.as_str()) => {
                overlay(below, above);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Parses TOML over the defaults.
///
/// # Errors
/// Says where and what, as text for people.
pub fn parse_toml(text: &str) -> Result<Config, String> {
    toml::from_str(text).map_err(|error| {
        let mut report = error.to_string();
        if let Some(nearest) = nearest_name(error.message()) {
            report.push_str(&format!("did you mean `{nearest}`?\n"));
        } else if let Some((_, now)) =
            MOVED.iter().find(|(was, _)| error.message().starts_with(&format!("unknown field `{was}`")))
        {
            report.push_str(&format!("it is {now} now\n"));
        }
        report
    })
}

/// Settings that were elsewhere once.
const MOVED: [(&str, &str); 3] = [
    ("scheme", "`placement` under [policy]"),
    ("hwm", "`admission = \"fixed[hwm=N]\"` under [policy]"),
    ("seed", "`seed` under [policy]"),
];

/// The expected name most like the unknown one, from serde's sentence about both.
fn nearest_name(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown "))?;
    pointsman_policies::nearest(unknown, quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_has_two_spellings_in_toml() {
        let config =
            parse_toml("[policy]\nplacement = \"lru\"\nadmission = \"fixed[hwm=4]\"\n[heartbeat]\nperiod_ms = 250\n").unwrap();
        let hwm = config.policy.admission.map(|spec| spec.to_string());
        assert_eq!(
            (config.policy.placement.name(), hwm.as_deref(), config.heartbeat.period_ms),
            ("lru", Some("fixed[hwm=4]"), 250)
        );
        let config = parse_toml("[policy.placement]\nname = \"choices\"\nd = 3\n").unwrap();
        assert_eq!(config.policy.placement.to_string(), "choices[d=3]");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest() {
        let error = parse_toml("[policy]\nplacemnet = \"lru\"\n").unwrap_err();
        assert!(error.contains("did you mean `placement`?") && error.contains("line 2"), "{error}");
        let error = parse_toml("[scheduler]\nscheme = \"lru\"\n").unwrap_err();
        assert!(error.contains("it is `placement` under [policy] now"), "{error}");
        let error = parse_toml("[heartbeats]\n").unwrap_err();
        assert!(error.contains("did you mean `heartbeat`?"), "{error}");
        let error = parse_toml("[records]\nstore = \"sqllite\"\n").unwrap_err();
        assert!(error.contains("did you mean `sqlite`?"), "{error}");
        assert!(parse_toml("[heartbeat]\nperiod_ms = \"soon\"\n").is_err());
    }

    #[test]
    fn the_defaults_survive_a_round_trip() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(parse_toml(&text).unwrap(), Config::default());
    }
}
