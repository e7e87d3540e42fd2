//! What an agent's object says: what was asked of it, and what it says that it did.

use std::collections::BTreeMap;

use partita_core::model::{Cut, MILLI, ProfileName};

use crate::{crd::PartitionState, objects::GpuNode};

/// A part of a GPU, as scheduler and agent name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// A MIG partition: profile and first slot.
    Mig(String, u8),
    /// A share under MPS, MiB. A GPU can have several alike.
    Mps(u32),
    /// Thousandths of a GPU that is cut in shares: 1000 is all of it. It can have several alike.
    Share(u32),
}

impl Part {
    /// A MIG partition, whose profile has one name however it is written.
    pub(crate) fn mig(profile: &str, start: u8) -> Self {
        Self::Mig(ProfileName::parse(profile).map_or_else(|_| profile.to_owned(), |name| name.to_string()), start)
    }

    fn of(profile: Option<&String>, start: Option<u8>, memory_mib: Option<u32>, milli: Option<u32>) -> Option<Self> {
        match (profile, memory_mib, milli) {
            (Some(profile), ..) => Some(Self::mig(profile, start.unwrap_or(0))),
            (None, Some(memory_mib), _) => Some(Self::Mps(memory_mib)),
            (None, None, Some(milli)) => Some(Self::Share(milli)),
            (None, None, None) => None,
        }
    }
}

/// What a pod needs of a node before it can be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Index of the GPU.
    pub(crate) gpu: u8,
    /// The part of it.
    pub(crate) part: Part,
    /// The resource under which the kubelet must have it; none if nobody knows.
    pub(crate) resource: Option<String>,
}

/// How many parts like a needed one there must be, since others use such: in all, and under its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Often {
    /// In all.
    pub(crate) all: usize,
    /// Under its resource.
    pub(crate) alike: usize,
}

impl Often {
    /// Nobody else uses such a part.
    pub(crate) const ONCE: Self = Self { all: 1, alike: 1 };
}

/// What an agent says of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It is there, and the kubelet has it.
    Ready,
    /// It could not be made, and why.
    Failed(String),
    /// It is being made, or the kubelet does not have it yet, and why.
    Coming(String),
}

/// A part that is spoken of, with the resource under which it is or shall be offered; none if that is not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    part: Part,
    resource: Option<String>,
}

impl Named {
    /// Whether this is what is needed.
    fn is(&self, need: &Need) -> bool {
        self.part == need.part && self.under(need)
    }

    fn under(&self, need: &Need) -> bool {
        self.resource.is_none() || need.resource.is_none() || self.resource == need.resource
    }
}

/// What an agent's object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The term and generation of the layout that the object asks for.
    pub(crate) asked: (i64, i64),
    /// The term and generation that the agent has taken.
    pub(crate) done: (i64, i64),
    /// The parts asked for, by GPU index. A GPU that is not named is left as it is.
    wanted: BTreeMap<u8, Vec<Named>>,
    /// Parts by GPU index: those that are there, that are coming, and that failed.
    parts: BTreeMap<u8, Vec<(Named, Condition)>>,
}

impl Report {
    /// What an object says.
    pub(crate) fn of(object: &GpuNode) -> Self {
        let (spec, status) = (&object.spec.value, &object.status.value);
        let mut report =
            Self { asked: (spec.term, spec.generation), done: (status.observed_term, status.observed_generation), ..Self::default() };
        for gpu in &spec.gpus {
            let parts = gpu.partitions.iter().filter_map(|one| {
                let part = Part::of(one.profile.as_ref(), one.start, one.memory_mib, one.milli)?;
                Some(Named { part, resource: one.resource.clone() })
            });
            // A GPU in shares that nobody has is offered whole.
            let idle = gpu.cut == Cut::Shares && gpu.partitions.is_empty();
            let whole = idle.then_some(Named { part: Part::Share(MILLI), resource: None });
            report.wanted.insert(gpu.index, whole.into_iter().chain(parts).collect());
        }
        for gpu in &status.gpus {
            let here = report.parts.entry(gpu.index).or_default();
            for one in &gpu.partitions {
                let Some(part) = Part::of(one.profile.as_ref(), one.start, one.memory_mib, one.milli) else { continue };
                let condition = match one.state {
                    // Nothing is cut or shared that does not work.
                    PartitionState::Ready if matches!(part, Part::Share(_)) && !gpu.healthy => continue,
                    PartitionState::Ready => Condition::Ready,
                    PartitionState::Failed => Condition::Failed(one.message.clone()),
                    PartitionState::Creating => Condition::Coming(one.message.clone()),
                    PartitionState::Destroying => continue,
                };
                here.push((Named { part, resource: one.resource.clone() }, condition));
            }
        }
        report
    }

