//! `keyturn.v1.Status`.

use keyturn_proto::v1;
use keyturn_vault::charter::{Charter, Role, Warning};
use tonic::{Request, Response, Status};

use super::{Context, convert};
use crate::{
    owner::{Core, Needs},
    refusal::Refused,
};

/// Most findings about tokens.
const MAX_TOKENS: usize = 50;
/// Most ceremonies of a status.
const MAX_WAITING: usize = 20;

/// The service.
#[derive(Clone)]
pub struct Service(pub Context);

/// What policies, or people, should not like about custodians' tokens.
fn tokens(charter: &Charter) -> Vec<v1::Finding> {
    let told = |warning: &Warning| {
        let (code, hint) = match warning {
            Warning::Weak(_) => (
                "weak-token",
                "let its owner enrol one that meets the policy; until then its approvals count with a `waive:` line only",
            ),
            Warning::Clonable(..) => (
                "clonable-token",
                "keep it in sight, and replace it by one with newer firmware",
            ),
            Warning::Unattested(_) => ("unattested-token", "let its owner enrol it anew"),
            Warning::NoSpare(_)
            | Warning::OneToken(_)
            | Warning::Software(_)
            | Warning::NoRequester
            | Warning::NoAuditor
            | Warning::NoWitness => return None,
        };
        Some(v1::Finding {
            severity: v1::Severity::Warning.into(),
            code: code.to_owned(),
            message: warning.to_string(),
            hint: hint.to_owned(),
            since_ms: 0,
        })
    };
    let warnings = charter.warnings();
    warnings.iter().filter_map(told).take(MAX_TOKENS).collect()
}

#[tonic::async_trait]
impl v1::status_server::Status for Service {
    async fn show(
        &self,
        request: Request<v1::ShowStatusRequest>,
    ) -> Result<Response<v1::ShowStatusReply>, Status> {
        let caller = self.0.peers.of(&request)?;
        let person = caller.person.id;
        let look = move |core: &Core| {
            let summary = core.summary(person, MAX_WAITING)?;
            let findings = core.notifier_findings();
            Ok((summary, core.rotation_counts(), core.diverged(), findings))
        };
        let looked = self.0.owner.look(Needs::nothing(), look).await?;
        let (summary, rotations, diverged, notifiers) = looked;
        let mut findings: Vec<_> = diverged_finding(diverged).into_iter().collect();
        findings.extend(notifiers);
        let known = self.0.charter();
        findings.extend(tokens(&known.charter));
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
            founders_awaited: summary.awaited.iter().map(convert::person).collect(),
            rotations: Some(rotations),
            restore_mode: !self.0.mode.borrow().serves(),
            findings,
            ..v1::ShowStatusReply::default()
        }))
    }

    async fn restore(
        &self,
        _: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::RestoreReply>, Status> {
        Err(Refused::NotRestoring.into())
    }
}

/// Secrets that are sealed and not the real ones any more: what everybody must see.
fn diverged_finding(count: u64) -> Option<v1::Finding> {
    (count > 0).then(|| v1::Finding {
        severity: v1::Severity::Problem.into(),
        code: "diverged".to_owned(),
        message: format!("{count} sealed secrets are no longer the real ones at their targets"),
        hint: "see `keyturn credential list --problems`, then `keyturn rotate now`".to_owned(),
        since_ms: 0,
    })
}
