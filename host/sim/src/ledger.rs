//! The simulator's own books: what every node has left, kept apart from the core's, so that a decision that does not add up is found.
//!
//! GPU amounts are in units of 1/693,000 GPU, a number that thousandths and every grid of up to 12 slots divide: sums are exact.

use std::collections::HashMap;

use partita_core::{
    model::{
        Cut, Demand, GpuAsk, GpuModel, Grid, Isolation, MILLI, NodeSpec, Partitioning, Placement, Profile, SlotMask,
        node::{MPS_CLIENTS_MAX, MPS_RESERVED_MIB},
    },
    state::{Grant, Use},
};

use crate::{cluster::Cluster, mix::Mix};

/// Units of one GPU.
pub(crate) const GPU_UNITS: u64 = 693_000;
const MILLI_UNITS: u64 = GPU_UNITS / MILLI as u64;

/// One GPU: its model's number and what is taken.
#[derive(Clone, Debug)]
struct Gpu {
    model: u32,
    taken: Taken,
}

#[derive(Clone, Debug)]
enum Taken {
    Shares {
        free: u32,
    },
    Mig {
        users: Vec<Placement>,
    },
    /// Memory of each share, MiB.
    Mps {
        users: Vec<u32>,
    },
}

#[derive(Clone, Debug)]
struct Node {
    cpu_free: u32,
    memory_free: u32,
    gpus: Vec<Gpu>,
    partitioning: Partitioning,
    /// Σ over the mix of weight × free GPU that the type cannot use.
    unusable: u128,
}

/// A type of the mix, with models and profiles looked up.
struct Kind {
    weight: u128,
    cpu_milli: u32,
    ask: KindAsk,
    /// By model: accepted.
    accepts: Vec<bool>,
}

enum KindAsk {
    None,
    Share {
        count: usize,
        milli: u32,
    },
    /// Rows in the grid of each model of the profiles that serve.
    Mig(Vec<Vec<u8>>),
    /// Memory of a share under MPS, MiB.
    Mps(u32),
}

