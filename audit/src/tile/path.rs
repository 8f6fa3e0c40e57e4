//! The paths of tiles and bundles.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::entry::MAX_ENTRY_BYTES;

/// Hashes in a full tile, entries in a full bundle.
pub const WIDTH: u16 = 256;
/// Bytes in a full tile.
pub const MAX_TILE_BYTES: usize = 8_192;
/// Bytes in the largest full bundle.
pub const MAX_BUNDLE_BYTES: usize = 256 * (2 + MAX_ENTRY_BYTES);
/// Highest level of a tile that a tree of [`MAX_SIZE`](crate::tree::MAX_SIZE) leaves has.
pub const MAX_LEVEL: u8 = 6;
/// Largest index of a tile: level 0 of the largest tree.
const MAX_INDEX: u64 = crate::tree::MAX_SIZE >> 8;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Hashes of the nodes of height 8 × level.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// The path of a tile or bundle: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    content: Content,
    index: u64,
    width: u16,
}

impl TilePath {
    /// The tile `index` of a level (or bundle) as it is in a tree of `size` leaves; nothing if it would be empty.
    pub fn new(content: Content, index: u64, size: u64) -> Option<Self> {
        let level = match content {
            Content::Hashes(level) => level,
            Content::Entries => 0,
        };
        let nodes = size
            .checked_shr(u32::from(level).checked_mul(8)?)
            .unwrap_or(0);
        let first = index.checked_mul(u64::from(WIDTH))?;
        let width = nodes.checked_sub(first)?.min(u64::from(WIDTH));
        let fits = width > 0 && level <= MAX_LEVEL && index <= MAX_INDEX;
        let width = u16::try_from(width).ok()?;
        fits.then_some(Self {
            content,
            index,
            width,
        })
    }

    /// What lies there.
    pub fn content(self) -> Content {
        self.content
    }

    /// Which one in its row, from 0.
    pub fn index(self) -> u64 {
        self.index
    }

    /// How many hashes or entries, 1 to [`WIDTH`].
    pub fn width(self) -> u16 {
        self.width
    }

    /// The path of the full tile at this place.
    #[must_use]
    pub fn full(self) -> Self {
        Self {
            width: WIDTH,
            ..self
        }
    }

    /// Most bytes that can lie there.
    pub fn limit(self) -> usize {
        match self.content {
            Content::Hashes(_) => MAX_TILE_BYTES,
            Content::Entries => MAX_BUNDLE_BYTES,
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        // Groups of three digits; all but the last bear an x, so that no file has the name of a directory.
        for unit in [1_000_000_000_000_u64, 1_000_000_000, 1_000_000, 1_000] {
            match self.index.checked_div(unit) {
                None | Some(0) => {}
                Some(group) => write!(f, "x{:03}/", group % 1000)?,
            }
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.width < WIDTH {
            write!(f, ".p/{}", self.width)
        } else {
            Ok(())
        }
    }
}

/// The text is not the path of a tile.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not the path of a tile or an entry bundle")]
pub struct PathError;

impl FromStr for TilePath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let rest = path.strip_prefix("tile/").ok_or(PathError)?;
        let (content, rest) = rest.split_once('/').ok_or(PathError)?;
        let content = match content {
            "entries" => Content::Entries,
            level => Content::Hashes(level.parse().map_err(|_| PathError)?),
        };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, width.parse().map_err(|_| PathError)?),
            None => (rest, WIDTH),
        };
        let digits: String = groups.split(['x', '/']).collect();
        let index = digits.parse().map_err(|_| PathError)?;
        let level_ok = !matches!(content, Content::Hashes(level) if level > MAX_LEVEL);
        let parsed = Self {
            content,
            index,
            width,
        };
        // One spelling (invariant 1): leading zeros, signs and misplaced marks do not survive printing.
        let fits = level_ok && index <= MAX_INDEX && (1..=WIDTH).contains(&width);
        if fits && parsed.to_string() == path {
            Ok(parsed)
        } else {
            Err(PathError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        let at = |content, index, width| TilePath {
            content,
            index,
            width,
        };
        for (text, path) in [
            ("tile/0/000", at(Content::Hashes(0), 0, 256)),
            ("tile/0/999", at(Content::Hashes(0), 999, 256)),
            ("tile/1/x001/000", at(Content::Hashes(1), 1_000, 256)),
            (
                "tile/0/x001/x234/067",
                at(Content::Hashes(0), 1_234_067, 256),
            ),
            (
                "tile/entries/x001/x234/067.p/8",
                at(Content::Entries, 1_234_067, 8),
            ),
            (
                "tile/entries/x001/x000/000",
                at(Content::Entries, 1_000_000, 256),
            ),
            ("tile/6/000.p/1", at(Content::Hashes(6), 0, 1)),
            ("tile/2/000.p/255", at(Content::Hashes(2), 0, 255)),
            (
                "tile/0/x035/x184/x372/x088/831",
                at(Content::Hashes(0), MAX_INDEX, 256),
            ),
        ] {
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse(), Ok(path), "{text}");
        }
        for text in [
            "",
            "tile/0/0",
            "tile/0/1000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/x1/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/08",
            "tile/0/000.p/+8",
            "tile/0/+00",
            "tile/00/000",
            "tile/+0/000",
            "tile/7/000",
            "tile/-1/000",
            "tile/data/000",
            "tile/entries/000/",
            "tile/entries/../../secret",
            "/tile/0/000",
            "tile/0/000 ",
            "tile/0/x035/x184/x372/x088/832",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(text.parse::<TilePath>(), Err(PathError), "{text}");
        }
    }
}
