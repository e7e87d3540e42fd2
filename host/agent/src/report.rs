//! What the agent tells of its node: `GpuNode.status`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use partita_core::model::Cut;
use partita_device::{Found, Part, PartState};
use partita_kube::{
    crd::{DesiredGpu, DesiredPartition, FoundGpu, FoundPartition, GpuNodeSpec, GpuNodeStatus, PartitionState},
    translate::keys::PARTITIONING,
};

use crate::{
    offers::{Layout, Offer, Offers, What, resource_of},
    users::{Kubelet, STARTING},
    wish::{Rule, is_met, is_whole, wish},
};

/// The longest message that the API takes.
const MESSAGE_MAX: usize = 1_024;
/// The most users of one thing that are told.
const USERS_MAX: usize = 64;
/// The most partitions of a GPU that are told.
const PARTITIONS_MAX: usize = 128;
/// The most GPUs of a node.
const GPUS_MAX: u8 = 64;
/// The model of a GPU that never said it.
const UNKNOWN: &str = "unknown";

/// How the agent itself is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it works.
    pub ready: bool,
    /// In one word, for programs.
    pub reason: &'static str,
    /// What there is to say, and what to do if it does not work.
    pub message: String,
}

/// Everything that a report is made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What is on the GPUs.
    pub found: &'a [Found],
    /// The layout that was taken last.
    pub layout: Option<&'a GpuNodeSpec>,
    /// Its term and generation, or those of the one that an earlier run took.
    pub observed: (i64, i64),
    /// What the operator allows.
    pub rule: Rule,
    /// What was handed to the kubelet.
    pub offers: &'a Offers,
    /// What the kubelet says; none if it does not answer.
    pub kubelet: Option<&'a Kubelet>,
    /// The driver's version; none while there is no driver.
    pub driver: Option<&'a str>,
    /// This boot.
    pub boot_id: &'a str,
    /// How the agent is.
    pub standing: &'a Standing,
}

/// The report, when the last one was `before`. It differs from that only where something is otherwise.
#[must_use]
pub fn report(facts: &Facts<'_>, before: &GpuNodeStatus, now: Timestamp) -> GpuNodeStatus {
    let (observed_term, observed_generation) = facts.observed;
    let same_boot = before.boot_id.as_deref() == Some(facts.boot_id);
    let known: &[FoundGpu] = if same_boot { &before.gpus } else { &[] };
    let indices = indices(facts.found, known);
    let of = |one: &Found| {
        let uuid = one.gpu.info.uuid.as_str();
        Some(gpu(facts, one, *indices.get(uuid)?, known.iter().find(|gpu| gpu.uuid == uuid)))
    };
    let mut gpus: Vec<FoundGpu> = facts.found.iter().filter_map(of).collect();
    // Indices mean the same GPU until the machine is started anew: those of GPUs that vanished are not given to others.
    let gone = known.iter().filter(|gpu| !indices.contains_key(gpu.uuid.as_str()));
    gpus.extend(gone.map(|gpu| vanished(facts, gpu)).take(usize::from(GPUS_MAX).saturating_sub(indices.len())));
    gpus.sort_by_key(|gpu| gpu.index);
    GpuNodeStatus {
        observed_term,
        observed_generation,
        driver: facts.driver.map(str::to_owned),
        boot_id: Some(facts.boot_id.to_owned()),
        gpus,
        conditions: vec![condition(facts.standing, before, now)],
    }
}

/// The index of each GPU: the one that it was told with before, else the lowest that is free, in the order of the bus.
fn indices<'a>(found: &'a [Found], known: &[FoundGpu]) -> BTreeMap<&'a str, u8> {
    let mut sorted: Vec<&Found> = found.iter().collect();
    sorted.sort_by_key(|one| (&one.gpu.info.pci, one.gpu.info.index, &one.gpu.info.uuid));
    let told: BTreeMap<&str, u8> = known.iter().map(|gpu| (gpu.uuid.as_str(), gpu.index)).collect();
    let taken: BTreeSet<u8> = told.values().copied().collect();
    let mut free = (0..GPUS_MAX).filter(|index| !taken.contains(index));
    let index = |one: &'a Found| {
        let uuid = one.gpu.info.uuid.as_str();
        Some((uuid, told.get(uuid).copied().or_else(|| free.next())?))
    };
    sorted.into_iter().filter_map(index).collect()
}

/// A GPU that was told of before and is not found now.
fn vanished(facts: &Facts<'_>, gpu: &FoundGpu) -> FoundGpu {
    let why = if facts.driver.is_none() {
        "there is no driver to ask; the condition Ready says why"
    } else {
        "the driver no longer lists it; look at the kernel's log (dmesg), or restart the node"
    };
    let partitions = gpu.partitions.iter().map(|one| FoundPartition {
        state: PartitionState::Failed,
        message: "its GPU does not answer".to_owned(),
        ..one.clone()
    });
    FoundGpu { healthy: false, message: why.to_owned(), partitions: partitions.collect(), ..gpu.clone() }
}

