//! The daemon over the simulator of AWS: whatever fails there, whatever others do there, and whenever the daemon
//! is killed, what a quorum opens works, and in the end one version does.

use std::{sync::Arc, time::Duration};

use keyturn_proto::v1::{self, RotationState};
use keyturn_seal::SecretBytes;
use keyturn_tests::{
    aws::{ACCOUNT, Simulator, policies, tag},
    lanes::side_by_side,
    raw::now,
};
use keyturn_vault::definition::Kind;
use keyturnd::connector::{Attempt, Shape, Target, aws::totp};
use serde_json::json;

use super::{
    killed_in_calls::{LANES, Place, Step, killed_at},
    stage::{FIRST, Stage},
};

/// The password of a user whose password is not what is rotated.
const PASSWORD: &str = "The-passw0rd-of-a-user";
const MEMBER: &str = "210987654321";
/// The deadline of calls where some must miss it, in seconds, and an answer that does.
const SHORT: u32 = 5;
const LATE_MS: u64 = 5600;
/// Where none should.
const PATIENT: u32 = 30;

/// What is rotated.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Password,
    Key,
    Mfa,
    Root,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Password, Self::Key, Self::Mfa, Self::Root];

    /// Its connector's kind, which is its page's name.
    fn connector(self) -> &'static str {
        match self {
            Self::Password => "aws-iam-password",
            Self::Key => "aws-iam-access-key",
            Self::Mfa => "aws-iam-mfa",
            Self::Root => "aws-root",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Password => Kind::AwsIamPassword,
            Self::Key => Kind::AwsIamAccessKey,
            Self::Mfa => Kind::Mfa,
            Self::Root => Kind::AwsRoot,
        }
    }

    /// The calls of a rotation that change something, before and after they do, and looks between them.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Password => &[
                ("GetAccountPasswordPolicy", false),
                ("UpdateLoginProfile", false),
                ("UpdateLoginProfile", true),
                ("GetLoginProfile", false),
                ("PutUserPolicy", true),
            ],
            Self::Key => &[
                ("ListAccessKeys", false),
                ("DeleteAccessKey", true),
                ("CreateAccessKey", false),
                ("CreateAccessKey", true),
                ("UpdateAccessKey", false),
                ("UpdateAccessKey", true),
            ],
            Self::Mfa => &[
                ("ListVirtualMFADevices", false),
                ("CreateVirtualMFADevice", false),
                ("CreateVirtualMFADevice", true),
                ("EnableMFADevice", false),
                ("EnableMFADevice", true),
                ("DeactivateMFADevice", true),
            ],
            Self::Root => &[
                ("AssumeRoot", false),
                ("DeleteLoginProfile", true),
                ("DeleteAccessKey", true),
                ("DeactivateMFADevice", false),
                ("DeactivateMFADevice", true),
            ],
        }
    }

    /// What goes wrong at which call.
    fn faults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Password => &[
                ("refuse", "UpdateLoginProfile"),
                ("down", "*"),
                ("lost", "UpdateLoginProfile"),
                ("slow", "UpdateLoginProfile"),
                ("answers-late", "UpdateLoginProfile"),
                ("arrives-late", "UpdateLoginProfile"),
            ],
            Self::Key => &[
                ("refuse", "CreateAccessKey"),
                ("down", "*"),
                ("lost", "CreateAccessKey"),
                ("answers-late", "CreateAccessKey"),
                ("arrives-late", "CreateAccessKey"),
                ("refuse", "UpdateAccessKey"),
            ],
            Self::Mfa => &[
                ("refuse", "CreateVirtualMFADevice"),
                ("down", "*"),
                ("lost", "EnableMFADevice"),
                ("answers-late", "CreateVirtualMFADevice"),
                ("slow", "EnableMFADevice"),
                ("refuse", "DeactivateMFADevice"),
            ],
            Self::Root => &[
                ("refuse", "AssumeRoot"),
                ("down", "*"),
                ("lost", "DeleteLoginProfile"),
                ("slow", "ListMFADevices"),
                ("answers-late", "DeactivateMFADevice"),
                ("throttle", "DeleteAccessKey"),
            ],
        }
    }
}

/// Somebody at the simulator whose credential is rotated.
struct User {
    simulator: Arc<Simulator>,
    subject: Subject,
    name: String,
}

