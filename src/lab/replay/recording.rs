//! What a controller's task records say of a run: its tasks, engines and policies. Records are others' files: whatever is in them is read, left out and
//! counted, or refused with the reason.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use pointsman_core::date::Date;
use pointsman_core::db::unpickle;
use pointsman_policies::Hints;
use pointsman_schedulers::live::FactReader;
use pointsman_schedulers::task::TaskSpec;
use rusqlite::{Connection, OpenFlags};
use smallvec::SmallVec;

use crate::lab::graph::{Dag, Edge};
use crate::lab::measure::{Collector, Measures};
use crate::lab::workload::numbered;
use crate::lab::world::{Ended, Totals};

/// Policies that change more often than this are no policies that a run was under.
const MOST_SEGMENTS: usize = 1000;

/// A task as it really ran. Moments are nanoseconds since the first submission.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RealTask {
    /// Its id.
    pub id: String,
    /// When its client sent it.
    pub submitted_ns: u64,
    /// When its engine began.
    pub started_ns: u64,
    /// When its engine was done; not before it began.
    pub completed_ns: u64,
    /// When its answer passed the controller.
    pub received_ns: u64,
    /// Its engine, by number.
    pub engine: u32,
    /// Its client, from 1.
    pub client: u32,
    /// Which function it called, as the controller told functions apart; 0 if the record does not say.
    pub class: u64,
    /// Size of its result.
    pub result_bytes: u64,
    /// What its label said.
    pub hints: Hints,
    /// Numbers of the tasks that it waited for.
    pub after: SmallVec<[u64; 2]>,
}

impl RealTask {
    /// How long it ran.
    pub fn run_ns(&self) -> u64 {
        self.completed_ns - self.started_ns
    }
}

/// Policies, and from when on they were in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The first moment, in nanoseconds since the first submission.
    pub from_ns: u64,
    /// The policies, as records name them.
    pub policies: String,
}

/// A live run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Its tasks by submission.
    pub tasks: Vec<RealTask>,
    /// How many engines did them.
    pub engines: usize,
    /// The policies in force, one after the other; none if the records do not say.
    pub segments: Vec<Segment>,
    /// Tasks that were left out: failed, or not ended.
    pub left_out: usize,
    /// Tasks that might run on some engines only.
    pub bound: usize,
}

/// A record as it is read: moments are nanoseconds since 1970.
struct Row {
    id: String,
    submitted: i64,
    started: i64,
    completed: i64,
    received: i64,
    engine: String,
    client: String,
    class: u64,
    result_bytes: u64,
    hints: Hints,
    needs: Vec<Box<str>>,
    is_bound: bool,
    policies: Option<String>,
}

fn moment_ns(text: &str) -> Option<i64> {
    Date::parse(text).and_then(|date| date.as_unix_us().checked_mul(1000))
}

/// The same policies under another seed are the same policies.
fn without_seed(policies: &str) -> &str {
    policies.split_once(", seed ").map_or(policies, |(policies, _)| policies)
}

