//! Resources in the hands of the kubelet: the handle that the agent holds.

mod resource;
mod service;
mod socket;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    device::{Allocation, Choice, Device, DeviceId, ResourceName, check_devices},
    error::{Error, Invalid},
    limits,
};

/// The agent's part: it knows what a device is.
///
/// Both are called on threads that may block, several at a time, and have [`limits::ANSWER_WITHIN`]; what comes later is not heard. A panic
/// is an answer too: a refusal.
pub trait Allocator: Send + Sync + 'static {
    /// Which of `choice.available` a container should get, the best first. Too few are filled up, and `choice.required` are always among
    /// them; an answer that names others counts as none. The kubelet does not promise to do as it is told.
    fn prefer(&self, resource: &ResourceName, choice: &Choice) -> Vec<DeviceId>;

    /// What a container gets to use `devices`, which are advertised and healthy. The kubelet may ask for the same again.
    ///
    /// # Errors
    /// Why not, for the person who reads the pod's status. The pod fails then, and its owner makes another.
    fn allocate(&self, resource: &ResourceName, devices: &[DeviceId]) -> Result<Allocation, String>;
}

/// How a resource stands with the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The kubelet does not know it, for this reason.
    Waiting(String),
    /// The kubelet knows it and hears of every change.
    Registered,
}

type States = BTreeMap<ResourceName, State>;

/// Resources that are handed to the kubelet, each by a task of its own. They are closed when this is dropped; [`Self::stop`] also waits for
/// that.
pub struct DevicePlugins {
    folder: PathBuf,
    allocator: Arc<dyn Allocator>,
    running: Mutex<BTreeMap<ResourceName, Running>>,
    states: watch::Sender<States>,
}

struct Running {
    devices: watch::Sender<Arc<[Device]>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl DevicePlugins {
    /// Begins without resources. `folder` is the kubelet's for plugins, usually [`crate::DEVICE_PLUGINS_FOLDER`]; it need not exist yet, as
    /// the kubelet makes it. Sockets that an earlier process of ours left there are removed.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, allocator: Arc<dyn Allocator>) -> Self {
        let folder = folder.into();
        socket::remove_stale(&folder);
        Self { folder, allocator, running: Mutex::default(), states: watch::Sender::default() }
    }

    /// Hands `devices` to the kubelet under this name: a new resource, or the new list of one. The kubelet hears of it at once if it runs,
    /// else as soon as it does.
    ///
    /// # Errors
    /// When the list has an id twice, or is too long; then the kubelet keeps the former list.
    ///
    /// # Panics
    /// For a new resource outside a tokio runtime.
    pub fn advertise(&self, resource: &ResourceName, devices: Vec<Device>) -> Result<(), Error> {
        check_devices(resource, &devices)?;
        let devices: Arc<[Device]> = devices.into();
        let mut running = self.running();
        let count = running.len();
        match running.entry(resource.clone()) {
            Entry::Occupied(entry) => {
                entry.get().devices.send_if_modified(|known| {
                    let changed = *known != devices;
                    *known = devices;
                    changed
                });
            }
            Entry::Vacant(_) if count >= limits::RESOURCES_MAX => {
                return Err(Invalid::TooManyResources { resource: resource.to_string() }.into());
            }
            Entry::Vacant(entry) => {
                let (devices, list) = watch::channel(devices);
                let (stop, stopped) = watch::channel(false);
                self.states.send_modify(|states| drop(states.insert(resource.clone(), State::Waiting("it was just added".to_owned()))));
                let task = resource::Task {
                    resource: resource.clone(),
                    folder: self.folder.clone(),
                    devices: list,
                    allocator: self.allocator.clone(),
                    states: self.states.clone(),
                    stop: stopped,
                };
                entry.insert(Running { devices, stop, task: tokio::spawn(task.run()) });
            }
        }
        Ok(())
    }

    /// Sends the list of a resource once more. The kubelet then writes down anew who has which device, without pods that have ended.
    pub fn repeat(&self, resource: &ResourceName) {
        if let Some(running) = self.running().get(resource) {
            running.devices.send_modify(|_| {});
        }
    }

    /// Takes a resource back and returns when its socket is gone. The kubelet has none of its devices to give away from then on, and forgets
    /// the name five minutes later. Containers that use its devices go on, but are not started again.
    pub async fn withdraw(&self, resource: &ResourceName) {
        let running = self.running().remove(resource);
        if let Some(running) = running {
            running.end().await;
            self.states.send_modify(|states| drop(states.remove(resource)));
        }
    }

    /// How each resource stands, now and after every change.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<BTreeMap<ResourceName, State>> {
        self.states.subscribe()
    }

    /// Closes every socket and returns when they are gone. Nothing is told to the kubelet about the devices: an agent that comes back soon
    /// finds everything as it was.
    pub async fn stop(self) {
        let running = std::mem::take(&mut *self.running());
        for running in running.values() {
            running.stop.send_replace(true);
        }
        for running in running.into_values() {
            running.end().await;
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<ResourceName, Running>> {
        // A panic elsewhere leaves the map whole: every change is one insertion or removal.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    async fn end(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of a resource failed");
        }
    }
}
