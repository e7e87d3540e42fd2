//! The library itself and the list of GPUs.

use std::{
    env,
    ffi::{c_char, c_int},
    fs,
    path::{Path, PathBuf},
};

use super::{
    LIBRARY, UNKNOWN, ask, exported, first_of,
    pointer::{Out, Ref, Text},
};
use crate::{handles::Handle, machine::Code, shared::Shared};

const DRIVER_NOT_LOADED: Code = 9;
/// CUDA 13.0.
const CUDA: c_int = 13_000;

/// The environment variable that names the folder of the GPUs.
const FOLDER: &str = "PARTITA_FAKE_NVML";

/// Where the library's own file lies, as the system's list of what is loaded tells.
fn own_folder() -> Option<PathBuf> {
    let own = own_folder as fn() -> Option<PathBuf> as usize;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let (from, to) = range.unwrap_or_default();
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        (number(from)..number(to)).contains(&own)
    })?;
    let path = line.get(line.find('/')?..)?;
    Some(Path::new(path).parent()?.to_owned())
}

fn start() -> Result<(), Code> {
    if LIBRARY.get().is_none() {
        let folder = env::var_os(FOLDER).map(PathBuf::from).or_else(own_folder).ok_or(DRIVER_NOT_LOADED)?;
        let shared = Shared::new(&folder);
        if !shared.exists() {
            return Err(DRIVER_NOT_LOADED);
        }
        LIBRARY.get_or_init(|| shared);
    }
    ask("nvmlInit_v2", None, |_| Ok(()))
}

exported! {
    fn nvmlInit_v2() {
        start()
    }

    fn nvmlInitWithFlags(_flags: u32) {
        start()
    }

    fn nvmlShutdown() {
        ask("nvmlShutdown", None, |_| Ok(()))
    }

    fn nvmlSystemGetDriverVersion(to: Out<c_char>, room: u32) {
        to.text(room, &ask("nvmlSystemGetDriverVersion", None, |state| Ok(state.driver.clone()))?)
    }

    fn nvmlSystemGetNVMLVersion(to: Out<c_char>, room: u32) {
        to.text(room, &ask("nvmlSystemGetNVMLVersion", None, |state| Ok(format!("13.{}", state.driver)))?)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(to: Out<c_int>) {
        to.put(ask("nvmlSystemGetCudaDriverVersion_v2", None, |_| Ok(CUDA))?)
    }

    fn nvmlDeviceGetCount_v2(to: Out<u32>) {
        to.put(ask("nvmlDeviceGetCount_v2", None, |state| Ok(state.gpus.len() as u32))?)
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: u32, to: Out<Ref>) {
        let gpu = ask("nvmlDeviceGetHandleByIndex_v2", None, |state| {
            let end = state.gpus.len() as u32;
            if index >= end {
                return Err(crate::machine::INVALID_ARGUMENT);
            }
            let all = state.gpus.iter().enumerate().filter(|(_, gpu)| gpu.index == index);
            Ok(first_of(all, |(_, gpu)| gpu.lost)?.0)
        })?;
        to.put(Ref::to(Handle::Gpu { gpu }))
    }

    fn nvmlDeviceGetHandleByUUID(uuid: Text, to: Out<Ref>) {
        let uuid = uuid.read()?;
        let place = LIBRARY.get().map(|library| library.read(|state| state.gpus.iter().position(|gpu| gpu.uuid == uuid)));
        let place = place.ok_or(super::UNINITIALIZED)?.map_err(|_| UNKNOWN)?;
        let handle = ask("nvmlDeviceGetHandleByUUID", place, |state| {
            if let Some(gpu) = place {
                return state.gpu(gpu).map(|_| Handle::Gpu { gpu });
            }
            let all = state.gpus.iter().enumerate();
            let devices = all.flat_map(|(gpu, one)| one.real().flat_map(move |instance| instance.real().map(move |compute| (gpu, compute))));
            let found = devices.filter(|(_, compute)| compute.uuid == uuid).map(|(gpu, compute)| Handle::Mig { gpu, index: compute.index });
            first_of(found, |_| false)
        })?;
        to.put(Ref::to(handle))
    }
}

/// The name of a return code.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlErrorString(code: u32) -> *const c_char {
    let text = match code {
        0 => c"Success",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        9 => c"Driver Not Loaded",
        15 => c"GPU is lost",
        19 => c"In use by another client",
        23 => c"Insufficient Resources",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}
