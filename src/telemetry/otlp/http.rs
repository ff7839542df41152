//! A client for OTLP over HTTP that keeps what went wrong: the exporter of spans only says that something did.

use std::error::Error;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::time::error::Elapsed;

use super::environment::shown;

#[derive(Debug)]
pub(super) struct HttpSender {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    timeout: Duration,
    trouble: Trouble,
}

/// What went wrong with the last request, if anything did.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl HttpSender {
    pub(super) fn new(connector: HttpsConnector<HttpConnector>, timeout: Duration) -> Self {
        let client = HyperClient::new(connector, timeout, None);
        Self { client, timeout, trouble: Trouble::default() }
    }

    pub(super) fn trouble(&self) -> &Trouble {
        &self.trouble
    }
}

impl Trouble {
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, trouble: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

#[tonic::async_trait]
impl HttpClient for HttpSender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let url = shown(&request.uri().to_string());
        self.trouble.set(None);
        let answer = self.client.send_bytes(request).await;
        self.trouble.set(match &answer {
            Ok(response) if response.status().is_success() => None,
            // Not the body: some receivers repeat secrets in it.
            Ok(response) => Some(format!("{url} answers {}", response.status())),
            Err(error) if error.is::<Elapsed>() => Some(format!("{url}: no answer after {:?}", self.timeout)),
            Err(error) => Some(format!("{url}: {}", with_causes(&**error))),
        });
        answer
    }
}

/// The error and what caused it, down to the first cause.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _infallible = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
