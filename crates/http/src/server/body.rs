//! Bodies on their way in and out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{
    Payload,
    body::{BodySize, MessageBody},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::StatusCode;
use ruma::api::error::ErrorKind;
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

use crate::{error::ApiError, limits::Place, response::BodyStream};

/// Reads a whole body, of at most `limit` bytes and for at most `patience`.
pub(super) async fn read(mut payload: Payload, limit: usize, patience: Duration) -> Result<Bytes, ApiError> {
    match timeout(patience, collect(&mut payload, limit)).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(ErrorKind::Unknown, "The request's body did not arrive in time")
            .with_status(StatusCode::REQUEST_TIMEOUT)),
    }
}

async fn collect(payload: &mut Payload, limit: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::bad_json(format!("The request's body is broken: {error}")))?;
        if first.len() + whole.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && whole.is_empty() {
            first = chunk;
        } else {
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&chunk);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

pub(super) fn too_large(limit: usize) -> ApiError {
    ApiError::too_large(format!("The request's body has more than {limit} bytes"))
}

/// A body that is made on the shared runtime while it is sent from a listener's thread.
pub(super) struct Streamed(mpsc::Receiver<Piece>);

enum Piece {
    Chunk(Bytes),
    /// Without this the body is not whole: its maker failed or panicked.
    End,
}

/// The maker of a body failed after the head had gone out.
#[derive(Debug, thiserror::Error)]
#[error("the body could not be completed")]
pub(super) struct Cut;

impl Streamed {
    /// Runs the stream at most two chunks ahead of the client. `place` is taken until it has ended.
    pub(super) fn start(runtime: &Handle, mut stream: BodyStream, place: Place) -> Self {
        let (sender, receiver) = mpsc::channel(2);
        runtime.spawn(async move {
            let _place = place;
            // A send fails when the client is gone.
            while let Some(chunk) = stream.next().await {
                match chunk {
                    Ok(chunk) if chunk.is_empty() => {}
                    Ok(chunk) => {
                        if sender.send(Piece::Chunk(chunk)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an answer was cut short");
                        return;
                    }
                }
            }
            let _ = sender.send(Piece::End).await;
        });
        Self(receiver)
    }
}

impl MessageBody for Streamed {
    type Error = Cut;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        Poll::Ready(match ready!(self.0.poll_recv(cx)) {
            Some(Piece::Chunk(chunk)) => Some(Ok(chunk)),
            Some(Piece::End) => None,
            None => Some(Err(Cut)),
        })
    }
}
