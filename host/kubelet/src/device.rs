//! What is handed to the kubelet: resources, devices, and what a container gets of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use prost::Message;

use crate::{error::Invalid, limits, proto::v1beta1 as wire};

/// The name of an extended resource, `nvidia.com/mig-1g.10gb`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(Arc<str>);

impl ResourceName {
    /// Takes what the kubelet would (Kubernetes' `IsExtendedResourceName`).
    ///
    /// # Errors
    /// When the kubelet would refuse to register it.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        let is_extended = name.split_once('/').is_some_and(|(domain, rest)| {
            // As a quota it is called `requests.DOMAIN/NAME`, and that must be a qualified name as well.
            let fits = !domain.starts_with("requests.") && domain.len() + "requests.".len() <= 253 && rest.len() <= 63;
            fits && !name.contains("kubernetes.io/") && is_subdomain(domain) && is_qualified(rest)
        });
        if is_extended { Ok(Self(name.into())) } else { Err(Invalid::Resource(name.to_owned())) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes behind the domain.
    pub(crate) fn short(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, short)| short)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// RFC 1123.
fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    let at_the_ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    inner && at_the_ends(text.bytes().next()) && at_the_ends(text.bytes().last())
}

/// The id of a device: what the kubelet remembers it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Takes 1 to [`limits::DEVICE_ID_MAX`] printable characters.
    ///
    /// # Errors
    /// When the kubelet could not take it.
    pub fn new(id: &str) -> Result<Self, Invalid> {
        let fits = (1..=limits::DEVICE_ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(id.into())) } else { Err(Invalid::DeviceId(shown(id))) }
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// As much of a text as a message should show.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A device as the kubelet sees it: a partition, a share, or a whole GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Whether the kubelet may give it away.
    pub healthy: bool,
    /// The memory node of the machine that it is nearest to, if that is known.
    pub numa: Option<u32>,
}

impl Device {
    /// A healthy device without a place in the machine.
    #[must_use]
    pub const fn new(id: DeviceId) -> Self {
        Self { id, healthy: true, numa: None }
    }

    pub(crate) fn wire(&self) -> wire::Device {
        wire::Device {
            id: self.id.to_string(),
            health: if self.healthy { "Healthy" } else { "Unhealthy" }.to_owned(),
            topology: self.numa.map(|node| wire::TopologyInfo { nodes: vec![wire::NumaNode { id: node.into() }] }),
        }
    }
}

/// That the kubelet takes this list.
pub(crate) fn check_devices(resource: &ResourceName, devices: &[Device]) -> Result<(), Invalid> {
    if devices.len() > limits::DEVICES_MAX {
        return Err(Invalid::TooManyDevices { resource: resource.to_string(), count: devices.len() });
    }
    let mut seen = BTreeSet::new();
    match devices.iter().find(|device| !seen.insert(&device.id)) {
        Some(device) => Err(Invalid::Twice { resource: resource.to_string(), device: device.id.to_string() }),
        None => Ok(()),
    }
}

/// What the kubelet lets a plugin choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Devices that nobody uses, in the order of their ids; `required` are among them.
    pub available: Vec<DeviceId>,
    /// Devices that are chosen already.
    pub required: Vec<DeviceId>,
    /// How many the container gets, `required` included: at least one, at most those that are available.
    pub size: usize,
}

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Variables of its environment.
    pub environment: BTreeMap<String, String>,
    /// Devices by their names in the Container Device Interface, `nvidia.com/gpu=0:1`.
    pub cdi_devices: Vec<String>,
    /// Files and folders of the machine.
    pub mounts: Vec<Mount>,
    /// Device nodes of the machine.
    pub device_nodes: Vec<DeviceNode>,
    /// Annotations for the container runtime.
    pub annotations: BTreeMap<String, String>,
}

/// A file or a folder of the machine in a container. Both paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the machine.
    pub host_path: String,
    /// In the container.
    pub container_path: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// A device node of the machine in a container. Both paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// On the machine.
    pub host_path: String,
    /// In the container.
    pub container_path: String,
    /// Of `r`ead, `w`rite and `m`ake.
    pub permissions: String,
}

impl Allocation {
    /// What is sent to the kubelet, if a container runtime could use it.
    pub(crate) fn wire(self) -> Result<wire::ContainerAllocateResponse, Invalid> {
        self.check()?;
        let mounts = self.mounts.into_iter();
        let nodes = self.device_nodes.into_iter();
        let answer = wire::ContainerAllocateResponse {
            envs: self.environment,
            mounts: mounts
                .map(|Mount { host_path, container_path, read_only }| wire::Mount { container_path, host_path, read_only })
                .collect(),
            devices: nodes
                .map(|DeviceNode { host_path, container_path, permissions }| wire::DeviceSpec { container_path, host_path, permissions })
                .collect(),
            annotations: self.annotations,
            cdi_devices: self.cdi_devices.into_iter().map(|name| wire::CdiDevice { name }).collect(),
        };
        let bytes = answer.encoded_len();
        if bytes <= limits::ANSWER_BYTES_MAX { Ok(answer) } else { Err(Invalid::TooLong { bytes }) }
    }

