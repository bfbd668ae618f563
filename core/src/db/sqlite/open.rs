//! Opening a file of records: what is wrong with it is found out now, and said with what to do about it, rather than when the first record
//! can not be written. Which file it is, is remembered, as a name may come to stand for another.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::super::DbError;
use super::form::COLUMNS;

/// How long another program may hold the file while it is opened, and how long a statement waits for it later: that is the caller's business,
/// which has other work that need not wait.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
const WAIT_WITHIN: Duration = Duration::from_millis(250);
/// The largest file that is read as a whole at the start to see whether it is sound: about a second's work.
const MAX_CHECKED_BYTES: u64 = 64 << 20;

/// Which file a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of this name; nothing if there is none.
    pub(super) fn of(path: &Path) -> Option<FileId> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(FileId { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// An open file, ready for records.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// Quoted names: the table of records, and the one of what has no column there.
    pub(super) table: String,
    pub(super) more: String,
    pub(super) file: Option<FileId>,
    pub(super) wal: Option<FileId>,
}

/// Opens or makes a file.
pub(super) fn open(path: &Path, table: &str) -> Result<Opened, DbError> {
    let failed = |why: Why| DbError::Store(format!("{}: {}. {}", path.display(), why.reason, why.next_step(path)));
    let connection = connect(path).map_err(|error| failed(error.into()))?;
    check(&connection, path).map_err(failed)?;
    let name = choose_table(&connection, path, table).map_err(|error| failed(error.into()))?;
    connection.busy_timeout(WAIT_WITHIN)?;
    let (table, more) = (quoted(&name), quoted(&format!("{name}-more")));
    Ok(Opened { connection, table, more, file: FileId::of(path), wal: FileId::of(&beside(path, "-wal")) })
}

/// Removes the log of a file that is gone, so that it is not taken for that of another of the same name.
pub(super) fn remove_stale_wal(path: &Path, wal: Option<FileId>) {
    let there = beside(path, "-wal");
    if wal.is_some() && FileId::of(&there) == wal {
        for stale in [there, beside(path, "-shm")] {
            if let Err(error) = std::fs::remove_file(&stale)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!("could not remove {}, which belongs to a file that is gone: {error}", stale.display());
            }
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Why a file can not be used.
struct Why {
    code: Option<ErrorCode>,
    reason: String,
}

impl From<rusqlite::Error> for Why {
    fn from(error: rusqlite::Error) -> Self {
        Why { code: error.sqlite_error_code(), reason: error.to_string() }
    }
}

impl Why {
    fn next_step(&self, path: &Path) -> String {
        let path = path.display();
        let step = match self.code {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                format!("Move it away to start with a new one, or save what can be read of it with `sqlite3 {path} .recover`")
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                "Its folder must be there, and the folder and the file be writable for this user".to_owned()
            }
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
                "Look at the disk, and whether there is room on it".to_owned()
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "Another program holds it: let that end".to_owned(),
            _ => "Move it away to start with a new one".to_owned(),
        };
        format!("{step}; or name another (records.sqlite.location), keep records in memory (--dictdb) or none (--nodb)")
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(OPEN_WITHIN)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is then a write, which survives this process; the disk has it for certain at the next checkpoint.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // The ends of the table and its indexes, in KiB: at full rate the default is read again and again from the file.
    connection.pragma_update(None, "cache_size", -16_384)?;
    // Pages between checkpoints: fewer write the same page more seldom.
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Whether the file is sound, as far as a second goes, and can be written.
fn check(connection: &Connection, path: &Path) -> Result<(), Why> {
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if bytes <= MAX_CHECKED_BYTES {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Why {
                code: Some(ErrorCode::DatabaseCorrupt),
                reason: format!("the database is damaged: {}", found.trim()),
            });
        }
    } else {
        tracing::debug!("{}: {} MiB are not read through at the start", path.display(), bytes >> 20);
    }
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.pragma_update(None, "user_version", version)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// The table that has the right columns, made if there is none.
fn choose_table(connection: &Connection, path: &Path, table: &str) -> rusqlite::Result<String> {
    let expected: Vec<(String, String)> =
        COLUMNS.iter().map(|(name, form)| ((*name).to_owned(), form.column_type().to_owned())).collect();
    let mut name = table.to_owned();
    for number in 1.. {
        let present: Vec<(String, String)> = connection
            .prepare(&format!("PRAGMA table_info({})", quoted(&name)))?
            .query_map([], |row| Ok((row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        // Newer SQLite shows the names of standard types in capitals.
        let alike = |a: &(String, String), b: &(String, String)| a.0 == b.0 && a.1.eq_ignore_ascii_case(&b.1);
        if present.is_empty() || present.len() == expected.len() && present.iter().zip(&expected).all(|(a, b)| alike(a, b)) {
            break;
        }
        let next = format!("{table}_{number}");
        tracing::warn!("{}: table {name} has another layout; records go to {next}", path.display());
        name = next;
    }
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, form)| format!("{name} {}{}", form.column_type(), if *name == "msg_id" { " PRIMARY KEY" } else { "" }))
        .collect();
    let (table, more) = (quoted(&name), quoted(&format!("{name}-more")));
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} ({});
         CREATE TABLE IF NOT EXISTS {more} (msg_id text PRIMARY KEY, display_data text, label text) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS {} ON {table} (completed)",
        columns.join(", "),
        quoted(&format!("{name}-completed")),
    ))?;
    let others: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB ?1 || '_[0-9]*' AND name NOT GLOB '*-more'")?
        .query_map([&name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if !others.is_empty() {
        // ipyparallel does not recognise its own table with newer SQLite and starts another one each time.
        tracing::warn!("{}: records go to table {name}; there are others: {}", path.display(), others.join(", "));
    }
    Ok(name)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
