//! Which pods have which parts of which GPUs, as their grants say.

use std::collections::BTreeMap;

use super::{
    hardware::Gpu,
    part::{MILLI, Part},
    violation::Violation,
};

/// A pod on a node.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) uid: String,
    /// UUID of the GPU, and the part of it.
    pub(super) parts: Vec<(String, Part)>,
    /// It is known to be gone, though the watch has not said so yet.
    pub(super) gone: bool,
}

/// Who uses a GPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    /// Who has it whole or a share of its time, and how many thousandths.
    pub(super) whole: Vec<(String, u32)>,
    /// Who uses each partition, by the UUID of that.
    pub(super) of: BTreeMap<String, Vec<String>>,
}

impl Users {
    /// One who uses a partition.
    pub(super) fn first(&self, partition: &str) -> Option<String> {
        self.of.get(partition)?.first().cloned()
    }
}

/// All pods on nodes, by `namespace/name`.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    nodes: BTreeMap<String, BTreeMap<String, Bound>>,
    node_of: BTreeMap<String, String>,
}

impl Ledger {
    /// The uid of a pod that is on a node.
    pub(super) fn uid(&self, pod: &str) -> Option<&str> {
        self.nodes.get(self.node_of.get(pod)?)?.get(pod).map(|bound| bound.uid.as_str())
    }

