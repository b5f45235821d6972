//! What edges may do with named groups.

use antar_proto::command::GroupPolicy;
use antar_proto::{Address, GroupAddress, GroupName, UserName};

use super::{GroupError, GroupInfo};
use crate::realm::Realm;

impl Realm {
    /// Makes a group.
    pub async fn add_group(
        &self,
        owner: &UserName,
        group: &GroupName,
        policy: GroupPolicy,
    ) -> Result<GroupInfo, GroupError> {
        self.shared.add_group(owner, group, policy).await
    }

    /// Makes a user a member; one who is stays so.
    pub async fn join_group(&self, user: &UserName, group: &GroupAddress) -> Result<GroupInfo, GroupError> {
        self.shared.join_group(user, group).await
    }

    /// Takes a user out of a group, or declines its invitation. With its last member a group goes, and what was said in it.
    pub async fn leave_group(&self, user: &UserName, group: &GroupAddress) -> Result<(), GroupError> {
        self.shared.leave_group(user, group).await
    }

    /// A user's groups and invitations, by name.
    pub fn groups(&self, user: &UserName) -> Vec<GroupInfo> {
        self.shared.groups_of(user)
    }

    /// A group and its members, for one of them.
    pub async fn members(
        &self,
        user: &UserName,
        group: &GroupAddress,
    ) -> Result<(GroupInfo, Vec<Address>), GroupError> {
        self.shared.members(user, group).await
    }

    /// Lets a user join, by the group's owner.
    pub async fn invite_to_group(
        &self,
        by: &UserName,
        group: &GroupAddress,
        user: &UserName,
    ) -> Result<(), GroupError> {
        self.shared.invite_to_group(by, group, user).await
    }

    /// Removes a member or takes an invitation back, by the group's owner.
    pub async fn kick_from_group(
        &self,
        by: &UserName,
        group: &GroupAddress,
        user: &UserName,
    ) -> Result<(), GroupError> {
        self.shared.kick_from_group(by, group, user).await
    }

    /// Shows a group's topic to a member, or sets it, by the owner.
    pub async fn topic(
        &self,
        by: &UserName,
        group: &GroupAddress,
        topic: Option<&str>,
    ) -> Result<GroupInfo, GroupError> {
        self.shared.topic(by, group, topic).await
    }

    /// Whether a user may read a group: an error says why not.
    pub async fn may_read_group(&self, user: &UserName, group: &GroupAddress) -> Result<(), GroupError> {
        self.shared.readable_group(user, group).await.map(drop)
    }
}
