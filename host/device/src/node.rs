//! All GPUs of a node: what is on them, and how they become what they shall be.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use partita_core::model::GpuModel;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, Entry, Stage},
    discover::{self, Gpu},
    driver::Driver,
    error::DeviceError,
    found::{Found, Part, PartState},
    gpu::{Event, Instance, Process},
    health::Health,
    mig::{
        Existing, Plan, Problem, Question, Spec, Wish,
        execute::{self, Work, is_whole},
        plan,
    },
    watched::{CALL_MAX, Watched},
};

/// Who uses what, as the kubelet knows: asked with the UUID of a GPU and that of a MIG device, or none for the GPU as a whole. An error
/// says why nobody knows; then nothing is destroyed. Processes that the driver lists are known here already.
pub type Users<'u> = &'u dyn Fn(&str, Option<&str>) -> Result<Vec<String>, String>;

/// What a node needs to know of its surroundings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that keeps what was made.
    pub checkpoint: PathBuf,
    /// What tells this boot from others: after another, nothing that was made exists.
    pub boot_id: String,
    /// How long one call to the driver may take.
    pub call_max: Duration,
}

impl Settings {
    /// With the limits that are right for GPUs.
    #[must_use]
    pub fn new(checkpoint: &Path, boot_id: &str) -> Self {
        Self { checkpoint: checkpoint.to_owned(), boot_id: boot_id.to_owned(), call_max: CALL_MAX }
    }
}

/// What the last wish could not have.
#[derive(Debug, Default)]
struct Rest {
    generation: (i64, i64),
    failed: Vec<(Spec, Problem)>,
    kept: BTreeMap<u32, Problem>,
    mode: Option<Problem>,
}

/// The GPUs of a node.
pub struct Node {
    driver: Arc<Watched>,
    checkpoint: Checkpoint,
    health: Health,
    /// Every GPU that ever answered, so that one that is lost is still told of.
    seen: BTreeMap<String, Gpu>,
    rest: BTreeMap<String, Rest>,
}

impl Node {
    /// Begins where the last run of this program ended, and takes away what it left half. Returns also what an operator should know.
    ///
    /// # Errors
    /// If the checkpoint cannot be used, or another agent runs.
    pub fn open(driver: Arc<dyn Driver>, settings: &Settings) -> Result<(Self, Option<String>), CheckpointError> {
        let (checkpoint, damage) = Checkpoint::open(&settings.checkpoint, &settings.boot_id)?;
        let driver = Arc::new(Watched::new(driver, settings.call_max));
        let mut node = Self { driver, checkpoint, health: Health::default(), seen: BTreeMap::new(), rest: BTreeMap::new() };
        for uuid in node.driver.list().unwrap_or_default().into_iter().flatten() {
            if let Ok(gpu) = discover::look(&*node.driver, &uuid) {
                execute::clean(&*node.driver, &mut node.checkpoint, &gpu);
            }
        }
        Ok((node, damage))
    }

    /// The driver, whose calls end in time: for waiting for events on a thread of its own.
    #[must_use]
    pub fn driver(&self) -> Arc<Watched> {
        self.driver.clone()
    }

    /// A GPU reported an error. Returns whether there is something new to tell.
    pub fn hear(&mut self, event: &Event) -> bool {
        self.health.hear(event)
    }

    /// An operator says that a GPU is well again.
    pub fn forgive(&mut self, gpu: &str) {
        self.health.forgive(gpu);
    }

    /// Looks at every GPU, in the driver's order; those that no longer answer come last. While the driver does not even list them, those
    /// that are known are looked at.
    ///
    /// # Errors
    /// If the driver does not even say how many GPUs there are.
    pub fn look(&mut self, users: Users<'_>) -> Result<Vec<Found>, DeviceError> {
        let mut found = Vec::new();
        let mut strangers = Vec::new();
        let listed = match self.driver.list() {
            Err(DeviceError::Hangs { .. }) if !self.seen.is_empty() => self.seen.keys().cloned().map(Ok).collect(),
            other => other?,
        };
        for uuid in listed {
            match uuid {
                Ok(uuid) => found.push(self.look_at(&uuid, users)),
                Err(error) => strangers.push(error),
            }
        }
        let gone: Vec<String> = self.seen.keys().filter(|&uuid| found.iter().all(|one| one.gpu.info.uuid != *uuid)).cloned().collect();
        for uuid in gone {
            let why = strangers.pop().map_or_else(|| "the driver no longer lists it".to_owned(), |error| error.to_string());
            found.push(self.lost(&uuid, &why));
        }
        for error in strangers {
            tracing::warn!("a GPU that was never seen does not answer: {error}");
        }
        Ok(found)
    }

