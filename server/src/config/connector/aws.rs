//! `kind = "aws-…"`: how this host reaches AWS.

use std::time::Duration;

use serde::Deserialize;

use super::{CharacterClass, SecretRules};
use crate::{
    config::{AbsolutePath, Within},
    generate::Rules,
};

/// The symbols that the password policy of an account counts as such, without those that shells and URLs
/// choke on.
const SYMBOLS: &str = "!#%+-=@^_";

/// What every connector of AWS needs to know of its host.
#[derive(Clone, Debug)]
pub struct AwsHost {
    /// The region whose endpoints are called.
    pub region: Region,
    /// Another endpoint than AWS's own: a VPC endpoint, or a simulator.
    pub endpoint: Option<Endpoint>,
    /// A role that is assumed with the platform's credentials, in the account of the credentials to rotate.
    pub role_arn: Option<RoleArn>,
    /// A shared credentials file whose `[default]` is used instead of the platform's chain, like a systemd
    /// credential.
    pub credentials_file: Option<AbsolutePath>,
    /// The time of one call.
    pub deadline: Duration,
}

/// A table of the configuration: what [`AwsHost`] has, and what is the kind's own.
macro_rules! tables {
    ($($(#[$doc:meta])* $kind:ident { $($(#[$attr:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $kind {
            region: Region,
            #[serde(default)]
            endpoint: Option<Endpoint>,
            #[serde(default)]
            role_arn: Option<RoleArn>,
            #[serde(default)]
            credentials_file: Option<AbsolutePath>,
            #[serde(default)]
            deadline_secs: Within<2, 300, 30>,
            $($(#[$attr])* pub $field: $type,)*
        }

        impl $kind {
            /// What it says of the host.
            pub fn host(&self) -> AwsHost {
                AwsHost {
                    region: self.region.clone(),
                    endpoint: self.endpoint.clone(),
                    role_arn: self.role_arn.clone(),
                    credentials_file: self.credentials_file.clone(),
                    deadline: self.deadline_secs.secs(),
                }
            }
        }
    )*};
}

tables! {
    /// IAM users by access key or MFA device, whose secrets AWS makes.
    Aws {}
    /// IAM users by password.
    AwsPassword {
        /// What new passwords look like, beside what the account's policy demands.
        #[serde(default)]
        rules: SecretRules,
    }
    /// The root users of member accounts.
    AwsRoot {
        /// The management account, so that a definition of its root is refused before anything is asked.
        #[serde(default)]
        management_account: Option<Account>,
    }
}

impl AwsPassword {
    /// The rules, with the symbols that AWS counts.
    pub fn rules(&self) -> Rules {
        let mut rules = self.rules.clone();
        rules.symbols.get_or_insert_with(|| SYMBOLS.to_owned());
        rules.rules()
    }

    /// A class of characters, as a password policy means it.
    pub fn class(class: CharacterClass) -> String {
        match class {
            CharacterClass::Symbols => SYMBOLS.to_owned(),
            CharacterClass::Lower | CharacterClass::Upper | CharacterClass::Digits => {
                class.characters().to_owned()
            }
        }
    }
}

macro_rules! text {
    ($($(#[$doc:meta])* $name:ident: $fits:expr, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) {
                    Ok(Self(text))
                } else {
                    Err(format!(concat!("{:?} is not ", $what), text))
                }
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

text! {
    /// A region, like `eu-central-1`.
    Region: |text| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    }, "a region; write it like eu-central-1";
    /// An address of AWS's APIs, like `https://vpce-0123.iam.vpce.amazonaws.com`.
    Endpoint: |text| {
        text.len() <= 500 && text.bytes().all(|byte| byte.is_ascii_graphic())
            && (text.starts_with("https://") || loopback(text))
    }, "an endpoint; write https://HOST, or http:// and a loopback address";
    /// A role, like `arn:aws:iam::123456789012:role/keyturn`.
    RoleArn: |text| {
        text.len() <= 500 && text.starts_with("arn:") && text.contains(":role/")
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    }, "a role; write it like arn:aws:iam::123456789012:role/keyturn";
    /// An account, like `123456789012`.
    Account: |text| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()),
        "an account; write its 12 digits";
}

/// Whether this is plain HTTP that does not leave the host.
fn loopback(text: &str) -> bool {
    ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"]
        .iter()
        .any(|host| text.starts_with(host))
}
