//! What kube-scheduler's filters say of small clusters made by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use partita_cluster::{Case, Oracle};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A node in a zone with 4 processors, 8 GiB and 2 GPUs; `more` is laid over it.
fn node(name: &str, zone: &str, more: Value) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone } },
        "spec": {},
        "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "10", "nvidia.com/gpu": "2" } },
    });
    merge(&mut node, more);
    node
}

/// A pod of the application `web` that asks for one processor; `more` is laid over its specification.
fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({ "containers": [{ "name": "main", "image": "image", "resources": { "requests": { "cpu": "1" } } }] });
    merge(&mut spec, more);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
        "spec": spec,
    })
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn case(nodes: &[Value], pods: &[Value], asked: Value) -> Case {
    let nodes = nodes.iter().cloned().map(object).collect();
    Case { nodes, pods: pods.iter().cloned().map(object).collect(), pod: object(asked), ..Case::default() }
}

/// Asks, and checks the nodes that will do, and that the reason of the node `refused` has the words `because`.
fn expect(oracle: &mut Oracle, case: &Case, feasible: &[&str], refused: &str, because: &str) {
    let answer = oracle.ask(case).unwrap();
    assert_eq!(answer.feasible, feasible, "{answer:?}");
    assert!(answer.reasons[refused].iter().any(|reason| reason.contains(because)), "{answer:?} should say {because:?} of {refused}");
    assert_eq!(answer.feasible.len() + answer.reasons.len(), case.nodes.len(), "every node is feasible or has a reason: {answer:?}");
}

fn plain() -> [Value; 2] {
    [node("a", "east", json!({})), node("b", "west", json!({}))]
}

/// The containers of a pod that asks for `resources`.
fn asks(resources: &Value) -> Value {
    json!({ "containers": [{ "name": "main", "image": "image", "resources": { "requests": resources, "limits": resources } }] })
}

