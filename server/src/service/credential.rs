//! `keyturn.v1.Credential`.

use keyturn_proto::v1::{self, credential_name::By, credential_server::Credential};
use keyturn_vault::{
    charter::Role,
    definition::Definition,
    id::CredentialId,
    jcs::Document as _,
    manifest::Manifest,
    name::CredentialPath,
    reference::Version,
    world::{Stage, VersionId},
};
use tonic::{Request, Response, Status};

use super::{
    Context, convert,
    credential_view::{matches, version_view, view},
    page,
};
use crate::{
    owner::{
        Needs,
        core::{Core, Held},
        credential::{Defined, Deposited, blob},
    },
    refusal::Refused,
    rows, verify,
};

/// Most envelopes of one deposit.
const MAX_ENVELOPES: usize = 256;
/// Definitions of one page; each has up to 64 KiB and the texts of a ceremony.
const MAX_DEFINITIONS: usize = 8;
/// Most confirmations of one call.
const MAX_CONFIRMATIONS: usize = 100;

/// The service.
#[derive(Clone)]
pub struct Service(pub Context);

type Answer<T> = Result<Response<T>, Status>;

/// A credential as the caller names it.
enum Named {
    Id(CredentialId),
    Path(CredentialPath),
}

impl Named {
    fn read(name: Option<v1::CredentialName>) -> Result<Self, Refused> {
        Ok(
            match convert::required(name.and_then(|name| name.by), "credential")? {
                By::Id(id) => Self::Id(convert::parse(&id, "id")?),
                By::Path(path) => Self::Path(convert::parse(&path, "path")?),
            },
        )
    }

    fn needs(&self) -> Needs {
        match self {
            Self::Id(id) => Needs::credentials([*id]),
            Self::Path(path) => Needs {
                paths: vec![path.clone()],
                ..Needs::default()
            },
        }
    }

    fn find(&self, core: &Core) -> Result<CredentialId, Refused> {
        match self {
            Self::Id(id) => core.credential(*id).map(|_| *id),
            Self::Path(path) => core
                .at_path(path)
                .ok_or(Refused::NotFound("no credential has this path")),
        }
    }
}

impl Service {
    async fn held(&self, named: Named) -> Result<(CredentialId, Held), Refused> {
        let needs = named.needs();
        let look = move |core: &Core| {
            let id = named.find(core)?;
            Ok((id, core.credential(id)?.clone()))
        };
        self.0.owner.look(needs, look).await
    }
}

impl Service {
    /// A definition with what put it into force.
    async fn record(&self, defined: &rows::Earlier) -> Result<v1::DefinitionRecord, Refused> {
        let (mut request, mut approvals) = (None, Vec::new());
        if let Some(id) = defined.changed_by {
            let look = move |core: &Core| Ok(core.ceremony(id)?.row.clone());
            let row = self.0.owner.look(Needs::ceremony(id), look).await?;
            request = Some(convert::wire_text(&row.request));
            let texts = row.statements.iter();
            approvals.extend(texts.map(|statement| convert::wire_text(&statement.signed)));
        }
        let signature = defined
            .changed_by
            .is_none()
            .then(|| convert::signature(&defined.signature));
        Ok(v1::DefinitionRecord {
            definition: self.0.object(defined.definition).await?,
            signature,
            request,
            approvals,
            defined: Some(self.0.receipt(None, defined.entry).await?),
        })
    }
}

#[tonic::async_trait]
impl Credential for Service {
    async fn add(&self, request: Request<v1::AddRequest>) -> Answer<v1::AddReply> {
        let caller = self.0.peers.of_role(&request, &[Role::Operator])?;
        let document = convert::required(request.into_inner().definition, "definition")?;
        let seal = convert::read_signature(document.signature)?;
        let charter = self.0.charter();
        if verify::signer(&charter.charter, seal.signer) != Some(caller.person.id) {
            return Err(
                Refused::Denied("a definition is signed by the operator who brings it").into(),
            );
        }
        let definition = Definition::from_bytes(&document.document)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let verified = verify::document(
            &self.0.charter().charter,
            &document.document,
            seal.signer,
            seal.signature,
        )?;
        let id = definition.credential;
        let needs = Needs {
            credentials: vec![id],
            paths: vec![definition.path.clone()],
            ..Needs::default()
        };
        let defined = Defined {
            verified,
            bytes: document.document,
            definition,
            by: caller.person,
        };
        let step = move |core: &mut Core, txn: &mut _| {
            let entry = core.define(txn, defined)?;
            Ok((entry, view(core, id, core.credential(id)?)))
        };
        let ((entry, credential), committed) = self.0.owner.ask(needs, step).await?;
        let defined = self.0.receipt(Some(&committed), entry).await?;
        Ok(Response::new(v1::AddReply {
            credential: Some(credential),
            defined: Some(defined),
        }))
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeDefinitionRequest>,
    ) -> Answer<v1::ProposeDefinitionReply> {
        let by = self.0.peers.of(&request)?.person.id;
        let bytes = request.into_inner().definition;
        let definition = Definition::from_bytes(&bytes)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let id = definition.credential;
        let step =
            move |core: &mut Core, txn: &mut _| core.propose_definition(txn, by, &definition);
        let ((old, new), _) = self.0.owner.ask(Needs::credentials([id]), step).await?;
        Ok(Response::new(v1::ProposeDefinitionReply {
            credential: id.to_string(),
            old_sha256: old.0.to_vec(),
            new_sha256: new.0.to_vec(),
        }))
    }

