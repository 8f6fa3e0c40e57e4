//! Refusals, counted per person and reason until the owner logs them: once a minute, one entry each.
//!
//! A person who is refused a thousand times a second makes one entry a minute and no more. Strangers have
//! no name to log; the metrics count them.
//!
//! # Invariants
//! 1. The table is bounded: persons of the charter times the reasons that there are.
//! 2. Only refusals by a rule of the vault are counted: they have a stable code and say who was refused what.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use keyturn_vault::{id::PersonId, refusal::Refusal};

/// The counts since they were last taken; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<(PersonId, Refusal), u64>>>);

impl Tally {
    /// Counts one refusal, if its code is one of the vault's.
    pub fn count(&self, person: PersonId, code: &str) {
        if let Ok(refusal) = code.parse() {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry((person, refusal)).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Takes the counts.
    pub fn take(&self) -> Vec<(PersonId, Refusal, u64)> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let counts = counts.into_iter();
        counts
            .map(|((person, refusal), count)| (person, refusal, count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use keyturn_vault::time::Time;

    use super::*;

    #[test]
    fn refusals_are_counted_by_person_and_reason() {
        let person = |n| PersonId::from_parts(Time::from_ms(n), [0; 10]);
        let tally = Tally::default();
        for (who, code) in [
            (1, "same-custodian"),
            (1, "same-custodian"),
            (2, "same-custodian"),
            (1, "wrong-share"),
            (1, "malformed"),
            (1, "no-such-code"),
        ] {
            tally.count(person(who), code);
        }
        let want = [
            (person(1), Refusal::SameCustodian, 2),
            (person(1), Refusal::WrongShare, 1),
            (person(2), Refusal::SameCustodian, 1),
        ];
        assert_eq!(tally.take(), want);
        assert_eq!(tally.take(), []);
    }
}
