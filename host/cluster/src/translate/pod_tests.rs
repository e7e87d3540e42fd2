//! Whole pods.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn scene<R>(with: impl FnOnce(&Scene<'_>) -> R) -> R {
    with(&Scene { storage: &Storage::default(), budgets: &Budgets::default(), taken: &|_, _| None })
}

fn place(value: Value) -> Result<PodSpec, String> {
    scene(|scene| pending(&pod(value), scene)).map_err(|error| error.to_string())
}

fn with(annotations: &Value, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}, "annotations": annotations}});
    pod["spec"] = spec;
    pod
}

#[test]
fn a_pod_with_everything() {
    let spec = json!({
        "priority": -5, "preemptionPolicy": "Never", "nodeSelector": {"k": "v"},
        "containers": [{"name": "c", "resources": {"requests": {
            "cpu": "1500.5m", "memory": "1000001", "ephemeral-storage": "1.5", "example.com/fpga": "2", "nvidia.com/mig-1g.10gb": "1"}}}],
    });
    let annotations = json!({keys::RESTARTABLE: "true", keys::MIN_RUNTIME: "1h30m", keys::MODELS: "A100-80GB"});
    let expected = PodSpec {
        name: "p".into(),
        namespace: "n".into(),
        priority: -5,
        demand: Demand {
            cpu_milli: 1501,
            memory_mib: 1,
            gpu: GpuAsk::mig("1g.10gb"),
            models: vec!["A100-80GB".into()],
            extra: vec![("ephemeral-storage".into(), 2), ("example.com/fpga".into(), 2), ("pods".into(), 1)],
            constraints: Some(Box::new(Constraints { selector: vec![("k".into(), "v".into())], ..Constraints::default() })),
        },
        terms: Terms { restartable: true, min_runtime_ms: 5_400_000, budgets: Vec::new(), never_preempts: true },
        labels: [("a".to_owned(), "b".to_owned())].into(),
    };
    assert_eq!(place(with(&annotations, spec)), Ok(expected));
}

#[test]
fn a_pod_that_asks_for_nothing_still_takes_a_place() {
    let spec = place(with(&json!({}), json!({"containers": [{"name": "c"}]}))).unwrap();
    assert_eq!(spec.demand, Demand { extra: vec![("pods".into(), 1)], ..Demand::default() });
    assert_eq!(spec.terms, Terms::default());
}

#[test]
fn what_is_not_done_is_refused_and_what_is_not_there_is_waited_for() {
    for (annotations, spec, words) in [
        (json!({}), json!({"resourceClaims": [{"name": "gpu"}]}), "resource claims (gpu); ask for GPUs by a resource"),
        (json!({}), json!({"schedulingGroup": {"podGroupName": "g"}}), "together with a group"),
        (json!({}), json!({"workloadRef": {"name": "w"}}), "together with a group"),
        (json!({}), json!({"schedulingGates": [{"name": "a"}, {"name": "b"}]}), "waits: its scheduling gates a, b are not removed yet"),
        (json!({}), json!({"preemptionPolicy": "Sometimes"}), "preemptionPolicy is \"Sometimes\""),
        (json!({keys::RESTARTABLE: "yes"}), json!({}), "partita.dev/restartable is \"yes\"; write true or false"),
        (json!({keys::MIN_RUNTIME: "soon"}), json!({}), "is \"soon\"; write a duration"),
        (json!({keys::MIN_RUNTIME: "25h"}), json!({}), "is \"25h\"; write 24h or less"),
        (json!({keys::MIN_RUNTIME: "-1s"}), json!({}), "is \"-1s\"; write a duration"),
        (json!({keys::MIN_RUNTIME: "99999999999999999h"}), json!({}), "write a duration"),
        (json!({}), json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1e15"}}}]}), "of cpu, more than any node has"),
        (
            json!({}),
            json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1E"}}}]}),
            "of memory, more than any node has",
        ),
        (
            json!({}),
            json!({"containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "65"}}}]}),
            "asks for 65 GPUs on one node",
        ),
        (json!({}), json!({"containers": 7}), "its spec cannot be read"),
        (json!({}), json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}), "waits: claim c does not exist"),
    ] {
        let error = place(with(&annotations, spec)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_pod_that_runs_is_booked_whatever_it_says() {
    let spec = json!({
        "nodeName": "x", "resourceClaims": [{"name": "gpu"}], "schedulingGates": [], "tolerations": [{"key": "k", "operator": "Near"}],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "0.5"}}, "ports": [{"hostPort": 80}]}],
    });
    let (booked, odd) = scene(|scene| running(&pod(with(&json!({keys::RESTARTABLE: "true"}), spec)), scene));
    assert_eq!((booked.demand.cpu_milli, &booked.demand.gpu, booked.terms.restartable), (2000, &GpuAsk::None, false));
    let odd: Vec<String> = odd.iter().map(ToString::to_string).collect();
    assert_eq!(odd.len(), 3, "{odd:?}");
    let (booked, odd) = scene(|scene| running(&pod(json!({"metadata": {"name": "p"}, "spec": 3})), scene));
    assert_eq!((booked.demand.extra, odd.len()), (vec![("pods".to_owned(), 1)], 1));
}

