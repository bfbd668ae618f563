//! ipcontroller's own spellings: its flags and aliases, `--Class.trait=value`, and its config files. Known traits become fields of
//! [`Config`]; traits that only ipcontroller has are told and ignored, and what nobody has is refused on a command line and told of in a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pointsman_core::Packer;
use pointsman_core::packer::UnknownPacker;
use pointsman_policies::PolicySpec;
use serde_json::Value;

use super::argv::{self, split};
use super::traits::{Verdict, verdict};
use super::{Config, ConfigError, Store, Transport, literal, log_level, python, read_toml_over};

/// What was asked for instead of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Text about usage.
    Help,
    /// The version of ipyparallel whose behaviour this follows.
    Version,
    /// The configuration as it would be used.
    ShowConfig,
    /// The same as JSON.
    ShowConfigJson,
    /// Write a config file with the defaults.
    Init,
}

/// A command line, read.
#[derive(Debug, Default)]
pub struct Arguments {
    /// The configuration.
    pub config: Config,
    /// What to do instead of running.
    pub special: Option<Special>,
    /// Things that were not understood, to be logged.
    pub warnings: Vec<String>,
}

/// One `Class.trait = value`, from wherever.
#[derive(Debug)]
pub(super) struct Setting {
    /// Where it stands, for messages: an option begins with `--`.
    pub(super) origin: String,
    pub(super) class: String,
    pub(super) name: String,
    pub(super) value: Value,
}

/// Reads a command line of ipcontroller's, and the files that it and the profile name. `env` is how variables are looked up.
///
/// # Errors
/// If a value is impossible, a file unreadable, or a one-letter option unknown.
pub fn read_arguments(args: &[String], env: &dyn Fn(&str) -> Option<OsString>) -> Result<Arguments, ConfigError> {
    let mut read = Arguments::default();
    let settings = split(args, &mut read)?;
    // The profile decides which files there are, so it is looked up first.
    for setting in settings.iter().filter(|s| matches!(&*s.name, "profile" | "location" | "ipython_dir" | "extra_config_file")) {
        apply(&mut read, setting)?;
    }
    let profile = profile_dir(&read.config, env);
    for folder in [Path::new("/etc/ipython"), Path::new("/usr/local/etc/ipython"), &profile] {
        for stem in ["ipython_config", "ipcontroller_config"] {
            for setting in read_file(&folder.join(stem).with_extension("py"), &mut read.warnings, false)? {
                apply(&mut read, &setting)?;
            }
            for setting in read_file(&folder.join(stem).with_extension("json"), &mut read.warnings, false)? {
                apply(&mut read, &setting)?;
            }
        }
    }
    let own = profile.join("pointsman.toml");
    if own.exists() {
        read.config = read_toml_over(&read.config, &own)?;
    }
    for setting in &settings {
        if setting.name == "extra_config_file" {
            let path = PathBuf::from(text(setting)?);
            if path.extension().is_some_and(|extension| extension == "toml") {
                read.config = read_toml_over(&read.config, &path)?;
            } else {
                for setting in read_file(&path, &mut read.warnings, true)? {
                    apply(&mut read, &setting)?;
                }
            }
        }
    }
    for setting in &settings {
        apply(&mut read, setting)?;
    }
    read.config.session.packed_by()?;
    read.config.controller.profile_dir = Some(profile);
    // What stands in a file or on the command line counts, though it be empty.
    if read.config.controller.cluster_id.is_none() {
        read.config.controller.cluster_id = variable(env, "IPP_CLUSTER_ID")?;
    }
    if read.config.session.key.is_none() {
        read.config.session.key = variable(env, "IPP_SESSION_KEY")?;
    }
    let set = |name: &str| variable(env, name).map(|value| value.filter(|value| !value.is_empty()));
    let is_on = |name: &str| set(name).and_then(|value| value.map_or(Ok(false), |value| switched(name, &value)));
    let curve = &mut read.config.curve;
    curve.enabled |= is_on("IPP_ENABLE_CURVE")?;
    if curve.public_key.is_none() && curve.secret_key.is_none() {
        curve.public_key = set("IPP_CURVE_PUBLICKEY")?;
        curve.secret_key = set("IPP_CURVE_SECRETKEY")?;
    }
    read.config.controller.allow_plaintext |= is_on("POINTSMAN_ALLOW_PLAINTEXT")?;
    read.config = read.config.settled()?;
    Ok(read)
}

