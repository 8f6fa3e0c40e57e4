//! The `exec` connector: a program of the operator's own, called once per step.
//!
//! The contract is in `docs/connectors/exec.md`: one JSON document on standard input, one on
//! standard output, nothing else read from the program. It runs with a clean environment, in a
//! process group of its own, and the whole group is killed at the deadline.
//!
//! # Invariants
//! 1. The program's path and arguments come from the host's configuration, never over the wire.
//! 2. Only an answer with exit code 0 says that nothing happened; a crash, a time-out, an unreadable
//!    or oversized answer is [`Failure::Unknown`].
//! 3. The secret is in standard input and output only: not in arguments, environment, messages or logs.

mod program;
mod wire;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::{name::KeyId, time::Time};
use zeroize::Zeroizing;

pub(crate) use self::wire::fuzz;
use self::wire::{Answer, Ask, Before, Credential};
use super::{
    About, Attempt, Connector, Created, Evidence, Failure, Key, Known, OneSlot, Rules, RulesError,
    Shape, Sight, Target, TwoSlot,
};
use crate::config;

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
    /// How many keys its target holds.
    pub quota: usize,
    /// How long its target takes until all of it knows of a change.
    pub settle: Duration,
}

/// The connector that a configuration describes.
pub fn build(config: &config::Exec) -> Shape {
    let exec = Exec::of(config);
    match config.slots {
        config::Slots::One => Shape::One(Arc::new(exec)),
        config::Slots::Two => Shape::Two(Arc::new(exec)),
    }
}

/// What a call says beside its action.
#[derive(Clone, Copy, Default)]
struct With<'a> {
    target: Option<&'a Target>,
    attempt: Option<Attempt>,
    key: Option<&'a KeyId>,
    secret: Option<&'a SecretBytes>,
    known: Option<&'a Known>,
    since: Option<Time>,
}

impl<'a> With<'a> {
    fn target(target: &'a Target) -> Self {
        Self {
            target: Some(target),
            ..Self::default()
        }
    }

    fn key(target: &'a Target, key: &'a KeyId) -> Self {
        Self {
            key: Some(key),
            ..Self::target(target)
        }
    }

    fn new(target: &'a Target, attempt: Attempt, secret: &'a SecretBytes) -> Self {
        Self {
            attempt: Some(attempt),
            secret: Some(secret),
            ..Self::target(target)
        }
    }
}

impl Exec {
    /// By a configuration.
    pub fn of(config: &config::Exec) -> Self {
        Self {
            program: AsRef::<std::path::Path>::as_ref(&config.command).to_owned(),
            args: config.args.clone(),
            env: config.env.clone(),
            timeout: config.deadline_secs.secs(),
            rules: config.rules.rules(),
            quota: config.quota.size(),
            settle: config.settle_secs.secs(),
        }
    }

    /// Whether the secret at the target was changed since then.
    pub(super) async fn changed(&self, target: &Target, since: Time) -> Result<Evidence, Failure> {
        let with = With {
            since: Some(since),
            ..With::target(target)
        };
        let answer = self.call("changed", with).await?;
        Ok(answer.shown())
    }

    async fn call(&self, action: &'static str, with: With<'_>) -> Result<Answer, Failure> {
        let limit = match with.attempt {
            Some(attempt) => self.timeout.min(attempt.left()?),
            None => self.timeout,
        };
        // `expose`: the program is the one that sets the new secret at the target, or tries it.
        let secret = with
            .secret
            .map(|secret| Zeroizing::new(BASE64_STANDARD.encode(secret.expose())));
        let ask = Ask {
            keyturn: "exec v1",
            action,
            credential: with.target.map(Credential::of),
            settings: with.target.map(|target| &target.settings),
            version: with.attempt.map(|attempt| attempt.version),
            key: with.key.map(KeyId::as_str),
            secret: secret.as_deref().map(String::as_str),
            known: with.known.map(Before::of),
            since: with.since.map(|since| since.stamp().to_string()),
            deadline_secs: limit.as_secs(),
        };
        let ask =
            Zeroizing::new(serde_json::to_vec(&ask).map_err(|e| Failure::Refused(e.to_string()))?);
        let answer = program::run(self, &ask, limit).await?;
        Answer::parse(&answer, with.secret)
    }
}