    async fn deposit(&self, request: Request<v1::DepositRequest>) -> Answer<v1::DepositReply> {
        let caller = self.0.peers.of(&request)?;
        let v1::DepositRequest {
            manifest: document,
            ciphertext,
            envelopes,
        } = request.into_inner();
        let document = convert::required(document, "manifest")?;
        let seal = convert::read_signature(document.signature)?;
        let manifest = Manifest::from_bytes(&document.document)
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let known = self.0.charter();
        let verified = verify::document(
            &known.charter,
            &document.document,
            seal.signer,
            seal.signature.clone(),
        )?;
        let depositor = verify::signer(&known.charter, seal.signer)
            .filter(|person| *person == caller.person.id);
        let depositor = depositor.ok_or(Refused::Denied(
            "a deposit is signed by the person who brings it",
        ))?;
        if envelopes.len() > MAX_ENVELOPES {
            return Err(Refused::Malformed(format!("at most {MAX_ENVELOPES} envelopes")).into());
        }
        let envelopes = envelopes
            .into_iter()
            .map(convert::read_envelope)
            .collect::<Result<_, _>>()?;
        let blob = blob(&manifest, seal, ciphertext, envelopes)?;
        let id = VersionId {
            credential: manifest.credential,
            version: manifest.version,
        };
        let deposited = Deposited {
            verified,
            bytes: document.document,
            manifest,
            blob,
            person: depositor,
            actor: caller.person.to_string(),
        };
        let step = move |core: &mut Core, txn: &mut _| {
            let entry = core.deposit(txn, deposited)?;
            let held = core.credential(id.credential)?;
            let state = held.row.versions.get(&id.version).ok_or(Refused::Row)?;
            Ok((entry, version_view(core, held, id.version, state)))
        };
        let ((entry, version), committed) = self
            .0
            .owner
            .ask(Needs::credentials([id.credential]), step)
            .await?;
        let sealed = self.0.receipt(Some(&committed), entry).await?;
        Ok(Response::new(v1::DepositReply {
            version: Some(version),
            sealed: Some(sealed),
        }))
    }

    async fn list(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Answer<v1::ListCredentialsReply> {
        self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let (after, size) = page(asked.page);
        let mut credentials = Vec::new();
        let mut after = after;
        // Pages of paths are looked through until one page of matches is full.
        loop {
            let found = self.0.paths(&after, size).await?;
            let full = found.len() >= size;
            for (path, id) in &found {
                after.clone_from(path);
                if credentials.len() >= size {
                    break;
                }
                if asked.r#match.is_empty() || matches(&asked.r#match, path) {
                    credentials.push(*id);
                }
            }
            if !full || credentials.len() >= size {
                let next_page = if full { after } else { String::new() };
                let needs = Needs::listed(credentials.iter().copied());
                let look = move |core: &Core| {
                    let held = |id| Some(view(core, id, core.credential(id).ok()?));
                    let views = credentials.into_iter().filter_map(held);
                    Ok(views.collect::<Vec<_>>())
                };
                let views = self.0.owner.look(needs, look).await?;
                let wanted =
                    |view: &v1::CredentialView| !asked.problems_only || !view.problems.is_empty();
                let credentials = views.into_iter().filter(wanted).collect();
                return Ok(Response::new(v1::ListCredentialsReply {
                    credentials,
                    next_page,
                }));
            }
        }
    }

    async fn show(
        &self,
        request: Request<v1::ShowCredentialRequest>,
    ) -> Answer<v1::ShowCredentialReply> {
        self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let named = Named::read(asked.credential)?;
        let (after, size) = page(asked.page);
        let before = if after.is_empty() {
            u64::MAX
        } else {
            convert::parse(&after, "after")?
        };
        let all = asked.all_versions;
        let needs = named.needs();
        let look = move |core: &Core| {
            let id = named.find(core)?;
            let held = core.credential(id)?.clone();
            let shown = |state: &rows::VersionState| all || state.life.stage != Stage::Destroyed;
            let newest = held
                .row
                .versions
                .iter()
                .rev()
                .filter(|(version, state)| version.number() < before && shown(state));
            let versions: Vec<_> = newest
                .take(size)
                .map(|(version, state)| version_view(core, &held, *version, state))
                .collect();
            Ok((view(core, id, &held), held, versions))
        };
        let (credential, held, versions) = self.0.owner.look(needs, look).await?;
        let next = held
            .row
            .versions
            .keys()
            .next_back()
            .map_or(Version::FIRST, |last| last.next());
        let next_page = if versions.len() < size {
            None
        } else {
            versions.last().map(|last| last.version.to_string())
        };
        Ok(Response::new(v1::ShowCredentialReply {
            credential: Some(credential),
            definition: Some(v1::SignedDocument {
                document: self.0.object(held.row.definition).await?,
                signature: Some(convert::signature(&held.row.signature)),
                ceremony: held
                    .row
                    .changed_by
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
            }),
            versions,
            next_version: next.number(),
            next_page: next_page.unwrap_or_default(),
        }))
    }

