//! docs/BENCHMARKS.md: the tables of the last run that wrote them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use keyturn_tests::{Outcome, harness::write_private};

use crate::figures::Section;

const HEAD: &str = "# Benchmarks

Measured by `./dev bench --write` with the release build. Compare figures of one run only: the same machine
differs by half from hour to hour. No test asserts a time.
";

/// Headings in the order of the page.
const ORDER: [&str; 8] = [
    "An unseal",
    "The parts",
    "Durable appends",
    "A log",
    "The log",
    "An unseal as",
    "A vault",
    "Rotating",
];

fn page() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/BENCHMARKS.md"
    ))
}

/// Puts these sections in the place of their earlier selves.
pub(crate) fn write(sections: &[Section]) -> Outcome<()> {
    let path = page();
    let old = fs::read_to_string(&path).unwrap_or_default();
    let mut by_heading = BTreeMap::new();
    let parts = old.split("\n## ").skip(1);
    let parts = parts.map(|part| format!("## {}\n", part.trim_end()));
    for part in parts.chain(sections.iter().map(Section::markdown)) {
        let heading = part.lines().next().unwrap_or_default().to_owned();
        by_heading.insert((place(&heading), heading), part);
    }
    let mut text = format!("{HEAD}\nMachine of the last run: {}.\n", machine());
    for part in by_heading.values() {
        text.push('\n');
        text.push_str(part.trim_end());
        text.push('\n');
    }
    Ok(write_private(&path, text.as_bytes())?)
}

/// The longest beginning that fits says where a section belongs.
fn place(heading: &str) -> usize {
    let heading = heading.trim_start_matches("## ");
    let fits = ORDER
        .iter()
        .enumerate()
        .filter(|(_, start)| heading.starts_with(**start));
    fits.max_by_key(|(_, start)| start.len())
        .map_or(ORDER.len(), |(place, _)| place)
}

/// Processor, cores, kernel, and how much else ran.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("a processor that does not tell its name", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "{model}, {cores} cores, Linux {}, load {load}",
        kernel.trim()
    )
}
