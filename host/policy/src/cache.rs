//! Compiled components on disk, each with an authentication code.
//!
//! Loading machine code is as good as running it, so a file counts only if this installation wrote it: the directory and its files belong to
//! this user alone, and an entry carries an HMAC-SHA256 of its name and its bytes under a random key that lives beside it. What does not
//! verify is reported, deleted and compiled anew. The name of an entry is a hash of the component, of the version of wasmtime, and of all that
//! makes machine code incompatible (settings, processor).

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use wasmtime::Engine;

use crate::artifact::Artifact;
use crate::limits::{CACHE_ENTRIES, MODULE_BYTES};
use crate::text::hex;

/// First bytes of an entry; the number rises when the format changes.
const MAGIC: &[u8; 8] = b"partita\x01";
/// The block size of SHA-256, the longest key that HMAC uses as it is.
const KEY_BYTES: usize = 64;
const TAG_BYTES: usize = 32;
const KEY_FILE: &str = "key";
const EXTENSION: &str = "cwasm";
/// Bytes of an entry that are worth reading: a multiple of what the compiler may write by default.
const ENTRY_BYTES: u64 = 32 * MODULE_BYTES as u64;
/// Permission bits of others than the owner.
const OTHERS: u32 = 0o077;

/// Why a directory cannot hold compiled components.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Another user owns it or a file in it.
    #[error("`{path}` belongs to user {owner} and not to the user {user} of this process; choose another cache directory or remove it")]
    Owner {
        /// The directory or file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Others can reach it.
    #[error("`{path}` has mode {mode:03o}, so that other users can reach it; make it the owner's alone (`chmod go= {path}`)")]
    Mode {
        /// The directory or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is something else.
    #[error("`{path}` is not a {wanted}; choose another cache directory or remove it")]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// The operating system refused.
    #[error("the cache of compiled policies fails at `{path}`")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A directory of compiled components.
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
}

/// Without the key.
impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The name of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id([u8; 32]);

impl Id {
    /// The name under which the machine code of `component` for `engine` is kept.
    pub(crate) fn new(component: &[u8], engine: &Engine) -> Self {
        let mut hash = HashWriter(Sha256::new());
        hash.0.update(Sha256::digest(component));
        // Covers the whole version of wasmtime, patch number included, the configuration, and the features of the processor.
        engine.precompile_compatibility_hash().hash(&mut hash);
        Self(hash.0.finalize().into())
    }
}

/// Feeds what a `Hash` writes to SHA-256, since a cache must not rest on a hash that collides.
struct HashWriter(Sha256);

impl Hasher for HashWriter {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_le_bytes(std::array::from_fn(|index| digest[index]))
    }
}

impl Cache {
    /// Opens `dir`, and makes it and its key on the first start.
    pub(crate) fn open(dir: &Path) -> Result<Self, CacheError> {
        let io = |source| CacheError::Io { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let metadata = fs::symlink_metadata(dir).map_err(io)?;
        if !metadata.is_dir() {
            return Err(CacheError::Kind { path: dir.to_owned(), wanted: "directory" });
        }
        private(dir, &metadata)?;
        Ok(Self { dir: dir.to_owned(), key: key(dir)? })
    }

    /// The artifact of `id`, if there is an entry and it is genuine. Any other entry is reported and deleted.
    pub(crate) fn get(&self, id: Id) -> Option<Artifact> {
        let path = self.path(id);
        let wrong = match self.read(&path, id) {
            Ok(artifact) => return artifact,
            Err(wrong) => wrong,
        };
        tracing::warn!(path = %path.display(), "refused a compiled policy in the cache and compiles it again: {wrong}");
        self.remove(id);
        None
    }

    /// Keeps `artifact`. A cache that cannot be written costs time at the next start and nothing else, so that is reported and forgiven.
    pub(crate) fn put(&self, id: Id, artifact: &Artifact) {
        if let Err(error) = self.write(id, artifact.bytes()).and_then(|()| self.evict()) {
            tracing::warn!(path = %self.dir.display(), "cannot cache a compiled policy: {error}");
        }
    }

    /// Deletes the entry of `id`, if there is one.
    pub(crate) fn remove(&self, id: Id) {
        let path = self.path(id);
        if let Err(error) = delete(&path) {
            tracing::warn!(path = %path.display(), "cannot delete a file of the cache: {error}");
        }
    }

    fn path(&self, id: Id) -> PathBuf {
        self.dir.join(hex(&id.0)).with_extension(EXTENSION)
    }

    fn read(&self, path: &Path, id: Id) -> Result<Option<Artifact>, String> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        private(path, &metadata).map_err(|error| error.to_string())?;
        if !metadata.is_file() || metadata.len() > ENTRY_BYTES {
            return Err(format!("it is no file of at most {ENTRY_BYTES} bytes"));
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        (&mut file).take(ENTRY_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let entry = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(TAG_BYTES));
        let Some((tag, code)) = entry else { return Err("it is too short or of another format".into()) };
        self.mac(id, code)
            .verify_slice(tag)
            .map_err(|_| "its authentication code is wrong, so something else wrote or changed it".to_owned())?;
        Ok(Some(Artifact::vouched(code.to_vec())))
    }

    fn write(&self, id: Id, code: &[u8]) -> io::Result<()> {
        // `NamedTempFile` makes files of mode 0600. The rename is atomic: a reader sees the whole entry or none.
        let mut file = NamedTempFile::new_in(&self.dir)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.mac(id, code).finalize().into_bytes())?;
        file.write_all(code)?;
        file.persist(self.path(id)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Deletes the oldest files beyond [`CACHE_ENTRIES`]: entries, and what a process that died left half written.
    fn evict(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            // A file that another process deleted meanwhile needs no deleting.
            let Ok(modified) = file.metadata().and_then(|metadata| metadata.modified()) else { continue };
            if file.file_name() != KEY_FILE {
                files.push((modified, file.path()));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(CACHE_ENTRIES);
        files[..surplus].iter().try_for_each(|(_, path)| delete(path))
    }

    /// The authentication code of machine code under a name.
    fn mac(&self, id: Id, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        mac.update(MAGIC);
        mac.update(&id.0);
        mac.update(code);
        mac
    }
}

/// Deletes `path`, unless somebody else did.
fn delete(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// The key of the installation; made at random on the first start.
fn key(dir: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    let path = dir.join(KEY_FILE);
    let io = |source| CacheError::Io { path: path.clone(), source };
    if !path.try_exists().map_err(io)? {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(|error| io(io::Error::other(error)))?;
        let mut file = NamedTempFile::new_in(dir).map_err(io)?;
        file.write_all(&key).map_err(io)?;
        // Of two processes that start at once, the second finds the key of the first.
        if let Err(error) = file.persist_noclobber(&path)
            && error.error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(io(error.error));
        }
    }
    let mut file = File::open(&path).map_err(io)?;
    private(&path, &file.metadata().map_err(io)?)?;
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key).map_err(io)?;
    Ok(key)
}

/// Refuses what another user owns or can reach.
fn private(path: &Path, metadata: &fs::Metadata) -> Result<(), CacheError> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(CacheError::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(CacheError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}
