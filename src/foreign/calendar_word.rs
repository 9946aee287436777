//! Pure. Names of weekdays and months in keys. A word that looks like one need not be one (`sun`, `may` and `jan` are hosts as
//! well): the dates beside it decide, see [`super::key_plan`].

/// English, German, French, Spanish and Italian, full and short; Monday first.
const WEEKDAYS: [&[&str]; 7] = [
    &["monday", "mon", "montag", "mo", "lundi", "lun", "lunes", "lunedi"],
    &["tuesday", "tue", "tues", "dienstag", "di", "mardi", "mar", "martes", "martedi"],
    &["wednesday", "wed", "mittwoch", "mi", "mercredi", "mer", "miercoles", "miércoles", "mie", "mié", "mercoledi"],
    &["thursday", "thu", "thur", "thurs", "donnerstag", "do", "jeudi", "jeu", "jueves", "jue", "giovedi", "gio"],
    &["friday", "fri", "freitag", "fr", "vendredi", "ven", "viernes", "vie", "venerdi"],
    &["saturday", "sat", "samstag", "sonnabend", "sa", "samedi", "sam", "sabado", "sábado", "sab", "sáb", "sabato"],
    &["sunday", "sun", "sonntag", "so", "dimanche", "dim", "domingo", "dom", "domenica"],
];

/// The same for months; January first.
const MONTHS: [&[&str]; 12] = [
    &["january", "jan", "januar", "jaenner", "jänner", "janvier", "janv", "enero", "ene", "gennaio"],
    &["february", "feb", "februar", "fevrier", "février", "févr", "fe\u{301}vrier", "fevr", "febrero", "febbraio"],
    &["march", "mar", "maerz", "märz", "März", "ma\u{308}rz", "marz", "mrz", "mars", "marzo"],
    &["april", "apr", "avril", "avr", "abril", "abr", "aprile"],
    &["may", "mai", "mayo", "maggio"],
    &["june", "jun", "juni", "juin", "junio", "giugno"],
    &["july", "jul", "juli", "juillet", "juil", "julio", "luglio"],
    &["august", "aug", "aout", "août", "aou\u{302}t", "agosto", "ago"],
    &["september", "sep", "sept", "septembre", "septiembre", "settembre"],
    &["october", "oct", "oktober", "okt", "octobre", "octubre", "ottobre"],
    &["november", "nov", "novembre", "noviembre"],
    &[
        "december",
        "dec",
        "dezember",
        "dez",
        "decembre",
        "décembre",
        "déc",
        "de\u{301}cembre",
        "diciembre",
        "dic",
        "dicembre",
    ],
];

fn position(names: &[&[&str]], word: &str) -> Option<u8> {
    names
        .iter()
        .position(|all| {
            all.iter().any(|name| {
                name.eq_ignore_ascii_case(word) || (!name.is_ascii() && name.to_lowercase() == word.to_lowercase())
            })
        })
        .map(|at| at as u8)
}

/// The weekday that a word names, Monday being 0.
pub(super) fn weekday(word: &str) -> Option<u8> {
    position(&WEEKDAYS, word)
}

/// The month that a word names, January being 1.
pub(super) fn month(word: &str) -> Option<u8> {
    position(&MONTHS, word).map(|at| at + 1)
}

/// Whether a word may name a weekday or a month.
pub(super) fn is_calendar_word(word: &str) -> bool {
    (2..=12).contains(&word.len()) && (weekday(word).is_some() || month(word).is_some())
}
