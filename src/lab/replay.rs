//! A live run played again from its records, under the policies that it had and under others. What the replay says of the policies that really ran is
//! held against what really happened, so that one knows how far to trust what it says of the others.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use pointsman_core::date::Date;
use pointsman_core::db::unpickle;
use pointsman_policies::{Hints, Registry};
use pointsman_schedulers::live::FactReader;
use pointsman_schedulers::task::TaskSpec;
use rusqlite::{Connection, OpenFlags};
use smallvec::SmallVec;

use super::experiment::Point;
use super::graph::{Dag, Edge};
use super::measure::{Collector, Measures};
use super::workload::numbered;
use super::world::{Ended, Job, Link, Setup, Source, World};
use crate::config::Resolved;

/// A task as it really ran. Moments are nanoseconds since the first submission.
#[derive(Clone, Debug, PartialEq)]
pub struct RealTask {
    /// Its id.
    pub id: String,
    /// When its client sent it.
    pub submitted_ns: u64,
    /// When its engine began.
    pub started_ns: u64,
    /// When its engine was done.
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

/// A live run.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Its tasks by submission.
    pub tasks: Vec<RealTask>,
    /// How many engines did them.
    pub engines: usize,
    /// The policies in force, if the records say so.
    pub policies: Option<String>,
    /// Tasks that were left out: failed, or not ended.
    pub left_out: usize,
}

/// What a run costs beside the tasks' own time, as the records show it, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overheads {
    /// One way between scheduler and engine.
    pub link_s: f64,
    /// From a client to the scheduler and back, together.
    pub client_s: f64,
    /// What an engine needs for a task beside running it.
    pub engine_s: f64,
}

fn moment_ns(text: &str) -> Option<i64> {
    Date::parse(text).map(|date| date.as_unix_us() * 1000)
}

impl Recording {
    /// Reads the task records of a controller's SQLite file; its newest table if there are several.
    ///
    /// # Errors
    /// If there is no such file or no finished task in it.
    pub fn read(path: &Path) -> anyhow::Result<Recording> {
        let open = || Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let connection = open().with_context(|| path.display().to_string())?;
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
        let mut rows = connection.prepare(&format!(
            "SELECT msg_id, submitted, started, completed, received, engine_uuid, client_uuid, metadata, result_metadata, result_content, buffers, length(result_buffers) FROM \"{}\" WHERE queue = 'task' ORDER BY submitted",
            table.replace('"', "\"\"")
        ))?;
        let (mut engines, mut clients): (HashMap<String, u32>, HashMap<String, u32>) = (HashMap::new(), HashMap::new());
        let mut numbers: HashMap<String, u64> = HashMap::new();
        let mut recording = Recording { tasks: Vec::new(), engines: 0, policies: None, left_out: 0 };
        let mut functions = FactReader::default();
        let mut first_ns = None;
        let mut read = rows.query([])?;
        while let Some(row) = read.next()? {
            let text = |at: usize| row.get::<_, Option<String>>(at).ok().flatten();
            let moment = |at: usize| text(at).as_deref().and_then(moment_ns);
            let result: serde_json::Value = text(8).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let content: serde_json::Value = text(9).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let whole = (text(0), moment(1), moment(2), moment(3), moment(4), text(5));
            let (Some(id), Some(submitted), Some(started), Some(completed), Some(received), Some(engine)) = whole else {
                recording.left_out += 1;
                continue;
            };
            if content["status"] == "error" || result["status"] == "error" {
                recording.left_out += 1;
                continue;
            }
            let first_ns = *first_ns.get_or_insert(submitted);
            let since = |at: i64| (at - first_ns).max(0) as u64;
            let spec = text(7).and_then(|text| TaskSpec::parse(text.as_bytes()).ok()).unwrap_or_default();
            let needed = spec.after.ids.iter().chain(&spec.follow.ids);
            let after = needed.filter_map(|id| numbers.get(&**id).copied()).collect();
            let engine = numbered(&mut engines, engine);
            let client = numbered(&mut clients, text(6).unwrap_or_default()) + 1;
            numbers.insert(id.clone(), recording.tasks.len() as u64);
            if let Some(policies) = result["policies"].as_str() {
                recording.policies = Some(policies.to_owned());
            }
            recording.tasks.push(RealTask {
                id,
                submitted_ns: since(submitted),
                started_ns: since(started),
                completed_ns: since(completed.max(started)),
                received_ns: since(received),
                engine,
                client,
                class: functions.class_of(row.get_ref(10)?.as_blob_or_null()?.map(unpickle).unwrap_or_default()),
                result_bytes: row.get::<_, Option<i64>>(11)?.map_or(0, i64::unsigned_abs),
                hints: spec.facts.hints,
                after,
            });
        }
        if recording.tasks.is_empty() {
            bail!("no task in it that has ended well");
        }
        recording.engines = engines.len();
        Ok(recording)
    }

