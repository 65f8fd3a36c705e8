//! The tricky cases in `scripts/`.

use tidemill_sim::script;

/// Fewer would mean that some were lost.
const SCRIPTS_MIN: usize = 60;

#[test]
fn all_scripts_print_what_they_say() {
    let files = script::files().unwrap();
    assert!(files.len() >= SCRIPTS_MIN, "{} scripts", files.len());
    let wrong: Vec<String> =
        files.iter().filter_map(|file| script::check(file, false).err()).map(|error| format!("{error:#}")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
