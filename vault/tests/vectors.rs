//! The golden vectors: read, refused, mutated, and judged by an independent reader.
//!
//! `docs/FORMATS.md` says what is in `testdata/`. When a format is meant to change, the vectors
//! change first.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "a test says what is wrong by stopping"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyturn_vault::charter::Charter;
use keyturn_vault::definition::Definition;
use keyturn_vault::digest::Digest;
use keyturn_vault::event::Event;
use keyturn_vault::fuzz;
use keyturn_vault::jcs::Document;
use keyturn_vault::manifest::Manifest;
use keyturn_vault::reference::Signer;
use keyturn_vault::restore::RestoreDocument;
use keyturn_vault::text::{
    Approval, Checkin, Details, Enrol, Heartbeat, Join, NewDevice, Recover, Request, Review,
    SubmitKey, Text, TextError,
};
use keyturn_vault::words::spoken;
use serde_json::{Value, json};

/// Mutations of each type.
const MUTATIONS: usize = 10_000;
/// How many of them the independent reader judges too.
const JUDGED: usize = 400;

const TEXTS: [&str; 11] = [
    "request",
    "approval",
    "details",
    "submit-key",
    "checkin",
    "enrol",
    "join",
    "device",
    "heartbeat",
    "review",
    "recover",
];
const DOCUMENTS: [&str; 4] = ["charter", "definition", "manifest", "restore"];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Something to judge: its type, its bytes, and what it is judged by.
#[derive(Clone)]
struct Case {
    name: String,
    kind: String,
    data: Vec<u8>,
    under: Vec<u8>,
    of: Vec<u8>,
}

impl Case {
    /// A vector by its file name, as section 4 of `docs/FORMATS.md` says.
    fn new(name: &str, data: Vec<u8>) -> Self {
        let read = |name: &str| std::fs::read(testdata().join("valid").join(name)).unwrap();
        let kind = name.split('.').next().unwrap().to_owned();
        let case = name.split('.').rev().nth(1).unwrap();
        let (under, of) = match kind.as_str() {
            "charter" if case.starts_with("second") => (Vec::new(), read("charter.first.json")),
            "definition" => (read("charter.first.json"), Vec::new()),
            "manifest" if case == "fallback" => {
                (read("charter.first.json"), read("definition.fallback.json"))
            }
            "manifest" => (read("charter.first.json"), read("definition.aws.json")),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            name: name.to_owned(),
            kind,
            data,
            under,
            of,
        }
    }

    fn with(&self, data: Vec<u8>) -> Self {
        Self {
            data,
            ..self.clone()
        }
    }
}

