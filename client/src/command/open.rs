//! Making requests: what every purpose has in common.

use std::collections::BTreeSet;

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Policy, Waiver},
    definition::Definition,
    digest::Digest,
    id::{CeremonyId, GroupName, PersonId},
    key::ShareKey,
    name::{CredentialPath, Line, ScenarioName},
    reference::Version,
    text::{CredentialLine, Details, Purpose, Request, SignedText, Text as _},
    time::Span,
};

use super::Context;
use crate::{
    clock,
    refusal::Refusal,
    session::Session,
    token::{random, salt},
    verify::{VerifyError, wire},
};

/// A request without a policy of its own, like a charter change, is open this long.
const VALID_FOR: Span = Span::from_days(7);

/// Flags of every request beside its reason.
#[derive(Debug, Clone, Default, Args)]
pub struct About {
    /// The ticket
    #[arg(long, value_name = "TICKET")]
    pub ticket: Option<Line>,
    /// Where you can be asked
    #[arg(long, value_name = "TEXT")]
    pub contact: Option<Line>,
    /// What is affected
    #[arg(long, value_name = "TEXT")]
    pub systems: Option<Line>,
    /// The emergency, as the charter names it
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<ScenarioName>,
    /// A rule to set aside, seen and signed by everybody who approves
    #[arg(long, value_name = "RULE")]
    pub waive: Vec<Waiver>,
    /// How long the request stays open, like 4h
    #[arg(long, value_name = "SPAN", value_parser = Span::typed)]
    pub valid_for: Option<Span>,
}

/// What is asked for.
pub struct Ask {
    /// What is to happen.
    pub purpose: Purpose,
    /// Why.
    pub reason: Line,
    /// Everything else about it.
    pub about: About,
    /// The fallback group that is to open the credentials.
    pub group: Option<GroupName>,
    /// Who will use the secret, if somebody not enrolled.
    pub used_by: Option<Line>,
    /// The key to which the secret is encrypted.
    pub deliver_to: Option<ShareKey>,
    /// How long the credentials are checked out.
    pub check_out: Option<Span>,
    /// What to open.
    pub targets: Vec<Target>,
}

/// A credential to open.
pub struct Target {
    /// What it is.
    pub definition: Definition,
    /// Its live versions.
    pub lines: Vec<CredentialLine>,
    /// The version that is known to be the target's secret; 0 for none.
    pub current: u64,
    /// To whom its newest live version is sealed, as the daemon tells it.
    pub holders: BTreeSet<PersonId>,
}

/// A signed request, not sent yet.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The request.
    pub request: Request,
    /// Its text with the signature.
    pub signed: SignedText,
    /// The details text.
    pub details: String,
}

/// Looks a credential up, with all its live versions.
pub async fn target(session: &Session, path: &CredentialPath) -> Result<Target, Refusal> {
    let mut after = String::new();
    let mut lines = Vec::new();
    let mut newest = (0, BTreeSet::new());
    loop {
        let request = v1::ShowCredentialRequest {
            credential: wire::at_path(path),
            page: wire::next_page(after),
            all_versions: false,
        };
        let reply = session.credentials().show(request).await?.into_inner();
        let document = wire::required(reply.definition, "the definition")?;
        let (definition, _) = session.definition(path, &document.document).await?;
        for version in reply
            .versions
            .into_iter()
            .filter(|version| is_live(version.state()))
        {
            if version.version > newest.0 {
                let ids = version.holders.iter();
                let ids = ids.map(|person| wire::parse(&person.id, "the id of a person"));
                newest = (version.version, ids.collect::<Result<_, _>>()?);
            }
            lines.push(CredentialLine {
                path: path.clone(),
                credential: definition.credential,
                version: Version::new(version.version).ok_or(VerifyError::Missing("a version"))?,
                manifest: wire::digest(&version.manifest_sha256, "the digest of a manifest")?,
            });
        }
        after = reply.next_page;
        if after.is_empty() {
            lines.sort_by_key(|line| line.version);
            let current = reply
                .credential
                .map(|credential| credential.current)
                .unwrap_or_default();
            return Ok(Target {
                definition,
                lines,
                current,
                holders: newest.1,
            });
        }
    }
}

fn is_live(state: v1::VersionState) -> bool {
    matches!(
        state,
        v1::VersionState::Candidate | v1::VersionState::Current | v1::VersionState::Superseded
    )
}

/// Makes and signs a request.
pub fn prepare(context: &mut Context, session: &Session, ask: Ask) -> Result<Prepared, Refusal> {
    let (charter_ref, charter) = session.charter()?;
    let me = session.me()?;
    let About {
        ticket,
        contact,
        systems,
        scenario,
        waive,
        valid_for,
    } = ask.about;
    let mut policies: Vec<Policy> = ask
        .targets
        .iter()
        .filter_map(|target| charter.policy_for(&target.definition))
        .cloned()
        .collect();
    if let Some(name) = &scenario {
        let unknown = || {
            Refusal::new(
                "no-such-scenario",
                format_args!("the charter has no scenario {name}"),
                "see `keyturn charter show`",
            )
        };
        let scenario = charter.scenario(name).ok_or_else(unknown)?;
        policies = policies
            .iter()
            .map(|policy| policy.under(scenario))
            .collect();
    }
    let delivers = ask.purpose.delivers();
    let check_out = ask
        .check_out
        .or_else(|| policies.iter().map(|policy| policy.check_out_secs).min());
    let valid_for = valid_for
        .or_else(|| policies.iter().map(|policy| policy.valid_for_secs).min())
        .unwrap_or(VALID_FOR);
    let now = clock::now();
    let details = Details {
        salt: salt()?,
        reason: ask.reason,
        contact,
        systems,
    };
    let mut credentials: Vec<_> = ask
        .targets
        .into_iter()
        .flat_map(|target| target.lines)
        .collect();
    credentials.sort_by(|one, other| (&one.path, one.version).cmp(&(&other.path, other.version)));
    let request = Request {
        vault: session.vault.origin.clone(),
        ceremony: CeremonyId::from_parts(now, random()?),
        purpose: ask.purpose,
        scenario,
        group: ask.group,
        requested_by: me.reference(),
        used_by: ask.used_by,
        deliver_to: ask.deliver_to,
        ticket,
        details: details.digest(),
        check_out: check_out.filter(|_| delivers),
        waive: waive.into_iter().collect::<BTreeSet<_>>(),
        charter: charter_ref,
        log: session.log_head()?,
        opened: now.stamp(),
        valid_for,
        salt: salt()?,
        credentials,
    };
    let signed = context.sign(session, &request)?;
    Ok(Prepared {
        request,
        signed,
        details: details.to_text(),
    })
}

/// Opens the ceremony.
pub async fn send(session: &Session, prepared: &Prepared) -> Result<v1::CeremonyView, Refusal> {
    send_with(session, prepared, Vec::new()).await
}

/// Opens the ceremony, with the restore document that it names.
pub async fn send_with(
    session: &Session,
    prepared: &Prepared,
    restore: Vec<u8>,
) -> Result<v1::CeremonyView, Refusal> {
    let request = v1::OpenRequest {
        request: Some(wire::wire_text(&prepared.signed)),
        details: prepared.details.clone(),
        restore,
    };
    let reply = session.ceremonies().open(request).await?.into_inner();
    let view = wire::required(reply.ceremony, "the ceremony")?;
    let digest: Digest = prepared.signed.digest();
    if view.request_sha256 == digest.0 {
        Ok(view)
    } else {
        Err(VerifyError::Other {
            what: "the ceremony".to_owned(),
            by: "this request",
        }
        .into())
    }
}
