//! Charts: data and axes here, by plotly; colours and fonts in `report.js`, which knows whether the page is light or dark.

use plotly::{
    Bar, Layout, Plot, Scatter,
    common::{DashType, Line, LineShape, Mode, Title},
    layout::{Axis, BarMode, RangeMode},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{fills, format::unit, tables::COLOURS};
use crate::{
    Outcome,
    metrics::{Series, Waits},
};

/// The most that the share asked for is drawn to, in percent: beyond it nothing moves any more.
const ASKED_MAX: u64 = 200;

/// A chart of the page.
pub(super) struct Chart {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) note: String,
    /// One, or several that the reader switches between.
    pub(super) variants: Vec<Variant>,
}

/// Data and axes of a chart; the first traces are the policies', in their order.
pub(super) struct Variant {
    pub(super) name: &'static str,
    plot: Plot,
}

/// All charts of the page.
pub(super) fn all(outcome: &Outcome) -> Vec<Chart> {
    if outcome.runs.iter().any(|run| fills(&run.result)) {
        return vec![allocation(outcome), over_time(outcome, &FRAGMENTATION)];
    }
    let mut charts = vec![over_time(outcome, &ALLOCATED), over_time(outcome, &FRAGMENTATION)];
    if outcome.runs.iter().any(|run| run.result.waits.pods > 0) {
        charts.extend([over_time(outcome, &WAITING), waits(outcome)]);
    }
    charts
}

/// The charts as JSON that may stand in a page: `{"id": [plot, …], …}`, without any `<`.
pub(super) fn json(charts: &[Chart]) -> String {
    #[derive(Serialize)]
    struct Data<'a> {
        id: &'a str,
        plots: Vec<Box<RawValue>>,
    }
    let data: Vec<Data<'_>> = charts
        .iter()
        .map(|chart| {
            let plots = chart.variants.iter().filter_map(|variant| RawValue::from_string(variant.plot.to_json()).ok()).collect();
            Data { id: chart.id, plots }
        })
        .collect();
    let json = serde_json::to_string(&data).unwrap_or_default();
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// plotly's own script, without the formula renderer that the crate ships beside it: no label here is a formula.
pub(super) fn library() -> String {
    let scripts = Plot::offline_js_sources();
    let start = scripts.find('>').map_or(0, |end| end + 1);
    let end = scripts.find("</script>").unwrap_or(scripts.len());
    scripts[start..end].to_owned()
}

