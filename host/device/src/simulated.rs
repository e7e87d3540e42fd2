//! GPUs that do not exist, for trying partita without any: the same answers as a driver's, from memory.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use partita_core::model::{GpuModel, Grid, Placement, catalog};
use sha2::{Digest, Sha256};

use crate::{
    driver::Driver,
    error::DeviceError,
    gpu::{Activation, ComputeInstance, ComputeMode, DriverProfile, Event, GpuInfo, Instance, MigMode, Process},
    nvml::Code,
};

/// The most GPUs of one node.
const GPUS_MAX: u32 = 64;

/// The GPUs of a node that are simulated. They forget everything when the program ends, as GPUs do when a machine is started anew.
pub struct Simulated {
    gpus: Mutex<Vec<Device>>,
    seed: String,
}

struct Device {
    uuid: String,
    model: GpuModel,
    mig: bool,
    compute_mode: ComputeMode,
    instances: Vec<Instance>,
    processes: Vec<Process>,
    made: u64,
}

impl Simulated {
    /// The GPUs that a text names: `H100-80GB×4`, several with commas. `node` makes their UUIDs differ from those of other nodes.
    ///
    /// # Errors
    /// If the text names none.
    pub fn new(text: &str, node: &str) -> Result<Self, DeviceError> {
        let bad = |reason: String| DeviceError::Simulated { text: text.chars().take(128).collect(), reason };
        let mut gpus = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, count) = part.rsplit_once(['×', 'x', '*']).unwrap_or((part, "1"));
            let count: u32 = count.trim().parse().map_err(|_| bad(format!("{count:?} is no number")))?;
            let model = catalog::lookup(name.trim()).map_err(|error| bad(error.to_string()))?;
            if count == 0 || gpus.len() + count as usize > GPUS_MAX as usize {
                return Err(bad(format!("a node has 1 to {GPUS_MAX} GPUs")));
            }
            for _ in 0..count {
                let uuid = format!("GPU-{}", uuid(&format!("{node}/{}", gpus.len())));
                gpus.push(Device::new(uuid, model.clone()));
            }
        }
        Ok(Self { gpus: Mutex::new(gpus), seed: node.to_owned() })
    }

    /// A process uses a GPU or one of its instances from now on.
    pub fn begin(&self, gpu: &str, process: Process) {
        // Nobody can use what is not there.
        let _ = self.on(gpu, "begin", |device| {
            device.processes.push(process);
            Ok(())
        });
    }

    /// A process ended.
    pub fn end(&self, pid: u32) {
        let mut gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        gpus.iter_mut().for_each(|device| device.processes.retain(|one| one.pid != pid));
    }

    fn on<T>(&self, gpu: &str, function: &'static str, act: impl FnOnce(&mut Device) -> Result<T, Code>) -> Result<T, DeviceError> {
        let mut gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        let device = gpus.iter_mut().find(|device| device.uuid == gpu).ok_or(Code::NOT_FOUND);
        device.and_then(act).map_err(|code| DeviceError::Call { function, gpu: gpu.to_owned(), code })
    }
}

impl Device {
    fn new(uuid: String, model: GpuModel) -> Self {
        let (instances, processes) = (Vec::new(), Vec::new());
        Self { uuid, model, mig: false, compute_mode: ComputeMode::Default, instances, processes, made: 0 }
    }

    fn grid(&self) -> Result<&Grid, Code> {
        self.model.grid.as_ref().filter(|_| self.mig).ok_or(Code::NOT_SUPPORTED)
    }

    fn instance(&mut self, id: u32) -> Result<&mut Instance, Code> {
        self.instances.iter_mut().find(|one| one.id == id).ok_or(Code::NOT_FOUND)
    }

    fn is_used(&self, instance: u32) -> bool {
        self.processes.iter().any(|one| one.instance == Some(instance))
    }

    fn create(&mut self, profile_id: u32, (start, size): (u32, u32)) -> Result<u32, Code> {
        let grid = self.grid()?;
        let row = u8::try_from(profile_id).map_err(|_| Code::INVALID_ARGUMENT)?;
        let profile = grid.profiles.get(usize::from(row)).ok_or(Code::INVALID_ARGUMENT)?;
        let start = u8::try_from(start).map_err(|_| Code::INVALID_ARGUMENT)?;
        if u32::from(profile.size) != size || !profile.starts.contains(&start) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let place = |one: &Instance| Placement { profile: one.profile_id as u8, start: one.start as u8 };
        let there: Vec<Placement> = self.instances.iter().map(place).collect();
        if !grid.admits(&there, Placement { profile: row, start }) {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        let id = (1..=u32::from(Grid::SLOTS_MAX)).find(|&id| self.instances.iter().all(|one| one.id != id)).ok_or(Code::UNKNOWN)?;
        self.instances.push(Instance { id, profile_id, start: start.into(), size, compute: Vec::new() });
        self.instances.sort_by_key(|one| one.id);
        Ok(id)
    }
}

impl Driver for Simulated {
    fn version(&self) -> Result<String, DeviceError> {
        Ok("simulated".to_owned())
    }

    fn list(&self) -> Result<Vec<Result<String, DeviceError>>, DeviceError> {
        let gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(gpus.iter().map(|device| Ok(device.uuid.clone())).collect())
    }

