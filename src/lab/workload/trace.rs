//! Recorded arrivals and durations: the Standard Workload Format, and CSV with named columns. Read leniently where the formats are, and refused with the
//! line where they are not.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use pointsman_core::date::Date;
use pointsman_policies::facts::hash_name;
use pointsman_policies::{Hints, Rng};
use smallvec::SmallVec;

use super::arrivals::Arrivals;
use super::stream::{Estimate, told};
use crate::lab::world::{Job, Source};

/// A line that can not be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Of what is wrong in it.
    #[error("line {line}: {reason}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// Why.
        reason: String,
    },
    /// The file can not be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A column that there is not.
    #[error("no column '{0}': there are {1}")]
    Column(String, String),
}

/// A recorded task.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// When it came, in seconds since the first.
    pub at_s: f64,
    /// How long it ran, in seconds.
    pub run_s: f64,
    /// Who sent it, from 1.
    pub client: u32,
    /// Which function it called; 0 if unknown.
    pub class: u64,
}

fn wrong(line: u64, reason: impl Into<String>) -> TraceError {
    TraceError::Line { line, reason: reason.into() }
}

/// Reads the Standard Workload Format (Feitelson's archive): submit time, run time, user and executable; what did not run is left out.
///
/// # Errors
/// If a line has too few fields, or a field is no number.
pub fn read_swf(from: impl BufRead) -> Result<Vec<Recorded>, TraceError> {
    let (mut recorded, mut users) = (Vec::new(), HashMap::new());
    for (at, text) in from.lines().enumerate() {
        let (line, text) = (at as u64 + 1, text?);
        let text = text.trim();
        if text.is_empty() || text.starts_with(';') {
            continue;
        }
        let fields = text.split_ascii_whitespace().map(str::parse::<f64>).collect::<Result<Vec<f64>, _>>();
        let fields = fields.map_err(|_| wrong(line, "a field is no number"))?;
        let [_, submit_s, _, run_s, ..] = fields[..] else { return Err(wrong(line, "fewer than four fields")) };
        let field = |at: usize| fields.get(at).copied().filter(|value| *value >= 0.0 && value.is_finite());
        if run_s < 0.0 {
            continue; // it was cancelled, or nobody knows
        }
        if !(submit_s >= 0.0 && submit_s.is_finite() && run_s.is_finite()) {
            return Err(wrong(line, "submit and run times must be 0 or more"));
        }
        let client = field(11).map_or(0, |user| numbered(&mut users, user.to_string()) + 1);
        let class = field(13).map_or(0, |executable| hash_name(&format!("executable {executable}")));
        recorded.push(Recorded { at_s: submit_s, run_s, client, class });
    }
    Ok(from_first(recorded))
}

/// Which columns of a CSV file say what. Times are seconds, or dates as ISO 8601 writes them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// When a task came.
    pub at: String,
    /// How long it ran.
    pub run: String,
    /// Who sent it.
    #[serde(default)]
    pub client: Option<String>,
    /// Which function it called.
    #[serde(default)]
    pub class: Option<String>,
    /// What a unit of `run` is in seconds: 1 unless said, such as 0.03 for a token.
    #[serde(default)]
    pub unit_s: Option<f64>,
}

/// Reads CSV with a line of names.
///
/// # Errors
/// If a column is missing or a field is not what it should be.
pub fn read_csv(from: impl Read, columns: &Columns) -> Result<Vec<Recorded>, TraceError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(from);
    let heads = reader.headers().map_err(|error| wrong(1, error.to_string()))?.clone();
    let find = |name: &str| {
        let at = heads.iter().position(|head| head == name);
        at.ok_or_else(|| TraceError::Column(name.to_owned(), heads.iter().collect::<Vec<_>>().join(", ")))
    };
    let (at_column, run_column) = (find(&columns.at)?, find(&columns.run)?);
    let client_column = columns.client.as_deref().map(find).transpose()?;
    let class_column = columns.class.as_deref().map(find).transpose()?;
    let unit_s = columns.unit_s.unwrap_or(1.0);
    let (mut recorded, mut clients) = (Vec::new(), HashMap::new());
    for row in reader.records() {
        let row = row.map_err(|error| wrong(error.position().map_or(0, csv::Position::line), error.to_string()))?;
        let line = row.position().map_or(0, csv::Position::line);
        let field = |column: usize| row.get(column).unwrap_or_default();
        let at_s = moment_s(field(at_column)).ok_or_else(|| wrong(line, format!("'{}' is no time", field(at_column))))?;
        let run_s = field(run_column).parse::<f64>().ok().filter(|run| run.is_finite() && *run >= 0.0).map(|run| run * unit_s);
        let run_s = run_s.ok_or_else(|| wrong(line, format!("'{}' is no duration", field(run_column))))?;
        let client = client_column.map_or(0, |column| numbered(&mut clients, field(column).to_owned()) + 1);
        let class = class_column.map_or(0, |column| hash_name(field(column)));
        recorded.push(Recorded { at_s, run_s, client, class });
    }
    Ok(from_first(recorded))
}

/// Clients and engines are numbered from 0 as they come, whatever they are called: a file can not make up more of them than it has lines.
pub(in crate::lab) fn numbered(names: &mut HashMap<String, u32>, name: String) -> u32 {
    let next = names.len() as u32;
    *names.entry(name).or_insert(next)
}

