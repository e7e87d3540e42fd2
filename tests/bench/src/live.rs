//! The live scheduler on a real API server, beside the real kube-scheduler on the same one.
//!
//! Both get the same pods on the same nodes, one after the other, with the same load beside them: this process creates the pods and
//! watches until the last one is bound. kube-scheduler is freed of its client's rate limit, as its own benchmark `scheduler_perf` does.
//! Ours runs in this process, with its policies as components, exactly as `partita scheduler` wires it.

mod dra;

use std::{
    collections::BTreeSet,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod as FullPod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
    runtime::watcher::{self, Event},
};
use partita_cluster::{
    ControlPlane, NodeShape, Options, Program,
    agent::{Agents, Behaviour},
    install_crds, nodes,
};
use partita_kube::objects::{Pod, full_name, measure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ours::Ours;

/// Pods created at once.
const CREATORS: usize = 48;
/// How long one shape may take.
const PATIENCE: Duration = Duration::from_mins(5);
/// Pause between two pods whose latency is measured: they come one by one, as people start them.
const PAUSE: Duration = Duration::from_millis(40);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes of the first shape.
    pub nodes: usize,
    /// Pods that are there before.
    pub before: usize,
    /// Pods that are measured.
    pub pods: usize,
    /// Nodes with eight GPUs in the other shapes.
    pub gpu_nodes: usize,
    /// Pods whose latency is measured.
    pub latencies: usize,
}

/// All figures.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// One row for each shape.
    pub rates: Vec<Rate>,
    /// From "created" to "bound" of a pod that needs a new partition.
    pub latency: Latency,
    /// Microseconds to decode a pod: as little as scheduling needs, and all of it.
    pub decode_us: [f64; 2],
}

/// Pods bound a second.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// What was asked.
    pub shape: &'static str,
    /// How kube-scheduler was asked for it.
    pub peer: &'static str,
    /// Nodes.
    pub nodes: usize,
    /// Pods measured.
    pub pods: usize,
    /// Ours.
    pub partita: f64,
    /// kube-scheduler.
    pub kube_scheduler: f64,
    /// The least that ours is to bind for each one of its.
    pub goal: f64,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Nodes with eight GPUs.
    pub nodes: usize,
    /// Pods.
    pub pods: usize,
    /// Half of them were bound by then.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
}

/// Runs everything.
///
/// # Errors
/// When the control plane does not start, or a scheduler does not bind all pods.
pub fn run(size: Size, tell: &dyn Fn(&str)) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all(size, tell))
}

async fn all(size: Size, tell: &dyn Fn(&str)) -> Result<Figures> {
    let mut rates = vec![plain(size, tell).await?];
    rates.extend(whole(size, tell).await?);
    let (rate, latency) = partitions(size, tell).await?;
    rates.push(rate);
    Ok(Figures { rates, latency, decode_us: decode_us() })
}

async fn plain(size: Size, tell: &dyn Fn(&str)) -> Result<Rate> {
    let (shape, nodes, pods) = ("cpu and memory", size.nodes, size.pods);
    tell(shape);
    let stage = Stage::start().await?;
    nodes::create(&stage.client, &NodeShape { cpu: "32".into(), ..NodeShape::new("node", nodes) }).await?;
    let plain = Ask::of(json!({ "requests": { "cpu": "100m", "memory": "500Mi" } }));
    let kube_scheduler = stage.theirs(size.before, pods, &plain).await?;
    let partita = stage.ours(size.before, pods, &plain).await?;
    Ok(Rate { shape, peer: "cpu and memory", nodes, pods, partita, kube_scheduler, goal: 1.0 })
}

/// Whole GPUs, which kube-scheduler counts if a device plugin says how many there are, and picks one by one if a DRA driver names them.
async fn whole(size: Size, tell: &dyn Fn(&str)) -> Result<[Rate; 2]> {
    let (nodes, pods) = (size.gpu_nodes, size.gpu_nodes * 8 * 9 / 10);
    tell("whole GPUs");
    let stage = Stage::start().await?;
    nodes::create(&stage.client, &NodeShape::new("gpu", nodes).with_gpus(nodes::GPU_MODELS[3], 8)).await?;
    let whole = Ask::of(json!({ "requests": { "cpu": "100m", "nvidia.com/gpu": "1" }, "limits": { "nvidia.com/gpu": "1" } }));
    let kube_scheduler = stage.theirs(0, pods, &whole).await?;
    let partita = stage.ours(0, pods, &whole).await?;
    let counted = Rate { shape: "a whole GPU", peer: "device plugin", nodes, pods, partita, kube_scheduler, goal: 1.0 };
    tell("whole GPUs by DRA");
    let stage = Stage::start().await?;
    let names = names(&nodes::create(&stage.client, &NodeShape::new("gpu", nodes)).await?);
    let whole = Ask::of(dra::whole(&stage.client, &names, 8).await?);
    let kube_scheduler = stage.theirs(0, pods, &whole).await?;
    Ok([counted.clone(), Rate { peer: "DRA, extended resource", kube_scheduler, goal: 3.0, ..counted }])
}

