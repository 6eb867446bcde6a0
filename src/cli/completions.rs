//! USER. What a shell needs to complete a line: clap's own scripts from the one definition, and to them what it does not
//! know: the names of services, asked of the supervisor when the key is pressed, signals, and commands for `exec`.
//! Never runs a shell.

use std::process::ExitCode;

use clap::{Arg, Command};
use clap_complete::{Shell, generate};

use super::args::definition;
use super::exit::Exit;
use super::trouble;
use crate::wire::verb::Verb;

/// Lists the names, for a shell: nothing where there is no supervisor, or where it does not answer at once.
const NAMES: &str = "status --names 2>/dev/null";
/// Seconds after which a key that was pressed has done nothing.
const PATIENCE: &str = "timeout 2";
/// Those that somebody sends by hand.
const SIGNALS: &str = "HUP INT QUIT KILL USR1 USR2 TERM CONT STOP TSTP WINCH";
/// The shells.
const SHELLS: &str = "bash zsh fish";

/// How it is asked for.
pub fn command() -> Command {
    Command::new("completions")
        .hide(true)
        .about("Print what a shell needs to complete commands, options and names of services")
        .long_about(
            "Print what a shell needs to complete commands, options and names of services.\n\n\
             For bash: `supervise completions bash > /etc/bash_completion.d/supervise`; for zsh a file \
             `_supervise` in a directory of `$fpath`; for fish `~/.config/fish/completions/supervise.fish`.",
        )
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(["bash", "zsh", "fish"])
                .help("The shell"),
        )
}

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

/// Where clap's function has nothing but options to offer, names are added. The supervisor that is asked is the one that
/// the line means, by the program that the line begins with.
fn bash(text: String) -> String {
    let more = format!(
        r#"
_supervise_with_names() {{
    _supervise "$@"
    local at word command= place=() current=${{COMP_WORDS[COMP_CWORD]}}
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${{COMP_WORDS[at]}}
        case $word in
            --)
                # What follows is a command, and what it takes is its own business.
                COMPREPLY=()
                if declare -F _command_offset >/dev/null; then
                    _command_offset $((at + 1))
                elif ((at + 1 == COMP_CWORD)); then
                    COMPREPLY=($(compgen -c -- "$current"))
                fi
                return
                ;;
            --user) place+=(--user) ;;
            --runtime-dir)
                [[ ${{COMP_WORDS[at + 1]}} == '=' ]] && ((at++))
                ((++at < COMP_CWORD)) && place+=(--runtime-dir "${{COMP_WORDS[at]/#\~/$HOME}}")
                ;;
            {commands}) command=${{command:-$word}} ;;
        esac
    done
    # What follows an option that takes a value is no name.
    case ${{COMP_WORDS[COMP_CWORD-1]}} in
        -s | --signal | -p | --parent-death)
            COMPREPLY=($(compgen -W "{SIGNALS}" -- "${{current^^}}"))
            return
            ;;
        --runtime-dir | --log-dir | -n | --lines | --since | --until | =) return ;;
    esac
    if [[ -n $command && $current != -* ]]; then
        COMPREPLY=($(compgen -W "$({PATIENCE} ${{BASH_ALIASES[$1]-$1}} "${{place[@]}}" {NAMES})" -- "$current"))
    fi
}}
complete -F _supervise_with_names -o nosort -o bashdefault -o default supervise
"#,
        commands = commands().join("|"),
    );
    text + &more
}

/// clap completes a NAME, a signal and the words of a command as files; they are one of these instead.
fn zsh(text: String) -> String {
    let function = format!(
        r#"
_supervise_names() {{
    local -a line place names
    local at
    line=(${{(Q)${{(z)LBUFFER}}}})
    for ((at = 2; at <= $#line; at++)); do
        case $line[at] in
            --) break ;;
            --user | --runtime-dir=*) place+=($line[at]) ;;
            --runtime-dir) place+=(--runtime-dir "${{line[++at]/#\~/$HOME}}") ;;
        esac
    done
    names=(${{(f)"$({PATIENCE} ${{=aliases[$line[1]]:-$line[1]}} $place {NAMES})"}})
    _describe -t services service names
}}

_supervise_command() {{
    local at=${{words[(i)--]}}
    if ((at < CURRENT)); then
        shift at words
        ((CURRENT -= at))
    fi
    _normal
}}
"#
    );
    let mut named = String::new();
    for line in text.lines() {
        let instead = match line {
            _ if line.contains("names -- Service") || line.contains("names -- The service") => {
                "_supervise_names"
            }
            _ if line.contains(":SIGNAL:_default'") => &format!("({SIGNALS})"),
            _ if line.contains("argv -- ") || line.contains("command -- ") => " _supervise_command",
            _ => "_default",
        };
        // From there on every word is the command's.
        let line = line.replace("':command -- ", "'*::command -- ");
        named += &line.replace(":_default'", &format!(":{instead}'"));
        named.push('\n');
        if line == "autoload -U is-at-least" {
            named += &function;
        }
    }
    named
}

fn fish(text: String) -> String {
    let commands = commands().join(" ");
    format!(
        r#"{text}
function __fish_supervise_names
    set -l words (commandline -opc)
    set -l place
    for at in (seq 2 (count $words))
        switch $words[$at]
            case --user '--runtime-dir=*'
                set -a place $words[$at]
            case --runtime-dir
                set -a place $words[$at] $words[(math $at + 1)]
        end
    end
    {PATIENCE} $words[1] $place {NAMES}
end

function __fish_supervise_behind_dashes
    contains -- -- (commandline -opc)
end

function __fish_supervise_command
    set -l words (commandline -opc) (commandline -ct)
    set -l at (contains -i -- -- $words)
    complete -C (string join ' ' -- (string escape -- $words[(math $at + 1)..]))
end

complete -c supervise -n "__fish_supervise_using_subcommand {commands}; and not __fish_supervise_behind_dashes" -f -a "(__fish_supervise_names)"
complete -c supervise -n "__fish_supervise_using_subcommand exec init; and __fish_supervise_behind_dashes" -f -a "(__fish_supervise_command)"
complete -c supervise -n "__fish_supervise_using_subcommand kill" -s s -l signal -x -a "{SIGNALS}"
complete -c supervise -n "__fish_supervise_using_subcommand init" -s p -l parent-death -x -a "{SIGNALS}"
complete -c supervise -n "__fish_supervise_using_subcommand completions" -f -a "{SHELLS}"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_command_and_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = script(shell);
            assert!(text.contains(NAMES) && text.contains(SIGNALS), "{shell}");
            for command in commands() {
                assert!(text.contains(command), "{shell}: {command}");
            }
            assert!(text.contains("stop-first"), "{shell}");
        }
        let zsh = script(Shell::Zsh);
        let is_bare =
            |line: &&str| line.contains("names -- ") || line.contains("argv -- ") || line.contains("SIGNAL:");
        for line in zsh.lines().filter(is_bare) {
            assert!(!line.contains("_default"), "{line}");
        }
    }
}
