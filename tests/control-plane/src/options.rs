//! What a control plane consists of, and how each program is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use crate::{access::SERVICE_ACCOUNT_ISSUER, programs::Programs};

/// A program of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// The store.
    Etcd,
    /// `kube-apiserver`
    ApiServer,
    /// `kube-controller-manager`
    ControllerManager,
    /// `kube-scheduler`
    Scheduler,
    /// KWOK, which plays the kubelets of simulated nodes.
    Kwok,
}

impl Program {
    /// In the order in which they are started.
    pub const ALL: [Self; 5] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Kwok];

    /// The name of the program's file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kwok => "kwok",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Somebody who has a token. Without a role bound to them they may do almost nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their name, as in the subject of a role binding.
    pub name: String,
    /// Groups besides `system:authenticated`.
    pub groups: Vec<String>,
}

/// What to start. etcd and the API server always run; the default is nothing more, which is the fastest.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What runs besides etcd and the API server, each of these if it is named:
    ///
    /// - [`Program::ControllerManager`]: Deployments, garbage collection, service accounts, the status of disruption budgets, volumes.
    ///   Without it nothing makes service accounts, and pods are admitted without one.
    /// - [`Program::Scheduler`], in its default configuration.
    /// - [`Program::Kwok`]: pods that are bound to nodes of [`crate::nodes`] run at once, and go when they are deleted. Without it they stay
    ///   pending, and deleting a bound pod takes a grace period of zero.
    pub programs: BTreeSet<Program>,
    /// The controllers of kube-controller-manager, as for its `--controllers`. Empty: all but those that need clouds, certificates or networks, and those
    /// that taint nodes and evict from them only together with KWOK, as nobody else renews the leases of simulated nodes.
    pub controllers: Vec<String>,
    /// Have etcd write to the disk before it answers: slower, and what it takes to survive a machine that stops. A process that is
    /// killed loses nothing either way.
    pub fsync: bool,
    /// Raise the limits on requests: for benchmarks that must not measure them.
    pub generous: bool,
    /// Users with a token, for [`crate::ControlPlane::kubeconfig_for`].
    pub users: Vec<User>,
    /// More flags for a program, behind ours: a later flag wins.
    pub flags: BTreeMap<Program, Vec<String>>,
}

impl Options {
    /// Whether `program` is among them.
    #[must_use]
    pub fn runs(&self, program: Program) -> bool {
        matches!(program, Program::Etcd | Program::ApiServer) || self.programs.contains(&program)
    }

    fn controllers(&self) -> Vec<String> {
        if !self.controllers.is_empty() {
            return self.controllers.clone();
        }
        let nodes: &[&str] = if self.runs(Program::Kwok) { &[] } else { &NODE_CONTROLLERS };
        let off = USELESS_CONTROLLERS.iter().chain(nodes).map(|name| format!("-{name}"));
        std::iter::once("*".to_owned()).chain(off).collect()
    }

    /// Whether something removes the taint that a new node has until it is ready.
    fn nodes_are_watched(&self) -> bool {
        let controllers = self.controllers();
        let name = NODE_CONTROLLERS[0];
        let listed = |wanted: &str| controllers.iter().any(|controller| controller == wanted);
        self.runs(Program::ControllerManager) && !listed(&format!("-{name}")) && (listed("*") || listed(name))
    }
}

/// They declare nodes without a fresh lease dead.
const NODE_CONTROLLERS: [&str; 2] = ["node-lifecycle-controller", "taint-eviction-controller"];

/// They look after clouds, certificates, networks and the upkeep of long-lived clusters: nothing that a simulated cluster has.
const USELESS_CONTROLLERS: [&str; 21] = [
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "horizontal-pod-autoscaler-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "node-ipam-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "podcertificaterequest-cleaner-controller",
    "resourcepoolstatusrequest-controller",
    "selinux-warning-controller",
    "service-cidr-controller",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
    "volumeattributesclass-protection-controller",
];

/// The loopback ports of one control plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) api: u16,
}

/// Names of files and folders in the folder of a control plane.
pub(crate) mod files {
    pub(crate) const ETCD: &str = "etcd";
    pub(crate) const CERTIFICATES: &str = "certificates";
    pub(crate) const TOKENS: &str = "tokens.csv";
    pub(crate) const SERVICE_ACCOUNT_KEY: &str = "service-accounts.key";
    pub(crate) const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "service-accounts.pub";
    pub(crate) const LOGS: &str = "logs";
}

