//! What the fake kubelet knows: plugins, devices, pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use partita_kubelet::{
    BOOKS_FILE,
    proto::v1beta1::{ContainerAllocateResponse, DevicePluginOptions, device_plugin_client::DevicePluginClient},
};
use serde_json::{Value, json};
use tonic::transport::Channel;

/// A pod of one container that asks for devices of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The container's name.
    pub container: String,
    /// What it asks for.
    pub resource: String,
    /// How many of them.
    pub count: usize,
}

impl Pod {
    /// A pod in the default namespace that asks for one device.
    #[must_use]
    pub fn new(name: &str, resource: &str) -> Self {
        let [name, resource] = [name, resource].map(str::to_owned);
        Self { namespace: "default".to_owned(), name, container: "main".to_owned(), resource, count: 1 }
    }
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// The devices, in order.
    pub devices: Vec<String>,
    /// What the plugin said of them.
    pub answer: ContainerAllocateResponse,
}

/// Why a pod got nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// A registration that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The version of the interface.
    pub version: String,
    /// The name of the plugin's socket.
    pub endpoint: String,
    /// The resource.
    pub resource: String,
    /// What the plugin said of itself.
    pub options: Option<DevicePluginOptions>,
}

/// A plugin that is connected.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    pub(crate) endpoint: String,
    pub(crate) client: DevicePluginClient<Channel>,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) registrations: Vec<Registration>,
    /// Of each resource, the newest last: that one is asked.
    plugins: BTreeMap<String, Vec<Plugin>>,
    /// Of each resource, whether each device is healthy.
    pub(crate) devices: BTreeMap<String, BTreeMap<String, bool>>,
    /// What each pod uses.
    pub(crate) pods: Vec<(Pod, BTreeSet<String>)>,
    /// Calls of `Allocate` under way.
    pub(crate) allocating: usize,
}

impl Books {
    pub(crate) fn is_connected(&self, endpoint: &str) -> bool {
        self.plugins.values().flatten().any(|plugin| plugin.endpoint == endpoint)
    }

    pub(crate) fn plugin(&self, resource: &str) -> Option<DevicePluginClient<Channel>> {
        self.plugins.get(resource)?.last().map(|plugin| plugin.client.clone())
    }

    pub(crate) fn connect(&mut self, resource: &str, plugin: Plugin) {
        self.plugins.entry(resource.to_owned()).or_default().push(plugin);
    }

    /// The stream of one plugin ended. When it was the last one of its resource, no device of it is healthy any more.
    pub(crate) fn disconnect(&mut self, resource: &str, endpoint: &str) {
        let Some(plugins) = self.plugins.get_mut(resource) else { return };
        plugins.retain(|plugin| plugin.endpoint != endpoint);
        if plugins.is_empty() {
            self.plugins.remove(resource);
            self.devices.get_mut(resource).into_iter().flatten().for_each(|(_, healthy)| *healthy = false);
        }
    }

    pub(crate) fn disconnect_all(&mut self) {
        self.plugins.clear();
        self.allocating = 0;
        self.devices.values_mut().flatten().for_each(|(_, healthy)| *healthy = false);
    }

    /// Healthy devices that no pod uses.
    pub(crate) fn free(&self, resource: &str) -> Vec<String> {
        let used = |id: &String| self.pods.iter().any(|(pod, devices)| pod.resource == resource && devices.contains(id));
        let devices = self.devices.get(resource).into_iter().flatten();
        devices.filter(|(id, healthy)| **healthy && !used(id)).map(|(id, _)| id.clone()).collect()
    }

    /// Writes down who has which device, as the real one does when it gave one away or heard of a list.
    pub(crate) fn write(&self, folder: &Path) {
        let entry = |(pod, devices): &(Pod, BTreeSet<String>)| {
            json!({
                "PodUID": pod.name, "ContainerName": pod.container, "ResourceName": pod.resource, "DeviceIDs": {"-1": devices}, "AllocResp": "",
            })
        };
        let entries: Vec<Value> = self.pods.iter().map(entry).collect();
        let books = json!({ "Data": { "PodDeviceEntries": entries, "RegisteredDevices": {} }, "Checksum": 0 });
        // A test that took the folder away wants no file.
        let beside = folder.join("books.new");
        if fs::write(&beside, books.to_string()).is_ok() {
            let _ = fs::rename(&beside, folder.join(BOOKS_FILE));
        }
    }

    pub(crate) fn terminate(&mut self, namespace: &str, name: &str) {
        self.pods.retain(|(pod, _)| (pod.namespace.as_str(), pod.name.as_str()) != (namespace, name));
    }
}
