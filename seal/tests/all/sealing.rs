use keyturn_seal::{
    Binding, CombineError, Holder, HolderToken, OpenError, Roster, RosterError, SealError, Secret,
    ShareError, ShareIdentity, Sharing, SharingError, ThresholdError, commitment, open,
    piv::SoftwareKey, seal, sha256, shamir::Share,
};

use crate::{CREDENTIAL, Case, ORIGIN, binding, holders, secret};

#[test]
fn every_quorum_opens() {
    let case = Case::new(&binding(), &[(2, 4)]);
    for (a, b) in [(1, 2), (2, 1), (1, 4), (3, 4), (4, 2)] {
        let combined = case
            .sharing(0)
            .combine(&[&case.share(0, a), &case.share(0, b)])
            .unwrap();
        assert_eq!(combined.inconsistent, [0; 0], "{a} and {b}");
        let opened = open(&case.sealed.ciphertext, &combined.identity, &binding()).unwrap();
        assert!(opened.same(&secret()), "{a} and {b}");
    }
    let all: Vec<_> = (1..=4).map(|x| case.share(0, x)).collect();
    assert!(
        case.sharing(0)
            .combine(&all.iter().collect::<Vec<_>>())
            .is_ok(),
        "more than a quorum"
    );
}

#[test]
fn either_of_two_groups_opens() {
    let case = Case::new(&binding(), &[(2, 3), (3, 5)]);
    for (group, xs) in [(0, &[1, 3][..]), (1, &[5, 2, 4])] {
        let shares: Vec<_> = xs.iter().map(|x| case.share(group, *x)).collect();
        let combined = case
            .sharing(group)
            .combine(&shares.iter().collect::<Vec<_>>())
            .unwrap();
        assert!(
            open(&case.sealed.ciphertext, &combined.identity, &binding())
                .unwrap()
                .same(&secret()),
            "{group}"
        );
    }
    let mixed = [&case.share(0, 1), &case.share(1, 2)];
    assert_eq!(
        case.sharing(0).combine(&mixed).err(),
        Some(CombineError::Foreign(2)),
        "one share of each"
    );
}

#[test]
fn every_token_of_a_custodian_opens_the_envelope() {
    let keys: Vec<_> = (0..3).map(|_| ShareIdentity::generate().unwrap()).collect();
    let card = SoftwareKey::generate().unwrap();
    let mut holders = holders(&keys[..2]);
    holders[0].tokens.push(HolderToken {
        id: "spare".into(),
        key: keys[2].share_key(),
    });
    holders[0].tokens.push(HolderToken {
        id: "card".into(),
        key: keyturn_seal::ShareKey::Piv(card.public()),
    });
    let roster = Roster::new("ops", 2, holders).unwrap();
    let sealed = seal(&secret(), &binding(), &[roster]).unwrap();
    let share = &sealed.groups[0].shares[0];
    assert_eq!(share.tokens, ["token-1", "spare", "card"]);
    let sharing = sealed.groups[0].sharing(&binding()).unwrap();
    let identities: [&dyn keyturn_seal::Identity; 3] = [&keys[0], &keys[2], &card];
    for identity in identities {
        assert_eq!(
            sharing
                .open_envelope(1, &share.envelope, identity)
                .unwrap()
                .commitment(),
            &share.commitment
        );
    }
    assert!(
        sharing.open_envelope(1, &share.envelope, &keys[1]).is_err(),
        "another custodian's token"
    );
}

#[test]
fn digests_and_numbers_are_those_of_the_manifest() {
    let case = Case::new(&binding(), &[(2, 3)]);
    let Case { sealed, .. } = &case;
    assert_eq!(sealed.ciphertext_sha256, sha256(&sealed.ciphertext));
    for (x, share) in (1..).zip(&sealed.groups[0].shares) {
        assert_eq!(
            (share.x, share.person.as_str()),
            (x, format!("person-{x}").as_str())
        );
        assert_eq!(share.envelope_sha256, sha256(&share.envelope));
        assert_eq!(&share.commitment, case.share(0, x).commitment());
    }
}

