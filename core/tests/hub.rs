//! The hub as a machine: engines' lives, queries, records, and the reference hub's defects, each with a test named after it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::date::Date;
use pointsman_core::db::{DbError, Key, MemoryDb, Patch, TaskDb};
use pointsman_core::hub::{
    Action, Copied, DaskAddress, DaskOrder, EnginesState, Event, Hub, HubConfig, Now, Reason, TaskNews, Topic,
};
use pointsman_core::wire::Status;
use pointsman_core::{Envelope, Multipart, Session, Signer};
use serde_json::{Value, json};

/// A hub with a store that answers at once, and peers that sign as they should.
struct World {
    hub: Hub,
    db: MemoryDb,
    client: Session,
    mono: Duration,
    said: Vec<(String, Value)>,
    to_schedulers: Vec<String>,
    resubmitted: Vec<Arc<Multipart>>,
    rejected: Vec<Reason>,
    ping: String,
    stopped: bool,
    buffers: usize,
    /// So many questions the store does not answer but with that it can not be had.
    busy: usize,
    state: EnginesState,
    dask: Vec<(u64, DaskOrder)>,
    errands: Vec<(u64, Value)>,
}

fn id_of(header: &Value) -> &str {
    header["msg_id"].as_str().unwrap()
}

fn session(id: &str) -> Session {
    Session::new(Signer::new(b"key"), id, "u", 1)
}

