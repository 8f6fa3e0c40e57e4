//! A private `pcscd`: readers that nobody else sees, for one test or one command.
//!
//! `vpcd` listens on all addresses and `pcscd` has one fixed socket. So each user gets namespaces of its own for
//! network, mounts and processes; when it ends, everything in them ends. This works as root, and as a user where
//! user namespaces are allowed, any number of times in parallel.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::{
    Card,
    reader::Inserted,
    status::{Hold, READERS_PER_DRIVER, friendly_name, wait_for_readers},
};

/// Set, to the test's name, in the process that has namespaces of its own.
const INSIDE: &str = "KEYTURN_PRIVATE_PCSCD";
/// Set instead of a test's name by a program.
const PROGRAM: &str = "-";
/// Seconds after which a test at a desk is ended.
const TEST_SECS: &str = "300";
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";
const SOCKET: &str = "/run/pcscd/pcscd.comm";
const FOLDER: &str = "/run/desk";
const LOG: &str = "/run/desk/pcscd.log";
const FIRST_PORT: u16 = 35963;
/// Most readers at a desk.
const READERS_MAX: u16 = 8;

/// Runs the calling test's `body` at a desk of its own with `readers` readers, in another process: the test binary is
/// started again for this test alone. The test fails if `body` panics there.
#[expect(clippy::missing_panics_doc, reason = "it is an assertion of a test")]
pub fn at_desk<F: FnOnce(&mut Desk)>(readers: u16, body: F) {
    let test = test_name::<F>();
    if env::var_os(INSIDE).is_some_and(|inside| inside == *test) {
        let desk = Desk::open(readers);
        assert!(desk.is_ok(), "no private pcscd: {:?}", desk.err());
        if let Ok(mut desk) = desk {
            body(&mut desk);
        }
        return;
    }
    let args = ["--exact", &test, "--nocapture", "--test-threads=1"];
    let output = env::current_exe().and_then(|program| {
        let mut command = apart(&program.into_os_string(), Some(TEST_SECS));
        command
            .args(args)
            .env(INSIDE, &test)
            .stdin(Stdio::null())
            .output()
    });
    let told = output.as_ref().map(|output| {
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    });
    let is_run = told
        .as_ref()
        .is_ok_and(|[stdout, _]| stdout.contains("running 1 test"));
    let is_good = output.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        is_good && is_run,
        "{test} failed at its desk:\n{}",
        describe(told)
    );
}

/// Runs this program again, with the same arguments, in a process that is alone with a `pcscd` of its own; gives how it
/// ended. In that process: a desk with `readers` readers.
pub fn with_desk(readers: u16) -> io::Result<Result<Desk, ExitStatus>> {
    if env::var_os(INSIDE).is_some_and(|inside| inside == PROGRAM) {
        return Desk::open(readers).map(Ok);
    }
    let program = env::current_exe()?.into_os_string();
    let mut command = apart(&program, None);
    command.args(env::args_os().skip(1)).env(INSIDE, PROGRAM);
    command.status().map(Err)
}

fn describe(told: Result<[String; 2], &io::Error>) -> String {
    told.map_or_else(ToString::to_string, |texts| texts.concat())
}

/// The path of the calling test in its binary, from the type of its closure: libtest tells it nowhere else.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>().replace("::{{closure}}", "");
    path.split_once("::")
        .map(|(_, name)| name.to_owned())
        .unwrap_or(path)
}

/// `program` in namespaces of its own, ended with the caller and at the latest after so many seconds.
fn apart(program: &OsString, seconds: Option<&str>) -> Command {
    let mut command = match seconds {
        None => Command::new("unshare"),
        Some(seconds) => {
            let mut command = Command::new("timeout");
            command.args([seconds, "unshare"]);
            command
        }
    };
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(program).env("PATH", path());
    command
}

/// Where Debian keeps `pcscd`, `ip` and `mount`, also for users who have no `sbin` in their path.
fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// A private `pcscd` with readers.
pub struct Desk {
    service: Option<Child>,
    readers: u16,
}

impl Desk {
    /// Prepares the namespaces that this process is alone in, and starts `pcscd`.
    pub fn open(readers: u16) -> io::Result<Self> {
        if readers > READERS_MAX {
            return Err(io::Error::other(format!(
                "a desk has at most {READERS_MAX} readers"
            )));
        }
        run("ip", &["link", "set", "lo", "up"])?;
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
        let config = Path::new(FOLDER).join("readers");
        for folder in [Path::new("/run/pcscd"), Path::new(FOLDER), &config] {
            fs::create_dir(folder)?;
        }
        for pair in 0..readers.div_ceil(READERS_PER_DRIVER) {
            configure(&config, pair)?;
        }
        let mut desk = Self {
            service: None,
            readers,
        };
        desk.start_service()?;
        Ok(desk)
    }

    /// Puts a card into a reader.
    pub fn insert(&self, reader: u16, card: &Card) -> io::Result<Inserted> {
        if reader >= self.readers {
            return Err(io::Error::other(format!("there is no reader {reader}")));
        }
        Inserted::new(card, reader, FIRST_PORT.saturating_add(reader))
    }

    /// Lets another program have the card in this reader for itself.
    pub fn hold(&self, reader: u16) -> io::Result<Hold> {
        Hold::new(reader).map_err(io::Error::other)
    }

    /// Starts `pcscd` and waits until it answers.
    pub fn start_service(&mut self) -> io::Result<()> {
        self.stop_service();
        // A stale socket must not be taken for a live one.
        let _ = fs::remove_file(SOCKET);
        let log = fs::File::create(LOG)?;
        let config = format!("{FOLDER}/readers");
        let service = Command::new("pcscd")
            .args(["--foreground", "--error", "--config", &config])
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.service = Some(service);
        wait_for_readers(self.readers).map_err(|error| {
            let log = fs::read_to_string(LOG).unwrap_or_default();
            io::Error::new(error.kind(), format!("pcscd did not start: {error}: {log}"))
        })
    }

    /// Kills `pcscd`, which leaves its socket behind.
    pub fn stop_service(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop_service();
    }
}

/// One entry of reader.conf(5); each needs a driver on a path of its own.
fn configure(config: &Path, pair: u16) -> io::Result<()> {
    let driver = format!("{FOLDER}/libifdvpcd-{pair}.so");
    fs::copy(DRIVER, &driver)
        .map_err(|error| io::Error::new(error.kind(), format!("{DRIVER}: {error}")))?;
    let name = friendly_name(pair);
    let port = FIRST_PORT.saturating_add(pair.saturating_mul(READERS_PER_DRIVER));
    let entry = format!(
        "FRIENDLYNAME \"{name}\"\nDEVICENAME /dev/null:0x{port:X}\nLIBPATH {driver}\nCHANNELID 0x{port:X}\n"
    );
    let mut file = fs::File::create(config.join(format!("{pair}.conf")))?;
    io::Write::write_all(&mut file, entry.as_bytes())
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let output = Command::new(program)
        .args(args)
        .env("PATH", path())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
