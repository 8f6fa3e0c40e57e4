//! The rooms of daemon and client: their top-level modules, which use each other downwards only.

use std::collections::{BTreeMap, BTreeSet};

use super::{assert_none, files};

/// Where they are, and a number that they exceed.
const HOUSES: [(&str, usize); 2] = [("server/src/", 30), ("client/src/", 10)];

/// Rooms that are one, and why.
const TOGETHER: [(&str, &str, &str); 1] = [(
    "rotation",
    "owner",
    "the owner begins what a rotation does outside, and steps what comes of it",
)];

fn room(name: &str) -> &str {
    let one = TOGETHER.iter().find(|(part, _, _)| *part == name);
    one.map_or(name, |(_, whole, _)| whole)
}

/// The names behind each `crate::` of a file's code: one, or those at the top of a list.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut take = |text: &str| {
        let name: String = text
            .trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        names.extend((!name.is_empty()).then(|| room(&name).to_owned()));
    };
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            take(rest);
            continue;
        };
        let (mut item, mut depth) = (String::new(), 0_usize);
        for c in list.chars() {
            match (c, depth) {
                ('}', 0) => break,
                (',', 0) => take(&std::mem::take(&mut item)),
                ('{', _) => depth = depth.saturating_add(1),
                ('}', _) => depth = depth.saturating_sub(1),
                (_, 0) => item.push(c),
                (_, _) => {}
            }
        }
        take(&item);
    }
    names
}

/// What each room of a house uses.
fn rooms(house: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in files(".rs") {
        let Some(path) = name.strip_prefix(house) else {
            continue;
        };
        let first = path.split('/').next().expect("a path has a first part");
        let of = room(first.trim_end_matches(".rs"));
        if path.ends_with("tests.rs") || ["lib", "main"].contains(&of) {
            continue;
        }
        let code: Vec<_> = text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let uses = rooms.entry(of.to_owned()).or_default();
        uses.extend(named(&code.join("\n")));
    }
    for (room, uses) in &mut rooms {
        uses.remove(room);
    }
    rooms
}

#[test]
fn rooms_use_each_other_downwards_only() {
    for (house, more_than) in HOUSES {
        is_downwards(house, more_than);
    }
}

fn is_downwards(house: &str, more_than: usize) {
    let mut left = rooms(house);
    assert!(
        left.len() > more_than,
        "these are not the rooms of {house}: {left:?}"
    );
    loop {
        let names: BTreeSet<_> = left.keys().cloned().collect();
        for uses in left.values_mut() {
            uses.retain(|used| names.contains(used));
        }
        let before = left.len();
        left.retain(|_, uses| !uses.is_empty());
        if left.len() == before {
            break;
        }
    }
    let circle: Vec<_> = left
        .iter()
        .map(|(room, uses)| format!("{room} uses {uses:?}"))
        .collect();
    assert_none(
        &circle,
        "these rooms use each other in a circle: move what two of them share below both",
    );
}

#[test]
fn names_are_found_in_lists_and_alone() {
    let code =
        "use crate::{a::{x, y::z}, b, c::d};\nfn f() { crate::e::g(); }\nuse crate::rotation::h;";
    let want = ["a", "b", "c", "e", "owner"].map(str::to_owned);
    assert_eq!(named(code), BTreeSet::from(want));
}
