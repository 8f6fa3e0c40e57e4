//! Wrong flags, values, files, keys, certificates and configurations: each is told by both programs with what
//! is wrong and what to do, and changes nothing on disk.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test stops where it is wrong, and breaks files of its own"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use keyturn_tests::{Outcome, Reply, World, program::finish};
use serde_json::Value;

/// A vault with a credential: alice asks and operates, the others are custodians.
fn founded() -> Outcome<World> {
    let mut world = World::new()?;
    let people: [(&str, &[&str]); 4] = [
        ("alice", &["requester", "operator"]),
        ("bob", &["custodian"]),
        ("carol", &["custodian"]),
        ("dan", &["custodian"]),
    ];
    for (name, _) in people {
        let out = format!("people/{name}.enroll");
        world.keyturn(name, ["enroll", name, "--out", &out])?.ok()?;
    }
    world.init(&people, "")?;
    world.start()?;
    let welcome: Value = serde_json::from_slice(&fs::read(world.welcome("bob"))?)?;
    let genesis = welcome.pointer("/genesis/digest").and_then(Value::as_str);
    let genesis = genesis.ok_or("no digest")?;
    for (name, _) in people {
        let welcome = world.welcome(name).display().to_string();
        let join = ["--yes-sha256", genesis, "join", &welcome];
        world.keyturn(name, join)?.ok()?;
    }
    fs::write(world.folder().join("secret"), "hunter2")?;
    let add =
        "credential add aws/1/root --kind text --group ops --policy default --secret-file secret";
    world.keyturn("alice", add.split(' '))?.ok()?;
    Ok(world)
}

/// Every file below a folder with its content, and every folder.
fn files(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
            found.insert(path, Vec::new());
        } else {
            // What a test has made unreadable is still there.
            let content = fs::read(&path).unwrap_or_default();
            found.insert(path, content);
        }
    }
}

/// What a home has verified, which only goes forward, and what keeps two commands apart.
fn forward(path: &Path) -> bool {
    let names = ["checkpoint", "definitions", "passphrase", "lock"];
    path.iter()
        .any(|part| names.iter().any(|name| part == *name))
}

/// The folder but what a running daemon writes, and what a home has verified.
fn at_rest(world: &World, daemon: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    files(world.folder(), &mut found);
    let runs =
        |path: &Path| daemon && (path.starts_with(world.vault()) || path.ends_with("keyturnd.log"));
    found.retain(|path, _| !runs(path) && !forward(path));
    found
}

