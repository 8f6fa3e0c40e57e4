//! Asking by another program: the Assuan protocol that pinentry speaks, by line over its two pipes.
//!
//! The secret comes over the pipe, never by argument or environment.
//!
//! # Invariants
//! 1. What is sent is one line: line feeds, carriage returns and percent signs of a text are escaped.
//! 2. What comes back is bounded, in the length of a line and in the number of lines.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use zeroize::Zeroizing;

/// The longest line of the protocol, in bytes, with its end.
const MAX_LINE: usize = 1002;
/// The most lines before an answer is complete.
const MAX_LINES: usize = 64;

/// A running pinentry.
struct Pinentry {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Asks for a secret; `None` if the person closed the window.
pub fn ask(program: &Path, text: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut pinentry = Pinentry::start(program)?;
    let asked = pinentry.converse(text);
    // It ends when its input does.
    drop(pinentry.to);
    pinentry.child.wait()?;
    asked
}

impl Pinentry {
    fn start(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.ok_or_else(|| io::Error::other("it has no pipes"))?;
        Ok(Self {
            child,
            to,
            from: BufReader::new(from),
        })
    }

    fn converse(&mut self, text: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        self.answer()?;
        if let Some(tty) = terminal() {
            self.say(&format!("OPTION ttyname={}", escaped(&tty)))?;
        }
        self.say("SETTITLE keyturn")?;
        self.say(&format!("SETDESC {}", escaped(text)))?;
        self.say("SETPROMPT keyturn:")?;
        writeln!(self.to, "GETPIN")?;
        self.answer()
    }

    /// A command whose refusal matters little: older programs know fewer of them.
    fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.to, "{line}")?;
        self.answer().map(drop)
    }

    /// Reads to the end of an answer; its data, or `None` after an error.
    fn answer(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut data = Zeroizing::new(Vec::with_capacity(MAX_LINE));
        for _ in 0..MAX_LINES {
            let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
            let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
            (&mut self.from).take(limit).read_until(b'\n', &mut line)?;
            let Some(line) = line.strip_suffix(b"\n") else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if line == b"OK" || line.starts_with(b"OK ") {
                return Ok(Some(data));
            } else if line.starts_with(b"ERR ") {
                return Ok(None);
            } else if let Some(more) = line.strip_prefix(b"D ") {
                data.extend_from_slice(&unescaped(more));
            } else if line.starts_with(b"INQUIRE ") {
                // It would like to know how good a new secret is.
                writeln!(self.to, "CAN")?;
            }
        }
        Err(io::Error::other("it says too much"))
    }
}

/// The terminal, for programs that draw on it.
#[cfg(unix)]
fn terminal() -> Option<String> {
    let name = rustix::termios::ttyname(io::stderr(), Vec::new()).ok()?;
    name.into_string().ok()
}

#[cfg(not(unix))]
fn terminal() -> Option<String> {
    None
}

/// Invariant 1.
fn escaped(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\n', "%0A")
        .replace('\r', "%0D")
}

fn unescaped(data: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(data.len()));
    let mut rest = data;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let code = match tail {
            [high, low, after @ ..] if *first == b'%' => {
                let digits = std::str::from_utf8(&[*high, *low])
                    .ok()
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                digits.map(|byte| (byte, after))
            }
            _ => None,
        };
        if let Some((byte, after)) = code {
            out.push(byte);
            rest = after;
        } else {
            out.push(*first);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_line_and_data_comes_back() {
        assert_eq!(escaped("100% sure\r\n?"), "100%25 sure%0D%0A?");
        for (name, data, want) in [
            ("plain", &b"271828"[..], &b"271828"[..]),
            ("escaped", b"a%25b%0Ac", b"a%b\nc"),
            ("cut", b"a%2", b"a%2"),
            ("no digits", b"%zz", b"%zz"),
            ("empty", b"", b""),
        ] {
            assert_eq!(unescaped(data).as_slice(), want, "{name}");
        }
    }
}
