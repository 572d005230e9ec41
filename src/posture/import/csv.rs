//! CSV: a header line with field names, then a row a device. An empty cell leaves its field as it is. A device whose facts come from several
//! sources, or were seen at several times, takes several rows, which agree in everything else.

use std::collections::HashMap;

use super::{DEVICES_MAX, Place, Reading};
use crate::posture::edit::{Edit, FIELDS, KEPT, Op, unknown};
use crate::posture::values::{self, Wrong};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    /// One of `FIELDS`.
    Field(&'static str),
    Source,
    ObservedAt,
    ExpiresAt,
    Fact(String),
    FactValue(String),
    /// Of the store's own keeping, or one whose name was already reported.
    Unused,
}

/// The first row of a device: what the others must agree with.
struct First {
    place: Place,
    fields: Vec<String>,
    /// Source and times of its rows.
    seen: Vec<[String; 3]>,
}

pub fn read(bytes: &[u8], reading: &mut Reading<'_>) {
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut lines = Lines { bytes, at: 0, line: 1 };
    let mut row = csv::ByteRecord::new();
    let mut columns: Option<Vec<Column>> = None;
    let mut devices: HashMap<String, First> = HashMap::new();
    loop {
        let place = lines.place_of(rows.position().byte());
        match rows.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return reading.problem(place, error.to_string()),
        }
        let Some(cells) = texts(&row, place, reading) else { continue };
        match &columns {
            None => match header(&cells, place, reading) {
                Some(header) => columns = Some(header),
                None => return,
            },
            Some(_) if cells.iter().all(|cell| cell.is_empty()) => {}
            Some(_) if reading.edits.len() >= DEVICES_MAX => {
                return reading.problem(place, format!("more than {DEVICES_MAX} rows; split the file"));
            }
            Some(columns) => device(columns, &cells, (place, &mut devices), reading),
        }
    }
}

fn texts(row: &csv::ByteRecord, place: Place, reading: &mut Reading<'_>) -> Option<Vec<String>> {
    let mut cells = Vec::with_capacity(row.len());
    for (index, cell) in row.iter().enumerate() {
        match std::str::from_utf8(cell) {
            Ok(text) => cells.push(text.trim().to_owned()),
            Err(_) => {
                let found = values::quoted(&String::from_utf8_lossy(cell));
                reading.problem(place, format!("column {}: found {found}, expected UTF-8; save the file as UTF-8", index + 1));
                return None;
            }
        }
    }
    Some(cells)
}

/// `None`: this is no header at all, and the rows below it mean nothing.
fn header(cells: &[String], place: Place, reading: &mut Reading<'_>) -> Option<Vec<Column>> {
    if let [one] = cells
        && one.contains([';', '\t'])
    {
        reading.problem(place, format!("found {}, expected columns that are separated by commas", values::quoted(one)));
        return None;
    }
    let mut columns: Vec<Column> = Vec::new();
    for (index, name) in cells.iter().enumerate() {
        let column = match column(name) {
            Ok(column) if column != Column::Unused && columns.contains(&column) => {
                reading.problem(place, format!("column {}: `{name}` stands twice", index + 1));
                Column::Unused
            }
            Ok(column) => column,
            Err(wrong) => {
                reading.problem(place, format!("column {}: {wrong}", index + 1));
                Column::Unused
            }
        };
        columns.push(column);
    }
    if !columns.contains(&Column::Field("id")) {
        reading.problem(place, format!("found no column `id`, expected a header line such as {}", FIELDS.join(",")));
    }
    for column in columns.clone() {
        if let Column::FactValue(fact) = column
            && !columns.contains(&Column::Fact(fact.clone()))
        {
            reading.problem(place, format!("column `posture.{fact}.value` needs a column `posture.{fact}`"));
        }
    }
    Some(columns)
}

