//! `keyturn status`, and `keyturn` alone: what waits for me, and how the vault is.

use std::fmt::Write as _;

use clap::Args;
use keyturn_proto::v1;
use serde_json::{Value, json};

use super::{Context, show};
use crate::{
    clock,
    refusal::Refusal,
    session::Session,
    ui::{Style, clean, countdown, several, table},
    verify::log,
};

/// Clocks that differ by more are told.
const MAX_SKEW_MS: u64 = 5 * 60 * 1000;

/// What waits for you, and how the vault is.
#[derive(Debug, Default, Args)]
pub struct Status {}

impl Status {
    pub(crate) async fn run(self, context: Context) -> Result<(), Refusal> {
        let mut session = Session::connect(&context.home, context.ui).await?;
        let reply = session
            .status()
            .show(v1::ShowStatusRequest {})
            .await?
            .into_inner();
        let founded = reply.founders_awaited.is_empty();
        // In restore mode the log is shorter than it was: that is what status is to tell.
        if founded && !reply.restore_mode {
            session.follow().await?;
        }
        let skew = clock::now().ms().abs_diff(reply.now_ms);
        if skew > MAX_SKEW_MS {
            context.ui.warn(format_args!(
                "your clock and the daemon's differ by {}",
                countdown(skew / 1000)
            ));
        }
        Ok(context.ui.result(&document(&session, &reply), || {
            text(&context, &session, &reply)
        })?)
    }
}

