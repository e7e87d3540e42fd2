//! What the agents of all nodes know, and what they decide. No I/O here: [`super::work`] carries it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;
use partita_kube::{
    crd::{DesiredGpu, GpuNode, GpuNodeSpec},
    translate::keys,
};
use tokio::{sync::Notify, task::AbortHandle};

use super::{
    behaviour::Behaviour,
    hardware::{Gpu, Kind},
    ledger::{Bound, Ledger, Users},
    part::{self, Part},
    report::Said,
    violation::Violation,
};
use crate::nodes::{COUNT_LABEL, GPU_MODELS, MEMORY_LABEL, PRODUCT_LABEL};

/// Wakes the task of a node.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// There is something to do at once.
    pub(super) work: Notify,
    /// Others use its GPUs now, which can be said with other news.
    pub(super) users: Notify,
}

/// One node.
#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) owner: OwnerReference,
    pub(super) gpus: Vec<Gpu>,
    /// How it behaves, if not as all others.
    pub(super) behaviour: Option<Behaviour>,
    /// How often each profile was made to fail.
    failures: BTreeMap<String, u32>,
    /// A layout that was not carried out yet.
    wanted: Option<GpuNodeSpec>,
    /// Term and generation of the last that was.
    pub(super) taken: (i64, i64),
    /// Its object exists, as far as is known.
    pub(super) has_object: bool,
    /// What exists was learned from the object.
    is_known: bool,
    /// What it said last, and what of that is to be held against pods.
    pub(super) said: Said,
    pub(super) signals: Arc<Signals>,
    pub(super) task: Option<AbortHandle>,
}

/// A violation that only is one if these pods, by name and uid, are there now.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub(super) pod: (String, String),
    pub(super) violation: Violation,
}

/// All nodes and pods.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<String, NodeState>,
    pub(super) ledger: Ledger,
    /// How nodes behave.
    pub(super) behaviour: Behaviour,
    pub(super) violations: Vec<Violation>,
    /// What the API server refused to be told, by node.
    pub(super) refusals: Vec<(String, String)>,
    kinds: BTreeMap<(String, u32), Arc<Kind>>,
}

