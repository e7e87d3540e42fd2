//! The volumes of a pod: from which nodes they can be reached, and which are still to be chosen.
//!
//! A claim that is bound has a volume, and that says from where it can be reached. One that waits for its first consumer has none yet:
//! where one can be made, or where one lies that would do, decides on which nodes the pod may run, and after the decision the volume is
//! chosen ([`choose`]). The rules are those of kube-scheduler's plugins `VolumeBinding`, `VolumeZone`, `VolumeRestrictions` and
//! `NodeVolumeLimits`; a volume that several pods of a node share is counted once for each, which errs on the side of the limit.

use std::collections::BTreeMap;

use partita_core::model::constraints::{NodeTerm, Operator, Requirement};

use super::{Refusal, Storage, Unsupported, keys, matches_term, names, quote, selector};
use crate::{
    objects::{Claim, PersistentVolume, Pod, Volume},
    quantity::Quantity,
};

const BOUND: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of a claim: the node for whose pod its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const ONE_POD: &str = "ReadWriteOncePod";
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
const OLD_ZONE: [&str; 2] = ["failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"];

/// What the volumes of a pod demand of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demands {
    /// Groups of terms, each of which must hold.
    pub groups: Vec<Vec<NodeTerm>>,
    /// How many volumes of each driver are attached, as amounts of a resource.
    pub attach: BTreeMap<String, u64>,
}

/// What is to be done about a claim once the node is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prebind {
    /// Give it a volume that is there.
    Volume {
        /// Name of the volume.
        volume: String,
        /// Name of the claim, in the pod's namespace.
        claim: String,
    },
    /// Tell its provisioner where to make one.
    Node {
        /// Name of the claim, in the pod's namespace.
        claim: String,
    },
}

/// A claim that waits for its first consumer.
enum Delayed<'a> {
    /// A volume will be made for it.
    Made(&'a Claim),
    /// It needs a volume that is there.
    Found(&'a Claim),
}

/// What the pod's volumes demand. `taken` tells who else uses a claim.
pub(super) fn of(pod: &Pod, storage: &Storage, taken: &dyn Fn(&str, &str) -> Option<String>) -> Result<Demands, Refusal> {
    let mut demands = Demands::default();
    let mut found = Vec::new();
    for claim in claims(pod, storage)? {
        if let Some(other) = one_pod(claim).then(|| taken(namespace(claim), name(claim))).flatten() {
            let what = format!("claim {} allows one pod at a time, and {other} uses it", name(claim));
            return Err(Refusal::Waits(what));
        }
        match state(claim, storage)? {
            State::Bound(volume) => bound(volume, storage, &mut demands)?,
            State::Delayed(Delayed::Found(claim)) => found.push(claim),
            State::Delayed(Delayed::Made(claim)) => made(claim, storage, &mut demands),
        }
    }
    if !found.is_empty() {
        demands.groups.extend(places(&found, storage)?);
    }
    Ok(demands)
}

/// What to do about the pod's claims now that it goes to `node`, which has `labels`; nothing if all of them are bound.
///
/// # Errors
/// If no volume is left there for a claim: somebody else was faster, so the pod has to be placed anew.
pub fn choose(pod: &Pod, node: &str, labels: &BTreeMap<String, String>, storage: &Storage) -> Result<Vec<Prebind>, Refusal> {
    let mut found = Vec::new();
    let mut chosen = Vec::new();
    for claim in claims(pod, storage)? {
        match state(claim, storage)? {
            State::Bound(_) => {}
            State::Delayed(Delayed::Found(claim)) => found.push(claim),
            State::Delayed(Delayed::Made(claim)) => chosen.push(Prebind::Node { claim: name(claim).to_owned() }),
        }
    }
    let mut reachable = Vec::new();
    for (volume_name, volume) in storage.volumes() {
        let terms = affinity(volume)?;
        if terms.is_none_or(|terms| terms.iter().any(|term| matches_term(term, node, labels))) {
            reachable.push((volume_name.as_str(), volume));
        }
    }
    let assigned = assign(&found, &reachable).ok_or_else(|| {
        Refusal::Waits(format!("node {node} has no volumes left for the claims {}", names(found.iter().map(|claim| name(claim)))))
    })?;
    let volumes =
        found.iter().zip(assigned).map(|(claim, volume)| Prebind::Volume { volume: volume.to_owned(), claim: name(claim).to_owned() });
    chosen.extend(volumes);
    Ok(chosen)
}

fn name(claim: &Claim) -> &str {
    claim.metadata.name.as_deref().unwrap_or_default()
}

fn namespace(claim: &Claim) -> &str {
    claim.metadata.namespace.as_deref().unwrap_or_default()
}

fn one_pod(claim: &Claim) -> bool {
    claim.spec.value.access_modes.iter().any(|mode| mode == ONE_POD)
}

fn annotation<'a>(claim: &'a Claim, key: &str) -> Option<&'a String> {
    claim.metadata.annotations.as_ref()?.get(key)
}

