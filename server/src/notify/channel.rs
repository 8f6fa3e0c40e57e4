//! One delivery.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use thiserror::Error;

use super::webhook::{self, Webhook};
use crate::{
    config,
    notice::Notice,
    program::{Ended, Program, executable},
};

/// What a program's answer may have; nobody reads it.
const MAX_ANSWER: usize = 64 * 1024;
/// With this exit code (`EX_DATAERR` of sysexits) a program says that it will never take this notice.
const NEVER: i32 = 65;

/// Why a notice was not taken.
#[derive(Debug, Error)]
pub enum Failure {
    /// It may be later.
    #[error("{0}")]
    Later(String),
    /// This one never will be.
    #[error("{0}")]
    Never(String),
}

/// How somebody is told.
#[derive(Clone, Debug)]
pub enum Channel {
    /// A program that gets the notice on its standard input.
    Exec {
        /// Its path.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
        /// Its variables.
        env: BTreeMap<String, String>,
        /// It is killed after this time.
        deadline: Duration,
    },
    /// An HTTP server that gets the notice posted.
    Webhook(Webhook),
}

impl Channel {
    /// The channel of a configured notifier.
    pub fn of(notify: &config::Notify) -> Self {
        match notify {
            config::Notify::Exec {
                command,
                args,
                env,
                deadline_secs,
                ..
            } => Self::Exec {
                program: AsRef::<std::path::Path>::as_ref(command).to_owned(),
                args: args.clone(),
                env: env.clone(),
                deadline: deadline_secs.secs(),
            },
            config::Notify::Webhook {
                url,
                key,
                roots,
                deadline_secs,
                ..
            } => {
                let path =
                    |path: &config::AbsolutePath| AsRef::<std::path::Path>::as_ref(path).to_owned();
                Self::Webhook(Webhook {
                    url: url.clone(),
                    key: path(key),
                    roots: roots.as_ref().map(path),
                    deadline: deadline_secs.secs(),
                })
            }
        }
    }

    /// What would keep it from working, as far as this host can tell.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Exec { program, .. } if executable(program) => Ok(()),
            Self::Exec { program, .. } => Err(format!(
                "{} is not a program that can be run",
                program.display()
            )),
            Self::Webhook(hook) => webhook::check(hook),
        }
    }

    /// Delivers a notice.
    pub async fn send(&self, notice: &Notice) -> Result<(), Failure> {
        let body = serde_json::to_vec(notice).map_err(|error| Failure::Never(error.to_string()))?;
        match self {
            Self::Exec {
                program,
                args,
                env,
                deadline,
            } => {
                let program = Program {
                    path: program,
                    args,
                    env,
                };
                match program.run(&body, *deadline, MAX_ANSWER).await {
                    Ok(_) => Ok(()),
                    Err(Ended::Status(status)) if status.code() == Some(NEVER) => {
                        Err(Failure::Never(
                            "the program does not take this notice (exit code 65)".into(),
                        ))
                    }
                    Err(ended) => Err(Failure::Later(ended.to_string())),
                }
            }
            Self::Webhook(hook) => webhook::post(hook, &notice.id, notice.time, &body).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use keyturn_vault::time::Time;

    use super::*;

    fn shell(script: &str) -> Channel {
        Channel::Exec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("GIVEN".into(), "yes".into())]),
            deadline: Duration::from_millis(700),
        }
    }

    #[tokio::test]
    async fn a_programs_end_says_what_became_of_the_notice() {
        let notice = Notice::test("vault.example.org/prod".parse().unwrap(), Time::from_ms(1));
        for (name, script, want) in [
            ("taken", "cat >/dev/null", "taken"),
            ("taken unread", "exit 0", "taken"),
            (
                "whole",
                r#"grep -q '"kind":"notice.test"' && [ "$GIVEN" = yes ]"#,
                "taken",
            ),
            ("clean", r#"cat >/dev/null; [ -z "$HOME$USER" ]"#, "taken"),
            ("failed", "exit 1", "later"),
            ("killed itself", "kill -9 $$", "later"),
            ("never", "exit 65", "never"),
            ("late", "sleep 30", "later"),
        ] {
            let got = match shell(script).send(&notice).await {
                Ok(()) => "taken",
                Err(Failure::Later(_)) => "later",
                Err(Failure::Never(_)) => "never",
            };
            assert_eq!(got, want, "{name}");
        }
        let gone = Channel::Exec {
            program: "/nonexistent/page".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            deadline: Duration::from_secs(1),
        };
        assert!(gone.check().is_err());
        assert!(matches!(gone.send(&notice).await, Err(Failure::Later(_))));
    }
}
