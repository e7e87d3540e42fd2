//! What is told of a GPU.

use partita_core::model::GpuModel;

use super::{
    Node, Users,
    users::{note_blind, users_of},
};
use crate::{
    discover::Gpu,
    found::{Found, Part, PartState, Sharing},
    gpu::Instance,
    mig::{Problem, Spec, execute::is_whole},
};

impl Node {
    pub(super) fn found(&self, gpu: Gpu, users: Users<'_>) -> Found {
        let uuid = gpu.info.uuid.clone();
        let rest = self.rest.get(&uuid);
        let mut notes = gpu.notes.clone();
        notes.extend(rest.and_then(|rest| rest.mode.as_ref()).map(ToString::to_string));
        notes.extend(rest.into_iter().flat_map(|rest| rest.notes.iter().cloned()));
        let sharing = self.sharing(&uuid);
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
        Found { gpu, unusable, notes, parts, sharing, users }
    }

    /// What there is of MPS, or should be.
    fn sharing(&self, gpu: &str) -> Option<Sharing> {
        let (noted, rest) = (self.checkpoint.changed(gpu).mps, self.rest.get(gpu));
        let wanted = rest.and_then(|rest| rest.shares.clone());
        let problem = rest.and_then(|rest| rest.sharing.clone());
        let serves = || self.programs.answers(gpu).map_or_else(|error| PartState::Failed(Problem::Mps(error)), |()| PartState::Ready);
        let state = match (&wanted, problem) {
            (Some(_), Some(problem)) => PartState::Failed(problem),
            (None, Some(problem)) => PartState::Kept(problem),
            (_, None) if noted.is_some() => serves(),
            (_, None) => return None,
        };
        let shares = wanted.or_else(|| noted.map(|noted| noted.shares)).unwrap_or_default();
        Some(Sharing { pipe: self.programs.pipe(gpu), shares, state })
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
    pub(super) fn lost(&self, uuid: &str, why: &str) -> Found {
        let unknown = || Gpu::of(GpuModel { name: String::new(), memory_mib: 0, grid: None });
        let mut gpu = self.seen.get(uuid).cloned().unwrap_or_else(unknown);
        uuid.clone_into(&mut gpu.info.uuid);
        gpu.unusable = Some(why.to_owned());
        let mut found = self.found(gpu, &|_, _| Ok(Vec::new()));
        let ill = || PartState::Kept(Problem::Unhealthy(why.to_owned()));
        found.parts.iter_mut().filter(|part| part.instance.is_some()).for_each(|part| part.state = ill());
        found.sharing.iter_mut().filter(|sharing| sharing.state == PartState::Ready).for_each(|sharing| sharing.state = ill());
        found
    }
}
