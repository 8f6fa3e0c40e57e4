//! The application, APDU by APDU.

use std::time::Duration;

use p256::ecdsa::{DerSignature, VerifyingKey, signature::hazmat::PrehashVerifier as _};

use crate::{
    Card, Firmware, ManagementAlgorithm, Pull, TestPki, Touch,
    apdu::status,
    management::FACTORY_KEY,
    tlv::{self, tlv},
};

const PIN: &[u8] = b"123456\xff\xff";
const WRONG: &[u8] = b"000000\xff\xff";
type Outcome = Result<Vec<u8>, u16>;

const DIGEST: [u8; 32] = [7; 32];

/// A card with power and the PIV application selected.
struct Host(Card);

impl Host {
    fn new(firmware: Firmware) -> Self {
        let host = Self(Card::new(1, firmware, &TestPki::new().unwrap()).unwrap());
        host.0.touch(Touch::After(Duration::ZERO));
        host.0.touch_timeout(Duration::from_millis(20));
        host.select();
        host
    }

    fn select(&self) {
        self.send(0xa4, 4, 0, &[0xa0, 0, 0, 3, 8]).unwrap();
    }

    /// Sends a command, in parts where it is long, and collects the reply.
    fn send(&self, ins: u8, p1: u8, p2: u8, data: &[u8]) -> Result<Vec<u8>, u16> {
        let mut parts = data.chunks(255).peekable();
        let mut reply = loop {
            let part = parts.next().unwrap_or_default();
            let class = if parts.peek().is_some() { 0x10 } else { 0 };
            let length = u8::try_from(part.len()).unwrap();
            let header = [class, ins, p1, p2, length];
            let reply = self
                .0
                .transmit(&[&header, part].concat(), || false)
                .ok_or(0_u16)?;
            if class == 0 {
                break reply;
            }
        };
        let mut all = Vec::new();
        loop {
            let (data, code) = reply.split_last_chunk::<2>().unwrap();
            all.extend_from_slice(data);
            match code {
                [0x61, _] => reply = self.0.transmit(&[0, 0xc0, 0, 0], || false).unwrap(),
                [0x90, 0] => return Ok(all),
                code => return Err(u16::from_be_bytes(*code)),
            }
        }
    }

    fn pin(&self, pin: &[u8]) -> Result<Vec<u8>, u16> {
        self.send(0x20, 0, 0x80, pin)
    }

    fn authenticate(&self, algorithm: ManagementAlgorithm) -> Result<Vec<u8>, u16> {
        let witness = self.send(0x87, algorithm.number(), 0x9b, &[0x7c, 2, 0x80, 0])?;
        let plain = decrypt(algorithm, &witness[4..]);
        let proof = [
            tlv(0x80, &plain),
            tlv(0x81, &vec![9; algorithm.block_len()]),
        ]
        .concat();
        self.send(0x87, algorithm.number(), 0x9b, &tlv(0x7c, &proof))
    }

    fn generate(&self, slot: u8, policies: &[u8]) -> Vec<u8> {
        let template = [tlv(0x80, &[0x11]), policies.to_vec()].concat();
        let reply = self.send(0x47, 0, slot, &tlv(0xac, &template)).unwrap();
        reply[5..].to_vec()
    }

    fn sign(&self, slot: u8) -> Result<Vec<u8>, u16> {
        let template = [vec![0x82, 0], tlv(0x81, &DIGEST)].concat();
        let reply = self.send(0x87, 0x11, slot, &tlv(0x7c, &template))?;
        let (_, inner, _) = tlv::take(&reply).unwrap();
        Ok(tlv::take(inner).unwrap().1.to_vec())
    }
}

fn decrypt(algorithm: ManagementAlgorithm, block: &[u8]) -> Vec<u8> {
    use cipher::{Block, BlockCipherDecrypt, KeyInit};
    fn run<C: KeyInit + BlockCipherDecrypt>(block: &[u8]) -> Vec<u8> {
        let mut block = Block::<C>::try_from(block).unwrap();
        C::new_from_slice(&FACTORY_KEY)
            .unwrap()
            .decrypt_block(&mut block);
        block.to_vec()
    }
    if algorithm == ManagementAlgorithm::TripleDes {
        run::<des::TdesEde3>(block)
    } else {
        run::<aes::Aes192>(block)
    }
}