/// What the cluster has left, and how much of it the mix cannot use.
pub(crate) struct Ledger<'a> {
    cluster: &'a Cluster,
    model_numbers: HashMap<&'a str, u32>,
    grids: Vec<Option<&'a Grid>>,
    nodes: Vec<Node>,
    kinds: Vec<Kind>,
    weights: u128,
    pub(crate) capacity: u64,
    pub(crate) used: u64,
    unusable: u128,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(cluster: &'a Cluster, mix: &Mix) -> Self {
        let model_numbers: HashMap<&str, u32> = cluster.models.iter().zip(0..).map(|(model, row)| (model.name.as_str(), row)).collect();
        let grids: Vec<Option<&Grid>> = cluster.models.iter().map(|model| model.grid.as_ref()).collect();
        let nodes = cluster.nodes.iter().map(|spec| Node {
            cpu_free: spec.cpu_milli,
            memory_free: spec.memory_mib,
            gpus: spec.gpus.iter().map(|gpu| Gpu { model: model_numbers[gpu.model.as_str()], taken: Taken::nothing(gpu.cut) }).collect(),
            partitioning: spec.partitioning,
            unusable: 0,
        });
        let mut ledger = Self {
            cluster,
            nodes: nodes.collect(),
            kinds: Vec::new(),
            weights: mix.iter().map(|entry| u128::from(entry.1)).sum(),
            capacity: cluster.gpus() as u64 * GPU_UNITS,
            used: 0,
            unusable: 0,
            model_numbers,
            grids,
        };
        ledger.kinds = mix.iter().map(|(demand, weight)| ledger.kind(demand, *weight)).collect();
        for row in 0..ledger.nodes.len() {
            ledger.reweigh(row);
        }
        ledger
    }

    fn kind(&self, demand: &Demand, weight: u32) -> Kind {
        let accepts = self.cluster.models.iter().map(|model| demand.models.is_empty() || demand.models.contains(&model.name)).collect();
        let ask = match &demand.gpu {
            GpuAsk::None => KindAsk::None,
            GpuAsk::Share { count, milli } => KindAsk::Share { count: *count as usize, milli: *milli },
            GpuAsk::Mig { partitions } => {
                let rows = |grid: &Grid| partitions.iter().filter_map(|(name, _)| grid.resolve(name).ok()).collect();
                KindAsk::Mig(self.grids.iter().map(|grid| grid.map_or_else(Vec::new, rows)).collect())
            }
            GpuAsk::Mps { memory_mib } => KindAsk::Mps(*memory_mib),
            GpuAsk::Floor { memory_mib, compute, .. } => {
                let rows = |grid: &Grid| {
                    (0u8..)
                        .zip(&grid.profiles)
                        .filter(|(_, profile)| serves(grid, profile, *memory_mib, *compute))
                        .map(|row| row.0)
                        .collect()
                };
                KindAsk::Mig(self.grids.iter().map(|grid| grid.map_or_else(Vec::new, rows)).collect())
            }
        };
        Kind { weight: weight.into(), cpu_milli: demand.cpu_milli, ask, accepts }
    }

    /// Units that a pod of `demand` takes; on the model where it takes least, if that differs.
    pub(crate) fn units(&self, demand: &Demand) -> u64 {
        let accepted = self.cluster.models.iter().filter(|model| demand.models.is_empty() || demand.models.contains(&model.name));
        let on = |model: &GpuModel| match &demand.gpu {
            GpuAsk::None => Some(0),
            GpuAsk::Share { count, milli } => Some(u64::from(*count) * u64::from(*milli) * MILLI_UNITS),
            GpuAsk::Mig { partitions } => {
                let grid = model.grid.as_ref()?;
                let size = |name: &str| Some(u64::from(grid.profiles[usize::from(grid.resolve(name).ok()?)].size));
                let slots: Option<u64> = partitions.iter().map(|(name, count)| Some(u64::from(*count) * size(name)?)).sum();
                Some(slots? * slot_units(grid))
            }
            GpuAsk::Mps { memory_mib } => (mps_mib(model.memory_mib) >= *memory_mib).then(|| mps_units(model.memory_mib, *memory_mib)),
            GpuAsk::Floor { memory_mib, compute, .. } => {
                let part = (u64::from(*memory_mib) * GPU_UNITS).checked_div(model.memory_mib.into())?;
                Some(part.max(u64::from(*compute) * GPU_UNITS / 100).min(GPU_UNITS))
            }
        };
        accepted.filter_map(on).min().unwrap_or(0)
    }

    /// Free GPU that the mix cannot use, in percent of what is free; 0 when nothing is free or nothing is expected.
    pub(crate) fn fragmentation(&self) -> f64 {
        let free = u128::from(self.capacity - self.used) * self.weights;
        if free == 0 { 0.0 } else { self.unusable as f64 / free as f64 * 100.0 }
    }

    /// Allocated GPU in percent.
    pub(crate) fn allocated(&self) -> f64 {
        if self.capacity == 0 { 0.0 } else { self.used as f64 / self.capacity as f64 * 100.0 }
    }

    /// Books a placement, or says what does not add up; then the books are worthless.
    pub(crate) fn bind(&mut self, row: usize, demand: &Demand, grant: &Grant) -> Result<(), String> {
        self.check_kind(row, demand, grant)?;
        let node = &mut self.nodes[row];
        node.cpu_free = node.cpu_free.checked_sub(demand.cpu_milli).ok_or("cpu is short")?;
        node.memory_free = node.memory_free.checked_sub(demand.memory_mib).ok_or("memory is short")?;
        for &(index, used) in &grant.0 {
            let gpu = &mut node.gpus[usize::from(index)];
            let memory_mib = self.cluster.models[gpu.model as usize].memory_mib;
            gpu.recut(used.cut(), node.partitioning);
            match (&mut gpu.taken, used) {
                (Taken::Shares { free }, Use::Share(milli)) => {
                    *free = free.checked_sub(milli).ok_or_else(|| format!("GPU {index} has {free} of {milli} milli-GPU left"))?;
                    self.used += u64::from(milli) * MILLI_UNITS;
                }
                (Taken::Mig { users }, Use::Partition(placement)) => {
                    let grid = self.grids[gpu.model as usize].ok_or("the model has no grid")?;
                    if !grid.admits(users, placement) {
                        return Err(format!("GPU {index} has no room for {placement:?} beside {users:?}"));
                    }
                    users.push(placement);
                    self.used += slot_units(grid) * u64::from(grid.slots_of(placement).len());
                }
                (Taken::Mps { users }, Use::Mps(mib)) => {
                    users.push(mib);
                    if users.iter().sum::<u32>() > mps_mib(memory_mib) || users.len() > MPS_CLIENTS_MAX {
                        return Err(format!("GPU {index} cannot promise {users:?} MiB under MPS"));
                    }
                    self.used += mps_units(memory_mib, mib);
                }
                (_, used) => return Err(format!("GPU {index} is not cut for {used:?}")),
            }
        }
        self.reweigh(row);
        Ok(())
    }

    /// Gives back what [`Ledger::bind`] booked.
    pub(crate) fn release(&mut self, row: usize, demand: &Demand, grant: &Grant) {
        let node = &mut self.nodes[row];
        node.cpu_free += demand.cpu_milli;
        node.memory_free += demand.memory_mib;
        for &(index, used) in &grant.0 {
            let gpu = &mut node.gpus[usize::from(index)];
            let memory_mib = self.cluster.models[gpu.model as usize].memory_mib;
            match (&mut gpu.taken, used, self.grids[gpu.model as usize]) {
                (Taken::Shares { free }, Use::Share(milli), _) => {
                    *free += milli;
                    self.used -= u64::from(milli) * MILLI_UNITS;
                }
                (Taken::Mig { users }, Use::Partition(placement), Some(grid)) => {
                    users.retain(|user| *user != placement);
                    self.used -= slot_units(grid) * u64::from(grid.slots_of(placement).len());
                }
                (Taken::Mps { users }, Use::Mps(mib), _) => {
                    if let Some(place) = users.iter().position(|user| *user == mib) {
                        users.swap_remove(place);
                    }
                    self.used -= mps_units(memory_mib, mib);
                }
                _ => {}
            }
        }
        self.reweigh(row);
    }

    /// Whether the grant is of the kind that the demand asks for, on distinct GPUs of accepted models.
    fn check_kind(&self, row: usize, demand: &Demand, grant: &Grant) -> Result<(), String> {
        let spec = self.cluster.nodes.get(row).ok_or("there is no such node")?;
        for (place, &(index, used)) in grant.0.iter().enumerate() {
            let gpu = spec.gpus.get(usize::from(index)).ok_or_else(|| format!("it has no GPU {index}"))?;
            if !(demand.models.is_empty() || demand.models.contains(&gpu.model)) {
                return Err(format!("GPU {index} is a {}, which the pod does not accept", gpu.model));
            }
            if used.cut() != Cut::Mig && grant.0[..place].iter().any(|other| other.0 == index) {
                return Err(format!("GPU {index} is granted twice"));
            }
            if !self.serves(demand, &gpu.model, used) {
                return Err(format!("{used:?} was granted for {:?}", demand.gpu));
            }
        }
        let wanted: usize = match &demand.gpu {
            GpuAsk::None => 0,
            GpuAsk::Share { count, .. } => *count as usize,
            GpuAsk::Mig { partitions } => {
                self.check_counts(spec, partitions, grant)?;
                partitions.iter().map(|(_, count)| *count as usize).sum()
            }
            GpuAsk::Mps { .. } | GpuAsk::Floor { .. } => 1,
        };
        if grant.0.len() == wanted { Ok(()) } else { Err(format!("{} of {wanted} GPUs were granted", grant.0.len())) }
    }

    /// Whether one use is of a kind that the demand asks for, and large enough.
    fn serves(&self, demand: &Demand, model: &str, used: Use) -> bool {
        let row = self.model_numbers[model] as usize;
        let (grid, memory) = (self.grids[row], self.cluster.models[row].memory_mib);
        match (&demand.gpu, used) {
            (GpuAsk::Share { milli, .. }, Use::Share(given)) => *milli == given,
            (GpuAsk::Mig { partitions }, Use::Partition(placement)) => {
                grid.is_some_and(|grid| partitions.iter().any(|(name, _)| grid.resolve(name) == Ok(placement.profile)))
            }
            (GpuAsk::Mps { memory_mib }, Use::Mps(given)) => *memory_mib == given,
            (GpuAsk::Floor { memory_mib, compute, isolation }, used) => match used {
                Use::Partition(placement) => {
                    grid.is_some_and(|grid| serves(grid, &grid.profiles[usize::from(placement.profile)], *memory_mib, *compute))
                }
                Use::Mps(given) => {
                    *isolation <= Isolation::Memory
                        && given >= *memory_mib
                        && u64::from(given) * 100 >= u64::from(*compute) * u64::from(mps_mib(memory))
                }
                Use::Share(MILLI) => memory >= *memory_mib,
                Use::Share(milli) => {
                    *isolation == Isolation::Shared
                        && u64::from(milli) * u64::from(memory) >= u64::from(*memory_mib) * u64::from(MILLI)
                        && milli * 100 >= compute * MILLI
                }
            },
            _ => false,
        }
    }

    /// Whether as many partitions of each profile were granted as were asked for.
    fn check_counts(&self, spec: &NodeSpec, partitions: &[(String, u32)], grant: &Grant) -> Result<(), String> {
        for (name, count) in partitions {
            let is_it = |&&(index, used): &&(u8, Use)| {
                let model = &spec.gpus[usize::from(index)].model;
                let row = self.grids[self.model_numbers[model.as_str()] as usize].and_then(|grid| grid.resolve(name).ok());
                matches!(used, Use::Partition(placement) if Some(placement.profile) == row)
            };
            let given = grant.0.iter().filter(is_it).count();
            // Two names of one profile share what was granted.
            if given < *count as usize {
                return Err(format!("{given} of {count} partitions {name} were granted"));
            }
        }
        Ok(())
    }

    fn reweigh(&mut self, row: usize) {
        let unusable = self.kinds.iter().map(|kind| kind.weight * u128::from(self.unusable_for(kind, &self.nodes[row]))).sum();
        self.unusable = self.unusable - self.nodes[row].unusable + unusable;
        self.nodes[row].unusable = unusable;
    }

    /// FGD's F of a node and a pod type: all that is free where the type cannot run (or needs no GPU), else what is free on GPUs that
    /// have too little of it. On a MIG GPU that is the free slots which no legal place of the profile covers.
    fn unusable_for(&self, kind: &Kind, node: &Node) -> u64 {
        let mut free = 0;
        let mut stranded = 0;
        let mut fitting = 0;
        for gpu in &node.gpus {
            let units = self.free_units(gpu);
            let usable = if kind.accepts[gpu.model as usize] { self.usable_units(kind, gpu) } else { 0 };
            free += units;
            stranded += units - usable;
            fitting += usize::from(usable > 0);
        }
        let wanted = match kind.ask {
            KindAsk::None => return free,
            KindAsk::Share { count, .. } => count,
            // Several partitions may lie on one GPU.
            KindAsk::Mig(_) | KindAsk::Mps(_) => 1,
        };
        if node.cpu_free < kind.cpu_milli || fitting < wanted { free } else { stranded }
    }

    fn free_units(&self, gpu: &Gpu) -> u64 {
        match (&gpu.taken, self.grids[gpu.model as usize]) {
            (Taken::Shares { free }, _) => u64::from(*free) * MILLI_UNITS,
            (Taken::Mig { users }, Some(grid)) => slot_units(grid) * u64::from(free_slots(grid, users).len()),
            (Taken::Mig { .. }, None) => 0,
            (Taken::Mps { users }, _) => {
                let memory_mib = self.cluster.models[gpu.model as usize].memory_mib;
                GPU_UNITS - users.iter().map(|&mib| mps_units(memory_mib, mib)).sum::<u64>().min(GPU_UNITS)
            }
        }
    }

    fn usable_units(&self, kind: &Kind, gpu: &Gpu) -> u64 {
        match (&kind.ask, &gpu.taken) {
            (KindAsk::Share { milli, .. }, Taken::Shares { free }) if free >= milli => u64::from(*free) * MILLI_UNITS,
            (KindAsk::Mps(mib), Taken::Mps { users }) => {
                let free = mps_mib(self.cluster.models[gpu.model as usize].memory_mib).saturating_sub(users.iter().sum());
                if free >= *mib { self.free_units(gpu) } else { 0 }
            }
            (KindAsk::Mig(rows), Taken::Mig { users }) => {
                let model = gpu.model as usize;
                let Some(grid) = self.grids[model] else { return 0 };
                let starts =
                    |profile: u8| grid.profiles[usize::from(profile)].starts.iter().map(move |&start| Placement { profile, start });
                let places = rows[model].iter().flat_map(|&profile| starts(profile));
                let covered =
                    places.filter(|&place| grid.admits(users, place)).fold(SlotMask::EMPTY, |all, place| all.union(grid.slots_of(place)));
                slot_units(grid) * u64::from(covered.len())
            }
            _ => 0,
        }
    }
}

