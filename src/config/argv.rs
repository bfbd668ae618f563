//! A command line of ipcontroller's, split into settings: its flags, its aliases and `--Class.trait=value`. A word that nobody knows, an
//! option that takes no value and has one, and two options that contradict each other are errors; nothing is dropped.

use pointsman_policies::nearest;
use serde_json::Value;

use super::ConfigError;
use super::ipcontroller::{Arguments, Setting, Special};

/// Options with a value, and the trait that each sets.
const ALIASES: &[(&str, &str)] = &[
    ("ip", "IPController.ip"),
    ("location", "IPController.location"),
    ("transport", "IPController.transport"),
    ("port", "IPController.regport"),
    ("ports", "IPController.ports"),
    ("ssh", "IPController.ssh_server"),
    ("enginessh", "IPController.engine_ssh_server"),
    ("ping", "HeartMonitor.period"),
    ("placement", "TaskScheduler.scheme_name"),
    ("scheme", "TaskScheduler.scheme_name"),
    ("hwm", "TaskScheduler.hwm"),
    ("order", "TaskScheduler.order"),
    ("admission", "TaskScheduler.admission"),
    ("rebalance", "TaskScheduler.rebalance"),
    ("shadow", "TaskScheduler.shadow"),
    ("seed", "TaskScheduler.seed"),
    ("log-decisions", "TaskScheduler.log_decisions"),
    ("profile", "IPController.profile"),
    ("profile-dir", "ProfileDir.location"),
    ("ipython-dir", "IPController.ipython_dir"),
    ("cluster-id", "IPController.cluster_id"),
    ("work-dir", "IPController.work_dir"),
    ("clean-logs", "IPController.clean_logs"),
    ("log-url", "IPController.log_url"),
    ("monitor-url", "IPController.monitor_url"),
    ("max-message-bytes", "IPController.max_message_bytes"),
    ("log-level", "IPController.log_level"),
    ("log-to-file", "IPController.log_to_file"),
    ("config", "IPController.extra_config_file"),
    ("ident", "Session.session"),
    ("user", "Session.username"),
    ("keyfile", "Session.keyfile"),
];

/// Flags and what they set.
const FLAGS: &[(&str, &[(&str, &str)])] = &[
    ("dictdb", &[("IPController.db_class", "DictDB")]),
    ("sqlitedb", &[("IPController.db_class", "SQLiteDB")]),
    ("mongodb", &[("IPController.db_class", "MongoDB")]),
    ("nodb", &[("IPController.db_class", "NoDB")]),
    ("reuse", &[("IPController.reuse_files", "True")]),
    ("restore", &[("IPController.restore_engines", "True"), ("IPController.reuse_files", "True")]),
    ("usethreads", &[("IPController.use_threads", "True")]),
    ("no-secure", &[("Session.key", "")]),
    ("secure", &[("Session.new_key", "True")]),
    ("debug", &[("IPController.log_level", "10")]),
    ("quiet", &[("IPController.log_level", "50")]),
    ("log-to-file", &[("IPController.log_to_file", "True")]),
    ("enable-curve", &[("IPController.enable_curve", "True")]),
    ("allow-plaintext", &[("IPController.allow_plaintext", "True")]),
    ("allow-dask", &[("IPController.allow_dask", "True")]),
];

/// Options that run something else than a controller.
const SPECIALS: [(&str, Special); 8] = [
    ("-h", Special::Help),
    ("--help", Special::Help),
    ("--help-all", Special::Help),
    ("--version", Special::Version),
    ("-V", Special::Version),
    ("--show-config", Special::ShowConfig),
    ("--show-config-json", Special::ShowConfigJson),
    ("--init", Special::Init),
];

/// Options of which only one can be meant. The same option twice is none of these: the last one wins, so that launchers can add to lines.
const EXCLUSIVE: [&[&str]; 5] = [
    &["dictdb", "sqlitedb", "mongodb", "nodb"],
    &["secure", "no-secure", "keyfile"],
    &["debug", "quiet"],
    &["placement", "scheme"],
    &["hwm", "admission"],
];

fn refused(reason: String) -> ConfigError {
    ConfigError::Option(format!("{reason}; pointsman controller --help lists the options"))
}

