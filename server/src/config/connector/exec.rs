//! `kind = "exec"`: a program of the operator's own.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SecretRules;
use crate::config::{AbsolutePath, Within};

/// A program that speaks JSON on its standard input and output.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program; it is started directly, without a shell.
    pub command: AbsolutePath,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// The only variables in its environment besides `PATH` and `LANG`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// It is killed after this time.
    #[serde(default)]
    pub deadline_secs: Within<1, 600, 60>,
    /// What the target holds.
    #[serde(default)]
    pub slots: Slots,
    /// How many keys a target with two slots holds at most.
    #[serde(default)]
    pub quota: Within<2, 16, 2>,
    /// How long a target with two slots takes until all of it knows of a change.
    #[serde(default)]
    pub settle_secs: Within<0, 300, 15>,
    /// What the secrets that it sets look like; where the target makes them, these say nothing.
    #[serde(default)]
    pub rules: SecretRules,
}

/// What a target holds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Slots {
    /// One secret, which is overwritten.
    #[default]
    One,
    /// Several keys at a time, whose secrets it makes.
    Two,
}
