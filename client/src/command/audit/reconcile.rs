//! `keyturn audit reconcile`: logins that the target knows of, held against check-outs that the log knows of.
//!
//! # Invariants
//! 1. A use that no check-out covers is a finding; so is one after the return, or after the rotation.
//! 2. A check-out without any use is a finding of its own: somebody opened what was not needed, or the record
//!    of the target is not whole.
//! 3. Nothing is guessed: a record that names no credential of the log is told, with its line.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use clap::Args;
use keyturn_vault::time::{Span, Stamp, Time};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::source::Source;
use crate::{
    command::{Context, file_error, read_named},
    refusal::Refusal,
    ui::clean,
    verify::account::{Account, Case},
};

/// The largest record, in bytes.
const MAX_RECORD: u64 = 64 << 20;

/// Hold a record of logins at the targets against the check-outs in the log
#[derive(Debug, Args)]
pub struct Reconcile {
    #[command(flatten)]
    source: Source,
    /// Uses: CSV with the columns time, credential, who, event; or one JSON object with these names a line
    file: PathBuf,
    /// How far the clocks of vault and target may be apart
    #[arg(long, value_name = "SPAN", value_parser = Span::typed, default_value = "5m")]
    skew: Span,
}

/// A use, as the target recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    /// When, in UTC.
    time: String,
    /// The path of the credential.
    credential: String,
    /// Who or what used it, as the target has it.
    #[serde(default)]
    who: String,
    /// What was done.
    #[serde(default)]
    event: String,
}

/// What is said of a use, or of a check-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Said {
    /// Stable: `covered`, `no-check-out`, `after-return`, `after-rotation`, `unknown-credential`, `not-used`.
    code: &'static str,
    /// The line of the record; 0 where it is about a check-out.
    line: usize,
    /// The credential.
    credential: String,
    /// When.
    time: String,
    /// The ceremony of the check-out that is meant.
    ceremony: Option<String>,
    /// Who and what, as the target has it.
    what: String,
}

/// A time in which somebody was allowed to use a credential.
#[derive(Clone, Debug)]
struct Window {
    ceremony: String,
    from: u64,
    returned: Option<u64>,
    rotated: Option<u64>,
    used: bool,
}

impl Reconcile {
    pub(super) async fn run(self, context: &Context) -> Result<(), Refusal> {
        let bytes = read_named(&self.file, MAX_RECORD)?;
        let text = String::from_utf8(bytes).map_err(|error| file_error(&self.file, &error))?;
        let uses = read(&text).map_err(|error| file_error(&self.file, &error))?;
        let opened = self.source.open(context).await?;
        let (verified, account, _own) = opened.account(context.ui, (None, None)).await?;
        super::found(&verified)?;
        let said = reconcile(&account, &uses, self.skew);
        let wrong = said.iter().filter(|said| said.code != "covered").count();
        let document = json!({
            "origin": verified.origin, "size": verified.size, "root": verified.root, "anchors": verified.anchors,
            "uses": uses.len(), "result": said,
        });
        context.ui.result(&document, || {
            let mut text = format!(
                "{} uses held against {} entries (root {}), anchored in {}\n",
                uses.len(),
                verified.size,
                verified.root,
                super::in_few(&verified.anchors)
            );
            for said in said.iter().filter(|said| said.code != "covered") {
                let ceremony = said
                    .ceremony
                    .as_ref()
                    .map(|ceremony| format!(" (check-out of {ceremony})"))
                    .unwrap_or_default();
                // Writing to a string does not fail.
                let _ = writeln!(
                    text,
                    "{}: {} {}{ceremony} {}",
                    said.code,
                    clean(&said.time),
                    clean(&said.credential),
                    clean(&said.what)
                );
            }
            if wrong == 0 {
                text.push_str("Every use has its check-out, and every check-out its use.\n");
            }
            text
        })?;
        if wrong == 0 {
            return Ok(());
        }
        Err(Refusal::new(
            "findings",
            format_args!("{wrong} uses or check-outs do not belong together"),
            "ask those who are named, and whoever keeps the target's record",
        ))
    }
}