/// Splits a command line into settings, and notes what it asks for instead of running.
///
/// # Errors
/// For a word or option that means nothing, with the nearest that does; for a value where none belongs, or none where one does; for two
/// options that contradict each other.
pub(super) fn split(args: &[String], read: &mut Arguments) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    let mut given: Vec<(&str, Option<String>)> = Vec::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        if let Some((_, special)) = SPECIALS.iter().find(|(name, _)| name == arg) {
            read.special = Some(*special);
            continue;
        }
        let Some(long) = arg.strip_prefix("--").filter(|long| !long.is_empty()) else {
            return Err(refused(match arg.strip_prefix('-') {
                Some("" | "-") | None => format!("'{arg}' is not an option, and nothing else belongs here{}", meant(arg)),
                Some(_) => format!("unknown option {arg}{}", meant(arg.trim_start_matches('-'))),
            }));
        };
        let (name, inline) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let flag = FLAGS.iter().find(|(flag, _)| *flag == name);
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        if let (Some((flag, sets)), true) = (flag, inline.is_none()) {
            for (target, value) in *sets {
                settings.extend(setting(arg, target, (*value).to_owned()));
            }
            given.push((flag, None));
            continue;
        }
        if inline.is_some()
            && alias.is_none()
            && (flag.is_some() || SPECIALS.iter().any(|(known, _)| known[1..] == arg[1..=name.len() + 1]))
        {
            return Err(refused(format!("--{name} takes no value: write it alone")));
        }
        let target = alias.map_or(name, |(_, target)| target);
        if !target.contains('.') {
            return Err(refused(format!("unknown option --{name}{}", meant(name))));
        }
        let value = inline.or_else(|| args.next_if(|next| !next.starts_with('-') || next.parse::<f64>().is_ok()).cloned());
        match value {
            Some(value) => {
                given.extend(alias.map(|(alias, _)| (*alias, Some(value.clone()))));
                settings.extend(setting(arg, target, value));
            }
            None if alias.is_none() => settings.extend(setting(arg, target, "True".into())),
            None => return Err(ConfigError::Value { setting: arg.clone(), reason: "expected a value behind it".into() }),
        }
    }
    contradictions(&given)?;
    read.warnings.extend(overruled(&settings));
    Ok(settings)
}

/// Refuses what can not be meant together.
fn contradictions(given: &[(&str, Option<String>)]) -> Result<(), ConfigError> {
    for group in EXCLUSIVE {
        let mut of_group = given.iter().filter(|(name, _)| group.contains(name));
        let Some((first, value)) = of_group.next() else { continue };
        if let Some((other, _)) = of_group.find(|(name, with)| name != first && (with.is_none() || with != value)) {
            return Err(refused(format!("--{first} and --{other} contradict each other: give one of them")));
        }
    }
    Ok(())
}

/// Of one setting given twice the last counts, as everywhere; that is told, as the two may be spelt so that nobody sees it.
fn overruled(settings: &[Setting]) -> Vec<String> {
    let behind = |at: usize| {
        let (first, rest) = (&settings[at], &settings[at + 1..]);
        rest.iter()
            .rfind(|other| (&other.class, &other.name) == (&first.class, &first.name))
            .filter(|last| last.value != first.value)
    };
    let told = |at: usize| behind(at).map(|last| format!("{}: {} behind it counts", settings[at].origin, last.origin));
    (0..settings.len()).filter_map(told).collect()
}

/// The option that was probably meant, in a sentence's tail.
fn meant(name: &str) -> String {
    let known = ALIASES.iter().map(|(alias, _)| *alias).chain(FLAGS.iter().map(|(flag, _)| *flag));
    let known = known.chain(SPECIALS.iter().filter_map(|(special, _)| special.strip_prefix("--")));
    nearest(name, known).map(|known| format!(" (did you mean --{known}?)")).unwrap_or_default()
}

/// The option of this name, if it is a line of the TOML file that has one: `policy.placement` is `--placement`.
pub(super) fn option_of(name: &str) -> Option<&'static str> {
    ALIASES.iter().map(|(alias, _)| *alias).find(|alias| *alias == name.replace('_', "-"))
}

fn setting(origin: &str, target: &str, value: String) -> Option<Setting> {
    let (class, name) = target.split_once('.')?;
    let origin = origin.split('=').next().unwrap_or(origin).to_owned();
    Some(Setting { origin, class: class.to_owned(), name: name.to_owned(), value: Value::String(value) })
}
