//! Two results beside each other: how each figure has changed, and whether the stretches of both leave room for doubt.

use super::report::{FIGURES, Report, table};
use crate::stats::Ratio;

/// A table of ratios of the second to the first, with confidence intervals of 95 %.
pub fn compare(a: &Report, b: &Report) -> String {
    let mut text = String::new();
    if a.plan != b.plan {
        text += "note: the loads are not the same\n";
    }
    if a.machine != b.machine {
        text += "note: the machines are not the same\n";
    }
    for (name, report) in [("A", a), ("B", b)] {
        if let Some(mark) = report.ran().mark() {
            text += &format!("note: {name} is {mark}\n");
        }
    }
    let rows = FIGURES.iter().map(|figure| {
        let [from, to] = [a, b].map(|report| report.rounds.iter().map(figure.of).collect::<Vec<f64>>());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let digits = figure.digits;
        let (ratio, interval, verdict) = match Ratio::of(&from, &to) {
            None => ("-".into(), "-".into(), "-"),
            Some(Ratio { ratio, interval: None }) => (format!("{ratio:.3}"), "-".into(), "one stretch each: no interval"),
            Some(Ratio { ratio, interval: Some((low, high)) }) => {
                let is_more = low > 1.0;
                let verdict = if low <= 1.0 && high >= 1.0 {
                    "no difference shown"
                } else if is_more == figure.more_is_better {
                    "better"
                } else {
                    "worse"
                };
                (format!("{ratio:.3}"), format!("{low:.3} to {high:.3}"), verdict)
            }
        };
        [
            figure.name.to_owned(),
            format!("{:.digits$}", mean(&from)),
            format!("{:.digits$}", mean(&to)),
            ratio,
            interval,
            verdict.to_owned(),
        ]
    });
    text + &table(["", "A", "B", "B/A", "95 %", ""], rows.collect()).to_string()
}
