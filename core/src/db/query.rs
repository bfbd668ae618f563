//! The query language of `db_request`: keys with values or operators, all of which must hold. Parsed once into types; evaluated the same
//! for every store. Dates compare as moments, and null matches no ordering operator (the reference fails there).

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{Key, Keys, Record};
use crate::date::Date;

/// A parsed query.
#[derive(Clone, Debug, Default)]
pub struct Query {
    terms: Vec<(Key, Test)>,
}

/// Why a query is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A key or operator that does not exist.
    #[error("{0}")]
    Unknown(String),
    /// An argument of the wrong type.
    #[error("{0}")]
    Argument(String),
}

impl QueryError {
    /// The exception name that clients see.
    pub fn ename(&self) -> &'static str {
        match self {
            QueryError::Unknown(_) => "KeyError",
            QueryError::Argument(_) => "TypeError",
        }
    }
}

/// See [`Query::necessary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Necessary<'a> {
    /// Exactly this text.
    Text(&'a str),
    /// Null or missing.
    Null,
    /// Not null.
    Something,
}

#[derive(Clone, Debug)]
enum Test {
    Order(fn(Ordering) -> bool, Scalar),
    Equal(Scalar),
    Unequal(Scalar),
    In(Vec<Scalar>),
    NotIn(Vec<Scalar>),
    Exists(bool),
    Glob(glob::Pattern),
    Mod(f64, f64),
    All(Vec<Value>),
}

/// A value that compares: dates as moments, whatever their zone.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Date(Date),
    Other(Value),
}

impl Scalar {
    fn of(value: Value) -> Scalar {
        match value.as_str().and_then(Date::parse) {
            Some(date) => Scalar::Date(date),
            None => Scalar::Other(value),
        }
    }