impl Taken {
    fn nothing(cut: Cut) -> Self {
        match cut {
            Cut::Shares => Self::Shares { free: MILLI },
            Cut::Mig => Self::Mig { users: Vec::new() },
            Cut::Mps => Self::Mps { users: Vec::new() },
        }
    }
}

impl Gpu {
    /// Cuts an idle GPU another way, where the node allows it.
    fn recut(&mut self, cut: Cut, partitioning: Partitioning) {
        let (now, idle) = match &self.taken {
            Taken::Shares { free } => (Cut::Shares, *free == MILLI),
            Taken::Mig { users } => (Cut::Mig, users.is_empty()),
            Taken::Mps { users } => (Cut::Mps, users.is_empty()),
        };
        if now != cut && idle && partitioning.may_become(cut) {
            self.taken = Taken::nothing(cut);
        }
    }
}

/// Whether a partition of a profile has at least this memory, MiB, and this part of the compute, percent.
fn serves(grid: &Grid, profile: &Profile, memory_mib: u32, compute: u32) -> bool {
    profile.memory_mib >= memory_mib && u32::from(profile.compute) * 100 >= compute * u32::from(grid.compute)
}

/// What a GPU can promise under MPS, MiB.
fn mps_mib(memory_mib: u32) -> u32 {
    memory_mib.saturating_sub(MPS_RESERVED_MIB)
}

