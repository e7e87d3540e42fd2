//! The simulator's own books: what every node has left, kept apart from the core's, so that a decision that does not add up is found.
//!
//! GPU amounts are in units of 1/693,000 GPU, a number that thousandths and every grid of up to 12 slots divide: sums are exact.

use std::collections::HashMap;

use partita_core::{
    model::{Cut, Demand, GpuAsk, Grid, MILLI, Placement, SlotMask},
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
    Shares { free: u32 },
    Mig { users: Vec<Placement> },
}

#[derive(Clone, Debug)]
struct Node {
    cpu_free: u32,
    memory_free: u32,
    gpus: Vec<Gpu>,
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
    /// Row of the profile in the grid of each model.
    Mig(Vec<Option<u8>>),
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
        let taken = |cut| match cut {
            Cut::Shares => Taken::Shares { free: MILLI },
            Cut::Mig => Taken::Mig { users: Vec::new() },
        };
        let nodes = cluster.nodes.iter().map(|spec| Node {
            cpu_free: spec.cpu_milli,
            memory_free: spec.memory_mib,
            gpus: spec.gpus.iter().map(|gpu| Gpu { model: model_numbers[gpu.model.as_str()], taken: taken(gpu.cut) }).collect(),
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
            GpuAsk::Mig { profile } => KindAsk::Mig(self.grids.iter().map(|grid| (*grid)?.resolve(profile).ok()).collect()),
        };
        Kind { weight: weight.into(), cpu_milli: demand.cpu_milli, ask, accepts }
    }

    /// Units that a pod of `demand` takes; for a partition, those on the model where it takes least.
    pub(crate) fn units(&self, demand: &Demand) -> u64 {
        let GpuAsk::Mig { profile } = &demand.gpu else { return demand.gpu_milli() * MILLI_UNITS };
        let accepted = self.cluster.models.iter().filter(|model| demand.models.is_empty() || demand.models.contains(&model.name));
        let units = accepted.filter_map(|model| {
            let grid = model.grid.as_ref()?;
            Some(slot_units(grid) * u64::from(grid.profiles[usize::from(grid.resolve(profile).ok()?)].size))
        });
        units.min().unwrap_or(0)
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
            match (&mut gpu.taken, used, self.grids[gpu.model as usize]) {
                (Taken::Shares { free }, Use::Share(milli), _) => {
                    *free += milli;
                    self.used -= u64::from(milli) * MILLI_UNITS;
                }
                (Taken::Mig { users }, Use::Partition(placement), Some(grid)) => {
                    users.retain(|user| *user != placement);
                    self.used -= slot_units(grid) * u64::from(grid.slots_of(placement).len());
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
            if grant.0[..place].iter().any(|other| other.0 == index) {
                return Err(format!("GPU {index} is granted twice"));
            }
            let right = match (&demand.gpu, used) {
                (GpuAsk::Share { milli, .. }, Use::Share(given)) => *milli == given,
                (GpuAsk::Mig { profile }, Use::Partition(placement)) => {
                    let grid = self.grids[self.model_numbers[gpu.model.as_str()] as usize];
                    grid.is_some_and(|grid| grid.resolve(profile) == Ok(placement.profile))
                }
                _ => false,
            };
            if !right {
                return Err(format!("{used:?} was granted for {:?}", demand.gpu));
            }
        }
        let wanted = match demand.gpu {
            GpuAsk::None => 0,
            GpuAsk::Share { count, .. } => count as usize,
            GpuAsk::Mig { .. } => 1,
        };
        if grant.0.len() == wanted { Ok(()) } else { Err(format!("{} of {wanted} GPUs were granted", grant.0.len())) }
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
            KindAsk::Mig(_) => 1,
        };
        if node.cpu_free < kind.cpu_milli || fitting < wanted { free } else { stranded }
    }

    fn free_units(&self, gpu: &Gpu) -> u64 {
        match (&gpu.taken, self.grids[gpu.model as usize]) {
            (Taken::Shares { free }, _) => u64::from(*free) * MILLI_UNITS,
            (Taken::Mig { users }, Some(grid)) => slot_units(grid) * u64::from(free_slots(grid, users).len()),
            (Taken::Mig { .. }, None) => 0,
        }
    }

    fn usable_units(&self, kind: &Kind, gpu: &Gpu) -> u64 {
        match (&kind.ask, &gpu.taken) {
            (KindAsk::Share { milli, .. }, Taken::Shares { free }) if free >= milli => u64::from(*free) * MILLI_UNITS,
            (KindAsk::Mig(rows), Taken::Mig { users }) => {
                let model = gpu.model as usize;
                let (Some(profile), Some(grid)) = (rows[model], self.grids[model]) else { return 0 };
                let places = grid.profiles[usize::from(profile)].starts.iter().map(|&start| Placement { profile, start });
                let covered =
                    places.filter(|&place| grid.admits(users, place)).fold(SlotMask::EMPTY, |all, place| all.union(grid.slots_of(place)));
                slot_units(grid) * u64::from(covered.len())
            }
            _ => 0,
        }
    }
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
        Demand { cpu_milli: 1000, memory_mib: 1024, gpu: GpuAsk::Share { count, milli }, models: Vec::new() }
    }

    fn partition(profile: &str) -> Demand {
        Demand { gpu: GpuAsk::Mig { profile: profile.into() }, ..share(1, 1) }
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
