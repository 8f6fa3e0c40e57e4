//! The floor: the work that no vault of this kind can leave out, straight through, with no state.
//!
//! It is a process of its own, as the daemon is: this program, started with `floor`.
//!
//! One unary call and one push on an open stream over reused mTLS connections; behind them one P-256
//! verification, two age decryptions, combining, one age encryption, two signatures of checkpoints, two
//! durable appends. No machine, no charter, no queue, no rows; whoever is connected may call.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keyturn::connect::{Route, connect};
use keyturn_audit::note::LogKey;
use keyturn_hsm::{ApprovalKey, device::DeviceKey};
use keyturn_proto::v1::{
    self,
    ceremony_client::CeremonyClient,
    ceremony_server::{Ceremony, CeremonyServer},
    watch_reply::What,
};
use keyturn_seal::{
    Binding, Holder, HolderToken, Release, Released, Roster, Sealed, Secret, SecretBytes,
    ShareIdentity, ShareKey, Sharing, Submission, SubmittedShare, ValidShare, open, seal,
};
use keyturn_tests::Outcome;
use keyturn_vault::digest::Digest;
use keyturnd::{
    accept::{Porter, accept},
    clock::Clock,
    config::Limits,
    gate::Gate,
    metrics::Metrics,
    peers::Peers,
    tls,
};
use redb::{Database, TableDefinition};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

use crate::{figures::instant, place::LANES};

const ORIGIN: &str = "bench.example.org/floor";
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// A head is about this long; entries are as long as the daemon's own.
const HEAD: [u8; 400] = [7; 400];

/// How an append becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// A commit of head and entry with redb, as the vault's own store makes them.
    Redb,
    /// Bytes at the end of a file and `fdatasync`.
    Plain,
}

enum Store {
    Redb(Database),
    Plain(File),
}

impl Store {
    fn new(disk: Disk, dir: &Path) -> Outcome<Self> {
        Ok(match disk {
            Disk::Redb => Self::Redb(Database::create(dir.join("floor.redb"))?),
            Disk::Plain => {
                let path = dir.join("floor.log");
                Self::Plain(File::options().create(true).append(true).open(path)?)
            }
        })
    }

    fn append(&self, n: u64, entry: &[u8]) -> Outcome<()> {
        match self {
            Self::Redb(database) => {
                let txn = database.begin_write()?;
                let mut rows = txn.open_table(ROWS)?;
                rows.insert(b"head".as_slice(), HEAD.as_slice())?;
                rows.insert(n.to_be_bytes().as_slice(), entry)?;
                drop(rows);
                txn.commit()?;
            }
            Self::Plain(file) => {
                let mut file: &File = file;
                file.write_all(&[entry, &HEAD].concat())?;
                file.sync_data()?;
            }
        }
        Ok(())
    }
}

/// What the handler works with.
struct Work {
    store: Store,
    log: LogKey,
    custodian: ApprovalKey,
    desk: ShareIdentity,
    sharing: Sharing,
    first: ValidShare,
    ciphertext: Vec<u8>,
    deliver_to: ShareKey,
    approval: [u8; 32],
    person: String,
    entries: [Vec<u8>; 2],
    next: AtomicU64,
    streams: Mutex<HashMap<String, mpsc::Sender<Result<v1::WatchReply, Status>>>>,
}

