//! Runs one fuzz target of any crate under libFuzzer. `./dev fuzz` builds and starts it.
//!
//! The targets are plain functions that the crates' own tests replay, so nothing is defined here.
//!
//! `KEYTURN_FUZZ` is the target's name (`crate-target`); without it the names are printed. `KEYTURN_FUZZ_SEED` is a
//! file to write the target's seed to, where it has one.

#![no_main]

use std::{env, fs, process, sync::OnceLock};

use libfuzzer_sys::fuzz_target;

/// A parser under test, whatever shape its crate gives it.
struct Target {
    name: String,
    seed: Option<Vec<u8>>,
    run: Box<dyn Fn(&[u8]) + Send + Sync>,
}

static TARGET: OnceLock<Target> = OnceLock::new();

fn targets() -> Vec<Target> {
    let audit = keyturn_audit::fuzz::TARGETS.map(|(name, run)| Target {
        name: format!("audit-{name}"),
        seed: None,
        run: Box::new(run),
    });
    let seal = keyturn_seal::fuzz::TARGETS.map(|target| Target {
        name: format!("seal-{}", target.name),
        seed: Some((target.seed)()),
        run: Box::new(move |input| {
            (target.run)(input);
        }),
    });
    audit.into_iter().chain(seal).collect()
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