    /// The same, and these parts of a GPU.
    #[cfg(test)]
    pub(crate) fn saying(mut self, gpu: u8, parts: impl IntoIterator<Item = (Part, Condition)>) -> Self {
        let named = parts.into_iter().map(|(part, condition)| (Named { part, resource: None }, condition));
        self.parts.entry(gpu).or_default().extend(named);
        self
    }

    /// Whether a part is there, so `often` as there are parts alike that somebody uses.
    pub(crate) fn has(&self, need: &Need, often: Often) -> bool {
        let ready = |(name, condition): &'_ (Named, Condition)| (*condition == Condition::Ready).then(|| name.clone());
        let ready: Vec<Named> = self.parts.get(&need.gpu).into_iter().flatten().filter_map(ready).collect();
        enough(&ready, need, often)
    }

    /// Whether a part is there to stay: the layout that was asked for has it, too.
    pub(crate) fn keeps(&self, need: &Need, often: Often) -> bool {
        self.has(need, often) && self.wanted.get(&need.gpu).is_none_or(|wanted| enough(wanted, need, often))
    }

    /// Why a part could not be made.
    pub(crate) fn failure(&self, need: &Need) -> Option<&String> {
        self.said(need).find_map(|condition| if let Condition::Failed(message) = condition { Some(message) } else { None })
    }

    /// Why a part is not there yet, if it is coming.
    pub(crate) fn coming(&self, need: &Need) -> Option<&String> {
        self.said(need).find_map(|condition| if let Condition::Coming(message) = condition { Some(message) } else { None })
    }

    /// What is said of parts like a needed one.
    fn said(&self, need: &Need) -> impl Iterator<Item = &Condition> {
        self.parts.get(&need.gpu).into_iter().flatten().filter(|(name, _)| name.is(need)).map(|(_, condition)| condition)
    }
}

