//! Names and one-line values, parsed once.
//!
//! # Invariants
//! 1. A name has only the characters `a`–`z`, `0`–`9`, `-`, `_`, `.`, begins and ends with a letter
//!    or digit, and has no two signs in a row. So no name hides a character, is a path of its own,
//!    or differs from another in case or normal form only.
//! 2. Names that still look alike (`db1` and `dbl`, `corn` and `com`) have one [`skeleton`];
//!    whoever keeps a list of names refuses two of one skeleton.
//! 3. A [`Line`] shows all that it holds: NFC, no control, format, separator or blank characters
//!    but single spaces inside.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use unicode_normalization::is_nfc;

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// The longest origin, in bytes.
pub const MAX_ORIGIN_BYTES: usize = 128;
/// The longest credential path, in bytes.
pub const MAX_PATH_BYTES: usize = 256;
/// The most segments of an origin or a path.
pub const MAX_SEGMENTS: usize = 8;
/// The longest value of a line of a signed text, in bytes of UTF-8.
pub const MAX_LINE_BYTES: usize = 500;
/// The longest name that a target gives a key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Why something is not a name, a path or a line.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("it is longer than {max} bytes")]
    TooLong {
        /// Bytes that it may have.
        max: usize,
    },
    /// A character that names do not have.
    #[error("names have only the characters a-z, 0-9, '-', '_' and '.'")]
    Character,
    /// A sign at an end or after another sign.
    #[error(
        "each part of a name begins and ends with a letter or digit and has no two signs in a row"
    )]
    Sign,
    /// Too many parts between slashes.
    #[error("it has more than {MAX_SEGMENTS} parts between slashes")]
    Segments,
    /// A credential path of one part.
    #[error("a path has at least two parts, like postgres/prod")]
    OneSegment,
    /// A line that is only `-`, which stands for an empty one.
    #[error("a single '-' stands for nothing")]
    Dash,
    /// A character that is not seen, or is seen as another.
    #[error("it has a character that cannot be seen (U+{code:04X})")]
    Hidden {
        /// The code point.
        code: u32,
    },
    /// Blanks at an end or two in a row.
    #[error("it begins or ends with a blank, or has two in a row")]
    Blanks,
    /// Text that is not in normal form C.
    #[error("it is not in Unicode normal form C")]
    NotNfc,
}

/// One part of a name.
fn check_segment(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong {
            max: MAX_NAME_BYTES,
        });
    }
    let mut after_sign = true;
    for byte in text.bytes() {
        let sign = matches!(byte, b'-' | b'_' | b'.');
        if !(sign || byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(NameError::Character);
        }
        if sign && after_sign {
            return Err(NameError::Sign);
        }
        after_sign = sign;
    }
    if after_sign {
        Err(NameError::Sign)
    } else {
        Ok(())
    }
}

/// Parts with slashes between them.
fn check_segments(text: &str, max: usize) -> Result<(), NameError> {
    if text.len() > max {
        return Err(NameError::TooLong { max });
    }
    if text.split('/').count() > MAX_SEGMENTS {
        return Err(NameError::Segments);
    }
    text.split('/').try_for_each(check_segment)
}

fn check_origin(text: &str) -> Result<(), NameError> {
    check_segments(text, MAX_ORIGIN_BYTES)
}

fn check_path(text: &str) -> Result<(), NameError> {
    check_segments(text, MAX_PATH_BYTES)?;
    if text.contains('/') {
        Ok(())
    } else {
        Err(NameError::OneSegment)
    }
}

/// What a hasty reader sees of a name: two names of one skeleton are refused side by side.
pub fn skeleton(name: &str) -> String {
    name.replace("rn", "m")
        .replace("vv", "w")
        .replace('0', "o")
        .replace('1', "l")
        .replace(['_', '.'], "-")
}

/// Ranges of code points that a line does not have, beyond controls, in ascending order.
///
/// Format characters (Cf), line and paragraph separators, blanks other than U+0020, what is drawn
/// as nothing (`Default_Ignorable_Code_Point`), variation selectors, interlinear and object marks,
/// private use and noncharacters. The list is part of the format, so that no version of Unicode
/// changes what is accepted.
const HIDDEN: &[(u32, u32)] = &[
    (0x00A0, 0x00A0),
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x1680, 0x1680),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x206F),
    (0x2800, 0x2800),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xE000, 0xF8FF),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0x1FFFE, 0x1FFFF),
    (0x2FFFE, 0x2FFFF),
    (0x3FFFE, 0x0010_FFFF),
];

fn hidden(character: char) -> bool {
    let code = u32::from(character);
    character.is_control()
        || HIDDEN
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&code))
}

fn check_line(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_LINE_BYTES {
        return Err(NameError::TooLong {
            max: MAX_LINE_BYTES,
        });
    }
    if text == "-" {
        return Err(NameError::Dash);
    }
    if let Some(character) = text.chars().find(|character| hidden(*character)) {
        return Err(NameError::Hidden {
            code: u32::from(character),
        });
    }
    if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err(NameError::Blanks);
    }
    if is_nfc(text) {
        Ok(())
    } else {
        Err(NameError::NotNfc)
    }
}

fn check_key(text: &str) -> Result<(), NameError> {
    if text.len() > MAX_KEY_BYTES {
        return Err(NameError::TooLong { max: MAX_KEY_BYTES });
    }
    check_line(text)
}

macro_rules! parsed {
    ($($(#[$doc:meta])* $name:ident by $check:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $check(text).map(|()| Self(text.into()))
            }
        }

        crate::jcs::as_string!($name);
    )*};
}