    fn check(&self) -> Result<(), Invalid> {
        let refuse = |what, value: &str, remedy| Err(Invalid::Allocation { what, value: shown(value), remedy });
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return refuse("the variable", name, "its name must not be empty nor contain `=`, and neither name nor value a zero byte");
            }
        }
        if let Some(name) = self.cdi_devices.iter().find(|name| !is_cdi(name)) {
            return refuse("the CDI device", name, "it must look like vendor.com/class=name");
        }
        let mounts = self.mounts.iter().flat_map(|mount| [&mount.host_path, &mount.container_path]);
        let nodes = self.device_nodes.iter().flat_map(|node| [&node.host_path, &node.container_path]);
        if let Some(path) = mounts.chain(nodes).find(|path| !path.starts_with('/') || path.contains('\0')) {
            return refuse("the path", path, "it must be absolute");
        }
        let allowed = |text: &str| !text.is_empty() && text.chars().all(|kind| "rwm".contains(kind));
        match self.device_nodes.iter().find(|node| !allowed(&node.permissions)) {
            Some(node) => refuse("a device node with the permissions", &node.permissions, "they must be some of r, w and m"),
            None => Ok(()),
        }
    }
}

/// `vendor.com/class=name`, as in the specification of the Container Device Interface.
fn is_cdi(name: &str) -> bool {
    let parts = name.split_once('/').and_then(|(vendor, rest)| rest.split_once('=').map(|(class, name)| (vendor, class, name)));
    let is_name = |text: &str| {
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        inner && ends(text.bytes().next()) && ends(text.bytes().last())
    };
    parts.is_some_and(|(vendor, class, name)| is_qualified(vendor) && is_qualified(class) && is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_resources_are_those_that_the_kubelet_registers() {
        for good in ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb.me", "nvidia.com/gpu-8gb", "a/B_c"] {
            assert_eq!(ResourceName::new(good).unwrap().as_str(), good);
        }
        let long = format!("nvidia.com/{}", "x".repeat(64));
        let long_domain = format!("{}x/gpu", "x.".repeat(123));
        let bad = ["", "gpu", "/gpu", "nvidia.com/", "Nvidia.com/gpu", "nvidia..com/gpu", "nvidia.com/-gpu", "nvidia.com/gpu.", "a/b/c"];
        let reserved = ["kubernetes.io/gpu", "x.kubernetes.io/gpu", "requests.nvidia.com/gpu", "nvidia.com/g pu", "nvidia.com/g\u{fc}"];
        for bad in bad.into_iter().chain(reserved).chain([long.as_str(), long_domain.as_str()]) {
            assert_eq!(ResourceName::new(bad), Err(Invalid::Resource(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn ids_have_up_to_63_characters() {
        let longest = "x".repeat(63);
        for good in ["MIG-b9a2fb0c-2b04-5e4e-9f7c-0123456789ab", "GPU-0::3", &longest] {
            assert_eq!(DeviceId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\n", "\u{e9}", &"x".repeat(64)] {
            assert_eq!(DeviceId::new(bad), Err(Invalid::DeviceId(bad.to_owned())), "{bad:?}");
        }
        assert!(DeviceId::new(&"y".repeat(100_000)).unwrap_err().to_string().len() < 400, "messages stay short");
    }

    #[test]
    fn a_container_gets_what_a_runtime_can_use() {
        let path = |path: &str| Mount { host_path: path.to_owned(), container_path: "/x".to_owned(), read_only: true };
        let node = |permissions: &str| DeviceNode {
            host_path: "/dev/null".to_owned(),
            container_path: "/dev/x".to_owned(),
            permissions: permissions.to_owned(),
        };
        let variable =
            |name: &str, value: &str| Allocation { environment: [(name.to_owned(), value.to_owned())].into(), ..Allocation::default() };
        let cdi = |name: &str| Allocation { cdi_devices: vec![name.to_owned()], ..Allocation::default() };
        let good = [
            variable("NVIDIA_VISIBLE_DEVICES", "MIG-1=2"),
            cdi("nvidia.com/gpu=0:1"),
            cdi("partita.dev/mig=MIG-b9a2fb0c"),
            Allocation { mounts: vec![path("/dev/shm")], device_nodes: vec![node("rw"), node("rwm")], ..Allocation::default() },
        ];
        for good in good {
            assert!(good.clone().wire().is_ok(), "{good:?}");
        }
        let bad = [
            variable("", "x"),
            variable("a=b", "x"),
            variable("a", "x\0"),
            cdi("nvidia.com/gpu"),
            cdi("gpu=0"),
            cdi("nvidia.com/gpu="),
            cdi("nvidia.com/g/pu=0"),
            Allocation { mounts: vec![path("dev/shm")], ..Allocation::default() },
            Allocation { device_nodes: vec![node("")], ..Allocation::default() },
            Allocation { device_nodes: vec![node("rx")], ..Allocation::default() },
        ];
        for bad in bad {
            assert!(matches!(bad.clone().wire(), Err(Invalid::Allocation { .. })), "{bad:?}");
        }
        let long = variable("LONG", &"x".repeat(limits::ANSWER_BYTES_MAX)).wire();
        assert!(matches!(long, Err(Invalid::TooLong { bytes }) if bytes > limits::ANSWER_BYTES_MAX));
    }
}