/// What a variable that is a switch says. A word that is neither on nor off is no answer to whether strangers may listen.
fn switched(name: &str, value: &str) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(ConfigError::Value { setting: name.into(), reason: format!("expected 1 or 0, not \"{value}\"") }),
    }
}

/// A variable that must be text.
fn variable(env: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>, ConfigError> {
    let is_no_text = |_| ConfigError::Value { setting: name.to_owned(), reason: "the variable is not UTF-8".into() };
    env(name).map(OsString::into_string).transpose().map_err(is_no_text)
}

/// Settings of one of ipcontroller's config files; none if it is not there and need not be.
fn read_file(path: &Path, warnings: &mut Vec<String>, must_exist: bool) -> Result<Vec<Setting>, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(Vec::new()),
        Err(error) => return Err(failed(error.to_string())),
    };
    if path.extension().is_some_and(|extension| extension == "json") {
        let whole: Value = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        let classes = whole.as_object().ok_or_else(|| failed("not a JSON object".into()))?;
        let traits = classes.iter().filter_map(|(class, traits)| Some((class, traits.as_object()?)));
        return Ok(traits
            .flat_map(|(class, traits)| {
                traits.iter().map(move |(name, value)| Setting {
                    origin: format!("{}: {class}.{name}", path.display()),
                    class: class.clone(),
                    name: name.clone(),
                    value: value.clone(),
                })
            })
            .collect());
    }
    let is_shared = path.file_stem().is_some_and(|stem| stem == "ipython_config");
    let file = match python::read(&text) {
        Ok(file) => file,
        // It is not this program's own, and IPython goes on without it too.
        Err(broken) if is_shared => {
            warnings.push(format!("{}:{}: {}: nothing of this file is used", path.display(), broken.line, broken.reason));
            return Ok(Vec::new());
        }
        Err(broken) => return Err(failed(format!("line {}: {}", broken.line, broken.reason))),
    };
    warnings.extend(file.warnings(path, is_shared.then_some(&concerns_controller as &dyn Fn(&str) -> bool)));
    let settings = file.assignments.into_iter().map(|assigned| Setting {
        origin: format!("{}:{}: {}.{}", path.display(), assigned.line, assigned.class, assigned.name),
        class: assigned.class,
        name: assigned.name,
        value: assigned.value,
    });
    Ok(settings.collect())
}

/// Classes whose traits mean something here, by any of their names.
fn concerns_controller(class: &str) -> bool {
    const OURS: [&str; 14] = [
        "IPController",
        "HubFactory",
        "IPControllerApp",
        "BaseParallelApplication",
        "Application",
        "BaseIPythonApplication",
        "ProfileDir",
        "Session",
        "HeartMonitor",
        "TaskScheduler",
        "LeastLoad",
        "DictDB",
        "SQLiteDB",
        "MongoDB",
    ];
    OURS.contains(&class)
}

/// The folder of the profile that a configuration means. `env` is how variables are looked up.
pub fn profile_dir(config: &Config, env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let controller = &config.controller;
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    controller.profile_dir.clone().or_else(|| set("IPP_PROFILE_DIR")).unwrap_or_else(|| {
        // Without the variable, as under cron, the system knows where a user is at home; ipyparallel asks it too.
        let home = set("HOME").or_else(std::env::home_dir).unwrap_or_else(|| ".".into());
        let ipython = controller.ipython_dir.clone().or_else(|| set("IPYTHONDIR")).unwrap_or_else(|| home.join(".ipython"));
        ipython.join(format!("profile_{}", controller.profile.as_deref().unwrap_or("default")))
    })
}

fn wrong(setting: &Setting, reason: &str) -> ConfigError {
    ConfigError::Value { setting: setting.origin.clone(), reason: format!("{reason}, not {}", setting.value) }
}

fn text(setting: &Setting) -> Result<String, ConfigError> {
    match &setting.value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(wrong(setting, "expected text")),
    }
}

fn policy(setting: &Setting) -> Result<PolicySpec, ConfigError> {
    text(setting)?.parse().map_err(|error: pointsman_policies::SpecError| ConfigError::Value {
        setting: setting.origin.clone(),
        reason: error.to_string(),
    })
}

/// A type of numbers, in words.
trait Ranged: std::str::FromStr {
    const RANGE: &'static str;
}

