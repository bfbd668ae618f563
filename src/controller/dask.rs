//! A Dask scheduler beside the controller, for `Client.become_dask`: a process of its own, started when a client asks and ended with the
//! controller. What a client may say about it becomes options of that program one by one; nothing reaches a shell.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pointsman_core::hub::driver::HubInput;
use pointsman_core::hub::{DaskAddress, DaskOrder};
use pointsman_core::net::{Clock, Mailbox, Outbox};
use serde_json::{Map, Value};

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
    /// Where it listens unless a client says otherwise; nothing for everywhere.
    host: Option<String>,
    running: Option<(Child, DaskAddress)>,
    hub: Outbox<HubInput>,
}

/// How often a starting scheduler is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl DaskKeeper {
    pub(super) fn new(config: Dask, host: Option<String>, hub: Outbox<HubInput>) -> Self {
        DaskKeeper { config, host, running: None, hub }
    }

    /// Does as it is told until told to stop.
    pub(super) fn serve(&mut self, inputs: &Mailbox<DaskInput>) {
        let mut taken = Vec::new();
        loop {
            let _ = zmq::poll(&mut [zmq::PollItem::from_fd(inputs.fd(), zmq::POLLIN)], -1);
            inputs.take(1, &mut taken);
            match taken.pop() {
                None => {}
                Some(DaskInput::Stop) => return self.end(),
                Some(DaskInput::Order(number, DaskOrder::Stop)) => {
                    self.end();
                    self.hub.send_always(HubInput::Dask(number, Ok(None)));
                }
                Some(DaskInput::Order(number, DaskOrder::Start(arguments))) => {
                    let outcome = self.start(&arguments).map(Some);
                    self.hub.send_always(HubInput::Dask(number, outcome));
                }
            }
        }
    }

    fn end(&mut self) {
        if let Some((mut child, address)) = self.running.take() {
            tracing::info!("ending the Dask scheduler at {}", address.address);
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn start(&mut self, arguments: &Map<String, Value>) -> Result<DaskAddress, String> {
        if let Some((child, address)) = &mut self.running {
            if matches!(child.try_wait(), Ok(None)) {
                return Ok(address.clone());
            }
            self.running = None; // it ended by itself
        }
        let options = options(arguments, self.host.as_deref())?;
        let Some((program, first)) = self.config.command.split_first() else { return Err("dask.command is empty".into()) };
        let folder = tempfile::Builder::new().prefix("pointsman-dask-").tempdir().map_err(|error| error.to_string())?;
        let file = folder.path().join("scheduler.json");
        let mut child = Command::new(program)
            .args(first)
            .args(options)
            .arg(format!("--scheduler-file={}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("'{program}' can not be started: {error}; install distributed, or set dask.command"))?;
        let clock = Clock::default();
        let timeout = Duration::from_millis(self.config.timeout_ms);
        let address = loop {
            if let Some(address) = read_address(&file) {
                break address;
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!(
                    "'{}' ended at once ({status}); its reason is in the controller's log",
                    self.config.command.join(" ")
                ));
            }
            if clock.now() > timeout {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the Dask scheduler did not listen within {timeout:?}"));
            }
            std::thread::sleep(LOOK_EVERY);
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

/// The address in a scheduler file, once it is there and whole.
fn read_address(file: &std::path::Path) -> Option<DaskAddress> {
    let whole: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let address = whole["address"].as_str()?;
    let (ip, port) = address.rsplit_once("://")?.1.rsplit_once(':')?;
    Some(DaskAddress { ip: ip.to_owned(), address: address.to_owned(), port: port.parse().ok()? })
}

/// A scheduler's arguments, as `distributed.Scheduler` takes them, to options of its command.
fn options(arguments: &Map<String, Value>, host: Option<&str>) -> Result<Vec<String>, String> {
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
            Value::String(text) => options.push(format!("--{option}={text}")),
            Value::Number(number) => options.push(format!("--{option}={number}")),
            _ => return Err(format!("scheduler_args: {name} must be text or a number")),
        }
    }
    let has = |option: &str| options.iter().any(|given| given.starts_with(option));
    let mut more = Vec::new();
    if let Some(host) = host.filter(|_| !has("--host") && !has("--interface")) {
        more.push(format!("--host={host}"));
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
        let made = options(given.as_object().unwrap(), Some("127.0.0.1")).unwrap();
        assert_eq!(made, ["--no-dashboard", "--host=10.0.0.1; rm -rf /", "--port=8786"]);
        assert_eq!(options(&Map::new(), Some("127.0.0.1")).unwrap(), ["--host=127.0.0.1", "--port=0", "--no-dashboard"]);
        for bad in [serde_json::json!({"preload": "evil.py"}), serde_json::json!({"port": [1]})] {
            assert!(options(bad.as_object().unwrap(), None).is_err(), "{bad}");
        }
    }
}
