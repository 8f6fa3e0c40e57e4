//! Runs one fuzz target of any crate under libFuzzer. `./dev fuzz` builds and starts it.
//!
//! The targets are plain functions that the crates' own tests replay, so nothing is defined here.
//!
//! `KEYTURN_FUZZ` is the target's name (`crate-target`); without it the names are printed. `KEYTURN_FUZZ_SEED` is a
//! file to write the target's seed to, where it has one.

#![no_main]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    reason = "this is the one place of the runner that reads its environment and speaks, and a seed is no precious file"
)]

use std::{env, fs, process, sync::OnceLock};

use libfuzzer_sys::fuzz_target;

type Run = Box<dyn Fn(&[u8]) + Send + Sync>;

/// A parser under test, whatever shape its crate gives it.
struct Target {
    name: String,
    seed: Option<Vec<u8>>,
    run: Run,
}

static TARGET: OnceLock<Target> = OnceLock::new();

/// A target that has no seed.
type Plain = (&'static str, fn(&[u8]));

fn plain(of: &'static str, targets: &'static [Plain]) -> impl Iterator<Item = Target> {
    targets.iter().map(move |(name, run)| Target {
        name: format!("{of}-{name}"),
        seed: None,
        run: Box::new(run),
    })
}

fn targets() -> Vec<Target> {
    let seal = keyturn_seal::fuzz::TARGETS.map(|target| Target {
        name: format!("seal-{}", target.name),
        seed: Some((target.seed)()),
        run: Box::new(move |input| {
            (target.run)(input);
        }),
    });
    let server = keyturnd::fuzz::TARGETS.map(|target| Target {
        name: format!("server-{}", target.name),
        seed: Some(target.seed.to_vec()),
        run: Box::new(move |input| {
            (target.run)(input);
        }),
    });
    plain("audit", &keyturn_audit::fuzz::TARGETS)
        .chain(seal)
        .chain(server)
        .chain(plain("hsm", &keyturn_hsm::fuzz::TARGETS))
        .chain(plain("vault", &keyturn_vault::fuzz::TARGETS))
        .collect()
}

fn choose() -> Target {
    let wanted = env::var("KEYTURN_FUZZ").unwrap_or_default();
    let mut targets = targets();
    let Some(at) = targets.iter().position(|target| target.name == wanted) else {
        for target in targets {
            println!("{}", target.name);
        }
        process::exit(if wanted.is_empty() { 0 } else { 2 });
    };
    let target = targets.swap_remove(at);
    if let (Some(seed), Ok(file)) = (&target.seed, env::var("KEYTURN_FUZZ_SEED")) {
        fs::write(&file, seed).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    target
}

fuzz_target!(
    init: { TARGET.get_or_init(choose); },
    |input: &[u8]| (TARGET.get_or_init(choose).run)(input)
);
