//! What pods say about where they run, each on the real API server.

use partita_cluster::Program;
use serde_json::{Value, json};

use crate::stage::{Stage, asks, merge, until};

/// What becomes of a pod.
enum End {
    /// It is bound to one of these.
    On(&'static [&'static str]),
    /// It waits, and is told this.
    Waits(&'static str),
}
use End::{On, Waits};

/// One rule: nodes `NAME-a`, `NAME-b`, … that only its pods may use, pods that come first, and the pod it is about.
struct Case {
    name: &'static str,
    /// Labels, spec and allocatable of each node.
    nodes: Vec<(Value, Value, Value)>,
    /// Metadata and spec of each pod that is there first.
    before: Vec<(Value, Value)>,
    pod: (Value, Value),
    end: End,
}

fn plain() -> (Value, Value, Value) {
    (json!({}), json!({}), json!({}))
}

fn labelled(labels: Value) -> (Value, Value, Value) {
    (labels, json!({}), json!({}))
}

fn tainted(effect: &str) -> (Value, Value, Value) {
    (json!({}), json!({ "taints": [{ "key": "gpu", "value": "a", "effect": effect }] }), json!({}))
}

fn having(allocatable: Value) -> (Value, Value, Value) {
    (json!({}), json!({}), allocatable)
}

fn node_affinity(key: &str, operator: &str, values: &[&str]) -> Value {
    let term = json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
    json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } } })
}

fn pod_affinity(kind: &str, app: &str, topology: &str) -> Value {
    let term = json!({ "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": topology });
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } })
}

fn port(port: u16) -> Value {
    json!({ "containers": [{ "name": "main", "image": "none", "ports": [{ "containerPort": port, "hostPort": port }] }] })
}

fn case(name: &'static str, nodes: Vec<(Value, Value, Value)>, pod: Value, end: End) -> Case {
    Case { name, nodes, before: Vec::new(), pod: (json!({}), pod), end }
}

fn app(app: &str) -> Value {
    json!({ "labels": { "app": app } })
}

