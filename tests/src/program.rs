//! The programs of the workspace, run to their end.

use std::{
    fmt::Write as _,
    io::Read,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Outcome, PATIENCE, STEP};

/// A program of the workspace, built beside the one that runs now.
pub struct Program;

impl Program {
    /// The path of a program of this build. Under `cargo` it is brought up to date first.
    pub fn path(name: &str) -> Outcome<PathBuf> {
        static BUILT: OnceLock<bool> = OnceLock::new();
        if !*BUILT.get_or_init(build) {
            return Err("`keyturn` and `keyturnd` do not build".into());
        }
        let exe = std::env::current_exe()?;
        let found = exe
            .ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join(name))
            .find(|path| path.is_file());
        found.ok_or_else(|| {
            format!("{name} is not built; run `cargo build --workspace --bins` first").into()
        })
    }
}

/// Lets `cargo`, where it runs this, build what the stories run; a program that runs by itself uses what is there.
fn build() -> bool {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return true;
    };
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--offline",
        "--locked",
        "--bins",
        "-p",
        "keyturn",
        "-p",
        "keyturnd",
        "-p",
        "keyturn-tests",
        "-p",
        "keyturn-virtual-yubikey",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// How a command ended.
#[derive(Debug)]
pub struct Reply {
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
}

impl Reply {
    /// The standard output as JSON (for commands run with `--json`).
    pub fn json(&self) -> Outcome<Value> {
        serde_json::from_str(&self.stdout)
            .map_err(|e| format!("not JSON: {e}\n{}{}", self.stdout, self.stderr).into())
    }

    /// The reply itself when the command succeeded, otherwise an error with all it said.
    pub fn ok(self) -> Outcome<Self> {
        self.exits(0)
    }

    /// The reply itself when the command ended with this code.
    pub fn exits(self, code: i32) -> Outcome<Self> {
        if self.code == code {
            return Ok(self);
        }
        Err(format!(
            "exit code {} where {code} was expected\n{}{}",
            self.code, self.stdout, self.stderr
        )
        .into())
    }
}

/// Collects a command's output to its end; one that does not end in time is killed.
pub fn finish(mut child: Child) -> Outcome<Reply> {
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let mut waited = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if waited >= PATIENCE {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(STEP);
        waited = waited.saturating_add(STEP);
    };
    let text = |reader: Option<JoinHandle<String>>| {
        let text = reader.map_or(Ok(String::new()), JoinHandle::join);
        text.map_err(|_| "the output cannot be read")
    };
    let (stdout, mut stderr) = (text(stdout)?, text(stderr)?);
    if status.is_none() {
        write!(stderr, "\n(killed after {} s)", PATIENCE.as_secs())?;
    }
    Ok(Reply {
        stdout,
        stderr,
        code: status.and_then(|s| s.code()).unwrap_or(-1),
    })
}

/// Reads a pipe to its end beside everything else.
fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
