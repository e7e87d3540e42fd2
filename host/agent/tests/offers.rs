//! Whatever is found, wanted and used: what is handed to the kubelet and what is told keep their promises.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use partita_agent::{
    offers::{Layout, Offer, Offers, What},
    report::{Facts, Standing, report},
    users::{Kubelet, is_of},
    wish::Rule,
};
use partita_core::model::{Cut, GpuModel, catalog};
use partita_device::{
    Found, Part, PartState, Sharing,
    discover::{Gpu, Table},
    gpu::{GpuInfo, MigMode},
    mig::{Problem, Spec},
};
use partita_kube::crd::{DesiredGpu, DesiredPartition, GpuNodeSpec, GpuNodeStatus, PartitionState, PodRef};
use partita_kubelet::Use;
use proptest::{collection::vec, prelude::*, sample::select};

const FLOOR: &str = "partita.dev/gpu";
const RESOURCES: [&str; 5] = ["nvidia.com/gpu", FLOOR, "nvidia.com/mig-1g.10gb", "nvidia.com/mig-2g.20gb", "nvidia.com/gpu-8gb"];
const PROFILES: [&str; 2] = ["1g.10gb", "2g.20gb"];
/// What shares are called behind their GPU, and what nobody of ours would call them.
const SHARES: [&str; 6] = ["", "::8192mib-0", "::8192mib-1", "::500m-0", "::500m-3", "::what"];

fn uuid(gpu: usize) -> String {
    format!("GPU-{gpu}")
}

/// A part of a GPU: its profile, first slot, how it is, and how many processes use it.
type Drawn = (&'static str, u8, u8, usize);

fn part(gpu: usize, (profile, start, how, processes): Drawn) -> Part {
    let state = match how {
        0 => PartState::Kept(Problem::Adopted("x".repeat(2000))),
        1 => PartState::Kept(Problem::Unhealthy("é".repeat(2000))),
        2 => PartState::Failed(Problem::NotNoted("no".to_owned())),
        _ => PartState::Ready,
    };
    let there = how != 2;
    Part {
        spec: Some(Spec { profile: profile.to_owned(), start }),
        instance: there.then_some(start.into()),
        compute: there.then_some(0),
        uuid: there.then(|| format!("MIG-{gpu}-{start}")),
        users: (0..processes).map(|pid| format!("pid:{pid}")).collect(),
        ours: how > 3,
        state,
    }
}

fn found(gpu: usize, cut: bool, parts: Vec<Drawn>, mps: Option<bool>, long: bool, processes: usize) -> Found {
    let model = catalog::lookup("H100-80GB").unwrap();
    let mode = Some(MigMode { current: cut, pending: cut });
    let info = GpuInfo { uuid: uuid(gpu), index: gpu as u32, memory_mib: model.memory_mib, mode, ..GpuInfo::default() };
    let silent = processes == 7;
    let model = if silent { GpuModel { name: String::new(), memory_mib: 0, grid: None } } else { model };
    let (instances, of_nobody) = (Vec::new(), Vec::new());
    let sharing = mps.filter(|_| !cut).map(|serves| Sharing {
        pipe: "/p".into(),
        shares: vec![8192],
        state: if serves { PartState::Ready } else { PartState::Failed(Problem::NotNoted("m".repeat(3000))) },
    });
    let mut starts = BTreeSet::new();
    let parts = parts.into_iter().filter(|one| cut && starts.insert(one.1)).map(|one| part(gpu, one)).collect();
    let notes = if long { vec!["ä".repeat(900), "note".to_owned()] } else { Vec::new() };
    let gpu = Gpu { info, model, table: Table::default(), instances, processes: of_nobody, blind: None, unusable: None, notes };
    let unusable = silent.then(|| "it does not answer".to_owned());
    Found { notes: gpu.notes.clone(), gpu, unusable, parts, sharing, users: (0..processes).map(|pid| format!("pid:{pid}")).collect() }
}

/// A GPU of a layout: how it is cut, and its parts as (which, first slot, for a pod under which name).
type Wanted = (u8, Vec<(usize, u8, Option<usize>)>);

fn desired(gpu: usize, (cut, parts): Wanted) -> DesiredGpu {
    let cut = [Cut::Shares, Cut::Mig, Cut::Mps][usize::from(cut)];
    let one = |(which, start, pod): (usize, u8, Option<usize>)| {
        let named = DesiredPartition {
            pod: pod.map(|pod| PodRef { namespace: "n".to_owned(), name: format!("p{pod}"), uid: pod.to_string() }),
            resource: pod.map(|pod| RESOURCES[pod % RESOURCES.len()].to_owned()),
            ..DesiredPartition::default()
        };
        match cut {
            Cut::Mig => DesiredPartition { profile: Some(PROFILES[which % 2].to_owned()), start: Some(start), ..named },
            Cut::Mps => DesiredPartition { memory_mib: Some([8192, 4096][which % 2]), ..named },
            Cut::Shares => DesiredPartition { milli: Some([500, 1000][which % 2]), ..named },
        }
    };
    DesiredGpu { uuid: uuid(gpu), index: gpu as u8, cut, partitions: parts.into_iter().map(one).collect() }
}

#[derive(Clone, Debug)]
struct World {
    found: Vec<Found>,
    layout: Option<GpuNodeSpec>,
    rule: Rule,
    uses: Vec<Use>,
    kubelet: Kubelet,
}

impl World {
    fn layout(&self) -> Layout<'_> {
        match &self.layout {
            _ if self.rule == Rule::Off => Layout::Off,
            Some(spec) => Layout::Some(spec, &[]),
            None => Layout::None,
        }
    }

    fn offers(&self, before: &Offers) -> Offers {
        Offers::of(&self.found, self.layout(), self.rule, &self.kubelet, before)
    }

    fn report(&self, offers: &Offers, before: &GpuNodeStatus) -> GpuNodeStatus {
        let standing = Standing { ready: true, reason: "Works", message: String::new() };
        let layout = self.layout.as_ref();
        let kubelet = Some(&self.kubelet);
        let observed = layout.map(|layout| (layout.term, layout.generation)).unwrap_or_default();
        let (found, rule, driver, boot_id) = (&self.found[..], self.rule, Some("580"), "boot");
        let (known, unnamed, of_pods) = (kubelet, &[][..], &BTreeSet::new());
        let facts = Facts { found, layout, observed, rule, offers, kubelet, driver, boot_id, standing: &standing, known, unnamed, of_pods };
        report(&facts, before, Timestamp::UNIX_EPOCH)
    }
}

