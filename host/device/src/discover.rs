//! What is on a GPU, in partita's words: its model, how MIG can cut it, its partitions and who uses them.

use partita_core::model::{Engines, GpuModel, Grid, Profile, ProfileName, SlotMask, Variant, product};

use crate::{
    driver::Driver,
    error::DeviceError,
    gpu::{DriverProfile, GpuInfo, Instance, Process},
    mig::Spec,
    nvml::Code,
};

/// How MIG can cut a GPU: partita's grid, and the driver's ids of its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The grid; none for a GPU that MIG cannot cut, or whose driver says what cannot be.
    pub grid: Option<Grid>,
    /// The driver's id of each row.
    pub ids: Vec<u32>,
    /// The grid is what the driver says, since partita does not know the model or knows it otherwise.
    pub from_driver: bool,
    /// What the driver says that cannot be.
    pub problem: Option<String>,
}

impl Table {
    /// From what a driver says of its profiles and what partita knows of the model.
    #[must_use]
    pub fn of(told: &[DriverProfile], known: Option<&Grid>) -> Self {
        if told.is_empty() {
            return Self::default();
        }
        let (grid, ids) = grid_of(told, known);
        if let Some(known) = known
            && let Some(ids) = same(&grid, &ids, known)
        {
            return Self { grid: Some(known.clone()), ids, ..Self::default() };
        }
        match grid.validate() {
            Ok(()) => Self { grid: Some(grid), ids, from_driver: true, problem: None },
            Err(error) => Self { problem: Some(format!("the driver's table of profiles cannot be used: {error}")), ..Self::default() },
        }
    }

    /// The row of the driver's profile.
    #[must_use]
    pub fn row(&self, profile_id: u32) -> Option<u8> {
        self.ids.iter().position(|&id| id == profile_id).map(|row| row as u8)
    }

    /// What an instance is; none for a profile that is not in the table.
    #[must_use]
    pub fn spec(&self, instance: &Instance) -> Option<Spec> {
        let profile = self.grid.as_ref()?.profiles.get(usize::from(self.row(instance.profile_id)?))?;
        Some(Spec { profile: profile.name.clone(), start: u8::try_from(instance.start).ok()? })
    }
}

/// The rows of `known` with the driver's ids, if the driver says the same of every one of them and has no others. Memory and engines may
/// differ, which they do from driver to driver.
fn same(grid: &Grid, ids: &[u32], known: &Grid) -> Option<Vec<u32>> {
    let row_of =
        |profile: &Profile| grid.profiles.iter().position(|one| known.resolve(&one.name).ok() == known.resolve(&profile.name).ok());
    let alike = |one: &Profile, other: &Profile| {
        (one.compute, one.size, one.start_mask(), one.max) == (other.compute, other.size, other.start_mask(), other.max)
    };
    let rows: Option<Vec<usize>> = known.profiles.iter().map(|ours| row_of(ours).filter(|&row| alike(ours, &grid.profiles[row]))).collect();
    rows.filter(|rows| rows.len() == grid.profiles.len() && grid.slots == known.slots)
        .map(|rows| rows.into_iter().map(|row| ids[row]).collect())
}

/// The grid that a driver tells, smallest profiles first, and the ids of its rows.
fn grid_of(told: &[DriverProfile], known: Option<&Grid>) -> (Grid, Vec<u32>) {
    let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    let end = |one: &DriverProfile| one.placements.iter().map(|place| place.0.saturating_add(place.1)).max().unwrap_or(0);
    let slots = small(told.iter().map(end).max().unwrap_or(0));
    let compute = small(told.iter().map(|one| one.slices).max().unwrap_or(0));
    let most = |count: fn(&Engines) -> u8| told.iter().map(|one| count(&one.engines)).max().unwrap_or(0);
    let engines = Engines { decoder: most(|e| e.decoder), encoder: most(|e| e.encoder), jpeg: most(|e| e.jpeg), ofa: most(|e| e.ofa) };
    let mut rows: Vec<&DriverProfile> = told.iter().collect();
    let size = |one: &DriverProfile| one.placements.first().map_or(0, |place| place.1);
    rows.sort_by_key(|one| (size(one), one.slices, one.index));
    let mut grid = Grid { engines, ..Grid::new(slots, compute, Vec::new()) };
    for one in &rows {
        let mut starts: Vec<u8> = one.placements.iter().map(|place| small(place.0)).collect();
        starts.sort_unstable();
        let name = one.name.clone().unwrap_or_else(|| name_for(one, small(size(one)), known));
        let profile =
            Profile { engines: one.engines, ..Profile::new(&name, small(one.slices), small(size(one)), one.memory_mib, &starts, 0) };
        // Some drivers tell more than can be: for the A30, twice as many.
        let max = small(one.count).min(grid.reachable(&profile));
        grid.profiles.push(Profile { max, ..profile });
    }
    (grid, rows.iter().map(|one| one.id).collect())
}

