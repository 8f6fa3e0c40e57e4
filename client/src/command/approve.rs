//! `keyturn approve`: look, decide, sign, hand in the shares, stay until the outcome.
//!
//! # Invariants
//! 1. No share leaves before everything that it belongs to was verified: the request and its signature,
//!    manifest, definition, charter, log, envelope.
//! 2. Shares are decrypted and checked before the approval is signed; what cannot be read is named in it.
//! 3. A share leaves only encrypted to a submit key that a node of the charter signed for this request.
//! 4. What is signed is what was shown.

use clap::Args;
use keyturn_proto::v1::{self, CeremonyState};
use keyturn_seal::{Submission, SubmittedShare, ValidShare};
use keyturn_vault::{
    charter::Role,
    id::CeremonyId,
    reference::Signer,
    text::{Approval, Decision, Purpose, ShareLine, ShareState, SignedText, SubmitKey, Text as _},
};
use serde::{Deserialize, Serialize};

pub use super::case::Case;
use super::{
    Context,
    follow::{News, Wait, is_final},
    show,
};
use crate::{
    causes::told,
    clock,
    refusal::Refusal,
    session::Session,
    token,
    ui::{Ui, table},
    verify::{self, VerifyError, wire},
};

/// Agree to a request, with your token and your share.
#[derive(Debug, Args)]
pub struct Approve {
    /// The ceremony; without it, the only one that waits for you
    ceremony: Option<CeremonyId>,
    /// Send the shares of an approval that you gave earlier again
    #[arg(long)]
    resend: bool,
    /// Leave once the approval is given
    #[arg(long)]
    no_wait: bool,
}

/// An approval of this person, as the home keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    approval: SignedText,
}

impl Approve {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let ceremony = match self.ceremony {
            Some(ceremony) => ceremony,
            None => only_one(context.ui, &session).await?,
        };
        let case = Case::load(&session, ceremony).await?;
        let mut held = if self.resend {
            Held::again(&mut context, &session, &case).await?
        } else {
            Held::give(&mut context, &session, &case).await?
        };
        if self.no_wait {
            let view = show::ceremony(&held.view);
            return Ok(context.ui.result(&view, || "approved".to_owned())?);
        }
        let resend = format!(
            "your approval stands; `keyturn approve --resend {ceremony}` hands your shares in again, where they are asked for"
        );
        let mut wait = Wait::new(context.ui, session.ceremonies(), ceremony, false);
        while let Some(came) = wait.next(&resend).await? {
            held.attend(&session, &came).await?;
        }
        let view = wait.view().unwrap_or(&held.view);
        context
            .ui
            .result(&show::ceremony(view), || show::state(view))?;
        if [CeremonyState::Released, CeremonyState::Applied].contains(&view.state()) {
            return Ok(());
        }
        let message = format!("your approval opened nothing: {}", show::state(view));
        let hint = "the requester can ask again";
        Err(Refusal::new("not-released", message, hint))
    }
}

/// The only ceremony that waits for this person.
pub(super) async fn only_one(ui: Ui, session: &Session) -> Result<CeremonyId, Refusal> {
    let status = session
        .status()
        .show(v1::ShowStatusRequest {})
        .await?
        .into_inner();
    match status.waiting.as_slice() {
        [one] => Ok(wire::parse(&one.id, "the id of a ceremony")?),
        [] => Err(Refusal::new(
            "not-found",
            "nothing waits for you",
            "name the ceremony; see `keyturn status`",
        )),
        several => {
            let rows: Vec<_> = several.iter().map(show::ceremony_row).collect();
            ui.note(table(&rows));
            Err(Refusal::new(
                "malformed",
                "several requests wait for you",
                "name one: `keyturn approve ID`",
            ))
        }
    }
}

/// A given approval with its shares, ready to be handed in again.
pub struct Held {
    approval: SignedText,
    case: Case,
    person: String,
    shares: Vec<Share>,
    /// The digest of the submit key to which they went.
    sent_to: Option<keyturn_vault::digest::Digest>,
    /// The newest submit key.
    submit_key: Option<SignedText>,
    /// The ceremony as it was after the last call.
    pub view: v1::CeremonyView,
}

struct Share {
    credential: String,
    version: u64,
    group: String,
    valid: ValidShare,
}

