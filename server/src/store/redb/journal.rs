//! The journal: what was committed since the engine's file was last made durable.
//!
//! A commit of the engine changes a dozen pages all over its file, and the disk has to take each of them before
//! anybody may be answered. Here a transaction is one stretch of bytes behind the one before, in a file whose
//! blocks are there already: one write, one `fsync` of data, under half the time on an SSD. The engine's file
//! follows without syncing and is made durable when [`BYTES`] of journal are full.
//!
//! ```text
//! header   "keyturn journal 1\n", then the store's number (8 bytes, big-endian), then zeros up to 4,096 bytes
//! record   length of the body (4) ‖ revision (8) ‖ SHA-256(number ‖ revision ‖ body) (32) ‖ body
//! body     per change: 1 ‖ length (4) ‖ key ‖ length (4) ‖ value, or 0 ‖ length (4) ‖ key; all big-endian
//! ```
//!
//! # Invariants
//!
//! 1. A record is written behind the last one or, once the engine's file has all of them durably, over the first.
//! 2. Revisions of records that follow each other grow by one. Records end where that ends or a digest does not
//!    fit: what was torn was not acknowledged, and what an earlier round left behind has older revisions.
//! 3. A write that failed has left at least a byte unwritten, so it has left no record.

use std::io;

use ::redb::StorageBackend;
use sha2::{Digest as _, Sha256};

use crate::store::{Key, Op, Rev};

/// So much is filled before the engine's file is made durable. One transaction may reach beyond.
pub(super) const BYTES: u64 = 1 << 20;

const MAGIC: &[u8] = b"keyturn journal 1\n";
/// Nothing shares a block with the header, which is written once.
const HEADER_BYTES: u64 = 4096;
/// How long the file is, but for a transaction that reaches beyond.
const FULL: u64 = HEADER_BYTES + BYTES;
/// What a record has before its body.
const HEAD_BYTES: usize = 4 + 8 + 32;

/// What a change takes at most beside its key and value.
const CHANGE_BYTES: usize = 1 + 4 + 4;

const DELETE: u8 = 0;
const PUT: u8 = 1;

/// The journal of one store.
pub(super) struct Journal {
    file: Box<dyn StorageBackend>,
    /// The number of the store.
    store: u64,
    /// Where the next record goes.
    end: u64,
}