impl Ranged for u16 {
    const RANGE: &'static str = "a whole number from 0 to 65535";
}
impl Ranged for u32 {
    const RANGE: &'static str = "a whole number from 0 to 4294967295";
}
impl Ranged for u64 {
    const RANGE: &'static str = "a whole number, 0 or more";
}
impl Ranged for usize {
    const RANGE: &'static str = "a whole number, 0 or more";
}
impl Ranged for f64 {
    const RANGE: &'static str = "a number";
}

fn number<T: Ranged>(setting: &Setting) -> Result<T, ConfigError> {
    let text = match &setting.value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return Err(wrong(setting, &format!("expected {}", T::RANGE))),
    };
    text.parse().map_err(|_| wrong(setting, &format!("expected {}", T::RANGE)))
}

fn truth(setting: &Setting) -> Result<bool, ConfigError> {
    match &setting.value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if matches!(text.to_lowercase().as_str(), "true" | "1") => Ok(true),
        Value::String(text) if matches!(text.to_lowercase().as_str(), "false" | "0") => Ok(false),
        _ => Err(wrong(setting, "expected True or False")),
    }
}

fn apply(read: &mut Arguments, setting: &Setting) -> Result<(), ConfigError> {
    let config = &mut read.config;
    let controller = &mut config.controller;
    let class = match setting.class.as_str() {
        "HubFactory" | "IPControllerApp" => {
            read.warnings.push(format!("{}: the class is called IPController now", setting.origin));
            "IPController"
        }
        "BaseParallelApplication" | "Application" | "BaseIPythonApplication" => "IPController",
        "LeastLoad" => "TaskScheduler",
        class => class,
    };
    match (class, setting.name.as_str()) {
        ("IPController", "ip") => controller.ip = text(setting)?,
        ("IPController", "client_ip") => controller.client_ip = Some(text(setting)?),
        ("IPController", "engine_ip") => controller.engine_ip = Some(text(setting)?),
        ("IPController", "location") => controller.location = Some(text(setting)?),
        ("IPController", "transport") => {
            controller.transport = match text(setting)?.as_str() {
                "tcp" => Transport::Tcp,
                "ipc" => Transport::Ipc,
                _ => return Err(wrong(setting, "expected tcp or ipc")),
            };
        }
        ("IPController", "regport") => controller.registration_port = Some(number(setting)?),
        ("IPController", "ports") => controller.ports = ports(setting)?,
        ("IPController", "engine_ports") => controller.engine_ports = ports(setting)?,
        ("IPController", "client_ports") => controller.client_ports = ports(setting)?,
        ("IPController", "ssh_server") => controller.ssh = text(setting)?,
        ("IPController", "engine_ssh_server") => controller.engine_ssh = text(setting)?,
        ("IPController", "reuse_files") => controller.reuse = truth(setting)?,
        ("IPController", "restore_engines") => {
            controller.restore = truth(setting)?;
            controller.reuse |= controller.restore;
        }
        ("IPController", "registration_timeout") => controller.registration_timeout_s = number(setting)?,
        ("IPController", "broadcast_scheduler_depth") => config.broadcast.depth = number(setting)?,
        ("IPController", "client_json_file") => controller.client_file = Some(text(setting)?),
        ("IPController", "engine_json_file") => controller.engine_file = Some(text(setting)?),
        ("IPController", "profile") => controller.profile = Some(plain_name(setting)?),
        ("ProfileDir", "location") => controller.profile_dir = Some(not_empty(setting, "a folder")?.into()),
        ("IPController", "ipython_dir") => controller.ipython_dir = Some(text(setting)?.into()),
        ("IPController", "cluster_id") => controller.cluster_id = Some(text(setting)?),
        ("IPController", "work_dir") => controller.work_dir = Some(text(setting)?.into()),
        ("IPController", "log_level") => config.log.level = level(setting)?,
        ("IPController", "log_to_file") => config.log.to_file = truth(setting)?,
        ("IPController", "log_url") => config.log.url = Some(text(setting)?).filter(|url| !url.is_empty()),
        ("IPController", "db_class") => {
            config.records.store = match text(setting)?.rsplit('.').next().unwrap_or_default() {
                "DictDB" => Store::Memory,
                "SQLiteDB" => Store::Sqlite,
                "NoDB" => Store::None,
                "MongoDB" => Store::Mongodb,
                _ => return Err(wrong(setting, "expected DictDB, SQLiteDB, MongoDB or NoDB")),
            };
        }
        ("IPController", "enable_curve") => config.curve.enabled = truth(setting)?,
        ("IPController", "curve_publickey") => config.curve.public_key = Some(text(setting)?).filter(|key| !key.is_empty()),
        ("IPController", "curve_secretkey") => config.curve.secret_key = Some(text(setting)?).filter(|key| !key.is_empty()),
        ("IPController", "allow_plaintext") => controller.allow_plaintext = truth(setting)?,
        ("IPController", "monitor_url") => controller.monitor_url = Some(text(setting)?).filter(|url| !url.is_empty()),
        ("IPController", "max_message_bytes") => controller.max_message_bytes = number(setting)?,
        ("IPController", "allow_dask") => config.dask.allow = truth(setting)?,
        ("MongoDB", "database") => config.records.mongodb.database = text(setting)?,
        ("MongoDB", "connection_args") => mongo_args(setting, &mut config.records.mongodb.uri)?,
        ("MongoDB", "connection_kwargs") => mongo_kwargs(setting, &mut config.records.mongodb.uri)?,
        ("MongoDB", "uri") => config.records.mongodb.uri = text(setting)?,
        ("HeartMonitor", "period") => config.heartbeat.period_ms = number(setting)?,
        ("HeartMonitor", "max_heartmonitor_misses") => config.heartbeat.max_misses = number(setting)?,
        ("TaskScheduler", "scheme_name" | "placement") => config.policy.placement = policy(setting)?,
        ("TaskScheduler", "order") => config.policy.order = policy(setting)?,
        ("TaskScheduler", "admission") => config.policy.admission = Some(policy(setting)?),
        ("TaskScheduler", "rebalance") => config.policy.rebalance = policy(setting)?,
        ("TaskScheduler", "shadow") => config.policy.shadow.push(policy(setting)?),
        ("TaskScheduler", "hwm") => config.policy.set_hwm(number(setting)?),
        ("TaskScheduler", "seed") => config.policy.seed = Some(number(setting)?),
        ("TaskScheduler", "log_decisions") => config.policy.log_decisions = number(setting)?,
        ("Session", "session") => config.session.ident = Some(text(setting)?),
        ("Session", "username") => config.session.username = Some(text(setting)?),
        ("Session", "keyfile") => config.session.keyfile = Some(text(setting)?.into()),
        ("Session", "key") => config.session.key = Some(text(setting)?),
        ("Session", "new_key") => config.session.key = Some(pointsman_core::net::fresh_id()),
        ("Session", "packer") => config.session.packer = Some(packer(setting)?),
        ("Session", "unpacker") => config.session.unpacker = Some(packer(setting)?),
        ("Session", "signature_scheme") if text(setting)? == "hmac-sha256" => {}
        ("Session", "signature_scheme") => return Err(wrong(setting, "only hmac-sha256 is spoken here")),
        ("DictDB", "record_limit") => config.records.memory.record_limit = number(setting)?,
        ("DictDB", "size_limit") => config.records.memory.size_limit_bytes = number(setting)?,
        ("DictDB", "cull_fraction") => config.records.memory.cull_fraction = number(setting)?,
        ("SQLiteDB", "filename") => config.records.sqlite.filename = text(setting)?,
        ("SQLiteDB", "location") => {
            config.records.sqlite.location = Some(text(setting)?).filter(|l| !l.is_empty()).map(Into::into);
        }
        ("SQLiteDB", "table") => config.records.sqlite.table = text(setting)?,
        ("IPController", "extra_config_file") => {}
        _ => return without_meaning(read, setting, class),
    }
    Ok(())
}

