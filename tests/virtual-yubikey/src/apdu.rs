//! Command and response APDUs (ISO 7816-4), with chaining in both directions.

/// A status word.
pub(crate) type Status = u16;

/// Status words of the applet.
pub(crate) mod status {
    use super::Status;

    pub(crate) const OK: Status = 0x9000;
    pub(crate) const WRONG_LENGTH: Status = 0x6700;
    pub(crate) const SECURITY: Status = 0x6982;
    pub(crate) const BLOCKED: Status = 0x6983;
    pub(crate) const CONDITIONS: Status = 0x6985;
    pub(crate) const BAD_DATA: Status = 0x6a80;
    pub(crate) const NOT_FOUND: Status = 0x6a82;
    pub(crate) const BAD_PARAMETERS: Status = 0x6a86;
    pub(crate) const REFERENCE_NOT_FOUND: Status = 0x6a88;
    pub(crate) const WRONG_PARAMETERS: Status = 0x6b00;
    pub(crate) const BAD_INSTRUCTION: Status = 0x6d00;

    /// Tries left after a wrong PIN.
    pub(crate) fn tries(left: u8) -> Status {
        0x63c0 | Status::from(left & 0x0f)
    }
}

/// What a command gives: data, or a status other than OK.
pub(crate) type Reply = Result<Vec<u8>, Status>;

/// Most data in one response.
const RESPONSE_MAX: usize = 256;

/// A whole command, its parts put together.
pub(crate) struct Command {
    pub(crate) ins: u8,
    pub(crate) p1: u8,
    pub(crate) p2: u8,
    pub(crate) data: Vec<u8>,
}

/// What one APDU asks for.
pub(crate) enum Incoming {
    /// Something to run.
    Command(Command),
    /// More of the last response.
    More,
    /// A part of a command; the rest follows.
    Part,
}

/// The two buffers of a connection.
#[derive(Default)]
pub(crate) struct Chain {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Chain {
    /// Takes in one APDU.
    pub(crate) fn receive(&mut self, apdu: &[u8]) -> Result<Incoming, Status> {
        let [class, ins, p1, p2, rest @ ..] = apdu else {
            return Err(status::WRONG_LENGTH);
        };
        let data = body(rest).ok_or(status::WRONG_LENGTH)?;
        if *ins == 0xc0 {
            return Ok(Incoming::More);
        }
        self.outgoing.clear();
        self.incoming.extend_from_slice(data);
        if is_part(*class) {
            return Ok(Incoming::Part);
        }
        let data = std::mem::take(&mut self.incoming);
        Ok(Incoming::Command(Command {
            ins: *ins,
            p1: *p1,
            p2: *p2,
            data,
        }))
    }

    /// Gives out a reply, or as much of it as fits.
    pub(crate) fn respond(&mut self, reply: Reply) -> Vec<u8> {
        match reply {
            Ok(data) => {
                self.outgoing = data;
                self.more()
            }
            Err(code) => code.to_be_bytes().to_vec(),
        }
    }

    /// The next part of the reply.
    pub(crate) fn more(&mut self) -> Vec<u8> {
        let rest = self
            .outgoing
            .split_off(self.outgoing.len().min(RESPONSE_MAX));
        let mut out = std::mem::replace(&mut self.outgoing, rest);
        match self.outgoing.len() {
            0 => out.extend(status::OK.to_be_bytes()),
            left => out.extend([0x61, u8::try_from(left).unwrap_or(0)]),
        }
        out
    }
}

/// Whether more of the command follows.
pub(crate) fn is_part(class: u8) -> bool {
    class & 0x10 != 0
}

/// The data of a short or extended APDU: what follows the four bytes of its header.
fn body(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] | [_] | [0, _, _] => Some(&[]),
        [0, high, low, data @ ..] => data.get(..usize::from(u16::from_be_bytes([*high, *low]))),
        [length, data @ ..] => data.get(..usize::from(*length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_replies_are_put_together() {
        let mut chain = Chain::default();
        assert!(matches!(
            chain.receive(&[0x10, 0xdb, 1, 2, 2, 7, 8]),
            Ok(Incoming::Part)
        ));
        let Ok(Incoming::Command(command)) = chain.receive(&[0, 0xdb, 1, 2, 1, 9]) else {
            panic!("the last part completes the command");
        };
        assert_eq!(
            (command.ins, command.data.as_slice()),
            (0xdb, &[7, 8, 9][..])
        );

        let first = chain.respond(Ok(vec![5; 300]));
        assert_eq!((first.len(), &first[256..]), (258, &[0x61, 44][..]));
        let last = chain.more();
        assert_eq!((last.len(), &last[44..]), (46, &[0x90, 0][..]));
        assert_eq!(chain.respond(Err(status::SECURITY)), [0x69, 0x82]);
        assert!(chain.receive(&[0, 1]).is_err(), "shorter than a header");
    }
}
