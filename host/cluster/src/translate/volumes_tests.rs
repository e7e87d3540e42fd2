//! Volumes of all states, and what they demand.

#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

use serde_json::{Value, json};

use super::*;

fn storage(claims: Vec<Value>, volumes: Vec<Value>, classes: Vec<Value>) -> Storage {
    let mut storage = Storage::default();
    for claim in claims {
        storage.insert_claim(serde_json::from_value(claim).unwrap());
    }
    for volume in volumes {
        storage.insert_volume(serde_json::from_value(volume).unwrap());
    }
    for class in classes {
        storage.insert_class(serde_json::from_value(class).unwrap());
    }
    storage
}

fn pod(claims: &[&str]) -> Pod {
    let volume = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let volumes: Vec<Value> = claims.iter().map(volume).collect();
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "pod"}, "spec": {"volumes": volumes}})).unwrap()
}

fn claim(name: &str, more: Value) -> Value {
    let mut claim = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "wait"}});
    merge(&mut claim, more);
    claim
}

fn volume(name: &str, host: Option<&str>, more: Value) -> Value {
    let mut volume = json!({"metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}, "storageClassName": "wait"}});
    if let Some(host) = host {
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]});
        merge(&mut volume, json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}));
    }
    merge(&mut volume, more);
    volume
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, more) => *into = more,
    }
}

fn class(provisioner: &str, mode: &str, topologies: Value) -> Value {
    json!({"metadata": {"name": "wait"}, "provisioner": provisioner, "volumeBindingMode": mode, "allowedTopologies": topologies})
}

fn local() -> Value {
    class(NO_PROVISIONER, "WaitForFirstConsumer", json!([]))
}

fn demands(claims: &[&str], storage: &Storage) -> Result<Demands, String> {
    of(&pod(claims), storage, &|_, _| None).map_err(|error| error.to_string())
}

/// The hosts that the groups allow.
fn hosts(demands: &Demands) -> Vec<String> {
    let label = |name: &str| [("kubernetes.io/hostname".to_owned(), name.to_owned())].into();
    let all = |name: &&str| demands.groups.iter().all(|group| group.iter().any(|term| matches_term(term, name, &label(name))));
    ["a", "b", "c"].iter().filter(|name| all(name)).map(ToString::to_string).collect()
}

#[test]
fn a_bound_claim_is_where_its_volume_is() {
    let bound = json!({"metadata": {"annotations": {BOUND: "yes"}}, "spec": {"volumeName": "v"}});
    let labels = json!({"metadata": {"labels": {OLD_ZONE[0]: "z1__z2"}}, "spec": {"csi": {"driver": "d"}}});
    let storage = storage(vec![claim("c", bound)], vec![volume("v", Some("a"), labels)], vec![]);
    let demands = demands(&["c", "c"], &storage).unwrap();
    let [host, zone] = &demands.groups[..] else { panic!("{demands:?}") };
    let with = |labels: &[(&str, &str)]| labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let meets = |group: &[NodeTerm], labels: &BTreeMap<String, String>| group.iter().any(|term| matches_term(term, "x", labels));
    assert!(meets(host, &with(&[("kubernetes.io/hostname", "a")])) && !meets(host, &with(&[("kubernetes.io/hostname", "b")])));
    for (labels, within) in [(&[(ZONE[0], "z2")][..], true), (&[(ZONE[0], "z3")], false), (&[], true), (&[(ZONE[1], "r")], false)] {
        assert_eq!(meets(zone, &with(labels)), within, "{labels:?}");
    }
    assert!(demands.attach.is_empty(), "no node has a limit");
    assert_eq!(choose(&pod(&["c"]), ("a", &BTreeMap::new()), &storage, &|_, _| None), Ok(vec![]));
}

