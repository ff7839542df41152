//! A request with spans. All of it but those is the same each time.

use std::collections::BTreeMap;

use opentelemetry_http::Bytes;

use super::SCHEMA;
use super::span::Spans;
use super::wire::{self, Message, Tag, Value};

/// Of `ExportTraceServiceRequest`, `ResourceSpans` and `ScopeSpans`.
mod field {
    use super::Tag;

    pub(super) const OF_RESOURCES: Tag = 1;
    pub(super) const RESOURCE: Tag = 1;
    pub(super) const OF_SCOPES: Tag = 2;
    pub(super) const SCOPE: Tag = 1;
    pub(super) const SCHEMA: Tag = 3;
}

pub(super) struct Template {
    /// Who they are from, and the schema of that.
    resource: Message,
    /// What of that made them, and the schema of their names.
    scope: Message,
}

impl Template {
    pub(super) fn new(attributes: &BTreeMap<String, String>) -> Self {
        let mut attributes_of = Message::default();
        for (key, value) in attributes {
            attributes_of.attribute(1, key, Value::Text(value));
        }
        let mut resource = Message::default();
        resource.message(field::RESOURCE, &attributes_of);
        resource.text(field::SCHEMA, SCHEMA);
        let mut sheave = Message::default();
        sheave.text(1, "sheave");
        sheave.text(2, env!("CARGO_PKG_VERSION"));
        let mut scope = Message::default();
        scope.message(field::SCOPE, &sheave);
        scope.text(field::SCHEMA, SCHEMA);
        Self { resource, scope }
    }

    pub(super) fn request<'a>(&self, traces: impl Iterator<Item = &'a Spans> + Clone) -> Bytes {
        let spans: usize = traces.clone().map(|spans| spans.message().len()).sum();
        let of_scope = self.scope.len() + spans;
        let of_resource = self.resource.len() + wire::with_header(of_scope);
        let mut request = Message::with_capacity(wire::with_header(of_resource));
        request.begin(field::OF_RESOURCES, of_resource);
        request.extend(&self.resource);
        request.begin(field::OF_SCOPES, of_scope);
        request.extend(&self.scope);
        traces.for_each(|spans| request.extend(spans.message()));
        request.into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ConnectionRecord;
    use crate::telemetry::otlp::spans::of_ended;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;

    #[test]
    fn all_spans_are_of_this_process_and_made_by_sheave() {
        let attributes = BTreeMap::from([("service.name".to_owned(), "edge".to_owned())]);
        let traces = [1, 2].map(|id| {
            of_ended(&ConnectionRecord { id, ..ConnectionRecord::example() }, &mut Message::default())
        });
        let request = Template::new(&attributes).request(traces.iter());
        let request = ExportTraceServiceRequest::decode(request).unwrap();
        let [of_resource] = &*request.resource_spans else { panic!("{request:?}") };
        let resource = of_resource.resource.as_ref().unwrap();
        assert_eq!(resource.attributes[0].key, "service.name");
        let [of_scope] = &*of_resource.scope_spans else { panic!("{request:?}") };
        let scope = of_scope.scope.as_ref().unwrap();
        assert_eq!((&*scope.name, &*scope.version), ("sheave", env!("CARGO_PKG_VERSION")));
        assert_eq!((&*of_scope.schema_url, &*of_resource.schema_url), (SCHEMA, SCHEMA));
        assert_eq!(of_scope.spans.iter().filter(|span| span.name == "tcp a").count(), 2);
        assert_eq!(of_scope.spans.len(), 8);
    }
}
