use keyturn_seal::{
    DecryptError, EnvelopeError, Secret, ShareError, ShareIdentity, Sharing, TextError,
    binding::Field, commitment, encrypt_to, envelope::MAX_PLAINTEXT_BYTES, shamir::Share,
};

use crate::{Case, binding, hex};

const SHARE: [u8; 32] = [0xc3; 32];

/// 2 of 3; custodian 2 has [`SHARE`].
fn sharing() -> Sharing {
    let share = |x, byte| Share::new(x, Secret::from_slice(&[byte; 32]).unwrap()).unwrap();
    let commitments =
        [(1, 1), (2, 0xc3), (3, 3)].map(|(x, byte)| commitment(&binding(), "ops", &share(x, byte)));
    Sharing::new(binding(), "ops", 2, commitments.to_vec()).unwrap()
}

/// Written by hand from the documentation, not by the crate.
fn text() -> String {
    format!(
        "keyturn share v1\norigin: vault.example.org/prod\ncredential: 01HZXW3VJ0E0N7Q7D1Y8K2M4TA\nversion: 7\n\
         group: ops\nk: 2\nn: 3\nx: 2\nshare: {}\n",
        hex(&SHARE)
    )
}

fn open(text: &[u8]) -> Result<[u8; 32], EnvelopeError> {
    let key = ShareIdentity::generate().unwrap();
    let envelope = encrypt_to(&[key.share_key()], text).unwrap();
    sharing()
        .open_envelope(2, &envelope, &key)
        .map(|share| *share.secret().expose())
}

#[test]
fn every_field_is_checked() {
    use EnvelopeError::{Another, Decrypt, Share as Wrong, Text};
    assert_eq!(open(text().as_bytes()), Ok(SHARE));
    let line = |name| Err(Text(TextError::Line(name)));
    let digits = hex(&SHARE);
    let padding = "x".repeat(MAX_PLAINTEXT_BYTES);
    let upper = digits.to_uppercase();
    let other = hex(&[0xc2; 32]);
    for (name, from, to, want) in [
        (
            "another vault",
            "org/prod",
            "org/test",
            Err(Another(Field::Origin)),
        ),
        (
            "another credential",
            "credential: 01HZ",
            "credential: 01J0",
            Err(Another(Field::Credential)),
        ),
        (
            "another version",
            "version: 7",
            "version: 8",
            Err(Another(Field::Version)),
        ),
        (
            "another group",
            "group: ops",
            "group: board",
            Err(Another(Field::Group)),
        ),
        ("another k", "k: 2", "k: 3", Err(Another(Field::K))),
        ("k = 1", "k: 2", "k: 1", Err(Another(Field::K))),
        ("another n", "n: 3", "n: 4", Err(Another(Field::N))),
        ("another x", "x: 2", "x: 1", Err(Another(Field::X))),
        (
            "another share",
            &digits,
            &other,
            Err(Wrong(ShareError::NotAsSealed(2))),
        ),
        ("x = 0", "x: 2", "x: 0", line("x")),
        ("x = 256", "x: 2", "x: 256", line("x")),
        ("k = 0", "k: 2", "k: 0", line("k")),
        ("version 0", "version: 7", "version: 0", line("version")),
        (
            "version with zeros",
            "version: 7",
            "version: 007",
            line("version"),
        ),
        (
            "version beyond 64 bits",
            "version: 7",
            "version: 18446744073709551616",
            line("version"),
        ),
        ("no vault", "vault.example.org/prod", "", line("origin")),
        ("a line absent", "n: 3\n", "", line("n")),
        ("a line twice", "n: 3\n", "n: 3\nn: 3\n", line("x")),
        ("lines exchanged", "k: 2\nn: 3\n", "n: 3\nk: 2\n", line("k")),
        ("upper case", &digits, &upper, line("share")),
        ("share cut", "c3\n", "\n", line("share")),
        ("share too long", "c3\n", "c3c3\n", line("share")),
        ("last line end cut", "c3\n", "c3", line("share")),
        (
            "something follows",
            "c3\n",
            "c3\n\n",
            Err(Text(TextError::Extra)),
        ),
        (
            "another type",
            "share v1",
            "share v2",
            Err(Text(TextError::Type("keyturn share v1"))),
        ),
        (
            "Windows line ends",
            "\n",
            "\r\n",
            Err(Text(TextError::Type("keyturn share v1"))),
        ),
        (
            "oversized",
            "vault",
            &padding,
            Err(Decrypt(DecryptError::TooLong(0))),
        ),
    ] {
        let altered = text().replacen(from, to, if from == "\n" { usize::MAX } else { 1 });
        // `c3\n` is the end of the share only.
        let altered = if from == "c3\n" {
            text().strip_suffix(from).unwrap().to_owned() + to
        } else {
            altered
        };
        assert_ne!(altered, text(), "{name} alters nothing");
        let mut opened = open(altered.as_bytes());
        if let Err(Decrypt(DecryptError::TooLong(length))) = &mut opened {
            *length = 0;
        }
        assert_eq!(opened, want, "{name}");
    }
    assert_eq!(
        open(b""),
        Err(Text(TextError::Type("keyturn share v1"))),
        "empty"
    );
    assert_eq!(
        open(b"keyturn share v1\n\xff"),
        Err(Text(TextError::NotText)),
        "not UTF-8"
    );
}

#[test]
fn altered_files_do_not_decrypt() {
    let case = Case::new(&binding(), &[(2, 2)]);
    let (sharing, key) = (case.sharing(0), &case.keys[0][0]);
    let [ours, theirs] = [0, 1].map(|place| case.sealed.groups[0].shares[place].envelope.clone());
    assert!(sharing.open_envelope(1, &ours, key).is_ok());
    let mut flipped = ours.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let oversized = [ours.clone(), vec![0; 10_000]].concat();
    for (name, file, want) in [
        ("another custodian's", theirs, DecryptError::NotForThisKey),
        ("a bit altered", flipped, DecryptError::Damaged),
        (
            "cut",
            ours[..ours.len() - 1].to_vec(),
            DecryptError::Damaged,
        ),
        (
            "cut in the header",
            ours[..100].to_vec(),
            DecryptError::NotAge,
        ),
        ("empty", vec![], DecryptError::NotAge),
        (
            "oversized",
            oversized.clone(),
            DecryptError::TooLong(oversized.len()),
        ),
    ] {
        let refused = sharing.open_envelope(1, &file, key).err();
        assert_eq!(refused, Some(EnvelopeError::Decrypt(want)), "{name}");
    }
    let another = case.sharing(0).open_envelope(2, &ours, key).err();
    assert_eq!(
        another,
        Some(EnvelopeError::Another(Field::X)),
        "presented as another custodian's"
    );
}

/// Errors end up in logs.
#[test]
fn errors_do_not_repeat_the_share() {
    let digits = hex(&SHARE);
    for altered in [
        text().replace("x: 2", "x: 1"),
        text().replace("k: 2", "k: k"),
        text() + &digits,
    ] {
        let error = open(altered.as_bytes()).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains(&digits[..8]), "{told}");
    }
}