impl World {
    fn new() -> World {
        let config = HubConfig { heartbeat: Duration::from_secs(1), max_misses: 2, ..HubConfig::default() };
        let mut world = World {
            hub: Hub::new(config, session("hub")),
            db: MemoryDb::default(),
            client: session("client"),
            mono: Duration::ZERO,
            said: vec![],
            to_schedulers: vec![],
            resubmitted: vec![],
            rejected: vec![],
            ping: String::new(),
            stopped: false,
            buffers: 0,
            busy: 0,
            state: EnginesState::default(),
            dask: vec![],
            errands: vec![],
        };
        world.pass(Duration::ZERO);
        world
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, date: Date::from_unix_us(1_790_000_000_000_000 + self.mono.as_micros() as i64) }
    }

    fn event(&mut self, event: Event) {
        self.hub.handle(self.now(), event);
        self.act();
    }

    fn pass(&mut self, by: Duration) {
        self.mono += by;
        self.hub.handle_timeout(self.now());
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::Reply { parts, buffers, .. } => {
                    self.buffers = buffers.len();
                    self.say(&parts[2], &parts[5]);
                }
                Action::Notify(parts) => self.say(&parts[2], &parts[5]),
                Action::Ping(text) => self.ping = text,
                Action::EngineUp { uuid, number } => self.to_schedulers.push(format!("up {uuid} {number}")),
                Action::EngineDown { uuid, number } => self.to_schedulers.push(format!("down {uuid} {number}")),
                Action::Resubmit(message) => self.resubmitted.push(message),
                Action::Record { id, patch, create } => self.db.merge(&id, &patch, create).unwrap(),
                Action::Db(number, call) => {
                    let reply = if self.busy > 0 {
                        self.busy -= 1;
                        Err(DbError::Busy("locked".into()))
                    } else {
                        call.perform(&mut self.db)
                    };
                    self.hub.handle(self.now(), Event::Db(number, reply));
                }
                Action::EnginesChanged => self.state = self.hub.engines_state(),
                Action::Dask(number, order) => self.dask.push((number, order)),
                Action::Errand(number, content) => self.errands.push((number, content)),
                Action::Reject(reason) => self.rejected.push(reason),
                Action::Stop => self.stopped = true,
            }
        }
    }

    fn say(&mut self, header: &[u8], content: &[u8]) {
        let header: Value = serde_json::from_slice(header).unwrap();
        self.said.push((header["msg_type"].as_str().unwrap().to_owned(), serde_json::from_slice(content).unwrap()));
    }

    /// Asks and returns the type and content of the answer.
    fn ask(&mut self, msg_type: &str, content: Value) -> (String, Value) {
        self.said.clear();
        let parts = self.client.compose(msg_type, Date::from_unix_us(0), b"{}", b"{}", content.to_string().into_bytes());
        let message = Multipart::pack(std::iter::once(&b"cid"[..]).chain(parts.iter().map(Vec::as_slice)));
        self.event(Event::Query(Arc::new(message)));
        self.said.first().cloned().unwrap_or_default()
    }

    fn engine(&mut self, uuid: &str) -> u64 {
        let (_, reply) = self.ask("registration_request", json!({"uuid": uuid}));
        self.pong(uuid);
        self.welcome(uuid);
        reply["id"].as_u64().unwrap()
    }

    fn pong(&mut self, uuid: &str) {
        self.event(Event::Pong { uuid: uuid.into(), text: self.ping.clone().into_bytes() });
    }

    /// What an engine publishes when somebody listens to its output.
    fn welcome(&mut self, uuid: &str) {
        let date = Date::from_unix_us(1_000_000);
        let parts = session(uuid).compose("iopub_welcome", date, b"{}", b"{}", b"{\"subscription\":\"\"}".to_vec());
        let message = Arc::new(Multipart::pack(parts.iter().map(Vec::as_slice)));
        self.event(Event::Copied(Copied { topic: Topic::Iopub, message }));
    }

    /// A message of the client's, and its header.
    fn message(
        &mut self,
        identities: &[&str],
        msg_type: &str,
        parent: &Value,
        metadata: &Value,
        content: &Value,
    ) -> (Value, Arc<Multipart>) {
        let parts = self.client.compose(
            msg_type,
            self.now().date,
            parent.to_string().as_bytes(),
            metadata.to_string().as_bytes(),
            content.to_string().into_bytes(),
        );
        let frames = identities.iter().map(|id| id.as_bytes()).chain(parts.iter().map(Vec::as_slice)).chain([&b"buffer"[..]]);
        (serde_json::from_slice(&parts[2]).unwrap(), Arc::new(Multipart::pack(frames)))
    }

    fn copy(
        &mut self,
        topic: Topic,
        identities: &[&str],
        msg_type: &str,
        parent: &Value,
        metadata: &Value,
        content: &Value,
    ) -> Value {
        let (header, message) = self.message(identities, msg_type, parent, metadata, content);
        self.event(Event::Copied(Copied { topic, message }));
        header
    }

    fn direct(&mut self, uuid: &str) -> Value {
        self.copy(Topic::In, &[uuid, "cid"], "apply_request", &json!({}), &json!({"label": "l"}), &json!({}))
    }

    fn task(&mut self) -> Value {
        let metadata = json!({"retries": 2, "targets": ["a"]});
        let (header, request) = self.message(&["cid"], "apply_request", &json!({}), &metadata, &json!({}));
        let request = Some(Envelope::open(request).unwrap());
        self.event(Event::Task(TaskNews::Submitted { id: id_of(&header).into(), request }));
        header
    }

    fn track(&mut self, request: &Value, uuid: &str) {
        self.event(Event::Task(TaskNews::Sent { id: id_of(request).into(), engine: uuid.into() }));
    }

    /// A direct request has been answered.
    fn done(&mut self, request: &Value, uuid: &str, status: &str) {
        let metadata = json!({"status": status, "engine": uuid, "started": "2026-11-21T03:00:00Z"});
        self.copy(Topic::Out, &["cid", uuid], "apply_reply", request, &metadata, &json!({"status": status}));
    }

    /// A task has been answered.
    fn ended(&mut self, request: &Value, uuid: &str, status: Status) {
        let word = if status == Status::Ok { "ok" } else { "error" };
        let metadata = json!({"status": word, "engine": uuid, "started": "2026-11-21T03:00:00Z"});
        let (_, reply) = self.message(&[uuid, "cid"], "apply_reply", request, &metadata, &json!({"status": word}));
        let reply = Some(Envelope::open(reply).unwrap());
        self.event(Event::Task(TaskNews::Ended { id: id_of(request).into(), status, reply }));
    }

    /// A task that has run on an engine and ended well.
    fn done_task(&mut self, uuid: &str) -> Value {
        let task = self.task();
        self.track(&task, uuid);
        self.ended(&task, uuid, Status::Ok);
        task
    }

    /// The ids of what the schedulers were given since, clients' requests and the hub's own. All are signed.
    fn sent_again(&mut self) -> (Vec<String>, Vec<Value>) {
        let (mut ours, mut own) = (vec![], vec![]);
        for message in self.resubmitted.drain(..) {
            let envelope = Envelope::open(message).unwrap();
            assert!(Signer::new(b"key").verify(envelope.signature(), envelope.parts()).is_ok());
            let header: Value = serde_json::from_slice(envelope.header()).unwrap();
            let is_own = header["msg_type"] == "execute_request";
            if is_own { own.push(header) } else { ours.push(id_of(&header).to_owned()) }
        }
        (ours, own)
    }

    /// A controller that takes over from this one, with the same records.
    fn successor(&mut self) -> World {
        let mut next = World::new();
        next.db = std::mem::take(&mut self.db);
        next.mono = self.mono + Duration::from_secs(60);
        next.hub.restore(&self.state);
        next.act();
        next
    }

    /// What a client that asks for the result of a request is told.
    fn result(&mut self, request: &Value) -> Value {
        let (_, reply) = self.ask("result_request", json!({"msg_ids": [request["msg_id"]]}));
        reply[request["msg_id"].as_str().unwrap()].clone()
    }

    fn queue(&mut self) -> Value {
        self.ask("queue_request", json!({"targets": null})).1
    }
}

