//! Pulls out, inserts and touches the virtual YubiKeys of a demo, from another shell.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use keyturn_virtual_yubikey::control::ask;

const HELP: &str = "\
usage: virtual-yubikey SOCKET COMMAND

The hands at the desk of `./dev demo --yubikey --hold`. This is a SIMULATOR: its YubiKeys are software with keys in
ordinary memory, there to try keyturn out. They are no tokens to keep a secret in.

  list               the tokens, whose they are, and the tries left
  pull SERIAL        pull one out, also while it blinks
  insert SERIAL      put it back
  by-hand SERIAL     from now on it waits for a touch, 15 seconds, as a real one does
  touch SERIAL       touch it while it blinks
  by-itself SERIAL   from now on it is touched whenever it blinks, as at first
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let said = match args.as_slice() {
        [] => Err(io::Error::other(HELP)),
        [.., help] if help == "--help" || help == "-h" => Ok(HELP.to_owned()),
        [socket, command @ ..] => ask(Path::new(socket), &command.join(" ")),
    };
    let (told, code) = match said {
        Ok(text) => (io::stdout().write_all(text.as_bytes()), ExitCode::SUCCESS),
        Err(error) => (writeln!(io::stderr(), "error: {error}"), ExitCode::FAILURE),
    };
    // Nobody is left to be told when the stream is gone.
    told.map_or(ExitCode::FAILURE, |()| code)
}
