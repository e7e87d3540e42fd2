//! What lean decoding saves, for the benchmarks.

use super::Pod;

/// Decodes `lines`, each a pod as JSON, lean. Returns how many could be read.
#[must_use]
pub fn lean(lines: &[String]) -> usize {
    lines.iter().filter(|line| serde_json::from_str::<Pod>(line).is_ok_and(|pod| pod.error().is_none())).count()
}

/// Decodes the same with every field. Returns how many could be read.
#[must_use]
pub fn typed(lines: &[String]) -> usize {
    lines.iter().filter(|line| serde_json::from_str::<k8s_openapi::api::core::v1::Pod>(line).is_ok()).count()
}

/// A pod as the API server sends it, managed fields and status included; `row` makes it differ from others.
#[must_use]
pub fn sample(row: usize) -> String {
    SAMPLE.replace("ROW", &format!("{row:05}"))
}

const SAMPLE: &str = include_str!("sample.json");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_read_the_sample() {
        let lines = [sample(1), sample(2)];
        assert_ne!(lines[0], lines[1]);
        assert_eq!((lean(&lines), typed(&lines)), (2, 2));
    }
}
