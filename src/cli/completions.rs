//! USER. What a shell needs to complete a line: clap's own scripts from the one definition, and to them the names of
//! services, asked of the supervisor when the key is pressed. Never runs a shell.

use std::process::ExitCode;

use clap_complete::{Shell, generate};

use super::args::definition;
use super::exit::Exit;
use super::trouble;
use crate::wire::verb::Verb;

/// Lists the names, for a shell: nothing where there is no supervisor.
const NAMES: &str = "supervise status --names 2>/dev/null";

/// Prints the script.
pub fn print(shell: Shell) -> ExitCode {
    match trouble::print(&script(shell)) {
        Ok(()) => Exit::Done.into(),
        Err(trouble) => trouble::tell(&trouble),
    }
}

fn script(shell: Shell) -> String {
    let mut definition = definition().mut_subcommands(|command| command.hide(false));
    let mut bytes = Vec::new();
    generate(shell, &mut definition, "supervise", &mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Bash => bash(text),
        Shell::Zsh => zsh(text),
        Shell::Fish => fish(text),
        _ => text,
    }
}

/// The commands that take names of services.
fn commands() -> Vec<&'static str> {
    Verb::ALL.iter().map(|verb| verb.command()).chain(["why"]).collect()
}

/// Where clap's function has nothing but options to offer, names are added.
fn bash(text: String) -> String {
    let more = format!(
        r#"
_supervise_with_names() {{
    _supervise "$@"
    local word command=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in {commands}) command=$word; break ;; esac
    done
    # What follows an option that takes a value is no name.
    case ${{COMP_WORDS[COMP_CWORD-1]}} in
        --runtime-dir | --log-dir | -s | --signal | -n | --since | --until) return ;;
    esac
    if [[ -n $command && ${{COMP_WORDS[COMP_CWORD]}} != -* ]]; then
        COMPREPLY=($(compgen -W "$({NAMES})" -- "${{COMP_WORDS[COMP_CWORD]}}"))
    fi
}}
complete -F _supervise_with_names -o nosort -o bashdefault -o default supervise
"#,
        commands = commands().join("|"),
    );
    text + &more
}

/// clap completes a NAME as a file; it is one of these instead.
fn zsh(text: String) -> String {
    let function = format!(
        "\n_supervise_names() {{\n    local -a names\n    names=(${{(f)\"$({NAMES})\"}})\n    \
         _describe -t services service names\n}}\n"
    );
    let mut named = String::new();
    for line in text.lines() {
        let is_name = line.contains("names -- Service") || line.contains("names -- The service");
        named += &if is_name { line.replace(":_default'", ":_supervise_names'") } else { line.to_owned() };
        named.push('\n');
        if line == "autoload -U is-at-least" {
            named += &function;
        }
    }
    named
}

fn fish(text: String) -> String {
    let commands = commands().join(" ");
    format!("{text}complete -c supervise -n \"__fish_seen_subcommand_from {commands}\" -f -a \"({NAMES})\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_command_and_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = script(shell);
            assert!(text.contains(NAMES), "{shell}");
            for command in commands() {
                assert!(text.contains(command), "{shell}: {command}");
            }
            assert!(text.contains("stop-first"), "{shell}");
        }
        let zsh = script(Shell::Zsh);
        assert!(!zsh.lines().any(|line| line.contains("names -- ") && line.contains("_default")), "{zsh}");
    }
}
