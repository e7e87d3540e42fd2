//! What is known of volumes, claims, classes and drivers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Prebind, keys};
use crate::objects::{Claim, NodeDrivers, PersistentVolume, StorageClass, full_name};

/// The storage of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// By `namespace/name`.
    claims: BTreeMap<String, Claim>,
    volumes: BTreeMap<String, PersistentVolume>,
    classes: BTreeMap<String, StorageClass>,
    /// By node: how many volumes each driver can attach there.
    limits: BTreeMap<String, BTreeMap<String, u32>>,
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
        self.volumes.insert(full_name(&volume.metadata), volume);
    }

    /// Forgets a volume.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
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
        let before = self.limited();
        let limits = drivers.spec.value.drivers.iter().filter_map(|driver| Some((driver.name.clone(), driver.allocatable.count?)));
        self.limits.insert(full_name(&drivers.metadata), limits.collect());
        self.limited() != before
    }

    /// Forgets the drivers of a node; returns what [`Storage::insert_drivers`] does.
    pub fn remove_drivers(&mut self, node: &str) -> bool {
        let before = self.limited();
        self.limits.remove(node);
        self.limited() != before
    }

    /// Counts what was chosen for a pod on `node` as if it were so already, until [`Storage::release`].
    pub fn assume(&mut self, namespace: &str, pod: &str, node: &str, chosen: &[Prebind]) {
        for one in chosen {
            match one {
                Prebind::Volume { volume, claim } => {
                    self.promised.insert(volume.clone(), (format!("{namespace}/{claim}"), pod.to_owned()));
                }
                Prebind::Node { claim } => {
                    self.selected.insert(format!("{namespace}/{claim}"), (node.to_owned(), pod.to_owned()));
                }
            }
        }
    }

    /// What was assumed for a pod has come about, or will not.
    pub fn release(&mut self, pod: &str) {
        self.promised.retain(|_, (_, of)| of != pod);
        self.selected.retain(|_, (_, of)| of != pod);
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

    /// All volumes, by name.
    pub(super) fn volumes(&self) -> impl Iterator<Item = (&String, &PersistentVolume)> {
        self.volumes.iter()
    }

    /// The drivers that have a limit on some node.
    fn limited(&self) -> BTreeSet<String> {
        self.limits.values().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Whether a driver has a limit on some node.
    pub(super) fn is_limited(&self, driver: &str) -> bool {
        self.limits.values().any(|of_node| of_node.contains_key(driver))
    }

    /// How many volumes each driver that has a limit somewhere can attach to a node, as amounts of a resource; more than anybody asks for
    /// where it has none.
    pub(super) fn attachable(&self, node: &str) -> Vec<(String, u64)> {
        let here = self.limits.get(node);
        let limit = |driver: &String| here.and_then(|limits| limits.get(driver)).copied().unwrap_or(u32::MAX);
        self.limited().iter().map(|driver| (format!("{}{driver}", keys::ATTACH_PREFIX), u64::from(limit(driver)))).collect()
    }
}
