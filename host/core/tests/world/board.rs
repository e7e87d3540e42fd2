//! Whether a demand fits on a node, by trying everything: no tables, no rankings, no warm partitions, which can always be destroyed.

use partita_core::{
    model::{Cut, Demand, GpuAsk, Grid, Isolation, MILLI, Partitioning, Placement, catalog, node::MPS_CLIENTS_MAX, node::MPS_RESERVED_MIB},
    state::{Cluster, Grant, Layout, Node, Room, Use},
};

/// Who uses a GPU, without names.
#[derive(Clone)]
enum Users {
    Shares(u32),
    Mig(Vec<Placement>),
    Mps(Vec<u32>),
}

#[derive(Clone)]
struct Gpu {
    model: String,
    memory_mib: u32,
    grid: Option<Grid>,
    faulty: bool,
    users: Users,
}

/// A node as far as fitting is concerned.
#[derive(Clone)]
pub(crate) struct Board {
    cpu: u32,
    memory: u32,
    gpus: Vec<Gpu>,
    partitioning: Partitioning,
}

/// Memory of the share under MPS for a part of a GPU.
fn mps_for(memory_mib: u32, compute: u32, capacity: u32) -> u32 {
    memory_mib.max((u64::from(capacity) * u64::from(compute)).div_ceil(100) as u32)
}

/// The share of a GPU that a part of it takes when it is time-sliced.
fn milli_for(memory_mib: u32, compute: u32, all: u32) -> u32 {
    ((u64::from(memory_mib) * u64::from(MILLI)).div_ceil(u64::from(all)) as u32).max(compute * MILLI / 100)
}

/// Uses of one GPU of a model that serve a demand that one use serves.
fn uses(demand: &Demand, model: &str) -> Vec<Use> {
    let known = catalog::builtin(model).unwrap();
    let everywhere = |row: u8, grid: &Grid| {
        grid.profiles[usize::from(row)].starts.iter().map(|&start| Use::Partition(Placement { profile: row, start })).collect::<Vec<_>>()
    };
    if !demand.models.is_empty() && !demand.models.iter().any(|name| name == model) {
        return Vec::new();
    }
    match &demand.gpu {
        GpuAsk::None => Vec::new(),
        GpuAsk::Share { milli, .. } => vec![Use::Share(*milli)],
        GpuAsk::Mps { memory_mib } => vec![Use::Mps(*memory_mib)],
        GpuAsk::Mig { partitions } => {
            let Some(grid) = &known.grid else { return Vec::new() };
            partitions.iter().filter_map(|(name, _)| grid.resolve(name).ok()).flat_map(|row| everywhere(row, grid)).collect()
        }
        GpuAsk::Floor { memory_mib, compute, isolation } => {
            let mut uses = Vec::new();
            if let Some(grid) = &known.grid {
                for (row, profile) in (0u8..).zip(&grid.profiles) {
                    if profile.memory_mib >= *memory_mib && u32::from(profile.compute) * 100 >= compute * u32::from(grid.compute) {
                        uses.extend(everywhere(row, grid));
                    }
                }
            }
            if *isolation <= Isolation::Memory {
                uses.push(Use::Mps(mps_for(*memory_mib, *compute, known.memory_mib - MPS_RESERVED_MIB)));
            }
            if *isolation == Isolation::Shared {
                uses.push(Use::Share(milli_for(*memory_mib, *compute, known.memory_mib)));
            }
            if known.memory_mib >= *memory_mib {
                uses.push(Use::Share(MILLI));
            }
            uses
        }
    }
}

/// Whether a grant is what a demand asks for, on a node whose GPUs are of these models.
pub(crate) fn serves(demand: &Demand, grant: &Grant, models: &[&str]) -> bool {
    let good = |&(gpu, used): &(u8, Use)| uses(demand, models[usize::from(gpu)]).contains(&used);
    let apart = grant.0.windows(2).all(|pair| pair[0].0 < pair[1].0);
    grant.0.iter().all(good)
        && match &demand.gpu {
            GpuAsk::None => grant.0.is_empty(),
            GpuAsk::Share { count, .. } => grant.0.len() == *count as usize && apart,
            GpuAsk::Mps { .. } | GpuAsk::Floor { .. } => grant.0.len() == 1,
            GpuAsk::Mig { partitions } => partitions.iter().all(|(name, count)| {
                let is = |&&(gpu, used): &&(u8, Use)| {
                    let grid = catalog::builtin(models[usize::from(gpu)]).unwrap().grid;
                    matches!(used, Use::Partition(place) if grid.unwrap().resolve(name) == Ok(place.profile))
                };
                grant.0.iter().filter(is).count() == *count as usize
            }),
        }
}

impl Gpu {
    fn idle(&self) -> bool {
        match &self.users {
            Users::Shares(used) => *used == 0,
            Users::Mig(places) => places.is_empty(),
            Users::Mps(shares) => shares.is_empty(),
        }
    }

    fn cut(&self) -> Cut {
        match self.users {
            Users::Shares(_) => Cut::Shares,
            Users::Mig(_) => Cut::Mig,
            Users::Mps(_) => Cut::Mps,
        }
    }