/// The file of `program` and the arguments that it is started with, in the folder `folder`. `kubeconfig` is the program's own.
pub(crate) fn command<'a>(
    program: Program,
    programs: &'a Programs,
    options: &Options,
    ports: Ports,
    folder: &Path,
    kubeconfig: &Path,
) -> (&'a Path, Vec<String>) {
    let (path, mut arguments) = match program {
        Program::Etcd => (&programs.etcd, etcd(options, ports, folder)),
        Program::ApiServer => (&programs.api_server, api_server(options, ports, folder)),
        Program::ControllerManager => (&programs.controller_manager, controller_manager(options, folder, kubeconfig)),
        Program::Scheduler => (&programs.scheduler, scheduler(options, kubeconfig)),
        Program::Kwok => (&programs.kwok, kwok(&programs.kwok_stages, kubeconfig)),
    };
    arguments.extend(options.flags.get(&program).into_iter().flatten().cloned());
    (path, arguments)
}

fn etcd(options: &Options, ports: Ports, folder: &Path) -> Vec<String> {
    let [client, peer] = [ports.etcd, ports.etcd_peer].map(|port| format!("http://127.0.0.1:{port}"));
    vec![
        format!("--data-dir={}", folder.join(files::ETCD).display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        format!("--unsafe-no-fsync={}", !options.fsync),
        // 8 GiB, the most that etcd suggests: benchmarks make many objects.
        "--quota-backend-bytes=8589934592".to_owned(),
    ]
}

fn api_server(options: &Options, ports: Ports, folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        format!("--secure-port={}", ports.api),
        "--bind-address=127.0.0.1".to_owned(),
        // An address of documentation (RFC 5737), as loopback is refused; nothing in the cluster dials it, so nobody has to publish it.
        "--advertise-address=192.0.2.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", file(files::CERTIFICATES)),
        format!("--token-auth-file={}", file(files::TOKENS)),
        format!("--service-account-key-file={}", file(files::SERVICE_ACCOUNT_PUBLIC_KEY)),
        format!("--service-account-signing-key-file={}", file(files::SERVICE_ACCOUNT_KEY)),
        format!("--service-account-issuer={SERVICE_ACCOUNT_ISSUER}"),
        "--service-cluster-ip-range=10.0.0.0/16".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
        // When it is asked to end it waits two seconds for open watches, not sixty.
        "--shutdown-send-retry-after=true".to_owned(),
    ];
    let mut off = Vec::new();
    if !options.runs(Program::ControllerManager) {
        off.push("ServiceAccount");
    }
    if !options.nodes_are_watched() {
        off.push("TaintNodesByCondition");
    }
    if !off.is_empty() {
        arguments.push(format!("--disable-admission-plugins={}", off.join(",")));
    }
    if options.generous {
        arguments.extend(["--max-requests-inflight=10000", "--max-mutating-requests-inflight=5000"].map(str::to_owned));
    }
    arguments
}

fn controller_manager(options: &Options, folder: &Path, kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", options.controllers().join(",")),
        format!("--service-account-private-key-file={}", folder.join(files::SERVICE_ACCOUNT_KEY).display()),
        format!("--root-ca-file={}", folder.join(files::CERTIFICATES).join("apiserver.crt").display()),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // Its default of 20 a second is for clusters with others to serve; here a test waits.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
    ]
}

fn scheduler(options: &Options, kubeconfig: &Path) -> Vec<String> {
    let mut arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--authentication-kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    if options.generous {
        arguments.extend(["--kube-api-qps=5000", "--kube-api-burst=5000"].map(str::to_owned));
    }
    arguments
}

fn kwok(stages: &Path, kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--config={}", stages.display()),
        // No server: it would take a port on every address, the same for all.
        "--node-port=0".to_owned(),
        // A node that a real kubelet or a simulated agent looks after must not be declared ready by somebody else.
        "--manage-all-nodes=false".to_owned(),
        format!("--manage-nodes-with-annotation-selector={}={}", crate::nodes::KWOK_ANNOTATION.0, crate::nodes::KWOK_ANNOTATION.1),
    ]
}
