//! The `postgres` connector: passwords of roles.
//!
//! It sets SCRAM verifiers through the functions of the schema `keyturn`, which an administrator makes at
//! the target (`docs/connectors/postgres.md`), so that it needs no right to alter roles itself.
//!
//! # Invariants
//! 1. The clear password leaves for nothing but a login: what is set is its verifier.
//! 2. Until COMMIT is sent nothing has changed at the server, whatever is met, and every failure is a
//!    definite one. From then on only the server's own word is.
//! 3. The fence (`keyturn.managed.version`) and the verifier change in one transaction: who comes late with
//!    an older version changes neither.
//! 4. A login proves the password only where the server asks for one.

mod line;
mod scram;

use std::{
    future::Future,
    path::Path,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::time::Time;
use tokio::time::timeout;
use tokio_postgres::{Config, error::SqlState};

use self::line::{Fault, Line, Way};
use super::{
    About, Attempt, Connector, Evidence, Facts, Failure, Known, OneSlot, Rules, RulesError, Sight,
    Target, Verdict, peer,
};
use crate::config;

/// The setting of a definition: the role whose password it is.
const ROLE: &str = "role";
/// The setting of a definition: the database that the role signs in to, where it is not the connector's.
const DATABASE: &str = "database";
/// The most bytes of a role's or a database's name.
const MAX_NAME: usize = 63;
/// Sessions that are being ended are counted again after this time.
const COUNT_AGAIN: Duration = Duration::from_millis(100);
/// The server gives a transaction up that waits so long for its COMMIT. `keyturn.end_sessions` counts on it.
const OPEN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// Roles of one server.
pub(super) struct Postgres {
    config: config::Postgres,
}

/// A role as `keyturn.look` shows it.
struct Role {
    verifier: Option<String>,
    ours: bool,
    unusable: Option<String>,
    version: i64,
    changed: Option<SystemTime>,
}

impl Postgres {
    /// As configured.
    pub(super) fn new(config: &config::Postgres) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// The way to the server; as the connector itself, with its certificate.
    fn way(&self, own: bool) -> Result<Way, String> {
        let config = &self.config;
        let port = config.port.value();
        let name = match &config.host {
            config::Host::Folder(folder) => {
                return Ok(Way::Socket(folder.join(format!(".s.PGSQL.{port}"))));
            }
            config::Host::Name(name) => name.as_ref().to_owned(),
        };
        let roots = config.roots.as_ref();
        let roots = roots.ok_or("`roots` is missing: a host is reached by TLS only")?;
        let path = |path: &config::AbsolutePath| AsRef::<Path>::as_ref(path).to_owned();
        let pair = config.certificate.as_ref().zip(config.key.as_ref());
        let pair = pair.filter(|_| own).map(|(c, k)| (path(c), path(k)));
        let pair = pair.as_ref().map(|(c, k)| (c.as_path(), k.as_path()));
        let tls = peer::tls(roots.as_ref(), pair)?;
        Ok(Way::Net(name, u16::try_from(port).unwrap_or(u16::MAX), tls))
    }

    /// Signs in as the connector.
    async fn sign_in(&self) -> Result<Line, Failure> {
        let way = self.way(true).map_err(Failure::Refused)?;
        let mut login = Config::new();
        login.user(&self.config.user).dbname(&self.config.database);
        if let Some(file) = &self.config.password_file {
            let password = peer::password_file(file.as_ref()).map_err(Failure::Refused)?;
            login.password(&*password);
        }
        Line::open(&way, &mut login).await.map_err(before)
    }

    /// A call that changes nothing, or whose change is no secret.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        let limit = self.config.deadline_secs.secs();
        timeout(limit, call).await.unwrap_or_else(|_| Err(late()))
    }

    async fn look(&self, target: &Target) -> Result<Option<Role>, Failure> {
        let role = role(target).map_err(Failure::Refused)?;
        let line = self.sign_in().await?;
        let ask = "SELECT known, verifier, ours, unusable, version, changed FROM keyturn.look($1)";
        let rows = line.query(ask, &[&role]).await;
        let rows = rows.map_err(|error| before(error.into()))?;
        let Some(row) = rows.first() else {
            let why = format!("the role {role:?} is not in keyturn.managed");
            return Err(Failure::Refused(why));
        };
        let read = || {
            Ok::<_, tokio_postgres::Error>(Role {
                verifier: row.try_get(1)?,
                ours: row.try_get(2)?,
                unusable: row.try_get(3)?,
                version: row.try_get(4)?,
                changed: row.try_get(5)?,
            })
        };
        let known: bool = row.try_get(0).map_err(|error| before(error.into()))?;
        let seen = read().map_err(|error| before(error.into()))?;
        Ok(known.then_some(seen))
    }

    /// Everything up to COMMIT.
    async fn prepare(
        &self,
        target: &Target,
        version: u64,
        verifier: &str,
    ) -> Result<Line, Failure> {
        let role = role(target).map_err(Failure::Refused)?;
        let version =
            i64::try_from(version).map_err(|error| Failure::Refused(error.to_string()))?;
        let line = self.sign_in().await?;
        let wait = self.config.deadline_secs.secs().as_millis() / 2;
        let open = format!("{OPEN}; SET LOCAL lock_timeout = {wait}");
        let opened = line.batch_execute(&open).await;
        opened.map_err(|error| before(error.into()))?;
        let set = "SELECT keyturn.set_verifier($1, $2, $3, $4)";
        let set = line
            .execute(set, &[&role, &target.credential, &version, &verifier])
            .await;
        set.map_err(|error| before(error.into()))?;
        Ok(line)
    }

    /// Signs in as the role; without a password it only sees whether the server asks for one.
    async fn try_role(
        &self,
        target: &Target,
        password: Option<&SecretBytes>,
    ) -> Result<(), Result<Fault, String>> {
        let way = self.way(false).map_err(Err)?;
        let role = role(target).map_err(Err)?;
        let database = target.settings.get(DATABASE);
        let mut login = Config::new();
        login
            .user(role)
            .dbname(database.unwrap_or(&self.config.database));
        if let Some(password) = password {
            // `expose`: a login with the new password is the proof of it.
            login.password(password.expose());
        }
        Line::open(&way, &mut login).await.map(drop).map_err(Ok)
    }
}

