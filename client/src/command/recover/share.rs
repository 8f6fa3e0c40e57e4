//! A custodian answers a request that came as a file.

use std::path::PathBuf;

use clap::Args;
use keyturn_seal::{Submission, SubmittedShare};
use keyturn_vault::{
    file::Blob,
    text::{Approval, Decision, Details, ShareLine, ShareState, Text as _},
    words::spoken,
};
use serde_json::json;

use super::{Answer, asked_version, known, read_request, write_json};
use crate::{
    causes::told,
    clock,
    command::{
        Context,
        copy::{Copy, ShareOf as _},
    },
    refusal::Refusal,
    ui::{Style, clean},
    verify::{VerifyError, sealed::sharing},
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
        context.ui.note(format_args!(
            "who       {}\nwhat      recover {} {} without the vault\nwhy       {}\nunusual   the vault is not asked; nothing is logged before the secret is out\n\n--- the request, whole ---\n{}--- the details ---\n{}---\nSHA-256    {digest}\nsix words  {}",
            text.requested_by.name,
            text.credential.path,
            text.credential.version,
            Details::parse(&asked.details).map(|details| details.reason.to_string()).unwrap_or_default(),
            clean(&asked.recover.text),
            clean(&asked.details),
            context.ui.paint_err(Style::Bold, spoken(&digest)),
        ));
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
