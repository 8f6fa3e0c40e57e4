//! BER-TLV as PIV uses it (ISO 7816-4): one-byte tags, lengths up to 65,535.

/// Appends tag, length and value.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    put_length(out, value.len());
    out.extend_from_slice(value);
}

/// Appends a length; values here are far below 64 KiB.
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    let [.., high, low] = length.to_be_bytes();
    match length {
        0..=0x7f => out.push(low),
        0x80..=0xff => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
}

/// One tag, length and value.
pub(crate) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, tag, value);
    out
}

/// Splits off the first: tag, value, rest.
pub(crate) fn take(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (length, rest) = match data.get(1..)? {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*data.first()?, value, rest))
}

/// All of a buffer; `None` if it is malformed.
pub(crate) fn all(mut data: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Vec::new();
    while !data.is_empty() {
        let (tag, value, rest) = take(data)?;
        fields.push((tag, value));
        data = rest;
    }
    Some(Fields(fields))
}

/// Tags and values in the order in which they came.
pub(crate) struct Fields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Fields<'a> {
    /// The first value with this tag.
    pub(crate) fn value(&self, tag: u8) -> Option<&'a [u8]> {
        self.0
            .iter()
            .find(|(found, _)| *found == tag)
            .map(|(_, value)| *value)
    }

    /// The first value with this tag, if it is one byte that is not zero.
    pub(crate) fn byte(&self, tag: u8) -> Option<u8> {
        match self.value(tag)? {
            [byte] if *byte != 0 => Some(*byte),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 3000] {
            let value = vec![7; length];
            let bytes = [tlv(0x53, &value), vec![1]].concat();
            assert_eq!(
                take(&bytes),
                Some((0x53, value.as_slice(), &[1][..])),
                "{length}"
            );
            assert_eq!(take(&bytes[..length]), None, "{length} cut");
        }
    }
}
