//! Which policies there are, on each of the four axes: an explicit value, filled by whoever assembles the program. There is no global
//! table, a name can not be taken twice, and an unknown name or parameter is answered with the known ones.

use std::ops::RangeInclusive;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Admission, Needs, Order, PolicySpec, Rebalance, Scheme, admission, nearest, order, plain_words, rebalance, schemes};

/// What a policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// Which engine takes a task: a [`Scheme`].
    Placement,
    /// Which task goes next: an [`Order`].
    Order,
    /// How many tasks an engine may have: an [`Admission`].
    Admission,
    /// Whether a task that was sent is left where it is: a [`Rebalance`].
    Rebalance,
}

impl Axis {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Axis; 4] = [Axis::Placement, Axis::Order, Axis::Admission, Axis::Rebalance];

    /// Its name in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Axis::Placement => "placement",
            Axis::Order => "order",
            Axis::Admission => "admission",
            Axis::Rebalance => "rebalance",
        }
    }

    /// What a policy on it is called in a sentence.
    const fn noun(self) -> &'static str {
        match self {
            Axis::Placement => "placement",
            Axis::Order => "order",
            Axis::Admission => "admission policy",
            Axis::Rebalance => "rebalance policy",
        }
    }
}

/// How many tasks an engine may have (hwm) where a policy can do what it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Any number.
    #[default]
    Any,
    /// More than one, or no limit: it acts on tasks that wait on an engine.
    Several,
    /// Some limit: without one the first engine is never full.
    Limited,
    /// No limit: where each task belongs it must be able to go.
    Unlimited,
}

/// A policy that can be chosen by name.
pub trait Named: Sized + 'static {
    /// What configuration calls it.
    const NAME: &'static str;
    /// One line for people who choose.
    const SUMMARY: &'static str;
    /// Where the rule comes from.
    const SOURCE: &'static str = "";
    /// Other names for it.
    const ALIASES: &'static [&'static str] = &[];
    /// Each parameter with its meaning, unit and range, in one line.
    const PARAMETERS: &'static [(&'static str, &'static str)] = &[];
    /// The hwm that a scheme is meant to run with, where that is not the controller's default.
    const DEFAULT_HWM: Option<u32> = None;
    /// The limits under which it can do what it is for.
    const ROOM: Room = Room::Any;
    /// The hints that a label must have for it to treat tasks differently, such as `#prio=`; none if it does without.
    const LABELS: &'static [&'static str] = &[];
    /// Its parameters: a struct with defaults that denies unknown fields.
    type Config: DeserializeOwned + Serialize + Default;

    /// Makes one.
    ///
    /// # Errors
    /// If a parameter is out of range or they make no sense together.
    fn build(config: Self::Config) -> Result<Self, PolicyError>;
}