impl Work {
    /// Everything between the call and the push.
    fn release(&self, call: &v1::ApproveRequest) -> Outcome<v1::Release> {
        let approval = call.approval.as_ref().ok_or("no approval")?;
        self.custodian
            .verify(approval.text.as_bytes(), &approval.signature)?;
        let file = call.submissions.first().ok_or("no submission")?;
        let opened = Submission::open(file, &self.desk, &self.approval, "floor", &self.person)?;
        let share = opened.shares.into_iter().next().ok_or("no share")?;
        let second = self.sharing.verify(share.x, share.share)?;
        let authorized = self.append(&self.entries[0])?;
        let combined = self.sharing.combine(&[&self.first, &second])?;
        let secret = open(&self.ciphertext, &combined.identity, self.sharing.binding())?;
        let release = Release {
            origin: ORIGIN.to_owned(),
            ceremony: "floor".to_owned(),
            secrets: vec![Released {
                credential: self.sharing.binding().credential().to_owned(),
                version: 1,
                secret,
            }],
        };
        let ciphertext = release.encrypt(&self.deliver_to)?;
        let released = self.append(&self.entries[1])?;
        Ok(v1::Release {
            ceremony: call.ceremony.clone(),
            ciphertext,
            authorized: Some(authorized),
            released: Some(released),
            ..v1::Release::default()
        })
    }

    /// A durable append, and the checkpoint that says so.
    fn append(&self, entry: &[u8]) -> Outcome<v1::Receipt> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.store.append(n, entry)?;
        let checkpoint = self.log.sign(n + 1, [7; 32])?;
        Ok(v1::Receipt {
            n,
            entry: entry.to_vec(),
            tlog_proof: checkpoint.note().to_string(),
        })
    }
}

/// Serves the floor. `Aside` is how the work is kept from blocking the tasks of others.
struct Service {
    work: Arc<Work>,
    aside: bool,
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: impl ToString) -> Status {
    Status::internal(error.to_string())
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the floor only approves and watches"))
}

#[tonic::async_trait]
impl Ceremony for Service {
    type WatchStream = ReceiverStream<Result<v1::WatchReply, Status>>;

