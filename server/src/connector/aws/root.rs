//! `aws-root`: the root user of a member account, by the privileged sessions of `sts:AssumeRoot`.
//!
//! No API sets a root password. What the management account (or the delegated administrator of IAM) can do
//! is take every root credential away, and let whoever reads the root mailbox set a new password. So what
//! is sealed is not a password but what people need to know when they have opened it; and a rotation takes
//! away whatever they made meanwhile. The management account's own root has no API at all: that is the
//! `manual` connector's.
//!
//! # Invariants
//! 1. The password goes first and the MFA devices last: at no moment is there a password without them.
//! 2. Each session has one task policy of AWS, the narrowest for what follows.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_iam as iam;
use aws_sdk_iam::operation::{
    create_login_profile::CreateLoginProfileError, deactivate_mfa_device::DeactivateMFADeviceError,
    delete_access_key::DeleteAccessKeyError, delete_login_profile::DeleteLoginProfileError,
    delete_signing_certificate::DeleteSigningCertificateError,
    get_login_profile::GetLoginProfileError,
};
use aws_sdk_sts::types::PolicyDescriptorType;
use keyturn_seal::secret::SecretBytes;

use super::{
    call::{Call, made_before},
    platform::Platform,
    report,
    settings::{self, account},
};
use crate::{
    config,
    connector::{
        About, Attempt, Connector, Evidence, Facts, Failure, Known, OneSlot, RulesError, Sight,
        Target, Verdict,
    },
    generate::Rules,
};

/// How long a privileged session may last; AWS allows 900.
const SESSION_SECS: i32 = 300;
/// The task policies of AWS.
const AUDIT: &str = "arn:aws:iam::aws:policy/root-task/IAMAuditRootUserCredentials";
const DELETE: &str = "arn:aws:iam::aws:policy/root-task/IAMDeleteRootUserCredentials";
const CREATE: &str = "arn:aws:iam::aws:policy/root-task/IAMCreateRootUserPassword";

/// The root users of member accounts.
pub struct Root {
    platform: Platform,
    management: Option<String>,
}

/// What a definition wants of an account's root.
struct Settings<'a> {
    account: &'a str,
    /// Whether the holder of the mailbox may set a password.
    recoverable: bool,
}

/// The credentials that a root user has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Credentials {
    password: bool,
    keys: Vec<String>,
    devices: Vec<String>,
    certificates: Vec<String>,
    /// When the password was last used.
    used: Option<String>,
}