fn cases(folder: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = std::fs::read_dir(testdata().join(folder))
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            Case::new(
                path.file_name().unwrap().to_str().unwrap(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    // Too large to keep.
    if folder == "invalid" {
        let request = std::fs::read(testdata().join("valid/request.unseal.txt")).unwrap();
        cases.push(Case::new(
            "request.size.huge.txt",
            [request, vec![b'x'; 20_000]].concat(),
        ));
        cases.push(Case::new("charter.form.deep.json", vec![b'['; 100_000]));
        for (name, size) in [
            ("charter.size.huge.json", 524_289),
            ("definition.size.huge.json", 49_153),
            ("manifest.size.huge.json", 49_153),
            ("restore.size.huge.json", 4_194_305),
        ] {
            cases.push(Case::new(name, vec![b' '; size]));
        }
    }
    cases
}

/// A refusal: its code, and what it says.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    code: &'static str,
    message: String,
}

fn refused(code: &'static str, error: &dyn Error) -> Refused {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Refused { code, message }
}

fn judge_text<T: Text>(data: &[u8]) -> Result<(), Refused> {
    let text = std::str::from_utf8(data).map_err(|error| refused("utf-8", &error))?;
    let value = T::parse(text).map_err(|error: TextError| refused(error.code(), &error))?;
    assert_eq!(value.to_text(), text, "a text has one spelling");
    assert_eq!(value.digest(), Digest::of(data));
    Ok(())
}

fn read<T: Document>(data: &[u8]) -> Result<T, Refused> {
    // What the JSON library adds to the message is its own affair.
    let read = T::from_bytes(data);
    let value = read.map_err(|error| Refused {
        code: error.code(),
        message: error.to_string(),
    })?;
    assert_eq!(
        value.to_bytes().unwrap(),
        data,
        "a document has one spelling"
    );
    Ok(value)
}

fn judge_document(case: &Case) -> Result<(), Refused> {
    let charter = || read::<Charter>(&case.under);
    match case.kind.as_str() {
        "charter" => {
            let charter = read::<Charter>(&case.data)?;
            charter
                .validate()
                .map_err(|error| refused("rule", &error))?;
            if !case.of.is_empty() {
                let before = read::<Charter>(&case.of)?;
                let followed = charter.follows(&before, Digest::of(&case.of));
                followed.map_err(|error| refused("rule", &error))?;
            }
            Ok(())
        }
        "definition" => {
            let definition = read::<Definition>(&case.data)?;
            definition
                .validate(&charter()?)
                .map_err(|error| refused("rule", &error))
        }
        "manifest" => {
            let manifest = read::<Manifest>(&case.data)?;
            let definition = read::<Definition>(&case.of)?;
            let fits = manifest.validate(&definition, &charter()?);
            fits.map_err(|error| refused("rule", &error))
        }
        "restore" => read::<RestoreDocument>(&case.data).map(drop),
        kind => panic!("no such type: {kind}"),
    }
}

fn judge(case: &Case) -> Result<(), Refused> {
    match case.kind.as_str() {
        "request" => judge_text::<Request>(&case.data),
        "approval" => judge_text::<Approval>(&case.data),
        "details" => judge_text::<Details>(&case.data),
        "submit-key" => judge_text::<SubmitKey>(&case.data),
        "checkin" => judge_text::<Checkin>(&case.data),
        "enrol" => judge_text::<Enrol>(&case.data),
        "join" => judge_text::<Join>(&case.data),
        "device" => judge_text::<NewDevice>(&case.data),
        "heartbeat" => judge_text::<Heartbeat>(&case.data),
        "review" => judge_text::<Review>(&case.data),
        "recover" => judge_text::<Recover>(&case.data),
        _ => judge_document(case),
    }
}

#[test]
fn valid_vectors_are_read_and_written_again() {
    let table = std::fs::read_to_string(testdata().join("valid.tsv")).unwrap();
    let rows: BTreeMap<&str, (&str, &str)> = table
        .lines()
        .map(|row| row.split('\t').collect::<Vec<_>>())
        .map(|row| (row[0], (row[1], row[2])))
        .collect();
    let cases = cases("valid");
    assert_eq!(rows.len(), cases.len(), "valid.tsv lists every file");
    for case in &cases {
        assert_eq!(judge(case), Ok(()), "{}", case.name);
        let digest = Digest::of(&case.data);
        let (hex, words) = rows[case.name.as_str()];
        assert_eq!(
            (digest.to_string().as_str(), spoken(&digest).as_str()),
            (hex, words)
        );
    }
    for kind in TEXTS.iter().chain(&DOCUMENTS) {
        assert!(
            cases.iter().any(|case| case.kind == *kind),
            "no vector of {kind}"
        );
    }
}

#[test]
fn invalid_vectors_are_refused_with_their_code_and_their_message() {
    let table = std::fs::read_to_string(testdata().join("invalid.tsv")).unwrap();
    let mut found = Vec::new();
    for case in cases("invalid") {
        let refused = judge(&case).expect_err(&case.name);
        let code = case.name.split('.').nth(1).unwrap();
        assert_eq!(refused.code, code, "{}: {}", case.name, refused.message);
        found.push(format!("{}\t{}", case.name, refused.message));
    }
    if !found.iter().map(String::as_str).eq(table.lines()) {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("invalid.tsv");
        let mut file = std::fs::File::create(&place).unwrap();
        writeln!(file, "{}", found.join("\n")).unwrap();
        panic!(
            "messages are not those of testdata/invalid.tsv; see {}",
            place.display()
        );
    }
}

#[test]
fn no_text_is_a_text_of_another_type() {
    for case in cases("valid") {
        for kind in TEXTS
            .iter()
            .chain(&DOCUMENTS)
            .filter(|kind| **kind != case.kind)
        {
            let other = Case::new(&format!("{kind}.x.txt"), case.data.clone());
            assert!(judge(&other).is_err(), "{} is a {kind}", case.name);
        }
    }
}

/// A small generator of numbers (xorshift64*), so that every run mutates alike.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % bound.max(1)
    }
}

