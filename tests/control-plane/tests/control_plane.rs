//! Real control planes: what runs, what survives, what is gone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{fs, net::TcpStream, path::Path, time::Duration};

use futures::TryStreamExt;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Node, Pod, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use partita_cluster::{ControlPlane, Error, NodeShape, Options, Program, User, nodes};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Asks until `found` says yes; a test that waits in vain fails.
async fn eventually(what: &str, found: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if found().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a minute passed, and not {what}");
}

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn start<const N: usize>(programs: [Program; N]) -> ControlPlane {
    ControlPlane::start(Options { programs: programs.into(), ..Options::default() }).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn remember(client: &Client, name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await.unwrap()
}

async fn is_remembered(client: &Client, name: &str) -> bool {
    Api::<ConfigMap>::default_namespaced(client.clone()).get_opt(name).await.unwrap().is_some()
}

fn pod(name: &str, node: Option<&str>) -> Pod {
    let spec = json!({ "nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{ "name": "main", "image": "image" }] });
    object(json!({ "metadata": { "name": name }, "spec": spec }))
}

async fn is_running(pods: &Api<Pod>, name: &str) -> bool {
    let pod = pods.get(name).await.unwrap();
    pod.status.and_then(|status| status.phase).as_deref() == Some("Running")
}

/// Processes whose command line mentions `folder`, as those of every program of a control plane do.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
    commands.filter(|command| command.contains(folder)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_one_takes_pods_and_is_gone_afterwards() {
    let cluster = start([]).await;
    let client = cluster.client();
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.git_version, format!("v{}", partita_cluster::KUBERNETES_VERSION));

    let made =
        nodes::create(&client, &NodeShape { cpu: "8".to_owned(), ..NodeShape::new("gpu", 40).with_gpus(nodes::GPU_MODELS[2], 8) }).await;
    let made = made.unwrap();
    assert_eq!(made.len(), 40);
    let node = Api::<Node>::all(client.clone()).get("gpu-39").await.unwrap();
    assert_eq!(node.labels()["nvidia.com/gpu.product"], "NVIDIA-A100-SXM4-80GB");
    let status = node.status.unwrap();
    let allocatable = status.allocatable.unwrap();
    assert_eq!([&allocatable["nvidia.com/gpu"].0, &allocatable["cpu"].0], ["8", "8"]);
    assert!(status.conditions.unwrap().iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
    assert_eq!(node.spec.unwrap().taints, None, "nobody would take a taint away again");
    // A pod is taken without a service account, since nobody makes those.
    Api::<Pod>::default_namespaced(client.clone()).create(&PostParams::default(), &pod("waits", None)).await.unwrap();

    let (folder, port) = (cluster.folder().to_owned(), cluster.url().rsplit_once(':').unwrap().1.parse().unwrap());
    assert_eq!(processes_of(&folder).len(), 2, "etcd and the API server");
    drop(cluster);
    assert_eq!(processes_of(&folder), Vec::<String>::new());
    assert!(!folder.exists() && TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_know_nothing_of_each_other() {
    let (one, other) = tokio::join!(start([Program::Kwok]), start([Program::Kwok]));
    remember(&one.client(), "note").await;
    assert!(is_remembered(&one.client(), "note").await && !is_remembered(&other.client(), "note").await);
    drop(one);
    assert!(!is_remembered(&other.client(), "note").await);
    // A kubeconfig of the one is no way into the other.
    assert!(other.process_id(Program::Kwok).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_program_can_be_started_again_and_nothing_is_forgotten() {
    let all = [Program::ControllerManager, Program::Scheduler, Program::Kwok];
    let options = Options { programs: all.into(), fsync: true, generous: true, ..Options::default() };
    let cluster = ControlPlane::start(options).await.unwrap();
    let client = cluster.client();
    nodes::create(&client, &NodeShape::new("node", 2)).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for (round, program) in Program::ALL.into_iter().enumerate() {
        let name = format!("note-{round}");
        remember(&client, &name).await;
        let before = cluster.process_id(program).unwrap();
        if round % 2 == 0 {
            cluster.kill(program).unwrap();
            assert!(matches!(cluster.stop(program).await, Err(Error::NotRunning { .. })));
            assert_eq!(cluster.process_id(program), None);
            cluster.start_again(program).await.unwrap();
        } else {
            cluster.restart(program).await.unwrap();
        }
        assert_ne!(cluster.process_id(program), Some(before));
        assert!(is_remembered(&client, &name).await, "{program}");
        // Everything works together again: the scheduler binds, KWOK runs, and the controllers made the service account.
        pods.create(&PostParams::default(), &pod(&name, None)).await.unwrap();
        eventually("a new pod ran", async || is_running(&pods, &name).await).await;
    }

    cluster.pause(Program::ApiServer).unwrap();
    let waiting = tokio::spawn(async move { client.apiserver_version().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "who stands still answers nothing");
    cluster.resume(Program::ApiServer).unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_forgotten_versions_is_refused() {
    let cluster = start([]).await;
    let old = remember(&cluster.client(), "first").await.resource_version().unwrap();
    let newer = remember(&cluster.client(), "second").await.resource_version().unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let first = async |version: &str| {
        let parameters = WatchParams::default().timeout(10);
        Box::pin(maps.watch(&parameters, version).await.unwrap()).try_next().await.unwrap()
    };
    assert!(matches!(first(&old).await, Some(WatchEvent::Added(map)) if map.name_any() == "second"));

    let page = maps.list(&ListParams::default().limit(1)).await.unwrap().metadata.continue_.unwrap();
    remember(&cluster.client(), "third").await;
    assert!(cluster.compact().await.unwrap() >= newer.parse().unwrap());
    // The API server still knows what changed.
    assert!(matches!(first(&old).await, Some(WatchEvent::Added(map)) if map.name_any() == "second"));

    cluster.forget_history().await.unwrap();
    let refused = first(&old).await;
    assert!(matches!(&refused, Some(WatchEvent::Error(status)) if status.code == 410), "{refused:?}");
    let refused = maps.list(&ListParams::default().limit(1).continue_token(&page)).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 410), "{refused}");
    assert!(is_remembered(&cluster.client(), "third").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_and_kwok_give_pods_a_life() {
    let cluster = start([Program::ControllerManager, Program::Kwok]).await;
    let client = cluster.client();
    let made = nodes::create(&client, &NodeShape::new("node", 1)).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &pod("bound", Some("node-0"))).await.unwrap();
    eventually("the bound pod ran", async || is_running(&pods, "bound").await).await;
    pods.delete("bound", &DeleteParams::default()).await.unwrap();
    eventually("the deleted pod was gone", async || pods.get_opt("bound").await.unwrap().is_none()).await;

    let all: Api<Node> = Api::all(client.clone());
    assert!(made[0].spec.as_ref().unwrap().taints.is_some(), "a new node is tainted until it is seen to be ready");
    eventually("the node was seen", async || all.get("node-0").await.unwrap().spec.and_then(|spec| spec.taints).is_none()).await;

    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": pod("x", None).spec });
    let spec = json!({ "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": template });
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &object(json!({ "metadata": { "name": "web" }, "spec": spec }))).await.unwrap();
    let replicas = async || pods.list(&ListParams::default().labels("app=web")).await.unwrap().items;
    eventually("the deployment had its pods", async || replicas().await.len() == 3).await;
    assert!(replicas().await.iter().all(|pod| pod.spec.as_ref().unwrap().service_account_name.as_deref() == Some("default")));
    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    eventually("the garbage was collected", async || replicas().await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_may_do_what_their_roles_say() {
    let users = vec![User { name: "alice".to_owned(), groups: vec!["team-red".to_owned()] }];
    let cluster = ControlPlane::start(Options { users, ..Options::default() }).await.unwrap();
    let metadata = ObjectMeta { name: Some("robot".to_owned()), ..ObjectMeta::default() };
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client());
    accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() }).await.unwrap();

    // A role of our own: `view` and its like are gathered from others by a controller.
    let lists_pods = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }]);
    let roles: Api<Role> = Api::default_namespaced(cluster.client());
    roles.create(&PostParams::default(), &object(json!({ "metadata": { "name": "reader" }, "rules": lists_pods }))).await.unwrap();

    let robot = "system:serviceaccount:default:robot";
    let subjects =
        [("alice", json!({ "kind": "Group", "name": "team-red" })), (robot, json!({ "kind": "ServiceAccount", "name": "robot" }))];
    for (user, subject) in subjects {
        let pods: Api<Pod> = Api::default_namespaced(cluster.client_for(user).await.unwrap());
        let refused = pods.list(&ListParams::default()).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{user}: {refused}");
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" });
        let name = subject["name"].as_str().unwrap();
        let binding: RoleBinding = object(json!({ "metadata": { "name": name }, "roleRef": role, "subjects": [subject] }));
        let bindings: Api<RoleBinding> = Api::default_namespaced(cluster.client());
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        eventually("the role was known", async || pods.list(&ListParams::default()).await.is_ok()).await;
        let refused = pods.create(&PostParams::default(), &pod("mine", None)).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{user}: {refused}");
    }
    assert!(matches!(cluster.kubeconfig_for("bob").await, Err(Error::NoUser(name)) if name == "bob"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_start_says_why() {
    let flags = [(Program::ApiServer, vec!["--no-such-flag".to_owned()])].into();
    let error = ControlPlane::start(Options { flags, ..Options::default() }).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NotReady { program: Program::ApiServer, .. }), "{text}");
    assert!(text.contains("kube-apiserver ended") && text.contains("unknown flag: --no-such-flag"), "{text}");
}