async fn partitions(size: Size, tell: &dyn Fn(&str)) -> Result<(Rate, Latency)> {
    const PROFILE: &str = "1g.10gb";
    let (nodes, pods) = (size.gpu_nodes, size.gpu_nodes * 8 * 2);
    tell("MIG partitions by DRA");
    let kube_scheduler = {
        let stage = Stage::start().await?;
        let names = names(&nodes::create(&stage.client, &NodeShape::new("mig", nodes)).await?);
        dra::partitions(&stage.client, &names, 8).await?;
        let claims = Ask { resources: json!({ "requests": { "cpu": "100m" } }), profile: Some(PROFILE) };
        stage.theirs(0, pods, &claims).await?
    };
    tell("MIG partitions");
    let stage = Stage::start().await?;
    let mut shape = NodeShape::new("mig", nodes).with_gpus(nodes::GPU_MODELS[3], 8);
    shape.labels.insert("partita.dev/partitioning".into(), "mig".into());
    nodes::create(&stage.client, &shape).await?;
    let _agents = Agents::start(stage.client.clone(), Behaviour::default());
    let resource = format!("nvidia.com/mig-{PROFILE}");
    let mig = Ask::of(json!({ "requests": { "cpu": "100m", &resource: "1" }, "limits": { &resource: "1" } }));
    let ours = Ours::start(&stage.cluster, crate::openb::host()?).await?;
    tell("latency of new partitions");
    let latency = stage.latency(size, &mig).await?;
    stage.settle("filled").await?;
    let partita = rate(pods, stage.bind_all("filled", "partita", pods, &mig).await?);
    ours.stop().await?;
    Ok((
        Rate { shape: "a MIG partition, made for it", peer: "DRA, all devices published", nodes, pods, partita, kube_scheduler, goal: 3.0 },
        latency,
    ))
}

fn names(nodes: &[Node]) -> Vec<String> {
    nodes.iter().filter_map(|node| node.metadata.name.clone()).collect()
}

/// What each pod asks for.
struct Ask {
    resources: Value,
    /// Claims a partition of this profile by DRA besides.
    profile: Option<&'static str>,
}

impl Ask {
    fn of(resources: Value) -> Self {
        Self { resources, profile: None }
    }
}