/// The claims of a pod, all of which exist and are readable.
fn claims<'a>(pod: &Pod, storage: &'a Storage) -> Result<Vec<&'a Claim>, Refusal> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut all: Vec<&Claim> = Vec::new();
    for volume in &pod.spec.value.volumes {
        refuse_inline(volume)?;
        let own = format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
        let named = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(named), _) => named.claim_name.as_str(),
            (None, Some(_)) => own.as_str(),
            (None, None) => continue,
        };
        let waits = |what: &str| Refusal::Waits(format!("claim {named} {what}"));
        let claim = storage.claim(namespace, named).ok_or_else(|| waits("does not exist"))?;
        if let Some(error) = claim.error() {
            return Err(Unsupported::new(format!("claim {named}: {error}"), "create it anew").into());
        }
        let mut owners = claim.metadata.owner_references.iter().flatten();
        let mine = owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref());
        if volume.persistent_volume_claim.is_none() && !mine {
            return Err(waits("has the name of the pod's own claim, but belongs to somebody else"));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(waits("is being deleted"));
        }
        if claim.status.value.phase == "Lost" {
            return Err(waits("has lost its volume"));
        }
        if !all.iter().any(|other| std::ptr::eq(*other, claim)) {
            all.push(claim);
        }
    }
    Ok(all)
}

/// Volumes written into the pod whose rules of sharing or attaching partita does not have.
fn refuse_inline(volume: &Volume) -> Result<(), Unsupported> {
    let kinds = [
        ("awsElasticBlockStore", &volume.aws_elastic_block_store),
        ("azureDisk", &volume.azure_disk),
        ("cinder", &volume.cinder),
        ("gcePersistentDisk", &volume.gce_persistent_disk),
        ("iscsi", &volume.iscsi),
        ("rbd", &volume.rbd),
        ("vsphereVolume", &volume.vsphere_volume),
    ];
    match kinds.into_iter().find(|kind| kind.1.is_some()) {
        Some((kind, _)) => Err(Unsupported::new(
            format!("volume {} is written into the pod as {kind}", quote(&volume.name)),
            "use a PersistentVolumeClaim",
        )),
        None => Ok(()),
    }
}

/// How far a claim is.
enum State<'a> {
    Bound(&'a PersistentVolume),
    Delayed(Delayed<'a>),
}

fn state<'a>(claim: &'a Claim, storage: &'a Storage) -> Result<State<'a>, Refusal> {
    let spec = &claim.spec.value;
    let waits = |what: String| Refusal::Waits(format!("claim {} {what}", name(claim)));
    if !spec.volume_name.is_empty() {
        if annotation(claim, BOUND).is_none() {
            return Err(waits(format!("is being bound to volume {}", spec.volume_name)));
        }
        let volume = storage
            .volume(&spec.volume_name)
            .ok_or_else(|| waits(format!("is bound to volume {}, which does not exist", spec.volume_name)))?;
        return Ok(State::Bound(volume));
    }
    let class_name = spec.storage_class_name.as_deref().unwrap_or_default();
    if class_name.is_empty() {
        return Err(waits("has no storage class and is not bound yet".into()));
    }
    let class = storage.class(class_name).ok_or_else(|| waits(format!("names storage class {class_name}, which does not exist")))?;
    if class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer") {
        return Err(waits(format!("is not bound yet, and storage class {class_name} binds at once")));
    }
    let found = class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER;
    Ok(State::Delayed(if found { Delayed::Found(claim) } else { Delayed::Made(claim) }))
}

