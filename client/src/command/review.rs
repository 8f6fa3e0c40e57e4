//! `keyturn review`: somebody who had no part in a ceremony looks at it when it is over, and signs what
//! they think of it.

use std::fmt::Write as _;

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    id::CeremonyId,
    name::Line,
    text::{Decision, Details, Outcome, Review as ReviewText, Text as _},
};
use serde_json::json;

use super::{Context, case::Case, follow, show};
use crate::{
    clock,
    refusal::Refusal,
    session::Session,
    token,
    ui::{clean, table},
    verify::{self, wire},
};

/// Look at a decided ceremony afterwards, and say what you think of it; without one, see which wait for that.
#[derive(Debug, Args)]
pub struct Review {
    /// The ceremony; without it, those that set a rule aside or were made in an emergency, and that nobody has reviewed
    ceremony: Option<CeremonyId>,
    /// It was as it should be
    #[arg(long, requires = "ceremony", conflicts_with = "questioned")]
    in_order: bool,
    /// It needs an answer; say why with --note
    #[arg(long, requires = "note", requires = "ceremony")]
    questioned: bool,
    /// Your words; they can be erased later, their digest stays in the log
    #[arg(long, value_name = "TEXT", requires = "ceremony")]
    note: Option<Line>,
}

impl Review {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let Some(ceremony) = self.ceremony else {
            return waiting(&context, &session).await;
        };
        let case = Case::glance(&session, ceremony).await?;
        let outcome = match (self.in_order, self.questioned) {
            (true, _) => Outcome::InOrder,
            (_, true) => Outcome::Questioned,
            (false, false) if self.note.is_none() => return look(&context, &session, &case),
            (false, false) => {
                return Err(Refusal::new(
                    "malformed",
                    "a note alone says neither yes nor no",
                    "add --in-order or --questioned",
                ));
            }
        };
        let view = sign(&mut context, &session, &case, outcome, self.note).await?;
        Ok(context.ui.result(&show::ceremony(&view), || {
            "Reviewed; it is in the log with your signature.".to_owned()
        })?)
    }
}

async fn sign(
    context: &mut Context,
    session: &Session,
    case: &Case,
    outcome: Outcome,
    note: Option<Line>,
) -> Result<v1::CeremonyView, Refusal> {
    let note = match note {
        Some(reason) => Some(Details {
            salt: token::salt()?,
            reason,
            contact: None,
            systems: None,
        }),
        None => None,
    };
    let review = ReviewText {
        vault: session.vault.origin.clone(),
        ceremony: case.request.ceremony,
        request: case.request.digest(),
        reviewer: session.me()?.reference(),
        outcome,
        note: note.as_ref().map(Details::digest),
        log: session.log_head()?,
        signed: clock::now().stamp(),
    };
    let call = v1::ReviewRequest {
        review: Some(wire::wire_text(&context.sign(session, &review)?)),
        details: note.map(|note| note.to_text()).unwrap_or_default(),
    };
    let reply = session.ceremonies().review(call).await?.into_inner();
    Ok(wire::required(reply.ceremony, "the ceremony")?)
}

/// What there is to judge by: the request, what was said to it, what came of it.
fn look(context: &Context, session: &Session, case: &Case) -> Result<(), Refusal> {
    let said: Vec<_> = case
        .statements
        .iter()
        .map(|said| {
            let approval = &said.approval;
            let decision = match approval.decision {
                Decision::Approve(_) => "approved",
                Decision::Refuse { .. } => "refused",
                Decision::Retract { .. } => "took it back",
            };
            json!({
                "person": approval.custodian.name, "decision": decision, "token": approval.token.to_string(),
                "signed": approval.signed, "reason": said.reason,
            })
        })
        .collect();
    let reviews: Vec<_> = opinions(session, case)
        .into_iter()
        .map(|(review, note)| {
            let questioned = review.outcome == Outcome::Questioned;
            json!({ "person": review.reviewer.name, "questioned": questioned, "signed": review.signed, "note": note })
        })
        .collect();
    let mut document = show::ceremony(&case.view);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("request".to_owned(), json!(case.signed.text));
        fields.insert("details".to_owned(), json!(case.details));
        fields.insert("said".to_owned(), json!(said));
        fields.insert("reviews".to_owned(), json!(reviews));
    }
    Ok(context.ui.result(&document, || {
        let word = |value: &serde_json::Value| value.as_str().map(clean).unwrap_or_default();
        let mut text = clean(&case.signed.text);
        text.push_str("--- the details ---\n");
        text.push_str(
            &case
                .details
                .as_deref()
                .map_or_else(|| "(erased)\n".to_owned(), clean),
        );
        text.push_str("--- what was said ---\n");
        let row = |said: &serde_json::Value| {
            ["signed", "person", "decision", "token", "reason"]
                .map(|name| word(&said[name]))
                .to_vec()
        };
        text.push_str(&table(&said.iter().map(row).collect::<Vec<_>>()));
        text.push_str("--- what came of it ---\n");
        text.push_str(&show::state(&case.view));
        for review in &reviews {
            let outcome = if review["questioned"] == true {
                "questioned by"
            } else {
                "found in order by"
            };
            // Writing to a string does not fail.
            let (person, signed) = (word(&review["person"]), word(&review["signed"]));
            let _ = write!(text, "\n{outcome} {person} on {signed}");
            if let Some(note) = review["note"].as_str() {
                let _ = write!(text, ": {}", clean(note));
            }
        }
        text
    })?)
}

/// What reviewers said of a ceremony, verified, with their notes; what is not theirs is left out.
pub(super) fn opinions(session: &Session, case: &Case) -> Vec<(ReviewText, Option<Line>)> {
    let request = case.request.digest();
    let opinion = |said: &v1::SignedStatement| {
        let signed = wire::signed_text(said.statement.clone(), "a review").ok()?;
        let review: ReviewText = signed.parse().ok()?;
        let bytes = signed.text.as_bytes();
        let (chain, signer) = (&session.chain, signed.signer);
        verify::document(chain, signer, bytes, &signed.signature, "a review").ok()?;
        let by = chain
            .all()
            .find_map(|charter| verify::person_of(charter, signer))?;
        (by.id == review.reviewer.id && review.request == request).then_some(())?;
        let text = Details::parse(&said.details).ok();
        let note = text.filter(|text| Some(text.digest()) == review.note);
        Some((review, note.map(|text| text.reason)))
    };
    case.reviews.iter().filter_map(opinion).collect()
}

/// Decided ceremonies that set a rule aside or were made in an emergency, and that nobody has reviewed.
async fn waiting(context: &Context, session: &Session) -> Result<(), Refusal> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let request = v1::ListCeremoniesRequest {
            page: wire::next_page(after),
            waiting_for_me: false,
            open_only: false,
            credential: String::new(),
        };
        let reply = session.ceremonies().list(request).await?.into_inner();
        let odd = |view: &v1::CeremonyView| !view.waived.is_empty() || !view.scenario.is_empty();
        let waits = |view: &v1::CeremonyView| {
            follow::is_final(view.state()) && odd(view) && view.reviews.is_empty()
        };
        found.extend(reply.ceremonies.into_iter().filter(waits));
        after = reply.next_page;
        if after.is_empty() {
            break;
        }
    }
    let document: Vec<_> = found.iter().map(show::ceremony).collect();
    Ok(context.ui.result(&document, || {
        if found.is_empty() {
            return "Nothing waits for a review.".to_owned();
        }
        table(&found.iter().map(show::ceremony_row).collect::<Vec<_>>())
    })?)
}