/// What was told: an error that says this, a way out, nothing on standard output, and this exit code.
fn told(name: &str, reply: &Reply, exit: i32, says: &str) -> Result<(), String> {
    let line = |start: &str| reply.stderr.lines().any(|line| line.starts_with(start));
    // The parser of command lines has words of its own for the way out.
    let way_out = line("hint: ") || reply.stderr.contains("try '--help'");
    let good = reply.code == exit
        && line("error: ")
        && reply.stderr.matches("error: ").count() == 1
        && way_out
        && reply.stderr.contains(says)
        && reply.stdout.is_empty()
        && !reply.stderr.contains('\u{1b}');
    if good {
        return Ok(());
    }
    Err(format!(
        "{name}: wanted {exit} and \"{says}\", got {}\n{}{}",
        reply.code, reply.stdout, reply.stderr
    ))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Replaces text in a file.
fn edit(path: &Path, from: &str, to: &str) {
    let bytes = fs::read(path).unwrap();
    let at = bytes
        .windows(from.len())
        .position(|part| part == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("{} has no {from}", path.display()));
    let (before, after) = bytes.split_at(at);
    let after = after.get(from.len()..).unwrap();
    fs::write(path, [before, to.as_bytes(), after].concat()).unwrap();
}

/// Wrong words of the command line: who, what, the exit code, and what must be told.
const LINES: &[(&str, &str, &str, i32, &str)] = &[
    (
        "an unknown command",
        "bob",
        "aprove",
        2,
        "similar subcommand",
    ),
    (
        "an unknown flag",
        "bob",
        "status --verbose",
        2,
        "unexpected argument",
    ),
    (
        "a flag twice",
        "bob",
        "--json --json status",
        2,
        "cannot be used multiple times",
    ),
    ("no path", "alice", "unseal --reason x", 2, "<PATH>"),
    (
        "a file in no folder",
        "alice",
        "unseal aws/1/root --reason x --output nowhere/secret",
        27,
        "its folder is not there",
    ),
    (
        "a folder where a file shall be",
        "alice",
        "unseal aws/1/root --reason x --output people",
        27,
        "what is there is no file",
    ),
    (
        "a path with one step",
        "alice",
        "unseal root --reason x",
        2,
        "invalid value",
    ),
    (
        "a path with capitals",
        "alice",
        "unseal Aws/1/root --reason x",
        2,
        "invalid value",
    ),
    (
        "a path that climbs",
        "alice",
        "unseal aws/../root --reason x",
        2,
        "invalid value",
    ),
    (
        "a look-alike path",
        "alice",
        "unseal аws/1/root --reason x",
        2,
        "invalid value",
    ),
    ("no reason", "alice", "unseal aws/1/root", 2, "--reason"),
    (
        "a span without a unit",
        "alice",
        "unseal aws/1/root --reason x --check-out 2",
        2,
        "invalid value",
    ),
    (
        "a negative span",
        "alice",
        "unseal aws/1/root --reason x --check-out=-2h",
        2,
        "invalid value",
    ),
    (
        "an endless span",
        "alice",
        "unseal aws/1/root --reason x --valid-for 9999999999h",
        2,
        "invalid value",
    ),
    (
        "a rule that nobody has",
        "alice",
        "unseal aws/1/root --reason x --waive quorum",
        2,
        "invalid value",
    ),
    (
        "two places for one secret",
        "alice",
        "unseal aws/1/root --reason x --clip --raw",
        2,
        "cannot be used with",
    ),
    (
        "raw bytes as JSON",
        "alice",
        "--json unseal aws/1/root --reason x --raw",
        11,
        "--json",
    ),
    (
        "a ceremony that is no id",
        "bob",
        "approve seven",
        2,
        "invalid value",
    ),
    (
        "a ceremony of another length",
        "bob",
        "approve 01ARZ3NDEKTSV4RRFFQ69G5FA",
        2,
        "invalid value",
    ),
    (
        "a ceremony that is not there",
        "bob",
        "approve 01ARZ3NDEKTSV4RRFFQ69G5FAV",
        9,
        "no such ceremony",
    ),
    (
        "a version without its letter",
        "alice",
        "checkin 01ARZ3NDEKTSV4RRFFQ69G5FAV --worked aws/1/root=1",
        2,
        "write the version like v2",
    ),
    (
        "a version without its path",
        "alice",
        "checkin 01ARZ3NDEKTSV4RRFFQ69G5FAV --worked v1",
        2,
        "PATH=vN",
    ),
    (
        "no such kind",
        "alice",
        "credential add a/b --kind nonsense --group ops --policy default",
        2,
        "invalid value",
    ),
    (
        "no such group",
        "alice",
        "credential add a/b --kind text --group none --policy default --no-secret",
        11,
        "none",
    ),
    (
        "no such policy",
        "alice",
        "credential add a/b --kind text --group ops --policy none --no-secret",
        11,
        "none",
    ),
    (
        "a setting without a connector",
        "alice",
        "credential add a/b --kind text --group ops --policy default --set a=b --no-secret",
        2,
        "--connector",
    ),
    (
        "a setting without a value",
        "alice",
        "credential add a/b --kind text --group ops --policy default --connector c --set a --no-secret",
        2,
        "invalid value",
    ),
    (
        "a secret that is not there",
        "alice",
        "credential deposit aws/1/root --secret-file none",
        27,
        "none",
    ),
    (
        "a secret that is a folder",
        "alice",
        "credential deposit aws/1/root --secret-file people",
        27,
        "people",
    ),
    (
        "an empty secret",
        "alice",
        "credential deposit aws/1/root --secret-file empty",
        11,
        "empty",
    ),
    (
        "a secret beyond 64 KiB",
        "alice",
        "credential deposit aws/1/root --secret-file huge",
        27,
        "huge",
    ),
    (
        "a charter that is no JSON",
        "alice",
        "charter diff secret",
        27,
        "document cannot be read",
    ),
    (
        "a charter that is not there",
        "alice",
        "charter propose none --reason x",
        27,
        "none",
    ),
    (
        "a charter that nobody had",
        "alice",
        "charter show --index 7",
        9,
        "charter",
    ),
    (
        "a welcome file that is none",
        "bob",
        "join secret",
        27,
        "welcome",
    ),
    (
        "an enrolment that is none",
        "alice",
        "charter invite secret",
        27,
        "enrolment",
    ),
    (
        "both ways to join",
        "bob",
        "join vault/welcome/bob.welcome --device",
        2,
        "cannot be used with",
    ),
    (
        "an entry beyond the log",
        "bob",
        "audit proof 4000000000",
        9,
        "entry",
    ),
    (
        "an entry that is no number",
        "bob",
        "audit proof last",
        2,
        "invalid value",
    ),
    (
        "a folder without its key",
        "bob",
        "audit verify --dir people",
        2,
        "--vkey",
    ),
    (
        "a folder without a log",
        "bob",
        "audit verify --dir people --vkey secret",
        11,
        "no verifier key",
    ),
    (
        "a key that is none",
        "bob",
        "audit verify --dir people --vkey x+y+z",
        27,
        "x+y+z",
    ),
    (
        "a first charter that is no digest",
        "bob",
        "audit verify --dir people --vkey x --genesis 7",
        2,
        "invalid value",
    ),
    (
        "a checkpoint that is none",
        "bob",
        "audit verify --checkpoint secret",
        24,
        "checkpoint",
    ),
    (
        "a time that is none",
        "bob",
        "audit report --from yesterday",
        2,
        "invalid value",
    ),
    (
        "a record that is not there",
        "bob",
        "audit reconcile none",
        27,
        "none",
    ),
    (
        "a record without columns",
        "bob",
        "audit reconcile secret",
        27,
        "time",
    ),
    (
        "an export that is none",
        "alice",
        "recover request aws/1/root --export people --reason x --out r.json",
        9,
        "people",
    ),
    (
        "an answer to no request",
        "bob",
        "recover share secret --export people --out r.json",
        27,
        "secret",
    ),
    (
        "a pattern for nothing",
        "alice",
        "rotate now --reason x",
        2,
        "<PATH>",
    ),
    (
        "all and one",
        "alice",
        "rotate now aws/1/root --all --reason x",
        2,
        "cannot be used with",
    ),
    (
        "a pause for ever",
        "alice",
        "rotate pause aws/1/root --for ever",
        2,
        "invalid value",
    ),
    (
        "nothing is paused",
        "alice",
        "rotate resume aws/1/root",
        210,
        "nothing is paused",
    ),
    (
        "nothing is stuck",
        "alice",
        "rotate retry aws/1/root",
        78,
        "does not need",
    ),
    (
        "to look for a review alone",
        "bob",
        "review --in-order",
        2,
        "<CEREMONY>",
    ),
    (
        "a shell that nobody has",
        "bob",
        "completions tcsh",
        2,
        "invalid value",
    ),
    (
        "manual pages into nowhere",
        "bob",
        "man none/none",
        27,
        "none",
    ),
    (
        "a token that is no kind",
        "bob",
        "--token smartcard status",
        2,
        "invalid value",
    ),
    (
        "another text than the one shown",
        "bob",
        "--yes-sha256 7 confirm aws/1/root",
        2,
        "64 hexadecimal",
    ),
];

#[test]
fn wrong_words_are_told_and_change_nothing() {
    let world = founded().unwrap();
    fs::write(world.folder().join("empty"), "").unwrap();
    fs::write(world.folder().join("huge"), vec![b'x'; 65 * 1024]).unwrap();
    let mut before = at_rest(&world, true);
    let mut wrong = Vec::new();
    for (name, person, line, exit, says) in LINES {
        let reply = world.keyturn(person, line.split(' ')).unwrap();
        wrong.extend(told(name, &reply, *exit, says).err());
        let after = at_rest(&world, true);
        let changed: Vec<_> = before
            .keys()
            .chain(after.keys())
            .filter(|path| before.get(*path) != after.get(*path))
            .collect();
        if !changed.is_empty() {
            wrong.push(format!("{name}: it changed {changed:?}"));
        }
        before = after;
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A broken home: how, the command, the exit code, and what must be told.
type Broken = (&'static str, fn(&Path), &'static str, i32, &'static str);

const HOMES: &[Broken] = &[
    (
        "no profile",
        |home| fs::remove_file(home.join("profile.json")).unwrap(),
        "status",
        25,
        "no keyturn home",
    ),
    (
        "a profile that is no JSON",
        |home| fs::write(home.join("profile.json"), "{").unwrap(),
        "status",
        27,
        "profile.json",
    ),
    (
        "a profile with a word too many",
        |home| edit(&home.join("profile.json"), "{", "{\"colour\":\"red\","),
        "status",
        27,
        "damaged",
    ),
    (
        "a profile of a later program",
        |home| edit(&home.join("profile.json"), " v1", " v9"),
        "status",
        27,
        "profile.json",
    ),
    (
        "a profile beyond its bound",
        |home| fs::write(home.join("profile.json"), vec![b' '; 2 << 20]).unwrap(),
        "status",
        27,
        "profile.json",
    ),
    (
        "a home that others can read",
        |home| mode(home, 0o755),
        "status",
        27,
        "others",
    ),
    (
        "a home that others can write",
        |home| mode(home, 0o777),
        "status",
        27,
        "others",
    ),
    (
        "no key of the computer",
        |home| fs::remove_file(home.join("device.pem")).unwrap(),
        "status",
        27,
        "device.pem",
    ),
    (
        "a key of the computer that is none",
        |home| fs::write(home.join("device.pem"), "x").unwrap(),
        "status",
        27,
        "device.pem",
    ),
    (
        "a key that others can read",
        |home| mode(&home.join("device.pem"), 0o644),
        "status",
        27,
        "device.pem",
    ),
    (
        "a certificate without its end",
        |home| edit(&home.join("device.pem"), "-----END CERTIFICATE-----", ""),
        "status",
        27,
        "device.pem",
    ),
    (
        "a first charter that is another",
        |home| edit(&home.join("charter/1"), "\"k\":2", "\"k\":3"),
        "status",
        24,
        "charter 1",
    ),
    (
        "a checkpoint that is none",
        |home| fs::write(home.join("checkpoint"), "x\n").unwrap(),
        "approve 01ARZ3NDEKTSV4RRFFQ69G5FAV",
        24,
        "checkpoint",
    ),
    (
        "no key file",
        |home| fs::remove_file(home.join("token.key")).unwrap(),
        "heartbeat",
        27,
        "token.key",
    ),
    (
        "a key file that is none",
        |home| fs::write(home.join("token.key"), "x").unwrap(),
        "heartbeat",
        120,
        "this is not a key file",
    ),
    (
        "a key file that is cut off",
        |home| {
            let whole = fs::read(home.join("token.key")).unwrap();
            fs::write(home.join("token.key"), whole.get(..200).unwrap()).unwrap();
        },
        "heartbeat",
        120,
        "cut short",
    ),
    (
        "a key file that wants all memory",
        |home| edit(&home.join("token.key"), "m=65536", "m=4194304"),
        "heartbeat",
        120,
        "65536 to 1048576",
    ),
    (
        "roots that are none",
        |home| fs::write(home.join("attestation-roots.pem"), "x").unwrap(),
        "audit verify",
        27,
        "attestation-roots.pem",
    ),
];

#[test]
fn broken_homes_are_told_and_stay_as_they_are() {
    let world = founded().unwrap();
    let mut wrong = Vec::new();
    for (place, (name, how, line, exit, says)) in HOMES.iter().enumerate() {
        let person = format!("bob-{place}");
        let home = world.home(&person);
        copy(&world.home("bob"), &home);
        how(&home);
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        files(&home, &mut before);
        before.retain(|path, _| !forward(path));
        let reply = world.keyturn(&person, line.split(' ')).unwrap();
        files(&home, &mut after);
        after.retain(|path, _| !forward(path));
        wrong.extend(told(name, &reply, *exit, says).err());
        if before != after {
            wrong.push(format!("{name}: the home is another one"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A folder with everything in it, private.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    mode(to, 0o700);
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn wrong_passphrases_are_told() {
    let world = founded().unwrap();
    let folder = world.folder();
    let write = |name: &str, text: &str, bits: u32| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        mode(&path, bits);
        path.display().to_string()
    };
    let program = keyturn_tests::Program::path("keyturn").unwrap();
    let answer = |who: &str, file: &str, command: &[&str]| {
        let mut keyturn = Command::new(&program);
        keyturn.arg("--home").arg(world.home(who));
        keyturn.args(["--passphrase-file", file]).args(command);
        keyturn.current_dir(folder).stdin(Stdio::null());
        keyturn.stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(keyturn.spawn().unwrap()).unwrap()
    };
    for (name, file, exit, says) in [
        (
            "another one",
            write("p1", "correct horse battery staplf", 0o600),
            119,
            "passphrase",
        ),
        (
            "none at all",
            write("p2", "", 0o600),
            121,
            "1 to 1024 bytes",
        ),
        (
            "one that others can read",
            write("p3", keyturn_tests::harness::PASSPHRASE, 0o644),
            121,
            "p3",
        ),
    ] {
        let reply = answer("bob", &file, &["heartbeat"]);
        told(name, &reply, exit, says).unwrap();
    }
    let short = write("p4", "7 chars", 0o600);
    let reply = answer("gina", &short, &["enroll", "gina"]);
    told("a new one that is short", &reply, 121, "at least 8").unwrap();
    assert!(!folder.join("gina.enroll").exists());
}

/// A configuration with something wrong: what is replaced by what, and what must be told.
const CONFIGS: &[(&str, &str, &str, i32, &str)] = &[
    ("no TOML", "[listen]", "[listen", 78, "keyturnd.toml"),
    (
        "an unknown word",
        "[listen]",
        "colour = \"red\"\n[listen]",
        78,
        "colour",
    ),
    (
        "an unknown table",
        "[listen]",
        "[colours]\n[listen]",
        78,
        "colours",
    ),
    (
        "a word twice",
        "[copies]\n",
        "[copies]\nmin = 0\nmin = 0\n",
        78,
        "duplicate key",
    ),
    (
        "a port that is none",
        "grpc = [\"",
        "grpc = [\"127.0.0.1:99999\", \"",
        78,
        "invalid socket address",
    ),
    (
        "an address that is a name",
        "grpc = [\"",
        "grpc = [\"localhost:7400\", \"",
        78,
        "invalid socket address",
    ),
    (
        "no address",
        "grpc = [",
        "metrics = \"127.0.0.1:0\"\ngrpc = [] #",
        78,
        "name 1 to 8 addresses",
    ),
    (
        "metrics for everybody",
        "grpc = [",
        "metrics = \"0.0.0.0:9400\"\ngrpc = [",
        78,
        "metrics",
    ),
    (
        "a limit of nothing",
        "[listen]",
        "[limits]\nconnections = 0\n[listen]",
        78,
        "out of bounds",
    ),
    (
        "a limit below nothing",
        "[listen]",
        "[limits]\nconnections = -1\n[listen]",
        78,
        "out of bounds",
    ),
    (
        "a limit beyond reason",
        "[listen]",
        "[limits]\nconnections = 99999999999\n[listen]",
        78,
        "out of bounds",
    ),
    (
        "more copies than places",
        "[copies]\n",
        "[copies]\nmin = 3\n#",
        78,
        "min",
    ),
    (
        "a connector of no kind",
        "[listen]",
        "[connectors.x]\nkind = \"telnet\"\n[listen]",
        78,
        "telnet",
    ),
    (
        "a connector without its program",
        "[listen]",
        "[connectors.x]\nkind = \"exec\"\n[listen]",
        78,
        "command",
    ),
    (
        "a program by a relative path",
        "[listen]",
        "[connectors.x]\nkind = \"exec\"\ncommand = \"rotate\"\n[listen]",
        78,
        "must begin with",
    ),
    (
        "a relative folder",
        "data = \"",
        "data = \"here\" #",
        78,
        "must begin with",
    ),
    (
        "a folder that is not there",
        "data = \"",
        "data = \"/nowhere/at/all\" #",
        78,
        "/nowhere/at/all",
    ),
    (
        "a key that is not there",
        "node = \"",
        "node = \"/nowhere/node.pem\" #",
        78,
        "/nowhere/node.pem",
    ),
    (
        "a log key that is none",
        "log = \"",
        "log = \"/etc/hostname\" #",
        78,
        "/etc/hostname",
    ),
];

#[test]
fn wrong_configurations_are_told_and_start_nothing() {
    let mut world = founded().unwrap();
    world.stop().unwrap();
    let good = world.vault().join("keyturnd.toml");
    let text = fs::read_to_string(&good).unwrap();
    let file = world.folder().join("keyturnd.toml");
    let shown = file.display().to_string();
    let before = at_rest(&world, false);
    let mut wrong = Vec::new();
    for (name, from, to, exit, says) in CONFIGS {
        assert!(text.contains(from), "{name}: {from} is not in\n{text}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        for command in ["check-config", "run"] {
            let reply = world.keyturnd([command, "--config", &shown]).unwrap();
            let reply = Reply {
                stdout: String::new(),
                ..reply
            };
            wrong.extend(told(&format!("{name} ({command})"), &reply, *exit, says).err());
        }
        fs::remove_file(&file).unwrap();
        if at_rest(&world, false) != before {
            wrong.push(format!("{name}: it changed something"));
        }
    }
    let founding = fs::read_to_string(world.folder().join("FOUNDING.toml")).unwrap();
    let strict = founding.replace("require_attestation = false", "");
    fs::write(world.folder().join("strict.toml"), strict).unwrap();
    let before = at_rest(&world, false);
    for (name, line, exit, says) in [
        ("no command", "", 2, "Usage"),
        ("an unknown command", "start", 2, "unrecognized"),
        (
            "a configuration that is not there",
            "run --config none.toml",
            78,
            "none.toml",
        ),
        (
            "a configuration that is a folder",
            "check-config --config people",
            78,
            "people",
        ),
        (
            "a notifier that is not there",
            "notify --test x --config vault/keyturnd.toml",
            1,
            "x",
        ),
        (
            "a folder that is not empty",
            "init --dir vault --origin a.example/b --listen 127.0.0.1:1 --founding FOUNDING.toml",
            1,
            "vault",
        ),
        (
            "no such founding",
            "init --dir new --origin a.example/b --listen 127.0.0.1:1 --founding none.toml",
            1,
            "none.toml",
        ),
        (
            "a founding that is none",
            "init --dir new --origin a.example/b --listen 127.0.0.1:1 --founding secret",
            1,
            "secret",
        ),
        (
            "a name with a space",
            "init --dir new --origin a%b --listen 127.0.0.1:1 --founding FOUNDING.toml",
            1,
            "origin",
        ),
        (
            "an address at which nobody is reached",
            "init --dir new --origin a.example/b --listen 0.0.0.0:1 --founding FOUNDING.toml",
            1,
            "--endpoint",
        ),
        (
            "tokens that the policy does not take",
            "init --dir new --origin a.example/b --listen 127.0.0.1:1 --founding strict.toml",
            1,
            "require_attestation",
        ),
        (
            "a folder for copies that is not there",
            "init --dir new --origin a.example/b --listen 127.0.0.1:1 --founding FOUNDING.toml --sink none",
            1,
            "none",
        ),
        (
            "a vault from nothing",
            "restore --from people --dir new --genesis 0000000000000000000000000000000000000000000000000000000000000000 --listen 127.0.0.1:1",
            1,
            "first charter",
        ),
        (
            "a vault without its digest",
            "restore --from people --dir new --genesis 7 --listen 127.0.0.1:1",
            2,
            "--genesis",
        ),
        (
            "a backup of nothing",
            "backup --to b --config none.toml",
            1,
            "none.toml",
        ),
    ] {
        let reply = world
            .keyturnd(line.split(' ').filter(|word| !word.is_empty()))
            .unwrap();
        let usage = reply.code == 2 && reply.stderr.contains(says);
        if !usage {
            wrong.extend(told(name, &reply, exit, says).err());
        }
        if at_rest(&world, false) != before {
            wrong.push(format!("{name}: it changed something"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        LINES.len() + HOMES.len() + CONFIGS.len() >= 60,
        "a table of everything"
    );
}
