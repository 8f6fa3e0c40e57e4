//! The connectors of AWS against a simulator of it: each rotation proven from outside, and each way to fail.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use keyturn_seal::secret::SecretBytes;
use keyturn_tests::{
    aws::{ACCOUNT, DEADLINE_SECS, Simulator, actions, policies, tag},
    lanes::side_by_side,
};
use keyturn_vault::time::Time;
use keyturnd::connector::{
    Attempt, Evidence, Facts, Failure, Known, OneSlot, Shape, Sight, Target, TwoSlot, Verdict,
    aws::totp,
};
use serde_json::{Value, json};

const USER: &str = "breakglass-alice";
const OLD: &str = "The-0ld-password-of-alice";
const RIGHTS: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
const MEMBER: &str = "210987654321";
/// Later than the deadline of a call, in milliseconds.
const LATE_MS: u64 = 6600;

fn target(settings: &[(&str, &str)]) -> Target {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Target {
        credential: "01HX0000000000000000000000".to_owned(),
        path: "aws/123456789012/alice".to_owned(),
        kind: "text".to_owned(),
        metadata: [].into(),
        settings: settings.iter().map(own).collect(),
    }
}

fn alice(more: &[(&str, &str)]) -> Target {
    target(&[&[("account", ACCOUNT), ("user", USER)], more].concat())
}

fn attempt(version: u64) -> Attempt {
    Attempt::within(version, Duration::from_secs(DEADLINE_SECS.into()))
}

fn one(shape: &Shape) -> &dyn OneSlot {
    shape.one().unwrap()
}

fn two(shape: &Shape) -> &dyn TwoSlot {
    shape.two().unwrap()
}

fn text(secret: &SecretBytes) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

/// What a failure says of the target, as a word.
fn word<T>(answer: &Result<T, Failure>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(Failure::Refused(_)) => "refused",
        Err(Failure::Full(_)) => "full",
        Err(Failure::Busy { .. }) => "busy",
        Err(Failure::Unknown(_)) => "unknown",
    }
}

/// What is called beside `sts:GetCallerIdentity`, which takes no rights.
fn called(simulator: &Simulator) -> Vec<String> {
    let calls = simulator.calls().unwrap();
    let ours = calls
        .iter()
        .filter_map(|call| call.strip_prefix("user keyturnd "));
    ours.filter(|action| *action != "sts:GetCallerIdentity")
        .map(str::to_owned)
        .collect()
}

fn known(version: u64, proven: Option<Time>, facts: Option<Facts>) -> Known {
    Known {
        version,
        proven,
        facts,
        ..Known::default()
    }
}

fn now() -> Time {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Time::from_ms(u64::try_from(since.as_millis()).unwrap())
}

fn password_rights() -> Vec<Value> {
    policies("aws-iam-password.md").unwrap()
}

fn with_alice(rights: &[Value]) -> Simulator {
    let simulator = Simulator::start(rights).unwrap();
    simulator.user(USER, OLD).unwrap();
    simulator
}

