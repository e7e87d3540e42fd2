//! GPUs, instances and processes, and what a driver makes of calls.

use std::fs;

use partita_core::model::{GpuModel, Grid, Placement, Profile};
use serde::{Deserialize, Serialize};

use crate::{
    faults::Fault,
    geometry::{self, COMPUTE},
};

/// A return code of NVML's other than success.
pub(crate) type Code = u32;
pub(crate) const INVALID_ARGUMENT: Code = 2;
pub(crate) const NOT_SUPPORTED: Code = 3;
pub(crate) const NOT_FOUND: Code = 6;
pub(crate) const GPU_IS_LOST: Code = 15;
pub(crate) const RESET_REQUIRED: Code = 16;
pub(crate) const IN_USE: Code = 19;
pub(crate) const INSUFFICIENT_RESOURCES: Code = 23;

/// The highest number of an instance; a GPU has at most 12 slots.
const ID_MAX: u32 = 31;

/// Everything that is on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of the driver.
    pub driver: String,
    /// The newest struct of profiles that the library knows: 3, 2, or 1 for one without names.
    pub profile_struct: u32,
    /// How often the machine was started.
    pub boots: u32,
    /// The GPUs. A GPU keeps its place here whatever index it has.
    pub gpus: Vec<Gpu>,
    /// Errors that GPUs reported, each with a number.
    pub events: Vec<Xid>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The last serial number given.
    pub serial: u64,
}

/// An error that a GPU reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xid {
    /// Serial number.
    pub serial: u64,
    /// Place of the GPU.
    pub gpu: usize,
    /// NVIDIA's number.
    pub xid: u64,
    /// The GPU instance; none for the whole GPU.
    pub instance: Option<u32>,
}

/// One GPU.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, which tests set one by one")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its model, as partita-core names it.
    pub model: String,
    /// Its product name, as NVML tells it.
    pub product: String,
    /// Its UUID.
    pub uuid: String,
    /// Its index now.
    pub index: u32,
    /// Its minor number now.
    pub minor: u32,
    /// MIG is on.
    pub mig: bool,
    /// MIG will be on after a reset.
    pub pending: bool,
    /// Who may compute on it, as NVML counts: 0 for everybody, 3 for one process.
    #[serde(default)]
    pub compute_mode: u32,
    /// It fell off the bus.
    pub lost: bool,
    /// A hypervisor made it.
    pub virtual_gpu: bool,
    /// Numbers of profiles that the driver does not tell.
    pub untold: Vec<u32>,
    /// The driver tells more instances of a profile than fit, as it does for the A30.
    pub miscounts: bool,
    /// What is on it.
    pub instances: Vec<Instance>,
    /// Who uses it.
    pub holds: Vec<Hold>,
}

/// A GPU instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its number.
    pub id: u32,
    /// What tells it from a later one of the same number.
    pub serial: u64,
    /// Row of the profile in the grid.
    pub profile: u8,
    /// First slot.
    pub start: u8,
    /// Its handle was given out, but it is not there.
    pub phantom: bool,
    /// What computes in it.
    pub compute: Vec<Compute>,
}

/// A compute instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Its number within its GPU instance.
    pub id: u32,
    /// What tells it from a later one of the same number.
    pub serial: u64,
    /// Compute slices.
    pub slices: u32,
    /// UUID of the MIG device.
    pub uuid: String,
    /// Index of the MIG device.
    pub index: u32,
    /// Its handle was given out, but it is not there.
    pub phantom: bool,
}

/// Somebody who uses a GPU or an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The process.
    pub pid: u32,
    /// The GPU instance; none for the whole GPU.
    pub instance: Option<u32>,
    /// It does not compute and so is in no list, but keeps a handle, as DCGM does.
    pub hidden: bool,
    /// It is a process of this machine, and uses the GPU until it ends.
    #[serde(default)]
    pub real: bool,
}

impl Hold {
    /// Whether it is still so. A process that ended and that nobody waits for has no program any more.
    pub(crate) fn is_so(&self) -> bool {
        !self.real || fs::read_link(format!("/proc/{}/exe", self.pid)).is_ok()
    }
}

