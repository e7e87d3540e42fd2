//! All GPUs of a node: what is on them, and how they become what they shall be.

mod restore;
mod share;
mod tell;
mod users;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use partita_core::model::Cut;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, Entry, Stage},
    discover::{self, Gpu},
    driver::Driver,
    error::DeviceError,
    found::Found,
    gpu::{Event, Instance},
    health::Health,
    mig::{
        Existing, Plan, Problem, Question, Spec,
        execute::{self, Work, is_whole},
        plan,
    },
    programs::{Programs, TimeSlice},
    watched::{CALL_MAX, Watched},
    wish::Wish,
};
use users::{in_use_now, strangers, users_of};

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
    /// NVIDIA's programs, or none for GPUs that are simulated.
    pub programs: Programs,
    /// How long processes have a GPU that they use in turn.
    pub time_slice: TimeSlice,
}

impl Settings {
    /// With the limits that are right for GPUs, and the folders of MPS beside the checkpoint.
    #[must_use]
    pub fn new(checkpoint: &Path, boot_id: &str) -> Self {
        let programs = Programs::new(&checkpoint.with_file_name("mps"));
        let (checkpoint, boot_id) = (checkpoint.to_owned(), boot_id.to_owned());
        Self { checkpoint, boot_id, call_max: CALL_MAX, programs, time_slice: TimeSlice::Default }
    }

    /// The same for GPUs that are simulated, for which no program is run.
    #[must_use]
    pub fn simulated(self) -> Self {
        Self { programs: Programs::Simulated, ..self }
    }
}

/// What the last wish could not have.
#[derive(Debug, Default)]
struct Rest {
    generation: (i64, i64),
    failed: Vec<(Spec, Problem)>,
    kept: BTreeMap<u32, Problem>,
    mode: Option<Problem>,
    /// The shares of MPS that it has, if it is MPS.
    shares: Option<Vec<u32>>,
    /// Why they are not there; or why there is MPS although it is not wanted.
    sharing: Option<Problem>,
    /// What else there is to say.
    notes: Vec<String>,
}

impl Rest {
    /// Nothing of a wish can be had, for one reason.
    fn nothing(wish: &Wish, problem: &Problem) -> Self {
        let shares = (wish.cut == Cut::Mps).then(|| wish.shares.clone());
        Self {
            generation: wish.generation,
            failed: wish.partitions.iter().map(|spec| (spec.clone(), problem.clone())).collect(),
            mode: Some(problem.clone()),
            sharing: shares.is_some().then(|| problem.clone()),
            shares,
            ..Self::default()
        }
    }
}

/// The GPUs of a node.
pub struct Node {
    driver: Arc<Watched>,
    programs: Programs,
    checkpoint: Checkpoint,
    health: Health,
    time_slice: TimeSlice,
    /// The time slices that this run of the program set.
    sliced: BTreeMap<String, TimeSlice>,
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
        let mut node = Self {
            driver,
            programs: settings.programs.clone(),
            checkpoint,
            health: Health::default(),
            time_slice: settings.time_slice,
            sliced: BTreeMap::new(),
            seen: BTreeMap::new(),
            rest: BTreeMap::new(),
        };
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
        match self.discover(uuid) {
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
    /// is among its parts and in its sharing, with the reason. Applied again, it mends what broke meanwhile: a daemon of MPS that ended is
    /// started.
    pub fn apply(&mut self, wish: &Wish, users: Users<'_>) -> Found {
        let rest = match self.ready(&wish.gpu) {
            Ok(gpu) => self.make(&gpu, wish, users),
            Err(problem) => Rest::nothing(wish, &problem),
        };
        self.rest.insert(wish.gpu.clone(), rest);
        self.look_at(&wish.gpu, users)
    }

    /// A GPU that answers and is well.
    fn ready(&self, uuid: &str) -> Result<Gpu, Problem> {
        let gpu = self.discover(uuid)?;
        self.health.of_gpu(uuid).map_or(Ok(gpu), |why| Err(Problem::Unhealthy(why.to_owned())))
    }

    fn discover(&self, uuid: &str) -> Result<Gpu, DeviceError> {
        let mut gpu = discover::look(&*self.driver, uuid)?;
        gpu.processes = strangers(&self.programs, uuid, gpu.processes);
        Ok(gpu)
    }

    /// One kind of cut at a time: what belongs to another goes first.
    fn make(&mut self, gpu: &Gpu, wish: &Wish, users: Users<'_>) -> Rest {
        let uuid = gpu.info.uuid.as_str();
        self.adopt(gpu, wish.generation);
        let in_turn = wish.cut == Cut::Shares && wish.time_sliced;
        let mut note = if in_turn { None } else { self.slice_time(uuid, TimeSlice::Default) };
        if wish.cut != Cut::Mps
            && let Err(problem) = self.unshare(gpu, users)
        {
            let nothing = Rest::nothing(wish, &problem);
            return Rest { sharing: Some(problem), mode: None, notes: note.into_iter().collect(), ..nothing };
        }
        let mut rest = self.carve(gpu, wish, users);
        if wish.cut == Cut::Mps {
            rest.sharing = self.share(wish, rest.mode.as_ref(), users).err();
            rest.shares = Some(wish.shares.clone());
        }
        if in_turn && rest.mode.is_none() {
            note = self.slice_time(uuid, self.time_slice);
        }
        rest.notes.extend(note);
        self.settle(gpu, users);
        rest
    }

    /// The partitions and the mode of MIG.
    fn carve(&mut self, gpu: &Gpu, wish: &Wish, users: Users<'_>) -> Rest {
        let planned = self.plan(gpu, wish, users);
        let (driver, programs) = (self.driver.clone(), self.programs.clone());
        let in_use = |instance: Option<&Instance>| in_use_now((&*driver, &programs), gpu, instance, users);
        let mut work = Work { driver: &*driver, checkpoint: &mut self.checkpoint, gpu, in_use: &in_use };
        let done = work.all(&planned.steps);
        for instance in &done.destroyed {
            self.health.forget_instance(&gpu.info.uuid, *instance);
        }
        let mut kept = done.kept;
        kept.extend(planned.kept);
        let failed = planned.refused.into_iter().chain(done.failed).collect();
        Rest { generation: wish.generation, failed, kept, mode: planned.mode.or(done.mode), ..Rest::default() }
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
}
