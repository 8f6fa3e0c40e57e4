//! The PIV application: commands of NIST SP 800-73-4 and Yubico's own, as far as host software needs them.
//!
//! # Invariants
//! 1. A private key is used only when its PIN and touch policy are satisfied; "PIN always" is satisfied by the
//!    command right after VERIFY and by no other.
//! 2. A refused command changes nothing but the counter of a wrong PIN or PUK.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    Counts, Firmware, ManagementAlgorithm, TestPki,
    apdu::{Command, Reply, Status, status},
    management::{ManagementKey, Proof},
    pki::{self, Attester, Facts},
    reference::Reference,
    slots::{P256, SlotKey, Slots, pin, touch},
    tlv::{self, Fields, tlv},
};

const PIV: &[u8] = &[0xa0, 0, 0, 3, 8];
const OTP: &[u8] = &[0xa0, 0, 0, 5, 0x27, 0x20, 1];
/// How long a cached touch lasts.
const TOUCH_LASTS: Duration = Duration::from_secs(15);
/// Objects: the discovery object, the printed information (which the PIN guards), the certificate of slot f9.
const DISCOVERY: &[u8] = &[0x7e];
const PRINTED: &[u8] = &[0x5f, 0xc1, 0x09];
const ATTESTER: &[u8] = &[0x5f, 0xff, 0x01];

/// The instructions.
mod ins {
    pub(super) const VERIFY: u8 = 0x20;
    pub(super) const CHANGE_REFERENCE: u8 = 0x24;
    pub(super) const RESET_RETRY: u8 = 0x2c;
    pub(super) const GENERATE: u8 = 0x47;
    pub(super) const AUTHENTICATE: u8 = 0x87;
    pub(super) const SELECT: u8 = 0xa4;
    pub(super) const GET_DATA: u8 = 0xcb;
    pub(super) const PUT_DATA: u8 = 0xdb;
    pub(super) const MOVE_KEY: u8 = 0xf6;
    pub(super) const METADATA: u8 = 0xf7;
    pub(super) const SERIAL: u8 = 0xf8;
    pub(super) const ATTEST: u8 = 0xf9;
    pub(super) const SET_TRIES: u8 = 0xfa;
    pub(super) const RESET: u8 = 0xfb;
    pub(super) const VERSION: u8 = 0xfd;
    pub(super) const IMPORT: u8 = 0xfe;
    pub(super) const SET_MANAGEMENT_KEY: u8 = 0xff;
    pub(super) const OTP_REQUEST: u8 = 0x01;
}

/// What wants the management key.
const ADMINISTRATION: [u8; 5] = [
    ins::PUT_DATA,
    ins::GENERATE,
    ins::IMPORT,
    ins::SET_MANAGEMENT_KEY,
    ins::SET_TRIES,
];

/// The management key's name as a key reference.
const MANAGEMENT: u8 = 0x9b;
/// PIN and PUK as key references.
const PIN: u8 = 0x80;
const PUK: u8 = 0x81;

/// What is selected, and what was proven, since power came on.
#[derive(Default)]
pub(crate) struct Session {
    selected: Selected,
    is_pin_given: bool,
    is_pin_fresh: bool,
    management: Proof,
}

#[derive(Default, PartialEq, Eq)]
enum Selected {
    #[default]
    Nothing,
    Piv,
    Otp,
}

/// The state of one token.
pub(crate) struct Applet {
    pub(crate) serial: u32,
    pub(crate) firmware: Firmware,
    pub(crate) pin: Reference,
    pub(crate) puk: Reference,
    pub(crate) management: ManagementKey,
    pub(crate) slots: Slots,
    pub(crate) counts: Counts,
    pub(crate) session: Session,
    /// The answer to the next use of a private key, instead of using it.
    pub(crate) failure: Option<Status>,
    pub(crate) objects: BTreeMap<Vec<u8>, Vec<u8>>,
    attester: Attester,
    pub(crate) last_touch: Option<Instant>,
}

