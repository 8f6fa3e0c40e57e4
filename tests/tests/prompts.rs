//! The questions that people answer at a terminal: on a real pseudo-terminal, made by `script(1)`.

use keyturn_tests::{Outcome, World, harness::PASSPHRASE, raw::PEOPLE, terminal::Terminal};

const NOT_CONFIRMED: i32 = 26;

#[test]
fn people_enrol_join_and_approve_at_a_terminal() {
    let mut world = World::new().unwrap();
    std::fs::create_dir_all(world.folder().join("people")).unwrap();

    let mut enrol = Terminal::keyturn(&world, "bob", "enroll bob --out people/bob.enroll").unwrap();
    enrol.answer("new passphrase", PASSPHRASE).unwrap();
    enrol.answer("once more", "something else").unwrap();
    let (code, shown) = enrol.ends().unwrap();
    assert!(
        code != 0 && shown.contains("error:") && shown.contains("hint:"),
        "{shown}"
    );

    let mut enrol = Terminal::keyturn(&world, "bob", "enroll bob --out people/bob.enroll").unwrap();
    enrol.answer("new passphrase", PASSPHRASE).unwrap();
    enrol.answer("once more", PASSPHRASE).unwrap();
    let (code, shown) = enrol.ends().unwrap();
    assert_eq!(code, 0, "{shown}");
    assert!(
        !shown.contains(PASSPHRASE),
        "the passphrase was echoed:\n{shown}"
    );

    for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
        let out = format!("people/{name}.enroll");
        world
            .keyturn(name, ["enroll", name, "--out", &out])
            .unwrap()
            .ok()
            .unwrap();
    }
    let made = world.init(&PEOPLE, "").unwrap().json().unwrap();
    let digest = made
        .pointer("/charter/sha256")
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    let words = made
        .pointer("/charter/words")
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    world.start().unwrap();
    for (name, _) in PEOPLE.iter().filter(|(name, _)| *name != "bob") {
        let welcome = format!("vault/welcome/{name}.welcome");
        let join = ["join", &welcome, "--yes-sha256", &digest];
        world.keyturn(name, join).unwrap().ok().unwrap();
    }

    let mut join = Terminal::keyturn(&world, "bob", "join vault/welcome/bob.welcome").unwrap();
    join.answer("Type yes", "yes, I think").unwrap();
    let (code, shown) = join.ends().unwrap();
    assert_eq!(code, NOT_CONFIRMED, "{shown}");

    let mut join = Terminal::keyturn(&world, "bob", "join vault/welcome/bob.welcome").unwrap();
    join.answer("Type yes", "yes").unwrap();
    join.answer("passphrase", PASSPHRASE).unwrap();
    let (code, shown) = join.ends().unwrap();
    assert!(
        code == 0 && shown.contains(&words) && shown.contains("founded"),
        "{shown}"
    );

    let secret = world.folder().join("first");
    keyturn_tests::harness::write_private(&secret, b"hunter2").unwrap();
    let add =
        "credential add aws/1/root --kind text --group ops --policy default --secret-file first";
    world.keyturn("olga", add.split(' ')).unwrap().ok().unwrap();
    let ask = "unseal aws/1/root --reason down --no-wait";
    let ceremony = world
        .keyturn("alice", ask.split(' '))
        .unwrap()
        .ok()
        .unwrap()
        .stdout;
    leaves(&world, ceremony.trim()).unwrap();
    let approve = format!("approve {} --no-wait", ceremony.trim());
    let mut wrong = Terminal::keyturn(&world, "bob", &approve).unwrap();
    wrong.answer("passphrase", "not the passphrase").unwrap();
    let (code, shown) = wrong.ends().unwrap();
    assert!(code != 0 && shown.contains("passphrase"), "{shown}");
    let mut approved = Terminal::keyturn(&world, "bob", &approve).unwrap();
    approved.answer("passphrase", PASSPHRASE).unwrap();
    approved.answer("Type yes", "yes").unwrap();
    let (code, shown) = approved.ends().unwrap();
    assert!(code == 0 && shown.contains("approved"), "{shown}");

    let status = world.keyturn("carol", ["--json", "status"]).unwrap();
    let status = status.json().unwrap();
    let digest = status.pointer("/waiting/0/request_sha256").unwrap();
    let approve = ["approve", "--no-wait", "--yes-sha256"];
    let approve = approve.into_iter().chain(digest.as_str());
    world.keyturn("carol", approve).unwrap().ok().unwrap();
    let resume = format!("unseal --resume {} --clip", ceremony.trim());
    let mut clip = Terminal::keyturn(&world, "alice", &resume).unwrap();
    clip.answer("passphrase", PASSPHRASE).unwrap();
    let (code, shown) = clip.ends().unwrap();
    assert_eq!(code, 0, "{shown}");
    let sequence = "\u{1b}]52;c;aHVudGVyMg==\u{7}";
    assert!(
        shown.contains(sequence) && shown.contains("until you copy something else"),
        "{shown:?}"
    );
    assert!(!shown.contains("hunter2"), "it was printed too: {shown:?}");
}

#[test]
fn without_a_terminal_nothing_is_asked_for_its_clipboard() {
    let world = World::new().unwrap();
    let unseal = "unseal aws/1/root --reason down --clip";
    let command = world.command("alice", unseal.split(' ')).unwrap();
    // A session of its own has no terminal, wherever this test runs.
    let mut alone = std::process::Command::new("setsid");
    alone
        .arg("--wait")
        .arg(command.get_program())
        .args(command.get_args());
    let output = alone
        .current_dir(world.folder())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(121), "{said}");
    assert!(
        said.contains("error: there is no terminal") && said.contains("hint: "),
        "{said}"
    );
    assert!(output.stdout.is_empty());
}

/// Who stops waiting is told how to come back, also by `status`.
fn leaves(world: &World, ceremony: &str) -> Outcome<()> {
    let resume = format!("unseal --resume {ceremony}");
    let mut leaving = Terminal::keyturn(world, "alice", &resume)?;
    leaving.answer("passphrase", PASSPHRASE)?;
    leaving.shows("0 of 2")?;
    leaving.types("\u{3}")?;
    let (code, shown) = leaving.ends()?;
    let left = shown.contains("the request goes on") && shown.contains(&resume);
    assert!(code == 96 && left, "{code} {shown}");
    let status = world.keyturn("alice", ["--json", "status"])?;
    let status = status.json()?;
    let asked = status.pointer("/asked/0/ceremony");
    assert_eq!(asked.and_then(|id| id.as_str()), Some(ceremony));
    Ok(())
}
