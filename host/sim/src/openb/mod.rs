//! The format of Alibaba's openb traces, and the measure of the paper that published them.
//!
//! The traces (USENIX ATC'23, "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent") are a table
//! of nodes, one of pods, and for each seed a file with the order in which pods arrive and with ranks that break ties between nodes.

mod allocation;

use std::collections::BTreeMap;

pub use allocation::{Step, allocation, allocation_at, basis_points};
use partita_core::model::{Cut, Demand, GpuAsk, GpuModel, GpuSpec, MILLI, NodeSpec, PodSpec, Terms, catalog, node::GPUS_MAX};
use serde::{Deserialize, Serialize};

use crate::{
    amount::{self, CPU_MILLI_MAX, MEMORY_MIB_MAX},
    cluster::{Cluster, NODES_MAX},
    error::{Fault, InputError},
    mix,
    models::room_for_model,
    table::{self, Column, Notation, Row, optional, required},
    text,
    workload::{Arrival, Names, PODS_MAX, Workload},
};

const NODE_COLUMNS: [Column; 5] = [required("sn"), required("cpu_milli"), required("memory_mib"), required("gpu"), required("model")];

const POD_COLUMNS: [Column; 11] = [
    required("name"),
    required("cpu_milli"),
    required("memory_mib"),
    required("num_gpu"),
    required("gpu_milli"),
    optional("gpu_spec"),
    optional("qos"),
    optional("pod_phase"),
    optional("creation_time"),
    optional("deletion_time"),
    optional("scheduled_time"),
];

/// When the pods of a trace arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Times {
    /// In the order of the file, one each second, to stay.
    #[default]
    Order,
    /// At their creation time, to run as long as they did in the trace.
    Trace,
}

/// An order of arrival, and ranks of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// Name of the file.
    pub file: String,
    /// Rows of the workload, from 0, in the order of their arrival; a row may come more than once.
    pub order: Vec<u32>,
    /// For each node in order of names its rank: 0 is preferred where a policy likes two nodes equally. Empty where the file says nothing.
    pub ranks: Vec<u32>,
}

/// Whether `header` is that of a table of nodes.
pub(crate) fn is_nodes(header: &str) -> bool {
    let has = |name| columns(header).any(|column| column == name);
    has("sn") || (has("cpu_milli") && has("model"))
}

/// Whether `header` is that of a table of pods.
pub(crate) fn is_pods(header: &str) -> bool {
    columns(header).any(|column| column == "num_gpu" || column == "cpu_milli")
}

fn columns(header: &str) -> impl Iterator<Item = &str> {
    header.split(',').map(str::trim)
}

/// Reads a table of nodes: `sn,cpu_milli,memory_mib,gpu,model`. Nodes are put in the order of their names; GPUs are cut in shares.
///
/// # Errors
/// [`InputError`] with line, column, value and remedy.
pub fn parse_nodes(file: &str, bytes: &[u8]) -> Result<Cluster, InputError> {
    let text = text::checked(file, bytes, text::TABLE_MAX)?;
    let mut nodes: BTreeMap<String, NodeSpec> = BTreeMap::new();
    let mut models: BTreeMap<String, GpuModel> = BTreeMap::new();
    table::rows(file, text, Notation::Csv, &NODE_COLUMNS, NODES_MAX, |row| {
        let node = node(row)?;
        if let Some(gpu) = node.gpus.first() {
            let plain = || GpuModel { name: gpu.model.clone(), memory_mib: 0, grid: None };
            if !models.contains_key(&gpu.model) {
                room_for_model(models.len(), &gpu.model).map_err(|fault| fault.column("model"))?;
                models.insert(gpu.model.clone(), catalog::builtin(&gpu.model).unwrap_or_else(plain));
            }
        }
        match nodes.insert(node.name.clone(), node) {
            Some(twice) => {
                Err(Fault::new("is the name of an earlier node too", "give each node its own name").value(&twice.name).column("sn"))
            }
            None => Ok(()),
        }
    })?;
    if nodes.is_empty() {
        return Err(Fault::new("has no nodes", "add a line for each node below the header").at(file, None));
    }
    Ok(Cluster { name: file.into(), models: models.into_values().collect(), nodes: nodes.into_values().collect() })
}

fn node(row: &Row<'_>) -> Result<NodeSpec, Fault> {
    let name = row.read(0, |text| amount::name(text).map(str::to_owned))?;
    let cpu_milli = row.read(1, |text| amount::count32(text, CPU_MILLI_MAX, "milli-cores"))?;
    let memory_mib = row.read(2, |text| amount::count32(text, MEMORY_MIB_MAX, "MiB"))?;
    let count = row.read(3, |text| amount::count32(text, GPUS_MAX, "GPUs"))?;
    let gpus = if count == 0 {
        Vec::new()
    } else {
        let model = row.read(4, |text| amount::name(text).map(str::to_owned))?;
        vec![GpuSpec::new(&model, Cut::Shares); count as usize]
    };
    Ok(NodeSpec { name, cpu_milli, memory_mib, gpus, ..NodeSpec::default() })
}

