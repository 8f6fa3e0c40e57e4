use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use signed_note::{Note as TheirNote, StandardVerifier, VerifierList};

use super::*;

const ORIGIN: &str = "vault.example.org/prod";

fn log_key() -> LogKey {
    LogKey::from_seed(ORIGIN, &[7; 32]).unwrap()
}

/// A witness, as another program would be one: it signs with the library alone.
pub(crate) fn witness(name: &str, seed: u8) -> (Ed25519KeyPair, Vkey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    (pair, Vkey::new(name, Use::Witness, public).unwrap())
}

pub(crate) fn cosign(pair: &Ed25519KeyPair, vkey: &Vkey, time: u64, text: &str) -> String {
    let signature = pair.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
    let bytes = [&time.to_be_bytes(), signature.as_ref()].concat();
    Signature {
        name: vkey.name().to_owned(),
        id: vkey.id(),
        bytes,
    }
    .to_string()
}

#[test]
fn examples_of_the_specification() {
    let vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    assert_eq!(vkey.parse::<Vkey>().unwrap().to_string(), vkey);
    let note = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\
        — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let parsed: Note = note.parse().unwrap();
    assert!(parsed.text().ends_with("sole:\n\ned è subito sera.\n"));
    assert_eq!(parsed.signatures()[0].name(), "quasimodo.example/salvatore");
    assert_eq!(parsed.to_string(), note);
    // A checkpoint with a witness's line, in the forms of the two specifications.
    let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let parsed: Note = note.parse().unwrap();
    let checkpoint: Checkpoint = parsed.text().parse().unwrap();
    assert_eq!(
        (checkpoint.origin.as_str(), checkpoint.size),
        ("example.com/behind-the-sofa", 20_852_163)
    );
    assert_eq!(parsed.to_string(), note);
}

#[test]
fn others_accept_our_checkpoints() {
    let key = log_key();
    let note = key.sign(5, [8; 32]).unwrap().note().to_string();
    let verifier = StandardVerifier::new(&key.vkey().to_string()).unwrap();
    let theirs = TheirNote::from_bytes(note.as_bytes()).unwrap();
    let (known, unknown) = theirs
        .verify(&VerifierList::new(vec![Box::new(verifier)]))
        .unwrap();
    assert_eq!((known.len(), unknown.len()), (1, 0));
    assert_eq!(known[0].id(), u32::from_be_bytes(key.vkey().id()));
    let text = format!("{ORIGIN}\n5\nCAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n");
    assert_eq!(theirs.text(), text.as_bytes());
}

#[test]
fn the_seed_is_the_key() {
    let key = LogKey::generate(ORIGIN).unwrap();
    let again = LogKey::from_seed(ORIGIN, &key.to_seed().unwrap()).unwrap();
    assert_eq!(again.vkey(), key.vkey());
    assert_eq!(
        again.sign(1, [1; 32]).unwrap(),
        key.sign(1, [1; 32]).unwrap()
    );
    assert_ne!(LogKey::generate(ORIGIN).unwrap().vkey(), key.vkey());
    assert_eq!(*log_key().to_seed().unwrap(), [7; 32]);
    // RFC 8032, test 1: the public key of a seed.
    let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let key = LogKey::from_seed("a", &seed.unwrap().try_into().unwrap()).unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(hex::encode(key.vkey().public()), public);
    assert!(!format!("{key:?}").contains("9d61b1"));
    assert_eq!(log_key().sign(1 << 53, [0; 32]), Err(KeyError::Size));
}

#[test]
fn every_changed_byte_of_a_checkpoint_is_refused() {
    let key = log_key();
    let signed = key.sign(4_711, [8; 32]).unwrap();
    let note = signed.note().to_string();
    assert_eq!(SignedCheckpoint::open(&note, key.vkey()), Ok(signed));
    let mut tried = 0;
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(
                    SignedCheckpoint::open(&changed, key.vkey()).is_err(),
                    "{changed}"
                );
                tried += 1;
            }
        }
        if let Some(cut) = note.get(..at) {
            assert!(SignedCheckpoint::open(cut, key.vkey()).is_err(), "{cut}");
        }
    }
    assert!(tried > 1_000);
}

