//! What somebody should know of the vault, worst first, each with what to do.

use keyturn_proto::v1::{self, Severity};
use keyturn_vault::charter::{Charter, Warning};

use super::{Context, census::Census};
use crate::{
    copies::{Status, sink::ASIDE},
    health::State,
};

/// The most findings that are told.
pub const MAX_FINDINGS: usize = 100;
/// Most findings about tokens.
const MAX_TOKENS: usize = 50;

/// Everything that is not as it should be; what the owner told among it.
pub fn findings(
    context: &Context,
    charter: &Charter,
    census: &Census,
    rotations: &v1::RotationCounts,
    told: Vec<v1::Finding>,
) -> Vec<v1::Finding> {
    let mut found = told;
    if let Some(why) = context.mode.borrow().why() {
        let hint = "sign nothing but `accept-restore`, after comparing its fingerprint";
        found.push(finding(Severity::Problem, "restore-mode", why, hint));
    }
    let health = context.health.borrow().clone();
    if let State::NotServing(why) = health.state()
        && context.mode.borrow().serves()
    {
        let hint = "look at the daemon's disk and log; it tries again by itself";
        found.push(finding(Severity::Problem, "not-serving", why, hint));
    }
    if let Some(note) = health.noted() {
        let hint = "make room on the disk of `data`";
        found.push(finding(Severity::Problem, "low-space", note, hint));
    }
    places(context, census, &mut found);
    counted(census, rotations, &mut found);
    found.extend(tokens(charter));
    found.sort_by_key(|one| std::cmp::Reverse(one.severity));
    found.truncate(MAX_FINDINGS);
    found
}

fn finding(severity: Severity, code: &str, message: impl Into<String>, hint: &str) -> v1::Finding {
    v1::Finding {
        severity: severity.into(),
        code: code.to_owned(),
        message: message.into(),
        hint: hint.to_owned(),
    }
}

/// What policies, or people, should not like about custodians' tokens.
fn tokens(charter: &Charter) -> Vec<v1::Finding> {
    let told = |warning: &Warning| {
        let (code, hint) = match warning {
            Warning::Weak(_) => (
                "weak-token",
                "let its owner enrol one that meets the policy; until then its approvals count with a `waive:` line only",
            ),
            Warning::Clonable(..) => (
                "clonable-token",
                "keep it in sight, and replace it by one with newer firmware",
            ),
            Warning::Unattested(_) => ("unattested-token", "let its owner enrol it anew"),
            Warning::NoSpare(_)
            | Warning::OneToken(_)
            | Warning::Software(_)
            | Warning::NoRequester
            | Warning::NoAuditor
            | Warning::NoWitness => return None,
        };
        let severity = Severity::Warning;
        Some(finding(severity, code, warning.to_string(), hint))
    };
    let warnings = charter.warnings();
    warnings.iter().filter_map(told).take(MAX_TOKENS).collect()
}

/// What is to be known of copies.
fn places(context: &Context, census: &Census, found: &mut Vec<v1::Finding>) {
    let places = context.copies.len();
    if census.wanted > places {
        let message = format!(
            "a policy wants {} copies and there are {places} places: its rotations wait",
            census.wanted
        );
        let hint = "name sinks in `copies.sinks`, or propose a policy that wants fewer";
        found.push(finding(Severity::Problem, "too-few-sinks", message, hint));
    } else if context.copies_min == 0 {
        let message = "no rotation waits for a copy: a lost disk loses what was rotated";
        let hint = "name a sink on another disk or host, and set `copies.min` to 1";
        found.push(finding(Severity::Warning, "no-copies", message, hint));
    }
    for place in context.copies.status() {
        found.extend(of(&place));
    }
    let head = context.head_copy.borrow().clone();
    if let Some(problem) = head.problem {
        let hint = "mount or mend the folder of `audit.head_copy`";
        found.push(finding(Severity::Warning, "head-copy", problem, hint));
    } else if !head.wanted && places == 0 {
        let message = "nothing outside this host knows the head of the log";
        let hint = "set `audit.head_copy` to a folder on another mount or host";
        found.push(finding(Severity::Note, "no-head-copy", message, hint));
    }
}

fn of(place: &Status) -> Vec<v1::Finding> {
    let mut found = Vec::new();
    if let Some(problem) = &place.problem {
        let (severity, code, hint) = if place.foreign {
            (
                Severity::Problem,
                "sink-foreign",
                "start the daemon again: it compares them, and a quorum decides; until then nothing is written there",
            )
        } else if place.reachable {
            (
                Severity::Warning,
                "sink-behind",
                "mend it; it catches up by itself",
            )
        } else {
            (
                Severity::Warning,
                "sink-away",
                "mount or mend it; it catches up by itself",
            )
        };
        let message = format!("{}: {problem}", place.name);
        found.push(finding(severity, code, message, hint));
    }
    if place.aside > 0 {
        let message = format!(
            "{}: {} sealed versions of another history lie in its folder `{ASIDE}`; one may be what a target has now",
            place.name, place.aside
        );
        let hint = "open them with `keyturn recover --export` of a folder in it, try them at their targets, and then move them away";
        found.push(finding(Severity::Problem, "set-aside", message, hint));
    }
    if place.same_disk {
        let message = format!(
            "{} is on the disk of the data, and lost with it",
            place.name
        );
        let hint = "give it a place on another disk or host";
        found.push(finding(Severity::Warning, "sink-same-disk", message, hint));
    }
    found
}

/// What the counts say.
fn counted(census: &Census, rotations: &v1::RotationCounts, found: &mut Vec<v1::Finding>) {
    let credentials = &census.credentials;
    for (count, severity, code, what, hint) in [
        (
            credentials.inconsistent,
            Severity::Problem,
            "inconsistent",
            "credentials whose shares are not all what was sealed",
            "open them while it goes, and rotate them",
        ),
        (
            rotations.needs_operator,
            Severity::Problem,
            "needs-operator",
            "rotations that need an operator",
            "see `keyturn rotate list`",
        ),
        (
            census.no_connector,
            Severity::Warning,
            "no-such-connector",
            "credentials whose connector is not in this daemon's configuration",
            "add it to `keyturnd.toml`, or name another one: `keyturn credential change`",
        ),
        (
            rotations.late,
            Severity::Warning,
            "late",
            "rotations due for more than an hour",
            "see `keyturn rotate list`",
        ),
        (
            rotations.manual,
            Severity::Warning,
            "manual",
            "secrets to be changed by hand",
            "see `keyturn rotate list`",
        ),
        (
            census.few_copies,
            Severity::Warning,
            "few-copies",
            "live versions with fewer copies than wanted",
            "see the places for copies",
        ),
        (
            credentials.old_roster,
            Severity::Warning,
            "old-roster",
            "credentials sealed to an older roster",
            "rotate them, or `keyturn reshare`",
        ),
        (
            credentials.unproven,
            Severity::Note,
            "unproven",
            "credentials with a version that no login has proven",
            "log in with it at the next opening and `keyturn checkin --worked`",
        ),
    ] {
        if count > 0 {
            found.push(finding(severity, code, format!("{what}: {count}"), hint));
        }
    }
}
