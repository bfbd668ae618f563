//! Where the ticks of an axis stand: powers of ten and their simple multiples on a logarithmic one, round steps on a linear one.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged};

/// How an axis is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    #[default]
    /// Equal steps are equally long.
    Linear,
    /// Equal ratios are equally long; only what is above 0 is shown.
    Log,
}

/// An axis from one value to another.
#[derive(Clone, Debug)]
pub(super) struct Ticks {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Ticks {
    /// An axis with room for all values; nothing if there are none. `from_zero`: a linear axis of values above 0 starts there.
    pub(super) fn around(scale: Scale, values: impl Iterator<Item = f64>, from_zero: bool) -> Option<Ticks> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        Some(match scale {
            Scale::Log => {
                let room = if high > low { (high / low).powf(0.04) } else { 2.0 };
                Ticks { scale, from: low / room, to: high * room }
            }
            Scale::Linear if from_zero && low >= 0.0 => {
                Ticks { scale, from: 0.0, to: if high > 0.0 { high * 1.06 } else { 1.0 } }
            }
            Scale::Linear => {
                let room = if high > low { (high - low) * 0.04 } else { low.abs().max(1.0) / 2.0 };
                Ticks { scale, from: low - room, to: high + room }
            }
        })
    }

    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        }
    }

    /// Ticks, at most about so many.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.clamp(3, 7) as f64;
        match self.scale {
            Scale::Linear => {
                let rough = (self.to - self.from) / most;
                let power = 10_f64.powf(rough.log10().floor());
                let step =
                    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough).unwrap_or(power * 10.0);
                let first = (self.from / step).ceil() as i64;
                let per_unit = 1.0 / step; // dividing by a whole number gives the nearest to 0.6, where multiplying by 0.2 does not
                let at = |n: i64| if step < 1.0 { n as f64 / per_unit.round() } else { n as f64 * step };
                (first..=(self.to / step).floor() as i64).map(at).collect()
            }
            Scale::Log => {
                let decades = (self.from.log10().floor() as i32)..=(self.to.log10().ceil() as i32);
                let span = (self.to / self.from).log10();
                let multiples: &[f64] = if span < 1.0 {
                    &[1.0, 2.0, 3.0, 5.0, 7.0]
                } else if span < 3.0 {
                    &[1.0, 3.0]
                } else {
                    &[1.0]
                };
                let every = (span / most).ceil().max(1.0) as i32;
                let powers = decades.filter(|decade| decade % every == 0);
                let all = powers.flat_map(|decade| multiples.iter().map(move |multiple| multiple * 10_f64.powi(decade)));
                all.filter(|value| (self.from..=self.to).contains(value)).collect()
            }
        }
    }
}

impl Ranged for Ticks {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (self.share(*value) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks(hint.max_num_points())
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl plotters::coord::ranged1d::ValueFormatter<f64> for Ticks {
    fn format(value: &f64) -> String {
        spell(*value)
    }
}

/// A tick's number: short, with k, M and G beyond ten thousand.
pub(super) fn spell(value: f64) -> String {
    let size = value.abs();
    let (scaled, unit) = match size {
        _ if size >= 1e13 || (size > 0.0 && size < 1e-4) => return format!("{value:.0e}"),
        _ if size >= 1e9 => (value / 1e9, "G"),
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Ticks are sums of steps: what the last digit says is the error of adding them.
    let text = format!("{scaled:.6}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |scale, values: &[f64]| Ticks::around(scale, values.iter().copied(), true).unwrap().ticks(6);
        assert_eq!(ticks(Scale::Linear, &[3.0, 70.0]), [0.0, 20.0, 40.0, 60.0]);
        assert_eq!(ticks(Scale::Log, &[1.0, 10_000.0]), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(ticks(Scale::Log, &[2.0, 5.0]), [2.0, 3.0, 5.0]);
        assert_eq!(ticks(Scale::Log, &[7.0]), [5.0, 7.0, 10.0]);
        assert_eq!(ticks(Scale::Linear, &[0.0]), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert!(Ticks::around(Scale::Log, [].into_iter(), true).is_none());
        for (value, text) in
            [(0.0, "0"), (0.3, "0.3"), (1000.0, "1000"), (65_000.0, "65k"), (1e7, "10M"), (-2.5, "-2.5"), (1e-7, "1e-7")]
        {
            assert_eq!(spell(value), text);
        }
    }
}
