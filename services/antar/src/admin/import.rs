//! Reads `FILE.csv` with accounts. All of it is checked before any of it is sent.

use std::collections::HashMap;
use std::io::Read;

use antar_proto::UserName;
use antar_realm::admin::NewAccount;
use csv::StringRecord;

/// Most accounts of one file.
const ACCOUNTS_MAX: usize = 1_000_000;
/// Most problems that are told.
const PROBLEMS_MAX: usize = 20;
const COLUMNS: [&str; 4] = ["user", "password", "name", "country"];

/// Where each column stands.
struct Columns([Option<usize>; 4]);

impl Columns {
    fn of(header: &StringRecord) -> Result<Self, String> {
        let mut places = [None; 4];
        for (place, name) in header.iter().enumerate() {
            let known = COLUMNS.iter().position(|column| column.eq_ignore_ascii_case(name));
            let Some(column) = known else {
                return Err(format!(
                    "line 1: there is no column {name:?}; the columns are {}",
                    COLUMNS.join(",")
                ));
            };
            if places[column].replace(place).is_some() {
                return Err(format!("line 1: the column {name:?} stands twice"));
            }
        }
        if places[0].is_none() || places[1].is_none() {
            return Err(format!(
                "line 1: it names the columns, {}; user and password must be there",
                COLUMNS.join(",")
            ));
        }
        Ok(Self(places))
    }

    fn account(&self, record: &StringRecord) -> NewAccount {
        let field =
            |column: usize| self.0[column].and_then(|place| record.get(place)).unwrap_or_default().to_owned();
        NewAccount { user: field(0), password: field(1), name: field(2), country: field(3) }
    }
}

/// The accounts of a file, or what is wrong with it, a line each.
pub(crate) fn parse(input: impl Read) -> Result<Vec<NewAccount>, Vec<String>> {
    // A password may begin with a space only by mistake, a name too.
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
    let header = reader.headers().map_err(|error| vec![format!("line 1: {error}")])?;
    // Spreadsheets like to put a byte order mark before the first name.
    let header: StringRecord = header.iter().map(|name| name.trim_start_matches('\u{feff}')).collect();
    let columns = Columns::of(&header).map_err(|problem| vec![problem])?;
    let (mut accounts, mut problems, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    for record in reader.records() {
        let taken = record.map_err(|error| of_record(&error)).and_then(|record| {
            let line = record.position().map_or(0, csv::Position::line);
            let account = columns.account(&record);
            check(&account, line, &mut seen).map_err(|problem| format!("line {line}: {problem}"))?;
            Ok(account)
        });
        match taken {
            Ok(account) if accounts.len() < ACCOUNTS_MAX => accounts.push(account),
            Ok(_) => problems.push(format!("more than {ACCOUNTS_MAX} accounts: use several files")),
            Err(problem) => problems.push(problem),
        }
        if problems.len() > PROBLEMS_MAX {
            problems.push("and so on".into());
            break;
        }
    }
    if problems.is_empty() { Ok(accounts) } else { Err(problems) }
}

fn of_record(error: &csv::Error) -> String {
    match (error.kind(), error.position()) {
        (csv::ErrorKind::UnequalLengths { expected_len, len, .. }, Some(at)) => {
            format!("line {}: {len} fields instead of {expected_len}", at.line())
        }
        (csv::ErrorKind::Utf8 { .. }, Some(at)) => format!("line {}: not UTF-8", at.line()),
        _ => error.to_string(),
    }
}

/// What the file alone can tell; the realm checks the rest.
fn check(account: &NewAccount, line: u64, seen: &mut HashMap<String, u64>) -> Result<(), String> {
    account.user.parse::<UserName>().map_err(|error| format!("{:?}: {error}", account.user))?;
    if account.password.is_empty() {
        return Err(format!("{} has no password", account.user));
    }
    match seen.insert(account.user.clone(), line) {
        Some(before) => Err(format!("{} stands in line {before} already", account.user)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(csv: &str, words: &[&str]) {
        let problems = parse(csv.as_bytes()).unwrap_err();
        for word in words {
            assert!(problems.iter().any(|problem| problem.contains(word)), "{word:?} is not in {problems:?}");
        }
    }

    #[test]
    fn accounts_are_read_in_any_order_of_columns() {
        let csv =
            "\u{feff}name,user,password\r\n\"Hernandez, Xavi\",xavi, rahasia123 \r\n,iniesta,rahasia456\r\n";
        let accounts = parse(csv.as_bytes()).unwrap();
        let shown: Vec<_> = accounts
            .iter()
            .map(|a| [&a.user, &a.password, &a.name, &a.country].map(String::as_str))
            .collect();
        assert_eq!(shown, [["xavi", "rahasia123", "Hernandez, Xavi", ""], ["iniesta", "rahasia456", "", ""]]);
    }

    #[test]
    fn every_wrong_line_is_named_by_its_number() {
        refused(
            "user,password\nbaik,x\nA.b,x\nkosong,\nbaik,y\n\"dua\nbaris\",x\n",
            &[
                "line 3: \"A.b\"",
                "line 4: kosong has no password",
                "line 5: baik stands in line 2",
                "line 6: \"dua\\nbaris\"",
            ],
        );
        refused("user,password\na,b\nc\n", &["line 3: 1 fields instead of 2"]);
    }

    #[test]
    fn a_header_that_is_none_is_refused() {
        refused("xavi,rahasia123\n", &["line 1", "xavi", "user,password,name,country"]);
        refused("user,name\nxavi,Xavi\n", &["line 1", "user and password"]);
        refused("user,password,user\n", &["stands twice"]);
        refused("", &["line 1"]);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let csv = format!("user,password\n{}", "A,b\n".repeat(1000));
        assert_eq!(parse(csv.as_bytes()).unwrap_err().len(), PROBLEMS_MAX + 2);
    }
}
