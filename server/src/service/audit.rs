//! `keyturn.v1.Audit`.

use std::{pin::Pin, time::Duration};

use keyturn_audit::{
    note::SignedCheckpoint,
    tile::{self, Content, TileNodes, TilePath},
    tree::{self, Hash},
};
use keyturn_proto::v1::{self, audit_server::Audit};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Context, convert, page};
use crate::{
    refusal::Refused,
    store::{KeyRange, Name, key::Family},
};

/// Most entries of one reply.
const MAX_ENTRIES: usize = 1000;
/// Most bytes of a tile in one reply.
const MAX_BYTES: usize = 3 << 20;
/// Most approvals of an opening without the vault.
const MAX_APPROVALS: usize = 64;
/// Checkpoints are pushed at most this often.
const PUSH_EVERY: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub struct Service(pub Context);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    async fn newest(&self) -> Result<SignedCheckpoint, Refused> {
        // A vault in restore mode publishes nothing; nobody waits for that.
        if !self.0.mode.borrow().serves() {
            return Err(Refused::RestoreMode);
        }
        self.0.published.current().await.ok_or(Refused::NotFounded)
    }

    /// The proof that a tree of `from` entries is the beginning of one of `to`; none where they differ.
    async fn consistency(
        &self,
        from: u64,
        to: u64,
        root: Option<Hash>,
    ) -> Result<Vec<Hash>, Refused> {
        let dir = self.0.published.dir().clone();
        let prove = move || {
            let nodes = TileNodes::new(dir, to);
            if let Some(root) = root
                && tree::root(&nodes, from).ok() != Some(root)
            {
                return Err(Refused::Fork);
            }
            tree::consistency(&nodes, from, to).map_err(|_| Refused::Fork)
        };
        tokio::task::spawn_blocking(prove)
            .await
            .map_err(|_| Refused::Stopping)?
    }
}

fn hash(bytes: &[u8]) -> Result<Option<Hash>, Refused> {
    if bytes.is_empty() {
        return Ok(None);
    }
    convert::digest(bytes, "root").map(|digest| Some(digest.0))
}

#[tonic::async_trait]
impl Audit for Service {
    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Answer<v1::CheckpointReply> {
        self.0.peers.of(&request)?;
        let checkpoint = self.newest().await?.note().to_string();
        Ok(Response::new(v1::CheckpointReply {
            checkpoint,
            vkey: self.0.vkey().to_string(),
        }))
    }

    async fn entries(&self, request: Request<v1::EntriesRequest>) -> Answer<v1::EntriesReply> {
        self.0.peers.of(&request)?;
        let v1::EntriesRequest { from, count } = request.into_inner();
        let newest = self.newest().await?;
        let count = if count == 0 { 256 } else { u64::from(count) };
        let to = from.saturating_add(count).min(newest.size());
        let page = self
            .0
            .store
            .range(&KeyRange::entries(from, to.max(from)), MAX_ENTRIES)
            .await
            .map_err(Refused::Store)?;
        let entries = page
            .rows
            .into_iter()
            .filter_map(|row| row.value.split_first().map(|(_, rest)| rest.to_vec()));
        Ok(Response::new(v1::EntriesReply {
            from,
            entries: entries.collect(),
            checkpoint: newest.note().to_string(),
        }))
    }

    async fn tile(&self, request: Request<v1::TileRequest>) -> Answer<v1::TileReply> {
        self.0.peers.of(&request)?;
        let v1::TileRequest {
            level,
            index,
            width,
            offset,
        } = request.into_inner();
        let level = level.map(|level| {
            u8::try_from(level)
                .ok()
                .filter(|level| *level <= tile::MAX_LEVEL)
        });
        let content = match level {
            None => Content::Entries,
            Some(Some(level)) => Content::Hashes(level),
            Some(None) => return Err(Refused::NotFound("the log has no such level").into()),
        };
        let size = self.newest().await?.size();
        let path = TilePath::new(content, index, size)
            .ok_or(Refused::NotFound("the log has no such tile yet"))?;
        let wanted = match width {
            0 => Some(tile::WIDTH),
            width => u16::try_from(width).ok(),
        };
        let wanted = wanted
            .filter(|wanted| *wanted <= path.width())
            .ok_or(Refused::NotFound("the log has no tile of this width yet"))?;
        let dir = self.0.published.dir().clone();
        let (data, found) = tokio::task::spawn_blocking(move || tile::fetch(&dir, path))
            .await
            .map_err(|_| Refused::Stopping)?
            .map_err(|_| Refused::NotFound("the log has no such tile yet"))?;
        // Somebody who has an older checkpoint reads on, however the log grows. A damaged tile is given as it
        // lies there: whoever verifies it finds the damage and says so.
        let data = tile::first(&data, found, wanted).unwrap_or(&data);
        let total = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let data = data
            .get(start..)
            .unwrap_or_default()
            .iter()
            .take(MAX_BYTES)
            .copied()
            .collect();
        Ok(Response::new(v1::TileReply { data, total }))
    }

