//! `aws-iam-password`: the console password of an IAM user, overwritten in place.
//!
//! No API signs in with a password. What is left is what AWS says: it acknowledges the overwriting, with
//! a request id that CloudTrail knows, and its credential report shows, hours later, when the password
//! was last changed. So `test` says yes only for a version whose overwriting AWS acknowledged to this very
//! process, and "unknown" for any other: an unanswered call is never taken for a success, its version stays
//! openable, and a new one is rolled.
//!
//! # Invariants
//! 1. A version counts as set only when AWS acknowledged it here, and no later one was sent since.
//! 2. A report proves something about a password only when it was made after the password was set.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_iam::operation::{
    get_account_password_policy::GetAccountPasswordPolicyError,
    get_login_profile::GetLoginProfileError, update_login_profile::UpdateLoginProfileError,
};
use aws_sdk_iam::{operation::RequestId as _, primitives::DateTime, types::PasswordPolicy};
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::time::Time;

use super::{
    call::Call,
    platform::{Clients, Platform},
    report,
    settings::{self, Settings},
    surroundings::{self, REVOKES},
};
use crate::{
    config,
    connector::{
        About, Attempt, Connector, Evidence, Failure, Known, OneSlot, RulesError, Sight, Target,
        Verdict,
    },
    generate::Rules,
};

/// Sessions that began this long after the password was overwritten end with the older ones: for so long
/// some of AWS may have taken the old password.
const SPREAD_SECS: i64 = 60;
/// How far AWS's own times of one event lie apart.
const TOLERANCE_MS: u64 = 120_000;
/// Longest password that IAM takes.
const MAX_LENGTH: usize = 128;

/// Console passwords of IAM users.
pub struct Passwords {
    platform: Platform,
    rules: Rules,
    acknowledged: Mutex<BTreeMap<String, Acknowledged>>,
}

/// What AWS said to the last overwriting of a credential.
#[derive(Clone, Debug)]
struct Acknowledged {
    version: u64,
    at: Option<DateTime>,
    request: String,
}

impl Passwords {
    /// By a configuration.
    pub fn new(config: &config::AwsPassword) -> Self {
        Self {
            platform: Platform::new(config.host()),
            rules: config.rules(),
            acknowledged: Mutex::default(),
        }
    }

    fn acknowledged(&self) -> MutexGuard<'_, BTreeMap<String, Acknowledged>> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the account demands of passwords; none where it demands nothing.
    async fn policy(&self, clients: &Clients) -> Result<Option<PasswordPolicy>, Failure> {
        let call = self.platform.looks("GetAccountPasswordPolicy");
        let operation = clients.look.get_account_password_policy();
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        match answer {
            Ok(answer) => Ok(answer.password_policy),
            Err(failed)
                if failed.is(GetAccountPasswordPolicyError::is_no_such_entity_exception) =>
            {
                Ok(None)
            }
            Err(failed) => Err(failed.into()),
        }
    }

    /// Whether there is a password, and whether the next sign-in must change it.
    async fn profile(&self, clients: &Clients, user: &str) -> Result<Profile, Failure> {
        let call = self.platform.looks("GetLoginProfile");
        let operation = clients.look.get_login_profile().user_name(user);
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        let now = call.answered();
        match answer {
            Ok(answer) => {
                let reset = answer
                    .login_profile
                    .is_some_and(|one| one.password_reset_required);
                Ok(Profile {
                    there: true,
                    reset,
                    now,
                })
            }
            Err(failed) if failed.is(GetLoginProfileError::is_no_such_entity_exception) => {
                Ok(Profile {
                    there: false,
                    reset: false,
                    now,
                })
            }
            Err(failed) => Err(failed.into()),
        }
    }

    /// Overwrites the password, or makes the user's first.
    async fn set(
        &self,
        clients: &Clients,
        user: &str,
        attempt: Attempt,
        password: &str,
    ) -> Result<Acknowledged, Failure> {
        let version = attempt.version;
        let call = Call::change("UpdateLoginProfile", attempt).with_secret();
        let operation = clients.change.update_login_profile();
        let operation = operation
            .user_name(user)
            .password(password)
            .password_reset_required(false);
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        match answer {
            Ok(answer) => {
                return Ok(Acknowledged {
                    version,
                    at: call.answered(),
                    request: answer.request_id().unwrap_or("-").to_owned(),
                });
            }
            Err(failed) if failed.is(UpdateLoginProfileError::is_no_such_entity_exception) => {}
            Err(failed) => return Err(failed.into()),
        }
        let call = Call::change("CreateLoginProfile", attempt).with_secret();
        let operation = clients.change.create_login_profile();
        let operation = operation
            .user_name(user)
            .password(password)
            .password_reset_required(false);
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        Ok(Acknowledged {
            version,
            at: call.answered(),
            request: answer.request_id().unwrap_or("-").to_owned(),
        })
    }
}

