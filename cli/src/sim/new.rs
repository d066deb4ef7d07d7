//! `evenkeel sim new`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use evenkeel_control::Problem;
use evenkeel_sim_scenarios::{TEMPLATES, quoted};

use super::files;
use crate::complaint::Complaint;
use crate::{Exit, print};

/// Write a scenario to begin with, full of comments
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim new first
  evenkeel sim run first.toml
  evenkeel sim new --list-templates

Exit codes: 0 fine; 1 refused: there is such a file, the name is none, or it cannot be written.")]
pub(super) struct Args {
    /// Name of the scenario; it is written to NAME.toml, and a folder may stand before it
    #[arg(value_name = "NAME", default_value = "first")]
    name: PathBuf,
    /// What to begin with
    #[arg(long, value_name = "TEMPLATE", default_value = "active-backup")]
    template: String,
    /// List what there is to begin with
    #[arg(long)]
    list_templates: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Complaint> {
    if args.list_templates {
        let width = TEMPLATES.iter().map(|t| t.name.len()).max().unwrap_or(0);
        let line = |t: &evenkeel_sim_scenarios::Template| format!("{:<width$}  {}\n", t.name, t.says());
        print(&TEMPLATES.iter().map(line).collect::<String>())?;
        return Ok(Exit::Fine);
    }
    let Some(template) = TEMPLATES.iter().find(|t| t.name == args.template) else {
        let names: Vec<_> = TEMPLATES.iter().map(|t| t.name).collect();
        return Err(
            Complaint::new(format!("there is no template \"{}\"", args.template))
                .help(format!("give one of {}", names.join(", "))),
        );
    };
    let mut path = args.name.clone();
    if path.extension().is_none_or(|e| e != "toml") {
        path.as_mut_os_string().push(".toml");
    }
    let shown = path.display();
    // As it was written: of a folder, `..` or a file that `ls` hides nothing is the name.
    let given = args.name.to_string_lossy();
    let last = given.rsplit('/').next().unwrap_or_default();
    let name = last.strip_suffix(".toml").unwrap_or(last);
    let text = template.text(name);
    // What it would not read it does not write.
    if name.starts_with('.') || files::read(&shown.to_string(), &text, None).is_err() {
        let message = format!("cannot make {shown}: \"{name}\" cannot be a scenario's name");
        return Err(Complaint::new(message).help(
            "a name has 1 to 64 letters, digits, `-`, `_` or `.`, and no `.` at its beginning: `evenkeel sim new first`, \
             or with its folder `evenkeel sim new scenarios/first`",
        ));
    }
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => Complaint::new(format!("{shown} is there already"))
            .help("nothing is overwritten: give another name, or remove the file"),
        _ => Complaint::io(format!("cannot write {shown}"), e),
    })?;
    let written = file.write_all(text.as_bytes());
    written.map_err(|e| Complaint::io(format!("cannot write {shown}"), e))?;
    print(&format!(
        "{} is written; now run it: evenkeel sim run {}\n",
        Problem::shown_name(&shown.to_string()),
        quoted(&shown.to_string())
    ))?;
    Ok(Exit::Fine)
}
