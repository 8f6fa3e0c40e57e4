//! People with virtual YubiKeys: each has one in a reader of their own.

use std::time::Duration;

use keyturn_virtual_yubikey::{Card, Desk, Firmware, Inserted, TestPki, Touch};

use crate::harness::{Outcome, World};

/// Everybody's PIN in demo and tests.
pub const PIN: &str = "271828";
/// Everybody's PUK in demo and tests.
pub const PUK: &str = "31415926";

/// A YubiKey in its reader.
pub struct Held {
    /// The token.
    pub card: Card,
    reader: u16,
    inserted: Option<Inserted>,
}

impl Held {
    /// Pulls it out.
    pub fn pull(&mut self) -> Outcome<()> {
        Ok(self.inserted.take().map_or(Ok(()), Inserted::remove)?)
    }

    /// Puts it into its reader again.
    pub fn put_back(&mut self, desk: &Desk) -> Outcome<()> {
        self.inserted = Some(desk.insert(self.reader, &self.card)?);
        Ok(())
    }
}

/// Puts a new YubiKey, whose owner is quick, into a reader.
pub fn insert(
    desk: &Desk,
    reader: u16,
    serial: u32,
    firmware: Firmware,
    pki: &TestPki,
) -> Outcome<Held> {
    let card = Card::new(serial, firmware, pki)?;
    card.touch(Touch::After(Duration::from_millis(20)));
    card.touch_timeout(Duration::from_millis(500));
    let inserted = Some(desk.insert(reader, &card)?);
    Ok(Held {
        card,
        reader,
        inserted,
    })
}

impl World {
    /// Enrols a person with the YubiKey of this serial number.
    pub fn enrol_yubikey(&self, person: &str, serial: u32) -> Outcome<crate::Reply> {
        self.tell_pin(person, PIN, PUK)?;
        let (out, token) = (
            format!("people/{person}.enroll"),
            format!("yubikey:{serial}"),
        );
        self.keyturn(
            person,
            [
                "enroll", person, "--token", &token, "--out", &out, "--puk-fd", "4",
            ],
        )
    }
}
