//! Pods.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use partita_core::model::{Constraints, Demand, GpuAsk, PodSpec, Terms};

use super::{
    Budgets, Refusal, Storage, Unsupported, constraints, gpu, keys, names, quote,
    requests::{self, Asked},
    volumes::{self, Taken},
};
use crate::{
    objects::Pod,
    quantity::{Quantity, Round},
};

/// The core's name of the place that every pod takes on its node.
const PODS: &str = "pods";

/// What else is known when a pod is translated.
pub struct Scene<'a> {
    /// Volumes and claims.
    pub storage: &'a Storage,
    /// Disruption budgets.
    pub budgets: &'a Budgets,
    /// Which other pod uses a claim, by its namespace and name: for claims that allow one pod at a time.
    pub taken: &'a Taken<'a>,
}

/// The longest time that a pod may be promised to run undisturbed, milliseconds: the annotation is its owner's to write, and while it lasts no
/// priority takes the pod's place.
const MIN_RUNTIME_MAX_MS: u64 = 24 * 3_600_000;

/// A pod that waits for a node.
///
/// # Errors
/// If partita does not do what it asks, or if it waits for something else.
pub fn pending(pod: &Pod, scene: &Scene<'_>) -> Result<PodSpec, Refusal> {
    if let Some(error) = pod.error() {
        return Err(Unsupported::new(error, "update partita, or create the pod anew").into());
    }
    let spec = &pod.spec.value;
    refuse(pod)?;
    if !spec.scheduling_gates.is_empty() {
        let gates = names(spec.scheduling_gates.iter().map(|gate| gate.name.as_str()));
        return Err(Refusal::Waits(format!("its scheduling gates {gates} are not removed yet")));
    }
    let mut demand = demand(pod, false)?;
    let mut constraints = constraints::of(pod)?;
    let volumes = volumes::of(pod, scene.storage, scene.taken)?;
    constraints.volumes.extend(volumes.groups);
    demand.extra.extend(volumes.attach);
    demand.constraints = Some(Box::new(constraints));
    let terms = terms(pod, scene.budgets)?;
    Ok(finish(pod, gpu::validated(demand)?, terms))
}

/// A pod that has a node, whoever gave it one, with what of it is not understood. It is booked with what is, and not moved if anything is
/// not.
#[must_use]
pub fn running(pod: &Pod, scene: &Scene<'_>) -> (PodSpec, Vec<Refusal>) {
    let mut odd: Vec<Refusal> =
        pod.error().map(|error| Unsupported::new(error, "update partita, or create the pod anew").into()).into_iter().collect();
    odd.extend(refuse(pod).err().map(Refusal::from));
    let mut demand = demand(pod, true).unwrap_or_else(|error| {
        odd.push(error.into());
        amounts_only(pod)
    });
    let mut constraints = constraints::of(pod).unwrap_or_else(|error| {
        odd.push(error.into());
        Constraints::default()
    });
    // It has its volumes already; they matter for where else it could go.
    match volumes::of(pod, scene.storage, &|_, _| None) {
        Ok(volumes) => {
            constraints.volumes.extend(volumes.groups);
            demand.extra.extend(volumes.attach);
        }
        Err(refusal) => odd.push(refusal),
    }
    demand.constraints = Some(Box::new(constraints));
    let mut terms = terms(pod, scene.budgets).unwrap_or_else(|error| {
        odd.push(error.into());
        Terms { budgets: budgets(pod, scene.budgets), ..Terms::default() }
    });
    terms.restartable &= odd.is_empty();
    let demand = demand.clone().validated().unwrap_or_else(|error| {
        odd.push(Unsupported::new(format!("it {error}"), "change what it asks for").into());
        Demand { gpu: GpuAsk::None, models: Vec::new(), ..demand }
    });
    (finish(pod, demand, terms), odd)
}

/// The resources by which a pod asks for GPUs and parts of them, as its spec spells them, and how many of each.
#[must_use]
pub fn resources(pod: &Pod) -> Vec<(String, u32)> {
    requests::requests(pod, false).map(|asked| gpu::resources(&asked)).unwrap_or_default()
}

fn finish(pod: &Pod, demand: Demand, terms: Terms) -> PodSpec {
    let meta = &pod.metadata;
    PodSpec {
        name: meta.name.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        priority: pod.spec.value.priority.unwrap_or(0),
        demand,
        terms,
        labels: meta.labels.clone().unwrap_or_default(),
    }
}