fn document(session: &Session, reply: &v1::ShowStatusReply) -> Value {
    let findings = reply.findings.iter().map(
        |finding| json!({ "code": finding.code, "message": finding.message, "hint": finding.hint }),
    );
    let ceremonies =
        |views: &[v1::CeremonyView]| views.iter().map(show::ceremony).collect::<Vec<_>>();
    let names = |people: &[v1::Person]| {
        people
            .iter()
            .map(|person| person.name.clone())
            .collect::<Vec<_>>()
    };
    let rotations = reply.rotations.unwrap_or_default();
    let credentials = reply.credentials.unwrap_or_default();
    json!({
        "origin": session.vault.origin,
        "person": reply.caller.as_ref().map(|person| person.name.clone()),
        "roles": reply.roles,
        "daemon": reply.daemon,
        "charter": reply.charter,
        "charter_sha256": show::hex(&reply.charter_sha256),
        "log_size": session.head.as_ref().map(log::head).map(|head| head.size),
        "founded": reply.founders_awaited.is_empty(),
        "founders_awaited": names(&reply.founders_awaited),
        "restore_mode": reply.restore_mode,
        "waiting": ceremonies(&reply.waiting),
        "waiting_total": reply.waiting_total,
        "asked": ceremonies(&reply.asked),
        "checked_out": ceremonies(&reply.checked_out),
        "credentials": {
            "total": credentials.total, "unproven": credentials.unproven, "known_to_human": credentials.known_to_human,
            "old_roster": credentials.old_roster, "inconsistent": credentials.inconsistent, "checked_out": credentials.checked_out,
        },
        "rotations": {
            "due": rotations.due, "running": rotations.running, "backing_off": rotations.backing_off,
            "late": rotations.late, "needs_operator": rotations.needs_operator, "manual": rotations.manual,
        },
        "copies": copies(reply),
        "space": reply.space.map(|space| json!({
            "free_bytes": space.free_bytes, "low": space.low, "critical": space.critical, "read_only": space.read_only,
        })),
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn copies(reply: &v1::ShowStatusReply) -> Value {
    let copies = reply.copies.clone().unwrap_or_default();
    let sinks = copies.places.iter().map(|place| {
        json!({
            "name": place.name, "reachable": place.reachable, "complete": place.complete, "behind": place.behind,
            "same_disk": place.same_disk, "problem": place.problem,
        })
    });
    json!({
        "wanted": copies.wanted, "few": copies.behind, "head_copied_ms": copies.head_copied_ms,
        "sinks": sinks.collect::<Vec<_>>(),
    })
}

/// How many there are of what, and how copies are.
fn counts(reply: &v1::ShowStatusReply) -> String {
    let mut text = String::new();
    if let Some(credentials) = reply.credentials {
        let of = told(&[
            (credentials.unproven, "unproven"),
            (credentials.known_to_human, "known to a person"),
            (credentials.old_roster, "sealed to an older roster"),
            (credentials.checked_out, "checked out"),
        ]);
        let all = several(credentials.total, "credential", "credentials");
        let _ = match of {
            Some(of) => writeln!(text, "{all}: {of}"),
            None => writeln!(text, "{all}"),
        };
    }
    if let Some(rotations) = reply.rotations {
        let of = told(&[
            (rotations.due, "due"),
            (rotations.running, "running"),
            (rotations.backing_off, "tried again later"),
            (rotations.needs_operator, "stuck"),
            (rotations.manual, "by hand"),
        ]);
        let _ = writeln!(text, "Rotations: {}", of.as_deref().unwrap_or("none due"));
    }
    if let Some(copies) = &reply.copies
        && !copies.places.is_empty()
    {
        let places: Vec<_> = copies.places.iter().map(place).collect();
        let _ = writeln!(
            text,
            "Copies: {}; a rotation waits for {}",
            places.join(", "),
            copies.wanted
        );
    }
    text
}

/// The counts that are not zero; none when all are.
fn told(counts: &[(u64, &str)]) -> Option<String> {
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<_> = some
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!some.is_empty()).then(|| some.join(", "))
}

/// How a place for copies is doing, in a few words.
fn place(place: &v1::SinkStatus) -> String {
    let name = clean(&place.name);
    if !place.reachable {
        format!("{name} away, {} behind", entries(place.behind))
    } else if place.complete {
        format!("{name} complete")
    } else {
        format!("{name} {} behind", entries(place.behind))
    }
}

fn entries(count: u64) -> String {
    several(count, "entry", "entries")
}

fn text(context: &Context, session: &Session, reply: &v1::ShowStatusReply) -> String {
    let ui = context.ui;
    let mut text = String::new();
    let roles = reply
        .roles
        .iter()
        .map(|role| clean(role))
        .collect::<Vec<_>>()
        .join(", ");
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{}: you are {} ({roles})",
        session.vault.origin,
        show::person(reply.caller.as_ref())
    );
    if reply.restore_mode {
        let _ = writeln!(
            text,
            "{}: the vault was restored from a copy; sign nothing but `accept-restore`",
            ui.paint(Style::Bad, "RESTORE MODE")
        );
    }
    if !reply.founders_awaited.is_empty() {
        let names: Vec<_> = reply
            .founders_awaited
            .iter()
            .map(|person| clean(&person.name))
            .collect();
        let _ = writeln!(
            text,
            "Not founded yet; these have not joined: {}",
            names.join(", ")
        );
        return text;
    }
    if reply.waiting.is_empty() {
        text.push_str("No request waits for you.\n");
    }
    for (what, views) in [
        ("Waiting for you (`keyturn approve ID`):", &reply.waiting),
        (
            "Asked by you (`keyturn unseal --resume ID` goes on waiting, `keyturn withdraw ID` gives up):",
            &reply.asked,
        ),
        (
            "Checked out by you (`keyturn checkin ID` returns it, `keyturn unseal --resume ID` shows it again):",
            &reply.checked_out,
        ),
    ] {
        if !views.is_empty() {
            let rows: Vec<_> = views.iter().map(show::ceremony_row).collect();
            let _ = write!(text, "{}\n{}", ui.paint(Style::Bold, what), table(&rows));
        }
    }
    let shown = u64::try_from(reply.waiting.len()).unwrap_or(u64::MAX);
    let more = reply.waiting_total.saturating_sub(shown);
    if more > 0 {
        let _ = writeln!(text, "{more} more wait for you.");
    }
    text.push_str(&counts(reply));
    for finding in &reply.findings {
        let style = match finding.severity() {
            v1::Severity::Problem => Style::Bad,
            v1::Severity::Warning => Style::Warn,
            v1::Severity::Note | v1::Severity::Unspecified => Style::Dim,
        };
        let _ = writeln!(
            text,
            "{}: {}; {}",
            ui.paint(style, clean(&finding.code)),
            clean(&finding.message),
            clean(&finding.hint)
        );
    }
    if let Some(head) = session.head.as_ref().map(log::head) {
        let _ = writeln!(
            text,
            "The log has {}; charter {} is in force.",
            entries(head.size),
            reply.charter
        );
    }
    text
}
