//! A rotation's target for tests: the account service, and a connector that can be made to fail.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::{
    Program,
    harness::{Outcome, PATIENCE, STEP, World},
};

/// How the target's connector behaves from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// Nobody answers.
    Down,
    /// It takes no new password.
    Refusing,
    /// It takes the new password and never says so.
    Silent,
    /// It takes its time: longer than any deadline, and changes nothing.
    Hanging,
}

/// The service, running.
pub struct Target {
    folder: PathBuf,
    /// None in another hand, which does not end it.
    service: Option<Child>,
}

/// What stands between the daemon and the account service.
const CONNECTOR: &str = r#"#!/bin/sh
here=${0%/*} stop=
doc=$(cat)
read -r mood <"$here/mood"
[ -e "$here/stop" ] && read -r stop <"$here/stop"
action=${doc#*'"action":"'}
action=${action%%'"'*}
if [ "$stop" = "$action before" ]; then touch "$here/reached"; sleep 30; exit 1; fi
if [ "$stop" = "$action after" ]; then
    printf %s "$doc" | "$here/account" connect "$here/place" >/dev/null
    touch "$here/reached"; sleep 30; exit 1
fi
case "$doc" in
*'"action":"apply"'*|*'"action":"create"'*)
    case "$mood" in
    refusing) echo '{"outcome":"refused","message":"password policy"}'; exit 0 ;;
    silent) printf %s "$doc" | "$here/account" connect "$here/place" >/dev/null; echo '{"outcome":"unknown"}'; exit 0 ;;
    hanging) sleep 30; exit 1 ;;
    esac ;;
esac
if [ "$mood" = down ]; then echo '{"outcome":"unknown","message":"no route to host"}'; exit 0; fi
printf %s "$doc" | exec "$here/account" connect "$here/place"
"#;

impl Target {
    /// Starts the service, and names its connector `accounts` in the configuration of a vault.
    pub fn start(world: &World) -> Outcome<Self> {
        let folder = world.folder().join("target");
        fs::create_dir(&folder)?;
        std::os::unix::fs::symlink(Program::path("account")?, folder.join("account"))?;
        let connector = folder.join("connector");
        fs::File::create(&connector)?.write_all(CONNECTOR.as_bytes())?;
        fs::set_permissions(&connector, fs::Permissions::from_mode(0o755))?;
        let service = Command::new(folder.join("account"))
            .arg("serve")
            .arg(folder.join("place"))
            .stdin(Stdio::null())
            .spawn()?;
        let service = Some(service);
        let target = Self { folder, service };
        target.becomes(Mood::Well)?;
        target.wait()?;
        target.configure(world)?;
        Ok(target)
    }

    /// The same target, for somebody who does not end it.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            service: None,
        }
    }

    /// Names the connector in the configuration of a vault.
    pub fn configure(&self, world: &World) -> Outcome<()> {
        let connector = self.folder.join("connector");
        let config = world.vault().join("keyturnd.toml");
        let mut config = fs::File::options().append(true).open(config)?;
        write!(
            config,
            "\n[connectors.accounts]\nkind = \"exec\"\ncommand = \"{}\"\ndeadline_secs = 3\nrules = {{ length = 24, forbidden = \"@\" }}\n\n[connectors.keys]\nkind = \"exec\"\ncommand = \"{}\"\ndeadline_secs = 3\nslots = \"two\"\nsettle_secs = 1\n",
            connector.display(),
            connector.display()
        )?;
        Ok(())
    }

    /// The next call for this lets the daemon wait: before anything is done, or after it.
    pub fn stops(&self, action: &str, after: bool) -> Outcome<()> {
        // A stop that was reached is not reached again by itself.
        let _ = fs::remove_file(self.folder.join("reached"));
        let when = if after { "after" } else { "before" };
        let new = self.folder.join("stop.new");
        fs::File::create(&new)?.write_all(format!("{action} {when}").as_bytes())?;
        Ok(fs::rename(new, self.folder.join("stop"))?)
    }

    /// Calls go through again; what waits does nothing more.
    pub fn goes_on(&self) -> Outcome<()> {
        for file in ["stop", "reached"] {
            match fs::remove_file(self.folder.join(file)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the daemon waits in the call that stops.
    pub fn reached(&self) -> bool {
        self.folder.join("reached").exists()
    }

    fn wait(&self) -> Outcome<()> {
        let steps = PATIENCE.as_millis().checked_div(STEP.as_millis());
        for _ in 0..steps.unwrap_or_default() {
            if self.folder.join("place").exists() {
                return Ok(());
            }
            thread::sleep(STEP);
        }
        Err("the account service does not start".into())
    }

    /// From now on it behaves like this.
    pub fn becomes(&self, mood: Mood) -> Outcome<()> {
        let name = match mood {
            Mood::Well => "well",
            Mood::Down => "down",
            Mood::Refusing => "refusing",
            Mood::Silent => "silent",
            Mood::Hanging => "hanging",
        };
        let new = self.folder.join("mood.new");
        fs::File::create(&new)?.write_all(name.as_bytes())?;
        Ok(fs::rename(new, self.folder.join("mood"))?)
    }

    /// Sets a password as an administrator would.
    pub fn set(&self, user: &str, password: &[u8]) -> Outcome<()> {
        use base64::Engine as _;
        let secret = base64::prelude::BASE64_STANDARD.encode(password);
        let ask = serde_json::json!({
            "action": "apply", "settings": { "user": user }, "secret": secret,
        });
        self.account(&["connect"], &[], ask.to_string().as_bytes())?
            .then_some(())
            .ok_or_else(|| "the password was not set".into())
    }

    /// What the account's administrator does with its keys: `create`, `delete`; gives the answer.
    pub fn key(&self, action: &str, user: &str, key: &str) -> Outcome<serde_json::Value> {
        self.keys(action, user, key, "")
    }

    /// Whether this key is accepted with this secret.
    pub fn accepts_key(&self, user: &str, key: &str, secret: &[u8]) -> Outcome<bool> {
        use base64::Engine as _;
        let secret = base64::prelude::BASE64_STANDARD.encode(secret);
        let answer = self.keys("test", user, key, &secret)?;
        Ok(answer.get("outcome").is_some_and(|word| word == "done"))
    }

    /// The account's keys, and whether each is accepted.
    pub fn key_list(&self, user: &str) -> Outcome<Vec<(String, bool)>> {
        let answer = self.keys("keys", user, "", "")?;
        let keys = answer.get("keys").and_then(serde_json::Value::as_array);
        let key = |key: &serde_json::Value| {
            let id = key.get("id")?.as_str()?.to_owned();
            Some((id, key.get("active")?.as_bool()?))
        };
        Ok(keys.into_iter().flatten().filter_map(key).collect())
    }

    fn keys(
        &self,
        action: &str,
        user: &str,
        key: &str,
        secret: &str,
    ) -> Outcome<serde_json::Value> {
        let ask = serde_json::json!({
            "action": action, "settings": { "user": user }, "key": key, "secret": secret,
        });
        let mut child = Command::new(self.folder.join("account"))
            .arg("connect")
            .arg(self.folder.join("place"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(ask.to_string().as_bytes())?;
        }
        Ok(serde_json::from_slice(&child.wait_with_output()?.stdout)?)
    }

    /// Whether this password is accepted.
    pub fn accepts(&self, user: &str, password: &[u8]) -> Outcome<bool> {
        self.account(&["login"], &[user], password)
    }

    fn account(&self, before: &[&str], after: &[&str], input: &[u8]) -> Outcome<bool> {
        let place: &Path = &self.folder.join("place");
        let mut child = Command::new(self.folder.join("account"))
            .args(before)
            .arg(place)
            .args(after)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input)?;
        }
        Ok(child.wait()?.success())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Already gone is as good.
        if let Some(service) = &mut self.service {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}
