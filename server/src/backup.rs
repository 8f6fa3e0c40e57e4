//! `keyturnd backup`: everything that a place for copies holds, written once, now, and verified.
//!
//! The daemon has the store open, so it hands out what is to be written, over a socket in its data folder
//! that only its own user can open; the command writes it. No path crosses the socket. Without a daemon the
//! command opens the store itself. A backup in the same folder again brings only what is new.
//!
//! Not in a backup: keys (log key, node key, TLS), which stay outside; the free text of requests, which can be
//! erased and of which the log has the digest; releases that a requester could still fetch; invitations that
//! nobody has answered; notices that wait to be sent. Nothing that was promised is lost with them: what was
//! opened is in the log, and people are invited again.
//!
//! # Invariants
//! 1. An entry is written only after all that it names; the checkpoint comes last.
//! 2. What is said to be a backup was read back and verified whole, as a restore would.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_audit::{
    note::{SignedCheckpoint, Vkey},
    tree::Hash,
};
use keyturn_vault::{
    id::CeremonyId,
    layout::{File, Place},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Mutex, watch},
};

use crate::{
    config::{Config, ConfigError},
    copies::{
        sink::{Directory, Fixed, MAX_FILE_BYTES, Sink, SinkError},
        worker,
    },
    keys::{self, LogKeyError},
    log::Published,
    mode::Mode,
    restore::{self, RestoreError},
    store::{RedbStore, Store},
    telemetry::whole,
};

/// The socket in the data folder.
const SOCKET: &str = "backup.sock";
/// A command that takes nothing for so long has gone.
const PATIENCE: Duration = Duration::from_mins(1);
/// When nobody can come in, it is tried again after this time.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// The longest line on the socket, in bytes: a file in base64, with what is around it.
const MAX_LINE: usize = MAX_FILE_BYTES / 3 * 4 + 4096;
/// Files that belong together at most: a version's.
const MAX_TOGETHER: usize = 1024;
/// Entries that are appended together.
const PIECE: usize = 256;

/// Why there is no backup.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The configuration.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The log key, which tells the log's verifier key.
    #[error("the log's key (`keys.log`) cannot be used")]
    LogKey(#[from] LogKeyError),
    /// A file.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder.
    #[error("the backup cannot be written")]
    Sink(#[from] SinkError),
    /// The store, where no daemon runs.
    #[error("no daemon answers, and the store cannot be opened")]
    Store(#[from] crate::store::OpenError),
    /// The daemon says no, or is gone.
    #[error("the daemon did not hand out a backup: {0}")]
    Daemon(String),
    /// What was written does not verify.
    #[error("the backup was written and does not verify")]
    Verify(#[source] RestoreError),
}

impl BackupError {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Config(error) => error.hint(),
            Self::LogKey(_) => "run it as the daemon's user, with the daemon's --config",
            Self::File { .. } | Self::Sink(_) => {
                "check the folder, whose it is, and the room on its disk; then run it again"
            }
            Self::Store(_) => "run it as the daemon's user; `keyturnd check-config` says more",
            Self::Daemon(_) => "see `keyturn status` and the daemon's log, then run it again",
            Self::Verify(_) => "begin in an empty folder; its medium may be failing",
        }
    }
}

/// What was written.
#[derive(Debug)]
pub struct Made {
    to: PathBuf,
    checked: restore::Checked,
}

impl Made {
    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "to": self.to.display().to_string(),
            "head": { "size": self.checked.head.size, "root": self.checked.head.root },
            "versions": self.checked.versions,
        })
    }

    /// For people.
    pub fn line(&self) -> String {
        format!(
            "{}: {} entries and {} sealed versions, verified; the keys of the daemon are not in it",
            self.to.display(),
            self.checked.head.size,
            self.checked.versions
        )
    }
}

/// One line on the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Frame {
    /// What the command has already: entries of the log.
    Have(u64),
    /// A file; those that belong together end with one that is the last.
    Put {
        place: String,
        bytes: String,
        last: bool,
    },
    /// A version that was destroyed.
    Remove(Fixed),
    /// The next entry of the log.
    Entry(String),
    /// The checkpoint over all entries so far: the end.
    Checkpoint(String),
    /// There is no backup.
    Failed(String),
}

