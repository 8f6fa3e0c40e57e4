//! Ceremonies, versions and times as lines for people.

use keyturn_proto::v1::{
    CeremonyState, CeremonyView, Person, Purpose, RotationState, VersionState,
};
use keyturn_vault::{
    digest::Digest,
    id::CeremonyId,
    name::CredentialPath,
    text::{Purpose as Purposed, Request},
    time::Time,
    words::spoken,
};
use serde_json::{Value, json};

use crate::{
    clock,
    ui::{Style, Ui, clean, countdown},
};

/// A person's name.
pub fn person(person: Option<&Person>) -> String {
    person.map(|person| clean(&person.name)).unwrap_or_default()
}

/// A time of the daemon.
pub fn time(ms: u64) -> String {
    clock::shown(Time::from_ms(ms))
}

/// A digest of the daemon, in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// The six words of a digest of the daemon.
pub fn words(bytes: &[u8]) -> String {
    bytes
        .try_into()
        .map(|bytes| spoken(&Digest(bytes)))
        .unwrap_or_default()
}

/// What people compare by voice before anybody agrees.
pub fn announce(ui: Ui, ceremony: CeremonyId, request: &Digest) {
    ui.note(format_args!(
        "ceremony  {}",
        ui.paint_err(Style::Bold, ceremony)
    ));
    ui.note(format_args!("request   {request}"));
    ui.note(format_args!(
        "six words {}",
        ui.paint_err(Style::Bold, spoken(request))
    ));
}

/// What is out of the ordinary, in one line.
pub fn odd(ui: Ui, odd: &[String]) -> String {
    if odd.is_empty() {
        "nothing".to_owned()
    } else {
        ui.paint_err(Style::Warn, odd.join("; "))
    }
}

/// What is asked for, in a line.
pub fn what(request: &Request) -> String {
    let mut paths: Vec<(&CredentialPath, Vec<String>)> = Vec::new();
    for line in &request.credentials {
        match paths.last_mut() {
            Some((path, versions)) if *path == &line.path => {
                versions.push(line.version.to_string());
            }
            _ => paths.push((&line.path, vec![line.version.to_string()])),
        }
    }
    let paths: Vec<_> = paths
        .into_iter()
        .map(|(path, versions)| format!("{path} ({})", versions.join(", ")))
        .collect();
    let purpose = request.purpose.name();
    match &request.purpose {
        _ if !paths.is_empty() => format!("{purpose} {}", paths.join(", ")),
        Purposed::Extend { until, .. } => format!("extend a check-out until {until} (see below)"),
        Purposed::Erase { .. } => "erase the details of a request (see below)".to_owned(),
        Purposed::Unseal
        | Purposed::Drill
        | Purposed::Reshare(_)
        | Purposed::Change(_)
        | Purposed::AcceptRestore(_) => format!("{purpose} (see below)"),
    }
}

/// What a ceremony is for.
pub fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Unspecified => "unknown",
        Purpose::Unseal => "unseal",
        Purpose::Drill => "drill",
        Purpose::Reshare => "reshare",
        Purpose::Change => "change",
        Purpose::Extend => "extend",
        Purpose::AcceptRestore => "accept-restore",
        Purpose::Erase => "erase",
    }
}

/// The stable word of a state.
pub fn state_word(state: CeremonyState) -> &'static str {
    match state {
        CeremonyState::Unspecified => "unknown",
        CeremonyState::Open => "open",
        CeremonyState::Approved => "approved",
        CeremonyState::Authorized => "authorized",
        CeremonyState::Released => "released",
        CeremonyState::Failed => "failed",
        CeremonyState::Interrupted => "interrupted",
        CeremonyState::Applied => "applied",
        CeremonyState::Expired => "expired",
        CeremonyState::Withdrawn => "withdrawn",
        CeremonyState::Superseded => "superseded",
    }
}