/// What mutations put in: signs that mean something somewhere.
const SIGNS: [&str; 28] = [
    "\n",
    "\r\n",
    "-",
    "--",
    " ",
    "  ",
    ":",
    ": ",
    "0",
    "00",
    "9",
    "18446744073709551616",
    "v",
    "x",
    "\t",
    "\u{0}",
    "\u{a0}",
    "\u{200b}",
    "\u{202e}",
    "\u{2028}",
    "e\u{301}",
    "é",
    "/",
    "..",
    "\"",
    "\\u0041",
    "null",
    "{}",
];

/// Some bytes of a text changed, lines and spans moved, parts of another put in.
fn mutated(numbers: &mut Numbers, from: &[u8], other: &[u8]) -> Vec<u8> {
    let mut data = from.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(data.len() + 1);
        let to = (at + numbers.below(40)).min(data.len());
        match numbers.below(8) {
            0 if at < data.len() => data[at] ^= 1 << numbers.below(8),
            1 => drop(data.drain(at..to)),
            2 => data.truncate(at),
            3 => {
                let sign = SIGNS[numbers.below(SIGNS.len())];
                data.splice(at..at, sign.bytes());
            }
            4 => {
                let sign = SIGNS[numbers.below(SIGNS.len())];
                data.splice(at..to, sign.bytes());
            }
            5 => {
                let copy = data[at..to].to_vec();
                data.splice(at..at, copy);
            }
            6 => {
                let mut lines: Vec<&[u8]> = data.split_inclusive(|byte| *byte == b'\n').collect();
                let others: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
                let (one, two) = (numbers.below(lines.len()), numbers.below(lines.len()));
                match numbers.below(4) {
                    0 if !lines.is_empty() => lines.swap(one, two),
                    1 if !lines.is_empty() => drop(lines.remove(one)),
                    2 if !lines.is_empty() => lines.insert(one, lines[two]),
                    _ if !others.is_empty() => {
                        lines.insert(one, others[numbers.below(others.len())]);
                    }
                    _ => {}
                }
                data = lines.concat();
            }
            _ => {
                let from = numbers.below(other.len() + 1);
                let part = other[from..(from + 64).min(other.len())].to_vec();
                data.splice(at..to, part);
            }
        }
    }
    data
}

