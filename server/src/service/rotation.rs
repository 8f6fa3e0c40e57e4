//! `keyturn.v1.Rotation`.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use keyturn_proto::v1::{self, rotation_server::Rotation};
use keyturn_vault::{
    charter::Role,
    event::Evidence,
    id::CredentialId,
    name::{CredentialPath, KeyId},
    reference::Version,
    refusal::Refusal,
    rotation::Event,
    time::Span,
};
use tonic::{Request, Response, Status};

use super::{Context, MAX_PAGE, convert, credential_view::matches, page};
use crate::{
    owner::{Core, Needs, slot::Asked},
    refusal::Refused,
};

/// Most credentials that one call makes due.
const MAX_NAMED: usize = 100;

/// The longest reason, in bytes.
const MAX_REASON: usize = 500;

/// The service.
#[derive(Clone)]
pub struct Service(pub Context);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Every credential whose path matches.
    async fn matching(&self, pattern: &str) -> Result<Vec<CredentialId>, Refused> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let paths = self.0.paths(&after, MAX_PAGE).await?;
            let full = paths.len() >= MAX_PAGE;
            for (path, id) in paths {
                if pattern.is_empty() || matches(pattern, &path) {
                    found.push(id);
                }
                after = path;
            }
            if !full {
                return Ok(found);
            }
        }
    }

    /// One page of the credentials whose path matches, and where the next one begins.
    async fn page_of(
        &self,
        pattern: &str,
        asked: Option<v1::PageRequest>,
    ) -> Result<(Vec<CredentialId>, String), Refused> {
        let (mut after, size) = page(asked);
        let size = size.min(MAX_NAMED);
        let mut found = Vec::new();
        loop {
            let paths = self.0.paths(&after, MAX_PAGE).await?;
            let full = paths.len() >= MAX_PAGE;
            for (path, id) in paths {
                if matches(pattern, &path) {
                    found.push(id);
                }
                after = path;
                if found.len() >= size {
                    return Ok((found, after));
                }
            }
            if !full {
                return Ok((found, String::new()));
            }
        }
    }

    /// The credentials that a call names by ids or paths.
    async fn named(&self, names: &[String]) -> Result<Vec<CredentialId>, Refused> {
        let (mut ids, mut paths) = (Vec::new(), Vec::new());
        for name in names {
            match name.parse::<CredentialId>() {
                Ok(id) => ids.push(id),
                Err(_) => paths.push(convert::parse::<CredentialPath>(name, "credentials")?),
            }
        }
        let needs = Needs {
            credentials: ids.clone(),
            paths: paths.clone(),
            ..Needs::default()
        };
        let look = move |core: &Core| {
            for path in &paths {
                let none = Refused::NotFound("no credential has this path");
                ids.push(core.at_path(path).ok_or(none)?);
            }
            ids.iter()
                .try_for_each(|id| core.credential(*id).map(drop))?;
            Ok(ids)
        };
        self.0.owner.look(needs, look).await
    }

    async fn step(
        &self,
        id: CredentialId,
        by: keyturn_vault::reference::PersonRef,
        event: Event,
    ) -> Result<v1::RotationView, Refused> {
        let step = move |core: &mut Core, txn: &mut _| {
            core.step_slot(txn, id, event, &by.to_string())?;
            core.rotation_view(id)
        };
        let (view, _) = self.0.owner.ask(Needs::credentials([id]), step).await?;
        Ok(view)
    }
}

