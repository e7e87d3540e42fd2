//! GPUs that several pods have: in turn, by MPS, and partitions that are asked for by their least size.

use partita_core::model::Cut;
use partita_fake_kubelet::Pod;
use partita_kube::crd::{FoundGpu, PartitionState::Creating, PartitionState::Ready};
use serde_json::{Value, json};

use crate::{
    programs::Floor,
    stage::{Stage, says},
};

const FLOOR: &str = "partita.dev/gpu";

fn all_ready(gpu: &FoundGpu, cut: Cut, count: usize) -> bool {
    gpu.cut == cut && gpu.partitions.len() == count && gpu.partitions.iter().all(|one| one.state == Ready)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_have_one_gpu_in_turn() {
    let stage = Stage::new("H100-80GB×2", Some("time-slicing")).await;
    let floor = Floor::new();
    let _agent = floor.agent(&stage, &["--time-slice", "long"], &[]);
    stage.layout(1, 1, json!([stage.shares(0, &[(500, "p", FLOOR), (500, "q", FLOOR)])])).await;
    stage.gpu(0, "both shares are ready", |gpu| all_ready(gpu, Cut::Shares, 2)).await;
    assert_eq!(floor.fake.journal().unwrap(), [format!(" nvidia-smi compute-policy --set-timeslice=3 -i {}", stage.uuid(0))]);
    let mut given = Vec::new();
    for pod in ["p", "q"] {
        let admitted = stage.kubelet.admit(&Pod::new(pod, FLOOR)).await.unwrap();
        let device = &admitted.devices[0];
        says(device, &[&format!("{}::500m-", stage.uuid(0))]);
        assert_eq!(admitted.answer.envs["NVIDIA_VISIBLE_DEVICES"], "void");
        assert_eq!(admitted.answer.cdi_devices[0].name, format!("partita.dev/gpu={device}"));
        let cdi = stage.cdi();
        let devices = cdi["devices"].as_array().unwrap();
        let edits = &devices.iter().find(|one| one["name"] == **device).unwrap()["containerEdits"];
        assert_eq!(edits["env"], json!([format!("PARTITA_DEVICE={device}")]));
        assert!(admitted.answer.mounts.is_empty());
        given.push(device.clone());
    }
    assert_ne!(given[0], given[1]);
    assert!(stage.kubelet.admit(&Pod::new("r", FLOOR)).await.is_err(), "there were two shares");
    let named = |gpu: &FoundGpu| ["default/p", "default/q"].iter().all(|pod| gpu.partitions.iter().any(|one| one.users == [*pod]));
    stage.gpu(0, "both pods are named", named).await;
    // The other GPU is whole all the while; the shared one is again when both have ended.
    assert_eq!(stage.kubelet.healthy("nvidia.com/gpu"), [stage.uuid(1)]);
    stage.layout(1, 2, json!([stage.shares(0, &[])])).await;
    stage.kubelet.terminate("default", "p");
    stage.gpu(0, "one has ended", |gpu| gpu.partitions.len() == 1 && gpu.partitions[0].users == ["default/q"]).await;
    assert_eq!(stage.kubelet.healthy("nvidia.com/gpu"), [stage.uuid(1)], "one pod still has a share");
    stage.kubelet.terminate("default", "q");
    stage.kubelet.until("it is whole again", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cdi_a_container_gets_the_gpu_of_its_share() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let _agent = stage.agent_with(&["--no-cdi"], &[]);
    stage.layout(1, 1, json!([stage.shares(0, &[(250, "p", FLOOR)])])).await;
    stage.kubelet.until("the share is offered", |kubelet| kubelet.healthy(FLOOR).len() == 1).await;
    let admitted = stage.kubelet.admit(&Pod::new("p", FLOOR)).await.unwrap();
    assert_eq!(admitted.answer.envs["NVIDIA_VISIBLE_DEVICES"], stage.uuid(0));
    assert!(admitted.answer.cdi_devices.is_empty() && !stage.folder.path().join("cdi").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_kinds_under_one_name_the_second_comes_when_the_first_is_used() {
    let stage = Stage::new("H100-80GB", Some("auto")).await;
    let _agent = stage.agent();
    let part = |profile: &str, start: u8, pod: &str| {
        let pod = json!({ "namespace": "default", "name": pod, "uid": pod });
        json!({ "profile": profile, "start": start, "pod": pod, "resource": FLOOR })
    };
    let gpu = json!({ "uuid": stage.uuid(0), "index": 0, "cut": "mig", "partitions": [part("1g.10gb", 0, "small"), part("2g.20gb", 2, "large")] });
    stage.layout(1, 1, json!([gpu])).await;
    let one =
        stage.gpu(0, "the first is ready", |gpu| gpu.partitions.len() == 2 && gpu.partitions.iter().any(|one| one.state == Ready)).await;
    let (first, second): (Vec<_>, Vec<_>) = one.partitions.iter().partition(|one| one.state == Ready);
    assert_eq!((first.len(), second.len(), second[0].state), (1, 1, Creating));
    says(&second[0].message, &["when the pods before it have what they asked for under the same name"]);
    assert_eq!(stage.kubelet.healthy(FLOOR), [first[0].uuid.as_str()]);
    let admitted = stage.kubelet.admit(&Pod::new("small", FLOOR)).await.unwrap();
    assert_eq!(admitted.devices, [first[0].uuid.as_str()]);
    let next = stage.gpu(0, "the second is ready", |gpu| all_ready(gpu, Cut::Mig, 2)).await;
    assert!(next.partitions.iter().any(|one| one.uuid == first[0].uuid && one.users == ["default/small"]), "{next:#?}");
    let admitted = stage.kubelet.admit(&Pod::new("large", FLOOR)).await.unwrap();
    assert_eq!(admitted.devices, [second[0].uuid.as_str()]);
}

fn mps_of_pods(stage: &Stage) -> Value {
    let share = |mib: u32, name: &str, resource: &str| {
        let pod = json!({ "namespace": "default", "name": name, "uid": name });
        json!({ "memoryMiB": mib, "pod": pod, "resource": resource })
    };
    let partitions = [share(8192, "p", "nvidia.com/gpu-8gb"), share(20480, "q", "nvidia.com/gpu-20gb")];
    json!({ "uuid": stage.uuid(0), "index": 0, "cut": "mps", "partitions": partitions })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_have_one_gpu_by_mps() {
    let stage = Stage::new("H100-80GB", Some("mps")).await;
    let floor = Floor::new();
    let agent = floor.agent(&stage, &[], &[]);
    stage.layout(1, 1, json!([mps_of_pods(&stage)])).await;
    stage.gpu(0, "both shares are ready", |gpu| all_ready(gpu, Cut::Mps, 2)).await;
    let mode = || stage.fake.state().unwrap().gpus[0].compute_mode;
    assert_eq!((floor.running(), mode()), (1, 3));
    let pipe = stage.folder.path().join("mps").join(stage.uuid(0)).join("pipe");
    for (pod, resource, mib) in [("p", "nvidia.com/gpu-8gb", 8192), ("q", "nvidia.com/gpu-20gb", 20480)] {
        let admitted = stage.kubelet.admit(&Pod::new(pod, resource)).await.unwrap();
        assert_eq!(admitted.devices, [format!("{}::{mib}mib-0", stage.uuid(0))]);
        let envs = &admitted.answer.envs;
        assert_eq!(envs["CUDA_MPS_PIPE_DIRECTORY"], "/run/partita/mps");
        assert_eq!(envs["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"], format!("0={mib}M"));
        assert!(envs["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"].parse::<u32>().unwrap() <= 100);
        let mount = |at: &str| admitted.answer.mounts.iter().find(|mount| mount.container_path == at).map(|mount| mount.host_path.clone());
        assert_eq!(mount("/run/partita/mps").as_deref(), pipe.to_str(), "{:?}", admitted.answer.mounts);
    }
    // A layout that has it whole waits for both; so does an agent that is started anew.
    agent.kill();
    let _agent = floor.agent(&stage, &[], &[]);
    stage.layout(1, 2, json!([stage.shares(0, &[(1000, "w", "nvidia.com/gpu")])])).await;
    let waits = stage.gpu(0, "it says who is in the way", |gpu| gpu.partitions.iter().any(|one| one.milli == Some(1000))).await;
    let whole = waits.partitions.iter().find(|one| one.milli == Some(1000)).unwrap();
    assert_eq!(whole.state, Creating);
    says(&whole.message, &["default/p", "default/q"]);
    assert_eq!((floor.running(), mode()), (1, 3));
    for pod in ["p", "q"] {
        stage.kubelet.terminate("default", pod);
    }
    stage.gpu(0, "it is whole", |gpu| all_ready(gpu, Cut::Shares, 1)).await;
    assert_eq!((floor.running(), mode(), pipe.exists()), (0, 0, false));
    assert_eq!(stage.kubelet.healthy("nvidia.com/gpu"), [stage.uuid(0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mps_that_is_not_installed_is_told() {
    let stage = Stage::new("H100-80GB", Some("mps")).await;
    let _agent = stage.agent_with(&["--mps-control", "/nowhere/nvidia-cuda-mps-control"], &[]);
    stage.layout(1, 1, json!([stage.mps(0, &[8192])])).await;
    let gpu = stage.gpu(0, "it says why", |gpu| gpu.partitions.iter().any(|one| !one.message.is_empty())).await;
    says(&gpu.partitions[0].message, &["/nowhere/nvidia-cuda-mps-control"]);
    assert_eq!(stage.fake.state().unwrap().gpus[0].compute_mode, 0);
}
