//! Refusals on the wire: a status, a stable code for programs, a hint for people.

use std::fmt::Display;

use keyturn_proto::{CODE_TRAILER, HINT_TRAILER};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

/// A status whose trailers carry the refusal's stable word and what to do next.
///
/// `word` is a constant of the program, lower-case letters and dashes, like `same-custodian`.
pub fn status(code: Code, word: &'static str, message: impl Display, hint: &str) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert(CODE_TRAILER, MetadataValue::from_static(word));
    trailers.insert_bin(HINT_TRAILER, MetadataValue::from_bytes(hint.as_bytes()));
    Status::with_metadata(code, message.to_string(), trailers)
}

/// A malformed field, text or document.
pub fn malformed(what: impl Display) -> Status {
    let hint = "nothing was changed; the program that sent it is another version, or broken";
    status(Code::InvalidArgument, "malformed", what, hint)
}

/// There is no such thing, or not for this person.
pub fn not_found(what: impl Display) -> Status {
    let hint = "check the spelling, and that you are in the vault you mean";
    status(Code::NotFound, "not-found", what, hint)
}

/// Nothing can be changed now; `reason` is the one that health tells.
pub fn not_serving(reason: impl Display) -> Status {
    let hint =
        "an operator sees the reason in `keyturn status` and in the daemon's log; try again later";
    status(Code::Unavailable, "not-serving", reason, hint)
}
