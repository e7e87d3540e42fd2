//! A pod's whole way on a real control plane: scheduler, agent, kubelet, containerd. Only the GPUs are not real: NVML is a library of ours,
//! their device nodes are those of memory.
//!
//! Where a machine cannot run containers (no root, no runc) this says so and passes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(clippy::print_stderr, reason = "the log of a program belongs beside the failure")]

use std::{
    collections::BTreeSet,
    env, fs,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Node as Object, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use nvidia_ml::Fake;
use partita_cluster::{ControlPlane, Node, Options, WITNESS_IMAGE, install_crds};
use partita_kube::crd::{FoundPartition, GpuNode, PartitionState};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(90);
const NODE: &str = "real";

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A program of ours. It is killed when this goes.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(folder: &Path, name: &str, arguments: &[&str], gpus: Option<&Path>) -> Self {
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        if let Some(gpus) = gpus {
            command.env("PARTITA_FAKE_NVML", gpus);
        }
        Self { child: command.spawn().unwrap(), log }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("{} ends with:\n{}", self.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// All of it.
struct World {
    // In this order: programs end before the node, and the node before its control plane.
    agent: Option<Running>,
    _scheduler: Running,
    node: Node,
    pods: Api<Pod>,
    fake: Fake,
    folder: TempDir,
    cluster: ControlPlane,
}

impl World {
    /// None where there can be no node.
    async fn start(gpus: &str) -> Option<Self> {
        if let Some(why) = Node::missing() {
            // Past the capture of what tests print, as nobody looks at those that pass.
            io::stderr().write_all(format!("skipped, no real node on this machine: {why}\n").as_bytes()).unwrap();
            return None;
        }
        let cluster = ControlPlane::start(Options::default()).await.unwrap_or_else(|error| panic!("{error}"));
        install_crds(&cluster.client()).await.unwrap();
        let node = Node::start(&cluster, NODE).await.unwrap_or_else(|error| panic!("{error}"));
        let label = json!({ "metadata": { "labels": { "partita.dev/partitioning": "auto" } } });
        let nodes: Api<Object> = Api::all(cluster.client());
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
        let folder = tempfile::Builder::new().prefix("pr").tempdir().unwrap();
        let fake = Fake::create(&folder.path().join("gpus"), gpus).unwrap();
        driver_files(folder.path());
        let kubeconfig = cluster.kubeconfig().display().to_string();
        let scheduler = ["scheduler", "--native", "--no-lease", "--listen", "127.0.0.1:0", "--kubeconfig", &kubeconfig];
        let scheduler = Running::start(folder.path(), "scheduler", &scheduler, None);
        let pods = Api::default_namespaced(cluster.client());
        let mut world = Self { agent: None, _scheduler: scheduler, node, pods, fake, folder, cluster };
        world.start_agent();
        Some(world)
    }

    fn start_agent(&mut self) {
        let text = |path: &Path| path.display().to_string();
        // Cargo has built it beside this test.
        let library = text(&env::current_exe().unwrap().with_file_name("libnvidia_ml.so"));
        let [state, proc, common] = ["state", "proc", "nvidia.yaml"].map(|name| text(&self.folder.path().join(name)));
        let kubeconfig = text(self.cluster.kubeconfig());
        let [plugins, pods, cdi] =
            [self.node.device_plugins_folder(), self.node.pod_resources_socket(), self.node.cdi_folder()].map(|path| text(&path));
        let arguments = [
            ["agent", "-vv"],
            ["--node", NODE],
            ["--listen", "127.0.0.1:0"],
            ["--library", &library],
            ["--state", &state],
            ["--proc", &proc],
            ["--cdi-common", &common],
            ["--kubeconfig", &kubeconfig],
            ["--device-plugins", &plugins],
            ["--pod-resources", &pods],
            ["--cdi", &cdi],
        ]
        .concat();
        self.agent = Some(Running::start(self.folder.path(), "agent", &arguments, Some(self.fake.folder())));
    }

    async fn create(&self, name: &str, resource: &str) {
        let resources = json!({ "limits": { resource: "1" } });
        let container = json!({ "name": "main", "image": WITNESS_IMAGE, "imagePullPolicy": "Never", "resources": resources });
        let spec = json!({
            "schedulerName": "partita", "hostNetwork": true, "terminationGracePeriodSeconds": 1, "enableServiceLinks": false,
            "containers": [container],
        });
        let pod = json!({ "metadata": { "name": name }, "spec": spec });
        self.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    /// Waits until a pod runs, and returns what its container saw.
    async fn seen(&self, name: &str) -> Seen {
        let began = Instant::now();
        loop {
            let pod = self.pods.get(name).await.unwrap();
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            if phase == "Running" {
                break;
            }
            if phase == "Failed" || began.elapsed() > PATIENCE {
                let node = Api::<GpuNode>::all(self.cluster.client()).get(NODE).await.unwrap();
                panic!("{name} does not run: {:#?} on {:?}\n{:#?}", pod.status, pod.spec.unwrap().node_name, (node.spec, node.status));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = || self.node.container_log("default", name, "main");
        until("the container has said what it sees", async || log().ends_with("}\n").then_some(())).await;
        let seen: Value = serde_json::from_str(&log()).unwrap();
        let names = seen["devices"].as_array().unwrap().iter().filter_map(Value::as_str);
        let devices = names.filter(|name| name.starts_with("nvidia")).map(str::to_owned).collect();
        let variable = |name: &str| seen["environment"][name].as_str().unwrap_or_default().to_owned();
        Seen { device: variable("PARTITA_DEVICE"), visible: variable("NVIDIA_VISIBLE_DEVICES"), devices }
    }

    async fn delete(&self, name: &str) {
        self.pods.delete(name, &DeleteParams::default()).await.unwrap();
        until("the pod is gone", async || self.pods.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }

    /// The partition that a pod has, by the agent's word.
    async fn partition_of(&self, pod: &str) -> FoundPartition {
        let api: Api<GpuNode> = Api::all(self.cluster.client());
        let user = format!("default/{pod}");
        let find = async || {
            let gpus = api.get(NODE).await.unwrap().status?.gpus;
            gpus.into_iter().flat_map(|gpu| gpu.partitions).find(|part| part.users == [user.as_str()])
        };
        until(&format!("{pod} is named as a user"), find).await
    }

    /// The device nodes that guard an instance of GPU 0, and the GPU's own.
    fn guards(&self, uuid: &str) -> BTreeSet<String> {
        let state = self.fake.state().unwrap();
        let gpu = state.gpus.iter().find(|gpu| gpu.instances.iter().any(|one| one.compute.iter().any(|ci| ci.uuid == uuid))).unwrap();
        let instance = gpu.instances.iter().find(|one| one.compute.iter().any(|ci| ci.uuid == uuid)).unwrap();
        let (first, second) = caps(gpu.minor, instance.id);
        [format!("nvidia{}", gpu.minor), format!("nvidia-caps/nvidia-cap{first}"), format!("nvidia-caps/nvidia-cap{second}")].into()
    }
}

/// What a container saw.
struct Seen {
    device: String,
    visible: String,
    devices: BTreeSet<String>,
}

/// The numbers of the device nodes of a GPU instance and its compute instance 0.
fn caps(minor: u32, instance: u32) -> (u32, u32) {
    let first = 3 + minor * 100 + instance * 2;
    (first, first + 1)
}

/// What the driver and its tools tell of two GPUs. Their device nodes are memory's, `/dev/null` and its neighbours.
fn driver_files(folder: &Path) {
    let caps_folder = folder.join("proc/driver/nvidia-caps");
    fs::create_dir_all(&caps_folder).unwrap();
    fs::write(folder.join("proc/devices"), "Character devices:\n  1 mem\n  1 nvidia\n  1 nvidia-caps\n\nBlock devices:\n").unwrap();
    let mut minors = "config 1\nmonitor 2\n".to_owned();
    for minor in 0..2 {
        for instance in 0..15 {
            let (first, second) = caps(minor, instance);
            let of = format!("gpu{minor}/gi{instance}");
            minors = [minors, format!("{of}/access {first}\n{of}/ci0/access {second}\n")].concat();
        }
    }
    fs::write(caps_folder.join("mig-minors"), minors).unwrap();
    let common = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [NVIDIA_VISIBLE_DEVICES=void, DRIVER=common]\n";
    fs::write(folder.join("nvidia.yaml"), common).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_partition_that_did_not_exist_and_sees_no_other() {
    let Some(mut world) = World::start("H100-80GB×2").await else { return };
    let names: Vec<String> = (0..7).map(|row| format!("small-{row}")).collect();
    for name in &names {
        world.create(name, "nvidia.com/mig-1g.10gb").await;
    }
    let mut uuids = BTreeSet::new();
    for name in &names {
        let seen = world.seen(name).await;
        let part = world.partition_of(name).await;
        assert_eq!(
            (part.profile.as_deref(), part.state, part.uuid.as_str()),
            (Some("1g.10gb"), PartitionState::Ready, seen.device.as_str())
        );
        assert_eq!(seen.visible, "void");
        assert_eq!(seen.devices, world.guards(&seen.device), "{name} sees what guards its own partition, and nothing else");
        uuids.insert(seen.device);
    }
    assert_eq!(uuids.len(), 7);

    // A whole GPU beside them.
    world.create("whole", "nvidia.com/gpu").await;
    let seen = world.seen("whole").await;
    assert!(seen.device.starts_with("GPU-") && seen.devices.len() == 1, "{} {:?}", seen.device, seen.devices);

    // An agent that is killed comes back to the same; nobody notices.
    drop(world.agent.take());
    world.start_agent();
    for name in &names {
        assert!(uuids.contains(&world.partition_of(name).await.uuid));
    }

    // A larger profile takes the slots of those that ended, and of no other.
    world.create("large", "nvidia.com/mig-3g.40gb").await;
    let pods = world.pods.clone();
    let reason = async || {
        let conditions = pods.get("large").await.unwrap().status.unwrap_or_default().conditions.unwrap_or_default();
        conditions.into_iter().find(|one| one.type_ == "PodScheduled" && one.status == "False").and_then(|one| one.message)
    };
    let reason = until("it is told why it waits", reason).await;
    assert!(!reason.is_empty());
    let mut kept = BTreeSet::new();
    let placed = |part: &FoundPartition| part.start.unwrap();
    let mut by_start = Vec::new();
    for name in &names {
        by_start.push((placed(&world.partition_of(name).await), name.clone()));
    }
    by_start.sort();
    for (_, name) in by_start.iter().take(4) {
        world.delete(name).await;
    }
    for (_, name) in by_start.iter().skip(4) {
        kept.insert(world.partition_of(name).await.uuid);
    }
    let seen = world.seen("large").await;
    let part = world.partition_of("large").await;
    assert_eq!((part.profile.as_deref(), part.uuid.as_str()), (Some("3g.40gb"), seen.device.as_str()));
    assert_eq!(seen.devices, world.guards(&seen.device));
    for (_, name) in by_start.iter().skip(4) {
        assert!(kept.contains(&world.partition_of(name).await.uuid), "{name} keeps what it has");
    }
}
