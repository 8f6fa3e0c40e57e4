//! A connected home: the way to the vault, the charters and the head of the log, all verified.
//!
//! # Invariants
//! 1. After [`Session::open`] the newest charter was verified from the pinned first one, with the makers'
//!    attestations of its tokens, and the newest checkpoint continues the one that this computer saw last; otherwise there is no session.
//! 2. A log that lost entries, and new keys of log and nodes, are followed over restores that a quorum has
//!    accepted, and over nothing else.

mod kept;

use keyturn_audit::note::{SignedCheckpoint, Vkey};
use keyturn_hsm::device::DeviceKey;
use keyturn_proto::{
    MAX_MESSAGE,
    v1::{
        self, audit_client::AuditClient, ceremony_client::CeremonyClient,
        charter_client::CharterClient, credential_client::CredentialClient,
        rotation_client::RotationClient, status_client::StatusClient,
    },
};
use keyturn_vault::{
    charter::{Chain, Charter, Person},
    check::Check,
    definition::Definition,
    digest::Digest,
    jcs::Document as _,
    name::CredentialPath,
    reference::{CharterRef, Head},
    restore::RestoreDocument,
    text::CredentialLine,
};
use tonic::transport::Channel;

pub use self::kept::{Told, kept_chain};
use self::kept::{in_restore_mode, kept};
use crate::{
    connect::{Link, Route, connect},
    home::{Home, HomeError, Profile, Vault},
    refusal::Refusal,
    ui::Ui,
    verify::{
        self, VerifyError,
        definition::Lineage,
        log::{self, Proven},
        restore::Record,
        sealed::Sealed,
        wire,
    },
};

/// The file with the key of this computer.
pub const DEVICE_FILE: &str = "device.pem";

/// A connected home.
pub struct Session {
    /// The home.
    pub home: Home,
    /// Who uses it.
    pub profile: Profile,
    /// The vault.
    pub vault: Vault,
    /// The key of this computer.
    pub device: DeviceKey,
    /// The charters.
    pub chain: Chain,
    /// The newest checkpoint; none before the vault is founded.
    pub head: Option<SignedCheckpoint>,
    /// The head that signed texts name while the vault waits for its restore to be accepted.
    said: Option<Head>,
    /// Accepted restores that the chain has.
    restores: Vec<RestoreDocument>,
    /// The last of them, which the home does not keep yet.
    fresh: Vec<Record>,
    link: Link,
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident $client:ident)*) => {
        impl Session {
            $($(#[$doc])* pub fn $name(&self) -> $client<Channel> {
                $client::new(self.link.channel()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
            })*
        }
    };
}

clients! {
    /// Ceremonies.
    ceremonies CeremonyClient
    /// Credentials.
    credentials CredentialClient
    /// Charters.
    charters CharterClient
    /// Rotations.
    rotations RotationClient
    /// The log.
    log AuditClient
    /// What waits.
    status StatusClient
}

impl Session {
    /// Connects and brings charter and log up to date (invariant 1).
    pub async fn open(home: &Home, ui: Ui) -> Result<Self, Refusal> {
        let mut session = Self::connect(home, ui).await?;
        session.follow().await?;
        Ok(session)
    }

    /// Brings charter and log up to date (invariant 1).
    pub async fn follow(&mut self) -> Result<(), Refusal> {
        self.follow_charter().await?;
        if let Err(refusal) = self.follow_log().await {
            // A vault in restore mode publishes nothing: its log is not continued until it is accepted.
            let status = self.status().show(v1::ShowStatusRequest {}).await;
            let waits = status.is_ok_and(|status| status.into_inner().restore_mode);
            return Err(if waits { in_restore_mode() } else { refusal });
        }
        self.keep_restores()
    }

    /// Connects, and believes what is in the home.
    pub async fn connect(home: &Home, ui: Ui) -> Result<Self, Refusal> {
        Self::connect_to(home, ui, Told::default()).await
    }

    /// The same, to a server that may also be the one of which an operator tells on another way.
    pub async fn connect_to(home: &Home, ui: Ui, server: Told<'_>) -> Result<Self, Refusal> {
        let profile = home.profile()?;
        let mut vault = profile.vault.clone().ok_or(HomeError::NoVault)?;
        server.comes_first(&mut vault);
        let (chain, restores) = kept(home, &vault)?;
        let device = DeviceKey::load(&home.path(DEVICE_FILE))?;
        let mut route = route(&vault)?;
        route.pins.extend(server.pin);
        let link = connect(&route, &device).await?;
        if let Some(complaint) = link.server().and_then(|server| server.complaint) {
            ui.warn(format_args!("the vault's server: {complaint}"));
        }
        Ok(Self {
            home: home.clone(),
            profile,
            vault,
            device,
            chain,
            head: None,
            said: None,
            restores,
            fresh: Vec::new(),
            link,
        })
    }

    /// The newest charter.
    pub fn charter(&self) -> Result<(CharterRef, &Charter), Refusal> {
        Ok(self
            .chain
            .newest()
            .ok_or(VerifyError::Missing("the first charter"))?)
    }

