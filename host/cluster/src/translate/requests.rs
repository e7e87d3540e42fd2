//! How much a pod asks for in all.

use std::collections::{BTreeMap, BTreeSet};

use super::{Unsupported, quote};
use crate::{
    objects::{Amounts, Container, ContainerStatus, Pod, PodStatus},
    quantity::{Quantity, QuantityError},
};

/// Amounts by resource.
pub(super) type Asked = BTreeMap<String, Quantity>;

/// Which of a container's amounts counts.
#[derive(Clone, Copy)]
enum View {
    /// What it asks for.
    Spec,
    /// What its node set apart for it.
    Allocated,
    /// What it runs with.
    Actual,
}

/// Everything that the pod asks for: the larger of its containers and sidecars together and of each init container with the sidecars
/// before it, what is said for the pod as a whole instead of that, and its overhead.
///
/// With `actual` a pod that is being resized counts with what it has where that is more, as in kube-scheduler. The computation is that
/// of `PodRequests` in `k8s.io/component-helpers/resource`.
///
/// # Errors
/// If an amount is no quantity.
pub(super) fn requests(pod: &Pod, actual: bool) -> Result<Asked, Unsupported> {
    let (spec, status) = (&pod.spec.value, &pod.status.value);
    let views: &[View] = if !actual {
        &[View::Spec]
    } else if resize_is_infeasible(status) {
        &[View::Allocated, View::Actual]
    } else {
        &[View::Spec, View::Allocated, View::Actual]
    };
    // A node that tells of pods as a whole tells of all of their containers.
    let told = if actual { whole(status)? } else { None };
    let mut asked = Asked::new();
    for &view in views {
        let of_view = match (view, &told) {
            (View::Allocated, Some((allocated, _))) => allocated.clone(),
            (View::Actual, Some((_, running))) => running.clone(),
            _ => of_containers(pod, view)?,
        };
        raise(&mut asked, &of_view);
    }
    asked.extend(of_whole(pod, actual)?);
    add(&mut asked, &parsed(&spec.overhead, "its overhead")?);
    asked.retain(|_, amount| !amount.is_zero());
    Ok(asked)
}

const WHOLE: &str = "the pod as a whole";

/// What the node tells that it set apart for the pod as a whole, and what that runs with; none unless it tells both.
fn whole(status: &PodStatus) -> Result<Option<(Asked, Asked)>, Unsupported> {
    let running = status.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let Some((allocated, running)) = status.allocated_resources.as_ref().zip(running) else { return Ok(None) };
    Ok(Some((parsed(allocated, WHOLE)?, parsed(running, WHOLE)?)))
}

/// What is said for the pod as a whole, which counts in the place of what its containers ask for. With `actual` the larger of that and of
/// what it has.
fn of_whole(pod: &Pod, actual: bool) -> Result<Asked, Unsupported> {
    let (spec, status) = (&pod.spec.value, &pod.status.value);
    let mut asked = parsed(&spec.resources.requests, WHOLE)?;
    asked.retain(|name, _| for_whole(name));
    if asked.is_empty() {
        return Ok(asked);
    }
    if let Some(running) = status.resources.as_ref().filter(|_| actual) {
        if resize_is_infeasible(status) {
            asked.clear();
        }
        for has in running.requests.iter().chain(&status.allocated_resources) {
            raise(&mut asked, &parsed(has, WHOLE)?);
        }
        asked.retain(|name, _| for_whole(name));
    }
    Ok(asked)
}

/// Whether an amount can be given for a pod as a whole; the API server refuses others.
fn for_whole(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

fn resize_is_infeasible(status: &PodStatus) -> bool {
    status.condition("PodResizePending").is_some_and(|condition| condition.reason == "Infeasible")
}

fn of_containers(pod: &Pod, view: View) -> Result<Asked, Unsupported> {
    let infeasible = resize_is_infeasible(&pod.status.value);
    let statuses = &pod.status.value;
    let amounts = |container: &Container| {
        let mut of_name = statuses.container_statuses.iter().chain(&statuses.init_container_statuses);
        let status = of_name.find(|status| status.name == container.name);
        let chosen = chosen(container, status, view, infeasible);
        parsed(chosen.unwrap_or(&Amounts::new()), &format!("container {}", quote(&container.name)))
    };
    let mut sum = Asked::new();
    for container in &pod.spec.value.containers {
        add(&mut sum, &amounts(container)?);
    }
    let (mut sidecars, mut peak) = (Asked::new(), Asked::new());
    for container in &pod.spec.value.init_containers {
        let mine = amounts(container)?;
        if container.is_sidecar() {
            add(&mut sum, &mine);
            add(&mut sidecars, &mine);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = mine;
            add(&mut together, &sidecars);
            raise(&mut peak, &together);
        }
    }
    raise(&mut sum, &peak);
    Ok(sum)
}

fn chosen<'a>(container: &'a Container, status: Option<&'a ContainerStatus>, view: View, infeasible: bool) -> Option<&'a Amounts> {
    let spec = (!infeasible).then_some(&container.resources.requests);
    let allocated = status.map(|status| &status.allocated_resources).filter(|amounts| !amounts.is_empty());
    let actual =
        status.and_then(|status| status.resources.as_ref()).map(|resources| &resources.requests).filter(|amounts| !amounts.is_empty());
    match view {
        View::Spec => Some(&container.resources.requests),
        View::Allocated => allocated.or(spec),
        View::Actual => actual.or(allocated).or(spec),
    }
}

fn parsed(amounts: &Amounts, whose: &str) -> Result<Asked, Unsupported> {
    let wrong = |name: &str, error: QuantityError| {
        let remedy = match error {
            QuantityError::Form(_) => "write a number with a suffix like 100m, 2 or 4Gi",
            QuantityError::Range(_) => "ask for less",
            QuantityError::Negative(_) => "ask for 0 or more",
        };
        Unsupported::new(format!("{whose} asks for {} of {}, which is no amount", quote(&amounts[name]), quote(name)), remedy)
    };
    amounts.iter().map(|(name, text)| Ok((name.clone(), Quantity::parse(text).map_err(|error| wrong(name, error))?))).collect()
}

fn add(sum: &mut Asked, more: &Asked) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.plus(*amount);
    }
}

