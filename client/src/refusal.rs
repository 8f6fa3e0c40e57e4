//! What went wrong, as a program and a person want it: a stable code with its exit code, a sentence,
//! and what to do next.
//!
//! # Invariants
//! 1. Every stable code has an exit code of its own, and neither ever changes.
//! 2. What a server says is text from outside: it can neither fill the screen nor steer the terminal.
//! 3. An exit code is from 1 to 124 or from 193 to 250: `timeout`, `env` and shells use 125 to 127 for
//!    themselves and 128 to 192 for signals, and `ssh` uses 255.

use std::{error::Error as _, fmt};

use keyturn_proto::{CODE_TRAILER, HINT_TRAILER};
use tonic::{Code, Status};

use keyturn_hsm::TokenError;
use keyturn_vault::refusal::Refusal as Rule;

use crate::{
    causes::{tame, told},
    connect::ConnectError,
    home::HomeError,
    verify::{VerifyError, directory::Broken},
};

/// A refusal or failure, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, like `same-custodian`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl Refusal {
    /// A refusal by this program itself.
    pub fn new(code: &str, message: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self {
            code: code.to_owned(),
            message: message.to_string(),
            hint: hint.to_string(),
        }
    }

    /// Nobody reads the output any more, and nobody is left to be told.
    pub fn unread() -> Self {
        Self::new("file", "", "")
    }

    /// Whether this is [`Refusal::unread`].
    pub fn is_unread(&self) -> bool {
        *self == Self::unread()
    }

    /// What the process exits with.
    pub fn exit(&self) -> u8 {
        exit_of(&self.code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        if let Some(refusal) = on_the_way(&status) {
            return refusal;
        }
        let (general, way_out) = general(status.code());
        let trailers = status.metadata();
        let code = trailers
            .get(CODE_TRAILER)
            .and_then(|code| code.to_str().ok());
        let code = code.filter(|code| is_code(code)).unwrap_or(general);
        let hint = trailers
            .get_bin(HINT_TRAILER)
            .and_then(|hint| hint.to_bytes().ok());
        let hint = hint.map(|hint| String::from_utf8_lossy(&hint).into_owned());
        Self {
            code: code.to_owned(),
            message: tame(if status.message().is_empty() {
                status.code().description()
            } else {
                status.message()
            }),
            hint: tame(&hint.unwrap_or_else(|| way_out.to_owned())),
        }
    }
}

impl From<Rule> for Refusal {
    fn from(rule: Rule) -> Self {
        Self::new(rule.code(), rule, rule.hint())
    }
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Self {
        Self {
            code: error.code().to_owned(),
            message: tame(&error.to_string()),
            hint: error.hint().to_owned(),
        }
    }
}

impl From<HomeError> for Refusal {
    fn from(error: HomeError) -> Self {
        Self::new(error.code(), told(&error), error.hint())
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Self::new(error.code(), told(&error), error.hint())
    }
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        Self::new(error.code(), told(&error), error.hint())
    }
}

impl From<Broken> for Refusal {
    fn from(error: Broken) -> Self {
        Self::new("verification", &error, error.hint)
    }
}

impl From<keyturn_hsm::private::FileError> for Refusal {
    fn from(error: keyturn_hsm::private::FileError) -> Self {
        Self::new("file", told(&error), error.hint())
    }
}

impl From<keyturn_hsm::device::DeviceError> for Refusal {
    fn from(error: keyturn_hsm::device::DeviceError) -> Self {
        Self::new(
            "file",
            told(&error),
            "restore the home from a copy, or enroll this computer anew",
        )
    }
}

/// A status that this program's own transport made: the cause says more than "transport error".
fn on_the_way(status: &Status) -> Option<Refusal> {
    let mut broken = None;
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            return Some(error.clone().into());
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let told = error.to_string();
            // The HTTP/2 library keeps an error's text only. In TLS 1.3 a server looks at the client's
            // certificate after the client is done, so this comes with the first call.
            if told.starts_with("received fatal alert: ") {
                return Some(not_let_in());
            }
            broken = Some(told);
        } else if error.is::<tonic::transport::Error>() {
            broken = Some(error.to_string());
        }
        cause = error.source();
    }
    broken.map(|why| {
        let hint = "it may have taken effect: see `keyturn status`, then try again";
        Refusal::new(
            "unreachable",
            format_args!("the connection broke: {}", tame(&why)),
            hint,
        )
    })
}

fn not_let_in() -> Refusal {
    Refusal::new(
        "not-let-in",
        "the vault closed the door: it does not know this device",
        "use the home with which you joined; your token signs in another computer: keyturn join --device",
    )
}

