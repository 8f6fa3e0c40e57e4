//! The `exec` connector: a program of the operator's own, called once per step.
//!
//! The contract is in `docs/connectors/exec.md`: one JSON document on standard input, one on
//! standard output, nothing else read from the program. It runs with a clean environment, in a
//! process group of its own, and the whole group is killed at the deadline.
//!
//! # Invariants
//! 1. The program's path and arguments come from the host's configuration, never over the wire.
//! 2. Only `{"outcome":"refused"}` with exit code 0 is a refusal; a crash, a time-out, an unreadable
//!    or oversized answer is [`Failure::Unknown`].
//! 3. The secret is in standard input only: not in arguments, environment, messages or logs.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_seal::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{Attempt, Connector, Evidence, Failure, Rules, Target};

/// Longest answer of a program, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Longest message kept of an answer, in bytes.
pub const MAX_MESSAGE: usize = 300;
/// The only search path a program sees.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that rotates credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The only variables in its environment besides `PATH` and `LANG`.
    pub env: BTreeMap<String, String>,
    /// Time for one call.
    pub timeout: Duration,
    /// What generated secrets look like.
    pub rules: Rules,
}

/// The document on the program's standard input.
#[derive(Serialize)]
struct Ask<'a> {
    keyturn: &'static str,
    action: &'static str,
    credential: Credential<'a>,
    settings: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    deadline_secs: u64,
}

#[derive(Serialize)]
struct Credential<'a> {
    id: &'a str,
    path: &'a str,
    kind: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

/// The document on the program's standard output.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    outcome: Outcome,
    #[serde(default)]
    message: String,
    #[serde(default)]
    evidence: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Done,
    Refused,
    Unknown,
}

impl Exec {
    async fn call(
        &self,
        action: &'static str,
        target: &Target,
        new: Option<(Attempt, &SecretBytes)>,
    ) -> Result<Answer, Failure> {
        let limit = new.map_or(self.timeout, |(attempt, _)| {
            self.timeout.min(attempt.deadline)
        });
        // `expose`: the program is the one that sets the new secret at the target.
        let secret = new.map(|(_, secret)| Zeroizing::new(BASE64_STANDARD.encode(secret.expose())));
        let ask = Ask {
            keyturn: "exec v1",
            action,
            credential: Credential {
                id: &target.credential,
                path: &target.path,
                kind: &target.kind,
                metadata: &target.metadata,
            },
            settings: &target.settings,
            version: new.map(|(attempt, _)| attempt.version),
            secret: secret.as_deref().map(String::as_str),
            deadline_secs: limit.as_secs(),
        };
        let ask =
            Zeroizing::new(serde_json::to_vec(&ask).map_err(|e| Failure::Refused(e.to_string()))?);
        let mut child = self.spawn()?;
        let group = child.id();
        let outcome = timeout(limit, converse(&mut child, &ask)).await;
        // Whatever the program left running in its group ends with the call.
        kill_group(group);
        let _ = child.kill().await;
        match outcome {
            Ok(answer) => answer.and_then(|bytes| parse(&bytes, new.map(|(_, secret)| secret))),
            Err(_) => Err(Failure::Unknown(format!(
                "no answer within {} s; the program was killed",
                limit.as_secs()
            ))),
        }
    }

    fn spawn(&self) -> Result<Child, Failure> {
        Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .envs(&self.env)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Failure::Refused(format!("cannot start {}: {e}", self.program.display())))
    }
}

