//! The question to a policy, in columns. The buffers are kept from question to question; nothing is allocated once they have grown.

use super::{Candidate, Place, candidates::milli_of};
use crate::{
    model::{Cut, DemandId, GpuAsk},
    policy::{Candidates, Demands, Gpus, Models, NONE, Nodes, Profiles, Shapes, View, outlook},
    state::{Cluster, Entry, Gpu, Layout, Node, Use},
};

/// Columns of the parts that change only with the mix: models, profiles and the mix itself.
#[derive(Clone, Debug, Default)]
struct Fixed {
    version: Option<u64>,
    /// The name of the outlook.
    outlook: u64,
    gpus: Vec<u32>,
    memory: Vec<u32>,
    slots: Vec<u32>,
    shape_model: Vec<u32>,
    shape_gpus: Vec<u32>,
    shape_cpu: Vec<u32>,
    shape_nodes: Vec<u32>,
    profile_model: Vec<u32>,
    profile_size: Vec<u32>,
    profile_compute: Vec<u32>,
    profile_memory: Vec<u32>,
    profile_starts: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct DemandColumns {
    cpu: Vec<u32>,
    memory: Vec<u32>,
    count: Vec<u32>,
    milli: Vec<u32>,
    weight: Vec<u32>,
    model_start: Vec<u32>,
    models: Vec<u32>,
    profile_start: Vec<u32>,
    profiles: Vec<u32>,
}

/// A question under construction.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    fixed: Fixed,
    demands: DemandColumns,
    cpu_free: Vec<u32>,
    cpu_capacity: Vec<u32>,
    memory_free: Vec<u32>,
    memory_capacity: Vec<u32>,
    gpu_pods: Vec<u32>,
    like_pods: Vec<u32>,
    gpu_start: Vec<u32>,
    model: Vec<u32>,
    free: Vec<u32>,
    used_slots: Vec<u32>,
    warm_slots: Vec<u32>,
    mig: Vec<u32>,
    node: Vec<u32>,
    gpu: Vec<u32>,
    profile: Vec<u32>,
    slot: Vec<u32>,
    kind: Vec<u32>,
    milli: Vec<u32>,
    tier: Vec<u32>,
    use_start: Vec<u32>,
    use_gpu: Vec<u32>,
    use_profile: Vec<u32>,
    use_slot: Vec<u32>,
}

impl Columns {
    /// Starts a question about `demand`: no nodes, no candidates. Returns the demand's row.
    pub fn start(&mut self, cluster: &Cluster, demand: DemandId) -> u32 {
        self.start_plain(cluster);
        self.push_demand(cluster, demand)
    }

    /// Starts a question that is about no one demand. Returns the rows of the mix.
    pub fn start_plain(&mut self, cluster: &Cluster) -> u32 {
        let (mix, version) = cluster.mix();
        if self.fixed.version != Some(version) {
            self.fix(cluster);
            self.fixed.version = Some(version);
            let View { models, shapes, profiles, demands, .. } = self.view(0);
            self.fixed.outlook = outlook(&models, &shapes, &profiles, &demands);
        }
        self.demands.truncate(mix.len());
        self.clear_nodes();
        mix.len() as u32
    }

    /// Adds a demand. Returns its row.
    pub fn push_demand(&mut self, cluster: &Cluster, demand: DemandId) -> u32 {
        self.demands.push(cluster.demands().get(demand), 0);
        self.demands.cpu.len() as u32 - 1
    }

    /// Forgets nodes and candidates, keeps the demand.
    pub fn clear_nodes(&mut self) {
        let Self { cpu_free, cpu_capacity, memory_free, memory_capacity, gpu_pods, like_pods, gpu_start, .. } = self;
        for column in [cpu_free, cpu_capacity, memory_free, memory_capacity, gpu_pods, like_pods, gpu_start] {
            column.clear();
        }
        let Self { model, free, used_slots, warm_slots, mig, .. } = self;
        for column in [model, free, used_slots, warm_slots, mig] {
            column.clear();
        }
        let Self { node, gpu, profile, slot, kind, milli, tier, use_start, use_gpu, use_profile, use_slot, .. } = self;
        for column in [node, gpu, profile, slot, kind, milli, tier, use_start, use_gpu, use_profile, use_slot] {
            column.clear();
        }
        self.gpu_start.push(0);
        self.use_start.push(0);
    }

