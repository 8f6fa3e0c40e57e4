//! `keyturn.v1.Charter`.

use std::collections::BTreeSet;

use keyturn_proto::v1::{self, charter_server::Charter};
use keyturn_vault::{
    charter::{Charter as Document, Role, Token},
    digest::{Digest, Salt},
    jcs::Document as _,
    text::{Enrol, Heartbeat, Join, NewDevice, SignedText, Text as _},
};
use tonic::{Request, Response, Status};

use super::{Context, convert, page};
use crate::{
    attest::{self, Unproven},
    owner::{Core, Needs},
    peers::peer,
    refusal::Refused,
    verify,
};

/// Most charters of one reply: each can be half a megabyte.
const MAX_CHARTERS: usize = 5;
/// Most warnings of a proposal.
const MAX_WARNINGS: usize = 100;

/// The service.
#[derive(Clone)]
pub struct Service(pub Context);

type Answer<T> = Result<Response<T>, Status>;

fn malformed(error: impl std::fmt::Display) -> Refused {
    Refused::Malformed(error.to_string())
}

impl Service {
    /// One charter with what put it into force.
    async fn record(&self, index: u64) -> Result<v1::CharterRecord, Refused> {
        let look = move |core: &Core| core.charter_record(index);
        let record = self.0.owner.look(Needs::nothing(), look).await?;
        let in_force = match record.entry {
            Some(entry) => Some(self.0.receipt(None, entry).await?),
            None => None,
        };
        let bytes = self.0.object(record.reference.digest).await?;
        let charter = Document::from_bytes(&bytes).map_err(|_| Refused::Row)?;
        let named = |join: &&SignedText| index == 1 || charter.joins.contains(&join.digest());
        let joins: Vec<_> = record.joins.iter().filter(named).collect();
        let enrolments: BTreeSet<_> = joins
            .iter()
            .filter_map(|join| Some(Join::parse(&join.text).ok()?.enrolment))
            .collect();
        let enrolled = |one: &&SignedText| enrolments.contains(&one.digest());
        let (mut request, mut approvals) = (None, Vec::new());
        if let Some(id) = record.ceremony {
            let look = move |core: &Core| Ok(core.ceremony(id)?.row.clone());
            let row = self.0.owner.look(Needs::ceremony(id), look).await?;
            request = Some(convert::wire_text(&row.request));
            let texts = row.statements.iter();
            approvals.extend(texts.map(|statement| convert::wire_text(&statement.signed)));
        }
        Ok(v1::CharterRecord {
            index,
            founders: Vec::new(),
            request,
            approvals,
            joins: joins.into_iter().map(convert::wire_text).collect(),
            enrolments: record
                .enrolments
                .iter()
                .filter(enrolled)
                .map(convert::wire_text)
                .collect(),
            charter: bytes,
            in_force,
        })
    }
}

impl Service {
    /// Every accepted restore, with the signatures that put it in force.
    async fn restores(&self) -> Result<Vec<v1::RestoreRecord>, Refused> {
        let look = |core: &Core| Ok(core.restores());
        let restores = self.0.owner.look(Needs::nothing(), look).await?;
        let mut records = Vec::with_capacity(restores.len());
        for restored in restores {
            let id = restored.ceremony;
            let look = move |core: &Core| Ok(core.ceremony(id)?.row.clone());
            let row = self.0.owner.look(Needs::ceremony(id), look).await?;
            let texts = row.statements.iter();
            records.push(v1::RestoreRecord {
                document: self.0.object(restored.document).await?,
                request: Some(convert::wire_text(&row.request)),
                approvals: texts
                    .map(|statement| convert::wire_text(&statement.signed))
                    .collect(),
            });
        }
        Ok(records)
    }

    /// Checks the attestation that comes with an enrolment, or that an invitation left in the store.
    async fn attested(&self, enrol: &Enrol, brought: Option<&[u8]>) -> Result<Token, Refused> {
        let mut token = enrol.token();
        if let Some(digest) = enrol.attestation {
            let object = match brought {
                Some(bytes) => bytes.to_vec(),
                None => self.0.object(digest).await?,
            };
            let facts = attest::facts(&self.0.anchors, &token, &object);
            token.attestation = Some(facts.map_err(|why| false_word(&token, &why))?);
        }
        Ok(token)
    }