fn cases() -> Vec<Case> {
    let zones = || vec![labelled(json!({ "zone": "one" })), labelled(json!({ "zone": "two" }))];
    let bears = |operator: &str, value: &str| json!({ "tolerations": [{ "key": "gpu", "operator": operator, "value": value, "effect": "NoSchedule" }] });
    let mut all = vec![
        case("selector", zones(), json!({ "nodeSelector": { "zone": "two" } }), On(&["selector-b"])),
        case("no-selector", zones(), json!({ "nodeSelector": { "zone": "three" } }), Waits("its labels are not those asked for")),
        case("in", zones(), node_affinity("zone", "In", &["two", "three"]), On(&["in-b"])),
        case("not-in", zones(), node_affinity("zone", "NotIn", &["one"]), On(&["not-in-b"])),
        case(
            "gt",
            vec![labelled(json!({ "size": "3" })), labelled(json!({ "size": "10" }))],
            node_affinity("size", "Gt", &["3"]),
            On(&["gt-b"]),
        ),
        case("taint", vec![tainted("NoSchedule")], json!({}), Waits("gpu=a:NoSchedule")),
        case("toleration", vec![tainted("NoSchedule")], bears("Equal", "a"), On(&["toleration-a"])),
        case("wrong-toleration", vec![tainted("NoSchedule")], bears("Equal", "b"), Waits("gpu=a:NoSchedule")),
        case("no-execute", vec![tainted("NoExecute"), plain()], json!({}), On(&["no-execute-b"])),
        case("shunned", vec![tainted("PreferNoSchedule"), plain()], json!({}), On(&["shunned-b"])),
        case("cordon", vec![(json!({}), json!({ "unschedulable": true }), json!({})), plain()], json!({}), On(&["cordon-b"])),
        case(
            "extended",
            vec![plain(), having(json!({ "example.com/card": "2" }))],
            asks(&json!({ "example.com/card": "2" })),
            On(&["extended-b"]),
        ),
        case(
            "no-extended",
            vec![having(json!({ "example.com/card": "2" }))],
            asks(&json!({ "example.com/card": "3" })),
            Waits("example.com/card"),
        ),
        case("cpu", vec![having(json!({ "cpu": "1" })), having(json!({ "cpu": "4" }))], asks(&json!({ "cpu": "3" })), On(&["cpu-b"])),
        case("memory", vec![having(json!({ "memory": "1Gi" }))], asks(&json!({ "memory": "2Gi" })), Waits("memory")),
        case(
            "ephemeral",
            vec![having(json!({ "ephemeral-storage": "1Gi" }))],
            asks(&json!({ "ephemeral-storage": "2Gi" })),
            Waits("ephemeral-storage"),
        ),
        case(
            "overhead",
            vec![having(json!({ "cpu": "1" })), having(json!({ "cpu": "2" }))],
            json!({ "runtimeClassName": "heavy" }),
            On(&["overhead-b"]),
        ),
        case(
            "claims",
            vec![plain()],
            json!({ "resourceClaims": [{ "name": "gpu", "resourceClaimName": "none" }] }),
            Waits("resource claims"),
        ),
    ];
    let container = |name: &str, cpu: &str| json!({ "name": name, "image": "none", "resources": { "requests": { "cpu": cpu } } });
    let mut sidecar = container("side", "2");
    merge(&mut sidecar, json!({ "restartPolicy": "Always" }));
    let small_and_large = || vec![having(json!({ "cpu": "3" })), having(json!({ "cpu": "5" }))];
    all.push(case(
        "sidecar",
        small_and_large(),
        json!({ "initContainers": [sidecar], "containers": [container("main", "2")] }),
        On(&["sidecar-b"]),
    ));
    all.push(case(
        "init",
        small_and_large(),
        json!({ "initContainers": [container("init", "4")], "containers": [container("main", "1")] }),
        On(&["init-b"]),
    ));
    all.push(Case { before: vec![(json!({}), port(8080))], ..case("port", vec![plain()], port(8080), Waits("port")) });
    all.push(Case {
        before: vec![(app("web"), json!({ "nodeSelector": { "zone": "two" } }))],
        ..case("near", zones(), pod_affinity("podAffinity", "web", "zone"), On(&["near-b"]))
    });
    all.push(case("near-nobody", zones(), pod_affinity("podAffinity", "nobody", "zone"), Waits("affinity")));
    all.push(Case {
        pod: (app("first"), pod_affinity("podAffinity", "first", "zone")),
        ..case("near-itself", zones(), json!({}), On(&["near-itself-a", "near-itself-b"]))
    });
    all.push(Case {
        before: vec![(app("loud"), json!({ "nodeSelector": { "zone": "one" } }))],
        ..case("apart", zones(), pod_affinity("podAntiAffinity", "loud", "zone"), On(&["apart-b"]))
    });
    let mut shy = pod_affinity("podAntiAffinity", "loud2", "zone");
    merge(&mut shy, json!({ "nodeSelector": { "zone": "one" } }));
    all.push(Case {
        before: vec![(json!({}), shy)],
        pod: (app("loud2"), json!({})),
        ..case("apart-theirs", zones(), json!({}), On(&["apart-theirs-b"]))
    });
    let spread = json!({ "topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "wide" } },
    }] });
    all.push(Case {
        before: vec![(app("wide"), json!({ "nodeSelector": { "zone": "one" } }))],
        pod: (app("wide"), spread),
        ..case("spread", zones(), json!({}), On(&["spread-b"]))
    });
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_where_it_may_and_is_told_why_it_does_not() {
    let stage = Stage::with(&[]).await;
    let heavy = json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "heavy" }, "handler": "heavy", "overhead": { "podFixed": { "cpu": "1500m" } } });
    let heavy: k8s_openapi::api::node::v1::RuntimeClass = serde_json::from_value(heavy).unwrap();
    kube::Api::all(stage.client.clone()).create(&kube::api::PostParams::default(), &heavy).await.unwrap();
    let _scheduler = stage.scheduler();
    let cases = cases();
    let checks = cases.iter().map(|case| check(&stage, case));
    futures::future::join_all(checks).await;
}

