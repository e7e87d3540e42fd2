//! Profiles and GPU instances.

use std::ffi::c_char;

use nvml_wrapper_sys::bindings::{
    nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuInstanceProfileInfo_v3_t,
};
use partita_core::model::Profile;

use super::{
    VERSION_MISMATCH, ask, ask_gpu, change, exported, gpu_of,
    pointer::{Out, Ref, field},
};
use crate::{
    geometry::{self, INDEX_END},
    handles::Handle,
    machine::{Code, Gpu, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED},
};

const V2: u32 = size_of::<nvmlGpuInstanceProfileInfo_v2_t>() as u32 | 2 << 24;
const V3: u32 = size_of::<nvmlGpuInstanceProfileInfo_v3_t>() as u32 | 3 << 24;

/// What drivers tell of a profile.
struct Told {
    id: u32,
    count: u32,
    multiprocessors: u32,
    profile: Profile,
    name: [c_char; 96],
}

fn told(gpu: &Gpu, row: u8) -> Result<Told, Code> {
    let grid = gpu.grid()?;
    let profile = grid.profiles[usize::from(row)].clone();
    Ok(Told {
        id: geometry::numbers(&grid, &profile).1,
        count: u32::from(profile.max) * if gpu.miscounts { 2 } else { 1 },
        multiprocessors: u32::from(profile.compute) * geometry::multiprocessors(&gpu.model),
        name: field(&format!("MIG {}", profile.name)),
        profile,
    })
}

fn by_index(gpu: &Gpu, index: u32) -> Result<Told, Code> {
    gpu.grid()?;
    if index >= INDEX_END {
        return Err(INVALID_ARGUMENT);
    }
    told(gpu, gpu.row_at(index).ok_or(NOT_SUPPORTED)?)
}

impl Told {
    fn unnamed(&self) -> nvmlGpuInstanceProfileInfo_t {
        let engines = self.profile.engines;
        nvmlGpuInstanceProfileInfo_t {
            id: self.id,
            isP2pSupported: 0,
            sliceCount: self.profile.compute.into(),
            instanceCount: self.count,
            multiprocessorCount: self.multiprocessors,
            copyEngineCount: self.profile.compute.into(),
            decoderCount: engines.decoder.into(),
            encoderCount: engines.encoder.into(),
            jpegCount: engines.jpeg.into(),
            ofaCount: engines.ofa.into(),
            memorySizeMB: self.profile.memory_mib.into(),
        }
    }
}

