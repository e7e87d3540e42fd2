//! Between [`GpuNode`](super::GpuNode) and what the core calls the same things.

use partita_core::{
    model::{Cut, Found, GpuModel, GpuSpec, PodId},
    state::{Grant, Holder, Layout, Models, Node, Use},
};
use thiserror::Error;

use super::{DesiredGpu, DesiredPartition, FoundGpu, FoundPartition, GpuNodeStatus, PartitionState, PodRef};
use crate::{models, resource};

/// Why the report of a node's agent cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConvertError {
    /// A gap, or one index twice.
    #[error("GpuNode {node} reports {count} GPUs with the indices {indices}; they must be 0 to {}, each once: update the node's agent", .count - 1)]
    Indices {
        /// The node.
        node: String,
        /// GPUs reported.
        count: usize,
        /// Their indices.
        indices: String,
    },
    /// A GPU without a name.
    #[error("GpuNode {node} reports GPU {index} without a model; update the node's agent")]
    NoModel {
        /// The node.
        node: String,
        /// Index of the GPU.
        index: u8,
    },
}

/// The GPUs of a node, in the order of their indices, with the model of each.
///
/// `known` tells whether a user of the GPU with an index is a pod whose use of it the scheduler has booked, or is about to, or a process where
/// it has booked somebody.
///
/// # Errors
/// If the report contradicts itself.
pub fn gpus_of(node: &str, status: &GpuNodeStatus, known: &dyn Fn(u8, &str) -> bool) -> Result<Vec<(GpuSpec, GpuModel)>, ConvertError> {
    let mut sorted: Vec<&FoundGpu> = status.gpus.iter().collect();
    sorted.sort_by_key(|gpu| gpu.index);
    if sorted.iter().enumerate().any(|(row, gpu)| usize::from(gpu.index) != row) {
        let indices = sorted.iter().map(|gpu| gpu.index.to_string()).collect::<Vec<_>>().join(", ");
        return Err(ConvertError::Indices { node: node.into(), count: sorted.len(), indices });
    }
    if let Some(gpu) = sorted.iter().find(|gpu| gpu.model.trim().is_empty()) {
        return Err(ConvertError::NoModel { node: node.into(), index: gpu.index });
    }
    Ok(sorted.into_iter().map(|gpu| (gpu_spec(gpu, known), model_of(gpu))).collect())
}

/// The model of a GPU.
#[must_use]
pub fn model_of(gpu: &FoundGpu) -> GpuModel {
    models::describe(&gpu.model, gpu.memory_mib, gpu.grid.as_ref())
}

/// A GPU with what was found on it. It cannot be used while it is unhealthy, or while somebody uses it whole or in shares who is not booked
/// there: a pod that got it in another way than by a resource, or a process where no pod is. Else processes are those of the pods there.
#[must_use]
pub fn gpu_spec(gpu: &FoundGpu, known: &dyn Fn(u8, &str) -> bool) -> GpuSpec {
    let has_pods = || gpu.sharers().any(|user| is_pod(user) && known(gpu.index, user));
    let stranger = gpu.sharers().find(|user| !known(gpu.index, user) && (is_pod(user) || !has_pods()));
    let unusable = match (gpu.healthy, stranger) {
        (false, _) if gpu.message.is_empty() => Some("its node reports it unhealthy".to_owned()),
        (false, _) => Some(gpu.message.clone()),
        (true, Some(user)) if gpu.cut == Cut::Shares => Some(format!("{user} uses it, whom the scheduler did not give it")),
        _ => None,
    };
    // A share is nothing that exists beside the pod that has it.
    let found = gpu.partitions.iter().filter(|one| gpu.cut != Cut::Shares || one.milli.is_none()).filter_map(found_of).collect();
    GpuSpec { model: model_of(gpu).name, cut: gpu.cut, uuid: gpu.uuid.clone(), found, unusable }
}

/// Whether a user is a pod, `namespace/name`, and not a process or a container that is not named yet.
#[must_use]
pub fn is_pod(user: &str) -> bool {
    user.contains('/')
}

