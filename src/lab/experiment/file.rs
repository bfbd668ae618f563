//! The file of an experiment: what every point has, and what is varied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::keys::{KEYS, nearest, why_needless};
use super::point::Point;
use crate::lab::measure::METRICS;

/// Why a file is no experiment.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// It is not as it is written.
    #[error("{0}")]
    Toml(String),
    /// Something in it is not as it must be.
    #[error("{0}")]
    Wrong(String),
}

/// The file as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    about: String,
    #[serde(default = "one")]
    seed: u64,
    #[serde(default = "five")]
    replications: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    precision: Option<f64>,
    #[serde(default = "response")]
    precision_of: String,
    #[serde(default = "thirty")]
    replications_max: u32,
    #[serde(default = "yes")]
    references: bool,
    #[serde(default)]
    metrics: Vec<String>,
    #[serde(default)]
    base: Table,
    #[serde(default)]
    factors: Table,
}

fn one() -> u64 {
    1
}

fn five() -> u32 {
    5
}

fn thirty() -> u32 {
    30
}

fn yes() -> bool {
    true
}

fn response() -> String {
    "response_mean_s".into()
}

/// An experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// What it is called.
    pub name: String,
    /// What it asks.
    pub about: String,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// How often each point is run, at least.
    pub replications: u32,
    /// The half width of the confidence interval of 95 %, relative to the mean, at which a point is known well enough.
    pub precision: Option<f64>,
    /// Of which metric.
    pub precision_of: String,
    /// How often a point is run at most for that.
    pub replications_max: u32,
    /// Metrics that reports show, in order.
    pub metrics: Vec<String>,
    written: Written,
    folder: PathBuf,
    /// Keys that are varied, and for each point their values.
    factors: Vec<String>,
    levels: Vec<Vec<String>>,
    points: Vec<Point>,
}

/// The keys of a point that choose policies; all others are of the world around them.
pub const POLICY_KEYS: [&str; 5] = ["placement", "order", "admission", "rebalance", "hwm"];

/// No experiment has more points.
const MOST_POINTS: usize = 100_000;

impl Experiment {
    /// Reads an experiment. Files that it names are found from `folder`.
    ///
    /// # Errors
    /// If it is not as it must be: with the line, or the key.
    pub fn parse(text: &str, folder: &Path) -> Result<Experiment, ExperimentError> {
        let written: Written = toml::from_str(text).map_err(|error| ExperimentError::Toml(error.to_string()))?;
        Experiment::of(written, folder)
    }

    fn of(written: Written, folder: &Path) -> Result<Experiment, ExperimentError> {
        let wrong = |what: String| ExperimentError::Wrong(what);
        if written.replications == 0 {
            return Err(wrong("replications must be at least 1".into()));
        }
        if written.precision.is_some_and(|precision| !(precision > 0.0 && precision < 1.0)) {
            return Err(wrong("precision must be between 0 and 1, such as 0.01".into()));
        }
        let names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        for name in written.metrics.iter().chain([&written.precision_of]) {
            if !names.contains(&name.as_str()) {
                return Err(wrong(format!("'{name}' is no metric: there are {}", names.join(", "))));
            }
        }
        check_name(&written.name).map_err(wrong)?;
        if written.replications_max < written.replications && written.precision.is_some() {
            return Err(wrong("replications_max must not be below replications".into()));
        }
        let (factors, crossed) = cross(&written).map_err(wrong)?;
        let (points, all_levels) = points_of(&written.base, &factors, crossed).map_err(wrong)?;
        let mut experiment = Experiment {
            name: written.name.clone(),
            about: written.about.clone(),
            seed: written.seed,
            replications: written.replications,
            precision: written.precision,
            precision_of: written.precision_of.clone(),
            replications_max: written.replications_max,
            metrics: if written.metrics.is_empty() {
                ["response_mean_s", "response_p99_s", "slowdown_mean", "utilisation"].map(str::to_owned).to_vec()
            } else {
                written.metrics.clone()
            },
            folder: folder.to_owned(),
            factors,
            levels: all_levels,
            points,
            written,
        };
        if experiment.written.references {
            experiment.add_references();
        }
        Ok(experiment)
    }

