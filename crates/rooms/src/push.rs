//! Where push rules come in.

use futures_util::future::BoxFuture;
use myelin_push::{Audience, PushEvent, PushRules};
use myelin_storage::Result;

use crate::PushOutcome;

/// Decides what an event means for its room's members
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications)), once, when it is written.
pub trait PushEvaluator: Send + Sync {
    /// The outcome for the local members, as they are just before the event. The room waits for it: it should come from
    /// memory but for users whose rules were not read yet.
    fn evaluate<'a>(
        &'a self,
        audience: &'a mut Audience,
        event: PushEvent<'a>,
    ) -> BoxFuture<'a, Result<PushOutcome>>;
}

/// Nothing notifies anybody.
impl PushEvaluator for () {
    fn evaluate<'a>(&'a self, _: &'a mut Audience, _: PushEvent<'a>) -> BoxFuture<'a, Result<PushOutcome>> {
        Box::pin(std::future::ready(Ok(PushOutcome::default())))
    }
}

impl PushEvaluator for PushRules {
    fn evaluate<'a>(
        &'a self,
        audience: &'a mut Audience,
        event: PushEvent<'a>,
    ) -> BoxFuture<'a, Result<PushOutcome>> {
        Box::pin(async move { self.evaluate(audience, &event).await })
    }
}
