//! `keyturn.v1.Status`.

use keyturn_proto::v1;
use keyturn_vault::{charter::Role, digest::Digest, jcs::Document as _, time::Time};
use tonic::{Request, Response, Status};

use super::{
    Context,
    census::{self, Census},
    convert, findings,
};
use crate::{
    owner::{Core, Needs},
    refusal::Refused,
};

/// Most ceremonies of a status.
const MAX_WAITING: usize = 20;

/// The service.
#[derive(Clone)]
pub struct Service(pub Context);

impl Service {
    fn copies(&self, census: &Census) -> v1::CopyStatus {
        let places = self.0.copies.status();
        let count = |places: usize| u32::try_from(places).unwrap_or(u32::MAX);
        v1::CopyStatus {
            wanted: count(self.0.copies_min),
            sinks: count(places.len()),
            sinks_reachable: count(places.iter().filter(|place| place.reachable).count()),
            behind: census.few_copies,
            head_copied_ms: self.0.head_copy.borrow().copied.map_or(0, Time::ms),
            places: places
                .into_iter()
                .map(|place| v1::SinkStatus {
                    name: place.name,
                    reachable: place.reachable,
                    complete: place.complete,
                    behind: place.behind,
                    same_disk: place.same_disk,
                    problem: place.problem.unwrap_or_default(),
                })
                .collect(),
        }
    }
}

#[tonic::async_trait]
impl v1::status_server::Status for Service {
    async fn show(
        &self,
        request: Request<v1::ShowStatusRequest>,
    ) -> Result<Response<v1::ShowStatusReply>, Status> {
        let caller = self.0.peers.of(&request)?;
        let person = caller.person.id;
        let census = census::count(&self.0).await?;
        // Since the start nobody may have asked for what this person has checked out.
        let out = census.out.get(&person).into_iter().flatten();
        let needs = Needs {
            ceremonies: out.take(MAX_WAITING).copied().collect(),
            lenient: true,
            ..Needs::nothing()
        };
        let look = move |core: &Core| {
            let summary = core.summary(person, MAX_WAITING)?;
            let mut findings = core.notifier_findings();
            findings.extend(core.distrusted());
            findings.extend(core.left_in_copies());
            findings.extend(paused_finding(core.paused_until(core.paused())));
            Ok((summary, core.rotation_counts(), core.diverged(), findings))
        };
        let looked = self.0.owner.look(needs, look).await?;
        let (summary, rotations, diverged, others) = looked;
        let mut told: Vec<_> = diverged_finding(diverged).into_iter().collect();
        told.extend(others);
        let known = self.0.charter();
        let findings = findings::findings(&self.0, &known.charter, &census, &rotations, told);
        let role = |role: &Role| match role {
            Role::Custodian => "custodian",
            Role::Requester => "requester",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
        };
        Ok(Response::new(v1::ShowStatusReply {
            origin: known.charter.origin.to_string(),
            daemon: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.0.node.id.to_string(),
            caller: Some(convert::person(&caller.person)),
            roles: caller.roles.iter().map(role).map(str::to_owned).collect(),
            charter: if known.founded {
                known.reference.index
            } else {
                0
            },
            charter_sha256: known.reference.digest.0.to_vec(),
            checkpoint: self
                .0
                .published
                .newest()
                .map(|newest| newest.note().to_string())
                .unwrap_or_default(),
            now_ms: self.0.clock.now().ms(),
            waiting: summary.waiting,
            waiting_total: summary.waiting_total,
            checked_out: summary.checked_out,
            asked: summary.asked,
            founders_awaited: summary.awaited.iter().map(convert::person).collect(),
            rotations: Some(rotations),
            restore_mode: !self.0.mode.borrow().serves(),
            credentials: Some(census.credentials),
            copies: Some(self.copies(&census)),
            findings,
            space: space(&self.0),
        }))
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::RestoreReply>, Status> {
        self.0.peers.of(&request)?;
        let look = |core: &Core| Ok((core.restoring()?.clone(), core.restore_document()?));
        let (restoring, document) = self.0.owner.look(Needs::nothing(), look).await?;
        let bytes = document.to_bytes().map_err(|_| Refused::Row)?;
        let (lost, place) = restoring.lost.clone().unzip();
        let found = restoring.found.values().map(|one| v1::FoundDocument {
            kind: "manifest".to_owned(),
            sha256: one.digest.0.to_vec(),
            sink: String::new(),
        });
        Ok(Response::new(v1::RestoreReply {
            restored_size: document.head.size,
            restored_root: document.head.root.0.to_vec(),
            lost_size: lost.map_or(0, |lost| lost.size),
            lost_root: lost.map_or_else(Vec::new, |lost| lost.root.0.to_vec()),
            lost_found_in: place.unwrap_or_default(),
            log_vkey: self.0.vkey().to_string(),
            node_spki_sha256: self.0.node.key().pin().to_vec(),
            charter: document.charter.index,
            documents: found.collect(),
            documents_sha256: Digest::of(&bytes).0.to_vec(),
            next_page: String::new(),
            document: bytes,
            why: restoring.why,
        }))
    }
}

/// Secrets that are sealed and not the real ones any more: what everybody must see.
fn diverged_finding(count: u64) -> Option<v1::Finding> {
    (count > 0).then(|| v1::Finding {
        severity: v1::Severity::Problem.into(),
        code: "diverged".to_owned(),
        message: format!("{count} sealed secrets are no longer the real ones at their targets"),
        hint: "see `keyturn credential list --problems`, then `keyturn rotate now`".to_owned(),
    })
}

/// That an operator holds all rotations: what is due stays due.
fn paused_finding(until_ms: u64) -> Option<v1::Finding> {
    (until_ms > 0).then(|| v1::Finding {
        severity: v1::Severity::Warning.into(),
        code: "rotations-paused".to_owned(),
        message: format!(
            "no rotation begins before {}",
            Time::from_ms(until_ms).stamp()
        ),
        hint: "`keyturn rotate resume --all` goes on".to_owned(),
    })
}

/// The level of the room, for the wire.
pub fn space(context: &Context) -> Option<v1::Space> {
    use crate::store::space::Level;
    let seen = context.space.seen()?;
    Some(v1::Space {
        free_bytes: seen.room.free_bytes,
        low: seen.level > Level::Ample,
        critical: seen.level == Level::Critical,
        read_only: seen.room.read_only,
    })
}
