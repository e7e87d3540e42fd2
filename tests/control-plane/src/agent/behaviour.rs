//! How agents behave, the good ones and the others.

use std::{collections::BTreeMap, time::Duration};

use partita_kube::crd::{FoundGpu, FoundPartition, GpuNodeStatus, PartitionState};

/// How an agent behaves. The default is at once and honest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// How long it takes to make one partition.
    pub delay: Duration,
    /// Profiles that cannot be made at first.
    pub fails: BTreeMap<String, Failure>,
    /// It neither does nor says anything.
    pub silent: bool,
    /// It says what is not so.
    pub lie: Option<Lie>,
    /// GPUs that are broken, by their index in the machine, with what is said of them.
    pub unhealthy: BTreeMap<u8, String>,
    /// Its GPUs have the indices in reverse, as may be after a restart of the machine.
    pub renumbered: bool,
}

/// A profile that cannot be made at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How many times, on each node.
    pub times: u32,
    /// What is said then.
    pub message: String,
}

/// Something that is not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It has done a generation that nobody asked for.
    Generation(i64),
    /// The first GPU has this UUID, which is another's.
    Uuid(String),
    /// The first GPU has a partition of a profile that it cannot have.
    Profile,
    /// The first GPU has two partitions on the same slots.
    Overlap,
    /// There are no GPUs.
    NoGpus,
}

impl Lie {
    /// Says it.
    pub(super) fn tell(&self, status: &mut GpuNodeStatus) {
        let first = status.gpus.first_mut();
        match self {
            Self::Generation(generation) => status.observed_generation = *generation,
            Self::Uuid(uuid) => first.into_iter().for_each(|gpu| gpu.uuid.clone_from(uuid)),
            Self::Profile => first.into_iter().for_each(|gpu| claim(gpu, &["9g.999gb"])),
            Self::Overlap => first.into_iter().for_each(|gpu| {
                let grid = partita_kube::crd::model_of(gpu).grid;
                let sizes = grid.iter().flat_map(|grid| grid.profiles.iter().map(|profile| (profile.size, profile.name.as_str())));
                let both: Vec<&str> = sizes.clone().min().into_iter().chain(sizes.max()).map(|(_, name)| name).collect();
                claim(gpu, &both);
            }),
            Self::NoGpus => status.gpus.clear(),
        }
    }
}

/// Says that a GPU has these partitions from slot 0 on, and no others.
fn claim(gpu: &mut FoundGpu, profiles: &[&str]) {
    gpu.cut = partita_core::model::Cut::Mig;
    let one = |profile: &&str| FoundPartition {
        profile: Some((*profile).to_owned()),
        start: Some(0),
        uuid: format!("MIG-{profile}"),
        state: PartitionState::Ready,
        ..FoundPartition::default()
    };
    gpu.partitions = profiles.iter().map(one).collect();
}
