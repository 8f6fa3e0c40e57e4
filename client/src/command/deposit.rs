//! Sealing on this computer: a secret leaves it only sealed to the custodians of the charter.

use std::{fs::File, io::Read as _, path::PathBuf, str::FromStr};

use clap::Args;
use keyturn_proto::v1;
use keyturn_seal::{Holder, HolderToken, MAX_SECRET_BYTES, Roster, SecretBytes, seal};
use keyturn_vault::{
    charter::Charter,
    definition::{Connector, Definition, Format as DefinitionFormat, Kind},
    digest::Digest,
    id::{CredentialId, GroupName},
    jcs::Document as _,
    manifest::{Format, Manifest, SealedGroup},
    name::{CredentialPath, Line, Name, PolicyName},
    reference::{CharterRef, Version},
};
use serde_json::json;

use super::{Context, file_error, release::keep_receipt};
use crate::{
    causes::told,
    clock,
    home::read_file,
    refusal::Refusal,
    session::Session,
    token::random,
    verify::{VerifyError, log, sealed::binding, wire},
};

/// Where a new secret comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct Source {
    /// Read the secret from this file, byte for byte
    #[arg(long, value_name = "FILE", conflicts_with = "secret_fd")]
    secret_file: Option<PathBuf>,
    /// Read the secret from this file descriptor, byte for byte
    #[arg(long, value_name = "N")]
    secret_fd: Option<i32>,
}

/// Add a credential, with its first secret when one is given.
#[derive(Debug, Args)]
pub struct Add {
    /// Where people find it, like aws/123456789012/root
    path: CredentialPath,
    /// What it is: aws-root, aws-iam-password, aws-iam-access-key, totp-seed, postgres, ldap, mfa, text
    #[arg(long)]
    kind: Kind,
    /// The group whose quorum opens it
    #[arg(long)]
    group: GroupName,
    /// Another group that can open it when the first cannot be reached
    #[arg(long, value_name = "GROUP")]
    fallback_group: Option<GroupName>,
    /// The rules for it
    #[arg(long)]
    policy: PolicyName,
    /// The connector that rotates it
    #[arg(long, value_name = "NAME")]
    connector: Option<Name>,
    /// A setting of the connector; never secret
    #[arg(long, value_name = "KEY=VALUE", requires = "connector")]
    set: Vec<Pair>,
    /// Clear metadata: user name, account, sign-in address; never secret
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<Pair>,
    /// It is worthless, and there for drills
    #[arg(long)]
    canary: bool,
    #[command(flatten)]
    source: Source,
    /// Do not ask for a secret now
    #[arg(long, conflicts_with_all = ["secret_file", "secret_fd"])]
    no_secret: bool,
}

/// Seal a new secret and deposit it.
#[derive(Debug, Args)]
pub struct Deposit {
    /// The credential
    path: CredentialPath,
    #[command(flatten)]
    source: Source,
}

/// `KEY=VALUE`.
#[derive(Clone, Debug)]
pub struct Pair(Name, Line);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
        let name = key.parse().map_err(|error| format!("{key}: {error}"))?;
        let value = value
            .parse()
            .map_err(|error| format!("the value of {key}: {error}"))?;
        Ok(Self(name, value))
    }
}

fn pairs(pairs: Vec<Pair>) -> std::collections::BTreeMap<Name, Line> {
    pairs
        .into_iter()
        .map(|Pair(key, value)| (key, value))
        .collect()
}

impl Source {
    /// The secret: from the file or descriptor as it is, or asked for twice: a slip would be noticed on the worst night.
    pub(super) fn read(&self, context: &Context) -> Result<SecretBytes, Refusal> {
        let max = u64::try_from(MAX_SECRET_BYTES).unwrap_or(u64::MAX);
        let bytes = match (&self.secret_file, self.secret_fd) {
            (Some(path), _) => {
                let none = || {
                    Refusal::new(
                        "file",
                        format_args!("there is no file {}", path.display()),
                        "check the path",
                    )
                };
                read_file(path, max)?.ok_or_else(none)?
            }
            (None, Some(fd)) => {
                let path = PathBuf::from(format!("/dev/fd/{fd}"));
                let mut bytes = Vec::with_capacity(MAX_SECRET_BYTES.saturating_add(1));
                let read = File::open(&path)
                    .and_then(|file| file.take(max.saturating_add(1)).read_to_end(&mut bytes));
                read.map_err(|error| file_error(&path, &error))?;
                bytes
            }
            (None, None) => return Ok(context.person.new_secret("the secret", None, None)?),
        };
        if bytes.ends_with(b"\n") {
            context
                .ui
                .warn("the secret ends with a line feed, which is sealed too");
        }
        Ok(SecretBytes::from(bytes))
    }
}

