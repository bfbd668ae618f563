//! What clients and engines ask on the query socket. Everything that is asked gets an answer, unless it can not be trusted: then it is
//! counted and left without one, as an answer would only help whoever forged it.

use std::borrow::Cow;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answers::{Asked, Asker, Failure};
use super::engines::EngineNumber;
use super::machine::{Action, DaskOrder, DbCall, Hub, Now, Reason};
use crate::Envelope;
use crate::db::{Keys, Query};
use crate::wire::{self, Header};

/// What this program's own tools ask, beyond the protocol: passed on to the rest of the controller as it is.
const ERRAND_REQUEST: &str = "pointsman_request";

/// Ids of requests in flight at an engine.
#[derive(Default)]
struct AtEngine<'a> {
    direct: Vec<&'a str>,
    tasks: Vec<&'a str>,
}

/// One or many of the things by which engines are named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
enum Targets {
    #[default]
    All,
    Number(EngineNumber),
    Name(String),
    Many(Vec<Value>),
    Other(Value),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content<'a> {
    #[serde(borrow)]
    uuid: Option<Cow<'a, str>>,
    id: Option<Value>,
    targets: Option<Targets>,
    verbose: Option<Value>,
    msg_ids: Option<Value>,
    engine_ids: Option<Value>,
    status_only: Option<Value>,
    query: Option<Map<String, Value>>,
    keys: Option<Vec<String>>,
    scheduler_args: Option<Map<String, Value>>,
}

fn truth(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)) && *value != 0)
}

/// A list of strings, or one string. A missing list is empty.
fn strings(value: Option<&Value>, what: &str) -> Result<Vec<String>, Failure> {
    let wrong = || Failure::hub("TypeError", format!("{what} must be a list of strings"));
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>()
        }
        Some(_) => Err(wrong()),
    }
}