/// A login profile, as AWS shows it.
struct Profile {
    there: bool,
    reset: bool,
    now: Option<DateTime>,
}

#[async_trait]
impl Connector for Passwords {
    fn about(&self) -> About {
        About {
            kind: "aws-iam-password",
            fence: false,
            rights: &[
                "set and look at the password of the named IAM users",
                "read the account's password policy and its credential report",
                "read the named users, their groups and policies, and the named roles",
                "where sessions are revoked: put an inline policy onto the named users",
            ],
        }
    }

    fn deadline(&self) -> Duration {
        self.platform.deadline()
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        Settings::of_user(target, true).map(drop)
    }

    async fn check_self(&self) -> Result<String, Failure> {
        let caller = self.platform.caller().await?;
        self.policy(self.platform.clients().await).await?;
        Ok(caller.arn)
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        let settings = Settings::of_user(target, true).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        if surroundings::user(&self.platform, clients, settings.user)
            .await?
            .is_none()
        {
            return Err(Failure::Refused(format!(
                "there is no IAM user {} in account {}",
                settings.user, settings.account
            )));
        }
        let policy = self.policy(clients).await?;
        fitting(&self.rules, policy.as_ref())
            .generate()
            .map_err(|error| Failure::Refused(error.to_string()))?;
        self.profile(clients, settings.user).await.map(drop)
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        let settings = Settings::of_user(target, true).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let sight = |verdict| Sight {
            verdict,
            facts: [].into(),
        };
        let user = surroundings::user(&self.platform, clients, settings.user).await?;
        let Some(user) = user else {
            return Ok(sight(Verdict::Absent));
        };
        let profile = self.profile(clients, settings.user).await?;
        if !profile.there {
            return Ok(sight(Verdict::Absent));
        }
        if profile.reset {
            let why = "somebody set a password that must be changed at the next sign-in";
            return Ok(sight(Verdict::Diverged(why.to_owned())));
        }
        let row = report::row(&self.platform, user.arn()).await?;
        let Some(row) = row.filter(|row| known.proven.is_none_or(|proven| row.made > proven))
        else {
            return Ok(Sight::not_observable(
                "the newest credential report is older than the password; AWS makes one every four hours",
            ));
        };
        if let Some(late) = changed_since(known.proven, row.password_changed) {
            return Ok(sight(Verdict::Diverged(format!(
                "the password was changed at {late}, after the last proof"
            ))));
        }
        let mut facts = surroundings::facts(&self.platform, clients, settings, &user).await?;
        let changed = row
            .password_changed
            .map_or("never".to_owned(), |at| at.stamp().to_string());
        facts.insert("password-changed".to_owned(), changed);
        facts.insert(
            "mfa".to_owned(),
            if row.mfa { "on" } else { "off" }.to_owned(),
        );
        Ok(Sight::unchanged(facts, known))
    }
}

/// A change of the password after its last proof; none where there was none.
fn changed_since(proven: Option<Time>, changed: Option<Time>) -> Option<Time> {
    let proven = proven?;
    changed.filter(|changed| changed.ms_since(proven) > TOLERANCE_MS)
}

#[async_trait]
impl OneSlot for Passwords {
    fn rules(&self, _target: &Target) -> Result<Rules, RulesError> {
        Ok(fitting(&self.rules, None))
    }

    async fn make(&self, target: &Target) -> Result<SecretBytes, RulesError> {
        let policy = match Settings::of_user(target, true) {
            Ok(settings) => match self.platform.of_account(settings.account).await {
                Ok(clients) => self.policy(clients).await.ok().flatten(),
                Err(_) => None,
            },
            Err(_) => None,
        };
        // An account that cannot be asked now refuses the password later, by its policy or otherwise.
        fitting(&self.rules, policy.as_ref()).generate()
    }

