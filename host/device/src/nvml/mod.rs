//! GPUs through NVIDIA's management library, which is opened when the program starts and not linked.

mod code;
mod ffi;

use std::{collections::BTreeSet, ffi::OsStr, path::Path, sync::Mutex, sync::PoisonError, time::Duration};

use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{self, GpuVirtualizationMode},
    error::{NvmlError, nvml_try},
    struct_wrappers::device::ProcessInfo,
};

pub use code::Code;
use ffi::{EventSet, Raw};

use crate::{
    driver::Driver,
    error::DeviceError,
    gpu::{Activation, ComputeMode, DriverProfile, Event, GpuInfo, Instance, MigMode, Process},
};

/// The library's name, found by the system's loader.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// The most profiles that are asked for. 18 are known; the list ends with the first that the driver calls invalid.
const PROFILES_MAX: u32 = 32;
/// Calls of no particular GPU.
const NODE: &str = "the node";

/// A symbol of the library and whether it is there.
macro_rules! symbols {
    ($lib:expr, $($name:ident),* $(,)?) => { vec![$((stringify!($name), $lib.$name.is_ok())),*] };
}

/// NVML, loaded and initialised once.
pub struct NvmlDriver {
    nvml: Nvml,
    events: Mutex<Option<Watch>>,
}

/// Events that are waited for, and of which GPUs.
struct Watch {
    set: EventSet,
    gpus: BTreeSet<String>,
}

impl NvmlDriver {
    /// Opens the library, at `path` or where the system's loader finds it.
    ///
    /// # Errors
    /// If there is no library, no driver, or no permission.
    pub fn load(path: Option<&Path>) -> Result<Self, DeviceError> {
        let library = path.map_or(OsStr::new(LIBRARY), Path::as_os_str);
        let nvml = Nvml::builder().lib_path(library).init().map_err(|error| match error {
            NvmlError::LibloadingError(reason) => {
                DeviceError::NoLibrary { path: library.to_string_lossy().into_owned(), reason: reason.to_string() }
            }
            other => failed("nvmlInit_v2", NODE, other),
        })?;
        Ok(Self { nvml, events: Mutex::new(None) })
    }

    /// The functions that partita calls and whether the library has them.
    #[must_use]
    pub fn symbols(&self) -> Vec<(&'static str, bool)> {
        symbols!(
            self.nvml.lib(),
            nvmlInit_v2,
            nvmlShutdown,
            nvmlSystemGetDriverVersion,
            nvmlDeviceGetCount_v2,
            nvmlDeviceGetHandleByIndex_v2,
            nvmlDeviceGetHandleByUUID,
            nvmlDeviceGetName,
            nvmlDeviceGetUUID,
            nvmlDeviceGetIndex,
            nvmlDeviceGetMinorNumber,
            nvmlDeviceGetPciInfo_v3,
            nvmlDeviceGetMemoryInfo_v2,
            nvmlDeviceGetCudaComputeCapability,
            nvmlDeviceGetVirtualizationMode,
            nvmlDeviceGetMigMode,
            nvmlDeviceSetMigMode,
            nvmlDeviceGetComputeMode,
            nvmlDeviceSetComputeMode,
            nvmlDeviceGetMaxMigDeviceCount,
            nvmlDeviceGetMigDeviceHandleByIndex,
            nvmlDeviceGetDeviceHandleFromMigDeviceHandle,
            nvmlDeviceIsMigDeviceHandle,
            nvmlDeviceGetGpuInstanceId,
            nvmlDeviceGetComputeInstanceId,
            nvmlDeviceGetGpuInstanceProfileInfo,
            nvmlDeviceGetGpuInstanceProfileInfoV,
            nvmlDeviceGetGpuInstancePossiblePlacements_v2,
            nvmlDeviceGetGpuInstances,
            nvmlDeviceGetGpuInstanceById,
            nvmlDeviceCreateGpuInstanceWithPlacement,
            nvmlGpuInstanceGetInfo,
            nvmlGpuInstanceDestroy,
            nvmlGpuInstanceGetComputeInstanceProfileInfo,
            nvmlGpuInstanceGetComputeInstances,
            nvmlGpuInstanceGetComputeInstanceById,
            nvmlGpuInstanceCreateComputeInstance,
            nvmlComputeInstanceGetInfo_v2,
            nvmlComputeInstanceDestroy,
            nvmlDeviceGetComputeRunningProcesses_v3,
            nvmlDeviceGetGraphicsRunningProcesses_v3,
            nvmlDeviceGetSupportedEventTypes,
            nvmlEventSetCreate,
            nvmlDeviceRegisterEvents,
            nvmlEventSetWait_v2,
            nvmlEventSetFree,
        )
    }

