//! What a request is for, with its subject: two lines of the request.

use std::fmt;

use crate::digest::Digest;
use crate::id::{CeremonyId, CredentialId};
use crate::reference::{CharterRef, Head, or_dash, parts};
use crate::time::Stamp;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Deliver secrets to the requester.
    Unseal,
    /// The same with canaries only, marked as a drill.
    Drill,
    /// Seal what is opened anew, to this charter; deliver nothing.
    Reshare(CharterRef),
    /// Put another document in force.
    Change(Change),
    /// Lengthen a check-out.
    Extend {
        /// The ceremony that opened it.
        checkout: CeremonyId,
        /// Its new end.
        until: Stamp,
    },
    /// Go on with a restored log.
    AcceptRestore(Restore),
    /// Delete the details of a ceremony.
    Erase {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The digest of its details.
        details: Digest,
    },
}

/// The document that a change puts in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The next charter.
    Charter(CharterRef),
    /// The next definition of a credential.
    Definition {
        /// The credential.
        credential: CredentialId,
        /// The digest of the definition in force.
        old: Digest,
        /// The digest of the next one.
        new: Digest,
    },
}

/// What an `accept-restore` agrees to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The log as restored.
    pub head: Head,
    /// The newest log that anybody knows to have been lost.
    pub lost: Option<Head>,
    /// The fingerprint of a new log key.
    pub log_key: Option<Digest>,
    /// The SHA-256 of a new node key.
    pub node_key: Option<Digest>,
    /// The digest of the `restore` document: new keys whole, and what was found in the sinks.
    pub documents: Digest,
}

impl Purpose {
    /// Its name in texts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unseal => "unseal",
            Self::Drill => "drill",
            Self::Reshare(_) => "reshare",
            Self::Change(_) => "change",
            Self::Extend { .. } => "extend",
            Self::AcceptRestore(_) => "accept-restore",
            Self::Erase { .. } => "erase",
        }
    }

    /// Are shares combined?
    pub const fn opens(&self) -> bool {
        matches!(self, Self::Unseal | Self::Drill | Self::Reshare(_))
    }

    /// Does the requester get a secret?
    pub const fn delivers(&self) -> bool {
        matches!(self, Self::Unseal | Self::Drill)
    }

    /// The line `subject`.
    pub fn subject(&self) -> String {
        match self {
            Self::Unseal | Self::Drill => "-".to_owned(),
            Self::Reshare(charter) | Self::Change(Change::Charter(charter)) => {
                format!("charter {charter}")
            }
            Self::Change(Change::Definition {
                credential,
                old,
                new,
            }) => {
                format!("definition {credential} {old} {new}")
            }
            Self::Extend { checkout, until } => format!("checkout {checkout} until {until}"),
            Self::AcceptRestore(restore) => restore.to_string(),
            Self::Erase { ceremony, details } => format!("{ceremony} {details}"),
        }
    }

    /// The purpose of these two lines.
    pub(crate) fn read(purpose: &str, subject: &str) -> Option<Self> {
        let charter = || subject.strip_prefix("charter ")?.parse::<CharterRef>().ok();
        Some(match purpose {
            "unseal" if subject == "-" => Self::Unseal,
            "drill" if subject == "-" => Self::Drill,
            "reshare" => Self::Reshare(charter()?),
            "change" => Self::Change(match charter() {
                Some(charter) => Change::Charter(charter),
                None => Change::read_definition(subject)?,
            }),
            "extend" => {
                let ["checkout", checkout, "until", until] = parts(subject)? else {
                    return None;
                };
                Self::Extend {
                    checkout: checkout.parse().ok()?,
                    until: until.parse().ok()?,
                }
            }
            "accept-restore" => Self::AcceptRestore(Restore::read(subject)?),
            "erase" => {
                let [ceremony, details] = parts(subject)?;
                Self::Erase {
                    ceremony: ceremony.parse().ok()?,
                    details: details.parse().ok()?,
                }
            }
            _ => return None,
        })
    }
}

/// The names of all purposes.
pub(crate) const PURPOSES: [&str; 7] = [
    "unseal",
    "drill",
    "reshare",
    "change",
    "extend",
    "accept-restore",
    "erase",
];

impl Change {
    fn read_definition(subject: &str) -> Option<Self> {
        let ["definition", credential, old, new] = parts(subject)? else {
            return None;
        };
        Some(Self::Definition {
            credential: credential.parse().ok()?,
            old: old.parse().ok()?,
            new: new.parse().ok()?,
        })
    }
}

impl Restore {
    fn read(subject: &str) -> Option<Self> {
        let [
            "head",
            size,
            root,
            "lost",
            lost_size,
            lost_root,
            "log-key",
            log_key,
            "node-key",
            node_key,
            "documents",
            documents,
        ] = parts(subject)?
        else {
            return None;
        };
        let digest = |text: &str| match text {
            "-" => Ok(None),
            digest => digest.parse().map(Some),
        };
        Some(Self {
            head: format!("{size} {root}").parse().ok()?,
            lost: match (lost_size, lost_root) {
                ("-", "-") => None,
                _ => Some(format!("{lost_size} {lost_root}").parse().ok()?),
            },
            log_key: digest(log_key).ok()?,
            node_key: digest(node_key).ok()?,
            documents: documents.parse().ok()?,
        })
    }
}

impl fmt::Display for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "head {} lost ", self.head)?;
        match &self.lost {
            None => f.write_str("- -")?,
            Some(lost) => write!(f, "{lost}")?,
        }
        write!(
            f,
            " log-key {} node-key {} documents {}",
            or_dash(self.log_key.as_ref()),
            or_dash(self.node_key.as_ref()),
            self.documents
        )
    }
}
