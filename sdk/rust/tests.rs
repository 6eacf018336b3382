//! Tests of the SDK that need no wasm: make -C sdk/rust test
#![cfg(test)]
mod wasm_jobs;

use std::collections::BTreeMap;
use wasm_jobs::*;

cbor_struct! {
    #[derive(Debug, PartialEq)]
    struct Item {
        name: String,
        r#type: Option<u8>,
        celsius: f64 = "temp-c",
    }
}

cbor_struct! {
    #[derive(Debug, PartialEq)]
    struct Chunk {
        id: Id,
        items: Vec<Item>,
        limits: BTreeMap<String, (i8, bool)>,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| *c != ' ').collect();
    digits.chunks(2).map(|d| u8::from_str_radix(&d.iter().collect::<String>(), 16).unwrap()).collect()
}

fn read<T: Decode>(hex: &str) -> Result<T, String> {
    from_slice(&unhex(hex)).map_err(|e| e.to_string())
}

/// The strings of the vectors' keys, in order.
fn vectors() -> Vec<(Vec<u8>, Vec<u8>)> {
    let json = include_str!("../../testdata/abi/appendix_a.json");
    let value = |line: &str, key: &str| unhex(line.split(key).nth(1).unwrap().split('"').nth(2).unwrap());
    json.lines().filter(|l| l.contains("\"preferred\"")).map(|l| (value(l, "\"bytes"), value(l, "\"preferred"))).collect()
}

#[test]
fn examples_of_the_rfc() {
    let all = vectors();
    assert_eq!(all.len(), 81);
    for (bytes, preferred) in all {
        assert_eq!(to_vec(&from_slice::<Value>(&bytes).unwrap()), preferred, "{:02x?}", bytes);
        assert_eq!(from_slice::<Raw>(&bytes).unwrap().bytes(), bytes);
    }
}

