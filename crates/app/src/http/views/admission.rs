//! How a concert admits.

use boxoffice_domain::waiting::{AdaptiveState, RoomSummary};
use boxoffice_domain::{Admission, AdmissionMode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::max_active::MaxActive;

/// At most `count` admitted in every window of `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PerInterval)]
pub(crate) struct PerIntervalView {
    #[schema(minimum = 1, maximum = 1_000_000, example = 50)]
    pub(crate) count: u32,
    #[schema(minimum = 1, maximum = 3_600, example = 1)]
    pub(crate) seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AdmissionMode)]
pub(crate) enum ModeView {
    Running,
    /// Joining goes on, promotion stops.
    Paused,
    /// No new buyer may join; those who wait are still admitted.
    Draining,
}

impl From<AdmissionMode> for ModeView {
    fn from(mode: AdmissionMode) -> Self {
        match mode {
            AdmissionMode::Running => Self::Running,
            AdmissionMode::Paused => Self::Paused,
            AdmissionMode::Draining => Self::Draining,
        }
    }
}

impl From<ModeView> for AdmissionMode {
    fn from(mode: ModeView) -> Self {
        match mode {
            ModeView::Running => Self::Running,
            ModeView::Paused => Self::Paused,
            ModeView::Draining => Self::Draining,
        }
    }
}

/// How a concert admits.
#[derive(Serialize, ToSchema)]
#[schema(as = Admission)]
pub(crate) struct AdmissionView {
    mode: ModeView,
    #[schema(example = 200)]
    max_active: MaxActive,
    /// Null: no rate.
    per_interval: Option<PerIntervalView>,
    adaptive: bool,
    /// What comes of it at this moment.
    state: AdmissionStateView,
}

/// What the policies allow now.
#[derive(Serialize, ToSchema)]
#[schema(as = AdmissionState)]
pub(crate) struct AdmissionStateView {
    /// The most that may be active.
    max_active: u32,
    /// Promotions per second that the servers bear; null while they fare well.
    rate_per_s: Option<f64>,
    /// The worst that the instances have reported in the last seconds; null where none has.
    p99_ms: Option<u32>,
    error_share: Option<f64>,
}

impl AdmissionView {
    pub(crate) fn new(admission: Admission, room: &RoomSummary) -> Self {
        let per_interval = admission.per_interval.map(|per| PerIntervalView { count: per.count, seconds: per.seconds });
        let AdaptiveState { rate_per_s, p99_ms, errors_permille } = room.adaptive;
        let error_share = errors_permille.map(|permille| f64::from(permille) / 1_000.0);
        Self {
            mode: admission.mode.into(),
            max_active: MaxActive::of(admission.max_active, admission.auto),
            per_interval,
            adaptive: admission.adaptive,
            state: AdmissionStateView { max_active: room.max_active, rate_per_s, p99_ms, error_share },
        }
    }
}
