//! `keyturn rotate now`: a few by name; or, after an incident, all that a pattern names.
//!
//! # Invariants
//! 1. The daemon rotates; this asks, a page at a time, and looks on. Whoever stops it stops the asking:
//!    what was made due goes on, and `rotate pause --all` holds it.
//! 2. Asked again it goes on where it stopped: what is due stays due, what was rotated within the hour
//!    is left.

use std::{fmt::Write as _, time::Duration};

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::name::{CredentialPath, Line};
use serde_json::{Value, json};

use super::{Context, show};
use crate::{
    clock,
    refusal::Refusal,
    session::Session,
    ui::{countdown, live::Live},
};

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pattern of all.
const EVERY: &str = "**";
/// The width of the bar, in characters.
const BAR: u64 = 30;

/// Make rotations due now.
#[derive(Debug, Args)]
pub struct Now {
    /// The credentials
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "PATH"
    )]
    paths: Vec<CredentialPath>,
    /// Every credential that has a connector; waits until all are done, and goes on where it was stopped
    #[arg(long)]
    all: bool,
    /// Of all, those whose path matches, like `aws/**`
    #[arg(
        long = "match",
        value_name = "PATTERN",
        requires = "all",
        default_value = EVERY
    )]
    pattern: String,
    /// Return when they are due; --all waits until they are done otherwise
    #[arg(long)]
    no_wait: bool,
    /// Why; one line for the daemon's journal
    #[arg(long, value_name = "TEXT")]
    reason: Line,
}

/// What was asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    made_due: u64,
    already_due: u64,
    manual: u64,
    recent: u64,
}

impl Asked {
    fn add(&mut self, reply: &v1::RotateNowReply) {
        self.made_due = self.made_due.saturating_add(reply.made_due);
        self.already_due = self.already_due.saturating_add(reply.already_due);
        self.manual = self.manual.saturating_add(reply.manual);
        self.recent = self.recent.saturating_add(reply.recent);
    }

    /// What the daemon rotates now.
    fn total(self) -> u64 {
        self.made_due.saturating_add(self.already_due)
    }

    fn text(self) -> String {
        let Self {
            made_due,
            already_due,
            manual,
            recent,
        } = self;
        let mut text = format!("{made_due} made due, {already_due} were already, {manual} by hand");
        if recent > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, ", {recent} rotated within the last hour");
        }
        text
    }

    fn document(self) -> Value {
        json!({ "made_due": self.made_due, "already_due": self.already_due, "manual": self.manual, "recent": self.recent })
    }
}

/// How far the rotations of the vault are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Due, and rotated by the daemon without anybody's help.
    left: u64,
    running: u64,
    failing: u64,
    stuck: u64,
}

impl Standing {
    fn of(counts: &v1::RotationCounts) -> Self {
        let others = [counts.manual, counts.needs_operator, counts.backing_off];
        let left = others
            .iter()
            .fold(counts.due, |left, other| left.saturating_sub(*other));
        Self {
            left,
            running: counts.running,
            failing: counts.backing_off,
            stuck: counts.needs_operator,
        }
    }

    /// Of these, those that a pattern names: what stands for them alone is in its list, where those that are out count
    /// as due, too.
    fn within(self, listed: &v1::RotationCounts) -> Self {
        Self {
            left: self.left.min(listed.due),
            running: self.running.min(listed.running),
            failing: listed.backing_off,
            stuck: listed.needs_operator,
        }
    }

    fn is_over(self) -> bool {
        self.left == 0 && self.running == 0
    }

    /// Those that are done, of so many.
    fn done(self, total: u64) -> u64 {
        [self.left, self.failing, self.stuck]
            .iter()
            .fold(total, |done, not| done.saturating_sub(*not))
    }

    /// One line: a bar, what is done, and about how long the rest takes.
    fn line(self, total: u64, gone_secs: u64) -> String {
        let done = self.done(total);
        let full = done.saturating_mul(BAR).checked_div(total).unwrap_or(BAR);
        let bar: String = (0..BAR)
            .map(|at| if at < full { '#' } else { '.' })
            .collect();
        let mut line = format!(
            "  [{bar}] {done} of {total} rotated, {} running",
            self.running
        );
        for (count, what) in [
            (self.failing, "failed and tried again"),
            (self.stuck, "need an operator"),
        ] {
            if count > 0 {
                let _ = write!(line, ", {count} {what}");
            }
        }
        if let Some(secs) = gone_secs.saturating_mul(self.left).checked_div(done)
            && gone_secs > 0
        {
            let _ = write!(line, ", about {} left", countdown(secs));
        }
        line
    }
}

impl Now {
    pub(super) async fn run(self, context: &Context, session: &Session) -> Result<(), Refusal> {
        if self.all {
            return self.run_all(context, session).await;
        }
        let request = v1::RotateNowRequest {
            credentials: self.paths.iter().map(ToString::to_string).collect(),
            reason: self.reason.to_string(),
            ..v1::RotateNowRequest::default()
        };
        let mut asked = Asked::default();
        asked.add(&session.rotations().now(request).await?.into_inner());
        Ok(context.ui.result(&asked.document(), || asked.text())?)
    }

