//! Ports that stop answering while a gate is shut for them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::money::Money;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{
    Admission, Batch, ConcertId, ConcertPlan, DateId, IdempotencyKey, Key, PaymentId, PointsEntry, QueueEntryId, Request, Reservation,
    ReservationId, Timestamp, UserId, WalletEntry,
};
use boxoffice_ports::{
    ActivePlace, Audit, AuditReport, Catalog, CatalogError, ChangedSeats, Committed, ConcertRow, Deadline, DrawRecord, Exchanged, Guard,
    Imported, InstanceId, Ledger, LedgerError, LogPosition, Outbox, OutboxRow, OwnAdmission, Page, PaymentRow, Queries, RoomLog,
    RoomLogError, RoomMark, RoomMirror, SeatMark, SeatRow, Secrets, StoreError, StoredAnswer, Unsent, Upkeep, WalletRow,
};
use tokio::sync::watch;

/// The ports that may hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Port {
    Ledger = 1,
    Queries,
    Catalog,
    Upkeep,
    Outbox,
    Audit,
    Secrets,
    Mirror,
    RoomLog,
}

pub(super) const NONE: u8 = 0;
pub(super) const ALL: u8 = u8::MAX;

/// The port that does not answer now.
pub(super) struct Gate(watch::Sender<u8>);

impl Gate {
    pub(super) fn open() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(NONE)))
    }

    pub(super) fn hang(&self, port: u8) {
        self.0.send_replace(port);
    }

    async fn passes(&self, port: Port) {
        // The sender lives as long as this borrow.
        let _ = self.0.subscribe().wait_for(|hangs| *hangs != ALL && *hangs != port as u8).await;
    }
}

/// A port behind the gate.
pub(super) struct Gated<P: ?Sized> {
    pub(super) port: Arc<P>,
    pub(super) gate: Arc<Gate>,
}

macro_rules! gated {
    ($kind:ident: $port:ident { $(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)* } $($rest:tt)*) => {
        #[async_trait]
        impl $port for Gated<dyn $port> {
            $(async fn $name(&self, $($argument: $type),*) -> $answer {
                self.gate.passes(Port::$kind).await;
                self.port.$name($($argument),*).await
            })*
            $($rest)*
        }
    };
}

gated! { Ledger: Ledger {
    fn transact(batch: Batch, guard: Guard, deadline: Deadline) -> Result<Committed, LedgerError>;
    fn held(requests: Arc<[Request]>) -> Result<BTreeSet<Key>, LedgerError>;
    fn reply(key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError>;
} }
gated! { Queries: Queries {
    fn catalog() -> Result<Vec<ConcertRow>, StoreError>;
    fn catalog_version() -> Result<i64, StoreError>;
    fn seats(date: DateId) -> Result<Vec<SeatRow>, StoreError>;
    fn changed_seats(dates: Vec<DateId>, since: Option<SeatMark>) -> Result<Option<ChangedSeats>, StoreError>;
    fn wallet(user: UserId) -> Result<WalletRow, StoreError>;
    fn entries(user: UserId, after: Option<i64>, limit: u32) -> Result<Page<WalletEntry>, StoreError>;
    fn points_entries(user: UserId, after: Option<i64>, limit: u32) -> Result<Page<PointsEntry>, StoreError>;
    fn reservations(user: UserId, after: Option<ReservationId>, limit: u32) -> Result<Page<Reservation>, StoreError>;
    fn reservation(user: UserId, id: ReservationId) -> Result<Option<Reservation>, StoreError>;
    fn payments(user: UserId, after: Option<PaymentId>, limit: u32) -> Result<Page<PaymentRow>, StoreError>;
    fn payment(user: UserId, id: PaymentId) -> Result<Option<PaymentRow>, StoreError>;
    fn payments_between(from: PaymentId, until: PaymentId, limit: u32) -> Result<Vec<PaymentRow>, StoreError>;
    fn live_holds_of(users: Vec<UserId>, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError>;
    fn revenue(concert: ConcertId) -> Result<Money, StoreError>;
    fn now() -> Result<Timestamp, StoreError>;
} }
gated! { Catalog: Catalog {
    fn import(plans: Vec<ConcertPlan>, admission: Admission) -> Result<Vec<Imported>, CatalogError>;
} }
gated! { Upkeep: Upkeep {
    fn check() -> Result<(), StoreError>;
    fn due_holds(limit: u32) -> Result<Vec<ReservationId>, StoreError>;
    fn prune_replies(limit: u32) -> Result<u64, StoreError>;
} }
gated! { Outbox: Outbox {
    fn claim(relay: InstanceId, lease: Duration) -> Result<Vec<u32>, StoreError>;
    fn release(relay: InstanceId) -> Result<(), StoreError>;
    fn unsent(shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    fn sent(shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    fn set_aside(shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    fn aside(shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    fn taken(shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    fn backlog() -> Result<Unsent, StoreError>;
} }
gated! { Audit: Audit {
    fn audit(max_seats_per_user: u32) -> Result<AuditReport, StoreError>;
} }
gated! { Secrets: Secrets {
    fn secret(name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError>;
} }
gated! { Mirror: RoomMirror {
    fn save(concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError>;
    fn load(concert: ConcertId) -> Result<Option<(RoomMark, Vec<ActivePlace>)>, StoreError>;
    fn admission(concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError>;
    fn set_admission(concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError>;
    fn keep_draw(concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError>;
    fn draw(concert: ConcertId) -> Result<Option<DrawRecord>, StoreError>;
} }
gated! { RoomLog: RoomLog {
    fn exchange(concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError>;
    fn begin(concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError>;
    fn compact(concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError>;
}
    fn is_volatile(&self) -> bool {
        self.port.is_volatile()
    }
}
