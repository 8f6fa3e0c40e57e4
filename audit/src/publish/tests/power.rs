//! A disk in memory that forgets what was not synced, and fails when it is told to.
#![expect(clippy::arithmetic_side_effects, reason = "small numbers in a test")]

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    rc::Rc,
};

use super::super::*;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

/// The content of a file: as programs see it, and as it is after a power cut.
#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

type Names = BTreeMap<PathBuf, Node>;

#[derive(Default)]
struct State {
    files: Vec<Content>,
    seen: Names,
    durable: Names,
}

/// What goes wrong at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes before the operation does anything.
    CutBefore,
    /// The power goes after the operation did what it does, before anybody learns of it.
    CutAfter,
    /// The operation fails and does nothing; the program goes on.
    Fails,
    /// The operation does what it does and says that it failed.
    FailsAfterAll,
}

/// What survives a power cut of that which was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survives {
    Nothing,
    Everything,
    /// Names, but not the contents of files: they are empty.
    Names,
    /// Each name and a part of each content by chance; a renamed file may have both names or none.
    Chance(u64),
}

/// A handle on the disk; copies share it.
#[derive(Clone, Default)]
pub(super) struct Power {
    state: Rc<RefCell<State>>,
    /// Operations until now, and at which one what happens.
    count: Rc<Cell<usize>>,
    fault: Rc<Cell<Option<(usize, Fault)>>>,
    off: Rc<Cell<bool>>,
    /// The name of the operation that failed.
    struck: Rc<Cell<&'static str>>,
}

impl Power {
    /// Another program on the same disk; its operations are not counted and do not fail.
    pub(super) fn reader(&self) -> Self {
        Self {
            state: Rc::clone(&self.state),
            ..Self::default()
        }
    }

    pub(super) fn plan(&self, at: usize, fault: Fault) {
        self.fault.set(Some((at, fault)));
    }

    /// How many operations there were.
    pub(super) fn operations(&self) -> usize {
        self.count.get()
    }

    /// The planned operation, once it was reached.
    pub(super) fn struck(&self) -> &'static str {
        self.struck.get()
    }

    /// The machine starts again.
    pub(super) fn restart(&self, survives: Survives) {
        let mut state = self.state.borrow_mut();
        let chance = |seed: u64, name: &Path, part: u64| {
            let digest = Sha256::digest(format!("{seed} {part} {}", name.display()));
            u64::from(digest[0]) % part
        };
        let all: BTreeSet<_> = state
            .seen
            .keys()
            .chain(state.durable.keys())
            .cloned()
            .collect();
        let mut names = Names::new();
        for name in all {
            let (seen, durable) = (state.seen.get(&name), state.durable.get(&name));
            let kept = match survives {
                Survives::Nothing => durable,
                Survives::Chance(seed) if chance(seed, &name, 2) == 0 => durable,
                Survives::Everything | Survives::Names | Survives::Chance(_) => seen,
            };
            if let Some(node) = kept {
                // Parents sort before their children.
                let whole = name
                    .parent()
                    .is_none_or(|p| p == Path::new("/") || names.contains_key(p));
                if whole {
                    names.insert(name, *node);
                }
            }
        }
        for (number, file) in state.files.iter_mut().enumerate() {
            if file.seen != file.durable {
                match survives {
                    Survives::Everything => {}
                    Survives::Nothing => file.seen.clone_from(&file.durable),
                    Survives::Names => file.seen.clear(),
                    Survives::Chance(seed) => {
                        let kept = chance(seed, Path::new(&number.to_string()), 5);
                        let kept = file.seen.len() * usize::try_from(kept).unwrap() / 4;
                        file.seen.truncate(kept);
                    }
                }
            }
            file.durable.clone_from(&file.seen);
        }
        state.seen.clone_from(&names);
        state.durable = names;
        self.off.set(false);
        self.fault.set(None);
    }

    /// The files as a reader sees them.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state.borrow();
        let file = |(name, node): (&PathBuf, &Node)| match node {
            Node::Dir => None,
            Node::File(file) => Some((name.clone(), state.files[*file].seen.clone())),
        };
        state.seen.iter().filter_map(file).collect()
    }

    /// One operation, with what is planned for it.
    fn operate<T>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let broken = || io::Error::other("simulated");
        if self.off.get() {
            return Err(broken());
        }
        let now = self.count.get();
        self.count.set(now + 1);
        let fault = self
            .fault
            .get()
            .filter(|(at, _)| *at == now)
            .map(|(_, fault)| fault);
        self.off
            .set(matches!(fault, Some(Fault::CutBefore | Fault::CutAfter)));
        if fault.is_some() {
            self.struck.set(name);
        }
        if matches!(fault, Some(Fault::CutBefore | Fault::Fails)) {
            return Err(broken());
        }
        let done = work(&mut self.state.borrow_mut());
        match fault {
            Some(_) if done.is_err() => self.struck.set("had failed anyway"),
            Some(_) => return Err(broken()),
            None => {}
        }
        done
    }
}

impl State {
    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent)
                if parent != Path::new("/") && self.seen.get(parent) != Some(&Node::Dir) =>
            {
                Err(io::ErrorKind::NotFound.into())
            }
            _ => Ok(()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.seen.get(path) {
            Some(Node::File(file)) => Ok(*file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Disk for Power {
    type File = usize;

    fn make_dir(&self, path: &Path) -> io::Result<bool> {
        self.operate("make_dir", |state| {
            state.parent_exists(path)?;
            let new = !state.seen.contains_key(path);
            state.seen.insert(path.to_owned(), Node::Dir);
            Ok(new)
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<usize> {
        self.operate("write", |state| {
            state.parent_exists(path)?;
            state.files.push(Content {
                seen: bytes.to_vec(),
                durable: Vec::new(),
            });
            let file = state.files.len() - 1;
            state.seen.insert(path.to_owned(), Node::File(file));
            Ok(file)
        })
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        self.operate("sync", |state| {
            let content = &mut state.files[*file];
            content.durable.clone_from(&content.seen);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate("rename", |state| {
            state.parent_exists(to)?;
            let file = state.file(from)?;
            state.seen.remove(from);
            state.seen.insert(to.to_owned(), Node::File(file));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.operate("sync_dir", |state| {
            let inside = |name: &Path| name.parent() == Some(path);
            state.durable.retain(|name, _| !inside(name));
            let seen = state.seen.iter().filter(|(name, _)| inside(name));
            state
                .durable
                .extend(seen.map(|(name, node)| (name.clone(), *node)));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate("remove", |state| {
            state.file(path)?;
            state.seen.remove(path);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.operate("remove_dir", |state| {
            if state.seen.keys().any(|name| name.parent() == Some(path)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            state
                .seen
                .remove(path)
                .map(|_| ())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.operate("list", |state| {
            if !state.seen.contains_key(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let inside = state.seen.keys().filter(|name| name.parent() == Some(path));
            let name = |name: &PathBuf| name.file_name().and_then(OsStr::to_str).map(str::to_owned);
            Ok(inside.filter_map(name).collect())
        })
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        self.operate("read", |state| {
            let bytes = state.files[state.file(path)?].seen.clone();
            if bytes.len() > limit {
                Err(io::ErrorKind::FileTooLarge.into())
            } else {
                Ok(bytes)
            }
        })
    }
}
