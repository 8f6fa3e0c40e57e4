//! The parts of a release, each by itself.

use std::{fs, hint::black_box, io::Write as _, path::Path, time::Duration};

use criterion::Criterion;
use keyturn_audit::{entry::Entry, note::LogKey};
use keyturn_hsm::device::DeviceKey;
use keyturn_seal::{
    Binding, Holder, HolderToken, Roster, SecretBytes, ShareIdentity, decrypt_with, encrypt_to,
    open, seal,
};
use keyturn_tests::Outcome;
use keyturn_vault::{
    digest::{Digest, Salt},
    id::{CeremonyId, CredentialId, PersonId},
    reference::{CharterRef, Head, PersonRef, Version},
    text::{CredentialLine, Purpose, Request, Text as _},
    time::{Span, Time},
};
use keyturnd::store::{Name, RedbStore, Store as _, Txn};
use tokio::runtime::Runtime;

use crate::{
    figures::{Section, time},
    log,
};

const OUTPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/criterion");

/// The table.
pub(crate) fn measure() -> Outcome<Section> {
    let mut criterion = Criterion::default()
        .output_directory(Path::new(OUTPUT))
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .without_plots();
    let mut section = Section::new(
        "The parts",
        "Each by itself, on one core, by criterion.",
        &["", "median", "95 % confidence"],
    );
    signatures(&mut criterion)?;
    sealing(&mut criterion)?;
    encoding(&mut criterion)?;
    appending(&mut criterion)?;
    for (id, name) in NAMES {
        let (median, low, high) = estimate(id)?;
        section.row([
            name.to_owned(),
            time(median),
            format!("{} – {}", time(low), time(high)),
        ]);
    }
    Ok(section)
}

/// What criterion calls each part, and what the table does.
const NAMES: [(&str, &str); 11] = [
    ("p256-verify", "P-256 verification of an approval"),
    ("age-decrypt", "age: decrypt a submission"),
    ("age-encrypt", "age: encrypt a release"),
    ("combine", "combine 2 of 3 shares, check all commitments"),
    ("open", "open the sealed secret"),
    ("checkpoint", "sign a checkpoint (Ed25519)"),
    ("text-parse", "parse a request"),
    ("entry-encode", "encode an entry of 300 bytes"),
    ("entry-decode", "decode it, strictly"),
    (
        "append-store",
        "durable append: head and entry in the store",
    ),
    ("append-plain", "durable append: plain file and `fdatasync`"),
];

fn signatures(criterion: &mut Criterion) -> Outcome<()> {
    let device = DeviceKey::generate("bench")?;
    let text = "x".repeat(900);
    let signature = device.sign(text.as_bytes())?;
    let key = device.public().clone();
    criterion.bench_function("p256-verify", |b| {
        b.iter(|| key.verify(black_box(text.as_bytes()), &signature).is_ok());
    });
    let log = LogKey::generate("bench.example.org/parts")?;
    criterion.bench_function("checkpoint", |b| {
        b.iter(|| log.sign(black_box(1_000_000), [7; 32]).is_ok());
    });
    Ok(())
}

fn sealing(criterion: &mut Criterion) -> Outcome<()> {
    let keys = (0..3)
        .map(|_| ShareIdentity::generate())
        .collect::<Result<Vec<_>, _>>()?;
    let holders = keys.iter().enumerate().map(|(i, key)| Holder {
        person: format!("person-{i}"),
        tokens: vec![HolderToken {
            id: format!("token-{i}"),
            key: key.share_key(),
        }],
    });
    let binding = Binding::new("bench.example.org/parts", "parts", 1)?;
    let secret = SecretBytes::from_slice(b"correct horse battery st");
    let sealed = seal(
        &secret,
        &binding,
        &[Roster::new("ops", 2, holders.collect())?],
    )?;
    let group = sealed.groups.first().ok_or("no group")?;
    let sharing = group.sharing(&binding)?;
    let mut shares = Vec::new();
    for (share, key) in group.shares.iter().zip(&keys).take(2) {
        shares.push(sharing.open_envelope(share.x, &share.envelope, key)?);
    }
    let shares: Vec<_> = shares.iter().collect();
    criterion.bench_function("combine", |b| {
        b.iter(|| sharing.combine(black_box(&shares)).is_ok());
    });
    let identity = sharing.combine(&shares)?.identity;
    criterion.bench_function("open", |b| {
        b.iter(|| open(black_box(&sealed.ciphertext), &identity, &binding).is_ok());
    });
    let key = [keys.first().ok_or("no key")?.share_key()];
    let file = encrypt_to(&key, &[7; 400])?;
    criterion.bench_function("age-encrypt", |b| {
        b.iter(|| encrypt_to(&key, black_box(&[7; 400])).is_ok());
    });
    let identity = keys.first().ok_or("no key")?;
    criterion.bench_function("age-decrypt", |b| {
        b.iter(|| decrypt_with(identity, black_box(&file), 4096).is_ok());
    });
    Ok(())
}

