//! A card in a reader: the protocol of vsmartcard's `vpcd` (two bytes of length, then the message; one byte is an
//! order: 0 power off, 1 power on, 2 reset, 4 tell the ATR).

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
    os::linux::net::TcpStreamExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::Card;

const POWER_OFF: u8 = 0;
const POWER_ON: u8 = 1;
const RESET: u8 = 2;
const TELL_ATR: u8 = 4;
/// How long `pcscd` may take to notice that a card is gone.
const NOTICED: Duration = Duration::from_secs(20);
/// How long it may take to give power to a new one, which it looks for several times a second.
const POWERED: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 7;
const TICK: Duration = Duration::from_millis(5);

/// A card that is in its reader. Dropping it pulls the card out, and does not wait for anybody to notice.
pub struct Inserted {
    signals: Arc<Signals>,
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signals {
    is_removed: AtomicBool,
    is_powered: AtomicBool,
}

impl Inserted {
    /// Puts the card into the reader that listens on `port`, and waits until `pcscd` has given it power. A card that
    /// is back before `pcscd` noticed that it was gone gets none: it is pulled out and put in again.
    pub(crate) fn new(card: &Card, port: u16) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let inserted = Self::connect(card, port)?;
            if wait_for(POWERED, || {
                inserted.signals.is_powered.load(Ordering::SeqCst)
            }) {
                return Ok(inserted);
            }
            inserted.remove();
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "pcscd does not notice the card",
        ))
    }

    fn connect(card: &Card, port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let signals = Arc::new(Signals::default());
        let (card, line, told) = (card.clone(), stream.try_clone()?, Arc::clone(&signals));
        let thread = thread::spawn(move || {
            // An error is the end of the line: the card is out.
            let _ = serve(&card, &line, &told);
            told.is_removed.store(true, Ordering::SeqCst);
            let _ = line.shutdown(Shutdown::Both);
            card.reset_session();
        });
        Ok(Self {
            signals,
            stream,
            thread: Some(thread),
        })
    }

    /// Whether the card is out, because it pulled itself out.
    pub fn is_out(&self) -> bool {
        self.signals.is_removed.load(Ordering::SeqCst)
    }

    /// Pulls the card out, and waits until `pcscd` has noticed: a card that is back too soon counts as the same.
    pub fn remove(mut self) {
        self.pull();
        self.wait_until_noticed();
    }

    fn pull(&mut self) {
        self.signals.is_removed.store(true, Ordering::SeqCst);
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// `vpcd` closes its end when `pcscd` next asks whether a card is there.
    fn wait_until_noticed(&self) {
        let Ok(own) = self.stream.local_addr() else {
            return;
        };
        let half_closed = format!(":{:04X} 08", own.port());
        let is_noticed = || {
            let table = fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
            !table.lines().any(|line| line.contains(&half_closed))
        };
        wait_for(NOTICED, is_noticed);
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        self.pull();
    }
}

fn serve(card: &Card, mut line: &TcpStream, signals: &Signals) -> io::Result<()> {
    loop {
        // vpcd sends a length and its message apart, with Nagle's algorithm on: without an acknowledgement at once
        // each APDU would take 40 ms. The flag wears off.
        line.set_quickack(true)?;
        let mut length = [0; 2];
        line.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        line.read_exact(&mut message)?;
        match message.as_slice() {
            [POWER_ON] => {
                card.reset_session();
                signals.is_powered.store(true, Ordering::SeqCst);
            }
            [POWER_OFF | RESET] => card.reset_session(),
            [TELL_ATR] => answer(line, Card::atr())?,
            apdu => {
                let is_removed = || signals.is_removed.load(Ordering::SeqCst);
                match card.transmit(apdu, is_removed) {
                    Some(reply) => answer(line, &reply)?,
                    None => return Ok(()),
                }
            }
        }
    }
}

fn answer(mut line: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    line.write_all(&[&length.to_be_bytes(), bytes].concat())
}

/// Whether the condition came true in time.
fn wait_for(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let mut waited = Duration::ZERO;
    while !condition() {
        if waited >= limit {
            return false;
        }
        thread::sleep(TICK);
        waited = waited.saturating_add(TICK);
    }
    true
}
