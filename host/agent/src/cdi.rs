//! What container runtimes read to put a device into a container: one file of the Container Device Interface (CDI, version 0.6.0 of
//! `github.com/cncf-tags/container-device-interface`), replaced whole whenever something is made.
//!
//! A device brings its own device nodes; what every container with a GPU needs (the driver's libraries and the control devices) is the same
//! for all and comes once, from a file that NVIDIA's `nvidia-ctk cdi generate` wrote.

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
/// Where device nodes are.
pub const DEV: &str = "/dev";
/// Where the driver tells the numbers of the device nodes that guard instances.
pub const MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";

/// The name under which a container runtime finds a device.
#[must_use]
pub fn name(device: &str) -> String {
    format!("{KIND}={device}")
}

/// The folder where the file is kept, and what all containers with a GPU need.
#[derive(Clone, Debug)]
pub struct Cdi {
    file: PathBuf,
    common: Value,
    driver: Driver,
}

/// Where the driver keeps what containers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The folder of its device nodes on the machine, of which containers see those of their devices in `/dev`.
    pub dev: PathBuf,
    /// The file that tells the numbers of the device nodes which guard instances.
    pub minors: PathBuf,
}

impl Default for Driver {
    fn default() -> Self {
        Self { dev: DEV.into(), minors: MINORS.into() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    cdi_version: &'static str,
    kind: &'static str,
    devices: Vec<Value>,
    container_edits: &'a Value,
}

impl Cdi {
    /// Writes to `folder`. `common` is a CDI file as JSON of which the part for all containers is taken; none where the runtime brings the
    /// libraries by itself.
    ///
    /// # Errors
    /// If `common` cannot be read.
    pub fn new(folder: &Path, common: Option<&Path>, driver: Driver) -> Result<Self, AgentError> {
        let edits = |path: &Path| -> io::Result<Value> {
            let mut spec: Value = serde_json::from_slice(&fs::read(path)?)?;
            Ok(spec["containerEdits"].take())
        };
        let failed = |path: &Path, source| AgentError::Cdi { path: path.to_owned(), source };
        let common = common.map(|path| edits(path).map_err(|error| failed(path, error))).transpose()?;
        let common = common.filter(Value::is_object).unwrap_or_else(|| json!({ "env": ["NVIDIA_VISIBLE_DEVICES=void"] }));
        Ok(Self { file: folder.join(FILE), common, driver })
    }

    /// Replaces the file by one with these devices, unless it says so already.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, offers: &Offers) -> Result<(), AgentError> {
        let minors = fs::read_to_string(&self.driver.minors).map(|text| minors(&text)).unwrap_or_default();
        // A device may be used under two names.
        let once: BTreeMap<&str, &Offer> = offers.all().map(|offer| (offer.id.as_str(), offer)).collect();
        let devices = once.into_values().map(|offer| self.device(offer, &minors)).collect();
        let spec = Spec { cdi_version: "0.6.0", kind: KIND, devices, container_edits: &self.common };
        let text = serde_json::to_vec_pretty(&spec).map_err(io::Error::from);
        let failed = |source| AgentError::Cdi { path: self.file.clone(), source };
        let text = text.map_err(failed)?;
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

    fn device(&self, offer: &Offer, minors: &BTreeMap<String, u32>) -> Value {
        let mut nodes: Vec<String> = offer.minor.iter().map(|minor| format!("nvidia{minor}")).collect();
        if let (What::Mig { instance, compute, .. }, Some(minor)) = (&offer.what, offer.minor) {
            let caps = [format!("gpu{minor}/gi{instance}/access"), format!("gpu{minor}/gi{instance}/ci{compute}/access")];
            let number = caps.iter().filter_map(|cap| minors.get(cap));
            nodes.extend(number.map(|number| format!("nvidia-caps/nvidia-cap{number}")));
        }
        // GPUs that are simulated have none.
        let there = nodes.iter().map(|node| (Path::new(DEV).join(node), self.driver.dev.join(node))).filter(|(_, host)| host.exists());
        let nodes: Vec<Value> = there.map(|(path, host)| json!({ "path": path, "hostPath": host })).collect();
        let mut edits = json!({ "env": [format!("PARTITA_DEVICE={}", offer.id)] });
        if !nodes.is_empty() {
            edits["deviceNodes"] = nodes.into();
        }
        json!({ "name": offer.id, "containerEdits": edits })
    }
}

/// Lines like `gpu0/gi1/access 12`.
fn minors(text: &str) -> BTreeMap<String, u32> {
    let line = |line: &str| line.split_once(' ').and_then(|(cap, number)| Some((cap.to_owned(), number.trim().parse().ok()?)));
    text.lines().filter_map(line).collect()
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
        Offer { resource, id, what, healthy: true, used: false, planned: false, gpu, minor, memory_mib: 1, pipe: None }
    }

    #[test]
    fn a_partition_brings_its_own_device_nodes_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let dev = folder.path().join("dev");
        fs::create_dir_all(dev.join("nvidia-caps")).unwrap();
        for node in ["nvidia0", "nvidia1", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13", "nvidia-caps/nvidia-cap21"] {
            File::create(dev.join(node)).unwrap();
        }
        let minors = minors("config 1\nmonitor 2\ngpu1/gi3/access 12\ngpu1/gi3/ci0/access 13\ngpu0/gi3/access 21\nodd\n");
        assert_eq!(minors.len(), 5);
        let driver = Driver { dev: dev.clone(), ..Driver::default() };
        let cdi = Cdi::new(folder.path(), None, driver).unwrap();
        let paths = |value: &Value| -> Vec<String> {
            let nodes = value["containerEdits"]["deviceNodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().map(|node| node["hostPath"].as_str().unwrap().trim_start_matches(dev.to_str().unwrap()).to_owned()).collect()
        };
        let part = cdi.device(&offer("MIG-1", Some(1), Some(3)), &minors);
        assert_eq!(paths(&part), ["/nvidia1", "/nvidia-caps/nvidia-cap12", "/nvidia-caps/nvidia-cap13"]);
        assert_eq!(paths(&cdi.device(&offer("GPU-0", Some(0), None), &minors)), ["/nvidia0"]);
        assert!(paths(&cdi.device(&offer("GPU-9", None, None), &minors)).is_empty());
    }

    #[test]
    fn the_file_is_replaced_whole_and_only_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let common = folder.path().join("nvidia.json");
        fs::write(&common, r#"{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[],"containerEdits":{"env":["A=1"]}}"#).unwrap();
        let cdi = Cdi::new(&folder.path().join("cdi"), Some(&common), Driver::default()).unwrap();
        let offers = Offers::from_iter([offer("MIG-1", None, None)]);
        cdi.write(&offers).unwrap();
        let read = || fs::read_to_string(folder.path().join("cdi").join(FILE)).unwrap();
        let spec: Value = serde_json::from_str(&read()).unwrap();
        assert_eq!((spec["kind"].as_str(), spec["devices"][0]["name"].as_str()), (Some(KIND), Some("MIG-1")));
        assert_eq!(spec["containerEdits"]["env"][0], "A=1");
        let at = || fs::metadata(folder.path().join("cdi").join(FILE)).unwrap().modified().unwrap();
        let before = at();
        cdi.write(&offers).unwrap();
        assert_eq!(at(), before);
        cdi.write(&Offers::default()).unwrap();
        assert!(!read().contains("MIG-1"));
        cdi.remove();
        assert!(!folder.path().join("cdi").join(FILE).exists());
        fs::write(&common, "{").unwrap();
        assert!(Cdi::new(folder.path(), Some(&common), Driver::default()).unwrap_err().to_string().contains("nvidia.json"));
    }
}
