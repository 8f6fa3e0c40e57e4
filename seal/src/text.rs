//! The one grammar of our secret texts: a type line, then `name: value` lines in a fixed order, each ended by LF.
//!
//! Envelopes, payloads, submissions and key files hold such texts, so that somebody with stock `age` can read what they
//! decrypt. The reader is strict: what it accepts has exactly one spelling.
//!
//! # Invariants
//! 1. The reader copies nothing: values are slices of the decrypted text.
//! 2. The writer never leaves a part of a text behind: it grows by copying into a new text and wiping the old one.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::{Secret, SecretBytes};

/// The longest name or value.
pub(crate) const MAX_NAME_BYTES: usize = 500;

/// A text that is not of its form. Names lines, never their contents.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextError {
    /// Not UTF-8, so none of ours.
    #[error("this is not text; check that it is the right file and whole")]
    NotText,
    /// Another type of text, or another version of it.
    #[error("the first line is not `{0}`; check that it is the right file, or update this program")]
    Type(&'static str),
    /// A line is absent, misplaced, or not spelled as it is written.
    #[error("there is no well-formed line `{0}` where one belongs; the text was altered or cut")]
    Line(&'static str),
    /// Something follows the last line.
    #[error("something follows the last line; the text was altered")]
    Extra,
}

/// Whether `name` may stand in a text: 1 to 500 printable ASCII characters without a space.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A canonical decimal number from 1.
pub(crate) fn number<N: TryFrom<u64>>(text: &str) -> Option<N> {
    let canonical = text.starts_with(|first: char| matches!(first, '1'..='9'));
    canonical
        .then(|| text.parse::<u64>().ok())
        .flatten()
        .and_then(|number| N::try_from(number).ok())
}

/// 64 lower-case hexadecimal digits; decoded without look-ups that depend on them.
pub(crate) fn secret(text: &str) -> Option<Secret<32>> {
    let mut secret = Secret::zero();
    (text.len() == 64 && base16ct::lower::decode(text, secret.expose_mut()).is_ok())
        .then_some(secret)
}

/// 64 lower-case hexadecimal digits.
pub(crate) fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    (text.len() == 64 && base16ct::lower::decode(text, &mut digest).is_ok()).then_some(digest)
}

/// Reads a text line by line.
pub(crate) struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    /// Reads the type line.
    pub(crate) fn new(kind: &'static str, bytes: &'a [u8]) -> Result<Self, TextError> {
        let mut reader = Self(std::str::from_utf8(bytes).map_err(|_| TextError::NotText)?);
        match reader.line() {
            Some(line) if line == kind => Ok(reader),
            Some(_) | None => Err(TextError::Type(kind)),
        }
    }

    /// The value of the next line, which is called `name`.
    pub(crate) fn value(&mut self, name: &'static str) -> Result<&'a str, TextError> {
        self.line()
            .and_then(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .ok_or(TextError::Line(name))
    }

    /// The same, read with `parse`.
    pub(crate) fn parse<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, TextError> {
        parse(self.value(name)?).ok_or(TextError::Line(name))
    }

    /// The same, as a name.
    pub(crate) fn name(&mut self, name: &'static str) -> Result<&'a str, TextError> {
        self.parse(name, |value| is_name(value).then_some(value))
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing is left.
    pub(crate) fn end(self) -> Result<(), TextError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(TextError::Extra)
        }
    }

    fn line(&mut self) -> Option<&'a str> {
        let (line, rest) = self.0.split_once('\n')?;
        self.0 = rest;
        Some(line)
    }
}

/// Writes a text line by line.
pub(crate) struct Writer(Zeroizing<String>);

impl Writer {
    /// Begins with the type line.
    pub(crate) fn new(kind: &str) -> Self {
        Self(Zeroizing::new(String::with_capacity(1024))).push(&[kind, "\n"])
    }

    /// Adds a line.
    pub(crate) fn line(self, name: &str, value: &str) -> Self {
        self.push(&[name, ": ", value, "\n"])
    }

    /// Adds a line with a number.
    pub(crate) fn number(self, name: &str, number: impl Into<u64>) -> Self {
        self.line(name, &number.into().to_string())
    }

