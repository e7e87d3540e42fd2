//! Loading: from bytes to a policy that answers, one stage after the other.

use std::fmt;
use std::path::PathBuf;

use partita_core::policy::Fault;
use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::artifact::Artifact;
use crate::bindings::{Issue, PartitionerIndices};
use crate::cache::{Cache, CacheError, Id};
use crate::check::{self, Shape, StaticError};
use crate::compile::{self, CompileError, Compiler};
use crate::describe::Info;
use crate::engine;
use crate::instance::{self, Instance, Module, StartError, State};
use crate::limits::{DETAIL_CHARS, ISSUES, Limits, TEXT_BYTES};
use crate::log::Log;
use crate::revision;
use crate::text::{clean, hex};
use crate::wasm::WasmPolicy;

/// How a host works.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Directory of compiled components, made if it is missing; none to compile at every start.
    pub cache_dir: Option<PathBuf>,
    /// The compiler's process.
    pub compiler: Compiler,
    /// The highest limits that a revision may have.
    pub ceiling: Limits,
}

impl HostConfig {
    /// The default limits, this program as compiler, and no cache.
    ///
    /// # Errors
    /// The operating system's, when it does not say which program this is.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { cache_dir: None, compiler: Compiler::this_program()?, ceiling: Limits::default() })
    }
}

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The cache directory is not safe or not usable.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// wasmtime does not start.
    #[error("wasmtime does not start on this machine: {0}")]
    Engine(String),
    /// There is no thread for the clock.
    #[error("there is no thread for the clock that stops runaway policies")]
    Ticker(#[source] std::io::Error),
}

/// The stages of loading, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The limits and the settings document, without the component.
    Request,
    /// What can be seen in the bytes.
    Static,
    /// Machine code, from the cache or the compiler.
    Compile,
    /// A trial instance, which shows whether every type fits.
    Instantiate,
    /// What the policy says of itself.
    Describe,
    /// Whether the policy accepts the settings.
    Settings,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] = [Self::Request, Self::Static, Self::Compile, Self::Instantiate, Self::Describe, Self::Settings];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Static => "static",
            Self::Compile => "compile",
            Self::Instantiate => "instantiate",
            Self::Describe => "describe",
            Self::Settings => "settings",
        })
    }
}

/// Why a module is refused; see [`LoadError`] for the policy's name.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// A limit above that of its class.
    #[error("limit {limit} is {asked} and may be at most {highest}; lower it, or raise the limits of the host")]
    Limit {
        /// Name of the limit.
        limit: &'static str,
        /// The value asked for.
        asked: u64,
        /// The highest value allowed.
        highest: u64,
    },
    /// A name that no bundled policy has.
    #[error("no bundled policy has that name; there are {known}")]
    Unknown {
        /// The names that there are.
        known: String,
    },
    /// The settings are no JSON document, or a huge one.
    #[error("the settings are no JSON document of at most {TEXT_BYTES} bytes: {0}")]
    NotJson(String),
    /// A static check.
    #[error(transparent)]
    Static(#[from] StaticError),
    /// The compiler.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The artifact, or a type of the component, does not fit.
    #[error("it does not fit the world `partitioner` of `partita:policy@{version}`: {0}", version = check::PACKAGE_VERSION)]
    Mismatch(String),
    /// It failed while it was tried out.
    #[error("it failed while it was tried out: {0}")]
    Fault(Fault),
    /// What it says of itself is not acceptable.
    #[error("{0}")]
    Info(String),
    /// It does not accept the settings.
    #[error("it does not accept the settings: {list}", list = issues(.0))]
    Settings(Vec<SettingsIssue>),
}

/// One thing wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingsIssue {
    /// JSON pointer to the offending value; empty for the whole document.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

fn issues(issues: &[SettingsIssue]) -> String {
    let line =
        |issue: &SettingsIssue| if issue.path.is_empty() { issue.message.clone() } else { format!("`{}`: {}", issue.path, issue.message) };
    issues.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// A module that was not loaded.
#[derive(Debug, thiserror::Error)]
#[error("policy `{name}` is refused at stage {stage}")]
pub struct LoadError {
    /// Name under which it was to be loaded.
    pub name: String,
    /// The stage that refused it.
    pub stage: Stage,
    /// Why.
    #[source]
    pub reason: Reason,
}

/// What is known of a module that was loaded.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleInfo {
    /// SHA-256 of the component, in hexadecimal.
    pub sha256: String,
    /// What the static checks saw.
    pub shape: Shape,
    /// Bytes of machine code.
    pub artifact_bytes: usize,
    /// Whether the machine code came from the cache.
    pub cached: bool,
}

/// A policy that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: WasmPolicy,
    /// Its module.
    pub module: ModuleInfo,
}

