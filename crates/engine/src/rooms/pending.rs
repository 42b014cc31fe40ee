//! Calls that wait for the next exchange with a room's log.

use boxoffice_domain::waiting::{RoomInput, RoomOutput};
use tokio::sync::oneshot;

use super::error::{ExchangeError, unavailable};
use super::snapshot::RoomCopy;

/// Inputs of one exchange.
pub(super) const TOGETHER_MAX: usize = 2_000;
/// Inputs that wait for one room. Beyond it, a call fails at once.
const WAITING_MAX: usize = 100_000;

/// What a caller wants of the log.
pub(super) enum PendingCall {
    /// To append inputs together, and get their outputs.
    Append(Vec<RoomInput>, oneshot::Sender<Result<Vec<RoomOutput>, ExchangeError>>),
    /// To have everything applied here that was appended before.
    CatchUp(oneshot::Sender<Result<(), ExchangeError>>),
    /// The room as it is, and its position in the log.
    Copy(oneshot::Sender<Result<Option<RoomCopy>, ExchangeError>>),
}

impl PendingCall {
    fn inputs(&self) -> usize {
        match self {
            Self::Append(inputs, _) => inputs.len(),
            Self::CatchUp(_) | Self::Copy(_) => 0,
        }
    }
}

#[derive(Default)]
pub(super) struct PendingCalls {
    calls: Vec<PendingCall>,
    inputs: usize,
    /// An exchange task runs, and takes the calls that come meanwhile.
    is_busy: bool,
}

impl PendingCalls {
    /// Adds a call. Whether the caller has to start the exchange task, because none runs.
    pub(super) fn add(&mut self, call: PendingCall) -> Result<bool, ExchangeError> {
        if self.calls.len() >= WAITING_MAX || self.inputs + call.inputs() > WAITING_MAX {
            return Err(unavailable("too many calls wait for the waiting room's log"));
        }
        self.inputs += call.inputs();
        self.calls.push(call);
        Ok(!std::mem::replace(&mut self.is_busy, true))
    }

    /// The next calls that go together. `None` ends the exchange task: the next call starts another one.
    pub(super) fn take(&mut self) -> Option<Vec<PendingCall>> {
        let mut inputs = 0;
        let fits = self.calls.iter().take_while(|call| {
            let before = inputs;
            inputs += call.inputs();
            before == 0 || inputs <= TOGETHER_MAX
        });
        let count = fits.count();
        if count == 0 {
            self.is_busy = false;
            return None;
        }
        let calls: Vec<_> = self.calls.drain(..count).collect();
        self.inputs -= calls.iter().map(PendingCall::inputs).sum::<usize>();
        Some(calls)
    }
}
