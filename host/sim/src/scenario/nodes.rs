//! Nodes of a scenario, and what is on their GPUs.

use std::{collections::BTreeSet, ops::Range};

use partita_core::{
    model::{
        Cut, Found, GpuModel, GpuSpec, Grid, MILLI, NodeSpec, Partitioning, Placement,
        node::{GPUS_MAX, MPS_CLIENTS_MAX, MPS_RESERVED_MIB},
    },
    state::Use,
};

use super::keys::{Keys, Value};
use crate::{
    amount::{self, Round},
    error::Fault,
    models::{self, Known, Placed},
};

/// A node that does not say what it has.
const CPU_MILLI: u32 = 128_000;
/// The same of its memory, MiB.
const MEMORY_MIB: u32 = 1 << 20;

/// What nodes before have shown.
pub(super) struct Seen {
    pub(super) models: Known,
    pub(super) uuids: BTreeSet<String>,
}

/// A part of a GPU that a pod uses.
pub(super) struct Taken {
    pub(super) gpu: u8,
    pub(super) used: Use,
    /// Name of its MIG profile.
    pub(super) profile: Option<String>,
    /// The pod, as the file calls it.
    pub(super) pod: String,
    pub(super) span: Range<usize>,
}

/// One `[[node]]`.
pub(super) fn node(mut keys: Keys<'_, '_>, seen: &mut Seen) -> Result<(NodeSpec, Vec<Taken>), Placed> {
    let name = keys.value("name")?.read(|text| amount::name(text).map(str::to_owned))?;
    let cpu_milli = keys.read("cpu", amount::cpu_milli)?.unwrap_or(CPU_MILLI);
    let memory_mib = keys.read("memory", |text| amount::memory_mib(text, Round::Down))?.unwrap_or(MEMORY_MIB);
    let partitioning = keys.read("partitioning", partitioning)?.unwrap_or_default();
    let mut gpus = Vec::new();
    let mut taken = Vec::new();
    if let Some(value) = keys.maybe("gpus") {
        for entry in value.one_or_more("gpus")? {
            let count = entry_of(entry, seen, gpus.len(), &mut gpus, &mut taken)?;
            if count == 0 || gpus.len() > GPUS_MAX as usize {
                let fault = Fault::new("is no number of GPUs for this node", format!("a node has 1 to {GPUS_MAX} GPUs, or no gpus key"));
                return Err((fault.value(&gpus.len().to_string()).column("gpus"), value.span));
            }
        }
    }
    keys.finish(&[])?;
    Ok((NodeSpec { name, cpu_milli, memory_mib, gpus, partitioning, ..NodeSpec::default() }, taken))
}

/// The node label by its values.
fn partitioning(text: &str) -> Result<Partitioning, Fault> {
    Ok(match text {
        "fixed" => Partitioning::Fixed,
        "off" => Partitioning::Off,
        "mig" => Partitioning::Mig,
        "mps" => Partitioning::Mps,
        "time-slicing" => Partitioning::TimeSlicing,
        "auto" => Partitioning::Auto,
        _ => return Err(Fault::new("is no partitioning", "write fixed, off, mig, mps, time-slicing or auto").value(text)),
    })
}

/// The ways to cut a GPU by their names.
fn cut(text: &str) -> Result<Cut, Fault> {
    let wrong = || Fault::new("is no way to cut a GPU", "write shares, mig or mps").value(text);
    [Cut::Shares, Cut::Mig, Cut::Mps].into_iter().find(|cut| cut.to_string() == text).ok_or_else(wrong)
}