/// Writes the question, reads the answer to its end, waits for exit code 0.
async fn converse(child: &mut Child, ask: &[u8]) -> Result<Vec<u8>, Failure> {
    let unknown = |what: &str| Failure::Unknown(what.to_owned());
    let mut stdin = child
        .stdin
        .take()
        .ok_or_else(|| unknown("the program has no standard input"))?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| unknown("the program has no standard output"))?;
    let write = async move {
        // A program that does not read its input may still answer; its answer decides.
        let _ = stdin.write_all(ask).await;
        drop(stdin);
    };
    let mut answer = Vec::new();
    let bound = u64::try_from(MAX_ANSWER)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bounded = stdout.take(bound);
    let ((), read) = tokio::join!(write, bounded.read_to_end(&mut answer));
    read.map_err(|e| Failure::Unknown(format!("cannot read the program's answer: {e}")))?;
    if answer.len() > MAX_ANSWER {
        return Err(Failure::Unknown(format!(
            "the answer is longer than {MAX_ANSWER} bytes"
        )));
    }
    let status = child
        .wait()
        .await
        .map_err(|e| Failure::Unknown(format!("cannot wait for the program: {e}")))?;
    if status.success() {
        Ok(answer)
    } else {
        Err(Failure::Unknown(format!("the program ended with {status}")))
    }
}

fn parse(answer: &[u8], secret: Option<&SecretBytes>) -> Result<Answer, Failure> {
    let mut answer: Answer = serde_json::from_slice(answer).map_err(|e| {
        Failure::Unknown(format!(
            "the answer is not the JSON of the contract (line {}, column {})",
            e.line(),
            e.column()
        ))
    })?;
    answer.message = printable(&answer.message, secret);
    answer.evidence = answer.evidence.map(|text| printable(&text, secret));
    match answer.outcome {
        Outcome::Done => Ok(answer),
        Outcome::Refused => Err(Failure::Refused(answer.message)),
        Outcome::Unknown => Err(Failure::Unknown(answer.message)),
    }
}

/// One bounded line for logs and people; invariant 3 of the module above.
fn printable(message: &str, secret: Option<&SecretBytes>) -> String {
    // `expose`: to see that the program did not echo what it was given.
    let echoes = secret.is_some_and(|secret| {
        let raw = secret.expose();
        !raw.is_empty()
            && (message
                .as_bytes()
                .windows(raw.len())
                .any(|part| part == raw)
                || message.contains(Zeroizing::new(BASE64_STANDARD.encode(raw)).as_str()))
    });
    if echoes {
        return "(message withheld: it held the secret)".to_owned();
    }
    let mut line: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    while line.len() > MAX_MESSAGE {
        line.pop();
    }
    line
}

