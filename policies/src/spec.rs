//! The name of a policy and its parameters, in one type with three spellings: a TOML table, a JSON value, and the command line's
//! `name[key=value,...]`. A spelling is parsed here once and never interpreted again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A policy by name, with parameters for its configuration.
///
/// ```
/// use pointsman_policies::PolicySpec;
/// let spec: PolicySpec = "choices[d=3, memory=true]".parse()?;
/// assert_eq!((spec.name(), &spec.parameters()["d"]), ("choices", &3.into()));
/// assert_eq!(spec.to_string(), "choices[d=3,memory=true]");
/// let table: PolicySpec = serde_json::from_str(r#"{"name": "choices", "d": 3, "memory": true}"#)?;
/// assert_eq!(table, spec);
/// let spec: PolicySpec = r#"fair[by=tenant, weights={"a": 2, "b": 1}]"#.parse()?;
/// assert_eq!(spec.parameters()["weights"]["a"], 2);
/// assert_eq!(spec.to_string(), r#"fair[by=tenant,weights={"a":2,"b":1}]"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    name: String,
    parameters: Map<String, Value>,
}

impl PolicySpec {
    /// A policy without parameters.
    pub fn named(name: impl Into<String>) -> Self {
        PolicySpec { name: name.into(), parameters: Map::new() }
    }

    /// A policy with parameters.
    pub fn with(name: impl Into<String>, parameters: Map<String, Value>) -> Self {
        PolicySpec { name: name.into(), parameters }
    }

    /// The name as it was given, perhaps an alias.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters as they were given; the policy's configuration type validates them.
    pub fn parameters(&self) -> &Map<String, Value> {
        &self.parameters
    }
}

/// Why a spelling is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No name, or a name with other characters than letters, digits, `_` and `-`.
    #[error("'{0}' is not a policy name: write name or name[key=value,...]")]
    Name(String),
    /// Something of the form `key=value` where a name belongs.
    #[error("'{0}' is a parameter without its policy: write name[{0}]")]
    Bare(String),
    /// A bracket without its other half.
    #[error("'{0}': the bracket is not closed, or something follows it: write name[key=value,...]")]
    Open(String),
    /// Something other than `key=value` between the brackets.
    #[error("'{0}' is not a parameter: write key=value")]
    Parameter(String),
    /// The same key twice.
    #[error("parameter '{0}' is given twice")]
    Repeated(String),
    /// A list or table that is none.
    #[error(
        "{0}: '{1}' is not a JSON list or table: write [1, 2] or {{\"name\": 1}}, in quotes for the shell, or use a table in TOML"
    )]
    Json(String, String),
}

/// What stands between commas, except those within brackets, braces or quotes: values may be JSON lists and tables.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0 && !quoted
    })
}

impl FromStr for PolicySpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        let (name, inside) = match text.split_once('[') {
            Some((name, rest)) => (name.trim(), rest.strip_suffix(']').ok_or_else(|| SpecError::Open(text.to_owned()))?),
            None => (text, ""),
        };
        if let Some((key, _)) = name.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return Err(SpecError::Bare(text.to_owned()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(SpecError::Name(text.to_owned()));
        }
        let mut parameters = Map::new();
        for part in parts(inside).map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| SpecError::Parameter(part.to_owned()))?;
            let (key, value) = (key.trim(), value.trim());
            if key.is_empty() || !key.chars().all(plain) || value.is_empty() {
                return Err(SpecError::Parameter(part.to_owned()));
            }
            // A word that is not a JSON number, boolean or string is taken as a string, so that names need no quotes.
            let value = match serde_json::from_str(value) {
                Ok(value) => value,
                Err(_) if value.starts_with(['[', '{']) => return Err(SpecError::Json(key.to_owned(), value.to_owned())),
                Err(_) => Value::String(value.to_owned()),
            };
            if parameters.insert(key.to_owned(), value).is_some() {
                return Err(SpecError::Repeated(key.to_owned()));
            }
        }
        Ok(PolicySpec { name: name.to_owned(), parameters })
    }
}

/// Whether a string is read as itself without quotes.
fn is_plain_word(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
    !word.is_empty() && word.chars().all(plain) && serde_json::from_str::<Value>(word).is_err()
}

impl fmt::Display for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (n, (key, value)) in self.parameters.iter().enumerate() {
            f.write_str(if n == 0 { "[" } else { "," })?;
            match value {
                Value::String(word) if is_plain_word(word) => write!(f, "{key}={word}")?,
                value => write!(f, "{key}={value}")?,
            }
        }
        f.write_str(if self.parameters.is_empty() { "" } else { "]" })
    }
}

impl Serialize for PolicySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.parameters.is_empty() {
            return serializer.serialize_str(&self.name);
        }
        let mut table = Map::new();
        table.insert("name".into(), Value::String(self.name.clone()));
        table.extend(self.parameters.clone());
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PolicySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse().map_err(D::Error::custom),
            Value::Object(mut table) => {
                let Some(Value::String(name)) = table.remove("name") else {
                    return Err(D::Error::missing_field("name"));
                };
                let bare: PolicySpec = name.parse().map_err(D::Error::custom)?;
                if !bare.parameters.is_empty() {
                    return Err(D::Error::custom(format!("parameters of '{name}' belong beside its name in a table")));
                }
                Ok(PolicySpec { name: bare.name, parameters: table })
            }
            other => Err(D::Error::custom(format!("{other} is neither a policy name nor a table with one"))),
        }
    }
}
