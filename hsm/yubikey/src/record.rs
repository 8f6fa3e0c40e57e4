//! What enrolment leaves on the token: where the keys are, in a data object that needs no PIN to read.
//!
//! ```text
//! keyturn token v1
//! approval: <base64 of the SubjectPublicKeyInfo in slot 9c>
//! share: age1yubikey1…
//! slot: 82
//! touch: cached
//! made: both
//! ```
//! It names public keys and is no secret, and it is no proof: whoever can write to the token can alter it. The keys
//! count only as far as the charter has them. `made: approval` says that the share key is another program's: its slot
//! is not ours to write. While an enrolment is under way the object is one line, `keyturn enrolment v1 82`: slot 9c and
//! that slot were free, or given up, and may be written; with `-`, slot 9c alone.

use std::fmt;

use keyturn_hsm::{ApprovalKey, attestation::TouchPolicy};
use keyturn_seal::{ShareKey, piv::PivKey};
use yubikey::piv::{RetiredSlotId, SlotId};

const TITLE: &str = "keyturn token v1";
const INTENT: &str = "keyturn enrolment v1 ";
/// In place of a slot: no share key is made.
const NO_SLOT: &str = "-";

/// The keys of an enrolled token and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key in slot 9c.
    pub approval: ApprovalKey,
    /// The key in the retired slot.
    pub share: ShareKey,
    /// The retired slot.
    pub slot: ShareSlot,
    /// When the share key asks for a touch.
    pub touch: TouchPolicy,
    /// Which keys the enrolment made.
    pub made: Made,
}

/// Which keys an enrolment made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Approval key and share key.
    Both,
    /// The approval key; another program made the share key.
    Approval,
}

impl Record {
    pub(crate) fn is_share(&self, key: &PivKey) -> bool {
        matches!(&self.share, ShareKey::Piv(own) if own == key)
    }
}

/// One of the twenty retired slots, 82 to 95.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSlot(u8);

impl ShareSlot {
    /// The slot with this number.
    pub fn new(number: u8) -> Option<Self> {
        (0x82..=0x95).contains(&number).then_some(Self(number))
    }

    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0x82..=0x95).map(Self)
    }

    /// The slot's number.
    pub fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn id(self) -> Option<SlotId> {
        RetiredSlotId::try_from(self.0).ok().map(SlotId::Retired)
    }
}

impl fmt::Display for ShareSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

/// What the object on a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// An enrolment was begun, with this slot for a share key that it makes, and not finished.
    Begun(Option<ShareSlot>),
    /// The token is enrolled.
    Enrolled(Box<Record>),
}

impl State {
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Begun(Some(slot)) => format!("{INTENT}{slot}\n"),
            Self::Begun(None) => format!("{INTENT}{NO_SLOT}\n"),
            Self::Enrolled(record) => {
                let Record {
                    approval,
                    share,
                    slot,
                    touch,
                    made,
                } = &**record;
                let (touch, made) = (name_of(&TOUCHES, *touch), name_of(&MADE, *made));
                format!(
                    "{TITLE}\napproval: {approval}\nshare: {share}\nslot: {slot}\ntouch: {touch}\nmade: {made}\n"
                )
            }
        }
    }

    /// `None` for anything that [`State::to_text`] would not have written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let begun = text
            .strip_prefix(INTENT)
            .and_then(|slot| match slot.trim_end() {
                NO_SLOT => Some(None),
                slot => slot_named(slot).map(Some),
            });
        let state = begun.map(Self::Begun).or_else(|| {
            let mut lines = text.lines();
            lines.next().filter(|title| *title == TITLE)?;
            let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(": ");
            Some(Self::Enrolled(Box::new(Record {
                approval: value("approval")?.parse().ok()?,
                share: value("share")?.parse().ok()?,
                slot: slot_named(value("slot")?)?,
                touch: named(&TOUCHES, value("touch")?)?,
                made: named(&MADE, value("made")?)?,
            })))
        });
        state.filter(|state| state.to_text() == text)
    }
}

fn slot_named(name: &str) -> Option<ShareSlot> {
    ShareSlot::new(u8::from_str_radix(name, 16).ok()?)
}

const TOUCHES: [(TouchPolicy, &str); 3] = [
    (TouchPolicy::Never, "never"),
    (TouchPolicy::Cached, "cached"),
    (TouchPolicy::Always, "always"),
];

const MADE: [(Made, &str); 2] = [(Made::Both, "both"), (Made::Approval, "approval")];

fn name_of<T: Copy + PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    let mut names = names.iter();
    names
        .find(|(known, _)| *known == value)
        .map_or("-", |(_, name)| name)
}

fn named<T: Copy>(names: &[(T, &str)], name: &str) -> Option<T> {
    let mut names = names.iter();
    names
        .find(|(_, known)| *known == name)
        .map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyturn_seal::piv::SoftwareKey;

    fn enrolled() -> String {
        let spki = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEzBzVOmHCPojMVLSI364WiiV8NPrD6IgRxVlisk\
                    z/v+y3JER5mcVGcONliDcWMC5J2lfHmjPNPhb4H7xm8LzfSA==";
        let share = ShareKey::Piv(SoftwareKey::generate().unwrap().public());
        format!(
            "keyturn token v1\napproval: {spki}\nshare: {share}\nslot: 82\ntouch: cached\nmade: both\n"
        )
    }

    #[test]
    fn records_have_one_spelling() {
        let good = enrolled();
        assert_eq!(
            State::parse(&good).map(|state| state.to_text()),
            Some(good.clone())
        );
        let begun = "keyturn enrolment v1 95\n";
        let theirs = good.replace("made: both", "made: approval");
        for other in [begun, "keyturn enrolment v1 -\n", &theirs] {
            let read = State::parse(other).map(|state| state.to_text());
            assert_eq!(read.as_deref(), Some(other));
        }
        for (name, text) in [
            ("empty", String::new()),
            ("another version", good.replace("v1", "v2")),
            ("a line more", format!("{good}note: x\n")),
            ("a line less", good.replace("slot: 82\n", "")),
            ("carriage returns", good.replace('\n', "\r\n")),
            ("a slot in capitals", begun.replace("95", "8A")),
            ("no retired slot", begun.replace("95", "9c")),
            ("no share key", good.replace("age1", "age2")),
            ("made by somebody", good.replace("both", "somebody")),
            ("no touch policy", good.replace("cached", "sometimes")),
        ] {
            assert_eq!(State::parse(&text), None, "{name}");
        }
    }
}
