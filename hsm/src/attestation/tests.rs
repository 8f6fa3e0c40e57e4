//! Real attestations of three firmwares, and a hierarchy of our own for what Yubico would not sign.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SignatureAlgorithm,
};

use keyturn_seal::ShareIdentity;

use super::*;

const OLD: &str = include_str!("../../tests/data/attestation/firmware-5.2.4.pem");
const SIGNED_OFF: &str = include_str!("../../tests/data/attestation/firmware-5.2.7.pem");
const NEW: &str = include_str!("../../tests/data/attestation/firmware-5.7.4.pem");

/// A share key that is on no token.
fn elsewhere() -> ShareKey {
    ShareIdentity::generate().unwrap().share_key()
}

fn facts_of(text: &str) -> Facts {
    let attested = Bundle::parse(text)
        .unwrap()
        .facts(&Anchors::yubico().unwrap())
        .unwrap();
    assert_eq!(attested.share, None);
    attested.approval
}

#[test]
fn real_attestations_of_both_hierarchies_are_believed() {
    for (name, text, firmware, serial, slot, pin, touch, form, root) in [
        (
            "P-384 in a retired slot, f9 without constraints",
            OLD,
            Firmware(5, 2, 4),
            11_778_047,
            0x93,
            PinPolicy::Never,
            TouchPolicy::Cached,
            5,
            0,
        ),
        (
            "P-256 in 9c",
            SIGNED_OFF,
            Firmware(5, 2, 7),
            15_938_765,
            0x9c,
            PinPolicy::Always,
            TouchPolicy::Always,
            3,
            0,
        ),
        (
            "the hierarchy of 2024",
            NEW,
            Firmware(5, 7, 4),
            33_162_554,
            0x82,
            PinPolicy::Never,
            TouchPolicy::Always,
            3,
            2,
        ),
    ] {
        let facts = facts_of(text);
        let told = (
            facts.firmware,
            facts.serial,
            facts.slot,
            facts.pin,
            facts.touch,
            facts.form_factor,
        );
        assert_eq!(
            told,
            (
                firmware,
                Some(serial),
                slot,
                pin,
                touch,
                Some(FormFactor(form))
            ),
            "{name}"
        );
        assert_eq!(facts.root, YUBICO_ROOTS[root], "{name}");
    }
}

#[test]
fn any_flipped_byte_of_a_real_chain_is_noticed() {
    let anchors = Anchors::yubico().unwrap();
    let good = Bundle::parse(SIGNED_OFF).unwrap();
    let key = ApprovalKey::from_spki(&good.facts(&anchors).unwrap().approval.spki).unwrap();
    let share = elsewhere();
    assert!(good.verify(&anchors, &key, &share).is_ok());
    for index in 0..good.approval.len() {
        let mut bad = good.clone();
        bad.approval[index] ^= 1;
        assert!(
            bad.verify(&anchors, &key, &share).is_err(),
            "byte {index} of the leaf"
        );
    }
    for index in 0..good.f9.len() {
        let mut bad = good.clone();
        bad.f9[index] ^= 1;
        assert!(
            bad.verify(&anchors, &key, &share).is_err(),
            "byte {index} of f9"
        );
    }
}

/// A certificate to be made: who it says it is and what it says.
struct Wanted<'a> {
    subject: &'a str,
    ca: Option<bool>,
    facts: Option<([u8; 3], u32, [u8; 2])>,
}

struct Made {
    key: KeyPair,
    params: CertificateParams,
    der: Vec<u8>,
}

impl Made {
    fn new(
        wanted: &Wanted<'_>,
        algorithm: &'static SignatureAlgorithm,
        issuer: Option<&Self>,
    ) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params
            .distinguished_name
            .push(DnType::CommonName, wanted.subject);
        params.is_ca = match wanted.ca {
            Some(true) => IsCa::Ca(BasicConstraints::Unconstrained),
            Some(false) => IsCa::ExplicitNoCa,
            None => IsCa::NoCa,
        };
        if let Some((firmware, serial, policy)) = wanted.facts {
            let serial = [&[2, 4], serial.to_be_bytes().as_slice()].concat();
            for (number, value) in [(3, firmware.to_vec()), (7, serial), (8, policy.to_vec())] {
                let oid = [1, 3, 6, 1, 4, 1, 41482, 3, number];
                params
                    .custom_extensions
                    .push(CustomExtension::from_oid_content(&oid, value));
            }
        }
        let cert = match issuer {
            None => params.self_signed(&key).unwrap(),
            Some(by) => params
                .signed_by(&key, &Issuer::from_params(&by.params, &by.key))
                .unwrap(),
        };
        Self {
            key,
            params,
            der: cert.der().to_vec(),
        }
    }

    fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    fn fingerprint(&self) -> Fingerprint {
        Cert::parse(&self.der).unwrap().fingerprint
    }
}