#[test]
fn attached_volumes_count_where_a_driver_has_a_limit() {
    let bound = |name: &str| json!({"metadata": {"annotations": {BOUND: "yes"}}, "spec": {"volumeName": name}});
    let csi = || json!({"spec": {"csi": {"driver": "d"}}});
    let mut storage =
        storage(vec![claim("c", bound("v")), claim("e", bound("w"))], vec![volume("v", None, csi()), volume("w", None, csi())], vec![]);
    let drivers = json!({"metadata": {"name": "a"}, "spec": {"drivers": [{"name": "d", "allocatable": {"count": 8}}, {"name": "free"}]}});
    assert!(storage.insert_drivers(&serde_json::from_value(drivers.clone()).unwrap()));
    assert!(!storage.insert_drivers(&serde_json::from_value(drivers).unwrap()));
    let resource = format!("{}d", keys::ATTACH_PREFIX);
    assert_eq!(demands(&["c", "e"], &storage).unwrap().attach, [(resource.clone(), 2)].into());
    assert_eq!(storage.attachable("a"), [(resource.clone(), 8)]);
    assert_eq!(storage.attachable("b"), [(resource, u64::from(u32::MAX))]);
    assert!(storage.remove_drivers("a") && storage.attachable("a").is_empty());
}

#[test]
fn what_is_not_there_yet_is_waited_for() {
    let immediate = || vec![class("ebs", "Immediate", json!([]))];
    let bound = |volume: &str| json!({"metadata": {"annotations": {BOUND: "yes"}}, "spec": {"volumeName": volume}});
    for (claims, classes, words) in [
        (vec![], vec![], "claim c does not exist"),
        (vec![claim("c", json!({}))], vec![], "storage class wait, which does not exist"),
        (vec![claim("c", json!({}))], immediate(), "binds at once"),
        (vec![claim("c", json!({"spec": {"storageClassName": ""}}))], immediate(), "no storage class"),
        (vec![claim("c", json!({"spec": {"volumeName": "v"}}))], immediate(), "is being bound to volume v"),
        (vec![claim("c", bound("gone"))], immediate(), "volume gone, which does not exist"),
        (vec![claim("c", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))], immediate(), "is being deleted"),
        (vec![claim("c", json!({"status": {"phase": "Lost"}}))], immediate(), "has lost its volume"),
        (vec![claim("c", json!({}))], vec![local()], "no volume that is there would do"),
    ] {
        let error = demands(&["c"], &storage(claims, vec![], classes)).unwrap_err();
        assert!(error.starts_with("waits: ") && error.contains(words), "{error}");
    }
}

#[test]
fn a_claim_for_one_pod_waits_for_the_other() {
    let bound = json!({"metadata": {"annotations": {BOUND: "yes"}}, "spec": {"volumeName": "v", "accessModes": [ONE_POD]}});
    let storage = storage(vec![claim("c", bound)], vec![volume("v", None, json!({}))], vec![]);
    let other = |namespace: &str, claim: &str| (namespace == "n" && claim == "c").then(|| "pod q".to_owned());
    let error = of(&pod(&["c"]), &storage, &other).unwrap_err().to_string();
    assert_eq!(error, "waits: claim c allows one pod at a time, and pod q uses it");
    assert!(demands(&["c"], &storage).is_ok());
}

#[test]
fn a_volume_is_made_where_its_class_allows() {
    let topologies = json!([{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["a", "b"]}]}]);
    let dynamic = || vec![class("ebs", "WaitForFirstConsumer", topologies.clone())];
    let free = storage(vec![claim("c", json!({}))], vec![], dynamic());
    assert_eq!(hosts(&demands(&["c"], &free).unwrap()), ["a", "b"]);
    let host = [("kubernetes.io/hostname".to_owned(), "a".to_owned())].into();
    assert_eq!(choose(&pod(&["c"]), ("a", &host), &free, &|_, _| None), Ok(vec![Prebind::Node { claim: "c".into() }]));
    let selected = storage(vec![claim("c", json!({"metadata": {"annotations": {SELECTED_NODE: "b"}}}))], vec![], dynamic());
    assert_eq!(hosts(&demands(&["c"], &selected).unwrap()), ["b"]);
    let anywhere = storage(vec![claim("c", json!({}))], vec![], vec![class("ebs", "WaitForFirstConsumer", json!([]))]);
    assert_eq!(hosts(&demands(&["c"], &anywhere).unwrap()).len(), 3);
}

