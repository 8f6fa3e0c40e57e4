//! `keyturn`, the command line.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use keyturn::cli::{self, Cli};
use keyturn_seal::alloc::Wiping;

/// Libraries copy secrets; what they free is wiped.
#[global_allocator]
static ALLOCATOR: Wiping = Wiping::SYSTEM;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // https://no-color.org
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::run(cli, plain))),
        Err(error) => {
            // Nobody is left to be told when standard error is gone.
            let _ = writeln!(io::stderr(), "error: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
