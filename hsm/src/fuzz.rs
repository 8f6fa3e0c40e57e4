//! Fuzz targets: what strangers send as keys, signatures, certificates and attestations must neither panic nor be
//! read in two ways.
//!
//! Plain functions, so that a fuzzer and the tests run the same ones.

use crate::{
    approval::ApprovalKey,
    attestation::{Anchors, Bundle},
    device::Certificate,
};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("certificate", certificate),
    ("approval-key", approval_key),
    ("signature", signature),
    ("attestation", attestation),
    ("roots", roots),
];

/// What a peer of TLS brings.
fn certificate(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::parse(bytes) {
        let key = ApprovalKey::from_spki(certificate.key.spki());
        assert!(key.is_ok(), "a key that is not read again");
    }
}

fn approval_key(bytes: &[u8]) {
    if let Ok(key) = ApprovalKey::from_spki(bytes) {
        assert_eq!(key.spki(), bytes, "accepted what it would not write");
    }
}

/// The first 91 bytes are a key, the rest is its signature over nothing.
fn signature(bytes: &[u8]) {
    let (key, signature) = bytes.split_at(bytes.len().min(91));
    if let Ok(key) = ApprovalKey::from_spki(key) {
        // Whether it is good is not the question.
        key.verify(b"", signature).ok();
    }
}

/// The object of an enrolment, judged by the roots that are built in.
fn attestation(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(bundle) = Bundle::parse(text)
    {
        assert_eq!(bundle.to_pem(), text, "accepted what it would not write");
        if let Ok(anchors) = Anchors::yubico() {
            bundle.facts(&anchors).ok();
        }
    }
}

/// A file of roots.
fn roots(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        Anchors::from_file(text).ok();
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "lengths of a few hundred bytes"
)]
mod tests {
    use super::*;
    use crate::{device::DeviceKey, pem};

    const MUTATIONS: u32 = 10_000;

    /// Numbers that are the same each time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
        }
    }

    fn mutated(numbers: &mut Numbers, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len());
            match numbers.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(numbers.below(256)).unwrap()),
                2 => drop(bytes.drain(at..bytes.len().min(at + numbers.below(16)))),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = u8::try_from(numbers.below(256)).unwrap();
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn ten_thousand_mutations_of_each_seed() {
        let device = DeviceKey::generate("laptop").unwrap();
        let certificate = device.certificate().to_vec();
        let spki = device.public().spki().to_vec();
        let signed = [spki.clone(), device.sign(b"").unwrap()].concat();
        let bundle = pem::encode("CERTIFICATE", &certificate).repeat(3);
        let roots = include_bytes!("attestation/yubico.pem");
        for (name, target) in TARGETS {
            let seed: &[u8] = match name {
                "certificate" => &certificate,
                "approval-key" => &spki,
                "signature" => &signed,
                "attestation" => bundle.as_bytes(),
                _ => roots,
            };
            target(seed);
            let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
            for _ in 0..MUTATIONS {
                target(&mutated(&mut numbers, seed));
            }
        }
    }
}
