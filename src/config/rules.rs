//! What a configuration must be beyond its types, wherever it came from: empty names are none, what is impossible is refused by name and
//! range, and what contradicts itself or leaves something open is told. One set of rules for the start, `--show-config` and `policy check`.

use std::collections::BTreeMap;

use super::{Config, ConfigError, Store, Transport, log_level};

/// The shortest time between pings that is kept.
const SHORTEST_PERIOD_MS: u64 = 10;
/// The longest: beyond it nobody would hear of a dead engine.
const LONGEST_PERIOD_MS: u64 = 24 * 60 * 60 * 1000;
/// The broadcast tree has two to this power ports for engines, and libzmq at most 1023 sockets.
const MAX_DEPTH: u32 = 9;
/// What a time in seconds may be at most: some 300 years.
const MAX_TIME_S: f64 = 1e10;

fn wrong(setting: &str, expected: &str, found: impl std::fmt::Display) -> ConfigError {
    ConfigError::Value { setting: setting.into(), reason: format!("expected {expected}, not {found}") }
}

impl Config {
    /// The configuration as it is followed: empty names are no names, and a level of logging is one of the log's own words.
    ///
    /// # Errors
    /// If a value is impossible, with the setting and what it may be.
    pub fn settled(&self) -> Result<Config, ConfigError> {
        let mut config = self.clone();
        let (controller, session) = (&mut config.controller, &mut config.session);
        for name in [
            &mut controller.cluster_id,
            &mut controller.client_ip,
            &mut controller.engine_ip,
            &mut controller.location,
            &mut controller.client_file,
            &mut controller.engine_file,
            &mut session.ident,
            &mut session.username,
            &mut config.curve.public_key,
            &mut config.curve.secret_key,
        ] {
            name.take_if(|name| name.is_empty());
        }
        for path in [&mut session.keyfile, &mut controller.work_dir, &mut config.records.sqlite.location] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
        config.log.level = log_level::filter(&config.log.level)
            .ok_or_else(|| wrong("log.level", log_level::EXPECTED, format_args!("'{}'", config.log.level)))?;
        config.refuse_the_impossible()?;
        Ok(config)
    }

    fn refuse_the_impossible(&self) -> Result<(), ConfigError> {
        let (controller, records) = (&self.controller, &self.records);
        let is_time = |seconds: f64| (0.0..=MAX_TIME_S).contains(&seconds);
        let ages = records.retention.iter().filter_map(|rule| rule.max_age_s);
        if !(SHORTEST_PERIOD_MS..=LONGEST_PERIOD_MS).contains(&self.heartbeat.period_ms) {
            let range = format!("{SHORTEST_PERIOD_MS} to {LONGEST_PERIOD_MS} ms between pings (--ping)");
            return Err(wrong("heartbeat.period_ms", &range, self.heartbeat.period_ms));
        }
        if self.heartbeat.max_misses == 0 {
            return Err(wrong("heartbeat.max_misses", "1 or more pings that an engine may miss", 0));
        }
        if self.broadcast.depth > MAX_DEPTH {
            let range = format!("0 to {MAX_DEPTH}, since the tree has 2 to this power ports");
            return Err(wrong("broadcast.depth", &range, self.broadcast.depth));
        }
        for (setting, seconds) in std::iter::once(("controller.registration_timeout_s", controller.registration_timeout_s))
            .chain(ages.map(|age_s| ("records.retention.max_age_s", age_s)))
        {
            if !is_time(seconds) {
                return Err(wrong(setting, "seconds, 0 or more", seconds));
            }
        }
        if records.retention.iter().any(|rule| rule.is_empty()) {
            return Err(wrong(
                "records.retention",
                "max_age_s, max_records or max_bytes in each rule",
                "a rule that limits nothing",
            ));
        }
        if !(records.memory.cull_fraction > 0.0 && records.memory.cull_fraction <= 1.0) {
            return Err(wrong("records.memory.cull_fraction", "a share above 0, at most 1", records.memory.cull_fraction));
        }
        for (setting, number) in [
            ("scheduler.max_queued_tasks", self.scheduler.max_queued_tasks),
            ("scheduler.max_queued_bytes", self.scheduler.max_queued_bytes),
            ("records.memory.record_limit", records.memory.record_limit),
            ("records.memory.size_limit_bytes", records.memory.size_limit_bytes),
        ] {
            if number == 0 {
                return Err(wrong(setting, "1 or more", 0));
            }
        }
        if self.dask.allow && self.dask.timeout_ms == 0 {
            return Err(wrong("dask.timeout_ms", "1 or more", 0));
        }
        for (setting, is_empty) in [
            ("records.sqlite.filename", records.store == Store::Sqlite && records.sqlite.filename.is_empty()),
            ("records.sqlite.table", records.store == Store::Sqlite && records.sqlite.table.is_empty()),
            ("records.mongodb.uri", records.store == Store::Mongodb && records.mongodb.uri.is_empty()),
            ("dask.command", self.dask.allow && self.dask.command.first().is_none_or(String::is_empty)),
        ] {
            if is_empty {
                return Err(wrong(setting, "a name", "nothing"));
            }
        }
        if let Some(id) = controller.cluster_id.as_ref().filter(|id| id.contains(['/', '\0'])) {
            return Err(wrong("controller.cluster_id", "a name that can be part of a file's, without /", format_args!("'{id}'")));
        }
        if self.curve.enabled && self.curve.public_key.is_some() != self.curve.secret_key.is_some() {
            return Err(wrong(
                "curve.public_key and curve.secret_key",
                "both or none, since they belong together",
                "one of them",
            ));
        }
        self.refuse_impossible_ports()
    }

