//! `keyturn checkin --check-old`: whoever holds an old secret tries it, once the rotation is done.
//!
//! The daemon holds no old secret, so it cannot. How a login is tried only the person knows who does
//! it, so a command of theirs does.
//!
//! # Invariants
//! 1. The old secret goes to the command's standard input, and nowhere else.
//! 2. Only exit code 1 says that the target refuses it; what could not be tried is told, and never
//!    called void.
//! 3. It is tried only after another version has become current.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use keyturn_proto::v1::{self, RotationState};
use keyturn_seal::SecretBytes;
use keyturn_vault::{
    reference::Version,
    text::{Request, Returned},
};
use serde_json::json;

use super::{Context, checkin, open, show};
use crate::{
    clock,
    refusal::Refusal,
    session::Session,
    ui::{clean, live::Live},
    verify::wire,
};

/// How often it is looked whether the rotation is done.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What became of an old secret.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Old {
    Works,
    Void,
    Unclear(String),
}

impl Old {
    fn word(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Void => "void",
            Self::Unclear(_) => "unclear",
        }
    }

    fn line(&self, path: &str, version: u64) -> String {
        match self {
            Self::Works => format!("{path} v{version} STILL WORKS at its target"),
            Self::Void => format!("{path} v{version} is void: the target refuses it"),
            Self::Unclear(why) => format!("{path} v{version} was not tried: {why}"),
        }
    }
}

/// Waits for the rotations, tries each old secret, and has the log say which are void.
pub(super) async fn run(
    context: &mut Context,
    session: &Session,
    request: &Request,
    (command, old): (&str, Vec<(String, u64, SecretBytes)>),
) -> Result<(), Refusal> {
    context
        .ui
        .note("Returned. The old secret is tried when the rotation is done; Ctrl-C stops waiting.");
    let mut results = Vec::with_capacity(old.len());
    for (path, version, secret) in old {
        let outcome = match rotated(context, session, &path, version).await? {
            Some(why) => Old::Unclear(why),
            None => attempt(command, &path, &secret),
        };
        results.push((path, version, outcome));
    }
    let void: Vec<_> = request
        .credentials
        .iter()
        .filter_map(|line| {
            let of = |(path, version, outcome): &&(String, u64, Old)| {
                *path == line.path.as_str()
                    && *version == line.version.number()
                    && *outcome == Old::Void
            };
            let (_, version, _) = results.iter().find(of)?;
            Some(Returned {
                path: line.path.clone(),
                credential: line.credential,
                worked: None,
                void: Version::new(*version),
            })
        })
        .collect();
    if !void.is_empty() {
        checkin::send(context, session, request, void).await?;
    }
    let told = |(path, version, outcome): &(String, u64, Old)| {
        let problem = match outcome {
            Old::Unclear(why) => why.as_str(),
            Old::Works | Old::Void => "",
        };
        json!({ "path": path, "version": version, "outcome": outcome.word(), "problem": problem })
    };
    let document = json!({
        "ceremony": request.ceremony,
        "old": results.iter().map(told).collect::<Vec<_>>(),
    });
    context.ui.result(&document, || {
        let line = |(path, version, outcome): &(String, u64, Old)| {
            format!("{}\n", outcome.line(path, *version))
        };
        results.iter().map(line).collect::<String>()
    })?;
    let works = results.iter().find(|(.., outcome)| *outcome == Old::Works);
    works.map_or(Ok(()), |(path, version, _)| {
        Err(Refusal::new(
            "old-works",
            format_args!("the old secret of {path}, v{version}, still works at its target"),
            "tell an operator: look at the target, then `keyturn rotate now`",
        ))
    })
}

/// Waits until another version is current (invariant 3); says why none will be without somebody's help.
async fn rotated(
    context: &Context,
    session: &Session,
    path: &str,
    version: u64,
) -> Result<Option<String>, Refusal> {
    let parsed = path
        .parse()
        .map_err(|_| Refusal::new("malformed", "not a path", ""))?;
    let mut live = Live::new(context.ui);
    loop {
        let list = v1::ListRotationsRequest {
            page: None,
            r#match: path.to_owned(),
            all: true,
        };
        let listed = session.rotations().list(list).await?.into_inner().rotations;
        let view = wire::required(listed.into_iter().next(), "the rotation")?;
        let state = show::rotation_state(view.state());
        live.show(&[format!("  {path}: {state}{}", waits(&view))], &[]);
        match view.state() {
            RotationState::Idle => {
                let current = open::target(session, &parsed).await?.current;
                let same = "it was not rotated: the secret is still the current one";
                return Ok((current == version).then(|| same.to_owned()));
            }
            RotationState::Manual | RotationState::NeedsOperator => {
                let problem = clean(&view.problem);
                return Ok(Some(format!(
                    "its rotation needs somebody ({state}) {problem}"
                )));
            }
            RotationState::Unspecified
            | RotationState::Due
            | RotationState::Applying
            | RotationState::BackingOff
            | RotationState::Promoted => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// What keeps a rotation from beginning now that the secret is returned.
fn waits(view: &v1::RotationView) -> String {
    if view.paused_until_ms > 0 {
        format!(", paused until {}", show::time(view.paused_until_ms))
    } else if view.held_until_ms > 0 {
        format!(
            ", held by request {} until {}",
            clean(&view.held_by),
            show::time(view.held_until_ms)
        )
    } else if view.state() == RotationState::Due && view.due_ms > clock::now().ms() {
        format!(
            " at {}: another check-out of it lasts until then",
            show::time(view.due_ms)
        )
    } else {
        String::new()
    }
}

/// Runs the command with the secret on its standard input (invariants 1 and 2).
fn attempt(command: &str, path: &str, secret: &SecretBytes) -> Old {
    let started = Command::new("/bin/sh")
        .args(["-c", command])
        .env("KEYTURN_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Old::Unclear(error.to_string()),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // Exposed to the command that the person named; one that does not read is its own business.
        let _ = stdin.write_all(secret.expose());
    }
    match child.wait() {
        Ok(status) => match status.code() {
            Some(0) => Old::Works,
            Some(1) => Old::Void,
            Some(_) | None => Old::Unclear(format!("the command ended with {status}")),
        },
        Err(error) => Old::Unclear(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_code_1_says_that_the_target_refuses_it() {
        let secret = SecretBytes::from_slice(b"the old one");
        for (name, command, want) in [
            ("accepted", r#"test "$(cat)" = "the old one""#, "works"),
            ("refused", r#"test "$(cat)" = "the new one""#, "void"),
            (
                "told which",
                r#"cat > /dev/null; test "$KEYTURN_PATH" = aws/root"#,
                "works",
            ),
            ("another failure", "exit 2", "unclear"),
            ("killed", "kill -9 $$", "unclear"),
            ("no such program", "keyturn-no-such-program", "unclear"),
        ] {
            assert_eq!(attempt(command, "aws/root", &secret).word(), want, "{name}");
        }
    }
}
