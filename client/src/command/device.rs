//! A computer that the vault does not know: signed in by a token of its user, for one command or for good.
//!
//! # Invariants
//! 1. What the token carries is a pin: the charter's chain must lead from its genesis digest to the charter that it
//!    names, the log must continue its checkpoint, and the charter must have this token's key.
//! 2. The key of a computer that is used for one command lies in a folder that goes with the command, also when
//!    that is interrupted.

use std::{fs, io, process};

use keyturn_hsm::device::DeviceKey;
use keyturn_proto::v1::{self, charter_client::CharterClient};
use keyturn_vault::{
    id::DeviceId,
    name::Name,
    reference::CharterRef,
    text::{EnrolledDevice, NewDevice},
    words::spoken,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, enroll};
use crate::{
    clock,
    connect::connect,
    home::{Enrolled, Format, Home, HomeError, Pocket, Profile},
    refusal::Refusal,
    session::{DEVICE_FILE, Session, kept_chain, route},
    token::{self, Opened},
    ui::Style,
    verify::{self, VerifyError, log, wire},
};

/// What shells add to the number of the signal that ended a command.
const ENDED_BY_SIGNAL: i32 = 128;

/// `keyturn join --device`: this computer is signed in and stays.
pub(super) async fn join(mut context: Context, name: Option<Name>) -> Result<(), Refusal> {
    match context.home.profile() {
        Ok(profile) => {
            let vault = profile.vault.clone().ok_or(HomeError::NoVault)?;
            let chain = kept_chain(&context.home, &vault)?;
            let newest = chain.newest().map(|(newest, _)| newest);
            let newest = newest.ok_or(VerifyError::Missing("the first charter"))?;
            let mut opened = context.token(&profile)?;
            let home = context.home.clone();
            sign_in(&mut context, &home, &profile, newest, name, &mut opened).await?;
        }
        Err(HomeError::None(_)) => {
            let (pocket, mut opened) = carried(&mut context)?.ok_or_else(no_pocket)?;
            context.home.create()?;
            let home = context.home.clone();
            from_pocket(&mut context, &home, &pocket, name, &mut opened).await?;
        }
        Err(error) => return Err(error.into()),
    }
    let session = Session::open(&context.home, context.ui).await?;
    session.attested(1).await?;
    let (charter, _) = session.charter()?;
    let document = json!({ "person": session.profile.person, "device": session.profile.device, "charter": charter });
    Ok(context.ui.result(&document, || {
        format!(
            "This computer is signed in for {}: it may speak to {}; what you ask for here, your token signs.\nIt stays so until the charter changes; then sign it in again, or have the charter name it.",
            session.profile.name, session.vault.origin,
        )
    })?)
}

/// A computer without a home, for one command: signs it in by the token that is inserted and carries a profile.
/// Without such a token the context is what it was.
pub(crate) async fn borrow(mut context: Context) -> Result<Context, Refusal> {
    if !matches!(context.home.profile(), Err(HomeError::None(_))) {
        return Ok(context);
    }
    let Some((pocket, mut opened)) = carried(&mut context)? else {
        return Ok(context);
    };
    let folder = folder().map_err(|error| {
        Refusal::new(
            "file",
            format_args!("no folder for one command can be made: {error}"),
            "set TMPDIR to a folder of yours, or use --home",
        )
    })?;
    let home = context.home.elsewhere(folder.path().join("home"));
    home.create()?;
    context.ui.note(format_args!(
        "There is no keyturn home here. {} carries a profile of {}: this computer is signed in\nfor this one command, by one touch more; nothing of it stays.\nsix words of its first charter  {}",
        opened.reference(),
        pocket.vault.origin,
        context.ui.paint_err(Style::Bold, spoken(&pocket.vault.genesis)),
    ));
    from_pocket(&mut context, &home, &pocket, None, &mut opened).await?;
    context.home = home;
    context.held = Some(opened);
    context.borrowed = Some(folder);
    let session = context.session().await?;
    session.attested(1).await?;
    check(&session, &pocket, context.held.as_ref())?;
    Ok(context)
}

/// Invariant 2. Signals are waited for before there is anything to remove.
fn folder() -> io::Result<TempDir> {
    let [mut interrupt, mut terminate, mut hangup] = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let folder = tempfile::Builder::new().prefix("keyturn-").tempdir()?;
    let path = folder.path().to_owned();
    tokio::spawn(async move {
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        // Nobody waits for an answer any more; without the folder there is nothing to say.
        let _ = fs::remove_dir_all(path);
        process::exit(kind.as_raw_value().saturating_add(ENDED_BY_SIGNAL));
    });
    Ok(folder)
}

/// Invariant 1.
fn check(session: &Session, pocket: &Pocket, held: Option<&Opened>) -> Result<(), Refusal> {
    let seen = session.chain.at(pocket.charter.index);
    if seen.map(|(reference, _)| reference) != Some(pocket.charter) {
        return Err(HomeError::Backwards("the chain of charters").into());
    }
    let (_, charter) = session.charter()?;
    let of_charter = charter.person_of_token(pocket.token.id);
    let same = of_charter.is_some_and(|(person, token)| {
        person.id == pocket.person
            && held
                .is_some_and(|held| token.approval_key.as_der() == held.token.approval_key().spki())
    });
    if same {
        Ok(())
    } else {
        Err(Refusal::new(
            "unknown-token",
            format_args!("the charter does not have the keys of {}", pocket.token),
            "use a token that the charter has; an operator proposes a charter with this one",
        ))
    }
}

