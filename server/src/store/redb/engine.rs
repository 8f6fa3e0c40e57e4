//! The engine itself: a redb database whose tables are ours, opened and read.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use ::redb::backends::FileBackend;
use ::redb::{
    Database, Error, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition,
};

use super::watch::{Verdict, Watch, Watched, refusal};
use super::{CACHE_BYTES, OpenError};
use crate::store::space::{self, Room};
use crate::store::{Key, KeyRange, Name, Page, PageBuilder, Rev, Row, check_format, format_row};

/// Key to revision (eight bytes, big-endian) and value.
pub(super) const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// `revision`: the newest one given out, so that none returns after its row is deleted.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
pub(super) const REVISION: &str = "revision";

/// Where the engine's bytes are. It is asked again when the engine has to be opened anew.
pub(super) struct Source {
    pub(super) backend: Box<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync>,
    pub(super) room: Box<dyn Fn() -> io::Result<Room> + Send + Sync>,
}

impl Source {
    pub(super) fn file(path: PathBuf) -> Self {
        let disk = path.clone();
        Self {
            backend: Box::new(move || {
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                let backend = FileBackend::new(file).map_err(io::Error::other)?;
                Ok(Box::new(backend))
            }),
            room: Box::new(move || space::room(&disk)),
        }
    }
}

/// An open redb file.
pub(super) struct Engine {
    pub(super) db: Database,
    pub(super) watch: Arc<Watch>,
}

impl Engine {
    /// Opens what `source` names; an empty one becomes a new store.
    pub(super) fn open(source: &Source) -> Result<Self, OpenError> {
        let watch = Arc::new(Watch::default());
        let backend = (source.backend)().map_err(open_io)?;
        let empty = backend.len().map_err(open_io)? == 0;
        let opened = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(Watched::new(backend, watch.clone()))
            .map_err(Error::from)
            .and_then(|db| {
                let engine = Self {
                    db,
                    watch: watch.clone(),
                };
                if empty {
                    engine.initialise()?;
                }
                let format = engine.format()?;
                Ok((engine, format))
            });
        match opened {
            Ok((engine, format)) => {
                check_format(format.as_deref())?;
                Ok(engine)
            }
            Err(error) => match watch.verdict() {
                Verdict::Refused(refused) => Err(refused.into()),
                Verdict::SyncFailed => Err(OpenError::SyncFailed),
                Verdict::Other => Err(open_error(error)),
            },
        }
    }

    fn initialise(&self) -> Result<(), Error> {
        let write = self.db.begin_write()?;
        {
            let format = encode_row(Rev(1), &format_row());
            let mut rows = write.open_table(ROWS)?;
            rows.insert(Name::Format.key().as_bytes(), format.as_slice())?;
            write.open_table(META)?.insert(REVISION, 1)?;
        }
        write.commit()?;
        Ok(())
    }

    /// The format row; a database without our tables has none.
    fn format(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.view() {
            Ok(view) => Ok(view.row(&Name::Format.key())?.map(|row| row.value)),
            Err(Error::TableDoesNotExist(_) | Error::TableTypeMismatch { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn view(&self) -> Result<View, Error> {
        let read = self.db.begin_read()?;
        let rev = read.open_table(META)?.get(REVISION)?;
        Ok(View {
            rows: read.open_table(ROWS)?,
            rev: rev.map_or(Rev::ABSENT, |rev| Rev(rev.value())),
        })
    }
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
