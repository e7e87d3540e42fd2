//! One real node with GPUs that do not exist, and partita around it: scheduler and agent in this process, wired as their commands do.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{Node as Object, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use nvidia_ml::Fake;
use partita_agent::{AgentError, Settings, Shared, cdi::Common, machine};
use partita_cluster::{ControlPlane, Node, Options, WITNESS_IMAGE, install_crds};
use partita_device::{Driver, nvml::NvmlDriver};
use partita_policy::Host;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use super::eyes::{Eyes, Seen};
use crate::ours::Ours;

/// The name of the node.
const NODE: &str = "real";
/// The library that plays NVIDIA's, as cargo names it.
const LIBRARY: &str = "libnvidia_ml.so";
/// How long a call of the driver may go on after the agent ended.
const LAST_CALLS: Duration = Duration::from_secs(2);
/// How often pods that are being deleted are counted.
const COUNTED_EVERY: Duration = Duration::from_millis(100);

/// All of it.
pub(super) struct Stage {
    pub(super) eyes: Eyes,
    gpus: usize,
    pods: Api<Pod>,
    scheduler: Ours,
    agent: Agent,
    // In this order: the node ends before its control plane, and the GPUs last, as the agent may still listen to them.
    _node: Node,
    _cluster: ControlPlane,
    _folder: TempDir,
}

impl Stage {
    /// Starts everything, and returns when the scheduler knows the GPUs.
    pub(super) async fn start(host: Host, model: &str, gpus: usize) -> Result<Self> {
        let cluster = ControlPlane::start(Options::default()).await?;
        let client = cluster.client();
        install_crds(&client).await?;
        let node = Node::start(&cluster, NODE).await?;
        let label = json!({ "metadata": { "labels": { "partita.dev/partitioning": "mig" } } });
        Api::<Object>::all(client.clone()).patch(NODE, &PatchParams::default(), &Patch::Merge(label)).await?;
        let folder = tempfile::Builder::new().prefix("pb").tempdir()?;
        let library = folder.path().join(LIBRARY);
        // Beside its own copy the library finds the GPUs that it has.
        Fake::create(folder.path(), &format!("{model}×{gpus}"))?;
        let built = library_file()?;
        fs::copy(&built, &library).with_context(|| format!("{} cannot be copied", built.display()))?;
        let eyes = Eyes::open(&client);
        let agent = Agent::start(&cluster, &node, folder.path(), library, gpus)?;
        eyes.until("the agent tells of all GPUs", |seen| seen.is_idle(gpus)).await.with_context(|| agent.words())?;
        let scheduler = Ours::start(&cluster, host).await?;
        let pods = Api::default_namespaced(client);
        Ok(Self { eyes, gpus, pods, scheduler, agent, _node: node, _cluster: cluster, _folder: folder })
    }

    /// Creates a pod that asks for a partition of a profile, or for no GPU.
    pub(super) async fn create(&self, name: &str, profile: Option<&str>) -> Result<()> {
        let resources = match profile {
            Some(profile) => json!({ "limits": { format!("nvidia.com/mig-{profile}"): "1" } }),
            None => json!({}),
        };
        let container = json!({ "name": "main", "image": WITNESS_IMAGE, "imagePullPolicy": "Never", "resources": resources });
        let spec = json!({
            "schedulerName": "partita", "hostNetwork": true, "terminationGracePeriodSeconds": 1, "enableServiceLinks": false,
            "containers": [container],
        });
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?;
        self.pods.create(&PostParams::default(), &pod).await.with_context(|| format!("pod {name} could not be created"))?;
        Ok(())
    }

    /// Deletes all pods, and returns when everybody knows that their partitions are nobody's.
    pub(super) async fn empty(&self) -> Result<()> {
        self.pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        while !self.pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
            tokio::time::sleep(COUNTED_EVERY).await;
        }
        self.eyes.forget();
        self.seen("no GPU has users", |seen| seen.is_idle(self.gpus)).await
    }

    /// What the agent has measured of itself until now.
    pub(super) fn phases(&self) -> Phases {
        Phases::read(&self.agent.shared.metrics())
    }

    /// Waits until something is seen; if in vain, the error says how everything stands.
    pub(super) async fn seen(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Result<()> {
        match self.eyes.until(what, is_so).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.words().await)),
        }
    }

    /// What the agent and the objects say, for an error.
    async fn words(&self) -> String {
        let pods = match self.pods.list(&ListParams::default()).await {
            Ok(pods) => pods.items.iter().map(pod_words).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("the pods cannot be listed: {error}"),
        };
        format!("{}\n{pods}\n{}", self.agent.words(), self.eyes.now(Seen::words))
    }

    /// Ends the programs of ours.
    pub(super) async fn stop(self) -> Result<()> {
        self.scheduler.stop().await?;
        self.agent.stop.send_replace(true);
        let ended = tokio::task::spawn_blocking(|| self.agent.thread.join()).await?;
        Ok(ended.map_err(|_| anyhow!("the agent panicked"))??)
    }
}

