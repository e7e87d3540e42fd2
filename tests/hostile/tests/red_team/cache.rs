//! Files that something else wrote are never run.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use partita_hostile::{COMPONENT, Describe};
use partita_policy::{CacheError, Host, HostError, Limits};
use tempfile::TempDir;

use crate::support::config;

/// A cache that holds the compiled guest: a copy of one that a host filled.
fn filled() -> (TempDir, PathBuf) {
    static FIRST: LazyLock<(TempDir, PathBuf)> = LazyLock::new(fill);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cache");
    DirBuilder::new().mode(0o700).create(&dir).unwrap();
    for file in fs::read_dir(&FIRST.1).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    assert!(is_cached(&dir, COMPONENT));
    (folder, dir)
}

/// A cache that a host fills with the compiled guest.
fn fill() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cache");
    assert!(!is_cached(&dir, COMPONENT));
    (folder, dir)
}

/// Loads `component` with the cache in `dir` and says whether it came from there.
fn is_cached(dir: &Path, component: &[u8]) -> bool {
    let host = Host::new(config(Some(dir))).unwrap();
    host.load("guest", component, "", Limits::default()).unwrap().module.cached
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect()
}

/// What is logged while `run` runs.
fn logged(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// Refuses the entry with `words`, compiles anew, and leaves a good entry.
#[track_caller]
fn assert_recompiled(dir: &Path, words: &str) {
    let log = logged(|| assert!(!is_cached(dir, COMPONENT)));
    assert!(log.contains("WARN") && log.contains(words), "no {words:?} in {log:?}");
    assert!(is_cached(dir, COMPONENT));
}

#[test]
fn changed_bytes_are_refused_wherever_they_are() {
    let (_folder, dir) = filled();
    let entry = &entries(&dir)[0];
    let good = fs::read(entry).unwrap();
    for (at, words) in [(0, "another format"), (8, "authentication"), (good.len() - 1, "authentication")] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(entry, bad).unwrap();
        assert_recompiled(&dir, words);
        assert_eq!(fs::read(entry).unwrap(), good);
    }
}

#[test]
fn short_and_empty_files_are_refused() {
    let (_folder, dir) = filled();
    let entry = &entries(&dir)[0];
    let good = fs::read(entry).unwrap();
    for (length, words) in [(0, "too short"), (20, "too short"), (good.len() - 1, "authentication")] {
        fs::write(entry, &good[..length]).unwrap();
        assert_recompiled(&dir, words);
    }
}

#[test]
fn an_entry_under_another_name_is_refused() {
    let (_folder, dir) = filled();
    let guest = entries(&dir).remove(0);
    let other = Describe { name: "other", ..Describe::default() }.component();
    assert!(!is_cached(&dir, &other));
    let other = entries(&dir).into_iter().find(|path| *path != guest).unwrap();
    fs::copy(&other, &guest).unwrap();
    assert_recompiled(&dir, "authentication");
}

#[test]
fn an_entry_of_another_installation_is_refused() {
    let (_one, here) = filled();
    let (_other, there) = fill();
    let (here_entry, there_entry) = (entries(&here).remove(0), entries(&there).remove(0));
    assert_eq!(here_entry.file_name(), there_entry.file_name());
    fs::copy(there_entry, here_entry).unwrap();
    assert_recompiled(&here, "authentication");
}

#[test]
fn an_entry_that_others_can_reach_is_refused() {
    let (_folder, dir) = filled();
    let entry = &entries(&dir)[0];
    fs::set_permissions(entry, Permissions::from_mode(0o644)).unwrap();
    assert_recompiled(&dir, "mode 644");
    assert_eq!(fs::metadata(entry).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_directory_or_key_that_others_can_reach_stops_the_host() {
    let (_folder, dir) = filled();
    let error = || match Host::new(config(Some(&dir))).unwrap_err() {
        HostError::Cache(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(error(), CacheError::Mode { mode: 0o777, .. }));
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(dir.join("key"), Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(error(), CacheError::Mode { mode: 0o604, .. }));
    fs::write(dir.join("key"), "short").unwrap();
    fs::set_permissions(dir.join("key"), Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(error(), CacheError::Io { .. }));
}

#[test]
fn a_directory_of_another_user_stops_the_host() {
    let (_folder, dir) = filled();
    match chown(&dir, Some(12_345), None) {
        Ok(()) => assert!(matches!(Host::new(config(Some(&dir))), Err(HostError::Cache(CacheError::Owner { owner: 12_345, .. })))),
        // Only root can make such a directory. Anyone else finds one: the root directory is root's.
        Err(_) => assert!(matches!(Host::new(config(Some(Path::new("/")))), Err(HostError::Cache(CacheError::Owner { owner: 0, .. })))),
    }
}

#[test]
fn a_directory_must_be_one() {
    let (folder, dir) = filled();
    let link = folder.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(matches!(Host::new(config(Some(&link))), Err(HostError::Cache(CacheError::Kind { .. }))));
    assert!(matches!(Host::new(config(Some(&entries(&dir)[0]))), Err(HostError::Cache(_))));
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_only() {
    let (_folder, dir) = filled();
    let host = Host::new(config(Some(&dir))).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let log = logged(|| assert!(!host.load("guest", COMPONENT, "", Limits::default()).unwrap().module.cached));
    assert!(log.contains("cannot cache"), "{log}");
}
