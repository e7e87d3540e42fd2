//! A real kubelet and real containers: what a device plugin of ours brings into a container, and what the kubelet says of it.
//!
//! Where a machine cannot run containers (no root, no runc) these tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node as Object, Pod};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use partita_cluster::{ControlPlane, Node, Options, Program, WITNESS_IMAGE};
use partita_kubelet::{
    Allocation, Allocator, Choice, Device, DeviceId, DeviceNode, DevicePlugins, Mount, PodResources, ResourceName, State,
};
use serde_json::{Value, json};

const SMALL: &str = "nvidia.com/mig-1g.10gb";
const LARGE: &str = "nvidia.com/mig-3g.40gb";

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

fn devices<const N: usize>(ids: [&str; N]) -> Vec<Device> {
    ids.map(|id| Device::new(DeviceId::new(id).unwrap())).into()
}

/// Asks until `found` says yes; a test that waits in vain fails.
async fn eventually(what: &str, found: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if found().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a minute passed, and not {what}");
}

/// Gives a variable, a CDI device, a mount and a device node, and remembers the calls.
#[derive(Default)]
struct Agent {
    /// A file of the machine that containers see.
    file: PathBuf,
    prefers: Mutex<Vec<DeviceId>>,
    refuses: Mutex<Option<String>>,
    allocated: Mutex<Vec<String>>,
}

impl Allocator for Agent {
    fn prefer(&self, _: &ResourceName, choice: &Choice) -> Vec<DeviceId> {
        self.prefers.lock().unwrap().iter().filter(|id| choice.available.contains(id)).cloned().collect()
    }

    fn allocate(&self, _: &ResourceName, devices: &[DeviceId]) -> Result<Allocation, String> {
        if let Some(why) = self.refuses.lock().unwrap().clone() {
            return Err(why);
        }
        let ids: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
        self.allocated.lock().unwrap().extend(ids.iter().map(ToString::to_string));
        Ok(Allocation {
            environment: [("NVIDIA_VISIBLE_DEVICES".to_owned(), ids.join(","))].into(),
            cdi_devices: ids.iter().map(|id| format!("partita.dev/gpu={id}")).collect(),
            mounts: vec![Mount {
                host_path: self.file.display().to_string(),
                container_path: "/run/partita/note".to_owned(),
                read_only: true,
            }],
            device_nodes: vec![DeviceNode {
                host_path: "/dev/zero".to_owned(),
                container_path: "/dev/partita-zero".to_owned(),
                permissions: "r".to_owned(),
            }],
            ..Allocation::default()
        })
    }
}

/// What containerd reads: each device is a variable and a device node of its own.
fn describe_devices(folder: &Path, ids: &[&str]) {
    let device = |id: &&str| {
        let node = json!({ "path": format!("/dev/partita-{id}"), "hostPath": "/dev/null" });
        json!({ "name": id, "containerEdits": { "env": [format!("PARTITA_CDI={id}")], "deviceNodes": [node] } })
    };
    let devices: Vec<Value> = ids.iter().map(device).collect();
    let text = json!({ "cdiVersion": "0.6.0", "kind": "partita.dev/gpu", "devices": devices }).to_string();
    // By a rename, as containerd reads it at any time.
    fs::write(folder.join("new"), text).unwrap();
    fs::rename(folder.join("new"), folder.join("partita.json")).unwrap();
}

/// A control plane, a node, plugins beside it.
struct World {
    // In this order: the node ends before its control plane.
    node: Node,
    plugins: DevicePlugins,
    agent: Arc<Agent>,
    resources: PodResources,
    pods: Api<Pod>,
    nodes: Api<Object>,
    _cluster: ControlPlane,
}

impl World {
    /// None where there can be no node.
    async fn start() -> Option<Self> {
        if let Some(why) = Node::missing() {
            // Past the capture of what tests print, as nobody looks at those that pass.
            io::stderr().write_all(format!("skipped, no real node on this machine: {why}\n").as_bytes()).unwrap();
            return None;
        }
        // Beside KWOK, which must leave this node alone.
        let options = Options { programs: [Program::Kwok].into(), ..Options::default() };
        let cluster = ControlPlane::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        let node = Node::start(&cluster, "real").await.unwrap_or_else(|error| panic!("{error}"));
        let file = cluster.folder().join("note");
        fs::write(&file, "").unwrap();
        let agent = Arc::new(Agent { file, ..Agent::default() });
        Some(Self {
            plugins: DevicePlugins::new(node.device_plugins_folder(), agent.clone()),
            resources: PodResources::new(node.pod_resources_socket()),
            pods: Api::default_namespaced(cluster.client()),
            nodes: Api::all(cluster.client()),
            node,
            agent,
            _cluster: cluster,
        })
    }

    /// Until the API server shows so many devices to give away.
    async fn until_allocatable(&self, resource: &str, count: &str) {
        let allocatable = async || {
            let status = self.nodes.get(self.node.name()).await.unwrap().status.unwrap();
            status.allocatable.unwrap_or_default().get(resource).map(|quantity| quantity.0.clone())
        };
        eventually(&format!("the node had {count} of {resource}"), async || allocatable().await.as_deref() == Some(count)).await;
    }

