//! What this program made, kept over restarts in one file: replaced whole, so that whoever reads it finds the old or the new.
//!
//! The file only says what was *ours* and what was *half done*; what exists is always read from the driver. So a file that is lost or
//! damaged costs knowledge of who made what, and never a partition that is in use.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    fault,
    gpu::{ComputeMode, MigMode},
    mig::Spec,
};

/// The version of the file's form. Another is not read.
const VERSION: u32 = 1;
/// How long a lock is waited for. A program that the last agent had just begun to run may have it for a moment longer than the agent.
const LOCK_MAX: Duration = Duration::from_secs(1);
const LOCK_EVERY: Duration = Duration::from_millis(5);

/// Why what was made cannot be kept or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The folder or file cannot be read or written.
    #[error("{path} cannot be {done}: {source}; nothing is made or destroyed until it can, so make room and let this program write there")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        done: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another program of ours runs.
    #[error("{0} is locked: another partita agent runs on this node; end one of them")]
    Locked(PathBuf),
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is being made, so what there is of it may be half.
    Making,
    /// It was made, or was found whole.
    Made,
    /// It is being destroyed.
    Destroying,
}

/// A partition that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// UUID of its GPU.
    pub gpu: String,
    /// What it is.
    #[serde(flatten)]
    pub spec: Spec,
    /// How far it is.
    pub stage: Stage,
    /// For one that others made: term and generation of the last layout before it was found. No layout up to that one meant it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_after: Option<(i64, i64)>,
}

/// What was changed of a GPU as a whole, and how it was found. Noted before it is changed, and forgotten once it is as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// UUID of the GPU.
    pub gpu: String,
    /// The MIG mode as it was found. Kept over boots: Ampere keeps the mode in itself, so what was switched stays switched; later models
    /// forget it, and then it is as it was found or is left as it is found next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<MigMode>,
    /// The compute mode as it was found. Forgotten at a boot, which makes it the default whatever it was: that is how the machine would be
    /// without this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_mode: Option<ComputeMode>,
    /// What is shared by MPS. Forgotten at a boot, which no daemon survives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mps: Option<Shared>,
    /// Its time slices are not the driver's. Forgotten at a boot, as the driver does.
    #[serde(default)]
    pub time_sliced: bool,
}

impl Changed {
    /// Whether it is as it was found.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self { gpu: self.gpu.clone(), ..Self::default() }
    }
}

/// A GPU that is shared by MPS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Its shares, MiB each.
    pub shares: Vec<u32>,
    /// What a client may have at most, MiB.
    pub limit_mib: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    boot_id: String,
    entries: Vec<Entry>,
    #[serde(default)]
    changed: Vec<Changed>,
}

impl Content {
    /// What of it is still so after another boot.
    fn after_boot(self, boot_id: &str) -> Self {
        let kept = |one: Changed| Changed { gpu: one.gpu, mig: one.mig, ..Changed::default() };
        let mut changed: Vec<Changed> = self.changed.into_iter().map(kept).collect();
        changed.retain(|one| !one.is_nothing());
        Self { version: VERSION, boot_id: boot_id.to_owned(), entries: Vec::new(), changed }
    }
}

/// The file, locked for as long as this lives.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    content: Content,
    _lock: File,
}