    async fn apply(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let settings = Settings::of_user(target, true).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        // `expose`: the password that AWS is to take.
        let password = std::str::from_utf8(new.expose())
            .map_err(|_| Failure::Refused("the password is not text".to_owned()))?;
        self.acknowledged().remove(&target.credential);
        let acknowledged = self.set(clients, settings.user, attempt, password).await?;
        self.acknowledged()
            .insert(target.credential.clone(), acknowledged);
        Ok(())
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        _new: &SecretBytes,
    ) -> Result<(), Failure> {
        let settings = Settings::of_user(target, true).map_err(settings::refused)?;
        let acknowledged = self.acknowledged().get(&target.credential).cloned();
        if acknowledged.is_none_or(|one| one.version != attempt.version) {
            return Err(Failure::Unknown(
                "AWS did not say that it took this password, and no API can try one".to_owned(),
            ));
        }
        let clients = self.platform.clients().await;
        // A look that fails says nothing against a password that AWS took.
        match self.profile(clients, settings.user).await {
            Ok(profile) if profile.there && !profile.reset => Ok(()),
            Ok(_) => Err(Failure::Unknown(
                "AWS took the password and does not show it; somebody may have changed it"
                    .to_owned(),
            )),
            Err(failure) => Err(Failure::Unknown(failure.to_string())),
        }
    }

    async fn end_sessions(&self, target: &Target) -> Result<(), Failure> {
        let settings = Settings::of_user(target, true).map_err(settings::refused)?;
        if !settings.revokes {
            return Ok(());
        }
        let clients = self.platform.of_account(settings.account).await?;
        let now = self.profile(clients, settings.user).await?.now;
        let set = self
            .acknowledged()
            .get(&target.credential)
            .and_then(|one| one.at);
        let before = revoked_before(set, now)
            .ok_or_else(|| Failure::Refused("AWS does not say what time it is".to_owned()))?;
        let call = Call::change("PutUserPolicy", Attempt::within(0, self.deadline()));
        let operation = clients.change.put_user_policy();
        let operation = operation
            .user_name(settings.user)
            .policy_name(REVOKES)
            .policy_document(deny(before));
        call.send(operation.customize().interceptor(call.clone()).send())
            .await?;
        Ok(())
    }

    async fn evidence(&self, target: &Target) -> Result<Evidence, Failure> {
        let settings = Settings::of_user(target, true).map_err(settings::refused)?;
        let Some(acknowledged) = self.acknowledged().get(&target.credential).cloned() else {
            return Ok(Evidence::NotObservable);
        };
        let Some(set) = acknowledged.at.as_ref().and_then(report::time) else {
            return Ok(Evidence::NotObservable);
        };
        let arn = format!("arn:aws:iam::{}:user/{}", settings.account, settings.user);
        let clients = self.platform.clients().await;
        let user = surroundings::user(&self.platform, clients, settings.user).await?;
        let arn = user.map_or(arn, |user| user.arn().to_owned());
        let row = report::row(&self.platform, &arn).await?;
        let shown = row
            .filter(|row| row.made >= set)
            .and_then(|row| row.password_changed);
        let shown = shown.filter(|changed| set.ms_since(*changed) < TOLERANCE_MS);
        Ok(Evidence::Shown(match shown {
            Some(changed) => format!(
                "credential report: password last changed {}",
                changed.stamp()
            ),
            None => format!(
                "acknowledged by AWS {} as request {}; not in the credential report yet",
                set.stamp(),
                acknowledged.request
            ),
        }))
    }
}

/// Our rules, made longer and wider where the account's policy demands it.
fn fitting(ours: &Rules, policy: Option<&PasswordPolicy>) -> Rules {
    let mut rules = ours.clone();
    let Some(policy) = policy else {
        return rules;
    };
    let least = policy.minimum_password_length.unwrap_or(0);
    let least = usize::try_from(least).unwrap_or(0).min(MAX_LENGTH);
    rules.length = rules.length.max(least);
    for (wanted, class) in [
        (
            policy.require_lowercase_characters,
            config::CharacterClass::Lower,
        ),
        (
            policy.require_uppercase_characters,
            config::CharacterClass::Upper,
        ),
        (policy.require_numbers, config::CharacterClass::Digits),
        (policy.require_symbols, config::CharacterClass::Symbols),
    ] {
        let class = config::AwsPassword::class(class);
        if wanted && !rules.classes.contains(&class) {
            rules.classes.push(class);
        }
    }
    rules
}

/// The moment before which sessions are ended: a little after the overwriting, and never to come.
fn revoked_before(set: Option<DateTime>, now: Option<DateTime>) -> Option<DateTime> {
    let now = now?;
    let spread = set.map_or(now.secs(), |set| set.secs().saturating_add(SPREAD_SECS));
    Some(DateTime::from_secs(now.secs().min(spread)))
}

/// The policy that denies everything to sessions whose token is older.
fn deny(before: DateTime) -> String {
    let stamp = u64::try_from(before.secs())
        .unwrap_or(0)
        .saturating_mul(1000);
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": REVOKES,
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateLessThan": {"aws:TokenIssueTime": Time::from_ms(stamp).stamp().to_string()}},
        }],
    })
    .to_string()
}
