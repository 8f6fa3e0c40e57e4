//! The whole memory of a running daemon, searched for bytes in every spelling they may have.
//!
//! The daemon makes itself unreadable for its own user soon after it starts. Its parent opens its
//! memory before that, in the moment after `exec`; what is open stays open.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};

use crate::harness::Outcome;

/// Read in pieces of this size, each with the end of the one before.
const PIECE: usize = 1 << 16;
static ZERO: [u8; PIECE] = [0; PIECE];
const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// A process's memory.
pub struct Memory {
    maps: File,
    mem: File,
}

/// A spelling of some bytes.
pub struct Pattern {
    /// Which spelling.
    pub name: String,
    /// What to look for.
    pub bytes: Vec<u8>,
}

/// The spellings of these bytes: raw, hex, base64 at each offset, bech32 (as in age's keys).
pub fn spellings(what: &str, bytes: &[u8]) -> Vec<Pattern> {
    let mut found = vec![
        ("raw", bytes.to_vec()),
        ("hex", hex::encode(bytes).into_bytes()),
        ("HEX", hex::encode_upper(bytes).into_bytes()),
        ("bech32", bech32(bytes)),
        ("BECH32", bech32(bytes).to_ascii_uppercase()),
    ];
    for (name, before) in [("base64", 0_usize), ("base64+1", 1), ("base64+2", 2)] {
        let padded = [&vec![0; before], bytes].concat();
        let text = BASE64_STANDARD_NO_PAD.encode(padded).into_bytes();
        // The first and the last characters also hold bits of what is beside them.
        let skip = if before == 0 {
            0
        } else {
            before.saturating_add(1)
        };
        let end = text.len().saturating_sub(2);
        found.push((name, text.get(skip..end).unwrap_or_default().to_vec()));
    }
    let pattern = |(spelling, bytes)| Pattern {
        name: format!("{what}, {spelling}"),
        bytes,
    };
    found.into_iter().map(pattern).collect()
}

/// Five bits a character, without prefix and checksum; the last character is left out, for it may be padded.
fn bech32(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in bytes {
        bits = (bits << 8 | u32::from(*byte)) & 0xffff;
        held = held.saturating_add(8);
        while held >= 5 {
            held = held.saturating_sub(5);
            let place = usize::try_from(bits >> held & 31).unwrap_or_default();
            text.extend(BECH32.get(place));
        }
    }
    text
}

/// The bytes of 52 characters of bech32, as after `AGE-SECRET-KEY-1`.
pub fn unbech32(text: &str) -> Vec<u8> {
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut bytes = Vec::new();
    for c in text.to_ascii_lowercase().bytes() {
        let place = BECH32.iter().position(|known| *known == c);
        let place = place.and_then(|place| u32::try_from(place).ok());
        bits = (bits << 5 | place.unwrap_or_default()) & 0xffff;
        held = held.saturating_add(5);
        if held >= 8 {
            held = held.saturating_sub(8);
            bytes.extend(u8::try_from(bits >> held & 255));
        }
    }
    bytes
}

impl Memory {
    /// Opens the memory of a process that has just been started.
    pub fn of(pid: u32) -> Outcome<Self> {
        Ok(Self {
            maps: File::open(format!("/proc/{pid}/maps"))?,
            mem: File::open(format!("/proc/{pid}/mem"))?,
        })
    }

    /// The names of the patterns that are anywhere in it.
    pub fn search(&mut self, patterns: &[Pattern]) -> Outcome<Vec<String>> {
        let mut maps = String::new();
        self.maps.seek(SeekFrom::Start(0))?;
        self.maps.read_to_string(&mut maps)?;
        let mut found = Vec::new();
        let mut searched = 0_u64;
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').ok_or("a line of maps")?;
            let (from, to) = range.split_once('-').ok_or("a range of maps")?;
            let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
            if rest.starts_with('r') && !line.ends_with("[vvar]") && !line.contains("[vsyscall]") {
                searched = searched.saturating_add(self.region(from, to, patterns, &mut found)?);
            }
        }
        if searched < 1 << 20 {
            return Err(format!("only {searched} bytes of memory could be read").into());
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn region(
        &mut self,
        from: u64,
        to: u64,
        patterns: &[Pattern],
        found: &mut Vec<String>,
    ) -> Outcome<u64> {
        let longest = patterns.iter().map(|pattern| pattern.bytes.len()).max();
        let (mut at, mut piece, mut read) = (from, Vec::new(), 0_u64);
        let mut new = vec![0; PIECE];
        while at < to {
            let want = usize::try_from(to.saturating_sub(at))
                .unwrap_or(PIECE)
                .min(PIECE);
            self.mem.seek(SeekFrom::Start(at))?;
            // A page that cannot be read, like one of a device, holds nothing of ours.
            let got = match self.mem.read(new.get_mut(..want).unwrap_or_default()) {
                Ok(got) if got > 0 => got,
                _ => break,
            };
            let new = new.get(..got).unwrap_or_default();
            piece.extend_from_slice(new);
            // Most of what is mapped was never touched.
            if new != ZERO.get(..got).unwrap_or_default() {
                look(&piece, patterns, found);
            }
            piece.drain(..piece.len().saturating_sub(longest.unwrap_or(0)));
            let got = u64::try_from(got)?;
            at = at.saturating_add(got);
            read = read.saturating_add(got);
        }
        Ok(read)
    }
}

/// Notes every pattern that is in the piece; one pass for all of them.
fn look(piece: &[u8], patterns: &[Pattern], found: &mut Vec<String>) {
    let mut begins = vec![false; 1 << 16];
    for pattern in patterns {
        if let [first, second, ..] = pattern.bytes.as_slice()
            && let Some(begin) = begins.get_mut(usize::from(u16::from_be_bytes([*first, *second])))
        {
            *begin = true;
        }
    }
    let mut two = 0_u16;
    for (end, byte) in piece.iter().enumerate() {
        two = two << 8 | u16::from(*byte);
        if begins.get(usize::from(two)) == Some(&true) {
            let rest = piece.get(end.saturating_sub(1)..).unwrap_or_default();
            let here = patterns
                .iter()
                .filter(|pattern| rest.starts_with(&pattern.bytes));
            found.extend(here.map(|pattern| pattern.name.clone()));
        }
    }
}
