//! Volumes that pods claim: who waits for what, and what is chosen once the node is known.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Scheduler,
    effect::{Effect, VolumeChoice},
    flight::Step,
    nodes::NodeEntry,
    pods::{PodEntry, Stage},
};
use crate::{
    objects::{Claim, NodeDrivers, PersistentVolume, Pod, StorageClass},
    translate::{self, Prebind, Scene},
};

/// Who has to be looked at because storage changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    /// Everybody who waits.
    pub(super) all: bool,
    /// Those who run: what they take may count otherwise.
    pub(super) running: bool,
    /// Those who use one of these claims.
    pub(super) claims: BTreeSet<String>,
}

/// Why a pod cannot have its volumes.
struct Failed {
    /// For a person.
    why: String,
    /// Whether that is so on this node, and might not be on another.
    here: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, here: false }
    }
}

/// What is to be done about a claim that is not bound.
enum Next {
    Wait,
    Choose(VolumeChoice),
}

impl Scheduler {
    pub(super) fn see_claim(&mut self, name: &str, object: Option<Claim>) {
        match (object, name.split_once('/')) {
            (Some(object), _) => self.storage.insert_claim(object),
            (None, Some((namespace, name))) => self.storage.remove_claim(namespace, name),
            (None, None) => {}
        }
        self.dirty.claims.insert(name.to_owned());
    }

    pub(super) fn see_volume(&mut self, name: &str, object: Option<PersistentVolume>) {
        // One that nobody has may serve anybody; most are made for one claim.
        for volume in self.storage.volume(name).into_iter().chain(&object) {
            match &volume.spec.value.claim_ref {
                Some(of) => drop(self.dirty.claims.insert(format!("{}/{}", of.namespace, of.name))),
                None => self.dirty.all = true,
            }
        }
        match object {
            Some(object) => self.storage.insert_volume(object),
            None => self.storage.remove_volume(name),
        }
    }

    pub(super) fn see_class(&mut self, name: &str, object: Option<StorageClass>) {
        match object {
            Some(object) => self.storage.insert_class(object),
            None => self.storage.remove_class(name),
        }
        self.dirty.all = true;
    }

    pub(super) fn see_drivers(&mut self, node: &str, object: Option<NodeDrivers>) {
        let others = match object {
            Some(object) => self.storage.insert_drivers(&object),
            None => self.storage.remove_drivers(node),
        };
        self.dirty.all |= others;
        self.dirty.running |= others;
        if self.complete {
            let nodes = if others { self.nodes.keys().cloned().collect() } else { vec![node.to_owned()] };
            for node in nodes {
                self.refresh_node(&node);
            }
        }
    }

    /// Looks at those again for whom storage changed.
    pub(super) fn refresh_claimants(&mut self) {
        let Dirty { all, running, claims } = std::mem::take(&mut self.dirty);
        let touched: BTreeSet<String> = claims.iter().filter_map(|claim| self.claimants.get(claim)).flatten().cloned().collect();
        let everybody = all || running;
        let pods = if everybody { self.claimants.values().flatten().cloned().collect() } else { touched.clone() };
        for name in pods {
            match self.pods.get(&name).map(|entry| &entry.stage) {
                Some(Stage::Assumed(flight)) if flight.step == Step::Volumes => self.make_ready(name),
                Some(Stage::Held(_) | Stage::Waits) => self.refresh_pod(&name),
                Some(Stage::Runs) if running || touched.contains(&name) => self.refresh_pod(&name),
                _ => {}
            }
        }
    }

    /// Notes whose claims a pod uses, or no longer does.
    pub(super) fn note_claims(&mut self, name: &str, there: bool) {
        for claim in self.pods.get(name).map(|entry| claims_of(&entry.object)).unwrap_or_default() {
            if there {
                self.claimants.entry(claim).or_default().insert(name.to_owned());
            } else if let Some(users) = self.claimants.get_mut(&claim) {
                users.remove(name);
                if users.is_empty() {
                    self.claimants.remove(&claim);
                }
            }
        }
    }

    /// A pod no longer has a place: who waits for one of its claims is looked at.
    pub(super) fn free_claims(&mut self, name: &str) {
        self.dirty.claims.extend(self.pods.get(name).map(|entry| claims_of(&entry.object)).unwrap_or_default());
    }

