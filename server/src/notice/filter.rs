//! What a notifier wants to hear.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Kind, Severity};

/// Kinds and severities; by default everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The least severity.
    pub least: Severity,
    /// These kinds; none: all.
    pub kinds: Option<BTreeSet<KindPattern>>,
}

impl Filter {
    /// Whether such a notice is for this notifier. A test is for everybody.
    pub fn takes(&self, kind: Kind, severity: Severity) -> bool {
        let of_kind = |kinds: &BTreeSet<KindPattern>| kinds.iter().any(|one| one.covers(kind));
        kind == Kind::Test || (severity >= self.least && self.kinds.as_ref().is_none_or(of_kind))
    }
}

/// A kind, like `unseal.released`, or all of a family, like `unseal.*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct KindPattern(String);

impl KindPattern {
    fn covers(&self, kind: Kind) -> bool {
        match self.0.strip_suffix('*') {
            Some(family) => kind.name().starts_with(family),
            None => kind.name() == self.0,
        }
    }
}

impl TryFrom<String> for KindPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pattern = Self(text);
        let family = pattern
            .0
            .strip_suffix('*')
            .is_none_or(|family| family.ends_with('.'));
        if family && Kind::ALL.iter().any(|kind| pattern.covers(*kind)) {
            Ok(pattern)
        } else {
            Err(format!(
                "`{}` is no kind of notice; write one like `unseal.released`, or `unseal.*`",
                pattern.0
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(least: Severity, kinds: &[&str]) -> Filter {
        let kinds = kinds
            .iter()
            .map(|one| (*one).to_owned().try_into().unwrap());
        let kinds: BTreeSet<KindPattern> = kinds.collect();
        Filter {
            least,
            kinds: (!kinds.is_empty()).then_some(kinds),
        }
    }

    #[test]
    fn notifiers_hear_what_they_want() {
        use Severity::{Alert, Info, Warning};
        for (name, filter, kind, severity, want) in [
            (
                "everything",
                Filter::default(),
                Kind::RotationDone,
                Info,
                true,
            ),
            (
                "too slight",
                filter(Warning, &[]),
                Kind::RotationDone,
                Info,
                false,
            ),
            (
                "as severe",
                filter(Warning, &[]),
                Kind::RotationDone,
                Warning,
                true,
            ),
            (
                "more severe",
                filter(Warning, &[]),
                Kind::RotationDone,
                Alert,
                true,
            ),
            (
                "its kind",
                filter(Info, &["unseal.released"]),
                Kind::UnsealReleased,
                Info,
                true,
            ),
            (
                "another",
                filter(Info, &["unseal.released"]),
                Kind::UnsealFailed,
                Info,
                false,
            ),
            (
                "its family",
                filter(Info, &["unseal.*"]),
                Kind::UnsealFailed,
                Info,
                true,
            ),
            (
                "another family",
                filter(Info, &["unseal.*"]),
                Kind::RotationDone,
                Alert,
                false,
            ),
            (
                "one of two",
                filter(Info, &["unseal.*", "rotation.done"]),
                Kind::RotationDone,
                Info,
                true,
            ),
            (
                "a test",
                filter(Alert, &["unseal.*"]),
                Kind::Test,
                Info,
                true,
            ),
        ] {
            assert_eq!(filter.takes(kind, severity), want, "{name}");
        }
        for wrong in [
            "",
            "*",
            "unseal*",
            "unseal",
            "unseal.",
            "un.*",
            "unseal.opened",
        ] {
            assert!(KindPattern::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
