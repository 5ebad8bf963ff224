//! Figures of a run.
//!
//! Owns percentiles and how they are written. Measures nothing.

use std::fmt::Write as _;
use std::time::Duration;

/// Percentiles of latencies, as one line.
pub fn latencies(mut all: Vec<Duration>) -> String {
    if all.is_empty() {
        return "no frame arrived".to_owned();
    }
    all.sort_unstable();
    let mut line = format!("{} frames, ms:", all.len());
    for (name, part) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)] {
        let at = ((all.len() - 1) as f64 * part).round() as usize;
        // Writing to a string cannot fail.
        let _ = write!(line, " {name} {:.3}", all[at].as_secs_f64() * 1e3);
    }
    line
}

/// Processor time a frame.
pub fn each(cpu: Duration, count: usize) -> String {
    format!("{:.1} µs of relay processor time a frame", cpu.as_secs_f64() * 1e6 / count.max(1) as f64)
}
