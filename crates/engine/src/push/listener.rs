//! This side of one connection: the frames that wait to be written, and why there will be no more.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use boxoffice_domain::QueueEntryId;

use super::frame::Form;
use crate::sync::lock;

/// Frames that may wait for one listener. A listener that is further behind is ended.
pub const QUEUED_MAX: usize = 8;

/// Why there will be no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The entry has ended, and its last frame said so.
    Over,
    /// The listener did not take its frames.
    Slow,
    /// The server stops.
    Closing,
}

/// What a listener gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Frame(Arc<[u8]>),
    End(End),
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Arc<[u8]>>,
    end: Option<End>,
    waker: Option<Waker>,
}

/// See the module's opening.
#[derive(Debug)]
pub struct Listener {
    id: u64,
    entry: QueueEntryId,
    form: Form,
    queue: Mutex<Queue>,
}

impl Listener {
    pub(super) fn new(id: u64, entry: QueueEntryId, form: Form) -> Arc<Self> {
        Arc::new(Self { id, entry, form, queue: Mutex::default() })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn entry(&self) -> QueueEntryId {
        self.entry
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// False if the listener is ended by this, because too many frames wait already.
    pub(super) fn push(&self, frame: Arc<[u8]>) -> bool {
        let mut queue = lock(&self.queue);
        if queue.end.is_some() {
            return true;
        }
        let takes = queue.frames.len() < QUEUED_MAX;
        if takes {
            queue.frames.push_back(frame);
        } else {
            queue.frames.clear();
            queue.end = Some(End::Slow);
        }
        if let Some(waker) = queue.waker.take() {
            drop(queue);
            waker.wake();
        }
        takes
    }

    /// Frames that wait are still given out first. The first reason counts.
    pub(super) fn end(&self, end: End) {
        let mut queue = lock(&self.queue);
        queue.end.get_or_insert(end);
        if let Some(waker) = queue.waker.take() {
            drop(queue);
            waker.wake();
        }
    }

    pub(super) async fn next(&self) -> Next {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<Next> {
        let mut queue = lock(&self.queue);
        if let Some(frame) = queue.frames.pop_front() {
            return Poll::Ready(Next::Frame(frame));
        }
        if let Some(end) = queue.end {
            return Poll::Ready(Next::End(end));
        }
        if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            queue.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8) -> Arc<[u8]> {
        Arc::new([byte])
    }

    #[tokio::test]
    async fn frames_come_in_order_and_then_the_end() {
        let listener = Listener::new(1, uuid::Uuid::nil().into(), Form::Sse);
        assert!(listener.push(frame(1)) && listener.push(frame(2)));
        listener.end(End::Over);
        listener.end(End::Closing);
        assert!(listener.push(frame(3)), "a listener that has ended is not slow");
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(listener.next().await);
        }
        assert_eq!(got, [Next::Frame(frame(1)), Next::Frame(frame(2)), Next::End(End::Over)]);
    }

    #[tokio::test]
    async fn a_listener_that_does_not_take_its_frames_is_ended() {
        let listener = Listener::new(1, uuid::Uuid::nil().into(), Form::Sse);
        for byte in 0..QUEUED_MAX {
            assert!(listener.push(frame(byte as u8)));
        }
        assert!(!listener.push(frame(9)));
        assert_eq!(listener.next().await, Next::End(End::Slow), "the frames that waited are not written any more");
    }

    #[tokio::test]
    async fn a_waiting_listener_is_woken_by_a_frame() {
        let listener = Listener::new(1, uuid::Uuid::nil().into(), Form::Sse);
        let waits = listener.clone();
        let task = tokio::spawn(async move { waits.next().await });
        tokio::task::yield_now().await;
        listener.push(frame(7));
        assert_eq!(task.await.unwrap(), Next::Frame(frame(7)));
    }
}
