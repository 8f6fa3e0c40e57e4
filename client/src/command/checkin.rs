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

use super::{Context, case::Case, check_old, release, show, unseal};
use crate::{
    clock,
    refusal::Refusal,
    session::Session,
    verify::{VerifyError, wire},
};

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
    /// Then wait for the rotation, and run this command with the old secret on its standard input: it
    /// exits with 0 if the secret still works, with 1 if the target refuses it
    #[arg(long, value_name = "COMMAND")]
    check_old: Option<String>,
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
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        // Opened before it is returned: what opens it is forgotten then.
        let old = match self.check_old {
            Some(command) => {
                let opened = unseal::again(&mut context, &session, self.ceremony).await?;
                Some((command, opened.current()))
            }
            None => None,
        };
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
        let returned = returned.into_values().collect();
        let view = send(&mut context, &session, &request, returned).await?;
        release::forget(&context.home, self.ceremony)?;
        if let Some((command, old)) = old {
            return check_old::run(&mut context, &session, &request, (&command, old)).await;
        }
        Ok(context.ui.result(&show::ceremony(&view), || {
            "Returned. `keyturn rotate list` says what is changed now, and what somebody changes by hand.".to_owned()
        })?)
    }
}

/// Signs and sends what is returned, or what is said of it later.
pub(super) async fn send(
    context: &mut Context,
    session: &Session,
    request: &Request,
    credentials: Vec<Returned>,
) -> Result<v1::CeremonyView, Refusal> {
    let checkin = CheckinText {
        vault: request.vault.clone(),
        ceremony: request.ceremony,
        request: request.digest(),
        returned_by: session.me()?.reference(),
        signed: clock::now().stamp(),
        credentials,
    };
    let signed = context.sign(session, &checkin)?;
    let call = v1::CheckinRequest {
        checkin: Some(wire::wire_text(&signed)),
    };
    let reply = session.ceremonies().checkin(call).await?.into_inner();
    Ok(wire::required(reply.ceremony, "the ceremony")?)
}
