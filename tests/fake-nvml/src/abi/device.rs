//! What a GPU is, who uses it, and its MIG mode.

use std::ffi::{c_char, c_int};

use nvml_wrapper_sys::bindings::{nvmlMemory_v2_t, nvmlPciInfo_t, nvmlProcessInfo_t};

use super::{
    VERSION_MISMATCH, ask, ask_gpu, change, exported, gpu_of, number,
    pointer::{Out, Ref, field},
};
use crate::{
    geometry,
    handles::Handle,
    machine::{Code, Gpu, INVALID_ARGUMENT, NOT_SUPPORTED},
};

/// No instance: the whole GPU.
const WHOLE: u32 = u32::MAX;
/// What a process is said to use, bytes.
const USED: u64 = 1 << 30;
const MEMORY_VERSION: u32 = size_of::<nvmlMemory_v2_t>() as u32 | 2 << 24;
/// Virtualisation modes: none, and a GPU that a hypervisor made.
const BARE: u32 = 0;
const VGPU: u32 = 2;

fn memory_mib(gpu: &Gpu) -> Result<u64, Code> {
    let model = gpu.described()?;
    // Where nobody published the size, the largest partition's label is near enough.
    let label = || model.grid.as_ref().and_then(|grid| partita_core::model::ProfileName::parse(&grid.profiles.last()?.name).ok());
    Ok(if model.memory_mib > 0 { model.memory_mib.into() } else { label().map_or(0, |name| u64::from(name.gb) << 10) })
}

