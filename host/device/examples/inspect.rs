//! Prints what the driver of this machine says of its GPUs, and where that differs from partita's own tables.
//!
//! It only looks: it calls no function that makes, destroys or switches anything.
//!
//! ```text
//! cargo run -p partita-device --example inspect [-- PATH-OF-LIBRARY]
//! ```

#![allow(clippy::print_stdout, reason = "it prints")]

use std::{env, path::PathBuf, process::ExitCode};

use partita_core::model::{Grid, Profile, product};
use partita_device::{
    DeviceError, Driver,
    discover::look,
    gpu::{DriverProfile, GpuInfo},
    nvml::NvmlDriver,
};

fn main() -> ExitCode {
    let path = env::args_os().nth(1).map(PathBuf::from);
    match NvmlDriver::load(path.as_deref()).and_then(|driver| machine(&driver)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn machine(driver: &NvmlDriver) -> Result<(), DeviceError> {
    println!("driver {}", driver.version()?);
    let missing: Vec<&str> = driver.symbols().into_iter().filter(|symbol| !symbol.1).map(|symbol| symbol.0).collect();
    println!("functions missing in the library: {}", if missing.is_empty() { "none".to_owned() } else { missing.join(", ") });
    for (index, uuid) in driver.list()?.into_iter().enumerate() {
        println!();
        let told = uuid.and_then(|uuid| gpu(driver, &uuid));
        if let Err(error) = told {
            println!("GPU {index}: {error}");
        }
    }
    Ok(())
}

fn gpu(driver: &NvmlDriver, uuid: &str) -> Result<(), DeviceError> {
    let info = driver.info(uuid)?;
    println!("GPU {}: {}, {}", info.index, info.name, info.uuid);
    println!("  memory {} MiB, minor {:?}, pci {}, compute capability {:?}", info.memory_mib, info.minor, info.pci, info.capability);
    println!("  MIG mode {:?}, vGPU {}", info.mode, info.virtual_gpu);
    show("  users", driver.processes(uuid).map(|all| if all.is_empty() { "none".to_owned() } else { format!("{all:?}") }));
    let model = product::describe(&info.name, info.memory_mib, None);
    println!(
        "  partita's model: {} of {} MiB{}",
        model.name,
        model.memory_mib,
        if model.grid.is_some() { "" } else { ", without a table" }
    );
    match driver.profiles(uuid) {
        Ok(profiles) => {
            profiles.iter().for_each(told);
            model.grid.iter().for_each(|grid| compare(&profiles, grid));
        }
        Err(error) => println!("  profiles: {error}"),
    }
    instances(driver, &info);
    match look(driver, uuid) {
        Ok(gpu) => {
            let table = if gpu.table.from_driver { "the driver's table, which differs from partita's" } else { "partita's own table" };
            println!("  found as {} with {table}; ids {:?}; notes {:?}", gpu.model.name, gpu.table.ids, gpu.notes);
        }
        Err(error) => println!("  not to be used: {error}"),
    }
    Ok(())
}

fn show(what: &str, told: Result<String, DeviceError>) {
    println!("{what}: {}", told.unwrap_or_else(|error| error.to_string()));
}

fn told(profile: &DriverProfile) {
    let DriverProfile { index, id, name, slices, count, memory_mib, multiprocessors, copy_engines, engines, placements } = profile;
    let name = name.as_deref().unwrap_or("(no name)");
    println!(
        "  profile {index:2}: id {id:3} {name:14} slices {slices}, {memory_mib} MiB, at most {count}, {multiprocessors} multiprocessors"
    );
    let partita_core::model::Engines { decoder, encoder, jpeg, ofa } = engines;
    println!("      {copy_engines} copy engines, {decoder} decoders, {encoder} encoders, {jpeg} jpeg, {ofa} optical flow");
    println!("      placements (first slot, slots): {placements:?}");
}

fn compare(profiles: &[DriverProfile], grid: &Grid) {
    for ours in &grid.profiles {
        let theirs = profiles.iter().find(|one| one.name.as_ref().is_some_and(|name| grid.resolve(name) == grid.resolve(&ours.name)));
        let differs = theirs.map_or_else(|| vec!["the driver does not tell of it".to_owned()], |theirs| differences(ours, theirs));
        println!("  {}: {}", ours.name, if differs.is_empty() { "same".to_owned() } else { format!("differs: {}", differs.join("; ")) });
    }
    for theirs in profiles {
        let name = theirs.name.as_deref().unwrap_or_default();
        if grid.resolve(name).is_err() {
            println!("  id {} ({name}): differs: not in our table", theirs.id);
        }
    }
}

fn differences(ours: &Profile, theirs: &DriverProfile) -> Vec<String> {
    let places: Vec<(u32, u32)> = ours.starts.iter().map(|&start| (start.into(), ours.size.into())).collect();
    let mut found = Vec::new();
    let mut differ = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{what} {theirs}, our table has {ours}"));
        }
    };
    differ("name", ours.name.clone(), theirs.name.clone().unwrap_or_default());
    differ("slices", ours.compute.to_string(), theirs.slices.to_string());
    differ("MiB", ours.memory_mib.to_string(), theirs.memory_mib.to_string());
    differ("at most", ours.max.to_string(), theirs.count.to_string());
    differ("placements", format!("{places:?}"), format!("{:?}", sorted(&theirs.placements)));
    differ("engines", format!("{:?}", ours.engines), format!("{:?}", theirs.engines));
    found
}

fn sorted(places: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut places = places.to_vec();
    places.sort_unstable();
    places
}

fn instances(driver: &NvmlDriver, info: &GpuInfo) {
    match driver.instances(&info.uuid) {
        Ok(instances) if instances.is_empty() => println!("  no instances"),
        Ok(instances) => {
            for one in instances {
                println!("  instance {}: profile id {}, slots ({}, {}), {:?}", one.id, one.profile_id, one.start, one.size, one.compute);
                let kinds = driver.compute_profiles(&info.uuid, one.id);
                show("      compute profiles (id, slices, at most)", kinds.map(|kinds| format!("{kinds:?}")));
            }
        }
        Err(error) => println!("  instances: {error}"),
    }
}
