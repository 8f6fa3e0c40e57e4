//! One call of AWS, from its deadline to the meaning of its failure.

use std::{
    error::Error as _,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_iam::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        http::HttpResponse,
        interceptors::{
            BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
        },
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
    primitives::{DateTime, DateTimeFormat},
};
use hyper_util::client::legacy;
use keyturn_vault::name::KeyId;

use crate::connector::{Attempt, Failure, Target, TwoSlot};

/// Longest text kept of an answer, in bytes.
const MAX_MESSAGE: usize = 300;
/// Error codes by which AWS asks to be asked later. Nothing was begun.
const LATER: [&str; 9] = [
    "ConcurrentModification",
    "EntityTemporarilyUnmodifiable",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "RequestThrottled",
];

/// Between two looks at a list that may be old.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One call: it ends by its deadline, and sees itself being sent and answered.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The action, like `UpdateLoginProfile`.
    what: &'static str,
    attempt: Attempt,
    /// Whether the call only looks, so that nothing was begun when nobody answers.
    looks: bool,
    /// Whether the call carries a secret, so that AWS's words about it are not repeated.
    secret: bool,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    sent: AtomicBool,
    answered: Mutex<Option<DateTime>>,
}

/// A call that failed: what AWS said, where it did, and what that means.
pub(super) struct Failed<E> {
    said: Option<E>,
    failure: Failure,
}

impl<E> Failed<E> {
    /// Whether AWS said this.
    pub(super) fn is(&self, this: impl FnOnce(&E) -> bool) -> bool {
        self.said.as_ref().is_some_and(this)
    }
}

impl<E> From<Failed<E>> for Failure {
    fn from(failed: Failed<E>) -> Self {
        failed.failure
    }
}

/// The answer to a call that changes and may have been made before: that AWS says so is as good.
pub(super) fn made_before<T, E>(
    answer: Result<T, Failed<E>>,
    says_so: impl FnOnce(&E) -> bool,
) -> Result<(), Failure> {
    match answer {
        Err(failed) if !failed.is(says_so) => Err(failed.into()),
        _ => Ok(()),
    }
}

/// Waits until AWS lists a deleted key no more. Its lists may be older than what it was told
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html>, "Changes that I make are not always
/// immediately visible"), and whoever finds the key there again takes it for somebody else's.
pub(super) async fn unlisted(
    connector: &dyn TwoSlot,
    target: &Target,
    key: &KeyId,
    attempt: Attempt,
) -> Result<(), Failure> {
    while connector
        .keys(target)
        .await?
        .iter()
        .any(|one| one.id == *key)
    {
        tokio::time::sleep(LOOK_AGAIN.min(attempt.left()?)).await;
    }
    Ok(())
}

impl Call {
    /// A call that only looks.
    pub(super) fn look(what: &'static str, within: Duration) -> Self {
        Self::look_of(what, Attempt::within(0, within))
    }

    /// A call that only looks, within an attempt.
    pub(super) fn look_of(what: &'static str, attempt: Attempt) -> Self {
        Self {
            looks: true,
            ..Self::change(what, attempt)
        }
    }

    /// A call that changes something, within an attempt.
    pub(super) fn change(what: &'static str, attempt: Attempt) -> Self {
        Self {
            what,
            attempt,
            looks: false,
            secret: false,
            seen: Arc::default(),
        }
    }

    /// The same, of which AWS's words are not repeated.
    pub(super) fn with_secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Sends it. `operation` is customized with a clone of this call as its interceptor; a list of
    /// several pages, which only looks, may go without.
    pub(super) async fn send<T, E>(
        &self,
        operation: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failed<E>>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let failed = |failure| Failed {
            said: None,
            failure,
        };
        let left = self.attempt.left().map_err(failed)?;
        match tokio::time::timeout(left, operation).await {
            Ok(answer) => answer.map_err(|error| self.failed(error)),
            Err(_) => Err(failed(self.unanswered("no answer in time"))),
        }
    }

    /// When AWS answered, by its own clock.
    pub(super) fn answered(&self) -> Option<DateTime> {
        *self
            .seen
            .answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unanswered(&self, why: &str) -> Failure {
        let line = format!("{}: {why}", self.what);
        if self.looks {
            Failure::Busy {
                why: line,
                after: None,
            }
        } else if self.seen.sent.load(Ordering::SeqCst) {
            Failure::Unknown(line)
        } else {
            Failure::Refused(format!("{line}; nothing was sent"))
        }
    }

    fn failed<E>(&self, error: SdkError<E, HttpResponse>) -> Failed<E>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        if let SdkError::ServiceError(answer) = error {
            let status = answer.raw().status();
            let failure = if status.is_client_error() {
                self.refusal(answer.err())
            } else {
                self.unanswered(&format!("AWS failed with {}", status.as_u16()))
            };
            return Failed {
                said: Some(answer.into_err()),
                failure,
            };
        }
        let failure = if never_connected(&error) {
            Failure::Busy {
                why: format!("{}: no connection to AWS", self.what),
                after: None,
            }
        } else {
            self.unanswered(cause(&error))
        };
        Failed {
            said: None,
            failure,
        }
    }

    /// What a definite no means.
    fn refusal(&self, error: &impl ProvideErrorMetadata) -> Failure {
        let code = error.code().unwrap_or("no error code");
        let words = error.message().filter(|_| !self.secret);
        let line = match words {
            Some(words) => printable(&format!("{}: {code}: {words}", self.what)),
            None => printable(&format!("{}: {code}", self.what)),
        };
        if LATER.contains(&code) {
            Failure::Busy {
                why: line,
                after: None,
            }
        } else {
            Failure::Refused(line)
        }
    }
}

impl Intercept for Call {
    fn name(&self) -> &'static str {
        "Call"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // A process that was stopped on the way here and goes on late sends nothing.
        self.attempt.left()?;
        self.seen.sent.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        *self
            .seen
            .answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}

/// Whether there was no connection, so that nothing can have been sent over it.
fn never_connected<E>(error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::DispatchFailure(failure) = error else {
        return false;
    };
    let mut cause = failure
        .as_connector_error()
        .and_then(|error| error.source());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            return error.is_connect();
        }
        cause = error.source();
    }
    false
}

/// Why AWS said nothing, without anything of the request.
fn cause<E>(error: &SdkError<E, HttpResponse>) -> &'static str {
    if let SdkError::ConstructionFailure(_) = error {
        "the request could not be made"
    } else if let SdkError::TimeoutError(_) = error {
        "no answer in time"
    } else if let SdkError::ResponseError(_) = error {
        "the answer could not be read"
    } else if let SdkError::DispatchFailure(failure) = error
        && failure.is_other()
    {
        "it could not be sent; has this host credentials of AWS?"
    } else {
        "the connection failed"
    }
}

/// One bounded line for logs and people.
fn printable(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    while line.len() > MAX_MESSAGE {
        line.pop();
    }
    line
}
