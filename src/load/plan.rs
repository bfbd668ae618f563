//! What a load is: how many peers, how they submit, what tasks take and wait for. Read from the command line, kept in every result.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pointsman_policies::{Hints, Rng};
use rand_distr::{Distribution as _, Exp, LogNormal};
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

/// A load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Engines that the load brings.
    pub engines: usize,
    /// Clients, each with a connection of its own.
    pub clients: usize,
    /// How tasks are submitted.
    pub arrivals: Arrivals,
    /// Bytes of a task's three buffers together.
    pub payload_bytes: usize,
    /// Bytes of a result's buffer.
    pub result_bytes: usize,
    /// How long tasks run.
    pub duration: Durations,
    /// What tasks wait for.
    pub after: After,
    /// Tasks that wait for one that does not end, submitted before.
    pub blocked: usize,
    /// Tasks that have run before anything is measured.
    pub history: u64,
    /// Measured stretches.
    pub rounds: usize,
    /// Length of each.
    pub round_s: f64,
    /// What is not measured before them.
    pub warmup_s: f64,
    /// Seed of durations, dependencies and arrivals.
    pub seed: u64,
    /// The label of every task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// More bytes than this in a task or a result are no load but a mistake.
const MOST_BYTES: usize = 1 << 30;

impl Plan {
    /// Refuses what can not be done.
    ///
    /// # Errors
    /// If there is something, with its option.
    pub fn check(&self) -> anyhow::Result<()> {
        let least_one = [("--engines", self.engines), ("--clients", self.clients), ("--rounds", self.rounds)];
        if let Some((option, _)) = least_one.iter().find(|(_, count)| *count == 0) {
            bail!("{option} must be at least 1: a load needs an engine, a client and a round");
        }
        match self.arrivals {
            Arrivals::Window(0) => bail!("--window must be at least 1"),
            Arrivals::Rate(rate) if !(rate > 0.0 && rate < 1e9) => bail!("--rate must be above 0, not {rate}"),
            Arrivals::Load(load) if !(load > 0.0 && load < 1.0) => bail!("--load must be between 0 and 1, not {load}"),
            _ => {}
        }
        if !(self.round_s > 0.0 && self.round_s < 1e9) {
            bail!("--seconds must be above 0, not {}", self.round_s);
        }
        if !(self.warmup_s >= 0.0 && self.warmup_s < 1e9) {
            bail!("--warmup must be 0 or more, not {}", self.warmup_s);
        }
        for (option, bytes) in [("--payload", self.payload_bytes), ("--result", self.result_bytes)] {
            if bytes > MOST_BYTES {
                bail!("{option} must be at most {MOST_BYTES} bytes, not {bytes}");
            }
        }
        if let Some(label) = &self.label {
            if let (_, Some(wrong)) = Hints::parse(label) {
                bail!("--label: {wrong}");
            }
            if label.chars().any(|char| char.is_control() || char == '"' || char == '\\') {
                bail!("--label may not have quotes, backslashes or control characters in it");
            }
        }
        Ok(())
    }
}

/// How tasks are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// A closed loop: so many tasks are under way, and each result lets another task go.
    Window(usize),
    /// An open loop: a Poisson stream of so many tasks a second, whatever becomes of them. Latency counts from the moment at which a task was
    /// due, not from when it could be sent (Tene's coordinated omission).
    Rate(f64),
    /// An open loop at this share of the throughput that a closed one of 256 reaches first.
    Load(f64),
}

/// How long tasks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, SerializeDisplay, DeserializeFromStr)]
pub enum Durations {
    /// Not at all.
    #[default]
    Zero,
    /// All the same, in ms.
    Fixed(f64),
    /// Exponential, of this mean in ms.
    Exponential(f64),
    /// Lognormal: mean in ms, and the squared coefficient of variation.
    Lognormal(f64, f64),
    /// Two lengths in ms, of a function each, and the share of the second.
    Bimodal(f64, f64, f64),
}

impl Durations {
    /// Draws one, and says which function takes so long: all are of one, but short and long ones are of two.
    pub(super) fn draw(self, rng: &mut Rng) -> (u64, Duration) {
        let mut function = 1;
        let ms = match self {
            Durations::Zero => return (function, Duration::ZERO),
            Durations::Fixed(ms) => ms,
            // The parameters were checked when they were read.
            Durations::Exponential(mean) => Exp::new(1.0 / mean).map_or(mean, |exp| exp.sample(rng.as_rand())),
            Durations::Lognormal(mean, cv2) => {
                let variance = (1.0 + cv2).ln();
                LogNormal::new(mean.ln() - variance / 2.0, variance.sqrt()).map_or(mean, |log| log.sample(rng.as_rand()))
            }
            Durations::Bimodal(short, long, share) => {
                if rng.unit() < share {
                    function = 2;
                    long
                } else {
                    short
                }
            }
        };
        (function, Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX))
    }
}

