//! The files that sockets are: ours, which go when they are closed, and the kubelet's, which is seen to change.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use crate::device::ResourceName;

/// How the names of our sockets begin and end.
const PREFIX: &str = "partita-";
const SUFFIX: &str = ".sock";
/// Characters of the resource in such a name. A socket's path may have 107 bytes, and other folders than the kubelet's usual one are longer.
const SHORT_MAX: usize = 24;

/// Which file a path is: another one after it was removed and made anew, even under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    number: u64,
    made: (i64, i64),
}

impl Identity {
    /// None if there is no such file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let data = fs::symlink_metadata(path).ok()?;
        // Nobody changes a socket's owner or mode while it is in use, so this is when it was made.
        Some(Self { device: data.dev(), number: data.ino(), made: (data.ctime(), data.ctime_nsec()) })
    }
}

/// A socket of ours that is listened on. Its file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) path: PathBuf,
    identity: Option<Identity>,
}

impl Socket {
    /// Listens in `folder` under a name that was not used before: by chance, and where a file of that name is there it is refused.
    pub(super) fn listen(folder: &Path, resource: &ResourceName) -> Result<(Self, UnixListener), (PathBuf, io::Error)> {
        let mut short = resource.short().to_owned();
        short.truncate(SHORT_MAX);
        let random = getrandom::u32().map_err(|error| (folder.to_owned(), io::Error::other(error)))?;
        let path = folder.join(format!("{PREFIX}{short}-{random:08x}{SUFFIX}"));
        let listen = || {
            let listener = UnixListener::bind(&path)?;
            // The kubelet is root, and nobody else has business here.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = listen().map_err(|error| (path.clone(), error))?;
        let identity = Identity::of(&path);
        Ok((Self { path, identity }, listener))
    }

    /// Whether the file is still there: the kubelet removes it when it starts.
    pub(super) fn is_there(&self) -> bool {
        self.identity.is_some() && Identity::of(&self.path) == self.identity
    }

    /// What the kubelet is told.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_there() {
            // Whoever removed it in between did what was wanted.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes sockets of ours that nobody listens on. What cannot be removed stays: no name is used twice, so it is in nobody's way.
pub(super) fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        let is_socket = || entry.file_type().is_ok_and(|kind| kind.is_socket());
        let is_stale = || UnixStream::connect(entry.path()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if is_ours && is_socket() && is_stale() && fs::remove_file(entry.path()).is_ok() {
            tracing::info!(socket = %entry.path().display(), "removed a socket that an earlier process left");
        }
    }
}
