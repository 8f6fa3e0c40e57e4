//! The whole log from the vault into a folder, with its documents and the free texts that are still kept.
//!
//! # Invariants
//! 1. The checkpoint comes after all that it covers.
//! 2. A free text that was erased goes from the folder too.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use keyturn_audit::{
    publish::Dir,
    tile::{CHECKPOINT, Content, TilePath, WIDTH},
    verify::{Anchors, entries},
};
use keyturn_proto::v1;
use keyturn_vault::{
    digest::Digest,
    event::Event,
    id::CeremonyId,
    text::{Approval, Decision, Request, Review},
};
use tonic::Code;

use crate::{
    causes::told,
    home::Home,
    refusal::Refusal,
    session::Session,
    verify::{VerifyError, checks::details_name, wire},
};

/// Fetches the log: a checkpoint first, then only what it covers, and the checkpoint is written last.
pub(super) async fn fetch(session: &Session, folder: &Home) -> Result<u64, Refusal> {
    let head = session
        .head
        .as_ref()
        .ok_or(VerifyError::Missing("a checkpoint"))?;
    let size = head.size();
    let mut after = String::new();
    loop {
        let reply = session
            .log()
            .objects(v1::ObjectsRequest {
                page: wire::next_page(after),
            })
            .await?
            .into_inner();
        for digest in &reply.sha256 {
            let digest = wire::digest(digest, "the digest of a document")?;
            let name = format!("objects/{digest}");
            if folder.read(&name)?.is_none() {
                folder.write(&name, &session.object(digest).await?)?;
            }
        }
        after = reply.next_page;
        if after.is_empty() {
            break;
        }
    }
    for level in std::iter::once(Content::Entries)
        .chain((0..=keyturn_audit::tile::MAX_LEVEL).map(Content::Hashes))
    {
        for index in 0.. {
            let Some(path) = TilePath::new(level, index, size) else {
                break;
            };
            let known = path.width() == WIDTH && folder.read(&path.to_string())?.is_some();
            if !known {
                folder.write(&path.to_string(), &tile(session, path).await?)?;
            }
        }
    }
    // With the checkpoint, what it covers can be read; details lie beside it.
    folder.write(CHECKPOINT, head.note().to_string().as_bytes())?;
    details(session, folder).await?;
    folder.write(
        "vkey",
        format!("{}\n", session.charter()?.1.log_key).as_bytes(),
    )?;
    Ok(size)
}

/// Reads one tile, in pieces where it is longer than a message.
async fn tile(session: &Session, path: TilePath) -> Result<Vec<u8>, Refusal> {
    let level = match path.content() {
        Content::Entries => None,
        Content::Hashes(level) => Some(u32::from(level)),
    };
    let width = if path.width() == WIDTH {
        0
    } else {
        u32::from(path.width())
    };
    let mut data = Vec::new();
    loop {
        let offset = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let request = v1::TileRequest {
            level,
            index: path.index(),
            width,
            offset,
        };
        let reply = session.log().tile(request).await?.into_inner();
        data.extend_from_slice(&reply.data);
        let have = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if have >= reply.total || reply.data.is_empty() || data.len() > path.limit() {
            return Ok(data);
        }
    }
}

/// The free texts that signed texts of the log name.
async fn details(session: &Session, folder: &Home) -> Result<(), Refusal> {
    let (named, erased) = named(session, folder)?;
    for digest in &erased {
        folder.forget(&details_name(*digest))?;
    }
    for (ceremony, digests) in named {
        let mut missing = BTreeSet::new();
        for digest in digests.difference(&erased) {
            if folder.read(&details_name(*digest))?.is_none() {
                missing.insert(*digest);
            }
        }
        if missing.is_empty() {
            continue;
        }
        let request = v1::ShowRequest {
            id: ceremony.to_string(),
            page: None,
        };
        let shown = match session.ceremonies().show(request).await {
            Ok(shown) => shown.into_inner(),
            Err(status) if status.code() == Code::NotFound => continue,
            Err(status) => return Err(status.into()),
        };
        let said = shown.statements.into_iter().chain(shown.reviews);
        for text in said.map(|said| said.details).chain([shown.details]) {
            let digest = Digest::of(text.as_bytes());
            if missing.contains(&digest) {
                folder.write(&details_name(digest), text.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The digests of free texts by ceremony, and those that were erased.
type Named = (BTreeMap<CeremonyId, BTreeSet<Digest>>, BTreeSet<Digest>);

/// Reads the entries that were fetched.
fn named(session: &Session, folder: &Home) -> Result<Named, Refusal> {
    let (mut named, mut erased) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeSet::new());
    let log = session.vkey()?;
    let anchors = Anchors {
        log: &log,
        saved: &[],
        threads: 1,
    };
    let read = entries(&Dir::new(folder.path("")), &anchors, |entry| {
        let Ok(event) = Event::parse(&entry.kind, &entry.body) else {
            return Ok::<(), Infallible>(());
        };
        if let Event::DetailsErased { details, .. } = &event {
            erased.insert(*details);
        }
        if let (Some(ceremony), Some(digest)) = (event.ceremony(), written(&event)) {
            named.entry(ceremony).or_default().insert(digest);
        }
        Ok(())
    });
    read.map_err(|error| {
        let hint = "the vault sent a log that is not whole; tell its auditors on another way";
        Refusal::new("verification", told(&error), hint)
    })?;
    Ok((named, erased))
}

/// The free text that an event brings.
fn written(event: &Event) -> Option<Digest> {
    if let Event::CeremonyOpened { request, .. } = event {
        Some(request.parse::<Request>().ok()?.details)
    } else if let Event::CeremonyRefused { refusal, .. } = event {
        match refusal.parse::<Approval>().ok()?.decision {
            Decision::Refuse { reason } => Some(reason),
            Decision::Approve(_) | Decision::Retract { .. } => None,
        }
    } else if let Event::CeremonyReviewed { review, .. } = event {
        review.parse::<Review>().ok()?.note
    } else {
        None
    }
}
