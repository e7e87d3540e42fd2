//! From a layout to partitions that the kubelet can give away, and back.

use partita_core::model::Cut;
use partita_fake_kubelet::Pod;
use partita_kube::crd::PartitionState;
use serde_json::json;

use crate::stage::{NODE, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_made_handed_over_used_and_destroyed() {
    let stage = Stage::new("H100-80GB×2", Some("auto")).await;
    let _agent = stage.agent();
    let status = stage.until("both GPUs are told", |status| status.gpus.len() == 2).await;
    assert!(status.gpus.iter().all(|gpu| gpu.healthy && gpu.cut == Cut::Shares && gpu.model == "H100-80GB"), "{status:#?}");
    assert_eq!(status.conditions[0].reason, "Works");
    let object = stage.gpu_nodes().get(NODE).await.unwrap();
    assert_eq!(object.metadata.owner_references.unwrap()[0].kind, "Node");
    stage.kubelet.until("whole GPUs are offered", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 2).await;

    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 3, Some("p"))])])).await;
    let ready = stage.partition(0, "1g.10gb", 3, PartitionState::Ready).await;
    assert_eq!(stage.kubelet.healthy("nvidia.com/mig-1g.10gb"), [ready.uuid.as_str()]);
    assert_eq!(stage.kubelet.healthy("nvidia.com/gpu"), [stage.uuid(1)]);
    assert!(stage.cdi()["devices"].as_array().unwrap().iter().any(|device| device["name"] == ready.uuid));
    let status = stage.status().await;
    assert_eq!((status.observed_term, status.observed_generation), (1, 1));

    let admitted = stage.kubelet.admit(&Pod::new("p", "nvidia.com/mig-1g.10gb")).await.unwrap();
    assert_eq!(admitted.devices, [ready.uuid.as_str()]);
    assert_eq!(admitted.answer.cdi_devices[0].name, format!("partita.dev/gpu={}", ready.uuid));
    let gpu = stage.gpu(0, "its pod is named", |gpu| gpu.partitions.iter().any(|one| one.users == ["default/p"])).await;
    assert_eq!(gpu.cut, Cut::Mig);

    // A layout that has forgotten it does not take it from its pod.
    stage.layout(1, 2, json!([stage.mig(0, &[("3g.40gb", 0, Some("q"))])])).await;
    let stays = stage.partition(0, "1g.10gb", 3, PartitionState::Destroying).await;
    assert!(stays.message.contains("default/p"), "{stays:?}");
    let failed = stage.partition(0, "3g.40gb", 0, PartitionState::Failed).await;
    assert!(failed.message.contains("overlaps"), "{failed:?}");
    stage.kubelet.terminate("default", "p");
    let ready = stage.partition(0, "3g.40gb", 0, PartitionState::Ready).await;
    assert_eq!(stage.kubelet.healthy("nvidia.com/mig-3g.40gb"), [ready.uuid]);
    assert!(stage.kubelet.healthy("nvidia.com/mig-1g.10gb").is_empty());

    // And back to a whole GPU.
    stage.layout(1, 3, json!([stage.shares(0, &[(1000, "w", "nvidia.com/gpu")])])).await;
    stage.gpu(0, "it is whole", |gpu| gpu.cut == Cut::Shares && gpu.partitions.iter().all(|one| one.state == PartitionState::Ready)).await;
    assert_eq!(stage.kubelet.healthy("nvidia.com/gpu").len(), 2);
}