impl Recording {
    /// Reads the task records of a controller's SQLite file; its newest table if there are several.
    ///
    /// # Errors
    /// If there is no such file or no finished task in it.
    pub fn read(path: &Path) -> anyhow::Result<Recording> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            bail!("{}: not a file", path.display());
        }
        let open = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| match error {
            rusqlite::Error::SqliteFailure(code, _) => anyhow::Error::new(code), // its other words name the path again
            other => other.into(),
        });
        let connection = open.with_context(|| path.display().to_string())?;
        let mut tables = connection
            .prepare("SELECT m.name FROM sqlite_master m WHERE m.type = 'table' AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = 'msg_id') AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = 'submitted')")
            .with_context(|| format!("{}: not a database of task records", path.display()))?;
        let names = tables.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        let newest = |name: &String| {
            let sql = format!("SELECT max(submitted) FROM \"{}\"", name.replace('"', "\"\""));
            connection.query_row(&sql, [], |row| row.get::<_, Option<String>>(0)).ok().flatten()
        };
        let name =
            names.iter().max_by_key(|name| newest(name)).with_context(|| format!("{}: no task records in it", path.display()))?;
        Recording::read_table(&connection, name).with_context(|| path.display().to_string())
    }

    fn read_table(connection: &Connection, table: &str) -> anyhow::Result<Recording> {
        let mut statement = connection.prepare(&format!(
            "SELECT msg_id, submitted, started, completed, received, engine_uuid, client_uuid, metadata, result_metadata, result_content, buffers, length(result_buffers) FROM \"{}\" WHERE queue = 'task'",
            table.replace('"', "\"\"")
        ))?;
        let mut functions = FactReader::default();
        let (mut rows, mut left_out) = (Vec::new(), 0);
        let mut read = statement.query([])?;
        while let Some(row) = read.next()? {
            match read_row(row, &mut functions)? {
                Some(row) => rows.push(row),
                None => left_out += 1,
            }
        }
        let mut recording = Recording::of_rows(rows)?;
        recording.left_out = left_out;
        Ok(recording)
    }

    fn of_rows(mut rows: Vec<Row>) -> anyhow::Result<Recording> {
        rows.sort_by_key(|row| row.submitted);
        let Some(first) = rows.first().map(|row| row.submitted) else { bail!("no task in it that has ended well") };
        let since = |at: i64| at.saturating_sub(first).max(0).unsigned_abs();
        let mut recording = Recording { segments: segments(&rows, since)?, ..Recording::default() };
        let (mut engines, mut clients): (HashMap<String, u32>, HashMap<String, u32>) = (HashMap::new(), HashMap::new());
        let mut numbers: HashMap<String, u64> = HashMap::new();
        for row in rows {
            let after = row.needs.iter().filter_map(|id| numbers.get(&**id).copied()).collect();
            numbers.insert(row.id.clone(), recording.tasks.len() as u64);
            recording.bound += usize::from(row.is_bound);
            recording.tasks.push(RealTask {
                id: row.id,
                submitted_ns: since(row.submitted),
                started_ns: since(row.started),
                completed_ns: since(row.completed.max(row.started)),
                received_ns: since(row.received),
                engine: numbered(&mut engines, row.engine),
                client: numbered(&mut clients, row.client) + 1,
                class: row.class,
                result_bytes: row.result_bytes,
                hints: row.hints,
                after,
            });
        }
        recording.engines = engines.len();
        Ok(recording)
    }

    /// What happened, in the lab's figures.
    pub fn real(&self) -> Measures {
        let mut collector = Collector::new(0);
        let mut busy_ns = vec![0; self.engines];
        for (number, task) in self.tasks.iter().enumerate() {
            busy_ns[task.engine as usize] += task.run_ns();
            collector.see(&Ended {
                number: number as u64,
                class: task.class,
                client: task.client,
                at_ns: task.submitted_ns,
                started_ns: task.started_ns,
                ended_ns: task.received_ns.max(task.submitted_ns),
                work_ns: task.run_ns(),
                engine: Some(task.engine),
                ok: true,
            });
        }
        let end_ns = self.tasks.iter().map(|task| task.received_ns).max().unwrap_or(0);
        collector.measures(&Totals { busy_ns, end_ns, ..Totals::default() }, None)
    }

    /// The run as a graph of tasks: times as they really were.
    ///
    /// # Errors
    /// If its records are not those of a graph.
    pub fn to_dag(&self) -> anyhow::Result<Dag> {
        let tasks = self.tasks.iter().map(|task| (task.id.clone(), task.run_ns() as f64 / 1e9)).collect();
        let edges = self
            .tasks
            .iter()
            .enumerate()
            .flat_map(|(to, task)| task.after.iter().map(move |&from| Edge { from: from as usize, to, bytes: 0.0 }));
        Ok(Dag::new(tasks, edges)?)
    }

    /// The segment in which most tasks were answered; 0 without any.
    pub fn longest_segment(&self) -> usize {
        let mut counts = vec![0_usize; self.segments.len().max(1)];
        for task in &self.tasks {
            let at = self.segments.partition_point(|segment| segment.from_ns <= task.received_ns).saturating_sub(1);
            counts[at] += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(0);
        counts.iter().position(|count| *count == most).unwrap_or(0)
    }

    /// How many clients and functions there are.
    pub fn clients_and_functions(&self) -> (usize, usize) {
        let clients = self.tasks.iter().map(|task| task.client).max().unwrap_or(0) as usize;
        let mut classes: Vec<u64> = self.tasks.iter().map(|task| task.class).collect();
        classes.sort_unstable();
        classes.dedup();
        (clients, classes.len())
    }
}

