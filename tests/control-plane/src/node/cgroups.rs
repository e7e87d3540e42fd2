//! The cgroups of a node's containers: all below one, which is removed with the node.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// Where the kernel shows cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// How their names begin; the number of the process that made them follows.
const PREFIX: &str = "partita-node-";
/// Killed processes leave their cgroup a little later: how often that is looked for, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS: usize = 250;

/// A name of which there is no cgroup yet.
pub(super) fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes a cgroup from every hierarchy, after the last process of it has ended. One that is in use stays.
pub(super) fn remove(name: &str) {
    for folder in hierarchies().into_iter().map(|folder| folder.join(name)).filter(|folder| folder.exists()) {
        let mut looks = 0;
        while !remove_below(&folder) && looks < LOOKS {
            looks += 1;
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Removes the cgroups of processes that are gone.
pub(super) fn remove_abandoned() {
    for name in hierarchies().iter().flat_map(|folder| folders(folder)).filter_map(|path| path.file_name()?.to_str().map(str::to_owned)) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            remove(&name);
        }
    }
}

/// The root of each hierarchy: the folder itself, and with version 1 one for each controller.
fn hierarchies() -> Vec<PathBuf> {
    std::iter::once(PathBuf::from(CGROUPS)).chain(folders(Path::new(CGROUPS))).collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Whether it could be removed. It has files that cannot be, and goes with them.
fn remove_below(folder: &Path) -> bool {
    // All are tried, also after one that is in use.
    let left = folders(folder).iter().filter(|folder| !remove_below(folder)).count();
    left == 0 && fs::remove_dir(folder).is_ok()
}
