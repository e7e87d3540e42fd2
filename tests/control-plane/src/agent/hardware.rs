//! The GPUs of one node: what is on them, and what of a layout can be made of them. No I/O here, and no clock.

use std::sync::Arc;

use partita_core::{
    layout::{Layouts, NotALayout},
    model::{Cut, GpuModel, Placement},
};
use partita_kube::crd::{DesiredGpu, FoundGpu, FoundPartition, PartitionState, model_of};
use sha2::{Digest, Sha256};

use super::{
    ledger::Users,
    part::{MILLI, Part},
};

/// GPUs of one model.
#[derive(Debug)]
pub(super) struct Kind {
    /// As the driver names it.
    pub(super) driver_name: String,
    pub(super) memory_mib: u32,
    /// What is known of it.
    pub(super) model: GpuModel,
    /// Every layout that its driver would make; none without MIG.
    layouts: Option<Layouts>,
}

impl Kind {
    pub(super) fn new(driver_name: &str, memory_mib: u32) -> Self {
        let model = model_of(&FoundGpu { model: driver_name.to_owned(), memory_mib, ..FoundGpu::default() });
        let layouts = model.grid.as_ref().and_then(|grid| Layouts::of(grid).ok());
        Self { driver_name: driver_name.to_owned(), memory_mib, model, layouts }
    }

    /// Where a MIG partition would be; none if the GPU has no such profile.
    pub(super) fn placement(&self, part: &Part) -> Option<Placement> {
        let (Part::Mig { profile, start }, Some(grid)) = (part, &self.model.grid) else { return None };
        Some(Placement { profile: grid.resolve(profile).ok()?, start: *start })
    }

    /// Whether two MIG partitions share a slot, or are one.
    pub(super) fn overlap(&self, one: &Part, other: &Part) -> bool {
        let slots = |part| Some(self.model.grid.as_ref()?.slots_of(self.placement(part)?));
        one == other || slots(one).zip(slots(other)).is_some_and(|(one, other)| one.overlaps(other))
    }
}

/// A partition that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) part: Part,
    pub(super) uuid: String,
    /// The name under which its kubelet has it.
    pub(super) resource: String,
}

/// A share of a GPU that is whole or time-sliced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) milli: u32,
    pub(super) resource: String,
}

/// One GPU.
#[derive(Clone, Debug)]
pub(super) struct Gpu {
    pub(super) uuid: String,
    pub(super) kind: Arc<Kind>,
    pub(super) cut: Cut,
    /// MIG partitions, or shares under MPS.
    pub(super) existing: Vec<Existing>,
    /// Shares that the last layout wanted.
    pub(super) shares: Vec<Share>,
    /// What the last layout wanted and could not be, and why.
    pub(super) failed: Vec<(Part, String)>,
    /// What is wrong with it as a whole.
    pub(super) message: String,
}

impl Gpu {
    /// A whole GPU, of a UUID that the same node gives the same GPU each time.
    pub(super) fn new(node: &str, index: u8, kind: Arc<Kind>) -> Self {
        let uuid = format!("GPU-{}", uuid(&format!("{node}/{index}")));
        Self { uuid, kind, cut: Cut::Shares, existing: Vec::new(), shares: Vec::new(), failed: Vec::new(), message: String::new() }
    }

    /// Takes over what an earlier agent reported: the partitions outlive it.
    pub(super) fn recover(&mut self, reported: &FoundGpu) {
        self.cut = reported.cut;
        for one in reported.partitions.iter().filter(|one| one.state == PartitionState::Ready) {
            let Some(part) = Part::reported(one) else { continue };
            let resource = one.resource.clone().unwrap_or_else(|| part.resource());
            if let Part::Share(milli) = part {
                self.shares.push(Share { milli, resource });
            } else if self.make(part, &|_| None).is_ok()
                && let Some(made) = self.existing.iter_mut().find(|known| known.uuid == one.uuid)
            {
                // What cannot be was a lie.
                made.resource = resource;
            }
        }
    }

    /// Offers what a layout has under the names that it says.
    pub(super) fn offer(&mut self, wish: &DesiredGpu) {
        self.shares.clear();
        if wish.cut != self.cut {
            return;
        }
        let mut wanted: Vec<(Part, Option<&String>)> =
            wish.partitions.iter().filter_map(|one| Some((Part::wanted(one)?, one.resource.as_ref()))).collect();
        for (part, resource) in wanted.extract_if(.., |(part, _)| matches!(part, Part::Share(_))) {
            if let Part::Share(milli) = part {
                self.shares.push(Share { milli, resource: resource.cloned().unwrap_or_else(|| part.resource()) });
            }
        }
        // Of several alike those first that are on offer so already.
        let mut left: Vec<&mut Existing> = self.existing.iter_mut().collect();
        for named in [true, false] {
            left.retain_mut(|one| {
                let same =
                    |(part, name): &(Part, Option<&String>)| *part == one.part && (!named || name.is_none_or(|name| *name == one.resource));
                let Some((_, name)) = wanted.iter().position(same).map(|row| wanted.swap_remove(row)) else { return true };
                if let Some(name) = name {
                    one.resource.clone_from(name);
                }
                false
            });
        }
    }