/// What a whole pod can ask for that partita does not do.
fn refuse(pod: &Pod) -> Result<(), Unsupported> {
    let spec = &pod.spec.value;
    if !spec.resource_claims.is_empty() {
        let claims = names(spec.resource_claims.iter().map(|claim| claim.name.as_str()));
        let remedy = format!("ask for GPUs by a resource such as {}, or let another scheduler place the pod", keys::WHOLE_GPU);
        return Err(Unsupported::new(format!("it asks for devices by resource claims ({claims})"), remedy));
    }
    if spec.scheduling_group.is_some() || spec.workload_ref.is_some() {
        return Err(Unsupported::new(
            "it wants to be scheduled together with a group",
            "take out spec.schedulingGroup, or let another scheduler place the pod",
        ));
    }
    Ok(())
}

fn annotations(pod: &Pod) -> BTreeMap<String, String> {
    pod.metadata.annotations.clone().unwrap_or_default()
}

/// What it asks for, where it may run aside.
fn demand(pod: &Pod, actual: bool) -> Result<Demand, Unsupported> {
    let mut asked = requests::requests(pod, actual)?;
    let (gpu, models) = gpu::take(&mut asked, &annotations(pod))?;
    Ok(Demand { gpu, models, ..amounts(asked)? })
}

fn amounts(mut asked: Asked) -> Result<Demand, Unsupported> {
    let too_much =
        |name: &str, amount: Quantity| Unsupported::new(format!("it asks for {amount} of {name}, more than any node has"), "ask for less");
    let cpu = asked.remove("cpu").unwrap_or_default();
    let memory = asked.remove("memory").unwrap_or_default();
    let small = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok());
    let cpu_milli = small(cpu.milli(Round::Up)).ok_or_else(|| too_much("cpu", cpu))?;
    let memory_mib = small(memory.mib(Round::Up)).ok_or_else(|| too_much("memory", memory))?;
    asked.insert(PODS.into(), Quantity::units(1));
    let extra = asked.into_iter().map(|(name, amount)| match amount.whole(Round::Up) {
        Some(whole) => Ok((name, whole)),
        None => Err(too_much(&name, amount)),
    });
    Ok(Demand { cpu_milli, memory_mib, extra: extra.collect::<Result<_, _>>()?, ..Demand::default() })
}

/// What a pod that runs takes beside GPUs, where the rest is not understood.
fn amounts_only(pod: &Pod) -> Demand {
    let mut asked = requests::requests(pod, true).unwrap_or_default();
    asked.retain(|name, _| !gpu::is_gpu(name));
    amounts(asked).unwrap_or_else(|_| Demand { extra: vec![(PODS.into(), 1)], ..Demand::default() })
}

fn budgets(pod: &Pod, known: &Budgets) -> Vec<String> {
    known.of(pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
}

fn terms(pod: &Pod, known: &Budgets) -> Result<Terms, Unsupported> {
    let annotations = annotations(pod);
    let wrong = |key: &str, text: &str, remedy: &str| Unsupported::new(format!("its annotation {key} is {}", quote(text)), remedy);
    let restartable = match annotations.get(keys::RESTARTABLE).map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(wrong(keys::RESTARTABLE, other, "write true or false")),
    };
    let min_runtime_ms = match annotations.get(keys::MIN_RUNTIME) {
        None => 0,
        Some(text) => {
            let duration = text.parse::<SignedDuration>().ok();
            let millis = duration.and_then(|duration| u64::try_from(duration.as_millis()).ok());
            let millis = millis.ok_or_else(|| wrong(keys::MIN_RUNTIME, text, "write a duration like 90s or 1h30m"))?;
            if millis > MIN_RUNTIME_MAX_MS {
                return Err(wrong(keys::MIN_RUNTIME, text, "write 24h or less"));
            }
            millis
        }
    };
    let never_preempts = match pod.spec.value.preemption_policy.as_deref() {
        None | Some("PreemptLowerPriority") => false,
        Some("Never") => true,
        Some(other) => {
            return Err(Unsupported::new(format!("its preemptionPolicy is {}", quote(other)), "use PreemptLowerPriority or Never"));
        }
    };
    Ok(Terms { restartable, min_runtime_ms, budgets: budgets(pod, known), never_preempts })
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