/// A partition that exists. One that cannot be destroyed counts as used, so that nobody is given it. One that could not be made is none, and
/// neither is one that nobody uses and that is being destroyed: who gets its slots waits until they are free.
#[must_use]
pub fn found_of(partition: &FoundPartition) -> Option<Found> {
    let is_used = !partition.users.is_empty();
    let stuck = match partition.state {
        PartitionState::Ready | PartitionState::Creating => false,
        PartitionState::Destroying if !is_used => return None,
        PartitionState::Failed if partition.uuid.is_empty() && !is_used => return None,
        PartitionState::Destroying | PartitionState::Failed => true,
    };
    Some(Found {
        profile: partition.profile.clone(),
        start: partition.start.unwrap_or(0),
        memory_mib: partition.memory_mib.unwrap_or(0),
        used: stuck || is_used,
    })
}

impl FoundGpu {
    /// Who uses it as a whole or in shares; nobody does of a GPU that is cut otherwise.
    pub(crate) fn sharers(&self) -> impl Iterator<Item = &String> {
        let shares = self.partitions.iter().filter(|one| one.milli.is_some()).flat_map(|one| &one.users);
        self.users.iter().chain(shares)
    }
}

/// A pod that uses GPUs of a node.
#[derive(Clone, Debug)]
pub struct Tenant<'a> {
    /// Its number in the core's books.
    pub id: PodId,
    /// How the API server knows it.
    pub pod: PodRef,
    /// What it uses.
    pub grant: &'a Grant,
    /// The resources by which it asks for GPUs, and how many of each.
    pub asks: Vec<(String, u32)>,
}

/// The layout that a node shall have: what the core's books say of each GPU that has a UUID and is not set aside, and under which names its
/// parts are asked for.
#[must_use]
pub fn desired(node: &Node, models: &Models, tenants: &[Tenant<'_>]) -> Vec<DesiredGpu> {
    let named: Vec<Named<'_>> = tenants.iter().flat_map(|tenant| named(tenant, node, models)).collect();
    let managed = (0u8..).zip(&node.room.gpus).zip(&node.spec.gpus).filter(|((_, gpu), spec)| gpu.fault.is_none() && !spec.uuid.is_empty());
    managed
        .map(|((index, gpu), spec)| {
            let of = |partition: DesiredPartition, used: Use, holder: Option<Holder>| {
                let Some(Holder::Pod(id)) = holder else { return partition };
                let part = named.iter().find(|one| one.tenant.id == id && one.gpu == index && one.used == used);
                part.map_or_else(|| partition.clone(), |part| part.on(partition.clone()))
            };
            let partitions = match (&gpu.layout, models.layouts(gpu.model), models.grid(gpu.model)) {
                (Layout::Mig(mig), Some(layouts), Some(grid)) => mig
                    .partitions(layouts)
                    .map(|one| {
                        let profile = Some(grid.profiles[usize::from(one.placement.profile)].name.clone());
                        let partition = DesiredPartition { profile, start: Some(one.placement.start), ..DesiredPartition::default() };
                        of(partition, Use::Partition(one.placement), one.holder)
                    })
                    .collect(),
                (Layout::Mps(slices), ..) => slices
                    .all
                    .iter()
                    .map(|one| {
                        let partition = DesiredPartition { memory_mib: Some(one.memory_mib), ..DesiredPartition::default() };
                        of(partition, Use::Mps(one.memory_mib), one.holder)
                    })
                    .collect(),
                _ => named.iter().filter(|one| one.gpu == index).filter_map(Named::share).collect(),
            };
            DesiredGpu { uuid: spec.uuid.clone(), index, cut: gpu.cut(), partitions }
        })
        .collect()
}

/// What a pod uses of a GPU, and the resource by which it asks for that.
struct Named<'a> {
    tenant: &'a Tenant<'a>,
    gpu: u8,
    used: Use,
    resource: Option<String>,
}

fn named<'a>(tenant: &'a Tenant<'a>, node: &Node, models: &Models) -> impl Iterator<Item = Named<'a>> {
    let names = resource::answered(&tenant.asks, tenant.grant, node, models);
    tenant.grant.0.iter().zip(names).map(move |(&(gpu, used), resource)| Named { tenant, gpu, used, resource })
}

impl Named<'_> {
    fn on(&self, partition: DesiredPartition) -> DesiredPartition {
        DesiredPartition { pod: Some(self.tenant.pod.clone()), resource: self.resource.clone(), ..partition }
    }

    /// How much it has of a GPU that is whole or time-sliced.
    fn share(&self) -> Option<DesiredPartition> {
        let Use::Share(milli) = self.used else { return None };
        Some(self.on(DesiredPartition { milli: Some(milli), ..DesiredPartition::default() }))
    }
}

