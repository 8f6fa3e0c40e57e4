//! `keyturn join`: a person looks at the first charter, compares its six words, and proves their keys.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    charter::{Chain, Charter},
    digest::Salt,
    file::{MAX_FILE_BYTES, Welcome},
    name::Name,
    reference::CharterRef,
    text::Join as JoinText,
    words::spoken,
};
use serde_json::json;

use super::{Context, device, file_error, read_named, release::keep_receipt};
use crate::{
    clock,
    home::{Enrolled, Profile, Vault},
    refusal::Refusal,
    session::Session,
    token,
    ui::{Style, clean},
    verify::{self, VerifyError, log, wire},
};

/// Join a vault with the welcome file made for you.
#[derive(Debug, Args)]
pub struct Join {
    /// The welcome file
    #[arg(required_unless_present = "device")]
    file: Option<PathBuf>,
    /// Let your token sign in this computer for a vault that you have joined
    #[arg(long, conflicts_with = "file")]
    device: bool,
    /// What you call this computer
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    name: Option<Name>,
}

impl Join {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        if self.device {
            return device::join(context, self.name).await;
        }
        let mut profile = context.home.profile()?;
        let file = self.file.unwrap_or_default();
        let bytes = read_named(&file, u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX))?;
        let welcome = Welcome::from_bytes(&bytes).map_err(|error| file_error(&file, &error))?;
        let (chain, mine) = check(&profile, &welcome)?;
        let charter = chain
            .newest()
            .ok_or(VerifyError::Missing("the first charter"))?
            .1;
        context.ui.note(summary(&context, charter, welcome.genesis));
        let question = if welcome.in_force.is_none() {
            "Compare the six words with the other founders by voice. Are they the same?"
        } else {
            "Compare the six words with somebody of the vault by voice. Are they the same?"
        };
        context
            .person
            .confirm(question, &welcome.genesis.digest.to_string())?;

        let mut opened = token::open_enrolled(&context.home, &mine, &mut context.person)?;
        let nonce = opened
            .token
            .open_shares(&[&welcome.nonce.0], &mut context.person);
        let nonce = nonce
            .into_iter()
            .next()
            .ok_or(VerifyError::Missing("the nonce"))??;
        // Exposed to its parser: whoever can read it holds the share key.
        let nonce: Salt = std::str::from_utf8(nonce.expose())
            .ok()
            .and_then(|nonce| nonce.parse().ok())
            .ok_or(VerifyError::Missing("a nonce in the welcome file"))?;
        let join = JoinText {
            vault: welcome.origin.clone(),
            genesis: welcome.genesis.digest,
            charter: welcome.in_force.unwrap_or(welcome.genesis),
            enrolment: welcome.enrolment,
            person: profile.reference(),
            token: mine.token,
            nonce,
            signed: clock::now().stamp(),
        };
        let later = welcome.in_force.is_some();
        let signed = opened.sign(&join, &mut context.person)?;
        let digest = signed.digest();

        context.home.keep_charter(1, &welcome.charter.0)?;
        profile.vault = Some(Vault {
            origin: welcome.origin,
            endpoints: welcome.endpoints,
            server_pins: welcome.server_pins,
            vkey: welcome.vkey,
            genesis: welcome.genesis.digest,
        });
        context.home.keep_profile(&profile)?;
        let session = Session::connect(&context.home, context.ui).await?;
        // A founder vouches for the others' tokens. Strangers get no documents: they look when they are in.
        if !later {
            session.attested(1).await?;
        }
        let request = v1::JoinRequest {
            join: Some(wire::wire_text(&signed)),
            founding: None,
        };
        let reply = session.charters().join(request).await?.into_inner();
        if reply.joined.is_some() {
            let proven = log::receipt(reply.joined, &session.vkey()?)?;
            keep_receipt(&context.home, "joined", &proven)?;
        }
        let awaited: Vec<_> = reply
            .awaited
            .iter()
            .map(|person| clean(&person.name))
            .collect();
        context.leave_profile(&session, &mut opened);
        let document = json!({ "origin": join.vault, "charter": join.charter, "founded": reply.founded, "awaited": awaited, "join": digest });
        Ok(context
            .ui
            .result(&document, || match (reply.founded, awaited.is_empty()) {
                _ if later => format!(
                    "You have proven your keys to {}. Tell its operator the digest of your join:\n  {digest}\nYou are in when a charter that names it takes force.",
                    join.vault
                ),
                (true, _) => format!(
                    "You have joined {}. It is founded: charter 1 is in force.",
                    join.vault
                ),
                (false, false) => format!(
                    "You have joined {}. It is founded when these have joined too: {}.",
                    join.vault,
                    awaited.join(", ")
                ),
                (false, true) => format!("You have joined {}.", join.vault),
            })?)
    }
}