fn late() -> Failure {
    Failure::Busy {
        why: "no answer in time".to_owned(),
        after: None,
    }
}

fn name<'a>(target: &'a Target, setting: &str) -> Result<Option<&'a str>, String> {
    let name = target.settings.get(setting).map(String::as_str);
    match name {
        Some(name) if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') => Err(
            format!("the setting `{setting}` must be a name of 1 to {MAX_NAME} bytes"),
        ),
        name => Ok(name),
    }
}

fn role(target: &Target) -> Result<&str, String> {
    name(target, ROLE)?.ok_or_else(|| format!("the setting `{ROLE}` is missing"))
}

/// What a fault means before COMMIT is sent: nothing has changed, and some faults pass.
fn before(fault: Fault) -> Failure {
    let passes = |code: &SqlState| {
        let class = code.code().get(..2).unwrap_or_default();
        *code == SqlState::LOCK_NOT_AVAILABLE || ["08", "40", "53", "57"].contains(&class)
    };
    if fault.code.as_ref().is_none_or(passes) {
        Failure::Busy {
            why: fault.text,
            after: None,
        }
    } else {
        Failure::Refused(fault.text)
    }
}

/// What a fault means from COMMIT on: only a word of the server that is not about its own end, or that of the
/// connection, says that nothing changed.
fn after(fault: Fault) -> Failure {
    match fault.code.as_ref().and_then(|code| code.code().get(..2)) {
        None | Some("08" | "57" | "58" | "XX") => Failure::Unknown(fault.text),
        Some(_) => Failure::Refused(fault.text),
    }
}

#[async_trait]
impl Connector for Postgres {
    fn about(&self) -> About {
        About {
            kind: "postgres",
            fence: true,
            rights: &[
                "USAGE on the schema keyturn, and EXECUTE on its functions",
                "the right to sign in to the database with that schema",
            ],
        }
    }

    fn deadline(&self) -> Duration {
        self.config.deadline_secs.secs()
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        role(target)?;
        name(target, DATABASE)?;
        let rules = self.rules(target).and_then(|rules| rules.check());
        rules.map(drop).map_err(|error| error.to_string())
    }

