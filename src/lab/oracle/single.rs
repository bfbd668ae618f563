//! One engine, any sizes: the M/G/1 queue under disciplines that know sizes, learn them by waiting, or ignore them. Sources: Harchol-Balter,
//! *Performance Modeling and Design of Computer Systems* (2013), chapters 23 and 30 to 33, and the papers named there.

use crate::lab::draw::Dist;

/// A law of sizes as its cumulative distribution on a grid of quantiles, fine enough for integrals of it.
#[derive(Clone, Debug)]
pub struct SizeLaw {
    /// Sizes, ascending.
    x: Vec<f64>,
    /// The probability of a size up to each.
    cdf: Vec<f64>,
}

impl SizeLaw {
    /// The law of a distribution with a density.
    ///
    /// Nothing for distributions with steps, of which the integrals here are not made.
    pub fn of(dist: &Dist) -> Option<SizeLaw> {
        let cdf: Box<dyn Fn(f64) -> f64> = match *dist {
            Dist::Exponential { mean } => Box::new(move |x: f64| 1.0 - (-x / mean).exp()),
            Dist::Hyperexponential { scv, mean } => {
                let p = f64::midpoint(1.0, ((scv - 1.0) / (scv + 1.0)).sqrt());
                let (a, b) = (2.0 * p / mean, 2.0 * (1.0 - p) / mean);
                Box::new(move |x: f64| 1.0 - p * (-a * x).exp() - (1.0 - p) * (-b * x).exp())
            }
            Dist::Erlang { k, mean } => {
                let rate = f64::from(k) / mean;
                Box::new(move |x: f64| {
                    let mut term = (-rate * x).exp();
                    let mut sum = term;
                    for i in 1..k {
                        term *= rate * x / f64::from(i);
                        sum += term;
                    }
                    1.0 - sum
                })
            }
            Dist::BoundedPareto { alpha, low, high } => {
                let whole = 1.0 - (low / high).powf(alpha);
                Box::new(move |x: f64| ((1.0 - (low / x.max(low)).powf(alpha)) / whole).clamp(0.0, 1.0))
            }
            Dist::Uniform { low, high } => Box::new(move |x: f64| ((x - low) / (high - low)).clamp(0.0, 1.0)),
            _ => return None,
        };
        let most = match *dist {
            Dist::BoundedPareto { high, .. } | Dist::Uniform { high, .. } => high,
            _ => {
                let mut most = dist.mean();
                while 1.0 - cdf(most) > 1e-13 && most < 1e9 {
                    most *= 1.2;
                }
                most
            }
        };
        // Geometric steps: small sizes matter as much as large ones.
        let count = 200_000;
        let least = match *dist {
            Dist::BoundedPareto { low, .. } => low,
            _ => dist.mean() * 1e-7,
        };
        let step = (most / least).ln() / f64::from(count);
        let grid = (0..=count).map(|n| least * (step * f64::from(n)).exp());
        let x: Vec<f64> =
            std::iter::once(if matches!(dist, Dist::BoundedPareto { .. }) { least } else { 0.0 }).chain(grid).collect();
        let cdf = x.iter().map(|&x| cdf(x)).collect();
        Some(SizeLaw { x, cdf })
    }

    /// Steps of the grid: middle of the size, its probability, and the index of its upper end.
    fn steps(&self) -> impl Iterator<Item = (f64, f64, usize)> {
        (1..self.x.len()).map(|at| (f64::midpoint(self.x[at - 1], self.x[at]), self.cdf[at] - self.cdf[at - 1], at))
    }

    /// For each point of the grid the integral up to it of x^power with the law.
    fn partial_moments(&self, power: i32) -> Vec<f64> {
        let mut sums = vec![0.0];
        for (x, share, at) in self.steps() {
            sums.push(sums[at - 1] + x.powi(power) * share);
        }
        sums
    }

    fn mean(&self) -> f64 {
        self.partial_moments(1).last().copied().unwrap_or(0.0)
    }
}

/// Mean wait of M/G/1 served first come first served, at `load`, for sizes with these moments (Pollaczek 1930; Khinchine 1932).
pub fn mg1_wait(load: f64, mean: f64, second_moment: f64) -> f64 {
    load / mean * second_moment / (2.0 * (1.0 - load))
}

/// Mean response of M/G/1, first come first served.
pub fn fcfs_response(load: f64, dist: &Dist) -> f64 {
    dist.mean() + mg1_wait(load, dist.mean(), dist.second_moment())
}

/// Mean response of M/G/1 under processor sharing: insensitive to the law.
pub fn ps_response(load: f64, mean: f64) -> f64 {
    mean / (1.0 - load)
}

/// Mean response of M/G/1, shortest remaining processing time first, preemptive (Schrage and Miller 1966).
pub fn srpt_response(load: f64, law: &SizeLaw) -> f64 {
    let rate = load / law.mean();
    let (first, second) = (law.partial_moments(1), law.partial_moments(2));
    // No size is below the first, so up to there nothing holds a task up.
    let (mut residence, mut response) = (law.x[0], 0.0);
    for (x, share, at) in law.steps() {
        let busy = rate * f64::midpoint(first[at - 1], first[at]);
        residence += (law.x[at] - law.x[at - 1]) / (1.0 - busy);
        let above = 1.0 - f64::midpoint(law.cdf[at - 1], law.cdf[at]);
        let waiting = rate * (f64::midpoint(second[at - 1], second[at]) + x * x * above) / (2.0 * (1.0 - busy).powi(2));
        response += (waiting + residence) * share;
    }
    response
}