impl Add {
    pub(super) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let definition = Definition {
            format: DefinitionFormat::V1,
            origin: session.vault.origin.clone(),
            credential: CredentialId::from_parts(clock::now(), random()?),
            path: self.path,
            kind: self.kind,
            group: self.group,
            fallback: self.fallback_group,
            policy: self.policy,
            connector: self.connector.map(|name| Connector {
                name,
                settings: pairs(self.set),
            }),
            canary: self.canary,
            metadata: pairs(self.meta),
            previous: None,
        };
        let refused = |error: &dyn std::error::Error| {
            Refusal::new("malformed", told(error), "see `keyturn charter show`")
        };
        definition
            .validate(session.charter()?.1)
            .map_err(|error| refused(&error))?;
        // Read before anything is added: a secret that cannot be read adds nothing.
        let secret = if self.no_secret {
            None
        } else {
            Some(self.source.read(&context)?)
        };
        let bytes = definition.to_bytes().map_err(|error| refused(&error))?;
        let (signer, signature) = context.sign_bytes(&session, &bytes)?;
        let document = wire::wire_document(bytes, signer, signature);
        let reply = session
            .credentials()
            .add(v1::AddRequest {
                definition: Some(document),
            })
            .await?
            .into_inner();
        let proven = log::receipt(reply.defined, &session.vkey()?)?;
        keep_receipt(
            &context.home,
            &format!("{}-defined", definition.credential),
            &proven,
        )?;
        let version = match secret {
            Some(secret) => Some(deposit(&mut context, &session, &definition.path, &secret).await?),
            None => None,
        };
        let document = json!({ "path": definition.path, "credential": definition.credential, "version": version });
        let path = &definition.path;
        Ok(context.ui.result(&document, || match version {
            Some(version) => format!(
                "{path} is added; v{version} is sealed to {}.",
                definition.group
            ),
            None if definition.is_automatic() => format!(
                "{path} is added; `keyturn credential adopt {path}` has the connector set a secret that no human knows, \
                 `keyturn credential deposit {path}` takes one that exists."
            ),
            None => format!(
                "{path} is added; deposit its secret with `keyturn credential deposit {path}`."
            ),
        })?)
    }
}

impl Deposit {
    pub(super) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let secret = self.source.read(&context)?;
        let version = deposit(&mut context, &session, &self.path, &secret).await?;
        let document = json!({ "path": self.path, "version": version });
        Ok(context.ui.result(&document, || {
            format!("{} v{version} is sealed and deposited.", self.path)
        })?)
    }
}

/// Seals a secret to the charter in force and deposits it; gives the version.
pub(super) async fn deposit(
    context: &mut Context,
    session: &Session,
    path: &CredentialPath,
    secret: &SecretBytes,
) -> Result<u64, Refusal> {
    let request = v1::ShowCredentialRequest {
        credential: wire::at_path(path),
        page: None,
        all_versions: true,
    };
    let reply = session.credentials().show(request).await?.into_inner();
    let document = wire::required(reply.definition, "the definition")?;
    let (definition, _) = session.definition(path, &document.document).await?;
    let version =
        Version::new(reply.next_version).ok_or(VerifyError::Missing("the next version"))?;
    let Draft {
        manifest: bytes,
        ciphertext,
        envelopes,
    } = seal_to(session.charter()?, &definition, version, secret)?;
    let (signer, signature) = context.sign_bytes(session, &bytes)?;
    let digest = Digest::of(&bytes);
    let request = v1::DepositRequest {
        manifest: Some(wire::wire_document(bytes, signer, signature)),
        ciphertext,
        envelopes,
    };
    let reply = session.credentials().deposit(request).await?.into_inner();
    let proven = log::receipt(reply.sealed, &session.vkey()?)?;
    let named = matches!(&proven.event, keyturn_vault::event::Event::VersionSealed { manifest, .. } if *manifest == digest);
    if !named {
        return Err(VerifyError::Other {
            what: "the entry in the log".to_owned(),
            by: "the deposit",
        }
        .into());
    }
    keep_receipt(
        &session.home,
        &format!("{}-{version}-sealed", definition.credential),
        &proven,
    )?;
    Ok(version.number())
}