    /// The pods that are on a node.
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.node_of.keys()
    }

    /// A pod left its node, which is returned.
    pub(super) fn leave(&mut self, pod: &str) -> Option<String> {
        let node = self.node_of.remove(pod)?;
        if let Some(pods) = self.nodes.get_mut(&node) {
            pods.remove(pod);
            if pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
        Some(node)
    }

    /// A pod is known to be gone before the watch says so.
    pub(super) fn is_gone(&mut self, pod: &str, uid: &str) {
        let bound = self.node_of.get(pod).and_then(|node| self.nodes.get_mut(node)?.get_mut(pod));
        if let Some(bound) = bound.filter(|bound| bound.uid == uid) {
            bound.gone = true;
        }
    }

    /// A pod came to a node with `gpus`. Returns what is wrong with that.
    pub(super) fn enter(&mut self, node: &str, pod: &str, bound: Bound, gpus: &[Gpu]) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (row, (uuid, part)) in bound.parts.iter().enumerate() {
            let Some(gpu) = gpus.iter().find(|gpu| gpu.uuid == *uuid) else { continue };
            let own = bound.parts[..row].iter().filter(|(other, _)| other == uuid).map(|(_, part)| (pod, part));
            let there: Vec<(&str, &Part)> = self.on(node, uuid).chain(own).collect();
            let place = || (node.to_owned(), uuid.clone(), pod.to_owned(), part.clone());
            for (other, other_part) in &there {
                let (other, other_part) = ((*other).to_owned(), (*other_part).clone());
                match (part, &other_part) {
                    (Part::Mig { .. }, Part::Mig { .. }) if gpu.kind.overlap(part, &other_part) => {
                        let (node, gpu, pod, part) = place();
                        violations.push(Violation::Overlap { node, gpu, pod, part, other, other_part });
                    }
                    (Part::Mig { .. }, Part::Mig { .. }) | (Part::Mps(_), Part::Mps(_)) | (Part::Share(_), Part::Share(_)) => {}
                    _ => {
                        let (node, gpu, pod, part) = place();
                        violations.push(Violation::Mixed { node, gpu, pod, part, other, other_part });
                    }
                }
            }
            let amount = |part: &Part| match part {
                Part::Mig { .. } => 0,
                Part::Mps(amount) | Part::Share(amount) => *amount,
            };
            let alike = there.iter().filter(|(_, other)| std::mem::discriminant(*other) == std::mem::discriminant(part));
            let asked = alike.map(|(_, other)| amount(other)).sum::<u32>().saturating_add(amount(part));
            let (has, unit) = if matches!(part, Part::Share(_)) { (MILLI, "thousandths") } else { (gpu.kind.memory_mib, "MiB") };
            if asked > has {
                let (node, gpu, pod, _) = place();
                violations.push(Violation::Overcommitted { node, gpu, pod, asked, has, unit });
            }
        }
        self.node_of.insert(pod.to_owned(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_default().insert(pod.to_owned(), bound);
        violations
    }

    /// Pods on a node with their parts of one GPU, in the order of names.
    fn on(&self, node: &str, gpu: &str) -> impl Iterator<Item = (&str, &Part)> {
        let pods = self.nodes.get(node).into_iter().flatten().filter(|(_, bound)| !bound.gone);
        pods.flat_map(move |(pod, bound)| {
            bound.parts.iter().filter(move |(uuid, _)| uuid == gpu).map(move |(_, part)| (pod.as_str(), part))
        })
    }

    /// Who uses a GPU of a node.
    pub(super) fn users(&self, node: &str, gpu: &Gpu) -> Users {
        let mut users = Users::default();
        for (pod, part) in self.on(node, &gpu.uuid) {
            if let Part::Share(milli) = part {
                users.whole.push((pod.to_owned(), *milli));
                continue;
            }
            // Of shares of one size under MPS each pod has its own, as long as there are enough.
            let same = || gpu.existing.iter().filter(|one| one.part == *part).map(|one| &one.uuid);
            if let Some(uuid) = same().find(|uuid| !users.of.contains_key(*uuid)).or_else(|| same().next_back()) {
                users.of.entry(uuid.clone()).or_default().push(pod.to_owned());
            }
        }
        users
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::hardware::Kind, *};

    fn gpus() -> Vec<Gpu> {
        vec![Gpu::new("a", 0, Arc::new(Kind::new("NVIDIA H100 80GB HBM3", 81_559)))]
    }

    /// What is said when pods with these parts come to one GPU, one after the other.
    fn said(parts: &[Part]) -> Vec<String> {
        let gpus = gpus();
        let mut ledger = Ledger::default();
        let mut said = Vec::new();
        for (row, part) in parts.iter().enumerate() {
            let bound = Bound { uid: row.to_string(), parts: vec![(gpus[0].uuid.clone(), part.clone())], gone: false };
            said.extend(ledger.enter("a", &format!("ns/{row}"), bound, &gpus).iter().map(ToString::to_string));
        }
        said
    }

    fn mig(profile: &str, start: u8) -> Part {
        Part::Mig { profile: profile.to_owned(), start }
    }

    #[test]
    fn parts_that_cannot_be_together_are_noticed() {
        assert_eq!(said(&[mig("1g.10gb", 0), mig("1g.10gb", 1), mig("3g.40gb", 4)]), [""; 0]);
        assert_eq!(said(&[Part::Share(500), Part::Share(500)]), [""; 0]);
        assert_eq!(said(&[Part::Mps(40_000), Part::Mps(40_000)]), [""; 0]);
        for (parts, words) in [
            ([mig("1g.10gb", 1), mig("1g.10gb", 1)], "overlaps 1g.10gb at slot 1 of pod ns/0"),
            ([mig("2g.20gb", 0), mig("1g.10gb", 1)], "overlaps 2g.20gb at slot 0 of pod ns/0"),
            ([Part::Share(501), Part::Share(500)], "1001 thousandths"),
            ([Part::Mps(40_000), Part::Mps(50_000)], "90000 MiB"),
            ([Part::Share(1000), mig("1g.10gb", 1)], "of which pod ns/0 has 1000 thousandths"),
            ([mig("1g.10gb", 1), Part::Mps(1)], "of which pod ns/0 has 1g.10gb at slot 1"),
        ] {
            let said = said(&parts);
            assert!(said.len() == 1 && said[0].contains(words), "{parts:?}: {said:?}");
        }
    }

    #[test]
    fn who_left_uses_nothing() {
        let mut gpus = gpus();
        gpus[0].cut_as(partita_core::model::Cut::Mps, None);
        for _ in 0..2 {
            gpus[0].make(Part::Mps(10), &|_| None).unwrap();
        }
        let mut ledger = Ledger::default();
        for pod in ["ns/a", "ns/b"] {
            let bound = Bound { uid: pod.to_owned(), parts: vec![(gpus[0].uuid.clone(), Part::Mps(10))], gone: false };
            ledger.enter("a", pod, bound, &gpus);
        }
        let used = |ledger: &Ledger| ledger.users("a", &gpus[0]).of.into_values().flatten().collect::<Vec<_>>();
        assert_eq!((used(&ledger), ledger.users("a", &gpus[0]).of.len()), (vec!["ns/a".to_owned(), "ns/b".to_owned()], 2));
        ledger.is_gone("ns/a", "another");
        assert_eq!(used(&ledger).len(), 2);
        ledger.is_gone("ns/a", "ns/a");
        assert_eq!((used(&ledger), ledger.uid("ns/a")), (vec!["ns/b".to_owned()], Some("ns/a")));
        assert_eq!((ledger.leave("ns/b"), ledger.leave("ns/b")), (Some("a".to_owned()), None));
        assert!(used(&ledger).is_empty() && ledger.all().eq(["ns/a"]));
    }
}
