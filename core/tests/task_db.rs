//! One behaviour suite for every store of task records.

use bytes::Bytes;
use pointsman_core::date::Date;
use pointsman_core::db::{DbError, Key, Keys, MemoryDb, MemoryLimits, NoDb, Patch, Query, Retention, SqliteDb, Status, TaskDb};
use serde_json::{Value, json};

fn query(value: &Value) -> Query {
    Query::parse(value.as_object().unwrap()).unwrap()
}

fn request(number: u32) -> Patch {
    let mut patch = Patch::default()
        .value(Key::Header, &json!({"msg_id": format!("s_1_{number}"), "n": number}))
        .text(Key::Submitted, &format!("2026-11-21T03:00:{number:02}.000000Z"))
        .text(Key::Queue, "task")
        .value(Key::Label, &json!({"n": number}));
    patch.buffers = Some(vec![Bytes::from(vec![number as u8; 3]), Bytes::new()]);
    patch
}

fn ids(db: &mut dyn TaskDb, terms: Value) -> Vec<String> {
    db.find(&query(&terms), &Keys::default()).unwrap().into_iter().map(|record| record.id).collect()
}

/// What every store that keeps anything must do.
fn behaves(db: &mut dyn TaskDb) {
    for number in [2, 0, 1] {
        db.merge(&format!("s_1_{number}"), &request(number), true).unwrap();
    }
    assert_eq!(db.history().unwrap(), ["s_1_0", "s_1_1", "s_1_2"]);
    assert_eq!(ids(db, json!({})), ["s_1_2", "s_1_0", "s_1_1"], "order of arrival");

    // A result fills in the rest; a record that is not there is not made by one.
    let mut result = Patch::default().text(Key::Completed, "2026-11-21T03:01:00Z").text(Key::EngineUuid, "e");
    result.result_buffers = Some(vec![Bytes::from_static(b"out")]);
    db.merge("s_1_1", &result.clone(), false).unwrap();
    db.merge("ghost", &result, false).unwrap();
    assert!(db.get("ghost").unwrap().is_none());
    let record = db.get("s_1_1").unwrap().unwrap();
    assert_eq!((record.buffers[0].len(), record.buffers[1].len(), &record.result_buffers[0][..]), (3, 0, &b"out"[..]));
    assert_eq!((record.value(Key::Label), record.value(Key::Stdout)), (json!({"n": 1}), json!("")));

    // Output may come before the request, and is added up.
    for text in ["one\n", "two"] {
        db.merge("s_1_7", &Patch::default().append(Key::Stdout, text), true).unwrap();
    }
    db.merge("s_1_7", &request(7), true).unwrap();
    let record = db.get("s_1_7").unwrap().unwrap();
    assert_eq!((record.value(Key::Stdout), record.value(Key::Queue)), (json!("one\ntwo"), json!("task")));
    db.merge("s_1_7", &Patch::default().value(Key::Queue, &Value::Null), true).unwrap();
    assert_eq!(db.get("s_1_7").unwrap().unwrap().value(Key::Queue), json!("task"), "null does not overwrite");

    // Display data, results and errors come back as the objects they were.
    let display = json!({"data": {"text/plain": "1"}});
    db.merge("s_1_7", &Patch::default().value(Key::DisplayData, &display).value(Key::Error, &display), true).unwrap();
    let record = db.get("s_1_7").unwrap().unwrap();
    assert_eq!((record.value(Key::DisplayData), record.value(Key::Error)), (display.clone(), display));

    // Labels are any JSON, and come back as they were.
    for (number, label) in
        [json!("plain"), json!("{\"like\": \"json\"}"), json!(5), json!(true), json!([1, "two"])].iter().enumerate()
    {
        let id = format!("labelled_1_{number}");
        db.merge(&id, &Patch::default().value(Key::Label, label), true).unwrap();
        assert_eq!(&db.get(&id).unwrap().unwrap().value(Key::Label), label);
        assert_eq!(ids(db, json!({"label": label, "msg_id": {"$glob": "labelled*"}})), std::slice::from_ref(&id));
        db.remove(&[id]).unwrap();
    }

    assert_eq!(ids(db, json!({"submitted": {"$gt": "2026-11-21T03:00:01Z"}})), ["s_1_2", "s_1_7"]);
    assert_eq!(ids(db, json!({"completed": null, "queue": "task"})), ["s_1_2", "s_1_0", "s_1_7"]);
    assert_eq!(ids(db, json!({"msg_id": {"$in": ["s_1_0", "nobody"]}})), ["s_1_0"]);
    assert_eq!(ids(db, json!({"msg_id": {"$glob": "s_1_[01]"}})), ["s_1_0", "s_1_1"]);
    let found =
        db.find(&query(&json!({"engine_uuid": "e"})), &Keys::parse(&["label".into(), "buffers".into()]).unwrap()).unwrap();
    assert_eq!((found.len(), found[0].buffers.len()), (1, 2));
    let mut text = Vec::new();
    found[0].write_json(&[Key::Label, Key::Completed], &mut text);
    let shown: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&shown["msg_id"], &shown["label"]), (&json!("s_1_1"), &json!({"n": 1})));

    // Every operator, on every kind of value, gives what the query language says: the stores differ in speed only.
    for (terms, expected) in [
        (json!({"stdout": {"$ne": ""}}), vec!["s_1_7"]),
        (json!({"queue": {"$nin": ["mux"]}, "stdout": "one\ntwo"}), vec!["s_1_7"]),
        (json!({"started": {"$exists": true}}), vec![]),
        (json!({"engine_uuid": null, "completed": {"$exists": false}}), vec!["s_1_2", "s_1_0", "s_1_7"]),
        (json!({"completed": {"$lte": "2026-11-21T04:01:00+01:00"}}), vec!["s_1_1"]),
        (json!({"submitted": {"$gte": "2026-11-21T03:00:01Z", "$lt": "2026-11-21T03:00:02Z"}}), vec!["s_1_1"]),
        (json!({"queue": {"$all": [["task", "mux"]]}, "msg_id": "s_1_0"}), vec!["s_1_0"]),
        (json!({"client_uuid": "' OR 1=1 --"}), vec![]),
    ] {
        assert_eq!(ids(db, terms.clone()), expected, "{terms}");
    }

    assert_eq!(db.remove_matching(&Query::completed_by("other")).unwrap(), 0);
    assert_eq!(db.remove_matching(&Query::completed_by("e")).unwrap(), 1);
    db.remove(&[]).unwrap();
    db.remove(&["s_1_0".into(), "nobody".into()]).unwrap();
    assert_eq!(ids(db, json!({})), ["s_1_2", "s_1_7"]);
    db.flush().unwrap();

    // Retention: the oldest of those that a rule speaks of, in bounded steps.
    for number in 20..40 {
        let id = format!("r_1_{number}");
        db.merge(&id, &request(number), true).unwrap();
        let status = if number % 2 == 0 { "ok" } else { "error" };
        let mut result = Patch::default()
            .text(Key::Completed, &format!("2026-11-21T03:02:{number}Z"))
            .value(Key::ResultContent, &json!({"status": status}));
        result.result_buffers = Some(vec![Bytes::from(vec![1; 100])]);
        db.merge(&id, &result, false).unwrap();
    }
    let now = Date::parse("2026-11-21T03:03:00Z").unwrap();
    let ok = Retention { status: Some(Status::Ok), max_records: Some(3), ..Retention::default() };
    let error = Retention { status: Some(Status::Error), max_age_s: Some(24.0), ..Retention::default() };
    assert_eq!(db.expire(&[ok, error], now, 5).unwrap(), 5);
    assert_eq!(db.expire(&[ok, error], now, 100).unwrap(), 10);
    assert_eq!(ids(db, json!({"msg_id": {"$glob": "r_*"}})), ["r_1_34", "r_1_36", "r_1_37", "r_1_38", "r_1_39"]);
    assert_eq!(db.expire(&[ok, error], now, 100).unwrap(), 0);
    let bytes = Retention { max_bytes: Some(0), ..Retention::default() };
    assert_eq!(db.expire(&[bytes], now, 100).unwrap(), 5);
    assert_eq!(ids(db, json!({})), ["s_1_2", "s_1_7"], "what is pending stays");
    db.flush().unwrap();
    db.compact().unwrap();

    db.merge("s_1_8", &request(8), true).unwrap();
    db.flush().unwrap();
}

