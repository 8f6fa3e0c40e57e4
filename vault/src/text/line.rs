//! The lines of a text, written and read in one fixed order.

use std::fmt::{Display, Write as _};
use std::str::FromStr;

use crate::name::Line;
use crate::reference::{ReferenceError, or_dash};
use crate::text::{TextError, ValueError};

/// Writes lines in their order.
#[derive(Debug)]
pub struct Writer {
    pub(super) text: String,
}

impl Writer {
    /// Writes one line.
    pub fn line(&mut self, name: &str, value: &impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{name}: {value}");
    }

    /// Writes one line, `-` for nothing.
    pub fn optional<T: Display>(&mut self, name: &str, value: Option<&T>) {
        self.line(name, &or_dash(value));
    }

    /// Writes a line for each value.
    pub fn each<T: Display>(&mut self, name: &str, values: &[T]) {
        for value in values {
            self.line(name, value);
        }
    }
}

/// Reads lines in their order.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) lines: Vec<&'a str>,
    pub(super) next: usize,
}

impl<'a> Reader<'a> {
    /// The value of the next line, if it has this name.
    fn peek(&self, name: &str) -> Option<&'a str> {
        self.lines
            .get(self.next)?
            .strip_prefix(name)?
            .strip_prefix(": ")
    }

    /// The value of the next line, which must have this name, as text that shows what it holds.
    fn raw(&mut self, name: &'static str) -> Result<&'a str, TextError> {
        let number = self.next.saturating_add(1);
        let value = self.peek(name).ok_or(TextError::Line { number, name })?;
        self.next = number;
        if value != "-" {
            let seen = value.parse::<Line>();
            seen.map_err(|source| TextError::Value {
                number,
                name,
                source: source.into(),
            })?;
        }
        Ok(value)
    }

    fn convert<T>(&self, name: &'static str, value: &str) -> Result<T, TextError>
    where
        T: FromStr<Err: Into<ValueError>>,
    {
        value.parse().map_err(|source: T::Err| TextError::Value {
            number: self.next,
            name,
            source: source.into(),
        })
    }

    /// The value of the next line, which must have this name.
    pub fn line<T: FromStr<Err: Into<ValueError>>>(
        &mut self,
        name: &'static str,
    ) -> Result<T, TextError> {
        let value = self.raw(name)?;
        self.convert(name, value)
    }

    /// The value of the next line, which must have this name; none for `-`.
    pub fn optional<T: FromStr<Err: Into<ValueError>>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, TextError> {
        match self.raw(name)? {
            "-" => Ok(None),
            value => self.convert(name, value).map(Some),
        }
    }

    /// The value of the next line, which must have this name, read by `read`.
    pub fn with<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, ReferenceError>,
    ) -> Result<T, TextError> {
        let value = self.raw(name)?;
        read(value).map_err(|source| TextError::Value {
            number: self.next,
            name,
            source: source.into(),
        })
    }

    /// The values of all next lines of this name: at most `max`, perhaps none.
    pub fn each<T: FromStr<Err: Into<ValueError>>>(
        &mut self,
        name: &'static str,
        max: usize,
    ) -> Result<Vec<T>, TextError> {
        let mut values = Vec::new();
        while self.peek(name).is_some() {
            if values.len() == max {
                return Err(TextError::Many { name, max });
            }
            values.push(self.line(name)?);
        }
        Ok(values)
    }
}

/// Refuses repeated lines that do not strictly ascend by `key`.
pub(crate) fn ascending<T, K: Ord>(
    name: &'static str,
    values: &[T],
    key: impl Fn(&T) -> K,
) -> Result<(), TextError> {
    if values.iter().map(&key).is_sorted_by(|one, next| one < next) {
        Ok(())
    } else {
        Err(TextError::Order { name })
    }
}