/// A setting that changes nothing here: told, and refused where it is a typing error of a command line's.
fn without_meaning(read: &mut Arguments, setting: &Setting, class: &str) -> Result<(), ConfigError> {
    let (origin, is_option) = (&setting.origin, setting.origin.starts_with("--"));
    match verdict(class, &setting.name) {
        Verdict::Known => read.warnings.push(format!("{origin}: means nothing to this controller; ignored")),
        // Config files of a profile also speak to clients, engines, launchers and shells.
        Verdict::Elsewhere if is_option => read.warnings.push(format!("{origin}: means nothing to a controller; ignored")),
        Verdict::Elsewhere => {}
        Verdict::Unknown(nearest) => {
            let meant = match (nearest, argv::option_of(&setting.name)) {
                (_, Some(option)) if setting.class.chars().all(|c| c.is_ascii_lowercase()) => {
                    format!(
                        ": `{}.{}` is a setting of pointsman.toml; as an option it is --{option}",
                        setting.class, setting.name
                    )
                }
                (Some(nearest), _) => format!(" (did you mean {nearest}?)"),
                _ => String::new(),
            };
            let unknown = format!("{origin}: there is no such setting{meant}");
            if is_option {
                return Err(ConfigError::Option(unknown));
            }
            // Of what other programs read from the same files only the classes of this one are known.
            let of_a_controller = matches!(
                class,
                "IPController" | "HeartMonitor" | "TaskScheduler" | "DictDB" | "SQLiteDB" | "MongoDB" | "Session"
            );
            if of_a_controller || meant.contains("did you mean") {
                read.warnings.push(format!("{unknown}; ignored"));
            }
        }
    }
    Ok(())
}

