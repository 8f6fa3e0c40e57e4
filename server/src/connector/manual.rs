//! `manual`: people change the secret at the target. They are given a task, reminded of it, guided through
//! it, and checked where there is something to look at.
//!
//! # Invariants
//! 1. Nothing here changes a target, or holds a secret: who deposits seals it on their own computer.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use keyturn_vault::{
    definition::TWO_PEOPLE,
    time::{Span, Time},
};

use super::{About, Connector, Evidence, Failure, Known, Sight, Target, exec::Exec};
use crate::config;

/// The setting of a definition that names its guide.
const GUIDE: &str = "guide";
/// The time of a call that asks nobody.
const DEADLINE: Duration = Duration::from_mins(1);

/// People, and what this host knows to tell them.
#[derive(Clone, Debug)]
pub struct Manual {
    /// How long after a reminder the next one comes.
    pub remind: Span,
    /// How long after it became owed a task is overdue.
    pub escalate: Span,
    guides: BTreeMap<String, Vec<String>>,
    check: Option<Exec>,
}

impl Default for Manual {
    fn default() -> Self {
        Self::new(&config::Manual::default())
    }
}

impl Manual {
    /// By a configuration.
    pub fn new(config: &config::Manual) -> Self {
        let hours = |hours: u32| Span::from_hours(hours.into());
        let guides = config.guides.iter().map(|(name, guide)| {
            let lines: &[String] = guide.as_ref();
            (name.as_ref().to_owned(), lines.to_vec())
        });
        Self {
            remind: hours(config.remind_hours.value()),
            escalate: hours(config.escalate_hours.value()),
            guides: guides.collect(),
            check: config.check.as_ref().map(|check| Exec::of(&check.exec())),
        }
    }

    /// What to do, line by line.
    pub fn guide(&self, target: &Target) -> &[String] {
        let guide = target.settings.get(GUIDE);
        guide
            .and_then(|name| self.guides.get(name))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether the target was changed since then; without a check nobody can say.
    pub async fn changed(&self, target: &Target, since: Time) -> Result<Evidence, Failure> {
        match &self.check {
            Some(check) => check.changed(target, since).await,
            None => Ok(Evidence::NotObservable),
        }
    }
}

#[async_trait]
impl Connector for Manual {
    fn about(&self) -> About {
        About {
            kind: "manual",
            fence: false,
            rights: &["none, besides those of its check: to look at the target"],
        }
    }

    fn deadline(&self) -> Duration {
        self.check.as_ref().map_or(DEADLINE, Connector::deadline)
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        match target.settings.get(TWO_PEOPLE).map(String::as_str) {
            None | Some("yes" | "no") => {}
            Some(other) => return Err(format!("`{TWO_PEOPLE}`: write yes or no, not {other:?}")),
        }
        match target.settings.get(GUIDE) {
            Some(guide) if !self.guides.contains_key(guide) => Err(format!(
                "`{GUIDE}`: this host has no guide {guide:?} in its table of the connector"
            )),
            _ => Ok(()),
        }
    }

    async fn check_self(&self) -> Result<String, Failure> {
        match &self.check {
            Some(check) => check.check_self().await,
            None => Ok("people; nothing is looked at".to_owned()),
        }
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        match &self.check {
            Some(check) => check.check(target).await,
            None => Ok(()),
        }
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        match &self.check {
            Some(check) => check.probe(target, known).await,
            None => Ok(Sight::not_observable(
                "people change it, and it has no check",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(settings: &[(&str, &str)]) -> Target {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Target {
            credential: "01HX0000000000000000000000".into(),
            path: "aws/root".into(),
            kind: "aws-root".into(),
            metadata: BTreeMap::new(),
            settings: settings.iter().map(pair).collect(),
        }
    }

    #[tokio::test]
    async fn a_definition_names_a_guide_of_this_host_and_a_check_says_what_it_saw() {
        let table = r#"
            remind_hours = 12
            [guides]
            aws = ["sign in", "change it"]
            [check]
            command = "/bin/sh"
            args = ["-c", "case $(cat) in *'\"action\":\"changed\"'*'\"since\":\"2026-11-21T02:17:00Z\"'*) echo '{\"outcome\":\"done\",\"evidence\":\"changed at noon\"}';; *) echo '{\"outcome\":\"refused\",\"message\":\"as before\"}';; esac"]
        "#;
        let manual = Manual::new(&toml::from_str(table).unwrap());
        assert_eq!(
            (manual.remind, manual.escalate),
            (Span::from_hours(12), Span::from_hours(72))
        );
        for (name, settings, guide, problem) in [
            ("nothing said", vec![], 0, ""),
            (
                "its guide",
                vec![("guide", "aws"), ("two-people", "yes")],
                2,
                "",
            ),
            ("no such guide", vec![("guide", "gcp")], 0, "no guide"),
            (
                "neither yes nor no",
                vec![("two-people", "maybe")],
                0,
                "yes or no",
            ),
        ] {
            let target = target(&settings);
            assert_eq!(manual.guide(&target).len(), guide, "{name}");
            let said = manual.check_settings(&target).err().unwrap_or_default();
            assert_eq!(said.is_empty(), problem.is_empty(), "{name}: {said}");
            assert!(said.contains(problem), "{name}: {said}");
        }
        let since = |text: &str| text.parse::<keyturn_vault::time::Stamp>().unwrap().time();
        for (since, want) in [
            (
                since("2026-11-21T02:17:00Z"),
                Ok(Evidence::Shown("changed at noon".into())),
            ),
            (
                since("2026-11-22T02:17:00Z"),
                Err(Failure::Refused("as before".into())),
            ),
        ] {
            assert_eq!(manual.changed(&target(&[]), since).await, want);
        }
        let nobody = Manual::default();
        let changed = nobody.changed(&target(&[]), Time::from_ms(0)).await;
        assert_eq!(changed, Ok(Evidence::NotObservable));
    }
}
