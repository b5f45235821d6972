//! What edges ask of groups. A group of this realm is changed at once; one of another realm is asked for it, and may answer later.

use antar_proto::command::GroupPolicy;
use antar_proto::envelope::GroupWish;
use antar_proto::{Address, GroupAddress, GroupName, UserName};

use super::{GroupError, GroupInfo};
use crate::realm::Realm;

impl Realm {
    /// Makes a group, which its maker owns.
    pub async fn add_group(
        &self,
        owner: &UserName,
        group: &GroupName,
        policy: GroupPolicy,
    ) -> Result<GroupInfo, GroupError> {
        self.shared.add_group(owner, group, policy).await
    }

    /// Makes a user a member; one who is stays so. `None` if the group's realm has yet to answer.
    pub async fn join_group(
        &self,
        user: &UserName,
        group: &GroupAddress,
    ) -> Result<Option<GroupInfo>, GroupError> {
        if !self.wish(user, group, GroupWish::Join).await? {
            return Ok(None);
        }
        let group = self.shared.as_kept(group);
        let joined = self.shared.groups.get(&group);
        Ok(joined.map(|joined| joined.info(&group, &self.shared.address_of(user))))
    }

    /// Carries out what a user wants of a group. It is `false` if the group's realm has yet to answer. With its last member a
    /// group goes, and what was said in it.
    pub async fn wish(
        &self,
        user: &UserName,
        group: &GroupAddress,
        wish: GroupWish,
    ) -> Result<bool, GroupError> {
        let GroupAddress { group, realm } = self.shared.as_kept(group);
        match realm {
            Some(home) => self.shared.ask_abroad(user, &home, &group, wish).await,
            None => {
                let by = self.shared.address_of(user);
                self.shared.carry_out(&by, &group, &wish, None).await.map(|_| true)
            }
        }
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

    /// Whether a user may read a group: an error says why not.
    pub async fn may_read_group(&self, user: &UserName, group: &GroupAddress) -> Result<(), GroupError> {
        self.shared.readable_group(user, group).await.map(drop)
    }
}