/// A state as a sentence.
pub fn state(view: &CeremonyView) -> String {
    let text = match view.state() {
        CeremonyState::Unspecified => "in a state that this program does not know",
        CeremonyState::Open => "waiting for approvals",
        CeremonyState::Approved if view.waiting_secs > 0 => "approved; the waiting time runs",
        CeremonyState::Approved => "approved; waiting for shares",
        CeremonyState::Authorized => "authorized and in the log",
        CeremonyState::Released => "released",
        CeremonyState::Failed => "failed: nothing left the vault",
        CeremonyState::Interrupted => "interrupted: counts as possibly released",
        CeremonyState::Applied => "applied",
        CeremonyState::Expired => "expired without a quorum",
        CeremonyState::Withdrawn => "given up by its requester",
        CeremonyState::Superseded => "superseded: what it names has changed",
    };
    text.to_owned()
}

/// The stable word of a version's state.
pub fn version_state(state: VersionState) -> &'static str {
    match state {
        VersionState::Unspecified => "unknown",
        VersionState::Candidate => "candidate",
        VersionState::Current => "current",
        VersionState::Superseded => "superseded",
        VersionState::Retired => "retired",
        VersionState::Destroyed => "destroyed",
    }
}

/// The stable word of a rotation's state.
pub fn rotation_state(state: RotationState) -> &'static str {
    match state {
        RotationState::Unspecified => "unknown",
        RotationState::Idle => "idle",
        RotationState::Due => "due",
        RotationState::Applying => "applying",
        RotationState::BackingOff => "backing-off",
        RotationState::Promoted => "promoted",
        RotationState::NeedsOperator => "needs-operator",
        RotationState::Manual => "manual",
    }
}

/// A ceremony in JSON.
pub fn ceremony(view: &CeremonyView) -> Value {
    let people = |people: &[Person]| {
        people
            .iter()
            .map(|person| person.name.clone())
            .collect::<Vec<_>>()
    };
    let needs = view.needs.iter().map(|need| {
        json!({
            "credential": need.credential, "path": need.path, "group": need.group, "quorum": need.quorum,
            "approved": need.approved, "shares": need.shares, "awaited": people(&need.awaited),
        })
    });
    let voices = view.voices.iter().map(|voice| {
        json!({
            "person": voice.person.as_ref().map(|person| person.name.clone()),
            "decision": voice.decision().as_str_name().trim_start_matches("DECISION_").to_lowercase(),
            "time_ms": voice.time_ms,
            "statement_sha256": hex(&voice.statement_sha256),
        })
    });
    let reviews = view.reviews.iter().map(|review| {
        json!({
            "person": review.person.as_ref().map(|person| person.name.clone()),
            "questioned": review.questioned,
            "time_ms": review.time_ms,
            "statement_sha256": hex(&review.statement_sha256),
        })
    });
    json!({
        "ceremony": view.id,
        "state": state_word(view.state()),
        "purpose": purpose(view.purpose()),
        "subject": view.subject,
        "request_sha256": hex(&view.request_sha256),
        "words": words(&view.request_sha256),
        "requester": view.requester.as_ref().map(|person| person.name.clone()),
        "ticket": view.ticket,
        "waived": view.waived,
        "opened_ms": view.opened_ms,
        "left_secs": view.left_secs,
        "waiting_secs": view.waiting_secs,
        "voices": voices.collect::<Vec<_>>(),
        "needs": needs.collect::<Vec<_>>(),
        "reviews": reviews.collect::<Vec<_>>(),
        "checkout": view.checkout.as_ref().map(|out| json!({
            "ends_ms": out.ends_ms, "returned_ms": out.returned_ms, "overdue": out.overdue, "afterwards": out.afterwards,
        })),
        "outcome": view.outcome_code,
    })
}

/// A ceremony in one line.
pub fn ceremony_row(view: &CeremonyView) -> Vec<String> {
    let paths: Vec<_> = view.needs.iter().map(|need| clean(&need.path)).collect();
    let left = match &view.checkout {
        _ if view.left_secs > 0 => format!("{} left", countdown(view.left_secs.into())),
        Some(out) if out.overdue => "overdue".to_owned(),
        Some(out) if out.ends_ms > 0 => format!("until {}", time(out.ends_ms)),
        Some(_) | None => String::new(),
    };
    let approved: Vec<_> = view
        .needs
        .iter()
        .map(|need| format!("{}/{}", need.approved, need.quorum))
        .collect();
    vec![
        clean(&view.id),
        purpose(view.purpose()).to_owned(),
        paths.join(" "),
        format!("by {}", person(view.requester.as_ref())),
        approved.join(" "),
        state_word(view.state()).to_owned(),
        left,
    ]
}
