//! A vault, its people, and the two programs, run as a person would run them.

use std::{
    error::Error,
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::memory::Memory;
use crate::program::{Program, Reply, finish};

/// What a story's step gives, or why it could not be told.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The vault's name in demo and tests.
pub const ORIGIN: &str = "vault.example.org/prod";

/// The file with the roots of attestations that this world's programs believe.
const ROOTS: &str = "roots.pem";

/// Longest time to wait for a daemon to listen, or for a command to end.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const STEP: Duration = Duration::from_millis(20);

/// The passphrase of everybody's software token in demo and tests.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// A folder with a vault, its people, and a daemon.
pub struct World {
    folder: PathBuf,
    _owned: Option<TempDir>,
    address: SocketAddr,
    daemon: Option<Child>,
    memory: Option<Memory>,
    sinks: Vec<&'static str>,
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
            memory: None,
            sinks: Vec::new(),
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

    /// Makes a folder for copies, which [`World::init`] names as a sink: `copies-1`, `copies-2` …
    pub fn add_sink(&mut self, name: &'static str) -> Outcome<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        self.sinks.push(name);
        Ok(folder)
    }

    /// The home of a person, as `keyturn --home` takes it.
    pub fn home(&self, person: &str) -> PathBuf {
        self.folder.join("people").join(person)
    }

    /// Where the daemon listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes `FOUNDING.toml` for these people, whose enrolments are in `people/NAME.enroll` (and
    /// `people/NAME-spare.enroll`), and makes the vault.
    /// The custodians among them are the group `ops`, of which two must agree.
    ///
    /// `policy` is what the only policy says; without a word on it there, it demands no attestations.
    pub fn init(&self, people: &[(&str, &[&str])], policy: &str) -> Outcome<Reply> {
        self.try_init(people, policy)?.ok()
    }

    /// As [`World::init`], whatever comes of it.
    pub fn try_init(&self, people: &[(&str, &[&str])], policy: &str) -> Outcome<Reply> {
        let mut founding = String::new();
        let mut custodians = Vec::new();
        for (name, roles) in people {
            writeln!(
                founding,
                "[person.{name}]\nenrolment = \"people/{name}.enroll\"\nroles = {}",
                serde_json::to_string(roles)?
            )?;
            let spare = format!("people/{name}-spare.enroll");
            if self.folder.join(&spare).exists() {
                writeln!(founding, "spares = [\"{spare}\"]")?;
            }
            if roles.contains(&"custodian") {
                custodians.push(name);
            }
        }
        let attested = if policy.contains("require_attestation") {
            ""
        } else {
            "require_attestation = false\n"
        };
        write!(
            founding,
            "[group.ops]\nk = 2\nmembers = {}\ngoverning = true\n\n[policy.default]\n{attested}{policy}",
            serde_json::to_string(&custodians)?
        )?;
        write_private(&self.folder.join("FOUNDING.toml"), founding.as_bytes())?;
        let address = self.address.to_string();
        let init = [
            "init",
            "--json",
            "--dir",
            "vault",
            "--origin",
            ORIGIN,
            "--founding",
            "FOUNDING.toml",
            "--listen",
            &address,
        ];
        let sinks = self.sinks.iter().flat_map(|name| ["--sink", name]);
        let roots = self.folder.join(ROOTS).exists();
        let roots = roots.then_some(["--attestation-roots", ROOTS]);
        let more = sinks.chain(roots.into_iter().flatten());
        self.keyturnd(init.into_iter().chain(more))
    }

    /// From now on this world's programs believe the roots in this text about tokens.
    pub fn believe(&self, roots: &str) -> Outcome<()> {
        Ok(write_private(&self.folder.join(ROOTS), roots.as_bytes())?)
    }

    /// Enrols these people, founds the vault and lets them join, all at the command line; gives the digest of the
    /// first charter.
    pub fn found(&mut self, people: &[(&str, &[&str])]) -> Outcome<String> {
        for (name, _) in people {
            let out = format!("people/{name}.enroll");
            self.keyturn(name, ["enroll", name, "--out", &out])?.ok()?;
        }
        let made = self.init(people, "")?.json()?;
        let genesis = made.pointer("/charter/sha256").and_then(|it| it.as_str());
        let genesis = genesis.ok_or("no digest of the charter")?;
        self.start()?;
        for (name, _) in people {
            let welcome = self.welcome(name).display().to_string();
            let join = ["--yes-sha256", genesis, "join", &welcome];
            self.keyturn(name, join)?.ok()?;
        }
        Ok(genesis.to_owned())
    }

    /// The request that waits for somebody, once there is one: its ceremony and its digest.
    pub fn waiting(&self, person: &str) -> Outcome<(String, String)> {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            let status = self.keyturn(person, ["--json", "status"])?.ok()?.json()?;
            let of = |name: &str| {
                Some(
                    status
                        .pointer("/waiting/0")?
                        .get(name)?
                        .as_str()?
                        .to_owned(),
                )
            };
            if let (Some(ceremony), Some(digest)) = (of("ceremony"), of("request_sha256")) {
                return Ok((ceremony, digest));
            }
            thread::sleep(STEP);
            waited = waited.saturating_add(STEP);
        }
        Err(format!("nothing waits for {person}").into())
    }

    /// The welcome file of a founder.
    pub fn welcome(&self, person: &str) -> PathBuf {
        self.vault()
            .join("welcome")
            .join(format!("{person}.welcome"))
    }

    /// Where the daemon publishes the log.
    pub fn log(&self) -> PathBuf {
        self.vault().join("data").join("log")
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
        let mut command = self.program_of(person)?;
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC");
        command
            .arg("--home")
            .arg(home)
            .arg("--passphrase-file")
            .arg(passphrase);
        let roots = self.folder.join(ROOTS);
        if roots.exists() {
            command.arg("--attestation-roots").arg(roots);
        }
        command.args(args);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// From now on this person's commands know the PIN of a YubiKey, and the PUK for a new one.
    pub fn tell_pin(&self, person: &str, pin: &str, puk: &str) -> io::Result<()> {
        let [pin_file, puk_file] = self.pins(person);
        write_private(&pin_file, pin.as_bytes())?;
        write_private(&puk_file, puk.as_bytes())
    }

    fn pins(&self, person: &str) -> [PathBuf; 2] {
        ["pin", "puk"].map(|end| self.folder.join(format!("{person}.{end}")))
    }

    /// `keyturn`, with the PIN on descriptor 3 and the PUK on 4 for a person who has them.
    fn program_of(&self, person: &str) -> Outcome<Command> {
        let program = Program::path("keyturn")?;
        let [pin, puk] = self.pins(person);
        if !pin.exists() {
            return Ok(Command::new(program));
        }
        let mut command = Command::new("/bin/sh");
        // sh(1) opens what std cannot hand on: $0 is the program, the first two arguments are the files.
        let script = r#"pin=$1 puk=$2; shift 2; exec "$0" --pin-fd 3 "$@" 3<"$pin" 4<"$puk""#;
        command.arg("-c").arg(script).arg(program).arg(pin).arg(puk);
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

    /// Runs another program of this build to its end.
    pub fn program(&self, name: &str, args: &[&OsStr], input: &[u8]) -> Outcome<Reply> {
        let mut command = Command::new(Program::path(name)?);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
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
        let daemon = command.spawn()?;
        // Only now: in a moment it makes itself unreadable.
        self.memory = Memory::of(daemon.id()).ok();
        self.daemon = Some(daemon);
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

    /// The memory of the daemon that was started last, where the system lets its parent read it.
    pub fn memory(&mut self) -> Outcome<&mut Memory> {
        Ok(self
            .memory
            .as_mut()
            .ok_or("the daemon's memory could not be opened")?)
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
/// An address for a server that is yet to listen: its port is below those that the system gives to connections, and
/// given to nobody else in this process, however long the server takes.
pub fn free_address() -> io::Result<SocketAddr> {
    const PORTS: Range<u16> = 20_000..32_000;
    static NEXT: OnceLock<AtomicUsize> = OnceLock::new();
    // Other processes of tests begin elsewhere.
    let begin = || usize::try_from(std::process::id()).unwrap_or_default();
    let next = NEXT.get_or_init(|| AtomicUsize::new(begin()));
    for _ in PORTS {
        let place = next.fetch_add(1, Ordering::Relaxed);
        let place = place.checked_rem(PORTS.len()).unwrap_or_default();
        let port = PORTS.clone().nth(place).unwrap_or(PORTS.start);
        if let Ok(free) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return free.local_addr();
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
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