impl State {
    /// A new number, for serials and UUIDs.
    pub(crate) fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn gpu(&self, gpu: usize) -> Result<&Gpu, Code> {
        let gpu = self.gpus.get(gpu).ok_or(INVALID_ARGUMENT)?;
        if gpu.lost { Err(GPU_IS_LOST) } else { Ok(gpu) }
    }

    fn gpu_mut(&mut self, gpu: usize) -> Result<&mut Gpu, Code> {
        self.gpu(gpu)?;
        self.gpus.get_mut(gpu).ok_or(INVALID_ARGUMENT)
    }

    /// Makes a GPU instance. Returns its serial number.
    pub(crate) fn create(&mut self, gpu: usize, profile_id: u32, (start, size): (u32, u32), phantom: bool) -> Result<u64, Code> {
        let serial = self.next();
        let gpu = self.gpu_mut(gpu)?;
        if !gpu.mig || gpu.virtual_gpu {
            return Err(NOT_SUPPORTED);
        }
        let grid = gpu.grid()?;
        let row = gpu.row_of(profile_id).ok_or(INVALID_ARGUMENT)?;
        let profile = &grid.profiles[usize::from(row)];
        let start = u8::try_from(start).map_err(|_| INVALID_ARGUMENT)?;
        if u32::from(profile.size) != size || !profile.starts.contains(&start) {
            return Err(INVALID_ARGUMENT);
        }
        let there: Vec<Placement> = gpu.real().map(|one| Placement { profile: one.profile, start: one.start }).collect();
        if !grid.admits(&there, Placement { profile: row, start }) {
            return Err(INSUFFICIENT_RESOURCES);
        }
        let first = geometry::first_id(&grid, profile);
        let id = (first..=ID_MAX).find(|&id| gpu.real().all(|one| one.id != id)).ok_or(INSUFFICIENT_RESOURCES)?;
        gpu.instances.push(Instance { id, serial, profile: row, start, phantom, compute: Vec::new() });
        Ok(serial)
    }

    /// Makes a compute instance. Returns its serial number.
    pub(crate) fn create_compute(&mut self, gpu: usize, instance: u64, profile_id: u32, phantom: bool) -> Result<u64, Code> {
        let serial = self.next();
        let uuid = uuid("MIG", serial, self.boots);
        let gpu = self.gpu_mut(gpu)?;
        let index =
            (0..=ID_MAX).find(|&index| gpu.real().flat_map(Instance::real).all(|one| one.index != index)).ok_or(INVALID_ARGUMENT)?;
        let total = gpu.compute_slices(gpu.by_serial(instance)?)?;
        let &(_, slices) = COMPUTE.iter().find(|kind| kind.0 == profile_id && kind.1 <= total).ok_or(INVALID_ARGUMENT)?;
        let instance = gpu.instances.iter_mut().find(|one| one.serial == instance && !one.phantom).ok_or(INVALID_ARGUMENT)?;
        let used: u32 = instance.real().map(|one| one.slices).sum();
        if used + slices > total {
            return Err(INSUFFICIENT_RESOURCES);
        }
        let id = (0..=ID_MAX).find(|&id| instance.real().all(|one| one.id != id)).ok_or(INVALID_ARGUMENT)?;
        instance.compute.push(Compute { id, serial, slices, uuid, index, phantom });
        Ok(serial)
    }

    /// Destroys a compute instance; a phantom says so and does not.
    pub(crate) fn destroy_compute(&mut self, gpu: usize, serial: u64, phantom: bool) -> Result<(), Code> {
        let gpu = self.gpu_mut(gpu)?;
        let (instance, _) = gpu.compute_by_serial(serial)?;
        if gpu.holds.iter().any(|hold| hold.instance == Some(instance.id) && !hold.hidden) {
            return Err(IN_USE);
        }
        for instance in gpu.instances.iter_mut().filter(|_| !phantom) {
            instance.compute.retain(|one| one.serial != serial);
        }
        Ok(())
    }

    /// Destroys a GPU instance; a phantom says so and does not.
    pub(crate) fn destroy(&mut self, gpu: usize, serial: u64, phantom: bool) -> Result<(), Code> {
        let gpu = self.gpu_mut(gpu)?;
        let instance = gpu.by_serial(serial)?;
        if instance.real().next().is_some() || gpu.holds.iter().any(|hold| hold.instance == Some(instance.id)) {
            return Err(IN_USE);
        }
        gpu.instances.retain(|one| phantom || one.serial != serial);
        Ok(())
    }