    /// Looks at one GPU. One that does not answer is told as it was, unusable.
    pub fn look_at(&mut self, uuid: &str, users: Users<'_>) -> Found {
        match discover::look(&*self.driver, uuid) {
            Err(error) => self.lost(uuid, &error.to_string()),
            Ok(gpu) => {
                if let Some(generation) = self.rest.get(uuid).map(|rest| rest.generation) {
                    self.adopt(&gpu, generation);
                }
                self.seen.insert(uuid.to_owned(), gpu.clone());
                self.found(gpu, users)
            }
        }
    }

    /// Makes a GPU what it shall be, as far as that can be without touching anything that is used. Returns what it is then; what failed
    /// is among its parts, with the reason.
    pub fn apply(&mut self, wish: &Wish, users: Users<'_>) -> Found {
        let fail = |problem: &Problem| Rest {
            generation: wish.generation,
            failed: wish.partitions.iter().map(|spec| (spec.clone(), problem.clone())).collect(),
            mode: Some(problem.clone()),
            ..Rest::default()
        };
        let gpu = match discover::look(&*self.driver, &wish.gpu) {
            Ok(gpu) => gpu,
            Err(error) => {
                self.rest.insert(wish.gpu.clone(), fail(&Problem::Device(error)));
                return self.look_at(&wish.gpu, users);
            }
        };
        if let Some(why) = self.health.of_gpu(&wish.gpu) {
            let problem = Problem::Unhealthy(why.to_owned());
            self.rest.insert(wish.gpu.clone(), fail(&problem));
            return self.look_at(&wish.gpu, users);
        }
        self.adopt(&gpu, wish.generation);
        let planned = self.plan(&gpu, wish, users);
        let driver = self.driver.clone();
        let in_use = |instance: Option<&Instance>| in_use_now(&*driver, &gpu, instance, users);
        let mut work = Work { driver: &*driver, checkpoint: &mut self.checkpoint, gpu: &gpu, in_use: &in_use };
        let done = work.all(&planned.steps);
        for instance in &done.destroyed {
            self.health.forget_instance(&wish.gpu, *instance);
        }
        let mut kept = done.kept;
        kept.extend(planned.kept);
        let failed = planned.refused.into_iter().chain(done.failed).collect();
        let rest = Rest { generation: wish.generation, failed, kept, mode: planned.mode.or(done.mode) };
        self.rest.insert(wish.gpu.clone(), rest);
        self.look_at(&wish.gpu, users)
    }

    fn plan(&self, gpu: &Gpu, wish: &Wish, users: Users<'_>) -> Plan {
        let uuid = &gpu.info.uuid;
        let mut blind = None;
        let mut existing = Vec::new();
        for one in &gpu.instances {
            let spec = gpu.table.spec(one);
            let named = users_of(gpu, Some(one), users);
            let adopted = spec
                .as_ref()
                .and_then(|spec| self.checkpoint.get(uuid, spec))
                .map_or(spec.is_none(), |entry| entry.found_after.is_some_and(|found_after| wish.generation <= found_after));
            existing.push(Existing {
                instance: one.id,
                slots: Gpu::slots_of(one),
                compute: one.compute.len(),
                whole: is_whole(gpu, one),
                users: named.unwrap_or_else(|why| {
                    blind = Some(why);
                    Vec::new()
                }),
                adopted: adopted || spec.as_ref().is_some_and(|spec| self.checkpoint.get(uuid, spec).is_none()),
                spec,
            });
        }
        let whole = users_of(gpu, None, users).unwrap_or_else(|why| {
            blind = Some(why);
            Vec::new()
        });
        plan(&Question {
            grid: gpu.table.grid.as_ref(),
            mig: gpu.is_cut(),
            pending: gpu.info.mode.is_some_and(|mode| mode.pending),
            existing: &existing,
            users: &whole,
            blind: blind.as_deref(),
            wish,
        })
    }

    /// Keeps what exists as known, and forgets what does not. What others made is known as theirs.
    fn adopt(&mut self, gpu: &Gpu, generation: (i64, i64)) {
        let uuid = &gpu.info.uuid;
        let there: Vec<(Spec, bool)> =
            gpu.instances.iter().filter_map(|one| Some((gpu.table.spec(one)?, one.compute.is_empty()))).collect();
        let mut kept = self.checkpoint.retain(|entry| entry.gpu != *uuid || there.iter().any(|(spec, _)| *spec == entry.spec));
        for (spec, half) in there {
            let entry = match self.checkpoint.get(uuid, &spec) {
                None => Entry { gpu: uuid.clone(), spec, stage: Stage::Made, found_after: Some(generation) },
                Some(entry) if half => entry.clone(),
                Some(entry) => Entry { stage: Stage::Made, ..entry.clone() },
            };
            kept = kept.and_then(|()| self.checkpoint.put(entry));
        }
        // What is not known is left alone, so this is safe.
        if let Err(error) = kept {
            tracing::warn!(gpu = uuid, "{error}");
        }
    }

