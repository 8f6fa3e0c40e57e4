//! Calls of a whole ceremony, made one by one: sealing, asking, approving, receiving.

use std::collections::BTreeMap;

use keyturn_audit::proof::Receipt;
use keyturn_proto::v1::{self, watch_reply::What};
use keyturn_seal::{
    Binding, Holder as SealHolder, HolderToken, Release, Roster, SecretBytes, ShareIdentity,
    ShareKey, Sharing, Submission, SubmittedShare, ValidShare, seal,
};
use keyturn_vault::{
    definition::{Definition, Format, Kind},
    digest::{Digest, Salt},
    id::{CeremonyId, CredentialId},
    jcs::Document as _,
    manifest::{self, Holder, Manifest, SealedGroup},
    reference::Version,
    text::{
        Approval, Checkin, CredentialLine, Decision, Details, Purpose, Request, Returned,
        ShareLine, ShareState, SignedText, SubmitKey, Text as _,
    },
    time::Span,
};

use crate::{
    harness::Outcome,
    raw::{Facts, Founded, Line, Member, now, random, wire_text},
};

/// A definition of a text at this path, for group `ops` and policy `default`.
pub fn definition(facts: &Facts, path: &str) -> Outcome<Definition> {
    Ok(Definition {
        format: Format::V1,
        origin: facts.charter.origin.clone(),
        credential: CredentialId::from_parts(now(), random()?),
        path: path.parse()?,
        kind: Kind::Text,
        group: "ops".parse()?,
        fallback: None,
        policy: "default".parse()?,
        connector: None,
        canary: false,
        metadata: BTreeMap::new(),
        previous: None,
    })
}

/// The members of a definition's group as they are sealed to.
fn roster(facts: &Facts, definition: &Definition) -> Outcome<Roster> {
    let group = facts
        .charter
        .group(&definition.group)
        .ok_or("no such group")?;
    let mut holders = Vec::new();
    for id in &group.members {
        let person = facts.charter.person(*id).ok_or("no such person")?;
        let tokens = person.tokens.iter().map(|token| {
            let key = token.share_key.as_str().parse()?;
            let id = token.id.to_string();
            Ok(HolderToken { id, key })
        });
        holders.push(SealHolder {
            person: id.to_string(),
            tokens: tokens.collect::<Outcome<_>>()?,
        });
    }
    Ok(Roster::new(group.name.as_str(), group.k, holders)?)
}

/// A secret sealed as a version, with its manifest.
pub struct SealedVersion {
    /// The manifest.
    pub manifest: Manifest,
    /// The age file with the secret.
    pub ciphertext: Vec<u8>,
    /// The envelopes.
    pub envelopes: Vec<v1::Envelope>,
}

impl SealedVersion {
    /// Seals a secret.
    pub fn new(
        facts: &Facts,
        definition: &Definition,
        number: u64,
        secret: &[u8],
    ) -> Outcome<Self> {
        let credential = definition.credential.to_string();
        let binding = Binding::new(definition.origin.as_str(), &credential, number)?;
        let secret = SecretBytes::from_slice(secret);
        let sealed = seal(&secret, &binding, &[roster(facts, definition)?])?;
        let (mut groups, mut envelopes) = (Vec::new(), Vec::new());
        for group in sealed.groups {
            let mut holders = Vec::new();
            for share in group.shares {
                let tokens = share.tokens.iter().map(|id| id.parse());
                holders.push(Holder {
                    person: share.person.parse()?,
                    x: share.x,
                    tokens: tokens.collect::<Result<_, _>>()?,
                    commitment: Digest(share.commitment),
                    envelope: Digest(share.envelope_sha256),
                });
                envelopes.push(v1::Envelope {
                    group: group.group.clone(),
                    person: share.person,
                    x: share.x.into(),
                    envelope: share.envelope,
                });
            }
            groups.push(SealedGroup {
                group: group.group.parse()?,
                k: group.k,
                n: group.n,
                holders,
            });
        }
        let manifest = Manifest {
            format: manifest::Format::V1,
            origin: definition.origin.clone(),
            definition: Digest::of(&definition.to_bytes()?),
            credential: definition.credential,
            version: Version::new(number).ok_or("no version 0")?,
            kind: definition.kind,
            charter: facts.reference,
            ciphertext: Digest(sealed.ciphertext_sha256),
            groups,
        };
        Ok(Self {
            manifest,
            ciphertext: sealed.ciphertext,
            envelopes,
        })
    }

