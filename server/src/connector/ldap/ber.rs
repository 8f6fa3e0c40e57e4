//! The part of BER (X.690) that LDAP uses (RFC 4511, section 5.1): definite lengths, one byte of tag.

/// The most bytes of an element that is read: an answer with every attribute that is asked for is far smaller.
pub(super) const MAX_ELEMENT: usize = 64 * 1024;
/// The most bytes of tag and length.
const MAX_HEAD: usize = 6;

/// `INTEGER`.
pub(super) const INTEGER: u8 = 0x02;
/// `OCTET STRING`.
pub(super) const OCTETS: u8 = 0x04;
/// `ENUMERATED`.
pub(super) const ENUMERATED: u8 = 0x0a;
/// `SEQUENCE`.
pub(super) const SEQUENCE: u8 = 0x30;
/// `SET`.
pub(super) const SET: u8 = 0x31;

/// An element that holds these bytes, one part after the other.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut bytes = vec![tag];
    if let Ok(short @ ..0x80) = u8::try_from(content.len()) {
        bytes.push(short);
    } else {
        let length = content.len().to_be_bytes();
        let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
        bytes.push(u8::try_from(length.len()).unwrap_or(0x7f) | 0x80);
        bytes.extend(length);
    }
    bytes.extend(content);
    bytes
}

/// A whole number from 0 on.
pub(super) fn number(tag: u8, value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let mut bytes: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    // The first bit is the sign.
    if bytes.first().is_none_or(|first| *first >= 0x80) {
        bytes.insert(0, 0);
    }
    element(tag, &[&bytes])
}

/// How much of a stream is one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framed {
    /// More has to be read to know.
    More,
    /// So many bytes, tag and length with them.
    Whole(usize),
    /// No element of LDAP, or one that is too long.
    Bad,
}

/// Looks at the beginning of a stream.
pub(super) fn framed(bytes: &[u8]) -> Framed {
    match head(bytes) {
        Some((_, at, length)) if length <= MAX_ELEMENT => Framed::Whole(at.saturating_add(length)),
        None if bytes.len() < MAX_HEAD && bytes.get(1).is_none_or(|first| long(*first)) => {
            Framed::More
        }
        Some(_) | None => Framed::Bad,
    }
}

/// A length of one to four bytes follows.
fn long(first: u8) -> bool {
    (0x81..=0x84).contains(&first)
}

/// Tag, where the content begins, and its length.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
    if first < 0x80 {
        return Some((tag, 2, first.into()));
    }
    let count = usize::from(first & 0x7f);
    let rest = bytes.get(2..2_usize.checked_add(count)?)?;
    let length = long(first).then(|| {
        let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        rest.iter().fold(0, add)
    })?;
    Some((tag, 2_usize.checked_add(count)?, length))
}

/// What is left of a content that is read from its beginning.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next element; none at the end, and where it is cut off.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, at, length) = head(self.0)?;
        let content = self.0.get(at..)?;
        let (content, rest) = content.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next element, where it has this tag.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let (found, content) = ahead.next()?;
        (found == tag).then(|| *self = ahead)?;
        Some(content)
    }

    /// The next element, where it is a whole number from 0 on.
    pub(super) fn number(&mut self, tag: u8) -> Option<u32> {
        let content = self.take(tag)?;
        let (first, _) = content.split_first()?;
        if *first >= 0x80 || content.len() > 5 {
            return None;
        }
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        u32::try_from(content.iter().fold(0, add)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 255, 256, 65_536] {
            let content = vec![7; length];
            let bytes = element(OCTETS, &[&content]);
            assert_eq!(framed(&bytes), Framed::Whole(bytes.len()), "{length}");
            let mut reader = Reader(&bytes);
            assert_eq!(reader.next(), Some((OCTETS, &*content)), "{length}");
            assert!(reader.next().is_none(), "{length}");
        }
        for value in [0, 1, 127, 128, 255, 256, u32::MAX] {
            let bytes = number(INTEGER, value);
            assert_eq!(Reader(&bytes).number(INTEGER), Some(value), "{value}");
        }
    }

    #[test]
    fn a_stream_is_cut_where_an_element_ends() {
        let long = [&[0x30, 0x84, 0, 0, 0, 1][..], &[5]].concat();
        for (name, bytes, want) in [
            ("nothing", &[][..], Framed::More),
            ("a tag", &[0x30], Framed::More),
            ("a length that is not whole", &[0x30, 0x82, 1], Framed::More),
            (
                "an element that is not whole",
                &[0x30, 3, 1],
                Framed::Whole(5),
            ),
            ("more than one", &[0x30, 0, 0x30, 0], Framed::Whole(2)),
            ("a longer length than needed", &long, Framed::Whole(7)),
            ("no length", &[0x30, 0x80, 1, 1, 0, 0], Framed::Bad),
            (
                "a length of five bytes",
                &[0x30, 0x85, 0, 0, 0, 0, 1],
                Framed::Bad,
            ),
            ("too long", &[0x30, 0x84, 0, 1, 0, 1], Framed::Bad),
        ] {
            assert_eq!(framed(bytes), want, "{name}");
        }
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_not_read() {
        for (name, bytes) in [
            ("nothing", &[][..]),
            ("a content that is cut off", &[INTEGER, 2, 1]),
            ("another tag", &[OCTETS, 1, 1]),
            ("no content", &[INTEGER, 0]),
            ("a negative number", &[INTEGER, 1, 0xff]),
            ("too large a number", &[INTEGER, 5, 1, 0, 0, 0, 0]),
        ] {
            assert_eq!(Reader(bytes).number(INTEGER), None, "{name}");
        }
    }
}