    /// (id, compute slices, most at once) of the profiles of compute instances that a GPU instance can have.
    ///
    /// # Errors
    /// If the instance is gone.
    pub fn compute_profiles(&self, gpu: &str, instance: u32) -> Result<Vec<(u32, u32, u32)>, DeviceError> {
        self.raw(gpu, |raw| raw.compute_kinds(instance))
    }

    fn device(&self, gpu: &str) -> Result<Device<'_>, DeviceError> {
        self.nvml.device_by_uuid(gpu).map_err(|error| failed("nvmlDeviceGetHandleByUUID", gpu, error))
    }

    fn raw<T>(&self, gpu: &str, ask: impl FnOnce(&Raw<'_>) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        let device = self.device(gpu)?;
        ask(&Raw::new(&self.nvml, &device, gpu))
    }
}

/// The wrapper's error with the function and the GPU that it is about.
fn failed(function: &'static str, gpu: &str, error: NvmlError) -> DeviceError {
    match error {
        NvmlError::FailedToLoadSymbol(_) => DeviceError::NoFunction { function },
        NvmlError::Utf8Error(error) => DeviceError::Nonsense { function, gpu: gpu.to_owned(), what: error.to_string() },
        other => DeviceError::Call { function, gpu: gpu.to_owned(), code: Code(other.into()) },
    }
}

impl Driver for NvmlDriver {
    fn version(&self) -> Result<String, DeviceError> {
        self.nvml.sys_driver_version().map_err(|error| failed("nvmlSystemGetDriverVersion", NODE, error))
    }

    fn list(&self) -> Result<Vec<Result<String, DeviceError>>, DeviceError> {
        let count = self.nvml.device_count().map_err(|error| failed("nvmlDeviceGetCount_v2", NODE, error))?;
        let one = |index: u32| {
            let name = format!("GPU {index}");
            let device = self.nvml.device_by_index(index).map_err(|error| failed("nvmlDeviceGetHandleByIndex_v2", &name, error))?;
            device.uuid().map_err(|error| failed("nvmlDeviceGetUUID", &name, error))
        };
        Ok((0..count).map(one).collect())
    }

    fn info(&self, gpu: &str) -> Result<GpuInfo, DeviceError> {
        let device = self.device(gpu)?;
        let memory = device.memory_info().map_err(|error| failed("nvmlDeviceGetMemoryInfo_v2", gpu, error))?;
        let capability = device.cuda_compute_capability().map_err(|error| failed("nvmlDeviceGetCudaComputeCapability", gpu, error))?;
        let mode = match device.mig_mode() {
            Ok(mode) => Some(MigMode { current: mode.current == 1, pending: mode.pending == 1 }),
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => None,
            Err(error) => return Err(failed("nvmlDeviceGetMigMode", gpu, error)),
        };
        Ok(GpuInfo {
            uuid: gpu.to_owned(),
            index: device.index().map_err(|error| failed("nvmlDeviceGetIndex", gpu, error))?,
            name: device.name().map_err(|error| failed("nvmlDeviceGetName", gpu, error))?,
            minor: device.minor_number().ok(),
            pci: device.pci_info().map_err(|error| failed("nvmlDeviceGetPciInfo_v3", gpu, error))?.bus_id,
            memory_mib: u32::try_from(memory.total >> 20).unwrap_or(u32::MAX),
            capability: (capability.major, capability.minor),
            mode,
            virtual_gpu: matches!(device.virtualization_mode(), Ok(GpuVirtualizationMode::Vgpu)),
        })
    }

