//! A node with an agent, and words to say what happens on it.

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use nvidia_ml::{Fake, machine::Instance};
use partita_cluster::{ControlPlane, Options, install_crds};
use partita_core::model::catalog;
use partita_fake_kubelet::FakeKubelet;
use partita_kube::crd::{FoundGpu, FoundPartition, GpuNode, GpuNodeStatus, PartitionState};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked.
const EVERY: Duration = Duration::from_millis(20);

/// The node's name.
pub(crate) const NODE: &str = "n1";

/// An API server, a Node, a kubelet, GPUs.
pub(crate) struct Stage {
    pub(crate) kubelet: FakeKubelet,
    pub(crate) fake: Fake,
    pub(crate) folder: TempDir,
    cluster: ControlPlane,
    pub(crate) client: Client,
}

/// An agent's process. It is killed when this goes.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines: Vec<String> = BufReader::new(File::open(&self.log).unwrap()).lines().map_while(Result::ok).collect();
            eprintln!("the agent's log ends with:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

impl Agent {
    /// Waits until it ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("the agent ends", async || self.child.try_wait().unwrap()).await
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// As a kubelet ends a container.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// As `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Stage {
    /// A node with these GPUs, whose label says how they may be cut. No agent runs yet.
    pub(crate) async fn new(gpus: &str, label: Option<&str>) -> Self {
        let cluster = ControlPlane::start(Options::default()).await.unwrap();
        let client = cluster.client();
        install_crds(&client).await.unwrap();
        let folder = tempfile::Builder::new().prefix("pa").tempdir().unwrap();
        let fake = Fake::create(&folder.path().join("gpus"), gpus).unwrap();
        let kubelet = FakeKubelet::started(folder.path().join("k")).unwrap();
        let stage = Self { kubelet, fake, folder, cluster, client };
        let labels = label.map_or_else(|| json!({}), |label| json!({ "partita.dev/partitioning": label }));
        let node: Node = serde_json::from_value(json!({ "metadata": { "name": NODE, "labels": labels } })).unwrap();
        Api::all(stage.client.clone()).create(&PostParams::default(), &node).await.unwrap();
        stage
    }

    /// Starts the agent.
    pub(crate) fn agent(&self) -> Agent {
        self.agent_with(&[], &[])
    }

    /// Starts the agent with more arguments and variables.
    pub(crate) fn agent_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Agent {
        let log = self.folder.path().join(format!("agent-{}.log", rand()));
        // Cargo has built it beside this test.
        let library = env::current_exe().unwrap().with_file_name("libnvidia_ml.so");
        assert!(library.exists(), "{} is not built: run cargo build -p partita-fake-nvml", library.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
        command.args(["-vv", "agent", "--listen", "127.0.0.1:0", "--node", NODE]);
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig());
        command.arg("--state").arg(self.folder.path().join("state")).arg("--mps").arg(self.folder.path().join("mps"));
        if !arguments.contains(&"--no-cdi") {
            command.arg("--cdi").arg(self.folder.path().join("cdi"));
        }
        // What NVIDIA's tools would have written: without it containers get GPUs by variables.
        let common = self.folder.path().join("nvidia.yaml");
        std::fs::write(&common, "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [NVIDIA_VISIBLE_DEVICES=void]\n")
            .unwrap();
        if !arguments.contains(&"--no-cdi") {
            command.arg("--cdi-common").arg(common);
        }
        command.arg("--device-plugins").arg(self.kubelet.device_plugins_folder());
        command.arg("--pod-resources").arg(self.kubelet.pod_resources_socket());
        if !arguments.contains(&"--simulated") && !arguments.contains(&"--library") {
            command.arg("--library").arg(library).env("PARTITA_FAKE_NVML", self.folder.path().join("gpus"));
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        command.env("PARTITA_LOG", "info,partita_agent=debug,partita_device=debug,partita_kubelet=debug").env_remove("PARTITA_FAULT");
        command.envs(variables.iter().copied());
        Agent { child: command.spawn().unwrap(), log }
    }

    /// What is on a GPU: (profile, first slot, UUIDs of what computes there), sorted.
    pub(crate) fn truth(&self, gpu: usize) -> Vec<(String, u8, Vec<String>)> {
        let gpu = self.fake.state().unwrap().gpus.remove(gpu);
        let grid = catalog::lookup(&gpu.model).unwrap().grid.unwrap();
        let one = |one: &Instance| {
            let uuids = one.compute.iter().map(|compute| compute.uuid.clone()).collect();
            (grid.profiles[usize::from(one.profile)].name.clone(), one.start, uuids)
        };
        let mut all: Vec<_> = gpu.instances.iter().map(one).collect();
        all.sort();
        all
    }

    /// Waits until a GPU has exactly these partitions, all of them ready; then everybody must say the same of them: the driver, the status
    /// and the kubelet, which may give away those that nobody uses. Returns the UUIDs in that order.
    pub(crate) async fn settled(&self, gpu: usize, wanted: &[(&str, u8)]) -> Vec<String> {
        let is_it = |one: &FoundPartition, (profile, start): &(&str, u8)| {
            one.profile.as_deref() == Some(profile) && one.start == Some(*start) && one.state == PartitionState::Ready
        };
        let is_so = |found: &FoundGpu| {
            let all = wanted.iter().all(|want| found.partitions.iter().any(|one| is_it(one, want)));
            all && found.partitions.len() == wanted.len() && found.healthy
        };
        let found = self.gpu(gpu, &format!("exactly {wanted:?} are ready"), is_so).await;
        let told: BTreeSet<&String> = found.partitions.iter().map(|one| &one.uuid).collect();
        let truth = self.truth(gpu);
        assert_eq!(truth.iter().flat_map(|one| &one.2).collect::<BTreeSet<_>>(), told, "{found:#?}\n{truth:#?}");
        assert!(truth.len() == wanted.len() && truth.iter().all(|one| one.2.len() == 1), "something is left over: {truth:#?}");
        for one in found.partitions.iter().filter(|one| one.users.iter().all(|user| !user.starts_with("pid:"))) {
            let resource = one.resource.as_deref().unwrap();
            self.kubelet.until("the kubelet has what is ready", |kubelet| kubelet.healthy(resource).contains(&one.uuid)).await;
        }
        self.kubelet.until("the kubelet has nothing else", |kubelet| self.offered(kubelet, gpu).iter().all(|id| told.contains(id))).await;
        let uuid = |want: &(&str, u8)| found.partitions.iter().find(|one| is_it(one, want)).unwrap().uuid.clone();
        wanted.iter().map(uuid).collect()
    }

    /// The devices of a GPU that is cut which the kubelet could give away: all MIG devices, where there is one GPU.
    fn offered(&self, kubelet: &FakeKubelet, gpu: usize) -> Vec<String> {
        let others: BTreeSet<String> = (0..self.fake.state().unwrap().gpus.len())
            .filter(|&other| other != gpu)
            .flat_map(|other| self.truth(other).into_iter().flat_map(|one| one.2))
            .collect();
        let resources: BTreeSet<String> = kubelet.registrations().into_iter().map(|one| one.resource).collect();
        let ids = resources.iter().flat_map(|resource| kubelet.healthy(resource));
        ids.filter(|id| id.starts_with("MIG-") && !others.contains(id)).collect()
    }

    pub(crate) fn gpu_nodes(&self) -> Api<GpuNode> {
        Api::all(self.client.clone())
    }

    /// Changes the node's label.
    pub(crate) async fn label(&self, value: Option<&str>) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = json!({ "metadata": { "labels": { "partita.dev/partitioning": value } } });
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// What stands in the status, once it does.
    pub(crate) async fn status(&self) -> GpuNodeStatus {
        self.until("there is a status", |status| !status.conditions.is_empty()).await
    }

    /// Waits until the status is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&GpuNodeStatus) -> bool) -> GpuNodeStatus {
        let api = self.gpu_nodes();
        let began = Instant::now();
        let mut last = None;
        loop {
            if let Ok(node) = api.get(NODE).await {
                last = node.status;
            }
            match last {
                Some(status) if is_so(&status) => return status,
                _ => assert!(began.elapsed() < PATIENCE, "waited in vain until {what}: {last:#?}"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Waits until the condition has this reason, and returns its message.
    pub(crate) async fn reason(&self, reason: &str) -> String {
        let status = self.until(reason, |status| status.conditions.iter().any(|one| one.reason == reason)).await;
        status.conditions[0].message.clone()
    }

    /// Writes a layout, as the scheduler does, once the agent has made the object.
    pub(crate) async fn layout(&self, term: i64, generation: i64, gpus: Value) {
        self.try_layout(term, generation, gpus).await.unwrap();
    }

    pub(crate) async fn try_layout(&self, term: i64, generation: i64, gpus: Value) -> Result<GpuNode, kube::Error> {
        self.status().await;
        let spec = json!({ "term": term, "generation": generation, "plan": "test", "gpus": gpus });
        let object = json!({ "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": NODE }, "spec": spec });
        self.gpu_nodes().patch(NODE, &PatchParams::apply("partita-scheduler").force(), &Patch::Apply(object)).await
    }

    /// A GPU of a layout: MIG partitions as (profile, first slot), for a pod if it has a name.
    pub(crate) fn mig(&self, gpu: usize, partitions: &[(&str, u8, Option<&str>)]) -> Value {
        let one = |(profile, start, name): &(&str, u8, Option<&str>)| match name {
            None => json!({ "profile": profile, "start": start }),
            Some(name) => json!({ "profile": profile, "start": start, "pod": pod(name), "resource": format!("nvidia.com/mig-{profile}") }),
        };
        let partitions: Vec<Value> = partitions.iter().map(one).collect();
        json!({ "uuid": self.uuid(gpu), "index": gpu, "cut": "mig", "partitions": partitions })
    }

    /// A GPU of a layout: shares of thousandths for pods.
    pub(crate) fn shares(&self, gpu: usize, shares: &[(u32, &str, &str)]) -> Value {
        let one = |(milli, name, resource): &(u32, &str, &str)| json!({ "milli": milli, "pod": pod(name), "resource": resource });
        let partitions: Vec<Value> = shares.iter().map(one).collect();
        json!({ "uuid": self.uuid(gpu), "index": gpu, "cut": "shares", "partitions": partitions })
    }

    /// A GPU of a layout: warm shares under MPS, MiB.
    pub(crate) fn mps(&self, gpu: usize, shares: &[u32]) -> Value {
        let partitions: Vec<Value> = shares.iter().map(|mib| json!({ "memoryMiB": mib })).collect();
        json!({ "uuid": self.uuid(gpu), "index": gpu, "cut": "mps", "partitions": partitions })
    }

    pub(crate) fn uuid(&self, gpu: usize) -> String {
        self.fake.state().unwrap().gpus[gpu].uuid.clone()
    }

    /// Waits until a partition is in this state, and returns it.
    pub(crate) async fn partition(&self, gpu: usize, profile: &str, start: u8, state: PartitionState) -> FoundPartition {
        let uuid = self.uuid(gpu);
        let find = |status: &GpuNodeStatus| {
            let gpu = status.gpus.iter().find(|gpu| gpu.uuid == uuid)?;
            let is_it = |one: &&FoundPartition| one.profile.as_deref() == Some(profile) && one.start == Some(start) && one.state == state;
            gpu.partitions.iter().find(is_it).cloned()
        };
        find(&self.until(&format!("{profile} at slot {start} is {state:?}"), |status| find(status).is_some()).await).unwrap()
    }

    /// Waits until a GPU is so.
    pub(crate) async fn gpu(&self, gpu: usize, what: &str, is_so: impl Fn(&FoundGpu) -> bool) -> FoundGpu {
        let uuid = self.uuid(gpu);
        let find = |status: &GpuNodeStatus| status.gpus.iter().find(|gpu| gpu.uuid == uuid && is_so(gpu)).cloned();
        find(&self.until(what, |status| find(status).is_some()).await).unwrap()
    }

    /// The CDI file.
    pub(crate) fn cdi(&self) -> Value {
        let text = std::fs::read(self.folder.path().join("cdi/partita.dev-gpu.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

fn pod(name: &str) -> Value {
    json!({ "namespace": "default", "name": name, "uid": format!("uid-{name}") })
}

/// A message has all of this.
#[track_caller]
pub(crate) fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(EVERY).await;
    }
}

/// A number that differs from call to call.
fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
