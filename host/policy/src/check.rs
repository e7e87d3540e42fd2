//! Static checks of a component, before anything compiles it: what it is, what it asks for, and whether it is small enough.
//!
//! The checks read every byte once with the validator that wasmtime itself uses, and take milliseconds for the largest module allowed.

use semver::{Version, VersionReq};
use serde::Serialize;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::Types;
use wasmparser::{BinaryReaderError, FuncValidatorAllocations, FunctionBody, Parser, Payload, ValidPayload, Validator, WasmFeatures};

use crate::limits::{BODY_BYTES, FUNCTIONS, ITEMS, LOCALS, MEMORIES, MODULE_BYTES, MODULES};
use crate::text::clean;

/// The package whose worlds this host speaks, and its version.
pub(crate) const PACKAGE: &str = "partita:policy";
/// The version of [`PACKAGE`] that this host implements. Components of every compatible version load.
pub(crate) const PACKAGE_VERSION: &str = "0.1.0";
/// The only interface with a function that a component may import, and that function.
const HOST: (&str, &str) = ("host", "log");
/// Characters of a name in a message.
const NAME_CHARS: usize = 200;

/// What the static checks learnt of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Bytes of the component.
    pub bytes: usize,
    /// Core modules inside.
    pub modules: u32,
    /// Functions with a body, of all core modules.
    pub functions: u32,
    /// Bytes of the largest function body.
    pub largest_function: usize,
    /// Locals of the function with the most.
    pub most_locals: u64,
    /// Names of the interfaces that it imports.
    pub imports: Vec<String>,
    /// Names of the interfaces that it exports.
    pub exports: Vec<String>,
}

/// Why a component is refused before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticError {
    /// Nothing was handed over.
    #[error("the file is empty")]
    Empty,
    /// Too large.
    #[error(
        "the file has more than {} MiB ({MODULE_BYTES} bytes), the largest module allowed; build for size, strip debug sections (keep names)",
        MODULE_BYTES >> 20
    )]
    Size,
    /// Not WebAssembly.
    #[error("the file is not WebAssembly: it does not begin with `\\0asm`")]
    NotWasm,
    /// A core module.
    #[error("the file is a core module, not a component; wrap it with `wit-component` (`wasm-tools component new`)")]
    CoreModule,
    /// Truncated, malformed, or in need of a proposal that is off.
    #[error("the component is not valid for this host: {0}")]
    Invalid(String),
    /// A cap on numbers.
    #[error("the component has {count} {what} and may have {max}")]
    Count {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        count: u64,
        /// The cap.
        max: u64,
    },
    /// A function that would be slow to compile.
    #[error("function {index} has {count} {what} and may have {max}, because compile time grows faster than a function; split it")]
    Function {
        /// Number of the function among those with a body.
        index: u32,
        /// `bytes` or `locals`.
        what: &'static str,
        /// How many.
        count: u64,
        /// The cap.
        max: u64,
    },
    /// An import that no policy may have.
    #[error(
        "it imports `{name}`, and a policy may import `log` of `partita:policy/host` only; build for `wasm32-unknown-unknown`, which needs no WASI"
    )]
    Import {
        /// Name of the import.
        name: String,
    },
    /// An interface of another version of the package.
    #[error("it is built against `{name}`, and this host speaks `partita:policy@{PACKAGE_VERSION}` and compatible versions; rebuild it")]
    Version {
        /// Name of the interface.
        name: String,
    },
    /// A quota policy where a partitioner is expected.
    #[error("it is a component of world `quota`, and one of world `partitioner` is needed here")]
    Quota,
    /// Neither world.
    #[error("it is of no world of `partita:policy`: world `partitioner` exports `{missing}`, and it exports {exports}")]
    World {
        /// The first interface that is missing.
        missing: &'static str,
        /// What it exports instead.
        exports: String,
    },
}

