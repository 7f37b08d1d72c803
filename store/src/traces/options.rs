//! Where traces go, and with what.

use std::{collections::HashMap, fs, io, path::PathBuf, time::Duration};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};

/// Where OTLP over HTTP takes traces, behind the endpoint.
const PATH: &str = "/v1/traces";

/// What traces are made with.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// Base address of the collector, as in `http://collector:4318`.
    pub endpoint: String,
    /// File of headers for it, `name: value` lines; `None`: there are none.
    pub headers: Option<PathBuf>,
    /// `service.name` of all spans.
    pub service: String,
    /// `service.instance.id` of all spans: the node.
    pub instance: String,
    /// Of a million commands, how many get a span.
    pub commands_per_million: u32,
    /// Most spans that wait to be sent; and most commands under way that will have one.
    pub queue: usize,
    /// For the collector to take a batch.
    pub timeout: Duration,
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The file of headers cannot be read.
    #[error("otlp-headers-file {path:?} cannot be read: {why}")]
    Headers {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: io::Error,
    },
    /// A line of it is no header. What stands there is not shown: it may be a password.
    #[error("line {line} of otlp-headers-file {path:?} is no header: write `name: value`, one a line")]
    Header {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The exporter refused its settings.
    #[error("otlp-endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// No thread could be started.
    #[error("the thread that sends traces did not start: {0}")]
    Thread(#[from] io::Error),
}

/// Says what is wrong with an endpoint, if anything is. Empty is none at all.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    if endpoint.is_empty() {
        return Ok(());
    }
    let wrong = |why: &str| Err(format!("otlp-endpoint is `{endpoint}`: {why}"));
    let Ok(uri) = endpoint.parse::<Uri>() else { return wrong("it has to be an address such as http://collector:4318") };
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        Some("https") => return wrong("the store has no TLS: send to a collector beside it by http, and let that one send on"),
        _ => return wrong("it has to be an address such as http://collector:4318"),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return wrong("a password has its place in otlp-headers-file");
    }
    if uri.path_and_query().is_some_and(|path| path.query().is_some() || path.path().trim_end_matches('/').ends_with(PATH)) {
        return wrong("leave out what comes behind the port or prefix: /v1/traces is added to it");
    }
    Ok(())
}

/// The address that takes traces.
pub(super) fn address(endpoint: &str) -> String {
    format!("{}{PATH}", endpoint.trim_end_matches('/'))
}

/// Reads the file of headers.
pub(super) fn headers(path: &PathBuf) -> Result<HashMap<String, String>, TracesError> {
    let text = fs::read_to_string(path).map_err(|why| TracesError::Headers { path: path.clone(), why })?;
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(line, text)| header(text).ok_or_else(|| TracesError::Header { path: path.clone(), line })).collect()
}

fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    HeaderName::from_bytes(name.as_bytes()).ok()?;
    HeaderValue::from_str(value).ok()?;
    Some((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_cannot_be_reached_is_refused_with_the_way_out() {
        for good in ["", "http://127.0.0.1:4318", "http://collector.ns.svc:4318/", "http://[::1]:4318/otlp"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        let cases = [
            ("https://collector:4318", "the store has no TLS"),
            ("collector:4318", "such as http://"),
            ("grpc://collector:4317", "such as http://"),
            ("http://", "such as http://"),
            ("http://me:secret@collector:4318", "otlp-headers-file"),
            ("http://collector:4318/v1/traces", "/v1/traces is added"),
            ("http://collector:4318/?a=b", "/v1/traces is added"),
        ];
        for (endpoint, expected) in cases {
            let text = check_endpoint(endpoint).expect_err(endpoint);
            assert!(text.contains(expected) && text.starts_with("otlp-endpoint"), "{endpoint}: {text}");
        }
        assert_eq!(address("http://collector:4318/otlp/"), "http://collector:4318/otlp/v1/traces");
    }

    #[test]
    fn a_header_that_is_none_is_named_by_its_line_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("headers");
        fs::write(&path, "# who we are\nAuthorization: Bearer a:b\n\nX-Tenant:  seven \n").unwrap();
        let expected = [("Authorization", "Bearer a:b"), ("X-Tenant", "seven")];
        assert_eq!(headers(&path).unwrap(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        for wrong in ["X: y\nsecret-token\n", "X: y\nna me: secret-token\n", "\nX: secret\u{1}token\n"] {
            fs::write(&path, wrong).unwrap();
            let text = headers(&path).unwrap_err().to_string();
            assert!(text.contains("line 2") && !text.contains("secret"), "{text}");
        }
        let text = headers(&directory.path().join("missing")).unwrap_err().to_string();
        assert!(text.contains("missing") && text.contains("cannot be read"), "{text}");
    }
}
