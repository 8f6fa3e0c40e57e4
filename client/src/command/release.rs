//! What a ceremony delivers: proven, decrypted, handed on.
//!
//! # Invariants
//! 1. Nothing is handed on whose release is not proven to be in the log, after its authorization.
//! 2. Of a seed of one-time codes the codes are handed on, and the seed itself only where it is asked for.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyturn_proto::v1;
use keyturn_seal::{Release, Released, SecretBytes, ShareIdentity};
use keyturn_vault::{
    definition::Kind,
    digest::Digest,
    event::Event,
    id::{CeremonyId, CredentialId},
    text::{CredentialLine, Request},
};
use serde_json::{Value, json};

pub use self::kept::{Kept, forget, keep, kept, share_keys};
use super::{
    Context,
    codes::{self, Watched},
    show,
    sink::{self, Sink},
};
use crate::{
    causes::told,
    clock,
    home::{Home, write_file},
    refusal::Refusal,
    session::Session,
    totp::{Codes, Totp},
    ui::{clean, clip},
    verify::{
        VerifyError,
        log::{self, Proven},
    },
};

/// What was delivered.
pub struct Delivered {
    ceremony: CeremonyId,
    secrets: Vec<Named>,
    problems: Vec<String>,
    ends_ms: u64,
    receipts: Vec<PathBuf>,
}

struct Named {
    path: String,
    current: bool,
    /// Whether it is a seed, of which people get the codes.
    seed: bool,
    released: Released,
}

/// Proves and decrypts a release.
pub fn open(
    session: &Session,
    request: &Request,
    (current, seeds): (&BTreeMap<CredentialId, u64>, &BTreeSet<CredentialId>),
    key: &ShareIdentity,
    release: v1::Release,
) -> Result<Delivered, Refusal> {
    let ceremony = request.ceremony;
    let log = session.vkey()?;
    let authorized = log::receipt(release.authorized, &log)?;
    let released = log::receipt(release.released, &log)?;
    let digest = Digest::of(&release.ciphertext);
    let first = matches!(&authorized.event, Event::UnsealAuthorized { ceremony: named, .. } if *named == ceremony);
    let second = matches!(&released.event, Event::UnsealReleased { ceremony: named, ciphertext: Some(named_digest), .. } if *named == ceremony && *named_digest == digest);
    if !first || !second || authorized.n >= released.n {
        return Err(VerifyError::Other {
            what: "the release".to_owned(),
            by: "the log",
        }
        .into());
    }
    let receipts = vec![
        keep_receipt(
            &session.home,
            &format!("{ceremony}-authorized"),
            &authorized,
        )?,
        keep_receipt(&session.home, &format!("{ceremony}-released"), &released)?,
    ];
    let opened = Release::open(
        &release.ciphertext,
        key,
        request.vault.as_str(),
        &ceremony.to_string(),
    );
    let opened = opened.map_err(|error| {
        Refusal::new(
            "verification",
            told(&error),
            "fetch it where the request was made, with `keyturn unseal --resume`",
        )
    })?;
    let mut secrets = Vec::with_capacity(opened.secrets.len());
    for released in opened.secrets {
        let same = |line: &&CredentialLine| {
            line.credential.to_string() == released.credential
                && line.version.number() == released.version
        };
        let line = request.credentials.iter().find(same);
        let line = line.ok_or_else(|| VerifyError::Other {
            what: "a secret of the release".to_owned(),
            by: "the request",
        })?;
        let current = current.get(&line.credential) == Some(&released.version);
        let seed = seeds.contains(&line.credential)
            || released.secret.expose().starts_with(b"otpauth://totp/");
        secrets.push(Named {
            path: line.path.to_string(),
            current,
            seed,
            released,
        });
    }
    let problems = release
        .versions
        .iter()
        .filter(|version| !version.delivered)
        .map(|version| {
            let line = request
                .credentials
                .iter()
                .find(|line| line.credential.to_string() == version.credential);
            let path = line.map(|line| line.path.to_string()).unwrap_or_default();
            format!(
                "{path} v{} was not delivered: {}",
                version.version,
                clean(&version.problem)
            )
        });
    Ok(Delivered {
        ceremony,
        secrets,
        problems: problems.collect(),
        ends_ms: release.checkout_ends_ms,
        receipts,
    })
}

