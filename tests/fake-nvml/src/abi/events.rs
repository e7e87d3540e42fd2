//! Errors that GPUs report.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    LOOK_EVERY, TIMEOUT, ask, ask_gpu, exported, gpu_of,
    pointer::{Out, Ref},
};
use crate::{
    handles::Handle,
    machine::{Code, INVALID_ARGUMENT, NOT_SUPPORTED},
};

/// The only event there is here.
const XID: u64 = 8;
/// No instance: the whole GPU.
const WHOLE: u32 = u32::MAX;

/// A set: for each GPU the serial number of the last event told.
type Set = BTreeMap<usize, u64>;

/// The sets of this process by number, and the last number given.
static SETS: Mutex<(u64, BTreeMap<u64, Set>)> = Mutex::new((0, BTreeMap::new()));

/// As `nvml.h` has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Data {
    device: Ref,
    kind: u64,
    number: u64,
    instance: u32,
    compute: u32,
}

fn set_of(set: Ref) -> Result<u64, Code> {
    match set.handle()? {
        Handle::Set { number } => Ok(number),
        _ => Err(INVALID_ARGUMENT),
    }
}

fn with_set<T>(number: u64, act: impl FnOnce(&mut Set) -> T) -> Result<T, Code> {
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    sets.1.get_mut(&number).map(act).ok_or(INVALID_ARGUMENT)
}

exported! {
    fn nvmlEventSetCreate(to: Out<Ref>) {
        ask("nvmlEventSetCreate", None, |_| Ok(()))?;
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.0 += 1;
        let number = sets.0;
        sets.1.insert(number, BTreeMap::new());
        to.put(Ref::to(Handle::Set { number }))
    }

    fn nvmlEventSetFree(set: Ref) {
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.1.remove(&set_of(set)?).map(drop).ok_or(INVALID_ARGUMENT)
    }

    fn nvmlDeviceGetSupportedEventTypes(device: Ref, to: Out<u64>) {
        ask_gpu("nvmlDeviceGetSupportedEventTypes", device, |_| Ok(()))?;
        to.put(XID)
    }

    fn nvmlDeviceRegisterEvents(device: Ref, types: u64, set: Ref) {
        let (gpu, number) = (gpu_of(device)?, set_of(set)?);
        if types & !XID != 0 {
            return Err(NOT_SUPPORTED);
        }
        let last = ask("nvmlDeviceRegisterEvents", Some(gpu), |state| {
            state.gpu(gpu)?;
            Ok(state.serial)
        })?;
        with_set(number, |set| {
            set.insert(gpu, last);
        })
    }

    fn nvmlEventSetWait_v2(set: Ref, to: Out<Data>, milliseconds: u32) {
        let number = set_of(set)?;
        let until = Instant::now() + Duration::from_millis(milliseconds.into());
        loop {
            let told = with_set(number, |set| set.clone())?;
            let event = ask("nvmlEventSetWait_v2", None, |state| {
                Ok(state.events.iter().find(|event| told.get(&event.gpu).is_some_and(|&last| event.serial > last)).cloned())
            })?;
            if let Some(event) = event {
                with_set(number, |set| set.insert(event.gpu, event.serial))?;
                let instance = event.instance.unwrap_or(WHOLE);
                let compute = event.instance.map_or(WHOLE, |_| 0);
                let device = Ref::to(Handle::Gpu { gpu: event.gpu });
                return to.put(Data { device, kind: XID, number: event.xid, instance, compute });
            }
            if Instant::now() >= until {
                return Err(TIMEOUT);
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}
