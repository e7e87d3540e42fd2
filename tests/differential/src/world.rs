//! A cluster and a pod that waits, as an API server tells of them.

use partita_cluster::Case;
use partita_kube::watch::Seen;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Everything that decides where a pod may go, as JSON. The pods of a cluster have a node each; the one that waits stands apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "one for each kind")]
pub struct World {
    pub nodes: Vec<Value>,
    pub namespaces: Vec<Value>,
    pub pods: Vec<Value>,
    pub pvcs: Vec<Value>,
    pub pvs: Vec<Value>,
    pub storageclasses: Vec<Value>,
    /// The pod that waits, if there is one.
    pub pod: Value,
}

/// `namespace/name`, or the name alone of what has no namespace.
#[must_use]
pub fn full_name(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str();
    let name = text("name").unwrap_or_default();
    text("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

fn typed<T: DeserializeOwned>(objects: &[Value]) -> Result<Vec<T>, serde_json::Error> {
    objects.iter().cloned().map(serde_json::from_value).collect()
}

impl World {
    /// The same as a question to kube-scheduler's filters.
    ///
    /// # Errors
    /// If an object is not of its kind.
    pub fn case(&self) -> Result<Case, serde_json::Error> {
        Ok(Case {
            nodes: typed(&self.nodes)?,
            namespaces: typed(&self.namespaces)?,
            pods: typed(&self.pods)?,
            pvcs: typed(&self.pvcs)?,
            pvs: typed(&self.pvs)?,
            storage_classes: typed(&self.storageclasses)?,
            pod: serde_json::from_value(self.pod.clone())?,
        })
    }

    /// The same as partita's watches would tell it, the waiting pod included.
    ///
    /// # Errors
    /// If an object is not of its kind.
    pub fn seen(&self) -> Result<Vec<Seen>, serde_json::Error> {
        let mut seen = Vec::new();
        tell(&self.namespaces, Seen::Namespace, &mut seen)?;
        tell(&self.storageclasses, Seen::Class, &mut seen)?;
        tell(&self.pvs, Seen::Volume, &mut seen)?;
        tell(&self.pvcs, Seen::Claim, &mut seen)?;
        tell(&self.nodes, Seen::Node, &mut seen)?;
        tell(&self.pods, Seen::Pod, &mut seen)?;
        if !self.pod.is_null() {
            tell(std::slice::from_ref(&self.pod), Seen::Pod, &mut seen)?;
        }
        Ok(seen)
    }

    /// The claim of that name in the waiting pod's namespace, and the volume of that name.
    pub(crate) fn claim(&mut self, name: &str) -> Option<&mut Value> {
        let namespace = self.pod["metadata"]["namespace"].clone();
        self.pvcs.iter_mut().find(|claim| claim["metadata"]["name"] == name && claim["metadata"]["namespace"] == namespace)
    }
}

/// What a watch says of some objects.
pub(crate) fn tell<T: DeserializeOwned>(
    objects: &[Value],
    kind: fn(String, Option<Box<T>>) -> Seen,
    seen: &mut Vec<Seen>,
) -> Result<(), serde_json::Error> {
    for object in objects {
        seen.push(kind(full_name(object), Some(Box::new(serde_json::from_value(object.clone())?))));
    }
    Ok(())
}
