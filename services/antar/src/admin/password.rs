//! Where a password comes from: a file, the environment, or the terminal; never the command line, which others can see.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::Context as _;

use crate::config::Environment;
use crate::config::environment::PASSWORD_VARIABLE;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// The password from `file` (its first line) or from the environment, if one of them has it.
pub(crate) fn read(file: Option<&Path>, environment: &Environment) -> Outcome<Option<String>> {
    let Some(path) = file else { return environment.password() };
    let text =
        std::fs::read_to_string(path).with_context(|| path.display().to_string()).or_exit(Exit::Usage)?;
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}

/// The same, and asks twice if neither has it.
pub(crate) fn read_new(file: Option<&Path>, environment: &Environment) -> Outcome<String> {
    if let Some(password) = read(file, environment)? {
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        let message = format!(
            "no password: use --password-file FILE or the variable {PASSWORD_VARIABLE}, or a terminal"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let password = rpassword::prompt_password("New password: ")?;
    if rpassword::prompt_password("Once more: ")? != password {
        return Err(Failure::new(Exit::Usage, "the two passwords differ"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_over_the_environment_and_only_its_first_line_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "satu dua\r\ntiga\n").unwrap();
        let environment = Environment::of(&[(PASSWORD_VARIABLE, "empat")]);
        assert_eq!(read(Some(file.path()), &environment).unwrap().as_deref(), Some("satu dua"));
        assert_eq!(read(None, &environment).unwrap().as_deref(), Some("empat"));
        assert_eq!(read(None, &Environment::default()).unwrap(), None);
        assert_eq!(read(Some(Path::new("/nowhere")), &environment).unwrap_err().exit, Exit::Usage);
    }
}