impl From<BinaryReaderError> for StaticError {
    fn from(error: BinaryReaderError) -> Self {
        Self::Invalid(clean(&error.to_string(), NAME_CHARS))
    }
}

/// Checks `bytes` for an engine with the proposals `features`, and describes what is in them.
///
/// # Errors
/// The first reason to refuse them.
pub(crate) fn check(bytes: &[u8], features: WasmFeatures) -> Result<Shape, StaticError> {
    match bytes.len() {
        0 => return Err(StaticError::Empty),
        len if len > MODULE_BYTES => return Err(StaticError::Size),
        _ => {}
    }
    if Parser::is_core_wasm(bytes) {
        return Err(StaticError::CoreModule);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(StaticError::NotWasm);
    }
    let mut walk = Walk { shape: Shape { bytes: bytes.len(), ..Shape::default() }, ..Walk::default() };
    let types = walk.all(bytes, features)?;
    check_imports(&walk.shape.imports, &types)?;
    check_world(&walk.shape.exports)?;
    Ok(walk.shape)
}

/// The state of one pass over a component.
#[derive(Default)]
struct Walk {
    shape: Shape,
    /// How many modules and components enclose the payload.
    depth: u32,
    items: u32,
    components: u32,
    instances: u32,
    bodies: u32,
}

impl Walk {
    fn all(&mut self, bytes: &[u8], features: WasmFeatures) -> Result<Types, StaticError> {
        let mut validator = Validator::new_with_features(features);
        let mut allocations = FuncValidatorAllocations::default();
        let mut outermost = None;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            self.count(&payload)?;
            match validator.payload(&payload)? {
                ValidPayload::Func(function, body) => {
                    self.body(&body)?;
                    let mut function = function.into_validator(allocations);
                    function.validate(&body)?;
                    allocations = function.into_allocations();
                }
                ValidPayload::End(types) => {
                    self.depth -= 1;
                    outermost = Some(types);
                }
                ValidPayload::Ok | ValidPayload::Parser(_) => {}
            }
        }
        outermost.ok_or_else(|| StaticError::Invalid("it ends before the component does".into()))
    }

    /// Counts what `payload` announces, and refuses what is too much of it.
    fn count(&mut self, payload: &Payload<'_>) -> Result<(), StaticError> {
        let items = match payload {
            Payload::Version { .. } => {
                self.depth += 1;
                0
            }
            Payload::FunctionSection(section) => {
                self.shape.functions = cap("functions", self.shape.functions, section.count(), FUNCTIONS)?;
                0
            }
            Payload::ModuleSection { .. } => {
                self.shape.modules = cap("core modules", self.shape.modules, 1, MODULES)?;
                0
            }
            Payload::ComponentSection { .. } => {
                self.components = cap("nested components", self.components, 1, MODULES)?;
                0
            }
            Payload::InstanceSection(section) => self.instances(section.count())?,
            Payload::ComponentInstanceSection(section) => self.instances(section.count())?,
            Payload::MemorySection(section) => cap("memories in a module", 0, section.count(), MEMORIES)?,
            Payload::TableSection(section) => cap("tables in a module", 0, section.count(), MEMORIES)?,
            Payload::ComponentImportSection(section) => {
                if self.depth == 1 {
                    for import in section.clone() {
                        self.shape.imports.push(import?.name.name.to_owned());
                    }
                }
                section.count()
            }
            Payload::ComponentExportSection(section) => {
                if self.depth == 1 {
                    for export in section.clone() {
                        self.shape.exports.push(export?.name.name.to_owned());
                    }
                }
                section.count()
            }
            Payload::TypeSection(section) => section.count(),
            Payload::ImportSection(section) => section.count(),
            Payload::GlobalSection(section) => section.count(),
            Payload::ExportSection(section) => section.count(),
            Payload::ElementSection(section) => section.count(),
            Payload::DataSection(section) => section.count(),
            Payload::CoreTypeSection(section) => section.count(),
            Payload::ComponentAliasSection(section) => section.count(),
            Payload::ComponentTypeSection(section) => section.count(),
            Payload::ComponentCanonicalSection(section) => section.count(),
            _ => 0,
        };
        self.items = cap("types, imports, exports and segments", self.items, items, ITEMS)?;
        Ok(())
    }

    fn instances(&mut self, more: u32) -> Result<u32, StaticError> {
        self.instances = cap("instances", self.instances, more, MODULES)?;
        Ok(0)
    }

    /// Measures a function body before the validator reads it.
    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), StaticError> {
        let index = self.bodies;
        self.bodies += 1;
        let bytes = body.range().len();
        if bytes > BODY_BYTES {
            return Err(StaticError::Function { index, what: "bytes", count: bytes as u64, max: BODY_BYTES as u64 });
        }
        let mut locals = 0u64;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
        }
        if locals > LOCALS {
            return Err(StaticError::Function { index, what: "locals", count: locals, max: LOCALS });
        }
        self.shape.largest_function = self.shape.largest_function.max(bytes);
        self.shape.most_locals = self.shape.most_locals.max(locals);
        Ok(())
    }
}

