//! Who is let in with which token: attestations in the founding, in invitations, charters and audits.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{collections::BTreeSet, fs};

use keyturn_hsm::attestation::Bundle;
use keyturn_proto::{CODE_TRAILER, v1};
use keyturn_tests::{
    Outcome, World,
    harness::write_private,
    raw::{Facts, Line, Member, PEOPLE, now, wire_text},
};
use keyturn_vault::{
    charter::{Attestation, Charter, Device, Person, Role, Token},
    digest::{Digest, Salt},
    jcs::Document as _,
    text::{Enrol, Join, Text as _},
};
use keyturn_virtual_yubikey::{Firmware, Said, TestPki};

/// PIN and touch policy, in Yubico's numbers.
const STRICT: [u8; 2] = [3, 2];
const CACHED: [u8; 2] = [2, 3];
const NEW: Firmware = (5, 7, 4);
const OLD: Firmware = (5, 4, 3);

/// What a maker is to say of somebody's YubiKey, true or not.
#[derive(Clone)]
struct Saying {
    firmware: Firmware,
    slots: [u8; 2],
    serial: u32,
    policies: [[u8; 2]; 2],
}

impl Saying {
    fn good(member: &Member) -> Self {
        Self {
            firmware: NEW,
            slots: [0x9c, 0x82],
            serial: member.token.serial.unwrap_or_default(),
            policies: [STRICT, CACHED],
        }
    }

    /// The attestation, of these points.
    fn of(&self, pki: &TestPki, points: &[Vec<u8>; 2]) -> Outcome<String> {
        let said = |at: usize| Said {
            slot: self.slots[at],
            point: &points[at],
            serial: self.serial,
            policy: self.policies[at],
        };
        let made = pki.attest(self.firmware, &[said(0), said(1)])?;
        let [approval, share, f9] = <[Vec<u8>; 3]>::try_from(made).map_err(|_| "certificates")?;
        let share = Some(share);
        Ok(Bundle {
            approval,
            share,
            f9,
        }
        .to_pem())
    }
}

/// A vault that is to be founded: alice and olga have key files, the custodians YubiKeys.
struct Case {
    world: World,
    pki: TestPki,
    people: Vec<(&'static str, Member)>,
}

impl Case {
    fn new() -> Outcome<Self> {
        let (world, pki) = (World::new()?, TestPki::new()?);
        fs::create_dir_all(world.folder().join("people"))?;
        let mut people = Vec::new();
        for ((name, roles), serial) in PEOPLE.into_iter().zip(7001..) {
            let mut member = Member::new(name)?;
            if roles.contains(&"custodian") {
                member = member.with_yubikey(serial)?;
                let said = Saying::good(&member).of(&pki, &member.points()?)?;
                member.enrol_as(Some(said))?;
            }
            people.push((name, member));
        }
        let case = Self { world, pki, people };
        case.hand_in()?;
        Ok(case)
    }

    fn who(&self, name: &str) -> Outcome<&Member> {
        let found = self.people.iter().find(|(known, _)| *known == name);
        Ok(&found.ok_or("nobody has this name")?.1)
    }

    fn bob(&mut self) -> Outcome<&mut Member> {
        let found = self.people.iter_mut().find(|(name, _)| *name == "bob");
        Ok(&mut found.ok_or("nobody is bob")?.1)
    }

    /// Everybody's enrolment file.
    fn hand_in(&self) -> Outcome<()> {
        for (name, member) in &self.people {
            let path = self.world.folder().join(format!("people/{name}.enroll"));
            write_private(&path, &member.enrolment()?)?;
        }
        Ok(())
    }

    /// What `init` says; the folder is free again afterwards.
    fn init(&self, policy: &str) -> Outcome<(i32, String)> {
        let reply = self.world.try_init(&PEOPLE, policy)?;
        if self.world.vault().exists() {
            fs::remove_dir_all(self.world.vault())?;
        }
        Ok((reply.code, reply.stderr))
    }

