//! The command as people type it, and GPUs that do not exist.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
};

use partita_core::model::Cut;
use partita_fake_kubelet::Pod;
use partita_kube::crd::PartitionState::Ready;
use serde_json::json;

use crate::stage::{Stage, says, until};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    command.arg("agent").args(arguments).env_remove("NODE_NAME").env_remove("KUBECONFIG").env("HOME", "/nowhere");
    command.output().unwrap()
}

#[test]
fn what_is_typed_wrong_is_answered_with_what_to_type() {
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (&[], 1, &["no Node is named", "--node or NODE_NAME", "kubectl get nodes"]),
        (&["--node", ""], 1, &["no Node is named"]),
        (&["--node", "n1", "--simulated", "Voodoo2×1"], 1, &["Voodoo2", "H100-80GB×4"]),
        (&["--node", "n1", "--simulated", "H100-80GB×0"], 1, &["1 to 64 GPUs"]),
        (&["--node", "n1", "--simulated", "H100-80GB", "--library", "x"], 2, &["cannot be used with '--library <FILE>'"]),
        (&["--node", "n1", "--no-cdi", "--cdi", "x"], 2, &["cannot be used with '--cdi <FOLDER>'"]),
        (&["--node", "n1", "--time-slice", "forever"], 2, &["default, short, medium, long"]),
        (&["--node", "n1", "--kubeconfig", "/nowhere/config"], 1, &["the kubeconfig /nowhere/config cannot be read"]),
        (&["--node", "n1"], 1, &["no cluster was found", "--kubeconfig"]),
    ];
    for (arguments, code, words) in cases {
        let output = run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{arguments:?}: {said}");
        says(&said, words);
    }
}

#[test]
fn help_says_what_to_begin_with() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    says(&said, &["partita agent --node gpu-1 --simulated H100-80GB×8", "inspect", "NODE_NAME", "/var/lib/kubelet/device-plugins"]);
    assert!(!said.contains("[default: \"\"]"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_that_do_not_exist_live_as_others_do() {
    let stage = Stage::new("T4", Some("auto")).await;
    let _agent = stage.agent_with(&["--simulated", "H100-80GB×2"], &[]);
    let status = stage.until("both are told", |status| status.gpus.len() == 2).await;
    assert!(status.gpus.iter().all(|gpu| gpu.healthy && gpu.model == "H100-80GB" && gpu.cut == Cut::Shares), "{status:#?}");
    let uuid = |gpu: usize| status.gpus[gpu].uuid.clone();
    stage.kubelet.until("both are offered", |kubelet| kubelet.healthy("nvidia.com/gpu").len() == 2).await;
    let pod = |name: &str| json!({ "namespace": "default", "name": name, "uid": name });
    let part = json!({ "profile": "1g.10gb", "start": 3, "pod": pod("p"), "resource": "nvidia.com/mig-1g.10gb" });
    let cut = json!({ "uuid": uuid(0), "index": 0, "cut": "mig", "partitions": [part] });
    let shared = json!({ "uuid": uuid(1), "index": 1, "cut": "mps", "partitions": [{ "memoryMiB": 8192 }] });
    stage.layout(1, 1, json!([cut, shared])).await;
    let is_so = |status: &partita_kube::crd::GpuNodeStatus| {
        let cuts: Vec<Cut> = status.gpus.iter().map(|gpu| gpu.cut).collect();
        let mut all = status.gpus.iter().flat_map(|gpu| &gpu.partitions);
        cuts == [Cut::Mig, Cut::Mps] && all.clone().count() == 2 && all.all(|one| one.state == Ready)
    };
    stage.until("both are as wanted", is_so).await;
    let admitted = stage.kubelet.admit(&Pod::new("p", "nvidia.com/mig-1g.10gb")).await.unwrap();
    assert!(stage.cdi()["devices"].as_array().unwrap().iter().any(|one| one["name"] == admitted.devices[0]));
    let admitted = stage.kubelet.admit(&Pod::new("q", "nvidia.com/gpu-8gb")).await.unwrap();
    assert_eq!(admitted.answer.envs["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"], "0=8192M");
    // The same words as those of GPUs that exist.
    stage.layout(1, 2, json!([])).await;
    let cut = json!({ "uuid": uuid(0), "index": 0, "cut": "mig", "partitions": [] });
    let whole = json!({ "uuid": uuid(1), "index": 1, "cut": "shares", "partitions": [] });
    stage.layout(1, 3, json!([cut, whole])).await;
    let kept =
        stage.until("who is in the way is told", |status| status.gpus.iter().all(|gpu| format!("{gpu:?}").contains("used by"))).await;
    says(&kept.gpus[0].partitions[0].message, &["1g.10gb at slot 3 is used by default/p; it stays until they have ended"]);
    says(&kept.gpus[1].message, &["the GPU is used by default/q; MPS is begun and ended when nobody uses it"]);
    for pod in ["p", "q"] {
        stage.kubelet.terminate("default", pod);
    }
    stage.until("nothing is left", |status| status.gpus[0].partitions.is_empty() && status.gpus[1].cut == Cut::Shares).await;
    stage.label(Some("off")).await;
    stage.reason("Restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_there_is_told_where_people_look() {
    let stage = Stage::new("H100-80GB", None).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = stage.agent_with(&["--node", "another", "--listen", &free.to_string()], &[]);
    let answer = until("it says so", async || {
        let mut stream = TcpStream::connect(free).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains("no Node").then_some(answer)
    });
    says(&answer.await, &["503", "no Node \"another\"", "kubectl get nodes", "--node or NODE_NAME"]);
    until("the log says so", async || agent.log().contains("no Node \"another\"").then_some(())).await;
}
