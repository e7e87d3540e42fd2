//! A scenario's file as a whole: what belongs together, and what contradicts.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use partita_core::{
    Config, Reuse,
    model::{GpuModel, NodeId, NodeSpec},
    state::Grant,
};
use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, ValueDeserializer},
};

use super::{
    NODES_MAX, PODS_MAX, SCENARIO_MAX, Scenario, ScenarioPod, called,
    keys::{Keys, Value},
    nodes::{self, Seen, Taken},
    pods, steps,
};
use crate::{
    Cluster, amount,
    error::{Fault, InputError},
    ledger::Ledger,
    mix::Mix,
    models::{Known, Placed},
    text,
};

/// The most places that can be kept, and the most pods moved for one: more than a scenario has pods.
const COUNT_MAX: u32 = 10_000;

pub(super) fn scenario(file: &str, bytes: &[u8]) -> Result<Scenario, InputError> {
    let text = text::checked(file, bytes, SCENARIO_MAX)?;
    let lines = text::Lines::of(text.as_bytes());
    let line = |span: Range<usize>| lines.at(span.start);
    let root = DeTable::parse(text)
        .map_err(|error| Fault::new(error.message(), "see FORMATS.md for how a scenario is written").at(file, error.span().map(line)))?;
    let scenario = Reader::default().read(file, root.get_ref(), root.span(), &line);
    scenario.map_err(|(fault, span)| if span.is_empty() { fault.at(file, None) } else { fault.at(file, line(span)) })
}

/// What is known while a file is read.
#[derive(Default)]
struct Reader {
    /// Rows of nodes and pods by name, with the line.
    nodes: BTreeMap<String, (usize, u64)>,
    pods: BTreeMap<String, (usize, u64)>,
    /// What pods use, with the row of the node.
    taken: Vec<(usize, Taken)>,
}

/// The line where something is.
pub(super) type LineOf<'l> = &'l dyn Fn(Range<usize>) -> u64;

impl Reader {
    fn read(mut self, file: &str, root: &DeTable<'_>, span: Range<usize>, line: LineOf<'_>) -> Result<Scenario, Placed> {
        let mut keys = Keys::new("a scenario", root, span);
        let title = keys.read("title", |text| amount::name(text).map(str::to_owned))?;
        let policy = keys.maybe("policy").map(|value| Ok((value.text()?.to_owned(), line(value.span)))).transpose()?;
        let config = keys.maybe("config").map_or(Ok(Config::DEFAULT), |value| config(value.table("[config]")?))?;
        let mut seen = Seen { models: models(&mut keys)?, uuids: BTreeSet::new() };
        let nodes = self.nodes(keys.tables("node", "[[node]]")?, &mut seen, line)?;
        let budgets = budgets(keys.tables("budget", "[[budget]]")?)?;
        let pods = keys.tables("pod", "[[pod]]")?;
        let steps = keys.tables("step", "[[step]]")?;
        keys.finish(&[])?;
        let cluster = Cluster { name: file.into(), models: seen.models.into_models(), nodes };
        let pods = self.pods(pods, &cluster, &budgets, line)?;
        let steps = steps::steps(steps, &pods, &budgets, &|name| self.pod(name), line)?;
        Ok(Scenario { file: file.into(), title, policy, config, models: cluster.models, nodes: cluster.nodes, budgets, pods, steps })
    }

    fn nodes(&mut self, tables: Vec<Keys<'_, '_>>, seen: &mut Seen, line: LineOf<'_>) -> Result<Vec<NodeSpec>, Placed> {
        let mut nodes = Vec::new();
        for keys in tables {
            let span = keys.span.clone();
            let (node, taken) = nodes::node(keys, seen)?;
            unique(&mut self.nodes, &node.name, "node", span.clone(), line)?;
            if nodes.len() == NODES_MAX {
                return Err(beyond("nodes", NODES_MAX, span));
            }
            self.taken.extend(taken.into_iter().map(|taken| (nodes.len(), taken)));
            nodes.push(node);
        }
        if nodes.is_empty() { Err((Fault::new("has no nodes", "add [[node]] with name and gpus"), 0..0)) } else { Ok(nodes) }
    }

    fn pods(
        &mut self,
        tables: Vec<Keys<'_, '_>>,
        cluster: &Cluster,
        budgets: &[(String, u32)],
        line: LineOf<'_>,
    ) -> Result<Vec<ScenarioPod>, Placed> {
        let mut entries = Vec::new();
        for keys in tables {
            let span = keys.span.clone();
            let entry = pods::pod(keys, budgets)?;
            unique(&mut self.pods, &called(&entry.spec), "pod", span.clone(), line)?;
            if entries.len() == PODS_MAX {
                return Err(beyond("pods", PODS_MAX, span));
            }
            entries.push(entry);
        }
        let mut uses: Vec<Vec<(usize, &Taken)>> = vec![Vec::new(); entries.len()];
        for (node, taken) in &self.taken {
            let row = self.pod(&taken.pod).map_err(|fault| (fault.column("partitions"), taken.span.clone()))?;
            uses[row].push((*node, taken));
        }
        let mut ledger = Ledger::new(cluster, &Mix::new());
        let uses = entries.into_iter().zip(uses);
        uses.map(|(entry, uses)| self.one_pod(entry, &uses, cluster, &mut ledger)).collect()
    }

