//! The functions that nvml-wrapper lacks or gets wrong, each as one safe function. All `unsafe` of this crate is here.
//!
//! What the wrapper 0.13 gets wrong: `possible_placements` is always empty (it never sets the length of its list), `wait` drops the
//! instance of an event, its error has no variant for the codes from 23 on. What it lacks: making, listing and destroying instances.

#![allow(unsafe_code, reason = "the functions of a C library are called; every block says why it is sound")]

use std::{ffi::c_char, mem, ptr};

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    NVML_COMPUTE_INSTANCE_PROFILE_COUNT, nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstanceProfileInfo_t, nvmlDevice_t,
    nvmlEventData_t, nvmlEventSet_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t,
    nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuInstanceProfileInfo_v3_t, nvmlReturn_t,
};
use partita_core::model::Engines;

use super::Code;
use crate::{
    error::DeviceError,
    gpu::{ComputeInstance, DriverProfile, Instance},
};

// The layout that `nvml.h` gives on all 64-bit systems. The version in a struct holds its size, so a wrong one would be refused.
const _: () = assert!(mem::size_of::<nvmlGpuInstanceProfileInfo_t>() == 48);
const _: () = assert!(mem::size_of::<nvmlGpuInstanceProfileInfo_v2_t>() == 152);
const _: () = assert!(mem::size_of::<nvmlGpuInstanceProfileInfo_v3_t>() == 152);
const _: () = assert!(mem::size_of::<nvmlGpuInstanceInfo_t>() == 24);
const _: () = assert!(mem::size_of::<nvmlComputeInstanceInfo_t>() == 32);
const _: () = assert!(mem::size_of::<nvmlEventData_t>() == 32);

/// The most instances that a list has room for; a GPU has at most 12 slots.
const LIST_MAX: usize = 64;
/// The event that tells of errors.
const XID: u64 = 8;
/// No instance: the whole GPU.
const WHOLE: u32 = u32::MAX;
/// Whole GPU instances are shared by compute instances of this engine profile only.
const SHARED_ENGINES: u32 = 0;

/// `NVML_STRUCT_VERSION` of `nvml.h`.
const fn version<T>(number: u32) -> u32 {
    mem::size_of::<T>() as u32 | number << 24
}

/// One GPU, for the raw functions.
pub(super) struct Raw<'n> {
    nvml: &'n Nvml,
    device: nvmlDevice_t,
    gpu: &'n str,
}

/// Calls a function of the library by name and makes an error of what it answers.
macro_rules! call {
    ($raw:expr, $function:ident($($argument:expr),*)) => {{
        let name = stringify!($function);
        match $raw.nvml.lib().$function.as_ref() {
            Err(_) => Err(DeviceError::NoFunction { function: name }),
            // SAFETY: the symbol was found in the library under the name that `nvml.h` gives this signature, the handles came from the
            // same library and are only numbers to us, and every pointer is to a local that outlives the call and has the room that is
            // told with it.
            Ok(function) => check(name, $raw.gpu, unsafe { function($($argument),*) }),
        }
    }};
}

/// What any of the three structs of a profile tells, without index and name.
macro_rules! told {
    ($info:expr) => {
        DriverProfile {
            id: $info.id,
            slices: $info.sliceCount,
            count: $info.instanceCount,
            memory_mib: $info.memorySizeMB as u32,
            multiprocessors: $info.multiprocessorCount,
            copy_engines: $info.copyEngineCount,
            engines: engines($info.decoderCount, $info.encoderCount, $info.jpegCount, $info.ofaCount),
            ..DriverProfile::default()
        }
    };
}

/// A struct of a profile that has a version and a name.
trait Named {
    fn empty() -> Self;
    fn told(&self) -> DriverProfile;
}

impl Named for nvmlGpuInstanceProfileInfo_v2_t {
    fn empty() -> Self {
        Self { version: version::<Self>(2), ..zeroed() }
    }

    fn told(&self) -> DriverProfile {
        DriverProfile { name: name_of(&self.name), ..told!(self) }
    }
}

impl Named for nvmlGpuInstanceProfileInfo_v3_t {
    fn empty() -> Self {
        Self { version: version::<Self>(3), ..zeroed() }
    }

    fn told(&self) -> DriverProfile {
        DriverProfile { name: name_of(&self.name), ..told!(self) }
    }
}