/// What every store does with output beyond 4 MiB of each stream.
fn cuts_output_where_a_mark_says_so_and_nowhere_else(db: &mut dyn TaskDb) {
    const MOST: usize = 4 << 20;
    const MARK: &str = "\n[output cut off here]";
    let full = "x".repeat(MOST);
    let cut = format!("{full}{MARK}");
    for (id, pieces, kept) in [
        ("exactly", vec![full.clone()], &full),
        ("exactly, in pieces", vec![full[1..].to_owned(), "x".into()], &full),
        ("nothing more", vec![full.clone(), String::new()], &full),
        ("one more at once", vec![format!("{full}y")], &cut),
        ("one more behind", vec![full.clone(), "y".into()], &cut),
        ("across the bound", vec![full[3..].to_owned(), "xxxyyyy".into()], &cut),
        ("more behind a mark", vec![full.clone(), "y".into(), "z".into(), String::new(), "z".into()], &cut),
    ] {
        for (key, other) in [(Key::Stdout, Key::Stderr), (Key::Stderr, Key::Stdout)] {
            let id = format!("{id} {}", key.name());
            for piece in &pieces {
                db.merge(&id, &Patch::default().append(key, piece.as_str()), true).unwrap();
            }
            db.merge(&id, &Patch::default().append(other, "short"), true).unwrap();
            let record = db.get(&id).unwrap().unwrap();
            let Value::String(text) = record.value(key) else { panic!("{id}: no text") };
            assert!(text == **kept, "{id}: {} bytes, ending with {:?}", text.len(), &text[text.len() - 30..]);
            assert_eq!(record.value(other), json!("short"), "{id}");
        }
        // Gathered before the store sees it, it comes to the same.
        let gathered = pieces.iter().fold(Patch::default(), |patch, piece| patch.append(Key::Stdout, piece.as_str()));
        db.merge(id, &gathered, true).unwrap();
        let record = db.get(id).unwrap().unwrap();
        assert!(record.value(Key::Stdout) == json!(kept), "{id}, gathered");
    }
}

