//! The simulated cluster: our own format, as TOML.

use std::{collections::HashMap, fmt, ops::Range};

use partita_core::model::{Cut, GpuModel, GpuSpec, NodeSpec, Partitioning, node::GPUS_MAX};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

use crate::{
    SimError,
    amount::{self, Round},
    error::{Fault, InputError},
    models::{self, Known, Placed},
    openb::Arrivals,
    text,
};

/// The most nodes of a cluster: three times the largest Kubernetes cluster known.
pub const NODES_MAX: usize = 50_000;
/// The most GPUs of a cluster: eight on each node.
pub const CLUSTER_GPUS_MAX: usize = 8 * NODES_MAX;

/// Nodes and the GPU models they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What it is called in reports: the name of its file.
    pub name: String,
    /// GPU models, sorted by name.
    pub models: Vec<GpuModel>,
    /// Nodes; where a policy likes two equally, the earlier is taken.
    pub nodes: Vec<NodeSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    model: Vec<Spanned<GpuModel>>,
    #[serde(default)]
    node: Vec<Spanned<NodeEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    name: Spanned<String>,
    count: Option<Spanned<u32>>,
    cpu: Spanned<Cpu>,
    memory: Spanned<Memory>,
    #[serde(default)]
    gpus: Gpus,
    #[serde(default)]
    partitioning: Partitioning,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GpuEntry {
    model: Spanned<String>,
    count: Spanned<u32>,
    #[serde(default)]
    cut: Cut,
}

struct Cpu(String);
struct Memory(String);
#[derive(Default)]
struct Gpus(Vec<GpuEntry>);

impl Cluster {
    /// Reads our own format (FORMATS.md) from the bytes of the file called `file`.
    ///
    /// # Errors
    /// [`InputError`] with line, key, value and remedy.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, InputError> {
        let text = text::checked(file, bytes, text::CLUSTER_MAX)?;
        let lines = text::Lines::of(text.as_bytes());
        let line = |span: Range<usize>| lines.at(span.start);
        let parsed: File = toml::from_str(text)
            .map_err(|error| Fault::new(error.message(), "see FORMATS.md for the keys of a cluster").at(file, error.span().map(&line)))?;
        let known = Known::described(&parsed.model).map_err(|(fault, span)| fault.at(file, line(span)))?;
        let mut builder = Builder { known, names: HashMap::new(), nodes: Vec::new(), gpus: 0 };
        for entry in &parsed.node {
            let at = line(entry.span());
            builder.add(entry.get_ref(), at).map_err(|(fault, span)| fault.at(file, span.map_or(at, &line)))?;
        }
        if builder.nodes.is_empty() {
            let remedy = "add [[node]] with name, cpu, memory and gpus";
            return Err(Fault::new("has no nodes", remedy).at(file, None));
        }
        Ok(Self { name: file.into(), models: builder.known.into_models(), nodes: builder.nodes })
    }

    /// The cluster with its nodes, which are in order of their names, put in the order of the ranks of `arrivals`.
    ///
    /// # Errors
    /// [`SimError::Ranks`] if there are not as many ranks as nodes.
    pub fn ranked(mut self, arrivals: &Arrivals) -> Result<Self, SimError> {
        if arrivals.ranks.is_empty() {
            return Ok(self);
        }
        if arrivals.ranks.len() != self.nodes.len() {
            return Err(SimError::Ranks { file: arrivals.file.clone(), ranks: arrivals.ranks.len(), nodes: self.nodes.len() });
        }
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ranked: Vec<(u32, NodeSpec)> = arrivals.ranks.iter().copied().zip(self.nodes).collect();
        ranked.sort_by_key(|entry| entry.0);
        self.nodes = ranked.into_iter().map(|entry| entry.1).collect();
        Ok(self)
    }

    /// GPUs of all nodes.
    #[must_use]
    pub fn gpus(&self) -> usize {
        self.nodes.iter().map(|node| node.gpus.len()).sum()
    }

    /// The model named `name`.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&GpuModel> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The cluster written back in our own format.
    ///
    /// # Errors
    /// If TOML cannot say it; no cluster is known for which that is so.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        #[derive(Serialize)]
        struct File<'a> {
            model: &'a [GpuModel],
            node: Vec<Node<'a>>,
        }
        #[derive(Serialize)]
        struct Node<'a> {
            name: &'a str,
            cpu: String,
            memory: String,
            partitioning: Partitioning,
            gpus: Vec<Gpu<'a>>,
        }
        #[derive(Serialize)]
        struct Gpu<'a> {
            model: &'a str,
            count: u32,
            cut: Cut,
        }
        let nodes = self.nodes.iter().map(|node| Node {
            name: &node.name,
            cpu: format!("{}m", node.cpu_milli),
            memory: format!("{}Mi", node.memory_mib),
            partitioning: node.partitioning,
            gpus: node.gpus.iter().map(|gpu| Gpu { model: &gpu.model, count: 1, cut: gpu.cut }).collect(),
        });
        toml::to_string(&File { model: &self.models, node: nodes.collect() })
    }
}

