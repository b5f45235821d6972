//! What edges may do with files.

use antar_proto::{MessageId, UserName};
use bytes::Bytes;

use super::{FileError, FilePart, FileReader, FileView, NewFile, Stored};
use crate::realm::Realm;

impl Realm {
    /// Whether a file would be taken, before any of its bytes is: what is too large or too much is refused here. What is taken
    /// has its place from now on.
    pub async fn begin_file(&self, owner: &UserName, new: NewFile<'_>) -> Result<(), FileError> {
        self.shared.begin(owner, new, None).await.map(|_| ())
    }

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
        self.shared.file_part(user, id, number).await
    }

    /// All of a file that `user` was sent, or has sent, part by part.
    pub async fn read_file(&self, user: &UserName, id: MessageId) -> Result<FileReader, FileError> {
        FileReader::open(&self.shared, user, id).await
    }

    /// The newest `limit` files that `user` was sent, or has sent; whether there are more.
    pub fn files(&self, user: &UserName, limit: usize) -> (Vec<FileView>, bool) {
        self.shared.files_of(user, limit)
    }
}
