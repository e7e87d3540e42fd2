//! Simulated node agents on a real API server, without a scheduler: layouts are written by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use partita_cluster::{
    ControlPlane, NodeShape, Options,
    agent::{Agents, Behaviour, Failure, Lie, Violation},
    install_crds, nodes,
};
use partita_core::model::Cut;
use partita_kube::{
    crd::{DesiredGpu, DesiredPartition, FoundPartition, GpuNode, GpuNodeSpec, GpuNodeStatus, PartitionState},
    translate::keys,
};
use serde_json::{Value, json};

/// Nodes `gpu-0` and so on with two H100 each, and their agents.
struct Scene {
    agents: Agents,
    client: Client,
    nodes: Api<GpuNode>,
    pods: Api<Pod>,
    _cluster: ControlPlane,
}

impl Scene {
    async fn new(nodes: usize) -> Self {
        let cluster = ControlPlane::start(Options::default()).await.unwrap_or_else(|error| panic!("{error}"));
        let client = cluster.client();
        install_crds(&client).await.unwrap();
        nodes::create(&client, &NodeShape::new("gpu", nodes).with_gpus(nodes::GPU_MODELS[3], 2)).await.unwrap();
        let agents = Agents::start(client.clone(), Behaviour::default());
        agents.ready(nodes).await;
        let (nodes, pods) = (Api::all(client.clone()), Api::default_namespaced(client.clone()));
        Self { agents, nodes, pods, client, _cluster: cluster }
    }

    /// Writes what the first GPU of `gpu-0` shall be, as a scheduler does.
    async fn want(&self, term: i64, generation: i64, cut: Cut, partitions: Vec<DesiredPartition>) -> Result<(), kube::Error> {
        let gpu = DesiredGpu { uuid: self.agents.uuid("gpu-0", 0).unwrap(), index: 0, cut, partitions };
        let spec = GpuNodeSpec { term, generation, plan: "by hand".into(), gpus: vec![gpu] };
        let wish = json!({ "apiVersion": "partita.dev/v1alpha1", "kind": "GpuNode", "metadata": { "name": "gpu-0" }, "spec": spec });
        self.nodes.patch("gpu-0", &PatchParams::apply("by-hand").force(), &Patch::Apply(wish)).await.map(drop)
    }

    async fn mig<const N: usize>(&self, generation: i64, partitions: [(&str, u8); N]) {
        self.want(1, generation, Cut::Mig, partitions.map(|(profile, start)| mig(profile, start)).into()).await.unwrap();
    }

    async fn status(&self) -> GpuNodeStatus {
        self.nodes.get("gpu-0").await.unwrap().status.unwrap_or_default()
    }

