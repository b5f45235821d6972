//! What the commands about groups do.

use antar_proto::command::{GroupPolicy, Receiver};
use antar_proto::envelope::GroupWish;
use antar_proto::reply::Empty;
use antar_proto::{Address, ErrorCode, GroupAddress, GroupName, UserName};
use antar_realm::GroupError;
use serde_json::{Value, json};

use crate::commands::{Handled, Refusal, fields};
use crate::connection::Connection;

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        match &error {
            GroupError::NotAllowed(_) | GroupError::Full(_) | GroupError::BadTopic => {
                Self::detailed(error.code(), error.to_string())
            }
            GroupError::Unavailable(why) => {
                tracing::warn!(why, "a command could not be carried out");
                error.code().into()
            }
            _ => error.code().into(),
        }
    }
}

/// What is answered if a group lives in another realm that has not answered yet: what was asked for waits in the lane.
fn pending() -> Value {
    json!({"pending": true})
}

impl Connection {
    pub(crate) async fn add_group(
        &mut self,
        token: &str,
        group: Option<GroupName>,
        policy: GroupPolicy,
    ) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::BadName)?;
        Ok(fields(self.edge.realm.add_group(&user, &group, policy).await?))
    }

    pub(crate) async fn join_group(&mut self, token: &str, group: Option<GroupAddress>) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        Ok(self.edge.realm.join_group(&user, &group).await?.map_or_else(pending, fields))
    }

    pub(crate) async fn leave_group(&mut self, token: &str, group: Option<GroupAddress>) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        self.wish(&user, &group, GroupWish::Leave).await
    }

    pub(crate) async fn groups(&mut self, token: &str) -> Handled {
        let user = self.user(token).await?;
        Ok(json!({"groups": self.edge.realm.groups(&user)}))
    }

    pub(crate) async fn members(&mut self, token: &str, group: Option<GroupAddress>) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        let (info, members) = self.edge.realm.members(&user, &group).await?;
        Ok(json!({"group": info.group, "owner": info.owner, "members": members}))
    }

    pub(crate) async fn invite_to_group(
        &mut self,
        token: &str,
        group: Option<GroupAddress>,
        invited: Receiver,
    ) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        let user_invited = self.address_of(invited).ok_or(ErrorCode::NoSuchUser)?;
        self.wish(&user, &group, GroupWish::Invite { user: user_invited }).await
    }

    pub(crate) async fn kick_from_group(
        &mut self,
        token: &str,
        group: Option<GroupAddress>,
        kicked: Receiver,
    ) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        let user_kicked = self.address_of(kicked).ok_or(ErrorCode::NoSuchUser)?;
        self.wish(&user, &group, GroupWish::Kick { user: user_kicked }).await
    }

    pub(crate) async fn topic(
        &mut self,
        token: &str,
        group: Option<GroupAddress>,
        text: Option<&str>,
    ) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        if let Some(text) = text
            && !self.edge.realm.wish(&user, &group, GroupWish::Topic { text: text.to_owned() }).await?
        {
            return Ok(pending());
        }
        let (info, _) = self.edge.realm.members(&user, &group).await?;
        Ok(json!({"group": info.group, "topic": info.topic}))
    }

    async fn wish(&mut self, user: &UserName, group: &GroupAddress, wish: GroupWish) -> Handled {
        let is_done = self.edge.realm.wish(user, group, wish).await?;
        Ok(if is_done { fields(Empty {}) } else { pending() })
    }

    /// Who is meant: without a realm, a user of this one.
    fn address_of(&self, user: Receiver) -> Option<Address> {
        match user {
            Receiver::User(user) => Some(self.edge.realm.address(&user)),
            Receiver::Qualified(address) => Some(address),
            Receiver::Nobody(_) => None,
        }
    }
}
