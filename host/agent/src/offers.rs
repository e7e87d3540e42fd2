//! What is handed to the kubelet: which devices, under which names, and what a container gets with them.
//!
//! The kubelet asks for devices by the name of a resource and does not say for which pod, so under one name all free devices must be alike. They
//! are for names that say what they are (`nvidia.com/mig-1g.10gb`); for one that says how much a pod needs at least (`partita.dev/gpu`) the
//! pods of a node are served one after the other, each when the one before it has what was made for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use partita_core::model::{Cut, ProfileName};
use partita_device::{Found, Part, PartState};
use partita_kube::crd::{DesiredGpu, DesiredPartition, GpuNodeSpec};
use partita_kubelet::{Device, DeviceId, ResourceName};

use crate::{
    users::{Kubelet, OF, is_of},
    wish::{Rule, is_whole},
};

/// The resource of whole GPUs.
pub const WHOLE: &str = "nvidia.com/gpu";

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A whole GPU.
    Whole,
    /// A MIG partition.
    Mig {
        /// The name of its profile.
        profile: String,
        /// Number of its GPU instance.
        instance: u32,
        /// Number of its compute instance.
        compute: u32,
    },
    /// A share under MPS.
    Mps {
        /// Its memory, MiB.
        memory_mib: u32,
    },
    /// A share of the GPU's time.
    Time {
        /// Thousandths of it.
        milli: u32,
    },
}

impl What {
    /// Devices that are alike have the same.
    fn class(&self) -> String {
        match self {
            Self::Whole => "whole".to_owned(),
            Self::Mig { profile, .. } => profile.clone(),
            Self::Mps { memory_mib } => format!("{memory_mib}{MPS}"),
            Self::Time { milli } => format!("{milli}{TIME}"),
        }
    }
}

/// What follows the memory in the id of a share under MPS, and the thousandths in that of a share of time; the share's number follows.
const MPS: &str = "mib";
const TIME: &str = "m";

/// A device that the kubelet may give to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The resource.
    pub resource: String,
    /// The device's id: the UUID of the GPU or of the MIG device, or that of the GPU with the name of a share.
    pub id: String,
    /// What it is.
    pub what: What,
    /// Whether it may be given away.
    pub healthy: bool,
    /// Somebody uses it.
    pub used: bool,
    /// A pod is on its way for it.
    pub planned: bool,
    /// Its place among all: the GPU, and on it the first slot or the share's number.
    pub place: (usize, usize),
    /// The UUID of its GPU.
    pub gpu: String,
    /// The number of the GPU's device node.
    pub minor: Option<u32>,
    /// The memory of the GPU, MiB.
    pub memory_mib: u32,
    /// Of a share under MPS: the folder where its GPU's daemon listens.
    pub pipe: Option<PathBuf>,
}

/// What the scheduler wants of a node.
#[derive(Clone, Copy, Debug)]
pub enum Layout<'a> {
    /// Not known yet: only what is used is offered.
    Unknown,
    /// Nothing: what there is, is offered.
    None,
    /// This.
    Some(&'a GpuNodeSpec),
    /// partita leaves the node: only what is used is offered.
    Off,
}

impl<'a> Layout<'a> {
    /// What it wants of a GPU; none if it says nothing of it.
    #[must_use]
    pub fn gpu(self, uuid: &str) -> Option<&'a DesiredGpu> {
        if let Self::Some(spec) = self { spec.gpus.iter().find(|gpu| gpu.uuid == uuid) } else { None }
    }

    /// Whether devices may be offered that nobody uses.
    const fn offers(self) -> bool {
        matches!(self, Self::None | Self::Some(_))
    }
}

/// Everything that is offered, by resource, each in the order of its ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    all: BTreeMap<String, Vec<Offer>>,
    /// Free devices that wait for their turn, as (resource, id).
    waiting: BTreeSet<(String, String)>,
}

impl Offers {
    /// What `found` and the layout allow. A device that somebody uses stays in the list under the name as which it is used, since the
    /// kubelet does not start its container again otherwise; one that nobody uses is offered only if the layout has it, or says nothing of
    /// its GPU. `before` is what was offered last.
    #[must_use]
    pub fn of(found: &[Found], layout: Layout<'_>, rule: Rule, kubelet: &Kubelet, before: &Self) -> Self {
        let mut all = Self::default();
        for (row, one) in found.iter().enumerate() {
            let desired = layout.gpu(&one.gpu.info.uuid);
            let in_turn = desired.is_some_and(|gpu| gpu.cut == Cut::Shares && rule.allows(gpu));
            let gpu = OneGpu { row, found: one, desired, in_turn, kubelet, free: layout.offers() };
            gpu.parts(&mut all);
            gpu.shares(&mut all);
        }
        for offers in all.all.values_mut() {
            wait_in_turn(offers, before, &mut all.waiting);
            offers.sort_by(|one, other| one.id.cmp(&other.id));
        }
        all
    }