#[test]
fn an_engine_is_registered_at_its_first_pong() {
    let mut world = World::new();
    let (kind, reply) = world.ask("registration_request", json!({"uuid": "a", "id": 7}));
    assert_eq!((kind.as_str(), &reply["id"], &reply["hb_period"]), ("registration_reply", &json!(7), &json!(1000)));
    assert_eq!(world.queue(), json!({"status": "ok", "unassigned": 0}));
    world.pong("a");
    world.welcome("a");
    assert_eq!(world.to_schedulers, ["up a 7"]);
    assert_eq!(world.said.last().unwrap(), &("registration_notification".into(), json!({"id": 7, "uuid": "a"})));
    assert_eq!(world.engine("b"), 8, "numbers are never used twice and jump past those asked for");
    assert_eq!(world.ask("connection_request", json!({})).1["engines"], json!({"7": "a", "8": "b"}));
    let (_, refused) = world.ask("registration_request", json!({"uuid": "a"}));
    assert_eq!(refused["ename"], "KeyError");
}

#[test]
fn an_engine_is_there_when_its_output_arrives_too_or_when_it_may_never_say_so() {
    let mut world = World::new();
    world.ask("registration_request", json!({"uuid": "new"}));
    world.pong("new");
    assert!(world.to_schedulers.is_empty(), "what it prints now could get lost");
    world.welcome("new");
    assert_eq!(world.to_schedulers, ["up new 0"]);
    world.ask("registration_request", json!({"uuid": "old"}));
    world.pong("old");
    world.pass(Duration::from_millis(250));
    assert_eq!(world.to_schedulers, ["up new 0", "up old 1"]);
}

#[test]
fn d35_a_restored_engine_is_there_at_once_and_lost_if_it_does_not_answer() {
    let mut first = World::new();
    first.engine("a");
    first.engine("b");
    let (running, direct) = (first.task(), first.direct("a"));
    first.track(&running, "b");
    let waiting = first.task();
    let mut world = World::new();
    world.db = std::mem::take(&mut first.db);
    let state = EnginesState { next_id: 9, ..first.state };
    world.hub.restore(&state);
    world.act();
    assert_eq!(world.to_schedulers, ["up a 0", "up b 1"]);
    let entry = |queue, tasks| json!({"queue": queue, "completed": 0, "tasks": tasks});
    assert_eq!(world.queue(), json!({"status": "ok", "unassigned": 1, "0": entry(1, 0), "1": entry(0, 1)}));
    let (ours, asked) = world.sent_again();
    assert_eq!(ours, [id_of(&waiting)], "what was sent nowhere is sent now");
    assert_eq!(asked.len(), 2, "and who may have something is asked for the last of it");
    assert_eq!(world.engine("c"), 9, "numbers go on");
    // The former controller's task ends on an engine that has stayed.
    world.ended(&running, "b", Status::Ok);
    world.ended(&waiting, "b", Status::Ok);
    for _ in 0..5 {
        world.pong("b");
        world.pong("c");
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.to_schedulers, ["up a 0", "up b 1", "up c 9", "down a 0"]);
    let ids = [&running, &waiting, &direct].map(|request| request["msg_id"].clone());
    let (_, reply) = world.ask("result_request", json!({"msg_ids": ids}));
    assert_eq!(reply["completed"].as_array().unwrap().len(), 3, "{reply}");
    assert_eq!(reply[direct["msg_id"].as_str().unwrap()]["result_content"]["ename"], "EngineError");
}

#[test]
fn what_is_not_of_the_former_controller_is_left_alone() {
    let mut first = World::new();
    first.engine("a");
    let old = first.task();
    let mut other = World::new();
    other.db = std::mem::take(&mut first.db);
    other.mono = Duration::from_secs(3600);
    other.hub = Hub::new(HubConfig::default(), session("other"));
    other.pass(Duration::ZERO);
    other.engine("b");
    let theirs = other.task();
    other.track(&theirs, "elsewhere");
    let waiting = other.task();
    let too_large = other.task();
    let mut patch = Patch::default();
    patch.buffers = Some(Vec::new());
    other.db.merge(too_large["msg_id"].as_str().unwrap(), &patch, false).unwrap();

    let mut world = World::new();
    world.db = std::mem::take(&mut other.db);
    world.mono = Duration::from_secs(7200);
    world.hub.restore(&other.state);
    world.act();
    assert_eq!(world.sent_again(), (vec![id_of(&waiting).to_owned()], vec![]));
    for (request, is_pending) in [(&old, true), (&theirs, true), (&too_large, false)] {
        let record = world.db.get(request["msg_id"].as_str().unwrap()).unwrap().unwrap();
        assert_eq!(record.json(Key::Completed).is_none(), is_pending, "{request}");
    }
    assert_eq!(world.result(&too_large)["result_content"]["ename"], "OSError");
}