#[cfg(test)]
mod tests {
    use partita_core::{
        model::{Demand, GpuAsk, NodeId, NodeSpec, Placement, PodSpec, catalog},
        state::{Cluster, Event},
    };

    use super::*;

    fn found(index: u8, cut: Cut) -> FoundGpu {
        FoundGpu {
            uuid: format!("GPU-{index}"),
            index,
            model: "NVIDIA A30".into(),
            memory_mib: 24_576,
            cut,
            healthy: true,
            ..FoundGpu::default()
        }
    }

    #[test]
    fn gpus_come_in_the_order_of_their_indices_or_not_at_all() {
        let status = |indices: &[u8]| GpuNodeStatus {
            gpus: indices.iter().map(|&index| found(index, Cut::Mig)).collect(),
            ..GpuNodeStatus::default()
        };
        let gpus = gpus_of("n", &status(&[1, 0]), &|_, _| true).unwrap();
        assert_eq!(gpus.iter().map(|gpu| gpu.0.uuid.as_str()).collect::<Vec<_>>(), ["GPU-0", "GPU-1"]);
        assert_eq!(gpus[0].1, catalog::builtin("A30").unwrap());
        for wrong in [&[0u8, 2][..], &[1], &[0, 0]] {
            let error = gpus_of("n", &status(wrong), &|_, _| true).unwrap_err().to_string();
            assert!(error.contains("GpuNode n") && error.contains("each once"), "{error}");
        }
        let unnamed = GpuNodeStatus { gpus: vec![FoundGpu { model: " ".into(), ..found(0, Cut::Shares) }], ..GpuNodeStatus::default() };
        assert_eq!(gpus_of("n", &unnamed, &|_, _| true), Err(ConvertError::NoModel { node: "n".into(), index: 0 }));
        assert_eq!(gpus_of("n", &GpuNodeStatus::default(), &|_, _| true), Ok(Vec::new()));
    }

    #[test]
    fn a_gpu_that_somebody_unknown_uses_is_left_alone() {
        let used = |users: &[&str]| FoundGpu { users: users.iter().map(ToString::to_string).collect(), ..found(0, Cut::Shares) };
        let by = |users: &[&str]| gpu_spec(&used(users), &|_, user| user == "ns/pod").unusable;
        assert_eq!(gpu_spec(&used(&["pid:7"]), &|_, _| true).unusable, None, "somebody has it who is not named yet");
        assert_eq!(by(&["ns/pod", "pid:7"]), None, "that is the pod's own");
        for users in [&["pid:7"][..], &["ns/other", "pid:7"], &["ns/pod", "ns/other"]] {
            assert!(by(users).unwrap().contains(users.iter().find(|user| **user != "ns/pod").unwrap()), "{users:?}");
        }
        let whole = FoundPartition { milli: Some(1000), users: vec!["ns/pod".into(), "ns/other".into()], ..FoundPartition::default() };
        let shared = gpu_spec(&FoundGpu { partitions: vec![whole], ..found(0, Cut::Shares) }, &|_, user| user == "ns/pod");
        assert!(shared.unusable.unwrap().contains("ns/other") && shared.found.is_empty());
        let broken = FoundGpu { healthy: false, message: "Xid 79".into(), ..found(0, Cut::Mig) };
        assert_eq!(gpu_spec(&broken, &|_, _| true).unusable.as_deref(), Some("Xid 79"));
    }

    #[test]
    fn a_partition_is_free_only_if_it_is_there_to_be_used() {
        let one = FoundPartition { profile: Some("1g.6gb".into()), start: Some(2), ..FoundPartition::default() };
        let used = |state, users: &[&str], uuid: &str| {
            let users = users.iter().map(ToString::to_string).collect();
            found_of(&FoundPartition { state, users, uuid: uuid.into(), ..one.clone() }).map(|found| found.used)
        };
        assert_eq!(used(PartitionState::Ready, &[], "m"), Some(false));
        assert_eq!(used(PartitionState::Creating, &[], ""), Some(false));
        assert_eq!(used(PartitionState::Ready, &["a/b"], "m"), Some(true));
        assert_eq!(used(PartitionState::Destroying, &["a/b"], "m"), Some(true));
        assert_eq!(used(PartitionState::Destroying, &[], "m"), None);
        assert_eq!(used(PartitionState::Failed, &[], "m"), Some(true));
        assert_eq!(used(PartitionState::Failed, &[], ""), None);
    }

