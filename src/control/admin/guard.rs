//! Who may ask for what: requests that a web page makes a browser send are not its owner's wish.
//!
//! The port has no authentication: who reaches it may read. What this keeps out is a page of somebody else in the browser of
//! a person who reaches it: requests across sites, and names that such a page's owner lets point here (DNS rebinding).

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What a browser says of where a request comes from (<https://www.w3.org/TR/fetch-metadata/>).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Ends of names that nobody can register: of clusters, of networks without a registry, and of this host.
const PRIVATE: [&str; 5] = [".svc", ".local", ".internal", ".localhost", ".home.arpa"];

/// A 403 and why.
pub(super) type Refusal = (StatusCode, &'static str);

/// Lets only requests through that name this host in a way that no stranger's page can: see [`is_own_name`].
pub(super) async fn known_host(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    if hosts.all(|host| host.to_str().is_ok_and(is_own_name)) {
        return next.run(request).await;
    }
    let text = "this answers to an address, to localhost and to names of private networks (a single word, *.svc, *.local, \
                *.internal), not to this name: whoever owns it might let it point here; use the address\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Refuses what a web page asks for, whichever.
pub(super) fn refuse_pages(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE) {
        let text = "not from a web page: whoever makes a browser of this host ask is not its operator\n";
        return Err((StatusCode::FORBIDDEN, text));
    }
    Ok(())
}

/// Refuses what a web page asks for that is not from this very port.
pub(super) fn refuse_other_pages(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text("host").unwrap_or_default();
    let is_own = |origin: &str| origin.strip_prefix("http://").is_some_and(|rest| rest == host);
    if text("origin").is_none_or(is_own) && text(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin") {
        return Ok(());
    }
    Err((StatusCode::FORBIDDEN, "not from a page of another site\n"))
}

/// Whether a `Host` can only be meant for who is there: a page that was loaded from it came from there.
fn is_own_name(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<IpAddr>().is_ok() && (port.is_empty() || port.starts_with(':'))
        });
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_private =
        (!name.is_empty() && !name.contains('.')) || PRIVATE.iter().any(|end| name.ends_with(end));
    name.parse::<IpAddr>().is_ok() || is_private
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn names_that_a_stranger_can_own_are_refused() {
        for own in [
            "127.0.0.1:9901",
            "[::1]:9901",
            "10.1.2.3",
            "localhost:80",
            "sheave",
            "a.sheave.svc:9901",
            "A.LOCAL.",
        ] {
            assert!(is_own_name(own), "{own}");
        }
        for strange in [
            "[::1].evil.example",
            "[::1]evil",
            "evil.example",
            "evil.example:9901",
            "127.0.0.1.evil.example:9901",
            "x.svc.evil.example.",
            ".",
        ] {
            assert!(!is_own_name(strange), "{strange}");
        }
    }

    #[test]
    fn only_pages_of_this_port_may_ask() {
        let own = headers(&[
            ("host", "127.0.0.1:9901"),
            ("origin", "http://127.0.0.1:9901"),
            ("sec-fetch-site", "same-origin"),
        ]);
        refuse_other_pages(&own).unwrap();
        refuse_other_pages(&headers(&[("host", "127.0.0.1:9901")])).unwrap();
        for strange in [
            &[("host", "127.0.0.1:9901"), ("origin", "http://127.0.0.1:8080")][..],
            &[("host", "127.0.0.1:9901"), ("origin", "null")],
            &[("host", "127.0.0.1:9901"), ("origin", "https://127.0.0.1:9901")],
            &[("host", "127.0.0.1:9901"), ("sec-fetch-site", "cross-site")],
            &[("origin", "http://127.0.0.1:9901")],
        ] {
            assert_eq!(
                refuse_other_pages(&headers(strange)).unwrap_err().0,
                StatusCode::FORBIDDEN,
                "{strange:?}"
            );
        }
    }

    #[test]
    fn who_asks_for_the_end_is_no_page() {
        refuse_pages(&headers(&[("host", "127.0.0.1:9901")])).unwrap();
        refuse_pages(&headers(&[("origin", "http://127.0.0.1:9901")])).unwrap_err();
        refuse_pages(&headers(&[("sec-fetch-site", "same-origin")])).unwrap_err();
    }
}