/// A text as plotly wants it: it reads a few tags and entities in labels.
fn label(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn dash(row: usize) -> DashType {
    match row / COLOURS % 3 {
        0 => DashType::Solid,
        1 => DashType::Dash,
        _ => DashType::Dot,
    }
}

fn line(name: &str, row: usize, x: Vec<f64>, y: Vec<f64>, shape: LineShape, hover: &str) -> Box<Scatter<f64, f64>> {
    let stroke = Line::new().width(2.0).shape(shape).dash(dash(row));
    Scatter::new(x, y).name(label(name)).mode(Mode::Lines).line(stroke).hover_template(hover)
}

fn layout(x: &str, y: &str, from_zero: bool) -> Layout {
    let range = if from_zero { RangeMode::ToZero } else { RangeMode::Normal };
    Layout::new()
        .show_legend(false)
        .x_axis(Axis::new().title(Title::from(x)).range_mode(RangeMode::ToZero))
        .y_axis(Axis::new().title(Title::from(y)).range_mode(range))
}

/// A quantity of the series.
struct Quantity {
    id: &'static str,
    title: &'static str,
    note: &'static str,
    axis: &'static str,
    hover: &'static str,
    /// Whether the axis starts at zero; not where all that matters happens far from it.
    from_zero: bool,
    value: fn(&Series) -> &Vec<f64>,
}

const ALLOCATED: Quantity = Quantity {
    id: "allocated",
    title: "Allocated GPU",
    note: "higher is better",
    axis: "Allocated (% of all GPUs)",
    hover: "%{y:.1f} %",
    from_zero: true,
    value: |series| &series.allocated,
};
const FRAGMENTATION: Quantity = Quantity {
    id: "fragmentation",
    title: "Fragmentation",
    note: "lower is better · axis does not start at 0",
    axis: "Unusable for the mix (% of free GPU)",
    hover: "%{y:.1f} %",
    from_zero: false,
    value: |series| &series.fragmentation,
};
const WAITING: Quantity = Quantity {
    id: "waiting",
    title: "Waiting pods",
    note: "lower is better",
    axis: "Waiting (pods)",
    hover: "%{y:.0f} pods",
    from_zero: true,
    value: |series| &series.waiting,
};

fn over_time(outcome: &Outcome, quantity: &Quantity) -> Chart {
    let end = outcome.runs.iter().map(|run| run.result.end_s).fold(0.0, f64::max);
    // Pods that come one each second in a given order: seconds count them.
    let counted = outcome.runs.iter().all(|run| fills(&run.result)) && (end - (outcome.facts.arrivals as f64 - 1.0)).abs() < 0.5;
    let (axis, length) = if counted {
        ("Arrived (pods)".to_owned(), 1.0)
    } else {
        let (name, length) = unit(end);
        (format!("Virtual time ({name})"), length)
    };
    let mut plot = Plot::new();
    for (row, run) in outcome.runs.iter().enumerate() {
        let series = &run.result.series;
        let x = series.time_s.iter().map(|time| time / length).collect();
        plot.add_trace(line(&run.policy, row, x, (quantity.value)(series).clone(), LineShape::Linear, quantity.hover));
    }
    plot.set_layout(layout(&axis, quantity.axis, quantity.from_zero));
    Chart { id: quantity.id, title: quantity.title, note: quantity.note.to_owned(), variants: vec![Variant { name: quantity.title, plot }] }
}

fn allocation(outcome: &Outcome) -> Chart {
    let mut plot = Plot::new();
    let mut last = 0;
    for (row, run) in outcome.runs.iter().enumerate() {
        let drawn: Vec<&(u64, f64)> = run.result.allocation.iter().filter(|entry| entry.0 <= ASKED_MAX).collect();
        last = last.max(drawn.last().map_or(0, |entry| entry.0));
        let x = drawn.iter().map(|entry| entry.0 as f64).collect();
        let y = drawn.iter().map(|entry| entry.1).collect();
        plot.add_trace(line(&run.policy, row, x, y, LineShape::Linear, "%{y:.2f} %"));
    }
    let corner = last.min(100) as f64;
    let bound = Line::new().width(1.0).dash(DashType::Dot);
    let ideal = Scatter::new(vec![0.0, corner, last as f64], vec![0.0, corner, corner]);
    plot.add_trace(ideal.name("all that fits").mode(Mode::Lines).line(bound).hover_template("%{y:.0f} %"));
    plot.set_layout(layout("Asked for (% of all GPUs)", "Allocated (% of all GPUs)", true));
    let note = "higher is better · dotted: everything that was asked for".to_owned();
    Chart { id: "allocation", title: "Allocated as pods arrive", note, variants: vec![Variant { name: "Allocated", plot }] }
}

fn waits(outcome: &Outcome) -> Chart {
    let variant = |name, value| Variant { name, plot: waits_plot(outcome, name, value) };
    let variants = vec![
        variant("Mean", |waits| waits.mean_s),
        variant("Median", |waits| waits.p50_s),
        variant("p99", |waits| waits.p99_s),
        variant("Longest", |waits| waits.max_s),
    ];
    Chart { id: "waits", title: "Wait by namespace", note: "lower is better".to_owned(), variants }
}

fn waits_plot(outcome: &Outcome, name: &str, value: fn(&Waits) -> f64) -> Plot {
    let all = outcome.runs.iter().flat_map(|run| run.result.waits_by_namespace.values());
    let (unit, length) = unit(all.map(value).fold(0.0, f64::max));
    let mut plot = Plot::new();
    for run in &outcome.runs {
        let namespaces: Vec<String> = run.result.waits_by_namespace.keys().map(|name| label(name)).collect();
        let bars = run.result.waits_by_namespace.values().map(|waits| (value(waits) / length * 1e3).round() / 1e3).collect();
        plot.add_trace(Bar::new(namespaces, bars).name(label(&run.policy)).hover_template(format!("%{{y:.1f}} {unit}")));
    }
    let axis = format!("{name} wait ({unit})");
    plot.set_layout(layout("Namespace", &axis, true).bar_mode(BarMode::Group));
    plot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_the_chart_script_and_nothing_else() {
        let script = library();
        assert!(script.trim_start().starts_with("/**\n* plotly.js v"), "{}", &script[..80]);
        assert!(!script.contains("</script") && !script.contains("MathJax.loader"));
        assert!(script.len() > 1_000_000);
    }
}
