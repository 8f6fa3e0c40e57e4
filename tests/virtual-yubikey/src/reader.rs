//! A card in a reader: the protocol of vsmartcard's `vpcd` (two bytes of length, then the message; one byte is an
//! order: 0 power off, 1 power on, 2 reset, 4 tell the ATR).

use std::{
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

use crate::{
    Card,
    status::{PATIENCE, wait_for_card},
};

const POWER_OFF: u8 = 0;
const POWER_ON: u8 = 1;
const RESET: u8 = 2;
const TELL_ATR: u8 = 4;
/// How long `pcscd` takes at most to see a card, which is usually under half a second.
const SEEN: Duration = Duration::from_secs(2);
/// Longer than the time between two looks at a reader.
const POLLING: Duration = Duration::from_millis(600);
const ATTEMPTS: u32 = 8;

/// A card that is in its reader. Dropping it pulls the card out, and does not wait for anybody to notice.
pub struct Inserted {
    reader: u16,
    is_removed: Arc<AtomicBool>,
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Inserted {
    /// Puts the card into a reader, which listens on `port`, and waits until `pcscd` knows.
    ///
    /// `pcscd` must have noticed that a card before it is gone, else both count as one. After an error in the middle
    /// of a command it tells its clients sooner than it knows itself; then the card is pulled out and put in again.
    pub(crate) fn new(card: &Card, reader: u16, port: u16) -> io::Result<Self> {
        let mut failure = io::ErrorKind::TimedOut.into();
        for _ in 0..ATTEMPTS {
            wait_for_card(reader, false, PATIENCE)?;
            let inserted = Self::connect(card, reader, port)?;
            match wait_for_card(reader, true, SEEN) {
                Ok(()) => return Ok(inserted),
                Err(error) => failure = error,
            }
            drop(inserted);
            thread::sleep(POLLING);
        }
        Err(failure)
    }

    fn connect(card: &Card, reader: u16, port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let is_removed = Arc::new(AtomicBool::new(false));
        let (card, line, told) = (card.clone(), stream.try_clone()?, Arc::clone(&is_removed));
        let thread = thread::spawn(move || {
            // An error is the end of the line: the card is out.
            let _ = serve(&card, &line, &told);
            told.store(true, Ordering::SeqCst);
            let _ = line.shutdown(Shutdown::Both);
            card.reset_session();
        });
        Ok(Self {
            reader,
            is_removed,
            stream,
            thread: Some(thread),
        })
    }

    /// Whether the card is out, because it pulled itself out.
    pub fn is_out(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    /// Pulls the card out, and waits until `pcscd` has noticed.
    pub fn remove(mut self) -> io::Result<()> {
        self.pull();
        wait_for_card(self.reader, false, PATIENCE)
    }

    fn pull(&mut self) {
        self.is_removed.store(true, Ordering::SeqCst);
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        self.pull();
    }
}

fn serve(card: &Card, mut line: &TcpStream, is_removed: &AtomicBool) -> io::Result<()> {
    loop {
        // vpcd sends a length and its message apart, with Nagle's algorithm on: without an acknowledgement at once
        // each APDU would take 40 ms. The flag wears off.
        line.set_quickack(true)?;
        let mut length = [0; 2];
        line.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        line.read_exact(&mut message)?;
        match message.as_slice() {
            [POWER_OFF | POWER_ON | RESET] => card.reset_session(),
            [TELL_ATR] => answer(line, Card::atr())?,
            apdu => match card.transmit(apdu, || is_removed.load(Ordering::SeqCst)) {
                Some(reply) => answer(line, &reply)?,
                None => return Ok(()),
            },
        }
    }
}

fn answer(mut line: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    line.write_all(&[&length.to_be_bytes(), bytes].concat())
}
