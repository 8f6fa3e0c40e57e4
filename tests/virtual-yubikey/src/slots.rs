//! Keys in slots, and when they may be used.

use std::collections::BTreeMap;

use p256::{
    SecretKey,
    ecdsa::{DerSignature, SigningKey, signature::hazmat::PrehashSigner as _},
    elliptic_curve::{Generate as _, sec1::ToSec1Point as _},
};

use crate::{
    apdu::{Reply, Status, status},
    tlv::{self, Fields, tlv},
};

/// P-256, the one algorithm here.
pub(crate) const P256: u8 = 0x11;

/// PIN policies, as Yubico numbers them.
pub(crate) mod pin {
    pub(crate) const NEVER: u8 = 1;
    pub(crate) const ONCE: u8 = 2;
    pub(crate) const ALWAYS: u8 = 3;
}

/// Touch policies, as Yubico numbers them.
pub(crate) mod touch {
    pub(crate) const NEVER: u8 = 1;
    pub(crate) const ALWAYS: u8 = 2;
    pub(crate) const CACHED: u8 = 3;
}

/// A key in a slot.
pub(crate) struct SlotKey {
    secret: SecretKey,
    pub(crate) pin: u8,
    pub(crate) touch: u8,
    /// Made on the token, so that it can be attested.
    pub(crate) is_generated: bool,
}

/// Keys by slot number.
#[derive(Default)]
pub(crate) struct Slots(BTreeMap<u8, SlotKey>);

impl Slots {
    pub(crate) fn key(&self, slot: u8) -> Option<&SlotKey> {
        self.0.get(&slot)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// GENERATE ASYMMETRIC KEY PAIR: the public key, as `7F49 { 86 { point } }`.
    pub(crate) fn generate(&mut self, slot: u8, data: &[u8]) -> Reply {
        let Some((0xac, template, _)) = tlv::take(data) else {
            return Err(status::BAD_DATA);
        };
        let fields = tlv::all(template).ok_or(status::BAD_DATA)?;
        if fields.byte(0x80) != Some(P256) {
            return Err(status::BAD_DATA);
        }
        let secret = SecretKey::generate();
        let point = tlv(0x86, &point(&secret));
        self.put(slot, secret, &fields, true)?;
        let mut out = vec![0x7f, 0x49];
        tlv::put_length(&mut out, point.len());
        out.extend(point);
        Ok(out)
    }

    /// IMPORT ASYMMETRIC KEY.
    pub(crate) fn import(&mut self, algorithm: u8, slot: u8, data: &[u8]) -> Reply {
        let fields = tlv::all(data).ok_or(status::BAD_DATA)?;
        let scalar = fields
            .value(6)
            .filter(|_| algorithm == P256)
            .ok_or(status::BAD_DATA)?;
        let secret = SecretKey::from_slice(scalar).map_err(|_| status::BAD_DATA)?;
        self.put(slot, secret, &fields, false)?;
        Ok(vec![])
    }

    /// A new key, however it came there.
    pub(crate) fn fill(
        &mut self,
        slot: u8,
        pin: u8,
        touch: u8,
        generated: bool,
    ) -> Result<(), Status> {
        let policy = [0xaa, 1, pin, 0xab, 1, touch];
        let fields = tlv::all(&policy).ok_or(status::BAD_DATA)?;
        self.put(slot, SecretKey::generate(), &fields, generated)
    }

    /// MOVE KEY; to 0xff deletes.
    pub(crate) fn relocate(&mut self, to: u8, from: u8) -> Reply {
        let key = self.0.remove(&from).ok_or(status::REFERENCE_NOT_FOUND)?;
        if to != 0xff {
            self.0.insert(to, key);
        }
        Ok(vec![])
    }

    fn put(
        &mut self,
        slot: u8,
        secret: SecretKey,
        fields: &Fields<'_>,
        generated: bool,
    ) -> Result<(), Status> {
        let by_slot = match slot {
            0x9c => pin::ALWAYS,
            0x9e => pin::NEVER,
            0x9a | 0x9d | 0x82..=0x95 => pin::ONCE,
            _ => return Err(status::WRONG_PARAMETERS),
        };
        let key = SlotKey {
            secret,
            pin: fields.byte(0xaa).unwrap_or(by_slot),
            touch: fields.byte(0xab).unwrap_or(touch::NEVER),
            is_generated: generated,
        };
        self.0.insert(slot, key);
        Ok(())
    }
}

impl SlotKey {
    /// The uncompressed point.
    pub(crate) fn point(&self) -> Vec<u8> {
        point(&self.secret)
    }

    /// GENERAL AUTHENTICATE: a signature over a digest (81), or a shared secret with a point (85).
    pub(crate) fn authenticate(&self, fields: &Fields<'_>) -> Reply {
        let out = match (fields.value(0x81), fields.value(0x85)) {
            (Some(digest), None) if digest.len() == 32 => {
                let signature: DerSignature = SigningKey::from(&self.secret)
                    .sign_prehash(digest)
                    .map_err(|_| status::BAD_DATA)?;
                signature.as_bytes().to_vec()
            }
            (None, Some(point)) => {
                let point =
                    p256::PublicKey::from_sec1_bytes(point).map_err(|_| status::BAD_DATA)?;
                self.secret
                    .diffie_hellman(&point)
                    .raw_secret_bytes()
                    .to_vec()
            }
            _ => return Err(status::BAD_DATA),
        };
        Ok(tlv(0x7c, &tlv(0x82, &out)))
    }

    /// The part of GET METADATA that describes a key.
    pub(crate) fn metadata(&self) -> Vec<u8> {
        let origin = if self.is_generated { 1 } else { 2 };
        let public = tlv(0x86, &self.point());
        [
            tlv(1, &[P256]),
            tlv(2, &[self.pin, self.touch]),
            tlv(3, &[origin]),
            tlv(4, &public),
        ]
        .concat()
    }
}

fn point(secret: &SecretKey) -> Vec<u8> {
    secret.public_key().to_sec1_point(false).as_bytes().to_vec()
}