/// Why there is no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A name that nobody registered on this axis.
    #[error("no {noun} is called '{name}'{}; known: {known}", hint(.nearest.as_deref()))]
    Unknown {
        /// What the axis' policies are called.
        noun: &'static str,
        /// The name asked for.
        name: String,
        /// The registered name most like it.
        nearest: Option<String>,
        /// All registered names.
        known: String,
    },
    /// A policy that decides something else.
    #[error("'{name}' decides the {}, not the {}: give it as `{}`", .is.name(), .asked.name(), .is.name())]
    OtherAxis {
        /// The policy.
        name: String,
        /// What it decides.
        is: Axis,
        /// What was to be decided.
        asked: Axis,
    },
    /// Parameters that the policy does not take.
    #[error("{name}: {reason}")]
    Parameters {
        /// The policy.
        name: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// A name or alias that is taken.
    #[error("two policies are called '{0}'")]
    Taken(&'static str),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" (did you mean '{nearest}'?)")).unwrap_or_default()
}

/// Checks that a parameter is in its range.
///
/// # Errors
/// Names the policy, the parameter, and the range.
pub fn in_range<T: PartialOrd + std::fmt::Display>(
    policy: &'static str,
    parameter: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, PolicyError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let reason = format!("{parameter} must be from {} to {}, not {value}", range.start(), range.end());
    Err(PolicyError::Parameters { name: policy, reason })
}

type Build<T> = Box<dyn Fn(&Map<String, Value>) -> Result<Box<T>, PolicyError> + Send + Sync>;

type Normalise = fn(&Map<String, Value>) -> Result<Map<String, Value>, PolicyError>;

enum Builder {
    Placement(Build<dyn Scheme>),
    Order(Build<dyn Order>),
    Admission(Build<dyn Admission>),
    Rebalance(Build<dyn Rebalance>),
}

impl Builder {
    fn axis(&self) -> Axis {
        match self {
            Builder::Placement(_) => Axis::Placement,
            Builder::Order(_) => Axis::Order,
            Builder::Admission(_) => Axis::Admission,
            Builder::Rebalance(_) => Axis::Rebalance,
        }
    }
}

/// What is known of a registered policy.
pub struct Entry {
    /// What it decides.
    pub axis: Axis,
    /// What configuration calls it.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// One line for people who choose.
    pub summary: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
    /// What it looks at with its default parameters.
    pub needs: Needs,
    /// The hwm it is meant to run with, if it has a view on that.
    pub default_hwm: Option<u32>,
    /// The limits under which it can do what it is for.
    pub room: Room,
    /// The hints without which all tasks are alike to it.
    pub labels: &'static [&'static str],
    /// Its parameters with their meaning.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Their defaults.
    pub defaults: Map<String, Value>,
    build: Builder,
    /// Parameters as the configuration type writes them.
    normal: Normalise,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).field("defaults", &self.defaults).finish_non_exhaustive()
    }
}

/// The policies that a program knows.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

fn config<T: Named>(parameters: &Map<String, Value>) -> Result<T::Config, PolicyError> {
    let read = |parameters: Map<String, Value>| serde_json::from_value::<T::Config>(Value::Object(parameters));
    read(parameters.clone()).map_err(|error| {
        // Which of them it is: each is tried alone.
        let alone = |(key, value): (&String, &Value)| {
            let error = read(std::iter::once((key.clone(), value.clone())).collect()).err()?.to_string();
            Some(if error.contains(&format!("`{key}`")) { error } else { format!("{key}: {}", plain_words(&error)) })
        };
        let reason = parameters.iter().find_map(alone).unwrap_or_else(|| plain_words(&error.to_string()));
        PolicyError::Parameters { name: T::NAME, reason }
    })
}

/// Makes a policy from parameters that are checked by its configuration type.
fn made<T: Named>(parameters: &Map<String, Value>) -> Result<T, PolicyError> {
    T::build(config::<T>(parameters)?)
}

/// Parameters as their type writes them, all of them.
fn written<T: Named>(config: &T::Config) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(parameters)) => parameters,
        _ => Map::new(),
    }
}

impl Registry {
    /// No policies at all.
    pub fn empty() -> Self {
        Registry::default()
    }

    /// The policies of this crate.
    pub fn builtin() -> Self {
        let mut registry = Registry::empty();
        // The names below are distinct constants, so none of these can fail; a test registers them and would show it.
        let _ = schemes::register(&mut registry);
        let _ = order::register(&mut registry);
        let _ = admission::register(&mut registry);
        let _ = rebalance::register(&mut registry);
        registry
    }

    /// Adds a scheme.
    ///
    /// # Errors
    /// [`PolicyError::Taken`] if its name or an alias is in use on any axis; nothing is added then.
    pub fn register<S: Named + Scheme>(&mut self) -> Result<&mut Self, PolicyError> {
        let needs = S::build(S::Config::default()).map(|policy| policy.needs());
        self.add::<S>(needs, Builder::Placement(Box::new(|parameters| Ok(Box::new(made::<S>(parameters)?)))))
    }

