//! A request as a custodian gets to see it: everything verified before it is shown.

use std::fmt::Write as _;

use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Charter, Policy, diff, touched_groups},
    definition::Definition,
    digest::Digest,
    id::{CeremonyId, PersonId},
    jcs::Document as _,
    reference::TokenRef,
    text::{Approval, Change, Decision, Details, Purpose, Request, SignedText, Text as _},
    words::spoken,
};

use super::Context;
use crate::{
    clock,
    refusal::Refusal,
    session::Session,
    ui::{Style, Ui, clean},
    verify::{self, VerifyError, sealed::Sealed, wire},
};

/// What is said where the vault does not have the details.
const NO_DETAILS: &str = "not there: erased, or not in the copy that the vault was restored from";

/// A verified request with all that belongs to it.
#[derive(Clone)]
pub struct Case {
    /// The request.
    pub request: Request,
    /// Its text with the signature.
    pub signed: SignedText,
    /// The free text; none where the vault does not have it any more.
    pub details: Option<String>,
    /// The versions that it names, in its order.
    pub sealed: Vec<Sealed>,
    /// What others have said, verified.
    pub statements: Vec<Statement>,
    /// What others said when it was over, not verified yet.
    pub reviews: Vec<v1::SignedStatement>,
    /// How many statements could not be verified; they stand in nobody's way.
    pub unverified: usize,
    /// Where shares go, not verified yet.
    pub submit_key: Option<SignedText>,
    /// The ceremony as the daemon tells it.
    pub view: v1::CeremonyView,
}

/// What somebody said to a request.
#[derive(Clone)]
pub struct Statement {
    /// The text.
    pub approval: Approval,
    /// Its digest.
    pub digest: Digest,
    /// The reason of a refusal.
    pub reason: Option<String>,
}

impl Case {
    /// Fetches a ceremony and verifies everything about it.
    pub async fn load(session: &Session, ceremony: CeremonyId) -> Result<Self, Refusal> {
        let mut case = Self::glance(session, ceremony).await?;
        let mut after = String::new();
        let mut versions = Vec::new();
        loop {
            let reply = show(session, ceremony, after).await?;
            versions.extend(reply.versions);
            after = reply.next_page;
            if after.is_empty() {
                break;
            }
        }
        if versions.len() != case.request.credentials.len() {
            return Err(VerifyError::Missing("a version that the request names").into());
        }
        for (line, version) in case.request.credentials.iter().zip(versions) {
            case.sealed.push(session.sealed(line, version).await?);
        }
        Ok(case)
    }

    /// The request and what was said to it, without the sealed versions.
    pub async fn glance(session: &Session, ceremony: CeremonyId) -> Result<Self, Refusal> {
        let reply = show(session, ceremony, String::new()).await?;
        let view = wire::required(reply.ceremony, "the ceremony")?;
        let signed = wire::signed_text(reply.request, "the request")?;
        let request: Request = signed
            .parse()
            .map_err(|source| VerifyError::Text("the request".to_owned(), source))?;
        let charter = signer_charter(session, &request)?;
        verify::text(charter, &signed, "the request")?;
        let person = verify::person_of(charter, signed.signer)
            .map(keyturn_vault::charter::Person::reference);
        if person.as_ref() != Some(&request.requested_by) {
            return Err(VerifyError::Person("the request".to_owned()).into());
        }
        if request.ceremony != ceremony || request.vault != session.vault.origin {
            return Err(VerifyError::Other {
                what: "the request".to_owned(),
                by: "this ceremony",
            }
            .into());
        }
        let details = Some(reply.details).filter(|details| !details.is_empty());
        if details
            .as_ref()
            .is_some_and(|details| Digest::of(details.as_bytes()) != request.details)
        {
            return Err(VerifyError::Other {
                what: "the details".to_owned(),
                by: "the request",
            }
            .into());
        }
        let told = reply.statements.len();
        let said = |statement| said(session, &request, statement).ok();
        let statements: Vec<_> = reply.statements.into_iter().filter_map(said).collect();
        Ok(Self {
            unverified: told.saturating_sub(statements.len()),
            statements,
            reviews: reply.reviews,
            request,
            signed,
            details,
            sealed: Vec::new(),
            submit_key: reply
                .submit_key
                .map(|key| wire::signed_text(Some(key), "the submit key"))
                .transpose()?,
            view,
        })
    }

