//! What `./dev demo --keep` leaves: files with which anybody checks the story without keyturn.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_audit::{
    entry::Entry,
    publish::Dir,
    verify::{self, Anchors},
};
use keyturn_vault::{
    check,
    event::Event,
    key::PublicKey,
    text::{Approval, Request, SignedText, Text as _},
};

use crate::{
    harness::{Outcome, PASSPHRASE, World, write_private},
    raw::Facts,
};

/// Writes one signed text as three files that `openssl dgst` takes.
fn statement(folder: &Path, signed: &SignedText, key: &PublicKey) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    write_private(&folder.join("statement.txt"), signed.text.as_bytes())?;
    write_private(&folder.join("signature.der"), &signed.signature)?;
    write_private(&folder.join("key.pem"), pem(key.as_der()).as_bytes())?;
    Ok(())
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END PUBLIC KEY-----\n"
}

/// The signed requests and statements of a log, each with the key that the charter has for its signer.
pub fn statements(facts: &Facts, log: &Path, to: &Path) -> Outcome<usize> {
    let mut kept = 0_usize;
    for entry in entries(facts, log)? {
        let event = Event::parse(&entry.kind, &entry.body)?;
        let (folder, signed) = if let Event::CeremonyOpened {
            ceremony, request, ..
        } = &event
        {
            let who = Request::parse(&request.text)?.requested_by.name;
            (format!("requests/{ceremony}-{who}"), request)
        } else if let Event::CeremonyApproved {
            ceremony, approval, ..
        } = &event
        {
            let who = Approval::parse(&approval.text)?.custodian.name;
            (format!("approvals/{ceremony}-{who}"), approval)
        } else {
            continue;
        };
        let key = check::key(&facts.charter, signed.signer).ok_or("the charter has no such key")?;
        statement(&to.join(folder), signed, &key)?;
        kept = kept.saturating_add(1);
    }
    Ok(kept)
}

/// The entries of a published log, verified.
pub fn entries(facts: &Facts, log: &Path) -> Outcome<Vec<Entry>> {
    let anchors = Anchors {
        log: &facts.vkey,
        saved: &[],
        threads: 1,
    };
    let mut entries = Vec::new();
    verify::entries(&Dir::new(log), &anchors, |entry| {
        entries.push(entry);
        Ok::<(), Infallible>(())
    })?;
    Ok(entries)
}

/// The people's key files with the passphrase in a note, and the receipts of the requester.
pub fn people(world: &World, custodians: &[&str], requester: &str, to: &Path) -> Outcome<()> {
    let keys = to.join("keys");
    fs::create_dir_all(&keys)?;
    for name in custodians {
        fs::copy(
            world.home(name).join("token.key"),
            keys.join(format!("{name}.key")),
        )?;
    }
    let note = format!("Every key file here has this passphrase:\n{PASSPHRASE}\n");
    write_private(&keys.join("PASSPHRASES.txt"), note.as_bytes())?;
    let receipts = to.join("receipts");
    fs::create_dir_all(&receipts)?;
    for file in fs::read_dir(world.home(requester).join("receipts"))? {
        let file = file?;
        fs::copy(file.path(), receipts.join(file.file_name()))?;
    }
    Ok(())
}

/// The receipts that were kept.
pub fn receipts(kept: &Path) -> Outcome<Vec<String>> {
    let files = fs::read_dir(kept.join("receipts"))?;
    let files = files.map(|file| Ok(file?.path().display().to_string()));
    let mut receipts = files.collect::<Outcome<Vec<_>>>()?;
    receipts.retain(|path| path.ends_with(".tlog-proof"));
    receipts.sort();
    Ok(receipts)
}

/// The folder that `--keep` names: made, or there and empty.
pub fn folder(path: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if fs::read_dir(path)?.next().is_some() {
        return Err(format!(
            "{} is not empty; --keep takes a folder that is empty or not there yet",
            path.display()
        )
        .into());
    }
    Ok(fs::canonicalize(path)?)
}
