//! What the documents promise: links lead somewhere, and each mitigation has a test that shows it.

use std::{collections::BTreeSet, fs};

use super::{assert_none, files, packages, relative, root, string};

/// The lines of a Markdown page that are no code block.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| {
            if c == ' ' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// The links of a line that stay inside the repository.
fn links(line: &str) -> Vec<&str> {
    ["](", "src=\"", "srcset=\"", "href=\""]
        .iter()
        .flat_map(|opening| line.split(opening).skip(1))
        .filter_map(|rest| rest.split([')', '"', ' ']).next())
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for (name, text) in files(".md") {
        let page = root().join(&name);
        for link in prose(&text).flat_map(links) {
            followed += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                _ => page.parent().expect("a folder").join(path),
            };
            let has_heading = |text: String| {
                prose(&text).any(|line| line.starts_with('#') && anchor(line) == heading)
            };
            let found = heading.is_empty() || fs::read_to_string(&target).is_ok_and(has_heading);
            if !target.exists() || !found {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(followed > 5, "only {followed} links were found");
    assert_none(&broken, "broken links");
}

/// The names of the functions that carry a test attribute, `#[tokio::test]` and the like among them.
fn marked(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            test |= line.contains("test]") || line.contains("test(");
            continue;
        }
        let function = line.strip_prefix("async ").unwrap_or(line);
        if let Some(rest) = function.strip_prefix("fn ")
            && test
        {
            names.extend(rest.split(['(', '<']).next());
        }
        test = false;
    }
    names
}

/// Every test of the workspace as `crate::module::name`; the module that only holds a file's tests is left out.
fn tests() -> BTreeSet<String> {
    let mut crates: Vec<_> = packages()
        .iter()
        .map(|package| {
            let folder = relative(&package["manifest_path"]).replace("Cargo.toml", "");
            (folder, string(&package["name"]).replace('-', "_"))
        })
        .collect();
    // A crate inside another's folder is found first.
    crates.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.len()));
    let mut all = BTreeSet::new();
    for (file, text) in files(".rs") {
        let Some((folder, name)) = crates.iter().find(|(folder, _)| file.starts_with(folder))
        else {
            continue;
        };
        let inside = file[folder.len()..].trim_end_matches(".rs");
        let modules = inside
            .split('/')
            .skip(1)
            .filter(|part| !["lib", "main", "mod", "tests"].contains(part));
        let path: Vec<_> = std::iter::once(name.as_str()).chain(modules).collect();
        let path = path.join("::");
        all.extend(marked(&text).iter().map(|test| format!("{path}::{test}")));
    }
    all
}

/// The rows of the tables whose last column is headed `Tests`.
fn mitigations(page: &str) -> Vec<&str> {
    let last =
        |line: &str| line.trim_end_matches('|').rsplit('|').next().map(str::trim) == Some("Tests");
    let mut rows = Vec::new();
    let mut table = false;
    for line in page.lines() {
        if !line.starts_with('|') {
            table = false;
        } else if last(line) {
            table = true;
        } else if table && !line.starts_with("| ---") {
            rows.push(line);
        }
    }
    rows
}

/// A mitigation that no test shows is a wish.
#[test]
fn every_mitigation_names_tests_that_exist() {
    let tests = tests();
    let page = fs::read_to_string(root().join("docs/THREAT-MODEL.md")).expect("a threat model");
    let rows = mitigations(&page);
    assert!(rows.len() > 3, "only {} rows were found", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or("");
        for name in cell.split(',').map(|name| name.trim().trim_matches('`')) {
            if !tests.contains(name) {
                wrong.push(format!("`{name}` in: {row}"));
            }
        }
    }
    assert_none(&wrong, "no such test");
}

#[test]
fn tests_are_found_by_their_attribute() {
    let text = "#[test]\nfn one() {\n#[tokio::test(flavor = \"multi_thread\")]\n/// Why.\nasync fn two() {\nfn no() {";
    assert_eq!(
        marked(text),
        ["one"],
        "a comment between ends the attribute"
    );
    let text =
        "#[tokio::test]\n#[expect(clippy::panic, reason = \"r\")]\nasync fn two() {\nfn no() {";
    assert_eq!(marked(text), ["two"]);
    assert!(tests().contains("keyturn_tests::tidy::documents::tests_are_found_by_their_attribute"));
}
