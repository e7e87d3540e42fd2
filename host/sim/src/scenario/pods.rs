//! Pods of a scenario, and how they ask for GPUs.

use partita_core::{
    model::{Demand, DemandError, GpuAsk, Isolation, MILLI, PodSpec, Terms, node::GPUS_MAX},
    state::Use,
};

use super::{
    DEFAULT_NAMESPACE,
    keys::{Keys, Value},
    nodes::Taken,
};
use crate::{amount, ask, error::Fault, models::Placed};

/// What a pod asks for that does not say: one core and a GiB.
const CPU_MILLI: u32 = 1000;
const MEMORY_MIB: u32 = 1024;

/// A pod as the file has it.
pub(super) struct Entry<'t, 'i> {
    /// Without its ask if that is to be what it uses.
    pub(super) spec: PodSpec,
    /// The node where it is said to run.
    pub(super) on: Option<Value<'t, 'i>>,
    /// Whether it says what it asks for.
    pub(super) asks: bool,
    pub(super) keys: Keys<'t, 'i>,
}

/// One `[[pod]]`.
pub(super) fn pod<'t, 'i>(mut keys: Keys<'t, 'i>, known: &[(String, u32)]) -> Result<Entry<'t, 'i>, Placed> {
    let name = |text: &str| amount::name(text).map(str::to_owned);
    let pod_name = keys.value("name")?.read(name)?;
    let namespace = keys.read("namespace", name)?.unwrap_or_else(|| DEFAULT_NAMESPACE.into());
    let priority = keys.read("priority", |text| amount::signed(text, "priority"))?.unwrap_or(0);
    let cpu_milli = keys.read("cpu", amount::cpu_milli)?.unwrap_or(CPU_MILLI);
    let memory_mib = keys.read("memory", ask::memory)?.unwrap_or(MEMORY_MIB);
    let gpu = gpu(&mut keys)?;
    let texts = |values: Vec<Value<'_, '_>>| values.iter().map(|one| one.text().map(str::to_owned)).collect::<Result<Vec<_>, _>>();
    let models = texts(keys.names("models")?)?;
    let counted = keys.names("budgets")?;
    counted.iter().try_for_each(|value| value.read(|text| budget(text, known)))?;
    let mut budgets = texts(counted)?;
    budgets.sort_unstable();
    budgets.dedup();
    let terms = Terms {
        restartable: keys.flag("restartable")?,
        min_runtime_ms: keys.read("min-runtime", amount::seconds_ms)?.unwrap_or(0),
        budgets,
        never_preempts: keys.flag("never-preempts")?,
    };
    let on = keys.maybe("on");
    let asks = gpu.is_some();
    let demand = Demand { cpu_milli, memory_mib, gpu: gpu.unwrap_or(GpuAsk::None), models, ..Demand::default() };
    Ok(Entry { spec: PodSpec { name: pod_name, namespace, priority, demand, terms, ..PodSpec::default() }, on, asks, keys })
}

impl Entry<'_, '_> {
    /// The pod with its demand checked; `uses` is what it uses where it runs.
    pub(super) fn checked(self, uses: &[&Taken]) -> Result<PodSpec, Placed> {
        let mut spec = self.spec;
        let (name, span) = (spec.name.clone(), self.keys.span.clone());
        let fault = |fault: Fault| (fault.value(&name).column("pod"), span.clone());
        if !self.asks {
            spec.demand.gpu = ask_of(uses).map_err(fault)?;
        }
        let wrong = |error: DemandError| fault(Fault::new(error.to_string(), "correct what it asks for"));
        spec.demand = spec.demand.validated().map_err(wrong)?;
        self.keys.finish(&[ask::VENDOR])?;
        Ok(spec)
    }
}

