//! Which traces are kept.

use opentelemetry::trace::{Link, SamplingResult, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Config, ShouldSample};

/// What every span of an HTTP request has.
const HTTP: &str = "http.request.method";

/// As `OTEL_TRACES_SAMPLER` says, which the SDK reads; but an HTTP request is a beginning, whatever its `traceparent`
/// says: else anybody outside could have all their traces kept.
pub fn from_environment() -> AtTheEdge {
    AtTheEdge(Config::default().sampler)
}

#[derive(Clone, Debug)]
pub struct AtTheEdge(Box<dyn ShouldSample>);

impl ShouldSample for AtTheEdge {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let from_outside = *kind == SpanKind::Server && attributes.iter().any(|a| a.key.as_str() == HTTP);
        let parent = parent.filter(|_| !from_outside);
        self.0.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{
        SamplingDecision, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceState,
    };
    use opentelemetry_sdk::trace::Sampler;

    use super::*;

    #[test]
    fn what_a_client_says_of_sampling_is_not_obeyed_and_what_a_service_says_is() {
        let decided = |root: Sampler, flags: TraceFlags, attribute: &'static str| {
            let sampler = AtTheEdge(Box::new(Sampler::ParentBased(Box::new(root))));
            let (trace, span) = (TraceId::from(1), SpanId::from(1));
            let parent = SpanContext::new(trace, span, flags, true, TraceState::NONE);
            let parent = Context::new().with_remote_span_context(parent);
            let attributes = [KeyValue::new(attribute, "GET")];
            sampler.should_sample(Some(&parent), trace, "x", &SpanKind::Server, &attributes, &[]).decision
        };
        let (kept, dropped) = (SamplingDecision::RecordAndSample, SamplingDecision::Drop);
        let (yes, no) = (TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED);
        assert_eq!(decided(Sampler::AlwaysOff, yes, HTTP), dropped);
        assert_eq!(decided(Sampler::AlwaysOn, no, HTTP), kept);
        assert_eq!(decided(Sampler::AlwaysOff, yes, "rpc.method"), kept);
        assert_eq!(decided(Sampler::AlwaysOn, no, "rpc.method"), dropped);
    }
}
