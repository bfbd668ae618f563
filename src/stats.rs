//! Means with confidence intervals, and ratios of means. The statistics are `statrs`'; here is only which.

use statrs::distribution::{ContinuousCDF as _, StudentsT};
use statrs::statistics::Statistics as _;

/// A mean and half the width of its confidence interval of 95 %, which needs two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    /// Needs two values as well.
    pub(crate) standard_error: Option<f64>,
    pub(crate) half_width: Option<f64>,
}

impl Estimate {
    /// Of independent values (Student's t).
    pub(crate) fn of(values: &[f64]) -> Estimate {
        let mean = values.mean();
        let standard_error = (values.len() > 1).then(|| values.std_dev() / (values.len() as f64).sqrt());
        let half_width = standard_error.map(|error| error * t_quantile((values.len() - 1) as f64));
        Estimate { mean, standard_error, half_width }
    }
}

/// The ratio of two geometric means, and its confidence interval of 95 % (Welch's t on logarithms). All values must be positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) ratio: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

impl Ratio {
    /// Of `b` to `a`; nothing if a value is not positive.
    pub(crate) fn of(a: &[f64], b: &[f64]) -> Option<Ratio> {
        if a.iter().chain(b).any(|value| value.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater))
            || a.is_empty()
            || b.is_empty()
        {
            return None;
        }
        let [a, b] = [a, b].map(|values| values.iter().map(|value| value.ln()).collect::<Vec<f64>>());
        let difference = b.as_slice().mean() - a.as_slice().mean();
        let interval = (a.len() > 1 && b.len() > 1).then(|| {
            let [va, vb] = [&a, &b].map(|logs| logs.as_slice().variance() / logs.len() as f64);
            let error = (va + vb).sqrt();
            // Welch and Satterthwaite; without any spread the freedom does not matter.
            let freedom = (va + vb).powi(2) / (va.powi(2) / (a.len() - 1) as f64 + vb.powi(2) / (b.len() - 1) as f64);
            let half = if error > 0.0 { error * t_quantile(freedom) } else { 0.0 };
            ((difference - half).exp(), (difference + half).exp())
        });
        Some(Ratio { ratio: difference.exp(), interval })
    }
}

fn t_quantile(freedom: f64) -> f64 {
    // Freedom is at least 1 wherever this is called.
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against scipy: `t.ppf(0.975, 3) * std / 2` of 1, 2, 3, 4, and `ttest_ind(log(b), log(a), equal_var=False).confidence_interval()`.
    #[test]
    fn intervals_are_those_of_a_statistics_program() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(estimate.mean, 2.5);
        assert!((estimate.half_width.unwrap() - 2.054_260_3).abs() < 1e-6, "{estimate:?}");
        assert_eq!(Estimate::of(&[1.0]).half_width, None);
        let ratio = Ratio::of(&[1.0, 1.1, 0.9], &[2.0, 2.2, 2.1]).unwrap();
        let (low, high) = ratio.interval.unwrap();
        let differences = [ratio.ratio - 2.105_453_2, low - 1.706_614_4, high - 2.597_501_4];
        assert!(differences.iter().all(|difference| difference.abs() < 1e-6), "{ratio:?}");
        assert!(Ratio::of(&[0.0], &[1.0]).is_none());
    }
}
