//! `./dev demo`: a vault from its founding to the verified log, told by the programs themselves.
//!
//! Every step is run for real on loopback, shown, and must end as told; otherwise the demo fails.
//! `--yubikey` gives Bob and Dan virtual YubiKeys behind the real PC/SC stack, and tells of their touches.
//! `--postgres` rotates a role of a real PostgreSQL instead of the account of a small service.
//! `--keep DIR` leaves what an auditor needs, `--hold` keeps the vault running.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use keyturn_proto::CODE_TRAILER;
use keyturn_seal::Secret;
use keyturn_tests::{
    Outcome, Reply, World,
    harness::{ORIGIN, write_private},
    hold::{Interrupt, hold},
    keep, postgres,
    raw::{Facts, Member, PEOPLE},
    rotated::{Account, Rotated},
    stage::{Running, Stage, chapter, says, shown, tell},
    story::Ballot,
    tokens::{PIN, PUK, Shown},
};
use keyturn_virtual_yubikey::{Card, Touch, with_desk};
use serde_json::Value;

const FIRST_PASSWORD: &str = "summer-rain-on-tin";
/// The target is waited for this long.
const TRIES: u32 = 250;
const STEP: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let asked = match Asked::read() {
        Ok(asked) => asked,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return ExitCode::from(2);
        }
    };
    match run(asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: the demo went wrong: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    hold: bool,
    kept: Option<PathBuf>,
    yubikey: bool,
    postgres: bool,
}

impl Asked {
    fn read() -> Outcome<Self> {
        let mut asked = Self::default();
        let mut args = std::env::args_os().skip(1);
        while let Some(argument) = args.next() {
            match argument.to_str() {
                Some("--hold") => asked.hold = true,
                Some("--yubikey") => asked.yubikey = true,
                Some("--postgres") => asked.postgres = true,
                Some("--keep") => {
                    let dir = args.next().ok_or(USAGE)?;
                    asked.kept = Some(keep::folder(Path::new(&dir))?);
                }
                _ => return Err(USAGE.into()),
            }
        }
        Ok(asked)
    }
}

fn run(asked: Asked) -> Outcome<()> {
    let interrupt = Interrupt::listen()?;
    let mut tokens = None;
    if asked.yubikey {
        match with_desk(2)? {
            Ok(desk) => tokens = Some(Shown::new(desk)?),
            Err(status) if status.success() => return Ok(()),
            Err(status) => return Err(format!("at its desk: {status}").into()),
        }
    }
    let mut demo = Demo::new(tokens, asked.postgres)?;
    demo.found()?;
    interrupt.check()?;
    demo.deposit()?;
    let ceremony = demo.open()?;
    interrupt.check()?;
    demo.after(&ceremony)?;
    demo.rotated()?;
    demo.audit()?;
    if let Some(dir) = asked.kept {
        demo.keep(&dir)?;
    }
    if asked.hold {
        let tokens = demo.tokens.take();
        hold(demo.world(), demo.target.path(), tokens, &interrupt)?;
    }
    Ok(())
}

const USAGE: &str = "usage: demo [--hold] [--keep DIR] [--yubikey] [--postgres]";

struct Demo {
    stage: Stage,
    /// Virtual YubiKeys, where they are shown.
    tokens: Option<Shown>,
    target: Rotated,
}

impl Demo {
    fn new(tokens: Option<Shown>, role: bool) -> Outcome<Self> {
        let mut world = World::new()?;
        world.add_sink("copies")?;
        if let Some(tokens) = &tokens {
            world.believe(&tokens.roots)?;
        }
        let target = if role && postgres::installed() {
            Rotated::Role(postgres::Server::start(FIRST_PASSWORD)?)
        } else {
            Rotated::Account(Account::start(&world)?)
        };
        Ok(Self {
            stage: Stage::new(world),
            tokens,
            target,
        })
    }

    fn world(&self) -> &World {
        &self.stage.world
    }

