//! Programs that the daemon starts: connectors and notifiers.
//!
//! # Invariants
//! 1. A program is started directly, without a shell, with a clean environment, in `/`, in a process group
//!    of its own; whatever it left running in that group ends with the call, also with one that is given up.
//! 2. A call ends at its deadline, and reads no more than its bound.
//! 3. What a program writes on standard error goes nowhere.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};
use zeroize::Zeroizing;

/// The only search path a program sees.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with all that it is started with.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its absolute path.
    pub path: &'a Path,
    /// Its arguments.
    pub args: &'a [String],
    /// The only variables in its environment besides `PATH` and `LANG`.
    pub env: &'a BTreeMap<String, String>,
}

/// Why a program gave no answer.
#[derive(Debug, Error)]
pub enum Ended {
    /// It was never started.
    #[error("cannot start {}: {}", .0.display(), .1)]
    NotStarted(PathBuf, std::io::Error),
    /// Its time was over.
    #[error("no answer within {} s; the program was killed", .0.as_secs())]
    Late(Duration),
    /// It says that it failed.
    #[error("the program ended with {0}")]
    Status(ExitStatus),
    /// It said too much.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The system lost it.
    #[error("{0}")]
    Broken(String),
}

impl Program<'_> {
    /// Gives it `input` and reads its answer of at most `most` bytes; it must end well within `limit`.
    pub async fn run(
        &self,
        input: &[u8],
        limit: Duration,
        most: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Ended> {
        let mut child = self.spawn()?;
        // Whoever waits for the call may give it up before its limit.
        let group = Group(child.id());
        let outcome = timeout(limit, converse(&mut child, input, most)).await;
        drop(group);
        // Already gone is as good.
        let _ = child.kill().await;
        outcome.unwrap_or(Err(Ended::Late(limit)))
    }

    fn spawn(&self) -> Result<Child, Ended> {
        Command::new(self.path)
            .args(self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .envs(self.env)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Ended::NotStarted(self.path.to_owned(), error))
    }
}

/// Writes the question, reads the answer to its end, waits for exit code 0.
async fn converse(
    child: &mut Child,
    input: &[u8],
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, Ended> {
    let broken = |what: &str| Ended::Broken(what.to_owned());
    let stdin = child.stdin.take();
    let mut stdin = stdin.ok_or_else(|| broken("the program has no standard input"))?;
    let stdout = child.stdout.take();
    let stdout = stdout.ok_or_else(|| broken("the program has no standard output"))?;
    let write = async move {
        // A program that does not read its input may still answer; its answer decides.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let mut answer = Zeroizing::new(Vec::new());
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut bounded = stdout.take(bound);
    let ((), read) = tokio::join!(write, bounded.read_to_end(&mut answer));
    read.map_err(|error| Ended::Broken(format!("cannot read the program's answer: {error}")))?;
    if answer.len() > most {
        return Err(Ended::TooLong(most));
    }
    let status = child.wait().await;
    let status =
        status.map_err(|error| Ended::Broken(format!("cannot wait for the program: {error}")))?;
    if status.success() {
        Ok(answer)
    } else {
        Err(Ended::Status(status))
    }
}

/// The process group of a program, by its leader; it ends when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// Whether a file is there that can be run.
pub(crate) fn executable(program: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    program
        .metadata()
        .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}
