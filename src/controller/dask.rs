//! A Dask scheduler beside the controller, for `Client.become_dask`: a process of its own, started when a client asks and ended with the
//! controller. What a client may say about it becomes options of that program one by one; nothing reaches a shell.

use std::collections::VecDeque;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pointsman_core::hub::driver::HubInput;
use pointsman_core::hub::{DaskAddress, DaskOrder};
use pointsman_core::net::{Clock, Mailbox, Outbox};
use serde_json::{Map, Value};

use super::address::is_loopback;
use crate::config::Dask;

/// What its thread is told.
#[derive(Debug)]
pub(super) enum DaskInput {
    /// A client's wish, under the hub's number for it.
    Order(u64, DaskOrder),
    /// The controller ends.
    Stop,
}

/// The scheduler's keeper.
pub(super) struct DaskKeeper {
    config: Dask,
    reach: Reach,
    running: Option<(Child, DaskAddress)>,
    /// What came while a scheduler was starting.
    later: VecDeque<DaskInput>,
    hub: Outbox<HubInput>,
}

/// Who may reach the scheduler: its connections are neither signed nor encrypted, and run code.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// Where it listens unless a client says otherwise; nothing for everywhere.
    pub(super) host: Option<String>,
    /// Whether that, or what a client says, may be more than this machine.
    pub(super) may_be_remote: bool,
}

/// How often a starting scheduler is looked at.
const LOOK_EVERY_MS: i64 = 50;
/// Runs its arguments until they end or standard input does, as it does with the controller, whatever became of that. The one who watches for the
/// latter ends with them: later, their number may be somebody else's.
const WATCHED: &str = r#"exec 3<&0; "$@" </dev/null 3<&- & child=$!; (read -r _ <&3; kill -9 "$child" 2>/dev/null) & watcher=$!
wait "$child"; status=$?; kill "$watcher" 2>/dev/null; exit "$status""#;

impl DaskKeeper {
    pub(super) fn new(config: Dask, reach: Reach, hub: Outbox<HubInput>) -> Self {
        DaskKeeper { config, reach, running: None, later: VecDeque::new(), hub }
    }

    /// Does as it is told until told to stop.
    pub(super) fn serve(&mut self, inputs: &Mailbox<DaskInput>) {
        let mut taken = Vec::new();
        loop {
            if self.later.is_empty() {
                let _ = zmq::poll(&mut [zmq::PollItem::from_fd(inputs.fd(), zmq::POLLIN)], -1);
                inputs.take(1, &mut taken);
                self.later.extend(taken.drain(..));
            }
            match self.later.pop_front() {
                None => {}
                Some(DaskInput::Stop) => return self.end(),
                Some(DaskInput::Order(number, DaskOrder::Stop)) => {
                    self.end();
                    self.hub.send_always(HubInput::Dask(number, Ok(None)));
                }
                Some(DaskInput::Order(number, DaskOrder::Start(arguments))) => {
                    let outcome = self.start(&arguments, inputs).map(Some);
                    self.hub.send_always(HubInput::Dask(number, outcome));
                }
            }
        }
    }

    fn end(&mut self) {
        if let Some((mut child, address)) = self.running.take() {
            tracing::info!("ending the Dask scheduler at {}", address.address);
            end(&mut child);
        }
    }

    fn start(&mut self, arguments: &Map<String, Value>, inputs: &Mailbox<DaskInput>) -> Result<DaskAddress, String> {
        if let Some((child, address)) = &mut self.running {
            if matches!(child.try_wait(), Ok(None)) {
                return Ok(address.clone());
            }
            self.running = None; // it ended by itself
        }
        let options = options(arguments, &self.reach)?;
        if self.config.command.is_empty() {
            return Err("dask.command is empty".into());
        }
        let folder = tempfile::Builder::new().prefix("pointsman-dask-").tempdir().map_err(|error| error.to_string())?;
        let file = folder.path().join("scheduler.json");
        let mut child = Command::new("sh")
            .args(["-c", WATCHED, "sh"])
            .args(&self.config.command)
            .args(options)
            .arg(format!("--scheduler-file={}", file.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("'sh' can not be started: {error}"))?;
        let clock = Clock::default();
        let timeout = Duration::from_millis(self.config.timeout_ms);
        let address = loop {
            if let Some(address) = read_address(&file) {
                break address;
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!(
                    "'{}' ended at once ({status}): install distributed, or set dask.command; its reason is in the controller's log",
                    self.config.command.join(" ")
                ));
            }
            let mut taken = Vec::new();
            inputs.take(usize::MAX, &mut taken);
            self.later.extend(taken);
            if self.later.iter().any(|input| matches!(input, DaskInput::Stop)) {
                end(&mut child);
                return Err("the controller ends".into());
            }
            if clock.now() > timeout {
                end(&mut child);
                return Err(format!("the Dask scheduler did not listen within {timeout:?}"));
            }
            let _ = zmq::poll(&mut [zmq::PollItem::from_fd(inputs.fd(), zmq::POLLIN)], LOOK_EVERY_MS);
        };
        tracing::info!("a Dask scheduler listens at {}", address.address);
        self.running = Some((child, address.clone()));
        Ok(address)
    }
}

