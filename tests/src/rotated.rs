//! What the demo rotates: an account of its own small service, or a role of a real PostgreSQL.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    Outcome, Program, World,
    harness::{PATIENCE, STEP},
    postgres::Server,
    stage::{Stage, says, shown, tell},
};

/// The role of PostgreSQL.
const ROLE: &str = "breakglass";

/// The target of the demo's rotation; it ends with this.
pub enum Rotated {
    /// The account `root` of the service `account`, by an `exec` connector.
    Account(Account),
    /// A role of PostgreSQL, by the `postgres` connector.
    Role(Server),
}

/// The service.
pub struct Account {
    place: PathBuf,
    service: Child,
}

impl Drop for Account {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

impl Account {
    /// Starts the service.
    pub fn start(world: &World) -> Outcome<Self> {
        let place = world.folder().join("service");
        let mut command = Command::new(Program::path("account")?);
        command.arg("serve").arg(&place).stdin(Stdio::null());
        let account = Self {
            service: command.spawn()?,
            place,
        };
        let steps = PATIENCE.as_millis().checked_div(STEP.as_millis());
        for _ in 0..steps.unwrap_or_default() {
            if account.place.exists() {
                break;
            }
            thread::sleep(STEP);
        }
        Ok(account)
    }
}

impl Rotated {
    /// The credential's path in the vault.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Account(_) => "accounts/main/root",
            Self::Role(_) => "db/main/breakglass",
        }
    }

    /// The credential's kind, and what its connector is and is told.
    pub fn credential(&self) -> [&'static str; 8] {
        match self {
            Self::Account(_) => [
                "--kind",
                "text",
                "--connector",
                "accounts",
                "--set",
                "user=root",
                "--meta",
                "user=root",
            ],
            Self::Role(_) => [
                "--kind",
                "postgres",
                "--connector",
                "db",
                "--set",
                "role=breakglass",
                "--meta",
                "user=breakglass",
            ],
        }
    }

    /// The connector in the daemon's configuration.
    pub fn configuration(&self) -> Outcome<String> {
        Ok(match self {
            Self::Account(account) => format!(
                "[connectors.accounts]\nkind = \"exec\"\ncommand = {}\nargs = [\"connect\", {}]\n",
                Value::from(Program::path("account")?.display().to_string()),
                Value::from(account.place.display().to_string())
            ),
            Self::Role(server) => format!(
                "[connectors.db]\nkind = \"postgres\"\nhost = \"localhost\"\nport = {}\n\
                 roots = \"{folder}/roots.pem\"\npassword_file = \"{folder}/own\"\n",
                server.port(),
                folder = server.folder().display()
            ),
        })
    }

    /// Has the target accept this as the first password.
    pub fn set(&self, world: &World, password: &str) -> Outcome<()> {
        match self {
            Self::Account(account) => {
                let secret = BASE64_STANDARD.encode(password);
                let ask =
                    json!({"action": "apply", "settings": {"user": "root"}, "secret": secret});
                let args = [OsStr::new("connect"), account.place.as_os_str()];
                let reply = world.program("account", &args, ask.to_string().as_bytes())?;
                says(&reply.ok()?, "done")
            }
            Self::Role(server) => server
                .admin(&format!("ALTER ROLE {ROLE} PASSWORD '{password}'"))
                .map(drop),
        }
    }

    /// Signs in, as told: the password is accepted, or not.
    pub fn sign_in(&self, stage: &Stage, password: &str, accepted: bool) -> Outcome<()> {
        match self {
            Self::Account(account) => {
                let args = [
                    OsStr::new("login"),
                    account.place.as_os_str(),
                    OsStr::new("root"),
                ];
                let code = i32::from(!accepted);
                stage.program("account", &args, password.as_bytes(), code)?;
                Ok(())
            }
            Self::Role(server) => {
                let port = server.port().to_string();
                let args = ["-h", "localhost", "-p", &port, "-U", ROLE, "-c", "SELECT 1"];
                tell(&shown("world", "psql", &args))?;
                let really = server.accepts(ROLE, password.as_bytes())?;
                tell(if really {
                    "    1"
                } else {
                    "    password authentication failed"
                })?;
                (really == accepted)
                    .then_some(())
                    .ok_or_else(|| "PostgreSQL does not say so".into())
            }
        }
    }

    /// A password's way there and back, for those who look.
    pub fn what(&self) -> Outcome<String> {
        match self {
            Self::Account(_) => Ok("the demo's own account service".to_owned()),
            Self::Role(server) => Ok(format!(
                "PostgreSQL {}; the role {ROLE}, over TLS",
                server.admin("SHOW server_version")?
            )),
        }
    }
}