const CA: Option<bool> = Some(true);
const ROOT: Wanted<'_> = Wanted {
    subject: "Test Root",
    ca: CA,
    facts: None,
};
const F9: Wanted<'_> = Wanted {
    subject: "Yubico PIV Attestation",
    ca: CA,
    facts: None,
};
const FACTS: Option<([u8; 3], u32, [u8; 2])> = Some(([5, 7, 4], 1234, [3, 2]));
const LEAF: Wanted<'_> = Wanted {
    subject: "YubiKey PIV Attestation 9c",
    ca: None,
    facts: FACTS,
};
const SHARE: Wanted<'_> = Wanted {
    subject: "YubiKey PIV Attestation 82",
    ca: None,
    facts: Some(([5, 7, 4], 1234, [2, 3])),
};

fn p256(wanted: &Wanted<'_>, issuer: Option<&Made>) -> Made {
    Made::new(wanted, &PKCS_ECDSA_P256_SHA256, issuer)
}

fn bundle(leaf: &Made, share: Option<&Made>, f9: &Made) -> Bundle {
    Bundle {
        approval: leaf.der.clone(),
        share: share.map(|made| made.der.clone()),
        f9: f9.der.clone(),
    }
}

fn spki(made: &Made) -> Vec<u8> {
    Cert::parse(&made.der).unwrap().spki().to_vec()
}

#[test]
fn every_kind_of_link_is_checked() {
    for (name, algorithm) in [
        ("RSA", &PKCS_RSA_SHA256),
        ("P-256", &PKCS_ECDSA_P256_SHA256),
        ("P-384", &PKCS_ECDSA_P384_SHA384),
    ] {
        let root = Made::new(&ROOT, algorithm, None);
        let inter = Made::new(
            &Wanted {
                subject: "Test Intermediate",
                ca: CA,
                facts: None,
            },
            algorithm,
            Some(&root),
        );
        let f9 = Made::new(&F9, algorithm, Some(&inter));
        let (leaf, share) = (p256(&LEAF, Some(&f9)), p256(&SHARE, Some(&f9)));
        let anchors = Anchors::parse(&(inter.pem() + &root.pem()), &[root.fingerprint()]).unwrap();
        let key = ApprovalKey::from_spki(&spki(&leaf)).unwrap();
        let on_token = ShareKey::Piv(piv_key(&spki(&share)).unwrap());
        let both = bundle(&leaf, Some(&share), &f9);
        assert_eq!(
            Bundle::parse(&both.to_pem()).unwrap().to_pem(),
            both.to_pem(),
            "{name}"
        );
        let attested = both.verify(&anchors, &key, &on_token).unwrap();
        assert_eq!(attested.approval.slot, 0x9c, "{name}");
        let share = attested.share.unwrap();
        assert_eq!(
            (share.slot, share.pin, share.touch),
            (0x82, PinPolicy::Once, TouchPolicy::Cached),
            "{name}"
        );
        let alone = bundle(&leaf, None, &f9);
        assert!(alone.verify(&anchors, &key, &elsewhere()).is_ok(), "{name}");
        let approval = ShareKey::Piv(piv_key(key.spki()).unwrap());
        for (why, bundle, share) in [
            ("share key not attested", &alone, &on_token),
            (
                "attested, but enrolled is one elsewhere",
                &both,
                &elsewhere(),
            ),
            ("another key of the token", &both, &approval),
        ] {
            assert_eq!(
                bundle.verify(&anchors, &key, share),
                Err(AttestationError::OtherKey("share")),
                "{name}: {why}"
            );
        }
    }
}