#[async_trait]
impl Connector for Exec {
    fn about(&self) -> About {
        About {
            kind: "exec",
            fence: false,
            rights: &["those that the program itself needs at its target"],
        }
    }

    fn deadline(&self) -> Duration {
        self.timeout
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        self.rules
            .with_settings(&target.settings)
            .and_then(|rules| rules.check())
            .map(drop)
            .map_err(|error| error.to_string())
    }

    async fn check_self(&self) -> Result<String, Failure> {
        self.call("ready", With::default())
            .await
            .map(|answer| answer.message)
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        self.call("check", With::target(target)).await.map(drop)
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        let with = With {
            known: Some(known),
            ..With::target(target)
        };
        match self.call("probe", with).await {
            Ok(answer) => answer
                .sight()
                .ok_or_else(|| Failure::Unknown("the answer to `probe` has no verdict".to_owned())),
            // A program that does not know the action says so.
            Err(Failure::Refused(why)) => Ok(Sight::not_observable(&why)),
            Err(failure) => Err(failure),
        }
    }
}

#[async_trait]
impl OneSlot for Exec {
    fn rules(&self, target: &Target) -> Result<Rules, RulesError> {
        self.rules.with_settings(&target.settings)
    }

    async fn apply(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        self.call("apply", With::new(target, attempt, new))
            .await
            .map(drop)
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        self.call("test", With::new(target, attempt, new))
            .await
            .map(drop)
    }

    async fn end_sessions(&self, target: &Target) -> Result<(), Failure> {
        self.call("end-sessions", With::target(target))
            .await
            .map(drop)
    }

    async fn evidence(&self, target: &Target) -> Result<Evidence, Failure> {
        let answer = self.call("evidence", With::target(target)).await?;
        Ok(answer.shown())
    }
}

#[async_trait]
impl TwoSlot for Exec {
    fn quota(&self) -> usize {
        self.quota
    }

    fn settle(&self) -> Duration {
        self.settle
    }

    async fn keys(&self, target: &Target) -> Result<Vec<Key>, Failure> {
        let answer = self.call("keys", With::target(target)).await?;
        answer
            .keys()
            .ok_or_else(|| Failure::Unknown("the answer to `keys` lists none".to_owned()))
    }

    async fn create(&self, target: &Target, attempt: Attempt) -> Result<Created, Failure> {
        let with = With {
            attempt: Some(attempt),
            ..With::target(target)
        };
        let answer = self.call("create", with).await?;
        answer.created().ok_or_else(|| {
            Failure::Unknown("the answer to `create` has no key or no secret".to_owned())
        })
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        key: &KeyId,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let with = With {
            key: Some(key),
            ..With::new(target, attempt, new)
        };
        self.call("test", with).await.map(drop)
    }

    async fn deactivate(&self, target: &Target, key: &KeyId) -> Result<(), Failure> {
        self.call("deactivate", With::key(target, key))
            .await
            .map(drop)
    }

