//! Where a pod may run: selectors, affinity, tolerations, ports, spreading.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, PodAffinityTerm, Toleration as Bears, TopologySpreadConstraint, WeightedPodAffinityTerm},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use partita_core::model::{
    Constraints,
    constraints::{
        Effect, HostPort, NodeTerm, Operator, PodSelector, PodTerm, Protocol, Requirement, Spread, Toleration, TolerationOperator,
    },
};

use super::{Unsupported, quote, selector};
use crate::objects::{Container, Pod, Port};

/// Whose constraints these are.
struct Own<'a> {
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
}

/// Everything that `pod` says about where it may run, volumes aside.
pub(super) fn of(pod: &Pod) -> Result<Constraints, Unsupported> {
    let spec = &pod.spec.value;
    let none = BTreeMap::new();
    let own =
        Own { namespace: pod.metadata.namespace.as_deref().unwrap_or_default(), labels: pod.metadata.labels.as_ref().unwrap_or(&none) };
    let mut all = Constraints { selector: spec.node_selector.clone().into_iter().collect(), ..Constraints::default() };
    if let Some(affinity) = &spec.affinity {
        nodes(affinity, &mut all)?;
        pods(affinity, &own, &mut all)?;
    }
    all.tolerations = spec.tolerations.iter().map(toleration).collect::<Result<_, _>>()?;
    all.ports = ports(pod)?;
    all.spread = spec.topology_spread_constraints.iter().map(|one| spread(one, &own)).collect::<Result<_, _>>()?;
    Ok(all)
}

fn nodes(affinity: &Affinity, all: &mut Constraints) -> Result<(), Unsupported> {
    const WHOSE: &str = "its node affinity";
    let Some(affinity) = &affinity.node_affinity else { return Ok(()) };
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let terms = required.node_selector_terms.iter().map(|term| selector::node_term(term, WHOSE));
        all.nodes.push(terms.collect::<Result<Vec<NodeTerm>, _>>()?);
    }
    for preferred in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
        all.preferred_nodes.push((weight(preferred.weight, WHOSE)?, selector::node_term(&preferred.preference, WHOSE)?));
    }
    Ok(())
}

fn weight(weight: i32, whose: &str) -> Result<i32, Unsupported> {
    if (1..=100).contains(&weight) { Ok(weight) } else { Err(Unsupported::new(format!("{whose} has the weight {weight}"), "use 1 to 100")) }
}

fn pods(affinity: &Affinity, own: &Own, all: &mut Constraints) -> Result<(), Unsupported> {
    let required = |terms: Option<&Vec<PodAffinityTerm>>, whose: &str| {
        terms.into_iter().flatten().map(|term| pod_term(term, own, whose)).collect::<Result<Vec<_>, _>>()
    };
    let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i32, whose: &str| {
        let each = terms.into_iter().flatten();
        each.map(|one| Ok((sign * weight(one.weight, whose)?, pod_term(&one.pod_affinity_term, own, whose)?)))
            .collect::<Result<Vec<_>, _>>()
    };
    if let Some(together) = &affinity.pod_affinity {
        const WHOSE: &str = "its pod affinity";
        all.together = required(together.required_during_scheduling_ignored_during_execution.as_ref(), WHOSE)?;
        all.preferred_pods = preferred(together.preferred_during_scheduling_ignored_during_execution.as_ref(), 1, WHOSE)?;
    }
    if let Some(apart) = &affinity.pod_anti_affinity {
        const WHOSE: &str = "its pod anti-affinity";
        all.apart = required(apart.required_during_scheduling_ignored_during_execution.as_ref(), WHOSE)?;
        all.preferred_pods.extend(preferred(apart.preferred_during_scheduling_ignored_during_execution.as_ref(), -1, WHOSE)?);
    }
    Ok(())
}

fn pod_term(term: &PodAffinityTerm, own: &Own, whose: &str) -> Result<PodTerm, Unsupported> {
    let keys = |keys: &Option<Vec<String>>| keys.clone().unwrap_or_default();
    let labels = like_own(term.label_selector.as_ref(), &keys(&term.match_label_keys), &keys(&term.mismatch_label_keys), own, whose)?;
    let mut namespaces = keys(&term.namespaces);
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.push(own.namespace.to_owned());
    }
    namespaces.sort_unstable();
    namespaces.dedup();
    let namespace_labels = term.namespace_selector.as_ref().map(|of| selector::labels(of, whose)).transpose()?;
    let topology = topology(&term.topology_key, whose)?;
    Ok(PodTerm { topology, pods: PodSelector { labels, namespaces, namespace_labels } })
}

