//! What stands between a daemon and its target: it stops the conversation at a message of the test's choice.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
};

use crate::harness::Outcome;

/// Where the first message of what was read ends, and whether it wants an answer; `first` is that of a connection.
pub type Cut = fn(read: &[u8], first: bool) -> Option<(usize, bool)>;

/// Where a conversation stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The message does not arrive.
    Before,
    /// It does, and its answer does not.
    After,
}

/// A place in all that a daemon says, from when it was set on.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The message of this number that wants an answer, counted from 0.
    Number(usize),
    /// The first message that has these bytes in it.
    Saying(&'static [u8]),
}

#[derive(Clone, Copy, Default)]
struct State {
    /// How often conversations were cut.
    cuts: u64,
    /// How often what had stopped went on.
    goes: u64,
    /// Whether one is stopped.
    stopped: bool,
}

#[derive(Default)]
struct Plan {
    stop: Option<(Place, Stop)>,
    seen: usize,
}

/// The state of all connections of one target.
pub struct Proxy {
    cut: Cut,
    plan: Mutex<Plan>,
    state: watch::Sender<State>,
}

impl Proxy {
    /// One that stops nothing yet.
    pub fn new(cut: Cut) -> Arc<Self> {
        Arc::new(Self {
            cut,
            plan: Mutex::default(),
            state: watch::Sender::default(),
        })
    }

    /// From now on the conversation stops there, once.
    pub fn stop(&self, place: Place, stop: Stop) {
        *self.plan() = Plan {
            stop: Some((place, stop)),
            seen: 0,
        };
        self.state.send_modify(|state| state.stopped = false);
    }

    /// Whether a conversation is stopped there.
    pub fn stopped(&self) -> bool {
        self.state.borrow().stopped
    }

    /// Waits so long for it.
    pub async fn stops_within(&self, time: Duration) -> bool {
        let mut state = self.state.subscribe();
        let stopped = state.wait_for(|state| state.stopped);
        matches!(tokio::time::timeout(time, stopped).await, Ok(Ok(_)))
    }

    /// How many messages that want an answer were seen since the last [`Proxy::stop`].
    pub fn seen(&self) -> usize {
        self.plan().seen
    }

    /// Stops nothing any more; what is stopped stays so.
    pub fn disarm(&self) {
        self.plan().stop = None;
    }

    /// Ends every conversation, and stops none any more.
    pub fn cut(&self) {
        *self.plan() = Plan::default();
        self.state.send_modify(|state| {
            state.cuts = state.cuts.saturating_add(1);
            state.stopped = false;
        });
    }

    /// Lets the message that did not arrive go on.
    pub fn go_on(&self) {
        self.state.send_modify(|state| {
            state.goes = state.goes.saturating_add(1);
            state.stopped = false;
        });
    }

    /// What happens at a message.
    fn sees(&self, message: &[u8], asks: bool) -> Option<Stop> {
        let mut plan = self.plan();
        let number = plan.seen;
        plan.seen = number.saturating_add(usize::from(asks));
        let (place, stop) = plan.stop?;
        let here = match place {
            Place::Number(wanted) => asks && wanted == number,
            Place::Saying(words) => message.windows(words.len()).any(|part| part == words),
        };
        here.then(|| plan.stop = None)?;
        Some(stop)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) {
        self.state.send_modify(|state| state.stopped = true);
    }

    /// Carries a conversation to its end.
    pub async fn carry<C, S>(&self, client: C, server: S)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut state = self.state.subscribe();
        let mut going = self.state.subscribe();
        let cuts = state.borrow_and_update().cuts;
        let (mut said, mut answers) = tokio::io::split(client);
        let (mut answered, mut to_server) = tokio::io::split(server);
        let (hold, held) = watch::channel(false);
        let up = async {
            let (mut read, mut first) = (Vec::new(), true);
            loop {
                let Some((length, asks)) = (self.cut)(&read, first) else {
                    if said.read_buf(&mut read).await? == 0 {
                        return Outcome::Ok(());
                    }
                    continue;
                };
                let rest = read.split_off(length);
                match self.sees(&read, asks) {
                    None => {}
                    Some(Stop::Before) => {
                        let goes = going.borrow_and_update().goes;
                        self.reached();
                        going.wait_for(|state| state.goes != goes).await?;
                    }
                    Some(Stop::After) => {
                        hold.send_replace(true);
                    }
                }
                to_server.write_all(&read).await?;
                (read, first) = (rest, false);
            }
        };
        let down = async {
            let mut read = vec![0; 8192];
            loop {
                let length = answered.read(&mut read).await?;
                if *held.borrow() {
                    self.reached();
                    std::future::pending::<()>().await;
                }
                let Some(part) = read.get(..length).filter(|part| !part.is_empty()) else {
                    return Outcome::Ok(());
                };
                answers.write_all(part).await?;
            }
        };
        let (mut up, mut down) = (pin!(up), pin!(down));
        // However it ends, both sides see the end.
        tokio::select! {
            _ = &mut up => {}
            _ = &mut down => {}
            _ = state.wait_for(|now| now.cuts != cuts) => {}
        }
    }
}
