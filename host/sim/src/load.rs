//! Files to input: which format a file has is read off its first line.

use std::path::Path;

use crate::{
    Cluster, SimError, Times, Workload,
    error::Fault,
    openb::{self, Arrivals},
    text,
};

/// Reads a cluster (our TOML, or openb's table of nodes), a workload (our CSV or JSON Lines, or openb's table of pods) and, if given, an
/// openb arrivals file, which replaces the times of the workload and orders the nodes. `times` says how an openb workload is played
/// without one. A cluster in place of a workload, or a workload in place of a cluster, is told as that.
///
/// # Errors
/// [`SimError`] with the file, the line, the value and the remedy.
pub fn load(cluster: &Path, workload: &Path, arrivals: Option<&Path>, times: Times) -> Result<(Cluster, Workload), SimError> {
    let cluster = cluster_file(cluster)?;
    let times = if arrivals.is_some() { Times::Order } else { times };
    let workload = workload_file(workload, times)?;
    let Some(path) = arrivals else { return Ok((cluster, workload)) };
    let arrivals = arrivals_file(path)?;
    Ok((cluster.ranked(&arrivals)?, workload.arriving(&arrivals)?))
}

fn cluster_file(path: &Path) -> Result<Cluster, SimError> {
    let name = path.display().to_string();
    let bytes = text::read(path, text::TABLE_MAX)?;
    if is_workload(first_line(&bytes)) {
        return Err(swapped("a workload").at(&name, None).into());
    }
    let parsed = if openb::is_nodes(first_line(&bytes)) { openb::parse_nodes(&name, &bytes) } else { Cluster::parse(&name, &bytes) };
    Ok(Cluster { name: short(path), ..parsed? })
}

fn workload_file(path: &Path, times: Times) -> Result<Workload, SimError> {
    let name = path.display().to_string();
    let bytes = text::read(path, text::TABLE_MAX)?;
    if is_cluster(first_line(&bytes)) {
        return Err(swapped("a cluster").at(&name, None).into());
    }
    let parsed = if openb::is_pods(first_line(&bytes)) { openb::parse_pods(&name, &bytes, times) } else { Workload::parse(&name, &bytes) };
    Ok(Workload { name: short(path), ..parsed? })
}

fn arrivals_file(path: &Path) -> Result<Arrivals, SimError> {
    let bytes = text::read(path, text::TABLE_MAX)?;
    Ok(openb::parse_arrivals(&path.display().to_string(), &bytes)?)
}

/// Whether `line` begins a workload: JSON, or a header with columns that only tables of pods have.
fn is_workload(line: &str) -> bool {
    let has = |name| line.split(',').any(|column| column.trim().trim_matches('"') == name);
    line.starts_with('{') || has("arrival") || (has("name") && has("cpu")) || (openb::is_pods(line) && !openb::is_nodes(line))
}

/// Whether `line` begins a cluster: openb's header, or a TOML list of nodes or models.
fn is_cluster(line: &str) -> bool {
    line.starts_with("[[") || openb::is_nodes(line)
}

fn swapped(what: &str) -> Fault {
    Fault::new(format!("looks like {what}"), "are --cluster and --workload swapped?")
}

/// The name of a file without its folders: what reports call it.
fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The first line that is neither blank nor a comment of TOML, if it is text of a length that a header may have; else nothing.
fn first_line(bytes: &[u8]) -> &str {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with(b"#")).filter(|line| line.len() < HEADER_MAX);
    line.and_then(|line| std::str::from_utf8(line).ok()).unwrap_or("")
}

/// The longest header, bytes: several times that of openb's pods.
const HEADER_MAX: usize = 4096;
