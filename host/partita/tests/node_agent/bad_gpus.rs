//! GPUs and drivers that are not as they should be: each is told with what to do, and nothing in use is touched.

use std::{env, fs};

use nvidia_ml::{Fault, What};
use partita_fake_kubelet::Pod;
use partita_kube::crd::PartitionState::{Destroying, Failed, Ready};
use serde_json::json;

use crate::stage::{Stage, says};

/// No permission.
const NO_PERMISSION: u32 = 4;
const CREATE: &str = "nvmlDeviceCreateGpuInstanceWithPlacement";

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_comes_later_is_found() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let library = stage.folder.path().join("libnvidia-ml.so.1");
    let gpus = stage.folder.path().join("gpus");
    let variables = [("PARTITA_FAKE_NVML", gpus.to_str().unwrap())];
    let _agent = stage.agent_with(&["--library", library.to_str().unwrap()], &variables);
    let status = stage.until("there is no driver", |status| status.conditions.iter().any(|one| one.reason == "NoDriver")).await;
    assert_eq!((status.conditions[0].status.as_str(), status.gpus.len(), status.driver), ("False", 0, None));
    says(&status.conditions[0].message, &["libnvidia-ml.so.1", "install the driver"]);
    // Copied beside and renamed: half a library is none.
    fs::copy(env::current_exe().unwrap().with_file_name("libnvidia_ml.so"), library.with_extension("new")).unwrap();
    fs::rename(library.with_extension("new"), &library).unwrap();
    stage.reason("Works").await;
    let status = stage.status().await;
    assert_eq!((status.gpus.len(), status.driver.as_deref()), (1, Some("580.65.06")));
    stage.kubelet.until("it is offered", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_says_why_and_is_tried_again() {
    let stage = Stage::new("H100-80GB,T4,H100-80GB", Some("auto")).await;
    stage.fake.edit(|state| state.gpus[2].virtual_gpu = true).unwrap();
    stage.fake.fault(Fault::always(CREATE, What::Code(NO_PERMISSION)).on(0)).unwrap();
    let _agent = stage.agent();
    let one = |gpu| stage.mig(gpu, &[("1g.10gb", 0, None)]);
    let unknown = json!({ "uuid": "GPU-of-another-node", "index": 9, "cut": "mig", "partitions": [] });
    let strange = stage.mig(0, &[("1g.10gb", 0, None), ("9g.90gb", 0, None), ("3g.40gb", 3, None)]);
    stage.layout(1, 1, json!([strange, one(1), one(2), unknown])).await;
    let failed = stage.partition(0, "1g.10gb", 0, Failed).await;
    says(&failed.message, &["nvmlDeviceCreateGpuInstanceWithPlacement", "NO_PERMISSION", "root"]);
    says(&stage.partition(0, "9g.90gb", 0, Failed).await.message, &["there is no profile 9g.90gb"]);
    says(&stage.partition(0, "3g.40gb", 3, Failed).await.message, &["can start at slots [0, 4] only"]);
    says(&stage.partition(1, "1g.10gb", 0, Failed).await.message, &["the GPU cannot be cut by MIG", "has no MIG"]);
    let vgpu = stage.gpu(2, "it is a vGPU", |gpu| !gpu.partitions.is_empty()).await;
    says(&format!("{vgpu:?}"), &["vGPU"]);
    says(&stage.reason("UnknownGpus").await, &["GPU-of-another-node", "does not list"]);
    assert_eq!((stage.truth(0).len(), stage.truth(2).len()), (0, 0));
    stage.fake.heal().unwrap();
    stage.partition(0, "1g.10gb", 0, Ready).await;
    assert_eq!(stage.truth(0).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_label_nothing_is_switched_made_or_destroyed() {
    let stage = Stage::new("H100-80GB×2", None).await;
    stage.fake.set_mig(1, true).unwrap();
    stage.fake.make(1, "2g.20gb", 0, true).unwrap();
    let _agent = stage.agent();
    // What is there can be used.
    let there = stage.partition(1, "2g.20gb", 0, Ready).await;
    assert_eq!(stage.kubelet.healthy("nvidia.com/mig-2g.20gb"), [there.uuid.as_str()]);
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None)]), stage.mig(1, &[])])).await;
    for gpu in [0, 1] {
        let gpu = stage.gpu(gpu, "it says why it is not so", |gpu| !gpu.message.is_empty()).await;
        says(&gpu.message, &["cut by MIG", "the node's label partita.dev/partitioning does not allow", "mig or auto"]);
    }
    let turns = [(500, "p", "partita.dev/gpu"), (500, "q", "partita.dev/gpu")];
    stage.layout(1, 2, json!([stage.shares(0, &turns)])).await;
    let gpu = stage.gpu(0, "it says why it is not shared", |gpu| gpu.message.contains("in turn")).await;
    says(&gpu.message, &["time-slicing or auto"]);
    assert!(stage.kubelet.healthy("partita.dev/gpu").is_empty());
    let state = stage.fake.state().unwrap();
    assert!(!state.gpus[0].mig && state.gpus[1].mig && state.gpus[1].instances.len() == 1);
    // With the label the same layout becomes true.
    stage.label(Some("auto")).await;
    stage.kubelet.until("it is shared in turn", |kubelet| kubelet.healthy("partita.dev/gpu").len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_mig_manager_is_lived_with() {
    let stage = Stage::new("H100-80GB", Some("mig")).await;
    stage.fake.set_mig(0, true).unwrap();
    let _agent = stage.agent();
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)])])).await;
    let before = stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    let pod = stage.kubelet.admit(&Pod::new("p", "nvidia.com/mig-1g.10gb")).await.unwrap().devices.remove(0);
    // It destroys what nobody uses, and makes something of its own.
    let is_free = |one: &nvidia_ml::machine::Instance| one.compute.iter().all(|compute| compute.uuid != pod);
    stage.fake.edit(|state| state.gpus[0].instances.retain(|one| !is_free(one))).unwrap();
    stage.fake.make(0, "2g.20gb", 4, true).unwrap();
    let lost = usize::from(pod == before[0]);
    let again = stage.gpu(0, "what it destroyed is made again", |gpu| {
        let there = |start| gpu.partitions.iter().any(|one| one.start == Some(start) && one.state == Ready && !before.contains(&one.uuid));
        there(lost as u8)
    });
    again.await;
    let foreign = stage.partition(0, "2g.20gb", 4, Destroying).await;
    says(&foreign.message, &["made by somebody else and is adopted", "until a later layout leaves it out"]);
    assert!(stage.truth(0).iter().any(|one| one.2 == [pod.clone()]), "what the pod uses was touched");
    assert_eq!(stage.truth(0).len(), 3);
    // A layout that knows of it leaves it out.
    stage.layout(1, 2, json!([stage.mig(0, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)])])).await;
    stage.settled(0, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_gpus_are_told_and_those_of_programs_are_not() {
    let stage = Stage::new("H100-80GB×2", Some("auto")).await;
    stage.fake.set_mig(1, true).unwrap();
    let _agent = stage.agent();
    stage.layout(1, 1, json!([stage.mig(1, &[("1g.10gb", 0, None), ("1g.10gb", 1, None)])])).await;
    stage.settled(1, &[("1g.10gb", 0), ("1g.10gb", 1)]).await;
    stage.kubelet.until("the whole one is offered", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 1).await;
    let ill = stage.fake.state().unwrap().gpus[1].instances[0].clone();
    stage.fake.xid(0, 13, None).unwrap();
    stage.fake.xid(1, 94, Some(ill.id)).unwrap();
    let failed = stage.partition(1, "1g.10gb", ill.start, Failed).await;
    says(&failed.message, &["XID 94", "reset the GPU when it is idle"]);
    stage.kubelet.until("it is not given away", |kubelet| kubelet.healthy("nvidia.com/mig-1g.10gb").len() == 1).await;
    let status = stage.status().await;
    assert!(status.gpus.iter().all(|gpu| gpu.healthy), "an error of a program, or of one partition: {status:#?}");
    stage.fake.xid(0, 79, None).unwrap();
    let gpu = stage.gpu(0, "it is unhealthy", |gpu| !gpu.healthy).await;
    says(&gpu.message, &["XID 79: it fell off the bus: restart the node"]);
    stage.kubelet.until("it is not given away", |kubelet| kubelet.healthy("nvidia.com/gpu").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_keeps_its_index_whatever_happens_to_others() {
    let stage = Stage::new("H100-80GB×3", Some("auto")).await;
    let indices = |status: &partita_kube::crd::GpuNodeStatus| {
        status.gpus.iter().map(|gpu| (gpu.index, gpu.uuid.clone(), gpu.model.clone())).collect::<Vec<_>>()
    };
    let agent = stage.agent();
    let before = indices(&stage.until("all are told", |status| status.gpus.len() == 3).await);
    stage.layout(1, 1, json!([stage.mig(0, &[("1g.10gb", 0, None)])])).await;
    let used = stage.settled(0, &[("1g.10gb", 0)]).await;
    stage.kubelet.admit(&Pod::new("p", "nvidia.com/mig-1g.10gb")).await.unwrap();
    stage.fake.edit(|state| state.gpus[0].lost = true).unwrap();
    let lost = stage.gpu(0, "it is unhealthy", |gpu| !gpu.healthy).await;
    says(&lost.message, &["GPU_IS_LOST", "drain the node and restart it"]);
    assert!(lost.partitions.iter().all(|one| one.state == Failed && one.uuid == used[0]), "{lost:#?}");
    assert!(stage.kubelet.devices("nvidia.com/mig-1g.10gb").unwrap().contains_key(&used[0]), "its pod still has it");
    // An agent that never saw it alive.
    agent.kill();
    stage.fake.renumber().unwrap();
    let agent = stage.agent();
    let again = stage.until("another agent tells", |status| status.gpus.iter().filter(|gpu| gpu.healthy).count() == 2).await;
    assert_eq!(indices(&again), before);
    assert!(!again.gpus[0].healthy && again.gpus[0].memory_mib > 0, "{again:#?}");
    agent.kill();
    // One that was taken out, and came back.
    stage.fake.edit(|state| (state.gpus[0].lost, state.gpus[1].uuid) = (false, "GPU-new".to_owned())).unwrap();
    let _agent = stage.agent();
    let last = stage.until("the new one is told", |status| status.gpus.len() == 4).await;
    assert_eq!(indices(&last)[..3], before[..]);
    assert_eq!((last.gpus[3].uuid.as_str(), last.gpus[3].index), ("GPU-new", 3));
    says(&last.gpus[1].message, &["no longer lists it", "restart the node"]);
    let back = stage.gpu(0, "it is back", |gpu| gpu.healthy).await;
    assert_eq!(back.partitions[0].uuid, used[0]);
}