    /// Founds the vault and starts its daemon.
    async fn found(&mut self, policy: &str) -> Outcome<Facts> {
        self.world.init(&PEOPLE, policy)?;
        self.world.start()?;
        let (facts, _) = Facts::read(&self.world.welcome("alice"))?;
        for (name, member) in &self.people {
            let (_, welcome) = Facts::read(&self.world.welcome(name))?;
            member.join(&facts, &welcome).await?;
        }
        Ok(facts)
    }
}

/// Whether a policy demands attestations.
const DEMANDED: &str = "require_attestation = true\n";
const FIRM: &str = "require_attestation = true\nminimum_firmware = \"5.7.0\"\n";
const ANY: &str = "require_attestation = false\n";

type Change = fn(&mut Saying);

#[test]
fn a_vault_is_founded_with_tokens_that_their_maker_knows() {
    let mut case = Case::new().unwrap();
    case.world.believe(&case.pki.anchors_file()).unwrap();
    let points = case.who("bob").unwrap().points().unwrap();
    let [approval, share] = case.who("carol").unwrap().points().unwrap();
    let good = Saying::good(case.who("bob").unwrap());
    let said = |pki: &TestPki, points, change: Change| {
        let mut saying = good.clone();
        change(&mut saying);
        saying.of(pki, points).unwrap()
    };
    let (ours, same): (_, Change) = (&case.pki, |_| {});
    let mut alone = Bundle::parse(&said(ours, &points, same)).unwrap();
    alone.share = None;
    let other_approval = [approval, points[1].clone()];
    let other_share = [points[0].clone(), share];
    let stranger = TestPki::new().unwrap();
    let rows = [
        ("as it should be", said(ours, &points, same), ""),
        (
            "another maker",
            said(&stranger, &points, same),
            "was not issued under a trusted root",
        ),
        (
            "another approval key",
            said(ours, &other_approval, same),
            "the attested approval key is not the enrolled one",
        ),
        (
            "another share key",
            said(ours, &other_share, same),
            "the attested share key is not the enrolled one",
        ),
        (
            "share key not attested",
            alone.to_pem(),
            "the share key is not attested",
        ),
        (
            "another serial number",
            said(ours, &points, |said| said.serial = 1),
            "the attested serial number is 1, not 7003",
        ),
        (
            "swapped slots",
            said(ours, &points, |said| said.slots = [0x82, 0x9c]),
            "the approval key is in slot 82, not in 9c",
        ),
        (
            "share key in 9d",
            said(ours, &points, |said| said.slots[1] = 0x9d),
            "the share key is in slot 9d, not in a retired one",
        ),
        (
            "no certificates",
            "nothing".to_owned(),
            "not an attestation file",
        ),
    ];
    for (name, attestation, want) in rows {
        case.bob().unwrap().enrol_as(Some(attestation)).unwrap();
        case.hand_in().unwrap();
        // What is false is refused even where nobody demands it.
        let (code, told) = case.init(ANY).unwrap();
        assert_eq!(code == 0, want.is_empty(), "{name}: {told}");
        assert!(told.contains(want), "{name}: {told}");
    }
}

#[test]
fn a_vault_is_founded_with_tokens_that_its_policies_take() {
    let mut case = Case::new().unwrap();
    case.world.believe(&case.pki.anchors_file()).unwrap();
    let touch = "its approval key does not ask for a touch each time";
    let rows: [(&str, &str, Change, i32, &str); 10] = [
        ("all as it should be", FIRM, |_| {}, 0, ""),
        (
            "approval without a touch",
            DEMANDED,
            |said| said.policies[0] = [3, 1],
            1,
            touch,
        ),
        (
            "approval with a cached touch",
            DEMANDED,
            |said| said.policies[0] = [3, 3],
            1,
            touch,
        ),
        (
            "approval without a PIN",
            DEMANDED,
            |said| said.policies[0] = [1, 2],
            1,
            "its approval key does not ask for the PIN each time",
        ),
        (
            "approval with a PIN once",
            DEMANDED,
            |said| said.policies[0] = [2, 2],
            1,
            "its approval key does not ask for the PIN each time",
        ),
        (
            "share without a touch",
            DEMANDED,
            |said| said.policies[1] = [2, 1],
            1,
            "its share key never asks for a touch",
        ),
        (
            "share without a PIN",
            DEMANDED,
            |said| said.policies[1] = [1, 3],
            1,
            "its share key never asks for the PIN",
        ),
        (
            "and nobody demands it",
            ANY,
            |said| said.policies[1] = [2, 1],
            0,
            "",
        ),
        (
            "old firmware",
            FIRM,
            |said| said.firmware = OLD,
            1,
            "its firmware 5.4.3 is older than 5.7.0",
        ),
        (
            "old firmware, and nobody minds",
            DEMANDED,
            |said| said.firmware = OLD,
            0,
            "warning: bob has a token with firmware 5.4.3; below 5.7.0 it can be cloned by whoever holds it (EUCLEAK)",
        ),
    ];
    let points = case.who("bob").unwrap().points().unwrap();
    for (name, policy, change, want, text) in rows {
        let mut saying = Saying::good(case.who("bob").unwrap());
        change(&mut saying);
        let said = saying.of(&case.pki, &points).unwrap();
        case.bob().unwrap().enrol_as(Some(said)).unwrap();
        case.hand_in().unwrap();
        let (code, told) = case.init(policy).unwrap();
        assert_eq!(code, want, "{name}: {told}");
        assert!(told.contains(text), "{name}: {told}");
    }

    let refused = (1, "it is not attested");
    let told = (0, "warning: bob has a token that nobody attests");
    for (policy, (want, text)) in [(DEMANDED, refused), (ANY, told)] {
        case.bob().unwrap().enrol_as(None).unwrap();
        case.hand_in().unwrap();
        let (code, told) = case.init(policy).unwrap();
        assert!(code == want && told.contains(text), "{told}");
    }
    *case.bob().unwrap() = Member::new("bob").unwrap();
    case.hand_in().unwrap();
    let refused = (1, "its keys are in a file, which nobody attests");
    let told = (0, "warning: bob has a key file, which can be copied");
    for (policy, (want, text)) in [(DEMANDED, refused), (ANY, told)] {
        // Carol and dan have YubiKeys that are attested.
        let (code, told) = case.init(policy).unwrap();
        assert!(code == want && told.contains(text), "{told}");
    }
}

/// Somebody who is invited with this attestation, and how the daemon takes it.
async fn invite(line: &Line, member: &Member) -> Result<v1::InviteReply, tonic::Status> {
    let request = v1::InviteRequest {
        enrol: Some(wire_text(&member.enrol)),
        attestation: member.attestation.clone().unwrap_or_default().into_bytes(),
    };
    line.charters()
        .invite(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Erin joins; the digest of her join.
async fn join(erin: &Member, facts: &Facts, nonce: &[u8]) -> Outcome<Digest> {
    let nonce = erin.open(nonce)?;
    let nonce: Salt = std::str::from_utf8(nonce.expose())?.parse()?;
    let join = erin.sign(&Join {
        vault: facts.charter.origin.clone(),
        genesis: facts.reference.digest,
        charter: facts.reference,
        enrolment: erin.enrol.digest(),
        person: erin.person.clone(),
        token: erin.token,
        nonce,
        signed: now().stamp(),
    })?;
    let request = v1::JoinRequest {
        join: Some(wire_text(&join)),
        founding: None,
    };
    erin.connect(facts).await?.charters().join(request).await?;
    Ok(join.digest())
}

/// The charter in which erin is a custodian too, with these facts of her token.
fn with_erin(facts: &Facts, erin: &Member, join: Digest, said: Option<Attestation>) -> Charter {
    let enrol = Enrol::parse(&erin.enrol.text).unwrap();
    let device = enrol.device.unwrap();
    let mut new = facts.charter.clone();
    new.index = 2;
    new.previous = Some(facts.reference.digest);
    new.joins = BTreeSet::from([join]);
    new.persons.push(Person {
        id: erin.person.id,
        name: erin.person.name.clone(),
        roles: BTreeSet::from([Role::Custodian]),
        tokens: vec![Token {
            id: erin.token.id,
            kind: erin.token.kind,
            serial: erin.token.serial,
            approval_key: enrol.approval_key,
            share_key: enrol.share_key,
            attestation: said,
        }],
        devices: vec![Device {
            id: device.id,
            name: device.name,
            key: device.key,
        }],
    });
    new.groups[0].members.insert(erin.person.id);
    new
}

async fn propose(line: &Line, new: &Charter) -> Result<v1::ProposeCharterReply, tonic::Status> {
    let charter = new.to_bytes().unwrap();
    let request = v1::ProposeCharterRequest { charter };
    line.charters()
        .propose(request)
        .await
        .map(tonic::Response::into_inner)
}

fn word(status: &tonic::Status) -> String {
    let word = status.metadata().get(CODE_TRAILER);
    word.and_then(|word| word.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn later_tokens_are_looked_at_when_they_are_invited_and_when_they_are_proposed() {
    let mut case = Case::new().unwrap();
    case.world.believe(&case.pki.anchors_file()).unwrap();
    let facts = case.found(DEMANDED).await.unwrap();
    let olga = case.who("olga").unwrap().connect(&facts).await.unwrap();
    let mut erin = Member::new("erin").unwrap().with_yubikey(7010).unwrap();
    let (points, good) = (erin.points().unwrap(), Saying::good(&erin));
    let other = good.of(&TestPki::new().unwrap(), &points).unwrap();
    let weak = Saying {
        policies: [STRICT, [2, 1]],
        ..good.clone()
    };

    erin.enrol_as(Some(other)).unwrap();
    let refused = invite(&olga, &erin).await.unwrap_err();
    assert_eq!(word(&refused), "attestation", "{refused}");
    erin.enrol_as(Some(good.of(&case.pki, &points).unwrap()))
        .unwrap();
    let signed_for = erin.attestation.replace("something else".to_owned());
    let refused = invite(&olga, &erin).await.unwrap_err();
    assert_eq!(word(&refused), "malformed", "{refused}");
    erin.attestation = signed_for;

    // A token that the policies do not take is told when it is invited, and refused when it is to hold shares.
    erin.enrol_as(Some(weak.of(&case.pki, &points).unwrap()))
        .unwrap();
    let invited = invite(&olga, &erin).await.unwrap();
    assert_eq!(
        invited.warnings,
        ["policy default: its share key never asks for a touch"]
    );
    let joined = join(&erin, &facts, &invited.nonce).await.unwrap();
    let object = Digest::of(erin.attestation.as_deref().unwrap().as_bytes());
    let said =
        |object, policies: [[u8; 2]; 2]| Attestation::of(object, NEW, policies[0], policies[1]);
    for (name, said, want) in [
        ("as attested", said(object, weak.policies), "weak-token"),
        (
            "better than attested",
            said(object, good.policies),
            "attestation",
        ),
        (
            "an object that nobody brought",
            said(Digest::of(b"x"), good.policies),
            "attestation",
        ),
        ("not said at all", None, "weak-token"),
    ] {
        let new = with_erin(&facts, &erin, joined, said);
        let refused = propose(&olga, &new).await.unwrap_err();
        assert_eq!(word(&refused), want, "{name}: {refused}");
    }

    // The same charter may give up the demand; then the facts are taken as they are.
    let mut lax = with_erin(&facts, &erin, joined, said(object, weak.policies));
    lax.policies[0].require_attestation = false;
    let proposed = propose(&olga, &lax).await.unwrap();
    assert_eq!(proposed.index, 2);

    // A stricter policy turns nobody away who is in, and says whom it would not take.
    let mut strict = facts.charter.clone();
    strict.index = 2;
    strict.previous = Some(facts.reference.digest);
    strict.policies[0].minimum_firmware = "5.8.0".parse().ok();
    let proposed = propose(&olga, &strict).await.unwrap();
    let told = proposed
        .warnings
        .iter()
        .filter(|warning| warning.contains("is older than 5.8.0"));
    assert_eq!(told.count(), 3, "{:?}", proposed.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maker_that_only_the_daemon_believes_is_found_out() {
    let mut case = Case::new().unwrap();
    let fake = TestPki::new().unwrap();
    // Bob's YubiKey is no YubiKey; the daemon believes whoever says that it is.
    let bob = case.bob().unwrap();
    let said = Saying {
        firmware: OLD,
        ..Saying::good(bob)
    };
    let forged = said.of(&fake, &bob.points().unwrap()).unwrap();
    bob.enrol_as(Some(forged)).unwrap();
    case.hand_in().unwrap();
    let believed = case.pki.anchors_file() + &fake.anchors_file();
    case.world.believe(&believed).unwrap();
    let enroll = ["enroll", "olga", "--out", "people/olga.enroll"];
    case.world.keyturn("olga", enroll).unwrap().ok().unwrap();
    let made = case.world.init(&PEOPLE, DEMANDED).unwrap().json().unwrap();
    case.world.start().unwrap();

    // Olga's own roots are the real ones: she does not sign.
    case.world.believe(&case.pki.anchors_file()).unwrap();
    let welcome = case.world.welcome("olga").display().to_string();
    let digest = made["charter"]["sha256"].as_str().unwrap_or_default();
    let join = ["join", &welcome, "--yes-sha256", digest];
    let refused = case
        .world
        .keyturn("olga", join)
        .unwrap()
        .exits(195)
        .unwrap();
    let told = refused.stderr;
    assert!(
        told.contains("was not issued under a trusted root"),
        "{told}"
    );

    // Had everybody believed the daemon, an auditor with the real roots would not.
    case.world.believe(&believed).unwrap();
    case.world.keyturn("olga", join).unwrap().ok().unwrap();
    let (facts, _) = Facts::read(&case.world.welcome("alice")).unwrap();
    for (name, member) in case.people.iter().filter(|(name, _)| *name != "olga") {
        let (_, welcome) = Facts::read(&case.world.welcome(name)).unwrap();
        member.join(&facts, &welcome).await.unwrap();
    }
    let status = case.world.keyturn("olga", ["status", "--json"]).unwrap();
    let status = status.ok().unwrap().json().unwrap()["findings"].to_string();
    assert!(
        status.contains("clonable-token") && status.contains("EUCLEAK"),
        "{status}"
    );
    case.world.stop().unwrap();
    let (log, vkey) = (
        case.world.log().display().to_string(),
        facts.vkey.to_string(),
    );
    let audit = ["--json", "audit", "verify", "--dir", &log, "--vkey", &vkey];
    let believing = case
        .world
        .keyturn("olga", audit)
        .unwrap()
        .ok()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(believing["findings"], serde_json::json!([]));
    case.world.believe(&case.pki.anchors_file()).unwrap();
    let wary = case.world.keyturn("olga", audit).unwrap();
    let wary = wary.exits(98).unwrap().json().unwrap();
    let told = wary["findings"].to_string();
    assert!(
        told.contains("was not issued under a trusted root"),
        "{told}"
    );
    assert_eq!(wary["findings"].as_array().map(Vec::len), Some(1), "{told}");

    case.world.believe(&believed).unwrap();

    // An attestation that is lost is found too.
    let bob = case.who("bob").unwrap().attestation.clone().unwrap();
    let object = case
        .world
        .log()
        .join("objects")
        .join(Digest::of(bob.as_bytes()).to_string());
    fs::remove_file(&object).unwrap();
    let lost = case
        .world
        .keyturn("olga", audit)
        .unwrap()
        .exits(98)
        .unwrap()
        .json()
        .unwrap();
    assert!(
        lost["findings"].to_string().contains("document-missing"),
        "{lost}"
    );
}
