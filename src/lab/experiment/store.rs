//! Where results are kept: a folder with the experiment, a line for each finished run, and what charts need beside. A run is known by what it depends
//! on (its point, seed, files and replication) and by the program that made it: an experiment may grow, and no number is shown that another program,
//! or this one before it was changed, has found.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::file::Experiment;
use super::point::{Pace, Point, Workload};
use super::prepared::Prepared;
use super::program::Program;
use super::run::Outcome;
use crate::lab::measure::{METRICS, StartUp};
use crate::lab::workload::ArrivalKind;

const EXPERIMENT: &str = "experiment.toml";
const PROGRAM: &str = "program.toml";
const POINTS: &str = "points.jsonl";
const ROWS: &str = "runs.csv";
const DETAILS: &str = "details.jsonl";
const RESULTS: &str = "results.csv";

/// A finished run as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which point of the experiment.
    pub point: usize,
    /// Which replication.
    pub replication: u32,
    /// Figures, in the order of [`METRICS`].
    pub figures: Vec<f64>,
}

/// What a first replication leaves for charts and warnings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Which point.
    #[serde(skip)]
    pub point: usize,
    /// Shares of responses above values.
    pub tail: Vec<(f64, f64)>,
    /// Time at work of each engine, as a share of the run.
    pub busy: Vec<f64>,
    /// Mean slowdowns by client, if there are several.
    #[serde(default)]
    pub clients: Vec<(u64, f64)>,
    /// Of one graph that is not too large: engine, start and end in seconds of each task.
    #[serde(default)]
    pub gantt: Vec<(u32, f64, f64)>,
    /// How long the start is felt, of a run that settles.
    #[serde(default)]
    pub start_up: Option<StartUp>,
}

impl Detail {
    pub(super) fn of(at: usize, point: &Point, outcome: &Outcome) -> Detail {
        let measures = &outcome.measures;
        let length_s = outcome.totals.end_ns as f64 / 1e9;
        // What comes at once or as it was recorded does not settle, and more work than can be done never does.
        let settles = match (point.workload, point.pace()) {
            (Workload::Closed, _) => true,
            (Workload::Graphs, _) if point.graphs == 1 => false,
            (_, Ok(Pace::Drawn(arrivals))) => arrivals != ArrivalKind::Batch && point.load() < 1.0,
            _ => false,
        };
        // What is worth a chart: more than one, and no more than can be told apart.
        let clients = if (2..=200).contains(&measures.by_client.len()) { measures.by_client.clone() } else { Vec::new() };
        Detail {
            point: at,
            tail: measures.tail.clone(),
            busy: measures.busy_s.iter().map(|busy_s| busy_s / length_s).collect(),
            clients,
            gantt: outcome.gantt.clone(),
            start_up: measures.start_up.filter(|_| settles),
        }
    }
}

/// A detail as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptDetail {
    program: String,
    digest: String,
    #[serde(flatten)]
    detail: Detail,
}

/// A point as it is kept: with all that the experiment says of it, told or not.
#[derive(Serialize, Deserialize)]
struct KeptPoint {
    digest: String,
    levels: Vec<(String, String)>,
    point: Point,
}

/// Which program made the results that are shown, and where the rules of their policies come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Maker {
    /// What its results are marked with.
    pub mark: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its executable, in hex.
    pub executable: String,
    /// Each policy with all its parameters, and its source.
    #[serde(default)]
    pub policies: BTreeMap<String, String>,
}

/// A folder of results.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    mark: String,
    digests: Vec<String>,
    heads: Vec<Vec<String>>,
    rows: Rows,
    runs: File,
    details_file: File,
    others: u64,
    past: u64,
}

/// What a folder holds.
#[derive(Clone, Debug)]
pub struct Results {
    /// The experiment.
    pub experiment: Experiment,
    /// Which program made them.
    pub maker: Maker,
    /// Its finished runs, by point and replication.
    pub rows: Vec<Row>,
    /// What charts need, by point.
    pub details: Vec<Detail>,
}

/// Finished runs by point and replication.
type Rows = BTreeMap<(usize, u32), Row>;