#[test]
fn a_checkpoint_is_accepted_from_its_log_only() {
    let key = log_key();
    let vkey = key.vkey();
    let signed = key.sign(3, [1; 32]).unwrap();
    let text = signed.note().text().to_owned();
    let line = signed.note().signatures()[0].to_string();
    let stranger = LogKey::from_seed(ORIGIN, &[8; 32]).unwrap();
    let foreign = stranger.sign(3, [1; 32]).unwrap().note().signatures()[0].to_string();
    let same_id_other_name = line.replace("/prod", "/test");
    let bare = Signature {
        bytes: vec![1],
        ..signed.note().signatures()[0].clone()
    }
    .to_string();
    // The same key for another name: the text is honestly signed, but by nobody whom the line names.
    let other = LogKey::from_seed("other.example", &[7; 32]).unwrap();
    let other_text = other.sign(3, [1; 32]).unwrap().note().text().to_owned();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let sign = |text: &str| {
        let bytes = pair.sign(text.as_bytes()).as_ref().to_vec();
        Signature {
            bytes,
            ..signed.note().signatures()[0].clone()
        }
        .to_string()
    };
    for (name, note, want) in [
        ("signed", format!("{text}\n{line}\n"), Ok(())),
        (
            "with a stranger's line before",
            format!("{text}\n{foreign}\n{line}\n"),
            Ok(()),
        ),
        (
            "with a stranger's line after",
            format!("{text}\n{line}\n{foreign}\n"),
            Ok(()),
        ),
        (
            "twice the same line",
            format!("{text}\n{line}\n{line}\n"),
            Ok(()),
        ),
        (
            "a stranger's line alone",
            format!("{text}\n{foreign}\n"),
            Err(OpenError::Unsigned),
        ),
        (
            "same id, other name",
            format!("{text}\n{same_id_other_name}\n"),
            Err(OpenError::Unsigned),
        ),
        (
            "a wrong line after a right one",
            format!("{text}\n{line}\n{bare}\n"),
            Err(OpenError::Signature),
        ),
        (
            "another log's checkpoint",
            format!("{other_text}\n{}\n", sign(&other_text)),
            Err(OpenError::Origin),
        ),
        (
            "a text that is no checkpoint",
            format!("hello\n\n{}\n", sign("hello\n")),
            Err(OpenError::Checkpoint(CheckpointError)),
        ),
        (
            "no signature",
            format!("{text}\n"),
            Err(OpenError::Note(NoteError::Shape)),
        ),
    ] {
        assert_eq!(
            SignedCheckpoint::open(&note, vkey).map(|_| ()),
            want,
            "{name}"
        );
    }
    let (_, witness) = witness(ORIGIN, 7);
    let note = format!("{text}\n{line}\n");
    assert_eq!(SignedCheckpoint::open(&note, &witness), Err(OpenError::Use));
}