impl FromStr for Durations {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Durations> {
        let (name, rest) = text.split_once(':').unwrap_or(("fixed", text));
        let numbers = rest.split(':').map(|word| word.parse::<f64>().with_context(|| format!("'{word}' is not a number")));
        let numbers = numbers.collect::<anyhow::Result<Vec<f64>>>()?;
        let is_length = |ms: f64| ms > 0.0 && ms < 1e9;
        Ok(match (name, numbers[..].as_ref()) {
            ("fixed", [0.0]) => Durations::Zero,
            ("fixed", &[ms]) if is_length(ms) => Durations::Fixed(ms),
            ("exp", &[mean]) if is_length(mean) => Durations::Exponential(mean),
            ("lognormal", &[mean, cv2]) if is_length(mean) && (0.0..1e6).contains(&cv2) => Durations::Lognormal(mean, cv2),
            ("bimodal", &[short, long, share]) if is_length(short) && is_length(long) && (0.0..=1.0).contains(&share) => {
                Durations::Bimodal(short, long, share)
            }
            _ => bail!(
                "'{text}' is not a duration: give 0, a length in ms (5), exp:MEAN, lognormal:MEAN:CV2 or bimodal:SHORT:LONG:SHARE"
            ),
        })
    }
}

impl std::fmt::Display for Durations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Durations::Zero => f.write_str("0"),
            Durations::Fixed(ms) => write!(f, "{ms}"),
            Durations::Exponential(mean) => write!(f, "exp:{mean}"),
            Durations::Lognormal(mean, cv2) => write!(f, "lognormal:{mean}:{cv2}"),
            Durations::Bimodal(short, long, share) => write!(f, "bimodal:{short}:{long}:{share}"),
        }
    }
}

/// What tasks wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, SerializeDisplay, DeserializeFromStr)]
pub enum After {
    /// Nothing.
    #[default]
    Nothing,
    /// So many chains beside each other: each task waits for the one that was submitted so many before it.
    Chains(usize),
    /// Each task waits for so many, drawn from the last thousand.
    Random(usize),
}

impl After {
    /// Numbers of the tasks for which the task of this number waits.
    pub(super) fn of(self, number: u64, rng: &mut Rng) -> smallvec::SmallVec<[u64; 4]> {
        match self {
            After::Nothing => smallvec::SmallVec::new(),
            After::Chains(width) => number.checked_sub(width as u64).into_iter().collect(),
            After::Random(_) if number == 0 => smallvec::SmallVec::new(),
            After::Random(count) => (0..count).map(|_| number - 1 - rng.below(number.min(1000) as usize) as u64).collect(),
        }
    }
}

impl FromStr for After {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<After> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        Ok(match (name, count.parse::<usize>()) {
            ("nothing", _) => After::Nothing,
            ("chains", Ok(width)) if width > 0 => After::Chains(width),
            ("random", Ok(count)) if (1..=1000).contains(&count) => After::Random(count),
            _ => bail!("'{text}' is nothing that tasks wait for: give nothing, chains:WIDTH or random:COUNT"),
        })
    }
}

impl std::fmt::Display for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            After::Nothing => f.write_str("nothing"),
            After::Chains(width) => write!(f, "chains:{width}"),
            After::Random(count) => write!(f, "random:{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_read_back_as_written() {
        for text in ["0", "5", "exp:0.5", "lognormal:5:2", "bimodal:1:100:0.01"] {
            assert_eq!(text.parse::<Durations>().unwrap().to_string(), text);
        }
        for text in ["nothing", "chains:8", "random:3"] {
            assert_eq!(text.parse::<After>().unwrap().to_string(), text);
        }
        for junk in ["-1", "exp:", "exp:0", "NaN", "lognormal:5", "bimodal:1:2:3", ""] {
            assert!(junk.parse::<Durations>().is_err(), "{junk}");
        }
        assert!("chains:0".parse::<After>().is_err() && "x".parse::<After>().is_err());
    }

    #[test]
    fn lengths_have_their_mean() {
        let mut rng = Rng::new(1);
        for (text, mean_ms) in [("exp:2", 2.0), ("lognormal:2:4", 2.0), ("bimodal:1:11:0.1", 2.0)] {
            let durations: Durations = text.parse().unwrap();
            let sum: f64 = (0..200_000).map(|_| durations.draw(&mut rng).1.as_secs_f64() * 1e3).sum();
            assert!((sum / 200_000.0 - mean_ms).abs() < 0.05, "{text}: {}", sum / 200_000.0);
        }
    }
}
