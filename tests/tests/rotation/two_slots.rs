//! Keys that the target makes: two at a time, and one of them somebody else's.

use std::time::Duration;

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::target::Mood;
use keyturn_vault::{definition::Kind, jcs::Document as _};

use super::stage::{Stage, USER};

const MINUTE: Duration = Duration::from_mins(1);

impl Stage {
    /// A credential whose first key the connector had made: no human ever saw it.
    async fn adopted() -> Self {
        let stage = Self::empty(Kind::AwsIamAccessKey, "keys").await;
        stage.adopt().await;
        stage
    }

    /// An operator is needed.
    async fn stuck(&self) -> v1::RotationView {
        self.until("stuck", |view| view.state() == RotationState::NeedsOperator)
            .await
    }

    /// The keys at the target that are accepted.
    fn active(&self) -> Vec<String> {
        let keys = self.target.key_list(USER).unwrap();
        let active = keys.into_iter().filter(|(_, active)| *active);
        active.map(|(key, _)| key).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_adopted_opened_and_replaced() {
    let stage = Stage::adopted().await;
    let first = stage.active();
    assert_eq!((first.len(), stage.current().await), (1, 1));
    let (asked, secrets) = stage.open().await;
    assert!(
        stage
            .target
            .accepts_key(USER, &first[0], &secrets[0])
            .unwrap()
    );

    stage.check_in(&asked, None).await;
    let done = stage.idle().await;
    assert!(done.evidence.contains(&first[0]), "{}", done.evidence);
    let second = stage.active();
    assert_eq!((second.len(), stage.current().await), (1, 2));
    assert_ne!(first, second);
    assert!(
        !stage
            .target
            .accepts_key(USER, &first[0], &secrets[0])
            .unwrap()
    );

    // The next one needs the place of the first, long before its quarantine is over.
    let (asked, secrets) = stage.open().await;
    assert_eq!(secrets.len(), 1);
    assert!(
        stage
            .target
            .accepts_key(USER, &second[0], &secrets[0])
            .unwrap()
    );
    stage.check_in(&asked, None).await;
    stage.idle().await;
    assert_eq!(stage.current().await, 3);
    let keys = stage.target.key_list(USER).unwrap();
    assert_eq!(keys.len(), 2);
    assert!(!keys.iter().any(|(key, _)| *key == first[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_leaves_no_key_behind_and_locks_nobody_out() {
    for (mood, doubt) in [
        (Mood::Down, false),
        (Mood::Refusing, false),
        (Mood::Silent, true),
        (Mood::Hanging, false),
    ] {
        let stage = Stage::adopted().await;
        let first = stage.active();
        let (asked, secrets) = stage.open().await;
        stage.target.becomes(mood).unwrap();
        stage.check_in(&asked, None).await;
        let failed = stage
            .until("a failure", |view| {
                view.state() == RotationState::BackingOff
            })
            .await;
        assert!(!failed.problem.is_empty(), "{mood:?}");
        assert!(
            stage
                .target
                .accepts_key(USER, &first[0], &secrets[0])
                .unwrap(),
            "{mood:?}: the old key works until the new one is proven"
        );
        stage.target.becomes(Mood::Well).unwrap();
        stage.advance(2 * MINUTE);
        if doubt {
            // It made a key and never said so: nobody but an operator can tell whose that is.
            stage.own_up(&stage.stuck().await).await;
        }
        stage.idle().await;
        let second = stage.active();
        assert_eq!(second.len(), 1, "{mood:?}");
        let (_, secrets) = stage.open().await;
        assert!(
            stage
                .target
                .accepts_key(USER, &second[0], &secrets[0])
                .unwrap()
        );
        assert_eq!(stage.target.key_list(USER).unwrap().len(), 2, "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_cannot_rotate_it_is_refused_with_the_definition() {
    let stage = Stage::adopted().await;
    let olga = stage.vault.who("olga").unwrap();
    for (name, kind, connector, setting, want) in [
        (
            "one slot for keys",
            Kind::AwsIamAccessKey,
            "accounts",
            "24",
            "slots",
        ),
        (
            "two slots for a password",
            Kind::Text,
            "keys",
            "24",
            "slots",
        ),
        ("a secret too short", Kind::Text, "accounts", "8", "80"),
        ("as it should be", Kind::Text, "accounts", "24", ""),
    ] {
        let mut other = keyturn_tests::story::definition(&stage.vault.facts, "other/one").unwrap();
        other.kind = kind;
        other.connector = Some(keyturn_vault::definition::Connector {
            name: connector.parse().unwrap(),
            settings: [("secret-length".parse().unwrap(), setting.parse().unwrap())].into(),
        });
        let document = olga.sign_document(other.to_bytes().unwrap()).unwrap();
        let add = v1::AddRequest {
            definition: Some(document),
        };
        let added = stage.line.credentials().add(add).await;
        match added {
            Ok(_) => assert!(want.is_empty(), "{name}"),
            Err(refused) => assert!(
                !want.is_empty() && refused.message().contains(want),
                "{name}: {refused}"
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_is_never_touched() {
    for (name, lost) in [
        ("made before", false),
        ("made when a create of ours was not answered", true),
    ] {
        let stage = Stage::adopted().await;
        let (asked, _) = stage.open().await;
        if lost {
            stage.target.becomes(Mood::Hanging).unwrap();
            stage.check_in(&asked, None).await;
            let failed = |view: &v1::RotationView| view.attempts > 0;
            stage.until("a failure", failed).await;
            stage.target.becomes(Mood::Well).unwrap();
        }
        let made = stage.target.key("create", USER, "").unwrap();
        let foreign = made["key"].as_str().unwrap().to_owned();
        if !lost {
            stage.check_in(&asked, None).await;
        }
        let stuck = stage.stuck().await;
        assert_eq!(stuck.problem_code, "foreign-key", "{name}");
        assert_eq!(stuck.foreign, [foreign.as_str()], "{name}");
        let path = &stage.definition.path;
        let whose = if lost {
            "no answer came"
        } else {
            "was not made here"
        };
        for said in [
            whose.to_owned(),
            format!("keyturn rotate claim {path} lost {foreign}"),
            format!("keyturn rotate retry {path}"),
        ] {
            assert!(stuck.hint.contains(&said), "{name}: {}", stuck.hint);
        }
        // Nor by an operator's word where it tells of no key that was seen, or both or neither of whose.
        for (version, key, lost) in [
            (0, "KEYunseen", true),
            (0, &foreign, false),
            (1, &foreign, true),
        ] {
            let claim = v1::ClaimRequest {
                credential: stage.definition.credential.to_string(),
                version,
                key: key.to_owned(),
                lost,
            };
            let refused = stage.line.rotations().claim(claim).await.unwrap_err();
            let code = refused.metadata().get("keyturn-code").unwrap();
            assert_eq!(code, "not-claimable", "{name}: {key}");
        }
        stage.retry().await;
        stage.stuck().await;
        assert!(stage.active().contains(&foreign), "{name}");

        stage.target.key("delete", USER, &foreign).unwrap();
        stage.retry().await;
        stage.idle().await;
        assert_eq!(stage.current().await, 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_a_key_is_made_ends_with_one_that_a_quorum_has() {
    let mut stage = Stage::adopted().await;
    let (asked, _) = stage.open().await;
    stage.target.becomes(Mood::Hanging).unwrap();
    stage.check_in(&asked, None).await;
    stage
        .until("running", |view| view.state() == RotationState::Applying)
        .await;
    stage = stage.restart(2 * MINUTE).await;
    stage.target.becomes(Mood::Well).unwrap();
    stage.advance(2 * MINUTE);
    stage.idle().await;
    let active = stage.active();
    assert_eq!(active.len(), 1);
    let (_, secrets) = stage.open().await;
    assert!(
        stage
            .target
            .accepts_key(USER, &active[0], &secrets[0])
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_waits_until_it_is_resumed() {
    let stage = Stage::adopted().await;
    let pause = |for_secs, credentials| {
        let mut rotations = stage.line.rotations();
        async move {
            let request = v1::PauseRequest {
                for_secs,
                credentials,
            };
            rotations.pause(request).await
        }
    };
    let (asked, _) = stage.open().await;
    pause(3600, vec![]).await.unwrap();
    stage.check_in(&asked, None).await;
    stage.advance(5 * MINUTE);
    let due = stage.rotation().await;
    assert_eq!(due.state(), RotationState::Due);
    pause(0, vec![]).await.unwrap();
    let nothing = pause(0, vec![]).await.unwrap_err();
    assert_eq!(
        nothing.metadata().get("keyturn-code").unwrap(),
        "not-paused"
    );
    stage.advance(2 * MINUTE);
    stage.idle().await;
    assert_eq!(stage.current().await, 2);

    let (asked, _) = stage.open().await;
    pause(3600, vec![stage.definition.path.to_string()])
        .await
        .unwrap();
    stage.check_in(&asked, None).await;
    stage.advance(59 * MINUTE);
    let late = stage.rotation().await;
    assert_eq!(late.state(), RotationState::Due);
    assert!(late.paused_until_ms > 0);
    stage.advance(2 * MINUTE);
    stage.idle().await;
    assert_eq!(stage.current().await, 3);
}
