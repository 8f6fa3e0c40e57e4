//! The engine itself: a redb database whose tables are ours, opened and read.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::backends::FileBackend;
use ::redb::{
    Database, Durability, Error, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend,
    Table, TableDefinition, WriteTransaction,
};

use super::journal::Journal;
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
    pub(super) db: Database,
    pub(super) watch: Arc<Watch>,
    journal: Mutex<Journal>,
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
            }),
            Err(error) => Err(match watch.verdict() {
                Verdict::Refused(refused) => refused.into(),
                Verdict::SyncFailed => OpenError::SyncFailed,
                Verdict::Other => error,
            }),
        }
    }

    /// The journal, with room for a record: the file is made durable when there is none.
    pub(super) fn journal(&self) -> Result<MutexGuard<'_, Journal>, Error> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.is_full() {
            // A commit that waits for the disk takes all before it along.
            let write = self.db.begin_write()?;
            write.commit()?;
            journal.rewind();
        }
        Ok(journal)
    }

    pub(super) fn view(&self) -> Result<View, Error> {
        view(&self.db)
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
        repeat(db, rev, &ops).map_err(open_error)?;
        held = rev;
    }
    Ok(())
}

fn repeat(db: &Database, rev: Rev, ops: &[Op]) -> Result<(), Error> {
    let write = begin(db)?;
    change(&mut write.open_table(ROWS)?, rev, ops)?;
    mark(&write, rev)?;
    write.commit()?;
    Ok(())
}

/// Begins a transaction that the journal makes durable.
pub(super) fn begin(db: &Database) -> Result<WriteTransaction, Error> {
    let mut write = db.begin_write()?;
    write.set_durability(Durability::None)?;
    Ok(write)
}

/// Changes rows at a revision.
pub(super) fn change(
    rows: &mut Table<'_, &'static [u8], &'static [u8]>,
    rev: Rev,
    ops: &[Op],
) -> Result<(), Error> {
    for op in ops {
        match op {
            Op::Put(key, value) => {
                let row = encode_row(rev, value);
                rows.insert(key.as_bytes(), row.as_slice())?;
            }
            Op::Delete(key) => {
                rows.remove(key.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// Says that the store has this revision.
pub(super) fn mark(write: &WriteTransaction, rev: Rev) -> Result<(), Error> {
    write.open_table(META)?.insert(REVISION, rev.0)?;
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