fn topology(key: &str, whose: &str) -> Result<String, Unsupported> {
    if key.is_empty() {
        return Err(Unsupported::new(format!("{whose} has no topologyKey"), "name a label of nodes, such as kubernetes.io/hostname"));
    }
    Ok(key.to_owned())
}

/// A selector of pods, with what it takes from the pod's own labels. API servers that know `matchLabelKeys` have written it into the
/// selector already; then it is there once.
fn like_own(
    of: Option<&LabelSelector>,
    same: &[String],
    other: &[String],
    own: &Own,
    whose: &str,
) -> Result<Option<Vec<Requirement>>, Unsupported> {
    let Some(of) = of else { return Ok(None) };
    let mut all = selector::labels(of, whose)?;
    for (keys, operator) in [(same, Operator::In), (other, Operator::NotIn)] {
        let present = keys.iter().filter_map(|key| own.labels.get_key_value(key));
        all.extend(present.map(|(key, value)| Requirement { key: key.clone(), operator, values: vec![value.clone()] }));
    }
    all.sort_unstable();
    all.dedup();
    Ok(Some(all))
}

fn spread(one: &TopologySpreadConstraint, own: &Own) -> Result<Spread, Unsupported> {
    const WHOSE: &str = "its topology spread";
    let policy = |name: &str, value: Option<&String>, default: bool| match value.map(String::as_str) {
        None => Ok(default),
        Some("Honor") => Ok(true),
        Some("Ignore") => Ok(false),
        Some(other) => Err(Unsupported::new(format!("{WHOSE} has the {name} {}", quote(other)), "use Honor or Ignore")),
    };
    let positive = |name: &str, value: i32| {
        u32::try_from(value)
            .ok()
            .filter(|&value| value > 0)
            .ok_or_else(|| Unsupported::new(format!("{WHOSE} has the {name} {value}"), "use 1 or more"))
    };
    let required = match one.when_unsatisfiable.as_str() {
        "DoNotSchedule" => true,
        "ScheduleAnyway" => false,
        other => return Err(Unsupported::new(format!("{WHOSE} says {}", quote(other)), "use DoNotSchedule or ScheduleAnyway")),
    };
    let labels = like_own(one.label_selector.as_ref(), one.match_label_keys.as_deref().unwrap_or_default(), &[], own, WHOSE)?;
    Ok(Spread {
        max_skew: positive("maxSkew", one.max_skew)?,
        topology: topology(&one.topology_key, WHOSE)?,
        required,
        pods: PodSelector { labels, namespaces: vec![own.namespace.to_owned()], namespace_labels: None },
        min_domains: positive("minDomains", one.min_domains.unwrap_or(1))?,
        honor_affinity: policy("nodeAffinityPolicy", one.node_affinity_policy.as_ref(), true)?,
        honor_taints: policy("nodeTaintsPolicy", one.node_taints_policy.as_ref(), false)?,
    })
}

/// What a taint does, by its name in the API.
pub(super) fn effect(name: &str) -> Option<Effect> {
    match name {
        "NoSchedule" => Some(Effect::NoSchedule),
        "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
        "NoExecute" => Some(Effect::NoExecute),
        _ => None,
    }
}

fn toleration(one: &Bears) -> Result<Toleration, Unsupported> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let wrong = |what: &str, remedy: &str| {
        Unsupported::new(format!("its toleration of {} {what}", quote(one.key.as_deref().unwrap_or("every key"))), remedy)
    };
    let value = one.value.clone().unwrap_or_default();
    let operator = match one.operator.as_deref() {
        None | Some("" | "Equal") => TolerationOperator::Equal,
        Some("Exists") => TolerationOperator::Exists,
        Some(compared @ ("Gt" | "Lt")) => {
            if value.parse::<i64>().is_err() {
                return Err(wrong(&format!("compares with {}", quote(&value)), "compare with a whole number"));
            }
            if compared == "Gt" { TolerationOperator::Gt } else { TolerationOperator::Lt }
        }
        Some(other) => return Err(wrong(&format!("has the operator {}", quote(other)), "use Equal, Exists, Gt or Lt")),
    };
    let key = filled(&one.key);
    if key.is_none() && operator != TolerationOperator::Exists {
        return Err(wrong("has no key", "name a key, or use Exists"));
    }
    let effect = match filled(&one.effect) {
        None => None,
        Some(name) => {
            let known = effect(&name)
                .ok_or_else(|| wrong(&format!("has the effect {}", quote(&name)), "use NoSchedule, PreferNoSchedule or NoExecute"))?;
            Some(known)
        }
    };
    let value = if operator == TolerationOperator::Exists { String::new() } else { value };
    Ok(Toleration { key, operator, value, effect })
}

