//! `keyturn checkin`: a requester returns what was checked out.

use std::{collections::BTreeMap, str::FromStr};

use clap::Args;
use keyturn_proto::v1;
use keyturn_vault::{
    id::CeremonyId,
    name::CredentialPath,
    reference::Version,
    text::{Checkin as CheckinText, Request, Returned, Text as _},
};

use super::{Context, case::Case, release, show};
use crate::{clock, refusal::Refusal, verify::VerifyError, wire};

/// Return what you checked out, and say what worked.
#[derive(Debug, Args)]
pub struct Checkin {
    /// The ceremony
    ceremony: CeremonyId,
    /// The version with which you logged in, which proves it
    #[arg(long, value_name = "PATH=vN")]
    worked: Vec<Tried>,
    /// An old version that you tried after the rotation, and that was refused
    #[arg(long, value_name = "PATH=vN")]
    void: Vec<Tried>,
}

/// A version that somebody tried.
#[derive(Clone, Debug)]
pub struct Tried {
    path: CredentialPath,
    version: Version,
}

impl FromStr for Tried {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, version) = text
            .split_once('=')
            .ok_or("write PATH=vN, like aws/prod/root=v2")?;
        Ok(Self {
            path: path
                .parse()
                .map_err(|error: keyturn_vault::name::NameError| error.to_string())?,
            version: version.parse().map_err(|_| "write the version like v2")?,
        })
    }
}

impl Checkin {
    pub(super) async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let request: Request = match release::kept(&context.home, self.ceremony) {
            Ok(kept) => kept
                .request
                .parse()
                .map_err(|source| VerifyError::Text("the request".to_owned(), source))?,
            Err(_) => Case::glance(&session, self.ceremony).await?.request,
        };
        let mut returned: BTreeMap<CredentialPath, Returned> = BTreeMap::new();
        for line in &request.credentials {
            let path = line.path.clone();
            returned.entry(path.clone()).or_insert(Returned {
                path,
                credential: line.credential,
                worked: None,
                void: None,
            });
        }
        for (tried, worked) in self
            .worked
            .into_iter()
            .map(|tried| (tried, true))
            .chain(self.void.into_iter().map(|tried| (tried, false)))
        {
            let unknown = || {
                Refusal::new(
                    "not-delivered",
                    format_args!("{} is not in this request", tried.path),
                    "name a credential of it",
                )
            };
            let line = returned.get_mut(&tried.path).ok_or_else(unknown)?;
            *(if worked {
                &mut line.worked
            } else {
                &mut line.void
            }) = Some(tried.version);
        }
        let checkin = CheckinText {
            vault: request.vault.clone(),
            ceremony: self.ceremony,
            request: request.digest(),
            returned_by: session.me()?.reference(),
            signed: clock::now().stamp(),
            credentials: returned.into_values().collect(),
        };
        let signed = session.sign(&checkin)?;
        let request = v1::CheckinRequest {
            checkin: Some(wire::wire_text(&signed)),
        };
        let reply = session.ceremonies().checkin(request).await?.into_inner();
        let view = wire::required(reply.ceremony, "the ceremony")?;
        release::forget(&context.home, self.ceremony)?;
        Ok(context.ui.result(&show::ceremony(&view), || {
            "Returned. Rotation is due now; see `keyturn rotate list`.".to_owned()
        })?)
    }
}