    async fn definitions(
        &self,
        request: Request<v1::DefinitionsRequest>,
    ) -> Answer<v1::DefinitionsReply> {
        self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let (after, _) = page(asked.page);
        let skip = if after.is_empty() {
            0
        } else {
            convert::parse::<usize>(&after, "after")?
        };
        let (_, held) = self.held(Named::read(asked.credential)?).await?;
        let mut all = held.row.earlier.clone();
        all.push(held.row.defined());
        let mut records = Vec::new();
        for defined in all.iter().skip(skip).take(MAX_DEFINITIONS) {
            records.push(self.record(defined).await?);
        }
        let next = skip.saturating_add(records.len());
        let next_page = if next < all.len() {
            next.to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::DefinitionsReply { records, next_page }))
    }

    async fn history(&self, request: Request<v1::HistoryRequest>) -> Answer<v1::HistoryReply> {
        self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let (after, size) = page(asked.page);
        let (id, _) = self.held(Named::read(asked.credential)?).await?;
        let before = if after.is_empty() {
            None
        } else {
            Some(convert::parse::<u64>(&after, "after")?)
        };
        let (entries, next) = self.0.entries_about(id, before, size).await?;
        Ok(Response::new(v1::HistoryReply {
            entries,
            next_page: next.map(|n| n.to_string()).unwrap_or_default(),
        }))
    }

    async fn export(&self, request: Request<v1::ExportRequest>) -> Answer<v1::ExportReply> {
        let caller = self.0.peers.of(&request)?;
        let asked = request.into_inner();
        let (after, _) = page(asked.page);
        let (id, held) = self.held(Named::read(asked.credential)?).await?;
        let from = if after.is_empty() {
            0
        } else {
            convert::parse::<u64>(&after, "after")?
        };
        let wanted = |version: Version, state: &rows::VersionState| match asked.version {
            0 => state.life.stage.live(),
            number => version.number() == number && state.life.stage != Stage::Destroyed,
        };
        let mine = asked.mine_only.then_some(caller.person.id);
        let mut versions = Vec::new();
        for (version, _) in held
            .row
            .versions
            .iter()
            .filter(|(version, state)| version.number() > from && wanted(**version, state))
        {
            // A version can be close to 200 KiB; a few at a time stay below the bound of a message.
            if versions.len() >= 8 {
                let last = versions
                    .last()
                    .map(|last: &v1::SealedVersion| last.version)
                    .unwrap_or_default();
                return Ok(Response::new(v1::ExportReply {
                    versions,
                    next_page: last.to_string(),
                }));
            }
            let id = VersionId {
                credential: id,
                version: *version,
            };
            versions.push(self.0.sealed_version(id, mine, !asked.mine_only).await?);
        }
        Ok(Response::new(v1::ExportReply {
            versions,
            next_page: String::new(),
        }))
    }

    async fn confirm(&self, request: Request<v1::ConfirmRequest>) -> Answer<v1::ConfirmReply> {
        let caller = self.0.peers.of(&request)?;
        let shares = request.into_inner().shares;
        if shares.len() > MAX_CONFIRMATIONS {
            return Err(Refused::Malformed(format!("at most {MAX_CONFIRMATIONS} shares")).into());
        }
        let mut read = Vec::new();
        for share in shares.iter().filter(|share| share.problem.is_empty()) {
            let version = VersionId {
                credential: convert::parse(&share.credential, "credential")?,
                version: Version::new(share.version).ok_or(Refused::NotFound("no such version"))?,
            };
            let group: keyturn_vault::id::GroupName = convert::parse(&share.group, "group")?;
            read.push((
                version,
                group,
                convert::digest(&share.commitment, "commitment")?,
            ));
        }
        let needs = Needs::credentials(read.iter().map(|(version, ..)| version.credential));
        let step = move |core: &mut Core, txn: &mut _| core.confirm(txn, &caller.person, &read);
        let (recorded, _) = self.0.owner.ask(needs, step).await?;
        Ok(Response::new(v1::ConfirmReply { recorded }))
    }
}