async fn check(stage: &Stage, case: &Case) {
    let Case { name, nodes, before, pod: (meta, spec), end } = case;
    stage.namespace(name).await;
    for (letter, (labels, node, allocatable)) in ('a'..).zip(nodes) {
        let mut own = json!({ "case": name });
        merge(&mut own, labels.clone());
        stage.node(&format!("{name}-{letter}"), own, node.clone(), allocatable.clone()).await;
    }
    // Every pod keeps to the nodes of its case.
    let own = |spec: &Value| {
        let mut spec = spec.clone();
        merge(&mut spec, json!({ "nodeSelector": { "case": name } }));
        spec
    };
    for (row, (meta, spec)) in before.iter().enumerate() {
        let pod = format!("before-{row}");
        stage.pod(name, &pod, meta.clone(), own(spec)).await;
        stage.bound(name, &pod).await;
    }
    stage.pod(name, "pod", meta.clone(), own(spec)).await;
    match end {
        On(nodes) => {
            let on = stage.bound(name, "pod").await;
            assert!(nodes.contains(&on.as_str()), "{name}: it is on {on}, not on {nodes:?}");
        }
        Waits(words) => {
            stage.told(name, "pod", words).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_hold_a_pod_back_and_reasons_are_told_once() {
    let stage = Stage::with(&[]).await;
    let _scheduler = stage.scheduler();
    stage.node("one", json!({}), json!({}), json!({})).await;
    stage.pod("default", "gated", json!({}), json!({ "schedulingGates": [{ "name": "example.com/wait" }] })).await;
    stage.pod("default", "free", json!({}), json!({})).await;
    assert_eq!(stage.bound("default", "free").await, "one");
    assert_eq!(stage.pods("default").get("gated").await.unwrap().spec.unwrap().node_name, None);
    let open = kube::api::Patch::Merge(json!({ "spec": { "schedulingGates": null } }));
    stage.pods("default").patch("gated", &kube::api::PatchParams::default(), &open).await.unwrap();
    assert_eq!(stage.bound("default", "gated").await, "one");

    stage.asking("default", "large", json!({ "cpu": "64" })).await;
    stage.told("default", "large", "cpu").await;
    let events =
        until("an event says so", async || Some(stage.events("default", "large", "FailedScheduling").await).filter(|all| !all.is_empty()))
            .await;
    assert_eq!(events.len(), 1);
    let (fine, text) = stage.partita(&["explain", "pod", "large"]);
    assert!(fine && text.contains("waits") && text.contains("cpu"), "{text}");
    let (fine, text) = stage.partita(&["explain", "pod", "default/free", "-o", "json"]);
    assert!(fine && text.contains(r#""node": "one""#), "{text}");
    let (fine, text) = stage.partita(&["explain", "pod", "nobody"]);
    assert!(!fine && text.contains("pod default/nobody cannot be read"), "{text}");

    // What was waited for comes.
    stage.node("two", json!({}), json!({}), json!({ "cpu": "96" })).await;
    assert_eq!(stage.bound("default", "large").await, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_higher_priority_evicts_the_fewest_and_respects_budgets() {
    let stage = Stage::with(&[Program::ControllerManager, Program::Kwok]).await;
    stage.priority("low", 1).await;
    stage.priority("high", 100).await;
    let _scheduler = stage.scheduler();
    stage.node("one", json!({}), json!({}), json!({ "cpu": "4" })).await;
    let asking = |cpu: &str, class: &str| {
        let mut spec = asks(&json!({ "cpu": cpu }));
        merge(&mut spec, json!({ "priorityClassName": class, "terminationGracePeriodSeconds": 1 }));
        spec
    };
    stage.pod("default", "kept", app("kept"), asking("2", "low")).await;
    stage.bound("default", "kept").await;
    let budget: k8s_openapi::api::policy::v1::PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "kept" }, "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "kept" } } },
    }))
    .unwrap();
    kube::Api::namespaced(stage.client.clone(), "default").create(&kube::api::PostParams::default(), &budget).await.unwrap();
    stage.pod("default", "loses", json!({}), asking("1500m", "low")).await;
    stage.bound("default", "loses").await;
    stage.pod("default", "wins", json!({}), asking("2", "high")).await;
    assert_eq!(stage.bound("default", "wins").await, "one");
    assert!(stage.pods("default").get_opt("loses").await.unwrap().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()));
    assert!(stage.pods("default").get("kept").await.unwrap().metadata.deletion_timestamp.is_none());
    // The budget allows nobody more to go.
    stage.pod("default", "waits", json!({}), asking("3", "high")).await;
    stage.told("default", "waits", "cpu").await;
    assert!(stage.pods("default").get("kept").await.unwrap().metadata.deletion_timestamp.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_decide_where_a_pod_runs() {
    let stage = Stage::with(&[Program::ControllerManager]).await;
    let _scheduler = stage.scheduler();
    stage.node("near", json!({}), json!({}), json!({})).await;
    stage.node("far", json!({}), json!({}), json!({})).await;
    stage.local_volumes("local").await;
    stage.claim("data", "local").await;
    let uses = |claim: &str| json!({ "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }] });
    stage.pod("default", "first", json!({}), uses("data")).await;
    stage.told("default", "first", "").await;
    stage.local_volume("disk", "local", "near").await;
    assert_eq!(stage.bound("default", "first").await, "near");
    // Now it is bound, and keeps the next pod there too.
    stage.pod("default", "second", json!({}), uses("data")).await;
    assert_eq!(stage.bound("default", "second").await, "near");
    stage.pod("default", "third", json!({}), uses("missing")).await;
    stage.told("default", "third", "claim missing does not exist").await;
}
