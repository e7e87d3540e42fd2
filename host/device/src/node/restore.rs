//! A GPU becomes again what it was before this program.

use partita_core::model::Cut;

use super::{Node, Rest, Users, share::is_as_found};
use crate::{discover::Gpu, found::Found, mig::Problem, programs::TimeSlice, wish::Wish};

/// Before every layout: what others made was meant by none.
const BEFORE_ALL: (i64, i64) = (i64::MIN, i64::MIN);

impl Node {
    /// Lets go of a GPU: what this program made goes, as far as nobody uses it, and what it changed becomes as it was found: partitions,
    /// MPS, time slices, the modes. Partitions that others made stay. Returns what there is then; what stays says why. To be called again
    /// until [`Node::is_restored`]; called then, it does nothing.
    ///
    /// Partitions that others made and that a later layout left out are not made anew.
    pub fn restore(&mut self, gpu: &str, users: Users<'_>) -> Found {
        let generation = self.rest.get(gpu).map_or((0, 0), |rest| rest.generation);
        let rest = match self.ready(gpu) {
            Ok(found) => {
                self.adopt(&found, generation);
                self.give_back(&found, users)
            }
            Err(problem) => Rest { mode: Some(problem), ..Rest::default() },
        };
        self.rest.insert(gpu.to_owned(), Rest { generation, ..rest });
        self.look_at(gpu, users)
    }

    /// Whether nothing on a GPU is of this program any more, and the GPU as it was found.
    #[must_use]
    pub fn is_restored(&self, gpu: &str) -> bool {
        let mut entries = self.checkpoint.entries().iter();
        let is_clean = self.checkpoint.changed(gpu).is_nothing() && !self.programs.has_traces(gpu);
        is_clean && !entries.any(|entry| entry.gpu == gpu && entry.found_after.is_none())
    }

    fn give_back(&mut self, gpu: &Gpu, users: Users<'_>) -> Rest {
        let uuid = gpu.info.uuid.as_str();
        let notes: Vec<String> = self.slice_time(uuid, TimeSlice::Default).into_iter().collect();
        if let Err(problem) = self.unshare(gpu, users) {
            return Rest { sharing: Some(problem), notes, ..Rest::default() };
        }
        let wish = |cut, may_switch| Wish {
            gpu: uuid.to_owned(),
            generation: BEFORE_ALL,
            cut,
            partitions: Vec::new(),
            shares: Vec::new(),
            time_sliced: false,
            may_switch,
        };
        let mut rest = Rest::default();
        if gpu.is_cut() {
            rest = self.carve(gpu, &wish(Cut::Mig, false), users);
        }
        let found = self.checkpoint.changed(uuid).mig;
        let is_other = |gpu: &Gpu| found.zip(gpu.info.mode).is_some_and(|(found, mode)| !is_as_found(found, mode));
        match self.discover(uuid) {
            Ok(now) if is_other(&now) => {
                let cut = if found.is_some_and(|found| found.pending) { Cut::Mig } else { Cut::Shares };
                let switched = self.carve(&now, &wish(cut, true), users);
                rest.mode = switched.mode;
                for (instance, problem) in switched.kept {
                    rest.kept.entry(instance).or_insert(problem);
                }
            }
            Ok(_) => {}
            Err(error) => rest.mode = Some(Problem::Device(error)),
        }
        self.settle(gpu, users);
        Rest { notes, ..rest }
    }
}
