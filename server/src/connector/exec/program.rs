//! Running the program once: its question in, its answer out, and nothing left behind.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{Exec, Failure};
use crate::program::{Ended, Program};

/// Longest answer of a program, in bytes.
pub(super) const MAX_ANSWER: usize = 256 * 1024;

/// Runs it; gives what it wrote.
pub(super) async fn run(
    exec: &Exec,
    ask: &[u8],
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let program = Program {
        path: &exec.program,
        args: &exec.args,
        env: &exec.env,
    };
    let answer = program.run(ask, limit, MAX_ANSWER).await;
    answer.map_err(|ended| match ended {
        Ended::NotStarted(..) => Failure::Refused(ended.to_string()),
        Ended::Late(_) | Ended::Status(_) | Ended::TooLong(_) | Ended::Broken(_) => {
            Failure::Unknown(ended.to_string())
        }
    })
}
