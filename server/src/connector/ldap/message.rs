//! The messages of LDAP (RFC 4511) that a password takes: bind, search of one entry, `StartTLS`, Password Modify
//! (RFC 3062), "Who am I?" (RFC 4532).

use std::collections::BTreeMap;

use super::ber::{ENUMERATED, INTEGER, OCTETS, Reader, SEQUENCE, SET, element, number};

/// The object identifier of Password Modify.
pub(super) const PASSWORD_MODIFY: &str = "1.3.6.1.4.1.4203.1.11.1";
/// That of `StartTLS`.
pub(super) const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// That of "Who am I?".
pub(super) const WHO_AM_I: &str = "1.3.6.1.4.1.4203.1.11.3";

/// `[APPLICATION 4]`: an entry that was found.
const ENTRY: u8 = 0x64;
/// `[APPLICATION 19]`: a pointer to another server.
const REFERENCE: u8 = 0x73;
/// `[APPLICATION 25]`: news on the way to an answer.
const INTERMEDIATE: u8 = 0x79;
/// The longest text of a server that is kept, in characters.
const MAX_TEXT: usize = 300;

/// The attributes of an entry, by name in lower case; values that are no text are left out.
pub(super) type Attributes = BTreeMap<String, Vec<String>>;

/// What is asked.
pub(super) struct Request {
    bytes: Vec<u8>,
    /// The tag of what answers it.
    answer: u8,
}

impl Request {
    /// Signs in by name and password.
    pub(super) fn bind(name: &str, password: &[u8]) -> Self {
        Self::bind_by(name, &element(0x80, &[password]))
    }

    /// Signs in as whom the certificate of the connection names.
    pub(super) fn bind_external() -> Self {
        let mechanism = element(OCTETS, &[b"EXTERNAL"]);
        // An empty word, not none: as nobody else than the certificate says.
        let word = element(OCTETS, &[]);
        Self::bind_by("", &element(0xa3, &[&mechanism, &word]))
    }

    fn bind_by(name: &str, authentication: &[u8]) -> Self {
        let name = element(OCTETS, &[name.as_bytes()]);
        Self {
            bytes: element(0x60, &[&number(INTEGER, 3), &name, authentication]),
            answer: 0x61,
        }
    }

    /// Reads attributes of one entry.
    pub(super) fn read(name: &str, attributes: &[&str]) -> Self {
        let (base, never) = (number(ENUMERATED, 0), number(ENUMERATED, 0));
        let wanted: Vec<u8> = attributes
            .iter()
            .flat_map(|name| element(OCTETS, &[name.as_bytes()]))
            .collect();
        let parts = [
            element(OCTETS, &[name.as_bytes()]),
            base,
            never,
            number(INTEGER, 1),
            number(INTEGER, 0),
            element(0x01, &[&[0]]),
            element(0x87, &[b"objectClass"]),
            element(SEQUENCE, &[&wanted]),
        ];
        Self {
            bytes: element(0x63, &[&parts.concat()]),
            answer: 0x65,
        }
    }

    /// Calls an extension.
    pub(super) fn extended(name: &str, value: Option<&[u8]>) -> Self {
        let name = element(0x80, &[name.as_bytes()]);
        let value = value.map(|value| element(0x81, &[value]));
        Self {
            bytes: element(0x77, &[&name, &value.unwrap_or_default()]),
            answer: 0x78,
        }
    }

    /// Sets the password of an entry.
    pub(super) fn set_password(name: &str, new: &[u8]) -> Self {
        let user = element(0x80, &[name.as_bytes()]);
        let value = element(SEQUENCE, &[&user, &element(0x82, &[new])]);
        Self::extended(PASSWORD_MODIFY, Some(&value))
    }

    /// As it travels, under a number of its own.
    pub(super) fn envelope(&self, id: u32) -> Vec<u8> {
        element(SEQUENCE, &[&number(INTEGER, id), &self.bytes])
    }
}

/// `LDAPResult`, with the value of an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// 0: it was done.
    pub(super) code: u32,
    /// What the server says about it.
    pub(super) text: String,
    /// What an extension answers.
    pub(super) value: Option<String>,
}

/// One message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The answer.
    Answer(Answer),
    /// An entry that was found.
    Entry(Attributes),
    /// Nothing that matters here.
    Other,
    /// The server ends the connection and says why.
    Goodbye(String),
}

impl Heard {
    /// A message that was read while the answer to this request is awaited; none where it is malformed.
    pub(super) fn read(message: &[u8], request: &Request, id: u32) -> Option<Self> {
        let mut message = Reader(Reader(message).take(SEQUENCE)?);
        let about = message.number(INTEGER)?;
        let (tag, content) = message.next()?;
        if about == 0 {
            let answer = answer(content)?;
            return Some(Self::Goodbye(answer.text));
        }
        if about != id {
            return Some(Self::Other);
        }
        match tag {
            ENTRY => Some(Self::Entry(attributes(content)?)),
            REFERENCE | INTERMEDIATE => Some(Self::Other),
            tag if tag == request.answer => Some(Self::Answer(answer(content)?)),
            _ => None,
        }
    }
}

/// Text of a server, fit for an operator's line.
fn text(bytes: &[u8]) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(plain).take(MAX_TEXT).collect()
}

