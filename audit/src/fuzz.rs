//! Fuzz targets: each takes arbitrary bytes and must neither panic nor accept what it would not write again.
//!
//! Plain functions, so that a fuzzer and the tests run the same ones.

use std::{fmt::Display, str::FromStr};

use crate::{
    entry::Entry,
    note::{Checkpoint, Note, Vkey},
    proof::Receipt,
    tile::{Entries, TilePath, push_entry},
    tree::Edge,
};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("entry", entry),
    ("bundle", bundle),
    ("path", text::<TilePath>),
    ("edge", edge),
    ("note", text::<Note>),
    ("checkpoint", text::<Checkpoint>),
    ("vkey", text::<Vkey>),
    ("receipt", text::<Receipt>),
];

fn text<T: FromStr + Display>(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(parsed) = text.parse::<T>()
    {
        assert_eq!(parsed.to_string(), text, "accepted what it would not write");
    }
}

fn entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(
            entry.encode().ok().as_deref(),
            Some(bytes),
            "accepted what it would not write"
        );
    }
}

fn edge(bytes: &[u8]) {
    if let Ok(edge) = Edge::from_bytes(bytes) {
        assert_eq!(edge.to_bytes(), bytes, "accepted what it would not write");
        edge.root();
    }
}

fn bundle(bytes: &[u8]) {
    let mut again = Vec::new();
    for entry in Entries::new(bytes) {
        match entry {
            Ok(entry) => assert!(
                push_entry(&mut again, entry).is_ok(),
                "accepted a long entry"
            ),
            Err(_) => return,
        }
    }
    assert_eq!(again, bytes, "accepted what it would not write");
}