    /// The status, once it is as `holds` wants it.
    async fn eventually(&self, what: &str, holds: impl Fn(&GpuNodeStatus) -> bool) -> GpuNodeStatus {
        for _ in 0..1200 {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("a minute passed, and not {what}: {:#?} {:?}", self.status().await, self.agents.refusals());
    }

    async fn done(&self, generation: i64) -> Vec<FoundPartition> {
        let status = self.eventually("the layout was done", |status| status.observed_generation == generation).await;
        status.gpus.into_iter().find(|gpu| gpu.index == 0).unwrap().partitions
    }

    /// Binds a pod as a scheduler does.
    async fn bind(&self, name: &str, grant: &str) {
        let spec = json!({ "containers": [{ "name": "main", "image": "image" }] });
        let pod = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap();
        self.pods.create(&PostParams::default(), &pod).await.unwrap();
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": name, "annotations": { keys::GRANT: grant } },
            "target": { "kind": "Node", "name": "gpu-0" },
        });
        self.pods.create_subresource::<Value, Value>("binding", name, &PostParams::default(), &binding).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        self.pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    async fn violations(&self, count: usize) -> Vec<Violation> {
        for _ in 0..1200 {
            if self.agents.violations().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.agents.violations()
    }

    async fn allocatable(&self) -> Vec<(String, String)> {
        let node = Api::<Node>::all(self.client.clone()).get("gpu-0").await.unwrap();
        let all = node.status.unwrap().allocatable.unwrap();
        all.into_iter().filter(|(name, _)| name.starts_with("nvidia.com/")).map(|(name, amount)| (name, amount.0)).collect()
    }
}

fn mig(profile: &str, start: u8) -> DesiredPartition {
    DesiredPartition { profile: Some(profile.into()), start: Some(start), ..DesiredPartition::default() }
}

/// The partitions of the first GPU.
fn first(status: &GpuNodeStatus) -> Vec<FoundPartition> {
    status.gpus.first().map(|gpu| gpu.partitions.clone()).unwrap_or_default()
}

fn words(partitions: &[FoundPartition]) -> Vec<String> {
    let one = |one: &FoundPartition| {
        let users = one.users.join(" ");
        format!("{}@{} {:?} {users}{}", one.profile.as_deref().unwrap_or("-"), one.start.unwrap_or(99), one.state, one.message)
    };
    partitions.iter().map(|partition| one(partition).trim_end().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_becomes_partitions() {
    let scene = Scene::new(3).await;
    let first = scene.status().await;
    assert_eq!(
        first.gpus.iter().map(|gpu| (gpu.index, gpu.model.as_str(), gpu.healthy, gpu.cut)).collect::<Vec<_>>(),
        [(0, "NVIDIA H100 80GB HBM3", true, Cut::Shares), (1, "NVIDIA H100 80GB HBM3", true, Cut::Shares)]
    );
    assert_eq!(scene.nodes.get("gpu-2").await.unwrap().metadata.owner_references.unwrap()[0].name, "gpu-2");

    scene.mig(1, [("3g.40gb", 4), ("1g.10gb", 0), ("1g.10gb", 1)]).await;
    let made = scene.done(1).await;
    assert_eq!(words(&made), ["1g.10gb@0 Ready", "1g.10gb@1 Ready", "3g.40gb@4 Ready"]);
    assert!(made.iter().all(|one| one.uuid.starts_with("MIG-")));
    let counts = [("nvidia.com/gpu", "1"), ("nvidia.com/mig-1g.10gb", "2"), ("nvidia.com/mig-3g.40gb", "1")];
    assert_eq!(scene.allocatable().await, counts.map(|(name, count)| (name.to_owned(), count.to_owned())));

    // What cannot be is said, and takes nothing else with it; what stays keeps its identity.
    scene.mig(2, [("1g.10gb", 0), ("2g.20gb", 0), ("1g.5gb", 3), ("3g.40gb", 1), ("2g.20gb", 2)]).await;
    let said = scene.done(2).await;
    assert_eq!(said[0].uuid, made[0].uuid);
    assert_eq!(
        words(&said),
        [
            "1g.10gb@0 Ready",
            "2g.20gb@2 Ready",
            "2g.20gb@0 Failed 2g.20gb at slot 0 cannot be made: it overlaps 1g.10gb at slot 0",
            "1g.5gb@3 Failed 1g.5gb at slot 3 cannot be made: NVIDIA H100 80GB HBM3 has no such profile",
            "3g.40gb@1 Failed 3g.40gb at slot 1 cannot be made: such a partition cannot start there",
        ]
    );

    scene.want(1, 3, Cut::Mps, vec![DesiredPartition { memory_mib: Some(10_240), ..DesiredPartition::default() }]).await.unwrap();
    let shares = scene.done(3).await;
    assert_eq!((shares.len(), shares[0].memory_mib, shares[0].state), (1, Some(10_240), PartitionState::Ready));
    assert_eq!(scene.allocatable().await, [("nvidia.com/gpu".to_owned(), "1".to_owned())]);
    scene.want(1, 4, Cut::Shares, vec![]).await.unwrap();
    let whole = scene.done(4).await;
    assert_eq!((whole.len(), whole[0].milli, whole[0].resource.as_deref()), (1, Some(1000), Some("nvidia.com/gpu")));
    assert_eq!(scene.allocatable().await, [("nvidia.com/gpu".to_owned(), "2".to_owned())]);
    assert_eq!((scene.agents.violations(), scene.agents.refusals()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_is_refused() {
    let scene = Scene::new(1).await;
    scene.want(3, 5, Cut::Mig, vec![mig("1g.10gb", 0)]).await.unwrap();
    let made = scene.done(5).await;
    for (term, generation, words) in [(2, 6, "term must not decrease"), (3, 4, "generation must not decrease")] {
        let refused = scene.want(term, generation, Cut::Mig, vec![]).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    // Without the API server's rules the agent refuses by itself: the object was replaced under its feet by one of an older leader.
    let definitions =
        Api::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>::all(scene.client.clone());
    let lax = json!([{ "op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations" }]);
    definitions
        .patch("gpunodes.partita.dev", &PatchParams::default(), &Patch::Json::<()>(serde_json::from_value(lax).unwrap()))
        .await
        .unwrap();
    for _ in 0..1200 {
        if scene.want(2, 9, Cut::Mig, vec![mig("7g.80gb", 0)]).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scene.nodes.get("gpu-0").await.unwrap().spec.term, 2);
    // Something that is said later shows that the layout was seen, and left alone.
    scene.bind("pod", "0:1g.10gb@0").await;
    let status = scene.eventually("the pod was noticed", |status| status.gpus[0].partitions.iter().any(|one| !one.users.is_empty())).await;
    assert_eq!((status.observed_term, status.observed_generation), (3, 5));
    assert_eq!(status.gpus[0].partitions[0].uuid, made[0].uuid);
    // The next of the newest leader is taken.
    scene.want(4, 10, Cut::Mig, vec![mig("1g.10gb", 0), mig("1g.10gb", 1)]).await.unwrap();
    assert_eq!(scene.done(10).await.len(), 2);
    assert_eq!(scene.agents.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_uses_is_never_destroyed() {
    let scene = Scene::new(1).await;
    scene.mig(1, [("1g.10gb", 0), ("1g.10gb", 1)]).await;
    scene.done(1).await;
    scene.bind("pod", "0:1g.10gb@1").await;
    scene.mig(2, [("2g.20gb", 0), ("1g.10gb", 2)]).await;
    let said = words(&scene.done(2).await);
    assert_eq!(
        said,
        [
            "1g.10gb@1 Ready default/pod",
            "1g.10gb@2 Ready",
            "2g.20gb@0 Failed 2g.20gb at slot 0 cannot be made: it overlaps 1g.10gb at slot 1, which default/pod uses",
        ]
    );
    let violations = scene.agents.violations();
    assert!(matches!(&violations[..], [Violation::Destroys { generation: 2, pod, .. }] if pod == "default/pod"), "{violations:?}");
    scene.want(1, 3, Cut::Shares, vec![]).await.unwrap();
    assert_eq!(words(&scene.done(3).await), ["1g.10gb@1 Ready default/pod"]);
    let gpu = scene.status().await.gpus.remove(0);
    assert_eq!((gpu.cut, gpu.message.as_str()), (Cut::Mig, "it stays cut by mig: 1g.10gb at slot 1 could not be destroyed"));

    // Who asks right after the end of the pod is right, even if the agent did not see that end yet.
    scene.delete("pod").await;
    scene.want(1, 4, Cut::Shares, vec![]).await.unwrap();
    assert_eq!(scene.done(4).await.iter().map(|one| one.milli).collect::<Vec<_>>(), [Some(1000)], "it is whole again");
    assert_eq!(scene.agents.violations().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_should_not_be_there_are_noticed() {
    let scene = Scene::new(1).await;
    scene.mig(1, [("1g.10gb", 0), ("2g.20gb", 2)]).await;
    scene.done(1).await;
    for (name, grant, words) in [
        ("first", "0:1g.10gb@0", ""),
        ("twice", "0:1g.10gb@0", "overlaps 1g.10gb at slot 0 of pod default/first"),
        ("all", "1:1000m", ""),
        ("more", "1:1000m", "2000 thousandths"),
        ("nothing", "0:1g.10gb@6", "pod default/nothing was bound on gpu-0 to 1g.10gb at slot 6 of GPU 0, which was not there"),
        ("unreadable", "0:all", "which is none"),
    ] {
        let before = scene.agents.violations().len();
        scene.bind(name, grant).await;
        if words.is_empty() {
            // What comes later is judged by it, so it is enough that it is seen.
            continue;
        }
        let violations = scene.violations(before + 1).await;
        assert!(violations.len() == before + 1 && violations[before].to_string().contains(words), "{name}: {violations:?}");
    }
    // Mixed kinds: the GPU is cut by MIG and somebody has it whole. That also is not there.
    scene.bind("whole", "0:1000m").await;
    let violations: Vec<String> = scene.violations(8).await.iter().skip(4).map(ToString::to_string).collect();
    assert!(violations.iter().any(|violation| violation.contains("of which pod default/first has 1g.10gb at slot 0")), "{violations:?}");
    assert!(violations.iter().any(|violation| violation.contains("to 1000 thousandths of GPU 0, which was not there")), "{violations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_can_be_slow_silent_wrong_and_restarted() {
    let mut scene = Scene::new(2).await;
    let failure = Failure { times: 2, message: "NVML said no".into() };
    scene.agents.behave_on("gpu-0", Behaviour { fails: [("1g.10gb".into(), failure)].into(), ..Behaviour::default() });
    for (generation, failed) in [(1, 2), (2, 0)] {
        scene.mig(generation, [("1g.10gb", 0), ("1g.10gb", 1)]).await;
        let said = words(&scene.done(generation).await);
        assert_eq!(said.iter().filter(|words| words.ends_with("Failed NVML said no")).count(), failed, "{said:?}");
    }

    // Silent: nothing happens until it speaks again.
    scene.agents.behave(Behaviour { silent: true, ..Behaviour::default() });
    scene.agents.behave_on("gpu-0", Behaviour { silent: true, ..Behaviour::default() });
    scene.mig(3, [("7g.80gb", 0)]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.status().await.observed_generation, 2);
    let broken = Behaviour { unhealthy: [(0, "Xid 79".into())].into(), renumbered: true, ..Behaviour::default() };
    scene.agents.behave_on("gpu-0", broken);
    let status = scene.eventually("it spoke again", |status| status.observed_generation == 3).await;
    let gpu = status.gpus.iter().find(|gpu| !gpu.healthy).unwrap();
    assert_eq!((gpu.index, gpu.message.as_str(), Some(gpu.uuid.clone())), (1, "Xid 79", scene.agents.uuid("gpu-0", 0)));
    assert!(words(&gpu.partitions)[0].contains("the GPU is broken: Xid 79"), "{gpu:?}");

    let lie = |lie| Behaviour { lie: Some(lie), ..Behaviour::default() };
    for (told, is_told) in [
        (Lie::Generation(77), (|status| status.observed_generation == 77) as fn(&GpuNodeStatus) -> bool),
        (Lie::NoGpus, |status| status.gpus.is_empty()),
        (Lie::Profile, |status| words(&first(status)) == ["9g.999gb@0 Ready"]),
        (Lie::Overlap, |status| words(&first(status)) == ["1g.10gb@0 Ready", "7g.80gb@0 Ready"]),
        (Lie::Uuid("GPU-of-another".into()), |status| status.gpus.iter().any(|gpu| gpu.uuid == "GPU-of-another")),
    ] {
        scene.agents.behave_on("gpu-0", lie(told.clone()));
        scene.eventually(&format!("{told:?} was told"), is_told).await;
    }
    // The API server itself refuses one UUID twice in one report.
    scene.agents.behave_on("gpu-0", lie(Lie::Uuid(scene.agents.uuid("gpu-0", 1).unwrap())));
    for _ in 0..1200 {
        if !scene.agents.refusals().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scene.agents.refusals().len(), 1, "{:?}", scene.agents.refusals());

    // New agents find what the old ones made.
    scene.agents.behave_on("gpu-0", Behaviour { delay: Duration::from_millis(20), ..Behaviour::default() });
    scene.mig(4, [("3g.40gb", 4)]).await;
    let made = scene.done(4).await;
    scene.agents = Agents::start(scene.client.clone(), Behaviour::default());
    scene.agents.ready(2).await;
    scene.mig(5, [("3g.40gb", 4), ("1g.10gb", 0)]).await;
    assert!(scene.done(5).await.contains(&made[0]));

    // An object that somebody deletes is made again, and its numbers begin anew.
    scene.nodes.delete("gpu-0", &DeleteParams::default()).await.unwrap();
    for _ in 0..1200 {
        if scene.nodes.get_opt("gpu-0").await.unwrap().is_some_and(|node| node.status.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scene.mig(1, [("3g.40gb", 4)]).await;
    assert!(scene.done(1).await.contains(&made[0]));
}