/// A root of our own with one attestation key below it.
fn hierarchy() -> (Made, Anchors, Made) {
    let root = p256(&ROOT, None);
    let anchors = Anchors::parse(&root.pem(), &[root.fingerprint()]).unwrap();
    let f9 = p256(&F9, Some(&root));
    (root, anchors, f9)
}

#[test]
fn only_the_attestation_key_attests() {
    let (root, anchors, f9) = hierarchy();
    let other_f9 = p256(&F9, Some(&p256(&ROOT, None)));
    let self_made = p256(&F9, None);
    let fido = p256(
        &Wanted {
            subject: "Yubico U2F EE Serial 1",
            ..F9
        },
        Some(&root),
    );
    let no_ca = p256(
        &Wanted {
            ca: Some(false),
            ..F9
        },
        Some(&root),
    );
    // A key made in slot 9a of a genuine token signs whatever its owner likes, also certificates.
    let in_9a = p256(
        &Wanted {
            subject: "YubiKey PIV Attestation 9a",
            ..LEAF
        },
        Some(&f9),
    );
    let like_f9 = p256(&Wanted { facts: FACTS, ..F9 }, Some(&in_9a));
    let not_attester = |subject: &str| Err(AttestationError::NotAttester(format!("CN={subject}")));
    for (name, attester, want) in [
        ("as made", &f9, Ok(())),
        (
            "under another root of the same name",
            &other_f9,
            Err(AttestationError::Untrusted),
        ),
        ("self-made", &self_made, Err(AttestationError::Untrusted)),
        ("a key in 9a", &in_9a, Err(AttestationError::Untrusted)),
        (
            "named by a key in 9a",
            &like_f9,
            Err(AttestationError::Untrusted),
        ),
        ("the root itself", &root, not_attester("Test Root")),
        ("a FIDO key", &fido, not_attester("Yubico U2F EE Serial 1")),
        (
            "one that must not sign",
            &no_ca,
            not_attester("Yubico PIV Attestation"),
        ),
    ] {
        let leaf = p256(&LEAF, Some(attester));
        assert_eq!(
            bundle(&leaf, None, attester).facts(&anchors).map(|_| ()),
            want,
            "{name}"
        );
    }
}

#[test]
fn a_leaf_tells_everything_or_nothing() {
    let (root, anchors, f9) = hierarchy();
    let leaf = |wanted: Wanted<'_>| p256(&wanted, Some(&f9));
    let policy = |policy| {
        leaf(Wanted {
            facts: Some(([5, 7, 4], 1234, policy)),
            ..LEAF
        })
    };
    let by_other = p256(&LEAF, Some(&p256(&F9, Some(&root))));
    for (name, made, want) in [
        ("by another key", by_other, AttestationError::Forged),
        (
            "an authority",
            leaf(Wanted { ca: CA, ..LEAF }),
            AttestationError::Forged,
        ),
        (
            "no facts",
            leaf(Wanted {
                facts: None,
                ..LEAF
            }),
            AttestationError::Missing("firmware"),
        ),
        (
            "PIN policy 4",
            policy([4, 2]),
            AttestationError::Missing("PIN policy"),
        ),
        (
            "touch policy 0",
            policy([3, 0]),
            AttestationError::Missing("touch policy"),
        ),
        (
            "no slot",
            leaf(Wanted {
                subject: "x",
                ..LEAF
            }),
            AttestationError::Missing("slot"),
        ),
    ] {
        assert_eq!(
            bundle(&made, None, &f9).facts(&anchors),
            Err(want),
            "{name}"
        );
    }
}

#[test]
fn only_the_enrolled_keys_are_attested() {
    let (_, anchors, f9) = hierarchy();
    let (leaf, other) = (p256(&LEAF, Some(&f9)), p256(&LEAF, Some(&f9)));
    let other_key = ApprovalKey::from_spki(&spki(&other)).unwrap();
    let got = bundle(&leaf, None, &f9).verify(&anchors, &other_key, &elsewhere());
    assert_eq!(got, Err(AttestationError::OtherKey("approval")));
    let elsewhere = Wanted {
        facts: Some(([5, 7, 4], 4321, [2, 3])),
        ..SHARE
    };
    let got = bundle(&leaf, Some(&p256(&elsewhere, Some(&f9))), &f9).facts(&anchors);
    assert_eq!(got, Err(AttestationError::TwoTokens));
}