    /// The bracket around policies comes first: for each combination of what is not a policy, the disciplines that it can have.
    fn add_references(&mut self) {
        let Some(axis) = self.factors.iter().position(|factor| factor == "placement") else { return };
        let mut seen: Vec<Vec<String>> = Vec::new();
        let (mut points, mut levels) = (Vec::new(), Vec::new());
        for (point, own) in self.points.iter().zip(&self.levels) {
            let others: Vec<String> = self
                .factors
                .iter()
                .zip(own)
                .filter(|(factor, _)| !POLICY_KEYS.contains(&factor.as_str()))
                .map(|(_, level)| level.clone())
                .collect();
            if point.reference().is_some() || seen.contains(&others) {
                continue;
            }
            seen.push(others);
            for name in super::warn::references_of(point) {
                let placement = format!("~{name}");
                let mut level: Vec<String> = self
                    .factors
                    .iter()
                    .zip(own)
                    .map(|(factor, level)| if POLICY_KEYS.contains(&factor.as_str()) { "-".into() } else { level.clone() })
                    .collect();
                level[axis].clone_from(&placement);
                points.push(Point { placement, ..point.clone() });
                levels.push(level);
            }
        }
        points.append(&mut self.points);
        levels.append(&mut self.levels);
        (self.points, self.levels) = (points, levels);
    }

    /// The experiment as it was understood: what is kept beside results, and read again by reports.
    pub fn to_toml(&self) -> String {
        // What came from TOML goes into it.
        toml::to_string(&self.written).unwrap_or_default()
    }

    /// Where files are found from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every point, references first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// What is varied.
    pub fn factors(&self) -> &[String] {
        &self.factors
    }

    /// The values of a point, one for each factor.
    pub fn levels(&self, point: usize) -> &[String] {
        &self.levels[point]
    }

    /// A point in words.
    pub fn describe(&self, point: usize) -> String {
        let parts = self.factors.iter().zip(&self.levels[point]).filter(|(_, level)| *level != "-");
        let parts: Vec<String> = parts.map(|(factor, level)| format!("{factor} {level}")).collect();
        if parts.is_empty() { "the only one".into() } else { parts.join(", ") }
    }
}

/// A name is that of a folder as well.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',' | '+' | '(' | ')');
    if name.trim().is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(format!(
            "name = {name:?}: results are kept in a folder of this name: give letters, digits, spaces and any of -_.,+(), not beginning with a dot"
        ));
    }
    Ok(())
}

/// The keys that one point takes from factors, each with its value and the factor that it is of, and what reports call the levels.
#[derive(Clone, Default)]
struct Level {
    keys: Vec<(String, Value, String)>,
    names: Vec<String>,
}

/// The names of the factors, and every combination of their values.
fn cross(written: &Written) -> Result<(Vec<String>, Vec<Level>), String> {
    let mut combined = vec![Level::default()];
    for (factor, values) in &written.factors {
        let Value::Array(values) = values else { return Err(format!("factors.{factor} must be a list of values")) };
        if values.is_empty() {
            return Err(format!("factors.{factor} has no value"));
        }
        let mut next = Vec::with_capacity(combined.len() * values.len());
        if combined.len() * values.len() > MOST_POINTS {
            return Err(format!("more than {MOST_POINTS} points"));
        }
        for level in &combined {
            for value in values {
                let mut level = level.clone();
                level.names.push(show(value));
                // A factor may set several keys at once: its values are tables then, unless it is a key that takes one.
                match value {
                    Value::Table(several) if factor != "columns" => {
                        for (key, value) in several.iter().filter(|(key, _)| *key != "name") {
                            add(&mut level, key, value, factor)?;
                        }
                    }
                    single => add(&mut level, factor, single, factor)?,
                }
                next.push(level);
            }
        }
        combined = next;
    }
    Ok((written.factors.keys().cloned().collect(), combined))
}

fn add(level: &mut Level, key: &str, value: &Value, factor: &str) -> Result<(), String> {
    check_key(key, &if key == factor { format!("factors.{factor}") } else { format!("factors.{factor}: {key}") })?;
    if let Some((_, _, other)) = level.keys.iter().find(|(known, ..)| known == key) {
        return Err(format!("factors.{other} and factors.{factor} both set {key}: one of them would have no effect"));
    }
    level.keys.push((key.to_owned(), value.clone(), factor.to_owned()));
    Ok(())
}

fn check_key(key: &str, place: &str) -> Result<(), String> {
    if KEYS.contains(&key) {
        return Ok(());
    }
    let guess = nearest(key).map_or_else(|| format!("there are {}", KEYS.join(", ")), |near| format!("did you mean `{near}`?"));
    Err(format!("{place}: no such key; {guess}"))
}

