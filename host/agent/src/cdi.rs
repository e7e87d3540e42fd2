//! What container runtimes read to put a device into a container: one file of the Container Device Interface (CDI, version 0.6.0 of
//! `github.com/cncf-tags/container-device-interface`), replaced whole whenever something is made.
//!
//! A device brings its own device nodes, by their numbers: those that guard partitions need not exist on the machine, and the runtime makes
//! them in the container. What every container with a GPU needs (the driver's libraries and the control devices) is the same for all and
//! comes from the file that NVIDIA's `nvidia-ctk cdi generate` wrote. Without that file containers would see a GPU and could not use it, so
//! then there is no CDI, and NVIDIA's container runtime brings the devices by `NVIDIA_VISIBLE_DEVICES`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    error::AgentError,
    offers::{Offer, Offers, What},
};

/// Vendor and class of our devices.
const KIND: &str = "partita.dev/gpu";
/// The file's name.
const FILE: &str = "partita.dev-gpu.json";
/// Where NVIDIA's file is, by default: the first is made at every start of the machine.
const COMMON: [&str; 4] = ["/var/run/cdi/nvidia.yaml", "/var/run/cdi/nvidia.json", "/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia.json"];
/// The version of the interface that our own part needs.
const VERSION: &str = "0.6.0";

/// The name under which a container runtime finds a device.
#[must_use]
pub fn name(device: &str) -> String {
    format!("{KIND}={device}")
}

/// The file, and what goes into it besides devices.
#[derive(Clone, Debug)]
pub struct Cdi {
    file: PathBuf,
    common: Common,
    /// The common part; none while there is no file with it.
    read: Option<Read>,
    /// Where the kernel tells the numbers of device nodes.
    proc: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    cdi_version: &'a str,
    kind: &'static str,
    devices: Vec<Value>,
    container_edits: &'a Value,
}

/// The numbers of device nodes.
#[derive(Debug, Default)]
struct Numbers {
    /// Majors by driver, of `/proc/devices`.
    majors: BTreeMap<String, u32>,
    /// Minors of the nodes that guard instances, by what they guard, of `/proc/driver/nvidia-caps/mig-minors`.
    caps: BTreeMap<String, u32>,
}

/// What every container with a GPU gets, whichever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Common {
    /// Nothing: nothing of a GPU that does not exist has to be brought.
    Nothing,
    /// What this file says, JSON or YAML.
    In(PathBuf),
    /// What NVIDIA's file says, once it is there.
    Nvidias,
}

/// What a file said, as it was at a time.
#[derive(Clone, Debug)]
struct Read {
    from: Option<(PathBuf, SystemTime)>,
    version: String,
    edits: Value,
}

impl Cdi {
    /// Writes to `folder`. `proc` is the kernel's folder, `/proc`.
    #[must_use]
    pub fn new(folder: &Path, common: Common, proc: &Path) -> Self {
        Self { file: folder.join(FILE), common, read: None, proc: proc.to_owned() }
    }

    /// Replaces the file by one with these devices, unless it says so already; without devices there is no file, as one without any is not
    /// valid. Returns whether containers find devices that way: not before NVIDIA's file was there.
    ///
    /// # Errors
    /// If it cannot be written, or the file with the common part cannot be read.
    pub fn write(&mut self, offers: &Offers) -> Result<bool, AgentError> {
        self.look()?;
        let Some(read) = &self.read else { return Ok(false) };
        // A device may be used under two names.
        let once: BTreeMap<&str, &Offer> = offers.all().map(|offer| (offer.id.as_str(), offer)).collect();
        if once.is_empty() {
            self.remove();
            return Ok(true);
        }
        let numbers = Numbers::read(&self.proc);
        let devices = once.into_values().map(|offer| device(offer, &numbers)).collect();
        let spec = Spec { cdi_version: &read.version, kind: KIND, devices, container_edits: &read.edits };
        let failed = |source| AgentError::Cdi { path: self.file.clone(), source };
        let text = serde_json::to_vec_pretty(&spec).map_err(io::Error::from).map_err(failed)?;
        if fs::read(&self.file).is_ok_and(|known| known == text) {
            return Ok(true);
        }
        replace(&self.file, &text).map_err(failed).map(|()| true)
    }

