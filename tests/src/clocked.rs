//! A daemon in a process of its own, whose clock the test moves by hand.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use keyturn_vault::time::Time;
use rustix::process::{Pid, Signal};

use crate::{Program, World, harness::Outcome};

/// A daemon over the folder of a [`World`], whose own daemon is stopped. It is killed when this is dropped.
pub struct Clocked {
    child: Child,
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
}

impl Clocked {
    /// Starts it; by its clock it is `wall`.
    pub fn start(world: &World, wall: Time) -> Outcome<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(world.folder().join("keyturnd.log"))?;
        let mut child = Command::new(Program::path("clocked")?)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .arg(world.vault().join("keyturnd.toml"))
            .arg(wall.ms().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no standard input")?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if line != "serving\n" {
            return Err(format!("the daemon does not serve\n{}", world.daemon_log()?).into());
        }
        Ok(Self {
            child,
            pipes: Mutex::new(Some((stdin, stdout))),
        })
    }

    /// Lets time go by; gives what the daemon's wall clock says then.
    pub fn advance(&self, span: Duration) -> Outcome<Time> {
        self.say(&format!("advance {}", span.as_millis()))
    }

    /// Sets the wall clock alone.
    pub fn jump(&self, wall: Time) -> Outcome<Time> {
        self.say(&format!("jump {}", wall.ms()))
    }

    fn say(&self, command: &str) -> Outcome<Time> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, stdout) = pipes.as_mut().ok_or("the daemon is stopping")?;
        writeln!(stdin, "{command}")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        Ok(Time::from_ms(line.trim().parse()?))
    }

    /// Stops it as an operator would.
    pub fn stop(mut self) -> Outcome<()> {
        let pipes = self.pipes.get_mut();
        drop(pipes.unwrap_or_else(PoisonError::into_inner).take());
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the daemon ended with {status}").into())
        }
    }

    /// Kills it in the middle of whatever it does.
    pub fn kill(mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Takes the processor away from it.
    pub fn pause(&self) -> Outcome<()> {
        self.signal(Signal::STOP)
    }

    /// Gives it back.
    pub fn go_on(&self) -> Outcome<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Outcome<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("no process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