/// Loads policies and runs their clock. Any number of policies share one host.
pub struct Host {
    engine: Engine,
    linker: Linker<State>,
    cache: Option<Cache>,
    compiler: Compiler,
    ceiling: Limits,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("cache", &self.cache)
            .field("compiler", &self.compiler)
            .field("ceiling", &self.ceiling)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Starts a host and its clock.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let start = |error: wasmtime::Error| HostError::Engine(format!("{error:#}"));
        let engine = engine::engine().map_err(start)?;
        let linker = instance::linker(&engine).map_err(start)?;
        let cache = config.cache_dir.as_deref().map(Cache::open).transpose()?;
        engine::tick(&engine).map_err(HostError::Ticker)?;
        Ok(Self { engine, linker, cache, compiler: config.compiler, ceiling: config.ceiling })
    }

    /// Loads `component` under `name` with `settings` (a JSON document; the empty text for none) and `limits`, which may be lower than the
    /// host's ceiling and not higher.
    ///
    /// # Errors
    /// The stage that refused it and why.
    pub fn load(&self, name: &str, component: &[u8], settings: &str, limits: Limits) -> Result<Loaded, LoadError> {
        let mut loading = Loading::new(self, name, component, settings, limits);
        match loading.all() {
            Ok((policy, artifact_bytes, cached)) => {
                let sha256 = hex(&Sha256::digest(component));
                let shape = loading.shape.take().unwrap_or_default();
                Ok(Loaded { policy, module: ModuleInfo { sha256, shape, artifact_bytes, cached } })
            }
            Err(reason) => Err(LoadError { name: clean(name, DETAIL_CHARS), stage: loading.stage, reason }),
        }
    }

    /// The highest limits that a revision may have.
    #[must_use]
    pub fn ceiling(&self) -> Limits {
        self.ceiling
    }

    /// The component of `bytes`, from the cache or the compiler: bytes of machine code, and whether they came from the cache.
    fn component(&self, bytes: &[u8]) -> Result<(Component, usize, bool), Reason> {
        let id = Id::new(bytes, &self.engine);
        if let Some(cache) = &self.cache
            && let Some(artifact) = cache.get(id)
        {
            match artifact.load(&self.engine) {
                Ok(component) => return Ok((component, artifact.bytes().len(), true)),
                Err(error) => {
                    tracing::warn!("refused a compiled policy in the cache and compiles it again: {error:#}");
                    cache.remove(id);
                }
            }
        }
        let artifact: Artifact = compile::compile(&self.compiler, bytes)?;
        let component = artifact.load(&self.engine).map_err(|error| mismatch(&error))?;
        if let Some(cache) = &self.cache {
            cache.put(id, &artifact);
        }
        Ok((component, artifact.bytes().len(), false))
    }
}

fn mismatch(error: &wasmtime::Error) -> Reason {
    Reason::Mismatch(clean(&format!("{error:#}"), DETAIL_CHARS))
}

/// A module on its way through the stages; what the later ones add is there as far as they came.
pub(crate) struct Loading<'a> {
    host: &'a Host,
    name: &'a str,
    bytes: &'a [u8],
    settings: &'a str,
    limits: Limits,
    /// The stage under way, or the one that failed.
    pub(crate) stage: Stage,
    /// After [`Stage::Static`].
    pub(crate) shape: Option<Shape>,
    /// Bytes of machine code, after [`Stage::Compile`].
    pub(crate) artifact_bytes: Option<usize>,
    /// After [`Stage::Describe`].
    pub(crate) info: Option<Info>,
}

impl<'a> Loading<'a> {
    pub(crate) fn new(host: &'a Host, name: &'a str, bytes: &'a [u8], settings: &'a str, limits: Limits) -> Self {
        Self { host, name, bytes, settings, limits, stage: Stage::Request, shape: None, artifact_bytes: None, info: None }
    }

    /// Every stage in order: the policy, the bytes of machine code, and whether they came from the cache.
    pub(crate) fn all(&mut self) -> Result<(WasmPolicy, usize, bool), Reason> {
        self.request()?;
        self.stage = Stage::Static;
        self.shape = Some(check::check(self.bytes, self.host.engine.get_wasm_features())?);
        self.stage = Stage::Compile;
        let (component, artifact_bytes, cached) = self.host.component(self.bytes)?;
        self.artifact_bytes = Some(artifact_bytes);
        self.stage = Stage::Instantiate;
        let pre = self.host.linker.instantiate_pre(&component).map_err(|error| mismatch(&error))?;
        let exports = PartitionerIndices::new(&pre).map_err(|error| mismatch(&error))?;
        let module = Module { pre, exports, limits: self.limits, log: Log::new(clean(self.name, DETAIL_CHARS).into()) };
        let mut instance = Instance::start(&module).map_err(|error| match error {
            StartError::Fault(fault) => Reason::Fault(fault),
            StartError::Mismatch(error) => mismatch(&error),
        })?;
        self.stage = Stage::Describe;
        let info = instance.describe().map_err(Reason::Fault)?;
        info.check().map_err(Reason::Info)?;
        self.info = Some(info.clone());
        self.stage = Stage::Settings;
        refuse(instance.validate(self.settings).map_err(Reason::Fault)?)?;
        refuse(instance.configure(self.settings).map_err(Reason::Fault)?)?;
        Ok((WasmPolicy::new(module, self.settings.to_owned(), info, revision::next(), instance), artifact_bytes, cached))
    }

    fn request(&self) -> Result<(), Reason> {
        if let Some((limit, asked, highest)) = self.limits.above(&self.host.ceiling) {
            return Err(Reason::Limit { limit, asked, highest });
        }
        check_settings(self.settings)
    }
}

/// Settings are the empty text or a JSON document of a bounded size.
pub(crate) fn check_settings(settings: &str) -> Result<(), Reason> {
    if settings.len() > TEXT_BYTES {
        return Err(Reason::NotJson(format!("they have {} bytes", settings.len())));
    }
    if !settings.trim().is_empty() {
        serde_json::from_str::<serde::de::IgnoredAny>(settings).map_err(|error| Reason::NotJson(error.to_string()))?;
    }
    Ok(())
}

/// Turns what a policy finds wrong with its settings into a refusal.
fn refuse(result: Result<(), Vec<Issue>>) -> Result<(), Reason> {
    let Err(issues) = result else { return Ok(()) };
    let issue = |issue: Issue| SettingsIssue { path: clean(&issue.path, DETAIL_CHARS), message: clean(&issue.message, DETAIL_CHARS) };
    Err(Reason::Settings(issues.into_iter().take(ISSUES).map(issue).collect()))
}
