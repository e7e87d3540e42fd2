//! The C functions: they take handles and pointers apart, and ask [`crate::machine`].

#![allow(unsafe_code, reason = "this is a C library; every block says why it is sound")]
#![allow(non_snake_case, reason = "the names are those of nvml.h")]

mod compute;
mod device;
mod events;
mod instance;
mod pointer;
mod system;

use std::{process, sync::OnceLock, thread, time::Duration};

use pointer::{Out, Ref};

use crate::{
    faults::{self, What},
    handles::Handle,
    machine::{Code, GPU_IS_LOST, Gpu, INVALID_ARGUMENT, State},
    shared::Shared,
};

const UNINITIALIZED: Code = 1;
const INSUFFICIENT_SIZE: Code = 7;
const TIMEOUT: Code = 10;
const VERSION_MISMATCH: Code = 25;
const UNKNOWN: Code = 999;

/// How often a call that waits for something looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The GPUs that this copy of the library manages.
static LIBRARY: OnceLock<Shared> = OnceLock::new();

/// Declares functions of `nvml.h`.
macro_rules! exported {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        /// As `nvml.h` says.
        ///
        /// # Safety
        /// Every pointer is null, or points to what `nvml.h` says, with the room that it says.
        // SAFETY: no other library of the process has functions of these names, except NVIDIA's, which programs open one at a time.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
            let answer = || -> Result<(), crate::machine::Code> { $body };
            answer().err().unwrap_or(0)
        }
    )*};
}
use exported;

fn library() -> Result<&'static Shared, Code> {
    LIBRARY.get().ok_or(UNINITIALIZED)
}

/// Looks at the machine, unless something goes wrong.
fn ask<T>(function: &str, gpu: Option<usize>, look: impl FnOnce(&State) -> Result<T, Code>) -> Result<T, Code> {
    let library = library()?;
    if library.read(|state| !state.faults.is_empty()).map_err(|_| UNKNOWN)? {
        let after = meet(library, function, gpu)?;
        let answer = library.read(look).map_err(|_| UNKNOWN)?;
        if after == Some(What::KillAfter) {
            process::abort();
        }
        return answer;
    }
    library.read(look).map_err(|_| UNKNOWN)?
}

/// Changes the machine, unless something goes wrong. What changes is told whether it shall only say so.
fn change<T>(function: &str, gpu: usize, change: impl FnOnce(&mut State, bool) -> Result<T, Code>) -> Result<T, Code> {
    let library = library()?;
    let what = meet(library, function, Some(gpu))?;
    let answer = library.change(|state| change(state, what == Some(What::Phantom))).map_err(|_| UNKNOWN)?;
    if what == Some(What::KillAfter) {
        process::abort();
    }
    answer
}

/// Lets a fault of this call happen, as far as it happens before the call.
fn meet(library: &Shared, function: &str, gpu: Option<usize>) -> Result<Option<What>, Code> {
    let drawn = library.change(|state| Ok::<_, Code>(faults::draw(state, function, gpu))).map_err(|_| UNKNOWN)??;
    match drawn {
        Some(What::Code(code)) => return Err(code),
        Some(What::Kill) => process::abort(),
        Some(What::Delay(milliseconds)) => thread::sleep(Duration::from_millis(milliseconds)),
        Some(What::Block) => {
            while library.read(|state| faults::blocks(state, function, gpu)).map_err(|_| UNKNOWN)? {
                thread::sleep(LOOK_EVERY);
            }
        }
        _ => {}
    }
    Ok(drawn)
}

/// A GPU from its handle. A MIG device is none.
fn gpu_of(device: Ref) -> Result<usize, Code> {
    match device.handle()? {
        Handle::Gpu { gpu } => Ok(gpu),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// Asks a GPU.
fn ask_gpu<T>(function: &str, device: Ref, look: impl FnOnce(&Gpu) -> Result<T, Code>) -> Result<T, Code> {
    let gpu = gpu_of(device)?;
    ask(function, Some(gpu), |state| look(state.gpu(gpu)?))
}

/// Writes one number about a GPU.
fn number<T: Copy>(function: &str, device: Ref, to: Out<T>, look: impl FnOnce(&Gpu) -> Result<T, Code>) -> Result<(), Code> {
    to.put(ask_gpu(function, device, look)?)
}

fn first_of<T>(mut found: impl Iterator<Item = T>, lost: impl Fn(&T) -> bool) -> Result<T, Code> {
    let one = found.next().ok_or(crate::machine::NOT_FOUND)?;
    if lost(&one) { Err(GPU_IS_LOST) } else { Ok(one) }
}