    /// What exists and a layout does not have.
    pub(super) fn surplus(&self, wish: &DesiredGpu) -> Vec<Existing> {
        if wish.cut != self.cut {
            return self.existing.clone();
        }
        let mut wanted: Vec<Part> = wish.partitions.iter().filter_map(Part::wanted).collect();
        let mut surplus = self.existing.clone();
        surplus.retain(|one| wanted.iter().position(|part| *part == one.part).map(|row| wanted.swap_remove(row)).is_none());
        surplus
    }

    /// What a layout has and does not exist.
    pub(super) fn missing(&self, wish: &DesiredGpu) -> Vec<Part> {
        let mut there: Vec<&Part> = self.existing.iter().map(|one| &one.part).collect();
        let mut missing: Vec<Part> = wish.partitions.iter().filter_map(Part::wanted).collect();
        // A share of time needs nothing made.
        missing.retain(|part| !matches!(part, Part::Share(_)));
        missing.retain(|part| there.iter().position(|other| *other == part).map(|row| there.swap_remove(row)).is_none());
        missing
    }

    /// Destroys a partition.
    pub(super) fn destroy(&mut self, uuid: &str) {
        self.existing.retain(|one| one.uuid != uuid);
    }

    /// Cuts the GPU another way, which takes that nothing is left on it. `user` is somebody who uses it as a whole.
    pub(super) fn cut_as(&mut self, cut: Cut, user: Option<&str>) {
        self.message.clear();
        if cut == self.cut {
            return;
        }
        if cut == Cut::Mig && self.kind.layouts.is_none() {
            self.message = format!("{} cannot be cut by MIG", self.kind.driver_name);
        } else if let Some(one) = self.existing.first() {
            self.message = format!("it stays cut by {}: {} could not be destroyed", self.cut, one.part);
        } else if let Some(user) = user {
            self.message = format!("it stays whole: {user} uses it");
        } else {
            self.cut = cut;
        }
    }