    /// The call that deposits it, signed by this person.
    pub fn deposit(&self, by: &Member) -> Outcome<v1::DepositRequest> {
        Ok(v1::DepositRequest {
            manifest: Some(by.sign_document(self.manifest.to_bytes()?)?),
            ciphertext: self.ciphertext.clone(),
            envelopes: self.envelopes.clone(),
        })
    }

    /// How a request names it.
    pub fn line(&self, definition: &Definition) -> Outcome<CredentialLine> {
        Ok(CredentialLine {
            path: definition.path.clone(),
            credential: definition.credential,
            version: self.manifest.version,
            manifest: Digest::of(&self.manifest.to_bytes()?),
        })
    }
}

/// A request, with what its maker keeps.
pub struct Asked {
    /// The request.
    pub request: Request,
    /// The details.
    pub details: Details,
    /// What the secret is delivered to.
    pub key: ShareIdentity,
}

impl Asked {
    /// A request by this person for these versions.
    pub async fn new(
        facts: &Facts,
        line: &Line,
        by: &Member,
        credentials: Vec<CredentialLine>,
    ) -> Outcome<Self> {
        let key = ShareIdentity::generate()?;
        let details = Details {
            salt: Salt(random()?),
            reason: "the identity provider is down".parse()?,
            contact: None,
            systems: None,
        };
        let request = Request {
            vault: facts.charter.origin.clone(),
            ceremony: CeremonyId::from_parts(now(), random()?),
            purpose: Purpose::Unseal,
            scenario: None,
            group: None,
            requested_by: by.person.clone(),
            used_by: None,
            deliver_to: Some(key.share_key().to_string().parse()?),
            ticket: Some("INC-1".parse()?),
            details: details.digest(),
            check_out: Some(Span::from_hours(1)),
            waive: [keyturn_vault::charter::Waiver::CheckOut].into(),
            charter: facts.reference,
            log: line.head(&facts.vkey).await?,
            opened: now().stamp(),
            valid_for: Span::from_hours(1),
            salt: Salt(random()?),
            credentials,
        };
        Ok(Self {
            request,
            details,
            key,
        })
    }

    /// The call that opens it, signed by this person's device.
    pub fn open(&self, by: &Member) -> Outcome<v1::OpenRequest> {
        Ok(v1::OpenRequest {
            request: Some(wire_text(&by.sign_by_device(&self.request)?)),
            details: self.details.to_text(),
            restore: Vec::new(),
        })
    }

    /// The ceremony's id as calls name it.
    pub fn id(&self) -> String {
        self.request.ceremony.to_string()
    }

    /// Decrypts a release and checks its two receipts; gives the secrets in order.
    pub fn receive(&self, facts: &Facts, release: &v1::Release) -> Outcome<Vec<Vec<u8>>> {
        let mut before = None;
        for (receipt, kind) in [
            (&release.authorized, "unseal.authorized"),
            (&release.released, "unseal.released"),
        ] {
            let receipt = receipt.as_ref().ok_or("a receipt is missing")?;
            let proof: Receipt = receipt.tlog_proof.parse()?;
            proof.verify(&receipt.entry, &facts.vkey)?;
            let entry = keyturn_audit::entry::Entry::decode(&receipt.entry)?;
            if entry.kind != kind || entry.n != receipt.n || before >= Some(entry.n) {
                return Err(format!("the receipt of {kind} is of {}", entry.kind).into());
            }
            before = Some(entry.n);
        }
        let vault = self.request.vault.as_str();
        let opened = Release::open(&release.ciphertext, &self.key, vault, &self.id())?;
        // Exposed to the test that looks at it.
        let secrets = opened.secrets.iter();
        Ok(secrets.map(|one| one.secret.expose().to_vec()).collect())
    }
}