    /// Every token that a proposed charter brings is what its maker says, and meets the policies.
    async fn tokens_hold(&self, new: &Document, old: &Document) -> Result<(), Refused> {
        let unproven =
            attest::unproven(&self.0.anchors, self.0.store.as_ref(), new, Some(old)).await;
        let false_words: Vec<_> = unproven
            .iter()
            .map(|(token, why)| false_word(token, why).to_string())
            .collect();
        if !false_words.is_empty() {
            return Err(Refused::Attestation(false_words.join("; ")));
        }
        let weak = new.new_weak_tokens(Some(old));
        if weak.is_empty() {
            return Ok(());
        }
        let weak: Vec<_> = weak.iter().map(ToString::to_string).collect();
        Err(Refused::WeakToken(weak.join("; ")))
    }
}

fn false_word(token: &Token, why: &Unproven) -> Refused {
    Refused::Attestation(format!(
        "the attestation of token {} does not hold: {why}",
        token.reference()
    ))
}

impl Service {
    /// Somebody who was invited after the founding proves their keys.
    async fn join_later(&self, signed: SignedText, join: Join) -> Result<v1::JoinReply, Refused> {
        let person = join.person.id;
        let look = move |core: &Core| core.invitation(person);
        let enrolment = self.0.owner.look(Needs::nothing(), look).await?;
        let enrol = Enrol::parse(&enrolment.text).map_err(malformed)?;
        self.attested(&enrol, None).await?;
        let verified = verify::text_with(enrol.approval_key, signed)?;
        let step = move |core: &mut Core, txn: &mut _| core.join_later(txn, verified, &join);
        let (entry, committed) = self.0.owner.ask(Needs::nothing(), step).await?;
        Ok(v1::JoinReply {
            joined: Some(self.0.receipt(Some(&committed), entry).await?),
            founded: true,
            awaited: Vec::new(),
        })
    }
}

#[tonic::async_trait]
impl Charter for Service {
    async fn show(&self, request: Request<v1::ShowCharterRequest>) -> Answer<v1::ShowCharterReply> {
        self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let (after, size) = page(asked.page);
        let known = self.0.charter();
        let newest = known.reference.index;
        let until = if asked.until == 0 {
            newest
        } else {
            asked.until.min(newest)
        };
        let from = if after.is_empty() {
            asked.verified
        } else {
            convert::parse(&after, "after")?
        };
        let first = if asked.alone {
            until
        } else {
            from.saturating_add(1)
        };
        let mut charters = Vec::new();
        for index in (first..=until).take(size.min(MAX_CHARTERS)) {
            charters.push(self.record(index).await?);
        }
        let last = charters.last().map_or(until, |record| record.index);
        Ok(Response::new(v1::ShowCharterReply {
            charters,
            in_force: if known.founded { newest } else { 0 },
            in_force_sha256: known.reference.digest.0.to_vec(),
            restores: self.restores().await?,
            next_page: if last < until {
                last.to_string()
            } else {
                String::new()
            },
        }))
    }

