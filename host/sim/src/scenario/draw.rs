//! GPUs as one line each.

use std::fmt::{self, Write as _};

use super::transcript::{GpuState, OnGpu, Part, User, mebibytes};

/// Columns of a GPU's parts, each with the bar behind it: a multiple of the slots of every grid known.
const BAR: usize = 72;
/// Columns between the brackets: the last bar is the bracket.
const INNER: usize = BAR - 1;
/// The longest name of a node; 100 columns hold it, the number of the GPU and the bar.
const NAME_MAX: usize = 16;

/// Writes the GPUs, one a line, below them why some are set aside.
pub(super) fn gpus(f: &mut fmt::Formatter<'_>, gpus: &[GpuState]) -> fmt::Result {
    let width = gpus.iter().map(|gpu| gpu.node.chars().count()).max().unwrap_or(0).min(NAME_MAX);
    let digits = if gpus.iter().any(|gpu| gpu.gpu > 9) { 2 } else { 1 };
    for gpu in gpus {
        let name = short(&gpu.node, width);
        writeln!(f, "{name:width$} GPU {:<digits$} [{}]", gpu.gpu, bar(gpu))?;
    }
    Ok(())
}

fn bar(gpu: &GpuState) -> String {
    if gpu.fault.is_some() {
        return cell("set aside, see below", INNER);
    }
    match gpu.cut.as_str() {
        "mig" => slots(gpu),
        "mps" => {
            let left = mebibytes(gpu.mps_mib.saturating_sub(taken(gpu)));
            amounts(gpu, gpu.mps_mib, &[format!("{left} free under MPS"), format!("{left} free")])
        }
        _ if gpu.parts.is_empty() => cell("idle", INNER),
        _ => amounts(gpu, 1000, &[format!("{} free", 1000u32.saturating_sub(taken(gpu)))]),
    }
}

/// A MIG GPU: as many columns a slot, dots where it is free.
fn slots(gpu: &GpuState) -> String {
    let slots = usize::from(gpu.slots).max(1);
    let width = BAR / slots;
    let mut out = String::new();
    let mut slot = 0;
    for on in &gpu.parts {
        let Part::Mig { start, size, .. } = &on.part else { continue };
        while slot < usize::from(*start) {
            out.push_str(&free_slot(width));
            slot += 1;
        }
        let columns = usize::from(*size) * width;
        let _ = write!(out, "{}|", cell(&fit(on, columns - 1), columns - 1));
        slot += usize::from(*size);
    }
    while slot < slots {
        out.push_str(&free_slot(width));
        slot += 1;
    }
    out.pop();
    cell(&out, INNER)
}

fn free_slot(width: usize) -> String {
    format!("{}|", ".".repeat(width - 1))
}

/// A GPU in shares, of thousandths or of memory: columns by amount; at the end what is free, in the longest form that fits.
fn amounts(gpu: &GpuState, all: u32, free: &[String]) -> String {
    let column = |amount: u64| (amount * BAR as u64 / u64::from(all.max(1))) as usize;
    let mut out = String::new();
    let (mut before, mut narrow) = (0u64, false);
    for on in &gpu.parts {
        let columns = column(before + u64::from(amount(on))) - column(before);
        before += u64::from(amount(on));
        narrow |= columns < NARROW;
        let columns = columns.saturating_sub(1);
        let _ = write!(out, "{}|", cell(&fit(on, columns), columns));
    }
    if narrow {
        return cell(&format!("{} shares; {}", gpu.parts.len(), free.first().map_or("", String::as_str)), INNER);
    }
    let left = INNER.saturating_sub(out.chars().count());
    let free = free.iter().find(|form| form.chars().count() <= left).cloned().unwrap_or_else(|| ".".repeat(left));
    cell(&(out + &free), INNER)
}

/// The fewest columns in which a share can be told from others.
const NARROW: usize = 6;

fn amount(on: &OnGpu) -> u32 {
    match on.part {
        Part::Share { milli } => milli,
        Part::Mps { memory_mib } => memory_mib,
        Part::Mig { .. } => 0,
    }
}

fn taken(gpu: &GpuState) -> u32 {
    gpu.parts.iter().map(amount).sum()
}

/// What is said of a part in so many columns: the longest form that fits.
fn fit(on: &OnGpu, columns: usize) -> String {
    let what = match &on.part {
        Part::Mig { profile, .. } => profile.clone(),
        Part::Mps { memory_mib } => mebibytes(*memory_mib),
        Part::Share { milli: 1000 } => "whole".to_owned(),
        Part::Share { milli } => milli.to_string(),
    };
    let slices = what.split('.').next().unwrap_or_default().to_owned();
    let who = match &on.user {
        User::Nobody => "warm",
        User::Unknown => "?",
        User::Pod(name) => name,
    };
    let bare = who.rsplit('/').next().unwrap_or(who);
    let forms = [format!("{what} {who}"), format!("{what} {bare}"), format!("{slices} {who}"), format!("{slices} {bare}"), bare.to_owned()];
    forms.into_iter().find(|form| form.chars().count() <= columns).unwrap_or_else(|| short(bare, columns))
}

/// A text in just so many columns.
fn cell(text: &str, columns: usize) -> String {
    let text: String = text.chars().take(columns).collect();
    format!("{text:columns$}")
}

/// A name in at most so many columns. Its end stays, which tells `train-1` from `train-2`.
fn short(name: &str, columns: usize) -> String {
    let length = name.chars().count();
    if length <= columns {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(length + 1 - columns.max(1)).collect();
    format!("~{tail}").chars().take(columns).collect()
}