/// What one custodian has for a ceremony.
pub struct Ballot {
    /// The approval, signed.
    pub approval: SignedText,
    /// The shares, not encrypted yet.
    pub submission: Submission,
    /// To whom they are encrypted.
    pub submit_key: ShareKey,
    ceremony: String,
}

impl Ballot {
    /// Looks at a ceremony, opens the shares and signs.
    pub async fn new(facts: &Facts, line: &Line, by: &Member, ceremony: &str) -> Outcome<Self> {
        let shown = v1::ShowRequest {
            id: ceremony.to_owned(),
            page: None,
        };
        let shown = line.ceremonies().show(shown).await?.into_inner();
        let request = shown.request.ok_or("no request")?;
        let request = Request::parse(&request.text)?;
        let submit_key = shown.submit_key.ok_or("no submit key")?;
        let submit_key = SubmitKey::parse(&submit_key.text)?.submit_key;
        let (mut lines, mut shares) = (Vec::new(), Vec::new());
        for (named, version) in request.credentials.iter().zip(&shown.versions) {
            let manifest = version.manifest.as_ref().ok_or("no manifest")?;
            let manifest = Manifest::from_bytes(&manifest.document)?;
            let (group, x, share) = read(&manifest, by, version)?;
            lines.push(ShareLine {
                path: named.path.clone(),
                version: named.version,
                state: ShareState::Held {
                    x,
                    commitment: Digest(*share.commitment()),
                },
            });
            shares.push(SubmittedShare {
                credential: named.credential.to_string(),
                version: named.version.number(),
                group,
                x,
                // Exposed to be submitted.
                share: keyturn_seal::Secret::from_slice(share.secret().expose())
                    .ok_or("a share of another length")?,
            });
        }
        let approval = by.sign(&Approval {
            request: request.digest(),
            custodian: by.person.clone(),
            token: by.token,
            decision: Decision::Approve(lines),
            charter: Some(facts.reference),
            log: Some(request.log),
            signed: now().stamp(),
        })?;
        let submission = Submission {
            approval_sha256: approval.digest().0,
            ceremony: ceremony.to_owned(),
            person: by.person.id.to_string(),
            shares,
        };
        Ok(Self {
            approval,
            submission,
            submit_key: submit_key.as_str().parse()?,
            ceremony: ceremony.to_owned(),
        })
    }

    /// The call.
    pub fn call(&self) -> Outcome<v1::ApproveRequest> {
        Ok(v1::ApproveRequest {
            approval: Some(wire_text(&self.approval)),
            submissions: vec![self.submission.encrypt(&self.submit_key)?],
            details: String::new(),
            ceremony: self.ceremony.clone(),
        })
    }
}

/// This person's share of a version.
fn read(
    manifest: &Manifest,
    by: &Member,
    version: &v1::SealedVersion,
) -> Outcome<(String, u8, ValidShare)> {
    let group = manifest.groups.first().ok_or("no group")?;
    let holder = group.holder(by.person.id).ok_or("not a holder")?;
    let envelope = version.envelopes.first().ok_or("no envelope")?;
    let credential = manifest.credential.to_string();
    let binding = Binding::new(
        manifest.origin.as_str(),
        &credential,
        manifest.version.number(),
    )?;
    let commitments = group.holders.iter().map(|holder| holder.commitment.0);
    let sharing = Sharing::new(
        binding,
        group.group.as_str(),
        group.k,
        commitments.collect(),
    )?;
    let text = by.open(&envelope.envelope)?;
    let share = sharing.read_envelope(holder.x, &text)?;
    Ok((group.group.to_string(), holder.x, share))
}

