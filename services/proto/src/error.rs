//! The stable error codes of the line protocol and the reports' wording of each.

use serde::{Serialize, Serializer};

/// What went wrong, for programs. The wire form is kebab-case and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// `auth`: there is no such user.
    NoSuchAccount,
    /// `auth`, `passwd`: the password is wrong.
    BadPassword,
    /// `auth` with `auth.uniform_errors`: one of the two above.
    BadCredentials,
    /// The token is unknown, expired or logged out.
    NotAuthorized,
    /// The receiver does not exist.
    NoSuchUser,
    /// The realm was not added, or nobody answers for it.
    NoSuchRealm,
    /// There is no such group.
    NoSuchGroup,
    /// There is a group of this name.
    GroupExists,
    /// The group has no more room, or one may not have more of them.
    GroupFull,
    /// Only members of the group may do that.
    NotAMember,
    /// Only the owner of the group may do that, or whoever was invited.
    NotAllowed,
    /// There is no such message among those this user sent.
    NoSuchMessage,
    /// The realm was added before.
    RealmExists,
    /// Operators of this realm, or of the other, have blocked the traffic between the two.
    RealmBlocked,
    /// The realm has another key than the one that is known; its operators, or ours, have to look.
    KeyChanged,
    /// `register`: the name is taken.
    UserExists,
    /// `register`: the name is not a name.
    BadName,
    /// `register`: the realm does not let people register, or the invitation is not valid.
    RegistrationClosed,
    /// `register`, `passwd`: the new password is too short or too long.
    WeakPassword,
    /// No command has this name.
    UnknownCommand,
    /// Too few or too many arguments, or one that makes no sense.
    BadRequest,
    /// The line is longer than the limit; it was skipped.
    LineTooLong,
    /// The receiver's mailbox is full of unread messages.
    MailboxFull,
    /// The user, or the address, has sent as much as it may in a minute.
    RateLimited,
    /// Too many tries or too much at once; later again.
    SlowDown,
    /// There is no such file among those this user was sent or has sent, or no such part of it.
    NoSuchFile,
    /// The file is larger than the realm takes.
    FileTooLarge,
    /// The user has as many files, or as many bytes in files, as a user may have.
    FileQuota,
    /// Parts of the file are missing; `detail` names the first.
    FileIncomplete,
    /// The bytes are not those that `sha256=` names, or another file has this id.
    FileMismatch,
    /// The broker does not answer.
    Unavailable,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 31] = [
        Self::NoSuchAccount,
        Self::BadPassword,
        Self::BadCredentials,
        Self::NotAuthorized,
        Self::NoSuchUser,
        Self::NoSuchRealm,
        Self::NoSuchGroup,
        Self::GroupExists,
        Self::GroupFull,
        Self::NotAMember,
        Self::NotAllowed,
        Self::NoSuchMessage,
        Self::RealmExists,
        Self::RealmBlocked,
        Self::KeyChanged,
        Self::UserExists,
        Self::BadName,
        Self::RegistrationClosed,
        Self::WeakPassword,
        Self::UnknownCommand,
        Self::BadRequest,
        Self::LineTooLong,
        Self::MailboxFull,
        Self::RateLimited,
        Self::SlowDown,
        Self::NoSuchFile,
        Self::FileTooLarge,
        Self::FileQuota,
        Self::FileIncomplete,
        Self::FileMismatch,
        Self::Unavailable,
    ];

    /// The code as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchAccount => "no-such-account",
            Self::BadPassword => "bad-password",
            Self::BadCredentials => "bad-credentials",
            Self::NotAuthorized => "not-authorized",
            Self::NoSuchUser => "no-such-user",
            Self::NoSuchRealm => "no-such-realm",
            Self::NoSuchGroup => "no-such-group",
            Self::GroupExists => "group-exists",
            Self::GroupFull => "group-full",
            Self::NotAMember => "not-a-member",
            Self::NotAllowed => "not-allowed",
            Self::NoSuchMessage => "no-such-message",
            Self::RealmExists => "realm-exists",
            Self::RealmBlocked => "realm-blocked",
            Self::KeyChanged => "key-changed",
            Self::UserExists => "user-exists",
            Self::BadName => "bad-name",
            Self::RegistrationClosed => "registration-closed",
            Self::WeakPassword => "weak-password",
            Self::UnknownCommand => "unknown-command",
            Self::BadRequest => "bad-request",
            Self::LineTooLong => "line-too-long",
            Self::MailboxFull => "mailbox-full",
            Self::RateLimited => "rate-limited",
            Self::SlowDown => "slow-down",
            Self::NoSuchFile => "no-such-file",
            Self::FileTooLarge => "file-too-large",
            Self::FileQuota => "file-quota",
            Self::FileIncomplete => "file-incomplete",
            Self::FileMismatch => "file-mismatch",
            Self::Unavailable => "unavailable",
        }
    }

    /// The code with this wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The `message` of the reply: the reports' wording where they have one, else in their style.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoSuchAccount => "User Tidak Tersedia, Silahkan Coba Lagi",
            Self::BadPassword => "Password yang Anda Masukkan Salah, Silahkan Coba Lagi",
            Self::BadCredentials => "User atau Password Salah, Silahkan Coba Lagi",
            Self::NotAuthorized => "Session Tidak Ditemukan",
            Self::NoSuchUser => "User Tidak Ditemukan",
            Self::NoSuchRealm => "Realm Tidak Ditemukan",
            Self::NoSuchGroup => "Group Tidak Ditemukan",
            Self::GroupExists => "Group sudah ada",
            Self::GroupFull => "Group Penuh",
            Self::NotAMember => "Bukan Anggota Group",
            Self::NotAllowed => "Tidak Diizinkan",
            Self::NoSuchMessage => "Pesan Tidak Ditemukan",
            Self::RealmExists => "Realm sudah ada",
            Self::RealmBlocked => "Realm Diblokir",
            Self::KeyChanged => "Kunci Realm Berubah",
            Self::UserExists => "User sudah ada",
            Self::BadName => "Nama Tidak Benar",
            Self::RegistrationClosed => "Pendaftaran Ditutup",
            Self::WeakPassword => "Password Baru Tidak Memenuhi Syarat",
            Self::UnknownCommand => "**Protocol Tidak Benar",
            Self::BadRequest => "--Protocol Tidak Benar",
            Self::LineTooLong => "Baris Terlalu Panjang",
            Self::MailboxFull => "Kotak Pesan Penuh",
            Self::RateLimited => "Terlalu Banyak Pesan, Silahkan Coba Lagi Nanti",
            Self::SlowDown => "Terlalu Banyak Permintaan, Silahkan Coba Lagi Nanti",
            Self::NoSuchFile => "File Tidak Ditemukan",
            Self::FileTooLarge => "File Terlalu Besar",
            Self::FileQuota => "Kuota File Penuh",
            Self::FileIncomplete => "File Belum Lengkap",
            Self::FileMismatch => "File Tidak Cocok",
            Self::Unavailable => "Layanan Tidak Tersedia, Silahkan Coba Lagi",
        }
    }
}

/// The `message` of `not-authorized` at `logout`, which the reports word differently.
pub const LOGOUT_NOT_AUTHORIZED: &str = "WARNING! ERROR silahkan login terlebih dahulu";

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_wire_form() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(code.as_str()), Some(code));
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(!code.message().is_empty());
        }
    }
}
