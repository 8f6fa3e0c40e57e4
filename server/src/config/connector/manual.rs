//! `kind = "manual"`: people, who are reminded, guided and checked.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::exec::{Exec, Slots};
use crate::config::{AbsolutePath, Label, Within};

/// The most lines of a guide.
const MAX_LINES: usize = 32;
/// The longest line of a guide, in bytes.
const MAX_LINE: usize = 500;

/// What people do who change a secret by hand.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manual {
    /// Hours between two reminders, as long as the task is not done.
    #[serde(default)]
    pub remind_hours: Within<1, 720, 24>,
    /// From then on each reminder is an alert.
    #[serde(default)]
    pub escalate_hours: Within<1, 8760, 72>,
    /// What to do, line by line, by the name that a definition gives with `guide`.
    #[serde(default)]
    pub guides: BTreeMap<Label, Guide>,
    /// A program that looks whether the target was changed.
    #[serde(default)]
    pub check: Option<Check>,
}

/// What to do, line by line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Guide(Vec<String>);

impl AsRef<[String]> for Guide {
    fn as_ref(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Guide {
    type Error = String;

    fn try_from(lines: Vec<String>) -> Result<Self, String> {
        let fits = |line: &String| {
            (1..=MAX_LINE).contains(&line.len()) && !line.chars().any(char::is_control)
        };
        if (1..=MAX_LINES).contains(&lines.len()) && lines.iter().all(fits) {
            Ok(Self(lines))
        } else {
            Err(format!(
                "a guide has 1 to {MAX_LINES} lines of 1 to {MAX_LINE} bytes without control characters"
            ))
        }
    }
}

/// A program as the `exec` connector runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    command: AbsolutePath,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    deadline_secs: Within<1, 600, 60>,
}

impl Check {
    /// Its program.
    pub fn program(&self) -> &Path {
        self.command.as_ref()
    }

    /// The same as `exec` knows it.
    pub fn exec(&self) -> Exec {
        Exec {
            command: self.command.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            deadline_secs: self.deadline_secs,
            slots: Slots::One,
            quota: Within::default(),
            settle_secs: Within::default(),
            rules: super::SecretRules::default(),
        }
    }
}
