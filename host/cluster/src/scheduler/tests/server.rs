//! An API server in memory: objects with uid and version, what it refuses, and what its watches have still to tell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde_json::json;

use super::{
    super::effect::{Effect, Outcome, PodName, VolumeChoice},
    make::{full, volume},
};
use crate::{
    crd::NUMBER_MAX,
    objects::{Budget, Claim, GpuNode, Node, PersistentVolume, Pod, StorageClass, full_name},
    translate::{self, keys},
    watch::Seen,
};

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BOUND: &str = "pv.kubernetes.io/bind-completed";

/// Kinds that are watched, in no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Pods,
    Nodes,
    GpuNodes,
    Budgets,
    Claims,
    Volumes,
    Classes,
}

impl What {
    pub(super) const ALL: [Self; 7] = [Self::Pods, Self::Nodes, Self::GpuNodes, Self::Budgets, Self::Claims, Self::Volumes, Self::Classes];
}

/// The API server.
#[derive(Default)]
pub(super) struct Server {
    version: u64,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) gpu_nodes: BTreeMap<String, GpuNode>,
    pub(super) budgets: BTreeMap<String, Budget>,
    pub(super) claims: BTreeMap<String, Claim>,
    pub(super) volumes: BTreeMap<String, PersistentVolume>,
    pub(super) classes: BTreeMap<String, StorageClass>,
    /// What watches have not told yet.
    pub(super) untold: BTreeMap<What, VecDeque<Seen>>,
    /// Pods whose containers run.
    pub(super) started: BTreeSet<String>,
    /// Kubelets take any of the devices that a pod asks for by name: those at which this points, which grows. Else they take what the pod was
    /// given.
    pub(super) chance: Option<u64>,
    /// What they took, as parts of GPUs.
    pub(super) taken: BTreeMap<String, Vec<(u8, String)>>,
}

macro_rules! kinds {
    ($($put:ident $edit:ident $remove:ident: $field:ident $ty:ty, $variant:ident, $what:ident;)*) => {
        impl Server {
            $(
                /// Creates an object, or writes it anew.
                pub(super) fn $put(&mut self, mut object: $ty) {
                    let name = full_name(object.meta());
                    let uid = self.$field.get(&name).and_then(|old| old.meta().uid.clone());
                    self.stamp(object.meta_mut(), uid);
                    self.$field.insert(name.clone(), object.clone());
                    self.log(What::$what, Seen::$variant(name, Some(Box::new(object))));
                }

                /// Changes an object, if it is there.
                #[allow(dead_code, reason = "one for each kind")]
                pub(super) fn $edit(&mut self, name: &str, change: impl FnOnce(&mut $ty)) {
                    let Some(mut object) = self.$field.get(name).cloned() else { return };
                    change(&mut object);
                    self.$put(object);
                }

                #[allow(dead_code, reason = "one for each kind")]
                pub(super) fn $remove(&mut self, name: &str) {
                    if self.$field.remove(name).is_some() {
                        self.version += 1;
                        self.log(What::$what, Seen::$variant(name.to_owned(), None));
                    }
                }
            )*

            /// Everything of a kind as it is now.
            pub(super) fn list(&self, what: What) -> Vec<(String, Seen)> {
                match what {
                    $(What::$what => {
                        let seen = |(name, object): (&String, &$ty)| (name.clone(), Seen::$variant(name.clone(), Some(Box::new(object.clone()))));
                        self.$field.iter().map(seen).collect()
                    })*
                }
            }

            /// That an object is gone.
            pub(super) fn gone(what: What, name: &str) -> Seen {
                match what { $(What::$what => Seen::$variant(name.to_owned(), None),)* }
            }
        }
    };
}

kinds! {
    put_pod edit_pod vanish: pods Pod, Pod, Pods;
    put_node edit_node remove_node: nodes Node, Node, Nodes;
    put_gpu_node edit_gpu_node remove_gpu_node: gpu_nodes GpuNode, GpuNode, GpuNodes;
    put_budget edit_budget remove_budget: budgets Budget, Budget, Budgets;
    put_claim edit_claim remove_claim: claims Claim, Claim, Claims;
    put_volume edit_volume remove_volume: volumes PersistentVolume, Volume, Volumes;
    put_class edit_class remove_class: classes StorageClass, Class, Classes;
}

impl Server {
    fn stamp(&mut self, meta: &mut ObjectMeta, uid: Option<String>) {
        self.version += 1;
        meta.resource_version = Some(self.version.to_string());
        if uid.is_none() {
            meta.uid = None;
        }
        let version = self.version;
        meta.uid.get_or_insert_with(|| format!("uid-{version}"));
        let time = k8s_openapi::jiff::Timestamp::from_second(version.cast_signed()).unwrap();
        meta.creation_timestamp.get_or_insert(Time(time));
    }

    fn log(&mut self, what: What, seen: Seen) {
        self.untold.entry(what).or_default().push_back(seen);
    }

    pub(super) fn pod(&self, name: &str) -> &Pod {
        self.pods.get(name).unwrap_or_else(|| panic!("there is no pod {name}"))
    }