/// Seconds, or a date.
fn moment_s(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds).filter(|seconds| seconds.is_finite());
    }
    Date::parse(text).map(|date| date.as_unix_us() as f64 / 1e6)
}

/// In the order of arrival, from time 0.
fn from_first(mut recorded: Vec<Recorded>) -> Vec<Recorded> {
    recorded.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let first = recorded.first().map_or(0.0, |task| task.at_s);
    recorded.iter_mut().for_each(|task| task.at_s -= first);
    recorded
}

/// When the tasks of a trace come.
enum Moments {
    /// As they came, with gaps divided by this.
    Recorded(f64),
    /// As they are drawn, and when the next one does.
    Drawn(Arrivals, u64),
}

/// A trace played back: its tasks in their order, as they came, faster or slower, or at drawn moments.
pub struct Playback {
    recorded: std::sync::Arc<Vec<Recorded>>,
    next: usize,
    until: usize,
    moments: Moments,
    estimate: Estimate,
    errors: Rng,
}

impl Playback {
    /// The first so many tasks, with gaps divided by `speed`.
    pub fn new(recorded: std::sync::Arc<Vec<Recorded>>, tasks: u64, speed: f64, estimate: Estimate, seed: u64) -> Playback {
        Playback::at(recorded, tasks, Moments::Recorded(speed), estimate, seed)
    }

    /// The first so many tasks, at moments that are drawn.
    pub fn drawn(
        recorded: std::sync::Arc<Vec<Recorded>>,
        tasks: u64,
        mut arrivals: Arrivals,
        estimate: Estimate,
        seed: u64,
    ) -> Playback {
        let first_ns = arrivals.next_ns();
        Playback::at(recorded, tasks, Moments::Drawn(arrivals, first_ns), estimate, seed)
    }

    fn at(recorded: std::sync::Arc<Vec<Recorded>>, tasks: u64, moments: Moments, estimate: Estimate, seed: u64) -> Playback {
        let until = recorded.len().min(usize::try_from(tasks).unwrap_or(usize::MAX));
        Playback { recorded, next: 0, until, moments, estimate, errors: Rng::stream(seed, "estimates") }
    }
}

impl Source for Playback {
    fn next_at(&mut self) -> Option<u64> {
        let task = self.recorded.get(self.next).filter(|_| self.next < self.until)?;
        match self.moments {
            Moments::Recorded(speed) => Some((task.at_s / speed * 1e9) as u64),
            Moments::Drawn(_, next_ns) => Some(next_ns),
        }
    }

    fn take(&mut self) -> Job {
        let at_ns = self.next_at().unwrap_or(0);
        let Some(task) = self.recorded.get(self.next) else { return Job::default() };
        if let Moments::Drawn(arrivals, next_ns) = &mut self.moments {
            *next_ns = arrivals.next_ns();
        }
        self.next += 1;
        let mut hints = Hints::default();
        hints.cost_s = told(self.estimate, task.run_s, &mut self.errors);
        Job {
            at_ns,
            work_ns: (task.run_s * 1e9) as u64,
            class: task.class,
            client: task.client,
            hints,
            label: None,
            after: SmallVec::new(),
            result_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let swf = "; UnixStartTime: 0\n  1 100 5 20 4 -1 -1 4 -1 -1 1 7 -1 3 -1 -1 -1 -1\n2 90 0 -1 1\n3 95.5 0 1 1\n";
        let read = read_swf(swf.as_bytes()).unwrap();
        assert_eq!(
            read.iter().map(|task| (task.at_s, task.run_s, task.client)).collect::<Vec<_>>(),
            [(0.0, 1.0, 0), (4.5, 20.0, 1)]
        );
        assert!(read_swf("1 2\n".as_bytes()).unwrap_err().to_string().contains("line 1: fewer"));
        assert!(read_swf("; x\n1 2 x 4\n".as_bytes()).unwrap_err().to_string().contains("line 2"));
        let columns =
            Columns { at: "when".into(), run: "tokens".into(), client: Some("who".into()), class: None, unit_s: Some(0.5) };
        let csv = "when,tokens,who\n2023-11-16 18:15:46.5000000,10,a\n2023-11-16 18:15:46.0,4,b\n";
        let read = read_csv(csv.as_bytes(), &columns).unwrap();
        assert_eq!(
            read.iter().map(|task| (task.at_s, task.run_s, task.client)).collect::<Vec<_>>(),
            [(0.0, 2.0, 2), (0.5, 5.0, 1)]
        );
        let missing = read_csv("a,b\n1,2\n".as_bytes(), &columns).unwrap_err();
        assert_eq!(missing.to_string(), "no column 'when': there are a, b");
        assert!(read_csv("when,tokens,who\n1,-3,a\n".as_bytes(), &columns).unwrap_err().to_string().contains("line 2: '-3'"));
        assert_eq!(moment_s("1970-01-02T00:00:01Z"), Some(86_401.0));
    }

    #[test]
    fn a_trace_plays_at_its_speed() {
        let recorded = read_swf("1 0 0 3 1\n2 10 0 4 1\n".as_bytes()).unwrap();
        let mut playback = Playback::new(recorded.into(), 5, 2.0, Estimate::Exact, 1);
        assert_eq!(playback.take().hints.cost_s, Some(3.0));
        assert_eq!(playback.next_at(), Some(5_000_000_000));
        playback.take();
        assert_eq!(playback.next_at(), None);
    }
}
