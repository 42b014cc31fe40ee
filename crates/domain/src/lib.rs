//! The rules of a concert booking: values, aggregates, commands, and the one decision that every strategy runs.
//!
//! Nothing here waits, reads a clock, draws a random number or knows a store. What changes money or seats is a
//! [`Command`]; [`decide_batch`] folds a batch of them over the rows a ledger loaded ([`WorkingSet`]) and returns
//! the answer to each. The waiting room of one concert is a state machine of the same kind ([`waiting::Room`]).
//!
//! # Layout
//!
//! * [`text`], [`fault`], [`time`]: which text is accepted from outside, what is wrong with a document, instants.
//! * [`ids`], [`money`], [`concert`], [`seat`], [`reservation`], [`account`], [`payment`]: values and aggregates.
//! * [`command`], [`batch`], [`decide`], [`reply`], [`rejection`], [`event`]: requests, the rows they are decided over, the
//!   decision, and what comes of it.
//! * [`audit`]: the invariants of a store, looked for in its rows.
//! * [`waiting`], [`draw`], [`mod@line`], [`admission`], [`eta`]: the waiting room.

pub mod account;
pub mod admission;
pub mod audit;
pub mod batch;
pub mod command;
pub mod concert;
pub mod decide;
pub mod draw;
pub mod eta;
pub mod event;
pub mod fault;
pub mod ids;
pub mod line;
pub mod money;
pub mod payment;
pub mod rejection;
pub mod reply;
pub mod reservation;
pub mod seat;
pub mod text;
pub mod time;
pub mod waiting;

pub use account::{Account, EntryKind, PointsEntry, PointsKind, WalletEntry};
pub use admission::{Admission, AdmissionMode, PerInterval};
pub use batch::{Batch, Policy, SeatChange, StoredReply, Tracked, WorkingSet};
pub use command::{Actor, Command, Fingerprint, FreshIds, IdempotencyKey, Key, Request, Roots};
pub use concert::{ConcertPlan, ConcertRef, DatePlan, DateRef, DateTerms, SeatPlan};
pub use decide::decide_batch;
pub use eta::Eta;
pub use event::{Event, ReservationChange};
pub use ids::{CommandId, ConcertId, DateId, EntryId, InstanceId, PaymentId, QueueEntryId, ReservationId, UserId};
pub use payment::{Payment, Refund};
pub use rejection::Rejection;
pub use reply::{Decision, Outcome, Reply};
pub use reservation::{Reservation, ReservationStatus, SeatAtSale};
pub use seat::{Seat, SeatKey, SeatNumber, SeatState};
pub use time::Timestamp;
pub use waiting::{Lane, Place, QueueStatus, Stock};
