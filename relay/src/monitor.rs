//! The operator's listener: `/metrics`, `/health` and `/ready`, apart from where clients come.
//!
//! Owns that listener and the watch over the store. It stays up until the relay has drained, so that whoever asks sees
//! the drain. Counts nothing itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::exchange::Exchange;
use crate::server::{Server, Shared, plain, ready};

/// A question and its answer have this long.
const ASKED: Duration = Duration::from_secs(10);
/// Longest head of a question, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Questions at a time: those who ask are few, and the next one waits.
const AT_ONCE: usize = 16;
/// After the listener fails to accept (no file descriptors left), it rests this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The store is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What Prometheus is told that it reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl<E: Exchange> Server<E> {
    /// Answers the operator's questions for as long as it is polled.
    pub async fn monitor(&self, listener: TcpListener) {
        let router = router(self.shared.clone());
        let room = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answering = answer(stream, router.clone());
                    tokio::spawn(async move {
                        // Who does not ask in time is not answered.
                        let _ = timeout(ASKED, answering).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept for the metrics");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Tells the operator when the store goes away and comes back, for as long as it is polled.
    pub async fn watch_store(&self) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was = true;
        loop {
            look.tick().await;
            let is = self.shared.exchange.is_ready();
            if is != was {
                self.shared.events.store(is);
                was = is;
            }
        }
    }
}

/// One connection, one question.
async fn answer(stream: TcpStream, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| router.call(request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(ASKED).max_buf_size(MAX_HEAD);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a question about the relay fails");
    }
}

fn router<E: Exchange>(shared: Arc<Shared<E>>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<E>))
        .route("/health", get(async || plain(StatusCode::OK)))
        .route("/ready", get(ready::<E>))
        .fallback(async || plain(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || plain(StatusCode::METHOD_NOT_ALLOWED))
        .with_state(shared)
}

async fn metrics<E: Exchange>(State(shared): State<Arc<Shared<E>>>) -> Response {
    let exchange = &shared.exchange;
    match shared.events.metrics().text(exchange.is_ready(), exchange.usage()) {
        Ok(text) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            let close = (header::CONNECTION, HeaderValue::from_static("close"));
            ([kind, close], text).into_response()
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