#[tokio::test]
async fn a_password_is_changed_and_the_old_one_is_void() {
    let rights = password_rights();
    let simulator = with_alice(&rights);
    let trust = r#"{"Version":"2012-10-17","Statement":[]}"#;
    simulator
        .admin(&[
            ("Action", "CreateRole"),
            ("RoleName", "breakglass-admin"),
            ("AssumeRolePolicyDocument", trust),
        ])
        .unwrap();
    for owner in [("UserName", USER), ("RoleName", "breakglass-admin")] {
        let action = if owner.0 == "UserName" {
            "PutUserPolicy"
        } else {
            "PutRolePolicy"
        };
        simulator
            .admin(&[
                ("Action", action),
                owner,
                ("PolicyName", "p"),
                ("PolicyDocument", RIGHTS),
            ])
            .unwrap();
    }
    let shape = simulator.connector("aws-iam-password", "").unwrap();
    let connector = one(&shape);
    let target = alice(&[("revoke-sessions", "yes"), ("role", "breakglass-admin")]);
    assert_eq!(
        connector.check_self().await,
        Ok("arn:aws:iam::123456789012:user/keyturnd".to_owned())
    );
    assert_eq!(connector.check(&target).await, Ok(()));

    let new = connector.make(&target).await.unwrap();
    let session = simulator.sign_in(USER, OLD, None).unwrap();
    // AWS's times are to the second; what comes now is after the session.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(connector.apply(&target, attempt(2), &new).await, Ok(()));
    assert_eq!(connector.test(&target, attempt(2), &new).await, Ok(()));
    assert!(
        simulator.sign_in(USER, OLD, None).is_none(),
        "the old one is refused"
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let later = simulator.sign_in(USER, &text(&new), None);
    assert!(later.is_some(), "the new one is accepted");

    assert!(simulator.lives(&session).unwrap());
    assert_eq!(connector.end_sessions(&target).await, Ok(()));
    assert!(
        !simulator.lives(&session).unwrap(),
        "the old session is gone"
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let session = simulator.sign_in(USER, &text(&new), None).unwrap();
    assert!(simulator.lives(&session).unwrap(), "a new one is not");

    let Ok(Evidence::Shown(line)) = connector.evidence(&target).await else {
        panic!("evidence");
    };
    assert!(
        line.starts_with("credential report: password last changed 20"),
        "{line}"
    );
    let sight = connector
        .probe(&target, &known(2, None, None))
        .await
        .unwrap();
    assert_eq!(sight.verdict, Verdict::Same);
    for fact in [
        "user-id",
        "user-rights",
        "role-trust",
        "role-rights",
        "password-changed",
        "mfa",
    ] {
        assert!(sight.facts.contains_key(fact), "{fact}");
    }

    // A user without a password gets one.
    simulator
        .admin(&[("Action", "DeleteLoginProfile"), ("UserName", USER)])
        .unwrap();
    let new = connector.make(&target).await.unwrap();
    assert_eq!(connector.apply(&target, attempt(3), &new).await, Ok(()));
    assert!(simulator.sign_in(USER, &text(&new), None).is_some());
    assert_eq!(
        called(&simulator),
        actions(&rights),
        "the page's policies allow what is called and no more"
    );
}

#[tokio::test]
async fn evidence_waits_for_no_report_but_says_so() {
    let simulator = with_alice(&password_rights());
    let shape = simulator.connector("aws-iam-password", "").unwrap();
    let (connector, target) = (one(&shape), alice(&[]));
    assert_eq!(
        connector.evidence(&target).await,
        Ok(Evidence::NotObservable)
    );
    let sight = connector
        .probe(&target, &known(1, None, None))
        .await
        .unwrap();
    assert_eq!(
        sight.verdict,
        Verdict::Same,
        "this makes a report, which is kept four hours"
    );

    tokio::time::sleep(Duration::from_millis(1100)).await;
    let new = connector.make(&target).await.unwrap();
    connector.apply(&target, attempt(2), &new).await.unwrap();
    let Ok(Evidence::Shown(line)) = connector.evidence(&target).await else {
        panic!("evidence");
    };
    assert!(line.starts_with("acknowledged by AWS 20"), "{line}");
    assert!(line.ends_with("not in the credential report yet"), "{line}");
    let sight = connector
        .probe(&target, &known(2, Some(now()), None))
        .await
        .unwrap();
    assert!(
        matches!(sight.verdict, Verdict::NotObservable(_)),
        "{sight:?}"
    );
    assert!(sight.facts.is_empty(), "facts of an old report are none");

    simulator.ask("settings", &json!({"report_ms": 0})).unwrap();
    let Ok(Evidence::Shown(line)) = connector.evidence(&target).await else {
        panic!("evidence");
    };
    assert!(
        line.starts_with("credential report: password last changed 20"),
        "{line}"
    );
}

/// Rows of a table, some side by side.
fn each_row<R: Copy + Send, F: Future<Output = ()>>(rows: &[R], row: impl Fn(R) -> F + Sync) {
    side_by_side(6, rows, || (), |(), one| row(one)).unwrap();
}

#[test]
fn a_password_that_cannot_be_set_locks_nobody_out() {
    // (what happens, to which call, what follows, whether the target has the new one in the end)
    let rows = [
        ("refuse", "UpdateLoginProfile", "refused", false),
        ("throttle", "UpdateLoginProfile", "busy", false),
        ("error", "UpdateLoginProfile", "unknown", false),
        ("down", "UpdateLoginProfile", "unknown", false),
        ("lost", "UpdateLoginProfile", "unknown", true),
        ("slow", "UpdateLoginProfile", "unknown", true),
        ("answers-late", "UpdateLoginProfile", "unknown", true),
        ("arrives-late", "UpdateLoginProfile", "unknown", true),
        ("refuse", "GetCallerIdentity", "refused", false),
        ("down", "GetCallerIdentity", "busy", false),
        ("slow", "GetCallerIdentity", "busy", false),
    ];
    each_row(&rows, |(kind, action, want, taken)| async move {
        let name = format!("{kind} at {action}");
        let simulator = with_alice(&password_rights());
        let shape = simulator.connector("aws-iam-password", "").unwrap();
        let (connector, target) = (one(&shape), alice(&[]));
        let new = connector.make(&target).await.unwrap();
        simulator.fault(action, kind, 9, LATE_MS).unwrap();
        let answer = connector.apply(&target, attempt(2), &new).await;
        assert_eq!(word(&answer), want, "{name}: {answer:?}");
        let message = answer.unwrap_err().to_string();
        assert!(!message.contains(&text(&new)), "{name}: {message}");
        simulator.mend().unwrap();
        let tested = connector.test(&target, attempt(2), &new).await;
        assert_eq!(
            word(&tested),
            "unknown",
            "{name}: nobody can say that it was taken"
        );
        tokio::time::sleep(Duration::from_millis(2500)).await;
        if action != "GetCallerIdentity" {
            let sent = simulator.count(action).unwrap();
            assert_eq!(sent, 1, "{name}: what changes something is sent once");
        }
        let accepted = |password: &str| simulator.sign_in(USER, password, None).is_some();
        assert_eq!(accepted(&text(&new)), taken, "{name}: the new one");
        assert_eq!(accepted(OLD), !taken, "{name}: the old one");

        let next = connector.make(&target).await.unwrap();
        assert_eq!(
            connector.apply(&target, attempt(3), &next).await,
            Ok(()),
            "{name}"
        );
        assert_eq!(
            connector.test(&target, attempt(3), &next).await,
            Ok(()),
            "{name}"
        );
        assert!(accepted(&text(&next)) && !accepted(OLD), "{name}");
    });
}

#[tokio::test]
async fn what_only_looks_is_asked_again() {
    let simulator = with_alice(&password_rights());
    let shape = simulator.connector("aws-iam-password", "").unwrap();
    for (kind, times) in [("throttle", 1), ("error", 2), ("down", 1)] {
        simulator.fault("GetUser", kind, times, 0).unwrap();
        assert_eq!(shape.connector().check(&alice(&[])).await, Ok(()), "{kind}");
    }
}

#[tokio::test]
async fn nobody_there_and_no_rights_are_certain() {
    let mut simulator = with_alice(&[]);
    let shape = simulator.connector("aws-iam-password", "").unwrap();
    let (connector, target) = (one(&shape), alice(&[]));
    let new = SecretBytes::from_slice(b"Some-passw0rd-of-a-good-length");
    let answer = connector.apply(&target, attempt(2), &new).await;
    assert_eq!(word(&answer), "refused", "{answer:?}");
    assert!(
        connector
            .check_self()
            .await
            .unwrap_err()
            .to_string()
            .contains("AccessDenied")
    );

    let elsewhere = super_account();
    let answer = connector
        .apply(&elsewhere, attempt(2), &new)
        .await
        .unwrap_err();
    assert!(
        answer.to_string().contains("works in 123456789012"),
        "{answer}"
    );
    assert!(simulator.sign_in(USER, OLD, None).is_some());

    simulator.stop().unwrap();
    let answer = connector.apply(&target, attempt(3), &new).await;
    assert_eq!(word(&answer), "busy", "{answer:?}");
}

fn super_account() -> Target {
    target(&[("account", "999999999999"), ("user", USER)])
}

#[tokio::test]
async fn passwords_follow_the_accounts_policy() {
    let simulator = with_alice(&password_rights());
    simulator
        .admin(&[
            ("Action", "UpdateAccountPasswordPolicy"),
            ("MinimumPasswordLength", "40"),
            ("RequireSymbols", "true"),
            ("RequireNumbers", "true"),
            ("RequireUppercaseCharacters", "true"),
            ("RequireLowercaseCharacters", "true"),
            ("PasswordReusePrevention", "3"),
        ])
        .unwrap();
    let rules = "rules = { length = 30, classes = [\"lower\"] }\n";
    let shape = simulator.connector("aws-iam-password", rules).unwrap();
    let (connector, target) = (one(&shape), alice(&[]));
    for version in 2..5 {
        let new = connector.make(&target).await.unwrap();
        assert_eq!(new.expose().len(), 40);
        assert_eq!(
            connector.apply(&target, attempt(version), &new).await,
            Ok(())
        );
        assert!(simulator.sign_in(USER, &text(&new), None).is_some());
    }
    let weak = SecretBytes::from_slice(b"weak");
    let refused = connector
        .apply(&target, attempt(5), &weak)
        .await
        .unwrap_err();
    let want = "UpdateLoginProfile: PasswordPolicyViolation";
    assert_eq!(
        refused,
        Failure::Refused(want.to_owned()),
        "AWS's words quote the password"
    );
}

#[tokio::test]
async fn a_password_changed_behind_our_back_is_seen() {
    let change = |simulator: &Simulator, params: &[(&str, &str)]| {
        simulator.admin(params).map(drop).unwrap();
    };
    let minutes_ago = |minutes: u64| Time::from_ms(now().ms() - minutes * 60_000);
    for (name, params, want) in [
        ("nothing", vec![], "same"),
        (
            "another password",
            vec![
                ("Action", "UpdateLoginProfile"),
                ("UserName", USER),
                ("Password", "Set-by-an-admin-1"),
            ],
            "diverged",
        ),
        (
            "one to be changed",
            vec![
                ("Action", "UpdateLoginProfile"),
                ("UserName", USER),
                ("Password", "Set-by-an-admin-1"),
                ("PasswordResetRequired", "true"),
            ],
            "diverged",
        ),
        (
            "no password",
            vec![("Action", "DeleteLoginProfile"), ("UserName", USER)],
            "absent",
        ),
        (
            "more rights",
            vec![
                ("Action", "PutUserPolicy"),
                ("UserName", USER),
                ("PolicyName", "more"),
                ("PolicyDocument", RIGHTS),
            ],
            "diverged",
        ),
    ] {
        let simulator = with_alice(&password_rights());
        simulator.ask("settings", &json!({"report_ms": 0})).unwrap();
        let shape = simulator.connector("aws-iam-password", "").unwrap();
        let (connector, target) = (shape.connector(), alice(&[]));
        let first = connector
            .probe(&target, &known(1, None, None))
            .await
            .unwrap();
        assert_eq!(first.verdict, Verdict::Same, "{name}");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        if !params.is_empty() {
            change(&simulator, &params);
        }
        let facts = known(1, Some(minutes_ago(1)), Some(first.facts));
        let sight = connector.probe(&target, &facts).await.unwrap();
        assert_eq!(verdict(&sight), want, "{name}: {sight:?}");
    }
    // A change long after the proof is seen without any earlier look.
    let simulator = with_alice(&password_rights());
    let shape = simulator.connector("aws-iam-password", "").unwrap();
    let (target, long_ago) = (alice(&[]), known(1, Some(minutes_ago(9)), None));
    let sight = shape.connector().probe(&target, &long_ago).await.unwrap();
    assert_eq!(verdict(&sight), "diverged");
}

fn verdict(sight: &Sight) -> &'static str {
    match sight.verdict {
        Verdict::Same => "same",
        Verdict::Diverged(_) => "diverged",
        Verdict::Absent => "absent",
        Verdict::NotObservable(_) => "not observable",
    }
}

#[tokio::test]
async fn an_access_key_is_replaced_while_the_old_one_works() {
    let rights = policies("aws-iam-access-key.md").unwrap();
    let simulator = with_alice(&rights);
    let (old, old_secret) = simulator.key_of(USER).unwrap();
    simulator
        .ask("settings", &json!({"propagation_ms": 700}))
        .unwrap();
    let shape = simulator.connector("aws-iam-access-key", "").unwrap();
    let (connector, target) = (two(&shape), alice(&[]));
    assert_eq!(connector.check(&target).await, Ok(()));
    let before = connector.keys(&target).await.unwrap();
    assert_eq!(before.len(), 1);
    assert!(before[0].id.as_str() == old && before[0].active && !before[0].named);

    let created = connector.create(&target, attempt(2)).await.unwrap();
    let full = connector.create(&target, attempt(2)).await;
    assert_eq!(word(&full), "full", "AWS allows two");
    let early = connector
        .test(&target, attempt(2), &created.id, &created.secret)
        .await;
    assert_eq!(word(&early), "refused", "not everybody knows it yet");
    assert!(!early.unwrap_err().to_string().contains("aws_secret"));
    tokio::time::sleep(Duration::from_millis(800)).await;
    let tested = connector
        .test(&target, attempt(2), &created.id, &created.secret)
        .await;
    assert_eq!(tested, Ok(()));

    let sealed = text(&created.secret);
    let works = async |id: &str, secret: &str| {
        let text = format!("aws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        let key = SecretBytes::from_slice(text.as_bytes());
        connector
            .test(&target, attempt(2), &id.parse().unwrap(), &key)
            .await
            .is_ok()
    };
    assert!(
        works(&old, &old_secret).await,
        "until then the old one works"
    );
    assert_eq!(connector.deactivate(&target, &before[0].id).await, Ok(()));
    assert_eq!(
        connector.deactivate(&target, &before[0].id).await,
        Ok(()),
        "twice does no harm"
    );
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!works(&old, &old_secret).await, "the old one is refused");
    let new_secret = sealed.lines().nth(1).unwrap().split(" = ").nth(1).unwrap();
    assert!(
        works(created.id.as_str(), new_secret).await,
        "the new one is accepted"
    );
    assert!(
        !works(created.id.as_str(), "another").await,
        "this tells right from wrong"
    );
    let keys = connector.keys(&target).await.unwrap();
    assert_eq!(keys.iter().filter(|key| key.active).count(), 1);

    let ours = Known {
        key: Some(created.id.clone()),
        ..known(2, None, None)
    };
    let sight = connector.probe(&target, &ours).await.unwrap();
    assert_eq!(sight.verdict, Verdict::Same);
    simulator.fault("ListAccessKeys", "stale", 2, 0).unwrap();
    let listed = simulator.count("ListAccessKeys").unwrap();
    assert_eq!(connector.delete(&target, &before[0].id).await, Ok(()));
    assert_eq!(simulator.count("ListAccessKeys").unwrap(), listed + 3);
    assert_eq!(
        connector.keys(&target).await.unwrap().len(),
        1,
        "AWS lists it no more"
    );
    assert_eq!(
        connector.delete(&target, &before[0].id).await,
        Ok(()),
        "twice does no harm"
    );

    let used = called(&simulator);
    let allowed = actions(&rights);
    let unused: Vec<_> = allowed
        .iter()
        .filter(|action| !used.contains(action))
        .collect();
    // The rest is for a policy or a role that this user does not have.
    let around = [
        "iam:GetUserPolicy",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies",
        "iam:ListRolePolicies",
    ];
    assert!(
        unused
            .iter()
            .all(|action| around.contains(&action.as_str())),
        "{unused:?}"
    );
    assert!(
        used.iter().all(|action| allowed.contains(action)),
        "{used:?}"
    );
}

#[tokio::test]
async fn what_becomes_of_a_key_behind_our_back_is_seen() {
    let simulator = with_alice(&policies("aws-iam-access-key.md").unwrap());
    let shape = simulator.connector("aws-iam-access-key", "").unwrap();
    let (connector, target) = (two(&shape), alice(&[]));
    let created = connector.create(&target, attempt(1)).await.unwrap();
    let ours = Known {
        key: Some(created.id.clone()),
        ..known(1, None, None)
    };
    assert_eq!(
        verdict(&connector.probe(&target, &ours).await.unwrap()),
        "same"
    );
    // Somebody else's key is seen and never touched.
    let (foreign, _) = simulator.key_of(USER).unwrap();
    let sight = connector.probe(&target, &ours).await.unwrap();
    assert_eq!(verdict(&sight), "diverged", "{sight:?}");
    assert!(
        connector
            .keys(&target)
            .await
            .unwrap()
            .iter()
            .any(|key| key.id.as_str() == foreign)
    );
    for (status, want) in [("Inactive", "diverged"), ("gone", "absent")] {
        let id = created.id.as_str();
        let params = if status == "gone" {
            vec![
                ("Action", "DeleteAccessKey"),
                ("UserName", USER),
                ("AccessKeyId", id),
            ]
        } else {
            vec![
                ("Action", "UpdateAccessKey"),
                ("UserName", USER),
                ("AccessKeyId", id),
                ("Status", status),
            ]
        };
        simulator.admin(&params).unwrap();
        let sight = connector.probe(&target, &ours).await.unwrap();
        assert_eq!(verdict(&sight), want, "{status}");
    }
}

#[test]
fn a_key_that_cannot_be_made_says_whether_one_was() {
    let rows = [
        ("refuse", "refused", 1),
        ("throttle", "busy", 1),
        ("error", "unknown", 1),
        ("down", "unknown", 1),
        ("lost", "unknown", 2),
        ("answers-late", "unknown", 2),
        ("arrives-late", "unknown", 2),
    ];
    each_row(&rows, |(kind, want, keys)| async move {
        let simulator = with_alice(&policies("aws-iam-access-key.md").unwrap());
        let (old, old_secret) = simulator.key_of(USER).unwrap();
        let shape = simulator.connector("aws-iam-access-key", "").unwrap();
        let (connector, target) = (two(&shape), alice(&[]));
        simulator
            .fault("CreateAccessKey", kind, 9, LATE_MS)
            .unwrap();
        let answer = connector.create(&target, attempt(2)).await;
        assert_eq!(word(&answer), want, "{kind}");
        simulator.mend().unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(connector.keys(&target).await.unwrap().len(), keys, "{kind}");
        let text = format!("aws_access_key_id = {old}\naws_secret_access_key = {old_secret}\n");
        let key = SecretBytes::from_slice(text.as_bytes());
        let works = connector
            .test(&target, attempt(1), &old.parse().unwrap(), &key)
            .await;
        assert_eq!(works, Ok(()), "{kind}: the old key works");
    });
}

#[tokio::test]
async fn an_mfa_device_is_replaced() {
    let rights = policies("aws-iam-mfa.md").unwrap();
    let simulator = with_alice(&rights);
    // AWS's clock and this host's lie apart; codes are made for AWS's.
    simulator
        .ask("settings", &json!({"skew_secs": 200}))
        .unwrap();
    let shape = simulator.connector("aws-iam-mfa", "").unwrap();
    let (connector, target) = (two(&shape), alice(&[]));
    assert_eq!(connector.check(&target).await, Ok(()));
    assert!(connector.keys(&target).await.unwrap().is_empty());

    let code = |seed: &SecretBytes| {
        let secs = now().ms() / 1000 + 200;
        totp::consecutive(&totp::seed(seed.expose()).unwrap(), secs)[1].clone()
    };
    let first = connector.create(&target, attempt(1)).await.unwrap();
    let idle = connector.keys(&target).await.unwrap();
    assert!(
        idle.len() == 1 && !idle[0].active && idle[0].named,
        "{idle:?}"
    );
    let wrong = SecretBytes::from_slice(b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    let refused = connector.test(&target, attempt(1), &first.id, &wrong).await;
    assert_eq!(word(&refused), "refused", "{refused:?}");
    assert_eq!(
        connector
            .test(&target, attempt(1), &first.id, &first.secret)
            .await,
        Ok(())
    );
    assert_eq!(
        connector
            .test(&target, attempt(1), &first.id, &first.secret)
            .await,
        Ok(()),
        "again"
    );
    assert!(
        simulator.sign_in(USER, OLD, None).is_none(),
        "a code is wanted now"
    );
    assert!(
        simulator
            .sign_in(USER, OLD, Some(&code(&first.secret)))
            .is_some()
    );

    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = connector.create(&target, attempt(2)).await.unwrap();
    assert_eq!(
        connector
            .test(&target, attempt(2), &second.id, &second.secret)
            .await,
        Ok(())
    );
    for seed in [&first.secret, &second.secret] {
        assert!(
            simulator.sign_in(USER, OLD, Some(&code(seed))).is_some(),
            "both work"
        );
    }
    assert_eq!(connector.deactivate(&target, &first.id).await, Ok(()));
    assert_eq!(
        connector.deactivate(&target, &first.id).await,
        Ok(()),
        "twice does no harm"
    );
    assert!(
        simulator
            .sign_in(USER, OLD, Some(&code(&first.secret)))
            .is_none(),
        "the old one is void"
    );
    assert!(
        simulator
            .sign_in(USER, OLD, Some(&code(&second.secret)))
            .is_some()
    );
    assert_eq!(connector.delete(&target, &first.id).await, Ok(()));
    assert_eq!(
        connector.delete(&target, &first.id).await,
        Ok(()),
        "twice does no harm"
    );
    let left = connector.keys(&target).await.unwrap();
    assert!(
        left.len() == 1 && left[0].id == second.id && left[0].active,
        "{left:?}"
    );

    let (used, allowed) = (called(&simulator), actions(&rights));
    assert!(
        used.iter().all(|action| allowed.contains(action)),
        "{used:?}"
    );
    let device = |action: &&String| action.contains("MFA");
    assert_eq!(
        allowed.iter().filter(device).collect::<Vec<_>>(),
        used.iter().filter(device).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_becomes_of_a_device_behind_our_back_is_seen() {
    let simulator = with_alice(&policies("aws-iam-mfa.md").unwrap());
    let shape = simulator.connector("aws-iam-mfa", "").unwrap();
    let (connector, target) = (two(&shape), alice(&[]));
    let device = connector.create(&target, attempt(1)).await.unwrap();
    let enabled = connector.test(&target, attempt(1), &device.id, &device.secret);
    assert_eq!(enabled.await, Ok(()));
    let ours = Known {
        key: Some(device.id.clone()),
        ..known(1, None, None)
    };
    let sight = connector.probe(&target, &ours).await.unwrap();
    assert_eq!(sight.verdict, Verdict::Same);
    let ours = Known {
        facts: Some(sight.facts),
        ..ours
    };
    let answer = simulator.admin(&[
        ("Action", "CreateVirtualMFADevice"),
        ("VirtualMFADeviceName", "mallory"),
    ]);
    let serial = tag(&answer.unwrap(), "SerialNumber").unwrap();
    simulator
        .admin(&[
            ("Action", "EnableMFADevice"),
            ("UserName", USER),
            ("SerialNumber", &serial),
            ("AuthenticationCode1", "000000"),
            ("AuthenticationCode2", "000001"),
        ])
        .unwrap();
    assert_eq!(
        verdict(&connector.probe(&target, &ours).await.unwrap()),
        "diverged"
    );
    simulator
        .admin(&[
            ("Action", "DeactivateMFADevice"),
            ("UserName", USER),
            ("SerialNumber", device.id.as_str()),
        ])
        .unwrap();
    assert_eq!(
        verdict(&connector.probe(&target, &ours).await.unwrap()),
        "absent"
    );
}

#[test]
fn a_device_that_cannot_be_enabled_leaves_the_old_one() {
    let rows = [
        ("CreateVirtualMFADevice", "refuse", "refused"),
        ("CreateVirtualMFADevice", "lost", "unknown"),
        ("CreateVirtualMFADevice", "answers-late", "unknown"),
        ("EnableMFADevice", "refuse", "refused"),
        ("EnableMFADevice", "throttle", "busy"),
        ("EnableMFADevice", "down", "unknown"),
        ("EnableMFADevice", "lost", "unknown"),
        ("EnableMFADevice", "answers-late", "unknown"),
    ];
    each_row(&rows, |(action, kind, want)| async move {
        let name = format!("{kind} at {action}");
        let simulator = with_alice(&policies("aws-iam-mfa.md").unwrap());
        let shape = simulator.connector("aws-iam-mfa", "").unwrap();
        let (connector, target) = (two(&shape), alice(&[]));
        simulator.fault(action, kind, 1, LATE_MS).unwrap();
        let made = connector.create(&target, attempt(1)).await;
        let answer = match &made {
            Ok(made) => {
                connector
                    .test(&target, attempt(1), &made.id, &made.secret)
                    .await
            }
            Err(failure) => Err(failure.clone()),
        };
        assert_eq!(word(&answer), want, "{name}: {answer:?}");
        simulator.mend().unwrap();
        if let Ok(made) = made {
            let again = connector
                .test(&target, attempt(1), &made.id, &made.secret)
                .await;
            assert_eq!(again, Ok(()), "{name}: asked again, it is enabled");
        }
    });
}

fn root(settings: &[(&str, &str)]) -> Target {
    target(&[&[("account", MEMBER)], settings].concat())
}

fn full_root() -> Value {
    json!({"password": true, "keys": ["AKIAROOT1"], "devices": ["arn:aws:iam::210987654321:mfa/root"], "certificates": ["C1"]})
}

fn member(rights: &[Value]) -> Simulator {
    let simulator = Simulator::start(rights).unwrap();
    simulator
        .ask("settings", &json!({"members": [MEMBER]}))
        .unwrap();
    simulator
        .ask("root", &json!({"account": MEMBER, "set": full_root()}))
        .unwrap();
    simulator
}

#[tokio::test]
async fn every_root_credential_of_a_member_is_taken_away() {
    let rights = policies("aws-root.md").unwrap();
    for (sign_in, password) in [("absent", false), ("recoverable", true)] {
        let simulator = member(&rights);
        let shape = simulator.connector("aws-root", "").unwrap();
        let (connector, target) = (one(&shape), root(&[("sign-in", sign_in)]));
        assert!(connector.check_self().await.is_ok());
        assert_eq!(connector.check(&target).await, Ok(()));
        let sight = connector
            .probe(&root(&[]), &known(1, None, None))
            .await
            .unwrap();
        assert_eq!(
            sight.verdict,
            Verdict::Diverged("the root user has a password, 1 access keys, 1 MFA devices, 1 signing certificates".to_owned())
        );
        let sealed = connector.make(&target).await.unwrap();
        assert!(text(&sealed).starts_with(
            "There is no secret here: this is the root user of account 210987654321."
        ));
        let early = connector.test(&target, attempt(2), &sealed).await;
        assert_eq!(word(&early), "unknown", "{early:?}");
        assert_eq!(connector.apply(&target, attempt(2), &sealed).await, Ok(()));
        assert_eq!(
            connector.apply(&target, attempt(2), &sealed).await,
            Ok(()),
            "twice does no harm"
        );
        let there = simulator.ask("root", &json!({"account": MEMBER})).unwrap();
        assert_eq!(
            there,
            json!({"password": password, "keys": [], "devices": [], "certificates": []})
        );
        assert_eq!(connector.test(&target, attempt(2), &sealed).await, Ok(()));
        assert_eq!(connector.end_sessions(&target).await, Ok(()));
        let Ok(Evidence::Shown(line)) = connector.evidence(&target).await else {
            panic!("evidence");
        };
        let absent = "audit session: the root user has no password, access keys, MFA devices or signing certificates";
        assert_eq!(line == absent, !password, "{line}");
        let sight = connector
            .probe(&target, &known(2, None, None))
            .await
            .unwrap();
        assert_eq!(sight.verdict, Verdict::Same);
        let again = known(2, None, Some(sight.facts));
        simulator
            .ask(
                "root",
                &json!({"account": MEMBER, "set": {"keys": ["AKIAROOT2"]}}),
            )
            .unwrap();
        assert_eq!(
            verdict(&connector.probe(&target, &again).await.unwrap()),
            "diverged"
        );
        assert_eq!(
            called(&simulator),
            actions(&rights),
            "all else is done in root sessions"
        );
    }
}

#[test]
fn a_root_that_is_half_cleared_is_cleared_again() {
    let rows = [
        ("AssumeRoot", "refuse", "refused"),
        ("AssumeRoot", "down", "busy"),
        ("ListMFADevices", "slow", "busy"),
        ("DeleteLoginProfile", "lost", "unknown"),
        ("DeleteAccessKey", "refuse", "unknown"),
        ("DeleteSigningCertificate", "throttle", "unknown"),
        ("DeactivateMFADevice", "answers-late", "unknown"),
    ];
    each_row(&rows, |(action, kind, want)| async move {
        let name = format!("{kind} at {action}");
        let simulator = member(&policies("aws-root.md").unwrap());
        let shape = simulator.connector("aws-root", "").unwrap();
        let (connector, target) = (one(&shape), root(&[]));
        simulator.fault(action, kind, 9, LATE_MS).unwrap();
        let sealed = connector.make(&target).await.unwrap();
        let answer = connector.apply(&target, attempt(2), &sealed).await;
        assert_eq!(word(&answer), want, "{name}: {answer:?}");
        simulator.mend().unwrap();
        assert_eq!(
            connector.apply(&target, attempt(3), &sealed).await,
            Ok(()),
            "{name}"
        );
        assert_eq!(
            connector.test(&target, attempt(3), &sealed).await,
            Ok(()),
            "{name}"
        );
    });
}

#[tokio::test]
async fn what_no_api_reaches_is_refused_with_a_way_out() {
    let simulator = member(&policies("aws-root.md").unwrap());
    let more = format!("management_account = \"{ACCOUNT}\"\n");
    let shape = simulator.connector("aws-root", &more).unwrap();
    for (name, account, want) in [
        (
            "the management account",
            ACCOUNT,
            "is the management account",
        ),
        (
            "not a member",
            "999999999999",
            "centralized root access must be on",
        ),
    ] {
        let target = target(&[("account", account)]);
        let refused = shape.connector().check(&target).await;
        assert_eq!(word(&refused), "refused", "{name}: {refused:?}");
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains(want) && message.contains("`manual` connector"),
            "{name}: {message}"
        );
    }
    assert!(
        !simulator
            .calls()
            .unwrap()
            .iter()
            .any(|call| call.contains("Login"))
    );
}

/// What the program on the page of the connector `manual` answers; it calls AWS's own command line.
fn check_of_the_page(simulator: &Simulator, ask: &Value) -> Value {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/connectors/manual.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, script) = page.split_once("```sh\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let mut child = Command::new("sh")
        .args(["-c", script])
        .env("AWS_ENDPOINT_URL", simulator.endpoint())
        .env("AWS_SHARED_CREDENTIALS_FILE", simulator.credentials())
        .env("AWS_CONFIG_FILE", "/nonexistent")
        .env("AWS_DEFAULT_REGION", "eu-central-1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(ask.to_string().as_bytes()).unwrap();
    drop(stdin);
    let out = child.wait_with_output().unwrap().stdout;
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_check_of_a_root_user_that_the_page_has_sees_a_sign_in() {
    let report = ["iam:GenerateCredentialReport", "iam:GetCredentialReport"];
    let rights = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": report, "Resource": "*"}]});
    let simulator = Simulator::start(&[rights]).unwrap();
    let ready = check_of_the_page(&simulator, &json!({"action": "ready"}));
    assert_eq!(ready["outcome"], "done", "{ready}");
    let since = "2026-11-21T02:17:00Z";
    for (name, used, want) in [
        ("never", "no_information", "refused"),
        ("not even a password", "N/A", "refused"),
        ("before", "2026-11-20T23:59:59+00:00", "refused"),
        ("in the same second", "2026-11-21T02:17:00+00:00", "refused"),
        ("since", "2026-11-21T02:17:01+00:00", "done"),
    ] {
        let at_once = json!({"root_used": used, "report_ms": 0});
        simulator.ask("settings", &at_once).unwrap();
        let changed = json!({"action": "changed", "since": since});
        let answer = check_of_the_page(&simulator, &changed);
        assert_eq!(answer["outcome"], want, "{name}: {answer}");
        let said = answer["evidence"].as_str().unwrap();
        assert!(said.ends_with(used), "{name}: {said}");
    }
    let other = check_of_the_page(&simulator, &json!({"action": "apply"}));
    assert_eq!(other["outcome"], "refused", "it changes nothing");
}