/// Units of a share under MPS.
fn mps_units(memory_mib: u32, share_mib: u32) -> u64 {
    GPU_UNITS * u64::from(share_mib) / u64::from(mps_mib(memory_mib).max(1))
}

fn slot_units(grid: &Grid) -> u64 {
    GPU_UNITS / u64::from(grid.slots)
}

fn free_slots(grid: &Grid, users: &[Placement]) -> SlotMask {
    users.iter().fold(SlotMask::span(0, grid.slots), |free, &user| free.minus(grid.slots_of(user)))
}

#[cfg(test)]
mod tests {
    use partita_core::model::catalog;

    use super::*;

    fn cluster() -> Cluster {
        let text = "[[node]]\nname = \"n\"\ncpu = 4\nmemory = \"4Gi\"\n\
                    gpus = [{ model = \"T4\", count = 2 }, { model = \"A30\", count = 1, cut = \"mig\" }]\n";
        Cluster::parse("c", text.as_bytes()).unwrap()
    }

    fn share(count: u32, milli: u32) -> Demand {
        Demand { cpu_milli: 1000, memory_mib: 1024, gpu: GpuAsk::Share { count, milli }, models: Vec::new(), ..Demand::default() }
    }

    fn partition(profile: &str) -> Demand {
        Demand { gpu: GpuAsk::mig(profile), ..share(1, 1) }
    }