/// Lib invariant 1: two sealings of one secret have nothing in common.
#[test]
fn nothing_is_split_twice() {
    let keys: Vec<_> = (0..2).map(|_| ShareIdentity::generate().unwrap()).collect();
    let roster = Roster::new("ops", 2, holders(&keys)).unwrap();
    let [a, b] =
        [(); 2].map(|()| seal(&secret(), &binding(), std::slice::from_ref(&roster)).unwrap());
    assert_ne!(a.ciphertext, b.ciphertext);
    for (a, b) in a.groups[0].shares.iter().zip(&b.groups[0].shares) {
        assert_ne!(a.commitment, b.commitment);
    }
}

#[test]
fn what_is_not_a_quorum_does_not_combine() {
    let case = Case::new(&binding(), &[(3, 4)]);
    let another = Case::new(&binding(), &[(3, 4)]);
    let [one, two, three] = [1, 2, 3].map(|x| case.share(0, x));
    let foreign = another.share(0, 3);
    for (name, shares, want) in [
        ("none", vec![], CombineError::TooFew { have: 0, need: 3 }),
        (
            "one too few",
            vec![&one, &two],
            CombineError::TooFew { have: 2, need: 3 },
        ),
        (
            "the same twice",
            vec![&one, &two, &one],
            CombineError::Repeated(1),
        ),
        (
            "the same twice, beyond the quorum",
            vec![&one, &two, &three, &two],
            CombineError::Repeated(2),
        ),
        (
            "of another sealing",
            vec![&one, &two, &foreign],
            CombineError::Foreign(3),
        ),
        (
            "of another sealing, beyond the quorum",
            vec![&one, &two, &three, &foreign],
            CombineError::Foreign(3),
        ),
    ] {
        assert_eq!(case.sharing(0).combine(&shares).err(), Some(want), "{name}");
    }
}

/// The library takes all of these and returns a wrong secret.
#[test]
fn a_share_that_is_not_what_was_sealed_is_named() {
    let case = Case::new(&binding(), &[(2, 3)]);
    let sharing = case.sharing(0);
    let share = case.share(0, 2);
    let bytes = *share.secret().expose();
    let altered = |at: usize, by: u8| {
        let mut bytes = bytes;
        bytes[at] ^= by;
        bytes
    };
    for (name, x, bytes, want) in [
        ("as sealed", 2, bytes, Ok(())),
        (
            "first bit altered",
            2,
            altered(0, 0x80),
            Err(ShareError::NotAsSealed(2)),
        ),
        (
            "last bit altered",
            2,
            altered(31, 1),
            Err(ShareError::NotAsSealed(2)),
        ),
        (
            "as somebody else's",
            1,
            bytes,
            Err(ShareError::NotAsSealed(1)),
        ),
        (
            "x = 0",
            0,
            bytes,
            Err(ShareError::UnknownPlace { x: 0, n: 3 }),
        ),
        (
            "x = n + 1",
            4,
            bytes,
            Err(ShareError::UnknownPlace { x: 4, n: 3 }),
        ),
        (
            "x = 255",
            255,
            bytes,
            Err(ShareError::UnknownPlace { x: 255, n: 3 }),
        ),
    ] {
        let verified = sharing.verify(x, Secret::from_slice(&bytes).unwrap());
        assert_eq!(verified.map(|_| ()), want, "{name}");
    }
}