fn with_key(firmware: Firmware, policies: &[u8]) -> (Host, VerifyingKey) {
    let host = Host::new(firmware);
    let algorithm = if firmware >= (5, 7, 0) {
        ManagementAlgorithm::Aes192
    } else {
        ManagementAlgorithm::TripleDes
    };
    host.authenticate(algorithm).unwrap();
    let key = VerifyingKey::from_sec1_bytes(&host.generate(0x9c, policies)).unwrap();
    (host, key)
}

#[test]
fn firmwares_differ_as_yubikeys_do() {
    for (firmware, serial, metadata, management) in [
        ((4, 3, 5), false, false, ManagementAlgorithm::TripleDes),
        ((5, 2, 7), true, false, ManagementAlgorithm::TripleDes),
        ((5, 4, 3), true, true, ManagementAlgorithm::TripleDes),
        ((5, 7, 4), true, true, ManagementAlgorithm::Aes192),
    ] {
        let host = Host::new(firmware);
        assert_eq!(
            host.send(0xfd, 0, 0, &[]).unwrap(),
            [firmware.0, firmware.1, firmware.2]
        );
        assert_eq!(
            host.send(0xf8, 0, 0, &[]).is_ok(),
            serial,
            "{firmware:?}: serial"
        );
        let told = host.send(0xf7, 0, 0x80, &[]).map(|_| ());
        let want = if metadata {
            Ok(())
        } else {
            Err(status::BAD_INSTRUCTION)
        };
        assert_eq!(told, want, "{firmware:?}: metadata");
        assert!(
            host.authenticate(management).is_ok(),
            "{firmware:?}: management key"
        );
        let otp = host.send(0xa4, 4, 0, &[0xa0, 0, 0, 5, 0x27, 0x20, 1, 1]);
        assert_eq!(
            otp.is_ok(),
            firmware.0 == 4,
            "{firmware:?}: OTP application"
        );
    }
}

#[test]
fn pins_are_counted() {
    let host = Host::new((5, 4, 3));
    let steps: [(&str, &[u8], Outcome); 7] = [
        ("asking costs nothing", b"", Err(0x63c3)),
        ("wrong", WRONG, Err(0x63c2)),
        ("right gives all tries back", PIN, Ok(vec![])),
        ("wrong again", WRONG, Err(0x63c2)),
        ("and again", WRONG, Err(0x63c1)),
        ("the last", WRONG, Err(status::BLOCKED)),
        ("now even the right one", PIN, Err(status::BLOCKED)),
    ];
    for (name, pin, want) in steps {
        assert_eq!(host.pin(pin), want, "{name}");
    }
    let unblock = |puk: &[u8]| host.send(0x2c, 0, 0x80, &[puk, PIN].concat());
    assert_eq!(unblock(b"00000000"), Err(0x63c2));
    assert_eq!(unblock(b"12345678"), Ok(vec![]));
    assert_eq!((host.pin(PIN), host.0.tries()), (Ok(vec![]), (3, 3)));
}

#[test]
fn pin_always_means_right_before() {
    let (host, key) = with_key((5, 4, 3), &[0xaa, 1, 3, 0xab, 1, 2]);
    assert_eq!(host.sign(0x9c), Err(status::SECURITY), "no PIN");
    host.pin(PIN).unwrap();
    let signature = DerSignature::from_bytes(&host.sign(0x9c).unwrap()).unwrap();
    key.verify_prehash(&DIGEST, &signature).unwrap();
    assert_eq!(
        host.sign(0x9c),
        Err(status::SECURITY),
        "the PIN was used up"
    );
    host.pin(PIN).unwrap();
    host.send(0xfd, 0, 0, &[]).unwrap();
    assert_eq!(
        host.sign(0x9c),
        Err(status::SECURITY),
        "another command came between"
    );
    host.pin(PIN).unwrap();
    host.0.reset_session();
    host.select();
    assert_eq!(host.sign(0x9c), Err(status::SECURITY), "power went off");
    assert_eq!(host.0.counts().key_uses, 1);
}