/// Whether the library may only be too old for the struct. A number past the last profile says the same.
fn is_older<T>(answer: &Result<T, DeviceError>) -> bool {
    matches!(
        answer,
        Err(DeviceError::NoFunction { .. } | DeviceError::Call { code: Code::ARGUMENT_VERSION_MISMATCH | Code::INVALID_ARGUMENT, .. })
    )
}

fn check(function: &'static str, gpu: &str, code: nvmlReturn_t) -> Result<(), DeviceError> {
    if code == 0 { Ok(()) } else { Err(DeviceError::Call { function, gpu: gpu.to_owned(), code: Code(code) }) }
}

/// A struct of NVML's that the library fills in.
fn zeroed<T: Copy>() -> T {
    // SAFETY: called only for structs of NVML, all of which are numbers, arrays of numbers and pointers, for which zero is a value.
    unsafe { mem::zeroed() }
}

impl<'n> Raw<'n> {
    pub(super) fn new(nvml: &'n Nvml, device: &Device<'n>, gpu: &'n str) -> Self {
        // SAFETY: the handle is used only while `nvml` is borrowed, and never freed, which device handles need not be.
        let device = unsafe { device.handle() };
        Self { nvml, device, gpu }
    }

    /// The profile that is asked for by `index`, without its placements; none if the GPU has no such profile, and the end of the list as
    /// [`Code::INVALID_ARGUMENT`].
    pub(super) fn profile(&self, index: u32) -> Result<Option<DriverProfile>, DeviceError> {
        // Drivers before 470 have neither the function nor names, and each struct has drivers that do not know it yet.
        let mut answer = self.named_profile::<nvmlGpuInstanceProfileInfo_v3_t>(index);
        if is_older(&answer) {
            answer = self.named_profile::<nvmlGpuInstanceProfileInfo_v2_t>(index);
        }
        if is_older(&answer) {
            answer = self.unnamed_profile(index);
        }
        match answer {
            Err(DeviceError::Call { code: Code::NOT_SUPPORTED, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn named_profile<T: Named>(&self, index: u32) -> Result<DriverProfile, DeviceError> {
        let mut info: T = T::empty();
        // The bindings know one signature; the library tells the structs apart by their version.
        call!(self, nvmlDeviceGetGpuInstanceProfileInfoV(self.device, index, ptr::from_mut(&mut info).cast()))?;
        Ok(DriverProfile { index, ..info.told() })
    }

    fn unnamed_profile(&self, index: u32) -> Result<DriverProfile, DeviceError> {
        let mut info: nvmlGpuInstanceProfileInfo_t = zeroed();
        call!(self, nvmlDeviceGetGpuInstanceProfileInfo(self.device, index, &raw mut info))?;
        Ok(DriverProfile { index, ..told!(info) })
    }

    /// Where a partition of a profile may lie on an empty GPU.
    pub(super) fn placements(&self, profile_id: u32) -> Result<Vec<(u32, u32)>, DeviceError> {
        let mut list = [zeroed::<nvmlGpuInstancePlacement_t>(); LIST_MAX];
        let mut count = LIST_MAX as u32;
        let first = list.as_mut_ptr();
        call!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(self.device, profile_id, first, &raw mut count))?;
        Ok(list.iter().take(count as usize).map(|one| (one.start, one.size)).collect())
    }

    /// The GPU instances of a profile.
    pub(super) fn instances(&self, profile_id: u32) -> Result<Vec<Instance>, DeviceError> {
        let mut list = [ptr::null_mut(); LIST_MAX];
        let mut count = LIST_MAX as u32;
        call!(self, nvmlDeviceGetGpuInstances(self.device, profile_id, list.as_mut_ptr(), &raw mut count))?;
        list.iter().take(count as usize).map(|&handle| self.instance(handle)).collect()
    }

    fn instance(&self, handle: nvmlGpuInstance_t) -> Result<Instance, DeviceError> {
        let mut info: nvmlGpuInstanceInfo_t = zeroed();
        call!(self, nvmlGpuInstanceGetInfo(handle, &raw mut info))?;
        let mut instance = Instance {
            id: info.id,
            profile_id: info.profileId,
            start: info.placement.start,
            size: info.placement.size,
            compute: Vec::new(),
        };
        for profile in self.compute_profiles(handle)? {
            let mut list: [nvmlComputeInstance_t; LIST_MAX] = [ptr::null_mut(); LIST_MAX];
            let mut count = LIST_MAX as u32;
            call!(self, nvmlGpuInstanceGetComputeInstances(handle, profile.id, list.as_mut_ptr(), &raw mut count))?;
            for &compute in list.iter().take(count as usize) {
                let mut info: nvmlComputeInstanceInfo_t = zeroed();
                call!(self, nvmlComputeInstanceGetInfo_v2(compute, &raw mut info))?;
                let uuid = self.mig_uuid(info.device, instance.id, info.id)?;
                instance.compute.push(ComputeInstance { id: info.id, slices: profile.sliceCount, uuid });
            }
        }
        instance.compute.sort_by_key(|one| one.id);
        // Two profiles of one size list the same instances.
        instance.compute.dedup_by_key(|one| one.id);
        Ok(instance)
    }

    /// The UUID of the MIG device that `device` is, or else of the one of these instances.
    fn mig_uuid(&self, device: nvmlDevice_t, instance: u32, compute: u32) -> Result<Option<String>, DeviceError> {
        if let Some(uuid) = self.uuid_of(device).filter(|uuid| uuid.starts_with("MIG-")) {
            return Ok(Some(uuid));
        }
        // Older drivers tell the GPU instead: then the list is walked, in which there are holes.
        let mut count = 0;
        call!(self, nvmlDeviceGetMaxMigDeviceCount(self.device, &raw mut count))?;
        for index in 0..count {
            let mut mig = ptr::null_mut();
            if call!(self, nvmlDeviceGetMigDeviceHandleByIndex(self.device, index, &raw mut mig)).is_err() {
                continue;
            }
            let (mut gi, mut ci) = (WHOLE, WHOLE);
            call!(self, nvmlDeviceGetGpuInstanceId(mig, &raw mut gi))?;
            call!(self, nvmlDeviceGetComputeInstanceId(mig, &raw mut ci))?;
            if (gi, ci) == (instance, compute) {
                return Ok(self.uuid_of(mig));
            }
        }
        Ok(None)
    }

    fn uuid_of(&self, device: nvmlDevice_t) -> Option<String> {
        if device.is_null() {
            return None;
        }
        // SAFETY: the library gave the handle just now, and the wrapper only passes it back.
        unsafe { Device::new(device, self.nvml) }.uuid().ok()
    }

    /// The profiles of compute instances that a GPU instance has.
    fn compute_profiles(&self, handle: nvmlGpuInstance_t) -> Result<Vec<nvmlComputeInstanceProfileInfo_t>, DeviceError> {
        let mut profiles = Vec::new();
        for index in 0..NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
            let mut info: nvmlComputeInstanceProfileInfo_t = zeroed();
            match call!(self, nvmlGpuInstanceGetComputeInstanceProfileInfo(handle, index, SHARED_ENGINES, &raw mut info)) {
                Ok(()) => profiles.push(info),
                Err(DeviceError::Call { code: Code::NOT_SUPPORTED, .. }) => {}
                Err(DeviceError::Call { code: Code::INVALID_ARGUMENT, .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(profiles)
    }

    /// (id, compute slices, most at once) of the profiles of compute instances in a GPU instance.
    pub(super) fn compute_kinds(&self, instance: u32) -> Result<Vec<(u32, u32, u32)>, DeviceError> {
        let handle = self.handle(instance)?;
        Ok(self.compute_profiles(handle)?.iter().map(|one| (one.id, one.sliceCount, one.instanceCount)).collect())
    }

    fn handle(&self, instance: u32) -> Result<nvmlGpuInstance_t, DeviceError> {
        let mut handle = ptr::null_mut();
        call!(self, nvmlDeviceGetGpuInstanceById(self.device, instance, &raw mut handle))?;
        Ok(handle)
    }

    /// Makes a GPU instance at a place of (first slot, slots).
    pub(super) fn create(&self, profile_id: u32, (start, size): (u32, u32)) -> Result<u32, DeviceError> {
        let place = nvmlGpuInstancePlacement_t { start, size };
        let mut handle = ptr::null_mut();
        call!(self, nvmlDeviceCreateGpuInstanceWithPlacement(self.device, profile_id, &raw const place, &raw mut handle))?;
        let mut info: nvmlGpuInstanceInfo_t = zeroed();
        call!(self, nvmlGpuInstanceGetInfo(handle, &raw mut info))?;
        Ok(info.id)
    }

    /// Makes the compute instance that has all of a GPU instance.
    pub(super) fn create_compute(&self, instance: u32) -> Result<u32, DeviceError> {
        let handle = self.handle(instance)?;
        let whole = self.compute_profiles(handle)?.into_iter().max_by_key(|one| (one.sliceCount, std::cmp::Reverse(one.id)));
        let Some(whole) = whole else {
            let (function, what) = ("nvmlGpuInstanceGetComputeInstanceProfileInfo", format!("no profile for GPU instance {instance}"));
            return Err(DeviceError::Nonsense { function, gpu: self.gpu.to_owned(), what });
        };
        let mut compute = ptr::null_mut();
        call!(self, nvmlGpuInstanceCreateComputeInstance(handle, whole.id, &raw mut compute))?;
        let mut info: nvmlComputeInstanceInfo_t = zeroed();
        call!(self, nvmlComputeInstanceGetInfo_v2(compute, &raw mut info))?;
        Ok(info.id)
    }

    pub(super) fn destroy_compute(&self, instance: u32, compute: u32) -> Result<(), DeviceError> {
        let handle = self.handle(instance)?;
        let mut found = ptr::null_mut();
        call!(self, nvmlGpuInstanceGetComputeInstanceById(handle, compute, &raw mut found))?;
        call!(self, nvmlComputeInstanceDestroy(found))
    }

    pub(super) fn destroy(&self, instance: u32) -> Result<(), DeviceError> {
        let handle = self.handle(instance)?;
        call!(self, nvmlGpuInstanceDestroy(handle))
    }

    /// Lets a set tell of this GPU's errors.
    pub(super) fn register(&self, set: &EventSet) -> Result<(), DeviceError> {
        call!(self, nvmlDeviceRegisterEvents(self.device, XID, set.0))
    }
}

/// A set of events that lives as long as the library. It is never freed: the program waits for events as long as it runs.
pub(super) struct EventSet(nvmlEventSet_t);

// SAFETY: the handle is a number to us, and NVML may be called from any thread.
unsafe impl Send for EventSet {}

impl EventSet {
    pub(super) fn new(nvml: &Nvml) -> Result<Self, DeviceError> {
        let raw = Raw { nvml, device: ptr::null_mut(), gpu: "the node" };
        let mut set = ptr::null_mut();
        call!(raw, nvmlEventSetCreate(&raw mut set))?;
        Ok(Self(set))
    }

    /// The next error as (UUID of the GPU, number, GPU instance); none if there is none within the time.
    pub(super) fn wait(&self, nvml: &Nvml, milliseconds: u32) -> Result<Option<(String, u64, Option<u32>)>, DeviceError> {
        let raw = Raw { nvml, device: ptr::null_mut(), gpu: "the node" };
        let mut data: nvmlEventData_t = zeroed();
        match call!(raw, nvmlEventSetWait_v2(self.0, &raw mut data, milliseconds)) {
            Err(DeviceError::Call { code: Code::TIMEOUT, .. }) => return Ok(None),
            other => other?,
        }
        let uuid = raw.uuid_of(data.device).unwrap_or_default();
        let instance = Some(data.gpuInstanceId).filter(|&id| id != WHOLE);
        Ok(Some((uuid, data.eventData, instance)))
    }
}

fn engines(decoder: u32, encoder: u32, jpeg: u32, ofa: u32) -> Engines {
    let small = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    Engines { decoder: small(decoder), encoder: small(encoder), jpeg: small(jpeg), ofa: small(ofa) }
}

/// `MIG 1g.10gb` as `1g.10gb`.
fn name_of(text: &[c_char]) -> Option<String> {
    let bytes: Vec<u8> = text.iter().take_while(|&&byte| byte != 0).map(|&byte| byte.cast_unsigned()).collect();
    let text = String::from_utf8_lossy(&bytes);
    let name = text.trim().trim_start_matches("MIG").trim().to_owned();
    if name.is_empty() { None } else { Some(name) }
}
