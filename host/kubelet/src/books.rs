//! What the kubelet has written down of devices: to which pods it gave them.
//!
//! The file is the kubelet's own (`pkg/kubelet/cm/devicemanager/checkpoint` of Kubernetes 1.37), beside its sockets. It knows two things that
//! [`crate::PodResources`] does not: the devices of init containers, and everything right after the kubelet was started, when it does not
//! know its pods yet and lists none. It is written when a device was given away and when a plugin sent a list; devices of pods that ended
//! meanwhile stay in it until then. So who is named in it may have ended, and who is not named has nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use serde::Deserialize;

use crate::error::Error;

/// The file's name, in the folder of device plugins.
pub const BOOKS_FILE: &str = "kubelet_internal_checkpoint";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Books {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    /// Null where there are none.
    pod_device_entries: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    resource_name: String,
    /// By memory node of the machine.
    #[serde(rename = "DeviceIDs")]
    device_ids: Option<BTreeMap<String, Vec<String>>>,
}

/// The devices that were given away, each as (resource, device), by the file in `folder`. None if there is no file: the kubelet writes it
/// with its first device.
///
/// # Errors
/// When the file cannot be read, or is not as the kubelet writes it: then nothing is known.
pub fn written_down(folder: &Path) -> Result<BTreeSet<(String, String)>, Error> {
    let path = folder.join(BOOKS_FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other,
    };
    let books = bytes.and_then(|bytes| serde_json::from_slice::<Books>(&bytes).map_err(io::Error::from));
    let books = books.map_err(|source| Error::Books { path, source })?;
    let entries = books.data.pod_device_entries.into_iter().flatten();
    let devices = entries.flat_map(|entry| {
        let ids = entry.device_ids.into_iter().flatten().flat_map(|(_, ids)| ids);
        ids.map(move |id| (entry.resource_name.clone(), id)).collect::<Vec<_>>()
    });
    Ok(devices.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_writes_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(written_down(folder.path()).unwrap(), BTreeSet::new());
        let write = |text: &str| fs::write(folder.path().join(BOOKS_FILE), text).unwrap();
        write(
            r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c","ResourceName":"a/b","DeviceIDs":{"-1":["x","y"],"0":["z"]},
            "AllocResp":"CgA="}],"RegisteredDevices":{"a/b":["x"]}},"Checksum":7}"#,
        );
        let pair = |id: &str| ("a/b".to_owned(), id.to_owned());
        assert_eq!(written_down(folder.path()).unwrap(), [pair("x"), pair("y"), pair("z")].into());
        write(r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":7}"#);
        assert_eq!(written_down(folder.path()).unwrap(), BTreeSet::new());
        for bad in ["", "{", "[]", r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u"}]}}"#, r#"{"V2":{}}"#] {
            write(bad);
            let error = written_down(folder.path()).unwrap_err().to_string();
            assert!(error.contains(BOOKS_FILE) && error.contains("nothing is destroyed"), "{error}");
        }
    }
}
