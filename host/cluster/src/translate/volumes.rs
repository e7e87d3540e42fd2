//! The volumes of a pod: from which nodes they can be reached, and which are still to be chosen.
//!
//! A claim that is bound has a volume, and that says from where it can be reached. One that waits for its first consumer has none yet:
//! where one can be made, or where one lies that would do ([`there`]), decides on which nodes the pod may run, and after the decision the
//! volume is chosen ([`choose`]). The rules are those of kube-scheduler's plugins `VolumeBinding`, `VolumeZone`, `VolumeRestrictions` and
//! `NodeVolumeLimits`; a volume that several pods of a node share is counted once for each, which errs on the side of the limit.

use std::collections::BTreeMap;

use partita_core::model::constraints::{NodeTerm, Operator, Requirement};

use super::{Refusal, Storage, Unsupported, keys, matches_term, names, quote, selector, there};
use crate::objects::{Claim, PersistentVolume, Pod, StorageClass, Volume};

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

/// What the pod's volumes demand. `taken` tells who else uses a claim.
pub(super) fn of(pod: &Pod, storage: &Storage, taken: &Taken<'_>) -> Result<Demands, Refusal> {
    let mut demands = Demands::default();
    let mut unbound = Vec::new();
    for (claim, own) in claims(pod, storage)? {
        alone(claim, own, taken)?;
        match state(claim, storage)? {
            State::Bound(volume) => bound(volume, own, storage, &mut demands)?,
            State::Selected(node, class) => {
                demands.groups.push(vec![selector::named(vec![node.to_owned()])]);
                demands.groups.extend(topologies(class));
                attach(&class.provisioner, storage, &mut demands);
            }
            State::Delayed(class) => {
                if makes(class) {
                    attach(&class.provisioner, storage, &mut demands);
                }
                unbound.push((claim, class));
            }
        }
    }
    for (class, claims) in by_class(unbound) {
        demands.groups.extend(places(class, &claims, storage)?);
    }
    Ok(demands)
}

/// Where there is a volume for each of `claims`, which are of one class, or where one can be made for those that find none. None if that
/// is everywhere.
fn places(class: &StorageClass, claims: &[&Claim], storage: &Storage) -> Result<Option<Vec<NodeTerm>>, Refusal> {
    let Some(mut terms) = there::places(claims, storage)? else { return Ok(None) };
    if makes(class) {
        let Some(made) = topologies(class) else { return Ok(None) };
        terms.extend(made);
    } else if terms.is_empty() {
        let what = format!("no volume that is there would do for the claims {}", names(claims.iter().map(|claim| name(claim))));
        return Err(Refusal::Waits(what));
    }
    Ok(Some(terms))
}

/// Claims by their class, in the order of the first.
fn by_class<'a>(unbound: Vec<(&'a Claim, &'a StorageClass)>) -> Vec<(&'a StorageClass, Vec<&'a Claim>)> {
    let mut all: Vec<(&StorageClass, Vec<&Claim>)> = Vec::new();
    for (claim, class) in unbound {
        match all.iter_mut().find(|(other, _)| other.metadata.name == class.metadata.name) {
            Some((_, claims)) => claims.push(claim),
            None => all.push((class, vec![claim])),
        }
    }
    all
}

/// Who else uses a claim, by its namespace and name.
pub type Taken<'a> = dyn Fn(&str, &str) -> Option<String> + 'a;

/// What to do about the pod's claims now that it goes to `node`, which has `labels`; nothing if all of them are bound.
///
/// # Errors
/// If a claim cannot be had there: somebody else was faster, so the pod has to be placed anew.
pub fn choose(
    pod: &Pod,
    (node, labels): (&str, &BTreeMap<String, String>),
    storage: &Storage,
    taken: &Taken<'_>,
) -> Result<Vec<Prebind>, Refusal> {
    let (mut chosen, mut unbound) = (Vec::new(), Vec::new());
    for (claim, own) in claims(pod, storage)? {
        alone(claim, own, taken)?;
        match state(claim, storage)? {
            State::Bound(_) => {}
            State::Selected(other, _) if other != node => {
                return Err(Refusal::Waits(format!("the volume of claim {} is being made for node {other}", name(claim))));
            }
            State::Selected(..) => chosen.push(Prebind::Node { claim: name(claim).to_owned() }),
            State::Delayed(class) => unbound.push((claim, class)),
        }
    }
    for (class, claims) in by_class(unbound) {
        for (claim, volume) in claims.iter().zip(there::on_node(&claims, storage, node, labels)) {
            let claim = name(claim).to_owned();
            chosen.push(match volume {
                Some(volume) => Prebind::Volume { volume: volume.to_owned(), claim },
                None if makes(class) && made_for(class, node, labels) => Prebind::Node { claim },
                None => return Err(Refusal::Waits(format!("node {node} has no volume left for the claim {claim}"))),
            });
        }
    }
    Ok(chosen)
}

/// Whether volumes of the class can be made for a node of this name and with these labels.
fn made_for(class: &StorageClass, node: &str, labels: &BTreeMap<String, String>) -> bool {
    topologies(class).is_none_or(|terms| terms.iter().any(|term| matches_term(term, node, labels)))
}

fn name(claim: &Claim) -> &str {
    claim.metadata.name.as_deref().unwrap_or_default()
}

fn namespace(claim: &Claim) -> &str {
    claim.metadata.namespace.as_deref().unwrap_or_default()
}