    /// Switches MIG. Returns what came of it: 0, or a code that says why it is not yet so.
    pub(crate) fn set_mode(&mut self, gpu: usize, on: bool, phantom: bool) -> Result<Code, Code> {
        let gpu = self.gpu_mut(gpu)?;
        gpu.grid()?;
        if gpu.virtual_gpu {
            return Err(NOT_SUPPORTED);
        }
        if phantom {
            return Ok(0);
        }
        if gpu.holds.iter().any(Hold::is_so) || (!on && gpu.real().next().is_some()) {
            return Ok(IN_USE);
        }
        gpu.pending = on;
        if geometry::keeps_mode(&gpu.model) && gpu.mig != on {
            return Ok(RESET_REQUIRED);
        }
        gpu.mig = on;
        if on {
            gpu.compute_mode = 0;
        }
        Ok(0)
    }
}

impl State {
    /// Says who may compute on a GPU; a phantom says so and does not.
    pub(crate) fn set_compute_mode(&mut self, gpu: usize, mode: u32, phantom: bool) -> Result<(), Code> {
        let gpu = self.gpu_mut(gpu)?;
        match mode {
            0 | 2 | 3 if gpu.mig => Err(NOT_SUPPORTED),
            0 | 2 | 3 => {
                gpu.compute_mode = if phantom { gpu.compute_mode } else { mode };
                Ok(())
            }
            // One thread only: no driver has it any more.
            1 => Err(NOT_SUPPORTED),
            _ => Err(INVALID_ARGUMENT),
        }
    }
}

impl Gpu {
    /// What a model is.
    pub(crate) fn described(&self) -> Result<GpuModel, Code> {
        geometry::model(&self.model).ok_or(NOT_SUPPORTED)
    }

    pub(crate) fn grid(&self) -> Result<Grid, Code> {
        self.described()?.grid.ok_or(NOT_SUPPORTED)
    }

    /// The instances that are there.
    pub(crate) fn real(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|one| !one.phantom)
    }

    /// The row of the profile with that id.
    pub(crate) fn row_of(&self, profile_id: u32) -> Option<u8> {
        let grid = self.grid().ok()?;
        grid.profiles
            .iter()
            .position(|profile| self.tells(&grid, profile) && geometry::numbers(&grid, profile).1 == profile_id)
            .map(|row| row as u8)
    }

    /// The row of the profile that is asked for by a number.
    pub(crate) fn row_at(&self, index: u32) -> Option<u8> {
        let grid = self.grid().ok()?;
        grid.profiles
            .iter()
            .position(|profile| self.tells(&grid, profile) && geometry::numbers(&grid, profile).0 == index)
            .map(|row| row as u8)
    }

    fn tells(&self, grid: &Grid, profile: &Profile) -> bool {
        !self.untold.contains(&geometry::numbers(grid, profile).0)
    }

    pub(crate) fn by_serial(&self, serial: u64) -> Result<&Instance, Code> {
        self.instances.iter().find(|one| one.serial == serial).ok_or(INVALID_ARGUMENT)
    }

    pub(crate) fn compute_by_serial(&self, serial: u64) -> Result<(&Instance, &Compute), Code> {
        let all = self.instances.iter().flat_map(|one| one.compute.iter().map(move |compute| (one, compute)));
        all.into_iter().find(|(_, compute)| compute.serial == serial).ok_or(INVALID_ARGUMENT)
    }

    /// The MIG device at an index: there are holes.
    pub(crate) fn mig_device(&self, index: u32) -> Result<(&Instance, &Compute), Code> {
        let all = self.real().flat_map(|one| one.real().map(move |compute| (one, compute)));
        all.into_iter().find(|(_, compute)| compute.index == index).ok_or(NOT_FOUND)
    }

    /// Compute slices of a GPU instance.
    pub(crate) fn compute_slices(&self, instance: &Instance) -> Result<u32, Code> {
        Ok(u32::from(self.grid()?.profiles[usize::from(instance.profile)].compute))
    }

    /// It is reset, or the machine is started: no instance survives. `started`: later models than Ampere forget the mode.
    pub(crate) fn reset(&mut self, started: bool) {
        self.instances.clear();
        self.holds.clear();
        self.compute_mode = 0;
        if started && !geometry::keeps_mode(&self.model) {
            self.pending = false;
        }
        self.mig = self.pending;
    }
}

