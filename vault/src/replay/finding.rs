//! What an auditor is told.

use crate::refusal::Refusal;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Somebody should look.
    Warning,
    /// Against the rules.
    Error,
}

/// Something that an auditor should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The entry.
    pub n: u64,
    /// How bad it is.
    pub level: Level,
    /// A stable code: a refusal's, or one of [`CODES`].
    pub code: &'static str,
    /// The rest, for people.
    pub detail: String,
}

/// The codes of findings beside those of refusals.
pub const CODES: [(&str, &str); 23] = [
    ("order", "the number of the entry is not the next one"),
    ("time-back", "the clock went backwards"),
    (
        "charter",
        "the entry names another charter than the one in force",
    ),
    ("not-founded-yet", "an entry before the founding"),
    ("founded-twice", "a second founding"),
    ("genesis", "the first charter is not the pinned one"),
    ("chain", "a charter does not follow the one before"),
    (
        "document-missing",
        "a document that the log names is not there",
    ),
    (
        "document",
        "a document cannot be read, or is not what the entry says",
    ),
    (
        "text",
        "a signed text cannot be read, or is for something else",
    ),
    ("signer", "a text is signed by somebody else than it says"),
    ("unknown", "the entry names something that is not there"),
    (
        "other-entry",
        "the machines would have written another entry",
    ),
    (
        "unauthorized",
        "a release without `unseal.authorized` before it",
    ),
    ("undecided", "something took force that no ceremony decided"),
    (
        "unrecorded-rule",
        "an approval broke a rule that the entry does not name",
    ),
    (
        "missing-entry",
        "an entry that follows from an earlier one is not there",
    ),
    (
        "foreign-key",
        "a key at the target that is not the vault's to touch, or not its to claim",
    ),
    (
        "key-unknown",
        "a version of a target with two slots whose key is not named",
    ),
    ("lost-entries", "entries were lost before a restore"),
    ("rotation-owed", "what was opened is not rotated yet"),
    (
        "rotation-late",
        "what was opened is not rotated a day after its check-out",
    ),
    ("open-end", "a ceremony that has not come to its end"),
];

/// Why an entry is not taken.
pub(super) struct Fault {
    pub(super) level: Level,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self {
            level: Level::Error,
            code: refusal.code(),
            detail: refusal.to_string(),
        }
    }
}

pub(super) fn fault(code: &'static str) -> Fault {
    let detail = CODES
        .iter()
        .find(|(known, _)| *known == code)
        .map_or("", |(_, detail)| detail);
    Fault {
        level: Level::Error,
        code,
        detail: detail.to_owned(),
    }
}
