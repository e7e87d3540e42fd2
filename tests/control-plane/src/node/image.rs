//! An image without a registry: one static program in an archive of Docker's format, which containerd imports.

use std::{
    env::consts,
    fs::{self, File},
    io,
    path::Path,
};

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::programs::hexadecimal;

/// Writes to `archive` the image `name`, which runs `program`.
pub(super) fn write(archive: &Path, name: &str, program: &Path) -> io::Result<()> {
    let mut layer = Builder::new(Vec::new());
    append(&mut layer, "witness", &fs::read(program)?, 0o755)?;
    let layer = layer.into_inner()?;
    let architecture = match consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/witness"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hexadecimal(&Sha256::digest(&layer)))] },
    });
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", hexadecimal(&Sha256::digest(&config)));
    let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"] }]).to_string();
    let mut image = Builder::new(File::create(archive)?);
    append(&mut image, "layer.tar", &layer, 0o644)?;
    append(&mut image, &config_name, &config, 0o644)?;
    append(&mut image, "manifest.json", manifest.as_bytes(), 0o644)?;
    image.into_inner()?.sync_all()
}

fn append(archive: &mut Builder<impl io::Write>, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes)
}