impl Instance {
    /// The compute instances that are there.
    pub(crate) fn real(&self) -> impl Iterator<Item = &Compute> {
        self.compute.iter().filter(|one| !one.phantom)
    }
}

/// A UUID that looks like one and is the same for the same numbers.
pub(crate) fn uuid(prefix: &str, serial: u64, boots: u32) -> String {
    // Spread over all digits, so that UUIDs differ early.
    let mixed = serial.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{prefix}-{:08x}-{:04x}-5fa4-{boots:04x}-{serial:012x}", mixed >> 32, mixed >> 16 & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of H100's profiles.
    const ONE: u32 = 19;
    const THREE: u32 = 9;

    fn machine(model: &str, mig: bool) -> State {
        State { gpus: vec![Gpu { model: model.to_owned(), mig, pending: mig, ..Gpu::default() }], ..State::default() }
    }

    #[test]
    fn numbers_are_given_again_and_uuids_are_not() {
        let mut state = machine("H100-80GB", true);
        let first = state.create(0, ONE, (3, 1), false).unwrap();
        let second = state.create(0, THREE, (4, 4), false).unwrap();
        let compute = state.create_compute(0, first, 0, false).unwrap();
        let ids: Vec<u32> = state.gpus[0].instances.iter().map(|one| one.id).collect();
        assert_eq!(ids, [7, 1]);
        let uuid = state.gpus[0].instances[0].compute[0].uuid.clone();
        assert_eq!(state.destroy(0, first, false), Err(IN_USE));
        state.destroy_compute(0, compute, false).unwrap();
        state.destroy(0, first, false).unwrap();
        assert_eq!(state.destroy(0, first, false), Err(INVALID_ARGUMENT), "the handle is of the one that is gone");
        let again = state.create(0, ONE, (0, 1), false).unwrap();
        state.create_compute(0, again, 0, false).unwrap();
        let one = state.gpus[0].by_serial(again).unwrap();
        assert!(one.id == 7 && one.compute[0].uuid != uuid && one.compute[0].index == 0);
        assert!(state.gpus[0].by_serial(second).is_ok());
    }

    #[test]
    fn mig_devices_have_holes() {
        let mut state = machine("H100-80GB", true);
        let computes: Vec<u64> = (0..3)
            .map(|start| {
                let serial = state.create(0, ONE, (start, 1), false).unwrap();
                state.create_compute(0, serial, 0, false).unwrap()
            })
            .collect();
        state.destroy_compute(0, computes[1], false).unwrap();
        let there = |state: &State| (0..3).map(|index| state.gpus[0].mig_device(index).is_ok()).collect::<Vec<_>>();
        assert_eq!(there(&state), [true, false, true]);
        assert_eq!(state.create_compute(0, state.gpus[0].instances[0].serial, 0, false), Err(INSUFFICIENT_RESOURCES));
        state.create_compute(0, state.gpus[0].instances[1].serial, 0, false).unwrap();
        assert_eq!(there(&state), [true; 3]);
    }

    #[test]
    fn ampere_keeps_its_mode_and_needs_a_reset_and_later_ones_do_neither() {
        let mut ampere = machine("A100-40GB", false);
        assert_eq!(ampere.create(0, ONE, (0, 1), false), Err(NOT_SUPPORTED));
        assert_eq!((ampere.set_mode(0, true, false), ampere.gpus[0].mig, ampere.gpus[0].pending), (Ok(RESET_REQUIRED), false, true));
        ampere.gpus[0].reset(true);
        assert!(ampere.gpus[0].mig);
        let mut hopper = machine("H100-80GB", false);
        assert_eq!((hopper.set_mode(0, true, false), hopper.gpus[0].mig), (Ok(0), true));
        hopper.create(0, ONE, (0, 1), false).unwrap();
        assert_eq!(hopper.set_mode(0, false, false), Ok(IN_USE));
        hopper.gpus[0].reset(true);
        assert!(!hopper.gpus[0].mig && hopper.gpus[0].instances.is_empty());
        assert_eq!(machine("T4", false).set_mode(0, true, false), Err(NOT_SUPPORTED));
    }
}