    fn placement(profile: &str, start: u8) -> Use {
        let profile = catalog::builtin("A30").unwrap().grid.unwrap().resolve(profile).unwrap();
        Use::Partition(Placement { profile, start })
    }

    #[test]
    fn a_grant_that_does_not_add_up_is_found() {
        let cluster = cluster();
        let t4 = Demand { models: vec!["T4".into()], ..partition("1g.6gb") };
        let cases = [
            (7, share(1, 500), vec![(0, Use::Share(500))], "there is no such node"),
            (0, share(1, 500), vec![(9, Use::Share(500))], "it has no GPU 9"),
            (0, share(1, 500), vec![], "0 of 1 GPUs were granted"),
            (0, share(1, 500), vec![(0, Use::Share(400))], "Share(400) was granted for Share { count: 1, milli: 500 }"),
            (0, share(2, 500), vec![(0, Use::Share(500)), (0, Use::Share(500))], "GPU 0 is granted twice"),
            (0, share(1, 500), vec![(2, Use::Share(500))], "GPU 2 is not cut for Share(500)"),
            (0, share(1, 500), vec![(1, Use::Share(500))], "GPU 1 has 200 of 500 milli-GPU left"),
            (0, Demand { cpu_milli: 3001, ..share(1, 500) }, vec![(0, Use::Share(500))], "cpu is short"),
            (0, Demand { memory_mib: 3073, ..share(1, 500) }, vec![(0, Use::Share(500))], "memory is short"),
            (0, t4, vec![(2, placement("1g.6gb", 0))], "GPU 2 is a A30, which the pod does not accept"),
            (0, partition("1g.6gb"), vec![(0, placement("1g.6gb", 0))], "was granted for Mig"),
            (0, partition("2g.12gb"), vec![(2, placement("1g.6gb", 0))], "was granted for Mig"),
            (0, partition("1g.6gb"), vec![(2, placement("1g.6gb", 4))], "GPU 2 has no room"),
        ];
        for (row, demand, grant, problem) in cases {
            let mut ledger = Ledger::new(&cluster, &Mix::new());
            ledger.bind(0, &share(1, 800), &Grant(vec![(1, Use::Share(800))])).unwrap();
            let found = ledger.bind(row, &demand, &Grant(grant)).unwrap_err();
            assert!(found.contains(problem), "{found} instead of {problem}");
        }
        let mut ledger = Ledger::new(&cluster, &Mix::new());
        ledger.bind(0, &partition("2g.12gb"), &Grant(vec![(2, placement("2g.12gb", 0))])).unwrap();
        assert!(ledger.bind(0, &partition("1g.6gb"), &Grant(vec![(2, placement("1g.6gb", 1))])).unwrap_err().contains("no room"));
    }