    fn found(&mut self) -> Outcome<()> {
        tell(
            "Five people and a vault. --home and --passphrase-file are left out of what is shown.",
        )?;
        chapter("Everybody makes keys")?;
        for (name, _) in PEOPLE {
            let out = format!("people/{name}.enroll");
            std::fs::create_dir_all(self.world().folder().join("people"))?;
            self.enrol(name, &out)?;
        }
        chapter("The vault is founded: three custodians, any two of whom open what is sealed")?;
        let made = self.world().init(&PEOPLE, "")?;
        tell(&std::fs::read_to_string(
            self.world().folder().join("FOUNDING.toml"),
        )?)?;
        tell(
            "root$ keyturnd init --dir vault --origin … --founding FOUNDING.toml --listen … --sink copies",
        )?;
        let made = made.json()?;
        let text = |pointer: &str| {
            made.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        tell(&format!("    charter 1: {}", text("/charter/words")))?;
        tell(&format!("    its SHA-256: {}", text("/charter/sha256")))?;
        let digest = text("/charter/sha256").to_owned();
        self.connector()?;
        self.stage.world.start()?;
        for (name, _) in PEOPLE {
            let welcome = format!("vault/welcome/{name}.welcome");
            self.stage
                .keyturn(name, &["join", &welcome, "--yes-sha256", &digest])?;
        }
        self.stage.keyturn("alice", &["status"])?;
        Ok(())
    }

    /// A YubiKey where the person has one, otherwise a key file.
    fn enrol(&self, name: &str, out: &str) -> Outcome<Reply> {
        let Some(card) = self.card(name) else {
            return self.stage.keyturn(name, &["enroll", name, "--out", out]);
        };
        let token = format!("yubikey:{}", card.serial());
        self.world().tell_pin(name, PIN, PUK)?;
        let enroll = [
            "enroll", name, "--token", &token, "--out", out, "--puk-fd", "4",
        ];
        self.stage.keyturn(name, &enroll)
    }

    fn card(&self, name: &str) -> Option<&Card> {
        self.tokens.as_ref().and_then(|tokens| tokens.of(name))
    }

    /// Names the connector in the daemon's configuration.
    fn connector(&self) -> Outcome<()> {
        let config = self.world().vault().join("keyturnd.toml");
        let before = std::fs::read_to_string(&config)?;
        let text = format!("{before}\n{}", self.target.configuration()?);
        write_private(&config, text.as_bytes())?;
        Ok(())
    }

    fn deposit(&self) -> Outcome<()> {
        chapter("A password is set at the target, and sealed")?;
        tell(&format!("The target is {}.", self.target.what()?))?;
        self.target.set(self.world(), FIRST_PASSWORD)?;
        write_private(
            &self.world().folder().join("first"),
            FIRST_PASSWORD.as_bytes(),
        )?;
        let mut add = vec!["credential", "add", self.target.path()];
        add.extend(self.target.credential());
        add.extend([
            "--group",
            "ops",
            "--policy",
            "default",
            "--secret-file",
            "first",
        ]);
        self.stage.keyturn("olga", &add)?;
        self.stage.keyturn("olga", &["credential", "list"])?;
        Ok(())
    }

    /// Alice asks; gives the command that waits, the ceremony and the digest to agree to.
    fn ask(&self, reason: &str, ticket: &str, output: &str) -> Outcome<(Running, String, String)> {
        let unseal = [
            "unseal",
            self.target.path(),
            "--reason",
            reason,
            "--ticket",
            ticket,
            "--check-out",
            "1h",
            "--output",
            output,
        ];
        let asking = self.stage.begin("alice", &unseal)?;
        let ceremony = asking.told("ceremony")?;
        let digest = asking.told("request")?;
        asking.told("six words")?;
        Ok((asking, ceremony, digest))
    }

    /// The request and everything that is said to it; gives the ceremony.
    fn open(&self) -> Outcome<String> {
        let stage = &self.stage;
        chapter("Alice asks, with a reason and a ticket, and waits")?;
        let reason = "identity provider down, nobody can sign in";
        let (asking, ceremony, digest) = self.ask(reason, "INC-2024-001", "secret")?;
        let approve = ["approve", &ceremony, "--no-wait", "--yes-sha256", &digest];
        chapter("Bob approves")?;
        stage.keyturn("bob", &approve)?;
        chapter("Carol's keys, in other hands, hand in a share that was never dealt")?;
        self.wrong_share("carol", &ceremony)?;
        chapter("Bob approves again: one person is not two")?;
        stage.refused("bob", &approve, 36, "already approved")?;
        chapter("Dan refuses; that blocks nobody, and later approvers see it")?;
        let reason = "call me before you do this";
        let refuse = [
            "refuse",
            &ceremony,
            "--reason",
            reason,
            "--yes-sha256",
            &digest,
        ];
        if let Some(card) = self.card("dan") {
            card.touch_next([Touch::Never]);
            stage.refused("dan", &refuse, 114, "was not touched in time")?;
        }
        stage.keyturn("dan", &refuse)?;
        chapter("Carol sees Dan's refusal, and approves: two of three")?;
        let approved = stage.keyturn("carol", &["approve", &ceremony, "--yes-sha256", &digest])?;
        says(&approved, reason)?;
        chapter("Alice has the secret")?;
        asking.ends()?;
        if self.secret("secret")? != FIRST_PASSWORD {
            return Err("another secret came out than was put in".into());
        }
        self.sign_in(FIRST_PASSWORD, true)?;
        Ok(ceremony)
    }

    /// What `unseal` wrote.
    fn secret(&self, file: &str) -> Outcome<String> {
        Ok(std::fs::read_to_string(self.world().folder().join(file))?)
    }

    /// The password is accepted by the target, or not.
    fn sign_in(&self, password: &str, accepted: bool) -> Outcome<()> {
        self.target.sign_in(&self.stage, password, accepted)
    }

    fn wrong_share(&self, person: &str, ceremony: &str) -> Outcome<()> {
        let (facts, _) = Facts::read(&self.world().welcome(person))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let status = runtime.block_on(async {
            let carol = Member::of_home(&self.world().home(person))?;
            let line = carol.connect(&facts).await?;
            let mut ballot = Ballot::new(&facts, &line, &carol, ceremony).await?;
            for share in &mut ballot.submission.shares {
                share.share = Secret::random()?;
            }
            let call = ballot.call()?;
            let reply = line.ceremonies().approve(call).await;
            reply
                .err()
                .ok_or_else(|| Box::<dyn Error + Send + Sync>::from("a wrong share was taken"))
        })?;
        let code = status
            .metadata()
            .get(CODE_TRAILER)
            .and_then(|code| code.to_str().ok());
        tell(&format!(
            "    {}: {}",
            code.unwrap_or("?"),
            status.message()
        ))?;
        if code == Some("wrong-share") {
            Ok(())
        } else {
            Err(status.into())
        }
    }

    fn after(&self, ceremony: &str) -> Outcome<()> {
        chapter("The entries of the release, each with its proof")?;
        for kind in ["authorized", "released"] {
            let base = format!("people/alice/receipts/{ceremony}-{kind}");
            for end in ["entry.json", "tlog-proof"] {
                let mut text = String::new();
                File::open(self.world().folder().join(format!("{base}.{end}")))?
                    .read_to_string(&mut text)?;
                tell(&format!("{base}.{end}:\n{text}"))?;
            }
        }
        chapter("Alice returns it, and the daemon sets a new password at the target")?;
        let worked = format!("{}=v1", self.target.path());
        self.stage
            .keyturn("alice", &["checkin", ceremony, "--worked", &worked])?;
        Ok(())
    }

    /// The rotation has been done: the old password is void, and the new one opens like the first.
    fn rotated(&self) -> Outcome<()> {
        let show = ["--json", "credential", "show", self.target.path()];
        let mut current = None;
        for _ in 0..TRIES {
            let shown = self.world().keyturn("olga", show)?.ok()?.json()?;
            current = shown.get("current").and_then(Value::as_u64);
            if current == Some(2) {
                break;
            }
            std::thread::sleep(STEP);
        }
        self.stage.keyturn("olga", &["rotate", "list", "--all"])?;
        self.stage
            .keyturn("olga", &["credential", "show", self.target.path()])?;
        if current != Some(2) {
            return Err("the password was not rotated".into());
        }
        chapter("The target refuses the old password")?;
        self.sign_in(FIRST_PASSWORD, false)?;
        chapter("The new one is sealed; opened by Bob and Dan, it is accepted")?;
        let (asking, ceremony, digest) =
            self.ask("see that the new one works", "INC-2024-002", "second")?;
        let approve = ["approve", &ceremony, "--no-wait", "--yes-sha256", &digest];
        self.quietly("bob", &approve)?;
        self.quietly("dan", &approve)?;
        asking.ends()?;
        self.sign_in(&self.secret("second")?, true)
    }

    /// A command whose output was seen before.
    fn quietly(&self, person: &str, args: &[&str]) -> Outcome<()> {
        tell(&shown(person, "keyturn", args))?;
        self.world().keyturn(person, args)?.ok()?;
        Ok(())
    }

    fn audit(&self) -> Outcome<()> {
        chapter("How the vault is: what was copied, and what is left to do")?;
        let status = self.stage.keyturn("olga", &["status"])?;
        says(&status, "copies-1 complete")?;
        chapter("The whole log is computed again, with all its signatures")?;
        self.stage
            .keyturn("alice", &["credential", "history", self.target.path()])?;
        self.stage.keyturn("alice", &["audit", "verify"])?;
        Ok(())
    }

    fn keep(&mut self, dir: &Path) -> Outcome<()> {
        chapter("What is kept for an auditor")?;
        let text = dir.display().to_string();
        let (facts, _) = Facts::read(&self.world().welcome("alice"))?;
        self.stage
            .keyturn("alice", &["audit", "export", &format!("{text}/log")])?;
        self.stage.keyturn(
            "alice",
            &[
                "credential",
                "export",
                self.target.path(),
                "--to",
                &format!("{text}/export"),
            ],
        )?;
        write_private(&dir.join("vkey"), format!("{}\n", facts.vkey).as_bytes())?;
        keep::statements(&facts, &dir.join("log"), dir)?;
        let custodians = ["bob", "carol", "dan"];
        let with_files: Vec<_> = custodians
            .into_iter()
            .filter(|name| self.card(name).is_none())
            .collect();
        keep::people(self.world(), &with_files, "alice", dir)?;
        let (log, vkey) = (format!("{text}/log"), format!("{text}/vkey"));
        let genesis = facts.reference.digest.to_string();
        let mut verify = vec!["audit", "verify", "--dir", &log, "--vkey", &vkey];
        verify.extend(["--genesis", &genesis]);
        let receipts = keep::receipts(dir)?;
        for receipt in &receipts {
            verify.extend(["--checkpoint", receipt]);
        }
        self.stage.keyturn("alice", &verify)?;
        tell(&format!(
            "\n{text} has log/, vkey, receipts/, requests/, approvals/, export/ and keys/ of {ORIGIN}"
        ))
    }
}
