//! From the pseudo-fields and fields of an HTTP/2 request to a [`RequestHead`].

use h2::RecvStream;
use http::Request;

use super::fields;
use crate::h1::{HeadLimits, Reject, is_authority, is_target, parse_content_length};
use crate::head::{BodyLength, Known, RequestHead, Version};

/// Fills `head`. The `h2` crate has already refused what is malformed as HTTP/2.
///
/// # Errors
/// The stream must be answered with the status of the reason.
pub(super) fn read(
    request: &Request<RecvStream>,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), Reject> {
    head.clear();
    if request.method() == http::Method::CONNECT {
        return Err(Reject::Connect);
    }
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    if target.len() > limits.target {
        return Err(Reject::TargetTooLong);
    }
    let options = request.method() == http::Method::OPTIONS;
    if !is_target(target.as_bytes()) || !(target.starts_with('/') || (target == "*" && options)) {
        return Err(Reject::Target);
    }
    // Clients break `Cookie` into crumbs, so that each is compressed by itself; it is one field all the same.
    let crumbs = request.headers().get_all(http::header::COOKIE).iter().count();
    if request.headers().len() - crumbs.saturating_sub(1) > limits.fields {
        return Err(Reject::TooManyFields);
    }
    head.version = Version::Http2;
    head.method = head.headers.append_text(request.method().as_str().as_bytes());
    head.target = head.headers.append_text(target.as_bytes());
    read_authority(request, head)?;
    fields::read(request.headers(), &mut head.headers);

    let mut lengths = head.headers.iter_known(Known::ContentLength);
    let length = lengths.next().map(|(_, value)| parse_content_length(value)).transpose()?;
    if lengths.next().is_some() {
        return Err(Reject::ContentLength);
    }
    drop(lengths);
    head.length = match (length, request.body().is_end_stream()) {
        (Some(length), _) => BodyLength::Known(length),
        (None, true) => BodyLength::None,
        (None, false) => BodyLength::Framed,
    };
    let te = head.headers.get(Known::Te);
    head.accepts_trailers = te.is_some_and(|te| te.eq_ignore_ascii_case(b"trailers"));
    if let Some(expectation) = head.headers.get(Known::Expect) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reject::Expectation);
        }
        head.expects_continue = head.has_body();
    }
    Ok(())
}

/// `:authority`, or `Host` where an old client sends that instead; both only if they agree.
fn read_authority(request: &Request<RecvStream>, head: &mut RequestHead) -> Result<(), Reject> {
    let mut hosts = request.headers().get_all(http::header::HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Reject::Host);
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let authority = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return Err(Reject::Host),
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(Reject::Host),
    };
    if !is_authority(authority) {
        return Err(Reject::Host);
    }
    head.authority = head.headers.append_text(authority);
    Ok(())
}
