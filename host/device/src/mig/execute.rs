//! From steps to partitions. Everything is noted before it is begun and read back after it is done; what was left half is undone.

use std::collections::BTreeMap;

use partita_core::model::Placement;

use super::{Problem, Spec, Step};
use crate::{
    checkpoint::{Checkpoint, Entry, Stage},
    discover::Gpu,
    driver::Driver,
    error::DeviceError,
    fault::point,
    gpu::{Activation, Instance},
    nvml::Code,
};

/// Who uses a GPU as a whole, or an instance of it; an error where nobody knows.
pub(crate) type InUse<'u> = &'u dyn Fn(Option<&Instance>) -> Result<Vec<String>, String>;

/// What came of the steps.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// What was not made, and why.
    pub(crate) failed: Vec<(Spec, Problem)>,
    /// What was not destroyed, by number of the GPU instance, and why.
    pub(crate) kept: BTreeMap<u32, Problem>,
    /// Why MIG was not switched.
    pub(crate) mode: Option<Problem>,
    /// The GPU instances that were destroyed.
    pub(crate) destroyed: Vec<u32>,
}

/// One GPU on which steps are done.
pub(crate) struct Work<'w> {
    pub(crate) driver: &'w dyn Driver,
    pub(crate) checkpoint: &'w mut Checkpoint,
    /// The GPU as it was when the steps were planned.
    pub(crate) gpu: &'w Gpu,
    /// Asked anew before anything goes.
    pub(crate) in_use: InUse<'w>,
}