impl Applet {
    pub(crate) fn new(
        serial: u32,
        firmware: Firmware,
        pki: &TestPki,
    ) -> Result<Self, rcgen::Error> {
        Ok(Self {
            serial,
            firmware,
            pin: Reference::new(*b"123456\xff\xff"),
            puk: Reference::new(*b"12345678"),
            management: ManagementKey::factory(factory_algorithm(firmware)),
            slots: Slots::default(),
            counts: Counts::default(),
            session: Session::default(),
            failure: None,
            objects: BTreeMap::new(),
            attester: pki.attester(firmware)?,
            last_touch: None,
        })
    }

    /// Whether this command would wait for a touch.
    pub(crate) fn awaits_touch(&self, command: &Command) -> bool {
        command.ins == ins::AUTHENTICATE
            && self
                .slots
                .key(command.p2)
                .is_some_and(|key| self.is_pin_enough(key) && self.wants_touch(key))
    }

    /// Runs a command; `touched` answers [`Applet::awaits_touch`].
    pub(crate) fn run(&mut self, command: &Command, touched: bool) -> Reply {
        let reply = self.dispatch(command, touched);
        if command.ins != ins::VERIFY {
            self.session.is_pin_fresh = false;
        }
        reply
    }

    fn dispatch(&mut self, command: &Command, touched: bool) -> Reply {
        let Command { ins, p1, p2, data } = command;
        match (*ins, &self.session.selected) {
            (ins::SELECT, _) => return self.select(*p1, data),
            (ins::OTP_REQUEST, Selected::Otp) if *p1 == 0x10 => {
                return Ok(self.serial.to_be_bytes().to_vec());
            }
            (_, Selected::Piv) => {}
            _ => return Err(status::BAD_INSTRUCTION),
        }
        let (major, minor, patch) = self.firmware;
        match *ins {
            ins::VERSION => Ok(vec![major, minor, patch]),
            ins::SERIAL if major >= 5 => Ok(self.serial.to_be_bytes().to_vec()),
            ins::VERIFY => self.verify(*p1, *p2, data),
            ins::CHANGE_REFERENCE => self.change_reference(*p2, data),
            ins::RESET_RETRY => self.reset_retry(*p2, data),
            ins::AUTHENTICATE if *p2 == MANAGEMENT => {
                self.management
                    .authenticate(*p1, &template(data)?, &mut self.session.management)
            }
            ins::AUTHENTICATE => self.use_key(*p1, *p2, data, touched),
            ins::GET_DATA => self.data(data),
            ins::METADATA if self.firmware >= (5, 3, 0) => self.metadata(*p2),
            ins::ATTEST => self.attest(*p1),
            ins::RESET => self.reset(),
            _ => self.administer(command),
        }
    }

    /// Commands that want the management key.
    fn administer(&mut self, command: &Command) -> Reply {
        let Command { ins, p1, p2, data } = command;
        let is_known = match *ins {
            ins::MOVE_KEY => self.firmware >= (5, 7, 0),
            ins => ADMINISTRATION.contains(&ins),
        };
        if !is_known {
            return Err(status::BAD_INSTRUCTION);
        }
        if !self.session.management.is_given {
            return Err(status::SECURITY);
        }
        match *ins {
            ins::PUT_DATA => self.put_data(data),
            ins::GENERATE => self.slots.generate(*p2, data),
            ins::IMPORT => self.slots.import(*p1, *p2, data),
            ins::MOVE_KEY => self.slots.relocate(*p1, *p2),
            ins::SET_MANAGEMENT_KEY => self.management.set(data).map(|()| vec![]),
            ins::SET_TRIES => self.set_tries(*p1, *p2),
            _ => Err(status::BAD_INSTRUCTION),
        }
    }

    fn select(&mut self, p1: u8, name: &[u8]) -> Reply {
        if p1 != 0x04 {
            return Err(status::BAD_PARAMETERS);
        }
        if name.starts_with(PIV) {
            // SP 800-73-4, part 2, 3.1.1: selecting what is selected keeps the session.
            if self.session.selected != Selected::Piv {
                self.session = Session {
                    selected: Selected::Piv,
                    ..Session::default()
                };
            }
            let application = tlv(0x4f, &[0, 0, 0x10, 0, 1, 0]);
            let authority = tlv(0x79, &tlv(0x4f, PIV));
            return Ok(tlv(0x61, &[application, authority].concat()));
        }
        if name.starts_with(OTP) && self.firmware.0 == 4 {
            self.session = Session {
                selected: Selected::Otp,
                ..Session::default()
            };
            return Ok(vec![]);
        }
        Err(status::NOT_FOUND)
    }

