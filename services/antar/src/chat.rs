//! `antar chat`: hands the command line to the client library.

use antar_client::chat::{ChatOptions, ChatOutcome};
use antar_client::{ClientOptions, Tls};

use crate::admin::read_password;
use crate::cli::ChatArgs;
use crate::config::Environment;
use crate::exit::{Exit, OrExit as _, Outcome};

/// Chats until the script or the user ends it. Errors of the chat itself were told by it already.
pub(crate) async fn run(args: ChatArgs, environment: &Environment) -> Outcome<ChatOutcome> {
    let password = read_password(args.password_file.as_deref(), environment)?;
    let tls = match &args.ca {
        Some(file) => Some(Tls::of_file(file).or_exit(Exit::Usage)?),
        None if args.tls => Some(Tls::of_system().or_exit(Exit::Failed)?),
        None => None,
    };
    let options = ChatOptions {
        client: ClientOptions { tls, ..ClientOptions::default() },
        server: args.server,
        commands: args.commands,
        json: args.json,
        user: args.user,
        password,
        watch: !args.no_watch,
        history_file: args.history_file,
        colour: !environment.has("NO_COLOR"),
        verbose: args.verbose,
    };
    Ok(antar_client::chat::run(options).await)
}
