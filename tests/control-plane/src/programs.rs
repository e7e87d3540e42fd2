//! Builds the programs of the control plane from their Go modules, once, into a cache.
//!
//! What is built together lies together in `<cache>/control-plane/<name>-<version>-<hash>/bin`. The hash is of everything of ours that
//! goes into it: the module files, and for the oracle its source. A folder appears by a rename when it is complete, so whatever lies
//! there can be used, and two builds at once wait for each other. Nothing is ever removed: the folders of versions that are no longer
//! wanted can be deleted by hand.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    error::{Doing, Error},
    go::{self, Target},
    progress::Progress,
};

/// The version of Kubernetes that is built.
pub const KUBERNETES_VERSION: &str = "1.37.2";
/// The version of etcd that is built.
pub const ETCD_VERSION: &str = "3.7.3";
/// The version of KWOK that is built.
pub const KWOK_VERSION: &str = "0.8.0";
/// The version of containerd that is built for a real node.
pub const CONTAINERD_VERSION: &str = "2.4.2";

/// Where each program lies.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `etcd`
    pub etcd: PathBuf,
    /// `kube-apiserver`
    pub api_server: PathBuf,
    /// `kube-controller-manager`
    pub controller_manager: PathBuf,
    /// `kube-scheduler`
    pub scheduler: PathBuf,
    /// `kubectl`
    pub kubectl: PathBuf,
    /// `kwok`
    pub kwok: PathBuf,
    /// What KWOK does with nodes and pods: a YAML file.
    pub kwok_stages: PathBuf,
    /// The filters of kube-scheduler as a program; see [`crate::Oracle`].
    pub feasible: PathBuf,
}

/// Where each program of a real node lies; see [`crate::Node`].
#[derive(Clone, Debug)]
pub struct NodePrograms {
    /// `kubelet`
    pub kubelet: PathBuf,
    /// `containerd`. What it starts for each pod, `containerd-shim-runc-v2`, lies beside it.
    pub containerd: PathBuf,
    /// containerd's own client, which imports images.
    pub ctr: PathBuf,
    /// What runs in the containers: a static program that says what it sees.
    pub witness: PathBuf,
}

/// Programs that are built from one module and kept in one folder.
struct Group {
    name: &'static str,
    version: &'static str,
    /// The folder of the module in `go/`.
    module: &'static str,
    /// The folder of sources in the module that are our own.
    source: Option<&'static str>,
    /// Package and name of each program.
    targets: &'static [Target],
    /// A module and its folders of KWOK's stages, of which a copy is kept as `stages.yaml`.
    stages: Option<(&'static str, &'static [&'static str])>,
}

const GROUPS: [Group; 4] = [
    Group {
        name: "etcd",
        version: ETCD_VERSION,
        module: "etcd",
        source: None,
        targets: &[Target { package: "go.etcd.io/etcd/server/v3", name: "etcd" }],
        stages: None,
    },
    Group {
        name: "kubernetes",
        version: KUBERNETES_VERSION,
        module: "kubernetes",
        source: None,
        targets: &[
            Target { package: "k8s.io/kubernetes/cmd/kube-apiserver", name: "kube-apiserver" },
            Target { package: "k8s.io/kubernetes/cmd/kube-controller-manager", name: "kube-controller-manager" },
            Target { package: "k8s.io/kubernetes/cmd/kube-scheduler", name: "kube-scheduler" },
            Target { package: "k8s.io/kubernetes/cmd/kubectl", name: "kubectl" },
        ],
        stages: None,
    },
    Group {
        name: "kwok",
        version: KWOK_VERSION,
        module: "kwok",
        source: None,
        targets: &[Target { package: "sigs.k8s.io/kwok/cmd/kwok", name: "kwok" }],
        stages: Some(("sigs.k8s.io/kwok", &["kustomize/stage/node/fast", "kustomize/stage/pod/fast"])),
    },
    Group {
        name: "feasible",
        version: KUBERNETES_VERSION,
        module: "kubernetes",
        source: Some("cmd/feasible"),
        targets: &[Target { package: "./cmd/feasible", name: "feasible" }],
        stages: None,
    },
];

/// A module of its own for the kubelet: what it needs beyond the rest of Kubernetes changes nothing for them.
const NODE_GROUPS: [Group; 3] = [
    Group {
        name: "kubelet",
        version: KUBERNETES_VERSION,
        module: "kubelet",
        source: None,
        targets: &[Target { package: "k8s.io/kubernetes/cmd/kubelet", name: "kubelet" }],
        stages: None,
    },
    Group {
        name: "containerd",
        version: CONTAINERD_VERSION,
        module: "containerd",
        source: None,
        targets: &[
            Target { package: "github.com/containerd/containerd/v2/cmd/containerd", name: "containerd" },
            Target { package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", name: "containerd-shim-runc-v2" },
            Target { package: "github.com/containerd/containerd/v2/cmd/ctr", name: "ctr" },
        ],
        stages: None,
    },
    Group {
        name: "witness",
        version: CONTAINERD_VERSION,
        module: "containerd",
        source: Some("cmd/witness"),
        targets: &[Target { package: "./cmd/witness", name: "witness" }],
        stages: None,
    },
];

/// How the names of folders begin in which a build is under way.
const UNFINISHED: &str = ".building-";

/// The folder that partita keeps between runs: `$PARTITA_CACHE`, else `partita` in `$XDG_CACHE_HOME`, else in `~/.cache`.
#[must_use]
pub fn cache() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = set("PARTITA_CACHE").or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("partita")));
    own.or_else(|| set("HOME").map(|path| path.join(".cache/partita"))).unwrap_or_else(|| env::temp_dir().join("partita"))
}