    /// The person of this home, as the newest charter has them.
    pub fn me(&self) -> Result<&Person, Refusal> {
        let (reference, charter) = self.charter()?;
        charter.person(self.profile.person).ok_or_else(|| {
            let message = format!(
                "charter {} does not have you ({})",
                reference.index,
                self.profile.reference()
            );
            Refusal::new(
                "denied",
                message,
                "ask an operator to propose a charter with you in it",
            )
        })
    }

    /// The key of the log.
    pub fn vkey(&self) -> Result<Vkey, Refusal> {
        Ok(log::vkey(&self.charter()?.1.log_key)?)
    }

    /// The head of the log as signed texts name it.
    pub fn log_head(&self) -> Result<Head, Refusal> {
        let head = self.head.as_ref().map(log::head);
        self.said.or(head).ok_or_else(not_founded)
    }

    /// Who is at the other end.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Whether the charter has the key of this computer. A computer that a token signed in (`join --device`) may speak
    /// to the vault and signs nothing.
    pub fn is_in_charter(&self) -> Result<bool, Refusal> {
        let named = self.charter()?.1.person_of_device(self.profile.device);
        Ok(named.is_some_and(|(person, device)| {
            person.id == self.profile.person && device.key.as_der() == self.device.public().spki()
        }))
    }

    /// Fetches and verifies the charters after the newest known one.
    pub async fn follow_charter(&mut self) -> Result<(), Refusal> {
        // Later charters are looked at before they are kept; the first one came with the welcome file.
        if self.charter()?.0.index == 1 {
            self.attested(1).await?;
        }
        let mut after = String::new();
        loop {
            let known = self.charter()?.0;
            let request = v1::ShowCharterRequest {
                verified: known.index,
                until: 0,
                alone: false,
                page: wire::next_page(after),
            };
            let reply = self.charters().show(request).await?.into_inner();
            if reply.in_force == 0 {
                return Err(not_founded());
            }
            if reply.in_force < known.index {
                return Err(VerifyError::OldCharter {
                    now: reply.in_force,
                    before: known.index,
                }
                .into());
            }
            self.follow_restores(&reply.restores)?;
            for record in reply.charters {
                let index = record.index;
                if index > self.charter()?.0.index {
                    let bytes = verify::charter::follow(&mut self.chain, record)?;
                    self.attested(index).await?;
                    self.home.keep_charter(index, &bytes)?;
                    self.follow_restores(&reply.restores)?;
                }
            }
            after = reply.next_page;
            if after.is_empty() {
                let newest = self.charter()?.0;
                let said = CharterRef {
                    index: reply.in_force,
                    digest: wire::digest(&reply.in_force_sha256, "the digest of the charter")?,
                };
                return if newest == said {
                    Ok(())
                } else {
                    Err(VerifyError::Other {
                        what: "the charter in force".to_owned(),
                        by: "the daemon",
                    }
                    .into())
                };
            }
        }
    }

    /// Asks the makers of the tokens that this charter brings (invariant 1).
    pub async fn attested(&self, index: u64) -> Result<(), Refusal> {
        let of = |index| self.chain.at(index).map(|(_, charter)| charter);
        let (Some(new), old) = (of(index), of(index.saturating_sub(1))) else {
            return Ok(());
        };
        let checks = Check::attestations(new, old);
        if checks.is_empty() {
            return Ok(());
        }
        let anchors = self.home.anchors()?;
        for check in checks {
            if let Check::Attestation { token } = check
                && let Some(said) = &token.attestation
            {
                let object = self.attestation(said.object).await?;
                verify::attested::check(&anchors, &token, &object)?;
            }
        }
        Ok(())
    }

    /// An attestation, from the home where it was fetched before.
    async fn attestation(&self, digest: Digest) -> Result<Vec<u8>, Refusal> {
        let name = format!("attestation/{digest}");
        let kept = self.home.read(&name)?;
        if let Some(kept) = kept.filter(|kept| Digest::of(kept) == digest) {
            return Ok(kept);
        }
        let object = self.object(digest).await?;
        self.home.write(&name, &object)?;
        Ok(object)
    }

    /// Fetches the newest checkpoint, which must continue the one that is kept.
    async fn follow_log(&mut self) -> Result<(), Refusal> {
        let log = self.vkey()?;
        let reply = self
            .log()
            .checkpoint(v1::CheckpointRequest {})
            .await?
            .into_inner();
        let new = log::checkpoint(&reply.checkpoint, &log)?;
        let kept = self.home.checkpoint()?;
        if let Some(mut old) = self.kept_head()? {
            // What a quorum has accepted as lost is not asked for; what it went on from is.
            let kept = self.restores.len().saturating_sub(self.fresh.len());
            for document in self.restores.iter().skip(kept) {
                if old.size > document.head.size {
                    old = document.head;
                }
            }
            self.leads(old, &new).await?;
        }
        self.home.keep_checkpoint(kept.as_deref(), &new)?;
        self.head = Some(new);
        Ok(())
    }

