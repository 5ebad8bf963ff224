//! The HTTP side of a websocket's opening handshake (RFC 6455 section 4.2).
//!
//! Owns which request may become a websocket and the answer. Does not read frames.

use data_encoding::BASE64;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sha1::{Digest, Sha1};

use crate::server::plain;

/// Appended to the client's key before hashing, by RFC 6455.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The one version of the protocol.
const VERSION: &str = "13";
/// What a connection is upgraded to.
const WEBSOCKET: &str = "websocket";

/// The answer to a request for a websocket: 101, or why not.
pub(crate) fn answer<B>(request: &Request<B>) -> Response<String> {
    let headers = request.headers();
    let asks = request.method() == Method::GET
        && has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, WEBSOCKET);
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asks) else {
        return with(
            plain(StatusCode::UPGRADE_REQUIRED),
            [(header::UPGRADE, HeaderValue::from_static(WEBSOCKET))],
        );
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&HeaderValue::from_static(VERSION)) {
        return with(
            plain(StatusCode::BAD_REQUEST),
            [(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION))],
        );
    }
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(GUID).finalize();
    let Ok(accept) = HeaderValue::from_str(&BASE64.encode(&hash)) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = HeaderValue::from_static("upgrade");
    with(
        response,
        [
            (header::CONNECTION, upgrade),
            (header::UPGRADE, HeaderValue::from_static(WEBSOCKET)),
            (header::SEC_WEBSOCKET_ACCEPT, accept),
        ],
    )
}

/// The response with these headers, too.
fn with<const N: usize>(
    mut response: Response<String>,
    headers: [(HeaderName, HeaderValue); N],
) -> Response<String> {
    response.headers_mut().extend(headers);
    response
}

/// Whether a comma-separated header has this token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: &str, connection: &str) -> Request<()> {
        Request::get("/ws")
            .header("connection", connection)
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", version)
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .expect("a request")
    }

    #[test]
    fn the_key_of_the_rfc_gets_the_accept_of_the_rfc() {
        let response = answer(&request("13", "keep-alive, Upgrade"));
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_upgrade_is_refused() {
        assert_eq!(answer(&request("13", "close")).status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(answer(&request("8", "upgrade")).status(), StatusCode::BAD_REQUEST);
        assert_eq!(answer(&Request::new(())).status(), StatusCode::UPGRADE_REQUIRED);
    }
}