impl Drop for DaskKeeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lets go of a scheduler, which ends with its standard input.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

/// The address in a scheduler file, once it is there and whole.
fn read_address(file: &std::path::Path) -> Option<DaskAddress> {
    let whole: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let address = whole["address"].as_str()?;
    let (ip, port) = address.rsplit_once("://")?.1.rsplit_once(':')?;
    Some(DaskAddress { ip: ip.to_owned(), address: address.to_owned(), port: port.parse().ok()? })
}

/// A scheduler's arguments, as `distributed.Scheduler` takes them, to options of its command.
fn options(arguments: &Map<String, Value>, reach: &Reach) -> Result<Vec<String>, String> {
    let remote = |what: &str| {
        format!(
            "a Dask scheduler on {what} would let anybody there run code on the engines: --allow-plaintext permits it, on a trusted network"
        )
    };
    let mut options = Vec::new();
    for (name, value) in arguments {
        let option = match name.as_str() {
            "ip" | "host" => "host",
            "port" => "port",
            "protocol" => "protocol",
            "interface" => "interface",
            "dashboard_address" => "dashboard-address",
            "idle_timeout" => "idle-timeout",
            "dashboard" => {
                options.push(if value == &Value::Bool(false) { "--no-dashboard".into() } else { "--dashboard".into() });
                continue;
            }
            other => return Err(format!("scheduler_args: '{}' can not be passed on", other.escape_debug())),
        };
        match value {
            Value::Null => {}
            Value::String(text) if matches!(option, "host" | "interface") && !reach.may_be_remote && !is_loopback(text) => {
                return Err(remote(&text.escape_debug().to_string()));
            }
            Value::String(text) => options.push(format!("--{option}={text}")),
            Value::Number(number) => options.push(format!("--{option}={number}")),
            _ => return Err(format!("scheduler_args: {name} must be text or a number")),
        }
    }
    let has = |option: &str| options.iter().any(|given| given.starts_with(option));
    let mut more = Vec::new();
    if !has("--host") && !has("--interface") {
        match &reach.host {
            Some(host) => more.push(format!("--host={host}")),
            None if reach.may_be_remote => {}
            None => return Err(remote("every interface")),
        }
    }
    if !has("--port") {
        more.push("--port=0".into());
    }
    if !has("--dashboard") && !has("--no-dashboard") {
        more.push("--no-dashboard".into());
    }
    options.append(&mut more);
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_options_and_nothing_else_does() {
        let given = serde_json::json!({"host": "10.0.0.1; rm -rf /", "port": 8786, "dashboard": false, "idle_timeout": null});
        let everywhere = Reach { host: None, may_be_remote: true };
        let made = options(given.as_object().unwrap(), &everywhere).unwrap();
        assert_eq!(made, ["--no-dashboard", "--host=10.0.0.1; rm -rf /", "--port=8786"]);
        for bad in [serde_json::json!({"preload": "evil.py"}), serde_json::json!({"port": [1]})] {
            assert!(options(bad.as_object().unwrap(), &everywhere).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_machines_reach_it_only_with_leave() {
        let here = Reach { host: Some("127.0.0.1".into()), may_be_remote: false };
        assert_eq!(options(&Map::new(), &here).unwrap(), ["--host=127.0.0.1", "--port=0", "--no-dashboard"]);
        for bad in
            [serde_json::json!({"host": "0.0.0.0"}), serde_json::json!({"interface": "eth0"}), serde_json::json!({"ip": ""})]
        {
            assert!(options(bad.as_object().unwrap(), &here).unwrap_err().contains("--allow-plaintext"), "{bad}");
        }
        assert!(options(&Map::new(), &Reach { host: None, may_be_remote: false }).is_err(), "encrypted, and Dask is not");
        assert!(options(&Map::new(), &Reach { host: None, may_be_remote: true }).is_ok());
    }
}
