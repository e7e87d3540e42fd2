//! Who uses a GPU and its partitions: what the driver lists and what the kubelet says, together.

use super::Users;
use crate::{
    discover::Gpu,
    driver::Driver,
    gpu::{Instance, Process},
    programs::Programs,
};

/// Of the processes of a GPU those that are somebody's: a server of MPS is nobody's.
pub(super) fn strangers(programs: &Programs, gpu: &str, mut processes: Vec<Process>) -> Vec<Process> {
    processes.retain(|one| !programs.is_server(gpu, one.pid));
    processes
}

/// Who uses a GPU or an instance, as the driver listed and the kubelet says.
pub(super) fn users_of(gpu: &Gpu, one: Option<&Instance>, users: Users<'_>) -> Result<Vec<String>, String> {
    let known = gpu.blind.as_ref().map_or(Ok(&gpu.processes), |why| Err(why.clone()))?;
    named(gpu, one, known, users)
}

/// The same, with the driver asked anew.
pub(super) fn in_use_now(
    (driver, programs): (&dyn Driver, &Programs),
    gpu: &Gpu,
    one: Option<&Instance>,
    users: Users<'_>,
) -> Result<Vec<String>, String> {
    let processes = driver.processes(&gpu.info.uuid).map_err(|error| error.to_string())?;
    named(gpu, one, &strangers(programs, &gpu.info.uuid, processes), users)
}

fn named(gpu: &Gpu, one: Option<&Instance>, processes: &[Process], users: Users<'_>) -> Result<Vec<String>, String> {
    let uuid = &gpu.info.uuid;
    let mut all: Vec<String> = gpu.users_of(one.map(|one| one.id), processes).map(|pid| format!("pid:{pid}")).collect();
    match one {
        None => all.extend(users(uuid, None)?),
        Some(one) => {
            for mig in one.compute.iter().filter_map(|compute| compute.uuid.as_deref()) {
                all.extend(users(uuid, Some(mig))?);
            }
        }
    }
    Ok(all)
}

/// Says once that users are not known.
pub(super) fn note_blind(notes: &mut Vec<String>, why: &str) {
    let note = format!("who uses the GPU and its partitions is not known, so nothing on it is destroyed: {why}");
    if !notes.contains(&note) {
        notes.push(note);
    }
}