fn kill_group(leader: Option<u32>) {
    let pid = leader
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

#[async_trait]
impl Connector for Exec {
    fn rules(&self, _target: &Target) -> Rules {
        self.rules.clone()
    }

    fn deadline(&self) -> Duration {
        self.timeout
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        self.call("check", target, None).await.map(drop)
    }

    async fn apply(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        self.call("apply", target, Some((attempt, new)))
            .await
            .map(drop)
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        self.call("test", target, Some((attempt, new)))
            .await
            .map(drop)
    }

    async fn end_sessions(&self, target: &Target) -> Result<(), Failure> {
        self.call("end-sessions", target, None).await.map(drop)
    }

    async fn evidence(&self, target: &Target) -> Result<Evidence, Failure> {
        let answer = self.call("evidence", target, None).await?;
        Ok(answer
            .evidence
            .map_or(Evidence::NotObservable, Evidence::Shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cret-that-must-not-leak";

    fn shell(script: &str) -> Exec {
        Exec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("GIVEN".into(), "yes".into())]),
            timeout: Duration::from_secs(5),
            rules: Rules::default(),
        }
    }

    fn target() -> Target {
        Target {
            credential: "01HX0000000000000000000000".into(),
            path: "demo/root".into(),
            kind: "text".into(),
            metadata: BTreeMap::from([("user".into(), "root".into())]),
            settings: BTreeMap::from([("role".into(), "root".into())]),
        }
    }

    async fn apply(script: &str, deadline_ms: u64) -> Result<(), Failure> {
        let attempt = Attempt {
            version: 7,
            deadline: Duration::from_millis(deadline_ms),
        };
        shell(script)
            .apply(
                &target(),
                attempt,
                &SecretBytes::from_slice(SECRET.as_bytes()),
            )
            .await
    }

    #[tokio::test]
    async fn answers_mean_what_the_contract_says() {
        let refused = |m: &str| Err(Failure::Refused(m.into()));
        let unknown = |m: &str| Err(Failure::Unknown(m.into()));
        for (name, script, want) in [
            (
                "done",
                r#"cat >/dev/null; echo '{"outcome":"done"}'"#,
                Ok(()),
            ),
            (
                "done without reading its input",
                r#"echo '{"outcome":"done"}'"#,
                Ok(()),
            ),
            (
                "refused",
                r#"echo '{"outcome":"refused","message":"policy"}'"#,
                refused("policy"),
            ),
            (
                "unknown",
                r#"echo '{"outcome":"unknown","message":"503"}'"#,
                unknown("503"),
            ),
            (
                "control characters",
                r#"echo '{"outcome":"refused","message":"a\u001b[2Jb"}'"#,
                refused("a [2Jb"),
            ),
            (
                "crash after a good answer",
                r#"echo '{"outcome":"done"}'; exit 3"#,
                unknown("the program ended with exit status: 3"),
            ),
            (
                "not JSON",
                "echo fine",
                unknown("the answer is not the JSON of the contract (line 1, column 2)"),
            ),
            (
                "another field",
                r#"echo '{"outcome":"done","x":1}'"#,
                unknown("the answer is not the JSON of the contract (line 1, column 21)"),
            ),
            (
                "echoes the secret",
                &format!(r#"echo '{{"outcome":"refused","message":"bad {SECRET}"}}'"#),
                refused("(message withheld: it held the secret)"),
            ),
            (
                "oversized",
                "head -c 70000 /dev/zero",
                unknown("the answer is longer than 65536 bytes"),
            ),
        ] {
            assert_eq!(apply(script, 5000).await, want, "{name}");
        }
    }

    #[tokio::test]
    async fn the_environment_is_clean_and_the_document_whole() {
        let script = r#"
            doc=$(cat)
            for part in '"keyturn":"exec v1"' '"action":"apply"' '"path":"demo/root"' '"role":"root"' '"version":7'; do
                case $doc in *"$part"*) ;; *) echo "{\"outcome\":\"refused\",\"message\":\"lacks $part\"}" | tr -d '"' ; exit 0;; esac
            done
            names=$(env | cut -d= -f1 | grep -v -x -e PWD -e SHLVL -e _ -e OLDPWD | sort | tr '\n' ' ')
            [ "$names" = "GIVEN LANG PATH " ] && echo '{"outcome":"done"}' || echo "{\"outcome\":\"refused\",\"message\":\"$names\"}""#;
        assert_eq!(apply(script, 5000).await, Ok(()));
    }

    #[tokio::test]
    async fn a_late_program_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("late");
        let script = format!("(sleep 0.6; touch {}) & sleep 30", mark.display());
        let failure = apply(&script, 200).await;
        assert_eq!(
            failure,
            Err(Failure::Unknown(
                "no answer within 0 s; the program was killed".into()
            ))
        );
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(
            !mark.exists(),
            "a child of the program went on after the deadline"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_refused_before_anything_changes() {
        let mut exec = shell("");
        exec.program = "/nonexistent/connector".into();
        assert!(matches!(
            exec.check(&target()).await,
            Err(Failure::Refused(_))
        ));
    }

    #[tokio::test]
    async fn evidence_is_shown_or_not_observable() {
        for (script, want) in [
            (
                r#"echo '{"outcome":"done","evidence":"changed 2026-11-21T02:17:00Z"}'"#,
                Evidence::Shown("changed 2026-11-21T02:17:00Z".into()),
            ),
            (r#"echo '{"outcome":"done"}'"#, Evidence::NotObservable),
        ] {
            assert_eq!(shell(script).evidence(&target()).await, Ok(want));
        }
    }
}