impl User {
    /// A new one, and a vault that rotates their credential, whose first version is there.
    async fn new(simulator: Arc<Simulator>, subject: Subject, deadline: u32) -> (Self, Stage) {
        let name = format!(
            "breakglass-{}",
            hex::encode(keyturn_tests::raw::random::<6>().unwrap())
        );
        let password = match subject {
            Subject::Password => str::from_utf8(FIRST).unwrap(),
            Subject::Key | Subject::Mfa | Subject::Root => PASSWORD,
        };
        simulator.user(&name, password).unwrap();
        let all = json!({"members": [MEMBER], "report_ms": 0});
        simulator.ask("settings", &all).unwrap();
        let table = format!(
            "\n[connectors.aws]\nkind = \"{}\"\n{}",
            subject.connector(),
            simulator.host(deadline)
        );
        let settings: &[(&str, &str)] = match subject {
            Subject::Password => &[
                ("account", ACCOUNT),
                ("user", &name),
                ("revoke-sessions", "yes"),
                ("probe-every", "5m"),
            ],
            Subject::Key | Subject::Mfa => {
                &[("account", ACCOUNT), ("user", &name), ("probe-every", "5m")]
            }
            Subject::Root => &[("account", MEMBER), ("probe-every", "5m")],
        };
        let mut stage = Stage::configured(subject.kind(), "aws", settings, &table).await;
        stage.dated = true;
        let user = Self {
            simulator,
            subject,
            name,
        };
        if let Subject::Password = subject {
            stage.deposit(1, FIRST).await;
        } else {
            user.used();
            stage.adopt().await;
        }
        (user, stage)
    }

    /// An IAM call about this user by somebody else.
    fn admin(&self, action: &str, more: &[(&str, &str)]) -> String {
        let mut params = vec![("Action", action), ("UserName", &self.name)];
        params.extend(more);
        self.simulator.admin(&params).unwrap()
    }

    /// Somebody changes the credential, and tells nobody.
    fn changed_behind_our_back(&self) {
        match self.subject {
            Subject::Password => {
                let set = [("Password", "Set-by-an-admin-1")];
                self.admin("UpdateLoginProfile", &set);
            }
            Subject::Key => {
                let keys = self.admin("ListAccessKeys", &[]);
                for key in keys.split("<member>").skip(1) {
                    let id = tag(key, "AccessKeyId").unwrap();
                    let off = [("AccessKeyId", id.as_str()), ("Status", "Inactive")];
                    self.admin("UpdateAccessKey", &off);
                }
            }
            Subject::Mfa => {
                let devices = self.admin("ListMFADevices", &[]);
                let serial = tag(&devices, "SerialNumber").unwrap();
                self.admin("DeactivateMFADevice", &[("SerialNumber", serial.as_str())]);
            }
            Subject::Root => self.used(),
        }
    }

    /// Whether the root user has nothing left.
    fn is_cleared(&self) -> bool {
        let there = self
            .simulator
            .ask("root", &json!({"account": MEMBER}))
            .unwrap();
        there == json!({"password": false, "keys": [], "devices": [], "certificates": []})
    }

    /// Whether AWS takes calls that are signed with this key.
    async fn signs(&self, secret: &[u8]) -> bool {
        let Shape::Two(keys) = self
            .simulator
            .connector(self.subject.connector(), "")
            .unwrap()
        else {
            panic!("not a connector of keys")
        };
        let target = Target {
            credential: String::new(),
            path: String::new(),
            kind: String::new(),
            metadata: [].into(),
            settings: [("account", ACCOUNT), ("user", self.name.as_str())]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let text = str::from_utf8(secret).unwrap();
        let id = text.lines().next().unwrap().rsplit(' ').next().unwrap();
        let attempt = Attempt::within(1, Duration::from_secs(3));
        let secret = SecretBytes::from_slice(secret);
        let id = id.parse().unwrap();
        keys.test(&target, attempt, &id, &secret).await.is_ok()
    }
}

impl Place for User {
    fn hold(&self, (action, after): Step) {
        self.simulator.hold(action, after).unwrap();
    }

    fn holds(&self) -> bool {
        self.simulator.holds().unwrap()
    }

    fn release(&self) {
        self.simulator.mend().unwrap();
    }

    fn used(&self) {
        if let Subject::Root = self.subject {
            let full = json!({"password": true, "keys": ["AKIAROOT1"], "devices": ["arn:aws:iam::210987654321:mfa/root"], "certificates": []});
            let set = json!({"account": MEMBER, "set": full});
            self.simulator.ask("root", &set).unwrap();
        }
    }

    async fn accepts(&self, secret: &[u8]) -> bool {
        let text = str::from_utf8(secret).unwrap();
        let sign_in = |password: &str, code: Option<&str>| {
            self.simulator.sign_in(&self.name, password, code).is_some()
        };
        match self.subject {
            Subject::Password => sign_in(text, None),
            Subject::Key => self.signs(secret).await,
            Subject::Mfa => {
                let seed = totp::seed(secret).unwrap();
                let [_, code] = totp::consecutive(&seed, now().ms() / 1000);
                sign_in(PASSWORD, Some(&code))
            }
            // What is sealed says how to get in, and is always right.
            Subject::Root => text.starts_with("There is no secret here"),
        }
    }