/// `sum` and `more`, unless that is above `max`.
fn cap(what: &'static str, sum: u32, more: u32, max: u32) -> Result<u32, StaticError> {
    let count = u64::from(sum) + u64::from(more);
    if count > u64::from(max) {
        return Err(StaticError::Count { what, count, max: u64::from(max) });
    }
    Ok(sum + more)
}

/// The part of an interface's name after `partita:policy/` if the name has that form, and whether its version is one that this host speaks.
fn interface(name: &str) -> Option<(&str, bool)> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.strip_prefix('/')?.split_once('@')?;
    let speaks = VersionReq::parse(PACKAGE_VERSION).is_ok_and(|ours| Version::parse(version).is_ok_and(|theirs| ours.matches(&theirs)));
    Some((interface, speaks))
}

/// Only `log` of `host`, and instances without functions (types), may be imported.
fn check_imports(imports: &[String], types: &Types) -> Result<(), StaticError> {
    for name in imports {
        let refused = |part: &str| StaticError::Import { name: clean(&format!("{name}{part}"), NAME_CHARS) };
        let Some((interface, speaks)) = interface(name) else { return Err(refused("")) };
        if !speaks {
            return Err(StaticError::Version { name: clean(name, NAME_CHARS) });
        }
        let Some(item) = types.component_item_for_import(name) else { return Err(refused("")) };
        let ComponentEntityType::Instance(instance) = item.ty else { return Err(refused("")) };
        for (export, item) in &types[instance].exports {
            match item.ty {
                ComponentEntityType::Type { .. } => {}
                ComponentEntityType::Func(_) if (interface, export.as_str()) == HOST => {}
                _ => return Err(refused(&format!("#{export}"))),
            }
        }
    }
    Ok(())
}

/// The exports must be those of world `partitioner`.
fn check_world(exports: &[String]) -> Result<(), StaticError> {
    let has = |wanted: &str| exports.iter().filter_map(|name| interface(name)).any(|(name, speaks)| name == wanted && speaks);
    if let Some(name) = exports.iter().find(|name| interface(name).is_some_and(|(_, speaks)| !speaks)) {
        return Err(StaticError::Version { name: clean(name, NAME_CHARS) });
    }
    if has("borrowing") && !has("partitioning") {
        return Err(StaticError::Quota);
    }
    let missing = [("lifecycle", "partita:policy/lifecycle"), ("partitioning", "partita:policy/partitioning")];
    match missing.into_iter().find(|(name, _)| !has(name)) {
        None => Ok(()),
        Some((_, missing)) => {
            let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            Err(StaticError::World { missing, exports: clean(&exports, NAME_CHARS) })
        }
    }
}
