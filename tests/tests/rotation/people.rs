//! What people do about rotations at the command line.

use std::fs;

use keyturn::totp::Totp;
use keyturn_tests::{
    World, harness::write_private, program::Program, raw::now, target::Target, terminal::Terminal,
};
use serde_json::Value;

use super::stage::{FIRST, USER};

const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const PEOPLE: [(&str, &[&str]); 4] = [
    ("alice", &["requester", "operator"]),
    ("bob", &["custodian"]),
    ("carol", &["custodian"]),
    ("dan", &["custodian"]),
];

/// A vault whose people have homes, and a target whose password is in it.
fn founded() -> (World, Target) {
    let mut world = World::new().unwrap();
    world.found(&PEOPLE).unwrap();
    let target = Target::start(&world).unwrap();
    target.set(USER, FIRST).unwrap();
    world.start().unwrap();
    (world, target)
}

fn run(world: &World, who: &str, line: &str) -> String {
    let reply = world.keyturn(who, line.split(' ')).unwrap().ok().unwrap();
    reply.stdout
}

fn add(world: &World, path: &str, secret: &[u8], more: &str) {
    write_private(&world.folder().join("secret"), secret).unwrap();
    let add =
        format!("credential add {path} --group ops --policy default --secret-file secret {more}");
    run(world, "alice", &add);
}

/// Alice asks, bob and carol approve; gives the ceremony, whose secret can be fetched.
fn opened(world: &World, path: &str) -> String {
    let ask = format!("unseal {path} --reason down --no-wait");
    let ceremony = run(world, "alice", &ask).trim().to_owned();
    for who in ["bob", "carol"] {
        let status = world.keyturn(who, ["--json", "status"]).unwrap();
        let status: Value = status.json().unwrap();
        let digest = status["waiting"][0]["request_sha256"].as_str().unwrap();
        let approve = format!("--yes-sha256 {digest} approve --no-wait");
        // Shares are taken while somebody is connected.
        run(world, who, &approve);
    }
    ceremony
}

#[test]
fn who_held_an_old_secret_tries_it_and_the_log_has_what_came_of_it() {
    let (world, _target) = founded();
    let rotated = "--kind text --connector accounts --set user=root";
    add(&world, "accounts/root", FIRST, rotated);
    let login = format!(
        "'{}' login '{}' {USER}",
        Program::path("account").unwrap().display(),
        world.folder().join("target").join("place").display()
    );
    let ceremony = opened(&world, "accounts/root");
    let first = run(
        &world,
        "alice",
        &format!("unseal --resume {ceremony} --raw"),
    );
    assert_eq!(first.as_bytes(), FIRST);
    let checkin = |ceremony: &str, command: &str| {
        let checkin = ["--json", "checkin", ceremony, "--check-old", command];
        world.keyturn("alice", checkin).unwrap()
    };
    let reply = checkin(&ceremony, &login).ok().unwrap().json().unwrap();
    assert_eq!(reply["old"][0]["outcome"], "void", "{reply}");
    let log = run(&world, "alice", "--json credential history accounts/root");
    assert!(log.contains("accounts/root"), "{log}");

    // One that its target takes for good is an alarm, whatever the daemon believes.
    let ceremony = opened(&world, "accounts/root");
    let reply = checkin(&ceremony, "cat > /dev/null").exits(214).unwrap();
    assert!(reply.stderr.contains("still works"), "{}", reply.stderr);
    assert_eq!(reply.json().unwrap()["old"][0]["outcome"], "works");
}

#[test]
fn an_opened_seed_is_shown_as_codes_that_run_out() {
    let (world, _target) = founded();
    add(&world, "aws/1/totp", SEED.as_bytes(), "--kind totp-seed");
    let ceremony = opened(&world, "aws/1/totp");
    let mut screen =
        Terminal::keyturn(&world, "alice", &format!("unseal --resume {ceremony}")).unwrap();
    screen
        .answer("passphrase", keyturn_tests::harness::PASSPHRASE)
        .unwrap();
    screen.shows("Ctrl-C").unwrap();
    let seed = Totp::parse(SEED.as_bytes()).unwrap();
    let codes = seed.at(now().ms() / 1000).unwrap();
    // The code of now, or the next one if a step passes right here.
    screen.shows(" s   next ").unwrap();
    // Drawn again and again.
    for _ in 0..2 {
        screen.shows("\u{1b}[1A").unwrap();
        screen.shows(" s   next ").unwrap();
    }
    screen.types("\u{3}").unwrap();
    let (code, shown) = screen.ends().unwrap();
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains(&codes.code) || shown.contains(&codes.next),
        "{shown}"
    );
    assert!(!shown.contains(SEED), "the seed is not shown");

    // Where nobody watches, the codes are printed once; the seed only for who asks for it.
    let printed = run(&world, "alice", &format!("unseal --resume {ceremony}"));
    assert!(
        printed.contains(" then ") && !printed.contains(SEED),
        "{printed}"
    );
    let raw = run(
        &world,
        "alice",
        &format!("unseal --resume {ceremony} --raw"),
    );
    assert_eq!(raw, SEED);
}

#[test]
fn a_rotation_by_hand_is_shown_and_completed() {
    let (mut world, _target) = founded();
    world.stop().unwrap();
    let config = world.vault().join("keyturnd.toml");
    let table = "\n[connectors.manual]\nkind = \"manual\"\nguides = { console = [\"sign in\", \"change it\"] }\n";
    let before = fs::read_to_string(&config).unwrap();
    write_private(&config, format!("{before}{table}").as_bytes()).unwrap();
    world.start().unwrap();
    let by_hand = "--kind aws-root --connector manual --set guide=console";
    add(&world, "aws/1/root", FIRST, by_hand);
    let ceremony = opened(&world, "aws/1/root");
    run(&world, "alice", &format!("checkin {ceremony}"));
    let shown = run(&world, "alice", "rotate show aws/1/root");
    for part in ["manual", "1. sign in", "2. change it", "rotate complete"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    write_private(&world.folder().join("secret"), b"by hand").unwrap();
    let complete = "rotate complete aws/1/root --secret-file secret";
    let done = run(&world, "alice", complete);
    assert!(done.contains("idle"), "{done}");
    let ceremony = opened(&world, "aws/1/root");
    let both: Value = serde_json::from_str(&run(
        &world,
        "alice",
        &format!("--json unseal --resume {ceremony}"),
    ))
    .unwrap();
    let secrets: Vec<_> = both["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["secret"])
        .collect();
    assert_eq!(secrets, ["the first password", "by hand"]);
}