/// The welcome is for this person and these keys, and holds a valid first charter.
fn check(profile: &Profile, welcome: &Welcome) -> Result<(Chain, Enrolled), Refusal> {
    let chain = verify::charter::begin(&welcome.charter.0, welcome.genesis.digest)?;
    let wrong = |message: &str, hint: &str| Err(Refusal::new("denied", message, hint));
    let mine = profile
        .tokens()
        .into_iter()
        .find(|mine| mine.enrolment == welcome.enrolment);
    let Some(mine) = mine.filter(|_| welcome.person == profile.person) else {
        return wrong(
            "this welcome file is for somebody else, or for other keys of yours",
            "use the file that was made from your enrolment",
        );
    };
    if profile
        .vault
        .as_ref()
        .is_some_and(|vault| vault.genesis != welcome.genesis.digest)
    {
        return wrong(
            "this home has joined another vault",
            "use another home for another vault (--home)",
        );
    }
    let charter = chain.newest().map(|(_, charter)| charter);
    if charter.is_some_and(|charter| charter.log_key != welcome.vkey) {
        return wrong(
            "the welcome file and its charter name different log keys",
            "ask for a new welcome file",
        );
    }
    let founder = charter.and_then(|charter| charter.person_of_token(mine.token.id));
    if welcome.in_force.is_none()
        && founder.is_none_or(|(person, _)| person.reference() != profile.reference())
    {
        return wrong(
            "the first charter does not have your token",
            "ask for a new welcome file",
        );
    }
    Ok((chain, mine))
}

/// What somebody must know before they found a vault.
fn summary(context: &Context, charter: &Charter, genesis: CharterRef) -> String {
    let mut text = format!(
        "The vault {}, charter {}\n\n",
        charter.origin, genesis.index
    );
    for person in &charter.persons {
        let roles: Vec<_> = person
            .roles
            .iter()
            .map(|role| format!("{role:?}").to_lowercase())
            .collect();
        let tokens: Vec<_> = person
            .tokens
            .iter()
            .map(|token| match (&token.attestation, token.serial) {
                (Some(facts), Some(serial)) => format!("{} {serial}, {facts}", token.kind),
                _ => token.kind.to_string(),
            })
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {:12} {} ({})",
            person.name,
            roles.join(", "),
            tokens.join(", ")
        );
    }
    text.push('\n');
    for group in &charter.groups {
        let names: Vec<_> = charter
            .holders(&group.name)
            .iter()
            .map(|person| person.name.to_string())
            .collect();
        let governing = if group.governing {
            ", decides about the charter"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "  group {}: any {} of {} ({}){governing}",
            group.name,
            group.k,
            group.n(),
            names.join(", ")
        );
    }
    for warning in charter.warnings() {
        let _ = writeln!(
            text,
            "  {} {warning}",
            context.ui.paint_err(Style::Warn, "warning:")
        );
    }
    let words = context.ui.paint_err(Style::Bold, spoken(&genesis.digest));
    let _ = write!(
        text,
        "\n  SHA-256    {}\n  six words  {words}\n",
        genesis.digest
    );
    text
}
