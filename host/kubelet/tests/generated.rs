//! The code in `src/generated` is what `proto/` makes. `UPDATE=1 cargo test -p partita-kubelet --test generated` makes it anew.

use std::{env, fs, path::Path};

#[test]
fn generated_code_is_up_to_date() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().unwrap();
    for (proto, package) in [("deviceplugin.proto", "v1beta1"), ("podresources.proto", "v1")] {
        let descriptors = protox::compile([proto], [home.join("proto")]).unwrap();
        // Maps are ordered, so that equal messages are equal bytes.
        let generator = tonic_prost_build::configure().btree_map(".").build_transport(false).out_dir(made.path());
        generator.compile_fds(descriptors).unwrap();
        let fresh = fs::read_to_string(made.path().join(format!("{package}.rs"))).unwrap();
        let path = home.join(format!("src/generated/{package}.rs"));
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, &fresh).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap();
        assert!(kept == fresh, "{} is not what {proto} makes: run this test with UPDATE=1", path.display());
    }
}