fn world() -> impl Strategy<Value = World> {
    let drawn = (select(&PROFILES[..]), 0..7u8, 0..8u8, prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(100)]);
    let gpu =
        (any::<bool>(), vec(drawn, 0..5), any::<Option<bool>>(), any::<bool>(), prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(7)]);
    let wanted = (0..3u8, vec((0..2usize, 0..7u8, prop::option::of(0..20usize)), 0..130));
    let few = (0..3u8, vec((0..2usize, 0..7u8, prop::option::of(0..20usize)), 0..5));
    let layout = prop::option::weighted(0.9, vec(prop::option::of(prop_oneof![5 => few, 1 => wanted]), 2));
    let rule = select(vec![Rule::Fixed, Rule::Mig, Rule::Mps, Rule::TimeSlicing, Rule::Auto, Rule::Auto, Rule::Off]);
    let device = (0..2usize, prop_oneof![(0..7u8).prop_map(Ok), select(&SHARES[..]).prop_map(Err)], select(&RESOURCES[..]));
    (vec(gpu, 2), layout, rule, vec(device.clone(), 0..4), vec(device, 0..12)).prop_map(|(gpus, layout, rule, used, held)| {
        let gpus = gpus.into_iter().enumerate();
        let mut found: Vec<Found> = gpus.map(|(gpu, (cut, parts, mps, long, pids))| found(gpu, cut, parts, mps, long, pids)).collect();
        let gpus = |gpus: Vec<Option<Wanted>>| gpus.into_iter().enumerate().filter_map(|(gpu, one)| Some(desired(gpu, one?))).collect();
        let layout = layout.map(|all| GpuNodeSpec { term: 1, generation: 2, gpus: gpus(all), ..GpuNodeSpec::default() });
        let id = |gpu: usize, which: Result<u8, &str>| match which {
            Ok(start) => format!("MIG-{gpu}-{start}"),
            Err(share) => format!("{}{share}", uuid(gpu)),
        };
        let pod = |(row, (gpu, which, resource)): (usize, (usize, Result<u8, &str>, &str))| Use {
            namespace: "n".repeat(63),
            pod: format!("{row}{}", "p".repeat(250)),
            container: "c".to_owned(),
            resource: resource.to_owned(),
            device: id(gpu, which),
        };
        let uses: Vec<Use> = used.into_iter().enumerate().map(pod).collect();
        let mut could: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (gpu, which, resource) in held {
            could.entry(resource.to_owned()).or_default().insert(id(gpu, which));
        }
        let kubelet = Kubelet::new(&uses, could);
        // As a look finds it: whoever the kubelet names is among the users.
        for one in &mut found {
            one.users.extend(kubelet.users_of_gpu(&one.gpu.info.uuid));
            for part in &mut one.parts {
                part.users.extend(part.uuid.iter().flat_map(|uuid| kubelet.users(uuid)).collect::<Vec<_>>());
            }
        }
        World { found, layout, rule, uses, kubelet }
    })
}

/// What free devices under one name must have in common.
fn kind(offer: &Offer) -> What {
    match &offer.what {
        What::Mig { profile, .. } => What::Mig { profile: profile.clone(), instance: 0, compute: 0 },
        other => other.clone(),
    }
}

