//! `keyturn audit report`: what an auditor hands in.

use std::{collections::BTreeMap, fmt::Write as _};

use clap::Args;
use keyturn_vault::{
    digest::Digest,
    text::{Details, Text as _},
    time::Stamp,
};
use serde::Serialize;
use serde_json::json;

use super::source::Source;
use crate::{
    command::Context,
    home::Home,
    refusal::Refusal,
    ui::{Style, clean, several},
    verify::{
        account::{Account, Case, Moment, Said},
        checks::details_name,
        directory::{self, Report as Verified},
    },
};

/// Who opened what, when, why, with whose agreement, and what came of it
#[derive(Debug, Args)]
pub struct Report {
    #[command(flatten)]
    source: Source,
    /// Only what was asked for from then on, like 2026-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<Stamp>,
    /// Only what was asked for before then
    #[arg(long, value_name = "TIME")]
    to: Option<Stamp>,
}

/// A request with its free texts, where they are there.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    case: &'a Case,
    /// Why it was asked for.
    reason: Option<String>,
    /// The words of those who refused or reviewed it, by their digests.
    words: BTreeMap<Digest, String>,
}

impl<'a> Told<'a> {
    fn new(home: &Home, case: &'a Case) -> Self {
        let refused = case.said.iter().filter_map(|said| said.reason);
        let reviewed = case.reviews.iter().filter_map(|review| review.note);
        let words = refused.chain(reviewed);
        Self {
            case,
            reason: reason(home, case.details),
            words: words
                .filter_map(|digest| Some((digest, reason(home, digest)?)))
                .collect(),
        }
    }

    /// Words after what somebody said; nothing where nothing was said, or it is gone.
    fn words(&self, digest: Option<Digest>) -> String {
        let words = digest.map(|digest| self.words.get(&digest).map(|words| clean(words)));
        match words {
            Some(Some(words)) => format!(": {words}"),
            Some(None) => ": (text not here)".to_owned(),
            None => String::new(),
        }
    }
}

impl Report {
    pub(super) async fn run(self, context: &Context) -> Result<(), Refusal> {
        let opened = self.source.open(context).await?;
        let home = Home::at(&opened.dir);
        let period = (self.from.map(Stamp::time), self.to.map(Stamp::time));
        let (verified, account, _own) = opened.account(context.ui, period).await?;
        let told = account.cases.iter().map(|case| Told::new(&home, case));
        let cases: Vec<_> = told.collect();
        let document = json!({
            "from": self.from.map(|from| from.to_string()), "to": self.to.map(|to| to.to_string()),
            "verification": verified, "requests": cases, "changes": account.changes,
            "refusals": account.refusals, "unproven": account.unproven, "unconfirmed": account.unconfirmed,
        });
        context
            .ui
            .result(&document, || text(context, &verified, &cases, &account))?;
        super::found(&verified)
    }
}

/// The reason in a details text, where the copy of the log has it and it is the one that was signed for.
fn reason(home: &Home, digest: Digest) -> Option<String> {
    let bytes = home.read(&details_name(digest)).ok().flatten()?;
    let text = String::from_utf8(bytes).ok()?;
    let details = Details::parse(&text).ok()?;
    (Digest::of(text.as_bytes()) == digest).then(|| details.reason.to_string())
}

fn text(context: &Context, verified: &Verified, cases: &[Told<'_>], account: &Account) -> String {
    let mut text = format!(
        "Report on {}\nmade from {} entries, until {}\nroot      {}\nanchored  in {}\n",
        clean(&verified.origin),
        verified.size,
        clean(&verified.until),
        verified.root,
        super::in_few(&verified.anchors)
    );
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "findings  {} errors, {} warnings",
        verified.count(keyturn_vault::replay::Level::Error),
        verified.count(keyturn_vault::replay::Level::Warning)
    );
    for finding in &verified.findings {
        let _ = writeln!(
            text,
            "  {}: entry {}: {}: {}",
            directory::word(finding.level),
            finding.n,
            clean(&finding.code),
            clean(&finding.what)
        );
    }
    let requests = several(
        u64::try_from(cases.len()).unwrap_or(u64::MAX),
        "request",
        "requests",
    );
    let _ = writeln!(text, "\n{requests}");
    for told in cases {
        request(context, &mut text, told);
    }
    let list = |text: &mut String, title: &str, lines: Vec<String>| {
        let _ = writeln!(text, "\n{title}");
        if lines.is_empty() {
            text.push_str("  none\n");
        }
        for line in lines {
            let _ = writeln!(text, "  {}", clean(&line));
        }
    };
    let changes = account.changes.iter();
    let changes =
        changes.map(|note| format!("{} entry {}: {}", note.at.time, note.at.n, note.what));
    list(&mut text, "changes", changes.collect());
    let refusals = account.refusals.iter();
    let refusals = refusals.map(|(what, count)| format!("{what} ({count} times)"));
    list(&mut text, "refused by the daemon", refusals.collect());
    let unproven = account.unproven.iter().cloned().collect();
    list(
        &mut text,
        "deposited, and nobody has logged in with it",
        unproven,
    );
    let unconfirmed = account.unconfirmed.iter().cloned().collect();
    list(&mut text, "no custodian has confirmed a share", unconfirmed);
    text
}