#[test]
fn a_volume_that_is_there_must_do_in_everything() {
    for (more, does) in [
        (json!({}), true),
        (json!({"spec": {"capacity": {"storage": "4Gi"}}}), false),
        (json!({"spec": {"accessModes": ["ReadOnlyMany"]}}), false),
        (json!({"spec": {"storageClassName": "other"}}), false),
        (json!({"spec": {"volumeMode": "Block"}}), false),
        (json!({"spec": {"volumeMode": "Filesystem"}}), true),
        (json!({"status": {"phase": "Released"}}), false),
        (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
        (json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}, "status": {"phase": "Available"}}), true),
        (json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "older"}}}), false),
        (json!({"spec": {"claimRef": {"namespace": "n", "name": "d"}}}), false),
    ] {
        let storage = storage(vec![claim("c", json!({}))], vec![volume("v", Some("b"), more.clone())], vec![local()]);
        assert_eq!(demands(&["c"], &storage).is_ok(), does, "{more}");
        if does {
            assert_eq!(hosts(&demands(&["c"], &storage).unwrap()), ["b"]);
        }
    }
    let labelled = |labels: Value| {
        let selector = json!({"spec": {"selector": {"matchLabels": {"tier": "fast"}}}});
        storage(vec![claim("c", selector)], vec![volume("v", None, json!({"metadata": {"labels": labels}}))], vec![local()])
    };
    assert!(demands(&["c"], &labelled(json!({"tier": "fast"}))).is_ok_and(|demands| demands.groups.is_empty()));
    assert!(demands(&["c"], &labelled(json!({}))).is_err());
}

#[test]
fn several_claims_need_several_volumes_of_one_place() {
    let small = || json!({"spec": {"capacity": {"storage": "5Gi"}}});
    let big = json!({"spec": {"resources": {"requests": {"storage": "8Gi"}}}});
    let volumes = vec![
        volume("a1", Some("a"), json!({})),
        volume("b1", Some("b"), json!({})),
        volume("b2", Some("b"), small()),
        volume("c1", Some("c"), small()),
        volume("c2", Some("c"), small()),
    ];
    let storage = storage(vec![claim("small", json!({})), claim("big", big)], volumes, vec![local()]);
    assert_eq!(hosts(&demands(&["small", "big"], &storage).unwrap()), ["b"]);
    assert_eq!(hosts(&demands(&["small"], &storage).unwrap()), ["a", "b", "c"]);
    // Whichever comes first, the smaller claim leaves the larger volume to the larger.
    for order in [["small", "big"], ["big", "small"]] {
        let host = [("kubernetes.io/hostname".to_owned(), "b".to_owned())].into();
        let mut chosen = choose(&pod(&order), ("b", &host), &storage, &|_, _| None).unwrap();
        chosen.sort_by_key(|one| format!("{one:?}"));
        let volume = |volume: &str, claim: &str| Prebind::Volume { volume: volume.into(), claim: claim.into() };
        assert_eq!(chosen, [volume("b1", "big"), volume("b2", "small")]);
        let host = [("kubernetes.io/hostname".to_owned(), "c".to_owned())].into();
        assert!(
            choose(&pod(&order), ("c", &host), &storage, &|_, _| None)
                .unwrap_err()
                .to_string()
                .contains("node c has no volume left for the claim big")
        );
    }
}

#[test]
fn claims_that_reach_their_volumes_in_several_ways() {
    let with =
        |key: &str, value: &str| json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]});
    let there = |name: &str, key: &str, value: &str| volume(name, None, json!({"spec": {"nodeAffinity": {"required": with(key, value)}}}));
    let volumes =
        vec![there("host-a", "kubernetes.io/hostname", "a"), there("host-b", "kubernetes.io/hostname", "b"), there("zone", "zone", "z")];
    let storage = storage(vec![claim("c", json!({})), claim("d", json!({}))], volumes, vec![local()]);
    let [group] = &demands(&["c", "d"], &storage).unwrap().groups[..] else { panic!() };
    for (host, zone, enough) in [("a", "z", true), ("b", "z", true), ("a", "y", false), ("c", "z", false)] {
        let labels = [("kubernetes.io/hostname".to_owned(), host.to_owned()), ("zone".to_owned(), zone.to_owned())].into();
        assert_eq!(group.iter().any(|term| matches_term(term, host, &labels)), enough, "{host} in {zone}: {group:?}");
        assert_eq!(choose(&pod(&["c", "d"]), (host, &labels), &storage, &|_, _| None).is_ok(), enough, "{host} in {zone}");
    }
    assert_eq!(group.len(), 2, "two hosts cannot be one: {group:?}");
}