/// Mean response of M/G/1, shortest job first without preemption (Phipps 1956).
pub fn sjf_response(load: f64, law: &SizeLaw) -> f64 {
    let rate = load / law.mean();
    let (first, second) = (law.partial_moments(1), law.partial_moments(2));
    let residual = rate * second.last().copied().unwrap_or(0.0) / 2.0;
    let wait: f64 =
        law.steps().map(|(_, share, at)| share * residual / (1.0 - rate * f64::midpoint(first[at - 1], first[at])).powi(2)).sum();
    law.mean() + wait
}

/// Mean response of M/G/1, least attained service first, preemptive (foreground-background; Schrage 1967).
pub fn foreground_background_response(load: f64, law: &SizeLaw) -> f64 {
    let rate = load / law.mean();
    let (first, second) = (law.partial_moments(1), law.partial_moments(2));
    let mut response = 0.0;
    for (x, share, at) in law.steps() {
        let above = 1.0 - f64::midpoint(law.cdf[at - 1], law.cdf[at]);
        // Sizes as far as they are below x.
        let cut_first = f64::midpoint(first[at - 1], first[at]) + x * above;
        let cut_second = f64::midpoint(second[at - 1], second[at]) + x * x * above;
        let busy = 1.0 - rate * cut_first;
        response += share * (rate * cut_second / (2.0 * busy.powi(2)) + x / busy);
    }
    response
}

/// Cutoffs between the ranges of sizes of `n` engines, so that all have the same load: SITA-E (Harchol-Balter, Crovella and Murta 1999).
pub fn sita_e_cutoffs(n: usize, law: &SizeLaw) -> Vec<f64> {
    let first = law.partial_moments(1);
    let whole = first.last().copied().unwrap_or(0.0);
    let cut = |at: usize| first.partition_point(|&sum| sum < whole * at as f64 / n as f64).min(first.len() - 1);
    (1..n).map(|at| law.x[cut(at)]).collect()
}

/// Mean response of engines of which each has a range of sizes of its own, first come first served, cut at ascending `cutoffs`; `load` is their mean load.
/// Infinite if an engine has more to do than it can.
pub fn sita_response(cutoffs: &[f64], load: f64, law: &SizeLaw) -> f64 {
    let (first, second) = (law.partial_moments(1), law.partial_moments(2));
    let rate = load * (cutoffs.len() + 1) as f64 / law.mean();
    let last = law.x.len() - 1;
    let place = |cutoff: f64| law.x.partition_point(|&x| x < cutoff).min(last);
    let bounds: Vec<usize> = std::iter::once(0).chain(cutoffs.iter().map(|&cutoff| place(cutoff))).chain([last]).collect();
    let range = |pair: &[usize]| {
        let (from, to) = (pair[0], pair[1]);
        let share = law.cdf[to] - law.cdf[from];
        if share <= 0.0 {
            return 0.0;
        }
        let (m1, m2) = ((first[to] - first[from]) / share, (second[to] - second[from]) / share);
        let own = rate * share * m1;
        if own < 1.0 { share * (m1 + mg1_wait(own, m1, m2)) } else { f64::INFINITY }
    };
    bounds.windows(2).map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, known: f64) {
        assert!((value / known - 1.0).abs() < 1e-4, "{value} for {known}");
    }

    #[test]
    fn disciplines_give_the_known_figures() {
        let exponential = Dist::default();
        let law = SizeLaw::of(&exponential).unwrap();
        near(law.mean(), 1.0);
        near(fcfs_response(0.8, &exponential), 5.0);
        near(ps_response(0.8, 1.0), 5.0);
        // For exponential sizes whoever has had least is as good as anybody: all non-anticipating disciplines tie.
        near(foreground_background_response(0.8, &law), 5.0);
        // By quadrature with another program.
        near(srpt_response(0.9, &law), 3.552_125);
        assert!(srpt_response(0.8, &law) < sjf_response(0.8, &law) && sjf_response(0.8, &law) < 5.0);
        // One engine is M/G/1.
        let pareto: Dist = "boundedpareto[alpha=1.5,low=0.3,high=1000]".parse().unwrap();
        let heavy = SizeLaw::of(&pareto).unwrap();
        near(heavy.mean(), pareto.mean());
        near(sita_response(&[], 0.7, &heavy), fcfs_response(0.7, &pareto));
        assert!(sita_response(&sita_e_cutoffs(4, &heavy), 0.7, &heavy) < fcfs_response(0.7, &pareto));
        assert_eq!(sita_response(&[1e3 - 1e-6], 0.7, &heavy), f64::INFINITY, "one engine has everything");
        // Who is alone takes as long as its size, whatever the law and the discipline.
        for text in ["exponential", "uniform[low=0.5,high=1.5]", "boundedpareto[alpha=1.5,low=0.3,high=1000]", "erlang[k=3]"] {
            let law = SizeLaw::of(&text.parse().unwrap()).unwrap();
            for alone in [srpt_response, sjf_response, foreground_background_response] {
                near(alone(1e-9, &law), law.mean());
            }
            near(sita_response(&sita_e_cutoffs(3, &law), 1e-9, &law), law.mean());
        }
    }
}