/// Whether the layout lets a free device be offered.
fn may_be_free(world: &World, offer: &Offer) -> bool {
    let found = world.found.iter().find(|one| one.gpu.info.uuid == offer.gpu).unwrap();
    let desired = match world.layout() {
        Layout::Off | Layout::Unknown => return false,
        Layout::None => None,
        Layout::Some(spec, _) => spec.gpus.iter().find(|gpu| gpu.uuid == offer.gpu),
    };
    let count = |is_it: &dyn Fn(&DesiredPartition) -> bool| desired.map(|gpu| gpu.partitions.iter().filter(|one| is_it(one)).count());
    match &offer.what {
        What::Mig { profile, .. } => {
            let part = found.parts.iter().find(|part| part.uuid.as_ref() == Some(&offer.id)).unwrap();
            let start = part.spec.as_ref().map(|spec| spec.start);
            part.users.is_empty() && count(&|one| one.profile.as_ref() == Some(profile) && one.start == start) != Some(0)
        }
        What::Whole => {
            found.users.is_empty()
                && desired.is_none_or(|gpu| gpu.cut == Cut::Shares && gpu.partitions.iter().all(|one| one.milli == Some(1000)))
        }
        What::Mps { memory_mib } => count(&|one| one.memory_mib == Some(*memory_mib)).is_some_and(|count| count > 0),
        What::Time { milli } => {
            matches!(world.rule, Rule::Auto | Rule::TimeSlicing) && count(&|one| one.milli == Some(*milli)).is_some_and(|count| count > 0)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_used_stays_and_what_is_free_is_wanted_and_alike(world in world(), mut earlier in world()) {
        earlier.found.clone_from(&world.found);
        let offers = world.offers(&earlier.offers(&Offers::default()));
        for one in &world.uses {
            let is_part = world.found.iter().flat_map(|one| &one.parts).any(|part| part.uuid.as_ref() == Some(&one.device));
            let is_share = world.found.iter().any(|found| is_of(&one.device, &found.gpu.info.uuid)) && !one.device.ends_with("what");
            if is_part || is_share {
                let offer = offers.find(&one.resource, &one.device);
                prop_assert!(offer.is_some_and(|offer| offer.used), "{} is used as {} and not offered", one.device, one.resource);
            }
        }
        let mut kinds: BTreeMap<&str, BTreeSet<What>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for offer in offers.all() {
            prop_assert!(ids.insert((&offer.resource, &offer.id)), "{:?} twice under one name", offer);
            if !offer.used {
                prop_assert!(may_be_free(&world, offer), "{:?} is free and not wanted", offer);
                kinds.entry(&offer.resource).or_default().insert(kind(offer));
                let twins = offers.all().filter(|other| other.id == offer.id).count();
                prop_assert_eq!(twins, 1, "{:?} is free under two names, or used under another", offer);
                let whole = |other: &&Offer| other.gpu == offer.gpu && other.what == What::Whole && other.id != offer.id;
                prop_assert!(offers.all().find(whole).is_none(), "{:?} is free, and its GPU has a whole user or is free as a whole", offer);
            }
        }
        prop_assert!(kinds.values().all(|kinds| kinds.len() == 1), "{:?} are free at once under one name", kinds);
        prop_assert_eq!(world.offers(&offers), offers, "asked again it is the same");
    }

    #[test]
    fn what_is_told_is_true_and_within_the_bounds_of_the_api(world in world(), mut earlier in world()) {
        earlier.rule = Rule::Auto;
        let told = earlier.report(&earlier.offers(&Offers::default()), &GpuNodeStatus::default());
        let offers = world.offers(&Offers::default());
        let status = world.report(&offers, &told);
        prop_assert_eq!(&world.report(&offers, &status), &status, "told again it is the same");
        for gpu in &status.gpus {
            prop_assert!(gpu.message.chars().count() <= 1024 && gpu.users.len() <= 64 && gpu.partitions.len() <= 128);
            prop_assert!(!gpu.model.is_empty() && gpu.index < 64);
            let found = world.found.iter().find(|one| one.gpu.info.uuid == gpu.uuid).unwrap();
            for one in &gpu.partitions {
                prop_assert!(one.message.chars().count() <= 1024 && one.users.len() <= 64 && one.uuid.len() <= 96);
                prop_assert!(one.users.iter().chain(&gpu.users).all(|user| user.len() <= 320));
                if one.state == PartitionState::Ready {
                    let resource = one.resource.as_deref().unwrap_or_default();
                    let part = found.parts.iter().find(|part| part.uuid.as_ref() == Some(&one.uuid));
                    let used = part.is_some_and(|part| !part.users.is_empty()) || world.uses.iter().any(|other| other.device == one.uuid);
                    prop_assert!(used || world.kubelet.holds(resource, &one.uuid), "{:?} is called ready", one);
                }
            }
        }
        prop_assert_eq!(status.gpus.iter().map(|gpu| gpu.index).collect::<BTreeSet<_>>().len(), status.gpus.len());
    }
}