    async fn proof(&self, request: Request<v1::ProofRequest>) -> Answer<v1::ProofReply> {
        self.0.peers.of(&request)?;
        let receipt = self.0.receipt(None, request.into_inner().n).await?;
        Ok(Response::new(v1::ProofReply {
            receipt: Some(receipt),
        }))
    }

    async fn consistency(
        &self,
        request: Request<v1::ConsistencyRequest>,
    ) -> Answer<v1::ConsistencyReply> {
        self.0.peers.of(&request)?;
        let v1::ConsistencyRequest {
            from_size,
            from_root,
            to_size,
        } = request.into_inner();
        // A caller may hold a receipt that is newer than what is published.
        let newest = self.newest().await?;
        let to = if to_size == 0 { newest.size() } else { to_size };
        if to > newest.size() || from_size > to {
            return Err(Refused::Fork.into());
        }
        let hashes = self.consistency(from_size, to, hash(&from_root)?).await?;
        let checkpoint = if to == newest.size() {
            newest.note().to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ConsistencyReply {
            hashes: hashes.iter().map(|hash| hash.to_vec()).collect(),
            checkpoint,
        }))
    }

    async fn object(&self, request: Request<v1::ObjectRequest>) -> Answer<v1::ObjectReply> {
        self.0.peers.of(&request)?;
        let digest = convert::digest(&request.into_inner().sha256, "sha256")?;
        let object = self
            .0
            .object(digest)
            .await
            .map_err(|_| Refused::NotFound("no such document"))?;
        Ok(Response::new(v1::ObjectReply { object }))
    }

    async fn objects(&self, request: Request<v1::ObjectsRequest>) -> Answer<v1::ObjectsReply> {
        self.0.peers.of(&request)?;
        let (after, size) = page(request.into_inner().page);
        let mut range = KeyRange::family(Family::Object);
        if !after.is_empty() {
            let digest: keyturn_vault::digest::Digest = convert::parse(&after, "after")?;
            range = range.after(&Name::Object(digest).key());
        }
        let page = self
            .0
            .store
            .range(&range, size)
            .await
            .map_err(Refused::Store)?;
        let sha256: Vec<Vec<u8>> = page
            .rows
            .iter()
            .filter_map(|row| match row.key.name() {
                Some(Name::Object(digest)) => Some(digest.0.to_vec()),
                _ => None,
            })
            .collect();
        let next_page = if page.rest.is_some() {
            sha256.last().map(hex::encode).unwrap_or_default()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ObjectsReply { sha256, next_page }))
    }

    async fn import_recover(
        &self,
        request: Request<v1::ImportRecoverRequest>,
    ) -> Answer<v1::ImportRecoverReply> {
        let caller = self.0.peers.of(&request)?;
        let v1::ImportRecoverRequest { recover, approvals } = request.into_inner();
        let charter = self.0.charter();
        let mut texts = vec![crate::verify::text(
            &charter.charter,
            convert::signed_text(recover)?,
        )?];
        if approvals.len() > MAX_APPROVALS {
            let why = format!("at most {MAX_APPROVALS} approvals");
            return Err(Refused::Malformed(why).into());
        }
        for approval in approvals {
            texts.push(crate::verify::text(
                &charter.charter,
                convert::signed_text(Some(approval))?,
            )?);
        }
        let step = move |core: &mut crate::owner::Core, txn: &mut _| {
            core.import_recover(txn, texts, &caller.person)
        };
        let (entry, committed) = self
            .0
            .owner
            .ask(crate::owner::Needs::nothing(), step)
            .await?;
        let imported = self.0.receipt(Some(&committed), entry).await?;
        Ok(Response::new(v1::ImportRecoverReply {
            imported: Some(imported),
        }))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchCheckpointsReply, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchCheckpointsRequest>,
    ) -> Answer<Self::WatchStream> {
        self.0.peers.of(&request)?;
        let mut after = request.into_inner().after_size;
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let service = self.clone();
        tokio::spawn(async move {
            let mut newest = service.0.published.follow();
            let mut stop = service.0.stop.clone();
            loop {
                let now = newest.borrow_and_update().clone();
                if let Some(now) = now.filter(|now| now.size() > after) {
                    let consistency = match after {
                        0 => Ok(Vec::new()),
                        from => service.consistency(from, now.size(), None).await,
                    };
                    let reply =
                        consistency
                            .map_err(Status::from)
                            .map(|hashes| v1::WatchCheckpointsReply {
                                checkpoint: now.note().to_string(),
                                consistency: hashes.iter().map(|hash| hash.to_vec()).collect(),
                            });
                    after = now.size();
                    if sender.send(reply).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(PUSH_EVERY).await;
                }
                tokio::select! {
                    changed = newest.changed() => if changed.is_err() { return },
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
