//! What keyturn costs: `keyturn-bench [--write] [CREDENTIALS] [SECTION…]`; `CREDENTIALS` is how many `rotate` rotates.
//!
//! Sections: `parts`, `unseal`, `appends`, `log`, `verify`, `size`, `rotate`; all of them, if none is named. Nothing here asserts a
//! time: machines differ, and what counts are the ratios of one run. `--write` puts the tables into
//! docs/BENCHMARKS.md.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a program for developers, over its own small tables"
)]

mod appends;
mod daemon;
mod figures;
mod floor;
mod log;
mod page;
mod parts;
mod place;
mod rotate;
mod size;
mod unseal;
mod verify;

use std::{path::Path, process::ExitCode};

use figures::Section;
use keyturn_seal::alloc::Wiping;
use keyturn_tests::Outcome;

// Daemon, floor and parts pay alike for wiping what is freed.
#[global_allocator]
static ALLOCATOR: Wiping = Wiping::SYSTEM;

const SECTIONS: [&str; 7] = [
    "parts", "unseal", "appends", "log", "verify", "size", "rotate",
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let split = arguments.split_first();
    match split.map(|(name, rest)| (name.as_str(), rest)) {
        Some(("floor", rest)) => return end(floor::serve(rest)),
        Some((rotate::SERVE, [config])) => return end(rotate::serve(Path::new(config))),
        _ => {}
    }
    let mut write = false;
    let mut wanted = Vec::new();
    let mut credentials = rotate::CREDENTIALS;
    for argument in arguments {
        match argument.as_str() {
            "--write" => write = true,
            many if many.parse::<usize>().is_ok_and(|many| many > 0) => {
                credentials = many.parse().unwrap_or(credentials);
            }
            name if SECTIONS.contains(&name) => wanted.push(argument),
            _ => {
                eprintln!(
                    "usage: keyturn-bench [--write] [CREDENTIALS] [{}]…",
                    SECTIONS.join("|")
                );
                return ExitCode::from(2);
            }
        }
    }
    if wanted.is_empty() {
        wanted = SECTIONS.map(str::to_owned).to_vec();
    }
    end(run(&wanted, write, credentials))
}

fn end(outcome: Outcome<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String], write: bool, credentials: usize) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut sections: Vec<Section> = Vec::new();
    for name in wanted {
        let made = match name.as_str() {
            "parts" => vec![parts::measure()?],
            "unseal" => runtime.block_on(unseal::measure())?,
            "appends" => vec![runtime.block_on(appends::measure())?],
            "log" => vec![log::measure()?],
            "verify" => vec![runtime.block_on(verify::measure())?],
            "rotate" => vec![runtime.block_on(rotate::measure(credentials))?],
            _ => runtime.block_on(size::measure())?,
        };
        for section in made {
            println!("{}", section.markdown());
            sections.push(section);
        }
    }
    if write {
        page::write(&sections)?;
    }
    Ok(())
}