    /// Adds a node with its candidates for the demand of `entry`; a node without an entry has none.
    pub fn push_node(&mut self, cluster: &Cluster, entry: Option<&Entry>, node: &Node, candidates: &[Candidate]) {
        let row = self.cpu_free.len() as u32;
        let first_gpu = self.model.len() as u32;
        let (cpu_free, memory_free) = node.spare();
        self.cpu_free.push(cpu_free);
        self.cpu_capacity.push(node.spec.cpu_milli);
        self.memory_free.push(memory_free);
        self.memory_capacity.push(node.spec.memory_mib);
        self.gpu_pods.push(node.gpu_pods());
        self.like_pods.push(entry.map_or(0, |entry| node.like_pods(entry.shape.as_ref())));
        for gpu in &node.room.gpus {
            self.push_gpu(cluster, gpu);
        }
        self.gpu_start.push(self.model.len() as u32);
        let Some(entry) = entry else { return };
        for &candidate in candidates {
            self.node.push(row);
            self.push_place(cluster, entry, node, first_gpu, candidate);
        }
    }

    fn push_place(&mut self, cluster: &Cluster, entry: &Entry, node: &Node, first_gpu: u32, candidate: Candidate) {
        let uses = |gpu: u8, used: Use| {
            let row = first_gpu + u32::from(gpu);
            let Use::Partition(placement) = used else { return (row, NONE, NONE) };
            let model = node.room.gpus[usize::from(gpu)].model;
            (row, cluster.models().profile_of(model, placement.profile).0, u32::from(placement.start))
        };
        let (cut, (gpu, profile, slot)) = match candidate.place {
            Place::Node => (None, (NONE, NONE, NONE)),
            Place::Several { gpu } => (Some(Cut::Shares), (first_gpu + u32::from(gpu), NONE, NONE)),
            Place::One { gpu, used } => (Some(used.cut()), uses(gpu, used)),
            Place::Packed => {
                let grant = candidate.grant(cluster, entry, node);
                let all: Vec<(u32, u32, u32)> = grant.0.iter().map(|&(gpu, used)| uses(gpu, used)).collect();
                for &(gpu, profile, slot) in &all {
                    self.use_gpu.push(gpu);
                    self.use_profile.push(profile);
                    self.use_slot.push(slot);
                }
                (Some(Cut::Mig), all.first().copied().unwrap_or((NONE, NONE, NONE)))
            }
        };
        self.gpu.push(gpu);
        self.profile.push(profile);
        self.slot.push(slot);
        self.kind.push(match cut {
            None => 0,
            Some(Cut::Shares) => 1,
            Some(Cut::Mig) => 2,
            Some(Cut::Mps) => 3,
        });
        self.milli.push(match candidate.place {
            Place::One { gpu, used } => milli_of(cluster, node, gpu, used),
            Place::Node | Place::Several { .. } | Place::Packed => 0,
        });
        self.tier.push(candidate.tier.into());
        self.use_start.push(self.use_gpu.len() as u32);
    }

    fn push_gpu(&mut self, cluster: &Cluster, gpu: &Gpu) {
        let (used, warm, mig) = match &gpu.layout {
            Layout::Shares { .. } | Layout::Mps(_) => (0, 0, 0),
            Layout::Mig(mig) => (u32::from(mig.used_slots.0), u32::from(mig.warm_slots.0), 1),
        };
        self.model.push(gpu.model.0);
        self.free.push(gpu.free_milli(cluster.models().slots(gpu.model)));
        self.used_slots.push(used);
        self.warm_slots.push(warm);
        self.mig.push(mig);
    }

    /// Rows of GPUs so far.
    #[must_use]
    pub fn gpus(&self) -> usize {
        self.model.len()
    }