    /// Makes a partition. `user` tells who uses a partition, by its UUID.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub(super) fn make(&mut self, part: Part, user: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
        match (&part, self.cut) {
            (Part::Mig { .. }, Cut::Mig) => self.fits_by_mig(&part, user)?,
            (Part::Mps(memory_mib), Cut::Mps) => {
                let given: u32 = self.existing.iter().map(|one| if let Part::Mps(mib) = one.part { mib } else { 0 }).sum();
                if given.saturating_add(*memory_mib) > self.kind.memory_mib {
                    return Err(format!("{part} do not fit beside {given} MiB of {}", self.kind.memory_mib));
                }
            }
            _ => return Err(format!("{part} cannot be made: the GPU is cut by {}", self.cut)),
        }
        let same = self.existing.iter().filter(|one| one.part == part).count();
        let uuid =
            format!("{}-{}", if matches!(part, Part::Mig { .. }) { "MIG" } else { "MPS" }, uuid(&format!("{}/{part}/{same}", self.uuid)));
        let resource = part.resource();
        self.existing.push(Existing { part, uuid, resource });
        self.existing.sort_by(|one, other| (&one.part, &one.uuid).cmp(&(&other.part, &other.uuid)));
        Ok(())
    }

    fn fits_by_mig(&self, part: &Part, user: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
        let (Some(layouts), Some(new)) = (&self.kind.layouts, self.kind.placement(part)) else {
            return Err(format!("{part} cannot be made: {} has no such profile", self.kind.driver_name));
        };
        let there = self.existing.iter().filter_map(|one| self.kind.placement(&one.part));
        layouts.state(there.chain([new])).map(drop).map_err(|error| {
            let in_the_way = self.existing.iter().find(|one| self.kind.overlap(&one.part, part));
            match (error, in_the_way) {
                (NotALayout::Overlap(..), Some(one)) => {
                    let user = user(&one.uuid).map(|user| format!(", which {user} uses")).unwrap_or_default();
                    format!("{part} cannot be made: it overlaps {}{user}", one.part)
                }
                (NotALayout::NoSuchPlacement(_), _) => format!("{part} cannot be made: such a partition cannot start there"),
                _ => format!("{part} cannot be made: {error}"),
            }
        })
    }

    /// What the agent says of it.
    pub(super) fn report(&self, index: u8, unhealthy: Option<&String>, users: &Users) -> FoundGpu {
        let partition = |part: &Part| match part.clone() {
            Part::Mig { profile, start } => FoundPartition { profile: Some(profile), start: Some(start), ..FoundPartition::default() },
            Part::Mps(memory_mib) => FoundPartition { memory_mib: Some(memory_mib), ..FoundPartition::default() },
            Part::Share(milli) => FoundPartition { milli: Some(milli), ..FoundPartition::default() },
        };
        let existing = self.existing.iter().map(|one| FoundPartition {
            uuid: one.uuid.clone(),
            users: users.of.get(&one.uuid).cloned().unwrap_or_default(),
            resource: Some(one.resource.clone()),
            ..partition(&one.part)
        });
        let failed = self.failed.iter().map(|(part, message)| FoundPartition {
            state: PartitionState::Failed,
            message: message.clone(),
            ..partition(part)
        });
        // Who has a share; the others who use it stand beside.
        let mut whole = users.whole.clone();
        let shares = self.offered().into_iter().map(|share| {
            let user = whole.iter().position(|(_, milli)| *milli == share.milli).map(|row| whole.remove(row).0);
            FoundPartition { users: user.into_iter().collect(), resource: Some(share.resource), ..partition(&Part::Share(share.milli)) }
        });
        let partitions = existing.chain(shares).chain(failed).collect();
        FoundGpu {
            uuid: self.uuid.clone(),
            index,
            model: self.kind.driver_name.clone(),
            memory_mib: self.kind.memory_mib,
            cut: self.cut,
            healthy: unhealthy.is_none(),
            message: unhealthy.cloned().unwrap_or_else(|| self.message.clone()),
            partitions,
            users: whole.into_iter().map(|(pod, _)| pod).collect(),
            grid: None,
        }
    }

    /// Shares that the kubelet has: of a GPU of which no pod has any the whole.
    fn offered(&self) -> Vec<Share> {
        if self.cut != Cut::Shares {
            return Vec::new();
        }
        let whole = self.shares.is_empty().then(|| Share { milli: MILLI, resource: Part::Share(MILLI).resource() });
        self.shares.iter().cloned().chain(whole).collect()
    }
}

