//! The daemon is killed (SIGKILL) at every call of a rotation to its target, before and after its effect, and at every
//! pair of these. Where a call is a conversation by itself: `killed_between_messages.rs`.
//!
//! # Invariants
//! 1. Nobody is locked out: at every moment a quorum opens a secret that the target accepts.
//! 2. It ends in one version that the target accepts, and the older ones are refused there: by itself, or after an
//!    operator has said of a key whose create got no answer that it was made here.

use std::time::Duration;

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::{lanes::side_by_side, target::Target};
use keyturn_vault::definition::Kind;

use super::stage::{Stage, USER};

/// Vaults that are tried side by side: each waits most of the time.
pub(crate) const LANES: usize = 3;

/// A call to the target that a test holds: what is asked, and whether it is held after it took effect.
pub(crate) type Step = (&'static str, bool);

/// A target whose calls can be held, as people see it.
pub(crate) trait Place {
    /// The next call of this kind waits.
    fn hold(&self, step: Step);
    /// Whether a call waits.
    fn holds(&self) -> bool;
    /// What waits ends without an answer, and nothing waits any more.
    fn release(&self);
    /// What somebody does with what they opened.
    fn used(&self) {}
    /// Whether the target accepts it.
    async fn accepts(&self, secret: &[u8]) -> bool;
    /// Whether it no longer does.
    async fn refuses(&self, secret: &[u8]) -> bool {
        !self.accepts(secret).await
    }
}

impl Stage {
    /// Lets so much time go by as nothing that runs is cut short by.
    async fn pass(&self, view: &v1::RotationView) {
        if view.state() == RotationState::NeedsOperator {
            self.own_up(view).await;
        } else if let Some(left) = self.waits(view) {
            self.advance(left);
        } else {
            // No faster than the calls that it waits for.
            self.advance(Duration::from_millis(10));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Waits until a call is held; not where the rotation is done before.
    async fn held(&self, place: &impl Place, name: &str) -> bool {
        for _ in 0..3000 {
            if place.holds() {
                return true;
            }
            let view = self.rotation().await;
            if view.state() == RotationState::Idle {
                return false;
            }
            self.pass(&view).await;
        }
        panic!("{name}: {:?}", self.rotation().await)
    }

    /// Waits until the rotation is done.
    pub(crate) async fn settles(&self, name: &str) {
        for _ in 0..3000 {
            let view = self.rotation().await;
            if view.state() == RotationState::Idle {
                return;
            }
            self.pass(&view).await;
        }
        panic!("{name}: {:?}", self.rotation().await)
    }

    /// Opens every live version; one at least is accepted (invariant 1).
    pub(crate) async fn is_open(
        &self,
        place: &impl Place,
        name: &str,
    ) -> (keyturn_tests::story::Asked, Vec<Vec<u8>>) {
        let (asked, secrets) = self.open().await;
        for secret in &secrets {
            if place.accepts(secret).await {
                return (asked, secrets);
            }
        }
        panic!("{name}: none of {} secrets is accepted", secrets.len())
    }
}

/// Kills the daemon at `first`, and after that at each of `seconds` too, and lets it end each time.
pub(crate) async fn killed_at(mut stage: Stage, place: &impl Place, first: Step, seconds: &[Step]) {
    stage.dated = true;
    let (mut asked, mut secrets) = stage.is_open(place, "before").await;
    let mut twice = 0;
    let plans = seconds.iter().copied().map(Some);
    for second in std::iter::once(None).chain(plans) {
        let name = format!("killed at {first:?}, then at {second:?}");
        place.used();
        place.hold(first);
        stage.check_in(&asked, None).await;
        assert!(stage.held(place, &name).await, "{name}: it is reached");
        // Before the daemon is back, which goes on at once.
        let again = || {
            place.release();
            if let Some(second) = second {
                place.hold(second);
            }
        };
        stage = stage.killed(again).await;
        if second.is_some() {
            if stage.held(place, &name).await {
                stage = stage.killed(|| place.release()).await;
                twice += 1;
            }
            place.release();
        } else {
            let (asked, _) = stage.is_open(place, &name).await;
            stage.check_in(&asked, None).await;
        }
        stage.settles(&name).await;
        let before = std::mem::take(&mut secrets);
        (asked, secrets) = stage.is_open(place, &name).await;
        assert_eq!(secrets.len(), 1, "{name}: invariant 2");
        for old in before {
            assert!(place.refuses(&old).await, "{name}: invariant 2");
        }
    }
    assert!(twice > 0, "no pair that begins at {first:?} was reached");
}

/// A password of the account service.
struct Password<'a>(&'a Target);

impl Place for Password<'_> {
    fn hold(&self, (action, after): Step) {
        self.0.stops(action, after).unwrap();
    }

    fn holds(&self) -> bool {
        self.0.reached()
    }

    fn release(&self) {
        self.0.goes_on().unwrap();
    }

    async fn accepts(&self, secret: &[u8]) -> bool {
        self.0.accepts(USER, secret).unwrap()
    }
}

/// A key of the account service.
struct Key<'a>(&'a Target);

impl Place for Key<'_> {
    fn hold(&self, step: Step) {
        Password(self.0).hold(step);
    }

    fn holds(&self) -> bool {
        self.0.reached()
    }

    fn release(&self) {
        Password(self.0).release();
    }

    async fn accepts(&self, secret: &[u8]) -> bool {
        let keys = self.0.key_list(USER).unwrap();
        keys.iter()
            .any(|(key, _)| self.0.accepts_key(USER, key, secret).unwrap())
    }
}

#[test]
fn a_password_survives_a_kill_at_every_pair_of_steps() {
    let steps = [
        ("apply", false),
        ("apply", true),
        ("test", false),
        ("test", true),
        ("end-sessions", false),
        ("end-sessions", true),
        ("evidence", false),
    ];
    let done = side_by_side(
        LANES,
        &steps,
        || (),
        |(), first| async move {
            let stage = Stage::new().await;
            let target = stage.target.another();
            killed_at(stage, &Password(&target), first, &steps).await;
        },
    );
    done.unwrap();
}

#[test]
fn a_key_survives_a_kill_at_every_pair_of_steps() {
    let steps = [
        ("keys", false),
        ("delete", false),
        ("delete", true),
        ("create", false),
        ("create", true),
        ("test", false),
        ("test", true),
        ("deactivate", false),
        ("deactivate", true),
    ];
    let done = side_by_side(
        LANES,
        &steps,
        || (),
        |(), first| async move {
            let stage = Stage::empty(Kind::AwsIamAccessKey, "keys").await;
            stage.adopt().await;
            // From the second key on there is one to delete first.
            let (asked, _) = stage.open().await;
            stage.check_in(&asked, None).await;
            stage.idle().await;
            let target = stage.target.another();
            killed_at(stage, &Key(&target), first, &steps).await;
        },
    );
    done.unwrap();
}
