//! Keeps what is in memory out of core dumps, debuggers and swap.
//!
//! Locking all memory is done only where no limit can bite later: under a finite limit an allocation
//! beyond it fails, and a daemon that dies under load keeps nothing shut. Elsewhere the secrets' own
//! pages are wiped early and a warning says how to lift the limit.

use rustix::{
    io::Errno,
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};
use thiserror::Error;

/// What was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// All memory stays in memory.
    Locked,
    /// Nothing is dumped, but memory can be swapped out.
    Swappable,
}

/// Why memory cannot be protected.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// Core dumps or debuggers cannot be kept away.
    #[error("cannot keep core dumps away")]
    Dumpable(#[source] Errno),
    /// Locking is required and impossible.
    #[error("memory cannot be locked, and `memory.require_lock` is set")]
    LockRequired,
}

impl MemoryError {
    /// What to do next.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Dumpable(_) => "look for a sandbox that forbids prctl or setrlimit",
            Self::LockRequired => {
                "start with `LimitMEMLOCK=infinity` (systemd) or `ulimit -l unlimited`"
            }
        }
    }
}

/// Protects this process, before it reads any key.
pub fn protect(require_lock: bool) -> Result<Protection, MemoryError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(MemoryError::Dumpable)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(MemoryError::Dumpable)?;

    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if unlimited() && mlockall(all).is_ok() {
        Ok(Protection::Locked)
    } else if require_lock {
        Err(MemoryError::LockRequired)
    } else {
        Ok(Protection::Swappable)
    }
}

fn unlimited() -> bool {
    let capable =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    capable || getrlimit(Resource::Memlock).current.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn a_protected_process_leaves_no_core_and_says_whether_it_is_locked() {
        let possible = unlimited();
        let reached = protect(false).unwrap();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        assert_eq!(getrlimit(Resource::Core).current, Some(0));

        // VmLck of /proc/self/status is the kernel's own word.
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let locked = status
            .lines()
            .find(|line| line.starts_with("VmLck:"))
            .unwrap();
        let nothing = locked.split_whitespace().nth(1) == Some("0");
        assert_eq!(reached == Protection::Locked, !nothing, "{locked}");
        assert!(possible || reached == Protection::Swappable);
        assert_eq!(protect(true).is_ok(), reached == Protection::Locked);
    }
}
