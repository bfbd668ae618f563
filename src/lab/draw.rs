//! What is drawn at random: sizes of tasks and gaps between arrivals, with the moments that formulas need. Each draw takes its generator from the
//! caller, so that two policies can be given the very same tasks.

use pointsman_policies::{PolicySpec, Rng};
use rand_distr::{Distribution as _, LogNormal};
use serde::{Deserialize, Serialize};

/// A distribution of positive numbers, such as sizes in seconds on an engine of speed 1. Written `exponential`, `pareto[alpha=1.5]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Dist {
    /// Memoryless.
    #[serde(alias = "exp")]
    Exponential {
        /// The mean.
        #[serde(default = "one")]
        mean: f64,
    },
    /// Always the same.
    #[serde(alias = "constant", alias = "det")]
    Deterministic {
        /// That number.
        #[serde(default = "one")]
        mean: f64,
    },
    /// The sum of `k` exponentials.
    Erlang {
        /// How many.
        k: u32,
        /// The mean of the sum.
        #[serde(default = "one")]
        mean: f64,
    },
    /// Two exponentials with balanced means (each brings half of the work).
    #[serde(alias = "hyperexp", alias = "h2")]
    Hyperexponential {
        /// The squared coefficient of variation, at least 1.
        scv: f64,
        /// The mean.
        #[serde(default = "one")]
        mean: f64,
    },
    /// The exponential of a normal.
    Lognormal {
        /// The squared coefficient of variation.
        scv: f64,
        /// The mean.
        #[serde(default = "one")]
        mean: f64,
    },
    /// A power law without end (Pareto I).
    Pareto {
        /// The exponent, above 1 for there to be a mean.
        alpha: f64,
        /// The mean.
        #[serde(default = "one")]
        mean: f64,
    },
    /// A power law cut off above (Harchol-Balter, Crovella and Murta 1999).
    BoundedPareto {
        /// The exponent.
        alpha: f64,
        /// The least.
        low: f64,
        /// The most.
        high: f64,
    },
    /// One of two numbers.
    Bimodal {
        /// The first.
        short: f64,
        /// The second.
        long: f64,
        /// The share of the second.
        share: f64,
    },
    /// Evenly between two.
    Uniform {
        /// The least.
        low: f64,
        /// The most.
        high: f64,
    },
}

fn one() -> f64 {
    1.0
}

impl Default for Dist {
    fn default() -> Self {
        Dist::Exponential { mean: 1.0 }
    }
}

impl std::str::FromStr for Dist {
    type Err = String;

    fn from_str(text: &str) -> Result<Dist, String> {
        let dist: Dist = from_spelling(text)?;
        dist.check().map_err(|error| format!("'{text}': {error}"))?;
        Ok(dist)
    }
}

impl Dist {
    /// Whether its parameters make sense.
    ///
    /// # Errors
    /// Which does not.
    pub fn check(&self) -> Result<(), String> {
        let positive = |name: &str, value: f64| {
            if value > 0.0 && value < 1e12 { Ok(()) } else { Err(format!("{name} must be above 0 and below 1e12, not {value}")) }
        };
        match *self {
            Dist::Exponential { mean } | Dist::Deterministic { mean } => positive("mean", mean),
            Dist::Erlang { k, mean } => {
                if k == 0 || k > 10_000 {
                    return Err(format!("k must be from 1 to 10000, not {k}"));
                }
                positive("mean", mean)
            }
            Dist::Hyperexponential { scv, mean } => {
                if !(1.0..1e9).contains(&scv) {
                    return Err(format!("scv must be at least 1, not {scv}: below that there is erlang"));
                }
                positive("mean", mean)
            }
            Dist::Lognormal { scv, mean } => positive("scv", scv).and_then(|()| positive("mean", mean)),
            Dist::Pareto { alpha, mean } => {
                if !(alpha > 1.0 && alpha < 1e6) {
                    return Err(format!("alpha must be above 1, or there is no mean, not {alpha}"));
                }
                positive("mean", mean)
            }
            Dist::BoundedPareto { alpha, low, high } => {
                positive("alpha", alpha)?;
                positive("low", low)?;
                positive("high", high)?;
                if low < high { Ok(()) } else { Err(format!("low must be below high, not {low} and {high}")) }
            }
            Dist::Bimodal { short, long, share } => {
                positive("short", short)?;
                positive("long", long)?;
                if (0.0..=1.0).contains(&share) { Ok(()) } else { Err(format!("share must be from 0 to 1, not {share}")) }
            }
            Dist::Uniform { low, high } => {
                positive("high", high)?;
                if (0.0..high).contains(&low) { Ok(()) } else { Err(format!("low must be from 0 to below high, not {low}")) }
            }
        }
    }