    /// What happened, in the lab's figures.
    pub fn real(&self) -> Measures {
        let mut collector = Collector::new(0);
        let mut busy_ns = vec![0; self.engines];
        for (number, task) in self.tasks.iter().enumerate() {
            busy_ns[task.engine as usize] += task.completed_ns - task.started_ns;
            collector.see(&Ended {
                number: number as u64,
                class: task.class,
                client: task.client,
                at_ns: task.submitted_ns,
                started_ns: task.started_ns,
                ended_ns: task.received_ns.max(task.submitted_ns),
                work_ns: task.completed_ns - task.started_ns,
                engine: Some(task.engine),
                ok: true,
            });
        }
        let end_ns = self.tasks.iter().map(|task| task.received_ns).max().unwrap_or(0);
        let totals = super::world::Totals { busy_ns, end_ns, ..Default::default() };
        collector.measures(&totals, None)
    }

    /// What the run cost beside its tasks. `hwm`: how many tasks an engine could have in flight; with one, an engine stands by while its answer and the
    /// next task travel, with more it has the next one already.
    pub fn overheads(&self, hwm: u32) -> Overheads {
        let mut by_engine: Vec<Vec<&RealTask>> = vec![Vec::new(); self.engines];
        self.tasks.iter().for_each(|task| by_engine[task.engine as usize].push(task));
        let mut gaps_s = Vec::new();
        for tasks in &mut by_engine {
            tasks.sort_by_key(|task| task.started_ns);
            for pair in tasks.windows(2) {
                // Only where the next one was there already does the gap tell what a change of tasks costs.
                if pair[1].submitted_ns < pair[0].started_ns && pair[1].after.is_empty() {
                    gaps_s.push(pair[1].started_ns.saturating_sub(pair[0].completed_ns) as f64 / 1e9);
                }
            }
        }
        let gap_s = quantile(&mut gaps_s, 0.5).unwrap_or(0.0);
        let mut out_s: Vec<f64> =
            self.tasks.iter().map(|task| task.started_ns.saturating_sub(task.submitted_ns) as f64 / 1e9).collect();
        let mut back_s: Vec<f64> =
            self.tasks.iter().map(|task| task.received_ns.saturating_sub(task.completed_ns) as f64 / 1e9).collect();
        // The quickest tasks waited for nothing but the way.
        let way_s = quantile(&mut out_s, 0.05).unwrap_or(0.0) + quantile(&mut back_s, 0.5).unwrap_or(0.0);
        let (link_s, engine_s) = if hwm == 1 { (gap_s / 2.0, 0.0) } else { ((way_s / 4.0).min(gap_s.max(1e-4)), gap_s) };
        Overheads { link_s, client_s: (way_s - 2.0 * link_s).max(0.0), engine_s }
    }

