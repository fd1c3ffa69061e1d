//! The documents say what the program does: checked where a machine can.

use pgherd::settings;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_setting_is_in_the_readme_with_its_default() {
    let readme = read("README.md");
    let settings = settings::read([], |_| unreachable!("no variable names a file")).unwrap();
    for listed in &settings.listing().0 {
        let name = format!("`{}`", listed.variable);
        assert!(readme.contains(&name), "README.md does not name {name}; add it to its table");
    }
    // Where a row is about one variable, its second column is the default.
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.split_once("` | "));
    let mut compared = 0;
    for (name, rest) in rows {
        let Some(listed) = settings.listing().0.iter().find(|one| one.variable == name) else {
            continue;
        };
        let default = rest.split(" | ").next().unwrap();
        if listed.value != "***" && !listed.value.is_empty() {
            assert_eq!(default, listed.value, "README.md's default of {name}");
            compared += 1;
        }
    }
    assert!(compared > 10, "the table of settings has another shape than this test reads");
}

#[test]
fn every_default_password_is_in_the_readme_and_is_warned_of() {
    let readme = read("README.md");
    let settings = settings::read([], |_| unreachable!("no variable names a file")).unwrap();
    for password in ["mysecretpassword", "iamrepmgr", "iamstreamingrepmgr", "iambarman"] {
        assert!(readme.contains(password), "README.md does not name {password}");
    }
    assert_eq!(settings.default_passwords.len(), 5);
}

#[test]
fn every_module_is_on_the_map() {
    let map = read("src/README.md");
    for line in read("src/lib.rs").lines() {
        if let Some(module) = line.strip_prefix("pub mod ") {
            let module = format!("`{}`", module.trim_end_matches(';'));
            assert!(map.contains(&module), "src/README.md does not say what {module} is");
        }
    }
}

#[test]
fn every_file_the_map_sends_people_to_is_there() {
    for word in read("src/README.md").split('`').filter(|word| word.ends_with(".rs")) {
        let there = [format!("src/{word}"), word.to_owned()];
        assert!(
            there.iter().any(|path| std::path::Path::new(path).exists()),
            "src/README.md names {word}, which is not there"
        );
    }
}

#[test]
fn every_command_in_the_readme_is_one() {
    let help = pgherd::cli::commands();
    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `pgherd "));
    let named: Vec<_> = rows.filter_map(|row| row.split([' ', '`']).next()).collect();
    assert!(named.len() > 4, "the table of commands has another shape than this test reads");
    for command in named {
        assert!(help.iter().any(|known| known == command), "there is no `pgherd {command}`");
    }
    for command in help {
        let named = [format!("`pgherd {command} "), format!("`pgherd {command}`")];
        let is_named = named.iter().any(|name| readme.contains(name));
        assert!(is_named, "README.md does not name `pgherd {command}`; add it to its table");
    }
}

/// Nodes among themselves, and the page's own parts.
const FOR_OURSELVES: [&str; 2] = ["/lease/", "/dashboard"];

#[test]
fn every_question_that_the_port_answers_is_in_what_it_says_of_itself() {
    let document = pgherd::http::openapi();
    let mut found = 0;
    for entry in std::fs::read_dir("src/http").expect("tests run in the repository root") {
        let path = entry.expect("it can be listed").path();
        let Some(source) = path.to_str().filter(|path| path.ends_with(".rs")) else { continue };
        for rest in read(source).split(".route(").skip(1) {
            let Some(route) = rest.trim_start().strip_prefix('"') else { continue };
            let route = route.split('"').next().unwrap_or_default();
            found += 1;
            let is_ours = FOR_OURSELVES.iter().any(|prefix| route.starts_with(prefix));
            let is_said = document["paths"].get(route).is_some();
            assert!(is_ours || is_said, "{route}: add it to QUESTIONS in src/http/openapi.rs");
        }
    }
    assert!(found > 20, "routes are written in another way than this test reads");
}