fn attach(driver: &str, storage: &Storage, demands: &mut Demands) {
    if storage.is_limited(driver) {
        *demands.attach.entry(format!("{}{driver}", keys::ATTACH_PREFIX)).or_default() += 1;
    }
}

/// A volume that is there: where its affinity and its zone let it be reached.
fn bound(volume: &PersistentVolume, storage: &Storage, demands: &mut Demands) -> Result<(), Refusal> {
    demands.groups.extend(affinity(volume)?);
    demands.groups.extend(zone(volume));
    if let Some(csi) = &volume.spec.value.csi {
        attach(&csi.driver, storage, demands);
    }
    Ok(())
}

/// A volume that is to be made: where its class lets it be.
fn made(claim: &Claim, storage: &Storage, demands: &mut Demands) {
    if let Some(node) = annotation(claim, SELECTED_NODE) {
        demands.groups.push(vec![selector::named(vec![node.clone()])]);
    }
    let Some(class) = claim.spec.value.storage_class_name.as_ref().and_then(|class| storage.class(class)) else { return };
    if !class.allowed_topologies.is_empty() {
        demands.groups.push(class.allowed_topologies.iter().map(selector::topology_term).collect());
    }
    attach(&class.provisioner, storage, demands);
}

/// The terms of nodes from which a volume can be reached; none if that is from everywhere.
fn affinity(volume: &PersistentVolume) -> Result<Option<Vec<NodeTerm>>, Unsupported> {
    let whose = format!("volume {}", volume.metadata.name.as_deref().unwrap_or_default());
    if let Some(error) = volume.error() {
        return Err(Unsupported::new(format!("{whose}: {error}"), "create it anew"));
    }
    let Some(required) = volume.spec.value.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref()) else { return Ok(None) };
    required.node_selector_terms.iter().map(|term| selector::node_term(term, &whose)).collect::<Result<Vec<_>, _>>().map(Some)
}

/// The zones that a volume's labels name. A node that has no label of that kind at all is in no zone, and is not ruled out.
fn zone(volume: &PersistentVolume) -> Option<Vec<NodeTerm>> {
    let labels = volume.metadata.labels.as_ref()?;
    let of = |key: &str, old: &str| labels.get(key).or_else(|| labels.get(old));
    let one = |(key, old): (&str, &str)| {
        // A volume of several zones names them all.
        let values = of(key, old)?.split("__").map(str::to_owned).collect();
        Some(Requirement { key: key.into(), operator: Operator::In, values })
    };
    let inside: Vec<Requirement> = ZONE.into_iter().zip(OLD_ZONE).filter_map(one).collect();
    if inside.is_empty() {
        return None;
    }
    let absent = |key: &str| Requirement { key: key.into(), operator: Operator::DoesNotExist, values: Vec::new() };
    let outside = ZONE.into_iter().chain(OLD_ZONE).map(absent).collect();
    Some(vec![NodeTerm { labels: inside, fields: Vec::new() }, NodeTerm { labels: outside, fields: Vec::new() }])
}