#[test]
fn memory_and_sqlite_cut_output_where_a_mark_says_so_and_nowhere_else() {
    let limits = MemoryLimits { record_limit: 100, size_limit_bytes: 1 << 30, cull_fraction: 0.1 };
    cuts_output_where_a_mark_says_so_and_nowhere_else(&mut MemoryDb::new(limits));
    let folder = tempfile::tempdir().unwrap();
    let mut sqlite = SqliteDb::open(&folder.path().join("tasks.db"), "ipython-tasks").unwrap();
    cuts_output_where_a_mark_says_so_and_nowhere_else(&mut sqlite);
}

#[test]
fn memory_behaves() {
    behaves(&mut MemoryDb::default());
}

#[test]
fn sqlite_behaves_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.db");
    behaves(&mut SqliteDb::open(&path, "ipython-tasks").unwrap());
    let mut again = SqliteDb::open(&path, "ipython-tasks").unwrap();
    assert_eq!(again.history().unwrap(), ["s_1_2", "s_1_7", "s_1_8"]);
}

#[test]
fn what_is_merged_and_flushed_is_in_the_file_for_others_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.db");
    let mut db = SqliteDb::open(&path, "t").unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    let count = || other.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    db.merge("s_1_1", &request(1), true).unwrap();
    assert_eq!((count(), db.unwritten()), (0, vec!["s_1_1".into()]));
    db.flush().unwrap();
    assert_eq!((count(), db.unwritten()), (1, vec![]));
    db.remove(&["s_1_1".into()]).unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn a_file_that_can_not_be_used_is_refused_with_its_name_the_reason_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| SqliteDb::open(&folder.path().join(name), "t").map(drop).unwrap_err().to_string();
    std::fs::write(folder.path().join("junk"), "not a database, but long enough to look like one ".repeat(50)).unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let mut db = SqliteDb::open(&folder.path().join("holes"), "t").unwrap();
    let mut large = request(1);
    large.buffers = Some(vec![Bytes::from(vec![7; 100_000])]);
    (0..20).for_each(|n| db.merge(&format!("s_1_{n}"), &large, true).unwrap());
    db.flush().unwrap();
    drop(db);
    let mut bytes = std::fs::read(folder.path().join("holes")).unwrap();
    bytes[4096..4 * 4096].fill(0);
    std::fs::write(folder.path().join("holes"), bytes).unwrap();
    for (name, reason, step) in [
        ("junk", "not a database", "Move it away"),
        ("folder", "unable to open database file", "be writable for this user"),
        ("nowhere/tasks.db", "unable to open database file", "Its folder must be there"),
        ("holes", "damaged", ".recover"),
    ] {
        let said = open(name);
        assert!([name, reason, step, "--dictdb"].iter().all(|part| said.contains(part)), "{said}");
    }
}

