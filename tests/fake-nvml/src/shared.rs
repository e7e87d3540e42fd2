//! The GPUs of all processes: one file, replaced whole under a lock.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::machine::State;

/// The GPUs. Its first line counts the changes, the rest is JSON.
pub(crate) const FILE: &str = "state.json";
const LOCK: &str = "state.lock";
const COUNT_DIGITS: usize = 20;

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
    pub(crate) fn create(&self, state: State) -> io::Result<()> {
        let _lock = self.lock()?;
        let count = self.count().unwrap_or(0);
        self.write(count + 1, &state)
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
        let count = self.count()?;
        if seen.as_ref().is_none_or(|seen| seen.0 != count) {
            let text = fs::read_to_string(self.folder.join(FILE))?;
            let state = serde_json::from_str(text.get(COUNT_DIGITS..).unwrap_or_default())?;
            *seen = Some((count, state));
        }
        seen.as_ref().map(|seen| &seen.1).ok_or_else(|| io::Error::other("nothing was read"))
    }

    /// How often the GPUs changed.
    fn count(&self) -> io::Result<u64> {
        let mut digits = [0; COUNT_DIGITS];
        File::open(self.folder.join(FILE))?.read_exact(&mut digits)?;
        String::from_utf8_lossy(&digits).trim().parse().map_err(io::Error::other)
    }

    /// A process that is killed meanwhile leaves the file as it was.
    fn write(&self, count: u64, state: &State) -> io::Result<()> {
        let new = self.folder.join("state.new");
        let mut file = File::create(&new)?;
        let mut text = format!("{count:<width$}\n", width = COUNT_DIGITS - 1).into_bytes();
        serde_json::to_writer(&mut text, state)?;
        file.write_all(&text)?;
        fs::rename(new, self.folder.join(FILE))
    }

    fn lock(&self) -> io::Result<File> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(LOCK))?;
        lock.lock()?;
        Ok(lock)
    }
}
