//! What a task asks for, read from a request's metadata once. Every accepted spelling becomes one form; everything else is an
//! [`InvalidSpec`] that says which key is wrong, and the client gets it as an error reply.

use std::time::Duration;

use pointsman_core::Packer;
use pointsman_policies::facts::HintError;
use pointsman_policies::{Hints, TaskFacts};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

/// Tasks that this one depends on, and which of their outcomes count (as ipyparallel's `Dependency`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The ids, without repetition.
    pub ids: Vec<Box<str>>,
    /// Whether all of them must count, or one is enough.
    pub all: bool,
    /// Whether success counts.
    pub success: bool,
    /// Whether failure counts.
    pub failure: bool,
}

impl Default for Dependency {
    fn default() -> Self {
        Dependency { ids: Vec::new(), all: true, success: true, failure: false }
    }
}

impl Dependency {
    /// All of these tasks, successfully.
    pub fn on<S: Into<Box<str>>>(ids: impl IntoIterator<Item = S>) -> Self {
        let mut ids: Vec<Box<str>> = ids.into_iter().map(Into::into).collect();
        ids.sort_unstable();
        ids.dedup();
        Dependency { ids, ..Self::default() }
    }
}

/// What a task asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct TaskSpec {
    /// Tasks that must have ended before this one starts.
    #[serde(default)]
    pub after: Dependency,
    /// Tasks on whose engine this one must run.
    #[serde(default)]
    pub follow: Dependency,
    /// Uuids of the engines it may run on; empty means any.
    #[serde(default, deserialize_with = "targets")]
    pub targets: Vec<Box<str>>,
    /// How long it may wait before each start; none means for ever.
    #[serde(default, deserialize_with = "timeout")]
    pub timeout: Option<Duration>,
    /// How often it may be tried again on another engine after failing.
    #[serde(default, deserialize_with = "retries")]
    pub retries: u32,
    /// What its label hints.
    #[serde(default)]
    pub label: Label,
    /// What policies may see of it; all but the hints, which are the label's, is filled in by whoever knows.
    #[serde(skip)]
    pub facts: TaskFacts,
    /// It was taken over from an earlier scheduler, which may have sent it after all: the first engine to answer it well answers it,
    /// whether this scheduler has sent it there or not.
    #[serde(skip)]
    pub inherited: bool,
}

/// A label, as far as it concerns scheduling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Label {
    /// What it hints.
    pub hints: Hints,
    /// The first of its hints that is none.
    pub wrong: Option<HintError>,
}