/// A line of a request: what it is about, and what it says.
type Line = (&'static str, String);

fn request(context: &Context, text: &mut String, told: &Told<'_>) {
    let case = told.case;
    let what: Vec<_> = case
        .versions
        .iter()
        .map(|named| format!("{} {}", named.path, named.version))
        .collect();
    let what = if what.is_empty() {
        case.subject.clone()
    } else {
        what.join(", ")
    };
    let title = clean(&format!("{} {what}", case.purpose));
    // Writing to a string does not fail.
    let _ = writeln!(text, "\n{}", context.ui.paint(Style::Bold, title));
    for (name, line) in asked(told).into_iter().chain(said(told)).chain(done(case)) {
        let _ = writeln!(text, "  {name:9} {}", clean(&line));
    }
    for review in &case.reviews {
        let (words, at) = (told.words(review.note), moment(&review.at));
        let (person, outcome) = (clean(&review.person), review.outcome);
        let _ = writeln!(text, "  review    {at} by {person}: {outcome}{words}");
    }
}

fn moment(at: &Moment) -> String {
    format!("{}, entry {},", at.time, at.n)
}

/// Who asked for it, and why.
fn asked(told: &Told<'_>) -> Vec<Line> {
    let case = told.case;
    let used_by = case.used_by.as_ref();
    let used_by = used_by.map_or_else(String::new, |by| format!(", to be used by {by}"));
    let why = told.reason.clone();
    let why = why.unwrap_or_else(|| format!("(text not here; its SHA-256 is {})", case.details));
    let ticket = case.ticket.as_ref();
    let ticket = ticket.map_or_else(String::new, |ticket| format!(" [{ticket}]"));
    let mut lines = vec![
        ("ceremony", case.ceremony.to_string()),
        (
            "asked",
            format!("{} by {}{used_by}", moment(&case.opened), case.requested_by),
        ),
        ("why", format!("{why}{ticket}")),
    ];
    lines.extend(case.scenario.clone().map(|scenario| ("scenario", scenario)));
    if !case.waived.is_empty() {
        lines.push(("waived", case.waived.join(", ")));
    }
    lines
}

/// What was said to it.
fn said(told: &Told<'_>) -> Vec<Line> {
    let case = told.case;
    let line = |said: &Said| {
        let (words, at) = (told.words(said.reason), moment(&said.at));
        (
            said.decision,
            format!("{at} by {} with {}{words}", said.person, said.token),
        )
    };
    let mut lines: Vec<_> = case.said.iter().map(line).collect();
    if !case.agreed.is_empty() {
        let agreed: Vec<_> = case.agreed.iter().map(String::as_str).collect();
        lines.push(("agreed", agreed.join(", ")));
    }
    lines
}

/// What came of it.
fn done(case: &Case) -> Vec<Line> {
    let mut lines = vec![("outcome", case.outcome.to_owned())];
    let moments = [
        ("allowed", &case.authorized),
        ("handed on", &case.released),
        ("returned", &case.returned),
    ];
    for (name, at) in moments {
        lines.extend(
            at.as_ref()
                .map(|at| (name, format!("{}, entry {}", at.time, at.n))),
        );
    }
    for rotated in &case.rotated {
        let evidence = rotated
            .evidence
            .as_deref()
            .unwrap_or("no evidence logged yet");
        let (at, path, version) = (moment(&rotated.at), &rotated.path, rotated.version);
        lines.push(("rotated", format!("{at} {path} to {version}; {evidence}")));
    }
    let owed = case
        .owed
        .iter()
        .map(|path| ("owed", format!("{path} is not rotated")));
    lines.extend(owed);
    lines
}
