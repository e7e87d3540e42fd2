//! A cluster to which deploy/ was applied, with agents' pods and their tokens, and words for what agents write.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
    events::v1::Event,
    node::v1::RuntimeClass,
};
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use partita_cluster::{ControlPlane, NodeShape, Options, Program, nodes::GPU_MODELS};
use partita_kube::crd::GpuNode;
use serde_json::{Value, json};

/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often is looked.
const EVERY: Duration = Duration::from_millis(50);
/// Where the agent and the scheduler live.
pub(crate) const SYSTEM: &str = "kube-system";
/// The agent's account, and its name as a writer of fields.
pub(crate) const AGENT: &str = "partita-agent";
pub(crate) const SCHEDULER: &str = "partita-scheduler";
/// The node whose agent is looked at, and another one.
pub(crate) const OWN: &str = "gpu-0";
pub(crate) const OTHER: &str = "gpu-1";

/// A cluster to which deploy/ was applied, with two nodes that were given to partita.
pub(crate) struct Deployed {
    pub(crate) cluster: ControlPlane,
    pub(crate) admin: Client,
}

impl Deployed {
    pub(crate) async fn start() -> Self {
        let programs = [Program::ControllerManager, Program::Scheduler].into();
        let cluster = ControlPlane::start(Options { programs, ..Options::default() }).await.unwrap();
        let admin = cluster.client();
        // As the GPU operator and NVIDIA's container toolkit make it.
        let class: RuntimeClass = serde_json::from_value(json!({ "metadata": { "name": "nvidia" }, "handler": "nvidia" })).unwrap();
        Api::all(admin.clone()).create(&PostParams::default(), &class).await.unwrap();
        let deployed = Self { cluster, admin };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        // The files are what people apply; a field that the API does not know is an error.
        for file in ["crds", "scheduler.yaml", "agent.yaml"] {
            deployed.kubectl(&["apply", "--server-side", "--validate=strict", "-f", folder.join(file).to_str().unwrap()]);
        }
        deployed.nodes("gpu", 2, &[("partita.dev/partitioning", "auto")]).await;
        deployed
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) {
        let mut command = Command::new(&self.cluster.programs().kubectl);
        command.args(arguments).env("KUBECONFIG", self.cluster.kubeconfig()).env("HOME", self.cluster.folder());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Nodes with GPUs, as the GPU operator labels them, and these labels.
    pub(crate) async fn nodes(&self, prefix: &str, count: usize, labels: &[(&str, &str)]) {
        let mut shape = NodeShape::new(prefix, count).with_gpus(GPU_MODELS[3], 8);
        shape.labels.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        partita_cluster::nodes::create(&self.admin, &shape).await.unwrap();
    }

    /// The agents' pods that run, by their nodes.
    pub(crate) async fn agents(&self) -> BTreeMap<String, Pod> {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), SYSTEM);
        let all = pods.list(&ListParams::default().labels("app.kubernetes.io/name=partita-agent")).await.unwrap().items;
        let runs = all.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        runs.filter_map(|pod| Some((pod.spec.clone()?.node_name?, pod))).collect()
    }

    /// A client with the token that the kubelet of `node` would give to the agent's pod there; none: a token that was asked for by hand.
    pub(crate) async fn agent(&self, node: Option<&str>) -> Client {
        let mut bound = None;
        if let Some(node) = node {
            let pod = until(&format!("the agent is on {node}"), async || self.agents().await.remove(node)).await;
            let [name, uid] = [pod.metadata.name, pod.metadata.uid];
            bound = Some(BoundObjectReference { api_version: Some("v1".into()), kind: Some("Pod".into()), name, uid });
        }
        let spec = TokenRequestSpec { bound_object_ref: bound, expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), SYSTEM);
        let answer = accounts.create_token_request(AGENT, &PostParams::default(), &request).await.unwrap();
        let mut config = self.config().await;
        config.auth_info.token = answer.status.unwrap().token.map(Into::into);
        Client::try_from(config).unwrap()
    }

    /// An administrator who says that they are somebody else.
    pub(crate) async fn as_if(&self, user: &str) -> Client {
        let mut config = self.config().await;
        config.auth_info.impersonate = Some(user.to_owned());
        Client::try_from(config).unwrap()
    }

    async fn config(&self) -> Config {
        let file = Kubeconfig::read_from(self.cluster.kubeconfig()).unwrap();
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        // Refusals are what is looked at.
        config.default_retry = false;
        config
    }

    /// Waits until the API server asks the policies about agents: it learns of them a moment after they were made.
    pub(crate) async fn guarded(&self, agent: &Client) {
        let denied = |answer: kube::Result<()>| answer.err().filter(|error| error.to_string().contains("ValidatingAdmissionPolicy"));
        let how = PatchParams { dry_run: true, ..PatchParams::apply(AGENT).force() };
        let foreign = object(OTHER, &json!({}));
        let asked = async || denied(gpu_nodes(agent).patch(OTHER, &how, &foreign).await.map(drop));
        until("the policy about GpuNodes is active", asked).await;
        let how = PostParams { dry_run: true, ..PostParams::default() };
        let foreign = event(OTHER, "partita.dev/agent");
        let asked = async || denied(events(agent).create(&how, &foreign).await.map(drop));
        until("the policy about events is active", asked).await;
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

pub(crate) fn gpu_nodes(client: &Client) -> Api<GpuNode> {
    Api::all(client.clone())
}

pub(crate) fn events(client: &Client) -> Api<Event> {
    Api::namespaced(client.clone(), "default")
}

/// A `GpuNode` as it is applied.
pub(crate) fn object(name: &str, spec: &Value) -> Patch<Value> {
    Patch::Apply(json!({ "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": name }, "spec": spec }))
}

/// Its status as it is applied.
pub(crate) fn status(name: &str, generation: i64) -> Patch<Value> {
    let status = json!({ "observedTerm": 1, "observedGeneration": generation });
    Patch::Apply(json!({ "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": name }, "status": status }))
}

pub(crate) fn event(about: &str, by: &str) -> Event {
    let event = json!({
        "metadata": { "generateName": "gpu-" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Cut", "action": "Cut", "note": "1 partition was made",
        "regarding": { "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "name": about },
        "reportingController": by, "reportingInstance": "agent-x",
    });
    serde_json::from_value(event).unwrap()
}

/// What was said against it.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> String {
    match answer {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("this should have been refused: {other:?}"),
    }
}
