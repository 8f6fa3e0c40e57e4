//! A custodian answers a request that came as a file.

use std::path::PathBuf;

use clap::Args;
use keyturn_seal::{Submission, SubmittedShare};
use keyturn_vault::{
    file::Blob,
    text::{
        Approval, CredentialLine, Decision, Details, Recover, ShareLine, ShareState, Text as _,
    },
    words::spoken,
};
use serde_json::json;

use super::{Answer, Asked, asked_version, known, read_request, write_json};
use crate::{
    causes::told,
    clock,
    command::{
        Context,
        copy::{Copy, ShareOf as _},
    },
    home::Home,
    refusal::Refusal,
    ui::{Style, clean},
    verify::{VerifyError, definition::Lineage, sealed::sharing},
};

/// Answer such a request with your share, by a file.
#[derive(Debug, Args)]
pub struct Share {
    /// The request file
    request: PathBuf,
    /// A folder from `credential export`, or another copy
    #[arg(long, value_name = "DIR")]
    export: PathBuf,
    /// The answer, to be sent to the requester
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Share {
    pub(super) fn run(self, mut context: Context) -> Result<(), Refusal> {
        let copy = Copy::at(&self.export);
        let (profile, chain) = known(&context, &copy)?;
        let (asked, text) = read_request(&self.request, &chain)?;
        let version = asked_version(&copy, &chain, &text)?;
        known_by(&context.home, &text.credential)?;
        let unproven = if copy.proven(&chain, &version)? {
            ""
        } else {
            "; this copy does not show that the log has this version"
        };
        let group = version
            .manifest
            .group(&text.group)
            .ok_or(VerifyError::Missing("the group that is asked"))?;
        let not_mine = || {
            Refusal::new(
                "not-holder",
                "you hold no share of this version",
                "another custodian must answer",
            )
        };
        let (holder, envelope) = version
            .share_of(&group.group, profile.person)
            .ok_or_else(not_mine)?;
        let digest = text.digest();
        show(&context, &asked, &text, unproven);
        let mut opened = context.token(&profile)?;
        let plain = opened
            .token
            .open_shares(&[envelope], &mut context.person)
            .into_iter()
            .next()
            .ok_or_else(not_mine)??;
        let bad = |error: &dyn std::error::Error| {
            Refusal::new(
                "share-damaged",
                told(error),
                "use another copy, or let another custodian answer",
            )
        };
        let valid = sharing(&version.manifest, &group.group)?
            .read_envelope(holder.x, &plain)
            .map_err(|error| bad(&error))?;
        context.person.confirm(
            "Do you hand your share to this person?",
            &digest.to_string(),
        )?;
        let state = ShareState::Held {
            x: holder.x,
            commitment: holder.commitment,
        };
        let approval = Approval {
            request: digest,
            custodian: profile.reference(),
            token: opened.reference(),
            decision: Decision::Approve(vec![ShareLine {
                path: text.credential.path.clone(),
                version: text.credential.version,
                state,
            }]),
            charter: chain.newest().map(|(reference, _)| reference),
            log: None,
            signed: clock::now().stamp(),
        };
        let approval = opened.sign(&approval, &mut context.person)?;
        // Exposed to be encrypted.
        let share =
            keyturn_seal::Secret::from_slice(valid.secret().expose()).ok_or_else(not_mine)?;
        let submission = Submission {
            approval_sha256: approval.digest().0,
            ceremony: text.ceremony.to_string(),
            person: profile.person.to_string(),
            shares: vec![SubmittedShare {
                credential: text.credential.credential.to_string(),
                version: text.credential.version.number(),
                group: group.group.to_string(),
                x: holder.x,
                share,
            }],
        };
        let to = text
            .deliver_to
            .as_str()
            .parse()
            .map_err(|_| VerifyError::Missing("a key in the request"))?;
        let submission = Blob(submission.encrypt(&to).map_err(|error| bad(&error))?);
        write_json(
            &self.out,
            &Answer {
                approval,
                submission,
            },
        )?;
        let document = json!({ "ceremony": text.ceremony, "file": self.out });
        Ok(context.ui.result(&document, || {
            format!("Send {} to {}.", self.out.display(), text.requested_by.name)
        })?)
    }
}

/// Who, what, why, anything unusual; then everything that is signed, whole.
fn show(context: &Context, asked: &Asked, text: &Recover, unproven: &str) {
    let digest = text.digest();
    let reason = Details::parse(&asked.details).map(|details| details.reason.to_string());
    context.ui.note(format_args!(
        "who       {}\nwhat      recover {} {} without the vault\nwhy       {}\nunusual   the vault is not asked; nothing is logged before the secret is out{unproven}\n\n--- the request, whole ---\n{}--- the details ---\n{}---\nSHA-256    {digest}\nsix words  {}",
        text.requested_by.name,
        text.credential.path,
        text.credential.version,
        reason.unwrap_or_default(),
        clean(&asked.recover.text),
        clean(&asked.details),
        context.ui.paint_err(Style::Bold, spoken(&digest)),
    ));
}

/// What this computer has verified of credentials goes by no other name now.
fn known_by(home: &Home, line: &CredentialLine) -> Result<(), Refusal> {
    for name in home.names("definitions") {
        let known: Option<Lineage> = home.read_json(&format!("definitions/{name}"))?;
        let other =
            |known: &Lineage| (known.path == line.path) != (known.credential == line.credential);
        if known.as_ref().is_some_and(other) {
            return Err(VerifyError::Other {
                what: format!("the credential at {}", line.path),
                by: "this computer's earlier verification",
            }
            .into());
        }
    }
    Ok(())
}