#[test]
fn what_is_sent_again_after_a_restart_is_signed_anew_and_all_but_its_date_is_the_same() {
    let mut first = World::new();
    let metadata = json!({"retries": 1});
    let (header, request) = first.message(&["cid"], "apply_request", &json!({}), &metadata, &json!({"c": 1}));
    let before = Envelope::open(request).unwrap();
    first.event(Event::Task(TaskNews::Submitted { id: id_of(&header).into(), request: Some(before.clone()) }));
    let mut signatures = vec![before.signature().to_vec()];
    let mut world = first;
    for _ in 0..2 {
        world = world.successor();
        let again = Envelope::open(world.resubmitted.pop().unwrap()).unwrap();
        // The scheduler tells of it as of any other; the record keeps what the client has sent.
        world.event(Event::Task(TaskNews::Submitted { id: id_of(&header).into(), request: Some(again.clone()) }));
        let record = world.db.get(id_of(&header)).unwrap().unwrap();
        assert_eq!((record.value(Key::Header), record.value(Key::Submitted)), (header.clone(), header["date"].clone()));
        assert!(Signer::new(b"key").verify(again.signature(), again.parts()).is_ok());
        let mut now: Value = serde_json::from_slice(again.header()).unwrap();
        assert_eq!(Date::parse(now["date"].as_str().unwrap()), Some(world.now().date));
        now["date"] = header["date"].clone();
        assert_eq!((now, again.parts()[1..].to_vec()), (header.clone(), before.parts()[1..].to_vec()));
        assert_eq!(again.buffers().collect::<Vec<_>>(), before.buffers().collect::<Vec<_>>());
        signatures.push(again.signature().to_vec());
    }
    signatures.sort();
    signatures.dedup();
    assert_eq!(signatures.len(), 3, "an engine that has seen one of them takes the next for new");
}

#[test]
fn what_an_engine_had_and_has_done_without_an_answer_is_sent_again_or_ends() {
    let mut first = World::new();
    first.engine("a");
    let tasks = [first.task(), first.task(), first.task()];
    tasks.iter().for_each(|task| first.track(task, "a"));
    let direct = [first.direct("a"), first.direct("a")];
    let mut world = first.successor();
    let (ours, asked) = world.sent_again();
    assert_eq!((ours, asked.len()), (vec![], 1));
    assert_eq!(world.queue()["0"], json!({"queue": 2, "completed": 0, "tasks": 3}), "its own question is nobody's task");
    // The engine answers in order: what it had, then what it was asked last. One task's answer was lost with the former controller, one is dropped.
    world.event(Event::Task(TaskNews::Submitted { id: id_of(&asked[0]).into(), request: None }));
    world.track(&asked[0], "a");
    world.ended(&tasks[0], "a", Status::Ok);
    world.done(&direct[0], "a", "ok");
    world.ended(&asked[0], "a", Status::Ok);
    let (mut ours, _) = world.sent_again();
    ours.sort();
    let mut expected = [id_of(&tasks[1]).to_owned(), id_of(&tasks[2]).to_owned()];
    expected.sort();
    assert_eq!(ours, expected);
    assert_eq!(world.queue(), json!({"status": "ok", "unassigned": 2, "0": {"queue": 1, "completed": 2, "tasks": 0}}));
    world.track(&tasks[1], "a");
    world.ended(&tasks[1], "a", Status::Ok);
    world.ended(&tasks[2], "a", Status::Ok); // late, while it waits for an engine again
    assert_eq!(world.queue()["unassigned"], 0);
    for _ in 0..6 {
        world.pong("a");
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.queue()["0"]["queue"], 0);
    let record = world.result(&direct[1]);
    assert!(record["result_content"]["evalue"].as_str().unwrap().contains("was not recorded"), "{record}");
    let status = |world: &mut World, request: &Value| world.result(request)["result_content"]["status"].clone();
    assert!(tasks.iter().chain([&direct[0]]).all(|request| status(&mut world, request) == "ok"));
    assert_eq!(
        world.ask("history_request", json!({})).1["history"].as_array().unwrap().len(),
        5,
        "the question is not in the records"
    );
}