    /// Reads the common part if it is another one now. One that vanished stays what it was: containers that were started with it are
    /// started again with it.
    fn look(&mut self) -> Result<(), AgentError> {
        let path = match &self.common {
            Common::Nothing => None,
            Common::In(path) => Some(path.clone()),
            Common::Nvidias => match COMMON.iter().map(PathBuf::from).find(|path| path.is_file()) {
                None => return Ok(()),
                found => found,
            },
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AgentError::Cdi { path, source }
        };
        let from = match path {
            None => None,
            Some(path) => {
                let changed = fs::metadata(&path).and_then(|file| file.modified()).map_err(failed(&path));
                match changed {
                    Ok(changed) => Some((path, changed)),
                    Err(_) if self.read.is_some() => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        if self.read.as_ref().is_some_and(|read| read.from == from) {
            return Ok(());
        }
        let mut spec = Value::Null;
        if let Some((path, _)) = &from {
            // JSON is YAML too.
            let text = fs::read_to_string(path);
            spec = text.and_then(|text| serde_saphyr::from_str(&text).map_err(io::Error::other)).map_err(failed(path))?;
        }
        let version = spec["cdiVersion"].as_str().filter(|version| numbers(version) > numbers(VERSION)).unwrap_or(VERSION).to_owned();
        let edits = Some(spec["containerEdits"].take()).filter(Value::is_object);
        let edits = edits.unwrap_or_else(|| json!({ "env": ["NVIDIA_VISIBLE_DEVICES=void"] }));
        self.read = Some(Read { from, version, edits });
        Ok(())
    }

    /// Takes the file away.
    pub fn remove(&self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.file);
    }
}

/// A device with the nodes that are its own. GPUs that are simulated have none.
fn device(offer: &Offer, numbers: &Numbers) -> Value {
    let mut nodes = Vec::new();
    if let Some(minor) = offer.minor {
        let major = numbers.major(&["nvidia", "nvidia-frontend"]);
        nodes.extend(major.map(|major| node(&format!("/dev/nvidia{minor}"), major, minor)));
        if let What::Mig { instance, compute, .. } = &offer.what {
            let caps = [format!("gpu{minor}/gi{instance}/access"), format!("gpu{minor}/gi{instance}/ci{compute}/access")];
            let caps = caps.iter().filter_map(|cap| Some((numbers.major(&["nvidia-caps"])?, *numbers.caps.get(cap)?)));
            nodes.extend(caps.map(|(major, minor)| node(&format!("/dev/nvidia-caps/nvidia-cap{minor}"), major, minor)));
        }
    }
    let mut edits = json!({ "env": [format!("PARTITA_DEVICE={}", offer.id)] });
    if !nodes.is_empty() {
        edits["deviceNodes"] = nodes.into();
    }
    json!({ "name": offer.id, "containerEdits": edits })
}

fn node(path: &str, major: u32, minor: u32) -> Value {
    json!({ "path": path, "type": "c", "major": major, "minor": minor, "permissions": "rw" })
}

impl Numbers {
    fn read(proc: &Path) -> Self {
        let lines = |path: &str, parse: fn(&str) -> Option<(String, u32)>| {
            let text = fs::read_to_string(proc.join(path)).unwrap_or_default();
            text.lines().filter_map(parse).collect()
        };
        // `195 nvidia`, among titles and empty lines; `gpu0/gi1/access 12`.
        let major = |line: &str| line.trim().split_once(' ').and_then(|(number, name)| Some((name.to_owned(), number.parse().ok()?)));
        let cap = |line: &str| line.split_once(' ').and_then(|(cap, number)| Some((cap.to_owned(), number.trim().parse().ok()?)));
        Self { majors: lines("devices", major), caps: lines("driver/nvidia-caps/mig-minors", cap) }
    }

    fn major(&self, names: &[&str]) -> Option<u32> {
        names.iter().find_map(|name| self.majors.get(*name)).copied()
    }
}

/// The numbers of a version.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Whoever reads the file finds the old or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    // Runtimes read `.json` and `.yaml` only.
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn offer(id: &str, minor: Option<u32>, instance: Option<u32>) -> Offer {
        let what = instance.map_or(What::Whole, |instance| What::Mig { profile: "1g.10gb".to_owned(), instance, compute: 0 });
        let (resource, id, gpu) = ("r".to_owned(), id.to_owned(), "g".to_owned());
        Offer { resource, id, what, healthy: true, used: false, planned: false, place: (0, 0), gpu, minor, memory_mib: 1, pipe: None }
    }

    #[test]
    fn a_partition_brings_its_own_device_nodes_and_no_others() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir_all(proc.path().join("driver/nvidia-caps")).unwrap();
        fs::write(proc.path().join("devices"), "Character devices:\n  1 mem\n195 nvidia\n235 nvidia-caps\n\nBlock devices:\n  7 loop\n")
            .unwrap();
        let minors = "config 1\nmonitor 2\ngpu1/gi3/access 12\ngpu1/gi3/ci0/access 13\ngpu0/gi3/access 21\nodd\n";
        fs::write(proc.path().join("driver/nvidia-caps/mig-minors"), minors).unwrap();
        let numbers = Numbers::read(proc.path());
        let nodes = |device: &Value| -> Vec<(String, u64, u64)> {
            let nodes = device["containerEdits"]["deviceNodes"].as_array().cloned().unwrap_or_default();
            let node = |node: &Value| Some((node["path"].as_str()?.to_owned(), node["major"].as_u64()?, node["minor"].as_u64()?));
            nodes.iter().map(|one| node(one).unwrap()).collect()
        };
        let part = device(&offer("MIG-1", Some(1), Some(3)), &numbers);
        let cap = |number| (format!("/dev/nvidia-caps/nvidia-cap{number}"), 235, number);
        assert_eq!(nodes(&part), [("/dev/nvidia1".to_owned(), 195, 1), cap(12), cap(13)]);
        assert_eq!(nodes(&device(&offer("GPU-0", Some(0), None), &numbers)), [("/dev/nvidia0".to_owned(), 195, 0)]);
        assert!(nodes(&device(&offer("GPU-9", None, None), &numbers)).is_empty());
        assert!(nodes(&device(&offer("GPU-0", Some(0), None), &Numbers::default())).is_empty());
    }