    fn verify(&mut self, p1: u8, p2: u8, data: &[u8]) -> Reply {
        if p2 != PIN {
            return Err(status::REFERENCE_NOT_FOUND);
        }
        if p1 == 0xff {
            self.session.is_pin_given = false;
            return Ok(vec![]);
        }
        if data.is_empty() {
            self.session.is_pin_fresh = false;
            return match (self.session.is_pin_given, self.pin.tries()) {
                (true, _) => Ok(vec![]),
                (false, 0) => Err(status::BLOCKED),
                (false, left) => Err(status::tries(left)),
            };
        }
        if data.len() != 8 {
            return Err(status::BAD_DATA);
        }
        self.counts.pin_checks = self.counts.pin_checks.saturating_add(1);
        self.session.is_pin_given = false;
        self.pin.check(data)?;
        self.session.is_pin_given = true;
        self.session.is_pin_fresh = true;
        Ok(vec![])
    }

    fn change_reference(&mut self, p2: u8, data: &[u8]) -> Reply {
        let (old, new) = two_references(data)?;
        let reference = match p2 {
            PIN => &mut self.pin,
            PUK => &mut self.puk,
            _ => return Err(status::REFERENCE_NOT_FOUND),
        };
        reference.check(&old)?;
        reference.set(new);
        Ok(vec![])
    }

    fn reset_retry(&mut self, p2: u8, data: &[u8]) -> Reply {
        if p2 != PIN {
            return Err(status::REFERENCE_NOT_FOUND);
        }
        let (puk, new) = two_references(data)?;
        self.puk.check(&puk)?;
        self.pin.set(new);
        Ok(vec![])
    }

    fn set_tries(&mut self, pin: u8, puk: u8) -> Reply {
        let in_range = |tries: u8| (1..=15).contains(&tries);
        if !self.session.is_pin_given || !in_range(pin) || !in_range(puk) {
            return Err(status::SECURITY);
        }
        self.pin.set_max(pin);
        self.puk.set_max(puk);
        Ok(vec![])
    }