    async fn run_all(self, context: &Context, session: &Session) -> Result<(), Refusal> {
        let mut live = Live::new(context.ui);
        let mut asked = Asked::default();
        let whole = async {
            self.ask(session, &mut asked, &mut live).await?;
            if self.no_wait {
                return Ok(None);
            }
            self.wait(session, asked, &mut live).await.map(Some)
        };
        let standing = tokio::select! {
            standing = whole => standing?,
            _ = tokio::signal::ctrl_c() => return Err(stopped(asked)),
        };
        let mut document = asked.document();
        if let (Some(standing), Some(fields)) = (standing, document.as_object_mut()) {
            fields.insert("backing_off".to_owned(), Value::from(standing.failing));
            fields.insert("needs_operator".to_owned(), Value::from(standing.stuck));
        }
        context.ui.result(&document, || asked.text())?;
        match standing {
            Some(Standing { failing, stuck, .. }) if failing > 0 || stuck > 0 => Err(Refusal::new(
                "rotating",
                format_args!(
                    "not all are rotated: {failing} failed and are tried again, {stuck} need an operator"
                ),
                "see `keyturn rotate list`",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes all that match due, a page at a time.
    async fn ask(
        &self,
        session: &Session,
        asked: &mut Asked,
        live: &mut Live,
    ) -> Result<(), Refusal> {
        let mut client = session.rotations();
        let mut after = String::new();
        loop {
            let request = v1::RotateNowRequest {
                r#match: self.pattern.clone(),
                reason: self.reason.to_string(),
                page: crate::verify::wire::next_page(after),
                ..v1::RotateNowRequest::default()
            };
            let reply = client.now(request).await?.into_inner();
            asked.add(&reply);
            live.show(&[], &[format!("  {}", asked.text())]);
            if reply.next_page.is_empty() {
                return Ok(());
            }
            after = reply.next_page;
        }
    }

    /// Looks on until nothing of it goes on any more that the daemon does by itself.
    async fn wait(
        &self,
        session: &Session,
        asked: Asked,
        live: &mut Live,
    ) -> Result<Standing, Refusal> {
        let mut lines = vec![format!("  {}", asked.text())];
        // A pattern that no path matches: only whether there is a pause is asked.
        let pause = list(session, "-").await?;
        if pause.paused {
            lines.push(format!(
                "  none is begun before {}: they are paused; `keyturn rotate resume --all` goes on",
                show::time(pause.paused_until_ms)
            ));
        }
        let begun = clock::now();
        loop {
            let look = clock::now();
            let mut status = session.status();
            let status = status.show(v1::ShowStatusRequest {}).await?;
            let rotations = status.into_inner().rotations;
            let mut standing = Standing::of(&rotations.unwrap_or_default());
            if self.pattern != EVERY {
                let listed = list(session, &self.pattern).await?;
                standing = standing.within(&listed.counts.unwrap_or_default());
            }
            let now = clock::now().ms();
            let gone = now.saturating_sub(begun.ms()) / 1000;
            live.show(&lines, &[standing.line(asked.total(), gone)]);
            if standing.is_over() {
                return Ok(standing);
            }
            // A list of very many takes the daemon a while: most of its time is to be the rotations'.
            let took = Duration::from_millis(now.saturating_sub(look.ms()));
            tokio::time::sleep(LOOK_EVERY.max(took.saturating_mul(10))).await;
        }
    }
}

/// The first page of what a pattern names, with the counts of all.
async fn list(session: &Session, pattern: &str) -> Result<v1::ListRotationsReply, Refusal> {
    let request = v1::ListRotationsRequest {
        r#match: pattern.to_owned(),
        ..v1::ListRotationsRequest::default()
    };
    Ok(session.rotations().list(request).await?.into_inner())
}

fn stopped(asked: Asked) -> Refusal {
    Refusal::new(
        "rotating",
        format_args!("stopped; {} that were made due go on", asked.total()),
        "`keyturn rotate pause --all` holds them; the same command again goes on with the rest",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_how_far_it_is() {
        let counts = |due, running, backing_off, needs_operator, manual| v1::RotationCounts {
            due,
            running,
            backing_off,
            needs_operator,
            manual,
            late: 0,
        };
        for (name, counts, gone, want, over) in [
            (
                "just begun",
                counts(100, 8, 0, 0, 0),
                0,
                "  [..............................] 0 of 100 rotated, 8 running",
                false,
            ),
            (
                "half of it",
                counts(50, 8, 0, 0, 0),
                60,
                "  [###############...............] 50 of 100 rotated, 8 running, about 1m 00s left",
                false,
            ),
            (
                "some are not done by the daemon alone",
                counts(13, 0, 2, 1, 10),
                60,
                "  [#############################.] 97 of 100 rotated, 0 running, 2 failed and tried again, 1 need an operator, about 0s left",
                true,
            ),
            (
                "old sessions are still being ended",
                counts(0, 1, 0, 0, 0),
                60,
                "  [##############################] 100 of 100 rotated, 1 running, about 0s left",
                false,
            ),
        ] {
            let standing = Standing::of(&counts);
            assert_eq!(standing.line(100, gone), want, "{name}");
            assert_eq!(standing.is_over(), over, "{name}");
        }
        assert!(Standing::default().line(0, 0).contains("0 of 0 rotated"));
        // Of the whole vault one waits and one fails; of what the pattern names all are done, and one is out.
        let vault = Standing::of(&counts(4, 1, 1, 1, 1));
        let standing = vault.within(&counts(1, 0, 0, 0, 0));
        assert_eq!(
            standing.line(40, 0),
            Standing {
                left: 1,
                ..Standing::default()
            }
            .line(40, 0)
        );
        assert!(vault.within(&counts(0, 0, 0, 0, 0)).is_over());
    }
}