#[test]
fn an_engine_that_is_gone_before_its_last_word_takes_what_it_had_with_it() {
    let mut first = World::new();
    first.engine("a");
    let task = first.task();
    first.track(&task, "a");
    let mut world = first.successor();
    let (_, asked) = world.sent_again();
    // The scheduler's own error, which no engine sent.
    let (_, reply) = world.message(&[""], "apply_reply", &asked[0], &json!({}), &json!({"status": "error"}));
    let reply = Some(Envelope::open(reply).unwrap());
    world.event(Event::Task(TaskNews::Ended { id: id_of(&asked[0]).into(), status: Status::Error, reply }));
    assert_eq!(world.sent_again(), (vec![], vec![]));
    world.ask("unregistration_request", json!({"id": 0}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.result(&task)["result_content"]["ename"], "EngineError");
}

#[test]
fn the_queue_is_restored_from_the_records_without_a_list_of_engines() {
    let mut first = World::new();
    first.engine("a");
    let (waiting, running) = (first.task(), first.task());
    first.track(&running, "a");
    let mut world = World::new();
    world.db = std::mem::take(&mut first.db);
    world.hub.restore_without_engines(Some(world.now().date));
    world.act();
    assert_eq!(world.sent_again().0, [id_of(&waiting)]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.result(&running)["result_content"]["ename"], "EngineError", "it is not known where that engine is");

    // What was submitted long before that cluster began is another's.
    let mut long_ago = World::new();
    long_ago.task();
    let mut later = World::new();
    later.mono = Duration::from_secs(7200);
    later.db = std::mem::take(&mut long_ago.db);
    later.hub.restore_without_engines(Some(later.now().date));
    later.act();
    assert_eq!((later.sent_again(), &later.queue()["unassigned"]), ((vec![], vec![]), &json!(0)));
}

#[test]
fn a_store_that_can_not_be_had_at_first_is_asked_again_for_what_is_to_be_restored() {
    let mut first = World::new();
    let tasks: Vec<Value> = (0..200).map(|_| first.task()).collect();
    let mut world = World::new();
    world.db = std::mem::take(&mut first.db);
    world.busy = 3;
    world.hub.restore(&first.state);
    world.act();
    let ids: Vec<String> = tasks.iter().map(|task| id_of(task).to_owned()).collect();
    assert_eq!(world.sent_again().0, ids, "all, in the order in which they came");
    assert_eq!(world.busy, 0);
}

#[test]
fn what_can_not_be_sent_again_ends_with_the_reason() {
    let mut first = World::new();
    let (broken, whole) = (first.task(), first.task());
    first.db.merge(id_of(&broken), &Patch::default().json(Key::Header, b"[7]"[..].into()), false).unwrap();
    let mut world = first.successor();
    assert_eq!((world.sent_again().0, &world.queue()["unassigned"]), (vec![id_of(&whole).to_owned()], &json!(1)));
    let record = world.result(&broken);
    assert!(record["result_content"]["evalue"].as_str().unwrap().contains("not a JSON object"), "{record}");
    assert_eq!(world.ask("resubmit_request", json!({"msg_ids": [id_of(&broken)]})).1["ename"], "OSError");
}

#[test]
fn a_result_that_the_store_has_not_kept_is_an_error_and_its_task_is_not_sent_again_without_arguments() {
    let mut world = World::new();
    world.engine("a");
    let task = world.done_task("a");
    let id = task["msg_id"].as_str().unwrap();
    let mut patch = Patch::default();
    (patch.buffers, patch.result_buffers) = (Some(Vec::new()), Some(Vec::new()));
    world.db.merge(id, &patch, false).unwrap();
    assert_eq!(world.result(&task)["result_content"]["ename"], "OSError");
    assert_eq!(world.ask("resubmit_request", json!({"msg_ids": [id]})).1["ename"], "OSError");
    assert!(world.resubmitted.is_empty());
}

#[test]
fn a_dask_scheduler_is_started_only_where_that_is_allowed() {
    let mut world = World::new();
    assert_eq!(world.ask("become_dask_request", json!({"scheduler_args": {}})).1["ename"], "PermissionError");
    let config = HubConfig { allows_dask: true, ..HubConfig::default() };
    world.hub = Hub::new(config, session("hub"));
    world.said.clear();
    let parts = world.client.compose(
        "become_dask_request",
        Date::from_unix_us(0),
        b"{}",
        b"{}",
        json!({"scheduler_args": {"port": 1}}).to_string().into_bytes(),
    );
    let message = Multipart::pack(std::iter::once(&b"cid"[..]).chain(parts.iter().map(Vec::as_slice)));
    world.event(Event::Query(Arc::new(message)));
    let (number, order) = world.dask.pop().unwrap();
    assert_eq!(order, DaskOrder::Start(json!({"port": 1}).as_object().unwrap().clone()));
    let address = DaskAddress { ip: "127.0.0.1".into(), address: "tcp://127.0.0.1:1".into(), port: 1 };
    world.event(Event::Dask(number, Ok(Some(address))));
    let expected = json!({"status": "ok", "ip": "127.0.0.1", "address": "tcp://127.0.0.1:1", "port": 1});
    assert_eq!(world.said, [("become_dask_reply".to_owned(), expected)]);
}

#[test]
fn errands_are_passed_on_and_answered_and_records_say_under_which_policies() {
    let mut world = World::new();
    let (msg_type, answer) = world.ask("pointsman_request", json!([1]));
    assert_eq!((msg_type.as_str(), &answer["ename"]), ("pointsman_reply", &json!("TypeError")));
    world.ask("pointsman_request", json!({"action": "show", "anything": [1]}));
    let (number, content) = world.errands.pop().unwrap();
    assert_eq!(content, json!({"action": "show", "anything": [1]}));
    world.event(Event::Errand(number, Ok(json!({"a": 1}))));
    assert_eq!(world.said, [("pointsman_reply".to_owned(), json!({"status": "ok", "a": 1}))]);
    world.event(Event::Errand(number, Ok(json!({"a": 2})))); // nobody waits any more
    world.ask("pointsman_request", json!({}));
    let (number, _) = world.errands.pop().unwrap();
    world.event(Event::Errand(number, Err("no".into())));
    assert_eq!(world.said[0].1["evalue"], "no");

    world.engine("a");
    let before = world.done_task("a");
    world.event(Event::Policies("placement \"lru\"".into()));
    let after = world.done_task("a");
    assert_eq!(world.result(&before)["result_metadata"].get("policies"), None);
    assert_eq!(world.result(&after)["result_metadata"]["policies"], "placement \"lru\"");
    assert_eq!(world.result(&after)["result_metadata"]["status"], "ok");
}

#[test]
fn d34_a_uuid_that_asks_twice_before_its_first_pong_completes_under_one_number() {
    let mut world = World::new();
    world.ask("registration_request", json!({"uuid": "a"}));
    let (_, again) = world.ask("registration_request", json!({"uuid": "a"}));
    assert_eq!(again["id"], 0);
    world.pong("a");
    world.welcome("a");
    assert_eq!(world.to_schedulers, ["up a 0"]);
}

#[test]
fn an_engine_may_take_longer_to_start_than_a_live_one_may_be_silent() {
    let mut world = World::new();
    world.ask("registration_request", json!({"uuid": "slow"}));
    for _ in 0..20 {
        world.pass(Duration::from_secs(1)); // misses are counted from the first answer on
    }
    world.pong("slow");
    world.welcome("slow");
    assert_eq!(world.to_schedulers, ["up slow 0"]);
}

#[test]
fn engines_that_never_come_or_go_silent_are_forgotten() {
    let mut world = World::new();
    world.engine("a");
    world.ask("registration_request", json!({"uuid": "slow"}));
    for _ in 0..40 {
        world.event(Event::Pong { uuid: b"a".to_vec(), text: world.ping.clone().into_bytes() });
        world.pass(Duration::from_secs(1));
    }
    world.event(Event::Pong { uuid: b"slow".to_vec(), text: world.ping.clone().into_bytes() });
    assert_eq!(world.to_schedulers, ["up a 0"]);
    for _ in 0..4 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.to_schedulers, ["up a 0", "down a 0"]);
}