    /// Whether a waiting time comes before the shares.
    pub fn waits(&self, session: &Session) -> Result<bool, Refusal> {
        let over = self.view.state() == v1::CeremonyState::Approved && self.view.waiting_secs == 0;
        let mut policies = self.policies(session.charter()?.1);
        Ok(!over && policies.any(|policy| policy.waiting_secs.secs() > 0))
    }

    /// The policies of its credentials, under its scenario.
    fn policies<'a>(&'a self, charter: &'a Charter) -> impl Iterator<Item = Policy> + 'a {
        let scenario = self.request.scenario.as_ref();
        let scenario = scenario.and_then(|name| charter.scenario(name));
        self.sealed.iter().filter_map(move |sealed| {
            let policy = charter.policy_for(&sealed.in_force)?;
            Some(scenario.map_or_else(|| policy.clone(), |scenario| policy.under(scenario)))
        })
    }

    /// Whether an approval with this token can count: told before PIN and touch.
    pub fn takes(&self, session: &Session, token: TokenRef) -> Result<(), Refusal> {
        let charter = session.charter()?.1;
        let Some((_, known)) = charter.person_of_token(token.id) else {
            return Ok(());
        };
        let weak = self.policies(charter).find_map(|policy| {
            let mut lacks = policy.lacks(known).into_iter();
            let lack = lacks.find(|lack| !self.request.waive.contains(&lack.waiver()))?;
            Some((policy.name, lack))
        });
        weak.map_or(Ok(()), |(policy, lack)| {
            Err(Refusal::new(
                "rule-broken",
                format_args!("{token} does not meet policy {policy}: {lack}"),
                format_args!(
                    "approve with another token of yours, or let the requester ask again with --waive {}",
                    lack.waiver()
                ),
            ))
        })
    }