/// A document whose form is right and whose values are not: one value replaced by another of it.
fn replaced(numbers: &mut Numbers, data: &[u8]) -> Option<Vec<u8>> {
    fn places(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    places(value, &format!("{at}/{}", name.replace('/', "~1")), found);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    places(value, &format!("{at}/{index}"), found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        found.push(at.to_owned());
    }
    let mut value: Value = serde_json::from_slice(data).ok()?;
    let mut found = Vec::new();
    places(&value, "", &mut found);
    let place = &found[numbers.below(found.len())];
    let other = value.pointer(&found[numbers.below(found.len())])?.clone();
    let number = json!([0, 1, 2, 3, 25, 61, 255, 256, 2_592_000][numbers.below(9)]);
    let target = value.pointer_mut(place)?;
    *target = match numbers.below(4) {
        0 => number,
        1 => [json!(null), json!([]), json!(true), json!(false)][numbers.below(4)].clone(),
        _ => other,
    };
    serde_json::to_vec(&value).ok()
}

/// Mutations of all vectors of a type. Texts are UTF-8 before they get to a reader.
fn mutations(kind: &str, count: usize) -> Vec<Case> {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let all: Vec<Case> = cases("valid").into_iter().chain(cases("invalid")).collect();
    let of_kind: Vec<&Case> = all
        .iter()
        .filter(|case| case.kind == kind && case.data.len() < 32_768)
        .collect();
    let mut made = Vec::new();
    while made.len() < count {
        let case = of_kind[numbers.below(of_kind.len())];
        let other = &all[numbers.below(all.len())].data;
        let document = DOCUMENTS.contains(&kind);
        let data = match replaced(&mut numbers, &case.data) {
            Some(data) if document && numbers.below(3) > 0 => data,
            _ => mutated(&mut numbers, &case.data, other),
        };
        if document || std::str::from_utf8(&data).is_ok() {
            made.push(case.with(data));
        }
    }
    made
}

/// An enrolment file around the golden enrolment.
fn enrolment() -> String {
    let text = std::fs::read_to_string(testdata().join("valid/enrol.software.txt")).unwrap();
    let enrol = Enrol::parse(&text).unwrap();
    json!({
        "format": "keyturn enrolment v1",
        "enrol": {
            "text": text, "signature": STANDARD.encode([1; 70]),
            "signer": Signer::Token(enrol.token.id),
        },
    })
    .to_string()
}

/// Something to mutate for a target that has no vectors.
fn seed(target: &str) -> String {
    let first = std::fs::read(testdata().join("valid/charter.first.json")).unwrap();
    let charter = Charter::from_bytes(&first).unwrap();
    let bob = &charter.persons[1];
    match target {
        "charter-draft" => serde_json::to_string_pretty(&charter).unwrap(),
        "definition-draft" => {
            let bytes = std::fs::read(testdata().join("valid/definition.canary.json")).unwrap();
            let definition = Definition::from_bytes(&bytes).unwrap();
            serde_json::to_string_pretty(&definition).unwrap()
        }
        "id" => bob.id.to_string(),
        "digest" => Digest::of(&first).to_string(),
        "name" => "idp-outage_2.x".to_owned(),
        "origin" => charter.origin.to_string(),
        "path" => "aws/123456789012/root".to_owned(),
        "line" => "IdP down – nobody can sign in 🔑".to_owned(),
        "time" => "2026-11-21T02:17:00.123Z".to_owned(),
        "stamp" => "2026-11-21T02:17:00Z".to_owned(),
        "span" => "90m".to_owned(),
        "public-key" => charter.nodes[0].key.to_string(),
        "share-key" => bob.tokens[0].share_key.to_string(),
        "verifier-key" => charter.log_key.to_string(),
        "network" => "2001:db8::/32".to_owned(),
        "firmware" => "5.7.1".to_owned(),
        "version" => "v7".to_owned(),
        "reference" => charter.reference().unwrap().to_string(),
        "person-or-token" => bob.tokens[0].reference().to_string(),
        "event" => json!({
            "type": "charter.in-force",
            "body": { "charter": charter.reference().unwrap(), "ceremony": bob.id },
        })
        .to_string(),
        "enrolment-file" => enrolment(),
        "welcome-file" => json!({
            "format": "keyturn welcome v1", "person": bob.reference().to_string(),
            "charter": STANDARD.encode(&first),
        })
        .to_string(),
        "place" => format!("credentials/{}/v7/payload.age", bob.id),
        other => panic!("no seed for {other}"),
    }
}

#[test]
fn targets_without_vectors_survive_mutations_too() {
    let vectors: Vec<Case> = cases("valid");
    for (name, target) in fuzz::TARGETS {
        if vectors.iter().any(|case| case.kind == name) {
            continue;
        }
        let seed = seed(name);
        target(seed.as_bytes());
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        for _ in 0..MUTATIONS {
            target(&mutated(&mut numbers, seed.as_bytes(), seed.as_bytes()));
        }
    }
}

#[test]
fn mutations_are_refused_or_mean_what_they_say() {
    for kind in TEXTS.iter().chain(&DOCUMENTS) {
        // `judge` asserts that what is accepted is written again byte for byte.
        let made = mutations(kind, MUTATIONS);
        let (_, target) = fuzz::TARGETS.iter().find(|(name, _)| name == kind).unwrap();
        for case in &made {
            target(&case.data);
        }
        let found: BTreeSet<&str> = made
            .iter()
            .map(|case| judge(case).map_or_else(|refused| refused.code, |()| "ok"))
            .collect();
        let document = DOCUMENTS.contains(kind);
        let wanted = if document {
            vec!["ok", "form"]
        } else {
            vec!["ok", "end", "line", "value"]
        };
        assert!(
            wanted.iter().all(|code| found.contains(code)),
            "{kind} reached only {found:?}"
        );
    }
}

/// What `decode.py` says of each case.
fn independent(cases: &[Case]) -> Vec<String> {
    let decoder = testdata().join("decode.py");
    let mut python = Command::new("python3")
        .arg(decoder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let encoded = |bytes: &[u8]| {
        if bytes.is_empty() {
            Value::Null
        } else {
            json!(STANDARD.encode(bytes))
        }
    };
    let rows: Vec<String> = cases
        .iter()
        .map(|case| {
            let (data, under) = (STANDARD.encode(&case.data), encoded(&case.under));
            json!({"type": case.kind, "data": data, "under": under, "of": encoded(&case.of)})
        })
        .map(|row| row.to_string())
        .collect();
    let mut input = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || writeln!(input, "{}", rows.join("\n")));
    let output = python.wait_with_output().unwrap();
    writer
        .join()
        .unwrap()
        .expect("decode.py reads all its input");
    assert!(output.status.success(), "decode.py failed");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_independent_reader_agrees_on_everything() {
    let mut all: Vec<Case> = cases("valid").into_iter().chain(cases("invalid")).collect();
    for kind in TEXTS.iter().chain(&DOCUMENTS) {
        all.extend(mutations(kind, JUDGED));
    }
    let theirs = independent(&all);
    assert_eq!(theirs.len(), all.len());
    for (case, theirs) in all.iter().zip(theirs) {
        let digest = Digest::of(&case.data);
        let ours = match judge(case) {
            Ok(()) => format!("ok {digest} {}", spoken(&digest)),
            Err(refused) => format!("refused {}", refused.code),
        };
        let shown = String::from_utf8_lossy(&case.data);
        assert_eq!(ours, theirs, "{}:\n{shown}", case.name);
    }
}

#[test]
fn the_examples_of_the_manual_are_vectors() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMATS.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let valid = cases("valid");
    let examples: Vec<&str> = manual
        .split("```text\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    for example in &examples {
        let known = valid.iter().any(|case| case.data == example.as_bytes());
        assert!(known, "no vector:\n{example}");
    }
    for kind in TEXTS {
        let first = format!("keyturn {kind} v1\n");
        assert!(
            examples.iter().any(|example| example.starts_with(&first)),
            "no example of {kind}"
        );
        assert!(
            manual.contains(&format!("\n### {kind}\n")),
            "no section about {kind}"
        );
    }
    for kind in Event::KINDS {
        assert!(
            manual.contains(&format!("\n| `{kind}` | ")),
            "no line about the entry {kind}"
        );
    }
    for kind in DOCUMENTS {
        assert!(
            manual.contains(&format!("\n### {kind}\n")),
            "no section about {kind}"
        );
    }
}