impl Store {
    /// Opens a folder for an experiment, or makes it. What `program` has found there of the experiment's runs is used. `world` says what else results
    /// depend on: nothing for simulations.
    ///
    /// # Errors
    /// If it holds another experiment, or can not be written.
    pub fn open(folder: &Path, prepared: &Prepared<'_>, program: &Program, world: &str) -> anyhow::Result<Store> {
        let experiment = prepared.experiment();
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let at = |name: &str| folder.join(name);
        refuse_another(&at(EXPERIMENT), experiment)?;
        let digests: Vec<String> =
            (0..experiment.points().len()).map(|point| format!("{}{world}", prepared.digest(point))).collect();
        let kept = read_rows(&at(ROWS))?;
        let mark = program.mark();
        let places = places(&digests);
        let mut rows = Rows::new();
        let (mut others, mut past) = (0, 0);
        for run in kept {
            match places.get(run.digest.as_str()) {
                Some(points) if run.program == mark && run.figures.len() == METRICS.len() => {
                    rows.extend(points.iter().map(|&point| run.row(point)));
                }
                Some(_) => others += 1,
                None => past += 1,
            }
        }
        // It is written anew when everything is there, so that it never shows what another program has found.
        let _ = std::fs::remove_file(at(RESULTS));
        write(&at(EXPERIMENT), &full_text(experiment))?;
        let maker = Maker {
            mark: mark.clone(),
            version: program.version().to_owned(),
            executable: program.executable().to_owned(),
            policies: prepared.sources(),
        };
        write(&at(PROGRAM), &toml::to_string(&maker)?)?;
        write(&at(POINTS), &points_text(experiment, &digests)?)?;
        let append = |name: &str| {
            let path = at(name);
            OpenOptions::new().create(true).append(true).open(&path).with_context(|| path.display().to_string())
        };
        Ok(Store {
            rows,
            runs: append(ROWS)?,
            details_file: append(DETAILS)?,
            heads: (0..experiment.points().len()).map(|at| experiment.levels(at).to_vec()).collect(),
            folder: folder.to_owned(),
            mark,
            digests,
            others,
            past,
        })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Finished runs.
    pub fn rows(&self) -> Vec<&Row> {
        self.rows.values().collect()
    }

    /// Runs of this experiment that other programs have made, which are kept and not used.
    pub fn of_other_programs(&self) -> u64 {
        self.others
    }

    /// Runs of what this experiment was before, which are kept and not used.
    pub fn of_the_past(&self) -> u64 {
        self.past
    }

    /// Whether a run is finished.
    pub fn has(&self, point: usize, replication: u32) -> bool {
        self.rows.contains_key(&(point, replication))
    }

    /// How many replications of a point are needed, as far as is known.
    pub(super) fn needed(&self, experiment: &Experiment, point: usize) -> u32 {
        needed(experiment, &self.rows, point)
    }

    /// Keeps a finished run.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn keep(&mut self, row: Row, detail: Option<Detail>) -> anyhow::Result<()> {
        let digest = self.digests.get(row.point).context("a run of a point that there is not")?;
        let figures: Vec<String> = row.figures.iter().map(f64::to_string).collect();
        // Details first: a run that is known as finished has them.
        if let Some(detail) = detail {
            let kept = KeptDetail { program: self.mark.clone(), digest: digest.clone(), detail };
            writeln!(self.details_file, "{}", serde_json::to_string(&kept)?)?;
        }
        writeln!(self.runs, "{},{digest},{},{}", self.mark, row.replication, figures.join(",")).context("results")?;
        self.rows.insert((row.point, row.replication), row);
        Ok(())
    }

    /// Writes all results in order, with names: the same bytes whatever order they came in.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn finish(&self, experiment: &Experiment) -> anyhow::Result<()> {
        let path = self.folder.join(RESULTS);
        let mut writer = csv::Writer::from_path(&path).with_context(|| path.display().to_string())?;
        let factors = experiment.factors().iter().map(String::as_str);
        writer.write_record(factors.chain(["replication"]).chain(METRICS.iter().map(|metric| metric.name)).chain(["program"]))?;
        for row in wanted(experiment, &self.rows) {
            let numbers = row.figures.iter().map(f64::to_string);
            let levels = self.heads[row.point].iter().cloned();
            writer.write_record(levels.chain([row.replication.to_string()]).chain(numbers).chain([self.mark.clone()]))?;
        }
        Ok(writer.flush()?)
    }
}

/// How many replications of a point are needed, as far as is known: what was found beyond them does not count, so that results are those of the experiment
/// as it is, however it has come about.
fn needed(experiment: &Experiment, rows: &Rows, point: usize) -> u32 {
    let (least, most) = (experiment.replications, experiment.replications_max.max(experiment.replications));
    let column = METRICS.iter().position(|metric| metric.name == experiment.precision_of);
    let (Some(precision), Some(column)) = (experiment.precision, column) else { return least };
    let mut count = least;
    loop {
        let found = (0..count).map_while(|replication| rows.get(&(point, replication)));
        let values: Vec<f64> = found.map(|row| row.figures[column]).collect();
        let estimate = crate::stats::Estimate::of(&values);
        let reached = estimate.half_width.is_some_and(|half| half <= precision * estimate.mean.abs());
        if (values.len() as u32) < count || reached || count >= most {
            return count;
        }
        count = (count + 2).min(most);
    }
}

/// The rows that the experiment asks for, in order.
fn wanted<'r>(experiment: &Experiment, rows: &'r Rows) -> Vec<&'r Row> {
    let of_point = |point: usize| {
        let needed = needed(experiment, rows, point);
        rows.range((point, 0)..(point, needed)).map(|(_, row)| row)
    };
    (0..experiment.points().len()).flat_map(of_point).collect()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Where each digest stands: two points may be the same.