    #[test]
    fn what_is_released_is_free_again() {
        let cluster = cluster();
        let mix: Mix = vec![(share(1, 600), 3), (partition("2g.12gb"), 1)];
        let mut ledger = Ledger::new(&cluster, &mix);
        let before = (ledger.used, ledger.unusable, ledger.fragmentation());
        let grants = [
            (share(2, 700), Grant(vec![(0, Use::Share(700)), (1, Use::Share(700))])),
            (partition("1g.6gb"), Grant(vec![(2, placement("1g.6gb", 1))])),
        ];
        for (demand, grant) in &grants {
            ledger.bind(0, demand, grant).unwrap();
        }
        assert_eq!(ledger.used, GPU_UNITS * 14 / 10 + GPU_UNITS / 4);
        // Free: 300 + 300 + three slots. A share of 600 can use none of it; a 2g.12gb the upper two slots.
        let free = 2.0 * 0.3 + 0.75;
        let expected = (3.0 * free + (free - 0.5)) / (4.0 * free) * 100.0;
        assert!((ledger.fragmentation() - expected).abs() < 1e-9, "{} instead of {expected}", ledger.fragmentation());
        for (demand, grant) in &grants {
            ledger.release(0, demand, grant);
        }
        assert_eq!((ledger.used, ledger.unusable, ledger.fragmentation()), before);
        assert_eq!(ledger.units(&partition("1g.6gb")), GPU_UNITS / 4);
    }
}
