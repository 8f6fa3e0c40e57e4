//! A daemon whose store somebody wrote to, and people who do not take its word.

#![expect(
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a story stops where it is wrong, and writes small files of its own"
)]

use std::{fs, process::Command};

use keyturn_hsm::device::DeviceKey;
use keyturn_tests::{
    Outcome, World,
    raw::{Facts, Member},
};
use keyturn_vault::{
    definition::Definition,
    digest::Digest,
    event::Seal,
    jcs::Document as _,
    manifest::Manifest,
    reference::Signer,
    text::{Recover, Text as _},
};
use keyturnd::store::{Name, RedbStore, Store as _, Txn};
use serde_json::{Value, json};

const PATH: &str = "aws/prod/root";

/// What alice does so that custodians take one credential for another.
#[derive(Clone, Copy, PartialEq)]
enum Disguise {
    /// She gives its folder another name.
    Folder,
    /// She makes a definition and a manifest of her own around its envelopes.
    Documents,
    /// As before, and takes the proof away that the log has another.
    Unproven,
}

/// Makes alice's request for the credential, and the copy, one for `test/canary`; gives the request's digest.
fn disguise(world: &World, lie: Disguise) -> Outcome<String> {
    let alice = Member::of_home(&world.home("alice"))?;
    let folder = world.folder();
    let mut asked: Value = serde_json::from_slice(&fs::read(folder.join("r.json"))?)?;
    let text = asked["recover"]["text"].as_str().ok_or("no text")?;
    let mut recover = Recover::parse(text)?;
    recover.credential.path = "test/canary".parse()?;
    let credential = folder.join(format!(
        "export/credentials/{}",
        recover.credential.credential
    ));
    fs::write(credential.join("path.txt"), "test/canary\n")?;
    let version = credential.join("v1");
    if lie != Disguise::Folder {
        let mut definition = Definition::from_bytes(&fs::read(version.join("definition.json"))?)?;
        definition.path = recover.credential.path.clone();
        let definition = definition.to_bytes()?;
        let mut manifest = Manifest::from_bytes(&fs::read(version.join("manifest.json"))?)?;
        manifest.definition = Digest::of(&definition);
        let manifest = manifest.to_bytes()?;
        let signature = Seal {
            signer: Signer::Device(alice.device_id),
            signature: alice.device.sign(&manifest)?,
        };
        recover.credential.manifest = Digest::of(&manifest);
        fs::write(version.join("definition.json"), definition)?;
        fs::write(version.join("manifest.json"), manifest)?;
        fs::write(
            version.join("manifest.sig.json"),
            serde_json::to_value(&signature)?.to_string(),
        )?;
    }
    if lie == Disguise::Unproven {
        fs::remove_file(version.join("sealed.tlog-proof"))?;
    }
    let signed = alice.sign_by_device(&recover)?;
    asked["recover"] = serde_json::to_value(&signed)?;
    fs::write(folder.join("r.json"), asked.to_string())?;
    Ok(signed.digest().to_string())
}

#[test]
fn nobody_hands_out_a_share_of_something_else_than_what_is_shown() -> Outcome<()> {
    let mut world = founded()?;
    // Bob's computer has seen the credential before, carol's has not.
    world.keyturn("bob", ["confirm", PATH])?.ok()?;
    world
        .keyturn("alice", ["credential", "export", PATH, "--to", "kept"])?
        .ok()?;
    world.stop()?;
    for (lie, person, code, said) in [
        (Disguise::Folder, "carol", 24, "the path test/canary"),
        (Disguise::Documents, "carol", 24, "its entry in the log"),
        (Disguise::Unproven, "bob", 24, "earlier verification"),
        (
            Disguise::Unproven,
            "carol",
            0,
            "does not show that the log has this version",
        ),
    ] {
        let export = world.folder().join("export");
        if export.exists() {
            fs::remove_dir_all(&export)?;
        }
        let copied = Command::new("cp")
            .args(["-a", "kept", "export"])
            .current_dir(world.folder())
            .status()?;
        assert!(copied.success(), "{copied}");
        let ask = "--json recover request aws/prod/root --export export --reason x --out r.json";
        world.keyturn("alice", ask.split(' '))?.ok()?;
        let digest = disguise(&world, lie)?;
        let share = format!(
            "--yes-sha256 {digest} recover share r.json --export export --out {person}.json"
        );
        let reply = world.keyturn(person, share.split(' '))?.exits(code)?;
        assert!(reply.stderr.contains(said), "{person}: {}", reply.stderr);
    }
    Ok(())
}

