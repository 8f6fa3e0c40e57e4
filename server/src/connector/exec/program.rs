//! Running the program once: its question in, its answer out, and nothing left behind.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{Exec, Failure};

/// Longest answer of a program, in bytes.
pub(super) const MAX_ANSWER: usize = 256 * 1024;
/// The only search path a program sees.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it; gives what it wrote.
pub(super) async fn run(
    exec: &Exec,
    ask: &[u8],
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut child = spawn(exec)?;
    let group = child.id();
    let outcome = timeout(limit, converse(&mut child, ask)).await;
    // Whatever the program left running in its group ends with the call.
    kill_group(group);
    let _ = child.kill().await;
    outcome.unwrap_or_else(|_| {
        Err(Failure::Unknown(format!(
            "no answer within {} s; the program was killed",
            limit.as_secs_f32().round()
        )))
    })
}

fn spawn(exec: &Exec) -> Result<Child, Failure> {
    Command::new(&exec.program)
        .args(&exec.args)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .envs(&exec.env)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Failure::Refused(format!("cannot start {}: {e}", exec.program.display())))
}

/// Writes the question, reads the answer to its end, waits for exit code 0.
async fn converse(child: &mut Child, ask: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let unknown = |what: &str| Failure::Unknown(what.to_owned());
    let mut stdin = child
        .stdin
        .take()
        .ok_or_else(|| unknown("the program has no standard input"))?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| unknown("the program has no standard output"))?;
    let write = async move {
        // A program that does not read its input may still answer; its answer decides.
        let _ = stdin.write_all(ask).await;
        drop(stdin);
    };
    let mut answer = Zeroizing::new(Vec::new());
    let bound = u64::try_from(MAX_ANSWER)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bounded = stdout.take(bound);
    let ((), read) = tokio::join!(write, bounded.read_to_end(&mut answer));
    read.map_err(|e| Failure::Unknown(format!("cannot read the program's answer: {e}")))?;
    if answer.len() > MAX_ANSWER {
        return Err(Failure::Unknown(format!(
            "the answer is longer than {MAX_ANSWER} bytes"
        )));
    }
    let status = child
        .wait()
        .await
        .map_err(|e| Failure::Unknown(format!("cannot wait for the program: {e}")))?;
    if status.success() {
        Ok(answer)
    } else {
        Err(Failure::Unknown(format!("the program ended with {status}")))
    }
}

fn kill_group(leader: Option<u32>) {
    let pid = leader
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}
