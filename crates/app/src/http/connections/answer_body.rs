//! Bodies of answers, in pieces.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

use super::connection::{Connection, ConnectionHandle};

/// An answer is handed over in pieces of this size, bytes; the rest stays shared.
const PIECE: usize = 16 << 10;

/// An answer's body. When it is dropped the HTTP server has taken it whole, and the next request may come.
///
/// The HTTP server copies each piece and takes the next one when that is sent: a large answer is one copy for all its
/// readers, however slow.
pub(crate) struct AnswerBody {
    content: Content,
    connection: Rc<Connection>,
}

enum Content {
    Bytes(Bytes),
    Stream(BoxBody),
}

impl AnswerBody {
    pub(crate) fn boxed(body: BoxBody, connection: &ConnectionHandle) -> BoxBody {
        let content = match body.try_into_bytes() {
            Ok(bytes) => Content::Bytes(bytes),
            Err(stream) => Content::Stream(stream),
        };
        BoxBody::new(Self { content, connection: connection.0.clone() })
    }
}

impl MessageBody for AnswerBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        match &self.content {
            Content::Bytes(bytes) => BodySize::Sized(bytes.len() as u64),
            Content::Stream(stream) => stream.size(),
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match &mut self.content {
            Content::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Bytes(bytes) => {
                let piece = bytes.len().min(PIECE);
                Poll::Ready(Some(Ok(bytes.split_to(piece))))
            }
            Content::Stream(stream) => Pin::new(stream).poll_next(context),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.connection.answered.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn an_answer_is_sent_in_pieces_that_share_one_copy() {
        let map: Bytes = (0..100_000).map(|n| n as u8).collect::<Vec<_>>().into();
        let memory = map.as_ptr_range();
        for length in [0, 1, PIECE, PIECE + 1, map.len()] {
            let connection = Rc::new(Connection::default());
            let mut body = AnswerBody::boxed(BoxBody::new(map.slice(..length)), &ConnectionHandle(connection.clone()));
            assert_eq!(body.size(), BodySize::Sized(length as u64));
            let (mut read, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
            while let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut body).poll_next(&mut context) {
                assert!(piece.len() <= PIECE && memory.contains(&piece.as_ptr()), "a piece shares the memory of the whole");
                read.extend_from_slice(&piece);
            }
            assert!(read == map[..length], "{length}");
            assert!(!connection.answered.get());
            drop(body);
            assert!(connection.answered.get());
        }
    }
}