impl Held {
    /// Shows the request, opens the shares, asks, signs, and hands both in.
    pub async fn give(
        context: &mut Context,
        session: &Session,
        case: &Case,
    ) -> Result<Self, Refusal> {
        let (charter_ref, _) = session.charter()?;
        let me = session.me()?;
        if !me.has(Role::Custodian) {
            return Err(Refusal::new(
                "not-custodian",
                "you are not a custodian",
                "a custodian of the group must approve",
            ));
        }
        case.show(context, session).await?;
        let mut opened = context.token(&session.profile)?;
        case.takes(session, opened.reference())?;
        let (lines, shares) = open_shares(context, session, case, &mut opened)?;
        let digest = case.request.digest().to_string();
        // What was shown first may have left the screen by now.
        let question = format!(
            "Do you approve {}, asked for by {}?",
            show::what(&case.request),
            case.request.requested_by.name
        );
        if matches!(case.request.purpose, Purpose::AcceptRestore(_)) {
            context.person.confirm_typed(&question, &digest)?;
        } else {
            context.person.confirm(&question, &digest)?;
        }
        let approval = Approval {
            request: case.request.digest(),
            custodian: me.reference(),
            token: opened.reference(),
            decision: Decision::Approve(lines),
            charter: Some(charter_ref),
            log: Some(session.log_head()?),
            signed: clock::now().stamp(),
        };
        let approval = opened.sign(&approval, &mut context.person)?;
        let id = case.request.ceremony;
        session.home.write_json(
            &format!("approvals/{id}"),
            &Kept {
                approval: approval.clone(),
            },
        )?;
        let mut held = Self {
            approval,
            case: case.clone(),
            person: me.id.to_string(),
            shares,
            sent_to: None,
            submit_key: case.submit_key.clone(),
            view: case.view.clone(),
        };
        // Before a waiting time is over shares stay here.
        let submissions = if case.waits(session)? {
            Vec::new()
        } else {
            held.submission(session)?
        };
        let request = v1::ApproveRequest {
            approval: Some(wire::wire_text(&held.approval)),
            submissions,
            details: String::new(),
            ceremony: id.to_string(),
        };
        let reply = session.ceremonies().approve(request).await?.into_inner();
        held.view = wire::required(reply.ceremony, "the ceremony")?;
        Ok(held)
    }

    /// Opens the shares of an earlier approval again, and hands them in.
    pub async fn again(
        context: &mut Context,
        session: &Session,
        case: &Case,
    ) -> Result<Self, Refusal> {
        let id = case.request.ceremony;
        let kept: Option<Kept> = session.home.read_json(&format!("approvals/{id}"))?;
        let none = || {
            Refusal::new(
                "not-approved",
                "this home has no approval of yours for this request",
                "approve it",
            )
        };
        let approval = kept.ok_or_else(none)?.approval;
        let text: Approval = approval
            .parse()
            .map_err(|source| VerifyError::Text("your approval".to_owned(), source))?;
        if text.request != case.request.digest() {
            return Err(none());
        }
        let mut opened = context.token(&session.profile)?;
        let (lines, shares) = open_shares(context, session, case, &mut opened)?;
        if lines != text.shares() {
            return Err(Refusal::new(
                "not-promised",
                "your shares are not those that you approved with",
                "take it back with `keyturn retract`, and approve again",
            ));
        }
        let mut held = Self {
            approval,
            case: case.clone(),
            person: session.profile.person.to_string(),
            shares,
            sent_to: None,
            submit_key: case.submit_key.clone(),
            view: case.view.clone(),
        };
        held.submit(session).await?;
        Ok(held)
    }

    /// Hands the shares in again when there is a new submit key, or when the waiting time is over.
    pub async fn attend(&mut self, session: &Session, news: &News) -> Result<(), Refusal> {
        match news {
            News::SubmitKey(key) => {
                self.submit_key = Some(wire::signed_text(Some(key.clone()), "the submit key")?);
            }
            News::View(view) => self.view = v1::CeremonyView::clone(view),
            News::Release(_) | News::Lost => return Ok(()),
        }
        let newest = self.submit_key.as_ref().map(SignedText::digest);
        let waits = self.sent_to.is_none()
            && (self.view.waiting_secs > 0 || self.view.state() == CeremonyState::Open);
        if self.shares.is_empty()
            || newest.is_none()
            || newest == self.sent_to
            || waits
            || is_final(self.view.state())
        {
            return Ok(());
        }
        match self.submit(session).await {
            // The next submit key, or the outcome, comes on the stream.
            Err(refusal)
                if [
                    "old-submit-key",
                    "wrong-submission",
                    "unreachable",
                    "stopping",
                    "decided",
                    "waiting",
                ]
                .contains(&refusal.code.as_str()) =>
            {
                self.sent_to = None;
                Ok(())
            }
            done => done,
        }
    }

    async fn submit(&mut self, session: &Session) -> Result<(), Refusal> {
        let submissions = self.submission(session)?;
        if submissions.is_empty() {
            return Ok(());
        }
        let request = v1::SubmitRequest {
            id: self.case.request.ceremony.to_string(),
            submissions,
        };
        let reply = session.ceremonies().submit(request).await?.into_inner();
        self.view = wire::required(reply.ceremony, "the ceremony")?;
        Ok(())
    }