/// Reads a table of pods. Columns after `gpu_milli` may be missing.
///
/// # Errors
/// [`InputError`] with line, column, value and remedy; also if `times` asks for times that the table lacks.
pub fn parse_pods(file: &str, bytes: &[u8], times: Times) -> Result<Workload, InputError> {
    let text = text::checked(file, bytes, text::TABLE_MAX)?;
    let mut pods = Vec::new();
    let mut spellings = Vec::new();
    let mut arrivals = Vec::new();
    let mut names = Names::default();
    table::rows(file, text, Notation::Csv, &POD_COLUMNS, PODS_MAX, |row| {
        let pod = pod(row)?;
        names.add(&pod, row.line)?;
        let arrival = arrival(row, pods.len(), times)?;
        arrivals.push(arrival);
        spellings.push(row.text(5).to_owned());
        pods.push(pod);
        Ok(())
    })?;
    if pods.is_empty() {
        return Err(Fault::new("has no pods", "add a line for each pod below the header").at(file, None));
    }
    arrivals.sort_by_key(|arrival| arrival.at_ms);
    let mix = mix::expected(pods.iter().zip(&spellings).map(|(pod, spelling): (&PodSpec, &String)| (&pod.demand, spelling.as_str())));
    Ok(Workload { name: file.into(), pods, arrivals, mix })
}

fn pod(row: &Row<'_>) -> Result<PodSpec, Fault> {
    let name = row.read(0, |text| amount::name(text).map(str::to_owned))?;
    let cpu_milli = row.read(1, |text| amount::count32(text, CPU_MILLI_MAX, "milli-cores"))?;
    let memory_mib = row.read(2, |text| amount::count32(text, MEMORY_MIB_MAX, "MiB"))?;
    let count = row.read(3, |text| amount::count32(text, GPUS_MAX, "GPUs"))?;
    let milli = row.read(4, |text| amount::count32(text, MILLI, "milli-GPU"))?;
    let gpu = match (count, milli) {
        (0, 0) => GpuAsk::None,
        (0, _) => return Err(Fault::new("is a share of no GPU", "set num_gpu to 1").value(row.text(4)).column("gpu_milli")),
        (_, 0) => return Err(Fault::new("is no share of a GPU", "write 1 to 1000").value(row.text(4)).column("gpu_milli")),
        (count, milli) => GpuAsk::Share { count, milli },
    };
    // The traces may name models for a pod without GPU; they mean nothing there.
    let models = if gpu == GpuAsk::None { Vec::new() } else { row.maybe(5, amount::models)?.unwrap_or_default() };
    let demand = Demand { cpu_milli, memory_mib, gpu, models, ..Demand::default() };
    let demand = demand.validated().map_err(|error| Fault::new(error.to_string(), ""))?;
    Ok(PodSpec { name, namespace: "openb".into(), priority: 0, demand, terms: Terms::default(), ..PodSpec::default() })
}

fn arrival(row: &Row<'_>, place: usize, times: Times) -> Result<Arrival, Fault> {
    let created = row.maybe(8, amount::seconds_ms)?;
    let deleted = row.maybe(9, amount::seconds_ms)?;
    let scheduled = row.maybe(10, amount::seconds_ms)?;
    let index = place as u32;
    if times == Times::Order {
        return Ok(Arrival { row: index, at_ms: place as u64 * 1000, lifetime_ms: None });
    }
    let missing = || Fault::new("is not given, and the times of the trace are asked for", "use --times order").column("creation_time");
    let at_ms = created.ok_or_else(missing)?;
    let from = scheduled.unwrap_or(at_ms);
    let lifetime = |deleted: u64| {
        let early = || Fault::new("is before the pod started", "correct the times").value(row.text(9)).column("deletion_time");
        deleted.checked_sub(from).ok_or_else(early)
    };
    Ok(Arrival { row: index, at_ms, lifetime_ms: deleted.map(lifetime).transpose()? })
}

/// Reads an arrivals file: line 1 the order of rows, line 2 (may be missing) the rank of each node in order of names.
///
/// # Errors
/// [`InputError`] with line, place, value and remedy.
pub fn parse_arrivals(file: &str, bytes: &[u8]) -> Result<Arrivals, InputError> {
    let text = text::checked(file, bytes, text::TABLE_MAX)?;
    let mut lines = text.lines();
    let order = numbers(lines.next().unwrap_or(""), PODS_MAX, "arrivals").map_err(|fault| fault.at(file, 1))?;
    let ranks = numbers(lines.next().unwrap_or(""), NODES_MAX, "ranks").map_err(|fault| fault.at(file, 2))?;
    if let Some(extra) = lines.position(|line| !line.trim().is_empty()) {
        let fault = Fault::new("is a line too many", "line 1 is the order of rows, line 2 the ranks of nodes");
        return Err(fault.at(file, extra as u64 + 3));
    }
    if order.is_empty() {
        return Err(Fault::new("names no row", "write the row numbers, from 0, in the order of arrival").at(file, 1));
    }
    let mut seen = vec![false; ranks.len()];
    for (place, &rank) in ranks.iter().enumerate() {
        let fault = |problem: String| {
            let remedy = format!("give the {} nodes the ranks 0 to {}, each once", ranks.len(), ranks.len() - 1);
            Err(Fault::new(problem, remedy).value(&rank.to_string()).at(file, 2))
        };
        match seen.get_mut(rank as usize) {
            None => return fault(format!("is the rank of node {place}, beyond the number of nodes")),
            Some(true) => return fault(format!("is the rank of node {place} and of an earlier one")),
            Some(seen) => *seen = true,
        }
    }
    Ok(Arrivals { file: file.into(), order, ranks })
}

fn numbers(line: &str, max: usize, what: &str) -> Result<Vec<u32>, Fault> {
    let mut numbers = Vec::new();
    for (place, word) in line.split_ascii_whitespace().enumerate() {
        if place == max {
            return Err(Fault::new(format!("has more than {max} {what}"), "that is the limit; split the file"));
        }
        numbers.push(amount::count32(word, u32::MAX, what).map_err(|fault| fault.column(&format!("number {}", place + 1)))?);
    }
    Ok(numbers)
}
