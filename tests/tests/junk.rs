//! Every call of the interface, every field of it, with what nobody should send: each is refused with its
//! stable word and a hint, or harmless, and nothing is in the log of it.
//!
//! Messages are made of raw bytes after the interface's own files, so that a new call or field is tried without
//! anybody thinking of it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use keyturn_proto::{CODE_TRAILER, HINT_TRAILER, v1};
use keyturn_tests::raw::Founded;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

/// A field of a message.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    kind: String,
    number: u64,
}

/// The calls with what they take, and all messages.
#[derive(Debug, Default)]
struct Interface {
    calls: Vec<(String, String)>,
    messages: BTreeMap<String, Vec<Field>>,
}

impl Interface {
    fn read() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../proto/keyturn/v1");
        let mut interface = Self::default();
        for file in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let (mut service, mut message) = (String::new(), String::new());
            for line in text.lines().map(str::trim) {
                let words: Vec<_> = line.split([' ', '(', ')', ';', '{']).collect();
                let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
                match words[..] {
                    ["service", name] => name.clone_into(&mut service),
                    ["message", name] | ["message", name, "}"] => {
                        name.clone_into(&mut message);
                        interface.messages.insert(message.clone(), Vec::new());
                    }
                    ["rpc", name, takes, ..] => {
                        let path = format!("/keyturn.v1.{service}/{name}");
                        interface.calls.push((path, takes.to_owned()));
                    }
                    [kind, name, "=", number] | ["repeated", kind, name, "=", number]
                        if !line.starts_with("//") && kind != "option" =>
                    {
                        let Ok(number) = number.parse() else { continue };
                        let (name, kind) = (name.to_owned(), kind.to_owned());
                        let field = Field { name, kind, number };
                        interface
                            .messages
                            .entry(message.clone())
                            .or_default()
                            .push(field);
                    }
                    _ => {}
                }
            }
        }
        interface
    }

    /// Messages of this type that nobody should send, with what is wrong; fields of fields to this depth.
    fn junk(&self, message: &str, depth: usize) -> Vec<(String, Vec<u8>)> {
        let mut all = vec![
            ("cut off".to_owned(), vec![0x0a, 0x7f, 1]),
            ("not a message".to_owned(), vec![0xff; 9]),
        ];
        for field in &self.messages[message] {
            let mut of = |what: String, bytes: Vec<u8>| {
                all.push((format!("{}: {what}", field.name), bytes));
            };
            match field.kind.as_str() {
                "string" => {
                    for (what, text) in TEXTS {
                        of((*what).to_owned(), tagged(field.number, text.as_bytes()));
                    }
                    of(
                        "long".to_owned(),
                        tagged(field.number, "x".repeat(70_000).as_bytes()),
                    );
                    of("not UTF-8".to_owned(), tagged(field.number, &[0xc3, 0x28]));
                    of("many".to_owned(), tagged(field.number, b"").repeat(5000));
                }
                "bytes" => {
                    for length in [1, 31, 33, 70_000] {
                        of(
                            format!("{length} bytes"),
                            tagged(field.number, &vec![7; length]),
                        );
                    }
                }
                kind if self.messages.contains_key(kind) => {
                    of("empty".to_owned(), tagged(field.number, b""));
                    of("many".to_owned(), tagged(field.number, b"").repeat(5000));
                    if depth > 0 {
                        for (what, bytes) in self.junk(kind, depth.saturating_sub(1)) {
                            of(what, tagged(field.number, &bytes));
                        }
                    }
                }
                // Numbers, words of a list, yes or no.
                _ => of("the largest".to_owned(), {
                    let mut bytes = varint(field.number << 3);
                    bytes.extend(varint(u64::MAX));
                    bytes
                }),
            }
        }
        all
    }
}

/// What somebody may put into a text.
const TEXTS: &[(&str, &str)] = &[
    ("nothing but a blank", " "),
    ("a path upwards", "../../../../etc/passwd"),
    ("a look-alike", "\u{430}ws/1/root"),
    ("turned around", "aws/\u{202e}toor/1"),
    ("a zero", "aws/1\0/root"),
    ("another line", "aws/1/root\nvault: other"),
    ("negative", "-1"),
    ("an id cut short", "01HZ000000000000000000000"),
    ("an id of nothing", "01HZ0000000000000000000000"),
    ("a pattern", "**"),
];

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A field with these bytes.
fn tagged(number: u64, bytes: &[u8]) -> Vec<u8> {
    let length = u64::try_from(bytes.len()).unwrap();
    [varint(number << 3 | 2), varint(length), bytes.to_vec()].concat()
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn call(channel: &Channel, path: &str, message: Vec<u8>) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse().unwrap();
    // The head of a stream is its answer; nobody waits for what follows.
    let call = client.server_streaming(Request::new(message), path, Raw);
    let answer = tokio::time::timeout(Duration::from_secs(20), call);
    let mut answer = answer.await.unwrap()?.into_inner();
    let first = tokio::time::timeout(Duration::from_millis(200), answer.message());
    first.await.unwrap_or(Ok(None)).map(drop)
}

/// Entries of the log, but for those that count what was refused.
async fn entries(vault: &Founded) -> usize {
    let line = vault.line("alice").await.unwrap();
    line.checkpoint(&vault.facts.vkey).await.unwrap();
    let all = v1::EntriesRequest {
        from: 0,
        count: 1000,
    };
    let entries = line.log().entries(all).await.unwrap().into_inner().entries;
    let counts = |entry: &Vec<u8>| String::from_utf8_lossy(entry).contains("refusals.counted");
    entries.iter().filter(|entry| !counts(entry)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_every_call_is_refused_in_words_or_harmless() {
    let interface = Interface::read();
    assert!(interface.calls.len() > 35, "{:?}", interface.calls);
    let vault = Founded::new("").await.unwrap();
    vault.seal("aws/1/root", b"hunter2").await.unwrap();
    let before = entries(&vault).await;
    let (mut tried, mut words) = (BTreeSet::new(), BTreeSet::new());
    for who in ["olga", "bob"] {
        let line = vault.line(who).await.unwrap();
        for (path, takes) in &interface.calls {
            for (what, message) in interface.junk(takes, 2) {
                let name = format!("{who}: {path}: {what}");
                tried.insert(name.clone());
                let Err(status) = call(&line.channel(), path, message).await else {
                    continue;
                };
                let trailers = status.metadata();
                let word = trailers.get(CODE_TRAILER).and_then(|it| it.to_str().ok());
                let Some(word) = word else {
                    panic!("{name}: no word: {status}");
                };
                words.insert(word.to_owned());
                let hint = trailers
                    .get_bin(HINT_TRAILER)
                    .and_then(|it| it.to_bytes().ok());
                assert!(hint.is_some_and(|hint| hint.len() > 10), "{name}: no hint");
                assert!(!status.message().is_empty(), "{name}: no message");
                let broken = [Code::Internal, Code::Unknown, Code::DataLoss];
                assert!(!broken.contains(&status.code()), "{name}: {status}");
            }
            assert_eq!(
                entries(&vault).await,
                before,
                "{who}: {path}: the log has grown"
            );
        }
    }
    assert!(tried.len() > 1000, "{}", tried.len());
    assert!(words.contains("malformed") && words.len() > 4, "{words:?}");
}