    fn add(&mut self, offer: Offer) {
        self.all.entry(offer.resource.clone()).or_default().push(offer);
    }

    /// An offer by its resource and id.
    #[must_use]
    pub fn find(&self, resource: &str, id: &str) -> Option<&Offer> {
        self.all.get(resource)?.iter().find(|offer| offer.id == id)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Offer> {
        self.all.values().flatten()
    }

    /// Whether a device waits for its turn under this name.
    #[must_use]
    pub fn waits(&self, resource: &str, id: &str) -> bool {
        self.waiting.contains(&(resource.to_owned(), id.to_owned()))
    }

    /// Whether a device of a GPU waits for its turn under this name.
    #[must_use]
    pub fn waiting(&self, resource: &str, gpu: &str) -> bool {
        self.waiting.iter().any(|(name, id)| name == resource && is_of(id, gpu))
    }

    /// The lists for the kubelet. What it could not take is left out and told of.
    #[must_use]
    pub fn lists(&self) -> Vec<(ResourceName, Vec<Device>)> {
        let device = |offer: &Offer| {
            let id = DeviceId::new(&offer.id).inspect_err(|error| tracing::warn!("{error}")).ok()?;
            Some(Device { healthy: offer.healthy, ..Device::new(id) })
        };
        let list = |(resource, offers): (&String, &Vec<Offer>)| {
            let name = ResourceName::new(resource).inspect_err(|error| tracing::warn!("{error}")).ok()?;
            Some((name, offers.iter().filter_map(device).collect()))
        };
        self.all.iter().filter_map(list).collect()
    }
}

impl FromIterator<Offer> for Offers {
    fn from_iter<I: IntoIterator<Item = Offer>>(offers: I) -> Self {
        let mut all = Self::default();
        offers.into_iter().for_each(|offer| all.add(offer));
        all
    }
}

/// Of free devices that are not alike only those of one kind stay: the kind that is offered already, else that of the first.
fn wait_in_turn(offers: &mut Vec<Offer>, before: &Offers, waiting: &mut BTreeSet<(String, String)>) {
    let free = || offers.iter().filter(|offer| !offer.used);
    let offered = |offer: &&Offer| before.find(&offer.resource, &offer.id).is_some_and(|known| !known.used);
    let Some(turn) = free().find(offered).or_else(|| free().next()).map(|offer| offer.what.class()) else { return };
    offers.retain(|offer| {
        let stays = offer.used || offer.what.class() == turn;
        if !stays {
            waiting.insert((offer.resource.clone(), offer.id.clone()));
        }
        stays
    });
}

/// The name under which a partition or share is asked for: the layout's, else the one that says what it is.
#[must_use]
pub fn resource_of(one: &DesiredPartition) -> Option<String> {
    one.resource.clone().or_else(|| default_resource(one))
}

/// None where no name says what it is: a profile that is not named as profiles are, a share of time, memory that is no whole number of GiB.
fn default_resource(one: &DesiredPartition) -> Option<String> {
    match (&one.profile, one.memory_mib) {
        (Some(profile), _) => mig_resource(profile),
        (None, Some(mib)) => mib.is_multiple_of(1024).then(|| format!("{WHOLE}-{}gb", mib / 1024)),
        (None, None) => is_whole(one).then(|| WHOLE.to_owned()),
    }
}

/// The name of the resource of a MIG profile, as NVIDIA's device plugin writes it.
#[must_use]
pub fn mig_resource(profile: &str) -> Option<String> {
    ProfileName::parse(profile).ok().map(|name| name.resource())
}

struct OneGpu<'a> {
    row: usize,
    found: &'a Found,
    desired: Option<&'a DesiredGpu>,
    /// Whether several may use it in turn.
    in_turn: bool,
    kubelet: &'a Kubelet,
    free: bool,
}

