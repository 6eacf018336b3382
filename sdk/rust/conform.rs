//! A guest with all of the SDK, for the conformance tests: the key "do" of a chunk
//! says which part to use, and any other chunk comes back in its preferred
//! serialization (RFC 8949, section 4.1).
mod wasm_jobs;

use wasm_jobs::{Failure, Kind, Raw, Value};

wasm_jobs::guest! { exec: exec, aggregate: echo, merge: echo, setup: setup }

wasm_jobs::cbor_struct! {
    struct Fail {
        kind: u8,
        message: String,
    }
}

wasm_jobs::cbor_struct! {
    struct Log {
        level: i32,
        message: String,
    }
}

fn exec(chunk: Raw) -> Result<Value, Failure> {
    match chunk.field::<String>("do").as_deref() {
        Ok("fail") => Err(failure(chunk.decode()?)?),
        Ok("log") => {
            let Log { level, message } = chunk.decode()?;
            wasm_jobs::log_at(level, &message);
            Ok(Value::Null)
        }
        Ok("heartbeat") => Ok(Value::Bool(wasm_jobs::heartbeat())),
        Ok("trap") => panic!("as the chunk asks"),
        _ => Ok(chunk.decode()?),
    }
}

fn failure(asked: Fail) -> Result<Failure, Failure> {
    let kind = match asked.kind {
        0 => Kind::Permanent,
        1 => Kind::Retryable,
        2 => Kind::Requeue,
        other => return Err(format!("chunk.kind: unknown kind {}", other).into()),
    };
    Ok(Failure { kind, message: asked.message })
}

fn echo(input: Value) -> Result<Value, Failure> {
    Ok(input)
}

fn setup(context: Raw) -> Result<(), Failure> {
    match context.field::<String>("do").as_deref() {
        Ok("fail") => Err(failure(context.decode()?)?),
        _ => Ok(()),
    }
}
