//! From actix's types to ours and back. This module alone knows that actix speaks `http` 0.2 and ruma `http` 1.

use std::net::IpAddr;

use actix_http::{HttpMessage as _, Request, Response, header as actix_header};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::{error::ApiError, limits::Whose};

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

/// Whose the request is, as far as that can be told before it is read.
pub(super) fn whose(request: &Request, remote_addr: Option<IpAddr>) -> Whose<'_> {
    let token = match text(request, &actix_header::AUTHORIZATION) {
        Some(value) => {
            let scheme_and_token = value.split_once(' ');
            scheme_and_token
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token)
        }
        // As older clients send it. What is encoded there stays so: it need only be the same each time.
        None => request
            .uri()
            .query()
            .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("access_token="))),
    };
    token.map_or(Whose::Address(remote_addr), |token| Whose::of_token(token.trim()))
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
    fn a_request_is_its_tokens_owners_or_else_that_of_an_address() {
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let check = |uri: &'static str, header: Option<&'static str>, expected: Whose<'_>| {
            let mut request = Request::new();
            request.head_mut().uri = actix_http::Uri::from_static(uri);
            if let Some(header) = header {
                let value = actix_header::HeaderValue::from_static(header);
                request.headers_mut().insert(actix_header::AUTHORIZATION, value);
            }
            assert_eq!(whose(&request, address), expected, "{uri} {header:?}");
        };
        check("/", Some("Bearer syt_YWxpY2U_a_b"), Whose::Owner("YWxpY2U"));
        check("/", Some("bearer  other "), Whose::Owner("other"));
        check("/?x=y&access_token=syt_YWxpY2U_c_d", None, Whose::Owner("YWxpY2U"));
        check("/?access_token=syt_Ym9i_c_d", Some("X-Matrix origin=\"a\""), Whose::Address(address));
        check("/?x=y", None, Whose::Address(address));
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
