use super::*;

type Cut = Vec<(u64, Result<String, Broken>)>;

/// The records of a file with `cells` columns, which comes in chunks of this length.
fn cut(file: &[u8], chunk: usize, cells: usize) -> Cut {
    let (mut records, mut all) = (Records::default(), Vec::new());
    records.expect(cells);
    let take = |records: &mut Records, all: &mut Cut| {
        while let Some((line, record)) = records.next() {
            all.push((line, record.map(|record| String::from_utf8(record.to_vec()).unwrap())));
        }
    };
    for chunk in file.chunks(chunk) {
        records.feed(chunk);
        take(&mut records, &mut all);
    }
    records.end();
    take(&mut records, &mut all);
    all
}

/// As [`cut`], which has to be the same wherever chunks end.
fn cut_anywhere(file: &str, cells: usize) -> Cut {
    let whole = cut(file.as_bytes(), file.len().max(1), cells);
    for chunk in 1..file.len().min(50) {
        assert_eq!(cut(file.as_bytes(), chunk, cells), whole, "chunks of {chunk}: {file:?}");
    }
    whole
}

fn good(records: &[(u64, &str)]) -> Cut {
    records.iter().map(|(line, record)| (*line, Ok((*record).to_owned()))).collect()
}

#[test]
fn a_record_may_run_over_several_lines() {
    for end in ["\n", "\r\n", "\r"] {
        let file = format!("a,b{end}1,\"x{end}{end}y\"{end}{end}\"p\"\"{end}q\",2{end}3,4");
        let text = format!("1,\"x{end}{end}y\"");
        let other = format!("\"p\"\"{end}q\",2");
        assert_eq!(
            cut_anywhere(&file, 2),
            good(&[(1, "a,b"), (2, &text), (5, ""), (6, &other), (8, "3,4")]),
            "{end:?}"
        );
    }
    assert_eq!(cut_anywhere("", 2), []);
    assert_eq!(cut_anywhere("a,b\n", 2), good(&[(1, "a,b")]));
    assert_eq!(
        cut_anywhere("a,b\n1,\"\"\n5\" x,\"\"\"\"", 2),
        good(&[(1, "a,b"), (2, "1,\"\""), (3, "5\" x,\"\"\"\"")])
    );
}

#[test]
fn the_first_line_says_what_is_between_cells() {
    for (file, delimiter) in [
        ("a,b\n1;2;3", b','),
        ("\n\r\na;b,c;d\n1,2", b';'),
        ("a\tb\n1,2", b'\t'),
        ("\"a,b\";c\n", b';'),
        ("sku\n1", b','),
        ("sep=|\r\na|b", b'|'),
        ("SEP=;\na,b", b';'),
    ] {
        for chunk in [1, 100] {
            let mut records = Records::default();
            for chunk in file.as_bytes().chunks(chunk) {
                records.feed(chunk);
                while records.next().is_some() {}
            }
            records.end();
            while records.next().is_some() {}
            assert_eq!(records.delimiter(), delimiter, "{file:?}");
        }
    }
    assert_eq!(cut_anywhere("sep=;\n\na;b", 2), good(&[(2, ""), (3, "a;b")]));
}

#[test]
fn a_quote_that_is_not_closed_takes_no_other_record_with_it() {
    // The next quote opens a cell.
    let file = "a,b\n1,\"x\n2,y\n3,\"z\"\n4,\"u\nv\"";
    let mut wanted = good(&[(1, "a,b"), (3, "2,y"), (4, "3,\"z\""), (5, "4,\"u\nv\"")]);
    wanted.insert(1, (2, Err(Broken::Open)));
    assert_eq!(cut_anywhere(file, 2), wanted);
    // There is no other quote.
    let file = "a,b\n1,\"x\n2,y\n\n3,z\n";
    let mut wanted = good(&[(1, "a,b"), (3, "2,y"), (4, ""), (5, "3,z")]);
    wanted.insert(1, (2, Err(Broken::Open)));
    assert_eq!(cut_anywhere(file, 2), wanted);
    // The quote that is open is the record's second, and the first cell is of two lines.
    let file = "a,b\n\"p\nq\",\"x\n2,y\n";
    assert_eq!(
        cut_anywhere(file, 2),
        [(1, Ok("a,b".to_owned())), (2, Err(Broken::Open)), (4, Ok("2,y".to_owned()))]
    );
}

#[test]
fn a_line_of_a_text_is_no_record_even_if_its_quote_is_not_closed() {
    let text = "a,b\n1,\"Goes well with\n2,y\nin all sizes.\n";
    assert_eq!(cut_anywhere(text, 2), [(1, Ok("a,b".to_owned())), (2, Err(Broken::OpenToTheEnd))]);
    let stray = "a,b\n1,\"A 5\" pipe, like\n2,y\nin all sizes.\"\n3,z";
    assert_eq!(
        cut_anywhere(stray, 2),
        [(1, Ok("a,b".to_owned())), (2, Err(Broken::Quote)), (5, Ok("3,z".to_owned()))]
    );
}

#[test]
fn a_record_that_is_too_long_is_one_error_and_the_next_one_is_whole() {
    let wanted = [(1, Ok("a,b".to_owned())), (2, Err(Broken::TooLong)), (3, Ok("3,z".to_owned()))];
    let plain = format!("a,b\n1,{}\n3,z", "x".repeat(MAX_LINE));
    let longest = format!("a,b\n{}\n3,z", "x".repeat(MAX_LINE));
    for chunk in [1000, 4096, 1 << 20] {
        assert_eq!(cut(plain.as_bytes(), chunk, 2), wanted);
        let whole = cut(longest.as_bytes(), chunk, 2);
        assert_eq!((whole.len(), whole[1].1.as_ref().map(String::len)), (3, Ok(MAX_LINE)));
        // A text with lines like records among others.
        let text = format!("a,b\n1,\"{}\"\n3,z", "words\n2,y\n".repeat(MAX_LINE / 9));
        let read = cut(text.as_bytes(), chunk, 2);
        let last = 2 + 2 * (MAX_LINE as u64 / 9) + 1;
        assert_eq!(read[1..], [(2, Err(Broken::TooLong)), (last, Ok("3,z".to_owned()))]);
        // Records behind a quote that is not closed.
        let open = format!("a,b\n1,\"x\n{}", "2,y\n".repeat(MAX_LINE));
        let read = cut(open.as_bytes(), chunk, 2);
        assert_eq!((read.len(), &read[1]), (MAX_LINE + 2, &(2, Err(Broken::Open))));
        // A text that does not end.
        let endless = format!("a,b\n1,\"{}", "words\n".repeat(MAX_LINE));
        assert_eq!(cut(endless.as_bytes(), chunk, 2)[1..], [(2, Err(Broken::OpenToTheEnd))]);
    }
}

#[test]
fn quotes_that_open_on_each_line_do_not_make_reading_slow() {
    let file = format!("a,b\n{}", ",\"a\",\"\n".repeat(100_000));
    let read = cut(file.as_bytes(), 1 << 16, 2);
    assert!(read.iter().skip(1).all(|(_, record)| record.is_err()));
    assert_eq!(read[1], (2, Err(Broken::Open)));
}
