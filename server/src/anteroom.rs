//! Before every call: strangers are told so, and calls are counted. After it: no refusal is without a word.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use keyturn_proto::CODE_TRAILER;
use keyturn_vault::id::PersonId;
use tonic::{Code, Status, body::Body, service::Routes};
use tower_service::Service;

use crate::{
    clock::Clock,
    metrics::Metrics,
    peers::{OPEN_TO_STRANGERS, Peer, Peers, unknown_device},
    refusal,
    shell::Shell,
    tally::Tally,
};

/// The routes, behind a look at who calls.
#[derive(Clone)]
pub struct Anteroom {
    routes: Routes,
    peers: Peers,
    clock: Clock,
    metrics: Metrics,
    tally: Tally,
}

impl Anteroom {
    /// Stands before these routes.
    pub fn new(routes: Routes, shell: &Shell) -> Self {
        Self {
            routes: routes.prepare(),
            peers: shell.peers.clone(),
            clock: shell.clock.clone(),
            metrics: shell.metrics.clone(),
            tally: shell.tally.clone(),
        }
    }

    /// Who calls, if the charter knows them.
    fn caller(&self, request: &Request<Body>) -> Option<PersonId> {
        let peer = request.extensions().get::<Peer>()?;
        Some(self.peers.caller(&peer.pin)?.person.id)
    }

    fn lets_in(&self, request: &Request<Body>) -> bool {
        OPEN_TO_STRANGERS.contains(&request.uri().path())
            || request
                .extensions()
                .get::<Peer>()
                .is_some_and(|peer| self.peers.knows(&peer.pin))
    }
}

impl Service<Request<Body>> for Anteroom {
    type Response = Response<Body>;
    type Error = tonic::codegen::StdError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.routes, context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !self.lets_in(&request) {
            let help = "Calls by devices that no charter knows.";
            self.metrics
                .counter("keyturn_strangers_refused_total", help, &[])
                .one();
            return Box::pin(async { Ok(unknown_device().into_http()) });
        }
        let path: Arc<str> = request.uri().path().trim_start_matches('/').into();
        let caller = self.caller(&request);
        let tally = self.tally.clone();
        let begun = self.clock.running();
        let answer = self.routes.call(request);
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        Box::pin(async move {
            let answer = worded(answer.await?);
            // A refusal has its status in the headers; a stream's later end is not a call's outcome.
            let code =
                Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
            let word = answer
                .headers()
                .get(CODE_TRAILER)
                .and_then(|word| word.to_str().ok());
            if let Some((person, word)) = caller.zip(word) {
                tally.count(person, word);
            }
            // What is not served here is a path that a peer made up.
            let method = if code == Code::Unimplemented {
                "other"
            } else {
                &*path
            };
            let labels = [("method", method), ("code", name(code))];
            metrics
                .counter(
                    "keyturn_calls_total",
                    "Calls by method and outcome.",
                    &labels,
                )
                .one();
            let took = clock.running().saturating_sub(begun);
            metrics
                .histogram(
                    "keyturn_call_seconds",
                    "Time to the answer's head.",
                    &[("method", method)],
                )
                .observe(took);
            Ok(answer)
        })
    }
}

/// Gives a refusal of the transport, which has neither word nor hint, both: a message that is no message of
/// this call, that is too large, or for a call that there is not.
fn worded(answer: Response<Body>) -> Response<Body> {
    let refused = Status::from_header_map(answer.headers())
        .filter(|status| status.code() != Code::Ok)
        .filter(|_| !answer.headers().contains_key(CODE_TRAILER));
    let Some(refused) = refused else {
        return answer;
    };
    // What cannot be decoded is the caller's fault.
    let code = if refused.code() == Code::Internal {
        Code::InvalidArgument
    } else {
        refused.code()
    };
    let hint = "nothing was changed; compare the versions of daemon and client";
    refusal::status(code, "malformed", refused.message(), hint).into_http()
}

/// A code as gRPC's documentation writes it.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
