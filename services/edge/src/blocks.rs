//! `block`, `unblock` and `blocks`: whom a user wants to hear nothing from. Must not know how that is kept.

use antar_proto::command::Receiver;
use antar_proto::reply::Empty;
use antar_proto::{Address, ErrorCode};
use antar_realm::{AccountError, BlockError};
use serde_json::json;

use crate::commands::{Handled, Refusal, fields};
use crate::connection::Connection;

impl From<BlockError> for Refusal {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Account(AccountError::NoSuchUser) => ErrorCode::NotAuthorized.into(),
            BlockError::Account(error) => {
                tracing::warn!(%error, "a list of blocked users could not be changed");
                ErrorCode::Unavailable.into()
            }
            other => Self::detailed(ErrorCode::BadRequest, other.to_string()),
        }
    }
}

impl Connection {
    pub(crate) async fn block(&mut self, token: &str, whom: Receiver, blocked: bool) -> Handled {
        let user = self.user(token).await?;
        let realm = &self.edge.realm;
        let whom = match whom {
            Receiver::User(user) => Address { user, realm: realm.id().clone() },
            Receiver::Qualified(address) => address,
            Receiver::Nobody(_) => return Err(ErrorCode::NoSuchUser.into()),
        };
        realm.set_blocked(&user, &whom, blocked).await?;
        Ok(fields(Empty {}))
    }

    pub(crate) async fn blocks(&mut self, token: &str) -> Handled {
        let user = self.user(token).await?;
        Ok(json!({"blocks": self.edge.realm.blocks(&user).await?}))
    }
}