    /// What a cluster whose books have been kept wants: everything that exists or is in use, with the pods, and nothing else.
    #[test]
    fn the_layout_that_is_wanted_is_what_the_books_say() {
        let partition =
            |profile: &str, start: u8| FoundPartition { profile: Some(profile.into()), start: Some(start), ..FoundPartition::default() };
        let share = |memory_mib: u32| FoundPartition { memory_mib: Some(memory_mib), ..FoundPartition::default() };
        let status = GpuNodeStatus {
            gpus: vec![
                FoundGpu { partitions: vec![partition("1g.6gb", 0), partition("1g.6gb", 1)], ..found(0, Cut::Mig) },
                FoundGpu { partitions: vec![share(1024), share(2048)], ..found(1, Cut::Mps) },
                found(2, Cut::Shares),
                FoundGpu { healthy: false, ..found(3, Cut::Shares) },
            ],
            ..GpuNodeStatus::default()
        };
        let (gpus, models): (Vec<_>, Vec<_>) = gpus_of("n", &status, &|_, _| true).unwrap().into_iter().unzip();
        let mut cluster = Cluster::default();
        cluster.apply(Event::ModelSeen(models[0].clone())).unwrap();
        cluster.apply(Event::NodeAdded(NodeId(0), NodeSpec { name: "n".into(), gpus, ..NodeSpec::default() })).unwrap();
        let asks = [GpuAsk::mig("1g.6gb"), GpuAsk::Mps { memory_mib: 2048 }, GpuAsk::Share { count: 1, milli: 250 }];
        let uses = [(0, Use::Partition(Placement { profile: 0, start: 1 })), (1, Use::Mps(2048)), (2, Use::Share(250))];
        let mut pods = Vec::new();
        for (row, (gpu, used)) in asks.into_iter().zip(uses).enumerate() {
            let (id, grant) = (PodId::new(row), Grant(vec![used]));
            let spec = PodSpec {
                name: format!("p{row}"),
                namespace: "ns".into(),
                demand: Demand { gpu, ..Demand::default() },
                ..PodSpec::default()
            };
            cluster.apply(Event::PodRuns(id, spec, NodeId(0), grant.clone())).unwrap();
            pods.push((id, PodRef { namespace: "ns".into(), name: format!("p{row}"), uid: row.to_string() }, grant));
        }
        let pod = |row: usize| Some(pods[row].1.clone());
        let names = ["nvidia.com/mig-1g.6gb", "nvidia.com/gpu-2gb", "partita.dev/gpu"];
        let tenants = pods.iter().zip(names);
        let tenants: Vec<Tenant<'_>> =
            tenants.map(|((id, pod, grant), name)| Tenant { id: *id, pod: pod.clone(), grant, asks: vec![(name.to_owned(), 1)] }).collect();
        let wanted = desired(cluster.node(NodeId(0)).unwrap(), cluster.models(), &tenants);
        let by = |row: usize| DesiredPartition { pod: pod(row), resource: Some(names[row].to_owned()), ..DesiredPartition::default() };
        let mig = |start: u8, of| DesiredPartition { profile: Some("1g.6gb".into()), start: Some(start), ..of };
        let mps = |mib: u32, of| DesiredPartition { memory_mib: Some(mib), ..of };
        let milli = DesiredPartition { milli: Some(250), ..by(2) };
        let warm = DesiredPartition::default;
        let gpu = |index: u8, cut, partitions| DesiredGpu { uuid: format!("GPU-{index}"), index, cut, partitions };
        // The one that is unhealthy is left as it is.
        assert_eq!(
            wanted,
            [
                gpu(0, Cut::Mig, vec![mig(0, warm()), mig(1, by(0))]),
                gpu(1, Cut::Mps, vec![mps(1024, warm()), mps(2048, by(1))]),
                gpu(2, Cut::Shares, vec![milli]),
            ]
        );
    }
}