/// Writes a backup into a folder, which is made if it is not there.
pub fn backup(config: &Path, to: &Path) -> Result<Made, BackupError> {
    let config = Config::load(config)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::File { path, source }
    };
    let pins: &Path = config.keys.genesis.as_ref();
    let pins = keys::read_pins(pins).map_err(failed(pins))?;
    let key = keys::read_log_key(
        config.keys.log.as_ref(),
        &origin(&config, pins.genesis.digest)?,
    )?;
    match fs::create_dir(to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed(to)(error));
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed(to))?;
    runtime.block_on(write(&config, to, key.vkey()))?;
    let checked = restore::check(to, pins.genesis.digest).map_err(BackupError::Verify)?;
    Ok(Made {
        to: to.to_owned(),
        checked,
    })
}

/// The vault's name, from its first charter.
fn origin(config: &Config, genesis: keyturn_vault::digest::Digest) -> Result<String, BackupError> {
    use keyturn_vault::jcs::Document as _;
    let data: &Path = config.data.as_ref();
    let path = data.join("log/objects").join(genesis.to_string());
    let read = fs::read(&path).map_err(|source| BackupError::File {
        path: path.clone(),
        source,
    })?;
    let charter = keyturn_vault::charter::Charter::from_bytes(&read);
    Ok(charter
        .map_err(|error| BackupError::Daemon(whole(&error)))?
        .origin
        .to_string())
}

async fn write(config: &Config, to: &Path, vkey: &Vkey) -> Result<(), BackupError> {
    let sink = Directory::new("backup", to, vkey.clone());
    let data: &Path = config.data.as_ref();
    if let Ok(stream) = UnixStream::connect(data.join(SOCKET)).await {
        return receive(stream, &sink, vkey).await;
    }
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&data.join("store.redb"))?);
    let path = data.join("log/checkpoint");
    let note = fs::read_to_string(&path).map_err(|source| BackupError::File { path, source })?;
    let newest =
        SignedCheckpoint::open(&note, vkey).map_err(|error| BackupError::Daemon(whole(&error)))?;
    worker::fill(Box::new(sink), &store, &newest)
        .await
        .map_err(BackupError::Daemon)
}

/// Writes what the daemon hands out.
async fn receive(stream: UnixStream, sink: &Directory, vkey: &Vkey) -> Result<(), BackupError> {
    let gone = |error: io::Error| BackupError::Daemon(error.to_string());
    let odd = || BackupError::Daemon("it sent something else".to_owned());
    let (read, mut write) = stream.into_split();
    let have = sink.log_size().await?;
    send(&mut write, &Frame::Have(have)).await.map_err(gone)?;
    let mut lines = BufReader::new(read);
    let (mut files, mut entries) = (Vec::new(), Vec::new());
    loop {
        match next(&mut lines).await.map_err(gone)? {
            Frame::Put { place, bytes, last } => {
                let place = Place::parse(&place).ok_or_else(odd)?;
                let bytes = BASE64_STANDARD.decode(bytes).map_err(|_| odd())?;
                files.push(File { place, bytes });
                if last {
                    sink.put(std::mem::take(&mut files)).await?;
                } else if files.len() >= MAX_TOGETHER {
                    return Err(odd());
                }
            }
            Frame::Remove(version) => sink.remove(version).await?,
            Frame::Entry(entry) => {
                entries.push(BASE64_STANDARD.decode(entry).map_err(|_| odd())?);
                if entries.len() >= PIECE {
                    sink.append(std::mem::take(&mut entries), None).await?;
                }
            }
            Frame::Checkpoint(note) if note.is_empty() => return Ok(()),
            Frame::Checkpoint(note) => {
                let checkpoint = SignedCheckpoint::open(&note, vkey).map_err(|_| odd())?;
                return Ok(sink.append(entries, Some(checkpoint)).await?);
            }
            Frame::Failed(why) => return Err(BackupError::Daemon(why)),
            Frame::Have(_) => return Err(odd()),
        }
    }
}

