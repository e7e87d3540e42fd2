//! Where one control plane keeps its data, and the ports that it listens on.

use std::{
    env, fs,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use crate::error::{Doing, Error};

/// A folder that goes when this is dropped. One whose owner was killed goes when the next one is made.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked as long as the folder is in use.
    _owner: File,
}

/// The file in a folder that its owner keeps locked.
const OWNER: &str = "owner";

impl Folder {
    pub(crate) fn new() -> Result<Self, Error> {
        let home = env::temp_dir().join(format!("partita-control-plane-{}", rustix::process::getuid().as_raw()));
        Self::new_in(&home).doing(|| format!("could not make a folder for the control plane in {}", home.display()))
    }

    fn new_in(home: &Path) -> io::Result<Self> {
        fs::create_dir_all(home)?;
        // So that nobody removes a folder that is made but not locked yet. Released when it is closed, at the end of this function.
        let gate = File::create(home.join("gate"))?;
        gate.lock()?;
        for entry in fs::read_dir(home)? {
            let path = entry?.path();
            let abandoned = |path: &Path| File::open(path.join(OWNER)).is_ok_and(|owner| owner.try_lock().is_ok());
            if path.is_dir() && abandoned(&path) {
                // Another user's, or in use after all: it stays.
                let _ = fs::remove_dir_all(path);
            }
        }
        let path = tempfile::Builder::new().prefix("run-").tempdir_in(home)?.keep();
        let owner = File::create(path.join(OWNER))?;
        owner.lock()?;
        Ok(Self { path, _owner: owner })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What remains is removed by the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Below the ports that systems give to outgoing connections, so that none of those takes a port between a stop and the next start.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports tried before giving up.
const TRIES: usize = 1000;

/// `N` different ports of the loopback address that nobody listens on, chosen at random.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let mut held: Vec<TcpListener> = Vec::new();
    let mut ports = [0; N];
    for _ in 0..TRIES {
        if held.len() == N {
            return Ok(ports);
        }
        let random = getrandom::u32().map_err(io::Error::other).doing(|| "no random number for a port".to_owned())?;
        let port = PORTS.start + (random % u32::from(PORTS.end - PORTS.start)) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            ports[held.len()] = port;
            held.push(listener);
        }
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse)).doing(|| format!("{TRIES} ports between {} and {} were tried", PORTS.start, PORTS.end))
}