    /// The question as a policy reads it.
    #[must_use]
    pub fn view(&self, seed: u32) -> View<'_> {
        let (fixed, demands) = (&self.fixed, &self.demands);
        View {
            seed,
            outlook: fixed.outlook,
            models: Models { gpus: &fixed.gpus, memory: &fixed.memory, slots: &fixed.slots },
            shapes: Shapes {
                model: &fixed.shape_model,
                gpus: &fixed.shape_gpus,
                cpu_capacity: &fixed.shape_cpu,
                nodes: &fixed.shape_nodes,
            },
            profiles: Profiles {
                model: &fixed.profile_model,
                size: &fixed.profile_size,
                compute: &fixed.profile_compute,
                memory: &fixed.profile_memory,
                starts: &fixed.profile_starts,
            },
            nodes: Nodes {
                cpu_free: &self.cpu_free,
                cpu_capacity: &self.cpu_capacity,
                memory_free: &self.memory_free,
                memory_capacity: &self.memory_capacity,
                gpu_pods: &self.gpu_pods,
                like_pods: &self.like_pods,
                gpu_start: &self.gpu_start,
            },
            gpus: Gpus { model: &self.model, free: &self.free, used_slots: &self.used_slots, warm_slots: &self.warm_slots, mig: &self.mig },
            demands: Demands {
                cpu: &demands.cpu,
                memory: &demands.memory,
                count: &demands.count,
                milli: &demands.milli,
                weight: &demands.weight,
                model_start: &demands.model_start,
                models: &demands.models,
                profile_start: &demands.profile_start,
                profiles: &demands.profiles,
            },
        }
    }

    /// The candidates of the question.
    #[must_use]
    pub fn candidates(&self) -> Candidates<'_> {
        Candidates {
            node: &self.node,
            gpu: &self.gpu,
            profile: &self.profile,
            slot: &self.slot,
            kind: &self.kind,
            milli: &self.milli,
            tier: &self.tier,
            use_start: &self.use_start,
            use_gpu: &self.use_gpu,
            use_profile: &self.use_profile,
            use_slot: &self.use_slot,
        }
    }

    fn fix(&mut self, cluster: &Cluster) {
        self.fixed = Fixed::default();
        for (model, gpus) in cluster.models().iter() {
            self.fixed.gpus.push(gpus);
            self.fixed.memory.push(model.memory_mib);
            self.fixed.slots.push(model.grid.as_ref().map_or(0, |grid| u32::from(grid.slots)));
        }
        for ((model, gpus, cpu), nodes) in cluster.models().shapes() {
            self.fixed.shape_model.push(model.0);
            self.fixed.shape_gpus.push(gpus);
            self.fixed.shape_cpu.push(cpu);
            self.fixed.shape_nodes.push(nodes);
        }
        for &(model, row) in cluster.models().profiles() {
            let Some(profile) = cluster.models().grid(model).map(|grid| &grid.profiles[usize::from(row)]) else { continue };
            self.fixed.profile_model.push(model.0);
            self.fixed.profile_size.push(u32::from(profile.size));
            self.fixed.profile_compute.push(u32::from(profile.compute));
            self.fixed.profile_memory.push(profile.memory_mib);
            self.fixed.profile_starts.push(u32::from(profile.start_mask().0));
        }
        self.demands.truncate(0);
        for &(demand, weight) in cluster.mix().0 {
            self.demands.push(cluster.demands().get(demand), weight);
        }
    }
}

impl DemandColumns {
    fn truncate(&mut self, rows: usize) {
        for column in [&mut self.cpu, &mut self.memory, &mut self.count, &mut self.milli, &mut self.weight] {
            column.truncate(rows);
        }
        for (start, values) in [(&mut self.model_start, &mut self.models), (&mut self.profile_start, &mut self.profiles)] {
            start.truncate(rows + 1);
            if start.is_empty() {
                start.push(0);
            }
            values.truncate(start[start.len() - 1] as usize);
        }
    }

    fn push(&mut self, entry: &Entry, weight: u32) {
        let (count, milli) = match &entry.demand.gpu {
            GpuAsk::None => (0, 0),
            GpuAsk::Share { count, milli } => (*count, *milli),
            GpuAsk::Mig { partitions } => (partitions.iter().map(|(_, count)| count).sum(), 0),
            GpuAsk::Mps { .. } | GpuAsk::Floor { .. } => (1, 0),
        };
        self.cpu.push(entry.demand.cpu_milli);
        self.memory.push(entry.demand.memory_mib);
        self.count.push(count);
        self.milli.push(milli);
        self.weight.push(weight);
        self.models.extend(entry.models.iter().map(|model| model.0));
        if entry.no_model {
            // Models that no node has: a number past the last row, which accepts nothing.
            self.models.push(NONE);
        }
        self.model_start.push(self.models.len() as u32);
        self.profiles.extend(entry.profiles.iter().map(|profile| profile.0));
        self.profile_start.push(self.profiles.len() as u32);
    }
}
