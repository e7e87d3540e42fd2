//! Compute instances.

use nvml_wrapper_sys::bindings::{nvmlComputeInstancePlacement_t, nvmlComputeInstanceProfileInfo_t};

use super::{
    ask, change, exported,
    pointer::{Out, Ref},
};
use crate::{
    geometry::{COMPUTE, COMPUTE_END},
    handles::Handle,
    machine::{Code, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED},
};

fn instance_of(instance: Ref) -> Result<(usize, u64), Code> {
    match instance.handle()? {
        Handle::Instance { gpu, serial } => Ok((gpu, serial)),
        _ => Err(INVALID_ARGUMENT),
    }
}

fn compute_of(compute: Ref) -> Result<(usize, u64), Code> {
    match compute.handle()? {
        Handle::Compute { gpu, serial } => Ok((gpu, serial)),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// As `nvml.h` has it: the MIG device, the GPU instance, its number, its profile, its place.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Info {
    device: Ref,
    instance: Ref,
    id: u32,
    profile_id: u32,
    placement: nvmlComputeInstancePlacement_t,
}

exported! {
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        instance: Ref,
        index: u32,
        engines: u32,
        to: Out<nvmlComputeInstanceProfileInfo_t>,
    ) {
        let (gpu, serial) = instance_of(instance)?;
        let (id, slices, total) = ask("nvmlGpuInstanceGetComputeInstanceProfileInfo", Some(gpu), |state| {
            let one = state.gpu(gpu)?;
            let total = one.compute_slices(one.by_serial(serial)?)?;
            if index >= COMPUTE_END || engines > 0 {
                return Err(INVALID_ARGUMENT);
            }
            let kind = COMPUTE.iter().find(|kind| kind.0 == index && kind.1 <= total).ok_or(NOT_SUPPORTED)?;
            Ok((kind.0, kind.1, total))
        })?;
        to.put(nvmlComputeInstanceProfileInfo_t {
            id,
            sliceCount: slices,
            instanceCount: total / slices,
            multiprocessorCount: slices * 16,
            sharedCopyEngineCount: 1,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
        })
    }

    fn nvmlGpuInstanceCreateComputeInstance(instance: Ref, profile_id: u32, to: Out<Ref>) {
        let (gpu, serial) = instance_of(instance)?;
        let serial = change("nvmlGpuInstanceCreateComputeInstance", gpu, |state, phantom| {
            state.create_compute(gpu, serial, profile_id, phantom)
        })?;
        to.put(Ref::to(Handle::Compute { gpu, serial }))
    }

    fn nvmlGpuInstanceGetComputeInstances(instance: Ref, profile_id: u32, to: Out<Ref>, count: Out<u32>) {
        let (gpu, serial) = instance_of(instance)?;
        let found = ask("nvmlGpuInstanceGetComputeInstances", Some(gpu), |state| {
            let instance = state.gpu(gpu)?.by_serial(serial)?;
            let &(_, slices) = COMPUTE.iter().find(|kind| kind.0 == profile_id).ok_or(INVALID_ARGUMENT)?;
            let of_profile = instance.real().filter(|one| one.slices == slices);
            Ok(of_profile.map(|one| Ref::to(Handle::Compute { gpu, serial: one.serial })).collect::<Vec<_>>())
        })?;
        // As with GPU instances, the room is not told.
        count.put(u32::MAX)?;
        to.list(count, &found)
    }

    fn nvmlGpuInstanceGetComputeInstanceById(instance: Ref, id: u32, to: Out<Ref>) {
        let (gpu, serial) = instance_of(instance)?;
        let serial = ask("nvmlGpuInstanceGetComputeInstanceById", Some(gpu), |state| {
            let instance = state.gpu(gpu)?.by_serial(serial)?;
            instance.real().find(|one| one.id == id).map(|one| one.serial).ok_or(NOT_FOUND)
        })?;
        to.put(Ref::to(Handle::Compute { gpu, serial }))
    }

    fn nvmlComputeInstanceGetInfo_v2(compute: Ref, to: Out<Info>) {
        let (gpu, serial) = compute_of(compute)?;
        let info = ask("nvmlComputeInstanceGetInfo_v2", Some(gpu), |state| {
            let (instance, one) = state.gpu(gpu)?.compute_by_serial(serial)?;
            let before: u32 = instance.real().take_while(|other| other.serial != serial).map(|other| other.slices).sum();
            let profile_id = COMPUTE.iter().find(|kind| kind.1 == one.slices).map_or(0, |kind| kind.0);
            Ok(Info {
                device: Ref::to(Handle::Mig { gpu, index: one.index }),
                instance: Ref::to(Handle::Instance { gpu, serial: instance.serial }),
                id: one.id,
                profile_id,
                placement: nvmlComputeInstancePlacement_t { start: before, size: one.slices },
            })
        })?;
        to.put(info)
    }

    fn nvmlComputeInstanceDestroy(compute: Ref) {
        let (gpu, serial) = compute_of(compute)?;
        change("nvmlComputeInstanceDestroy", gpu, |state, phantom| state.destroy_compute(gpu, serial, phantom))
    }
}