impl Journal {
    /// Makes an empty one for this store out of whatever the file holds.
    pub(super) fn create(file: Box<dyn StorageBackend>, store: u64) -> io::Result<Self> {
        file.set_len(0)?;
        file.set_len(FULL)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&store.to_be_bytes());
        header.resize(usize_of(HEADER_BYTES), 0);
        // Written rather than left as holes: to fill a hole is to change the file system's own records, too.
        file.write(0, &header)?;
        file.write(HEADER_BYTES, &vec![0; usize_of(BYTES)])?;
        file.sync_data()?;
        Ok(Self {
            file,
            store,
            end: HEADER_BYTES,
        })
    }

    /// Opens the one of this store; none when it belongs to another one or is no journal.
    pub(super) fn open(file: Box<dyn StorageBackend>, store: u64) -> io::Result<Option<Self>> {
        let mut header = vec![0; MAGIC.len().saturating_add(8)];
        if file.len()? < HEADER_BYTES {
            return Ok(None);
        }
        file.read(0, &mut header)?;
        let ours = header.strip_prefix(MAGIC) == Some(store.to_be_bytes().as_slice());
        Ok(ours.then_some(Self {
            file,
            store,
            end: HEADER_BYTES,
        }))
    }

    /// The record behind that of `last`, or the first; none at the end. New ones go behind those that were read.
    pub(super) fn next(&mut self, last: Option<Rev>) -> io::Result<Option<(Rev, Vec<Op>)>> {
        let left = self.file.len()?.saturating_sub(self.end);
        let Some(most) = left.checked_sub(wide(HEAD_BYTES)) else {
            return Ok(None);
        };
        let (mut length, mut rev, mut digest) = ([0; 4], [0; 8], [0; 32]);
        let mut from = self.end;
        for field in [&mut length[..], &mut rev, &mut digest] {
            self.file.read(from, field)?;
            from = from.saturating_add(wide(field.len()));
        }
        let (length, rev) = (
            u64::from(u32::from_be_bytes(length)),
            u64::from_be_bytes(rev),
        );
        let follows = last.is_none_or(|last| last.0.checked_add(1) == Some(rev));
        if !follows || length == 0 || length > most {
            return Ok(None);
        }
        let mut body = vec![0; usize_of(length)];
        self.file.read(from, &mut body)?;
        if self.digest(rev, &body) != digest {
            return Ok(None);
        }
        let ops = decode(&body).ok_or(io::ErrorKind::InvalidData)?;
        self.end = from.saturating_add(length);
        Ok(Some((Rev(rev), ops)))
    }

    /// Writes a record; durable when it returns.
    pub(super) fn append(&mut self, rev: Rev, ops: &[Op]) -> Result<(), AppendError> {
        let sizes = ops.iter().map(|op| op.bytes().saturating_add(CHANGE_BYTES));
        let mut record = Vec::with_capacity(sizes.fold(HEAD_BYTES, usize::saturating_add));
        record.resize(HEAD_BYTES, 0);
        encode(ops, &mut record);
        let (head, body) = record.split_at_mut(HEAD_BYTES);
        let digest = self.digest(rev.0, body);
        let length = u32::try_from(body.len())
            .map_err(|_| AppendError::Write(io::Error::from(io::ErrorKind::FileTooLarge)))?;
        let (length, rev) = (length.to_be_bytes(), rev.0.to_be_bytes());
        head.copy_from_slice(&[&length[..], &rev, &digest].concat());
        let end = self.end.saturating_add(wide(record.len()));
        if end > FULL {
            self.file.set_len(end).map_err(AppendError::Write)?;
        }
        self.file
            .write(self.end, &record)
            .map_err(AppendError::Write)?;
        self.file.sync_data().map_err(AppendError::Sync)?;
        self.end = end;
        Ok(())
    }

    /// Whether the engine's file should be made durable before more comes.
    pub(super) fn is_full(&self) -> bool {
        self.end >= FULL
    }

    /// The engine's file has everything, durably: begins at the beginning.
    pub(super) fn rewind(&mut self) {
        self.end = HEADER_BYTES;
        if self.file.len().is_ok_and(|len| len > FULL) {
            // When it cannot be made shorter it stays longer, which does no harm.
            let _ = self.file.set_len(FULL);
        }
    }

    fn digest(&self, rev: u64, body: &[u8]) -> [u8; 32] {
        let mut sum = Sha256::new_with_prefix(self.store.to_be_bytes());
        sum.update(rev.to_be_bytes());
        sum.update(body);
        sum.finalize().into()
    }
}

/// How a record did not become durable.
pub(super) enum AppendError {
    /// It is not there: invariant 3.
    Write(io::Error),
    /// Nobody knows.
    Sync(io::Error),
}

fn encode(ops: &[Op], out: &mut Vec<u8>) {
    let mut field = |tag: Option<u8>, bytes: &[u8]| {
        out.extend(tag);
        // A transaction's bounds are far below.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(bytes);
    };
    for op in ops {
        match op {
            Op::Put(key, value) => {
                field(Some(PUT), key.as_bytes());
                field(None, value);
            }
            Op::Delete(key) => field(Some(DELETE), key.as_bytes()),
        }
    }
}

fn decode(mut body: &[u8]) -> Option<Vec<Op>> {
    let mut ops = Vec::new();
    while let Some((tag, rest)) = body.split_first() {
        body = rest;
        let key = Key::from_bytes(field(&mut body)?);
        ops.push(match *tag {
            PUT => Op::Put(key, field(&mut body)?.to_vec()),
            DELETE => Op::Delete(key),
            _ => return None,
        });
    }
    Some(ops)
}

