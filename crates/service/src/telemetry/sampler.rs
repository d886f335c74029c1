//! Which traces are kept.

use aws_lc_rs::digest::{SHA256, digest};
use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Config, SamplingResult, ShouldSample};

/// What every span of an HTTP request has.
const HTTP: &str = "http.request.method";

/// As `OTEL_TRACES_SAMPLER` says, which the SDK reads; but a trace begins with an HTTP request: neither the
/// flag nor the bits of the id in its `traceparent` have its trace kept. A hash of the id decides, the same
/// in every service.
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
        if from_outside {
            self.0.should_sample(None, hash(trace), name, kind, attributes, links)
        } else {
            self.0.should_sample(parent, trace, name, kind, attributes, links)
        }
    }
}

fn hash(trace: TraceId) -> TraceId {
    let mut half = [0; 16];
    for (byte, hashed) in half.iter_mut().zip(digest(&SHA256, &trace.to_bytes()).as_ref()) {
        *byte = *hashed;
    }
    TraceId::from_bytes(half)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{Sampler, SamplingDecision};

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

    #[test]
    fn a_tenth_is_kept_of_traces_with_similar_ids() {
        let sampler = AtTheEdge(Box::new(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.1)))));
        let kept = (1..=10_000_u128).filter(|id| {
            let attributes = [KeyValue::new(HTTP, "GET")];
            let id = TraceId::from(*id);
            let decided = sampler.should_sample(None, id, "x", &SpanKind::Server, &attributes, &[]);
            decided.decision == SamplingDecision::RecordAndSample
        });
        // Five standard deviations of a tenth.
        let kept = kept.count();
        assert!((850..=1150).contains(&kept), "{kept}");
    }
}
