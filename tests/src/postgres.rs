//! A server of PostgreSQL for tests and the demo: private, in a folder of its own, ended with what started it.

use std::{
    fs::{self, Permissions},
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::{
    certificates::{self, readable},
    harness::{Outcome, PATIENCE, STEP, write_private},
    program::{Reply, finish},
};

/// `initdb` and `postgres` refuse to run as root: `nobody` runs them then.
const NOBODY: u32 = 65_534;
/// The page with the rights of the connector.
const PAGE: &str = include_str!("../../docs/connectors/postgres.md");
/// The password of the connector's own role.
pub const OWN: &str = "the connector's own password";

/// A running server.
pub struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    child: Child,
}

/// The newest installed server's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let bin = |entry: fs::DirEntry| Some(entry.path().join("bin"));
    let found = versions.filter_map(|entry| bin(entry.ok()?));
    found.filter(|bin| bin.join("initdb").exists()).max()
}

/// Whether a server is installed.
pub fn installed() -> bool {
    programs().is_some()
}

/// Where the first message that a client says ends, and whether it wants an answer: a beginning, a word about its
/// password, a query, `Parse`, `Bind`.
pub fn messages(read: &[u8], first: bool) -> Option<(usize, bool)> {
    let tag = usize::from(!first);
    let length = read.get(tag..tag.checked_add(4)?)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let end = tag.checked_add(usize::try_from(length).ok()?)?;
    let asks = first || read.first().is_some_and(|tag| b"pQPB".contains(tag));
    (end <= read.len()).then_some((end, asks))
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn give(path: &Path) -> Outcome<()> {
    if root() {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null());
    if root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

impl Server {
    /// Starts one, with the schema of the page in it, and a role `breakglass` with this password.
    pub fn start(first: &str) -> Outcome<Self> {
        let programs = programs().ok_or("PostgreSQL is not installed: `./dev test` installs it")?;
        let folder = tempfile::Builder::new().prefix("keyturn-pg-").tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        give(folder.path())?;
        let data = folder.path().join("data");
        let made = as_nobody(&programs.join("initdb"))
            .args([
                "--no-sync",
                "--no-instructions",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "-D",
            ])
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        finish(made)?.ok()?;
        certificates::make(folder.path())?;
        give(&folder.path().join("server.key"))?;
        let rules = "local all postgres trust\nlocal all open trust\nlocal all peer peer map=here\n\
            hostssl all certified 127.0.0.1/32 cert\nlocal all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        readable(&data.join("pg_hba.conf"), rules)?;
        let user = Command::new("id").arg("-un").output()?;
        let map = format!("here {} peer\n", String::from_utf8(user.stdout)?.trim());
        readable(&data.join("pg_ident.conf"), &map)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let child = Self::spawn(&programs, folder.path(), port)?;
        let server = Self {
            folder,
            programs,
            port,
            child,
        };
        server.wait()?;
        for block in PAGE.split("```sql\n").skip(1) {
            let sql = block.split("```").next().unwrap_or_default();
            if sql.contains("INSERT INTO") {
                server.admin(&format!("CREATE ROLE breakglass LOGIN PASSWORD '{first}'"))?;
            }
            server.admin(sql)?;
        }
        let own = OWN.replace('\'', "''");
        server.admin(&format!("ALTER ROLE keyturn PASSWORD '{own}'"))?;
        write_private(&server.folder.path().join("own"), OWN.as_bytes())?;
        Ok(server)
    }

    fn spawn(programs: &Path, folder: &Path, port: u16) -> Outcome<Child> {
        let show = |name: &str| folder.join(name).display().to_string();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", folder.display()),
            "fsync=off".to_owned(),
            "shared_buffers=16MB".to_owned(),
            "max_connections=40".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", show("server.crt")),
            format!("ssl_key_file={}", show("server.key")),
            format!("ssl_ca_file={}", show("roots.pem")),
        ];
        let log = fs::File::create(folder.join("log"))?;
        let mut command = as_nobody(&programs.join("postgres"));
        command
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-p")
            .arg(port.to_string());
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    fn wait(&self) -> Outcome<()> {
        let steps = PATIENCE.as_millis().checked_div(STEP.as_millis());
        for _ in 0..steps.unwrap_or_default() {
            if self.admin("SELECT 1").is_ok() {
                return Ok(());
            }
            thread::sleep(STEP);
        }
        let log = fs::read_to_string(self.folder.path().join("log"))?;
        Err(format!("PostgreSQL does not start: {log}").into())
    }

    /// Stops it, as a crash of its host would.
    pub fn stop(&mut self) -> Outcome<()> {
        self.signal(rustix::process::Signal::QUIT)?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again.
    pub fn again(&mut self) -> Outcome<()> {
        self.child = Self::spawn(&self.programs, self.folder.path(), self.port)?;
        self.wait()
    }

    /// Whether it takes connections and says nothing, from now on.
    pub fn silent(&self, silent: bool) -> Outcome<()> {
        use rustix::process::Signal;
        self.signal(if silent { Signal::STOP } else { Signal::CONT })
    }

    fn signal(&self, signal: rustix::process::Signal) -> Outcome<()> {
        let pid = i32::try_from(self.child.id())?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or("no process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// The folder with its socket, `roots.pem`, `own` (a password), `certified.crt` and `certified.key`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// A role that may sign in with this password, and is to be rotated.
    pub fn add_role(&self, role: &str, password: &str) -> Outcome<()> {
        self.admin(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{password}'; INSERT INTO keyturn.managed (role) VALUES ('{role}')"
        ))?;
        Ok(())
    }

    /// Its port, on loopback and in its socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn psql(&self, place: &str, user: &str, sql: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.folder.path().join("roots.pem"))
            .env("PGCONNECT_TIMEOUT", "10")
            .args([
                "-X",
                "-q",
                "-t",
                "-A",
                "-w",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                "postgres",
            ])
            .args([
                "-h",
                place,
                "-p",
                &self.port.to_string(),
                "-U",
                user,
                "-c",
                sql,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What an administrator does; gives what is printed.
    pub fn admin(&self, sql: &str) -> Outcome<String> {
        let place = self.folder.path().display().to_string();
        let reply = finish(self.psql(&place, "postgres", sql).spawn()?)?.ok()?;
        Ok(reply.stdout.trim().to_owned())
    }

    /// Something an administrator began, which goes on.
    pub fn hold(&self, sql: &str) -> Outcome<Child> {
        let place = self.folder.path().display().to_string();
        Ok(self.psql(&place, "postgres", sql).spawn()?)
    }

    /// From now on a COMMIT is done and not answered, as for a standby that is gone; or all that wait are.
    pub fn waits_for_a_standby(&self, waits: bool) -> Outcome<()> {
        let name = if waits { "gone" } else { "" };
        self.admin(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{name}'"
        ))?;
        self.admin("SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// A login over TLS by PostgreSQL's own client; `sql` goes on until it ends.
    pub fn session(&self, user: &str, password: &[u8], sql: &str) -> Outcome<Child> {
        let mut command = self.psql("localhost", user, sql);
        command.env("PGHOSTADDR", "127.0.0.1");
        command.env("PGPASSWORD", std::str::from_utf8(password)?);
        Ok(command.spawn()?)
    }

    /// Whether this password is accepted.
    pub fn accepts(&self, user: &str, password: &[u8]) -> Outcome<bool> {
        let reply: Reply = finish(self.session(user, password, "SELECT 1")?)?;
        match reply.code {
            0 => Ok(true),
            _ if reply.stderr.contains("password authentication failed") => Ok(false),
            _ => Err(reply.stderr.into()),
        }
    }

    /// How many sessions of a role are open.
    pub fn sessions(&self, user: &str) -> Outcome<usize> {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'");
        Ok(self.admin(&count)?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.silent(false);
        let _ = self.stop();
    }
}