    /// The node of a pod; empty while it has none.
    pub(super) fn node_of(&self, name: &str) -> &str {
        self.pods.get(name).map_or("", |pod| pod.spec.value.node_name.as_str())
    }

    /// Somebody deletes a pod: one that runs goes later.
    pub(super) fn delete_pod(&mut self, name: &str) {
        if self.node_of(name).is_empty() {
            self.vanish(name);
            return;
        }
        let now = Time(k8s_openapi::jiff::Timestamp::from_second(self.version.cast_signed()).unwrap());
        self.edit_pod(name, |pod| {
            pod.metadata.deletion_timestamp.get_or_insert(now);
        });
    }

    /// A pod that was told to stop has stopped.
    pub(super) fn reap(&mut self, name: &str) {
        if self.pods.get(name).is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()) {
            self.started.remove(name);
            self.vanish(name);
        }
    }

    /// Pods that use a node.
    pub(super) fn on_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a String, &'a Pod)> {
        self.pods.iter().filter(move |(_, pod)| pod.spec.value.node_name == node && !pod.status.value.is_terminal())
    }

    /// What pods on a node use of its GPUs, as far as that is settled: index of the GPU, and the part as a grant names it.
    pub(super) fn parts_on(&self, node: &str) -> Vec<(String, u8, String)> {
        let of = |(name, pod): (&String, &Pod)| {
            let written = || grant_of(pod).into_iter().flat_map(|text| text.split(',')).filter_map(|text| text.split_once(':'));
            let parts: Vec<(u8, String)> = match (&self.chance, self.taken.get(name)) {
                (Some(_), taken) => taken.cloned().unwrap_or_default(),
                (None, _) => written().map(|(gpu, part)| (gpu.parse().unwrap(), part.to_owned())).collect(),
            };
            parts.into_iter().map(|(gpu, part)| (name.clone(), gpu, part)).collect::<Vec<_>>()
        };
        self.on_node(node).flat_map(of).collect()
    }

    /// A kubelet starts a pod with any devices of `devices`, by resource, that nobody has. Whether there were enough.
    pub(super) fn start(&mut self, name: &str, devices: &[(String, (u8, String))]) -> bool {
        let Some(chance) = &mut self.chance else { return true };
        let mut chance = || {
            // The constants of Knuth's MMIX.
            *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*chance >> 33) as usize
        };
        let (mut picks, pod) = (Vec::new(), &self.pods[name]);
        for (resource, count) in translate::resources(pod) {
            let mut free: Vec<&(u8, String)> = devices.iter().filter(|(name, _)| *name == resource).map(|(_, part)| part).collect();
            for _ in 0..count {
                if free.is_empty() {
                    return false;
                }
                picks.push(free.swap_remove(chance() % free.len()).clone());
            }
        }
        self.taken.insert(name.to_owned(), picks);
        true
    }

    /// Does what the scheduler wishes, as `hands` would.
    pub(super) fn execute(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::Bind { pod, node, grant } => self.bind(pod, node, grant.as_deref()),
            Effect::Look { pod, .. } => self.look(pod).map_or_else(|outcome| outcome, |_| Outcome::Done),
            Effect::Evict { pod, .. } => self.evict(pod),
            Effect::Layout { node, uid, spec } => {
                let Some(known) = self.gpu_nodes.get(node) else { return Outcome::Gone };
                if known.metadata.uid.as_ref() != Some(uid) {
                    return Outcome::Conflict("that is another object of the same name".into());
                }
                let known = &known.spec.value;
                if spec.term < known.term || spec.generation < known.generation {
                    return Outcome::Refused("term or generation must not decrease".into());
                }
                if spec.term.max(spec.generation) > NUMBER_MAX {
                    return Outcome::Refused("term or generation is too high".into());
                }
                self.edit_gpu_node(node, |object| object.spec.value = spec.clone());
                Outcome::Done
            }
            Effect::Volumes { pod, choices, .. } => self.choose(pod, choices),
            Effect::Explain { pod, reason, message, .. } => {
                let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
                self.on_pod(pod, |pod| pod.status.value.conditions = vec![serde_json::from_value(condition).unwrap()])
            }
            Effect::Nominate { pod, node } => self.on_pod(pod, |pod| pod.status.value.nominated_node_name.clone_from(node)),
        }
    }

    fn is_there(&self, pod: &PodName) -> bool {
        self.pods.get(&full(pod)).is_some_and(|known| known.metadata.uid.as_deref() == Some(&pod.uid))
    }

    fn on_pod(&mut self, pod: &PodName, change: impl FnOnce(&mut Pod)) -> Outcome {
        if !self.is_there(pod) {
            return Outcome::Gone;
        }
        self.edit_pod(&full(pod), change);
        Outcome::Done
    }

    /// Binds a pod, once.
    pub(super) fn bind(&mut self, pod: &PodName, node: &str, grant: Option<&str>) -> Outcome {
        if !self.is_there(pod) {
            return Outcome::Gone;
        }
        let known = self.pod(&full(pod));
        if !known.spec.value.node_name.is_empty() {
            let same = known.spec.value.node_name == node && grant_of(known) == grant;
            return if same { Outcome::Done } else { Outcome::Conflict(format!("it was bound to {}", known.spec.value.node_name)) };
        }
        if known.metadata.deletion_timestamp.is_some() {
            return Outcome::Conflict("it is being deleted".into());
        }
        self.taken.remove(&full(pod));
        self.on_pod(pod, |pod| {
            node.clone_into(&mut pod.spec.value.node_name);
            if let Some(grant) = grant {
                pod.metadata.annotations.get_or_insert_default().insert(keys::GRANT.into(), grant.into());
            }
        })
    }

    /// The node that a pod has.
    pub(super) fn look(&self, pod: &PodName) -> Result<Option<String>, Outcome> {
        let on = self.node_of(&full(pod));
        if self.is_there(pod) { Ok(Some(on.to_owned()).filter(|on| !on.is_empty())) } else { Err(Outcome::Gone) }
    }

    fn evict(&mut self, pod: &PodName) -> Outcome {
        if !self.is_there(pod) {
            return Outcome::Gone;
        }
        let known = self.pod(&full(pod));
        if known.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let labels = known.metadata.labels.clone().unwrap_or_default();
        let mine = |budget: &&Budget| {
            let wanted = budget.spec.value.selector.as_ref().and_then(|selector| selector.match_labels.clone()).unwrap_or_default();
            wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let budgets: Vec<String> = self.budgets.values().filter(mine).map(|budget| full_name(&budget.metadata)).collect();
        let allows = |name: &String| self.budgets[name].status.value.disruptions_allowed > 0;
        if budgets.len() > 1 || !budgets.iter().all(allows) {
            return Outcome::Conflict("its disruption budget does not allow that now".into());
        }
        for name in budgets {
            self.edit_budget(&name, |budget| budget.status.value.disruptions_allowed -= 1);
        }
        self.delete_pod(&full(pod));
        Outcome::Done
    }

    fn choose(&mut self, pod: &PodName, choices: &[VolumeChoice]) -> Outcome {
        for choice in choices {
            match choice {
                VolumeChoice::Provision { claim, node, version } => {
                    let name = format!("{}/{claim}", pod.namespace);
                    let Some(known) = self.claims.get(&name) else { return Outcome::Gone };
                    if known.metadata.resource_version.as_deref() != Some(version) {
                        return Outcome::Conflict(format!("claim {claim} was changed meanwhile"));
                    }
                    self.edit_claim(&name, |claim| {
                        claim.metadata.annotations.get_or_insert_default().insert(SELECTED_NODE.into(), node.clone());
                    });
                }
                VolumeChoice::Take { claim, uid, volume, version } => {
                    let Some(known) = self.volumes.get(volume) else { return Outcome::Gone };
                    if known.metadata.resource_version.as_deref() != Some(version) {
                        return Outcome::Conflict(format!("volume {volume} was changed meanwhile"));
                    }
                    let of = json!({"namespace": pod.namespace, "name": claim, "uid": uid});
                    self.edit_volume(volume, |volume| volume.spec.value.claim_ref = Some(serde_json::from_value(of).unwrap()));
                }
            }
        }
        Outcome::Done
    }

    /// Provisioners and the volume controller do all they can. Whether there was something to do.
    pub(super) fn bind_volumes(&mut self) -> bool {
        let taken: Vec<(String, String)> = self
            .volumes
            .iter()
            .filter_map(|(name, volume)| {
                let of = volume.spec.value.claim_ref.as_ref()?;
                Some((format!("{}/{}", of.namespace, of.name), name.clone()))
            })
            .collect();
        let mut did = false;
        for (name, claim) in self.claims.clone() {
            if !claim.spec.value.volume_name.is_empty() {
                continue;
            }
            let class = claim.spec.value.storage_class_name.clone().unwrap_or_default();
            let volume_name = if let Some((_, volume)) = taken.iter().find(|(of, _)| *of == name) {
                volume.clone()
            } else if let Some(node) = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE)) {
                let made = format!("made-for-{}", claim.metadata.name.clone().unwrap_or_default());
                self.put_volume(volume(&made, &class, node));
                let of = json!({"namespace": "ns", "name": claim.metadata.name, "uid": claim.metadata.uid});
                self.edit_volume(&made, |volume| volume.spec.value.claim_ref = Some(serde_json::from_value(of).unwrap()));
                made
            } else {
                continue;
            };
            did = true;
            self.edit_volume(&volume_name, |volume| volume.status.value.phase = "Bound".into());
            self.edit_claim(&name, |claim| {
                claim.spec.value.volume_name = volume_name;
                claim.status.value.phase = "Bound".into();
                claim.metadata.annotations.get_or_insert_default().insert(BOUND.into(), "yes".into());
            });
        }
        did
    }
}

/// What a pod was given of GPUs.
pub(super) fn grant_of(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(keys::GRANT).map(String::as_str)
}
