//! What is seen of pods and of the node's GPUs, and when: by watches of this process, so that all times are of one clock.

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use partita_core::model::Cut;
use partita_kube::crd::{DesiredGpu, DesiredPartition, FoundPartition, GpuNode, GpuNodeStatus, PartitionState};
use serde_json::json;
use tokio::sync::watch;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// The way of a pod as far as it was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    /// What was written for it; nothing for one whose partition was there, or that asked for none.
    pub(super) made: Option<Made>,
    pub(super) bound: Option<Instant>,
    pub(super) running: Option<Instant>,
    failed: Option<String>,
}

/// A partition that did not exist.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// When the layout that has it was seen.
    pub(super) layout: Instant,
    /// When it was seen to be ready, under that layout or a later one.
    pub(super) ready: Option<Instant>,
    /// Where on its GPU.
    pub(super) room: Room,
    generation: i64,
    gpu: String,
    partition: DesiredPartition,
}

/// Where a new partition is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// On a GPU that was whole: it is switched to MIG.
    Whole,
    /// On slots of which nobody has any.
    Free,
    /// In place of partitions that have to go.
    Taken,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pods: BTreeMap<String, Way>,
    node: Option<GpuNode>,
    trouble: Option<String>,
}

impl Seen {
    /// The way of a pod.
    pub(super) fn way(&self, pod: &str) -> Way {
        self.pods.get(pod).cloned().unwrap_or_default()
    }

    /// The number of the layout that stands there.
    pub(super) fn generation(&self) -> i64 {
        self.node.as_ref().map_or(0, |node| node.spec.generation)
    }

    /// Whether so many GPUs are there, all as they shall be, and nobody uses any.
    pub(super) fn is_idle(&self, gpus: usize) -> bool {
        let Some(node) = &self.node else { return false };
        let Some(status) = &node.status else { return false };
        let parts = || status.gpus.iter().flat_map(|gpu| &gpu.partitions);
        status.gpus.len() == gpus
            && status.observed_generation >= node.spec.generation
            && status.gpus.iter().all(|gpu| gpu.healthy && gpu.users.is_empty())
            && parts().all(|part| part.state == PartitionState::Ready && part.users.is_empty())
    }

    /// How the node's GPUs stand, and what pods wait for, for an error.
    pub(super) fn words(&self) -> String {
        let node = self.node.as_ref().map(|node| json!({ "spec": node.spec, "status": node.status }));
        format!("{}\n{:?}", node.unwrap_or_default(), self.pods)
    }

    fn failure(&self) -> Option<String> {
        let failed = self.pods.iter().find_map(|(name, way)| Some(format!("pod {name} failed: {}", way.failed.as_ref()?)));
        failed.or_else(|| self.trouble.clone())
    }

    fn pod(&mut self, pod: &Pod, now: Instant) {
        let way = self.pods.entry(pod.metadata.name.clone().unwrap_or_default()).or_default();
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            way.bound.get_or_insert(now);
        }
        let Some(status) = &pod.status else { return };
        let containers = status.container_statuses.iter().flatten();
        if containers.filter_map(|one| one.state.as_ref()).any(|state| state.running.is_some()) {
            way.running.get_or_insert(now);
        }
        if status.phase.as_deref() == Some("Failed") {
            way.failed = Some(format!("{:?} {:?}", status.reason, status.message));
        }
    }

    fn gpu_node(&mut self, node: GpuNode, now: Instant) {
        let before = self.node.as_ref().and_then(|node| node.status.as_ref());
        for gpu in &node.spec.gpus {
            for partition in &gpu.partitions {
                let Some(pod) = &partition.pod else { continue };
                let way = self.pods.entry(pod.name.clone()).or_default();
                if way.bound.is_none() && way.made.is_none() && !stands(before, &gpu.uuid, partition) {
                    way.made = Some(Made {
                        layout: now,
                        ready: None,
                        room: before.map_or(Room::Free, |before| room(before, gpu)),
                        generation: node.spec.generation,
                        gpu: gpu.uuid.clone(),
                        partition: partition.clone(),
                    });
                }
            }
        }
        if let Some(status) = &node.status {
            for made in self.pods.values_mut().filter_map(|way| way.made.as_mut()) {
                if status.observed_generation >= made.generation && stands(Some(status), &made.gpu, &made.partition) {
                    made.ready.get_or_insert(now);
                }
            }
        }
        self.node = Some(node);
    }
}

