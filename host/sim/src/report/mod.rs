//! One page for a whole comparison: a file that opens anywhere and fetches nothing.
//!
//! Markup is made with maud, which escapes every text; chart data travel as JSON in which no `<` is left; and a content security policy
//! in the page forbids every request, so that a name in a trace can neither run nor call home.

mod charts;
mod format;
mod tables;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{Facts, Outcome, RunResult, Unplaceable};
use format::{count, plural};

const CSS: &str = include_str!("report.css");
const JS: &str = include_str!("report.js");
/// Nothing may be loaded, and nothing but the page's own script and style may run.
const POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'";

/// The report on `outcome` as an HTML document.
#[must_use]
pub fn html(outcome: &Outcome) -> String {
    let charts = charts::all(outcome);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(outcome)) " · partita" }
                style { (PreEscaped(CSS)) }
            }
            body {
                main {
                    (head(outcome))
                    (tables::highlights(outcome))
                    section aria-labelledby="comparison" {
                        h2 id="comparison" { "Comparison" }
                        (tables::comparison(outcome))
                    }
                    (chart_section(outcome, &charts))
                    (tables::unplaced(outcome))
                    (tables::failures(outcome))
                    (notes(outcome))
                }
                script type="application/json" id="chart-data" { (PreEscaped(charts::json(&charts))) }
                script { (PreEscaped(charts::library())) }
                script { (PreEscaped(JS)) }
            }
        }
    };
    page.into_string()
}

/// Whether the pods came in order and stayed, so that time means nothing and the share asked for does.
fn fills(result: &RunResult) -> bool {
    !result.allocation.is_empty()
}

fn title(outcome: &Outcome) -> String {
    match outcome.runs.as_slice() {
        [run] => run.policy.clone(),
        runs => format!("{} compared", plural(runs.len(), "policy", "policies")),
    }
}

fn head(outcome: &Outcome) -> Markup {
    let facts = &outcome.facts;
    html! {
        header {
            p.brand { "partita" span { "simulation report" } }
            h1 { (title(outcome)) }
            p.lead { (summary(facts)) }
            dl.facts {
                div { dt { "Cluster" } dd { (facts.cluster) } }
                div { dt { "Workload" } dd { (facts.workload) } }
                div { dt { "GPUs" } dd { (gpus(facts)) } }
                div { dt { "Seed" } dd { (facts.options.seed) } }
            }
        }
    }
}

fn summary(facts: &Facts) -> String {
    let gpus: usize = facts.gpus.values().sum();
    let fate = match facts.options.unplaceable {
        Unplaceable::Wait => "A pod that does not fit waits until it does.",
        Unplaceable::Drop => "Pods are decided one at a time; one that does not fit is dropped.",
    };
    format!(
        "{}, {} of them with a GPU, on {} with {}. {fate}",
        plural(facts.arrivals, "pod", "pods"),
        count(facts.gpu_arrivals),
        plural(facts.nodes, "node", "nodes"),
        plural(gpus, "GPU", "GPUs"),
    )
}

fn gpus(facts: &Facts) -> String {
    let models: Vec<String> = facts.gpus.iter().map(|(model, gpus)| format!("{} × {model}", count(*gpus))).collect();
    if models.is_empty() { "none".to_owned() } else { models.join(", ") }
}

fn chart_section(outcome: &Outcome, charts: &[charts::Chart]) -> Markup {
    html! {
        section aria-labelledby="charts" {
            div.bar {
                h2 id="charts" { "Charts" }
                // The script counts the policies by these buttons, so a lone one is there too, unseen.
                div.legend hidden[outcome.runs.len() == 1] role="group" aria-label="Policies shown" {
                    @for (row, run) in outcome.runs.iter().enumerate() {
                        button type="button" aria-pressed="true" title=(run.policy) { span.dot.{ "p" (row % tables::COLOURS) } {} (run.policy) }
                    }
                }
            }
            p.hint { "Drag across a chart to look closer, double-click to go back."
                @if outcome.runs.len() > 1 { " Click a policy to hide or show it." }
            }
            noscript { p.hint { "The charts need JavaScript; the tables do not." } }
            div.charts {
                @for chart in charts {
                    figure {
                        figcaption {
                            strong { (chart.title) }
                            span { (chart.note) }
                            @if chart.variants.len() > 1 {
                                div.switch role="group" aria-label="Measure" data-chart=(chart.id) {
                                    @for (row, variant) in chart.variants.iter().enumerate() {
                                        button type="button" aria-pressed=(if row == 0 { "true" } else { "false" }) data-variant=(row) { (variant.name) }
                                    }
                                }
                            }
                        }
                        div.plot id=(chart.id) role="img" aria-label=(chart.title) {}
                    }
                }
            }
        }
    }
}

fn notes(outcome: &Outcome) -> Markup {
    html! {
        footer {
            h2 { "How to read this" }
            dl {
                dt { "Allocated" }
                dd { "GPU in use, in percent of all GPUs: thousandths of shared GPUs, memory slots of GPUs cut by MIG. Means are over the time from the first to the last arrival." }
                dt { "Fragmentation" }
                dd { "Free GPU that a pod of the expected mix cannot use, weighted by how often such pods come, in percent of what is free (the measure of FGD, USENIX ATC’23). The mix is the most frequent pod types that make up 95 % of this workload." }
                dt { "Wait" }
                dd { "From arrival to placement, in virtual time. A pod that still waits at the end counts with what it waited so far; one that no node could take even when idle is left out." }
                @if outcome.runs.iter().any(|run| fills(&run.result)) {
                    dt { "Asked" }
                    dd { "GPU that all pods so far asked for, placed or not, in percent of all GPUs. Allocated at x % is the mean over the arrivals after which the share asked for rounds to x." }
                }
                dt { "Decision time" }
                dd { "Wall-clock time of the machine that ran the simulation, the only figure here that differs from run to run." }
            }
            p { "Made by partita " (env!("CARGO_PKG_VERSION")) ". The same input, seed and policies give the same figures." }
        }
    }
}