/// A sealed secret whose manifest is not signed yet.
pub(crate) struct Draft {
    pub(crate) manifest: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) envelopes: Vec<v1::Envelope>,
}

/// Seals a secret to the custodians whom the charter names.
pub(crate) fn seal_to(
    (charter_ref, charter): (CharterRef, &Charter),
    definition: &Definition,
    version: Version,
    secret: &SecretBytes,
) -> Result<Draft, Refusal> {
    let odd = |error: &dyn std::error::Error| {
        Refusal::new(
            "internal",
            told(error),
            "report this; nothing was deposited",
        )
    };
    let definition_digest = Digest::of(&definition.to_bytes().map_err(|error| odd(&error))?);
    let mut manifest = Manifest {
        format: Format::V1,
        origin: charter.origin.clone(),
        definition: definition_digest,
        credential: definition.credential,
        version,
        kind: definition.kind,
        charter: charter_ref,
        ciphertext: Digest::of(b""),
        groups: Vec::new(),
    };
    let rosters = definition
        .groups()
        .map(|group| roster(charter, group))
        .collect::<Result<Vec<_>, _>>()?;
    let sealed = seal(secret, &binding(&manifest)?, &rosters);
    let sealed =
        sealed.map_err(|error| Refusal::new("malformed", told(&error), "nothing was deposited"))?;
    manifest.ciphertext = Digest(sealed.ciphertext_sha256);
    let mut envelopes = Vec::new();
    for group in sealed.groups {
        let holders = group
            .shares
            .iter()
            .map(holder)
            .collect::<Option<Vec<_>>>()
            .ok_or(VerifyError::Missing("an id"))?;
        let name = wire::parse(&group.group, "a group")?;
        manifest.groups.push(SealedGroup {
            group: name,
            k: group.k,
            n: group.n,
            holders,
        });
        envelopes.extend(group.shares.into_iter().map(|share| v1::Envelope {
            group: group.group.clone(),
            person: share.person,
            x: share.x.into(),
            envelope: share.envelope,
        }));
    }
    manifest
        .validate(definition, charter)
        .map_err(|error| odd(&error))?;
    let bytes = manifest.to_bytes().map_err(|error| odd(&error))?;
    Ok(Draft {
        manifest: bytes,
        ciphertext: sealed.ciphertext,
        envelopes,
    })
}

/// The members of a group with all their tokens, in the order of their ids.
fn roster(charter: &Charter, group: &GroupName) -> Result<Roster, Refusal> {
    let missing = || {
        Refusal::new(
            "no-such-group",
            format_args!("the charter has no group {group}"),
            "see `keyturn charter show`",
        )
    };
    let k = charter.group(group).ok_or_else(missing)?.k;
    let mut holders = Vec::new();
    for person in charter.holders(group) {
        let mut tokens = Vec::new();
        for token in &person.tokens {
            let key = token
                .share_key
                .as_str()
                .parse()
                .map_err(|_| VerifyError::Missing("a share key in the charter"))?;
            tokens.push(HolderToken {
                id: token.id.to_string(),
                key,
            });
        }
        holders.push(Holder {
            person: person.id.to_string(),
            tokens,
        });
    }
    Roster::new(group.as_str(), k, holders)
        .map_err(|error| Refusal::new("malformed", told(&error), "correct the charter"))
}

fn holder(share: &keyturn_seal::SealedShare) -> Option<keyturn_vault::manifest::Holder> {
    Some(keyturn_vault::manifest::Holder {
        person: share.person.parse().ok()?,
        x: share.x,
        tokens: share
            .tokens
            .iter()
            .map(|token| token.parse().ok())
            .collect::<Option<_>>()?,
        commitment: Digest(share.commitment),
        envelope: Digest(share.envelope_sha256),
    })
}
