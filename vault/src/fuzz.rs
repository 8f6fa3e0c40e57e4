//! Fuzz targets: each takes arbitrary bytes and must neither panic nor accept what it would not write again.
//!
//! Plain functions, so that a fuzzer and the tests run the same ones. `testdata/` has the seeds.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::Value;

use crate::charter::{Charter, Firmware, Network, diff, touched_groups};
use crate::definition::Definition;
use crate::digest::Digest;
use crate::event::Event;
use crate::file::{EnrolmentFile, Welcome};
use crate::id::PersonId;
use crate::jcs::Document;
use crate::key::{PublicKey, ShareKey, VerifierKey};
use crate::layout::Place;
use crate::manifest::Manifest;
use crate::name::{CredentialPath, Line, Name, Origin};
use crate::reference::{CharterRef, Head, PersonRef, TokenRef, Version};
use crate::restore::RestoreDocument;
use crate::text::{
    Approval, Checkin, Details, Enrol, Heartbeat, Join, NewDevice, Recover, Request, Review,
    SubmitKey, Text,
};
use crate::time::{Span, Stamp, Time};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by name: signed texts, documents, drafts, values.
pub const TARGETS: [(&str, Target); 38] = [
    ("request", text::<Request>),
    ("approval", text::<Approval>),
    ("details", text::<Details>),
    ("submit-key", text::<SubmitKey>),
    ("checkin", text::<Checkin>),
    ("enrol", text::<Enrol>),
    ("join", text::<Join>),
    ("device", text::<NewDevice>),
    ("heartbeat", text::<Heartbeat>),
    ("review", text::<Review>),
    ("recover", text::<Recover>),
    ("charter", charter),
    ("definition", document::<Definition>),
    ("manifest", document::<Manifest>),
    ("restore", document::<RestoreDocument>),
    ("charter-draft", draft::<Charter>),
    ("definition-draft", draft::<Definition>),
    ("id", value::<PersonId>),
    ("digest", value::<Digest>),
    ("name", value::<Name>),
    ("origin", value::<Origin>),
    ("path", value::<CredentialPath>),
    ("line", value::<Line>),
    ("time", value::<Time>),
    ("stamp", value::<Stamp>),
    ("span", value::<Span>),
    ("public-key", value::<PublicKey>),
    ("share-key", value::<ShareKey>),
    ("verifier-key", value::<VerifierKey>),
    ("network", value::<Network>),
    ("firmware", value::<Firmware>),
    ("version", value::<Version>),
    ("reference", reference),
    ("person-or-token", person_or_token),
    ("event", event),
    ("enrolment-file", enrolment_file),
    ("welcome-file", welcome_file),
    ("place", place),
];

fn value<T: FromStr + Display>(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(parsed) = text.parse::<T>()
    {
        assert_eq!(parsed.to_string(), text, "accepted what it would not write");
    }
}

fn reference(bytes: &[u8]) {
    value::<CharterRef>(bytes);
    value::<Head>(bytes);
}

fn person_or_token(bytes: &[u8]) {
    value::<PersonRef>(bytes);
    value::<TokenRef>(bytes);
}

/// The type and body of a log entry.
fn event(bytes: &[u8]) {
    if let Ok(entry) = serde_json::from_slice::<Value>(bytes)
        && let (Some(kind), Some(body)) = (entry.get("type"), entry.get("body"))
        && let Ok(event) = Event::parse(kind.as_str().unwrap_or_default(), body)
    {
        assert_eq!(event.body(), *body, "accepted what it would not write");
    }
}

/// Files for people: what is read is written so that it reads the same.
fn enrolment_file(bytes: &[u8]) {
    if let Ok(file) = EnrolmentFile::from_bytes(bytes) {
        let again = file.to_bytes().unwrap_or_default();
        assert_eq!(EnrolmentFile::from_bytes(&again).ok(), Some(file));
    }
}

fn welcome_file(bytes: &[u8]) {
    if let Ok(file) = Welcome::from_bytes(bytes) {
        // Whether its charter can be read is another question.
        file.charter().ok();
        let again = file.to_bytes().unwrap_or_default();
        assert_eq!(Welcome::from_bytes(&again).ok(), Some(file));
    }
}

/// A path in a place for copies.
fn place(bytes: &[u8]) {
    if let Ok(path) = str::from_utf8(bytes)
        && let Some(place) = Place::parse(path)
    {
        assert_eq!(place.to_string(), path, "two spellings of one place");
    }
}

fn text<T: Text>(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(parsed) = T::parse(text)
    {
        assert_eq!(parsed.to_text(), text, "accepted what it would not write");
    }
}

fn document<T: Document>(bytes: &[u8]) {
    if let Ok(parsed) = T::from_bytes(bytes) {
        let again = parsed.to_bytes().ok();
        assert_eq!(
            again.as_deref(),
            Some(bytes),
            "accepted what it would not write"
        );
    }
}

/// What a draft is read as has an encoding, which is read as the same.
fn draft<T: Document>(bytes: &[u8]) {
    if let Ok(parsed) = T::from_draft(bytes) {
        let encoded = parsed.to_bytes().unwrap_or_default();
        assert!(
            T::from_bytes(&encoded).is_ok(),
            "a draft that cannot be encoded"
        );
    }
}

/// A charter that is read can be judged and compared, valid or not.
fn charter(bytes: &[u8]) {
    document::<Charter>(bytes);
    if let Ok(charter) = Charter::from_bytes(bytes) {
        let valid = charter.validate().is_ok();
        assert!(
            diff(&charter, &charter).is_empty() && touched_groups(&charter, &charter).is_empty()
        );
        assert!(!valid || charter.governing().is_some());
        charter.warnings();
    }
}