/// A name for a profile of a driver that tells none: partita's for the same shape, or one made as NVIDIA makes them.
fn name_for(told: &DriverProfile, size: u8, known: Option<&Grid>) -> String {
    let variant = match told.index {
        7 | 8 => Variant::Media,
        10..=12 | 17 => Variant::Graphics,
        13 | 14 => Variant::NoMedia,
        15 | 16 => Variant::AllMedia,
        _ => Variant::Plain,
    };
    let alike = |ours: &&Profile| (u32::from(ours.compute), ours.size, ours.variant()) == (told.slices, size, variant);
    if let Some(ours) = known.and_then(|grid| grid.profiles.iter().find(alike)) {
        return ours.name.clone();
    }
    let (compute, gb) = (u8::try_from(told.slices).unwrap_or(u8::MAX), u16::try_from((told.memory_mib + 512) >> 10).unwrap_or(u16::MAX));
    ProfileName { compute, gb, variant }.to_string()
}

/// A GPU as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// What its driver says of it.
    pub info: GpuInfo,
    /// What partita calls its model, with the grid that holds for it.
    pub model: GpuModel,
    /// How MIG can cut it.
    pub table: Table,
    /// What is on it, by id of the GPU instance.
    pub instances: Vec<Instance>,
    /// Who uses it.
    pub processes: Vec<Process>,
    /// Why the driver does not tell who uses it, if it does not; then nothing on it may be destroyed.
    pub blind: Option<String>,
    /// Why it cannot be used, or nothing.
    pub unusable: Option<String>,
    /// What else there is to say: what an operator could do so that it can be cut.
    pub notes: Vec<String>,
}

impl Gpu {
    /// A GPU of a model, of which nothing is known yet.
    pub(crate) fn of(model: GpuModel) -> Self {
        Self {
            info: GpuInfo::default(),
            model,
            table: Table::default(),
            instances: Vec::new(),
            processes: Vec::new(),
            blind: None,
            unusable: None,
            notes: Vec::new(),
        }
    }

    /// Whether MIG is on.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.info.mode.is_some_and(|mode| mode.current)
    }

    /// Of `processes`, those that use a GPU instance, or the GPU as a whole. On a GPU that MIG cuts nobody can use the whole: a process
    /// of which the driver does not tell the instance (it tells only root) may use any of them.
    pub fn users_of<'p>(&self, instance: Option<u32>, processes: &'p [Process]) -> impl Iterator<Item = u32> + use<'p> {
        let cut = self.is_cut();
        processes.iter().filter(move |one| one.instance == instance || (cut && one.instance.is_none())).map(|one| one.pid)
    }

    /// The slots that an instance covers.
    #[must_use]
    pub fn slots_of(instance: &Instance) -> SlotMask {
        let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
        SlotMask::span(small(instance.start), small(instance.size))
    }
}