/// A founded vault with a credential that nobody has looked at yet.
fn founded() -> Outcome<World> {
    let mut world = World::new()?;
    let people: [(&str, &[&str]); 4] = [
        ("alice", &["requester", "operator"]),
        ("bob", &["custodian"]),
        ("carol", &["custodian"]),
        ("dan", &["custodian"]),
    ];
    world.found(&people)?;
    fs::write(world.folder().join("secret"), "hunter2")?;
    let add = "credential add aws/prod/root --kind aws-root --group ops --policy default --secret-file secret";
    world.keyturn("alice", add.split(' '))?.ok()?;
    Ok(world)
}

/// Changes the row of the only credential, and adds a document.
async fn rewrite(world: &World, object: &[u8], change: impl Fn(&mut Value)) -> Outcome<()> {
    let store = RedbStore::open(&world.vault().join("data/store.redb"))?;
    let range = keyturnd::store::KeyRange::family(keyturnd::store::key::Family::Credential);
    let page = store.range(&range, 10).await?;
    let row = page.rows.first().ok_or("no credential")?;
    let mut value: Value = serde_json::from_slice(&row.value[1..])?;
    change(&mut value);
    let with = |bytes: &[u8]| [&[1], bytes].concat();
    let txn = Txn::new()
        .put(row.key.clone(), with(value.to_string().as_bytes()))
        .put(Name::Object(Digest::of(object)).key(), with(object));
    store.txn(txn).await?;
    store.close().await;
    Ok(())
}

/// How a false definition gets its place.
#[derive(Clone, Copy)]
enum Lie {
    /// As the first one, signed by the operator: which is true.
    None,
    /// As the first one, with the daemon's own signature.
    Node,
    /// As the first one, signed by a custodian who helps.
    Custodian,
    /// As what a ceremony decided that decided something else.
    Ceremony,
    /// As the first one, signed by the operator, who signed another one when the log was told.
    Operator,
}