    /// Adds a line with 64 hexadecimal digits after `before`.
    pub(crate) fn hex(self, name: &str, before: &str, bytes: &[u8; 32]) -> Self {
        let mut digits = Zeroizing::new([0; 64]);
        // Cannot fail: the digits have their room. If it did, the line would be refused when it is read.
        let digits = base16ct::lower::encode_str(bytes, digits.as_mut_slice()).unwrap_or_default();
        self.push(&[name, ": ", before, digits, "\n"])
    }

    /// Ends the text.
    pub(crate) fn finish(mut self) -> SecretBytes {
        std::mem::take(&mut *self.0).into()
    }

    fn push(mut self, parts: &[&str]) -> Self {
        for part in parts {
            let needed = self.0.len().saturating_add(part.len());
            if needed > self.0.capacity() {
                let mut larger = Zeroizing::new(String::with_capacity(needed.saturating_mul(2)));
                larger.push_str(&self.0);
                self.0 = larger;
            }
            self.0.push_str(part);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let long = "x".repeat(3000);
        let text = Writer::new("test v1")
            .line("a", &long)
            .number("b", 7_u8)
            .hex("c", "x2 ", &[0xab; 32])
            .finish();
        let mut reader = Reader::new("test v1", text.expose()).unwrap();
        assert_eq!(reader.value("a").unwrap(), long);
        assert_eq!(reader.parse("b", number::<u8>).unwrap(), 7);
        assert_eq!(
            reader
                .parse("c", |value| digest(value.strip_prefix("x2 ")?))
                .unwrap(),
            [0xab; 32]
        );
        reader.end().unwrap();
    }

    #[test]
    fn has_one_spelling() {
        use TextError::{Extra, Line, NotText, Type};
        for (name, text, want) in [
            ("as written", &b"t v1\nn: 1\n"[..], Ok(())),
            ("not UTF-8", b"t v1\nn: \xff\n", Err(NotText)),
            ("another type", b"t v2\nn: 1\n", Err(Type("t v1"))),
            ("no line end", b"t v1", Err(Type("t v1"))),
            ("carriage return", b"t v1\r\nn: 1\n", Err(Type("t v1"))),
            (
                "byte order mark",
                b"\xef\xbb\xbft v1\nn: 1\n",
                Err(Type("t v1")),
            ),
            ("line absent", b"t v1\n", Err(Line("n"))),
            ("last line cut", b"t v1\nn: 1", Err(Line("n"))),
            ("another line", b"t v1\nm: 1\n", Err(Line("n"))),
            ("no space", b"t v1\nn:1\n", Err(Line("n"))),
            ("two spaces", b"t v1\nn:  1\n", Err(Line("n"))),
            ("space at the end", b"t v1\nn: 1 \n", Err(Line("n"))),
            ("zero", b"t v1\nn: 0\n", Err(Line("n"))),
            ("leading zero", b"t v1\nn: 01\n", Err(Line("n"))),
            ("sign", b"t v1\nn: +1\n", Err(Line("n"))),
            ("too large", b"t v1\nn: 256\n", Err(Line("n"))),
            ("another line follows", b"t v1\nn: 1\nn: 1\n", Err(Extra)),
            ("empty line follows", b"t v1\nn: 1\n\n", Err(Extra)),
        ] {
            let read = Reader::new("t v1", text).and_then(|mut reader| {
                reader.parse("n", number::<u8>)?;
                reader.end()
            });
            assert_eq!(read, want, "{name}");
        }
    }

    #[test]
    fn names_cannot_forge_lines() {
        let long = "n".repeat(500);
        for (name, value, want) in [
            ("an origin", "vault.example.org/prod", true),
            ("longest", long.as_str(), true),
            ("too long", &"n".repeat(501), false),
            ("empty", "", false),
            ("space", "a b", false),
            ("line feed", "a\nb: c", false),
            ("control", "a\x7f", false),
            ("not ASCII", "pröd", false),
        ] {
            assert_eq!(is_name(value), want, "{name}");
        }
    }

    #[test]
    fn hexadecimal_is_lower_case_and_whole() {
        for (name, text, want) in [
            ("as written", "ab".repeat(32), true),
            ("upper case", "AB".repeat(32), false),
            ("short", "ab".repeat(31), false),
            ("long", "ab".repeat(33), false),
            ("not hexadecimal", "ag".repeat(32), false),
        ] {
            assert_eq!(digest(&text).is_some(), want, "{name}");
            assert_eq!(secret(&text).is_some(), want, "{name}");
        }
    }
}