/// Waits for the release of a ceremony; the state it ended in when there is none.
pub async fn release(line: &Line, id: &str) -> Outcome<Result<v1::Release, v1::CeremonyView>> {
    let watch = v1::WatchRequest {
        id: id.to_owned(),
        after_revision: 0,
        with_release: true,
    };
    let mut stream = line.ceremonies().watch(watch).await?.into_inner();
    let mut last = None;
    while let Some(reply) = stream.message().await? {
        match reply.what {
            Some(What::Release(release)) => return Ok(Ok(release)),
            Some(What::Ceremony(view)) => last = Some(view),
            _ => {}
        }
    }
    Ok(Err(last.ok_or("the stream told nothing")?))
}

impl Founded {
    /// Adds a credential at this path and deposits its first version.
    pub async fn seal(&self, path: &str, secret: &[u8]) -> Outcome<(Definition, CredentialLine)> {
        let (olga, line) = (self.who("olga")?, self.line("olga").await?);
        let definition = definition(&self.facts, path)?;
        let document = olga.sign_document(definition.to_bytes()?)?;
        let add = v1::AddRequest {
            definition: Some(document),
        };
        line.credentials().add(add).await?;
        let sealed = SealedVersion::new(&self.facts, &definition, 1, secret)?;
        line.credentials().deposit(sealed.deposit(olga)?).await?;
        let named = sealed.line(&definition)?;
        Ok((definition, named))
    }
    /// Alice asks for these versions.
    pub async fn ask(&self, named: Vec<CredentialLine>) -> Outcome<(Asked, Line)> {
        let (alice, line) = (self.who("alice")?, self.line("alice").await?);
        let asked = Asked::new(&self.facts, &line, alice, named).await?;
        line.ceremonies().open(asked.open(alice)?).await?;
        Ok((asked, line))
    }

    /// A custodian approves.
    pub async fn approve(&self, who: &str, asked: &Asked) -> Outcome<()> {
        let (who, line) = (self.who(who)?, self.line(who).await?);
        let ballot = Ballot::new(&self.facts, &line, who, &asked.id()).await?;
        line.ceremonies().approve(ballot.call()?).await?;
        Ok(())
    }

    /// Bob and carol approve what alice asks for; gives the secrets in order.
    pub async fn open(&self, named: Vec<CredentialLine>) -> Outcome<(Asked, Vec<Vec<u8>>)> {
        let (asked, line) = self.ask(named).await?;
        for who in ["bob", "carol"] {
            self.approve(who, &asked).await?;
        }
        let release = release(&line, &asked.id()).await?;
        let release = release.map_err(|view| format!("ended in {:?}", view.state()))?;
        let secrets = asked.receive(&self.facts, &release)?;
        Ok((asked, secrets))
    }

    /// Alice returns what she opened, after signing in with this version.
    pub async fn check_in(&self, asked: &Asked, worked: Option<u64>) -> Outcome<v1::CeremonyView> {
        let alice = self.who("alice")?;
        let mut credentials: Vec<Returned> = Vec::new();
        for line in &asked.request.credentials {
            if credentials
                .iter()
                .all(|one| one.credential != line.credential)
            {
                credentials.push(Returned {
                    path: line.path.clone(),
                    credential: line.credential,
                    worked: worked.and_then(Version::new),
                    void: None,
                });
            }
        }
        let checkin = Checkin {
            vault: asked.request.vault.clone(),
            ceremony: asked.request.ceremony,
            request: asked.request.digest(),
            returned_by: alice.person.clone(),
            signed: now().stamp(),
            credentials,
        };
        let call = v1::CheckinRequest {
            checkin: Some(wire_text(&alice.sign_by_device(&checkin)?)),
        };
        let line = self.line("alice").await?;
        let reply = line.ceremonies().checkin(call).await?.into_inner();
        Ok(reply.ceremony.ok_or("no ceremony in the answer")?)
    }
}