    /// Until the kubelet has these healthy devices.
    async fn until_held<const N: usize>(&self, resource: &str, ids: [&str; N]) {
        let ids: BTreeSet<String> = ids.map(str::to_owned).into();
        let held = async || self.resources.allocatable().await.unwrap_or_default().remove(resource).unwrap_or_default();
        eventually(&format!("the kubelet held {ids:?}"), async || held().await == ids).await;
    }

    /// Creates a pod whose containers and init containers ask for one device each.
    async fn create(&self, name: &str, init: &[(&str, &str)], containers: &[(&str, &str)]) {
        let container = |&(name, resource): &(&str, &str), arguments: &[&str]| {
            let resources = if resource.is_empty() { json!({}) } else { json!({ "limits": { resource: "1" } }) };
            json!({ "name": name, "image": WITNESS_IMAGE, "imagePullPolicy": "Never", "args": arguments, "resources": resources })
        };
        let pod = json!({ "metadata": { "name": name }, "spec": {
            "nodeName": self.node.name(),
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": false,
            "initContainers": init.iter().map(|one| container(one, &["once"])).collect::<Vec<_>>(),
            "containers": containers.iter().map(|one| container(one, &[])).collect::<Vec<_>>(),
        } });
        self.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    async fn until_phase(&self, name: &str, phase: &str) -> Pod {
        let of = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let reached = async || of(&self.pods.get(name).await.unwrap()).as_deref() == Some(phase);
        eventually(&format!("pod {name} was {phase}"), reached).await;
        self.pods.get(name).await.unwrap()
    }

    /// What the container saw when it started.
    async fn seen(&self, pod: &str, container: &str) -> Value {
        let log = || self.node.container_log("default", pod, container);
        eventually("the container had said what it sees", async || log().ends_with("}\n")).await;
        serde_json::from_str(&log()).unwrap()
    }

    async fn delete(&self, name: &str) {
        self.pods.delete(name, &DeleteParams::default()).await.unwrap();
        eventually("the pod was gone", async || self.pods.get_opt(name).await.unwrap().is_none()).await;
    }

    /// Pod, container and device of every use.
    async fn users(&self) -> Vec<[String; 3]> {
        let users = self.resources.users().await.unwrap();
        users.into_iter().map(|one| [one.pod, one.container, one.device]).collect()
    }
}

fn triples<const N: usize>(uses: [[&str; 3]; N]) -> Vec<[String; 3]> {
    uses.map(|one| one.map(str::to_owned)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_device_through_every_change_of_the_node() {
    let Some(mut world) = World::start().await else { return };
    describe_devices(&world.node.cdi_folder(), &["MIG-a", "MIG-b", "MIG-c"]);
    world.plugins.advertise(&name(SMALL), devices(["MIG-a", "MIG-b"])).unwrap();
    world.until_held(SMALL, ["MIG-a", "MIG-b"]).await;
    world.until_allocatable(SMALL, "2").await;

    // The planned one of two, and what it is like inside.
    *world.agent.prefers.lock().unwrap() = vec![DeviceId::new("MIG-b").unwrap()];
    world.create("first", &[], &[("main", SMALL)]).await;
    world.until_phase("first", "Running").await;
    let seen = world.seen("first", "main").await;
    assert_eq!(seen["environment"]["NVIDIA_VISIBLE_DEVICES"], "MIG-b", "{seen}");
    assert_eq!(seen["environment"]["PARTITA_CDI"], "MIG-b", "{seen}");
    let nodes: Vec<&str> = seen["devices"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(nodes.contains(&"partita-MIG-b") && nodes.contains(&"partita-zero") && !nodes.contains(&"partita-MIG-a"), "{nodes:?}");
    let mounts = seen["mounts"].as_array().unwrap();
    let note = mounts.iter().find(|mount| mount["point"] == "/run/partita/note").unwrap();
    assert!(note["options"].as_array().unwrap().contains(&json!("ro")), "{note}");
    let first = triples([["first", "main", "MIG-b"]]);
    assert_eq!(world.users().await, first);

    // A partition and a profile more.
    world.plugins.advertise(&name(SMALL), devices(["MIG-a", "MIG-b", "MIG-c"])).unwrap();
    world.plugins.advertise(&name(LARGE), devices(["MIG-d"])).unwrap();
    world.until_held(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;
    world.until_held(LARGE, ["MIG-d"]).await;
    world.until_allocatable(SMALL, "3").await;
    world.until_allocatable(LARGE, "1").await;

    // A kubelet that is killed: the container goes on, the resources come back, the device stays in use.
    world.node.kill_kubelet().unwrap();
    let mut states = world.plugins.states();
    let waiting = states.wait_for(|states| states.values().all(|state| matches!(state, State::Waiting(_)))).await.map(drop);
    waiting.unwrap();
    assert!(world.resources.users().await.unwrap_err().to_string().contains("check that it runs"));
    world.node.start_kubelet().await.unwrap_or_else(|error| panic!("{error}"));
    states.wait_for(|states| states.values().all(|state| *state == State::Registered)).await.unwrap();
    world.until_held(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;
    eventually("the kubelet knew its pod again", async || world.users().await == first).await;
    let first_now = world.pods.get("first").await.unwrap().status.unwrap();
    assert_eq!(first_now.container_statuses.unwrap()[0].restart_count, 0, "the container went on");
    *world.agent.prefers.lock().unwrap() = vec![DeviceId::new("MIG-c").unwrap()];
    world.create("second", &[], &[("main", SMALL)]).await;
    world.until_phase("second", "Running").await;
    assert_eq!(world.users().await, triples([["first", "main", "MIG-b"], ["second", "main", "MIG-c"]]));

    // Who ends gives back, and the next one may have it.
    world.delete("first").await;
    assert_eq!(world.users().await, triples([["second", "main", "MIG-c"]]));
    *world.agent.prefers.lock().unwrap() = vec![DeviceId::new("MIG-b").unwrap()];
    world.create("third", &[], &[("main", SMALL)]).await;
    world.until_phase("third", "Running").await;
    assert_eq!(world.seen("third", "main").await["environment"]["PARTITA_CDI"], "MIG-b");
    assert_eq!(*world.agent.allocated.lock().unwrap(), ["MIG-b", "MIG-c", "MIG-b"]);

    // An agent that is replaced by a newer one while both run: nothing is lost in between.
    let newer = DevicePlugins::new(world.node.device_plugins_folder(), world.agent.clone());
    newer.advertise(&name(SMALL), devices(["MIG-a", "MIG-b", "MIG-c"])).unwrap();
    newer.advertise(&name(LARGE), devices(["MIG-d"])).unwrap();
    let mut states = newer.states();
    states.wait_for(|states| states.values().all(|state| *state == State::Registered)).await.unwrap();
    std::mem::replace(&mut world.plugins, newer).stop().await;
    world.until_held(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;
    world.create("fourth", &[], &[("main", SMALL)]).await;
    world.until_phase("fourth", "Running").await;
    let all = [["fourth", "main", "MIG-a"], ["second", "main", "MIG-c"], ["third", "main", "MIG-b"]];
    assert_eq!(world.users().await, triples(all));
    assert!(*states.borrow_and_update() == [(name(SMALL), State::Registered), (name(LARGE), State::Registered)].into());

    // A profile that is withdrawn has nothing to give away.
    world.plugins.withdraw(&name(LARGE)).await;
    world.until_held(LARGE, []).await;
    world.until_allocatable(LARGE, "0").await;
    let (folder, log) = (world.node.device_plugins_folder(), world.node.kubelet_log());
    drop(world);
    assert!(!folder.exists() && !log.exists(), "nothing of the node remains");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_init_containers_as_the_kubelet_shows_them() {
    let Some(world) = World::start().await else { return };
    describe_devices(&world.node.cdi_folder(), &["MIG-a", "MIG-b"]);
    world.plugins.advertise(&name(SMALL), devices(["MIG-a", "MIG-b"])).unwrap();
    world.until_held(SMALL, ["MIG-a", "MIG-b"]).await;
    world.until_allocatable(SMALL, "2").await;

    // The agent's words reach the person who looks at the pod.
    *world.agent.refuses.lock().unwrap() = Some("GPU 3 is quarantined".to_owned());
    world.create("refused", &[], &[("main", SMALL)]).await;
    let status = world.until_phase("refused", "Failed").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("UnexpectedAdmissionError"));
    assert!(status.message.as_ref().unwrap().contains("GPU 3 is quarantined"), "{status:?}");
    assert_eq!(world.users().await, triples([]));
    *world.agent.refuses.lock().unwrap() = None;

    // An init container hands its device on to the container that asks for the same.
    world.create("handed-on", &[("before", SMALL)], &[("main", SMALL)]).await;
    world.until_phase("handed-on", "Running").await;
    let handed = world.users().await;
    assert!(matches!(handed.as_slice(), [[pod, container, _]] if pod == "handed-on" && container == "main"), "{handed:?}");

    // What only an init container asks for stays taken as long as the pod is there, and is not listed.
    world.create("hidden", &[("before", SMALL)], &[("main", "")]).await;
    world.until_phase("hidden", "Running").await;
    assert_eq!(world.users().await, handed);
    let allocated: BTreeSet<String> = world.agent.allocated.lock().unwrap().iter().cloned().collect();
    assert_eq!(allocated.len(), 2, "the agent was told of both");
    world.create("late", &[], &[("main", SMALL)]).await;
    let status = world.until_phase("late", "Failed").await.status.unwrap();
    let shown = status.message.unwrap();
    assert!(shown.contains("nvidia.com/mig-1g.10gb"), "{shown}");
}
