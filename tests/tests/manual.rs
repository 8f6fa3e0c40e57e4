//! The transcripts of `docs/MANUAL.md` are what people see: a real vault, a real target, six people.
//!
//! Commands run in the order of the page. A requester's command that waits for others is compared when the page goes
//! on to [`AFTER_OPENING`].

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_tests::{
    Outcome, Program, World,
    harness::write_private,
    page::{Page, Step},
    program::finish,
};
use keyturn_vault::digest::Digest;
use serde_json::{Value, json};

/// The block before which everything has been opened.
const AFTER_OPENING: &str = "check-in";
const CREDENTIAL: &str = "accounts/main/root";
const PASSWORD: &str = "summer-rain-on-tin";
const TRIES: u32 = 500;
const STEP: Duration = Duration::from_millis(20);

struct Story {
    page: Page,
    world: World,
    target: Child,
    /// What waits for others.
    waiting: Option<(Step, Child)>,
    ceremony: String,
    digest: String,
}

impl Drop for Story {
    fn drop(&mut self) {
        let _ = self.target.kill();
        let _ = self.target.wait();
    }
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Story {
    fn new() -> Outcome<Self> {
        let world = World::new()?;
        let mut page = Page::read("MANUAL.md")?;
        let folder = world.folder().to_owned();
        let founding = page.block("toml").ok_or("the page founds no vault")?;
        write_private(&folder.join("FOUNDING.toml"), founding.as_bytes())?;
        write_private(&folder.join("password"), PASSWORD.as_bytes())?;
        for name in ["alice", "olga", "bob", "carol", "dan", "erin"] {
            page.place(world.home(name).display().to_string(), "~/.keyturn");
        }
        page.place(format!("{}/", folder.display()), "");
        page.place(world.address().to_string(), "192.0.2.7:7400");
        let service = folder.join("service");
        let target = std::process::Command::new(Program::path("account")?)
            .arg("serve")
            .arg(&service)
            .stdin(Stdio::null())
            .spawn()?;
        for _ in 0..TRIES {
            if service.exists() {
                break;
            }
            thread::sleep(STEP);
        }
        Ok(Self {
            page,
            world,
            target,
            waiting: None,
            ceremony: String::new(),
            digest: String::new(),
        })
    }

    /// What happens between the blocks of the page.
    fn before(&mut self, block: &str) -> Outcome<()> {
        match block {
            "join" => self.serve(),
            "approve" | "refuse" => self.request(),
            AFTER_OPENING => match self.waiting.take() {
                Some((step, child)) => {
                    let reply = finish(child)?;
                    self.page
                        .printed(&step, &format!("{}{}", reply.stderr, reply.stdout));
                    Ok(())
                }
                None => Err("the page opens nothing".into()),
            },
            "rotated" => self.current(2),
            "recover" => self.world.stop(),
            "import" => self.world.start(),
            _ => Ok(()),
        }
    }

    /// The daemon with its connector; the password is set at the target.
    fn serve(&mut self) -> Outcome<()> {
        let service = self.world.folder().join("service");
        let program = Program::path("account")?;
        let config = self.world.vault().join("keyturnd.toml");
        let connector = format!(
            "{}\n[connectors.accounts]\nkind = \"exec\"\ncommand = {}\nargs = [\"connect\", {}]\n",
            fs::read_to_string(&config)?,
            Value::from(program.display().to_string()),
            Value::from(service.display().to_string()),
        );
        write_private(&config, connector.as_bytes())?;
        let secret = BASE64_STANDARD.encode(PASSWORD);
        let set = json!({"action": "apply", "settings": {"user": "root"}, "secret": secret});
        let args = ["connect".as_ref(), service.as_os_str()];
        self.world
            .program("account", &args, set.to_string().as_bytes())?
            .ok()?;
        let welcome: Value = serde_json::from_slice(&fs::read(self.world.welcome("bob"))?)?;
        self.digest = text(welcome.pointer("/genesis/digest"));
        self.world.start()
    }

    /// The request that waits for a custodian.
    fn request(&mut self) -> Outcome<()> {
        for _ in 0..TRIES {
            let status = self.world.keyturn("dan", ["--json", "status"])?.ok()?;
            let status = status.json()?;
            if status.pointer("/waiting/0").is_some() {
                self.ceremony = text(status.pointer("/waiting/0/ceremony"));
                self.digest = text(status.pointer("/waiting/0/request_sha256"));
                return Ok(());
            }
            thread::sleep(STEP);
        }
        Err("nothing waits for dan".into())
    }

    /// Waits until a version of the credential is the current one.
    fn current(&self, version: u64) -> Outcome<()> {
        for _ in 0..TRIES {
            let show = ["--json", "credential", "show", CREDENTIAL];
            let shown = self.world.keyturn("olga", show)?.ok()?.json()?;
            if shown.get("current").and_then(Value::as_u64) == Some(version) {
                return Ok(());
            }
            thread::sleep(STEP);
        }
        Err("the password was not rotated".into())
    }

    fn run(&mut self, step: &Step) -> Outcome<()> {
        let address = self.world.address().to_string();
        let mut args = step.words();
        for word in &mut args {
            *word = match word.as_str() {
                "[id]" => self.ceremony.clone(),
                "192.0.2.7:7400" => address.clone(),
                other => other.to_owned(),
            };
        }
        let program = args.remove(0);
        if program == "keyturnd" {
            let reply = self.world.keyturnd(args)?;
            self.page
                .printed(step, &format!("{}{}", reply.stderr, reply.stdout));
            return Ok(());
        }
        let agrees = ["join", "approve", "refuse", "recover"];
        if args
            .first()
            .is_some_and(|word| agrees.contains(&word.as_str()))
            && !self.digest.is_empty()
        {
            args.extend(["--yes-sha256".to_owned(), self.digest.clone()]);
        }
        let waits = args.first().is_some_and(|word| word == "unseal")
            && !args.iter().any(|word| word == "--resume");
        if waits {
            let child = self.world.command(&step.person, args)?.spawn()?;
            self.waiting = Some((step.clone(), child));
            return Ok(());
        }
        let reply = self.world.keyturn(&step.person, args)?;
        let all = format!("{}{}", reply.stderr, reply.stdout);
        if step.block == "recover" {
            self.learn(&all)?;
        }
        if step.command.starts_with("keyturn recover open") {
            self.accepted(reply.stdout.trim())?;
        }
        self.page.printed(step, &all);
        Ok(())
    }

    /// What custodians opened by themselves is the password that the target takes now; nobody had seen it.
    fn accepted(&mut self, password: &str) -> Outcome<()> {
        let service = self.world.folder().join("service");
        let login = ["login".as_ref(), service.as_os_str(), "root".as_ref()];
        self.world
            .program("account", &login, password.as_bytes())?
            .ok()?;
        self.page.place(password, "[password]");
        Ok(())
    }

    /// The ceremony of a recovery as it was told, and the digest of its request.
    fn learn(&mut self, all: &str) -> Outcome<()> {
        if let Some(id) = all.lines().find_map(|line| line.strip_prefix("ceremony ")) {
            id.trim().clone_into(&mut self.ceremony);
            let asked = fs::read(self.world.folder().join("request.json"))?;
            let asked: Value = serde_json::from_slice(&asked)?;
            let request = text(asked.pointer("/recover/text"));
            self.digest = Digest::of(request.as_bytes()).to_string();
        }
        Ok(())
    }
}

#[test]
fn the_manual_shows_what_people_see() {
    let mut story = Story::new().unwrap();
    let mut before = String::new();
    for step in story.page.steps() {
        if step.block != before {
            story.before(&step.block).unwrap();
        }
        step.block.clone_into(&mut before);
        story.run(&step).unwrap();
    }
    let blocks = story.page.blocks();
    for name in [
        "enrol",
        "init",
        "join",
        "deposit",
        "unseal",
        "approve",
        "refuse",
        "approve-second",
        "check-in",
        "rotated",
        "verify",
        "review",
        "report",
        "export",
        "recover",
        "import",
    ] {
        assert!(blocks.contains(name), "the page has no {name}");
    }
    let page = std::mem::replace(&mut story.page, Page::read("MANUAL.md").unwrap());
    page.done().unwrap();
}