/// Whether there are as many parts like a needed one as there must be.
fn enough(parts: &[Named], need: &Need, often: Often) -> bool {
    let count = |which: &dyn Fn(&Named) -> bool| parts.iter().filter(|name| which(name)).count();
    count(&|name| name.part == need.part) >= often.all.max(1) && count(&|name| name.is(need)) >= often.alike.max(1)
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
                {"uuid": "c", "index": 2, "model": "m", "cut": "shares", "healthy": true, "partitions": [
                    {"milli": 1000, "resource": "nvidia.com/gpu", "state": "Ready"}]},
                {"uuid": "d", "index": 3, "model": "m", "cut": "shares", "healthy": false, "partitions": [{"milli": 1000, "state": "Ready"}]},
                {"uuid": "e", "index": 4, "model": "m", "cut": "shares", "healthy": true, "partitions": [
                    {"milli": 500, "resource": "partita.dev/gpu", "state": "Ready"}, {"milli": 500, "state": "Creating"}]},
            ]},
        }))
        .unwrap();
        let report = Report::of(&object);
        assert_eq!((report.asked, report.done), ((3, 7), (3, 6)));
        let says = |gpu: u8, part: Part, count| {
            let need = Need { gpu, part, resource: None };
            let often = Often { all: count, alike: count };
            (report.has(&need, often), report.keeps(&need, often))
        };
        assert_eq!(says(0, Part::mig("1g.10gb+me", 0), 1), (true, true), "one profile, two names");
        assert_eq!(says(0, Part::mig("1g.10gb", 1), 1), (true, false), "it is about to go");
        assert_eq!(says(0, Part::mig("1g.10gb", 2), 1), (false, false));
        assert_eq!(says(0, Part::mig("1g.10gb", 3), 1), (false, false));
        assert_eq!(says(1, Part::Mps(1024), 1), (true, true));
        assert_eq!(says(1, Part::Mps(1024), 2), (true, false));
        assert_eq!(says(1, Part::Mps(1024), 3), (false, false));
        assert_eq!((says(2, Part::Share(1000), 1), says(3, Part::Share(1000), 1)), ((true, true), (false, false)));
        assert_eq!((says(4, Part::Share(500), 1), says(4, Part::Share(500), 2)), ((true, true), (false, false)));
        assert_eq!(says(4, Part::Share(1000), 1), (false, false));
    }

    #[test]
    fn a_part_is_there_under_the_name_by_which_it_is_asked_for() {
        let object: GpuNode = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"term": 1, "generation": 1, "gpus": [
                {"uuid": "a", "index": 0, "cut": "mig", "partitions": [
                    {"profile": "1g.10gb", "start": 0, "resource": "partita.dev/gpu"}, {"profile": "1g.10gb", "start": 1}]},
                {"uuid": "b", "index": 1, "cut": "mps", "partitions": [{"memoryMiB": 1024}, {"memoryMiB": 1024}]},
            ]},
            "status": {"observedTerm": 1, "observedGeneration": 1, "gpus": [
                {"uuid": "a", "index": 0, "model": "m", "cut": "mig", "healthy": true, "partitions": [
                    {"profile": "1g.10gb", "start": 0, "resource": "nvidia.com/mig-1g.10gb", "state": "Ready"},
                    {"profile": "1g.10gb", "start": 1, "resource": "nvidia.com/mig-1g.10gb", "state": "Ready"},
                    {"profile": "1g.10gb", "start": 2, "state": "Ready"},
                    {"profile": "1g.10gb", "start": 3, "resource": "partita.dev/gpu", "state": "Failed", "message": "no"}]},
                {"uuid": "b", "index": 1, "model": "m", "cut": "mps", "healthy": true, "partitions": [
                    {"memoryMiB": 1024, "resource": "partita.dev/gpu", "state": "Ready"},
                    {"memoryMiB": 1024, "resource": "nvidia.com/gpu-1gb", "state": "Ready"}]},
            ]},
        }))
        .unwrap();
        let report = Report::of(&object);
        let need = |gpu: u8, part: Part, resource: &str| Need { gpu, part, resource: Some(resource.to_owned()) };
        let (plain, floor) = ("nvidia.com/mig-1g.10gb", "partita.dev/gpu");
        let says = |start: u8, resource: &str| {
            let need = need(0, Part::mig("1g.10gb", start), resource);
            (report.has(&need, Often::ONCE), report.keeps(&need, Often::ONCE))
        };
        assert_eq!((says(0, plain), says(0, floor)), ((true, false), (false, false)), "its name is about to change");
        assert_eq!((says(1, plain), says(1, floor)), ((true, true), (false, false)));
        assert_eq!(says(2, floor), (true, false), "under which name is not said");
        let failure = |resource: &str| report.failure(&need(0, Part::mig("1g.10gb", 3), resource));
        assert_eq!((failure(floor).map(String::as_str), failure(plain)), (Some("no"), None));
        let mps = |all, alike| report.keeps(&need(1, Part::Mps(1024), floor), Often { all, alike });
        assert_eq!((mps(1, 1), mps(2, 1), mps(2, 2), mps(3, 1)), (true, true, false, false));
    }
}
