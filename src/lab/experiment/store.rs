//! Where results are kept: a folder with the experiment, a line for each finished run, and what charts need beside. An interrupted experiment goes on
//! where it was.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::file::Experiment;
use super::run::{Detail, Row};
use crate::lab::measure::METRICS;

const EXPERIMENT: &str = "experiment.toml";
const ROWS: &str = "runs.csv";
const DETAILS: &str = "details.jsonl";
const RESULTS: &str = "results.csv";

/// A folder of results.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    rows: BTreeMap<(usize, u32), Row>,
    runs: File,
    details_file: File,
    heads: Vec<(Vec<String>, Vec<String>)>,
}

/// What a folder holds.
#[derive(Clone, Debug)]
pub struct Results {
    /// The experiment.
    pub experiment: Experiment,
    /// Its finished runs, by point and replication.
    pub rows: Vec<Row>,
    /// What charts need, by point.
    pub details: Vec<Detail>,
}

impl Store {
    /// Opens a folder for an experiment, or makes it.
    ///
    /// # Errors
    /// If it holds another experiment, or can not be written.
    pub fn open(folder: &Path, experiment: &Experiment) -> anyhow::Result<Store> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let (path, text) = (folder.join(EXPERIMENT), full_text(experiment));
        match std::fs::read_to_string(&path) {
            Ok(kept) if kept != text => bail!(
                "{} holds results of another experiment, or of this one before it was changed: name another folder with --out, or remove it",
                folder.display()
            ),
            Ok(_) => {}
            Err(_) => std::fs::write(&path, &text).with_context(|| path.display().to_string())?,
        }
        let append = |name: &str| {
            let path = folder.join(name);
            OpenOptions::new().create(true).append(true).open(&path).with_context(|| path.display().to_string())
        };
        let rows = read_rows(&folder.join(ROWS))?;
        let heads = (0..experiment.points().len()).map(|at| (experiment.factors().to_vec(), experiment.levels(at).to_vec()));
        Ok(Store {
            folder: folder.to_owned(),
            rows: rows.into_iter().map(|row| ((row.point, row.replication), row)).collect(),
            runs: append(ROWS)?,
            details_file: append(DETAILS)?,
            heads: heads.collect(),
        })
    }

    /// Finished runs.
    pub fn rows(&self) -> Vec<&Row> {
        self.rows.values().collect()
    }

    /// Whether a run is finished.
    pub fn has(&self, point: usize, replication: u32) -> bool {
        self.rows.contains_key(&(point, replication))
    }

    /// The values of a metric for a point, by replication.
    pub fn values(&self, point: usize, metric: &str) -> Vec<f64> {
        let Some(column) = METRICS.iter().position(|known| known.name == metric) else { return Vec::new() };
        self.rows.range((point, 0)..=(point, u32::MAX)).map(|(_, row)| row.figures[column]).collect()
    }

    /// Keeps a finished run.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn keep(&mut self, row: Row, detail: Option<Detail>) -> anyhow::Result<()> {
        let figures: Vec<String> = row.figures.iter().map(f64::to_string).collect();
        // Details first: a run that is known as finished has them.
        if let Some(detail) = detail {
            writeln!(self.details_file, "{}", serde_json::to_string(&detail)?)?;
        }
        writeln!(self.runs, "{},{},{}", row.point, row.replication, figures.join(",")).context("results")?;
        self.rows.insert((row.point, row.replication), row);
        Ok(())
    }

    /// Writes all results in order, with names: the same bytes whatever order they came in.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn finish(&self) -> anyhow::Result<()> {
        let path = self.folder.join(RESULTS);
        let mut writer = csv::Writer::from_path(&path).with_context(|| path.display().to_string())?;
        let factors = self.heads.first().map(|head| head.0.clone()).unwrap_or_default();
        let head = factors.iter().map(String::as_str).chain(["replication"]).chain(METRICS.iter().map(|metric| metric.name));
        writer.write_record(head)?;
        for row in self.rows.values() {
            let Some((_, levels)) = self.heads.get(row.point) else { continue };
            let numbers = row.figures.iter().map(f64::to_string);
            writer.write_record(levels.iter().cloned().chain([row.replication.to_string()]).chain(numbers))?;
        }
        Ok(writer.flush()?)
    }
}

/// The experiment with the place that its files are found from.
fn full_text(experiment: &Experiment) -> String {
    format!("# files are found from: {}\n{}", experiment.folder().display(), experiment.to_toml())
}

fn read_rows(path: &Path) -> anyhow::Result<Vec<Row>> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(Vec::new()) };
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    if complete.len() + 1 < text.len() {
        // A run that was being written when the process ended is made again.
        std::fs::write(path, format!("{complete}\n")).with_context(|| path.display().to_string())?;
    }
    let read = |(at, line): (usize, &str)| {
        let fields = line.split(',').map(str::parse::<f64>).collect::<Result<Vec<f64>, _>>().ok();
        match fields.as_deref() {
            Some([point, replication, figures @ ..]) if figures.len() == METRICS.len() => {
                Ok(Row { point: *point as usize, replication: *replication as u32, figures: figures.to_vec() })
            }
            _ => bail!("{}: line {} is no result of this version", path.display(), at + 1),
        }
    };
    complete.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(read).collect()
}

fn read_details(path: &Path) -> Vec<Detail> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Reads a folder of results.
///
/// # Errors
/// If there is no experiment in it, or something in it can not be read.
pub fn read_results(folder: &Path) -> anyhow::Result<Results> {
    let path = folder.join(EXPERIMENT);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{}: is this a folder that lab run has made?", path.display()))?;
    let files = text.lines().next().and_then(|line| line.strip_prefix("# files are found from: ")).unwrap_or(".").to_owned();
    let experiment = Experiment::parse(&text, Path::new(&files)).with_context(|| path.display().to_string())?;
    let mut rows = read_rows(&folder.join(ROWS))?;
    rows.retain(|row| row.point < experiment.points().len());
    rows.sort_by_key(|row| (row.point, row.replication));
    Ok(Results { details: read_details(&folder.join(DETAILS)), experiment, rows })
}