#[test]
fn a_file_that_is_deleted_or_replaced_while_it_is_written_to_is_told_and_another_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.db");
    let mut db = SqliteDb::open(&path, "t").unwrap();
    let mut kept = request(0);
    kept.buffers = None;
    for n in [1, 2] {
        db.merge(&format!("s_1_{n}"), &kept, true).unwrap();
    }
    db.flush().unwrap();
    db.merge("s_1_3", &kept, true).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        ids(&mut db, json!({})),
        ["s_1_3"],
        "what had not been written goes into the new one; nothing is answered from the old"
    );
    let told = db.troubles();
    assert!(told.len() == 1 && told[0].detail.contains("has been deleted"), "{told:?}");
    let rows = |path: &std::path::Path| {
        let other = rusqlite::Connection::open(path).unwrap();
        let mut statement = other.prepare("SELECT msg_id FROM t ORDER BY rowid").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(rows(&path), ["s_1_3"]);

    // Another database takes its place; the log of the one before must not be taken for its.
    let elsewhere = folder.path().join("other.db");
    let mut other = SqliteDb::open(&elsewhere, "t").unwrap();
    other.merge("o_1_1", &kept, true).unwrap();
    drop(other);
    std::fs::rename(&elsewhere, &path).unwrap();
    db.merge("s_1_4", &kept, true).unwrap();
    db.flush().unwrap();
    assert!(db.troubles()[0].detail.contains("has been replaced"));
    assert_eq!(
        (ids(&mut db, json!({})), rows(&path)),
        (vec!["o_1_1".into(), "s_1_4".into()], vec!["o_1_1".into(), "s_1_4".into()])
    );

    // What takes its place is no database: updates wait, questions are refused, until there is one.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "junk ".repeat(1000)).unwrap();
    db.merge("s_1_5", &kept, true).unwrap();
    for _ in 0..2 {
        let refused = db.history().unwrap_err();
        assert!(matches!(&refused, DbError::Busy(reason) if reason.contains("not a database")), "{refused}");
        assert_eq!(refused.ename(), "OSError");
    }
    assert_eq!(db.unwritten(), ["s_1_5".into()]);
    std::fs::remove_file(&path).unwrap();
    db.flush().unwrap();
    assert_eq!(rows(&path), ["s_1_5"]);
}

/// Needs a server: `POINTSMAN_TEST_MONGODB=mongodb://localhost:27017 cargo test --features mongodb`.
#[cfg(feature = "mongodb")]
#[test]
fn mongodb_behaves_and_remembers() {
    let Ok(uri) = std::env::var("POINTSMAN_TEST_MONGODB") else {
        eprintln!("*** SKIPPED: POINTSMAN_TEST_MONGODB names no server ***");
        return;
    };
    let name = format!("pointsman-test-{}", std::process::id());
    let open = || pointsman_core::db::MongoDb::open(&uri, &name).unwrap();
    behaves(&mut open());
    let mut again = open();
    assert_eq!(again.history().unwrap(), ["s_1_2", "s_1_7", "s_1_8"]);
    takes_what_is_odd(&mut again);
    assert_eq!(again.remove_matching(&Query::default()).unwrap(), 10);
}