impl State {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        Self { behaviour, ..Self::default() }
    }

    /// How a node behaves.
    pub(super) fn behaviour(&self, node: &str) -> &Behaviour {
        self.nodes.get(node).and_then(|node| node.behaviour.as_ref()).unwrap_or(&self.behaviour)
    }

    /// A node is there. Returns whether it has GPUs and is new.
    pub(super) fn see_node(&mut self, node: &Node) -> bool {
        let (name, uid) = (node.name_any(), node.uid().unwrap_or_default());
        let label = |key: &str| node.labels().get(key);
        let count = label(COUNT_LABEL).and_then(|count| count.parse::<u8>().ok()).unwrap_or(0);
        let Some(product) = label(PRODUCT_LABEL).filter(|_| count > 0) else { return false };
        if self.nodes.get(&name).is_some_and(|known| known.owner.uid == uid) {
            return false;
        }
        let driver_name = GPU_MODELS.iter().find(|model| model.product == product).map_or(product.as_str(), |model| model.driver_name);
        let memory_mib = label(MEMORY_LABEL).and_then(|memory| memory.parse().ok()).unwrap_or(0);
        let kind = self.kinds.entry((driver_name.to_owned(), memory_mib));
        let kind = kind.or_insert_with(|| Arc::new(Kind::new(driver_name, memory_mib))).clone();
        let owner = OwnerReference { api_version: "v1".into(), kind: "Node".into(), name: name.clone(), uid, ..OwnerReference::default() };
        self.lose_node(&name);
        let state = NodeState {
            owner,
            gpus: (0..count).map(|index| Gpu::new(&name, index, kind.clone())).collect(),
            behaviour: None,
            failures: BTreeMap::new(),
            wanted: None,
            taken: (0, 0),
            has_object: false,
            is_known: false,
            said: Said::default(),
            signals: Arc::default(),
            task: None,
        };
        state.signals.work.notify_one();
        self.nodes.insert(name, state);
        true
    }

    /// A node is gone.
    pub(super) fn lose_node(&mut self, name: &str) {
        if let Some(task) = self.nodes.remove(name).and_then(|node| node.task) {
            task.abort();
        }
    }

    /// The agent finds its object, which an earlier agent may have filled.
    pub(super) fn meet(&mut self, name: &str, object: &GpuNode) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.has_object = true;
        node.said.forget();
        let status = object.status.clone().unwrap_or_default();
        // The numbers belong to the object: in a new one they begin anew.
        node.taken = (status.observed_term, status.observed_generation);
        if std::mem::replace(&mut node.is_known, true) {
            return;
        }
        for gpu in &mut node.gpus {
            if let Some(reported) = status.gpus.iter().find(|reported| reported.uuid == gpu.uuid) {
                gpu.recover(reported);
            }
        }
    }

    /// The object of a node changed, or is gone.
    pub(super) fn see_object(&mut self, name: &str, object: Option<&GpuNode>) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some(object) = object else {
            (node.has_object, node.wanted) = (false, None);
            node.signals.work.notify_one();
            return;
        };
        let number = |spec: &GpuNodeSpec| (spec.term, spec.generation);
        let newest = node.wanted.as_ref().map_or(node.taken, number).max(node.taken);
        if number(&object.spec) > newest {
            node.wanted = Some(object.spec.clone());
            node.signals.work.notify_one();
        }
    }

    /// The layout to carry out, if there is one that is newer than the last.
    pub(super) fn take(&mut self, name: &str) -> Option<GpuNodeSpec> {
        let node = self.nodes.get_mut(name)?;
        let spec = node.wanted.take().filter(|spec| (spec.term, spec.generation) > node.taken)?;
        Some(spec)
    }

    /// Pods, by name and uid, that use what a layout no longer has.
    pub(super) fn in_the_way(&self, name: &str, spec: &GpuNodeSpec) -> BTreeSet<(String, String)> {
        let Some(node) = self.nodes.get(name) else { return BTreeSet::new() };
        let mut pods = BTreeSet::new();
        for (gpu, wish) in pairs(&node.gpus, spec) {
            let users = self.ledger.users(name, gpu);
            let surplus = gpu.surplus(wish).into_iter().flat_map(|one| users.of.get(&one.uuid).cloned().unwrap_or_default());
            let whole = users.whole.iter().filter(|_| wish.cut != gpu.cut).map(|(pod, _)| pod.clone());
            pods.extend(surplus.chain(whole));
        }
        pods.into_iter().filter_map(|pod| Some((pod.clone(), self.ledger.uid(&pod)?.to_owned()))).collect()
    }

    /// Destroys what a layout no longer has and nobody uses, and cuts idle GPUs as it says. Returns what is to be made, GPU by GPU.
    pub(super) fn clear(&mut self, name: &str, spec: &GpuNodeSpec) -> Vec<(String, Part)> {
        let (ledger, violations) = (&self.ledger, &mut self.violations);
        let Some(node) = self.nodes.get_mut(name) else { return Vec::new() };
        let mut missing = Vec::new();
        for gpu in &mut node.gpus {
            let Some(wish) = spec.gpus.iter().find(|wish| wish.uuid == gpu.uuid) else { continue };
            let users = ledger.users(name, gpu);
            let uuid = gpu.uuid.clone();
            let mut destroys = |part: Part, pod: String| {
                let (node, generation, gpu) = (name.to_owned(), spec.generation, uuid.clone());
                violations.push(Violation::Destroys { node, generation, gpu, part, pod });
            };
            gpu.failed.clear();
            for one in gpu.surplus(wish) {
                if let Some(pod) = users.first(&one.uuid) {
                    destroys(one.part, pod);
                } else {
                    gpu.destroy(&one.uuid);
                    node.said.take_back(&gpu.uuid, &one.part);
                }
            }
            let user = users.whole.first().filter(|_| wish.cut != gpu.cut);
            if let Some((pod, _)) = user {
                destroys(Part::Share(part::MILLI), pod.clone());
            }
            gpu.cut_as(wish.cut, user.map(|(pod, _)| pod.as_str()));
            missing.extend(gpu.missing(wish).into_iter().map(|part| (gpu.uuid.clone(), part)));
        }
        missing
    }

    /// Makes a partition, if it can be.
    pub(super) fn make(&mut self, name: &str, uuid: &str, part: Part) {
        let behaviour = self.behaviour(name).clone();
        let ledger = &self.ledger;
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some((index, gpu)) = node.gpus.iter_mut().enumerate().find(|(_, gpu)| gpu.uuid == uuid) else { return };
        let users = ledger.users(name, gpu);
        let profile = if let Part::Mig { profile, .. } = &part { profile.clone() } else { part.to_string() };
        let failures = node.failures.entry(profile.clone()).or_default();
        let made = match (behaviour.fails.get(&profile), behaviour.unhealthy.get(&(index as u8))) {
            (Some(failure), _) if *failures < failure.times => {
                *failures += 1;
                Err(failure.message.clone())
            }
            (_, Some(message)) => Err(format!("{part} cannot be made: the GPU is broken: {message}")),
            _ => gpu.make(part.clone(), &|uuid| users.first(uuid)),
        };
        if let Err(message) = made {
            gpu.failed.push((part, message));
        }
    }

    /// What the last layout asked for is done as far as it can be.
    pub(super) fn done(&mut self, name: &str, spec: &GpuNodeSpec) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.taken = (spec.term, spec.generation);
            for gpu in &mut node.gpus {
                if let Some(wish) = spec.gpus.iter().find(|wish| wish.uuid == gpu.uuid) {
                    gpu.offer(wish);
                }
            }
        }
    }

    /// Begins to behave in another way; failures are counted anew.
    pub(super) fn behave(&mut self, name: Option<&str>, behaviour: Behaviour) {
        match name {
            None => self.behaviour = behaviour,
            Some(name) => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.behaviour = Some(behaviour);
                }
            }
        }
        for (_, node) in self.nodes.iter_mut().filter(|(other, _)| name.is_none_or(|name| name == *other)) {
            node.failures.clear();
            node.signals.work.notify_one();
        }
    }

    /// A pod changed, or is gone. `first` says that it was there before the agents were, so that nothing is known of what they said then.
    pub(super) fn see_pod(&mut self, name: &str, pod: Option<&Pod>, first: bool) -> Vec<Suspicion> {
        let there = pod.and_then(|pod| {
            let on = pod.spec.as_ref()?.node_name.as_deref().filter(|_| !is_finished(pod))?;
            Some((on, pod.uid()?, pod.annotations().get(keys::GRANT)?))
        });
        if self.ledger.uid(name).is_some_and(|known| there.as_ref().is_none_or(|(_, uid, _)| uid != known))
            && let Some(node) = self.ledger.leave(name).and_then(|node| self.nodes.get(&node))
        {
            node.signals.users.notify_one();
        }
        let Some((on, uid, grant)) = there else { return Vec::new() };
        if self.ledger.uid(name).is_some() {
            return Vec::new();
        }
        let Some(parts) = part::grant(grant) else {
            self.violations.push(Violation::Unreadable { node: on.to_owned(), pod: name.to_owned(), grant: grant.clone() });
            return Vec::new();
        };
        let mut suspicions = Vec::new();
        let mut bound = Bound { uid: uid.clone(), parts: Vec::new(), gone: false };
        let node = self.nodes.get(on);
        for (gpu, part) in parts {
            let Some(node) = node else { continue };
            if !first && !node.has(gpu, &part, self.behaviour(on).renumbered) {
                let violation = Violation::Missing { node: on.to_owned(), pod: name.to_owned(), gpu, part: part.clone() };
                suspicions.push(Suspicion { pod: (name.to_owned(), uid.clone()), violation });
            }
            if let Some(one) = node.by_index(gpu, self.behaviour(on).renumbered) {
                bound.parts.push((one.uuid.clone(), part));
            }
        }
        if let Some(node) = node {
            node.signals.users.notify_one();
        }
        let gpus = node.map_or(&[][..], |node| &node.gpus);
        self.violations.extend(self.ledger.enter(on, name, bound, gpus));
        suspicions
    }

    /// Who uses a GPU.
    pub(super) fn users(&self, node: &str, gpu: &Gpu) -> Users {
        self.ledger.users(node, gpu)
    }
}

impl NodeState {
    /// The GPU with an index, as the node counts.
    pub(super) fn by_index(&self, index: u8, renumbered: bool) -> Option<&Gpu> {
        let row = usize::from(index);
        if renumbered { self.gpus.get(self.gpus.len().checked_sub(row + 1)?) } else { self.gpus.get(row) }
    }

    /// Whether the agent said that a part is there, and it is not gone since.
    fn has(&self, index: u8, part: &Part, renumbered: bool) -> bool {
        let Some(gpu) = self.by_index(index, renumbered) else { return false };
        self.said.says(&gpu.uuid, part)
    }
}

/// The GPUs that a layout names, each with its wish.
fn pairs<'a>(gpus: &'a [Gpu], spec: &'a GpuNodeSpec) -> impl Iterator<Item = (&'a Gpu, &'a DesiredGpu)> {
    gpus.iter().filter_map(|gpu| Some((gpu, spec.gpus.iter().find(|wish| wish.uuid == gpu.uuid)?)))
}

/// Whether a pod uses nothing any more.
pub(super) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
