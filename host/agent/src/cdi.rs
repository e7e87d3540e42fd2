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

/// NVIDIA's file, where it usually is.
#[must_use]
pub fn common() -> Option<PathBuf> {
    COMMON.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The file, and what goes into it besides devices.
#[derive(Clone, Debug)]
pub struct Cdi {
    file: PathBuf,
    version: String,
    common: Value,
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

impl Cdi {
    /// Writes to `folder`. `common` is a CDI file, JSON or YAML, of which the part for all containers is taken; none where the runtime
    /// brings the libraries by itself. `proc` is the kernel's folder, `/proc`.
    ///
    /// # Errors
    /// If `common` cannot be read.
    pub fn new(folder: &Path, common: Option<&Path>, proc: &Path) -> Result<Self, AgentError> {
        let read = |path: &Path| -> io::Result<Value> {
            // JSON is YAML too.
            serde_saphyr::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)
        };
        let failed = |path: &Path, source| AgentError::Cdi { path: path.to_owned(), source };
        let mut spec = common.map(|path| read(path).map_err(|error| failed(path, error))).transpose()?.unwrap_or(Value::Null);
        let version = spec["cdiVersion"].as_str().filter(|version| numbers(version) > numbers(VERSION)).unwrap_or(VERSION).to_owned();
        let edits = Some(spec["containerEdits"].take()).filter(Value::is_object);
        let common = edits.unwrap_or_else(|| json!({ "env": ["NVIDIA_VISIBLE_DEVICES=void"] }));
        Ok(Self { file: folder.join(FILE), version, common, proc: proc.to_owned() })
    }

    /// Replaces the file by one with these devices, unless it says so already.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, offers: &Offers) -> Result<(), AgentError> {
        let numbers = Numbers::read(&self.proc);
        // A device may be used under two names.
        let once: BTreeMap<&str, &Offer> = offers.all().map(|offer| (offer.id.as_str(), offer)).collect();
        let devices = once.into_values().map(|offer| device(offer, &numbers)).collect();
        let spec = Spec { cdi_version: &self.version, kind: KIND, devices, container_edits: &self.common };
        let failed = |source| AgentError::Cdi { path: self.file.clone(), source };
        let text = serde_json::to_vec_pretty(&spec).map_err(io::Error::from).map_err(failed)?;
        if fs::read(&self.file).is_ok_and(|known| known == text) {
            return Ok(());
        }
        replace(&self.file, &text).map_err(failed)
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
        fs::write(&common, r#"{"cdiVersion":"0.7.0","kind":"nvidia.com/gpu","devices":[],"containerEdits":{"env":["A=1"]}}"#).unwrap();
        let cdi = Cdi::new(&folder.path().join("cdi"), Some(&common), Path::new("/proc")).unwrap();
        let offers = Offers::from_iter([offer("MIG-1", None, None)]);
        cdi.write(&offers).unwrap();
        let read = || fs::read_to_string(folder.path().join("cdi").join(FILE)).unwrap();
        let spec: Value = serde_json::from_str(&read()).unwrap();
        assert_eq!((spec["kind"].as_str(), spec["devices"][0]["name"].as_str()), (Some(KIND), Some("MIG-1")));
        assert_eq!((spec["containerEdits"]["env"][0].as_str(), spec["cdiVersion"].as_str()), (Some("A=1"), Some("0.7.0")));
        fs::write(&common, "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [B=2]\n").unwrap();
        let yaml = Cdi::new(folder.path(), Some(&common), Path::new("/proc")).unwrap();
        assert_eq!((yaml.common["env"][0].as_str(), yaml.version.as_str()), (Some("B=2"), VERSION));
        let at = || fs::metadata(folder.path().join("cdi").join(FILE)).unwrap().modified().unwrap();
        let before = at();
        cdi.write(&offers).unwrap();
        assert_eq!(at(), before);
        cdi.write(&Offers::default()).unwrap();
        assert!(!read().contains("MIG-1"));
        cdi.remove();
        assert!(!folder.path().join("cdi").join(FILE).exists());
        fs::write(&common, "{").unwrap();
        assert!(Cdi::new(folder.path(), Some(&common), Path::new("/proc")).unwrap_err().to_string().contains("nvidia.json"));
    }
}
