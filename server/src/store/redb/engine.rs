//! The engine itself: a redb database whose tables are ours, opened and read.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::backends::FileBackend;
use ::redb::{
    Database, Durability, Error, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition,
};

use super::journal::{AppendError, Journal};
use super::watch::{Verdict, Watch, Watched, refusal};
use super::{CACHE_BYTES, OpenError};
use crate::store::space::{self, Room};
use crate::store::{
    Key, KeyRange, Name, Op, Page, PageBuilder, Rev, Row, check_format, format_row,
};

/// Key to revision (eight bytes, big-endian) and value.
pub(super) const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// `revision`: the newest one given out, so that none returns after its row is deleted. `journal`: the number by
/// which a store and its journal know each other.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const JOURNAL: &str = "journal";

/// What a change may cost beside its bytes: the pages above it are written anew.
const ROOM_BYTES_PER_OPERATION: u64 = 8 << 10;

type File = io::Result<Box<dyn StorageBackend>>;

/// Where the bytes of a store are. It is asked again when the engine has to be opened anew.
pub(super) struct Source {
    pub(super) rows: Box<dyn Fn() -> File + Send + Sync>,
    /// Made when it is a new store's.
    pub(super) journal: Box<dyn Fn(bool) -> File + Send + Sync>,
    pub(super) room: Box<dyn Fn() -> io::Result<Room> + Send + Sync>,
}

impl Source {
    /// The file at `path`, with its journal beside it.
    pub(super) fn file(path: PathBuf) -> Self {
        let (journal, disk) = (journal_of(&path), path.clone());
        Self {
            rows: Box::new(move || file(OpenOptions::new().read(true).write(true), &path)),
            journal: Box::new(move |new| {
                let mut options = OpenOptions::new();
                file(
                    options.read(true).write(true).create(new).mode(0o600),
                    &journal,
                )
            }),
            room: Box::new(move || space::room(&disk)),
        }
    }
}

fn file(options: &OpenOptions, path: &Path) -> File {
    let backend = FileBackend::new(options.open(path)?).map_err(io::Error::other)?;
    Ok(Box::new(backend))
}

/// Where the journal of the store at `path` is.
pub(super) fn journal_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".journal");
    PathBuf::from(name)
}

/// An open redb file, and the journal of what it does not have durably yet.
pub(super) struct Engine {
    db: Database,
    pub(super) watch: Arc<Watch>,
    journal: Mutex<Journal>,
    /// What is in the journal and not in the file, oldest first.
    behind: Mutex<VecDeque<Arc<Record>>>,
    /// Whoever has it brings the file to where the journal is; nobody waits for it to append.
    follower: Mutex<()>,
}

/// A transaction of the journal.
struct Record {
    rev: Rev,
    ops: Vec<Op>,
}

impl Record {
    /// What it did to a row: the revision that this has since; none when nothing.
    fn revision(&self, of: &Key) -> Option<Rev> {
        self.ops.iter().rev().find_map(|op| match op {
            Op::Put(key, _) if key == of => Some(self.rev),
            Op::Delete(key) if key == of => Some(Rev::ABSENT),
            Op::Put(..) | Op::Delete(_) => None,
        })
    }
}

impl Engine {
    /// Opens what `source` names; an empty one becomes a new store.
    pub(super) fn open(source: &Source) -> Result<Self, OpenError> {
        let watch = Arc::new(Watch::default());
        let rows = (source.rows)().map_err(open_io)?;
        let empty = rows.len().map_err(open_io)? == 0;
        let opened = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(Watched::new(rows, watch.clone()))
            .map_err(|error| open_error(error.into()))
            .and_then(|db| {
                let mut journal = journal(source, &db, empty)?;
                replay(&db, &mut journal)?;
                Ok((db, journal))
            });
        match opened {
            Ok((db, journal)) => Ok(Self {
                db,
                watch,
                journal: Mutex::new(journal),
                behind: Mutex::default(),
                follower: Mutex::default(),
            }),
            Err(error) => Err(match watch.verdict() {
                Verdict::Refused(refused) => refused.into(),
                Verdict::SyncFailed => OpenError::SyncFailed,
                Verdict::Other => error,
            }),
        }
    }

    /// Durable when it returns; the file has it when somebody looks, see [`Engine::catch_up`].
    pub(super) fn append(&self, rev: Rev, ops: Vec<Op>) -> Result<(), Failed> {
        let mut journal = lock(&self.journal);
        if journal.is_full() {
            self.catch_up()?;
            // A commit that waits for the disk takes all before it along.
            self.db.begin_write()?.commit()?;
            journal.rewind();
        }
        journal.append(rev, &ops).map_err(Failed::Journal)?;
        lock(&self.behind).push_back(Arc::new(Record { rev, ops }));
        Ok(())
    }

    /// How many transactions the file is behind the journal.
    pub(super) fn behind(&self) -> usize {
        lock(&self.behind).len()
    }

