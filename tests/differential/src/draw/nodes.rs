//! Nodes.

use serde_json::{Value, json};

use super::{HOST, REGION, Themes, ZONE};
use crate::dice::{Dice, set};

pub(super) fn node(dice: &mut Dice, themes: Themes, name: &str) -> Value {
    let mut node =
        json!({"metadata": {"name": name, "labels": labels(dice, name)}, "spec": {}, "status": {"allocatable": allocatable(dice, themes)}});
    if themes.taints {
        let most = dice.pick(&[0, 0, 1, 2]);
        let taints = dice.list(0, most, taint);
        if !taints.is_empty() {
            set(&mut node["spec"], "taints", taints);
        }
        if dice.chance(1, 8) {
            set(&mut node["spec"], "unschedulable", true);
        }
    }
    node
}

/// Closes some of the last nodes, which are the emptiest, to whoever does not bear everything: whether those count decides how others are
/// spread.
pub(super) fn close_some(dice: &mut Dice, nodes: &mut [Value]) {
    let half = nodes.len() / 2;
    for node in &mut nodes[half..] {
        if dice.chance(1, 2) {
            set(&mut node["spec"], "taints", json!([{"key": "only", "value": "z", "effect": dice.pick(&["NoSchedule", "NoExecute"])}]));
        }
    }
}

fn labels(dice: &mut Dice, name: &str) -> Value {
    let mut labels = json!({});
    let mut maybe = |key: &str, some: u32, all: u32, values: &[&str]| {
        if dice.chance(some, all) {
            set(&mut labels, key, dice.pick(values));
        }
    };
    maybe(HOST, 19, 20, &[name]);
    maybe(ZONE, 9, 10, &["a", "a", "b", "b", "c"]);
    maybe(REGION, 2, 3, &["r", "r", "s"]);
    maybe("failure-domain.beta.kubernetes.io/zone", 1, 8, &["a", "b"]);
    maybe("rack", 4, 5, &["1", "1", "2", "3"]);
    maybe("disk", 2, 3, &["ssd", "hdd", ""]);
    maybe("arch", 1, 2, &["amd64", "arm64"]);
    maybe("slots", 3, 4, &["0", "3", "7", "12", "007", "-2", "many"]);
    labels
}

fn taint(dice: &mut Dice) -> Value {
    let effect = dice.pick(&["NoSchedule", "NoSchedule", "NoSchedule", "PreferNoSchedule", "NoExecute"]);
    let mut taint = json!({"key": dice.pick(&["team", "only", "node.kubernetes.io/unschedulable"]), "effect": effect});
    if dice.chance(3, 4) {
        set(&mut taint, "value", dice.pick(&["x", "y"]));
    }
    taint
}

fn allocatable(dice: &mut Dice, themes: Themes) -> Value {
    if !themes.amounts {
        let pods = dice.pick(&["110", "110", "110", "3"]);
        return json!({"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": pods});
    }
    let mut allocatable = json!({
        "cpu": dice.pick(&["4", "3500m", "8", "8", "2"]),
        "memory": dice.pick(&["4Gi", "8Gi", "6000Mi", "16Gi", "16Gi"]),
    });
    let mut maybe = |name: &str, some: u32, all: u32, values: &[&str]| {
        if dice.chance(some, all) {
            set(&mut allocatable, name, dice.pick(values));
        }
    };
    maybe("ephemeral-storage", 3, 4, &["10Gi", "40Gi", "12345678901"]);
    maybe("pods", 19, 20, &["110", "110", "110", "4", "2"]);
    maybe("example.com/fpga", 2, 3, &["1", "2", "4"]);
    maybe("hugepages-2Mi", 2, 3, &["64Mi", "0", "1Gi"]);
    allocatable
}