impl Checkpoint {
    /// Opens the file. After another boot, and from a damaged file, nothing is known; the second is told, for people, and the file kept
    /// beside the new one.
    ///
    /// # Errors
    /// If the folder cannot be used or another program has the file.
    pub fn open(path: &Path, boot_id: &str) -> Result<(Self, Option<String>), CheckpointError> {
        let failed = |done| move |source| CheckpointError::File { path: path.to_owned(), done, source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("made"))?;
        }
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(path.with_extension("lock")).map_err(failed("locked"))?;
        let until = Instant::now() + LOCK_MAX;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_EVERY),
                Err(fs::TryLockError::WouldBlock) => return Err(CheckpointError::Locked(path.to_owned())),
                Err(fs::TryLockError::Error(source)) => return Err(failed("locked")(source)),
            }
        }
        let fresh = || Content::default().after_boot(boot_id);
        let (content, damage) = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (fresh(), None),
            Err(source) => return Err(failed("read")(source)),
            Ok(bytes) => match parse(&bytes) {
                Ok(content) if content.boot_id == boot_id => (content, None),
                Ok(content) => (content.after_boot(boot_id), None),
                Err(why) => {
                    let aside = path.with_extension("damaged");
                    fs::rename(path, &aside).map_err(failed("put aside"))?;
                    let told = format!(
                        "{} is damaged ({why}) and was kept as {}; every partition that exists is adopted and none is destroyed for it",
                        path.display(),
                        aside.display()
                    );
                    (fresh(), Some(told))
                }
            },
        };
        Ok((Self { path: path.to_owned(), content, _lock: lock }, damage))
    }

    /// What is known.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.content.entries
    }

    /// What is known of a partition.
    #[must_use]
    pub fn get(&self, gpu: &str, spec: &Spec) -> Option<&Entry> {
        self.content.entries.iter().find(|entry| entry.gpu == gpu && entry.spec == *spec)
    }

    /// Keeps what is known of a partition. If it cannot be kept, nothing is known anew.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn put(&mut self, entry: Entry) -> Result<(), CheckpointError> {
        if self.get(&entry.gpu, &entry.spec) == Some(&entry) {
            return Ok(());
        }
        let mut entries = self.without(&entry.gpu, &entry.spec);
        entries.push(entry);
        self.replace(entries)
    }

    /// Forgets a partition.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remove(&mut self, gpu: &str, spec: &Spec) -> Result<(), CheckpointError> {
        if self.get(gpu, spec).is_none() {
            return Ok(());
        }
        let entries = self.without(gpu, spec);
        self.replace(entries)
    }

    /// Keeps only what `keep` says.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> Result<(), CheckpointError> {
        let entries: Vec<Entry> = self.content.entries.iter().filter(|entry| keep(entry)).cloned().collect();
        if entries.len() == self.content.entries.len() { Ok(()) } else { self.replace(entries) }
    }

    /// What was changed of a GPU as a whole.
    #[must_use]
    pub fn changed(&self, gpu: &str) -> Changed {
        let none = || Changed { gpu: gpu.to_owned(), ..Changed::default() };
        self.content.changed.iter().find(|one| one.gpu == gpu).cloned().unwrap_or_else(none)
    }

    /// Keeps what was changed of a GPU as a whole. If it cannot be kept, nothing is known anew.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn change(&mut self, gpu: &str, edit: impl FnOnce(&mut Changed)) -> Result<(), CheckpointError> {
        let was = self.changed(gpu);
        let mut is = was.clone();
        edit(&mut is);
        if is == was {
            return Ok(());
        }
        let mut changed: Vec<Changed> = self.content.changed.iter().filter(|one| one.gpu != gpu).cloned().collect();
        if !is.is_nothing() {
            changed.push(is);
            changed.sort_by(|one, other| one.gpu.cmp(&other.gpu));
        }
        let (boot_id, entries) = (self.content.boot_id.clone(), self.content.entries.clone());
        self.keep(Content { version: VERSION, boot_id, entries, changed })
    }

    fn without(&self, gpu: &str, spec: &Spec) -> Vec<Entry> {
        self.content.entries.iter().filter(|entry| entry.gpu != gpu || entry.spec != *spec).cloned().collect()
    }

    fn replace(&mut self, mut entries: Vec<Entry>) -> Result<(), CheckpointError> {
        entries.sort_by(|one, other| (&one.gpu, &one.spec).cmp(&(&other.gpu, &other.spec)));
        let (boot_id, changed) = (self.content.boot_id.clone(), self.content.changed.clone());
        self.keep(Content { version: VERSION, boot_id, entries, changed })
    }

    fn keep(&mut self, content: Content) -> Result<(), CheckpointError> {
        self.write(&content).map_err(|source| CheckpointError::File { path: self.path.clone(), done: "written", source })?;
        self.content = content;
        Ok(())
    }

    fn write(&self, content: &Content) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        fault::point("checkpoint-written");
        fs::rename(&new, &self.path)?;
        fault::point("checkpoint-renamed");
        // The name is in the folder, which is written by itself.
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

