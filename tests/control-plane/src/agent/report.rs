//! What an agent says of its node, and what it said.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use partita_core::model::{Cut, ProfileName};
use partita_kube::crd::{FoundGpu, GpuNodeStatus, PartitionState};

use super::{part::Part, state::State};
use crate::nodes::GPU_RESOURCE;

/// The version of the driver that simulated nodes have.
const DRIVER: &str = "simulated";

/// What an agent said last.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) status: Option<GpuNodeStatus>,
    pub(super) counts: Option<BTreeMap<String, u32>>,
    /// The API server has a report.
    pub(super) arrived: bool,
    /// Partitions of which it said that they are ready, by UUID of the GPU.
    ready: BTreeSet<(String, Part)>,
    since: Option<Time>,
}

impl Said {
    /// Everything is to be said anew.
    pub(super) fn forget(&mut self) {
        (self.status, self.counts) = (None, None);
    }

    /// A partition is destroyed.
    pub(super) fn take_back(&mut self, gpu: &str, part: &Part) {
        self.ready.remove(&(gpu.to_owned(), part.clone()));
    }

    /// Whether it said that a partition is there.
    pub(super) fn says(&self, gpu: &str, part: &Part) -> bool {
        self.ready.contains(&(gpu.to_owned(), part.clone()))
    }
}

/// What there is to say.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The node's GPUs, to its kubelet, by resource.
    pub(super) counts: Option<BTreeMap<String, u32>>,
    /// The same in full, to the scheduler.
    pub(super) status: Option<GpuNodeStatus>,
}

impl State {
    /// What the agent of a node has to say that it did not say yet. It counts as said from now on, since others may act on it before the
    /// API server's answer is here.
    pub(super) fn news(&mut self, name: &str) -> News {
        let behaviour = self.behaviour(name).clone();
        let Some(node) = self.nodes.get(name) else { return News::default() };
        let count = node.gpus.len();
        let gpus = node.gpus.iter().enumerate().map(|(row, gpu)| {
            let index = if behaviour.renumbered { count - row - 1 } else { row };
            let users = self.users(name, gpu);
            gpu.report(index as u8, behaviour.unhealthy.get(&(row as u8)), &users)
        });
        let gpus: Vec<FoundGpu> = gpus.collect();
        let taken = node.taken;
        let Some(node) = self.nodes.get_mut(name) else { return News::default() };
        let since = node.said.since.get_or_insert_with(|| Time(whole_second())).clone();
        let condition = Condition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "AgentRuns".to_owned(),
            message: "simulated".to_owned(),
            last_transition_time: since,
            observed_generation: None,
        };
        let mut status = GpuNodeStatus {
            observed_term: taken.0,
            observed_generation: taken.1,
            driver: Some(DRIVER.to_owned()),
            boot_id: Some(node.owner.uid.clone()),
            gpus,
            conditions: vec![condition],
        };
        node.said.ready = ready(&status.gpus).collect();
        if let Some(lie) = &behaviour.lie {
            lie.tell(&mut status);
            // Who believes a lie is not to blame.
            node.said.ready.extend(ready(&status.gpus));
        }
        let counts = counts(&status.gpus);
        let mut news = News::default();
        if node.said.counts.as_ref() != Some(&counts) {
            node.said.counts = Some(counts.clone());
            news.counts = Some(counts);
        }
        if node.said.status.as_ref() != Some(&status) {
            node.said.status = Some(status.clone());
            news.status = Some(status);
        }
        news
    }
}

fn ready(gpus: &[FoundGpu]) -> impl Iterator<Item = (String, Part)> {
    let all = gpus.iter().flat_map(|gpu| gpu.partitions.iter().map(move |one| (gpu, one)));
    all.filter(|(_, one)| one.state == PartitionState::Ready).filter_map(|(gpu, one)| Some((gpu.uuid.clone(), Part::reported(one)?)))
}

/// What NVIDIA's device plugin would count: whole GPUs, and MIG partitions by profile.
fn counts(gpus: &[FoundGpu]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::from([(GPU_RESOURCE.to_owned(), 0)]);
    for gpu in gpus.iter().filter(|gpu| gpu.healthy) {
        if gpu.cut == Cut::Shares {
            *counts.entry(GPU_RESOURCE.to_owned()).or_default() += 1;
        }
        for one in gpu.partitions.iter().filter(|one| one.state == PartitionState::Ready) {
            if let Some(name) = one.profile.as_ref().and_then(|profile| ProfileName::parse(profile).ok()) {
                *counts.entry(name.resource()).or_default() += 1;
            }
        }
    }
    counts
}

/// Now, as precise as the API server keeps it.
fn whole_second() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()
}
