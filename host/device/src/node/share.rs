//! A GPU begins and ends to be shared by MPS, and its time slices are set. What is begun is noted before, so that it can be ended after
//! any crash.

use partita_core::model::node::MPS_RESERVED_MIB;

use super::{
    Node, Users,
    users::{in_use_now, strangers},
};
use crate::{
    checkpoint::{Changed, CheckpointError, Shared},
    discover::Gpu,
    driver::Driver,
    error::DeviceError,
    fault::point,
    gpu::{ComputeMode, MigMode},
    mig::Problem,
    mps::{self, Limits, MpsError},
    programs::TimeSlice,
    wish::Wish,
};

impl Node {
    /// Lets a GPU be shared by MPS as wanted, or says why not. `mode` says why MIG is not off, if it is not.
    pub(super) fn share(&mut self, wish: &Wish, mode: Option<&Problem>, users: Users<'_>) -> Result<(), Problem> {
        if let Some(problem) = mode {
            return Err(problem.clone());
        }
        let uuid = wish.gpu.as_str();
        let gpu = self.discover(uuid)?;
        mps::fits(&wish.shares, gpu.info.memory_mib)?;
        self.programs.has_control()?;
        let noted = self.checkpoint.changed(uuid).mps;
        let is_used = self.users_now(&gpu, users);
        // A daemon of which nothing is known is ours all the same, if the checkpoint was lost.
        let is_lost = noted.is_none() && self.programs.has_traces(uuid);
        if noted.is_none() && !(is_lost && self.programs.answers(uuid).is_ok()) {
            idle(is_used.clone())?;
        }
        let all_mib = gpu.info.memory_mib - MPS_RESERVED_MIB;
        let largest = wish.shares.iter().copied().max().unwrap_or(all_mib);
        // Who has a share keeps its limit, also for processes that it starts later.
        let was = noted.as_ref().map_or(if is_lost { all_mib } else { 0 }, |noted| noted.limit_mib);
        let limit_mib = if is_used == Ok(Vec::new()) { largest } else { largest.max(was) };
        let found = self.driver.compute_mode(uuid)?;
        // Then the mode is ours too, and what it was is not known: every boot makes it the default.
        let found = if is_lost { ComputeMode::Default } else { found };
        self.note(uuid, |changed| {
            changed.compute_mode.get_or_insert(found);
            changed.mps = Some(Shared { shares: wish.shares.clone(), limit_mib });
        })?;
        point("share-noted");
        let done = self.serve(&gpu, Limits::of(limit_mib, gpu.info.memory_mib), is_used);
        if done.is_err() && noted.is_none() {
            // Nothing of it was there before, so nothing of it stays; what cannot go is tried again with the next layout.
            if let Err(problem) = self.unshare(&gpu, users) {
                tracing::warn!(gpu = uuid, "MPS, which could not be begun, stays half: {problem}");
            }
        }
        done
    }

    /// The mode, the daemon and its limits.
    fn serve(&mut self, gpu: &Gpu, limits: Limits, is_used: Result<Vec<String>, String>) -> Result<(), Problem> {
        let uuid = gpu.info.uuid.as_str();
        if self.driver.compute_mode(uuid)? != ComputeMode::ExclusiveProcess {
            idle(is_used)?;
            self.set_compute_mode(uuid, ComputeMode::ExclusiveProcess)?;
        }
        point("share-exclusive");
        if let Err(error) = self.programs.answers(uuid) {
            self.may_start_anew(gpu, &error)?;
            self.programs.end(uuid)?;
            self.programs.start(uuid)?;
        }
        point("share-started");
        self.programs.limit(uuid, limits)?;
        point("share-limited");
        Ok(())
    }

    /// A daemon that does not answer may be ended and started anew if nobody computes through it. Pods that have a share and do not
    /// compute do not matter: they cannot begin to until it serves again. Nor does who computes without a server.
    fn may_start_anew(&self, gpu: &Gpu, error: &MpsError) -> Result<(), Problem> {
        let uuid = &gpu.info.uuid;
        if matches!(error, MpsError::Gone { .. }) && !self.programs.has_orphans(uuid) {
            return Ok(());
        }
        let listed = self.driver.processes(uuid).map_err(|error| Problem::Unknown { what: "MPS".to_owned(), why: error.to_string() })?;
        let clients = strangers(&self.programs, uuid, listed);
        if clients.is_empty() {
            return Ok(());
        }
        let users = clients.iter().map(|one| format!("pid:{}", one.pid)).collect::<Vec<_>>().join(", ");
        Err(Problem::Mps(MpsError::Broken { gpu: uuid.clone(), users }))
    }

