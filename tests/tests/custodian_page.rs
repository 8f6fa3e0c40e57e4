//! The transcripts of `docs/CUSTODIAN.md` are what a custodian with a YubiKey sees.
//!
//! They are run in the order of the page, each block with what has to happen around it.

use std::fs;

use keyturn_tests::{
    Outcome, World,
    harness::write_private,
    page::{Page, Step},
    raw::PEOPLE,
    tokens::{BOB, CAROL, Held, PIN, PUK, insert, text},
};
use keyturn_virtual_yubikey::{Desk, TestPki, Touch, at_desk};

/// A vault of which bob's page is read.
struct Story {
    page: Page,
    world: World,
    bob: Held,
    /// In its reader only where the page says so.
    spare: Held,
    ceremony: String,
    digest: String,
}

impl Story {
    fn new(desk: &Desk) -> Outcome<Self> {
        let pki = TestPki::new()?;
        let bob = insert(desk, 0, BOB, (5, 7, 4), &pki)?;
        let mut spare = insert(desk, 1, CAROL, (5, 7, 4), &pki)?;
        spare.pull()?;
        let world = World::new()?;
        world.believe(&pki.anchors_file())?;
        fs::create_dir_all(world.folder().join("people"))?;
        world.tell_pin("bob", PIN, PUK)?;
        Ok(Self {
            page: Page::read("CUSTODIAN.md")?,
            world,
            bob,
            spare,
            ceremony: String::new(),
            digest: String::new(),
        })
    }

    /// Runs a command of the page and compares what it prints.
    fn run(&mut self, step: &Step) -> Outcome<()> {
        let mut args = step.words();
        args.remove(0);
        for word in args.iter_mut().filter(|word| word.ends_with('…')) {
            word.clone_from(&self.ceremony);
        }
        let more = match args.first().map_or("", String::as_str) {
            "enroll" => ["--puk-fd", "4"],
            _ => ["--yes-sha256", self.digest.as_str()],
        };
        if !self.digest.is_empty() || more[0] != "--yes-sha256" {
            args.extend(more.map(str::to_owned));
        }
        let reply = self.world.keyturn("bob", args)?;
        self.page
            .printed(step, &format!("{}{}", reply.stderr, reply.stdout));
        Ok(())
    }

    /// The others enrol, and the vault is founded.
    fn found(&mut self) -> Outcome<()> {
        let folder = self.world.folder();
        for file in ["bob.enroll", "bob-spare.enroll"] {
            fs::rename(folder.join(file), folder.join("people").join(file))?;
        }
        for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
            let out = format!("people/{name}.enroll");
            self.world
                .keyturn(name, ["enroll", name, "--out", &out])?
                .ok()?;
        }
        let made = self.world.init(&PEOPLE, "")?.json()?;
        self.digest = made
            .pointer("/charter/sha256")
            .map(text)
            .unwrap_or_default();
        self.world.start()?;
        for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
            let welcome = self.world.welcome(name).display().to_string();
            self.world
                .keyturn(name, ["join", &welcome, "--yes-sha256", &self.digest])?
                .ok()?;
        }
        for token in ["bob", "bob-spare"] {
            let file = self.world.folder().join(format!("{token}.welcome"));
            fs::copy(self.world.welcome(token), file)?;
        }
        Ok(())
    }

    /// Everything that has to happen before the block of this name.
    fn before(&mut self, name: &str, desk: &Desk) -> Outcome<()> {
        match name {
            "spare" | "join-spare" | "lost" => self.spare.put_back(desk)?,
            _ => {}
        }
        match name {
            "join" => self.found()?,
            "approve" | "refuse" => self.ask()?,
            "touch" => self.bob.card.touch_next([Touch::Never]),
            "wrong-pin" => self.world.tell_pin("bob", "999999", PUK)?,
            "blocked" => {
                self.world.tell_pin("bob", "999999", PUK)?;
                for _ in 0..3 {
                    self.world.keyturn("bob", ["heartbeat"])?;
                }
            }
            "away" | "lost" => self.bob.pull()?,
            _ => {}
        }
        Ok(())
    }

    /// And what after it.
    fn after(&mut self, name: &str, desk: &Desk) -> Outcome<()> {
        match name {
            "spare" | "join-spare" => self.spare.pull()?,
            "wrong-pin" | "blocked" => self.world.tell_pin("bob", PIN, PUK)?,
            "away" => self.bob.put_back(desk)?,
            _ => {}
        }
        Ok(())
    }

    /// Alice asks for a credential; it is the only one that waits for bob.
    fn ask(&mut self) -> Outcome<()> {
        let secret = self.world.folder().join("secret");
        if !secret.exists() {
            write_private(&secret, b"hunter2")?;
            let add = "credential add aws/prod/root --kind text --group ops --policy default --secret-file secret";
            self.world.keyturn("olga", add.split(' '))?.ok()?;
        }
        let ask = "unseal aws/prod/root --reason down --ticket INC-7 --no-wait";
        let asked = self.world.keyturn("alice", ask.split(' '))?.ok()?.stdout;
        let status = self
            .world
            .keyturn("bob", ["--json", "status"])?
            .ok()?
            .json()?;
        let waiting = status
            .get("waiting")
            .and_then(|all| all.as_array())
            .cloned();
        let waiting = waiting.unwrap_or_default();
        let of = |name: &str| {
            waiting
                .iter()
                .find(|one| one.get("ceremony").map(text).as_deref() == Some(asked.trim()))
                .and_then(|one| one.get(name).map(text))
        };
        self.digest = of("request_sha256").ok_or("it does not wait for bob")?;
        asked.trim().clone_into(&mut self.ceremony);
        Ok(())
    }
}

#[test]
fn the_page_shows_what_a_custodian_sees() {
    at_desk(2, |desk| {
        let mut story = Story::new(desk).expect("a desk");
        let mut before = String::new();
        let steps = story.page.steps();
        let names = story.page.blocks();
        let mut told = || -> Outcome<()> {
            for step in &steps {
                let name = step.block.as_str();
                if name != before {
                    story.before(name, desk)?;
                }
                name.clone_into(&mut before);
                story.run(step)?;
                story.after(name, desk)?;
            }
            Ok(())
        };
        told().expect("the page's story");
        story.page.done().expect("the page as it is");
        for name in [
            "enrol",
            "spare",
            "rehearse",
            "join",
            "join-spare",
            "approve",
            "refuse",
            "touch",
            "wrong-pin",
            "blocked",
            "away",
            "lost",
            "heartbeat",
        ] {
            assert!(names.contains(name), "the page has no {name}");
        }
    });
}
