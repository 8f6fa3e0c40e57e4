//! `keyturn confirm` and `heartbeat`: the token works, and these shares open.

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    digest::Digest,
    name::CredentialPath,
    reference::Version,
    text::{CredentialLine, Heartbeat as HeartbeatText},
};
use serde_json::json;

use super::Context;
use crate::{
    causes::told,
    clock,
    refusal::Refusal,
    session::Session,
    token,
    ui::table,
    verify::{VerifyError, log, sealed::Sealed, wire},
};

/// Try whether your shares of a credential can be read.
#[derive(Debug, Args)]
pub struct Confirm {
    /// The credential
    path: CredentialPath,
}

/// Show that you and your token are there.
#[derive(Debug, Args)]
pub struct Heartbeat {}

/// A share that was tried.
struct Tried {
    version: Version,
    group: String,
    x: u8,
    /// The commitment, or what is wrong.
    outcome: Result<Digest, String>,
}

impl Confirm {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let sealed = mine(&session, &self.path).await?;
        let mut opened = context.token(&session.profile)?;
        let tried = try_all(&mut context, &session, &sealed, &mut opened)?;
        if tried.is_empty() {
            return Err(Refusal::new(
                "not-holder",
                "you hold no share of this credential",
                "a reshare after a charter change includes you",
            ));
        }
        let credential = sealed
            .first()
            .map(|sealed| sealed.line.credential.to_string())
            .unwrap_or_default();
        let shares = tried.iter().map(|tried| v1::ShareConfirmation {
            credential: credential.clone(),
            version: tried.version.number(),
            group: tried.group.clone(),
            x: tried.x.into(),
            commitment: tried
                .outcome
                .as_ref()
                .map(|commitment| commitment.0.to_vec())
                .unwrap_or_default(),
            problem: tried
                .outcome
                .as_ref()
                .err()
                .map(|problem| problem.chars().take(100).collect())
                .unwrap_or_default(),
        });
        session
            .credentials()
            .confirm(v1::ConfirmRequest {
                shares: shares.collect(),
            })
            .await?;
        let bad = tried.iter().filter(|tried| tried.outcome.is_err()).count();
        let word = |tried: &Tried| {
            tried.outcome.as_ref().map_or_else(
                |problem| format!("unreadable: {problem}"),
                |_| "readable".to_owned(),
            )
        };
        let document: Vec<_> = tried
            .iter()
            .map(|tried| json!({ "version": tried.version, "group": tried.group, "x": tried.x, "readable": tried.outcome.is_ok(), "problem": tried.outcome.as_ref().err() }))
            .collect();
        let rows = || {
            tried
                .iter()
                .map(|tried| {
                    vec![
                        tried.version.to_string(),
                        tried.group.clone(),
                        format!("x{}", tried.x),
                        word(tried),
                    ]
                })
                .collect::<Vec<_>>()
        };
        context
            .ui
            .result(&json!({ "path": self.path, "shares": document }), || {
                table(&rows())
            })?;
        if bad == 0 {
            Ok(())
        } else {
            Err(Refusal::new(
                "share-damaged",
                format_args!("{bad} of your shares cannot be read"),
                "an operator starts a reshare; until then other custodians must approve",
            ))
        }
    }
}

/// The live versions of a credential with this person's envelopes, verified.
async fn mine(session: &Session, path: &CredentialPath) -> Result<Vec<Sealed>, Refusal> {
    let mut after = String::new();
    let mut all = Vec::new();
    loop {
        let request = v1::ExportRequest {
            credential: wire::at_path(path),
            version: 0,
            mine_only: true,
            page: wire::next_page(after),
        };
        let reply = session.credentials().export(request).await?.into_inner();
        for version in reply.versions {
            let line = line_of(path, &version)?;
            all.push(session.sealed(&line, version).await?);
        }
        after = reply.next_page;
        if after.is_empty() {
            return Ok(all);
        }
    }
}

/// The line by which a request would name a version that the daemon sent.
pub(super) fn line_of(
    path: &CredentialPath,
    version: &v1::SealedVersion,
) -> Result<CredentialLine, VerifyError> {
    let manifest = version
        .manifest
        .as_ref()
        .ok_or(VerifyError::Missing("a manifest"))?;
    Ok(CredentialLine {
        path: path.clone(),
        credential: wire::parse(&version.credential, "the id of a credential")?,
        version: Version::new(version.version).ok_or(VerifyError::Missing("a version"))?,
        manifest: Digest::of(&manifest.document),
    })
}

fn try_all(
    context: &mut Context,
    session: &Session,
    sealed: &[Sealed],
    opened: &mut token::Opened,
) -> Result<Vec<Tried>, Refusal> {
    let mut tried = Vec::new();
    for sealed in sealed {
        for group in &sealed.manifest.groups {
            let Some((holder, envelope)) = sealed.share_of(&group.group, session.profile.person)
            else {
                continue;
            };
            let text = envelope.and_then(|envelope| {
                opened
                    .token
                    .open_shares(&[envelope], &mut context.person)
                    .into_iter()
                    .next()
            });
            let outcome = match text {
                None => Err(
                    "the vault did not send its envelope, or sent another one than was sealed"
                        .to_owned(),
                ),
                Some(Err(error)) => Err(error.to_string()),
                Some(Ok(text)) => {
                    match sealed.sharing(&group.group)?.read_envelope(holder.x, &text) {
                        Ok(share) => Ok(Digest(*share.commitment())),
                        Err(error) => Err(told(&error)),
                    }
                }
            };
            tried.push(Tried {
                version: sealed.line.version,
                group: group.group.to_string(),
                x: holder.x,
                outcome,
            });
        }
    }
    Ok(tried)
}

impl Heartbeat {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let mut opened = context.token(&session.profile)?;
        let heartbeat = HeartbeatText {
            vault: session.vault.origin.clone(),
            person: session.me()?.reference(),
            token: opened.reference(),
            charter: session.charter()?.0,
            log: session.log_head()?,
            signed: clock::now().stamp(),
            confirmations: Vec::new(),
        };
        let signed = opened.sign(&heartbeat, &mut context.person)?;
        let request = v1::HeartbeatRequest {
            heartbeat: Some(wire::wire_text(&signed)),
        };
        let reply = session.charters().heartbeat(request).await?.into_inner();
        let newest = log::checkpoint(&reply.checkpoint, &session.vkey()?)?;
        if let Some(head) = &session.head {
            session.continues(head, &newest).await?;
        }
        let kept = session.home.checkpoint()?;
        session.home.keep_checkpoint(kept.as_deref(), &newest)?;
        context.leave_profile(&session, &mut opened);
        let size = newest.size();
        Ok(context.ui.result(&json!({ "log_size": size }), || {
            format!("The vault has heard you; its log has {size} entries.")
        })?)
    }
}
