//! Signals of the terminal and of service managers.
//!
//! Owns their count: the first one drains, the second one ends at once. Stops nothing itself.

use std::future::pending;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often this process was asked to stop (SIGINT, SIGTERM).
#[derive(Debug)]
pub struct Signals {
    count: watch::Receiver<u32>,
}

impl Signals {
    /// Begins to count, in a task of the current runtime. Where signals cannot be had, they end the process as they do
    /// without this.
    #[must_use]
    pub fn listen() -> Self {
        let (tell, count) = watch::channel(0);
        if let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        {
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    tell.send_modify(|count| *count += 1);
                }
            });
        }
        Self { count }
    }

    /// Ready once there were this many.
    pub fn reach(&self, wanted: u32) -> impl Future<Output = ()> + use<> {
        let mut count = self.count.clone();
        async move {
            if count.wait_for(|count| *count >= wanted).await.is_err() {
                pending::<()>().await;
            }
        }
    }
}