    fn one_pod(
        &self,
        entry: pods::Entry<'_, '_>,
        uses: &[(usize, &Taken)],
        cluster: &Cluster,
        ledger: &mut Ledger<'_>,
    ) -> Result<ScenarioPod, Placed> {
        let taken: Vec<&Taken> = uses.iter().map(|part| part.1).collect();
        let name = called(&entry.spec);
        let Some(on) = entry.on.clone() else {
            if let Some((node, part)) = uses.first() {
                let remedy = format!("add on = \"{}\" to the pod", cluster.nodes[*node].name);
                return Err((Fault::new("is a pod that is not said to run", remedy).value(&name).column("partitions"), part.span.clone()));
            }
            return Ok(ScenarioPod { spec: entry.checked(&taken)?, runs: None });
        };
        let row = on.read(|text| self.nodes.get(text).map(|node| node.0).ok_or_else(|| unknown("node", text, &self.nodes)))?;
        if let Some((other, part)) = uses.iter().find(|part| part.0 != row) {
            let problem = format!("runs on {} and cannot use a part of {}", cluster.nodes[row].name, cluster.nodes[*other].name);
            return Err((Fault::new(problem, "correct one of them").value(&name).column("partitions"), part.span.clone()));
        }
        let spec = entry.checked(&taken)?;
        let mut grant = Grant(taken.iter().map(|part| (part.gpu, part.used)).collect());
        grant.0.sort_unstable();
        let wrong =
            |problem: String| on.blame(Fault::new(problem, "make what it asks for and the partitions that name it agree").value(&name));
        ledger.bind(row, &spec.demand, &grant).map_err(|problem| {
            let short = problem.ends_with("is short");
            wrong(if short {
                format!("does not fit: {problem}")
            } else {
                format!("asks for {}, which is not what it uses", spec.demand.gpu)
            })
        })?;
        Ok(ScenarioPod { spec, runs: Some((NodeId::new(row), grant)) })
    }

    /// The row of the pod called `name`, which may have its namespace before it.
    fn pod(&self, name: &str) -> Result<usize, Fault> {
        let found = self.pods.get(name).or_else(|| self.pods.get(name.strip_prefix("default/")?));
        found.map(|pod| pod.0).ok_or_else(|| unknown("pod", name, &self.pods))
    }
}

fn models(keys: &mut Keys<'_, '_>) -> Result<Known, Placed> {
    let described = keys.maybe("model").map(|value| value.list()).transpose()?.unwrap_or_default();
    let one = |value: &Value<'_, '_>| {
        let input = ValueDeserializer::from(Spanned::new(value.span.clone(), value.toml().clone()));
        let model = GpuModel::deserialize(input).map_err(|error| {
            let span = error.span().unwrap_or_else(|| value.span.clone());
            (Fault::new(error.message(), "see FORMATS.md for the keys of a model").column("model"), span)
        })?;
        Ok(Spanned::new(value.span.clone(), model))
    };
    Known::described(&described.iter().map(one).collect::<Result<Vec<_>, Placed>>()?)
}

fn config(mut keys: Keys<'_, '_>) -> Result<Config, Placed> {
    let number = |text: &str| amount::count32(text, COUNT_MAX, "pods");
    let reuse = |text: &str| match text {
        "first" => Ok(Reuse::First),
        "free" => Ok(Reuse::Free),
        _ => Err(Fault::new("is no way to reuse partitions", "write first or free").value(text)),
    };
    let preempt = keys.maybe("preempt").is_none() || keys.flag("preempt")?;
    let config = Config {
        seed: keys.read("seed", |text| amount::count(text, u64::MAX, "seeds"))?.unwrap_or(0),
        reuse: keys.read("reuse", reuse)?.unwrap_or_default(),
        moves: keys.read("moves", number)?.unwrap_or(Config::DEFAULT.moves),
        preempt,
        patience_ms: keys.read("patience", amount::seconds_ms)?.unwrap_or(Config::DEFAULT.patience_ms),
        hold_ms: keys.read("hold", amount::seconds_ms)?.unwrap_or(Config::DEFAULT.hold_ms),
        holds: keys.read("holds", number)?.unwrap_or(Config::DEFAULT.holds),
    };
    keys.finish(&[])?;
    Ok(config)
}

fn budgets(tables: Vec<Keys<'_, '_>>) -> Result<Vec<(String, u32)>, Placed> {
    let mut budgets: Vec<(String, u32)> = Vec::new();
    for mut keys in tables {
        let name = keys.value("name")?;
        let allowed = keys.value("allowed")?.read(|text| amount::count32(text, COUNT_MAX, "pods"))?;
        let text = name.read(|text| amount::name(text).map(str::to_owned))?;
        if budgets.iter().any(|budget| budget.0 == text) {
            return Err(name.blame(Fault::new("is the name of another budget too", "give each budget its own name").value(&text)));
        }
        keys.finish(&[])?;
        budgets.push((text, allowed));
    }
    Ok(budgets)
}

fn unique(names: &mut BTreeMap<String, (usize, u64)>, name: &str, what: &str, span: Range<usize>, line: LineOf<'_>) -> Result<(), Placed> {
    let row = names.len();
    match names.insert(name.to_owned(), (row, line(span.clone()))) {
        Some((_, first)) => {
            let fault = Fault::new(format!("is the name of the {what} in line {first} too"), format!("give each {what} its own name"));
            Err((fault.value(name).column("name"), span))
        }
        None => Ok(()),
    }
}

fn unknown(what: &str, name: &str, known: &BTreeMap<String, (usize, u64)>) -> Fault {
    let some: Vec<&str> = known.keys().take(20).map(String::as_str).collect();
    let known = if some.is_empty() { "there is none".to_owned() } else { format!("known are {}", some.join(", ")) };
    Fault::new(format!("is a {what} that nobody described"), format!("add a [[{what}]] of that name; {known}")).value(name)
}

pub(super) fn beyond(what: &str, limit: usize, span: Range<usize>) -> Placed {
    (Fault::new(format!("is beyond the limit of {limit} {what}"), "tell a smaller story"), span)
}