#[test]
fn a_volume_that_is_there_is_taken_before_one_is_made() {
    let topologies = json!([{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["a"]}]}]);
    let class = || vec![class("ebs", "WaitForFirstConsumer", topologies.clone())];
    let storage = storage(vec![claim("c", json!({})), claim("d", json!({}))], vec![volume("v", Some("b"), json!({}))], class());
    assert_eq!(hosts(&demands(&["c"], &storage).unwrap()), ["a", "b"]);
    assert_eq!(hosts(&demands(&["c", "d"], &storage).unwrap()), ["a"]);
    let on = |host: &str| {
        let labels = [("kubernetes.io/hostname".to_owned(), host.to_owned())].into();
        choose(&pod(&["c"]), (host, &labels), &storage, &|_, _| None).unwrap()
    };
    assert_eq!(on("b"), [Prebind::Volume { volume: "v".into(), claim: "c".into() }]);
    assert_eq!(on("a"), [Prebind::Node { claim: "c".into() }]);
    let host = [("kubernetes.io/hostname".to_owned(), "b".to_owned())].into();
    assert!(choose(&pod(&["c", "d"]), ("b", &host), &storage, &|_, _| None).is_err(), "one has to be made, which cannot be there");
}

#[test]
fn a_volume_set_aside_is_the_only_one_for_its_claim() {
    let aside = json!({"metadata": {"labels": {}}, "spec": {"accessModes": ["ReadOnlyMany"], "claimRef": {"namespace": "n", "name": "c"}}});
    let volumes = vec![volume("aside", Some("b"), aside), volume("free", Some("a"), json!({}))];
    let storage = storage(vec![claim("c", json!({})), claim("d", json!({}))], volumes, vec![local()]);
    assert_eq!(hosts(&demands(&["c"], &storage).unwrap()), ["b"]);
    assert_eq!(hosts(&demands(&["d"], &storage).unwrap()), ["a"]);
    assert!(demands(&["c", "d"], &storage).is_err());
}

#[test]
fn what_is_promised_to_one_is_not_given_to_another() {
    let mut storage = storage(vec![claim("c", json!({})), claim("d", json!({}))], vec![volume("v", Some("b"), json!({}))], vec![local()]);
    let host = [("kubernetes.io/hostname".to_owned(), "b".to_owned())].into();
    let take = |claim: &str, storage: &Storage| choose(&pod(&[claim]), ("b", &host), storage, &|_, _| None);
    let chosen = take("c", &storage).unwrap();
    storage.promise_volume("v", "n/c".into(), "n/p");
    assert_eq!(take("c", &storage), Ok(chosen));
    assert!(take("d", &storage).is_err() && demands(&["d"], &storage).is_err());
    storage.release("n/other");
    assert!(take("d", &storage).is_err());
    storage.release("n/p");
    assert!(take("d", &storage).is_ok());

    let made = || vec![class("ebs", "WaitForFirstConsumer", json!([]))];
    let mut storage = super::tests::storage(vec![claim("c", json!({}))], vec![], made());
    storage.promise_node("n/c".into(), "b", "n/p");
    assert_eq!(hosts(&demands(&["c"], &storage).unwrap()), ["b"]);
    let elsewhere = choose(&pod(&["c"]), ("a", &BTreeMap::new()), &storage, &|_, _| None).unwrap_err().to_string();
    assert_eq!(elsewhere, "waits: the volume of claim c is being made for node b");
}

#[test]
fn classes_named_as_in_old_times() {
    let old =
        || json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "wait"}}, "spec": {"storageClassName": "new"}});
    let named = |more: Value| volume("v", Some("b"), more);
    for (claimed, there) in [(old(), json!({})), (json!({}), old()), (old(), old())] {
        let storage = storage(vec![claim("c", claimed)], vec![named(there)], vec![local()]);
        assert_eq!(hosts(&demands(&["c"], &storage).unwrap()), ["b"]);
    }
}

#[test]
fn at_fields_in_the_affinity_of_a_volume_nobody_looks() {
    for operator in ["In", "NotIn"] {
        let field = json!({"key": "metadata.name", "operator": operator, "values": ["a"]});
        let affinity = json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchFields": [field]}]}}}});
        let storage = storage(vec![claim("c", json!({}))], vec![volume("v", None, affinity)], vec![local()]);
        assert_eq!(hosts(&demands(&["c"], &storage).unwrap()), ["a", "b", "c"], "{operator}");
        assert!(choose(&pod(&["c"]), ("b", &BTreeMap::new()), &storage, &|_, _| None).is_ok(), "{operator}");
    }
}

