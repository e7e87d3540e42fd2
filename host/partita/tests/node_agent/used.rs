//! What counts as used, and what is told of it.

use std::fs;

use partita_fake_kubelet::Pod;
use partita_kube::crd::{
    FoundGpu, FoundPartition,
    PartitionState::{Destroying, Ready},
};
use serde_json::json;

use crate::stage::Stage;

const ONE: &str = "nvidia.com/mig-1g.10gb";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kubelet_has_written_down_stays_although_it_names_nobody() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let agent = stage.agent();
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    let uuids = stage.settled(0, &[("1g.10gb", 0)]).await;
    stage.kubelet.admit(&Pod::new("p", ONE)).await.unwrap();
    stage.gpu(0, "its pod is named", |gpu| gpu.partitions[0].users == ["default/p"]).await;

    // A kubelet that was started anew does not know its pods yet; and of init containers it never tells. The agent was started anew as well.
    stage.kubelet.faults(|faults| faults.names_no_pods = true);
    agent.kill();
    let _agent = stage.agent();
    stage.layout(1, 2, json!([stage.mig(0, &[("2g.20gb", 2, None)])])).await;
    let words = "is used by a container that the kubelet has written down; it stays until";
    let told = |one: &FoundPartition| one.state == Destroying && one.message.contains(words) && one.users.is_empty();
    stage.gpu(0, "why it stays is told", |gpu| gpu.partitions.iter().any(told)).await;
    stage.partition(0, "2g.20gb", 2, Ready).await;
    assert!(stage.truth(0).iter().any(|one| one.2 == uuids), "{:?}", stage.truth(0));

    stage.kubelet.faults(|faults| faults.names_no_pods = false);
    stage.gpu(0, "its pod is named again", |gpu| gpu.partitions.iter().any(|one| one.users == ["default/p"])).await;
    stage.kubelet.terminate("default", "p");
    stage.settled(0, &[("2g.20gb", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_containers_device_goes_when_the_kubelet_writes_that_its_pod_has_ended() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let _agent = stage.agent();
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    stage.settled(0, &[("1g.10gb", 0)]).await;
    stage.kubelet.faults(|faults| faults.names_no_pods = true);
    stage.kubelet.admit(&Pod::new("init", ONE)).await.unwrap();
    stage.layout(1, 2, json!([stage.mig(0, &[])])).await;
    stage.partition(0, "1g.10gb", 0, Destroying).await;
    // It ends; the kubelet's file names it until something is sent.
    stage.kubelet.terminate("default", "init");
    assert_eq!(stage.truth(0).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_pods_are_told_by_their_pods_names_only() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let proc = stage.folder.path().join("proc");
    fs::create_dir_all(proc.join("4711")).unwrap();
    fs::write(proc.join("4711/cgroup"), "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podx.slice/cri-y.scope\n")
        .unwrap();
    let _agent = stage.agent_with(&["--proc", proc.to_str().unwrap()], &[]);
    stage.status().await;
    stage.kubelet.until("the GPU is offered", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 1).await;
    stage.kubelet.admit(&Pod::new("p", "nvidia.com/gpu")).await.unwrap();
    stage.fake.hold(0, None, 4711).unwrap();
    stage.fake.hold(0, None, 4712).unwrap();
    let is_told = |gpu: &FoundGpu| gpu.users.iter().any(|user| user == "pid:4712") && gpu.partitions[0].users == ["default/p"];
    assert_eq!(stage.gpu(0, "the other process is told", is_told).await.users, ["pid:4712"]);
    stage.fake.end(4712).unwrap();
    stage.gpu(0, "only its pod is told", |gpu| gpu.users.is_empty() && gpu.partitions[0].users == ["default/p"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_taken_from_the_kubelet_is_not_destroyed() {
    let stage = Stage::new("H100-80GB×2", Some("auto")).await;
    let _agent = stage.agent();
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    // Of the other GPU there is something to write.
    let uuids = stage.settled(0, &[("1g.10gb", 0)]).await;
    let cdi = stage.folder.path().join("cdi");
    fs::remove_dir_all(&cdi).unwrap();
    fs::write(&cdi, "a file where a folder should be").unwrap();
    stage.layout(1, 2, json!([stage.mig(0, &[("2g.20gb", 2, None)])])).await;
    stage.reason("FilesUnwritable").await;
    stage.until("the layout is known", |status| status.observed_generation == 2).await;
    assert_eq!(stage.kubelet.admit(&Pod::new("p", ONE)).await.unwrap().devices, uuids);
    assert_eq!(stage.truth(0)[0].2, uuids);
    fs::remove_file(&cdi).unwrap();
    stage.reason("Works").await;
    stage.gpu(0, "its pod keeps it", |gpu| gpu.partitions.iter().any(|one| one.users == ["default/p"])).await;
}