    /// Runs it again under some policies, with these overheads.
    ///
    /// # Errors
    /// If a policy is unknown, or tasks are left that nothing would ever end.
    pub fn replay(&self, point: &Point, registry: &Registry, overheads: Overheads, seed: u64) -> anyhow::Result<Measures> {
        let mut setup = Setup::identical(self.engines, seed);
        setup.engine_link = Link::of(overheads.link_s);
        setup.client_link = Link::of(overheads.client_s / 2.0);
        let mut collector = Collector::new(0);
        let mut source = Again { tasks: &self.tasks, next: 0, extra_ns: (overheads.engine_s * 1e9) as u64 };
        let totals = World::new(setup, [point.build(registry)?]).run(&mut source, |ended| collector.see(ended));
        if totals.stuck > 0 {
            bail!("{} tasks would never have ended", totals.stuck);
        }
        Ok(collector.measures(&totals, None))
    }

    /// The run as a graph of tasks: times as they really were.
    ///
    /// # Errors
    /// If its records are not those of a graph.
    pub fn to_dag(&self) -> anyhow::Result<Dag> {
        let tasks = self.tasks.iter().map(|task| (task.id.clone(), (task.completed_ns - task.started_ns) as f64 / 1e9)).collect();
        let edges = self
            .tasks
            .iter()
            .enumerate()
            .flat_map(|(to, task)| task.after.iter().map(move |&from| Edge { from: from as usize, to, bytes: 0.0 }));
        Ok(Dag::new(tasks, edges)?)
    }
}

fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64 - 1.0) * share).round().max(0.0) as usize).copied()
}

/// The same tasks at the same moments.
struct Again<'t> {
    tasks: &'t [RealTask],
    next: usize,
    extra_ns: u64,
}

impl Source for Again<'_> {
    fn next_at(&mut self) -> Option<u64> {
        self.tasks.get(self.next).map(|task| task.submitted_ns)
    }

    fn take(&mut self) -> Job {
        let Some(task) = self.tasks.get(self.next) else { return Job::default() };
        self.next += 1;
        Job {
            at_ns: task.submitted_ns,
            work_ns: task.completed_ns - task.started_ns + self.extra_ns,
            class: task.class,
            client: task.client,
            hints: task.hints,
            label: None,
            after: task.after.clone(),
            result_bytes: task.result_bytes,
        }
    }
}

/// Policies as records name them: `placement leastload[tie=lru], order fifo, admission fixed[hwm=1], rebalance none`.
///
/// # Errors
/// If they are named otherwise.
pub fn point_of(policies: &str) -> anyhow::Result<Point> {
    let wrong = || format!("'{policies}' names no policies");
    let rest = policies.strip_prefix("placement ").with_context(wrong)?;
    let (placement, rest) = rest.split_once(", order ").with_context(wrong)?;
    let (order, rest) = rest.split_once(", admission ").with_context(wrong)?;
    let (admission, rebalance) = rest.split_once(", rebalance ").with_context(wrong)?;
    // The seed that records name besides is not theirs.
    let rebalance = rebalance.split_once(", seed ").map_or(rebalance, |(name, _)| name);
    Ok(Point {
        placement: placement.into(),
        order: order.into(),
        admission: Some(admission.into()),
        rebalance: rebalance.into(),
        ..Point::default()
    })
}

/// The limit of tasks in flight that policies come to: 0 where there is none, or none that is fixed.
pub fn hwm_of(resolved: &Resolved) -> u32 {
    let admission = resolved.on(pointsman_policies::Axis::Admission);
    admission.parameters().get("hwm").and_then(serde_json::Value::as_u64).map_or(0, |hwm| hwm as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_records_are_those_that_ran() {
        let registry = Registry::builtin();
        let resolved = point_of("placement choices[d=3, tie=lru], order fifo, admission fixed[hwm=4], rebalance none")
            .unwrap()
            .policies(&registry)
            .unwrap();
        assert_eq!(hwm_of(&resolved), 4);
        // What a controller writes is read again as it was.
        let again = point_of(&format!("{resolved}, seed 7")).unwrap().policies(&registry).unwrap();
        assert_eq!(again, resolved);
        assert!(point_of("leastload").is_err());
    }
}