/// Keeps an entry with its proof; gives the path of the proof.
pub fn keep_receipt(home: &Home, name: &str, proven: &Proven) -> Result<PathBuf, Refusal> {
    home.write(&format!("receipts/{name}.entry.json"), &proven.bytes)?;
    let proof = format!("receipts/{name}.tlog-proof");
    home.write(&proof, proven.receipt.as_bytes())?;
    Ok(home.path(&proof))
}

impl Delivered {
    /// What was opened without the vault.
    pub fn recovered(
        ceremony: CeremonyId,
        line: &CredentialLine,
        (kind, secret): (Kind, SecretBytes),
    ) -> Self {
        let released = Released {
            credential: line.credential.to_string(),
            version: line.version.number(),
            secret,
        };
        let secrets = vec![Named {
            path: line.path.to_string(),
            current: true,
            seed: is_seed(kind),
            released,
        }];
        Self {
            ceremony,
            secrets,
            problems: Vec::new(),
            ends_ms: 0,
            receipts: Vec::new(),
        }
    }

    /// The secrets that were current when they were asked for, with their paths and versions.
    pub fn current(self) -> Vec<(String, u64, SecretBytes)> {
        let current = self.secrets.into_iter().filter(|secret| secret.current);
        current
            .map(|secret| (secret.path, secret.released.version, secret.released.secret))
            .collect()
    }

    /// Hands the secrets on. Where that fails nothing is lost, and who stands there is told so.
    pub async fn hand_on(self, context: &Context, sink: Sink) -> Result<(), Refusal> {
        let hint = if self.ends_ms > 0 {
            format!(
                "nothing is lost: `keyturn unseal --resume {}` gives it again",
                self.ceremony
            )
        } else {
            "nothing is lost: run it again".to_owned()
        };
        let given = self.give(context, sink).await;
        given.map_err(|refusal| match refusal.code.as_str() {
            "file" if refusal.is_unread() => {
                Refusal::new("file", "nobody reads standard output any more", hint)
            }
            "file" => Refusal { hint, ..refusal },
            _ => refusal,
        })
    }

    async fn give(self, context: &Context, sink: Sink) -> Result<(), Refusal> {
        for problem in &self.problems {
            context.ui.warn(problem);
        }
        if self.ends_ms > 0 {
            context.ui.note(format_args!(
                "checked out until {}; return it with: keyturn checkin {}",
                show::time(self.ends_ms),
                self.ceremony
            ));
        }
        if sink.raw {
            let secret = self.only()?;
            // Exposed to the person who asked for it.
            return Ok(context.ui.raw(secret.released.secret.expose())?);
        }
        if sink.clip {
            // Exposed to the clipboard of the person who asked for it.
            clip::put(&mut clip::terminal()?, self.whole()?.expose())?;
            context.ui.note(
                "sent to your terminal's clipboard, where it stays until you copy something else; a terminal that does not know OSC 52 ignores it",
            );
            return self.told(context);
        }
        if let Some(path) = sink.output {
            write_file(&path, self.whole()?.expose())?;
            context
                .ui
                .note(format_args!("written to {}", path.display()));
            return self.told(context);
        }
        if let Some(command) = sink.exec {
            sink::run(&command, &self.whole()?)?;
            return self.told(context);
        }
        let several = self.secrets.len() > 1;
        let watched: Vec<Watched> = if context.ui.screen() {
            self.secrets
                .iter()
                .filter_map(|secret| secret.watched(several))
                .collect()
        } else {
            Vec::new()
        };
        let printed = |secret: &&Named| watched.is_empty() || secret.watched(several).is_none();
        let text = || {
            let lines = self.secrets.iter().filter(printed);
            lines.map(|secret| secret.line(several)).collect::<String>()
        };
        context.ui.result(&self.document(true), text)?;
        if !context.ui.json() && self.secrets.iter().any(Named::is_drawn) {
            context.ui.note("characters that a terminal obeys are shown as \\u{…}; --raw gives the secret as it is");
        }
        if !watched.is_empty() {
            codes::watch(context, &watched, self.ends_ms).await;
        }
        Ok(())
    }

    fn told(&self, context: &Context) -> Result<(), Refusal> {
        if context.ui.json() {
            Ok(context.ui.result(&self.document(false), String::new)?)
        } else {
            Ok(())
        }
    }