    /// The order of two values of one type; none for null or different types.
    fn order(&self, other: &Scalar) -> Option<Ordering> {
        match (self, other) {
            (Scalar::Date(a), Scalar::Date(b)) => Some(a.cmp(b)),
            (Scalar::Other(Value::String(a)), Scalar::Other(Value::String(b))) => Some(a.cmp(b)),
            (Scalar::Other(a), Scalar::Other(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
            _ => None,
        }
    }

    fn equals(&self, other: &Scalar) -> bool {
        self == other || self.order(other) == Some(Ordering::Equal)
    }
}

impl Query {
    /// Parses the `query` of a request.
    ///
    /// # Errors
    /// For unknown keys and operators, and arguments of the wrong type.
    pub fn parse(query: &Map<String, Value>) -> Result<Query, QueryError> {
        let mut terms = Vec::new();
        for (name, condition) in query {
            let key = Key::of(name).ok_or_else(|| QueryError::Unknown(format!("no such key in task records: '{name}'")))?;
            match condition {
                Value::Object(operators) if operators.keys().all(|op| op.starts_with('$')) => {
                    for (operator, argument) in operators {
                        terms.push((key, Test::parse(operator, argument)?));
                    }
                }
                value => terms.push((key, Test::Equal(Scalar::of(value.clone())))),
            }
        }
        Ok(Query { terms })
    }

    /// Records of an engine that have completed.
    pub fn completed_by(engine_uuid: &str) -> Query {
        let engine = Test::Equal(Scalar::Other(Value::String(engine_uuid.to_owned())));
        Query { terms: vec![(Key::EngineUuid, engine), (Key::Completed, Test::Exists(true))] }
    }

    /// Records of requests that have not completed and were submitted since, by their clients' clocks: some minutes before count as well.
    pub fn pending_since(since: Option<Date>) -> Query {
        const CLOCKS_DIFFER_US: i64 = 600_000_000;
        let submitted = match since {
            Some(date) => Test::Order(Ordering::is_ge, Scalar::Date(Date::from_unix_us(date.as_unix_us() - CLOCKS_DIFFER_US))),
            None => Test::Exists(true),
        };
        Query { terms: vec![(Key::Completed, Test::Exists(false)), (Key::Submitted, submitted)] }
    }

    /// Records that have completed.
    pub fn completed() -> Query {
        Query { terms: vec![(Key::Completed, Test::Exists(true))] }
    }

    /// Whether a record matches. O(terms), parsing only the fields that are asked about.
    pub fn matches(&self, record: &Record) -> bool {
        self.terms.iter().all(|(key, test)| test.holds(record.value(*key)))
    }

    /// The keys that it looks at.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.terms.iter().map(|(key, _)| *key)
    }

    /// Conditions that any store can test cheaply and that every match meets: a text that a key must have, nothing for null, or any
    /// value at all. What they let through is still to be tested with [`matches`](Self::matches).
    pub fn necessary(&self) -> impl Iterator<Item = (Key, Necessary<'_>)> + '_ {
        self.terms.iter().filter_map(|(key, test)| {
            let is_plain = matches!(key, Key::MsgId | Key::EngineUuid | Key::ClientUuid | Key::Queue | Key::Resubmitted);
            match test {
                Test::Equal(Scalar::Other(Value::String(text))) if is_plain => Some((*key, Necessary::Text(text))),
                Test::Equal(Scalar::Other(Value::Null)) | Test::Exists(false) => Some((*key, Necessary::Null)),
                Test::Exists(true) => Some((*key, Necessary::Something)),
                _ => None,
            }
        })
    }

    /// The only ids that can match, if the query says so: a store can look them up.
    pub fn only_ids(&self) -> Option<Vec<&str>> {
        self.terms.iter().find_map(|(key, test)| match (key, test) {
            (Key::MsgId, Test::Equal(one)) => Some(one.text().into_iter().collect()),
            (Key::MsgId, Test::In(many)) => Some(many.iter().filter_map(Scalar::text).collect()),
            _ => None,
        })
    }
}

impl Scalar {
    fn text(&self) -> Option<&str> {
        match self {
            Scalar::Other(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

impl Test {
    fn parse(operator: &str, argument: &Value) -> Result<Test, QueryError> {
        let wants = |what: &str| QueryError::Argument(format!("{operator} takes {what}, not {argument}"));
        let list = || argument.as_array().cloned().ok_or_else(|| wants("a list"));
        let scalars = || Ok::<_, QueryError>(list()?.into_iter().map(Scalar::of).collect());
        let scalar = || Scalar::of(argument.clone());
        let ordered = |test: fn(Ordering) -> bool| match argument {
            Value::String(_) | Value::Number(_) => Ok(Test::Order(test, scalar())),
            _ => Err(wants("a number, a string or a date")),
        };
        match operator {
            "$eq" => Ok(Test::Equal(scalar())),
            "$ne" => Ok(Test::Unequal(scalar())),
            "$lt" => ordered(Ordering::is_lt),
            "$lte" => ordered(Ordering::is_le),
            "$gt" => ordered(Ordering::is_gt),
            "$gte" => ordered(Ordering::is_ge),
            "$in" => Ok(Test::In(scalars()?)),
            "$nin" => Ok(Test::NotIn(scalars()?)),
            "$exists" => Ok(Test::Exists(argument.as_bool().unwrap_or(!argument.is_null() && *argument != 0))),
            "$all" => Ok(Test::All(list()?)),
            "$mod" => match list()?.as_slice() {
                [modulus, rest] => match (modulus.as_f64(), rest.as_f64()) {
                    (Some(modulus), Some(rest)) if modulus != 0.0 => Ok(Test::Mod(modulus, rest)),
                    _ => Err(wants("[modulus, remainder] with a modulus other than 0")),
                },
                _ => Err(wants("[modulus, remainder]")),
            },
            "$glob" => {
                let pattern = argument.as_str().ok_or_else(|| wants("a pattern"))?;
                // The matcher recurses for each star.
                if pattern.len() > 512 || pattern.matches('*').count() > 16 {
                    return Err(QueryError::Argument("$glob takes a pattern of at most 512 bytes and 16 stars".into()));
                }
                // A shell's `**` is `*` twice; the library gives it a meaning for paths.
                let mut plain = pattern.to_owned();
                while plain.contains("**") {
                    plain = plain.replace("**", "*");
                }
                Ok(Test::Glob(glob::Pattern::new(&plain).map_err(|error| wants(&format!("a pattern ({error})")))?))
            }
            _ => Err(QueryError::Unknown(format!("no such operator: '{operator}'"))),
        }
    }

    fn holds(&self, value: Value) -> bool {
        let is_null = value.is_null();
        match self {
            Test::Exists(wanted) => *wanted != is_null,
            Test::Glob(pattern) => value.as_str().is_some_and(|text| pattern.matches(text)),
            Test::Mod(modulus, rest) => value.as_f64().is_some_and(|value| value.rem_euclid(*modulus) == *rest),
            Test::All(all) => !is_null && all.iter().all(|within| contains(within, &value)),
            Test::Order(test, argument) => Scalar::of(value).order(argument).is_some_and(test),
            Test::Equal(argument) => Scalar::of(value).equals(argument),
            Test::Unequal(argument) => !Scalar::of(value).equals(argument),
            Test::In(list) => {
                let value = Scalar::of(value);
                list.iter().any(|argument| value.equals(argument))
            }
            Test::NotIn(list) => {
                let value = Scalar::of(value);
                !list.iter().any(|argument| value.equals(argument))
            }
        }
    }
}

/// Whether `value` is in `whole`: an element of a list, a key of an object, a part of a string.
fn contains(whole: &Value, value: &Value) -> bool {
    match (whole, value) {
        (Value::String(whole), Value::String(part)) => whole.contains(part.as_str()),
        (Value::Array(list), value) => list.contains(value),
        (Value::Object(map), Value::String(key)) => map.contains_key(key),
        _ => false,
    }
}

impl Keys {
    /// Parses the `keys` of a request.
    ///
    /// # Errors
    /// For a key that no record has.
    pub fn parse(names: &[String]) -> Result<Keys, QueryError> {
        let mut keys = Keys::default();
        for name in names {
            match (name.as_str(), Key::of(name)) {
                ("buffers", _) => keys.buffers = true,
                ("result_buffers", _) => keys.result_buffers = true,
                (_, Some(key)) => keys.keys.push(key),
                (_, None) => return Err(QueryError::Unknown(format!("no such key in task records: '{name}'"))),
            }
        }
        if keys.keys.is_empty() && (keys.buffers || keys.result_buffers) {
            keys.keys.push(Key::MsgId); // only buffers were asked for, not every key
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record() -> Record {
        let mut record = Record::new("a_1_2");
        let patch = super::super::Patch::default()
            .text(Key::Submitted, "2026-11-21T03:00:00Z")
            .value(Key::Header, &json!({"x": 1}))
            .text(Key::Queue, "task")
            .value(Key::Label, &json!(7));
        record.merge(&patch);
        record
    }

    #[test]
    fn operators_mean_what_they_say() {
        let record = record();
        for (query, expected) in [
            (json!({}), true),
            (json!({"queue": {}}), true),
            (json!({"queue": "task"}), true),
            (json!({"queue": "task", "msg_id": "other"}), false),
            (json!({"msg_id": "other", "queue": "task"}), false),
            (json!({"completed": null}), true),
            (json!({"queue": null}), false),
            (json!({"submitted": {"$gt": "2026-11-21T03:59:00+01:00"}}), true),
            (json!({"submitted": {"$gt": "2026-11-21T04:00:00+01:00"}}), false),
            (json!({"submitted": {"$gte": "2026-11-21T04:00:00+01:00", "$lt": "2026-11-21T03:00:01Z"}}), true),
            (json!({"submitted": "2026-11-21T04:00:00+01:00"}), true),
            (json!({"completed": {"$lt": "2027-01-01T00:00:00Z"}}), false),
            (json!({"label": {"$gt": 6}}), true),
            (json!({"label": {"$lte": 6.5}}), false),
            (json!({"label": {"$mod": [4, 3]}}), true),
            (json!({"label": {"$in": [1, 7]}}), true),
            (json!({"label": {"$nin": [1, 7]}}), false),
            (json!({"completed": {"$in": [null]}}), true),
            (json!({"label": {"$ne": 7}}), false),
            (json!({"completed": {"$exists": false}, "queue": {"$exists": true}}), true),
            (json!({"msg_id": {"$glob": "a_*_[0-9]"}}), true),
            (json!({"msg_id": {"$glob": "**2"}}), true),
            (json!({"msg_id": {"$glob": "?"}}), false),
            (json!({"queue": {"$all": ["task", ["mux", "task"]]}}), true),
            (json!({"queue": {"$all": ["mux"]}}), false),
        ] {
            let parsed = Query::parse(query.as_object().unwrap()).unwrap();
            assert_eq!(parsed.matches(&record), expected, "{query}");
        }
    }

    #[test]
    fn nonsense_is_an_error_of_the_right_name() {
        for (query, ename) in [
            (json!({"nokey": 1}), "KeyError"),
            (json!({"queue": {"$like": 1}}), "KeyError"),
            (json!({"queue": {"$in": 1}}), "TypeError"),
            (json!({"queue": {"$lt": null}}), "TypeError"),
            (json!({"queue": {"$mod": [0, 1]}}), "TypeError"),
            (json!({"queue": {"$glob": "[a"}}), "TypeError"),
            (json!({"queue": {"$glob": "*a".repeat(50_000)}}), "TypeError"),
        ] {
            assert_eq!(Query::parse(query.as_object().unwrap()).unwrap_err().ename(), ename, "{query}");
        }
    }
}