/// One table of `gpus`: one GPU, or several alike. Returns how many.
fn entry_of(mut keys: Keys<'_, '_>, seen: &mut Seen, first: usize, gpus: &mut Vec<GpuSpec>, taken: &mut Vec<Taken>) -> Result<u32, Placed> {
    let name = keys.value("model")?;
    let model = seen.models.get(name.text()?).map_err(|fault| name.blame(fault))?.clone();
    let count = keys.maybe("count");
    let given = keys.maybe("cut");
    let partitions = keys.maybe("partitions");
    let unchecked = keys.flag("unchecked")?;
    let uuid = keys.maybe("uuid").map_or(Ok(String::new()), |value| value.read(|text| seen.uuid(text, unchecked)))?;
    let parts = partitions.as_ref().map(Value::list).transpose()?.unwrap_or_default();
    let parts = parts.iter().map(|value| Ok((value.read(part)?, value))).collect::<Result<Vec<_>, Placed>>()?;
    let cut = match &given {
        Some(value) => value.read(cut)?,
        None => parts.first().map_or(Cut::Shares, |(part, _)| part.what.cut()),
    };
    models::can_be_cut(&model, cut).map_err(|fault| given.as_ref().or(partitions.as_ref()).unwrap_or(&name).blame(fault))?;
    let number = count.as_ref().map_or(Ok(1), |value| value.read(|text| amount::count32(text, GPUS_MAX, "GPUs")))?;
    if let Some(count) = count.filter(|_| number > 1 && (!parts.is_empty() || !uuid.is_empty())) {
        return Err(
            count.blame(Fault::new("is more than the one GPU that has this UUID or these partitions", "give each GPU its own table"))
        );
    }
    keys.finish(&[])?;
    let mut gpu = Gpu { model: &model, cut, unchecked, uses: Vec::new() };
    let mut found = Vec::new();
    for (part, value) in &parts {
        let used = gpu.add(part).map_err(|fault| value.blame(fault.value(value.text().unwrap_or_default())))?;
        if let (User::Pod(pod), Some(used)) = (&part.user, used) {
            let profile = part.profile(&model);
            taken.push(Taken { gpu: first as u8, used, profile, pod: pod.clone(), span: value.span.clone() });
        }
        found.extend(part.found());
    }
    gpus.extend(std::iter::repeat_n(GpuSpec { model: model.name.clone(), cut, uuid, found, unusable: None }, number as usize));
    Ok(number)
}

impl Seen {
    /// Takes in a UUID that no GPU before has, or one that is not to be checked.
    fn uuid(&mut self, text: &str, unchecked: bool) -> Result<String, Fault> {
        let uuid = amount::name(text)?.to_owned();
        if self.uuids.insert(uuid.clone()) || unchecked {
            Ok(uuid)
        } else {
            Err(Fault::new("is the UUID of another GPU too", ODD).value(text))
        }
    }
}

/// One entry of `partitions`.
struct Part {
    what: What,
    user: User,
}

enum What {
    Mig { profile: String, start: u8 },
    Mps(u32),
    Share(u32),
}

enum User {
    Nobody,
    Unknown,
    Pod(String),
}

impl What {
    fn cut(&self) -> Cut {
        match self {
            Self::Mig { .. } => Cut::Mig,
            Self::Mps(_) => Cut::Mps,
            Self::Share(_) => Cut::Shares,
        }
    }
}

impl Part {
    /// The name that the model has for its profile.
    fn profile(&self, model: &GpuModel) -> Option<String> {
        let What::Mig { profile, .. } = &self.what else { return None };
        let grid = model.grid.as_ref()?;
        Some(grid.profiles[usize::from(grid.resolve(profile).ok()?)].name.clone())
    }

    /// As a node's agent would report it; nothing for a share by time-slicing, which is no thing of its own.
    fn found(&self) -> Option<Found> {
        let used = !matches!(self.user, User::Nobody);
        match &self.what {
            What::Mig { profile, start } => Some(Found { profile: Some(profile.clone()), start: *start, memory_mib: 0, used }),
            What::Mps(memory_mib) => Some(Found { profile: None, start: 0, memory_mib: *memory_mib, used }),
            What::Share(_) => None,
        }
    }
}

/// `3g.40gb@4 used by team/a`, `10Gi warm`, `250 used by team/a`, `whole used by team/a`.
fn part(text: &str) -> Result<Part, Fault> {
    let wrong = || {
        let remedy =
            "write 1g.10gb@0 (profile and first slot), 10Gi (under MPS), 250 (milli-GPU) or whole, and then warm, used, or used by POD";
        Fault::new("is no part of a GPU", remedy).value(text)
    };
    let (what, user) = text.split_once(' ').ok_or_else(wrong)?;
    let user = match user {
        "warm" => User::Nobody,
        "used" => User::Unknown,
        other => User::Pod(other.strip_prefix("used by ").and_then(|pod| amount::name(pod).ok()).ok_or_else(wrong)?.to_owned()),
    };
    let what = match what.split_once('@') {
        Some((profile, slot)) => {
            let start = amount::count32(slot, Grid::SLOTS_MAX.into(), "slots").map_err(|_| wrong())? as u8;
            What::Mig { profile: amount::name(profile).map_err(|_| wrong())?.to_owned(), start }
        }
        None if what == "whole" => What::Share(MILLI),
        None => match amount::count32(what, MILLI, "milli-GPU") {
            Ok(milli) if milli > 0 => What::Share(milli),
            Ok(_) => return Err(wrong()),
            Err(_) => What::Mps(amount::memory_mib(what, Round::Up).ok().filter(|&mib| mib > 0).ok_or_else(wrong)?),
        },
    };
    Ok(Part { what, user })
}