#[test]
fn d37_a_new_subscriber_hears_of_every_engine() {
    let mut world = World::new();
    world.engine("a");
    world.engine("b");
    world.said.clear();
    world.event(Event::Subscribed);
    world.event(Event::Subscribed);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.said.len(), 2, "once for all who subscribed at about the same time");
}

#[test]
fn d16_d17_queue_status_is_right_after_retries_and_deaths() {
    let mut world = World::new();
    let (a, b) = (world.engine("a"), world.engine("b"));
    let (task, direct, other) = (world.task(), world.direct("a"), world.direct("b"));
    assert_eq!(world.queue()["unassigned"], 1);
    world.track(&task, "a");
    assert_eq!(world.queue()[a.to_string()], json!({"queue": 1, "completed": 0, "tasks": 1}));
    world.track(&task, "b"); // a retry
    assert_eq!(world.queue()[a.to_string()], json!({"queue": 1, "completed": 0, "tasks": 0}));
    assert_eq!(world.queue()[b.to_string()], json!({"queue": 1, "completed": 0, "tasks": 1}));
    let verbose = world.ask("queue_request", json!({"targets": b, "verbose": true})).1;
    assert_eq!(verbose[b.to_string()], json!({"queue": [other["msg_id"]], "completed": [], "tasks": [task["msg_id"]]}));
    world.ask("unregistration_request", json!({"id": b}));
    let status = world.queue();
    assert!(status.get(b.to_string()).is_none(), "{status}");
    world.ended(&task, "b", Status::Ok);
    world.done(&direct, "a", "ok");
    assert_eq!(world.queue(), json!({"status": "ok", "unassigned": 0, a.to_string(): {"queue": 0, "completed": 1, "tasks": 0}}));
}

#[test]
fn d18_a_dead_engines_direct_requests_have_a_readable_result() {
    let mut world = World::new();
    let number = world.engine("a");
    let request = world.direct("a");
    world.ask("unregistration_request", json!({"id": number}));
    world.pass(Duration::from_secs(2));
    let record = world.result(&request);
    assert_eq!(record["result_metadata"], json!({"status": "error", "engine": "a"}));
    assert_eq!(record["result_header"]["msg_type"], "apply_reply");
    assert_eq!(record["result_content"]["ename"], "EngineError");
    // The real reply comes after all: nothing breaks, and the first answer stands.
    world.done(&request, "a", "ok");
    assert_eq!(world.rejected, []);
}

#[test]
fn a_direct_request_to_an_engine_that_is_gone_ends_too() {
    let mut world = World::new();
    let number = world.engine("a");
    world.ask("unregistration_request", json!({"id": number}));
    world.pass(Duration::from_secs(5));
    let requests = [world.direct("a"), world.direct("a")];
    world.pass(Duration::from_millis(900));
    let late = world.direct("a");
    world.pass(Duration::from_secs(2));
    for request in requests.iter().chain([&late]) {
        assert_eq!(world.result(request)["result_content"]["ename"], "EngineError");
    }
}

#[test]
fn d19_resubmit_keeps_targets_retries_and_label() {
    let mut world = World::new();
    world.engine("a");
    let task = world.done_task("a");
    let (_, reply) = world.ask("resubmit_request", json!({"msg_ids": [task["msg_id"]]}));
    let new_id = reply["resubmitted"][task["msg_id"].as_str().unwrap()].clone();
    let message = world.resubmitted.pop().unwrap();
    let header: Value = serde_json::from_slice(message.frame(3)).unwrap();
    assert_eq!((&header["msg_id"], &header["session"]), (&new_id, &task["session"]));
    assert_eq!(message.frame(4), b"{}");
    assert_eq!(serde_json::from_slice::<Value>(message.frame(5)).unwrap(), json!({"retries": 2, "targets": ["a"]}));
    assert_eq!(message.frame(7), b"buffer");
    // Asked about at once, it is pending, not unknown.
    let (_, reply) = world.ask("result_request", json!({"msg_ids": [new_id], "status_only": true}));
    assert_eq!(reply["pending"], json!([new_id]));
    let (_, missing) = world.ask("resubmit_request", json!({"msg_ids": ["nobody"]}));
    assert_eq!(missing["ename"], "KeyError");
}