    fn info(&self, gpu: &str) -> Result<GpuInfo, DeviceError> {
        let index = self.list()?.iter().position(|uuid| uuid.as_deref() == Ok(gpu)).unwrap_or(0) as u32;
        self.on(gpu, "info", |device| {
            Ok(GpuInfo {
                uuid: device.uuid.clone(),
                index,
                name: device.model.name.clone(),
                minor: None,
                pci: String::new(),
                memory_mib: device.model.memory_mib,
                capability: (0, 0),
                mode: device.model.grid.is_some().then_some(MigMode { current: device.mig, pending: device.mig }),
                virtual_gpu: false,
            })
        })
    }

    fn profiles(&self, gpu: &str) -> Result<Vec<DriverProfile>, DeviceError> {
        self.on(gpu, "profiles", |device| {
            let Some(grid) = &device.model.grid else { return Ok(Vec::new()) };
            let row = |(row, profile): (usize, &partita_core::model::Profile)| DriverProfile {
                index: row as u32,
                id: row as u32,
                name: Some(profile.name.clone()),
                slices: profile.compute.into(),
                count: profile.max.into(),
                memory_mib: profile.memory_mib,
                engines: profile.engines,
                placements: profile.starts.iter().map(|&start| (start.into(), profile.size.into())).collect(),
                ..DriverProfile::default()
            };
            Ok(grid.profiles.iter().enumerate().map(row).collect())
        })
    }

    fn instances(&self, gpu: &str) -> Result<Vec<Instance>, DeviceError> {
        self.on(gpu, "instances", |device| Ok(device.instances.clone()))
    }

    fn create(&self, gpu: &str, profile_id: u32, place: (u32, u32)) -> Result<u32, DeviceError> {
        self.on(gpu, "create", |device| device.create(profile_id, place))
    }

    fn create_compute(&self, gpu: &str, instance: u32) -> Result<u32, DeviceError> {
        self.on(gpu, "create_compute", |device| {
            let slices = device.instance(instance).map(|one| one.profile_id as usize)?;
            let slices = device.grid()?.profiles[slices].compute.into();
            device.made += 1;
            let uuid = format!("MIG-{}", uuid(&format!("{}/{}/{}", self.seed, device.uuid, device.made)));
            let one = device.instance(instance)?;
            if !one.compute.is_empty() {
                return Err(Code::INSUFFICIENT_RESOURCES);
            }
            one.compute.push(ComputeInstance { id: 0, slices, uuid: Some(uuid) });
            Ok(0)
        })
    }

    fn destroy_compute(&self, gpu: &str, instance: u32, compute: u32) -> Result<(), DeviceError> {
        self.on(gpu, "destroy_compute", |device| {
            if device.is_used(instance) {
                return Err(Code::IN_USE);
            }
            let one = device.instance(instance)?;
            let row = one.compute.iter().position(|one| one.id == compute).ok_or(Code::NOT_FOUND)?;
            one.compute.remove(row);
            Ok(())
        })
    }

    fn destroy(&self, gpu: &str, instance: u32) -> Result<(), DeviceError> {
        self.on(gpu, "destroy", |device| {
            if device.is_used(instance) || !device.instance(instance)?.compute.is_empty() {
                return Err(Code::IN_USE);
            }
            device.instances.retain(|one| one.id != instance);
            Ok(())
        })
    }

    fn set_mode(&self, gpu: &str, on: bool) -> Result<Activation, DeviceError> {
        self.on(gpu, "set_mode", |device| {
            if device.model.grid.is_none() {
                return Err(Code::NOT_SUPPORTED);
            }
            if !device.processes.is_empty() || !device.instances.is_empty() {
                return Ok(Activation::InUse);
            }
            device.mig = on;
            if on {
                device.compute_mode = ComputeMode::Default;
            }
            Ok(Activation::Done)
        })
    }

    fn compute_mode(&self, gpu: &str) -> Result<ComputeMode, DeviceError> {
        self.on(gpu, "compute_mode", |device| Ok(device.compute_mode))
    }

    fn set_compute_mode(&self, gpu: &str, mode: ComputeMode) -> Result<(), DeviceError> {
        self.on(gpu, "set_compute_mode", |device| {
            if device.mig {
                return Err(Code::NOT_SUPPORTED);
            }
            device.compute_mode = mode;
            Ok(())
        })
    }

    fn processes(&self, gpu: &str) -> Result<Vec<Process>, DeviceError> {
        self.on(gpu, "processes", |device| Ok(device.processes.clone()))
    }

    /// Simulated GPUs have no errors: it only waits.
    fn next_event(&self, _: &[String], within: Duration) -> Result<Option<Event>, DeviceError> {
        thread::sleep(within);
        Ok(None)
    }
}

/// A UUID made of what it stands for.
fn uuid(of: &str) -> String {
    let digest = Sha256::digest(of.as_bytes());
    let number = digest.iter().take(16).fold(0, |number, &byte| number << 8 | u128::from(byte));
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_gpus_is_refused_with_a_reason() {
        for (text, says) in
            [("", "not among"), ("Voodoo2×1", "Voodoo2"), ("H100-80GB×0", "1 to 64"), ("A30×65", "1 to 64"), ("A30×y", "no number")]
        {
            let error = Simulated::new(text, "a").err().unwrap().to_string();
            assert!(error.contains(says) && error.contains("H100-80GB×4"), "{error}");
        }
        let uuids = |node| Simulated::new("H100-80GB×2,A30", node).unwrap().list().unwrap();
        assert_eq!(uuids("a").len(), 3);
        assert_eq!(uuids("a"), uuids("a"));
        assert_ne!(uuids("a"), uuids("b"));
    }
}