    /// Adds an order.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_order<O: Named + Order>(&mut self) -> Result<&mut Self, PolicyError> {
        let needs = O::build(O::Config::default()).map(|policy| policy.needs());
        self.add::<O>(needs, Builder::Order(Box::new(|parameters| Ok(Box::new(made::<O>(parameters)?)))))
    }

    /// Adds an admission policy.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_admission<A: Named + Admission>(&mut self) -> Result<&mut Self, PolicyError> {
        let needs = A::build(A::Config::default()).map(|policy| policy.needs());
        self.add::<A>(needs, Builder::Admission(Box::new(|parameters| Ok(Box::new(made::<A>(parameters)?)))))
    }

    /// Adds a rebalance policy.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_rebalance<R: Named + Rebalance>(&mut self) -> Result<&mut Self, PolicyError> {
        let needs = R::build(R::Config::default()).map(|policy| policy.needs());
        self.add::<R>(needs, Builder::Rebalance(Box::new(|parameters| Ok(Box::new(made::<R>(parameters)?)))))
    }

    fn add<T: Named>(&mut self, needs: Result<Needs, PolicyError>, build: Builder) -> Result<&mut Self, PolicyError> {
        for name in std::iter::once(&T::NAME).chain(T::ALIASES) {
            if self.find(name).is_some() {
                return Err(PolicyError::Taken(name));
            }
        }
        self.entries.push(Entry {
            axis: build.axis(),
            name: T::NAME,
            aliases: T::ALIASES,
            summary: T::SUMMARY,
            source: T::SOURCE,
            needs: needs?,
            default_hwm: T::DEFAULT_HWM,
            room: T::ROOM,
            labels: T::LABELS,
            parameters: T::PARAMETERS,
            defaults: written::<T>(&T::Config::default()),
            build,
            normal: |parameters| Ok(written::<T>(&config::<T>(parameters)?)),
        });
        Ok(self)
    }

    /// Every policy, in the order of registration.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The policies of one axis.
    pub fn on(&self, axis: Axis) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.axis == axis)
    }

    /// The policy of a name or alias, whatever its axis.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
    }

    /// The policy on `axis` that `spec` names; on any axis for `None`.
    ///
    /// # Errors
    /// [`PolicyError::Unknown`], with the nearest known name.
    pub fn resolve(&self, axis: Option<Axis>, spec: &PolicySpec) -> Result<&Entry, PolicyError> {
        let fits = |entry: &&Entry| axis.is_none_or(|axis| entry.axis == axis);
        let found = self.find(spec.name());
        if let (Some(entry), Some(asked)) = (found, axis.filter(|axis| found.is_some_and(|entry| entry.axis != *axis))) {
            return Err(PolicyError::OtherAxis { name: spec.name().to_owned(), is: entry.axis, asked });
        }
        found.ok_or_else(|| {
            let named = self.entries.iter().filter(fits);
            let names: Vec<&str> = named.flat_map(|entry| std::iter::once(&entry.name).chain(entry.aliases)).copied().collect();
            let nearest = nearest(spec.name(), names.iter().copied());
            PolicyError::Unknown {
                noun: axis.map_or("policy", Axis::noun),
                name: spec.name().to_owned(),
                nearest: nearest.map(str::to_owned),
                known: names.join(", "),
            }
        })
    }

    /// A specification with its proper name and every parameter spelt out, as the policy's configuration understands it.
    ///
    /// # Errors
    /// If the name is unknown on the axis, or the parameters are not the policy's.
    pub fn resolved(&self, axis: Axis, spec: &PolicySpec) -> Result<PolicySpec, PolicyError> {
        self.check(axis, spec)?;
        let entry = self.resolve(Some(axis), spec)?;
        let mut parameters = entry.defaults.clone();
        parameters.extend(spec.parameters().clone());
        Ok(PolicySpec::with(entry.name, (entry.normal)(&parameters)?))
    }

    /// Whether a policy could be made.
    ///
    /// # Errors
    /// Why it could not.
    pub fn check(&self, axis: Axis, spec: &PolicySpec) -> Result<(), PolicyError> {
        let parameters = spec.parameters();
        match &self.resolve(Some(axis), spec)?.build {
            Builder::Placement(build) => build(parameters).map(drop),
            Builder::Order(build) => build(parameters).map(drop),
            Builder::Admission(build) => build(parameters).map(drop),
            Builder::Rebalance(build) => build(parameters).map(drop),
        }
    }

    /// Makes the scheme that `spec` describes.
    ///
    /// # Errors
    /// If the name is unknown or the parameters are not the scheme's.
    pub fn build(&self, spec: &PolicySpec) -> Result<Box<dyn Scheme>, PolicyError> {
        match &self.resolve(Some(Axis::Placement), spec)?.build {
            Builder::Placement(build) => build(spec.parameters()),
            _ => unreachable!("resolved on its axis"),
        }
    }

    /// Makes the order that `spec` describes.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_order(&self, spec: &PolicySpec) -> Result<Box<dyn Order>, PolicyError> {
        match &self.resolve(Some(Axis::Order), spec)?.build {
            Builder::Order(build) => build(spec.parameters()),
            _ => unreachable!("resolved on its axis"),
        }
    }

    /// Makes the admission policy that `spec` describes.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_admission(&self, spec: &PolicySpec) -> Result<Box<dyn Admission>, PolicyError> {
        match &self.resolve(Some(Axis::Admission), spec)?.build {
            Builder::Admission(build) => build(spec.parameters()),
            _ => unreachable!("resolved on its axis"),
        }
    }

    /// Makes the rebalance policy that `spec` describes.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_rebalance(&self, spec: &PolicySpec) -> Result<Box<dyn Rebalance>, PolicyError> {
        match &self.resolve(Some(Axis::Rebalance), spec)?.build {
            Builder::Rebalance(build) => build(spec.parameters()),
            _ => unreachable!("resolved on its axis"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipyparallels_names_are_there_and_each_parameter_is_explained() {
        let registry = Registry::builtin();
        for name in ["leastload", "lru", "plainrandom", "pure", "twobin", "weighted"] {
            assert_eq!(registry.find(name).map(|entry| entry.axis), Some(Axis::Placement), "{name}");
        }
        for entry in registry.entries() {
            let explained: Vec<_> = entry.parameters.iter().map(|(name, _)| (*name).to_owned()).collect();
            let mut taken: Vec<_> = entry.defaults.keys().cloned().collect();
            taken.sort_by_key(|name| explained.iter().position(|other| other == name));
            assert_eq!(explained, taken, "{}", entry.name);
            assert!(!entry.summary.is_empty() && !entry.source.is_empty(), "{}", entry.name);
            let spec = PolicySpec::named(entry.name);
            let resolved = registry.resolved(entry.axis, &spec).unwrap();
            assert!(registry.check(entry.axis, &resolved).is_ok(), "{resolved}: what is shown can be given back");
        }
    }

    #[test]
    fn a_wrong_name_or_parameter_is_answered_with_the_right_ones() {
        let registry = Registry::builtin();
        let error = registry.build(&PolicySpec::named("leastlaod")).err().unwrap().to_string();
        assert!(error.contains("did you mean 'leastload'?") && error.contains("twobin") && !error.contains("fifo"), "{error}");
        let error = registry.build(&"lru[d=2]".parse().unwrap()).err().unwrap().to_string();
        assert!(error.contains("unknown field `d`"), "{error}");
        let error = registry.build(&"choices[d=0]".parse().unwrap()).err().unwrap().to_string();
        assert!(error.contains("d must be from 1 to"), "{error}");
        let error = registry.build(&"choices[d=x]".parse().unwrap()).err().unwrap().to_string();
        assert_eq!(error, "choices: d: expected a whole number, 0 or more, not \"x\"");
        let error = registry.build(&"fifo".parse().unwrap()).err().unwrap().to_string();
        assert!(error.contains("'fifo' decides the order, not the placement: give it as `order`"), "{error}");
    }

    #[test]
    fn a_name_can_not_be_taken_twice() {
        let mut registry = Registry::builtin();
        assert_eq!(registry.register::<schemes::Lru>().err(), Some(PolicyError::Taken("lru")));
    }
}