    async fn check_self(&self) -> Result<String, Failure> {
        self.within(async {
            let line = self.sign_in().await?;
            let ask = "SELECT current_user::text, current_setting('server_version'), \
                has_schema_privilege('keyturn', 'USAGE') \
                AND has_function_privilege('keyturn.set_verifier(text,text,bigint,text)', 'EXECUTE')";
            let row = line.query_one(ask, &[]).await;
            let row = row.map_err(|error| before(error.into()))?;
            let fault = |error: tokio_postgres::Error| before(error.into());
            let user: String = row.try_get(0).map_err(fault)?;
            let version: String = row.try_get(1).map_err(fault)?;
            if row.try_get(2).map_err(fault)? {
                Ok(format!("{user}, PostgreSQL {version}"))
            } else {
                let why = format!("{user} may not use the functions of the schema keyturn");
                Err(Failure::Refused(why))
            }
        })
        .await
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        let seen = self.within(self.look(target)).await?;
        let why = match seen {
            None => "there is no such role".to_owned(),
            Some(Role {
                unusable: Some(why),
                verifier: Some(_),
                ..
            }) => why,
            Some(_) => return Ok(()),
        };
        Err(Failure::Refused(why))
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        let seen = match self.within(self.look(target)).await {
            Err(Failure::Refused(why)) => return Ok(Sight::not_observable(&why)),
            seen => seen?,
        };
        let Some(role) = seen else {
            return Ok(Sight {
                verdict: Verdict::Absent,
                facts: Facts::new(),
            });
        };
        let verifier = role.verifier.unwrap_or_default();
        let facts = Facts::from([("verifier".to_owned(), verifier)]);
        let set_by_us = i64::try_from(known.version) == Ok(role.version);
        let diverged = match role.unusable {
            Some(why) => Some(why),
            None if set_by_us && !role.ours => {
                Some("the verifier in pg_authid is not the one that was set".to_owned())
            }
            None => None,
        };
        Ok(match diverged {
            Some(why) => Sight {
                verdict: Verdict::Diverged(why),
                facts,
            },
            None => Sight::unchanged(facts, known),
        })
    }
}

#[async_trait]
impl OneSlot for Postgres {
    fn rules(&self, target: &Target) -> Result<Rules, RulesError> {
        self.config.rules.rules().with_settings(&target.settings)
    }

    async fn apply(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let verifier = scram::verifier(new, self.config.iterations.positive())
            .ok_or_else(|| Failure::Refused(RulesError::Random.to_string()))?;
        // Nothing is begun by a call that comes too late.
        let left = attempt.left().map_err(|_| late())?;
        let prepared = self.prepare(target, attempt.version, &verifier);
        let line = timeout(left, prepared)
            .await
            .unwrap_or_else(|_| Err(late()))?;
        let left = attempt.left().map_err(|_| late())?;
        match timeout(left, line.batch_execute("COMMIT")).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(after(error.into())),
            Err(_) => Err(Failure::Unknown("no answer to COMMIT in time".to_owned())),
        }
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let told = |fault: Result<Fault, String>| match fault {
            Ok(fault) if fault.code == Some(SqlState::INVALID_PASSWORD) => {
                Failure::Refused(fault.text)
            }
            Ok(fault) => Failure::Unknown(fault.text),
            Err(why) => Failure::Unknown(why),
        };
        let call = async {
            match self.try_role(target, None).await {
                Err(Ok(fault)) if fault.asked => {}
                Err(fault) => return Err(told(fault)),
                Ok(()) => {
                    let why = "the server lets the role in without a password: see pg_hba.conf";
                    return Err(Failure::Unknown(why.to_owned()));
                }
            }
            self.try_role(target, Some(new)).await.map_err(told)
        };
        let unknown = || Failure::Unknown("no answer to a login in time".to_owned());
        let tested = timeout(attempt.left()?, call).await;
        tested.unwrap_or_else(|_| Err(unknown()))
    }

    async fn end_sessions(&self, target: &Target) -> Result<(), Failure> {
        let role = role(target).map_err(Failure::Refused)?;
        self.within(async {
            let line = self.sign_in().await?;
            loop {
                let ended = line
                    .query_one("SELECT keyturn.end_sessions($1)", &[&role])
                    .await
                    .and_then(|row| row.try_get::<_, i64>(0));
                if ended.map_err(|error| before(error.into()))? == 0 {
                    return Ok(());
                }
                tokio::time::sleep(COUNT_AGAIN).await;
            }
        })
        .await
    }

    async fn evidence(&self, target: &Target) -> Result<Evidence, Failure> {
        let seen = match self.within(self.look(target)).await {
            Err(Failure::Refused(_)) | Ok(None) => return Ok(Evidence::NotObservable),
            seen => seen?,
        };
        let shown = seen.filter(|role| role.ours).and_then(|role| {
            let since = role.changed?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            let changed = Time::from_ms(u64::try_from(since.as_millis()).ok()?);
            Some(format!(
                "pg_authid holds the verifier of v{} with SHA-256 {}, set {} by the server's clock",
                role.version,
                role.verifier?,
                changed.stamp()
            ))
        });
        shown.map(Evidence::Shown).ok_or_else(|| {
            Failure::Unknown("the verifier in pg_authid is not the one that was set".to_owned())
        })
    }
}