/// Labels may be any JSON; only strings hint.
impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Label;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any JSON")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Label, E> {
                let (hints, wrong) = Hints::parse(text);
                Ok(Label { hints, wrong })
            }
            fn visit_unit<E: de::Error>(self) -> Result<Label, E> {
                Ok(Label::default())
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Label, E> {
                Ok(Label::default())
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Label, E> {
                Ok(Label::default())
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Label, E> {
                Ok(Label::default())
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Label, E> {
                Ok(Label::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Label, A::Error> {
                while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(Label::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Label, A::Error> {
                while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
                Ok(Label::default())
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Metadata that says nothing a scheduler can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid task metadata: {0}")]
pub struct InvalidSpec(pub String);

impl TaskSpec {
    /// Reads the metadata of a request, which are JSON.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(metadata: &[u8]) -> Result<TaskSpec, InvalidSpec> {
        TaskSpec::read(Packer::Json, metadata)
    }

    /// Reads the metadata of a request, as its cluster packs them.
    ///
    /// # Errors
    /// If they are not an object, or a key has a type or value that it can not have.
    pub fn read(packer: Packer, metadata: &[u8]) -> Result<TaskSpec, InvalidSpec> {
        let mut spec: TaskSpec = packer.read(metadata).map_err(|error| InvalidSpec(error.to_string()))?;
        spec.facts.hints = spec.label.hints;
        Ok(spec)
    }
}

/// `null`, `[]`, `"id"`, `["id", ..]`, or `{dependencies, all, success, failure}`.
impl<'de> Deserialize<'de> for Dependency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Dependency;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a task id, a list of them, or {dependencies, all, success, failure}")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Dependency, E> {
                Ok(Dependency::default())
            }
            fn visit_str<E: de::Error>(self, id: &str) -> Result<Dependency, E> {
                Ok(if id.is_empty() { Dependency::default() } else { Dependency::on([id]) })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dependency, A::Error> {
                let mut ids: Vec<Box<str>> = Vec::new();
                while let Some(id) = seq.next_element()? {
                    ids.push(id);
                }
                Ok(Dependency::on(ids))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dependency, A::Error> {
                #[derive(Deserialize)]
                struct Table {
                    #[serde(default)]
                    dependencies: Option<Ids>,
                    #[serde(default = "yes")]
                    all: bool,
                    #[serde(default = "yes")]
                    success: bool,
                    #[serde(default)]
                    failure: bool,
                }
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Ids {
                    One(Box<str>),
                    Many(Vec<Box<str>>),
                }
                fn yes() -> bool {
                    true
                }
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let ids = match table.dependencies {
                    None => Vec::new(),
                    Some(Ids::One(id)) => vec![id],
                    Some(Ids::Many(ids)) => ids,
                };
                Ok(Dependency { all: table.all, success: table.success, failure: table.failure, ..Dependency::on(ids) })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

fn targets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Box<str>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "targets must be a list of engine uuids")]
    enum Form {
        None(()),
        One(Box<str>),
        Many(Vec<Box<str>>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::None(()) => Vec::new(),
        Form::One(uuid) => vec![uuid],
        Form::Many(uuids) => uuids,
    })
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(seconds) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    if seconds == 0.0 {
        return Ok(None);
    }
    if seconds.is_nan() || seconds < 0.0 {
        return Err(de::Error::custom("timeout must be a number of seconds, 0 for none"));
    }
    // Longer than a Duration or the driver's clock can hold means for ever.
    Ok(Duration::try_from_secs_f64(seconds).ok().filter(|timeout| timeout.as_secs() < 1 << 33))
}

fn retries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "retries must be a number, 0 or more")]
    enum Form {
        None(()),
        Whole(u64),
        Real(f64),
    }
    match Form::deserialize(deserializer)? {
        Form::None(()) => Ok(0),
        Form::Whole(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        Form::Real(n) if n >= 0.0 && n.fract() == 0.0 => Ok(n as u32),
        Form::Real(_) => Err(de::Error::custom("retries must be a whole number, 0 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TaskSpec, InvalidSpec> {
        TaskSpec::parse(text.as_bytes())
    }

    #[test]
    fn every_accepted_form_is_read() {
        let any = Dependency { all: false, success: true, failure: true, ..Dependency::on(["x", "y"]) };
        for (text, after) in [
            (r"{}", Dependency::default()),
            (r#"{"after": []}"#, Dependency::default()),
            (r#"{"after": null}"#, Dependency::default()),
            (r#"{"after": "x"}"#, Dependency::on(["x"])),
            (r#"{"after": ["y", "x", "y"]}"#, Dependency::on(["x", "y"])),
            (r#"{"after": {"dependencies": ["x", "y"], "all": false, "failure": true}}"#, any),
            (r#"{"after": {"dependencies": []}}"#, Dependency::default()),
        ] {
            assert_eq!(parse(text).unwrap().after, after, "{text}");
        }
        let spec = parse(r#"{"targets": ["a"], "timeout": 1.5, "retries": 2, "label": {"any": 1}}"#).unwrap();
        assert_eq!((spec.targets.len(), spec.timeout, spec.retries), (1, Some(Duration::from_millis(1500)), 2));
        let spec = parse(r#"{"targets": null, "timeout": null, "retries": 2.0}"#).unwrap();
        assert_eq!((spec.targets.len(), spec.timeout, spec.retries), (0, None, 2));
        assert_eq!(parse(r#"{"timeout": 1e300}"#).unwrap().timeout, None);
        let spec = parse(r##"{"label": "fit #prio=5 #cost=fast"}"##).unwrap();
        assert_eq!((spec.facts.hints.priority, spec.label.wrong.is_some()), (5.0, true));
        for label in ["null", "7", "-1.5", "true", "[1, {}]", "{}", "\"\""] {
            assert_eq!(parse(&format!("{{\"label\": {label}}}")).unwrap().label, Label::default(), "{label}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error_not_a_default() {
        for text in [
            "[]",
            "{",
            "7",
            r#"{"after": 7}"#,
            r#"{"after": [7]}"#,
            r#"{"after": {"all": "yes"}}"#,
            r#"{"targets": 3}"#,
            r#"{"targets": [1]}"#,
            r#"{"timeout": "long"}"#,
            r#"{"timeout": -1}"#,
            r#"{"retries": -1}"#,
            r#"{"retries": 1.5}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
