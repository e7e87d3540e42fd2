//! What containerd and the kubelet are told.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Where things lie in the folder of a node.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) folder: PathBuf,
    /// Below each cgroup hierarchy: the group of all containers.
    pub(super) cgroup: String,
}

impl Places {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The kubelet's root, which it sees as `/var/lib/kubelet`.
    pub(super) fn kubelet(&self) -> PathBuf {
        self.at("kubelet")
    }

    pub(super) fn cdi(&self) -> PathBuf {
        self.at("cdi")
    }

    pub(super) fn networks(&self) -> PathBuf {
        self.at("networks")
    }

    pub(super) fn pod_logs(&self) -> PathBuf {
        self.at("pod-logs")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.at("containerd.sock")
    }

    pub(super) fn containerd_settings(&self) -> PathBuf {
        self.at("containerd.toml")
    }

    pub(super) fn kubelet_settings(&self) -> PathBuf {
        self.at("kubelet.json")
    }

    pub(super) fn image(&self) -> PathBuf {
        self.at("witness.tar")
    }

    pub(super) fn log(&self, program: &str) -> PathBuf {
        self.at(&format!("{program}.log"))
    }
}

/// The programs live in namespaces of their own: mounts, so that the kubelet has its fixed path and what it mounts goes with it, and
/// processes, so that whatever was started ends with the first one. The arguments are the kubelet's root, a folder of programs, the program.
pub(super) const INSIDE: &str = "\
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/kubelet
mount --bind \"$1\" /var/lib/kubelet
PATH=\"$2:$PATH\"
shift 2
exec \"$@\"
";

/// containerd's settings, as TOML.
pub(super) fn containerd(places: &Places, image: &str) -> String {
    // A JSON string is a TOML string too.
    let quoted = |path: &Path| Value::from(path.display().to_string()).to_string();
    let socket = quoted(&places.socket());
    let internal = quoted(&places.at("containerd.ttrpc"));
    format!(
        r#"version = 3
root = {root}
# In the mount namespace.
state = "/run/containerd"
imports = []
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
address = {socket}
[ttrpc]
address = {internal}
[plugins."io.containerd.cri.v1.images"]
# Needs nothing of the file system.
snapshotter = "native"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{image}"
[plugins."io.containerd.cri.v1.runtime"]
# A machine may keep us from raising what it lowered.
restrict_oom_score_adj = true
disable_apparmor = true
cdi_spec_dirs = [{cdi}]
[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = {networks}
bin_dirs = [{networks}]
"#,
        root = quoted(&places.at("containerd")),
        cdi = quoted(&places.cdi()),
        networks = quoted(&places.networks()),
    )
}

/// A network that is never used, since pods have the host's. Without one the node is not ready.
pub(super) fn network() -> Value {
    json!({ "cniVersion": "1.0.0", "name": "none", "plugins": [{ "type": "none" }] })
}

/// The kubelet's settings. cgroups of version 1, swap and little free space are all taken, and nothing is enforced: these are tests.
pub(super) fn kubelet(places: &Places) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", places.socket().display()),
        "podLogsDir": places.pod_logs(),
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", places.cgroup),
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": { "memory.available": "1Mi" },
        "imageGCHighThresholdPercent": 100,
        // Nobody calls it, and its port would be one more that somebody else may have.
        "enableServer": false,
        "healthzPort": 0,
        "nodeStatusUpdateFrequency": "1s",
        "syncFrequency": "5s",
    })
}