/// Refuses the name of a budget that nobody described.
pub(super) fn budget(name: &str, known: &[(String, u32)]) -> Result<(), Fault> {
    if known.iter().any(|budget| budget.0 == name) {
        return Ok(());
    }
    Err(Fault::new("is a disruption budget that nobody described", "add a [[budget]] of that name").value(name))
}

/// The one way in which a pod asks for GPUs, if it does.
fn gpu<'t>(keys: &mut Keys<'t, '_>) -> Result<Option<GpuAsk>, Placed> {
    let mut asks: Vec<(&'t str, GpuAsk)> = Vec::new();
    let (count, share) = (keys.maybe("gpu"), keys.maybe("share"));
    if let Some(value) = share.as_ref().or(count.as_ref()) {
        let milli = share.as_ref().map_or(Ok(MILLI), |value| value.read(|text| amount::count32(text, MILLI, "milli-GPU")))?;
        let count = count.as_ref().map_or(Ok(1), |value| value.read(|text| amount::count32(text, GPUS_MAX, "GPUs")))?;
        asks.push((value.key(), GpuAsk::Share { count, milli }));
    }
    if let Some(value) = keys.maybe("mig") {
        asks.push((value.key(), GpuAsk::Mig { partitions: value.read(ask::partitions)? }));
    }
    if let Some(value) = keys.maybe("mps") {
        asks.push((value.key(), GpuAsk::Mps { memory_mib: value.read(ask::memory)? }));
    }
    if let Some(value) = keys.maybe("part") {
        asks.push((value.key(), part(value.table("part")?)?));
    }
    for value in keys.beginning(ask::VENDOR) {
        let count = value.read(|text| amount::count32(text, u32::MAX, "things"))?;
        let ask = ask::resource(value.key(), count).map_err(|fault| value.blame(fault))?;
        match (&ask, asks.last_mut()) {
            // Partitions of several profiles are several resources.
            (GpuAsk::Mig { partitions }, Some((_, GpuAsk::Mig { partitions: others }))) => others.extend(partitions.iter().cloned()),
            _ => asks.push((value.key(), ask)),
        }
    }
    if let [first, second, ..] = asks.as_slice() {
        let remedy = "ask in one way: gpu, share, mig, mps, part, or resources of one kind";
        return Err((Fault::new(format!("is asked for beside {}", first.0), remedy).value(second.0), keys.span.clone()));
    }
    Ok(asks.pop().map(|ask| ask.1))
}

/// `part = { memory = "10Gi", compute = 30, isolation = "memory" }`
fn part(mut keys: Keys<'_, '_>) -> Result<GpuAsk, Placed> {
    let memory_mib = keys.value("memory")?.read(ask::memory)?;
    let compute = keys.read("compute", ask::percent)?.unwrap_or(0);
    let isolation = keys.read("isolation", ask::isolation)?.unwrap_or(Isolation::Shared);
    keys.finish(&[])?;
    Ok(GpuAsk::Floor { memory_mib, compute, isolation })
}

/// The ask that what a pod uses answers.
fn ask_of(uses: &[&Taken]) -> Result<GpuAsk, Fault> {
    let profiles: Vec<(String, u32)> = uses.iter().filter_map(|taken| Some((taken.profile.clone()?, 1))).collect();
    if !uses.is_empty() && profiles.len() == uses.len() {
        return Ok(GpuAsk::Mig { partitions: profiles });
    }
    match uses.first().map(|taken| taken.used) {
        None => Ok(GpuAsk::None),
        Some(Use::Mps(memory_mib)) if uses.len() == 1 => Ok(GpuAsk::Mps { memory_mib }),
        Some(Use::Share(milli)) if uses.iter().all(|other| other.used == Use::Share(milli)) => {
            Ok(GpuAsk::Share { count: uses.len() as u32, milli })
        }
        Some(_) => {
            let remedy = "let it use MIG partitions, equal shares, or one share under MPS";
            Err(Fault::new("uses parts of GPUs that no pod asks for together", remedy))
        }
    }
}
