//! From actix's types to ours and back. This module alone knows that actix speaks `http` 0.2 and ruma `http` 1.

use std::net::IpAddr;

use actix_http::{HttpMessage as _, Request, Response, header as actix_header};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::error::ApiError;

/// What the head of a request becomes.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

pub(super) fn method(request: &Request) -> Method {
    Method::from_bytes(request.method().as_str().as_bytes()).unwrap_or_default()
}

/// Copies the head. Fails for what `http` 0.2 takes and `http` 1 does not.
pub(super) fn head(request: &Request, method: Method) -> Result<Head, ApiError> {
    // Scheme and authority, if a client sends them, are none of a handler's business.
    let path_and_query = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::try_from(path_and_query).map_err(|_| malformed())?;
    let mut headers = HeaderMap::with_capacity(request.headers().len());
    for (name, value) in request.headers() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| malformed())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| malformed())?;
        headers.append(name, value);
    }
    Ok(Head { method, uri, headers })
}

fn malformed() -> ApiError {
    ApiError::invalid_param("The request's head is malformed")
}

/// The bytes that the client announces, if it does.
pub(super) fn content_length(request: &Request) -> Option<usize> {
    text(request, &actix_header::CONTENT_LENGTH)?.trim().parse().ok()
}

/// Who is at the other end.
pub(super) fn remote_addr(request: &Request, x_forwarded: bool) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|address| address.ip().to_canonical());
    if !x_forwarded {
        return peer;
    }
    let forwarded = text(request, &actix_header::X_FORWARDED_FOR).and_then(first_address);
    forwarded.or(peer)
}

/// Proxies write `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` or `[2001:db8::1]:4711`.
fn first_address(header: &str) -> Option<IpAddr> {
    let first = header.split(',').next()?.trim();
    let address = first.parse().ok().or_else(|| {
        let with_port = first.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
        with_port.or_else(|| first.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
    });
    address.map(|address: IpAddr| address.to_canonical())
}

/// Whether the client takes gzip, by <https://www.rfc-editor.org/rfc/rfc9110#field.accept-encoding>.
pub(super) fn accepts_gzip(request: &Request) -> bool {
    text(request, &actix_header::ACCEPT_ENCODING).is_some_and(|header| {
        header.split(',').any(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = parameters
                .trim()
                .strip_prefix("q=")
                .is_some_and(|quality| quality.trim().parse::<f32>().is_ok_and(|quality| quality <= 0.0));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
    })
}

fn text<'r>(request: &'r Request, name: &actix_header::HeaderName) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

/// An answer's head in actix's types. A header that `http` 0.2 would not take is left out.
pub(super) fn response<B>(status: StatusCode, headers: HeaderMap, body: B) -> Response<B> {
    let status = actix_http::StatusCode::from_u16(status.as_u16())
        .unwrap_or(actix_http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::with_body(status, body);
    for (name, value) in &headers {
        let name = actix_header::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = actix_header::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_forwarded_address_counts() {
        let check = |header: &str, address: Option<&str>| {
            assert_eq!(first_address(header), address.map(|address| address.parse().unwrap()), "{header}");
        };
        check("192.0.2.1", Some("192.0.2.1"));
        check(" 192.0.2.1:4711 , 10.0.0.1", Some("192.0.2.1"));
        check("2001:db8::1", Some("2001:db8::1"));
        check("[2001:db8::1]:4711", Some("2001:db8::1"));
        check("[2001:db8::1]", Some("2001:db8::1"));
        check("::ffff:192.0.2.1", Some("192.0.2.1"));
        check("unknown, 192.0.2.1", None);
        check("", None);
    }

    #[test]
    fn gzip_is_only_used_where_it_is_taken() {
        let check = |header: &'static str, accepted: bool| {
            let mut request = Request::new();
            let value = actix_header::HeaderValue::from_static(header);
            request.headers_mut().insert(actix_header::ACCEPT_ENCODING, value);
            assert_eq!(accepts_gzip(&request), accepted, "{header}");
        };
        check("gzip", true);
        check("deflate, GZIP;q=0.5, br", true);
        check("br, deflate", false);
        check("gzip;q=0", false);
        check("gzip; q=0.0", false);
        check("xgzip", false);
        check("", false);
    }
}
