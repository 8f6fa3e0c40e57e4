//! `[connectors.NAME]`: what changes credentials at their targets, a module per kind.

mod aws;
mod exec;
mod ldap;
mod manual;
mod postgres;

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

pub use self::aws::{Account, Aws, AwsHost, AwsPassword, AwsRoot, Endpoint, Region, RoleArn};
pub use self::exec::{Exec, Slots};
pub use self::ldap::{Ldap, Security};
pub use self::manual::{Check, Guide, Manual};
pub use self::postgres::{Host, Postgres};
use super::Within;
use crate::generate::{self, Rules};

/// What changes a credential at its target. Only a connector that is named here runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Connector {
    /// A program that speaks JSON on its standard input and output.
    Exec(Exec),
    /// The console password of an IAM user.
    AwsIamPassword(AwsPassword),
    /// The access keys of an IAM user.
    AwsIamAccessKey(Aws),
    /// The virtual MFA device of an IAM user.
    AwsIamMfa(Aws),
    /// The root user of a member account.
    AwsRoot(AwsRoot),
    /// People.
    Manual(Manual),
    /// The passwords of roles of PostgreSQL.
    Postgres(Postgres),
    /// The passwords of entries in a directory.
    Ldap(Ldap),
}

impl Connector {
    /// What no single value can tell.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Postgres(postgres) => postgres.check()?,
            Self::Ldap(ldap) => ldap.check()?,
            Self::Exec(_)
            | Self::AwsIamPassword(_)
            | Self::AwsIamAccessKey(_)
            | Self::AwsIamMfa(_)
            | Self::AwsRoot(_)
            | Self::Manual(_) => {}
        }
        let rules = self.rules().map(|rules| rules.rules().generate());
        rules.map_or(Ok(()), |made| {
            made.map(drop)
                .map_err(|error| format!("its rules: {error}"))
        })
    }

    /// Its program, where it is one.
    pub fn program(&self) -> Option<&Path> {
        match self {
            Self::Exec(exec) => Some(exec.command.as_ref()),
            Self::Manual(manual) => manual.check.as_ref().map(Check::program),
            Self::AwsIamPassword(_)
            | Self::AwsIamAccessKey(_)
            | Self::AwsIamMfa(_)
            | Self::AwsRoot(_)
            | Self::Postgres(_)
            | Self::Ldap(_) => None,
        }
    }

    /// Whether it is people.
    pub(super) fn is_manual(&self) -> bool {
        matches!(self, Self::Manual(_))
    }

    /// What the secrets that it sets look like; none where the target makes them.
    fn rules(&self) -> Option<&SecretRules> {
        match self {
            Self::Exec(exec) => (exec.slots == Slots::One).then_some(&exec.rules),
            Self::AwsIamPassword(password) => Some(&password.rules),
            Self::Postgres(postgres) => Some(&postgres.rules),
            Self::Ldap(ldap) => Some(&ldap.rules),
            Self::AwsIamAccessKey(_) | Self::AwsIamMfa(_) | Self::AwsRoot(_) | Self::Manual(_) => {
                None
            }
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

impl CharacterClass {
    /// Its characters, where the target takes no others.
    pub fn characters(self) -> &'static str {
        match self {
            Self::Lower => generate::LOWER,
            Self::Upper => generate::UPPER,
            Self::Digits => generate::DIGITS,
            Self::Symbols => generate::SYMBOLS,
        }
    }
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
        let characters = |class: CharacterClass| match (&self.symbols, class) {
            (Some(symbols), Symbols) => symbols.clone(),
            _ => class.characters().to_owned(),
        };
        Rules {
            length: self.length.size(),
            classes: all.into_iter().filter(wanted).map(characters).collect(),
            forbidden: self.forbidden.clone(),
        }
    }
}
