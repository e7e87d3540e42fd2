//! What a real API server takes and refuses of partita's kinds of object.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use partita_cluster::{ControlPlane, Options, install_crds};
use partita_kube::crd::{self, CompositeElasticQuota, ElasticQuota, Policy, PolicyModule, PolicySelection};
use serde_json::{Value, json};

/// An object of one of partita's kinds with a name and a spec.
fn custom(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "partita.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// What the server says to an object that lies as its text does, not as partita's types would have it.
async fn says(client: &Client, kind: &str, spec: Value) -> Result<(), String> {
    let gvk = GroupVersionKind::gvk("partita.dev", "v1alpha1", kind);
    let plural = crd::all().into_iter().find(|one| one.spec.names.kind == kind).unwrap().spec.names.plural;
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    let api: Api<DynamicObject> = if kind == "ElasticQuota" {
        Api::namespaced_with(client.clone(), "default", &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    // Server-side apply, which also brings up the rules on changes.
    let params = PatchParams::apply("test").force();
    let object: DynamicObject = serde_json::from_value(custom(kind, "x", &spec)).unwrap();
    api.patch("x", &params, &Patch::Apply(&object)).await.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_refuses_what_makes_no_sense() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap_or_else(|error| panic!("{error}"));
    let client = cluster.client();
    install_crds(&client).await.unwrap();
    let pod = json!({"namespace": "a", "name": "b", "uid": "c"});
    let gpu = |index: u8, cut: &str, partitions: Value| json!({"uuid": format!("GPU-{index}"), "index": index, "cut": cut, "partitions": partitions});
    let layout = |term: i64, generation: i64, gpus: Value| json!({"term": term, "generation": generation, "plan": "p", "gpus": gpus});
    let longest = format!("{}.dev/{}", "a.".repeat(125).trim_end_matches('.'), "b".repeat(63));
    let named = |resource: &str| layout(3, 8, json!([gpu(0, "mps", json!([{"memoryMiB": 1, "pod": pod, "resource": resource}]))]));
    let good = json!([
        gpu(
            0,
            "mig",
            json!([{"profile": "1g.10gb", "start": 0}, {"profile": "1g.10gb", "start": 1, "pod": pod, "resource": "nvidia.com/mig-1g.10gb.me"}])
        ),
        gpu(1, "mps", json!([{"memoryMiB": 1024}])),
        gpu(2, "shares", json!([{"milli": 500, "pod": pod, "resource": longest}])),
    ]);
    let sha = "a".repeat(64);
    let module = |source: Value| json!({"sha256": sha, "size": 100, "source": source});
    let policy = |more: Value| {
        let mut spec = json!({"kind": "Quota", "module": {"bundled": "elastic"}, "settings": {"any": {"thing": [1]}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let digest = format!("registry.example/x@sha256:{sha}");
    let cases = [
        ("ElasticQuota", json!({"min": {"cpu": 2, "memory": "10Gi"}, "max": {"memory": "10Gi", "nvidia.com/gpu": 1}}), ""),
        ("ElasticQuota", json!({"min": {"memory": "10Gi"}, "max": {"memory": "10G"}}), "max must be at least min"),
        ("ElasticQuota", json!({"min": {"cpu": "2"}, "max": {"cpu": "1999m"}}), "max must be at least min"),
        ("ElasticQuota", json!({"min": {"cpu": "two"}}), "should match"),
        ("ElasticQuota", json!({"min": {"cpu": -1}}), "greater than or equal to 0"),
        ("ElasticQuota", json!({"min": {"cpu": "-1"}}), "should match"),
        ("ElasticQuota", json!({"min": {}, "weight": 0}), "greater than or equal to 1"),
        ("CompositeElasticQuota", json!({"namespaces": ["a", "b"], "parent": "org"}), ""),
        ("CompositeElasticQuota", json!({"namespaces": ["a", "a"]}), "uplicate"),
        ("CompositeElasticQuota", json!({"parent": "x"}), "cannot be its own parent"),
        ("GpuNode", layout(3, 7, good.clone()), ""),
        ("GpuNode", layout(3, 7, good.clone()), ""),
        ("GpuNode", layout(2, 8, good.clone()), "term must not decrease"),
        ("GpuNode", layout(3, 6, good), "generation must not decrease"),
        ("GpuNode", layout(3, 8, json!([gpu(0, "mig", json!([])), {"uuid": "GPU-0", "index": 1, "cut": "mig"}])), "uuid of its own"),
        ("GpuNode", layout(3, 8, json!([gpu(0, "mig", json!([])), {"uuid": "other", "index": 0, "cut": "mig"}])), "index of its own"),
        ("GpuNode", layout(3, 8, json!([gpu(64, "mig", json!([]))])), "less than or equal to 63"),
        ("GpuNode", layout(3, 8, json!([gpu(0, "MIG", json!([]))])), "supported values"),
        ("GpuNode", layout(3, 8, json!([gpu(0, "mig", json!([{"profile": "1g.10gb", "start": 16}]))])), "less than or equal to 15"),
        ("GpuNode", layout(3, 8, json!([gpu(0, "mig", json!([{"memoryMiB": 1}]))])), "has profile and start"),
        ("GpuNode", layout(3, 8, json!([gpu(0, "mps", json!([{"profile": "1g.10gb", "start": 1}]))])), "has memoryMiB"),
        ("GpuNode", layout(3, 8, json!([gpu(0, "shares", json!([{"milli": 500}]))])), "has milli and pod"),
        (
            "GpuNode",
            layout(3, 8, json!([gpu(0, "mps", json!([{"memoryMiB": 1, "resource": "nvidia.com/gpu"}]))])),
            "without pod there is none",
        ),
        ("GpuNode", named("gpu"), "should match"),
        ("GpuNode", named("nvidia.com/"), "should match"),
        ("GpuNode", named("Nvidia.com/gpu"), "should match"),
        ("GpuNode", named("nvidia.com/gpu+me"), "should match"),
        ("GpuNode", named("a/b/c"), "should match"),
        ("GpuNode", named(&format!("a.dev/{}", "b".repeat(64))), "should match"),
        ("GpuNode", layout(3, 8, (0..65).map(|index| gpu(index, "mig", json!([]))).collect()), "at most 64"),
        ("GpuNode", layout(4, 8, json!([])), ""),
        ("PolicyModule", module(json!({"inline": "AAAA", "oci": digest})), "in one way"),
        ("PolicyModule", module(json!({})), "in one way"),
        ("PolicyModule", module(json!({"oci": "registry.example/x:latest"})), "should match"),
        ("PolicyModule", module(json!({"oci": digest})), ""),
        ("PolicyModule", module(json!({"inline": "AAAA"})), "a module never changes"),
        ("Policy", policy(json!({"onFailure": {"fallback": "x"}})), "its own fallback"),
        ("Policy", policy(json!({"module": {}})), "name a PolicyModule or a bundled policy"),
        ("Policy", policy(json!({"module": {"name": "a", "bundled": "b"}})), "name a PolicyModule or a bundled policy"),
        ("Policy", policy(json!({"mode": "Canary"})), "canary goes with mode Canary"),
        ("Policy", policy(json!({"mode": "Canary", "canary": {}})), "for whom it counts"),
        ("Policy", policy(json!({})), ""),
        ("Policy", policy(json!({"kind": "Partitioner"})), "the kind of a policy never changes"),
        ("PolicySelection", json!({"namespaceSelector": {}}), "name a policy"),
        ("PolicySelection", json!({"namespaceSelector": {"matchLabels": {"a": "b"}}, "quota": "elastic"}), ""),
    ];
    for (kind, spec, words) in cases {
        let said = says(&client, kind, spec.clone()).await;
        match (&said, words) {
            (Ok(()), "") => {}
            (Err(error), words) if !words.is_empty() => assert!(error.contains(words), "{kind} {spec}: {error}"),
            _ => panic!("{kind} {spec}: {said:?}, expected {words:?}"),
        }
    }
    // What was taken reads back as it was written.
    let kept = Api::<Policy>::all(client.clone()).get("x").await.unwrap();
    assert_eq!(kept.spec.settings["any"], json!({"thing": [1]}));
    assert_eq!(Api::<ElasticQuota>::namespaced(client.clone(), "default").get("x").await.unwrap().spec.min["cpu"].0, "2");
    let listed = Api::<CompositeElasticQuota>::all(client.clone()).get("x").await.unwrap();
    assert_eq!(listed.spec.namespaces, ["a", "b"]);
    Api::<PolicyModule>::all(client.clone()).get("x").await.unwrap();
    Api::<PolicySelection>::all(client.clone()).get("x").await.unwrap();
}
