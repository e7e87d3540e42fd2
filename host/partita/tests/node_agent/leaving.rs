//! partita leaves a node, and comes back; an agent that ends leaves everything.

use std::fs;

use partita_core::model::Cut;
use partita_fake_kubelet::Pod;
use partita_kube::crd::{FoundGpu, GpuNodeStatus, PartitionState::Destroying, PartitionState::Ready};
use serde_json::json;

use crate::{
    programs::Floor,
    stage::{Stage, says},
};

const ONE: &str = "nvidia.com/mig-1g.10gb";

fn sockets(stage: &Stage) -> usize {
    let names = fs::read_dir(stage.kubelet.device_plugins_folder()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with("partita")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn label_off_gives_everything_back_and_label_on_takes_it_again() {
    // Cut by us; cut by others, who have a partition; shared by MPS.
    let stage = Stage::new("H100-80GB×3", Some("auto")).await;
    let floor = Floor::new();
    stage.fake.set_mig(1, true).unwrap();
    stage.fake.make(1, "2g.20gb", 0, true).unwrap();
    let foreign = stage.truth(1);
    stage.fake.edit(|state| state.gpus[2].compute_mode = 2).unwrap();
    let agent = floor.agent(&stage, &[], &[]);
    let layout = |stage: &Stage| {
        let ours = stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)]);
        let theirs = stage.mig(1, &[("2g.20gb", 0, None), ("1g.10gb", 4, None)]);
        json!([ours, theirs, stage.mps(2, &[8192])])
    };
    stage.layout(1, 1, layout(&stage)).await;
    stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    stage.settled(1, &[("1g.10gb", 4), ("2g.20gb", 0)]).await;
    let shared = |gpu: &FoundGpu| gpu.cut == Cut::Mps && gpu.partitions.iter().all(|one| one.state == Ready);
    stage.gpu(2, "it is shared by MPS", shared).await;
    assert_eq!(floor.running(), 1);
    let mut pods = Vec::new();
    for pod in ["p", "q", "r"] {
        pods.push((pod, stage.kubelet.admit(&Pod::new(pod, ONE)).await.unwrap().devices.remove(0)));
    }
    // From then on the kubelet knows who has ended.
    let named =
        |status: &GpuNodeStatus| status.gpus.iter().flat_map(|gpu| &gpu.partitions).filter(|one| !one.users.is_empty()).count() == 3;
    stage.until("all pods are named", named).await;
    // One that stays is on a GPU of ours.
    let of_ours: Vec<String> = stage.truth(0).into_iter().flat_map(|one| one.2).collect();
    let (stays, device) = pods.iter().find(|(_, device)| of_ours.contains(device)).unwrap().clone();
    for (pod, _) in pods.iter().filter(|(pod, _)| *pod != stays) {
        stage.kubelet.terminate("default", pod);
    }

    stage.label(Some("off")).await;
    says(&stage.reason("Restoring").await, &["the node's label partita.dev/partitioning is off"]);
    let is_left = |gpu: &FoundGpu| gpu.partitions.len() == 1 && gpu.partitions[0].uuid == device;
    stage.gpu(0, "only what the pod uses is left", is_left).await;
    assert_eq!(stage.kubelet.healthy(ONE), [device.as_str()], "it stays in the list: its container may be started again");
    // An agent that is started anew in the middle goes on with it.
    agent.kill();
    let mut agent = floor.agent(&stage, &[], &[]);
    stage.kubelet.until("it is in the list again", |kubelet| kubelet.healthy(ONE) == [device.as_str()]).await;
    let waits = stage.gpu(0, "it says who is in the way", |gpu| format!("{gpu:?}").contains(&format!("default/{stays}"))).await;
    assert_eq!((waits.partitions.len(), waits.partitions[0].state), (1, Destroying));
    says(&waits.partitions[0].message, &["it stays until they have ended"]);
    stage.kubelet.terminate("default", stays);
    says(&stage.reason("Restored").await, &["as they were found"]);
    let truth = stage.fake.state().unwrap();
    assert_eq!(truth.gpus.iter().map(|gpu| gpu.mig).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!((stage.truth(1), truth.gpus[2].compute_mode, floor.running()), (foreign, 2, 0));
    assert_eq!((sockets(&stage), stage.folder.path().join("cdi/partita.dev-gpu.json").exists()), (0, false));
    for resource in ["nvidia.com/gpu", ONE, "nvidia.com/mig-2g.20gb"] {
        assert!(stage.kubelet.healthy(resource).is_empty(), "{resource}");
    }
    // Still so after its end, which is no trouble on a node that partita has left, and after a restart.
    agent.terminate();
    assert_eq!(agent.ended().await.code(), Some(0), "{}", agent.log());
    assert_eq!(stage.status().await.conditions[0].reason, "Restored");
    let _agent = floor.agent(&stage, &[], &[]);
    stage.until("another agent tells", |status| status.conditions[0].reason == "Restored").await;
    assert_eq!(sockets(&stage), 0);

    stage.label(Some("auto")).await;
    stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    stage.settled(1, &[("1g.10gb", 4), ("2g.20gb", 0)]).await;
    stage.gpu(2, "it is shared by MPS", shared).await;
    stage.reason("Works").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_told_to_end_leaves_everything_and_its_successor_goes_on() {
    let stage = Stage::new("H100-80GB×2", Some("auto")).await;
    let floor = Floor::new();
    let mut agent = floor.agent(&stage, &[], &[]);
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)]), stage.mps(1, &[8192])])).await;
    let uuids = stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    let shared = |gpu: &FoundGpu| gpu.cut == Cut::Mps && gpu.partitions.iter().all(|one| one.state == Ready);
    stage.gpu(1, "it is shared by MPS", shared).await;
    stage.kubelet.admit(&Pod::new("p", ONE)).await.unwrap();
    let before = stage.fake.state().unwrap();
    agent.terminate();
    assert_eq!(agent.ended().await.code(), Some(0), "{}", agent.log());
    assert_eq!((stage.fake.state().unwrap(), floor.running(), sockets(&stage)), (before.clone(), 1, 0));
    assert_eq!(stage.cdi()["devices"].as_array().unwrap().len(), 3);
    let _agent = floor.agent(&stage, &[], &[]);
    stage.kubelet.until("it is offered again", |kubelet| kubelet.healthy(ONE).len() == 2).await;
    assert_eq!(stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await, uuids);
    stage.gpu(1, "it is shared by MPS", shared).await;
    assert_eq!((stage.fake.state().unwrap(), floor.running()), (before, 1));
}