    #[test]
    fn the_file_is_replaced_whole_and_only_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let common = folder.path().join("nvidia.json");
        let write_common = |text: &str| {
            fs::write(&common, text).unwrap();
            // Clocks of file systems are coarse.
            let at = SystemTime::now() + std::time::Duration::from_secs(text.len() as u64);
            File::options().write(true).open(&common).unwrap().set_modified(at).unwrap();
        };
        write_common(r#"{"cdiVersion":"0.7.0","kind":"nvidia.com/gpu","devices":[],"containerEdits":{"env":["A=1"]}}"#);
        let path = folder.path().join("cdi").join(FILE);
        let mut cdi = Cdi::new(&folder.path().join("cdi"), Common::In(common.clone()), Path::new("/proc"));
        let offers = Offers::from_iter([offer("MIG-1", None, None)]);
        assert!(cdi.write(&offers).unwrap());
        let spec = || -> Value { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
        assert_eq!((spec()["kind"].as_str(), spec()["devices"][0]["name"].as_str()), (Some(KIND), Some("MIG-1")));
        assert_eq!((spec()["containerEdits"]["env"][0].as_str(), spec()["cdiVersion"].as_str()), (Some("A=1"), Some("0.7.0")));
        let at = || fs::metadata(&path).unwrap().modified().unwrap();
        let before = at();
        assert!(cdi.write(&offers).unwrap());
        assert_eq!(at(), before);

        // The driver was replaced; then its file vanishes; then it is nonsense.
        write_common("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [B=2]\n");
        assert!(cdi.write(&offers).unwrap());
        assert_eq!((spec()["containerEdits"]["env"][0].as_str(), spec()["cdiVersion"].as_str()), (Some("B=2"), Some(VERSION)));
        fs::remove_file(&common).unwrap();
        assert!(cdi.write(&offers).unwrap());
        assert_eq!(spec()["containerEdits"]["env"][0], "B=2");
        write_common("{");
        assert!(cdi.write(&offers).unwrap_err().to_string().contains("nvidia.json"));
        assert_eq!(spec()["containerEdits"]["env"][0], "B=2");

        write_common(r#"{"cdiVersion":"0.6.0"}"#);
        assert!(cdi.write(&Offers::default()).unwrap());
        assert!(!path.exists(), "a file without devices is not valid");
        cdi.remove();
    }

    #[test]
    fn before_the_common_part_is_there_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let offers = Offers::from_iter([offer("MIG-1", None, None)]);
        let mut missing = Cdi::new(folder.path(), Common::In(folder.path().join("none")), Path::new("/proc"));
        assert!(missing.write(&offers).is_err() && !folder.path().join(FILE).exists());
        let mut simulated = Cdi::new(folder.path(), Common::Nothing, Path::new("/proc"));
        assert!(simulated.write(&offers).unwrap() && folder.path().join(FILE).exists());
    }
}