/// What is told of a GPU; `before` is what was told of it last.
fn gpu(facts: &Facts<'_>, one: &Found, index: u8, before: Option<&FoundGpu>) -> FoundGpu {
    let info = &one.gpu.info;
    // A node that partita leaves has no layout.
    let layout = facts.layout.filter(|_| facts.rule != Rule::Off);
    let desired = layout.and_then(|layout| Layout::Some(layout).gpu(&info.uuid));
    let refused = desired.and_then(|desired| forbidden(facts, one, desired));
    let mut partitions: Vec<FoundPartition> = one.parts.iter().filter_map(|part| partition(facts, one, part, desired)).collect();
    partitions.extend(shares(facts, one, desired));
    partitions.truncate(PARTITIONS_MAX);
    let said = one.unusable.iter().chain(&one.notes).chain(&refused).cloned().collect::<Vec<_>>().join("; ");
    let named: BTreeSet<&String> = partitions.iter().flat_map(|one| &one.users).collect();
    let users = told(one.users.iter().filter(|user| one.gpu.is_cut() || !named.contains(user)));
    // One that never answered since this program started may have answered an earlier run.
    let silent = one.gpu.model.name.is_empty();
    let (model, memory_mib) = match before {
        Some(before) if silent => (before.model.clone(), before.memory_mib),
        _ if silent => (UNKNOWN.to_owned(), 0),
        _ => (one.gpu.model.name.clone(), info.memory_mib),
    };
    FoundGpu {
        uuid: info.uuid.clone(),
        index,
        model,
        memory_mib,
        cut: one.cut(),
        healthy: one.unusable.is_none(),
        message: short(&said),
        users,
        partitions,
        grid: one.gpu.table.from_driver.then(|| one.gpu.table.grid.clone()).flatten(),
    }
}

/// Why the operator does not let a GPU become what the layout wants, if it is not so already.
fn forbidden(facts: &Facts<'_>, one: &Found, desired: &DesiredGpu) -> Option<String> {
    let rule = facts.rule;
    let in_turn = desired.cut == Cut::Shares && !desired.partitions.iter().all(is_whole);
    if rule.allows(desired) || !in_turn && is_met(&wish(facts.layout?, desired), one) {
        return None;
    }
    let (by, value) = match desired.cut {
        Cut::Mig => ("cut by MIG", "mig"),
        Cut::Mps => ("shared by MPS", "mps"),
        Cut::Shares if in_turn => ("shared in turn", "time-slicing"),
        Cut::Shares => ("used whole", "auto"),
    };
    let or = if value == "auto" { String::new() } else { format!(" {value} or") };
    Some(format!("the layout wants it {by}, which the node's label {PARTITIONING} does not allow: make it{or} auto"))
}

/// A partition as it is told; none of what is in no grid, which takes part in nothing.
fn partition(facts: &Facts<'_>, one: &Found, part: &Part, desired: Option<&DesiredGpu>) -> Option<FoundPartition> {
    let spec = part.spec.as_ref()?;
    let is_it = |other: &&DesiredPartition| other.profile.as_ref() == Some(&spec.profile) && other.start == Some(spec.start);
    let wish = desired.and_then(|gpu| gpu.partitions.iter().find(is_it));
    let leaves = facts.rule == Rule::Off;
    let wanted = !leaves && (desired.is_none() || wish.is_some());
    let uuid = part.uuid.clone().unwrap_or_default();
    let offer = facts.offers.all().find(|offer| offer.id == uuid && offer.gpu == one.gpu.info.uuid);
    let resource = offer.map(|offer| offer.resource.clone()).or_else(|| wish.and_then(resource_of));
    let (state, message) = match &part.state {
        PartState::Failed(problem) => (PartitionState::Failed, problem.to_string()),
        PartState::Kept(problem) if wanted && !part.is_usable() => (PartitionState::Failed, problem.to_string()),
        _ if leaves && !part.ours && part.users.is_empty() => {
            (PartitionState::Creating, "it is not handed to the kubelet: who made it has it, since partita leaves the node".to_owned())
        }
        _ if leaves && !part.ours => (PartitionState::Ready, String::new()),
        _ if wanted && !part.users.is_empty() => (PartitionState::Ready, String::new()),
        PartState::Kept(_) | PartState::Ready if wanted => at_the_kubelet(facts, offer, resource.as_deref(), &uuid),
        PartState::Kept(problem) => (PartitionState::Destroying, problem.to_string()),
        PartState::Ready => (PartitionState::Destroying, "the kubelet still has it".to_owned()),
    };
    Some(FoundPartition {
        profile: Some(spec.profile.clone()),
        start: Some(spec.start),
        uuid,
        state,
        message: short(&message),
        users: told(&part.users),
        resource,
        ..FoundPartition::default()
    })
}