/// What is not to be left out: nothing, as a variable that is not set leaves behind it, would be the current folder.
fn not_empty(setting: &Setting, what: &str) -> Result<String, ConfigError> {
    let text = text(setting)?;
    if text.is_empty() { Err(wrong(setting, &format!("expected {what}, not nothing"))) } else { Ok(text) }
}

/// A name that becomes part of a folder's.
fn plain_name(setting: &Setting) -> Result<String, ConfigError> {
    let name = not_empty(setting, "a name")?;
    let is_plain = !name.contains(['/', '\0']);
    if is_plain { Ok(name) } else { Err(wrong(setting, "expected a name without /; give a folder as --profile-dir")) }
}

/// The name of a packer, as `Session.packer` has it.
fn packer(setting: &Setting) -> Result<Packer, ConfigError> {
    let unusable = |unknown: UnknownPacker| ConfigError::Value { setting: setting.origin.clone(), reason: unknown.to_string() };
    Packer::of_name(&text(setting)?).map_err(unusable)
}

/// pymongo's positional arguments: a host or URI, and perhaps a port.
fn mongo_args(setting: &Setting, uri: &mut String) -> Result<(), ConfigError> {
    let list = match &setting.value {
        Value::Array(list) => list.clone(),
        Value::String(text) => {
            literal::parse(text).and_then(|value| value.as_array().cloned()).unwrap_or_else(|| vec![text.as_str().into()])
        }
        _ => return Err(wrong(setting, "expected a list")),
    };
    match list.as_slice() {
        [] => Ok(()),
        [Value::String(host)] if host.contains("://") => {
            host.clone_into(uri);
            Ok(())
        }
        [Value::String(host)] => {
            *uri = format!("mongodb://{host}");
            Ok(())
        }
        [Value::String(host), port] if !host.contains("://") && port.is_u64() => {
            *uri = format!("mongodb://{host}:{port}");
            Ok(())
        }
        _ => Err(wrong(
            setting,
            "expected [host], [host, port] or [uri]; anything else goes into records.mongodb.uri of pointsman.toml",
        )),
    }
}

/// pymongo's keyword arguments that say where.
fn mongo_kwargs(setting: &Setting, uri: &mut String) -> Result<(), ConfigError> {
    let parsed = match &setting.value {
        Value::String(text) => literal::parse(text),
        other => Some(other.clone()),
    };
    let Some(Value::Object(arguments)) = parsed else { return Err(wrong(setting, "expected a dict")) };
    let unknown = arguments.keys().find(|name| !matches!(name.as_str(), "host" | "port"));
    if let Some(unknown) = unknown {
        let reason =
            format!("{unknown}: only host and port are taken from here; put the rest into records.mongodb.uri of pointsman.toml");
        return Err(ConfigError::Value { setting: setting.origin.clone(), reason });
    }
    let host = arguments.get("host").and_then(Value::as_str).unwrap_or("localhost");
    *uri = match arguments.get("port").and_then(Value::as_u64) {
        _ if host.contains("://") => host.to_owned(),
        Some(port) => format!("mongodb://{host}:{port}"),
        None => format!("mongodb://{host}"),
    };
    Ok(())
}

/// Words or Python's numbers for levels of logging.
fn level(setting: &Setting) -> Result<String, ConfigError> {
    let expected = || wrong(setting, &format!("expected {}", log_level::EXPECTED));
    log_level::filter(&text(setting)?).ok_or_else(expected)
}