fn encoding(criterion: &mut Criterion) -> Outcome<()> {
    let text = request()?.to_text();
    criterion.bench_function("text-parse", |b| {
        b.iter(|| Request::parse(black_box(&text)).is_ok());
    });
    let bytes = log::entry(1)?;
    let entry = Entry::decode(&bytes)?;
    criterion.bench_function("entry-encode", |b| {
        b.iter(|| black_box(&entry).encode().is_ok());
    });
    criterion.bench_function("entry-decode", |b| {
        b.iter(|| Entry::decode(black_box(&bytes)).is_ok());
    });
    Ok(())
}

fn appending(criterion: &mut Criterion) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let store = RedbStore::create(&folder.path().join("store.redb"))?;
    let runtime = Runtime::new()?;
    let (entry, mut n) = (log::entry(1)?, 0);
    criterion.bench_function("append-store", |b| {
        b.iter(|| {
            n += 1;
            let txn = Txn::new()
                .put(Name::Head.key(), [1; 400])
                .put(Name::Entry(n).key(), entry.clone());
            runtime.block_on(store.txn(txn)).is_ok()
        });
    });
    let mut file = fs::File::create(folder.path().join("log"))?;
    criterion.bench_function("append-plain", |b| {
        b.iter(|| {
            file.write_all(&entry)
                .and_then(|()| file.sync_data())
                .is_ok()
        });
    });
    Ok(())
}

/// A request for one version.
fn request() -> Outcome<Request> {
    let made = Time::from_ms(1_795_000_000_000);
    let key = ShareIdentity::generate()?.share_key();
    Ok(Request {
        vault: "bench.example.org/parts".parse()?,
        ceremony: CeremonyId::from_parts(made, [1; 10]),
        purpose: Purpose::Unseal,
        scenario: None,
        group: None,
        requested_by: PersonRef {
            name: "alice".parse()?,
            id: PersonId::from_parts(made, [2; 10]),
        },
        used_by: None,
        deliver_to: Some(key.to_string().parse()?),
        ticket: Some("INC-2026-001".parse()?),
        details: Digest([3; 32]),
        check_out: Some(Span::from_hours(2)),
        waive: std::collections::BTreeSet::new(),
        charter: CharterRef {
            index: 1,
            digest: Digest([4; 32]),
        },
        log: Head {
            size: 4711,
            root: Digest([5; 32]),
        },
        opened: made.stamp(),
        valid_for: Span::from_hours(4),
        salt: Salt([6; 32]),
        credentials: vec![CredentialLine {
            path: "aws/123456789012/root".parse()?,
            credential: CredentialId::from_parts(made, [7; 10]),
            version: Version::FIRST,
            manifest: Digest([8; 32]),
        }],
    })
}

/// Median with its confidence interval, as criterion wrote them.
fn estimate(id: &str) -> Outcome<(Duration, Duration, Duration)> {
    let path = Path::new(OUTPUT).join(id).join("new/estimates.json");
    let estimates: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    let median = &estimates["median"];
    let nanos =
        |value: &serde_json::Value| Duration::from_secs_f64(value.as_f64().unwrap_or(0.0) / 1e9);
    let interval = &median["confidence_interval"];
    Ok((
        nanos(&median["point_estimate"]),
        nanos(&interval["lower_bound"]),
        nanos(&interval["upper_bound"]),
    ))
}