fn column(name: &str) -> Result<Column, Wrong> {
    if let Some(field) = FIELDS.into_iter().find(|field| *field == name) {
        return Ok(Column::Field(field));
    }
    match name {
        "source" => Ok(Column::Source),
        "observed_at" => Ok(Column::ObservedAt),
        "expires_at" => Ok(Column::ExpiresAt),
        _ if KEPT.contains(&name) => Ok(Column::Unused),
        _ => match name.strip_prefix("posture.") {
            Some(fact) => match fact.strip_suffix(".value") {
                Some(fact) => values::word(name, fact).map(Column::FactValue),
                None => values::word(name, fact).map(Column::Fact),
            },
            None => Err(unknown(name)),
        },
    }
}

fn device(columns: &[Column], cells: &[String], (place, devices): (Place, &mut HashMap<String, First>), reading: &mut Reading<'_>) {
    if columns.len() != cells.len() {
        let text = format!("found {} cells, expected {} as in the header line", cells.len(), columns.len());
        return reading.problem(place, text);
    }
    let cell =
        |wanted: &Column| columns.iter().zip(cells).find(|(c, text)| *c == wanted && !text.is_empty()).map(|(_, text)| text.as_str());
    let mut edit = match columns.contains(&Column::Field("id")) {
        true => reading.edit(place, Edit::new(cell(&Column::Field("id")).unwrap_or_default())),
        // Reported at the header line.
        false => Edit::nameless(),
    };
    let id = edit.id();
    let times = [Column::Source, Column::ObservedAt, Column::ExpiresAt].map(|column| cell(&column));
    let fields: Vec<String> =
        columns.iter().zip(cells).filter(|(c, _)| matches!(c, Column::Field(_))).map(|(_, text)| text.clone()).collect();
    let again = match devices.get_mut(id) {
        _ if id.is_empty() => false,
        None => {
            let seen = vec![times.map(|text| text.unwrap_or_default().to_owned())];
            devices.insert(id.to_owned(), First { place, fields, seen });
            false
        }
        Some(first) => {
            let seen = times.map(|text| text.unwrap_or_default().to_owned());
            let line = first.place.line;
            if first.fields != fields {
                return reading.problem(place, format!("id: `{id}` already stands on line {line} with other values"));
            }
            if first.seen.contains(&seen) {
                return reading.problem(place, format!("id: `{id}` already stands on line {line} with the same source and times"));
            }
            first.seen.push(seen);
            true
        }
    };
    let [source, observed_at, expires_at] = times;
    let facts = columns.iter().zip(cells).any(|(column, text)| matches!(column, Column::Fact(_)) && !text.is_empty());
    let seen = match facts || times.iter().any(Option::is_some) {
        true => reading.noted(place, reading.seen(source, observed_at, expires_at)),
        false => None,
    };
    for (column, text) in columns.iter().zip(cells).filter(|(_, text)| !text.is_empty()) {
        let result = match (column, &seen) {
            (Column::Field("id"), _) => Ok(()),
            (Column::Field(field), _) if !again => edit.assign(field, Op::Replace, text, reading.terms),
            (Column::Fact(fact), Some(seen)) => edit.fact(fact, text, cell(&Column::FactValue(fact.clone())), seen),
            (Column::FactValue(fact), _) if cell(&Column::Fact(fact.clone())).is_none() => {
                Err(Wrong::new(format!("posture.{fact}.value"), text, format!("ok or fail beside it in posture.{fact}")))
            }
            _ => Ok(()),
        };
        reading.noted(place, result);
    }
    reading.add(place, edit);
}

/// Counts lines once through the file. The reader's own count takes blank lines before a row for the row.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn place_of(&mut self, byte: u64) -> Place {
        let to = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(self.at)
            && (self.at < to || matches!(byte, b'\r' | b'\n'))
        {
            self.line += usize::from(*byte == b'\n');
            self.at += 1;
        }
        Place { line: self.line, column: None }
    }
}
