//! Gaps between arrivals, of mean rate 1 until scaled.

use pointsman_policies::Rng;
use serde::{Deserialize, Serialize};

use crate::lab::draw::{exponential, from_spelling};

/// How arrivals are spread over time. Written `poisson`, `onoff[on=10,off=90]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum ArrivalKind {
    /// Exponential gaps.
    #[default]
    Poisson,
    /// Equal gaps.
    #[serde(alias = "constant", alias = "det")]
    Deterministic,
    /// A Poisson stream whose rate changes between two values (Markov-modulated).
    Mmpp {
        /// The high rate by the low one.
        ratio: f64,
        /// The share of time at the high rate.
        share: f64,
        /// Mean length of a low and a high phase together, in seconds.
        period: f64,
    },
    /// A Poisson stream with pauses.
    OnOff {
        /// Mean length of a burst, in seconds.
        on: f64,
        /// Mean length of a pause, in seconds.
        off: f64,
    },
    /// All at once at the start.
    Batch,
}

impl std::str::FromStr for ArrivalKind {
    type Err = String;

    fn from_str(text: &str) -> Result<ArrivalKind, String> {
        let kind: ArrivalKind = from_spelling(text)?;
        let is_length = |value: f64| value > 0.0 && value < 1e12;
        let is_sound = match kind {
            ArrivalKind::Poisson | ArrivalKind::Deterministic | ArrivalKind::Batch => true,
            ArrivalKind::Mmpp { ratio, share, period } => {
                (1.0..1e9).contains(&ratio) && share > 0.0 && share < 1.0 && is_length(period)
            }
            ArrivalKind::OnOff { on, off } => is_length(on) && is_length(off),
        };
        if is_sound {
            Ok(kind)
        } else {
            Err(format!("'{text}': lengths must be above 0, ratio at least 1, share between 0 and 1"))
        }
    }
}

/// A stream of moments.
#[derive(Clone, Debug)]
pub struct Arrivals {
    kind: ArrivalKind,
    rate: f64,
    rng: Rng,
    now_s: f64,
    is_high: bool,
    /// When the phase ends.
    phase_ends_s: f64,
}

impl Arrivals {
    /// Of a mean rate in jobs a second.
    pub fn new(kind: ArrivalKind, rate: f64, mut rng: Rng) -> Arrivals {
        // Phases begin in their long-run shares, so that there is nothing to warm up.
        let is_high = match kind {
            ArrivalKind::Mmpp { share, .. } => rng.unit() < share,
            ArrivalKind::OnOff { on, off } => rng.unit() < on / (on + off),
            _ => true,
        };
        let mut arrivals = Arrivals { kind, rate, rng, now_s: 0.0, is_high, phase_ends_s: 0.0 };
        arrivals.phase_ends_s = arrivals.phase();
        arrivals
    }

    /// When the next one is, in nanoseconds.
    pub fn next_ns(&mut self) -> u64 {
        match self.kind {
            ArrivalKind::Poisson => self.now_s += exponential(&mut self.rng, 1.0 / self.rate),
            ArrivalKind::Deterministic => self.now_s += 1.0 / self.rate,
            ArrivalKind::Batch => {}
            ArrivalKind::Mmpp { .. } | ArrivalKind::OnOff { .. } => loop {
                let rate = self.phase_rate();
                let gap_s = if rate > 0.0 { exponential(&mut self.rng, 1.0 / rate) } else { f64::INFINITY };
                if self.now_s + gap_s <= self.phase_ends_s {
                    self.now_s += gap_s;
                    break;
                }
                // Without memory, what is left of a gap when the phase ends may be drawn anew.
                self.now_s = self.phase_ends_s;
                self.is_high = !self.is_high;
                self.phase_ends_s += self.phase();
            },
        }
        (self.now_s * 1e9) as u64
    }

    fn phase(&mut self) -> f64 {
        let mean = match (&self.kind, self.is_high) {
            (ArrivalKind::Mmpp { share, period, .. }, true) => share * period,
            (ArrivalKind::Mmpp { share, period, .. }, false) => (1.0 - share) * period,
            (ArrivalKind::OnOff { on, .. }, true) => *on,
            (ArrivalKind::OnOff { off, .. }, false) => *off,
            _ => return f64::INFINITY,
        };
        exponential(&mut self.rng, mean)
    }

    fn phase_rate(&self) -> f64 {
        match (&self.kind, self.is_high) {
            (ArrivalKind::Mmpp { ratio, share, .. }, high) => {
                let low = self.rate / (1.0 - share + share * ratio);
                if high { low * ratio } else { low }
            }
            (ArrivalKind::OnOff { on, off }, true) => self.rate * (on + off) / on,
            (ArrivalKind::OnOff { .. }, false) => 0.0,
            _ => self.rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_their_rate_and_their_burstiness() {
        for (text, dispersion) in [
            ("poisson", 0.9..1.1),
            ("deterministic", 0.0..0.1),
            ("mmpp[ratio=9,share=0.2,period=50]", 3.0..100.0),
            ("onoff[on=5,off=45]", 10.0..200.0),
        ] {
            let mut arrivals = Arrivals::new(text.parse().unwrap(), 2.0, Rng::new(3));
            // Counts in windows of 100 s: their mean is the rate, their variance by their mean tells bursts.
            let mut counts = vec![0_u32; 5000];
            loop {
                let window = (arrivals.next_ns() / 100_000_000_000) as usize;
                match counts.get_mut(window) {
                    Some(count) => *count += 1,
                    None => break,
                }
            }
            let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
            let variance = counts.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / counts.len() as f64;
            assert!((mean / 200.0 - 1.0).abs() < 0.05, "{text}: {mean}");
            assert!(dispersion.contains(&(variance / mean)), "{text}: {}", variance / mean);
        }
        assert!("onoff[on=0,off=1]".parse::<ArrivalKind>().is_err() && "sometimes".parse::<ArrivalKind>().is_err());
    }
}
