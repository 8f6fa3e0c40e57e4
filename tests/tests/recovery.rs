//! `docs/RECOVERY.md` works as it stands: its commands open a freshly sealed credential with the keys of two custodians of
//! three, without any of our code.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test that cannot go on must stop at once, says why, and writes what it opens"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use keyturn_seal as seal;
use keyturn_vault::{
    definition::Definition,
    digest::Digest,
    event::Seal,
    id::{CredentialId, PersonId, TokenId},
    jcs::Document as _,
    layout::{self, SealedVersion},
    manifest::{self, Manifest},
    reference::{CharterRef, Signer, Version},
};

const SECRET: &str = "correct horse\nbattery\n\nstaple \u{1f510}";
const NAMES: [&str; 3] = ["bob", "carol", "dan"];
const DEFINITION: &str = r#"{"origin":"vault.example.org/prod","credential":"01M7XXW767R9ZVQGFC0SD2CTJQ",
    "path":"postgres/prod/admin","kind":"postgres","group":"ops-custodians","policy":"strict"}"#;

/// A folder with an export and the three custodians' key files.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let scene = Self { folder };
        fs::create_dir(scene.path("shares")).expect("a folder");
        let keys: Vec<_> = NAMES.iter().map(|name| scene.key_file(name)).collect();
        for number in [6, 7] {
            let sealed = version(number, &keys);
            for file in sealed.files().expect("files") {
                let path = scene.path("export").join(file.place.to_string());
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                fs::write(path, file.bytes).expect("a file");
            }
        }
        let readme = layout::File::readme();
        let path = scene.path("export").join(readme.place.to_string());
        fs::write(path, readme.bytes).expect("a file");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key_file(&self, name: &str) -> seal::ShareKey {
        let identity = seal::ShareIdentity::generate().expect("random numbers");
        let key = identity.share_key();
        let pem = include_bytes!("../../seal/testdata/approval-key.pem");
        let approval_key = seal::SecretBytes::from(pem.to_vec());
        let file = seal::KeyFile {
            identity,
            approval_key,
        };
        let cost = seal::keyfile::Cost::new(65_536, 3, 4).expect("in bounds");
        let sealed = file.seal(&passphrase(name).into_bytes().into(), cost);
        let path = self.path(&format!("{name}.key"));
        fs::write(path, sealed.expect("a key file")).expect("a file");
        key
    }

    /// Runs all blocks of the page for this role, one after the other in one shell, as a person would.
    fn run(&self, role: &str, variables: &[(&str, &str)], script: &str, input: &str) -> Output {
        let mut child = Command::new("/bin/sh")
            .args(["-e", "-c", script])
            .envs(variables.iter().copied())
            .env("FOLDER", self.path("export"))
            .env("SHARES", self.path("shares"))
            .env("CREDENTIAL", "postgres/prod/admin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut stdin = child.stdin.take().expect("a pipe");
        // The requester's commands read nothing.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output().expect("an end");
        let errors = String::from_utf8_lossy(&output.stderr);
        println!("{role}: {}\n{errors}", output.status);
        output
    }
}

fn passphrase(name: &str) -> String {
    format!("{name}'s \"pass\\phrase\" $HOME")
}