    /// Draws one number.
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        match *self {
            Dist::Exponential { mean } => exponential(rng, mean),
            Dist::Deterministic { mean } => mean,
            Dist::Erlang { k, mean } => {
                let product: f64 = (0..k).map(|_| (1.0 - rng.unit()).ln()).sum();
                -product * mean / f64::from(k)
            }
            Dist::Hyperexponential { scv, mean } => {
                let p = balanced(scv);
                if rng.unit() < p { exponential(rng, mean / (2.0 * p)) } else { exponential(rng, mean / (2.0 * (1.0 - p))) }
            }
            Dist::Lognormal { scv, mean } => {
                let variance = (1.0 + scv).ln();
                LogNormal::new(mean.ln() - variance / 2.0, variance.sqrt()).map_or(mean, |log| log.sample(rng.as_rand()))
            }
            Dist::Pareto { alpha, mean } => (mean * (alpha - 1.0) / alpha) * (1.0 - rng.unit()).powf(-1.0 / alpha),
            Dist::BoundedPareto { alpha, low, high } => {
                let share = 1.0 - (low / high).powf(alpha);
                low * (1.0 - rng.unit() * share).powf(-1.0 / alpha)
            }
            Dist::Bimodal { short, long, share } => {
                if rng.unit() < share {
                    long
                } else {
                    short
                }
            }
            Dist::Uniform { low, high } => low + (high - low) * rng.unit(),
        }
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.moment(1)
    }

    /// The mean of the square; infinite for heavy tails.
    pub fn second_moment(&self) -> f64 {
        self.moment(2)
    }

    /// The mean of the `n`-th power, for 1 and 2.
    fn moment(&self, n: i32) -> f64 {
        let power = f64::from(n);
        match *self {
            Dist::Exponential { mean } => mean.powi(n) * power,
            Dist::Deterministic { mean } => mean.powi(n),
            Dist::Erlang { k, mean } => mean.powi(n) * if n == 1 { 1.0 } else { 1.0 + 1.0 / f64::from(k) },
            Dist::Hyperexponential { scv, mean } | Dist::Lognormal { scv, mean } => {
                mean.powi(n) * if n == 1 { 1.0 } else { 1.0 + scv }
            }
            Dist::Pareto { alpha, mean } => {
                let least = mean * (alpha - 1.0) / alpha;
                if alpha > power { alpha * least.powi(n) / (alpha - power) } else { f64::INFINITY }
            }
            Dist::BoundedPareto { alpha, low, high } => {
                let scale = alpha * low.powf(alpha) / (1.0 - (low / high).powf(alpha));
                if (alpha - power).abs() < 1e-9 {
                    scale * (high / low).ln()
                } else {
                    scale * (high.powf(power - alpha) - low.powf(power - alpha)) / (power - alpha)
                }
            }
            Dist::Bimodal { short, long, share } => short.powi(n) * (1.0 - share) + long.powi(n) * share,
            Dist::Uniform { low, high } => (high.powi(n + 1) - low.powi(n + 1)) / ((power + 1.0) * (high - low)),
        }
    }

    /// The squared coefficient of variation.
    pub fn scv(&self) -> f64 {
        self.second_moment() / self.mean().powi(2) - 1.0
    }
}

/// Reads `name[key=value,...]` as a value of an enum that is told apart by `name`.
pub(crate) fn from_spelling<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let spec: PolicySpec = text.parse().map_err(|error| format!("{error}"))?;
    let mut fields = spec.parameters().clone();
    fields.insert("name".into(), spec.name().into());
    serde_json::from_value(fields.into()).map_err(|error| format!("'{text}': {error}"))
}

/// An exponential of this mean.
pub(crate) fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -(1.0 - rng.unit()).ln() * mean
}

/// The probability of the shorter branch of a hyperexponential with balanced means.
fn balanced(scv: f64) -> f64 {
    f64::midpoint(1.0, ((scv - 1.0) / (scv + 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_moments() {
        let mut rng = Rng::new(7);
        for text in [
            "exponential",
            "deterministic[mean=2]",
            "erlang[k=4]",
            "hyperexp[scv=5]",
            "lognormal[scv=2,mean=3]",
            "pareto[alpha=4.5]",
            "boundedpareto[alpha=1.1,low=0.5,high=50]",
            "bimodal[short=1,long=11,share=0.1]",
            "uniform[low=1,high=3]",
        ] {
            let dist: Dist = text.parse().unwrap();
            let count = 1_000_000;
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..count {
                let x = dist.draw(&mut rng);
                assert!(x > 0.0);
                sum += x;
                squares += x * x;
            }
            let (mean, second) = (sum / f64::from(count), squares / f64::from(count));
            assert!((mean / dist.mean() - 1.0).abs() < 0.01, "{text}: {mean} for {}", dist.mean());
            assert!((second / dist.second_moment() - 1.0).abs() < 0.04, "{text}: {second} for {}", dist.second_moment());
        }
    }

    #[test]
    fn what_is_no_distribution_is_refused_with_its_reason() {
        for (text, says) in [
            ("pareto[alpha=0.9]", "above 1"),
            ("gauss", "unknown variant"),
            ("erlang", "missing field `k`"),
            ("exponential[mean=-1]", "above 0"),
            ("exponential[rate=1]", "unknown field"),
            ("hyperexp[scv=0.5]", "at least 1"),
            ("bimodal[short=1,long=2,share=3]", "from 0 to 1"),
        ] {
            let error = text.parse::<Dist>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