/// Where there is a volume for each of `claims`: for each affinity that volumes have, whether those that have it, and those that can be
/// reached from everywhere, are enough. None if there is no need to look.
fn places(claims: &[&Claim], storage: &Storage) -> Result<Option<Vec<NodeTerm>>, Refusal> {
    let mut by_affinity: BTreeMap<Option<Vec<NodeTerm>>, Vec<(&str, &PersistentVolume)>> = BTreeMap::new();
    for (volume_name, volume) in storage.volumes() {
        if claims.iter().any(|claim| serves(volume, claim)) {
            by_affinity.entry(affinity(volume)?).or_default().push((volume_name, volume));
        }
    }
    let everywhere = by_affinity.get(&None).cloned().unwrap_or_default();
    if assign(claims, &everywhere).is_some() {
        return Ok(None);
    }
    let mut terms = Vec::new();
    for (affinity, mut volumes) in by_affinity {
        let Some(affinity) = affinity else { continue };
        volumes.extend(&everywhere);
        if assign(claims, &volumes).is_some() {
            terms.extend(affinity);
        }
    }
    if terms.is_empty() {
        let what = format!("no volume that is there would do for the claims {}", names(claims.iter().map(|claim| name(claim))));
        return Err(Refusal::Waits(what));
    }
    Ok(Some(terms))
}

/// A volume for each claim, the smallest that will do where there is a choice; none if there are not enough.
fn assign<'a>(claims: &[&Claim], volumes: &[(&'a str, &PersistentVolume)]) -> Option<Vec<&'a str>> {
    let mut volumes = volumes.to_vec();
    volumes.sort_by_key(|(name, volume)| (capacity(volume), *name));
    let mut holder: Vec<Option<usize>> = vec![None; volumes.len()];
    for claim in 0..claims.len() {
        let mut tried = vec![false; volumes.len()];
        if !give(claim, claims, &volumes, &mut holder, &mut tried) {
            return None;
        }
    }
    let of = |claim: usize| holder.iter().position(|held| *held == Some(claim)).map(|row| volumes[row].0);
    (0..claims.len()).map(of).collect()
}

/// Gives `claim` a volume, moving others where that makes one free: one augmenting path of a bipartite matching.
fn give(claim: usize, claims: &[&Claim], volumes: &[(&str, &PersistentVolume)], holder: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for row in 0..volumes.len() {
        if tried[row] || !serves(volumes[row].1, claims[claim]) {
            continue;
        }
        tried[row] = true;
        if holder[row].is_none_or(|other| give(other, claims, volumes, holder, tried)) {
            holder[row] = Some(claim);
            return true;
        }
    }
    false
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    volume.spec.value.capacity.get("storage").and_then(|text| Quantity::parse(text).ok()).unwrap_or_default()
}

/// Whether a volume that is there would do for a claim.
fn serves(volume: &PersistentVolume, claim: &Claim) -> bool {
    let (has, wants) = (&volume.spec.value, &claim.spec.value);
    if volume.metadata.deletion_timestamp.is_some() || volume.error().is_some() {
        return false;
    }
    let free = match &has.claim_ref {
        None => volume.status.value.phase == "Available",
        // Set aside for this very claim.
        Some(of) => {
            of.namespace == namespace(claim)
                && of.name == name(claim)
                && (of.uid.is_empty() || Some(&of.uid) == claim.metadata.uid.as_ref())
        }
    };
    let asked = wants.resources.requests.get("storage").map_or(Ok(Quantity::ZERO), |text| Quantity::parse(text));
    let block = |mode: &Option<String>| mode.as_deref() == Some("Block");
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    let selected = match wants.selector.as_ref().map(|of| selector::labels(of, "a claim")) {
        None => true,
        Some(Ok(all)) => all.iter().all(|one| selector::meets(one, labels.get(&one.key).map(String::as_str))),
        Some(Err(_)) => false,
    };
    free && selected
        && has.storage_class_name == wants.storage_class_name.as_deref().unwrap_or_default()
        && block(&has.volume_mode) == block(&wants.volume_mode)
        && has.volume_attributes_class_name == wants.volume_attributes_class_name
        && wants.access_modes.iter().all(|mode| has.access_modes.contains(mode))
        && asked.is_ok_and(|asked| capacity(volume) >= asked)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
