//! ROOT. That an account is who the unit says.

use super::*;

#[test]
fn nobody_is_root_by_another_name() {
    let layers = |user: &str| {
        let text = format!("[service]\nuser = \"{user}\"\ncommand = [\"/bin/true\"]\n");
        vec![Layer { path: "/units/a.toml".to_owned(), text, stamp: None }]
    };
    for (user, uid, refused) in [("root", 0, false), ("toor", 0, true), ("toor", 1000, false)] {
        let mut inputs = Inputs { name: "a".to_owned(), layers: layers(user), ..Inputs::default() };
        let unit = inputs.unit().unwrap();
        let (home, shell) = (String::new(), String::new());
        let account = Account { name: user.to_owned(), uid, gid: uid, groups: vec![uid], home, shell };
        let answers = BTreeMap::from([(Question::User(user.to_owned()), Answer::User(account))]);
        let resolved = inputs.resolve(&unit, 0, &answers).map_err(|lacking| lacking.words);
        assert_eq!(resolved.is_err(), refused, "{user} {uid}: {resolved:?}");
        if let Err(words) = resolved {
            assert!(words.contains("`toor` has uid 0") && words.contains("write out `user"), "{words}");
        }
    }
}