    /// Who else has a place and uses a claim, with what it is up to.
    fn users_of<'a>(&'a self, pod: &'a str, claim: &str) -> impl Iterator<Item = (&'a String, &'a PodEntry)> + use<'a> {
        let others = self.claimants.get(claim).into_iter().flatten().filter(move |name| *name != pod);
        others.filter_map(|name| Some((name, self.pods.get(name)?))).filter(|(_, entry)| entry.on().is_some())
    }

    /// Who else uses a claim that allows one pod at a time. As in kube-scheduler these are pods that name it and whose node is there.
    pub(super) fn user_of(&self, pod: &str, namespace: &str, claim: &str) -> Option<String> {
        self.claimed_by(pod, namespace, claim).map(|(name, _)| name.clone()).next()
    }

    fn claimed_by<'a>(&'a self, pod: &'a str, namespace: &str, claim: &'a str) -> impl Iterator<Item = (&'a String, &'a PodEntry)> {
        let names = move |entry: &PodEntry| {
            let mut volumes = entry.object.spec.value.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
            volumes.any(|named| named.claim_name == claim)
        };
        let is_there = |entry: &PodEntry| matches!(entry.stage, Stage::Assumed(_) | Stage::Runs);
        self.users_of(pod, &format!("{namespace}/{claim}")).filter(move |(_, entry)| is_there(entry) && names(entry))
    }

    /// The next step of a pod on its way can be done.
    pub(super) fn make_ready(&mut self, name: String) {
        self.readied += 1;
        self.ready.entry(name).or_insert(self.readied);
    }

    /// Goes on with pods for which the next step can be done, those of higher priority first, then as they were decided. At the end of a turn, so that nothing is wished
    /// for who was given back since.
    pub(super) fn go_on(&mut self) {
        let mut ready: Vec<(String, u64)> = std::mem::take(&mut self.ready).into_iter().collect();
        let priority = |name: &String| self.pods.get(name).and_then(|entry| entry.object.spec.value.priority).unwrap_or(0);
        ready.sort_by_key(|(name, row)| (Reverse(priority(name)), *row));
        let mut lost = false;
        for (name, _) in ready {
            // Decided together with one that did not get its volumes, and perhaps only because of that one.
            if lost && self.leans_on_others(&name) {
                self.give_back(&name, "a pod that was decided together with it could not get its volumes");
                continue;
            }
            self.go_on_with(&name);
            lost |= self.pods.get(&name).is_some_and(|entry| entry.flight().is_none());
        }
    }

    /// Whether a pod that was just decided goes where it does because of other pods.
    fn leans_on_others(&self, name: &str) -> bool {
        let Some(entry) = self.pods.get(name) else { return false };
        let constraints = entry.spec.as_ref().and_then(|spec| spec.demand.constraints.as_ref());
        entry.flight().is_some_and(|flight| flight.step == Step::Makes)
            && constraints.is_some_and(|all| !all.together.is_empty() || !all.spread.is_empty())
    }

    /// Goes on with a pod whose GPUs are there: its volumes are chosen, waited for, or it is bound.
    fn go_on_with(&mut self, name: &str) {
        let next = match self.volumes_left(name) {
            Ok(next) => next,
            Err(Failed { why, here: false }) => return self.give_back(name, &why),
            Err(Failed { why, here: true }) => return self.blame(name, &why),
        };
        if next.is_empty() {
            return self.bind(name);
        }
        let choices: Vec<VolumeChoice> =
            next.into_iter().filter_map(|next| if let Next::Choose(choice) = next { Some(choice) } else { None }).collect();
        if choices.is_empty() {
            return self.step(name, Step::Volumes);
        }
        let Some(entry) = self.pods.get_mut(name) else { return };
        let pod = entry.name();
        let Stage::Assumed(flight) = &mut entry.stage else { return };
        flight.chosen.extend(choices.iter().map(|choice| match choice {
            VolumeChoice::Provision { claim, version, .. } | VolumeChoice::Take { claim, version, .. } => (claim.clone(), version.clone()),
        }));
        let node = flight.node.clone();
        self.promise(name, &pod.namespace, &choices);
        self.effects.push(Effect::Volumes { pod, node, choices });
        self.step(name, Step::Chooses);
    }

    /// From now on nobody else gets what was chosen for a pod.
    fn promise(&mut self, name: &str, namespace: &str, choices: &[VolumeChoice]) {
        for choice in choices {
            match choice {
                VolumeChoice::Take { claim, volume, .. } => {
                    self.storage.promise_volume(volume, format!("{namespace}/{claim}"), name);
                    self.dirty.all = true;
                }
                VolumeChoice::Provision { claim, node, .. } => {
                    let claim = format!("{namespace}/{claim}");
                    self.storage.promise_node(claim.clone(), node, name);
                    self.dirty.claims.insert(claim);
                }
            }
        }
    }

    /// A pod is no longer on its way: what was promised to it, it has, or others may have it.
    pub(super) fn settle_promises(&mut self, name: &str) {
        self.dirty.all |= self.storage.release(name);
        self.free_claims(name);
    }

    /// What is to be done about the claims of a pod on its way that are not bound yet.
    fn volumes_left(&self, name: &str) -> Result<Vec<Next>, Failed> {
        let Some(entry) = self.pods.get(name).filter(|entry| !self.dry_run && !claims_of(&entry.object).is_empty()) else {
            return Ok(Vec::new());
        };
        let Some(flight) = entry.flight() else { return Ok(Vec::new()) };
        // Somebody else may use by now what only one can.
        let ahead = |user: &PodEntry| user.flight().is_none_or(|flight| flight.step > Step::Makes);
        let taken = |namespace: &str, claim: &str| {
            self.claimed_by(name, namespace, claim).find(|(_, user)| ahead(user)).map(|(name, _)| name.clone())
        };
        if flight.step == Step::Makes {
            let scene = Scene { storage: &self.storage, budgets: &self.budgets, taken: &taken };
            translate::pending(&entry.object, &scene).map_err(|refusal| refusal.to_string())?;
        }
        let labels = self.nodes.get(&flight.node).map(NodeEntry::labels).unwrap_or_default();
        let left = translate::choose(&entry.object, (&flight.node, &labels), &self.storage, &taken);
        let left = match left {
            // What was chosen is being bound.
            Err(translate::Refusal::Waits(_)) if !flight.chosen.is_empty() => return Ok(vec![Next::Wait]),
            left => left.map_err(|refusal| refusal.to_string())?,
        };
        left.into_iter().map(|prebind| self.next(name, entry, &flight.node, &flight.chosen, prebind)).collect()
    }

    fn next(&self, name: &str, entry: &PodEntry, node: &str, chosen: &BTreeMap<String, String>, prebind: Prebind) -> Result<Next, Failed> {
        let namespace = entry.object.metadata.namespace.as_deref().unwrap_or_default();
        let (Prebind::Node { claim } | Prebind::Volume { claim, .. }) = &prebind;
        let known = self.storage.claim(namespace, claim).map(|claim| &claim.metadata);
        let version = known.and_then(|meta| meta.resource_version.clone()).unwrap_or_default();
        if let Prebind::Node { .. } = &prebind {
            match known.and_then(|meta| meta.annotations.as_ref()?.get(translate::SELECTED_NODE)) {
                Some(selected) if selected == node => return Ok(Next::Wait),
                Some(selected) => return Err(format!("the volume of claim {claim} is being made for node {selected}").into()),
                // A provisioner that cannot make the volume there takes its node back.
                None if chosen.get(claim).is_some_and(|before| *before != version) => {
                    return Err(Failed { why: format!("the volume of claim {claim} cannot be made for node {node}"), here: true });
                }
                None => {}
            }
        }
        if chosen.contains_key(claim) {
            return Ok(Next::Wait);
        }
        for (other, user) in self.users_of(name, &format!("{namespace}/{claim}")) {
            match user.flight().filter(|flight| flight.chosen.contains_key(claim)) {
                Some(flight) if flight.node == node => return Ok(Next::Wait),
                Some(flight) => return Err(format!("claim {claim} is being bound for {other}, which goes to node {}", flight.node).into()),
                None => {}
            }
        }
        Ok(Next::Choose(match prebind {
            Prebind::Node { claim } => VolumeChoice::Provision { claim, node: node.to_owned(), version },
            Prebind::Volume { volume, claim } => {
                let version = self.storage.volume(&volume).and_then(|volume| volume.metadata.resource_version.clone()).unwrap_or_default();
                VolumeChoice::Take { uid: known.and_then(|meta| meta.uid.clone()).unwrap_or_default(), claim, volume, version }
            }
        }))
    }
}

/// The claims that a pod uses, by their full names.
fn claims_of(pod: &Pod) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    let claim = |volume: &crate::objects::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(named), _) => Some(format!("{namespace}/{}", named.claim_name)),
        (None, Some(_)) => Some(format!("{namespace}/{name}-{}", volume.name)),
        (None, None) => None,
    };
    pod.spec.value.volumes.iter().filter_map(claim).collect()
}
