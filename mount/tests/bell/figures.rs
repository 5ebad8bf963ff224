//! How long things take; run with `--release -- --ignored --nocapture figures`.

use std::time::{Duration, Instant};

use crate::stage::Plain;

/// Calls of one series.
const SERIES: usize = 1000;

#[test]
#[ignore = "a measurement"]
fn figures_of_an_append_and_a_place() {
    let dir =
        tempfile::Builder::new().tempdir_in("/dev/shm").expect("the measurement needs a tmpfs in /dev/shm");
    let plain = Plain::in_dir(dir);
    let line = [b'x'; 100];
    for (what, percent) in [("median", 50), ("99th of 100", 99)] {
        let took = series(|_| plain.bell.append("inbox/log.jsonl", &line).unwrap(), percent);
        eprintln!("append of 100 bytes on tmpfs, {what} of {SERIES}: {took:?}");
    }
    for n in 0..SERIES {
        std::fs::write(plain.at(&format!(".incoming/{n}")), "").unwrap();
    }
    let parents = ["a".to_owned()];
    let took = series(|n| plain.bell.place(&n.to_string(), &parents, &n.to_string()).unwrap(), 50);
    eprintln!("place on tmpfs, median of {SERIES}: {took:?}");
}

fn series(mut call: impl FnMut(usize), percent: usize) -> Duration {
    let mut times: Vec<_> = (0..SERIES)
        .map(|n| {
            let start = Instant::now();
            call(n);
            start.elapsed()
        })
        .collect();
    times.sort();
    times[SERIES * percent / 100]
}