/// `10101-10120,10200`, or a list of numbers.
fn ports(setting: &Setting) -> Result<String, ConfigError> {
    match &setting.value {
        Value::Array(list) => {
            let each = |port: &Value| port.as_str().map_or_else(|| port.to_string(), str::to_owned);
            Ok(list.iter().map(each).collect::<Vec<_>>().join(","))
        }
        _ => text(setting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixed;

    fn read(args: &[&str], folder: &Path) -> Result<Arguments, ConfigError> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let profile = folder.to_str().unwrap().to_owned();
        read_arguments(&args, &|name| (name == "IPP_PROFILE_DIR").then(|| profile.clone().into()))
    }

    #[test]
    fn the_command_lines_of_launchers_and_tests_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        let line = ["--profile=iptest", "--log-level=10", "--ping", "250", "--dictdb", "--ip=127.0.0.1", "--TaskScheduler.hwm=0"];
        let arguments = read(&line, folder.path()).unwrap();
        assert_eq!(arguments.warnings, Vec::<String>::new());
        let config = arguments.config;
        assert_eq!(
            (config.heartbeat.period_ms, config.policy.admission, config.log.level.as_str()),
            (250, Some(fixed(0)), "debug")
        );
        let arguments = read(&["--sqlitedb", "--scheme", "lru", "--no-secure", "--reuse"], folder.path()).unwrap();
        assert_eq!(arguments.config.records.store, Store::Sqlite);
        assert_eq!((arguments.config.session.key.as_deref(), arguments.config.controller.reuse), (Some(""), true));
    }

    #[test]
    fn what_is_unknown_or_contradicts_itself_is_refused_with_what_was_meant() {
        let folder = tempfile::tempdir().unwrap();
        for (line, says) in [
            (&["--shceme=lru"][..], "unknown option --shceme (did you mean --scheme?)"),
            (&["--placment", "lru"], "did you mean --placement?"),
            (&["--no-such-thing"], "unknown option --no-such-thing;"),
            (&["-x"], "unknown option -x"),
            (&["extra"], "'extra' is not an option"),
            (&["--reuse", "restore"], "'restore' is not an option, and nothing else belongs here (did you mean --restore?)"),
            (&["--", "x"], "'--' is not an option"),
            (&["--init=foo"], "--init takes no value"),
            (&["--reuse=True"], "--reuse takes no value"),
            (&["--TaskScheduler.hwn=3"], "did you mean TaskScheduler.hwm?"),
            (&["--TaskSchedular.hwm=3"], "did you mean TaskScheduler.hwm?"),
            (&["--Session.kye=3"], "did you mean Session.key?"),
            (&["--IPController.colour=red"], "--IPController.colour: there is no such setting"),
            (&["--policy.placement=sed"], "it is --placement"),
            (&["--heartbeat.ping=1"], "it is --ping"),
            (&["--sqlitedb", "--mongodb"], "--sqlitedb and --mongodb contradict each other"),
            (&["--placement=sed", "--scheme=lru"], "--placement and --scheme contradict"),
            (&["--hwm=2", "--admission=adaptive"], "--hwm and --admission contradict"),
            (&["--no-secure", "--secure"], "contradict"),
        ] {
            match read(line, folder.path()) {
                Err(ConfigError::Option(error)) => assert!(error.contains(says), "{line:?}: {error}"),
                other => panic!("{line:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn of_a_setting_given_twice_the_last_counts_and_the_other_is_told_however_it_is_spelt() {
        let folder = tempfile::tempdir().unwrap();
        for (line, told) in [
            (&["--sqlitedb", "--IPController.db_class=NoDB"][..], "--sqlitedb: --IPController.db_class behind it counts"),
            (&["--ping=100", "--HeartMonitor.period=200"], "--ping: --HeartMonitor.period behind it counts"),
            (&["--hwm=3", "--hwm=4"], "--hwm: --hwm behind it counts"),
        ] {
            assert_eq!(read(line, folder.path()).unwrap().warnings, [told], "{line:?}");
        }
        assert!(read(&["--hwm=3", "--hwm=3"], folder.path()).unwrap().warnings.is_empty());
    }

    #[test]
    fn a_switch_in_the_environment_is_on_or_off_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let args = [format!("--profile-dir={}", folder.path().display())];
        let with = |value: &str| {
            let env = |name: &str| (name == "POINTSMAN_ALLOW_PLAINTEXT").then(|| OsString::from(value));
            read_arguments(&args, &env).map(|read| read.config.controller.allow_plaintext)
        };
        for (value, is_on) in
            [("1", true), ("yes", true), ("True", true), ("0", false), ("no", false), ("false", false), ("", false)]
        {
            assert_eq!(with(value).unwrap(), is_on, "{value}");
        }
        assert!(with("maybe").unwrap_err().to_string().contains("POINTSMAN_ALLOW_PLAINTEXT"));
    }

    #[test]
    fn what_only_ipyparallel_has_is_told_and_what_launchers_add_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let line = [
            "--usethreads",
            "--IPController.mon_port=1",
            "--Session.digest_history_size=9",
            "--IPEngine.timeout=3",
            "--log-to-file=False",
            "--debug",
            "--log-level=20",
            "--ping=250",
            "--ping=300",
            "--placement=sed",
            "--scheme=sed",
            "--ip=*",
        ];
        let arguments = read(&line, folder.path()).unwrap();
        let twice = ["--debug: --log-level behind it counts", "--ping: --ping behind it counts"];
        let (overruled, idle) = arguments.warnings.split_at(2);
        assert_eq!((overruled, idle.len()), (twice.map(String::from).as_slice(), 4), "{idle:?}");
        assert!(idle.iter().all(|line| line.contains("means nothing")), "{idle:?}");
        let config = arguments.config;
        assert_eq!((config.log.level.as_str(), config.log.to_file, config.heartbeat.period_ms), ("info", false, 300));
        std::fs::write(
            folder.path().join("ipcontroller_config.py"),
            "c.TaskScheduler.hwn = 3\nc.Cluster.n = 3\nc.Session.kye = ''\n",
        )
        .unwrap();
        let warnings = read(&[], folder.path()).unwrap().warnings;
        assert!(warnings.len() == 2 && warnings[0].contains("did you mean TaskScheduler.hwm?"), "{warnings:?}");
    }

    #[test]
    fn what_is_impossible_stops() {
        let folder = tempfile::tempdir().unwrap();
        for line in [
            "--ping=soon",
            "--hwm=-1",
            "--transport=carrier-pigeon",
            "--MongoDB.connection_kwargs={'tls': True}",
            "--Session.packer=pickle",
            "--Session.unpacker=my.module.unpack",
        ] {
            let error = read(&[line], folder.path()).unwrap_err().to_string();
            assert!(error.starts_with(line.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn packers_are_named_as_in_ipyparallel_and_pickle_is_refused_with_what_to_use() {
        let folder = tempfile::tempdir().unwrap();
        let packed = |line: &[&str]| read(line, folder.path()).unwrap().config.session.packed_by().unwrap();
        assert_eq!(packed(&[]), None);
        assert_eq!(packed(&["--Session.packer=orjson", "--Session.unpacker=json"]), Some(Packer::Json));
        assert_eq!(packed(&["--Session.packer", "msgpack"]), Some(Packer::Msgpack));
        assert_eq!(packed(&["--Session.unpacker=msgpack"]), Some(Packer::Msgpack));
        let refused = |line: &[&str]| read(line, folder.path()).unwrap_err().to_string();
        let pickle = refused(&["--Session.packer=pickle"]);
        assert!(pickle.contains("run the code of whoever sends") && pickle.contains("use msgpack"), "{pickle}");
        let other = refused(&["--Session.packer=msgpack", "--Session.unpacker=json"]);
        assert!(other.contains("json can not read what session.packer = msgpack writes"), "{other}");
        std::fs::write(folder.path().join("pointsman.toml"), "[session]\npacker = \"msgpack\"\n").unwrap();
        assert_eq!(packed(&[]), Some(Packer::Msgpack));
        std::fs::write(folder.path().join("pointsman.toml"), "[session]\npacker = \"pickle\"\n").unwrap();
        assert!(refused(&[]).contains("use msgpack"));
        std::fs::remove_file(folder.path().join("pointsman.toml")).unwrap();
        std::fs::write(folder.path().join("ipcontroller_config.py"), "c = get_config()\nc.Session.packer = 'msgpack'\n").unwrap();
        assert_eq!(packed(&[]), Some(Packer::Msgpack));
    }

    #[test]
    fn files_come_before_the_command_line_and_json_before_python() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "ipcontroller_config.py",
            "c = get_config()\nc.HeartMonitor.period = 200\nc.TaskScheduler.hwm = 7\nimport os\nc.A.b = f()\n",
        );
        write("ipcontroller_config.json", r#"{"TaskScheduler": {"hwm": 8, "scheme_name": "twobin"}}"#);
        let arguments = read(&["--scheme=lru"], folder.path()).unwrap();
        let config = arguments.config;
        let seen = (config.heartbeat.period_ms, config.policy.admission, config.policy.placement.to_string());
        assert_eq!(seen, (200, Some(fixed(8)), "lru".into()));
        assert_eq!(arguments.warnings.len(), 2, "{:?}", arguments.warnings);
        write("pointsman.toml", "[policy.admission]\nname = \"fixed\"\nhwm = 9\n");
        assert_eq!(read(&[], folder.path()).unwrap().config.policy.admission, Some(fixed(9)));
        write("pointsman.toml", "[policy]\nadmisson = \"fixed\"\n");
        assert!(read(&[], folder.path()).unwrap_err().to_string().contains("did you mean `admission`?"));
    }

    #[test]
    fn what_stocks_own_config_file_holds_can_be_taken_out_of_its_comments() {
        let folder = tempfile::tempdir().unwrap();
        let text = "c = get_config()  #noqa\nc.IPController.client_ip = ''\nc.IPController.cluster_id = ''\n\
                    c.IPController.curve_publickey = b''\nc.IPController.ports = []\nc.IPController.engine_ports = ['10-12', 14]\n\
                    c.IPController.control = None\nc.IPController.log_level = 30\nc.Session.keyfile = ''\nc.Session.session = ''\n\
                    c.IPController.location = 'vm'\nc.MongoDB.connection_args = []\nc.DictDB.size_limit = 1073741824\n";
        std::fs::write(folder.path().join("ipcontroller_config.py"), text).unwrap();
        let config = read(&[], folder.path()).unwrap().config;
        let controller = &config.controller;
        assert_eq!((&controller.client_ip, &controller.cluster_id, controller.engine_ports.as_str()), (&None, &None, "10-12,14"));
        assert_eq!((config.session.keyfile, config.session.ident, config.curve.public_key), (None, None, None));
        assert_eq!(config.log.level, "warn");
    }

    #[test]
    fn an_empty_cluster_id_is_none_wherever_it_stands_and_outdoes_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let read_with = |args: &[&str], variable: &str| {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            let env = |name: &str| match name {
                "IPP_PROFILE_DIR" => Some(folder.path().into()),
                "IPP_CLUSTER_ID" => Some(variable.into()),
                _ => None,
            };
            read_arguments(&args, &env).map(|read| read.config.controller.cluster_id)
        };
        assert_eq!(read_with(&[], "x").unwrap().as_deref(), Some("x"));
        assert_eq!((read_with(&[], "").unwrap(), read_with(&["--cluster-id="], "x").unwrap()), (None, None));
        std::fs::write(folder.path().join("pointsman.toml"), "[controller]\ncluster_id = \"\"\n").unwrap();
        assert_eq!(read_with(&[], "x").unwrap(), None);
        assert_eq!(read_with(&["--cluster-id=y"], "x").unwrap().as_deref(), Some("y"));
    }

    #[test]
    fn variables_that_are_paths_need_not_be_text_and_others_must() {
        use std::os::unix::ffi::OsStringExt as _;
        let odd = || OsString::from_vec(vec![b'/', 0xff]);
        let config = Config::default();
        for (name, rest) in [("IPP_PROFILE_DIR", ""), ("IPYTHONDIR", "profile_default"), ("HOME", ".ipython/profile_default")] {
            let folder = profile_dir(&config, &|asked| (asked == name).then(odd));
            assert_eq!(folder, Path::new(&odd()).join(rest).components().collect::<PathBuf>(), "{name}");
        }
        for name in ["IPP_CLUSTER_ID", "IPP_SESSION_KEY", "IPP_CURVE_SECRETKEY"] {
            let error = read_arguments(&[], &|asked| (asked == name).then(odd)).unwrap_err().to_string();
            assert_eq!(error, format!("{name}: the variable is not UTF-8"));
        }
    }
}
