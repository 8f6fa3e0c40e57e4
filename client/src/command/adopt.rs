//! `keyturn credential adopt`: the connector sets the first secret, which no human ever knows.

use std::time::Duration;

use clap::Args;
use keyturn_proto::v1::{self, RotationState};
use keyturn_vault::name::CredentialPath;
use serde_json::json;

use super::{Context, show};
use crate::{refusal::Refusal, ui::clean, verify::wire};

/// How often it is looked whether it is done.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Let the connector set and seal the first secret; no human ever knows it.
#[derive(Debug, Args)]
pub struct Adopt {
    /// The credential, which must have no version yet
    path: CredentialPath,
}

impl Adopt {
    pub(super) async fn run(self, context: Context) -> Result<(), Refusal> {
        let session = context.session().await?;
        let request = v1::ShowCredentialRequest {
            credential: wire::at_path(&self.path),
            page: None,
            all_versions: true,
        };
        let shown = session.credentials().show(request).await?.into_inner();
        let before = wire::required(shown.credential, "the credential")?;
        if before.current > 0 {
            return Err(Refusal::new(
                "has-connector",
                "the credential has a secret already",
                "`keyturn rotate now` replaces it by one that no human knows",
            ));
        }
        let mut rotations = session.rotations();
        let now = v1::RotateNowRequest {
            credentials: vec![before.id.clone()],
            ..v1::RotateNowRequest::default()
        };
        rotations.now(now).await?;
        loop {
            let list = v1::ListRotationsRequest {
                page: None,
                r#match: self.path.to_string(),
                all: true,
            };
            let listed = rotations.list(list).await?.into_inner().rotations;
            let view = wire::required(listed.into_iter().next(), "the rotation")?;
            match view.state() {
                RotationState::Idle => {
                    let document = json!({ "path": view.path, "adopted": true });
                    return Ok(context.ui.result(&document, || {
                        format!("{} is sealed; no human knows it.\n", self.path)
                    })?);
                }
                RotationState::BackingOff
                | RotationState::NeedsOperator
                | RotationState::Manual => {
                    return Err(Refusal::new(
                        "rotating",
                        format_args!(
                            "not adopted yet, {}: {}",
                            show::rotation_state(view.state()),
                            clean(&view.problem)
                        ),
                        "it is tried again by itself; see `keyturn rotate list`",
                    ));
                }
                RotationState::Unspecified
                | RotationState::Due
                | RotationState::Applying
                | RotationState::Promoted => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}