/// Makes each amount of `peak` at least that of `other`.
fn raise(peak: &mut Asked, other: &Asked) {
    let names: BTreeSet<&String> = other.keys().collect();
    for name in names {
        let entry = peak.entry(name.clone()).or_default();
        *entry = (*entry).max(other[name]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: &Value, status: &Value, actual: bool) -> Vec<(String, String)> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap();
        assert_eq!(pod.error(), None);
        requests(&pod, actual).unwrap().into_iter().map(|(name, amount)| (name, amount.to_string())).collect()
    }

    fn asks(cpu: &str) -> Value {
        json!({"requests": {"cpu": cpu}})
    }

    fn cpu(spec: &Value) -> String {
        of(spec, &json!({}), false).into_iter().find(|(name, _)| name == "cpu").map_or_else(|| "0".into(), |(_, amount)| amount)
    }

    #[test]
    fn containers_sidecars_and_init_containers() {
        let two = json!([{"name": "a", "resources": asks("1")}, {"name": "b", "resources": asks("1500m")}]);
        assert_eq!(cpu(&json!({"containers": two})), "2.5");
        let init = |parts: &[(&str, bool)]| -> Value {
            let one = |(row, (amount, sidecar)): (usize, &(&str, bool))| {
                let restart = if *sidecar { json!("Always") } else { Value::Null };
                json!({"name": format!("i{row}"), "resources": asks(amount), "restartPolicy": restart})
            };
            parts.iter().enumerate().map(one).collect()
        };
        for (parts, sum) in [
            // An init container runs alone: the larger counts.
            (&[("1", false)][..], "2.5"),
            (&[("4", false), ("3", false)], "4"),
            // A sidecar runs beside all others.
            (&[("1", true)], "3.5"),
            // An init container runs beside the sidecars before it, not beside those after.
            (&[("2", true), ("3", false)], "5"),
            (&[("3", false), ("2", true)], "4.5"),
            (&[("2", true), ("1", true), ("3", false)], "6"),
        ] {
            assert_eq!(cpu(&json!({"containers": two, "initContainers": init(parts)})), sum, "{parts:?}");
        }
    }

    #[test]
    fn the_pod_as_a_whole_and_its_overhead() {
        let spec = json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1", "zero": "0"}}}],
            "resources": {"requests": {"cpu": "3", "memory": "1Gi", "hugepages-2Mi": "4Mi"}},
            "overhead": {"cpu": "250m"},
        });
        let asked = of(&spec, &json!({}), false);
        let expected = [("cpu", "3.25"), ("hugepages-2Mi", "4194304"), ("memory", "1073741824"), ("nvidia.com/gpu", "1")];
        assert_eq!(asked, expected.map(|(name, amount)| (name.to_owned(), amount.to_owned())));
    }

    #[test]
    fn a_pod_that_is_resized_counts_with_what_it_has() {
        let spec = json!({"containers": [{"name": "a", "resources": asks("2")}]});
        let status = |allocated: &str, actual: &str, reason: &str| {
            json!({
                "containerStatuses": [{"name": "a", "allocatedResources": {"cpu": allocated}, "resources": asks(actual)}],
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
            })
        };
        for (status, sum) in [
            (status("1", "3", "Deferred"), "3"),
            (status("4", "3", "Deferred"), "4"),
            (status("1", "1", "Deferred"), "2"),
            (status("1", "1", "Infeasible"), "1"),
        ] {
            assert_eq!(of(&spec, &status, true)[0].1, sum, "{status}");
            assert_eq!(of(&spec, &status, false)[0].1, "2");
        }
    }

    #[test]
    fn a_pod_that_is_resized_as_a_whole() {
        let containers = json!([{"name": "a", "resources": asks("2")}]);
        let status = |told: Value, reason: &str| {
            let mut status = told;
            status["conditions"] = json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
            status
        };
        let both = json!({"allocatedResources": {"cpu": "1"}, "resources": asks("3")});
        let unsaid = json!({"allocatedResources": {"cpu": "4"}, "resources": {}});
        for (whole, status, sum) in [
            (json!({}), status(both.clone(), "Deferred"), "3"),
            (json!({}), status(both.clone(), "Infeasible"), "3"),
            // Half of the story is none.
            (json!({}), status(unsaid.clone(), "Deferred"), "2"),
            // What is asked for the pod as a whole counts, or what it has of that.
            (asks("5"), status(both.clone(), "Deferred"), "5"),
            (asks("5"), status(both.clone(), "Infeasible"), "3"),
            (asks("1"), status(both, "Deferred"), "3"),
            (asks("1"), status(unsaid, "Deferred"), "4"),
            (asks("1"), status(json!({"allocatedResources": {"cpu": "4"}}), "Deferred"), "1"),
        ] {
            let spec = json!({"containers": containers, "resources": whole});
            assert_eq!(of(&spec, &status, true)[0].1, sum, "{whole} {status}");
        }
    }

    #[test]
    fn what_is_no_amount_is_named() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "many"}}}]}
        }))
        .unwrap();
        let error = requests(&pod, false).unwrap_err().to_string();
        assert_eq!(
            error,
            "container \"c\" asks for \"many\" of \"cpu\", which is no amount; write a number with a suffix like 100m, 2 or 4Gi"
        );
    }
}