    /// Room that the file may take to come to where the journal is.
    pub(super) fn room_behind(&self) -> u64 {
        let behind = lock(&self.behind);
        let rooms = behind.iter().map(|record| room(&record.ops));
        rooms.fold(0, u64::saturating_add)
    }

    /// Brings the file to where the journal is: all that it lacks in one step, and each row once.
    fn catch_up(&self) -> Result<(), Error> {
        let _follower = lock(&self.follower);
        let records: Vec<_> = lock(&self.behind).iter().cloned().collect();
        if records.is_empty() {
            return Ok(());
        }
        repeat(&self.db, &records)?;
        lock(&self.behind).drain(..records.len());
        Ok(())
    }

    /// The revision of a row, also where the file does not have it yet.
    pub(super) fn revision(&self, of: &Key) -> Result<Rev, Error> {
        let newest = lock(&self.behind)
            .iter()
            .rev()
            .find_map(|record| record.revision(of));
        match newest {
            Some(rev) => Ok(rev),
            None => Ok(view(&self.db)?.row(of)?.map_or(Rev::ABSENT, |row| row.rev)),
        }
    }

    /// Everything that is durable.
    pub(super) fn view(&self) -> Result<View, Error> {
        self.catch_up()?;
        view(&self.db)
    }
}

/// Room that these changes may take in the file, reckoned generously.
pub(super) fn room(ops: &[Op]) -> u64 {
    let room = |op: &Op| {
        let bytes = u64::try_from(op.bytes()).unwrap_or(u64::MAX);
        bytes
            .saturating_mul(2)
            .saturating_add(ROOM_BYTES_PER_OPERATION)
    };
    ops.iter().map(room).fold(0, u64::saturating_add)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a transaction did not become durable.
pub(super) enum Failed {
    /// The engine failed before it was in the journal.
    Engine(Error),
    /// The journal failed.
    Journal(AppendError),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

/// The journal of the store; a new one of a new store.
fn journal(source: &Source, db: &Database, new: bool) -> Result<Journal, OpenError> {
    if new {
        let store = random()?;
        let file = (source.journal)(true).map_err(open_io)?;
        let journal = Journal::create(file, store).map_err(open_io)?;
        initialise(db, store).map_err(open_error)?;
        return Ok(journal);
    }
    check_format(format(db).map_err(open_error)?.as_deref())?;
    let file = (source.journal)(false).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            OpenError::Damaged("the journal beside it is missing".into())
        } else {
            open_io(error)
        }
    })?;
    let store = number(db).map_err(open_error)?;
    let journal = match store {
        Some(store) => Journal::open(file, store).map_err(open_io)?,
        None => None,
    };
    journal.ok_or_else(|| OpenError::Damaged("the journal beside it is another store's".into()))
}

fn initialise(db: &Database, store: u64) -> Result<(), Error> {
    let write = db.begin_write()?;
    {
        let format = encode_row(Rev(1), &format_row());
        let mut rows = write.open_table(ROWS)?;
        rows.insert(Name::Format.key().as_bytes(), format.as_slice())?;
        let mut meta = write.open_table(META)?;
        meta.insert(REVISION, 1)?;
        meta.insert(JOURNAL, store)?;
    }
    write.commit()?;
    Ok(())
}

