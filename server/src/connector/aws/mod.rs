//! The connectors of AWS: passwords, access keys and MFA devices of IAM users, and the root of member
//! accounts.
//!
//! AWS is called through its official SDK (`docs/decisions/aws-sdk.md`), with the credentials that the
//! platform gives: environment, shared file, web identity, container, instance. `platform` finds
//! them, `call` makes one call and says what its failure means, and a module per kind does the rest.
//!
//! # Invariants
//! 1. A call that changes something is sent once. Whether it was sent at all is seen where it leaves the
//!    SDK, so a failure before that is certain, and one after it is [`Failure::Unknown`] unless AWS itself
//!    said no.
//! 2. Nothing is changed in an account other than the one that the definition names: who we are is asked
//!    before each change.
//! 3. What AWS says about a call that carries a secret is never repeated, only its error code: its messages
//!    may quote what they refuse.
//! 4. Only what is named by the definition is ever deleted, and never a user, a role or a group.
//!
//! [`Failure::Unknown`]: super::Failure::Unknown

mod access_key;
mod call;
mod mfa;
mod password;
mod platform;
mod report;
mod root;
mod settings;
mod surroundings;
pub mod totp;

pub use self::{access_key::AccessKeys, mfa::Mfa, password::Passwords, root::Root};