    /// Each port can be had once.
    fn refuse_impossible_ports(&self) -> Result<(), ConfigError> {
        let controller = &self.controller;
        let mut owners = BTreeMap::new();
        for (setting, text) in [
            ("controller.client_ports", &controller.client_ports),
            ("controller.engine_ports", &controller.engine_ports),
            ("controller.ports", &controller.ports),
        ] {
            for port in parse_ports(text).map_err(|reason| ConfigError::Value { setting: setting.into(), reason })? {
                if let Some(owner) = owners.insert(port, setting) {
                    let reason = format!("{port} is named twice, here and in {owner}: a port can be had once");
                    return Err(ConfigError::Value { setting: setting.into(), reason });
                }
            }
        }
        Ok(())
    }

    /// What is possible and perhaps not meant: no signatures, settings that rule each other out or need another. A sentence each.
    pub fn notes(&self) -> Vec<String> {
        let (controller, session, records) = (&self.controller, &self.session, &self.records);
        let mut notes = Vec::new();
        let mut note = |applies: bool, text: &str| {
            if applies {
                notes.push(text.to_owned());
            }
        };
        let has_no_key = session.key.as_deref() == Some("") && session.keyfile.is_none();
        note(
            has_no_key,
            "session.key is empty (--no-secure, or IPP_SESSION_KEY): messages are not signed, so whoever reaches a port of the controller can run code on the engines",
        );
        note(
            session.key.is_some() && session.keyfile.is_some(),
            "session.keyfile and session.key are both set (--no-secure and --secure set the key): the file's key is used",
        );
        note(
            controller.client_ip.is_some() && controller.engine_ip.is_some() && controller.ip != "127.0.0.1",
            "controller.ip has no effect beside controller.client_ip and controller.engine_ip",
        );
        note(
            controller.transport == Transport::Ipc
                && [&controller.ports, &controller.client_ports, &controller.engine_ports].iter().any(|ports| !ports.is_empty()),
            "with transport ipc no TCP port is used: controller.ports, client_ports and engine_ports have no effect",
        );
        note(
            controller.restore && matches!(records.store, Store::Memory | Store::None),
            "controller.restore: engines can be taken over, tasks can not: records.store keeps none that survive (use sqlite or mongodb)",
        );
        note(
            !self.curve.enabled
                && (!self.curve.allowed_keys.is_empty() || self.curve.public_key.is_some() || self.curve.secret_key.is_some()),
            "CURVE keys are configured, and curve.enabled is not: nothing is encrypted (--enable-curve)",
        );
        note(
            records.store == Store::None && !records.retention.is_empty(),
            "records.retention has no effect: records.store is none",
        );
        note(
            self.policy.decision_file.is_some() && self.policy.log_decisions == 0,
            "policy.decision_file has no effect while policy.log_decisions is 0",
        );
        notes
    }
}

