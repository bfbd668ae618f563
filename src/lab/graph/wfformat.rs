//! Real workflows in WfFormat (WfCommons; Coleman et al., FGCS 128, 2022), versions 1.4 to 1.6, read leniently: what is not about times, files
//! and dependencies may be anything. And written, so that others can read what ran here.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Dag, DagError, Edge};

#[derive(Deserialize)]
struct Document {
    workflow: Workflow,
}

/// 1.4 has tasks here, with everything; 1.5 and later have a specification and an execution.
#[derive(Deserialize)]
struct Workflow {
    #[serde(default)]
    tasks: Option<Vec<Task>>,
    #[serde(default)]
    specification: Option<Specification>,
    #[serde(default)]
    execution: Option<Execution>,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<Task>,
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Deserialize)]
struct Execution {
    #[serde(default)]
    tasks: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default, alias = "runtime")]
    runtime_in_seconds: Option<f64>,
}

impl Task {
    fn key(&self) -> Option<&str> {
        self.id.as_deref().or(self.name.as_deref())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default, alias = "name")]
    id: Option<String>,
    #[serde(default, alias = "size")]
    size_in_bytes: Option<f64>,
    #[serde(default)]
    link: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default, alias = "runtime")]
    runtime_in_seconds: Option<f64>,
}

impl Dag {
    /// Reads a workflow. Times are those of its execution; an edge carries the files that one task writes and the other reads.
    ///
    /// # Errors
    /// If it is no WfFormat, a task has no time, names a parent that there is not, or waits for itself.
    pub fn from_wfformat(text: &str) -> Result<Dag, DagError> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| DagError::Format(format!("not WfFormat: {error}")))?;
        let Workflow { tasks, specification, execution } = document.workflow;
        let (tasks, files) = match (specification, tasks) {
            (Some(specification), _) => (specification.tasks, specification.files),
            (None, Some(tasks)) => (tasks, Vec::new()),
            (None, None) => return Err(DagError::Format("not WfFormat: workflow has neither tasks nor a specification".into())),
        };
        let mut sizes: HashMap<String, f64> = HashMap::new();
        for file in files.iter().chain(tasks.iter().flat_map(|task| &task.files)) {
            if let (Some(id), Some(bytes)) = (&file.id, file.size_in_bytes) {
                sizes.insert(id.clone(), bytes);
            }
        }
        let runs = execution.map_or_else(Vec::new, |execution| execution.tasks);
        let ran: HashMap<&str, f64> =
            runs.iter().filter_map(|run| Some((run.id.as_deref().or(run.name.as_deref())?, run.runtime_in_seconds?))).collect();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut listed = Vec::new();
        for (number, task) in tasks.iter().enumerate() {
            let key = task.key().ok_or_else(|| DagError::Format(format!("task {number} has neither id nor name")))?;
            if numbers.insert(key.to_owned(), number).is_some() {
                return Err(DagError::Twice(key.to_owned()));
            }
            let time_s = ran.get(key).copied().or_else(|| task.name.as_deref().and_then(|name| ran.get(name).copied()));
            let time_s = time_s.or(task.runtime_in_seconds);
            let time_s = time_s.ok_or_else(|| DagError::Format(format!("task '{key}' has no runtimeInSeconds")))?;
            listed.push((key.to_owned(), time_s));
        }
        // Older files name parents by name even where there is an id.
        let by_name: HashMap<&str, usize> =
            tasks.iter().enumerate().filter_map(|(n, task)| Some((task.name.as_deref()?, n))).collect();
        let find = |of: &str, name: &str| {
            let found = numbers.get(name).or_else(|| by_name.get(name)).copied();
            found.ok_or_else(|| DagError::Unknown(of.to_owned(), name.to_owned()))
        };
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for (number, task) in tasks.iter().enumerate() {
            let of = task.key().unwrap_or_default();
            for parent in &task.parents {
                pairs.push((find(of, parent)?, number));
            }
            for child in &task.children {
                pairs.push((number, find(of, child)?));
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let edges: Vec<Edge> = pairs
            .into_iter()
            .map(|(from, to)| {
                let made = written(&tasks[from]);
                let needed = read(&tasks[to]);
                let shared = made.iter().filter(|file| needed.contains(file));
                Edge { from, to, bytes: shared.filter_map(|file| sizes.get(*file)).sum() }
            })
            .collect();
        Dag::new(listed, edges)
    }

    /// Writes it as WfFormat 1.5: each edge that carries bytes by way of a file of its own.
    pub fn to_wfformat(&self, name: &str) -> Value {
        let file = |edge: &Edge| format!("{}-{}", self.name(edge.from), self.name(edge.to));
        let carries = |edge: &&Edge| edge.bytes > 0.0;
        let names = |tasks: &mut dyn Iterator<Item = usize>| tasks.map(|task| self.name(task).to_owned()).collect::<Vec<_>>();
        let tasks = (0..self.len()).map(|task| {
            json!({
                "name": self.name(task), "id": self.name(task),
                "parents": names(&mut self.parents(task)), "children": names(&mut self.children(task)),
                "inputFiles": self.inputs(task).filter(carries).map(file).collect::<Vec<_>>(),
                "outputFiles": self.outputs(task).filter(carries).map(file).collect::<Vec<_>>(),
            })
        });
        let files = self.edges().iter().filter(carries).map(|edge| json!({"id": file(edge), "sizeInBytes": edge.bytes as u64}));
        let runs = (0..self.len()).map(|task| json!({"id": self.name(task), "runtimeInSeconds": self.work_s(task)}));
        json!({
            "name": name, "schemaVersion": "1.5",
            "workflow": {
                "specification": {"tasks": tasks.collect::<Vec<_>>(), "files": files.collect::<Vec<_>>()},
                "execution": {"tasks": runs.collect::<Vec<_>>()},
            },
        })
    }
}

