//! The clipboard of the terminal that somebody sits at, which is theirs also over ssh: the escape sequence OSC 52.
//!
//! # Invariants
//! 1. Only a terminal gets it: no file, no pipe, no log.
//! 2. Whether a terminal took it cannot be known; what is said about it does not claim so.

use std::{
    fs::File,
    io::{self, Write},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{causes::told, refusal::Refusal};

/// More than this many bytes no usual terminal takes (as base64 just under 100,000).
const MAX: usize = 74_994;

/// The terminal, before anything is asked for it.
pub fn terminal() -> Result<File, Refusal> {
    File::options().write(true).open("/dev/tty").map_err(|_| {
        Refusal::new(
            "not-answered",
            "there is no terminal whose clipboard could take the secret",
            "run it at a terminal (over ssh with -t), or use --output or --exec",
        )
    })
}

/// Puts a secret into the terminal's clipboard.
pub fn put(terminal: &mut impl Write, secret: &[u8]) -> Result<(), Refusal> {
    if secret.len() > MAX {
        return Err(Refusal::new(
            "too-much",
            format_args!("a clipboard takes at most {MAX} bytes"),
            "get it with `keyturn unseal --resume` and --output",
        ));
    }
    write(terminal, secret).map_err(|error| {
        Refusal::new(
            "file",
            format_args!("the terminal: {}", told(&error)),
            "get it again with `keyturn unseal --resume`",
        )
    })
}

fn write(terminal: &mut impl Write, secret: &[u8]) -> io::Result<()> {
    let text = BASE64_STANDARD.encode(secret);
    write!(terminal, "\u{1b}]52;c;{text}\u{7}")?;
    terminal.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_sequence_and_has_a_bound() {
        for (secret, want) in [
            (
                b"hunter2".to_vec(),
                Some(b"\x1b]52;c;aHVudGVyMg==\x07".to_vec()),
            ),
            (vec![0x1b], Some(b"\x1b]52;c;Gw==\x07".to_vec())),
            (vec![b'x'; 74_995], None),
        ] {
            let mut screen = Vec::new();
            let put = put(&mut screen, &secret);
            assert_eq!(put.is_ok().then_some(screen), want);
        }
    }
}
