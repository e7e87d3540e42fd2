//! What is known of volumes, claims, classes and drivers.

use std::collections::{BTreeMap, BTreeSet};

use super::{keys, there};
use crate::objects::{Claim, NodeDrivers, PersistentVolume, StorageClass, full_name};

/// The storage of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// By `namespace/name`.
    claims: BTreeMap<String, Claim>,
    volumes: BTreeMap<String, PersistentVolume>,
    /// Names of volumes by their class.
    by_class: BTreeMap<String, BTreeSet<String>>,
    classes: BTreeMap<String, StorageClass>,
    /// By node: how many volumes each driver can attach there.
    limits: BTreeMap<String, BTreeMap<String, u32>>,
    /// By driver: on how many nodes it has a limit.
    limited: BTreeMap<String, usize>,
    /// What was decided and is not seen yet: the claim, `namespace/name`, that gets a volume, and the pod for which it does.
    promised: BTreeMap<String, (String, String)>,
    /// The node that the volume of a claim is being made for, and the pod.
    selected: BTreeMap<String, (String, String)>,
}

impl Storage {
    /// Takes in a claim.
    pub fn insert_claim(&mut self, claim: Claim) {
        self.claims.insert(full_name(&claim.metadata), claim);
    }

    /// Forgets a claim.
    pub fn remove_claim(&mut self, namespace: &str, name: &str) {
        self.claims.remove(&format!("{namespace}/{name}"));
    }

    /// Takes in a volume.
    pub fn insert_volume(&mut self, volume: PersistentVolume) {
        let name = full_name(&volume.metadata);
        self.remove_volume(&name);
        self.by_class.entry(there::class_of_volume(&volume).to_owned()).or_default().insert(name.clone());
        self.volumes.insert(name, volume);
    }

    /// Forgets a volume.
    pub fn remove_volume(&mut self, name: &str) {
        let Some(known) = self.volumes.remove(name) else { return };
        let class = there::class_of_volume(&known);
        if let Some(names) = self.by_class.get_mut(class) {
            names.remove(name);
            if names.is_empty() {
                self.by_class.remove(class);
            }
        }
    }

    /// Takes in a class.
    pub fn insert_class(&mut self, class: StorageClass) {
        self.classes.insert(full_name(&class.metadata), class);
    }

    /// Forgets a class.
    pub fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    /// Takes in the drivers of a node. Returns whether the set of drivers that have a limit somewhere changed, on which what pods ask for
    /// and what nodes have depends.
    pub fn insert_drivers(&mut self, drivers: &NodeDrivers) -> bool {
        let limits = drivers.spec.value.drivers.iter().filter_map(|driver| Some((driver.name.clone(), driver.allocatable.count?)));
        self.limit(full_name(&drivers.metadata), limits.collect())
    }

    /// Forgets the drivers of a node; returns what [`Storage::insert_drivers`] does.
    pub fn remove_drivers(&mut self, node: &str) -> bool {
        self.limit(node.to_owned(), BTreeMap::new())
    }

    fn limit(&mut self, node: String, limits: BTreeMap<String, u32>) -> bool {
        let before: Vec<String> = self.limited.keys().cloned().collect();
        for driver in limits.keys() {
            *self.limited.entry(driver.clone()).or_default() += 1;
        }
        for driver in self.limits.remove(&node).unwrap_or_default().into_keys() {
            if let Some(nodes) = self.limited.get_mut(&driver) {
                *nodes -= 1;
            }
        }
        self.limited.retain(|_, nodes| *nodes > 0);
        if !limits.is_empty() {
            self.limits.insert(node, limits);
        }
        !before.iter().eq(self.limited.keys())
    }

    /// Nobody but this claim, `namespace/name`, gets the volume, until [`Storage::release`] of the pod.
    pub fn promise_volume(&mut self, volume: &str, claim: String, pod: &str) {
        self.promised.insert(volume.to_owned(), (claim, pod.to_owned()));
    }

    /// The volume of a claim, `namespace/name`, is to be made for this node and no other, until [`Storage::release`] of the pod.
    pub fn promise_node(&mut self, claim: String, node: &str, pod: &str) {
        self.selected.insert(claim, (node.to_owned(), pod.to_owned()));
    }

    /// What was promised to a pod has come about, or will not. Returns whether that was a volume.
    pub fn release(&mut self, pod: &str) -> bool {
        let before = self.promised.len();
        self.promised.retain(|_, (_, of)| of != pod);
        self.selected.retain(|_, (_, of)| of != pod);
        self.promised.len() < before
    }

    /// The claim, `namespace/name`, to which a volume is promised.
    pub(super) fn promised(&self, volume: &str) -> Option<&str> {
        self.promised.get(volume).map(|(claim, _)| claim.as_str())
    }

    /// The node that the volume of a claim is being made for, as was decided and is not seen yet.
    pub(super) fn selected(&self, claim: &Claim) -> Option<&str> {
        self.selected.get(&full_name(&claim.metadata)).map(|(node, _)| node.as_str())
    }

    /// The claim of a name.
    #[must_use]
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&format!("{namespace}/{name}"))
    }

    /// The volume of a name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&PersistentVolume> {
        self.volumes.get(name)
    }

    /// The class of a name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&StorageClass> {
        self.classes.get(name)
    }

    /// The volumes of a class, by name.
    pub(super) fn volumes_of(&self, class: &str) -> impl Iterator<Item = &PersistentVolume> {
        self.by_class.get(class).into_iter().flatten().filter_map(|name| self.volumes.get(name))
    }

    /// Whether a driver has a limit on some node.
    pub(super) fn is_limited(&self, driver: &str) -> bool {
        self.limited.contains_key(driver)
    }

    /// How many volumes each driver that has a limit somewhere can attach to a node, as amounts of a resource; more than anybody asks for
    /// where it has none.
    pub(super) fn attachable(&self, node: &str) -> Vec<(String, u64)> {
        let here = self.limits.get(node);
        let limit = |driver: &String| here.and_then(|limits| limits.get(driver)).copied().unwrap_or(u32::MAX);
        self.limited.keys().map(|driver| (format!("{}{driver}", keys::ATTACH_PREFIX), u64::from(limit(driver)))).collect()
    }
}
