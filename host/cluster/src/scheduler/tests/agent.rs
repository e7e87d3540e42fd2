//! A node's agent in memory, with the GPUs of its node as they really are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use partita_core::model::{Cut, ProfileName, catalog};
use serde_json::json;

use super::{check, server::Server};
use crate::{
    crd::{DesiredGpu, DesiredPartition, FoundGpu, FoundPartition, GpuNodeSpec, GpuNodeStatus, PartitionState},
    objects::GpuNode,
};

/// How an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should.
    Works,
    /// Whatever it makes fails.
    Fails,
    /// It says nothing.
    Silent,
    /// It says that it has done what it did not even begin.
    Lies,
}

/// A partition as it really is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Real {
    /// Its profile and first slot, its memory under MPS, or its share.
    pub(super) profile: Option<String>,
    pub(super) start: Option<u8>,
    pub(super) memory_mib: Option<u32>,
    pub(super) milli: Option<u32>,
    /// The name under which the kubelet has it.
    pub(super) resource: String,
    pub(super) state: PartitionState,
}

impl Real {
    /// What is wanted, not begun yet.
    fn of(wanted: &DesiredPartition) -> Self {
        let usual = match (&wanted.profile, wanted.memory_mib) {
            (Some(profile), _) => ProfileName::parse(profile).unwrap().resource(),
            (None, Some(memory_mib)) => format!("nvidia.com/gpu-{}gb", memory_mib / 1024),
            (None, None) => "nvidia.com/gpu".into(),
        };
        Self {
            profile: wanted.profile.clone(),
            start: wanted.start,
            memory_mib: wanted.memory_mib,
            milli: wanted.milli,
            resource: wanted.resource.clone().unwrap_or(usual),
            state: PartitionState::Creating,
        }
    }

    fn is(&self, wanted: &DesiredPartition) -> bool {
        (&self.profile, self.start, self.memory_mib, self.milli) == (&wanted.profile, wanted.start, wanted.memory_mib, wanted.milli)
    }

    /// Whether it is offered otherwise than is wanted.
    fn is_misnamed(&self, wanted: &DesiredPartition) -> bool {
        self.is(wanted) && wanted.resource.as_ref().is_some_and(|name| *name != self.resource)
    }

    /// As a grant names it.
    pub(super) fn part(&self) -> String {
        match (&self.profile, self.start, self.memory_mib) {
            (Some(profile), Some(start), _) => format!("{profile}@{start}"),
            (_, _, Some(memory_mib)) => format!("mps/{memory_mib}"),
            _ => format!("{}m", self.milli.unwrap()),
        }
    }

    fn exists(&self) -> bool {
        self.state != PartitionState::Failed
    }
}

/// A GPU as it really is.
#[derive(Clone, Debug)]
pub(super) struct RealGpu {
    pub(super) model: String,
    pub(super) cut: Cut,
    pub(super) parts: Vec<Real>,
    pub(super) healthy: bool,
    /// It is not on the bus.
    pub(super) lost: bool,
}

/// An agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) node: String,
    pub(super) mood: Mood,
    /// Whether it says that it took a layout before it has done it.
    pub(super) eager: bool,
    pub(super) gpus: Vec<RealGpu>,
    /// What it says of itself, if anything: whether it is ready, and why.
    pub(super) says: Option<(bool, &'static str)>,
    taken: (i64, i64),
    wanted: Option<GpuNodeSpec>,
}

impl Agent {
    pub(super) fn new(node: &str, models: &[&str]) -> Self {
        let whole = || Real { state: PartitionState::Ready, ..Real::of(&whole()) };
        let gpu = |model: &&str| RealGpu { model: (*model).into(), cut: Cut::Shares, parts: vec![whole()], healthy: true, lost: false };
        let gpus = models.iter().map(gpu).collect();
        Self { node: node.into(), mood: Mood::Works, eager: false, gpus, says: None, taken: (0, 0), wanted: None }
    }

    /// Cuts a GPU by MIG, with these partitions as (profile, first slot).
    pub(super) fn cut(&mut self, gpu: usize, parts: &[(&str, u8)]) {
        let part = |&(profile, start): &(&str, u8)| {
            let wanted = DesiredPartition { profile: Some(profile.into()), start: Some(start), ..DesiredPartition::default() };
            Real { state: PartitionState::Ready, ..Real::of(&wanted) }
        };
        (self.gpus[gpu].cut, self.gpus[gpu].parts) = (Cut::Mig, parts.iter().map(part).collect());
    }

    /// Takes the layout that stands in the server, if it is not older than what it has.
    pub(super) fn look(&mut self, server: &Server) -> bool {
        let Some(object) = server.gpu_nodes.get(&self.node).filter(|_| self.mood != Mood::Silent) else { return false };
        let spec = &object.spec.value;
        let known = self.wanted.as_ref() == Some(spec);
        if known || spec.generation == 0 || (spec.term, spec.generation) < self.taken {
            return false;
        }
        self.taken = (spec.term, spec.generation);
        self.wanted = Some(spec.clone());
        // What failed before is tried again.
        self.gpus.iter_mut().for_each(|gpu| gpu.parts.retain(Real::exists));
        true
    }

