//! House rules that no compiler checks: who may depend on whom, what a file may hold, what the documents promise.
//!
//! Every rule says what to do when it breaks; an exception stands in a list beside the rule, with its reason.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a rule that cannot be read is a failed rule"
)]

mod crates;
mod documents;
mod rooms;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("a workspace around us").to_owned()
}

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(root())
        .output()
        .unwrap_or_else(|e| panic!("{program} cannot be started: {e}"));
    let complaint = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{program} {args:?} failed:\n{complaint}"
    );
    String::from_utf8(out.stdout).expect("names are UTF-8")
}

fn cargo(args: &[&str]) -> String {
    let mut all = args.to_vec();
    all.extend(["--locked", "--offline"]);
    output(env!("CARGO"), &all)
}

/// The members of the workspace, as `cargo metadata` tells of them.
fn packages() -> Vec<Value> {
    let text = cargo(&["metadata", "--no-deps", "--format-version=1"]);
    let value: Value = serde_json::from_str(&text).expect("cargo prints JSON");
    value["packages"].as_array().expect("a list").clone()
}

fn string(value: &Value) -> &str {
    value.as_str().expect("a string, as cargo documents it")
}

/// A path as git and the documents write it: from the root of the workspace.
fn relative(path: &Value) -> String {
    let path = Path::new(string(path)).strip_prefix(root());
    path.expect("inside the workspace").display().to_string()
}

/// Name and text of every file that git tracks, or would with the next `git add`.
fn files(ending: &str) -> Vec<(String, String)> {
    let list = output("git", &["ls-files", "-co", "--exclude-standard"]);
    let found: Vec<_> = list
        .lines()
        .filter(|name| name.ends_with(ending))
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?)))
        .collect();
    assert!(!found.is_empty(), "no file ends in `{ending}`");
    found
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}
