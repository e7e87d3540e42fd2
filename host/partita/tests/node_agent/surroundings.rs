//! A kubelet, a disk, an API server and operators that are not as they should be.

use std::{fs, os::unix::fs::symlink};

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use partita_fake_kubelet::Pod;
use partita_kube::crd::{
    FoundGpu, FoundPartition,
    PartitionState::{Failed, Ready},
};
use serde_json::json;

use crate::stage::{NODE, Stage, says, until};

const ONE: &str = "nvidia.com/mig-1g.10gb";

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_comes_goes_and_comes_again_finds_everything() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    stage.kubelet.stop().unwrap();
    let _agent = stage.agent();
    says(&stage.reason("KubeletSilent").await, &["is the kubelet running", "pod-resources"]);
    stage.kubelet.start().unwrap();
    stage.reason("Works").await;
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)])])).await;
    let uuids = stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    let used = stage.kubelet.admit(&Pod::new("p", ONE)).await.unwrap().devices.remove(0);
    stage.kubelet.kill();
    let message = stage.reason("KubeletSilent").await;
    says(&message, &["is the kubelet running"]);
    stage.kubelet.start().unwrap();
    stage.reason("Works").await;
    stage.kubelet.until("it has all again", |kubelet| kubelet.healthy(ONE).len() == 2).await;
    assert_eq!(stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await, uuids);
    stage.layout(1, 2, json!([stage.mig(0, &[])])).await;
    stage.gpu(0, "only what is used is left", |gpu| gpu.partitions.len() == 1 && gpu.partitions[0].uuid == used).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_kubelet_does_not_say_who_uses_what_nothing_is_destroyed() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let agent = stage.agent();
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)])])).await;
    let uuids = stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    let used = stage.kubelet.admit(&Pod::new("p", ONE)).await.unwrap().devices.remove(0);
    stage.kubelet.faults(|faults| faults.refuse_pod_resources = Some("too many requests".to_owned()));
    says(&stage.reason("KubeletSilent").await, &["too many requests"]);
    stage.layout(1, 2, json!([stage.mig(0, &[("2g.20gb", 2, None)])])).await;
    let blind = stage.until("the layout is known", |status| status.observed_generation == 2).await;
    assert!(blind.gpus[0].partitions.iter().all(|one| one.state != Ready || one.users == ["default/p"]), "{blind:#?}");
    assert_eq!(stage.truth(0).len(), 2, "nothing is made or destroyed");
    // The same for an agent that knows nothing from before: what looks free may be anybody's.
    agent.kill();
    let _agent = stage.agent();
    stage.kubelet.until("the last agent's are gone", |kubelet| kubelet.healthy(ONE).is_empty()).await;
    says(&stage.reason("KubeletSilent").await, &["too many requests"]);
    assert!(stage.kubelet.healthy("nvidia.com/mig-2g.20gb").is_empty());
    assert!(uuids.iter().all(|uuid| stage.truth(0).iter().any(|one| one.2.contains(uuid))));
    stage.kubelet.faults(|faults| faults.refuse_pod_resources = None);
    let of_pod = |one: &FoundPartition| one.uuid == used && one.users == ["default/p"];
    let is_so = |gpu: &FoundGpu| {
        gpu.partitions.len() == 2 && gpu.partitions.iter().any(of_pod) && gpu.partitions.iter().any(|one| one.start == Some(2))
    };
    stage.gpu(0, "what nobody uses is gone", is_so).await;
    stage.reason("Works").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_changes_and_nothing_else() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    stage.fake.set_mig(0, true).unwrap();
    let folder = stage.folder.path().join("state");
    fs::write(&folder, "a file where a folder should be").unwrap();
    let _agent = stage.agent();
    says(&stage.reason("CheckpointUnusable").await, &["state", "cannot be made", "make room"]);
    fs::remove_file(&folder).unwrap();
    stage.reason("Works").await;
    symlink("/dev/full", folder.join("agent.new")).unwrap();
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    let failed = stage.partition(0, "1g.10gb", 0, Failed).await;
    says(&failed.message, &["agent.json cannot be written", "No space left on device", "make room"]);
    assert!(stage.truth(0).is_empty());
    fs::remove_file(folder.join("agent.new")).unwrap();
    stage.settled(0, &[("1g.10gb", 0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_costs_nobody_anything() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let agent = stage.agent();
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)])])).await;
    let uuids = stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    agent.kill();
    fs::write(stage.folder.path().join("state/agent.json"), "{").unwrap();
    let _agent = stage.agent();
    says(&stage.reason("CheckpointWasDamaged").await, &["agent.json is damaged", "agent.damaged", "adopted", "none is destroyed"]);
    assert_eq!(stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await, uuids);
    // A later layout may take them all the same.
    stage.layout(1, 2, json!([stage.mig(0, &[("1g.10gb", 1, None)])])).await;
    assert_eq!(stage.settled(0, &[("1g.10gb", 1)]).await, uuids[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_the_second_ends_and_says_why() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let _first = stage.agent();
    stage.reason("Works").await;
    let mut second = stage.agent();
    assert_eq!(second.ended().await.code(), Some(1));
    says(&second.log(), &["another partita agent runs on this node", "end one of them"]);
    let events: Api<Event> = Api::namespaced(stage.client.clone(), "default");
    let said =
        events.list(&ListParams::default()).await.unwrap().items.into_iter().find(|one| one.reason.as_deref() == Some("AnotherAgentRuns"));
    says(&said.unwrap().note.unwrap(), &["another partita agent runs on this node", "end one of them"]);
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    stage.settled(0, &[("1g.10gb", 0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_layout_is_refused_and_another_object_begins_anew() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let agent = stage.agent();
    stage.layout(3, 7, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    let uuids = stage.settled(0, &[("1g.10gb", 0)]).await;
    let refused = stage.try_layout(3, 6, json!([])).await.unwrap_err().to_string();
    says(&refused, &["generation must not decrease"]);
    // A restored backup: the layout that stands there is older than the one that was taken.
    agent.kill();
    let told = json!({ "status": { "observedTerm": 4, "observedGeneration": 1 } });
    stage.gpu_nodes().patch_status(NODE, &PatchParams::default(), &Patch::Merge(told)).await.unwrap();
    let _agent = stage.agent();
    let message = stage.reason("LayoutRefused").await;
    says(&message, &["term 3, generation 7 is refused: 4, 1 was taken before", "leader's next layout", "delete the GpuNode"]);
    stage.kubelet.until("nothing is offered", |kubelet| kubelet.healthy(ONE).is_empty()).await;
    assert_eq!(stage.truth(0)[0].2, uuids);
    stage.layout(4, 8, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    stage.reason("Works").await;
    assert_eq!(stage.settled(0, &[("1g.10gb", 0)]).await, uuids);
    // Deleted while it runs: made again, and numbers begin anew.
    let old = stage.gpu_nodes().get(NODE).await.unwrap().metadata.uid;
    stage.gpu_nodes().delete(NODE, &DeleteParams::default()).await.unwrap();
    let new = until("it is made again", async || {
        let object = stage.gpu_nodes().get_opt(NODE).await.unwrap()?;
        (object.metadata.uid != old && object.status.is_some()).then_some(object)
    });
    assert_eq!(new.await.metadata.owner_references.unwrap()[0].name, NODE);
    let status = stage.until("no layout was taken", |status| status.observed_generation == 0).await;
    assert_eq!((status.observed_term, status.conditions[0].reason.as_str()), (0, "Works"));
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)])])).await;
    assert_eq!(stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await[0], uuids[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_nobody_knows_is_told_and_changes_nothing() {
    let stage = Stage::new("H100-80GB", Some("sometimes")).await;
    let _agent = stage.agent();
    let message = stage.reason("LabelUnknown").await;
    says(&message, &["partita.dev/partitioning", "\"sometimes\"", "mig, mps, time-slicing, auto or off"]);
    stage.kubelet.until("the GPU is offered all the same", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 1).await;
    stage.label(None).await;
    stage.reason("Works").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cdi_folder_that_cannot_be_written_is_told_and_nothing_is_offered_without() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let cdi = stage.folder.path().join("cdi");
    fs::write(&cdi, "a file where a folder should be").unwrap();
    let _agent = stage.agent();
    says(&stage.reason("FilesUnwritable").await, &["cdi", "cannot be used", "make room, mend it", "--cdi"]);
    assert!(stage.kubelet.healthy("nvidia.com/gpu").is_empty());
    fs::remove_file(&cdi).unwrap();
    stage.reason("Works").await;
    stage.kubelet.until("it is offered", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 1).await;
    let ready = stage.gpu(0, "it is ready", |gpu| gpu.partitions.iter().any(|one| one.state == Ready)).await;
    assert_eq!(stage.cdi()["devices"][0]["name"], ready.partitions[0].uuid);
}