/// A record, unless its task failed or has not ended.
fn read_row(row: &rusqlite::Row<'_>, functions: &mut FactReader) -> anyhow::Result<Option<Row>> {
    let text = |at: usize| row.get::<_, Option<String>>(at).ok().flatten();
    let moment = |at: usize| text(at).as_deref().and_then(moment_ns);
    let json = |at: usize| text(at).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()).unwrap_or_default();
    let (mut result, content) = (json(8), json(9));
    let whole = (text(0), moment(1), moment(2), moment(3), moment(4), text(5));
    let (Some(id), Some(submitted), Some(started), Some(completed), Some(received), Some(engine)) = whole else {
        return Ok(None);
    };
    if content["status"] == "error" || result["status"] == "error" {
        return Ok(None);
    }
    let spec = text(7).and_then(|text| TaskSpec::parse(text.as_bytes()).ok()).unwrap_or_default();
    let policies = match result["policies"].take() {
        serde_json::Value::String(text) => Some(without_seed(&text).to_owned()),
        _ => None,
    };
    Ok(Some(Row {
        id,
        submitted,
        started,
        completed,
        received,
        engine,
        client: text(6).unwrap_or_default(),
        class: functions.class_of(row.get_ref(10)?.as_blob_or_null()?.map(unpickle).unwrap_or_default()),
        result_bytes: row.get::<_, Option<i64>>(11).ok().flatten().map_or(0, i64::unsigned_abs),
        hints: spec.facts.hints,
        is_bound: !spec.targets.is_empty() || !spec.follow.ids.is_empty(),
        needs: spec.after.ids.into_iter().chain(spec.follow.ids).collect(),
        policies,
    }))
}

/// The policies in turn. Each record names those that were in force when its answer passed, so they changed somewhere between two answers.
fn segments(rows: &[Row], since: impl Fn(i64) -> u64) -> anyhow::Result<Vec<Segment>> {
    let mut told: Vec<(i64, &str)> =
        rows.iter().filter_map(|row| row.policies.as_deref().map(|text| (row.received, text))).collect();
    told.sort_by_key(|(received, _)| *received);
    let mut segments: Vec<Segment> = Vec::new();
    let mut before = i64::MIN;
    for (received, policies) in told {
        match segments.last() {
            None => segments.push(Segment { from_ns: 0, policies: policies.to_owned() }),
            Some(last) if last.policies != policies => {
                let from_ns = since(before.midpoint(received));
                segments.push(Segment { from_ns, policies: policies.to_owned() });
            }
            Some(_) => {}
        }
        before = received;
    }
    if segments.len() > MOST_SEGMENTS {
        bail!("its policies changed {} times; {MOST_SEGMENTS} changes can be replayed", segments.len() - 1);
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(submitted: i64, received: i64, policies: Option<&str>) -> Row {
        Row {
            id: format!("t{submitted}"),
            submitted,
            started: submitted + 1,
            completed: submitted + 2,
            received,
            engine: "e".into(),
            client: "c".into(),
            class: 1,
            result_bytes: 0,
            hints: Hints::default(),
            needs: Vec::new(),
            is_bound: false,
            policies: policies.map(|text| without_seed(text).to_owned()),
        }
    }

    #[test]
    fn policies_change_between_the_answers_that_name_them() {
        let rows = vec![
            row(1000, 1100, Some("a, seed 1")),
            row(1010, 1300, Some("b, seed 2")),
            row(1020, 1200, Some("a, seed 2")), // the same under another seed
            row(1030, 1250, None),
        ];
        let recording = Recording::of_rows(rows).unwrap();
        let segment = |from_ns, policies: &str| Segment { from_ns, policies: policies.into() };
        assert_eq!(recording.segments, [segment(0, "a"), segment(250, "b")]); // half way from 1200 to 1300
        assert_eq!((recording.tasks.len(), recording.tasks[3].received_ns), (4, 250));
        assert_eq!(recording.longest_segment(), 0); // two each, and the first is as good
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_path_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let junk = folder.path().join("junk.db");
        std::fs::write(&junk, "no database, but long enough to be taken for one if nobody looked".repeat(10)).unwrap();
        for path in [folder.path().join("none.db"), folder.path().to_owned(), junk] {
            let error = format!("{:#}", Recording::read(&path).unwrap_err());
            assert_eq!(error.matches(&path.display().to_string()).count(), 1, "{error}");
        }
    }
}