/// The code and the way out when the server gave none.
const fn general(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::InvalidArgument | Code::OutOfRange => (
            "malformed",
            "nothing was changed; compare the versions of client and daemon",
        ),
        Code::Unauthenticated => (
            "unknown-device",
            "use the home with which you joined; your token signs in another computer: keyturn join --device",
        ),
        Code::PermissionDenied => (
            "denied",
            "`keyturn status` tells who you are here and what you may do",
        ),
        Code::NotFound => (
            "not-found",
            "check the spelling, and that you are in the vault you mean",
        ),
        Code::AlreadyExists => (
            "already-exists",
            "see what is there, or choose another name",
        ),
        Code::FailedPrecondition => ("refused", "see `keyturn status`"),
        Code::Aborted => ("aborted", "make it again"),
        Code::ResourceExhausted => ("limit", "wait a little and try again"),
        Code::Unavailable => (
            "unreachable",
            "try again; `keyturn doctor` looks at the whole way",
        ),
        Code::DeadlineExceeded | Code::Cancelled => (
            "deadline",
            "it may have taken effect: see `keyturn status`, then try again",
        ),
        Code::Unimplemented => (
            "other-version",
            "the daemon does not know this call: compare the versions",
        ),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => (
            "internal",
            "see the daemon's log; `keyturn status` tells what took effect",
        ),
    }
}

