//! Volumes that pods claim: who waits for what, and what is chosen once the node is known.

use super::{
    Scheduler,
    effect::VolumeChoice,
    pods::{PodEntry, Stage, Step, VOLUMES_MS},
};
use crate::{
    objects::{Claim, NodeDrivers, PersistentVolume, Pod, StorageClass, Volume},
    translate::{self, Prebind, Refusal},
};

impl Scheduler {
    pub(super) fn see_claim(&mut self, name: &str, object: Option<Claim>) {
        match (object, name.split_once('/')) {
            (Some(object), _) => self.storage.insert_claim(object),
            (None, Some((namespace, name))) => self.storage.remove_claim(namespace, name),
            (None, None) => {}
        }
        self.storage_changed = true;
    }

    pub(super) fn see_volume(&mut self, name: &str, object: Option<PersistentVolume>) {
        match object {
            Some(object) => self.storage.insert_volume(object),
            None => self.storage.remove_volume(name),
        }
        self.storage_changed = true;
    }

    pub(super) fn see_class(&mut self, name: &str, object: Option<StorageClass>) {
        match object {
            Some(object) => self.storage.insert_class(object),
            None => self.storage.remove_class(name),
        }
        self.storage_changed = true;
    }

    pub(super) fn see_drivers(&mut self, node: &str, object: Option<NodeDrivers>) {
        let others = match object {
            Some(object) => self.storage.insert_drivers(&object),
            None => self.storage.remove_drivers(node),
        };
        self.storage_changed = true;
        if self.complete {
            let nodes = if others { self.nodes.keys().cloned().collect() } else { vec![node.to_owned()] };
            for node in nodes {
                self.refresh_node(&node);
            }
        }
    }

    /// Storage changed: whoever waits with claims is looked at again, and whoever is on the way and waits for volumes.
    pub(super) fn refresh_claimants(&mut self) {
        let now_ms = self.now_ms;
        if std::mem::take(&mut self.storage_changed) {
            for name in self.claimants.iter().cloned().collect::<Vec<_>>() {
                match self.pods.get(&name).map(|entry| &entry.stage) {
                    Some(Stage::Assumed(flight)) if flight.step == Step::Volumes => self.check_volumes(&name),
                    Some(_) => self.refresh_pod(&name),
                    None => {}
                }
            }
        }
        let late = |name: &&String| {
            let Some(Stage::Assumed(flight)) = self.pods.get(*name).map(|entry| &entry.stage) else { return false };
            flight.step == Step::Volumes && now_ms.saturating_sub(flight.since_ms) >= VOLUMES_MS
        };
        for name in self.claimants.iter().filter(late).cloned().collect::<Vec<_>>() {
            self.give_back(&name, &format!("its volumes were not bound within {} s", VOLUMES_MS / 1000));
        }
    }

    /// Whether a pod has volumes that it claims.
    pub(super) fn claims(pod: &Pod) -> bool {
        pod.spec.value.volumes.iter().any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())
    }

    /// Who else uses a claim that allows one pod at a time, of those that name it and have a node that is there.
    pub(super) fn user_of(&self, pod: &str, namespace: &str, claim: &str) -> Option<String> {
        let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
        let names = |volume: &Volume| volume.persistent_volume_claim.as_ref().is_some_and(|named| named.claim_name == claim);
        let uses =
            |entry: &PodEntry| matches!(entry.stage, Stage::Assumed(_) | Stage::Runs) && entry.object.spec.value.volumes.iter().any(names);
        self.pods.range(from..to).find(|(name, entry)| *name != pod && uses(entry)).map(|(name, _)| name.clone())
    }

    /// What is still to be done about the claims of a pod that goes to `node`.
    fn unsettled(&self, name: &str, node: &str) -> Result<Vec<Prebind>, Refusal> {
        let Some(entry) = self.pods.get(name).filter(|entry| Self::claims(&entry.object)) else { return Ok(Vec::new()) };
        let labels = self.nodes.get(node).map(super::nodes::NodeEntry::labels).unwrap_or_default();
        translate::choose(&entry.object, (node, &labels), &self.storage, &|namespace, claim| self.user_of(name, namespace, claim))
    }

    /// What is to be done about the claims of a pod that goes to `node`. From now on nobody else gets what is chosen.
    pub(super) fn choose_volumes(&mut self, name: &str, node: &str) -> Result<Vec<VolumeChoice>, String> {
        let chosen = self.unsettled(name, node).map_err(|refusal| refusal.to_string())?;
        let Some(entry) = self.pods.get(name) else { return Ok(Vec::new()) };
        let namespace = entry.object.metadata.namespace.as_deref().unwrap_or_default();
        self.storage.assume(namespace, name, node, &chosen);
        self.storage_changed |= Self::claims(&entry.object);
        let uid = |claim: &str| self.storage.claim(namespace, claim).and_then(|claim| claim.metadata.uid.clone()).unwrap_or_default();
        let choice = |prebind| match prebind {
            Prebind::Node { claim } => VolumeChoice::Provision { claim, node: node.to_owned() },
            Prebind::Volume { volume, claim } => VolumeChoice::Take { uid: uid(&claim), claim, volume },
        };
        Ok(chosen.into_iter().map(choice).collect())
    }

    /// A pod with claims has a node now, or has none any more: what was assumed for it is so or is not, and who waits for a claim of its may
    /// go on.
    pub(super) fn settle_claims(&mut self, name: &str) {
        if self.pods.get(name).is_some_and(|entry| Self::claims(&entry.object)) {
            self.storage.release(name);
            self.storage_changed = true;
        }
    }

    /// Binds a pod on its way if all its claims are bound, else lets it wait for them.
    pub(super) fn check_volumes(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let Stage::Assumed(flight) = &entry.stage else { return };
        match self.unsettled(name, &flight.node) {
            Ok(left) if left.is_empty() => self.bind(name),
            // A provisioner that cannot make the volume there takes its node back.
            Ok(_) | Err(Refusal::Waits(_)) => self.step(name, Step::Volumes),
            Err(refused) => self.give_back(name, &refused.to_string()),
        }
    }
}
