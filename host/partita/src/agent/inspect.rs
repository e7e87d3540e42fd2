//! `partita agent inspect`: what is on the GPUs of this machine, and what its driver says that partita's tables do not.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use partita_core::model::Grid;
use partita_device::{CALL_MAX, DeviceError, Driver, Watched, discover, gpu::DriverProfile};
use serde::Serialize;

use super::Gpus;
use crate::{args::Output, output};

/// `partita agent inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  partita agent inspect
  partita agent inspect -o json
  partita agent inspect --simulated H100-80GB×2,A30×1")]
pub(crate) struct Inspect {
    #[command(flatten)]
    gpus: Gpus,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    output: Output,
}

/// A machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    driver: String,
    gpus: Vec<Gpu>,
    /// GPUs that do not answer.
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Gpu {
    index: u32,
    uuid: String,
    product: String,
    model: String,
    #[serde(rename = "memoryMiB")]
    memory_mib: u32,
    minor: Option<u32>,
    pci: String,
    compute_capability: String,
    mig: &'static str,
    profiles: Vec<Profile>,
    partitions: Vec<Partition>,
    /// Processes that use it as a whole.
    users: Vec<String>,
    notes: Vec<String>,
}

/// A profile that the driver tells.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    id: u32,
    name: String,
    compute: u32,
    slots: u32,
    starts: Vec<u32>,
    most: u32,
    #[serde(rename = "memoryMiB")]
    memory_mib: u32,
    /// What partita's table says otherwise; `same` if nothing.
    table: String,
}