impl Credentials {
    /// What is there, in words; none where nothing is.
    fn present(&self) -> Option<String> {
        let counted = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        let parts: Vec<String> = [
            self.password.then(|| "a password".to_owned()),
            counted(self.keys.len(), "access keys"),
            counted(self.devices.len(), "MFA devices"),
            counted(self.certificates.len(), "signing certificates"),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

impl<'a> Settings<'a> {
    fn of(target: &'a Target) -> Result<Self, String> {
        settings::only(target, &["account", "sign-in"])?;
        let recoverable = match settings::one(target, "sign-in")? {
            None | Some("absent") => false,
            Some("recoverable") => true,
            Some(other) => {
                return Err(format!(
                    "`sign-in`: write absent or recoverable, not {other:?}"
                ));
            }
        };
        Ok(Self {
            account: account(target)?,
            recoverable,
        })
    }
}

impl Root {
    /// By a configuration.
    pub fn new(config: &config::AwsRoot) -> Self {
        Self {
            platform: Platform::new(config.host()),
            management: config
                .management_account
                .as_ref()
                .map(|account| account.as_ref().to_owned()),
        }
    }

    /// A privileged session in a member account.
    async fn session(
        &self,
        account: &str,
        attempt: Attempt,
        task: &'static str,
    ) -> Result<iam::Client, Failure> {
        if self.management.as_deref() == Some(account) {
            return Err(Failure::Refused(format!(
                "{account} is the management account, whose root no API reaches: have two people change it \
                 with the `manual` connector"
            )));
        }
        let call = Call::look_of("AssumeRoot", attempt);
        let clients = self.platform.clients().await;
        let operation = clients
            .sts
            .assume_root()
            .target_principal(account)
            .duration_seconds(SESSION_SECS)
            .task_policy_arn(PolicyDescriptorType::builder().arn(task).build());
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        let answer = answer.map_err(|failed| {
            let failure = Failure::from(failed);
            if let Failure::Refused(why) = failure {
                Failure::Refused(format!(
                    "{why}; centralized root access must be on, and an account without it is changed by two \
                     people with the `manual` connector"
                ))
            } else {
                failure
            }
        })?;
        let session = answer
            .credentials
            .ok_or_else(|| Failure::Refused("AssumeRoot: no session in the answer".to_owned()))?;
        Ok(clients.in_session(&session))
    }

    /// What the root user has.
    async fn audit(&self, root: &iam::Client, attempt: Attempt) -> Result<Credentials, Failure> {
        let call = Call::look_of("GetLoginProfile", attempt);
        let operation = root.get_login_profile();
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        let password = match answer {
            Ok(_) => true,
            Err(failed) if failed.is(GetLoginProfileError::is_no_such_entity_exception) => false,
            Err(failed) => return Err(failed.into()),
        };
        let call = Call::look_of("ListAccessKeys", attempt);
        let operation = root.list_access_keys();
        let keys = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        let call = Call::look_of("ListMFADevices", attempt);
        let operation = root.list_mfa_devices();
        let devices = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        let call = Call::look_of("ListSigningCertificates", attempt);
        let operation = root.list_signing_certificates();
        let certificates = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        let call = Call::look_of("GetUser", attempt);
        let operation = root.get_user();
        let user = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        let used = user.user.and_then(|user| user.password_last_used);
        Ok(Credentials {
            password,
            keys: keys
                .access_key_metadata
                .into_iter()
                .filter_map(|key| key.access_key_id)
                .collect(),
            devices: devices
                .mfa_devices
                .into_iter()
                .map(|device| device.serial_number)
                .collect(),
            certificates: certificates
                .certificates
                .into_iter()
                .map(|certificate| certificate.certificate_id)
                .collect(),
            used: used
                .as_ref()
                .and_then(report::time)
                .map(|at| at.stamp().to_string()),
        })
    }

    /// Takes every credential of the root user away, in the order of invariant 1.
    async fn clear(
        &self,
        root: &iam::Client,
        attempt: Attempt,
        there: &Credentials,
    ) -> Result<(), Failure> {
        if there.password {
            let call = Call::change("DeleteLoginProfile", attempt);
            let operation = root.delete_login_profile();
            made_before(
                call.send(operation.customize().interceptor(call.clone()).send())
                    .await,
                DeleteLoginProfileError::is_no_such_entity_exception,
            )?;
        }
        for key in &there.keys {
            let call = Call::change("DeleteAccessKey", attempt);
            let operation = root.delete_access_key().access_key_id(key);
            made_before(
                call.send(operation.customize().interceptor(call.clone()).send())
                    .await,
                DeleteAccessKeyError::is_no_such_entity_exception,
            )?;
        }
        for certificate in &there.certificates {
            let call = Call::change("DeleteSigningCertificate", attempt);
            let operation = root
                .delete_signing_certificate()
                .certificate_id(certificate);
            made_before(
                call.send(operation.customize().interceptor(call.clone()).send())
                    .await,
                DeleteSigningCertificateError::is_no_such_entity_exception,
            )?;
        }
        for device in &there.devices {
            let call = Call::change("DeactivateMFADevice", attempt);
            let operation = root.deactivate_mfa_device().serial_number(device);
            made_before(
                call.send(operation.customize().interceptor(call.clone()).send())
                    .await,
                DeactivateMFADeviceError::is_no_such_entity_exception,
            )?;
        }
        Ok(())
    }

    /// Lets the holder of the mailbox set a password.
    async fn make_recoverable(&self, account: &str, attempt: Attempt) -> Result<(), Failure> {
        let root = self.session(account, attempt, CREATE).await?;
        let call = Call::change("CreateLoginProfile", attempt);
        let operation = root.create_login_profile();
        made_before(
            call.send(operation.customize().interceptor(call.clone()).send())
                .await,
            CreateLoginProfileError::is_entity_already_exists_exception,
        )
    }
}

/// A failure after something was begun.
fn begun(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(why) | Failure::Full(why) | Failure::Busy { why, .. } => {
            Failure::Unknown(why)
        }
        unknown @ Failure::Unknown(_) => unknown,
    }
}

#[async_trait]
impl Connector for Root {
    fn about(&self) -> About {
        About {
            kind: "aws-root",
            fence: false,
            rights: &[
                "in the management account or as IAM's delegated administrator: assume root in the named member \
                 accounts, with three task policies of AWS",
            ],
        }
    }

    fn deadline(&self) -> Duration {
        self.platform.deadline()
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        Settings::of(target).map(drop)
    }

    async fn check_self(&self) -> Result<String, Failure> {
        Ok(self.platform.caller().await?.arn)
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        let settings = Settings::of(target).map_err(settings::refused)?;
        let attempt = Attempt::within(0, self.deadline());
        let root = self.session(settings.account, attempt, AUDIT).await?;
        self.audit(&root, attempt).await.map(drop)
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        let settings = Settings::of(target).map_err(settings::refused)?;
        let attempt = Attempt::within(0, self.deadline());
        let root = self.session(settings.account, attempt, AUDIT).await?;
        let there = self.audit(&root, attempt).await?;
        let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
        let facts = Facts::from([
            ("password".to_owned(), yes_no(there.password)),
            ("access-keys".to_owned(), there.keys.len().to_string()),
            ("mfa-devices".to_owned(), there.devices.len().to_string()),
            (
                "signing-certificates".to_owned(),
                there.certificates.len().to_string(),
            ),
            (
                "password-last-used".to_owned(),
                there.used.clone().unwrap_or_else(|| "never".to_owned()),
            ),
        ]);
        if known.version == 0 || settings.recoverable {
            return Ok(Sight::unchanged(facts, known));
        }
        let verdict = match there.present() {
            None => Verdict::Same,
            Some(what) => Verdict::Diverged(format!("the root user has {what}")),
        };
        Ok(Sight { verdict, facts })
    }
}

#[async_trait]
impl OneSlot for Root {
    fn rules(&self, _target: &Target) -> Result<Rules, RulesError> {
        Ok(Rules::default())
    }

    async fn make(&self, target: &Target) -> Result<SecretBytes, RulesError> {
        let account = target.settings.get("account").map_or("-", String::as_str);
        let recoverable = target.settings.get("sign-in").map(String::as_str) == Some("recoverable");
        let state = if recoverable {
            "Its password was taken away and may be set anew: at the AWS sign-in page choose root user, enter the \
             account's mail address and \"Forgot password\"; the reset link comes by mail."
        } else {
            "It has no password, no access key and no MFA device, and a reset by mail is refused.\n\
             To open it, from the management account or as IAM's delegated administrator: sts:AssumeRoot with the \
             task policy IAMCreateRootUserPassword, then iam:CreateLoginProfile without any parameter; then at the \
             AWS sign-in page choose root user, enter the account's mail address and \"Forgot password\"."
        };
        let text = format!(
            "There is no secret here: this is the root user of account {account}.\n{state}\n\
             Check in when you are done: every root credential of the account is then taken away again.\n"
        );
        Ok(SecretBytes::from(text.into_bytes()))
    }

    async fn apply(
        &self,
        target: &Target,
        attempt: Attempt,
        _new: &SecretBytes,
    ) -> Result<(), Failure> {
        let settings = Settings::of(target).map_err(settings::refused)?;
        let root = self.session(settings.account, attempt, DELETE).await?;
        let there = self.audit(&root, attempt).await?;
        // From here on something may be gone already when the next call fails.
        self.clear(&root, attempt, &there).await.map_err(begun)?;
        if settings.recoverable {
            let made = self.make_recoverable(settings.account, attempt).await;
            made.map_err(begun)?;
        }
        Ok(())
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        _new: &SecretBytes,
    ) -> Result<(), Failure> {
        let settings = Settings::of(target).map_err(settings::refused)?;
        let root = self
            .session(settings.account, attempt, AUDIT)
            .await
            .map_err(begun)?;
        let there = self.audit(&root, attempt).await.map_err(begun)?;
        let wanted = Credentials {
            password: settings.recoverable,
            used: there.used.clone(),
            ..Credentials::default()
        };
        if there == wanted {
            Ok(())
        } else {
            let what = there.present().unwrap_or_else(|| "no password".to_owned());
            Err(Failure::Unknown(format!("the root user has {what}")))
        }
    }

    async fn end_sessions(&self, _target: &Target) -> Result<(), Failure> {
        // No API ends a root user's console session; it lasts twelve hours at most.
        Ok(())
    }

    async fn evidence(&self, target: &Target) -> Result<Evidence, Failure> {
        let settings = Settings::of(target).map_err(settings::refused)?;
        let attempt = Attempt::within(0, self.deadline());
        let root = self.session(settings.account, attempt, AUDIT).await?;
        let there = self.audit(&root, attempt).await?;
        Ok(Evidence::Shown(match there.present() {
            None => "audit session: the root user has no password, access keys, MFA devices or signing certificates"
                .to_owned(),
            Some(what) => format!("audit session: the root user has {what}"),
        }))
    }
}