fn is_code(code: &str) -> bool {
    (1..=40).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

/// The exit code of a stable code; 1 for one that this program does not know.
pub fn exit_of(code: &str) -> u8 {
    EXITS
        .iter()
        .find(|(name, _)| *name == code)
        .map_or(1, |(_, exit)| *exit)
}

/// Every stable code and its exit code (invariants 1 and 3): 0 is success, 1 an unknown failure, 2 a wrong
/// command line, 3–29 the way, the daemon and this computer, 30–99 rules of the vault, 100–124 tokens, and
/// from 193 on whatever came later. `docs/EXIT-CODES.md` has a row for each.
pub const EXITS: &[(&str, u8)] = &[
    ("unreachable", 3),
    ("wrong-server-key", 4),
    ("not-let-in", 5),
    ("unknown-device", 6),
    ("role-missing", 7),
    ("denied", 8),
    ("not-found", 9),
    ("already-exists", 10),
    ("malformed", 11),
    ("limit", 12),
    ("not-serving", 13),
    ("deadline", 14),
    ("other-version", 15),
    ("internal", 16),
    ("refused", 17),
    ("aborted", 18),
    ("old-submit-key", 19),
    ("head-mismatch", 20),
    ("restore-mode", 21),
    ("not-in-restore-mode", 22),
    ("wrong-signature", 23),
    ("verification", 24),
    ("no-profile", 25),
    ("not-confirmed", 26),
    ("file", 27),
    ("busy", 28),
    ("store", 29),
    ("not-requester", 30),
    ("not-yours", 31),
    ("not-custodian", 32),
    ("not-holder", 33),
    ("unknown-token", 34),
    ("not-operator", 35),
    ("same-custodian", 36),
    ("same-token", 37),
    ("not-approved", 38),
    ("spent-approval", 39),
    ("wrong-lines", 40),
    ("wrong-share", 41),
    ("not-promised", 42),
    ("wrong-request", 43),
    ("rule-broken", 44),
    ("waiting", 45),
    ("too-late", 46),
    ("decided", 47),
    ("not-now", 48),
    ("nothing-to-fetch", 49),
    ("too-many-open", 50),
    ("known-ceremony", 51),
    ("not-live", 52),
    ("unknown-version", 53),
    ("destroyed", 54),
    ("unopenable", 55),
    ("unknown-credential", 56),
    ("old-charter", 57),
    ("no-such-group", 58),
    ("no-such-scenario", 59),
    ("no-ticket", 60),
    ("not-canary", 61),
    ("checked-out", 62),
    ("check-out-too-long", 63),
    ("valid-too-long", 64),
    ("not-waivable", 65),
    ("too-many-lines", 66),
    ("wrong-subject", 67),
    ("not-out", 68),
    ("not-longer", 69),
    ("not-delivered", 70),
    ("next-version", 71),
    ("unproven", 72),
    ("too-many-live", 73),
    ("wrong-roster", 74),
    ("rotating", 75),
    ("not-running", 76),
    ("just-rotated", 77),
    ("not-stuck", 78),
    ("nothing-owed", 79),
    ("no-connector", 80),
    ("not-promotable", 81),
    ("stale", 82),
    ("broken-charter", 83),
    ("nothing-changes", 84),
    ("too-few-holders", 85),
    ("not-joined", 86),
    ("path-taken", 87),
    ("not-founded", 88),
    ("has-connector", 89),
    ("taken", 90),
    ("unknown-signer", 91),
    ("broken-definition", 92),
    ("stopping", 93),
    ("damaged", 94),
    ("log-full", 95),
    ("not-released", 96),
    ("no-entropy", 97),
    ("findings", 98),
    ("wrong-submission", 99),
    ("no-smart-card-service", 100),
    ("no-reader", 101),
    ("no-token", 102),
    ("wrong-token", 103),
    ("several-tokens", 104),
    ("token-in-use", 105),
    ("wrong-pin", 106),
    ("pin-blocked", 107),
    ("pin-format", 110),
    ("factory-default", 111),
    ("management-key", 112),
    ("slot-occupied", 113),
    ("touch-not-given", 114),
    ("token-removed", 115),
    ("token-replaced", 116),
    ("token-not-enrolled", 117),
    ("firmware-too-old", 118),
    ("wrong-passphrase", 119),
    ("key-file-damaged", 120),
    ("not-answered", 121),
    ("not-for-this-token", 122),
    ("share-damaged", 123),
    ("too-much", 124),
    ("token-failed", 193),
    ("weak-token", 194),
    ("attestation", 195),
    ("no-such-key", 199),
    ("not-paused", 210),
    ("not-claimable", 211),
    ("low-space", 212),
    ("old-works", 214),
    ("not-reviewer", 216),
    ("took-part", 217),
    ("same-person", 230),
    ("not-changed", 231),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_an_exit_code_of_its_own() {
        let codes: HashSet<_> = EXITS.iter().map(|(code, _)| code).collect();
        let exits: HashSet<_> = EXITS.iter().map(|(_, exit)| exit).collect();
        assert_eq!(
            (codes.len(), exits.len()),
            (EXITS.len(), EXITS.len()),
            "invariant 1"
        );
        for (code, exit) in EXITS {
            let ours = (3..=124).contains(exit) || (193..=250).contains(exit);
            assert!(is_code(code) && ours, "invariant 3: {code} {exit}");
        }
        for refusal in Rule::ALL {
            let exit = exit_of(refusal.code());
            assert!(
                (30..100).contains(&exit) || exit >= 193,
                "invariant 1: {}",
                refusal.code()
            );
        }
        for code in 0..=16 {
            let (word, hint) = general(Code::from_i32(code));
            assert!(
                (3..30).contains(&exit_of(word)) && !hint.is_empty(),
                "invariant 1: {word}"
            );
        }
        assert_eq!(exit_of("from-a-newer-daemon"), 1);
    }

    #[test]
    fn the_page_of_exit_codes_is_this_table() {
        let page = include_str!("../../docs/EXIT-CODES.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| ") && line.contains('`'))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        let mut want: Vec<_> = EXITS.to_vec();
        want.sort_by_key(|(_, exit)| *exit);
        let wanted: Vec<_> = want
            .iter()
            .map(|(code, exit)| (exit.to_string(), format!("`{code}`")))
            .collect();
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row[1].to_owned(), row[2].to_owned()))
            .collect();
        assert_eq!(found, wanted, "a row of docs/EXIT-CODES.md for each code");
        let rules: std::collections::BTreeMap<_, _> = Rule::ALL
            .iter()
            .map(|rule| (format!("`{}`", rule.code()), rule.to_string()))
            .collect();
        for row in rows {
            assert!(row[3].len() > 5, "{} means something", row[2]);
            if let Some(rule) = rules.get(row[2]) {
                assert_eq!(row[3], rule, "{}", row[2]);
            }
        }
    }

    #[test]
    fn what_a_server_says_is_tamed() {
        let mut status =
            Status::failed_precondition("bob has \u{1b}[2J\u{202e}approved\n".repeat(200));
        status
            .metadata_mut()
            .insert(CODE_TRAILER, "same-custodian".parse().unwrap());
        let hint = tonic::metadata::MetadataValue::from_bytes("frag jemand ändern\r".as_bytes());
        status.metadata_mut().insert_bin(HINT_TRAILER, hint);
        let refusal = Refusal::from(status);
        assert_eq!(
            (refusal.code.as_str(), refusal.exit()),
            ("same-custodian", 36)
        );
        assert_eq!(refusal.hint, "frag jemand ändern\u{fffd}");
        assert_eq!(
            refusal.message.chars().count(),
            crate::causes::MAX_TEXT,
            "invariant 2"
        );
        assert!(
            !refusal.message.contains(['\u{1b}', '\u{202e}', '\n']),
            "invariant 2"
        );

        for (name, code, want) in [
            ("none", None, "refused"),
            ("no word", Some("A B"), "refused"),
        ] {
            let mut status = Status::failed_precondition("no");
            if let Some(code) = code {
                status
                    .metadata_mut()
                    .insert(CODE_TRAILER, code.parse().unwrap());
            }
            assert_eq!(Refusal::from(status).code, want, "{name}");
        }
    }
}