/// Reads a record: JSON lines where it begins with a brace, otherwise CSV.
fn read(text: &str) -> Result<Vec<(usize, Use)>, std::io::Error> {
    let bad = |line: usize, what: &str| {
        std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("line {line}: {what}"),
        )
    };
    let mut lines = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty());
    let mut uses = Vec::new();
    if text.trim_start().starts_with('{') {
        for (line, n) in lines {
            let found: Use =
                serde_json::from_str(line).map_err(|error| bad(n, &error.to_string()))?;
            uses.push((n, found));
        }
    } else {
        let (head, n) = lines.next().ok_or_else(|| bad(1, "it is empty"))?;
        let head = fields(head).ok_or_else(|| bad(n, "a quote is not closed"))?;
        for wanted in ["time", "credential"] {
            if !head.iter().any(|name| name == wanted) {
                return Err(bad(n, &format!("there is no column `{wanted}`")));
            }
        }
        for (line, n) in lines {
            let row = fields(line).ok_or_else(|| bad(n, "a quote is not closed"))?;
            if row.len() != head.len() {
                return Err(bad(
                    n,
                    "it has another number of columns than the first line",
                ));
            }
            let row: BTreeMap<_, _> = head.iter().cloned().zip(row).collect();
            let of = |name: &str| row.get(name).cloned().unwrap_or_default();
            uses.push((
                n,
                Use {
                    time: of("time"),
                    credential: of("credential"),
                    who: of("who"),
                    event: of("event"),
                },
            ));
        }
    }
    for (n, found) in &uses {
        moment(&found.time)
            .ok_or_else(|| bad(*n, "its time is not like 2026-11-21T02:17:00Z, in UTC"))?;
    }
    Ok(uses)
}

/// The fields of a line of CSV (RFC 4180, without line breaks in fields).
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    let fields = fields.iter().map(|field| field.trim().to_owned());
    (!quoted).then(|| fields.collect())
}

fn moment(text: &str) -> Option<u64> {
    let stamp = text.parse::<Stamp>().map(|stamp| stamp.time().ms());
    stamp
        .ok()
        .or_else(|| text.parse::<Time>().ok().map(Time::ms))
}

fn windows(account: &Account) -> BTreeMap<String, Vec<Window>> {
    let mut windows: BTreeMap<String, Vec<Window>> = BTreeMap::new();
    let opens = |case: &&Case| case.authorized.is_some() && case.purpose != "reshare";
    for case in account.cases.iter().filter(opens) {
        let time = |moment: &Option<crate::verify::account::Moment>| {
            moment
                .as_ref()
                .and_then(|moment| self::moment(&moment.time))
        };
        for named in &case.versions {
            let path = named.path.to_string();
            let rotated = case.rotated.iter().find(|rotated| rotated.path == path);
            let window = Window {
                ceremony: case.ceremony.to_string(),
                from: time(&case.authorized).unwrap_or_default(),
                returned: time(&case.returned),
                rotated: rotated.and_then(|rotated| moment(&rotated.at.time)),
                used: false,
            };
            let known = windows.entry(path).or_default();
            // A request names several versions of a credential; it is one check-out.
            if known.last().map(|last| &last.ceremony) != Some(&window.ceremony) {
                known.push(window);
            }
        }
    }
    windows
}