    /// Shows six plain lines, then everything that is signed, whole.
    pub async fn show(&self, context: &Context, session: &Session) -> Result<(), Refusal> {
        let ui = context.ui;
        let mut text = match self.restore(session).await? {
            Some(restore) => self.plain_restore(ui, session, &restore)?,
            None => self.plain(ui, session)?,
        };
        text.push_str("\n--- the request, whole ---\n");
        text.push_str(&clean(&self.signed.text));
        text.push_str("--- the details ---\n");
        text.push_str(
            &self
                .details
                .as_deref()
                .map_or_else(|| format!("({NO_DETAILS})\n"), clean),
        );
        if let Some(difference) = self.difference(session).await? {
            text.push_str("--- what it changes ---\n");
            text.push_str(&difference);
        }
        let digest = self.request.digest();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "---\nSHA-256    {digest}\nsix words  {}",
            ui.paint_err(Style::Bold, spoken(&digest))
        );
        let requester = &self.request.requested_by;
        if requester.id != session.profile.person {
            let _ = write!(
                text,
                "\nLet {} read the six words to you: they must be the same.",
                requester.name
            );
        }
        ui.note(text);
        Ok(())
    }

    /// Who, what, why, how long, waivers, anything unusual.
    fn plain(&self, ui: Ui, session: &Session) -> Result<String, Refusal> {
        let request = &self.request;
        let used_by = request
            .used_by
            .as_ref()
            .map(|by| format!(", to be used by {by}"))
            .unwrap_or_default();
        let what = super::show::what(request);
        let reason = self.reason();
        let ticket = request
            .ticket
            .as_ref()
            .map(|ticket| format!(" ({ticket})"))
            .unwrap_or_default();
        let long = match request.check_out {
            Some(span) => format!("checked out for {span} once released"),
            None => format!("open for {}", request.valid_for),
        };
        let waived: Vec<_> = request.waive.iter().map(ToString::to_string).collect();
        let waived = super::show::odd(ui, &waived);
        let odd = super::show::odd(ui, &self.unusual(session)?);
        Ok(format!(
            "who       {}{used_by}\nwhat      {what}\nwhy       {reason}{ticket}\nhow long  {long}\nwaived    {waived}\nunusual   {odd}\n",
            request.requested_by.name
        ))
    }

    /// What it was about, for those who decide about another request that names it.
    fn told_of(&self) -> String {
        format!(
            "{}: {}, asked for by {}: {}\n",
            self.request.ceremony,
            super::show::what(&self.request),
            self.request.requested_by.name,
            self.reason()
        )
    }

    /// Why it was asked for.
    fn reason(&self) -> String {
        let details = self.details.as_deref();
        let details = details.and_then(|details| Details::parse(details).ok());
        details.map_or_else(
            || format!("({NO_DETAILS})"),
            |details| details.reason.to_string(),
        )
    }

    /// Whether this person's approval stands.
    pub fn approved_by(&self, person: PersonId) -> bool {
        self.last_words().any(|said| {
            said.approval.custodian.id == person
                && matches!(said.approval.decision, Decision::Approve(_))
        })
    }

    pub(super) fn unusual(&self, session: &Session) -> Result<Vec<String>, Refusal> {
        let request = &self.request;
        let mut odd = Vec::new();
        for statement in self.last_words() {
            let name = &statement.approval.custodian.name;
            if let Decision::Refuse { .. } = statement.approval.decision {
                let reason = statement
                    .reason
                    .clone()
                    .unwrap_or_else(|| "no reason is kept".to_owned());
                odd.push(format!("{name} has refused: {reason}"));
            }
        }
        if self.unverified > 0 {
            odd.push(format!(
                "{} statements of others could not be verified",
                self.unverified
            ));
        }
        if let Some(scenario) = &request.scenario {
            odd.push(format!("scenario {scenario}"));
        }
        if let Some(group) = &request.group {
            odd.push(format!("the fallback group {group} is asked"));
        }
        if request.charter != session.charter()?.0 {
            odd.push(format!(
                "the requester saw charter {}, and {} is in force",
                request.charter.index,
                session.charter()?.0.index
            ));
        }
        if request.log.size > session.log_head()?.size {
            odd.push("the requester saw a longer log than this computer".to_owned());
        }
        let skew = clock::now().ms().abs_diff(request.opened.time().ms());
        if skew > request.valid_for.ms() {
            odd.push(format!(
                "by the requester's clock it was made on {}",
                request.opened
            ));
        }
        Ok(odd)
    }

    /// What each person said last.
    pub fn last_words(&self) -> impl Iterator<Item = &Statement> {
        self.statements
            .iter()
            .enumerate()
            .filter_map(|(place, statement)| {
                let person = statement.approval.custodian.id;
                let mut later = self.statements.iter().skip(place.saturating_add(1));
                later
                    .all(|later| later.approval.custodian.id != person)
                    .then_some(statement)
            })
    }

    /// What a change would put into force.
    async fn difference(&self, session: &Session) -> Result<Option<String>, Refusal> {
        if super::follow::is_final(self.view.state()) {
            return Ok(None);
        }
        let (_, old) = session.charter()?;
        Ok(match &self.request.purpose {
            Purpose::Change(Change::Charter(named)) => {
                let bytes = session.object(named.digest).await?;
                let new = Charter::from_bytes(&bytes)
                    .map_err(|source| VerifyError::Document("the proposed charter", source))?;
                let in_force = session.charter()?.0;
                if new.index != named.index || new.follows(old, in_force.digest).is_err() {
                    return Err(VerifyError::Other {
                        what: "the proposed charter".to_owned(),
                        by: "the request",
                    }
                    .into());
                }
                Some(charter_lines(old, &new))
            }
            Purpose::Change(Change::Definition {
                credential,
                old: named,
                new,
            }) => {
                let (old, new) = (session.object(*named).await?, session.object(*new).await?);
                let read = |bytes: &[u8]| {
                    Definition::from_bytes(bytes)
                        .map_err(|source| VerifyError::Document("a definition", source))
                };
                let path = read(&old)?.path;
                let (in_force, _) = session.definition(&path, &old).await?;
                if in_force.credential != *credential {
                    return Err(VerifyError::Other {
                        what: format!("the credential at {path}"),
                        by: "the request",
                    }
                    .into());
                }
                read(&new)?
                    .follows(&in_force, *named)
                    .map_err(|source| VerifyError::Definition(path.to_string(), source))?;
                Some(format!(
                    "from {}\nto   {}\n",
                    clean(&String::from_utf8_lossy(&old)),
                    clean(&String::from_utf8_lossy(&new))
                ))
            }
            Purpose::Extend {
                checkout: other, ..
            }
            | Purpose::Erase {
                ceremony: other, ..
            } => Some(Self::glance(session, *other).await?.told_of()),
            Purpose::Unseal | Purpose::Drill | Purpose::Reshare(_) | Purpose::AcceptRestore(_) => {
                None
            }
        })
    }
}