#[test]
fn a_pod_that_is_understood_may_be_moved() {
    let spec = json!({"nodeName": "x", "containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "1"}}, "ports": [{"hostPort": 80}]}]});
    let (booked, odd) = scene(|scene| running(&pod(with(&json!({keys::RESTARTABLE: "true"}), spec)), scene));
    assert_eq!((booked.terms.restartable, odd), (true, vec![]));
    assert_eq!((booked.demand.gpu, booked.demand.constraints.unwrap().ports.len()), (GpuAsk::whole(1), 1));
}

/// Any JSON, with the keys and words of pods more often than chance would have it.
fn anything() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "cpu",
        "memory",
        "nvidia.com/gpu",
        "partita.dev/gpu",
        "nvidia.com/mig-1g.10gb",
        "nvidia.com/gpu-10gb",
        "1",
        "500m",
        "-3",
        "1e999",
        "In",
        "Exists",
        "Always",
        "Honor",
        "DoNotSchedule",
        "NoSchedule",
        "k",
        "",
        "kubernetes.io/hostname",
        "10Gi",
        "true",
        "ReadWriteOncePod",
    ]);
    let text = prop_oneof![4 => words.prop_map(str::to_owned), 1 => ".{0,20}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..70_000).prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    let keys = prop::sample::select(vec![
        "containers",
        "initContainers",
        "resources",
        "requests",
        "name",
        "ports",
        "hostPort",
        "restartPolicy",
        "affinity",
        "nodeAffinity",
        "podAffinity",
        "podAntiAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
        "matchExpressions",
        "matchLabels",
        "labelSelector",
        "key",
        "operator",
        "values",
        "weight",
        "topologyKey",
        "tolerations",
        "effect",
        "value",
        "cpu",
        "memory",
        "nvidia.com/gpu",
        "partita.dev/gpu",
        "volumes",
        "persistentVolumeClaim",
        "claimName",
        "ephemeral",
        "topologySpreadConstraints",
        "maxSkew",
        "whenUnsatisfiable",
        "minDomains",
        "overhead",
        "priority",
        "nodeSelector",
        "conditions",
        "containerStatuses",
        "allocatedResources",
        "k",
    ]);
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    })
}

/// A spec whose parts are each of the right form more often than not, so that translation gets beyond decoding.
fn spec() -> impl Strategy<Value = Value> {
    let quantity = prop_oneof![Just("1"), Just("500m"), Just("1e30"), Just("x"), Just("70")].prop_map(Value::from);
    let resource = prop::sample::select(vec![
        "cpu",
        "memory",
        "nvidia.com/gpu",
        "partita.dev/gpu",
        "nvidia.com/mig-1g.10gb",
        "nvidia.com/gpu-99999999gb",
        "x.io/y",
    ]);
    let container = (prop::collection::btree_map(resource, quantity, 0..4), prop::option::of(-1i64..70_000), any::<bool>()).prop_map(|(requests, port, always)| {
        json!({"name": "c", "resources": {"requests": requests}, "ports": port.map(|port| json!({"hostPort": port, "containerPort": port})).into_iter().collect::<Vec<_>>(),
            "restartPolicy": always.then_some("Always")})
    });
    let containers = prop::collection::vec(container, 0..3).prop_map(Value::from);
    (containers.clone(), containers, anything(), anything(), anything(), prop::sample::select(vec!["affinity", "tolerations", "volumes", "overhead", "resources"])).prop_map(
        |(containers, init, affinity, spread, other, key)| {
            let mut spec = json!({"containers": containers, "initContainers": init, "affinity": {"nodeAffinity": affinity}, "topologySpreadConstraints": [spread]});
            spec[key] = other;
            spec
        },
    )
}

proptest! {
    #[test]
    fn no_pod_makes_it_panic(spec in prop_oneof![anything(), spec()], status in anything(), memory in ".{0,12}", compute in any::<u8>()) {
        let mut value = with(&json!({keys::MEMORY: memory, keys::COMPUTE: compute.to_string()}), spec);
        value["status"] = status;
        let pod = pod(value);
        scene(|scene| {
            drop(pending(&pod, scene));
            let (booked, _) = running(&pod, scene);
            assert!(booked.demand.validated().is_ok());
        });
    }
}
