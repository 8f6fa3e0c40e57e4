//! The job after the opening: check-in, rotation, what the target then accepts, and everything that fails.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use std::time::Duration;

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::{
    inside::Inside,
    raw::{Founded, Line, now, wire_text},
    story::{Asked, Ballot, SealedVersion, definition, release},
    target::{Mood, Target},
};
use keyturn_vault::{
    definition::{Connector, Definition},
    jcs::Document as _,
    reference::Version,
    text::{Checkin, CredentialLine, Returned, Text as _},
};

const USER: &str = "root";
const FIRST: &[u8] = b"the first password";
const MINUTE: Duration = Duration::from_mins(1);

/// A founded vault with a credential that is rotated at a target, and a daemon whose clock stands still.
struct Stage {
    vault: Founded,
    target: Target,
    inside: Inside,
    definition: Definition,
    line: Line,
}

impl Stage {
    async fn new() -> Self {
        let mut vault = Founded::new("").await.unwrap();
        let target = Target::start(&vault.world).unwrap();
        target.set(USER, FIRST).unwrap();
        vault.world.stop().unwrap();
        let inside = Inside::start(&vault.world, now()).await.unwrap();
        let (olga, line) = (
            vault.who("olga").unwrap(),
            vault.line("olga").await.unwrap(),
        );
        let mut definition = definition(&vault.facts, "accounts/root").unwrap();
        definition.connector = Some(Connector {
            name: "accounts".parse().unwrap(),
            settings: [("user".parse().unwrap(), USER.parse().unwrap())].into(),
        });
        let document = olga.sign_document(definition.to_bytes().unwrap()).unwrap();
        let add = v1::AddRequest {
            definition: Some(document),
        };
        line.credentials().add(add).await.unwrap();
        let sealed = SealedVersion::new(&vault.facts, &definition, 1, FIRST).unwrap();
        line.credentials()
            .deposit(sealed.deposit(olga).unwrap())
            .await
            .unwrap();
        Self {
            vault,
            target,
            inside,
            definition,
            line,
        }
    }

    /// The daemon stops and starts again; so much time has passed meanwhile.
    async fn restart(mut self, away: Duration) -> Self {
        let stopped = self.inside.stop().await.unwrap();
        let ms = stopped
            .ms()
            .saturating_add(u64::try_from(away.as_millis()).unwrap());
        let wall = keyturn_vault::time::Time::from_ms(ms);
        self.inside = Inside::start(&self.vault.world, wall).await.unwrap();
        self.line = self.vault.line("olga").await.unwrap();
        self
    }

    /// Every live version, as a request names it.
    async fn named(&self) -> Vec<CredentialLine> {
        let show = v1::ShowCredentialRequest {
            credential: Some(v1::CredentialName {
                by: Some(v1::credential_name::By::Id(
                    self.definition.credential.to_string(),
                )),
            }),
            page: None,
            all_versions: false,
        };
        let shown = self
            .line
            .credentials()
            .show(show)
            .await
            .unwrap()
            .into_inner();
        let live = |version: &&v1::VersionView| {
            !matches!(
                version.state(),
                v1::VersionState::Retired | v1::VersionState::Destroyed
            )
        };
        let mut named: Vec<_> = shown
            .versions
            .iter()
            .filter(live)
            .map(|version| CredentialLine {
                path: self.definition.path.clone(),
                credential: self.definition.credential,
                version: Version::new(version.version).unwrap(),
                manifest: keyturn_vault::digest::Digest(
                    version.manifest_sha256.as_slice().try_into().unwrap(),
                ),
            })
            .collect();
        named.sort_by_key(|line| line.version);
        named
    }

    async fn ask(&self) -> (Asked, Line) {
        let (alice, line) = (
            self.vault.who("alice").unwrap(),
            self.vault.line("alice").await.unwrap(),
        );
        let asked = Asked::new(&self.vault.facts, &line, alice, self.named().await)
            .await
            .unwrap();
        line.ceremonies()
            .open(asked.open(alice).unwrap())
            .await
            .unwrap();
        (asked, line)
    }

    async fn approve(&self, who: &str, asked: &Asked) {
        let (who, line) = (
            self.vault.who(who).unwrap(),
            self.vault.line(who).await.unwrap(),
        );
        let ballot = Ballot::new(&self.vault.facts, &line, who, &asked.id())
            .await
            .unwrap();
        line.ceremonies()
            .approve(ballot.call().unwrap())
            .await
            .unwrap();
    }

