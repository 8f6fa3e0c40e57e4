//! `aws-iam-access-key`: the access keys of an IAM user. AWS makes them, and a user has two at most.
//!
//! What is sealed is the key as the shared credentials file has it, so that whoever opens it can use it as
//! it is. A new key is tried by `sts:GetCallerIdentity`, which needs no rights and cannot be denied; it is
//! not known everywhere at once, and until then a refusal says nothing.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_iam::operation::{
    create_access_key::CreateAccessKeyError, delete_access_key::DeleteAccessKeyError,
    update_access_key::UpdateAccessKeyError,
};
use aws_sdk_iam::types::{AccessKeyMetadata, StatusType};
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::name::KeyId;
use zeroize::Zeroizing;

use super::{
    call::{Call, made_before, unlisted},
    platform::{Clients, Platform},
    settings::{self, Settings},
    surroundings,
};
use crate::{
    config,
    connector::{
        About, Attempt, Connector, Created, Failure, Key, Known, Sight, Target, TwoSlot, Verdict,
    },
};

/// The two lines of what is sealed.
const ID: &str = "aws_access_key_id = ";
const SECRET: &str = "aws_secret_access_key = ";

/// Access keys of IAM users.
pub struct AccessKeys {
    platform: Platform,
}

impl AccessKeys {
    /// By a configuration.
    pub fn new(config: &config::Aws) -> Self {
        Self {
            platform: Platform::new(config.host()),
        }
    }

    async fn list(&self, clients: &Clients, user: &str) -> Result<Vec<AccessKeyMetadata>, Failure> {
        let call = self.platform.looks("ListAccessKeys");
        let pages = clients.look.list_access_keys().user_name(user);
        let pages = pages.into_paginator().items().send();
        Ok(call.send(pages.collect()).await?)
    }
}

#[async_trait]
impl Connector for AccessKeys {
    fn about(&self) -> About {
        About {
            kind: "aws-iam-access-key",
            fence: false,
            rights: &[
                "list, make, deactivate and delete the access keys of the named IAM users",
                "read the named users, their groups and policies, and the named roles",
            ],
        }
    }

    fn deadline(&self) -> Duration {
        self.platform.deadline()
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        Settings::of_user(target, false).map(drop)
    }

    async fn check_self(&self) -> Result<String, Failure> {
        Ok(self.platform.caller().await?.arn)
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        self.list(clients, settings.user).await.map(drop)
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let sight = |verdict| {
            Ok(Sight {
                verdict,
                facts: [].into(),
            })
        };
        let Some(user) = surroundings::user(&self.platform, clients, settings.user).await? else {
            return sight(Verdict::Absent);
        };
        let Some(ours) = &known.key else {
            return Ok(Sight::not_observable(
                "nobody knows yet which key is the sealed one",
            ));
        };
        let keys = self.list(clients, settings.user).await?;
        let active = |key: &AccessKeyMetadata| key.status() == Some(&StatusType::Active);
        match keys
            .iter()
            .find(|key| key.access_key_id() == Some(ours.as_str()))
        {
            None => return sight(Verdict::Absent),
            Some(key) if !active(key) => {
                return sight(Verdict::Diverged(format!("key {ours} is inactive")));
            }
            Some(_) => {}
        }
        let others = keys
            .iter()
            .filter(|key| active(key) && key.access_key_id() != Some(ours.as_str()));
        let others: Vec<_> = others
            .filter_map(AccessKeyMetadata::access_key_id)
            .collect();
        if !others.is_empty() {
            return sight(Verdict::Diverged(format!(
                "the user has another active key: {}",
                others.join(", ")
            )));
        }
        let facts = surroundings::facts(&self.platform, clients, settings, &user).await?;
        Ok(Sight::unchanged(facts, known))
    }
}

#[async_trait]
impl TwoSlot for AccessKeys {
    async fn keys(&self, target: &Target) -> Result<Vec<Key>, Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let keys = self.list(clients, settings.user).await?;
        keys.iter()
            .map(|key| {
                Ok(Key {
                    id: key_id(key.access_key_id().unwrap_or_default())?,
                    active: key.status() == Some(&StatusType::Active),
                    // AWS names it, and takes no tags and no token of ours.
                    named: false,
                })
            })
            .collect()
    }

    async fn create(&self, target: &Target, attempt: Attempt) -> Result<Created, Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let call = Call::change("CreateAccessKey", attempt);
        let operation = clients.change.create_access_key().user_name(settings.user);
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        let answer = match answer {
            Err(failed) if failed.is(CreateAccessKeyError::is_limit_exceeded_exception) => {
                return Err(Failure::Full("the user has two access keys".to_owned()));
            }
            other => other?,
        };
        let key = answer
            .access_key
            .ok_or_else(|| Failure::Unknown("CreateAccessKey: no key in the answer".to_owned()))?;
        // The SDK keeps its own copy of the secret until it is dropped here; the allocator wipes it.
        let text = format!(
            "{ID}{}\n{SECRET}{}\n",
            key.access_key_id(),
            key.secret_access_key()
        );
        Ok(Created {
            id: key_id(key.access_key_id())?,
            secret: SecretBytes::from(text.into_bytes()),
        })
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        key: &KeyId,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let (id, secret) = parse(new)
            .filter(|(id, _)| *id == key.as_str())
            .ok_or_else(|| Failure::Refused("what is sealed is not this key".to_owned()))?;
        let client = self.platform.clients().await.with_key(id, &secret);
        let call = Call::change("GetCallerIdentity", attempt).with_secret();
        let operation = client.get_caller_identity();
        let caller = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        let users = caller.arn().is_some_and(|arn| {
            arn.contains(":user/") && arn.rsplit('/').next() == Some(settings.user)
        });
        if caller.account() == Some(settings.account) && users {
            Ok(())
        } else {
            Err(Failure::Unknown(format!(
                "key {key} is not of user {} in account {}",
                settings.user, settings.account
            )))
        }
    }

    async fn deactivate(&self, target: &Target, key: &KeyId) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let call = Call::change("UpdateAccessKey", Attempt::within(0, self.deadline()));
        let operation = clients.change.update_access_key();
        let operation = operation
            .user_name(settings.user)
            .access_key_id(key.as_str())
            .status(StatusType::Inactive);
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        made_before(answer, UpdateAccessKeyError::is_no_such_entity_exception)
    }

    async fn delete(&self, target: &Target, key: &KeyId) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let attempt = Attempt::within(0, self.deadline());
        let call = Call::change("DeleteAccessKey", attempt);
        let operation = clients.change.delete_access_key();
        let operation = operation
            .user_name(settings.user)
            .access_key_id(key.as_str());
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        made_before(answer, DeleteAccessKeyError::is_no_such_entity_exception)?;
        unlisted(self, target, key, attempt).await
    }
}

/// What AWS calls a key.
fn key_id(id: &str) -> Result<KeyId, Failure> {
    id.parse()
        .map_err(|_| Failure::Unknown("AWS gave a key without a readable id".to_owned()))
}

/// Id and secret of what is sealed.
fn parse(sealed: &SecretBytes) -> Option<(&str, Zeroizing<String>)> {
    // `expose`: to sign a call with it.
    let text = std::str::from_utf8(sealed.expose()).ok()?;
    let mut lines = text.lines();
    let id = lines.next()?.strip_prefix(ID)?;
    let secret = lines.next()?.strip_prefix(SECRET)?;
    lines
        .next()
        .is_none()
        .then(|| (id, Zeroizing::new(secret.to_owned())))
}