/// A GPU to which parts are added.
struct Gpu<'m> {
    model: &'m GpuModel,
    cut: Cut,
    unchecked: bool,
    uses: Vec<Use>,
}

/// What to do about a report that cannot be.
const ODD: &str = "correct it, or set unchecked = true on this GPU to see what partita does with such a report";

impl Gpu<'_> {
    /// Adds a part; none of what nobody may check.
    fn add(&mut self, part: &Part) -> Result<Option<Use>, Fault> {
        if self.unchecked {
            let named = matches!(part.user, User::Pod(_)) || matches!(part.what, What::Share(_));
            return if named { Err(Fault::new("names a pod on a GPU that is unchecked", "write used")) } else { Ok(None) };
        }
        if part.what.cut() != self.cut {
            return Err(Fault::new(format!("is no part of a GPU that is cut by {}", self.cut), "keep one kind on a GPU"));
        }
        let used = match &part.what {
            What::Mig { profile, start } => Use::Partition(self.placement(profile, *start)?),
            What::Mps(memory_mib) => Use::Mps(self.slice(*memory_mib)?),
            What::Share(milli) => Use::Share(self.share(*milli, &part.user)?),
        };
        self.uses.push(used);
        Ok(Some(used))
    }

    fn placement(&self, name: &str, start: u8) -> Result<Placement, Fault> {
        // Only models with a grid are cut by MIG.
        let Some(grid) = &self.model.grid else { return Err(Fault::new("is on a model that MIG cannot cut", "")) };
        let profile = grid.resolve(name).map_err(|error| Fault::new(format!("has no profile of {}: {error}", self.model.name), ODD))?;
        let placement = Placement { profile, start };
        let row = &grid.profiles[usize::from(profile)];
        if !row.starts.contains(&start) {
            let starts: Vec<String> = row.starts.iter().map(ToString::to_string).collect();
            return Err(Fault::new(format!("begins where {} cannot; it may at slot {}", row.name, starts.join(", ")), ODD));
        }
        let others: Vec<Placement> =
            self.uses.iter().filter_map(|used| if let Use::Partition(other) = used { Some(*other) } else { None }).collect();
        if let Some(other) = others.iter().find(|&&other| grid.slots_of(other).overlaps(grid.slots_of(placement))) {
            let name = &grid.profiles[usize::from(other.profile)].name;
            return Err(Fault::new(format!("overlaps {name}@{}", other.start), ODD));
        }
        if !grid.admits(&others, placement) {
            return Err(Fault::new("is one more than the GPU has slices or engines for", ODD));
        }
        Ok(placement)
    }

    fn slice(&self, memory_mib: u32) -> Result<u32, Fault> {
        let capacity = self.model.memory_mib - MPS_RESERVED_MIB;
        let taken: u64 = self.uses.iter().map(|used| if let Use::Mps(mib) = used { u64::from(*mib) } else { 0 }).sum();
        if taken + u64::from(memory_mib) > u64::from(capacity) || self.uses.len() == MPS_CLIENTS_MAX {
            let problem = format!("is more than the {capacity} MiB for {MPS_CLIENTS_MAX} clients that a {} can promise", self.model.name);
            return Err(Fault::new(problem, ODD));
        }
        Ok(memory_mib)
    }

    fn share(&self, milli: u32, user: &User) -> Result<u32, Fault> {
        if !matches!(user, User::Pod(_)) {
            return Err(Fault::new("is a share of no pod", "a share is there only while a pod has it; write used by POD"));
        }
        let taken: u32 = self.uses.iter().map(|used| if let Use::Share(milli) = used { *milli } else { 0 }).sum();
        if taken + milli > MILLI {
            return Err(Fault::new(format!("is more than the {} milli-GPU left", MILLI - taken), "a GPU has 1000"));
        }
        Ok(milli)
    }
}
