//! Whether the daemon serves, for `grpc.health.v1`, `/health` and systemd; and if not, why.
//!
//! # Invariants
//! 1. A daemon serves nothing until it is said to.
//! 2. All answers come from one place, so they never differ.

use std::sync::Arc;

use tokio::sync::watch;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::HealthReporter,
};

/// The services whose health is told, besides the whole daemon's (the empty name).
const SERVICES: [&str; 7] = [
    "",
    "keyturn.v1.Ceremony",
    "keyturn.v1.Credential",
    "keyturn.v1.Charter",
    "keyturn.v1.Rotation",
    "keyturn.v1.Audit",
    "keyturn.v1.Status",
];

/// Serving, or the reason why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls are answered.
    Serving,
    /// Nothing can be changed; one sentence for an operator.
    NotServing(String),
}

/// Where it is told whether the store takes changes; it can change while the daemon runs.
pub type Reporter = Arc<watch::Sender<Health>>;

/// Says and asks whether the daemon serves; clones are of one mind.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
    note: Arc<watch::Sender<Option<String>>>,
    reporter: HealthReporter,
}

impl Health {
    /// Health of a daemon that is starting, and the service that tells it.
    pub async fn starting() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let state = State::NotServing("the daemon is starting".to_owned());
        let health = Self {
            state: Arc::new(watch::Sender::new(state)),
            note: Arc::default(),
            reporter,
        };
        // No warning: every start goes through it.
        health.report(ServingStatus::NotServing).await;
        (health, service)
    }

    /// Calls are answered from now on.
    pub async fn serving(&self) {
        self.set(State::Serving).await;
    }

    /// Calls are refused from now on, for a reason that an operator understands.
    pub async fn not_serving(&self, reason: &str) {
        self.set(State::NotServing(reason.to_owned())).await;
    }

    /// What somebody should know of a daemon that serves; none when all is well.
    pub fn note(&self, note: Option<String>) {
        self.note.send_replace(note);
    }

    /// What somebody should know.
    pub fn noted(&self) -> Option<String> {
        self.note.borrow().clone()
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows how it is.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    async fn set(&self, state: State) {
        let changed = self.state.send_if_modified(|now| {
            let changed = *now != state;
            now.clone_from(&state);
            changed
        });
        if !changed {
            return;
        }
        let status = match &state {
            State::Serving => {
                tracing::info!("serving");
                ServingStatus::Serving
            }
            State::NotServing(reason) => {
                tracing::warn!(%reason, "not serving");
                ServingStatus::NotServing
            }
        };
        self.report(status).await;
    }

    async fn report(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