    fn use_key(&mut self, algorithm: u8, slot: u8, data: &[u8], touched: bool) -> Reply {
        let fields = template(data)?;
        let key = self.slots.key(slot).filter(|_| algorithm == P256);
        let key = key.ok_or(status::BAD_DATA)?;
        if !self.is_pin_enough(key) {
            return Err(status::SECURITY);
        }
        if self.wants_touch(key) {
            self.counts.touches = self.counts.touches.saturating_add(1);
            if !touched {
                return Err(status::SECURITY);
            }
            self.last_touch = Some(now());
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let reply = key.authenticate(&fields)?;
        self.counts.key_uses = self.counts.key_uses.saturating_add(1);
        Ok(reply)
    }

    fn is_pin_enough(&self, key: &SlotKey) -> bool {
        match key.pin {
            pin::NEVER => true,
            pin::ALWAYS => self.session.is_pin_given && self.session.is_pin_fresh,
            _ => self.session.is_pin_given,
        }
    }

    fn wants_touch(&self, key: &SlotKey) -> bool {
        let lasts = |touch: Instant| now().saturating_duration_since(touch) < TOUCH_LASTS;
        match key.touch {
            touch::ALWAYS => true,
            touch::CACHED => !self.last_touch.is_some_and(lasts),
            _ => false,
        }
    }

    fn data(&self, data: &[u8]) -> Reply {
        let Some((0x5c, id, _)) = tlv::take(data) else {
            return Err(status::BAD_DATA);
        };
        match id {
            DISCOVERY => {
                let name = tlv(0x4f, &[0xa0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0]);
                Ok(tlv(0x7e, &[name, vec![0x5f, 0x2f, 2, 0x40, 0]].concat()))
            }
            ATTESTER => {
                let object = [
                    tlv(0x70, self.attester.certificate()),
                    vec![0x71, 1, 0, 0xfe, 0],
                ];
                Ok(tlv(0x53, &object.concat()))
            }
            PRINTED if !self.session.is_pin_given => Err(status::SECURITY),
            _ => self
                .objects
                .get(id)
                .map(|object| tlv(0x53, object))
                .ok_or(status::NOT_FOUND),
        }
    }

    fn put_data(&mut self, data: &[u8]) -> Reply {
        let Some((0x5c, id, rest)) = tlv::take(data) else {
            return Err(status::BAD_DATA);
        };
        match tlv::take(rest) {
            Some((0x53, [], _)) => self.objects.remove(id),
            Some((0x53, value, _)) => self.objects.insert(id.to_vec(), value.to_vec()),
            _ => return Err(status::BAD_DATA),
        };
        Ok(vec![])
    }

    fn attest(&self, slot: u8) -> Reply {
        let key = self.slots.key(slot).ok_or(status::REFERENCE_NOT_FOUND)?;
        if !key.is_generated {
            return Err(status::BAD_DATA);
        }
        let facts = Facts {
            slot,
            point: &key.point(),
            firmware: self.firmware,
            serial: self.serial,
            policy: [key.pin, key.touch],
        };
        self.attester.attest(&facts).map_err(|_| status::CONDITIONS)
    }

    fn metadata(&self, reference: u8) -> Reply {
        let of = |reference: &Reference| {
            let tries = [reference.max(), reference.tries()];
            [
                tlv(1, &[0xff]),
                tlv(5, &[u8::from(reference.is_factory())]),
                tlv(6, &tries),
            ]
            .concat()
        };
        match reference {
            PIN => Ok(of(&self.pin)),
            PUK => Ok(of(&self.puk)),
            MANAGEMENT => {
                let key = &self.management;
                let is_factory = u8::from(key.is_factory());
                let number = key.algorithm().number();
                Ok([
                    tlv(1, &[number]),
                    tlv(2, &[0, touch::NEVER]),
                    tlv(5, &[is_factory]),
                ]
                .concat())
            }
            slot => self
                .slots
                .key(slot)
                .map(SlotKey::metadata)
                .ok_or(status::REFERENCE_NOT_FOUND),
        }
    }

    /// What age-plugin-yubikey leaves in a retired slot.
    pub(crate) fn identity(&mut self, slot: u8, policy: [u8; 2], is_imported: bool) -> bool {
        let [pin, touch] = policy;
        let made = self.slots.fill(slot, pin, touch, !is_imported);
        let key = made.ok().and_then(|()| self.slots.key(slot));
        let certificate = key.and_then(|key| pki::identity(&key.point(), policy).ok());
        let Some(certificate) = certificate else {
            return false;
        };
        let object = [tlv(0x70, &certificate), vec![0x71, 1, 0, 0xfe, 0]].concat();
        let id = [0x5f, 0xc1, slot.saturating_sub(0x82).saturating_add(0x0d)];
        self.objects.insert(id.to_vec(), object);
        true
    }

    fn reset(&mut self) -> Reply {
        if self.pin.tries() != 0 || self.puk.tries() != 0 {
            return Err(status::CONDITIONS);
        }
        self.pin.reset();
        self.puk.reset();
        self.slots.clear();
        self.objects.clear();
        self.management = ManagementKey::factory(factory_algorithm(self.firmware));
        Ok(vec![])
    }
}

fn factory_algorithm(firmware: Firmware) -> ManagementAlgorithm {
    if firmware >= (5, 7, 0) {
        ManagementAlgorithm::Aes192
    } else {
        ManagementAlgorithm::TripleDes
    }
}

/// The fields of a dynamic authentication template (tag 7C).
fn template(data: &[u8]) -> Result<Fields<'_>, Status> {
    match tlv::take(data) {
        Some((0x7c, body, _)) => tlv::all(body).ok_or(status::BAD_DATA),
        _ => Err(status::BAD_DATA),
    }
}

fn two_references(data: &[u8]) -> Result<([u8; 8], [u8; 8]), Status> {
    let (old, new) = data.split_at_checked(8).ok_or(status::BAD_DATA)?;
    Ok((
        old.try_into().map_err(|_| status::BAD_DATA)?,
        new.try_into().map_err(|_| status::BAD_DATA)?,
    ))
}

#[expect(clippy::disallowed_methods, reason = "a token has a clock of its own")]
fn now() -> Instant {
    Instant::now()
}