/// Whether a partition is there and ready.
fn stands(status: Option<&GpuNodeStatus>, gpu: &str, wanted: &DesiredPartition) -> bool {
    let found = status.iter().flat_map(|status| &status.gpus).find(|found| found.uuid == gpu);
    let mut parts = found.iter().flat_map(|gpu| &gpu.partitions);
    parts.any(|part| part.profile == wanted.profile && part.start == wanted.start && part.state == PartitionState::Ready)
}

/// Where the new partitions of a layout are made.
fn room(status: &GpuNodeStatus, layout: &DesiredGpu) -> Room {
    let Some(found) = status.gpus.iter().find(|found| found.uuid == layout.uuid) else { return Room::Free };
    let stays = |part: &FoundPartition| layout.partitions.iter().any(|wanted| wanted.profile == part.profile && wanted.start == part.start);
    match found.cut {
        Cut::Mig if found.partitions.iter().all(stays) => Room::Free,
        Cut::Mig => Room::Taken,
        _ => Room::Whole,
    }
}

/// The watches.
pub(super) struct Eyes {
    seen: watch::Sender<Seen>,
}

impl Eyes {
    /// Looks at the pods of the default namespace, and at all `GpuNode`s, of which there is one.
    pub(super) fn open(client: &Client) -> Self {
        let (seen, _) = watch::channel(Seen::default());
        let (pods, nodes): (Api<Pod>, Api<GpuNode>) = (Api::default_namespaced(client.clone()), Api::all(client.clone()));
        let to = seen.clone();
        tokio::spawn(async move {
            let mut events = pin!(watcher::watcher(pods, watcher::Config::default()).default_backoff());
            let end = loop {
                match events.try_next().await {
                    Ok(Some(Event::Apply(pod) | Event::InitApply(pod))) => to.send_modify(|seen| seen.pod(&pod, Instant::now())),
                    Ok(Some(_)) => {}
                    Ok(None) => break "the watch of pods ended".to_owned(),
                    Err(error) => break format!("the watch of pods: {error}"),
                }
            };
            to.send_modify(|seen| seen.trouble = Some(end));
        });
        let to = seen.clone();
        tokio::spawn(async move {
            let mut events = pin!(watcher::watcher(nodes, watcher::Config::default()).default_backoff());
            let end = loop {
                match events.try_next().await {
                    Ok(Some(Event::Apply(node) | Event::InitApply(node))) => to.send_modify(|seen| seen.gpu_node(node, Instant::now())),
                    Ok(Some(_)) => {}
                    Ok(None) => break "the watch of GpuNodes ended".to_owned(),
                    Err(error) => break format!("the watch of GpuNodes: {error}"),
                }
            };
            to.send_modify(|seen| seen.trouble = Some(end));
        });
        Self { seen }
    }

    /// What was seen by now.
    pub(super) fn now<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.borrow())
    }

    /// Forgets the pods that are gone.
    pub(super) fn forget(&self) {
        self.seen.send_modify(|seen| seen.pods.clear());
    }

    /// Waits until something is seen.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Result<()> {
        let mut seen = self.seen.subscribe();
        let seen = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.failure().is_some() || is_so(seen)));
        let seen = seen.await.with_context(|| format!("waited {} s in vain until {what}", PATIENCE.as_secs()))??;
        match seen.failure() {
            Some(why) => bail!("{why}, while waiting until {what}"),
            None => Ok(()),
        }
    }
}
