//! `relay healthcheck`: asks a running relay whether it is ready, for containers that have no other program.
//!
//! Owns one HTTP request. Plain HTTP only: behind TLS, ask the operator's listener.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The whole question takes this long at most.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of the answer that are read: the status is in its first line.
const MAX_ANSWER: u64 = 4096;

/// Why a relay is not known to be ready.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The URL is not of the one form that is understood.
    #[error("{0} is not http://HOST:PORT/PATH; give one with --url")]
    Url(String),
    /// Nobody answers.
    #[error("{url} cannot be asked: {source}")]
    Unreachable {
        /// Who was asked.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers in time.
    #[error("{url} does not answer within {} seconds", TIME.as_secs())]
    Slow {
        /// Who was asked.
        url: String,
    },
    /// It is not ready: 503 while it drains or while its store is away.
    #[error("{url} answers {status}")]
    Status {
        /// Who was asked.
        url: String,
        /// The first line of the answer.
        status: String,
    },
}

/// Asks; the answer is the status line of a relay that is ready.
///
/// # Errors
/// [`Unhealthy`] says why it is not.
pub async fn ask(url: &str) -> Result<String, Unhealthy> {
    let (address, path) = parts(url).ok_or_else(|| Unhealthy::Url(url.to_owned()))?;
    let status = match timeout(TIME, status_line(address, path)).await {
        Ok(Ok(status)) => status,
        Ok(Err(source)) => return Err(Unhealthy::Unreachable { url: url.to_owned(), source }),
        Err(_) => return Err(Unhealthy::Slow { url: url.to_owned() }),
    };
    match status.split_once(' ') {
        Some((version, rest)) if version.starts_with("HTTP/1.") && rest.starts_with("200") => Ok(status),
        _ => Err(Unhealthy::Status { url: url.to_owned(), status }),
    }
}

/// `host:port` and the path.
fn parts(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = address.rsplit_once(':')?;
    let sane = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    let fits = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && sane(url);
    fits.then_some((address, if path.is_empty() { "/" } else { path }))
}

async fn status_line(address: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let line = answer.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    // For a terminal: no controls.
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).collect();
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_url_has_host_port_and_path() {
        assert_eq!(parts("http://127.0.0.1:8787/ready"), Some(("127.0.0.1:8787", "/ready")));
        assert_eq!(parts("http://[::1]:8787"), Some(("[::1]:8787", "/")));
        for bad in ["https://relay:1/ready", "http://relay/ready", "http://:1/", "relay:1", "http://a:0/"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
        assert_eq!(parts("http://a:1/x\r\nHost: b"), None);
    }

    #[tokio::test]
    async fn only_a_200_is_ready() {
        let answers = [
            ("HTTP/1.1 200 OK\r\n\r\n200 OK\n", Ok("HTTP/1.1 200 OK")),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Err("answers HTTP/1.1 503 Service Unavailable")),
            ("SSH-2.0-other\r\n", Err("answers SSH-2.0-other")),
            ("", Err("cannot be asked")),
        ];
        for (answer, want) in answers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}/ready", listener.local_addr().expect("an address"));
            let answering = async {
                let (mut stream, _) = listener.accept().await.expect("asked");
                let mut question = vec![0; 1024];
                let count = stream.read(&mut question).await.expect("a question");
                assert!(question[..count].starts_with(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:"));
                stream.write_all(answer.as_bytes()).await.expect("answered");
            };
            let (asked, ()) = tokio::join!(ask(&url), answering);
            match (asked, want) {
                (Ok(line), Ok(want)) => assert_eq!(line, want),
                (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
                (asked, _) => panic!("{answer}: {asked:?}"),
            }
        }
    }

    #[tokio::test]
    async fn nobody_there_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/ready", listener.local_addr().expect("an address"));
        drop(listener);
        let error = ask(&url).await.expect_err("nobody").to_string();
        assert!(error.contains("cannot be asked") && error.contains(&url), "{error}");
    }
}
