//! The daemon is killed (SIGKILL) between the messages of its conversation with a target, and at pairs of such steps.
//!
//! # Invariants
//! 1. Whenever it is killed, a quorum opens a password that the target accepts.
//! 2. In the end there is one live version, which is accepted, and no earlier one is; or an operator is asked for, and
//!    (1) holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::{
    proxy::{Place, Proxy, Stop},
    story::Asked,
};

use super::stage::Stage;

/// Between two looks at what goes on.
const LOOK: Duration = Duration::from_millis(20);
/// The most looks at one rotation.
const LOOKS: u32 = 1500;

/// Whether a target accepts a password.
pub(crate) type Accepts = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;
/// A place where the conversation stops: the number of the message that wants an answer.
pub(crate) type Step = (usize, Stop);

/// A vault whose daemon can be killed, and its target.
pub(crate) struct Scene {
    /// Gone only while its daemon is killed.
    stage: Option<Stage>,
    proxy: Arc<Proxy>,
    accepts: Accepts,
    /// What is checked out between two plays.
    out: Asked,
    /// Every password that was opened, the newest last.
    opened: Vec<Vec<u8>>,
}

impl Scene {
    /// A stage with a first version.
    pub(crate) async fn of(stage: Stage, proxy: Arc<Proxy>, accepts: Accepts) -> Self {
        let (out, opened) = stage.open().await;
        Self {
            stage: Some(stage),
            proxy,
            accepts,
            out,
            opened,
        }
    }

    /// How many messages that want an answer one rotation takes.
    pub(crate) async fn steps(&mut self) -> usize {
        self.proxy.stop(Place::Number(usize::MAX), Stop::Before);
        self.play(&[]).await;
        self.proxy.seen()
    }

    /// A rotation in which the daemon is killed at these steps.
    async fn play(&mut self, steps: &[Step]) {
        let name = format!("killed at {steps:?}");
        let known = self.opened.len() - 1;
        self.arm(steps.first());
        self.stage().check_in(&self.out, None).await;
        for at in 0..steps.len() {
            let stopped = self.stops(&name).await;
            assert!(stopped || at > 0, "{name}: there is no such step");
            if stopped {
                self.kill(steps.get(at + 1)).await;
            }
        }
        if !steps.is_empty() {
            self.out = self.opens(&name).await;
            self.stage().check_in(&self.out, None).await;
        }
        if self.ends(&name).await == RotationState::NeedsOperator {
            self.out = self.opens(&name).await;
            self.stage().check_in(&self.out, None).await;
            let retry = v1::RetryRequest {
                credential: self.stage().definition.credential.to_string(),
            };
            self.stage().line.rotations().retry(retry).await.unwrap();
            assert_eq!(self.ends(&name).await, RotationState::Idle, "{name}");
        }
        let (out, secrets) = self.stage().open().await;
        assert_eq!(secrets.len(), 1, "{name}: one version is live");
        assert!((self.accepts)(&secrets[0]), "{name}: it is accepted");
        for old in &self.opened[known..] {
            assert!(!(self.accepts)(old), "{name}: an earlier one is accepted");
        }
        self.opened.extend(secrets);
        self.out = out;
    }

    fn arm(&self, step: Option<&Step>) {
        if let Some((number, stop)) = step {
            self.proxy.stop(Place::Number(*number), *stop);
        }
    }

    async fn kill(&mut self, next: Option<&Step>) {
        let stage = self.stage.take().unwrap();
        let between = || {
            self.proxy.cut();
            self.arm(next);
        };
        self.stage = Some(stage.killed(between).await);
    }

    fn stage(&self) -> &Stage {
        self.stage.as_ref().unwrap()
    }

    /// A quorum opens what is there, and one of it is accepted.
    async fn opens(&mut self, name: &str) -> Asked {
        self.proxy.disarm();
        let busy = [RotationState::Applying, RotationState::Promoted];
        self.wait(name, |state| !busy.contains(&state)).await;
        let (asked, secrets) = self.stage().open().await;
        let accepted = secrets.iter().any(|secret| (self.accepts)(secret));
        assert!(accepted, "{name}: none of {} is accepted", secrets.len());
        self.opened.extend(secrets);
        asked
    }

    /// Lets time go by until the conversation stops, or the rotation ends without that.
    async fn stops(&self, name: &str) -> bool {
        let ended = [RotationState::Idle, RotationState::NeedsOperator];
        self.wait(name, |state| self.proxy.stopped() || ended.contains(&state))
            .await;
        self.proxy.stopped()
    }

    async fn ends(&self, name: &str) -> RotationState {
        let ended = [RotationState::Idle, RotationState::NeedsOperator];
        self.wait(name, |state| ended.contains(&state)).await
    }

    async fn wait(&self, name: &str, wanted: impl Fn(RotationState) -> bool) -> RotationState {
        for _ in 0..LOOKS {
            let view = self.stage().rotation().await;
            if wanted(view.state()) {
                return view.state();
            }
            let step = self.stage().waits(&view).unwrap_or(LOOK);
            self.stage().advance(step);
            self.proxy.stops_within(LOOK).await;
        }
        panic!("{name}: it does not go on")
    }
}

/// Plays all of this, in all scenes at once.
pub(crate) async fn play_all(scenes: Vec<Scene>, plays: Vec<Vec<Step>>) {
    let (plays, next) = (Arc::new(plays), Arc::new(AtomicUsize::new(0)));
    let playing: Vec<_> = scenes
        .into_iter()
        .map(|mut scene| {
            let (plays, next) = (Arc::clone(&plays), Arc::clone(&next));
            tokio::spawn(Box::pin(async move {
                while let Some(steps) = plays.get(next.fetch_add(1, Ordering::Relaxed)) {
                    scene.play(steps).await;
                }
                let (newest, old) = scene.opened.split_last().unwrap();
                assert!((scene.accepts)(newest));
                assert!(
                    !old.iter().any(|old| (scene.accepts)(old)),
                    "an old one came back"
                );
            }))
        })
        .collect();
    for scene in playing {
        scene.await.unwrap();
    }
}

/// Every step before its message, which is as after the answer to the one before; and a step of each stand, alone and in
/// pairs.
///
/// Such pairs stand for all pairs of steps. A killed daemon knows nothing but its rows, and writes them between calls
/// (apply, test, end sessions and show evidence), not between the messages of one; a cut connection leaves at the target
/// what was done and committed there. So two steps with the same row and the same target go on alike after a kill, and a
/// second kill finds them alike: what counts is the stand, which is row and target.
pub(crate) fn plays(steps: usize, pairs: &[Step]) -> Vec<Vec<Step>> {
    let steps = (0..steps).map(|at| (at, Stop::Before));
    let also = pairs
        .iter()
        .copied()
        .filter(|(_, stop)| *stop == Stop::After);
    let singles = steps.chain(also).map(|step| vec![step]);
    let pairs = pairs
        .iter()
        .flat_map(|one| pairs.iter().map(|two| vec![*one, *two]));
    singles.chain(pairs).collect()
}
