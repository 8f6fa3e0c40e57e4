//! The `ldap` connector: passwords of entries in a directory, by Password Modify (RFC 3062).
//!
//! # Invariants
//! 1. Nothing is said to a directory but by TLS: a password is its own proof there, and travels in every login.
//! 2. Until Password Modify is sent nothing has changed at the directory, and every failure is a definite one. From
//!    then on only the server's own word is, and not every one of them.
//! 3. The server never makes a password, and never gets an old one.
//!
//! A directory has no fence: a request that was sent in time may be carried out late by a server that was stopped.

mod ber;
mod line;
mod message;

use std::{future::Future, io, path::Path, time::Duration};

use async_trait::async_trait;
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::time::Time;
use tokio::time::timeout;

use self::{
    line::{Line, Reply, Way, said},
    message::{Attributes, PASSWORD_MODIFY, Request, WHO_AM_I},
};
use super::{
    About, Attempt, Connector, Evidence, Facts, Failure, Known, OneSlot, Rules, RulesError, Sight,
    Target, Verdict, peer,
};
use crate::config;

/// The setting of a definition: the distinguished name of the entry.
const DN: &str = "dn";
/// Attributes with the time of the last change: of draft-behera-ldap-password-policy, and of 389 Directory Server
/// where it tracks changes.
const CHANGED: [&str; 2] = ["pwdChangedTime", "pwdUpdateTime"];
/// Since when nobody can sign in with the password.
const LOCKED: &str = "pwdAccountLockedTime";
/// Whether an administrator of a 389 Directory Server has shut the entry out.
const DISABLED: &str = "nsAccountLock";
/// Whether the password must be changed before anything else is allowed.
const RESET: &str = "pwdReset";
/// The directory's clock and the daemon's may differ by so much.
const TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// Result codes of RFC 4511, appendix A.
const DONE: u32 = 0;
const NO_SUCH_OBJECT: u32 = 32;
const INVALID_CREDENTIALS: u32 = 49;
const BUSY: u32 = 51;
const UNAVAILABLE: u32 = 52;
/// `operationsError`, `timeLimitExceeded`, `unavailable`, `other`: a server in front of others says so too when it
/// has lost the answer of one that did it.
const UNCLEAR: [u32; 4] = [1, 3, UNAVAILABLE, 80];

/// Entries of one directory.
pub(super) struct Ldap {
    config: config::Ldap,
}

impl Ldap {
    /// As configured.
    pub(super) fn new(config: &config::Ldap) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// The way to the directory; as the connector itself, with its certificate.
    fn way(&self, own: bool) -> Result<Way, String> {
        let config = &self.config;
        let path = |path: &config::AbsolutePath| AsRef::<Path>::as_ref(path).to_owned();
        let pair = config.certificate.as_ref().zip(config.key.as_ref());
        let pair = pair.filter(|_| own).map(|(c, k)| (path(c), path(k)));
        let pair = pair.as_ref().map(|(c, k)| (c.as_path(), k.as_path()));
        Ok(Way {
            host: config.host.as_ref().to_owned(),
            port: config.port(),
            start_tls: config.security == config::Security::StartTls,
            tls: peer::tls(config.roots.as_ref(), pair)?,
        })
    }

    /// Signs in as the connector.
    async fn sign_in(&self) -> Result<Line, Failure> {
        let config = &self.config;
        let way = self.way(true).map_err(Failure::Refused)?;
        let bind = match (&config.bind_dn, &config.password_file) {
            (Some(name), Some(file)) => {
                let password = peer::password_file(file.as_ref()).map_err(Failure::Refused)?;
                Request::bind(name, &password)
            }
            _ => Request::bind_external(),
        };
        let mut line = Line::open(&way).await.map_err(|error| busy(&error))?;
        definite(&line.ask(&bind).await.map_err(|error| busy(&error))?)?;
        Ok(line)
    }

    /// A call that changes nothing.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        let limit = self.config.deadline_secs.secs();
        timeout(limit, call).await.unwrap_or_else(|_| Err(late()))
    }

    /// What the directory shows of the entry; none where there is no such entry.
    async fn look(&self, target: &Target) -> Result<Option<Attributes>, Failure> {
        let read = Request::read(
            dn(target).map_err(Failure::Refused)?,
            &[CHANGED.as_slice(), &[LOCKED, DISABLED, RESET]].concat(),
        );
        self.within(async {
            let reply = self
                .sign_in()
                .await?
                .ask(&read)
                .await
                .map_err(|error| busy(&error))?;
            if reply.answer.code == NO_SUCH_OBJECT {
                return Ok(None);
            }
            definite(&reply)?;
            Ok(reply.entry)
        })
        .await
    }
}

fn dn(target: &Target) -> Result<&str, String> {
    let dn = target.settings.get(DN).map(String::as_str);
    let dn = dn.ok_or_else(|| format!("the setting `{DN}` is missing"))?;
    if dn.contains('=') && !dn.contains('\0') {
        Ok(dn)
    } else {
        Err(format!(
            "the setting `{DN}` must be a distinguished name, like uid=breakglass,ou=people,dc=example,dc=org"
        ))
    }
}