impl Hub {
    pub(super) fn query(&mut self, now: Now, envelope: &Envelope) {
        if let Err(refused) = self.session.admit(envelope) {
            return self.reject(Reason::Refused(refused));
        }
        let envelope = match self.session.packer().message_as_json(envelope) {
            Ok(envelope) => envelope,
            Err(part) => return self.reject(Reason::Json(part)),
        };
        let Ok(header) = Header::parse(envelope.header()) else { return self.reject(Reason::Json("header")) };
        let asker = Asker { to: envelope.identity(0).to_vec(), parent: envelope.part_bytes(0) };
        if header.msg_type == ERRAND_REQUEST {
            return self.run_errand(now, &envelope, &asker);
        }
        let outcome = match wire::object::<Content<'_>>(envelope.content()) {
            Ok(content) => self.dispatch(now, &header.msg_type, content, &asker),
            Err(error) => Err(Failure::hub("TypeError", format!("content of {}: {error}", header.msg_type))),
        };
        if let Err(failure) = outcome {
            let reply_type = header.msg_type.strip_suffix("_request").map(|stem| format!("{stem}_reply"));
            self.reply_failure(now, &asker, reply_type.as_deref().unwrap_or("hub_error"), failure);
        }
    }

    fn run_errand(&mut self, now: Now, envelope: &Envelope, asker: &Asker) {
        match wire::object::<Value>(envelope.content()) {
            Ok(content) => self.order_errand(content, Asked::Errand(asker.clone())),
            Err(error) => {
                let failure = Failure::own("TypeError", format!("content of {ERRAND_REQUEST}: {error}"));
                self.reply_failure(now, asker, "pointsman_reply", failure);
            }
        }
    }

    fn dispatch(&mut self, now: Now, msg_type: &str, content: Content<'_>, asker: &Asker) -> Result<(), Failure> {
        match msg_type {
            "connection_request" => {
                let engines: Map<String, Value> =
                    self.engines.live.iter().map(|(number, live)| (number.to_string(), json!(live.uuid))).collect();
                self.reply(now, asker, "connection_reply", &json!({"status": "ok", "engines": engines}));
                Ok(())
            }
            "registration_request" => self.register(now, &content, asker),
            "unregistration_request" => {
                self.unregistration(now, content.id.as_ref());
                Ok(())
            }
            "queue_request" => self.queue_status(now, &content, asker),
            "load_request" => {
                let loads = self.resolve(content.targets.as_ref())?.into_iter().map(|number| {
                    let load = self.engines.live.get(&number).map_or(0, |live| live.queue + live.tasks);
                    (number.to_string(), json!(load))
                });
                let mut reply: Map<String, Value> = loads.collect();
                reply.insert("status".into(), json!("ok"));
                self.reply(now, asker, "load_reply", &Value::Object(reply));
                Ok(())
            }
            "result_request" => self.results(now, &content, asker),
            "history_request" => {
                self.call_db(DbCall::History, Asked::History(asker.clone()));
                Ok(())
            }
            "db_request" => {
                let query =
                    Query::parse(&content.query.unwrap_or_default()).map_err(|e| Failure::own(e.ename(), e.to_string()))?;
                let keys = Keys::parse(&content.keys.unwrap_or_default()).map_err(|e| Failure::own(e.ename(), e.to_string()))?;
                self.call_db(DbCall::Show(query, keys), Asked::Find(asker.clone()));
                Ok(())
            }
            "purge_request" => self.purge(&content, asker),
            "resubmit_request" => {
                let ids = strings(content.msg_ids.as_ref(), "msg_ids")?;
                self.call_db(DbCall::Get(ids.clone()), Asked::Resubmit(asker.clone(), ids));
                Ok(())
            }
            "shutdown_request" => {
                self.reply(now, asker, "shutdown_reply", &json!({"status": "ok"}));
                self.notify(now, "shutdown_notification", &asker.parent.clone(), &json!({"status": "ok"}));
                self.actions.push_back(Action::Stop);
                Ok(())
            }
            "become_dask_request" | "stop_distributed_request" if !self.config.allows_dask => {
                let how = "this controller may not start a Dask scheduler: start it with --allow-dask, or set `allow = true` under [dask] in pointsman.toml";
                Err(Failure::hub("PermissionError", how))
            }
            "become_dask_request" => {
                let arguments = content.scheduler_args.unwrap_or_default();
                self.order_dask(DaskOrder::Start(arguments), Asked::BecomeDask(asker.clone()));
                Ok(())
            }
            "stop_distributed_request" => {
                self.order_dask(DaskOrder::Stop, Asked::StopDask(asker.clone()));
                Ok(())
            }
            unknown => {
                self.reject(Reason::UnknownType(unknown.chars().take(60).collect()));
                Err(Failure::hub("KeyError", format!("no such request: '{unknown}'")))
            }
        }
    }

    fn register(&mut self, now: Now, content: &Content<'_>, asker: &Asker) -> Result<(), Failure> {
        let uuid = content.uuid.as_deref().filter(|uuid| !uuid.is_empty() && uuid.len() <= 255);
        let Some(uuid) = uuid else { return Err(Failure::own("KeyError", "registration needs the engine's uuid")) };
        if self.engines.numbers.contains_key(uuid) {
            return Err(Failure::own("KeyError", format!("uuid '{uuid}' in use")));
        }
        let wanted = content.id.as_ref().and_then(Value::as_u64);
        // The same engine may ask again before it has answered a ping: it keeps its number and is watched afresh.
        let number = match self.engines.cancel(uuid) {
            Some(number) => self.engines.reserve(uuid, Some(number), now.mono + self.config.registration_timeout),
            None => self.engines.reserve(uuid, wanted, now.mono + self.config.registration_timeout),
        };
        self.hearts.watch(uuid);
        self.probe(now.mono);
        let reply = json!({
            "id": number,
            "status": "ok",
            "hb_period": u64::try_from(self.config.heartbeat.as_millis()).unwrap_or(u64::MAX),
            "connection_info": self.config.connection_info,
        });
        // Registration replies have no parent, and engines expect none.
        self.actions.push_back(Action::EnginesChanged);
        let unparented = Asker { parent: bytes::Bytes::from_static(b"{}"), ..asker.clone() };
        self.reply(now, &unparented, "registration_reply", &reply);
        Ok(())
    }

    fn unregistration(&mut self, now: Now, id: Option<&Value>) {
        let Some(number) = id.and_then(Value::as_u64) else { return self.reject(Reason::UnknownEngine) };
        let pending = self.engines.pending.iter().find(|(_, pending)| pending.number == number).map(|(uuid, _)| uuid.clone());
        match pending {
            Some(uuid) => {
                self.engines.cancel(&uuid);
                self.hearts.forget(&uuid);
            }
            // An engine's nanny says goodbye as well as the engine: the second time there is nobody.
            None => self.unregister(now, number),
        }
    }

    /// The engines that a request names. Numbers as numbers or text, uuids, or all.
    fn resolve(&self, targets: Option<&Targets>) -> Result<Vec<EngineNumber>, Failure> {
        let one = |value: &Value| {
            let number = match value {
                Value::String(name) => self.engines.numbers.get(name.as_str()).copied().or_else(|| name.parse().ok()),
                other => other.as_u64(),
            };
            number.filter(|number| self.engines.live.contains_key(number)).ok_or_else(|| value.clone())
        };
        let list = match targets {
            None | Some(Targets::All) => return Ok(self.engines.live.keys().copied().collect()),
            Some(Targets::Number(number)) => vec![json!(number)],
            Some(Targets::Name(name)) if name == "all" => return Ok(self.engines.live.keys().copied().collect()),
            Some(Targets::Name(name)) => vec![json!(name)],
            Some(Targets::Many(list)) => list.clone(),
            Some(Targets::Other(other)) => vec![other.clone()],
        };
        if list.is_empty() {
            return Err(Failure::hub("IndexError", "No Engines Registered"));
        }
        let found: Vec<Result<EngineNumber, Value>> = list.iter().map(one).collect();
        let bad: Vec<&Value> = found.iter().filter_map(|result| result.as_ref().err()).collect();
        if bad.is_empty() {
            Ok(found.into_iter().flatten().collect())
        } else {
            Err(Failure::hub("IndexError", format!("No Such Engine: {}", json!(bad))))
        }
    }

    fn queue_status(&mut self, now: Now, content: &Content<'_>, asker: &Asker) -> Result<(), Failure> {
        let numbers = self.resolve(content.targets.as_ref())?;
        let verbose = truth(content.verbose.as_ref());
        let mut reply = Map::new();
        let in_flight = if verbose { self.in_flight_by_engine() } else { HashMap::default() };
        for &number in &numbers {
            let Some(live) = self.engines.live.get(&number) else { continue };
            let entry = if verbose {
                let there = in_flight.get(&*live.uuid);
                json!({"queue": there.map_or(&[][..], |there| &there.direct), "completed": [], "tasks": there.map_or(&[][..], |there| &there.tasks)})
            } else {
                json!({"queue": live.queue, "completed": live.completed, "tasks": live.tasks})
            };
            reply.insert(number.to_string(), entry);
        }
        let unassigned =
            if verbose { json!(in_flight.get("").map_or(&[][..], |waiting| &waiting.tasks)) } else { json!(self.unassigned) };
        drop(in_flight);
        reply.insert("unassigned".into(), unassigned);
        reply.insert("status".into(), json!("ok"));
        if verbose && self.config.keeps_records {
            // Which requests an engine has completed is in the records only: the hub counts them.
            let uuids = numbers.iter().filter_map(|number| Some((self.engines.live.get(number)?.uuid.clone(), *number)));
            let asked = Asked::Queue(asker.clone(), reply, uuids.collect());
            let keys = Keys { keys: vec![crate::db::Key::EngineUuid], ..Keys::default() };
            let query = match &asked {
                Asked::Queue(_, _, uuids) if uuids.len() == 1 => Query::completed_by(&uuids[0].0),
                _ => Query::completed(),
            };
            self.call_db(DbCall::Find(query, keys), asked);
        } else {
            self.reply(now, asker, "queue_reply", &Value::Object(reply));
        }
        Ok(())
    }

    /// Ids of requests in flight by their engine's uuid, tasks without one under nothing. O(requests in flight).
    fn in_flight_by_engine(&self) -> HashMap<&str, AtEngine<'_>, FixedState> {
        let mut all: HashMap<&str, AtEngine<'_>, FixedState> = HashMap::default();
        for (id, request) in &self.in_flight {
            let there = all.entry(request.engine.as_deref().unwrap_or_default()).or_default();
            if request.is_task { &mut there.tasks } else { &mut there.direct }.push(id);
        }
        all
    }

    fn results(&mut self, now: Now, content: &Content<'_>, asker: &Asker) -> Result<(), Failure> {
        let mut ids = strings(content.msg_ids.as_ref(), "msg_ids")?;
        ids.sort();
        ids.dedup();
        let (pending, ended): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| self.in_flight.contains_key(id.as_str()));
        let status_only = truth(content.status_only.as_ref());
        if ended.is_empty() || status_only && ended.iter().all(|id| self.completed.get(id) != 0) {
            self.reply(now, asker, "result_reply", &json!({"status": "ok", "pending": pending, "completed": ended}));
            return Ok(());
        }
        self.call_db(DbCall::Get(ended.clone()), Asked::Results { asker: asker.clone(), pending, ended, status_only });
        Ok(())
    }

    fn purge(&mut self, content: &Content<'_>, asker: &Asker) -> Result<(), Failure> {
        let (mut ids, mut queries) = (Vec::new(), Vec::new());
        if content.msg_ids == Some(json!("all")) {
            queries.push(Query::completed());
        } else {
            ids = strings(content.msg_ids.as_ref(), "msg_ids")?;
        }
        if let Some(id) = ids.iter().find(|id| self.in_flight.contains_key(id.as_str())) {
            return Err(Failure::own("IndexError", format!("msg pending: '{id}'")));
        }
        let engines = match &content.engine_ids {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list.clone(),
            Some(one) => vec![one.clone()],
        };
        for engine in engines {
            match engine.as_u64().and_then(|number| self.engines.live.get(&number)) {
                Some(live) => queries.push(Query::completed_by(&live.uuid)),
                None => return Err(Failure::own("IndexError", format!("No such engine: {engine}"))),
            }
        }
        for id in &ids {
            self.completed.set(id, 0);
        }
        self.call_db(DbCall::Remove(ids, queries), Asked::Purge(asker.clone()));
        Ok(())
    }
}
