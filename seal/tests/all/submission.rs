use keyturn_seal::{
    DecryptError, Secret, ShareIdentity, ShareKey, Submission, SubmissionError, SubmittedShare,
    TextError, encrypt_to,
    submission::{MAX_PLAINTEXT_BYTES, MAX_SHARES},
};

use crate::{Case, binding, hex};

const APPROVAL: [u8; 32] = [0xab; 32];

fn share(credential: &str, version: u64, group: &str, x: u8) -> SubmittedShare {
    let share = Secret::from_slice(&[x; 32]).unwrap();
    SubmittedShare {
        credential: credential.into(),
        version,
        group: group.into(),
        x,
        share,
    }
}

fn submission(shares: Vec<SubmittedShare>) -> Submission {
    Submission {
        approval_sha256: APPROVAL,
        ceremony: "ceremony-1".into(),
        person: "bob".into(),
        shares,
    }
}

/// What an error is, without its contents.
fn told<T>(result: Result<T, SubmissionError>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(SubmissionError::Decrypt(error)) => format!("decrypt: {error}"),
        Err(SubmissionError::Text(error)) => format!("text: {error}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn shares_arrive_and_are_checked_against_the_manifest() {
    let case = Case::new(&binding(), &[(2, 2)]);
    let key = ShareIdentity::generate().unwrap();
    let sent = case.share(0, 2);
    let shares = vec![
        SubmittedShare {
            credential: "aws".into(),
            version: 7,
            group: "group-0".into(),
            x: sent.x(),
            share: Secret::from_slice(sent.secret().expose()).unwrap(),
        },
        share("aws", 6, "group-0", 3),
    ];
    let file = submission(shares).encrypt(&key.share_key()).unwrap();
    let opened = Submission::open(&file, &key, &APPROVAL, "ceremony-1", "bob").unwrap();
    let [first, second] = opened.shares.try_into().ok().unwrap();
    assert!(case.sharing(0).verify(first.x, first.share).is_ok());
    assert_eq!(
        (second.version, second.group.as_str(), second.x),
        (6, "group-0", 3)
    );
    assert!(
        case.sharing(0).verify(1, second.share).is_err(),
        "of another version"
    );
}

#[test]
fn what_cannot_be_submitted() {
    let key = ShareIdentity::generate().unwrap().share_key();
    let many = |count: usize| {
        (1..)
            .take(count)
            .map(|version| share("aws", version, "ops", 1))
            .collect::<Vec<_>>()
    };
    let repeated =
        "a credential's version is named twice for one group; a custodian submits one share of it";
    let share_name = SubmissionError::Name("share").to_string();
    for (name, shares, want) in [
        ("one", many(1), String::new()),
        ("as many as there can be", many(MAX_SHARES), String::new()),
        (
            "both groups",
            vec![share("aws", 1, "ops", 1), share("aws", 1, "board", 1)],
            String::new(),
        ),
        ("none", vec![], SubmissionError::Count(0).to_string()),
        (
            "too many",
            many(MAX_SHARES + 1),
            SubmissionError::Count(65).to_string(),
        ),
        (
            "one twice",
            vec![share("aws", 1, "ops", 1), share("aws", 1, "ops", 1)],
            repeated.into(),
        ),
        (
            "another x of it",
            vec![share("aws", 1, "ops", 1), share("aws", 1, "ops", 2)],
            repeated.into(),
        ),
        (
            "a space",
            vec![share("a b", 1, "ops", 1)],
            share_name.clone(),
        ),
        (
            "a line end",
            vec![share("aws", 1, "o\nps", 1)],
            share_name.clone(),
        ),
        (
            "version 0",
            vec![share("aws", 0, "ops", 1)],
            share_name.clone(),
        ),
        ("x = 0", vec![share("aws", 1, "ops", 0)], share_name),
    ] {
        assert_eq!(told(submission(shares).encrypt(&key)), want, "{name}");
    }
    let mut named = submission(many(1));
    named.person = "bob\nshares: 2".into();
    assert_eq!(
        told(named.encrypt(&key)),
        SubmissionError::Name("person").to_string()
    );
    // The longest names there can be.
    let long = "n".repeat(500);
    let shares = (1..=64)
        .map(|x| share(&long, u64::MAX - u64::from(x), &long, x))
        .collect();
    let longest = Submission {
        ceremony: long.clone(),
        person: long.clone(),
        ..submission(shares)
    };
    let identity = ShareIdentity::generate().unwrap();
    let file = longest.encrypt(&identity.share_key()).unwrap();
    assert!(
        Submission::open(&file, &identity, &APPROVAL, &long, &long).is_ok(),
        "the longest names"
    );
}

#[test]
fn every_line_is_checked() {
    let key = ShareIdentity::generate().unwrap();
    let text = format!(
        "keyturn submission v1\napproval-sha256: {}\nceremony: ceremony-1\nperson: bob\nshares: 2\n\
         share: aws v7 ops x2 {}\nshare: aws v6 ops x2 {}\n",
        hex(&APPROVAL),
        "11".repeat(32),
        "22".repeat(32)
    );
    let line = |name| format!("text: {}", TextError::Line(name));
    let repeated = SubmissionError::Repeated.to_string();
    let another = |what| SubmissionError::Another(what).to_string();
    let extra = format!("text: {}", TextError::Extra);
    for (name, from, to, want) in [
        ("as written", "", "", String::new()),
        ("another approval", "abab", "baba", another("approval")),
        (
            "another ceremony",
            "ceremony-1",
            "ceremony-2",
            another("ceremony"),
        ),
        (
            "another person",
            "person: bob",
            "person: carol",
            another("person"),
        ),
        (
            "another type",
            "submission v1",
            "submission v2",
            format!("text: {}", TextError::Type("keyturn submission v1")),
        ),
        (
            "approval in upper case",
            "abab",
            "ABAB",
            line("approval-sha256"),
        ),
        ("no person", "person: bob", "person: ", line("person")),
        ("no shares", "shares: 2", "shares: 0", line("shares")),
        ("fewer than said", "shares: 2", "shares: 3", line("share")),
        ("more than said", "shares: 2", "shares: 1", extra),
        (
            "more than allowed",
            "shares: 2",
            "shares: 65",
            line("shares"),
        ),
        (
            "more than a machine has",
            "shares: 2",
            "shares: 18446744073709551615",
            line("shares"),
        ),
        ("the same version twice", "v6", "v7", repeated),
        ("version 0", "v6", "v0", line("share")),
        ("no v", "v6", "6", line("share")),
        ("x = 0", "x2", "x0", line("share")),
        ("x = 256", "x2", "x256", line("share")),
        ("share cut", "1111\n", "11\n", line("share")),
        ("not hexadecimal", "1111\n", "11g1\n", line("share")),
        ("a word more", "x2", "x2 x2", line("share")),
        ("a word less", " ops", "", line("share")),
        ("two spaces", "v7 ops", "v7  ops", line("share")),
    ] {
        let altered = text.replacen(from, to, 1);
        assert!(from.is_empty() || altered != text, "{name} alters nothing");
        let file = encrypt_to(&[key.share_key()], altered.as_bytes()).unwrap();
        assert_eq!(
            told(Submission::open(
                &file,
                &key,
                &APPROVAL,
                "ceremony-1",
                "bob"
            )),
            want,
            "{name}"
        );
    }
}

#[test]
fn altered_files_do_not_decrypt() {
    let key = ShareIdentity::generate().unwrap();
    let to = |key: &ShareKey| {
        submission(vec![share("aws", 1, "ops", 1)])
            .encrypt(key)
            .unwrap()
    };
    let file = to(&key.share_key());
    let stranger = ShareIdentity::generate().unwrap().share_key();
    let long = encrypt_to(&[key.share_key()], &vec![b'x'; MAX_PLAINTEXT_BYTES + 1]).unwrap();
    for (name, file, want) in [
        (
            "another ceremony's key",
            to(&stranger),
            DecryptError::NotForThisKey,
        ),
        (
            "cut",
            file[..file.len() - 1].to_vec(),
            DecryptError::Damaged,
        ),
        ("empty", vec![], DecryptError::NotAge),
        ("oversized", long.clone(), DecryptError::TooLong(long.len())),
    ] {
        let opened = Submission::open(&file, &key, &APPROVAL, "ceremony-1", "bob");
        assert_eq!(told(opened), format!("decrypt: {want}"), "{name}");
    }
}
