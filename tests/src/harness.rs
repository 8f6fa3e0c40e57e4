//! A vault, its people, and the two programs, run as a person would run them.

use std::{
    error::Error,
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// What a story's step gives, or why it could not be told.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Longest time to wait for a daemon to listen, or for a command to end.
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

/// The passphrase of everybody's software token in demo and tests.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// A program of the workspace, built beside the one that runs now.
pub struct Program;

impl Program {
    /// The path of a program of this build.
    pub fn path(name: &str) -> Outcome<PathBuf> {
        let exe = std::env::current_exe()?;
        let found = exe
            .ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join(name))
            .find(|path| path.is_file());
        found.ok_or_else(|| {
            format!("{name} is not built; run `cargo build --workspace --bins` first").into()
        })
    }
}

/// How a command ended.
pub struct Reply {
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
}

impl Reply {
    /// The standard output as JSON (for commands run with `--json`).
    pub fn json(&self) -> Outcome<Value> {
        serde_json::from_str(&self.stdout)
            .map_err(|e| format!("not JSON: {e}\n{}{}", self.stdout, self.stderr).into())
    }

    /// The reply itself when the command succeeded, otherwise an error with all it said.
    pub fn ok(self) -> Outcome<Self> {
        self.exits(0)
    }

    /// The reply itself when the command ended with this code.
    pub fn exits(self, code: i32) -> Outcome<Self> {
        if self.code == code {
            return Ok(self);
        }
        Err(format!(
            "exit code {} where {code} was expected\n{}{}",
            self.code, self.stdout, self.stderr
        )
        .into())
    }
}

/// A folder with a vault, its people, and a daemon.
pub struct World {
    folder: PathBuf,
    _owned: Option<TempDir>,
    address: SocketAddr,
    daemon: Option<Child>,
}

impl World {
    /// An empty world in a temporary folder.
    pub fn new() -> Outcome<Self> {
        let owned = tempfile::Builder::new().prefix("keyturn-").tempdir()?;
        let folder = owned.path().to_owned();
        Ok(Self {
            folder,
            _owned: Some(owned),
            address: free_address()?,
            daemon: None,
        })
    }

    /// The world's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The vault's folder inside.
    pub fn vault(&self) -> PathBuf {
        self.folder.join("vault")
    }

    /// The home of a person, as `keyturn --home` takes it.
    pub fn home(&self, person: &str) -> PathBuf {
        self.folder.join("people").join(person)
    }

    /// Where the daemon listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The daemon's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// `keyturn` with a person's home and passphrase, not yet started.
    pub fn command<I: AsRef<OsStr>>(
        &self,
        person: &str,
        args: impl IntoIterator<Item = I>,
    ) -> Outcome<Command> {
        let passphrase = self.folder.join("passphrase");
        if !passphrase.exists() {
            write_private(&passphrase, PASSPHRASE.as_bytes())?;
        }
        let home = self.home(person);
        if let Some(parent) = home.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut command = Command::new(Program::path("keyturn")?);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC");
        command
            .arg("--home")
            .arg(home)
            .arg("--passphrase-file")
            .arg(passphrase)
            .args(args);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs `keyturn` as a person to its end.
    pub fn keyturn<I: AsRef<OsStr>>(
        &self,
        person: &str,
        args: impl IntoIterator<Item = I>,
    ) -> Outcome<Reply> {
        finish(self.command(person, args)?.spawn()?)
    }

    /// As [`World::keyturn`], with something on standard input.
    pub fn keyturn_with<I: AsRef<OsStr>>(
        &self,
        person: &str,
        args: impl IntoIterator<Item = I>,
        input: &[u8],
    ) -> Outcome<Reply> {
        let mut child = self.command(person, args)?.stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that refuses early closes its input; what it says then is the answer.
            let _ = stdin.write_all(input);
        }
        finish(child)
    }

    /// Runs `keyturnd` with these arguments to its end.
    pub fn keyturnd<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Outcome<Reply> {
        let mut command = Command::new(Program::path("keyturnd")?);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .args(args);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(command.spawn()?)
    }

    /// Starts the daemon and waits until it listens.
    pub fn start(&mut self) -> Outcome<()> {
        self.stop()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("keyturnd.log"))?;
        let mut command = Command::new(Program::path("keyturnd")?);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .arg("run")
            .arg("--config")
            .arg(self.vault().join("keyturnd.toml"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.daemon = Some(command.spawn()?);
        self.wait_until_up()
    }

    fn wait_until_up(&mut self) -> Outcome<()> {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            if TcpStream::connect_timeout(&self.address, STEP).is_ok() {
                return Ok(());
            }
            if let Some(status) = self
                .daemon
                .as_mut()
                .and_then(|d| d.try_wait().transpose())
                .transpose()?
            {
                return Err(format!("keyturnd ended with {status}\n{}", self.daemon_log()?).into());
            }
            thread::sleep(STEP);
            waited = waited.saturating_add(STEP);
        }
        Err(format!(
            "keyturnd does not listen on {}\n{}",
            self.address,
            self.daemon_log()?
        )
        .into())
    }

    /// What the daemon has logged.
    pub fn daemon_log(&self) -> io::Result<String> {
        std::fs::read_to_string(self.folder.join("keyturnd.log"))
    }

    /// Ends the daemon with SIGTERM and waits for it.
    pub fn stop(&mut self) -> Outcome<()> {
        self.end(rustix::process::Signal::TERM)
    }

    /// Ends the daemon with SIGKILL: nothing it still had in mind is written.
    pub fn kill(&mut self) -> Outcome<()> {
        self.end(rustix::process::Signal::KILL)
    }

    fn end(&mut self, signal: rustix::process::Signal) -> Outcome<()> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        if let Some(pid) = i32::try_from(daemon.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // Already gone is as good.
            let _ = rustix::process::kill_process(pid, signal);
        }
        daemon.wait()?;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// An address on loopback that nobody listens on now.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Writes a file that only its owner reads.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
}

/// Collects a command's output to its end; one that does not end in time is killed.
pub fn finish(mut child: Child) -> Outcome<Reply> {
    let drain = |pipe: Option<Box<dyn io::Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = drain(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = drain(child.stderr.take().map(|p| Box::new(p) as _));
    let mut waited = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if waited >= PATIENCE {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(STEP);
        waited = waited.saturating_add(STEP);
    };
    let stdout = stdout
        .join()
        .map_err(|_| "reading standard output failed")?;
    let mut stderr = stderr.join().map_err(|_| "reading standard error failed")?;
    if status.is_none() {
        write!(stderr, "\n(killed after {} s)", PATIENCE.as_secs())?;
    }
    Ok(Reply {
        stdout,
        stderr,
        code: status.and_then(|s| s.code()).unwrap_or(-1),
    })
}