    fn found(&self, gpu: Gpu, users: Users<'_>) -> Found {
        let uuid = gpu.info.uuid.clone();
        let rest = self.rest.get(&uuid);
        let mut notes = gpu.notes.clone();
        notes.extend(rest.and_then(|rest| rest.mode.as_ref()).map(ToString::to_string));
        let mut parts: Vec<Part> = gpu.instances.iter().map(|one| self.part(&gpu, one, users, &mut notes)).collect();
        for (spec, problem) in rest.map(|rest| rest.failed.as_slice()).unwrap_or_default() {
            let name = |spec: &Spec| gpu.table.grid.as_ref().and_then(|grid| grid.resolve(&spec.profile).ok());
            let there = parts.iter().any(|part| {
                part.spec.as_ref().is_some_and(|other| {
                    other.start == spec.start && (other.profile == spec.profile || name(other).is_some() && name(other) == name(spec))
                })
            });
            if !there {
                let state = PartState::Failed(problem.clone());
                parts.push(Part {
                    spec: Some(spec.clone()),
                    instance: None,
                    compute: None,
                    uuid: None,
                    users: Vec::new(),
                    ours: false,
                    state,
                });
            }
        }
        let unusable = gpu.unusable.clone().or_else(|| self.health.of_gpu(&uuid).map(str::to_owned));
        let users = users_of(&gpu, None, users).unwrap_or_else(|why| {
            note_blind(&mut notes, &why);
            Vec::new()
        });
        notes.dedup();
        Found { gpu, unusable, notes, parts, users }
    }

    fn part(&self, gpu: &Gpu, one: &Instance, users: Users<'_>, notes: &mut Vec<String>) -> Part {
        let (uuid, spec) = (&gpu.info.uuid, gpu.table.spec(one));
        let name = spec.as_ref().map_or_else(|| format!("GPU instance {}", one.id), ToString::to_string);
        let rest = self.rest.get(uuid);
        let failed = || rest?.failed.iter().find(|(other, _)| Some(other) == spec.as_ref()).map(|(_, problem)| problem.clone());
        let problem = self.health.of_instance(uuid, one.id).map(|why| Problem::Unhealthy(why.to_owned()));
        let problem = problem.or_else(|| rest?.kept.get(&one.id).cloned()).or_else(|| {
            let half = || Problem::Unknown { what: name.clone(), why: "nothing computes in it yet".to_owned() };
            (!is_whole(gpu, one))
                .then(|| failed().unwrap_or_else(|| if one.compute.is_empty() { half() } else { Problem::Divided(name.clone()) }))
        });
        let entry = spec.as_ref().and_then(|spec| self.checkpoint.get(uuid, spec));
        let named = users_of(gpu, Some(one), users).unwrap_or_else(|why| {
            note_blind(notes, &why);
            Vec::new()
        });
        let single = if let [compute] = one.compute.as_slice() { Some(compute) } else { None };
        Part {
            instance: Some(one.id),
            compute: single.map(|compute| compute.id),
            uuid: single.and_then(|compute| compute.uuid.clone()),
            users: named,
            ours: entry.is_some_and(|entry| entry.found_after.is_none()),
            state: problem.map_or(PartState::Ready, PartState::Kept),
            spec,
        }
    }

    /// A GPU that does not answer, as it was seen last: pods may still have its partitions.
    fn lost(&self, uuid: &str, why: &str) -> Found {
        let unknown = || Gpu::of(GpuModel { name: String::new(), memory_mib: 0, grid: None });
        let mut gpu = self.seen.get(uuid).cloned().unwrap_or_else(unknown);
        uuid.clone_into(&mut gpu.info.uuid);
        gpu.unusable = Some(why.to_owned());
        let mut found = self.found(gpu, &|_, _| Ok(Vec::new()));
        for part in &mut found.parts {
            if part.instance.is_some() {
                part.state = PartState::Kept(Problem::Unhealthy(why.to_owned()));
            }
        }
        found
    }
}

/// Who uses a GPU or an instance, as the driver listed and the kubelet says.
fn users_of(gpu: &Gpu, one: Option<&Instance>, users: Users<'_>) -> Result<Vec<String>, String> {
    let known = gpu.blind.as_ref().map_or(Ok(&gpu.processes), |why| Err(why.clone()))?;
    named(gpu, one, known, users)
}

/// The same, with the driver asked anew.
fn in_use_now(driver: &dyn Driver, gpu: &Gpu, one: Option<&Instance>, users: Users<'_>) -> Result<Vec<String>, String> {
    let processes = driver.processes(&gpu.info.uuid).map_err(|error| error.to_string())?;
    named(gpu, one, &processes, users)
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
fn note_blind(notes: &mut Vec<String>, why: &str) {
    let note = format!("who uses the GPU and its partitions is not known, so nothing on it is destroyed: {why}");
    if !notes.contains(&note) {
        notes.push(note);
    }
}