/// `10101-10120,10200` as numbers, in order; at the most as many as there are ports.
pub(crate) fn parse_ports(text: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || format!("'{part}' is not a port or a range of ports: expected 1 to 65535, as in 10101-10120,10200");
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("'{part}' holds no port: its first is above its last"));
        }
        ports.extend(first..=last);
        if ports.len() > usize::from(u16::MAX) {
            return Err("ports are named more than once".into());
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_toml;

    #[test]
    fn what_nothing_could_follow_is_refused_with_the_setting_and_its_range() {
        for (text, says) in [
            ("[heartbeat]\nperiod_ms = 0", "heartbeat.period_ms: expected 10 to 86400000 ms"),
            ("[heartbeat]\nperiod_ms = 9", "heartbeat.period_ms"),
            ("[heartbeat]\nmax_misses = 0", "heartbeat.max_misses: expected 1 or more"),
            ("[broadcast]\ndepth = 10", "broadcast.depth: expected 0 to 9"),
            (
                "[controller]\nregistration_timeout_s = -1.0",
                "controller.registration_timeout_s: expected seconds, 0 or more, not -1",
            ),
            ("[controller]\nregistration_timeout_s = nan", "controller.registration_timeout_s"),
            ("[controller]\nregistration_timeout_s = inf", "controller.registration_timeout_s"),
            ("[[records.retention]]\nmax_age_s = -3.0", "records.retention.max_age_s: expected seconds, 0 or more, not -3"),
            ("[[records.retention]]", "records.retention: expected max_age_s"),
            ("[records.memory]\ncull_fraction = 0.0", "records.memory.cull_fraction"),
            ("[records.memory]\nrecord_limit = 0", "records.memory.record_limit"),
            ("[scheduler]\nmax_queued_bytes = 0", "scheduler.max_queued_bytes: expected 1 or more, not 0"),
            ("[records]\nstore = \"sqlite\"\nsqlite.filename = \"\"", "records.sqlite.filename"),
            ("[dask]\nallow = true\ncommand = []", "dask.command"),
            ("[controller]\ncluster_id = \"../x\"", "controller.cluster_id"),
            ("[controller]\nports = \"20-10\"", "controller.ports: '20-10' holds no port"),
            ("[controller]\nports = \"0\"", "'0' is not a port"),
            ("[controller]\nports = \"10-12,11\"", "11 is named twice"),
            ("[controller]\nports = \"10-12\"\nengine_ports = \"12\"", "here and in controller.engine_ports"),
            ("[curve]\nenabled = true\npublic_key = \"x\"", "both or none"),
            ("[log]\nlevel = \"verbose\"", "log.level: expected trace, debug, info, warn (or warning)"),
            ("[log]\nlevel = 70", "log.level"),
        ] {
            let error = parse_toml(text).unwrap().settled().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn empty_names_are_none_and_a_level_is_the_logs_own_word() {
        let text =
            "[controller]\ncluster_id = \"\"\nclient_ip = \"\"\nlocation = \"\"\n[session]\nkeyfile = \"\"\n[log]\nlevel = 30\n";
        let config = parse_toml(text).unwrap().settled().unwrap();
        assert_eq!((config.controller.cluster_id, config.controller.client_ip, config.controller.location), (None, None, None));
        assert_eq!((config.session.keyfile, config.log.level.as_str()), (None, "warn"));
        assert_eq!(Config::default().settled().unwrap(), Config::default());
    }

    #[test]
    fn what_may_not_be_meant_is_told() {
        for (text, says) in [
            ("[session]\nkey = \"\"", "messages are not signed"),
            ("[session]\nkey = \"\"\nkeyfile = \"x\"", "the file's key is used"),
            ("[controller]\nip = \"*\"\nclient_ip = \"a\"\nengine_ip = \"b\"", "controller.ip has no effect"),
            ("[controller]\ntransport = \"ipc\"\nports = \"10\"", "with transport ipc no TCP port"),
            ("[controller]\nrestore = true", "tasks can not"),
            ("[curve]\nallowed_keys = [\"x\"]", "nothing is encrypted"),
            ("[policy]\ndecision_file = \"x\"", "policy.decision_file has no effect"),
        ] {
            let notes = parse_toml(text).unwrap().notes();
            assert!(notes.len() == 1 && notes[0].contains(says), "{text}: {notes:?}");
        }
        assert!(Config::default().notes().is_empty());
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        assert_eq!(parse_ports("10-12, 20").unwrap(), [10, 11, 12, 20]);
        assert!(parse_ports("").unwrap().is_empty());
        for wrong in ["10-x", "70000", "-", "1-", "0-3", "12-10"] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }
}
