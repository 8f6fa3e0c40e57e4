//! What a source file may hold.

use super::{assert_none, files};

/// About 400 lines before its tests keep a file readable in one sitting; the bound leaves some slack.
const LINES_MAX: usize = 480;

/// Longer files, and why each is better whole.
const LONG_FILES: [(&str, &str); 1] = [("vault/src/event.rs", "one list: every type of log entry")];

/// Files of tests may be longer: a table grows with what it knows.
fn is_test(name: &str) -> bool {
    name.split('/').any(|part| part == "tests") || name.ends_with("tests.rs")
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for (name, text) in files(".rs") {
        let before_tests = text.lines().take_while(|l| *l != "#[cfg(test)]").count();
        let excused = LONG_FILES.iter().any(|(file, _)| *file == name);
        if before_tests > LINES_MAX && !is_test(&name) && !excused {
            long.push(format!("{name}: {before_tests} lines"));
        }
    }
    assert_none(&long, "split these files, or say in LONG_FILES why not");
}

#[test]
fn nothing_is_silenced_skipped_or_left_open() {
    // Put together here, so that this file keeps its own rule.
    let needles = [
        (concat!("#[", "allow("), "use `expect` with a reason"),
        (concat!("#![", "allow("), "use `expect` with a reason"),
        (concat!("#[", "ignore"), "a test runs, or is not there"),
        (concat!("todo", "!("), "finish it"),
        (concat!("unimplemented", "!("), "finish it"),
        (concat!("FIX", "ME"), "finish it"),
    ];
    let mut found = Vec::new();
    for (name, text) in files(".rs") {
        for (line, at) in text.lines().zip(1..) {
            let hits = needles.iter().filter(|(needle, _)| line.contains(needle));
            found.extend(hits.map(|(needle, advice)| format!("{name}:{at}: {needle}: {advice}")));
        }
    }
    assert_none(&found, "unfinished");
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let needles = ["work", "farm", "tmp/wt"].map(|folder| format!("/{folder}/"));
    let mut found = Vec::new();
    for (name, text) in files("") {
        for (line, at) in text.lines().zip(1..) {
            let hit = needles.iter().any(|needle| {
                line.match_indices(needle).any(|(start, _)| {
                    let before = line[..start].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-".contains(c))
                })
            });
            if hit {
                found.push(format!("{name}:{at}: {line}"));
            }
        }
    }
    assert_none(&found, "paths that only one machine has");
}

/// Which file or program the daemon uses is for its machine's configuration to say.
#[test]
fn no_call_names_a_file_or_a_program() {
    let words = [
        "file",
        "folder",
        "directory",
        "dir",
        "command",
        "program",
        "executable",
    ];
    let mut found = Vec::new();
    let mut fields = 0;
    for (name, text) in files(".proto") {
        for (line, at) in text.lines().zip(1..) {
            let Some((field, _)) = line.split_once(" = ").filter(|_| line.ends_with(';')) else {
                continue;
            };
            let field = field.rsplit(' ').next().unwrap_or("");
            fields += 1;
            if field.split('_').any(|word| words.contains(&word)) {
                found.push(format!("{name}:{at}: {field}"));
            }
        }
    }
    assert!(fields > 50, "only {fields} fields were found");
    assert_none(&found, "a peer could choose what the daemon opens or runs");
}

/// `main.rs` names the files of the joined tests by hand; one that it does not name would never be run.
#[test]
fn every_file_of_tests_is_run() {
    let main = include_str!("../main.rs");
    let forgotten: Vec<_> = files(".rs")
        .into_iter()
        .filter_map(|(name, _)| Some(name.strip_prefix("tests/tests/")?.to_owned()))
        .filter_map(|name| Some(name.split(['/', '.']).next()?.to_owned()))
        .filter(|module| module != "main" && !main.contains(&format!("mod {module};\n")))
        .collect();
    assert_none(&forgotten, "add these to tests/tests/main.rs");
}
