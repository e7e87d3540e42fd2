//! The crate against a fake kubelet over real sockets. Nothing is timed: what should come is waited for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod hostile;
mod life;
mod pods;
mod restarts;

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::Path,
    sync::{Arc, Mutex, mpsc::Receiver},
};

use partita_fake_kubelet::FakeKubelet;
use partita_kubelet::{Allocation, Allocator, Choice, Device, DeviceId, DeviceNode, DevicePlugins, Mount, ResourceName, State};
use tempfile::TempDir;

const SMALL: &str = "nvidia.com/mig-1g.10gb";
const LARGE: &str = "nvidia.com/mig-3g.40gb";

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn devices<const N: usize>(ids: [&str; N]) -> Vec<Device> {
    ids.map(|text| Device::new(id(text))).into()
}

/// An agent that remembers what it was asked.
#[derive(Default)]
struct Agent {
    /// What it prefers, whatever it may choose from.
    prefers: Mutex<Vec<DeviceId>>,
    choices: Mutex<Vec<Choice>>,
    allocated: Mutex<Vec<Vec<DeviceId>>>,
    /// Why it refuses.
    refuses: Mutex<Option<String>>,
    /// What it gives, instead of the usual.
    gives: Mutex<Option<Allocation>>,
    /// It answers only after a word from here, or its end.
    waits: Mutex<Option<Receiver<()>>>,
    panics: Mutex<bool>,
}

/// What every container gets.
fn usual(resource: &ResourceName, devices: &[DeviceId]) -> Allocation {
    let ids: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
    Allocation {
        environment: [("NVIDIA_VISIBLE_DEVICES".to_owned(), ids.join(",")), ("RESOURCE".to_owned(), resource.to_string())].into(),
        cdi_devices: ids.iter().map(|id| format!("partita.dev/gpu={id}")).collect(),
        mounts: vec![Mount { host_path: "/dev/shm".to_owned(), container_path: "/dev/shm".to_owned(), read_only: false }],
        device_nodes: vec![DeviceNode {
            host_path: "/dev/null".to_owned(),
            container_path: "/dev/gpu".to_owned(),
            permissions: "rw".to_owned(),
        }],
        annotations: [("partita.dev/device".to_owned(), ids.join(","))].into(),
    }
}

impl Allocator for Agent {
    fn prefer(&self, _: &ResourceName, choice: &Choice) -> Vec<DeviceId> {
        self.choices.lock().unwrap().push(choice.clone());
        self.prefers.lock().unwrap().clone()
    }

    fn allocate(&self, resource: &ResourceName, devices: &[DeviceId]) -> Result<Allocation, String> {
        self.allocated.lock().unwrap().push(devices.to_vec());
        if let Some(gate) = self.waits.lock().unwrap().take() {
            let _ = gate.recv();
        }
        let panics = std::mem::take(&mut *self.panics.lock().unwrap());
        assert!(!panics, "an agent with a defect");
        match self.refuses.lock().unwrap().clone() {
            Some(why) => Err(why),
            None => Ok(self.gives.lock().unwrap().take().unwrap_or_else(|| usual(resource, devices))),
        }
    }
}

/// A kubelet that runs, and plugins beside it.
struct World {
    kubelet: FakeKubelet,
    plugins: DevicePlugins,
    agent: Arc<Agent>,
    // Goes last.
    _root: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self::without_kubelet();
        world.kubelet.start().unwrap();
        world
    }

    fn without_kubelet() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (kubelet, agent) = (FakeKubelet::new(root.path()), Arc::new(Agent::default()));
        let plugins = DevicePlugins::new(kubelet.device_plugins_folder(), agent.clone());
        Self { kubelet, plugins, agent, _root: root }
    }

    fn advertise<const N: usize>(&self, resource: &str, ids: [&str; N]) {
        self.plugins.advertise(&name(resource), devices(ids)).unwrap();
    }

    /// Until the kubelet has exactly these healthy devices.
    async fn until_healthy<const N: usize>(&self, resource: &str, ids: [&str; N]) {
        self.kubelet.until(&format!("{resource} had {ids:?}"), |kubelet| kubelet.healthy(resource) == ids).await;
    }

    async fn until_state(&self, resource: &str, wanted: impl Fn(&State) -> bool) -> State {
        let mut states = self.plugins.states();
        let states = states.wait_for(|states| states.get(&name(resource)).is_some_and(&wanted)).await.unwrap();
        states[&name(resource)].clone()
    }

    /// Until it waits for a reason that has these words.
    async fn until_waiting(&self, resource: &str, words: &str) {
        self.until_state(resource, |state| matches!(state, State::Waiting(why) if why.contains(words))).await;
    }
}

/// The names of the sockets in a folder.
fn sockets(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_socket());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