    /// One step of work. Whether there was one.
    pub(super) fn work(&mut self, server: &Server) -> bool {
        if matches!(self.mood, Mood::Silent | Mood::Lies) {
            return false;
        }
        let Some(wanted) = self.wanted.clone() else { return false };
        wanted.gpus.iter().any(|gpu| self.work_on(server, gpu))
    }

    fn work_on(&mut self, server: &Server, wanted: &DesiredGpu) -> bool {
        let index = wanted.index;
        let held: Vec<String> = check::parts_on(server, &self.node, index);
        let Some(gpu) = self.gpus.get_mut(usize::from(index)).filter(|gpu| !gpu.lost) else { return false };
        // A GPU in shares that nobody has is offered whole.
        let idle = (wanted.cut == Cut::Shares && wanted.partitions.is_empty()).then(whole);
        let all: Vec<&DesiredPartition> = wanted.partitions.iter().chain(&idle).collect();
        let unused = |gpu: &RealGpu, row: usize| {
            let part = gpu.parts[row].part();
            held.iter().filter(|other| **other == part).count() < gpu.parts.iter().filter(|real| real.part() == part).count()
        };
        if let Some(row) = surplus(gpu, wanted.cut, &all).into_iter().find(|&row| server.chance.is_none() || unused(gpu, row)) {
            // What exists and shall not, and nobody uses: two steps.
            assert!(unused(gpu, row), "{}: the layout has no {} any more, which a pod uses", self.node, gpu.parts[row].part());
            if gpu.parts[row].state == PartitionState::Destroying {
                gpu.parts.remove(row);
            } else {
                gpu.parts[row].state = PartitionState::Destroying;
            }
            return true;
        }
        if gpu.cut != wanted.cut && server.chance.is_some() && !held.is_empty() {
            // Who asked did not know yet what the kubelet did.
            return refuse(gpu, &all);
        }
        if gpu.cut != wanted.cut {
            assert!(held.is_empty(), "{}: GPU {index} shall be cut another way, but {held:?} of it are in use", self.node);
            (gpu.cut, gpu.parts) = (wanted.cut, Vec::new());
            return true;
        }
        if let Some(real) = gpu.parts.iter_mut().find(|real| real.state == PartitionState::Creating) {
            real.state = if self.mood == Mood::Fails { PartitionState::Failed } else { PartitionState::Ready };
            return true;
        }
        let there = |one: &DesiredPartition| gpu.parts.iter().filter(|real| real.is(one)).count();
        let asked = |one: &DesiredPartition| all.iter().filter(|other| Real::of(other).is(one)).count();
        if let Some(one) = all.iter().find(|one| there(one) < asked(one)) {
            gpu.parts.push(Real::of(one));
            let legal = check::legal(&gpu.model, &gpu.parts);
            if server.chance.is_some() && legal.is_err() {
                gpu.parts.pop();
                return refuse(gpu, &all);
            }
            legal.unwrap();
            return true;
        }
        rename(gpu, &all, &held, server.chance.is_some())
    }

    /// What the kubelet has and no pod uses, by resource.
    pub(super) fn devices(&self, server: &Server) -> Vec<(String, (u8, String))> {
        let mut used: Vec<(u8, String)> = server.parts_on(&self.node).into_iter().map(|(_, gpu, part)| (gpu, part)).collect();
        let mut devices = Vec::new();
        for (index, gpu) in (0u8..).zip(&self.gpus) {
            for real in gpu.parts.iter().filter(|real| real.state == PartitionState::Ready) {
                match used.iter().position(|part| *part == (index, real.part())) {
                    Some(row) => drop(used.swap_remove(row)),
                    None => devices.push((real.resource.clone(), (index, real.part()))),
                }
            }
        }
        devices
    }

    /// Whether nothing is left to do.
    pub(super) fn is_done(&self, server: &Server) -> bool {
        !self.clone().work(server)
    }

    /// What it says.
    pub(super) fn status(&self, server: &Server) -> GpuNodeStatus {
        let said = server.gpu_nodes.get(&self.node).map(|object| object.status.value.clone()).unwrap_or_default();
        let done = self.eager || self.mood == Mood::Lies || self.is_done(server);
        let taken = if done { self.taken } else { (said.observed_term, said.observed_generation) };
        let gpus = (0u8..).zip(&self.gpus).filter(|(_, gpu)| !gpu.lost).map(|(index, gpu)| self.found(server, index, gpu)).collect();
        let conditions = self.says.into_iter().map(condition).collect();
        GpuNodeStatus { observed_term: taken.0, observed_generation: taken.1, gpus, conditions, ..GpuNodeStatus::default() }
    }