struct Builder {
    known: Known,
    /// Line of each name given.
    names: HashMap<String, u64>,
    nodes: Vec<NodeSpec>,
    gpus: usize,
}

impl Builder {
    fn add(&mut self, entry: &NodeEntry, line: u64) -> Result<(), (Fault, Option<Range<usize>>)> {
        let at = |span: Range<usize>, column: &'static str| move |fault: Fault| (fault.column(column), Some(span));
        amount::name(entry.name.get_ref()).map_err(at(entry.name.span(), "name"))?;
        let cpu_milli = amount::cpu_milli(&entry.cpu.get_ref().0).map_err(at(entry.cpu.span(), "cpu"))?;
        let memory_mib = amount::memory_mib(&entry.memory.get_ref().0, Round::Down).map_err(at(entry.memory.span(), "memory"))?;
        let gpus = self.gpus_of(&entry.gpus.0).map_err(|(fault, span)| (fault, Some(span)))?;
        let names = names(entry).map_err(|(fault, span)| (fault, Some(span)))?;
        if self.nodes.len() + names.len() > NODES_MAX {
            return Err((Fault::new(format!("is beyond the limit of {NODES_MAX} nodes"), "describe fewer").column("node"), None));
        }
        self.gpus += gpus.len() * names.len();
        if self.gpus > CLUSTER_GPUS_MAX {
            return Err((Fault::new(format!("is beyond the limit of {CLUSTER_GPUS_MAX} GPUs"), "describe fewer").column("node"), None));
        }
        for name in names {
            if let Some(first) = self.names.insert(name.clone(), line) {
                let problem = format!("is the name of the node in line {first} too");
                return Err(at(entry.name.span(), "name")(Fault::new(problem, "give each node its own name").value(&name)));
            }
            self.nodes.push(NodeSpec {
                name,
                cpu_milli,
                memory_mib,
                gpus: gpus.clone(),
                partitioning: entry.partitioning,
                ..NodeSpec::default()
            });
        }
        Ok(())
    }

    fn gpus_of(&mut self, entries: &[GpuEntry]) -> Result<Vec<GpuSpec>, Placed> {
        let mut gpus = Vec::new();
        for entry in entries {
            let name = entry.model.get_ref();
            let model = self.known.get(name).map_err(|fault| (fault, entry.model.span()))?;
            models::can_be_cut(model, entry.cut).map_err(|fault| (fault.column("model"), entry.model.span()))?;
            let count = *entry.count.get_ref();
            if count == 0 || count as usize + gpus.len() > GPUS_MAX as usize {
                let remedy = format!("a node has 1 to {GPUS_MAX} GPUs, or no gpus key");
                let fault = Fault::new("is no number of GPUs for this node", remedy).value(&count.to_string());
                return Err((fault.column("count"), entry.count.span()));
            }
            gpus.extend(std::iter::repeat_n(GpuSpec::new(name, entry.cut), count as usize));
        }
        Ok(gpus)
    }
}

/// The names of the nodes that an entry stands for: its own, or with a count its name followed by 0, 1, …, padded to equal length.
fn names(entry: &NodeEntry) -> Result<Vec<String>, Placed> {
    let name = entry.name.get_ref();
    let Some(spanned) = &entry.count else { return Ok(vec![name.clone()]) };
    let count = *spanned.get_ref();
    if count == 0 || count as usize > NODES_MAX {
        let remedy = format!("write 1 to {NODES_MAX}, or leave it out for one node");
        return Err((Fault::new("is no number of nodes", remedy).value(&count.to_string()).column("count"), spanned.span()));
    }
    let width = (count - 1).to_string().len();
    Ok((0..count).map(|row| format!("{name}{row:0width$}")).collect())
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Amount("cores as 96, or milli-cores as \"500m\"", true)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Amount("memory with its unit, such as \"512Gi\"", false)).map(Self)
    }
}

/// Reads text, or a whole number where that is clear, as text.
struct Amount(&'static str, bool);

impl Visitor<'_> for Amount {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.into())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
        if self.1 { Ok(number.to_string()) } else { Err(E::invalid_type(serde::de::Unexpected::Signed(number), &self)) }
    }
}

impl<'de> Deserialize<'de> for Gpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Gpus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ model = \"...\", count = ..., cut = \"shares\", \"mig\" or \"mps\" }, or a list of such")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Gpus, A::Error> {
                GpuEntry::deserialize(MapAccessDeserializer::new(map)).map(|entry| Gpus(vec![entry]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Gpus, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    entries.push(entry);
                }
                Ok(Gpus(entries))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