#[test]
fn anchors_are_pinned() {
    let root = p256(&ROOT, None);
    let other = p256(
        &Wanted {
            subject: "Other Root",
            ..ROOT
        },
        None,
    );
    let inter = p256(
        &Wanted {
            subject: "Test Intermediate",
            ..ROOT
        },
        Some(&other),
    );
    let not_ca = p256(
        &Wanted {
            subject: "Test Intermediate",
            ca: None,
            facts: None,
        },
        Some(&root),
    );
    let pin = [root.fingerprint()];
    let error = |text: &str| Anchors::parse(text, &pin).err();
    let not_pinned =
        AnchorsError::NotPinned("CN=Other Root".into(), hex::encode(other.fingerprint()));
    let dangling = Some(AnchorsError::Dangling("CN=Test Intermediate".into()));
    for (name, text, want) in [
        ("the pinned root", root.pem(), None),
        (
            "a root that is not pinned",
            root.pem() + &other.pem(),
            Some(not_pinned),
        ),
        (
            "an intermediate of another root",
            root.pem() + &inter.pem(),
            dangling.clone(),
        ),
        (
            "an intermediate that is no authority",
            root.pem() + &not_ca.pem(),
            dangling,
        ),
        ("nothing", String::new(), Some(AnchorsError::Empty)),
        (
            "no certificate",
            pem::encode("CERTIFICATE", b"x"),
            Some(AnchorsError::Certificate(1)),
        ),
        (
            "a key",
            pem::encode("PUBLIC KEY", b"x"),
            Some(AnchorsError::Pem),
        ),
    ] {
        assert_eq!(error(&text), want, "{name}");
    }
    assert!(Anchors::yubico().is_ok());
}

#[test]
fn a_file_of_roots_names_its_pins() {
    let (root, inter) = (p256(&ROOT, None), p256(&ROOT, None));
    let pin = hex::encode(root.fingerprint());
    let error = |text: String| Anchors::from_file(&text).err();
    assert_eq!(error(format!("pinned: {pin}\n{}", root.pem())), None);
    let not_pinned = |made: &Made| {
        let hex = hex::encode(made.fingerprint());
        Some(AnchorsError::NotPinned("CN=Test Root".into(), hex))
    };
    for (name, text, want) in [
        ("no pin", root.pem(), not_pinned(&root)),
        (
            "a pin that is mentioned only",
            format!("not pinned: {pin}\n{}", root.pem()),
            not_pinned(&root),
        ),
        (
            "another root of the same name",
            format!("pinned: {pin}\n{}{}", root.pem(), inter.pem()),
            not_pinned(&inter),
        ),
        (
            "capitals",
            format!("pinned: {}\n{}", pin.to_uppercase(), root.pem()),
            Some(AnchorsError::Pin(pin.to_uppercase())),
        ),
        (
            "half a pin",
            format!("pinned: {}\n{}", &pin[..32], root.pem()),
            Some(AnchorsError::Pin(pin[..32].to_owned())),
        ),
        (
            "much too long",
            "x".repeat(ANCHORS_FILE_MAX + 1),
            Some(AnchorsError::Long),
        ),
    ] {
        assert_eq!(error(text), want, "{name}");
    }
    let anchors = Anchors::yubico().unwrap();
    assert_eq!(anchors.roots().collect::<Vec<_>>(), YUBICO_ROOTS);
}

/// A token of which anything can be attested.
struct Bench {
    anchors: Anchors,
    f9: Made,
}

impl Bench {
    fn new() -> Self {
        let (_, anchors, f9) = hierarchy();
        Self { anchors, f9 }
    }

    fn key(&self, slot: &str, policy: [u8; 2]) -> Made {
        let subject = format!("YubiKey PIV Attestation {slot}");
        let facts = Some(([5, 7, 4], 1234, policy));
        let wanted = Wanted {
            subject: &subject,
            ca: None,
            facts,
        };
        p256(&wanted, Some(&self.f9))
    }

    /// Claims these two keys, and brings these attestations.
    fn claim(
        &self,
        keys: [&Made; 2],
        attested: (&Made, Option<&Made>),
        serial: u32,
    ) -> Result<Proven, AttestationError> {
        let approval = ApprovalKey::from_spki(&spki(keys[0])).unwrap();
        let share = ShareKey::Piv(piv_key(&spki(keys[1])).unwrap());
        let claim = Claim {
            approval: &approval,
            share: &share,
            serial,
        };
        let text = bundle(attested.0, attested.1, &self.f9).to_pem();
        prove(&text, &self.anchors, claim)
    }
}