    fn found(&self, server: &Server, index: u8, gpu: &RealGpu) -> FoundGpu {
        let here: Vec<(String, u8, String)> =
            server.parts_on(&self.node).into_iter().filter(|(name, gpu, _)| server.started.contains(name) && *gpu == index).collect();
        // Of several alike each is somebody's own.
        let users = |row: usize| -> Vec<String> {
            let part = gpu.parts[row].part();
            let before = gpu.parts[..row].iter().filter(|real| real.part() == part).count();
            here.iter().filter(|(.., what)| *what == part).map(|(name, ..)| name.clone()).skip(before).take(1).collect()
        };
        let part = |(row, real): (usize, &Real)| FoundPartition {
            profile: real.profile.clone(),
            start: real.start,
            memory_mib: real.memory_mib,
            milli: real.milli,
            resource: Some(real.resource.clone()),
            uuid: if matches!(real.state, PartitionState::Ready | PartitionState::Destroying) {
                format!("{index}-{}", real.part())
            } else {
                String::new()
            },
            state: real.state,
            message: if real.state == PartitionState::Failed { "no such luck".into() } else { String::new() },
            users: users(row),
        };
        let memory_mib = catalog::builtin(&gpu.model).unwrap().memory_mib;
        FoundGpu {
            uuid: format!("GPU-{}-{index}", self.node),
            index,
            model: gpu.model.clone(),
            memory_mib,
            cut: gpu.cut,
            healthy: gpu.healthy,
            message: if gpu.healthy { String::new() } else { "Xid 79".into() },
            partitions: gpu.parts.iter().enumerate().map(part).collect(),
            users: Vec::new(),
            grid: None,
        }
    }

    /// Writes what it says. Whether that is something new.
    pub(super) fn report(&self, server: &mut Server) -> bool {
        if self.mood == Mood::Silent || !server.gpu_nodes.contains_key(&self.node) {
            return false;
        }
        let status = self.status(server);
        if server.gpu_nodes[&self.node].status.value == status {
            return false;
        }
        server.edit_gpu_node(&self.node, |object| object.status.value = status);
        true
    }

    /// Creates its object, as an agent does that starts, or whose object is gone. What it was asked before it is asked no longer.
    pub(super) fn enrol(&mut self, server: &mut Server) {
        self.wanted = None;
        let mut object = GpuNode::default();
        object.metadata.name = Some(self.node.clone());
        object.status.value = self.status(server);
        server.put_gpu_node(object);
    }
}

/// How an agent tells of itself.
fn condition((ready, reason): (bool, &str)) -> Condition {
    let status = if ready { "True" } else { "False" };
    let text =
        json!({"type": "Ready", "status": status, "reason": reason, "message": "so it is", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    serde_json::from_value(text).unwrap()
}

/// All of a GPU.
fn whole() -> DesiredPartition {
    DesiredPartition { milli: Some(1000), ..DesiredPartition::default() }
}

/// Nothing that is missing can be made. Whether that is news.
fn refuse(gpu: &mut RealGpu, wanted: &[&DesiredPartition]) -> bool {
    let missing: Vec<&&DesiredPartition> = wanted.iter().filter(|one| !gpu.parts.iter().any(|real| real.is(one))).collect();
    let failed = missing.into_iter().map(|one| Real { state: PartitionState::Failed, ..Real::of(one) });
    let before = gpu.parts.len();
    gpu.parts.extend(failed.collect::<Vec<_>>());
    gpu.parts.len() > before
}

/// Partitions that exist and shall not: others are wanted, or fewer of the kind.
fn surplus(gpu: &RealGpu, cut: Cut, wanted: &[&DesiredPartition]) -> Vec<usize> {
    let more = |row: usize, real: &Real| {
        let before = gpu.parts[..row].iter().filter(|other| other.exists() && other.part() == real.part()).count();
        before >= wanted.iter().filter(|one| real.is(one)).count()
    };
    let goes = |(row, real): &(usize, &Real)| gpu.cut != cut || real.state == PartitionState::Destroying || more(*row, real);
    gpu.parts.iter().enumerate().filter(|(_, real)| real.exists()).filter(goes).map(|(row, _)| row).collect()
}

/// Offers a partition under the name that is wanted. Of several alike one that is wanted under no name that it has.
fn rename(gpu: &mut RealGpu, wanted: &[&DesiredPartition], held: &[String], lenient: bool) -> bool {
    let mut left: Vec<&DesiredPartition> = wanted.to_vec();
    let mut free: Vec<usize> = Vec::new();
    for (row, real) in gpu.parts.iter().enumerate().filter(|(_, real)| real.exists()) {
        match left.iter().position(|one| real.is(one) && !real.is_misnamed(one)) {
            Some(one) => drop(left.swap_remove(one)),
            None => free.push(row),
        }
    }
    let pair = free.into_iter().find_map(|row| Some((row, *left.iter().find(|one| gpu.parts[row].is_misnamed(one))?)));
    let Some((row, one)) = pair.filter(|(row, _)| !lenient || !held.contains(&gpu.parts[*row].part())) else { return false };
    let real = &mut gpu.parts[row];
    assert!(real.milli.is_some() || real.memory_mib.is_some() || !held.contains(&real.part()), "{} is in use", real.part());
    real.resource = one.resource.clone().unwrap();
    true
}