    /// The shares, encrypted to the newest submit key (invariant 3).
    fn submission(&mut self, session: &Session) -> Result<Vec<Vec<u8>>, Refusal> {
        let Some(signed) = self.submit_key.as_ref().filter(|_| !self.shares.is_empty()) else {
            return Ok(Vec::new());
        };
        let key = check_submit_key(session, &self.case, signed)?;
        let shares = self.shares.iter().map(|share| {
            // Exposed to be encrypted.
            let secret = keyturn_seal::Secret::from_slice(share.valid.secret().expose());
            Some(SubmittedShare {
                credential: share.credential.clone(),
                version: share.version,
                group: share.group.clone(),
                x: share.valid.x(),
                share: secret?,
            })
        });
        let submission = Submission {
            approval_sha256: self.approval.digest().0,
            ceremony: self.case.request.ceremony.to_string(),
            person: self.person.clone(),
            shares: shares
                .collect::<Option<_>>()
                .ok_or(VerifyError::Missing("a share"))?,
        };
        let submission = submission
            .encrypt(&key)
            .map_err(|error| Refusal::new("internal", told(&error), "report this"))?;
        self.sent_to = Some(signed.digest());
        Ok(vec![submission])
    }
}

/// Invariant 3: a node of the charter made this key for this request.
fn check_submit_key(
    session: &Session,
    case: &Case,
    signed: &SignedText,
) -> Result<keyturn_seal::ShareKey, Refusal> {
    let what = || "the submit key".to_owned();
    verify::text(session.charter()?.1, signed, &what())?;
    let text: SubmitKey = signed
        .parse()
        .map_err(|source| VerifyError::Text(what(), source))?;
    let request = &case.request;
    let named = (
        &text.vault,
        text.ceremony,
        text.request,
        Signer::Node(text.node),
    );
    if named
        != (
            &request.vault,
            request.ceremony,
            request.digest(),
            signed.signer,
        )
    {
        return Err(VerifyError::Other {
            what: what(),
            by: "the request",
        }
        .into());
    }
    Ok(text
        .submit_key
        .as_str()
        .parse()
        .map_err(|_| VerifyError::Missing("a submit key"))?)
}

/// Decrypts and checks this person's shares; a line for each version of the request (invariant 2).
fn open_shares(
    context: &mut Context,
    session: &Session,
    case: &Case,
    opened: &mut token::Opened,
) -> Result<(Vec<ShareLine>, Vec<Share>), Refusal> {
    let person = session.profile.person;
    let named = case.request.group.as_ref();
    let mine: Vec<_> = case
        .sealed
        .iter()
        .map(|sealed| {
            (
                sealed,
                sealed.asked(named),
                sealed.share_of(sealed.asked(named), person),
            )
        })
        .collect();
    let files: Vec<&[u8]> = mine
        .iter()
        .filter_map(|(_, _, share)| share.and_then(|(_, envelope)| envelope))
        .collect();
    let mut texts = if files.is_empty() {
        Vec::new()
    } else {
        opened.token.open_shares(&files, &mut context.person)
    }
    .into_iter();
    let (mut lines, mut shares) = (Vec::new(), Vec::new());
    for (sealed, group, share) in mine {
        let line = &sealed.line;
        let unreadable = |why: &str| {
            context.ui.warn(format_args!(
                "your share of {} {} cannot be used: {why}",
                line.path, line.version
            ));
            ShareState::Unreadable
        };
        let state = match share {
            None => ShareState::NotHeld,
            Some((_, None)) => unreadable(
                "the vault did not send its envelope, or sent another one than was sealed",
            ),
            Some((holder, Some(_))) => match texts.next() {
                None => unreadable("the token gave no answer"),
                Some(Err(error)) => unreadable(&error.to_string()),
                Some(Ok(text)) => match sealed.sharing(group)?.read_envelope(holder.x, &text) {
                    Err(error) => unreadable(&told(&error)),
                    Ok(valid) => {
                        shares.push(Share {
                            credential: line.credential.to_string(),
                            version: line.version.number(),
                            group: group.to_string(),
                            valid,
                        });
                        ShareState::Held {
                            x: holder.x,
                            commitment: holder.commitment,
                        }
                    }
                },
            },
        };
        lines.push(ShareLine {
            path: line.path.clone(),
            version: line.version,
            state,
        });
    }
    if shares.is_empty() && !case.sealed.is_empty() {
        return Err(Refusal::new(
            "not-holder",
            "you have no readable share of anything in this request; your approval could open nothing",
            "another custodian must approve; `keyturn confirm PATH` tries your shares",
        ));
    }
    Ok((lines, shares))
}
