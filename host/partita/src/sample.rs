//! `partita sample`: the generator of the bundled sample, for other seeds and for a look at the formats.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result, bail};

use crate::{args::Sample, output};

/// Writes the sample of a seed into a folder.
pub(crate) fn run(arguments: &Sample) -> Result<ExitCode> {
    let (cluster, workload) = partita_sim::sample::generate(arguments.seed);
    fs::create_dir_all(&arguments.out).with_context(|| format!("the folder {} cannot be made", arguments.out.display()))?;
    let files = [(arguments.out.join("cluster.toml"), cluster), (arguments.out.join("workload.csv"), workload)];
    // All or nothing: look before the first is written.
    if let Some((path, _)) = files.iter().find(|(path, _)| !arguments.force && path.exists()) {
        bail!("{} exists; choose another folder, or overwrite it with --force", path.display());
    }
    for (path, text) in &files {
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        output::line(&format!("wrote {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
