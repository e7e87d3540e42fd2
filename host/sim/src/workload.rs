//! Pods that come and go: our own format, and what every format becomes.

use std::collections::HashMap;

use partita_core::model::{Demand, GpuAsk, MILLI, PodSpec, Terms, node::GPUS_MAX};

use crate::{
    amount::{self, Round},
    ask,
    error::{Fault, InputError},
    mix::{self, Mix},
    openb::Arrivals,
    table::{self, Column, Notation, Row, optional, required},
    text,
};

/// The most pods of a workload, and the most arrivals: a year of a large cluster, and about half a GiB here.
pub const PODS_MAX: usize = 1_000_000;

/// One arrival of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Row of [`Workload::pods`].
    pub row: u32,
    /// When it comes, milliseconds of virtual time.
    pub at_ms: u64,
    /// How long it runs once placed, milliseconds; none if it stays.
    pub lifetime_ms: Option<u64>,
}

/// What a run plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it is called in reports: the name of its file.
    pub name: String,
    /// Pods in the order of the file.
    pub pods: Vec<PodSpec>,
    /// When they come, in order of time.
    pub arrivals: Vec<Arrival>,
    /// What policies are told to expect.
    pub mix: Mix,
}

const COLUMNS: [Column; 17] = [
    required("name"),
    optional("namespace"),
    optional("priority"),
    required("cpu"),
    required("memory"),
    optional("gpus"),
    optional("gpu_milli"),
    optional("mig"),
    optional("models"),
    required("arrival"),
    optional("lifetime"),
    optional("mps_memory"),
    optional("part_memory"),
    optional("part_compute"),
    optional("isolation"),
    optional("restartable"),
    optional("min_runtime"),
];

impl Workload {
    /// Reads our own format (FORMATS.md) from the bytes of the file called `file`. JSON Lines are told from CSV by their first character.
    ///
    /// # Errors
    /// [`InputError`] with line, column, value and remedy.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, InputError> {
        let text = text::checked(file, bytes, text::TABLE_MAX)?;
        let notation = if text.trim_start().starts_with('{') { Notation::JsonLines } else { Notation::Csv };
        let mut pods = Vec::new();
        let mut arrivals = Vec::new();
        let mut names = Names::default();
        table::rows(file, text, notation, &COLUMNS, PODS_MAX, |row| {
            let pod = pod(row)?;
            names.add(&pod, row.line)?;
            let at_ms = row.read(9, amount::seconds_ms)?;
            let lifetime_ms = row.maybe(10, amount::seconds_ms)?;
            arrivals.push(Arrival { row: pods.len() as u32, at_ms, lifetime_ms });
            pods.push(pod);
            Ok(())
        })?;
        if pods.is_empty() {
            return Err(Fault::new("has no pods", "add a line for each pod below the header").at(file, None));
        }
        arrivals.sort_by_key(|arrival| arrival.at_ms);
        let spellings: Vec<String> = pods.iter().map(|pod| pod.demand.models.join("|")).collect();
        let mix = mix::expected(pods.iter().zip(&spellings).map(|(pod, spelling)| (&pod.demand, spelling.as_str())));
        Ok(Self { name: file.into(), pods, arrivals, mix })
    }

    /// The workload with its pods arriving as `arrivals` says instead: in that order, repeats included, one each second, to stay.
    ///
    /// # Errors
    /// [`InputError`] if a row is named that the workload lacks.
    pub fn arriving(mut self, arrivals: &Arrivals) -> Result<Self, InputError> {
        if let Some(place) = arrivals.order.iter().position(|&row| row as usize >= self.pods.len()) {
            let problem = format!("is place {} of the order, and {} has {} pods", place + 1, self.name, self.pods.len());
            let fault = Fault::new(problem, "use the arrivals file of this workload").value(&arrivals.order[place].to_string());
            return Err(fault.at(&arrivals.file, 1));
        }
        let arrival = |(second, &row): (usize, &u32)| Arrival { row, at_ms: second as u64 * 1000, lifetime_ms: None };
        self.arrivals = arrivals.order.iter().enumerate().map(arrival).collect();
        Ok(self)
    }

    /// The pods written back in our own format, as CSV.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut out = COLUMNS.map(|column| column.name).join(",");
        out.push('\n');
        for arrival in &self.arrivals {
            out.push_str(&csv_row(&self.pods[arrival.row as usize], *arrival));
        }
        out
    }
}

fn pod(row: &Row<'_>) -> Result<PodSpec, Fault> {
    let name = row.read(0, |text| amount::name(text).map(str::to_owned))?;
    let namespace = row.maybe(1, |text| amount::name(text).map(str::to_owned))?.unwrap_or_else(|| "default".into());
    let priority = row.maybe(2, |text| amount::signed(text, "priority"))?.unwrap_or(0);
    let cpu_milli = row.read(3, amount::cpu_milli)?;
    let memory_mib = row.read(4, |text| amount::memory_mib(text, Round::Up))?;
    let models = row.maybe(8, amount::models)?.unwrap_or_default();
    let demand = Demand { cpu_milli, memory_mib, gpu: gpu(row)?, models, ..Demand::default() };
    let demand = demand.validated().map_err(|error| Fault::new(error.to_string(), ""))?;
    let restartable = row.maybe(15, amount::flag)?.unwrap_or(false);
    let min_runtime_ms = row.maybe(16, amount::seconds_ms)?.unwrap_or(0);
    let terms = Terms { restartable, min_runtime_ms, ..Terms::default() };
    Ok(PodSpec { name, namespace, priority, demand, terms, ..PodSpec::default() })
}

