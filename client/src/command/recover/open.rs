//! The requester opens a credential with the answers of custodians.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use keyturn_seal::{ShareIdentity, Submission, ValidShare};
use keyturn_vault::{
    charter::{Chain, Person},
    id::PersonId,
    manifest::Manifest,
    reference::Signer,
    text::{Approval, Decision, Recover as RecoverText, SignedText},
};

use super::{Answer, Record, asked_version, known, read_json, read_request};
use crate::{
    causes::told,
    command::{
        Context,
        copy::Copy,
        release::{self, Delivered, Kept},
        sink::Sink,
    },
    home::HomeError,
    refusal::Refusal,
    verify::{
        self, VerifyError,
        sealed::{binding, sharing},
    },
};

/// Open the credential with the answers.
#[derive(Debug, Args)]
pub struct Open {
    /// The request file
    request: PathBuf,
    /// The answers of custodians
    #[arg(required = true, value_name = "ANSWER")]
    answers: Vec<PathBuf>,
    /// A folder from `credential export`, or another copy
    #[arg(long, value_name = "DIR")]
    export: PathBuf,
    #[command(flatten)]
    sink: Sink,
}

impl Open {
    pub(super) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        self.sink.ready(context.ui)?;
        let copy = Copy::at(&self.export);
        let (_, chain) = known(&context, &copy)?;
        let (asked, text) = read_request(&self.request, &chain)?;
        let version = asked_version(&copy, &chain, &text)?;
        let kept: Kept = release::kept(&context.home, text.ceremony)?;
        let key = kept.identity(&mut context)?;
        let mut shares: BTreeMap<PersonId, ValidShare> = BTreeMap::new();
        let mut approvals = Vec::new();
        for path in &self.answers {
            let (person, share, approval) =
                read_answer(path, &chain, &text, &version.manifest, &key)?;
            shares.insert(person, share);
            approvals.push(approval);
        }
        let sharing = sharing(&version.manifest, &text.group)?;
        let k = chain
            .newest()
            .and_then(|(_, charter)| charter.group(&text.group))
            .map(|group| group.k)
            .unwrap_or_default();
        let need = k.max(sharing.threshold().k());
        if shares.len() < usize::from(need) {
            let message = format!(
                "answered by {} of the {need} custodians that it takes",
                shares.len()
            );
            return Err(Refusal::new(
                "not-released",
                message,
                "send the request to more custodians of the group",
            ));
        }
        let failed = |error: &dyn std::error::Error| {
            Refusal::new(
                "not-released",
                told(error),
                "use another copy, or ask other custodians",
            )
        };
        let combined = sharing
            .combine(&shares.values().collect::<Vec<_>>())
            .map_err(|error| failed(&error))?;
        if !combined.inconsistent.is_empty() {
            context.ui.warn(
                "this version was not sealed well: not all shares match; deposit the secret anew",
            );
        }
        let secret = keyturn_seal::open(
            &version.payload,
            &combined.identity,
            &binding(&version.manifest)?,
        )
        .map_err(|error| failed(&error))?;
        context.home.write_json(
            &format!("recovered/{}", text.ceremony),
            &Record {
                recover: asked.recover,
                approvals,
            },
        )?;
        context.ui.note(format_args!(
            "when the vault is back: keyturn recover import {}",
            text.ceremony
        ));
        let opened = (version.manifest.kind, secret);
        let delivered = Delivered::recovered(text.ceremony, &text.credential, opened);
        delivered.hand_on(&context, self.sink).await
    }
}

/// An answer whose approval is signed by a custodian of the group, and whose share is the one that was sealed.
fn read_answer(
    path: &Path,
    chain: &Chain,
    request: &RecoverText,
    manifest: &Manifest,
    key: &ShareIdentity,
) -> Result<(PersonId, ValidShare, SignedText), Refusal> {
    let answer: Answer = read_json(path)?;
    let what = || format!("the approval in {}", path.display());
    let approval: Approval = answer
        .approval
        .parse()
        .map_err(|source| VerifyError::Text(what(), source))?;
    let (_, charter) = chain.newest().ok_or(HomeError::NoVault)?;
    verify::text(charter, &answer.approval, &what())?;
    let owner = verify::person_of(charter, answer.approval.signer).map(Person::reference);
    if owner.as_ref() != Some(&approval.custodian)
        || answer.approval.signer != Signer::Token(approval.token.id)
    {
        return Err(VerifyError::Person(what()).into());
    }
    let approves = matches!(approval.decision, Decision::Approve(_))
        && approval.answers_recover(request).is_ok();
    let person = approval.custodian.id;
    let member = charter
        .group(&request.group)
        .is_some_and(|group| group.members.contains(&person));
    if !approves || !member {
        return Err(VerifyError::Other {
            what: what(),
            by: "this request",
        }
        .into());
    }
    let wrong = |error: &dyn std::error::Error| {
        Refusal::new(
            "wrong-share",
            format_args!("{}: {}", approval.custodian.name, told(error)),
            "ask this custodian to answer again",
        )
    };
    let digest = answer.approval.digest();
    let submission = Submission::open(
        &answer.submission.0,
        key,
        &digest.0,
        &request.ceremony.to_string(),
        &person.to_string(),
    );
    let submission = submission.map_err(|error| wrong(&error))?;
    let holder = manifest
        .group(&request.group)
        .and_then(|group| group.holder(person))
        .ok_or(VerifyError::Missing("this custodian in the manifest"))?;
    let share = submission
        .shares
        .into_iter()
        .find(|share| share.x == holder.x)
        .ok_or(VerifyError::Missing("the share of this custodian"))?;
    let valid = sharing(manifest, &request.group)?
        .verify(holder.x, share.share)
        .map_err(|error| wrong(&error))?;
    Ok((person, valid, answer.approval))
}