fn answer(content: &[u8]) -> Option<Answer> {
    let mut content = Reader(content);
    let code = content.number(ENUMERATED)?;
    content.take(OCTETS)?;
    let said = text(content.take(OCTETS)?);
    let mut value = None;
    while let Some((tag, content)) = content.next() {
        if tag == 0x8b {
            value = Some(text(content));
        }
    }
    Some(Answer {
        code,
        text: said,
        value,
    })
}

fn attributes(content: &[u8]) -> Option<Attributes> {
    let mut content = Reader(content);
    content.take(OCTETS)?;
    let mut list = Reader(content.take(SEQUENCE)?);
    let mut all = Attributes::new();
    while let Some(attribute) = list.take(SEQUENCE) {
        let mut attribute = Reader(attribute);
        let name = std::str::from_utf8(attribute.take(OCTETS)?).ok()?;
        let mut values = Reader(attribute.take(SET)?);
        let values = std::iter::from_fn(|| values.take(OCTETS));
        let texts = values.filter_map(|value| std::str::from_utf8(value).ok());
        let texts = texts.map(str::to_owned).collect();
        all.insert(name.to_ascii_lowercase(), texts);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 3062 has no bytes; these were written by hand from its ASN.1.
    #[test]
    fn a_request_is_what_the_standard_says() {
        let request = Request::set_password("cn=a", b"new");
        let mut want = vec![0x30, 0x2d, 0x02, 0x01, 0x05, 0x77, 0x28, 0x80, 0x17];
        want.extend(b"1.3.6.1.4.1.4203.1.11.1");
        want.extend([0x81, 0x0d, 0x30, 0x0b, 0x80, 0x04]);
        want.extend(b"cn=a");
        want.extend([0x82, 0x03]);
        want.extend(b"new");
        assert_eq!(request.envelope(5), want);

        let mut want = vec![
            0x30, 0x11, 0x02, 0x01, 0x01, 0x60, 0x0c, 0x02, 0x01, 0x03, 0x04, 0x04,
        ];
        want.extend(b"cn=a");
        want.extend([0x80, 0x01, b'p']);
        assert_eq!(Request::bind("cn=a", b"p").envelope(1), want);
    }

    fn result(tag: u8, id: u32, code: u32, said: &[u8], more: &[u8]) -> Vec<u8> {
        let parts = [
            number(ENUMERATED, code),
            element(OCTETS, &[]),
            element(OCTETS, &[said]),
            more.to_vec(),
        ];
        let operation = element(tag, &[&parts.concat()]);
        element(SEQUENCE, &[&number(INTEGER, id), &operation])
    }

    fn said(code: u32, text: &str, value: Option<&str>) -> Heard {
        Heard::Answer(Answer {
            code,
            text: text.to_owned(),
            value: value.map(str::to_owned),
        })
    }

    #[test]
    fn answers_are_told_from_everything_else() {
        let who = Request::extended(WHO_AM_I, None);
        let value = element(0x8b, &[b"dn:cn=a"]);
        let other = element(0x8a, &[b"1.2.3"]);
        for (name, message, want) in [
            (
                "done",
                result(0x78, 3, 0, b"", &value),
                Some(said(0, "", Some("dn:cn=a"))),
            ),
            (
                "a name before",
                result(0x78, 3, 0, b"", &[other.clone(), value.clone()].concat()),
                Some(said(0, "", Some("dn:cn=a"))),
            ),
            (
                "refused",
                result(0x78, 3, 53, b"no\nway", &[]),
                Some(said(53, "no way", None)),
            ),
            (
                "to another request",
                result(0x78, 2, 0, b"", &[]),
                Some(Heard::Other),
            ),
            (
                "the end",
                result(0x78, 0, 52, b"closing", &other),
                Some(Heard::Goodbye("closing".to_owned())),
            ),
            ("of another kind", result(0x61, 3, 0, b"", &[]), None),
            (
                "a negative code",
                vec![0x30, 8, 2, 1, 3, 0x78, 3, 0x0a, 1, 0xff],
                None,
            ),
            ("cut off", vec![0x30, 5, 2, 1, 3, 0x78, 9], None),
            ("nothing", vec![], None),
        ] {
            assert_eq!(Heard::read(&message, &who, 3), want, "{name}");
        }
    }

    #[test]
    fn an_entry_has_its_texts_by_name() {
        let values = [element(OCTETS, &[b"one"]), element(OCTETS, &[&[0xff]])].concat();
        let attribute = [
            element(OCTETS, &[b"pwdChangedTime"]),
            element(SET, &[&values]),
        ]
        .concat();
        let list = element(SEQUENCE, &[&element(SEQUENCE, &[&attribute])]);
        let entry = element(0x64, &[&element(OCTETS, &[b"cn=a"]), &list]);
        let message = element(SEQUENCE, &[&number(INTEGER, 2), &entry]);
        let want = Attributes::from([("pwdchangedtime".to_owned(), vec!["one".to_owned()])]);
        let read = Request::read("cn=a", &["pwdChangedTime"]);
        assert_eq!(Heard::read(&message, &read, 2), Some(Heard::Entry(want)));
    }

    #[test]
    fn nothing_that_a_server_sends_breaks_the_reader() {
        let read = Request::read("cn=a", &[]);
        let good = result(0x65, 2, 0, b"said", &element(0x8b, &[b"v"]));
        for at in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut bad = good.clone();
                bad[at] = byte;
                // What it is taken for does not matter; that it ends does.
                let _ = Heard::read(&bad, &read, 2);
                let _ = Heard::read(&bad[..at], &read, 2);
            }
        }
    }
}