#[test]
fn touches_are_given_or_not() {
    let late = Duration::from_secs(1);
    let (host, _) = with_key((5, 7, 4), &[0xaa, 1, 1, 0xab, 1, 2]);
    for (name, touch, want) in [
        ("at once", Touch::After(Duration::ZERO), Ok(())),
        ("never", Touch::Never, Err(status::SECURITY)),
        ("too late", Touch::After(late), Err(status::SECURITY)),
        ("pulled out", Touch::PullOut(Duration::ZERO), Err(0)),
        ("again", Touch::After(Duration::ZERO), Ok(())),
    ] {
        host.0.touch_next([touch]);
        assert_eq!(host.sign(0x9c).map(|_| ()), want, "{name}");
    }
    assert_eq!((host.0.counts().touches, host.0.counts().key_uses), (4, 2));

    let (host, _) = with_key((5, 7, 4), &[0xaa, 1, 1, 0xab, 1, 3]);
    assert!(host.sign(0x9c).is_ok() && host.sign(0x9c).is_ok());
    assert_eq!(host.0.counts().touches, 1, "a cached touch lasts");
}

#[test]
fn a_card_is_pulled_out_before_or_after_a_command() {
    for (pull, uses) in [(Pull::Before, 0), (Pull::After, 1)] {
        let (host, _) = with_key((5, 7, 4), &[0xaa, 1, 1]);
        host.0.pull_out_after(1, pull);
        host.select();
        assert_eq!(host.sign(0x9c), Err(0), "{pull:?}");
        assert_eq!(host.0.counts().key_uses, uses, "{pull:?}");
    }
}

#[test]
fn only_the_management_key_changes_keys_and_objects() {
    let host = Host::new((5, 7, 4));
    let commands: [(&str, u8, u8, u8, Vec<u8>); 6] = [
        ("generate", 0x47, 0, 0x9c, tlv(0xac, &tlv(0x80, &[0x11]))),
        ("import", 0xfe, 0x11, 0x9c, tlv(6, &[7; 32])),
        (
            "write",
            0xdb,
            0x3f,
            0xff,
            [tlv(0x5c, &[0x5f, 0xc1, 0x0a]), tlv(0x53, b"x")].concat(),
        ),
        ("move", 0xf6, 0x82, 0x9c, vec![]),
        (
            "new management key",
            0xff,
            0xff,
            0xff,
            [vec![0x0c, 0x9b, 32], vec![1; 32]].concat(),
        ),
        ("tries", 0xfa, 5, 5, vec![]),
    ];
    for (name, ins, p1, p2, data) in &commands {
        assert_eq!(
            host.send(*ins, *p1, *p2, data),
            Err(status::SECURITY),
            "{name} without it"
        );
    }
    assert!(
        host.authenticate(ManagementAlgorithm::TripleDes).is_err(),
        "another algorithm"
    );
    host.authenticate(ManagementAlgorithm::Aes192).unwrap();
    host.pin(PIN).unwrap();
    for (name, ins, p1, p2, data) in &commands {
        assert!(host.send(*ins, *p1, *p2, data).is_ok(), "{name} with it");
    }
    assert_eq!(host.0.is_factory(), (true, true, false));
}

#[test]
fn only_keys_made_on_the_card_are_attested() {
    let (host, _) = with_key((5, 7, 4), &[0xaa, 1, 3, 0xab, 1, 2]);
    host.send(0xfe, 0x11, 0x9a, &tlv(6, &[7; 32])).unwrap();
    assert!(
        host.send(0xf9, 0x9c, 0, &[]).unwrap().len() > 256,
        "in parts"
    );
    assert_eq!(
        host.send(0xf9, 0x9a, 0, &[]),
        Err(status::BAD_DATA),
        "imported"
    );
    assert_eq!(
        host.send(0xf9, 0x9d, 0, &[]),
        Err(status::REFERENCE_NOT_FOUND),
        "empty"
    );
}

#[test]
fn a_reset_wants_both_counters_at_zero() {
    let (host, _) = with_key((5, 7, 4), &[]);
    assert_eq!(host.send(0xfb, 0, 0, &[]), Err(status::CONDITIONS));
    for _ in 0..3 {
        let _ = host.pin(WRONG);
        let _ = host.send(0x2c, 0, 0x80, &[WRONG, WRONG].concat());
    }
    host.send(0xfb, 0, 0, &[]).unwrap();
    assert_eq!((host.0.tries(), host.0.public_key(0x9c)), ((3, 3), None));
}