/// A UUID made of what it stands for.
fn uuid(of: &str) -> String {
    let digest = Sha256::digest(of.as_bytes());
    let number = digest.iter().take(16).fold(0, |number, &byte| number << 8 | u128::from(byte));
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use partita_kube::crd::DesiredPartition;

    use super::*;

    fn gpu() -> Gpu {
        Gpu::new("a", 0, Arc::new(Kind::new("NVIDIA H100 80GB HBM3", 81_559)))
    }

    fn mig(profile: &str, start: u8) -> Part {
        Part::Mig { profile: profile.to_owned(), start }
    }

    fn wish(cut: Cut, parts: &[Part]) -> DesiredGpu {
        let one = |part: &Part| match part.clone() {
            Part::Mig { profile, start } => DesiredPartition { profile: Some(profile), start: Some(start), ..DesiredPartition::default() },
            Part::Mps(memory_mib) => DesiredPartition { memory_mib: Some(memory_mib), ..DesiredPartition::default() },
            Part::Share(milli) => DesiredPartition { milli: Some(milli), ..DesiredPartition::default() },
        };
        DesiredGpu { cut, partitions: parts.iter().map(one).collect(), ..DesiredGpu::default() }
    }

    #[test]
    fn only_legal_layouts_are_made() {
        let mut gpu = gpu();
        assert!(gpu.make(mig("1g.10gb", 0), &|_| None).unwrap_err().contains("cut by shares"));
        gpu.cut_as(Cut::Mig, None);
        gpu.make(mig("3g.40gb", 4), &|_| None).unwrap();
        gpu.make(mig("1g.10gb+me", 0), &|_| None).unwrap();
        let refused = |gpu: &Gpu, part| gpu.clone().make(part, &|_| Some("ns/pod".to_owned())).unwrap_err();
        assert_eq!(refused(&gpu, mig("2g.20gb", 4)), "2g.20gb at slot 4 cannot be made: it overlaps 3g.40gb at slot 4, which ns/pod uses");
        assert!(refused(&gpu, mig("1g.10gb+me", 1)).contains("exceeds a count"));
        assert!(refused(&gpu, mig("3g.40gb", 1)).contains("cannot start"));
        assert!(refused(&gpu, mig("1g.5gb", 1)).contains("no such profile"));
        assert!(gpu.make(Part::Mps(1024), &|_| None).is_err());
    }

    #[test]
    fn what_is_wanted_and_what_is_there() {
        let mut gpu = gpu();
        gpu.cut_as(Cut::Mig, None);
        gpu.make(mig("1g.10gb", 0), &|_| None).unwrap();
        gpu.make(mig("1g.10gb", 1), &|_| None).unwrap();
        let new = wish(Cut::Mig, &[mig("1g.10gb", 1), mig("2g.20gb", 2)]);
        assert_eq!(gpu.surplus(&new).iter().map(|one| one.part.clone()).collect::<Vec<_>>(), [mig("1g.10gb", 0)]);
        assert_eq!(gpu.missing(&new), [mig("2g.20gb", 2)]);
        let whole = wish(Cut::Shares, &[Part::Share(500)]);
        assert_eq!((gpu.surplus(&whole).len(), gpu.missing(&whole)), (2, vec![]));
        gpu.cut_as(Cut::Shares, None);
        assert!(gpu.cut == Cut::Mig && gpu.message.contains("1g.10gb at slot 0 could not be destroyed"));
        for one in gpu.existing.clone() {
            gpu.destroy(&one.uuid);
        }
        gpu.cut_as(Cut::Mps, Some("ns/pod"));
        assert_eq!((gpu.cut, gpu.message.is_empty()), (Cut::Mig, false));
        gpu.cut_as(Cut::Mps, None);
        gpu.make(Part::Mps(40_000), &|_| None).unwrap();
        gpu.make(Part::Mps(40_000), &|_| None).unwrap();
        assert!(gpu.make(Part::Mps(40_000), &|_| None).is_err() && gpu.existing[0].uuid != gpu.existing[1].uuid);
        assert_eq!(gpu.surplus(&wish(Cut::Mps, &[Part::Mps(40_000)])).len(), 1);
    }

    #[test]
    fn what_was_reported_is_there_after_a_restart() {
        let mut before = gpu();
        before.cut_as(Cut::Mig, None);
        before.make(mig("2g.20gb", 2), &|_| None).unwrap();
        let mut after = gpu();
        after.recover(&before.report(0, None, &Users::default()));
        assert_eq!((after.existing, after.cut, after.uuid), (before.existing, before.cut, before.uuid));
    }

    #[test]
    fn what_is_offered_under_which_name() {
        let said = |gpu: &Gpu, users: &Users| {
            let report = gpu.report(0, None, users);
            let one =
                |one: &FoundPartition| format!("{} {}", one.resource.clone().unwrap_or_default(), one.users.join(" ")).trim().to_owned();
            (report.partitions.iter().map(one).collect::<Vec<_>>(), report.users)
        };
        let named = |part: &Part, name: &str| DesiredPartition {
            resource: Some(name.to_owned()),
            ..wish(Cut::Mig, std::slice::from_ref(part)).partitions.remove(0)
        };
        let layout = |cut, partitions| DesiredGpu { cut, partitions, ..DesiredGpu::default() };
        let mut gpu = gpu();
        assert_eq!(said(&gpu, &Users::default()).0, ["nvidia.com/gpu"]);
        gpu.offer(&layout(Cut::Shares, vec![named(&Part::Share(500), "partita.dev/gpu"), named(&Part::Share(250), "partita.dev/gpu")]));
        let users = Users { whole: vec![("ns/a".into(), 250), ("ns/b".into(), 1000)], ..Users::default() };
        let expected = vec!["partita.dev/gpu".to_owned(), "partita.dev/gpu ns/a".to_owned()];
        assert_eq!(said(&gpu, &users), (expected, vec!["ns/b".to_owned()]));
        gpu.cut_as(Cut::Mps, None);
        for _ in 0..2 {
            gpu.make(Part::Mps(10_240), &|_| None).unwrap();
        }
        assert_eq!(said(&gpu, &Users::default()).0, ["nvidia.com/gpu-10gb", "nvidia.com/gpu-10gb"]);
        let share = Part::Mps(10_240);
        gpu.offer(&layout(Cut::Mps, vec![named(&share, "partita.dev/gpu"), named(&share, "nvidia.com/gpu-10gb")]));
        let mut offers = said(&gpu, &Users::default()).0;
        offers.sort_unstable();
        assert_eq!(offers, ["nvidia.com/gpu-10gb", "partita.dev/gpu"]);
        let mut after = self::gpu();
        after.recover(&gpu.report(0, None, &Users::default()));
        assert_eq!(after.existing, gpu.existing);
    }
}
