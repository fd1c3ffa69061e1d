//! Who a process runs as.
//!
//! Read from `/etc/passwd` and `/etc/group` directly, as `gosu` does: an image
//! has its accounts in these files, and glibc's own look-up needs shared
//! libraries at run time, which a statically linked program must not count on.

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A user with everything a process of theirs needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name. `docker run --user 12345` has none.
    pub name: Option<String>,
    /// The user's number.
    pub uid: Uid,
    /// The primary group.
    pub gid: Gid,
    /// All groups, the primary one included. On Debian `ssl-cert` among them
    /// is what lets Postgres read its TLS key.
    pub groups: Vec<Gid>,
    /// The home directory; `/` where none is known, as Docker has it.
    pub home: PathBuf,
}

/// Why an account could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no such user.
    #[error("there is no user `{name}` in {}", .passwd.display())]
    Unknown {
        /// The name asked for.
        name: String,
        /// The file searched.
        passwd: PathBuf,
    },
    /// The user database cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Account {
    /// The user called `name`.
    pub fn named(name: &str) -> Result<Account, AccountError> {
        Self::named_in(Path::new("/etc"), name)
    }

    /// The user called `name` in the `passwd` and `group` files of `etc`.
    pub fn named_in(etc: &Path, name: &str) -> Result<Account, AccountError> {
        let passwd = etc.join("passwd");
        let entry = passwd_entries(&read(&passwd)?)
            .find(|entry| entry.name == name)
            .ok_or_else(|| AccountError::Unknown { name: name.to_owned(), passwd })?;
        let mut groups = vec![entry.gid];
        for gid in groups_with_member(&read(&etc.join("group"))?, name) {
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        Ok(Account {
            name: Some(entry.name),
            uid: entry.uid,
            gid: entry.gid,
            groups,
            home: entry.home,
        })
    }

    /// The user this process runs as, with the groups it really has.
    pub fn current() -> Account {
        Self::current_in(Path::new("/etc"))
    }

    fn current_in(etc: &Path) -> Account {
        let (uid, gid) = (geteuid(), getegid());
        let mut groups = getgroups().unwrap_or_default();
        if !groups.contains(&gid) {
            groups.insert(0, gid);
        }
        let passwd = fs::read_to_string(etc.join("passwd")).unwrap_or_default();
        let (name, home) = match passwd_entries(&passwd).find(|entry| entry.uid == uid) {
            Some(entry) => (Some(entry.name), entry.home),
            None => (None, PathBuf::from("/")),
        };
        Account { name, uid, gid, groups, home }
    }

    /// Whether this is the superuser.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

fn read(path: &Path) -> Result<String, AccountError> {
    let bytes =
        fs::read(path).map_err(|source| AccountError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PasswdEntry {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

/// passwd(5): `name:password:uid:gid:comment:home:shell`. Other lines are skipped.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let uid = Uid::from_raw(fields.next()?.parse().ok()?);
        let gid = Gid::from_raw(fields.next()?.parse().ok()?);
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
        Some(PasswdEntry { name: name.to_owned(), uid, gid, home: home.into() })
    })
}

/// group(5): `name:password:gid:member,member`.
fn groups_with_member(text: &str, user: &str) -> impl Iterator<Item = Gid> {
    text.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == user).then_some(Gid::from_raw(gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own with a `passwd` and a `group` in it.
    fn etc(test: &str) -> PathBuf {
        let etc = std::env::temp_dir().join(format!("pgherd-{test}-{}", std::process::id()));
        fs::create_dir_all(&etc).unwrap();
        fs::write(
            etc.join("passwd"),
            "root:x:0:0:root:/root:/bin/bash\nbroken\nnohome:x:7:7:::\n\
             postgres:x:999:998:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n",
        )
        .unwrap();
        fs::write(
            etc.join("group"),
            "root:x:0:\nssl-cert:x:103:someone,postgres\npostgres:x:998:postgres\nno:x:9:post\n",
        )
        .unwrap();
        etc
    }

    #[test]
    fn an_account_has_its_supplementary_groups() {
        let account = Account::named_in(&etc("groups"), "postgres").unwrap();
        assert_eq!(account.uid, Uid::from_raw(999));
        assert_eq!(account.groups, [998, 103].map(Gid::from_raw));
        assert_eq!(account.home, Path::new("/var/lib/postgresql"));
    }

    #[test]
    fn an_account_without_a_home_lives_in_the_root() {
        assert_eq!(Account::named_in(&etc("home"), "nohome").unwrap().home, Path::new("/"));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_where_was_looked() {
        let error = Account::named_in(&etc("unknown"), "nobody-here").unwrap_err().to_string();
        assert!(error.contains("nobody-here") && error.contains("/passwd"), "{error}");
    }

    #[test]
    fn a_number_without_a_name_is_an_account_all_the_same() {
        let account = Account::current_in(Path::new("/nonexistent"));
        assert_eq!(account.uid, geteuid());
        assert_eq!(account.name, None);
        assert_eq!(account.to_string(), format!("uid {}", geteuid()));
    }
}
