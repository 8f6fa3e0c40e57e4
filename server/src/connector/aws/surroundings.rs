//! What stands around a credential at AWS, as facts that a probe compares: the user who has it, what it
//! may do, and, where the definition names one, the role that it leads to and who that role trusts.
//!
//! Policies are compared by digest: they are long, and what matters is that they are as they were.

use std::{collections::BTreeSet, fmt::Write as _};

use aws_sdk_iam::operation::{get_role::GetRoleError, get_user::GetUserError};
use aws_sdk_iam::{self as iam, types::User};
use sha2::{Digest as _, Sha256};

use super::{
    call::Call,
    platform::{Clients, Platform},
    settings::Settings,
};
use crate::connector::{Facts, Failure};

/// The inline policy that connectors put onto a user to end its sessions; it is no fact, as they change it.
pub(super) const REVOKES: &str = "KeyturnRevokeOlderSessions";
/// The most groups or policies of one user or role that are read.
const MAX_ITEMS: usize = 1000;

/// The user of a definition; none where there is none.
pub(super) async fn user(
    platform: &Platform,
    clients: &Clients,
    name: &str,
) -> Result<Option<User>, Failure> {
    let call = platform.looks("GetUser");
    let operation = clients.look.get_user().user_name(name);
    let answer = call
        .send(operation.customize().interceptor(call.clone()).send())
        .await;
    match answer {
        Ok(answer) => Ok(answer.user),
        Err(failed) if failed.is(GetUserError::is_no_such_entity_exception) => Ok(None),
        Err(failed) => Err(failed.into()),
    }
}

/// The facts of a user and of the role beside it.
pub(super) async fn facts(
    platform: &Platform,
    clients: &Clients,
    settings: Settings<'_>,
    user: &User,
) -> Result<Facts, Failure> {
    let boundary = user
        .permissions_boundary()
        .and_then(|boundary| boundary.permissions_boundary_arn())
        .unwrap_or("none");
    let mut facts = Facts::from([
        ("user-id".to_owned(), user.user_id().to_owned()),
        ("permissions-boundary".to_owned(), boundary.to_owned()),
        (
            "user-rights".to_owned(),
            rights_of_user(platform, clients, settings.user).await?,
        ),
    ]);
    if let Some(role) = settings.role {
        facts.extend(role_facts(platform, clients, role).await?);
    }
    Ok(facts)
}

/// The digest of a user's groups and policies.
async fn rights_of_user(
    platform: &Platform,
    clients: &Clients,
    user: &str,
) -> Result<String, Failure> {
    let look = &clients.look;
    let groups = look.list_groups_for_user().user_name(user);
    let groups = groups.into_paginator().items().send();
    let attached = look.list_attached_user_policies().user_name(user);
    let attached = attached.into_paginator().items().send();
    let inline = look.list_user_policies().user_name(user);
    let inline = inline.into_paginator().items().send();
    let mut rights = BTreeSet::new();
    for group in all(platform.looks("ListGroupsForUser"), groups.collect()).await? {
        rights.insert(format!("group {}", group.arn()));
    }
    for policy in all(
        platform.looks("ListAttachedUserPolicies"),
        attached.collect(),
    )
    .await?
    {
        rights.insert(format!("policy {}", policy.policy_arn().unwrap_or("-")));
    }
    for name in all(platform.looks("ListUserPolicies"), inline.collect()).await? {
        if name == REVOKES {
            continue;
        }
        let call = platform.looks("GetUserPolicy");
        let operation = look.get_user_policy().user_name(user).policy_name(&name);
        let policy = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        rights.insert(format!("inline {name} {}", policy.policy_document()));
    }
    Ok(digest(&rights))
}

/// The facts of a role: whom it trusts, and what it may do.
async fn role_facts(platform: &Platform, clients: &Clients, role: &str) -> Result<Facts, Failure> {
    let look = &clients.look;
    let call = platform.looks("GetRole");
    let operation = look.get_role().role_name(role);
    let answer = call
        .send(operation.customize().interceptor(call.clone()).send())
        .await;
    let found = match answer {
        Ok(answer) => answer.role,
        Err(failed) if failed.is(GetRoleError::is_no_such_entity_exception) => None,
        Err(failed) => return Err(failed.into()),
    };
    let Some(found) = found else {
        return Ok([("role-id".to_owned(), "none".to_owned())].into());
    };
    let attached = look.list_attached_role_policies().role_name(role);
    let attached = attached.into_paginator().items().send();
    let inline = look.list_role_policies().role_name(role);
    let inline = inline.into_paginator().items().send();
    let mut rights = BTreeSet::new();
    for policy in all(
        platform.looks("ListAttachedRolePolicies"),
        attached.collect(),
    )
    .await?
    {
        rights.insert(format!("policy {}", policy.policy_arn().unwrap_or("-")));
    }
    for name in all(platform.looks("ListRolePolicies"), inline.collect()).await? {
        let call = platform.looks("GetRolePolicy");
        let operation = look.get_role_policy().role_name(role).policy_name(&name);
        let policy = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        rights.insert(format!("inline {name} {}", policy.policy_document()));
    }
    let trust = found
        .assume_role_policy_document()
        .unwrap_or("-")
        .to_owned();
    Ok([
        ("role-id".to_owned(), found.role_id().to_owned()),
        ("role-trust".to_owned(), digest(&[trust].into())),
        ("role-rights".to_owned(), digest(&rights)),
    ]
    .into())
}

/// All pages of a list.
async fn all<T, E>(
    call: Call,
    pages: impl Future<
        Output = Result<Vec<T>, iam::error::SdkError<E, iam::config::http::HttpResponse>>,
    >,
) -> Result<Vec<T>, Failure>
where
    E: iam::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    let items = call.send(pages).await?;
    if items.len() > MAX_ITEMS {
        return Err(Failure::Refused(format!(
            "more than {MAX_ITEMS} groups or policies"
        )));
    }
    Ok(items)
}

fn digest(lines: &BTreeSet<String>) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    let mut text = "sha256:".to_owned();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