parsed! {
    /// What a target calls one of several keys of a credential, like `AKIAIOSFODNN7EXAMPLE`: a line,
    /// never secret.
    KeyId by check_key;
    /// The name of a vault, of its log and of its log key, like `vault.example.org/prod`.
    Origin by check_origin;
    /// Where a credential is found, like `aws/123456789012/root`: two to eight names with slashes
    /// between them, in the order in which people look for it.
    CredentialPath by check_path;
    /// The name by which people know a person, like `bob`.
    PersonName by check_segment;
    /// The name of a group of custodians.
    GroupName by check_segment;
    /// The name of a policy.
    PolicyName by check_segment;
    /// The name of a scenario, like `idp-outage`.
    ScenarioName by check_segment;
    /// Any other name: of a device, a team, a setting, a connector, a notice.
    Name by check_segment;
    /// One line of text by a person: 1 to 500 bytes that show all that they hold.
    Line by check_line;
}

impl CredentialPath {
    /// What a hasty reader sees of the path; two paths of one skeleton are refused side by side.
    pub fn skeleton(&self) -> String {
        skeleton(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for (text, want) in [
            ("a", Ok(())),
            ("bob", Ok(())),
            ("bob-2.ops_team", Ok(())),
            ("0", Ok(())),
            (&long[1..], Ok(())),
            ("", Err(NameError::Empty)),
            (long.as_str(), Err(NameError::TooLong { max: 64 })),
            ("Bob", Err(NameError::Character)),
            ("b ob", Err(NameError::Character)),
            ("bób", Err(NameError::Character)),
            ("bоb", Err(NameError::Character)), // a Cyrillic о
            ("bob\n", Err(NameError::Character)),
            ("a/b", Err(NameError::Character)),
            ("-bob", Err(NameError::Sign)),
            ("bob.", Err(NameError::Sign)),
            ("b..ob", Err(NameError::Sign)),
            ("b-_ob", Err(NameError::Sign)),
        ] {
            assert_eq!(text.parse::<PersonName>().map(drop), want, "{text:?}");
        }
    }

    #[test]
    fn paths_are_names_between_slashes() {
        let long = format!("{0}/{0}/{0}/{0}/a", "a".repeat(63));
        for (text, want) in [
            ("aws/123456789012/root", Ok(())),
            ("a/b/c/d/e/f/g/h", Ok(())),
            ("a/b/c/d/e/f/g/h/i", Err(NameError::Segments)),
            (&long[..255], Ok(())),
            (&long[..256], Err(NameError::Empty)),
            (long.as_str(), Err(NameError::TooLong { max: 256 })),
            ("root", Err(NameError::OneSegment)),
            ("/aws/root", Err(NameError::Empty)),
            ("aws//root", Err(NameError::Empty)),
            ("aws/", Err(NameError::Empty)),
            ("aws/../root", Err(NameError::Sign)),
            ("aws/./root", Err(NameError::Sign)),
            ("AWS/root", Err(NameError::Character)),
            ("aws\\root/x", Err(NameError::Character)),
        ] {
            assert_eq!(text.parse::<CredentialPath>().map(drop), want, "{text:?}");
        }
        assert_eq!(
            "vault.example.org".parse::<Origin>().map(drop),
            Ok(()),
            "one part is an origin"
        );
    }

    #[test]
    fn look_alikes_share_a_skeleton() {
        for (one, other, alike) in [
            ("db1", "dbl", true),
            ("r0ot", "root", true),
            ("corn", "com", true),
            ("vvest", "west", true),
            ("a-b", "a.b", true),
            ("a_b", "a.b", true),
            ("alice", "bob", false),
            ("web-1", "web-2", false),
        ] {
            assert_eq!(skeleton(one) == skeleton(other), alike, "{one} and {other}");
        }
    }

    #[test]
    fn lines_show_all_that_they_hold() {
        let hidden = |code| Err(NameError::Hidden { code });
        let long = "ä".repeat(MAX_LINE_BYTES / 2);
        for (text, want) in [
            ("IdP down, nobody can sign in", Ok(())),
            ("Zürich – 東京 🔑 שלום", Ok(())),
            ("--", Ok(())),
            ("a: b", Ok(())),
            (long.as_str(), Ok(())),
            (&format!("{long}x"), Err(NameError::TooLong { max: 500 })),
            ("", Err(NameError::Empty)),
            ("-", Err(NameError::Dash)),
            (" a", Err(NameError::Blanks)),
            ("a ", Err(NameError::Blanks)),
            ("a  b", Err(NameError::Blanks)),
            ("a\nb", hidden(0x0A)),
            ("a\rb", hidden(0x0D)),
            ("a\tb", hidden(0x09)),
            ("a\0b", hidden(0)),
            ("a\u{7f}b", hidden(0x7F)),
            ("a\u{85}b", hidden(0x85)),
            ("a\u{a0}b", hidden(0xA0)),
            ("a\u{ad}b", hidden(0xAD)),
            ("a\u{200b}b", hidden(0x200B)),
            ("a\u{202e}b", hidden(0x202E)),
            ("a\u{2028}b", hidden(0x2028)),
            ("a\u{2066}b", hidden(0x2066)),
            ("a\u{feff}b", hidden(0xFEFF)),
            ("a\u{e0041}b", hidden(0xE0041)),
            ("a\u{e000}b", hidden(0xE000)),
            ("e\u{301}", Err(NameError::NotNfc)),
            ("\u{212b}", Err(NameError::NotNfc)), // the Ångström sign
        ] {
            assert_eq!(text.parse::<Line>().map(drop), want, "{text:?}");
        }
    }

    #[test]
    fn the_table_of_hidden_characters_ascends() {
        assert!(HIDDEN.iter().all(|(from, to)| from <= to));
        assert!(HIDDEN.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}
