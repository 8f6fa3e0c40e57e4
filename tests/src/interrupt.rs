//! Ctrl-C, a terminal that is closed, and `kill`, as something that can be waited for: who shows something for a while
//! ends what was started and removes its folders on the way out.

use std::{
    io::stdin,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::Outcome;

/// Whether somebody wants an end.
pub struct Interrupt {
    came: Receiver<()>,
    tell: Sender<()>,
}

impl Interrupt {
    /// From now on these signals end nothing by themselves.
    pub fn listen() -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (tell, came) = channel();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::terminate(),
        ];
        for kind in kinds {
            let entered = runtime.enter();
            let mut signal = signal(kind)?;
            drop(entered);
            let tell = tell.clone();
            runtime.spawn(async move {
                while signal.recv().await.is_some() && tell.send(()).is_ok() {}
            });
        }
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Ok(Self { came, tell })
    }

    /// Fails when somebody has wanted an end.
    pub fn check(&self) -> Outcome<()> {
        match self.came.try_recv() {
            Ok(()) => Err("it was interrupted".into()),
            Err(_) => Ok(()),
        }
    }

    /// Waits for Enter, for the end of the input, or until somebody wants an end.
    pub fn wait(&self) {
        let tell = self.tell.clone();
        thread::spawn(move || {
            let _ = stdin().read_line(&mut String::new());
            let _ = tell.send(());
        });
        let _ = self.came.recv();
    }
}
