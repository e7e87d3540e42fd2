//! A cluster with a scheduler, and words to say what happens in it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    scheduling::v1::PriorityClass,
    storage::v1::StorageClass,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use partita_cluster::{
    ControlPlane, NodeShape, Options, Program,
    agent::{Agents, Behaviour},
    install_crds,
    nodes::GPU_MODELS,
};
use serde_json::{Value, json};

/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often is looked.
const EVERY: Duration = Duration::from_millis(50);

/// A cluster and what runs in it.
pub(crate) struct Stage {
    pub(crate) cluster: ControlPlane,
    pub(crate) client: Client,
}

/// A scheduler's process. It is killed when this goes.
pub(crate) struct Scheduler {
    child: Child,
    log: PathBuf,
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines: Vec<String> = BufReader::new(File::open(&self.log).unwrap()).lines().map_while(Result::ok).collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the scheduler's log ends with:\n{}", last.join("\n"));
        }
    }
}

impl Scheduler {
    /// Waits until it ended by itself, as it does at a fault point.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        until("the scheduler ends", async || self.child.try_wait().unwrap()).await
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Stage {
    /// A control plane with these programs besides etcd and the API server, and partita's custom resources.
    pub(crate) async fn with(programs: &[Program]) -> Self {
        let options = Options { programs: programs.iter().copied().collect(), ..Options::default() };
        let cluster = ControlPlane::start(options).await.unwrap();
        let client = cluster.client();
        install_crds(&client).await.unwrap();
        Self { cluster, client }
    }

    /// Starts a scheduler without a rival.
    pub(crate) fn scheduler(&self) -> Scheduler {
        self.scheduler_with(&["--no-lease"], None)
    }

    /// Starts a scheduler with these arguments, which ends at a fault point if one is named.
    pub(crate) fn scheduler_with(&self, arguments: &[&str], fault: Option<&str>) -> Scheduler {
        self.start(self.cluster.kubeconfig(), arguments, fault)
    }

    /// Starts a scheduler that comes with this kubeconfig.
    pub(crate) fn scheduler_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Scheduler {
        self.start(kubeconfig, arguments, None)
    }

    fn start(&self, kubeconfig: &Path, arguments: &[&str], fault: Option<&str>) -> Scheduler {
        let log = self.cluster.folder().join(format!("partita-{}.log", Instant::now().elapsed().as_nanos() ^ u128::from(rand())));
        let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
        command.args(["-vv", "scheduler", "--native", "--listen", "127.0.0.1:0", "--kubeconfig"]).arg(kubeconfig);
        command.args(arguments).stdin(Stdio::null()).stdout(File::create(log.with_extension("out")).unwrap());
        command.stderr(File::create(&log).unwrap()).env_remove("PARTITA_LOG").env_remove("PARTITA_FAULT");
        command.env("PARTITA_LOG", "info,partita_kube=debug");
        if let Some(fault) = fault {
            command.env("PARTITA_FAULT", fault);
        }
        Scheduler { child: command.spawn().unwrap(), log }
    }

    /// What a scheduler printed.
    pub(crate) fn output(scheduler: &Scheduler) -> String {
        std::fs::read_to_string(scheduler.log.with_extension("out")).unwrap()
    }

    /// Agents on all nodes with GPUs.
    pub(crate) fn agents(&self) -> Agents {
        Agents::start(self.client.clone(), Behaviour::default())
    }

    /// What a pod of the default namespace got of its node's GPUs.
    pub(crate) async fn grant(&self, name: &str) -> String {
        let pod = self.pods("default").get(name).await.unwrap();
        pod.metadata.annotations.unwrap_or_default().remove("partita.dev/grant").unwrap_or_default()
    }

    /// How many partitions a node has ready.
    pub(crate) async fn partitions(&self, node: &str) -> usize {
        let nodes: Api<partita_kube::crd::GpuNode> = Api::all(self.client.clone());
        let gpus = nodes.get(node).await.unwrap().status.unwrap().gpus;
        gpus.iter().map(|gpu| gpu.partitions.len()).sum()
    }

    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "team": name } } })).unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap();
    }

    /// A node, with its status: `spec` and `allocatable` as given.
    pub(crate) async fn node(&self, name: &str, labels: Value, spec: Value, allocatable: Value) {
        let mut all = json!({ "cpu": "8", "memory": "16Gi", "pods": "20" });
        merge(&mut all, allocatable);
        let mut own = json!({ "kubernetes.io/hostname": name });
        merge(&mut own, labels);
        // With its status from the start: KWOK gives a node that has none what it likes.
        let object: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": own, "annotations": { "kwok.x-k8s.io/node": "fake" } },
            "spec": spec,
            "status": {
                "allocatable": all,
                "capacity": all,
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": null, "lastTransitionTime": null,
                }],
            },
        }))
        .unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap();
    }

    async fn create<T>(&self, api: Api<T>, object: Value)
    where
        T: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    pub(crate) async fn priority(&self, name: &str, value: i32) {
        let all: Api<PriorityClass> = Api::all(self.client.clone());
        self.create(all, json!({ "metadata": { "name": name }, "value": value })).await;
    }

    /// A storage class whose volumes lie on nodes.
    pub(crate) async fn local_volumes(&self, class: &str) {
        let all: Api<StorageClass> = Api::all(self.client.clone());
        let how = json!({ "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer" });
        let mut object = json!({ "metadata": { "name": class } });
        merge(&mut object, how);
        self.create(all, object).await;
    }

    /// A volume of 2 GiB on a node.
    pub(crate) async fn local_volume(&self, name: &str, class: &str, node: &str) {
        let all: Api<PersistentVolume> = Api::all(self.client.clone());
        let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
        let spec = json!({
            "capacity": { "storage": "2Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": class, "local": { "path": "/disk" },
            "persistentVolumeReclaimPolicy": "Retain",
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
        });
        self.create(all, json!({ "metadata": { "name": name }, "spec": spec })).await;
    }

    /// A claim for 1 GiB, in the default namespace.
    pub(crate) async fn claim(&self, name: &str, class: &str) {
        let all: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), "default");
        let spec =
            json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": { "requests": { "storage": "1Gi" } } });
        self.create(all, json!({ "metadata": { "name": name }, "spec": spec })).await;
    }

    /// A pod of ours: `spec` is laid over one container that asks for little.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, meta: Value, spec: Value) {
        self.try_pod(namespace, name, meta, spec).await.unwrap();
    }

    pub(crate) async fn try_pod(&self, namespace: &str, name: &str, meta: Value, spec: Value) -> Result<Pod, kube::Error> {
        let mut whole = json!({
            "schedulerName": "partita", "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "main", "image": "none", "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } } }],
        });
        merge(&mut whole, spec);
        let mut metadata = json!({ "name": name });
        merge(&mut metadata, meta);
        let object: Pod = serde_json::from_value(json!({ "metadata": metadata, "spec": whole })).unwrap();
        self.pods(namespace).create(&PostParams::default(), &object).await
    }

    /// A pod that asks for these resources.
    pub(crate) async fn asking(&self, namespace: &str, name: &str, requests: Value) {
        self.pod(namespace, name, json!({}), asks(&requests)).await;
    }

    pub(crate) async fn delete(&self, namespace: &str, name: &str) {
        self.pods(namespace).delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// Waits until a pod is bound, and says where.
    pub(crate) async fn bound(&self, namespace: &str, name: &str) -> String {
        let pods = self.pods(namespace);
        until(&format!("{namespace}/{name} is bound"), async || pods.get(name).await.ok()?.spec?.node_name).await
    }

    /// Waits until a pod is told why it waits in these words, and returns all of them.
    pub(crate) async fn told(&self, namespace: &str, name: &str, words: &str) -> String {
        let pods = self.pods(namespace);
        let began = Instant::now();
        let mut last = None;
        loop {
            let pod = pods.get(name).await.unwrap();
            let node = pod.spec.and_then(|spec| spec.node_name);
            assert_eq!(node, None, "{namespace}/{name} was bound, though it should be told {words:?}");
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            let told = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
            last = told.and_then(|condition| condition.message).or(last);
            match last {
                Some(message) if message.contains(words) => return message,
                _ => assert!(began.elapsed() < PATIENCE, "{namespace}/{name} was told {last:?} and not {words:?}"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Events about a pod, with this reason.
    pub(crate) async fn events(&self, namespace: &str, name: &str, reason: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let all = events.list(&ListParams::default()).await.unwrap().items;
        all.into_iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason))
            .collect()
    }

    /// Runs `partita` with these arguments on this cluster.
    pub(crate) fn partita(&self, arguments: &[&str]) -> (bool, String) {
        run(self.cluster.kubeconfig(), arguments)
    }
}

fn run(kubeconfig: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    let output = command.args(arguments).env("KUBECONFIG", kubeconfig).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text)
}

/// Nodes with so many H100 each, which may be cut in any way.
pub(crate) async fn gpu_nodes(stage: &Stage, prefix: &str, nodes: usize, gpus: u32) {
    let mut shape = NodeShape::new(prefix, nodes).with_gpus(GPU_MODELS[3], gpus);
    shape.labels.insert("partita.dev/partitioning".into(), "auto".into());
    partita_cluster::nodes::create(&stage.client, &shape).await.unwrap();
}

/// The spec of a pod that asks for these resources; what has no fraction is asked as a limit too, as the API wants it.
pub(crate) fn asks(requests: &Value) -> Value {
    let mut limits = requests.clone();
    limits.as_object_mut().unwrap().retain(|name, _| name.contains('/'));
    json!({ "containers": [{ "name": "main", "image": "none", "resources": { "requests": requests, "limits": limits } }] })
}

/// Lays `over` over `base`, object by object.
pub(crate) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited {} s in vain until {what}", PATIENCE.as_secs());
        tokio::time::sleep(EVERY).await;
    }
}

/// A number that differs from call to call.
fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