    async fn refuses(&self, secret: &[u8]) -> bool {
        match self.subject {
            Subject::Root => self.is_cleared(),
            Subject::Password | Subject::Key | Subject::Mfa => !self.accepts(secret).await,
        }
    }
}

fn simulator(subject: Subject) -> Arc<Simulator> {
    let page = format!("{}.md", subject.connector());
    Arc::new(Simulator::start(&policies(&page).unwrap()).unwrap())
}

fn killed_at_every_pair(subject: Subject) {
    let done = side_by_side(
        LANES,
        subject.steps(),
        || simulator(subject),
        |simulator, first| async move {
            let (user, stage) = User::new(simulator, subject, PATIENT).await;
            // The first rotation differs from the others: there is nothing to take away yet.
            let (asked, _) = stage.open().await;
            user.used();
            stage.check_in(&asked, None).await;
            stage.settles("the first").await;
            killed_at(stage, &user, first, subject.steps()).await;
        },
    );
    done.unwrap();
}

#[test]
fn a_password_survives_a_kill_at_every_pair_of_steps() {
    killed_at_every_pair(Subject::Password);
}

#[test]
fn a_key_survives_a_kill_at_every_pair_of_steps() {
    killed_at_every_pair(Subject::Key);
}

#[test]
fn a_device_survives_a_kill_at_every_pair_of_steps() {
    killed_at_every_pair(Subject::Mfa);
}

#[test]
fn a_root_user_survives_a_kill_at_every_pair_of_steps() {
    killed_at_every_pair(Subject::Root);
}

/// Each subject with its own simulator, side by side.
fn each_subject<F: Future<Output = ()>>(run: impl Fn(Subject) -> F + Sync) {
    let all = Subject::ALL;
    side_by_side(all.len(), &all, || (), |(), subject| run(subject)).unwrap();
}

#[test]
fn whatever_fails_at_aws_nobody_is_locked_out_and_it_ends_in_one_version() {
    each_subject(|subject| async move {
        let (user, stage) = User::new(simulator(subject), subject, SHORT).await;
        let (mut asked, mut secrets) = stage.is_open(&user, "before").await;
        for (fault, action) in subject.faults() {
            let name = format!("{subject:?}: {fault} at {action}");
            user.used();
            user.simulator.fault(action, fault, 999, LATE_MS).unwrap();
            stage.check_in(&asked, None).await;
            let failed =
                |view: &v1::RotationView| view.attempts > 0 || view.state() == RotationState::Idle;
            stage.until(&name, failed).await;
            if fault.ends_with("late") || *fault == "slow" {
                // By a real clock, long before the next attempt.
                tokio::time::sleep(Duration::from_secs(u64::from(SHORT) + 1)).await;
            }
            // For who looks from outside too; nothing is tried again before the clock goes on.
            user.simulator.mend().unwrap();
            let (meanwhile, _) = stage.is_open(&user, &name).await;
            stage.check_in(&meanwhile, None).await;
            stage.settles(&name).await;
            let before = std::mem::take(&mut secrets);
            (asked, secrets) = stage.is_open(&user, &name).await;
            assert_eq!(secrets.len(), 1, "{name}");
            for old in before {
                assert!(user.refuses(&old).await, "{name}: the old one");
            }
        }
    });
}

#[test]
fn what_is_changed_at_aws_behind_our_back_is_seen_and_mended() {
    each_subject(|subject| async move {
        let (user, stage) = User::new(simulator(subject), subject, PATIENT).await;
        let (asked, _) = stage.open().await;
        stage.check_in(&asked, None).await;
        stage.settles("before").await;
        for _ in 0..40 {
            assert!(
                !stage.diverged().await,
                "{subject:?}: looks that see nothing new"
            );
        }
        user.changed_behind_our_back();
        stage.until_diverged(true).await;
        stage.advance(Duration::from_hours(1));
        stage.rotate_now().await;
        stage.settles("mended").await;
        let (_, secrets) = stage.is_open(&user, "mended").await;
        assert_eq!(secrets.len(), 1, "{subject:?}");
        stage.until_diverged(false).await;
    });
}

impl Stage {
    /// Whether the sealed secret is known not to be the real one; time goes by.
    async fn diverged(&self) -> bool {
        self.advance(Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let list = v1::ListCredentialsRequest::default();
        let reply = self.line.credentials().list(list).await.unwrap();
        let problems = &reply.into_inner().credentials[0].problems;
        problems.contains(&"diverged".to_owned())
    }

    async fn until_diverged(&self, wanted: bool) {
        for _ in 0..500 {
            if self.diverged().await == wanted {
                return;
            }
        }
        panic!("diverged is not {wanted}: {:?}", self.rotation().await)
    }
}