/// The format row; a database without our tables has none.
fn format(db: &Database) -> Result<Option<Vec<u8>>, Error> {
    match view(db) {
        Ok(view) => Ok(view.row(&Name::Format.key())?.map(|row| row.value)),
        Err(Error::TableDoesNotExist(_) | Error::TableTypeMismatch { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number of the store.
fn number(db: &Database) -> Result<Option<u64>, Error> {
    let number = db.begin_read()?.open_table(META)?.get(JOURNAL)?;
    Ok(number.map(|number| number.value()))
}

fn view(db: &Database) -> Result<View, Error> {
    let read = db.begin_read()?;
    let rev = read.open_table(META)?.get(REVISION)?;
    Ok(View {
        rows: read.open_table(ROWS)?,
        rev: rev.map_or(Rev::ABSENT, |rev| Rev(rev.value())),
    })
}

/// Carries out what the journal has beyond the file.
fn replay(db: &Database, journal: &mut Journal) -> Result<(), OpenError> {
    let mut held = view(db).map_err(open_error)?.rev;
    let mut last = None;
    let mut records = Vec::new();
    while let Some((rev, ops)) = journal.next(last).map_err(open_io)? {
        last = Some(rev);
        if rev <= held {
            continue;
        }
        if after(held) != Some(rev) {
            return Err(OpenError::Damaged(format!(
                "it ends at revision {}, and its journal begins at {}: it is older than its journal",
                held.0, rev.0
            )));
        }
        held = rev;
        records.push(Arc::new(Record { rev, ops }));
    }
    repeat(db, &records).map_err(open_error)
}

/// Does to the file what these records say, without waiting for the disk: the journal has them.
fn repeat(db: &Database, records: &[Arc<Record>]) -> Result<(), Error> {
    let Some(last) = records.last() else {
        return Ok(());
    };
    let mut newest = BTreeMap::new();
    for record in records {
        newest.extend(record.ops.iter().map(|op| match op {
            Op::Put(key, value) => (key, Some((record.rev, value))),
            Op::Delete(key) => (key, None),
        }));
    }
    let mut write = db.begin_write()?;
    write.set_durability(Durability::None)?;
    let mut rows = write.open_table(ROWS)?;
    for (key, row) in newest {
        if let Some((rev, value)) = row {
            rows.insert(key.as_bytes(), encode_row(rev, value).as_slice())?;
        } else {
            rows.remove(key.as_bytes())?;
        }
    }
    drop(rows);
    write.open_table(META)?.insert(REVISION, last.rev.0)?;
    write.commit()?;
    Ok(())
}

/// The revision after this one.
pub(super) fn after(rev: Rev) -> Option<Rev> {
    rev.0.checked_add(1).map(Rev)
}

/// All rows at one revision.
pub(super) struct View {
    pub(super) rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) rev: Rev,
}

impl View {
    pub(super) fn row(&self, key: &Key) -> Result<Option<Row>, Error> {
        row_in(&self.rows, key)
    }

    pub(super) fn page(&self, range: &KeyRange, limit: usize) -> Result<Page, Error> {
        let mut page = PageBuilder::new(limit);
        let mut rest = None;
        let bytes = range.start.as_bytes()..;
        let rows = self.rows.range::<&[u8]>(bytes)?;
        for found in rows {
            let (key, held) = found?;
            let key = Key::from_bytes(key.value());
            if !range.contains(&key) {
                break;
            }
            if page.is_full() {
                rest = page.rows.last().map(|last| range.after(&last.key));
                break;
            }
            let (rev, value) = decode_row(held.value())?;
            let value = value.to_vec();
            page.push(Row { key, value, rev });
        }
        Ok(Page {
            rows: page.rows,
            rest,
            rev: self.rev,
        })
    }
}

impl View {
    /// As [`View::page`], from the end of the range.
    pub(super) fn page_back(&self, range: &KeyRange, limit: usize) -> Result<Page, Error> {
        let mut page = PageBuilder::new(limit);
        let mut rest = None;
        let (start, end) = (range.start.as_bytes(), range.end.as_ref());
        let rows = match end {
            // An empty range backwards would be a mistake of the caller's to the engine.
            Some(end) if end.as_bytes() <= start => None,
            Some(end) => Some(self.rows.range::<&[u8]>(start..end.as_bytes())?),
            None => Some(self.rows.range::<&[u8]>(start..)?),
        };
        for found in rows.into_iter().flat_map(Iterator::rev) {
            if page.is_full() {
                rest = page.rows.last().map(|last| range.before(&last.key));
                break;
            }
            let (key, held) = found?;
            let key = Key::from_bytes(key.value());
            let (rev, value) = decode_row(held.value())?;
            let value = value.to_vec();
            page.push(Row { key, value, rev });
        }
        Ok(Page {
            rows: page.rows,
            rest,
            rev: self.rev,
        })
    }
}

pub(super) fn row_in<T>(rows: &T, key: &Key) -> Result<Option<Row>, Error>
where
    T: ReadableTable<&'static [u8], &'static [u8]>,
{
    let Some(held) = rows.get(key.as_bytes())? else {
        return Ok(None);
    };
    let (rev, value) = decode_row(held.value())?;
    Ok(Some(Row {
        key: key.clone(),
        value: value.to_vec(),
        rev,
    }))
}

pub(super) fn encode_row(rev: Rev, value: &[u8]) -> Vec<u8> {
    [&rev.0.to_be_bytes(), value].concat()
}

pub(super) fn decode_row(held: &[u8]) -> Result<(Rev, &[u8]), Error> {
    let (rev, value) = held
        .split_first_chunk()
        .ok_or_else(|| Error::Corrupted("a row without its revision".into()))?;
    Ok((Rev(u64::from_be_bytes(*rev)), value))
}

pub(super) fn open_io(error: io::Error) -> OpenError {
    match (error.kind(), refusal(error.kind())) {
        (ErrorKind::NotFound, _) => OpenError::Missing,
        (ErrorKind::UnexpectedEof, _) => OpenError::Damaged("it ends too early".into()),
        (_, Some(refused)) => OpenError::Refused(refused),
        _ => OpenError::Io(error),
    }
}

pub(super) fn open_error(error: Error) -> OpenError {
    if let Error::Io(error) = error {
        open_io(error)
    } else if matches!(error, Error::DatabaseAlreadyOpen) {
        OpenError::InUse
    } else {
        OpenError::Damaged(error.to_string())
    }
}

fn random() -> Result<u64, OpenError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::Io(io::Error::other(error)))?;
    Ok(u64::from_be_bytes(bytes))
}
