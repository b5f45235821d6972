//! What edges may do with files.

use antar_proto::{MessageId, UserName};
use bytes::Bytes;

use super::{FileError, FilePart, FileView, NewFile, Stored};
use crate::realm::Realm;

impl Realm {
    /// Stores a part of a file; the last one sends the message that names it. See [`Stored`].
    pub async fn put_part(
        &self,
        owner: &UserName,
        new: NewFile<'_>,
        bytes: Bytes,
    ) -> Result<Stored, FileError> {
        self.shared.put_part(owner, new, bytes).await
    }

    /// One part of a file that `user` was sent, or has sent.
    pub async fn file_part(
        &self,
        user: &UserName,
        id: MessageId,
        number: u32,
    ) -> Result<FilePart, FileError> {
        self.shared.files.get(user, id, number).await
    }

    /// The newest `limit` files that `user` was sent, or has sent; whether there are more.
    pub fn files(&self, user: &UserName, limit: usize) -> (Vec<FileView>, bool) {
        self.shared.files.of(user, limit)
    }
}
