//! What a look at a target without the secret gives.

use std::collections::BTreeMap;

use keyturn_vault::{name::KeyId, time::Time};

/// The setting of a definition that says how often its target is looked at, like `1h`. It is the daemon's own:
/// every connector lets it pass.
pub const PROBE_EVERY: &str = "probe-every";
/// The most facts that are kept of a probe.
pub const MAX_FACTS: usize = 32;

/// What was seen of a credential: names and values, like a verifier's digest or a time of change.
/// Never secret.
pub type Facts = BTreeMap<String, String>;

/// What the daemon knows when it has a target looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The current version.
    pub version: u64,
    /// When it was last proven; none for one that a person deposited and nobody has proven.
    pub proven: Option<Time>,
    /// What the target calls its key, where it holds several.
    pub key: Option<KeyId>,
    /// What the first look after the last proof saw that found the secret real; none where there was no such
    /// look since. The connector compares what must not have changed.
    pub facts: Option<Facts>,
}

/// What a look saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What follows.
    pub verdict: Verdict,
    /// What was seen; at most [`MAX_FACTS`] are kept.
    pub facts: Facts,
}

/// Whether the sealed secret is still the real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Same,
    /// It is not, and this shows it.
    Diverged(String),
    /// The credential is not at the target any more, or not yet.
    Absent,
    /// There is nothing to see, and this is why.
    NotObservable(String),
}

impl Sight {
    /// There is nothing to see.
    pub fn not_observable(why: &str) -> Self {
        Self {
            verdict: Verdict::NotObservable(why.to_owned()),
            facts: Facts::new(),
        }
    }

    /// These facts, which must be as they were when the secret was last proven.
    pub fn unchanged(facts: Facts, known: &Known) -> Self {
        let changed = known.facts.as_ref().and_then(|before| {
            let differs = |name: &&String| before.get(*name) != facts.get(*name);
            before.keys().chain(facts.keys()).find(differs)
        });
        let verdict = match changed {
            None => Verdict::Same,
            Some(name) => Verdict::Diverged(format!("{name} has changed since the last proof")),
        };
        Self { verdict, facts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn what_must_not_change_is_compared_with_what_was_seen_after_the_last_proof() {
        let diverged =
            |name: &str| Verdict::Diverged(format!("{name} has changed since the last proof"));
        for (name, before, seen, want) in [
            (
                "the first look",
                None,
                vec![("verifier", "a")],
                Verdict::Same,
            ),
            (
                "the same",
                Some(vec![("verifier", "a")]),
                vec![("verifier", "a")],
                Verdict::Same,
            ),
            (
                "another value",
                Some(vec![("verifier", "a")]),
                vec![("verifier", "b")],
                diverged("verifier"),
            ),
            (
                "gone",
                Some(vec![("verifier", "a")]),
                vec![],
                diverged("verifier"),
            ),
            ("come", Some(vec![]), vec![("mfa", "on")], diverged("mfa")),
        ] {
            let known = Known {
                facts: before.as_deref().map(facts),
                ..Known::default()
            };
            assert_eq!(
                Sight::unchanged(facts(&seen), &known).verdict,
                want,
                "{name}"
            );
        }
    }
}