#[test]
fn d20_load_is_by_engine_number() {
    let mut world = World::new();
    world.engine("a");
    world.direct("a");
    assert_eq!(world.ask("load_request", json!({})).1, json!({"status": "ok", "0": 1}));
}

#[test]
fn d21_d22_purged_results_are_unknown_and_purging_by_engine_works() {
    let mut world = World::new();
    world.engine("a");
    let (one, two, pending) = (world.direct("a"), world.direct("a"), world.direct("a"));
    world.done(&one, "a", "ok");
    world.done(&two, "a", "error");
    let (_, refused) = world.ask("purge_request", json!({"msg_ids": [pending["msg_id"]]}));
    assert_eq!(refused["ename"], "IndexError");
    assert_eq!(world.ask("purge_request", json!({"msg_ids": [one["msg_id"]]})).1, json!({"status": "ok"}));
    for status_only in [true, false] {
        let (_, gone) = world.ask("result_request", json!({"msg_ids": [one["msg_id"]], "status_only": status_only}));
        assert_eq!((&gone["ename"], gone["evalue"].as_str().unwrap().contains("No such message")), (&json!("KeyError"), true));
    }
    assert_eq!(world.ask("purge_request", json!({"msg_ids": [], "engine_ids": [0]})).1["status"], "ok");
    let (_, left) = world.ask("db_request", json!({"query": {}, "keys": ["queue"]}));
    assert_eq!(left["records"], json!([{"msg_id": pending["msg_id"], "queue": "mux"}]));
    assert_eq!(world.ask("purge_request", json!({"engine_ids": [9]})).1["ename"], "IndexError");
}

#[test]
fn results_and_buffers_come_in_sorted_order() {
    let mut world = World::new();
    world.engine("a");
    let requests = [world.direct("a"), world.direct("a")];
    for request in &requests {
        world.done(request, "a", "ok");
    }
    let ids: Vec<&Value> = requests.iter().rev().map(|request| &request["msg_id"]).collect();
    let (_, reply) = world.ask("result_request", json!({"msg_ids": ids}));
    assert_eq!((reply["completed"].as_array().unwrap().len(), world.buffers), (2, 2));
    let record = &reply[requests[0]["msg_id"].as_str().unwrap()];
    assert!(record["header"]["msg_id"] == requests[0]["msg_id"] && record["io"]["stdout"] == "", "{record}");
    let (_, history) = world.ask("history_request", json!({}));
    assert_eq!(history["history"].as_array().unwrap().len(), 2);
}

#[test]
fn a_verbose_queue_status_names_what_each_engine_has_and_has_done() {
    let mut world = World::new();
    let numbers: Vec<u64> = ["a", "b", "c"].map(|uuid| world.engine(uuid)).into();
    let mut expected = [(Vec::new(), Vec::new(), Vec::new()), Default::default(), Default::default()];
    for turn in 0..9 {
        let at = turn % 3;
        let uuid = ["a", "b", "c"][at];
        let (task, direct, done) = (world.task(), world.direct(uuid), world.direct(uuid));
        world.track(&task, uuid);
        world.done(&done, uuid, "ok");
        expected[at].0.push(id_of(&direct).to_owned());
        expected[at].1.push(id_of(&done).to_owned());
        expected[at].2.push(id_of(&task).to_owned());
    }
    let waiting = world.task();
    let sorted = |value: &Value| {
        let mut ids: Vec<String> = serde_json::from_value(value.clone()).unwrap();
        ids.sort();
        ids
    };
    for targets in [json!(null), json!(numbers[1]), json!([numbers[0], numbers[2]])] {
        let status = world.ask("queue_request", json!({"targets": targets, "verbose": true})).1;
        assert_eq!(status["unassigned"], json!([id_of(&waiting)]));
        let asked = numbers
            .iter()
            .filter(|n| targets.is_null() || targets == json!(n) || targets.as_array().is_some_and(|t| t.contains(&json!(n))));
        let mut count = 0;
        for number in asked {
            let at = numbers.iter().position(|n| n == number).unwrap();
            let entry = &status[number.to_string()];
            let (mut queue, mut completed, mut tasks) = expected[at].clone();
            for ids in [&mut queue, &mut completed, &mut tasks] {
                ids.sort();
            }
            assert_eq!(
                (sorted(&entry["queue"]), sorted(&entry["completed"]), sorted(&entry["tasks"])),
                (queue, completed, tasks)
            );
            count += 1;
        }
        assert_eq!(status.as_object().unwrap().len(), count + 2, "{targets}: engines, unassigned and status");
    }
}

