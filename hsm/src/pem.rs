//! PEM (RFC 7468): one encoder, and a strict reader for files with several blocks.

use der::pem::{LineEnding, decode_vec, encode_string};

const END: &str = "-----END ";

/// One block, LF-ended.
pub(crate) fn encode(label: &'static str, der: &[u8]) -> String {
    // The labels are constants of this crate and the encoder cannot run out of room.
    encode_string(label, LineEnding::LF, der).unwrap_or_default()
}

/// Every block of `text` with this label, in order, at most `max`; `None` if anything but comments lies between
/// them, or a block has another label.
pub(crate) fn decode_all(label: &str, text: &str, max: usize) -> Option<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        if out.len() == max {
            return None;
        }
        let block = rest.get(begin..)?;
        let end = block.find(END)?;
        let tail = block.get(end.checked_add(END.len())?..)?;
        let after = tail.find("-----")?.checked_add("-----".len())?;
        let len = end.checked_add(END.len())?.checked_add(after)?;
        let (found, der) = decode_vec(block.get(..len)?.as_bytes()).ok()?;
        if found != label {
            return None;
        }
        out.push(der);
        rest = block.get(len..)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_in_order() {
        let text = format!(
            "a comment\n{}{}",
            encode("CERTIFICATE", b"one"),
            encode("CERTIFICATE", b"two")
        );
        let want = Some(vec![b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(decode_all("CERTIFICATE", &text, 2), want);
        for (name, text, max) in [
            ("more blocks than allowed", text.clone(), 1),
            ("another label", encode("PUBLIC KEY", b"one"), 2),
            ("not base64", text.replace("b25l", "b?5l"), 2),
            ("no end", text.replace("-----END", ""), 2),
        ] {
            assert_eq!(decode_all("CERTIFICATE", &text, max), None, "{name}");
        }
        assert_eq!(decode_all("CERTIFICATE", "nothing", 2), Some(vec![]));
    }
}
