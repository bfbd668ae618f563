//! What theory says of systems that the lab can simulate: formulas and small exact chains, each with its source. Nothing here simulates, and nothing
//! that simulates is used here: the two must be able to disagree. Unit of time: the mean service time.

mod chain;
mod single;

pub use chain::{hwm_response, jsq_response, weighted_response};
pub use single::{
    SizeLaw, fcfs_response, foreground_background_response, mg1_wait, ps_response, sita_e_cutoffs, sita_response, sjf_response,
    srpt_response,
};

/// Erlang's C: the probability that an arrival waits, `n` servers offered `load` each (Erlang 1917). O(n).
pub fn erlang_c(n: usize, load: f64) -> f64 {
    let offered = n as f64 * load;
    let blocking = (1..=n).fold(1.0, |b, j| offered * b / (j as f64 + offered * b));
    blocking / (1.0 - load * (1.0 - blocking))
}

/// Mean response of M/M/n at `load` per server: one queue before all engines.
pub fn mmn_response(n: usize, load: f64) -> f64 {
    1.0 + erlang_c(n, load) / (n as f64 * (1.0 - load))
}

/// Mean response of GI/M/1 whose gaps have the Laplace-Stieltjes transform `transform`: 1 / (1 - sigma) with sigma the root of
/// sigma = transform(1 - sigma) below 1 (Kendall 1953).
pub fn gi_m_1_response(transform: impl Fn(f64) -> f64) -> f64 {
    // The map contracts towards the root from below; it is slow only where load is nearly 1.
    let mut sigma = 0.0;
    for _ in 0..1_000_000 {
        let next = transform(1.0 - sigma);
        if (next - sigma).abs() < 1e-14 {
            break;
        }
        sigma = next;
    }
    1.0 / (1.0 - sigma)
}

/// Random split over engines: each is M/M/1.
pub fn random_response(load: f64) -> f64 {
    1.0 / (1.0 - load)
}

/// Round robin over `n` engines without a limit: each sees every n-th arrival of a Poisson stream, E_n/M/1. Also lru.
pub fn round_robin_response(n: usize, load: f64) -> f64 {
    let rate = n as f64 * load;
    gi_m_1_response(|s| (rate / (rate + s)).powi(n as i32))
}

/// ipyparallel's twobin without a limit: of two draws with replacement the engine less recently used. By rank of recency an engine's gaps are a
/// renewal process: from rank j (0 the most recent) it is chosen, moves up, or stays.
pub fn twobin_response(n: usize, load: f64) -> f64 {
    let rate = n as f64 * load;
    let size = n as f64;
    let transform = |s: f64| {
        let mut below = f64::NAN;
        for j in 0..n {
            let (here, behind) = ((size - j as f64) / size, (size - j as f64 - 1.0) / size);
            let (chosen, older, newer) = (here.powi(2) - behind.powi(2), 1.0 - here.powi(2), behind.powi(2));
            // Rank 0 is the engine used last; what is chosen among older ones moves it up by one.
            let up = if j == 0 { 0.0 } else { older * below };
            below = rate * (chosen + up) / (rate * (1.0 - newer) + s);
        }
        below
    };
    gi_m_1_response(transform)
}

/// Power of `d` choices among infinitely many engines: the sum over i >= 1 of load^((d^i - d) / (d - 1)) (Vvedenskaya, Dobrushin and Karpelevich 1996;
/// Mitzenmacher 2001).
pub fn power_of_d_response(d: u32, load: f64) -> f64 {
    if d < 2 {
        return random_response(load);
    }
    let d = f64::from(d);
    let exponents = (1..).map(|i: i32| (d.powi(i) - d) / (d - 1.0));
    exponents.map(|exponent| load.powf(exponent)).take_while(|term| *term > 1e-17).sum()
}

/// The share of time at work of an engine with `hwm` tasks in flight, always, and a delay of `delay` between an answer and the next task's arrival: the
/// machine repairman with one repairman (Palm 1947).
pub fn saturated_utilisation(hwm: u32, delay: f64) -> f64 {
    // Weights of k tasks at the engine and hwm - k under way; the delays are an infinite server, so only their mean matters.
    let (mut weight, mut sum) = (1.0, 1.0);
    for k in 0..hwm {
        weight *= f64::from(hwm - k) / delay;
        sum += weight;
    }
    1.0 - 1.0 / sum
}

/// Mean makespan of `m` exponential tasks on `k` engines, all there at once and started first come first served.
pub fn exponential_makespan(m: usize, k: usize) -> f64 {
    let harmonic: f64 = (1..=k.min(m)).map(|i| 1.0 / i as f64).sum();
    m.saturating_sub(k) as f64 / k as f64 + harmonic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, printed: f64) {
        assert!((value - printed).abs() < 1e-6, "{value} for {printed}");
    }

    /// Figures computed independently of this module.
    #[test]
    fn formulas_give_the_known_figures() {
        near(mmn_response(4, 0.5), 1.086_957);
        near(mmn_response(4, 0.9), 2.969_383);
        near(mmn_response(16, 0.9), 1.369_590);
        near(round_robin_response(2, 0.8), 3.843_980);
        near(round_robin_response(10, 0.9), 5.660_276);
        near(twobin_response(2, 0.7), 2.857_143);
        near(power_of_d_response(2, 0.9), 2.614_057);
        near(saturated_utilisation(1, 1.0), 0.5);
        near(saturated_utilisation(2, 1.0), 0.8);
        near(saturated_utilisation(4, 1.0), 0.984_615);
        near(exponential_makespan(4, 4), 1.0 + 0.5 + 1.0 / 3.0 + 0.25);
        near(exponential_makespan(10, 2), 4.0 + 1.5);
    }

    #[test]
    fn chains_give_the_known_figures() {
        near(jsq_response(2, 0.8), 2.955_737);
        near(jsq_response(3, 0.5), 1.244_836);
        near(weighted_response(0.8), 2.988_386);
        near(hwm_response(4, 0.8, 2, true), 1.907_831);
        near(hwm_response(4, 0.8, 2, false), 2.127_173);
        near(hwm_response(4, 0.9, 1, true), mmn_response(4, 0.9));
    }
}