async fn send(to: &mut OwnedWriteHalf, frame: &Frame) -> io::Result<()> {
    let mut line = serde_json::to_vec(frame)?;
    line.push(b'\n');
    let sent = tokio::time::timeout(PATIENCE, to.write_all(&line)).await;
    sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn next(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Frame> {
    let mut line = Vec::new();
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let read = from.take(most).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Hands out backups until the daemon stops.
pub(crate) async fn serve(
    data: PathBuf,
    store: Arc<dyn Store>,
    published: Published,
    mode: watch::Receiver<Mode>,
    mut stop: watch::Receiver<bool>,
) {
    let path = data.join(SOCKET);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "`keyturnd backup` will need a stopped daemon");
            return;
        }
    };
    loop {
        let come = tokio::select! {
            come = listener.accept() => come,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match come {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, most likely: whoever asks waits, and the processor is not kept busy.
                tracing::warn!(%error, "nobody can be handed a backup for a moment");
                tokio::time::sleep(REFUSED_FOR).await;
                continue;
            }
        };
        let serves = mode.borrow().serves();
        let newest = published.newest().filter(|_| serves);
        tokio::select! {
            handed = hand_out(stream, &store, newest) => {
                if let Err(error) = handed {
                    tracing::warn!(%error, "a backup was not handed out to its end");
                }
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    // Nobody answers there any more.
    let _ = fs::remove_file(&path);
}

/// The socket is there for nobody but the user of the daemon.
fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn hand_out(
    stream: UnixStream,
    store: &Arc<dyn Store>,
    newest: Option<SignedCheckpoint>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let asked = tokio::time::timeout(PATIENCE, next(&mut BufReader::new(read))).await;
    let Frame::Have(size) = asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let Some(newest) = newest else {
        let why = "nothing is published: the vault is not founded, or waits for `accept-restore`";
        return send(&mut write, &Frame::Failed(why.to_owned())).await;
    };
    if size == newest.size() {
        return send(&mut write, &Frame::Checkpoint(String::new())).await;
    }
    let write = Arc::new(Mutex::new(write));
    let wire = Wire {
        size,
        write: Arc::clone(&write),
    };
    if let Err(why) = worker::fill(Box::new(wire), store, &newest).await {
        send(&mut *write.lock().await, &Frame::Failed(why)).await?;
    }
    Ok(())
}

/// The command at the other end, as a place for copies.
struct Wire {
    size: u64,
    write: Arc<Mutex<OwnedWriteHalf>>,
}

impl Wire {
    async fn send(&self, frame: Frame) -> Result<(), SinkError> {
        let sent = send(&mut *self.write.lock().await, &frame).await;
        sent.map_err(|source| SinkError::Io {
            task: "send",
            path: PathBuf::from(SOCKET),
            source,
        })
    }
}

#[async_trait]
impl Sink for Wire {
    fn name(&self) -> &'static str {
        "backup"
    }

    async fn put(&self, files: Vec<File>) -> Result<(), SinkError> {
        let mut left = files.len();
        for file in files {
            left = left.saturating_sub(1);
            let (place, bytes) = (file.place.to_string(), BASE64_STANDARD.encode(file.bytes));
            let last = left == 0;
            self.send(Frame::Put { place, bytes, last }).await?;
        }
        Ok(())
    }

    async fn remove(&self, version: Fixed) -> Result<(), SinkError> {
        self.send(Frame::Remove(version)).await
    }

    async fn aside(&self) -> Result<usize, SinkError> {
        Ok(0)
    }

    async fn log_size(&self) -> Result<u64, SinkError> {
        Ok(self.size)
    }

    async fn leaf(&self, _: u64) -> Result<Option<Hash>, SinkError> {
        Ok(None)
    }

    async fn begin_anew(&self, _: CeremonyId) -> Result<(), SinkError> {
        Err(SinkError::Stopping)
    }

    async fn append(
        &self,
        entries: Vec<Vec<u8>>,
        checkpoint: Option<SignedCheckpoint>,
    ) -> Result<(), SinkError> {
        for entry in entries {
            self.send(Frame::Entry(BASE64_STANDARD.encode(entry)))
                .await?;
        }
        match checkpoint {
            Some(checkpoint) => {
                let note = checkpoint.note().to_string();
                self.send(Frame::Checkpoint(note)).await
            }
            None => Ok(()),
        }
    }
}