fn late() -> Failure {
    Failure::Busy {
        why: "no answer in time".to_owned(),
        after: None,
    }
}

/// A connection that breaks before anything is changed.
fn busy(error: &io::Error) -> Failure {
    Failure::Busy {
        why: error.to_string(),
        after: None,
    }
}

/// What an answer means where nothing can have changed.
fn definite(reply: &Reply) -> Result<(), Failure> {
    let why = || said(&reply.answer);
    match reply.answer.code {
        DONE => Ok(()),
        BUSY | UNAVAILABLE => Err(Failure::Busy {
            why: why(),
            after: None,
        }),
        _ => Err(Failure::Refused(why())),
    }
}

fn first<'a>(entry: &'a Attributes, name: &str) -> Option<&'a str> {
    let values = entry.get(&name.to_ascii_lowercase())?;
    values.first().map(String::as_str)
}

/// When the password was changed last, and which attribute says so.
fn changed(entry: &Attributes) -> Option<(&'static str, &str)> {
    CHANGED
        .into_iter()
        .find_map(|name| Some((name, first(entry, name)?)))
}

/// `GeneralizedTime` (RFC 4517) in UTC, to the second.
fn moment(text: &str) -> Option<Time> {
    let (digits, rest) = text.split_at_checked(14)?;
    if !rest.ends_with('Z') {
        return None;
    }
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", digits).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    let ms = u64::try_from(time.timestamp().as_millisecond()).ok()?;
    Some(Time::from_ms(ms))
}

/// Why the sealed password does not sign in, as far as the entry shows it.
fn unusable(entry: &Attributes, known: &Known) -> Option<String> {
    if let Some(since) = first(entry, LOCKED) {
        return Some(format!("the entry is locked since {since}"));
    }
    if first(entry, DISABLED).is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
        return Some("the entry is disabled (nsAccountLock)".to_owned());
    }
    if first(entry, RESET) == Some("TRUE") {
        return Some("the directory wants another password before anything else".to_owned());
    }
    let (_, changed) = changed(entry)?;
    let late = moment(changed)?.ms_since(known.proven?) > TOLERANCE_MS;
    late.then(|| format!("the password was changed at {changed}, after its last proof"))
}

#[async_trait]
impl Connector for Ldap {
    fn about(&self) -> About {
        About {
            kind: "ldap",
            fence: false,
            rights: &[
                "write access to userPassword of the entries whose passwords are rotated",
                "read access to pwdChangedTime, pwdAccountLockedTime and pwdReset of the same entries (389 Directory Server: to pwdUpdateTime and nsAccountLock)",
            ],
        }
    }

    fn deadline(&self) -> Duration {
        self.config.deadline_secs.secs()
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        dn(target)?;
        let rules = self.rules(target).and_then(|rules| rules.check());
        rules.map(drop).map_err(|error| error.to_string())
    }

    async fn check_self(&self) -> Result<String, Failure> {
        self.within(async {
            let mut line = self.sign_in().await?;
            let root = Request::read("", &["supportedExtension"]);
            let root = line.ask(&root).await.map_err(|error| busy(&error))?;
            let extensions = root
                .entry
                .as_ref()
                .and_then(|root| root.get("supportedextension"));
            if extensions.is_some_and(|all| !all.iter().any(|one| one == PASSWORD_MODIFY)) {
                let why = "the directory has no Password Modify (RFC 3062)";
                return Err(Failure::Refused(why.to_owned()));
            }
            let who = line.ask(&Request::extended(WHO_AM_I, None)).await;
            let who = who.map_err(|error| busy(&error))?.answer;
            let name = who
                .value
                .filter(|name| who.code == DONE && !name.is_empty());
            Ok(name.unwrap_or_else(|| "signed in".to_owned()))
        })
        .await
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        let seen = self.look(target).await?;
        seen.map(drop).ok_or_else(|| {
            Failure::Refused("there is no such entry, or the connector may not see it".to_owned())
        })
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        let entry = match self.look(target).await {
            Err(Failure::Refused(why)) => return Ok(Sight::not_observable(&why)),
            entry => entry?,
        };
        let Some(entry) = entry else {
            return Ok(Sight {
                verdict: Verdict::Absent,
                facts: Facts::new(),
            });
        };
        let changed = changed(&entry).map(|(name, time)| (name.to_owned(), time.to_owned()));
        let facts: Facts = changed.into_iter().collect();
        Ok(match unusable(&entry, known) {
            Some(why) => Sight {
                verdict: Verdict::Diverged(why),
                facts,
            },
            None if facts.is_empty() && known.facts.as_ref().is_none_or(Facts::is_empty) => {
                Sight::not_observable("the entry shows no pwdChangedTime or pwdUpdateTime")
            }
            None => Sight::unchanged(facts, known),
        })
    }
}

#[async_trait]
impl OneSlot for Ldap {
    fn rules(&self, target: &Target) -> Result<Rules, RulesError> {
        self.config.rules.rules().with_settings(&target.settings)
    }

