//! What an agent's object says: what was asked of it, and what it says that it did.

use std::collections::BTreeMap;

use partita_core::model::{Cut, ProfileName};

use crate::{crd::PartitionState, objects::GpuNode};

/// A part of a GPU, as scheduler and agent name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// A MIG partition: profile and first slot.
    Mig(String, u8),
    /// A share under MPS, MiB. A GPU can have several alike.
    Mps(u32),
    /// The GPU must be cut in shares.
    Shares,
}

impl Part {
    /// A MIG partition, whose profile has one name however it is written.
    pub(crate) fn mig(profile: &str, start: u8) -> Self {
        Self::Mig(ProfileName::parse(profile).map_or_else(|_| profile.to_owned(), |name| name.to_string()), start)
    }

    fn of(profile: Option<&String>, start: Option<u8>, memory_mib: Option<u32>) -> Option<Self> {
        match (profile, memory_mib) {
            (Some(profile), _) => Some(Self::mig(profile, start.unwrap_or(0))),
            (None, Some(memory_mib)) => Some(Self::Mps(memory_mib)),
            (None, None) => None,
        }
    }
}

/// What an agent says of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It is there.
    Ready,
    /// It could not be made, and why.
    Failed(String),
}

/// What an agent's object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The term and generation of the layout that the object asks for.
    pub(crate) asked: (i64, i64),
    /// The term and generation that the agent has taken.
    pub(crate) done: (i64, i64),
    /// The parts asked for, by GPU index. A GPU that is not named is left as it is.
    pub(crate) wanted: BTreeMap<u8, Vec<Part>>,
    /// Parts by GPU index: those that are there and those that failed. A part that is neither is being made or unknown.
    pub(crate) parts: BTreeMap<u8, Vec<(Part, Condition)>>,
}

impl Report {
    /// What an object says.
    pub(crate) fn of(object: &GpuNode) -> Self {
        let (spec, status) = (&object.spec.value, &object.status.value);
        let mut report =
            Self { asked: (spec.term, spec.generation), done: (status.observed_term, status.observed_generation), ..Self::default() };
        for gpu in &spec.gpus {
            let parts = gpu.partitions.iter().filter_map(|one| Part::of(one.profile.as_ref(), one.start, one.memory_mib));
            let shares = (gpu.cut == Cut::Shares).then_some(Part::Shares);
            report.wanted.insert(gpu.index, shares.into_iter().chain(parts).collect());
        }
        for gpu in &status.gpus {
            let here = report.parts.entry(gpu.index).or_default();
            if gpu.cut == Cut::Shares && gpu.healthy {
                here.push((Part::Shares, Condition::Ready));
            }
            for one in &gpu.partitions {
                let Some(part) = Part::of(one.profile.as_ref(), one.start, one.memory_mib) else { continue };
                match one.state {
                    PartitionState::Ready => here.push((part, Condition::Ready)),
                    PartitionState::Failed => here.push((part, Condition::Failed(one.message.clone()))),
                    PartitionState::Creating | PartitionState::Destroying => {}
                }
            }
        }
        report
    }

    /// Whether a part is there, so `often` as there are shares alike that somebody uses.
    pub(crate) fn has(&self, gpu: u8, part: &Part, often: usize) -> bool {
        let said = self.parts.get(&gpu).into_iter().flatten();
        said.filter(|(name, condition)| name == part && *condition == Condition::Ready).count() >= often.max(1)
    }

    /// Whether a part is there to stay: the layout that was asked for has it, too.
    pub(crate) fn keeps(&self, gpu: u8, part: &Part, often: usize) -> bool {
        let wanted = |parts: &Vec<Part>| parts.iter().filter(|name| *name == part).count() >= often.max(1);
        self.has(gpu, part, often) && self.wanted.get(&gpu).is_none_or(wanted)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_is_there_to_stay_if_it_is_asked_for() {
        let object: GpuNode = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"term": 3, "generation": 7, "gpus": [
                {"uuid": "a", "index": 0, "cut": "mig", "partitions": [{"profile": "1g.10gb+me", "start": 0}]},
                {"uuid": "b", "index": 1, "cut": "mps", "partitions": [{"memoryMiB": 1024}]},
            ]},
            "status": {"observedTerm": 3, "observedGeneration": 6, "gpus": [
                {"uuid": "a", "index": 0, "model": "m", "cut": "mig", "healthy": true, "partitions": [
                    {"profile": "1g.10gb.me", "start": 0, "state": "Ready"}, {"profile": "1g.10gb", "start": 1, "state": "Ready"},
                    {"profile": "1g.10gb", "start": 2, "state": "Creating"}, {"profile": "1g.10gb", "start": 3, "state": "Failed"}]},
                {"uuid": "b", "index": 1, "model": "m", "cut": "mps", "healthy": true, "partitions": [
                    {"memoryMiB": 1024, "state": "Ready"}, {"memoryMiB": 1024, "state": "Ready"}]},
                {"uuid": "c", "index": 2, "model": "m", "cut": "shares", "healthy": true},
                {"uuid": "d", "index": 3, "model": "m", "cut": "shares", "healthy": false},
            ]},
        }))
        .unwrap();
        let report = Report::of(&object);
        assert_eq!((report.asked, report.done), ((3, 7), (3, 6)));
        let says = |gpu: u8, part: Part, often| (report.has(gpu, &part, often), report.keeps(gpu, &part, often));
        assert_eq!(says(0, Part::mig("1g.10gb+me", 0), 1), (true, true), "one profile, two names");
        assert_eq!(says(0, Part::mig("1g.10gb", 1), 1), (true, false), "it is about to go");
        assert_eq!(says(0, Part::mig("1g.10gb", 2), 1), (false, false));
        assert_eq!(says(0, Part::mig("1g.10gb", 3), 1), (false, false));
        assert_eq!(says(1, Part::Mps(1024), 1), (true, true));
        assert_eq!(says(1, Part::Mps(1024), 2), (true, false));
        assert_eq!(says(1, Part::Mps(1024), 3), (false, false));
        assert_eq!((says(2, Part::Shares, 1), says(3, Part::Shares, 1)), ((true, true), (false, false)));
    }
}