/// Invariants 1 to 3.
fn reconcile(account: &Account, uses: &[(usize, Use)], skew: Span) -> Vec<Said> {
    let mut windows = windows(account);
    let mut result = Vec::new();
    for (line, found) in uses {
        let at = moment(&found.time).unwrap_or_default();
        let mut said = Said {
            code: "no-check-out",
            line: *line,
            credential: found.credential.clone(),
            time: found.time.clone(),
            ceremony: None,
            what: format!("{} {}", found.who, found.event).trim().to_owned(),
        };
        if !account.knows(&found.credential) {
            said.code = "unknown-credential";
        }
        let known = windows.get_mut(&found.credential).into_iter().flatten();
        for window in known.filter(|window| at.saturating_add(skew.ms()) >= window.from) {
            let after =
                |end: Option<u64>| end.is_some_and(|end| at > end.saturating_add(skew.ms()));
            let code = if after(window.rotated) {
                "after-rotation"
            } else if after(window.returned) {
                "after-return"
            } else {
                window.used = true;
                "covered"
            };
            if said.code != "covered" {
                said.code = code;
                said.ceremony = Some(window.ceremony.clone());
            }
        }
        result.push(said);
    }
    for (credential, windows) in &windows {
        for window in windows.iter().filter(|window| !window.used) {
            result.push(Said {
                code: "not-used",
                line: 0,
                credential: credential.clone(),
                time: Time::from_ms(window.from).to_string(),
                ceremony: Some(window.ceremony.clone()),
                what: String::new(),
            });
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEREMONY: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn account() -> Account {
        use keyturn_vault::{digest::Digest, reference::Version};

        use crate::verify::account::{Moment, Named, Rotated};
        let at = |n: u64, time: &str| Moment {
            n,
            time: time.to_owned(),
        };
        let path: keyturn_vault::name::CredentialPath = "db/main".parse().unwrap();
        let case = Case {
            ceremony: CEREMONY.parse().unwrap(),
            purpose: "unseal".to_owned(),
            subject: "-".to_owned(),
            request: Digest::of(b"request"),
            requested_by: "alice".to_owned(),
            used_by: None,
            ticket: None,
            scenario: None,
            details: Digest::of(b"details"),
            waived: Vec::new(),
            versions: vec![Named {
                path,
                credential: CEREMONY.parse().unwrap(),
                version: Version::FIRST,
            }],
            opened: at(1, "2026-11-21T01:00:00.000Z"),
            said: Vec::new(),
            authorized: Some(at(2, "2026-11-21T02:00:00.000Z")),
            released: Some(at(3, "2026-11-21T02:00:01.000Z")),
            fetched: 0,
            outcome: "released",
            returned: Some(at(4, "2026-11-21T03:00:00.000Z")),
            rotated: vec![Rotated {
                path: "db/main".to_owned(),
                version: Version::FIRST.next(),
                evidence: None,
                at: at(5, "2026-11-21T04:00:00.000Z"),
            }],
            owed: std::collections::BTreeSet::new(),
            agreed: std::collections::BTreeSet::new(),
            reviews: Vec::new(),
        };
        let mut account = Account::of(None, None);
        account.cases = vec![case];
        account
    }

    #[test]
    fn a_use_has_its_check_out_or_a_name() {
        let account = account();
        for (name, time, credential, want) in [
            (
                "while it is out",
                "2026-11-21T02:30:00Z",
                "db/main",
                "covered",
            ),
            (
                "by a clock that is slow",
                "2026-11-21T01:56:00Z",
                "db/main",
                "covered",
            ),
            (
                "by a clock that is fast",
                "2026-11-21T03:04:00Z",
                "db/main",
                "covered",
            ),
            ("before", "2026-11-21T01:30:00Z", "db/main", "no-check-out"),
            (
                "after the return",
                "2026-11-21T03:30:00Z",
                "db/main",
                "after-return",
            ),
            (
                "after the rotation",
                "2026-11-22T00:00:00Z",
                "db/main",
                "after-rotation",
            ),
            (
                "of what nobody knows",
                "2026-11-21T02:30:00Z",
                "db/other",
                "unknown-credential",
            ),
        ] {
            let record = format!("time,credential,who,event\n{time},{credential},10.0.0.7,login\n");
            let uses = read(&record).unwrap();
            let said = reconcile(&account, &uses, Span::from_secs(300));
            assert_eq!(said[0].code, want, "invariant 1: {name}");
            let unused = said.iter().any(|said| said.code == "not-used");
            assert_eq!(unused, want != "covered", "invariant 2: {name}");
        }
    }

    #[test]
    fn records_are_read_or_refused() {
        let good = read("{\"time\":\"2026-11-21T02:30:00Z\",\"credential\":\"db/main\",\"who\":\"x\",\"more\":1}\n").unwrap();
        let csv = read("who,credential,time\n\"a, \"\"b\"\"\",db/main,2026-11-21T02:30:00.000Z\n")
            .unwrap();
        assert_eq!(good[0].1.credential, csv[0].1.credential);
        assert_eq!(csv[0].1.who, "a, \"b\"");
        for (name, record) in [
            ("nothing", ""),
            ("no time", "credential\ndb/main\n"),
            ("another time", "time,credential\nyesterday,db/main\n"),
            (
                "a local time",
                "time,credential\n2026-11-21T02:30:00+01:00,db/main\n",
            ),
            (
                "a column too many",
                "time,credential\n2026-11-21T02:30:00Z,db/main,x\n",
            ),
            (
                "an open quote",
                "time,credential\n\"2026-11-21T02:30:00Z,db/main\n",
            ),
            ("half an object", "{\"time\":\"2026-11-21T02:30:00Z\"\n"),
        ] {
            assert!(read(record).is_err(), "invariant 3: {name}");
        }
    }
}
