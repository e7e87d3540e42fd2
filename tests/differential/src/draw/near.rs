//! What pods have to do with pods around them: affinity, anti-affinity, spreading.

use serde_json::{Value, json};

use super::{HOST, NAMESPACES, REGION, ZONE, selectors};
use crate::dice::{Dice, set};

/// Pods of some namespaces, and what is near.
pub(super) fn pod_term(dice: &mut Dice, own: &Value) -> Value {
    let mut term = json!({"topologyKey": dice.pick(&[HOST, HOST, ZONE, ZONE, "rack", REGION])});
    if let Some(mut selector) = selectors::of_pods(dice) {
        if dice.chance(1, 5) {
            let keys = dice.several(&["tier", "version"], 1, 2);
            let (list, operator) = if dice.chance(1, 2) { ("matchLabelKeys", "In") } else { ("mismatchLabelKeys", "NotIn") };
            selectors::like_own(&mut selector, &keys, operator, own);
            set(&mut term, list, keys);
        }
        set(&mut term, "labelSelector", selector);
    }
    if dice.chance(1, 3) {
        set(&mut term, "namespaces", dice.several(&NAMESPACES, 1, 2));
    }
    if dice.chance(1, 3) {
        set(&mut term, "namespaceSelector", selectors::of_namespaces(dice));
    }
    term
}

/// Required terms, and now and then preferred ones, which must not decide anything.
pub(super) fn terms(dice: &mut Dice, own: &Value) -> Value {
    let most = dice.pick(&[1, 1, 2]);
    let mut terms = json!({});
    if dice.chance(11, 12) {
        set(&mut terms, "requiredDuringSchedulingIgnoredDuringExecution", dice.list(1, most, |dice| pod_term(dice, own)));
    }
    if dice.chance(1, 8) {
        let preferred = json!([{"weight": dice.number(1, 100), "podAffinityTerm": pod_term(dice, own)}]);
        set(&mut terms, "preferredDuringSchedulingIgnoredDuringExecution", preferred);
    }
    terms
}

/// How evenly a pod is spread.
pub(super) fn spread(dice: &mut Dice, own: &Value) -> Value {
    let mut spread = json!({
        "maxSkew": dice.pick(&[1, 1, 1, 2]),
        "topologyKey": dice.pick(&[HOST, HOST, ZONE, ZONE, "rack", REGION]),
        "whenUnsatisfiable": dice.pick(&["DoNotSchedule", "DoNotSchedule", "DoNotSchedule", "DoNotSchedule", "ScheduleAnyway"]),
    });
    let web = json!({"matchLabels": {"app": "web"}});
    if let Some(mut selector) = if dice.chance(2, 3) { Some(web) } else { selectors::of_pods(dice) } {
        if dice.chance(1, 5) {
            let keys = dice.several(&["tier", "version"], 1, 2);
            selectors::like_own(&mut selector, &keys, "In", own);
            set(&mut spread, "matchLabelKeys", keys);
        }
        set(&mut spread, "labelSelector", selector);
    }
    if spread["whenUnsatisfiable"] == "DoNotSchedule" && dice.chance(1, 3) {
        set(&mut spread, "minDomains", dice.number(2, 6));
    }
    if dice.chance(2, 3) {
        set(&mut spread, "nodeAffinityPolicy", dice.pick(&["Honor", "Ignore", "Ignore"]));
    }
    if dice.chance(2, 3) {
        set(&mut spread, "nodeTaintsPolicy", dice.pick(&["Honor", "Honor", "Ignore"]));
    }
    spread
}