/// A pod in a line: where it is, what it waits for.
fn pod_words(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.iter().flatten().filter_map(|one| one.message.as_deref());
    let waiting = status.container_statuses.iter().flatten().filter_map(|one| one.state.as_ref()?.waiting.as_ref());
    let waiting = waiting.map(|one| one.message.as_deref().or(one.reason.as_deref()).unwrap_or_default());
    let why: Vec<&str> = conditions.chain(waiting).collect();
    format!("{name} on {node}: {} {}", status.phase.as_deref().unwrap_or("no phase"), why.join("; "))
}

/// Our node agent, running.
struct Agent {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), AgentError>>,
}

impl Agent {
    fn start(cluster: &ControlPlane, node: &Node, folder: &Path, library: PathBuf, gpus: usize) -> Result<Self> {
        driver_files(folder, gpus)?;
        let settings = Settings {
            node: NODE.to_owned(),
            device: partita_device::Settings::new(&folder.join("agent.json"), &machine::boot_id()),
            device_plugins: node.device_plugins_folder(),
            pod_resources: node.pod_resources_socket(),
            cdi: Some(node.cdi_folder()),
            cdi_common: Common::In(folder.join("nvidia.yaml")),
            proc: folder.join("proc"),
        };
        let load: machine::Load = Arc::new(move || NvmlDriver::load(Some(&library)).map(|driver| Arc::new(driver) as Arc<dyn Driver>));
        let (shared, (stop, stopped)) = (Arc::new(Shared::default()), watch::channel(false));
        // Threads of its own, as it has on a node.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let client = {
            let _within = runtime.enter();
            cluster.client()
        };
        let told = shared.clone();
        let thread = thread::spawn(move || {
            let end = runtime.block_on(partita_agent::run(client, load, settings, &told, stopped));
            runtime.shutdown_timeout(LAST_CALLS);
            end
        });
        Ok(Self { shared, stop, thread })
    }

    fn words(&self) -> String {
        match self.shared.ready() {
            _ if self.thread.is_finished() => "the agent has ended".to_owned(),
            Err(why) => format!("the agent says: {why}"),
            Ok(()) => "the agent says that it is ready".to_owned(),
        }
    }
}

/// The agent's own histograms: sums in seconds, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Phases {
    pub(super) gpu: (f64, u64),
    pub(super) kubelet: (f64, u64),
}

impl Phases {
    fn read(text: &str) -> Self {
        let line = |what: &str, kind: &str| {
            let name = format!("partita_agent_phase_seconds_{what}{{kind=\"{kind}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name))
        };
        // What was never measured has no line.
        let [gpu, kubelet] = ["gpu", "kubelet"].map(|kind| {
            let seconds = line("sum", kind).and_then(|text| text.parse().ok()).unwrap_or_default();
            (seconds, line("count", kind).and_then(|text| text.parse().ok()).unwrap_or_default())
        });
        Self { gpu, kubelet }
    }

    /// What came since then.
    pub(super) fn since(self, before: Self) -> Self {
        let less = |now: (f64, u64), before: (f64, u64)| (now.0 - before.0, now.1 - before.1);
        Self { gpu: less(self.gpu, before.gpu), kubelet: less(self.kubelet, before.kubelet) }
    }
}

/// The library, which cargo builds among the dependencies of this program.
fn library_file() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let places = [own.with_file_name("deps").join(LIBRARY), own.with_file_name(LIBRARY)];
    let found = places.iter().find(|path| path.exists()).cloned();
    found.with_context(|| format!("{LIBRARY} is not at {}; run this by cargo, which builds it", places[0].display()))
}

/// What a driver and its tools tell of GPUs. Their device nodes are memory's, `/dev/null` and its neighbours.
fn driver_files(folder: &Path, gpus: usize) -> Result<()> {
    /// GPU instances that a GPU may have, and device nodes that the driver keeps for each GPU.
    const INSTANCES: usize = 15;
    const NODES: usize = 100;
    let caps = folder.join("proc/driver/nvidia-caps");
    fs::create_dir_all(&caps)?;
    fs::write(folder.join("proc/devices"), "Character devices:\n  1 mem\n  1 nvidia\n  1 nvidia-caps\n\nBlock devices:\n")?;
    let mut minors = fs::File::create(caps.join("mig-minors"))?;
    writeln!(minors, "config 1\nmonitor 2")?;
    for gpu in 0..gpus {
        for instance in 0..INSTANCES {
            let first = 3 + gpu * NODES + instance * 2;
            writeln!(minors, "gpu{gpu}/gi{instance}/access {first}\ngpu{gpu}/gi{instance}/ci0/access {}", first + 1)?;
        }
    }
    let common = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [NVIDIA_VISIBLE_DEVICES=void, DRIVER=common]\n";
    Ok(fs::write(folder.join("nvidia.yaml"), common)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_measured_is_read() {
        let text = "partita_agent_phase_seconds_sum{kind=\"gpu\"} 1.5\npartita_agent_phase_seconds_count{kind=\"gpu\"} 3\n";
        let now = Phases::read(text);
        assert_eq!(now, Phases { gpu: (1.5, 3), kubelet: (0.0, 0) });
        assert_eq!(now.since(Phases { gpu: (1.0, 1), ..Phases::default() }).gpu, (0.5, 2));
    }
}