#[test]
fn witnesses_cosign() {
    let key = log_key();
    let mut signed = key.sign(3, [1; 32]).unwrap();
    let text = signed.note().text().to_owned();
    let (pair, vkey) = witness("witness.example/w1", 1);
    let (other_pair, other) = witness("witness.example/w2", 2);
    assert_eq!(signed.cosignature(&vkey), Ok(None));
    let line = cosign(&pair, &vkey, 1_679_315_147, &text);
    let want = Cosignature {
        time_secs: 1_679_315_147,
    };
    assert_eq!(signed.cosign(&line, &vkey), Ok(want));
    assert_eq!(signed.cosign(&line, &vkey), Ok(want), "the same line again");
    assert_eq!(signed.note().signatures().len(), 2);
    assert_eq!(signed.cosignature(&vkey), Ok(Some(want)));
    assert_eq!(signed.cosignature(&other), Ok(None));
    // It travels in the note, and others ignore it.
    let again = SignedCheckpoint::open(&signed.note().to_string(), key.vkey()).unwrap();
    assert_eq!(again.cosignature(&vkey), Ok(Some(want)));
    let verifier = StandardVerifier::new(&key.vkey().to_string()).unwrap();
    let theirs = TheirNote::from_bytes(signed.note().to_string().as_bytes()).unwrap();
    let (known, unknown) = theirs
        .verify(&VerifierList::new(vec![Box::new(verifier)]))
        .unwrap();
    assert_eq!((known.len(), unknown.len()), (1, 1));

    let other_text = key.sign(4, [1; 32]).unwrap().note().text().to_owned();
    let plain = pair.sign(text.as_bytes()).as_ref().to_vec();
    let plain = Signature {
        bytes: plain,
        name: vkey.name().to_owned(),
        id: vkey.id(),
    }
    .to_string();
    for (name, line, by, want) in [
        (
            "another checkpoint",
            cosign(&pair, &vkey, 5, &other_text),
            &vkey,
            OpenError::Signature,
        ),
        (
            "another witness's key",
            cosign(&other_pair, &vkey, 5, &text),
            &vkey,
            OpenError::Signature,
        ),
        (
            "another witness's line",
            cosign(&other_pair, &other, 5, &text),
            &vkey,
            OpenError::Unsigned,
        ),
        (
            "time beyond 2^63 - 1",
            cosign(&pair, &vkey, 1 << 63, &text),
            &vkey,
            OpenError::Signature,
        ),
        (
            "a plain signature without a time",
            plain,
            &vkey,
            OpenError::Signature,
        ),
        (
            "not a line",
            "hello".to_owned(),
            &vkey,
            OpenError::Note(NoteError::Signature),
        ),
        (
            "the log's own line",
            signed.note().signatures()[0].to_string(),
            key.vkey(),
            OpenError::Use,
        ),
    ] {
        assert_eq!(signed.cosign(&line, by), Err(want), "{name}");
    }
    assert_eq!(
        signed.note().signatures().len(),
        2,
        "nothing refused was added"
    );
    // A wrong line that came with the note is an error, not silence.
    let forged = cosign(&pair, &vkey, 9, &other_text);
    let note = format!("{}{forged}\n", signed.note());
    let forged = SignedCheckpoint::open(&note, key.vkey()).unwrap();
    assert_eq!(forged.cosignature(&vkey), Err(OpenError::Signature));
}

#[test]
fn notes_are_bounded_and_have_one_form() {
    let line = "— a AAAAAAA=";
    let many = |count| format!("text\n\n{}", format!("{line}\n").repeat(count));
    assert_eq!(many(1).parse::<Note>().unwrap().to_string(), many(1));
    assert!(many(MAX_SIGNATURES).parse::<Note>().is_ok());
    for (name, note, want) in [
        (
            "too many signatures",
            many(MAX_SIGNATURES + 1),
            NoteError::TooMany,
        ),
        (
            "too long",
            format!("{}\n\n{line}\n", "x".repeat(MAX_NOTE_BYTES)),
            NoteError::TooLong,
        ),
        ("nothing", String::new(), NoteError::Shape),
        ("no empty line", format!("text\n{line}\n"), NoteError::Shape),
        ("no text", format!("\n{line}\n"), NoteError::Shape),
        (
            "no line end at the end",
            format!("text\n\n{line}"),
            NoteError::Shape,
        ),
        ("no signature", "text\n\n".to_owned(), NoteError::Shape),
        (
            "carriage returns",
            many(1).replace('\n', "\r\n"),
            NoteError::Control,
        ),
        ("a tab", format!("te\txt\n\n{line}\n"), NoteError::Control),
        (
            "a hyphen for the dash",
            many(1).replace('—', "-"),
            NoteError::Signature,
        ),
        (
            "two spaces",
            many(1).replace(" a ", " a  "),
            NoteError::Signature,
        ),
        (
            "no name",
            many(1).replace(" a ", "  "),
            NoteError::Signature,
        ),
        (
            "a plus in the name",
            many(1).replace(" a ", " a+b "),
            NoteError::Signature,
        ),
        (
            "a wide space in the name",
            many(1).replace(" a ", " a\u{2003}b "),
            NoteError::Signature,
        ),
        (
            "an id without a signature",
            many(1).replace("AAAAAAA=", "AAAAAA=="),
            NoteError::Signature,
        ),
        ("no padding", many(1).replace('=', ""), NoteError::Signature),
        (
            "loose bits at the end",
            many(1).replace("A=", "B="),
            NoteError::Signature,
        ),
        (
            "url alphabet",
            many(1).replace("AAAAAAA=", "AAAAAA-="),
            NoteError::Signature,
        ),
        (
            "not a signature line",
            format!("text\n\n{line}\nmore\n"),
            NoteError::Signature,
        ),
    ] {
        assert_eq!(note.parse::<Note>(), Err(want), "{name}");
    }
}

