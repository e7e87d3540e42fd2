//! The report: complete, self-contained, and deaf to what names try to say.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod common;

use common::{Broken, Zeros};
use partita_sim::{Cluster, Contender, Options, Outcome, Unplaceable, Workload, report, sample, simulate};

fn outcome(name: &str, cluster: &Cluster, workload: &Workload, unplaceable: Unplaceable) -> Outcome {
    let (mut zeros, mut broken, mut fallback) = (Zeros, Broken { nonsense: false }, Zeros);
    let mut contenders = [
        Contender { name: name.into(), chain: vec![&mut zeros] },
        Contender { name: "broken".into(), chain: vec![&mut broken, &mut fallback] },
    ];
    simulate(cluster, workload, &Options { seed: 1, unplaceable, warm_up: 0 }, &mut contenders, &mut |_, _| {}).unwrap()
}

fn sample_outcome() -> Outcome {
    let (cluster, workload) = sample::bundled().unwrap();
    outcome("first-fit", &cluster, &workload, Unplaceable::Wait)
}

/// The page without the chart library, which is the largest script.
fn own(page: &str) -> String {
    let (start, _) = page.match_indices("<script>").next().unwrap();
    let end = start + page[start..].find("</script>").unwrap();
    format!("{}{}", &page[..start], &page[end..])
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let page = report::html(&sample_outcome());
    let own = own(&page);
    assert!(own.len() < 1_000_000 && page.len() > 4_000_000);
    for word in ["http:", "https:", "src=", "href=", "url(", "@import", "fetch(", "XMLHttpRequest", "<link", "<iframe", "<img"] {
        assert!(!own.contains(word), "{word}");
    }
    assert!(own.contains("default-src 'none'"), "the policy that forbids every request");
}

#[test]
fn every_run_chart_and_table_is_there() {
    let outcome = sample_outcome();
    let page = own(&report::html(&outcome));
    for id in ["allocated", "fragmentation", "waiting", "waits"] {
        assert!(page.contains(&format!("id=\"{id}\" role=\"img\"")) && page.contains(&format!("{{\"id\":\"{id}\"")), "{id}");
    }
    for text in [
        "2 policies compared",
        "first-fit",
        "broken",
        "Pods not placed",
        "never fits",
        "Policy failures",
        "it fell over &lt;b&gt;",
        "2,000 pods",
        "80 × A100-80GB",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let data = page.split("id=\"chart-data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let charts: serde_json::Value = serde_json::from_str(data).unwrap();
    let plots = |chart: usize| charts[chart]["plots"].as_array().unwrap();
    assert_eq!((plots(0).len(), plots(3).len()), (1, 4));
    assert_eq!(plots(0)[0]["data"].as_array().unwrap().len(), outcome.runs.len());
    assert_eq!(plots(0)[0]["data"][0]["y"].as_array().unwrap().len(), outcome.runs[0].result.series.allocated.len());
    assert_eq!(plots(3)[0]["data"][0]["x"].as_array().unwrap().len(), 5);
}

#[test]
fn a_run_that_fills_the_cluster_is_drawn_by_what_was_asked_for() {
    let (cluster, mut workload) = sample::bundled().unwrap();
    for arrival in &mut workload.arrivals {
        arrival.lifetime_ms = None;
    }
    let outcome = outcome("first-fit", &cluster, &workload, Unplaceable::Drop);
    assert!(!outcome.runs[0].result.allocation.is_empty());
    let page = own(&report::html(&outcome));
    for text in ["id=\"allocation\"", "Allocated at 100 %", "Asked for (% of all GPUs)", "Dropped"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("id=\"waits\""));
}

#[test]
fn names_are_text_wherever_they_stand() {
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&'\"";
    let quoted = format!("\"{}\"", evil.replace('"', "\"\""));
    let text = format!(
        "name,namespace,cpu,memory,gpus,models,arrival\n{quoted},{quoted},1,1Gi,1,,0\nb,b,99999,1Gi,1,,0\n{quoted},c,1,1Gi,1,{},0\n",
        "<b>Q</b>"
    );
    let cluster = format!("[[node]]\nname = '''{evil}'''\ncpu = 8\nmemory = \"8Gi\"\ngpus = {{ model = \"T4\", count = 1 }}\n");
    let mut cluster = Cluster::parse("c", cluster.as_bytes()).unwrap();
    evil.clone_into(&mut cluster.name);
    let mut workload = Workload::parse("w", text.as_bytes()).unwrap();
    evil.clone_into(&mut workload.name);
    let page = report::html(&outcome(evil, &cluster, &workload, Unplaceable::Wait));
    let own = own(&page);
    assert!(own.contains("&lt;/script&gt;&lt;script&gt;alert(1)"), "the names are shown");
    assert!(!own.contains("<script>alert") && !own.contains("<img") && !own.contains("<b>Q"), "and are nothing but text");
    // Three scripts: data, library, page. In the data no tag can begin, and labels reach plotly as text.
    assert_eq!((page.matches("<script").count() - page.matches("\"<script").count(), own.matches("</script>").count()), (3, 3));
    let data = own.split("id=\"chart-data\">").nth(1).unwrap().split("</script>").next().unwrap();
    assert!(!data.contains('<') && data.contains("\\u0026lt;/script\\u0026gt;"));
}