/// Names, depths and sizes that a database may not like cost the record concerned something, and no other anything.
#[cfg(feature = "mongodb")]
fn takes_what_is_odd(db: &mut dyn TaskDb) {
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let odd = json!({"$set": {"a.b": 1}, "": {"$date": "2026-11-21T03:00:00Z"}, "nul\0": u64::MAX, "f": 0.1});
    let mut huge = request(3);
    huge.buffers = Some(vec![Bytes::from(vec![0; 17 << 20])]);
    // Each list fits, together they do not; and more output than is kept of one task.
    let most = || Some(vec![Bytes::from(vec![0; 9 << 20])]);
    let mut result =
        Patch::default().text(Key::Completed, "2026-11-21T03:01:00Z").value(Key::ResultContent, &json!({"status": "ok"}));
    result.result_buffers = most();
    let mut large = request(5);
    large.buffers = most();
    db.merge("large", &large, true).unwrap();
    db.flush().unwrap();
    db.merge("large", &result, false).unwrap();
    db.merge("loud", &request(6).append(Key::Stdout, "é".repeat(17 << 20)), true).unwrap();
    db.merge("odd", &request(1).value(Key::Content, &odd), true).unwrap();
    for depth in [100, 300] {
        db.merge(&format!("deep {depth}"), &request(2).value(Key::Content, &nested(depth)), true).unwrap();
    }
    db.merge("huge", &huge, true).unwrap();
    db.merge("even", &request(4), true).unwrap();
    db.flush().unwrap();
    let found = db.get("odd").unwrap().unwrap().value(Key::Content);
    assert_eq!((&found["$set"], &found[""], &found["f"]), (&odd["$set"], &odd[""], &odd["f"]));
    assert_eq!(db.get("deep 100").unwrap().unwrap().value(Key::Content), nested(100));
    assert_eq!(db.get("deep 300").unwrap().unwrap().value(Key::Content), Value::Null, "no JSON that anybody reads");
    assert!(db.get("huge").unwrap().unwrap().buffers.is_empty());
    let large = db.get("large").unwrap().unwrap();
    assert_eq!((large.buffers.len(), large.result_buffers.len(), large.status()), (1, 0, Status::Ok));
    assert_eq!(large.value(Key::Completed), "2026-11-21T03:01:00Z");
    assert_eq!(db.get("loud").unwrap().unwrap().value(Key::Stdout).as_str().unwrap().len(), 4 << 20);
    assert_eq!(db.get("even").unwrap().unwrap().buffers.len(), 2);
}

#[test]
fn memory_drops_the_oldest_and_does_not_bring_them_back() {
    let mut db = MemoryDb::new(MemoryLimits { record_limit: 10, size_limit_bytes: 1000, cull_fraction: 0.2 });
    for number in 0..11 {
        db.merge(&format!("s_1_{number}"), &request(number), true).unwrap();
    }
    assert_eq!(db.history().unwrap().len(), 9);
    let late = || Patch::default().append(Key::Stdout, "late");
    db.merge("s_1_0", &late(), true).unwrap();
    assert!(db.get("s_1_0").unwrap().is_none());
    // Records of output alone are dropped like others, and never starve those of tasks.
    for number in 0..30 {
        db.merge(&format!("print_1_{number}"), &late(), true).unwrap();
    }
    db.merge("s_1_99", &request(50), true).unwrap();
    assert!(db.get("s_1_99").unwrap().is_some());
    let mut big = request(51);
    big.buffers = Some(vec![Bytes::from(vec![0; 1001])]);
    db.merge("s_1_100", &big, true).unwrap();
    assert!(db.history().unwrap().is_empty(), "buffers beyond the limit are not kept");
}

#[test]
fn no_store_says_so() {
    let mut db = NoDb;
    db.merge("s", &request(1), true).unwrap();
    assert!(matches!(db.get("s"), Err(DbError::NoData)));
    assert_eq!(db.history().unwrap_err().ename(), "NoData");
    db.remove(&["s".into()]).unwrap();
}

#[test]
fn an_update_that_sqlite_refuses_costs_no_other_and_no_question() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.db");
    let mut db = SqliteDb::open(&path, "t").unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON t WHEN new.msg_id = 's_1_2' BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        .unwrap();
    for number in [1, 2, 3] {
        db.merge(&format!("s_1_{number}"), &request(number), true).unwrap();
    }
    assert_eq!(ids(&mut db, json!({})), ["s_1_1", "s_1_3"]);
    db.merge("s_1_4", &request(4), true).unwrap();
    db.flush().unwrap();
    let [lost] = &db.troubles()[..] else { panic!("one trouble") };
    assert_eq!((lost.kind, lost.count), ("an update is lost", 1));
    assert!(lost.detail.contains("s_1_2") && lost.detail.contains("refused"), "{lost:?}");
    assert_eq!((db.troubles(), db.unwritten()), (vec![], vec![]), "told once");
    assert_eq!(ids(&mut db, json!({})), ["s_1_1", "s_1_3", "s_1_4"]);
}
