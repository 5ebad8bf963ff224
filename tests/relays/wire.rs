//! The way from one relay to Redis, which can be cut off.
//!
//! Owns the bytes between them. While it is cut nothing passes and nobody is told, as with a cable that was pulled.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A way on a free port.
pub struct Wire {
    pub url: String,
    cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Wire {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (cut, is_cut) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, port, is_cut.clone()));
            }
        });
        Self { url, cut, task }
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until the way is cut; then it stays silent until that is mended, and ends.
async fn carry(mut relay: TcpStream, port: u16, mut is_cut: watch::Receiver<bool>) {
    let _ = is_cut.wait_for(|cut| !cut).await;
    let Ok(mut redis) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = relay.set_nodelay(true);
    let _ = redis.set_nodelay(true);
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut relay, &mut redis) => return,
        _ = is_cut.wait_for(|cut| *cut) => {}
    }
    let _ = is_cut.wait_for(|cut| !cut).await;
}
