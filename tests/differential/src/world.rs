//! A cluster and a pod that waits, as an API server tells of them.

use partita_cluster::Case;
use partita_kube::watch::Seen;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Error, Value};

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

fn typed<T: DeserializeOwned>(objects: &[Value]) -> Result<Vec<T>, Error> {
    objects.iter().cloned().map(serde_json::from_value).collect()
}

impl World {
    /// The same as a question to kube-scheduler's filters.
    ///
    /// # Errors
    /// If an object is not of its kind.
    pub fn case(&self) -> Result<Case, Error> {
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

    /// The same as partita's watches would tell it, the waiting pod aside.
    ///
    /// # Errors
    /// If an object is not of its kind.
    pub fn seen(&self) -> Result<Vec<Seen>, Error> {
        let mut all = Vec::new();
        tell(&self.namespaces, Seen::Namespace, &mut all)?;
        tell(&self.storageclasses, Seen::Class, &mut all)?;
        tell(&self.pvs, Seen::Volume, &mut all)?;
        tell(&self.pvcs, Seen::Claim, &mut all)?;
        tell(&self.nodes, Seen::Node, &mut all)?;
        tell(&self.pods, Seen::Pod, &mut all)?;
        Ok(all)
    }
}

fn tell<T: DeserializeOwned>(objects: &[Value], kind: fn(String, Option<Box<T>>) -> Seen, all: &mut Vec<Seen>) -> Result<(), Error> {
    for object in objects {
        all.push(seen(object, kind)?);
    }
    Ok(())
}

/// What a watch says of an object.
pub(crate) fn seen<T: DeserializeOwned>(object: &Value, kind: fn(String, Option<Box<T>>) -> Seen) -> Result<Seen, Error> {
    Ok(kind(full_name(object), Some(Box::new(serde_json::from_value(object.clone())?))))
}