/// The inserted token, if it carries a profile.
fn carried(context: &mut Context) -> Result<Option<(Pocket, Opened)>, Refusal> {
    let Some(mut token) = token::inserted(context.wanted)? else {
        return Ok(None);
    };
    let Some(bytes) = token.profile()? else {
        return Err(no_pocket());
    };
    let info = token.describe();
    let pocket = Pocket::from_bytes(&bytes).filter(|pocket| pocket.token.serial == info.serial);
    let pocket = pocket.ok_or_else(|| {
        Refusal::new(
            "malformed",
            format_args!("the profile on {info} is damaged, or written by a newer keyturn"),
            "run `keyturn heartbeat` on your own computer, which writes it anew",
        )
    })?;
    let reference = pocket.token;
    Ok(Some((pocket, Opened::new(token, reference))))
}

fn no_pocket() -> Refusal {
    Refusal::new(
        "no-profile",
        "there is no keyturn home here, and no token with a profile of a vault",
        "run `keyturn heartbeat` on your own computer, which writes the profile; or name a home with --home",
    )
}

/// A home made from what the token carries.
async fn from_pocket(
    context: &mut Context,
    home: &Home,
    pocket: &Pocket,
    name: Option<Name>,
    opened: &mut Opened,
) -> Result<(), Refusal> {
    let profile = Profile {
        format: Format::V1,
        person: pocket.person,
        name: pocket.name.clone(),
        token: pocket.token,
        device: DeviceId::from_parts(clock::now(), token::random()?),
        enrolment: pocket.enrolment,
        keys: None,
        spares: Vec::new(),
        pinentry: context.person.pinentry(),
        vault: Some(pocket.vault.clone()),
    };
    if let Some(checkpoint) = &pocket.checkpoint {
        home.write("checkpoint", checkpoint.as_bytes())?;
    }
    sign_in(context, home, &profile, pocket.charter, name, opened).await
}

/// Makes the key of this computer and lets the token sign it in; writes the profile last.
async fn sign_in(
    context: &mut Context,
    home: &Home,
    profile: &Profile,
    charter: CharterRef,
    name: Option<Name>,
    opened: &mut Opened,
) -> Result<(), Refusal> {
    let vault = profile.vault.clone().ok_or(HomeError::NoVault)?;
    let path = home.path(DEVICE_FILE);
    let device = if path.exists() {
        DeviceKey::load(&path)?
    } else {
        DeviceKey::create(&path, profile.name.as_str())?
    };
    let link = connect(&route(&vault)?, &device).await?;
    let id = DeviceId::from_parts(clock::now(), token::random()?);
    let text = NewDevice {
        vault: vault.origin.clone(),
        genesis: vault.genesis,
        charter,
        person: profile.reference(),
        token: opened.reference(),
        device: EnrolledDevice {
            id,
            name: name
                .or_else(|| enroll::device_name(&profile.name))
                .ok_or_else(enroll::odd)?,
            key: enroll::public(device.public())?,
        },
        signed: clock::now().stamp(),
    };
    let signed = opened.sign(&text, &mut context.person)?;
    let mut charters =
        CharterClient::new(link.channel()).max_decoding_message_size(keyturn_proto::MAX_MESSAGE);
    let request = v1::JoinDeviceRequest {
        join: Some(wire::wire_text(&signed)),
    };
    let reply = charters.join_device(request).await?.into_inner();
    log::receipt(reply.joined, &log::vkey(&vault.vkey)?)?;
    let first = v1::ShowCharterRequest {
        verified: 0,
        until: 1,
        alone: true,
        page: None,
    };
    let shown = charters.show(first).await?.into_inner();
    let first = shown
        .charters
        .into_iter()
        .next()
        .ok_or(VerifyError::Missing("the first charter"))?;
    verify::charter::begin(&first.charter, vault.genesis)?;
    home.keep_charter(1, &first.charter)?;
    Ok(home.keep_profile(&Profile {
        device: id,
        ..profile.clone()
    })?)
}

impl Context {
    /// Leaves what other computers need on the token; a token that cannot take it is no reason to stop.
    pub(super) fn leave_profile(&mut self, session: &Session, opened: &mut Opened) {
        let left = pocket(session, opened)
            .and_then(|bytes| Ok(opened.token.set_profile(&bytes, &mut self.person)?));
        match left {
            Ok(true) => self.ui.note(
                "the token carries the newest charter and checkpoint: it can approve on a borrowed computer",
            ),
            Ok(false) => {}
            Err(refusal) => self.ui.warn(format_args!(
                "the token does not carry a profile for borrowed computers: {refusal}"
            )),
        }
    }
}

fn pocket(session: &Session, opened: &Opened) -> Result<Vec<u8>, Refusal> {
    let mine: Enrolled = session
        .profile
        .tokens()
        .into_iter()
        .find(|mine| mine.token == opened.reference())
        .ok_or(VerifyError::Missing("this token"))?;
    let checkpoint = session.home.checkpoint()?;
    let (charter, _) = session.charter()?;
    let pocket = Pocket::new(
        session.profile.reference(),
        &mine,
        session.vault.clone(),
        charter,
        checkpoint.as_deref(),
    );
    pocket.to_bytes().ok_or_else(|| {
        Refusal::new(
            "limit",
            "the compact profile is longer than a token takes",
            "use shorter addresses for the vault",
        )
    })
}