    /// Takes a use, cutting the GPU for it if it may be; false if it does not fit.
    fn take(&mut self, partitioning: Partitioning, used: Use) -> bool {
        let cut = match used {
            Use::Share(_) => Cut::Shares,
            Use::Partition(_) => Cut::Mig,
            Use::Mps(_) => Cut::Mps,
        };
        let may = if self.cut() == cut { partitioning.may_use(cut) } else { self.idle() && partitioning.may_become(cut) };
        if self.faulty || !may || (matches!(used, Use::Share(1..MILLI)) && !partitioning.time_slices()) {
            return false;
        }
        if self.cut() != cut {
            self.users = match cut {
                Cut::Shares => Users::Shares(0),
                Cut::Mig => Users::Mig(Vec::new()),
                Cut::Mps => Users::Mps(Vec::new()),
            };
        }
        match (used, &mut self.users) {
            (Use::Share(milli), Users::Shares(used)) => {
                *used += milli;
                *used <= MILLI
            }
            (Use::Partition(place), Users::Mig(places)) => {
                let fits = self.grid.as_ref().is_some_and(|grid| grid.admits(places, place));
                places.push(place);
                fits
            }
            (Use::Mps(memory_mib), Users::Mps(shares)) => {
                shares.push(memory_mib);
                shares.iter().sum::<u32>() <= self.memory_mib - MPS_RESERVED_MIB && shares.len() <= MPS_CLIENTS_MAX
            }
            _ => false,
        }
    }

    fn give_back(&mut self, used: Use) {
        match (used, &mut self.users) {
            (Use::Share(milli), Users::Shares(used)) => *used -= milli,
            (Use::Partition(place), Users::Mig(places)) => places.retain(|other| *other != place),
            (Use::Mps(memory_mib), Users::Mps(shares)) => {
                let row = shares.iter().position(|one| *one == memory_mib).unwrap();
                shares.remove(row);
            }
            _ => panic!("gives back {used:?} of another kind"),
        }
    }
}

impl Board {
    /// A node with what it has left in `room`: now, or later.
    pub(crate) fn of(cluster: &Cluster, node: &Node, room: &Room) -> Self {
        let gpu = |gpu: &partita_core::state::Gpu| {
            let users = match &gpu.layout {
                Layout::Shares { free } => Users::Shares(MILLI - free),
                Layout::Mig(mig) => Users::Mig(mig.users().iter().map(|user| user.0).collect()),
                Layout::Mps(slices) => Users::Mps(slices.all.iter().filter(|one| one.holder.is_some()).map(|one| one.memory_mib).collect()),
            };
            let model = cluster.models().get(gpu.model);
            Gpu { model: model.name.clone(), memory_mib: model.memory_mib, grid: model.grid.clone(), faulty: gpu.fault.is_some(), users }
        };
        let gpus = room.gpus.iter().map(gpu).collect();
        Self { cpu: room.cpu_free, memory: room.memory_free, gpus, partitioning: node.spec.partitioning }
    }

    pub(crate) fn gives_back(&mut self, demand: &Demand, grant: &Grant) {
        self.cpu += demand.cpu_milli;
        self.memory += demand.memory_mib;
        for &(gpu, used) in &grant.0 {
            self.gpus[usize::from(gpu)].give_back(used);
        }
    }

    /// Takes a grant; false, and the board worthless, if it does not fit.
    pub(crate) fn takes(&mut self, demand: &Demand, grant: &Grant) -> bool {
        let left = self.cpu.checked_sub(demand.cpu_milli).zip(self.memory.checked_sub(demand.memory_mib));
        let Some((cpu, memory)) = left else { return false };
        (self.cpu, self.memory) = (cpu, memory);
        grant.0.iter().all(|&(gpu, used)| self.take(usize::from(gpu), used))
    }

    /// Whether a demand fits.
    pub(crate) fn fits_somewhere(&self, demand: &Demand) -> bool {
        fit_all(std::slice::from_ref(self), demand)
    }

    fn take(&mut self, gpu: usize, used: Use) -> bool {
        self.gpus[gpu].take(self.partitioning, used)
    }
}

/// Whether one place for a demand is free on each of these boards, which are one node at several times.
pub(crate) fn fit_all(boards: &[Board], demand: &Demand) -> bool {
    if boards.iter().any(|board| board.cpu < demand.cpu_milli || board.memory < demand.memory_mib) {
        return false;
    }
    let gpus = boards[0].gpus.len();
    let free = |gpu: usize| {
        let fits = |used: &Use| boards.iter().all(|board| board.clone().take(gpu, *used));
        uses(demand, &boards[0].gpus[gpu].model).iter().any(fits)
    };
    match &demand.gpu {
        GpuAsk::None => true,
        GpuAsk::Share { count, .. } => (0..gpus).filter(|&gpu| free(gpu)).count() >= *count as usize,
        GpuAsk::Mps { .. } | GpuAsk::Floor { .. } => (0..gpus).any(free),
        GpuAsk::Mig { partitions } => {
            let names: Vec<&str> = partitions.iter().flat_map(|(name, count)| vec![name.as_str(); *count as usize]).collect();
            fit_each(boards, &demand.models, &names, 0)
        }
    }
}

/// Places the partitions one after the other; equal ones in order, from GPU `from` on.
fn fit_each(boards: &[Board], models: &[String], names: &[&str], from: usize) -> bool {
    let Some((name, rest)) = names.split_first() else { return true };
    let one = Demand { cpu_milli: 0, memory_mib: 0, gpu: GpuAsk::mig(name), models: models.to_vec(), ..Demand::default() };
    for gpu in from..boards[0].gpus.len() {
        for used in uses(&one, &boards[0].gpus[gpu].model) {
            let mut after = boards.to_vec();
            let next = if rest.first() == Some(name) { gpu } else { 0 };
            if after.iter_mut().all(|board| board.take(gpu, used)) && fit_each(&after, models, rest, next) {
                return true;
            }
        }
    }
    false
}
