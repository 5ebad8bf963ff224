//! The HTTP side of a websocket's opening handshake (RFC 6455 section 4.2).
//!
//! Owns which request may become a websocket and the answer. Does not read frames.

use data_encoding::BASE64;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sha1::{Digest, Sha1};

/// Appended to the client's key before hashing, by RFC 6455.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The one version of the protocol.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// The answer to a request for a websocket: 101, or why not.
pub(crate) fn answer<B>(request: &Request<B>) -> Response<String> {
    let headers = request.headers();
    let asks = request.method() == Method::GET
        && has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asks);
    let mut response = Response::new(String::new());
    let Some(key) = key else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        set(&mut response, header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        set(&mut response, header::SEC_WEBSOCKET_VERSION, VERSION);
        return response;
    }
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(GUID).finalize();
    let Ok(accept) = HeaderValue::from_str(&BASE64.encode(&hash)) else {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    set(&mut response, header::CONNECTION, HeaderValue::from_static("upgrade"));
    set(&mut response, header::UPGRADE, HeaderValue::from_static("websocket"));
    set(&mut response, header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn set(response: &mut Response<String>, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
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