fn parse(bytes: &[u8]) -> Result<Content, String> {
    let content: Content = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if content.version == VERSION { Ok(content) } else { Err(format!("version {}, this program writes {VERSION}", content.version)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn entry(start: u8, stage: Stage) -> Entry {
        Entry { gpu: "GPU-1".to_owned(), spec: Spec { profile: "1g.10gb".to_owned(), start }, stage, found_after: None }
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_gone_after_a_boot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state.json");
        let (mut one, damage) = Checkpoint::open(&path, "a").unwrap();
        assert_eq!(damage, None);
        one.put(entry(0, Stage::Making)).unwrap();
        one.put(entry(1, Stage::Made)).unwrap();
        one.put(entry(0, Stage::Made)).unwrap();
        one.remove("GPU-1", &entry(1, Stage::Made).spec).unwrap();
        assert!(matches!(Checkpoint::open(&path, "a"), Err(CheckpointError::Locked(_))));
        drop(one);
        let (again, _) = Checkpoint::open(&path, "a").unwrap();
        assert_eq!(again.entries(), [entry(0, Stage::Made)]);
        drop(again);
        assert!(Checkpoint::open(&path, "b").unwrap().0.entries().is_empty());
    }

    #[test]
    fn how_a_gpu_was_found_outlives_a_boot_as_far_as_the_gpu_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let (mut one, _) = Checkpoint::open(&path, "a").unwrap();
        let on = MigMode { current: true, pending: true };
        let edit = |changed: &mut Changed| {
            changed.mig = Some(on);
            changed.compute_mode = Some(ComputeMode::Prohibited);
            changed.mps = Some(Shared { shares: vec![1024, 2048], limit_mib: 2048 });
            changed.time_sliced = true;
        };
        one.change("GPU-1", edit).unwrap();
        one.change("GPU-2", |changed| changed.time_sliced = true).unwrap();
        let before = one.changed("GPU-1");
        drop(one);
        let (again, _) = Checkpoint::open(&path, "a").unwrap();
        assert_eq!(again.changed("GPU-1"), before);
        drop(again);
        let (mut after, _) = Checkpoint::open(&path, "b").unwrap();
        assert_eq!(after.changed("GPU-1"), Changed { gpu: "GPU-1".to_owned(), mig: Some(on), ..Changed::default() });
        assert!(after.changed("GPU-2").is_nothing());
        after.put(entry(0, Stage::Made)).unwrap();
        after.change("GPU-1", |changed| changed.mig = None).unwrap();
        drop(after);
        let (last, _) = Checkpoint::open(&path, "b").unwrap();
        assert!(last.changed("GPU-1").is_nothing() && last.entries().len() == 1);
    }

    #[test]
    fn a_damaged_file_is_told_and_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for bytes in [&b""[..], b"{", b"\xff\xfe", br#"{"version":7,"boot_id":"a","entries":[]}"#] {
            fs::write(&path, bytes).unwrap();
            let (checkpoint, damage) = Checkpoint::open(&path, "a").unwrap();
            assert!(checkpoint.entries().is_empty() && damage.unwrap().contains("adopted"));
            assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
        }
    }

    #[test]
    fn a_full_disk_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let (mut checkpoint, _) = Checkpoint::open(&path, "a").unwrap();
        checkpoint.put(entry(0, Stage::Made)).unwrap();
        symlink("/dev/full", path.with_extension("new")).unwrap();
        let error = checkpoint.put(entry(1, Stage::Making)).unwrap_err().to_string();
        assert!(error.contains("No space left") && error.contains("make room"), "{error}");
        assert_eq!(checkpoint.entries(), [entry(0, Stage::Made)]);
        drop(checkpoint);
        assert_eq!(Checkpoint::open(&path, "a").unwrap().0.entries(), [entry(0, Stage::Made)]);
    }
}
