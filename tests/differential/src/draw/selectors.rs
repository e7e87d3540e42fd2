//! Selectors of nodes and of pods, and tolerations.

use serde_json::{Value, json};

use super::{HOST, REGION, ZONE};
use crate::dice::{Dice, set};

/// A selector of nodes by equal labels.
pub(super) fn equal(dice: &mut Dice) -> Value {
    let mut selector = json!({});
    let most = if dice.chance(1, 6) { 2 } else { 1 };
    for key in dice.several(&[ZONE, "rack", "disk", "arch"], 1, most) {
        set(&mut selector, key, value_of(dice, key));
    }
    selector
}

fn value_of(dice: &mut Dice, key: &str) -> &'static str {
    match key {
        HOST => dice.pick(&["n0", "n0", "n0", "n1", "n2", "n3", "n5"]),
        ZONE => dice.pick(&["a", "a", "b", "c"]),
        REGION => dice.pick(&["r", "s"]),
        "rack" => dice.pick(&["1", "2", "3"]),
        "disk" => dice.pick(&["ssd", "hdd", ""]),
        _ => dice.pick(&["amd64", "arm64"]),
    }
}

/// What the API server takes for a required node affinity, or for that of a volume.
pub(super) fn node_selector(dice: &mut Dice) -> Value {
    json!({"nodeSelectorTerms": dice.list(1, 3, node_term)})
}

fn node_term(dice: &mut Dice) -> Value {
    let mut term = json!({});
    if dice.chance(9, 10) {
        let most = if dice.chance(1, 3) { 2 } else { 1 };
        set(&mut term, "matchExpressions", dice.list(1, most, node_requirement));
    }
    if dice.chance(1, 5) {
        let field = json!({"key": "metadata.name", "operator": dice.pick(&["In", "NotIn"]), "values": [value_of(dice, HOST)]});
        set(&mut term, "matchFields", json!([field]));
    }
    term
}

fn node_requirement(dice: &mut Dice) -> Value {
    let key = dice.pick(&[HOST, ZONE, ZONE, REGION, "rack", "disk", "arch", "slots", "slots"]);
    if key == "slots" && dice.chance(3, 4) {
        // A bound that is no number passes the API server, too; no node meets it.
        return json!({"key": key, "operator": dice.pick(&["Gt", "Lt"]), "values": [dice.pick(&["3", "3", "5", "5", "7", "-3", "few"])]});
    }
    match dice.pick(&["In", "In", "In", "Exists", "DoesNotExist"]) {
        "In" => some_of(dice, key, 4),
        operator => json!({"key": key, "operator": operator}),
    }
}

/// Some of the values of a label, or all but these.
pub(super) fn some_of(dice: &mut Dice, key: &str, most: u32) -> Value {
    let mut values: Vec<&str> = (0..dice.number(1, most)).map(|_| value_of(dice, key)).collect();
    values.dedup();
    json!({"key": key, "operator": dice.pick(&["In", "In", "NotIn"]), "values": values})
}

/// The labels of a pod.
pub(super) fn pod_labels(dice: &mut Dice) -> Value {
    let mut labels = json!({});
    for (key, values) in [("app", ["web", "web", "web", "db"]), ("tier", ["x", "y", "y", "y"]), ("version", ["1", "2", "2", "2"])] {
        if dice.chance(6, 7) {
            set(&mut labels, key, dice.pick(&values));
        }
    }
    labels
}

/// A selector of pods: none, one that is empty, equal labels, conditions, or both.
pub(super) fn of_pods(dice: &mut Dice) -> Option<Value> {
    let mut selector = json!({});
    match dice.number(0, 15) {
        0 => return None,
        1 => {}
        2..=10 => set(&mut selector, "matchLabels", json!({"app": dice.pick(&["web", "web", "web", "db"])})),
        11..=13 => set(&mut selector, "matchExpressions", dice.list(1, 2, pod_requirement)),
        _ => {
            set(&mut selector, "matchLabels", json!({"app": dice.pick(&["web", "db"])}));
            set(&mut selector, "matchExpressions", dice.list(1, 1, pod_requirement));
        }
    }
    Some(selector)
}

fn pod_requirement(dice: &mut Dice) -> Value {
    let key = dice.pick(&["app", "tier", "version", "absent"]);
    let values: &[&str] = match key {
        "app" => &["web", "db"],
        "tier" => &["x", "y"],
        _ => &["1", "2"],
    };
    match dice.pick(&["In", "In", "NotIn", "NotIn", "Exists", "DoesNotExist"]) {
        operator @ ("In" | "NotIn") => json!({"key": key, "operator": operator, "values": dice.several(values, 1, 2)}),
        operator => json!({"key": key, "operator": operator}),
    }
}

/// A selector of namespaces.
pub(super) fn of_namespaces(dice: &mut Dice) -> Value {
    match dice.number(0, 3) {
        0 => json!({}),
        1 | 2 => json!({"matchLabels": {"team": dice.pick(&["x", "y"])}}),
        _ => json!({"matchExpressions": [{"key": "team", "operator": dice.pick(&["Exists", "DoesNotExist"])}]}),
    }
}

/// Lets `selector` look at the pod's own labels, as the API server writes it down: the keys beside the selector, and what comes of them
/// in the selector.
pub(super) fn like_own(selector: &mut Value, keys: &[&str], operator: &str, own: &Value) {
    for key in keys {
        let Some(value) = own.get(*key) else { continue };
        let requirement = json!({"key": key, "operator": operator, "values": [value]});
        match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
            Some(list) => list.push(requirement),
            None => set(selector, "matchExpressions", json!([requirement])),
        }
    }
}

/// What a pod bears.
pub(super) fn toleration(dice: &mut Dice) -> Value {
    let mut toleration = json!({});
    let key = dice.pick(&["", "team", "team", "only", "only", "node.kubernetes.io/unschedulable"]);
    if !key.is_empty() {
        set(&mut toleration, "key", key);
    }
    if key.is_empty() || dice.chance(1, 2) {
        set(&mut toleration, "operator", "Exists");
    } else {
        if dice.chance(1, 2) {
            set(&mut toleration, "operator", "Equal");
        }
        if dice.chance(3, 4) {
            set(&mut toleration, "value", dice.pick(&["x", "y"]));
        }
    }
    if key.is_empty() || dice.chance(1, 2) {
        set(&mut toleration, "effect", dice.pick(&["NoSchedule", "NoSchedule", "PreferNoSchedule", "NoExecute"]));
    }
    toleration
}
