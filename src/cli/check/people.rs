//! USER. Names of users and groups to numbers, each asked once. Never guesses: a name that is not there is said.

use std::collections::BTreeMap;

use super::walk::Person;
use crate::sys::accounts;
use crate::unit::Account;
use crate::wire::accounts::Answer;

/// Accounts that web proxies run as, on the usual distributions.
const PROXIES: [&str; 6] = ["www-data", "nginx", "caddy", "haproxy", "apache", "http"];

/// What has been asked.
#[derive(Debug, Default)]
pub struct People {
    users: BTreeMap<String, Result<Person, String>>,
    groups: BTreeMap<String, Result<u32, String>>,
}

impl People {
    /// A user, with the groups of the account.
    pub fn user(&mut self, account: &Account) -> Result<Person, String> {
        let key = account.to_string();
        let ask = || {
            let answer = match account {
                Account::Name(name) => accounts::user_by_name(name),
                Account::Id(id) => accounts::user_by_id(*id),
            };
            match answer {
                Ok(Answer::User(found)) => {
                    let others = found.groups.iter().copied().filter(|group| *group != found.gid);
                    let groups = std::iter::once(found.gid).chain(others).collect();
                    Ok(Person { name: found.name, uid: found.uid, groups })
                }
                Ok(_) => Err(format!("there is no user `{account}`")),
                Err(error) => Err(format!("looking up the user `{account}`: {error}")),
            }
        };
        self.users.entry(key).or_insert_with(ask).clone()
    }

    /// A group's number.
    pub fn group(&mut self, account: &Account) -> Result<u32, String> {
        if let Account::Id(id) = account {
            return Ok(*id);
        }
        let name = account.to_string();
        let ask = || match accounts::group(&name) {
            Ok(Answer::Group(id)) => Ok(id),
            Ok(_) => Err(format!("there is no group `{name}`")),
            Err(error) => Err(format!("looking up the group `{name}`: {error}")),
        };
        self.groups.entry(name.clone()).or_insert_with(ask).clone()
    }

    /// The proxies that this machine has an account for.
    pub fn proxies(&mut self) -> Vec<Person> {
        PROXIES.iter().filter_map(|name| self.user(&Account::Name((*name).to_owned())).ok()).collect()
    }
}
