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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Something valid for each target, from the golden files.
    fn seed(target: &str) -> Vec<u8> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
        match target {
            "entry" => fs::read(golden.join("entry.json")).unwrap(),
            "bundle" => fs::read(golden.join("log/tile/entries/001.p/4")).unwrap(),
            "path" => b"tile/entries/x001/x234/067.p/8".to_vec(),
            "edge" => fs::read(golden.join("edge")).unwrap(),
            "note" => fs::read(golden.join("log/checkpoint")).unwrap(),
            "checkpoint" => {
                let note: Note = String::from_utf8(seed("note")).unwrap().parse().unwrap();
                note.text().as_bytes().to_vec()
            }
            "vkey" => fs::read(golden.join("log.vkey"))
                .unwrap()
                .trim_ascii_end()
                .to_vec(),
            "receipt" => fs::read(golden.join("receipt.tlog-proof")).unwrap(),
            other => panic!("no seed for {other}"),
        }
    }

    /// Small deterministic random numbers (xorshift).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let bound = u64::try_from(bound.max(1)).unwrap();
            usize::try_from(self.0.checked_rem(bound).unwrap()).unwrap()
        }

        /// One change: a bit, a byte that means something to some parser, a removal, a repetition, a move.
        fn mutate(&mut self, bytes: &mut Vec<u8>) {
            const TELLING: &[u8] = b"\n\0 \"\\{}[]:,.+-/=xpeE0159A\x7f\x80\xc3\xe2\xff";
            let at = self.below(bytes.len());
            let end = at.saturating_add(self.below(9)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = TELLING[self.below(TELLING.len())],
                2 => bytes.insert(at, TELLING[self.below(TELLING.len())]),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let part: Vec<_> = bytes.drain(at..end).collect();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, part);
                }
            }
        }
    }

    #[test]
    fn ten_thousand_mutations_of_every_seed_neither_panic_nor_pass_changed() {
        for (name, target) in TARGETS {
            let seed = seed(name);
            target(&seed);
            let mut random = Random(0x6b65_7974_7572_6e21);
            for _ in 0..10_000 {
                let mut bytes = seed.clone();
                for _ in 0..=random.below(4) {
                    random.mutate(&mut bytes);
                }
                target(&bytes);
            }
        }
    }

    #[test]
    fn the_seeds_are_accepted() {
        let text = |name| String::from_utf8(seed(name)).unwrap();
        assert!(Entry::decode(&seed("entry")).is_ok());
        assert!(Entries::new(&seed("bundle")).all(|entry| entry.is_ok()));
        assert!(text("path").parse::<TilePath>().is_ok());
        assert!(Edge::from_bytes(&seed("edge")).is_ok());
        assert!(text("note").parse::<Note>().is_ok());
        assert!(text("checkpoint").parse::<Checkpoint>().is_ok());
        assert!(text("vkey").parse::<Vkey>().is_ok());
        assert!(text("receipt").parse::<Receipt>().is_ok());
    }
}