    async fn approve(
        &self,
        request: Request<v1::ApproveRequest>,
    ) -> Result<Response<v1::ApproveReply>, Status> {
        let call = request.into_inner();
        let id = call.ceremony.clone();
        let work = Arc::clone(&self.work);
        let release = move || work.release(&call).map_err(failed);
        let release = if self.aside {
            tokio::task::spawn_blocking(release)
                .await
                .map_err(failed)??
        } else {
            release()?
        };
        let stream = self
            .work
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        let push = v1::WatchReply {
            what: Some(What::Release(release)),
        };
        stream
            .ok_or_else(|| failed("nobody watches"))?
            .send(Ok(push))
            .await
            .map_err(failed)?;
        Ok(Response::new(v1::ApproveReply {
            ceremony: Some(v1::CeremonyView {
                id,
                ..v1::CeremonyView::default()
            }),
        }))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let mut streams = self
            .work
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        streams.insert(request.into_inner().id, sender);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn open(&self, _: Request<v1::OpenRequest>) -> Result<Response<v1::OpenReply>, Status> {
        absent()
    }
    async fn show(&self, _: Request<v1::ShowRequest>) -> Result<Response<v1::ShowReply>, Status> {
        absent()
    }
    async fn submit(
        &self,
        _: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        absent()
    }
    async fn withdraw(
        &self,
        _: Request<v1::WithdrawRequest>,
    ) -> Result<Response<v1::WithdrawReply>, Status> {
        absent()
    }
    async fn list(
        &self,
        _: Request<v1::ListCeremoniesRequest>,
    ) -> Result<Response<v1::ListCeremoniesReply>, Status> {
        absent()
    }
    async fn fetch(
        &self,
        _: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchReply>, Status> {
        absent()
    }
    async fn checkin(
        &self,
        _: Request<v1::CheckinRequest>,
    ) -> Result<Response<v1::CheckinReply>, Status> {
        absent()
    }
    async fn review(
        &self,
        _: Request<v1::ReviewRequest>,
    ) -> Result<Response<v1::ReviewReply>, Status> {
        absent()
    }
}

/// The floor with its connections. It ends with this.
pub(crate) struct Floor {
    process: Child,
    lanes: Vec<(CeremonyClient<Channel>, CeremonyClient<Channel>)>,
    call: v1::ApproveRequest,
    next: u64,
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Its standard input ends, and so does it.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// What the process says when it listens: its address, the pin of its key, and the parts of the call.
type Hello = (String, Digest, String, Vec<u8>, Vec<u8>);

/// Serves the floor in this process until its standard input ends.
///
/// `arguments`: how it writes, whether the work is kept from blocking the tasks of others, a directory, and how
/// long its two entries are.
pub(crate) fn serve(arguments: &[String]) -> Outcome<()> {
    let [disk, aside, dir, first, second] = arguments else {
        return Err("this is for the benchmark itself".into());
    };
    let disk = if disk == "redb" {
        Disk::Redb
    } else {
        Disk::Plain
    };
    let entries = [first.parse()?, second.parse()?].map(|length| vec![b'x'; length]);
    let node = DeviceKey::generate("node")?;
    let (work, call) = work(disk, Path::new(dir), entries)?;
    let service = Service {
        work: Arc::new(work),
        aside: aside == "true",
    };
    let approval = call.approval.ok_or("no approval")?;
    let submission = call.submissions.into_iter().next().ok_or("no submission")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let hello: Hello = (
        listener.local_addr()?.to_string(),
        Digest(node.pin()),
        approval.text,
        approval.signature,
        submission,
    );
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(&node, Peers::nobody(), true)?));
    runtime.spawn(async move {
        let porter = Porter {
            tls: acceptor,
            gate: Gate::new(Limits::default()),
            peers: Peers::nobody(),
            clock: Clock::system(),
            metrics: Metrics::new(),
            limits: Arc::new(Limits::default()),
        };
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        let incoming = accept(vec![listener], &porter);
        let server = Server::builder().add_service(CeremonyServer::new(service));
        // It ends with the process.
        let _ = server.serve_with_incoming(incoming).await;
    });
    println!("{}", serde_json::to_string(&hello)?);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    runtime.shutdown_background();
    Ok(())
}

impl Floor {
    /// Starts it. Its entries are as long as those of `like`.
    pub(crate) async fn new(
        disk: Disk,
        aside: bool,
        dir: &Path,
        like: &v1::Release,
    ) -> Outcome<Self> {
        let long = |receipt: &Option<v1::Receipt>| {
            let length = receipt.as_ref().map_or(1000, |receipt| receipt.entry.len());
            length.to_string()
        };
        let mut process = Command::new(std::env::current_exe()?)
            .args([
                "floor",
                if disk == Disk::Redb { "redb" } else { "plain" },
                &aside.to_string(),
            ])
            .arg(dir)
            .args([long(&like.authorized), long(&like.released)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut hello = String::new();
        let said = process.stdout.take().ok_or("no standard output")?;
        BufReader::new(said).read_line(&mut hello)?;
        let (address, pin, text, signature, submission): Hello = serde_json::from_str(&hello)?;
        let device = DeviceKey::generate("device")?;
        let route = Route {
            addresses: vec![address.parse()?],
            pins: vec![pin],
        };
        let mut lanes = Vec::new();
        for _ in 0..LANES {
            let requester = CeremonyClient::new(connect(&route, &device).await?.channel());
            let second = CeremonyClient::new(connect(&route, &device).await?.channel());
            lanes.push((requester, second));
        }
        Ok(Self {
            process,
            lanes,
            call: v1::ApproveRequest {
                approval: Some(v1::SignedText {
                    text,
                    signature,
                    signer: None,
                }),
                submissions: vec![submission],
                ..v1::ApproveRequest::default()
            },
            next: 0,
        })
    }

    /// Opens `depth` streams in each of `lanes` lanes.
    pub(crate) async fn prepare(&mut self, lanes: usize, depth: usize) -> Outcome<Vec<Vec<Ready>>> {
        let mut all = Vec::new();
        for (requester, second) in self.lanes.iter().take(lanes) {
            let mut lane = Vec::new();
            for _ in 0..depth {
                self.next += 1;
                let id = self.next.to_string();
                let watch = v1::WatchRequest {
                    id: id.clone(),
                    ..v1::WatchRequest::default()
                };
                lane.push(Ready {
                    second: second.clone(),
                    call: v1::ApproveRequest {
                        ceremony: id,
                        ..self.call.clone()
                    },
                    pushed: requester.clone().watch(watch).await?.into_inner(),
                });
            }
            all.push(lane);
        }
        Ok(all)
    }
}

/// One release of the floor, ready to go.
pub(crate) struct Ready {
    second: CeremonyClient<Channel>,
    call: v1::ApproveRequest,
    pushed: Streaming<v1::WatchReply>,
}

/// Sends the approval and waits for the push.
pub(crate) async fn go(ready: Ready) -> Result<Duration, String> {
    let Ready {
        mut second,
        call,
        mut pushed,
    } = ready;
    let begun = instant();
    let push = async {
        let push = pushed.message().await;
        (push, begun.elapsed())
    };
    let (reply, (push, took)) = tokio::join!(second.approve(call), push);
    reply.map_err(|error| error.to_string())?;
    match push.map_err(|error| error.to_string())? {
        Some(_) => Ok(took),
        None => Err("nothing was pushed".to_owned()),
    }
}

/// A sealed secret, a first share, and the call that brings the second one.
fn work(disk: Disk, dir: &Path, entries: [Vec<u8>; 2]) -> Outcome<(Work, v1::ApproveRequest)> {
    let holders = ["bob", "carol", "dan"];
    let keys: Vec<_> = holders
        .iter()
        .map(|_| ShareIdentity::generate())
        .collect::<Result<_, _>>()?;
    let roster = holders.iter().zip(&keys).map(|(name, key)| Holder {
        person: (*name).to_owned(),
        tokens: vec![HolderToken {
            id: format!("{name}-token"),
            key: key.share_key(),
        }],
    });
    let binding = Binding::new(ORIGIN, "floor", 1)?;
    let secret = SecretBytes::from_slice(b"correct horse battery st");
    let roster = Roster::new("ops", 2, roster.collect())?;
    let Sealed {
        ciphertext, groups, ..
    } = seal(&secret, &binding, &[roster])?;
    let group = groups.first().ok_or("no group")?;
    let sharing = group.sharing(&binding)?;
    let shares = group.shares.iter().zip(&keys);
    let mut shares =
        shares.map(|(share, key)| sharing.open_envelope(share.x, &share.envelope, key));
    let first = shares.next().ok_or("no share")??;
    let second = shares.next().ok_or("no share")??;
    drop(shares);
    let custodian = DeviceKey::generate("carol")?;
    let text = "x".repeat(900);
    let approval = Digest::of(text.as_bytes()).0;
    let desk = ShareIdentity::generate()?;
    let submission = Submission {
        approval_sha256: approval,
        ceremony: "floor".to_owned(),
        person: "carol".to_owned(),
        shares: vec![SubmittedShare {
            credential: "floor".to_owned(),
            version: 1,
            group: "ops".to_owned(),
            x: second.x(),
            // Exposed to be submitted.
            share: Secret::from_slice(second.secret().expose()).ok_or("no share")?,
        }],
    };
    let call = v1::ApproveRequest {
        approval: Some(v1::SignedText {
            signature: custodian.sign(text.as_bytes())?,
            text,
            signer: None,
        }),
        submissions: vec![submission.encrypt(&desk.share_key())?],
        ..v1::ApproveRequest::default()
    };
    let work = Work {
        store: Store::new(disk, dir)?,
        log: LogKey::generate(ORIGIN)?,
        custodian: custodian.public().clone(),
        desk,
        sharing,
        first,
        ciphertext,
        deliver_to: ShareIdentity::generate()?.share_key(),
        approval,
        person: "carol".to_owned(),
        entries,
        next: AtomicU64::new(0),
        streams: Mutex::default(),
    };
    Ok((work, call))
}
