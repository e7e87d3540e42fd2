//! Selectors of nodes and pods, and whether a node meets a term.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NodeSelectorTerm, TopologySelectorTerm},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use partita_core::model::constraints::{NodeTerm, Operator, Requirement};

use super::{Unsupported, quote};

/// The one field of nodes by which a term can choose.
const NODE_NAME: &str = "metadata.name";

/// One condition, as the API writes it. A bound that is no number passes the API server, and is met by no node.
pub(super) fn requirement(key: &str, operator: &str, values: &[String], whose: &str) -> Result<Requirement, Unsupported> {
    let what = || format!("{whose} compares {} by {} with {}", quote(key), quote(operator), quote(&values.join(", ")));
    let wrong = |remedy: &str| Unsupported::new(what(), remedy);
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return Err(wrong("use In, NotIn, Exists, DoesNotExist, Gt or Lt")),
    };
    match (operator, values) {
        (Operator::In | Operator::NotIn, []) => return Err(wrong("name at least one value")),
        (Operator::Exists | Operator::DoesNotExist, [_, ..]) => return Err(wrong("leave the values out")),
        (Operator::Gt | Operator::Lt, [_]) => {}
        (Operator::Gt | Operator::Lt, _) => return Err(wrong("name one whole number")),
        _ => {}
    }
    let mut values = values.to_vec();
    values.sort_unstable();
    values.dedup();
    Ok(Requirement { key: key.into(), operator, values })
}

/// The conditions of a selector of labels, sorted; an empty selector has none, and means everything.
pub(super) fn labels(selector: &LabelSelector, whose: &str) -> Result<Vec<Requirement>, Unsupported> {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| Ok(is(key, value)));
    let more = selector.match_expressions.iter().flatten().map(|one| {
        if matches!(one.operator.as_str(), "Gt" | "Lt") {
            return Err(Unsupported::new(
                format!("{whose} compares {} by {}", quote(&one.key), quote(&one.operator)),
                "use In, NotIn, Exists or DoesNotExist",
            ));
        }
        requirement(&one.key, &one.operator, one.values.as_deref().unwrap_or_default(), whose)
    });
    let mut all = equal.chain(more).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// That a label has a value.
pub(super) fn is(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In, values: vec![value.into()] }
}

/// A term of a node selector.
pub(super) fn node_term(term: &NodeSelectorTerm, whose: &str) -> Result<NodeTerm, Unsupported> {
    let read = |list: Option<&Vec<k8s_openapi::api::core::v1::NodeSelectorRequirement>>| {
        let each =
            list.into_iter().flatten().map(|one| requirement(&one.key, &one.operator, one.values.as_deref().unwrap_or_default(), whose));
        each.collect::<Result<Vec<_>, _>>()
    };
    let (labels, fields) = (read(term.match_expressions.as_ref())?, read(term.match_fields.as_ref())?);
    if let Some(other) = fields.iter().find(|field| field.key != NODE_NAME || !matches!(field.operator, Operator::In | Operator::NotIn)) {
        let what = format!("{whose} chooses nodes by the field {}", quote(&other.key));
        return Err(Unsupported::new(what, format!("choose by {NODE_NAME} with In or NotIn, or by labels")));
    }
    Ok(NodeTerm { labels, fields })
}

/// A term of the topologies in which a storage class makes volumes.
pub(super) fn topology_term(term: &TopologySelectorTerm) -> NodeTerm {
    let one = |key: &str, values: &[String]| Requirement { key: key.into(), operator: Operator::In, values: values.to_vec() };
    let labels = term.match_label_expressions.iter().flatten().map(|each| one(&each.key, &each.values)).collect();
    NodeTerm { labels, fields: Vec::new() }
}

/// That the node is one of these.
pub(super) fn named(names: Vec<String>) -> NodeTerm {
    NodeTerm { labels: Vec::new(), fields: vec![Requirement { key: NODE_NAME.into(), operator: Operator::In, values: names }] }
}

/// Whether the node of this name and with these labels meets a term. As in Kubernetes a term without conditions is met by none.
#[must_use]
pub fn matches_term(term: &NodeTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    if term.labels.is_empty() && term.fields.is_empty() {
        return false;
    }
    let by_label = |one: &Requirement| meets(one, labels.get(&one.key).map(String::as_str));
    let by_field = |one: &Requirement| meets(one, (one.key == NODE_NAME).then_some(name));
    term.labels.iter().all(by_label) && term.fields.iter().all(by_field)
}

/// Whether a label's value meets a condition.
pub(super) fn meets(one: &Requirement, value: Option<&str>) -> bool {
    let among = |value: &str| one.values.iter().any(|other| other == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = || Some((number(value?)?, number(one.values.first()?)?));
    match one.operator {
        Operator::In => value.is_some_and(among),
        Operator::NotIn => !value.is_some_and(among),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::Gt => compared().is_some_and(|(value, bound)| value > bound),
        Operator::Lt => compared().is_some_and(|(value, bound)| value < bound),
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn term(value: Value) -> Result<NodeTerm, String> {
        node_term(&serde_json::from_value(value).unwrap(), "its node affinity").map_err(|error| error.to_string())
    }

    fn holds(expression: Value, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        matches_term(&term(json!({ "matchExpressions": [expression] })).unwrap(), "n", &labels)
    }

    #[test]
    fn operators_mean_what_they_mean_in_kubernetes() {
        let with = |operator: &str, values: Value| json!({"key": "k", "operator": operator, "values": values});
        for (operator, values, on_5, on_none) in [
            ("In", json!(["4", "5"]), true, false),
            ("In", json!(["4"]), false, false),
            ("NotIn", json!(["5"]), false, true),
            ("NotIn", json!(["4"]), true, true),
            ("Exists", json!([]), true, false),
            ("DoesNotExist", json!(null), false, true),
            ("Gt", json!(["4"]), true, false),
            ("Gt", json!(["5"]), false, false),
            ("Lt", json!(["10"]), true, false),
        ] {
            assert_eq!(holds(with(operator, values.clone()), &[("k", "5")]), on_5, "{operator} {values}");
            assert_eq!(holds(with(operator, values.clone()), &[]), on_none, "{operator} {values}");
        }
        assert!(!holds(with("Gt", json!(["4"])), &[("k", "many")]));
        assert!(!holds(with("Lt", json!(["many"])), &[("k", "4")]));
    }

    #[test]
    fn an_empty_term_is_met_by_no_node_and_a_name_by_one() {
        assert!(!matches_term(&term(json!({})).unwrap(), "n", &BTreeMap::new()));
        let field = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        let by_name = term(field).unwrap();
        assert!(matches_term(&by_name, "n", &BTreeMap::new()) && !matches_term(&by_name, "m", &BTreeMap::new()));
        assert_eq!(by_name, named(vec!["n".into()]));
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for (expression, words) in [
            (json!({"key": "k", "operator": "Near", "values": ["a"]}), "by \"Near\""),
            (json!({"key": "k", "operator": "In", "values": []}), "at least one value"),
            (json!({"key": "k", "operator": "Exists", "values": ["a"]}), "leave the values out"),
            (json!({"key": "k", "operator": "Lt", "values": ["1", "2"]}), "one whole number"),
        ] {
            let error = term(json!({ "matchExpressions": [expression] })).unwrap_err();
            assert!(error.contains(words) && error.contains("its node affinity"), "{error}");
        }
        let field = json!({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["n"]}]});
        assert!(term(field).unwrap_err().contains("metadata.name"));
        let pods: LabelSelector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "k", "operator": "Gt", "values": ["1"]}]})).unwrap();
        assert!(labels(&pods, "it").is_err());
    }
}