#[test]
fn claims_are_proven_by_the_maker_or_not_at_all() {
    let bench = Bench::new();
    let (in_9c, in_82) = (bench.key("9c", [3, 2]), bench.key("82", [2, 3]));
    let proven = bench.claim([&in_9c, &in_82], (&in_9c, Some(&in_82)), 1234);
    let policies = proven.map(|proven| (proven.approval.policy(), proven.share.policy()));
    assert_eq!(policies, Ok(([3, 2], [2, 3])));

    let (in_9a, other) = (bench.key("9a", [2, 3]), bench.key("82", [2, 3]));
    let (approval, share) = (
        AttestationError::OtherKey("approval"),
        AttestationError::OtherKey("share"),
    );
    let serial = AttestationError::Serial {
        attested: Some(1234),
        claimed: 4321,
    };
    let none = AttestationError::ShareNotAttested;
    for (name, keys, attested, number, want) in [
        (
            "share key not attested",
            [&in_9c, &in_82],
            (&in_9c, None),
            1234,
            none,
        ),
        (
            "another share key",
            [&in_9c, &in_82],
            (&in_9c, Some(&other)),
            1234,
            share,
        ),
        (
            "each one's for the other",
            [&in_9c, &in_82],
            (&in_82, Some(&in_9c)),
            1234,
            approval,
        ),
        (
            "swapped slots",
            [&in_82, &in_9c],
            (&in_82, Some(&in_9c)),
            1234,
            AttestationError::ApprovalSlot(0x82),
        ),
        (
            "share key in 9a",
            [&in_9c, &in_9a],
            (&in_9c, Some(&in_9a)),
            1234,
            AttestationError::ShareSlot(0x9a),
        ),
        (
            "another token",
            [&in_9c, &in_82],
            (&in_9c, Some(&in_82)),
            4321,
            serial,
        ),
    ] {
        assert_eq!(bench.claim(keys, attested, number), Err(want), "{name}");
    }
}

#[test]
fn a_bundle_has_one_spelling() {
    let good = Bundle::parse(NEW).unwrap().to_pem();
    assert_eq!(good, NEW);
    for (name, text) in [
        ("a comment", format!("x\n{good}")),
        ("a blank line", format!("{good}\n")),
        ("carriage returns", good.replace('\n', "\r\n")),
        ("one certificate", good[..good.len() / 2].to_owned()),
        ("four certificates", format!("{good}{good}")),
        ("nothing", String::new()),
        ("much too long", "x".repeat(BUNDLE_MAX + 1)),
    ] {
        assert_eq!(
            Bundle::parse(&text).err(),
            Some(AttestationError::Format),
            "{name}"
        );
    }
}

#[test]
fn serial_numbers_are_positive_and_fit() {
    for (name, raw, want) in [
        ("one byte", &[2, 1, 5][..], Some(5)),
        ("zero", &[2, 1, 0], Some(0)),
        (
            "with the sign's zero",
            &[2, 5, 0, 255, 255, 255, 255],
            Some(u32::MAX),
        ),
        ("more zeros than needed", &[2, 4, 0, 0, 4, 210], Some(1234)),
        ("negative", &[2, 1, 0x80], None),
        ("too long", &[2, 5, 1, 0, 0, 0, 0], None),
        ("empty", &[2, 0], None),
        ("no integer", &[4, 1, 5], None),
        ("length too large", &[2, 2, 5], None),
        ("a byte behind", &[2, 1, 5, 0], None),
    ] {
        assert_eq!(serial_number(raw), want, "{name}");
    }
}

#[test]
fn firmware_is_read_as_people_write_it() {
    assert_eq!("5.7".parse(), Ok(Firmware(5, 7, 0)));
    assert_eq!("5.7.1".parse::<Firmware>().unwrap().to_string(), "5.7.1");
    for bad in ["", "5", "5.7.1.2", "5.x", "5.256"] {
        assert!(bad.parse::<Firmware>().is_err(), "{bad}");
    }
    assert_eq!(FormFactor(0x83).to_string(), "USB-C keychain, FIPS");
}