/// Sharing invariant 3: shares of two polynomials, each with its right commitment, as a faulty sealer would deal them.
#[test]
fn a_faulty_sealing_is_found_out_and_still_combined() {
    let (good, other) = (
        Case::new(&binding(), &[(2, 4)]),
        Case::new(&binding(), &[(2, 4)]),
    );
    let bytes = |case: &Case, x| *case.share(0, x).secret().expose();
    for (name, dealt, quorum, want) in [
        (
            "one share altered",
            [&good, &good, &good, &other],
            [1, 2],
            vec![4],
        ),
        (
            "two shares altered",
            [&good, &good, &other, &other],
            [1, 2],
            vec![3, 4],
        ),
        (
            "an altered share combines",
            [&good, &good, &good, &other],
            [1, 4],
            vec![2, 3],
        ),
        ("sound", [&good, &good, &good, &good], [3, 4], vec![]),
    ] {
        let dealt: Vec<_> = (1..)
            .zip(dealt)
            .map(|(x, case)| (x, bytes(case, x)))
            .collect();
        let share =
            |x: u8, bytes: &[u8; 32]| Share::new(x, Secret::from_slice(bytes).unwrap()).unwrap();
        let commitments = dealt
            .iter()
            .map(|(x, bytes)| commitment(&binding(), "group-0", &share(*x, bytes)));
        let sharing = Sharing::new(binding(), "group-0", 2, commitments.collect()).unwrap();
        let shares = quorum.map(|x| {
            let (_, bytes) = dealt[usize::from(x) - 1];
            sharing
                .verify(x, Secret::from_slice(&bytes).unwrap())
                .unwrap()
        });
        let combined = sharing.combine(&[&shares[0], &shares[1]]).unwrap();
        assert_eq!(combined.inconsistent, want, "{name}");
        let opens = open(&good.sealed.ciphertext, &combined.identity, &binding()).is_ok();
        assert_eq!(opens, !quorum.contains(&4) || want.is_empty(), "{name}");
    }
}

#[test]
fn shares_and_secrets_of_another_binding_are_refused() {
    let case = Case::new(&binding(), &[(2, 2)]);
    let shares = [1, 2].map(|x| case.share(0, x));
    let identity = case
        .sharing(0)
        .combine(&[&shares[0], &shares[1]])
        .unwrap()
        .identity;
    let commitments: Vec<_> = shares.iter().map(|share| *share.commitment()).collect();
    for (name, origin, credential, version, group) in [
        ("vault", "vault.example.org/test", CREDENTIAL, 7, "group-0"),
        ("credential", ORIGIN, "01J0", 7, "group-0"),
        ("version", ORIGIN, CREDENTIAL, 8, "group-0"),
        ("group", ORIGIN, CREDENTIAL, 7, "group-1"),
    ] {
        let another = Binding::new(origin, credential, version).unwrap();
        let sharing = Sharing::new(another.clone(), group, 2, commitments.clone()).unwrap();
        let share = Secret::from_slice(shares[0].secret().expose()).unwrap();
        assert_eq!(
            sharing.verify(1, share).err(),
            Some(ShareError::NotAsSealed(1)),
            "another {name}"
        );
        if another != binding() {
            let opened = open(&case.sealed.ciphertext, &identity, &another);
            assert!(
                matches!(opened.err(), Some(OpenError::Another(field)) if field.to_string() == name),
                "{name}"
            );
        }
    }
}