/// The points of all combinations, with what reports call their levels. What is varied must have an effect on every point; what all have in common, on
/// one of them.
fn points_of(base: &Table, factors: &[String], levels: Vec<Level>) -> Result<(Vec<Point>, Vec<Vec<String>>), String> {
    for key in base.keys() {
        check_key(key, &format!("base.{key}"))?;
    }
    let parse = |table: &Table, names: &[String]| {
        let named = factors.iter().zip(names).map(|(factor, level)| format!("{factor} {level}")).collect::<Vec<_>>().join(", ");
        let place = if named.is_empty() { "base".to_owned() } else { format!("base and factors ({named})") };
        table.clone().try_into::<Point>().map_err(|error| format!("{place}: {}", error.message()))
    };
    let mut idle: BTreeMap<&String, &'static str> = BTreeMap::new();
    let mut used: BTreeSet<&String> = BTreeSet::new();
    let (mut points, mut names) = (Vec::new(), Vec::new());
    for level in levels {
        let mut table = base.clone();
        table.extend(level.keys.iter().map(|(key, value, _)| (key.clone(), value.clone())));
        let mut point = parse(&table, &level.names)?;
        for (key, value, factor) in &level.keys {
            if let Some(why) = why_needless(&point, key) {
                let place = if key == factor { format!("factors.{factor}") } else { format!("factors.{factor}: {key}") };
                return Err(format!("{place} = {} has no effect: {why}", show(value)));
            }
        }
        let own = |key: &String| level.keys.iter().any(|(known, ..)| known == key);
        let mut cleared = false;
        for key in base.keys().filter(|key| !own(key)) {
            match why_needless(&point, key) {
                Some(why) => {
                    idle.insert(key, why);
                    table.remove(key);
                    cleared = true;
                }
                None => drop(used.insert(key)),
            }
        }
        // What has no effect on a point is not part of it.
        if cleared {
            point = parse(&table, &level.names)?;
        }
        points.push(point);
        names.push(level.names);
    }
    match idle.into_iter().find(|(key, _)| !used.contains(key)) {
        Some((key, why)) => Err(format!("base.{key} has no effect: {why}")),
        None => Ok((points, names)),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Table(several) => match several.get("name") {
            Some(Value::String(name)) => name.clone(),
            _ => several.iter().map(|(key, value)| format!("{key}={}", show(value))).collect::<Vec<_>>().join(" "),
        },
        Value::Array(values) => values.iter().map(show).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        name = "x"
        [base]
        engines = 4
        [factors]
        placement = ["leastload", "plainrandom"]
        load = [0.5, 0.9]
    "#;

    #[test]
    fn factors_are_crossed_behind_their_references() {
        let experiment = Experiment::parse(FILE, Path::new(".")).unwrap();
        assert_eq!(experiment.points().len(), 2 * 5 + 4);
        let load = experiment.factors().iter().position(|factor| factor == "load").unwrap();
        assert!(experiment.points()[..10].iter().all(|point| point.reference().is_some()));
        assert_eq!(experiment.levels(13)[load], "0.9");
        assert_eq!((experiment.points()[13].engines, experiment.points()[13].load), (4, Some(0.9)));
        let again = Experiment::parse(&experiment.to_toml(), Path::new(".")).unwrap();
        assert_eq!(again.points(), experiment.points());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (change, says) in [
            (("engines = 4", "engine = 4"), "base.engine: no such key; did you mean `engines`?"),
            (("load = [0.5, 0.9]", "load = 0.5"), "factors.load must be a list"),
            (("load = [0.5, 0.9]", "speed = [1]"), "factors.speed: no such key; did you mean `speeds`?"),
            (("load = [0.5, 0.9]", "load = [0.5, \"a\"]"), "(load a, placement leastload)"),
            (("name = \"x\"", "name = \"x\"\nprecision = 0.1\nreplications_max = 2"), "replications_max must not be below"),
            (("name = \"x\"", "name = \"x\"\nprecision = 2.0"), "precision must be"),
            (("name = \"x\"", "name = \"x\"\nmetrics = [\"speed\"]"), "'speed' is no metric"),
            (("name = \"x\"", "name = x"), "line 2"),
        ] {
            let error = Experiment::parse(&FILE.replace(change.0, change.1), Path::new(".")).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