/// The one way in which a row asks for GPUs.
fn gpu(row: &Row<'_>) -> Result<GpuAsk, Fault> {
    let share = share(row)?;
    let mig = row.maybe(7, ask::partitions)?.map(|partitions| GpuAsk::Mig { partitions });
    let mps = row.maybe(11, ask::memory)?.map(|memory_mib| GpuAsk::Mps { memory_mib });
    let asks = [(share, "gpus"), (mig, "mig"), (mps, "mps_memory"), (part(row)?, "part_memory")];
    let mut asks = asks.into_iter().filter_map(|(ask, column)| Some((ask?, column)));
    let Some((ask, _)) = asks.next() else { return Ok(GpuAsk::None) };
    let Some((second, column)) = asks.next() else { return Ok(ask) };
    let remedy = "ask in one way: for GPUs (gpus, gpu_milli), partitions (mig), a share under MPS (mps_memory) or a part (part_memory)";
    Err(Fault::new(format!("is asked for beside {ask}"), remedy).value(&second.to_string()).column(column))
}

/// Whole GPUs, or shares of them.
fn share(row: &Row<'_>) -> Result<Option<GpuAsk>, Fault> {
    let count = row.maybe(5, |text| amount::count32(text, GPUS_MAX, "GPUs"))?.unwrap_or(0);
    let milli = row.maybe(6, |text| amount::count32(text, MILLI, "milli-GPU"))?;
    match (count, milli) {
        (0, None | Some(0)) => Ok(None),
        (0, Some(milli)) => Err(Fault::new("is a share of no GPU", "set gpus to 1").value(&milli.to_string()).column("gpu_milli")),
        (_, Some(0)) => Err(Fault::new("is no share of a GPU", "write 1 to 1000").value("0").column("gpu_milli")),
        (count, milli) => Ok(Some(GpuAsk::Share { count, milli: milli.unwrap_or(MILLI) })),
    }
}

/// A part of a GPU however it is cut.
fn part(row: &Row<'_>) -> Result<Option<GpuAsk>, Fault> {
    let compute = row.maybe(13, ask::percent)?;
    let isolation = row.maybe(14, ask::isolation)?;
    match row.maybe(12, ask::memory)? {
        Some(memory_mib) => Ok(Some(GpuAsk::Floor { memory_mib, compute: compute.unwrap_or(0), isolation: isolation.unwrap_or_default() })),
        None if compute.is_some() || isolation.is_some() => {
            Err(Fault::new("is missing from a row that asks for a part of a GPU", "say how much memory it needs").column("part_memory"))
        }
        None => Ok(None),
    }
}

fn csv_row(pod: &PodSpec, arrival: Arrival) -> String {
    let mut row: [String; COLUMNS.len()] = Default::default();
    row[0].clone_from(&pod.name);
    row[1].clone_from(&pod.namespace);
    row[2] = pod.priority.to_string();
    row[3] = format!("{}m", pod.demand.cpu_milli);
    row[4] = format!("{}Mi", pod.demand.memory_mib);
    match &pod.demand.gpu {
        GpuAsk::None => {}
        GpuAsk::Share { count, milli } => {
            row[5] = count.to_string();
            row[6] = if *milli == MILLI { String::new() } else { milli.to_string() };
        }
        ask @ GpuAsk::Mig { .. } => row[7] = ask.to_string(),
        GpuAsk::Mps { memory_mib } => row[11] = format!("{memory_mib}Mi"),
        GpuAsk::Floor { memory_mib, compute, isolation } => {
            row[12] = format!("{memory_mib}Mi");
            row[13] = compute.to_string();
            row[14] = isolation.to_string();
        }
    }
    row[8] = pod.demand.models.join("|");
    row[9] = seconds(arrival.at_ms);
    row[10] = arrival.lifetime_ms.map(seconds).unwrap_or_default();
    row[15] = if pod.terms.restartable { "true".into() } else { String::new() };
    row[16] = if pod.terms.min_runtime_ms > 0 { seconds(pod.terms.min_runtime_ms) } else { String::new() };
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail.
    let written = writer.write_record(row).ok().and_then(|()| writer.into_inner().ok());
    written.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Milliseconds as the shortest decimal number of seconds.
pub(crate) fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Names seen so far, with their line.
#[derive(Default)]
pub(crate) struct Names(HashMap<(String, String), u64>);

impl Names {
    pub(crate) fn add(&mut self, pod: &PodSpec, line: u64) -> Result<(), Fault> {
        match self.0.insert((pod.namespace.clone(), pod.name.clone()), line) {
            Some(first) => {
                let problem = format!("is the name of the pod in line {first} too");
                Err(Fault::new(problem, "give each pod of a namespace its own name").value(&pod.name).column("name"))
            }
            None => Ok(()),
        }
    }
}