    /// Ends what there is of MPS on a GPU, if nobody uses it, and lets it be as it was found.
    pub(super) fn unshare(&mut self, gpu: &Gpu, users: Users<'_>) -> Result<(), Problem> {
        let uuid = gpu.info.uuid.as_str();
        if self.checkpoint.changed(uuid).mps.is_none() && !self.programs.has_traces(uuid) {
            return Ok(());
        }
        idle(self.users_now(gpu, users))?;
        point("unshare-begun");
        self.programs.end(uuid)?;
        point("unshare-ended");
        self.programs.sweep(uuid)?;
        point("unshare-swept");
        let found = self.checkpoint.changed(uuid).compute_mode.unwrap_or_default();
        // If somebody switched MIG on meanwhile, there is no such mode.
        if !gpu.is_cut() && self.driver.compute_mode(uuid)? != found {
            self.set_compute_mode(uuid, found)?;
        }
        point("unshare-mode");
        self.note(uuid, |changed| (changed.mps, changed.compute_mode) = (None, None))
    }

    /// Sets the time slices of a GPU. Returns what an operator should know: it is used in turn all the same.
    pub(super) fn slice_time(&mut self, gpu: &str, slice: TimeSlice) -> Option<String> {
        let is_set = self.checkpoint.changed(gpu).time_sliced;
        let (is_done, wanted) = (self.sliced.get(gpu) == Some(&slice), slice != TimeSlice::Default);
        if is_set == wanted && (!wanted || is_done) {
            return None;
        }
        let set = self.programs.has_smi().map_err(Problem::from).and_then(|()| {
            self.note(gpu, |changed| changed.time_sliced = true)?;
            point("slice-noted");
            let set = self.programs.set_time_slice(gpu, slice);
            point("slice-set");
            match &set {
                Ok(()) => {
                    self.sliced.insert(gpu.to_owned(), slice);
                    self.note(gpu, |changed| changed.time_sliced = wanted)?;
                }
                // A driver that says no has done nothing; of one that says nothing nobody knows.
                Err(MpsError::Refused { .. }) => self.note(gpu, |changed| changed.time_sliced = is_set)?,
                Err(_) => {}
            }
            Ok(set?)
        });
        set.err().map(|problem| format!("the length of time slices could not be set: {problem}"))
    }

    /// Lets the compute mode of a GPU that neither MIG nor MPS has any more be as it was found, and forgets what is as it was found.
    pub(super) fn settle(&mut self, gpu: &Gpu, users: Users<'_>) {
        let uuid = gpu.info.uuid.as_str();
        let changed = self.checkpoint.changed(uuid);
        if changed.is_nothing() {
            return;
        }
        if let Err(problem) = self.settled(gpu, &changed, users) {
            tracing::warn!(gpu = uuid, "it is not as it was found: {problem}");
        }
    }

    fn settled(&mut self, gpu: &Gpu, changed: &Changed, users: Users<'_>) -> Result<(), Problem> {
        let uuid = gpu.info.uuid.as_str();
        let mode = self.driver.info(uuid)?.mode;
        let is_off = mode.is_none_or(|mode| !mode.current);
        let is_found = changed.mig.zip(mode).is_none_or(|(found, mode)| is_as_found(found, mode));
        // While MIG is on there is no such mode; where it is to stay on, there is none to come back to.
        if let Some(found) = changed.compute_mode.filter(|_| changed.mps.is_none() && (is_off || is_found)) {
            if is_off && self.driver.compute_mode(uuid)? != found {
                idle(self.users_now(gpu, users))?;
                self.set_compute_mode(uuid, found)?;
            }
            self.note(uuid, |changed| changed.compute_mode = None)?;
        }
        if is_found { self.note(uuid, |changed| changed.mig = None) } else { Ok(()) }
    }

    fn set_compute_mode(&self, gpu: &str, mode: ComputeMode) -> Result<(), DeviceError> {
        self.driver.set_compute_mode(gpu, mode)?;
        let is = self.driver.compute_mode(gpu)?;
        let (function, what) = ("nvmlDeviceSetComputeMode", || format!("success, and the compute mode is {is:?} and not {mode:?}"));
        if is == mode { Ok(()) } else { Err(DeviceError::Nonsense { function, gpu: gpu.to_owned(), what: what() }) }
    }

    fn note(&mut self, gpu: &str, edit: impl FnOnce(&mut Changed)) -> Result<(), Problem> {
        self.checkpoint.change(gpu, edit).map_err(|error: CheckpointError| Problem::NotNoted(error.to_string()))
    }

    fn users_now(&self, gpu: &Gpu, users: Users<'_>) -> Result<Vec<String>, String> {
        in_use_now((&*self.driver, &self.programs), gpu, None, users)
    }
}

/// Whether a mode is the one that was found, or what that would be after the reset that it waited for.
pub(super) fn is_as_found(found: MigMode, is: MigMode) -> bool {
    is == found || (is.current == is.pending && is.pending == found.pending)
}

fn idle(users: Result<Vec<String>, String>) -> Result<(), Problem> {
    match users {
        Ok(users) if users.is_empty() => Ok(()),
        Ok(users) => Err(Problem::SharedUsed { users: users.join(", ") }),
        Err(why) => Err(Problem::Unknown { what: "the GPU".to_owned(), why }),
    }
}