    /// Checks that `new` continues `old`, asking for the proof where one is needed.
    pub async fn continues(
        &self,
        old: &SignedCheckpoint,
        new: &SignedCheckpoint,
    ) -> Result<(), Refusal> {
        self.leads(log::head(old), new).await
    }

    /// Checks that an entry is in the log that this computer knows.
    pub async fn covers(&self, proven: &Proven) -> Result<(), Refusal> {
        let Some(head) = &self.head else {
            return Ok(());
        };
        if proven.checkpoint.size() <= head.size() {
            self.continues(&proven.checkpoint, head).await
        } else {
            self.continues(head, &proven.checkpoint).await
        }
    }

    /// A document by its digest.
    pub async fn object(&self, digest: Digest) -> Result<Vec<u8>, Refusal> {
        let request = v1::ObjectRequest {
            sha256: digest.0.to_vec(),
        };
        let object = self.log().object(request).await?.into_inner().object;
        if Digest::of(&object) == digest {
            Ok(object)
        } else {
            Err(VerifyError::Other {
                what: "a document".to_owned(),
                by: "its digest",
            }
            .into())
        }
    }

    /// Verifies what the daemon says is the definition in force at a path: back to its first one, or to the
    /// newest that this computer has verified.
    pub async fn definition(
        &self,
        path: &CredentialPath,
        newest: &[u8],
    ) -> Result<(Definition, Lineage), Refusal> {
        let new = Definition::from_bytes(newest)
            .map_err(|source| VerifyError::Document("a definition", source))?;
        let digest = Digest::of(newest);
        let other = || VerifyError::Other {
            what: format!("the definition of {path}"),
            by: "its path",
        };
        if new.path != *path || new.origin != self.vault.origin {
            return Err(other().into());
        }
        let name = format!("definitions/{}", Digest::of(path.as_str().as_bytes()));
        let mut lineage = self.home.read_json(&name)?.unwrap_or_else(|| Lineage {
            path: path.clone(),
            credential: new.credential,
            definitions: Vec::new(),
        });
        if lineage.knows(&new, digest)? {
            return Ok((new, lineage));
        }
        let log = self.vkey()?;
        let mut last = match lineage.definitions.last() {
            Some(last) => Some(
                Definition::from_bytes(&self.object(*last).await?)
                    .map_err(|source| VerifyError::Document("a definition", source))?,
            ),
            None => None,
        };
        while lineage.definitions.last() != Some(&digest) {
            let request = v1::DefinitionsRequest {
                credential: wire::at_path(path),
                page: wire::next_page(lineage.definitions.len().to_string()),
            };
            let reply = self.credentials().definitions(request).await?.into_inner();
            if reply.records.is_empty() {
                return Err(VerifyError::Missing("what put a definition into force").into());
            }
            for record in reply.records {
                let named = Digest::of(&record.definition);
                let (next, proven) =
                    verify::definition::follow(&self.chain, &log, last.as_ref(), &record)?;
                if next.path != *path || next.credential != lineage.credential {
                    return Err(other().into());
                }
                self.covers(&proven).await?;
                lineage.definitions.push(named);
                last = Some(next);
            }
        }
        self.home.write_json(&name, &lineage)?;
        Ok((new, lineage))
    }

    /// Verifies a sealed version that a request names.
    pub async fn sealed(
        &self,
        line: &CredentialLine,
        version: v1::SealedVersion,
    ) -> Result<Sealed, Refusal> {
        let manifest = verify::sealed::manifest(&self.chain, line, &version)?;
        let newest = version
            .definition
            .as_ref()
            .map(|document| document.document.clone())
            .unwrap_or_default();
        let (in_force, lineage) = self.definition(&line.path, &newest).await?;
        if !lineage.definitions.contains(&manifest.definition) {
            return Err(VerifyError::Other {
                what: format!("the definition of {} {}", line.path, line.version),
                by: "its manifest",
            }
            .into());
        }
        let definition = if Digest::of(&newest) == manifest.definition {
            newest
        } else {
            self.object(manifest.definition).await?
        };
        let sealed = verify::sealed::check(
            &self.chain,
            &self.vkey()?,
            line,
            manifest,
            (&definition, in_force),
            version,
        )?;
        self.covers(&sealed.proven).await?;
        Ok(sealed)
    }
}

fn not_founded() -> Refusal {
    keyturn_vault::refusal::Refusal::NotFounded.into()
}

/// The way to the vault of a profile.
pub fn route(vault: &Vault) -> Result<Route, Refusal> {
    let addresses = vault.endpoints.iter().map(|endpoint| endpoint.parse());
    let addresses =
        addresses
            .collect::<Result<_, _>>()
            .map_err(|error: crate::connect::AddressError| {
                Refusal::new("malformed", error, "correct `endpoints` in profile.json")
            })?;
    Ok(Route {
        addresses,
        pins: vault.server_pins.clone(),
    })
}