fn places(digests: &[String]) -> HashMap<&str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, digest) in digests.iter().enumerate() {
        places.entry(digest).or_default().push(at);
    }
    places
}

fn refuse_another(path: &Path, experiment: &Experiment) -> anyhow::Result<()> {
    let Ok(kept) = std::fs::read_to_string(path) else { return Ok(()) };
    let name = kept.parse::<toml::Table>().ok().and_then(|table| Some(table.get("name")?.as_str()?.to_owned()));
    if name.as_deref() != Some(&experiment.name) {
        let name = name.map_or_else(|| "something else".to_owned(), |name| format!("another experiment, '{name}'"));
        bail!("{} is of {name}: name another folder with --out, or remove it", path.display());
    }
    Ok(())
}

/// The experiment with the place that its files are found from.
fn full_text(experiment: &Experiment) -> String {
    format!("# files are found from: {}\n{}", experiment.folder().display(), experiment.to_toml())
}

fn points_text(experiment: &Experiment, digests: &[String]) -> anyhow::Result<String> {
    let mut text = String::new();
    for (at, (point, digest)) in experiment.points().iter().zip(digests).enumerate() {
        let levels = experiment.factors().iter().cloned().zip(experiment.levels(at).iter().cloned()).collect();
        let kept = KeptPoint { digest: digest.clone(), levels, point: point.clone() };
        text.push_str(&serde_json::to_string(&kept)?);
        text.push('\n');
    }
    Ok(text)
}

/// A line of the runs.
struct Run {
    program: String,
    digest: String,
    replication: u32,
    figures: Vec<f64>,
}

impl Run {
    fn row(&self, point: usize) -> ((usize, u32), Row) {
        let row = Row { point, replication: self.replication, figures: self.figures.clone() };
        ((point, self.replication), row)
    }
}

fn read_rows(path: &Path) -> anyhow::Result<Vec<Run>> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(Vec::new()) };
    let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
    if complete.len() < text.len() {
        // A run that was being written when the process ended is made again.
        write(path, complete)?;
    }
    let read = |line: &str| -> Option<Run> {
        let mut fields = line.split(',');
        let (program, digest, replication) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        // Programs differ in what they measure.
        let figures = fields.map(str::parse).collect::<Result<Vec<f64>, _>>().ok()?;
        (digest.len() >= 32).then(|| Run { program: program.to_owned(), digest: digest.to_owned(), replication, figures })
    };
    let lines = complete.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            read(line).with_context(|| {
                format!(
                    "{}: line {} is no result as this version keeps them: name another folder, or remove it",
                    path.display(),
                    at + 1
                )
            })
        })
        .collect()
}

fn read_details(path: &Path, mark: &str, places: &HashMap<&str, Vec<usize>>) -> Vec<Detail> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let kept = text.lines().filter_map(|line| serde_json::from_str::<KeptDetail>(line).ok()).filter(|kept| kept.program == mark);
    let of_points = kept.flat_map(|kept| {
        let points = places.get(kept.digest.as_str()).cloned().unwrap_or_default();
        points.into_iter().map(move |point| Detail { point, ..kept.detail.clone() })
    });
    of_points.collect()
}

/// Reads a folder of results: those of the program that was the last to run the experiment.
///
/// # Errors
/// If there is no experiment in it, or something in it can not be read.
pub fn read_results(folder: &Path) -> anyhow::Result<Results> {
    let path = folder.join(EXPERIMENT);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{}: is this a folder that lab run has made?", path.display()))?;
    let files = text.lines().next().and_then(|line| line.strip_prefix("# files are found from: ")).unwrap_or(".").to_owned();
    let experiment = Experiment::parse(&text, Path::new(&files)).with_context(|| path.display().to_string())?;
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| {
            format!("{}: it is not there in results of an earlier version: run the experiment again", path.display())
        })
    };
    let maker: Maker = toml::from_str(&read(PROGRAM)?).with_context(|| PROGRAM.to_owned())?;
    let points = read(POINTS)?;
    let points = points
        .lines()
        .map(serde_json::from_str::<KeptPoint>)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| POINTS.to_owned())?;
    let digests: Vec<String> = points.into_iter().map(|point| point.digest).collect();
    if digests.len() != experiment.points().len() {
        bail!("{} and {EXPERIMENT} are not of the same experiment: run it again", folder.join(POINTS).display());
    }
    let places = places(&digests);
    let mut rows = Rows::new();
    for run in read_rows(&folder.join(ROWS))?.into_iter().filter(|run| run.program == maker.mark) {
        if run.figures.len() != METRICS.len() {
            bail!(
                "{} was written by another version ({}), which measures other things: run it again",
                folder.display(),
                maker.mark
            );
        }
        rows.extend(places.get(run.digest.as_str()).into_iter().flatten().map(|&point| run.row(point)));
    }
    let details = read_details(&folder.join(DETAILS), &maker.mark, &places);
    let rows = wanted(&experiment, &rows).into_iter().cloned().collect();
    Ok(Results { experiment, maker, rows, details })
}
