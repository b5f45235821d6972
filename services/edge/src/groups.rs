//! What the commands about groups do.

use antar_proto::command::{GroupPolicy, Receiver};
use antar_proto::reply::Empty;
use antar_proto::{ErrorCode, GroupAddress, GroupName, UserName};
use antar_realm::GroupError;
use serde_json::json;

use crate::commands::{Handled, Refusal, fields};
use crate::connection::Connection;

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        let code = match &error {
            GroupError::Exists => return ErrorCode::GroupExists.into(),
            GroupError::NoSuchGroup => return ErrorCode::NoSuchGroup.into(),
            GroupError::NotAMember => return ErrorCode::NotAMember.into(),
            GroupError::NoSuchUser => return ErrorCode::NoSuchUser.into(),
            GroupError::NotAllowed(_) => ErrorCode::NotAllowed,
            GroupError::Full(_) => ErrorCode::GroupFull,
            GroupError::BadTopic => ErrorCode::BadRequest,
            GroupError::Unavailable(why) => {
                tracing::warn!(why, "a command could not be carried out");
                return ErrorCode::Unavailable.into();
            }
        };
        Self::detailed(code, error.to_string())
    }
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
        Ok(fields(self.edge.realm.join_group(&user, &group).await?))
    }

    pub(crate) async fn leave_group(&mut self, token: &str, group: Option<GroupAddress>) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        self.edge.realm.leave_group(&user, &group).await?;
        Ok(fields(Empty {}))
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
        let invited = self.of_here(invited).ok_or(ErrorCode::NoSuchUser)?;
        self.edge.realm.invite_to_group(&user, &group, &invited).await?;
        Ok(fields(Empty {}))
    }

    pub(crate) async fn kick_from_group(
        &mut self,
        token: &str,
        group: Option<GroupAddress>,
        kicked: Receiver,
    ) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        let kicked = self.of_here(kicked).ok_or(ErrorCode::NoSuchUser)?;
        self.edge.realm.kick_from_group(&user, &group, &kicked).await?;
        Ok(fields(Empty {}))
    }

    pub(crate) async fn topic(
        &mut self,
        token: &str,
        group: Option<GroupAddress>,
        text: Option<&str>,
    ) -> Handled {
        let user = self.user(token).await?;
        let group = group.ok_or(ErrorCode::NoSuchGroup)?;
        let info = self.edge.realm.topic(&user, &group, text).await?;
        Ok(json!({"group": info.group, "topic": info.topic}))
    }

    /// A user of this realm.
    fn of_here(&self, user: Receiver) -> Option<UserName> {
        match user {
            Receiver::User(user) => Some(user),
            Receiver::Qualified(address) if address.realm == *self.edge.realm.id() => Some(address.user),
            _ => None,
        }
    }
}