/// Builds what is not built yet, which takes minutes the first time and milliseconds after. Says on standard error what it does, if
/// there is anything to do.
///
/// # Errors
/// When Go is missing, too old or fails, or when the cache cannot be written.
pub fn build() -> Result<Programs, Error> {
    folders(&GROUPS.each_ref()).map(programs)
}

/// The same for the programs of a real node, which only tests of a node agent need.
///
/// # Errors
/// As [`build`].
pub fn build_node() -> Result<NodePrograms, Error> {
    folders(&NODE_GROUPS.each_ref()).map(node_programs)
}

/// Both at once, so that what they share is compiled once.
///
/// # Errors
/// As [`build`].
pub fn build_all() -> Result<(Programs, NodePrograms), Error> {
    let [etcd, kubernetes, kwok, feasible] = GROUPS.each_ref();
    let [kubelet, containerd, witness] = NODE_GROUPS.each_ref();
    let all = [etcd, kubernetes, kwok, feasible, kubelet, containerd, witness];
    let [etcd, kubernetes, kwok, feasible, kubelet, containerd, witness] = folders(&all)?;
    Ok((programs([etcd, kubernetes, kwok, feasible]), node_programs([kubelet, containerd, witness])))
}

fn programs([etcd, kubernetes, kwok, feasible]: [PathBuf; 4]) -> Programs {
    let kubernetes = kubernetes.join("bin");
    Programs {
        etcd: etcd.join("bin/etcd"),
        api_server: kubernetes.join("kube-apiserver"),
        controller_manager: kubernetes.join("kube-controller-manager"),
        scheduler: kubernetes.join("kube-scheduler"),
        kubectl: kubernetes.join("kubectl"),
        kwok: kwok.join("bin/kwok"),
        kwok_stages: kwok.join("stages.yaml"),
        feasible: feasible.join("bin/feasible"),
    }
}

fn node_programs(folders: [PathBuf; 3]) -> NodePrograms {
    let [kubelet, containerd, witness] = folders.map(|folder| folder.join("bin"));
    NodePrograms {
        kubelet: kubelet.join("kubelet"),
        containerd: containerd.join("containerd"),
        ctr: containerd.join("ctr"),
        witness: witness.join("witness"),
    }
}