#[test]
fn structs_go_both_ways() {
    let item = || Item { name: "a".into(), r#type: Some(3), celsius: 1.5 };
    let chunk = Chunk { id: Id::Text("x".into()), items: vec![item(), Item { r#type: None, ..item() }], limits: [("b".into(), (-1, true)), ("aa".into(), (2, false))].into() };
    let bytes = to_vec(&chunk);
    // Keys by length and then bytes; None is left out.
    assert_eq!(bytes, unhex("a3 626964 6178 656974656d73 82 a3 646e616d65 6161 6474797065 03 6674656d702d63 f93e00 a2 646e616d65 6161 6674656d702d63 f93e00 666c696d697473 a2 6162 8220f5 626161 8202f4"));
    assert_eq!(from_slice::<Chunk>(&bytes), Ok(chunk));
}

#[test]
fn errors_say_where() {
    for (hex, want) in [
        ("01", "chunk: want a map, got an unsigned integer"),
        ("a0", "chunk.id: missing"),
        ("a1 626964 20", "chunk.id: want an unsigned integer or a text, got a negative integer"),
        ("a2 626964 00 626964 00", "chunk.id: duplicate key"),
        ("a1 656974656d73 82 a2 646e616d65 60 6674656d702d63 00 a0", "chunk.items[1].name: missing"),
        ("a1 656974656d73 81 a1 6674656d702d63 61 78", "chunk.items[0].temp-c: want a float, got a text"),
        ("a1 656974656d73 81 a1 6474797065 190100", "chunk.items[0].type: 256 does not fit u8"),
        ("a1 666c696d697473 a2 6161 8200f4 6161 8200f4", "chunk.limits.a: duplicate key"),
        ("a1 666c696d697473 a1 6161 8138ff", "chunk.limits.a[0]: -256 does not fit i8"),
        ("a1 666c696d697473 a1 6161 8101", "chunk.limits.a: want an array of 2"),
        ("a1 666c696d697473 a1 6161 8301f4f4", "chunk.limits.a: want an array of 2"),
        ("a1 666c696d697473 a1 01 8301f4f4", "chunk.limits.(key): want a text, got an unsigned integer"),
        ("a1 626964 61ff", "chunk.id: text that is not UTF-8"),
    ] {
        let got = call("exec", |_: Chunk| Ok(()), &unhex(hex));
        assert_eq!(got, Err(permanent(want)), "{}", hex);
    }
    let failure: Failure = from_slice::<Chunk>(&[0xa0]).unwrap_err().into();
    assert_eq!(failure, permanent("id: missing"));
}

#[test]
fn keys_that_a_struct_does_not_have_are_skipped() {
    let got = read::<Item>("bf 01 9f820102ff 6161 a1c10203 646e616d65 7f6161ff 6674656d702d63 fb3ff8000000000000 ff");
    assert_eq!(got, Ok(Item { name: "a".into(), r#type: None, celsius: 1.5 }));
}

#[test]
fn integers_fit_or_fail() {
    assert_eq!(read::<u8>("18ff"), Ok(255));
    assert_eq!(read::<i64>("3b7fffffffffffffff"), Ok(i64::MIN));
    assert_eq!(read::<i64>("3b8000000000000000"), Err("-1 - 9223372036854775808 does not fit i64".into()));
    assert_eq!(read::<u64>("1bffffffffffffffff"), Ok(u64::MAX));
    assert_eq!(read::<u64>("20"), Err("-1 does not fit u64".into()));
    assert_eq!(read::<u32>("f93c00"), Err("want an integer, got a float".into()));
    for n in [0, 1, -1, 23, 24, -24, -25, 255, 256, 65535, 65536, i64::MAX, i64::MIN] {
        assert_eq!(from_slice::<i64>(&to_vec(&n)), Ok(n));
    }
    assert_eq!(to_vec(&-1i8), unhex("20"));
    assert_eq!(to_vec(&u64::MAX), unhex("1bffffffffffffffff"));
}

#[test]
fn floats_are_exact_or_fail() {
    assert_eq!(read::<f64>("1b0020000000000000"), Ok(9007199254740992.0));
    assert_eq!(read::<f64>("1b0020000000000001"), Err("9007199254740993 does not fit f64".into()));
    assert!(read::<f64>("1bffffffffffffffff").is_err());
    assert_eq!(read::<f64>("1b8000000000000000"), Ok(9223372036854775808.0));
    assert_eq!(read::<f64>("29"), Ok(-10.0));
    assert_eq!(read::<f32>("fb3ff199999999999a"), Err("1.1 does not fit f32".into()));
    assert_eq!(read::<f32>("f93e00"), Ok(1.5));
    assert!(read::<f32>("f97e00").unwrap().is_nan());
}

#[test]
fn options_and_null() {
    assert_eq!(read::<Option<u8>>("f6"), Ok(None));
    assert_eq!(read::<Option<u8>>("f7"), Ok(None));
    assert_eq!(read::<Option<u8>>("01"), Ok(Some(1)));
    assert_eq!(read::<()>("f6"), Ok(()));
    assert_eq!(read::<bool>("f6"), Err("want a boolean, got null".into()));
    assert_eq!(to_vec(&None::<u8>), unhex("f6"));
}

#[test]
fn strings_in_parts() {
    assert_eq!(read::<String>("7f 6161 60 6162 ff"), Ok("ab".into()));
    assert_eq!(read::<Bytes>("5f 4101 ff"), Ok(Bytes(vec![1])));
    assert_eq!(read::<AnyString>("61ff"), Ok(AnyString(vec![255])));
    assert_eq!(read::<String>("4161"), Err("want a text, got a byte string".into()));
}

#[test]
fn maps_are_written_in_the_order_of_their_encoded_keys() {
    let map: BTreeMap<i64, u8> = [(-1, 1), (10, 2), (100, 3)].into();
    assert_eq!(to_vec(&map), unhex("a3 0a02 186403 2001"));
    assert_eq!(from_slice::<BTreeMap<i64, u8>>(&to_vec(&map)), Ok(map));
}

#[test]
fn outputs_one_by_one() {
    for input in ["82 820004 82616109", "9f 820004 9f616109ff ff"] {
        let sum = |outputs: Items<(Id, u32)>| outputs.map(|o| Ok(o?.1)).sum::<Result<u32, Failure>>();
        assert_eq!(call("aggregate", sum, &unhex(input)), Ok(vec![13]));
    }
    let all = |outputs: Items<(Id, u32)>| Ok(outputs.map(|o| Ok(o?.1)).collect::<Result<Vec<u32>, Failure>>()?);
    assert_eq!(call("aggregate", all, &unhex("82 820004 8201f6")), Err(permanent("outputs[1][1]: want an integer, got null")));
    let mut items = read::<Items<(Id, u32)>>("83 820004 8201f6 820201").unwrap();
    assert_eq!(items.next(), Some(Ok((Id::Uint(0), 4))));
    assert_eq!(items.next().unwrap().unwrap_err().to_string(), "[1][1]: want an integer, got null");
    assert_eq!(items.next(), None);
    assert_eq!(read::<Items<u8>>("80").unwrap().next(), None);
}

#[test]
fn fields_of_raw_items() {
    let chunk: Raw = read("a2 6161 01 6162 02").unwrap();
    assert_eq!(chunk.field::<u8>("b"), Ok(2));
    assert_eq!(chunk.field::<Option<u8>>("c"), Ok(None));
    assert_eq!(chunk.field::<u8>("c").unwrap_err().to_string(), "c: missing");
    let text = |chunk: Raw| Ok(chunk.field::<String>("b")?);
    assert_eq!(call("exec", text, &unhex("a1 6162 02")), Err(permanent("chunk.b: want a text, got an unsigned integer")));
    let size = |chunk: Raw| Ok(chunk.decode::<Vec<u8>>()?.len());
    assert_eq!(call("exec", size, &unhex("81 20")), Err(permanent("chunk[0]: -1 does not fit u8")));
    assert!(read::<Raw>("a2 6161 01 6161 02").unwrap().field::<u8>("a").is_err());
    assert!(read::<Raw>("01").unwrap().field::<u8>("a").is_err());
}

#[test]
fn failures_pass_through() {
    assert_eq!(call("exec", |_: u8| Err::<(), _>(retryable("later")), &[1]), Err(Failure { kind: Kind::Retryable, message: "later".into() }));
    assert_eq!(call("exec", |_: u8| Err::<(), _>(requeue("busy")), &[1]).unwrap_err().kind, Kind::Requeue);
    assert_eq!(call("merge", |_: u8| Ok(()), &[0x20]), Err(permanent("partials: -1 does not fit u8")));
}

#[test]
fn context_is_kept() {
    static CONTEXT: Context<Vec<u8>> = Context::new();
    assert_eq!(CONTEXT.get(), None);
    CONTEXT.set(vec![1, 2]);
    assert_eq!(CONTEXT.get(), Some(&vec![1, 2]));
}

/// Reading any bytes ends, and a value that was read is written and read as the
/// same.
#[test]
fn malformed_bytes_are_errors() {
    let mut state = 1u64;
    let mut random = move |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut seeds: Vec<_> = vectors().into_iter().map(|v| v.0).collect();
    seeds.push(unhex("a3 626964 6178 656974656d73 82 a3 646e616d65 6161 6474797065 03 6674656d702d63 f93e00 a0 666c696d697473 a1 6162 8220f5"));
    let check = |bytes: &[u8]| {
        let (value, raw) = (from_slice::<Value>(bytes), from_slice::<Raw>(bytes));
        if let Ok(v) = &value {
            assert!(raw.is_ok());
            assert_eq!(to_vec(&from_slice::<Value>(&to_vec(v)).unwrap()), to_vec(v));
        }
        let _ = (from_slice::<Chunk>(bytes), from_slice::<Items<Value>>(bytes).map(|i| i.count()));
        value.is_ok()
    };
    for seed in &seeds {
        (0..seed.len()).for_each(|n| assert!(!check(&seed[..n]), "{:02x?} of {:02x?}", &seed[..n], seed));
        for _ in 0..3000 {
            let mut bytes = seed.clone();
            (0..1 + random(3)).for_each(|_| {
                let i = random(bytes.len());
                bytes[i] = random(256) as u8;
            });
            check(&bytes);
        }
    }
    for hex in ["1c", "1f", "3f", "df", "ff", "f818", "fc", "5f01ff", "5f5fffff", "7f4161ff", "bf01ff", "8201ff", "0101", "9bffffffffffffffff", "bb800000000000000001", "5bffffffffffffffff", "7affffffff00", "9f", "5f", ""] {
        assert!(!check(&unhex(hex)), "{}", hex);
    }
}

#[test]
fn nesting_is_bounded() {
    for open in [&[0x81][..], &[0x9f], &[0xc1], &[0xa1, 0x00], &[0xa1]] {
        let nested = |levels| {
            let mut bytes = open.repeat(levels);
            bytes.push(0);
            if open[0] != 0x9f { bytes.resize(bytes.len() + if open == [0xa1] { levels } else { 0 }, 0) } else { bytes.resize(bytes.len() + levels, 0xff) }
            bytes
        };
        assert!(from_slice::<Value>(&nested(258)).is_ok());
        for levels in [259, 1 << 20] {
            assert!(from_slice::<Value>(&nested(levels)).unwrap_err().to_string().contains("nested deeper"));
            assert!(from_slice::<Raw>(&nested(levels)).unwrap_err().to_string().contains("nested deeper"));
        }
    }
}