#[derive(Debug, Serialize)]
struct Partition {
    profile: Option<String>,
    start: u32,
    instance: u32,
    uuid: Option<String>,
    users: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Inspect) -> Result<ExitCode> {
    let _span = tracing::info_span!("inspect").entered();
    let machine = look(&Watched::new(arguments.gpus.driver("inspect")?, CALL_MAX))?;
    match arguments.output {
        Output::Json => output::json(&machine)?,
        Output::Table => print(&machine)?,
    }
    Ok(if machine.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(driver: &dyn Driver) -> Result<Machine> {
    let mut machine = Machine { driver: driver.version()?, gpus: Vec::new(), errors: Vec::new() };
    for uuid in driver.list()? {
        match uuid.and_then(|uuid| gpu(driver, &uuid)) {
            Ok(gpu) => machine.gpus.push(gpu),
            Err(error) => machine.errors.push(error.to_string()),
        }
    }
    Ok(machine)
}

fn gpu(driver: &dyn Driver, uuid: &str) -> Result<Gpu, DeviceError> {
    let found = discover::look(driver, uuid)?;
    let info = &found.info;
    let known = partita_core::model::product::describe(&info.name, info.memory_mib, None).grid;
    let told = if info.mode.is_some() && !info.virtual_gpu { driver.profiles(uuid)? } else { Vec::new() };
    let pids = |pids: &mut dyn Iterator<Item = u32>| pids.map(|pid| format!("pid:{pid}")).collect::<Vec<_>>();
    let partition = |one: &partita_device::gpu::Instance| Partition {
        profile: found.table.spec(one).map(|spec| spec.profile),
        start: one.start,
        instance: one.id,
        uuid: one.compute.first().and_then(|compute| compute.uuid.clone()),
        users: pids(&mut found.users_of(Some(one.id), &found.processes)),
    };
    let mig = match info.mode {
        None => "no",
        Some(mode) if mode.current => "on",
        Some(_) => "off",
    };
    Ok(Gpu {
        index: info.index,
        uuid: info.uuid.clone(),
        product: info.name.clone(),
        model: found.model.name.clone(),
        memory_mib: info.memory_mib,
        minor: info.minor,
        pci: info.pci.clone(),
        compute_capability: format!("{}.{}", info.capability.0, info.capability.1),
        mig,
        profiles: told.iter().map(|profile| compared(profile, known.as_ref())).collect(),
        partitions: found.instances.iter().map(partition).collect(),
        users: pids(&mut found.users_of(None, &found.processes)),
        notes: found.unusable.iter().chain(&found.notes).cloned().collect(),
    })
}

/// A profile of the driver beside partita's own.
fn compared(told: &DriverProfile, known: Option<&Grid>) -> Profile {
    let mut starts: Vec<u32> = told.placements.iter().map(|place| place.0).collect();
    starts.sort_unstable();
    let slots = told.placements.first().map_or(0, |place| place.1);
    let ours = known.and_then(|grid| {
        let named = told.name.as_deref().and_then(|name| grid.resolve(name).ok()).map(|row| &grid.profiles[usize::from(row)]);
        // Older drivers tell no names.
        let alike = |one: &&partita_core::model::Profile| (u32::from(one.compute), u32::from(one.size)) == (told.slices, slots);
        named.or_else(|| grid.profiles.iter().find(alike).filter(|_| told.name.is_none()))
    });
    let table = match ours {
        None => "not in partita's table".to_owned(),
        Some(ours) => {
            let own: Vec<u32> = ours.starts.iter().map(|&start| start.into()).collect();
            let mut differs = Vec::new();
            let mut note = |what: &str, own: String, theirs: String| {
                if own != theirs {
                    differs.push(format!("{what} {own} there"));
                }
            };
            note("compute", ours.compute.to_string(), told.slices.to_string());
            note("slots", ours.size.to_string(), slots.to_string());
            note("starts", format!("{own:?}"), format!("{starts:?}"));
            note("most", ours.max.to_string(), told.count.to_string());
            if differs.is_empty() { "same".to_owned() } else { differs.join(", ") }
        }
    };
    let name = told.name.clone().or_else(|| ours.map(|ours| ours.name.clone())).unwrap_or_default();
    Profile { id: told.id, name, compute: told.slices, slots, starts, most: told.count, memory_mib: told.memory_mib, table }
}

fn print(machine: &Machine) -> Result<()> {
    output::line(&format!("Driver {}\n", machine.driver))?;
    let mut rows = output::Rows::new(&[">GPU", "UUID", "PRODUCT", "MODEL", ">MIB", "MIG", ">PARTITIONS", "USED BY"]);
    let users = |users: &[String]| if users.is_empty() { "-".to_owned() } else { users.join(",") };
    for gpu in &machine.gpus {
        let [index, memory, count] = [gpu.index, gpu.memory_mib, gpu.partitions.len() as u32].map(|number| number.to_string());
        let (product, model) = (gpu.product.clone(), gpu.model.clone());
        rows.push([index, gpu.uuid.clone(), product, model, memory, gpu.mig.to_owned(), count, users(&gpu.users)]);
    }
    rows.print()?;
    for gpu in &machine.gpus {
        if let Some(same) = machine.gpus.iter().find(|other| other.product == gpu.product).filter(|other| other.index == gpu.index) {
            profiles(same)?;
        }
    }
    let parts = machine.gpus.iter().flat_map(|gpu| gpu.partitions.iter().map(move |part| (gpu.index, part)));
    let mut rows = output::Rows::new(&[">GPU", "PROFILE", ">START", ">INSTANCE", "UUID", "USED BY"]);
    let mut any = false;
    for (index, part) in parts {
        any = true;
        let [profile, uuid] = [&part.profile, &part.uuid].map(|text| text.clone().unwrap_or_else(|| "-".to_owned()));
        rows.push([index.to_string(), profile, part.start.to_string(), part.instance.to_string(), uuid, users(&part.users)]);
    }
    if any {
        output::line("\nPartitions")?;
        rows.print()?;
    }
    for gpu in &machine.gpus {
        for note in &gpu.notes {
            output::line(&format!("\nGPU {}: {note}", gpu.index))?;
        }
    }
    for error in &machine.errors {
        output::line(&format!("\nA GPU does not answer: {error}"))?;
    }
    Ok(())
}

/// How MIG can cut the GPUs of one product.
fn profiles(gpu: &Gpu) -> Result<()> {
    if gpu.profiles.is_empty() {
        return Ok(());
    }
    output::line(&format!("\nHow MIG can cut {}", gpu.product))?;
    let mut rows = output::Rows::new(&["PROFILE", ">ID", ">COMPUTE", ">SLOTS", "STARTS", ">MOST", ">MIB", "PARTITA'S TABLE"]);
    for one in &gpu.profiles {
        let starts = one.starts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let [id, compute, slots, most, memory] =
            [one.id, one.compute, one.slots, one.most, one.memory_mib].map(|number| number.to_string());
        rows.push([one.name.clone(), id, compute, slots, starts, most, memory, one.table.clone()]);
    }
    rows.print()
}
