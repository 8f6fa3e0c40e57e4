//! The two documents of the contract.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::name::KeyId;
use serde::{Deserialize, Deserializer, Serialize, de};
use zeroize::Zeroizing;

use super::{
    super::{Created, Evidence, Facts, Key, Known, MAX_FACTS, Sight, Target, Verdict},
    Failure,
};

/// Longest message kept of an answer, in bytes.
pub(super) const MAX_MESSAGE: usize = 300;
/// The most keys that an answer lists.
pub(super) const MAX_KEYS: usize = 64;

/// The document on the program's standard input.
#[derive(Serialize)]
pub(super) struct Ask<'a> {
    pub(super) keyturn: &'static str,
    pub(super) action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<Credential<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settings: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known: Option<Before<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    pub(super) deadline_secs: u64,
}

/// The credential, as its definition has it.
#[derive(Serialize)]
pub(super) struct Credential<'a> {
    id: &'a str,
    path: &'a str,
    kind: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

impl<'a> Credential<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        Self {
            id: &target.credential,
            path: &target.path,
            kind: &target.kind,
            metadata: &target.metadata,
        }
    }
}

/// What the daemon knows when it has a target looked at.
#[derive(Serialize)]
pub(super) struct Before<'a> {
    version: u64,
    proven: Option<String>,
    key: Option<&'a str>,
    facts: Option<&'a Facts>,
}

impl<'a> Before<'a> {
    pub(super) fn of(known: &'a Known) -> Self {
        Self {
            version: known.version,
            proven: known.proven.map(|time| time.stamp().to_string()),
            key: known.key.as_ref().map(KeyId::as_str),
            facts: known.facts.as_ref(),
        }
    }
}

/// The document on the program's standard output.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    outcome: Outcome,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) evidence: Option<String>,
    #[serde(default)]
    retry_after_secs: Option<u64>,
    #[serde(default)]
    keys: Option<Vec<Listed>>,
    #[serde(default)]
    key: Option<KeyId>,
    #[serde(default, deserialize_with = "secret")]
    secret: Option<SecretBytes>,
    #[serde(default)]
    verdict: Option<Word>,
    #[serde(default)]
    facts: Facts,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Done,
    Refused,
    Full,
    Busy,
    #[default]
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    id: KeyId,
    active: bool,
    #[serde(default)]
    named: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Same,
    Diverged,
    Absent,
    NotObservable,
}

impl Answer {
    /// Reads an answer to a question that held this secret.
    pub(super) fn parse(answer: &[u8], secret: Option<&SecretBytes>) -> Result<Self, Failure> {
        let mut answer: Self = serde_json::from_slice(answer).map_err(|e| {
            Failure::Unknown(format!(
                "the answer is not the JSON of the contract (line {}, column {})",
                e.line(),
                e.column()
            ))
        })?;
        let made = answer.secret.take();
        let given = [secret, made.as_ref()];
        answer.message = printable(&answer.message, &given);
        answer.evidence = answer.evidence.map(|text| printable(&text, &given));
        let facts = std::mem::take(&mut answer.facts)
            .into_iter()
            .take(MAX_FACTS);
        answer.facts = facts
            .map(|(name, value)| (printable(&name, &given), printable(&value, &given)))
            .collect();
        answer.secret = made;
        match answer.outcome {
            Outcome::Done => Ok(answer),
            Outcome::Refused => Err(Failure::Refused(answer.message)),
            Outcome::Full => Err(Failure::Full(answer.message)),
            Outcome::Busy => Err(Failure::Busy {
                why: answer.message,
                after: answer.retry_after_secs.map(Duration::from_secs),
            }),
            Outcome::Unknown => Err(Failure::Unknown(answer.message)),
        }
    }

    /// What the target showed of an older secret.
    pub(super) fn shown(self) -> Evidence {
        self.evidence
            .map_or(Evidence::NotObservable, Evidence::Shown)
    }

    /// The key that the target made.
    pub(super) fn created(self) -> Option<Created> {
        Some(Created {
            id: self.key?,
            secret: self.secret.filter(|secret| !secret.expose().is_empty())?,
        })
    }

    /// The keys that the target listed.
    pub(super) fn keys(self) -> Option<Vec<Key>> {
        let keys = self.keys.filter(|keys| keys.len() <= MAX_KEYS)?;
        let key = |Listed { id, active, named }| Key { id, active, named };
        Some(keys.into_iter().map(key).collect())
    }

    /// What the target showed.
    pub(super) fn sight(self) -> Option<Sight> {
        let verdict = match self.verdict? {
            Word::Same => Verdict::Same,
            Word::Diverged => Verdict::Diverged(self.message),
            Word::Absent => Verdict::Absent,
            Word::NotObservable => Verdict::NotObservable(self.message),
        };
        Some(Sight {
            verdict,
            facts: self.facts,
        })
    }
}

/// A fuzz target: whatever a program answers, what is kept of it is bounded, printable and without the secret.
pub(crate) fn fuzz(input: &[u8]) -> bool {
    const GIVEN: &str = "a b";
    let given = SecretBytes::from_slice(GIVEN.as_bytes());
    let (kept, accepted) = match Answer::parse(input, Some(&given)) {
        Ok(answer) => {
            let facts = answer.facts.into_iter();
            let facts = facts.flat_map(|(name, value)| [name, value]);
            let kept = facts.chain(answer.evidence).chain([answer.message]);
            (kept.collect(), true)
        }
        Err(
            Failure::Refused(why)
            | Failure::Full(why)
            | Failure::Unknown(why)
            | Failure::Busy { why, .. },
        ) => (vec![why], false),
    };
    let encoded = BASE64_STANDARD.encode(GIVEN);
    for text in kept {
        assert!(text.len() <= MAX_MESSAGE, "too long");
        assert!(!text.contains(char::is_control), "not printable");
        assert!(
            !text.contains(GIVEN) && !text.contains(&encoded),
            "the secret"
        );
    }
    accepted
}

/// Base64, taken into memory that is wiped.
fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretBytes>, D::Error> {
    let text = Zeroizing::new(String::deserialize(from)?);
    let bytes = BASE64_STANDARD.decode(text.as_bytes());
    let bytes = bytes.map_err(|_| de::Error::custom("the secret is not base64"))?;
    Ok(Some(SecretBytes::from(bytes)))
}

/// One bounded line for logs and people; invariant 3 of the connectors.
fn printable(message: &str, secrets: &[Option<&SecretBytes>]) -> String {
    let mut line: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // `expose`: to see that the program did not echo what it was given, nor what becomes it here.
    let echoes = secrets.iter().flatten().any(|secret| {
        let raw = secret.expose();
        let holds = |text: &str| {
            text.as_bytes().windows(raw.len()).any(|part| part == raw)
                || text.contains(Zeroizing::new(BASE64_STANDARD.encode(raw)).as_str())
        };
        !raw.is_empty() && (holds(message) || holds(&line))
    });
    if echoes {
        return "(message withheld: it held the secret)".to_owned();
    }
    while line.len() > MAX_MESSAGE {
        line.pop();
    }
    line
}
