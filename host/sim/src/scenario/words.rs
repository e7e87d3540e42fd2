//! A transcript in words, at most 100 columns wide.

use std::fmt;

use partita_core::{model::Partitioning, state::Why};

use super::{
    draw,
    transcript::{Changed, Entry, Held, NodeLine, Step, Transcript, Used, Waiting},
};

/// Columns of a line.
const WIDTH: usize = 100;
/// Columns of the first word of a line.
const VERB: usize = 9;

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(title) = &self.title {
            wrapped(f, "", 0, title)?;
        }
        wrapped(f, "policy", VERB, &self.policy)?;
        for node in &self.nodes {
            wrapped(f, "node", VERB, &of_node(node))?;
        }
        for step in &self.steps {
            writeln!(f)?;
            write_step(f, step)?;
        }
        for failure in &self.failures {
            let text = format!("{} questions went to the fallback ({}): {}", failure.count, failure.cause, failure.example);
            writeln!(f)?;
            wrapped(f, "warning", VERB, &text)?;
        }
        Ok(())
    }
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
    writeln!(f, "At {} s", step.at_s)?;
    for entry in &step.entries {
        let (verb, text) = words(entry);
        wrapped(f, verb, VERB, &text)?;
    }
    if step.entries.is_empty() {
        wrapped(f, "nothing", VERB, "happens")?;
    }
    for waiting in &step.waiting {
        wrapped(f, "waits", VERB, &of_waiting(waiting))?;
    }
    writeln!(f)?;
    draw::gpus(f, &step.gpus)?;
    for gpu in &step.gpus {
        if let Some(fault) = &gpu.fault {
            wrapped(f, "aside", VERB, &format!("GPU {} of {}: {fault}", gpu.gpu, gpu.node))?;
        }
    }
    Ok(())
}

fn of_node(node: &NodeLine) -> String {
    let models: Vec<String> = node.models.iter().map(|(model, count)| format!("{count} {model}")).collect();
    let gpus = if models.is_empty() { "no GPU".to_owned() } else { models.join(", ") };
    let partitioning = match node.partitioning {
        Partitioning::Fixed => "each cut as it is",
        Partitioning::Off => "whole only",
        Partitioning::Mig => "may be cut by MIG",
        Partitioning::Mps => "may be shared by MPS",
        Partitioning::TimeSlicing => "may be time-sliced",
        Partitioning::Auto => "may be cut in any way",
    };
    format!("{}: {gpus}, {partitioning}", node.name)
}

fn words(entry: &Entry) -> (&'static str, String) {
    match entry {
        Entry::Budget { name, allowed } => ("budget", format!("{name} lets {allowed} be stopped")),
        Entry::Ended { pod } => ("ends", pod.clone()),
        Entry::Came { pod, priority, asks } => ("comes", format!("{}asks for {asks}", with_priority(pod, *priority))),
        Entry::Bind { pod, node, uses, changes } => ("bind", format!("{pod} to {node}: {}{}", of_uses(uses), of_changes(changes))),
        Entry::Evict { pod, node, by } => ("evict", format!("{pod} from {node}, for {by}")),
        Entry::Move { pod, from, node, uses, changes, by } => {
            let by = by.as_ref().map_or_else(String::new, |by| format!(", for {by}"));
            let to = if from == node { format!("within {node}") } else { format!("from {from} to {node}") };
            ("move", format!("{pod} {to}: {}{}{by}", of_uses(uses), of_changes(changes)))
        }
        Entry::Keep(held) => ("keep", format!("{} for {}{}", of_place(held), held.pod, of_terms(held))),
        Entry::GiveUp { pod, node } => ("give up", format!("the place on {node} that was kept for {pod}")),
        Entry::Stopped { pod, node } => ("stopped", format!("{pod} on {node}; it waits again")),
        Entry::Left { pod, node } => ("left", format!("{pod} its old place on {node}")),
    }
}

fn with_priority(pod: &str, priority: i32) -> String {
    if priority == 0 { format!("{pod} ") } else { format!("{pod}, priority {priority}, ") }
}

fn of_waiting(waiting: &Waiting) -> String {
    let pod = format!("{}asks for {}", with_priority(&waiting.pod, waiting.priority), waiting.asks);
    let text = match (&waiting.held, &waiting.reason) {
        (Some(held), _) => format!("{} is kept for it{}", of_place(held), of_terms(held)),
        (None, Some(reason)) => reason.to_string(),
        // A pod for which there is room waits only if no policy of the chain gave an answer.
        (None, None) => "a node has room, but no policy of the chain gave a usable answer".to_owned(),
    };
    format!("{pod}: {text}")
}

fn of_place(held: &Held) -> String {
    let uses = of_uses(&held.uses);
    format!("a place on {} ({uses})", held.node)
}

/// Until when, and for whom it waits.
fn of_terms(held: &Held) -> String {
    let waits = if held.waits_for.is_empty() { String::new() } else { format!(" as soon as {}", of_leaving(held)) };
    let until = held.until_s.map_or_else(String::new, |until| format!(", until {until} s at most"));
    format!("{waits}{until}")
}

fn of_leaving(held: &Held) -> String {
    let names = held.waits_for.join(", ");
    let one = held.waits_for.len() == 1;
    match held.why {
        Why::RoomMade => format!("{names} {} left", if one { "has" } else { "have" }),
        Why::Reserved => format!("{names} {}", if one { "ends" } else { "end" }),
    }
}

/// GPU by GPU: `GPU 0 1g.10gb at slot 0 (warm), 2g.20gb at slot 2 (made); GPU 1 whole`.
fn of_uses(uses: &[Used]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (row, used) in uses.iter().enumerate() {
        let made = match used.warm {
            Some(true) => " (warm)",
            Some(false) => " (made)",
            None => "",
        };
        let again = row > 0 && uses[row - 1].gpu == used.gpu;
        let gpu = if again { String::new() } else { format!("GPU {} ", used.gpu) };
        parts.push(format!("{gpu}{}{made}", used.part));
    }
    if parts.is_empty() { "no GPU".to_owned() } else { parts.join(", ") }
}

fn of_changes(changes: &[Changed]) -> String {
    let one = |change: &Changed| match change {
        Changed::Cut { gpu, from, to } => format!("; turns GPU {gpu} from {from} into {to}"),
        Changed::Destroy { gpu, part } => format!("; destroys warm {part} of GPU {gpu}"),
    };
    changes.iter().map(one).collect()
}

/// Writes a line that begins with `verb` and goes on indented.
fn wrapped(f: &mut fmt::Formatter<'_>, verb: &str, indent: usize, text: &str) -> fmt::Result {
    let mut line = format!("{verb:indent$}");
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{}", line.trim_end())?;
            (line, empty) = (" ".repeat(indent), true);
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(f, "{}", line.trim_end())
}
