//! A control plane that runs: its programs, what it is ready for, and what tests do to it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::Signal;

use crate::{
    access::{Access, Server},
    error::{Doing, Error},
    etcd::Etcd,
    folder::{Folder, free_ports},
    options::{Options, Ports, Program, command, files},
    process::{self, Process},
    programs::{self, Programs},
};

/// How long a program may take to become ready, on a machine that does much else.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// How long a program may take to end before it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// How often readiness is asked about.
const ASKED_EVERY: Duration = Duration::from_millis(20);
/// How soon the end of a program is noticed.
const NOTICED_WITHIN: Duration = Duration::from_millis(200);
/// Starts with other ports when somebody else took one of them in between.
const TRIES: usize = 5;

/// A Kubernetes control plane on loopback. Everything of it ends and goes when this is dropped, and the programs end with this process
/// however it ends.
#[derive(Debug)]
pub struct ControlPlane {
    // In this order: the programs end before their folder goes.
    processes: Mutex<BTreeMap<Program, Process>>,
    programs: Programs,
    options: Options,
    ports: Ports,
    access: Access,
    server: Server,
    config: Config,
    kubeconfig: PathBuf,
    folder: Folder,
}

impl ControlPlane {
    /// Builds the programs if they are not built yet, starts those that `options` name, and returns when they are ready.
    ///
    /// # Errors
    /// When a program cannot be built, or does not become ready: then with the end of its log.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let programs = tokio::task::spawn_blocking(programs::build).await;
        let programs = programs.map_err(std::io::Error::other).doing(|| "the build was interrupted".to_owned())??;
        let mut tried = 1;
        loop {
            match Self::start_once(programs.clone(), options.clone()).await {
                Err(Error::NotReady { last_lines, .. }) if tried < TRIES && last_lines.contains("address already in use") => tried += 1,
                other => return other,
            }
        }
    }

    async fn start_once(programs: Programs, options: Options) -> Result<Self, Error> {
        let folder = Folder::new()?;
        let logs = folder.path().join(files::LOGS);
        fs::create_dir(&logs).doing(|| format!("could not make {}", logs.display()))?;
        let [etcd, etcd_peer, api] = free_ports()?;
        let access = Access::create(&options, folder.path())?;
        let url = format!("https://127.0.0.1:{api}");
        let config = Config::new(url.parse().map_err(std::io::Error::other).doing(|| format!("{url} is no address"))?);
        let mut started = Self {
            processes: Mutex::default(),
            programs,
            options,
            ports: Ports { etcd, etcd_peer, api },
            access,
            server: Server { url, certificates: Vec::new() },
            config,
            kubeconfig: PathBuf::new(),
            folder,
        };
        started.start_again(Program::Etcd).await?;
        started.spawn(Program::ApiServer)?;
        started.learn_certificates().await?;
        started.wait_for_api_server().await?;
        for program in [Program::ControllerManager, Program::Scheduler, Program::Kwok] {
            if started.options.runs(program) {
                started.start_again(program).await?;
            }
        }
        started.wait_for_namespace().await?;
        Ok(started)
    }

    /// A client that may do everything and whose requests no limit of the API server holds up. It belongs to the runtime that this is
    /// called in. It repeats no refused request, so that tests see every answer.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::try_from(self.config.clone()).expect("the same settings made a client when the control plane was started")
    }

    /// The administrator's kubeconfig file, complete in itself: it can be copied elsewhere.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig file for one of [`Options::users`], or for a service account `system:serviceaccount:NAMESPACE:NAME` that exists.
    ///
    /// # Errors
    /// When there is no such user.
    pub async fn kubeconfig_for(&self, user: &str) -> Result<PathBuf, Error> {
        self.access.kubeconfig_for(user, self.client(), &self.server, self.folder.path()).await
    }

    /// A client for one of [`Options::users`] or a service account, like [`Self::client`] in all but what it may do.
    ///
    /// # Errors
    /// When there is no such user.
    pub async fn client_for(&self, user: &str) -> Result<Client, Error> {
        let path = self.kubeconfig_for(user).await?;
        Client::try_from(config(&path).await?).doing(|| format!("no client for {user}"))
    }

    /// Where the API server listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// The folder of everything that this control plane keeps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `program` said since the first start.
    #[must_use]
    pub fn log(&self, program: Program) -> PathBuf {
        self.folder.path().join(files::LOGS).join(format!("{program}.log"))
    }

    /// Where the programs lie.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The number of the process of `program`, if it runs.
    #[must_use]
    pub fn process_id(&self, program: Program) -> Option<u32> {
        self.processes().get_mut(&program).and_then(|process| process.ended().is_none().then(|| process.id()))
    }

    /// Asks `program` to end and waits until it has.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&self, program: Program) -> Result<(), Error> {
        let mut process = self.take(program)?;
        process.stop(STOPPED_WITHIN).await.doing(|| format!("could not stop {program}"))
    }

    /// Ends `program` as `kill -9` would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, program: Program) -> Result<(), Error> {
        self.take(program)?.kill().doing(|| format!("could not kill {program}"))
    }

    /// Starts a program that was stopped or killed, or that ended, with the ports and data it had, and waits until it is ready.
    ///
    /// # Errors
    /// When it was not chosen in [`Options`], or does not become ready.
    pub async fn start_again(&self, program: Program) -> Result<(), Error> {
        if !self.options.runs(program) {
            return Err(Error::NotRunning { program, remedy: "it was not chosen in the options of the start" });
        }
        if self.process_id(program).is_some() {
            return Ok(());
        }
        self.spawn(program)?;
        match program {
            Program::Etcd => self.wait_for_etcd().await,
            Program::ApiServer => self.wait_for_api_server().await,
            // They show nobody that they are ready; whoever depends on their work waits for that.
            Program::ControllerManager | Program::Scheduler | Program::Kwok => Ok(()),
        }
    }

    /// Stops `program` and starts it again.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start_again`].
    pub async fn restart(&self, program: Program) -> Result<(), Error> {
        self.stop(program).await?;
        self.start_again(program).await
    }

    /// Makes `program` stand still, as a machine out of breath would: connections stay, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, program: Program) -> Result<(), Error> {
        self.with(program, Process::pause)
    }

    /// Lets a paused program go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, program: Program) -> Result<(), Error> {
        self.with(program, |process| process.signal(Signal::CONT))
    }

    /// Waits until a program ends that nobody stopped, and says which and why.
    pub async fn failure(&self) -> Error {
        loop {
            let ended = self.processes().iter_mut().find_map(|(&program, process)| Some((program, process.ended()?)));
            if let Some((program, status)) = ended {
                return self.not_ready(program, format!("ended by itself ({status})"));
            }
            tokio::time::sleep(NOTICED_WITHIN).await;
        }
    }

    /// Makes etcd forget every revision but the present one, which it returns. The API server's own memory of what was still answers
    /// watches of older versions and further pages of lists for a while; see [`Self::forget_history`].
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn compact(&self) -> Result<i64, Error> {
        Etcd::new(self.ports.etcd)?.compact().await
    }

    /// Makes both etcd and the API server forget what was: a watch of an older version, or a further page of an older list, is refused
    /// with 410 Gone, as it is when a scheduler comes back after too long. The API server is restarted, so every open watch ends.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub async fn forget_history(&self) -> Result<(), Error> {
        self.compact().await?;
        self.restart(Program::ApiServer).await
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Program, Process>> {
        // A panic elsewhere leaves the map whole: every change is one insertion or removal.
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, program: Program) -> Result<Process, Error> {
        let remedy = "it was stopped, or not chosen in the options of the start";
        self.processes().remove(&program).ok_or(Error::NotRunning { program, remedy })
    }

    fn with(&self, program: Program, act: impl FnOnce(&mut Process) -> std::io::Result<()>) -> Result<(), Error> {
        let mut processes = self.processes();
        let process = processes.get_mut(&program).ok_or(Error::NotRunning { program, remedy: "start it again first" })?;
        act(process).doing(|| format!("could not signal {program}"))
    }

    fn spawn(&self, program: Program) -> Result<(), Error> {
        let folder = self.folder.path();
        let kubeconfig = match program {
            Program::Etcd | Program::ApiServer => PathBuf::new(),
            other => self.access.kubeconfig(Some(other), &self.server, folder)?,
        };
        let (path, arguments) = command(program, &self.programs, &self.options, self.ports, folder, &kubeconfig);
        let process = Process::start(path, &arguments, folder, &self.log(program)).doing(|| format!("could not run {}", path.display()))?;
        self.processes().insert(program, process);
        Ok(())
    }

    /// Asks `ready` until it says yes, as long as `program` runs and not for ever.
    async fn wait(&self, program: Program, what: &str, ready: impl AsyncFn() -> bool) -> Result<(), Error> {
        let began = Instant::now();
        while !ready().await {
            let ended = self.processes().get_mut(&program).and_then(Process::ended);
            let why = match ended {
                Some(status) => format!("ended ({status}) before {what}"),
                None if began.elapsed() > READY_WITHIN => format!("runs, but within {} s not {what}", READY_WITHIN.as_secs()),
                None => {
                    tokio::time::sleep(ASKED_EVERY).await;
                    continue;
                }
            };
            return Err(self.not_ready(program, why));
        }
        Ok(())
    }

    fn not_ready(&self, program: Program, why: String) -> Error {
        let log = self.log(program);
        let last_lines = process::last_lines(&log);
        Error::NotReady { program, why, log, last_lines }
    }

    async fn wait_for_etcd(&self) -> Result<(), Error> {
        let etcd = Etcd::new(self.ports.etcd)?;
        self.wait(Program::Etcd, "it was healthy", async || etcd.is_healthy().await).await
    }

    /// The API server makes its certificates when it starts for the first time.
    async fn learn_certificates(&mut self) -> Result<(), Error> {
        let folder = self.folder.path().join(files::CERTIFICATES);
        // The key is written last.
        let key = folder.join("apiserver.key");
        self.wait(Program::ApiServer, "it had a certificate", async || fs::metadata(&key).is_ok_and(|key| key.len() > 0)).await?;
        let path = folder.join("apiserver.crt");
        self.server.certificates = fs::read(&path).doing(|| format!("could not read {}", path.display()))?;
        self.kubeconfig = self.access.kubeconfig(None, &self.server, self.folder.path())?;
        self.config = config(&self.kubeconfig).await?;
        Client::try_from(self.config.clone()).doing(|| format!("no client from {}", self.kubeconfig.display())).map(drop)
    }

    async fn wait_for_api_server(&self) -> Result<(), Error> {
        let client = self.client();
        let ready = async || match http::Request::get("/readyz").body(Vec::new()) {
            Ok(request) => client.request_text(request).await.is_ok(),
            Err(_) => false,
        };
        self.wait(Program::ApiServer, "it was ready", ready).await
    }

    /// Until pods can be made in the default namespace.
    async fn wait_for_namespace(&self) -> Result<(), Error> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let exists = async || namespaces.get("default").await.is_ok();
        self.wait(Program::ApiServer, "it had made the default namespace", exists).await?;
        if self.options.runs(Program::ControllerManager) {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), "default");
            let exists = async || accounts.get("default").await.is_ok();
            self.wait(Program::ControllerManager, "it had made the default service account", exists).await?;
        }
        Ok(())
    }
}

async fn config(kubeconfig: &Path) -> Result<Config, Error> {
    let read =
        Kubeconfig::read_from(kubeconfig).map_err(std::io::Error::other).doing(|| format!("could not read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(std::io::Error::other).doing(|| format!("could not use {}", kubeconfig.display()))?;
    config.default_retry = false;
    Ok(config)
}
