//! What happens, in words on standard error, and in spans to an OpenTelemetry collector if there is one.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::args::LogFormat;

/// Sends spans until it is dropped; what is left is sent then.
pub(crate) struct Spans {
    provider: SdkTracerProvider,
    /// The connection lives there.
    _runtime: Runtime,
}

impl Drop for Spans {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("the last spans were not sent: {error}");
        }
    }
}

/// Begins to log. `PARTITA_LOG` takes the place of `-v`, in the syntax of tracing's `EnvFilter`.
pub(crate) fn start(verbose: u8, format: LogFormat, collector: Option<&str>) -> Result<Option<Spans>> {
    let level = ["warn", "info", "debug"].get(usize::from(verbose)).unwrap_or(&"trace");
    let filter = EnvFilter::try_from_env("PARTITA_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let words = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let words = match format {
        LogFormat::Text => words.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => words.json().boxed(),
    };
    let spans = collector.map(exporter).transpose()?;
    let tracer = spans.as_ref().map(|spans| {
        // Ours only: the libraries' spans are many and say little.
        let ours = Targets::new().with_target("partita", tracing::Level::INFO);
        tracing_opentelemetry::layer().with_tracer(spans.provider.tracer("partita")).with_filter(ours)
    });
    tracing_subscriber::registry().with(words.with_filter(filter)).with(tracer).init();
    Ok(spans)
}

fn exporter(collector: &str) -> Result<Spans> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("there is no thread to run on")?;
    let within = runtime.enter();
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(collector).build();
    let exporter = exporter.with_context(|| format!("spans cannot be sent to {collector}; name a collector like http://localhost:4317"))?;
    drop(within);
    let resource = Resource::builder().with_service_name("partita").build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
    Ok(Spans { provider, _runtime: runtime })
}
