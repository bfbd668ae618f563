//! Small Markov chains solved numerically: policies whose exact response has no formula. States are queue lengths in ascending order, cut off where
//! what is beyond does not show in nine digits.

use std::collections::HashMap;

/// A chain: for each state the rates to others.
struct Chain {
    states: Vec<Vec<u16>>,
    /// Into each state: from which, at what rate.
    into: Vec<Vec<(usize, f64)>>,
    /// Total rate out of each state.
    out: Vec<f64>,
}

impl Chain {
    /// All states that can be reached from the empty one; `moves` gives rates to others.
    fn explore(start: Vec<u16>, moves: impl Fn(&[u16]) -> Vec<(Vec<u16>, f64)>) -> Chain {
        let mut numbers: HashMap<Vec<u16>, usize> = HashMap::from([(start.clone(), 0)]);
        let mut chain = Chain { states: vec![start], into: vec![Vec::new()], out: Vec::new() };
        let mut at = 0;
        while at < chain.states.len() {
            let mut out = 0.0;
            for (to, rate) in moves(&chain.states[at]) {
                let next = chain.states.len();
                let number = *numbers.entry(to.clone()).or_insert(next);
                if number == next {
                    chain.states.push(to);
                    chain.into.push(Vec::new());
                }
                chain.into[number].push((at, rate));
                out += rate;
            }
            chain.out.push(out);
            at += 1;
        }
        chain
    }

    /// The mean of `value` in the long run, by Gauss-Seidel.
    fn mean(&self, value: impl Fn(&[u16]) -> f64) -> f64 {
        let mut shares = vec![1.0 / self.states.len() as f64; self.states.len()];
        for _ in 0..200_000 {
            let mut change: f64 = 0.0;
            // Forth and back: what is known travels both ways in one sweep.
            for at in (0..shares.len()).chain((0..shares.len()).rev()) {
                let flow: f64 = self.into[at].iter().map(|&(from, rate)| shares[from] * rate).sum();
                let share = flow / self.out[at];
                change = change.max((share - shares[at]).abs());
                shares[at] = share;
            }
            let sum: f64 = shares.iter().sum();
            shares.iter_mut().for_each(|share| *share /= sum);
            if change < 1e-15 {
                break;
            }
        }
        self.states.iter().zip(&shares).map(|(state, share)| value(state) * share).sum()
    }
}

fn sorted(mut lengths: Vec<u16>) -> Vec<u16> {
    lengths.sort_unstable();
    lengths
}

/// Queues at `n` engines of which none is longer than `most`; `route` gives the probability of each place.
fn queues(n: usize, load: f64, most: u16, route: impl Fn(&[u16]) -> Vec<f64>) -> f64 {
    let rate = n as f64 * load;
    let chain = Chain::explore(vec![0; n], |state| {
        let mut moves = Vec::new();
        for (at, probability) in route(state).into_iter().enumerate() {
            if probability > 0.0 && state[at] < most {
                let mut next = state.to_vec();
                next[at] += 1;
                moves.push((sorted(next), rate * probability));
            }
        }
        for at in 0..n {
            if state[at] > 0 {
                let mut next = state.to_vec();
                next[at] -= 1;
                moves.push((sorted(next), 1.0));
            }
        }
        moves
    });
    // Little's law.
    chain.mean(|state| state.iter().map(|&length| f64::from(length)).sum()) / rate
}

/// Longest queue that matters: with it a tail of load^(n * length) is left out.
fn longest(n: usize, load: f64) -> u16 {
    ((1e-13_f64).ln() / (load.ln() * n as f64)).ceil().clamp(10.0, 400.0) as u16 + 6
}

/// Mean response when each task joins a shortest queue of `n` (Winston 1977 for its optimality; solved as a chain).
pub fn jsq_response(n: usize, load: f64) -> f64 {
    queues(n, load, longest(n, load), |state| {
        let mut route = vec![0.0; state.len()];
        route[0] = 1.0; // ascending: the first is a shortest
        route
    })
}

/// Mean response of ipyparallel's weighted over two engines without a limit: both are drawn with replacement with weight 1 / (load + 1e-6), and the less
/// loaded of the draws has the task.
pub fn weighted_response(load: f64) -> f64 {
    queues(2, load, 120, |state| {
        let weights = [1.0 / (1e-6 + f64::from(state[0])), 1.0 / (1e-6 + f64::from(state[1]))];
        let sum: f64 = weights.iter().sum();
        let longer = (weights[1] / sum).powi(2); // only if both draws name it
        if state[0] == state[1] { vec![0.5, 0.5] } else { vec![1.0 - longer, longer] }
    })
}

/// Mean response of `n` engines with at most `hwm` tasks each and one queue for the rest. `least`: an open engine with the fewest tasks is chosen,
/// otherwise any open one at random.
pub fn hwm_response(n: usize, load: f64, hwm: u16, least: bool) -> f64 {
    let rate = n as f64 * load;
    let most = ((1e-14_f64).ln() / load.ln()).ceil() as u16;
    // The last number is the queue.
    let mut start = vec![0; n];
    start.push(0);
    let chain = Chain::explore(start, |state| {
        let (loads, queue) = (&state[..n], state[n]);
        let mut moves = Vec::new();
        let mut with = |loads: Vec<u16>, queue: u16, rate: f64| {
            let mut next = sorted(loads);
            next.push(queue);
            moves.push((next, rate));
        };
        let open = loads.iter().filter(|&&load| load < hwm).count();
        if open == 0 {
            if queue < most {
                with(loads.to_vec(), queue + 1, rate);
            }
        } else {
            for at in 0..n {
                let share = match (least, loads[at] < hwm) {
                    (_, false) => continue,
                    (true, true) if at == 0 => 1.0,
                    (true, true) => continue,
                    (false, true) => 1.0 / open as f64,
                };
                let mut next = loads.to_vec();
                next[at] += 1;
                with(next, queue, rate * share);
            }
        }
        for at in 0..n {
            if loads[at] == 0 {
                continue;
            }
            if queue > 0 {
                with(loads.to_vec(), queue - 1, 1.0);
            } else {
                let mut next = loads.to_vec();
                next[at] -= 1;
                with(next, 0, 1.0);
            }
        }
        moves
    });
    chain.mean(|state| state.iter().map(|&count| f64::from(count)).sum()) / rate
}