impl Work<'_> {
    /// Does the steps. One that fails does not keep those from being done that do not need it.
    pub(crate) fn all(&mut self, steps: &[Step]) -> Done {
        let mut done = Done::default();
        for step in steps {
            match step {
                Step::Destroy { instance } => match self.destroy(*instance) {
                    Ok(()) => done.destroyed.push(*instance),
                    Err(problem) => drop(done.kept.insert(*instance, problem)),
                },
                Step::Switch { on } => done.mode = self.switch(*on, &done).err(),
                // Where it cannot be, a note says what will happen at the reset.
                Step::Stay { on } => match self.stay(*on) {
                    Ok(activation) => tracing::info!(gpu = self.uuid(), on, ?activation, "MIG stays as it is"),
                    Err(problem) => tracing::warn!(gpu = self.uuid(), on, "MIG may not stay as it is: {problem}"),
                },
                Step::Complete { instance, spec } => {
                    if let Err(problem) = self.complete(*instance, spec) {
                        done.failed.push((spec.clone(), problem));
                    }
                }
                Step::Create { spec, placement } => {
                    if let Err(problem) = self.free(spec, *placement, &done).and_then(|()| self.create(spec, *placement)) {
                        done.failed.push((spec.clone(), problem));
                    }
                }
            }
        }
        done
    }

    fn uuid(&self) -> &str {
        &self.gpu.info.uuid
    }

    fn note(&mut self, spec: &Spec, stage: Stage) -> Result<(), Problem> {
        let found_after = self.checkpoint.get(self.uuid(), spec).and_then(|entry| entry.found_after);
        let entry = Entry { gpu: self.uuid().to_owned(), spec: spec.clone(), stage, found_after };
        self.checkpoint.put(entry).map_err(|error| Problem::NotNoted(error.to_string()))
    }

    /// What was done is done, whether or not it can be noted: after a restart the driver tells.
    fn noted(&mut self, spec: &Spec, stage: Option<Stage>) {
        let uuid = self.uuid().to_owned();
        let kept = match stage {
            Some(stage) => self.note(spec, stage).map_err(|problem| problem.to_string()),
            None => self.checkpoint.remove(&uuid, spec).map_err(|error| error.to_string()),
        };
        if let Err(error) = kept {
            tracing::warn!(gpu = uuid, %spec, "{error}");
        }
    }

    /// The instances that are there now.
    fn now(&self) -> Result<Vec<Instance>, DeviceError> {
        self.driver.instances(self.uuid())
    }

    fn find(&self, spec: &Spec) -> Result<Option<Instance>, DeviceError> {
        Ok(self.now()?.into_iter().find(|one| self.gpu.table.spec(one).as_ref() == Some(spec)))
    }

    /// Whether nothing that was to go is still in the way.
    fn free(&self, spec: &Spec, placement: Placement, done: &Done) -> Result<(), Problem> {
        if let Some(problem) = &done.mode {
            return Err(problem.clone());
        }
        let slots = self.gpu.table.grid.as_ref().map(|grid| grid.slots_of(placement)).unwrap_or_default();
        let in_the_way = |one: &&Instance| done.kept.contains_key(&one.id) && Gpu::slots_of(one).overlaps(slots);
        let Some(other) = self.gpu.instances.iter().find(in_the_way) else { return Ok(()) };
        let why = done.kept.get(&other.id).map(ToString::to_string).unwrap_or_default();
        Err(Problem::Overlaps { spec: spec.clone(), other: self.name(other), why })
    }

    fn name(&self, one: &Instance) -> String {
        self.gpu.table.spec(one).map_or_else(|| format!("GPU instance {}", one.id), |spec| spec.to_string())
    }

    fn create(&mut self, spec: &Spec, placement: Placement) -> Result<(), Problem> {
        let id = self.gpu.table.ids.get(usize::from(placement.profile)).copied();
        let size = self.gpu.table.grid.as_ref().map(|grid| grid.profiles[usize::from(placement.profile)].size);
        let (Some(id), Some(size)) = (id, size) else {
            return Err(Problem::Impossible { spec: spec.clone(), why: "the driver has no such profile".to_owned() });
        };
        self.note(spec, Stage::Making)?;
        point("create-noted");
        let made = self.driver.create(self.uuid(), id, (u32::from(placement.start), u32::from(size)));
        point("create-instance");
        let ours = made.as_ref().ok().copied();
        let made = made.and_then(|instance| self.driver.create_compute(self.uuid(), instance));
        self.finish(spec, ours, made)
    }

    fn complete(&mut self, instance: u32, spec: &Spec) -> Result<(), Problem> {
        self.note(spec, Stage::Making)?;
        let made = self.driver.create_compute(self.uuid(), instance);
        self.finish(spec, None, made)
    }

    /// A partition that was made is there, or nothing of it is.
    fn finish(&mut self, spec: &Spec, ours: Option<u32>, made: Result<u32, DeviceError>) -> Result<(), Problem> {
        let seen = made.map_err(Problem::from).and_then(|_| self.seen(spec));
        if seen.is_err() {
            self.undo(spec, ours);
        }
        seen
    }

    /// Whether a partition that was just made is there, whole.
    fn seen(&mut self, spec: &Spec) -> Result<(), Problem> {
        point("create-compute");
        let there = self.find(spec)?.is_some_and(|one| is_whole(self.gpu, &one));
        point("create-seen");
        if !there {
            return Err(Problem::NotThere(spec.clone()));
        }
        self.noted(spec, Some(Stage::Made));
        point("create-done");
        Ok(())
    }

    /// Takes away what there is of a partition that could not be made: the GPU instance that is `ours`, or one in which nothing computes.
    /// A whole one at the same place was made by somebody else at the same time. What cannot be taken away stays noted as half.
    fn undo(&mut self, spec: &Spec, ours: Option<u32>) {
        let uuid = self.uuid().to_owned();
        let mut others = false;
        let gone = self.find(spec).and_then(|found| {
            let Some(one) = found else { return Ok(()) };
            if ours != Some(one.id) && !one.compute.is_empty() {
                others = true;
                return Ok(());
            }
            for compute in &one.compute {
                self.driver.destroy_compute(&uuid, one.id, compute.id)?;
            }
            self.driver.destroy(&uuid, one.id)
        });
        match gone.and_then(|()| self.find(spec)) {
            Ok(found) if found.is_none() || others => self.noted(spec, None),
            Ok(_) => tracing::warn!(gpu = uuid, %spec, "a half partition is still there"),
            Err(error) => tracing::warn!(gpu = uuid, %spec, "a half partition stays: {error}"),
        }
    }

    fn destroy(&mut self, instance: u32) -> Result<(), Problem> {
        let planned = self.gpu.instances.iter().find(|one| one.id == instance);
        let Some(planned) = planned.cloned() else { return Ok(()) };
        let name = self.name(&planned);
        // Numbers are given again: what is there now must be what was decided about.
        match self.now()?.into_iter().find(|one| one.id == instance) {
            None => return Ok(()),
            Some(one) if one != planned => {
                return Err(Problem::Unknown { what: name, why: "it changed meanwhile".to_owned() });
            }
            Some(_) => {}
        }
        match (self.in_use)(Some(&planned)) {
            Ok(users) if users.is_empty() => {}
            Ok(users) => return Err(Problem::Used { what: name, users: users.join(", ") }),
            Err(why) => return Err(Problem::Unknown { what: name, why }),
        }
        let spec = self.gpu.table.spec(&planned);
        if let Some(spec) = &spec {
            self.note(spec, Stage::Destroying)?;
        }
        point("destroy-noted");
        let told = self.tear_down(&planned);
        let left =
            self.now()?.into_iter().find(|one| one.id == instance && one.start == planned.start && one.profile_id == planned.profile_id);
        point("destroy-seen");
        match (left, spec) {
            (None, Some(spec)) => {
                self.noted(&spec, None);
                point("destroy-done");
                Ok(())
            }
            (None, None) => Ok(()),
            (Some(left), spec) => {
                if let Some(spec) = spec.filter(|_| !left.compute.is_empty()) {
                    self.noted(&spec, Some(Stage::Made));
                }
                Err(told.map_or_else(Problem::from, |()| Problem::StillThere(name)))
            }
        }
    }

    fn tear_down(&self, one: &Instance) -> Result<(), DeviceError> {
        for compute in &one.compute {
            self.driver.destroy_compute(self.uuid(), one.id, compute.id)?;
        }
        point("destroy-compute");
        self.driver.destroy(self.uuid(), one.id)?;
        point("destroy-instance");
        Ok(())
    }

    /// Notes how the GPU is before its mode is another for the first time, so that it can be so again. Switching MIG on changes the compute
    /// mode too.
    fn note_modes(&mut self) -> Result<(), Problem> {
        let mig = self.gpu.info.mode;
        let compute_mode = match self.driver.compute_mode(self.uuid()) {
            Ok(mode) => Some(mode),
            // There is none that could be lost.
            Err(DeviceError::Call { code: Code::NOT_SUPPORTED, .. } | DeviceError::NoFunction { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let noted = self.checkpoint.change(&self.gpu.info.uuid, |changed| {
            changed.mig = changed.mig.or(mig);
            changed.compute_mode = changed.compute_mode.or(compute_mode);
        });
        noted.map_err(|error| Problem::NotNoted(error.to_string()))
    }

    fn stay(&mut self, on: bool) -> Result<Activation, Problem> {
        self.note_modes()?;
        Ok(self.driver.set_mode(self.uuid(), on)?)
    }

    fn switch(&mut self, on: bool, done: &Done) -> Result<(), Problem> {
        if let Some(problem) = done.kept.values().next() {
            return Err(problem.clone());
        }
        match (self.in_use)(None) {
            Ok(users) if users.is_empty() => {}
            Ok(users) => return Err(Problem::SwitchUsed { users: users.join(", ") }),
            Err(why) => return Err(Problem::Unknown { what: "the GPU".to_owned(), why }),
        }
        self.note_modes()?;
        point("mode-noted");
        let activation = self.driver.set_mode(self.uuid(), on)?;
        point("mode-set");
        match activation {
            Activation::Done => {}
            Activation::NeedsReset => return Err(Problem::NeedsReset),
            Activation::InUse => return Err(Problem::SwitchUsed { users: "others whom the driver does not name".to_owned() }),
        }
        // Success says only that the wish was stored.
        let mode = self.driver.info(self.uuid())?.mode;
        if mode.is_some_and(|mode| mode.current == on) { Ok(()) } else { Err(Problem::NeedsReset) }
    }
}

/// Whether an instance is a partition that can be given to somebody: one compute instance that has all of it, and a UUID.
pub(crate) fn is_whole(gpu: &Gpu, one: &Instance) -> bool {
    let [compute] = one.compute.as_slice() else { return false };
    let row = gpu.table.row(one.profile_id).and_then(|row| gpu.table.grid.as_ref()?.profiles.get(usize::from(row)));
    compute.uuid.is_some() && row.is_none_or(|profile| u32::from(profile.compute) == compute.slices)
}

/// Takes away what an earlier run of this program left half: GPU instances of ours in which nothing computes. Nothing else is touched.
pub(crate) fn clean(driver: &dyn Driver, checkpoint: &mut Checkpoint, gpu: &Gpu) {
    for one in gpu.instances.iter().filter(|one| one.compute.is_empty()) {
        let Some(spec) = gpu.table.spec(one) else { continue };
        let half = checkpoint.get(&gpu.info.uuid, &spec).is_some_and(|entry| entry.stage != Stage::Made);
        if !half || gpu.blind.is_some() || gpu.users_of(Some(one.id), &gpu.processes).next().is_some() {
            continue;
        }
        match driver.destroy(&gpu.info.uuid, one.id) {
            Ok(()) | Err(DeviceError::Call { code: Code::NOT_FOUND, .. }) => {
                tracing::info!(gpu = gpu.info.uuid, %spec, "a half partition of an earlier run was taken away");
            }
            Err(error) => tracing::warn!(gpu = gpu.info.uuid, %spec, "a half partition of an earlier run stays: {error}"),
        }
    }
}
