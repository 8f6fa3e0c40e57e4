//! Who may depend on whom, and on what.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{assert_none, cargo, files, packages, relative, root, string};

/// Which of our crates a crate may name. What stands under `tests/` may name all, and none of these names it.
const ARROWS: [(&str, &[&str]); 8] = [
    ("keyturn-proto", &[]),
    ("keyturn-vault", &[]),
    ("keyturn-seal", &[]),
    ("keyturn-audit", &[]),
    ("keyturn-hsm", &["keyturn-seal"]),
    ("keyturn-yubikey", &["keyturn-hsm", "keyturn-seal"]),
    (
        "keyturnd",
        &[
            "keyturn-audit",
            "keyturn-hsm",
            "keyturn-proto",
            "keyturn-seal",
            "keyturn-vault",
        ],
    ),
    (
        "keyturn",
        &[
            "keyturn-audit",
            "keyturn-hsm",
            "keyturn-proto",
            "keyturn-seal",
            "keyturn-vault",
            "keyturn-yubikey",
        ],
    ),
];

/// All that the core may depend on: nothing here reads a clock, a file, a socket or random numbers.
const PURE: [&str; 8] = [
    "base64",
    "hex",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "ulid",
    "unicode-normalization",
];

/// Crate roots that cannot forbid `unsafe`, and what each needs it for.
const UNSAFE_ROOTS: [(&str, &str); 1] = [(
    "seal/src/lib.rs",
    "the wiping allocator: `GlobalAlloc` is an unsafe trait",
)];

/// Is this package only there to test the others?
fn only_tests(package: &Value) -> bool {
    let manifest = relative(&package["manifest_path"]);
    manifest.starts_with("tests/") || manifest.starts_with("fuzz/")
}

/// The names that a package depends on, its tests apart.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    let list = package["dependencies"].as_array().expect("a list");
    list.iter()
        .filter(|d| d["kind"] != "dev")
        .map(|d| string(&d["name"]))
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for package in &packages() {
        if only_tests(package) {
            continue;
        }
        let name = string(&package["name"]);
        let (_, allowed) = ARROWS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("{name} has no row in ARROWS"));
        for dependency in dependencies(package) {
            seen += 1;
            if dependency.starts_with("keyturn") && !allowed.contains(&dependency) {
                wrong.push(format!("{name} → {dependency}"));
            }
            if name == "keyturn-vault" && !PURE.contains(&dependency) {
                wrong.push(format!("{name} → {dependency}, which is not pure data"));
            }
        }
    }
    assert!(seen > 20, "cargo told of {seen} dependencies only");
    assert_none(&wrong, "arrows that docs/ARCHITECTURE.md does not draw");
}

#[test]
fn the_daemon_links_no_smart_card() {
    let tree = cargo(&["tree", "-p", "keyturnd", "-e", "normal", "--prefix=none"]);
    let names: BTreeSet<_> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    assert!(names.contains("rustls"), "this is not the daemon's tree");
    for name in ["pcsc", "pcsc-sys", "rsa", "yubikey", "keyturn-yubikey"] {
        assert!(
            !names.contains(name),
            "keyturnd depends on {name}: see `cargo tree -p keyturnd -i {name}`"
        );
    }
}

/// A client without YubiKeys needs no libpcsclite; as it comes, it has them.
#[test]
fn a_client_without_yubikeys_links_no_smart_card() {
    let tree = |more: &[&str]| {
        let args = ["tree", "-p", "keyturn", "-e", "normal", "--prefix=none"];
        let tree = cargo(&[&args, more].concat());
        let names = tree.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (with, without) = (tree(&[]), tree(&["--no-default-features"]));
    for name in ["keyturn-yubikey", "pcsc", "pcsc-sys"] {
        assert!(with.contains(name), "keyturn has lost {name}");
        assert!(
            !without.contains(name),
            "without default features keyturn still needs {name}"
        );
    }
    assert!(without.contains("rustls"), "this is not the client's tree");
}

/// With it, `serde_json` keeps the order of insertion, and canonical JSON is canonical no more.
#[test]
fn nothing_enables_preserve_order() {
    let tree = cargo(&["tree", "--workspace", "-e", "features", "-i", "serde_json"]);
    assert!(
        tree.contains("serde_json feature \"std\""),
        "no features are listed:\n{tree}"
    );
    assert!(!tree.contains("preserve_order"), "{tree}");
}

/// The standard or the job that a dependency is there for stands above it, or above its group; one that is named in the
/// workspace's table has it there.
#[test]
fn every_dependency_is_headed_by_its_reason() {
    let mut bare = Vec::new();
    for (name, text) in files("Cargo.toml") {
        let (mut table, mut headed) = (false, false);
        for line in text.lines() {
            if line.starts_with('[') {
                table = line.contains("dependencies");
            }
            if line.is_empty() || line.starts_with('[') {
                headed = false;
            } else if line.starts_with('#') {
                headed = true;
            } else if table && !headed && !line.contains("workspace = true") {
                bare.push(format!("{name}: {line}"));
            }
        }
    }
    assert_none(&bare, "write the standard or the job above");
}

/// So that a version is chosen once, and every reason is read in one place.
#[test]
fn what_ships_takes_its_dependencies_from_the_workspace_table() {
    let mut own = Vec::new();
    for (name, text) in files("Cargo.toml") {
        if name == "Cargo.toml" || name.starts_with("fuzz/") || name.starts_with("tests/") {
            continue;
        }
        let manifest: toml::Table = text.parse().expect("a manifest");
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = manifest.get(table).and_then(toml::Value::as_table);
            for (dependency, value) in entries.into_iter().flatten() {
                if value.get("workspace") != Some(&toml::Value::Boolean(true)) {
                    own.push(format!("{name}: {dependency}"));
                }
            }
        }
    }
    assert_none(&own, "name these in the root Cargo.toml, with their reason");
}

#[test]
fn every_crate_root_forbids_unsafe() {
    let mut wrong = Vec::new();
    for package in packages().iter().filter(|package| !only_tests(package)) {
        for target in package["targets"].as_array().expect("a list") {
            let file = relative(&target["src_path"]);
            let text = fs::read_to_string(root().join(&file)).expect("a crate root");
            let ships = ["lib", "bin"].iter().any(|k| target["kind"][0] == *k);
            let excused = UNSAFE_ROOTS.iter().any(|(root, _)| *root == file);
            let forbids = text.lines().any(|line| line == "#![forbid(unsafe_code)]");
            if ships && forbids == excused {
                wrong.push(file);
            }
        }
    }
    assert_none(
        &wrong,
        "write #![forbid(unsafe_code)], or set UNSAFE_ROOTS right",
    );
}

/// `rust-version` promises nothing that the pinned toolchain does not show.
#[test]
fn the_toolchain_is_the_version_that_is_promised() {
    let read = |name: &str| -> toml::Table {
        let text = fs::read_to_string(root().join(name)).expect("a file of ours");
        text.parse().expect("TOML")
    };
    let promised = read("Cargo.toml")["workspace"]["package"]["rust-version"].clone();
    let pinned = read("rust-toolchain.toml")["toolchain"]["channel"].clone();
    let (promised, pinned) = (
        promised.as_str().expect("a version"),
        pinned.as_str().expect("a version"),
    );
    assert!(
        pinned.starts_with(&format!("{promised}.")),
        "Cargo.toml promises {promised}, rust-toolchain.toml pins {pinned}"
    );
}