impl OneGpu<'_> {
    fn uuid(&self) -> &str {
        &self.found.gpu.info.uuid
    }

    fn offer(&self, resource: &str, id: String, what: What) -> Offer {
        let info = &self.found.gpu.info;
        Offer {
            resource: resource.to_owned(),
            id,
            what,
            healthy: self.found.unusable.is_none(),
            used: false,
            planned: false,
            place: (self.row, 0),
            gpu: info.uuid.clone(),
            minor: info.minor,
            memory_mib: info.memory_mib,
            pipe: None,
        }
    }

    /// A share; under MPS with the way to its daemon.
    fn share(&self, resource: &str, id: String, what: What) -> Offer {
        let pipe = || self.found.sharing.as_ref().map(|sharing| sharing.pipe.clone());
        let pipe = if matches!(what, What::Mps { .. }) { pipe() } else { None };
        Offer { pipe, ..self.offer(resource, id, what) }
    }

    fn parts(&self, all: &mut Offers) {
        for part in &self.found.parts {
            self.part(part, all);
        }
    }

    fn part(&self, part: &Part, all: &mut Offers) {
        let (Some(spec), Some(uuid), Some(instance), Some(compute)) = (&part.spec, &part.uuid, part.instance, part.compute) else { return };
        let what = || What::Mig { profile: spec.profile.clone(), instance, compute };
        let healthy = |offer: Offer| Offer { healthy: offer.healthy && part.is_usable(), ..offer };
        let mut used = false;
        for resource in self.kubelet.resources(uuid) {
            used = true;
            all.add(healthy(Offer { used, ..self.offer(resource, uuid.clone(), what()) }));
        }
        // Who uses it without the kubelet's knowledge has it all the same.
        if used || !self.free || !part.users.is_empty() || !part.is_usable() {
            return;
        }
        let is_it = |one: &&DesiredPartition| one.start == Some(spec.start) && one.profile.as_ref() == Some(&spec.profile);
        let wish = self.desired.and_then(|gpu| gpu.partitions.iter().find(is_it));
        let resource = match (self.desired, wish) {
            (Some(_), None) => None,
            (Some(_), Some(wish)) => resource_of(wish),
            (None, _) => mig_resource(&spec.profile),
        };
        if let Some(resource) = resource {
            let (planned, place) = (wish.is_some_and(|wish| wish.pod.is_some()), (self.row, usize::from(spec.start)));
            all.add(Offer { planned, place, ..self.offer(&resource, uuid.clone(), what()) });
        }
    }

    /// The GPU as a whole, and its shares.
    fn shares(&self, all: &mut Offers) {
        for (resource, id) in self.kubelet.used_of_gpu(self.uuid()) {
            if let Some(what) = self.what_is(id) {
                all.add(Offer { used: true, ..self.share(resource, id.to_owned(), what) });
            }
        }
        if !self.free || self.found.gpu.is_cut() {
            return;
        }
        let wanted = self.desired.map(|gpu| gpu.partitions.as_slice()).unwrap_or_default();
        let cut = self.desired.map_or(Cut::Shares, |gpu| gpu.cut);
        let whole = cut == Cut::Shares && wanted.iter().all(is_whole);
        if whole && self.found.sharing.is_none() {
            // Nobody uses it: neither a pod, nor a process that no pod is known for.
            if self.found.users.is_empty() {
                let resource = wanted.first().and_then(resource_of).unwrap_or_else(|| WHOLE.to_owned());
                let planned = wanted.iter().any(|one| one.pod.is_some());
                all.add(Offer { planned, ..self.offer(&resource, self.uuid().to_owned(), What::Whole) });
            }
        } else if !whole && self.can_be_shared(cut) && !self.is_used_whole() {
            self.free_shares(wanted, all);
        }
    }

    /// As many of each kind as the layout has and nobody uses yet.
    fn free_shares(&self, wanted: &[DesiredPartition], all: &mut Offers) {
        let mut groups: BTreeMap<(String, What), (usize, bool)> = BTreeMap::new();
        for one in wanted {
            let what = match (one.memory_mib, one.milli) {
                (Some(memory_mib), _) => What::Mps { memory_mib },
                (None, Some(milli)) => What::Time { milli },
                (None, None) => continue,
            };
            if let Some(resource) = resource_of(one) {
                let group = groups.entry((resource, what)).or_default();
                *group = (group.0 + 1, group.1 || one.pod.is_some());
            }
        }
        for ((resource, what), (count, planned)) in groups {
            let prefix = format!("{}{OF}{}-", self.uuid(), what.class());
            let used: BTreeSet<&str> =
                self.kubelet.used_of_gpu(self.uuid()).map(|(_, id)| id).filter(|id| id.starts_with(&prefix)).collect();
            let here = self.kubelet.used_of_gpu(self.uuid()).filter(|(name, id)| *name == resource && id.starts_with(&prefix)).count();
            let free = (0..).map(|number: usize| format!("{prefix}{number}")).filter(|id| !used.contains(id.as_str()));
            for id in free.take(count.saturating_sub(here)) {
                all.add(Offer { planned, ..self.share(&resource, id, what.clone()) });
            }
        }
    }

    /// Whether containers can be given shares now.
    fn can_be_shared(&self, cut: Cut) -> bool {
        let has_daemon = || self.found.sharing.as_ref().is_some_and(|sharing| sharing.state == PartState::Ready);
        self.in_turn && self.found.sharing.is_none() || cut == Cut::Mps && has_daemon()
    }

    fn is_used_whole(&self) -> bool {
        self.kubelet.resources(self.uuid()).next().is_some()
    }

    /// What a device of this GPU is, by its id; none for one that is not ours.
    fn what_is(&self, id: &str) -> Option<What> {
        let rest = id.strip_prefix(self.uuid())?;
        if rest.is_empty() {
            return Some(What::Whole);
        }
        let (class, number) = rest.strip_prefix(OF)?.rsplit_once('-')?;
        number.parse::<usize>().ok()?;
        match class.strip_suffix(MPS) {
            Some(mib) => Some(What::Mps { memory_mib: mib.parse().ok()? }),
            None => Some(What::Time { milli: class.strip_suffix(TIME)?.parse().ok()? }),
        }
    }
}