/// Whether the kubelet could give a device away.
fn at_the_kubelet(facts: &Facts<'_>, offer: Option<&Offer>, resource: Option<&str>, id: &str) -> (PartitionState, String) {
    let waits = resource.is_some_and(|resource| facts.offers.waits(resource, id));
    let why = match (offer, facts.kubelet) {
        (Some(offer), Some(kubelet)) if offer.used || kubelet.holds(&offer.resource, &offer.id) => {
            return (PartitionState::Ready, String::new());
        }
        (_, None) => "the kubelet does not answer",
        (Some(_), _) => "the kubelet does not have it yet",
        (None, _) if waits => "it is handed to the kubelet when the pods before it have what they asked for under the same name",
        (None, _) => "it is not handed to the kubelet",
    };
    (PartitionState::Creating, why.to_owned())
}

/// The shares of a GPU that is not cut by MIG, or the whole: those that the kubelet was handed, and those that cannot be.
fn shares(facts: &Facts<'_>, one: &Found, desired: Option<&DesiredGpu>) -> Vec<FoundPartition> {
    let uuid = &one.gpu.info.uuid;
    let offered = facts.offers.all().filter(|offer| offer.gpu == *uuid);
    let mut shares: Vec<FoundPartition> = offered.filter_map(|offer| share(facts, offer)).collect();
    // What a layout has beyond that, by kind.
    let mut missing: Vec<FoundPartition> = Vec::new();
    let mut there: Vec<(Option<u32>, Option<u32>)> = shares.iter().map(|share| (share.memory_mib, share.milli)).collect();
    for want in desired.filter(|gpu| gpu.cut != Cut::Mig).into_iter().flat_map(|gpu| &gpu.partitions) {
        let kind = (want.memory_mib, want.milli);
        if let Some(row) = there.iter().position(|other| *other == kind) {
            there.swap_remove(row);
            continue;
        }
        let (state, message) = why_not(facts, one, want);
        let (memory_mib, milli) = kind;
        missing.push(FoundPartition { memory_mib, milli, resource: resource_of(want), state, message, ..FoundPartition::default() });
    }
    shares.extend(missing);
    shares
}

fn share(facts: &Facts<'_>, offer: &Offer) -> Option<FoundPartition> {
    let (memory_mib, milli) = match offer.what {
        What::Mig { .. } => return None,
        What::Whole => (None, Some(1000)),
        What::Mps { memory_mib } => (Some(memory_mib), None),
        What::Time { milli } => (None, Some(milli)),
    };
    let (state, message) = at_the_kubelet(facts, Some(offer), Some(&offer.resource), &offer.id);
    let users = facts.kubelet.map(|kubelet| kubelet.users(&offer.id)).unwrap_or_default();
    let resource = Some(offer.resource.clone());
    let uuid = offer.id.clone();
    Some(FoundPartition { memory_mib, milli, uuid, state, message, users: told(&users), resource, ..FoundPartition::default() })
}

/// Why a share that is wanted is not offered.
fn why_not(facts: &Facts<'_>, one: &Found, want: &DesiredPartition) -> (PartitionState, String) {
    let resource = resource_of(want).unwrap_or_default();
    let waits = facts.offers.waiting(&resource, &one.gpu.info.uuid);
    let in_the_way = one.parts.iter().filter(|part| part.instance.is_some()).map(|part| match &part.state {
        PartState::Kept(problem) => problem.to_string(),
        _ => "its partitions are still there".to_owned(),
    });
    if let (Some(_), Some(PartState::Failed(problem) | PartState::Kept(problem))) =
        (want.memory_mib, one.sharing.as_ref().map(|sharing| &sharing.state))
    {
        return (PartitionState::Failed, short(&problem.to_string()));
    }
    match in_the_way.chain(one.notes.iter().cloned()).next() {
        _ if waits => {
            let why = "it is handed to the kubelet when the pods before it have what they asked for under the same name";
            (PartitionState::Creating, why.to_owned())
        }
        None if one.users.is_empty() => (PartitionState::Creating, String::new()),
        None => (PartitionState::Creating, short(&format!("the GPU is used by {}", one.users.join(", ")))),
        Some(why) => (PartitionState::Creating, short(&why)),
    }
}

/// Users as they are told: names only, and not endlessly many.
fn told<'a>(users: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    users.into_iter().filter(|user| *user != STARTING).take(USERS_MAX).cloned().collect()
}

fn condition(standing: &Standing, before: &GpuNodeStatus, now: Timestamp) -> Condition {
    let status = if standing.ready { "True" } else { "False" };
    let same = before.conditions.iter().find(|one| one.type_ == "Ready" && one.status == status);
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: standing.reason.to_owned(),
        message: short(&standing.message),
        last_transition_time: same.map_or(Time(now), |one| one.last_transition_time.clone()),
        observed_generation: None,
    }
}

/// As much of a text as the API takes.
fn short(text: &str) -> String {
    let end = text.char_indices().map(|(at, letter)| at + letter.len_utf8()).take_while(|&end| end <= MESSAGE_MAX).last().unwrap_or(0);
    text[..end].to_owned()
}
