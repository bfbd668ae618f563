//! Levels of logging, in the words and numbers that people use for them. A word that is none is refused: taken for the name of a module, it
//! would silence everything.

use serde::{Deserialize, Deserializer};

/// What a level may be, for messages.
pub(super) const EXPECTED: &str = "trace, debug, info, warn (or warning), error (or critical, fatal), off, a number of Python's from 0 to \
                                   50, or module=level, several with commas";

/// The filter that a level means: one of `trace`, `debug`, `info`, `warn`, `error`, `off`, or filters by module as they are. Nothing if it is none.
pub(super) fn filter(level: &str) -> Option<String> {
    let level = level.trim();
    if let Some(word) = word(level) {
        return Some(word.to_owned());
    }
    let directives: Option<Vec<String>> = level.split(',').map(|directive| directive_of(directive.trim())).collect();
    directives.filter(|_| level.contains('=')).map(|all| all.join(","))
}

fn directive_of(directive: &str) -> Option<String> {
    match directive.rsplit_once('=') {
        Some((module, level)) if !module.trim().is_empty() => Some(format!("{}={}", module.trim(), word(level.trim())?)),
        Some(_) => None,
        None => word(directive).map(str::to_owned),
    }
}

fn word(level: &str) -> Option<&'static str> {
    Some(match level.to_ascii_lowercase().as_str() {
        "trace" | "notset" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" => "error",
        "off" => "off",
        number => match number.parse::<u8>().ok()? {
            0 => "trace",
            1..=10 => "debug",
            11..=20 => "info",
            21..=30 => "warn",
            31..=50 => "error",
            _ => return None,
        },
    })
}

/// A level in TOML: text, or a number.
pub(super) fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a level of logging: a word or a number")]
    enum Level {
        Text(String),
        Number(i64),
    }
    Ok(match Level::deserialize(from)? {
        Level::Text(text) => text,
        Level::Number(number) => number.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_words_and_numbers_are_levels_and_nothing_else_is() {
        for (level, means) in [
            ("debug", "debug"),
            ("Warning", "warn"),
            ("warn", "warn"),
            ("CRITICAL", "error"),
            ("fatal", "error"),
            ("10", "debug"),
            ("20", "info"),
            ("30", "warn"),
            ("40", "error"),
            ("50", "error"),
            ("0", "trace"),
            ("off", "off"),
            ("pointsman_core=debug", "pointsman_core=debug"),
            ("warn, pointsman_core::hub=10", "warn,pointsman_core::hub=debug"),
        ] {
            assert_eq!(filter(level).as_deref(), Some(means), "{level}");
        }
        for level in ["", "verbose", "inof", "51", "-1", "1e1", "info,", "hub", "a=b", "=info", "info,hub", "10.0"] {
            assert_eq!(filter(level), None, "{level}");
        }
    }
}
