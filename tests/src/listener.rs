//! A notifier for tests: a program that writes down what it is told.

use std::{
    collections::BTreeSet, fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf,
    time::Duration,
};

use keyturnd::notice::{Kind, Notice};

use crate::{
    World,
    harness::{Outcome, write_private},
};

/// How often it is looked at what was told, and how long.
const STEP: Duration = Duration::from_millis(20);
const STEPS: u32 = 1000;

/// A program that writes down what it is told, unless a file says that it is down.
pub struct Listener {
    told: PathBuf,
    down: PathBuf,
}

impl Listener {
    /// Names the program in the configuration of a vault, with `more` in its table.
    pub fn new(world: &World, name: &str, more: &str) -> Outcome<Self> {
        let folder = world.folder().join(name);
        fs::create_dir(&folder)?;
        let (told, down, program) = (
            folder.join("told"),
            folder.join("down"),
            folder.join("hear"),
        );
        let script = format!(
            "#!/bin/sh\n[ -e {} ] && exit 1\ndoc=$(cat)\nprintf '%s\\n' \"$doc\" >> {}\n",
            down.display(),
            told.display()
        );
        write_private(&program, script.as_bytes())?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let config = world.vault().join("keyturnd.toml");
        let mut config = fs::File::options().append(true).open(config)?;
        write!(
            config,
            "\n[notify.{name}]\nkind = \"exec\"\ncommand = \"{}\"\n{more}",
            program.display()
        )?;
        Ok(Self { told, down })
    }

    /// It fails from now on.
    pub fn goes_down(&self) -> Outcome<()> {
        Ok(write_private(&self.down, b"")?)
    }

    /// It hears again.
    pub fn comes_back(&self) -> Outcome<()> {
        Ok(fs::remove_file(&self.down)?)
    }

    /// Everything, as it came.
    pub fn heard(&self) -> String {
        fs::read_to_string(&self.told).unwrap_or_default()
    }

    /// What it was told, each notice once.
    pub fn told(&self) -> Vec<Notice> {
        let mut seen = BTreeSet::new();
        // A line may be half written; and a daemon that is killed may have told a program nothing yet.
        let heard = self.heard();
        let notices = heard
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        notices
            .filter(|notice: &Notice| seen.insert(notice.id.clone()))
            .collect()
    }

    /// How many notices of a kind it was told.
    pub fn count(&self, kind: Kind) -> usize {
        let told = self.told();
        told.iter().filter(|notice| notice.kind == kind).count()
    }

    /// Waits until it was told this; gives all that it was told.
    pub async fn until(&self, kind: Kind) -> Vec<Notice> {
        self.until_told(kind, 1).await
    }

    /// Waits until it was told this so often.
    pub async fn until_told(&self, kind: Kind, times: usize) -> Vec<Notice> {
        for _ in 0..STEPS {
            if self.count(kind) >= times {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
        self.told()
    }
}