/// Ports of the node that the pod takes: those of its containers and sidecars. On the node's network every port of a container is one.
fn ports(pod: &Pod) -> Result<Vec<HostPort>, Unsupported> {
    let spec = &pod.spec.value;
    let running = spec.containers.iter().chain(spec.init_containers.iter().filter(|container| container.is_sidecar()));
    let mut all = Vec::new();
    for (container, port) in running.flat_map(|container| container.ports.iter().map(move |port| (container, port))) {
        let number = if port.host_port == 0 && spec.host_network { port.container_port } else { port.host_port };
        if number != 0 {
            all.push(host_port(container, port, number)?);
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn host_port(container: &Container, port: &Port, number: i64) -> Result<HostPort, Unsupported> {
    let wrong = |what: String, remedy: &str| Unsupported::new(format!("container {} takes {what}", quote(&container.name)), remedy);
    let protocol = match port.protocol.as_str() {
        "" | "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        other => return Err(wrong(format!("a port of protocol {}", quote(other)), "use TCP, UDP or SCTP")),
    };
    let number = u16::try_from(number).ok().filter(|&number| number > 0);
    let port_number = number.ok_or_else(|| wrong(format!("port {} of its node", port.host_port), "use 1 to 65535"))?;
    let ip = if port.host_ip.is_empty() { "0.0.0.0".to_owned() } else { port.host_ip.clone() };
    Ok(HostPort { ip, protocol, port: port_number })
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of_spec(spec: Value) -> Result<Constraints, String> {
        let labels = json!({"app": "a", "version": "2"});
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "labels": labels}, "spec": spec})).unwrap();
        assert_eq!(pod.error(), None);
        of(&pod).map_err(|error| error.to_string())
    }

    fn require(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement { key: key.into(), operator, values: values.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn node_selectors_and_affinity() {
        let expression = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
        let all = of_spec(json!({
            "nodeSelector": {"pool": "gpu", "disk": "ssd"},
            "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [expression("a"), expression("b")]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "preference": expression("c")}],
            }},
        }))
        .unwrap();
        let term = |key: &str| NodeTerm { labels: vec![require(key, Operator::Exists, &[])], fields: Vec::new() };
        assert_eq!(all.selector, [("disk".to_owned(), "ssd".to_owned()), ("pool".to_owned(), "gpu".to_owned())]);
        assert_eq!((all.nodes, all.preferred_nodes), (vec![vec![term("a"), term("b")]], vec![(7, term("c"))]));
    }

    #[test]
    fn pods_to_be_next_to_or_not() {
        let term = |more: Value| {
            let mut term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}});
            term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            term
        };
        let all = of_spec(json!({"affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term(json!({})), term(json!({"namespaces": ["z", "b", "z"]})),
                    term(json!({"namespaceSelector": {}})), json!({"topologyKey": "zone"})],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 3, "podAffinityTerm": term(json!({"matchLabelKeys": ["version", "absent"]}))}],
            },
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term(json!({"mismatchLabelKeys": ["version"]}))],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 9, "podAffinityTerm": term(json!({}))}],
            },
        }}))
        .unwrap();
        let app = require("app", Operator::In, &["a"]);
        let select = |labels: Vec<Requirement>| PodSelector { labels: Some(labels), namespaces: vec!["n".into()], namespace_labels: None };
        let [own, listed, every, nobody] = &all.together[..] else { panic!("{:?}", all.together) };
        assert_eq!((own.topology.as_str(), &own.pods), ("zone", &select(vec![app.clone()])));
        assert_eq!((listed.pods.namespaces.join(" ").as_str(), &listed.pods.namespace_labels), ("b z", &None));
        assert_eq!(
            (listed.pods.labels.as_ref(), every.pods.namespaces.len(), &every.pods.namespace_labels),
            (Some(&vec![app.clone()]), 0, &Some(vec![]))
        );
        assert_eq!(nobody.pods.labels, None);
        assert_eq!(all.apart[0].pods, select(vec![app.clone(), require("version", Operator::NotIn, &["2"])]));
        let [(3, near), (-9, far)] = &all.preferred_pods[..] else { panic!("{:?}", all.preferred_pods) };
        assert_eq!((&near.pods, &far.pods), (&select(vec![app.clone(), require("version", Operator::In, &["2"])]), &select(vec![app])));
    }

    #[test]
    fn spreading_with_its_defaults_and_without() {
        let base = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}});
        let mut full = base.clone();
        let more = json!({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 3, "nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor",
            "matchLabelKeys": ["version"]});
        full.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let all = of_spec(json!({"topologySpreadConstraints": [base, full]})).unwrap();
        let pods = |labels| PodSelector { labels: Some(labels), namespaces: vec!["n".into()], namespace_labels: None };
        let plain = Spread {
            max_skew: 1,
            topology: "zone".into(),
            required: true,
            pods: pods(vec![]),
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        };
        let other = Spread {
            required: false,
            pods: pods(vec![require("version", Operator::In, &["2"])]),
            min_domains: 3,
            honor_affinity: false,
            honor_taints: true,
            ..plain.clone()
        };
        assert_eq!(all.spread, [plain, other]);
    }

    #[test]
    fn tolerations_and_ports() {
        let all = of_spec(json!({
            "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v", "effect": "NoExecute"}, {"key": "k", "operator": "Exists", "value": "x"},
                {"key": "load", "operator": "Lt", "value": "5"}],
            "containers": [{"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081, "protocol": "UDP", "hostIP": "10.0.0.1"},
                {"containerPort": 82, "hostPort": 8082}, {"containerPort": 83, "hostPort": 8082}]}],
            "initContainers": [{"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 9, "hostPort": 9}]},
                {"name": "i", "ports": [{"containerPort": 10, "hostPort": 10}]}],
        }))
        .unwrap();
        let bear = |key: Option<&str>, operator, value: &str, effect| Toleration {
            key: key.map(Into::into),
            operator,
            value: value.into(),
            effect,
        };
        assert_eq!(
            all.tolerations,
            [
                bear(None, TolerationOperator::Exists, "", None),
                bear(Some("k"), TolerationOperator::Equal, "v", Some(Effect::NoExecute)),
                bear(Some("k"), TolerationOperator::Exists, "", None),
                bear(Some("load"), TolerationOperator::Lt, "5", None),
            ]
        );
        let port = |ip: &str, protocol, port| HostPort { ip: ip.into(), protocol, port };
        assert_eq!(
            all.ports,
            [port("0.0.0.0", Protocol::TCP, 9), port("0.0.0.0", Protocol::TCP, 8082), port("10.0.0.1", Protocol::UDP, 8081)]
        );
        let on_host = of_spec(json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]})).unwrap();
        assert_eq!(on_host.ports, [port("0.0.0.0", Protocol::TCP, 80)]);
    }

    #[test]
    fn what_is_not_understood_is_never_ignored() {
        for (spec, words) in [
            (json!({"tolerations": [{"key": "k", "operator": "Near"}]}), "operator \"Near\""),
            (json!({"tolerations": [{"key": "k", "effect": "Slow"}]}), "effect \"Slow\""),
            (json!({"tolerations": [{"value": "v"}]}), "has no key"),
            (json!({"tolerations": [{"key": "k", "operator": "Gt", "value": "x"}]}), "whole number"),
            (json!({"containers": [{"name": "c", "ports": [{"hostPort": 70000}]}]}), "port 70000"),
            (json!({"containers": [{"name": "c", "ports": [{"hostPort": 1, "protocol": "QUIC"}]}]}), "\"QUIC\""),
            (json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}), "maxSkew 0"),
            (
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "DoNotSchedule"}]}),
                "no topologyKey",
            ),
            (json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "Panic"}]}), "\"Panic\""),
            (
                json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}}}),
                "weight 0",
            ),
        ] {
            let error = of_spec(spec).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