    async fn delete(&self, target: &Target, key: &KeyId) -> Result<(), Failure> {
        self.call("delete", With::key(target, key)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    const SECRET: &str = "s3cret-that-must-not-leak";

    fn shell(script: &str) -> Exec {
        Exec {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("GIVEN".into(), "yes".into())]),
            timeout: Duration::from_secs(5),
            rules: Rules::default(),
            quota: 2,
            settle: Duration::ZERO,
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
        let attempt = Attempt::within(7, Duration::from_millis(deadline_ms));
        OneSlot::apply(
            &shell(script),
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
                "head -c 300000 /dev/zero",
                unknown("the answer is longer than 262144 bytes"),
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
    async fn a_call_that_is_given_up_leaves_nothing_running() {
        let dir = tempfile::tempdir().unwrap();
        let (begun, mark) = (dir.path().join("begun"), dir.path().join("late"));
        let script = format!(
            "(touch {}; sleep 0.6; touch {}) & sleep 30",
            begun.display(),
            mark.display()
        );
        let (exec, target) = (shell(&script), target());
        let given_up = tokio::time::timeout(Duration::from_millis(300), exec.keys(&target)).await;
        assert!(given_up.is_err(), "the call had time left");
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(begun.exists(), "the program was started");
        assert!(!mark.exists(), "its child went on after the call");
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
    async fn a_target_with_two_slots_makes_its_keys_itself() {
        const MADE: &str = "czNjcmV0LW9mLXRoZS10YXJnZXQ=";
        let key = || -> KeyId { "KEY1".parse().unwrap() };
        let attempt = Attempt::within(7, Duration::from_secs(5));
        let made = shell(&format!(
            r#"echo '{{"outcome":"done","key":"KEY1","secret":"{MADE}","message":"{MADE}"}}'"#
        ));
        let created = made.create(&target(), attempt).await.unwrap();
        assert_eq!(
            (created.id, created.secret.expose()),
            (key(), b"s3cret-of-the-target".as_slice())
        );
        let answer = Answer::parse(
            format!(r#"{{"outcome":"done","key":"KEY1","secret":"{MADE}","message":"{MADE}"}}"#)
                .as_bytes(),
            None,
        );
        assert!(answer.unwrap().message.contains("withheld"));
        for (name, script, want) in [
            (
                "done without a secret",
                r#"echo '{"outcome":"done","key":"KEY1"}'"#,
                Failure::Unknown("the answer to `create` has no key or no secret".into()),
            ),
            (
                "as many keys as it can hold",
                r#"echo '{"outcome":"full","message":"two keys"}'"#,
                Failure::Full("two keys".into()),
            ),
            (
                "not now",
                r#"echo '{"outcome":"busy","message":"slow down","retry_after_secs":3}'"#,
                Failure::Busy {
                    why: "slow down".into(),
                    after: Some(Duration::from_secs(3)),
                },
            ),
        ] {
            let failure = shell(script).create(&target(), attempt).await.err();
            assert_eq!(failure, Some(want), "{name}");
        }
        let listed = shell(
            r#"echo '{"outcome":"done","keys":[{"id":"KEY1","active":true,"named":true},{"id":"KEY2","active":false}]}'"#,
        );
        let keys = listed.keys(&target()).await.unwrap();
        let seen: Vec<_> = keys.iter().map(|key| (key.active, key.named)).collect();
        assert_eq!(seen, [(true, true), (false, false)]);
        let script = r#"case $(cat) in *'"action":"delete"'*'"key":"KEY1"'*) echo '{"outcome":"done"}';; esac"#;
        assert_eq!(shell(script).delete(&target(), &key()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_call_whose_time_is_over_starts_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("started");
        let script = format!("touch {}", mark.display());
        let late = Attempt::within(7, Duration::ZERO);
        let failure = shell(&script).create(&target(), late).await.err();
        assert_eq!(
            failure,
            Some(Failure::Unknown("the time for this call is over".into()))
        );
        assert!(!mark.exists());
    }

    #[tokio::test]
    async fn a_probe_says_what_it_saw_or_that_it_cannot() {
        let facts = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect()
        };
        for (script, verdict, seen) in [
            (
                r#"echo '{"outcome":"done","verdict":"same","facts":{"changes":"2"}}'"#,
                Verdict::Same,
                facts(&[("changes", "2")]),
            ),
            (
                r#"echo '{"outcome":"done","verdict":"diverged","message":"changed by hand"}'"#,
                Verdict::Diverged("changed by hand".into()),
                facts(&[]),
            ),
            (
                r#"echo '{"outcome":"refused","message":"no action probe"}'"#,
                Verdict::NotObservable("no action probe".into()),
                facts(&[]),
            ),
        ] {
            let sight = Sight {
                verdict,
                facts: seen,
            };
            let probe = shell(script).probe(&target(), &Known::default()).await;
            assert_eq!(probe, Ok(sight));
        }
        let silent = shell(r#"echo '{"outcome":"done"}'"#);
        let probe = silent.probe(&target(), &Known::default()).await;
        assert!(matches!(probe, Err(Failure::Unknown(_))));
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