#[test]
fn taints_selectors_and_what_the_node_says_of_itself() {
    let mut oracle = Oracle::start().unwrap();
    let tainted = node("b", "west", json!({ "spec": { "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }] } }));
    let nodes = [node("a", "east", json!({})), tainted];
    expect(&mut oracle, &case(&nodes, &[], pod("p", json!({}))), &["a"], "b", "taint");
    let tolerant = pod("p", json!({ "tolerations": [{ "key": "gpu", "operator": "Exists" }] }));
    assert_eq!(oracle.ask(&case(&nodes, &[], tolerant)).unwrap().feasible, ["a", "b"]);

    let selective = pod("p", json!({ "nodeSelector": { "topology.kubernetes.io/zone": "west" } }));
    expect(&mut oracle, &case(&plain(), &[], selective), &["b"], "a", "affinity/selector");

    let terms = json!([{ "matchExpressions": [{ "key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["west"] }] }]);
    let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
    let picky = pod("p", json!({ "affinity": { "nodeAffinity": required } }));
    expect(&mut oracle, &case(&plain(), &[], picky), &["a"], "b", "affinity/selector");

    let cordoned = [node("a", "east", json!({ "spec": { "unschedulable": true } })), node("b", "west", json!({}))];
    expect(&mut oracle, &case(&cordoned, &[], pod("p", json!({}))), &["b"], "a", "unschedulable");
    let named = pod("p", json!({ "nodeName": "b" }));
    expect(&mut oracle, &case(&plain(), &[], named), &["b"], "a", "NodeName");
}

#[test]
fn resources_ports_and_room_for_pods() {
    let mut oracle = Oracle::start().unwrap();
    let [cpu, gpu] = [json!({ "cpu": "3500m" }), json!({ "cpu": "1", "nvidia.com/gpu": "2" })];
    let on = |name: &str, more: &Value| {
        let mut more = more.clone();
        merge(&mut more, json!({ "nodeName": "a" }));
        pod(name, more)
    };
    expect(&mut oracle, &case(&plain(), &[on("other", &asks(&cpu))], pod("p", json!({}))), &["b"], "a", "Insufficient cpu");
    let taken = [on("other", &asks(&json!({ "cpu": "1", "nvidia.com/gpu": "1" })))];
    expect(&mut oracle, &case(&plain(), &taken, pod("p", asks(&gpu))), &["b"], "a", "Insufficient nvidia.com/gpu");
    expect(&mut oracle, &case(&plain(), &[], pod("p", asks(&json!({ "cpu": "5" })))), &[], "b", "Insufficient cpu");

    let full = [node("a", "east", json!({ "status": { "allocatable": { "pods": "1" } } })), node("b", "west", json!({}))];
    expect(&mut oracle, &case(&full, &[on("other", &json!({}))], pod("p", json!({}))), &["b"], "a", "Too many pods");
    // One that has ended takes nothing.
    let mut ended = on("other", &asks(&cpu));
    merge(&mut ended, json!({ "status": { "phase": "Succeeded" } }));
    assert_eq!(oracle.ask(&case(&plain(), &[ended], pod("p", json!({})))).unwrap().feasible, ["a", "b"]);

    let port = json!({ "containers": [{ "name": "main", "image": "image", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
    expect(&mut oracle, &case(&plain(), &[on("other", &port)], pod("p", port.clone())), &["b"], "a", "free ports");
}

#[test]
fn neighbours_and_spread() {
    let mut oracle = Oracle::start().unwrap();
    let other = pod("other", json!({ "nodeName": "a" }));
    let zone = "topology.kubernetes.io/zone";
    let term = json!([{ "labelSelector": { "matchLabels": { "app": "web" } }, "topologyKey": zone }]);
    let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": term });

    let apart = pod("p", json!({ "affinity": { "podAntiAffinity": required } }));
    expect(&mut oracle, &case(&plain(), std::slice::from_ref(&other), apart), &["b"], "a", "anti-affinity");
    let together = pod("p", json!({ "affinity": { "podAffinity": required } }));
    expect(&mut oracle, &case(&plain(), std::slice::from_ref(&other), together), &["a"], "b", "affinity");
    // The other pod's wish to be alone counts as well.
    let loner = pod("other", json!({ "nodeName": "a", "affinity": { "podAntiAffinity": required } }));
    expect(&mut oracle, &case(&plain(), &[loner], pod("p", json!({}))), &["b"], "a", "existing pods anti-affinity");

    // A neighbour of another namespace, which a label of the namespace makes one.
    let term = json!([{
        "labelSelector": { "matchLabels": { "app": "web" } }, "namespaceSelector": { "matchLabels": { "team": "red" } }, "topologyKey": zone
    }]);
    let apart = pod("p", json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } } }));
    let mut foreign = other.clone();
    merge(&mut foreign, json!({ "metadata": { "namespace": "red" } }));
    let mut asked = case(&plain(), &[foreign], apart);
    assert_eq!(oracle.ask(&asked).unwrap().feasible, ["a", "b"]);
    asked.namespaces = vec![object(json!({ "metadata": { "name": "red", "labels": { "team": "red" } } }))];
    expect(&mut oracle, &asked, &["b"], "a", "anti-affinity");

    let spread = pod(
        "p",
        json!({ "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": zone, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } }
        }] }),
    );
    expect(&mut oracle, &case(&plain(), &[other], spread), &["b"], "a", "topology spread");
}

#[test]
fn volumes() {
    let mut oracle = Oracle::start().unwrap();
    let asked = pod("p", json!({ "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }] }));
    let mut asked = case(&plain(), &[], asked);
    expect(&mut oracle, &asked, &[], "a", "not found");

    let claim = json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": { "requests": { "storage": "1Gi" } } });
    asked.pvcs = vec![object(json!({ "metadata": { "name": "data", "namespace": "default", "uid": "1" }, "spec": claim }))];
    let class = json!({
        "metadata": { "name": "local" }, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"
    });
    asked.storage_classes = vec![object(class)];
    expect(&mut oracle, &asked, &[], "b", "persistent volumes to bind");

    let volume = |on: &str| {
        let expression = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [on] });
        object(json!({
            "metadata": { "name": format!("volume-on-{on}") },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "storageClassName": "local", "local": { "path": "/data" },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } },
            },
            "status": { "phase": "Available" },
        }))
    };
    asked.pvs = vec![volume("b")];
    expect(&mut oracle, &asked, &["b"], "a", "persistent volumes to bind");
    // Nothing of an earlier question is left.
    asked.pvs = vec![volume("a")];
    expect(&mut oracle, &asked, &["a"], "b", "persistent volumes to bind");
    asked.pvs = vec![];
    expect(&mut oracle, &asked, &[], "a", "persistent volumes to bind");
}

#[test]
fn what_cannot_be_answered_is_refused_and_the_next_question_is_answered() {
    let mut oracle = Oracle::start().unwrap();
    let error = oracle.ask(&case(&plain(), &[], pod("p", asks(&json!({ "cpu": "lots" }))))).unwrap_err().to_string();
    assert!(error.contains("quantities must match"), "{error}");
    assert_eq!(oracle.ask(&case(&plain(), &[], pod("p", json!({})))).unwrap().feasible, ["a", "b"]);
}
