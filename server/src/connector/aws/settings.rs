//! What a definition says of a credential at AWS.

use crate::connector::{Failure, PROBE_EVERY, Target};

/// The settings of one definition, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings<'a> {
    /// The account, of 12 digits.
    pub(super) account: &'a str,
    /// The IAM user.
    pub(super) user: &'a str,
    /// A role that must stay as it is, beside the user.
    pub(super) role: Option<&'a str>,
    /// Whether sessions that were opened with an older password are ended.
    pub(super) revokes: bool,
}

impl<'a> Settings<'a> {
    /// Of an IAM user.
    pub(super) fn of_user(target: &'a Target, revocable: bool) -> Result<Self, String> {
        let allowed: &[&str] = if revocable {
            &["account", "user", "role", "revoke-sessions"]
        } else {
            &["account", "user", "role"]
        };
        only(target, allowed)?;
        let account = account(target)?;
        let user = one(target, "user")?.ok_or("set `user` to the name of the IAM user")?;
        if !is_name(user) {
            return Err(format!("`user`: {user:?} is not the name of an IAM user"));
        }
        let role = one(target, "role")?;
        if let Some(role) = role.filter(|role| !is_name(role)) {
            return Err(format!("`role`: {role:?} is not the name of a role"));
        }
        Ok(Self {
            account,
            user,
            role,
            revokes: yes(target, "revoke-sessions")?,
        })
    }
}

/// The account of a definition.
pub(super) fn account(target: &Target) -> Result<&str, String> {
    let account = one(target, "account")?.ok_or("set `account` to the account's 12 digits")?;
    if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(account)
    } else {
        Err(format!(
            "`account`: {account:?} is not a number of 12 digits"
        ))
    }
}

/// The definition has these settings and no other.
pub(super) fn only(target: &Target, allowed: &[&str]) -> Result<(), String> {
    match target
        .settings
        .keys()
        .find(|name| *name != PROBE_EVERY && !allowed.contains(&name.as_str()))
    {
        None => Ok(()),
        Some(odd) => Err(format!(
            "there is no setting `{odd}`; there are: {}",
            allowed.join(", ")
        )),
    }
}

/// A setting, where it is there.
pub(super) fn one<'a>(target: &'a Target, name: &str) -> Result<Option<&'a str>, String> {
    match target.settings.get(name).map(String::as_str) {
        Some("") => Err(format!("`{name}` is empty")),
        other => Ok(other),
    }
}

fn yes(target: &Target, name: &str) -> Result<bool, String> {
    match one(target, name)? {
        None | Some("no") => Ok(false),
        Some("yes") => Ok(true),
        Some(other) => Err(format!("`{name}`: write yes or no, not {other:?}")),
    }
}

/// A problem with settings as a refusal: nothing was sent.
pub(super) fn refused(problem: String) -> Failure {
    Failure::Refused(problem)
}

/// IAM names users and roles by 1 to 64 of these.
fn is_name(name: &str) -> bool {
    name.len() <= 64
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(settings: &[(&str, &str)]) -> Target {
        Target {
            credential: "01HX0000000000000000000000".to_owned(),
            path: "aws/123456789012/alice".to_owned(),
            kind: "aws-iam-password".to_owned(),
            metadata: [].into(),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn settings_are_whole_or_say_what_is_wrong() {
        let good = ("account", "123456789012");
        for (name, settings, want) in [
            ("whole", vec![good, ("user", "alice")], Ok(("alice", false))),
            (
                "sessions are revoked",
                vec![good, ("user", "a@b"), ("revoke-sessions", "yes")],
                Ok(("a@b", true)),
            ),
            (
                "no account",
                vec![("user", "alice")],
                Err("set `account` to the account's 12 digits"),
            ),
            (
                "a short account",
                vec![("account", "12345"), ("user", "alice")],
                Err("`account`: \"12345\" is not a number of 12 digits"),
            ),
            (
                "no user",
                vec![good],
                Err("set `user` to the name of the IAM user"),
            ),
            (
                "a path for a user",
                vec![good, ("user", "ops/alice")],
                Err("`user`: \"ops/alice\" is not the name of an IAM user"),
            ),
            (
                "a setting that nobody knows",
                vec![good, ("user", "alice"), ("usr", "x")],
                Err("there is no setting `usr`; there are: account, user, role, revoke-sessions"),
            ),
            (
                "neither yes nor no",
                vec![good, ("user", "alice"), ("revoke-sessions", "true")],
                Err("`revoke-sessions`: write yes or no, not \"true\""),
            ),
        ] {
            let target = target(&settings);
            let parsed = Settings::of_user(&target, true);
            let parsed = parsed.map(|settings| (settings.user, settings.revokes));
            assert_eq!(parsed, want.map_err(str::to_owned), "{name}");
        }
    }
}
