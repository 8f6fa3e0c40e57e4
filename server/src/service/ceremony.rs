//! `keyturn.v1.Ceremony`.

use std::pin::Pin;

use keyturn_proto::v1::{self, ceremony_server::Ceremony};
use keyturn_vault::{
    ceremony::Event,
    digest::Digest,
    id::{CeremonyId, PersonId},
    refusal::Refusal,
    text::{
        Approval, Checkin, Decision, Details, Purpose, Request as RequestText, Review, Text as _,
    },
    world::VersionId,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Context, convert, page, view, watcher::Watcher};
use crate::{
    owner::{
        Needs,
        ceremony::Spoken,
        core::{Core, Live},
    },
    refusal::Refused,
    release, verify,
};

/// Largest details text, in bytes.
const MAX_DETAILS: usize = 16 * 1024;
/// Most submissions of one call.
const MAX_SUBMISSIONS: usize = 32;

/// The service.
#[derive(Clone)]
pub struct Service(pub Context);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// The submit key of a ceremony; none once it is over.
    async fn submit_key(&self, id: CeremonyId) -> Result<Option<v1::SignedText>, Refused> {
        match self.0.desk(id).await {
            Ok(desk) => Ok(Some(convert::wire_text(&desk.submit_key))),
            Err(Refused::Vault(Refusal::Decided)) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    pub(super) async fn view(&self, id: CeremonyId) -> Result<v1::CeremonyView, Refused> {
        self.0
            .owner
            .look(Needs::ceremony(id), move |core| core.view(id))
            .await
    }

    /// Opens submissions at the ceremony's desk.
    async fn shares(
        &self,
        id: CeremonyId,
        approval: Digest,
        person: PersonId,
        submissions: &[Vec<u8>],
    ) -> Result<Vec<keyturn_vault::ceremony::ValidShare<crate::desk::Share>>, Refused> {
        if submissions.len() > MAX_SUBMISSIONS {
            return Err(Refused::Malformed(format!(
                "at most {MAX_SUBMISSIONS} submissions"
            )));
        }
        if submissions.is_empty() {
            return Ok(Vec::new());
        }
        let desk = self.0.desk(id).await?;
        let mut shares = Vec::new();
        for submission in submissions {
            shares.extend(desk.take(submission, approval, id, person)?);
        }
        Ok(shares)
    }

    pub(super) async fn release(&self, (live, ends): (Live, u64)) -> Result<v1::Release, Refused> {
        let release = live
            .row
            .release
            .as_ref()
            .ok_or(Refused::Vault(Refusal::NothingToFetch))?;
        let (authorized, released) = live
            .row
            .authorized
            .zip(live.row.released)
            .ok_or(Refused::Row)?;
        Ok(v1::Release {
            authorized: Some(self.0.receipt(None, authorized).await?),
            released: Some(self.0.receipt(None, released).await?),
            checkout_ends_ms: ends,
            ..release::wire(live.row.row.id, release)
        })
    }
}

fn details(text: &str, digest: Digest) -> Result<(), Refused> {
    if text.len() > MAX_DETAILS {
        return Err(Refused::Malformed(format!(
            "details have at most {MAX_DETAILS} bytes"
        )));
    }
    Details::parse(text).map_err(|error| Refused::Malformed(format!("the details: {error}")))?;
    if Digest::of(text.as_bytes()) == digest {
        Ok(())
    } else {
        Err(Refused::Malformed(
            "the details are not those that the signed text names".to_owned(),
        ))
    }
}

#[tonic::async_trait]
impl Ceremony for Service {
    async fn open(&self, request: Request<v1::OpenRequest>) -> Answer<v1::OpenReply> {
        let caller = self.0.peers.of(&request)?;
        let v1::OpenRequest {
            request,
            details: text,
            restore,
        } = request.into_inner();
        let signed = convert::signed_text(request)?;
        let asked = RequestText::parse(&signed.text)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        if asked.requested_by.id != caller.person.id {
            return Err(Refused::Vault(Refusal::NotYours).into());
        }
        details(&text, asked.details)?;
        let charter = self.0.charter();
        if asked.vault != charter.charter.origin {
            return Err(Refused::Malformed("this request is for another vault".to_owned()).into());
        }
        let verified = verify::text_by(&charter.charter, signed, asked.requested_by.id)?;
        let id = asked.ceremony;
        let needs = Needs::request(&asked);
        let opens = asked.purpose.opens();
        let accepts = matches!(asked.purpose, Purpose::AcceptRestore(_));
        let step = move |core: &mut Core, txn: &mut _| {
            if accepts {
                core.propose_restore(txn, &restore)?;
            }
            core.open_ceremony(txn, verified, asked, Some(&text))?;
            core.view(id)
        };
        let (view, _) = self.0.owner.ask(needs, step).await?;
        let submit_key = if opens {
            self.submit_key(id).await?
        } else {
            None
        };
        Ok(Response::new(v1::OpenReply {
            ceremony: Some(view),
            submit_key,
        }))
    }

    async fn show(&self, request: Request<v1::ShowRequest>) -> Answer<v1::ShowReply> {
        let caller = self.0.peers.of(&request)?;
        let v1::ShowRequest { id, page: paging } = request.into_inner();
        let id: CeremonyId = convert::parse(&id, "id")?;
        let (after, size) = page(paging);
        let skip = if after.is_empty() {
            0
        } else {
            convert::parse::<usize>(&after, "after")?
        };
        let (view, live) = self
            .0
            .owner
            .look(Needs::ceremony(id), move |core| {
                Ok((core.view(id)?, core.ceremony(id)?.clone()))
            })
            .await?;
        let state = &live.machine.row.state;
        let takes = live.machine.row.purpose.opens() && !state.is_final();
        let submit_key = if takes {
            self.submit_key(id).await?
        } else {
            None
        };
        let all: Vec<VersionId> = live
            .request
            .credentials
            .iter()
            .map(|line| VersionId {
                credential: line.credential,
                version: line.version,
            })
            .collect();
        let mut versions = Vec::new();
        for version in all.iter().skip(skip).take(size) {
            versions.push(
                self.0
                    .sealed_version(*version, Some(caller.person.id), false)
                    .await?,
            );
        }
        let done = skip.saturating_add(versions.len());
        let known = self.0.charter();
        let text = self.0.details_of(id).await?;
        Ok(Response::new(v1::ShowReply {
            ceremony: Some(view),
            request: Some(convert::wire_text(&live.row.request)),
            details_erased: text.is_none(),
            details: text.unwrap_or_default(),
            statements: view::said(&live.row.statements),
            reviews: view::said(&live.row.reviews),
            submit_key,
            versions,
            checkpoint: self
                .0
                .published
                .newest()
                .map(|newest| newest.note().to_string())
                .unwrap_or_default(),
            charter: known.reference.index,
            charter_sha256: known.reference.digest.0.to_vec(),
            next_page: if done < all.len() {
                done.to_string()
            } else {
                String::new()
            },
        }))
    }

    async fn approve(&self, request: Request<v1::ApproveRequest>) -> Answer<v1::ApproveReply> {
        let caller = self.0.peers.of(&request)?;
        let v1::ApproveRequest {
            approval,
            submissions,
            details: reason,
            ceremony,
        } = request.into_inner();
        let id: CeremonyId = convert::parse(&ceremony, "ceremony")?;
        let signed = convert::signed_text(approval)?;
        let approval =
            Approval::parse(&signed.text).map_err(|error| Refused::Malformed(error.to_string()))?;
        if let Decision::Refuse { reason: digest } = approval.decision {
            details(&reason, digest)?;
        }
        let verified = verify::text_by_token(&self.0.charter().charter, signed, approval.token.id)?;
        let person = approval.custodian.id;
        let shares = self
            .shares(id, verified.signed.digest(), person, &submissions)
            .await?;
        let spoken = Spoken {
            verified,
            approval,
            device: Some(caller.device),
            reason,
            shares,
        };
        let step = move |core: &mut Core, txn: &mut _| {
            core.speak(txn, id, spoken)?;
            core.view(id)
        };
        let (view, _) = self.0.owner.ask(Needs::ceremony(id), step).await?;
        Ok(Response::new(v1::ApproveReply {
            ceremony: Some(view),
        }))
    }

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::SubmitReply> {
        let caller = self.0.peers.of(&request)?;
        let v1::SubmitRequest { id, submissions } = request.into_inner();
        let id: CeremonyId = convert::parse(&id, "id")?;
        let person = caller.person.clone();
        let approval = self
            .0
            .owner
            .look(Needs::ceremony(id), move |core| {
                let said = &core.ceremony(id)?.machine.row.said;
                said.vote(person.id)
                    .map(|vote| vote.text)
                    .ok_or(Refusal::NotApproved.into())
            })
            .await?;
        let shares = self
            .shares(id, approval, caller.person.id, &submissions)
            .await?;
        let step = move |core: &mut Core, txn: &mut _| {
            core.submit(txn, id, &caller.person, shares)?;
            core.view(id)
        };
        let (view, _) = self.0.owner.ask(Needs::ceremony(id), step).await?;
        Ok(Response::new(v1::SubmitReply {
            ceremony: Some(view),
        }))
    }

    async fn withdraw(&self, request: Request<v1::WithdrawRequest>) -> Answer<v1::WithdrawReply> {
        let caller = self.0.peers.of(&request)?;
        let id: CeremonyId = convert::parse(&request.into_inner().id, "id")?;
        let step = move |core: &mut Core, txn: &mut _| {
            core.step_ceremony(
                txn,
                id,
                Event::Withdraw(caller.person.id),
                &caller.person.to_string(),
            )?;
            core.view(id)
        };
        let (view, _) = self.0.owner.ask(Needs::ceremony(id), step).await?;
        Ok(Response::new(v1::WithdrawReply {
            ceremony: Some(view),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchReply, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let caller = self.0.peers.of(&request)?;
        let v1::WatchRequest {
            id,
            after_revision,
            with_release,
        } = request.into_inner();
        let id: CeremonyId = convert::parse(&id, "id")?;
        let (seen, _) = self
            .0
            .owner
            .ask(Needs::ceremony(id), move |core, _| core.watch(id))
            .await?;
        let mine = seen.borrow().requester == caller.person.id;
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let watcher = Watcher {
            service: self.clone(),
            id,
            caller: caller.person.id,
            sender,
            with_release: with_release && mine,
        };
        tokio::spawn(watcher.run(seen, after_revision));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list(
        &self,
        request: Request<v1::ListCeremoniesRequest>,
    ) -> Answer<v1::ListCeremoniesReply> {
        let caller = self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let (after, size) = page(asked.page);
        let credential = if asked.credential.is_empty() {
            None
        } else {
            Some(convert::parse(&asked.credential, "credential")?)
        };
        let before: Option<CeremonyId> = if after.is_empty() {
            None
        } else {
            Some(convert::parse(&after, "after")?)
        };
        let ids = self.0.ceremonies(before, size).await?;
        let next_page = if ids.len() < size {
            String::new()
        } else {
            ids.last().map(ToString::to_string).unwrap_or_default()
        };
        let needs = Needs {
            ceremonies: ids.clone(),
            lenient: true,
            ..Needs::default()
        };
        let ceremonies = self
            .0
            .owner
            .look(needs, move |core| {
                let wanted = |live: &Live| {
                    let row = &live.machine.row;
                    (!asked.open_only || !row.state.is_final())
                        && credential
                            .is_none_or(|id| row.ask.lines.keys().any(|line| line.credential == id))
                        && (!asked.waiting_for_me || core.waits_for(live, caller.person.id))
                };
                let found = ids
                    .iter()
                    .filter(|id| core.ceremony(**id).is_ok_and(wanted));
                found
                    .map(|id| core.view(*id))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        Ok(Response::new(v1::ListCeremoniesReply {
            ceremonies,
            next_page,
        }))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Answer<v1::FetchReply> {
        let caller = self.0.peers.of(&request)?;
        let id: CeremonyId = convert::parse(&request.into_inner().id, "id")?;
        let step = move |core: &mut Core, txn: &mut _| {
            core.step_ceremony(
                txn,
                id,
                Event::Fetch(caller.person.id),
                &caller.person.to_string(),
            )?;
            core.fetched(id)
        };
        let (live, _) = self.0.owner.ask(Needs::ceremony(id), step).await?;
        let release = self.release(live).await?;
        Ok(Response::new(v1::FetchReply {
            release: Some(release),
        }))
    }

    async fn checkin(&self, request: Request<v1::CheckinRequest>) -> Answer<v1::CheckinReply> {
        let caller = self.0.peers.of(&request)?;
        let signed = convert::signed_text(request.into_inner().checkin)?;
        let checkin =
            Checkin::parse(&signed.text).map_err(|error| Refused::Malformed(error.to_string()))?;
        let verified = verify::text_by(&self.0.charter().charter, signed, checkin.returned_by.id)?;
        let id = checkin.ceremony;
        let step = move |core: &mut Core, txn: &mut _| {
            core.check_in(txn, verified, &checkin, &caller.person)?;
            core.view(id)
        };
        let (view, _) = self.0.owner.ask(Needs::ceremony(id), step).await?;
        Ok(Response::new(v1::CheckinReply {
            ceremony: Some(view),
        }))
    }

    async fn review(&self, request: Request<v1::ReviewRequest>) -> Answer<v1::ReviewReply> {
        let caller = self.0.peers.of(&request)?;
        let v1::ReviewRequest {
            review,
            details: note,
        } = request.into_inner();
        let signed = convert::signed_text(review)?;
        let review =
            Review::parse(&signed.text).map_err(|error| Refused::Malformed(error.to_string()))?;
        match review.note {
            Some(digest) => details(&note, digest)?,
            None if note.is_empty() => {}
            None => return Err(Refused::Malformed("this review has no note".to_owned()).into()),
        }
        let verified = verify::text_by(&self.0.charter().charter, signed, review.reviewer.id)?;
        let id = review.ceremony;
        let step = move |core: &mut Core, txn: &mut _| {
            core.review(txn, verified, &review, note, &caller.person)?;
            core.view(id)
        };
        let (view, _) = self.0.owner.ask(Needs::ceremony(id), step).await?;
        Ok(Response::new(v1::ReviewReply {
            ceremony: Some(view),
        }))
    }
}
