//! A daemon in a process of its own: what it holds in memory is nobody else's.

use std::{
    fs::File,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use keyturn_tests::{Outcome, World};
use rustix::process::{Pid, Signal, kill_process};

/// It runs until this is dropped.
pub(crate) struct Daemon(Option<Child>);

impl Daemon {
    /// Starts it over the configuration of a vault; gives it when it accepts a connection.
    pub(crate) fn start(mut command: Command, world: &World) -> Outcome<Self> {
        let log = world.folder().join("keyturnd.log");
        let log = File::options().create(true).append(true).open(log)?;
        command
            .arg(world.vault().join("keyturnd.toml"))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn()?;
        while TcpStream::connect(world.address()).is_err() {
            if child.try_wait()?.is_some() {
                return Err("the daemon ended".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(Self(Some(child)))
    }

    /// A figure of `/proc/PID/status`, in KiB.
    pub(crate) fn memory(&self, name: &str) -> Outcome<u32> {
        let id = self.0.as_ref().ok_or("it has ended")?.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.ok_or("no such figure")?.parse()?)
    }

    /// Ends its input, which one that is not `keyturnd` takes for the end; gives what it said.
    pub(crate) fn end(mut self) -> Outcome<String> {
        let child = self.0.take().ok_or("it has ended")?;
        Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // Already gone is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = child.wait();
    }
}

/// A figure of [`Daemon::memory`], for people.
pub(crate) fn mib(kib: u32) -> String {
    format!("{:.1} MiB", f64::from(kib) / 1024.0)
}