/// Where each of `groups` lies, after it was built if it was not.
fn folders<const N: usize>(groups: &[&'static Group; N]) -> Result<[PathBuf; N], Error> {
    let home = cache().join("control-plane");
    let mut folders = [const { PathBuf::new() }; N];
    for (folder, group) in folders.iter_mut().zip(groups) {
        *folder = group.folder(&home)?;
    }
    let missing: Vec<(&Group, &PathBuf)> = groups.iter().copied().zip(&folders).filter(|(_, folder)| !folder.exists()).collect();
    if !missing.is_empty() {
        build_missing(&home, &missing)?;
    }
    Ok(folders)
}

fn build_missing(home: &Path, missing: &[(&Group, &PathBuf)]) -> Result<(), Error> {
    fs::create_dir_all(home).doing(|| format!("could not make the cache {}", home.display()))?;
    for (group, _) in missing {
        go::check(&group.module())?;
    }
    let names: Vec<&str> = missing.iter().flat_map(|(group, _)| group.targets).map(|target| target.name).collect();
    let progress = Progress::new(&names);
    let path = home.join("lock");
    let lock = File::create(&path).doing(|| format!("could not make {}", path.display()))?;
    if lock.try_lock().is_err() {
        progress.say("another process is building; waiting for it");
        lock.lock().doing(|| format!("could not lock {}", path.display()))?;
    }
    remove_unfinished(home).doing(|| format!("could not tidy {}", home.display()))?;
    // Gigabytes that nobody needs again: what is built stays, what it was built from goes.
    let compiled = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(home).doing(|| format!("in {}", home.display()))?;
    for (group, folder) in missing {
        // Whoever held the lock may have built it meanwhile.
        if !folder.exists() {
            group.build(home, folder, compiled.path(), &progress)?;
        }
    }
    progress.finish();
    Ok(())
}

/// Removes what builds left that were killed. The lock is held, so nobody is building.
fn remove_unfinished(home: &Path) -> io::Result<()> {
    for entry in fs::read_dir(home)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

impl Group {
    fn module(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(self.module)
    }

    /// Where it lies when it is built.
    fn folder(&self, home: &Path) -> Result<PathBuf, Error> {
        let module = self.module();
        let mut files = vec![module.join("go.mod"), module.join("go.sum")];
        if let Some(source) = self.source {
            let source = module.join(source);
            let entries = fs::read_dir(&source).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>());
            files.extend(entries.doing(|| format!("could not list {}", source.display()))?);
        }
        files.sort();
        let mut hash = Sha256::new();
        hash.update(go::recipe(self.targets));
        for file in files {
            let bytes = fs::read(&file).doing(|| format!("could not read {}", file.display()))?;
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let hash = hexadecimal(&digest[..6]);
        Ok(home.join(format!("{}-{}-{hash}", self.name, self.version)))
    }

    fn build(&self, home: &Path, folder: &Path, compiled: &Path, progress: &Progress) -> Result<(), Error> {
        let temporary = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(home).doing(|| format!("in {}", home.display()))?;
        let module = self.module();
        for target in self.targets {
            go::build(&module, target, compiled, &temporary.path().join("bin").join(target.name), progress)?;
        }
        if let Some((named, folders)) = self.stages {
            let source = go::module_folder(&module, named)?;
            let to = temporary.path().join("stages.yaml");
            let written = stages(folders.iter().map(|folder| source.join(folder))).and_then(|text| fs::write(&to, text));
            written.doing(|| format!("could not copy the stages of {} to {}", source.display(), to.display()))?;
        }
        fs::rename(temporary.path(), folder).doing(|| format!("could not move what was built to {}", folder.display()))
    }
}

/// Two digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The stages that lie in `folders`, one YAML document each. The same folders hold documents and tests.
fn stages(folders: impl Iterator<Item = PathBuf>) -> io::Result<String> {
    let mut text = String::new();
    for folder in folders {
        let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        paths.sort();
        for path in paths {
            let stage = fs::read_to_string(path)?;
            if stage.lines().any(|line| line == "kind: Stage") {
                text.extend(["---\n", &stage]);
            }
        }
    }
    Ok(text)
}