#[test]
fn checkpoints_have_one_form() {
    let good = "vault.example.org/prod\n5\nCAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n";
    assert_eq!(good.parse::<Checkpoint>().unwrap().to_string(), good);
    for (name, from, to) in [
        ("size with a leading zero", "\n5\n", "\n05\n"),
        ("size with a plus", "\n5\n", "\n+5\n"),
        ("size with a space", "\n5\n", "\n5 \n"),
        ("empty size", "\n5\n", "\n\n"),
        ("size of 2^53", "\n5\n", "\n9007199254740992\n"),
        ("size beyond 64 bits", "\n5\n", "\n18446744073709551616\n"),
        ("no origin", "vault.example.org/prod\n", "\n"),
        ("origin with a space", "vault.", "vault "),
        ("short root", "CAgI", ""),
        ("root without padding", "g=\n", "g\n"),
        ("no line end", "=\n", "="),
        ("an extension line", "=\n", "=\nmore\n"),
        ("an empty line", "=\n", "=\n\n"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{name}");
        assert_eq!(
            changed.parse::<Checkpoint>(),
            Err(CheckpointError),
            "{name}"
        );
    }
}

#[test]
fn vkeys_have_one_form() {
    let good = log_key().vkey().to_string();
    let (_, witness) = witness("witness.example/w1", 1);
    for vkey in [&good, &witness.to_string()] {
        assert_eq!(vkey.parse::<Vkey>().unwrap().to_string(), *vkey);
    }
    let id = hex::encode(log_key().vkey().id());
    for (name, vkey, want) in [
        ("another name", good.replace("prod", "test"), KeyError::Vkey),
        ("another id", good.replace(&id, "00000000"), KeyError::Vkey),
        (
            "id in capitals",
            good.replace(&id, &id.to_uppercase()),
            KeyError::Vkey,
        ),
        ("no id", good.replace(&format!("{id}+"), ""), KeyError::Vkey),
        (
            "no key",
            good.split_at(good.len() - 44).0.to_owned(),
            KeyError::Vkey,
        ),
        ("ECDSA", good.replace("+A", "+Ag"), KeyError::Vkey),
        ("another kind", "a+00000000+AgAA".to_owned(), KeyError::Kind),
        ("a short key", "a+00000000+AQAA".to_owned(), KeyError::Vkey),
        (
            "a space in the name",
            good.replace("vault.", "vault "),
            KeyError::Name,
        ),
        ("a line end", format!("{good}\n"), KeyError::Vkey),
        ("nothing", String::new(), KeyError::Vkey),
    ] {
        assert_eq!(vkey.parse::<Vkey>(), Err(want), "{name}");
    }
    for name in [
        "",
        "a b",
        "a+b",
        "a\u{a0}b",
        "a\u{7f}",
        "a\n",
        &"x".repeat(256),
    ] {
        assert_eq!(
            LogKey::from_seed(name, &[1; 32]).err(),
            Some(KeyError::Name),
            "{name:?}"
        );
    }
}
