//! A disk in memory that keeps a record of what was written and synced, and fails when told to.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use rustix::io::Errno;

/// Which file of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Rows,
    Journal,
}

/// The bytes of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    rows: Vec<u8>,
    journal: Vec<u8>,
}

impl Bytes {
    fn of(&mut self, file: File) -> &mut Vec<u8> {
        match file {
            File::Rows => &mut self.rows,
            File::Journal => &mut self.journal,
        }
    }
}

/// What happened to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write(File, u64, Vec<u8>),
    SetLen(File, u64),
    Sync(File),
    /// Not the disk's: how many transactions were acknowledged by now.
    Acknowledged(usize),
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    SetLen,
    Sync,
}

#[derive(Debug)]
struct Plan {
    call: Call,
    /// So many calls still work.
    spare: u64,
    errno: Errno,
    failed: bool,
}

#[derive(Debug, Default)]
struct State {
    bytes: Bytes,
    record: Vec<Event>,
    plan: Option<Plan>,
}

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn with(bytes: Bytes) -> Self {
        let disk = Self::default();
        disk.state().bytes = bytes;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What it holds as long as nothing is lost.
    pub(crate) fn bytes(&self) -> Bytes {
        self.state().bytes.clone()
    }

    pub(crate) fn acknowledge(&self, count: usize) {
        self.state().record.push(Event::Acknowledged(count));
    }

    /// What happened since the last call.
    pub(crate) fn take_record(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().record)
    }

    /// After `spare` more of them, each `call` fails until [`Self::heal`]; a disk that has turned read-only
    /// then takes no write of any kind.
    pub(crate) fn fail(&self, call: Call, spare: u64, errno: Errno) {
        self.state().plan = Some(Plan {
            call,
            spare,
            errno,
            failed: false,
        });
    }

    pub(crate) fn heal(&self) {
        self.state().plan = None;
    }

    fn on(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if let Some(plan) = &mut state.plan {
            let read_only = plan.failed && plan.errno == Errno::ROFS;
            if plan.call == call && plan.spare > 0 {
                plan.spare -= 1;
            } else if plan.call == call || read_only && matches!(call, Call::Write | Call::SetLen) {
                plan.failed = true;
                return Err(plan.errno.into());
            }
        }
        Ok(state)
    }
}

/// One file of the disk.
#[derive(Debug)]
pub(crate) struct OnDisk(pub(crate) Disk, pub(crate) File);

impl OnDisk {
    fn change(&self, call: Call, event: Event) -> io::Result<()> {
        let mut state = self.0.on(call)?;
        apply(&mut state.bytes, &event);
        state.record.push(event);
        Ok(())
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().bytes.of(self.1).len().try_into().unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.on(Call::Read)?;
        let start = usize::try_from(offset).unwrap();
        let bytes = state.bytes.of(self.1).get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Call::SetLen, Event::SetLen(self.1, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Call::Sync, Event::Sync(self.1))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Call::Write, Event::Write(self.1, offset, data.to_vec()))
    }
}

/// Lets an event reach the bytes.
fn apply(bytes: &mut Bytes, event: &Event) {
    match event {
        Event::Write(file, offset, data) => {
            let bytes = bytes.of(*file);
            let start = usize::try_from(*offset).unwrap();
            let end = start + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Event::SetLen(file, len) => bytes.of(*file).resize(usize::try_from(*len).unwrap(), 0),
        Event::Sync(_) | Event::Acknowledged(_) => {}
    }
}

/// What a power cut does to writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All are gone.
    All,
    /// About half are there, in any order, and half of those are torn.
    Torn,
    /// All are there: the process was killed, the power stayed.
    None,
}

const SECTOR_BYTES: usize = 512;

/// Follows a record and gives the disk as it would be if power went now.
pub(crate) struct PowerCut {
    durable: Bytes,
    pending: Vec<Event>,
    pub(crate) acknowledged: usize,
}

impl PowerCut {
    pub(crate) fn new(durable: Bytes) -> Self {
        Self {
            durable,
            pending: Vec::new(),
            acknowledged: 0,
        }
    }

    pub(crate) fn follow(&mut self, event: &Event) {
        match event {
            Event::Write(..) | Event::SetLen(..) => self.pending.push(event.clone()),
            Event::Acknowledged(count) => self.acknowledged = *count,
            Event::Sync(file) => {
                let of = |event: &mut Event| matches!(event, Event::Write(of, ..) | Event::SetLen(of, _) if of == file);
                for event in self.pending.extract_if(.., of) {
                    apply(&mut self.durable, &event);
                }
            }
        }
    }

    pub(crate) fn image(&self, loss: Loss, dice: &mut Dice) -> Disk {
        let mut bytes = self.durable.clone();
        for event in &self.pending {
            match (loss, event) {
                (Loss::None, _) => apply(&mut bytes, event),
                (Loss::Torn, Event::Write(file, offset, data)) if dice.below(2) == 0 => {
                    let torn = dice.below(2) == 0;
                    for (n, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if !torn || dice.below(2) == 0 {
                            let offset = offset + u64::try_from(n * SECTOR_BYTES).unwrap();
                            apply(&mut bytes, &Event::Write(*file, offset, sector.to_vec()));
                        }
                    }
                }
                (Loss::Torn, Event::SetLen(..)) if dice.below(2) == 0 => apply(&mut bytes, event),
                (Loss::All | Loss::Torn, _) => {}
            }
        }
        Disk::with(bytes)
    }
}

/// A few bits that look random and are the same each time (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