exported! {
    fn nvmlDeviceGetName(device: Ref, to: Out<c_char>, room: u32) {
        to.text(room, &ask_gpu("nvmlDeviceGetName", device, |gpu| Ok(gpu.product.clone()))?)
    }

    fn nvmlDeviceGetUUID(device: Ref, to: Out<c_char>, room: u32) {
        let (gpu, mig) = match device.handle()? {
            Handle::Gpu { gpu } => (gpu, None),
            Handle::Mig { gpu, index } => (gpu, Some(index)),
            _ => return Err(INVALID_ARGUMENT),
        };
        let uuid = ask("nvmlDeviceGetUUID", Some(gpu), |state| {
            let gpu = state.gpu(gpu)?;
            mig.map_or(Ok(gpu.uuid.clone()), |index| gpu.mig_device(index).map(|found| found.1.uuid.clone()))
        })?;
        to.text(room, &uuid)
    }

    fn nvmlDeviceGetIndex(device: Ref, to: Out<u32>) {
        number("nvmlDeviceGetIndex", device, to, |gpu| Ok(gpu.index))
    }

    fn nvmlDeviceGetMinorNumber(device: Ref, to: Out<u32>) {
        number("nvmlDeviceGetMinorNumber", device, to, |gpu| Ok(gpu.minor))
    }

    fn nvmlDeviceGetPciInfo_v3(device: Ref, to: Out<nvmlPciInfo_t>) {
        let place = gpu_of(device)? as u32;
        let index = ask_gpu("nvmlDeviceGetPciInfo_v3", device, |_| Ok(place + 1))?;
        to.put(nvmlPciInfo_t {
            busIdLegacy: field(&format!("0000:{index:02X}:00.0")),
            domain: 0,
            bus: index,
            device: 0,
            pciDeviceId: 0x2330_10de,
            pciSubSystemId: 0,
            busId: field(&format!("00000000:{index:02X}:00.0")),
        })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: Ref, to: Out<nvmlMemory_v2_t>) {
        let given = to.get()?;
        if given.version != MEMORY_VERSION {
            return Err(VERSION_MISMATCH);
        }
        let total = ask_gpu("nvmlDeviceGetMemoryInfo_v2", device, memory_mib)? << 20;
        to.put(nvmlMemory_v2_t { total, free: total, ..given })
    }

    fn nvmlDeviceGetCudaComputeCapability(device: Ref, major: Out<c_int>, minor: Out<c_int>) {
        let found = ask_gpu("nvmlDeviceGetCudaComputeCapability", device, |gpu| Ok(geometry::capability(&gpu.model)))?;
        major.put(found.0)?;
        minor.put(found.1)
    }

    fn nvmlDeviceGetVirtualizationMode(device: Ref, to: Out<u32>) {
        number("nvmlDeviceGetVirtualizationMode", device, to, |gpu| Ok(if gpu.virtual_gpu { VGPU } else { BARE }))
    }

    fn nvmlDeviceGetMigMode(device: Ref, current: Out<u32>, pending: Out<u32>) {
        let found = ask_gpu("nvmlDeviceGetMigMode", device, |gpu| {
            gpu.grid()?;
            if gpu.virtual_gpu { Err(NOT_SUPPORTED) } else { Ok((gpu.mig, gpu.pending)) }
        })?;
        current.put(found.0.into())?;
        pending.put(found.1.into())
    }

    fn nvmlDeviceSetMigMode(device: Ref, mode: u32, status: Out<u32>) {
        let gpu = gpu_of(device)?;
        if mode > 1 {
            return Err(INVALID_ARGUMENT);
        }
        status.put(change("nvmlDeviceSetMigMode", gpu, |state, phantom| state.set_mode(gpu, mode == 1, phantom))?)
    }

    fn nvmlDeviceGetComputeMode(device: Ref, to: Out<u32>) {
        number("nvmlDeviceGetComputeMode", device, to, |gpu| Ok(gpu.compute_mode))
    }

    fn nvmlDeviceSetComputeMode(device: Ref, mode: u32) {
        let gpu = gpu_of(device)?;
        change("nvmlDeviceSetComputeMode", gpu, |state, phantom| state.set_compute_mode(gpu, mode, phantom))
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: Ref, to: Out<u32>) {
        number("nvmlDeviceGetMaxMigDeviceCount", device, to, |gpu| {
            Ok(gpu.grid().map_or(0, |grid| grid.profiles.iter().map(|profile| u32::from(profile.max)).max().unwrap_or(0)))
        })
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Ref, index: u32, to: Out<Ref>) {
        let gpu = gpu_of(device)?;
        ask_gpu("nvmlDeviceGetMigDeviceHandleByIndex", device, |gpu| gpu.mig_device(index).map(drop))?;
        to.put(Ref::to(Handle::Mig { gpu, index }))
    }

    fn nvmlDeviceIsMigDeviceHandle(device: Ref, to: Out<u32>) {
        to.put(u32::from(matches!(device.handle()?, Handle::Mig { .. })))
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Ref, to: Out<Ref>) {
        let Handle::Mig { gpu, .. } = device.handle()? else { return Err(INVALID_ARGUMENT) };
        to.put(Ref::to(Handle::Gpu { gpu }))
    }

    fn nvmlDeviceGetGpuInstanceId(device: Ref, to: Out<u32>) {
        let Handle::Mig { gpu, index } = device.handle()? else { return Err(INVALID_ARGUMENT) };
        to.put(ask("nvmlDeviceGetGpuInstanceId", Some(gpu), |state| Ok(state.gpu(gpu)?.mig_device(index)?.0.id))?)
    }

    fn nvmlDeviceGetComputeInstanceId(device: Ref, to: Out<u32>) {
        let Handle::Mig { gpu, index } = device.handle()? else { return Err(INVALID_ARGUMENT) };
        to.put(ask("nvmlDeviceGetComputeInstanceId", Some(gpu), |state| Ok(state.gpu(gpu)?.mig_device(index)?.1.id))?)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(device: Ref, count: Out<u32>, to: Out<nvmlProcessInfo_t>) {
        let found = ask_gpu("nvmlDeviceGetComputeRunningProcesses_v3", device, |gpu| {
            let listed = gpu.holds.iter().filter(|hold| !hold.hidden && hold.is_so());
            Ok(listed.map(|hold| nvmlProcessInfo_t {
                pid: hold.pid,
                usedGpuMemory: USED,
                gpuInstanceId: hold.instance.unwrap_or(WHOLE),
                computeInstanceId: hold.instance.map_or(WHOLE, |_| 0),
            }).collect::<Vec<_>>())
        })?;
        to.list(count, &found)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: Ref, count: Out<u32>, _to: Out<nvmlProcessInfo_t>) {
        ask_gpu("nvmlDeviceGetGraphicsRunningProcesses_v3", device, |_| Ok(()))?;
        count.put(0)
    }
}