    fn profiles(&self, gpu: &str) -> Result<Vec<DriverProfile>, DeviceError> {
        self.raw(gpu, |raw| {
            let mut profiles = Vec::new();
            for index in 0..PROFILES_MAX {
                match raw.profile(index) {
                    Ok(None) => {}
                    Ok(Some(profile)) => profiles.push(DriverProfile { placements: raw.placements(profile.id)?, ..profile }),
                    Err(DeviceError::Call { code: Code::INVALID_ARGUMENT, .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(profiles)
        })
    }

    fn instances(&self, gpu: &str) -> Result<Vec<Instance>, DeviceError> {
        let profiles = self.profiles(gpu)?;
        self.raw(gpu, |raw| {
            let mut instances = Vec::new();
            for profile in profiles {
                match raw.instances(profile.id) {
                    Ok(found) => instances.extend(found),
                    // MIG is off.
                    Err(DeviceError::Call { code: Code::NOT_SUPPORTED, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            instances.sort_by_key(|one| one.id);
            instances.dedup_by_key(|one| one.id);
            Ok(instances)
        })
    }

    fn create(&self, gpu: &str, profile_id: u32, place: (u32, u32)) -> Result<u32, DeviceError> {
        self.raw(gpu, |raw| raw.create(profile_id, place))
    }

    fn create_compute(&self, gpu: &str, instance: u32) -> Result<u32, DeviceError> {
        self.raw(gpu, |raw| raw.create_compute(instance))
    }

    fn destroy_compute(&self, gpu: &str, instance: u32, compute: u32) -> Result<(), DeviceError> {
        self.raw(gpu, |raw| raw.destroy_compute(instance, compute))
    }

    fn destroy(&self, gpu: &str, instance: u32) -> Result<(), DeviceError> {
        self.raw(gpu, |raw| raw.destroy(instance))
    }

    fn set_mode(&self, gpu: &str, on: bool) -> Result<Activation, DeviceError> {
        let function = "nvmlDeviceSetMigMode";
        // Success says only that the wish was stored; the status says what came of it.
        let status = self.device(gpu)?.set_mig_mode(on).map_err(|error| failed(function, gpu, error))?;
        match Code(status) {
            Code(0) => Ok(Activation::Done),
            Code::RESET_REQUIRED => Ok(Activation::NeedsReset),
            Code::IN_USE => Ok(Activation::InUse),
            _ => nvml_try(status).map(|()| Activation::Done).map_err(|error| failed(function, gpu, error)),
        }
    }

    fn compute_mode(&self, gpu: &str) -> Result<ComputeMode, DeviceError> {
        let mode = self.device(gpu)?.compute_mode().map_err(|error| failed("nvmlDeviceGetComputeMode", gpu, error))?;
        Ok(match mode {
            device::ComputeMode::Default => ComputeMode::Default,
            device::ComputeMode::ExclusiveThread => ComputeMode::ExclusiveThread,
            device::ComputeMode::Prohibited => ComputeMode::Prohibited,
            device::ComputeMode::ExclusiveProcess => ComputeMode::ExclusiveProcess,
        })
    }

    fn set_compute_mode(&self, gpu: &str, mode: ComputeMode) -> Result<(), DeviceError> {
        let mode = match mode {
            ComputeMode::Default => device::ComputeMode::Default,
            ComputeMode::ExclusiveThread => device::ComputeMode::ExclusiveThread,
            ComputeMode::Prohibited => device::ComputeMode::Prohibited,
            ComputeMode::ExclusiveProcess => device::ComputeMode::ExclusiveProcess,
        };
        self.device(gpu)?.set_compute_mode(mode).map_err(|error| failed("nvmlDeviceSetComputeMode", gpu, error))
    }

    fn processes(&self, gpu: &str) -> Result<Vec<Process>, DeviceError> {
        let device = self.device(gpu)?;
        let compute = device.running_compute_processes();
        let mut all = compute.map_err(|error| failed("nvmlDeviceGetComputeRunningProcesses_v3", gpu, error))?;
        match device.running_graphics_processes() {
            Ok(graphics) => all.extend(graphics),
            // No graphics in MIG mode.
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {}
            Err(error) => return Err(failed("nvmlDeviceGetGraphicsRunningProcesses_v3", gpu, error)),
        }
        let mut processes: Vec<Process> =
            all.iter().map(|one: &ProcessInfo| Process { pid: one.pid, instance: one.gpu_instance_id }).collect();
        processes.sort_unstable();
        processes.dedup();
        Ok(processes)
    }

    fn next_event(&self, gpus: &[String], within: Duration) -> Result<Option<Event>, DeviceError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = match &mut *events {
            Some(watch) => watch,
            none => none.insert(Watch { set: EventSet::new(&self.nvml)?, gpus: BTreeSet::new() }),
        };
        for gpu in gpus {
            if watch.gpus.contains(gpu) {
                continue;
            }
            match self.raw(gpu, |raw| raw.register(&watch.set)) {
                Ok(()) => {}
                // It never will.
                Err(DeviceError::Call { code: Code::NOT_SUPPORTED, .. }) => tracing::info!(gpu, "tells of no errors"),
                // One that is lost must not keep the others from being heard; it is tried again.
                Err(error) => {
                    tracing::debug!(gpu, "{error}");
                    continue;
                }
            }
            watch.gpus.insert(gpu.clone());
        }
        let found = watch.set.wait(&self.nvml, u32::try_from(within.as_millis()).unwrap_or(u32::MAX))?;
        Ok(found.map(|(uuid, xid, instance)| Event { uuid, xid, instance }))
    }
}