#[test]
fn zones_by_their_old_and_new_names() {
    let bound = json!({"metadata": {"annotations": {BOUND: "yes"}}, "spec": {"volumeName": "v"}});
    let meets = |on_volume: &[(&str, &str)], on_node: &[(&str, &str)]| {
        let labels: serde_json::Map<_, _> = on_volume.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let storage = storage(vec![claim("c", bound.clone())], vec![volume("v", None, json!({"metadata": {"labels": labels}}))], vec![]);
        let labels = on_node.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let groups = demands(&["c"], &storage).unwrap().groups;
        groups.iter().all(|group| group.iter().any(|term| matches_term(term, "x", &labels)))
    };
    let (new, old) = (ZONE[0], OLD_ZONE[0]);
    // Whoever has only the new name is asked for it, but not the other way round.
    assert!(meets(&[(old, "z")], &[(new, "z")]) && !meets(&[(old, "z")], &[(new, "y")]) && !meets(&[(new, "z")], &[(old, "z")]));
    // The old name comes first, and both have to do.
    assert!(!meets(&[(old, "z")], &[(old, "y"), (new, "z")]));
    assert!(!meets(&[(old, "z"), (new, "y")], &[(new, "z")]) && meets(&[(old, "z__y"), (new, "y")], &[(new, "y")]));
    // What cannot be read says nothing.
    assert!(meets(&[(new, "z____y")], &[(new, "x")]));
}

#[test]
fn volumes_in_the_pod() {
    let of_volume = |inline: Value, claims: Vec<Value>| {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "pod"}, "spec": {"volumes": [inline]}});
        of(
            &serde_json::from_value(pod).unwrap(),
            &storage(claims, vec![volume("v", Some("a"), json!({"metadata": {"labels": {ZONE[0]: "z"}}}))], vec![local()]),
            &|_, _| None,
        )
    };
    assert!(of_volume(json!({"name": "v", "emptyDir": {}}), vec![]).is_ok());
    let inline = of_volume(json!({"name": "v", "rbd": {"image": "i"}}), vec![]).unwrap_err().to_string();
    assert!(inline.contains("as rbd; use a PersistentVolumeClaim"), "{inline}");
    let ephemeral = || json!({"name": "v", "ephemeral": {}});
    let owned = |uid: &str| {
        claim(
            "p-v",
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]}}),
        )
    };
    assert_eq!(hosts(&of_volume(ephemeral(), vec![owned("pod")]).unwrap()), ["a"]);
    // At the zone of a volume that the pod has for itself nobody looks.
    let mut bound = owned("pod");
    merge(&mut bound, json!({"metadata": {"annotations": {BOUND: "yes"}}, "spec": {"volumeName": "v"}}));
    assert_eq!(of_volume(ephemeral(), vec![bound]).unwrap().groups.len(), 1);
    assert!(of_volume(ephemeral(), vec![owned("other")]).unwrap_err().to_string().contains("belongs to somebody else"));
}

#[test]
fn the_search_for_volumes_ends() {
    let names: Vec<String> = (0..8).map(|row| format!("c{row}")).collect();
    let claims = || names.iter().map(|name| claim(name, json!({}))).collect::<Vec<_>>();
    let asks: Vec<&str> = names.iter().map(String::as_str).collect();
    // Any eight of these would do on a node that has eight of the labels: far too many sets to look at.
    let keyed = |row: usize| {
        let term = json!({"matchExpressions": [{"key": format!("k{row}"), "operator": "Exists"}]});
        volume(&format!("v{row}"), None, json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}))
    };
    let found = demands(&asks, &storage(claims(), (0..40).map(keyed).collect(), vec![local()])).unwrap();
    assert!((256..300).contains(&found.groups[0].len()), "{}", found.groups[0].len());
    let refused = demands(&asks, &storage(claims(), (0..7).map(keyed).collect(), vec![local()])).unwrap_err();
    assert!(refused.contains("no volume that is there would do"), "{refused}");
    // Eight on each of many hosts are found all the same, and are one term.
    let local_ones = (0..800).map(|row| volume(&format!("v{row}"), Some(&format!("h{}", row / 8)), json!({})));
    let found = demands(&asks, &storage(claims(), local_ones.collect(), vec![local()])).unwrap();
    assert_eq!((found.groups[0].len(), found.groups[0][0].labels[0].values.len()), (1, 100));
}
