//! Which schemes there are: an explicit value, filled by whoever assembles the program. There is no global table, a name can not be
//! taken twice, and an unknown name or parameter is answered with the known ones.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Needs, Scheme, SchemeSpec, schemes};

/// A scheme that can be chosen by name.
pub trait Named: Scheme + Sized + 'static {
    /// What configuration calls it.
    const NAME: &'static str;
    /// One line for people who choose.
    const SUMMARY: &'static str;
    /// Other names for it.
    const ALIASES: &'static [&'static str] = &[];
    /// What it has to be told.
    const NEEDS: Needs = Needs { latency: false };
    /// The hwm it is meant to run with, where that is not the controller's default.
    const DEFAULT_HWM: Option<u32> = None;
    /// Its parameters: a struct with defaults that denies unknown fields.
    type Config: DeserializeOwned + Serialize + Default;

    /// Makes one.
    ///
    /// # Errors
    /// If the parameters make no sense together.
    fn build(config: Self::Config) -> Result<Self, SchemeError>;
}

/// Why there is no such scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// A name that nobody registered.
    #[error("no scheme is called '{name}'{}; known: {known}", hint(.nearest.as_deref()))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The registered name most like it.
        nearest: Option<String>,
        /// All registered names.
        known: String,
    },
    /// Parameters that the scheme does not take.
    #[error("scheme '{name}': {reason}")]
    Parameters {
        /// The scheme.
        name: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// A name or alias that is taken.
    #[error("two schemes are called '{0}'")]
    Taken(&'static str),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" (did you mean '{nearest}'?)")).unwrap_or_default()
}

type Build = Box<dyn Fn(&Map<String, Value>) -> Result<Box<dyn Scheme>, SchemeError> + Send + Sync>;

/// What is known of a registered scheme.
pub struct Entry {
    /// What configuration calls it.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// One line for people who choose.
    pub summary: &'static str,
    /// What it has to be told.
    pub needs: Needs,
    /// The hwm it is meant to run with, if it has a view on that.
    pub default_hwm: Option<u32>,
    /// Its parameters with their defaults.
    pub defaults: Map<String, Value>,
    build: Build,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).field("defaults", &self.defaults).finish_non_exhaustive()
    }
}

/// The schemes that a program knows.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// No schemes at all.
    pub fn empty() -> Self {
        Registry::default()
    }

    /// The schemes of this crate.
    pub fn builtin() -> Self {
        let mut registry = Registry::empty();
        // The names below are distinct constants, so none of these can fail; a test registers them and would show it.
        let _ = registry.register::<schemes::LeastLoad>();
        let _ = registry.register::<schemes::Lru>();
        let _ = registry.register::<schemes::PlainRandom>();
        let _ = registry.register::<schemes::Pure>();
        let _ = registry.register::<schemes::TwoBin>();
        let _ = registry.register::<schemes::Weighted>();
        registry
    }

    /// Adds a scheme.
    ///
    /// # Errors
    /// [`SchemeError::Taken`] if its name or an alias is in use; nothing is added then.
    pub fn register<S: Named>(&mut self) -> Result<&mut Self, SchemeError> {
        for name in std::iter::once(&S::NAME).chain(S::ALIASES) {
            if self.find(name).is_some() {
                return Err(SchemeError::Taken(name));
            }
        }
        let defaults = match serde_json::to_value(S::Config::default()) {
            Ok(Value::Object(defaults)) => defaults,
            _ => Map::new(),
        };
        let build = |parameters: &Map<String, Value>| -> Result<Box<dyn Scheme>, SchemeError> {
            let config = serde_json::from_value(Value::Object(parameters.clone()))
                .map_err(|error| SchemeError::Parameters { name: S::NAME, reason: error.to_string() })?;
            Ok(Box::new(S::build(config)?))
        };
        self.entries.push(Entry {
            name: S::NAME,
            aliases: S::ALIASES,
            summary: S::SUMMARY,
            needs: S::NEEDS,
            default_hwm: S::DEFAULT_HWM,
            defaults,
            build: Box::new(build),
        });
        Ok(self)
    }

    /// Every scheme, in the order of registration.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The scheme of a name or alias.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
    }

    /// The scheme that `spec` names.
    ///
    /// # Errors
    /// [`SchemeError::Unknown`], with the nearest known name.
    pub fn resolve(&self, spec: &SchemeSpec) -> Result<&Entry, SchemeError> {
        self.find(spec.name()).ok_or_else(|| {
            let names = || self.entries.iter().flat_map(|entry| std::iter::once(&entry.name).chain(entry.aliases));
            let nearest = names()
                .map(|name| (strsim::jaro_winkler(name, &spec.name().to_lowercase()), name))
                .filter(|(likeness, _)| *likeness > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            SchemeError::Unknown {
                name: spec.name().to_owned(),
                nearest: nearest.map(|(_, name)| (*name).to_owned()),
                known: names().copied().collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// Makes the scheme that `spec` describes.
    ///
    /// # Errors
    /// If the name is unknown or the parameters are not the scheme's.
    pub fn build(&self, spec: &SchemeSpec) -> Result<Box<dyn Scheme>, SchemeError> {
        (self.resolve(spec)?.build)(spec.parameters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_names_are_those_of_ipyparallel() {
        let names: Vec<_> = Registry::builtin().entries().iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["leastload", "lru", "plainrandom", "pure", "twobin", "weighted"]);
    }

    #[test]
    fn a_wrong_name_or_parameter_is_answered_with_the_right_ones() {
        let registry = Registry::builtin();
        let error = registry.build(&SchemeSpec::named("leastlaod")).err().unwrap().to_string();
        assert!(error.contains("did you mean 'leastload'?") && error.contains("twobin"), "{error}");
        let error = registry.build(&"lru[d=2]".parse().unwrap()).err().unwrap().to_string();
        assert!(error.contains("unknown field `d`"), "{error}");
    }

    #[test]
    fn a_name_can_not_be_taken_twice() {
        let mut registry = Registry::builtin();
        assert_eq!(registry.register::<schemes::Lru>().err(), Some(SchemeError::Taken("lru")));
    }
}