#[tonic::async_trait]
impl Rotation for Service {
    async fn list(
        &self,
        request: Request<v1::ListRotationsRequest>,
    ) -> Answer<v1::ListRotationsReply> {
        self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let (after, size) = page(asked.page);
        let skip = if after.is_empty() {
            0
        } else {
            convert::parse::<usize>(&after, "after")?
        };
        let mut views = Vec::new();
        for ids in self.matching(&asked.r#match).await?.chunks(MAX_NAMED) {
            let ids = ids.to_vec();
            let needs = Needs::listed(ids.iter().copied());
            let look = move |core: &Core| {
                let held = ids.iter().filter(|id| core.credential(**id).is_ok());
                let views = held.map(|id| core.rotation_view(*id));
                views.collect::<Result<Vec<_>, _>>()
            };
            views.extend(self.0.owner.look(needs, look).await?);
        }
        let look = |core: &Core| Ok(core.paused_until(core.paused()));
        let paused_until_ms = self.0.owner.look(Needs::nothing(), look).await?;
        let counts = counts(&views);
        if !asked.all {
            views.retain(|view| view.state() != v1::RotationState::Idle);
        }
        let people = [v1::RotationState::NeedsOperator, v1::RotationState::Manual];
        let first = |view: &v1::RotationView| {
            let place = people.iter().position(|state| *state == view.state());
            place.unwrap_or(people.len())
        };
        views.sort_by_key(|view| (first(view), view.due_ms, view.path.clone()));
        let total = views.len();
        let rotations: Vec<_> = views.into_iter().skip(skip).take(size).collect();
        let done = skip.saturating_add(rotations.len());
        Ok(Response::new(v1::ListRotationsReply {
            rotations,
            next_page: if done < total {
                done.to_string()
            } else {
                String::new()
            },
            counts: Some(counts),
            paused: paused_until_ms > 0,
            paused_until_ms,
        }))
    }

    async fn now(&self, request: Request<v1::RotateNowRequest>) -> Answer<v1::RotateNowReply> {
        let caller = self.0.peers.of_role(&request, &[Role::Operator])?;
        let asked = request.into_inner();
        if asked.credentials.is_empty() == asked.r#match.is_empty() {
            let why = "name credentials, or a pattern over paths, and never both";
            return Err(Refused::Malformed(why.to_owned()).into());
        }
        if asked.reason.len() > MAX_REASON {
            let why = format!("a reason has at most {MAX_REASON} bytes");
            return Err(Refused::Malformed(why).into());
        }
        tracing::info!(by = %caller.person, reason = ?asked.reason, "rotations are asked for");
        let by_pattern = asked.credentials.is_empty();
        let (ids, next_page) = if by_pattern {
            self.page_of(&asked.r#match, asked.page).await?
        } else {
            (self.named(&asked.credentials).await?, String::new())
        };
        if !by_pattern && ids.len() > MAX_NAMED {
            let why = format!("{} credentials; at most {MAX_NAMED} at a time", ids.len());
            return Err(Refused::Malformed(why).into());
        }
        let ids: BTreeSet<_> = ids.into_iter().collect();
        let steps = ids.into_iter().map(|id| {
            let by = caller.person.clone();
            let step = move |core: &mut Core, txn: &mut _| core.rotate_now(txn, id, &by);
            self.0.owner.ask(Needs::credentials([id]), step)
        });
        let mut reply = v1::RotateNowReply {
            next_page,
            ..v1::RotateNowReply::default()
        };
        // Asked together, they share commits.
        for outcome in join_all(steps).await {
            let count = match outcome {
                Ok((Asked::Due, _)) => &mut reply.made_due,
                Ok((Asked::Already, _)) => &mut reply.already_due,
                Ok((Asked::Task, _)) => &mut reply.manual,
                Err(Refused::Vault(Refusal::NoConnector)) if by_pattern => &mut reply.manual,
                Err(Refused::Vault(Refusal::JustRotated)) if by_pattern => &mut reply.recent,
                Err(refused) => return Err(refused.into()),
            };
            *count = count.saturating_add(1);
        }
        Ok(Response::new(reply))
    }