    async fn invite(&self, request: Request<v1::InviteRequest>) -> Answer<v1::InviteReply> {
        let caller = self.0.peers.of_role(&request, &[Role::Operator])?;
        let by = caller.person.id;
        let v1::InviteRequest { enrol, attestation } = request.into_inner();
        let signed = convert::signed_text(enrol)?;
        let enrol = Enrol::parse(&signed.text).map_err(malformed)?;
        let verified = verify::text_with(enrol.approval_key.clone(), signed)?;
        let attestation = Some(attestation).filter(|bytes| !bytes.is_empty());
        if attestation.as_deref().map(Digest::of) != enrol.attestation {
            return Err(
                malformed("the attestation is not the one that the enrolment names").into(),
            );
        }
        let token = self.attested(&enrol, attestation.as_deref()).await?;
        let warnings = self.0.charter().charter.lacks(&token);
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|_| Refused::NoEntropy)?;
        let nonce = Salt(nonce).to_string();
        let key: keyturn_seal::ShareKey = enrol.share_key.as_str().parse().map_err(malformed)?;
        let sealed = keyturn_seal::encrypt_to(&[key], nonce.as_bytes()).map_err(malformed)?;
        let digest = Digest::of(nonce.as_bytes());
        let step = move |core: &mut Core, txn: &mut _| {
            let brought = (attestation.as_deref(), by);
            core.invite(txn, verified.signed, &enrol, digest, brought)
        };
        let (until, _) = self.0.owner.ask(Needs::nothing(), step).await?;
        Ok(Response::new(v1::InviteReply {
            nonce: sealed,
            expires_ms: until.ms(),
            warnings,
        }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Answer<v1::JoinReply> {
        let signed = convert::signed_text(request.into_inner().join)?;
        let join = Join::parse(&signed.text).map_err(malformed)?;
        let known = self.0.charter();
        if known.founded && known.charter.person_of_token(join.token.id).is_none() {
            return Ok(Response::new(self.join_later(signed, join).await?));
        }
        let verified = verify::text_by_token(&known.charter, signed, join.token.id)?;
        if let Some((_, token)) = known.charter.person_of_token(join.token.id) {
            let held = attest::check(&self.0.anchors, self.0.store.as_ref(), token).await;
            held.map_err(|why| false_word(token, &why))?;
        }
        let step = move |core: &mut Core, txn: &mut _| core.join(txn, verified, &join);
        let (founding, committed) = self.0.owner.ask(Needs::nothing(), step).await?;
        let joined = match founding.entry {
            Some(entry) => Some(self.0.receipt(Some(&committed), entry).await?),
            None => None,
        };
        Ok(Response::new(v1::JoinReply {
            joined,
            founded: founding.founded,
            awaited: founding.awaited.iter().map(convert::person).collect(),
        }))
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeCharterRequest>,
    ) -> Answer<v1::ProposeCharterReply> {
        let by = self.0.peers.of(&request)?.person.id;
        let bytes = request.into_inner().charter;
        let charter = Document::from_bytes(&bytes).map_err(malformed)?;
        charter.validate().map_err(malformed)?;
        let warnings = charter.warnings();
        let warnings = warnings.iter().take(MAX_WARNINGS).map(ToString::to_string);
        let warnings = warnings.collect();
        let known = self.0.charter();
        self.tokens_hold(&charter, &known.charter).await?;
        let everything = Needs {
            everything: true,
            ..Needs::default()
        };
        let step = move |core: &mut Core, txn: &mut _| core.propose_charter(txn, by, charter);
        let ((proposed, needs), _) = self.0.owner.ask(everything, step).await?;
        let needed = needs.groups.iter().filter_map(|name| {
            let group = known.charter.group(name)?;
            Some(v1::QuorumNeeded {
                group: name.to_string(),
                k: group.k.into(),
            })
        });
        Ok(Response::new(v1::ProposeCharterReply {
            index: proposed.index,
            sha256: proposed.digest.0.to_vec(),
            needed: needed.collect(),
            warnings,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Answer<v1::HeartbeatReply> {
        let caller = self.0.peers.of(&request)?;
        let signed = convert::signed_text(request.into_inner().heartbeat)?;
        let heartbeat = Heartbeat::parse(&signed.text).map_err(malformed)?;
        if heartbeat.person.id != caller.person.id {
            return Err(
                Refused::Denied("a heartbeat is brought by the person who signed it").into(),
            );
        }
        let verified =
            verify::text_by_token(&self.0.charter().charter, signed, heartbeat.token.id)?;
        let step =
            move |core: &mut Core, txn: &mut _| core.heartbeat(txn, verified, &caller.person);
        let (entry, _) = self.0.owner.ask(Needs::nothing(), step).await?;
        let newest = self
            .0
            .published
            .reaching(entry.saturating_add(1))
            .await
            .ok_or(Refused::Stopping)?;
        Ok(Response::new(v1::HeartbeatReply {
            checkpoint: newest.note().to_string(),
            consistency: Vec::new(),
        }))
    }

    async fn join_device(
        &self,
        request: Request<v1::JoinDeviceRequest>,
    ) -> Answer<v1::JoinDeviceReply> {
        let pin = peer(request.extensions())?.pin;
        let signed = convert::signed_text(request.into_inner().join)?;
        let device = NewDevice::parse(&signed.text).map_err(malformed)?;
        if device.device.key.pin() != pin {
            return Err(Refused::Denied(
                "a device is signed in by the connection that it makes itself",
            )
            .into());
        }
        let verified = verify::text_by_token(&self.0.charter().charter, signed, device.token.id)?;
        let id = device.device.id;
        let step = move |core: &mut Core, txn: &mut _| core.join_device(txn, &verified, &device);
        let (entry, committed) = self.0.owner.ask(Needs::nothing(), step).await?;
        let joined = self.0.receipt(Some(&committed), entry).await?;
        Ok(Response::new(v1::JoinDeviceReply {
            device: id.to_string(),
            joined: Some(joined),
        }))
    }
}