/// That nobody else uses a claim that allows one pod at a time. As in kube-scheduler nobody looks at one that was made for the pod alone.
fn alone(claim: &Claim, own: bool, taken: &Taken<'_>) -> Result<(), Refusal> {
    let one_pod = claim.spec.value.access_modes.iter().any(|mode| mode == ONE_POD);
    match taken(namespace(claim), name(claim)).filter(|_| one_pod && !own) {
        Some(other) => Err(Refusal::Waits(format!("claim {} allows one pod at a time, and {other} uses it", name(claim)))),
        None => Ok(()),
    }
}

fn annotation<'a>(claim: &'a Claim, key: &str) -> Option<&'a String> {
    claim.metadata.annotations.as_ref()?.get(key)
}

/// The claims of a pod, all of which exist and are readable, each once; and whether they were made for the pod alone.
fn claims<'a>(pod: &Pod, storage: &'a Storage) -> Result<Vec<(&'a Claim, bool)>, Refusal> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut all: Vec<(&Claim, bool)> = Vec::new();
    for volume in &pod.spec.value.volumes {
        refuse_inline(volume)?;
        let generated = format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
        let named = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(named), _) => named.claim_name.as_str(),
            (None, Some(_)) => generated.as_str(),
            (None, None) => continue,
        };
        let waits = |what: &str| Refusal::Waits(format!("claim {named} {what}"));
        let claim = storage.claim(namespace, named).ok_or_else(|| waits("does not exist"))?;
        if let Some(error) = claim.error() {
            return Err(Unsupported::new(format!("claim {named}: {error}"), "create it anew").into());
        }
        let own = volume.persistent_volume_claim.is_none();
        let mut owners = claim.metadata.owner_references.iter().flatten();
        let mine = owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref());
        if own && !mine {
            return Err(waits("has the name of the pod's own claim, but belongs to somebody else"));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(waits("is being deleted"));
        }
        if claim.status.value.phase == "Lost" {
            return Err(waits("has lost its volume"));
        }
        if !all.iter().any(|(other, _)| std::ptr::eq(*other, claim)) {
            all.push((claim, own));
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
    /// A volume is being made for it, which this node is to reach.
    Selected(&'a str, &'a StorageClass),
    /// It waits for its first pod.
    Delayed(&'a StorageClass),
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
    let class_name = there::class_of(claim);
    if class_name.is_empty() {
        return Err(waits("has no storage class and is not bound yet".into()));
    }
    let class = storage.class(class_name).ok_or_else(|| waits(format!("names storage class {class_name}, which does not exist")))?;
    if class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer") {
        return Err(waits(format!("is not bound yet, and storage class {class_name} binds at once")));
    }
    match annotation(claim, SELECTED_NODE).map(String::as_str).or_else(|| storage.selected(claim)) {
        None => Ok(State::Delayed(class)),
        Some(node) if makes(class) => Ok(State::Selected(node, class)),
        Some(node) => {
            Err(waits(format!("is to have a volume made that node {node} reaches, but storage class {class_name} has no provisioner")))
        }
    }
}

/// Whether volumes of the class are made when somebody asks.
fn makes(class: &StorageClass) -> bool {
    !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER
}

/// Where volumes of the class can be made; none if that is everywhere.
fn topologies(class: &StorageClass) -> Option<Vec<NodeTerm>> {
    let terms = &class.allowed_topologies;
    (!terms.is_empty()).then(|| terms.iter().map(selector::topology_term).collect())
}

fn attach(driver: &str, storage: &Storage, demands: &mut Demands) {
    if storage.is_limited(driver) {
        *demands.attach.entry(format!("{}{driver}", keys::ATTACH_PREFIX)).or_default() += 1;
    }
}

/// A volume that a claim has: where its affinity lets it be reached, and its zone, at which nobody looks if the claim is the pod's `own`.
fn bound(volume: &PersistentVolume, own: bool, storage: &Storage, demands: &mut Demands) -> Result<(), Refusal> {
    demands.groups.extend(there::affinity(volume)?);
    if !own {
        demands.groups.extend(zones(volume));
    }
    if let Some(csi) = &volume.spec.value.csi {
        attach(&csi.driver, storage, demands);
    }
    Ok(())
}

/// What the zones and regions that a volume's labels name demand, a group for each label. A node that has no label of that kind at all is
/// in no zone, and is not ruled out. One that has no label of the old name is asked for the new.
fn zones(volume: &PersistentVolume) -> impl Iterator<Item = Vec<NodeTerm>> {
    let absent = |key: &str| Requirement { key: key.into(), operator: Operator::DoesNotExist, values: Vec::new() };
    let one = move |key: &'static str, new: &'static str| {
        // A volume of several zones names them all.
        let values: Vec<String> = volume.metadata.labels.as_ref()?.get(key)?.split("__").map(str::to_owned).collect();
        if values.iter().any(String::is_empty) {
            return None;
        }
        let inside = |key: &str| Requirement { key: key.into(), operator: Operator::In, values: values.clone() };
        let outside = ZONE.into_iter().chain(OLD_ZONE).map(absent).collect();
        let mut terms = vec![vec![inside(key)], outside];
        if key != new {
            terms.push(vec![absent(key), inside(new)]);
        }
        Some(terms.into_iter().map(|labels| NodeTerm { labels, fields: Vec::new() }).collect())
    };
    ZONE.into_iter().zip(ZONE).chain(OLD_ZONE.into_iter().zip(ZONE)).filter_map(move |(key, new)| one(key, new))
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