    /// The one secret that is meant: the current one of one credential.
    fn only(&self) -> Result<&Named, Refusal> {
        let mut current = self.secrets.iter().filter(|secret| secret.current);
        match (self.secrets.as_slice(), current.next(), current.next()) {
            ([one], _, _) | (_, Some(one), None)
                if self.secrets.iter().all(|secret| secret.path == one.path) =>
            {
                Ok(one)
            }
            _ => Err(Refusal::new(
                "too-much",
                "there are several secrets; one alone cannot be chosen",
                format_args!(
                    "print them with `keyturn unseal --resume {} --json`",
                    self.ceremony
                ),
            )),
        }
    }

    /// What a file or a command gets: the one secret as it is, or all of them as JSON.
    fn whole(&self) -> Result<SecretBytes, Refusal> {
        match self.only() {
            Ok(one) if one.seed => Ok(SecretBytes::from(one.codes()?.code.into_bytes())),
            Ok(one) => Ok(SecretBytes::from_slice(one.released.secret.expose())),
            Err(_) => Ok(SecretBytes::from(
                serde_json::to_vec(&self.document(true)).map_err(std::io::Error::from)?,
            )),
        }
    }

    fn document(&self, with_secrets: bool) -> Value {
        let secrets = self.secrets.iter().map(|secret| {
            let mut document = json!({
                "path": secret.path, "credential": secret.released.credential,
                "version": secret.released.version, "current": secret.current,
            });
            let codes = secret.codes().ok().filter(|_| secret.seed && with_secrets);
            if let (Some(codes), Some(fields)) = (codes, document.as_object_mut()) {
                fields.insert("code".to_owned(), Value::from(codes.code));
                fields.insert("next_code".to_owned(), Value::from(codes.next));
                fields.insert("valid_for_secs".to_owned(), Value::from(codes.left_secs));
            } else if with_secrets
                && !secret.seed
                && let Some(fields) = document.as_object_mut()
            {
                // Exposed to the person who asked for it.
                let bytes = secret.released.secret.expose();
                match std::str::from_utf8(bytes) {
                    Ok(text) => fields.insert("secret".to_owned(), Value::from(text)),
                    Err(_) => fields.insert(
                        "secret_base64".to_owned(),
                        Value::from(BASE64_STANDARD.encode(bytes)),
                    ),
                };
            }
            document
        });
        json!({
            "ceremony": self.ceremony,
            "secrets": secrets.collect::<Vec<_>>(),
            "problems": self.problems,
            "checkout_ends_ms": self.ends_ms,
            "receipts": self.receipts,
        })
    }
}

/// Whether people get the codes of such a secret.
pub fn is_seed(kind: Kind) -> bool {
    matches!(kind, Kind::TotpSeed | Kind::Mfa)
}

impl Named {
    /// The seed that codes are made of; none where it is not one.
    fn totp(&self) -> Option<Totp> {
        // Exposed to make what the person asked for of it.
        Totp::parse(self.released.secret.expose()).filter(|_| self.seed)
    }

    /// As it is shown on a terminal, where it is a seed.
    fn watched(&self, several: bool) -> Option<Watched> {
        let seed = self.totp()?;
        let name = if several { self.title() } else { String::new() };
        Some(Watched { name, seed })
    }

    /// Path and version, where there are several.
    fn title(&self) -> String {
        let mark = if self.current { "" } else { " (not current)" };
        format!("{} v{}{mark}: ", self.path, self.released.version)
    }

    /// The codes of now.
    fn codes(&self) -> Result<Codes, Refusal> {
        let secs = clock::now().ms().checked_div(1000).unwrap_or_default();
        self.totp().and_then(|seed| seed.at(secs)).ok_or_else(|| {
            Refusal::new(
                "malformed",
                format_args!("{} is not a seed that codes can be made of", self.path),
                "get it as it is with `keyturn unseal --resume … --raw`",
            )
        })
    }

    /// Whether it is shown otherwise than it is.
    fn is_drawn(&self) -> bool {
        // Exposed to be looked at here.
        let text = std::str::from_utf8(self.released.secret.expose());
        !self.seed && text.is_ok_and(|text| clean(text) != text)
    }

    /// The secret alone, or behind its path where there are several.
    fn line(&self, several: bool) -> String {
        // Exposed to the person who asked for it.
        let bytes = self.released.secret.expose();
        let text = match std::str::from_utf8(bytes) {
            Ok(_) if self.seed => match self.codes() {
                Ok(codes) => codes.to_string(),
                Err(refusal) => format!("({})", refusal.message),
            },
            Ok(text) => clean(text),
            Err(_) => format!("base64:{}", BASE64_STANDARD.encode(bytes)),
        };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let title = if several { self.title() } else { String::new() };
        format!("{title}{text}{end}")
    }
}
