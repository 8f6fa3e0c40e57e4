//! Passwords, which are overwritten.

use std::time::Duration;

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::{
    raw::Founded,
    story::{SealedVersion, release},
    target::Mood,
};

use super::stage::{FIRST, Stage, USER};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_is_rotated_after_its_check_in() {
    let stage = Stage::new().await;
    let (asked, secrets) = stage.open().await;
    assert_eq!(secrets, [FIRST]);
    let view = stage.rotation().await;
    assert_eq!(
        (view.state(), view.cause.as_str()),
        (RotationState::Due, "opened")
    );
    stage.advance(MINUTE);
    assert!(
        stage.target.accepts(USER, FIRST).unwrap(),
        "not while it is checked out"
    );

    let view = stage.check_in(&asked, Some(1)).await;
    assert_eq!(view.checkout.unwrap().ends_ms, 0);
    stage.idle().await;
    assert_eq!(stage.current().await, 2);
    assert!(
        !stage.target.accepts(USER, FIRST).unwrap(),
        "the old password is void"
    );

    let (_, secrets) = stage.open().await;
    assert_eq!(secrets.len(), 1, "only the new version is live");
    assert!(stage.target.accepts(USER, &secrets[0]).unwrap());
    assert!(
        secrets[0].len() == 24 && !secrets[0].contains(&b'@'),
        "by the connector's rules"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_out_that_nobody_returns_ends_by_time() {
    let stage = Stage::new().await;
    stage.open().await;
    stage.advance(59 * MINUTE);
    assert_eq!(stage.rotation().await.state(), RotationState::Due);
    stage.advance(2 * MINUTE);
    stage.idle().await;
    assert!(!stage.target.accepts(USER, FIRST).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_target_is_tried_again_and_locks_nobody_out() {
    for (mood, live) in [
        (Mood::Down, 2),
        (Mood::Refusing, 1),
        (Mood::Silent, 1),
        (Mood::Hanging, 2),
    ] {
        let stage = Stage::new().await;
        let (asked, _) = stage.open().await;
        stage.target.becomes(mood).unwrap();
        stage.check_in(&asked, None).await;
        if mood != Mood::Silent {
            let failed = stage
                .until("a failure", |view| {
                    view.state() == RotationState::BackingOff
                })
                .await;
            assert_eq!(failed.attempts, 1, "{mood:?}");
            assert!(!failed.problem.is_empty(), "{mood:?}");
            assert_eq!(stage.named().await.len(), live, "{mood:?}");
            let (asked, secrets) = stage.open().await;
            assert!(
                secrets
                    .iter()
                    .any(|secret| stage.target.accepts(USER, secret).unwrap()),
                "{mood:?}: what a quorum opens still signs in"
            );
            stage.check_in(&asked, None).await;
            stage.target.becomes(Mood::Well).unwrap();
            stage.advance(2 * MINUTE);
        }
        stage.idle().await;
        let (_, secrets) = stage.open().await;
        assert_eq!(secrets.len(), 1, "{mood:?}");
        assert!(stage.target.accepts(USER, &secrets[0]).unwrap(), "{mood:?}");
        assert!(!stage.target.accepts(USER, FIRST).unwrap(), "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_takes_it_needs_an_operator() {
    let stage = Stage::new().await;
    let (asked, _) = stage.open().await;
    stage.target.becomes(Mood::Refusing).unwrap();
    stage.check_in(&asked, None).await;
    for attempts in 1..=4 {
        stage
            .until("a failure", |view| view.attempts == attempts)
            .await;
        stage.advance(180 * MINUTE);
    }
    let stuck = stage
        .until("stuck", |view| view.state() == RotationState::NeedsOperator)
        .await;
    assert!(stuck.hint.contains("rotate retry"), "{}", stuck.hint);
    assert!(stage.target.accepts(USER, FIRST).unwrap());
    let (asked, secrets) = stage.open().await;
    assert_eq!(secrets, [FIRST], "a quorum is never refused");
    stage.check_in(&asked, None).await;

    stage.target.becomes(Mood::Well).unwrap();
    let retry = v1::RetryRequest {
        credential: stage.definition.credential.to_string(),
    };
    stage.line.rotations().retry(retry).await.unwrap();
    stage.idle().await;
    assert!(!stage.target.accepts(USER, FIRST).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_every_state_ends_in_a_password_that_a_quorum_has() {
    let running = RotationState::Applying;
    for (name, mood, state) in [
        ("while it is checked out", Mood::Well, RotationState::Due),
        ("while the target hangs", Mood::Hanging, running),
        ("while a login is tried again", Mood::Down, running),
        (
            "while it backs off",
            Mood::Refusing,
            RotationState::BackingOff,
        ),
    ] {
        let mut stage = Stage::new().await;
        let (asked, _) = stage.open().await;
        stage.target.becomes(mood).unwrap();
        if state != RotationState::Due {
            stage.check_in(&asked, None).await;
        }
        stage.until(name, |view| view.state() == state).await;
        stage = stage.restart(2 * MINUTE).await;
        stage.target.becomes(Mood::Well).unwrap();
        if state == RotationState::Due {
            stage.check_in(&asked, None).await;
        }
        stage.advance(2 * MINUTE);
        stage.idle().await;
        let (_, secrets) = stage.open().await;
        assert_eq!(secrets.len(), 1, "{name}");
        assert!(stage.target.accepts(USER, &secrets[0]).unwrap(), "{name}");
        assert!(!stage.target.accepts(USER, FIRST).unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_holds_a_due_rotation_and_not_for_ever() {
    let stage = Stage::new().await;
    let (first, _) = stage.open().await;
    let (second, line) = stage.ask().await;
    stage.approve("bob", &second).await;
    stage.check_in(&first, None).await;
    let held = stage.until("held", |view| view.held_until_ms > 0).await;
    assert_eq!(held.held_by, second.id());
    stage.advance(30 * MINUTE);
    assert_eq!(stage.rotation().await.state(), RotationState::Due);
    assert!(
        stage.target.accepts(USER, FIRST).unwrap(),
        "nothing is rolled while it is held"
    );

    stage.advance(29 * MINUTE);
    stage.advance(2 * MINUTE);
    stage.idle().await;
    let ended = release(&line, &second.id()).await.unwrap().unwrap_err();
    assert!(
        ["superseded", "expired"].contains(&ended.outcome_code.as_str()),
        "{ended:?}"
    );
    assert!(!stage.target.accepts(USER, FIRST).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connector_people_rotate_and_say_so() {
    let vault = Founded::new("").await.unwrap();
    let (definition, named) = vault.seal("manual/root", FIRST).await.unwrap();
    let (olga, line) = (
        vault.who("olga").unwrap(),
        vault.line("olga").await.unwrap(),
    );
    let now_call = v1::RotateNowRequest {
        credentials: vec!["manual/root".to_owned()],
        ..Default::default()
    };
    let refused = line.rotations().now(now_call).await.unwrap_err();
    assert_eq!(
        refused.metadata().get("keyturn-code").unwrap(),
        "no-connector"
    );

    let (asked, _) = vault.open(vec![named]).await.unwrap();
    vault.check_in(&asked, Some(1)).await.unwrap();
    let list = line
        .rotations()
        .list(v1::ListRotationsRequest::default())
        .await
        .unwrap();
    let list = list.into_inner();
    assert_eq!(list.counts.unwrap().manual, 1);
    assert!(list.rotations[0].hint.contains("rotate complete"));

    let complete = |version| v1::CompleteRequest {
        credential: definition.credential.to_string(),
        version,
    };
    let early = line.rotations().complete(complete(1)).await.unwrap_err();
    assert_eq!(
        early.metadata().get("keyturn-code").unwrap(),
        "nothing-owed"
    );
    let sealed = SealedVersion::new(&vault.facts, &definition, 2, b"by hand").unwrap();
    line.credentials()
        .deposit(sealed.deposit(olga).unwrap())
        .await
        .unwrap();
    line.rotations().complete(complete(2)).await.unwrap();
    let list = line
        .rotations()
        .list(v1::ListRotationsRequest::default())
        .await
        .unwrap();
    assert!(list.into_inner().rotations.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_somebody_changed_is_seen_without_it() {
    let stage = Stage::new().await;
    let problems = async || {
        let list = v1::ListCredentialsRequest::default();
        let reply = stage.line.credentials().list(list).await.unwrap();
        reply.into_inner().credentials[0].problems.clone()
    };
    let until = async |wanted: bool| {
        for _ in 0..500 {
            if problems().await.contains(&"diverged".to_owned()) == wanted {
                return;
            }
            stage.advance(Duration::from_secs(30));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("diverged is not {wanted}: {:?}", problems().await);
    };
    // Looks that see nothing new.
    for _ in 0..40 {
        stage.advance(MINUTE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!problems().await.contains(&"diverged".to_owned()));

    stage.target.set(USER, b"changed behind our back").unwrap();
    until(true).await;
    let status = stage.line.status().await.unwrap();
    assert_eq!(status.findings[0].code, "diverged");

    let now = v1::RotateNowRequest {
        credentials: vec![stage.definition.path.to_string()],
        ..Default::default()
    };
    stage.advance(60 * MINUTE);
    stage.line.rotations().now(now).await.unwrap();
    stage.idle().await;
    until(false).await;
}