    /// Two custodians open every live version; gives their secrets, oldest first.
    async fn open(&self) -> (Asked, Vec<Vec<u8>>) {
        let (asked, line) = self.ask().await;
        for who in ["bob", "carol"] {
            self.approve(who, &asked).await;
        }
        let release = release(&line, &asked.id()).await.unwrap().unwrap();
        let secrets = asked.receive(&self.vault.facts, &release).unwrap();
        (asked, secrets)
    }

    /// Alice returns what she opened.
    async fn check_in(&self, asked: &Asked, worked: Option<u64>) -> v1::CeremonyView {
        let alice = self.vault.who("alice").unwrap();
        let checkin = Checkin {
            vault: asked.request.vault.clone(),
            ceremony: asked.request.ceremony,
            request: asked.request.digest(),
            returned_by: alice.person.clone(),
            signed: now().stamp(),
            credentials: vec![Returned {
                path: self.definition.path.clone(),
                credential: self.definition.credential,
                worked: worked.and_then(Version::new),
                void: None,
            }],
        };
        let call = v1::CheckinRequest {
            checkin: Some(wire_text(&alice.sign_by_device(&checkin).unwrap())),
        };
        let line = self.vault.line("alice").await.unwrap();
        let reply = line.ceremonies().checkin(call).await.unwrap();
        reply.into_inner().ceremony.unwrap()
    }

    async fn rotation(&self) -> v1::RotationView {
        let list = v1::ListRotationsRequest {
            all: true,
            ..Default::default()
        };
        let reply = self.line.rotations().list(list).await.unwrap();
        reply.into_inner().rotations.remove(0)
    }

    /// Lets time go by, a little at a time, until the rotation stands like this.
    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&v1::RotationView) -> bool,
    ) -> v1::RotationView {
        let mut last = self.rotation().await;
        for _ in 0..1500 {
            if wanted(&last) {
                return last;
            }
            self.inside.clock.advance(Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(20)).await;
            last = self.rotation().await;
        }
        panic!("{what}: {last:?}")
    }

    async fn idle(&self) -> v1::RotationView {
        self.until("the rotation is done", |view| {
            view.state() == RotationState::Idle
        })
        .await
    }

    async fn current(&self) -> u64 {
        let list = v1::ListCredentialsRequest::default();
        let reply = self.line.credentials().list(list).await.unwrap();
        reply.into_inner().credentials[0].current
    }
}

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
    stage.inside.clock.advance(MINUTE);
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
    stage.inside.clock.advance(59 * MINUTE);
    assert_eq!(stage.rotation().await.state(), RotationState::Due);
    stage.inside.clock.advance(2 * MINUTE);
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
            stage.inside.clock.advance(2 * MINUTE);
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
        stage.inside.clock.advance(180 * MINUTE);
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
        stage.inside.clock.advance(2 * MINUTE);
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
    stage.inside.clock.advance(30 * MINUTE);
    assert_eq!(stage.rotation().await.state(), RotationState::Due);
    assert!(
        stage.target.accepts(USER, FIRST).unwrap(),
        "nothing is rolled while it is held"
    );

    stage.inside.clock.advance(29 * MINUTE);
    stage.inside.clock.advance(2 * MINUTE);
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
    let (alice, hers) = (
        vault.who("alice").unwrap(),
        vault.line("alice").await.unwrap(),
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

    let asked = Asked::new(&vault.facts, &hers, alice, vec![named])
        .await
        .unwrap();
    hers.ceremonies()
        .open(asked.open(alice).unwrap())
        .await
        .unwrap();
    for who in ["bob", "carol"] {
        let (who, line) = (vault.who(who).unwrap(), vault.line(who).await.unwrap());
        let ballot = Ballot::new(&vault.facts, &line, who, &asked.id())
            .await
            .unwrap();
        line.ceremonies()
            .approve(ballot.call().unwrap())
            .await
            .unwrap();
    }
    release(&hers, &asked.id()).await.unwrap().unwrap();
    let checkin = Checkin {
        vault: asked.request.vault.clone(),
        ceremony: asked.request.ceremony,
        request: asked.request.digest(),
        returned_by: alice.person.clone(),
        signed: now().stamp(),
        credentials: vec![Returned {
            path: definition.path.clone(),
            credential: definition.credential,
            worked: Version::new(1),
            void: None,
        }],
    };
    let call = v1::CheckinRequest {
        checkin: Some(wire_text(&alice.sign_by_device(&checkin).unwrap())),
    };
    hers.ceremonies().checkin(call).await.unwrap();
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