#[test]
fn rosters() {
    let keys: Vec<_> = (0..66)
        .map(|_| ShareIdentity::generate().unwrap())
        .collect();
    let all = |count: usize| holders(&keys[..count]);
    let with = |change: &dyn Fn(&mut Vec<Holder>)| {
        let mut holders = all(3);
        change(&mut holders);
        holders
    };
    let threshold = |k, n| {
        Err(RosterError::Threshold(ThresholdError::TooFewHolders {
            k,
            n,
        }))
    };
    let tokens = |count| {
        Err(RosterError::Tokens {
            person: "person-1".into(),
            count,
        })
    };
    let spare = |place: usize| HolderToken {
        id: format!("spare-{place}"),
        key: keys[place].share_key(),
    };
    for (name, group, k, holders, want) in [
        ("2 of 3", "ops", 2, all(3), Ok(())),
        ("2 of 64", "ops", 2, all(64), Ok(())),
        (
            "4 tokens",
            "ops",
            2,
            with(&|h| h[0].tokens.extend([3, 4, 5].map(spare))),
            Ok(()),
        ),
        (
            "65 custodians",
            "ops",
            2,
            all(65),
            Err(RosterError::Threshold(ThresholdError::TooManyHolders(65))),
        ),
        (
            "a quorum of one",
            "ops",
            1,
            all(3),
            Err(RosterError::Threshold(ThresholdError::QuorumTooSmall(1))),
        ),
        ("nobody", "ops", 2, all(0), threshold(2, 0)),
        ("unreachable", "ops", 4, all(3), threshold(4, 3)),
        (
            "no group",
            "",
            2,
            all(3),
            Err(RosterError::Name(String::new())),
        ),
        (
            "a group with a line end",
            "a\nb",
            2,
            all(3),
            Err(RosterError::Name("a\nb".into())),
        ),
        (
            "no token",
            "ops",
            2,
            with(&|h| h[0].tokens.clear()),
            tokens(0),
        ),
        (
            "5 tokens",
            "ops",
            2,
            with(&|h| h[0].tokens.extend([3, 4, 5, 6].map(spare))),
            tokens(5),
        ),
        (
            "a person twice",
            "ops",
            2,
            with(&|h| h[1].person = "person-1".into()),
            Err(RosterError::SamePerson("person-1".into())),
        ),
        (
            "a key twice",
            "ops",
            2,
            with(&|h| h[1].tokens[0].key = keys[0].share_key()),
            Err(RosterError::SameKey("token-2".into())),
        ),
        (
            "a person with a space",
            "ops",
            2,
            with(&|h| h[1].person = "bob b".into()),
            Err(RosterError::Name("bob b".into())),
        ),
        (
            "a token without id",
            "ops",
            2,
            with(&|h| h[1].tokens[0].id.clear()),
            Err(RosterError::Name(String::new())),
        ),
    ] {
        assert_eq!(Roster::new(group, k, holders).map(|_| ()), want, "{name}");
    }
}

#[test]
fn one_group_or_two_different_ones() {
    let keys: Vec<_> = (0..2).map(|_| ShareIdentity::generate().unwrap()).collect();
    let roster = |group| Roster::new(group, 2, holders(&keys)).unwrap();
    for (name, groups, want) in [
        ("none", &[][..], false),
        ("one", &["a"], true),
        ("two", &["a", "b"], true),
        ("the same twice", &["a", "a"], false),
        ("three", &["a", "b", "c"], false),
    ] {
        let rosters: Vec<_> = groups.iter().map(|group| roster(group)).collect();
        match seal(&secret(), &binding(), &rosters) {
            Ok(_) => assert!(want, "{name}"),
            Err(error) => assert!(
                !want && matches!(error, SealError::Groups),
                "{name}: {error}"
            ),
        }
    }
}

#[test]
fn sharings() {
    let threshold = |error| Some(SharingError::Threshold(error));
    for (name, group, k, n, want) in [
        ("2 of 2", "ops", 2, 2, None),
        ("no group", "", 2, 2, Some(SharingError::Group)),
        (
            "a group with a space",
            "o ps",
            2,
            2,
            Some(SharingError::Group),
        ),
        (
            "k = 1",
            "ops",
            1,
            2,
            threshold(ThresholdError::QuorumTooSmall(1)),
        ),
        (
            "k = 0",
            "ops",
            0,
            2,
            threshold(ThresholdError::QuorumTooSmall(0)),
        ),
        (
            "n < k",
            "ops",
            3,
            2,
            threshold(ThresholdError::TooFewHolders { k: 3, n: 2 }),
        ),
        (
            "n = 65",
            "ops",
            2,
            65,
            threshold(ThresholdError::TooManyHolders(65)),
        ),
    ] {
        assert_eq!(
            Sharing::new(binding(), group, k, vec![[0; 32]; n]).err(),
            want,
            "{name}"
        );
    }
}