    async fn retry(&self, request: Request<v1::RetryRequest>) -> Answer<v1::RetryReply> {
        let caller = self.0.peers.of_role(&request, &[Role::Operator])?;
        let id = convert::parse(&request.into_inner().credential, "credential")?;
        let event = Event::Retry(caller.person.id);
        let rotation = self.step(id, caller.person, event).await?;
        Ok(Response::new(v1::RetryReply {
            rotation: Some(rotation),
        }))
    }

    async fn complete(&self, request: Request<v1::CompleteRequest>) -> Answer<v1::CompleteReply> {
        let caller = self.0.peers.of_role(&request, &[Role::Operator])?;
        let asked = request.into_inner();
        let id = convert::parse(&asked.credential, "credential")?;
        let version = Version::new(asked.version).ok_or(Refused::Vault(Refusal::NotPromotable))?;
        let task = move |core: &Core| {
            let held = core.credential(id)?;
            Ok((Arc::clone(&held.holding.definition), held.row.owed))
        };
        let (definition, owed) = self.0.owner.look(Needs::credentials([id]), task).await?;
        let evidence = match owed {
            Some(since) => self.0.workshop.changed(&definition, since.wall).await,
            None => Ok(Evidence::NotObservable),
        };
        let evidence = evidence.map_err(Refused::NotChanged)?;
        let event = Event::Complete(version, caller.person.id, evidence);
        let rotation = self.step(id, caller.person, event).await?;
        Ok(Response::new(v1::CompleteReply {
            rotation: Some(rotation),
        }))
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Answer<v1::PauseReply> {
        let caller = self.0.peers.of_role(&request, &[Role::Operator])?;
        let asked = request.into_inner();
        if asked.credentials.len() > MAX_NAMED {
            let why = format!("at most {MAX_NAMED} credentials at a time");
            return Err(Refused::Malformed(why).into());
        }
        let span = Span::from_secs(asked.for_secs.into());
        let whom: Vec<_> = if asked.credentials.is_empty() {
            vec![None]
        } else {
            let ids: BTreeSet<_> = self.named(&asked.credentials).await?.into_iter().collect();
            ids.into_iter().map(Some).collect()
        };
        let mut until_ms = 0;
        for id in whom {
            let by = caller.person.clone();
            let step = move |core: &mut Core, txn: &mut _| core.pause_rotations(txn, id, span, &by);
            (until_ms, _) = self.0.owner.ask(Needs::credentials(id), step).await?;
        }
        Ok(Response::new(v1::PauseReply {
            paused: until_ms > 0,
            until_ms,
        }))
    }

    async fn claim(&self, request: Request<v1::ClaimRequest>) -> Answer<v1::ClaimReply> {
        let caller = self.0.peers.of_role(&request, &[Role::Operator])?;
        let asked = request.into_inner();
        let id = convert::parse(&asked.credential, "credential")?;
        let key = convert::parse::<KeyId>(&asked.key, "key")?;
        let version = Version::new(asked.version);
        // A forgotten version must not read as "delete it".
        if version.is_some() == asked.lost {
            return Err(Refused::Vault(Refusal::NotClaimable).into());
        }
        let event = Event::Claim(version, key, caller.person.id);
        let rotation = self.step(id, caller.person, event).await?;
        Ok(Response::new(v1::ClaimReply {
            rotation: Some(rotation),
        }))
    }
}

/// How many there are of each.
pub(super) fn counts(views: &[v1::RotationView]) -> v1::RotationCounts {
    let mut counts = v1::RotationCounts::default();
    for view in views {
        let count = match view.state() {
            v1::RotationState::Due => &mut counts.due,
            v1::RotationState::Applying | v1::RotationState::Promoted => &mut counts.running,
            v1::RotationState::BackingOff => &mut counts.backing_off,
            v1::RotationState::NeedsOperator => &mut counts.needs_operator,
            v1::RotationState::Manual => &mut counts.manual,
            v1::RotationState::Idle | v1::RotationState::Unspecified => continue,
        };
        *count = count.saturating_add(1);
    }
    counts
}