async fn told(lie: Lie) -> Outcome<(World, i32)> {
    let mut world = founded()?;
    let shown = world.keyturn("alice", ["--json", "credential", "show", PATH])?;
    let shown = shown.ok()?.json()?;
    let ceremony = if matches!(lie, Lie::Ceremony) {
        let ask = ["--json", "unseal", PATH, "--reason", "down", "--no-wait"];
        let asked = world.keyturn("alice", ask)?.ok()?.json()?;
        asked["ceremony"].clone()
    } else {
        Value::Null
    };
    // What alice has seen before is remembered; dan sees it for the first time.
    world.stop()?;
    let mut definition: Definition =
        Definition::from_draft(shown["definition"].to_string().as_bytes())?;
    let old = Digest::of(&definition.to_bytes()?);
    definition
        .metadata
        .insert("account".parse()?, "666".parse()?);
    if !ceremony.is_null() {
        definition.previous = Some(old);
    }
    let bytes = definition.to_bytes()?;
    let dan = Member::of_home(&world.home("dan"))?;
    let node = DeviceKey::load(&world.vault().join("node.pem"))?;
    let facts = Facts::read(&world.welcome("bob"))?.0;
    let seal = match lie {
        Lie::None | Lie::Ceremony => Value::Null,
        Lie::Node => json!({
            "signer": Signer::Node(facts.charter.nodes[0].id),
            "signature": base64(&node.sign(&bytes)?),
        }),
        Lie::Operator => {
            let alice = Member::of_home(&world.home("alice"))?;
            json!({
                "signer": Signer::Device(alice.device_id),
                "signature": base64(&alice.device.sign(&bytes)?),
            })
        }
        Lie::Custodian => json!({
            "signer": Signer::Device(dan.device_id),
            "signature": base64(&dan.device.sign(&bytes)?),
        }),
    };
    if !matches!(lie, Lie::None) {
        rewrite(&world, &bytes, |row| {
            if !seal.is_null() {
                row["signature"] = seal.clone();
            }
            if !ceremony.is_null() {
                let earlier = json!({
                    "definition": row["definition"], "signature": row["signature"],
                    "changed_by": row["changed_by"], "entry": row["entry"],
                });
                row["earlier"] = json!([earlier]);
                row["changed_by"] = ceremony.clone();
            }
            row["definition"] = json!(Digest::of(&bytes));
        })
        .await?;
    }
    world.start()?;
    let seen = world.keyturn("dan", ["credential", "show", PATH])?;
    Ok((world, seen.code))
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::prelude::BASE64_STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_nobody_agreed_to_is_nobodys() {
    for (name, lie, want) in [
        ("as it is", Lie::None, 0),
        ("signed by the daemon", Lie::Node, 94),
        ("signed by a custodian", Lie::Custodian, 94),
        (
            "signed by the operator, and never logged",
            Lie::Operator,
            94,
        ),
        ("as decided by another ceremony", Lie::Ceremony, 94),
    ] {
        let (world, seen) = told(lie).await.unwrap();
        assert_eq!(seen, want, "{name}: to look at");
        // Nothing is sealed to it, nothing asked for by it, and no share given for it.
        let deposit = ["credential", "deposit", PATH, "--secret-file", "secret"];
        let code = |person: &str, args: &[&str]| world.keyturn(person, args).unwrap().code;
        let known = want;
        assert_eq!(code("alice", &deposit), known, "{name}: to seal to");
        let ask = ["unseal", PATH, "--reason", "down", "--no-wait"];
        assert_eq!(code("alice", &ask), known, "{name}: to ask for");
        assert_eq!(code("dan", &["confirm", PATH]), known, "{name}: to open");
    }
}

/// Lets the only version have another manifest, in which fewer suffice, signed by `who`.
async fn reseal(world: &World, who: Option<&Member>) -> Outcome<()> {
    let store = RedbStore::open(&world.vault().join("data/store.redb"))?;
    let range = keyturnd::store::KeyRange::family(keyturnd::store::key::Family::Credential);
    let page = store.range(&range, 10).await?;
    let row = page.rows.first().ok_or("no credential")?;
    let mut value: Value = serde_json::from_slice(&row.value[1..])?;
    let versions = value["versions"].as_object_mut().ok_or("no versions")?;
    let state = versions.values_mut().next().ok_or("no version")?;
    let old: Digest = serde_json::from_value(state["manifest"].clone())?;
    let entry = state["entry"].as_u64().ok_or("no entry")?;
    let found = store.get(&Name::Object(old).key()).await?;
    let mut manifest = Manifest::from_bytes(&found.ok_or("no manifest")?.0[1..])?;
    manifest.charter.digest = Digest::of(b"another charter");
    let bytes = manifest.to_bytes()?;
    state["manifest"] = json!(Digest::of(&bytes));
    let with = |bytes: &[u8]| [&[1], bytes].concat();
    let mut txn = Txn::new()
        .put(row.key.clone(), with(value.to_string().as_bytes()))
        .put(Name::Object(Digest::of(&bytes)).key(), with(&bytes));
    // The entry tells the same lie, as far as somebody can sign it.
    if let Some(who) = who {
        let name = Name::Entry(entry).key();
        let (logged, _) = store.get(&name).await?.ok_or("no entry")?;
        let mut logged: Value = serde_json::from_slice(&logged[1..])?;
        logged["body"]["manifest"] = json!(Digest::of(&bytes));
        logged["body"]["signature"]["signature"] = json!(base64(&who.device.sign(&bytes)?));
        txn = txn.put(name, with(logged.to_string().as_bytes()));
    }
    store.txn(txn).await?;
    store.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_its_sealer_did_not_sign_is_nobodys() {
    for (name, by) in [("as no entry has it", None), ("signed by dan", Some("dan"))] {
        let mut world = founded().unwrap();
        world.stop().unwrap();
        let by = by.map(|name| Member::of_home(&world.home(name)).unwrap());
        reseal(&world, by.as_ref()).await.unwrap();
        world.start().unwrap();
        let ask = ["unseal", PATH, "--reason", "down", "--no-wait"];
        let refused = world.keyturn("alice", ask).unwrap();
        assert_ne!(refused.code, 0, "{name}: {refused:?}");
        // The rest goes on: one row keeps nobody from looking.
        let status = world.keyturn("alice", ["--json", "status"]).unwrap();
        assert!(status.ok().is_ok(), "{name}");
    }
}
