//! Tokens behind one trait, and verification of what they sign and attest.
//!
//! A token holds two keys of a person: the approval key, which signs texts, and the share key, to which shares are
//! encrypted. The daemon needs only [`approval`] and [`attestation`]; nothing here links PC/SC.

#![forbid(unsafe_code)]

pub mod approval;
pub mod attestation;
pub mod error;
mod pem;

pub use approval::{ApprovalKey, BadSignature, verify};
pub use error::TokenError;