    async fn apply(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let name = dn(target).map_err(Failure::Refused)?;
        // `expose`: a directory hashes passwords itself; this one travels under TLS.
        let set = Request::set_password(name, new.expose());
        // Nothing is begun by a call that comes too late.
        let left = attempt.left().map_err(|_| late())?;
        let signed_in = timeout(left, self.sign_in()).await;
        let mut line = signed_in.unwrap_or_else(|_| Err(late()))?;
        let left = attempt.left().map_err(|_| late())?;
        match timeout(left, line.ask(&set)).await {
            Ok(Ok(reply)) if UNCLEAR.contains(&reply.answer.code) => {
                Err(Failure::Unknown(said(&reply.answer)))
            }
            Ok(Ok(reply)) => definite(&reply),
            Ok(Err(error)) => Err(Failure::Unknown(error.to_string())),
            Err(_) => Err(Failure::Unknown("no answer in time".to_owned())),
        }
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let name = dn(target).map_err(Failure::Refused)?;
        // `expose`: a login with the new password is the proof of it.
        let bind = Request::bind(name, new.expose());
        let way = self.way(false).map_err(Failure::Unknown)?;
        let login = timeout(attempt.left()?, async {
            Line::open(&way).await?.ask(&bind).await
        });
        let answer = match login.await {
            Ok(Ok(reply)) => reply.answer,
            Ok(Err(error)) => return Err(Failure::Unknown(error.to_string())),
            Err(_) => return Err(Failure::Unknown("no answer to a login in time".to_owned())),
        };
        match answer.code {
            DONE => Ok(()),
            INVALID_CREDENTIALS => Err(Failure::Refused(said(&answer))),
            _ => Err(Failure::Unknown(said(&answer))),
        }
    }

    /// LDAP shows nobody's connections and ends none: [`OneSlot::evidence`] says so.
    async fn end_sessions(&self, _target: &Target) -> Result<(), Failure> {
        Ok(())
    }

    async fn evidence(&self, target: &Target) -> Result<Evidence, Failure> {
        let entry = self.look(target).await?;
        let changed = entry.as_ref().and_then(changed);
        Ok(changed.map_or(Evidence::NotObservable, |(name, changed)| {
            Evidence::Shown(format!(
                "{name} is {changed} by the directory's clock; connections that were bound before stay open"
            ))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pairs: &[(&str, &str)]) -> Attributes {
        let own = |(name, value): &(&str, &str)| (name.to_lowercase(), vec![(*value).to_owned()]);
        pairs.iter().map(own).collect()
    }

    #[test]
    fn an_entry_shows_why_a_password_does_not_sign_in() {
        let known = Known {
            proven: moment("20261121100000Z"),
            ..Known::default()
        };
        for (name, pairs, want) in [
            ("nothing", &[][..], None),
            (
                "changed before",
                &[("pwdChangedTime", "20261121095900Z")],
                None,
            ),
            (
                "changed with the proof, by another clock",
                &[("pwdChangedTime", "20261121100459Z")],
                None,
            ),
            (
                "changed after the proof",
                &[("pwdChangedTime", "20261121100501.5Z")],
                Some("after its last proof"),
            ),
            (
                "the same of 389 Directory Server",
                &[("pwdUpdateTime", "20261121100501Z")],
                Some("after its last proof"),
            ),
            (
                "a time that is none",
                &[("pwdChangedTime", "yesterday")],
                None,
            ),
            ("disabled", &[(DISABLED, "true")], Some("is disabled")),
            ("enabled", &[(DISABLED, "false")], None),
            (
                "locked",
                &[(LOCKED, "20261121100000Z")],
                Some("is locked since"),
            ),
            (
                "to be changed",
                &[(RESET, "TRUE")],
                Some("wants another password"),
            ),
            ("not to be changed", &[(RESET, "FALSE")], None),
        ] {
            let why = unusable(&entry(pairs), &known);
            assert_eq!(why.is_some(), want.is_some(), "{name}: {why:?}");
            let said = want.is_none_or(|want| why.as_ref().is_some_and(|why| why.contains(want)));
            assert!(said, "{name}: {why:?}");
        }
    }

    #[test]
    fn answers_before_a_change_are_all_definite() {
        for (code, want) in [
            (DONE, "done"),
            (BUSY, "busy"),
            (UNAVAILABLE, "busy"),
            (19, "refused"),
            (INVALID_CREDENTIALS, "refused"),
            (50, "refused"),
            (80, "refused"),
        ] {
            let answer = message::Answer {
                code,
                text: String::new(),
                value: None,
            };
            let reply = Reply {
                answer,
                entry: None,
            };
            let got = match definite(&reply) {
                Ok(()) => "done",
                Err(Failure::Busy { .. }) => "busy",
                Err(Failure::Refused(_)) => "refused",
                Err(Failure::Full(_) | Failure::Unknown(_)) => "unclear",
            };
            assert_eq!(got, want, "{code}");
        }
    }
}
