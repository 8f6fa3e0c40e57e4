//! People with virtual YubiKeys: each has one in a reader of their own.

use std::time::Duration;

use keyturn_virtual_yubikey::{
    Card, Desk, Firmware, Inserted, TestPki, Touch,
    control::{Control, Place},
};

use serde_json::Value;

use crate::{
    Reply,
    harness::{Outcome, World, write_private},
    program::finish,
    raw::PEOPLE,
    stage::tell,
};

/// Everybody's PIN in demo and tests.
pub const PIN: &str = "271828";
/// Everybody's PUK in demo and tests.
pub const PUK: &str = "31415926";

/// A YubiKey in its reader.
pub struct Held {
    /// The token.
    pub card: Card,
    reader: u16,
    inserted: Option<Inserted>,
}

impl Held {
    /// Pulls it out.
    pub fn pull(&mut self) -> Outcome<()> {
        Ok(self.inserted.take().map_or(Ok(()), Inserted::remove)?)
    }

    /// Puts it into its reader again.
    pub fn put_back(&mut self, desk: &Desk) -> Outcome<()> {
        self.inserted = Some(desk.insert(self.reader, &self.card)?);
        Ok(())
    }
}

/// Puts a new YubiKey, whose owner is quick, into a reader.
pub fn insert(
    desk: &Desk,
    reader: u16,
    serial: u32,
    firmware: Firmware,
    pki: &TestPki,
) -> Outcome<Held> {
    let card = Card::new(serial, firmware, pki)?;
    card.touch(Touch::After(Duration::from_millis(20)));
    card.touch_timeout(Duration::from_millis(500));
    let inserted = Some(desk.insert(reader, &card)?);
    Ok(Held {
        card,
        reader,
        inserted,
    })
}