/// The version, sealed to the three by the real thing.
fn version(number: u64, keys: &[seal::ShareKey]) -> SealedVersion {
    let definition = Definition::from_draft(DEFINITION.as_bytes()).expect("a definition");
    let credential: CredentialId = definition.credential;
    let persons: Vec<_> = (1..=3).map(|n| PersonId::from_bytes([n; 16])).collect();
    let tokens: Vec<_> = (4..=6).map(|n| TokenId::from_bytes([n; 16])).collect();
    let holders = keys.iter().enumerate().map(|(i, key)| seal::Holder {
        person: persons[i].to_string(),
        tokens: vec![seal::HolderToken {
            id: tokens[i].to_string(),
            key: key.clone(),
        }],
    });
    let group = definition.group.clone();
    let roster = seal::Roster::new(group.as_str(), 2, holders.collect()).expect("a roster");
    let binding = seal::Binding::new(definition.origin.as_str(), &credential.to_string(), number);
    let secret = match number {
        7 => SECRET,
        _ => "an older secret",
    };
    let sealed = seal::seal(
        &secret.as_bytes().to_vec().into(),
        &binding.expect("names"),
        &[roster],
    )
    .expect("sealed");
    let shares = &sealed.groups[0].shares;
    let holders = shares
        .iter()
        .enumerate()
        .map(|(i, share)| manifest::Holder {
            person: persons[i],
            x: share.x,
            tokens: BTreeSet::from([tokens[i]]),
            commitment: Digest(share.commitment),
            envelope: Digest(share.envelope_sha256),
        });
    let manifest = Manifest {
        format: manifest::Format::V1,
        origin: definition.origin.clone(),
        definition: Digest::of(&definition.to_bytes().expect("canonical")),
        credential,
        version: Version::new(number).expect("in bounds"),
        kind: definition.kind,
        charter: CharterRef {
            index: 1,
            digest: Digest([9; 32]),
        },
        ciphertext: Digest(sealed.ciphertext_sha256),
        groups: vec![manifest::SealedGroup {
            group,
            k: 2,
            n: 3,
            holders: holders.collect(),
        }],
    };
    SealedVersion {
        definition,
        manifest,
        // Opening by hand does not ask who sealed it.
        signature: Seal {
            signer: Signer::Token(tokens[0]),
            signature: vec![0x30; 70],
        },
        envelopes: shares.iter().map(|share| share.envelope.clone()).collect(),
        payload: sealed.ciphertext,
    }
}

/// The fenced blocks of the page, in its order: for whom, and what.
fn blocks() -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = layout::README.lines();
    while let Some(line) = lines.next() {
        if let Some(role) = line.strip_prefix("```sh ") {
            let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((role.to_owned(), body.join("\n") + "\n"));
        }
    }
    blocks
}

/// What `role` types, from beginning to end.
fn script(role: &str) -> String {
    let mine =
        |(whom, body): (String, String)| (whom == role || whom == "everybody").then_some(body);
    blocks().into_iter().filter_map(mine).collect()
}

#[test]
fn two_custodians_open_a_credential_with_the_pages_own_commands() {
    let scene = Scene::new();
    let roles: BTreeMap<_, usize> =
        blocks()
            .into_iter()
            .fold(BTreeMap::new(), |mut all, (role, _)| {
                *all.entry(role).or_default() += 1;
                all
            });
    let want = [("custodian", 3), ("everybody", 4), ("requester", 3)];
    assert_eq!(
        roles,
        want.map(|(role, count)| (role.to_owned(), count)).into()
    );

    // The requester makes a key, then waits for the shares.
    let requester = script("requester");
    let (make_key, open) =
        requester.split_at(requester.find("for FILE in \"$SHARES\"").expect("step 4"));
    let out = scene.path("out").display().to_string();
    fs::create_dir(&out).expect("a folder");
    let made = scene.run(
        "requester",
        &[("OUT", &out)],
        &format!("{make_key}cp requester.* $OUT\n"),
        "",
    );
    assert!(made.status.success());
    let shown = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(
        shown.contains("ok ") && !shown.contains("ALTERED"),
        "{shown}"
    );
    assert!(
        shown.contains("/v7/payload.age"),
        "the newest is taken: {shown}"
    );
    let public = fs::read_to_string(scene.path("out/requester.pub")).expect("a key");

    // Two of three custodians, far apart.
    for name in [NAMES[2], NAMES[0]] {
        let key = scene.path(&format!("{name}.key")).display().to_string();
        let variables = [
            ("NAME", name),
            ("KEYFILE", key.as_str()),
            ("REQUESTER", public.trim()),
        ];
        let custodian = script("custodian").replace(
            "cd / && rm",
            &format!("cp share-{name}.age \"$SHARES\"\ncd / && rm"),
        );
        let done = scene.run(
            name,
            &variables,
            &custodian,
            &format!("{}\n", passphrase(name)),
        );
        assert!(done.status.success(), "{name}");
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(
            shown.contains("version: 7") && !shown.contains("share: "),
            "{shown}"
        );
    }

    let open = open.replace("cd / && rm", "cp secret.txt $OUT\ncd / && rm");
    let prepare = "WORK=$(mktemp -d -p /dev/shm)\ncd \"$WORK\"\ncp $OUT/requester.* .\n";
    let begin = script("requester");
    let begin = &begin[..begin.find("age-keygen").expect("step 2")];
    let begin = begin.replace("WORK=$(mktemp -d -p /dev/shm)\ncd \"$WORK\"\n", prepare);
    let opened = scene.run("requester", &[("OUT", &out)], &(begin + &open), "");
    assert!(opened.status.success());
    let secret = fs::read(scene.path("out/secret.txt")).expect("the secret");
    assert_eq!(secret, SECRET.as_bytes());
}

