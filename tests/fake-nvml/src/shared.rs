//! The GPUs of all processes: one file, read and written under a lock.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::machine::State;

/// The GPUs. Its first line counts the changes and tells how many bytes of JSON follow.
pub(crate) const FILE: &str = "state.json";
const LOCK: &str = "state.lock";
const DIGITS: usize = 20;
const LINE: usize = 2 * DIGITS + 1;

/// A folder that holds GPUs.
#[derive(Debug)]
pub(crate) struct Shared {
    folder: PathBuf,
    /// What was read last, so that nothing is parsed that did not change.
    seen: Mutex<Option<(u64, State)>>,
}

impl Shared {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), seen: Mutex::new(None) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there are GPUs at all.
    pub(crate) fn exists(&self) -> bool {
        self.folder.join(FILE).exists()
    }

    /// Writes GPUs for the first time, or others in their place.
    pub(crate) fn create(&self, state: &State) -> io::Result<()> {
        let _lock = self.lock()?;
        let count = self.line().map_or(0, |line| line.0);
        self.write(count + 1, state)
    }

    /// Looks at the GPUs.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> io::Result<T> {
        let _lock = self.lock()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(look(self.current(&mut seen)?))
    }

    /// Changes the GPUs, unless `change` fails.
    pub(crate) fn change<T, E>(&self, change: impl FnOnce(&mut State) -> Result<T, E>) -> io::Result<Result<T, E>> {
        let _lock = self.lock()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.current(&mut seen)?.clone();
        let count = seen.as_ref().map_or(0, |seen| seen.0) + 1;
        let answer = change(&mut state);
        if answer.is_ok() {
            self.write(count, &state)?;
            *seen = Some((count, state));
        }
        Ok(answer)
    }

    fn current<'s>(&self, seen: &'s mut Option<(u64, State)>) -> io::Result<&'s State> {
        let (count, length) = self.line()?;
        if seen.as_ref().is_none_or(|seen| seen.0 != count) {
            let text = fs::read(self.folder.join(FILE))?;
            let state = serde_json::from_slice(text.get(LINE..LINE + length).unwrap_or_default())?;
            *seen = Some((count, state));
        }
        seen.as_ref().map(|seen| &seen.1).ok_or_else(|| io::Error::other("nothing was read"))
    }

    /// How often the GPUs changed, and how many bytes they take.
    fn line(&self) -> io::Result<(u64, usize)> {
        let mut digits = [0; LINE];
        File::open(self.folder.join(FILE))?.read_exact(&mut digits)?;
        let text = String::from_utf8_lossy(&digits);
        let (count, length) = text.split_at(DIGITS);
        Ok((count.trim().parse().map_err(io::Error::other)?, length.trim().parse().map_err(io::Error::other)?))
    }

    /// In one call to the system, so a process that is killed meanwhile leaves the old or the new. What is left of a longer one is behind
    /// the length.
    fn write(&self, count: u64, state: &State) -> io::Result<()> {
        let json = serde_json::to_vec(state)?;
        let mut text = format!("{count:DIGITS$}{:DIGITS$}\n", json.len()).into_bytes();
        text.extend(json);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(FILE))?;
        file.write_all_at(&text, 0)
    }

    fn lock(&self) -> io::Result<File> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(LOCK))?;
        lock.lock()?;
        Ok(lock)
    }
}