/// The tokens of the demo on their desk: bob's and dan's.
pub struct Shown {
    desk: Desk,
    held: Vec<(&'static str, Held)>,
    /// The roots of their attestations, for those who are to believe them.
    pub roots: String,
}

impl Shown {
    /// Whose touches are told as they happen.
    pub fn new(desk: Desk) -> Outcome<Self> {
        let pki = TestPki::new()?;
        let mut held = Vec::new();
        let owners: [(u16, &'static str, Firmware); 2] =
            [(0, "bob", (5, 7, 4)), (1, "dan", (5, 4, 3))];
        for (reader, name, firmware) in owners {
            let serial = BOB.saturating_add(u32::from(reader));
            let one = insert(&desk, reader, serial, firmware, &pki)?;
            one.card.touch(Touch::After(Duration::from_millis(300)));
            one.card.touch_timeout(Duration::from_secs(1));
            one.card
                .watch(std::sync::Arc::new(move |serial, is_touched| {
                    let what = if is_touched {
                        "touches it"
                    } else {
                        "does not touch it"
                    };
                    // Nobody is left to be told when standard output is gone.
                    let _ = tell(&format!("    (YubiKey {serial} blinks; {name} {what})"));
                }));
            held.push((name, one));
        }
        let roots = pki.anchors_file();
        Ok(Self { desk, held, roots })
    }

    /// Lets hands in another shell have them, at this socket.
    pub fn hand_over(self, socket: &std::path::Path) -> Outcome<()> {
        let place = |(owner, held): (&str, Held)| Place {
            owner: owner.to_owned(),
            reader: held.reader,
            card: held.card,
            inserted: held.inserted,
        };
        let places = self.held.into_iter().map(place).collect();
        Ok(Control::new(self.desk, places).serve(socket)?)
    }

    /// The token of a person, if it is one of these.
    pub fn of(&self, person: &str) -> Option<&Card> {
        let mut held = self.held.iter();
        held.find(|(name, _)| *name == person)
            .map(|(_, held)| &held.card)
    }
}

impl World {
    /// Enrols a person with the YubiKey of this serial number.
    pub fn enrol_yubikey(&self, person: &str, serial: u32) -> Outcome<Reply> {
        self.enrol_yubikey_with(person, serial, &[])
    }

    /// The same, with more arguments.
    pub fn enrol_yubikey_with(&self, person: &str, serial: u32, more: &[&str]) -> Outcome<Reply> {
        self.tell_pin(person, PIN, PUK)?;
        let end = if more.contains(&"--spare") {
            "-spare"
        } else {
            ""
        };
        let (out, token) = (
            format!("people/{person}{end}.enroll"),
            format!("yubikey:{serial}"),
        );
        let enroll = [
            "enroll", person, "--token", &token, "--out", &out, "--puk-fd", "4",
        ];
        self.keyturn(person, enroll.iter().chain(more))
    }
}

/// The serial number of bob's YubiKey.
pub const BOB: u32 = 10_000_001;
/// The serial number of carol's YubiKey.
pub const CAROL: u32 = 10_000_002;

/// A founded vault in which bob and carol have YubiKeys, and dan a key file.
pub struct Case {
    /// The vault and its people.
    pub world: World,
    /// Bob's, in reader 0.
    pub bob: Held,
    /// Carol's, in reader 1.
    pub carol: Held,
    /// Who made both.
    pub pki: TestPki,
}

impl Case {
    /// Everybody has joined.
    pub fn founded(desk: &Desk) -> Outcome<Self> {
        let mut case = Self::new(desk)?;
        case.enrol("bob", &[])?.ok()?;
        case.found("")?;
        Ok(case)
    }

    /// Everybody but bob has enrolled.
    pub fn new(desk: &Desk) -> Outcome<Self> {
        let pki = TestPki::new()?;
        let bob = insert(desk, 0, BOB, (5, 7, 4), &pki)?;
        let carol = insert(desk, 1, CAROL, (5, 4, 3), &pki)?;
        let world = World::new()?;
        world.believe(&pki.anchors_file())?;
        std::fs::create_dir_all(world.folder().join("people"))?;
        for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
            if *name == "carol" {
                world.enrol_yubikey(name, CAROL)?.ok()?;
            } else {
                let out = format!("people/{name}.enroll");
                world.keyturn(name, ["enroll", name, "--out", &out])?.ok()?;
            }
        }
        Ok(Self {
            world,
            bob,
            carol,
            pki,
        })
    }

    /// Enrols a person with bob's token.
    pub fn enrol(&self, person: &str, more: &[&str]) -> Outcome<Reply> {
        self.world.enrol_yubikey_with(person, BOB, more)
    }

    /// Founds the vault with this policy.
    pub fn found(&mut self, policy: &str) -> Outcome<()> {
        let made = self.world.init(&PEOPLE, policy)?.json()?;
        self.world.start()?;
        let digest = made
            .pointer("/charter/sha256")
            .map(text)
            .unwrap_or_default();
        for (name, _) in PEOPLE {
            let welcomes = made.pointer(&format!("/welcomes/{name}"));
            for welcome in welcomes.and_then(Value::as_array).into_iter().flatten() {
                let join = ["join", &text(welcome), "--yes-sha256", &digest];
                self.world.keyturn(name, join)?.ok()?;
            }
        }
        Ok(())
    }

    /// Olga proposes this charter, and these people agree.
    pub fn change(&self, charter: &Value, people: &[&str]) -> Outcome<()> {
        let file = self.world.folder().join("charter.json");
        write_private(&file, charter.to_string().as_bytes())?;
        let propose = ["charter", "propose", "charter.json", "--reason", "needed"];
        let child = self.world.command("olga", propose)?.spawn()?;
        for person in people {
            let asked = (0..100).find_map(|_| {
                std::thread::sleep(Duration::from_millis(50));
                self.waiting(person).ok()?.pop()
            });
            let asked = asked.ok_or("the change does not wait")?;
            self.approve(person, &asked)?.ok()?;
        }
        finish(child)?.ok()?;
        Ok(())
    }

    /// Runs a command without quotes in it.
    pub fn run(&self, person: &str, line: &str) -> Outcome<Reply> {
        self.world.keyturn(person, line.split(' '))
    }

    /// Adds this many credentials; their paths.
    pub fn credentials(&self, count: usize) -> Outcome<Vec<String>> {
        write_private(&self.world.folder().join("secret"), b"hunter2")?;
        let paths: Vec<String> = (1..=count).map(|i| format!("aws/prod/root-{i}")).collect();
        for path in &paths {
            let add = "--kind text --group ops --policy default --secret-file secret";
            self.run("olga", &format!("credential add {path} {add}"))?
                .ok()?;
        }
        Ok(paths)
    }

    /// Alice asks for these; ceremony and digest.
    pub fn ask(&self, paths: &[String]) -> Outcome<(String, String)> {
        let ask = format!("unseal {} --reason down --no-wait", paths.join(" "));
        let asked = self.run("alice", &ask)?.ok()?.stdout;
        let ceremony = asked.trim().to_owned();
        for _ in 0..100 {
            let waiting = self.waiting("bob")?;
            if let Some(found) = waiting.into_iter().find(|(id, _)| *id == ceremony) {
                return Ok(found);
            }
        }
        Err("the request does not wait for bob".into())
    }

    /// What waits for somebody: ceremonies and digests.
    pub fn waiting(&self, person: &str) -> Outcome<Vec<(String, String)>> {
        let status = self.run(person, "--json status")?.ok()?.json()?;
        let waiting = status.get("waiting").and_then(Value::as_array);
        let of = |one: &Value, name| one.get(name).map(text).unwrap_or_default();
        let all = waiting.into_iter().flatten();
        Ok(all
            .map(|one| (of(one, "ceremony"), of(one, "request_sha256")))
            .collect())
    }

    /// Approves without waiting for the outcome.
    pub fn approve(&self, person: &str, asked: &(String, String)) -> Outcome<Reply> {
        let (ceremony, digest) = asked;
        self.run(
            person,
            &format!("approve {ceremony} --no-wait --yes-sha256 {digest}"),
        )
    }
}

/// The text in a JSON value.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
