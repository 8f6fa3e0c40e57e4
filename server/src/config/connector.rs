//! `[connectors.NAME]`: the programs that change credentials at their targets.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize;

use super::{AbsolutePath, Within};
use crate::connector::generate::{self, Rules};

/// What changes a credential at its target. Only a connector that is named here runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum Connector {
    /// A program that speaks JSON on its standard input and output.
    Exec {
        /// The program; it is started directly, without a shell.
        command: AbsolutePath,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
        /// The only variables in its environment besides `PATH` and `LANG`.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// It is killed after this time.
        #[serde(default)]
        deadline_secs: Within<1, 600, 60>,
        /// What the secrets that it sets look like.
        #[serde(default)]
        rules: SecretRules,
    },
}

impl Connector {
    /// Its program.
    pub fn program(&self) -> &Path {
        match self {
            Self::Exec { command, .. } => command.as_ref(),
        }
    }

    pub(super) fn rules(&self) -> &SecretRules {
        match self {
            Self::Exec { rules, .. } => rules,
        }
    }
}

/// What a target demands of a password.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretRules {
    /// The number of characters.
    pub length: Within<8, 256, 32>,
    /// Classes of which each must occur; absent: all.
    pub classes: Option<BTreeSet<CharacterClass>>,
    /// The class `symbols`, where the target takes others than the usual ones.
    pub symbols: Option<String>,
    /// Characters that must not occur.
    pub forbidden: String,
}

/// A class of characters.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum CharacterClass {
    /// a to z.
    Lower,
    /// A to Z.
    Upper,
    /// 0 to 9.
    Digits,
    /// Punctuation.
    Symbols,
}

impl SecretRules {
    /// As the generator takes them.
    pub fn rules(&self) -> Rules {
        use CharacterClass::{Digits, Lower, Symbols, Upper};
        let all = [Lower, Upper, Digits, Symbols];
        let wanted = |class: &CharacterClass| {
            self.classes
                .as_ref()
                .is_none_or(|classes| classes.contains(class))
        };
        let characters = |class| match class {
            Lower => generate::LOWER.to_owned(),
            Upper => generate::UPPER.to_owned(),
            Digits => generate::DIGITS.to_owned(),
            Symbols => self
                .symbols
                .clone()
                .unwrap_or_else(|| generate::SYMBOLS.to_owned()),
        };
        Rules {
            length: self.length.size(),
            classes: all.into_iter().filter(wanted).map(characters).collect(),
            forbidden: self.forbidden.clone(),
        }
    }
}