#[test]
fn output_is_recorded_even_before_its_request() {
    let mut world = World::new();
    world.engine("a");
    let mut header = json!({"msg_id": "client_1_77"});
    for text in ["one ", "two"] {
        world.copy(Topic::Iopub, &["topic"], "stream", &header, &json!({}), &json!({"name": "stdout", "text": text}));
    }
    world.copy(Topic::Iopub, &["topic"], "execute_input", &header, &json!({}), &json!({"code": "print()"}));
    world.copy(Topic::Iopub, &["topic"], "status", &header, &json!({}), &json!({"execution_state": "idle"}));
    world.copy(Topic::Iopub, &[], "iopub_welcome", &json!({}), &json!({}), &json!({"subscription": ""}));
    world.copy(Topic::Iopub, &["topic"], "data_message", &header, &json!({}), &json!({"keys": []}));
    let (_, reply) = world.ask("db_request", json!({"query": {"msg_id": "client_1_77"}}));
    let record = &reply["records"][0];
    assert_eq!(
        (&record["stdout"], &record["execute_input"], &record["header"]),
        (&json!("one two"), &json!("print()"), &json!(null))
    );
    assert_eq!(world.rejected, []);
    header["msg_id"] = json!(7);
    world.copy(Topic::Iopub, &["topic"], "stream", &header, &json!({}), &json!({"name": "stdout", "text": 1}));
}

#[test]
fn an_engine_that_says_it_shuts_down_is_unregistered() {
    let mut world = World::new();
    world.engine("client"); // the session of the message below
    world.copy(Topic::Iopub, &["engine.0.shutdown"], "shutdown_reply", &json!({}), &json!({}), &json!({"status": "ok"}));
    assert_eq!(world.to_schedulers, ["up client 0", "down client 0"]);
    world.ask("unregistration_request", json!({"id": 0})); // its nanny says so too
    assert_eq!(world.to_schedulers.len(), 2);
}

#[test]
fn bad_input_is_counted_and_changes_nothing() {
    let mut world = World::new();
    world.engine("a");
    let send = |world: &mut World, frames: &[&[u8]]| world.event(Event::Query(Arc::new(Multipart::pack(frames))));
    send(&mut world, &[]);
    send(&mut world, &[b"cid", b""]);
    send(&mut world, &vec![b"x".as_slice(); 1000]);
    send(&mut world, &[b"cid", b"<IDS|MSG>", b"bad", b"{}", b"{}", b"{}", b"{}"]);
    send(&mut world, &[b"cid", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"]);
    assert_eq!(world.rejected.len(), 5, "{:?}", world.rejected);
    // Genuine, but nonsense: an error reply.
    let said = world.ask("nonsense_request", json!({}));
    assert_eq!((said.0.as_str(), &said.1["ename"]), ("hub_error", &json!("KeyError")));
    for (kind, content, ename) in [
        ("queue_request", json!({"targets": [99]}), "IndexError"),
        ("queue_request", json!({"targets": []}), "IndexError"),
        ("queue_request", json!({"targets": 1.5}), "IndexError"),
        ("result_request", json!({"msg_ids": 7}), "TypeError"),
        ("result_request", json!({"msg_ids": ["x"]}), "KeyError"),
        ("db_request", json!({"query": {"bad": 1}}), "KeyError"),
        ("db_request", json!({"query": 7}), "TypeError"),
        ("db_request", json!({"query": {}, "keys": ["bad"]}), "KeyError"),
        ("registration_request", json!({}), "KeyError"),
        ("registration_request", json!({"uuid": 5}), "TypeError"),
    ] {
        let (_, reply) = world.ask(kind, content.clone());
        assert_eq!((&reply["status"], &reply["ename"]), (&json!("error"), &json!(ename)), "{kind} {content}");
        assert!(reply["traceback"].is_array() && reply["engine_info"] == json!({}), "{reply}");
    }
    // d32: the same bytes again get no answer, and do no harm.
    let parts = world.client.compose("connection_request", Date::from_unix_us(0), b"{}", b"{}", b"{}".to_vec());
    let message = Arc::new(Multipart::pack(std::iter::once(&b"cid"[..]).chain(parts.iter().map(Vec::as_slice))));
    world.event(Event::Query(message.clone()));
    world.said.clear();
    world.event(Event::Query(message));
    assert!(world.said.is_empty());
    // Pongs from strangers, replies to nobody.
    world.event(Event::Pong { uuid: vec![0xff], text: vec![] });
    world.done(&json!({"msg_id": "nobody"}), "a", "ok");
    assert_eq!(world.rejected.last(), Some(&Reason::UnknownTask));
    assert_eq!(world.queue()["0"], json!({"queue": 0, "completed": 0, "tasks": 0}));
}

#[test]
fn shutdown_answers_notifies_and_stops() {
    let mut world = World::new();
    world.ask("shutdown_request", json!({}));
    let kinds: Vec<&str> = world.said.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!((kinds, world.stopped), (vec!["shutdown_reply", "shutdown_notification"], true));
}