/// Microseconds to decode a pod as a watch sends it: with what scheduling needs, and in full; the fastest of three repeats each.
fn decode_us() -> [f64; 2] {
    const PODS: usize = 5_000;
    let lines: Vec<String> = (0..PODS).map(measure::sample).collect();
    [measure::lean, measure::typed].map(|decode| {
        let once = || {
            let began = Instant::now();
            let read = decode(&lines);
            assert_eq!(read, PODS, "the sample is a pod");
            began.elapsed().as_secs_f64() * 1e6 / PODS as f64
        };
        (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
    })
}

fn rate(pods: usize, took: Duration) -> f64 {
    pods as f64 / took.as_secs_f64()
}

/// A control plane with kube-scheduler, stopped.
struct Stage {
    cluster: ControlPlane,
    client: Client,
}

impl Stage {
    async fn start() -> Result<Self> {
        let unlimited = ["--kube-api-qps=5000", "--kube-api-burst=5000"].map(str::to_owned).to_vec();
        let options = Options {
            programs: [Program::Scheduler].into(),
            generous: true,
            flags: [(Program::Scheduler, unlimited)].into(),
            ..Options::default()
        };
        let cluster = ControlPlane::start(options).await?;
        cluster.stop(Program::Scheduler).await?;
        let client = cluster.client();
        install_crds(&client).await?;
        Ok(Self { cluster, client })
    }

    /// Pods a second that kube-scheduler binds, when others were there before.
    async fn theirs(&self, before: usize, pods: usize, ask: &Ask) -> Result<f64> {
        self.cluster.start_again(Program::Scheduler).await?;
        let took = self.one("default-scheduler", before, pods, ask).await?;
        self.cluster.stop(Program::Scheduler).await?;
        Ok(rate(pods, took))
    }

    /// Pods a second that ours binds.
    async fn ours(&self, before: usize, pods: usize, ask: &Ask) -> Result<f64> {
        let ours = Ours::start(&self.cluster, crate::openb::host()?).await?;
        let took = self.one("partita", before, pods, ask).await?;
        ours.stop().await?;
        Ok(rate(pods, took))
    }

    async fn one(&self, scheduler: &str, before: usize, pods: usize, ask: &Ask) -> Result<Duration> {
        let namespace = format!("by-{scheduler}");
        self.settle(&namespace).await?;
        // One more pod, so that a scheduler that has just started has listed everything.
        self.bind_all(&namespace, scheduler, before + 1, ask).await?;
        let took = self.bind_all(&namespace, scheduler, pods, ask).await?;
        self.empty(&namespace).await?;
        Ok(took)
    }

    async fn settle(&self, namespace: &str) -> Result<()> {
        let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await?;
        Ok(())
    }

    async fn empty(&self, namespace: &str) -> Result<()> {
        let pods: Api<FullPod> = Api::namespaced(self.client.clone(), namespace);
        loop {
            pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
            if pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn pod(scheduler: &str, name: &str, ask: &Ask) -> Result<FullPod> {
        let mut spec = json!({
            "schedulerName": scheduler, "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "main", "image": "none", "resources": ask.resources }],
        });
        if ask.profile.is_some() {
            spec["resourceClaims"] = json!([{ "name": "partition", "resourceClaimName": name }]);
            spec["containers"][0]["resources"]["claims"] = json!([{ "name": "partition" }]);
        }
        Ok(serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?)
    }

    /// Creates pods and waits until all are bound: the time from the first creation to the last binding that is seen.
    async fn bind_all(&self, namespace: &str, scheduler: &str, count: usize, ask: &Ask) -> Result<Duration> {
        let pods: Api<FullPod> = Api::namespaced(self.client.clone(), namespace);
        let run = Instant::now().elapsed().as_nanos();
        let prefix = format!("{}-{run}", pods.list_metadata(&ListParams::default()).await?.items.len());
        if let Some(profile) = ask.profile {
            let claim = |number: usize| {
                let name = format!("{prefix}-{number}");
                async move { dra::claim(&self.client, namespace, &name, profile).await }
            };
            stream::iter(0..count).map(claim).buffer_unordered(CREATORS).try_collect::<()>().await?;
        }
        let watched = tokio::spawn(bound(self.client.clone(), namespace.to_owned(), prefix.clone(), count));
        // The watch stands before the first pod is there.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        let create = |number: usize| {
            let (pods, pod) = (pods.clone(), Self::pod(scheduler, &format!("{prefix}-{number}"), ask));
            async move { pods.create(&PostParams::default(), &pod?).await.map(drop).context("a pod could not be created") }
        };
        stream::iter(0..count).map(create).buffer_unordered(CREATORS).try_collect::<()>().await?;
        let last = tokio::time::timeout(PATIENCE, watched)
            .await
            .with_context(|| format!("{scheduler} did not bind {count} pods in time"))???;
        Ok(last - began)
    }

    /// Pods that come one by one, each of which needs a new partition.
    async fn latency(&self, size: Size, ask: &Ask) -> Result<Latency> {
        let namespace = "latency";
        self.settle(namespace).await?;
        let pods: Api<FullPod> = Api::namespaced(self.client.clone(), namespace);
        let lean: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut events = pin!(watcher::watcher(lean, watcher::Config::default()));
        let mut took = Vec::with_capacity(size.latencies);
        let began = Instant::now();
        for number in 0..=size.latencies {
            let name = format!("pod-{number}");
            let created = Instant::now();
            pods.create(&PostParams::default(), &Self::pod("partita", &name, ask)?).await?;
            loop {
                if began.elapsed() > PATIENCE {
                    bail!("pod {name} was not bound in time");
                }
                let Some(event) = events.try_next().await? else { bail!("the watch ended") };
                if let Event::Apply(pod) | Event::InitApply(pod) = event
                    && pod.metadata.name.as_deref() == Some(&name)
                    && !pod.spec.value.node_name.is_empty()
                {
                    break;
                }
            }
            // The first one waits until the scheduler has listed everything.
            if number > 0 {
                took.push(created.elapsed().as_secs_f64() * 1000.0);
            }
            tokio::time::sleep(PAUSE).await;
        }
        took.sort_by(f64::total_cmp);
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        Ok(Latency { nodes: size.gpu_nodes, pods: size.latencies, p50: at(50), p99: at(99) })
    }
}

/// Waits until so many pods whose names begin so are bound, and says when the last one was.
async fn bound(client: Client, namespace: String, prefix: String, count: usize) -> Result<Instant> {
    let lean: Api<Pod> = Api::namespaced(client, &namespace);
    let mut events = pin!(watcher::watcher(lean, watcher::Config::default()));
    let mut seen = BTreeSet::new();
    while let Some(event) = events.try_next().await? {
        if let Event::Apply(pod) | Event::InitApply(pod) = event
            && pod.metadata.name.as_ref().is_some_and(|name| name.starts_with(&prefix))
            && !pod.spec.value.node_name.is_empty()
        {
            seen.insert(full_name(&pod.metadata));
        }
        if seen.len() == count {
            return Ok(Instant::now());
        }
    }
    bail!("the watch ended")
}
