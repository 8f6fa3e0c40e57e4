//! The cases of one test, side by side: each waits most of the time.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread,
};

use tokio::runtime::{Builder, Runtime};

/// Runs every case, so many at once; each lane has what `lane` makes.
///
/// A lane has a second thread for its tasks: connections must go on while a case waits for a program to end, which may
/// wait for them.
pub fn side_by_side<L: Clone, C: Copy + Send, F: Future<Output = ()>>(
    lanes: usize,
    cases: &[C],
    lane: impl Fn() -> L + Sync,
    run: impl Fn(L, C) -> F + Sync,
) -> io::Result<()> {
    let runtime = |_| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
    };
    let runtimes: io::Result<Vec<Runtime>> = (0..lanes.min(cases.len())).map(runtime).collect();
    let left = Mutex::new(cases.iter().rev().copied().collect::<Vec<_>>());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    thread::scope(|scope| {
        for runtime in runtimes? {
            let (lane, run, next) = (&lane, &run, &next);
            scope.spawn(move || {
                let lane = lane();
                while let Some(case) = next() {
                    runtime.block_on(Box::pin(run(lane.clone(), case)));
                }
            });
        }
        Ok(())
    })
}
