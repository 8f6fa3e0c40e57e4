//! What a rotation keeps, and for how long: versions through restarts, and until their quarantine is over.

use std::{fs, path::PathBuf, time::Duration};

use keyturn_proto::v1::{self, RotationState, VersionState};
use keyturn_tests::{World, raw::Founded};
use keyturn_vault::layout::{Part, Place};
use keyturn_vault::reference::Version;

use super::stage::{FIRST, Stage, USER};

const DAY: Duration = Duration::from_hours(24);
const STEP: Duration = Duration::from_millis(50);
const STEPS: u32 = 600;

impl Stage {
    async fn with_sink() -> (Self, PathBuf) {
        let mut world = World::new().unwrap();
        let sink = world.add_sink("copies").unwrap();
        let vault = Founded::over(world, "").await.unwrap();
        (Self::deposited(vault).await, sink)
    }

    /// Where each version is, the oldest first.
    async fn states(&self) -> Vec<VersionState> {
        let by = v1::credential_name::By::Id(self.definition.credential.to_string());
        let show = v1::ShowCredentialRequest {
            credential: Some(v1::CredentialName { by: Some(by) }),
            page: None,
            all_versions: true,
        };
        let shown = self.line.credentials().show(show).await.unwrap();
        let mut versions = shown.into_inner().versions;
        versions.sort_by_key(|version| version.version);
        versions.iter().map(v1::VersionView::state).collect()
    }

    fn copy(&self, sink: &std::path::Path, version: u64) -> PathBuf {
        let version = Version::new(version).unwrap();
        let place = Place::Version(self.definition.credential, version, Part::Manifest);
        sink.join(place.to_string())
    }

    /// Opens, returns, and lets the rotation begin.
    async fn begin(&self) {
        let (asked, _) = self.open().await;
        self.check_in(&asked, None).await;
    }

    /// A quorum has the one password that the target accepts.
    async fn ends_well(&self) {
        self.idle().await;
        let (_, secrets) = self.open().await;
        assert!(!self.target.accepts(USER, FIRST).unwrap());
        assert!(self.target.accepts(USER, secrets.last().unwrap()).unwrap());
    }
}

/// Waits for what comes by itself, without the daemon's clock.
async fn until(what: &str, done: impl AsyncFn() -> bool) {
    for _ in 0..STEPS {
        if done().await {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
    panic!("{what}: not in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retired_is_destroyed_after_its_quarantine_here_and_in_the_copies() {
    use VersionState::{Current, Destroyed, Retired};
    let (stage, sink) = Stage::with_sink().await;
    stage.begin().await;
    stage.idle().await;
    until("it is copied", async || stage.copy(&sink, 2).exists()).await;
    assert_eq!(stage.states().await, [Retired, Current]);
    // A week, but for a day: it can still be had.
    stage.advance(6 * DAY);
    tokio::time::sleep(10 * STEP).await;
    assert_eq!(stage.states().await, [Retired, Current]);
    assert!(stage.copy(&sink, 1).exists());

    stage.advance(DAY);
    until("it is destroyed", async || {
        // What was stepped and is due again comes a second later.
        stage.advance(Duration::from_secs(1));
        stage.states().await == [Destroyed, Current]
    })
    .await;
    let folder = stage.copy(&sink, 1).parent().unwrap().to_owned();
    until("its copy is deleted", async || !folder.exists()).await;
    assert!(stage.copy(&sink, 2).exists());
    // Nothing is left of it but its documents.
    let left = fs::read_dir(folder.parent().unwrap()).unwrap().count();
    assert_eq!(left, 2, "path.txt and v2");
    let stage = stage.restart(Duration::ZERO).await;
    assert_eq!(stage.states().await, [Destroyed, Current]);
    stage.begin().await;
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_a_version_is_copied_goes_on_when_the_place_is_back() {
    let (mut stage, sink) = Stage::with_sink().await;
    until("the first is copied, and nothing more is", async || {
        let copies = stage.line.status().await.unwrap().copies.unwrap();
        stage.copy(&sink, 1).exists()
            && copies.behind == 0
            && copies.places.iter().all(|place| place.complete)
    })
    .await;
    let away = sink.with_extension("away");
    fs::rename(&sink, &away).unwrap();
    stage.begin().await;
    let waits = stage
        .until("it waits for its copy", |view| {
            view.problem_code == "few-copies"
        })
        .await;
    assert_eq!(waits.state(), RotationState::Applying);
    stage = stage.restart(Duration::from_mins(2)).await;
    assert!(
        stage.target.accepts(USER, FIRST).unwrap(),
        "not changed before"
    );
    fs::rename(&away, &sink).unwrap();
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_old_sessions_are_ended_goes_on_with_the_proven_one() {
    for after in [false, true] {
        let mut stage = Stage::new().await;
        stage.target.stops("end-sessions", after).unwrap();
        stage.begin().await;
        let proven = stage
            .until("old sessions are being ended", |view| {
                view.state() == RotationState::Promoted
            })
            .await;
        assert_eq!(proven.state(), RotationState::Promoted);
        until("the call is there", async || stage.target.reached()).await;
        stage = stage.restart(Duration::from_mins(2)).await;
        stage.target.goes_on().unwrap();
        stage.ends_well().await;
        assert_eq!(stage.current().await, 2, "{after}: nothing was rolled anew");
    }
}