/// What a handle of a GPU instance stands for.
fn instance_of(instance: Ref) -> Result<(usize, u64), Code> {
    match instance.handle()? {
        Handle::Instance { gpu, serial } => Ok((gpu, serial)),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// As `nvml.h` has it: the GPU, its number, its profile, its place.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Info {
    device: Ref,
    id: u32,
    profile_id: u32,
    placement: nvmlGpuInstancePlacement_t,
}

exported! {
    fn nvmlDeviceGetGpuInstanceProfileInfo(device: Ref, index: u32, to: Out<nvmlGpuInstanceProfileInfo_t>) {
        to.put(ask_gpu("nvmlDeviceGetGpuInstanceProfileInfo", device, |gpu| by_index(gpu, index))?.unnamed())
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoV(device: Ref, index: u32, to: Out<nvmlGpuInstanceProfileInfo_v2_t>) {
        let version = to.cast::<u32>().get()?;
        let gpu = gpu_of(device)?;
        let (newest, told) = ask("nvmlDeviceGetGpuInstanceProfileInfoV", Some(gpu), |state| {
            Ok((state.profile_struct, by_index(state.gpu(gpu)?, index)?))
        })?;
        let plain = told.unnamed();
        match version {
            V2 if newest >= 2 => to.put(nvmlGpuInstanceProfileInfo_v2_t {
                version,
                id: plain.id,
                isP2pSupported: plain.isP2pSupported,
                sliceCount: plain.sliceCount,
                instanceCount: plain.instanceCount,
                multiprocessorCount: plain.multiprocessorCount,
                copyEngineCount: plain.copyEngineCount,
                decoderCount: plain.decoderCount,
                encoderCount: plain.encoderCount,
                jpegCount: plain.jpegCount,
                ofaCount: plain.ofaCount,
                memorySizeMB: plain.memorySizeMB,
                name: told.name,
            }),
            V3 if newest >= 3 => to.cast().put(nvmlGpuInstanceProfileInfo_v3_t {
                version,
                id: plain.id,
                sliceCount: plain.sliceCount,
                instanceCount: plain.instanceCount,
                multiprocessorCount: plain.multiprocessorCount,
                copyEngineCount: plain.copyEngineCount,
                decoderCount: plain.decoderCount,
                encoderCount: plain.encoderCount,
                jpegCount: plain.jpegCount,
                ofaCount: plain.ofaCount,
                memorySizeMB: plain.memorySizeMB,
                name: told.name,
                capabilities: 0,
            }),
            _ => Err(VERSION_MISMATCH),
        }
    }

    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: Ref,
        profile_id: u32,
        to: Out<nvmlGpuInstancePlacement_t>,
        count: Out<u32>,
    ) {
        let found = ask_gpu("nvmlDeviceGetGpuInstancePossiblePlacements_v2", device, |gpu| {
            let row = gpu.row_of(profile_id).ok_or(INVALID_ARGUMENT)?;
            let profile = &gpu.grid()?.profiles[usize::from(row)];
            let place = |&start: &u8| nvmlGpuInstancePlacement_t { start: start.into(), size: profile.size.into() };
            Ok(profile.starts.iter().map(place).collect::<Vec<_>>())
        })?;
        to.list(count, &found)
    }

    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: Ref,
        profile_id: u32,
        placement: Out<nvmlGpuInstancePlacement_t>,
        to: Out<Ref>,
    ) {
        let (gpu, place) = (gpu_of(device)?, placement.get()?);
        let serial = change("nvmlDeviceCreateGpuInstanceWithPlacement", gpu, |state, phantom| {
            state.create(gpu, profile_id, (place.start, place.size), phantom)
        })?;
        to.put(Ref::to(Handle::Instance { gpu, serial }))
    }

    fn nvmlDeviceGetGpuInstances(device: Ref, profile_id: u32, to: Out<Ref>, count: Out<u32>) {
        let gpu = gpu_of(device)?;
        let found = ask_gpu("nvmlDeviceGetGpuInstances", device, |one| {
            if !one.mig {
                return Err(NOT_SUPPORTED);
            }
            let row = one.row_of(profile_id).ok_or(INVALID_ARGUMENT)?;
            let of_profile = one.real().filter(|instance| instance.profile == row);
            Ok(of_profile.map(|instance| Ref::to(Handle::Instance { gpu, serial: instance.serial })).collect::<Vec<_>>())
        })?;
        // The caller is to have room for as many as the profile's count says, so the room is not told.
        count.put(u32::MAX)?;
        to.list(count, &found)
    }

    fn nvmlDeviceGetGpuInstanceById(device: Ref, id: u32, to: Out<Ref>) {
        let gpu = gpu_of(device)?;
        let serial = ask_gpu("nvmlDeviceGetGpuInstanceById", device, |one| {
            one.real().find(|instance| instance.id == id).map(|instance| instance.serial).ok_or(NOT_FOUND)
        })?;
        to.put(Ref::to(Handle::Instance { gpu, serial }))
    }

    fn nvmlGpuInstanceGetInfo(instance: Ref, to: Out<Info>) {
        let (gpu, serial) = instance_of(instance)?;
        let info = ask("nvmlGpuInstanceGetInfo", Some(gpu), |state| {
            let one = state.gpu(gpu)?;
            let instance = one.by_serial(serial)?;
            let told = told(one, instance.profile)?;
            Ok(Info {
                device: Ref::to(Handle::Gpu { gpu }),
                id: instance.id,
                profile_id: told.id,
                placement: nvmlGpuInstancePlacement_t { start: instance.start.into(), size: told.profile.size.into() },
            })
        })?;
        to.put(info)
    }

    fn nvmlGpuInstanceDestroy(instance: Ref) {
        let (gpu, serial) = instance_of(instance)?;
        change("nvmlGpuInstanceDestroy", gpu, |state, phantom| state.destroy(gpu, serial, phantom))
    }
}
