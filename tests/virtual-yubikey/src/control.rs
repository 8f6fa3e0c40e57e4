//! The hands at a desk, as commands on a Unix socket: somebody in another shell pulls tokens out and touches them.
//!
//! A command is a line, and so is its answer: `list`, `insert SERIAL`, `pull SERIAL`, `touch SERIAL` (while it
//! blinks), `by-hand SERIAL` (from now on it waits for `touch`), `by-itself SERIAL` (it is touched at once again).

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::Duration,
};

use crate::{Card, Desk, Inserted, Touch};

/// Longest command.
const LINE_MAX: u64 = 200;
/// How soon a token is touched that is touched by itself, and how long one waits for a hand, as real ones do.
const AT_ONCE: Touch = Touch::After(Duration::from_millis(300));
const WAITS: Duration = Duration::from_secs(15);

/// A token and its reader.
pub struct Place {
    /// Whose it is.
    pub owner: String,
    /// The reader.
    pub reader: u16,
    /// The token.
    pub card: Card,
    /// Unless it is out.
    pub inserted: Option<Inserted>,
}

/// A desk, its tokens, and the hands that move them.
pub struct Control {
    desk: Desk,
    places: Vec<Place>,
}

impl Control {
    /// Takes over the desk.
    pub fn new(desk: Desk, places: Vec<Place>) -> Self {
        Self { desk, places }
    }

    /// Answers at this socket, as long as the process lives.
    pub fn serve(mut self, socket: &Path) -> io::Result<()> {
        let listener = UnixListener::bind(socket)?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Somebody who left needs no answer.
                let _ = self.attend(&stream);
            }
        });
        Ok(())
    }

    fn attend(&mut self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(WAITS))?;
        let mut line = String::new();
        BufReader::new(stream.take(LINE_MAX)).read_line(&mut line)?;
        let answer = self
            .answer(&line)
            .unwrap_or_else(|why| format!("no: {why}"));
        let mut stream = stream;
        stream.write_all(answer.as_bytes())
    }

    /// Does what a line says, and says what it did.
    fn answer(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, serial) = match words.as_slice() {
            ["list"] => return Ok(self.list()),
            [verb, serial] => (*verb, *serial),
            _ => return Err("list, or a command and a serial number".to_owned()),
        };
        let mut places = self.places.iter_mut();
        let place = places.find(|place| place.card.serial().to_string() == serial);
        let place = place.ok_or_else(|| format!("there is no YubiKey {serial}"))?;
        let is_out = place.inserted.as_ref().is_none_or(Inserted::is_out);
        let done = match (verb, is_out) {
            ("pull", false) => {
                let inserted = place.inserted.take();
                let pulled = inserted.map_or(Ok(()), Inserted::remove);
                pulled.map_err(|error| error.to_string())?;
                "is out"
            }
            ("insert", true) => {
                // What pulled itself out is let go of first.
                place.inserted = None;
                let inserted = self.desk.insert(place.reader, &place.card);
                place.inserted = Some(inserted.map_err(|error| error.to_string())?);
                "is in its reader"
            }
            ("pull", true) => return Err("it is out already".to_owned()),
            ("insert", false) => return Err("it is in its reader already".to_owned()),
            ("touch", false) => {
                place.card.touch_now();
                "is touched"
            }
            ("touch", true) => return Err("it is out".to_owned()),
            ("by-hand", _) => {
                place.card.touch(Touch::Never);
                place.card.touch_timeout(WAITS);
                "waits for a hand (`touch`) when it blinks"
            }
            ("by-itself", _) => {
                place.card.touch(AT_ONCE);
                "is touched whenever it blinks"
            }
            _ => return Err(format!("no command {verb}")),
        };
        Ok(format!("YubiKey {serial} {done}\n"))
    }

    fn list(&self) -> String {
        let told = |place: &Place| {
            let is_out = place.inserted.as_ref().is_none_or(Inserted::is_out);
            let tries = place.card.tries();
            format!(
                "YubiKey {}  {}  {}  tries: PIN {}, PUK {}\n",
                place.card.serial(),
                place.owner,
                if is_out { "out" } else { "inserted" },
                tries.0,
                tries.1
            )
        };
        self.places.iter().map(told).collect()
    }
}

/// Sends a command to whoever serves the socket; the answer.
pub fn ask(socket: &Path, line: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.strip_prefix("no: ") {
        Some(why) => Err(io::Error::other(why.to_owned())),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TestPki, at_desk};
    use std::fs;

    fn is_there(reader: u16) -> bool {
        crate::status::wait_for_card(reader, true, Duration::ZERO).is_ok()
    }

    /// Lets the token agree on a key with slot 82, which waits for a touch.
    fn is_opened(point: &[u8]) -> bool {
        let context = pcsc::Context::establish(pcsc::Scope::System).unwrap();
        let readers = context.list_readers_owned().unwrap();
        let shared = pcsc::ShareMode::Shared;
        let mut cards = readers
            .iter()
            .filter_map(|reader| context.connect(reader, shared, pcsc::Protocols::ANY).ok());
        let card = cards.next().unwrap();
        let mut buffer = [0; 300];
        let select = [0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 3, 8];
        card.transmit(&select, &mut buffer).unwrap();
        let agree = [0, 0x87, 0x11, 0x82, 71, 0x7c, 69, 0x82, 0, 0x85, 65];
        let apdu = [&agree, point].concat();
        let reply = card.transmit(&apdu, &mut buffer);
        reply.is_ok_and(|reply| reply.ends_with(&[0x90, 0]))
    }

    #[test]
    fn tokens_are_moved_and_touched_from_elsewhere() {
        at_desk(2, |first| {
            // The desk is given away: a second one is opened over the first.
            first.stop_service();
            let desk = Desk::open(2).unwrap();
            let pki = TestPki::new().unwrap();
            let card = Card::new(7, (5, 4, 3), &pki).unwrap();
            let place = Place {
                owner: "bob".to_owned(),
                reader: 0,
                card: card.clone(),
                inserted: Some(desk.insert(0, &card).unwrap()),
            };
            let socket = Path::new("/run/desk/control");
            Control::new(desk, vec![place]).serve(socket).unwrap();
            let said = |line: &str| ask(socket, line).unwrap_or_else(|error| error.to_string());
            assert!(is_there(0));
            assert!(said("list").contains("YubiKey 7  bob  inserted  tries: PIN 3"));
            for (line, want, is_in) in [
                ("pull 7", "is out", false),
                ("pull 7", "out already", false),
                ("touch 7", "it is out", false),
                ("insert 7", "in its reader", true),
                ("insert 7", "in its reader already", true),
                ("by-hand 7", "waits for a hand", true),
                ("pull 8", "no YubiKey 8", true),
                ("eat 7", "no command eat", true),
                ("", "a command and a serial", true),
            ] {
                let answer = said(line);
                assert!(answer.contains(want), "{line}: {answer}");
                assert_eq!(is_there(0), is_in, "{line}");
            }

            // A key that wants a touch, and a hand that gives it while the token blinks.
            assert!(card.identity(0x82, [1, 2], false));
            let point = card.public_key(0x82).unwrap();
            let uses = |hand: &str| {
                let blinking = thread::spawn({
                    let point = point.clone();
                    move || is_opened(&point)
                });
                while !card.is_blinking() {
                    thread::sleep(Duration::from_millis(2));
                }
                said(hand);
                blinking.join().unwrap()
            };
            assert!(uses("touch 7"));
            assert!(!uses("pull 7"));
            assert!(fs::metadata(socket).is_ok());
        });
    }
}
