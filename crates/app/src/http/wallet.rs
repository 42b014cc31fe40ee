//! The wallet: balance, journal, charge, use; and the rewards.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::money::Money;
use boxoffice_domain::text::TEXT_MAX;
use boxoffice_domain::{Actor, Command};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::body::Body;
use super::caller::User;
use super::execution;
use super::idempotency::{self, Keyed};
use super::params::{self, Paging, Query, SeqCursor};
use super::problem::{Code, Problem};
use super::state::App;
use super::views::{List, RewardView, Rewards, WalletEntryView, WalletView};

type EntryCursor = SeqCursor<b'e'>;
type RewardCursor = SeqCursor<b'w'>;

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Charge {
    /// Minor units.
    #[schema(minimum = 1, example = 300_000)]
    amount: Money,
}

impl Charge {
    pub(crate) fn parse(body: &Body) -> Result<Self, Problem> {
        let charge: Self = body.parse()?;
        at_least_one(charge.amount)?;
        Ok(charge)
    }

    pub(crate) fn amount(&self) -> Money {
        self.amount
    }
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Use {
    /// Minor units.
    #[schema(minimum = 1, example = 12_000)]
    amount: Money,
    #[schema(max_length = 200, example = "poster")]
    memo: Option<String>,
}

fn at_least_one(amount: Money) -> Result<(), Problem> {
    if amount >= 1 { Ok(()) } else { Err(Problem::field("amount", "must be at least 1")) }
}

/// Balance of one's wallet.
#[utoipa::path(get, path = "/api/v1/wallet", tag = "wallet", responses((status = 200, description = "Balance", body = WalletView)))]
pub(crate) async fn get(app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let wallet = app.stores.queries.wallet(user.0).await?;
    answer::ok(&WalletView { balance: wallet.balance, currency: &app.settings.money.currency })
}

/// One's journal, newest first.
#[utoipa::path(get, path = "/api/v1/wallet/entries", tag = "wallet",
    responses((status = 200, description = "A page of entries", body = List<WalletEntryView>)))]
pub(crate) async fn entries(app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let paging = Paging::<EntryCursor>::of(&request)?;
    let page = app.stores.queries.entries(user.0, paging.after.map(|after| after.0), paging.limit).await?;
    let last = page.items.last().filter(|_| page.more);
    let next_cursor = last.map(|entry| params::encode::<EntryCursor>(&SeqCursor(entry.seq)));
    answer::ok(&List { items: page.items.iter().map(WalletEntryView::from).collect(), next_cursor })
}

/// Put money into one's own wallet.
#[utoipa::path(post, path = "/api/v1/wallet/charges", tag = "wallet", request_body = Charge,
    responses((status = 201, description = "The journal's new line", body = WalletEntryView)))]
pub(crate) async fn charge(app: Data<App>, user: User, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    if !app.settings.self_charge() {
        return Err(Problem::new(Code::SelfChargeOff, "an operator charges wallets here"));
    }
    Query::none(&request)?;
    let key = idempotency::key(&request, user.0)?;
    let charge = Charge::parse(&body)?;
    let keyed = Keyed::new(key, &request, &charge)?;
    let command = Command::ChargeWallet { user: user.0, amount: charge.amount };
    execution::execute(&app, app.wallet.as_ref(), Actor::User(user.0), keyed, command).await
}

/// Take money out of one's own wallet.
#[utoipa::path(post, path = "/api/v1/wallet/uses", tag = "wallet", request_body = Use,
    responses((status = 201, description = "The journal's new line", body = WalletEntryView)))]
pub(crate) async fn spend(app: Data<App>, user: User, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let key = idempotency::key(&request, user.0)?;
    let spend: Use = body.parse()?;
    at_least_one(spend.amount)?;
    params::text("memo", spend.memo.as_deref(), TEXT_MAX)?;
    let keyed = Keyed::new(key, &request, &spend)?;
    let command = Command::UseWallet { user: user.0, amount: spend.amount, memo: spend.memo };
    execution::execute(&app, app.wallet.as_ref(), Actor::User(user.0), keyed, command).await
}

/// One's points and how they came about, newest first.
#[utoipa::path(get, path = "/api/v1/rewards", tag = "wallet",
    responses((status = 200, description = "Points and a page of their journal", body = Rewards)))]
pub(crate) async fn rewards(app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let paging = Paging::<RewardCursor>::of(&request)?;
    let wallet = app.stores.queries.wallet(user.0).await?;
    let page = app.stores.queries.points_entries(user.0, paging.after.map(|after| after.0), paging.limit).await?;
    let last = page.items.last().filter(|_| page.more);
    let next_cursor = last.map(|entry| params::encode::<RewardCursor>(&SeqCursor(entry.seq)));
    answer::ok(&Rewards { points: wallet.points, items: page.items.iter().map(RewardView::from).collect(), next_cursor })
}