/// Looks at a GPU.
///
/// # Errors
/// If it does not answer at all. What it does not tell otherwise is in [`Gpu::unusable`] and [`Gpu::notes`].
pub fn look(driver: &dyn Driver, uuid: &str) -> Result<Gpu, DeviceError> {
    let info = driver.info(uuid)?;
    let model = product::describe(&info.name, info.memory_mib, None);
    let mut gpu = Gpu { info, ..Gpu::of(model) };
    if gpu.info.virtual_gpu {
        gpu.notes.push("a hypervisor made this GPU (vGPU), so MIG cannot cut it from inside; cut it on the host".to_owned());
        gpu.model.grid = None;
    } else if gpu.info.mode.is_some() {
        match driver.profiles(uuid) {
            Ok(told) => gpu.table = Table::of(&told, gpu.model.grid.as_ref()),
            // It can be used whole all the same.
            Err(error) if !gpu.is_cut() && error.code().is_some_and(|code| code != Code::GPU_IS_LOST) => {
                gpu.notes.push(format!("MIG cannot cut it, since the driver does not tell its profiles: {error}"));
            }
            Err(error) => return Err(error),
        }
        if gpu.table.from_driver {
            gpu.model = product::describe(&gpu.info.name, gpu.info.memory_mib, gpu.table.grid.as_ref());
        }
        gpu.model.grid.clone_from(&gpu.table.grid);
        gpu.notes.extend(gpu.table.problem.clone());
        if gpu.is_cut() {
            gpu.instances = driver.instances(uuid)?;
        }
    } else {
        gpu.model.grid = None;
    }
    if let Some(mode) = gpu.info.mode.filter(|mode| mode.current != mode.pending) {
        let word = if mode.pending { "on" } else { "off" };
        gpu.notes
            .push(format!("MIG will be {word} after a reset: run nvidia-smi --gpu-reset while nobody uses the GPU, or restart the node"));
    }
    match driver.processes(uuid) {
        Ok(processes) => gpu.processes = processes,
        Err(error @ DeviceError::Hangs { .. }) => return Err(error),
        Err(error) => gpu.blind = Some(error.to_string()),
    }
    Ok(gpu)
}

#[cfg(test)]
mod tests {
    use partita_core::model::catalog;

    use super::*;

    fn told(grid: &Grid, named: bool) -> Vec<DriverProfile> {
        let row = |(row, profile): (usize, &Profile)| DriverProfile {
            index: row as u32,
            id: 100 + row as u32,
            name: named.then(|| profile.name.clone()),
            slices: profile.compute.into(),
            count: profile.max.into(),
            memory_mib: profile.memory_mib,
            engines: profile.engines,
            placements: profile.starts.iter().map(|&start| (start.into(), profile.size.into())).collect(),
            ..DriverProfile::default()
        };
        grid.profiles.iter().enumerate().map(row).collect()
    }

    #[test]
    fn what_partita_knows_and_the_driver_says_is_one() {
        for name in catalog::names() {
            let Some(grid) = catalog::builtin(name).unwrap().grid else { continue };
            let mut driver = told(&grid, true);
            driver.reverse();
            driver[0].count *= 2;
            let table = Table::of(&driver, Some(&grid));
            assert_eq!((table.grid.as_ref(), table.from_driver), (Some(&grid), false), "{name}");
            assert_eq!(table.ids, (100..100 + grid.profiles.len() as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_unknown_model_is_what_its_driver_says() {
        for name in catalog::names() {
            let Some(grid) = catalog::builtin(name).unwrap().grid else { continue };
            let table = Table::of(&told(&grid, true), None);
            let own = table.grid.clone().unwrap();
            assert!(table.from_driver && table.problem.is_none());
            let shape = |grid: &Grid| {
                let mut rows: Vec<_> = grid.profiles.iter().map(|one| (one.name.clone(), one.size, one.start_mask(), one.max)).collect();
                rows.sort();
                (grid.slots, grid.compute, rows)
            };
            assert_eq!(shape(&own), shape(&grid), "{name}");
            assert_eq!(own.validate(), Ok(()));
        }
    }

    #[test]
    fn a_driver_that_differs_is_believed_if_it_can_be() {
        let grid = catalog::builtin("H100-80GB").unwrap().grid.unwrap();
        let mut fewer = told(&grid, true);
        fewer.pop();
        let table = Table::of(&fewer, Some(&grid));
        assert_eq!((table.from_driver, table.grid.unwrap().profiles.len()), (true, 6));
        let mut mad = told(&grid, true);
        mad[0].placements.push((200, 1));
        let table = Table::of(&mad, Some(&grid));
        assert!(table.grid.is_none() && table.problem.unwrap().contains("1 to 12 memory slots"));
    }

    #[test]
    fn profiles_without_names_get_the_usual_ones() {
        let a30 = catalog::builtin("A30").unwrap().grid.unwrap();
        let mut driver = told(&a30, false);
        for (row, index) in driver.iter_mut().zip([0, 7, 1, 8, 3]) {
            row.index = index;
        }
        assert_eq!(Table::of(&driver, Some(&a30)).grid, Some(a30));
        let names: Vec<String> = Table::of(&driver, None).grid.unwrap().profiles.into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["1g.6gb", "1g.6gb+me", "2g.12gb", "2g.12gb+me", "4g.23gb"]);
    }
}
