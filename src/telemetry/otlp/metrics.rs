//! Metrics by OTLP: what they become, and sending them.
//!
//! Written here and not by a meter of the SDK: the numbers are the workers', merged when they are asked for, as for a scrape,
//! and the SDK takes neither histograms that others have filled nor exemplars.

mod requests;
mod starts;

use opentelemetry_http::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use tokio::time::timeout;

use super::environment::MetricSettings;
use super::resource;
use super::sender::{Answer, Sender};

pub use requests::{Description, MetricKind, MetricValue, Requests};
pub use starts::Starts;

/// What sends metrics.
#[derive(Debug)]
pub struct MetricSender {
    settings: MetricSettings,
    sender: Sender,
}

impl MetricSender {
    /// To be called where tokio runs.
    ///
    /// # Errors
    /// What is wrong with the settings, or with what they name, for people.
    pub fn new(settings: MetricSettings) -> Result<Self, String> {
        let sender = Sender::new(settings.receiver.clone())?;
        Ok(Self { settings, sender })
    }

    /// Requests to be filled, from this process.
    pub fn requests<'a>(&self, starts: &'a mut Starts) -> Requests<'a> {
        Requests::new(&resource::of_this_process(&self.settings.resource), starts)
    }

    /// Sends them one after the other, until one fails. None is tried again: the next export says more.
    ///
    /// # Errors
    /// What went wrong, for the log.
    pub async fn send(&mut self, requests: Vec<Bytes>) -> Result<(), String> {
        let limit = self.settings.timeout;
        match timeout(limit, self.send_all(requests)).await {
            Ok(result) => result,
            Err(_) => Err(format!("{}: not all is sent after {limit:?}", self.settings.receiver.shown())),
        }
    }

    async fn send_all(&mut self, requests: Vec<Bytes>) -> Result<(), String> {
        let (mut rejected, mut reason) = (0, String::new());
        for request in requests {
            let answer: ExportMetricsServiceResponse =
                self.sender.send(request).await.map_err(|refusal| refusal.why)?;
            if let Some((count, message)) = answer.rejected() {
                rejected += count;
                reason = self.sender.redacted(&message);
            }
        }
        match rejected {
            0 => Ok(()),
            _ => Err(format!("{} rejects {rejected} points: {reason:?}", self.sender.receiver())),
        }
    }
}
