//! What replies claim of one record (I3).

use super::found::{Check, Found};
use super::row::{Claim, Effect};
use std::fmt::Display;

/// How often each effect that can happen once was claimed of one record. The others can be requested again, and
/// report where a reservation stood.
#[derive(Debug, Default)]
pub(super) struct Claims {
    entered: u64,
    held: u64,
    paid: u64,
    refunded: u64,
}

impl Claims {
    pub(super) fn take(&mut self, claim: Claim, happened: bool, found: &mut Found) {
        let Claim { user, command, effect } = claim;
        match effect {
            Effect::Entered => self.entered += 1,
            Effect::Held => self.held += 1,
            Effect::Paid => self.paid += 1,
            Effect::Refunded => self.refunded += 1,
            Effect::Extended | Effect::Released | Effect::Expired => {}
        }
        found.check(Check::ReplyHasEffect, happened, || {
            format!("the reply of command {command} of user {user} says {}, which did not happen", effect.name())
        });
    }

    pub(super) fn close(self, record: impl Display, found: &mut Found) {
        let counts =
            [(Effect::Entered, self.entered), (Effect::Held, self.held), (Effect::Paid, self.paid), (Effect::Refunded, self.refunded)];
        for (effect, claims) in counts {
            found.check(Check::EffectIsClaimedOnce, claims <= 1, || format!("{claims} replies claim {} {record}", effect.name()));
        }
    }
}