/// The arithmetic of the page, alone.
#[test]
fn the_page_refuses_what_is_no_quorum() {
    let scene = Scene::new();
    let identities: Vec<_> = NAMES
        .iter()
        .map(|name| {
            let file = fs::read(scene.path(&format!("{name}.key"))).expect("a key file");
            seal::KeyFile::open(&file, &passphrase(name).into_bytes().into())
                .expect("opens")
                .identity
        })
        .collect();
    let share = |version: u64, i: usize| {
        let folder = scene.path(&format!(
            "export/credentials/01M7XXW767R9ZVQGFC0SD2CTJQ/v{version}"
        ));
        let name = format!(
            "ops-custodians-x{}-{}.age",
            i + 1,
            PersonId::from_bytes([u8::try_from(i + 1).expect("small"); 16])
        );
        let envelope = fs::read(folder.join(name)).expect("an envelope");
        let text = seal::decrypt_with(&identities[i], &envelope, 2048).expect("opens");
        String::from_utf8(text.expose().to_vec()).expect("text")
    };
    let page = layout::README;
    let python = page
        .split_once("```python\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .expect("the page")
        .0;
    fs::write(scene.path("arithmetic.py"), python).expect("a file");
    let combine = |shares: &[String]| {
        let files = shares.iter().enumerate().map(|(i, text)| {
            let path = scene.path(&format!("share{i}.txt"));
            fs::write(&path, text).expect("a file");
            path
        });
        let output = Command::new("python3")
            .arg(scene.path("arithmetic.py"))
            .arg("combine")
            .arg(scene.path("export/credentials/01M7XXW767R9ZVQGFC0SD2CTJQ/v7/manifest.json"))
            .args(files.collect::<Vec<_>>())
            .output()
            .expect("python3");
        let said = String::from_utf8(output.stdout).expect("text")
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    };
    let good = [share(7, 0), share(7, 1), share(7, 2)];
    let mut flipped = good[1].clone();
    let last = flipped.len() - 2;
    let digit = if flipped.ends_with("0\n") { "1" } else { "0" };
    flipped.replace_range(last..=last, digit);
    let (needed, foreign) = ("2 different shares", "is not a share of this version");
    for (name, shares, want) in [
        (
            "two",
            vec![good[0].clone(), good[2].clone()],
            Ok("AGE-SECRET-KEY-1"),
        ),
        ("all three", good.to_vec(), Ok("AGE-SECRET-KEY-1")),
        ("one", vec![good[0].clone()], Err(needed)),
        (
            "one twice",
            vec![good[0].clone(), good[0].clone()],
            Err(needed),
        ),
        (
            "one of another version",
            vec![good[0].clone(), share(6, 1)],
            Err(foreign),
        ),
        ("one altered", vec![good[0].clone(), flipped], Err(foreign)),
        (
            "no share",
            vec![good[0].clone(), "hello\n".into()],
            Err("is not a share"),
        ),
    ] {
        let (success, said) = combine(&shares);
        let (Ok(part) | Err(part)) = want;
        assert!(
            success == want.is_ok() && said.contains(part),
            "{name}: {said}"
        );
    }
}