/// The difference of two charters, and who must agree.
pub fn charter_lines(old: &Charter, new: &Charter) -> String {
    let mut lines: Vec<String> = diff(old, new)
        .iter()
        .map(|line| clean(&line.to_string()))
        .collect();
    let mut groups = touched_groups(old, new);
    groups.extend(old.governing().map(|group| group.name.clone()));
    for group in groups {
        let k = old.group(&group).map(|group| group.k).unwrap_or_default();
        lines.push(format!("needs {k} of {group}"));
    }
    lines.extend(
        new.warnings()
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    lines.push(String::new());
    lines.join("\n")
}

async fn show(
    session: &Session,
    ceremony: CeremonyId,
    after: String,
) -> Result<v1::ShowReply, Refusal> {
    let request = v1::ShowRequest {
        id: ceremony.to_string(),
        page: wire::next_page(after),
    };
    Ok(session.ceremonies().show(request).await?.into_inner())
}

/// The charter by which a request is verified: the one that it names.
fn signer_charter<'a>(session: &'a Session, request: &Request) -> Result<&'a Charter, Refusal> {
    let charter = session.chain.find(&request.charter);
    Ok(charter.ok_or_else(|| VerifyError::Other {
        what: "the charter in force".to_owned(),
        by: "the request",
    })?)
}

fn said(
    session: &Session,
    request: &Request,
    statement: v1::SignedStatement,
) -> Result<Statement, VerifyError> {
    let what = || "what a custodian said".to_owned();
    let signed = wire::signed_text(statement.statement, "a statement")?;
    verify::document(
        &session.chain,
        signed.signer,
        signed.text.as_bytes(),
        &signed.signature,
        &what(),
    )?;
    let approval: Approval = signed
        .parse()
        .map_err(|source| VerifyError::Text(what(), source))?;
    if signed.signer != keyturn_vault::reference::Signer::Token(approval.token.id)
        || approval.request != request.digest()
    {
        return Err(VerifyError::Other {
            what: what(),
            by: "this request",
        });
    }
    let reason = match &approval.decision {
        Decision::Refuse { reason } if Digest::of(statement.details.as_bytes()) == *reason => {
            Details::parse(&statement.details)
                .ok()
                .map(|details| details.reason.to_string())
        }
        Decision::Approve(_) | Decision::Refuse { .. } | Decision::Retract { .. } => None,
    };
    Ok(Statement {
        approval,
        digest: signed.digest(),
        reason,
    })
}