fn written(task: &Task) -> Vec<&str> {
    linked(task, &task.output_files, "output")
}

fn read(task: &Task) -> Vec<&str> {
    linked(task, &task.input_files, "input")
}

fn linked<'t>(task: &'t Task, listed: &'t [String], link: &str) -> Vec<&'t str> {
    let older = task.files.iter().filter(|file| file.link.as_deref() == Some(link)).filter_map(|file| file.id.as_deref());
    let mut all: Vec<&str> = listed.iter().map(String::as_str).chain(older).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_read() {
        let new = r#"{"workflow": {"specification": {"tasks": [
            {"name": "a", "id": "a.1", "children": ["b.1"], "parents": [], "outputFiles": ["f", "g"]},
            {"name": "b", "id": "b.1", "parents": ["a.1"], "inputFiles": ["f"], "new": {"in": "1.6"}}],
            "files": [{"id": "f", "sizeInBytes": 7}, {"id": "g", "sizeInBytes": 100}]},
            "execution": {"makespanInSeconds": 9, "tasks": [{"id": "b.1", "runtimeInSeconds": 2.5}, {"id": "a.1", "runtimeInSeconds": 0}]}}}"#;
        let old = r#"{"workflow": {"tasks": [
            {"name": "a", "runtime": 0, "parents": [], "files": [{"link": "output", "name": "f", "size": 7}]},
            {"name": "b", "runtimeInSeconds": 2.5, "parents": ["a"], "files": [{"link": "input", "name": "f", "size": 7}]}]}}"#;
        for text in [new, old] {
            let dag = Dag::from_wfformat(text).unwrap();
            assert_eq!((dag.len(), dag.work_s(0), dag.work_s(1)), (2, 0.0, 2.5));
            assert_eq!(dag.edges(), [Edge { from: 0, to: 1, bytes: 7.0 }]);
            let again = Dag::from_wfformat(&dag.to_wfformat("x").to_string()).unwrap();
            assert_eq!(again, dag);
        }
    }

    #[test]
    fn what_is_broken_is_refused_with_its_place() {
        for (text, says) in [
            ("{", "not WfFormat"),
            (r#"{"workflow": {}}"#, "neither tasks nor"),
            (r#"{"workflow": {"tasks": [{"name": "a"}]}}"#, "'a' has no runtimeInSeconds"),
            (r#"{"workflow": {"tasks": [{"name": "a", "runtime": -1}]}}"#, "'a' takes -1"),
            (r#"{"workflow": {"tasks": [{"name": "a", "runtime": 1, "parents": ["z"]}]}}"#, "'a' names 'z'"),
            (r#"{"workflow": {"tasks": [{"name": "a", "runtime": 1, "parents": ["a"]}]}}"#, "waits for itself"),
            (r#"{"workflow": {"tasks": [{"name": "a", "runtime": 1}, {"name": "a", "runtime": 1}]}}"#, "two tasks 'a'"),
        ] {
            let error = Dag::from_wfformat(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
