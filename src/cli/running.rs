//! `pointsman list`, and which controllers there are: by the connection files of profiles, by the lock that a controller of ours holds for
//! life, and by whether somebody listens. A file that is there proves nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pointsman_core::connection_file::ClientFile;
use pointsman_core::net::files::read_json;
use serde_json::json;

use crate::config::{Config, profile_dir};
use crate::controller::lock::{Held, Holder, held};
use crate::controller::reach::{Contact, address, contact};

/// Options of `pointsman list`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The profile to look into; all by default.
    #[arg(long)]
    profile: Option<String>,
    /// Its folder.
    #[arg(long)]
    profile_dir: Option<PathBuf>,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// What is known of the controller of a file.
#[derive(Debug)]
pub(super) enum Life {
    /// One of ours, which lives.
    Ours(Holder),
    /// Somebody listens: ipcontroller, or one of ours on another machine.
    Listens,
    /// Nobody does: it ended without removing its file.
    Dead,
    /// The file can not be read, or its host not be reached.
    Unclear,
}

/// A connection file for clients.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) profile: PathBuf,
    pub(super) cluster_id: Option<String>,
    pub(super) life: Life,
    address: Option<String>,
}

impl Found {
    fn new(profile: &Path, path: PathBuf) -> Option<Found> {
        let name = path.file_name()?.to_str()?;
        let id = name.strip_prefix("ipcontroller-")?.strip_suffix("client.json")?;
        let cluster_id = if id.is_empty() { None } else { Some(id.strip_suffix('-')?.to_owned()) };
        let file = read_json::<ClientFile>(&path).ok();
        let life = match (held(profile, cluster_id.as_deref()), &file) {
            (Held::By(holder), _) => Life::Ours(holder),
            (_, Some(file)) => match contact(&file.common) {
                Contact::Speaks => Life::Listens,
                Contact::Nobody => Life::Dead,
                Contact::Unclear => Life::Unclear,
            },
            (_, None) => Life::Unclear,
        };
        let address = file.map(|file| address(&file.common));
        Some(Found { path, profile: profile.to_owned(), cluster_id, life, address })
    }

    /// Whether it is worth asking.
    pub(super) fn may_answer(&self) -> bool {
        matches!(self.life, Life::Ours(_) | Life::Listens)
    }

    fn life(&self) -> String {
        match &self.life {
            Life::Ours(holder) => format!("pid {}, since {}", holder.pid, holder.since),
            Life::Listens => "listens; ipcontroller, or on another machine".to_owned(),
            Life::Dead => "gone: nobody listens there".to_owned(),
            Life::Unclear => "unclear: the file or the host can not be read".to_owned(),
        }
    }

    /// The options by which it is meant.
    fn choice(&self) -> String {
        self.cluster_id.as_ref().map_or("(no cluster id)".to_owned(), |id| format!("--cluster-id {id}"))
    }

    /// One line for people who choose.
    pub(super) fn describe(&self) -> String {
        format!("{:<40} {}", self.choice(), self.life())
    }
}

/// The controllers whose files are in a profile, by name. Tries to reach those that hold no lock.
pub(super) fn in_profile(profile: &Path) -> Vec<Found> {
    let entries = std::fs::read_dir(profile.join("security")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| Found::new(profile, path)).collect()
}

/// Lists controllers.
pub(super) fn run(options: &Options) -> ExitCode {
    let mut config = Config::default();
    (config.controller.profile, config.controller.profile_dir) = (options.profile.clone(), options.profile_dir.clone());
    let env = |name: &str| std::env::var_os(name);
    let own = profile_dir(&config, &env);
    let is_one =
        options.profile.is_some() || options.profile_dir.is_some() || env("IPP_PROFILE_DIR").is_some_and(|it| !it.is_empty());
    let mut profiles = vec![own.clone()];
    if let Some(folder) = own.parent().filter(|_| !is_one) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_profile = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("profile_"));
        profiles = entries.filter(is_profile).collect();
        profiles.sort();
    }
    let found: Vec<Found> = profiles.iter().flat_map(|profile| in_profile(profile)).collect();
    if options.json {
        let as_json = |found: &Found| {
            let (state, holder) = match &found.life {
                Life::Ours(holder) => ("serves", Some(holder)),
                Life::Listens => ("listens", None),
                Life::Dead => ("gone", None),
                Life::Unclear => ("unclear", None),
            };
            json!({
                "profile_dir": found.profile, "cluster_id": found.cluster_id, "client_file": found.path, "address": found.address,
                "state": state, "pid": holder.map(|holder| holder.pid), "since": holder.map(|holder| &holder.since),
            })
        };
        println!("{:#}", serde_json::Value::Array(found.iter().map(as_json).collect()));
        return ExitCode::SUCCESS;
    }
    if found.is_empty() {
        let places: Vec<String> = profiles.iter().map(|profile| profile.display().to_string()).collect();
        println!(
            "no controller's connection file in {}",
            if places.is_empty() { own.display().to_string() } else { places.join(", ") }
        );
        return ExitCode::SUCCESS;
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header(["profile folder", "cluster id", "address", "state"]);
    for found in &found {
        let id = found.cluster_id.clone().unwrap_or_else(|| "-".to_owned());
        table.add_row([
            found.profile.display().to_string(),
            id,
            found.address.clone().unwrap_or_else(|| "?".to_owned()),
            found.life(),
        ]);
    }
    println!("{table}");
    ExitCode::SUCCESS
}