fn field<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = body.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (field, rest) = rest.split_at_checked(length)?;
    *body = rest;
    Some(field)
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A file in memory; clones are the same.
    #[derive(Clone, Debug, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl StorageBackend for Memory {
        fn len(&self) -> io::Result<u64> {
            Ok(wide(self.0.lock().unwrap().len()))
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let bytes = self.0.lock().unwrap();
            let from = usize_of(offset);
            let found = bytes.get(from..from.saturating_add(out.len()));
            out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().resize(usize_of(len), 0);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let mut bytes = self.0.lock().unwrap();
            let end = usize_of(offset).saturating_add(data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[usize_of(offset)..end].copy_from_slice(data);
            Ok(())
        }
    }

    fn journal(file: &Memory) -> Journal {
        Journal::create(Box::new(file.clone()), 7).unwrap()
    }

    fn append(journal: &mut Journal, rev: u64, ops: &[Op]) {
        assert!(journal.append(Rev(rev), ops).is_ok());
    }

    fn ops(step: u8) -> Vec<Op> {
        let key = |name: &str| Key::from_bytes(format!("{name}/{step}"));
        vec![
            Op::Put(key("a"), vec![step; usize::from(step) * 9]),
            Op::Delete(key("b")),
            Op::Put(key("c"), Vec::new()),
        ]
    }

    /// The records that another process would find.
    fn found(file: &Memory) -> Vec<(Rev, Vec<Op>)> {
        let mut journal = Journal::open(Box::new(file.clone()), 7).unwrap().unwrap();
        let mut found: Vec<(Rev, Vec<Op>)> = Vec::new();
        while let Some(record) = journal.next(found.last().map(|last| last.0)).unwrap() {
            found.push(record);
        }
        found
    }

    #[test]
    fn what_was_written_is_found() {
        let file = Memory::default();
        let mut journal = journal(&file);
        let mut want = Vec::new();
        for step in 1..20 {
            append(&mut journal, u64::from(step) + 40, &ops(step));
            want.push((Rev(u64::from(step) + 40), ops(step)));
            assert_eq!(found(&file), want);
        }
    }

    /// Invariant 2.
    #[test]
    fn of_a_torn_record_nothing_is_found() {
        let file = Memory::default();
        let mut journal = journal(&file);
        append(&mut journal, 1, &ops(1));
        let from = usize_of(journal.end);
        append(&mut journal, 2, &ops(2));
        let until = usize_of(journal.end);
        let whole = file.0.lock().unwrap().clone();
        for at in from..until {
            for flip in [1, 0x80] {
                file.0.lock().unwrap()[at] ^= flip;
                assert_eq!(found(&file), [(Rev(1), ops(1))], "byte {at}");
                file.0.lock().unwrap().clone_from(&whole);
            }
            file.0.lock().unwrap()[at..until].fill(0);
            let lost = found(&file).len();
            assert!(lost == 1 || file.0.lock().unwrap()[..until] == whole[..until]);
            file.0.lock().unwrap().truncate(at);
            assert_eq!(found(&file), [(Rev(1), ops(1))], "ends at {at}");
            file.0.lock().unwrap().clone_from(&whole);
        }
        assert_eq!(found(&file).len(), 2);
    }

    /// Invariant 1: what an earlier round left behind the newest record is not found again.
    #[test]
    fn a_new_round_ends_where_it_ends() {
        let file = Memory::default();
        let mut journal = journal(&file);
        for rev in 1..=9 {
            append(&mut journal, rev, &ops(5));
        }
        journal.rewind();
        for rev in 10..=12 {
            append(&mut journal, rev, &ops(5));
            let revs: Vec<_> = found(&file).iter().map(|(rev, _)| rev.0).collect();
            assert_eq!(revs, (10..=rev).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_transaction_may_reach_beyond_the_end() {
        let file = Memory::default();
        let mut journal = journal(&file);
        let large = [Op::Put(Key::from_bytes("large"), vec![9; 3 << 20])];
        append(&mut journal, 1, &large);
        assert!(journal.is_full());
        assert_eq!(found(&file), [(Rev(1), large.to_vec())]);
        journal.rewind();
        assert!(!journal.is_full());
        assert_eq!(file.len().unwrap(), FULL);
    }

    #[test]
    fn another_stores_journal_is_not_taken() {
        let file = Memory::default();
        append(&mut journal(&file), 1, &ops(1));
        for (store, bytes, ours) in [
            (7, None, true),
            (8, None, false),
            (7, Some(0), false),
            (7, Some(17), false),
            (7, Some(4095), false),
        ] {
            let other = Memory::default();
            other.0.lock().unwrap().clone_from(&file.0.lock().unwrap());
            if let Some(bytes) = bytes {
                other.0.lock().unwrap().truncate(bytes);
            }
            let opened = Journal::open(Box::new(other), store).unwrap();
            assert_eq!(opened.is_some(), ours, "store {store}, {bytes:?} bytes");
        }
    }

    #[test]
    fn a_body_is_read_strictly() {
        let mut body = Vec::new();
        encode(&ops(3), &mut body);
        assert_eq!(decode(&body), Some(ops(3)));
        for cut in 1..body.len() {
            let read = decode(&body[..cut]);
            assert!(read.is_none_or(|read| read.len() < 3), "cut at {cut}");
        }
        for bad in [&[2, 0, 0, 0, 0][..], &[0, 0, 0, 0, 9, 1], &[1, 0, 0, 0, 0]] {
            assert_eq!(decode(bad), None);
        }
    }
}
